"""MNIST-family data: a folder of four IDX files.

The format (LeCun, Cortes & Burges): two zero bytes, a type code, the number of dimensions, that
many big-endian uint32 sizes, then the data.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, NoReturn, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.base import InMemoryDataModule, Loaded
from smx_lightning.data.labels import classes_of, labels
from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError
from smx_lightning.errors.sizes import check_inflation, check_room
from smx_lightning.errors.unreadable import reason
from smx_lightning.processes.files import at_home

UNSIGNED_BYTE = 0x08
PARTS = ("train", "t10k")
GZIP_MAGIC = b"\x1f\x8b"
MOST_INFLATED = 1032  # times: what deflate can make of a byte
PIECE = 1 << 22  # bytes at a time


class IdxDataModule(InMemoryDataModule):
    """A folder of MNIST-family IDX files, gz or plain; Fashion-MNIST is the example.

    Expects ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each with or without ``.gz``, or with a dot before ``idx``, as
    Kaggle has them; in the folder, or where torchvision puts them below it: ``MNIST/raw``. Pixels
    stay bytes in memory and become float32 a batch at a time. Prediction takes all images,
    ``train`` before ``t10k``.

    Args:
        path: The folder.
        class_names: One name a class: of labels 0..K-1, or of the K values there are, in sorted
            order; the labels themselves by default.
        batch_size: Rows a batch.
        val_fraction: Share of the training images to validate on.
        seed: Of that split.
    """

    def __init__(
        self,
        path: str | Path,
        class_names: list[str | int | bool] | None = None,
        batch_size: int = 256,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, seed=seed)
        self.path = at_home(path)
        self.given_names = None if class_names is None else [*class_names]  # an array, too

    def load(self) -> Loaded:
        """Read the four files."""
        x, x_test = (self._images(part) for part in PARTS)
        y, y_test = (self._labels(part) for part in PARTS)
        classes = classes_of(y, self.given_names or None, name="the train labels")
        train = Rows(x, labels(y, classes, "the train labels"))
        test = Rows(x_test, labels(y_test, classes, "the t10k labels"))
        return Loaded(train, classes.names, test=test)

    def all_inputs(self) -> Tensor:
        """The images of both parts; their labels are not read."""
        return torch.cat([self._images(part) for part in PARTS])

    def _images(self, part: str) -> Tensor:
        x = read_idx(self._find(f"{part}-images-idx3-ubyte"))
        if x.ndim < 2:
            raise InputError(
                f"expected images of shape (n, …) in {self.path}, got {tuple(x.shape)}; images and "
                "labels may have been swapped"
            )
        return x

    def _labels(self, part: str) -> NDArray[np.uint8]:
        y = read_idx(self._find(f"{part}-labels-idx1-ubyte")).numpy()
        if y.ndim != 1 or len(y) == 0:
            raise InputError(
                f"expected labels of shape (n,) in {self.path}, n > 0, got {y.shape}; images and "
                "labels may have been swapped"
            )
        return y

    def _find(self, name: str) -> Path:
        names = [stem + end for stem in (name, name.replace("-idx", ".idx")) for end in ("", ".gz")]
        for folder in self._folders():
            for candidate in (folder / name for name in names):
                if candidate.is_file():
                    return candidate
        raise InputError(
            f"expected the IDX file {name} or {name}.gz in {self.path}, found neither; point path "
            "at a folder of MNIST-family files (Debian's package dataset-fashion-mnist puts one at "
            "/usr/share/datasets/fashion-mnist)"
        )

    def _folders(self) -> list[Path]:
        """Where the files may lie: in the folder itself, or in one below it.

        Raises:
            InputError: Where several data sets lie below it.
        """
        below = [folder for folder in self.path.glob("*/raw") if any(folder.glob("*-ubyte*"))]
        if len(below) > 1 and not any(self.path.glob("*-ubyte*")):
            names = ", ".join(sorted(str(folder.relative_to(self.path)) for folder in below))
            raise InputError(
                f"expected one data set of IDX files in {self.path}, got several: {names}; point "
                "path at one of these folders"
            )
        return [self.path, self.path / "raw", *below[:1]]


def read_idx(path: Path) -> Tensor:
    """One IDX file of unsigned bytes as a uint8 tensor of the shape that its header declares.

    The header is held against the size of the file before the rest is read.

    Raises:
        InputError: Where the file is no gzip, no IDX, of another element type, not as long as its
            header says, or larger than data are.
    """
    zipped = path.suffix == ".gz"
    try:
        zipped = zipped or _is_zipped(path)
        with _opened(path) as file:
            shape = _shape(file, path)
            raw = _content(file, path, shape)
        return torch.from_numpy(np.frombuffer(raw, dtype=np.uint8).reshape(shape))
    except (EOFError, OSError, zlib.error, ValueError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"expected whole {'gzip' if zipped else 'IDX'} data in {path}, got "
            f"{reason(error)}; the file is truncated or damaged: fetch it again"
        ) from error


def _start(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(GZIP_MAGIC))


def _is_zipped(path: Path) -> bool:
    """Whether name or content say so: a download may have lost the name's ``.gz``."""
    return path.suffix == ".gz" or _start(path) == GZIP_MAGIC


def _opened(path: Path) -> IO[bytes]:
    if not _is_zipped(path):
        return path.open("rb")
    start = _start(path)
    if start != GZIP_MAGIC:
        raise InputError(
            f"expected gzip data, got a file that begins with {start.hex() or 'nothing'} in "
            f"{path}; if it is not compressed, take .gz off its name"
        )
    return cast("IO[bytes]", gzip.open(path))


def _shape(file: IO[bytes], path: Path) -> tuple[int, ...]:
    """What the header declares; the file then stands behind it."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\x00\x00":
        raise InputError(
            f"expected an IDX file, which begins with two zero bytes, got "
            f"{start.hex() or 'none'} in {path}; it may be another format, or an "
            "error page saved under this name"
        )
    if start[2] != UNSIGNED_BYTE:
        raise InputError(
            f"expected IDX data of unsigned bytes (type 0x08), got type {start[2]:#04x} in {path}; "
            "save it as an .npz file and use NpzDataModule"
        )
    sizes = file.read(4 * start[3])
    if len(sizes) < 4 * start[3]:
        _complain(
            f"at least {4 + 4 * start[3]} bytes for the sizes of {start[3]} dimensions",
            4 + len(sizes),
            path,
        )
    return struct.unpack(f">{start[3]}I", sizes)


def _content(file: IO[bytes], path: Path, shape: tuple[int, ...]) -> bytearray:
    """As many bytes as are declared, if there are as many, and no more."""
    header, size, stored = 4 + 4 * len(shape), math.prod(shape), path.stat().st_size
    expected = f"{header + size} bytes for shape {shape}"
    if not _is_zipped(path) and stored != header + size:
        _complain(expected, stored, path)
    if header + size > MOST_INFLATED * stored:
        _complain(expected, f"at most {MOST_INFLATED * stored}", path)
    check_inflation(size, stored, f"IDX data in {path}")
    check_room(size, f"IDX data in {path}")
    raw = bytearray()
    while len(raw) <= size and (part := file.read(min(PIECE, size + 1 - len(raw)))):
        raw += part
    if len(raw) != size:
        _complain(expected, header + len(raw) if len(raw) < size else "more", path)
    return raw


def _complain(expected: str, got: object, path: Path) -> NoReturn:
    raise InputError(
        f"expected {expected}, got {got} in {path}; the file is truncated or damaged: fetch it "
        "again"
    )
