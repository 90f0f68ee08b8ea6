"""The exact solver, judged by scikit-learn's Newton solver and by itself, run in other ways."""

import csv
import functools
import itertools
import warnings

import jobs
import numpy as np
import pytest
import references
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback
from sampled import examples, sampled, whole
from sklearn import datasets
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from solving import batches, parameters, trainer_for
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.cli import main
from smx_lightning.optim import ExactSolver, Status
from smx_lightning.optim.models.hessians import (
    LADDER,
    Coupled,
    Diagonal,
    PerClass,
    Spectrum,
    Whole,
    restored,
)
from smx_lightning.optim.models.sampling import Thresholds
from smx_lightning.optim.models.spectrum import Moments


def solved(x, y, l2, *, size=500, dtype=torch.float64, tol=1e-9, trainer=None, **kwargs):
    """A model trained by the exact solver."""
    torch.manual_seed(0)
    model = SoftmaxRegression(
        x.shape[1],
        int(max(y)) + 1,
        l2=l2,
        optimizer=functools.partial(ExactSolver, tol=tol),
        **kwargs,
    )
    (trainer or trainer_for(dtype)).fit(model, batches(x, y, size, dtype))
    return model


def scikit_learn(x, y, l2, class_weight=None):
    """The optimum in float64: weight (K, d) and bias (K,), also for two classes."""
    num_classes = max(y) + 1
    weights = np.ones(len(y)) if class_weight is None else np.asarray(class_weight)[y]
    binary = num_classes == 2
    c = (2 if binary else 1) / (l2 * weights.sum())
    by_class = None if class_weight is None else dict(enumerate(class_weight))
    judge = LogisticRegression(
        C=c, tol=1e-12, max_iter=3000, solver="newton-cholesky", class_weight=by_class
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its line search complains at the limit of float64
        judge.fit(x, y)
    weight, bias = judge.coef_, judge.intercept_
    if binary:  # one perceptron there, two of opposite sign here
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias - bias.mean()


def assert_optimal(model, x, y, l2, class_weight=None, coefficients=1e-4):
    weight, bias = parameters(model)
    judged = scikit_learn(x, y, l2, class_weight)
    found = references.objective(weight, bias, x, y, l2, class_weight)
    best = references.objective(*judged, x, y, l2, class_weight)
    assert found == pytest.approx(best, rel=1e-8)
    assert abs(weight - judged[0]).max() <= coefficients
    np.testing.assert_allclose(bias - bias.mean(), judged[1], atol=10 * coefficients)


def diabetes():
    x, target = datasets.load_diabetes(return_X_y=True, scaled=False)
    return x, np.digitize(target, np.quantile(target, [0.25, 0.5, 0.75]))


def linnerud():
    x, target = datasets.load_linnerud(return_X_y=True)
    return x, np.digitize(target[:, 0], np.quantile(target[:, 0], [1 / 3, 2 / 3]))


REAL = {
    "iris": lambda: datasets.load_iris(return_X_y=True),
    "wine": lambda: datasets.load_wine(return_X_y=True),  # features from 0.1 to 1680, as they are
    "breast cancer": lambda: datasets.load_breast_cancer(return_X_y=True),  # two classes
    "digits": lambda: datasets.load_digits(return_X_y=True),  # constant features
    "diabetes": diabetes,
    "linnerud": linnerud,
}


@pytest.mark.parametrize(
    ("name", "weighted"), sampled([(name, k) for k in (False, True) for name in REAL], every=2)
)
def test_the_answer_is_scikit_learn_s_on_real_data(name, weighted):
    x, y = REAL[name]()
    l2 = 2 / len(y)
    class_weight = [1.0 + k for k in range(max(y) + 1)] if weighted else None
    model = solved(x, y, l2, class_weight=class_weight)
    assert model.solver.status is Status.CONVERGED
    assert_optimal(model, x, y, l2, class_weight)


@given(
    rows=st.integers(6, 60),
    features=st.integers(1, 80),  # also more than rows
    classes=st.integers(2, 6),
    l2=st.sampled_from([1e-3, 1e-2, 1.0]),
    scale=st.sampled_from([1e-2, 1.0, 10.0]),
    weighted=st.booleans(),
    size=st.integers(1, 60),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=examples(25))
def test_the_answer_is_scikit_learn_s_on_made_data(
    rows, features, classes, l2, scale, weighted, size, seed
):
    rng = np.random.default_rng(seed)
    x = scale * rng.normal(size=(rows, features))
    x[:, rng.integers(features)] = 3.0  # a constant feature
    x = np.hstack([x, x[:, :1] * 2])  # a collinear one
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=rows)])[:rows]
    class_weight = (rng.random(max(y) + 1) + 0.5).tolist() if weighted else None
    model = solved(x, y, l2, size=size, tol=1e-10, class_weight=class_weight)
    assert_optimal(model, x, y, l2, class_weight)


