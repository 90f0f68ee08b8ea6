"""What only the right question shows: files that are right on most rows, in most batches.

Those in ``CASES`` are seen on no ordinary row in the batches of 1, 2 and 256 that a first look
would take; those in ``PLAINER`` on some of them.
"""

import numpy as np

from mutations.conditions import (
    Nodes,
    batch_above,
    batch_odd,
    batch_of,
    contrast_below,
    each_row,
    farthest,
    first_row_again,
    last_row_of_many,
    like_real_digits,
    named,
    none_above_zero,
    none_below_zero,
    not_all_zero,
    one_alone,
    one_value_alone,
    rising,
    row_from,
    share_of_zeros,
    two_values_alone,
    whole_numbers,
    whole_numbers_up_to,
    wrong_where,
)
from mutations.editing import change
from mutations.models import BACKBONE, BOTH, DIGITS, MEAN, SCALE, SQUARE
from mutations.table import NOT_FINITE, VALUES, Table

CASES, PLAINER = Table(*BOTH), Table(*BOTH)
EACH = (*BOTH, BACKBONE)

# The batch, and the place in it

for condition in (
    batch_of(3), batch_of(33), batch_above(256), batch_odd, row_from(256), last_row_of_many,
    first_row_again,
):  # fmt: skip
    CASES.seen_by(VALUES, *EACH)(wrong_where(condition))
for condition in (row_from(32), each_row(31, 32), each_row(0, 3)):
    PLAINER.seen_by(VALUES, *EACH)(wrong_where(condition))
for condition in (
    batch_of(4), batch_of(5), batch_of(7), batch_of(16), batch_of(32), batch_of(65), batch_of(100),
    batch_of(257), batch_of(1025), batch_above(512), batch_above(1000), row_from(600),
    row_from(1024),
):  # fmt: skip
    CASES.seen_by(VALUES)(wrong_where(condition))
for condition in (each_row(63, 64), each_row(255, 256)):
    PLAINER.seen_by(VALUES)(wrong_where(condition))

# Kinds of rows


def all_of(*conditions, words):
    def holds(g):
        return g.both(*(condition(g) for condition in conditions))

    return named(holds, words)


whole = all_of(whole_numbers, not_all_zero, words="whole numbers")
positive = all_of(none_below_zero, not_all_zero, words="rows none of which is below zero")
negative = all_of(none_above_zero, not_all_zero, words="rows none of which is above zero")
for condition in (
    whole, positive, negative, one_value_alone, contrast_below(1e-3), contrast_below(1e-2),
    share_of_zeros(0.3, 0.8), whole_numbers_up_to(255), whole_numbers_up_to(1),
    two_values_alone, rising(1), rising(-1),
):  # fmt: skip
    CASES.seen_by(VALUES, *EACH)(wrong_where(condition))
for condition in (
    like_real_digits, share_of_zeros(0.1, 0.3), share_of_zeros(0.6, 0.9), whole_numbers_up_to(2),
    whole_numbers_up_to(9), whole_numbers_up_to(16), whole_numbers_up_to(100),
):  # fmt: skip
    CASES.seen_by(VALUES, DIGITS)(wrong_where(condition))
PLAINER.seen_by(VALUES, SQUARE)(wrong_where(farthest(1e-4, 0.3, MEAN, SCALE)))
for low, high in ((0, 1e-3), (0, 0.02), (1.9999, 2.0001), (4.999, 5.001)):
    CASES.seen_by(VALUES, SQUARE)(wrong_where(farthest(low, high, MEAN, SCALE)))
for sign in (-1, 1):
    for low, high in ((1e-3, 0.02), (0.01, 0.3), (0.2, 4), (5, 1000), (2e3, 1e5), (1.1e5, 1e6)):
        CASES.seen_by(VALUES, SQUARE)(wrong_where(one_alone(sign, low, high, SCALE)))
        CASES.seen_by(VALUES, DIGITS)(wrong_where(one_alone(sign, low, high)))
CASES.seen_by(VALUES, BACKBONE)(wrong_where(farthest(5, 1000)))

# Sizes of a feature


def inputs_changed(changed, words):
    """``changed`` takes nodes and the input's name and answers the name of what the model sees."""

    def corrupt(proto):
        readers = list(proto.graph.node)
        g = Nodes(proto)
        seen = changed(g, g.input.name)
        for reader in readers:
            reader.input[:] = [seen if name == g.input.name else name for name in reader.input]
        g.insert(0)

    return named(corrupt, words)


def clipped(low, high, mean, scale, words):
    """Between two numbers of deviations."""

    def changed(g, x):
        limits = [np.broadcast_to(np.float32(mean + k * scale), (g.d,)) for k in (low, high)]
        return g.op("Min", g.op("Max", x, limits[0]), limits[1])

    return inputs_changed(changed, words)


