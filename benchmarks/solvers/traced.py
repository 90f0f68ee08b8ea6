"""The solvers, each as it lets itself be traced; it runs until it converges or is stopped."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model._linear_loss import LinearModelLoss
from torch.nn import functional as F  # noqa: N812 (its customary name)

from benchmarks import ours
from benchmarks.problems import Problem
from benchmarks.solvers.recorder import CapReached, Moment, Point, Recorder, Skipped

MAX_HESSIAN_BYTES = 4 * 2**30
HOOKED = ("loss", "loss_gradient", "gradient_hessian", "gradient_hessian_product")


def smx_lightning(data: Problem, recorder: Recorder) -> None:
    """Our exact solver under Lightning's Trainer, batches as a user would feed it."""
    model = ours.model(data, tol=1e-7)
    trainer = ours.trainer(data, max_epochs=500, callbacks=[RecordEpochs(recorder)])
    loader = ours.loader(data)
    recorder.start()
    trainer.fit(model, loader)
    # Not after the cap: the weights are then those of a step that no epoch has evaluated.
    recorder.point = _point(model.linear.weight, model.linear.bias)


class RecordEpochs(Callback):
    """Records ``train/objective``, one pass an epoch.

    A callback's ``on_train_epoch_end`` runs before the module's, which logs the metric; so an epoch
    is recorded when the next one starts, or when training ends.
    """

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch before is over."""
        self._record(trainer)
        if self.recorder.seconds > self.recorder.cap:
            raise CapReached

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last epoch is over."""
        self._record(trainer)

    def _record(self, trainer: Trainer) -> None:
        passes = trainer.current_epoch
        if passes > 0:
            objective = float(trainer.callback_metrics["train/objective"])
            self.recorder.record(Moment(self.recorder.seconds, passes, objective))


def hooked_sklearn(data: Problem, recorder: Recorder, solver: str) -> None:
    """A solver of scikit-learn, its private loss wrapped: it offers no callback."""
    if solver == "newton-cholesky":
        size = 8 * ((data.x.shape[1] + 1) * data.num_classes) ** 2
        if size > MAX_HESSIAN_BYTES:
            raise Skipped(f"its Hessian would take {size / 2**30:.1f} GiB")
    for name in HOOKED:
        setattr(LinearModelLoss, name, _counted(name, getattr(LinearModelLoss, name), recorder))
    model = LogisticRegression(solver=solver, C=data.C, tol=1e-9, max_iter=10**6)
    recorder.start()
    model.fit(data.x, data.y)


def _counted(name: str, method: Callable[..., Any], recorder: Recorder) -> Callable[..., Any]:
    """The method of LinearModelLoss, counting passes and recording objectives."""

    def counted(self: Any, coef: NDArray[np.floating], *args: Any, **kwargs: Any) -> Any:
        answer = method(self, coef, *args, **kwargs)
        if name in ("loss", "loss_gradient"):
            objective = float(answer[0] if name == "loss_gradient" else answer)
            recorder.evaluated(objective, lambda: self.weight_intercept(coef.copy()))
            return answer
        recorder.count()
        if name == "gradient_hessian_product":
            gradient, product = answer

            def counted_product(vector: NDArray[np.floating]) -> Any:
                image = product(vector)
                recorder.count()
                return image

            return gradient, counted_product
        return answer

    return counted


def restarted(data: Problem, recorder: Recorder, model: Callable[..., Any]) -> None:
    """A solver without a hook: fits of 1, 2, 4, … iterations, each from the start.

    A fit starts while all before it took less than the cap together, so the last may take the whole
    cap for itself, as the other solvers may. The objective is evaluated out of the clock.
    """
    spent, iterations = 0.0, 1
    while spent < recorder.cap:
        fitted = model(C=data.C, tol=1e-12, max_iter=iterations)
        recorder.start()
        fitted.fit(data.x, data.y)
        seconds = recorder.stop()
        spent += seconds
        point = (fitted.coef_, fitted.intercept_)
        passes = int(np.max(fitted.n_iter_))
        moment = Moment(seconds, passes, data.objective(*point))
        recorder.record(moment, partial(_same, point))
        if passes < iterations:  # converged
            return
        iterations *= 2
    raise CapReached


def saga(data: Problem, recorder: Recorder) -> None:
    """scikit-learn's stochastic solver; an iteration is an epoch."""
    restarted(data, recorder, partial(LogisticRegression, solver="saga", random_state=0))


def intelex_lbfgs(data: Problem, recorder: Recorder) -> None:
    """Intel's replacement of scikit-learn's lbfgs; a pass is an iteration, line search or not."""
    if importlib.util.find_spec("sklearnex") is None:
        raise Skipped("scikit-learn-intelex is not installed")
    # It says only in its log where it hands a problem back to scikit-learn.
    heard: list[str] = []
    listener = logging.Handler()
    listener.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("sklearnex")
    logger.setLevel(logging.INFO)
    logger.addHandler(listener)
    replacement = importlib.import_module("sklearnex.linear_model").LogisticRegression
    try:
        restarted(data, recorder, partial(replacement, solver="lbfgs"))
    finally:
        if any("fallback" in message and ".fit" in message for message in heard):
            recorder.end({"note": "fell back to scikit-learn's own"})


def torch_lbfgs(data: Problem, recorder: Recorder) -> None:
    """L-BFGS as torch has it, on the whole data set as one batch, in float32."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    weight = torch.zeros(data.num_classes, x.shape[1], requires_grad=True)
    bias = torch.zeros(data.num_classes, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        history_size=10,
        line_search_fn="strong_wolfe",
        max_iter=10**9,
        max_eval=10**9,
        tolerance_grad=0.0,
        tolerance_change=0.0,
    )

    def closure() -> float:
        optimizer.zero_grad()
        nll = F.nll_loss(F.log_softmax(F.linear(x, weight, bias), dim=1), y)
        objective = nll + 0.5 * data.l2 * weight.square().sum()
        torch.autograd.backward(objective)
        value = float(objective.detach())
        recorder.evaluated(value, partial(_point, weight, bias))
        return value

    recorder.start()
    cast("Any", optimizer).step(closure)  # untyped in torch


def _point(weight: torch.Tensor, bias: torch.Tensor) -> Point:
    return weight.detach().clone().numpy(), bias.detach().clone().numpy()


def _same(point: Point) -> Point:
    return point


class Solver(NamedTuple):
    """A row of the table: how it is called there, what it runs, its colour in the plot."""

    label: str
    minimise: Callable[[Problem, Recorder], None]
    colour: str


SOLVERS = {
    "smx_lightning": Solver("smx_lightning", smx_lightning, "#d62728"),
    **{
        name: Solver(f"scikit-learn {name}", partial(hooked_sklearn, solver=name), colour)
        for name, colour in (
            ("lbfgs", "#1f77b4"),
            ("newton-cg", "#2ca02c"),
            ("newton-cholesky", "#9467bd"),
        )
    },
    "saga": Solver("scikit-learn saga", saga, "#ff7f0e"),
    "intelex lbfgs": Solver("scikit-learn-intelex lbfgs", intelex_lbfgs, "#17becf"),
    "torch.optim.LBFGS": Solver("torch.optim.LBFGS", torch_lbfgs, "#7f7f7f"),
}
