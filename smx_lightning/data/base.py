"""What all in-memory data modules share: checks, splits and loaders.

A data set is read once, checked once, and served as slices of two tensors: a batch is one indexing
operation, not a list of samples to be collated. They are those of
:mod:`smx_lightning.data.loading`: the same on any number of processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from smx_lightning.data.checks import (
    check_fractions,
    check_inputs,
    check_rows,
    check_scales,
    extremes,
    has_label,
    warn_of_empty_classes,
)
from smx_lightning.data.loading import BatchLoader, Inputs, Rows
from smx_lightning.data.split import stratified_split
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, whole
from smx_lightning.errors.targets import is_soft
from smx_lightning.preprocessing.digits import wide_columns
from smx_lightning.preprocessing.standardization import Preprocessing
from smx_lightning.processes.distributed import sharing


@dataclass(frozen=True)
class Loaded:
    """What :meth:`InMemoryDataModule.load` returns; a missing split is cut from ``train``."""

    train: Rows
    class_names: tuple[str, ...]
    val: Rows | None = None
    test: Rows | None = None


@dataclass(frozen=True)
class Splits:
    """The checked data in all three splits; no row is in ``test`` where test_fraction is 0."""

    train: Rows
    val: Rows
    test: Rows
    class_names: tuple[str, ...]


class InMemoryDataModule(LightningDataModule, ABC):
    """A data set that fits in memory. Subclasses implement :meth:`load`.

    Rows without a label, see :class:`~smx_lightning.data.Rows`, are in no split; prediction answers
    them, too.

    All of them have the same defaults: on the command line a setting of one data module is kept
    where another is named.

    Args:
        batch_size: Rows a batch, over all processes together.
        val_fraction: Share of the training rows to validate on, where no such split is given.
        test_fraction: Share of all rows to test on, where no such split is given; 0 for a final
            fit, which nothing tests.
        seed: Of the splits, which are stratified, and of the order of the training rows.

    Attributes:
        num_features: Entries of one unrolled input.
        num_classes: K.
        class_names: One name a class.
        tested: Whether there are rows to test on.
        input_shape: Shape of one input.
        input_range: Smallest and largest entry of the inputs; (0, 255) of bytes.
        wide_columns: Columns of the training inputs that need float64, see
            :mod:`smx_lightning.preprocessing`; the inputs are float64 where there is any.
        exact: Whether :meth:`load` must keep float64 inputs as they are: a trained model that is
            asked about them needs it.
        classes_known: Whether a trained model says which classes there are: then nothing is to be
            learned of those without a row.
    """

    def __init__(
        self,
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__()
        batch_size = at_least("batch_size", batch_size, 1)
        self.val_fraction, self.test_fraction = check_fractions(val_fraction, test_fraction)
        self.batch_size = batch_size
        self.seed = whole("seed", seed)
        self.exact = self.classes_known = False

    @abstractmethod
    def load(self) -> Loaded:
        """Read the data set. Called once, when something first needs it."""

    def called(self, split: str) -> str:
        """What the inputs of ``train``, ``val`` or ``test`` are called where they come from."""
        return f"the {split} inputs"

    def all_inputs(self) -> Tensor:
        """The inputs of all rows of the data set in their order, (n, …); labels do not matter."""
        given = self.load()
        return torch.cat([rows.x for rows in (given.train, given.val, given.test) if rows])

    @cached_property
    def splits(self) -> Splits:
        """The checked data with all three splits."""
        given = self.load()
        num_classes = len(given.class_names)
        for name in ("train", "val", "test"):
            rows = getattr(given, name)
            if rows is not None:
                shape = given.train.x.shape[1:]
                check_rows(name, rows, num_classes, shape, called=self.called(name))
        val, test = (rows and _labelled(rows) for rows in (given.val, given.test))
        given = Loaded(_labelled(given.train), given.class_names, val, test)
        if num_classes < 2:
            raise InputError(
                f"expected labels of at least 2 classes, got only {given.class_names}; "
                "there is nothing to tell apart"
            )
        check_scales({"train": given.train, "val": given.val, "test": given.test})
        train, test = self._split_off(given.train, given.test, self.test_fraction, "test")
        train, val = self._split_off(train, given.val, self.val_fraction, "val")
        if not self.classes_known:
            warn_of_empty_classes(train, given.class_names)
        return Splits(train, val, test, given.class_names)

    def _split_off(
        self, train: Rows, given: Rows | None, fraction: float, name: str
    ) -> tuple[Rows, Rows]:
        if given is not None:
            return train, given
        if fraction == 0:
            return train, Rows(*train[:0])
        y = train.y.argmax(1) if is_soft(train.y) else train.y
        kept, held_out = stratified_split(y, fraction, self.seed)
        if len(held_out) == 0 or len(kept) == 0:
            raise InputError(
                f"expected enough rows to split off a {name} set, got {len(train)} rows for "
                f"{name}_fraction={fraction}; give more rows, a larger fraction, or the split"
            )
        return Rows(*train[kept]), Rows(*train[held_out])

    @property
    def tested(self) -> bool:
        """Whether there are rows to test on."""
        return len(self.splits.test) > 0

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return tuple(self.splits.train.x.shape[1:])

    @property
    def input_range(self) -> tuple[float, float] | None:
        """Smallest and largest entry of the training inputs, (0, 255) of bytes.

        ``None`` where all entries are the same.
        """
        x = self.splits.train.x
        if x.dtype == torch.uint8:
            return 0.0, 255.0
        low, high = extremes(x)
        return (low, high) if low < high else None

    @cached_property
    def wide_columns(self) -> list[int]:
        """Columns of the training inputs, unrolled, that need float64."""
        return wide_columns(self.splits.train.x.numpy())

    @property
    def num_features(self) -> int:
        """Entries of one unrolled input."""
        return self.splits.train.x[0].numel()

    @property
    def feature_names(self) -> list[str] | None:
        """One name an entry of an input, where the data have such."""
        return None

    @property
    def schema(self) -> dict[str, Any] | None:
        """Which columns of a table the features are, where the data are a table."""
        return None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.splits.class_names)

    @property
    def class_names(self) -> list[str]:
        """One name a class."""
        return list(self.splits.class_names)

    def train_dataloader(self) -> BatchLoader:
        """Shuffled batches of the training rows."""
        overfit = self.trainer is not None and bool(getattr(self.trainer, "overfit_batches", 0))
        return self._loader(self._served().train, shuffle=not overfit)

    def val_dataloader(self) -> BatchLoader:
        """The validation rows in order."""
        return self._loader(self._served().val)

    def test_dataloader(self) -> BatchLoader:
        """The test rows in order.

        Raises:
            InputError: Where there are none, as ``test_fraction`` is 0.
        """
        rows = self._served().test
        if len(rows) == 0:
            raise InputError(
                "expected rows to test on, got test_fraction=0 and data without such a split; "
                "choose a fraction between 0 and 1, or give the split"
            )
        return self._loader(rows)

    def predict_dataloader(self) -> BatchLoader:
        """The inputs alone, of all rows of the data set in their order; none need be labelled."""
        self._heed_model()
        x = self.all_inputs()
        check_inputs("given", x, x.shape[1:])
        return self._loader(Inputs(x))

    def _served(self) -> Splits:
        self._heed_model()
        return self.splits

    def _heed_model(self) -> None:
        """Read the data set again where the trained model that it is for needs float64."""
        if not self.exact and is_wide(self.trainer):
            self.exact = True
            for known in ("splits", "wide_columns"):
                self.__dict__.pop(known, None)

    def _loader(self, rows: Rows | Inputs, shuffle: bool = False) -> BatchLoader:
        rank, shares = sharing(self.trainer)
        return BatchLoader(
            rows,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            world_size=shares,
        )


def _labelled(rows: Rows) -> Rows:
    """Without the rows that have no label; themselves where all have one."""
    known = has_label(rows.y)
    return rows if known.all() else Rows(*rows[known.nonzero()[:, 0]])


def is_wide(trainer: Trainer | None) -> bool:
    """Whether the trainer asks a trained model that needs float64 inputs."""
    if trainer is None or trainer.state.fn == TrainerFn.FITTING:
        return False
    modules = () if trainer.lightning_module is None else trainer.lightning_module.modules()
    return any(step.wide_features for step in modules if isinstance(step, Preprocessing))
