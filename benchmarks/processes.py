"""What several processes cost and save: a step, a checkpoint of Recovery, classes spread over two.

Wall time, median of rounds in which all take turns. Two processes are started once and given jobs;
the first epoch of a job warms up and is not counted. Many classes get fresh processes, since it is
their memory that is measured. The exit status is 1 where processes change the training loss.

``python -m benchmarks.processes [--repeats N] [--quick]``
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import LambdaCallback
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.growth import MIB, memory, progress
from benchmarks.machine import describe
from benchmarks.main_job import quiet
from benchmarks.minibatch import CLASSES, FEATURES, InMemory, Usual, rows, softmax_regression
from smx_lightning import Recovery, SoftmaxRegression
from smx_lightning.data import Rows, Splits
from smx_lightning.optim import ExactSolver

PATIENCE = 300  # seconds for one job: a process that waits for another one waits for ever
HIDDEN, WIDE = 2048, 256  # features: of the MLP, and of the many classes
MOST_APART = 1e-3  # float32 Adam on an MLP doubles rounding for a few epochs
ADAM = partial(torch.optim.Adam, lr=1e-3)
# Column: its key in what a process measured, and how it is printed; the first one is compared.
EPOCH = {"ms a step": ("step", ".2f"), "epoch, s": ("epoch", ".2f"), "training NLL": ("nll", ".5f")}
FIT = {"total, s": ("total", ".2f"), "passes": ("epochs", ".0f"), **EPOCH}
HOOK = {"ms a step": ("step", ".2f"), "of that in Recovery's hook, µs": ("hook", ".0f")}
SAVE = {"one save, ms": ("save", ".1f"), "checkpoint, kB": ("file", ".0f")}
PEAK = {**EPOCH, "after imports, MiB": ("imports", ".0f"), "peak a process, MiB": ("peak", ".0f")}


class Setup(NamedTuple):
    """Processes, and threads of each."""

    name: str
    processes: int = 1
    threads: int = 1
    sharded: bool = False


class Job(NamedTuple):
    """What is trained: so many rows an epoch, ``batch`` of them a step over all processes."""

    name: str
    model: Callable[[], LightningModule]
    rows: int
    batch: int = 256
    classes: int = CLASSES
    ours: bool = True  # this project's data module, or a DataLoader of TensorDataset
    epochs: int = 3
    recovery: int | None = None  # batches from one save to the next; 0: the default settings


ONE, TWO = Setup("1 process, 1 thread"), Setup("2 processes, 1 thread each", 2)
SETUPS = (ONE, Setup("1 process, 2 threads", threads=2), TWO)
SPREAD = Setup("2 processes, classes spread over them", 2, sharded=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, one round: does it run?")
    args = parser.parse_args()
    n, few, classes = (1024, 512, 2000) if args.quick else (60000, 2560, 200000)

    ours = Job("SoftmaxRegression, batch 256", softmax_regression, n)
    mlp = Job("linear layer on an MLP, trained", partial(Probe, trained=True), few)
    steps = [
        ours,
        ours._replace(name="SoftmaxRegression, batch 4096", batch=4096),
        ours._replace(name="SoftmaxRegression, TensorDataset", ours=False),
        Job("customary LightningModule, TensorDataset", Usual, n, ours=False),
        mlp._replace(name="linear layer on an MLP, frozen", model=partial(Probe, trained=False)),
        mlp,
    ]
    solver = partial(ExactSolver, tol=1e-5)
    exact = partial(SoftmaxRegression, FEATURES, CLASSES, l2=1e-3, optimizer=solver)
    fit = Job("exact solver, to its optimum", exact, n, 4096, epochs=500)
    hooks = [ours._replace(name="without Recovery"), ours._replace(name="with it", recovery=0)]
    saves = [ours._replace(rows=few, recovery=2), mlp._replace(recovery=2)]  # before every second
    wide = partial(SoftmaxRegression, WIDE, classes, optimizer=ADAM)
    many = Job(f"{classes} classes, {WIDE} features, batch 64", wide, 192, 64, classes)

    print(describe("torch", "lightning"), flush=True)
    repeats = 1 if args.quick else args.repeats
    with started() as pool:
        run(pool, fit._replace(epochs=3), ONE)  # the first fit is slower
        compare(steps, SETUPS, repeats, EPOCH, pool)
        compare([fit], SETUPS, repeats, FIT, pool)
        compare(hooks, (ONE, TWO), repeats, HOOK, pool)
        compare(saves, (ONE, TWO), repeats, SAVE, pool)
    compare([many], (*SETUPS, SPREAD), repeats, PEAK)


class Probe(SoftmaxRegression):
    """A linear layer on an MLP 784 → 2048 → 2048, which is frozen, or trained too."""

    def __init__(self, trained: bool) -> None:
        super().__init__(HIDDEN, CLASSES, input_shape=(FEATURES,), optimizer=ADAM)
        layers = nn.Linear(FEATURES, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        self.mlp = nn.Sequential(*layers).requires_grad_(trained)

    def features(self, x: Tensor) -> Tensor:
        """(batch, 784) → (batch, 2048)."""
        return cast("Tensor", self.mlp(x))


class Clock:
    """When epochs began and the last one ended; Recovery's hooks, seconds, and its files, bytes."""

    def __init__(self, folder: str, recovery: Recovery) -> None:
        self.folder, self.epochs, self.hooks, self.sizes = (
            Path(folder),
            list[float](),
            [math.nan],
            [0],
        )
        self.hook = recovery.on_train_batch_start
        recovery.on_train_batch_start = self.timed  # type: ignore[assignment, method-assign]
        self.callback = LambdaCallback(on_train_epoch_start=self.begin, on_train_end=self.end)

    def timed(self, *args: Any) -> None:
        """Recovery's hook, timed."""
        start = time.perf_counter()
        self.hook(*args)
        self.hooks.append(time.perf_counter() - start)

    def begin(self, *_: Any) -> None:
        """An epoch begins."""
        self.epochs.append(time.perf_counter())

    def end(self, *_: Any) -> None:
        """The last epoch has ended."""
        self.epochs.append(time.perf_counter())
        self.sizes.extend(file.stat().st_size for file in self.folder.rglob("*.ckpt"))


