"""What the tests run on several processes: plain values in, plain values out."""

import functools
import os
import sys
import warnings
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.cli import main
from smx_lightning.data import BatchLoader, DigitsDataModule, InMemoryDataModule, Loaded, Rows
from smx_lightning.optim import ExactSolver, Status, minimise

OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "adam": functools.partial(torch.optim.Adam, lr=0.01),
    "exact": functools.partial(ExactSolver, tol=1e-13),
}


class Made(InMemoryDataModule):
    """Normal features (n, 7) and labels that depend on them; n rows in each split."""

    def __init__(self, n, batch_size, dtype=torch.float64, num_classes=6):
        super().__init__(batch_size=batch_size)
        self.n, self.dtype, self.classes = n, dtype, num_classes

    @cached_property
    def splits(self):
        with warnings.catch_warnings():  # of one row there are five classes without any
            warnings.filterwarnings("ignore", "expected a training row of every class")
            return super().splits

    def load(self):
        rng = np.random.default_rng(self.n)
        splits = []
        for _ in range(3):
            x = rng.normal(size=(self.n, 7)) * 3 + 1
            y = (x[:, : self.classes] + rng.gumbel(size=(self.n, self.classes)) * 3).argmax(1)
            y[: self.classes] = np.arange(self.classes)[: self.n]  # each has a row, if there is one
            splits.append(Rows(torch.tensor(x, dtype=self.dtype), torch.tensor(y)))
        train, val, test = splits
        return Loaded(train, tuple("abcdef"[: self.classes]), val=val, test=test)


def trainer_for(world_size, **kwargs):
    """A quiet trainer of as many processes."""
    several = {"devices": world_size, "strategy": "ddp" if world_size > 1 else "auto"}
    return quiet_trainer(**several, **kwargs)


def fitted(world_size, n, *, optimizer, precision, epochs=4, num_classes=6, trainer=(), **model):
    """Train; the weights, the training metrics and the order in which this process saw its rows."""
    torch.manual_seed(0)
    dtype = torch.float64 if precision == "64-true" else torch.float32
    data = Made(n, 32, dtype, num_classes)
    module = Traced(7, num_classes, optimizer=OPTIMIZERS[optimizer], **model)
    runner = trainer_for(world_size, max_epochs=epochs, precision=precision, **dict(trainer))
    runner.fit(module, data)
    return learned(module, runner)


def fitted_with_loaders(world_size):
    """The same with loaders of a script's own, over a data set that is read sample by sample."""
    torch.manual_seed(0)
    splits = Made(203, 32).splits
    train, val = (TensorDataset(rows.x, rows.y) for rows in (splits.train, splits.val))
    module = Traced(7, 6, optimizer=OPTIMIZERS["sgd"], class_weight="balanced")
    runner = trainer_for(world_size, max_epochs=3, precision="64-true")
    loader = BatchLoader(train, batch_size=34, shuffle=True)  # the last batch has 33 rows
    runner.fit(module, loader, BatchLoader(val, batch_size=50))
    return learned(module, runner)


def fitted_far_away(world_size):
    """The mean and the weights on features whose digits float32 would lose."""
    torch.manual_seed(0)
    rows = Made(203, 32).splits.train
    module = SoftmaxRegression(
        7, 6, preprocessing="standardize", optimizer=functools.partial(torch.optim.SGD, lr=0.1)
    )
    runner = trainer_for(world_size, max_epochs=3)
    runner.fit(module, BatchLoader(TensorDataset(1.7e9 + rows.x, rows.y), batch_size=34))
    step, weight = module.preprocessing, module.linear.weight.detach().numpy()
    return {"wide": step.wide_features, "centre": step.centre.numpy(), "weight": weight}


def evaluated_by_loader(world_size):
    """Metrics and predictions of three loaders, the second of which has one row."""
    torch.manual_seed(0)
    rows = Made(41, 8).splits.train
    parts = [slice(0, 17), slice(17, 18), slice(18, 41)]
    loaders = [BatchLoader(Rows(*rows[part]), batch_size=8) for part in parts]
    module, collected = SoftmaxRegression(7, 6).double(), PredictionsInOrder()
    runner = trainer_for(world_size, precision="64-true", callbacks=[collected])
    answers = runner.test(module, loaders, verbose=False)
    runner.predict(module, loaders, return_predictions=False)
    module.cpu()
    expected = -module(rows.x).detach().gather(1, rows.y[:, None])[:, 0]
    return {
        "test/nll": [float(answer["test/nll"]) for answer in answers],
        "by loader": [answers[k][f"test/nll/dataloader_idx_{k}"] for k in range(3)],
        "expected": [float(expected[part].mean()) for part in (*parts, slice(None))],
        "probs": None if collected.prediction is None else collected.prediction.probs.numpy(),
        "right": module(rows.x).exp().detach().numpy(),
    }


def solved_digits(world_size, **solver):
    """The exact solver's weight and bias on digits, in float64, its status and its epochs."""
    torch.manual_seed(0)
    optimizer = functools.partial(ExactSolver, **solver)
    module = SoftmaxRegression(64, 10, l2=1e-3, preprocessing="standardize", optimizer=optimizer)
    runner = trainer_for(world_size, max_epochs=100, precision="64-true")
    runner.fit(module, DigitsDataModule())
    weight, bias = (p.detach().numpy() for p in module.linear.parameters())
    return weight, bias, module.solver.status.name


