"""A row is inputs, a target and a weight: repeated rows, scikit-learn and torch are the judges."""

from functools import partial

import numpy as np
import pytest
import torch
from sampled import sampled
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import BatchLoader, Rows
from smx_lightning.optim import ExactSolver, minimise
from smx_lightning.training.batches import unpacked
from smx_lightning.training.rows import counting, labelled, look

N, D, K = 60, 4, 3
rng = np.random.default_rng(0)
X = torch.from_numpy(rng.normal(2, 3, (N, D)))
Y = torch.from_numpy(rng.integers(0, K, N))
COUNTS = torch.from_numpy(rng.integers(0, 4, N))  # 0 of some
Q = torch.from_numpy(rng.dirichlet(np.ones(K), N))
R = torch.from_numpy(rng.uniform(0.1, 3, N))
OPTIMIZERS = {
    "adam": partial(torch.optim.Adam, lr=0.05),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9),
    "exact": partial(ExactSolver, tol=1e-12),
}
MODELS = {
    "plain": {},
    "all": {"class_weight": "balanced", "preprocessing": "standardize", "l2": 0.1,
            "label_smoothing": 0.1},
    "sparsemax": {"activation": "sparsemax", "class_weight": [1, 2, 0.5], "l2": 0.1},
}  # fmt: skip


def fitted(rows, *, batch_size=N * 10, epochs=4, optimizer="adam", precision="64-true", **model):
    """The model, and all that its training leaves behind."""
    torch.manual_seed(0)
    module = SoftmaxRegression(D, K, optimizer=OPTIMIZERS[optimizer], **model)
    trainer = quiet_trainer(max_epochs=80 if optimizer == "exact" else epochs, precision=precision)
    batches = DataLoader(TensorDataset(*rows), batch_size=batch_size)
    trainer.fit(module, batches, batches)
    return {**module.state_dict(), **trainer.callback_metrics}


def assert_close(found, expected, tolerance=1e-12, metrics=False):
    for name, value in expected.items():
        if metrics or not ("/" in name or name == "class_counts"):
            torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("optimizer", ["adam", "exact"])
@pytest.mark.parametrize("model", MODELS)
def test_integer_weights_equal_repeated_rows(model, optimizer):
    """COUNTS as int64 counts by name alone; as a third entry weights are floating-point."""
    repeated = X.repeat_interleave(COUNTS, 0), Y.repeat_interleave(COUNTS)
    case = {"optimizer": optimizer, **MODELS[model]}
    found = fitted((X, Y, COUNTS.double()), **case)
    expected = fitted(repeated, **case)
    assert_close(found, expected)
    assert torch.equal(found["class_counts"], expected["class_counts"])


@pytest.mark.parametrize("optimizer", ["adam", "exact"])
@pytest.mark.parametrize("model", MODELS)
def test_a_soft_row_equals_a_row_of_each_class_with_its_share_for_a_weight(model, optimizer):
    case = {"optimizer": optimizer, **MODELS[model]}
    rows = X.repeat_interleave(K, 0), torch.arange(K).repeat(N), Q.flatten()
    assert_close(fitted((X, Q), **case), fitted(rows, **case))
    weighted = (*rows[:2], (Q * R[:, None]).flatten())
    assert_close(fitted((X, Q, R), **case), fitted(weighted, **case))


@pytest.mark.parametrize("optimizer", ["adam", "exact"])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("model", ["plain", "sparsemax"])
def test_smoothing_equals_soft_rows(model, soft, optimizer):
    epsilon = 0.2
    q = (1 - epsilon) * (Q if soft else nn.functional.one_hot(Y, K).double()) + epsilon / K
    case = {"optimizer": optimizer, **MODELS[model]}
    found = fitted((X, Q if soft else Y, R), label_smoothing=epsilon, **case)
    assert_close(found, fitted((X, q, R), **case))


