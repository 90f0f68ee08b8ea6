"""Digits that float32 would lose: numpy in float64 and scikit-learn are the judges.

Columns such as 1.7e9 + uniform(0, 64), coordinates and long ids, from the file of data through
training to the exported file and the runtimes that ask it.
"""

import copy
from functools import partial

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from references import log_softmax
from sampled import examples, sampled
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smx_export import FileError, ParityError, check_parity, export_onnx
from smx_export.artifact.describe import describe
from smx_export.artifact.files import read_onnx, sealed
from smx_export.artifact.sidecar import sidecar
from smx_export.predict import predict
from smx_export.runtime import OnnxClassifier
from smx_export.targets import target
from smx_export.targets.matrix import matrix
from smx_export.targets.report import NOT_RUN, PASSED
from smx_export.targets.selftest import selftest
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint import read_checkpoint
from smx_lightning.data import NpzDataModule
from smx_lightning.optim import ExactSolver
from smx_lightning.preprocessing.digits import wide_columns
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.preprocessing.standardization import Preprocessing

N = 1200


def problem(offset, width, dtype=np.float64, n=N, seed=0):
    """Two classes that a line separates, on columns that lie at ``offset``; float32 fits the last.

    The line is drawn through the values as they are stored, with a margin.
    """
    rng = np.random.default_rng(seed)
    x = np.column_stack([
        (offset + rng.uniform(0, width, (2 * n, 2))).astype(dtype), rng.integers(-9, 9, 2 * n)
    ])  # fmt: skip
    z = ((x[:, :2].astype(np.float64) - offset) / width - 0.5) @ [1, -1] + x[:, 2] / 40
    clear = np.abs(z) > 0.08
    return x[clear][:n], (z > 0).astype(np.int64)[clear][:n]


def saved(folder, x, y, **more):
    np.savez(folder / "d.npz", x=x, y=y, **more)
    return folder / "d.npz"


OFFSETS = {
    "seconds since 1970": (1.7e9, 64, np.float64),
    "coordinates of a plot": (5.3e6, 4, np.float64),
    "long ids": (123_456_789_000, 3000, np.int64),
    "ids of eight digits": (98_765_432, 40, np.int32),
    "below zero": (-4e8, 10, np.float64),
    "tiny": (1e-3, 1e-9, np.float64),
    "far": (1e15, 1e6, np.float64),
}
cases = pytest.mark.parametrize("case", sampled(OFFSETS, every=2))


@pytest.fixture(scope="module")
def solved(tmp_path_factory):
    """Of each case: the data, the data module, and the model at the exact optimum."""
    from trainers import quiet_trainer

    known = {}

    def solve(case):
        if case not in known:
            folder = tmp_path_factory.mktemp("wide")
            x, y = problem(*OFFSETS[case])
            data = NpzDataModule(saved(folder, x, y))
            model = SoftmaxRegression(
                3, 2, l2=1e-4, preprocessing="standardize", optimizer=ExactSolver
            )
            trainer = quiet_trainer(max_epochs=100)
            trainer.fit(model, data)
            trainer.save_checkpoint(folder / "wide.ckpt")
            known[case] = x, y, data, model, folder / "wide.ckpt"
        return known[case]

    return solve


@pytest.fixture(scope="module")
def wide(solved):
    return solved("seconds since 1970")


# Training ----------------------------------------------------------------------------------------


@cases
def test_training_sees_what_scikit_learn_sees_in_float64(case, solved, quiet_trainer):
    x, _, data, model, _ = solved(case)
    assert data.wide_columns == [0, 1]
    assert data.splits.train.x.dtype == torch.float64
    judge = StandardScaler().fit(data.splits.train.x.numpy())
    step = model.preprocessing
    np.testing.assert_allclose(step.scale, judge.scale_, rtol=1e-6)
    assert np.all(np.abs(step.centre.numpy() - judge.mean_) <= 1e-4 * judge.scale_)
    test = data.splits.test
    # Of two classes scikit-learn penalises one row of weights, which is twice either of ours.
    right = LogisticRegression(C=2 / (1e-4 * len(data.splits.train)), tol=1e-8, max_iter=1000)
    right.fit(judge.transform(data.splits.train.x.numpy()), data.splits.train.y)
    score = right.score(judge.transform(test.x.numpy()), test.y)
    (found,) = quiet_trainer().test(model, data, verbose=False)
    assert score > 0.98
    assert abs(found["test/accuracy_micro"] - score) <= 1 / len(test)
    probs = model(test.x).detach().exp().numpy()
    np.testing.assert_allclose(
        probs, right.predict_proba(judge.transform(test.x.numpy())), atol=1e-3
    )
    float32 = x.astype(np.float32).astype(np.float64)  # which would have lost it
    lost = np.abs(float32 - x)[:, :2].max(0) / x[:, :2].astype(np.float64).std(0)
    assert (lost > 2**-10).all()


