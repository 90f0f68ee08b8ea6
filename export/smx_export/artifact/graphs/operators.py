"""Which operators of a graph answer differently from run to run, or as in training. No torch.

What such a file answered when it was compared says nothing about what it answers next, so it is
refused by what it holds, whatever it answered.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import NodeProto, TensorProto, numpy_helper

from smx_export.artifact.check import Check
from smx_export.artifact.files import parts

RANDOM = frozenset([
    "Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike",
    "Sampling", "BiasDropout", "BitmaskDropout", "BitmaskBiasDropout",  # onnxruntime's own
])  # fmt: skip
NAME = "operators"
REMEDY = "export the model with dropout, noise and batch norm in eval mode"


def deterministic(model: onnx.ModelProto) -> Check:
    """Whether no operator draws random numbers or computes as in training."""
    found = list(nondeterministic(model))
    if not found:
        return Check(NAME, True, "none is random or in training mode")
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    detail = f"expected none that is random or in training mode, got {found[0]}{more}; {REMEDY}"
    return Check(NAME, False, detail)


def nondeterministic(model: onnx.ModelProto) -> Iterator[str]:
    """The operators that :func:`deterministic` refuses, in words: ``Dropout 'node_3'``.

    Subgraphs and local functions are searched too. Dropout whose training mode is not known to be
    false counts as on: what decides it could be true in another run.
    """
    places = [model.graph, *model.functions]
    nodes = [node for place in places for node in parts(place, NodeProto)]
    off = _false(model, nodes)
    for node in nodes:
        if node.op_type in RANDOM or _trains(node, off):
            yield f"{node.op_type} {node.name!r}"


def draws(model: onnx.ModelProto) -> bool:
    """Whether an operator does nothing but draw: onnxruntime may end the process on such a one."""
    return any(named.split()[0] in RANDOM for named in nondeterministic(model))


def _trains(node: NodeProto, off: set[str]) -> bool:
    if node.op_type == "Dropout":  # (data, ratio, training_mode); before opset 12 data alone
        return len(node.input) > 2 and node.input[2] != "" and node.input[2] not in off
    if node.op_type == "BatchNormalization":  # before opset 14, batch statistics as outputs say so
        modes = [a for a in node.attribute if a.name == "training_mode"]
        return any(a.i or a.ref_attr_name for a in modes) or sum(map(bool, node.output)) > 1
    return False


def _false(model: onnx.ModelProto, nodes: list[NodeProto]) -> set[str]:
    """Names that stand for the constant ``False``, wherever they occur."""
    false, other = set[str](), set[str]()

    def add(name: str, tensor: TensorProto) -> None:
        (false if _is_false(tensor) else other).add(name)

    for place in (model.graph, *model.functions):
        for graph in parts(place, onnx.GraphProto):
            other.update(value.name for value in graph.input)  # the caller may override these
            for tensor in graph.initializer:
                add(tensor.name, tensor)
    other.update(name for function in model.functions for name in function.input)
    for node in nodes:
        values = [a for a in node.attribute if a.name == "value" and not a.ref_attr_name]
        if node.op_type == "Constant" and values:
            add(node.output[0], values[0].t)
        else:
            other.update(node.output)
    return false - other


def _is_false(tensor: TensorProto) -> bool:
    if tensor.data_type != TensorProto.BOOL:
        return False
    try:
        return not numpy_helper.to_array(tensor).any()
    except ValueError:  # its numbers do not fit its shape
        return False
