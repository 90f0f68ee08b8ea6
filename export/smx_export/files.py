"""Reading ONNX files that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import uses_external_data

from smx_export.errors import FileError


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
    for tensor in _tensors(model):
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


def _tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a message, wherever: initializers, attributes, subgraphs, functions."""
    if isinstance(message, onnx.TensorProto):
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                yield from _tensors(part)


def signature(values: Iterable[onnx.ValueInfoProto]) -> str:
    """Graph inputs or outputs in words: ``name: dtype [dimensions]``, comma-separated."""
    parts = []
    for value in values:
        tensor = value.type.tensor_type
        known = tensor.elem_type in onnx.TensorProto.DataType.values() and tensor.elem_type != 0
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if known else "?"
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        parts.append(f"{value.name}: {dtype} {shape}")
    return ", ".join(parts)
