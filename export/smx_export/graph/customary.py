"""What ``torch.onnx.export`` takes, as far as it asks for what is done here anyway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from smx_export.contract import INPUT, KNOWN_OUTPUTS
from smx_export.graph.inference_copy import is_linear
from smx_export.graph.portable import OPSET
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.errors.inputs import is_named, shape_of_rows

TRACED_OPSET = 18  # see smx_export.graph.trace, which loads torch's exporter
# What each may be, the first of which is what is done; in other words why.
PLAIN: dict[str, tuple[tuple[Any, ...], str]] = {
    "export_params": ((True,), "the file holds the weights"),
    "external_data": ((False,), "the file is one"),
    "keep_initializers_as_inputs": ((False,), "nobody can override a weight"),
    "do_constant_folding": ((True,), "standardisation is folded into the weights"),
    "dynamo": ((True,), "torch's present exporter traces what is traced"),
    "verify": ((True,), "every file is verified"),
    "optimize": ((True, False), "the graph is written as it is proven"),
    "verbose": ((False, True), "a report says what was done"),
    "report": ((False,), "the parity report says what was done"),
    "fallback": ((False,), "one exporter writes the file"),
}


def sample_shape(sample: Any, model: SoftmaxRegression) -> Any:
    """The shape of one input out of a sample: inputs ``(batch, …)``, or a tuple of these alone.

    Of a model of several inputs a dict of them, or a tuple of this alone, and of their shapes.

    Raises:
        InputError: For anything else.
    """
    inner = sample
    if is_named(model.input_shape):
        if isinstance(inner, (tuple, list)) and len(inner) == 1:
            (inner,) = inner
        if isinstance(inner, Mapping):
            return shape_of_rows(inner)
        raise InputError(
            f"expected a sample as a dict of the inputs {', '.join(model.input_shape)}, or a tuple "
            f"of one, got {type(sample).__name__}; give {{name: rows[:1], …}}, or leave it out"
        )
    if isinstance(inner, Mapping) and len(inner) == 1:
        (inner,) = inner.values()
    while isinstance(inner, (tuple, list)) and len(inner) == 1:
        (inner,) = inner
    shape = getattr(inner, "shape", None)
    if shape is None or len(shape) < 2:
        got = f"{type(sample).__name__}" + (
            f" of shape {tuple(shape)}" if shape is not None else ""
        )
        raise InputError(
            f"expected a sample of inputs (batch, …), or a tuple of one, got {got}; give "
            "x[:1] of the training data"
        )
    return tuple(int(size) for size in shape[1:])


def taken(options: Mapping[str, Any], model: SoftmaxRegression) -> dict[str, Any]:
    """The options that are the exporter's own, once those of torch are known to ask for its file.

    Raises:
        InputError: Where one asks for another file.
    """
    left = dict(options)
    for name, (allowed, why) in PLAIN.items():
        value = left.pop(name, None)
        if value is not None and value not in allowed:
            raise _refused(name, allowed[0], value, why)
    _check_names(left, [*model.input_shape] if is_named(model.input_shape) else [INPUT])
    opset = OPSET if is_linear(model) else TRACED_OPSET
    given = left.pop("opset_version", None)
    if given not in (None, opset):
        raise _refused("opset_version", opset, given, "what such a model is written in")
    training = left.pop("training", None)
    if training not in (None, torch.onnx.TrainingMode.EVAL):
        raise _refused("training", torch.onnx.TrainingMode.EVAL, training, "files predict")
    for name in ("dynamic_axes", "dynamic_shapes"):
        axes = {*_axes(left.pop(name, None))}
        if 0 in axes and left.get("batch") is not None:
            raise _refused(name, None, sorted(axes), f"batch={left['batch']} fixes the rows")
        if axes - {0}:
            other = sorted(axes - {0})
            raise _refused(name, {INPUT: {0: "batch"}}, other, "the batch alone is open")
    return left


def _check_names(options: dict[str, Any], inputs: list[str]) -> None:
    """Take out names of inputs and outputs, if they are those that files have."""
    names = options.pop("input_names", None)
    if names is not None and [*names] != inputs:
        raise _refused("input_names", inputs, names, "so every runtime finds it")
    names = options.pop("output_names", None)
    if names is not None and not (names and {*names} <= {*KNOWN_OUTPUTS}):
        allowed = [*KNOWN_OUTPUTS]
        raise _refused("output_names", allowed, names, "some of these, as profile= says")


def _axes(given: Any) -> Iterable[int]:
    """The axes that are to be open: the keys of dictionaries, or numbers in lists, in any depth."""
    if isinstance(given, Mapping):
        for key, value in given.items():
            if isinstance(key, int):
                yield from () if value is None else (key,)
            else:
                yield from _axes(value)
    elif isinstance(given, (list, tuple)):
        for position, value in enumerate(given):
            if isinstance(value, int):
                yield value
            elif isinstance(value, (Mapping, list, tuple)):
                yield from _axes(value)
            elif value is not None:  # a shape in words, axis by axis
                yield position


def _refused(name: str, expected: Any, got: Any, why: str) -> InputError:
    return InputError(f"expected {name}={expected!r} ({why}), got {got!r}; leave it out")
