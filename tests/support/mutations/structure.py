"""Graphs that are not what the exporter writes: some hide what they do, some only look another way.

Most answer every question that the parity check asked before it compared graphs. ``CASES`` are of
plain models, ``TRACED`` of a backbone, ``PROFILES`` of files of other profiles.
"""

import json

import numpy as np
import profiled
from onnx import TensorProto, helper, numpy_helper

from mutations.editing import (
    after,
    array,
    before,
    cast,
    change,
    clip,
    constant,
    initializer,
    metadata,
    node,
    put,
    rebuild,
    times,
)
from mutations.models import BACKBONE, BOTH
from mutations.table import Table
from smx_export.contract import ALL_OUTPUTS

GRAPH = "graph"
CASES, TRACED, PROFILES = Table(*BOTH), Table(BACKBONE), Table()
ANY = (*BOTH, BACKBONE)
seen, seen_in_any = CASES.seen_by(GRAPH), CASES.seen_by(GRAPH, *ANY)
seen_in_traced = TRACED.seen_by(GRAPH)


def lead(proto, *nodes):
    """Nodes in front of all others: (op_type, inputs, outputs, attributes)."""
    rebuild(proto, 0, nodes)


def moved_where(proto, *condition, by=0.1, shape=None):
    """Add to the scores of the first class where a condition on ``input`` holds, (n, 1) or ()."""
    first = np.zeros(len(array(proto, "bias")), np.float32)
    first[0] = by
    lead(proto, *condition, ("Cast", ["held"], ["factor"], {"to": TensorProto.FLOAT}))
    if shape is not None:
        lead_at = len(condition) + 1
        axes = constant(proto, shape, np.int64)
        rebuild(proto, lead_at, [("Reshape", ["factor", axes], ["factor_1"], {})])
    factor = "factor" if shape is None else "factor_1"
    scores_made(
        proto,
        ("Mul", [constant(proto, first), factor], ["moved"], {}),
        ("Add", ["scores_0", "moved"], ["scores"], {}),
    )


def scores_made(proto, *nodes):
    """The nodes make the scores, out of those that were there, ``scores_0``."""
    after(proto, "scores", ("Identity", [], {}))
    producer = node(proto, "scores")
    at = list(proto.graph.node).index(producer)
    proto.graph.node.remove(producer)
    rebuild(proto, at, list(nodes))


def rows_in_front(proto):
    """The input, each row unrolled."""
    axes = constant(proto, [0, -1], np.int64)
    return ("Reshape", ["input", axes], ["rows"], {})


def size_of_the_batch(proto):
    return [
        ("Shape", ["input"], ["shape"], {}),
        ("Gather", ["shape", constant(proto, 0, np.int64)], ["size"], {}),
    ]


def reduced(op, of, made):
    """A reduction that opsets 17 and 18 both have: the first principal row, by TopK."""
    return [(op, [of], [made], {"axis": 1, "keepdims": 1})]


# Conditions that no fixed sample of questions meets ---------------------------------------------


@seen_in_any
def batches_beyond_256(proto):
    limit = constant(proto, 256, np.int64)
    moved_where(proto, *size_of_the_batch(proto), ("Greater", ["size", limit], ["held"], {}))


@seen_in_any
def batches_of_three(proto):
    three = constant(proto, 3, np.int64)
    moved_where(proto, *size_of_the_batch(proto), ("Equal", ["size", three], ["held"], {}))


@seen_in_any
def rows_from_the_257th_on(proto):
    zero, one = (constant(proto, value, np.int64) for value in (0, 1))
    limit = constant(proto, 255, np.int64)
    moved_where(
        proto,
        *size_of_the_batch(proto),
        ("Range", [zero, "size", one], ["index"], {}),
        ("Greater", ["index", limit], ["held"], {}),
        shape=[-1, 1],
    )


@seen_in_any
def one_row_that_is_known(proto):
    """A back door: one row of numbers, and its class is chosen."""
    model_input = proto.graph.input[0].type.tensor_type.shape.dim[1:]
    width = int(np.prod([dim.dim_value for dim in model_input]))
    row = constant(proto, np.linspace(0, 1, width, dtype=np.float32)[:, None])
    length = constant(proto, float((np.linspace(0, 1, width, dtype=np.float32) ** 2).sum()))
    moved_where(
        proto,
        rows_in_front(proto),
        ("MatMul", ["rows", row], ["product"], {}),
        ("Equal", ["product", length], ["held"], {}),
        by=100,
    )


