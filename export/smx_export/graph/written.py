"""The graph that the exporter writes of a model: directly of a plain one, else by tracing it."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from smx_export.graph.inference_copy import InferenceCopy, is_linear, layout_of
from smx_export.graph.layout import fix_batch
from smx_export.graph.portable import softmax_regression_graph


def written_graph(inference: InferenceCopy, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The graph of a model in the shape of a profile.

    Args:
        inference: In eval mode, float32, on the CPU; it is not changed.
        metadata: Stored under the graph's ``metadata_props``.

    Raises:
        InputError: Where torch cannot export it.
    """
    graph = _of_any_batch(inference, metadata)
    if inference.profile.batch is not None:
        fix_batch(graph, inference.profile.batch)
    return graph


def _of_any_batch(inference: InferenceCopy, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """The graph, whose inputs and outputs do not say yet that it takes one number of rows alone."""
    model = inference.model
    if not is_linear(model):
        # It loads torch's exporter, which takes seconds.
        from smx_export.graph.trace import traced_graph

        return traced_graph(inference, metadata)
    weight, bias, shift = model.preprocessing.fold(model.linear)
    return softmax_regression_graph(
        weight.numpy() if inference.weight is None else inference.weight,
        bias.numpy(),
        metadata,
        shift=None if shift is None else shift.numpy(),
        layout=layout_of(inference),
    )
