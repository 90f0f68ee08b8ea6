"""Wrong weights, biases and statistics."""

import numpy as np
import torch

from mutations.editing import array, before, change, constant, permute, put
from mutations.models import BACKBONE, BOTH, MEAN, SCALE, SQUARE
from mutations.table import NOT_FINITE, VALUES, Table

CASES = Table(*BOTH)


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def two_class_rows_swapped(proto):
    permute(proto, "weight", [1, 0, *range(2, len(array(proto, "bias")))])


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def two_biases_swapped(proto):
    permute(proto, "bias", [1, 0, *range(2, len(array(proto, "bias")))])


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def bias_dropped(proto):
    put(proto, bias=0 * array(proto, "bias"))


@CASES.seen_by(VALUES)
def two_feature_columns_swapped(proto):
    permute(proto, "weight", [1, 0, *range(2, array(proto, "weight").shape[1])], axis=1)


@CASES.seen_by(VALUES)
def classes_one_further(proto):
    for name in ("weight", "bias"):
        put(proto, **{name: np.roll(array(proto, name), 1, axis=0)})


@CASES.seen_by(VALUES, SQUARE)
def weights_transposed(proto):
    put(proto, weight=array(proto, "weight").T)


@CASES.seen_by(VALUES)
def one_weight_off_by_a_thousandth(proto):
    change(proto, "weight", (2, 3), lambda w: w + 1e-3)


@CASES.seen_by(VALUES)
def one_weight_with_the_other_sign(proto):
    change(proto, "weight", (1, 4), np.negative)


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def one_weight_pruned(proto):
    change(proto, "weight", (0, 0), np.zeros_like)


@CASES.seen_by(VALUES)
def one_bias_off_by_a_ten_thousandth(proto):
    change(proto, "bias", 3, lambda b: b + 1e-4)


@CASES.seen_by(VALUES)
def weights_a_ten_thousandth_too_large(proto):
    put(proto, weight=array(proto, "weight") * (1 + 1e-4))


@CASES.seen_by(NOT_FINITE, *BOTH, BACKBONE)
def a_nan_weight(proto):
    change(proto, "weight", (1, 2), lambda w: w * np.nan)


@CASES.seen_by(NOT_FINITE)
def an_infinite_weight(proto):
    change(proto, "weight", (1, 2), lambda w: np.inf)


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def weights_through_float16(proto):
    put(proto, weight=array(proto, "weight").astype(np.float16))


@CASES.seen_by(VALUES)
def weights_through_bfloat16(proto):
    put(proto, weight=torch.from_numpy(array(proto, "weight")).bfloat16().float().numpy())


@CASES.seen_by(VALUES, *BOTH, BACKBONE)
def weights_in_int8(proto):
    weight = array(proto, "weight")
    step = np.abs(weight).max() / 127
    put(proto, weight=np.round(weight / step) * step)


@CASES.seen_by(VALUES)
def a_class_masked(proto):
    change(proto, "bias", 1, lambda b: -1e9)


@CASES.seen_by(VALUES)
def a_class_that_is_another(proto):
    for name in ("weight", "bias"):
        values = array(proto, name)
        change(proto, name, 1, lambda row, values=values: values[0])


# Standardisation


def without_standardisation(weight, bias, mean, scale):
    """The layer that was folded: W = (W / scale) · scale, b = (b - (W / scale) mean) + …"""
    return weight * scale, bias + weight @ mean


@CASES.seen_by(VALUES, SQUARE)
def standardisation_left_out(proto):
    weight, bias = array(proto, "weight"), array(proto, "bias")
    weight, bias = without_standardisation(weight, bias, MEAN, SCALE)
    put(proto, weight=weight, bias=bias)


@CASES.seen_by(VALUES, SQUARE)
def standardised_twice(proto):
    before(
        proto,
        "input",
        ("Sub", [constant(proto, MEAN)], {}),
        ("Div", [constant(proto, SCALE)], {}),
    )


@CASES.seen_by(VALUES, SQUARE)
def mean_not_subtracted(proto):
    put(proto, bias=array(proto, "bias") + array(proto, "weight") @ MEAN)


@CASES.seen_by(VALUES, SQUARE)
def divided_by_the_variance(proto):
    put(proto, weight=array(proto, "weight") / SCALE)
