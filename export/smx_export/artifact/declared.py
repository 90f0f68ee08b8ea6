"""Does what a file says of itself agree with its graph? Its metadata, entry by entry. No torch.

Nothing here needs the model, so a file's own test looks at it too. Keys that are not ours are free.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

from smx_export.artifact.activation import SOFTMAX, alpha_of
from smx_export.artifact.check import Check
from smx_export.artifact.columns import UNREADABLE, names_of, schema_of
from smx_export.artifact.files import batch_of, metadata_of
from smx_export.artifact.rows import Fields, rows_dtype
from smx_export.artifact.vectors import Vectors
from smx_export.contract import (
    ACTIVATION,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT,
    INPUT_RANGE,
    INPUT_SHAPE,
    LABEL,
    LOG_PROBS,
    PROBS,
    PROFILE,
    PROVENANCE,
    SCHEMA,
    SCORES,
    SELFTEST,
    SHA256,
    THRESHOLD,
    TOP,
)
from smx_export.errors import FileError
from smx_export.profile import Profile

NAME = "metadata"
IMAGE = "IMAGE"  # ONNX's denotation
# Files have these three together, or are older than them, or another tool's.
OURS = (PROFILE, SELFTEST, SHA256)
ALWAYS = (CLASS_NAMES, INPUT_SHAPE, PROVENANCE, PROFILE, SELFTEST)  # and the seal


@dataclass(frozen=True)
class Interface:
    """What a graph declares.

    Attributes:
        dtype: Of rows, as :mod:`smx_export.artifact.rows` has them.
        shape: Of one input; of several ``()``.
        shapes: Of each input by name.
        image: Whether the input is denoted as an image.
        outputs: Their names.
        classes: Their number, ``None`` where only a label is offered and no answers are stored.
        sparse: Whether it is declared to end in another activation than softmax.
        softmax: Whether an output is that of a softmax.
        batches: The numbers of rows that input and outputs are fixed to, ``None`` for any.
        top: How many classes each row's most probable ones are, as the outputs say.
        features: What the metadata call the features.
    """

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]
    image: bool
    outputs: tuple[str, ...]
    classes: int | None
    sparse: bool
    softmax: bool
    batches: frozenset[int | None]
    top: frozenset[int]
    features: str | None


def is_ours(metadata: dict[str, str]) -> bool:
    """Whether a file bears anything that only this project's exporter writes."""
    return any(key in metadata for key in OURS)


def declared(proto: onnx.ModelProto) -> Check:
    """Whether every entry of a file's metadata is there, sound, and true of its graph."""
    metadata = metadata_of(proto)
    faults = list(_faults(metadata, interface_of(proto, metadata)))
    more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
    detail = f"{faults[0]}{more}" if faults else "agrees with the graph"
    return Check(NAME, not faults, detail)


def interface_of(proto: onnx.ModelProto, metadata: dict[str, str]) -> Interface:
    """Input and outputs of a file, as far as they are of a kind that ONNX knows."""
    given = {value.name: value.type for value in _given(proto)}
    fields = {name: _of_tensor(kind.tensor_type) for name, kind in given.items()}
    dtype, shape = next(iter(fields.values()), (np.dtype(object), ()))
    if [*fields] != [INPUT] or metadata.get(INPUT_SHAPE, "").startswith("{"):
        dtype, shape = _of_records(fields), ()
    return Interface(
        dtype=dtype,
        shape=shape,
        shapes={name: sides for name, (_, sides) in fields.items()},
        image=any(kind.denotation == IMAGE for kind in given.values()),
        outputs=tuple(output.name for output in proto.graph.output),
        classes=_classes(proto, metadata),
        sparse=ACTIVATION in metadata,
        softmax=any(
            node.op_type in ("Softmax", "LogSoftmax") and {*node.output} & {LOG_PROBS, PROBS}
            for node in proto.graph.node
        ),
        batches=frozenset(map(batch_of, [*_given(proto), *proto.graph.output])),
        top=frozenset(_last(output) for output in proto.graph.output if output.name in TOP),
        features=metadata.get(FEATURE_NAMES),
    )


def _of_records(fields: Fields) -> np.dtype[Any]:
    """Of rows of several inputs; where numpy has none, as of 2³¹ bytes a row, another than all."""
    try:
        return rows_dtype(fields)
    except (ValueError, TypeError):
        return np.dtype(object)


def _of_tensor(tensor: onnx.TypeProto.Tensor) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Dtype and shape of one input."""
    try:
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type))
    except (KeyError, TypeError, ValueError):
        dtype = np.dtype(object)
    return dtype, tuple(dim.dim_value for dim in tensor.shape.dim[1:])


def _given(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs, of which weights may be some."""
    initial = {tensor.name for tensor in proto.graph.initializer}
    return [value for value in proto.graph.input if value.name not in initial]


def _last(value: onnx.ValueInfoProto) -> int:
    """The last dimension, 0 of what has none."""
    shape = value.type.tensor_type.shape.dim
    return int(shape[-1].dim_value) if shape else 0


