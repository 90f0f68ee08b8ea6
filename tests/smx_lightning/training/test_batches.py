"""Batches of every ordinary kind, through ``unpack``: each trains as the plain pair (x, y) does."""

import itertools
from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_export import OnnxExport, export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.data import BatchLoader, Rows
from smx_lightning.optim import ExactSolver, minimise
from smx_lightning.training.batches import unpacked

N, D, K = 48, 4, 3
rng = np.random.default_rng(0)
X = torch.from_numpy(rng.normal(100, 20, (N, D)).astype(np.float32))
Y = torch.from_numpy(np.argmax(X[:, :K].numpy() + rng.normal(0, 5, (N, K)), 1))
INTEGERS = [
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


@dataclass
class Sample:
    path: int
    target: torch.Tensor
    features: torch.Tensor


Named = namedtuple("Named", ["labels", "pixel_values"])
Placed = namedtuple("Placed", ["first", "second", "third"])
# From inputs and labels to a batch.
KINDS = {
    "list": lambda x, y: [x, y],
    "more": lambda x, y: (x, y, torch.arange(len(x)), "path"),
    "dict": lambda x, y: {"y": y, "x": x},
    "more in a dict": lambda x, y: {"input": x, "label": y, "index": 3, "logits": y},
    "Hugging Face": lambda x, y: OrderedDict(labels=y, pixel_values=x),
    "image": lambda x, y: {"image": x, "label": y},
    "dataclass": lambda x, y: Sample(3, y, x),
    "namedtuple": lambda x, y: Named(y, x),
    "namedtuple by place": lambda x, y: Placed(x, y, y),
    "labels of one column": lambda x, y: (x, y[:, None]),
    **{str(d): partial(lambda d, x, y: (x, y.to(d)), d) for d in INTEGERS},
}


def loader(make, x=X, y=Y, size=16):
    """Batches made of the rows in order."""
    return DataLoader(
        [*zip(x, y, strict=True)],
        batch_size=size,
        collate_fn=lambda rows: make(*map(torch.stack, zip(*rows, strict=True))),
    )


def made(kind=SoftmaxRegression, **kwargs):
    torch.manual_seed(1)
    given = {"preprocessing": "standardize", "class_weight": "balanced", "l2": 1e-3}
    return kind(D, K, **(given | kwargs))


def run(make, tmp_path, model=None, **kwargs):
    """All that training and evaluation leave behind."""
    model = made(**kwargs) if model is None else model
    order, onnx = PredictionsInOrder(), OnnxExport(str(tmp_path / "model.onnx"))
    trainer = quiet_trainer(max_epochs=2, callbacks=[order, onnx])
    trainer.fit(model, loader(make), loader(make, X[:20], Y[:20]))
    found = {**model.state_dict(), **trainer.callback_metrics}
    trainer.test(model, loader(make), verbose=False)
    found |= trainer.callback_metrics
    trainer.predict(model, loader(make), return_predictions=False)
    assert onnx.export.report.passed
    return found | {
        "confusion": model.confusion_matrix,
        "probs": order.prediction.probs,
        "rows compared": torch.tensor(onnx.export.report.task.rows),
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(lambda x, y: (x, y), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_each_kind_trains_tests_and_exports_as_a_pair_does(kind, plain, tmp_path):
    assert_same(run(KINDS[kind], tmp_path), plain)


@pytest.mark.parametrize(
    "labels", [Y.to(torch.uint16), Y.to(torch.uint64), Y[:, None], Y.numpy()[:, None]]
)
def test_labels_of_each_kind_are_compared_with_the_file_s(labels, tmp_path):
    model = made(preprocessing="none", class_weight=None)
    task = export_onnx(model, tmp_path / "model.onnx", data=(X, labels)).report.task
    right = float((model(X).argmax(1) == Y).double().mean())
    assert (task.rows, task.model_accuracy) == (N, pytest.approx(right))


class Own(SoftmaxRegression):
    """Batches as nobody else has them; every method of the model must ask this one."""

    def unpack(self, batch):
        return batch["rows"]["pixels"], batch["digit"]


def test_a_subclass_s_own_unpack_is_asked_wherever_a_batch_is_read(plain, tmp_path):
    def make(x, y):
        return {"rows": {"pixels": x}, "digit": y.to(torch.uint16), "y": "a file", "x": "another"}

    assert_same(run(make, tmp_path, made(Own)), plain)
    model = made(Own)
    model.fit_statistics(loader(make))
    torch.testing.assert_close(model.preprocessing.mean, X.mean(0))


@pytest.mark.parametrize(
    ("kind", "activation"),
    [
        *itertools.product(["Hugging Face", "more", "labels of one column"], ["softmax"]),
        ("torch.uint16", "sparsemax"),
    ],
)
def test_the_exact_solver_ends_at_the_optimum_of_any_kind_of_batch(kind, activation):
    model = made(
        optimizer=ExactSolver, class_weight=None, preprocessing="none", l2=1.0,
        activation=activation,
    )  # fmt: skip
    quiet_trainer(max_epochs=200).fit(model, loader(KINDS[kind]))
    # Which of the two depends on how a processor rounds.
    assert model.solver.status.name in ("CONVERGED", "PRECISION")
    if activation == "softmax":
        judge = LogisticRegression(C=1 / N, tol=1e-10, max_iter=10000).fit(X.double(), Y)
        expected = torch.from_numpy(judge.predict_log_proba(X.double()))
        torch.testing.assert_close(model(X).double(), expected, atol=1e-4, rtol=1e-4)
    else:
        judge = minimise([(X, Y)], D, K, l2=1.0, activation=activation)
        torch.testing.assert_close(model.linear.weight.data, judge.weight, atol=1e-5, rtol=1e-4)


def test_bool_labels_are_classes_0_and_1(tmp_path):
    y = Y == 2
    found = []
    for labels in (y, y.long()):
        torch.manual_seed(0)
        model = SoftmaxRegression(D, 2, preprocessing="standardize", class_weight="balanced")
        rows = TensorDataset(X, labels)
        trainer = quiet_trainer(max_epochs=2)
        trainer.fit(model, DataLoader(rows, batch_size=16), DataLoader(rows, batch_size=16))
        found.append({**model.state_dict(), **trainer.callback_metrics})
    assert found[0]["class_counts"].tolist() == [int((~y).sum()), int(y.sum())]
    assert_same(*found)
    task = export_onnx(model, tmp_path / "model.onnx", data=(X, y)).report.task
    assert task.model_accuracy == pytest.approx(float((model(X).argmax(1) == y).double().mean()))


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_labels_of_every_dtype_enter_by_every_door(dtype):
    y = Y.to(dtype)
    model = made(preprocessing="none", class_weight=[1.0, 2.0, 0.5])
    weights = torch.tensor([1.0, 2.0, 0.5])[Y]
    expected = -(model(X).gather(1, Y[:, None])[:, 0] * weights).sum() / weights.sum()
    torch.testing.assert_close(model.loss(model(X), y), expected)
    penalty = 0.5e-3 * model.linear.weight.square().sum()
    torch.testing.assert_close(model.objective(X, y), expected + penalty)
    torch.testing.assert_close(model.training_step((X, y), 0), expected + penalty)
    for x in (X, X.short(), X.to(torch.uint16)):
        whole = torch.cat([x for x, _ in BatchLoader(Rows(x, y), batch_size=7)])
        assert torch.equal(whole, x)
    found = minimise([(X, y)], D, K, l2=1.0)
    assert torch.equal(found.weight, minimise([(X, Y)], D, K, l2=1.0).weight)
    for stage in ("train", "val"):
        for name, metric in model.configure_metrics(stage).items():
            metric.update(model(X).detach(), y)
            value = metric.compute()
            metric.reset()
            metric.update(model(X).detach(), Y)
            assert torch.equal(value, metric.compute()), name


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x,
        lambda x: [x],
        lambda x: (x,),
        lambda x: {"pixel_values": x},
        lambda x: {"x": x, "path": "a", "label": None},
        lambda x: Sample(0, None, x),
        lambda x: (x, ["a", "b"]),
    ],
)
def test_rows_without_labels_are_predicted(make):
    model = made(preprocessing="none")
    batches = [make(part) for part in X.split(20)]
    found = quiet_trainer().predict(model, DataLoader(batches, batch_size=None))
    labels, probs = (torch.cat(part) for part in zip(*found, strict=True))
    torch.testing.assert_close(probs, model(X).exp().detach())
    assert torch.equal(labels, probs.argmax(1))


def test_what_has_no_known_input_is_a_dict_of_named_inputs():
    batch = {"input_ids": 1, "attention_mask": 2, "labels": 3}
    assert unpacked(batch) == ({"input_ids": 1, "attention_mask": 2}, 3)
    assert unpacked({"input_ids": 1}) == ({"input_ids": 1}, None)
    assert unpacked(({"a": 1, "y": 2}, 3)) == ({"a": 1, "y": 2}, 3)  # of a pair nothing is unpacked


def as_it_is(batch):
    return batch


class Wrong(SoftmaxRegression):
    def unpack(self, batch):
        return batch[0]


REFUSED = {
    "two inputs": (
        {"x": X, "features": X, "y": Y},
        "expected one of x, features in a batch, got all of these in dict of x, features, y; leave "
        "one, or override unpack",
    ),
    "two labels": ({"x": X, "label": Y, "labels": Y}, "expected one of label, labels in a batch"),
    "no inputs": ({"labels": Y}, "expected inputs in a batch, got dict of labels; name them x"),
    "nothing": ((), r"got tuple of nothing; override unpack\(batch\)"),
    "an array": (X.numpy(), r"expected a batch \(x, y\), .* got ndarray; override unpack"),
    "a string": ("rows", "got str; override unpack"),
    "no labels": (X, "expected labels as a tensor in the train batches, got none in Tensor"),
    "labels of strings": (
        (X, ["cat"] * N),
        "as a tensor in the train batches, got list of str, str, .* in tuple of Tensor, list; give",
    ),
    "other names": ({"data": X, "cls": Y}, "got none in dict of data, cls; give batches"),
    "whole floats": (
        (X, Y.float()),
        r"labels must be integers of shape \(n,\), got float32 of shape \(48,\) in the train "
        r"batches; give one class index a row, y.long\(\) of whole numbers",
    ),
    "a column of floats": ((X, Y[:, None].double()), r"shape \(48, 1\) .*, y.long\(\) of whole"),
    "too few labels": (
        (X, Y[:3]),
        r"expected a label for each of the 48 rows of a batch, got labels of shape \(3,\); give",
    ),
    "a single label": (
        (X, Y[0]),
        r"for each of the 48 rows|of shape \(n,\), got int64 of shape \(\)",
    ),
    "one-hot": ((X, torch.eye(K).long()[Y]), r"y.argmax\(1\) where they are one-hot"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, ExactSolver])
def test_another_batch_is_refused_in_one_sentence(case, optimizer):
    batch, sentence = REFUSED[case]
    model = made(preprocessing="none", class_weight=None, optimizer=optimizer)
    with pytest.raises(InputError, match=sentence):
        quiet_trainer().fit(model, DataLoader([batch], batch_size=None, collate_fn=as_it_is))


def test_arrays_in_an_objective_are_asked_for_as_tensors():
    model = made(preprocessing="none", class_weight=None)
    with pytest.raises(InputError, match=r"labels as a tensor, got ndarray; make them one with to"):
        model.objective(X, Y.numpy())
    with pytest.raises(InputError, match=r"inputs as a tensor \(batch, …\), got ndarray; give one"):
        model.objective(X.numpy(), Y)
    with pytest.raises(InputError, match=r"for each of the 48 rows of a batch, got .* \(3,\)"):
        quiet_trainer().validate(model, DataLoader([(X, Y[:3])], batch_size=None), verbose=False)


def test_a_pair_that_is_none_is_refused_by_the_name_of_the_class():
    with pytest.raises(InputError, match=r"expected Wrong.unpack to return \(x, y\), .* Tensor"):
        made(Wrong).training_step((X, Y), 0)


def test_a_step_of_one_s_own_may_read_what_unpack_does_not_know(tmp_path):
    class Triplet(SoftmaxRegression):
        def training_step(self, batch, batch_idx):
            return self.objective(batch.anchors, batch.classes)

        validation_step = training_step

    @dataclass
    class Anchors:
        anchors: torch.Tensor
        classes: torch.Tensor

    model = made(Triplet, preprocessing="none", class_weight=None)
    trainer = quiet_trainer(callbacks=[OnnxExport(str(tmp_path / "m.onnx"))])
    trainer.fit(model, loader(Anchors), loader(Anchors))
    assert {"train/nll", "val/nll"} <= {*trainer.callback_metrics}


# What features answers ----------------------------------------------------------------------


class Answering(SoftmaxRegression):
    answer = staticmethod(lambda x: x)

    def features(self, x):
        return self.answer(x)


@pytest.mark.parametrize("shape", [(D, 1, 1), (D, 1), (1, D), (2, D // 2), (1, D, 1, 1)])
def test_maps_of_features_are_unrolled_and_exported(shape, tmp_path):
    kind = type("Map", (Answering,), {"answer": staticmethod(lambda x: x.unflatten(1, shape))})
    model, flat = made(kind), made()
    for one in (model, flat):
        one.fit_statistics([(X, Y)])
    assert torch.equal(model(X), flat(X))
    assert torch.equal(model.scores(X), flat.scores(X))
    if shape == (D, 1, 1):
        assert model.to_onnx(tmp_path / "map.onnx").is_file()


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda x: {"last_hidden_state": x, "pooled": x}, "dict of last_hidden_state, pooled"),
        (lambda x: (x, None), "tuple of Tensor, NoneType"),
        (lambda x: Named(x, x), "Named of labels, pixel_values"),
        (lambda x: Sample(1, x, x), "Sample of path, target, features"),
        (lambda x: None, "NoneType"),
        (lambda x: x.numpy(), "ndarray"),
    ],
)
def test_features_that_are_no_tensor_are_refused_by_the_name_of_what_came(answer, named):
    kind = type("Answers", (Answering,), {"answer": staticmethod(answer)})
    model = made(kind)
    with pytest.raises(InputError, match=rf"features as a tensor \(batch, 4\), got {named}; let"):
        quiet_trainer().fit(model, loader(KINDS["list"]))


def test_other_numbers_of_features_are_refused_as_ever():
    kind = type("Wide", (Answering,), {"answer": staticmethod(lambda x: x[:, :, None, None])})
    with pytest.raises(InputError, match=r"expected 4 features a row, got 5 \(shape \(2, 5, 1, 1"):
        made(kind)(torch.zeros(2, 5))
    with pytest.raises(InputError, match=r"inputs as a tensor \(batch, …\), got dict of a; give"):
        made()({"a": X})


# Several loaders ----------------------------------------------------------------------------

PARTS = [slice(0, 10), slice(10, 37), slice(37, 48)]
DL = "/dataloader_idx_"


def expected_nll(model, part):
    return -model(X[part]).gather(1, Y[part][:, None]).mean().detach()


def loaders(parts=PARTS):
    return [DataLoader(TensorDataset(X[p], Y[p]), batch_size=4) for p in parts]


@pytest.mark.parametrize("streams", [False, True])
def test_several_loaders_have_metrics_each_and_together(streams, capsys):
    model = made()
    given = loaders()
    if streams:
        given = [DataLoader([*one], batch_size=None) for one in given]
    trainer = quiet_trainer(num_sanity_val_steps=2)
    trainer.fit(model, loader(KINDS["list"]), given)
    for index, part in enumerate(PARTS):
        logged = trainer.callback_metrics[f"val/nll{DL}{index}"]
        torch.testing.assert_close(logged, expected_nll(model, part))
    torch.testing.assert_close(trainer.callback_metrics["val/nll"], expected_nll(model, slice(N)))
    answers = trainer.test(model, given)
    table = capsys.readouterr().out
    rows = [line.split() for line in table.splitlines() if "test/nll" in line]  # of a table or two
    shown = [float(word.rstrip("…")) for row in rows for word in row if word[:1].isdigit()]
    for index, part in enumerate(PARTS):
        own = float(expected_nll(model, part))
        assert answers[index][f"test/nll{DL}{index}"] == pytest.approx(own, rel=1e-5)
        assert shown[index] == pytest.approx(own, rel=1e-5)
        assert answers[index]["test/nll"] == pytest.approx(float(expected_nll(model, slice(N))))
    assert int(model.confusion_matrix.sum()) == N
    (one,) = trainer.test(model, given[0], verbose=False)
    assert {name for name in one if DL in name} == set()
    assert one["test/nll"] == pytest.approx(float(expected_nll(model, PARTS[0])), rel=1e-5)


def test_a_loader_without_rows_among_several_takes_no_name_of_another(capsys):
    empty = DataLoader(TensorDataset(X[:0], Y[:0]), batch_size=4)
    model = made(preprocessing="none", class_weight=None)
    for place in (0, 1, 2):
        given = loaders(PARTS[:2])
        given.insert(place, empty)
        with pytest.warns(UserWarning, match="Total length of `.*` across ranks is zero"):
            answers = quiet_trainer().test(model, given, verbose=False)
        found = {name: v for answer in answers for name, v in answer.items() if "nll/" in name}
        filled = [index for index in range(3) if index != place]
        assert {*found} == {f"test/nll{DL}{index}" for index in filled}
        for index, part in zip(filled, PARTS, strict=False):
            own = pytest.approx(float(expected_nll(model, part)), rel=1e-5)
            assert found[f"test/nll{DL}{index}"] == own


def test_a_head_in_a_host_counts_by_loader_too():
    class Host(LightningModule):
        def __init__(self):
            super().__init__()
            self.head = made(preprocessing="none", class_weight=None, l2=0.0)

        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return self.head.objective(*batch)

    host = Host()
    answers = quiet_trainer().test(host, loaders(), verbose=False)
    for index, part in enumerate(PARTS):
        own = pytest.approx(float(expected_nll(host.head, part)), rel=1e-5)
        assert answers[index][f"head/test/nll{DL}{index}"] == own


def test_predictions_of_several_loaders_follow_one_another():
    model, order = made(preprocessing="none"), PredictionsInOrder()
    shuffled = [
        BatchLoader(Rows(X[part], Y[part]), batch_size=4, shuffle=True, seed=index)
        for index, part in enumerate(PARTS)
    ]
    answers = quiet_trainer(callbacks=[order]).predict(model, shuffled)
    assert [len(answer) for answer in answers] == [3, 7, 3]
    torch.testing.assert_close(order.prediction.probs, model(X).exp().detach())
    assert torch.equal(order.prediction.label, order.prediction.probs.argmax(1))


@pytest.mark.parametrize("monitor", ["val/nll", f"val/nll{DL}1"])
def test_a_checkpoint_is_chosen_by_all_loaders_together_or_by_one(monitor, tmp_path):
    best = ModelCheckpoint(tmp_path, monitor=monitor)
    trainer = quiet_trainer(max_epochs=3, callbacks=[best], enable_checkpointing=True)
    model = made()
    trainer.fit(model, loader(KINDS["list"]), loaders())
    kept = SoftmaxRegression.load_from_checkpoint(best.best_model_path)
    part = slice(N) if monitor == "val/nll" else PARTS[1]
    assert float(best.best_model_score) == pytest.approx(float(expected_nll(kept, part)), rel=1e-5)


def test_a_dict_of_several_inputs_and_their_label_is_read_by_the_model_s_own_names():
    batch = {"image": 1, "features": 2, "label": 3, "path": 4}
    assert unpacked(batch, ("image", "features")) == ({"image": 1, "features": 2}, 3)
    assert unpacked({"image": 1, "features": 2}, ("features", "image")).y is None
    assert unpacked({"ids": 1, "label": 2, "y": 3}, ("ids", "label")) == ({"ids": 1, "label": 2}, 3)
    with pytest.raises(InputError, match="expected one of y, label"):
        unpacked({"ids": 1, "label": 2, "y": 3}, ("ids",))
