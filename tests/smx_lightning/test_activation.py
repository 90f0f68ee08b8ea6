"""A softmax regression that ends in another map: loss, training, prediction, subclasses.

The judges are the sort-based maps and L-BFGS of sparse_optima.py, in float64 numpy.
"""

import copy
import functools
import pickle

import numpy as np
import pytest
import sparse_optima
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from optima import Problem
from torch import nn
from torch.nn.functional import multi_margin_loss
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import Entmax
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.optim import ExactSolver, Status

N, D, K = 150, 4, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)) * [1, 2, 0.5, 1]
Y = (X @ RNG.normal(size=(D, K)) + RNG.gumbel(size=(N, K))).argmax(1)
WEIGHTS = [1.0, 3.0, 0.5]
ROWS = TensorDataset(torch.tensor(X), torch.tensor(Y))
MEMBERS = {"entmax15": 1.5, "sparsemax": 2.0, "1.3": 1.3, "3": 3.0}
SPECS = {"entmax15": "entmax15", "sparsemax": "sparsemax", "1.3": {"alpha": 1.3}, "3": {"alpha": 3}}
ADAM = functools.partial(torch.optim.Adam, lr=0.05)


def made(name, **kwargs):
    return SoftmaxRegression(D, K, activation=SPECS[name], **kwargs)


def set_randomly(model, scale=1.0):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.linear.parameters():
            p.copy_(scale * torch.randn(p.shape, generator=generator))
    return model


def scores_of(model, x=X):
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    return x @ weight.T + bias


@pytest.mark.parametrize("name", MEMBERS)
def test_probabilities_and_zeros_are_the_reference_s(name):
    model = set_randomly(made(name).double())
    expected = sparse_optima.entmax(scores_of(model), MEMBERS[name])
    log_probs = model(ROWS.tensors[0])
    np.testing.assert_allclose(log_probs.exp().detach().numpy(), expected, rtol=0, atol=1e-12)
    assert torch.equal(log_probs.isneginf(), log_probs.exp() == 0)
    assert log_probs.isneginf().any()
    np.testing.assert_allclose(model.scores(ROWS.tensors[0]).detach(), scores_of(model), rtol=1e-12)
    prediction = model.predict_step(ROWS[:], 0)
    assert (prediction.probs[torch.tensor(expected == 0)] == 0).all()
    np.testing.assert_array_equal(prediction.label, scores_of(model).argmax(1))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", MEMBERS)
def test_the_loss_is_its_definition_and_its_gradient_is_p_minus_q(name, weights):
    model = set_randomly(made(name, class_weight=weights).double())
    scores = torch.tensor(scores_of(model), requires_grad=True)
    loss = model.loss(scores, ROWS.tensors[1])
    alpha, z = MEMBERS[name], scores.detach().numpy()
    p, q = sparse_optima.entmax(z, alpha), np.eye(K)[Y]
    share = np.ones(N) if weights is None else np.array(weights)[Y]
    share = share / share.sum()
    losses = sparse_optima.entropy(p, alpha) + ((p - q) * z).sum(1)
    assert float(loss.detach()) == pytest.approx(share @ losses, rel=1e-12)
    loss.backward()
    np.testing.assert_allclose(scores.grad, (p - q) * share[:, None], rtol=0, atol=1e-14)


def test_zero_loss_beyond_the_margin_and_nothing_else_is_zero():
    model = made("sparsemax")
    margins = torch.tensor([[3.0, 2.0, 1.0], [2.9, 2.0, 1.0], [1e30, -1e30, 0], [-1e30, 0, 1e30]])
    losses = [float(model.loss(row[None], torch.tensor([0])).detach()) for row in margins]
    assert losses[0] == losses[2] == 0
    assert losses[1] == pytest.approx(0.1**2 / 4, rel=1e-4)
    assert losses[3] == pytest.approx(2e30)


@pytest.mark.parametrize("name", MEMBERS)
def test_probability_1_is_compared_with_the_threshold(name):
    alpha = MEMBERS[name]
    for gamma in (0.01, 0.2, 0.5, 0.77, 0.99):
        model = SoftmaxRegression(1, 2, activation=SPECS[name], threshold=gamma).double()
        nn.init.zeros_(model.linear.bias)
        with torch.no_grad():
            model.linear.weight.copy_(torch.tensor([[0.0], [1.0]]))
        bound = Entmax(alpha).difference(gamma)
        x = np.concatenate([np.linspace(-4, 4, 401), bound + np.array([-1e-9, 1e-9])])[:, None]
        expected = sparse_optima.entmax(np.hstack([0 * x, x]), alpha)[:, 1] >= gamma
        np.testing.assert_array_equal(model.predict_step(torch.tensor(x), 0).label, expected)
        assert list(expected[-2:]) == [False, True]


