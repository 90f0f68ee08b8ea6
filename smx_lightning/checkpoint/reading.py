"""Reading checkpoints without trusting them: the one place that every reader passes.

torch's restricted unpickler turns a file into tensors and plain containers, and of its
hyper-parameters only plain values are kept, see :mod:`smx_lightning.plain`. No name in a file is
ever imported, and nothing is made by a class path that stands in it; SECURITY.md has the promise.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any, cast

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _load as load_from_anywhere
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

from smx_lightning.checkpoint.plain import NotPlainError, plain, plain_ones
from smx_lightning.errors import InputError

CHECKPOINT_KEY = "smx_lightning"
HYPER_PARAMETERS = "hyper_parameters"  # Lightning's name
LEFT_OUT = "left_out"  # in our notes: arguments that are no plain values, with what they were
NUMBER, NONE = (int, float), type(None)
SETTINGS: dict[str, Any] = {  # and what they may be
    "num_features": int,
    "num_classes": int,
    "class_names": list,
    "input_shape": list,
    "input_range": (list, NONE),
    "l2": NUMBER,
    "class_weight": (list, str, NONE),
    "threshold": (*NUMBER, NONE),
    "preprocessing": str,
    "optimizers": (dict, NONE),
}
OURS = ("smx.", "preprocessing.", "class_counts")  # weights and statistics of every model
PARTS = {  # Lightning's, and what they are
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}
UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    KeyError,
    ValueError,
    AttributeError,
)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a SoftmaxRegression, or a subclass of it, wrote.

    Attributes:
        path: Where it was read from.
        model_class: Full name of the class that wrote it.
        hyper_parameters: Arguments of that class, plain values only.
        state_dict: Parameters and buffers, on the CPU.
        training: Epochs begun, steps taken and held-out metrics at that time.
        settings: What the model's settings were then, see
            :func:`smx_lightning.checkpoint.describing.settings_of`; empty where version 0.1 wrote
            it.
        left_out: Hyper-parameters that are no plain values, with what they are.
    """

    path: Path
    model_class: str
    hyper_parameters: dict[str, Any]
    state_dict: dict[str, Any]
    training: dict[str, Any] | None
    settings: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint as plain data: nothing in it is executed.

    Raises:
        InputError: Where the file is missing, no checkpoint, or another class's.
    """
    path = Path(path)
    content = load_plain(path)
    hyper_parameters, left_out = plain_hyper_parameters(content)
    written = notes(content)
    if not {"class", "training"} <= written.keys() or not isinstance(written["class"], str):
        raise InputError(
            f"expected a checkpoint of SoftmaxRegression or a subclass at {path}, got one of "
            "another module; export it with the tools of its own project"
        )
    return Checkpoint(
        path=path,
        model_class=written["class"],
        hyper_parameters=hyper_parameters,
        state_dict=content["state_dict"],
        training=written["training"],
        settings=written.get("settings") or {},
        left_out=left_out,
    )


def load_plain(
    source: str | Path | IO[bytes], map_location: Any = "cpu", *, mmap: bool = False
) -> dict[str, Any]:
    """The content of a checkpoint file, with nothing executed; its notes are still to be judged.

    Args:
        source: A path, a URL or an open file.
        map_location: As torch.load's.
        mmap: As torch.load's, for a local path.

    Raises:
        InputError: Where torch cannot read it without running code, or it is no checkpoint.
    """
    local = isinstance(source, Path) or (isinstance(source, str) and "://" not in source)
    where = str(source) if isinstance(source, (str, Path)) else "the open file"
    if local and not Path(cast("str", source)).is_file():
        raise InputError(f"expected a checkpoint at {where}, found none; check the path")
    stream = not isinstance(source, (str, Path)) and hasattr(source, "tell")
    began = cast("IO[bytes]", source).tell() if stream else 0
    try:
        if local:
            content = torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
        else:
            content = load_from_anywhere(source, map_location, weights_only=True)
    except UNREADABLE as error:
        if began:
            raise InputError(
                f"expected an open file at its beginning, got one at byte {began}, where torch can "
                "read no checkpoint; rewind it with seek(0)"
            ) from error
        if not (isinstance(error, pickle.UnpicklingError) and _is_archive(source)):
            raise InputError(
                f"expected a Lightning checkpoint at {where}, got a file that torch cannot read; "
                "it may be truncated or of another kind"
            ) from error
        raise InputError(
            f"expected a checkpoint of plain data at {where}, got a file that torch will not load "
            "without running code from it; save it again with smx_lightning, or keep objects out "
            "of save_hyperparameters"
        ) from error
    if not (isinstance(content, dict) and isinstance(content.get("state_dict"), dict)):
        raise InputError(
            f"expected a Lightning checkpoint at {where}, got a torch file without a state_dict; "
            "save one with trainer.save_checkpoint"
        )
    strange = _strange(content)
    if strange is not None:
        raise InputError(
            f"expected a checkpoint as Lightning writes it at {where}, got {strange}; it was "
            "changed since it was saved, take an unchanged one"
        )
    return content


def _strange(content: Mapping[str, Any]) -> str | None:
    """What in a checkpoint nobody can have saved, in words, as far as readers rely on it."""
    for name, kind in PARTS.items():
        if name in content and not isinstance(content[name], kind):
            return f"{name} of type {type(content[name]).__name__}"
    for state in content.get("optimizer_states", []):
        groups = state.get("param_groups", []) if isinstance(state, dict) else None
        named = isinstance(groups, list) and all(isinstance(group, dict) for group in groups)
        if not named or not isinstance(state.get("state", {}), dict):
            return "an optimiser's state without parameter groups"
    for name, value in content["state_dict"].items():
        if not isinstance(name, str):
            return f"a weight under the name {name!r}"
        dense = isinstance(value, torch.Tensor) and value.layout == torch.strided
        if name.startswith(OURS) and not dense:
            return f"a {type(value).__name__} that is no dense tensor as {name}"
    return None


def plain_hyper_parameters(content: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A checkpoint's plain hyper-parameters, and what the others are instead."""
    saved = content.get(HYPER_PARAMETERS)
    kept, others = plain_ones(saved) if isinstance(saved, Mapping) else ({}, {})
    noted = notes(content).get(LEFT_OUT)
    for name, what in noted.items() if isinstance(noted, dict) else ():
        if isinstance(name, str) and name not in kept:
            others.setdefault(name, str(what))
    return kept, others


