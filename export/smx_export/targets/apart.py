"""A file under onnxruntime in a process with limits, for what asks an InferenceSession."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import TensorProto

from smx_export.artifact.files import metadata_of
from smx_export.artifact.rows import joined
from smx_export.contract import INPUT
from smx_export.errors import FileError
from smx_export.targets.limited import LimitedSession, Limits

TYPES: dict[int, str] = {  # as onnxruntime says it
    TensorProto.FLOAT: "tensor(float)",
    TensorProto.DOUBLE: "tensor(double)",
    TensorProto.UINT8: "tensor(uint8)",
    TensorProto.INT64: "tensor(int64)",
    TensorProto.INT32: "tensor(int32)",
    TensorProto.BOOL: "tensor(bool)",
}


def open_apart(path: Path, proto: onnx.ModelProto, limits: Limits) -> SessionApart:
    """A session of a file, which was parsed before.

    Raises:
        FileError: Where onnxruntime refuses it, or takes more than it may.
    """
    try:
        return SessionApart(LimitedSession("onnxruntime", path, limits), proto)
    except RuntimeError as error:
        raise FileError(
            f"expected an ONNX model that onnxruntime loads at {path}, got: {error}; export it "
            "again, or allow it more time and memory"
        ) from error


class SessionApart:
    """What is used of onnxruntime's InferenceSession, answered by a process with limits.

    Args:
        session: Of onnxruntime.
        proto: The file that it has loaded.
    """

    def __init__(self, session: LimitedSession, proto: onnx.ModelProto) -> None:
        self._session = session
        initial = {tensor.name for tensor in proto.graph.initializer}
        self._inputs = [_described(v) for v in proto.graph.input if v.name not in initial]
        self._outputs = [_described(v) for v in proto.graph.output]
        self._meta = SimpleNamespace(
            custom_metadata_map=metadata_of(proto), graph_name=proto.graph.name
        )

    def get_inputs(self) -> list[SimpleNamespace]:
        """Name, type and shape of each input."""
        return self._inputs

    def get_outputs(self) -> list[SimpleNamespace]:
        """Name, type and shape of each output."""
        return self._outputs

    def get_modelmeta(self) -> SimpleNamespace:
        """The file's metadata, and the graph's name."""
        return self._meta

    def run(self, names: Sequence[str], feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs of those names for the inputs."""
        self._session.renew()
        x = joined(feed) if len(self._inputs) > 1 or INPUT not in feed else feed[INPUT]
        answered = self._session.run(x)
        return [answered[name] for name in names]

    def close(self) -> None:
        """End the process."""
        self._session.close()


def _described(value: onnx.ValueInfoProto) -> SimpleNamespace:
    tensor = value.type.tensor_type
    shape = [dim.dim_param or dim.dim_value for dim in tensor.shape.dim]
    return SimpleNamespace(name=value.name, type=TYPES.get(tensor.elem_type, ""), shape=shape)
