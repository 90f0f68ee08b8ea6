"""What is counted of a column, a part of a table at a time, until its schema is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.errors.text import printable
from smx_lightning.tables.looks import remedy_for
from smx_lightning.tables.places import Place
from smx_lightning.tables.schema import Column, Kind, Unit
from smx_lightning.tables.values import TICKS, ends, kind_of, numbers, refuse, texts

MOST_CATEGORIES = 10_000  # of a column: each is a feature, and all are counted in memory
IDENTIFIERS, LEAST = 0.9, 10  # share of the rows that differ, and of how many, at least
EXACT = 2.0**53  # beyond it float64 rounds integers
LOST = 2.0**-10  # of a column's range: what rounding may move a value by


class Tally:
    """Counts the values of one column.

    Args:
        name: Of the column.
        kind: As the user wants it; by default as its Arrow type says.
    """

    def __init__(self, name: str, kind: Kind | None = None) -> None:
        self.name, self.forced = name, kind
        self.kind: tuple[Kind, Unit | None] | None = None if kind is None else (kind, _unit(kind))
        self.rows = self.gaps = 0
        self.total = self.mean = 0.0  # of weights, and weighted
        self.low, self.high = np.inf, -np.inf
        self.integers = True
        self.ticks: tuple[int, int] | None = None  # of dates and durations: the ends, exactly
        self.counts: dict[str, float] = {}
        self.order: dict[str, None] | None = None  # of an ordered dictionary

    def add(self, values: Any, weights: NDArray[np.float64], place: Place) -> NDArray[Any] | None:
        """Count some rows (rows,), of weights above 0.

        Returns:
            Which of them lack a value; ``None`` where none does.

        Raises:
            InputError: For values of another kind than those before, infinite ones, and too many
                different ones.
        """
        import pyarrow.types as types

        self.rows += len(values)
        if types.is_null(values.type):
            self.gaps += len(values)
            return np.ones(len(values), bool)
        self._settle(values.type, place)
        return (self._categories if self._is_category else self._numbers)(values, weights, place)

    @property
    def _nanoseconds(self) -> int:
        """Of the column's unit."""
        unit = self.kind[1] if self.kind else None
        return TICKS["ns"] // TICKS[unit or "ns"]

    @property
    def _is_category(self) -> bool:
        return self.kind is not None and self.kind[0] == "category"

    def _settle(self, type_: Any, place: Place) -> None:
        """Take the kind of the first values that are there."""
        found = kind_of(type_)
        if self.forced is not None:
            if self.forced == "number" and found is not None and found[0] == "number":
                self.kind = found  # a duration is a number in its unit
            elif self.forced == "date" and found is not None and found[0] == "date":
                self.kind = found
            return
        if found is None:
            kinds = {"binary": "save it as UTF-8", "dictionary": "make its entries text"}
            remedy = next(
                (what for kind, what in kinds.items() if kind in str(type_)),
                "make columns of its parts",
            )
            raise InputError(
                f"expected numbers, booleans, dates or text in column {printable(self.name)!r}, "
                f"got {str(type_)[:80]} in {place.source}; {remedy}, or leave it out with drop="
            )
        if self.kind is None:
            self.kind = found
        elif self.kind[0] != found[0] or (self.kind[1] is None) != (found[1] is None):
            refuse(Column(self.name, self.kind[0], unit=self.kind[1]), f"{type_} in {place.source}")

    def _numbers(
        self, values: Any, weights: NDArray[np.float64], place: Place
    ) -> NDArray[Any] | None:
        import pyarrow.types as types

        assert self.kind is not None
        made = numbers(Column(self.name, self.kind[0], unit=self.kind[1]), values, place)
        self.integers = self.integers and types.is_integer(values.type)
        if self.kind[1] is not None and (found := ends(values)) is not None:
            before = self.ticks or found
            self.ticks = min(before[0], found[0]), max(before[1], found[1])
        gaps = np.isnan(made)
        missing = bool(gaps.any())
        if missing:
            made, weights = made[~gaps], weights[~gaps]
            self.gaps += int(gaps.sum())
        if len(made):
            self.low, self.high = min(self.low, made.min()), max(self.high, made.max())
            total = weights.sum()
            self.total += total
            first = made[0]  # near the others: the digits of large numbers are kept
            mean = first + (weights * (made - first)).sum() / total
            self.mean += (mean - self.mean) * (total / self.total)
        return gaps if missing else None

    def _categories(
        self, values: Any, weights: NDArray[np.float64], place: Place
    ) -> NDArray[Any] | None:
        import pyarrow as pa
        import pyarrow.types as types

        if types.is_dictionary(values.type) and values.type.ordered:
            entries = texts(Column(self.name, "category"), values.dictionary, place).to_pylist()
            self.order = {**(self.order or {}), **dict.fromkeys(entries)}
        text = texts(Column(self.name, "category"), values, place)
        counted = pa.table({"text": text, "weight": weights}).group_by("text")
        for category, weight in zip(
            *(c.to_pylist() for c in counted.aggregate([("weight", "sum")]).columns), strict=True
        ):
            if isinstance(category, str) and isinstance(weight, float):
                self.counts[category] = self.counts.get(category, 0.0) + weight
        self.gaps += text.null_count
        if len(self.counts) > MOST_CATEGORIES:
            self._check_identifiers()
            raise InputError(
                f"expected at most {MOST_CATEGORIES} different values in column "
                f"{printable(self.name)!r}, got more in the first {self.rows} rows; each would be "
                "a feature: make groups of them first, or leave it out with drop="
            )
        return text.is_null().to_numpy(zero_copy_only=False) if text.null_count else None

    def column(self, *, min_count: float, refuse_gaps: bool) -> Column | None:
        """What the column becomes; ``None`` where all its values are missing.

        Raises:
            InputError: For identifiers, and for integers whose digits float64 would lose.
        """
        if self.kind is None or self.gaps == self.rows:
            return None
        kind, unit = self.kind
        missing = self.gaps > 0
        if not self._is_category:
            self._check_digits()
            # The mean is one of the values, up to rounding.
            fill = float(min(max(self.mean, self.low), self.high))
            return Column(self.name, kind, missing, None if refuse_gaps else fill, unit)
        self._check_identifiers()
        names = sorted(self.counts)
        if self.order is not None:
            names = [name for name in self.order if name in self.counts]
        kept = tuple(name for name in names if self.counts[name] >= min_count)
        other = tuple(name for name in names if self.counts[name] < min_count)
        return Column(self.name, kind, missing, categories=kept, other=other)

    def _check_identifiers(self) -> None:
        rows = self.rows - self.gaps
        if rows >= LEAST and len(self.counts) >= IDENTIFIERS * rows:
            raise InputError(
                f"expected categories in column {printable(self.name)!r}, got {len(self.counts)} "
                f"different values in {rows} rows, as identifiers have; {self._reading()}leave it "
                "out with drop= or name the others with features="
            )

    def note(self) -> str | None:
        """A sentence where categories look like numbers or dates and nobody said that they are."""
        if not self._is_category or self.forced is not None or self.order is not None:
            return None
        found = remedy_for(self.counts)
        if found is None:
            return None
        return (
            f"expected numbers and dates as numbers and dates, got text that looks like {found[0]} "
            f"in column {printable(self.name)!r}, {printable(next(iter(self.counts)))!r}: its "
            f"{len(self.counts)} values are categories; {found[1]}, or say that they are with "
            f"kinds={{{printable(self.name)!r}: 'category'}}"
        )

    def _reading(self) -> str:
        """What to try first, where identifiers look like something else."""
        found = remedy_for(self.counts)
        return "" if found is None else f"they look like {found[0]}: {found[1]}, "

    def _check_digits(self) -> None:
        largest, apart = max(abs(self.low), abs(self.high)), self.high - self.low
        if self.ticks is not None:
            apart = (self.ticks[1] - self.ticks[0]) / self._nanoseconds
        rounding = float(np.spacing(largest))
        exact = not (self.integers and largest > EXACT) if self.ticks is None else apart == 0
        if not exact and rounding > LOST * apart:
            raise InputError(
                f"expected values that float64 can tell apart in column {printable(self.name)!r}, "
                f"got {largest:.4g}, which it rounds by up to {rounding:.2g}, in a range of "
                f"{apart:.2g}; subtract an offset first, or leave it out with drop="
            )


def _unit(kind: Kind) -> Unit | None:
    return "s" if kind == "date" else None
