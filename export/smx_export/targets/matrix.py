"""One file on many runtimes: does it load, does it run, is it right, how fast. No torch.

Each runtime runs in a process of its own (:mod:`smx_export.targets.process`), on the same batches.
A runtime that is not installed is *not run*, which is neither passed nor failed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.comparison import Compared, Expected, Outputs, compare, max_or_nan
from smx_export.artifact.exported import ExportedFile, read_intact
from smx_export.artifact.files import batch_of
from smx_export.artifact.vectors import UNDERFLOW
from smx_export.contract import PROFILE
from smx_export.profile import Profile
from smx_export.targets.limited import PER_BYTE
from smx_export.targets.process import Answer, ask
from smx_export.targets.report import FAILED, PASSED, Matrix, Row

SILENT = "ended without an answer"
PATIENCE = 300.0  # seconds that a runtime may take, conversion included
MEMORY = 8 << 30  # bytes that it may take, likewise, and eight times the file's size


@dataclass(frozen=True)
class _Cases:
    """The batches that every runtime gets, and their answers."""

    x: tuple[NDArray[Any], ...]
    expected: tuple[Expected, ...]
    outputs: tuple[str, ...]
    threshold: float | None
    stress_must_hold: bool
    batch: int | None
    top_k: int | None


def matrix(
    path: str | Path,
    targets: Iterable[str],
    *,
    more: Sequence[tuple[NDArray[Any], Expected]] = (),
    progress: Callable[[str], None] = lambda target: None,
    patience: float = PATIENCE,
    memory: int = MEMORY,
) -> Matrix:
    """Run a file on runtimes.

    Args:
        path: A file that smx_export wrote; its own vectors are the first batches.
        targets: Names of runtimes.
        more: Further batches and their answers.
        progress: Called with each runtime's name before it starts.
        patience: Seconds after which a runtime is ended.
        memory: Bytes that it may take, and eight times the file's size, on Linux.

    Raises:
        FileError: Where the file bears no vectors, or was changed since it was exported.
    """
    exported = read_intact(path)
    profile = Profile.from_json(exported.metadata.get(PROFILE))
    cases = _cases(exported, profile, more)
    memory += PER_BYTE * Path(path).stat().st_size
    rows = []
    for name in targets:
        progress(name)
        answer = ask(name, Path(path), cases.x, patience, memory, cases.batch)
        rows.append(_row(name, answer, cases))
    return Matrix(str(path), profile.name, tuple(rows))


def _cases(
    exported: ExportedFile, profile: Profile, more: Sequence[tuple[NDArray[Any], Expected]]
) -> _Cases:
    """Ordinary rows alone and together, then what strains: apart, as some runtimes fail there."""
    parts = [(exported.vectors.x, exported.vectors.expected), *more]
    ordinary: list[tuple[NDArray[Any], Expected]] = []
    stress: list[tuple[NDArray[Any], Expected]] = []
    for x, expected in parts:
        strained = _strained(expected)
        for chosen, rows in ((stress, strained), (ordinary, ~strained)):
            if rows.any():
                chosen.append((x[rows], expected.rows(rows)))
    ordinary = ordinary or stress  # a model as steep as that has no others
    x, expected = ordinary[0]
    if len(x) == 1:  # of a steep model, zero alone: several rows are run nevertheless
        ordinary[0] = x.repeat(2, 0), expected.rows(np.zeros(2, np.intp))
    xs, answers = zip((x[:1], expected.rows(slice(1))), *ordinary, *stress, strict=True)
    return _Cases(
        xs,
        answers,
        profile.outputs,
        exported.threshold,
        profile.robust,
        batch_of(exported.proto.graph.input[0]),
        profile.top_k,
    )


def _row(name: str, answered: Answer, cases: _Cases) -> Row:
    """What a target's answer amounts to."""
    answer, outputs, ended = answered
    if "missing" in answer:
        return Row(name, detail=answer["missing"])
    version, errors = answer.get("version", ""), answer.get("errors", {})
    if "loads" not in answer:
        return Row(name, version, FAILED, detail=answer.get("refused") or ended or SILENT)
    found = [_compared(i, outputs, errors, cases, ended) for i in range(len(cases.x))]
    strained = [i > 0 and _strained(expected).any() for i, expected in enumerate(cases.expected)]
    ordinary = [one for one, hard in zip(found, strained, strict=True) if not hard]
    stress = [one for one, hard in zip(found, strained, strict=True) if hard]
    counted = found if cases.stress_must_hold else ordinary
    faults = [one if isinstance(one, str) else one.wrong for one in counted]
    fault = next(filter(None, faults), "")
    rows = [len(x) for x, hard in zip(cases.x, strained, strict=True) if not hard]
    micros = answer.get("micros", {})
    return Row(
        name,
        version,
        FAILED if fault or ended else PASSED,
        loads=True,
        batch_1=_fine(ordinary[0]),
        batch_n=all(map(_fine, ordinary[1:])),
        error=_ratio(ordinary),
        argmax=1 - _changed(ordinary, rows) / sum(rows),
        stress=_ratio(stress) if stress else None,
        micros_1=micros.get("1"),
        micros_1024=micros["1024"] / 1024 if "1024" in micros else None,
        detail=fault or ended or next(iter(errors.values()), ""),
    )


def _compared(
    i: int, outputs: Outputs, errors: dict[str, str], cases: _Cases, ended: str
) -> Compared | str:
    """What batch i amounts to; words where there is no answer to compare."""
    own = {key.partition("/")[2]: value for key, value in outputs.items()
           if key.startswith(f"{i}/")}  # fmt: skip
    missing = set(cases.outputs) - set(own)
    if missing:
        return errors.get(str(i)) or ended or f"no output {sorted(missing)[0]}"
    found = compare(cases.expected[i], own, threshold=cases.threshold, top_k=cases.top_k)
    return found.faults[0] if found.faults else found


def _changed(found: Sequence[Compared | str], rows: Sequence[int]) -> int:
    """How many choices are wrong beyond rounding; where there is no answer, all of them."""
    return sum(
        len(one.beyond_rounding) if isinstance(one, Compared) else count
        for one, count in zip(found, rows, strict=True)
    )


def _fine(found: Compared | str) -> bool:
    return isinstance(found, Compared) and found.right


def _ratio(found: Sequence[Compared | str]) -> float:
    """The largest error over tolerance; NaN where there were no numbers."""
    return max_or_nan(one.ratio if isinstance(one, Compared) else math.nan for one in found)


def _strained(expected: Expected) -> NDArray[np.bool_]:
    """Rows whose classes lie so far apart that exp leaves float32's normal numbers."""
    return np.asarray(expected.far > UNDERFLOW)
