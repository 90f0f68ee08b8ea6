"""The content of checkpoint files, with nothing executed: torch's restricted unpickler, and checks.

The one place that every reader passes, the Trainer's own among them: what was damaged since it was
saved ends here, see :mod:`smx_lightning.checkpoint.integrity`.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeGuard, cast

import torch
from lightning.fabric.plugins import CheckpointIO, TorchCheckpointIO
from lightning.fabric.utilities.cloud_io import _load as load_from_url
from lightning.fabric.utilities.cloud_io import get_filesystem
from lightning.pytorch.plugins.io.wrapper import _WrappingCheckpointIO

from smx_lightning.checkpoint.integrity import (
    check_archive,
    check_hashes,
    is_archive,
    with_hashes,
)
from smx_lightning.checkpoint.progress import without_counts
from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import reason
from smx_lightning.processes.files import at_home

Source = str | Path | IO[bytes]

OURS = ("smx.", "preprocessing.", "class_counts")  # weights and statistics of every model
SCALE = "preprocessing.scale"  # 1, or a deviation
PARTS = {  # Lightning's, and what they are
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
}


def load_plain(source: Source, map_location: Any = "cpu", *, mmap: bool = False) -> dict[str, Any]:
    """The content of a checkpoint file, with nothing executed; its notes are not checked yet.

    Args:
        source: A path, a URL or an open file.
        map_location: As torch.load's.
        mmap: As torch.load's, for a local path; the weights are not looked at then.

    Raises:
        InputError: Where torch cannot read it without running code, it is no checkpoint, or it
            was damaged since it was saved.
    """
    where = str(source) if isinstance(source, (str, Path)) else "the open file"
    if is_url(source) and not source.startswith("http"):
        with _opened(source) as file:
            return _checked(file, where, map_location)
    if isinstance(source, (str, Path)) and not is_url(source):
        source = at_home(source)
    return _checked(source, where, map_location, mmap=mmap)


def is_url(source: Any) -> TypeGuard[str]:
    """Whether a file lies where fsspec or a download finds it, and no path of this machine says."""
    return isinstance(source, str) and "://" in source


def _opened(url: str) -> IO[bytes]:
    try:
        return cast("IO[bytes]", get_filesystem(url).open(url, "rb"))
    except (OSError, ValueError, ImportError) as error:
        raise InputError(
            f"expected a checkpoint at {url}, found none that can be opened ({reason(error)}); "
            "check it"
        ) from error


def _checked(
    source: Source, where: str, map_location: Any, *, mmap: bool = False
) -> dict[str, Any]:
    """:func:`load_plain` of what is no URL, or one that Lightning downloads."""
    content, sound = _unpickled(source, where, map_location, mmap=mmap)
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
    if not mmap:
        check_hashes(content, where, sound=sound)
    return content


def _unpickled(source: Source, where: str, map_location: Any, *, mmap: bool) -> tuple[Any, bool]:
    """What torch's restricted unpickler makes of a file, and whether its checksums vouch for it."""
    local = isinstance(source, (str, Path)) and not is_url(source)
    if local and not Path(cast("str", source)).is_file():
        raise InputError(f"expected a checkpoint at {where}, found none; check the path")
    stream = not isinstance(source, (str, Path)) and hasattr(source, "tell")
    began = cast("IO[bytes]", source).tell() if stream else 0
    try:
        if local:
            with Path(cast("str", source)).open("rb") as file:
                sound = check_archive(file, where, whole=not mmap)
            content = torch.load(source, map_location=map_location, weights_only=True, mmap=mmap)
            return content, sound
        sound = not stream or check_archive(cast("IO[bytes]", source), where)
        return load_from_url(source, map_location, weights_only=True), sound
    except InputError:
        raise
    except Exception as error:  # whatever the instructions in a damaged file come upon
        raise _unreadable(source, where, began, error) from error


def _unreadable(source: Source, where: str, began: int, error: Exception) -> InputError:
    """The complaint about a file that torch did not read.

    Args:
        source: The file.
        where: Its name.
        began: The byte at which an open file was read.
        error: torch's.
    """
    if began:
        return InputError(
            f"expected an open file at its beginning, got one at byte {began}, where torch can "
            "read no checkpoint; rewind it with seek(0)"
        )
    if isinstance(error, PermissionError):
        return InputError(
            f"expected a checkpoint that may be read at {where}, got: {error.strerror}; change "
            "its permissions"
        )
    if not (isinstance(error, pickle.UnpicklingError) and _is_archive(source)):
        return InputError(
            f"expected a Lightning checkpoint at {where}, got a file that torch cannot read; "
            "it may be truncated or of another kind"
        )
    return InputError(
        f"expected a checkpoint of plain data at {where}, got a file that torch will not load "
        "without running code from it; save it again with smx_lightning, or keep objects out "
        "of save_hyperparameters"
    )


def _strange(content: Mapping[str, Any]) -> str | None:
    """What in a checkpoint nobody can have saved, in words, as far as readers rely on it."""
    for name, kind in PARTS.items():
        if name in content and not isinstance(content[name], kind):
            return f"{name} of type {type(content[name]).__name__}"
    uncounted = without_counts(content.get("loops"))
    if uncounted is not None:
        return f"no counts of batches as {uncounted}"
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
        if name.startswith(OURS) and value.numel() > value.untyped_storage().size() // max(
            1, value.element_size()
        ):
            return f"fewer numbers than {name} has"
        if name == SCALE and not _divides(value):
            return f"numbers that no feature can be divided by as {name}"
    return None


def _divides(scale: torch.Tensor) -> bool:
    """Whether features can be divided by a scale: real numbers above zero."""
    real = scale.is_floating_point() and not scale.is_meta
    return real and bool(((scale > 0) & scale.isfinite()).all())


def read_safely(checkpoint_io: CheckpointIO) -> None:
    """Let a Trainer's own reader be :func:`load_plain`, unless its caller says otherwise.

    Lightning unpickles whatever a URL answers, and any file where the environment variable
    TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is set. What overrides torch's reader is left as it is; one
    that others are wrapped around, as AsyncCheckpointIO is, is found within them. Its writer notes
    hashes of the model, of what it writes and no sooner: hooks, callbacks and strategies may
    change a checkpoint until then.
    """
    while isinstance(checkpoint_io, _WrappingCheckpointIO) and checkpoint_io.checkpoint_io:
        checkpoint_io = checkpoint_io.checkpoint_io
    if type(checkpoint_io).save_checkpoint is TorchCheckpointIO.save_checkpoint:
        writer = partial(_save_for_trainer, checkpoint_io)
        checkpoint_io.save_checkpoint = writer  # type: ignore[method-assign]
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


def _save_for_trainer(
    checkpoint_io: CheckpointIO,
    checkpoint: dict[str, Any],
    path: Any,
    storage_options: Any | None = None,
) -> None:
    save = type(checkpoint_io).save_checkpoint
    save(checkpoint_io, with_hashes(checkpoint), path, storage_options)


def _is_archive(source: Any) -> bool:
    """Whether the file is at least of torch's kind, whatever is in it."""
    if isinstance(source, str) and not Path(source).is_file():  # a URL's
        return True
    if not isinstance(source, (str, Path)):
        source.seek(0)
        return is_archive(source)
    with Path(source).open("rb") as file:
        return is_archive(file)
