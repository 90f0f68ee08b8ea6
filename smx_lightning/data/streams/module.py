"""A data module of Parquet files that are larger than memory."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_warn

from smx_lightning.data.base import is_wide
from smx_lightning.data.checks import check_fractions
from smx_lightning.data.labelled import named_target
from smx_lightning.data.streams.fitting import Known, known
from smx_lightning.data.streams.loader import StreamLoader
from smx_lightning.data.streams.memory import bytes_of, shares_of, whole_batches
from smx_lightning.data.streams.parts import Name, Part
from smx_lightning.data.streams.rows import StreamedRows
from smx_lightning.data.streams.sources import Source, Sources
from smx_lightning.data.streams.told import Told
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import at_least
from smx_lightning.errors.extras import require_arrow
from smx_lightning.processes.distributed import sharing
from smx_lightning.tables.encoding import listed
from smx_lightning.tables.fitting import Missing, SchemaFit
from smx_lightning.tables.schema import Kind, Schema

IN_ORDER = 2**13  # rows of a window that is not shuffled: nothing is gained by larger ones


class StreamedTableDataModule(Told):
    """Parquet files, local or distant, whose rows are never all in memory.

    Row groups are read in an order of the epoch, and their rows shuffled within a window; both are
    a pure function of (seed, epoch), so that every number of processes sees the same batches. Each
    process decodes all row groups and keeps its own rows. The exact solver, which does not mind the
    order, gets the rows as they stand in the files.

    Whether a row is held out is a pure function of (seed, its number in the files). A row without a
    label stays in its batch, as −1: so batches are as large on every process.

    Args:
        source: A Parquet file, a folder whose ``*.parquet`` are read at any depth, or a list of
            these; paths, or URIs such as ``s3://bucket/folder``.
        target: The column of the labels, or the columns of a distribution over the classes. A
            trained model's schema knows it.
        features: The columns that become features; by default all others.
        weight: The column of the rows' weights.
        drop: Columns that are left out.
        kinds: Of columns by name, where their type does not say it.
        min_count: Categories of fewer training rows, weights counted, share one feature.
        missing: What becomes of missing values: ``indicator`` or ``refuse``.
        schema: In place of what the training rows tell: a Schema, or the dict that stands for it.
        val: Rows to validate on, as ``source``; split off where there are none.
        test: Rows to test on, likewise.
        filesystem: Of pyarrow or fsspec, in which the paths lie.
        window: Rows that are shuffled among one another, in whole batches; by default as many as
            ``memory`` has room for, at most 262144.
        memory: What the stream may hold, in bytes or as ``512 MB``: two windows, a page of every
            column, and some slices of a few MB.
        batch_size: Rows a batch, over all processes together.
        val_fraction: Share of the rows, but for those of the test, to validate on.
        test_fraction: Share of all rows to test on; 0 for a final fit, which nothing tests.
        seed: Of the split, and of the order of the training rows.

    Attributes:
        num_features, num_classes, class_names, feature_names, schema: As the training rows say; of
            the classes, all rows of ``source``.
        input_shape: ``(num_features,)``.
        input_range: ``None``: nobody has looked at all entries.
        wide_columns: Features that need float64; the inputs are float64 where there is any.
        tested: Whether there are rows to test on.
    """

    def __init__(
        self,
        source: Source,
        target: str | list[str] | None = None,
        features: list[str] | None = None,
        weight: str | None = None,
        drop: list[str] | None = None,
        kinds: dict[str, Kind] | None = None,
        min_count: float = 1,
        missing: Missing = "indicator",
        schema: Any = None,
        val: Source | None = None,
        test: Source | None = None,
        filesystem: Any = None,
        window: int | None = None,
        memory: int | str = "1 GB",
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__(Schema.given(schema))
        require_arrow()
        self.batch_size = at_least("batch_size", batch_size, 1)
        self.val_fraction, self.test_fraction = check_fractions(val_fraction, test_fraction)
        self.seed = at_least("seed", seed, 0)
        self.window = None if window is None else at_least("window", window, 1)
        self.memory = bytes_of(memory)
        self.target = named_target(target)
        self.weight, self.drop, self.kinds = weight, drop or (), kinds
        self.features, self.min_count, self.missing = features, min_count, missing
        if target is not None:
            self._fit()  # complains of arguments that contradict each other
        self.sources = Sources(
            {"train": source, "val": val, "test": test},
            filesystem,
            wanted=self._wanted(),
            fractions={"val": self.val_fraction, "test": self.test_fraction},
            seed=self.seed,
        )

    # What the rows are -----------------------------------------------------------------------

    @cached_property
    def known(self) -> Known:
        """What the rows are, by one pass over them."""
        files, part = self.sources.files("train"), self.sources.part("train")
        found = known(files, part, self._fit(self._schema), schema=self._schema)
        for note in found.notes:
            rank_zero_warn(note)
        if len(found.class_names) < 2:
            raise InputError(
                f"expected labels of at least 2 classes, got only {found.class_names}; there is "
                "nothing to tell apart"
            )
        return found

    def _fit(self, schema: Schema | None = None) -> SchemaFit:
        beside = self._spoken(schema)
        return SchemaFit(
            beside.target or (),
            self.features,
            beside.weight,
            drop=self.drop,
            kinds=self.kinds,
            min_count=self.min_count,
            missing=self.missing,
        )

    @property
    def tested(self) -> bool:
        """Whether there are rows to test on."""
        return "test" in self.sources.given or self.test_fraction > 0

    # Loaders ---------------------------------------------------------------------------------

    def train_dataloader(self) -> StreamLoader:
        """Batches of the training rows, shuffled for an optimiser that minds their order."""
        trainer = self.trainer
        overfit = trainer is not None and bool(getattr(trainer, "overfit_batches", 0))
        optimizers = [] if trainer is None else trainer.optimizers
        any_order = [getattr(optimizer, "any_order", False) for optimizer in optimizers]
        return self._loader("train", shuffle=not (overfit or (any_order and all(any_order))))

    def val_dataloader(self) -> StreamLoader:
        """The validation rows in order."""
        return self._loader("val")

    def test_dataloader(self) -> StreamLoader:
        """The test rows in order.

        Raises:
            InputError: Where there are none, as ``test_fraction`` is 0.
        """
        return self._loader("test")

    def predict_dataloader(self) -> list[StreamLoader]:
        """The inputs alone, of all rows in the order of the files; none need be labelled."""
        names = self.sources.given
        return [self._of_rows(self._rows(name, Part(), labelled=False)) for name in names]

    def _loader(self, name: Name, *, shuffle: bool = False) -> StreamLoader:
        rows = self._rows(name, self.sources.part(name), shuffled=shuffle)
        if len(rows) == 0:
            raise InputError(
                f"expected {name} rows, got none of {int(rows.files.rows.sum())} rows; give more "
                "rows, another fraction between 0 and 1, or the split by itself"
            )
        return self._of_rows(rows, shuffle=shuffle)

    def _of_rows(self, rows: StreamedRows, *, shuffle: bool = False) -> StreamLoader:
        rank, shares = sharing(self.trainer)
        share: dict[str, Any] = {"rank": rank, "world_size": shares}
        size, seed = self.batch_size, self.seed
        return StreamLoader(rows, batch_size=size, shuffle=shuffle, seed=seed, **share)

    def _rows(
        self, name: Name, part: Part, *, shuffled: bool = False, labelled: bool = True
    ) -> StreamedRows:
        """The rows of a part of a split's files, as they are encoded for the model at hand."""
        told = self._in_use()
        schema = replace(told.schema, target=None, weight=None)
        columns = [column.name for column in schema.columns]
        if labelled:
            beside = self._spoken(told.schema)
            schema = replace(schema, target=beside.target, weight=beside.weight)
            columns += _columns(beside)
        files = self.sources.files(name).reading(columns)
        dtype = torch.float64 if told.wide else torch.float32
        window, entries = shares_of(
            self.memory,
            len(schema.feature_names) * dtype.itemsize,
            batch_size=min(self.batch_size, max(int(files.rows.sum()), 1)),
            held=files.held,
            window=self.window if shuffled else None,
        )
        if not shuffled:
            window = whole_batches(min(window, IN_ORDER), self.batch_size)
        names = told.class_names if labelled else None
        return StreamedRows(files, part, schema, names, dtype, window, entries)

    def _in_use(self) -> Known:
        """What a trained model that is asked about these rows says of them, or else they do."""
        trainer: Any = self.trainer
        model: Any = None if trainer is None else trainer.lightning_module
        schema = getattr(model, "schema", None)
        if not isinstance(schema, Schema) or trainer.state.fn == TrainerFn.FITTING:
            return self.known
        return Known(schema, tuple(model.class_names), (0,) if is_wide(trainer) else ())

    def _wanted(self) -> list[str] | None:
        """The columns in which all files must agree; ``None``: in all."""
        if self.features is None or self.target is None:
            return None
        return [*self.features, *_columns(self._spoken(None))]

    def _spoken(self, schema: Schema | None) -> Schema:
        """A schema of the columns of labels and weights alone.

        Raises:
            InputError: Where nobody says which column the labels are in.
        """
        known = Schema(()) if schema is None else schema
        target = known.target if self.target is None else self.target
        if target is None:
            names = self.sources.files("train").names
            raise InputError(
                f"expected the column of the labels as target, got none; name one of the columns "
                f"{listed([*names])}"
            )
        return Schema((), target, self.weight or known.weight)


def _columns(spoken: Schema) -> list[str]:
    """The columns of labels and weights."""
    target = [spoken.target] if isinstance(spoken.target, str) else [*(spoken.target or ())]
    return target if spoken.weight is None else [*target, spoken.weight]