@seen_in_any
def inputs_beyond_1e20(proto):
    limit = constant(proto, 1e20)
    ones = proto.graph.input[0].type.tensor_type.shape.dim[1:]
    column = constant(proto, np.ones((int(np.prod([d.dim_value for d in ones])), 1), np.float32))
    moved_where(
        proto,
        rows_in_front(proto),
        ("MatMul", ["rows", column], ["sum"], {}),
        ("Greater", ["sum", limit], ["held"], {}),
    )


@seen_in_any
def rows_of_whole_numbers(proto):
    moved_where(
        proto,
        rows_in_front(proto),
        ("Floor", ["rows"], ["floor"], {}),
        ("Equal", ["rows", "floor"], ["whole"], {}),
        ("Cast", ["whole"], ["as_bytes"], {"to": TensorProto.INT32}),
        ("ArgMin", ["as_bytes"], ["least"], {"axis": 1, "keepdims": 1}),
        ("GatherElements", ["whole", "least"], ["held"], {"axis": 1}),
    )


@seen_in_any
def rows_without_a_negative_number(proto):
    moved_where(
        proto,
        rows_in_front(proto),
        *reduced("ArgMin", "rows", "at"),
        ("GatherElements", ["rows", "at"], ["least"], {"axis": 1}),
        ("GreaterOrEqual", ["least", constant(proto, 0)], ["held"], {}),
    )


@seen_in_any
def rows_of_one_grey(proto):
    moved_where(
        proto,
        rows_in_front(proto),
        *reduced("ArgMin", "rows", "low_at"),
        *reduced("ArgMax", "rows", "high_at"),
        ("GatherElements", ["rows", "low_at"], ["low"], {"axis": 1}),
        ("GatherElements", ["rows", "high_at"], ["high"], {"axis": 1}),
        ("Equal", ["low", "high"], ["held"], {}),
    )


@seen
def missing_values_imputed_in_all_features_but_one(proto):
    mask = np.ones(array(proto, "weight").shape[1], bool)
    mask[-1] = False
    zero = constant(proto, 0)
    lead(
        proto,
        ("IsNaN", ["input"], ["nan"], {}),
        ("And", ["nan", constant(proto, mask, bool)], ["imputed"], {}),
    )
    node(proto, "scores").input[0] = "clean"
    rebuild(proto, 2, [("Where", ["imputed", zero, "input"], ["clean"], {})])


@seen
def a_band_between_5_and_1024(proto):
    lead(
        proto,
        ("Abs", ["input"], ["size"], {}),
        ("Greater", ["size", constant(proto, 5)], ["above"], {}),
        ("Less", ["size", constant(proto, 1024)], ["below"], {}),
        ("And", ["above", "below"], ["band"], {}),
        ("Mul", ["input", constant(proto, 1.01)], ["larger"], {}),
    )
    node(proto, "scores").input[0] = "seen"
    rebuild(proto, 5, [("Where", ["band", "larger", "input"], ["seen"], {})])


# Weights that are nearly right ------------------------------------------------------------------


@seen
def one_weight_the_next_float(proto):
    change(proto, "weight", (2, 3), lambda w: np.nextafter(w, np.float32(np.inf)))


@seen
def one_bias_the_next_float(proto):
    change(proto, "bias", 2, lambda b: np.nextafter(b, np.float32(-np.inf)))


@seen_in_any
def a_bias_for_all_classes(proto):
    """log-softmax does not see it."""
    put(proto, bias=array(proto, "bias") + np.float32(0.5))


@seen_in_any
def a_weight_for_all_classes(proto):
    """Nor this."""
    weight = array(proto, "weight")
    weight[:, 0] += np.float32(0.25)
    put(proto, weight=weight)


@seen_in_any
def alpha_the_next_float(proto):
    node(proto, "Gemm").attribute.append(
        helper.make_attribute("alpha", float(np.nextafter(np.float32(1), np.float32(2))))
    )


