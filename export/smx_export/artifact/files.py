"""Reading ONNX files that nobody vouches for, and the seal by which a changed file is known."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import numpy_helper
from onnx.external_data_helper import uses_external_data

from smx_export.artifact.check import first_line
from smx_export.artifact.content import read_bytes
from smx_export.contract import SHA256
from smx_export.errors import FileError

_Kind = TypeVar("_Kind", bound=Message)
UNSEALED = "0" * 64
# A metadata entry as protocol buffers write it: key (field 1), then 64 characters (field 2).
_SEAL = re.compile(
    b"\n" + bytes([len(SHA256)]) + SHA256.encode() + b"\x12\x40([0-9a-f]{64})", re.DOTALL
)


def is_checkpoint(path: Path) -> bool:
    """Whether a file is a checkpoint rather than a model: torch writes archives."""
    if not path.is_file():
        return path.suffix == ".ckpt"
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def read_onnx(path: str | Path) -> onnx.ModelProto:
    """Parse an ONNX file without following anything it points to.

    Raises:
        FileError: Where the file is missing, damaged, no ONNX, keeps tensors in other files, or
            declares tensors larger than what it holds.
    """
    return parse(read_bytes(path), path)


def parse(data: bytes, path: str | Path) -> onnx.ModelProto:
    """:func:`read_onnx` of content that was read before; ``path`` is for the messages."""
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise FileError(
            f"expected an ONNX file at {path}, got one that does not parse; it may be truncated or "
            "of another kind: export it again"
        ) from error
    if not model.graph.node or not model.opset_import:
        raise FileError(
            f"expected an ONNX model at {path}, got a file without a graph; export it again"
        )
    _check_tensors(model, len(data), path)
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        reason = first_line(error)
        raise FileError(
            f"expected a valid ONNX model at {path}, got: {reason}; export it again"
        ) from error
    if not all(map(_readable, _messages(model))):
        raise FileError(
            f"expected an ONNX model at {path} with names and metadata in UTF-8, got bytes that "
            "are none; it is damaged: export it again"
        )
    return model


def _check_tensors(model: onnx.ModelProto, size: int, path: str | Path) -> None:
    """Complain about tensors in other files, or larger than a file of ``size`` bytes."""
    for tensor in parts(model, onnx.TensorProto):
        if uses_external_data(tensor):
            raise FileError(
                f"expected one self-contained ONNX file at {path}, got tensor {tensor.name!r} in "
                "another file; save it with its data inside (save_as_external_data=False)"
            )
        if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) > size:
            raise FileError(
                f"expected tensors that the file holds at {path}, got {tensor.name!r} of shape "
                f"{list(tensor.dims)} in {size:,} bytes; export it again"
            )


def metadata_of(model: onnx.ModelProto) -> dict[str, str]:
    """A file's metadata by key."""
    return {entry.key: entry.value for entry in model.metadata_props}


def sealed(model: onnx.ModelProto) -> bytes:
    """The file's content, with its own SHA-256 in its metadata.

    The hash is that of the content in which the hash itself is 64 zeros, so that anything which can
    read bytes can check it (:func:`seal_holds`): no protocol buffers are needed. It tells damage
    and later changes, not forgery: who changes a file on purpose can seal it again.
    """
    kept = metadata_of(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, dict(sorted((kept | {SHA256: UNSEALED}).items())))
    blank = model.SerializeToString(deterministic=True)
    (seal,) = _SEAL.finditer(blank)
    return _with_seal(blank, seal, sha256(blank).hexdigest())


def seal_holds(data: bytes) -> bool | None:
    """Whether a file's content is as it was sealed; ``None`` where it bears no seal."""
    seals = list(_SEAL.finditer(data))
    if len(seals) != 1:
        return None
    blank = _with_seal(data, seals[0], UNSEALED)
    return sha256(blank).hexdigest().encode() == seals[0][1]


def _with_seal(data: bytes, seal: re.Match[bytes], value: str) -> bytes:
    return data[: seal.start(1)] + value.encode() + data[seal.end(1) :]


def weights_sha256(model: onnx.ModelProto) -> str:
    """SHA-256 over the initializers, in the order of their names: name, dtype, shape, content.

    It is that of the weights, whatever the graph around them: a relabelled file keeps it, and so
    does another profile (save ``compact``, a label's threshold, and what ``robust`` adds to a
    sparse activation). Initializers of int64 are no weights but axes and shapes.
    """
    digest = sha256()
    for tensor in sorted(model.graph.initializer, key=lambda tensor: tensor.name):
        if tensor.data_type == onnx.TensorProto.INT64:
            continue
        try:
            array = numpy_helper.to_array(tensor)
        except (ValueError, KeyError, TypeError) as error:
            raise FileError(
                f"expected tensors that fit their shapes, got {tensor.name!r} ({error}); export "
                "the file again"
            ) from error
        digest.update(f"{tensor.name} {array.dtype} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def parts(message: Message, kind: type[_Kind]) -> Iterator[_Kind]:
    """All that is of a kind in a message, wherever: attributes, subgraphs, functions."""
    return (part for part in _messages(message) if isinstance(part, kind))


def _messages(message: Message) -> Iterator[Message]:
    """A message and all that is in it."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if isinstance(value, Sequence) else (value,):
                yield from _messages(part)


def _readable(message: Message) -> bool:
    """Whether its strings are UTF-8: protocol buffers do not check it, and answer bytes."""
    texts = (v for field, v in message.ListFields() if field.type == field.TYPE_STRING)
    return not any(
        isinstance(part, bytes)
        for text in texts
        for part in ([text] if isinstance(text, (str, bytes)) else text)
    )


def batch_of(value: onnx.ValueInfoProto) -> int | None:
    """The number of rows that an input or output is fixed to; ``None`` where it takes any."""
    shape = value.type.tensor_type.shape.dim
    return int(shape[0].dim_value) or None if shape else None


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
