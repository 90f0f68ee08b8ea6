"""Rows of .npy and .npz files, a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from smx_export.errors import FileError
from smx_export.predict.source import Block, Source
from smx_export.runtime.classifier import OnnxClassifier
from smx_export.runtime.input_checks import lost_digits, other_axes
from smx_export.runtime.row_files import (
    StoredArray,
    blocks_of,
    named_arrays,
    named_blocks,
    stored_arrays,
)


def source_of_arrays(classifier: OnnxClassifier, rows: str | Path, most: int) -> Source:
    """All rows of a file of arrays, at most so many at a time.

    Raises:
        FileError: Where there is no such file, or it does not fit the model.
    """
    mixed = classifier._mixed
    if mixed is not None and mixed.several:
        named = named_arrays(rows, [given.name for given in mixed.inputs])
        blocks: Iterator[Block] = (
            Block(f"each input in {rows}", first, block)
            for first, block in named_blocks(rows, named, most)
        )
        return Source(named[0].shape[0], None, blocks)
    arrays = stored_arrays(rows)
    for array in arrays:
        _check_fits(array, classifier, rows)
    blocks = (
        Block(f"{array.name} in {rows}", first, block)
        for array, first, block in blocks_of(rows, arrays, most)
    )
    return Source(sum(array.shape[0] for array in arrays), None, blocks)


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
