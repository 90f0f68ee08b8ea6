"""The bytes of a file that may be an ONNX model, or missing. Neither onnx nor torch."""

from __future__ import annotations

from pathlib import Path

from smx_export.errors import FileError

LARGEST = 2**31 - 1  # bytes: no protocol buffer may be larger


def read_bytes(path: str | Path) -> bytes:
    """The content of a file that may be an ONNX model.

    Raises:
        FileError: Where it is missing, or larger than any such file can be.
    """
    path = Path(path)
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
