"""One target in a process of its own, for :mod:`benchmarks.targets`: no torch here.

``python -m benchmarks.on_target FOLDER``. The folder holds ``job.json`` and ``inputs.npz``;
``answer.json`` is written there as the work goes on, so that a crash says at which file.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.contract import LABEL, PROBS
from smx_export.targets import NotInstalled, Session, target

TOLERANCE = 1e-3  # of the row's largest probability
LOADS = 3  # of each file, besides the first in the process
LOADING = 30.0  # seconds after which one load of each will do
HEAD, TAIL = 130, 110  # characters of an error: runtimes say why at either end


def work(folder: Path) -> None:
    """In a target's own process: load every file, check its answers, time it."""
    job = json.loads((folder / "job.json").read_text())
    name, paths = job["target"], {file: Path(path) for file, path in job["files"].items()}
    with np.load(folder / "inputs.npz") as archive:
        right = dict(archive)
    files: dict[str, dict[str, Any]] = {file: {} for file in paths}
    answer: dict[str, Any] = {"files": files, "at": None}

    def at(file: str | None) -> None:
        answer["at"] = file
        (folder / "answer.json").write_text(json.dumps(answer))

    file, path = next(iter(paths.items()))
    at(file)
    with suppress(Exception):  # below it is said why
        start = time.perf_counter()
        target(name).load(path).close()
        answer["first_ms"] = 1e3 * (time.perf_counter() - start)
    try:
        answer["version"] = target(name).version()
    except NotInstalled as missing:
        answer["missing"] = str(missing)
        return at(None)

    sessions = load(name, paths, files, at)
    turns = {"one_us": right["x"][:1], "many_us": right["x"]}
    for file, session in list(sessions.items()):
        at(file)
        wrong = [fault(session, x, right[file][: len(x)]) for x in turns.values()]
        if any(wrong):
            files[file]["fault"] = next(filter(None, wrong))
            sessions.pop(file).close()
    for key, x in turns.items():
        times: dict[str, list[float]] = {file: [] for file in sessions}
        for _ in range(job["repeats"]):
            for file, session in sessions.items():
                at(file)
                runs = job["block"] / max(session.seconds(x, 1), 1e-6)
                times[file].append(session.seconds(x, max(1, min(int(runs), 500))))
        for file, seconds in times.items():
            files[file][key] = 1e6 * statistics.median(seconds) / len(x)
    for session in sessions.values():
        session.close()
    return at(None)


def load(
    name: str,
    paths: dict[str, Path],
    files: dict[str, dict[str, Any]],
    at: Callable[[str | None], None],
) -> dict[str, Session]:
    """The sessions of the files that the target takes, and the median of several loads of each."""
    sessions: dict[str, Session] = {}
    times: dict[str, list[float]] = {file: [] for file in paths}
    began = time.perf_counter()
    for turn in range(LOADS):
        if turn and time.perf_counter() - began > LOADING:
            break
        for file in [file for file in paths if "fault" not in files[file]]:
            at(file)
            if file in sessions:
                sessions.pop(file).close()
            start = time.perf_counter()
            try:
                sessions[file] = target(name).load(paths[file])
            except Exception as error:  # runtimes' exceptions share no base class
                files[file]["fault"] = f"refused: {words(error)}"
            else:
                times[file].append(1e3 * (time.perf_counter() - start))
                files[file]["ms"] = statistics.median(times[file])
    return sessions


def fault(session: Session, x: NDArray[np.float32], right: NDArray[np.float64]) -> str | None:
    """What is wrong with the answers to a batch, if anything."""
    n = f"{len(x)} row{'s' * (len(x) > 1)}"
    try:
        outputs = session.run(x)
    except Exception as error:  # as above
        return f"fails with {n}: {words(error)}"
    probs = next((outputs[key] for key in (PROBS, "probabilities") if key in outputs), None)
    probs = [*outputs.values()][-1] if probs is None else probs
    if probs.shape != right.shape:
        return f"wrong with {n}: shape {probs.shape} in place of {right.shape}"
    largest = right.max(1)
    off = float((np.abs(probs - right).max(1) / largest).max())
    if not off < TOLERANCE:
        return f"wrong with {n}: a probability off by {off:.2g} of the largest"
    labels = np.asarray(outputs.get(LABEL, probs.argmax(1)))
    if labels.size != len(x):
        return f"wrong with {n}: labels of shape {labels.shape}"
    chosen = right[np.arange(len(x)), labels.ravel().astype(int)]
    behind = int((chosen < (1 - TOLERANCE) * largest).sum())
    return f"wrong with {n}: label, of {behind}" if behind else None


def words(error: Exception) -> str:
    """Beginning and end of what an exception says, in one line."""
    said = " ".join(str(error).partition("Stack backtrace")[0].split()) or type(error).__name__
    return said if len(said) <= HEAD + TAIL else f"{said[:HEAD]} … {said[-TAIL:]}"


if __name__ == "__main__":
    work(Path(sys.argv[1]))
