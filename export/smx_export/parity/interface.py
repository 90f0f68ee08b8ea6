"""What a file declares, against what its model wants: names, dtypes, shapes, metadata, the seal.

Free are, of the provenance, packages and training, which tell where and when the file was made; of
the profile the budget of rounding, which is the caller's; the input range, where the model knows of
none; and keys that are not ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import onnx

from smx_export.artifact.check import Check
from smx_export.artifact.columns import difference
from smx_export.artifact.declared import declared, is_ours
from smx_export.artifact.files import metadata_of, seal_holds, signature, weights_sha256
from smx_export.artifact.vectors import Vectors
from smx_export.contract import (
    ACTIVATION,
    BATCH,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT_RANGE,
    INPUT_SHAPE,
    KNOWN_OUTPUTS,
    LABEL,
    PROFILE,
    PROVENANCE,
    SCHEMA,
    SELFTEST,
    THRESHOLD,
    TOP,
    TOP_CLASSES,
)
from smx_export.errors import FileError
from smx_export.graph.detached import detached_copy
from smx_export.graph.image_input import image_metadata
from smx_export.graph.inference_copy import InferenceCopy, inference_copy, is_linear
from smx_export.graph.metadata import feature_names_of, schema_of, shape_in_json
from smx_export.parity.inputs import ParityInputs
from smx_export.parity.stored import differences
from smx_export.profile import Profile
from smx_lightning import SoftmaxRegression
from smx_lightning.activations import SOFTMAX


class Budget(NamedTuple):
    """What rounded weights may cost, by the caller's word: see :class:`smx_export.Profile`."""

    max_accuracy_loss: float = Profile.max_accuracy_loss
    max_nll_increase: float = Profile.max_nll_increase


DEFAULT = Budget()
GIVEN, OFFERED = "input", "outputs"  # checks without which a file cannot be asked


def inference_copy_like(
    model: SoftmaxRegression,
    proto: onnx.ModelProto,
    budget: Budget = DEFAULT,
    input_shape: Sequence[int] | None = None,
) -> InferenceCopy:
    """A live model in the shape of the profile that a file names, within the caller's budget."""
    metadata = metadata_of(proto)
    profile = replace(Profile.from_json(metadata.get(PROFILE)), **budget._asdict())
    missing = None if model.input_range is not None else _range_of(metadata)
    return inference_copy(detached_copy(model, input_shape, missing), profile)


def interface(inference: InferenceCopy, data: bytes, proto: onnx.ModelProto) -> Iterator[Check]:
    """The checks that need no run; ``data`` is the content that ``proto`` was parsed from."""
    model, profile = inference.model, inference.profile
    metadata = metadata_of(proto)
    holds = seal_holds(data)
    words = {True: "no byte was changed", False: "changed since export", None: "none"}
    # A file that smx_export wrote bears one; of others, and of the first ones, none is expected.
    yield Check("seal", holds is True or (holds is None and not is_ours(metadata)), words[holds])
    # All inputs: a weight that is listed among them could be overridden by the caller.
    wanted = _declared(profile, inference.inputs)
    yield _same(GIVEN, wanted, signature(proto.graph.input))
    wanted = _declared(
        profile,
        (
            (name, *_output(name, model.num_classes, profile))
            for name in KNOWN_OUTPUTS
            if name in profile.outputs
        ),
    )
    yield _same(OFFERED, wanted, signature(proto.graph.output))
    names = json.dumps(list(model.class_names), ensure_ascii=False)
    yield _same("class names", names, metadata.get(CLASS_NAMES, "none"))
    yield _same("threshold", json.dumps(model.threshold), metadata.get(THRESHOLD, "null"))
    spec = None if model._smx_activation == SOFTMAX else model._smx_activation.spec
    yield _same("activation", json.dumps(spec), metadata.get(ACTIVATION, "null"))
    yield from _columns(model, metadata)
    known = json.dumps(model.input_range, sort_keys=True)
    otherwise = "none" if is_ours(metadata) and model.input_range is not None else known
    yield _same("input range", known, metadata.get(INPUT_RANGE, otherwise))


