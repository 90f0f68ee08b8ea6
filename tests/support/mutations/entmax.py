"""What is done to graphs of sparse activations: ``CASES`` are seen by answers, all by the graph.

``HIDDEN`` answer rightly, or wrongly where no fixed sample of questions looks.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mutations import structure
from mutations.conditions import batch_above, batch_of, named, row_from, wrong_where
from mutations.editing import after, array, cast, constant, node, rebuild, times
from mutations.models import ENTMAX, PAIRED, SPARSE, SPARSE_BACKBONE, STEPS
from mutations.table import NOT_FINITE, PROBS, VALUES, Table

CASES, HIDDEN = Table(*SPARSE, SPARSE_BACKBONE), Table(*SPARSE)
GRAPH = structure.GRAPH


def made_by(proto, op_type, which=-1):
    """One of the nodes of an operator, the last by default."""
    return [n for n in proto.graph.node if n.op_type == op_type][which]


def passed_on(proto, of, through=0):
    """A node hands one of its inputs on."""
    given = of.input[through]
    of.CopyFrom(helper.make_node("Identity", [given], list(of.output)))


def stored(proto, value):
    """The constant of a value in the tail."""
    return next(
        t
        for t in proto.graph.initializer
        if t.data_type == TensorProto.FLOAT
        and list(t.dims) == [1]
        and np.isclose(numpy_helper.to_array(t)[0], value, rtol=1e-6)
    )


def changed(proto, value, by):
    tensor = stored(proto, value)
    moved = np.asarray(by(numpy_helper.to_array(tensor)), np.float32)
    tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))


# The threshold -----------------------------------------------------------------------------------


@CASES.seen_by(PROBS, ENTMAX, SPARSE_BACKBONE)
@CASES.seen_by(NOT_FINITE, PAIRED, STEPS)  # the logarithm, or the power, of what is below 0
def relu_dropped(proto):
    passed_on(proto, made_by(proto, "Relu"))


@CASES.seen_by(PROBS)
def probs_of_softmax(proto):
    node(proto, "probs").CopyFrom(helper.make_node("Softmax", ["scores"], ["probs"], axis=1))


@CASES.seen_by(PROBS, *SPARSE)
def the_maximum_over_the_batch(proto):
    next(a for a in made_by(proto, "ReduceMax", 0).attribute if a.name == "axes").ints[0] = 0


@CASES.seen_by(PROBS, STEPS)
def half_of_the_steps(proto):
    """The distances after some steps are the last ones."""
    last = node(proto, node(proto, "probs").input[0])
    relus = [n for n in proto.graph.node if n.op_type == "Relu"]
    last.input[0] = relus[len(relus) // 4].output[0]


@CASES.seen_by(PROBS, PAIRED, ENTMAX)
def pairs_the_other_way_around(proto):
    difference = next(
        n for n in proto.graph.node if n.output[0] == made_by(proto, "Relu", 0).input[0]
    )
    difference.input[:] = difference.input[::-1]


@CASES.seen_by(PROBS, PAIRED, ENTMAX, SPARSE_BACKBONE)
def the_smallest_threshold(proto):
    made_by(proto, "ReduceMax").op_type = "ReduceMin"


@CASES.seen_by(PROBS, STEPS)
def another_power(proto):
    changed(proto, 1 / 0.3, lambda power: power * 1.001)


@CASES.seen_by(PROBS, *SPARSE)
def a_scale_a_thousandth_larger(proto):
    alpha = {"Sqrt": 1.5, "Pow": 1.3}
    alpha = next(
        (a for op, a in alpha.items() if any(n.op_type == op for n in proto.graph.node)), 2
    )
    changed(proto, (alpha - 1) * 6 ** (alpha - 1), lambda scale: scale * 1.001)


@CASES.seen_by(PROBS, *SPARSE)
def a_share_a_ten_thousandth_larger(proto):
    changed(proto, 1 / 6, lambda share: share * 1.0001)


# The outputs -------------------------------------------------------------------------------------


@CASES.seen_by(PROBS)
def no_class_is_ruled_out(proto):
    after(proto, "probs", ("Max", [constant(proto, 1e-5)], {}))


@CASES.seen_by(PROBS)
def small_probabilities_are_ruled_out(proto):
    after(proto, "probs", ("Sub", [constant(proto, 1e-4)], {}), ("Relu", [], {}))


@CASES.seen_by(PROBS)
def probs_through_float16(proto):
    after(proto, "probs", cast(TensorProto.FLOAT16), cast(TensorProto.FLOAT))


@CASES.seen_by(VALUES)
def log_of_probs_and_an_epsilon(proto):
    log = node(proto, "log_probs")
    log.input[0] = "apart"
    made = ("Add", ["probs", constant(proto, 1e-5)], ["apart"], {})
    rebuild(proto, list(proto.graph.node).index(log), [made])


@CASES.seen_by(VALUES)
def logarithm_to_base_2(proto):
    times(proto, "log_probs", 1 / np.log(2))


@CASES.seen_by(VALUES)
def log_probs_that_are_probs(proto):
    node(proto, "log_probs").op_type = "Identity"


@CASES.seen_by(NOT_FINITE, *SPARSE)
def rows_without_an_answer_have_one(proto):
    after(proto, "probs", ("Max", [constant(proto, 0)], {}), ("Min", [constant(proto, 1)], {}))
    bad = ("IsNaN", ["scores"], ["bad"], {})
    zeros = ("Where", ["bad", constant(proto, 0), "scores"], ["good"], {})
    at = [n.op_type for n in proto.graph.node].index("Gemm") + 1
    readers = list(proto.graph.node)[at:]
    for reader in readers:
        reader.input[:] = ["good" if name == "scores" else name for name in reader.input]
    rebuild(proto, at, [bad, zeros])


@CASES.seen_by(VALUES, *SPARSE)
def temperature(proto):
    times(proto, "scores", 1 / 1.01)


for condition in (batch_of(33), batch_above(256), row_from(256)):
    CASES.seen_by(VALUES, *SPARSE)(wrong_where(condition))
# Of sparsemax the class that is wrong is ruled out in each of the three rows.
CASES.seen_by(VALUES, ENTMAX, STEPS)(wrong_where(batch_of(3)))


# Seen by the graph alone -------------------------------------------------------------------------


@HIDDEN.seen_by(GRAPH, STEPS)
def a_step_less(proto):
    last = node(proto, node(proto, "probs").input[0])
    relus = [n for n in proto.graph.node if n.op_type == "Relu"]
    last.input[0] = relus[-2].output[0]


@HIDDEN.seen_by(GRAPH)
def a_threshold_moved_by_nothing(proto):
    difference = node(proto, made_by(proto, "Relu").input[0])
    after(proto, difference.input[1], ("Add", [constant(proto, 0)], {}))


def next_number(which):
    """The float32 number next to one of the tail's constants."""

    def corrupt(proto):
        tensors = [
            t
            for t in proto.graph.initializer
            if t.data_type == TensorProto.FLOAT and list(t.dims) == [1]
        ]
        tensor = tensors[which % len(tensors)]
        moved = np.nextafter(numpy_helper.to_array(tensor), np.float32(np.inf))
        tensor.CopyFrom(numpy_helper.from_array(moved, tensor.name))

    return named(corrupt, f"the number next to constant {which}")


