"""Inference from the ONNX file with onnxruntime and numpy alone: torch is never imported."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import ArrayLike, NDArray

from smx_export.contract import (
    ALL_OUTPUTS,
    CLASS_NAMES,
    INPUT,
    LABEL,
    LOG_PROBS,
    PROBS,
    SCORES,
    THRESHOLD,
)
from smx_export.errors import FileError

CONFINES_DATA = (1, 24)  # older onnxruntimes read external data from anywhere on the disk
DTYPES = {"tensor(uint8)": np.uint8, "tensor(double)": np.float64}  # of inputs that are not float32
_VERSION = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


class OnnxClassifier:
    """A classifier read from an exported file.

    Args:
        path: The ONNX file.
        providers: onnxruntime's execution providers; the CPU by default.

    Attributes:
        class_names: One name a class.
        num_features: Entries of one input after unrolling.
        input_shape: Shape of one input as the file wants it.
        threshold: γ of a binary problem, or ``None``.

    Raises:
        FileError: Where the file is missing, damaged, or was not exported by smx_export.
    """

    def __init__(
        self, path: str | Path, *, providers: Sequence[str] = ("CPUExecutionProvider",)
    ) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileError(f"expected an ONNX file at {path}, found none; check the path")
        if _VERSION < CONFINES_DATA:
            from smx_export.files import read_onnx  # needs onnx: only old runtimes do

            read_onnx(path)
        try:
            self.session = open_session(path, providers)
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            reason = str(error).splitlines()[0]
            raise FileError(
                f"expected an ONNX model at {path}, got a file that onnxruntime refuses "
                f"({reason}); export it again"
            ) from error
        inputs = [node.name for node in self.session.get_inputs()]
        outputs = [node.name for node in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        try:
            names = json.loads(metadata.get(CLASS_NAMES, "null"))
            threshold = json.loads(metadata.get(THRESHOLD, "null"))
        except json.JSONDecodeError:
            names = threshold = None
        known = bool(outputs) and set(outputs) <= set(ALL_OUTPUTS)
        if inputs != [INPUT] or not known or not isinstance(names, list):
            raise FileError(
                f"expected a file exported by smx_export, with input {INPUT!r} and outputs out of "
                f"{', '.join(ALL_OUTPUTS)}, got inputs {inputs} and outputs {outputs} in {path}; "
                "export the model with smx-export convert"
            )
        self.class_names: list[str] = names
        self.threshold: float | None = threshold
        given = self.session.get_inputs()[0]
        self.input_shape: tuple[int, ...] = tuple(given.shape[1:])
        self.num_features = math.prod(self.input_shape)
        self._outputs = outputs
        self._dtype = np.dtype(DTYPES.get(given.type, np.float32))

    def predict(self, x: ArrayLike) -> NDArray[np.int64]:
        """The class index of each row, (batch,); at the threshold γ where the file holds one."""
        if LABEL in self._outputs:
            return np.asarray(self._run(LABEL, x), np.int64)
        probs = self.predict_proba(x)
        if self.threshold is not None:
            return np.asarray(probs[:, 1] >= self.threshold, np.int64)
        return np.asarray(probs.argmax(1), np.int64)

    def predict_names(self, x: ArrayLike) -> list[str]:
        """The class name of each row."""
        return [self.class_names[k] for k in self.predict(x)]

    def predict_proba(self, x: ArrayLike) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of inputs (batch, …) with ``num_features`` entries a row.

        Raises:
            TypeError: For a dtype that the file's own (float32, float64, or uint8) cannot hold
                without loss.
            ValueError: For another number of features, or no batch dimension; and where the file
                holds nothing that tells probabilities.
        """
        if PROBS in self._outputs:
            return np.asarray(self._run(PROBS, x))
        if LOG_PROBS in self._outputs:
            return np.asarray(np.exp(self._run(LOG_PROBS, x)))
        if SCORES not in self._outputs:
            raise ValueError(
                f"expected a file that tells probabilities, got outputs {', '.join(self._outputs)};"
                " export it with probs"
            )
        scores = self._run(SCORES, x)
        exps = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(exps / exps.sum(1, keepdims=True))

    def _run(self, output: str, x: ArrayLike) -> NDArray[Any]:
        array = np.asarray(x)
        if not np.can_cast(array.dtype, self._dtype, "safe"):
            raise TypeError(
                f"expected {self._dtype} inputs, or a dtype that fits into it, got {array.dtype}; "
                f"convert them with x.astype(numpy.{self._dtype})"
            )
        if array.ndim < 2 or math.prod(array.shape[1:]) != self.num_features:
            raise ValueError(
                f"expected inputs of shape (batch, {self.num_features}), got {array.shape}; "
                + (
                    "add a batch dimension with x[None]"
                    if array.ndim == 1
                    else "check the features"
                )
            )
        rows = array.astype(self._dtype, copy=False).reshape(-1, *self.input_shape)
        answer: NDArray[Any] = self.session.run([output], {INPUT: rows})[0]
        return answer


def open_session(
    model: Path | bytes, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """An onnxruntime session of a file or its content; it raises and does not log as well."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model, options, providers=list(providers))
