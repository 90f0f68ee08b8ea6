"""A node's attributes as values that can be compared, and a tensor's. No torch."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from smx_export.artifact.files import parts

FIRST_OPSET = 13  # from here on the operators of the exporter's own graphs mean the same
LAST_OPSET = 26  # up to here that was tried
# Those, and what optimisers make of them. Others (AveragePool, Resize, RoiAlign) came to mean
# something else with attributes that are new, or are left out.
STEADY = frozenset([
    "Add", "ArgMax", "BatchNormalization", "Cast", "Constant", "Dropout", "Exp", "Flatten", "Gemm",
    "Identity", "Log", "LogSoftmax", "MatMul", "Mul", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceSum", "Softmax", "Squeeze", "Sub", "Transpose", "Unsqueeze",
])  # fmt: skip
Attributes = dict[str, Any]


class UnfitError(Exception):
    """What no graph of the exporter's has, in words."""


def array_of(tensor: TensorProto) -> NDArray[Any]:
    """A tensor's values.

    Raises:
        UnfitError: Where they do not fit its shape.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, KeyError, TypeError) as error:
        raise UnfitError(f"a tensor {tensor.name!r} that does not fit its shape") from error


def attributes_of(node: NodeProto, opset: int) -> Attributes:
    """Attributes by name as values that can be compared, with those that are left out.

    Of steady operators those that came after :data:`FIRST_OPSET` are left out where they say what
    was meant before. Any other operator with more attributes is another one.
    """
    given = {attribute.name: attribute for attribute in node.attribute}
    if len(given) < len(node.attribute):
        raise UnfitError(f"{node.op_type!r} with an attribute twice")
    defaults = _defaults(node.op_type, opset)
    if defaults is None:
        raise UnfitError(f"an operator {node.op_type!r} that ONNX does not have")
    found = dict(defaults) | {name: value_of(attribute) for name, attribute in given.items()}
    early = _defaults(node.op_type, FIRST_OPSET)
    if early is None or node.op_type not in STEADY:
        return found
    absent = (None, None)
    return {
        name: value
        for name, value in found.items()
        if value != absent and (name in early or value != defaults.get(name))
    }


@lru_cache(maxsize=4096)
def _defaults(op: str, opset: int) -> dict[str, Any] | None:
    """All attributes of an operator: their defaults, or that there is none."""
    try:
        schema = onnx.defs.get_schema(op, opset, "")
    except onnx.defs.SchemaError:
        return None
    return {
        name: value_of(attribute.default_value) for name, attribute in schema.attributes.items()
    }


def value_of(attribute: AttributeProto) -> tuple[Any, Any]:
    """The kind and the content of an attribute, to be compared: bits of a number, bytes of a graph.

    Raises:
        UnfitError: Where it stands for an attribute of a function.
    """
    if attribute.ref_attr_name:
        raise UnfitError("an attribute of a function, outside of one")
    kind = attribute.type
    if kind == AttributeProto.UNDEFINED:
        return None, None
    if kind == AttributeProto.TENSOR:
        array = array_of(attribute.t)
        return kind, (str(array.dtype), array.shape, array.tobytes())
    if kind in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
        return kind, _without_notes(attribute).SerializeToString(deterministic=True)
    value = helper.get_attribute_value(attribute)
    if kind in (AttributeProto.FLOAT, AttributeProto.FLOATS):
        return kind, np.asarray(value, np.float32).tobytes()
    if kind in (AttributeProto.INTS, AttributeProto.STRINGS):
        return kind, tuple(value)
    if kind in (AttributeProto.INT, AttributeProto.STRING):
        return kind, value
    raise UnfitError("an attribute of a kind that the exporter never writes")


def _without_notes(attribute: AttributeProto) -> AttributeProto:
    copy = AttributeProto()
    copy.CopyFrom(attribute)
    for graph in parts(copy, GraphProto):
        for noted in (graph, *graph.node, *graph.initializer):
            noted.ClearField("doc_string")
            noted.ClearField("metadata_props")
    return copy
