"""Checks of arguments, labels and shapes: what several modules refuse in the same words."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.text import check_encodable

LISTED = 10  # classes in a sentence


def whole(name: str, value: Any) -> int:
    """``value`` as a plain integer, if it is a whole number: 3, 3.0, NumPy's, not "3"."""
    if isinstance(value, (float, np.floating)) and value.is_integer():
        value = int(value)
    try:
        return int(operator.index(value))
    except TypeError as error:
        said = f"{name} must be a whole number, got {value!r}; give such a one"
        raise InputError(said) from error


def number(name: str, value: Any) -> float:
    """``value`` as a plain float, if it is one number: NumPy's and torch's too, not "1e-3"."""
    remedy = "give such a one"
    try:
        given = float(value)
        if not isinstance(value, (str, bytes)):
            return given
        remedy = "write it without quotes, in YAML with a point, as 1.0e-3"
    except (TypeError, ValueError, RuntimeError):
        pass
    except OverflowError as error:  # a whole number of 309 digits and more
        said = f"{name} must be a number that float64 holds, got a larger one; give a smaller one"
        raise InputError(said) from error
    raise InputError(f"{name} must be a number, got {value!r}; {remedy}")


def flag(name: str, value: Any) -> bool:
    """``value`` as a plain bool, if it is one: NumPy's too, not 1, and not "no"."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"{name} must be True or False, got {value!r}; give one of them")
    return bool(value)


def at_least(name: str, value: int, least: int) -> int:
    """``value`` as a plain integer, if it is whole and at least ``least``."""
    if (given := whole(name, value)) < least:
        raise InputError(f"{name} must be at least {least}, got {value}")
    return given


def sizes(num_features: int, num_classes: int) -> tuple[int, int]:
    """d, at least 1, and K, at least 2, as plain integers."""
    return at_least("num_features", num_features, 1), at_least("num_classes", num_classes, 2)


def non_negative(name: str, value: float) -> float:
    """``value`` as a plain float, if it is finite and not below zero."""
    if not ((given := number(name, value)) >= 0 and math.isfinite(given)):
        raise InputError(f"{name} must be a finite number of at least 0, got {value}")
    return given


def check_makers(optimizer: Any, lr_scheduler: Any) -> None:
    """Complain about what is to be called, with parameters or an optimiser, and cannot be."""
    given = [("optimizer", optimizer, "the parameters")]
    if lr_scheduler is not None:
        given.append(("lr_scheduler", lr_scheduler, "the optimiser"))
    for name, value, of in given:
        if not callable(value):
            raise InputError(
                f"expected {name} to be a class or a function of {of}, got {type(value).__name__}; "
                "give such a one, or leave it out"
            )


def names_of(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """One name a class: those given, else the class indices."""
    if class_names is None:
        return [str(k) for k in range(num_classes)]
    names = [str(name) for name in class_names]
    check_encodable(names)
    if len(names) != num_classes or len(set(names)) != num_classes:
        raise InputError(
            f"class_names must hold {num_classes} different names, one a class, got {names}"
        )
    return names


def sides(input_shape: Sequence[int]) -> list[int]:
    """The lengths of an input's axes, if they are whole numbers from 1 on."""
    try:
        found = [operator.index(side) for side in input_shape]
    except TypeError:
        found = []
    if not found or min(found) < 1:
        raise InputError(
            "expected input_shape to be the lengths of an input's axes, whole numbers of at least "
            f"1, got {input_shape!r}; leave it out where inputs are rows of features"
        )
    return found


def check_range(given: Sequence[float]) -> tuple[float, float]:
    """Smallest and largest value of an input, if they are two finite numbers in that order."""
    try:
        values = tuple(float(value) for value in given)
    except (TypeError, ValueError):
        values = ()
    if len(values) != 2 or not -math.inf < values[0] < values[1] < math.inf:
        raise InputError(
            f"input_range must be two finite numbers, the smaller first, got "
            f"{list(given) if isinstance(given, Iterable) else given!r}"
        )
    return values


