"""Whatever stops the exact solver: what it says, logs and prints is true of the parameters left."""

import copy
import functools
import re

import numpy as np
import pytest
import references
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping
from sampled import sampled
from sklearn import datasets
from solving import batches, few_rows, noisy_scores, optimum, parameters, trainer_for

from smx_lightning import SoftmaxRegression
from smx_lightning.optim import ExactSolver, Status


class StopAt(Callback):
    """Somebody asks for the end, in one of the hooks."""

    def __init__(self, epoch, hook):
        self.epoch = epoch
        setattr(self, hook, self.stop)

    def stop(self, trainer, pl_module, *args):
        if trainer.current_epoch == self.epoch and not trainer.sanity_checking:
            trainer.should_stop = True


def iris():
    return *datasets.load_iris(return_X_y=True), 1e-3


def separable():
    return np.repeat(np.eye(3) * 3, 5, axis=0), np.repeat(np.arange(3), 5), 0.0


def wine():
    x, y = datasets.load_wine(return_X_y=True)
    return x.astype(np.float32).astype(np.float64), y, 2 / len(y)


def thirty_classes():
    return *noisy_scores(31, 0), 1e-3


def one_row_a_class():
    """Of its trial points some are at an infinite loss."""
    return *few_rows(100, 1, 8, 0), 1e-3


STOPS = {
    "converged": (iris, {}, Status.CONVERGED),
    "separable": (separable, {}, Status.SEPARABLE),
    "precision": (wine, {"precision": "32-true"}, Status.PRECISION),
    "one row a class": (one_row_a_class, {}, Status.CONVERGED),
    **{
        f"max_epochs={epochs}": (thirty_classes, {"max_epochs": epochs}, Status.RUNNING)
        for epochs in range(1, 11)
    },
    **{
        f"should_stop in {hook} of {epoch}": (
            thirty_classes,
            {"callbacks": [StopAt(epoch, hook)]},
            Status.RUNNING,
        )
        for hook in ("on_train_batch_end", "on_validation_end", "on_train_epoch_end")
        for epoch in (2, 3, 4, 5)
    },
    "early stopping": (
        thirty_classes,
        {"callbacks": [EarlyStopping("train/objective", patience=1)]},
        Status.RUNNING,
    ),
    "max_steps": (thirty_classes, {"max_steps": 4}, Status.RUNNING),
    "mid-epoch": (
        thirty_classes,
        {"callbacks": [StopAt(4, "on_train_batch_start")]},
        Status.RUNNING,
    ),
}


def fitted(problem, trainer, *, validate=True, ckpt_path=None, **model):
    x, y, l2 = problem()
    trainer = trainer_for(**{"num_sanity_val_steps": 0, **trainer})
    dtype = torch.float64 if trainer.precision == "64-true" else torch.float32
    module = SoftmaxRegression(
        x.shape[1],
        int(y.max()) + 1,
        l2=l2,
        optimizer=functools.partial(ExactSolver, tol=1e-9),
        **model,
    )
    loader = batches(x, y, 100, dtype)
    trainer.fit(module, loader, loader if validate else None, ckpt_path=ckpt_path)
    return module, trainer


@pytest.mark.whole
@pytest.mark.parametrize(
    "stop", sampled(STOPS, every=3, named=("converged", "separable", "precision"))
)
def test_the_objective_logged_is_that_of_the_parameters_left(stop, monkeypatch):
    said = []
    monkeypatch.setattr("smx_lightning.optim.training.rank_zero_info", said.append)
    problem, trainer, status = STOPS[stop]
    x, y, l2 = problem()
    module, trainer = fitted(problem, copy.deepcopy(trainer))
    assert module.solver.status is status

    # float32's own forward is what was evaluated.
    relative = 1e-9 if trainer.precision == "64-true" else 1e-5
    weight, bias = parameters(module)
    true = references.objective(weight, bias, x, y, l2)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert logged["train/objective"] == pytest.approx(true, rel=max(relative, 1e-6))  # logs float32
    assert module.solver.evaluation.objective == pytest.approx(true, rel=relative)
    gradient = references.gradient(weight, bias, x, y, l2)
    found = module.solver.evaluation.gradient.numpy()
    scale = np.append(np.sqrt((x**2).mean(0)), 1.0)
    np.testing.assert_allclose(found / scale, gradient / scale, atol=100 * relative)
    nll = true - 0.5 * l2 * (weight**2).sum()
    assert logged["train/nll"] == pytest.approx(nll, rel=1e-4, abs=1e-6)
    printed = re.findall(r"objective ([^ ,]+), largest", " ".join(said))
    assert len(printed) == (status is not Status.RUNNING)
    assert all(float(text) == pytest.approx(true, rel=max(relative, 1e-7)) for text in printed)