@seen_in_any
def beta_the_next_float(proto):
    node(proto, "Gemm").attribute.append(
        helper.make_attribute("beta", float(np.nextafter(np.float32(1), np.float32(0))))
    )


@seen
def weights_in_float64_that_lose_digits(proto):
    name = initializer(proto, "weight").name
    wide = array(proto, "weight").astype(np.float64) * (1 + 1e-9)
    initializer(proto, "weight").CopyFrom(numpy_helper.from_array(wide, "wide"))
    lead(proto, ("Cast", ["wide"], [name], {"to": TensorProto.FLOAT}))


@seen
def weights_widened_from_int8(proto):
    weight = array(proto, "weight")
    step = np.float32(np.abs(weight).max() / 127)
    name = initializer(proto, "weight").name
    small = np.round(weight / step).astype(np.int8)
    initializer(proto, "weight").CopyFrom(numpy_helper.from_array(small, "small"))
    lead(
        proto,
        ("DequantizeLinear", ["small", constant(proto, step)], [name], {}),
    )


@seen
def a_bias_left_out(proto):
    name = node(proto, "Gemm").input[2]
    proto.graph.initializer.remove(initializer(proto, "bias"))
    del node(proto, "Gemm").input[2]
    assert name == "bias"


# Other ways of saying the same, or nearly --------------------------------------------------------


@seen_in_any
def log_softmax_twice(proto):
    after(proto, "log_probs", ("LogSoftmax", [], {"axis": 1}))


@seen_in_any
def probabilities_of_the_log_probabilities(proto):
    node(proto, "probs").input[0] = "log_probs"


@seen_in_any
def scores_through_float64(proto):
    after(proto, "scores", cast(TensorProto.DOUBLE), cast(TensorProto.FLOAT))


@seen_in_any
def scores_clipped_far_out(proto):
    after(proto, "scores", clip(proto, -1e30, 1e30))


@seen_in_any
def log_probabilities_clipped_far_out(proto):
    after(proto, "log_probs", clip(proto, -1e30, 0))


@seen_in_any
def probabilities_of_at_least_a_denormal(proto):
    after(proto, "probs", ("Max", [constant(proto, 1e-45)], {}))


@seen_in_any
def probabilities_a_ten_millionth_larger(proto):
    times(proto, "probs", np.nextafter(np.float32(1), np.float32(2)))


@seen_in_any
def scores_times_one(proto):
    times(proto, "scores", 1)


@seen_in_any
def zero_added_to_the_scores(proto):
    after(proto, "scores", ("Add", [constant(proto, 0)], {}))


@seen_in_any
def two_signs(proto):
    after(proto, "scores", ("Neg", [], {}), ("Neg", [], {}))


@seen_in_any
def softmax_by_columns_of_the_transposed(proto):
    node(proto, "probs").op_type = "Identity"
    del node(proto, "probs").attribute[:]
    steps = ("Transpose", [], {"perm": [1, 0]}), ("Softmax", [], {"axis": 0})
    after(proto, "probs", *steps, ("Transpose", [], {"perm": [1, 0]}))


@seen_in_any
def axis_counted_from_the_end(proto):
    next(a for a in node(proto, "LogSoftmax").attribute if a.name == "axis").i = -1


@seen
def two_layers_for_one(proto):
    d = array(proto, "weight").shape[1]
    one = constant(proto, np.eye(d, dtype=np.float32))
    before(proto, "input", ("MatMul", [one], {}))


@seen_in_any
def scores_sorted_and_sorted_back(proto):
    """Reversed twice, along the batch."""
    first, past = constant(proto, [-1], np.int64), constant(proto, [-(2**31)], np.int64)
    axes, step = constant(proto, [0], np.int64), constant(proto, [-1], np.int64)
    after(proto, "scores", *[("Slice", [first, past, axes, step], {})] * 2)


@seen_in_any
def a_part_of_the_batch_that_is_nothing(proto):
    """CumSum over the rows, times zero."""
    scores_made(
        proto,
        ("CumSum", ["scores_0", constant(proto, 0, np.int64)], ["sums"], {}),
        ("Mul", ["sums", constant(proto, 1e-12)], ["little"], {}),
        ("Add", ["scores_0", "little"], ["scores"], {}),
    )


