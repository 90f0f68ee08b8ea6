"""The training rows of a model, as its linear layer sees them, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch import Tensor

from smx_lightning.coefficients.information import TargetRows
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_as_many, in_words
from smx_lightning.errors.targets import check_targets
from smx_lightning.optim.evaluation import smoothed
from smx_lightning.training.rows import labelled

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

WHERE = "training rows"


def training_batches(model: SoftmaxRegression, source: Any) -> Iterable[Any]:
    """Batches of the training rows: of a data module those that it trains on.

    Raises:
        InputError: For a data module of other classes or features, and for what is no batches.
    """
    if isinstance(source, LightningDataModule):
        source.prepare_data()
        source.setup("fit")
        for name in ("class_names", "feature_names"):
            _check_same(name, getattr(model, name), getattr(source, name, None))
        source = source.train_dataloader()
    if isinstance(source, Tensor) or not isinstance(source, Iterable):
        raise InputError(
            f"expected batches of the {WHERE}, got {in_words(source)}; give a data module, a "
            "loader, or a list such as [(x, y)]"
        )
    return source


def _check_same(name: str, own: Any, told: Any) -> None:
    if own is None or told is None or [*own] == [*map(str, told)]:
        return
    first = next((k for k, (a, b) in enumerate(zip(own, told, strict=False)) if a != str(b)), None)
    found = (
        f"{len(told)} of them" if first is None else f"{told[first]!r} in place of {own[first]!r}"
    )
    raise InputError(
        f"expected data with the model's {len(own)} {name}, got {found}; give the data that it was "
        "trained on"
    )


def labelled_rows(
    model: SoftmaxRegression, batches: Iterable[Any], device: torch.device
) -> Iterator[TargetRows]:
    """The rows that count of every batch, with their smoothed targets.

    Raises:
        InputError: For rows without labels, labels out of range, and other shapes.
    """
    for batch in batches:
        x, y, weight = labelled(model, batch, WHERE)
        check_targets(y.cpu(), model.num_classes, WHERE)
        features = model.checked_features(move_data_to_device(x, model.device))
        check_as_many(y, len(features))
        y = smoothed(y, model.label_smoothing, model.num_classes, torch.float64)
        rows = _standardised(model, features, device)
        weight = None if weight is None else weight.to(device).double()
        yield TargetRows(rows, y.to(device), weight)


def _standardised(model: SoftmaxRegression, features: Tensor, device: torch.device) -> Tensor:
    """As :class:`.Preprocessing` answers to float64, also where the features have fewer digits."""
    step = model.preprocessing
    step(features[:1])  # complains of digits that wide features have lost before
    return (features.to(device).double() - step.centre.to(device)) / step.scale.to(device)
