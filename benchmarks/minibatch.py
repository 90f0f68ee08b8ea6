"""What a mini-batch step costs over a plain torch loop, and against the customary Lightning module.

CPU time of this process, one thread, batches of 256, 784 -> 10. Each method runs three epochs and
the last two are counted; the methods take turns, and the medians of five turns are compared. Ratios
within one run hold on any machine: the exit status is 1 where they are missed.

``python -m benchmarks.minibatch [--repeats N] [--quick]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (its customary name)
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from benchmarks.machine import describe
from benchmarks.main_job import FASHION_MNIST, quiet
from smx_lightning import SoftmaxRegression
from smx_lightning.data import InMemoryDataModule, Loaded, Rows
from smx_lightning.data.idx import read_idx

BATCH, FEATURES, CLASSES = 256, 784, 10
WARM_UP, COUNTED = 1, 2  # epochs
LEARNING_RATE = 1e-3
MOST_OVER_PLAIN, MOST_OVER_USUAL = 1.7, 0.5
PLAIN, OURS, OUR_LOADER, USUAL = (
    "plain torch loop, pre-sliced batches",
    "SoftmaxRegression, pre-sliced batches",
    "SoftmaxRegression, its data module",
    "customary LightningModule, TensorDataset",
)


def main() -> None:
    """Measure, print, and exit with 1 where a ratio is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="few rows; the ratios are not judged")
    args = parser.parse_args()
    repeats = 1 if args.quick else args.repeats
    torch.set_num_threads(1)

    x, y, source = rows(2048 if args.quick else 60000)
    batches = list(zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True))
    methods: dict[str, Callable[[], float]] = {
        PLAIN: lambda: plain(batches),
        OURS: lambda: trained(softmax_regression(), DataLoader(batches, batch_size=None)),  # type: ignore[arg-type]  # a list
        OUR_LOADER: lambda: trained(softmax_regression(), InMemory(x, y)),
        USUAL: lambda: trained(
            Usual(), DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
        ),
    }
    times: dict[str, list[float]] = {name: [] for name in methods}
    for repeat in range(repeats):
        for name, method in methods.items():
            print(f"round {repeat + 1} of {repeats}: {name}", file=sys.stderr, flush=True)
            times[name].append(1e6 * method() / (COUNTED * len(batches)))

    print(describe("torch", "lightning", "torchmetrics"), end="\n\n")
    print(f"{len(y)} rows, {source}:\n")
    print("| method | CPU a step, µs | min to max | over the plain loop | over the customary |")
    print("| --- " * 5 + "|")
    median = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        row = [
            name,
            f"{median[name]:.0f}",
            f"{min(values):.0f} to {max(values):.0f}",
            f"{median[name] / median[PLAIN]:.2f}",
            f"{median[name] / median[USUAL]:.2f}",
        ]
        print("| " + " | ".join(row) + " |")
    missed = [
        f"expected at most {most} of {peer!r}, got {median[OURS] / median[peer]:.2f}"
        for peer, most in ((PLAIN, MOST_OVER_PLAIN), (USUAL, MOST_OVER_USUAL))
        if median[OURS] > most * median[peer]
    ]
    if missed and not args.quick:
        sys.exit("\n".join(missed))


def rows(n: int) -> tuple[Tensor, Tensor, str]:
    """Inputs (n, 784) float32 in 0..1, labels (n,), and where they are from."""
    images = [
        Path(FASHION_MNIST) / f"train-{part}-ubyte.gz" for part in ("images-idx3", "labels-idx1")
    ]
    if all(path.is_file() for path in images):
        x, y = (read_idx(path)[:n] for path in images)
        return x.flatten(1).float() / 255, y.long(), "Fashion-MNIST"
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (n,), generator=generator)
    centres = torch.rand(CLASSES, FEATURES, generator=generator)
    return (centres[y] + torch.rand(n, FEATURES, generator=generator)) / 2, y, "made clusters"


def plain(batches: list[tuple[Tensor, Tensor]]) -> float:
    """CPU seconds of the least that can be written with torch: no metrics, no log."""
    torch.manual_seed(0)
    linear = nn.Linear(FEATURES, CLASSES)
    optimizer = torch.optim.Adam(linear.parameters(), lr=LEARNING_RATE)
    start = 0.0
    for epoch in range(WARM_UP + COUNTED):
        if epoch == WARM_UP:
            start = time.process_time()
        for x, y in batches:
            optimizer.zero_grad()
            loss = F.nll_loss(F.log_softmax(linear(x), 1), y)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's own
            optimizer.step()
    return time.process_time() - start


def softmax_regression() -> SoftmaxRegression:
    """The project's module; it logs accuracy and negative log-likelihood each epoch by itself."""
    optimizer = partial(torch.optim.Adam, lr=LEARNING_RATE)
    return SoftmaxRegression(FEATURES, CLASSES, optimizer=optimizer)


class InMemory(InMemoryDataModule):
    """The rows in this project's data module, all of them to train on."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        super().__init__(batch_size=BATCH)
        self.all = Rows(x, y)

    def load(self) -> Loaded:
        """Every row, and a handful again where the other splits would be cut off."""
        few = Rows(*self.all[:BATCH])
        names = tuple(str(k) for k in range(CLASSES))
        return Loaded(self.all, names, val=few, test=few)


class Usual(LightningModule):
    """The model as tutorials write it: a metric object and the loss are logged at every step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)
        self.accuracy = MulticlassAccuracy(num_classes=CLASSES)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Cross-entropy of one batch."""
        x, y = batch
        logits = self.layer(x)
        loss = F.cross_entropy(logits, y)
        self.accuracy.update(logits, y)
        self.log("loss", loss)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=LEARNING_RATE)


class CpuTime(Callback):
    """CPU time between the first epoch that counts and the end of training."""

    def __init__(self) -> None:
        self.start = self.seconds = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start counting after the warm-up."""
        if trainer.current_epoch == WARM_UP:
            self.start = time.process_time()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop counting: tearing down is not training."""
        self.seconds = time.process_time() - self.start


def trained(model: LightningModule, data: DataLoader[object] | InMemoryDataModule) -> float:
    """CPU seconds of the counted epochs in a Trainer."""
    clock = CpuTime()
    with quiet():
        torch.manual_seed(0)
        trainer = Trainer(
            max_epochs=WARM_UP + COUNTED,
            accelerator="cpu",
            callbacks=[clock],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        if isinstance(data, InMemoryDataModule):
            trainer.fit(model, train_dataloaders=data.train_dataloader())
        else:
            trainer.fit(model, train_dataloaders=data)
    return clock.seconds


if __name__ == "__main__":
    main()
