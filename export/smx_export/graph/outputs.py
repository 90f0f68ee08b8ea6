"""What follows the scores in a file, whichever way they were made. No torch here."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from smx_export.artifact.activation import SOFTMAX, difference
from smx_export.contract import (
    BATCH,
    KNOWN_OUTPUTS,
    LABEL,
    LOG_PROBS,
    PROBS,
    SCORES,
    TOP_CLASSES,
    TOP_PROBS,
)
from smx_export.graph.entmax import AXES_ARE_INPUTS, AXIS, append_entmax
from smx_export.graph.layout import Layout, float_tensor


def append_outputs(model: onnx.ModelProto, num_classes: int, layout: Layout) -> None:
    """Add what follows the scores, and declare the outputs.

    Args:
        model: A graph with a tensor ``scores`` (batch, classes); of a head that is not ours, with
            ``log_probs`` only.
        num_classes: K.
        layout: What the file offers.
    """
    foreign = any(LOG_PROBS in node.output for node in model.graph.node)
    if layout.alpha == SOFTMAX:
        _append_softmax(model, layout, foreign=foreign)
    elif {LOG_PROBS, PROBS, TOP_PROBS} & {*layout.outputs}:
        wanted = LOG_PROBS in layout.outputs
        append_entmax(model, num_classes, layout.alpha, log_probs=wanted, robust=layout.robust)
    if LABEL in layout.outputs:
        _append_label(model, LOG_PROBS if foreign else SCORES, layout)
    if layout.top_k is not None:
        _append_top(model, LOG_PROBS if foreign else SCORES, layout.top_k)
    model.graph.output.extend(
        _declared(name, num_classes, layout) for name in KNOWN_OUTPUTS if name in layout.outputs
    )


def _declared(name: str, num_classes: int, layout: Layout) -> onnx.ValueInfoProto:
    if name == LABEL:
        return helper.make_tensor_value_info(name, TensorProto.INT64, [BATCH])
    if name == TOP_CLASSES:
        return helper.make_tensor_value_info(name, TensorProto.INT64, [BATCH, layout.top_k])
    return float_tensor(name, [layout.top_k or 0 if name == TOP_PROBS else num_classes])


def _append_softmax(model: onnx.ModelProto, layout: Layout, *, foreign: bool) -> None:
    opset = model.opset_import[0].version
    robust = layout.robust and LOG_PROBS in layout.outputs
    if robust and opset >= AXES_ARE_INPUTS:
        _add_axis(model)
    if robust:
        model.graph.node.extend([_probs(foreign=foreign), *_robust_log_softmax(opset)])
    else:
        model.graph.node.extend(_plain(layout, foreign=foreign))


def _append_label(model: onnx.ModelProto, scores: str, layout: Layout) -> None:
    _add_axis(model)
    if layout.threshold is not None:  # p₁ ≥ γ is a bound on z₁ - z₀
        ahead_of_1 = np.array([difference(layout.threshold, layout.alpha), 0], np.float32)
        model.graph.initializer.append(numpy_helper.from_array(ahead_of_1, "handicap"))
    model.graph.node.extend(_label(scores, at_threshold=layout.threshold is not None))


def _add_axis(model: onnx.ModelProto) -> None:
    """Store the axis of the classes, once."""
    arrays = model.graph.initializer
    if all(array.name != AXIS for array in arrays):
        arrays.append(numpy_helper.from_array(np.array([1], np.int64), AXIS))


def _probs(*, foreign: bool) -> NodeProto:
    """Probabilities out of the scores, or of a foreign head's log-probabilities."""
    if foreign:
        return helper.make_node("Exp", [LOG_PROBS], [PROBS], "exp_log_probs")
    return helper.make_node("Softmax", [SCORES], [PROBS], "softmax", axis=1)


def _plain(layout: Layout, *, foreign: bool) -> Iterator[NodeProto]:
    """Log-probabilities and probabilities, an operator each."""
    if LOG_PROBS in layout.outputs and not foreign:
        yield helper.make_node("LogSoftmax", [SCORES], [LOG_PROBS], "log_softmax", axis=1)
    if {PROBS, TOP_PROBS} & {*layout.outputs}:
        yield _probs(foreign=foreign)


def _label(scores: str, *, at_threshold: bool) -> Iterator[NodeProto]:
    """The chosen class out of the scores: softmax may round two of them to one probability."""
    if at_threshold:
        yield helper.make_node("Add", [scores, "handicap"], ["handicapped"], "threshold")
        scores = "handicapped"
    # OpenCV 4 answers from stale memory where ArgMax drops the dimension itself.
    yield helper.make_node("ArgMax", [scores], ["winner"], "argmax", axis=1, keepdims=1)
    yield helper.make_node("Squeeze", ["winner", AXIS], [LABEL], "squeeze")


def _append_top(model: onnx.ModelProto, scores: str, top_k: int) -> None:
    """The classes of the largest scores, and their probabilities.

    Of the scores, since probabilities may be rounded to one number, or to 0.
    """
    model.graph.initializer.append(numpy_helper.from_array(np.array([top_k], np.int64), "top_k"))
    model.graph.node.extend([
        helper.make_node("TopK", [scores, "top_k"], ["top_scores", TOP_CLASSES], "top_k", axis=1),
        helper.make_node("GatherElements", [PROBS, TOP_CLASSES], [TOP_PROBS], "top_probs", axis=1),
    ])  # fmt: skip


def _robust_log_softmax(opset: int) -> list[NodeProto]:
    """(z - max z) + log max p, which is log-softmax because max p = 1 / Σ exp(z - max z).

    It never underflows, as max p ≥ 1/K. Tried before: the sum itself, which ncnn's converter takes
    over the batch; and a subtraction at the end, which OpenCV fuses back into log(softmax).
    """
    axes = [AXIS] if opset >= AXES_ARE_INPUTS else []

    def largest(of: str, name: str) -> NodeProto:
        node = helper.make_node("ReduceMax", [of, *axes], [name], name, keepdims=1)
        if not axes:
            node.attribute.append(helper.make_attribute("axes", [1]))
        return node

    return [
        largest(SCORES, "max_score"),
        largest(PROBS, "max_prob"),
        helper.make_node("Sub", [SCORES, "max_score"], ["below_max"], "below_max"),
        helper.make_node("Log", ["max_prob"], ["log_max_prob"], "log"),
        helper.make_node("Add", ["below_max", "log_max_prob"], [LOG_PROBS], "log_probs"),
    ]