@pytest.mark.parametrize("name", MEMBERS)
def test_a_row_without_an_answer_has_label_minus_1(name):
    model = set_randomly(made(name))
    x = ROWS.tensors[0][:3].float()
    x[1, 2] = torch.nan
    assert model.predict_step(x, 0).label.tolist()[1] == -1
    assert (model.predict_step(x, 0).label[[0, 2]] >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_computed_in_float32(dtype):
    model = set_randomly(made("sparsemax"), 30.0)
    x = ROWS.tensors[0].to(dtype)
    whole = model(x.float())
    with torch.autocast("cpu", dtype):
        assert torch.equal(model(x), whole)
        assert torch.equal(model.scores(x), model.scores(x.float()))
    narrow = model.to(dtype)
    assert narrow.scores(x).dtype == narrow(x).dtype == torch.float32
    weights = {name: p.float() for name, p in narrow.linear.named_parameters()}
    scores = torch.func.functional_call(narrow.linear, weights, x.float())
    torch.testing.assert_close(narrow(x).exp(), Entmax(2.0).probs(scores, 1), rtol=0, atol=1e-6)


def decaying(optimizer):
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.97)


def fit(model, data=ROWS, *, batch_size=N, **kwargs):
    trainer = quiet_trainer(**{"max_epochs": 400, "precision": "64-true", **kwargs})
    trainer.fit(model, DataLoader(data, batch_size, shuffle=True))
    return trainer


@pytest.mark.parametrize(
    ("name", "weights"),
    [("sparsemax", "balanced"), ("entmax15", None), ("1.3", "balanced"), ("3", None)],
)
def test_adam_comes_near_the_optimum_of_l_bfgs(name, weights):
    adam = functools.partial(torch.optim.Adam, lr=0.3)
    model = made(name, l2=0.02, class_weight=weights, optimizer=adam, lr_scheduler=decaying)
    fit(model, max_epochs=150)
    c = np.ones(N) if weights is None else (N / (K * np.bincount(Y)))[Y]
    problem = Problem(X, np.eye(K)[Y], c, 0.02)
    _, least = sparse_optima.by_lbfgs(problem, MEMBERS[name])
    point = np.hstack([p.detach().numpy().reshape(K, -1) for p in model.linear.parameters()])
    found, _, _ = sparse_optima.value(point, problem, MEMBERS[name])
    assert least - 1e-10 <= found <= least * (1 + 1e-3)


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", ["entmax15", "sparsemax", "1.3"])
def test_the_exact_solver_finds_the_optimum_of_l_bfgs(name, weights):
    optimizer = functools.partial(ExactSolver, tol=1e-10)
    model = made(name, l2=0.02, class_weight=weights, optimizer=optimizer)
    trainer = fit(model, batch_size=40)
    assert model.solver.status is Status.CONVERGED
    c = np.ones(N) if weights is None else np.array(weights)[Y]
    problem = Problem(X, np.eye(K)[Y], c, 0.02)
    _, least = sparse_optima.by_lbfgs(problem, MEMBERS[name])
    point = np.hstack([p.detach().numpy().reshape(K, -1) for p in model.linear.parameters()])
    found, _, p = sparse_optima.value(point, problem, MEMBERS[name])
    assert abs(found / least - 1) < 1e-8
    measured = trainer.callback_metrics
    assert float(measured["train/objective"]) == pytest.approx(found, rel=1e-6)
    losses = sparse_optima.entropy(p, MEMBERS[name]) + ((p - np.eye(K)[Y]) * scores_of(model)).sum(
        1
    )
    assert float(measured["train/loss"]) == pytest.approx(losses.mean(), rel=1e-5)
    assert float(measured["train/accuracy_micro"]) == pytest.approx((p.argmax(1) == Y).mean())


@pytest.mark.parametrize("spec", [{"alpha": 3}, {"normmax": 2.0}])
def test_the_exact_solver_refuses_others(spec):
    model = SoftmaxRegression(D, K, activation=spec, optimizer=ExactSolver)
    with pytest.raises(InputError, match="the exact solver expects"):
        fit(model)


def test_alpha_1_is_softmax_itself():
    for spec in ({"alpha": 1}, Entmax(1.0), "softmax"):
        model = SoftmaxRegression(D, K, activation=spec)
        assert isinstance(model.smx[1], nn.LogSoftmax)
        assert model.hparams["activation"] == "softmax"
    assert "nll" not in made("sparsemax")._smx_metrics.loss


