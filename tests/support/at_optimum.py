"""Models at their optimum in float64, by the plain loop, and the rows that they were trained on."""

import numpy as np
import torch

from smx_lightning import SoftmaxRegression
from smx_lightning.optim.minimise import minimise


class Triples(SoftmaxRegression):
    """Takes batches (x, y, weight), and pairs, as they are."""

    def unpack(self, batch):
        return tuple(batch)


def at_optimum(x, y, num_classes, *, weight=None, l2=0.0, tol=1e-13, **arguments):
    """A model, and its rows as a list of batches of unequal sizes."""
    parts = [torch.as_tensor(np.asarray(part)) for part in (x, y, weight) if part is not None]
    x, y, *rest = parts
    model = Triples(x.shape[1], num_classes, l2=l2, **arguments).double()
    labels = y if y.ndim == 1 else y.argmax(1)
    model.fit_statistics([(x, labels)])
    step = model.preprocessing
    rows = (x.double() - step.centre) / step.scale.double()
    solution = minimise(
        [(rows, y, *rest)],
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
    sizes = [len(x) // 3, len(x) - len(x) // 3]
    return model, list(zip(*(part.split(sizes) for part in parts), strict=True))


def drawn(x, weight, bias, seed=0):
    """Labels (n,) drawn from softmax(x weightᵀ + bias)."""
    rng = np.random.default_rng([seed, len(x)])
    scores = x @ np.asarray(weight).T + bias
    return (scores + rng.gumbel(size=scores.shape)).argmax(1)
