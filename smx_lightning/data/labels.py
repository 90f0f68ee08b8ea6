"""Labels as they stand in a file → class indices and class names.

Strings become classes in sorted order, and so do integers of any kind, whatever they are: 1..7,
2001..2003 or -1 and 1 are as many classes as there are values, each named by its value.
Floating-point numbers (n, K) are distributions over K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smx_lightning.errors import InputError
from smx_lightning.errors.text import check_encodable, printable

Names = Sequence[str | int | bool]  # as YAML hands them over
INTEGERS = "iub"  # kinds of dtype
MOST_SHOWN = 8
NO_LABEL = -1  # the index of rows without a label


@dataclass(frozen=True)
class Classes:
    """The classes of a data set.

    Attributes:
        names: One name a class.
        index: The class index of a label, -1 of what says that there is none.
    """

    names: tuple[str, ...]
    index: Mapping[int | str, int]


def classes_of(
    y: NDArray[np.generic],
    class_names: Names | None = None,
    *,
    name: str = "y",
    no_label: int | str | None = None,
) -> Classes:
    """The classes of training labels (n,), integers or strings, or distributions (n, K).

    Where names are given, integer labels within 0..K-1 of K names are indices into them; others
    must have exactly K values, which are named in sorted order. Failing that, -1 among indices is
    that of rows without a label. The K classes of distributions are named by their indices.

    Args:
        y: The labels.
        class_names: One name a class.
        name: What the labels are called in complaints.
        no_label: What stands for no label.

    Raises:
        InputError: For labels of another kind or shape, or names that do not agree with them.

    >>> classes_of(np.array([3, 8, 5, 3])).names
    ('3', '5', '8')
    >>> classes_of(np.array([3, 8, 5, 3]), ["poor", "fair", "good"]).index
    {3: 0, 5: 1, 8: 2}
    """
    if _is_soft(y):
        return _columns(y.shape[1], class_names, name)
    none = _nothing(no_label)
    values = [value for value in _values(y, name) if value not in none]
    if class_names is None:
        check_encodable(map(str, values), f"names of classes in {name}")
        return Classes(tuple(map(str, values)), _numbered(values) | none)
    names = _spelled(class_names)
    if y.dtype.kind not in INTEGERS:
        return Classes(names, _numbered(names) | none)
    indices = _numbered(range(len(names)))
    if indices.keys() >= set(values):
        return Classes(names, indices | none)
    if len(values) != len(names) and {*indices, NO_LABEL} >= set(values):
        return Classes(names, {**indices, NO_LABEL: NO_LABEL, **none})
    if len(values) != len(names):
        raise InputError(
            f"expected labels in 0..{len(names) - 1}, or {len(names)} different ones, for the "
            f"{len(names)} class_names, got {len(values)} different ones in {name}: "
            f"{shown(values)}; name as many classes, or leave class_names out"
        )
    return Classes(names, _numbered(values) | none)


def _nothing(no_label: int | str | None) -> dict[int | str, int]:
    """Its index, as a number and as text: YAML and the command line make numbers of digits."""
    if no_label is None:
        return {}
    text = str(no_label)
    whole = (int(text),) if text.removeprefix("-").isdecimal() else ()
    return dict.fromkeys((text, *whole), NO_LABEL)


def _is_soft(y: NDArray[np.generic]) -> bool:
    """Whether targets are distributions over the classes."""
    return y.ndim == 2 and y.dtype.kind == "f" and y.shape[1] > 1


def _columns(count: int, class_names: Names | None, name: str) -> Classes:
    """The classes of distributions over so many."""
    names = tuple(map(str, range(count))) if class_names is None else _spelled(class_names)
    if len(names) != count:
        raise InputError(
            f"expected a column a class in {name}, got {count} columns for {len(names)} "
            "class_names; name as many classes, or leave class_names out"
        )
    return Classes(names, _numbered(range(count)))


def classes_named(y: NDArray[np.generic], class_names: Sequence[str]) -> Classes:
    """The classes of a trained model, for labels (n,) of any rows, or distributions (n, classes).

    Integer labels are the classes' names where they all are names, else their indices; -1 says that
    there is none, unless it is a name.
    """
    names = tuple(map(str, class_names))
    if _is_soft(y):
        return _columns(y.shape[1], names, "y")
    by_name = _numbered(names)
    if y.dtype.kind not in INTEGERS:
        return Classes(names, by_name)
    none: dict[int | str, int] = {} if str(NO_LABEL) in by_name else {NO_LABEL: NO_LABEL}
    values = [value for value in _values(y, "y") if value not in none]
    if all(str(value) in by_name for value in values):
        return Classes(names, {value: by_name[str(value)] for value in values} | none)
    return Classes(names, _numbered(range(len(names))) | none)


def labels(y: NDArray[np.generic], classes: Classes, name: str = "y") -> Tensor:
    """Class indices (n,) int64 of labels (n,), -1 of rows without; distributions as they are.

    Args:
        y: The labels.
        classes: What :func:`classes_of` answered for the training labels.
        name: What the labels are called in complaints.

    Raises:
        InputError: For a label of no class.
    """
    if _is_soft(y):
        _columns(y.shape[1], classes.names, name)
        native = y.dtype.newbyteorder("=")  # torch knows no other, and none beyond float64
        return torch.from_numpy(y.astype(native if native.itemsize <= 8 else np.float64))
    _values(y[:0] if y.ndim else y, name)
    values, inverse = np.unique(y, return_inverse=True)
    known = values.tolist()
    unknown = [value for value in known if value not in classes.index]
    if unknown:
        raise InputError(
            f"expected labels in {name} among the {len(classes.names)} training classes, got "
            f"{unknown[0]!r}; a class must occur in y, and in class_names where these are given"
        )
    index = np.array([classes.index[value] for value in known], np.int64)
    return torch.from_numpy(index[inverse.reshape(-1)])


def class_counts(y: Tensor, weight: Tensor | None, num_classes: int) -> Tensor:
    """How many rows each class has, Σ r q (classes,) float64.

    Args:
        y: (rows,) labels or (rows, classes) distributions.
        weight: (rows,) or ``None``.
        num_classes: K.
    """
    weight = None if weight is None else weight.double()
    if y.ndim == 2:
        y = y.double()
        return y.sum(0) if weight is None else weight @ y
    return torch.bincount(y, weight, minlength=num_classes).double()


def shown(values: Sequence[object]) -> str:
    """The values with commas between them, only the first of many; printable."""
    parts = [*map(printable, values[:MOST_SHOWN])] + ["…"] * (len(values) > MOST_SHOWN)
    return ", ".join(parts)


def _values(y: NDArray[np.generic], name: str) -> list[int | str]:
    """The different labels in sorted order."""
    if y.ndim != 1:
        raise InputError(f"{name} must have shape (rows,), got {y.shape}; one label a row")
    if y.dtype.kind == "f":
        raise InputError(
            f"{name} must hold integers or strings, got dtype {y.dtype}; where its numbers are "
            f"whole, save {name}.astype(int)"
        )
    if y.dtype.kind not in (*INTEGERS, "U"):
        raise InputError(f"{name} must hold integers or strings, got dtype {y.dtype}")
    values: list[int | str] = np.unique(y).tolist()
    return values


def _spelled(class_names: Names) -> tuple[str, ...]:
    """Names as text. Numbers are what YAML makes of 0 and 1; of no and yes it keeps no spelling."""
    lost = [name for name in class_names if isinstance(name, bool)]
    if lost:
        words = "yes, on and true" if lost[0] else "no, off and false"
        raise InputError(
            f"expected class_names as text, got {lost[0]}, which YAML reads for {words}; put the "
            "names in quotes"
        )
    names = tuple(map(str, class_names))
    check_encodable(names)
    return names


def _numbered(labels: Sequence[int | str] | range) -> dict[int | str, int]:
    return {label: k for k, label in enumerate(labels)}