@pytest.mark.parametrize("l2", [1e-3, 1.0])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_the_optimum_is_scikit_learn_s_with_sample_weights(l2, class_weight):
    found = fitted(
        (X, Y, R), optimizer="exact", l2=l2, class_weight=class_weight, preprocessing="standardize"
    )
    scaler = StandardScaler().fit(X, sample_weight=R)
    torch.testing.assert_close(
        found["preprocessing.scale"].double(), torch.from_numpy(scaler.scale_), rtol=1e-6, atol=0
    )
    mean, scale = (found[f"preprocessing.{n}"].double().numpy() for n in ("mean", "scale"))
    rows = (X.numpy() - mean) / scale
    own = R.numpy()
    if class_weight:  # scikit-learn's own are of the number of rows, not of their weight
        own = own * (own.sum() / (K * np.bincount(Y, own)))[Y]
    options = {"tol": 1e-12, "max_iter": 10**5, "solver": "newton-cg"}
    judge = LogisticRegression(C=1 / (l2 * own.sum()), **options)
    judge.fit(rows, Y, sample_weight=own)
    np.testing.assert_allclose(found["smx.0.weight"], judge.coef_, rtol=0, atol=1e-8)
    bias = judge.intercept_ - judge.intercept_.mean()
    np.testing.assert_allclose(found["smx.0.bias"], bias, rtol=0, atol=1e-8)


def test_the_trainer_s_optimum_is_the_plain_loop_s():
    found = fitted((X, Q, R), optimizer="exact", l2=0.1)
    plain = minimise([(X, Q, R)], D, K, l2=0.1, tol=1e-12, dtype=torch.float64)
    torch.testing.assert_close(found["smx.0.weight"], plain.weight, rtol=0, atol=1e-12)


IGNORED = {
    "labels": (lambda y: -1, lambda w: w),
    "weights": (lambda y: y, lambda w: 0.0),
    "both": (lambda y: -1, lambda w: 0.0),
}


def with_ignored(rows, how, every, value=torch.nan):
    """Rows among which those of IGNORED stand, of NaN features, ``every`` of them; and without."""
    x, y, *weight = (part.clone() for part in rows)
    out = torch.arange(len(x)) % every == 0
    x[out] = value
    if how != "weights":
        y[out] = -1 if y.ndim == 1 else torch.nan
    if how != "labels":
        weight[0][out] = 0
    return (x, y, *weight), out


BITS = [
    (model, soft, how, optimizer, precision)
    for precision in ("64-true", "32-true")
    for optimizer in OPTIMIZERS
    for how in IGNORED
    for soft in (False, True)
    for model in MODELS
]


@pytest.mark.parametrize(("model", "soft", "how", "optimizer", "precision"), sampled(BITS, every=7))
def test_ignored_rows_change_no_bit_of_weights_and_metrics(model, soft, how, optimizer, precision):
    rows, out = with_ignored((X, Q if soft else Y, R), how, 5)
    if precision == "32-true":
        rows = [part.float() if part.is_floating_point() else part for part in rows]
    without = [part[~out] for part in rows]
    if how == "labels" and not soft:  # weights are no part of it
        rows, without = rows[:2], without[:2]
    case = {"optimizer": optimizer, "precision": precision, **MODELS[model]}
    # Batches of 15, of which 3 rows are ignored: 12 are left of each.
    assert_same(fitted(rows, batch_size=15, **case), fitted(without, batch_size=12, **case))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("soft", [False, True])
def test_a_batch_of_ignored_rows_alone_is_a_step_of_the_penalty_alone(soft, optimizer):
    y = torch.full_like(Q[:20], torch.nan) if soft else torch.full((20,), -1)
    rows = torch.cat([X[:20] * torch.nan, X]), torch.cat([y, Q if soft else Y])
    found = fitted(rows, batch_size=20, optimizer=optimizer, l2=0.1)
    assert all(value.isfinite().all() for value in found.values())
    if optimizer == "exact":
        expected = fitted((X, Q if soft else Y), batch_size=20, optimizer=optimizer, l2=0.1)
        assert_same(found, expected)


