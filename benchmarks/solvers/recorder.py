"""A solver's trace, written while it runs and within the time that it is given."""

from __future__ import annotations

import json
import math
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Point = tuple[NDArray[np.floating], NDArray[np.floating]]  # W (classes, features), b (classes,)


class CapReached(Exception):  # noqa: N818 (nothing went wrong)
    """Leaves a solver that would go on after its time is over."""


class Skipped(Exception):  # noqa: N818 (likewise)
    """Says why a solver does not run on a problem."""


class Moment(NamedTuple):
    """What a solver had reached by when."""

    seconds: float
    passes: int
    objective: float


class Recorder:
    """Writes a solver's progress to a file as it is made, so that a killed solver leaves it.

    Only improvements are written: nothing else can change a table or a plot.

    Args:
        path: The file, one JSON value a line.
        cap: Seconds of a fit after which :meth:`count` and :meth:`record` raise.
    """

    def __init__(self, path: Path, cap: float) -> None:
        self.cap = cap
        self.passes = 0
        self.best = math.inf
        self.point: Point | None = None
        self._file = path.open("w")
        self._began = 0.0
        self._watchdog: threading.Timer | None = None

    def start(self) -> None:
        """Start the clock of a fit.

        One call into a solver's compiled code may outlast the cap, out of any exception's reach;
        a second thread then ends the process.
        """
        self._watchdog = threading.Timer(self.cap + 1, os._exit, (0,))
        self._watchdog.daemon = True
        self._watchdog.start()
        self._began = time.perf_counter()

    def stop(self) -> float:
        """Stop the clock; its seconds."""
        seconds = self.seconds
        if self._watchdog is not None:
            self._watchdog.cancel()
        return seconds

    @property
    def seconds(self) -> float:
        """Since :meth:`start`."""
        return time.perf_counter() - self._began

    def count(self) -> None:
        """One more pass over the data, which evaluated no objective."""
        self.passes += 1
        if self.seconds > self.cap:
            raise CapReached

    def record(self, moment: Moment, point: Callable[[], Point] | None = None) -> None:
        """Write a moment if it is the best so far, and keep its point."""
        if moment.objective < self.best and moment.seconds <= self.cap:
            self.best = moment.objective
            self._write(list(moment))
            if point is not None:
                self.point = point()

    def evaluated(self, objective: float, point: Callable[[], Point]) -> None:
        """One more pass, which evaluated this objective at this point."""
        self.passes += 1
        self.record(Moment(self.seconds, self.passes, objective), point)
        if self.seconds > self.cap:
            raise CapReached

    def end(self, result: dict[str, Any]) -> None:
        """What is known only at the end: ``checked``, ``skipped``, ``note``."""
        self._write(result)

    def _write(self, value: Any) -> None:
        self._file.write(json.dumps(value) + "\n")
        self._file.flush()
