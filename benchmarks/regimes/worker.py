"""The processes in which the fits of a problem are made, and their handle in the one that asks.

A fit in compiled code can't be interrupted; so the worker is ended with it, and another begun.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import statistics
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import torch

from benchmarks.problems import Problem
from benchmarks.regimes.cases import Regime
from benchmarks.regimes.solvers import SOLVERS, Fitted

ENOUGH_SECONDS = 0.5  # of fits of the same kind: a short one is repeated until then …
MOST_REPEATS = 50  # … or so many times: the first few of a process that has slept are slow
LEAST_REPEATS = 3  # of longer ones: a shared machine's seconds vary by a fifth …
LONG_SECONDS = 9.0  # … but no more than this in all …
OF_THE_LIMIT = 0.9  # … nor than this share of the time after which the process is ended
TO_BEGIN = 600.0  # seconds: importing, and reading or making the rows
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Shape(NamedTuple):
    """What the asking process needs to know of a problem; and the solvers that it is not for."""

    rows: int
    features: int
    classes: int
    left_out: dict[str, str]


class Outcome(NamedTuple):
    """What became of a fit; see :class:`benchmarks.regimes.records.Record`."""

    seconds: float | None
    repeats: int
    objective: float | None
    note: str


class Worker:
    """A process that fits one problem's rows with any of some solvers.

    Args:
        regime: The problem.
        solvers: That will be asked for; what they import is loaded before anything is timed.
        threads: That each fit may use.
    """

    def __init__(self, regime: Regime, solvers: Sequence[str], threads: int) -> None:
        self._serving = (regime, solvers, threads)
        self.shape = self._begin()

    def fit(self, solver: str, tol: float, limit: float) -> Outcome:
        """One solver at one tolerance; the process is another one after ``limit`` seconds."""
        self._asking.send((solver, tol, limit))
        try:
            if self._asking.poll(limit):
                seconds, repeats = self._asking.recv()
                return Outcome(seconds, repeats, *self._asking.recv())
            failure = f"did not end within {limit:g} s"
        except EOFError:
            failure = "its process died"
        self.end()
        self._begin()
        return Outcome(None, 0, None, failure)

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()
        self._asking.close()

    def _begin(self) -> Shape:
        # The number of threads is read when a library is loaded: the process must inherit it.
        regime, _, threads = self._serving
        os.environ.update(dict.fromkeys(THREADS, str(threads)))
        spawn = multiprocessing.get_context("spawn")
        self._asking, answering = spawn.Pipe()
        self._process = spawn.Process(target=serve, args=(answering, *self._serving), daemon=True)
        self._process.start()
        answering.close()
        if not self._asking.poll(TO_BEGIN):
            self.end()
            raise TimeoutError(f"{regime.name}: no rows after {TO_BEGIN:g} s")
        return Shape(*self._asking.recv())


class Workers:
    """A process for each solver: what one loads must not slow another.

    torch's products take three times as long, and round otherwise, once cyanure 1.2.2 is loaded.
    """

    def __init__(self, regime: Regime, solvers: Sequence[str], threads: int) -> None:
        self._of = {name: Worker(regime, [name], threads) for name in solvers}
        shapes = [worker.shape for worker in self._of.values()]
        left_out = {name: why for shape in shapes for name, why in shape.left_out.items()}
        self.shape = shapes[0]._replace(left_out=left_out)

    def fit(self, solver: str, tol: float, limit: float) -> Outcome:
        """One solver at one tolerance."""
        return self._of[solver].fit(solver, tol, limit)

    def end(self) -> None:
        """End the processes."""
        for worker in self._of.values():
            worker.end()


def serve(answering: Connection, regime: Regime, solvers: Sequence[str], threads: int) -> None:
    """Make the rows once, then fit what is asked for, for ever; the body of the process.

    The answer to a question is two messages: seconds and repeats, then objective and note.
    """
    os.dup2(2, 1)  # what compiled code prints is no part of the tables
    torch.set_num_threads(threads)
    warnings.simplefilter("ignore")  # that loose fits do not converge
    logging.disable(logging.WARNING)
    data = regime.read()
    for name in solvers:
        with suppress(Exception):  # it fails again where it is recorded
            SOLVERS[name].fit(_small(data), 1e-1)
    left_out = {name: SOLVERS[name].left_out(data) for name in solvers}
    rows, features = data.x.shape
    answering.send(Shape(rows, features, data.num_classes, left_out))
    while True:
        solver, tol, limit = answering.recv()
        try:
            seconds, repeats, fitted = timed(data, solver, tol, limit)
        except Exception as error:  # a solver that fails is a row of the table, not its end
            words = f"{type(error).__name__}: {error}".splitlines()[0]
            answering.send((None, 0))
            answering.send((None, f"failed: {words}"))
            continue
        answering.send((seconds, repeats))
        objective = data.objective(fitted.weight, fitted.bias)
        answering.send((objective if math.isfinite(objective) else None, fitted.note))


def timed(data: Problem, solver: str, tol: float, limit: float) -> tuple[float, int, Fitted]:
    """Whole fits, each from the start, repeated while there is time: median, number, the last."""
    most = min(LONG_SECONDS, OF_THE_LIMIT * limit)
    seconds: list[float] = []
    while not seconds or _again(len(seconds), sum(seconds), most):
        began = time.perf_counter()
        fitted = SOLVERS[solver].fit(data, tol)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), len(seconds), fitted


def _again(made: int, seconds: float, most: float) -> bool:
    if seconds * (1 + 1 / made) >= most:
        return False
    return made < LEAST_REPEATS or (made < MOST_REPEATS and seconds < ENOUGH_SECONDS)


def _small(data: Problem) -> Problem:
    """A few rows and features in the same precision, of three classes."""
    rows = np.ascontiguousarray(data.x[:60, :16])
    return Problem("small", rows, np.arange(len(rows), dtype=np.int64) % 3)
