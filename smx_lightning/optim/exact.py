"""The exact solver: one epoch, one evaluation of the full objective, one step.

Minimises

    f(W, b) = Σ c · nll(x) / Σ c + ½ · l2 · ‖W‖²

over all rows of an epoch, whatever the batches. While the epoch passes, loss, gradient and
curvature are summed; at its end the sums of all processes meet, and L-BFGS (Nocedal & Wright,
"Numerical Optimization", 2006, alg. 7.4), preconditioned with the sampled Hessian of
:mod:`smx_lightning.optim.hessians`, says where the next epoch evaluates. The line search costs
whole epochs too: a step that raised the objective is shortened, and the next epoch tries again.

When an epoch has ended the parameters are the best point so far, and stay so until the next one
begins: validation and checkpoints see the point whose objective was logged, whatever stops the
training.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, non_negative
from smx_lightning.optim.curvature import Curvature, pass_work
from smx_lightning.optim.evaluation import EpochSums, Evaluation, summed
from smx_lightning.optim.hessians import LADDER, restored
from smx_lightning.optim.lbfgs import Pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ARMIJO = 1e-4  # Nocedal & Wright, sec. 3.1
SHORTEST = 1e-6  # of a step: after some twenty halvings the direction is at fault
PATIENCE = 0.45  # pay for new curvature when the passes so far have cost this much of its price
CAUTION = 0.1  # how far probabilities go towards 1/K in the curvature, after it misled a step
MISLED = 0.2  # of the step would have been best
STALLED = 6  # epochs without progress that rounding could show
HIDDEN = 1000  # times the objective's rounding: less may be hidden by it
ROUNDING = 16  # times ε |x|: errors of many terms, which cancel for the most part
UNKNOWN_BATCHES = 64  # in an epoch whose length is not known
KEPT = (
    *("point", "direction", "slope", "length"),
    *("work", "work_at_refresh", "largest", "least", "stalled", "squares", "caution", "look_again"),
)


class Status(Enum):
    """Why the solver stopped; the value is the message."""

    RUNNING = "still running"
    CONVERGED = "converged: no entry of the gradient is larger than tol"
    PRECISION = "stopped at the limit of the parameters' precision"
    STALLED = (
        "stopped short of the optimum: no step lowers the objective any more, though its gradient "
        "is larger than rounding explains; check that rows and features are the same every epoch"
    )
    SEPARABLE = (
        "stopped: every training row has more than half of the probability on its own class and "
        "l2 is 0, so the objective falls for ever and has no minimum; set l2 above 0"
    )


class ExactSolver(torch.optim.Optimizer):
    """Minimises softmax regression's objective to its unique optimum, one epoch a step.

    Inject it like any other optimiser: ``SoftmaxRegression(..., optimizer=ExactSolver)``, or
    ``--model.optimizer smx_lightning.optim.ExactSolver``. The Trainer then stops by itself, before
    ``max_epochs``, and says why. It starts from the present weights, or from zero where those are
    worse, as random ones are. Batches may be of any size, also uneven; large ones are faster.
    Memory is one batch, 2 · ``memory`` copies of the parameters, and the chosen rows' curvature: up
    to 256 MB in float32 (512 MB for one matrix of 11584 features), as much again while it is
    factored.

    Args:
        params: Weight (classes, features) and bias (classes,) of the linear layer, in this order.
        tol: Stop when the largest absolute entry of the gradient is at most this, as
            scikit-learn's ``tol``.
        memory: Curvature pairs that L-BFGS remembers, at least 1.

    Attributes:
        status: A :class:`Status`.
        evaluation: The :class:`Evaluation` of the point that the last epoch ended with, which the
            parameters hold until the next one begins; ``None`` before the first.
        rejected: Whether the last epoch's rows passed at another point than that: a worse one, or
            one whose epoch has not ended.
        evaluations: Epochs done.

    Raises:
        InputError: For other parameters than these, or for parameters below float32.
    """

    def __init__(self, params: Iterable[Any], tol: float = 1e-6, memory: int = 20) -> None:
        self.tol = non_negative("tol", tol)
        self.memory = at_least("memory", memory, 1)
        super().__init__(params, {"lr": 1.0})  # where the line search begins; monitors show it
        tensors = [p for group in self.param_groups for p in group["params"]]
        shapes = [tuple(p.shape) for p in tensors]
        if len(shapes) != 2 or len(shapes[0]) != 2 or shapes[1] != shapes[0][:1]:
            raise InputError(
                "the exact solver trains one linear layer: expected a weight (classes, features) "
                f"and a bias (classes,), got parameters of shapes {shapes}; freeze the others with "
                "requires_grad_(False)"
            )
        self.weight, self.bias = tensors
        if self.weight.dtype.itemsize < 4:
            raise InputError(
                "the exact solver needs parameters of float32 or float64, got "
                f"{str(self.weight.dtype).removeprefix('torch.')}; use Trainer precision 32-true, "
                "bf16-mixed or 64-true"
            )
        self.status = Status.RUNNING
        self.evaluation: Evaluation | None = None
        self.evaluations = 0
        self.rejected = False
        # The best point so far, what is known of it, and the direction that leads on.
        self._point: Tensor | None = None
        self._best: Evaluation | None = None
        self._direction = torch.empty(0)
        self._slope, self._length = 0.0, 1.0
        self._pairs = Pairs(self.memory, torch.finfo(self.weight.dtype).eps)
        self._curvature: Curvature | None = None
        self._work = self._work_at_refresh = 0.0
        self._largest: list[float] = []  # gradient entry, of the accepted points since the refresh
        self._least = [math.inf, math.inf]  # objective and largest gradient entry, of any point
        self._stalled = 0
        self._caution, self._look_again = 0.0, False  # the caution of the curvature in use
        self._resumed = False
        # Σ x² a feature, and the number of rows: of the first epoch.
        self._squares = torch.zeros(self._shape[1], dtype=torch.float64, device=self.weight.device)
        # What the epoch under way sums.
        self._l2, self._batches = 0.0, math.inf
        self._due: type[Curvature] | None = None
        self._due_caution = 0.0
        self._collecting: Curvature | None = None
        self._sums = EpochSums(self._shape, self.weight.device)

    # An epoch --------------------------------------------------------------------------------

    @torch.no_grad()
    def begin_epoch(self, *, l2: float, batches: float) -> None:
        """Move the parameters to the next point, and get ready to sum.

        Args:
            l2: Weight of the penalty.
            batches: Of the coming epoch, over all processes; ``inf`` where that is unknown.
        """
        self._l2, self._batches = l2, batches
        self.rejected = True  # unless it ends, and is accepted
        if self.evaluation is None:
            self._squares.zero_()
        if self._resumed and self.evaluation is None:
            pass  # the first epoch again, where it was
        elif self._point is None:
            # What all classes share changes no prediction, and no direction leads there.
            start = self._present()
            self._move_to(start - start.mean(0) if self.evaluation is None else 0 * start)
        elif self.status is Status.RUNNING:
            self._move_to(self._point + self._length * self._direction)
        else:  # resumed after its end: Lightning loads weights before it widens them to float64
            self._move_to(self._point)
        self._resumed = False
        self._sums = EpochSums(self._shape, self.weight.device)
        self._due = self._choose()
        calmer = self._caution / 3 if self._caution > CAUTION / 30 else 0.0
        self._due_caution = self._caution if self._look_again else calmer
        self._collecting = None

    @torch.no_grad()
    def add(self, x: Tensor, log_probs: Tensor, y: Tensor, class_weight: Tensor | None) -> None:
        """Add a batch at the present parameters.

        Args:
            x: (batch, features) rows as the linear layer saw them.
            log_probs: (batch, classes).
            y: (batch,) labels.
            class_weight: (classes,) or ``None``.
        """
        weights = None if class_weight is None else class_weight[y]
        probs = log_probs.exp()
        if self._due is not None:
            self._collect(x, probs, weights)
        self._sums.add(x, log_probs, probs, y, weights)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """End the epoch: meet the other processes, judge the point, and choose the next one."""
        evaluation = self._sums.evaluation(self._present()[:, :-1], self._l2)
        before = self.evaluation
        if before is not None and evaluation.rows != before.rows:
            raise InputError(
                f"the exact solver expects the same rows every epoch, got {evaluation.rows:.0f} "
                f"after {before.rows:.0f}; let the loader keep its last batch and every row"
            )
        if before is None:
            self._squares = summed(self._squares)
        self.evaluation, self.rejected = evaluation, False
        self.evaluations += 1
        self._work += pass_work(*self._shape, evaluation.rows)
        if self.status is not Status.RUNNING:
            return
        if before is None and not evaluation.objective <= (1 + 1e-6) * math.log(self._shape[0]):
            return  # worse than zero weights: a saturated softmax has no curvature, begin there
        if self._best is not None and not self._accepts(evaluation):
            self._shorten(evaluation)
            self.restore()
            self.rejected = True
            return
        self._accept(evaluation)
        if self._largest[-1] <= self.tol:
            self.status = Status.CONVERGED
        elif self._l2 == 0 and evaluation.separated:
            self.status = Status.SEPARABLE
        elif self._stalled >= STALLED:
            self._give_up()
        else:
            self._aim(evaluation)

    @torch.no_grad()
    def restore(self) -> None:
        """Move the parameters back to the best point, from wherever an epoch evaluates."""
        if self._point is not None:
            self._move_to(self._point)
            self.evaluation = self._best

    def state_dict(self) -> dict[str, Any]:
        """The solver's whole state as plain values: a resumed run goes on where this one stands."""
        kept = {name: getattr(self, f"_{name}") for name in KEPT}
        # Once it has stopped it needs no curvature, which is nearly all of the state.
        curvature = self._curvature if self.status is Status.RUNNING else None
        kept["curvature"] = None if curvature is None else curvature.state()
        kept["pairs"] = self._pairs.state()
        for name, known in {"evaluation": self.evaluation, "best": self._best}.items():
            kept[name] = None if known is None else known._asdict()
        kept["evaluations"], kept["status"] = self.evaluations, self.status.name
        groups = [{**group, "params": [0, 1]} for group in self.param_groups]
        return {"state": kept, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`, for a layer of the same shape."""
        kept = state_dict["state"]
        if "point" not in kept:
            raise InputError(
                "expected a checkpoint of the exact solver, got one of another optimiser; resume "
                "with that optimiser, or start the solver from the weights without ckpt_path"
            )
        kept = move_data_to_device(kept, self.weight.device)
        for name in KEPT:
            setattr(self, f"_{name}", kept[name])
        self._pairs.restore(kept["pairs"])
        state = kept["curvature"]
        self._curvature = None if state is None else restored(state, *self._shape)
        if "best" not in kept:  # of 0.1, which kept two of its values, and the last epoch's others
            ours = {name: kept[name] for name in ("objective", "gradient")}
            kept["best"] = None if kept["point"] is None else {**kept["evaluation"], **ours}
        self.evaluation, self._best = (
            None if values is None else Evaluation(**values)
            for values in (kept["evaluation"], kept["best"])
        )
        self.evaluations, self.status = kept["evaluations"], Status[kept["status"]]
        self._resumed = True

    # The method ------------------------------------------------------------------------------

    def _noise(self) -> float:
        """What rounding may do to the objective: errors of many rows cancel for the most part."""
        assert self._best is not None
        relative = max(torch.finfo(self.weight.dtype).eps / 8, 1e-15)
        return relative * abs(self._best.objective)

    def _rounding(self) -> Tensor:
        """What rounding may do to each entry of the best point's gradient, (features + 1,).

        The rounding of products and parameters moves a logit by some ε Σ_j |w_j x_j|, p by no more,
        and the sum of (p - onehot(y)) x by that and ε times |x|, here the feature's root mean
        square.
        """
        assert self._point is not None
        typical = (self._squares / self._squares[-1]).sqrt()
        logit = (self._point.abs() @ typical).max()
        return ROUNDING * torch.finfo(self.weight.dtype).eps * (1 + logit) * typical

    def _accepts(self, new: Evaluation) -> bool:
        """Armijo's condition; within rounding, the slope decides (Hager & Zhang, 2005, eq. 4.1)."""
        assert self._best is not None
        gained = self._best.objective - new.objective
        if gained >= -ARMIJO * self._length * self._slope:
            return True
        slope = float((new.gradient * self._direction).sum())
        return gained >= -self._noise() and slope <= (2 * ARMIJO - 1) * self._slope

    def _shorten(self, new: Evaluation) -> None:
        """The least point of the parabola through both values and the slope, safeguarded."""
        assert self._best is not None
        assert self._curvature is not None
        hidden = -self._length * self._slope <= HIDDEN * self._noise()
        self._stalled += hidden
        if self._stalled > 2 * STALLED:
            self._give_up()
            return
        excess = new.objective - self._best.objective - self._length * self._slope
        least = -self._slope * self._length**2 / (2 * excess) if math.isfinite(excess) else 0.0
        follows = self._curvature.follows(self._shape[0])
        misled = least < MISLED and self._length == 1 and not hidden
        if misled and self._caution < 1 and follows:
            # Rows that were certain have turned over: they carry curvature after all. Back to the
            # best point, to collect it again as if they were less so.
            self._caution = min(1.0, max(CAUTION, 2 * self._caution))
            self._length, self._look_again = 0.0, True
            return
        self._length = min(max(least, 0.1 * self._length), 0.5 * self._length)
        if self._length < SHORTEST:
            self._begin_anew()

    def _begin_anew(self) -> None:
        """Head on without the pairs; without any, nothing is left to try."""
        if not self._pairs:
            self._give_up()
            return
        self._pairs.clear()
        self._head_for()

    def _give_up(self) -> None:
        """Stop, and say whether rounding explains it."""
        assert self._best is not None
        hidden = bool((self._best.gradient.abs() <= self._rounding()).all())
        self.status = Status.PRECISION if hidden else Status.STALLED

    def _accept(self, new: Evaluation) -> None:
        point = self._present()
        if self._point is not None and self._best is not None:
            self._pairs.add(point - self._point, new.gradient - self._best.gradient)
        self._point, self._best = point, new
        largest = float(new.gradient.abs().max())
        # Against the best so far: within rounding, points may take turns for ever.
        objective, entry = self._least
        if objective - new.objective > self._noise() or largest < 0.9 * entry:
            self._least = [min(objective, new.objective), min(entry, largest)]
            self._stalled = 0
        elif self._length:  # and not the same point, once more for its curvature
            self._stalled += 1
        self._largest.append(largest)

    def _aim(self, evaluation: Evaluation) -> None:
        """Take new curvature into use if there is some, and head on from the best point."""
        if self._due is not None:
            num_classes, width = self._shape
            collected = self._collecting or self._due(  # this process had no rows
                num_classes, width, spread=1.0, rows=1.0, like=self.weight
            )
            self._curvature = collected.finish(evaluation.total_weight, self._l2, summed)
            self._work_at_refresh = self._work
            self._caution, self._look_again = self._due_caution, False
            self._largest = self._largest[-1:]
            # Pairs describe what the old curvature missed; the new one is better without them.
            self._pairs.clear()
        self._head_for()

    def _head_for(self) -> None:
        """L-BFGS's direction around the curvature; the line search begins at its full length."""
        assert self._curvature is not None
        assert self._best is not None
        gradient = self._best.gradient
        direction = self._pairs.direction(gradient, self._curvature.solve)
        slope = float((gradient * direction).sum())
        if slope < 0:
            self._direction, self._slope, self._length = direction, slope, 1.0
        else:  # rounding has the upper hand
            self._begin_anew()

    def _choose(self) -> type[Curvature] | None:
        """The model of the curvature to collect in the coming epoch, if any.

        As whoever rents skis buys them when the rent paid reaches their price: a model is collected
        once the passes have cost about as much as it will. Small problems get the whole Hessian
        every epoch that way, which is Newton's method. All processes choose alike.
        """
        num_classes, width = self._shape
        models = [model for model in LADDER if model.fits(num_classes, width)]
        if self._curvature is None or self.evaluation is None:
            return models[0]
        if self._look_again:
            return type(self._curvature)
        rows = self.evaluation.rows
        a_pass = pass_work(num_classes, width, rows)
        ahead = self._epochs_ahead() * a_pass
        for model in reversed(models):
            price = model.work(num_classes, width, rows)
            rank, present = LADDER.index(model), LADDER.index(type(self._curvature))
            paid = a_pass + self._work - (self._work_at_refresh if rank == present else 0.0)
            # The same model again only where there is no better one to save for.
            again = rank == present and model is models[-1] and model.follows(num_classes)
            if (rank > present or again) and PATIENCE * price <= paid and price < ahead:
                return model
        return None

    def _collect(self, x: Tensor, probs: Tensor, weights: Tensor | None) -> None:
        assert self._due is not None
        if self._collecting is None:
            num_classes, width = self._shape
            known = self._best or self.evaluation
            if known is not None:
                rows, spread = known.rows, known.spread
            else:  # nothing is known yet but the number of batches
                rows = len(x) * min(self._batches, UNKNOWN_BATCHES)
                spread = rows * (1 - 1 / num_classes)
            self._collecting = self._due(num_classes, width, spread=spread, rows=rows, like=x)
        squares = x.square()
        if self.evaluation is None:
            self._squares[:-1] += squares.sum(0)
            self._squares[-1] += len(x)
        moments = self._squares[:-1] / self._squares[-1]
        # Rare features, however small, are as much a part of the Hessian as common ones.
        unusual = squares @ torch.where(moments > 0, 1 / moments, 0.0).to(x.dtype) / x.shape[1]
        probs = (1 - self._due_caution) * probs + self._due_caution / self._shape[0]
        self._collecting.add(x, probs, 0.5 + 0.5 * unusual, weights)

    def _epochs_ahead(self) -> float:
        """How many more it takes at the rate since the last refresh; infinite while unknown."""
        largest = self._largest[-5:]
        if len(largest) < 5 or self.tol == 0 or not largest[-1] < largest[0]:
            return math.inf
        rate = math.log(largest[0] / largest[-1]) / (len(largest) - 1)
        return math.log(largest[-1] / self.tol) / rate

    # Details ---------------------------------------------------------------------------------

    def _present(self) -> Tensor:
        """The parameters as one (classes, features + 1) float64 tensor, the bias last."""
        return torch.cat([self.weight, self.bias[:, None]], 1).double()

    def _move_to(self, point: Tensor) -> None:
        self.weight.copy_(point[:, :-1])
        self.bias.copy_(point[:, -1])

    @property
    def _shape(self) -> tuple[int, int]:
        """(classes, features + 1)."""
        return self.weight.shape[0], self.weight.shape[1] + 1
