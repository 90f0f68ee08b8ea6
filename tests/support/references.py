"""Slow, obvious second implementations, for the tests to judge by."""

import math

import numpy as np


def log_softmax(logits):
    """Row by row in Python floats, straight from the definition, shifted by the maximum."""
    rows = []
    for row in np.asarray(logits, dtype=np.float64):
        largest = max(row)
        total = math.fsum(math.exp(z - largest) for z in row)
        rows.append([z - largest - math.log(total) for z in row])
    return np.array(rows)


def nll(probs, y):
    """Mean of -log p[y]."""
    return float(np.mean([-math.log(p[label]) for p, label in zip(probs, y, strict=True)]))


def brier(probs, y):
    """Mean squared distance to the one-hot label."""
    return float(
        np.mean(
            [
                sum((p[k] - (k == label)) ** 2 for k in range(len(p)))
                for p, label in zip(probs, y, strict=True)
            ]
        )
    )


def expected_calibration_error(probs, y, bins=15):
    """Σ share of the bin · |accuracy - confidence|, over equal-width bins of the confidence."""
    confidence, correct = probs.max(1), probs.argmax(1) == y
    error = 0.0
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return float(error)


def objective(weight, bias, x, y, l2=0.0, class_weight=None):
    """(Weighted) mean negative log-likelihood + ½ l2 ‖W‖²."""
    log_probs = log_softmax(x @ weight.T + bias)
    w = np.ones(len(y)) if class_weight is None else np.asarray(class_weight)[y]
    data = -(w * log_probs[np.arange(len(y)), y]).sum() / w.sum()
    return float(data + 0.5 * l2 * (weight**2).sum())


def gradient(weight, bias, x, y, l2=0.0, class_weight=None):
    """Of :func:`objective`: (K, d + 1), the bias last, one row after the other."""
    probs = np.exp(log_softmax(x @ weight.T + bias))
    w = np.ones(len(y)) if class_weight is None else np.asarray(class_weight)[y]
    total = np.zeros((len(bias), x.shape[1] + 1))
    for row, p, label, share in zip(x, probs, y, w / w.sum(), strict=True):
        residual = p - np.eye(len(bias))[label]
        total += share * np.outer(residual, np.append(row, 1.0))
    total[:, :-1] += l2 * weight
    return total


def hessian(x, probs, weights, l2):
    """Of the weighted mean NLL + penalty: (K, d + 1, K, d + 1), one row after the other."""
    d = x.shape[1]
    classes = probs.shape[1]
    total = np.zeros((classes, d + 1, classes, d + 1))
    for row, p, w in zip(x, probs, weights / weights.sum(), strict=True):
        row = np.append(row, 1.0)
        spread = np.diag(p) - np.outer(p, p)
        total += w * np.einsum("kl,a,b->kalb", spread, row, row)
    for k in range(classes):
        total[k, range(d), k, range(d)] += l2
    return total


def entmax(scores, alpha, halvings=90):
    """Probabilities (n, K) of α-entmax, α > 1: its threshold by halving an interval."""
    z = (alpha - 1) * np.asarray(scores, dtype=np.float64)
    z = z - z.max(1, keepdims=True)
    low, high = np.full((len(z), 1), -1.0), np.zeros((len(z), 1))
    for _ in range(halvings):
        middle = (low + high) / 2
        enough = (np.maximum(z - middle, 0) ** (1 / (alpha - 1))).sum(1, keepdims=True) >= 1
        low, high = np.where(enough, middle, low), np.where(enough, high, middle)
    return np.maximum(z - low, 0) ** (1 / (alpha - 1))
