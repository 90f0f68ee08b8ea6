"""Rows in more digits than a file takes: do its answers stay within its tolerance all the same?

A number lies between the nearest float32 and the next one on its side, at most half of the way. So
the file is asked about both: where no answer moves by more than twice the tolerance of the file's
own test vectors, rounding moves it by no more than that tolerance.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.vectors import Vectors
from smx_export.contract import LABEL, LOG_PROBS, SELFTEST
from smx_export.errors import FileError, InputRoundingWarning
from smx_export.runtime.policy import CALLER

Asked = Callable[[str, NDArray[Any]], NDArray[Any]]
SAMPLE = 1 << 16  # entries that are looked at: rows spread over a large batch


def narrowed(given: NDArray[Any], wanted: np.dtype[Any]) -> NDArray[Any] | None:
    """Real numbers in float32; ``None`` where the file takes no float32, or it cannot hold one."""
    if wanted != np.float32 or given.dtype.kind not in "fiu":
        return None
    with np.errstate(over="ignore"):
        rows = given.astype(wanted)
    return None if (np.isinf(rows) & ~np.isinf(given)).any() else rows


def is_exact(rows: NDArray[Any], given: NDArray[Any]) -> bool:
    """Whether rounding changed nothing; NaN, and what a mask hides, are nothing."""
    same = (rows == given) | (np.isnan(rows) & np.isnan(given))
    return bool(np.ma.filled(same, True).all())


class Rounding:
    """The judge of rounded rows, who says once that there were some.

    Args:
        output: What the file is judged by: its log-probabilities, or what else it has.
        metadata: The file's.
        sparse: Whether log-probabilities may be -∞, so that probabilities are compared.
    """

    def __init__(self, output: str, metadata: Mapping[str, str], *, sparse: bool) -> None:
        self._output, self._sparse = output, sparse
        self._selftest = metadata.get(SELFTEST)
        self._silent = False

    @cached_property
    def _tolerance(self) -> float:
        """How far answers to ordinary rows may be off, by the file's own test; 0 without one."""
        try:
            vectors, _ = Vectors.from_json(self._selftest or "")
        except FileError:
            return 0.0
        ordinary = [row for row, (_, factor) in enumerate(vectors.inputs) if factor == 1]
        return float(vectors.tolerance[ordinary].max(initial=0))

    def check(self, asked: Asked, rows: NDArray[Any], given: NDArray[Any]) -> None:
        """Let pass rows whose rounding moves no answer by more than the file's own tolerance.

        Args:
            asked: Of an output and rows as the file takes them, the answers.
            rows: (n, …), rounded.
            given: The same before.

        Raises:
            TypeError: Where one is moved by more.
        """
        by, most = self._moved(asked, rows, given), self._tolerance
        if self._output == LABEL or not by <= most:
            raise TypeError(
                f"expected {rows.dtype} inputs, or what rounds to it within the file's tolerance "
                f"of {most:.2g}, got {given.dtype} whose rounding moves answers by {by:.2g}; "
                f"convert them with x.astype(numpy.{rows.dtype})"
            )
        if not self._silent:
            self._silent = True  # once is enough
            warnings.warn(
                f"{given.dtype} inputs are rounded to {rows.dtype}, which moves answers by up to "
                f"{by:.2g}, within the file's tolerance of {most:.2g}; x.astype(numpy.{rows.dtype})"
                " does the same without a word",
                InputRoundingWarning,
                stacklevel=CALLER,
            )

    def _moved(self, asked: Asked, rows: NDArray[Any], given: NDArray[Any]) -> float:
        """How far rounding moves an answer, at most."""
        step = max(1, -(-rows.size // SAMPLE))
        rows, given = (np.ma.filled(side[::step], 0) for side in (rows, given))
        beyond = np.where(given > rows, np.inf, -np.inf).astype(rows.dtype)
        beside = np.where(given == rows, rows, np.nextafter(rows, beyond))
        near, far = (asked(self._output, side).astype(np.float64) for side in (rows, beside))
        with np.errstate(invalid="ignore", over="ignore"):
            if self._sparse and self._output == LOG_PROBS:
                near, far = np.exp(near), np.exp(far)
            apart = np.abs(near - far)
        return float(apart[np.isfinite(apart)].max(initial=0)) / 2