def check_threshold(threshold: float | None, num_classes: int) -> float | None:
    """γ as a plain number, if it is a probability and there are two classes to decide between."""
    given = None if threshold is None else number("threshold", threshold)
    if given is not None and not (num_classes == 2 and 0 < given < 1):
        raise InputError(
            f"threshold must lie between 0 and 1 and needs num_classes=2, got "
            f"threshold={threshold} with num_classes={num_classes}"
        )
    return given


def unrolled(x: Tensor) -> Tensor:
    """Inputs (batch, …) as rows (batch, entries).

    Raises:
        InputError: For one without a batch dimension, and for what is no tensor.
    """
    if not isinstance(x, Tensor):
        raise InputError(
            f"expected inputs as a tensor (batch, …), got {in_words(x)}; give one, or override "
            "features(x), which takes what unpack(batch) makes of a batch"
        )
    if x.ndim < 2:
        raise InputError(
            f"expected inputs of shape (batch, …), got {tuple(x.shape)}; add a batch dimension "
            "with x[None]"
        )
    return x.flatten(1)


def check_dense(x: Tensor, what: str = "rows") -> None:
    """Complain about sparse tensors, for which half of what is needed does not exist."""
    if x.layout != torch.strided:
        raise InputError(
            f"expected dense {what}, got {str(x.layout).removeprefix('torch.')} of shape "
            f"{tuple(x.shape)}; make each batch dense as it is used, with .to_dense()"
        )


def check_features(x: Tensor, num_features: int) -> Tensor:
    """Features (batch, num_features); those of a map, (batch, num_features, 1, 1), are unrolled.

    Raises:
        InputError: For any other number of entries a row, and for what is no tensor.
    """
    if not isinstance(x, Tensor):
        raise InputError(
            f"expected features as a tensor (batch, {num_features}), got {in_words(x)}; let "
            "features(x) return one tensor of it"
        )
    if x.ndim > 2 and math.prod(x.shape[1:]) == num_features:
        return x.flatten(1)
    if x.ndim != 2 or x.shape[1] != num_features:
        raise InputError(
            f"expected {num_features} features a row, got {math.prod(x.shape[1:])} "
            f"(shape {tuple(x.shape)}); num_features must match the data"
        )
    return x


def in_words(value: Any) -> str:
    """What came in place of a tensor: its type, and the first names or types in it.

    >>> in_words({"logits": 1}), in_words((1, "a"))
    ('dict of logits', 'tuple of int, str')
    """
    name = type(value).__name__
    if isinstance(value, Mapping):
        held = [str(key) for key in value]
    elif is_dataclass(value) and not isinstance(value, type):
        held = [field.name for field in fields(value)]
    elif isinstance(value, (tuple, list)):
        held = [*getattr(value, "_fields", ())] or [type(part).__name__ for part in value]
    else:
        return name
    more = ["…"] * (len(held) > LISTED)
    return f"{name} of {', '.join(held[:LISTED] + more) or 'nothing'}"


def class_indices(y: Tensor) -> Tensor:
    """Labels as int64 (n,), whatever integers they are, and bool; (n, 1) holds one a row, too.

    Floating-point numbers stay as they are: distributions over the classes, or a mistake.

    Raises:
        InputError: For what is no tensor.
    """
    if not isinstance(y, Tensor):
        raise InputError(
            f"expected labels as a tensor, got {in_words(y)}; make them one with torch.as_tensor"
        )
    if y.dtype != torch.int64:
        if y.is_floating_point() or y.is_complex():
            return y
        y = y.long()
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def check_as_many(y: Tensor, rows: int) -> None:
    """Complain about labels (n, …) of another number of rows."""
    if y.shape[:1] != (rows,):
        raise InputError(
            f"expected a label for each of the {rows} rows of a batch, got labels of shape "
            f"{tuple(y.shape)}; give one a row"
        )


