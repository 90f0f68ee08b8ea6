"""One solver on one problem, in a process of its own: the process, and what its parent reads."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.problems import problem
from benchmarks.solvers.recorder import CapReached, Moment, Recorder, Skipped
from benchmarks.solvers.traced import SOLVERS

BY_ITSELF = "ended by itself"


def child(name: str, solver: str, cap: float, path: Path) -> None:
    """One solver on one problem; the trace goes to the path."""
    data = problem(name)
    recorder = Recorder(path, cap)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the short fits do not converge
            SOLVERS[solver].minimise(data, recorder)
        recorder.stop()
        recorder.end({"note": BY_ITSELF})
    except CapReached:
        recorder.stop()
        recorder.end({"note": "stopped at the cap"})
    except Skipped as reason:
        recorder.end({"skipped": str(reason)})
        return
    if recorder.point is not None:
        recorder.end({"checked": data.objective(*recorder.point)})


class Run(NamedTuple):
    """A solver's trace on a problem.

    Attributes:
        trace: Improvements, in the order of time.
        checked: The objective at the last point, in float64; ``None`` where the process was ended.
        note: How it ended, or why there is no trace.
    """

    trace: list[Moment]
    checked: float | None
    note: str

    @property
    def reached(self) -> float:
        """The lowest objective; float64 where there is one, which float32 noise cannot flatter."""
        if self.checked is not None:
            return self.checked
        return min((moment.objective for moment in self.trace), default=math.inf)

    def first_within(self, objective: float) -> Moment | None:
        """The first moment at or below an objective."""
        return next((moment for moment in self.trace if moment.objective <= objective), None)


def run(name: str, solver: str, cap: float, threads: int) -> Run:
    """One solver on one problem, in a process of its own."""
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.jsonl"
        command = [sys.executable, "-m", "benchmarks.solvers", "--child", str(path)]
        command += ["--problems", name, "--solvers", solver, "--cap", str(cap)]
        failure = ""
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **dict.fromkeys(variables, str(threads))},
                capture_output=True,
                text=True,
                timeout=3 * cap + 300,  # the child ends itself long before
            )
            if done.returncode != 0:
                last = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
                failure = f"failed: {last[0]}"
        except subprocess.TimeoutExpired:
            failure = "failed: it did not end by itself"
        lines = path.read_text().splitlines() if path.is_file() else []
    values = [json.loads(line) for line in lines]
    trace = sorted(Moment(*value) for value in values if isinstance(value, list))
    said: dict[str, Any] = {}
    for value in values:
        if isinstance(value, dict):
            said = {**value, **said}  # what is noted first is the most particular
    note = failure or said.get("skipped") or said.get("note") or "ended at the cap in mid-iteration"
    return Run(trace, said.get("checked"), note)


def measure(name: str, solvers: list[str], cap: float, threads: int) -> dict[str, Run]:
    """Every solver on one problem, one after the other."""
    runs = {}
    for solver in solvers:
        _progress(f"{name}: {solver} …")
        runs[solver] = one = run(name, solver, cap, threads)
        if not one.trace:
            _progress(f"{name}: {solver}: no trace: {one.note}")
            continue
        last = one.trace[-1]
        _progress(
            f"{name}: {solver}: {last.objective:.8f} after {last.seconds:.2f} s, "
            f"{last.passes} passes; {one.note}"
        )
        if one.checked is not None and one.checked > last.objective * (1 + 1e-6):
            _progress(f"{name}: {solver}: CLAIM NOT CONFIRMED, float64 says {one.checked:.8f}")
    return runs


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
