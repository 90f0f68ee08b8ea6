"""What a file declares, against what its model wants: names, dtypes, shapes, metadata, the seal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np
import onnx

from smx_export.artifact.check import Check
from smx_export.artifact.files import metadata_of, seal_holds, signature
from smx_export.contract import (
    ALL_OUTPUTS,
    BATCH,
    CLASS_NAMES,
    INPUT,
    INPUT_RANGE,
    LABEL,
    PROFILE,
    THRESHOLD,
)
from smx_export.errors import FileError
from smx_export.graph.detached import detached_copy
from smx_export.graph.inference_copy import InferenceCopy, inference_copy
from smx_export.profile import Profile
from smx_lightning import SoftmaxRegression


def inference_copy_like(model: SoftmaxRegression, proto: onnx.ModelProto) -> InferenceCopy:
    """A live model in the shape of the profile that a file names."""
    metadata = metadata_of(proto)
    profile = Profile.from_json(metadata.get(PROFILE))
    missing = None if model.input_range is not None else _range_of(metadata)
    return inference_copy(detached_copy(model, input_range=missing), profile)


def interface(inference: InferenceCopy, data: bytes, proto: onnx.ModelProto) -> Iterator[Check]:
    """The checks that need no run; ``data`` is the content that ``proto`` was parsed from."""
    model, profile = inference.model, inference.profile
    holds = seal_holds(data)
    words = {True: "no byte was changed", False: "changed since export", None: "none"}
    yield Check("seal", holds is not False, words[holds])
    # All inputs: a weight that is listed among them could be overridden by the caller.
    given = inference.fed(np.zeros((1, *model.input_shape), inference.dtype))
    wanted = _declared([(INPUT, given.dtype.name, list(given.shape[1:]))])
    yield _same("input", wanted, signature(proto.graph.input))
    wanted = _declared(
        (name, "int64", []) if name == LABEL else (name, "float32", [model.num_classes])
        for name in ALL_OUTPUTS
        if name in profile.outputs
    )
    yield _same("outputs", wanted, signature(proto.graph.output))
    metadata = metadata_of(proto)
    names = json.dumps(list(model.class_names), ensure_ascii=False)
    yield _same("class names", names, metadata.get(CLASS_NAMES, "none"))
    yield _same("threshold", json.dumps(model.threshold), metadata.get(THRESHOLD, "null"))
    known = json.dumps(model.input_range)
    yield _same("input range", known, metadata.get(INPUT_RANGE, known))


def _range_of(metadata: dict[str, str]) -> tuple[float, float] | None:
    """The input range in a file's metadata, if any."""
    try:
        bounds = json.loads(metadata.get(INPUT_RANGE, "null"))
        return None if bounds is None else (float(bounds[0]), float(bounds[1]))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise FileError(
            f"expected an input range of two numbers in the file's metadata, got "
            f"{metadata[INPUT_RANGE][:40]!r}; export it again"
        ) from error


def _declared(values: Iterable[tuple[str, str, list[int]]]) -> str:
    return ", ".join(f"{name}: {dtype} {[BATCH, *shape]}" for name, dtype, shape in values)


def _same(name: str, expected: str, got: str) -> Check:
    if expected == got:
        return Check(name, True, got)
    return Check(name, False, f"expected {expected}, got {got or 'none'}")
