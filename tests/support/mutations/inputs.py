"""What happens to the inputs before the model sees them."""

import numpy as np
from onnx import TensorProto, helper

from mutations.editing import after, before, cast, clip, constant, node, rebuild
from mutations.models import BACKBONE, BOTH
from mutations.table import NOT_FINITE, VALUES, Table

CASES = Table(*BOTH)


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def input_clipped_to_0_and_1(proto):
    before(proto, "input", clip(proto, 0, 1))


@CASES.seen_by(NOT_FINITE)
def large_inputs_clipped(proto):
    before(proto, "input", clip(proto, -1e8, 1e8))


@CASES.seen_by(NOT_FINITE)
def infinity_made_finite(proto):
    limit = float(np.finfo(np.float32).max)
    before(proto, "input", clip(proto, -limit, limit))


@CASES.seen_by(NOT_FINITE)
def nan_taken_for_zero(proto):
    rebuild(proto, 0, [("IsNaN", ["input"], ["nan"], {})])
    zero = constant(proto, 0)
    node(proto, "scores").input[0] = "clean"
    rebuild(proto, 1, [("Where", ["nan", zero, "input"], ["clean"], {})])


@CASES.seen_by(NOT_FINITE)
def nan_answered_with_infinity(proto):
    after(proto, "probs", ("Identity", [], {}))
    last = len(proto.graph.node) - 1
    rebuild(proto, last, [("IsNaN", ["probs_0"], ["nan"], {})])
    infinity = constant(proto, np.inf)
    node(proto, "probs").CopyFrom(
        helper.make_node("Where", ["nan", infinity, "probs_0"], ["probs"])
    )


@CASES.seen_by(VALUES)
def input_divided_by_255(proto):
    before(proto, "input", ("Div", [constant(proto, 255)], {}))


@CASES.seen_by(VALUES)
def input_through_float16(proto):
    limit = 60_000  # float16 ends at 65504; only its digits are meant here
    steps = clip(proto, -limit, limit), cast(TensorProto.FLOAT16), cast(TensorProto.FLOAT)
    before(proto, "input", *steps)


@CASES.seen_by(VALUES)
def dropout_left_on(proto):
    ratio = constant(proto, 0.1)
    before(proto, "input", ("Dropout", [ratio, constant(proto, True, bool)], {"seed": 1}))


@CASES.seen_by(VALUES)
def dropout_that_scales_in_eval_mode(proto):
    before(proto, "input", ("Mul", [constant(proto, 0.9)], {}))


@CASES.seen_by(VALUES)
def rows_that_depend_on_their_batch(proto):
    """As with dynamic quantisation: the batch's largest logit changes every row a little."""
    after(proto, "scores", ("Identity", [], {}))
    steps = [
        ("ReduceMax", ["scores_0"], ["top"], {"axes": [0], "keepdims": 1}),
        ("Mul", ["top", constant(proto, 1e-4)], ["little"], {}),
    ]
    rebuild(proto, 1, steps)
    node(proto, "scores").CopyFrom(helper.make_node("Add", ["scores_0", "little"], ["scores"]))