def _classes(proto: onnx.ModelProto, metadata: dict[str, str]) -> int | None:
    """By the outputs' declared shapes, or by the answers that are stored."""
    told = [output for output in proto.graph.output if output.name not in (LABEL, *TOP)]
    sizes = {_last(output) for output in told if output.type.tensor_type.shape.dim}
    if len(sizes) == 1:
        return int(sizes.pop())
    try:
        return int(Vectors.from_json(metadata[SELFTEST])[0].log_probs.shape[1])
    except (KeyError, FileError):
        return None


def _faults(metadata: dict[str, str], graph: Interface) -> Iterator[str]:
    missing = [key for key in ALWAYS if key not in metadata] if is_ours(metadata) else []
    yield from (f"{key} is missing" for key in missing)
    for key, expected in EXPECTED.items():
        if key not in metadata:
            continue
        try:
            value = json.loads(metadata[key])
        except (ValueError, RecursionError):
            value = ...  # no JSON, so nothing that is expected
        try:
            sound = expected.holds(value, graph)
        except UNREADABLE:
            sound = False
        if not sound:
            yield f"{key} is no {expected.words}: {metadata[key][:40]!r}"


def _are_names(value: Any, graph: Interface) -> bool:
    texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
    return texts and len({*value}) == len(value) == (graph.classes or len(value))


def _is_shape(value: Any, graph: Interface) -> bool:
    if isinstance(value, dict):  # as of no other file its rows are records
        shapes = {name: [*sides] for name, sides in graph.shapes.items()}
        return value == shapes and all(type(size) is int for of in value.values() for size in of)
    sizes = isinstance(value, list) and all(type(size) is int and size > 0 for size in value)
    flat = len(graph.shape) == 1 and sizes and graph.shape == (math.prod(value),)
    return sizes and bool(value) and (flat or graph.shape == tuple(value))


def _is_range(value: Any, graph: Interface) -> bool:
    if graph.dtype.names is not None and isinstance(value, dict):
        known = bool(value) and value.keys() <= graph.shapes.keys()
        return known and all(_is_pair(pair) for pair in value.values())
    return graph.dtype.names is None and _is_pair(value)


def _is_pair(value: Any) -> bool:
    low, high = value
    return {type(low), type(high)} <= {int, float} and -math.inf < low < high < math.inf


def _are_features(value: Any, graph: Interface) -> bool:
    one = graph.dtype.names is None and bool(graph.shape)
    return one and len(names_of(value)) == math.prod(graph.shape)


def _is_schema(value: Any, graph: Interface) -> bool:
    named = json.loads(graph.features or "null")
    return _are_features(named, graph) and list(schema_of(value).feature_names) == named


def _is_threshold(value: Any, graph: Interface) -> bool:
    return type(value) is float and 0 < value < 1 and graph.classes in (2, None)


def _is_activation(value: Any, graph: Interface) -> bool:
    return alpha_of(value) != SOFTMAX and not graph.softmax


def _is_provenance(value: Any, graph: Interface) -> bool:
    return (
        isinstance(value["model_class"], str)
        and all(isinstance(version, str) for version in value["packages"].values())
        and isinstance(value["training"], (dict, type(None)))
    )


def _is_profile(value: Any, graph: Interface) -> bool:
    try:
        profile = Profile.from_json(json.dumps(value))
    except FileError:
        return False
    # uint8 alone is an input of bytes, of which a profile makes pixels.
    bytes_ = graph.dtype == np.uint8
    images = bytes_ if profile.image else not (bytes_ and graph.image)
    sizes = graph.batches == {profile.batch} and graph.top <= {profile.top_k}
    return sorted(profile.outputs) == sorted(graph.outputs) and images and sizes


def _is_self_test(value: Any, graph: Interface) -> bool:
    try:
        vectors, _ = Vectors.from_json(json.dumps(value))
    except FileError:
        return False
    return (
        vectors.rows.dtype == graph.dtype
        and vectors.rows.shape[1:] == graph.shape
        and vectors.log_probs.shape[1] == (graph.classes or vectors.log_probs.shape[1])
        and vectors.tells_scores == (SCORES in graph.outputs)
        and vectors.sparse == graph.sparse
    )


class Expected(NamedTuple):
    """What a key holds, as a predicate and in words."""

    holds: Callable[[Any, Interface], bool]
    words: str


EXPECTED = {  # of every key but the seal, which is looked at by itself
    CLASS_NAMES: Expected(_are_names, "list of one name a class"),
    INPUT_SHAPE: Expected(_is_shape, "shape of one input"),
    INPUT_RANGE: Expected(_is_range, "pair of two finite numbers, the smaller first"),
    FEATURE_NAMES: Expected(_are_features, "list of one name a feature"),
    SCHEMA: Expected(_is_schema, "schema of a table whose features have these names"),
    THRESHOLD: Expected(_is_threshold, "probability of the second of two classes"),
    ACTIVATION: Expected(_is_activation, "activation that such a graph ends in"),
    PROVENANCE: Expected(_is_provenance, "record of packages, model_class and training"),
    PROFILE: Expected(_is_profile, "profile of a file with this input and these outputs"),
    SELFTEST: Expected(_is_self_test, "self-test of a file with this input and these outputs"),
}
