"""What every target offers: is it installed, which version, load a file, run it."""

from __future__ import annotations

import importlib
import statistics
import time
from abc import ABC, abstractmethod
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from smx_export.errors import FileError, NotInstalled
from smx_export.runtime.blocks import in_blocks

NUMBERS = ("float32", "float64", "uint8")  # of one input: what every runtime is fed

__all__ = ["InBlocks", "NotInstalled", "Outputs", "Session", "Target"]

Outputs = dict[str, NDArray[Any]]


class Session(ABC):
    """A loaded file."""

    @abstractmethod
    def run(self, x: NDArray[np.generic]) -> Outputs:
        """All of the file's outputs by name, of a batch (n, …); see :mod:`.artifact.rows`."""

    def seconds(self, x: NDArray[np.generic], runs: int) -> float:
        """Median seconds of one run of ``x``, as a user of this runtime sees it."""
        times = []
        for _ in range(runs):
            start = time.perf_counter()
            self.run(x)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def close(self) -> None:  # noqa: B027 (most have nothing to end)
        """End what the session started."""


class InBlocks(Session):
    """A session of a file of one batch, which is asked about any number of rows.

    Args:
        session: Of the file.
        batch: The number of rows that the file takes; ``None`` where it takes any.
    """

    def __init__(self, session: Session, batch: int | None) -> None:
        self._session, self._batch = session, batch

    def run(self, x: NDArray[np.generic]) -> Outputs:
        """See :class:`Session`."""
        if self._batch is None:
            return self._session.run(x)
        names: list[str] = []

        def answers(block: NDArray[Any]) -> list[NDArray[Any]]:
            outputs = self._session.run(block)
            names[:] = outputs
            return [*map(np.asarray, outputs.values())]

        answered = in_blocks(answers, x, self._batch)
        return dict(zip(names, answered, strict=True))

    def seconds(self, x: NDArray[np.generic], runs: int) -> float:
        """See :class:`Session`: those of one block, as often as there are blocks."""
        if self._batch is None:
            return self._session.seconds(x, runs)
        block = np.resize(x, (self._batch, *x.shape[1:]))
        return -(-len(x) // self._batch) * self._session.seconds(block, runs)

    def close(self) -> None:
        """See :class:`Session`."""
        self._session.close()


class Target(ABC):
    """A runtime that may be on this machine.

    Attributes:
        name: What the command line calls it.
        install: The command that installs it.
        float64: Whether it takes float64 inputs and subtracts in float64.
        mixed: Whether it is fed several inputs here, and integers that are no pixels.
    """

    name: ClassVar[str]
    install: ClassVar[str]
    float64: ClassVar[bool] = True
    mixed: ClassVar[bool] = False

    @abstractmethod
    def version(self) -> str:
        """The runtime's version; what converts files for it is named too.

        Raises:
            NotInstalled: Where it is missing.
        """

    @abstractmethod
    def load(self, path: Path) -> Session:
        """Load a file; raises whatever the runtime raises where it cannot."""

    def check_takes(self, x: NDArray[np.generic]) -> None:
        """Raise :class:`FileError` where it does not take such inputs."""
        if x.dtype == np.float64 and not self.float64:
            raise FileError(
                f"expected a runtime that takes float64 inputs, as the file does, got {self.name}, "
                "which computes in float32 alone; ask onnxruntime"
            )

        if not self.mixed and (x.dtype.names or x.dtype.name not in NUMBERS):
            what = "several inputs" if x.dtype.names else f"{x.dtype} inputs"
            raise FileError(
                f"expected a runtime that is fed {what}, as the file takes, got {self.name}, which "
                f"gets one input of {', '.join(NUMBERS)} here; ask onnxruntime, onnxruntime-oldest "
                "or onnx-reference"
            )

    def imported(self, module: str) -> Any:
        """A module that the runtime consists of; raises :class:`NotInstalled`."""
        try:
            return importlib.import_module(module)
        except ImportError as error:
            raise self.missing(module, error) from error

    def packages(self, first: str, *others: str) -> str:
        """Versions of installed packages; raises :class:`NotInstalled`."""
        try:
            return ", ".join([version(first), *(f"{name} {version(name)}" for name in others)])
        except PackageNotFoundError as error:
            raise self.missing(str(error.name)) from error

    def missing(self, what: str, reason: object = "none") -> NotInstalled:
        """The exception that says what is missing, and how to get it."""
        return NotInstalled(f"expected {what} for {self.name}, got: {reason}; {self.install}")
