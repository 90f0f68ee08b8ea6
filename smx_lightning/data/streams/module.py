"""A data module of Parquet files that are larger than memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from smx_lightning.data.base import is_wide
from smx_lightning.data.checks import check_fractions
from smx_lightning.data.streams.files import ParquetFiles, Source, parquet_files
from smx_lightning.data.streams.fitting import Known, known
from smx_lightning.data.streams.loader import StreamLoader
from smx_lightning.data.streams.memory import bytes_of, whole_batches, window_of
from smx_lightning.data.streams.parts import Name, Part
from smx_lightning.data.streams.rows import StreamedRows
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least, whole
from smx_lightning.processes.distributed import sharing
from smx_lightning.tables.fitting import Missing, SchemaFit
from smx_lightning.tables.schema import Kind, Schema

IN_ORDER = 2**14  # rows of a window that is not shuffled: nothing is gained by larger ones


class StreamedTableDataModule(LightningDataModule):
    """Parquet files, local or distant, whose rows are never all in memory.

    The row groups are read in an order of the epoch, and their rows shuffled within a window; both
    are a pure function of (seed, epoch), so that every number of processes sees the same batches.
    Each process reads all row groups and keeps its own rows. An optimiser that does not mind the
    order, the exact solver, gets the rows as they stand in the files.

    Whether a row is held out is a pure function of (seed, its number in the files). A row without a
    label stays in its batch, as −1: so batches are as large on every process.

    Args:
        source: A Parquet file, a folder whose ``*.parquet`` are read at any depth, or a list of
            these; paths, or URIs such as ``s3://bucket/folder``.
        target: The column of the labels, or the columns of a distribution over the classes.
        features: The columns that become features; by default all but ``target`` and ``weight``.
        weight: The column of the rows' weights.
        val: Rows to validate on, as ``source``.
        test: Rows to test on, likewise.
        filesystem: Of pyarrow or fsspec, in which the paths lie.
        window: Rows that are shuffled among one another, in whole batches; by default as many as
            ``memory`` has room for, at most 262144.
        memory: What the stream may hold, in bytes or as ``512 MB``: two windows, a page of every
            column, and some slices of a few MB.
        batch_size: Rows a batch, over all processes together.
        val_fraction: Share of the rows to validate on, where ``val`` is not given.
        test_fraction: Share of all rows to test on, where ``test`` is not given; 0 for a final fit,
            which nothing tests.
        seed: Of the split, and of the order of the training rows.
        drop: Columns that are left out.
        kinds: Of columns by name, where their type does not say it.
        min_count: Categories of fewer rows share one feature.
        missing: What becomes of missing values: ``indicator`` or ``refuse``.

    Attributes:
        num_features, num_classes, class_names, feature_names, schema: As the training rows say.
        input_shape: ``(num_features,)``.
        input_range: ``None``: nobody has looked at all entries.
        wide_columns: Features that need float64; the inputs are float64 where there is any.
        tested: Whether there are rows to test on.
    """

    input_range = None

    def __init__(
        self,
        source: Source,
        target: str | list[str],
        features: list[str] | None = None,
        weight: str | None = None,
        val: Source | None = None,
        test: Source | None = None,
        filesystem: Any = None,
        window: int | None = None,
        memory: int | str = "1 GB",
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 0,
        drop: Sequence[str] = (),
        kinds: Mapping[str, Kind] | None = None,
        min_count: float = 1,
        missing: Missing = "indicator",
    ) -> None:
        super().__init__()
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.val_fraction, self.test_fraction = check_fractions(val_fraction, test_fraction)
        self.seed = at_least("seed", seed, 0)
        self.window = None if window is None else at_least("window", window, 1)
        self.memory = bytes_of(memory)
        self.filesystem = filesystem
        self.sources: dict[str, Source | None] = {"train": source, "val": val, "test": test}
        self.target, self.weight = target, weight
        self.features = None if features is None else [*features]
        self.options: dict[str, Any] = {
            "drop": tuple(drop), "kinds": kinds, "min_count": min_count, "missing": missing
        }  # fmt: skip
        self._fit()  # complains of arguments that contradict each other

    # What the rows are -----------------------------------------------------------------------

    @cached_property
    def known(self) -> Known:
        """What the rows are, by one pass over them."""
        found = known(self._files("train"), self._part("train"), self._fit())
        for note in found.notes:
            rank_zero_warn(note)
        if len(found.class_names) < 2:
            raise InputError(
                f"expected labels of at least 2 classes, got only {found.class_names}; there is "
                "nothing to tell apart"
            )
        return found

    def _fit(self) -> SchemaFit:
        return SchemaFit(self.target, self.features, self.weight, **self.options)

    @property
    def num_features(self) -> int:
        """Number of features."""
        return len(self.known.schema.feature_names)

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.known.class_names)

    @property
    def class_names(self) -> list[str]:
        """One name a class."""
        return [*self.known.class_names]

    @property
    def feature_names(self) -> list[str]:
        """One name a feature."""
        return [*self.known.schema.feature_names]

    @property
    def schema(self) -> dict[str, Any]:
        """Which columns the features are, as plain values."""
        return self.known.schema.to_dict()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one input."""
        return (self.num_features,)

    @property
    def wide_columns(self) -> list[int]:
        """Features of the training rows that need float64."""
        return [*self.known.wide]

    @property
    def tested(self) -> bool:
        """Whether there are rows to test on."""
        return self.sources["test"] is not None or self.test_fraction > 0

    # Where they are --------------------------------------------------------------------------

    def _files(self, name: Name) -> ParquetFiles:
        """The files of a split."""
        source = self.sources[name] or self.sources["train"]
        ...