def test_a_step_on_no_row_has_gradients_of_zero():
    model = SoftmaxRegression(D, K).double()
    for weight in (None, torch.zeros(5).double()):
        loss = model.objective(X[:5], Y[:5] if weight is not None else torch.full((5,), -1), weight)
        loss.backward()
        assert loss == 0
        assert all((p.grad == 0).all() for p in model.parameters())


@pytest.mark.parametrize("ignored", [-1, -100, 255, 1])
def test_any_number_may_say_that_there_is_no_label(ignored):
    y = Y.clone()
    y[::4] = ignored
    found = fitted((X, y), batch_size=20, ignore_index=ignored)
    kept = y != ignored
    sizes = [int(part.sum()) for part in kept.split(20)]
    parts = zip(X[kept].split(sizes), y[kept].split(sizes), strict=True)
    torch.manual_seed(0)
    model = SoftmaxRegression(D, K, optimizer=OPTIMIZERS["adam"])
    quiet_trainer(max_epochs=4, precision="64-true").fit(
        model, DataLoader([*parts], batch_size=None)
    )
    assert torch.equal(found["smx.0.weight"], model.linear.weight)


@pytest.mark.parametrize("smoothing", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
@pytest.mark.parametrize("soft", [False, True])
def test_the_loss_is_torch_s_but_for_what_it_is_divided_by(soft, weights, smoothing):
    model = SoftmaxRegression(D, K, class_weight=weights, label_smoothing=smoothing).double()
    scores = model(X)
    classes = None if weights is None else torch.tensor(weights).double()
    target = Q if soft else Y
    total = nn.functional.cross_entropy(
        scores, target, classes, label_smoothing=smoothing, reduction="sum"
    )
    q = (1 - smoothing) * (Q if soft else nn.functional.one_hot(Y, K).double()) + smoothing / K
    c = q.sum() if weights is None else (q @ classes).sum()
    torch.testing.assert_close(model.loss(scores, target), total / c)
    mean = nn.functional.cross_entropy(scores, target, classes, label_smoothing=smoothing)
    same = weights is None or not (soft or smoothing)
    assert torch.allclose(model.loss(scores, target), mean) == same
    own = nn.functional.cross_entropy(
        scores, q if weights is None else q * classes, reduction="none"
    )
    shares = R if weights is None else R * (q @ classes)
    expected = (R @ own) / shares.sum()
    torch.testing.assert_close(model.loss(scores, target, R), expected)


def test_what_a_batch_holds_by_place_and_by_name():
    x, y, w = X[:5], Y[:5], R[:5]
    for weight in (w, w[:, None], w.float(), w.half()):
        assert unpacked((x, y, weight))[2] is weight
        assert len(unpacked([x, y, weight, "more"])) == 3
    for third in (y, w[:4], w[0], Q[:5], "path", None, w.numpy(), x):
        assert unpacked((x, y, third)) == (x, y)
    for name in ("weight", "weights", "sample_weight"):
        assert unpacked({"x": x, "y": y, name: y})[2] is y
    assert unpacked({"a": 1, "y": 2, "weight": 3}) == ({"a": 1}, 2, 3)
    with pytest.raises(InputError, match="expected one of weight, weights in a batch"):
        unpacked({"x": x, "y": y, "weight": w, "weights": w})
    inputs = {"weight": 1, "height": 2, "y": 3}  # of people
    assert unpacked(inputs, ["weight", "height"]) == ({"weight": 1, "height": 2}, 3)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64, torch.half, torch.double])
def test_weights_of_any_real_dtype_count_by_name(dtype):
    weight = (COUNTS % 2).to(dtype)
    model = SoftmaxRegression(D, K).double()
    found = model.training_step({"x": X, "y": Y, "sample_weight": weight}, 0)
    kept = weight.bool()
    torch.testing.assert_close(found, model.training_step((X[kept], Y[kept]), 0))


