"""Arrays → the most portable ONNX graph of a softmax regression.

    input [batch, d] → Gemm(transB=1) → LogSoftmax(axis=1) → log_probs [batch, K]
                                      ↘ Softmax(axis=1)    → probs     [batch, K]

Opset 17 with IR 8 is what the oldest runtimes in the field accept; this graph ran unchanged on all
of them. It is built directly: about 10 ms, and byte for byte the same for the same arrays, which no
tracing exporter promises. A :class:`Layout` names what may differ, and why it would. No torch
here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from smx_export.artifact.tolerance import handicap
from smx_export.contract import (
    ALL_OUTPUTS,
    BATCH,
    INPUT,
    LABEL,
    LINEAR,
    LOG_PROBS,
    OUTPUTS,
    PROBS,
    SCORES,
)
from smx_export.graph.quantization import Rounded

OPSET = 17
IR_VERSION = 8
PRODUCER = "smx-lightning"
PIXELS = "pixels"
AXES_ARE_INPUTS = 18  # of ReduceMax, from this opset on


@dataclass(frozen=True)
class Layout:
    """What a file offers and how it computes.

    Attributes:
        outputs: Some of ``log_probs``, ``probs``, ``scores`` and ``label``.
        robust: Log-probabilities out of elementary operators, for runtimes whose LogSoftmax is
            log(softmax), which is -inf from about 104 nats on.
        image: Shape of uint8 images to take as input; ``None`` for unrolled features.
        wide: Features in float64, whose mean is subtracted before they become float32.
        threshold: γ of a binary problem, which the label obeys.
    """

    outputs: tuple[str, ...] = OUTPUTS
    robust: bool = False
    image: tuple[int, ...] | None = None
    wide: bool = False
    threshold: float | None = None


def softmax_regression_graph(
    weight: NDArray[np.floating] | Rounded,
    bias: NDArray[np.floating],
    metadata: Mapping[str, str],
    *,
    shift: NDArray[np.floating] | None = None,
    layout: Layout = Layout(),
) -> onnx.ModelProto:
    """The graph of ``log_softmax(weight @ (x - shift) + bias)``, computed in float32.

    Of a wide layout the difference is computed in float64.

    Args:
        weight: (classes, features); what :mod:`smx_export.graph.quantization` rounded is stored so.
        bias: (classes,).
        metadata: Stored under the model's ``metadata_props``.
        shift: (features,), or ``None`` for the plain graph without a subtraction.
        layout: What the file offers.

    >>> model = softmax_regression_graph(np.eye(3, 4), np.zeros(3), {})
    >>> [node.op_type for node in model.graph.node]
    ['Gemm', 'LogSoftmax', 'Softmax']
    """
    num_classes, num_features = weight.shape
    nodes: list[NodeProto] = []
    arrays: dict[str, NDArray[np.generic]] = {}
    x = INPUT
    if layout.image is not None:
        x = "features"
        nodes.append(helper.make_node("Flatten", [INPUT], [x], "flatten", axis=1))
    if shift is not None:
        arrays["shift"] = np.ascontiguousarray(shift, np.float64 if layout.wide else np.float32)
        nodes.append(helper.make_node("Sub", [x, "shift"], ["shifted"], "sub"))
        x = "shifted"
    if layout.wide:
        narrow = helper.make_node("Cast", [x], ["narrowed"], "narrow", to=TensorProto.FLOAT)
        nodes.append(narrow)
        x = "narrowed"
    if isinstance(weight, Rounded):
        if weight.scale is not None:
            arrays["scale"] = weight.scale
            nodes.append(helper.make_node("Mul", [x, "scale"], ["scaled"], "scale"))
            x = "scaled"
        arrays["stored"] = weight.stored
        widen = helper.make_node("Cast", ["stored"], ["weight"], "widen", to=TensorProto.FLOAT)
        nodes.append(widen)
    else:
        arrays["weight"] = np.ascontiguousarray(weight, np.float32)
    arrays["bias"] = np.ascontiguousarray(bias, np.float32)
    nodes.append(helper.make_node("Gemm", [x, "weight", "bias"], [SCORES], "gemm", transB=1))
    graph = helper.make_graph(
        nodes,
        LINEAR,
        [float_tensor(INPUT, [num_features], wide=layout.wide)],
        [],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    if layout.image is not None:
        take_pixels(model, layout.image)
    append_outputs(model, num_classes, layout)
    sign(model, metadata)
    return model


def take_pixels(model: onnx.ModelProto, shape: Sequence[int]) -> None:
    """Let the float32 input be a uint8 image of that shape, which ONNX's type denotation says."""
    for node in model.graph.node:
        node.input[:] = [PIXELS if name == INPUT else name for name in node.input]
    cast = helper.make_node("Cast", [INPUT], [PIXELS], "cast", to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [BATCH, *shape])
    image.type.denotation = "IMAGE"
    for dim, denotation in zip(image.type.tensor_type.shape.dim, _denotations(shape), strict=True):
        dim.denotation = denotation
    model.graph.input[0].CopyFrom(image)