def train(job: Job, setup: Setup, folder: str, environment: dict[str, str]) -> dict[str, float]:
    """What one process of the setup measured."""
    signal.alarm(PATIENCE)
    os.environ |= environment
    torch.set_num_threads(setup.threads)
    imports = memory("VmRSS")
    loader = loader_of(job, setup)
    recovery = Recovery(every_n_steps=job.recovery or None)
    clock = Clock(folder, recovery)
    callbacks: list[Callback] = [clock.callback]
    if job.recovery is not None:
        callbacks.append(recovery)
    with quiet():
        torch.manual_seed(0)
        trainer = Trainer(
            accelerator="cpu", devices=setup.processes, strategy=strategy_of(setup), logger=False,
            max_epochs=job.epochs, limit_val_batches=0, default_root_dir=folder,
            callbacks=callbacks, enable_checkpointing=len(callbacks) > 1,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(job.model(), loader)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    hooks, epochs = clock.hooks, clock.epochs
    epoch = (epochs[-1] - epochs[1]) / (len(epochs) - 2)
    return {
        "step": 1e3 * epoch / int(trainer.num_training_batches), "epoch": epoch,
        "total": epochs[-1] - epochs[0], "epochs": trainer.current_epoch,
        "nll": float(trainer.callback_metrics.get("train/nll", math.nan)),
        "hook": 1e6 * statistics.fmean(hooks[1:] or hooks), "file": max(clock.sizes) / 1e3,
        "save": 1e3 * statistics.median(hooks[job.recovery or 1 :: job.recovery or 1] or hooks),
        "imports": imports / MIB, "peak": memory("VmHWM") / MIB,
    }  # fmt: skip


def loader_of(job: Job, setup: Setup) -> Any:
    """The job's rows, from this project's data module or from a DataLoader."""
    x, y = data(job.rows, job.classes)
    if not job.ours:
        return DataLoader(TensorDataset(x, y), job.batch // setup.processes, shuffle=True)
    all_rows, loader = Rows(x, y), cast("Any", InMemory(x, y))
    loader.batch_size = job.batch
    names = tuple(map(str, range(job.classes)))
    loader.splits = Splits(all_rows, all_rows, all_rows, names)
    return loader


def strategy_of(setup: Setup) -> Any:
    """How the setup's processes share the work."""
    if setup.sharded:
        return ModelParallelStrategy(1, setup.processes, save_distributed_checkpoint=False)
    return "ddp" if setup.processes > 1 else "auto"


@cache
def data(n: int, classes: int) -> tuple[Tensor, Tensor]:
    """Fashion-MNIST, read once a process; of many classes noise: only the cost is measured."""
    if classes == CLASSES:
        return rows(n)[:2]
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(classes, (n,), generator=generator)
    return torch.randn(n, WIDE, generator=generator), y


def started() -> ProcessPoolExecutor:
    """Two processes without inherited threads or locks; none outlives its last job for long."""
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(2, context, signal.alarm, (PATIENCE,))


def run(pool: ProcessPoolExecutor, job: Job, setup: Setup) -> dict[str, float]:
    """The largest figures of the processes that do one job as ranks of one group."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1])}
    group["WORLD_SIZE"] = str(setup.processes)
    with tempfile.TemporaryDirectory() as folder:
        ranks = [group | {"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(setup.processes)]
        futures = [pool.submit(train, job, setup, folder, rank) for rank in ranks]
        try:
            answers = [future.result() for future in as_completed(futures, 2 * PATIENCE)]
        except BaseException:
            for child in multiprocessing.active_children():  # they would wait for each other
                child.kill()
            raise
    return {key: max(answer[key] for answer in answers) for key in answers[0]}


def compare(
    jobs: list[Job], setups: tuple[Setup, ...], repeats: int, columns: dict[str, tuple[str, str]],
    shared: ProcessPoolExecutor | None = None,
) -> None:  # fmt: skip
    """Let every job take turns in every setup, in fresh processes unless shared; print medians."""
    turns: dict[tuple[Job, Setup], list[dict[str, float]]] = {}
    for repeat in range(repeats):
        for job, setup in product(jobs, setups):
            progress(f"round {repeat + 1} of {repeats}: {job.name}, {setup.name}")
            with nullcontext(shared) if shared else started() as pool:
                turns.setdefault((job, setup), []).append(run(pool, job, setup))
    first, form = next(iter(columns.values()))
    heads = ["trained", "processes", *columns, "min to max", "over 1 process"]
    print("\n| " + " | ".join(heads) + " |\n" + "| --- " * len(heads) + "|")
    for (job, setup), done in turns.items():
        median = {key: statistics.median(one[key] for one in done) for key in done[0]}
        times, alone = [one[first] for one in done], turns[job, ONE]
        row = [job.name, setup.name, *(f"{median[key]:{f}}" for key, f in columns.values())]
        row += [f"{min(times):{form}} to {max(times):{form}}"]
        row += [f"{median[first] / statistics.median(one[first] for one in alone):.2f}"]
        print(f"| {' | '.join(row)} |".replace(" nan ", " - "), flush=True)
        nll, expected = median["nll"], alone[0]["nll"]
        if job.ours and abs(nll - expected) > MOST_APART * expected:
            sys.exit(f"expected the training loss {expected} of one process, got {nll}")


if __name__ == "__main__":
    main()