def test_any_optimiser_and_any_loader_keeps_the_digits(quiet_trainer):
    x, y = problem(*OFFSETS["seconds since 1970"])
    for values in (x, x.astype(np.int64)):  # whole seconds still tell the classes apart
        rows = TensorDataset(torch.from_numpy(values), torch.from_numpy(y))
        fast = partial(torch.optim.Adam, lr=0.1)
        model = SoftmaxRegression(3, 2, preprocessing="standardize", optimizer=fast)
        trainer = quiet_trainer(max_epochs=12)
        trainer.fit(model, DataLoader(rows, 100, shuffle=True))
        assert model.preprocessing.wide_features == [0, 1]
        (found,) = trainer.test(model, DataLoader(rows, 500), verbose=False)
        assert found["test/accuracy_micro"] > 0.98


@pytest.mark.parametrize("precision", ["64-true", "bf16-mixed"])
def test_precisions_that_leave_inputs_alone_keep_the_digits(precision, wide, quiet_trainer):
    data = wide[2]
    fast = partial(torch.optim.Adam, lr=0.1)
    model = SoftmaxRegression(3, 2, preprocessing="standardize", optimizer=fast)
    trainer = quiet_trainer(max_epochs=30, precision=precision)
    trainer.fit(model, data)
    (found,) = trainer.test(model, data, verbose=False)
    assert found["test/accuracy_micro"] > 0.98


def test_weight_averaging_keeps_the_digits(wide, quiet_trainer):
    """It copies and averages buffers one by one, into a model that was made before the fit."""
    from lightning.pytorch.callbacks import EMAWeightAveraging

    data = wide[2]
    model = SoftmaxRegression(3, 2, preprocessing="standardize", optimizer=torch.optim.Adam)
    callback = EMAWeightAveraging(decay=0.9)
    with pytest.warns(UserWarning, match="overrides the configure_model"):
        quiet_trainer(max_epochs=2, callbacks=[callback]).fit(model, data)
    assert (model.preprocessing.centre - wide[3].preprocessing.centre).abs().max() < 1e-4


def test_a_resumed_run_and_a_copied_state_have_the_digits(wide, quiet_trainer):
    data, model, checkpoint = wide[2:]
    resumed = SoftmaxRegression(3, 2, l2=1e-4, preprocessing="standardize", optimizer=ExactSolver)
    quiet_trainer(max_epochs=101).fit(resumed, data, ckpt_path=checkpoint, weights_only=True)
    for assign in (False, True):
        copied = SoftmaxRegression(3, 2, preprocessing="standardize")
        copied.load_state_dict(resumed.state_dict(), assign=assign)
        assert torch.equal(copied.preprocessing.centre, model.preprocessing.centre)
        assert copied.preprocessing.wide_features == [0, 1]


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_no_cast_rounds_the_mean(cast, wide):
    step = copy.deepcopy(wide[3].preprocessing)
    before = step.centre.clone()
    assert torch.equal(getattr(step, cast)().centre, before)


