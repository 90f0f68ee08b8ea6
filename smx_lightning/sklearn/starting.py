"""Where a fit begins that goes on from another."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.preprocessing import Preprocessing
from smx_lightning.sklearn.fitting import Point, inside, outside
from smx_lightning.sklearn.rows import dense
from smx_lightning.sklearn.targets import Targets
from smx_lightning.training.classes import MOST_ENTRIES, begun, moved, places


def started(
    before: tuple[NDArray[Any], Point],
    x: Any,
    targets: Targets,
    preprocessing: Preprocessing | None,
    *,
    l2: float,
    activation: Activation,
    intercept: bool,
) -> Point | None:
    """Each known class where it was, found by its label; ``None`` where none is known.

    New ones begin where their rows are best beside the others', of all rows or as many of them as
    :data:`MOST_ENTRIES` allow, drawn.

    Args:
        before: Classes and point of the last fit, in the units of the data.
        x: (rows, features).
        targets: Of the rows.
        preprocessing: Of the rows.
        l2: Of this fit.
        activation: Of this fit; new classes of others than softmax begin at zero.
        intercept: Of this fit.
    """
    classes, point = before
    where = places(classes.tolist(), targets.classes.tolist())
    new = [k for k, place in enumerate(where) if place is None]
    if len(new) == len(where):
        return None
    point = inside(point, preprocessing)
    weight, bias = (moved(torch.tensor(rows), where) for rows in point)
    if not intercept:
        bias.zero_()
    if new and activation == SOFTMAX:
        most = max(MOST_ENTRIES // x.shape[1], 1)
        some = slice(None)
        if x.shape[0] > most:
            some = np.sort(np.random.default_rng(0).choice(x.shape[0], most, replace=False))
        rows = dense(x[some])
        rows = rows if preprocessing is None else preprocessing(rows)
        c = None if targets.weight is None else targets.weight[some]
        begun(weight, bias, new, rows, targets.y[some], c, l2=l2, intercept=intercept)
    return outside(Point(weight.numpy(), bias.numpy()), preprocessing)