def test_the_usual_metrics_of_training_and_validation_have_the_loss(tmp_path):
    model = made("sparsemax", optimizer=ADAM)
    kept = ModelCheckpoint(tmp_path, monitor="val/loss")
    trainer = quiet_trainer(max_epochs=3, enable_checkpointing=True, callbacks=[kept])
    loader = DataLoader(TensorDataset(ROWS.tensors[0].float(), ROWS.tensors[1]), N)
    trainer.fit(model, loader, loader)
    measured = {n: float(v) for n, v in trainer.callback_metrics.items()}
    assert {n for n in measured if n.startswith("train/")} == {"train/loss", "train/accuracy_micro"}
    z = scores_of(model, X.astype("f4"))
    p = sparse_optima.entmax(z, 2)
    loss = (sparse_optima.entropy(p, 2) + ((p - np.eye(K)[Y]) * z).sum(1)).mean()
    assert measured["val/loss"] == pytest.approx(loss, rel=1e-5)
    assert float(kept.best_model_score) == pytest.approx(measured["val/loss"])
    assert "val/loss" in trainer.progress_bar_metrics
    assert "train/loss" in trainer.progress_bar_metrics
    assert model.training_summary()["metrics"]["val/loss"] == pytest.approx(loss, rel=1e-5)


def test_a_training_that_diverges_is_told():
    model = made("sparsemax", optimizer=functools.partial(torch.optim.SGD, lr=1e38))
    with pytest.raises(InputError, match=r"the training loss became \w+ in epoch"):
        fit(
            model, precision="32-true", data=TensorDataset(ROWS.tensors[0].float(), ROWS.tensors[1])
        )


@pytest.mark.parametrize("name", ["softmax", "sparsemax"])
@pytest.mark.parametrize(
    "y",
    [torch.eye(K).long()[Y], torch.tensor(Y).float(), torch.tensor(Y) + 1, torch.tensor(Y) - 101],
)
def test_what_is_no_label_is_refused_at_once(name, y):
    model = SoftmaxRegression(D, K, activation=name)
    with pytest.raises(InputError, match=r"^labels must .* in the train batches; "):
        model.objective(ROWS.tensors[0].float(), y)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "32-true"])
def test_every_precision_trains_every_member(precision):
    data = TensorDataset(ROWS.tensors[0].float(), ROWS.tensors[1])
    for spec in (*SPECS.values(), {"normmax": 2.0}):
        model = SoftmaxRegression(D, K, activation=spec, optimizer=ADAM)
        trainer = fit(model, data, max_epochs=20, precision=precision)
        assert trainer.callback_metrics["train/accuracy_micro"] > 0.6
        chance = float(model.activation.entropy(torch.full((K,), 1 / K)))
        assert float(trainer.callback_metrics["train/loss"]) < 0.9 * chance


class Host(LightningModule):
    """Two heads, of different members, on one body."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(D, D)
        self.one, self.other = made("sparsemax", class_weight="balanced"), made("entmax15")

    def training_step(self, batch, batch_idx):
        x, y = batch
        return sum(head.objective(self.body(x), y) for head in (self.one, self.other))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.05)


def test_heads_in_a_host_train_and_are_counted():
    host = Host().double()
    host.one.fit_statistics([ROWS[:]])
    trainer = fit(host, max_epochs=100)
    assert {"one/train/loss", "other/train/loss"} <= trainer.callback_metrics.keys()
    assert trainer.callback_metrics["other/train/accuracy_micro"] > 0.7


class Hinge(SoftmaxRegression):
    """A loss of one's own, of scores."""

    def loss(self, scores, y):
        self.seen = scores
        return multi_margin_loss(scores, y)


def test_a_loss_of_one_s_own_gets_scores():
    model = set_randomly(Hinge(D, K, activation="sparsemax").double())
    expected = multi_margin_loss(torch.tensor(scores_of(model)), ROWS.tensors[1])
    assert float(model.objective(*ROWS[:]).detach()) == pytest.approx(float(expected), rel=1e-12)
    np.testing.assert_allclose(model.seen.detach(), scores_of(model), rtol=1e-12)
    softmax = set_randomly(Hinge(D, K).double())
    softmax.objective(*ROWS[:])
    torch.testing.assert_close(softmax.seen.exp().sum(1), torch.ones(N, dtype=torch.float64))


class Halved(SoftmaxRegression):
    """Its forward pass is another than that of its scores."""

    def forward(self, x):
        return super().forward(x / 2)


class Scored(SoftmaxRegression):
    """Likewise."""

    def scores(self, x):
        return super().scores(x / 2)


class Both(Halved, Scored):
    """Here they go together."""


class OfHead(SoftmaxRegression):
    """Standardised features are not what its linear layer takes."""

    def head(self, x):
        return super().head(x / 2)


