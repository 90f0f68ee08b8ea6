"""What tests of sharded classes run on several processes: plain values in, plain values out."""

import functools
import os

import numpy as np
import torch
from jobs import OPTIMIZERS, Made
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_export import OnnxExport
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.data import Loaded, Rows
from smx_lightning.processes.sharding import whole


class Many(Made):
    """Normal features (n, 7), labels of as many classes as are asked for; n rows in each split."""

    def __init__(self, num_classes, dtype=torch.float64, n=81, batch_size=16, rows="plain"):
        super().__init__(n, batch_size, dtype)
        self.rows = rows
        self.names = tuple(map(str, range(num_classes)))

    def load(self):
        rng = np.random.default_rng(self.n)
        scores = rng.normal(size=(7, len(self.names)))
        splits = []
        for _ in range(3):
            x = rng.normal(size=(self.n, 7)) * 3 + 1
            y = (x @ scores + rng.gumbel(size=(self.n, len(self.names))) * 3).argmax(1)
            splits.append(Rows(torch.tensor(x, dtype=self.dtype), torch.tensor(y)))
        train, val, test = splits
        return Loaded(self.made(train, rng), self.names, val=val, test=test)

    def made(self, train, rng):
        """The training rows with a weight each, or as distributions; or some labels missing."""
        x, y = train.x, train.y
        if self.rows == "weighted":
            return Rows(x, y, torch.tensor(rng.uniform(0, 3, len(y))))
        if self.rows == "soft":
            return Rows(x, torch.tensor(rng.dirichlet(np.ones(len(self.names)), len(y))))
        missing = torch.arange(len(y)) % 3 == 0
        return Rows(x, y.masked_fill(missing, -1)) if self.rows == "ignored" else train


class Smoothed(SoftmaxRegression):
    """A loss that needs all classes."""

    def loss(self, log_probs, y):
        return nn.functional.cross_entropy(log_probs, y, label_smoothing=0.1)


class Backbone(SoftmaxRegression):
    """Trains parameters besides the linear layer's."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.backbone = nn.Linear(7, 7)

    def features(self, x):
        return self.backbone(x)


class Frozen(Backbone):
    """Has parameters that are not trained, nor spread."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.backbone.requires_grad_(False)


KINDS = {
    "plain": SoftmaxRegression,
    "smoothed": Smoothed,
    "backbone": Backbone,
    "frozen": Frozen,
}
STATELESS = {"plain sgd": functools.partial(torch.optim.SGD, lr=0.1)}


def made(num_classes, dtype, *, kind="plain", optimizer="adam", **model):
    """A model that begins with other weights in each process."""
    torch.manual_seed(int(os.environ["RANK"]))
    optimizer = (OPTIMIZERS | STATELESS)[optimizer]
    return KINDS[kind](7, num_classes, optimizer=optimizer, **model).to(dtype)


def trainer_for(world_size, data_parallel=1, directories=False, **kwargs):
    """A quiet trainer that spreads classes, where it has several processes."""
    if world_size > 1:
        kwargs["devices"] = world_size
        kwargs["strategy"] = ModelParallelStrategy(
            data_parallel_size=data_parallel,
            tensor_parallel_size=world_size // data_parallel,
            save_distributed_checkpoint=directories,
        )
    return quiet_trainer(**kwargs)


def plain(tensor):
    return whole(tensor.detach()).numpy().copy()


def in_full(
    world_size, num_classes, *, data_parallel=1, dtype="float64", trainer=(), rows="plain", **model
):
    """Train, test and predict."""
    dtype = getattr(torch, dtype)
    data, module = Many(num_classes, dtype, rows=rows), made(num_classes, dtype, **model)
    collected = PredictionsInOrder()
    options = {"max_epochs": 3, "callbacks": [collected], **dict(trainer)}
    runner = trainer_for(world_size, data_parallel, **options)
    runner.fit(module, data)
    metrics = dict(runner.callback_metrics)
    runner.test(module, data, verbose=False)
    metrics |= runner.callback_metrics
    runner.predict(module, data, return_predictions=False)
    weight = module.linear.weight
    prediction = collected.prediction
    return {
        "weight": plain(weight),
        "bias": plain(module.linear.bias),
        "mean": module.preprocessing.mean.numpy().copy(),
        "counts": module.class_counts.tolist(),
        "metrics": {name: float(value) for name, value in metrics.items()},
        "confusion": module.confusion_matrix.numpy(),
        "prediction": None if prediction is None else [part.numpy() for part in prediction],
        "local": len(weight.to_local()) if isinstance(weight, DTensor) else len(weight),
    }


def saved(world_size, path, *, epochs=1, resume=None, num_classes=11, **model):
    """Train, from a checkpoint where one is given, and write one."""
    module = made(num_classes, torch.float64, l2=0.01, **model)
    runner = trainer_for(world_size, max_epochs=epochs)
    runner.fit(module, Many(num_classes), ckpt_path=resume)
    runner.save_checkpoint(path)
    metrics = runner.test(module, Many(num_classes), ckpt_path=path, verbose=False)[0]
    return {
        "weight": plain(module.linear.weight),
        "bias": plain(module.linear.bias),
        "steps": runner.global_step,
        "metrics": metrics,
    }


def exported(world_size, folder, *, best):
    """Train with OnnxExport; ``best``: of the checkpoint with the largest loss, the first one."""
    module, export = made(11, torch.float32), OnnxExport(f"{folder}/model.onnx")
    worst = ModelCheckpoint(dirpath=folder, filename="worst", monitor="val/nll", mode="max")
    runner = trainer_for(
        world_size,
        max_epochs=3,
        enable_checkpointing=best,
        callbacks=[export, worst] if best else [export],
    )
    runner.fit(module, Many(11, torch.float32))
    return {
        "weight": plain(module.linear.weight),
        "bias": plain(module.linear.bias),
        "passed": None if export.export is None else export.export.report.passed,
    }


def refused(world_size, num_classes, *, directories=False, bad_label=False, resume=None, **model):
    """What training complains of, and whether torch computes losses as it did before."""
    before = dict(DTensor._op_dispatcher._custom_op_handlers)
    x, y = Many(num_classes, torch.float32).splits.train[:]
    if bad_label:
        y[40] = num_classes
    module, loader = made(num_classes, torch.float32, **model), DataLoader(TensorDataset(x, y), 8)
    complaint = None
    try:
        trainer_for(world_size, directories=directories).fit(module, loader, ckpt_path=resume)
    except InputError as error:
        complaint = str(error)
    return complaint, before == DTensor._op_dispatcher._custom_op_handlers