def test_a_first_epoch_that_breaks_off_leaves_the_weights_where_they_were():
    module, trainer = fitted(iris, {"callbacks": [StopAt(0, "on_train_batch_end")]})
    assert module.solver.status is Status.RUNNING
    assert module.solver.evaluation is None
    assert "train/objective" not in trainer.callback_metrics


def test_validation_and_checkpoints_see_the_best_point_after_every_epoch():
    x, y, l2 = thirty_classes()
    seen, rejected = [], []

    class Watch(Callback):
        def on_validation_end(self, trainer, pl_module):
            seen.append(references.objective(*parameters(pl_module), x, y, l2))
            rejected.append(pl_module.solver.rejected)

    fitted(thirty_classes, {"callbacks": [Watch()], "max_epochs": 12})
    assert any(rejected)
    for before, after, back in zip(seen[1:], seen[2:], rejected[2:], strict=False):
        assert after == before if back else after <= before + 1e-12


def test_training_metrics_are_the_best_point_s_after_every_epoch_of_a_resumed_run_too(tmp_path):
    """After a rejected epoch, the last accepted one's; they were lost where a run resumed there."""

    class Watch(Checkpoint):  # which is called behind the model's own hook
        def __init__(self):
            self.seen = {}

        def on_train_epoch_end(self, trainer, pl_module):
            metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
            self.seen[trainer.current_epoch] = pl_module.solver.rejected, metrics
            trainer.save_checkpoint(tmp_path / f"{trainer.current_epoch}.ckpt")

    whole, resumed = Watch(), Watch()
    options = {"enable_checkpointing": True, "max_epochs": 12}
    fitted(thirty_classes, options | {"callbacks": [whole]})
    rejected = [epoch for epoch, (back, _) in whole.seen.items() if back and epoch]
    assert rejected
    for epoch in rejected:
        assert whole.seen[epoch][1]["train/nll"] == whole.seen[epoch - 1][1]["train/nll"]
        options |= {"callbacks": [resumed], "max_epochs": epoch + 1}
        fitted(thirty_classes, options, ckpt_path=tmp_path / f"{epoch - 1}.ckpt")
        assert resumed.seen[epoch] == whole.seen[epoch]


def test_a_trial_point_at_an_infinite_loss_is_no_failure_of_training():
    """ "the training loss became inf … look for NaN", before."""
    module, _ = fitted(one_row_a_class, {})
    assert module.solver.status is Status.CONVERGED
    x, y, l2 = one_row_a_class()
    found = references.objective(*parameters(module), x, y, l2)
    assert found == pytest.approx(optimum(x, y, l2), rel=1e-8)


@pytest.mark.parametrize("epochs", sampled(range(1, 12), every=11))
def test_a_checkpoint_of_any_epoch_resumes_bit_for_bit_and_one_of_0_1_from_its_point(
    epochs, tmp_path
):
    """0.1 took other steps: of its state only the point and the status are read."""

    def run(stop, path=None):
        torch.manual_seed(0)
        x, y, l2 = thirty_classes()
        module = SoftmaxRegression(16, int(y.max()) + 1, l2=l2, optimizer=ExactSolver)
        trainer = trainer_for(max_epochs=stop)
        trainer.fit(module, batches(x, y, 100), ckpt_path=path, weights_only=path and True)
        return module, trainer

    whole, _ = run(16)
    _, trainer = run(epochs)
    trainer.save_checkpoint(tmp_path / "new.ckpt")
    resumed, _ = run(16, tmp_path / "new.ckpt")
    assert torch.equal(resumed.linear.weight, whole.linear.weight)
    assert resumed.solver.evaluation.objective == whole.solver.evaluation.objective

    old = torch.load(tmp_path / "new.ckpt", weights_only=True)
    (optimizer,) = old["optimizer_states"]
    kept = ("point", "evaluations", "status")
    state = {name: optimizer["state"][name] for name in kept}
    optimizer["state"] = state | {"direction": torch.empty(0), "evaluation": {"objective": 1.0}}
    torch.save(old, tmp_path / "old.ckpt")
    resumed, _ = run(300, tmp_path / "old.ckpt")
    assert resumed.solver.status is Status.CONVERGED
    x, y, l2 = thirty_classes()
    found = references.objective(*parameters(resumed), x, y, l2)
    assert found == pytest.approx(optimum(x, y, l2), rel=1e-8)
