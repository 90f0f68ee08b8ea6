"""What the extras ``train`` and ``tables`` bring, and one sentence where it is missing.

Whoever holds an exported file needs none of it, and none of it is among the dependencies: torch
alone is larger than many a device's disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from smx_lightning.errors import InputError

# Modules of the extra's packages in pyproject.toml; tqdm and yaml come with Lightning.
TRAINING = {
    *("jaxtyping", "jsonargparse", "lightning", "onnxscript", "rich", "sklearn", "torch"),
    *("torchmetrics", "tqdm", "yaml"),
}


class TrainingNotInstalled(ImportError):  # noqa: N818 (an answer, not a fault)
    """What is needed is not on this machine; the message says how to get it."""


@contextmanager
def training_needed() -> Iterator[None]:
    """Imports in it may need what the extra brings.

    Raises:
        TrainingNotInstalled: Where a package of the extra is missing. Any other import that fails,
            of another package or in the midst of one that is there, is left as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in TRAINING:
            raise
        raise TrainingNotInstalled(
            f"expected {error.name}, which training and checkpoints need, found none; "
            "pip install 'smx-lightning[train]' brings it",
            name=error.name,
        ) from None  # the sentence is all that there is to know


def require_arrow() -> None:
    """Complain where pyarrow is missing, before a table is read.

    Raises:
        InputError: Then; it says how to get it.
    """
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise
        raise InputError(
            "expected pyarrow, which tables need, found none; pip install 'smx-lightning[tables]' "
            "brings it"
        ) from None
