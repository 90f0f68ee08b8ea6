"""What a file says of its model: class names, shapes, ranges, threshold, provenance."""

from __future__ import annotations

import json
import math
from functools import cache
from importlib import metadata
from typing import Any

from smx_export.contract import (
    ACTIVATION,
    CLASS_NAMES,
    FEATURE_NAMES,
    INPUT_RANGE,
    INPUT_SHAPE,
    PROFILE,
    PROVENANCE,
    SCHEMA,
    THRESHOLD,
)
from smx_export.graph.image_input import image_metadata
from smx_export.profile import Profile
from smx_lightning import DISTRIBUTION, InputError, SoftmaxRegression, __version__
from smx_lightning.activations import SOFTMAX

PACKAGES = ("torch", "lightning", "onnx", "onnxscript", "onnxruntime", "numpy")


def model_metadata(
    model: SoftmaxRegression, profile: Profile, training: dict[str, Any] | None
) -> dict[str, str]:
    """Each entry's name and its value as JSON; ``training`` is a checkpoint's summary of it."""
    provenance = {
        "packages": {DISTRIBUTION: __version__} | _versions(),
        "model_class": f"{type(model).__module__}.{type(model).__qualname__}",
        "training": training,
    }
    values = {
        CLASS_NAMES: list(model.class_names),
        INPUT_SHAPE: shape_in_json(model),
        INPUT_RANGE: model.input_range,
        PROVENANCE: provenance,
        THRESHOLD: model.threshold,
        FEATURE_NAMES: feature_names_of(model),
        SCHEMA: schema_of(model),
        ACTIVATION: None if model._smx_activation == SOFTMAX else model._smx_activation.spec,
    }
    try:
        texts = {
            key: json.dumps(value, sort_keys=True, ensure_ascii=False)
            for key, value in values.items()
            if value is not None
        }
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"expected a checkpoint whose notes on training JSON can hold, got others ({error}); "
            "they were changed since it was saved, take an unchanged one"
        ) from error
    texts[PROFILE] = profile.to_json()
    return texts | (image_metadata(model.input_shape) if profile.image else {})


def shape_in_json(model: SoftmaxRegression) -> list[int] | dict[str, list[int]]:
    """Shape of one input; of several inputs that of each by name."""
    if isinstance(model.input_shape, dict):
        return {name: list(sides) for name, sides in model.input_shape.items()}
    return list(model.input_shape)


def feature_names_of(model: SoftmaxRegression) -> list[str] | None:
    """One name an entry of an unrolled input, where the model has them.

    Behind a backbone the features are no entries of the input: there they have no names.
    """
    names, shape = model.feature_names, model.input_shape
    if names is None or isinstance(shape, dict) or math.prod(shape) != len(names):
        return None
    return list(names)


def schema_of(model: SoftmaxRegression) -> dict[str, Any] | None:
    """Which columns of a table the entries of an input are, as plain values."""
    if model.schema is None or feature_names_of(model) is None:
        return None
    return model.schema.to_dict()


@cache
def _versions() -> dict[str, str]:
    """Of the packages that made the file; looking them up takes longer than building a graph."""
    return {name: metadata.version(name) for name in PACKAGES}