def notes(content: Mapping[str, Any]) -> dict[str, Any]:
    """What smx_lightning noted in a checkpoint; nothing where another module wrote it.

    Raises:
        InputError: Where the settings among them are none that a model can have written.
    """
    written = content.get(CHECKPOINT_KEY)
    try:
        found: dict[str, Any] = plain(written) if isinstance(written, dict) else {}
    except NotPlainError:
        return {}
    settings = found.get("settings") or {}
    if not isinstance(settings, dict):
        raise InputError(
            f"expected the settings of a softmax regression in the checkpoint, got {settings!r}; "
            "it was changed since it was saved, take an unchanged one"
        )
    for name, value in settings.items():
        entries = value if name == "class_names" and isinstance(value, list) else []
        if not isinstance(value, SETTINGS.get(name, object)) or not all(
            isinstance(entry, str) for entry in entries
        ):
            raise InputError(
                f"expected the settings of a softmax regression in the checkpoint, got {name}="
                f"{value!r}; it was changed since it was saved, take an unchanged one"
            )
    return found


def read_safely(checkpoint_io: CheckpointIO) -> None:
    """Let a Trainer's own reader be :func:`load_plain`, unless its caller says otherwise.

    Lightning unpickles whatever a URL answers, and any file where the environment variable
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. What overrides torch's reader is left as it is; one
    that others are wrapped around, as AsyncCheckpointIO is, is found within them.
    """
    while isinstance(checkpoint_io, _WrappingCheckpointIO) and checkpoint_io.checkpoint_io:
        checkpoint_io = checkpoint_io.checkpoint_io
    if type(checkpoint_io).load_checkpoint is TorchCheckpointIO.load_checkpoint:
        reader = partial(_load_for_trainer, checkpoint_io)
        checkpoint_io.load_checkpoint = reader  # type: ignore[method-assign]


def _load_for_trainer(
    checkpoint_io: CheckpointIO,
    path: Any,
    map_location: Any = "cpu",
    weights_only: bool | None = None,
) -> dict[str, Any]:
    if weights_only is False:  # the caller trusts the file, and says so
        return type(checkpoint_io).load_checkpoint(checkpoint_io, path, map_location, False)
    return load_plain(path, map_location)


def _is_archive(source: Any) -> bool:
    """Whether the file is at least of torch's kind, whatever is in it."""
    if isinstance(source, str) and not Path(source).is_file():  # a URL's
        return True
    return zipfile.is_zipfile(source)