@pytest.mark.whole
@pytest.mark.parametrize("size", [1, 37, whole(500)])
def test_batches_change_the_speed_only(size):
    x, y = REAL["iris"]()
    whole = solved(x, y, 0.01, size=len(y))
    split = solved(x, y, 0.01, size=size)
    assert split.solver.evaluations == whole.solver.evaluations
    torch.testing.assert_close(split.linear.weight, whole.linear.weight, rtol=1e-6, atol=1e-9)


@pytest.mark.whole
@pytest.mark.parametrize("model", [Diagonal, Spectrum, PerClass, Coupled, Whole])
def test_every_model_of_the_curvature_leads_to_the_optimum(model, monkeypatch):
    """Each rung of the ladder alone, whatever the problem's size would choose."""
    models = (Diagonal, model) if model is not Diagonal else (Diagonal,)
    for module in ("ladder", "choice"):
        monkeypatch.setattr(f"smx_lightning.optim.models.{module}.LADDER", models)
    x, y = REAL["digits"]()
    x = x / 16
    found = solved(x, y, 0.001, tol=1e-9)
    assert found.solver.status is Status.CONVERGED
    assert type(found.solver._descent.ladder.model) is model
    assert_optimal(found, x, y, 0.001)


@pytest.mark.parametrize("model", [PerClass, Coupled, Whole])
def test_the_curvature_is_the_hessian_s_or_its_blocks(model):
    rng = np.random.default_rng(0)
    rows, d, classes, l2 = 40, 3, 4, 0.05
    x = torch.tensor(rng.normal(size=(rows, d)))
    probs = torch.tensor(rng.normal(size=(rows, classes))).softmax(1)
    weights = torch.tensor(rng.random(rows) + 0.5)
    curvature = model(classes, d + 1, expected=1e-9, rows=rows, like=x)  # threshold 0: every row
    for part in range(0, rows, 7):
        some = slice(part, part + 7)
        curvature.add(x[some], probs[some].T, torch.ones(rows)[some], weights[some])
    curvature.finish(float(weights.sum()), l2, lambda total: total)

    hessian = references.hessian(x.numpy(), probs.numpy(), weights.numpy(), l2)
    gradient = rng.normal(size=(classes, d + 1))
    gradient -= gradient.mean(0)
    found = curvature.solve(torch.tensor(gradient)).numpy()
    assert abs(found.sum(0)).max() < 1e-12
    if model is not PerClass:
        product = np.einsum("kalb,lb->ka", hessian, found)
    else:
        blocks = np.stack([np.linalg.inv(hessian[k, :, k]) for k in range(classes)])
        found, product = np.einsum("kab,kb->ka", blocks, gradient), found
        found, gradient = found - found.mean(0), product
        product = found
    np.testing.assert_allclose(product, gradient, rtol=1e-4, atol=1e-6)


