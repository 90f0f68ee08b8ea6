"""The table itself: estimates in two units, and what is made of them: rows, CSV, text."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.errors.text import csv_text, printable
from smx_lightning.processes.files import written_whole

INTERCEPT = "(intercept)"
LARGEST = 10  # rows that are printed
WIDEST = 32  # characters of a name that is printed

Array = NDArray[np.float64]


class Row(NamedTuple):
    """One coefficient; what stands behind ``standardised`` is ``None`` without errors.

    ``std_error``, ``low`` and ``high`` are in the data's own units. ``z`` and ``p_value`` of a
    feature are the same in both units.
    """

    class_name: str
    feature: str
    coefficient: float
    standardised: float
    std_error: float | None = None
    z: float | None = None
    p_value: float | None = None
    low: float | None = None
    high: float | None = None


COLUMNS = ("class", *Row._fields[1:])


@dataclass(frozen=True, eq=False)
class Estimates:
    """Estimates in one kind of units; all arrays are (classes, 1 + features), the intercept first.

    Attributes:
        estimate: What was estimated.
        std_error: Of it; ``None`` where no rows were given.
        level: Of the intervals, .95 say.
    """

    estimate: Array
    std_error: Array | None = None
    level: float = 0.95

    @property
    def coefficients(self) -> Array:
        """Of the features alone, (classes, features)."""
        return self.estimate[:, 1:]

    @property
    def intercepts(self) -> Array:
        """(classes,)."""
        return self.estimate[:, 0]

    @cached_property
    def z(self) -> Array | None:
        """Estimates in units of their standard errors; NaN where these are 0."""
        if self.std_error is None:
            return None
        none = np.full_like(self.estimate, np.nan)
        return np.divide(self.estimate, self.std_error, out=none, where=self.std_error > 0)

    @cached_property
    def p_value(self) -> Array | None:
        """Two-sided, of a normal distribution: P(|Z| > |z|)."""
        if self.z is None:
            return None
        tails: Array = torch.special.erfc(torch.from_numpy(np.abs(self.z) / math.sqrt(2))).numpy()
        return tails

    @property
    def low(self) -> Array | None:
        """Lower end of the interval."""
        return self._end(-1.0)

    @property
    def high(self) -> Array | None:
        """Upper end of the interval."""
        return self._end(1.0)

    def _end(self, sign: float) -> Array | None:
        if self.std_error is None:
            return None
        quantile = -NormalDist().inv_cdf((1 - self.level) / 2)  # (1 + level) / 2 may round to 1
        return self.estimate + sign * quantile * self.std_error


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients:
    """A model's coefficients, a row a class and feature; docs/coefficients.md has the formulas.

    Attributes:
        feature_names: One a feature.
        class_names: Of the classes that have a row each: all of them, whose coefficients sum to
            zero, or all but the reference.
        own: In the data's own units: per unit of a feature as the data have it.
        standardised: Of the features as the linear layer takes them: per standard deviation where
            the model standardises.
        reference: The class that the others are compared with; ``None`` where there is none.
        errors: ``model`` or ``robust``; ``None`` where no rows were given.
        num_rows: How many rows the errors are of: frequencies count as so many.
        distance: How far the model is from its optimum at most, in standard deviations of any
            coefficient; the errors are right to about this much of themselves.
    """

    feature_names: tuple[str, ...]
    class_names: tuple[str, ...]
    own: Estimates
    standardised: Estimates
    reference: str | None = None
    errors: str | None = None
    num_rows: float | None = None
    distance: float | None = None

    @property
    def terms(self) -> tuple[str, ...]:
        """What the arrays' columns are of: the intercept, and the features."""
        return (INTERCEPT, *self.feature_names)

    def rows(self) -> list[Row]:
        """All rows, class after class, the intercept first."""
        return list(self._rows())

    def _rows(self) -> Iterator[Row]:
        own = self.own
        parts = (own.estimate, self.standardised.estimate)
        errors = (own.std_error, own.z, own.p_value, own.low, own.high)
        known = [np.asarray(part) for part in (*parts, *errors) if part is not None]
        for k, class_name in enumerate(self.class_names):
            for j, term in enumerate(self.terms):
                yield Row(class_name, term, *(float(part[k, j]) for part in known))

    def to_csv(self, path: str | Path) -> Path:
        """Write all rows as CSV (RFC 4180, UTF-8), under a line of :data:`COLUMNS`.

        Names that a spreadsheet would take for formulas are quoted, see
        :func:`smx_lightning.errors.text.csv_text`; what is not known is empty.

        Raises:
            InputError: Where the file cannot be written.
        """
        with written_whole(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for class_name, feature, *numbers in self._rows():
                cells = ["" if n is None or math.isnan(n) else repr(n) for n in numbers]
                writer.writerow([csv_text(class_name), csv_text(feature), *cells])
        return Path(path)

    def to_pandas(self) -> Any:
        """The rows as a pandas DataFrame with the columns of the CSV file.

        Raises:
            InputError: Where pandas is not installed.
        """
        try:
            import pandas as pd
        except ModuleNotFoundError as error:
            raise InputError(
                "expected pandas for a DataFrame, found none; pip install pandas, or take "
                "rows() or to_csv(path)"
            ) from error
        return pd.DataFrame.from_records([tuple(row) for row in self._rows()], columns=COLUMNS)

    def __repr__(self) -> str:
        """What it is of, in a line."""
        sizes = f"{len(self.class_names)} classes, {len(self.feature_names)} features"
        return f"Coefficients({sizes}, reference={self.reference!r}, errors={self.errors!r})"

    def __str__(self) -> str:
        """The largest coefficients of features, in standardised units, as a table of text."""
        rows = [row for row in self._rows() if row.feature != INTERCEPT]
        rows.sort(key=lambda row: -abs(row.standardised))
        shown = [("class", "feature", "coefficient", "standardised", *self._heads())]
        shown += [(row.class_name, row.feature, *self._cells(row)) for row in rows[:LARGEST]]
        shown = [tuple(_cut(printable(cell)) for cell in row) for row in shown]
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if at < 2 else cell.rjust(width)
                for at, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in shown
        ]
        return "\n".join([*lines, *self._said(len(rows))])

    def _heads(self) -> tuple[str, ...]:
        return () if self.errors is None else ("std error", "z", "p", "low", "high")

    @staticmethod
    def _cells(row: Row) -> list[str]:
        numbers = [number for number in row[2:] if number is not None]
        return ["" if math.isnan(number) else f"{number:.4g}" for number in numbers]

    def _said(self, count: int) -> Iterator[str]:
        """What the numbers are, in lines below them."""
        if count > LARGEST:
            yield f"… the {LARGEST} largest of {count}"
        if self.reference is None:
            yield "differences from the mean over the classes"
        else:
            yield f"differences from class {_cut(printable(self.reference))}"
        if self.errors is not None:
            kind = "of the model" if self.errors == "model" else "robust"
            rows, level = f"{self.num_rows:.10g} rows", f"{self.own.level:.4g}"
            yield f"standard errors: {kind}, of {rows}; intervals of {level}"


def _cut(name: str) -> str:
    return name if len(name) <= WIDEST else f"{name[: WIDEST - 1]}…"
