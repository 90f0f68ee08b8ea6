"""How much a class counts in the loss: the customary spellings as one."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from smx_lightning.errors import InputError

ClassWeight = Literal["balanced"] | Sequence[float] | dict[str | int | bool, float] | None
LEAST = 1e-30  # of the largest weight
YAML_BOOL = {"no": False, "off": False, "false": False, "yes": True, "on": True, "true": True}
Normal = Literal["balanced"] | list[float] | None


def class_weights(given: ClassWeight, class_names: Sequence[str]) -> Normal:
    """``None``, ``"balanced"``, or one plain float a class in the order of ``class_names``.

    Args:
        given: As users write it; a dict, or a pandas Series, may leave classes out, which then
            weigh 1. Its keys are names or, where not all integers among them are names, indices;
            ``no``, ``yes`` and the like, of which YAML makes booleans, are names, too.
        class_names: The K names, in order.

    Raises:
        InputError: For an unknown name, a wrong length, or a weight not positive and finite.

    >>> class_weights({"rare": 5}, ["common", "rare"]), class_weights({1: 5}, ["common", "rare"])
    ([1.0, 5.0], [1.0, 5.0])
    """
    if given is None:
        return None
    if isinstance(given, str) and given == "balanced":
        return "balanced"  # numpy's strings are no plain ones
    if isinstance(given, str):
        raise InputError(
            f"class_weight must be None, 'balanced', one weight a class or a dict, got {given!r}"
        )
    if hasattr(given, "to_dict"):  # of pandas, whose order need not be that of the classes
        given = given.to_dict()
    if isinstance(given, Mapping):
        given = _by_class(given, class_names)
    try:
        entries = getattr(given, "tolist", lambda: given)()  # of numpy and torch
        weights = [float(weight) for weight in entries]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"class_weight must hold positive, finite weights, got {given!r}"
        ) from error
    if len(weights) != len(class_names):
        raise InputError(
            f"class_weight must hold {len(class_names)} weights, one a class, got {len(weights)}"
        )
    if not all(math.isfinite(weight) and weight > 0 for weight in weights):
        raise InputError(f"class_weight must hold positive, finite weights, got {weights}")
    if not LEAST <= max(weights) <= 1 / LEAST:
        raise InputError(
            f"class_weight must hold a largest weight from {LEAST:g} to {1 / LEAST:g}, so that "
            f"float32 has all its digits, got {max(weights):g}; divide all weights by it: only "
            "their ratios count"
        )
    return weights


def _by_class(given: Mapping[Any, Any], class_names: Sequence[str]) -> list[Any]:
    """The values of a mapping in the order of the classes; 1 of those that it leaves out."""
    places = {name: index for index, name in enumerate(class_names)}
    numbers = [key for key in given if _is_integer(key)]
    named = all(str(key) in places for key in numbers)
    weights: dict[int, Any] = {}
    for key, weight in given.items():
        if _is_integer(key) and not named:
            place = operator.index(key) if 0 <= key < len(places) else None
        else:
            place = places.get(str(key), _of_bool(key, class_names))
        if place is None:
            known = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
            raise InputError(
                f"class_weight names the unknown class {key!r}; expected some of: {known}; or all "
                f"by index, 0 to {len(places) - 1}"
            )
        if place in weights:
            raise InputError(
                f"class_weight must name a class once, got {class_names[place]!r} twice; leave one "
                "out"
            )
        weights[place] = weight
    return [weights.get(place, 1.0) for place in range(len(class_names))]


def _is_integer(key: Any) -> bool:
    """Whether a key is an integer of Python or numpy, and no boolean."""
    return hasattr(key, "__index__") and not _is_bool(key)


def _is_bool(key: Any) -> bool:
    return isinstance(key, bool) or type(key).__name__ in ("bool_", "bool")


def _of_bool(key: Any, class_names: Sequence[str]) -> int | None:
    """The class that a boolean stands for: the one of its spellings, or 0 and 1 of two classes."""
    if not _is_bool(key):
        return None
    spelled = [k for k, name in enumerate(class_names) if YAML_BOOL.get(name.lower()) == bool(key)]
    if spelled:
        return spelled[0] if len(spelled) == 1 else None
    return int(key) if len(class_names) == 2 else None
