"""Arrays → the most portable ONNX graph of a softmax regression.

    input [batch, d] → Gemm(transB=1) → LogSoftmax(axis=1) → log_probs [batch, K]
                                      ↘ Softmax(axis=1)    → probs     [batch, K]

Opset 17 with IR 8 is what the oldest runtimes in the field accept; this graph ran unchanged on all
of them. It is built directly: about 10 ms, and byte for byte the same for the same arrays, which no
tracing exporter promises. A :class:`smx_export.graph.layout.Layout` names what may differ, and why
it would. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from smx_export.contract import INPUT, LINEAR, SCORES
from smx_export.graph.image_input import take_pixels
from smx_export.graph.layout import PLAIN, Layout, float_tensor
from smx_export.graph.outputs import append_outputs
from smx_export.graph.quantization import Rounded
from smx_lightning import DISTRIBUTION, __version__

OPSET = 17
IR_VERSION = 8


def softmax_regression_graph(
    weight: NDArray[np.floating] | Rounded,
    bias: NDArray[np.floating],
    metadata: Mapping[str, str],
    *,
    shift: NDArray[np.floating] | None = None,
    layout: Layout = PLAIN,
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
    chain = _Chain(INPUT)
    _add_features(chain, shift, layout)
    _add_scores(chain, weight, bias)
    graph = helper.make_graph(
        chain.nodes,
        LINEAR,
        [float_tensor(INPUT, [num_features], wide=layout.wide)],
        [],
        [numpy_helper.from_array(array, name) for name, array in chain.arrays.items()],
    )
    model = helper.make_model(
        graph,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    if layout.image is not None:
        take_pixels(model, layout.image)
    append_outputs(model, num_classes, layout)
    set_metadata(model, metadata)
    return model


@dataclass
class _Chain:
    """Nodes in a row, the stored arrays that they use, and the name of what the last one made."""

    last: str
    nodes: list[NodeProto] = field(default_factory=list)
    arrays: dict[str, NDArray[np.generic]] = field(default_factory=dict)

    def add(self, op: str, made: str, name: str, *arrays: str, **attributes: Any) -> None:
        """A node that makes ``made`` out of what was made last, and of stored arrays."""
        self.nodes.append(helper.make_node(op, [self.last, *arrays], [made], name, **attributes))
        self.last = made


def _add_features(chain: _Chain, shift: NDArray[np.floating] | None, layout: Layout) -> None:
    """The input as the linear layer takes it: unrolled, shifted, in float32."""
    if layout.image is not None:
        chain.add("Flatten", "features", "flatten", axis=1)
    if shift is not None:
        dtype = np.float64 if layout.wide else np.float32
        chain.arrays["shift"] = np.ascontiguousarray(shift, dtype)
        chain.add("Sub", "shifted", "sub", "shift")
    if layout.wide:
        chain.add("Cast", "narrowed", "narrow", to=TensorProto.FLOAT)


def _add_scores(
    chain: _Chain, weight: NDArray[np.floating] | Rounded, bias: NDArray[np.floating]
) -> None:
    """The linear layer; rounded weights are widened to float32, and their scale multiplies x."""
    if isinstance(weight, Rounded):
        if weight.scale is not None:
            chain.arrays["scale"] = weight.scale
            chain.add("Mul", "scaled", "scale", "scale")
        chain.arrays["stored"] = weight.stored
        widen = helper.make_node("Cast", ["stored"], ["weight"], "widen", to=TensorProto.FLOAT)
        chain.nodes.append(widen)
    else:
        chain.arrays["weight"] = np.ascontiguousarray(weight, np.float32)
    chain.arrays["bias"] = np.ascontiguousarray(bias, np.float32)
    chain.add("Gemm", SCORES, "gemm", "weight", "bias", transB=1)


def set_metadata(model: onnx.ModelProto, metadata: Mapping[str, str]) -> None:
    """Name the producer and replace the metadata, in sorted order."""
    model.producer_name = DISTRIBUTION
    model.producer_version = __version__
    del model.metadata_props[:]
    helper.set_model_props(model, dict(sorted(metadata.items())))
