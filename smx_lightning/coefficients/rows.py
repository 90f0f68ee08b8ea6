"""The training rows of a model, as its linear layer sees them, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch import LightningDataModule
from torch import Tensor

from smx_lightning.coefficients.information import LabelledRows
from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_as_many, check_labels, class_indices, in_words

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

IGNORED = -1  # the label of a row without one, where the model has no ``ignore_index``
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


@torch.no_grad()
def labelled_rows(
    model: SoftmaxRegression, batches: Iterable[Any], device: torch.device
) -> Iterator[LabelledRows]:
    """Rows of every batch; those without a label are left out.

    Raises:
        InputError: For rows without labels, labels out of range, and other shapes.
    """
    ignored = getattr(model, "ignore_index", IGNORED)
    for batch in batches:
        x, y, weight = _unpacked(model, batch)
        y = class_indices(y).to(device)
        features = model.checked_features(move_data_to_device(x, model.device))
        check_as_many(y, len(features))
        rows = LabelledRows(_standardised(model, features, device), y, _weights(weight, y))
        if y.ndim == 1 and ignored is not None and (y == ignored).any():
            kept = y != ignored
            weight = None if rows.weight is None else rows.weight[kept]
            rows = LabelledRows(rows.x[kept], y[kept], weight)
        _check_targets(rows.y, model.num_classes)
        yield rows


def _unpacked(model: SoftmaxRegression, batch: Any) -> tuple[Any, Tensor, Tensor | None]:
    parts = model.unpack(batch)
    if not (isinstance(parts, tuple) and len(parts) in (2, 3) and isinstance(parts[1], Tensor)):
        raise InputError(
            f"expected labels as a tensor in the {WHERE}, got {in_words(batch)}; give batches "
            "(x, y) or (x, y, weight), or override unpack(batch), which returns such a tuple"
        )
    return parts[0], parts[1], parts[2] if len(parts) == 3 else None


def _standardised(model: SoftmaxRegression, features: Tensor, device: torch.device) -> Tensor:
    """As :class:`.Preprocessing` answers to float64, also where the features have fewer digits."""
    step = model.preprocessing
    step(features[:1])  # complains of digits that wide features have lost before
    return (features.to(device).double() - step.centre.to(device)) / step.scale.to(device)


def _weights(weight: Any, y: Tensor) -> Tensor | None:
    if weight is None:
        return None
    wide: Tensor = torch.as_tensor(weight).to(y.device).double()
    if wide.shape != y.shape[:1] or not (wide.isfinite() & (wide >= 0)).all():
        raise InputError(
            f"expected {len(y)} row weights, finite and not below 0, got shape "
            f"{tuple(wide.shape)}; give one a row"
        )
    return wide


def _check_targets(y: Tensor, num_classes: int) -> None:
    if y.ndim == 1 and not y.is_floating_point():
        check_labels(y.cpu(), num_classes, WHERE)
    elif y.ndim != 2 or y.shape[1] != num_classes or not (y >= 0).all():
        raise InputError(
            f"expected labels, or a distribution over {num_classes} classes a row, got "
            f"{in_words(y)}; give integers, or probabilities (rows, {num_classes})"
        )
