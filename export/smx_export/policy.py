"""What becomes of rows that have no answer, and of inputs in other units than the training data."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from smx_export.errors import InputRangeWarning
from smx_export.input_range import InputRange

OnNan = Literal["raise", "missing", "ignore"]
OnRange = Literal["warn", "raise", "ignore"]
Rows = NDArray[np.bool_]  # (batch,)

MISSING = -1  # label of a row that has no answer
# What a single row costs is the calls, and ndarray.min makes more of them. Both propagate NaN.
_least, _largest = np.minimum.reduce, np.maximum.reduce
CALLER = 5  # frames up: whoever called a method of OnnxClassifier


class Policy:
    """See :class:`smx_export.OnnxClassifier` for the options.

    Args:
        on_nan: What becomes of a batch with a row that has no answer.
        on_range: What becomes of inputs that are clearly not in the units of the training data.
        known: Their range, or ``None``.
    """

    def __init__(self, on_nan: OnNan, on_range: OnRange, known: InputRange | None) -> None:
        self._on_nan, self._on_range = on_nan, on_range
        self._range = None if on_range == "ignore" else known

    def missing_inputs(self, x: NDArray[Any], *, finite: bool) -> Rows | None:
        """The rows whose inputs allow no answer; ``None`` for none. The range is looked at, too.

        Args:
            x: Inputs (batch, …) as the file takes them.
            finite: Whether infinity allows none either: the answers will not show what it does.

        Raises:
            ValueError: Where an option says so.
        """
        if not x.size:
            return None
        low, high, missing = float(_least(x, None)), float(_largest(x, None)), None
        if not -math.inf < low <= high < math.inf:  # as NaN is not
            known = x[np.isfinite(x)]
            low, high = (known.min(), known.max()) if known.size else (math.inf, -math.inf)
            bad = ~np.isfinite(x) if finite else np.isnan(x)
            if self._on_nan != "ignore" and bad.any():
                missing = bad.reshape(len(x), -1).any(1)
                self._refuse(missing, "NaN or infinity" if finite else "NaN")
        if self._range is not None and low <= high:
            complaint = self._range.complaint(x, low, high)
            if complaint is not None:
                self._complain(complaint)
        return missing

    def missing_answers(self, probs: NDArray[Any], missing: Rows | None) -> Rows | None:
        """Also the rows whose probabilities are NaN; those of all missing rows become NaN.

        Raises:
            ValueError: Where an option says so.
        """
        asked = self._on_nan != "ignore" and len(probs)
        if asked and not _least(probs, None) >= 0:  # as NaN is not, the least of any with it
            found = np.isnan(probs).any(1)
            missing = found if missing is None else missing | found
            self._refuse(missing, "probabilities that are NaN, by infinity or overflow,")
        if missing is not None:
            probs[missing] = np.nan
        return missing

    def _complain(self, complaint: str) -> None:
        if self._on_range == "raise":
            raise ValueError(complaint)
        self._range = None  # once is enough
        warnings.warn(complaint, InputRangeWarning, stacklevel=CALLER)

    def _refuse(self, missing: Rows, what: str) -> None:
        if self._on_nan == "raise":
            raise ValueError(
                f"expected rows that have an answer, got {what} in row {int(missing.argmax())} "
                f"({int(missing.sum())} such rows); remove or impute them, or take "
                "on_nan='missing'"
            )


def check_options(on_nan: str, on_range: str) -> None:
    """Complain about options that there are not."""
    for name, given, choices in (("on_nan", on_nan, OnNan), ("on_range", on_range, OnRange)):
        if given not in get_args(choices):
            raise ValueError(f"{name} must be one of {', '.join(get_args(choices))}, got {given!r}")
