"""One target in a process of its own: NAME FILE FOLDER SECONDS BATCH [BYTES] are its arguments.

BATCH is the number of rows that the file takes, 0 where it takes any.

A runtime that crashes, hangs or prints takes nobody along. The folder holds ``inputs.npz``, batches
named 0, 1, …; ``outputs.npz`` and ``answer.json`` are written there as the work goes on, so that
what was reached before a crash is known.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from smx_export.artifact.check import first_line
from smx_export.errors import FileError
from smx_export.targets import NotInstalled, Session, target
from smx_export.targets.base import InBlocks
from smx_export.targets.limited import limit_memory, limit_time, numbers

SHARE = 16  # of the memory that it may take, an answer is at most one in so many
MOST = 1 << 30  # bytes of an answer, where there is no limit to share
TIMED = {1: 200, 1024: 20}  # runs a batch size


def main(
    name: str, file: str, folder: str, seconds: str, batch: str, memory: str | None = None
) -> None:
    """Load, run every batch in turn, and time what the first is made of."""
    limit_time(float(seconds))
    if memory is not None:
        limit_memory(int(memory))
    answer: dict[str, Any] = {"errors": {}, "micros": {}}
    runtime = target(name)
    try:
        answer["version"] = runtime.version()
    except NotInstalled as missing:
        answer["missing"] = str(missing)
        return _tell(folder, answer)
    _tell(folder, answer)
    try:
        runtime.check_takes(_batches(folder)["0"])
    except FileError as other:
        answer["missing"] = str(other)
        return _tell(folder, answer)
    try:
        session = InBlocks(runtime.load(Path(file)), int(batch) or None)
    except Exception as error:  # runtimes' exceptions share no base class
        answer["refused"] = first_line(error)
        return _tell(folder, answer)
    answer["loads"] = True
    _tell(folder, answer)
    try:
        _run(session, Path(folder), answer, MOST if memory is None else int(memory) // SHARE)
    finally:
        session.close()
    return None


def _run(session: Session, folder: Path, answer: dict[str, Any], most: int) -> None:
    """Ask about every batch; answers of more than ``most`` bytes are not handed on."""
    batches = _batches(folder)
    outputs: dict[str, Any] = {}
    for key, x in batches.items():
        try:
            answers = numbers(session.run(x))  # of anything else numpy would make a pickle
            if (size := sum(output.nbytes for output in answers.values())) > most:
                raise ValueError(f"its answer of {size:,} bytes is larger than {most:,}")
            outputs.update({f"{key}/{name}": output for name, output in answers.items()})
        except Exception as error:  # as above
            answer["errors"][key] = first_line(error)
        np.savez(folder / "draft.npz", **outputs)
        (folder / "draft.npz").replace(folder / "outputs.npz")  # whole, whenever this is ended
        _tell(str(folder), answer)
    if len(answer["errors"]) == len(batches):  # there is nothing to time
        return
    first = batches["0"][:1]
    for rows, runs in TIMED.items():
        try:
            answer["micros"][rows] = 1e6 * session.seconds(np.repeat(first, rows, axis=0), runs)
        except Exception as error:  # as above
            answer["errors"][f"{rows} rows, timed"] = first_line(error)
    _tell(str(folder), answer)


def _batches(folder: str | Path) -> dict[str, Any]:
    with np.load(Path(folder, "inputs.npz")) as archive:
        return dict(archive)


def _tell(folder: str, answer: dict[str, Any]) -> None:
    draft = Path(folder, "draft.json")
    draft.write_text(json.dumps(answer), encoding="utf-8")
    draft.replace(Path(folder, "answer.json"))


if __name__ == "__main__":
    main(*sys.argv[1:])
