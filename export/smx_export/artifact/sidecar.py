"""A file's metadata as a JSON file beside it, for runtimes that cannot read ONNX metadata."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper

from smx_export.artifact.content import read_bytes
from smx_export.artifact.exported import read_intact
from smx_export.artifact.files import batch_of
from smx_export.artifact.vectors import base64_of
from smx_export.contract import ACTIVATION, CLASS_NAMES, INPUT_RANGE, INPUT_SHAPE, THRESHOLD
from smx_export.errors import FileError
from smx_lightning.processes.files import written_whole


def sidecar(path: str | Path) -> dict[str, Any]:
    """Class names, input, outputs, and the self-test with its inputs written out.

    Numbers of the self-test are base64 of little-endian ``dtype`` (inputs) and float32 (log_probs;
    in place of them probs where the activation is no softmax).

    Raises:
        FileError: Where the file was not exported by smx_export, or was changed since.
    """
    data, exported = read_bytes(path), read_intact(path)
    (given,) = exported.proto.graph.input
    tensor, batch = given.type.tensor_type, batch_of(given)
    if tensor.elem_type not in TensorProto.DataType.values():
        raise FileError(
            f"expected an input of a type that ONNX has in {path}, got type {tensor.elem_type}; "
            "export it again"
        )
    x, expected = exported.vectors.x, exported.vectors
    spec, answers = exported.value(ACTIVATION), {"log_probs": base64_of(expected.log_probs)}
    if expected.sparse:
        answers = {"probs": base64_of(np.exp(expected.log_probs))}
    found = {
        "name": os.fsencode(Path(path).stem).decode("utf-8", "replace"),  # disks allow any bytes
        "sha256": sha256(data).hexdigest(),
        "weights_sha256": exported.weights_sha256,
        **{key: exported.value(key) for key in (CLASS_NAMES, INPUT_SHAPE, INPUT_RANGE, THRESHOLD)},
        **({} if spec is None else {ACTIVATION: spec}),
        "input": {
            "name": given.name,
            "dtype": helper.tensor_dtype_to_np_dtype(tensor.elem_type).name,
            "shape": [dim.dim_value for dim in tensor.shape.dim[1:]],
            **({} if batch is None else {"batch": batch}),
        },
        "outputs": [output.name for output in exported.proto.graph.output],
        "selftest": {
            "dtype": x.dtype.name,
            "shape": list(x.shape),
            "inputs": base64_of(x),
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


def write_sidecar(path: str | Path) -> Path:
    """:func:`sidecar` as a file beside the model, of the same name with ``.json``."""
    path = Path(path)
    beside = path.with_suffix(".json")
    with written_whole(beside) as draft:
        text = json.dumps(sidecar(path), ensure_ascii=False, indent=1)
        draft.write_text(text + "\n", encoding="utf-8")
    return beside
