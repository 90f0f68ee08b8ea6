"""What data modules say of themselves, ours or others', and what the user says of them by hand."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.model_helpers import is_overridden

from smx_lightning.checkpoint.optimizers import parameters_of
from smx_lightning.data import InMemoryDataModule, StreamedTableDataModule, TableDataModule
from smx_lightning.errors import InputError
from smx_lightning.module import SoftmaxRegression
from smx_lightning.tables import Schema

OURS = (InMemoryDataModule, StreamedTableDataModule)  # whose defaults and attributes are alike


def of_data(name: str, data: LightningDataModule, given: Namespace | None) -> Any:
    """An argument of the model that the data tell, or the user by hand.

    Args:
        name: Of the argument, and of the data module's attribute.
        data: Which may know only once it is set up.
        given: The model's arguments that the user gave.

    Raises:
        LookupError: Where neither tells; then the class's default counts.
    """
    if given is not None and given.get(name) is not None:
        return given[name]
    if isinstance(data, OURS):
        return getattr(data, name)
    try:
        told = getattr(data, name, None)
    except InputError:
        raise
    except Exception:  # a property that needs what prepare_data or setup will make
        told = None
    if told is None:
        raise LookupError(name)
    return told.tolist() if hasattr(told, "tolist") else told  # of arrays and their scalars


def encode_as_trained(data: LightningDataModule, settings: Mapping[str, Any]) -> None:
    """Let a table be read by the schema of the checkpoint that is asked about it, if it has one.

    Args:
        data: Of any kind.
        settings: Of the checkpoint.
    """
    schema = settings.get("schema")
    if schema is not None and isinstance(data, (TableDataModule, StreamedTableDataModule)):
        data.heed(Schema.from_dict(schema), settings.get("class_names"))


def require_sizes(kind: type[SoftmaxRegression], unknown: Sequence[str], data: str) -> None:
    """Complain about sizes that a class needs, and nobody tells.

    Raises:
        InputError: It names them.
    """
    takes = parameters_of(kind, leave_out=())
    needed = [n for n in unknown if n in takes and takes[n].default is inspect.Parameter.empty]
    if needed:
        options = " ".join(f"--model.{name} N" for name in needed)
        raise InputError(
            f"expected {data} to have {' and '.join(needed)} once it is made, got none; give "
            f"{options}, or let its __init__ set them"
        )


def require_made(model: SoftmaxRegression) -> SoftmaxRegression:
    """A model, if the constructor of its class has made it one.

    Raises:
        InputError: Otherwise.
    """
    if not hasattr(model, "_smx_metrics"):
        raise InputError(
            f"expected {type(model).__name__}.__init__ to call super().__init__(num_features, "
            "num_classes, …), got a model without it; call it first"
        )
    return model


def has_rows(data: LightningDataModule, stage: str) -> bool:
    """Whether a data module has rows for a stage: ``train``, ``val``, ``test`` or ``predict``."""
    if stage == "test" and not getattr(data, "tested", True):  # the user wants none
        return False
    return is_overridden(f"{stage}_dataloader", data, LightningDataModule)
