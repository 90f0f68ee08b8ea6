"""What a loader's batch holds: inputs, and labels where it has some."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import class_indices, in_words

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

INPUTS = ("x", "input", "inputs", "features", "image", "images", "pixel_values")
LABELS = ("y", "label", "labels", "target", "targets")


class Unpacked(NamedTuple):
    """Inputs, a tensor or a dict of named ones, and labels; ``None`` where there are none."""

    x: Any
    y: Any


def unpacked(batch: Any, inputs: Collection[str] = ()) -> Unpacked:
    """Inputs and labels of a batch, by position or by name; see ``SoftmaxRegression.unpack``.

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
        return Unpacked(batch[0], batch[1] if len(batch) > 1 else None)
    raise InputError(
        f"expected a batch (x, y), a dict of x and y, or x alone, got {in_words(batch)}; override "
        "unpack(batch), which returns (x, y)"
    )


def labelled(
    model: SoftmaxRegression, batch: Any, where: str, *, remedy: str = ""
) -> tuple[Any, Tensor]:
    """What a model unpacks of a batch of labelled rows; y is int64 where it holds integers.

    Args:
        model: Its ``unpack`` may be a subclass's own.
        batch: As the Trainer hands it to a step.
        where: Which rows they are, for the complaint.
        remedy: What else helps, likewise.

    Raises:
        InputError: Where there are no labels, or none that are a tensor.
    """
    x, y = _pair(model, batch)
    if isinstance(y, Tensor):
        return x, class_indices(y)
    found = "none" if y is None else in_words(y)
    raise InputError(
        f"expected labels as a tensor in the {where}, got {found} in {in_words(batch)}; give "
        f"batches (x, y), or override unpack(batch), which returns (x, y){remedy}"
    )


def inputs_of(model: SoftmaxRegression, batch: Any) -> Any:
    """What a model unpacks of a batch that need not have labels: the inputs alone."""
    return _pair(model, batch)[0]


def _pair(model: SoftmaxRegression, batch: Any) -> tuple[Any, Any]:
    pair = model.unpack(batch)
    if isinstance(pair, tuple) and len(pair) == 2:
        return pair
    raise InputError(
        f"expected {type(model).__name__}.unpack to return (x, y), y being None where a batch has "
        f"no labels, got {in_words(pair)}; return such a pair"
    )


def _named(batch: Any) -> dict[str, Any] | None:
    """Entries by name: of a mapping, a dataclass, or a namedtuple that has one of the names."""
    if isinstance(batch, Mapping):
        return {str(name): value for name, value in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in fields(batch)}
    names = getattr(batch, "_fields", ()) if isinstance(batch, tuple) else ()
    return dict(zip(names, batch, strict=True)) if {*names} & {*INPUTS, *LABELS} else None


def _of_several(named: dict[str, Any], inputs: Collection[str], batch: Any) -> Unpacked:
    """A model's several inputs, and the label among the rest."""
    rest = {name: value for name, value in named.items() if name not in inputs}
    labels = [name for name in LABELS if name in rest]
    _check_one(labels, batch)
    x = {name: named[name] for name in inputs}
    return Unpacked(x, rest[labels[0]] if labels else None)


def _by_name(named: dict[str, Any], batch: Any) -> Unpacked:
    given, labels = ([n for n in names if n in named] for names in (INPUTS, LABELS))
    _check_one(given, batch)
    _check_one(labels, batch)
    rest = {name: value for name, value in named.items() if name not in labels}
    if not rest:
        raise InputError(
            f"expected inputs in a batch, got {in_words(batch)}; name them x, or override "
            "unpack(batch), which returns (x, y)"
        )
    return Unpacked(named[given[0]] if given else rest, named[labels[0]] if labels else None)


def _check_one(names: list[str], batch: Any) -> None:
    """Complain about several names of which one would do."""
    if len(names) > 1:
        raise InputError(
            f"expected one of {', '.join(names)} in a batch, got all of these in "
            f"{in_words(batch)}; leave one, or override unpack(batch), which returns (x, y)"
        )
