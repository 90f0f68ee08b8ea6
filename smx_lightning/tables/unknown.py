"""What a table holds that the schema has never seen: counted, and said once for each column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from smx_lightning.errors.text import printable

SHOWN = 3  # unknown categories of a column


class Unknown:
    """Counts unknown categories, and values missing where none was, over parts of a table.

    Attributes:
        rows: Number of rows that were looked at.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._categories: dict[str, int] = {}
        self._shown: dict[str, dict[str, None]] = {}
        self._gaps: Counter[str] = Counter()

    def categories(self, column: str, found: Iterable[str], count: int) -> None:
        """Count rows of a column whose category is none of the known, with some of these."""
        self._categories[column] = self._categories.get(column, 0) + count
        shown = self._shown.setdefault(column, {})
        for category in found:
            if len(shown) <= SHOWN:
                shown[category] = None

    def gaps(self, column: str, count: int) -> None:
        """Count rows of a column that lack a value, where no training row did."""
        self._gaps[column] += count

    @property
    def columns(self) -> frozenset[str]:
        """Names of the columns of which there is something to tell."""
        return frozenset((*self._categories, *self._gaps))

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind of thing that was counted."""
        notes = []
        if self._categories:
            told = ", ".join(
                f"{printable(name)!r}: {count} ({self._some(name)})"
                for name, count in self._categories.items()
            )
            notes.append(
                f"expected the categories of the training rows, got others in rows of {told}, of "
                f"{self.rows} rows; they count as none of the known ones"
            )
        if self._gaps:
            told = ", ".join(f"{printable(name)!r}: {count}" for name, count in self._gaps.items())
            notes.append(
                f"expected a value where every training row has one, got none in rows of {told}, "
                f"of {self.rows} rows; the mean of the training rows stands there, or no category"
            )
        return tuple(notes)

    def _some(self, column: str) -> str:
        shown = [printable(category) for category in self._shown[column]]
        return ", ".join([*shown[:SHOWN], *["…"] * (len(shown) > SHOWN)])
