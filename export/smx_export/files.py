"""Reading ONNX files that nobody vouches for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
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
    for tensor in (*model.graph.initializer, *_constants(model.graph)):
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


def _constants(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """The tensors in the attributes of a graph's nodes, and all those of the graphs inside them."""
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from inner.initializer
                yield from _constants(inner)


def signature(values: Iterable[onnx.ValueInfoProto]) -> str:
    """Graph inputs or outputs in words: ``name: dtype [dimensions]``, comma-separated."""
    parts = []
    for value in values:
        tensor = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type) if tensor.elem_type else "?"
        shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
        parts.append(f"{value.name}: {dtype} {shape}")
    return ", ".join(parts)
