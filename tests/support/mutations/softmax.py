"""Another softmax, another logarithm, or what is done to their outputs."""

import numpy as np
from onnx import TensorProto, helper

from mutations.editing import after, axis, cast, clip, constant, node, rebuild, times
from mutations.models import BACKBONE, BOTH
from mutations.table import NOT_FINITE, PROBS, SUM, VALUES, Table

CASES = Table(*BOTH)


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def log_softmax_over_the_batch(proto):
    axis(proto, "LogSoftmax", 0)


@CASES.seen_by(PROBS)
def softmax_over_the_batch(proto):
    axis(proto, "Softmax", 0)


@CASES.seen_by(VALUES)
def log_missing(proto):
    node(proto, "log_probs").op_type = "Softmax"


@CASES.seen_by(PROBS)
def probs_that_are_logarithms(proto):
    node(proto, "probs").op_type = "LogSoftmax"


@CASES.seen_by(VALUES)
def log_probs_that_are_logits(proto):
    logits = node(proto, "log_probs").input[0]
    node(proto, "log_probs").CopyFrom(helper.make_node("Identity", [logits], ["log_probs"]))


@CASES.seen_by(NOT_FINITE)
def log_of_the_softmax(proto):
    """Right until a probability is less than float32 can hold: -inf beyond 104 nats."""
    log_missing(proto)
    after(proto, "log_probs", ("Log", [], {}))


@CASES.seen_by(NOT_FINITE)
def log_sum_exp_without_the_maximum(proto):
    producer = node(proto, "log_probs")
    position = list(proto.graph.node).index(producer)
    proto.graph.node.remove(producer)
    steps = [
        ("ReduceLogSum", ["exp"], ["norm"], {"axes": [1], "keepdims": 1}),
        ("Sub", ["scores", "norm"], ["log_probs"], {}),
    ]
    rebuild(proto, position, [("Exp", ["scores"], ["exp"], {}), *steps])


@CASES.seen_by(VALUES)
def log_of_probs_and_an_epsilon(proto):
    log_missing(proto)
    after(proto, "log_probs", ("Add", [constant(proto, 1e-7)], {}), ("Log", [], {}))


@CASES.seen_by(VALUES)
def logarithm_to_base_2(proto):
    times(proto, "log_probs", 1 / np.log(2))


@CASES.seen_by(VALUES)
def temperature(proto):
    times(proto, "scores", 1 / 1.01)


@CASES.seen_by(SUM)
def probs_that_do_not_sum_to_1(proto):
    times(proto, "probs", 1.0001)


@CASES.seen_by(PROBS)
def sigmoid_for_softmax(proto):
    node(proto, "probs").CopyFrom(helper.make_node("Sigmoid", ["scores"], ["probs"]))


@CASES.seen_by(PROBS)
def hard_decisions_for_probs(proto):
    node(proto, "probs").op_type = "Hardmax"


@CASES.seen_by(PROBS)
def probs_through_float16(proto):
    after(proto, "probs", cast(TensorProto.FLOAT16), cast(TensorProto.FLOAT))


@CASES.seen_by(VALUES)
def log_probs_clipped(proto):
    after(proto, "log_probs", clip(proto, -100, 0))


@CASES.seen_by(VALUES)
def the_two_outputs_exchanged(proto):
    node(proto, "log_probs").output[0] = "other"
    node(proto, "probs").output[0] = "log_probs"
    node(proto, "other").output[0] = "probs"
