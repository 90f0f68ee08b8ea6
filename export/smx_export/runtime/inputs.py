"""Rows of files that take several inputs, or integers: a dict of arrays, or an array."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smx_export.artifact.rows import joined, parts_of
from smx_export.contract import INPUT, INPUT_RANGE, INPUT_SHAPE, PROFILE
from smx_export.runtime.input_checks import other_axes, unmasked
from smx_export.runtime.input_range import InputRange
from smx_export.runtime.policy import CALLER, OnNan, OnRange, Policy, Rows
from smx_export.runtime.rounding import is_exact, narrowed

DTYPES = {  # as onnxruntime says them
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
}


class FileInput(NamedTuple):
    """One input of a file.

    Attributes:
        name: Its name.
        dtype: Of its entries.
        shape: Of one row; empty of one number a row.
        bounds: Smallest and largest entry that the file states, if any.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    bounds: tuple[float, float] | None

    def __str__(self) -> str:
        shape = " × ".join(map(str, self.shape))
        return f"{self.name} {self.dtype} {shape}".rstrip()

    def rows(self, x: ArrayLike, *, checked: bool) -> NDArray[Any]:
        """Rows (batch, *shape) in the file's dtype.

        Args:
            x: As they are given.
            checked: Whether integers must lie within the bounds: an embedding has no others.

        Raises:
            TypeError: For numbers that the file's dtype cannot hold without loss.
            ValueError: For another shape, and integers out of range.
        """
        array = x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
        if array.dtype != self.dtype and not _holds(self.dtype, array):
            raise TypeError(
                f"expected {self.name} of {self.dtype}, or numbers that fit into it, got "
                f"{array.dtype}; convert it with x.astype(numpy.{self.dtype})"
            )
        if array.ndim == 0 or math.prod(array.shape[1:]) != math.prod(self.shape):
            raise ValueError(
                f"expected {self.name} of shape {('batch', *self.shape)}, got {array.shape}; give "
                "as many entries a row, and add a batch dimension with x[None] to a single row"
            )
        if wrong := other_axes(array.shape[1:], self.shape):
            raise ValueError(wrong)
        array = unmasked(array)
        if checked and self.dtype.kind != "f" and self.bounds is not None and array.size:
            low, high = int(array.min()), int(array.max())
            if not self.bounds[0] <= low <= high <= self.bounds[1]:
                raise ValueError(
                    f"expected {self.name} from {self.bounds[0]:g} to {self.bounds[1]:g}, as the "
                    f"file states, got {low} to {high}; encode it as the training data were"
                )
        return array.astype(self.dtype, copy=False).reshape(-1, *self.shape)


