"""Reading ONNX files that nobody vouches for, and writing files that are whole or absent."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx.external_data_helper import uses_external_data

from smx_export.errors import FileError


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` to write to; moved into place at the end, removed on any error.

    The data is on disk before the move, so neither a crash nor a failed check leaves a broken file
    under the final name, and what was there before survives.

    Raises:
        FileError: Where the folder is missing or cannot be written to.
    """
    path = Path(path)
    if path.is_dir():
        raise FileError(f"expected a file name to write to, got the folder {path}; add a name")
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        draft.touch()
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise FileError(
            f"expected to write {path}, got: {error.strerror or error}; choose a folder that "
            "exists, is writable and has room"
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """Parse an ONNX file without following anything it points to.

    Raises:
        FileError: Where the file is missing, damaged, no ONNX, or keeps tensors in other files.
    """
    path = Path(path)
    if not path.is_file():
        raise FileError(f"expected an ONNX file at {path}, found none; check the path")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise FileError(
            f"expected an ONNX file at {path}, got one that does not parse; it may be truncated or "
            "of another kind: export it again"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise FileError(
            f"expected an ONNX model at {path}, got a file without a graph; export it again"
        )
    for tensor in model.graph.initializer:
        if uses_external_data(tensor):
            raise FileError(
                f"expected one self-contained ONNX file at {path}, got tensor {tensor.name!r} in "
                "another file; save it with its data inside (save_as_external_data=False)"
            )
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        reason = str(error).splitlines()[0]
        raise FileError(
            f"expected a valid ONNX model at {path}, got: {reason}; export it again"
        ) from error
    return model


def signature(values: Iterable[onnx.ValueInfoProto]) -> str:
    """Graph inputs or outputs in words: ``name: dtype [dimensions]``, comma-separated."""
    parts = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else "?"
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        parts.append(f"{value.name}: {dtype} {shape}")
    return ", ".join(parts)
