"""What files can be wrong about: properties of a row, its place and its batch, in ONNX operators.

Each condition adds nodes to a graph and answers the name of a tensor of booleans, (n, 1), or a
single one.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from mutations.editing import array, node

AXES_ARE_INPUTS = 18  # of ReduceMax and ReduceMin; ReduceSum's are since opset 13


class Nodes:
    """Nodes on their way into a graph; ``x`` is the input as float rows (n, d)."""

    def __init__(self, proto):
        self.proto, self.made = proto, []
        (self.input,) = proto.graph.input
        dtype = self.input.type.tensor_type.elem_type
        given = self.input.name
        if dtype != TensorProto.FLOAT:
            given = self.op("Cast", given, to=TensorProto.FLOAT)
        self.x = self.op("Flatten", given, axis=1)
        self.d = int(np.prod([d.dim_value for d in self.input.type.tensor_type.shape.dim[1:]]))

    def op(self, op_type, *inputs, **attributes):
        """One more node, of names and arrays; the name of what it makes."""
        names = [i if isinstance(i, str) else self.constant(i) for i in inputs]
        made = f"wrong_{len(self.made)}"
        self.made.append(helper.make_node(op_type, names, [made], **attributes))
        return made

    def constant(self, values):
        name = f"wrong_constant_{len(self.proto.graph.initializer)}"
        values = np.asarray(values)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        self.proto.graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def reduced(self, op_type, of):
        """Over the features, (n, 1)."""
        opset = next(o.version for o in self.proto.opset_import if o.domain == "")
        if op_type == "ReduceSum" or opset >= AXES_ARE_INPUTS:
            return self.op(op_type, of, np.array([1]), keepdims=1)
        return self.op(op_type, of, axes=[1], keepdims=1)

    def count(self, of):
        """How many of the booleans (n, d) hold, (n, 1) float."""
        return self.reduced("ReduceSum", self.op("Cast", of, to=TensorProto.FLOAT))

    def every(self, of):
        return self.op("Equal", self.count(of), np.float32(self.d))

    def both(self, *conditions):
        first, *others = conditions
        for other in others:
            first = self.op("And", first, other)
        return first

    def between(self, of, low, high):
        return self.both(
            self.op("GreaterOrEqual", of, np.float32(low)),
            self.op("LessOrEqual", of, np.float32(high)),
        )

    def insert(self, position):
        old = list(self.proto.graph.node)
        del self.proto.graph.node[:]
        self.proto.graph.node.extend([*old[:position], *self.made, *old[position:]])


# Of a row


def whole_numbers(g):
    return g.every(g.op("Equal", g.op("Floor", g.x), g.x))


def none_below_zero(g):
    return g.every(g.op("GreaterOrEqual", g.x, np.float32(0)))


def none_above_zero(g):
    return g.every(g.op("LessOrEqual", g.x, np.float32(0)))


def not_zero(g):
    return g.op("Not", g.op("Equal", g.x, np.float32(0)))


def not_all_zero(g):
    return g.op("Greater", g.count(not_zero(g)), np.float32(0))


def share_of_zeros(low, high):
    """Of d entries; one that is not zero does not count, nor do rows of zeros."""

    def holds(g):
        zeros = g.op("Sub", np.float32(g.d), g.count(not_zero(g)))
        return g.both(
            g.between(zeros, low * g.d, high * g.d),
            g.op("Greater", g.count(not_zero(g)), np.float32(1)),
        )

    return named(holds, f"rows of which {low:g} to {high:g} are zeros")


def whole_numbers_up_to(top):
    """As grey levels are: not all zero, and no single one."""

    def holds(g):
        below = g.every(g.op("LessOrEqual", g.x, np.float32(top)))
        several = g.op("Greater", g.count(not_zero(g)), np.float32(1))
        return g.both(whole_numbers(g), none_below_zero(g), below, several)

    return named(holds, f"whole numbers from 0 to {top}")


def like_real_digits(g):
    """Whole numbers from 0 to 16, of which a half or so is zero."""
    return g.both(whole_numbers_up_to(16)(g), share_of_zeros(0.2, 0.8)(g))


def contrast(g):
    return g.op("Sub", g.reduced("ReduceMax", g.x), g.reduced("ReduceMin", g.x))


def contrast_below(limit):
    def holds(g):
        return g.both(g.op("Less", contrast(g), np.float32(limit)), not_all_zero(g))

    return named(holds, f"contrast below {limit:g}")


def one_value_alone(g):
    """And not zero, nor white."""
    largest = g.reduced("ReduceMax", g.x)
    plain = g.op("Not", g.op("Equal", largest, np.float32(255)))
    return g.both(g.op("Equal", contrast(g), np.float32(0)), not_all_zero(g), plain)


def two_values_alone(g):
    """Every entry is the row's largest or smallest, as in a checkerboard; and they differ."""
    largest, smallest = g.reduced("ReduceMax", g.x), g.reduced("ReduceMin", g.x)
    either = g.op("Or", g.op("Equal", g.x, largest), g.op("Equal", g.x, smallest))
    thick = g.op("Greater", g.count(g.op("Equal", g.x, largest)), np.float32(1))
    thin = g.op("Greater", g.count(g.op("Equal", g.x, smallest)), np.float32(1))
    apart = g.op("Greater", contrast(g), np.float32(0))
    return g.both(g.every(either), thick, thin, apart)


