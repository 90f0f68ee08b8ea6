"""What runtimes made of a file: frozen, printable as a table and as JSON. No torch."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from smx_export.artifact.check import as_html, strings_for_nan
from smx_lightning.errors.text import lines, printable

PASSED, FAILED, NOT_RUN = VERDICTS = "passed", "FAILED", "not run"


@dataclass(frozen=True)
class Row:
    """What one runtime made of the file.

    Attributes:
        target: The runtime's name.
        version: Its version.
        verdict: ``passed``, ``FAILED`` or ``not run``.
        loads: Whether it takes the file.
        batch_1: Whether it answers a single row in the right shape.
        batch_n: Whether the same session then answers several.
        error: Largest error over what float32 rounding allows, on ordinary rows.
        argmax: Share of rows whose chosen class is right, or a tie within rounding.
        stress: The same as ``error`` on rows whose classes are over 87 nats apart; NaN where the
            answers are no numbers.
        micros_1: Microseconds of a run of one row.
        micros_1024: Microseconds a row in a run of 1024.
        detail: The first thing that went wrong, or how to install what is missing.
    """

    target: str
    version: str = ""
    verdict: str = NOT_RUN
    loads: bool = False
    batch_1: bool = False
    batch_n: bool = False
    error: float | None = None
    argmax: float | None = None
    stress: float | None = None
    micros_1: float | None = None
    micros_1024: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Matrix:
    """A row a runtime; printable as a table and as JSON."""

    path: str
    profile: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Whether at least one runtime ran the file, and none failed."""
        verdicts = [row.verdict for row in self.rows]
        return FAILED not in verdicts and PASSED in verdicts

    @property
    def verdict(self) -> str:
        """How many passed, failed and were not run."""
        counts = [f"{sum(row.verdict == v for row in self.rows)} {v}" for v in VERDICTS]
        return ", ".join(counts)

    def to_json(self) -> str:
        """The whole matrix, JSON without NaN."""
        return json.dumps(strings_for_nan({"passed": self.passed, **asdict(self)}), indent=2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({printable(self.path)}: {self.verdict})"

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        notes = [f"{row.target}: {row.detail}" for row in self.rows if row.detail]
        if any(row.stress is not None and not row.stress <= 1 for row in self.rows):
            notes.append(
                "under stress (classes over 87 nats apart) a runtime that computes log(softmax) "
                "fails; export with --profile robust if that matters"
            )
        return "\n".join([_table(self.rows), lines([*notes, self.verdict])])


COLUMNS = (
    "target", "version", "verdict", "loads", "batch 1", "batch n", "error / tolerance", "argmax",
    "under stress", "µs, 1 row", "µs a row, 1024",
)  # fmt: skip


def _table(rows: Sequence[Row]) -> str:
    """As Markdown, which a terminal shows as well."""
    cells = [COLUMNS, *(tuple(map(printable, _cells(row))) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    head, *rest = ("| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells)
    return "\n".join([head, "|" + "|".join("-" * (w + 2) for w in widths) + "|", *rest])


def _cells(row: Row) -> tuple[str, ...]:
    def words(value: float | None, form: str) -> str:
        return "–" if value is None else "not finite" if math.isnan(value) else format(value, form)

    yes = ["no", "yes"]
    ran = [yes[flag] for flag in (row.loads, row.batch_1, row.batch_n)]
    return (
        row.target, row.version or "–", row.verdict,
        *(ran if row.verdict != NOT_RUN else ["–"] * 3),
        words(row.error, ".2g"), words(row.argmax, ".0%"), words(row.stress, ".2g"),
        words(row.micros_1, ".3g"), words(row.micros_1024, ".2g"),
    )  # fmt: skip
