"""The parameters are the best point at every moment, whatever ends the training, and after it."""

import functools
import math
import os
import signal

import numpy as np
import pytest
import references
import torch
from lightning.pytorch import Callback
from sampled import sampled, whole
from solving import batches, noisy_scores, objective, optimum, parameters, trainer_for
from torch.utils.data import TensorDataset

from smx_lightning import SoftmaxRegression
from smx_lightning.data import BatchLoader
from smx_lightning.optim import ExactSolver, Status, minimise

L2, CLASSES, FEATURES = 1e-3, 30, 16
X, Y = noisy_scores(CLASSES + 1, 0)
CLASSES = int(Y.max()) + 1


class Broken(Exception):  # noqa: N818 (nothing is wrong)
    pass


def throw(error):
    raise error


ENDINGS = {
    "an exception": (lambda: throw(Broken), Broken),
    "Ctrl-C": (lambda: throw(KeyboardInterrupt), SystemExit),
    "exit": (lambda: throw(SystemExit(7)), SystemExit),
    "SIGTERM": (lambda: os.kill(os.getpid(), signal.SIGTERM), SystemExit),
}
HOOKS = (
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_batch_end",
    "on_validation_end",
    "on_train_epoch_end",
)


class Breaks(Callback):
    """Ends the training in a hook of an epoch."""

    def __init__(self, epoch, hook, end):
        self.epoch, self.end = epoch, end
        setattr(self, hook, self.maybe)

    def maybe(self, trainer, pl_module, *args):
        if trainer.current_epoch == self.epoch and not trainer.sanity_checking:
            self.end()


def copied(module):
    return [part.copy() for part in parameters(module)]


def module_with(start):
    solver = functools.partial(ExactSolver, tol=1e-9)
    module = SoftmaxRegression(FEATURES, CLASSES, l2=L2, optimizer=solver)
    weight, bias = STARTS[start]()
    with torch.no_grad():
        module.linear.weight.copy_(weight)
        module.linear.bias.copy_(bias)
    return module


def random(scale=1.0):
    generator = torch.Generator().manual_seed(3)
    draw = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    return scale * draw(CLASSES, FEATURES), scale * draw(CLASSES)


STARTS = {
    "zero": lambda: (torch.zeros(CLASSES, FEATURES), torch.zeros(CLASSES)),
    "near zero": functools.partial(random, 1e-3),
    "random": functools.partial(random, 0.3),
    "far": functools.partial(random, 30.0),
    "saturated": functools.partial(random, 1e5),
    "shared": lambda: (torch.full((CLASSES, FEATURES), 7.0), torch.full((CLASSES,), -3.0)),
}


def assert_true(module):
    """What the solver says is true of the parameters."""
    weight, bias = parameters(module)
    solver = module.solver
    true = references.objective(weight, bias, X, Y, L2)
    assert solver.evaluation.objective == pytest.approx(true, rel=1e-9)
    found, gradient = (
        solver.evaluation.gradient.numpy(),
        references.gradient(weight, bias, X, Y, L2),
    )
    np.testing.assert_allclose(found, gradient, atol=1e-9 * max(1, np.abs(gradient).max()))
    least = optimum(X, Y, L2)
    assert (true - least) / true <= 1.25 * solver.gap + 1e-9
    return true