class MixedInputs:
    """The inputs of a file that takes several of them, or integers.

    Args:
        inputs: In the file's order.
        several: Whether rows are given as a dict of arrays by name.
        on_nan: As of :class:`smx_export.OnnxClassifier`.
        on_range: Likewise; integers out of their range have no answer, whatever is warned of.
    """

    def __init__(
        self, inputs: list[FileInput], *, several: bool, on_nan: OnNan, on_range: OnRange
    ) -> None:
        self.inputs, self.several = inputs, several
        self._checked = on_range != "ignore"
        self._policies = {
            given.name: Policy(on_nan, on_range, _known(given), shows_nan=False, caller=CALLER + 1)
            for given in inputs
            if given.dtype.kind == "f"
        }

    @classmethod
    def of(
        cls, session: Any, metadata: Mapping[str, str], on_nan: OnNan, on_range: OnRange
    ) -> MixedInputs | None:
        """Those of a file; ``None`` where it takes one input of numbers or pixels."""
        shapes, bounds = (_of_json(metadata, key) for key in (INPUT_SHAPE, INPUT_RANGE))
        several = isinstance(shapes, dict)
        inputs = []
        for node in session.get_inputs():
            told = bounds.get(node.name) if isinstance(bounds, dict) else bounds
            dtype = np.dtype(DTYPES.get(node.type, "float32"))
            inputs.append(FileInput(node.name, dtype, tuple(node.shape[1:]), _pair(told)))
        numbers = inputs[0].dtype.kind == "f" or (inputs[0].dtype == np.uint8 and _image(metadata))
        if not several and numbers:
            return None
        return cls(inputs, several=several, on_nan=on_nan, on_range=on_range)

    def told(self, what: str) -> Any:
        """Shapes, dtypes or bounds: of one input its own, of several a dict by name."""
        found = {given.name: getattr(given, what) for given in self.inputs}
        return found if self.several else found[INPUT]

    def rows(self, x: Any) -> NDArray[Any]:
        """Rows as :mod:`smx_export.artifact.rows` has them.

        Raises:
            TypeError: For no dict of arrays, and as of :meth:`FileInput.rows`.
            ValueError: Likewise, and for other names and unequal numbers of rows.
        """
        if not self.several:
            return self.inputs[0].rows(only(x), checked=self._checked)
        names = [given.name for given in self.inputs]
        if not isinstance(x, Mapping):
            raise TypeError(
                f"expected a dict of the inputs {', '.join(names)}, got {type(x).__name__}; give "
                "an array for each, by name"
            )
        if x.keys() != {*names}:
            raise ValueError(
                f"expected the inputs {', '.join(names)}, got {', '.join(map(str, x)) or 'none'}; "
                "give an array for each of them, and none besides"
            )
        parts = {given.name: given.rows(x[given.name], checked=self._checked)
                 for given in self.inputs}  # fmt: skip
        if len({len(part) for part in parts.values()}) > 1:
            counts = ", ".join(f"{len(part)} of {name}" for name, part in parts.items())
            raise ValueError(f"expected as many rows of each input, got {counts}; cut them alike")
        return joined(parts)

    def no_rows(self) -> NDArray[Any] | dict[str, NDArray[Any]]:
        """An empty batch, as it is given."""
        parts = {given.name: np.empty((0, *given.shape), given.dtype) for given in self.inputs}
        return parts if self.several else parts[INPUT]

    def missing(self, rows: NDArray[Any], *, finite: bool) -> Rows | None:
        """As :meth:`smx_export.runtime.policy.Policy.missing_inputs`, of all inputs."""
        missing: Rows | None = None
        parts = parts_of(rows)
        for name, policy in self._policies.items():
            found = policy.missing_inputs(parts[name], finite=finite)
            if found is not None:
                missing = found if missing is None else missing | found
        return missing


def only(x: Any) -> Any:
    """The array of a file's one input, which may be given by its name, as onnxruntime has it.

    Raises:
        TypeError: For a dict of anything else.
    """
    if not isinstance(x, dict):
        return x
    if x.keys() != {INPUT}:
        raise TypeError(
            f"expected an array, as the file has one input, got a dict of "
            f"{', '.join(map(str, x)) or 'nothing'}; give the array alone"
        )
    return x[INPUT]


def _holds(dtype: np.dtype[Any], given: NDArray[Any]) -> bool:
    """Whether a dtype holds all of some numbers exactly; no integers are made of real numbers."""
    if np.can_cast(given.dtype, dtype, "safe"):
        return True
    if dtype.kind == "f":
        rows = narrowed(given, dtype)
        return rows is not None and is_exact(rows, given)
    if given.dtype.kind not in "iu":
        return False
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    return not given.size or bool(least <= given.min() and given.max() <= most)


def _image(metadata: Mapping[str, str]) -> bool:
    """Whether bytes are pixels: a model may take bytes itself, and its file says so."""
    profile = _of_json(metadata, PROFILE)
    return not isinstance(profile, dict) or profile.get("image") is not False


def _known(given: FileInput) -> InputRange | None:
    if given.bounds is None:
        return None
    return InputRange(*given.bounds, pictures=len(given.shape) > 1)


def _pair(value: Any) -> tuple[float, float] | None:
    try:
        low, high = (float(bound) for bound in value)
    except (ValueError, TypeError, OverflowError):
        return None
    return (low, high) if -math.inf < low < high < math.inf else None


def _of_json(metadata: Mapping[str, str], key: str) -> Any:
    try:
        return json.loads(metadata.get(key, "null"))
    except (ValueError, RecursionError):
        return None
