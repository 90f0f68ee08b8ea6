"""A file's metadata as a JSON file beside it, for runtimes that cannot read ONNX metadata."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from smx_export.artifact.content import read_bytes
from smx_export.artifact.exported import read_intact
from smx_export.artifact.files import batch_of
from smx_export.artifact.rows import parts_of
from smx_export.artifact.vectors import base64_of
from smx_export.contract import (
    ACTIVATION,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT,
    INPUT_RANGE,
    INPUT_SHAPE,
    SCHEMA,
    THRESHOLD,
)
from smx_export.errors import FileError
from smx_lightning.processes.files import written_whole

IF_ANY = (ACTIVATION, FEATURE_NAMES, SCHEMA)  # what most files have not


def sidecar(path: str | Path) -> dict[str, Any]:
    """Class names, input, outputs, features, and the self-test with its inputs written out.

    Numbers of the self-test are base64 of little-endian ``dtype`` (inputs) and float32 (log_probs;
    in place of them probs where the activation is no softmax). Of several inputs ``input`` is a
    list, in order, and dtype, shape and numbers of the self-test are objects by name.

    Raises:
        FileError: Where the file was not exported by smx_export, or was changed since.
    """
    data = read_bytes(path)
    exported = read_intact(path)
    given = [_described(value, path) for value in exported.proto.graph.input]
    expected = exported.vectors
    several = expected.rows.dtype.names is not None
    asked = {name: _numbers(part) for name, part in parts_of(expected.x).items()}
    answers = {"log_probs": base64_of(expected.log_probs)}
    if expected.sparse:
        answers = {"probs": base64_of(np.exp(expected.log_probs))}
    found = {
        "name": os.fsencode(Path(path).stem).decode("utf-8", "replace"),  # disks allow any bytes
        "sha256": sha256(data).hexdigest(),
        "weights_sha256": exported.weights_sha256,
        **{key: exported.value(key) for key in (CLASS_NAMES, INPUT_SHAPE, INPUT_RANGE, THRESHOLD)},
        **{key: value for key in IF_ANY if (value := exported.value(key)) is not None},
        "input": given if several else given[0],
        "outputs": [output.name for output in exported.proto.graph.output],
        "selftest": {
            **(_by_key(asked) if several else asked[INPUT]),
            **answers,
            "tolerance": expected.tolerance.tolist(),
        },
    }
    try:
        json.dumps(found, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise FileError(
            f"expected metadata that a JSON file can hold in {path}, got some that it cannot "
            f"({error}); export it again"
        ) from error
    return found


def _described(value: onnx.ValueInfoProto, path: str | Path) -> dict[str, Any]:
    """Name, dtype and shape of an input."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in TensorProto.DataType.values():
        raise FileError(
            f"expected an input of a type that ONNX has in {path}, got type {tensor.elem_type}; "
            "export it again"
        )
    return {
        "name": value.name,
        "dtype": helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
        "shape": [dim.dim_value for dim in tensor.shape.dim[1:]],
        **({} if (batch := batch_of(value)) is None else {"batch": batch}),
    }


def _numbers(x: NDArray[Any]) -> dict[str, Any]:
    """The inputs (n, …) of a self-test, written out."""
    return {"dtype": x.dtype.name, "shape": list(x.shape), "inputs": base64_of(x)}


def _by_key(asked: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of several inputs dtypes by name, shapes by name, and numbers by name."""
    return {
        key: {name: of[key] for name, of in asked.items()} for key in next(iter(asked.values()))
    }


def path_beside(path: str | Path) -> Path:
    """Where a model's sidecar lies: beside it, under the same name with ``.json``."""
    path = Path(path)
    return path.parent / f"{path.stem}.json"  # with_suffix raises where there is no name


def write_sidecar(path: str | Path, output: str | Path | None = None) -> Path:
    """:func:`sidecar` as a file, by default :func:`path_beside` the model; returns its path."""
    beside = path_beside(path) if output is None else Path(output)
    with written_whole(beside) as draft:
        text = json.dumps(sidecar(path), ensure_ascii=False, indent=1)
        draft.write_text(text + "\n", encoding="utf-8")
    return beside
