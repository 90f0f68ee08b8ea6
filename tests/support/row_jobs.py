"""Trainings on weighted, soft and unlabelled rows, on several processes: plain values out."""

import numpy as np
import torch
from jobs import OPTIMIZERS, trainer_for

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import BatchLoader, Rows

D, K = 4, 3


class Samples(torch.utils.data.Dataset):
    """A data set of which nobody knows what it holds."""

    def __init__(self, rows):
        self.rows = rows

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]


def rows_of(kind, n):
    """Rows x (n, 4), y of three classes, and a weight."""
    rng = np.random.default_rng(n)
    x, y = torch.tensor(rng.normal(1, 2, (n, D))), torch.tensor(rng.integers(0, K, n))
    counts = torch.tensor(rng.integers(0, 4, n))
    counts[0] = 2
    q, weight = torch.tensor(rng.dirichlet(np.ones(K), n)), torch.tensor(rng.uniform(0, 2, n))
    if kind == "counts":
        return Rows(x, y, counts)
    if kind == "repeated":
        return Rows(x.repeat_interleave(counts, 0), y.repeat_interleave(counts))
    if kind == "soft":
        return Rows(x, q, weight)
    # Of two processes the first has no label in any batch, of three each has some.
    out = torch.arange(n) % 2 == 0
    out = torch.ones(n).bool() if kind == "none" else out
    x[out], y[out] = torch.nan, -1
    if kind == "without":
        return Rows(x[~out], y[~out])
    return Rows(x, y, weight if kind == "ignored, weighted" else None)


def fitted(world_size, kind, n, *, optimizer, batch_size, unknown=False, evaluate=True, **model):
    """Train on rows in their order; the weights, the metrics and the class counts."""
    torch.manual_seed(0)
    module = SoftmaxRegression(D, K, optimizer=OPTIMIZERS[optimizer], **model)
    epochs = 60 if optimizer == "exact" else 4
    runner = trainer_for(world_size, max_epochs=epochs, precision="64-true")
    rows = rows_of(kind, n)
    batches = BatchLoader(Samples(rows) if unknown else rows, batch_size=batch_size)
    runner.fit(module, batches, batches if evaluate else None)
    module.cpu()
    return {
        "weight": module.linear.weight.detach().numpy(),
        "bias": module.linear.bias.detach().numpy(),
        "metrics": {name: float(value) for name, value in runner.callback_metrics.items()},
        "counts": module.class_counts.tolist(),
    }


def refused(world_size, *args, **kwargs):
    """What such a training complains about."""
    try:
        fitted(world_size, *args, **kwargs)
    except InputError as error:
        return str(error)
    return "nothing"
