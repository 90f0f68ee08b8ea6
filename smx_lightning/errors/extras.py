"""What the extras ``train`` and ``tables`` bring, and one sentence where they are missing.

Whoever holds an exported file needs none of it, and none of it is among the dependencies: torch
alone is larger than many a device's disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

# Modules of the extra's packages in pyproject.toml; tqdm and yaml come with Lightning.
TRAINING = {
    *("jaxtyping", "jsonargparse", "lightning", "onnxscript", "rich", "sklearn", "torch"),
    *("torchmetrics", "tqdm", "yaml"),
}
TABLES = {"pyarrow"}


class ExtraNotInstalled(ImportError):  # noqa: N818 (an answer, not a fault)
    """What is needed is not on this machine; the message says how to get it."""


class TrainingNotInstalled(ExtraNotInstalled):
    """What training and checkpoints need."""


class TablesNotInstalled(ExtraNotInstalled):
    """What tables need."""


@contextmanager
def training_needed() -> Iterator[None]:
    """Imports in it may need what an extra brings, whichever it is.

    Raises:
        TrainingNotInstalled: Where a package of the extra ``train`` is missing.
        TablesNotInstalled: Likewise. Any other import that fails, of another package or in the
            midst of one that is there, is left as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = _missing(error)
        if missing is None:
            raise
        raise missing from None  # the sentence is all that there is to know


tables_needed = training_needed  # by this name where it is a table that needs it


def _missing(error: ModuleNotFoundError) -> ExtraNotInstalled | None:
    """What is said of a module of an extra's that was not found."""
    kind: type[ExtraNotInstalled]
    if error.name in TRAINING:
        kind, extra, purpose = TrainingNotInstalled, "train", "which training and checkpoints need"
    elif error.name in TABLES:
        kind, extra, purpose = TablesNotInstalled, "tables", "which tables need"
    else:
        return None
    return kind(
        f"expected {error.name}, {purpose}, found none; pip install 'smx-lightning[{extra}]' "
        "brings it",
        name=error.name,
    )
