"""Seeded problems of softmax regression with up to millions of unknowns, and the hard corners."""

import numpy as np
from optima import finished

ROWS_TIMES_CLASSES = 3e6
ENTRIES = 4e6  # of the rows
UNKNOWNS = 2e6
WORK = 3e8  # rows × features × classes


def _log_uniform(rng, low, high):
    return int(np.exp(rng.uniform(np.log(low), np.log(high + 1))))


def _sizes(rng, scale):
    """Classes, features and rows a class, in the limits of what a test may take."""
    most_classes = 5000 if rng.random() < 0.05 and scale >= 1 else 1000
    classes = _log_uniform(rng, 2, most_classes)
    features = 20000 if rng.random() < 0.05 else _log_uniform(rng, 1, 5000)
    features = int(max(1, min(features, scale * UNKNOWNS / classes)))
    most = min(
        scale * ROWS_TIMES_CLASSES / classes,
        scale * ENTRIES / features,
        scale * WORK / features / classes,
    )
    features = features if most >= classes else max(1, int(features * most / classes))
    each = 1 if rng.random() < 0.3 else _log_uniform(rng, 1, max(1, min(most // classes, 5000)))
    return classes, features, each


def _features(rng, y, classes, features):
    spread = rng.choice([0.0, 0.1, 0.3, 1.0])
    x = rng.standard_normal((len(y), features))
    x += spread * rng.standard_normal((classes, features))[y]
    kind = rng.choice(["plain", "scales", "decaying", "low rank"])
    if kind == "scales":
        x *= 10 ** rng.uniform(-1, 1, features)
    elif kind == "decaying":
        x *= np.exp(-np.arange(features) / (features / 6))
    elif kind == "low rank":
        rank = max(1, min(features // 4, 50))
        mixed = rng.standard_normal((rank, features)) / np.sqrt(rank)
        x = x[:, :rank] @ mixed + 0.05 * x
    if rng.random() < 0.3:
        x += 3 * rng.standard_normal(features)
    if rng.random() < 0.5:
        return (x - x.mean(0)) / np.where(x.std(0) > 0, x.std(0), 1)
    return x * 10.0 ** rng.integers(-3, 4)


def drawn_large(seed, scale=1.0):
    """A problem of the ranges that the solver is for, its dtype ("float32" or "float64").

    K from 2 to 1000, at times to 5000; one row a class to thousands; d from 1 to 5000, at times
    20000; l2 from 1e-8 to 1; scales from 1e-3 to 1e3, or standardised; weights of classes and rows;
    soft targets.

    Args:
        seed: Of everything.
        scale: Of the limits of size.
    """
    rng = np.random.default_rng([131, seed])
    classes, features, each = _sizes(rng, scale)
    y = np.repeat(np.arange(classes), each)
    x = _features(rng, y, classes, features)
    q = np.eye(classes)[y]
    soft = rng.random()
    if soft < 0.15:  # full distributions
        q = 0.5 * rng.dirichlet(np.full(classes, rng.choice([0.1, 1.0])), len(y)) + 0.5 * q
    elif soft < 0.3:  # two classes a row, zero elsewhere
        q = 0.7 * q + 0.3 * np.eye(classes)[rng.permutation(y)]
    return finished(rng, x, y, q)