def image_metadata(shape: Sequence[int]) -> dict[str, str]:
    """What ONNX's type denotation says of an image besides; unlike our own keys, no JSON."""
    colour = 3 in (len(shape) and shape[0], shape[-1]) and len(shape) == 3
    return {
        "Image.BitmapPixelFormat": "Rgb8" if colour else "Gray8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }


def _denotations(shape: Sequence[int]) -> list[str]:
    pixels = ["DATA_FEATURE", "DATA_FEATURE"]
    if len(shape) != 3:
        return ["DATA_BATCH", *(pixels if len(shape) == 2 else [""] * len(shape))]
    channels_first = shape[0] in (1, 3)
    rest = ["DATA_CHANNEL", *pixels] if channels_first else [*pixels, "DATA_CHANNEL"]
    return ["DATA_BATCH", *rest]


def append_outputs(model: onnx.ModelProto, num_classes: int, layout: Layout) -> None:
    """Add what follows the scores, and declare the outputs.

    Args:
        model: A graph with a tensor ``scores`` (batch, classes); of a head that is not ours, with
            ``log_probs`` only.
        num_classes: K.
        layout: What the file offers.
    """
    opset = model.opset_import[0].version
    nodes, arrays = model.graph.node, model.graph.initializer
    foreign = any(LOG_PROBS in node.output for node in nodes)
    robust = layout.robust and LOG_PROBS in layout.outputs
    if LABEL in layout.outputs or (robust and opset >= AXES_ARE_INPUTS):
        arrays.append(numpy_helper.from_array(np.array([1], np.int64), "classes_axis"))
    probs = (
        helper.make_node("Exp", [LOG_PROBS], [PROBS], "exp_log_probs")
        if foreign
        else helper.make_node("Softmax", [SCORES], [PROBS], "softmax", axis=1)
    )
    if robust:
        nodes.extend([probs, *_robust_log_softmax(opset)])
    else:
        if LOG_PROBS in layout.outputs and not foreign:
            nodes.append(
                helper.make_node("LogSoftmax", [SCORES], [LOG_PROBS], "log_softmax", axis=1)
            )
        if PROBS in layout.outputs:
            nodes.append(probs)
    if LABEL in layout.outputs:
        ahead = chosen_from = LOG_PROBS if foreign else SCORES
        if layout.threshold is not None:  # p₁ ≥ γ is z₁ - z₀ ≥ log(γ / (1 - γ))
            ahead_of_1 = np.array([handicap(layout.threshold), 0], np.float32)
            arrays.append(numpy_helper.from_array(ahead_of_1, "handicap"))
            chosen_from = "handicapped"
            nodes.append(helper.make_node("Add", [ahead, "handicap"], [chosen_from], "threshold"))
        # Of the scores: softmax may round two of them to one probability. OpenCV 4 answers from
        # stale memory where ArgMax drops the dimension itself.
        nodes.extend(
            [
                helper.make_node("ArgMax", [chosen_from], ["winner"], "argmax", axis=1, keepdims=1),
                helper.make_node("Squeeze", ["winner", "classes_axis"], [LABEL], "squeeze"),
            ]
        )
    for name in ALL_OUTPUTS:
        if name in layout.outputs:
            model.graph.output.append(
                helper.make_tensor_value_info(name, TensorProto.INT64, [BATCH])
                if name == LABEL
                else float_tensor(name, [num_classes])
            )


def _robust_log_softmax(opset: int) -> list[NodeProto]:
    """(z - max z) + log max p, which is log-softmax because max p = 1 / Σ exp(z - max z).

    It never underflows, as max p ≥ 1/K. Tried before: the sum itself, which ncnn's converter takes
    over the batch; and a subtraction at the end, which OpenCV fuses back into log(softmax).
    """
    axes = ["classes_axis"] if opset >= AXES_ARE_INPUTS else []

    def largest(of: str, name: str) -> NodeProto:
        node = helper.make_node("ReduceMax", [of, *axes], [name], name, keepdims=1)
        if not axes:
            node.attribute.append(helper.make_attribute("axes", [1]))
        return node

    return [
        largest(SCORES, "max_score"),
        largest(PROBS, "max_prob"),
        helper.make_node("Sub", [SCORES, "max_score"], ["below_max"], "below_max"),
        helper.make_node("Log", ["max_prob"], ["log_max_prob"], "log"),
        helper.make_node("Add", ["below_max", "log_max_prob"], [LOG_PROBS], "log_probs"),
    ]


def sign(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Name the producer and replace the metadata, in sorted order."""
    model.producer_name = PRODUCER
    model.producer_version = version("smx-lightning")
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(metadata.items())))


def float_tensor(name: str, shape: Sequence[int], *, wide: bool = False) -> onnx.ValueInfoProto:
    """A float32 input or output ``[batch, *shape]``, float64 where wide.

    An unnamed batch breaks tract and tinygrad.
    """
    dtype = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, dtype, [BATCH, *shape])
