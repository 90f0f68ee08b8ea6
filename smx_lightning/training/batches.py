"""What a loader's batch holds: inputs, and targets and weights where it has some."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import in_words

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

INPUTS = ("x", "input", "inputs", "features", "image", "images", "pixel_values")
LABELS = ("y", "label", "labels", "target", "targets")
WEIGHTS = ("weight", "weights", "sample_weight")


class Unpacked(NamedTuple):
    """Inputs, a tensor or a dict of named ones, and targets; ``None`` where there are none."""

    x: Any
    y: Any


class Weighted(NamedTuple):
    """The same, and a weight for each row."""

    x: Any
    y: Any
    weight: Any


def unpacked(batch: Any, inputs: Collection[str] = ()) -> Unpacked | Weighted:
    """Inputs, targets and weights of a batch, by position or by name.

    See ``SoftmaxRegression.unpack``.

    Args:
        batch: As the Trainer hands it to a step.
        inputs: Names of a model's inputs, where it has several; what goes by all of them is x.

    Raises:
        InputError: For another kind of batch, and for names of which several would do.

    >>> unpacked({"labels": 1, "pixel_values": 2, "path": 3}), unpacked((2, 1, 3))
    (Unpacked(x=2, y=1), Unpacked(x=2, y=1))
    """
    if type(batch) not in (tuple, list):  # as most are, and once a step
        if isinstance(batch, Tensor):
            return Unpacked(batch, None)
        named = _named(batch)
        if named is not None and inputs and named.keys() >= {*inputs}:
            return _of_several(named, inputs, batch)
        if named is not None:
            return _by_name(named, batch)
    if isinstance(batch, (tuple, list)) and batch:
        if len(batch) > 2 and _weighs(batch[2], batch[1]):
            return Weighted(*batch[:3])
        return Unpacked(batch[0], batch[1] if len(batch) > 1 else None)
    raise InputError(
        f"expected a batch (x, y), a dict of x and y, or x alone, got {in_words(batch)}; override "
        "unpack(batch), which returns (x, y)"
    )


def parts_of(model: SoftmaxRegression, batch: Any) -> Weighted:
    """What a model unpacks of a batch; ``None`` for what it has none of.

    Raises:
        InputError: Where the ``unpack`` of a subclass returns anything else.
    """
    parts = model.unpack(batch)
    if isinstance(parts, tuple) and len(parts) == 2:
        return Weighted(*parts, None)
    if isinstance(parts, tuple) and len(parts) == 3:
        return Weighted(*parts)
    raise InputError(
        f"expected {type(model).__name__}.unpack to return (x, y), y being None where a batch has "
        f"no labels, or (x, y, weight), got {in_words(parts)}; return such a tuple"
    )


def _weighs(third: Any, y: Any) -> bool:
    """Whether a tuple's third entry is the rows' weights: floating-point numbers, one a row."""
    return (
        isinstance(third, Tensor)
        and third.is_floating_point()
        and isinstance(y, Tensor)
        and third.shape in (y.shape[:1], (*y.shape[:1], 1))
        and third.ndim > 0
    )


def _named(batch: Any) -> dict[str, Any] | None:
    """Entries by name: of a mapping, a dataclass, or a namedtuple that has one of the names."""
    if isinstance(batch, Mapping):
        return {str(name): value for name, value in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    names = getattr(batch, "_fields", ()) if isinstance(batch, tuple) else ()
    return dict(zip(names, batch, strict=True)) if {*names} & {*INPUTS, *LABELS} else None


def _of_several(named: dict[str, Any], inputs: Collection[str], batch: Any) -> Unpacked | Weighted:
    """A model's several inputs, and target and weight among the rest."""
    rest = {name: value for name, value in named.items() if name not in inputs}
    return _joined({name: named[name] for name in inputs}, rest, batch)


def _by_name(named: dict[str, Any], batch: Any) -> Unpacked | Weighted:
    given = [name for name in INPUTS if name in named]
    _check_one(given, batch)
    rest = {n: value for n, value in named.items() if n not in (*LABELS, *WEIGHTS)}
    if not rest:
        raise InputError(
            f"expected inputs in a batch, got {in_words(batch)}; name them x, or override "
            "unpack(batch), which returns (x, y)"
        )
    return _joined(named[given[0]] if given else rest, named, batch)


def _joined(x: Any, named: dict[str, Any], batch: Any) -> Unpacked | Weighted:
    """Inputs with what goes by one of the names of targets, and of weights."""
    labels, weights = ([n for n in names if n in named] for names in (LABELS, WEIGHTS))
    _check_one(labels, batch)
    _check_one(weights, batch)
    y = named[labels[0]] if labels else None
    weight = named[weights[0]] if weights else None
    return Unpacked(x, y) if weight is None else Weighted(x, y, weight)


def _check_one(names: list[str], batch: Any) -> None:
    """Complain about several names of which one would do."""
    if len(names) > 1:
        raise InputError(
            f"expected one of {', '.join(names)} in a batch, got all of these in "
            f"{in_words(batch)}; leave one, or override unpack(batch), which returns (x, y)"
        )
