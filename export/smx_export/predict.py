"""Rows in a file → what an ONNX file answers, as a CSV file. No torch; more rows than memory."""

from __future__ import annotations

import math
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from smx_export.errors import FileError
from smx_export.policy import MISSING, OnNan, OnRange
from smx_export.runtime import Answer, OnnxClassifier
from smx_export.selftest import selftest
from smx_export.taken import lost_digits, other_axes
from smx_lightning.predictions import predictions_csv
from smx_lightning.unreadable import UNREADABLE, reason

ARRAYS = ("x", "x_val", "x_test")  # of an .npz file, in this order
ARCHIVE = b"PK"
BLOCK_NUMBERS = 1 << 20  # inputs or probabilities at a time: some 50 MB in all
PIECE = 1 << 22  # bytes at a time
PATIENCE = 2.0  # seconds between two lines about the progress

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Stored:
    """One array in a file.

    Attributes:
        name: Of the array, ``"x"`` of an .npy file.
        shape: (rows, …).
        dtype: As it is stored.
        fortran: Whether columns lie together, so that it is read as a whole.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return math.prod(self.shape[1:])

    def blocks(self, file: IO[bytes], most: int) -> Iterator[NDArray[Any]]:
        """The rows, ``most`` at a time, from a file that stands behind the header."""
        rows, size = self.shape[0], self.width * self.dtype.itemsize
        step = max(1, rows if self.fortran else most)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            data = _read(file, count * size)
            if len(data) < count * size:
                raise EOFError(f"{self.name} ends after {start} of {rows} rows")
            block = np.frombuffer(data, self.dtype)
            if self.fortran:
                yield block.reshape(self.shape, order="F")
            else:
                yield block.reshape(count, *self.shape[1:])


def _read(file: IO[bytes], size: int) -> bytearray:
    """That many bytes, or all there are: no memory is taken for what a header only promises."""
    data = bytearray()
    while len(data) < size and (part := file.read(min(PIECE, size - len(data)))):
        data += part
    return data


def predict(
    model: str | Path,
    rows: str | Path,
    output: str | Path,
    *,
    on_nan: OnNan = "raise",
    on_range: OnRange = "warn",
    progress: Progress = lambda done, total: None,
) -> int:
    """Write what a file answers to rows, in their order, as :func:`predictions_csv` does.

    Args:
        model: The ONNX file. Its self-test is run first.
        rows: An .npy file of rows (n, …), or an .npz file with x, and x_val and x_test where
            present, which follow it. Labels are not read. Numbers are rounded to float32, as in
            training; a file that takes pixels wants bytes.
        output: The CSV file, which is written whole or not at all.
        on_nan: As :class:`smx_export.OnnxClassifier` takes it.
        on_range: Likewise.
        progress: Called now and then with the rows that are done, and all rows.

    Returns:
        The number of rows.

    Raises:
        FileError: Where the ONNX file is not as it was exported, or the rows do not fit it.
        ValueError: Where an option or the lack of an output of the file says so.
        InputError: Where the CSV file cannot be written.
    """
    _check_intact(model)
    classifier = OnnxClassifier(
        model, on_nan="missing" if on_nan == "raise" else on_nan, on_range=on_range
    )
    classifier.predict_proba(np.empty((0, classifier.num_features), classifier.dtype))
    arrays = stored_arrays(rows)
    for array in arrays:
        _check_fits(array, classifier, rows)
    total, done, told = sum(array.shape[0] for array in arrays), 0, time.monotonic()
    most = max(1, BLOCK_NUMBERS // max(classifier.num_features, len(classifier.class_names)))
    with predictions_csv(output, classifier.class_names) as write:
        for array, first, block in _blocks(rows, arrays, most):
            label, probs = _answer(classifier, block)
            if on_nan == "raise":
                _check_answered(label, first, f"{array.name} in {rows}")
            write(label.tolist(), probs.tolist())
            done += len(label)
            if time.monotonic() - told > PATIENCE:
                told = time.monotonic()
                progress(done, total)
    return total


def _check_intact(model: str | Path) -> None:
    found = selftest(model)
    if not found.passed:
        failed = next(check for check in found.checks if not check.passed)
        raise FileError(
            f"expected a file as it was exported at {model}, got one that fails its self-test "
            f"({failed.name}: {failed.detail}); export it again"
        )


def _check_fits(array: Stored, classifier: OnnxClassifier, path: str | Path) -> None:
    """Complain about what cannot be rows of this model, before any row is read."""
    if array.dtype.kind not in "fiub":
        raise FileError(
            f"expected real numbers in {array.name} in {path}, got dtype {array.dtype}; encode "
            "them as the training data were"
        )
    if len(array.shape) < 2 or array.width != classifier.num_features or min(array.shape) < 0:
        raise FileError(
            f"expected rows of {classifier.num_features} numbers in {array.name} in {path}, got "
            f"shape {array.shape}; give the features that the model was trained on"
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


def _answer(classifier: OnnxClassifier, block: NDArray[Any]) -> Answer:
    if classifier.dtype.kind == "f":
        with np.errstate(over="ignore"):  # to infinity, which has no answer
            block = block.astype(classifier.dtype, copy=False)
    try:
        return classifier.answer(block)
    except TypeError as error:
        raise FileError(str(error)) from error


def stored_arrays(path: str | Path) -> list[Stored]:
    """The arrays of rows in an .npy or .npz file, read as far as their headers.

    Raises:
        FileError: Where there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise FileError(f"expected rows at {path}, found no file; check the path")
    with _readable(path):
        if not _is_archive(path):
            with Path(path).open("rb") as file:
                return [_header(file, "x")]
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
            names = [name for name in ARRAYS if f"{name}.npy" in found]
            if "x" in names:
                return [_member_header(archive, name) for name in names]
    raise FileError(
        f"expected an array x in {path}, got {', '.join(found) or 'an empty archive'}; save the "
        "rows with numpy.savez(path, x=…)"
    )


def _member_header(archive: zipfile.ZipFile, name: str) -> Stored:
    with archive.open(f"{name}.npy") as member:
        return _header(member, name)


def _header(file: IO[bytes], name: str) -> Stored:
    """Read the header of an .npy file; the file then stands behind it."""
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0}.get(
        version, np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(file)
    return Stored(name, shape, dtype, fortran)


def _blocks(
    path: str | Path, arrays: list[Stored], most: int
) -> Iterator[tuple[Stored, int, NDArray[Any]]]:
    """All rows in order: their array, the number of the first of them in it, and some of them."""
    for array in arrays:
        with _readable(path), _opened(path, array.name) as file:
            _header(file, array.name)
            first = 0
            for block in array.blocks(file, most):
                yield array, first, block
                first += len(block)


@contextmanager
def _opened(path: str | Path, name: str) -> Iterator[IO[bytes]]:
    if not _is_archive(path):
        with Path(path).open("rb") as file:
            yield file
        return
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as member:
        yield member


def _is_archive(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        return file.read(len(ARCHIVE)) == ARCHIVE


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    """Turn what numpy and zipfile say of a damaged file into one sentence."""
    try:
        yield
    except UNREADABLE as error:
        raise FileError(
            "expected an .npy or .npz file of rows, got one that does not read "
            f"({reason(error)}) at {path}; save it again with numpy.save or numpy.savez"
        ) from error