def test_rows_are_drawn_as_often_as_their_probabilities_say_and_the_same_ones_every_time():
    like = torch.empty(3, 100_000)
    numbers = Thresholds(like.device).next(like)
    assert numbers.min() > 0
    assert numbers.max() <= 1
    for probability in (0.0, 0.001, 0.3, 0.99, 1.0):
        share = float((numbers <= probability).double().mean())
        assert abs(share - probability) <= 5 * (probability * (1 - probability) / 1e5) ** 0.5
    state = torch.get_rng_state()
    assert torch.equal(numbers, Thresholds(like.device).next(like))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("model", [PerClass, Coupled])
def test_what_is_sampled_stands_for_all_rows(model, weighted):
    """A tenth of the rows, chosen by weight: the curvature of all of them, within a tenth or so."""
    rng = np.random.default_rng(0)
    rows, d, classes, l2 = 20_000, 4, 5, 0.05
    x = torch.tensor(rng.normal(size=(rows, d)))
    probs = torch.tensor(3 * rng.normal(size=(rows, classes))).softmax(1).T.contiguous()
    weights = torch.tensor(rng.random(rows) + 0.5) if weighted else None
    gradient = torch.tensor(rng.normal(size=(classes, d + 1)))
    gradient -= gradient.mean(0)
    c = torch.ones(rows, dtype=torch.float64) if weights is None else weights
    spread = float((c * (1 - probs.square().sum(0))).sum())
    answers = []
    for chooses in (False, True):
        expected = model.mass(spread, float(c.sum()), classes)
        curvature = model(classes, d + 1, expected=expected, rows=rows, like=x)
        wanted = 0.1 * rows * curvature.columns(classes)
        curvature.chooses, curvature._threshold = chooses, expected / wanted
        for part in torch.arange(rows).split(3000):
            some = None if weights is None else weights[part]
            curvature.add(x[part], probs[:, part], torch.ones(len(part)).double(), some)
        kept = sum(len(own) for _, of, _ in curvature._pending for own in of)
        assert kept <= 1.1 * wanted if chooses else kept == rows * curvature.columns(classes)
        curvature.finish(float(c.sum()), l2, lambda total: total)
        answers.append(curvature.solve(gradient))
    assert (answers[1] - answers[0]).norm() <= 0.1 * answers[0].norm()


@pytest.mark.whole
def test_float32_reaches_the_optimum_to_its_precision():
    x, y = REAL["digits"]()
    model = solved(x / 16, y, 1 / len(y), dtype=torch.float32, tol=1e-6)
    weight, bias = parameters(model)
    assert model.solver.status in (Status.CONVERGED, Status.PRECISION)
    best = references.objective(*scikit_learn(x / 16, y, 1 / len(y)), x / 16, y, 1 / len(y))
    assert references.objective(weight, bias, x / 16, y, 1 / len(y)) == pytest.approx(best, 1e-6)


@pytest.mark.parametrize("name", ["wine", "breast cancer"])
def test_unscaled_features_in_float32_end_at_the_limit_of_precision(name):
    x, y = REAL[name]()
    l2 = 2 / len(y)
    model = solved(x, y, l2, dtype=torch.float32, tol=1e-9)
    assert model.solver.status is Status.PRECISION
    best = references.objective(*scikit_learn(x, y, l2), x, y, l2)
    assert references.objective(*parameters(model), x, y, l2) == pytest.approx(best, 1e-5)


@pytest.mark.parametrize("classes", [2, 3])
def test_separable_data_without_a_penalty_are_called_so(classes, caplog):
    x = np.repeat(np.eye(classes) * 3, 5, axis=0)
    y = np.repeat(np.arange(classes), 5)
    model = solved(x, y, 0.0)
    assert model.solver.status is Status.SEPARABLE
    assert model.trainer.current_epoch < 20
    assert (model(torch.tensor(x)).argmax(1).numpy() == y).all()
    assert torch.isfinite(model.linear.weight).all()


