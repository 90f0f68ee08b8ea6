"""MNIST-family data: a folder of four IDX files.

The format (LeCun, Cortes & Burges): two zero bytes, a type code, the number of dimensions, that
many big-endian uint32 sizes, then the data.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.data.base import InMemoryDataModule, Loaded
from smx_lightning.data.labels import classes_of, labels
from smx_lightning.data.loading import Rows
from smx_lightning.errors import InputError

UNSIGNED_BYTE = 0x08
PARTS = ("train", "t10k")
GZIP_MAGIC = b"\x1f\x8b"


class IdxDataModule(InMemoryDataModule):
    """A folder of MNIST-family IDX files, gz or plain; Fashion-MNIST is the example.

    Expects ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, ``t10k-images-idx3-ubyte`` and
    ``t10k-labels-idx1-ubyte``, each with or without ``.gz``. Pixels stay bytes in memory and become
    float32 a batch at a time. Prediction takes all images, ``train`` before ``t10k``.

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
        class_names: list[str] | None = None,
        batch_size: int = 256,
        val_fraction: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__(batch_size, val_fraction, seed=seed)
        self.path = Path(path)
        self.given_names = class_names

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
        for candidate in (self.path / name, self.path / f"{name}.gz"):
            if candidate.is_file():
                return candidate
        raise InputError(
            f"expected the IDX file {name} or {name}.gz in {self.path}, found neither; point path "
            "at a folder of MNIST-family files (Debian's package dataset-fashion-mnist puts one at "
            "/usr/share/datasets/fashion-mnist)"
        )


def read_idx(path: Path) -> Tensor:
    """One IDX file of unsigned bytes as a uint8 tensor of the shape that its header declares.

    Raises:
        InputError: Where the file is no gzip, no IDX, of another element type, or not as long as
            its header says.
    """
    raw = _bytes(path)
    if len(raw) < 4 or raw[:2] != b"\x00\x00":
        raise InputError(
            f"expected an IDX file, which begins with two zero bytes, got "
            f"{raw[:4].hex() or 'none'} in {path}; it may be another format, or an "
            "error page saved under this name"
        )
    if raw[2] != UNSIGNED_BYTE:
        raise InputError(
            f"expected IDX data of unsigned bytes (type 0x08), got type {raw[2]:#04x} in {path}; "
            "save it as an .npz file and use NpzDataModule"
        )
    num_dimensions = raw[3]
    header = 4 + 4 * num_dimensions
    shape = [int.from_bytes(raw[at : at + 4], "big") for at in range(4, header, 4)]
    expected = f"{header + math.prod(shape)} bytes for shape {tuple(shape)}"
    if len(raw) < header:
        expected = f"at least {header} bytes for the sizes of {num_dimensions} dimensions"
    if len(raw) != header + math.prod(shape) or len(raw) < header:
        raise InputError(
            f"expected {expected}, got {len(raw)} in {path}; the file is truncated or damaged: "
            "fetch it again"
        )
    data = np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)
    return torch.from_numpy(data.copy())


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if path.suffix != ".gz":
        return raw
    if not raw.startswith(GZIP_MAGIC):
        raise InputError(
            f"expected gzip data, got a file that begins with {raw[:2].hex() or 'nothing'} in "
            f"{path}; if it is not compressed, take .gz off its name"
        )
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise InputError(
            f"expected whole gzip data in {path}, got {error}; the file is truncated or damaged: "
            "fetch it again"
        ) from error
