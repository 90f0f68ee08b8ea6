"""Any data set as one ``.npz`` file: ``x``, ``y``, and optionally splits and features' names."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.base import InMemoryDataModule, Loaded
from smx_lightning.data.checks import check_inputs
from smx_lightning.data.labels import classes_of, labels
from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError
from smx_lightning.errors.inputs import FLOAT, dtype_name
from smx_lightning.errors.sizes import check_members
from smx_lightning.errors.unreadable import UNREADABLE, reason
from smx_lightning.preprocessing.digits import wide_columns
from smx_lightning.processes.files import at_home

NPY_MAGIC = b"\x93NUMPY"
NAMES = "feature_names"
SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}
WEIGHTS = {x: x.replace("x", "weight") for x, _ in SPLITS.values()}


class NpzDataModule(InMemoryDataModule):
    """An ``.npz`` file with ``x`` (n, …) and ``y`` (n,) of integers or strings.

    Or with ``y`` (n, classes) of floating-point numbers, distributions over the classes. Rows count
    by ``weight`` (n,), ``weight_val`` and ``weight_test``, where the file holds them. Where it also
    holds ``x_val``, ``y_val`` or ``x_test``, ``y_test``, those splits are used as
    given; a missing one is split off, stratified and seeded. Labels become classes in sorted order,
    integers as well, whatever they are, and name them. Prediction takes ``x``, then ``x_val`` and
    ``x_test``, and needs no labels. ``feature_names``, one an entry of an input, name the features
    where the file holds them. Pickled objects are refused.

    Args:
        path: The file.
        class_names: One name a class, for integer labels: of 0..K-1, or of the K values there are,
            in sorted order; the labels themselves by default.
        batch_size: Rows a batch.
        val_fraction: Share of the training rows to validate on, where the file gives no such split.
        test_fraction: Share of all rows to test on, where the file gives no such split; 0 for a
            final fit, which nothing tests.
        seed: Of the splits.
        input_dtype: Of the inputs; as integers, for a model of token ids, they stay what they are.
        no_label: The value of ``y`` in rows without a label, -1 or an empty string, say; such rows
            are in no split. Where ``class_names`` are given and labels are indices, -1 is that.
    """

    def __init__(
        self,
        path: str | Path,
        class_names: list[str | int | bool] | None = None,
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 0,
        input_dtype: str = FLOAT,
        no_label: int | str | None = None,
    ) -> None:
        super().__init__(batch_size, val_fraction, test_fraction, seed)
        self.no_label = no_label
        self.input_dtype = dtype_name(input_dtype)
        self.path = at_home(path)
        self.given_names = None if class_names is None else [*class_names]  # an array, too

    def load(self) -> Loaded:
        """Read and check the file."""
        arrays = read_npz(self.path)
        classes = classes_of(arrays["y"], self.given_names or None, no_label=self.no_label)
        xs = self._inputs(arrays)
        rows = {
            split: Rows(xs[x], labels(arrays[y], classes, y), weights(arrays, WEIGHTS[x]))
            for split, (x, y) in SPLITS.items()
            if x in xs
        }
        return Loaded(class_names=classes.names, **rows)

    @cached_property
    def feature_names(self) -> list[str] | None:
        """Those of the file."""
        names, entries = read_names(self.path), self.num_features
        if names is not None and len(names) != entries:
            raise InputError(
                f"expected {NAMES} in {self.path} to be {entries}, one an entry of an input, got "
                f"{len(names)}; name each, or leave them out"
            )
        return names

    def called(self, split: str) -> str:
        """The array and the file."""
        return f"{SPLITS[split][0]} in {self.path}"

    def all_inputs(self) -> Tensor:
        """``x``, then ``x_val`` and ``x_test`` where the file holds them."""
        arrays = read_npz(self.path, labelled=False)
        xs = self._inputs(arrays)
        for name, x in xs.items():
            check_inputs(name, x, xs["x"].shape[1:], called=f"{name} in {self.path}")
        return torch.cat([*xs.values()])

    def _inputs(self, arrays: dict[str, NDArray[np.generic]]) -> dict[str, Tensor]:
        """All inputs; ``x`` decides whether they are float64, if no trained model does."""
        if self.input_dtype != FLOAT:
            names = [x for x, _ in SPLITS.values() if x in arrays]
            return {name: whole_numbers(arrays[name], name, self.input_dtype) for name in names}
        xs = {"x": inputs(arrays["x"], exact=self.exact or None)}
        exact = xs["x"].dtype == torch.float64
        others = [x for x, _ in SPLITS.values() if x in arrays and x != "x"]
        for name in others if exact else ():
            dtype = arrays[name].dtype
            if dtype.kind == "f" and dtype.itemsize < xs["x"].dtype.itemsize:
                raise InputError(
                    f"expected {name} of float64 or integers like x, which has digits that float32 "
                    f"loses, got {dtype}, which has lost them; save the values from before they "
                    f"became {dtype}"
                )
        return xs | {x: inputs(arrays[x], x, exact=exact) for x in others}


def read_npz(path: str | Path, *, labelled: bool = True) -> dict[str, NDArray[np.generic]]:
    """The arrays of a data file, ``x`` among them.

    Args:
        path: The file.
        labelled: Whether every ``x`` must come with its ``y``; labels are left out otherwise.

    Raises:
        InputError: Where the file is missing, no .npz, damaged, holds pickled objects, or lacks one
            of a pair; and, before anything is inflated, where its arrays are not as large as they
            say, or larger than data are (:mod:`smx_lightning.errors.sizes`).
    """
    path = at_home(path)
    wanted = [name for pair in SPLITS.values() for name in pair[: 1 + labelled]]
    wanted += WEIGHTS.values() if labelled else ()
    arrays, found = _arrays(path, wanted)
    _check_pairs(arrays, found, path, labelled=labelled)
    for name in {*(y for _, y in SPLITS.values()), *WEIGHTS.values()} & arrays.keys():
        if arrays[name].ndim == 2 and arrays[name].shape[1] == 1:  # a column of a table
            arrays[name] = arrays[name][:, 0]
    return arrays


def read_names(path: str | Path) -> list[str] | None:
    """The names of the features in a data file, one an entry of an input; ``None`` without any.

    Raises:
        InputError: For what are no names, and where the file cannot be read.
    """
    path = at_home(path)
    names = _arrays(path, [NAMES])[0].get(NAMES)
    if names is None:
        return None
    if names.dtype.kind not in "Uiu":
        raise InputError(
            f"expected {NAMES} in {path} to be strings, got dtype {names.dtype}; save them with "
            f"numpy.savez(path, {NAMES}=numpy.array(names, dtype=str), …)"
        )
    return [str(name) for name in names.flatten()]


def _arrays(path: Path, wanted: Sequence[str]) -> tuple[dict[str, NDArray[np.generic]], str]:
    """The arrays of these names that are there, and what the file holds, in words."""
    if not path.is_file():
        raise InputError(f"expected a data file at {path}, found none; check the path")
    with path.open("rb") as start:
        if start.read(len(NPY_MAGIC)) == NPY_MAGIC:
            raise InputError(
                f"expected an .npz file with x and y, got a single array in {path}; save it with "
                "numpy.savez(path, x=…, y=…)"
            )
    if not zipfile.is_zipfile(path):  # numpy would take it for a pickle, and say so
        raise InputError(
            f"expected an .npz file, got one that is no whole zip archive at {path}; save it again "
            "with numpy.savez"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, wanted, f"the arrays in {path}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: _array(file, name, path) for name in wanted if name in file.files}
            found = ", ".join(file.files) or "nothing"
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"expected an .npz file, got one that numpy cannot read ({reason(error)}) at {path}; "
            "save it again with numpy.savez"
        ) from error
    return arrays, found


def _check_pairs(arrays: Mapping[str, object], found: str, path: Path, *, labelled: bool) -> None:
    """Complain about inputs without labels and the reverse, and about a file without x."""
    for x, y in SPLITS.values():
        if not labelled:
            if x == "x" and x not in arrays:
                raise InputError(
                    f"expected x in {path}, found {found}; save it with numpy.savez(path, x=…)"
                )
        elif (x in arrays) != (y in arrays) or (x == "x" and x not in arrays):
            alone = "; only predict takes rows without labels" * (x in arrays)
            raise InputError(
                f"expected both {x} and {y} in {path}, found {found}; save them with "
                f"numpy.savez(path, {x}=…, {y}=…){alone}"
            )


def weights(arrays: Mapping[str, NDArray[np.generic]], name: str) -> Tensor | None:
    """The weights of rows by this name, float64; ``None`` where there are none.

    Raises:
        InputError: For what is no real number a row.
    """
    if name not in arrays:
        return None
    if arrays[name].dtype.kind not in "fiub" or arrays[name].ndim != 1:
        raise InputError(
            f"expected {name} of one real number a row, got {arrays[name].dtype} of shape "
            f"{arrays[name].shape}; leave it out where all rows count alike"
        )
    return torch.from_numpy(arrays[name].astype(np.float64))


def inputs(array: NDArray[np.generic], name: str = "x", *, exact: bool | None = None) -> Tensor:
    """Features as bytes, float32 or float64, shape (n, …).

    Args:
        array: Real numbers.
        name: What they are called in complaints.
        exact: Whether to keep them in float64; by default, where float32 would lose digits that
            standardisation needs, see :mod:`smx_lightning.preprocessing`.
    """
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{name} must hold real numbers, got dtype {array.dtype}; encode other features as "
            "numbers first"
        )
    if array.ndim < 2:
        raise InputError(
            f"{name} must have shape (rows, …) with at least 2 dimensions, got {array.shape}; "
            "reshape a single feature with x[:, None]"
        )
    if array.dtype == np.uint8:
        return torch.from_numpy(array)
    # What float32 cannot hold becomes infinite, and is reported.
    if exact or (exact is None and wide_columns(array, name)):
        x = array.astype(np.float64)
        x[np.abs(x) > np.finfo(np.float32).max] = np.inf
        return torch.from_numpy(x)
    with np.errstate(over="ignore"):
        return torch.from_numpy(array.astype(np.float32))


def whole_numbers(array: NDArray[np.generic], name: str, dtype: str) -> Tensor:
    """Integers (n, …), such as token ids, in a dtype that holds them all.

    Raises:
        InputError: For others, and for one without rows and columns.
    """
    kept = array.astype(dtype) if array.dtype.kind in "fiub" and array.ndim > 1 else None
    if kept is None or not np.array_equal(kept, array):
        raise InputError(
            f"expected {name} of shape (rows, …) with whole numbers that {dtype} can hold, got "
            f"{array.dtype} of shape {array.shape}; encode it, or leave input_dtype out for numbers"
        )
    return torch.from_numpy(kept)


def _array(file: np.lib.npyio.NpzFile, name: str, path: Path) -> NDArray[np.generic]:
    try:
        array: NDArray[np.generic] = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise InputError(
            f"expected plain arrays in {path}, got pickled objects in {name}, which could run "
            "code; save numbers, and labels as integers or as an array of dtype str"
        ) from error
    if not isinstance(array, np.ndarray):  # numpy hands over other members of a zip as bytes
        raise InputError(
            f"expected an .npz file, got one whose {name} is no array at {path}; save it again "
            "with numpy.savez"
        )
    return array
