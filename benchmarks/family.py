"""The family on real and made rows: what each member answers, and what its optimum costs.

Each member has the l2, of a few, with the least Brier score on rows that it was not fitted on; the
table is of a third part of the rows. Fits are the exact solver's, in the plain loop. Proportions
are of digits, each row's target being the shares of its ten nearest neighbours' labels.

``python -m benchmarks.family [--quick]``
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from benchmarks.machine import describe
from benchmarks.problems import problem
from smx_export import export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.activations import activation_of
from smx_lightning.metrics import CalibrationError
from smx_lightning.optim import minimise
from smx_lightning.optim.minimise import Solution

MEMBERS: dict[str, Any] = {
    "softmax": "softmax",
    "1.25-entmax": {"alpha": 1.25},
    "entmax15": "entmax15",
    "sparsemax": "sparsemax",
}
DATA = ("digits-standardised", "fashion", "hundred-classes", "proportions")
PENALTIES = (1e-4, 1e-3, 1e-2)
NEIGHBOURS = 10
TOL = 1e-5
BATCH = 8192
COLUMNS = (
    "rows", "activation", "l2", "accuracy", "NLL", "Brier", "ECE", "classes with p > 0",
    "label has p > 0", "passes", "seconds", "one row, µs",
)  # fmt: skip


class Rows(NamedTuple):
    """Inputs (n, d) and targets: labels (n,) or distributions (n, K)."""

    x: Tensor
    y: Tensor

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """As the solver takes them."""
        return list(zip(torch.split(self.x, BATCH), torch.split(self.y, BATCH), strict=True))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one small data set: does it run?")
    names = DATA[:1] if parser.parse_args().quick else DATA
    torch.set_num_threads(1)
    print(describe("torch", "onnxruntime", "scikit-learn"), end="\n\n")
    print("| " + " | ".join(COLUMNS) + " |")
    print("| --- " * len(COLUMNS) + "|")
    for name in names:
        parts = split(name)
        for member, spec in MEMBERS.items():
            print(f"{name}: {member}", file=sys.stderr)
            row = [name, member, *measured(spec, *parts)]
            print("| " + " | ".join(row) + " |", flush=True)


def split(name: str) -> tuple[Rows, Rows, Rows]:
    """Three fifths of the rows to fit on, a fifth to choose l2 on, a fifth for the table."""
    given = problem("digits-standardised" if name == "proportions" else name)
    order = np.random.default_rng(0).permutation(len(given.x))
    x, y = given.x[order], given.y[order]
    targets = shares(x, y) if name == "proportions" else y
    cuts = [len(x) * 3 // 5, len(x) * 4 // 5]
    parts = zip(np.split(x, cuts), np.split(targets, cuts), strict=True)
    first, second, third = (Rows(*map(torch.from_numpy, part)) for part in parts)
    return first, second, third


def shares(x: NDArray[np.floating], y: NDArray[np.int64]) -> NDArray[np.float32]:
    """Of each row's nearest neighbours' labels, (n, K)."""
    nearest = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(x).kneighbors(x, return_distance=False)
    one_hot = np.eye(int(y.max()) + 1, dtype=np.float32)
    return np.asarray(one_hot[y[nearest]].mean(1), np.float32)


def measured(spec: Any, fitted: Rows, chosen: Rows, last: Rows) -> list[str]:
    """The cells of one member, from the penalty on."""
    tried = [(l2, *solved(spec, fitted, l2)) for l2 in PENALTIES]
    l2, solution, seconds = min(tried, key=lambda of: answers(spec, of[1], chosen)["brier"])
    found = answers(spec, solution, last)
    return [
        f"{l2:g}",
        *(f"{found[name]:.4f}" for name in ("accuracy", "nll", "brier", "ece")),
        f"{found['support']:.2f}",
        f"{found['inside']:.4f}",
        str(solution.evaluations),
        f"{seconds:.2f}",
        f"{microseconds(spec, solution, last.x):.1f}",
    ]


def solved(spec: Any, rows: Rows, l2: float) -> tuple[Solution, float]:
    """The optimum, and the seconds that it took."""
    classes = rows.y.shape[1] if rows.y.ndim == 2 else int(rows.y.max()) + 1
    began = time.perf_counter()
    solution = minimise(rows.batches(), rows.x.shape[1], classes, l2=l2, tol=TOL, activation=spec)
    return solution, time.perf_counter() - began


def answers(spec: Any, solution: Solution, rows: Rows) -> dict[str, float]:
    """What the answers on rows are like; of proportions the likeliest class is the label."""
    activation = activation_of(spec)
    log_probs = activation.log_probs((rows.x @ solution.weight.T + solution.bias).double())
    probs = log_probs.exp()
    labels = rows.y.argmax(1) if rows.y.ndim == 2 else rows.y
    q = rows.y.double() if rows.y.ndim == 2 else torch.eye(probs.shape[1]).double()[rows.y]
    calibration = CalibrationError()
    calibration.update(log_probs.float(), labels)
    own = probs.gather(1, labels[:, None])
    return {
        "accuracy": float((probs.argmax(1) == labels).double().mean()),
        "nll": -float(torch.where(q > 0, q * log_probs, 0).sum(1).mean()),
        "brier": float((probs - q).square().sum(1).mean()),
        "ece": float(calibration.compute()),
        "support": float((probs > 0).sum(1).double().mean()),
        "inside": float((own > 0).double().mean()),
    }


def microseconds(spec: Any, solution: Solution, x: Tensor) -> float:
    """What onnxruntime takes for one row of the exported file, one thread."""
    classes, features = solution.weight.shape
    model = SoftmaxRegression(features, classes, activation=spec)
    with torch.no_grad():
        model.linear.weight.copy_(solution.weight)
        model.linear.bias.copy_(solution.bias)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(model, Path(folder) / "model.onnx").path
        session = onnxruntime.InferenceSession(path, options)
    row = {session.get_inputs()[0].name: x[:1].numpy()}
    times = []
    for _ in range(2000):
        began = time.perf_counter()
        session.run(None, row)
        times.append(time.perf_counter() - began)
    return 1e6 * statistics.median(times)


if __name__ == "__main__":
    main()
