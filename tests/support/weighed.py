"""Rows that weigh and distributions for labels: drawn, judged one by one, shared by processes."""

import math

import numpy as np
import torch
from hypothesis import strategies as st

from smx_lightning.activations import SOFTMAX
from smx_lightning.metrics import confusion_matrix, evaluation_metrics
from smx_lightning.metrics.tally import Tally

BINS = 15


@st.composite
def rows(draw, soft=None, whole=None):
    """Scores (n, K) float64, targets and weights (n,) float64; some of these are 0.

    Args:
        draw: Hypothesis' own.
        soft: Whether targets are distributions; either, where it is ``None``.
        whole: Whether weights are integers, likewise.
    """
    num_classes, n = draw(st.integers(2, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scores = draw(st.sampled_from([0.1, 3.0, 60.0])) * rng.standard_normal((n, num_classes))
    y = rng.integers(num_classes, size=n)
    if draw(st.booleans()) if soft is None else soft:
        y = distributions(rng, n, num_classes)
    c = rng.integers(0, 4, size=n).astype(float)
    if not (draw(st.booleans()) if whole is None else whole):
        c *= rng.random(n)
    c[rng.integers(n)] = 1.5 if not c.any() else c.max()
    return torch.tensor(scores), torch.tensor(y), torch.tensor(c)


def distributions(rng, n, classes):
    """(n, classes) float64, about half of whose entries are 0."""
    q = rng.random((n, classes)) * (rng.random((n, classes)) < 0.5)
    q[np.arange(n), rng.integers(classes, size=n)] += 0.1
    return q / q.sum(1, keepdims=True)


def labels_of(y, c, classes):
    """What counts as what: (row, label, weight) of each label that a row may have."""
    q = np.eye(classes)[y] if np.ndim(y) == 1 else np.asarray(y)
    return [(i, k, c[i] * q[i, k]) for i in range(len(q)) for k in range(classes) if c[i] * q[i, k]]


def judged(scores, probs, y, c, threshold=None, conjugate=None):
    """Every metric, label by label.

    Args:
        scores: (n, K), for the ranks.
        probs: (n, K), in the dtype in which confidences are put into bins.
        y, c: Targets and weights.
        threshold: γ.
        conjugate: (n,) Ω*(s), where the loss is wanted.
    """
    classes = probs.shape[1]
    counted = labels_of(y, c, classes)
    decided = probs.argmax(1) if threshold is None else (probs[:, 1] >= threshold).astype(int)
    guessed, confidence = probs.argmax(1), probs.max(1)
    ranked = np.argsort(-scores, axis=1, kind="stable")

    def mean(value):
        return math.fsum(w * value(i, k) for i, k, w in counted) / math.fsum(w for *_, w in counted)

    def log(p):
        return math.log(p) if p > 0 else -math.inf

    confusion = np.zeros((classes, classes))
    for i, k, w in counted:
        confusion[k, decided[i]] += w
    rows = confusion.sum(1)
    bins = np.zeros(BINS)
    for i, k, w in counted:
        (inside,) = (b for b in range(BINS) if b / BINS < confidence[i] <= (b + 1) / BINS)
        bins[inside] += w * ((guessed[i] == k) - float(confidence[i]))
    values = {
        "accuracy_micro": mean(lambda i, k: decided[i] == k),
        "accuracy_macro": np.mean(np.diag(confusion)[rows > 0] / rows[rows > 0]),
        "nll": mean(lambda i, k: -log(probs[i, k])),
        "brier": mean(lambda i, k: sum((p - (j == k)) ** 2 for j, p in enumerate(probs[i]))),
        "ece": np.abs(bins).sum() / rows.sum(),
    }
    if classes > 5:
        values["top_5_accuracy"] = mean(lambda i, k: k in ranked[i, :5])
    if conjugate is not None:
        values["loss"] = mean(lambda i, k: conjugate[i] - scores[i, k])
        values["support_size"] = mean(lambda i, k: (probs[i] > 0).sum())
        values["zeros"] = mean(lambda i, k: (probs[i] == 0).mean())
        values["label_in_support"] = mean(lambda i, k: probs[i, k] > 0)
    return values, confusion


def tally_of(classes, threshold=None, activation=SOFTMAX):
    """Of all metrics of an evaluation."""
    metrics = evaluation_metrics(classes, prefix="", threshold=threshold, activation=activation)
    return Tally(metrics, classes, "rows", activation)


def confusion_of(classes):
    """A tally of the confusion matrix."""
    return Tally(confusion_matrix(classes), classes, "rows")


def values_of(tally):
    """What a tally computes, as numbers and arrays."""
    return {
        name: float(value) if value.ndim == 0 else value.numpy()
        for name, value in tally.compute().items()
    }


def counted(world_size, shares, classes):
    """The metrics of one process's share, a list of batches, and of all processes' together."""
    torch.distributed.init_process_group("gloo")
    try:
        batches = shares[torch.distributed.get_rank()]
        answers = {}
        for tally in (tally_of(classes), confusion_of(classes)):
            for batch in batches:
                tally.add(*batch)
            tally.flush()
            answers |= values_of(tally)
        return answers
    finally:
        torch.distributed.destroy_process_group()
