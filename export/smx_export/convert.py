"""Module or checkpoint → one verified ONNX file."""

from __future__ import annotations

import json
from argparse import ArgumentError
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from smx_export.contract import CLASS_NAMES, INPUT_SHAPE, PROVENANCE, THRESHOLD
from smx_export.errors import ParityError
from smx_export.graph import softmax_regression_graph
from smx_export.parity import Data, check_copy
from smx_export.report import ParityReport
from smx_export.shipped import inference_copy, is_linear
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint import Checkpoint, read_checkpoint
from smx_lightning.files import written_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGES = ("smx-lightning", "torch", "lightning", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Export:
    """What :func:`export_onnx` did: the file, and the report that proves it."""

    path: Path
    report: ParityReport


def export_onnx(
    model_or_checkpoint: SoftmaxRegression | str | Path,
    path: str | Path,
    *,
    model_class: type[SoftmaxRegression] = SoftmaxRegression,
    input_shape: Sequence[int] | None = None,
    data: Data | None = None,
) -> Export:
    """Write the model as one ONNX file that was checked against it.

    The file holds float32 log-probabilities and probabilities, in eval mode, with standardisation
    folded into the weights and class names in its metadata. It is written beside ``path`` and moved
    into place only when every check has passed.

    Args:
        model_or_checkpoint: A live module, or the path of its checkpoint.
        path: Where the file goes.
        model_class: The subclass that wrote the checkpoint; code is never loaded from it.
        input_shape: Shape of one input, where it differs from ``model.input_shape``.
        data: Inputs, or (inputs, labels), to compare on besides the generated ones.

    Returns:
        The path and the parity report.

    Raises:
        InputError: For a checkpoint that cannot be used, or a path that cannot be written.
        ParityError: Where the file is not the model; nothing is left under ``path``.
    """
    if isinstance(model_or_checkpoint, SoftmaxRegression):
        live, training = model_or_checkpoint, model_or_checkpoint.training_summary()
    else:
        if Path(path).resolve() == Path(model_or_checkpoint).resolve():
            raise InputError(
                f"expected another file than the checkpoint {model_or_checkpoint} to write to; "
                "choose another name"
            )
        checkpoint = read_checkpoint(model_or_checkpoint)
        live, training = model_of(checkpoint, model_class), checkpoint.training
    return export_copy(inference_copy(live, input_shape), path, training, data)


def export_copy(
    model: SoftmaxRegression,
    path: str | Path,
    training: dict[str, Any] | None,
    data: Data | None = None,
) -> Export:
    """Export a model that :func:`inference_copy` made; ``training`` goes into the provenance."""
    graph = _graph(model, _metadata(model, training))
    with written_whole(path) as draft:
        draft.write_bytes(graph.SerializeToString(deterministic=True))
        report = check_copy(model, draft, data)
        if not report.passed:
            raise ParityError(report)
    return Export(Path(path), report)


def model_of(
    checkpoint: Checkpoint, model_class: type[SoftmaxRegression] = SoftmaxRegression
) -> SoftmaxRegression:
    """The model that wrote a checkpoint.

    Raises:
        InputError: Where another class wrote it, or its content does not fit the class.
    """
    expected = f"{model_class.__module__}.{model_class.__qualname__}"
    module, _, name = checkpoint.model_class.rpartition(".")
    if name != model_class.__name__:  # its module may have been __main__ in training
        raise InputError(
            f"expected a checkpoint of {expected}, got one of {checkpoint.model_class} in "
            f"{checkpoint.path}; name the class with --model-class {module}:{name} "
            "(in Python: model_class=…)"
        )
    try:
        return model_class.load_from_checkpoint(
            checkpoint.path, map_location="cpu", weights_only=True
        )
    except (TypeError, RuntimeError, KeyError, ArgumentError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"expected a checkpoint that fits {expected}, got: {reason}; was the class changed "
            "since it was saved?"
        ) from error


def _graph(model: SoftmaxRegression, metadata: dict[str, str]) -> onnx.ModelProto:
    if is_linear(model):
        weight, bias, shift = model.preprocessing.fold(model.linear)
        return softmax_regression_graph(
            weight.numpy(),
            bias.numpy(),
            metadata,
            shift=None if shift is None else shift.numpy(),
        )
    from smx_export.trace import traced_graph  # loads torch's exporter, which takes seconds

    return traced_graph(model, metadata)


def _metadata(model: SoftmaxRegression, training: dict[str, Any] | None) -> dict[str, str]:
    provenance = {
        "packages": {name: version(name) for name in PACKAGES},
        "model_class": f"{type(model).__module__}.{type(model).__qualname__}",
        "training": training,
    }
    values = {
        CLASS_NAMES: list(model.class_names),
        INPUT_SHAPE: list(model.input_shape),
        PROVENANCE: provenance,
    }
    if model.threshold is not None:
        values[THRESHOLD] = model.threshold
    return {
        key: json.dumps(value, sort_keys=True, ensure_ascii=False) for key, value in values.items()
    }
