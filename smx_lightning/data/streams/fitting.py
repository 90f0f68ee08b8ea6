"""What a stream's columns and classes are: one pass over the files before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from smx_lightning.data.streams.files import ParquetFiles
from smx_lightning.data.streams.parts import Part
from smx_lightning.data.streams.reading import Slice, slices
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.tables.fitting import SchemaFit
from smx_lightning.tables.labels import Labels
from smx_lightning.tables.schema import Column, Schema
from smx_lightning.tables.values import kind_of, numbers

NUMERIC = ("number", "date")  # kinds whose values float32 may round


@dataclass(frozen=True)
class Known:
    """What a pass over the rows has found out.

    Attributes:
        schema: What the columns become, by the training rows.
        class_names: One name a class, by all rows.
        wide: Features that need float64, by their numbers; see :mod:`smx_lightning.preprocessing`.
        notes: Sentences that the user should read.
    """

    schema: Schema
    class_names: tuple[str, ...]
    wide: tuple[int, ...]
    notes: tuple[str, ...] = ()


def known(
    files: ParquetFiles, part: Part, fit: SchemaFit, *, schema: Schema | None = None
) -> Known:
    """One pass over all rows, in memory that does not grow with them.

    Args:
        files: Whose rows.
        part: The training rows.
        fit: Nothing was added to it yet.
        schema: In place of what it would find.

    Raises:
        InputError: For what cannot become features or labels.
    """
    classes, digits = Labels(fit.target), _Digits(files, _candidates(files, fit, schema))
    for piece in slices(files, Part(), np.flatnonzero(files.rows)):
        classes.add(piece.table, piece.place)
        trained = piece.of(part)
        if len(trained.rows) and schema is None:
            fit.add(trained.taken, place=trained.place)
        if len(trained.rows):
            digits.add(trained)
    found = fit.schema() if schema is None else schema
    wide = [found.feature_names.index(name) for name in digits.wide if name in found.feature_names]
    return Known(found, classes.class_names, tuple(sorted(wide)), fit.notes)


def _candidates(files: ParquetFiles, fit: SchemaFit, schema: Schema | None) -> list[str]:
    """Columns that may become features as they are."""
    if schema is not None:
        return [column.name for column in schema.columns if column.kind in NUMERIC]
    targets = (fit.target,) if isinstance(fit.target, str) else fit.target
    others = {fit.weight, *fit.drop, *fit.kinds, *targets}
    return [name for name in fit.features or files.names if name not in others]


class _Digits:
    """Tells which columns have digits that float32 would lose."""

    def __init__(self, files: ParquetFiles, names: Sequence[str]) -> None:
        fields = [[s.field(name) for s in files.schemas if name in s.names] for name in names]
        found = [next(filter(None, map(_rounded, of_files)), None) for of_files in fields]
        self.columns = [column for column in found if column is not None]
        self.moments = Moments.empty(len(self.columns))

    def add(self, piece: Slice) -> None:
        if not self.columns:
            return
        table, place = piece.taken, piece.place
        values = [numbers(column, table.column(column.name), place) for column in self.columns]
        block = np.stack(values, 1)
        gaps = np.isnan(block)
        if gaps.any():  # the mean of the others moves nothing
            sums = np.where(gaps, 0, block).sum(0) / np.maximum((~gaps).sum(0), 1)
            block = np.where(gaps, sums, block)
        self.moments = self.moments.merged(Moments.of(torch.from_numpy(block)))

    @property
    def wide(self) -> list[str]:
        flags = self.moments.wide.tolist()
        return [column.name for column, flag in zip(self.columns, flags, strict=True) if flag]


def _rounded(field: Any) -> Column | None:
    """A column of numbers or dates that float32 may round; ``None`` of others."""
    import pyarrow.types as types

    found = kind_of(field.type)
    exact = types.is_float32(field.type) or types.is_float16(field.type)
    if found is None or found[0] not in NUMERIC or exact:
        return None
    if types.is_integer(field.type) and field.type.bit_width <= 16:
        return None
    return Column(field.name, found[0], unit=found[1])
