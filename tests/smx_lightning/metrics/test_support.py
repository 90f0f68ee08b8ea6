"""Metrics of sparse members against their definitions in numpy, ties and absent labels included."""

import math

import numpy as np
import pytest
import references
import sparse_optima
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import examples
from sklearn.metrics import top_k_accuracy_score
from torchmetrics import Metric, MinMaxMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.wrappers import BootStrapper

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX, Entmax, activation_of
from smx_lightning.metrics import (
    MeanFenchelYoungLoss,
    NegativeLogLikelihood,
    evaluation_metrics,
    stage_metrics,
    training_metrics,
)
from smx_lightning.metrics.tally import Tally

ALPHAS = (1.3, 1.5, 2.0, 3.0)


@st.composite
def answers(draw):
    """Scores of few rows; at a scale of 60 nearly all probabilities are 0."""
    classes, rows = draw(st.integers(2, 12)), draw(st.integers(1, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    scale = draw(st.sampled_from([0.1, 3.0, 60.0]))
    scores = torch.tensor(scale * rng.standard_normal((rows, classes)))
    y = torch.tensor(rng.integers(classes, size=rows))
    return scores, y, draw(st.sampled_from(ALPHAS)), draw(st.integers(1, 30))


def tallied(metrics, activation, scores, y, size):
    tally = Tally(metrics, scores.shape[1], "rows", activation)
    for rows, labels in zip(scores.split(size), y.split(size), strict=True):
        tally.add(rows, labels)
        if size % 2:
            tally.flush()
    return {name: float(value) for name, value in tally.compute().items()}


@given(answers())
@settings(max_examples=examples(100))
def test_every_metric_is_its_definition(example):
    scores, y, alpha, size = example
    activation, classes = Entmax(alpha), scores.shape[1]
    metrics = evaluation_metrics(classes, prefix="", activation=activation)
    found = tallied(metrics, activation, scores, y, size)
    z, labels = scores.numpy(), y.numpy()
    p = sparse_optima.entmax(z, alpha)
    of_label = p[np.arange(len(y)), labels]
    losses = sparse_optima.entropy(p, alpha) + ((p - np.eye(classes)[labels]) * z).sum(1)
    expected = {
        "accuracy_micro": (p.argmax(1) == labels).mean(),
        "loss": losses.mean(),
        "nll": -np.log(of_label).mean() if of_label.all() else math.inf,
        "brier": references.brier(p, labels),
        "ece": references.expected_calibration_error(p, labels),
        "support_size": (p > 0).sum(1).mean(),
        "zeros": (p == 0).mean(),
        "label_in_support": (of_label > 0).mean(),
    }
    if classes > 5:
        expected["top_5_accuracy"] = top_k_accuracy_score(labels, z, k=5, labels=np.arange(classes))
    assert {n: found[n] for n in expected} == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found.keys() - expected.keys() == {"accuracy_macro"}
    train = tallied(training_metrics(classes, activation=activation), activation, scores, y, size)
    assert train == pytest.approx({f"train/{n}": found[n] for n in ("accuracy_micro", "loss")})


def test_zeros_are_ranked_by_their_scores():
    scores = torch.tensor([[90.0, *range(8, 0, -1)], [90.0, *range(1, 9)]])
    metrics = evaluation_metrics(9, prefix="", activation=Entmax(2.0))
    found = tallied(metrics, Entmax(2.0), scores, torch.tensor([4, 4]), 2)
    assert found["top_5_accuracy"] == 0.5  # the fourth of eight zeros, and the fifth
    assert found["nll"] == math.inf
    assert found["support_size"] == 1


def test_the_loss_of_softmax_is_the_nll():
    log_probs, y = torch.randn(50, 4).log_softmax(1), torch.randint(4, (50,))
    values = []
    for metric in (MeanFenchelYoungLoss(SOFTMAX), NegativeLogLikelihood()):
        metric.update(log_probs, y)
        values.append(float(metric.compute()))
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    names = evaluation_metrics(4, prefix="", activation=activation_of("softmax")).keys()
    assert {*names} == {"accuracy_micro", "accuracy_macro", "nll", "brier", "ece"}


class Seen(Metric):
    """A metric of a user's own, whose arguments have names of ours."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")
        self.seen = []

    def update(self, scores, target, **kwargs):
        self.seen.append((scores, target, kwargs))
        self.rows += len(target)

    def compute(self):
        return self.rows


class Own(SoftmaxRegression):
    """Its metrics are torchmetrics', wrapped ones and one of ours among them."""

    def configure_metrics(self, stage):
        return {
            "f1": MulticlassF1Score(7, average="macro"),
            "best": MinMaxMetric(MulticlassAccuracy(7)),
            "spread": BootStrapper(MulticlassAccuracy(7), num_bootstraps=2),
            "seen": Seen(),
            "loss": MeanFenchelYoungLoss(Entmax(2.0)),
        }


def test_metrics_of_one_s_own_get_log_probabilities():
    model = Own(5, 7, activation="sparsemax")
    x, y = torch.randn(30, 5) * 5, torch.randint(7, (30,))
    model.validation_step((x, y), 0)
    (seen,) = [m for m in model.modules() if isinstance(m, Seen) and m is not None][1:2]
    values = model.tallies["val"].compute()
    log_probs, target, kwargs = seen.seen[0]
    assert torch.equal(log_probs.exp(), model(x).exp())
    assert torch.equal(target, y)
    assert kwargs == {}
    p = sparse_optima.entmax(model.scores(x).detach().double().numpy(), 2)
    z, q = model.scores(x).detach().double().numpy(), np.eye(7)[y]
    loss = (sparse_optima.entropy(p, 2) + ((p - q) * z).sum(1)).mean()
    assert float(values["val/loss"]) == pytest.approx(loss, rel=1e-5)


def test_a_wrapper_that_draws_rows_anew_cannot_have_the_loss():
    wrapped = BootStrapper(MeanFenchelYoungLoss(Entmax(2.0)), num_bootstraps=2)
    tally = Tally(stage_metrics({"loss": wrapped}, "val"), 3, "rows", Entmax(2.0))
    tally.add(torch.randn(30, 3), torch.randint(3, (30,)))
    with pytest.raises(InputError, match="MeanFenchelYoungLoss expected the log-prob"):
        tally.flush()


def test_a_tally_goes_on_from_its_state():
    scores, y = torch.randn(40, 6) * 3, torch.randint(6, (40,))
    whole = evaluation_metrics(6, prefix="", activation=Entmax(1.5))
    expected = tallied(whole, Entmax(1.5), scores, y, 40)
    one, other = (
        Tally(evaluation_metrics(6, prefix="", activation=Entmax(1.5)), 6, "rows", Entmax(1.5))
        for _ in range(2)
    )
    one.add(scores[:10], y[:10])
    one.flush()
    one.add(scores[10:25], y[10:25])
    other.restore([one.state()])
    other.add(scores[25:], y[25:])
    found = {name: float(value) for name, value in other.compute().items()}
    assert found == pytest.approx(expected, rel=1e-6)
