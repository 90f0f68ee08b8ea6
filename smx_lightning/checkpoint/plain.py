"""Plain values: the only hyper-parameters that checkpoints hold and are read for."""

from __future__ import annotations

import collections.abc
import os
import typing
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import numpy as np
import torch

DEEPEST = 32
MOST_VALUES = 1_000_000  # a file of a few bytes can hold lists of lists that are far larger
CLASS_PATH = "class_path"  # jsonargparse's, and Lightning's, name for "make one of these"
SCALARS = (bool, int, float, str)  # bool before int, which it is
CONTAINERS = (list, tuple, dict, collections.abc.Sequence, collections.abc.Mapping)


class NotPlainError(TypeError):
    """A value that is no plain one; the message names its type."""


def plain(value: Any) -> Any:
    """The value as None, bool, int, float, str and dtype, and lists, tuples and dicts of these.

    What equals a plain value becomes it: numpy's numbers, paths, subclasses of the types above.

    Raises:
        NotPlainError: For anything else, and for what is deeper or larger than settings are.
    """
    left = MOST_VALUES

    def copy(value: Any, depth: int) -> Any:
        nonlocal left
        left -= 1
        if depth > DEEPEST or left < 0:
            raise NotPlainError("a list without end")
        if value is None or type(value) in (*SCALARS, torch.dtype):
            return value
        if isinstance(value, np.generic):
            return copy(value.item(), depth + 1)
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        for kind in SCALARS:
            if isinstance(value, kind):
                return str.__str__(value) if kind is str else kind(value)
        if isinstance(value, Mapping):
            if not all(isinstance(key, (str, int)) for key in value):
                raise NotPlainError("a dict whose keys are neither strings nor integers")
            return {copy(key, depth): copy(entry, depth + 1) for key, entry in value.items()}
        if isinstance(value, (list, tuple)):
            entries = [copy(entry, depth + 1) for entry in value]
            return tuple(entries) if isinstance(value, tuple) else entries
        raise NotPlainError(f"of type {type(value).__name__}")

    return copy(value, 0)


def without_numpy(value: Any) -> Any:
    """A value with Python's numbers and texts in place of numpy's; itself, where it has none.

    At any depth of lists, tuples and dicts. The containers that are given stay as they are.

    >>> without_numpy({"lr": np.float64(0.5), "milestones": [np.int64(3)]})
    {'lr': 0.5, 'milestones': [3]}
    """
    if isinstance(value, np.generic):
        return value.item()
    kind = type(value)
    if kind in (dict, OrderedDict, Counter):
        entries = [*value.items()]
        found = without_numpy(entries)
        return value if found is entries else kind(dict(found))
    if kind in (list, tuple):
        found = [without_numpy(entry) for entry in value]
        return value if all(a is b for a, b in zip(value, found, strict=True)) else kind(found)
    return value


def shown(value: Any) -> Any:
    """A plain value in the form of YAML, which knows neither tuples nor dtypes.

    >>> shown({"sizes": (3, 4), "kind": torch.float16})
    {'sizes': [3, 4], 'kind': 'torch.float16'}
    """
    if isinstance(value, dict):
        return {shown(name): shown(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(entry) for entry in value]
    return str(value) if isinstance(value, torch.dtype) else value


def is_recipe(value: Any) -> bool:
    """Whether a plain value asks, at any depth, for an object to be made by its class path."""
    if isinstance(value, dict):
        return CLASS_PATH in value or any(is_recipe(entry) for entry in value.values())
    return isinstance(value, (list, tuple)) and any(is_recipe(entry) for entry in value)


def plain_ones(values: Mapping[Any, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Those of some hyper-parameters that are plain, and for each other one what it is instead.

    Names that begin with an underscore are LightningCLI's own notes, and are left out.
    """
    kept: dict[str, Any] = {}
    others: dict[str, str] = {}
    for name, value in values.items():
        if not isinstance(name, str) or name.startswith("_"):
            continue
        try:
            kept[name] = plain(value)
        except NotPlainError as error:
            others[name] = str(error)
    return kept, others


def wants_object(annotation: Any) -> bool:
    """Whether only objects are accepted there: functions, classes, modules, enumerations.

    >>> wants_object(Callable[[int], int] | None), wants_object(str | type), wants_object(float)
    (True, False, False)
    """
    leaves = [leaf for leaf in _leaves(annotation) if leaf is not type(None)]
    return bool(leaves) and all(_is_object(leaf) for leaf in leaves)


def wants_plain(annotation: Any) -> bool:
    """Whether only plain values are accepted there, so that no text is taken for a class path.

    >>> wants_plain(Literal["a", "b"] | list[float] | None), wants_plain(str | type)
    (True, False)
    """
    return all(leaf in (*SCALARS, *CONTAINERS, type(None)) for leaf in _leaves(annotation))


def annotations_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The evaluated annotations of a function; none where they cannot be evaluated."""
    try:
        return typing.get_type_hints(function)
    except Exception:  # they may name anything
        return {}


def _leaves(annotation: Any) -> Iterator[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        yield from {type(choice) for choice in arguments}
    elif origin in (collections.abc.Callable, type):
        yield origin
    elif arguments:
        for argument in arguments:
            if argument is not Ellipsis:
                yield from _leaves(argument)
    else:
        yield annotation


def _is_object(leaf: Any) -> bool:
    if leaf in (Callable, typing.Callable, collections.abc.Callable, type):
        return True
    known = (*SCALARS, *CONTAINERS, torch.dtype, object, Any)
    return isinstance(leaf, type) and leaf not in known and not issubclass(leaf, os.PathLike)
