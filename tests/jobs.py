"""What the tests run on several processes: plain values in, plain values out."""

import functools

import numpy as np
import torch
from trainers import quiet_trainer

from smx_lightning import SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.data import InMemoryDataModule, Loaded, Rows
from smx_lightning.optim import ExactSolver

OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "exact": functools.partial(ExactSolver, tol=1e-13),
}


class Made(InMemoryDataModule):
    """Normal features (n, 7) and labels of 6 classes that depend on them; n rows in each split."""

    def __init__(self, n, batch_size, dtype=torch.float64):
        super().__init__(batch_size=batch_size)
        self.n, self.dtype = n, dtype

    def load(self):
        rng = np.random.default_rng(self.n)
        splits = []
        for _ in range(3):
            x = rng.normal(size=(self.n, 7)) * 3 + 1
            y = (x[:, :6] + rng.gumbel(size=(self.n, 6)) * 3).argmax(1)
            splits.append(Rows(torch.tensor(x, dtype=self.dtype), torch.tensor(y)))
        train, val, test = splits
        return Loaded(train, tuple("abcdef"), val=val, test=test)


def trainer_for(world_size, **kwargs):
    """A quiet trainer of as many processes."""
    several = {"devices": world_size, "strategy": "ddp"} if world_size > 1 else {}
    return quiet_trainer(**several, **kwargs)


def fitted(world_size, n, *, optimizer, precision, epochs=4, batch_size=32, trainer=(), **model):
    """Train; the weights, the training metrics and the order in which this process saw its rows."""
    torch.manual_seed(0)
    data = Made(n, batch_size, torch.float64 if precision == "64-true" else torch.float32)
    module = Traced(7, 6, optimizer=OPTIMIZERS[optimizer], **model)
    runner = trainer_for(world_size, max_epochs=epochs, precision=precision, **dict(trainer))
    runner.fit(module, data)
    return {
        "weight": module.linear.weight.detach().numpy(),
        "bias": module.linear.bias.detach().numpy(),
        "metrics": {name: float(value) for name, value in runner.callback_metrics.items()},
        "seen": module.seen,
        "status": module.solver.status.name if module.solver else None,
    }


class Traced(SoftmaxRegression):
    """Remembers the first feature of each row that it was trained on, batch by batch."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen = []

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0][:, 0].tolist())
        return super().training_step(batch, batch_idx)


def evaluated(world_size, n):
    """Metrics and confusion matrix of the test rows, and predictions as rank zero has them."""
    torch.manual_seed(0)
    data = Made(n, 8)
    module = SoftmaxRegression(7, 6).double()
    collected = PredictionsInOrder()
    runner = trainer_for(world_size, precision="64-true", callbacks=[collected])
    runner.test(module, data, verbose=False)
    metrics = {name: float(value) for name, value in runner.callback_metrics.items()}
    confusion = module.confusion_matrix.numpy()
    runner.predict(module, data, return_predictions=False)
    prediction = collected.prediction
    return {
        "metrics": metrics,
        "confusion": confusion,
        "prediction": None if prediction is None else [part.numpy() for part in prediction],
        "weight": module.linear.weight.detach().numpy(),
        "bias": module.linear.bias.detach().numpy(),
    }
