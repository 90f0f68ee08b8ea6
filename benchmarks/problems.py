"""The problems on which solvers are timed, and the objective that all of them minimise.

    objective = mean negative log-likelihood + ½ · l2 · ‖W‖²,   l2 = 1 / (C · n), bias free

Every problem has more than two classes: for two, scikit-learn fits one weight vector and not two,
which is another objective.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits, load_iris, load_wine

from smx_lightning.data.idx import read_idx

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
ROWS_AT_A_TIME = 4096  # float64 copies of this many rows: a whole data set need not fit twice


@dataclass(frozen=True)
class Problem:
    """Rows x (n, d), float32 as made, with labels y (n,) int64, and how strongly W is penalised."""

    name: str
    x: NDArray[np.floating]
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

    def in_float64(self) -> Problem:
        """The same numbers in float64, so that the optimum is the same and solvers take longer."""
        return replace(self, x=self.x.astype(np.float64))

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


def _fashion_standardised(name: str, l2: float | None = None) -> Problem:
    raw = _fashion(name, divisor=1.0)
    C = 1.0 if l2 is None else 1.0 / (l2 * len(raw.x))  # noqa: N806 (scikit-learn's name)
    return Problem(name, _standardised(raw.x), raw.y, C)


def _standardised(x: NDArray[np.floating]) -> NDArray[np.float32]:
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = x.std(axis=0, dtype=np.float64)
    deviation[deviation == 0] = 1.0
    # In x's own precision: a float64 copy of all pixels would buy no digit that matters.
    x = (x - mean.astype(x.dtype)) / deviation.astype(x.dtype)
    return x.astype(np.float32)


def _from_sklearn(
    name: str, load: Callable[..., tuple[NDArray[np.float64], NDArray[np.int64]]]
) -> Problem:
    x, y = load(return_X_y=True)
    return Problem(name, _standardised(x), y.astype(np.int64))


def _clusters(
    name: str, n: int, d: int, num_classes: int, spread: float = 0.35, mixed: bool = False
) -> Problem:
    """Round clusters of about as many rows each, many of them unsure.

    Args:
        name: The problem's.
        n: Rows.
        d: Features.
        num_classes: One cluster each.
        spread: Of a centre's entries, in deviations of the rows around it.
        mixed: Whether the features are random combinations of these, standardised: correlated as
            measured ones are.
    """
    random = np.random.default_rng(0)
    centres = spread * random.standard_normal((num_classes, d))
    y = random.permutation(np.arange(n) % num_classes)
    x = centres[y] + random.standard_normal((n, d))
    if mixed:
        x = _standardised(x @ random.standard_normal((d, d)))
    return Problem(name, x.astype(np.float32), y.astype(np.int64))


def _wide(name: str, n: int, d: int, num_classes: int, rank: int) -> Problem:
    """More features than rows, most of their variance in few directions: text or gene counts."""
    random = np.random.default_rng(0)
    factors = random.standard_normal((n, rank))
    x = factors @ random.standard_normal((rank, d)) / np.sqrt(rank) + random.standard_normal((n, d))
    scores = factors @ random.standard_normal((rank, num_classes))
    y = (scores + 2 * random.standard_normal(scores.shape)).argmax(axis=1)
    return Problem(name, x.astype(np.float32), y.astype(np.int64))


def _embeddings(name: str, d: int, num_classes: int, apart: float) -> Problem:
    """What a backbone puts out: correlated features, decaying spectrum, classes near separable."""
    n = 20_000
    random = np.random.default_rng(1)
    rotation, _ = np.linalg.qr(random.standard_normal((d, d)))
    spectrum = np.exp(-np.arange(d) / 120)
    centres = apart * random.standard_normal((num_classes, d)) * spectrum
    y = random.integers(0, num_classes, n)
    x = (centres[y] + random.standard_normal((n, d)) * spectrum) @ rotation
    return Problem(name, x.astype(np.float32), y.astype(np.int64))


def _digits(name: str) -> Problem:
    x, y = load_digits(return_X_y=True)
    return Problem(name, (x / 16).astype(np.float32), y.astype(np.int64))


PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "iris": partial(_from_sklearn, load=load_iris),
    "wine": partial(_from_sklearn, load=load_wine),
    "digits": _digits,
    "digits-standardised": partial(_from_sklearn, load=load_digits),
    "made": partial(_clusters, n=5000, d=100, num_classes=5),
    "table": partial(_clusters, n=16_000, d=16, num_classes=26, spread=0.8, mixed=True),
    "many-rows": partial(_clusters, n=500_000, d=54, num_classes=7),
    "hundred-classes": partial(_clusters, n=20_000, d=64, num_classes=100),
    "embeddings": partial(_embeddings, d=768, num_classes=100, apart=1.2),
    "embeddings-far": partial(_embeddings, d=384, num_classes=50, apart=2.5),
    "wide": partial(_wide, n=1000, d=8000, num_classes=5, rank=20),
    "wide-100": partial(_wide, n=100, d=7000, num_classes=3, rank=10),
    "wide-400": partial(_wide, n=400, d=20_000, num_classes=10, rank=30),
    "fashion": _fashion,
    "fashion-c0.01": partial(_fashion, C=0.01),
    "fashion-standardised": _fashion_standardised,
    "fashion-standardised-l2-1e-3": partial(_fashion_standardised, l2=1e-3),
    "fashion-unscaled": partial(_fashion, divisor=1.0),
}