def test_without_a_penalty_the_optimum_of_overlapping_data_is_found(two_blobs):
    x, y = two_blobs
    model = solved(x, y, 0.0)
    assert model.solver.status is Status.CONVERGED
    weight, _ = parameters(model)
    judge = LogisticRegression(C=np.inf, tol=1e-12, solver="newton-cholesky").fit(x, y)
    np.testing.assert_allclose(weight[1] - weight[0], judge.coef_[0], atol=1e-6)


@pytest.mark.whole
def test_many_classes_and_few_rows():
    rng = np.random.default_rng(0)
    y = np.concatenate([np.arange(1000), rng.integers(1000, size=200)])
    x = rng.normal(size=(1000, 4))[y] + 0.3 * rng.normal(size=(1200, 4))
    model = solved(x, y, 1e-3, tol=1e-8)
    assert model.solver.status is Status.CONVERGED
    gradient = references.gradient(*parameters(model), x, y, 1e-3)
    assert abs(gradient).max() <= 1.01e-8


def test_the_gradient_is_the_reference_s():
    x, y = REAL["iris"]()
    class_weight = [1.0, 2.0, 0.5]
    model = solved(x, y, 0.1, trainer=trainer_for(max_epochs=1), class_weight=class_weight)
    gradient = references.gradient(*parameters(model), x, y, 0.1, class_weight)
    np.testing.assert_allclose(model.solver.evaluation.gradient, gradient, atol=1e-12)


def test_standardisation_and_balanced_weights_are_part_of_the_problem():
    x, y = REAL["breast cancer"]()
    scaled = StandardScaler().fit_transform(x)
    balanced = len(y) / (2 * np.bincount(y))
    model = solved(x, y, 0.01, preprocessing="standardize", class_weight="balanced")
    # The statistics are float32 buffers: the two problems differ by that.
    assert_optimal(model, scaled, y, 0.01, balanced.tolist(), coefficients=1e-4)


# Inside the Trainer --------------------------------------------------------------------------


class Trajectory(Callback):
    def __init__(self):
        self.points = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.is_last_batch:
            self.points.append(pl_module.linear.weight.detach().clone())


def shirts(rows=600):
    """A problem that takes a few dozen epochs: digits, many features, hardly any penalty."""
    x, y = REAL["digits"]()
    return x[:rows] / 16, y[:rows], 1e-5


def test_each_epoch_logs_the_objective_of_the_point_that_validation_and_checkpoints_see():
    x, y, l2 = shirts()
    seen = []

    class Compare(Callback):
        def on_validation_end(self, trainer, pl_module):
            weight, bias = parameters(pl_module)
            seen.append(references.objective(weight, bias, x, y, l2))

        def on_train_epoch_start(self, trainer, pl_module):
            if seen and not trainer.sanity_checking:
                logged = trainer.callback_metrics["train/objective"]
                assert float(logged) == pytest.approx(seen[-1], rel=1e-6)
                assert "train/gradient_max" in trainer.callback_metrics

    trainer = trainer_for(max_epochs=8, callbacks=[Compare()], num_sanity_val_steps=0)
    model = SoftmaxRegression(64, 10, l2=l2, optimizer=ExactSolver)
    trainer.fit(model, batches(x, y, 100), batches(x, y, 100))
    assert len(seen) == 8
    assert trainer.global_step == 8