@given(
    mean=st.floats(1e3, 1e14),
    ratio=st.floats(1e-11, 1e-6),
    negative=st.booleans(),
    seed=st.integers(0, 9),
)
@settings(max_examples=examples(80))
def test_standardised_values_are_numpy_s(mean, ratio, negative, seed):
    mean *= -1 if negative else 1
    x = mean + mean * ratio * np.random.default_rng(seed).standard_normal((200, 1))
    step = Preprocessing(1, "standardize")
    step.fit(Moments.of(torch.from_numpy(x[:77])).merged(Moments.of(torch.from_numpy(x[77:]))))
    truth = (x - x.mean(0)) / x.std(0)
    noise = 16 * np.spacing(abs(mean)) / x.std(0)
    error = np.abs(step(torch.from_numpy(x)).numpy() - truth)
    assert (error <= 1e-6 * np.abs(truth) + 1e-6 + noise).all()


def test_a_mean_that_float32_holds_is_wide_all_the_same():
    """Nothing of the mean is left over; the rows need float64 as much."""
    x = np.float64(2**31) + np.array([-3.0, -1, 1, 3])[:, None]
    step = Preprocessing(1, "standardize")
    step.fit(Moments.of(torch.from_numpy(x)))
    assert step.wide_features == [0]
    np.testing.assert_allclose(step(torch.from_numpy(x)).ravel(), np.array([-3, -1, 1, 3]) / 5**0.5)


# What stays as it was ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "x",
    [
        np.random.default_rng(0).standard_normal((300, 4)),
        np.random.default_rng(0).uniform(0, 1, (300, 4)),
        np.random.default_rng(0).integers(0, 256, (300, 4)),
        1e4 + np.random.default_rng(0).standard_normal((300, 4)),
        np.random.default_rng(0).integers(0, 10**8, (300, 4)),
        np.full((300, 4), 1e9 + 0.1),
        np.zeros((300, 4)),
        10 ** np.random.default_rng(0).uniform(-30, 30, (300, 4)),
        1e-40 * np.random.default_rng(0).standard_normal((300, 4)),
    ],
    ids=["normal", "uniform", "bytes", "near", "ids far apart", "constant", "zero", "log", "tiny"],
)
def test_what_float32_holds_well_enough_stays_float32_bit_for_bit(x, tmp_path):
    data = NpzDataModule(
        saved(tmp_path, x, np.arange(300) % 2, x_test=x, y_test=np.arange(300) % 2)
    )
    assert data.wide_columns == []
    assert data.splits.test.x.dtype == torch.float32
    np.testing.assert_array_equal(data.splits.test.x, x.astype(np.float32))


def test_float32_data_of_a_large_mean_are_float32_in_the_file_too(tmp_path, quiet_trainer):
    """What float32 holds exactly it can be asked in: a rounded mean is as good as another one."""
    rng = np.random.default_rng(0)
    x = (2**23 + rng.integers(0, 8, (400, 2))).astype(np.float32)
    y = (x[:, 0] - x[:, 1] > 0).astype(np.int64)
    data = NpzDataModule(saved(tmp_path, x, y))
    model = SoftmaxRegression(2, 2, preprocessing="standardize", optimizer=ExactSolver, l2=1e-4)
    quiet_trainer(max_epochs=100).fit(model, data)
    assert not model.preprocessing.mean_rest.any()
    judge = StandardScaler().fit(data.splits.train.x.double())  # its mean is not rounded
    z, train = judge.transform(x.astype(np.float64)), judge.transform(data.splits.train.x.double())
    right = LogisticRegression(C=2 / (1e-4 * len(train)), tol=1e-8, max_iter=1000)
    right.fit(train, data.splits.train.y)
    probs = model(torch.from_numpy(x)).detach().exp().numpy()
    np.testing.assert_allclose(probs, right.predict_proba(z), atol=1e-3)
    export_onnx(model, tmp_path / "m.onnx", data=(x, y))
    assert "input: float32" in describe(tmp_path / "m.onnx").inputs
    assert (OnnxClassifier(tmp_path / "m.onnx").predict(x) == y).mean() > 0.99


