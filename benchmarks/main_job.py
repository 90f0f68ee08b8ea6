"""The main job, measured: accuracy, training time, and the direct export against torch's exporter.

``make bench`` prints the table that stands in benchmarks/README.md.
"""

from __future__ import annotations

import io
import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer, seed_everything
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch.optim.lr_scheduler import ExponentialLR

from benchmarks.machine import describe
from smx_export import export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule, IdxDataModule, InMemoryDataModule

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
REPEATS = 5


class Job(NamedTuple):
    """A data set, and the settings under which the README trains on it."""

    name: str
    data: Callable[[], InMemoryDataModule]
    learning_rate: float
    decay: float
    max_epochs: int
    sklearn_iterations: int


JOBS = [
    Job("digits", DigitsDataModule, 0.01, 1.0, 100, 5000),
    # scikit-learn stops at 100 iterations, its default, well before its optimum.
    Job("Fashion-MNIST", lambda: IdxDataModule(FASHION_MNIST), 0.003, 0.8, 20, 100),
]


class DirectIsNotEnough(SoftmaxRegression):
    """The same model, but with a method of its own: it takes the path through torch's exporter."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Unroll, as the base class does."""
        return x.flatten(1)


def main() -> None:
    """Measure and print."""
    print(describe("torch", "lightning", "onnx", "onnxruntime", "scikit-learn"), end="\n\n")
    print(
        "| data | method | test accuracy | training, s | export + parity, ms | "
        "torch.onnx export + parity, ms | file over bare weights |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for job in JOBS:
        if job.name == "Fashion-MNIST" and not FASHION_MNIST.is_dir():
            print(f"| {job.name} | not measured: install Debian's dataset-fashion-mnist |||||")
            continue
        for row in rows(job):
            print("| " + " | ".join(row) + " |", flush=True)


def rows(job: Job) -> Iterator[list[str]]:
    """The row of this project and the row of scikit-learn, measured one after the other."""
    data = job.data()
    _ = data.splits  # reading is not training
    model, seconds, accuracy = train(job, data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        direct = median_ms(lambda: export_onnx(model, path))
        size = path.stat().st_size / (4 * (data.num_features + 1) * data.num_classes)
        traced_model = DirectIsNotEnough(
            data.num_features, data.num_classes, preprocessing="standardize"
        )
        traced_model.load_state_dict(model.state_dict())
        traced = median_ms(lambda: export_onnx(traced_model, path))
    yield [
        job.name,
        f"smx_lightning, Adam, {job.max_epochs} epochs",
        f"{accuracy:.4f}",
        f"{seconds:.1f}",
        f"{direct:.0f}",
        f"{traced:.0f}",
        f"{size:.2f}",
    ]

    splits = data.splits
    scaler = StandardScaler().fit(splits.train.x.flatten(1).double())
    x, x_test = (scaler.transform(s.x.flatten(1).double()) for s in (splits.train, splits.test))
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stops before the optimum
        judge = LogisticRegression(max_iter=job.sklearn_iterations).fit(x, splits.train.y)
    seconds = time.perf_counter() - start
    method = f"scikit-learn, lbfgs, {judge.n_iter_[0]} iterations"
    accuracy = judge.score(x_test, splits.test.y)
    yield [job.name, method, f"{accuracy:.4f}", f"{seconds:.1f}", "-", "-", "-"]


def train(job: Job, data: InMemoryDataModule) -> tuple[SoftmaxRegression, float, float]:
    """The trained model, the seconds of ``fit``, and the test accuracy."""
    with quiet():
        seed_everything(0)
        model = SoftmaxRegression(
            data.num_features,
            data.num_classes,
            preprocessing="standardize",
            l2=1e-3,
            optimizer=lambda params: torch.optim.Adam(params, lr=job.learning_rate),
            lr_scheduler=lambda optimizer: ExponentialLR(optimizer, job.decay),
        )
        trainer = Trainer(
            max_epochs=job.max_epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        start = time.perf_counter()
        trainer.fit(model, data)
        seconds = time.perf_counter() - start
        (tested,) = trainer.test(model, data, verbose=False)
    return model, seconds, tested["test/accuracy_micro"]


def median_ms(action: Callable[[], object]) -> float:
    """Median of a few runs after a warm-up, in milliseconds."""
    times = []
    for _ in range(1 + REPEATS):
        start = time.perf_counter()
        action()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[1:])


@contextmanager
def quiet() -> Iterator[None]:
    """Only the table is printed."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    main()
