"""What a model says of its inputs: shape, dtype and range, of one or by name of several.

All are kept as plain values: a list, a name, a pair; of several inputs a dict of these by name.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_range, sides

if TYPE_CHECKING:
    from smx_lightning.module import SoftmaxRegression

FLOAT = "float32"
DTYPES = (FLOAT, "int64", "int32", "uint8", "bool")
NATURAL = {"uint8": (0, 255), "bool": (0, 1)}  # ranges of what can be asked about all its values

Shape = Sequence[int] | Mapping[str, Sequence[int]]
Dtype = str | Mapping[str, str]
Range = Sequence[float] | Mapping[str, Sequence[float]]


def checked(shape: Shape, dtype: Dtype, given_range: Range | None) -> tuple[Any, Any, Any]:
    """Shape, dtype and range as plain values.

    Args:
        shape: Of one input without the batch dimension; a dict by name of several.
        dtype: One for all, or a dict by name; ``float32`` of names that it leaves out.
        given_range: Smallest and largest entry; a dict by name of several, or of some of them.

    Raises:
        InputError: For what is none of these; it says what was expected.
    """
    if not isinstance(shape, Mapping):
        if isinstance(dtype, Mapping) or isinstance(given_range, Mapping):
            raise InputError(
                "expected input_shape as a dict by name where input_dtype or input_range is one, "
                f"got {shape!r}; name every input, as in input_shape={{'ids': (16,)}}"
            )
        kind = dtype_name(dtype)
        return sides(shape), kind, checked_range(given_range, kind)
    shapes = {_name(name): [*_sides(side)] for name, side in shape.items()}
    dtypes = {name: dtype_name(kind) for name, kind in _by_name("dtype", dtype, shapes).items()}
    dtypes = {name: dtypes.get(name, FLOAT) for name in shapes}
    ranges = None
    if given_range is not None:
        if not isinstance(given_range, Mapping):
            raise InputError(
                f"expected input_range as a dict by name of several inputs, got {given_range!r}; "
                f"write input_range={{{min(shapes)!r}: {tuple(given_range)}}}"
            )
        told: dict[str, Any] = _by_name("range", given_range, shapes)
        found = {name: checked_range(pair, dtypes[name]) for name, pair in told.items()}
        ranges = {name: pair for name, pair in found.items() if pair is not None} or None
    return shapes, dtypes, ranges


def checked_range(given: Sequence[float] | None, dtype: str) -> list[Any] | None:
    """Smallest and largest entry of an input of that dtype; whole numbers of integers."""
    if given is None:
        return None
    low, high = check_range(given)
    if dtype == FLOAT:
        return [low, high]
    least, most = NATURAL.get(dtype) or (np.iinfo(dtype).min, np.iinfo(dtype).max)
    try:
        whole = [operator.index(bound) for bound in given]  # type: ignore[arg-type]
    except TypeError:
        whole = [int(low), int(high)] if low.is_integer() and high.is_integer() else []
    if not whole or not least <= whole[0] < whole[1] <= most:
        raise InputError(
            f"expected input_range as two whole numbers that {dtype} can hold, got {list(given)}; "
            "of token ids it is (0, vocabulary - 1)"
        )
    return whole


def taken(
    model: SoftmaxRegression, shape: Any, dtype: Any, given_range: Any
) -> tuple[Any, Any, Any]:
    """What :func:`checked` answered, shape and range as tuples, if ``features`` can take that.

    Raises:
        InputError: Where it is that of the plain model, which takes one input of numbers.
    """
    kind = model._smx_hooks.kind
    kinds = {*dtype.values()} if isinstance(dtype, Mapping) else {dtype}
    plain = type(model).features is kind.features and type(model).forward is kind.forward
    if plain and (is_named(shape) or kinds != {FLOAT}):
        what = "several inputs" if is_named(shape) else f"{dtype} inputs"
        raise InputError(
            f"expected a subclass with features() of its own for {what}, such as an embedding, got "
            "SoftmaxRegression's, which takes rows of numbers; override features, or leave "
            "input_dtype out: integers that are numbers become float32 by themselves"
        )
    return in_tuples(shape), dtype, in_tuples(given_range)


def features_of(model: SoftmaxRegression, x: Any) -> Tensor:
    """What ``features`` answers: of one input given as it is, of several by name.

    Raises:
        InputError: For other inputs than the model's, and numbers where it wants integers.
    """
    if not isinstance(model.input_shape, Mapping):
        _check_whole(x, model.input_dtype)
        return model.features(x)
    if not (isinstance(x, Mapping) and x.keys() == model.input_shape.keys()):
        got = f"inputs {', '.join(map(str, x))}" if isinstance(x, Mapping) else type(x).__name__
        raise InputError(
            f"expected a dict of the inputs {', '.join(model.input_shape)}, as input_shape names "
            f"them, got {got}; let batches be ({{name: tensor, …}}, y), with those names alone"
        )
    for name, dtype in model.input_dtype.items():
        _check_whole(x[name], dtype, f" {name}")
    return model.features(**x)


def shape_of_rows(sample: Any) -> Any:
    """Shape of a row of a batch; of several inputs that of each by name."""
    if isinstance(sample, Mapping):
        return {name: tuple(part.shape[1:]) for name, part in sample.items()}
    return tuple(sample.shape[1:])


def is_named(shape: Shape) -> bool:
    """Whether a model has several inputs, which its ``features`` takes by name."""
    return isinstance(shape, Mapping)


def _check_whole(x: Any, dtype: str, name: str = "") -> None:
    """Complain about floating-point numbers where integers were said to come."""
    if dtype != FLOAT and isinstance(x, Tensor) and x.is_floating_point():
        raise InputError(
            f"expected inputs{name} of {dtype}, as input_dtype says, got "
            f"{str(x.dtype).removeprefix('torch.')}; let the loader give integers, as "
            f"NpzDataModule does with input_dtype={dtype!r}, or convert with x.to(torch.{dtype})"
        )


def in_tuples(given: Any) -> Any:
    """A list, or the lists of a dict, as tuples; ``None`` as it is."""
    if isinstance(given, Mapping):
        return {name: tuple(value) for name, value in given.items()}
    return None if given is None else tuple(given)


def _name(name: Any) -> str:
    if isinstance(name, str) and name.isidentifier() and name != "self":
        return str(name)
    raise InputError(
        f"expected names of inputs that are Python's, as features() takes them, got {name!r}; use "
        "letters, digits and _"
    )


def _sides(shape: Sequence[int]) -> list[int]:
    """As :func:`sides`; of one number a row the shape may be ``()``."""
    return [] if isinstance(shape, (tuple, list)) and not shape else sides(shape)


def _by_name(what: str, given: Mapping[str, Any] | Any, names: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    unknown = [name for name in given if name not in names]
    if unknown:
        raise InputError(
            f"expected input_{what} of the inputs {', '.join(names)}, got one of "
            f"{unknown[0]!r}; name it in input_shape too, or leave it out"
        )
    return dict(given)


def dtype_name(given: Any) -> str:
    """Name of a dtype of torch or numpy, or the name itself."""
    name = str(given).removeprefix("torch.")
    if not isinstance(given, (str, torch.dtype)):
        try:
            name = np.dtype(given).name
        except TypeError:
            name = repr(given)
    if name not in DTYPES:
        raise InputError(
            f"expected input_dtype out of {', '.join(DTYPES)}, got {name}; take float32 for numbers"
            " (a file takes float64 by itself where standardised columns need it)"
        )
    return name
