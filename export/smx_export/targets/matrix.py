"""One file on many runtimes: does it load, does it run, is it right, how fast. No torch.

Each runtime runs in a process of its own (:mod:`smx_export.targets.process`), and is asked the same
questions. A runtime that is not installed is *not run*, which is neither passed nor failed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.check import strings_for_nan
from smx_export.artifact.signed import Signed, read_intact
from smx_export.artifact.tolerance import Compared, Expected, Outputs, compare, max_or_nan
from smx_export.artifact.vectors import UNDERFLOW
from smx_export.contract import PROFILE
from smx_export.profile import Profile
from smx_export.targets.process import Answer, ask

PASSED, FAILED, NOT_RUN = VERDICTS = "passed", "FAILED", "not run"
SILENT = "ended without an answer"
PATIENCE = 300.0  # seconds that a runtime may take, conversion included


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

    def to_json(self) -> str:
        """The whole matrix, JSON without NaN."""
        return json.dumps(strings_for_nan({"passed": self.passed, **asdict(self)}), indent=2)

    def __str__(self) -> str:
        notes = [f"{row.target}: {row.detail}" for row in self.rows if row.detail]
        if any(row.stress is not None and not row.stress <= 1 for row in self.rows):
            notes.append(
                "under stress (classes over 87 nats apart) a runtime that computes log(softmax) "
                "fails; export with --profile robust if that matters"
            )
        counts = [f"{sum(row.verdict == v for row in self.rows)} {v}" for v in VERDICTS]
        return "\n".join([_table(self.rows), *notes, ", ".join(counts)])


@dataclass(frozen=True)
class _Cases:
    """The batches that every runtime gets, and their answers."""

    x: tuple[NDArray[Any], ...]
    expected: tuple[Expected, ...]
    outputs: tuple[str, ...]
    threshold: float | None
    stress_must_hold: bool


def matrix(
    path: str | Path,
    targets: Iterable[str],
    *,
    more: Sequence[tuple[NDArray[Any], Expected]] = (),
    progress: Callable[[str], None] = lambda target: None,
    patience: float = PATIENCE,
) -> Matrix:
    """Run a file on runtimes.

    Args:
        path: A file that smx_export wrote; its own vectors are the questions.
        targets: Names of runtimes.
        more: Further batches and their answers.
        progress: Called with each runtime's name before it starts.
        patience: Seconds after which a runtime is ended.

    Raises:
        FileError: Where the file bears no vectors, or was changed since it was exported.
    """
    signed = read_intact(path)
    profile = Profile.from_json(signed.metadata.get(PROFILE))
    cases = _cases(signed, profile, more)
    rows = []
    for name in targets:
        progress(name)
        rows.append(_row(name, ask(name, Path(path), cases.x, patience), cases))
    return Matrix(str(path), profile.name, tuple(rows))


def _cases(
    signed: Signed, profile: Profile, more: Sequence[tuple[NDArray[Any], Expected]]
) -> _Cases:
    """Ordinary rows alone and together, then what strains: apart, as some runtimes fail there."""
    parts = [(signed.vectors.x, signed.vectors.expected), *more]
    ordinary: list[tuple[NDArray[Any], Expected]] = []
    stress: list[tuple[NDArray[Any], Expected]] = []
    for x, expected in parts:
        strained = _strained(expected)
        for chosen, rows in ((stress, strained), (ordinary, ~strained)):
            if rows.any():
                chosen.append((x[rows], expected.rows(rows)))
    ordinary = ordinary or stress  # a model as steep as that has no others
    x, expected = ordinary[0]
    if len(x) == 1:  # of a steep model, zero alone: several rows are asked nevertheless
        ordinary[0] = x.repeat(2, 0), expected.rows(np.zeros(2, np.intp))
    xs, answers = zip((x[:1], expected.rows(slice(1))), *ordinary, *stress, strict=True)
    return _Cases(xs, answers, profile.outputs, signed.threshold, profile.robust)


def _row(name: str, answered: Answer, cases: _Cases) -> Row:
    """What a target's answer amounts to."""
    answer, outputs, ended = answered
    if "missing" in answer:
        return Row(name, detail=answer["missing"])
    version, errors = answer.get("version", ""), answer.get("errors", {})
    if "loads" not in answer:
        return Row(name, version, FAILED, detail=answer.get("refused") or ended or SILENT)
    judged = [_judged(i, outputs, errors, cases, ended) for i in range(len(cases.x))]
    strained = [i > 0 and _strained(expected).any() for i, expected in enumerate(cases.expected)]
    ordinary = [found for found, hard in zip(judged, strained, strict=True) if not hard]
    stress = [found for found, hard in zip(judged, strained, strict=True) if hard]
    counted = judged if cases.stress_must_hold else ordinary
    faults = [found if isinstance(found, str) else found.wrong for found in counted]
    fault = next(filter(None, faults), "")
    asked = [len(x) for x, hard in zip(cases.x, strained, strict=True) if not hard]
    changed = sum(
        len(found.beyond_rounding) if isinstance(found, Compared) else rows
        for found, rows in zip(ordinary, asked, strict=True)
    )
    micros = answer.get("micros", {})
    return Row(
        name,
        version,
        FAILED if fault or ended else PASSED,
        loads=True,
        batch_1=_fine(ordinary[0]),
        batch_n=all(map(_fine, ordinary[1:])),
        error=_ratio(ordinary),
        argmax=1 - changed / sum(asked),
        stress=_ratio(stress) if stress else None,
        micros_1=micros.get("1"),
        micros_1024=micros["1024"] / 1024 if "1024" in micros else None,
        detail=fault or ended or next(iter(errors.values()), ""),
    )


def _judged(
    i: int, outputs: Outputs, errors: dict[str, str], cases: _Cases, ended: str
) -> Compared | str:
    """What batch i amounts to; words where there is no answer to judge."""
    told = {key.partition("/")[2]: value for key, value in outputs.items()
            if key.startswith(f"{i}/")}  # fmt: skip
    missing = set(cases.outputs) - set(told)
    if missing:
        return errors.get(str(i)) or ended or f"no output {sorted(missing)[0]}"
    found = compare(cases.expected[i], told, threshold=cases.threshold)
    return found.faults[0] if found.faults else found


def _fine(found: Compared | str) -> bool:
    return isinstance(found, Compared) and found.right


def _ratio(found: Sequence[Compared | str]) -> float:
    """The largest error over tolerance; NaN where there were no numbers."""
    return max_or_nan(one.ratio if isinstance(one, Compared) else math.nan for one in found)


def _strained(expected: Expected) -> NDArray[np.bool_]:
    """Rows whose classes lie so far apart that exp leaves float32's normal numbers."""
    return np.asarray(-expected.log_probs.min(1) > UNDERFLOW)


COLUMNS = (
    "target", "version", "verdict", "loads", "batch 1", "batch n", "error / tolerance", "argmax",
    "under stress", "µs, 1 row", "µs a row, 1024",
)  # fmt: skip


def _table(rows: Sequence[Row]) -> str:
    """As Markdown, which a terminal shows as well."""
    cells = [COLUMNS, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in cells]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


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