def test_a_checkpoint_of_0_1_has_no_rest_and_loads(checkpoint, trained, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    del content["state_dict"]["preprocessing.mean_rest"]
    torch.save(content, tmp_path / "old.ckpt")
    old = SoftmaxRegression.load_from_checkpoint(tmp_path / "old.ckpt", weights_only=True)
    assert torch.equal(old.preprocessing.mean, trained.preprocessing.mean.cpu())
    assert not old.preprocessing.mean_rest.any()
    assert "preprocessing.mean" in read_checkpoint(tmp_path / "old.ckpt").state_dict


@pytest.mark.parametrize("chunk", [1, 7, 10**6])
def test_columns_are_judged_in_chunks_of_rows(chunk, monkeypatch):
    x = np.column_stack([np.arange(50.0), 1e9 + np.arange(50) / 8, 1e9 + np.arange(50) * 1e7])
    monkeypatch.setattr("smx_lightning.preprocessing.digits.CHUNK_ELEMENTS", chunk)
    assert wide_columns(x) == [1]
    assert wide_columns(x.reshape(50, 3, 1)) == [1]
    assert wide_columns(x.astype(np.float32)) == []


# Refusals ----------------------------------------------------------------------------------------


def loader(x, y):
    return DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), 100)


class Flat(SoftmaxRegression):
    def features(self, x):
        return x.flatten(1)


NONE, SCALED = ({"preprocessing": p} for p in ("none", "scale"))
REFUSED = [
    (NONE, {}, "with preprocessing='none'; take preprocessing='standardize', or subtract"),
    ({"class_weight": "balanced"}, {}, "with preprocessing='none'; take preprocessing='sta"),
    (SCALED, {}, "with preprocessing='scale'; take preprocessing='stan"),
    ({"kind": Flat}, {}, "with Flat.features, which need not keep them; leave features as it"),
    ({"kind": Flat, "preprocessing": "standardize"}, {}, "with Flat.features, which need not"),
    ({"preprocessing": "standardize"}, {"precision": "bf16-true"},
     "with Trainer precision bf16-true, which makes inputs bfloat16; take precision 32-true"),
]  # fmt: skip
# A loader's batches are bfloat16 before the model sees them, as was asked for.
CASES = [(own, *case) for own in (False, True) for case in REFUSED if not (own and case[1])]


@pytest.mark.parametrize(("own_loader", "model", "trainer", "message"), CASES)
def test_digits_that_would_be_lost_are_refused_before_a_step(
    own_loader, model, trainer, message, wide, quiet_trainer
):
    x, y, data, *_ = wide
    made = {"kind": SoftmaxRegression, **model}
    model = made.pop("kind")(3, 2, **made)
    before = copy.deepcopy(model.state_dict())
    fit = (loader(x, y),) if own_loader else (data,)
    with pytest.raises(
        InputError, match=r"got column 0 \(2 such columns\), which .* 1/1024"
    ) as said:
        quiet_trainer(**trainer).fit(model, *fit)
    assert message in str(said.value)
    assert all(
        torch.equal(before[name].to(value.dtype), value)
        for name, value in model.state_dict().items()
    )


def test_the_remedy_of_subtracting_an_offset_works(wide, tmp_path, quiet_trainer):
    x, y, *_ = wide
    shifted = x - [x[:, 0].min(), x[:, 1].min(), 0]
    data = NpzDataModule(saved(tmp_path, shifted, y))
    model = SoftmaxRegression(3, 2, preprocessing="scale")
    quiet_trainer(max_epochs=1).fit(model, data)
    quiet_trainer(max_epochs=1).fit(SoftmaxRegression(3, 2), loader(shifted, y))


def test_a_device_without_float64_is_refused(wide, quiet_trainer, monkeypatch):
    trainer = quiet_trainer()
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("mps"))
    from smx_lightning.preprocessing.digits import check_digits

    model = SoftmaxRegression(3, 2, preprocessing="standardize")
    model._trainer = trainer
    with pytest.raises(InputError, match="on mps, which has no float64; take accelerator='cpu'"):
        check_digits(model, [0])


def test_a_trained_model_is_not_asked_in_half_precision(wide, quiet_trainer):
    _, _, data, _, checkpoint = wide
    for ask in ("test", "validate", "predict"):
        model = SoftmaxRegression.load_from_checkpoint(checkpoint, weights_only=True)
        run = getattr(quiet_trainer(precision="bf16-true"), ask)
        with pytest.raises(InputError, match="with Trainer precision bf16-true"):
            run(model, data)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_columns_that_float64_cannot_standardise_are_refused(dtype, tmp_path):
    nanoseconds = (10**18 + 65536 * np.arange(40)).astype(dtype)
    path = saved(tmp_path, np.column_stack([np.arange(40), nanoseconds]), np.arange(40) % 2)
    with pytest.raises(InputError, match=r"got column 1 of x, whose values of 1e.18 vary by only"):
        _ = NpzDataModule(path).splits


