"""Fits as lines of JSON: one is added as soon as it is made, and read by the next run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Record:
    """One solver's fits at one tolerance.

    Attributes:
        problem: Its name in :data:`benchmarks.problems.PROBLEMS`.
        dtype: Of the rows.
        rows: n.
        features: d.
        classes: K.
        solver: Its name in :data:`benchmarks.regimes.solvers.SOLVERS`.
        tol: In the solver's own sense.
        threads: That it could use.
        cap: Seconds that it was given.
        machine: Processor, cores, Python, and packages that all solvers share.
        version: Of the solver.
        date: YYYY-MM-DD.
        seconds: Of a whole fit, the median of so many; ``None`` where none ended.
        repeats: How many.
        objective: Of its weights, in float64.
        note: Passes or iterations, or why none ended.
    """

    problem: str
    dtype: str
    rows: int
    features: int
    classes: int
    solver: str
    tol: float
    threads: int
    cap: float
    machine: str
    version: str
    date: str
    seconds: float | None
    repeats: int
    objective: float | None
    note: str

    @property
    def setting(self) -> tuple[str, ...]:
        """What must be equal for fits to be comparable: on what, and with what, they were made."""
        return (self.machine, self.version, str(self.threads))

    @property
    def series(self) -> tuple[str, str, str]:
        """What differs from its neighbours in the tolerance alone."""
        return (self.problem, self.dtype, self.solver)


class Records:
    """A file of records, which others may read meanwhile.

    Args:
        path: Made with the first record. Lines that an interruption cut short are dropped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        self._cut_short = not text.endswith("\n") and text != ""
        self.all = [*_whole(text.splitlines())]

    def add(self, record: Record) -> None:
        """One more line."""
        self.all.append(record)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write("\n" * self._cut_short + json.dumps(asdict(record)) + "\n")
        self._cut_short = False

    def find(self, like: Record) -> Record | None:
        """The last record of the same series, setting and tolerance, if it had as much time."""
        for known in reversed(self.like(like)):
            if known.tol == like.tol:
                return known if known.seconds is not None or known.cap >= like.cap else None
        return None

    def like(self, like: Record) -> list[Record]:
        """Those of the same series and setting, whatever their tolerance."""
        return [r for r in self.all if r.series == like.series and r.setting == like.setting]


def optimum(records: Iterable[Record], problem: str) -> float:
    """f*: the lowest objective of any fit on a problem. Its float64 rows are the same numbers."""
    reached = (r.objective for r in records if r.problem == problem and r.objective is not None)
    return min(reached, default=float("inf"))


def latest(records: Iterable[Record], threads: int) -> list[Record]:
    """Of each series the fits in the setting that was measured last, one a tolerance."""
    kept: dict[tuple[str, str, str], dict[float, Record]] = {}
    for record in records:
        if record.threads != threads:
            continue
        series = kept.setdefault(record.series, {})
        if any(other.setting != record.setting for other in series.values()):
            series.clear()
        series[record.tol] = record
    return [record for series in kept.values() for record in series.values()]


def _whole(lines: Iterable[str]) -> Iterator[Record]:
    for line in lines:
        with suppress(json.JSONDecodeError):
            yield Record(**json.loads(line))