@torch.compiler.disable  # type: ignore[untyped-decorator]  # it looks at values
def check_labels(y: Tensor, num_classes: int, where: str) -> None:
    """Complain about labels that are no class indices (n,); ``where`` says which rows."""
    if y.ndim != 1 or y.is_floating_point():
        one_hot = y.ndim == 2 and y.shape[1] > 1
        indices = "y.argmax(1) where they are one-hot" if one_hot else "y.long() of whole numbers"
        raise InputError(
            f"labels must be integers of shape (n,), got {str(y.dtype).removeprefix('torch.')} of "
            f"shape {tuple(y.shape)} in the {where}; give one class index a row, {indices}"
        )
    if y.numel() == 0 or y.device.type != "cpu":  # elsewhere looking would wait for the device
        return
    low, high = (int(bound) for bound in y.long().aminmax())
    if low < 0 or high >= num_classes:
        raise InputError(
            f"labels must lie in 0..{num_classes - 1}, got {low if low < 0 else high} in the "
            f"{where}; number the classes from 0, or give them as strings"
        )


def check_eps(optimizers: Iterable[torch.optim.Optimizer]) -> None:
    """Complain about an eps that the parameters' dtype rounds to zero: Adam divides by it."""
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        given, dtype = group.get("eps"), group["params"][0].dtype
        for eps in given if isinstance(given, (tuple, list)) else [given]:  # Adafactor has two
            if eps and not torch.tensor(eps, dtype=dtype):
                raise InputError(
                    f"expected an eps that {str(dtype).removeprefix('torch.')} can hold, got {eps},"
                    " which is 0 in it; use Trainer precision bf16-true or 32-true, or set the "
                    "optimiser's eps to 1e-4"
                )


def check_same_problem(
    checkpoint: dict[str, Any], shape: Sequence[int], class_names: Sequence[str]
) -> None:
    """Complain about a checkpoint whose weights would not fit, or would fit other classes.

    Args:
        checkpoint: As Lightning loads it.
        shape: (classes, features) of the model's weight.
        class_names: The model's.
    """
    # ModelParallelStrategy has loaded and dropped the weights by now.
    weight = checkpoint.get("state_dict", {}).get("smx.0.weight")
    if weight is not None and tuple(weight.shape) != tuple(shape):
        (num_classes, num_features), saved_shape = shape, weight.shape
        raise InputError(
            f"expected a checkpoint of {num_features} features and {num_classes} classes, as the "
            f"data has, got one of {saved_shape[1]} features and {saved_shape[0]} classes; take "
            "the data it was trained on"
        )
    names = list(class_names)
    saved = checkpoint.get("hyper_parameters", {}).get("class_names") or names
    if list(saved) != names:
        wanted, found = _shortened(names, list(saved)), _shortened(list(saved), names)
        raise InputError(
            f"expected a checkpoint of the classes {wanted}, as the data has, got one of {found}; "
            "take the data it was trained on, or name its classes alike"
        )


def check_same_names(
    what: str, name: str, own: Sequence[str] | None, others: Sequence[Any] | None
) -> None:
    """Complain about names that are not a model's, or not in its order; ``None``: nobody knows.

    Args:
        what: Whose the others are: ``data``, ``a checkpoint``.
        name: Of the argument that holds such names.
        own: The model's.
        others: These.

    Raises:
        InputError: For the first that differs.
    """
    if own is None or others is None or [*own] == (named := [*map(str, others)]):
        return
    found = f"{len(named)} of them"
    if len(own) == len(named):
        first = next(k for k, (a, b) in enumerate(zip(own, named, strict=True)) if a != b)
        found = f"{named[first]!r} in place of {own[first]!r}"
    remedy = "take the data that it was trained on, or name them alike"
    if sorted(own) == sorted(named):
        remedy = "bring them, and what they stand for, into the same order"
    raise InputError(f"expected {what} with the model's {len(own)} {name}, got {found}; {remedy}")


def _shortened(names: list[str], others: list[str]) -> str:
    """All of few names; of many the first that is not among others in its place."""
    if len(names) <= LISTED:
        return str(names)
    pairs = enumerate(zip(names, others, strict=False))
    first = next((k for k, (name, other) in pairs if name != other), len(others) - 1)
    return f"[…, {names[first]!r}, …] (class {first} of {len(names)})"
