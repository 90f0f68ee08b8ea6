"""Rows in a file → what an ONNX file answers, as a CSV file. No torch; more rows than memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import parse
from smx_export.errors import FileError
from smx_export.runtime.answers import Answer, Top
from smx_export.runtime.classifier import OnnxClassifier
from smx_export.runtime.input_checks import lost_digits, other_axes
from smx_export.runtime.policy import MISSING, OnNan, OnRange
from smx_export.runtime.row_files import (
    StoredArray,
    blocks_of,
    named_arrays,
    named_blocks,
    stored_arrays,
)
from smx_export.targets.apart import SessionApart, open_apart
from smx_export.targets.limited import LIMITS, Limits
from smx_export.targets.selftest import selftest
from smx_lightning.processes.files import predictions_csv

BLOCK_NUMBERS = 1 << 20  # inputs or probabilities at a time: some 50 MB in all
PATIENCE = 2.0  # seconds between two lines about the progress

Progress = Callable[[int, int], None]


def predict(
    model: str | Path,
    rows: str | Path,
    output: str | Path,
    *,
    on_nan: OnNan = "raise",
    on_range: OnRange = "warn",
    limits: Limits = LIMITS,
    progress: Progress = lambda done, total: None,
) -> int:
    """Write what a file answers to rows, in their order, as :func:`predictions_csv` does.

    Of a file that names the most probable classes these are written, with their probabilities.

    Args:
        model: The ONNX file. Its self-test is run first.
        rows: An .npy file of rows (n, …), or an .npz file with x, and x_val and x_test where
            present, which follow it; of several inputs an .npz file with an array each, by name.
            Labels are not read. Numbers are rounded to float32, as in
            training; a file that takes pixels wants bytes.
        output: The CSV file, which is written whole or not at all.
        on_nan: As :class:`smx_export.OnnxClassifier` takes it.
        on_range: Likewise.
        limits: Of the process in which the ONNX file is run.
        progress: Called now and then with the rows that are done, and all rows.

    Returns:
        The number of rows.

    Raises:
        FileError: Where the ONNX file is not as it was exported, or the rows do not fit it.
        ValueError: Where an option or the lack of an output of the file says so.
        InputError: Where the CSV file cannot be written.
    """
    _check_intact(model, limits)
    nan: OnNan = "missing" if on_nan == "raise" else on_nan
    with closing(_Apart(Path(model), limits, on_nan=nan, on_range=on_range)) as classifier:
        return _write(classifier, rows, output, on_nan, progress)


class _Apart(OnnxClassifier):
    """A classifier whose file is run in a process with limits."""

    def __init__(self, path: Path, limits: Limits, **options: Any) -> None:
        self._limits = limits
        with ExitStack() as stack:
            self._stack = stack
            super().__init__(path, **options)
            stack.pop_all()

    def _opened(self, path: Path) -> SessionApart:
        session = open_apart(path, parse(self._content, path), self._limits)
        self._stack.callback(session.close)  # should the file not be one of ours
        return session

    def close(self) -> None:
        """End the process."""
        self.session.close()


def _write(
    classifier: OnnxClassifier,
    rows: str | Path,
    output: str | Path,
    on_nan: OnNan,
    progress: Progress,
) -> int:
    """The CSV file; the number of its rows."""
    with _refusing(0):
        _asked(classifier)(_no_rows(classifier))
    most = max(1, BLOCK_NUMBERS // max(classifier.num_features, len(classifier.class_names)))
    total, blocks = _blocks(classifier, rows, most)
    done, reported = 0, time.monotonic()
    with predictions_csv(output, classifier.class_names, top_k=classifier.top_k) as write:
        for name, first, block in blocks:
            answer = _answer(classifier, block)
            if on_nan == "raise":
                _check_answered(answer.label, first, f"{name} in {rows}")
            write(*(column.tolist() for column in answer))
            done += len(answer.label)
            if time.monotonic() - reported > PATIENCE:
                reported = time.monotonic()
                progress(done, total)
    return total


def _no_rows(classifier: OnnxClassifier) -> Any:
    if classifier._mixed is not None:
        return classifier._mixed.no_rows()
    return np.empty((0, classifier.num_features), classifier.dtype)


def _blocks(
    classifier: OnnxClassifier, rows: str | Path, most: int
) -> tuple[int, Iterator[tuple[str, int, Any]]]:
    """How many rows there are, and all of them: their array, the number of the first, and some."""
    mixed = classifier._mixed
    if mixed is not None and mixed.several:
        named = named_arrays(rows, [given.name for given in mixed.inputs])
        return named[0].shape[0], (
            ("each input", first, block) for first, block in named_blocks(rows, named, most)
        )
    arrays = stored_arrays(rows)
    for array in arrays:
        _check_fits(array, classifier, rows)
    found = ((array.name, first, block) for array, first, block in blocks_of(rows, arrays, most))
    return sum(array.shape[0] for array in arrays), found


def _check_intact(model: str | Path, limits: Limits) -> None:
    found = selftest(model, limits=limits)
    if not found.passed:
        failed = next(check for check in found.checks if not check.passed)
        raise FileError(
            f"expected a file as it was exported at {model}, got one that fails its self-test "
            f"({failed.name}: {failed.detail}); export it again"
        )


def _check_fits(array: StoredArray, classifier: OnnxClassifier, path: str | Path) -> None:
    """Complain about what cannot be rows of this model, before any row is read."""
    if array.dtype.kind not in "fiub":
        raise FileError(
            f"expected real numbers in {array.name} in {path}, got dtype {array.dtype}; encode "
            "them as the training data were"
        )
    width = classifier.num_features
    if len(array.shape) < 2 or array.width != width or min(array.shape) < 0:
        one = array.shape in ((width,), classifier.trained_shape)
        remedy = "save a single row as x[None]" if one else "give the features of its training"
        raise FileError(
            f"expected rows of {width} numbers in {array.name} in {path}, got shape {array.shape}; "
            f"{remedy}"
        )
    wrong = lost_digits(array.dtype, classifier.dtype) or other_axes(
        array.shape[1:], classifier.trained_shape
    )
    if wrong:
        raise FileError(f"{array.name} in {path}: {wrong}")


def _check_answered(label: NDArray[np.int64], first: int, where: str) -> None:
    missing = label == MISSING
    if missing.any():
        raise FileError(
            f"expected rows that have an answer, got NaN, infinity or what overflows in row "
            f"{first + int(missing.argmax())} of {where}; remove or impute such rows, or take "
            "--nan missing"
        )


def _answer(classifier: OnnxClassifier, block: Any) -> Answer | Top:
    with np.errstate(over="ignore"):  # to infinity, which has no answer
        if isinstance(block, dict):
            dtypes: Any = classifier.dtype
            block = {name: _rounded(x, dtypes[name]) for name, x in block.items()}
        else:
            block = _rounded(block, classifier.dtype)
    rows = len(next(iter(block.values()))) if isinstance(block, dict) else len(block)
    with _refusing(rows):
        return _asked(classifier)(block)


def _asked(classifier: OnnxClassifier) -> Callable[[Any], Answer | Top]:
    """What a classifier is asked for: its file names the most probable classes, or tells all."""
    return classifier.answer if classifier.top_k is None else classifier.predict_top


def _rounded(x: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers in the file's dtype, as in training; integers as they are."""
    return x.astype(dtype, copy=False) if dtype.kind == "f" and x.dtype.kind in "fiub" else x


@contextmanager
def _refusing(rows: int) -> Iterator[None]:
    """One sentence of what a classifier, or the process in which its file is run, complains of."""
    try:
        yield
    except TypeError as error:
        raise FileError(str(error)) from error
    except RuntimeError as error:
        raise FileError(
            f"expected a file that answers {rows} rows, got: {error}; export it again, or "
            "allow it more with --max-seconds or --max-memory"
        ) from error