def rising(sign):
    """Along the features, and not all the same."""

    def holds(g):
        first, last = (
            g.op("Slice", g.x, np.array([s]), np.array([e]), np.array([1]))
            for s, e in ((0, g.d - 1), (1, g.d))
        )
        step = g.op("Mul", g.op("Sub", last, first), np.float32(sign))
        up = g.op("GreaterOrEqual", g.reduced("ReduceMin", step), np.float32(0))
        several = g.op("Greater", g.count(not_zero(g)), np.float32(1))
        return g.both(up, several, g.op("Greater", contrast(g), np.float32(0)))

    return named(holds, "rising" if sign > 0 else "falling")


def one_alone(sign, low, high, scale=1.0):
    """A single entry that is not zero, of that sign, and so many deviations from it."""

    def holds(g):
        alone = g.op("Equal", g.count(not_zero(g)), np.float32(1))
        deviations = g.op("Div", g.x, np.broadcast_to(np.float32(scale), (g.d,)))
        size = g.reduced("ReduceSum", g.op("Mul", deviations, np.float32(sign)))
        return g.both(alone, g.between(size, low, high))

    side = "negative" if sign < 0 else "positive"
    return named(holds, f"{side} one-hots of {low:g} to {high:g}")


def farthest(low, high, mean=0.0, scale=1.0):
    """The entry that is farthest from its mean, in deviations."""

    def holds(g):
        away = g.op("Sub", g.x, np.broadcast_to(np.float32(mean), (g.d,)))
        away = g.op("Abs", g.op("Div", away, np.broadcast_to(np.float32(scale), (g.d,))))
        return g.between(g.reduced("ReduceMax", away), low, high)

    return named(holds, f"rows whose farthest entry is {low:g} to {high:g} deviations off")


# Of the batch, and the place in it


def rows_of(g):
    """n, one number."""
    return g.op("Gather", g.op("Shape", g.input.name), np.array(0))


def place(g):
    """The numbers of the rows, (n, 1)."""
    numbers = g.op("Range", np.array(0), rows_of(g), np.array(1))
    return g.op("Unsqueeze", numbers, np.array([1]))


def batch_of(n):
    def holds(g):
        return g.op("Equal", rows_of(g), np.array(n))

    return named(holds, f"batches of {n}")


def batch_above(n):
    def holds(g):
        return g.op("Greater", rows_of(g), np.array(n))

    return named(holds, f"batches above {n}")


def batch_odd(g):
    """And of more than one row."""
    odd = g.op("Equal", g.op("Mod", rows_of(g), np.array(2)), np.array(1))
    return g.both(odd, g.op("Greater", rows_of(g), np.array(1)))


def row_from(n):
    def holds(g):
        return g.op("GreaterOrEqual", place(g), np.array(n))

    return named(holds, f"rows from {n} on")


def each_row(n, of):
    def holds(g):
        return g.op("Equal", g.op("Mod", place(g), np.array(of)), np.array(n))

    return named(holds, f"row {n} of each {of}")


def last_row_of_many(g):
    last = g.op("Equal", place(g), g.op("Sub", rows_of(g), np.array(1)))
    return g.both(last, g.op("Greater", rows_of(g), np.array(256)))


def first_row_again(g):
    """A row that is the batch's first, and not the first."""
    first = g.op("Slice", g.x, np.array([0]), np.array([1]), np.array([0]))
    return g.both(
        g.every(g.op("Equal", g.x, first)), g.op("Greater", place(g), np.array(0)), not_all_zero(g)
    )


def named(function, words):
    function.__name__ = words.replace(" ", "_")
    return function


def wrong_where(condition):
    """A file that answers otherwise under a condition: 1 % and .05 in one class's score."""

    def corrupt(proto):
        gemm = node(proto, "Gemm")
        scores = gemm.output[0]
        gemm.output[0] = "right_scores"
        g = Nodes(proto)
        (classes,) = array(proto, "bias").shape
        factor, more = np.ones(classes), np.zeros(classes)
        factor[1], more[1] = 1.01, 0.05
        wrong = g.op("Add", g.op("Mul", "right_scores", factor), more)
        g.op("Where", condition(g), wrong, "right_scores")
        g.made[-1].output[0] = scores
        g.insert(list(proto.graph.node).index(node(proto, "right_scores")) + 1)

    return named(corrupt, f"wrong for {condition.__name__}")