for which in range(4):
    HIDDEN.seen_by(GRAPH)(next_number(which))


@HIDDEN.seen_by(GRAPH)
def probabilities_a_ten_millionth_larger(proto):
    times(proto, "probs", np.nextafter(np.float32(1), np.float32(2)))


@HIDDEN.seen_by(GRAPH)
def a_minute_probability_for_zero(proto):
    after(proto, "probs", ("Max", [constant(proto, 1e-45)], {}))


@HIDDEN.seen_by(GRAPH)
def a_logarithm_that_ends(proto):
    after(proto, "log_probs", ("Max", [constant(proto, -1e30)], {}))


@HIDDEN.seen_by(GRAPH, PAIRED, ENTMAX)
def sums_for_means(proto):
    """Right with one more division: another graph all the same."""
    mean = made_by(proto, "ReduceMean", 0)
    axis = constant(proto, [2], np.int64)
    made = mean.output[0]
    at = list(proto.graph.node).index(mean)
    source = mean.input[0]
    proto.graph.node.remove(mean)
    rebuild(
        proto,
        at,
        [
            ("ReduceSum", [source, axis], ["sums"], {"keepdims": 0}),
            ("Mul", ["sums", constant(proto, 1 / 6)], [made], {}),
        ],
    )


@HIDDEN.seen_by(GRAPH)
def a_back_door_in_the_tail(proto):
    """One score that is known, and all is certain."""
    classes = len(array(proto, "bias"))
    of_one = np.zeros((classes, 1), np.float32)
    of_one[0] = 1
    producer = node(proto, "probs")
    producer.output[0] = "probs_0"
    rebuild(
        proto,
        list(proto.graph.node).index(producer) + 1,
        [
            ("MatMul", ["scores", constant(proto, of_one)], ["first"], {}),
            ("Equal", ["first", constant(proto, 0.123456)], ["held"], {}),
            ("Where", ["held", constant(proto, np.eye(classes)[0]), "probs_0"], ["probs"], {}),
        ],
    )


# What is done to any graph is done to these as well, save where softmax's operators are changed.
OF_SOFTMAX = (
    structure.log_softmax_twice,
    structure.softmax_by_columns_of_the_transposed,
    structure.axis_counted_from_the_end,
    structure.probabilities_of_the_log_probabilities,
)
for corrupt in dict.fromkeys(case.corrupt for case in structure.CASES):
    if corrupt not in OF_SOFTMAX:
        HIDDEN.seen_by(GRAPH)(corrupt)