@pytest.mark.parametrize("newton", [True, False])
@pytest.mark.parametrize("epoch", sampled([1, 2, 5], named=[2]))
def test_a_resumed_run_continues_the_same_trajectory(tmp_path, epoch, newton, monkeypatch):
    if not newton:  # the first curvature for ever, and L-BFGS's pairs
        monkeypatch.setattr("smx_lightning.optim.models.choice.PATIENCE", 1e9)
    x, y, l2 = shirts()

    def run(**kwargs):
        torch.manual_seed(0)
        trajectory = Trajectory()
        fit = {"ckpt_path": kwargs.pop("ckpt_path", None)}
        trainer = trainer_for(callbacks=[trajectory], **kwargs)
        model = SoftmaxRegression(64, 10, l2=l2, optimizer=ExactSolver)
        trainer.fit(model, batches(x, y, 100), **fit)
        return trainer, model, trajectory.points

    _, whole, points = run(max_epochs=9)
    trainer, _, first = run(max_epochs=epoch)
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed, rest = run(max_epochs=9, ckpt_path=tmp_path / "half.ckpt")
    assert len(first) + len(rest) == len(points) == 9
    for one, other in zip(points, first + rest, strict=True):
        assert torch.equal(one, other)
    pairs = [len(model.solver._descent.pairs) for model in (resumed, whole)]
    assert pairs[0] == pairs[1]
    assert newton or pairs[1] > 3


def test_a_solver_that_has_stopped_keeps_its_answer_and_no_curvature(tmp_path):
    x, y, l2 = shirts()
    trainer = trainer_for()
    whole = solved(x, y, l2, trainer=trainer)
    trainer.save_checkpoint(tmp_path / "done.ckpt")
    assert whole.solver.state_dict()["state"]["curvature"] is None
    again = SoftmaxRegression(64, 10, l2=l2, optimizer=ExactSolver)
    trainer_for().fit(again, batches(x, y, 100), ckpt_path=tmp_path / "done.ckpt")
    assert again.solver.status is Status.CONVERGED
    torch.testing.assert_close(again.linear.weight, whole.linear.weight, rtol=0, atol=0)


@pytest.mark.whole
def test_a_rejected_last_step_is_taken_back():
    x, y, l2 = shirts()
    objectives = []
    for epochs in range(1, 12):
        torch.manual_seed(0)
        model = solved(x, y, l2, trainer=trainer_for(max_epochs=epochs))
        objectives.append(references.objective(*parameters(model), x, y, l2))
    assert all(later <= earlier for earlier, later in itertools.pairwise(objectives))


@pytest.mark.whole
def test_the_sums_of_two_processes_meet(ranks):
    """Shares of 300 and 299 rows: the same optimum, bit by bit the same on both ranks."""
    x, y, l2 = shirts(599)
    alone = solved(x, y, l2)
    answers = ranks.run(2, jobs.solved_on_shares, x, y, l2)
    for weight, status in answers:
        assert status == Status.CONVERGED.name
        np.testing.assert_allclose(weight, alone.linear.weight.detach(), atol=1e-4)
    np.testing.assert_array_equal(answers[0][0], answers[1][0])


# What it refuses -----------------------------------------------------------------------------


SCHEDULE = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1)
Plain = functools.partial(SoftmaxRegression, 4, 3)


class Focal(SoftmaxRegression):
    def __init__(self, **kwargs):
        super().__init__(4, 3, **kwargs)

    def loss(self, log_probs, y):
        return log_probs.mean()


class Probe(SoftmaxRegression):
    def __init__(self, **kwargs):
        super().__init__(4, 3, **kwargs)
        self.backbone = torch.nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("make", "trainer", "message"),
    [
        (Focal, {}, "loss of its own"),
        (Probe, {}, "one linear layer"),
        (functools.partial(Plain, lr_scheduler=SCHEDULE), {}, "learning-rate schedule"),
        (Plain, {"gradient_clip_val": 1.0}, "clipping"),
        (Plain, {"accumulate_grad_batches": 2}, "accumulated"),
        (Plain, {"limit_train_batches": 2}, "part of the data"),
        (Plain, {"precision": "bf16-true"}, "float32 or float64"),
    ],
)
def test_what_would_move_the_optimum_is_refused(make, trainer, message):
    x, y = REAL["iris"]()
    with pytest.raises(InputError, match=message):
        trainer_for(**trainer).fit(make(optimizer=ExactSolver), batches(x, y, 10, torch.float32))


