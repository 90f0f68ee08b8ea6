"""What is done to files of every profile, and to outputs that portable files lack."""

import json

import numpy as np
import profiled
from onnx import TensorProto, helper

from mutations.editing import constant, node
from mutations.profile_editing import (
    EVERY,
    FLOAT32,
    IMAGE,
    INT8,
    ROBUST,
    THRESHOLD,
    after,
    attribute,
    change,
    entry,
    replace,
    skip,
    weights,
)
from mutations.table import ARGMAX, INPUT, NOT_FINITE, OUTPUTS, PROBS, SCORES, SHAPES, VALUES, Table
from smx_export.contract import ALL_OUTPUTS

CASES = Table()


@CASES.seen_by(VALUES, *EVERY)
def two_weight_rows_swapped(proto):
    change(proto, weights(proto), lambda w: w[[1, 0, 2]])


@CASES.seen_by(VALUES, *EVERY)
def two_features_swapped(proto):
    change(proto, weights(proto), lambda w: w[:, [1, 0, *range(2, 12)]])


@CASES.seen_by(VALUES, *FLOAT32)
def one_weight_a_thousandth_larger(proto):
    change(proto, "weight", entry((2, 3), lambda w: 1.001 * w))


@CASES.seen_by(VALUES, *INT8)
def one_weight_one_step_larger(proto):
    change(proto, "stored", entry((2, 3), lambda q: q - np.sign(q)))


@CASES.seen_by(VALUES, "float16")
def one_weight_the_next_float16(proto):
    change(proto, "stored", entry((2, 3), lambda w: np.nextafter(w, np.float16(0))))


@CASES.seen_by(VALUES, *INT8)
def one_scale_a_hundredth_larger(proto):
    change(proto, "scale", entry(5, lambda s: 1.01 * s))


@CASES.seen_by(VALUES, *INT8)
def scales_left_out(proto):
    skip(proto, "Mul")


@CASES.seen_by(VALUES, *INT8)
def scales_of_the_first_feature_alone(proto):
    change(proto, "scale", lambda s: np.full_like(s, s[0]))


@CASES.seen_by(VALUES, *INT8)
def int8_weights_read_as_bytes(proto):
    after(proto, "weight", "Abs")


@CASES.seen_by(SCORES, *EVERY)
def a_bias_for_all_classes(proto):
    """log-softmax does not see it."""
    change(proto, "bias", lambda b: b + 0.01)


@CASES.seen_by(SCORES, *EVERY)
def scores_that_are_log_probabilities(proto):
    node(proto, "Gemm").output[0] = "scores_0"
    for reader in proto.graph.node:
        reader.input[:] = ["scores_0" if of == "scores" else of for of in reader.input]
    proto.graph.node.append(helper.make_node("Identity", ["log_probs"], ["scores"]))


@CASES.seen_by(PROBS, *EVERY)
def probabilities_over_the_batch(proto):
    attribute(proto, "Softmax", axis=0)


@CASES.seen_by(VALUES, "portable", "image", *INT8[:1])
def log_probabilities_over_the_batch(proto):
    attribute(proto, "LogSoftmax", axis=0)


@CASES.seen_by(NOT_FINITE, "portable", "int8", "float16")
def log_of_the_softmax(proto):
    proto.graph.node.remove(node(proto, "LogSoftmax"))
    proto.graph.node.append(helper.make_node("Log", ["probs"], ["log_probs"]))


@CASES.seen_by(NOT_FINITE, "robust")
def robust_tail_replaced_by_the_log_of_the_softmax(proto):
    replace(proto, "log_probs", ("Log", ["probs"], ["log_probs"], {}))


@CASES.seen_by(VALUES, *ROBUST)
def robust_tail_without_the_logarithm(proto):
    replace(proto, "log_probs", ("Identity", ["below_max"], ["log_probs"], {}))


@CASES.seen_by(VALUES, *ROBUST)
def robust_tail_without_the_maximum(proto):
    replace(proto, "below_max", ("Identity", ["scores"], ["below_max"], {}))


@CASES.seen_by(VALUES, *ROBUST)
def robust_tail_with_the_signs_swapped(proto):
    node(proto, "below_max").input[:] = ["max_score", "scores"]


@CASES.seen_by(VALUES, *ROBUST)
def the_least_for_the_largest(proto):
    node(proto, "max_score").op_type = "ReduceMin"


