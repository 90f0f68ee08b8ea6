"""Reading checkpoints without trusting them."""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from smx_lightning.errors import InputError
from smx_lightning.module import CHECKPOINT_KEY

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
        hyper_parameters: Arguments of that class.
        state_dict: Parameters and buffers, on the CPU.
        training: Epochs begun, steps taken and held-out metrics at that time.
    """

    path: Path
    model_class: str
    hyper_parameters: dict[str, Any]
    state_dict: dict[str, Any]
    training: dict[str, Any] | None


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Load a checkpoint as plain data: nothing in it is executed.

    Raises:
        InputError: Where the file is missing, no checkpoint, or another class's.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected a checkpoint at {path}, found none; check the path")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        if not (isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path)):
            raise InputError(
                f"expected a Lightning checkpoint at {path}, got a file that torch cannot read; it "
                "may be truncated or of another kind"
            ) from error
        raise InputError(
            f"expected a checkpoint of plain data at {path}, got a file that torch will not load "
            "without running code from it; save it again with smx_lightning, or keep objects out "
            "of save_hyperparameters"
        ) from error
    if not (isinstance(content, dict) and isinstance(content.get("state_dict"), dict)):
        raise InputError(
            f"expected a Lightning checkpoint at {path}, got a torch file without a state_dict; "
            "save one with trainer.save_checkpoint"
        )
    written = content.get(CHECKPOINT_KEY)
    if not isinstance(written, dict) or not {"class", "training"} <= written.keys():
        raise InputError(
            f"expected a checkpoint of SoftmaxRegression or a subclass at {path}, got one of "
            "another module; export it with the tools of its own project"
        )
    return Checkpoint(
        path=path,
        model_class=written["class"],
        hyper_parameters=content.get("hyper_parameters", {}),
        state_dict=content["state_dict"],
        training=written["training"],
    )
