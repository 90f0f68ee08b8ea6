"""The method: one pass over the rows, one evaluation of the full objective, one step.

Minimises

    f(W, b) = Σ c · (Ω*(z) - ⟨z, q⟩) / Σ c + ½ · l2 · ‖W‖²,    z = W x + b

over all rows of a pass, whatever the batches: Σ c · Σ_k -q_k log p_k / Σ c and the penalty where
the scores end in softmax; in general see :mod:`smx_lightning.activations.family`. While it passes,
loss, gradient and curvature are summed; at its end the sums of all processes meet, and L-BFGS
(Nocedal & Wright, "Numerical Optimization", 2006, alg. 7.4), preconditioned with one of
:mod:`.models`, says where the next pass evaluates. The line search costs passes too: a step that
raised the objective is shortened, and the next pass tries again. Nothing is learned from a point
that was worse but how far to go towards it.
Why this converges is in docs/solver.md.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from smx_lightning.activations.family import SOFTMAX, Activation
from smx_lightning.errors import InputError
from smx_lightning.optim.coordinates.frame import Frame
from smx_lightning.optim.coordinates.span import Gathered, Span
from smx_lightning.optim.evaluation import EpochSums, Evaluation
from smx_lightning.optim.loop import OVERHEAD, one_pass
from smx_lightning.optim.members import member
from smx_lightning.optim.models.ladder import Ladder
from smx_lightning.optim.products import scores_of
from smx_lightning.optim.status import Rounding, Status, relative_gap, verdict, without_rows
from smx_lightning.optim.steps.lbfgs import Pairs
from smx_lightning.optim.steps.pilot import Pilot
from smx_lightning.optim.steps.progress import Progress
from smx_lightning.optim.steps.search import Step, first

SHORTEST = 1e-9  # of a step: after so many cuts the direction is at fault
MOST_IN_SPAN = 1000  # passes over gathered rows
UNCERTAIN = 3  # passes at the start that ask for shorter lengths too
KEPT = ("begun", "fits", "repeating", "l2", "uncertain")


class Descent:
    """Says where each pass is to evaluate, and judges what it found.

    Args:
        start: (classes, features + 1) float64, the bias last.
        dtype: Of the parameters: points are rounded to it.
        tol: Stop when the largest absolute entry of the gradient is at most this.
        memory: Curvature pairs that L-BFGS remembers.
        overhead: What a pass costs besides its products, in multiplications and additions.
        at_once: Whether the first pass may collect the features' spectrum: worth its price unless
            the features are uncorrelated, or the start is near the optimum.
        activation: What the scores end in.
        intercept: Whether the bias moves; else it stays at 0, where ``start`` has it.

    Attributes:
        status: A :class:`Status`.
        frame: From where rows are seen: of all points and evaluations here, too.
        point: The best point so far.
        best: Its :class:`Evaluation`; ``None`` before the first pass, and where that was worse than
            zero weights.
        trial: Where the pass under way evaluates.
        evaluations: Passes done.
    """

    def __init__(
        self,
        start: Tensor,
        *,
        dtype: torch.dtype,
        tol: float,
        memory: int,
        overhead: float,
        at_once: bool = True,
        activation: Activation = SOFTMAX,
        intercept: bool = True,
    ) -> None:
        self.dtype, self._tol, self._intercept = dtype, tol, intercept
        self._member = member(activation)
        self.status, self.evaluations = Status.RUNNING, 0
        self.frame = Frame()
        # What all classes share changes no prediction, and no direction leads there.
        self.point = self.trial = self._rounded(start - start.mean(0))
        self.best: Evaluation | None = None
        self.step: Step | None = None
        self.pairs = Pairs(memory, torch.finfo(dtype).eps)
        self.ladder = Ladder(
            (start.shape[0], start.shape[1]),
            like=start.new_empty((), dtype=dtype),
            tol=tol,
            overhead=overhead,
            at_once=at_once,
            scale=self._member.scale_at_zero(start.shape[0]),
            intercept=intercept,
        )
        self._begun = False  # whether a pass has ended
        self._known = math.inf  # the objective where the second pass begins
        self._progress = Progress(self._member.patience)
        self._fits = False  # whether the last step's model fitted
        self._uncertain = UNCERTAIN
        self._repeating = False  # whether the pass under way evaluates the best point again
        self._l2 = 0.0
        self._pilot: Pilot | None = None  # rows of the pass at zero weights
        self._noise = 0.0  # what rounding does to the objective at the best point
        self._shape = (start.shape[0], start.shape[1])
        self._gathered: Gathered | None = None  # rows of the first passes, if they are few
        self._sums = EpochSums(self._shape, start.device, self._member, intercept=intercept)

    # A pass ----------------------------------------------------------------------------------

    def begin(self, *, l2: float, batches: float) -> Tensor:
        """Get ready to sum; the point to evaluate at, (classes, features + 1) float64.

        Args:
            l2: Weight of the penalty.
            batches: Of the coming pass, over all processes; ``inf`` where that is unknown.
        """
        self._l2 = l2
        self._gathered = Gathered(self._shape) if self.best is None and l2 > 0 else None
        running = self.status is Status.RUNNING and not self._repeating
        self.trial, line = self.point, None
        if self.step is not None and running:
            self.trial = self._rounded(self.point + self.step.length * self.step.direction)
            line = self.step.line()
        rounded = self.trial.to(self.dtype)
        self._weight, self._bias = rounded[:, :-1], rounded[:, -1:]
        # Where most begin, and half of the first pass: the scores are the bias, whatever the rows.
        self._flat = self.best is None and not self._weight.any()
        self._pilot = Pilot(rounded[:, :-1]) if self._flat else None
        self._sums = EpochSums(
            self._shape, self.point.device, self._member, line, intercept=self._intercept
        )
        self.ladder.begin(self.best, batches)
        return self.frame.outside(self.trial)

    def gather(self, x: Tensor, y: Tensor, weights: Tensor | None, *, held: bool) -> None:
        """Keep a batch, which :meth:`add` is given as it is or in parts, while rows are few."""
        if self._gathered is not None:
            x = self.frame.rows(x)
            weights = None if weights is None else weights.to(x.dtype)
            self._gathered.add(x, y, weights, held=held)

    def add(self, x: Tensor, y: Tensor, weights: Tensor | None, *, parts: int = 1) -> Tensor:
        """Add a batch at the present point; its scores there (batch, classes), log p of softmax.

        Those are rows last in memory, as all that has a row for each class: a softmax over few
        classes is ten times faster that way. They are shifted by a number a row.

        Args:
            x: (batch, features) of the parameters' dtype.
            y: (batch,) labels or (batch, classes) distributions.
            weights: (batch,) or ``None``.
            parts: Of which this is one, together one of the batches that :meth:`begin` counts.
        """
        x = self.frame.rows(x)
        if weights is not None:  # wider ones would widen all that they multiply
            weights = weights.to(x.dtype)
        if self._flat:
            scores = self._bias.expand(-1, len(x))
        else:
            scores = scores_of(x, self._weight, self._bias)
        if self._pilot is not None:
            self._pilot.add(x, y, weights)
        at = self._member.at(scores)
        self.ladder.add(x, at.weights, weights, at.scale, parts=parts)
        self._sums.add(x, at, y, weights)
        return at.scores.T

    def end(self) -> Evaluation:
        """Meet the other processes, judge the point, and choose the next one; what was found."""
        new = self._sums.evaluation(self.trial[:, :-1], self._l2)
        if self.best is not None and new.rows != self.best.rows:
            raise InputError(
                f"the exact solver expects the same rows every epoch, got {new.rows:.0f} after "
                f"{self.best.rows:.0f}; let the loader keep its last batch and every row"
            )
        self.evaluations += 1
        self.ladder.end(new.rows)
        if self.best is None:
            self.ladder.moments.check(self.dtype)
        if self.status is not Status.RUNNING:
            return new
        if not self._begun:
            self._begun = True
            if self._begins_elsewhere(new):
                return new
        if self._repeating:
            assert self.best is not None
            self._repeating = False
            unseen = self._unseen(self.best)
            self.status = verdict(self.best, new, self._rounding(), unseen=unseen)
        elif self.best is not None and not self._accepted(new):
            self._shorten(new)
        else:
            self._accept(new)
        return new

    @property
    def gathers(self) -> bool:
        """Whether batches are kept in this pass: while they may be fewer than features."""
        return self._gathered is not None and self._gathered.few

    @property
    def activation(self) -> Activation:
        """What the scores end in."""
        return self._member.activation

    @property
    def objective(self) -> float:
        """At the best point; infinite before the first pass. Of zero weights it needs no pass."""
        return self._known if self.best is None else self.best.objective

    @property
    def gap(self) -> float:
        """See :func:`relative_gap`; of the best point."""
        if self.best is None:
            return 1.0
        decrement = 0.0 if self.step is None else -self.step.slope / 2
        return relative_gap(self.best, self._l2, decrement)

    @property
    def rounding(self) -> float:
        """Up to how much of the gradient's largest entry rounding explains at the best point."""
        if self.best is None:
            return 0.0
        return float(self.frame.bound(self._rounding().gradient()).max())

    @property
    def parameters(self) -> Tensor:
        """Weight and bias at the best point, (classes, features + 1) float64."""
        return self.frame.outside(self.point)

    # The method ------------------------------------------------------------------------------

    def _begins_elsewhere(self, new: Evaluation) -> bool:
        """Whether the first pass only told where to begin, and from where to see the rows."""
        at_zero = self._member.at_zero(self._shape[0])
        worse = not new.objective <= (1 + 1e-6) * at_zero
        self._known = at_zero if worse else new.objective
        if worse:  # than zero weights: saturated probabilities have no curvature
            self.point = torch.zeros_like(self.point)  # also where it is not finite
        self.frame = Frame.of(self.ladder.moments, self.dtype)
        if self.frame.origin is not None:
            self.point = self._rounded(self.frame.inside(self.point))
        return worse or self.frame.origin is not None

    def _rounding(self) -> Rounding:
        shifted = self.frame.shifted(self.point)
        typical, own = self.ladder.moments.typical, self._member.rounding
        return Rounding(self.point, typical, self.dtype, shifted, own)

    def _accepted(self, new: Evaluation) -> bool:
        assert self.best is not None
        assert self.step is not None
        return self.step.accepts(self.best, new, self._noise) and not self.step.overshot(
            self.best, new
        )

    def _shorten(self, new: Evaluation) -> None:
        assert self.best is not None
        assert self.step is not None
        self._progress.failed(-self.step.length * self.step.slope, self._noise)
        self._fits = False
        self.step = self.step.shorter(self.best, new)
        if self._progress.failures_say_so:
            self._give_up()
        elif self.step.length < SHORTEST:
            self._begin_anew()

    def _accept(self, new: Evaluation) -> None:
        before, from_there = self.best, self.point
        gathered, self._gathered = self._gathered, None
        if self.step is not None:
            self._fits = self.step.fits(new)
        self.point, self.best = self.trial, new
        self._noise = self._rounding().objective(new)
        self._progress.made(new.objective, new.largest, self._noise)
        if self.ladder.accept(new, self._l2, fits=self._fits, noise=self._noise):
            # Pairs describe what the old curvature missed; the new one is better without them.
            self.pairs.clear()
        elif before is not None:
            self.pairs.add(self.point - from_there, new.gradient - before.gradient)
        if self.frame.gradient(new).largest <= self._tol:
            self.status = Status.UNSEEN_CLASS if self._unseen(new) else Status.CONVERGED
        elif self._l2 == 0 and new.separated and not self._member.attains:
            self.status = Status.SEPARABLE
        elif self._progress.none:
            self._give_up()
        else:
            # Only here: of a start that is worse than zero, or good enough, no span is needed.
            moments = self.ladder.moments
            span = None if gathered is None else gathered.spanned(new.rows, moments)
            self._aim() if span is None else self._aim_in(span)

    def _unseen(self, evaluation: Evaluation) -> bool:
        """Whether classes without rows leave no minimum: their biases fall for ever."""
        falls = self._intercept and not self._member.attains
        return falls and bool(without_rows(evaluation))

    def _aim(self) -> None:
        """L-BFGS's direction around the model; the line search begins at its full length."""
        assert self.best is not None
        direction = self.pairs.direction(
            self.best.gradient, self.ladder.solve, rescale=self.ladder.quasi_newton
        )
        cut = self.step is not None and self.step.length < 1
        # Of a curvature that jumps the model of a short step says little of a whole one.
        jumps = cut and self._member.attains
        asks = not self._fits or jumps or self.evaluations < self._uncertain
        self.step = self._piloted(first(direction, self.best.gradient, asks=asks))
        if not self.step.slope < 0:  # rounding has the upper hand
            self._begin_anew()

    def _piloted(self, step: Step) -> Step:
        """The first step from zero weights as long as some rows advise; any other as it is."""
        assert self.best is not None
        pilot, self._pilot = self._pilot, None
        if pilot is None:
            return step
        rows, member = self.best.rows, self._member
        forecast = pilot.forecast(step, rows, member, bias=self._bias, l2=self._l2)
        if forecast is None:
            return step
        self.ladder.expect(forecast.masses)
        self._uncertain = 0
        return step._replace(length=forecast.length, asks=False)

    def _aim_in(self, span: Span) -> None:
        """At the optimum of the rows in their span, the same but for rounding."""
        assert self.best is not None
        inner = Descent(
            span.narrow(self.point),
            dtype=self.dtype,
            tol=self._tol / 2,
            memory=self.pairs.memory,
            overhead=OVERHEAD,
            at_once=False,
            activation=self.activation,
            intercept=self._intercept,
        )
        while inner.status is Status.RUNNING and inner.evaluations < MOST_IN_SPAN:
            one_pass(inner, [span.batch], l2=self._l2, count=1, held=True)
        direction = span.widen(inner.point) - self.point
        self.step = first(direction - direction.mean(0), self.best.gradient, asks=False)
        if not self.step.slope < 0:
            self._aim()

    def _begin_anew(self) -> None:
        """Head on without the pairs, then along the safest model; after that, give up."""
        assert self.best is not None
        if self.pairs or self.ladder.fall_back(self._l2):
            self.pairs.clear()
            self._aim()
        else:
            self._give_up()

    def _give_up(self) -> None:
        """Evaluate the best point once more: are the data the same?"""
        self._repeating = True

    def _rounded(self, point: Tensor) -> Tensor:
        return self.frame.rounded(point, self.dtype)

    # Checkpoints -----------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """The whole state between two passes as plain values."""
        kept = {name: getattr(self, f"_{name}") for name in KEPT} | self.ladder.state()
        kept |= {"point": self.point, "evaluations": self.evaluations, "status": self.status.name}
        kept["best"] = None if self.best is None else self.best._asdict()
        kept["origin"], kept["activation"] = self.frame.origin, self.activation.spec
        kept["step"] = None if self.step is None else self.step._asdict()
        kept["pairs"], kept["progress"] = self.pairs.state(), self._progress.state()
        # Once it has stopped it needs no curvature, which is nearly all of the state.
        model = self.ladder.model if self.status is Status.RUNNING else None
        kept["curvature"] = None if model is None else model.state()
        return kept

    def restore(self, kept: dict[str, Any]) -> None:
        """Inverse of :meth:`state`; of 0.1's checkpoints only the point and the status."""
        self.point = self.trial = kept["point"]
        self.evaluations, self.status = kept["evaluations"], Status[kept["status"]]
        if "begun" not in kept:
            return
        for name in kept.keys() & set(KEPT):
            setattr(self, f"_{name}", kept[name])
        self.frame = Frame(kept.get("origin"))
        self.best = None if kept["best"] is None else Evaluation(**kept["best"])
        self.step = None if kept["step"] is None else Step(**kept["step"])
        self.pairs.restore(kept["pairs"])
        self._progress.restore(kept["progress"])
        self.ladder.restore(kept, kept["curvature"])
        if self.best is not None:
            self._noise = self._rounding().objective(self.best)
