"""The rows of a stream as a data set: what they are of, and what a table's rows become."""

from __future__ import annotations

import math
import mmap
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from smx_lightning.data.streams.files import ParquetFiles
from smx_lightning.data.streams.parts import Part
from smx_lightning.data.streams.reading import ENTRIES, Slice
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.labels import row_weights, targets
from smx_lightning.tables.schema import Schema
from smx_lightning.tables.unknown import Unknown

if TYPE_CHECKING:
    import pyarrow as pa

SMALL = 2**16  # bytes
BLOCK = 2**12  # rows
Arrays = tuple[NDArray[Any], ...]


@dataclass(frozen=True)
class StreamedRows(Dataset[Any]):
    """Rows of Parquet files that are read in order, and never all in memory.

    Attributes:
        files: Which files, and which of their columns.
        part: Which of their rows.
        schema: What the columns become.
        class_names: One name a class, in the order of the classes; ``None`` for the inputs alone.
        dtype: Of the inputs, float32 or float64.
        window: Rows that are in memory, and shuffled among one another, about.
        entries: Of a slice that is decoded at a time, about.
    """

    files: ParquetFiles
    part: Part
    schema: Schema
    class_names: tuple[str, ...] | None
    dtype: torch.dtype
    window: int
    entries: int = ENTRIES

    def __len__(self) -> int:
        return int(self.counts.sum())

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(groups,) rows of each row group."""
        return self.part.counts(self.files.rows)

    @property
    def identity(self) -> dict[str, Any]:
        """Plain values that tell these rows from others, of which none is read."""
        told = {"part": asdict(self.part), "schema": self.schema.to_dict(), "window": self.window}
        return {**self.files.identity, **told}

    def empty(self, rows: int) -> tuple[Tensor, ...]:
        """Room for so many rows: x (rows, features), y (rows,) or (rows, classes), weight (rows,).

        Without y and weight where the inputs are alone, without weight where the rows have none.
        """
        x = room((rows, len(self.schema.feature_names)), self.dtype)
        if self.class_names is None:
            return (x,)
        if isinstance(self.schema.target, str):
            y = room((rows,), torch.int64)
        else:
            y = room((rows, len(self.class_names)), torch.float64)
        weight = () if self.schema.weight is None else (room((rows,), torch.float64),)
        return (x, y, *weight)

    def encoded(self, piece: Slice, unknown: Unknown) -> Arrays:
        """The wanted rows of a slice, in the order of :meth:`empty`.

        Args:
            piece: Its wanted rows are encoded.
            unknown: Counts what the schema does not know.

        Raises:
            InputError: For values that the schema does not take; it names column, file and row.
        """
        table, place = piece.taken, piece.place
        x = numbers(self.schema, table, self.dtype)
        if x is None:
            x = encoded(self.schema, table, place=place, unknown=unknown)
        if self.class_names is None:
            return (x,)
        y = targets(self.schema, self.class_names, table, place=place)
        weight = row_weights(self.schema, table, place=place)
        return (x, y) if weight is None else (x, y, weight)


def room(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor whose memory goes back to the system when it is gone.

    Of what malloc is given back it keeps some, in a piece for each thread: windows would pile up.
    In pages of 2 MB, where there are such, it is filled in a third of the time.
    """
    size = math.prod(shape) * dtype.itemsize
    if size < SMALL:
        return torch.empty(shape, dtype=dtype)
    own = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
    held = mmap.mmap(-1, size, **own)
    with suppress(AttributeError, OSError):  # other systems
        held.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(held, dtype=dtype).reshape(shape)


def numbers(
    schema: Schema, table: pa.RecordBatch, dtype: torch.dtype = torch.float64
) -> NDArray[Any] | None:
    """What :func:`~smx_lightning.tables.encoding.encoded` makes of a table, in a tenth of the time.

    ``None`` where anything is to be encoded, filled or refused: where a feature is not a column of
    floating-point numbers, or a value is missing or not finite.

    Returns:
        (rows, features), of the dtype.
    """
    import pyarrow as pa

    if not schema.columns or any(c.kind != "number" or c.missing for c in schema.columns):
        return None
    columns = [table.column(column.name) for column in schema.columns]
    wide_enough = (pa.float32(), pa.float64())
    if any(c.type not in wide_enough or c.null_count for c in columns):
        return None
    x = torch.empty((table.num_rows, len(columns)), dtype=dtype).numpy()
    values = [column.to_numpy() for column in columns]
    for start in range(0, len(x), BLOCK):  # of which a cache holds all columns
        block = slice(start, start + BLOCK)
        for k, column in enumerate(values):
            x[block, k] = column[block]
    return x if np.isfinite(x).all() else None
