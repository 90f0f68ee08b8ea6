"""Any subclass → ONNX through torch's exporter, cleaned of what it should not hold."""

from __future__ import annotations

import contextlib
import copy
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx
import onnx_ir
import torch
from torch import Tensor, nn

from smx_export.contract import BATCH, LOG_PROBS, SCORES
from smx_export.graph.arrays import row_shape, tensors_of
from smx_export.graph.image_input import take_pixels
from smx_export.graph.inference_copy import InferenceCopy, has_own_head, layout_of
from smx_export.graph.outputs import append_outputs
from smx_export.graph.portable import IR_VERSION, set_metadata
from smx_lightning import InputError, SoftmaxRegression

OPSET = 18  # the lowest that torch's exporter writes without converting, which can fail


def traced_graph(inference: InferenceCopy, metadata: Mapping[str, str]) -> onnx.ModelProto:
    """Export through ``torch.onnx``: one file, named batch, IR 8, no source paths.

    torch's exporter sees the model up to its scores; what follows is the same as in any other file.

    Args:
        inference: In eval mode, float32, on the CPU; it is not changed.
        metadata: Stored under the model's ``metadata_props``.

    Raises:
        InputError: Where torch cannot export it.
    """
    model = inference.model
    clean = onnx_ir.serde.serialize_model(_traced(inference))
    _strip(clean)
    del clean.graph.output[:]
    if inference.profile.image:
        take_pixels(clean, model.input_shape)
    append_outputs(clean, model.num_classes, layout_of(inference))
    _check_names(clean)
    set_metadata(clean, metadata)
    return clean


def _check_names(model: onnx.ModelProto) -> None:
    """Complain about an input that is called as something else in the graph is."""
    given = {value.name for value in model.graph.input}
    made = {name for node in model.graph.node for name in node.output}
    taken = given & (made | {tensor.name for tensor in model.graph.initializer})
    if taken:
        raise InputError(
            f"expected inputs of names that the graph has not taken, got {min(taken)!r}, which is "
            "also a weight's or an operator's; rename the input"
        )


def _traced(inference: InferenceCopy) -> onnx_ir.Model:
    """The model up to its scores, or of a head that is not ours, to its log-probabilities."""
    model = inference.model
    names = [name for name, _, _ in inference.inputs]
    batch = inference.profile.batch  # a fixed one is traced as such: no shape is computed then
    shape = (batch or 2, *row_shape(model))  # a batch of 1 would be taken for a constant
    sample = tensors_of(np.zeros(shape, inference.dtype))
    several = isinstance(sample, dict)
    given = tuple(sample[name] for name in names) if several else (sample,)
    axes = tuple({0: torch.export.Dim(BATCH)} for _ in given)
    open_axes = (axes,) if several else axes
    with warnings.catch_warnings(), _quiet():
        warnings.simplefilter("ignore")  # about torch's own internals, none about the model
        try:
            program = torch.onnx.export(
                _ByName(_upto_scores(model), names) if several else _upto_scores(model),
                given,
                dynamo=True,
                opset_version=OPSET,
                input_names=names,
                output_names=[SCORES if has_own_head(model) else LOG_PROBS],
                dynamic_shapes=open_axes if batch is None else None,
                external_data=False,
                verbose=False,
            )
        except Exception as error:  # torch's, and of whatever the model is made of
            raise InputError(
                f"expected a model that torch.onnx can export, got {_cause(error)}; write "
                "features() with operators that ONNX has, and torch.where instead of an if that "
                "asks for values"
            ) from error
    assert program is not None
    program.model.ir_version = IR_VERSION
    return program.model


class _ByName(nn.Module):
    """A model of several inputs, which are given to it in the order of their names' list."""

    def __init__(self, model: SoftmaxRegression, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, tuple(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.model(dict(zip(self.names, inputs, strict=True)))
        return answer


def _cause(error: BaseException) -> str:
    """What was raised first, in one line: what torch says of it takes screens."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {said[:200]}".rstrip(": ")


def _upto_scores(model: SoftmaxRegression) -> SoftmaxRegression:
    """A copy without log-softmax, its standardisation folded into the linear layer."""
    if not has_own_head(model):
        return model
    model = copy.deepcopy(model)
    weight, bias, shift = model.preprocessing.fold(model.linear)
    if shift is None:
        model.linear.weight.copy_(weight)
        model.linear.bias.copy_(bias)
        model.preprocessing.method = "none"
    model.smx = nn.Sequential(model.linear)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's notes, which hold absolute source paths."""
    graphs = [model.graph, *model.functions]
    del model.graph.metadata_props[:]
    model.doc_string = ""
    for graph in graphs:
        graph.doc_string = ""
        for node in graph.node:
            del node.metadata_props[:]
            node.doc_string = ""
    for value in (*model.graph.value_info, *model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter announces each of its steps; only its errors matter here."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