def _columns(model: SoftmaxRegression, metadata: dict[str, str]) -> Iterator[Check]:
    """Names of features and the table's columns, where model or file have any."""
    for key, wanted in ((FEATURE_NAMES, feature_names_of(model)), (SCHEMA, schema_of(model))):
        if wanted is None and key not in metadata:
            continue
        try:
            got = json.loads(metadata.get(key, "null"))
        except (ValueError, RecursionError):
            got = metadata[key]
        fault = difference(wanted, got)
        yield Check(key.replace("_", " "), not fault, fault or "as the model has them")


def declares(inputs: ParityInputs, proto: onnx.ModelProto) -> Iterator[Check]:
    """What a file says of itself besides, against its graph and its model; it may be run anyway."""
    inference, metadata = inputs.inference, metadata_of(proto)
    model = inference.model
    yield declared(proto)
    shape = json.dumps(shape_in_json(model), sort_keys=True)
    unrolled = is_linear(model) and len(model.input_shape) == 1  # it does not know the shape
    if not unrolled:
        yield _same("input shape", shape, metadata.get(INPUT_SHAPE, shape))
    if inference.profile.image:
        wanted = image_metadata(model.input_shape)
        yield _same("image", str(wanted), str({key: metadata.get(key) for key in wanted}))
    if PROVENANCE in metadata:
        yield _same("model class", type(model).__qualname__.rpartition(".")[2], _class(metadata))
    if SELFTEST in metadata:
        yield _vectors(inputs, proto, metadata[SELFTEST])


def _class(metadata: dict[str, str]) -> str:
    """Name of the class in the provenance; its module may have been __main__ in training."""
    try:
        return str(json.loads(metadata[PROVENANCE])["model_class"]).rpartition(".")[2]
    except (ValueError, TypeError, KeyError, RecursionError):
        return "none"


def _vectors(inputs: ParityInputs, proto: onnx.ModelProto, text: str) -> Check:
    """Whether a file's vectors are those that the model itself gives."""
    try:
        found, weights = Vectors.from_json(text)
        fault = differences(found, inputs)
    except FileError as error:
        fault, weights = str(error), ""
    if not fault and weights != weights_sha256(proto):
        fault = "the hash of other weights"
    return Check("self-test", not fault, fault or f"the model's own {len(found.inputs)} vectors")


def _range_of(metadata: dict[str, str]) -> Any:
    """The input range in a file's metadata, if any; of several inputs a dict by name."""
    try:
        bounds = json.loads(metadata.get(INPUT_RANGE, "null"))
        if isinstance(bounds, dict):
            return {name: (low, high) for name, (low, high) in bounds.items()}
        return None if bounds is None else (float(bounds[0]), float(bounds[1]))
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise FileError(
            f"expected an input range of two numbers in the file's metadata, got "
            f"{metadata[INPUT_RANGE][:40]!r}; export it again"
        ) from error


def _output(name: str, num_classes: int, profile: Profile) -> tuple[str, list[int]]:
    """Dtype of an output, and its shape for one row."""
    if name == LABEL:
        return "int64", []
    size = num_classes if name not in TOP or profile.top_k is None else profile.top_k
    return "int64" if name == TOP_CLASSES else "float32", [size]


def _declared(profile: Profile, values: Iterable[tuple[str, str, list[int]]]) -> str:
    rows = profile.batch or BATCH
    return ", ".join(f"{name}: {dtype} {[rows, *shape]}" for name, dtype, shape in values)


def _same(name: str, expected: str, got: str) -> Check:
    if expected == got:
        return Check(name, True, got)
    return Check(name, False, f"expected {expected}, got {got or 'none'}")
