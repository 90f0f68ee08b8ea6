"""What is done to a traced backbone in front of the head."""

import numpy as np
from onnx import helper

from mutations.editing import array, before, change, node, permute, put
from mutations.models import BACKBONE, Convolution
from mutations.table import SHAPES, VALUES, Table
from mutations.weights import without_standardisation

CASES = Table(BACKBONE)


@CASES.seen_by(VALUES)
def relu_removed(proto):
    node(proto, "Relu").op_type = "Identity"


@CASES.seen_by(VALUES)
def batch_norm_left_out(proto):
    """The exporter folded it into the convolution: here are the convolution's own weights."""
    convolution, batch_norm, *_ = Convolution.make().backbone
    assert not batch_norm.training
    _, weight, bias = node(proto, "Conv").input
    put(proto, **{weight: convolution.weight.detach(), bias: convolution.bias.detach()})


@CASES.seen_by(VALUES)
def a_kernel_turned_around(proto):
    kernel = node(proto, "Conv").input[1]
    change(proto, kernel, 0, lambda w: w[:, ::-1, ::-1])


@CASES.seen_by(VALUES)
def a_kernel_a_thousandth_too_large(proto):
    change(proto, node(proto, "Conv").input[1], 0, lambda w: 1.001 * w)


@CASES.seen_by(VALUES)
def largest_for_average_pooling(proto):
    pooling = node(proto, "AveragePool")
    kept = [a for a in pooling.attribute if a.name != "count_include_pad"]
    replacement = helper.make_node("MaxPool", pooling.input, pooling.output)
    replacement.attribute.extend(kept)
    pooling.CopyFrom(replacement)


@CASES.seen_by(VALUES)
def channels_in_another_order(proto):
    permute(proto, "weight", np.arange(16).reshape(4, 4).T.ravel(), axis=1)


@CASES.seen_by(VALUES)
def features_not_standardised(proto):
    statistics = Convolution.make().preprocessing
    weight, bias = without_standardisation(
        array(proto, "weight"),
        array(proto, "bias"),
        statistics.mean.numpy(),
        statistics.scale.numpy(),
    )
    put(proto, weight=weight, bias=bias)


@CASES.seen_by(VALUES)
def images_transposed(proto):
    before(proto, "input", ("Transpose", [], {"perm": [0, 1, 3, 2]}))


@CASES.seen_by(SHAPES)
def padding_removed(proto):
    pads = next(a for a in node(proto, "Conv").attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 0, 0]
