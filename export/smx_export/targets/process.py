"""Asking a target in a process of its own: one that crashes, hangs or prints takes nobody along."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Answer(NamedTuple):
    """What a target said, as far as it came.

    Attributes:
        report: What :mod:`smx_export.targets.__main__` writes: version, errors, microseconds.
        outputs: By ``BATCH/NAME``.
        ended: How it ended, if badly.
    """

    report: dict[str, Any]
    outputs: dict[str, NDArray[Any]]
    ended: str


def ask(
    name: str,
    path: Path,
    batches: Sequence[NDArray[Any]],
    patience: float,
    memory: int | None = None,
    batch: int | None = None,
) -> Answer:
    """Run a file on a target, batch after batch, within limits.

    Args:
        name: The target.
        path: The file.
        batches: What it is asked.
        patience: Seconds after which it is ended.
        memory: Bytes that it may take, on Linux; any by default.
        batch: The number of rows that the file takes, where it takes no other.
    """
    with tempfile.TemporaryDirectory(prefix="smx-target-", ignore_cleanup_errors=True) as folder:
        inputs: dict[str, Any] = {str(i): x for i, x in enumerate(batches)}
        np.savez(Path(folder) / "inputs.npz", **inputs)
        limits = [str(patience), str(batch or 0), *([] if memory is None else [str(memory)])]
        ended = _run([name, os.path.realpath(path), folder, *limits], folder, patience)
        answer, outputs = Path(folder) / "answer.json", Path(folder) / "outputs.npz"
        arrays: dict[str, NDArray[Any]] = {}
        if outputs.is_file():
            with np.load(outputs) as archive:
                arrays = dict(archive)
        report = json.loads(answer.read_text("utf-8")) if answer.is_file() else {}
        return Answer(report, arrays, ended)


def _run(arguments: Sequence[str], folder: str, patience: float) -> str:
    """Run one target to its end, with everything that it starts; how it ended, if badly."""
    command = [*python("smx_export.targets.__main__"), *arguments]
    said = Path(folder) / "stderr"  # no pipe: a child of a crashed runtime would keep it open
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": search_path(), "TMPDIR": folder},
            start_new_session=True,
        )
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        return f"took more than {patience:g} s"
    finally:
        end_group(process)
    if process.returncode < 0:
        return crashed(process.returncode)
    if process.returncode:
        lines = said.read_text("utf-8", "replace").strip().splitlines()
        return lines[-1][:200] if lines else f"ended with code {process.returncode}"
    return ""


def python(module: str) -> list[str]:
    """The beginning of a command that runs a module of ours.

    Python's own ``-m`` looks into the current folder first, where a stranger's model may have come
    with a ``json.py`` beside it.
    """
    run = f"import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    return [sys.executable, "-c", f"import sys; sys.path = [*filter(None, sys.path)]; {run}"]


def search_path() -> str:
    """Where another Python finds what this one does."""
    return os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])


def crashed(code: int | None) -> str:
    """By which signal a process has ended; empty where by none."""
    return f"crashed with {signal.Signals(-code).name}" if code is not None and code < 0 else ""


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it has started: a crashed runtime cannot tidy up after itself."""
    with suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:  # Windows knows no such groups
            process.kill()
    process.wait()