# Evaluation and prediction -----------------------------------------------------------------------


def test_few_new_rows_are_served_as_the_model_needs_them(wide, tmp_path, quiet_trainer):
    """A row alone has no deviation: the model decides, not the file."""
    x, y, _, model, checkpoint = wide
    loaded = SoftmaxRegression.load_from_checkpoint(checkpoint, weights_only=True)
    np.savez(tmp_path / "new.npz", x=x[:1])
    data = NpzDataModule(tmp_path / "new.npz")
    (answer,) = quiet_trainer().predict(loaded, data)
    assert torch.equal(answer.probs, model(torch.from_numpy(x[:1])).exp())
    # The training rows of a file that is tested on decide nothing.
    path = saved(tmp_path, np.repeat(x[:1], 2, 0), np.array([0, 1]), x_val=x[:2], y_val=y[:2],
                 x_test=x[:100], y_test=y[:100])  # fmt: skip
    data = NpzDataModule(path)
    assert data.splits.test.x.dtype == torch.float32
    (found,) = quiet_trainer().test(loaded, data, verbose=False)
    assert data.splits.test.x.dtype == torch.float64
    assert found["test/accuracy_micro"] > 0.97


# The file ----------------------------------------------------------------------------------------


def truth_of(model, x):
    """Log-probabilities from the model's numbers alone, in float64."""
    step = model.preprocessing
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    z = (x - step.centre.numpy()) / step.scale.double().numpy()
    return log_softmax(z @ weight.T + bias)


@cases
def test_the_file_answers_as_the_model_does(case, solved, tmp_path):
    x, y, _, model, checkpoint = solved(case)
    export = export_onnx(checkpoint, tmp_path / "wide.onnx", data=(x, y))
    assert export.report.passed
    assert export.report.error_over_tolerance <= 1
    about = describe(tmp_path / "wide.onnx")
    assert about.inputs == "input: float64 ['batch', 3]"
    assert about.operators == ["Sub", "Cast", "Gemm", "LogSoftmax", "Softmax"]
    classifier = OnnxClassifier(tmp_path / "wide.onnx")
    truth = truth_of(model, x.astype(np.float64))
    np.testing.assert_allclose(np.log(classifier.predict_proba(x)), truth, rtol=1e-4, atol=1e-4)
    assert (classifier.predict(x.astype(np.float64)) == y).mean() > 0.98
    assert selftest(tmp_path / "wide.onnx").passed
    again = export_onnx(model, tmp_path / "again.onnx", data=(x, y))
    assert read_onnx(again.path).graph == read_onnx(export.path).graph


@pytest.mark.parametrize("profile", ["robust", "compact"])
def test_other_profiles_keep_the_digits_too(profile, wide, tmp_path):
    x, y, _, model, _ = wide
    export = export_onnx(model, tmp_path / "wide.onnx", profile=profile, data=(x, y))
    assert "float64" in describe(export.path).inputs
    assert (OnnxClassifier(export.path).predict(x) == y).mean() > 0.98
    assert selftest(export.path).passed


def test_bytes_of_profile_image_need_none_of_it(wide, tmp_path):
    data = wide[2]
    model = SoftmaxRegression.load_from_checkpoint(wide[4], weights_only=True)
    low, high = data.input_range
    export = export_onnx(model, tmp_path / "i.onnx", profile="image", input_range=(low, high))
    assert "uint8" in describe(export.path).inputs
    u = np.random.default_rng(0).integers(0, 256, (50, 3), np.uint8)
    truth = truth_of(model, low + (high - low) / 255 * u.astype(np.float64))
    np.testing.assert_array_equal(OnnxClassifier(export.path).predict(u), truth.argmax(1))