def solved_on_shares(world_size, x, y, l2):
    """The exact solver's weight and status, over loaders that know nothing of each other."""
    rank = int(os.environ["RANK"])
    share, labels = torch.tensor(x[rank::world_size]), torch.tensor(y[rank::world_size]).long()
    parts = list(zip(share.split(100), labels.split(100), strict=True))
    torch.manual_seed(rank)  # DDP starts all from rank 0's weights
    solver = functools.partial(ExactSolver, tol=1e-9)
    module = SoftmaxRegression(x.shape[1], int(max(y)) + 1, l2=l2, optimizer=solver)
    options = {"max_epochs": 300, "precision": "64-true", "use_distributed_sampler": False}
    trainer_for(world_size, **options).fit(module, DataLoader(parts, batch_size=None))
    return module.linear.weight.detach().numpy(), module.solver.status.name


def entmax_on_shares(world_size, x, y, l2, alpha):
    """The exact solver's weight and status for α-entmax, in a plain loop over each one's rows."""
    torch.distributed.init_process_group("gloo")
    rank = int(os.environ["RANK"])
    share, labels = torch.tensor(x[rank::world_size]), torch.tensor(y[rank::world_size]).long()
    batches = list(zip(share.split(100), labels.split(100), strict=True))
    options = {"l2": l2, "tol": 1e-12, "dtype": torch.float64, "activation": {"alpha": alpha}}
    found = minimise(batches, x.shape[1], int(max(y)) + 1, **options)
    return found.weight.numpy(), found.status.name


def learned(module, runner):
    """What training left behind."""
    module.cpu()
    return {
        "weight": module.linear.weight.detach().numpy(),
        "bias": module.linear.bias.detach().numpy(),
        "metrics": {name: float(value) for name, value in runner.callback_metrics.items()},
        "seen": module.seen,
        "status": module.solver.status.name if module.solver else None,
    }


def predicted_by_command(world_size, folder, path):
    """The file of ``smx-lightning predict``, of a model of two epochs."""
    several = ["--trainer.devices", str(world_size), "--trainer.strategy", "ddp"]
    common = ["--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false"]
    common += ["--trainer.logger.save_dir", f"{folder}/{world_size}"]
    common += several if world_size > 1 else []
    checkpoint = Path(folder, "run", "best.ckpt")
    sys.argv = ["smx-lightning"]  # Lightning looks there
    if world_size == 1:
        fit = ["fit", "--trainer.max_epochs", "2", "--checkpoint.dirpath", f"{folder}/run"]
        fit += ["--model.optimizer", "torch.optim.Adam"]
        assert main([*fit, "--onnx.path", f"{folder}/model.onnx", *common]) == 0
    predict = ["predict", "--ckpt_path", str(checkpoint), "--predictions.path", path]
    assert main([*predict, *common]) == 0


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


class Host(LightningModule):
    """A body that is trained along with its weighted, standardised head."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(7, 5)
        self.head = SoftmaxRegression(
            5, 6, class_weight="balanced", preprocessing="standardize", l2=0.1
        )

    def on_fit_start(self):
        with torch.no_grad():
            batches = self.trainer.datamodule.train_dataloader()
            self.head.fit_statistics((self.body(x), y) for x, y in batches)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.head.objective(self.body(x), y)

    def validation_step(self, batch, batch_idx):
        self.training_step(batch, batch_idx)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class OwnSteps(Traced):
    """A training step of its own; a validation step that counts nothing."""

    def training_step(self, batch, batch_idx):
        self.seen.append(batch[0][:, 0].tolist())
        return self.objective(*batch)

    def validation_step(self, batch, batch_idx):
        pass


def hosted(world_size, n):
    """Train a head in a host."""
    torch.manual_seed(0)
    module = Host()
    runner = trainer_for(world_size, max_epochs=3, precision="64-true")
    runner.fit(module, Made(n, 32))
    module.head.seen = []
    return learned(module.head, runner)


def own_steps(world_size, n, **model):
    """Train with steps of a subclass's own."""
    torch.manual_seed(0)
    module = OwnSteps(7, 6, optimizer=OPTIMIZERS["sgd"], **model)
    runner = trainer_for(world_size, max_epochs=3, precision="64-true")
    runner.fit(module, Made(n, 32))
    return learned(module, runner)


def solved_by_the_first(world_size, x, y, l2):
    """The exact solver in a plain loop, all rows on rank zero: weight, epochs and status."""
    torch.distributed.init_process_group("gloo")
    x, y = torch.tensor(x), torch.tensor(y)
    layer = torch.nn.Linear(x.shape[1], int(y.max()) + 1, dtype=x.dtype)
    for parameter in layer.parameters():
        torch.nn.init.zeros_(parameter)
    solver = ExactSolver(layer.parameters(), tol=1e-9)
    while solver.status is Status.RUNNING and solver.evaluations < 100:
        solver.begin_epoch(l2=l2, batches=1)
        if torch.distributed.get_rank() == 0:
            solver.add(x, y)
        solver.step()
    return layer.weight.detach().numpy(), solver.evaluations, solver.status.name


def weighted_shares(world_size, x, y, weights, l2):
    """The plain loop where each process has a share of the rows, and the last one has none."""
    torch.distributed.init_process_group("gloo")
    rank, shares = torch.distributed.get_rank(), max(world_size - 1, 1)
    own = slice(rank, None, shares)
    batch = tuple(torch.as_tensor(part[own]) for part in (x, y, weights))
    batches = [batch] if rank < shares else []
    found = minimise(batches, x.shape[1], int(y.max()) + 1, l2=l2)
    return found.weight.numpy(), found.status.name