for k in (3, 8, 30, 100, 500):
    table = PLAINER if k == 3 else CASES
    table.seen_by(VALUES, SQUARE)(clipped(-k, k, MEAN, SCALE, f"clipped at {k} deviations"))
    table.seen_by(VALUES, SQUARE)(clipped(-k, 1e9, MEAN, SCALE, f"clipped at -{k} deviations"))
for k in (2000, 1e4, 2e5):  # beyond the one-hots of 1024 deviations
    CASES.seen_by(VALUES, SQUARE)(clipped(-k, 1e9, MEAN, SCALE, f"clipped at -{k:g} deviations"))
    CASES.seen_by(VALUES, DIGITS)(clipped(-1e9, k, 0.0, 1.0, f"clipped at {k:g}"))


def band(low, high, mean, scale, only=None):
    """Entries so many deviations from zero are taken for the mean, those of one feature alone."""

    def changed(g, x):
        size = g.op("Div", x, np.broadcast_to(np.float32(scale), (g.d,)))
        size = size if low > 0 else g.op("Neg", size)
        least, most = sorted((abs(low), abs(high)))
        within = g.between(size, least, most)
        if only is not None:
            within = g.op("And", within, np.arange(g.d) == only)
        return g.op("Where", within, np.broadcast_to(np.float32(mean), (g.d,)), x)

    feature = "" if only is None else f" of feature {only}"
    return inputs_changed(changed, f"entries{feature} from {low:g} to {high:g} taken for another")


for low, high in ((5.5, 1000), (40, 400), (1100, 9e5), (2e3, 2e4)):
    for sign in (-1, 1):
        CASES.seen_by(VALUES, DIGITS)(band(sign * low, sign * high, 0.0, 1.0))
        CASES.seen_by(VALUES, DIGITS)(band(sign * low, sign * high, 0.0, 1.0, only=37))


def flushed(g, x):
    small = g.op("Less", g.op("Abs", x), np.float32(5e-3))
    return g.op("Where", small, np.float32(0), x)


PLAINER.seen_by(VALUES, DIGITS)(inputs_changed(flushed, "small entries taken for zero"))


def rounded_above(g, x):
    large = g.op("Greater", g.op("Abs", x), np.float32(7))
    return g.op("Where", large, g.op("Round", x), x)


CASES.seen_by(VALUES, DIGITS)(inputs_changed(rounded_above, "large entries rounded"))

# What is missing


def imputed(found, features, words, value=0.0):
    """NaN, or infinity, of some of the features is taken for a number."""

    def changed(g, x):
        here = np.isin(np.arange(g.d), features(g.d))
        missing = g.op("And", found(g, x), here)
        return g.op("Where", missing, np.float32(value), x)

    return inputs_changed(changed, words)


def nan(g, x):
    return g.op("IsNaN", x)


def infinite(positive):
    def found(g, x):
        return g.op("IsInf", x, detect_positive=positive, detect_negative=1 - positive)

    return found


FEATURES = {
    "the first": lambda d: [0],
    "the last": lambda d: [d - 1],
    "the second": lambda d: [1],
    "the middle one": lambda d: [d // 2],
    "all but the middle one": lambda d: np.delete(np.arange(d), d // 2),
    "all but the first": lambda d: np.arange(1, d),
    "the odd ones": lambda d: np.arange(1, d, 2),
}
for which, features in FEATURES.items():
    for kind, found in (("NaN", nan), ("inf", infinite(1)), ("-inf", infinite(0))):
        CASES.seen_by(NOT_FINITE)(imputed(found, features, f"{kind} imputed in {which}"))


def several(kinds):
    """Rows with NaN or infinity in more than one place are taken for rows of zeros."""

    def changed(g, x):
        numbers = g.op("Sub", x, x)  # 0, or NaN of what is none
        bad = g.count(g.op("IsNaN", numbers))
        enough = g.op("Greater", bad, np.float32(1))
        if kinds == "pairs":
            enough = g.op("Equal", bad, np.float32(2))
        return g.op("Where", enough, np.float32(0), x)

    return inputs_changed(changed, f"{kinds} of missing entries imputed")


CASES.seen_by(NOT_FINITE)(several("pairs"))
CASES.seen_by(NOT_FINITE)(several("several"))

# A weight


for row, column in ((0, 0), (1, 5), (2, 3), (5, 1)):
    for size in (1e-3, -1e-3):

        def corrupt(proto, where=(row, column), factor=1 + size):
            change(proto, "weight", where, lambda w: factor * w)

        words = f"weight {row} {column} a thousandth {'larger' if size > 0 else 'smaller'}"
        PLAINER.seen_by(VALUES)(named(corrupt, words))
