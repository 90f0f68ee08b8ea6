"""What a file makes of its scores: softmax, or α-entmax, which rules classes out; its self-test."""

from base64 import b64decode
from typing import Any

import numpy as np

ALPHAS = {"softmax": 1.0, "entmax15": 1.5, "sparsemax": 2.0}
HALVINGS = 52


def log_probs(scores: Any, activation: Any) -> Any:
    """Log-probabilities (rows, classes) of scores; minus infinity of a class that is ruled out.

    ``activation`` is what the file's metadata say: a name, or {"alpha": 1.3}.
    """
    alpha = activation["alpha"] if isinstance(activation, dict) else ALPHAS[activation]
    below = scores - scores.max(1, keepdims=True)
    if alpha == 1:
        return below - np.log(np.exp(below).sum(1, keepdims=True))
    # p = relu(z - τ)^power, whose sum is 1 at a threshold τ between -1 and 0.
    z, power = (alpha - 1) * below.astype(np.float64), 1 / (alpha - 1)
    threshold = np.full_like(z[:, :1], -1)
    for step in 0.5 ** np.arange(1, HALVINGS):
        higher = threshold + step
        enough = (np.maximum(z - higher, 0) ** power).sum(1, keepdims=True) >= 1
        threshold = np.where(enough, higher, threshold)
    return power * np.log(np.maximum(z - threshold, 0))


def inputs(test: dict[str, Any], width: int) -> Any:
    """Of a self-test, rows times factors."""
    half = test["dtype"] == "bfloat16"  # the upper half of float32
    rows = np.frombuffer(b64decode(test["rows"]), "<u2" if half else test["dtype"])
    rows = ((rows.astype("<u4") << 16).view("<f4") if half else rows).reshape(-1, width)
    return np.stack([rows[i] * np.float32(factor) for i, factor in test["inputs"]])


def passes(found: Any, test: dict[str, Any]) -> bool:
    """Whether log-probabilities are those of a self-test, which tells probs where some are 0."""
    found = np.exp(found) if "probs" in test else found
    told = b64decode(test.get("probs") or test["log_probs"])
    expected = np.frombuffer(told, "<f4").reshape(len(test["inputs"]), -1)
    return bool((abs(found - expected).max(1) <= test["tolerance"]).all())
