"""What all in-memory data modules share: checks, splits and loaders.

A data set is read once, checked once, and served as slices of two tensors: a batch is one indexing
operation, not a list of samples to be collated. They are those of
:mod:`smx_lightning.data.loading`: the same on any number of processes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from lightning.pytorch import LightningDataModule

from smx_lightning.checks import at_least, check_labels
from smx_lightning.data.loading import BatchLoader, Rows, sharing
from smx_lightning.data.split import stratified_split
from smx_lightning.errors import InputError


@dataclass(frozen=True)
class Loaded:
    """What :meth:`InMemoryDataModule.load` returns; a missing split is cut from ``train``."""

    train: Rows
    class_names: tuple[str, ...]
    val: Rows | None = None
    test: Rows | None = None


@dataclass(frozen=True)
class Splits:
    """The checked data in all three splits."""

    train: Rows
    val: Rows
    test: Rows
    class_names: tuple[str, ...]


class InMemoryDataModule(LightningDataModule, ABC):
    """A data set that fits in memory. Subclasses implement :meth:`load`.

    All of them have the same defaults: on the command line a setting of one data module is kept
    where another is named.

    Args:
        batch_size: Rows a batch, over all processes together.
        val_fraction: Share of the training rows to validate on, where no such split is given.
        test_fraction: Share of all rows to test on, where no such split is given.
        seed: Of the splits, which are stratified, and of the order of the training rows.

    Attributes:
        num_features: Entries of one unrolled input.
        num_classes: K.
        class_names: One name a class.
        input_shape: Shape of one input.
        input_range: Smallest and largest entry of the inputs; (0, 255) of bytes.
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
        for name, fraction in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
            if not 0 < fraction < 1:
                raise InputError(f"{name} must lie between 0 and 1, got {fraction}")
        self.batch_size = batch_size
        self.val_fraction = val_fraction
        self.test_fraction = test_fraction
        self.seed = seed

    @abstractmethod
    def load(self) -> Loaded:
        """Read the data set. Called once, when something first needs it."""

    @cached_property
    def splits(self) -> Splits:
        """The checked data with all three splits."""
        given = self.load()
        num_classes = len(given.class_names)
        if num_classes < 2:
            raise InputError(
                f"expected labels of at least 2 classes, got only {given.class_names}; "
                "there is nothing to tell apart"
            )
        for name in ("train", "val", "test"):
            rows = getattr(given, name)
            if rows is not None:
                _check(name, rows, num_classes, given.train.x.shape[1:])
        train, test = self._split_off(given.train, given.test, self.test_fraction, "test")
        train, val = self._split_off(train, given.val, self.val_fraction, "val")
        return Splits(train, val, test, given.class_names)

    def _split_off(
        self, train: Rows, given: Rows | None, fraction: float, name: str
    ) -> tuple[Rows, Rows]:
        if given is not None:
            return train, given
        kept, held_out = stratified_split(train.y, fraction, self.seed)
        if len(held_out) == 0 or len(kept) == 0:
            raise InputError(
                f"expected enough rows to split off a {name} set, got {len(train)} rows for "
                f"{name}_fraction={fraction}; give more rows, a larger fraction, or the split"
            )
        return Rows(*train[kept]), Rows(*train[held_out])

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
        low, high = (float(bound) for bound in x.aminmax())
        return (low, high) if low < high else None

    @property
    def num_features(self) -> int:
        """Entries of one unrolled input."""
        return self.splits.train.x[0].numel()

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
        return self._loader(self.splits.train, shuffle=not overfit)

    def val_dataloader(self) -> BatchLoader:
        """The validation rows in order."""
        return self._loader(self.splits.val)

    def test_dataloader(self) -> BatchLoader:
        """The test rows in order."""
        return self._loader(self.splits.test)

    def predict_dataloader(self) -> BatchLoader:
        """The test rows in order."""
        return self.test_dataloader()

    def _loader(self, rows: Rows, shuffle: bool = False) -> BatchLoader:
        rank, shares = sharing(self.trainer)
        return BatchLoader(
            rows,
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            world_size=shares,
        )


def _check(name: str, rows: Rows, num_classes: int, shape: Sequence[int]) -> None:
    """Every complaint about a split that can be made before training."""
    if len(rows.x) != len(rows.y):
        raise InputError(
            f"expected as many labels as inputs in the {name} rows, got {len(rows.y)} labels for "
            f"{len(rows.x)} inputs"
        )
    if len(rows) == 0:
        raise InputError(f"expected at least one row in the {name} rows, got none")
    if tuple(rows.x.shape[1:]) != tuple(shape):
        raise InputError(
            f"expected {name} inputs of shape {tuple(shape)} like the training inputs, got "
            f"{tuple(rows.x.shape[1:])}"
        )
    if rows.x[0].numel() == 0:
        raise InputError(f"expected at least one feature, got inputs of shape {tuple(shape)}")
    check_labels(rows.y, num_classes, f"{name} rows")
    if rows.x.is_floating_point():
        finite = torch.isfinite(rows.x.flatten(1)).all(1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            raise InputError(
                f"expected finite features, got NaN or infinity in row {row} of the {name} rows "
                f"({int((~finite).sum())} such rows); remove or impute them"
            )
