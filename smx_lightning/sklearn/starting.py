"""Where a fit begins that goes on from another."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_lightning.preprocessing import Preprocessing
from smx_lightning.sklearn.fitting import Point
from smx_lightning.sklearn.targets import Targets


def started(
    before: tuple[NDArray[Any], Point],
    x: Any,
    targets: Targets,
    preprocessing: Preprocessing | None,
    **options: Any,
) -> Point:
    """The rows of the classes that stay, found by their labels; zero for new ones."""
    classes, point = before
    places = {label: k for k, label in enumerate(classes.tolist())}
    known = [places.get(label) for label in targets.classes.tolist()]
    weight = np.zeros((len(known), x.shape[1]))
    bias = np.zeros(len(known))
    for k, place in enumerate(known):
        if place is not None:
            weight[k], bias[k] = point.weight[place], point.bias[place]
    if not options["intercept"]:
        bias[:] = 0
    return Point(weight, bias)