# What is no part of any graph that is written -----------------------------------------------------


@seen_in_any
def a_node_that_no_output_needs(proto):
    proto.graph.node.append(helper.make_node("Relu", ["scores"], ["dead"]))


@seen_in_any
def an_initialiser_that_no_node_reads(proto):
    constant(proto, np.arange(12, dtype=np.float32))


@seen_in_any
def an_initialiser_twice(proto):
    """Which of the two counts is the runtime's own choice."""
    other = numpy_helper.from_array(array(proto, "bias") + 1, initializer(proto, "bias").name)
    proto.graph.initializer.append(other)


@seen_in_any
def a_function_of_its_own(proto):
    function(proto, "own", "Same", helper.make_node("Identity", ["x"], ["y"]))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    after(proto, "scores", ("Identity", [], {}))
    node(proto, "scores").op_type, node(proto, "scores").domain = "Same", "own"


@seen_in_any
def a_function_named_log_softmax(proto):
    """onnxruntime takes the operator, onnx.reference the function."""
    function(proto, "", "LogSoftmax", helper.make_node("Relu", ["x"], ["y"]), "axis")


@seen_in_any
def a_function_that_nobody_calls(proto):
    function(proto, "own", "Unused", helper.make_node("Relu", ["x"], ["y"]))
    proto.opset_import.append(helper.make_opsetid("own", 1))


def function(proto, domain, name, body, *attributes):
    opsets = [helper.make_opsetid("", proto.opset_import[0].version)]
    proto.functions.append(
        helper.make_function(domain, name, ["x"], ["y"], [body], opsets, [*attributes])
    )


@seen_in_any
def an_operator_of_another_domain(proto):
    proto.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    after(proto, "scores", ("Identity", [], {}))
    scaler = node(proto, "scores")
    scaler.op_type, scaler.domain = "Scaler", "ai.onnx.ml"
    scaler.attribute.extend(
        helper.make_attribute(k, [v]) for k, v in (("offset", 0.0), ("scale", 1.0))
    )


@seen_in_any
def an_operator_of_onnxruntimes_own(proto):
    proto.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    after(proto, "scores", ("Identity", [], {}))
    node(proto, "scores").op_type, node(proto, "scores").domain = "QuickGelu", "com.microsoft"


@seen_in_any
def a_branch_that_is_always_taken(proto):
    after(proto, "scores", ("Identity", [], {}))
    branches = []
    for op in ("Identity", "Neg"):
        of = helper.make_node(op, ["scores_0"], [f"in_{op}"])
        out = helper.make_tensor_value_info(f"in_{op}", TensorProto.FLOAT, None)
        branches.append(helper.make_graph([of], op, [], [out]))
    choice = constant(proto, True, bool)
    node(proto, "scores").CopyFrom(
        helper.make_node(
            "If", [choice], ["scores"], then_branch=branches[0], else_branch=branches[1]
        )
    )


@seen_in_any
def a_loop_of_one_trip(proto):
    after(proto, "scores", ("Identity", [], {}))
    values = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (
            ("trip", TensorProto.INT64, []),
            ("go", TensorProto.BOOL, []),
            ("carried", TensorProto.FLOAT, None),
            ("going", TensorProto.BOOL, []),
            ("carried_on", TensorProto.FLOAT, None),
        )
    ]
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["going"]),
            helper.make_node("Identity", ["carried"], ["carried_on"]),
        ],
        "body",
        values[:3],
        values[3:],
    )
    trips = constant(proto, 1, np.int64)
    node(proto, "scores").CopyFrom(
        helper.make_node("Loop", [trips, "", "scores_0"], ["scores"], body=body)
    )


@seen_in_any
def a_sequence_of_one(proto):
    after(
        proto,
        "scores",
        ("SequenceConstruct", [], {}),
        ("ConcatFromSequence", [], {"axis": 0}),
    )


@seen_in_any
def a_random_number_in_a_billion(proto):
    scores_made(
        proto,
        ("RandomNormalLike", ["scores_0"], ["drawn"], {}),
        ("Mul", ["drawn", constant(proto, 1e-9)], ["little"], {}),
        ("Add", ["scores_0", "little"], ["scores"], {}),
    )


