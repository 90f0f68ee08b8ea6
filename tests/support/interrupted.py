"""Trainings that leave a trace of every batch and every epoch, to be interrupted and resumed."""

import functools
import hashlib
import json
import os
import signal
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn
from trainers import quiet_trainer

from smx_lightning import Recovery, SoftmaxRegression
from smx_lightning.data import DigitsDataModule, Rows
from smx_lightning.optim import ExactSolver
from smx_lightning.processes.files import written_whole


class Interrupted(Exception):  # noqa: N818 (nothing is wrong)
    """Raised by :class:`Stop`."""


class Noisy(SoftmaxRegression):
    """Softmax regression on pixels that dropout blanks: every step draws random numbers."""

    def __init__(self, **kwargs):
        super().__init__(64, 10, preprocessing="standardize", l2=1e-3, **kwargs)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Dropout(0.3))

    def features(self, x):
        return self.backbone(x)


MODELS = {
    "dropout": Noisy,
    "adam": functools.partial(SoftmaxRegression, 64, 10, preprocessing="standardize"),
    "momentum": functools.partial(
        SoftmaxRegression,
        64,
        10,
        preprocessing="standardize",
        optimizer=functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    ),
    "exact": functools.partial(
        SoftmaxRegression, 64, 10, l2=1e-3, preprocessing="standardize", optimizer=ExactSolver
    ),
}


class WeightedDigits(DigitsDataModule):
    """Digits that are label proportions, count by weights, and are without a label in places."""

    def load(self):
        given = super().load()
        y = nn.functional.one_hot(given.train.y, 10) * 0.9 + 0.01
        y[::11] = torch.nan
        weight = torch.arange(len(y)) % 5 / 3
        return replace(given, train=Rows(given.train.x, y, weight))


MODELS["rows"] = functools.partial(
    SoftmaxRegression, 64, 10, preprocessing="standardize", class_weight="balanced",
    label_smoothing=0.1,
)  # fmt: skip
MODELS["exact rows"] = functools.partial(MODELS["rows"], l2=1e-3, optimizer=ExactSolver)
DATA = {"rows": WeightedDigits, "exact rows": WeightedDigits}


class Trace(Callback):
    """Writes down each batch that was trained on, and the metrics of each epoch."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        parts = (part.cpu().contiguous().view(torch.uint8) for part in batch)
        rows = hashlib.md5(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
        self.write("batches", [trainer.current_epoch, batch_idx, trainer.global_rank], rows)

    def on_train_epoch_start(self, trainer, pl_module):
        self.metrics(trainer)

    def on_train_end(self, trainer, pl_module):
        self.metrics(trainer)

    def metrics(self, trainer):
        """Of the epoch that ended last, in all their bits."""
        values = {name: float(value).hex() for name, value in trainer.callback_metrics.items()}
        if "train/nll" in values and trainer.is_global_zero:
            self.write("metrics", [trainer.fit_loop.epoch_progress.current.completed], values)

    def write(self, name, key, value):
        """In one piece, so that no kill leaves half a line."""
        line = json.dumps([key, value], sort_keys=True) + "\n"
        descriptor = os.open(f"{self.folder}/{name}", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def traces(folder):
    """What was written for each key; more than one thing where a repetition differed."""
    found = defaultdict(set)
    for name in ("batches", "metrics"):
        for line in Path(folder, name).read_text().splitlines():
            key, value = json.loads(line)
            found[(name, *key)].add(json.dumps(value, sort_keys=True))
    return found


class Save(Callback):
    """Saves after a batch, counted over all epochs, and raises."""

    def __init__(self, batch, path):
        self.batch, self.path, self.seen = batch, path, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batch:
            trainer.save_checkpoint(self.path)
            raise Interrupted


class Stop(Callback):
    """Raises before a batch, counted over all epochs; or sends one process SIGTERM, once."""

    def __init__(self, batch, marker=None, rank=0):
        self.batch, self.marker, self.rank = batch, marker and Path(marker), rank
        self.seen = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batch:
            if self.marker is None:
                raise Interrupted
            if trainer.global_rank == self.rank and not self.marker.exists():
                self.marker.touch()
                os.kill(os.getpid(), signal.SIGTERM)


def train(
    folder,
    kind="dropout",
    *,
    stop=None,
    started=None,
    ckpt_path=None,
    saves=(),
    settings=(),
    data=None,
    **trainer,
):
    """Train, or go on training; the final state, saved too."""
    torch.manual_seed(0)
    callbacks = [Trace(folder), Recovery(**dict(saves or {"every_n_steps": 3}))]
    if stop:
        callbacks.insert(0, stop if isinstance(stop, Stop) else Stop(stop))
    runner = quiet_trainer(
        **{
            "max_epochs": 6,
            "callbacks": callbacks,
            "default_root_dir": folder,
            "enable_checkpointing": True,
            **trainer,
        }
    )
    model = MODELS[kind](**dict(settings))
    if started is not None:
        started.send(None)
    data = data or DATA.get(kind, DigitsDataModule)(batch_size=200)
    runner.fit(model, data, ckpt_path=ckpt_path)
    final = model.state_dict()
    if runner.is_global_zero:
        with written_whole(f"{folder}/final.pt") as path:  # it may be killed meanwhile
            torch.save(final, path)
    return final


def train_on_ranks(world_size, folder, **options):
    """The same on several processes; what interrupted it, or 0."""
    several = {"devices": world_size, "strategy": "ddp"} if world_size > 1 else {}
    try:
        train(folder, **options, **several)
    except Interrupted:
        return "interrupted"
    except SystemExit as end:
        return end.code
    return 0