def test_rows_that_come_and_go_are_refused():
    x, y = REAL["iris"]()
    epochs = itertools.count()

    class Shrinking(torch.utils.data.IterableDataset):
        def __iter__(self):
            kept = len(y) - 10 * next(epochs)
            yield torch.tensor(x[:kept]), torch.tensor(y[:kept])

    model = SoftmaxRegression(4, 3, l2=0.1, optimizer=ExactSolver)
    with pytest.raises(InputError, match="same rows every epoch"):
        trainer_for().fit(model, DataLoader(Shrinking(), batch_size=None))


def test_bad_settings_are_named():
    layer = torch.nn.Linear(3, 2)
    with pytest.raises(InputError, match="tol must be"):
        ExactSolver(layer.parameters(), tol=-1)
    with pytest.raises(InputError, match="memory must be"):
        ExactSolver(layer.parameters(), memory=0)


def test_a_frozen_backbone_is_a_probe():
    x, y = REAL["iris"]()
    probe = Probe(l2=0.01, optimizer=ExactSolver)
    probe.backbone.requires_grad_(False)
    probe.features = lambda rows: probe.backbone(rows)
    trainer_for().fit(probe, batches(x, y, 50))
    assert probe.solver.status is Status.CONVERGED
    features = probe.backbone(torch.tensor(x)).numpy()
    assert_optimal(probe, features, y, 0.01)


def test_the_command_line_takes_the_solver_by_name(cli_folder, capsys):
    """Tested and exported is the optimum, not the epoch that does best on the validation rows."""
    assert main(["fit", "--model.optimizer=ExactSolver", "--model.optimizer.tol=1e-5"]) == 0
    printed = capsys.readouterr().out
    assert Status.CONVERGED.value in printed
    assert "parity holds" in printed
    run = cli_folder / "lightning_logs" / "version_0"
    with (run / "metrics.csv").open() as file:
        logged = [float(row["train/objective"] or "inf") for row in csv.DictReader(file)]
    best, last = (
        torch.load(run / "checkpoints" / name, weights_only=True)["state_dict"]["smx.0.weight"]
        for name in ("best.ckpt", "last.ckpt")
    )
    assert min(logged) == min(logged[-3:])
    torch.testing.assert_close(best, last, rtol=1e-3, atol=1e-4)


def test_every_rung_of_the_ladder_survives_a_checkpoint():
    for model in LADDER:
        rows = torch.randn(30, 4, dtype=torch.float64)
        probs = torch.randn(30, 3, dtype=torch.float64).softmax(1)
        if model is Diagonal:
            moments = Moments(30.0, rows.sum(0), rows.square().sum(0))
            curvature = Diagonal.of(moments, 3, 0.1)
        else:
            curvature = model(3, 5, expected=1.0, rows=30, like=rows)
            curvature.add(rows, probs.T, torch.ones(30), None)
            curvature.finish(30.0, 0.1, lambda total: total)
        curvature.follow((probs - probs.square()).mean(0))
        again = restored(curvature.state(), 3, 5, rows.new_empty(()))
        gradient = torch.randn(3, 5, dtype=torch.float64)
        assert torch.equal(again.solve(gradient), curvature.solve(gradient))


def test_a_sampler_that_repeats_rows_is_pointed_out():
    x, y = REAL["iris"]()
    rows = TensorDataset(torch.tensor(x[:149]).float(), torch.tensor(y[:149]))
    loader = DataLoader(rows, 50, sampler=DistributedSampler(rows, num_replicas=2, rank=0))
    with pytest.warns(UserWarning, match="repeats rows"):
        trainer_for(torch.float32, max_epochs=1).fit(Plain(optimizer=ExactSolver), loader)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_finds_the_same_optimum():
    x, y = REAL["digits"]()
    x = x / 16
    model = solved(x, y, 1e-3, trainer=trainer_for(accelerator="gpu", devices=1))
    assert model.solver.status is Status.CONVERGED
    assert_optimal(model.cpu(), x, y, 1e-3)