def test_rows_are_taken_out_of_several_inputs_and_lists():
    y = torch.tensor([0, -1, 2])
    x = {"a": torch.arange(6).view(3, 2), "b": [1, 2, 3], "scale": torch.tensor(2.0)}
    found = counting(x, y, None, -1)
    assert found.x["a"].tolist() == [[0, 1], [4, 5]]
    assert (found.x["b"], float(found.x["scale"])) == ([1, 3], 2.0)
    assert found.y.tolist() == [0, 2]
    with pytest.raises(InputError, match="expected inputs as tensors, of which rows without a lab"):
        counting("pixels", y, None, -1)


class Changing(SoftmaxRegression):
    def on_after_batch_transfer(self, batch, dataloader_idx):
        return batch


@pytest.mark.parametrize(
    ("kind", "batch", "known"),
    [
        (SoftmaxRegression, (X, Y), True),
        (SoftmaxRegression, (X, Y, R), True),
        (SoftmaxRegression, (X, Q), True),
        (SoftmaxRegression, (X, torch.where(Y == 1, -1, Y)), False),
        (SoftmaxRegression, (X, Y, COUNTS.double()), False),
        (Changing, (X, Y), False),
        (SoftmaxRegression, X, False),
    ],
)
def test_what_goes_to_a_device_is_looked_at_once_before(kind, batch, known):
    """There is no device here: what is noted of a batch is, and counts for that batch alone."""
    model = kind(D, K).double()
    quiet_trainer(max_steps=0).fit(model, DataLoader([batch], batch_size=None))
    look(model, batch)
    assert model._smx_objective.all_count is known
    if isinstance(batch, tuple):
        expected = counting(*batch, *[None] * (3 - len(batch)), -1)
        for found, right in zip(labelled(model, batch, "rows"), expected, strict=True):
            assert found is None is right or torch.equal(found, right)
    assert not model._smx_objective.all_count


class Focal(SoftmaxRegression):
    def loss(self, scores, y):
        return nn.functional.nll_loss(scores, y) * 2


class WeightedFocal(SoftmaxRegression):
    def loss(self, scores, y, weight=None):
        return super().loss(scores, y, weight) * 2


class ByName(SoftmaxRegression):
    def loss(self, scores, y, *, weight=None):
        return super().loss(scores, y, weight) * 2


class WithTheRest(SoftmaxRegression):
    def loss(self, scores, y, **kwargs):
        return super().loss(scores, y, **kwargs) * 2


class Fails(SoftmaxRegression):
    """As where another process has ended in the midst of a collective."""

    def loss(self, scores, y, weight=None):
        raise RuntimeError("Connection closed by peer")


@pytest.mark.parametrize("y", [Y, nn.functional.one_hot(Y, K).double()])
def test_what_a_loss_raises_is_not_put_down_to_good_targets(y):
    with pytest.raises(RuntimeError, match="closed by peer"):
        Fails(D, K).double().objective(X, y)


class WithNoise(SoftmaxRegression):
    def loss(self, scores, y, factor=2, weight=None):
        return super().loss(scores, y, weight) * factor


@pytest.mark.parametrize("kind", [WeightedFocal, ByName, WithTheRest, WithNoise])
def test_a_loss_of_one_s_own_is_given_weights_by_name(kind):
    one, two = (kind(D, K, l2=0).double() for kind in (SoftmaxRegression, kind))
    two.load_state_dict(one.state_dict())
    torch.testing.assert_close(two.objective(X, Y, R), 2 * one.objective(X, Y, R))


@pytest.mark.parametrize("preprocessing", ["none", "standardize"])
def test_a_loss_of_one_s_own_that_knows_no_weight_is_not_given_any(preprocessing):
    batches = DataLoader(TensorDataset(X, Y, R), batch_size=20)
    model = Focal(D, K, preprocessing=preprocessing)
    before = model.linear.weight.clone()
    with pytest.raises(InputError, match=r"expected Focal.loss to take the weights of rows, loss"):
        quiet_trainer(precision="64-true").fit(model, batches)
    assert torch.equal(before, model.linear.weight)
    quiet_trainer().fit(Focal(D, K), DataLoader(TensorDataset(X.float(), Y), batch_size=20))