@pytest.mark.parametrize(
    ("kind", "there", "missing"),
    [(Halved, "forward", "scores"), (OfHead, "head", "scores"), (Scored, "scores", "forward")],
)
def test_one_of_forward_and_scores_is_not_overridden_alone(kind, there, missing):
    kind(D, K)
    sentence = (
        f"expected {kind.__name__}, which has its own {there}, to have its own {missing}(x) too, "
        f"as the loss of activation='sparsemax' is one of scores, got none; add it, or override "
        f"features(x) in place of {there}"
    )
    with pytest.raises(InputError) as error:
        kind(D, K, activation="sparsemax")
    assert str(error.value) == sentence
    model = set_randomly(Both(D, K, activation="sparsemax").double())
    half = sparse_optima.entmax(scores_of(model, X / 2), 2)
    np.testing.assert_allclose(model(ROWS.tensors[0]).exp().detach(), half, atol=1e-12)


class Hidden(SoftmaxRegression):
    """A subclass from before there was a family: an argument and a module of this name."""

    def __init__(self, num_features, num_classes, activation="relu", **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.activation = nn.ReLU() if activation == "relu" else nn.Tanh()

    def features(self, x):
        return self.activation(super().features(x))


def test_a_subclass_may_have_an_activation_of_its_own(tmp_path):
    model = Hidden(D, K, activation="tanh")
    trainer = fit(model, max_epochs=2)
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    loaded = Hidden.load_from_checkpoint(tmp_path / "own.ckpt")
    assert isinstance(loaded.activation, nn.Tanh)
    torch.testing.assert_close(loaded(ROWS.tensors[0]), model(ROWS.tensors[0]).float())
    with pytest.raises(InputError, match="with activation='relu', as the model has, to resume fro"):
        quiet_trainer(max_epochs=3).fit(
            Hidden(D, K), DataLoader(ROWS, N), ckpt_path=tmp_path / "own.ckpt"
        )
    for value in ("relu", functools.partial(torch.relu), torch.relu, property(lambda self: 5)):
        other = type("Other", (SoftmaxRegression,), {"activation": value})(D, K)
        assert other(ROWS.tensors[0].float()).shape == (N, K)


def test_a_model_stays_of_the_member_it_was_made_for():
    model = made("sparsemax")
    model.activation = "sparsemax"  # no change
    for other in ("entmax15", {"alpha": 1.2}, Entmax(1.0)):
        with pytest.raises(InputError, match="expected a model to keep activation='sparsemax'"):
            model.activation = other


@pytest.mark.parametrize("way", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_trains_as_the_model(way):
    model = made("entmax15", optimizer=ADAM)
    fit(model, max_epochs=2)
    copied = way(model)
    for one in (model, copied):
        torch.manual_seed(0)
        fit(one, max_epochs=2)
    assert torch.equal(model.linear.weight, copied.linear.weight)
    assert copied.activation == Entmax(1.5)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # dynamo looks at it
@pytest.mark.filterwarnings("ignore:.* should not be instantiated")  # and makes one
def test_the_forward_pass_and_the_objective_compile():
    model = set_randomly(made("sparsemax"))
    x = ROWS.tensors[0].float()
    whole = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(whole(x).exp(), model(x).exp(), rtol=0, atol=1e-6)
    data = TensorDataset(x, ROWS.tensors[1])
    ends = []
    for compiled in (False, True):
        one = set_randomly(made("sparsemax", optimizer=ADAM))
        fit(
            torch.compile(one, backend="eager") if compiled else one,
            data,
            max_epochs=2,
            precision="32-true",
        )
        ends.append(one.linear.weight.detach())
    torch.testing.assert_close(ends[0], ends[1])


def test_the_learning_rate_finder_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = made("entmax15", optimizer=ADAM)
    loader = DataLoader(TensorDataset(ROWS.tensors[0].float(), ROWS.tensors[1]), 50)
    trainer = quiet_trainer(max_epochs=1)
    found = Tuner(trainer).lr_find(model, loader, num_training=20, update_attr=True)
    assert model.lr == found.suggestion()


def test_probabilities_of_zero_are_zeros_in_order():
    model = set_randomly(made("sparsemax"), 3.0)
    rows = PredictionsInOrder()
    x = ROWS.tensors[0].float()
    quiet_trainer(callbacks=[rows]).predict(model, DataLoader(x, 40), return_predictions=False)
    expected = sparse_optima.entmax(scores_of(model, x.double().numpy()), 2)
    np.testing.assert_allclose(rows.prediction.probs, expected, atol=1e-5)
    assert ((rows.prediction.probs == 0).numpy() == (expected == 0)).mean() > 0.99
