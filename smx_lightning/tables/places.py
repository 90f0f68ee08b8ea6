"""Where the rows of a table come from, for complaints."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Place:
    """The source of a table's rows: a file, several one after another, or something in memory.

    Rows of a file are counted from 0, its header left out.

    Attributes:
        source: All of it, in words.
        parts: In words, each with the row of the table at which it begins, in order.
        first: Row of the source at which the table begins.
        index: Which rows of the source the table has, where it has chosen ones.
    """

    source: str = "the table"
    parts: tuple[tuple[int, str], ...] = ()
    first: int = 0
    index: Any = None

    def row(self, k: int) -> str:
        """A row of the table, as ``row 3 of wine.csv``."""
        at = self.first + int(k if self.index is None else self.index[k])
        if not self.parts:
            return f"row {at} of {self.source}, counted from 0"
        start, name = self.parts[bisect_right([start for start, _ in self.parts], at) - 1]
        return f"row {at - start} of {name}, counted from 0"

    def chosen(self, index: Any) -> Place:
        """Of the rows that an index chooses."""
        return Place(self.source, self.parts, self.first, index)


SOMEWHERE = Place()