@pytest.mark.parametrize("hook", sampled(HOOKS, named=["on_train_batch_end"]))
@pytest.mark.parametrize("ending", sampled(ENDINGS, every=1))
@pytest.mark.parametrize("epoch", sampled([0, 1, 2, 3, 4, 5, 6], named=[1, 3]))
@pytest.mark.parametrize("start", sampled(["zero", "random"], every=2))
def test_whatever_breaks_it_off_leaves_the_best_point(start, epoch, ending, hook):
    end, error = ENDINGS[ending]
    objectives = []

    class Notes(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            objectives.append(references.objective(*parameters(pl_module), X, Y, L2))

    callbacks = [Breaks(epoch, hook, end), Notes()]
    trainer = trainer_for(callbacks=callbacks)
    given = list(trainer.callbacks)
    module = module_with(start)
    before = copied(module)
    loader = batches(X, Y, 40)
    with pytest.raises(error):
        trainer.fit(module, loader, loader)
    assert trainer.callbacks == given
    if module.solver.evaluation is None:
        assert not objectives
        for left, was in zip(parameters(module), before, strict=True):
            np.testing.assert_array_equal(left, was)
        return
    assert assert_true(module) <= min(objectives, default=math.inf) + 1e-12


def test_what_breaks_off_in_the_model_or_the_loader_does_so_too():
    class Fails(SoftmaxRegression):
        rows = 0

        def features(self, x):
            self.rows += len(x)
            if self.rows > 4.5 * len(X):
                raise Broken
            return x

    class Loader(torch.utils.data.IterableDataset):
        passes = 0

        def __iter__(self):
            self.passes += 1
            for number, batch in enumerate(batches(X, Y, 40)):
                if self.passes > 4 and number == 5:
                    raise Broken
                yield batch

    solver = functools.partial(ExactSolver, tol=1e-9)
    stream = torch.utils.data.DataLoader(Loader(), batch_size=None)
    for kind, loader in ((Fails, batches(X, Y, 40)), (SoftmaxRegression, stream)):
        module = kind(FEATURES, CLASSES, l2=L2, optimizer=solver)
        with pytest.raises(Broken):
            trainer_for().fit(module, loader)
        assert module.solver.evaluations == 4
        assert_true(module)


@pytest.mark.parametrize("start", sampled(STARTS, named=["random"]))
def test_at_every_moment_of_training_the_parameters_are_the_last_epoch_s(start, tmp_path):
    """Also while an epoch evaluates elsewhere: what somebody saves or asks then is of use."""
    seen = []

    class Watch(Callback):
        left = None

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if self.left is not None and not trainer.is_last_batch:
                for now, then in zip(parameters(pl_module), self.left, strict=True):
                    np.testing.assert_array_equal(now, then)
                trial = pl_module.solver.trial.numpy()
                seen.append(not np.array_equal(trial[:, :-1], self.left[0]))
            if trainer.current_epoch == 3 and batch_idx == 2:
                trainer.save_checkpoint(tmp_path / "mid.ckpt")

        def on_train_epoch_end(self, trainer, pl_module):
            self.left = copied(pl_module)
            assert_true(pl_module)
            if trainer.current_epoch == 2:
                self.third = self.left

    watch = Watch()
    rows = BatchLoader(TensorDataset(torch.as_tensor(X), torch.as_tensor(Y)), batch_size=40)
    module = module_with(start)
    trainer_for(callbacks=[watch]).fit(module, rows)
    assert module.solver.status is Status.CONVERGED
    assert any(seen)
    saved = torch.load(tmp_path / "mid.ckpt", weights_only=True)["state_dict"]
    np.testing.assert_array_equal(saved["smx.0.weight"].double().numpy(), watch.third[0])

    again = module_with("zero")
    trainer_for().fit(again, rows, ckpt_path=tmp_path / "mid.ckpt", weights_only=True)
    assert torch.equal(again.linear.weight, module.linear.weight)


@pytest.mark.parametrize("start", sampled(STARTS, named=["zero", "random", "saturated"]))
@pytest.mark.parametrize("epochs", sampled(range(6), named=[0, 1, 2, 3]))
def test_after_any_number_of_epochs_what_the_solver_says_is_true(start, epochs):
    module = module_with(start)
    before = copied(module)
    trainer = trainer_for(max_epochs=epochs)
    trainer.fit(module, batches(X, Y, 40))
    if epochs == 0:
        assert module.solver is None
        np.testing.assert_array_equal(parameters(module)[0], before[0])
        return
    true = assert_true(module)
    logged = float(trainer.callback_metrics["train/objective"])
    assert logged == pytest.approx(true, rel=1e-5)
    if epochs > 1:
        assert true <= math.log(CLASSES) + 1e-12
    assert module.solver.evaluations == epochs


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("passes", range(1, 6))
@pytest.mark.parametrize("weights", [None, "classes", "soft"])
def test_after_any_number_of_passes_the_solution_is_true(weights, passes, start):
    rng = np.random.default_rng(passes)
    class_weight = None if weights is None else rng.uniform(0.1, 3.0, CLASSES)
    targets = np.eye(CLASSES)[Y]
    if weights == "soft":
        targets = rng.dirichlet(np.ones(CLASSES), len(Y))
    y = torch.as_tensor(targets if weights == "soft" else Y)
    found = minimise(
        [(torch.as_tensor(X), y)],
        FEATURES,
        CLASSES,
        l2=L2,
        class_weight=None if class_weight is None else torch.as_tensor(class_weight),
        start=STARTS[start](),
        dtype=torch.float64,
        max_evaluations=passes,
    )
    weighted = targets * (1.0 if class_weight is None else class_weight)
    w, b = found.weight.numpy(), found.bias.numpy()
    logits = X @ w.T + b
    logits -= logits.max(1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    true = -(weighted * log_probs).sum() / weighted.sum() + 0.5 * L2 * (w**2).sum()
    assert found.objective == pytest.approx(true, rel=1e-12)
    assert true <= math.log(CLASSES) + 1e-12
    assert 0 <= found.gap <= 1
    assert found.evaluations == passes or found.status is not Status.RUNNING


@pytest.mark.parametrize("start", sampled(STARTS, named=["zero", "random"]))
@pytest.mark.parametrize("passes", [1, 2, 3])
@pytest.mark.parametrize("breaks", [False, True])
def test_features_far_from_zero_are_no_exception(breaks, passes, start):
    """The first pass only tells from where to see them; the second evaluates anew from there."""
    far = X + 1000.0
    module = module_with(start)
    ends = [Breaks(passes, "on_train_batch_end", ENDINGS["an exception"][0])] if breaks else []
    trainer = trainer_for(max_epochs=passes + 1 if breaks else passes, callbacks=ends)
    if breaks:
        with pytest.raises(Broken):
            trainer.fit(module, batches(far, Y, 40))
    else:
        trainer.fit(module, batches(far, Y, 40))
    assert module.solver.evaluations == passes
    true = objective(*parameters(module), far, Y, L2)
    assert module.solver.evaluation.objective == pytest.approx(true, rel=1e-9)

    found = minimise(
        [(torch.as_tensor(far), torch.as_tensor(Y))],
        FEATURES,
        CLASSES,
        l2=L2,
        start=STARTS[start](),
        dtype=torch.float64,
        max_evaluations=passes,
    )
    true = objective(found.weight.numpy(), found.bias.numpy(), far, Y, L2)
    assert found.objective == pytest.approx(true, rel=1e-9)
    assert true <= math.log(CLASSES) + 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, whole(torch.float64)])
@pytest.mark.parametrize("large", [1e30, 3e38, math.inf, math.nan])
def test_a_start_at_an_infinite_loss_is_left_for_zero_weights(large, dtype):
    """ "the training loss became nan in epoch 0 … look for NaN", before; then NaN for ever."""
    module = module_with("zero")
    with torch.no_grad():
        module.linear.weight[0], module.linear.weight[1:] = large, -large
    trainer_for(dtype).fit(module, batches(X, Y, 40, dtype))
    assert module.solver.status in (Status.CONVERGED, Status.PRECISION)
    found = references.objective(*parameters(module), X, Y, L2)
    assert found == pytest.approx(optimum(X, Y, L2), rel=1e-5)
