"""What a checkpoint tells of the model that wrote it, as plain values.

Of its hyper-parameters and of what smx_lightning noted only plain values are kept, see
:mod:`smx_lightning.checkpoint.plain`. No name in a file is ever imported, and nothing is made by a
class path that stands in it; SECURITY.md has the promise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smx_lightning.checkpoint.content import is_url, load_plain
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
    "input_shape": (list, dict),
    "input_range": (list, dict, NONE),
    "feature_names": (list, NONE),
    "schema": (dict, NONE),
    "l2": NUMBER,
    "class_weight": (list, str, NONE),
    "threshold": (*NUMBER, NONE),
    "label_smoothing": NUMBER,
    "ignore_index": int,
    "preprocessing": str,
    "optimizers": (dict, NONE),
}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that a SoftmaxRegression, or a subclass of it, wrote.

    Attributes:
        path: Where it was read from; a URL as it was given.
        model_class: Full name of the class that wrote it.
        hyper_parameters: Arguments of that class, plain values only.
        state_dict: Parameters and buffers, on the CPU.
        training: Epochs begun, steps taken and held-out metrics at that time.
        settings: What the model's settings were then, see
            :func:`smx_lightning.checkpoint.describing.settings_of`; empty where version 0.1 wrote
            it.
        left_out: Hyper-parameters that are no plain values, with what they are.
    """

    path: str | Path
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
    path = path if is_url(path) else Path(path)
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
