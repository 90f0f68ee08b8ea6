"""Models at their optimum in float64, by the plain loop, and the rows that they were trained on."""

import numpy as np
import torch

from smx_lightning import SoftmaxRegression
from smx_lightning.optim.evaluation import smoothed
from smx_lightning.optim.minimise import minimise


def at_optimum(x, y, num_classes, *, weight=None, l2=0.0, tol=1e-13, **arguments):
    """A model, and its rows as a list of batches of unequal sizes."""
    parts = [torch.as_tensor(np.asarray(part)) for part in (x, y, weight) if part is not None]
    x, y, *rest = parts
    model = SoftmaxRegression(x.shape[1], num_classes, l2=l2, **arguments).double()
    sizes = [len(x) // 3, len(x) - len(x) // 3]
    batches = list(zip(*(part.split(sizes) for part in parts), strict=True))
    model.fit_statistics(batches)
    step = model.preprocessing
    rows = (x.double() - step.centre) / step.scale.double()
    targets = smoothed(y, model.label_smoothing, num_classes, torch.float64)
    solution = minimise(
        [(rows, targets, *rest)],
        x.shape[1],
        num_classes,
        l2=l2,
        tol=tol,
        dtype=torch.float64,
        class_weight=model.class_weights_for(rows),
    )
    with torch.no_grad():
        model.linear.weight.copy_(solution.weight)
        model.linear.bias.copy_(solution.bias)
    return model, batches


def drawn(x, weight, bias, seed=0):
    """Labels (n,) drawn from softmax(x weightᵀ + bias)."""
    rng = np.random.default_rng([seed, len(x)])
    scores = x @ np.asarray(weight).T + bias
    return (scores + rng.gumbel(size=scores.shape)).argmax(1)
