"""Files as onnxruntime opens them, and the class names and threshold that they declare."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import onnxruntime

from smx_export.artifact.check import first_line
from smx_export.contract import (
    CLASS_NAMES,
    INPUT,
    INPUT_SHAPE,
    KNOWN_OUTPUTS,
    LABEL,
    THRESHOLD,
    TOP,
)
from smx_export.errors import FileError
from smx_export.profile import LARGEST_BATCH
from smx_export.runtime.blocks import BlockSession

CONFINES_DATA = (1, 24)  # older onnxruntimes read external data from anywhere on the disk
EXTERNAL_FOLDER = "session.model_external_initializers_file_folder_path"
NOWHERE = f"{os.devnull}/none"  # a folder that there cannot be
_VERSION = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])


def open_session(
    model: Path | bytes, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> onnxruntime.InferenceSession:
    """An onnxruntime session of a file or its content; it raises and does not log as well.

    Of a file of one batch it takes any number of rows: :mod:`smx_export.runtime.blocks`.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    if isinstance(model, bytes):  # onnxruntime would look for its tensors in the current folder
        options.add_session_config_entry(EXTERNAL_FOLDER, NOWHERE)
    session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    batches = {shape[0] for shape in (given.shape for given in session.get_inputs()) if shape}
    (batch,) = batches if len(batches) == 1 else (None,)
    if not (isinstance(batch, int) and 0 < batch <= LARGEST_BATCH):
        return session
    return cast("onnxruntime.InferenceSession", BlockSession(session, batch))


def open_file(content: bytes, path: Path, providers: Sequence[str]) -> onnxruntime.InferenceSession:
    """A session of a file that may be damaged, or no ONNX.

    Args:
        content: What :func:`smx_export.artifact.content.read_bytes` read.
        path: The file, for the messages.
        providers: As onnxruntime names them.

    Raises:
        FileError: Then.
    """
    if _VERSION < CONFINES_DATA:
        from smx_export.artifact.files import parse  # needs onnx: only old runtimes do

        parse(content, path)
    try:
        return open_session(content, providers)
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = first_line(error)
        raise FileError(
            f"expected an ONNX model at {path}, got a file that onnxruntime refuses "
            f"({reason}); export it again"
        ) from error


def declared_classes(
    session: onnxruntime.InferenceSession, metadata: Mapping[str, str], path: Path
) -> tuple[list[str], float | None]:
    """Class names and threshold in the metadata of a file of ours.

    Raises:
        FileError: Where it is another file, or they are not what they must be.
    """
    inputs = [node.name for node in session.get_inputs()]
    outputs = [node.name for node in session.get_outputs()]
    try:
        names = json.loads(metadata.get(CLASS_NAMES, "null"))
        threshold = json.loads(metadata.get(THRESHOLD, "null"))
    except (ValueError, RecursionError):
        names = threshold = None
    known = bool(outputs) and set(outputs) <= set(KNOWN_OUTPUTS)
    named = _named_inputs(metadata)
    if {*inputs} != {*(named or [INPUT])} or not known or not isinstance(names, list):
        raise FileError(
            f"expected a file exported by smx_export, with input {INPUT!r} and outputs out of "
            f"{', '.join(KNOWN_OUTPUTS)}, got inputs {inputs} and outputs {outputs} in {path}; "
            "export the model with smx-export convert"
        )
    _check_shapes(session, path, one_number=bool(named))
    counts = [node.shape[-1:] for node in session.get_outputs() if node.name not in (LABEL, *TOP)]
    if not all(type(name) is str for name in names) or any(
        count != [len(names)] for count in counts
    ):
        raise FileError(
            f"expected names of classes, as many as outputs ({counts}), in {path}, "
            f"got {len(names)} entries; export the model again"
        )
    try:
        "".join(names).encode()
    except UnicodeEncodeError as error:
        raise FileError(
            f"expected names of classes that UTF-8 can hold in {path}, got a lone surrogate; export"
            " the model again, with other names"
        ) from error
    number = isinstance(threshold, (int, float)) and not isinstance(threshold, bool)
    if threshold is not None and not (number and 0 < threshold < 1):
        raise FileError(
            f"expected a threshold between 0 and 1 in {path}, got "
            f"{threshold if number else type(threshold).__name__}; export the model again"
        )
    return names, threshold


def _check_shapes(session: onnxruntime.InferenceSession, path: Path, *, one_number: bool) -> None:
    """Complain about inputs whose rows are of no known shape; whether one may be a mere number.

    A fixed batch must be of a number that can be filled.
    """
    for node in session.get_inputs():
        batch, *shape = node.shape or [None]
        if isinstance(batch, int) and not 0 < batch <= LARGEST_BATCH:
            raise FileError(
                f"expected a file of at most {LARGEST_BATCH} rows a batch at {path}, got {batch}; "
                "export the model again"
            )
        some = bool(shape) or (one_number and len(node.shape) == 1)
        if not some or not all(isinstance(side, int) and side > 0 for side in shape):
            raise FileError(
                f"expected inputs of shape ('batch', …) with numbers behind the batch in {path}, "
                f"got {node.shape}; export the model again"
            )


def _named_inputs(metadata: Mapping[str, str]) -> list[str]:
    """The names of several inputs in a file's metadata; none of one input."""
    try:
        shapes = json.loads(metadata.get(INPUT_SHAPE, "null"))
    except (ValueError, RecursionError):
        return []
    return [*shapes] if isinstance(shapes, dict) else []