class NoBias(SoftmaxRegression):
    """A head that is not ours is traced."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.smx = nn.Sequential(nn.Linear(3, 2, bias=False), nn.LogSoftmax(1))


@pytest.mark.whole
def test_a_traced_model_keeps_the_digits_too(wide, tmp_path, quiet_trainer):
    x, y, data, *_ = wide
    model = NoBias(3, 2, preprocessing="standardize")
    quiet_trainer(max_epochs=40).fit(model, data)
    export = export_onnx(model, tmp_path / "traced.onnx", data=(x, y))
    assert "float64" in describe(export.path).inputs
    assert (OnnxClassifier(export.path).predict(x) == y).mean() > 0.97
    assert selftest(export.path).passed


def cast_first(proto):
    """The file takes float64 and loses the digits at once."""
    proto.graph.node[0].input[0] = "rounded"
    proto.graph.node.insert(0, helper.make_node("Cast", ["input"], ["round"], to=TensorProto.FLOAT))
    proto.graph.node.insert(
        1, helper.make_node("Cast", ["round"], ["rounded"], to=TensorProto.DOUBLE)
    )


def mean_in_float32(proto):
    (shift,) = (t for t in proto.graph.initializer if t.name == "shift")
    values = numpy_helper.to_array(shift).astype(np.float32).astype(np.float64)
    shift.CopyFrom(numpy_helper.from_array(values, "shift"))


def float32_file(proto):
    """As 0.1 would have written it."""
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT
    (shift,) = (t for t in proto.graph.initializer if t.name == "shift")
    values = numpy_helper.to_array(shift).astype(np.float32)
    shift.CopyFrom(numpy_helper.from_array(values, "shift"))
    proto.graph.node[0].output[0] = "narrowed"
    del proto.graph.node[1]


@pytest.mark.parametrize("corrupt", [cast_first, mean_in_float32, float32_file])
def test_a_file_that_loses_the_digits_fails(corrupt, wide, tmp_path):
    *_, model, checkpoint = wide
    export_onnx(checkpoint, tmp_path / "wide.onnx")
    proto = onnx.load(tmp_path / "wide.onnx")
    assert check_parity(model, tmp_path / "wide.onnx").passed
    corrupt(proto)
    (tmp_path / "bad.onnx").write_bytes(sealed(proto))
    report = check_parity(model, tmp_path / "bad.onnx")
    assert not report.passed
    seen_by = "input" if corrupt is float32_file else "log_probs against float64"
    assert seen_by in {check.name for check in report.failed}
    with pytest.raises(ParityError):
        report.raise_if_failed()


def test_its_own_vectors_see_lost_digits(wide, tmp_path):
    """Without the model: any runtime that rounds the inputs fails the file's self-test."""
    *_, checkpoint = wide
    path = export_onnx(checkpoint, tmp_path / "wide.onnx").path
    about = sidecar(path)
    assert about["input"]["dtype"] == about["selftest"]["dtype"] == "float64"
    proto = onnx.load(path)
    cast_first(proto)
    (tmp_path / "bad.onnx").write_bytes(sealed(proto))
    found = selftest(tmp_path / "bad.onnx")
    assert [c.name.split()[0] for c in found.checks if not c.passed] == ["onnxruntime"]


def test_runtimes_answer_right_or_are_not_run(wide, tmp_path):
    path = export_onnx(wide[4], tmp_path / "wide.onnx").path
    names = ["onnxruntime", "onnxruntime-oldest", "onnx-reference"]
    assert [row.verdict for row in matrix(path, names).rows] == [PASSED] * 3
    for name in ("openvino", "ncnn", "mnn", "litert"):
        assert not target(name).float64
        with pytest.raises(ValueError, match=f"takes float64 inputs, as the file does, got {name}"):
            target(name).check_takes(np.zeros((1, 3)))
        target(name).check_takes(np.zeros((1, 3), np.float32))
    rows = matrix(path, ["openvino"]).rows
    assert [row.verdict for row in rows] == [NOT_RUN]  # installed or not


