"""What a model keeps of its arguments: plain hyper-parameters, and callables that may be pickled.

Lightning keeps every argument as it is, modules included, and finds out later what cannot be
written, shown, copied or sent to another process. Here only plain values are kept from the start.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from lightning.fabric.utilities.data import AttributeDict
from lightning.pytorch import LightningModule
from torch import Tensor
from torchmetrics import Metric

from smx_lightning.checkpoint.describing import DATA, LIVE, RUN, listed, note
from smx_lightning.checkpoint.injected import CALLABLES, Kept
from smx_lightning.checkpoint.plain import plain_ones, shown
from smx_lightning.data.described import identified, name_of
from smx_lightning.processes import spawned

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

spawned.extend_launcher()


class PlainHyperParameters(LightningModule):
    """Of ``save_hyperparameters``, a subclass's own too, what is plain; and what can be pickled.

    Optimiser and schedule are left to :func:`smx_lightning.checkpoint.describing.describe`.

    Attributes:
        brought_back: What a training in other processes finds, see
            :mod:`smx_lightning.processes.spawned`.
    """

    brought_back: ClassVar[tuple[str, ...]] = (
        *("solver", "automatic_optimization", "confusion_matrix", "lr", "input_range", *LIVE),
        *("_smx_record", "_smx_statistics", "_smx_noted"),
    )

    def _set_hparams(self, hp: Any) -> None:
        """As Lightning's, which ``save_hyperparameters`` calls, of plain values alone.

        Of the others the model's record keeps by what one is told from another.
        """
        model = cast("SoftmaxRegression", self)
        given = listed(model, dict(self._to_hparams_dict(hp)))
        kept, others = plain_ones({n: v for n, v in given.items() if n not in RUN})
        for name in others:
            self.hparams.pop(name, None)  # of a parent that has saved another value
        identities = {name: _identity(given[name]) for name in others}
        told = {n: v for n, v in model._smx_record.identities.items() if n not in kept}
        model._smx_record.identities = {**told, **identities}
        super()._set_hparams(kept)

    def remove_ignored_hparams(self, ignore_list: list[str]) -> None:
        """As Lightning's, which ``save_hyperparameters(ignore=…)`` calls."""
        ignored = [name for name in ignore_list if name not in RUN]  # which are described
        super().remove_ignored_hparams(ignored)
        for name in ignored:
            cast("SoftmaxRegression", self)._smx_record.identities.pop(name, None)

    @property
    def hparams_initial(self) -> AttributeDict:
        """As Lightning's, in the form in which loggers can write them: without tuples."""
        return AttributeDict(shown(dict(super().hparams_initial)))

    @property
    def _smx_noted(self) -> dict[str, Any]:
        """Those hyper-parameters that a training adds."""
        return {name: self.hparams[name] for name in (*RUN, DATA) if name in self.hparams}

    @_smx_noted.setter
    def _smx_noted(self, values: dict[str, Any]) -> None:
        note(cast("SoftmaxRegression", self), values)

    def __getstate__(self) -> dict[str, Any]:
        """For copies, and for pickles, which hold callables by name only."""
        state: dict[str, Any] = super().__getstate__()
        told = state.get("_hparams", {})
        for attribute, argument in CALLABLES.items():
            if state.get(attribute) is not None:
                state[attribute] = Kept(argument, state[attribute], told.get(argument))
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`__getstate__`."""
        made = {n: v.make if isinstance(v, Kept) else v for n, v in state.items()}
        super().__setstate__(made)  # type: ignore[no-untyped-call]
        _separate_counts(self)


def _separate_counts(model: LightningModule) -> None:
    """Give metrics memory of their own: started processes share that of tensors they were sent.

    Lightning separates parameters and buffers; what metrics count they add to in place.
    """
    for metric in model.modules():
        for name in metric._defaults if isinstance(metric, Metric) else ():
            count = getattr(metric, name)
            if isinstance(count, Tensor) and count.untyped_storage().is_shared():
                setattr(metric, name, count.clone())


def _identity(value: Any) -> Any:
    """What one value is told from another by, where no plain one stands for it."""
    try:
        return identified(value)
    except RecursionError:  # a list within itself
        return name_of(type(value))
