"""The problems on which solvers are timed, and the objective that all of them minimise.

    objective = mean negative log-likelihood + ½ · l2 · ‖W‖²,   l2 = 1 / (C · n), bias free

Every problem has more than two classes: for two, scikit-learn fits one weight vector and not two,
which is another objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from smx_lightning.data.idx import read_idx

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
ROWS_AT_A_TIME = 4096  # float64 copies of this many rows: a whole data set need not fit twice


@dataclass(frozen=True)
class Problem:
    """Rows x (n, d) float32 with labels y (n,) int64, and how strongly W is penalised."""

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    C: float = 1.0

    @property
    def l2(self) -> float:
        """The penalty's weight that means the same as scikit-learn's ``C``."""
        return 1.0 / (self.C * len(self.x))

    @property
    def num_classes(self) -> int:
        """K, every class of which has rows."""
        return int(self.y.max()) + 1

    def objective(self, weight: NDArray[np.floating], bias: NDArray[np.floating]) -> float:
        """The objective at W (K, d), b (K,) in float64: the judge of every solver's own claim."""
        weight, bias = weight.astype(np.float64), bias.astype(np.float64)
        total = 0.0
        for at in range(0, len(self.x), ROWS_AT_A_TIME):
            y = self.y[at : at + ROWS_AT_A_TIME]
            logits = self.x[at : at + ROWS_AT_A_TIME].astype(np.float64) @ weight.T + bias
            logits -= logits.max(axis=1, keepdims=True)
            total += float(np.log(np.exp(logits).sum(axis=1)).sum())
            total -= float(logits[np.arange(len(y)), y].sum())
        return total / len(self.x) + 0.5 * self.l2 * float(np.square(weight).sum())


def problem(name: str) -> Problem:
    """The problem of this name, read or made; one of :data:`PROBLEMS`."""
    if name not in PROBLEMS:
        raise ValueError(f"expected one of {', '.join(PROBLEMS)}, got {name!r}")
    return PROBLEMS[name](name)


def _fashion(name: str, C: float = 1.0, divisor: float = 255.0) -> Problem:  # noqa: N803
    images = read_idx(FASHION_MNIST / "train-images-idx3-ubyte.gz").flatten(1).numpy()
    labels = read_idx(FASHION_MNIST / "train-labels-idx1-ubyte.gz").numpy()
    return Problem(
        name, images.astype(np.float32) / np.float32(divisor), labels.astype(np.int64), C
    )


def _fashion_standardised(name: str) -> Problem:
    raw = _fashion(name, divisor=1.0)
    mean = raw.x.mean(axis=0, dtype=np.float64)
    deviation = raw.x.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0
    # Float32 throughout: a second float64 copy of all pixels would buy no digit that matters.
    x = (raw.x - mean.astype(np.float32)) / deviation.astype(np.float32)
    return Problem(name, x, raw.y)


def _wide(name: str) -> Problem:
    """More features than rows, most of their variance in few directions: text or gene counts."""
    n, d, num_classes, rank = 1000, 8000, 5, 20
    random = np.random.default_rng(0)
    factors = random.standard_normal((n, rank))
    x = factors @ random.standard_normal((rank, d)) / np.sqrt(rank) + random.standard_normal((n, d))
    scores = factors @ random.standard_normal((rank, num_classes))
    y = (scores + 2 * random.standard_normal(scores.shape)).argmax(axis=1)
    return Problem(name, x.astype(np.float32), y.astype(np.int64))


def _hundred_classes(name: str) -> Problem:
    """Round clusters, their centres about four of their deviations apart: many rows are unsure."""
    n, d, num_classes = 20_000, 64, 100
    random = np.random.default_rng(0)
    centres = 0.35 * random.standard_normal((num_classes, d))
    y = random.permutation(np.arange(n) % num_classes)
    x = centres[y] + random.standard_normal((n, d))
    return Problem(name, x.astype(np.float32), y.astype(np.int64))


def _digits(name: str) -> Problem:
    x, y = load_digits(return_X_y=True)
    return Problem(name, (x / 16).astype(np.float32), y.astype(np.int64))


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "fashion": _fashion,
    "fashion-c0.01": partial(_fashion, C=0.01),
    "fashion-standardised": _fashion_standardised,
    "fashion-unscaled": partial(_fashion, divisor=1.0),
    "wide": _wide,
    "hundred-classes": _hundred_classes,
    "digits": _digits,
}
