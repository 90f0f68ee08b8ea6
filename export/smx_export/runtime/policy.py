"""What becomes of rows that have no answer, and of inputs in other units than the training data."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from smx_export.errors import InputRangeWarning
from smx_export.runtime.input_range import FEWEST, InputRange

OnNan = Literal["raise", "missing", "ignore"]
OnRange = Literal["warn", "raise", "ignore"]
Rows = NDArray[np.bool_]  # (batch,)

MISSING = -1  # label of a row that has no answer, as smx_lightning.processes.predictions writes it
# What a single row costs is the calls, and ndarray.min makes more of them. Both propagate NaN.
_least, _largest = np.minimum.reduce, np.maximum.reduce
SAMPLE = 1 << 16  # entries: the units are those of all rows, and reading wide batches again is slow
CALLER = 5  # frames up: whoever called a method of OnnxClassifier


class Policy:
    """See :class:`smx_export.OnnxClassifier` for the options.

    Args:
        on_nan: What becomes of a batch with a row that has no answer.
        on_range: What becomes of inputs that are clearly not in the units of the training data.
        known: Their range, or ``None``.
        shows_nan: Whether NaN in a row always makes its probabilities NaN, as without a backbone:
            then the answers are looked at instead, which are fewer.
        caller: How many frames up a warning points.
    """

    def __init__(
        self,
        on_nan: OnNan,
        on_range: OnRange,
        known: InputRange | None,
        *,
        shows_nan: bool,
        caller: int = CALLER,
    ) -> None:
        self._caller = caller
        self._on_nan, self._on_range, self._shows_nan = on_nan, on_range, shows_nan
        self._range = None if on_range == "ignore" else known

    def missing_inputs(self, x: NDArray[Any], *, finite: bool) -> Rows | None:
        """The rows whose inputs allow no answer; ``None`` for none. The range is looked at, too.

        Args:
            x: Inputs (batch, …) as the file takes them.
            finite: Whether infinity allows none either: the answers will not show what it does.

        Raises:
            ValueError: Where an option says so.
        """
        sought = self._on_nan != "ignore" and (finite or not self._shows_nan)
        in_training = self._range  # another thread may have warned, and forget it, meanwhile
        if not x.size or not (sought or in_training):
            return None
        seen = x if sought or self._on_range == "raise" else _some(x)
        low, high, missing = float(_least(seen, None)), float(_largest(seen, None)), None
        if not -math.inf < low <= high < math.inf:  # as NaN is not
            known = seen[np.isfinite(seen)]
            low, high = (known.min(), known.max()) if known.size else (math.inf, -math.inf)
            bad = ~np.isfinite(x) if finite else np.isnan(x)
            if sought and bad.any():
                missing = bad.reshape(len(x), -1).any(1)
                self._refuse(missing, "NaN or infinity" if finite else "NaN")
        if in_training is not None and low <= high and not in_training.is_ordinary(low, high):
            self._complain(in_training.complaint(seen, low, high))
        return missing

    def missing_answers(self, probs: NDArray[Any], missing: Rows | None) -> Rows | None:
        """Also the rows whose probabilities are NaN; those of all missing rows become NaN.

        Raises:
            ValueError: Where an option says so.
        """
        sought = self._on_nan != "ignore" and len(probs)
        if sought and not _least(probs, None) >= 0:  # as NaN is not, the least of any with it
            found = np.isnan(probs).any(1)
            missing = found if missing is None else missing | found
            self._refuse(missing, "probabilities that are NaN, by NaN, infinity or overflow,")
        if missing is not None:
            probs[missing] = np.nan
        return missing

    def _complain(self, complaint: str | None) -> None:
        if complaint is None:
            return
        if self._on_range == "raise":
            raise ValueError(complaint)
        self._range = None  # once is enough
        warnings.warn(complaint, InputRangeWarning, stacklevel=self._caller)

    def _refuse(self, missing: Rows, what: str) -> None:
        if self._on_nan == "raise":
            raise ValueError(
                f"expected rows that have an answer, got {what} in row {int(missing.argmax())} "
                f"({int(missing.sum())} such rows); remove or impute them, or take "
                "on_nan='missing'"
            )


def _some(x: NDArray[Any]) -> NDArray[Any]:
    """Rows evenly spread over a large batch, about ``SAMPLE`` entries of them."""
    return x if x.size <= SAMPLE else x[:: min(-(-x.size // SAMPLE), max(1, len(x) // FEWEST))]


def check_options(on_nan: str, on_range: str) -> None:
    """Complain about options that there are not."""
    for name, given, choices in (("on_nan", on_nan, OnNan), ("on_range", on_range, OnRange)):
        if given not in get_args(choices):
            raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {given!r}")
