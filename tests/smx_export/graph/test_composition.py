"""SoftmaxRegression as a part of somebody's own module."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from sampled import whole
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smx_export import OnnxExport, check_parity, composed, export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning import InputError, Recovery, SoftmaxRegression
from smx_lightning.callbacks import ConfusionCsv, PredictionsCsv
from smx_lightning.optim import ExactSolver

X = torch.from_numpy(np.random.default_rng(0).normal(3, 2, (60, 6)).astype(np.float32))
Y = (X[:, 0] > 3).long() + (X[:, 1] > 5).long()


class Host(LightningModule):
    """A linear body, and a head that is standardised, weighted and regularised."""

    def __init__(self, **kwargs):
        super().__init__()
        self.body = nn.Linear(6, 5)
        settings = {"preprocessing": "standardize", "l2": 0.1, "class_weight": "balanced"}
        self.head = SoftmaxRegression(5, 3, **{**settings, **kwargs})

    def forward(self, x):
        return self.head(self.body(x))

    def on_fit_start(self):
        with torch.no_grad():
            self.head.fit_statistics(
                (self.body(X[rows]), Y[rows]) for rows in torch.arange(60).split(7)
            )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.head.objective(self.body(x), y)

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def test_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def loader(batch_size=20):
    return DataLoader(TensorDataset(X, Y), batch_size=batch_size)


def by_hand(host, epochs):
    """The same training written out: a slow, obvious loop."""
    with torch.no_grad():
        z = host.body(X)
        mean, scale = z.double().mean(0).float(), z.double().std(0, correction=0).float()
    counts = torch.bincount(Y, minlength=3)
    weight = 60 / (3 * counts)
    optimizer = torch.optim.SGD(host.parameters(), lr=0.1)
    linear = host.head.smx[0]
    for _ in range(epochs):
        for x, y in loader():
            scores = linear((host.body(x) - mean) / scale)
            loss = nn.functional.cross_entropy(scores, y, weight)
            loss = loss + 0.05 * linear.weight.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return host


def test_the_host_trains_as_written_out_by_hand(quiet_trainer):
    torch.manual_seed(0)
    host, other = Host(), Host()
    other.load_state_dict(host.state_dict())
    trainer = quiet_trainer(max_epochs=3)
    trainer.fit(host, loader())
    expected = by_hand(other, 3)
    for name, value in expected.named_parameters():
        torch.testing.assert_close(dict(host.named_parameters())[name], value, msg=name)


def test_the_head_s_metrics_are_logged_under_its_name(quiet_trainer):
    host = Host()
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(host, loader(), loader())
    log_probs = host.eval()(X)
    nll = nn.functional.nll_loss(log_probs, Y)
    torch.testing.assert_close(trainer.callback_metrics["head/val/nll"], nll.detach())
    assert "head/train/accuracy_micro" in trainer.callback_metrics
    trainer.test(host, loader(), verbose=False)
    torch.testing.assert_close(trainer.callback_metrics["head/test/nll"], nll.detach())
    assert host.head.confusion_matrix.sum() == 60
    assert sum("Bookkeeping" in type(c).__name__ for c in trainer.callbacks) == 1


@pytest.mark.parametrize(
    "kwargs",
    [{"class_weight": None}, {"preprocessing": "none"}, {"preprocessing": "scale"}],
    ids=str,
)
def test_statistics_that_nobody_fitted_are_asked_for(kwargs, quiet_trainer):
    class Forgetful(Host):
        on_fit_start = LightningModule.on_fit_start

    with pytest.raises(InputError, match=r"call fit_statistics\(batches\)"):
        quiet_trainer().fit(Forgetful(**kwargs), loader())


def test_balanced_weights_without_counts_are_no_nan():
    head = SoftmaxRegression(4, 2, class_weight="balanced")
    with pytest.raises(InputError, match=r"call fit_statistics\(batches\)"):
        head.loss(torch.zeros(2, 2).log_softmax(1), torch.tensor([0, 1]))
    head.fit_statistics([(torch.zeros(4, 4), torch.tensor([0, 0, 0, 1]))])
    weighted = head.class_weights_for(torch.zeros(1))
    torch.testing.assert_close(weighted, torch.tensor([4 / 6, 2.0]))


def test_a_head_trains_in_a_plain_loop():
    torch.manual_seed(0)
    head = SoftmaxRegression(6, 3, preprocessing="standardize", l2=0.1).double()
    head.fit_statistics([(X, Y)])
    optimizer = torch.optim.LBFGS(
        head.parameters(),
        max_iter=500,
        tolerance_grad=1e-10,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = head.objective(X, Y)
        loss.backward()
        return loss

    optimizer.step(closure)
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    x = StandardScaler().fit_transform(X.double().numpy())
    peer = LogisticRegression(C=1 / (0.1 * 60), tol=1e-10, max_iter=1000).fit(x, Y.numpy())
    centred = head.linear.weight.detach().numpy()
    np.testing.assert_allclose(centred - centred.mean(0), peer.coef_, atol=1e-5)


def test_two_heads_are_told_apart(quiet_trainer):
    class Two(LightningModule):
        def __init__(self):
            super().__init__()
            self.coarse = SoftmaxRegression(6, 2)
            self.fine = SoftmaxRegression(6, 3)

        def training_step(self, batch, batch_idx):
            x, y = batch
            return self.coarse.objective(x, (y > 0).long()) + self.fine.objective(x, y)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = quiet_trainer()
    trainer.fit(Two(), loader())
    logged = {name.rpartition("/")[0] for name in trainer.callback_metrics}
    assert logged == {"coarse/train", "fine/train"}


def test_the_exact_solver_is_refused_in_a_host(quiet_trainer):
    class Exact(Host):
        def configure_optimizers(self):
            return ExactSolver(self.head.smx.parameters())

    with pytest.raises(InputError, match="one inside Exact; train it by itself"):
        quiet_trainer().fit(Exact(), loader())


@pytest.mark.parametrize("callback", [OnnxExport, ConfusionCsv, PredictionsCsv, Recovery])
def test_callbacks_that_need_the_model_itself_say_so_before_training(
    callback, quiet_trainer, tmp_path
):
    trainer = quiet_trainer(
        callbacks=[callback()], default_root_dir=tmp_path, enable_checkpointing=True
    )
    with pytest.raises(InputError, match="expected a SoftmaxRegression or a subclass, got Host"):
        trainer.fit(Host(), loader())


def test_host_checkpoints_resume_and_bring_the_head_s_statistics(quiet_trainer, tmp_path):
    host = Host()
    saving = ModelCheckpoint(dirpath=tmp_path, filename="host")
    trainer = quiet_trainer(max_epochs=1, callbacks=[saving], enable_checkpointing=True)
    trainer.fit(host, loader())
    loaded = Host.load_from_checkpoint(tmp_path / "host.ckpt")
    torch.testing.assert_close(loaded.eval()(X), host.eval()(X))
    assert loaded.head.class_counts.tolist() == torch.bincount(Y).tolist()


# One verified file --------------------------------------------------------------------------


class Nested(LightningModule):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({"body": nn.Linear(6, 5), "heads": nn.ModuleList()})
        self.parts["heads"].append(SoftmaxRegression(5, 3, class_names=["a", "b", "c"]))
        self.example_input_array = torch.zeros(1, 6)

    def forward(self, x):
        return self.parts["heads"][0](self.parts["body"](x).tanh())


def test_host_and_head_are_exported_as_one_file(quiet_trainer, tmp_path):
    host = Host()
    quiet_trainer().fit(host, loader())
    weights = {name: value.clone() for name, value in host.state_dict().items()}
    export = export_onnx(host, tmp_path / "host.onnx", head="head", input_shape=(6,), data=(X, Y))
    assert export.report.passed
    probs = OnnxClassifier(export.path).predict_proba(X.numpy())
    host.eval()
    torch.testing.assert_close(torch.from_numpy(probs), host(X).exp(), rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, weights[name]) for name, value in host.state_dict().items())
    assert check_parity(composed(host, "head", (6,)), export.path).passed
    with torch.no_grad():
        host.body.weight[0, 0] += 0.01
    assert not check_parity(composed(host, "head", (6,)), export.path).passed


def test_a_head_in_containers_is_found_by_its_path_and_brings_its_class_names(tmp_path):
    export = export_onnx(Nested(), tmp_path / "nested.onnx", head="parts.heads.0")
    classifier = OnnxClassifier(export.path)
    assert classifier.class_names == ["a", "b", "c"]
    assert classifier.input_shape == (6,)


class Probabilities(Host):
    def forward(self, x):
        return super().forward(x).exp()


class Dictionary(Host):
    def forward(self, x):
        return {"log_probs": super().forward(x)}


class Label(Host):
    def forward(self, x):
        return super().forward(x).argmax(1)


class Inside(Host):
    def forward(self, x):
        return self.head.smx(self.body(x))


@pytest.mark.parametrize("kind", [Probabilities, Dictionary, Label, Inside])
def test_a_forward_that_answers_something_else_is_refused(kind, tmp_path):
    with pytest.raises(InputError, match=r"let forward end with return self.head\(…\)"):
        export_onnx(kind(), tmp_path / "x.onnx", head="head", input_shape=(6,))
    assert not list(tmp_path.iterdir())


def test_a_name_or_a_shape_that_is_missing_is_asked_for(tmp_path):
    with pytest.raises(InputError, match="got 'tail'; there are: head"):
        export_onnx(Host(), tmp_path / "x.onnx", head="tail")
    with pytest.raises(InputError, match="got 'body'; there are: head"):
        export_onnx(Host(), tmp_path / "x.onnx", head="body")
    with pytest.raises(InputError, match="input_shape="):
        export_onnx(Host(), tmp_path / "x.onnx", head="head")
    with pytest.raises(InputError, match="name the part with head='…'"):
        export_onnx(Host(), tmp_path / "x.onnx")


def test_a_head_in_a_container_is_told_of_the_trainer_by_its_host(quiet_trainer):
    class Contained(LightningModule):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleDict({"one": SoftmaxRegression(6, 3)})

        def setup(self, stage):
            self.heads["one"].trainer = self.trainer

        def training_step(self, batch, batch_idx):
            return self.heads["one"].objective(*batch)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    trainer = quiet_trainer()
    trainer.fit(Contained(), loader())
    assert "heads.one/train/nll" in trainer.callback_metrics


class Clamped(Host):
    def forward(self, x):
        return super().forward(x).clamp(min=-12)


class ClampedInPlace(Host):
    def forward(self, x):
        return super().forward(x).clamp_(min=-12)


class Rejecting(Host):
    """Another answer where inputs lie far outside: the probes need not be."""

    def forward(self, x):
        known = super().forward(x)
        far = (x.abs() > 1e7).any(1, keepdim=True)
        return torch.where(far, torch.full_like(known, -np.log(3)), known)


class OnlyOnData(Host):
    """Python decides, and by numbers that are in the data alone."""

    def forward(self, x):
        answer = super().forward(x)
        return answer - 1 if float(x[0, 0]) == 12345.0 else answer


class Twice(Host):
    def forward(self, x):
        self.head(self.body(-x))
        return super().forward(x)


class View(Host):
    def forward(self, x):
        return super().forward(x)[:]


@pytest.mark.parametrize("kind", [Clamped, ClampedInPlace, Rejecting, OnlyOnData, Twice, View])
def test_what_the_host_does_to_the_head_s_answer_is_refused(kind, tmp_path):
    x = X.clone()
    x[3, 0] = 12345.0
    with pytest.raises(InputError, match=r"let forward end with return self.head\(…\)"):
        export_onnx(kind(), tmp_path / "x.onnx", head="head", input_shape=(6,), data=(x[3:], Y[3:]))
    assert not list(tmp_path.iterdir())


class Keeping(Host):
    """Keeps what it computed for a look, in the ways that hosts do."""

    def forward(self, x):
        self.kept = self.body(x)
        self.outputs = [self.kept, {"last": (self.kept * 2,)}]
        self.outputs.append(self.outputs)
        return self.head(self.kept)


class OwnBody(SoftmaxRegression):
    """A head with a part that is called as the host is."""

    def __init__(self):
        super().__init__(4, 3)
        self.body, self.host_body = nn.Linear(5, 4), 3

    def features(self, x):
        return self.body(x).tanh() * self.host_body


class Behind(Host):
    def __init__(self):
        super().__init__()
        self.head = OwnBody()


class TwoNames(Host):
    def __init__(self):
        super().__init__()
        self.heads = nn.ModuleDict({"first": self.head})


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (Keeping, "head"),
        whole((Behind, "head")),
        whole((TwoNames, "head")),
        whole((TwoNames, "heads.first")),
    ],
)
def test_hosts_and_heads_of_other_habits_are_exported(kind, head, tmp_path):
    host = kind()
    host(X)
    path = export_onnx(host, tmp_path / "m.onnx", head=head, input_shape=(6,), data=(X, Y)).path
    probs = torch.from_numpy(OnnxClassifier(path).predict_proba(X.numpy()))
    torch.testing.assert_close(probs, host.eval()(X).exp().detach(), rtol=1e-4, atol=1e-5)
    assert getattr(host, "kept", None) is None or host.kept.grad_fn is not None


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (7,),
            r"expected Host to answer inputs of shape \(2, 7\), got RuntimeError: .*input_shape=",
        ),
        (6, r"such as \(3, 32, 32\), got 6; put a single one in brackets"),
        (("a",), r"such as \(3, 32, 32\), got \('a',\)"),
        ((-6,), r"such as \(3, 32, 32\), got \(-6,\)"),
        ((), r"such as \(3, 32, 32\), got \(\)"),
    ],
)
def test_a_wrong_shape_is_refused_in_one_sentence(shape, message, tmp_path):
    with pytest.raises(InputError, match=message):
        export_onnx(Host(), tmp_path / "m.onnx", head="head", input_shape=shape)
    if shape != (7,):  # another message, of the file
        with pytest.raises(InputError, match=message):
            export_onnx(SoftmaxRegression(6, 3), tmp_path / "m.onnx", input_shape=shape)
