"""Any data set as one ``.npz`` file: ``x``, ``y``, and optionally splits."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.base import InMemoryDataModule, Loaded
from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError

NPY_MAGIC = b"\x93NUMPY"
UNREADABLE = (ValueError, zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, RuntimeError)
SPLITS = {"train": ("x", "y"), "val": ("x_val", "y_val"), "test": ("x_test", "y_test")}


class NpzDataModule(InMemoryDataModule):
    """An ``.npz`` file with ``x`` (n, …) and ``y`` (n,) of integers or strings.

    Where it also holds ``x_val``, ``y_val`` or ``x_test``, ``y_test``, those splits are used as
    given; a missing one is split off, stratified and seeded. String labels become classes in sorted
    order; integer labels are class indices from 0. Pickled objects are refused.

    Args:
        path: The file.
        class_names: One name a class, for integer labels; ``"0"``, ``"1"``, … by default.
        batch_size: Rows a batch.
        val_fraction: Share of the training rows to validate on, where the file gives no such split.
        test_fraction: Share of all rows to test on, where the file gives no such split.
        seed: Of the splits.
    """

    def __init__(
        self,
        path: str | Path,
        class_names: list[str] | None = None,
        batch_size: int = 256,
        val_fraction: float = 0.1,
        test_fraction: float = 0.25,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, test_fraction, seed)
        self.path = Path(path)
        self.given_names = class_names

    def load(self) -> Loaded:
        """Read and check the file."""
        arrays = read_npz(self.path)
        names = self.given_names or _class_names(arrays["y"], self.path)
        rows = {
            split: Rows(inputs(arrays[x], x), labels(arrays[y], names))
            for split, (x, y) in SPLITS.items()
            if x in arrays
        }
        return Loaded(class_names=tuple(names), **rows)


def read_npz(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """The arrays of a data file, whole pairs only, ``x`` and ``y`` among them.

    Raises:
        InputError: Where the file is missing, no .npz, damaged, holds pickled objects, or lacks one
            of a pair.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a data file at {path}, found none; check the path")
    wanted = [name for pair in SPLITS.values() for name in pair]
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
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: _array(file, name, path) for name in wanted if name in file.files}
            found = ", ".join(file.files) or "nothing"
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"expected an .npz file, got one that numpy cannot read ({error}) at {path}; save it "
            "again with numpy.savez"
        ) from error
    for x, y in SPLITS.values():
        if (x in arrays) != (y in arrays) or (x == "x" and x not in arrays):
            raise InputError(
                f"expected both {x} and {y} in {path}, found {found}; save them with "
                f"numpy.savez(path, {x}=…, {y}=…)"
            )
    return arrays


def inputs(array: NDArray[np.generic], name: str = "x") -> Tensor:
    """Features as bytes or float32, shape (n, …)."""
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
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is reported
        return torch.from_numpy(array.astype(np.float32))


def labels(array: NDArray[np.generic], class_names: list[str] | tuple[str, ...]) -> Tensor:
    """Class indices (n,) int64 of integer or string labels."""
    if array.ndim != 1:
        raise InputError(f"y must have shape (rows,), got {array.shape}; one label a row")
    if array.dtype.kind in "iu":
        return torch.from_numpy(array.astype(np.int64))
    if array.dtype.kind != "U":
        raise InputError(f"y must hold integers or strings, got dtype {array.dtype}")
    unknown = sorted(set(array.tolist()) - set(class_names))
    if unknown:
        raise InputError(
            f"expected labels among the {len(class_names)} training classes, got {unknown[0]!r}; "
            "a class must occur in y"
        )
    index = {name: k for k, name in enumerate(class_names)}
    return torch.tensor([index[name] for name in array.tolist()], dtype=torch.int64)


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


def _class_names(y: NDArray[np.generic], path: Path) -> list[str]:
    if y.dtype.kind == "U":
        return sorted(set(y.tolist()))
    if y.dtype.kind not in "iu" or y.size == 0:
        return [str(k) for k in range(2)]  # labels() and the row checks say what is wrong
    largest = int(y.max())
    if largest >= max(len(y), 2):
        raise InputError(
            f"integer labels must be class indices from 0, got {largest} among {len(y)} rows in "
            f"{path}; use strings for names that happen to be numbers"
        )
    return [str(k) for k in range(largest + 1)]
