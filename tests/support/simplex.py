"""Maps to the simplex, slowly and in float64: judges of smx_lightning.activations."""

import math

import numpy as np


def sparsemax(row):
    """The projection onto the simplex, as Held, Wolfe & Crowder (1974) find it: by sorting."""
    row = np.asarray(row, dtype=np.float64) - np.max(row)
    largest = np.sort(row)[::-1]
    sums = np.cumsum(largest)
    size = max(k for k in range(1, len(row) + 1) if 1 + k * largest[k - 1] > sums[k - 1])
    return np.maximum(row - (sums[size - 1] - 1) / size, 0)


def entmax(row, alpha):
    """α-entmax from its optimality conditions, halving until numbers are neighbours."""
    row = np.asarray(row, dtype=np.float64) - np.max(row)
    if alpha == 1:
        return np.exp(row) / math.fsum(np.exp(row))

    def p(threshold):
        return np.maximum((alpha - 1) * row - threshold, 0) ** (1 / (alpha - 1))

    low, high = -1.0, 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.fsum(p(middle)) >= 1 else (low, middle)
    return p(low) / math.fsum(p(low))


def tsallis(p, alpha):
    """Tsallis' α-entropy, Shannon's of α = 1."""
    if alpha == 1:
        return -math.fsum(x * math.log(x) for x in p if x > 0)
    return (1 - math.fsum(np.asarray(p) ** alpha)) / (alpha * (alpha - 1))


def rows(function, scores, *args):
    """The function of each row."""
    return np.stack([function(row, *args) for row in np.asarray(scores)])