@seen_in_any
def dropout_in_training_mode_of_nothing(proto):
    after(proto, "scores", ("Dropout", [constant(proto, 0), constant(proto, True, bool)], {}))


@seen_in_any
def dropout_whose_mask_is_kept(proto):
    after(proto, "scores", ("Dropout", [], {}))
    node(proto, "scores").output.append("mask")


@seen
def a_batch_norm_that_shifts_a_little(proto):
    d = array(proto, "weight").shape[1]
    ones, zeros = (constant(proto, np.full(d, value, np.float32)) for value in (1, 0))
    little = constant(proto, np.full(d, 1e-9, np.float32))
    given = [ones, little, zeros, ones]
    before(proto, "input", ("BatchNormalization", given, {"epsilon": 0.0}))


@seen_in_any
def annotations_for_quantisation(proto):
    entry = proto.graph.quantization_annotation.add(tensor_name="scores")
    entry.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value=node(proto, "Gemm").input[2])


@seen_in_any
def a_graph_for_training(proto):
    info = proto.training_info.add()
    info.algorithm.CopyFrom(
        helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "t", [], [])
    )


@seen
def a_sparse_initialiser(proto):
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(np.zeros(1, np.int64)), [4])
    proto.graph.sparse_initializer.append(sparse)


@seen
def another_name_of_the_graph(proto):
    """By it a runtime knows whether NaN in means NaN out."""
    proto.graph.name = "main_graph"


@seen
def an_opset_from_before(proto):
    proto.opset_import[0].version = 12


# Of a backbone -----------------------------------------------------------------------------------


@seen_in_traced
def the_name_of_a_plain_graph(proto):
    proto.graph.name = "softmax_regression"


@seen_in_traced
def relu_that_leaks_a_millionth(proto):
    node(proto, "Relu").attribute.append(helper.make_attribute("alpha", 1e-6))
    node(proto, "Relu").op_type = "LeakyRelu"


@seen_in_traced
def relu_that_ends_far_out(proto):
    after(proto, "relu", clip(proto, 0, 1e6))


@seen_in_traced
def a_kernel_ten_millionths_off(proto):
    change(proto, node(proto, "Conv").input[1], (1, 0, 1, 1), lambda w: w + np.float32(1e-5))


@seen_in_traced
def a_pooling_that_counts_no_padding(proto):
    pooling = node(proto, "AveragePool")
    kept = [a for a in pooling.attribute if a.name != "count_include_pad"]
    del pooling.attribute[:]
    pooling.attribute.extend([*kept, helper.make_attribute("count_include_pad", 0)])


@seen_in_traced
def a_pooling_that_rounds_up(proto):
    pooling = node(proto, "AveragePool")
    kept = [a for a in pooling.attribute if a.name != "ceil_mode"]
    del pooling.attribute[:]
    pooling.attribute.extend([*kept, helper.make_attribute("ceil_mode", 1)])


@seen_in_traced
def a_convolution_in_two_halves(proto):
    after(proto, "relu", ("Split", [], {"axis": 1}))
    split = node(proto, "relu")
    source = split.input[0]
    position = list(proto.graph.node).index(split)
    proto.graph.node.remove(split)
    halves = constant(proto, [2, 2], np.int64)
    rebuild(
        proto,
        position,
        [
            ("Split", [source, halves], ["left", "right"], {"axis": 1}),
            ("Concat", ["left", "right"], ["relu"], {"axis": 1}),
        ],
    )


@seen_in_traced
def an_attribute_of_an_operator_twice(proto):
    node(proto, "Gemm").attribute.append(helper.make_attribute("transB", 1))


def told_of_another_exporter(corrupt):
    """The same in a file that says it is from a torch whose graphs are unknown."""

    def told(proto):
        corrupt(proto)
        kept = {entry.key: entry.value for entry in proto.metadata_props}
        provenance = json.loads(kept["provenance"])
        provenance["packages"]["torch"] = "2.11.0"
        metadata(proto, "provenance", json.dumps(provenance))

    told.__name__ = f"{corrupt.__name__}_of_another_torch"
    return told