def test_the_command_line_does_it_all(cli_folder, capsys):
    from smx_export.__main__ import main as smx_export
    from smx_lightning.cli import main as smx_lightning

    x, y = problem(*OFFSETS["seconds since 1970"])
    saved(cli_folder, x, y + 3)
    data = ["--data=NpzDataModule", "--data.path=d.npz", "--trainer.accelerator=cpu"]
    data += ["--trainer.enable_progress_bar=false"]
    fit = ["fit", "--model.optimizer=ExactSolver", "--onnx.path=wide.onnx", *data]
    assert smx_lightning(fit) == 0
    said = capsys.readouterr().out
    assert float(next(line for line in said.splitlines() if "micro" in line).split()[-1]) > 0.98
    classifier = OnnxClassifier(cli_folder / "wide.onnx")
    assert classifier.class_names == ["3", "4"]
    assert (classifier.predict(x) == y).mean() > 0.98
    (best,) = cli_folder.rglob("best.ckpt")
    assert smx_export(["verify", "wide.onnx", "--checkpoint", str(best), "--data", "d.npz"]) == 0
    assert smx_export(["selftest", "wide.onnx"]) == 0
    assert smx_lightning([*fit, "--model.preprocessing=none"]) == 2
    assert "got column 0 (2 such columns)" in capsys.readouterr().err


def test_rows_whose_digits_are_gone_already_are_refused(quiet_trainer, tmp_path):
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 64, (400, 2))
    x, y = a + 1.7e9, (a.sum(1) > 64).astype(np.int64)
    model = SoftmaxRegression(2, 2, preprocessing="standardize")
    loader = DataLoader(TensorDataset(torch.from_numpy(x), torch.from_numpy(y)), batch_size=50)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, loader)
    narrow = TensorDataset(torch.from_numpy(x).float(), torch.from_numpy(y))
    with pytest.raises(InputError, match="expected float64 or integer inputs, got float32"):
        trainer.test(model, DataLoader(narrow, batch_size=50), verbose=False)
    trainer.save_checkpoint(tmp_path / "wide.ckpt")
    again = SoftmaxRegression.load_from_checkpoint(tmp_path / "wide.ckpt")
    with pytest.raises(InputError, match="which has lost digits that feature 0"):
        again(torch.from_numpy(x).float())
    assert torch.equal(again(torch.from_numpy(x)), model(torch.from_numpy(x)))
    path = tmp_path / "mixed.npz"
    np.savez(path, x=x, y=y, x_test=x.astype(np.float32), y_test=y)
    with pytest.raises(InputError, match="expected x_test of float64 or integers like x"):
        _ = NpzDataModule(path).splits


def test_a_loader_of_one_s_own_under_bfloat16_is_refused(quiet_trainer):
    a = np.random.default_rng(0).uniform(0, 64, (400, 2))
    data = TensorDataset(torch.from_numpy(a + 1.7e9), torch.from_numpy((a.sum(1) > 64).astype(int)))
    model = SoftmaxRegression(2, 2, preprocessing="standardize")
    with pytest.raises(InputError, match="bf16-true"):
        quiet_trainer(precision="bf16-true").fit(model, DataLoader(data, batch_size=50))
    ordinary = TensorDataset(torch.from_numpy(a), data.tensors[1])
    quiet_trainer(precision="bf16-true").fit(model, DataLoader(ordinary, batch_size=50))


@pytest.mark.parametrize("profile", ["portable", "robust", "compact"])
def test_a_file_of_float64_refuses_rows_whose_digits_are_gone(profile, wide, tmp_path):
    x, y, _, model, _ = wide
    path = export_onnx(model, tmp_path / "wide.onnx", profile=profile, data=(x, y)).path
    classifier = OnnxClassifier(path)
    for narrow in (np.float32, np.float16):
        with np.errstate(over="ignore"):
            given = x.astype(narrow)
        with pytest.raises(TypeError, match=f"got {given.dtype}, which cannot hold the digits"):
            classifier.predict(given)
        np.save(tmp_path / "x.npy", given)
        with pytest.raises(FileError, match="give the values from before they became float"):
            predict(path, tmp_path / "x.npy", tmp_path / "out.csv")
    assert (classifier.predict(x.astype(np.float64)) == y).mean() > 0.98  # the remedy
    assert (classifier.predict(np.rint(x).astype(np.int64)) == y).mean() > 0.9
