"""The bytes of a file that may be an ONNX model, or missing. Neither onnx nor torch."""

from __future__ import annotations

import os
from pathlib import Path

from smx_export.errors import FileError

LARGEST = 2**31 - 1  # bytes: no protocol buffer may be larger


def read_bytes(path: str | Path) -> bytes:
    """The content of a file that may be an ONNX model.

    Raises:
        FileError: Where it is missing, no path, or larger than any such file can be.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise FileError(
            f"expected the path of an ONNX file, got {type(path).__name__}; write the content to a "
            "file, and give its path"
        )
    path = Path(os.path.expanduser(path))  # noqa: PTH111  # Path's own fails for nobody's
    if not path.is_file():
        raise FileError(f"expected an ONNX file at {path}, found none; check the path")
    size = path.stat().st_size
    if size > LARGEST:
        raise FileError(
            f"expected an ONNX file of at most {LARGEST:,} bytes at {path}, got {size:,}; it is "
            "no ONNX model, or one whose weights lie elsewhere"
        )
    try:
        return path.read_bytes()
    except OSError as error:
        raise FileError(
            f"expected an ONNX file at {path}, got: {error.strerror or error}; check its "
            "permissions"
        ) from error
