"""Inference from the ONNX file with onnxruntime and numpy alone: torch is never imported."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smx_export.artifact.activation import alpha_of, probabilities
from smx_export.artifact.content import read_bytes
from smx_export.artifact.rows import parts_of
from smx_export.contract import ACTIVATION, INPUT, LABEL, LINEAR, LOG_PROBS, PROBS, SCORES
from smx_export.errors import FileError
from smx_export.runtime.input_checks import lost_digits, other_axes, unmasked
from smx_export.runtime.input_range import InputRange, declared_range, declared_shape, remedy
from smx_export.runtime.inputs import MixedInputs
from smx_export.runtime.policy import MISSING, OnNan, OnRange, Policy, Rows, check_options
from smx_export.runtime.session import declared_classes, open_file, open_session

DTYPES = {"tensor(uint8)": np.uint8, "tensor(double)": np.float64}  # of inputs that are not float32

Given = ArrayLike | Mapping[str, ArrayLike]  # of several inputs an array each, by name


class Answer(NamedTuple):
    """label (batch,) int64, -1 for missing, and probs (batch, classes)."""

    label: NDArray[np.int64]
    probs: NDArray[np.float32]


class OnnxClassifier:
    """A classifier read from an exported file.

    A row that holds NaN, or whose probabilities are NaN (infinity and numbers that overflow make
    them so), has no answer. Of a file that offers nothing but ``label`` overflow cannot be told.

    Args:
        path: The ONNX file.
        providers: onnxruntime's execution providers; the CPU by default.
        on_nan: What becomes of a batch with a row that has no answer. ``raise``: a ValueError.
            ``missing``: that row's label is -1, its name ``None``, its probabilities NaN.
            ``ignore``: what the file answers, for models that impute by themselves.
        on_range: What becomes of inputs that are clearly not in the units of the training data, as
            far as the file's ``input_range`` tells: ``warn`` once (of a large batch some rows are
            looked at), ``raise`` a ValueError, ``ignore``. Integers out of it are a ValueError
            unless it is ``ignore``: an embedding has no row for them.

    Attributes:
        class_names: One name a class.
        num_features: Entries of one input after unrolling.
        dtype: Of the inputs, float32 or uint8; or integers.
        input_shape: Shape of one input as the file wants it.
        trained_shape: That of the training data, which a file that takes flat rows tells, too.
        input_range: Smallest and largest entry of the training data, or ``None``.
            Of several inputs dtype, shapes and range are dicts by name, and rows are given as such.
        threshold: γ of a binary problem, or ``None``.

    Raises:
        FileError: Where the file is missing, damaged, or was not exported by smx_export.
        ValueError: For an unknown option.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        on_nan: OnNan = "raise",
        on_range: OnRange = "warn",
    ) -> None:
        check_options(on_nan, on_range)
        path = Path(path)
        # Kept for pickling: by its path a worker might find another file, or none.
        self._content, self._providers = read_bytes(path), tuple(providers)
        self.session = self._opened(path)
        outputs = [node.name for node in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.class_names, self.threshold = declared_classes(self.session, metadata, path)
        given = self.session.get_inputs()[0]
        self.input_shape: tuple[int, ...] = tuple(given.shape[1:])
        self.num_features = math.prod(self.input_shape)
        shape = declared_shape(metadata)  # of the linear model, whose file takes flat rows
        self.trained_shape = shape if math.prod(shape) == self.num_features else self.input_shape
        self._outputs = outputs
        offered = [name for name in (PROBS, LOG_PROBS, SCORES) if name in outputs]
        self._all = offered[:1] + [name for name in (LABEL,) if name in outputs]
        self.dtype = np.dtype(DTYPES.get(given.type, np.float32))
        self.input_range = declared_range(metadata)
        self._alpha = _alpha(metadata, path)
        self._mixed = MixedInputs.of(self.session, metadata, on_nan, on_range)
        if self._mixed is not None:
            self._know(self._mixed)
        pixels = self.dtype == np.uint8
        linear = self.session.get_modelmeta().graph_name == LINEAR
        in_training = InputRange.of(metadata, pixels=pixels)
        self._policy = Policy(on_nan, on_range, in_training, shows_nan=linear or pixels)

    def _know(self, mixed: MixedInputs) -> None:
        """What is told of several inputs, or of integers."""
        self.input_shape = self.trained_shape = mixed.told("shape")
        self.dtype, self.input_range = mixed.told("dtype"), mixed.told("bounds")
        self.num_features = sum(math.prod(given.shape) for given in mixed.inputs)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the session, which is opened anew from the file's content."""
        return {name: value for name, value in vars(self).items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.session = open_session(self._content, self._providers)

    def _opened(self, path: Path) -> Any:
        return open_file(self._content, path, self._providers)

    def predict(self, x: Given) -> NDArray[np.int64]:
        """The class index of each row, (batch,); at the threshold γ where the file holds one.

        Raises: As :meth:`predict_proba`, but for a file that tells labels alone.
        """
        return self._labels(*self._run(self._all, x))

    def predict_names(self, x: Given) -> list[str | None]:
        """The class name of each row; ``None`` of one that has no answer."""
        return [None if k == MISSING else self.class_names[k] for k in self.predict(x)]

    def predict_proba(self, x: Given) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of inputs (batch, …) with ``num_features`` entries a row.

        Raises:
            TypeError: For a dtype that the file's own (float32, float64, or uint8) cannot hold
                without loss, and for float32 where the file takes float64.
            ValueError: For another number of features, other axes, or no batch dimension; for a row
                that has no answer, and for inputs of other units, where ``on_nan`` and ``on_range``
                say so; and where the file holds nothing that tells probabilities.
        """
        return self._run(self._probs(), x)[0][0]

    def answer(self, x: Given) -> Answer:
        """:meth:`predict` and :meth:`predict_proba` of one run, which raises as they do."""
        self._probs()
        answers, missing = self._run(self._all, x)
        return Answer(self._labels(answers, missing), answers[0])

    def _probs(self) -> list[str]:
        """The one output that probabilities are made of."""
        if self._all == [LABEL]:
            raise ValueError(
                f"expected a file that tells probabilities, got outputs {', '.join(self._outputs)};"
                " export it with probs"
            )
        return self._all[:1]

    def _labels(self, answers: list[NDArray[Any]], missing: Rows | None) -> NDArray[np.int64]:
        if LABEL in self._outputs:
            labels = answers[-1]
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
                raise ValueError(
                    f"expected labels in 0..{len(self.class_names) - 1}, got {labels.min()} to "
                    f"{labels.max()}; the file is not as it was exported: export it again"
                )
        elif self.threshold is not None:
            labels = answers[0][:, 1] >= self.threshold
        else:
            labels = answers[0].argmax(1)
        labels = np.asarray(labels, np.int64)
        if missing is not None:
            labels[missing] = MISSING
        return labels

    def _run(self, wanted: list[str], x: Given) -> tuple[list[NDArray[Any]], Rows | None]:
        """What the file answers, probabilities first, and which rows have no answer."""
        if self._mixed is None:
            rows = self._rows(x)
            missing = self._policy.missing_inputs(rows, finite=wanted == [LABEL])
            feed = {INPUT: rows}
        else:
            rows = self._mixed.rows(x)
            missing = self._mixed.missing(rows, finite=wanted == [LABEL])
            feed = parts_of(rows)
        answers: list[NDArray[Any]] = self.session.run(wanted, feed)
        self._check_answered(len(rows), wanted, answers)
        if wanted[0] == LABEL:
            return answers, missing
        answers[0] = _probabilities(wanted[0], answers[0], self._alpha)
        return answers, self._policy.missing_answers(answers[0], missing)

    def _check_answered(self, rows: int, wanted: list[str], answers: list[NDArray[Any]]) -> None:
        """Complain about answers that cannot be those to so many rows: a graph may say more."""
        for name, answer in zip(wanted, answers, strict=True):
            shape = (rows,) if name == LABEL else (rows, len(self.class_names))
            if answer.shape != shape:
                raise ValueError(
                    f"expected {name} of shape {shape}, got {answer.shape}; the file is not as it "
                    "was exported: export it again"
                )

    def _rows(self, x: Given) -> NDArray[Any]:
        array = x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
        if array.dtype != self.dtype and not np.can_cast(array.dtype, self.dtype, "safe"):
            raise TypeError(
                f"expected {self.dtype} inputs, or a dtype that fits into it, got {array.dtype}; "
                + remedy(array, self.dtype, self.input_range)
            )
        if lost := lost_digits(array.dtype, self.dtype):
            raise TypeError(lost)
        if array.ndim < 2 or math.prod(array.shape[1:]) != self.num_features:
            raise ValueError(
                f"expected inputs of shape (batch, {self.num_features}), got {array.shape}; "
                + (
                    "add a batch dimension with x[None]"
                    if array.ndim == 1
                    else "check the features"
                )
            )
        if wrong := other_axes(array.shape[1:], self.trained_shape):
            raise ValueError(wrong)
        array = array.astype(self.dtype, copy=False)
        return unmasked(array).reshape(-1, *self.input_shape)


def _alpha(metadata: Mapping[str, str], path: Path) -> float:
    """α of the activation that a file names; softmax's where it names none."""
    try:
        return alpha_of(json.loads(metadata.get(ACTIVATION, '"softmax"')))
    except (ValueError, RecursionError) as error:  # as FileError is one
        raise FileError(
            f"expected an activation in the metadata of {path} that there is, got "
            f"{metadata[ACTIVATION][:40]!r}; export it again"
        ) from error


def _probabilities(name: str, answer: NDArray[Any], alpha: float) -> NDArray[Any]:
    """Probabilities of what an output of that name answered."""
    if name == PROBS:
        return answer
    if name == LOG_PROBS:
        return np.asarray(np.exp(answer))
    return np.asarray(probabilities(answer, alpha), answer.dtype)