@CASES.seen_by(VALUES, *ROBUST)
def the_largest_of_the_batch(proto):
    attribute(proto, "max_prob", axes=[0])


@CASES.seen_by(ARGMAX, *EVERY)
def the_worst_class(proto):
    node(proto, "winner").op_type = "ArgMin"


@CASES.seen_by(SHAPES, *EVERY)
def the_best_row_of_each_class(proto):
    attribute(proto, "ArgMax", axis=0)
    change(proto, "classes_axis", np.zeros_like)


@CASES.seen_by(ARGMAX, *EVERY)
def the_next_label(proto):
    after(proto, "label", "Add", constant(proto, 1, np.int64))


@CASES.seen_by(SHAPES, *EVERY)
def a_label_in_brackets(proto):
    replace(proto, "label", ("Identity", ["winner"], ["label"], {}))


@CASES.seen_by(OUTPUTS, *EVERY)
def a_label_of_another_dtype(proto):
    after(proto, "label", "Cast", to=TensorProto.INT32)
    proto.graph.output[-1].type.tensor_type.elem_type = TensorProto.INT32


@CASES.seen_by(OUTPUTS, *EVERY)
def an_output_too_few(proto):
    del proto.graph.output[2]


@CASES.seen_by(OUTPUTS, *EVERY)
def outputs_in_another_order(proto):
    first, second, *others = proto.graph.output
    new = [helper.make_empty_tensor_value_info("") for _ in range(2)]
    for copy, output in zip(new, (second, first), strict=True):
        copy.CopyFrom(output)
    del proto.graph.output[:]
    proto.graph.output.extend([*new, *others])


@CASES.seen_by(VALUES, *IMAGE)
def pixels_as_signed_bytes(proto):
    node(proto, "pixels").input[0] = "signed"
    proto.graph.node.insert(0, helper.make_node("Cast", ["input"], ["signed"], to=TensorProto.INT8))


@CASES.seen_by(VALUES, *IMAGE)
def rows_and_columns_swapped(proto):
    after(proto, "pixels", "Transpose", perm=[0, 2, 1])


@CASES.seen_by(VALUES, *IMAGE)
def pixels_from_0_to_1(proto):
    after(proto, "pixels", "Div", constant(proto, 255))


@CASES.seen_by(VALUES, *IMAGE)
def white_that_is_clipped(proto):
    after(proto, "pixels", "Min", constant(proto, 254))


@CASES.seen_by(INPUT, *IMAGE)
def an_image_of_another_shape(proto):
    height, width = proto.graph.input[0].type.tensor_type.shape.dim[1:]
    height.dim_value, width.dim_value = 4, 3


@CASES.seen_by(INPUT, *IMAGE)
def floats_for_bytes(proto):
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


@CASES.seen_by(ARGMAX, THRESHOLD)
def the_threshold_left_out(proto):
    skip(proto, "Add")


@CASES.seen_by(ARGMAX, THRESHOLD)
def another_threshold(proto):
    change(proto, "handicap", lambda h: 1.2 * h)


@CASES.seen_by(ARGMAX, THRESHOLD)
def the_threshold_for_the_other_class(proto):
    change(proto, "handicap", lambda h: h[::-1])


@CASES.seen_by(SCORES, THRESHOLD)
def scores_with_the_threshold_in_them(proto):
    after(proto, "scores", "Add", "handicap")


def told(key, value, words):
    def corrupt(proto):
        profiled.metadata(proto, key, json.dumps(value))

    corrupt.__name__ = f"{key} told to be {words}"
    return corrupt


def profile_of(name, **values):
    return json.loads(profiled.profile(name, ALL_OUTPUTS).to_json()) | values


for words, check, name in (
    ("portable", INPUT, "image"),
    ("image", INPUT, "portable"),
    ("portable", VALUES, "int8"),
    ("int8", VALUES, "float16"),
    ("float16", VALUES, "int8"),
):
    CASES.seen_by(check, name)(told("profile", profile_of(words), words))
CASES.seen_by(OUTPUTS, *EVERY)(
    told("profile", profile_of("portable", outputs=["label"]), "a label's")
)
CASES.seen_by("input range", *EVERY)(told("input_range", [0, 2], "another"))
CASES.seen_by("threshold", THRESHOLD)(told("threshold", 0.5, "another"))
