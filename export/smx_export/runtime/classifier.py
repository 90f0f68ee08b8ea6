"""Inference from the ONNX file with onnxruntime and numpy alone: torch is never imported."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from smx_export.artifact.activation import SOFTMAX
from smx_export.artifact.check import as_html
from smx_export.artifact.comparison import shape_of
from smx_export.artifact.content import read_bytes
from smx_export.artifact.rows import parts_of
from smx_export.contract import (
    FEATURE_NAMES,
    INPUT,
    LABEL,
    LINEAR,
    LOG_PROBS,
    PROBS,
    SCORES,
    TOP_CLASSES,
    TOP_PROBS,
)
from smx_export.errors import TableWarning
from smx_export.runtime.answers import (
    Answer,
    Outputs,
    Top,
    alpha_in,
    first_of,
    probabilities_of,
    top_k_of,
)
from smx_export.runtime.estimator import Estimator
from smx_export.runtime.input_checks import lost_digits, other_axes, unmasked
from smx_export.runtime.input_range import InputRange, declared_range, declared_shape, remedy
from smx_export.runtime.inputs import MixedInputs, only
from smx_export.runtime.policy import CALLER, MISSING, OnNan, OnRange, Policy, Rows, check_options
from smx_export.runtime.rounding import Rounding, is_exact, narrowed
from smx_export.runtime.session import declared_classes, open_file, open_session

if TYPE_CHECKING:
    from smx_export.runtime.frames import Frames

SHOWN_NAMES = 12
DTYPES = {"tensor(uint8)": np.uint8, "tensor(double)": np.float64}  # of inputs that are not float32

Given = ArrayLike | Mapping[str, ArrayLike]  # of several inputs an array each, by name


class OnnxClassifier(Estimator):
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
        top_k: How many of the most probable classes the file names, or ``None``.
        batch: The number of rows that the file takes, ``None`` for any; other numbers are given in
            blocks of it, the last one filled up.

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
        self._params = {"path": path, "providers": providers}  # the very objects: see clone
        self._params |= {"on_nan": on_nan, "on_range": on_range}
        # Kept for pickling: by its path a worker might find another file, or none.
        self._content, self._providers = read_bytes(path), tuple(providers)
        path = Path(path)
        self.session = self._opened(path)
        outputs = [node.name for node in self.session.get_outputs()]
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.class_names, self.threshold = declared_classes(self.session, metadata, path)
        given = self.session.get_inputs()[0]
        self.input_shape: tuple[int, ...] = tuple(given.shape[1:])
        self.batch: int | None = given.shape[0] if isinstance(given.shape[0], int) else None
        self.num_features = math.prod(self.input_shape)
        shape = declared_shape(metadata)  # of the linear model, whose file takes flat rows
        self.trained_shape = shape if math.prod(shape) == self.num_features else self.input_shape
        self._outputs = outputs
        self.top_k = top_k_of(self.session)
        self._told = [name for name in (PROBS, LOG_PROBS, SCORES) if name in outputs][:1]
        self._label = [name for name in (LABEL,) if name in outputs]
        top = [] if self.top_k is None else [TOP_PROBS, TOP_CLASSES]
        self._all = [*(self._told or top), *self._label]
        self.dtype = np.dtype(DTYPES.get(given.type, np.float32))
        self.input_range = declared_range(metadata)
        self._alpha = alpha_in(metadata, path)
        self._mixed = MixedInputs.of(self.session, metadata, on_nan, on_range)
        self._frames: Frames | None = None
        if self._mixed is not None:
            self._know(self._mixed)
        elif FEATURE_NAMES in metadata:
            from smx_export.runtime.frames import Frames  # arrays alone need none of it

            self._frames = Frames.of(metadata, self.num_features, path, on_nan)
        pixels = self.dtype == np.uint8
        linear = self.session.get_modelmeta().graph_name == LINEAR
        in_training = InputRange.of(metadata, pixels=pixels)
        judged = LOG_PROBS if LOG_PROBS in outputs else self._all[0]
        self._rounding = Rounding(judged, metadata, sparse=self._alpha > SOFTMAX)
        self._policy = Policy(on_nan, on_range, in_training, shows_nan=linear or pixels)

    def _know(self, mixed: MixedInputs) -> None:
        """What is told of several inputs, or of integers."""
        self.input_shape = self.trained_shape = mixed.told("shape")
        self.dtype, self.input_range = mixed.told("dtype"), mixed.told("bounds")
        self.num_features = sum(math.prod(given.shape) for given in mixed.inputs)

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.input_shape))
        taken = f"{self.dtype} {shape}"
        if self._mixed is not None:
            taken = ", ".join(map(str, self._mixed.inputs))
        fixed = [] if self.batch is None else [f"batches of {self.batch}"]
        parts = [f"{taken} → {len(self.class_names)} classes", *fixed]
        return f"{type(self).__name__}({', '.join([*parts, *self._outputs])})"

    def _repr_html_(self) -> str:
        names = self.class_names
        more = f", … ({len(names)} in all)" if len(names) > SHOWN_NAMES else ""
        return as_html(repr(self), f"classes: {', '.join(names[:SHOWN_NAMES])}{more}")

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

    def predict_top(self, x: Given, k: int | None = None) -> Top:
        """The k most probable classes of each row and their probabilities.

        Args:
            x: Inputs (batch, …).
            k: How many; by default as many as the file names. A file that tells all probabilities
                answers any number of classes.

        Raises: As :meth:`predict_proba`, and a ValueError for a number that there is not.
        """
        count = self.top_k if k is None else k
        if count is None or not 1 <= count <= len(self.class_names):
            raise ValueError(
                f"expected k out of 1..{len(self.class_names)}, got {count}; give k, or export the "
                "file with top_k"
            )
        if self.top_k is not None and count <= self.top_k:
            answers, missing = self._run([TOP_PROBS, TOP_CLASSES, *self._label], x)
            classes = answers[TOP_CLASSES].astype(np.int64)[:, :count]
            probs = answers[TOP_PROBS][:, :count]
        else:
            self._probs()
            answers, missing = self._run(self._all, x)
            classes = np.argsort(-answers[PROBS], axis=1, kind="stable")[:, :count]
            probs = np.take_along_axis(answers[PROBS], classes, 1)
        if missing is not None:
            classes[missing] = MISSING
        return Top(self._labels(answers, missing), classes, probs)

    def predict_names(self, x: Given) -> list[str | None]:
        """The class name of each row; ``None`` of one that has no answer."""
        return [None if k == MISSING else self.class_names[k] for k in self.predict(x)]

    def predict_proba(self, x: Given) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of inputs (batch, …) with ``num_features`` entries a row.

        float64 and integers are rounded for a file that takes float32: silently where it holds
        them exactly; with one :class:`smx_export.InputRoundingWarning` where no answer moves
        by more than the file's own tolerance.

        Raises:
            TypeError: For a dtype that the file's own (float32, float64, or uint8) cannot hold, nor
                within that tolerance, and for float32 where the file takes float64.
            ValueError: For another number of features, other axes, or no batch dimension; for a row
                that has no answer, and for inputs of other units, where ``on_nan`` and ``on_range``
                say so; and where the file holds nothing that tells probabilities.
        """
        return self._run(self._probs(), x)[0][PROBS]

    def answer(self, x: Given) -> Answer:
        """:meth:`predict` and :meth:`predict_proba` of one run, which raises as they do."""
        self._probs()
        answers, missing = self._run(self._all, x)
        return Answer(self._labels(answers, missing), answers[PROBS])

    def _probs(self) -> list[str]:
        """The one output that probabilities are made of."""
        if not self._told:
            raise ValueError(
                f"expected a file that tells probabilities, got outputs {', '.join(self._outputs)};"
                " export it with probs"
            )
        return self._told

    def _labels(self, answers: Outputs, missing: Rows | None) -> NDArray[np.int64]:
        if LABEL in answers:
            labels = answers[LABEL]
            if len(labels) and not 0 <= labels.min() <= labels.max() < len(self.class_names):
                raise ValueError(
                    f"expected labels in 0..{len(self.class_names) - 1}, got {labels.min()} to "
                    f"{labels.max()}; the file is not as it was exported: export it again"
                )
        elif PROBS not in answers:
            labels = first_of(answers, self.threshold)
        elif self.threshold is not None:
            labels = answers[PROBS][:, 1] >= self.threshold
        else:
            labels = answers[PROBS].argmax(1)
        labels = np.asarray(labels, np.int64)
        if missing is not None:
            labels[missing] = MISSING
        return labels

    def _run(self, wanted: list[str], x: Given) -> tuple[Outputs, Rows | None]:
        """What the file answers, probabilities among it, and which rows have no answer."""
        if self._mixed is None:
            if self._frames is not None and self._frames.takes(x):
                x = self._features(self._frames, x)
            rows = self._rows(only(x))
            missing = self._policy.missing_inputs(rows, finite=wanted == [LABEL])
            feed = {INPUT: rows}
        else:
            rows = self._mixed.rows(x)
            missing = self._mixed.missing(rows, finite=wanted == [LABEL])
            feed = parts_of(rows)
        answers = dict(zip(wanted, self.session.run(wanted, feed), strict=True))
        self._check_answered(len(rows), answers)
        first = wanted[0]
        if first == LABEL:
            return answers, missing
        if first != TOP_PROBS:
            answers[PROBS] = probabilities_of(first, answers[first], self._alpha)
            first = PROBS
        return answers, self._policy.missing_answers(answers[first], missing)

    def _features(self, frames: Frames, x: Any) -> NDArray[Any]:
        """Rows of features of a data frame, rounded as in training."""
        rows = frames.rows_of(x)
        if news := frames.news():
            warnings.warn("; ".join(news), TableWarning, stacklevel=CALLER - 1)
        with np.errstate(over="ignore"):  # to infinity, which has no answer
            return rows.astype(self.dtype) if self.dtype.kind == "f" else rows

    def _check_answered(self, rows: int, answers: Outputs) -> None:
        """Complain about answers that cannot be those to so many rows: a graph may say more."""
        for name, answer in answers.items():
            shape = shape_of(name, (rows, len(self.class_names)), self.top_k)
            if answer.shape != shape:
                raise ValueError(
                    f"expected {name} of shape {shape}, got {answer.shape}; the file is not as it "
                    "was exported: export it again"
                )

    def _rows(self, x: Given) -> NDArray[Any]:
        array = x if isinstance(x, np.ma.MaskedArray) else np.asarray(x)
        fits = array.dtype == self.dtype or np.can_cast(array.dtype, self.dtype, "safe")
        narrow = None if fits else narrowed(array, self.dtype)
        if not fits and narrow is None:
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
        if narrow is None:
            narrow = array.astype(self.dtype, copy=False)
        elif not is_exact(narrow, array):
            self._rounding.check(self._asked, narrow, array)
        return unmasked(narrow).reshape(-1, *self.input_shape)

    def _asked(self, name: str, rows: NDArray[Any]) -> NDArray[Any]:
        answered: NDArray[Any] = self.session.run(
            [name], {INPUT: rows.reshape(-1, *self.input_shape)}
        )[0]
        return answered
