"""Every metric against scikit-learn or the definition written out, absent classes included."""

import math
import warnings

import numpy as np
import pytest
import references
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import examples
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    log_loss,
    top_k_accuracy_score,
)
from torch.utils.data import DataLoader, TensorDataset

from smx_lightning import SoftmaxRegression
from smx_lightning.metrics.accuracy import MacroAccuracy, decide
from smx_lightning.metrics.stages import evaluation_metrics
from smx_lightning.metrics.tally import Tally


def balanced(y, predicted):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        return balanced_accuracy_score(y, predicted)


def values(log_probs, y, size=None, threshold=None):
    metrics = evaluation_metrics(log_probs.shape[1], prefix="", threshold=threshold)
    for rows, labels in zip(log_probs.split(size or len(y)), y.split(size or len(y)), strict=True):
        metrics.update(rows, labels)
    return {name: float(value) for name, value in metrics.compute().items()}


@st.composite
def answers(draw):
    """Log-probabilities and labels of few rows: most classes are absent in most examples."""
    classes, rows = draw(st.integers(2, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scale = draw(st.sampled_from([0.1, 3.0, 60.0]))  # of the last, probabilities are 0 and 1
    log_probs = torch.tensor(scale * rng.standard_normal((rows, classes))).float().log_softmax(1)
    occurring = draw(st.integers(1, classes))
    y = torch.tensor(rng.permutation(classes)[rng.integers(occurring, size=rows)])
    threshold = draw(st.sampled_from([None, 0.0, 0.2, 0.9])) if classes == 2 else None
    return log_probs, y, threshold, draw(st.integers(1, 30))


@given(answers())
@settings(max_examples=examples(150))
def test_every_metric_is_its_definition(example):
    log_probs, y, threshold, size = example
    found = values(log_probs, y, size, threshold)
    probs = log_probs.double().exp().numpy()
    classes = probs.shape[1]
    decided = probs.argmax(1) if threshold is None else (probs[:, 1] >= threshold).astype(int)
    expected = {
        "accuracy_micro": accuracy_score(y, decided),
        "accuracy_macro": balanced(y, decided),
        "nll": float(-log_probs.double().gather(1, y[:, None]).mean()),
        "brier": references.brier(probs, y.tolist()),
        "ece": references.expected_calibration_error(log_probs.exp().numpy(), y.numpy()),
    }
    if classes > 5:
        expected["top_5_accuracy"] = top_k_accuracy_score(y, probs, k=5, labels=range(classes))
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-6)
    if probs.min() > 1e-15:  # scikit-learn clips others
        probs /= probs.sum(1, keepdims=True)
        judged = log_loss(y, probs, labels=range(classes))
        assert found["nll"] == pytest.approx(judged, rel=1e-5, abs=1e-6)


def test_a_class_that_is_predicted_and_has_no_label_counts_for_nothing():
    """The mean over all classes, torchmetrics', is .111 of these."""
    y, predicted = torch.tensor([0, 0, 0, 1, 1, 3]), torch.tensor([0, 2, 2, 1, 2, 2])
    metric = MacroAccuracy(9)
    metric.update(torch.eye(9)[predicted].log_softmax(1), y)
    assert float(metric.compute()) == pytest.approx((1 / 3 + 1 / 2 + 0) / 3)
    assert float(metric.compute()) == pytest.approx(balanced(y, predicted))


@pytest.mark.parametrize("certain", [3.0, 300.0])
def test_metrics_that_agree_on_the_first_rows_stay_apart(certain):
    """torchmetrics would take one state for accuracies, or scores, that begin alike."""
    y = torch.arange(8)
    right = (certain * torch.eye(8)).log_softmax(1)
    wrong = (3 * torch.eye(8).roll(3, 1) + torch.eye(8)).log_softmax(1)
    metrics = evaluation_metrics(8, prefix="")
    for rows in (right, wrong):
        metrics.update(rows, y)
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == pytest.approx(values(torch.cat([right, wrong]), torch.cat([y, y])))
    assert found["accuracy_micro"] == 0.5
    assert found["top_5_accuracy"] > 0.5


def test_a_certain_row_shares_the_last_bin():
    log_probs = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.95, 0.05], [0.95, 0.05]]).log()
    assert values(log_probs, torch.tensor([0, 1, 0, 0]))["ece"] == pytest.approx(0.225)


def test_without_rows_there_is_no_value():
    metric = MacroAccuracy(3)
    metric.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert math.isnan(metric.compute())


@pytest.mark.whole
def test_macro_accuracy_exists_for_very_many_classes(quiet_trainer):
    """Through a matrix of counts it would take 320 GB."""
    classes = 200_000
    model = SoftmaxRegression(2, classes)
    x, y = torch.randn(12, 2), torch.arange(12) // 2 * 39_999
    y[::2] = model(x).argmax(1)[::2]
    logged, *_ = quiet_trainer().test(
        model, DataLoader(TensorDataset(x, y), batch_size=5), verbose=False
    )
    predicted = decide(model(x).detach()).numpy()
    assert logged["test/accuracy_macro"] == pytest.approx(balanced(y.numpy(), predicted))


@given(answers(), st.integers(1, 4), st.booleans())
@settings(max_examples=examples(40))
def test_states_of_several_processes_add_up(example, shares, flushed):
    """As Recovery keeps and restores them; a share may be without rows."""
    log_probs, y, threshold, _ = example
    classes = log_probs.shape[1]

    def tally():
        return Tally(evaluation_metrics(classes, prefix="", threshold=threshold), classes, "rows")

    states = []
    for rank in range(shares):
        counted = tally()
        counted.add(log_probs[rank::shares], y[rank::shares])
        if flushed:
            counted.flush()
        states.append(counted.state())
    whole = tally()
    whole.restore(states)
    found = {name: float(value) for name, value in whole.compute().items()}
    assert found == pytest.approx(values(log_probs, y, threshold=threshold), rel=1e-5, abs=1e-6)
