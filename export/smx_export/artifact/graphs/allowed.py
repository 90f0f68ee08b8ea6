"""What a graph may consist of that nobody can say how it should look.

Operators of ONNX itself that answer the same whenever they are asked, from the values of a row
alone: no control flow, no functions, no sequences and strings, nothing random, nothing whose shape
depends on values, and no quantisation by the batch's own range. Two things are looked for besides:
an operator that works along the batch, and the batch's size among the values.

It sees what ONNX's shape inference sees. Rows that are mixed behind a Reshape whose result it does
not know, or by a weight as long as one batch, stay unseen, as does whatever of these operators
computes something else than the model: that is for the questions (:mod:`smx_export.parity.probes`)
to find. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, shape_inference

from smx_export.artifact.files import parts
from smx_export.artifact.graphs.attributes import UnfitError, array_of
from smx_export.artifact.graphs.terms import opset_of

ALLOWED = frozenset([
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh",
    "Attention", "AveragePool", "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot",
    "BitwiseOr", "BitwiseXor", "Cast", "CastLike", "Ceil", "Celu", "CenterCropPad", "Clip",
    "Col2Im", "Concat", "Constant", "ConstantOfShape", "Conv", "ConvInteger", "ConvTranspose",
    "Cos", "Cosh", "CumSum", "DFT", "DeformConv", "DepthToSpace", "DequantizeLinear", "Det",
    "Div", "Dropout", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample",
    "GroupNormalization", "HardSigmoid", "HardSwish", "Hardmax", "Identity",
    "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM", "LayerNormalization", "LeakyRelu",
    "Less", "LessOrEqual", "Log", "LogSoftmax", "LpNormalization", "LpPool", "MatMul",
    "MatMulInteger", "Max", "MaxPool", "MaxRoiPool", "MaxUnpool", "Mean",
    "MeanVarianceNormalization", "Min", "Mish", "Mod", "Mul", "Neg", "Not", "OneHot", "Or",
    "PRelu", "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization",
    "RNN", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp",
    "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "Relu",
    "Reshape", "Resize", "ReverseSequence", "RoiAlign", "RotaryEmbedding", "Round", "STFT",
    "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh",
    "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt",
    "Squeeze", "Sub", "Sum", "Swish", "Tan", "Tanh", "TensorScatter", "ThresholdedRelu", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze", "Where", "Xor",
])  # fmt: skip
# Operators that look along one axis, and which one where they do not say it.
ALONG = {"ArgMax": 0, "ArgMin": 0, "Concat": 0, "Gather": 0, "GatherElements": 0, "Hardmax": -1,
         "LogSoftmax": -1, "LpNormalization": -1, "Softmax": -1, "TopK": -1}  # fmt: skip
# Inputs that say a shape: what comes out is as long as the batch, but of other values.
SHAPES_FROM = {"Reshape": 1, "Expand": 1, "Tile": 1, "Pad": 1, "Slice": 1, "Split": 1, "Resize": 1,
               "CenterCropPad": 1, "ConstantOfShape": 0, "Col2Im": 1, "TopK": 1}  # fmt: skip


def unknown(model: onnx.ModelProto) -> str:
    """What a graph has that is not even run, in words; empty where there is nothing."""
    try:
        opset_of(model)
    except UnfitError as unfit:
        return str(unfit)
    operators = (node.op_type for node in parts(model.graph, NodeProto))
    other = next((op for op in operators if op not in ALLOWED), None)
    return "" if other is None else f"an operator {other!r}"


def refused(model: onnx.ModelProto) -> str:
    """That, or what in a graph depends on the batch as a whole."""
    try:
        found = unknown(model) or next(_along_the_batch(model), "")
    except UnfitError as unfit:
        return str(unfit)
    return found or next(_batch_size_as_value(model), "")


def _along_the_batch(model: onnx.ModelProto) -> Iterator[str]:
    """Operators that look at all rows of a batch at once: no other length is open."""
    shapes, constants = _shapes(model), _constants(model)
    for node in model.graph.node:
        shape = shapes.get(node.input[0]) if node.input else None
        if shape and not all(shape[i] for i in _axes(node, len(shape), constants)):
            yield f"{node.op_type!r} along the batch"


def _axes(node: NodeProto, rank: int, constants: dict[str, NDArray[Any]]) -> list[int]:
    """The axes along which an operator looks; none where it is not known."""
    given = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    axes: Any
    if node.op_type.startswith("Reduce"):
        of = constants.get(node.input[1]) if len(node.input) > 1 and node.input[1] else None
        unknown = len(node.input) > 1 and node.input[1] != "" and of is None
        axes = given.get("axes", of if of is not None else [] if unknown else range(rank))
    elif node.op_type == "CumSum":
        axes = constants.get(node.input[1], [])
    elif node.op_type == "Slice":
        axes = constants.get(node.input[3], []) if len(node.input) > 3 else range(rank)
    elif node.op_type in ALONG:
        axes = given.get("axis", ALONG[node.op_type])
    elif node.op_type in ("LayerNormalization", "RMSNormalization"):
        axes = range(int(given.get("axis", -1)) % rank, rank)
    elif node.op_type == "MeanVarianceNormalization":
        axes = given.get("axes", [0, 2, 3])
    else:
        return []
    return [int(axis) % rank for axis in np.atleast_1d(np.asarray(axes, np.int64))]


def _batch_size_as_value(model: onnx.ModelProto) -> Iterator[str]:
    """Outputs whose values, not only whose shapes, come from a Shape or a Size."""
    of_shapes = set[str]()
    for node in model.graph.node:
        values = node.input[: SHAPES_FROM.get(node.op_type, len(node.input))]
        if node.op_type in ("Shape", "Size") or of_shapes & {*values}:
            of_shapes.update(name for name in node.output if name)
    for value in model.graph.output:
        if value.name in of_shapes:
            yield f"the shape of a batch among the values of {value.name!r}"


def _shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Dimensions of every value that is known, as inferred from the inputs; 0 where one is open."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    try:
        inferred = shape_inference.infer_shapes(bare, data_prop=True)
    except Exception:  # of C++: what it cannot infer, it does not know
        inferred = bare
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def _constants(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    return {
        tensor.name: array_of(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.INT64
    }
