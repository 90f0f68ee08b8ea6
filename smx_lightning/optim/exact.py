"""The exact solver as an optimizer: an epoch of a Trainer is one pass of :mod:`.descent`.

The parameters are the best point so far at every moment, and an epoch evaluates elsewhere:
validation, checkpoints and whatever stops the training, an exception too, see the point whose
objective was logged.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from torch import Tensor

from smx_lightning.activations.family import SOFTMAX, Activation, activation_of
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, class_indices, non_negative
from smx_lightning.optim.descent import Descent
from smx_lightning.optim.evaluation import Evaluation, weighted
from smx_lightning.optim.loop import slices
from smx_lightning.optim.models.dense import joined
from smx_lightning.optim.status import Status, message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FOUND = ("evaluation", "trial", "rejected", "metrics", "_descent", "_loaded")
EPOCH_WORK = 1e8  # an epoch of the Trainer takes some 5 ms besides its products


class ExactSolver(torch.optim.Optimizer):
    """Minimises the regression's objective to its optimum, one epoch a step.

    Inject it like any other optimiser: ``SoftmaxRegression(..., optimizer=ExactSolver)``, or
    ``--model.optimizer smx_lightning.optim.ExactSolver``. The Trainer then stops by itself, before
    ``max_epochs``, and says why. It starts from the present weights, or from zero where those are
    worse, as random ones are. Batches may be of any size, also uneven; large ones are faster.
    Memory is one batch, 2 · ``memory`` copies of the parameters, and the chosen rows' curvature: up
    to 256 MB in float32, as much again while it is factored.

    Args:
        params: Weight (classes, features) and bias (classes,) of the linear layer, in this order.
        tol: Stop when the largest absolute entry of the gradient is at most this, as
            scikit-learn's ``tol``.
        memory: Curvature pairs that L-BFGS remembers, at least 1.

    Attributes:
        evaluation: The :class:`Evaluation` of the parameters; ``None`` until an epoch has ended.
        trial: Where the epoch under way evaluates, (classes, features + 1) float64, the bias last;
            ``None`` before the first.
        rejected: Whether the last epoch's rows passed at another point than that: a worse one, or
            one whose epoch has not ended.
        metrics: What the Trainer has logged of that point's rows: it stands for an epoch that was
            rejected, also in a run that resumes there.

    Raises:
        InputError: For other parameters than these, or for parameters below float32.
    """

    any_order = True  # of the rows: a loader need not shuffle them

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
        self.evaluation: Evaluation | None = None
        self.trial: Tensor | None = None
        self.rejected = False
        self.metrics: dict[str, Tensor] = {}
        self._descent: Descent | None = None  # from the first epoch on: the weights may change
        self._loaded: dict[str, Any] | None = None  # a checkpoint's state, until the next epoch

    @property
    def status(self) -> Status:
        """Whether it still runs, and why not."""
        return Status.RUNNING if self._descent is None else self._descent.status

    @property
    def message(self) -> str:
        """The status in a sentence, with the classes that it is about."""
        return message(self.status, self.evaluation)

    @property
    def evaluations(self) -> int:
        """Epochs done."""
        return 0 if self._descent is None else self._descent.evaluations

    @property
    def gathers(self) -> bool:
        """Whether the rows of this epoch are kept, because they seem to be few."""
        return self._descent is not None and self._descent.gathers

    @property
    def gap(self) -> float:
        """How much of the objective more epochs could take off at most, about; 1 before the first.

        See :func:`smx_lightning.optim.status.relative_gap`.
        """
        return 1.0 if self._descent is None else self._descent.gap

    @property
    def rounding(self) -> float:
        """Up to how large an entry of the gradient rounding explains; 0 before the first epoch."""
        return 0.0 if self._descent is None else self._descent.rounding

    # An epoch --------------------------------------------------------------------------------

    @torch.no_grad()
    def begin_epoch(self, *, l2: float, batches: float, activation: Activation = SOFTMAX) -> None:
        """Choose the next point to evaluate at, :attr:`trial`, and get ready to sum.

        Args:
            l2: Weight of the penalty.
            batches: Of the coming epoch, over all processes; ``inf`` where that is unknown.
            activation: What the scores end in, of every epoch the same.

        Raises:
            InputError: For another activation than before, and for one whose curvature is none
                that the solver knows.
        """
        self.rejected = True  # unless it ends, and is accepted
        if self._loaded is not None:  # once more: Lightning loads weights before it widens them
            self._descent = self._restored(self._loaded)
        elif self._descent is None:
            start = torch.cat([self.weight, self.bias[:, None]], 1).double()
            self._descent = self._new(start, activation)
        _check_same(activation, self._descent.activation)
        self._loaded = None
        if self._descent.best is not None:  # wherever somebody has moved them in the meantime
            self._move_to(self._descent.parameters)
        self.trial = self._descent.begin(l2=l2, batches=batches)

    @torch.no_grad()
    def add(
        self,
        x: Tensor,
        y: Tensor,
        class_weight: Tensor | None = None,
        row_weight: Tensor | None = None,
        *,
        last: bool = False,
        parts: int = 1,
    ) -> Tensor:
        """Add a batch, evaluated at :attr:`trial`; its scores there (batch, classes).

        They are shifted by a number a row: of softmax they are log-probabilities.

        Args:
            x: (batch, features) rows as the linear layer saw them.
            y: (batch,) labels or (batch, classes) distributions.
            class_weight: (classes,) or ``None``.
            row_weight: (batch,) or ``None``.
            last: Whether :meth:`step` follows before anybody writes over these rows.
            parts: Of which these rows are one, together one of the epoch's batches.
        """
        assert self._descent is not None
        y, weights = weighted(class_indices(y), row_weight, class_weight, self.weight.dtype)
        self._descent.gather(x, y, weights, held=last)
        shares = slices(x)
        parts *= len(shares)
        scores = [
            self._descent.add(
                x[part], y[part], None if weights is None else weights[part], parts=parts
            )
            for part in shares
        ]
        return joined(scores)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """End the epoch: meet the other processes, judge the point, and choose the next one."""
        assert self._descent is not None
        assert self.trial is not None
        new, best = self._descent.end(), self._descent.best
        accepted = best is None or best is new  # a start that is worse than zero is the best seen
        if accepted:
            self._move_to(self.trial)
        self.evaluation = new if best is None else self._descent.frame.gradient(best)
        self.rejected = not accepted and self._descent.status is Status.RUNNING

    def state_dict(self) -> dict[str, Any]:
        """The solver's whole state as plain values: a resumed run goes on where this one stands."""
        kept: dict[str, Any] = {"point": None, "evaluation": None, "metrics": self.metrics}
        if self._descent is not None:
            kept |= self._descent.state()
        if self.evaluation is not None:
            kept["evaluation"] = self.evaluation._asdict()
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
        self.metrics = kept.get("metrics", {})
        self._descent, self._loaded, self.evaluation = None, None, None
        if kept["point"] is None:
            return
        self._descent, self._loaded = self._restored(kept), kept
        if kept["evaluation"] is not None and "masses" in kept["evaluation"]:
            self.evaluation = Evaluation(**kept["evaluation"])

    def __getstate__(self) -> dict[str, Any]:
        """For copies and pickles: torch's optimisers keep no attributes of their own in these.

        What was found so far is one piece: a process that is started shares no memory with it.
        """
        known = {name: vars(self)[name] for name in ("tol", "memory", "weight", "bias")}
        torch.save({name: vars(self)[name] for name in FOUND}, found := io.BytesIO())
        return {**super().__getstate__(), **known, "found": found.getvalue()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`__getstate__`."""
        super().__setstate__({name: value for name, value in state.items() if name != "found"})
        found = io.BytesIO(state["found"])  # as trustworthy as the pickle that it is a part of
        vars(self).update(torch.load(found, self.weight.device, weights_only=False))

    # Details ---------------------------------------------------------------------------------

    def _new(self, start: Tensor, activation: Activation) -> Descent:
        return Descent(
            start,
            dtype=self.weight.dtype,
            tol=self.tol,
            memory=self.memory,
            overhead=EPOCH_WORK,
            activation=activation,
        )

    def _restored(self, kept: dict[str, Any]) -> Descent:
        descent = self._new(kept["point"], activation_of(kept.get("activation", SOFTMAX)))
        descent.restore(kept)
        return descent

    def _move_to(self, point: Tensor) -> None:
        self.weight.copy_(point[:, :-1])
        self.bias.copy_(point[:, -1])


def _check_same(activation: Activation, before: Activation) -> None:
    if activation != before:
        raise InputError(
            f"the exact solver expects to go on with the activation it began with, "
            f"{before.spec!r}, got {activation.spec!r}; resume with that activation, or start the "
            "solver from the weights without ckpt_path"
        )
