"""Files of rows, .npy and .npz, whose arrays are read a block at a time. No torch."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from smx_export.errors import FileError
from smx_lightning.errors import InputError
from smx_lightning.errors.sizes import check_header, check_inflation, check_room, npy_header
from smx_lightning.errors.unreadable import UNREADABLE, reason, sentence_of

ARRAYS = ("x", "x_val", "x_test")  # of an .npz file, in this order
ARCHIVE = b"PK"
PIECE = 1 << 22  # bytes at a time


@dataclass(frozen=True)
class StoredArray:
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


def named_arrays(path: str | Path, names: list[str]) -> list[StoredArray]:
    """The arrays of several inputs in an .npz file, by the names of these.

    Raises:
        FileError: Where one is missing, or they are not as many rows each.
    """
    if not Path(path).is_file():
        raise FileError(f"expected rows at {path}, found no file; check the path")
    found: list[str] = []
    arrays: list[StoredArray] = []
    with readable(path):
        if _is_archive(path):
            with zipfile.ZipFile(path) as archive:
                found = archive.namelist()
                if all(f"{name}.npy" in found for name in names):
                    arrays = [_member(archive, name, path) for name in names]
    if not arrays:
        raise FileError(
            f"expected an .npz file with the arrays {', '.join(names)} at {path}, got "
            f"{', '.join(found) or 'none'}; save them with numpy.savez(path, {names[0]}=…, …)"
        )
    counts = {array.shape[:1] for array in arrays}
    if len(counts) > 1 or counts == {()}:
        shapes = ", ".join(f"{array.name} {array.shape}" for array in arrays)
        raise FileError(f"expected as many rows of each input in {path}, got {shapes}; cut them")
    return arrays


def named_blocks(
    path: str | Path, arrays: list[StoredArray], most: int
) -> Iterator[tuple[int, dict[str, NDArray[Any]]]]:
    """All rows of several inputs: the number of the first of some, and these by name."""
    most = arrays[0].shape[0] if any(array.fortran for array in arrays) else most
    with readable(path), ExitStack() as stack:
        parts = []
        for array in arrays:
            file = stack.enter_context(opened(path, array.name))
            file.seek(npy_header(file).start)
            parts.append(array.blocks(file, most))
        first = 0
        for blocks in zip(*parts, strict=True):
            yield first, {array.name: part for array, part in zip(arrays, blocks, strict=True)}
            first += len(blocks[0])


def stored_arrays(path: str | Path) -> list[StoredArray]:
    """The arrays of rows in an .npy or .npz file, read as far as their headers.

    Raises:
        FileError: Where there is no such file, or it holds something else.
    """
    if not Path(path).is_file():
        raise FileError(f"expected rows at {path}, found no file; check the path")
    with readable(path):
        if not _is_archive(path):
            with Path(path).open("rb") as file:
                return [_checked(file, "x", path, held=Path(path).stat().st_size)]
        with zipfile.ZipFile(path) as archive:
            found = archive.namelist()
            names = [name for name in ARRAYS if f"{name}.npy" in found]
            if "x" in names:
                return [_member(archive, name, path) for name in names]
    raise FileError(
        f"expected an array x in {path}, got {', '.join(found) or 'an empty archive'}; save the "
        "rows with numpy.savez(path, x=…)"
    )


def _member(archive: zipfile.ZipFile, name: str, path: str | Path) -> StoredArray:
    member = archive.getinfo(f"{name}.npy")
    stored = min(member.compress_size, Path(path).stat().st_size)
    check_inflation(member.file_size, stored, f"{name} in {path}")
    with archive.open(member) as file:
        return _checked(file, name, path, held=member.file_size)


def _checked(file: IO[bytes], name: str, path: str | Path, *, held: int) -> StoredArray:
    """What a header says, if the file is as large as that and there is room for what is read."""
    header = npy_header(file)
    check_header(header, held, f"{name} in {path}")
    if header.fortran:
        check_room(header.size, f"{name} in {path}, whose columns lie together,")
    return StoredArray(name, header.shape, header.dtype, header.fortran)


def blocks_of(
    path: str | Path, arrays: list[StoredArray], most: int
) -> Iterator[tuple[StoredArray, int, NDArray[Any]]]:
    """All rows in order: their array, the number of the first of them in it, and some of them."""
    for array in arrays:
        with readable(path), opened(path, array.name) as file:
            file.seek(npy_header(file).start)
            first = 0
            for block in array.blocks(file, most):
                yield array, first, block
                first += len(block)


@contextmanager
def opened(path: str | Path, name: str) -> Iterator[IO[bytes]]:
    """An array's file, or its member of an archive, open for reading."""
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
def readable(path: str | Path) -> Iterator[None]:
    """Turn what numpy and zipfile say of a damaged file into one sentence."""
    try:
        yield
    except InputError as error:
        raise FileError(str(error)) from error
    except PermissionError as error:
        raise FileError(sentence_of(error)) from error
    except UNREADABLE as error:
        raise FileError(
            "expected an .npy or .npz file of rows, got one that does not read "
            f"({reason(error)}) at {path}; save it again with numpy.save or numpy.savez"
        ) from error
