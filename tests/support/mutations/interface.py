"""Inputs and outputs that a caller would find changed, and metadata."""

import numpy as np
from onnx import TensorProto, helper

from mutations.editing import (
    after,
    array,
    cast,
    constant,
    declared,
    initializer,
    metadata,
    node,
    put,
)
from mutations.models import BACKBONE, BOTH
from mutations.table import INPUT, LOADS, NAMES, OUTPUTS, SHAPES, Table

CASES = Table(*BOTH)


@CASES.seen_by(INPUT, *BOTH, BACKBONE)
def batch_declared_constant(proto):
    declared(proto, "input").type.tensor_type.shape.dim[0].dim_value = 1


@CASES.seen_by(INPUT)
def batch_declared_without_a_name(proto):
    declared(proto, "input").type.tensor_type.shape.dim[0].Clear()


@CASES.seen_by(OUTPUTS)
def output_batch_declared_without_a_name(proto):
    declared(proto, "probs").type.tensor_type.shape.dim[0].Clear()


@CASES.seen_by(INPUT)
def input_renamed(proto):
    declared(proto, "input").name = node(proto, "scores").input[0] = "pixels"


@CASES.seen_by(OUTPUTS, *BOTH, BACKBONE)
def output_renamed(proto):
    declared(proto, "probs").name = node(proto, "probs").output[0] = "output"


@CASES.seen_by(OUTPUTS)
def outputs_in_another_order(proto):
    outputs = list(proto.graph.output)[::-1]
    del proto.graph.output[:]
    proto.graph.output.extend(outputs)


@CASES.seen_by(OUTPUTS)
def an_output_removed(proto):
    del proto.graph.output[1]
    proto.graph.node.remove(node(proto, "probs"))


@CASES.seen_by(OUTPUTS)
def an_output_added(proto):
    proto.graph.output.append(
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 6])
    )


@CASES.seen_by(INPUT)
def an_input_added(proto):
    proto.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, [1]))
    after(proto, "scores", ("Add", ["mask"], {}))


@CASES.seen_by(INPUT)
def weights_that_the_caller_may_override(proto):
    weight = initializer(proto, "weight")
    proto.graph.input.append(
        helper.make_tensor_value_info("weight", TensorProto.FLOAT, weight.dims)
    )


@CASES.seen_by(OUTPUTS)
def output_in_float64(proto):
    after(proto, "probs", cast(TensorProto.DOUBLE))
    declared(proto, "probs").type.tensor_type.elem_type = TensorProto.DOUBLE


@CASES.seen_by(OUTPUTS)
def output_in_float16(proto):
    after(proto, "log_probs", cast(TensorProto.FLOAT16))
    declared(proto, "log_probs").type.tensor_type.elem_type = TensorProto.FLOAT16


@CASES.seen_by(LOADS)
def output_in_float16_but_declared_float32(proto):
    after(proto, "log_probs", cast(TensorProto.FLOAT16))


@CASES.seen_by(OUTPUTS)
def output_of_an_unknown_dtype(proto):
    declared(proto, "probs").type.tensor_type.elem_type = 99


@CASES.seen_by(OUTPUTS)
def output_with_another_dimension(proto):
    after(proto, "probs", ("Unsqueeze", [constant(proto, [2], np.int64)], {}))
    declared(proto, "probs").type.tensor_type.shape.dim.add().dim_value = 1


@CASES.seen_by(SHAPES)
def one_row_that_broadcasts(proto):
    """Against (1, K) numpy would find the difference of (n, K) wherever it likes."""
    after(proto, "probs", ("ReduceMean", [], {"axes": [0], "keepdims": 1}))


@CASES.seen_by(SHAPES, *BOTH, BACKBONE)
def batch_frozen_inside(proto):
    classes = len(array(proto, "bias"))
    after(proto, "log_probs", ("Reshape", [constant(proto, [2, classes], np.int64)], {}))


@CASES.seen_by(INPUT)
def another_number_of_features(proto):
    weight = array(proto, "weight")
    put(proto, weight=np.hstack([weight, weight[:, :1]]))
    declared(proto, "input").type.tensor_type.shape.dim[1].dim_value += 1


@CASES.seen_by(LOADS)
def more_weights_than_features(proto):
    weight = array(proto, "weight")
    put(proto, weight=np.hstack([weight, weight[:, :1]]))


@CASES.seen_by(OUTPUTS)
def a_class_less(proto):
    for name in ("weight", "bias"):
        put(proto, **{name: array(proto, name)[:-1]})
    for name in ("log_probs", "probs"):
        declared(proto, name).type.tensor_type.shape.dim[1].dim_value -= 1


# Metadata


@CASES.seen_by(NAMES, *BOTH, BACKBONE)
def class_names_in_another_order(proto):
    names = next(e for e in proto.metadata_props if e.key == "class_names")
    assert '"0", "1"' in names.value
    names.value = names.value.replace('"0", "1"', '"1", "0"')


@CASES.seen_by(NAMES)
def class_names_missing(proto):
    metadata(proto, "class_names", None)


@CASES.seen_by("threshold")
def a_threshold_that_the_model_lacks(proto):
    metadata(proto, "threshold", "0.9")
