"""How much a class counts in the loss: the customary spellings as one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from smx_lightning.errors import InputError

ClassWeight = Literal["balanced"] | Sequence[float] | dict[str, float] | None
LEAST = 1e-30  # of the largest weight
Normal = Literal["balanced"] | list[float] | None


def class_weights(given: ClassWeight, class_names: Sequence[str]) -> Normal:
    """``None``, ``"balanced"``, or one plain float a class in the order of ``class_names``.

    Args:
        given: As users write it; a dict may leave classes out, which then weigh 1.
        class_names: The K names, in order.

    Raises:
        InputError: For an unknown name, a wrong length, or a weight not positive and finite.

    >>> class_weights({"rare": 5}, ["common", "rare"])
    [1.0, 5.0]
    """
    if given is None:
        return None
    if isinstance(given, str) and given == "balanced":
        return "balanced"  # numpy's strings are no plain ones
    if isinstance(given, str):
        raise InputError(
            f"class_weight must be None, 'balanced', one weight a class or a dict, got {given!r}"
        )
    if isinstance(given, dict):
        unknown = sorted(set(given) - set(class_names))
        if unknown:
            known = ", ".join(class_names[:10]) + (", …" if len(class_names) > 10 else "")
            raise InputError(
                f"class_weight names the unknown class {unknown[0]!r}; expected some of: {known}"
            )
        given = [given.get(name, 1.0) for name in class_names]
    try:
        weights = [float(weight) for weight in given]
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
