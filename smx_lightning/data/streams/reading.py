"""Rows of Parquet files in an order of their row groups, a slice at a time.

Of a row group no more is in memory than a slice and what decoding takes: a page of each column, a
dictionary of each, and a buffer of the file. So a row group may be larger than memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.data.streams.files import ParquetFiles, changed
from smx_lightning.data.streams.footers import unreadable
from smx_lightning.data.streams.parts import Part
from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import UNREADABLE
from smx_lightning.tables.places import Place

if TYPE_CHECKING:
    import pyarrow as pa

ENTRIES = 2**18  # of a slice, about: 2 MB, where nothing else is said
OPEN = 8  # files, with their footers, that are open at a time


@dataclass(frozen=True)
class Slice:
    """Some rows as they stand in a file, and which of them are wanted.

    Attributes:
        table: The rows.
        rows: (wanted,) the numbers of those that are wanted among them, increasing.
        path: Of the file.
        first: The row of the file at which the table begins.
        number: The same among the rows of all files.
    """

    table: pa.RecordBatch
    rows: NDArray[np.int64]
    path: str
    first: int
    number: int

    def cut(self, at: int) -> tuple[Slice, Slice]:
        """The first so many wanted rows, and the others."""
        return replace(self, rows=self.rows[:at]), replace(self, rows=self.rows[at:])

    def chosen(self, which: NDArray[np.bool_]) -> Slice:
        """Some of the wanted rows, by a mask (wanted,)."""
        return replace(self, rows=self.rows[which])

    def of(self, part: Part) -> Slice:
        """The rows of another part."""
        held = part.holds(self.number, self.table.num_rows)
        return replace(self, rows=np.flatnonzero(held))

    @property
    def taken(self) -> pa.RecordBatch:
        """The wanted rows alone."""
        import pyarrow as pa

        whole = len(self.rows) == self.table.num_rows
        return self.table if whole else self.table.take(pa.array(self.rows))

    @property
    def place(self) -> Place:
        """Where the wanted rows come from, for complaints."""
        return Place(self.path, first=self.first, index=self.rows)


def slices(
    files: ParquetFiles,
    part: Part,
    groups: Sequence[int] | NDArray[np.int64],
    entries: int = ENTRIES,
) -> Iterator[Slice]:
    """The rows of a part, row group by row group.

    Args:
        files: Their ``names`` say which columns are read.
        part: Which rows are wanted.
        groups: Numbers of row groups that have rows, in the order in which they are read.
        entries: Of a slice, about.

    Raises:
        InputError: For a file that cannot be read, or was changed since its footer was.
    """
    firsts = np.cumsum(files.rows) - files.rows  # numbers among all rows
    begins = firsts - firsts[np.searchsorted(files.file, files.file)]  # rows of the file
    opened: dict[int, Any] = {}
    for file, run in itertools.groupby(map(int, groups), key=lambda group: int(files.file[group])):
        if file not in opened:
            if len(opened) == OPEN:
                opened.pop(next(iter(opened))).close()
            opened[file] = _opened(files, file)
        numbers = [*run]
        for table, group, row in _tables(files, opened[file], numbers, entries):
            number = int(firsts[group]) + row
            rows = np.flatnonzero(part.holds(number, table.num_rows))
            if len(rows):
                yield Slice(table, rows, files.paths[file], int(begins[group]) + row, number)


def _opened(files: ParquetFiles, file: int) -> Any:
    """A file of pyarrow, which is still the one whose footer was read."""
    import pyarrow.parquet as pq

    path = files.paths[file]
    try:
        opened = pq.ParquetFile(
            path, filesystem=files.filesystem, buffer_size=files.buffer, pre_buffer=False
        )
    except UNREADABLE as error:
        files.check_unchanged(file)  # nothing is wrong with one that is being written
        raise unreadable(path, error) from error
    files.check_unchanged(file)
    known = files.rows[files.file == file].tolist()
    told = opened.metadata
    if [told.row_group(k).num_rows for k in range(told.num_row_groups)] != known:
        raise changed(path)
    return opened


def _tables(
    files: ParquetFiles, opened: Any, groups: Sequence[int], entries: int
) -> Iterator[tuple[pa.RecordBatch, int, int]]:
    """Slices of some row groups of one file, each within one group: table, group and first row."""
    names = [*files.names]
    file = int(files.file[groups[0]])
    size = max(entries // max(len(names), 1), 1)
    numbers = [int(files.index[group]) for group in groups]
    batches = opened.iter_batches(size, row_groups=numbers, columns=names)
    pending = iter(groups)
    group: Any = next(pending)
    row = 0
    while True:
        try:
            batch = next(batches, None)
        except UNREADABLE as error:
            files.check_unchanged(file)
            raise unreadable(files.paths[file], error) from error
        if batch is None:
            break
        while batch.num_rows:
            while row == files.rows[group]:
                group, row = next(pending, None), 0
                if group is None:
                    raise _other_rows(files, file, "more")
            table = batch.slice(0, int(files.rows[group]) - row)
            yield table, group, row
            row += table.num_rows
            batch = batch.slice(table.num_rows)
    if row != files.rows[group] or next(pending, None) is not None:
        raise _other_rows(files, file, "fewer")


def _other_rows(files: ParquetFiles, file: int, found: str) -> InputError:
    files.check_unchanged(file)
    return InputError(
        f"expected as many rows in {files.paths[file]} as its footer says, got {found}; write it "
        "again, or take it out of the folder"
    )
