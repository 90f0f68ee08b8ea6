"""α-entmax out of basic operators, each a fixed number of times. No torch here.

With β = 1 / (α - 1) and z = K^(α-1) (α - 1) (s - max s) the probabilities are relu(z - τ)^β / K at
the threshold τ where relu(z - τ)^β is 1 in the mean over the classes. It lies between -K^(α-1) and
0, and is found in one of two ways.

**Pairs.** If the classes from j on upwards were the support, τ would be the root of a polynomial in
zⱼ - τ of degree β: of sparsemax and entmax15 it is written out. That of the right j is the largest
of all, once a j that has more than 1 above itself is taken for its own root. It needs (batch, K, K)
numbers, so it is for few classes; z is cut off at -K^(α-1), lest far classes round the sums.

**Newton's method**, on the norm of relu(z - τ) as a function of τ: convex and falling, so that from
-K^(α-1) all steps stay below the root. :func:`steps` says how many are enough whatever the scores.

Means and not sums: ncnn's converter takes ReduceSum over the batch, and OpenVINO 2026.4 is wrong
about ReduceL1 in batches. Nodes bear no names and values short ones, as they would be most of the
file.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike
from onnx import helper, numpy_helper

from smx_export.artifact.activation import ENTMAX15, SPARSEMAX
from smx_export.artifact.tolerance import UNIT_ROUNDOFF
from smx_export.contract import LOG_PROBS, PROBS, SCORES

AXES_ARE_INPUTS = 18  # of reductions, from this opset on
AXIS = "classes_axis"
HUGE = 2.0**100  # whose square is more than float32 holds
MOST_PAIRED = 32  # classes: of more, pairs take longer than steps


def steps(num_classes: int, alpha: float) -> int:
    """How many of Newton's steps find τ to float32's last digit, whatever the scores.

    Of a convex falling function f of slope g the values after a step satisfy f′/f + g′/g ≤ 1. After
    n steps let the product of all f′/f be 1/F, and of all g′/g be 1/G: then F^(-1/n) + G^(-1/n) is
    at most 1, as geometric means are at most arithmetic ones. Of the norm f is at most K^(α-1) - 1
    and g between K^(α-1) and 1, so that 1/F ≤ u / (K^(α-1) - 1) as soon as it is more than 1 with
    these. Of sparsemax g is the size of a set that shrinks until τ is found, which takes K - 1
    steps at most.
    """
    falls = num_classes ** (alpha - 1)
    shrinks = max((falls - 1) / UNIT_ROUNDOFF, 1.0)
    count = 1
    while falls ** (-1 / count) + shrinks ** (-1 / count) <= 1:
        count += 1
    return min(count, num_classes - 1) if alpha == SPARSEMAX else count


class _Tail:
    """What is appended to a graph: nodes, and constants that are stored once."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.nodes, self.arrays = graph.node, graph.initializer
        self.axes_are_inputs = model.opset_import[0].version >= AXES_ARE_INPUTS
        self.taken = {name for node in graph.node for name in (*node.input, *node.output)}
        self.taken |= {value.name for value in (*graph.input, *graph.initializer)}
        self.known: dict[tuple[str, bytes], str] = {}
        self.count = 0

    def op(self, kind: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """A node, and the name of what it makes."""
        to = to or self._name()
        self.nodes.append(helper.make_node(kind, inputs, [to], **attributes))
        return to

    def constant(self, value: ArrayLike, name: str = "") -> str:
        """The name of a stored array, float32 where it is no axis."""
        array = np.atleast_1d(value)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        key = array.dtype.str, array.tobytes()
        if key not in self.known:
            self.known[key] = name or self._name()
            self.arrays.append(numpy_helper.from_array(array, self.known[key]))
        return self.known[key]

    def reduce(self, kind: str, of: str, axis: int = 1, *, keepdims: int = 1) -> str:
        """The largest or the mean along an axis."""
        if self.axes_are_inputs:
            return self.op(kind, of, self.axis(axis), keepdims=keepdims)
        return self.op(kind, of, axes=[axis], keepdims=keepdims)

    def axis(self, axis: int) -> str:
        """An axis as an input."""
        return self.constant(axis, AXIS if axis == 1 else "")

    def _name(self) -> str:
        while True:
            self.count += 1
            if f"e{self.count}" not in self.taken:
                return f"e{self.count}"


def append_entmax(
    model: onnx.ModelProto, num_classes: int, alpha: float, *, log_probs: bool, robust: bool
) -> None:
    """Append what makes ``probs`` out of the scores, and ``log_probs`` where they are wanted.

    Args:
        model: A graph with a tensor ``scores`` (batch, classes).
        num_classes: K.
        alpha: α, above 1 and at most 2.
        log_probs: Whether the logarithms are wanted.
        robust: Newton's steps, and no logarithm of 0: for runtimes that know no batch of matrices
            or answer NaN.
    """
    tail = _Tail(model)
    top = num_classes ** (alpha - 1)
    behind = tail.op("Sub", SCORES, tail.reduce("ReduceMax", SCORES))
    z = tail.op("Mul", behind, tail.constant((alpha - 1) * top))
    if num_classes <= MOST_PAIRED and alpha in (SPARSEMAX, ENTMAX15) and not robust:
        cut = tail.op("Max", z, tail.constant(-top))
        tau = tail.reduce("ReduceMax", tail.op("Sub", cut, _by_pairs(tail, cut, alpha)))
        left = tail.op("Relu", tail.op("Sub", z, tau))
    else:
        left = _by_newton(tail, z, alpha, -top, steps(num_classes, alpha))
    tail.op("Mul", _power(tail, left, alpha), tail.constant(1 / num_classes), to=PROBS)
    if log_probs and robust:
        _robust_log(tail)
    elif log_probs:
        tail.op("Log", PROBS, to=LOG_PROBS)


def _by_pairs(tail: _Tail, z: str, alpha: float) -> str:
    """zⱼ - τ if the classes from j on upwards were the support; 0 or less where it is larger."""
    one = tail.constant(1.0)
    rows, columns = tail.op("Unsqueeze", z, tail.axis(2)), tail.op("Unsqueeze", z, tail.axis(1))
    above = tail.op("Relu", tail.op("Sub", columns, rows))  # [j, i]: by how much i is above j
    mean = tail.reduce("ReduceMean", above, 2, keepdims=0)
    under = tail.op("Sub", one, tail.op("Sign", above))
    count = tail.reduce("ReduceMean", under, 1, keepdims=0)  # of the classes from j on upwards
    if alpha == SPARSEMAX:  # count · d + mean = 1
        return tail.op("Div", tail.op("Sub", one, mean), count)
    squares = tail.reduce("ReduceMean", tail.op("Mul", above, above), 2, keepdims=0)
    missing = tail.op("Relu", tail.op("Sub", one, squares))
    # count · d² + 2 mean · d = missing
    inside = tail.op("Add", tail.op("Mul", mean, mean), tail.op("Mul", count, missing))
    return tail.op("Div", missing, tail.op("Add", mean, tail.op("Sqrt", inside)))


def _by_newton(tail: _Tail, z: str, alpha: float, start: float, count: int) -> str:
    """The distances relu(z - τ) after so many steps.

    With S the mean of their power β and T that of β - 1, a step is (S - S^(2-α)) / T.
    """
    tau = tail.constant(start)
    left = tail.op("Relu", tail.op("Sub", z, tau))
    for _ in range(count):
        slopes, total = _slopes(tail, left, alpha)
        sums = tail.reduce("ReduceMean", total)
        missing = tail.op("Sub", sums, _root(tail, sums, alpha))
        step = tail.op("Div", missing, tail.reduce("ReduceMean", slopes))
        tau = tail.op("Add", tau, step)
        left = tail.op("Relu", tail.op("Sub", z, tau))
    return left


def _slopes(tail: _Tail, left: str, alpha: float) -> tuple[str, str]:
    """The powers β - 1 and β of relu(z - τ)."""
    if alpha == SPARSEMAX:
        return tail.op("Sign", left), left
    if alpha == ENTMAX15:
        return left, tail.op("Mul", left, left)
    slopes = tail.op("Pow", left, tail.constant((2 - alpha) / (alpha - 1)))
    return slopes, tail.op("Mul", left, slopes)


def _root(tail: _Tail, sums: str, alpha: float) -> str:
    """S^(2-α)."""
    if alpha == SPARSEMAX:
        return tail.constant(1.0)
    if alpha == ENTMAX15:
        return tail.op("Sqrt", sums)
    return tail.op("Pow", sums, tail.constant(2 - alpha))


def _power(tail: _Tail, left: str, alpha: float) -> str:
    """The power β."""
    if alpha == SPARSEMAX:
        return left
    if alpha == ENTMAX15:
        return tail.op("Mul", left, left)
    return tail.op("Pow", left, tail.constant(1 / (alpha - 1)))


def _robust_log(tail: _Tail) -> None:
    """The difference log (p + q) - q · ∞, where q is 1 where p is 0, else 0.

    ncnn's logarithm of 0 is NaN, and so is its 1 / 0; a square that overflows is infinite, where
    OpenVINO and tract would make one constant, infinity, of two factors, and 0 times that is NaN.
    """
    zero = tail.op("Sub", tail.constant(1.0), tail.op("Sign", PROBS))
    huge = tail.op("Mul", zero, tail.constant(HUGE))
    infinite = tail.op("Mul", huge, huge)
    tail.op("Sub", tail.op("Log", tail.op("Add", PROBS, zero)), infinite, to=LOG_PROBS)