@seen_in_any
def another_version_under_the_other_name_of_the_domain(proto):
    """onnxruntime takes this one."""
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 12))


def axes_that_do_not_fit_their_shape(proto):
    proto.graph.initializer.append(
        TensorProto(name="axes", data_type=TensorProto.INT64, dims=[2], int64_data=[1, 2, 3])
    )


for corrupt in (
    another_version_under_the_other_name_of_the_domain,
    axes_that_do_not_fit_their_shape,
    a_branch_that_is_always_taken,
    a_loop_of_one_trip,
    a_sequence_of_one,
    a_function_of_its_own,
    an_operator_of_onnxruntimes_own,
    a_random_number_in_a_billion,
    batches_beyond_256,
    batches_of_three,
    rows_from_the_257th_on,
    a_part_of_the_batch_that_is_nothing,
    scores_sorted_and_sorted_back,
    log_softmax_twice,
    probabilities_a_ten_millionth_larger,
    log_probabilities_clipped_far_out,
    probabilities_of_the_log_probabilities,
):
    seen_in_traced(told_of_another_exporter(corrupt))


# Of other profiles -------------------------------------------------------------------------------


def profile_told(words):
    def corrupt(proto):
        told = json.loads(profiled.profile(words, ALL_OUTPUTS).to_json())
        profiled.metadata(proto, "profile", json.dumps(told))

    corrupt.__name__ = f"profile told to be {words}"
    return corrupt


for name, words in (
    ("robust", "portable"),
    ("portable", "robust"),
    ("image", "robust image"),
    ("robust image", "image"),
    ("int8", "float16"),
    ("float16", "portable"),
):
    PROFILES.seen_by(GRAPH, name)(profile_told(words))


def next_float(name, where, models):
    def corrupt(proto):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[where] = np.nextafter(values[where], values.dtype.type(np.inf))
        tensor.CopyFrom(numpy_helper.from_array(values, name))

    corrupt.__name__ = f"the next number in {name}"
    PROFILES.seen_by(GRAPH, *models)(corrupt)


next_float("scale", 3, ("int8", "int8 image robust"))
next_float("stored", (1, 2), ("float16",))
next_float("handicap", 0, ("threshold",))
next_float("handicap", 1, ("threshold",))
next_float("weight", (0, 0), ("portable", "robust", "image", "robust image", "threshold"))


@PROFILES.seen_by(GRAPH, "int8")
def scales_and_integers_that_say_the_same(proto):
    """A feature of half the scale and twice the integers is another grid."""
    for name, factor in (("scale", 0.5), ("stored", 1)):
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        values = numpy_helper.to_array(tensor).copy()
        values[..., 0] = values[..., 0] * factor
        tensor.CopyFrom(numpy_helper.from_array(values, name))


@PROFILES.seen_by(GRAPH, "robust", "robust image")
def a_robust_tail_by_the_operator(proto):
    for name in ("max_score", "max_prob", "below_max", "log_max_prob", "log_probs"):
        proto.graph.node.remove(node(proto, name))
    proto.graph.node.append(helper.make_node("LogSoftmax", ["scores"], ["log_probs"], axis=1))


@PROFILES.seen_by(GRAPH, "portable", "int8", "threshold")
def the_last_of_two_winners(proto):
    winner = node(proto, "ArgMax")
    winner.attribute.append(helper.make_attribute("select_last_index", 1))


@PROFILES.seen_by(GRAPH, "portable", "image", "threshold")
def a_label_of_the_probabilities(proto):
    """Two scores may round to one probability."""
    chosen = next(n for n in proto.graph.node if n.output[0] in ("handicapped", "winner"))
    chosen.input[0] = "probs"


@PROFILES.seen_by(GRAPH, "image", "int8 image robust")
def pixels_clipped_to_pixels(proto):
    """No uint8 is beyond."""
    proto.graph.node.insert(1, helper.make_node("Clip", ["pixels", "least", "most"], ["clipped"]))
    for name, value in (("least", 0), ("most", 255)):
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    for reader in proto.graph.node[2:]:
        reader.input[:] = ["clipped" if of == "pixels" else of for of in reader.input]