def test_statistics_are_weighted_and_rows_of_weight_zero_are_none():
    model = SoftmaxRegression(D, K, preprocessing="standardize", class_weight="balanced")
    x = X.clone()
    x[::3] = 1e30
    weight = R.clone()
    weight[::3] = 0
    model.fit_statistics(DataLoader(TensorDataset(x, Y, weight), batch_size=7))
    kept = torch.arange(N) % 3 > 0
    judge = StandardScaler().fit(X[kept], sample_weight=R[kept])
    np.testing.assert_allclose(model.preprocessing.mean, judge.mean_, rtol=1e-6)
    np.testing.assert_allclose(model.preprocessing.scale, judge.scale_, rtol=1e-6)
    counts = np.bincount(Y[kept], R[kept])
    weights = model.class_weights_for(torch.zeros(1).double())
    np.testing.assert_allclose(weights, counts.sum() / (K * counts), rtol=1e-13)
    assert model.class_counts.dtype == torch.int64
    model.fit_statistics([(X, Y, COUNTS.double())])
    expected = np.bincount(Y, COUNTS).tolist()
    assert model.class_counts.tolist() == expected


@pytest.mark.parametrize("exponent", [-60, 0, 45])
@pytest.mark.parametrize("optimizer", ["adam", "exact"])
@pytest.mark.parametrize("precision", ["64-true", "32-true"])
def test_only_the_ratios_of_weights_count(exponent, optimizer, precision):
    rows = (X, Y, R) if precision == "64-true" else (X.float(), Y, R.float())
    scaled = (*rows[:2], rows[2] * 2.0**exponent)
    case = {"optimizer": optimizer, "precision": precision, **MODELS["all"]}
    tolerance = 1e-10 if precision == "64-true" else 1e-4
    assert_close(fitted(scaled, **case), fitted(rows, **case), tolerance)


@pytest.mark.parametrize("make", [
    lambda x, y, w: (x.numpy(), y.numpy(), w.numpy()),
    lambda x, y, w: (x, y, w),
    lambda x, y, w: Rows(x, y, w),
    lambda x, y, w: TensorDataset(x, y, w),
])  # fmt: skip
def test_arrays_are_a_data_set(make):
    batches = [*BatchLoader(make(X, Y, R), batch_size=25, shuffle=True, seed=3)]
    expected = [*BatchLoader(TensorDataset(X, Y, R), batch_size=25, shuffle=True, seed=3)]
    assert len(batches) == 3
    for found, right in zip(batches, expected, strict=True):
        for part, other in zip(found, right, strict=True):
            assert torch.equal(part, other)


def test_arrays_of_other_lengths_are_refused():
    with pytest.raises(InputError, match=r"with as many rows each, got shapes \(60, 4\), \(59,\)"):
        BatchLoader((X, Y[1:]), batch_size=5)
    assert len(BatchLoader([(X[0], Y[0])], batch_size=1)) == 1  # a list of samples stays one


def test_settings_are_checked_and_come_back(tmp_path):
    for wrong in (-0.1, 1.1, float("nan")):
        with pytest.raises(InputError, match=r"label_smoothing must lie in 0\.\.1, got"):
            SoftmaxRegression(D, K, label_smoothing=wrong)
    with pytest.raises(InputError, match="ignore_index must be a whole number, got 'none'"):
        SoftmaxRegression(D, K, ignore_index="none")
    model = SoftmaxRegression(D, K, label_smoothing=np.float32(0.25), ignore_index=255)
    trainer = quiet_trainer()
    trainer.fit(model, DataLoader(TensorDataset(X.float(), Y), batch_size=20))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "model.ckpt")
    assert (loaded.label_smoothing, loaded.ignore_index) == (0.25, 255)
    other = SoftmaxRegression(D, K, label_smoothing=0.1)
    with pytest.raises(InputError, match=r"label_smoothing=0.1, as the model has, .*=0.25; leave"):
        quiet_trainer(max_epochs=2).fit(
            other,
            DataLoader(TensorDataset(X.float(), Y), batch_size=20),
            ckpt_path=tmp_path / "model.ckpt",
        )
