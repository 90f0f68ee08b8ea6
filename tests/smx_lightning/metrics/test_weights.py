"""Weighted rows and distributions: against scikit-learn, repeated rows, and label by label."""

import math
import warnings
from functools import partial

import numpy as np
import pytest
import sparse_optima
import torch
import weighed
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import examples
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    brier_score_loss,
    log_loss,
    top_k_accuracy_score,
)
from sklearn.metrics import confusion_matrix as confusion_of
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX, Entmax, Normmax
from smx_lightning.metrics import (
    BrierScore,
    CalibrationError,
    MacroAccuracy,
    MeanFenchelYoungLoss,
    NegativeLogLikelihood,
    weights,
)

NEAR = {"rel": 2e-6, "abs": 1e-6}


def tallied(scores, y, c, *, size=None, threshold=None, activation=SOFTMAX):
    """Every metric of batches of a size; the scores of softmax are log-probabilities."""
    tally = weighed.tally_of(scores.shape[1], threshold, activation)
    size = size or len(y)
    cut = [None] * -(-len(y) // size) if c is None else c.split(size)
    for batch in zip(scores.split(size), y.split(size), cut, strict=True):
        tally.add(*batch)
        if size % 2:
            tally.flush()
    return weighed.values_of(tally)


def matrix(log_probs, y, c):
    tally = weighed.confusion_of(log_probs.shape[1])
    tally.add(log_probs, y, c)
    return weighed.values_of(tally)["confusion"]


@given(weighed.rows(), st.integers(1, 30), st.sampled_from([None, 0.2, 0.9]))
@settings(max_examples=examples(150))
def test_every_metric_is_the_mean_over_labels(drawn, size, threshold):
    scores, y, c = drawn
    log_probs = scores.log_softmax(1)
    threshold = threshold if scores.shape[1] == 2 else None
    probs = log_probs.exp().numpy()
    expected, confusion = weighed.judged(scores.numpy(), probs, y.numpy(), c.numpy(), threshold)
    found = tallied(log_probs, y, c, size=size, threshold=threshold)
    assert found == pytest.approx(expected, **NEAR)
    if threshold is None:
        assert matrix(log_probs, y, c) == pytest.approx(confusion, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("alpha", [1.3, 2.0, 3.0])
@given(drawn=weighed.rows(), size=st.integers(1, 30))
@settings(max_examples=examples(40))
def test_every_metric_of_sparse_members_is_too(alpha, drawn, size):
    scores, y, c = drawn
    probs = sparse_optima.entmax(scores.numpy(), alpha)
    conjugate = sparse_optima.entropy(probs, alpha) + (probs * scores.numpy()).sum(1)
    expected, _ = weighed.judged(scores.numpy(), probs, y.numpy(), c.numpy(), None, conjugate)
    found = tallied(scores, y, c, size=size, activation=Entmax(alpha))
    assert found == pytest.approx(expected, **NEAR)


@given(weighed.rows(soft=False))
@settings(max_examples=examples(100))
def test_weights_are_scikit_learn_s_sample_weight(drawn):
    scores, y, c = drawn
    log_probs = scores.log_softmax(1)
    found, probs = tallied(log_probs, y, c), log_probs.exp().numpy()
    truth, weight, labels = y.numpy(), c.numpy(), np.arange(scores.shape[1])
    decided, kept = probs.argmax(1), c.numpy() > 0  # its matrix would have classes of no weight
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        warnings.filterwarnings("ignore", "A single label was found")
        expected = {
            "accuracy_micro": accuracy_score(truth, decided, sample_weight=weight),
            "accuracy_macro": balanced_accuracy_score(
                truth[kept], decided[kept], sample_weight=weight[kept]
            ),
            "brier": brier_score_loss(
                truth, probs, sample_weight=weight, labels=labels, scale_by_half=False
            ),
        }
    if len(labels) > 5:
        expected["top_5_accuracy"] = top_k_accuracy_score(
            truth, scores.numpy(), k=5, labels=labels, sample_weight=weight
        )
    if probs.min() > 1e-15:  # it clips others
        expected["nll"] = log_loss(truth, probs, sample_weight=weight, labels=labels)
    assert {name: found[name] for name in expected} == pytest.approx(expected, **NEAR)
    judged = confusion_of(truth, decided, labels=labels, sample_weight=weight)
    assert matrix(log_probs, y, c) == pytest.approx(judged, rel=1e-12, abs=1e-12)


@given(weighed.rows(whole=True))
@settings(max_examples=examples(60))
def test_integer_weights_are_repeated_rows(drawn):
    """Counts to the bit; sums of scores to float32, in which rows without weights are added up."""
    scores, y, c = drawn
    log_probs = scores.log_softmax(1)
    repeats = c.ceil().long()
    again = [part.repeat_interleave(repeats, 0) for part in (log_probs, y)]
    found, expected = tallied(log_probs, y, repeats), tallied(*again, None)
    assert found == pytest.approx(expected, **NEAR)
    if y.ndim == 1:
        assert np.array_equal(matrix(log_probs, y, repeats), matrix(*again, None))
        for name in ("accuracy_micro", "accuracy_macro"):
            assert found[name] == pytest.approx(expected[name], rel=3e-7)
    macro = partial(MacroAccuracy, scores.shape[1])
    for kind in (NegativeLogLikelihood, BrierScore, CalibrationError, macro):
        one, other = kind(), kind()
        one.update(log_probs, y, repeats)
        other.update(*again, torch.ones(len(again[1])))
        torch.testing.assert_close(one.sums, other.sums, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", [SOFTMAX, Entmax(1.5), Normmax(2.0)])
@given(drawn=weighed.rows(soft=True))
@settings(max_examples=examples(30))
def test_a_soft_row_is_as_many_rows_as_there_are_classes(activation, drawn):
    scores, q, c = drawn
    scores, classes = scores.log_softmax(1), scores.shape[1]
    labels = torch.arange(classes).repeat(len(q))
    apart = (scores.repeat_interleave(classes, 0), labels, (c[:, None] * q).flatten())
    found, expected = (tallied(*rows, activation=activation) for rows in ((scores, q, c), apart))
    assert found == pytest.approx(expected, **NEAR)
    assert matrix(scores, q, c) == pytest.approx(matrix(*apart), rel=1e-12, abs=1e-12)


@given(weighed.rows(soft=False))
@settings(max_examples=examples(40))
def test_a_one_hot_distribution_is_a_label(drawn):
    scores, y, c = drawn
    log_probs = scores.log_softmax(1)
    one_hot = torch.eye(scores.shape[1])[y]
    assert tallied(log_probs, one_hot, c) == pytest.approx(tallied(log_probs, y, c), **NEAR)
    assert tallied(log_probs, one_hot, None) == pytest.approx(tallied(log_probs, y, None), **NEAR)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("classes", [2, 10, 5000])
def test_distributions_may_be_rounded(dtype, classes):
    """As those of a Trainer's precision bf16-true are."""
    scores = torch.randn(50, classes)
    q = torch.softmax(torch.randn(50, classes), 1)
    log_probs, c = scores.log_softmax(1), torch.rand(50)
    found, expected = tallied(log_probs, q.to(dtype), c), tallied(log_probs, q, c)
    assert found == pytest.approx(expected, rel=1e-2, abs=1e-3)


@given(weighed.rows(soft=True))
@settings(max_examples=examples(30))
def test_scores_are_least_at_the_distribution_itself(drawn):
    """Where its own entropy, or its Gini index, is left."""
    scores, q, c = drawn
    share = c / c.sum()
    least = (torch.special.entr(q).sum(1) @ share, (1 - q.square().sum(1)) @ share)
    for metric, left in zip((NegativeLogLikelihood(), BrierScore()), least, strict=True):
        metric.update(q.log(), q, c)
        assert float(metric.compute()) == pytest.approx(float(left), rel=1e-6, abs=1e-7)
        metric.reset()
        metric.update(scores.log_softmax(1), q, c)
        assert float(metric.compute()) >= float(left) - 1e-7  # equal where float32 tells no more


def test_the_loss_of_softmax_is_the_cross_entropy():
    log_probs = torch.randn(50, 4).log_softmax(1)
    q = torch.tensor(weighed.distributions(np.random.default_rng(0), 50, 4))
    metric = MeanFenchelYoungLoss(SOFTMAX)
    metric.update(log_probs, q)
    assert float(metric.compute()) == pytest.approx(float(cross_entropy(log_probs.double(), q)))


@pytest.mark.parametrize("weighs", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_of_weight_0_counts_for_nothing(bad, weighs):
    log_probs, y = torch.randn(9, 7).log_softmax(1), torch.randint(7, (9,))
    c = torch.tensor([1, 0, 1] * 3).to(weighs)
    spoilt = torch.where(c[:, None] > 0, log_probs, bad)
    kept = c > 0
    expected = tallied(log_probs[kept], y[kept], None)
    assert tallied(spoilt, y, c) == pytest.approx(expected, rel=1e-6)
    for metric in (NegativeLogLikelihood(), BrierScore(), CalibrationError(), MacroAccuracy(7)):
        metric.update(spoilt, y, c)
        found = float(metric.compute())
        metric.reset()
        metric.update(log_probs[kept], y[kept])
        assert found == pytest.approx(float(metric.compute()), rel=1e-6)


def test_a_label_of_probability_0_on_both_sides_costs_nothing():
    log_probs = torch.tensor([[0.5, 0.5, 0.0]]).log()
    metric = NegativeLogLikelihood()
    metric.update(log_probs, torch.tensor([[0.25, 0.75, 0.0]]))
    assert float(metric.compute()) == pytest.approx(math.log(2))
    metric.update(log_probs, torch.tensor([[0.25, 0.5, 0.25]]))
    assert float(metric.compute()) == math.inf


@pytest.mark.parametrize("soft", [False, True])
def test_where_all_rows_weigh_nothing_there_is_no_number(soft):
    y = torch.full((4, 7), 1 / 7) if soft else torch.arange(4)
    found = tallied(torch.randn(4, 7).log_softmax(1), y, torch.zeros(4))
    assert {*found} == {*tallied(torch.randn(4, 7).log_softmax(1), y, None)}
    assert all(math.isnan(value) for value in found.values())
    assert not matrix(torch.randn(4, 7), y, torch.zeros(4)).any()


def test_integer_weights_are_counted_exactly():
    """Beyond what float32 and float16 could tell apart."""
    log_probs = torch.tensor([[0.0, -1.0], [-1.0, 0.0]]).log_softmax(1)
    large = torch.tensor([2**52, 2**52 - 1])
    assert matrix(log_probs, torch.tensor([0, 0]), large).tolist() == [[2**52, 2**52 - 1], [0, 0]]
    tally = weighed.confusion_of(2)
    for _ in range(3):
        tally.add(log_probs, torch.tensor([0, 1]), torch.tensor([2**24 + 1, 1], dtype=torch.int32))
    assert weighed.values_of(tally)["confusion"].tolist() == [[3 * (2**24 + 1), 0], [0, 3]]


def test_counts_stay_integers_where_no_row_weighs():
    log_probs, y = torch.randn(9, 7).log_softmax(1), torch.randint(7, (9,))
    counts = matrix(log_probs, y, None)
    assert counts.dtype == np.int64
    assert matrix(log_probs, y, torch.ones(9)).dtype == np.float64
    assert np.array_equal(counts, matrix(log_probs, y, torch.ones(9)))


@pytest.mark.parametrize("convert", [torch.nn.Module.half, torch.nn.Module.double])
@pytest.mark.parametrize("to", [None, torch.float16, torch.bfloat16, torch.float64])
def test_sums_of_weights_keep_their_digits_in_models_of_any_dtype(convert, to):
    module = torch.nn.ModuleList([NegativeLogLikelihood()])
    module = convert(module) if to is None else module.to(to)
    (metric,), c = module, torch.tensor([2**30 + 1], dtype=torch.float64)
    for _ in range(3):
        metric.update(torch.zeros(1, 2), torch.tensor([1]), c)
    assert metric.sums[1] == 3 * (2**30 + 1)
    metric.reset()
    assert metric.sums.dtype == torch.float64


def test_on_a_device_without_float64_sums_are_float32(monkeypatch):
    monkeypatch.setattr(weights, "widest", lambda device: torch.float32)
    metric = NegativeLogLikelihood().to("cpu")
    metric.update(torch.zeros(1, 2), torch.tensor([1]), torch.tensor([2.0]))
    assert metric.sums.dtype == torch.float32
    monkeypatch.undo()
    assert metric.cpu().sums.dtype == torch.float64


def test_a_model_made_without_memory_counts_once_it_has_some():
    with torch.device("meta"):
        module = torch.nn.ModuleList([NegativeLogLikelihood(), MacroAccuracy(2)])
    for metric in module.to_empty(device="cpu"):
        metric.reset()
        metric.update(torch.zeros(1, 2), torch.tensor([0]), torch.tensor([2.0]))
        assert metric.sums.tolist() in ([0.0, 2.0], [[2.0, 0.0], [2.0, 0.0]])


@pytest.mark.parametrize("soft", [False, True])
def test_many_classes(soft):
    """Of which no matrix of one-hot rows is made where there are labels."""
    rng = np.random.default_rng(0)
    log_probs = torch.tensor(rng.standard_normal((40, 5000))).log_softmax(1)
    y = rng.integers(5000, size=40)
    y[::2] = log_probs.argmax(1)[::2]
    y = torch.tensor(weighed.distributions(rng, 40, 5000) if soft else y)
    c = torch.tensor(rng.random(40))
    found = tallied(log_probs, y, c)
    q = y.numpy() if soft else np.eye(5000)[y]
    share, p = c.numpy() / c.numpy().sum(), log_probs.exp().numpy()
    decided = p.argmax(1)
    rows, right = share @ q, np.zeros(5000)
    np.add.at(right, decided, share * q[np.arange(40), decided])
    expected = {
        "nll": -(share @ (q * log_probs.numpy()).sum(1)),
        "brier": share @ ((p**2).sum(1) - 2 * (p * q).sum(1) + 1),
        "accuracy_micro": right.sum(),
        "accuracy_macro": (right[rows > 0] / rows[rows > 0]).mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("wrong", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("metric", [NegativeLogLikelihood, CalibrationError])
def test_other_weights_are_refused(metric, wrong):
    with pytest.raises(InputError, match="expected row weights that are finite and not below 0"):
        metric().update(torch.zeros(2, 3), torch.tensor([0, 1]), torch.tensor([1.0, wrong]))
    with pytest.raises(
        InputError, match=r"expected 2 row weights, got shape \(2, 1\); give one each"
    ):
        metric().update(torch.zeros(2, 3), torch.tensor([0, 1]), torch.ones(2, 1))
    with pytest.raises(InputError, match="got targets below 0 or rows that do not sum to 1"):
        metric().update(torch.zeros(2, 3), torch.full((2, 3), 0.5))


@pytest.mark.parametrize("activation", ["softmax", "sparsemax"])
@pytest.mark.parametrize("soft", [False, True])
def test_a_trainer_s_metrics_are_those_of_repeated_rows(quiet_trainer, activation, soft):
    rng = np.random.default_rng(1)
    x, c = torch.randn(60, 4), torch.tensor(rng.integers(4, size=60))
    model = SoftmaxRegression(4, 6, activation=activation)
    if soft:  # of votes, so that there is a number of rows of each label
        votes = torch.tensor(rng.multinomial(8, [1 / 6] * 6, size=60))
        y, repeats = votes / 8, (c[:, None] * votes).flatten()
        rows = x.repeat_interleave(6, 0), torch.arange(6).repeat(60)
    else:
        y, repeats = torch.tensor(rng.integers(6, size=60)), c
        rows = x, y
    again = [part.repeat_interleave(repeats, 0) for part in rows]
    logged, confusion = [], []
    for data in ((x, y, c.float()), again):
        loader = DataLoader(TensorDataset(*data), batch_size=7)
        logged += quiet_trainer().test(model, loader, verbose=False)
        confusion.append(model.confusion_matrix)
    assert logged[0] == pytest.approx(logged[1], rel=1e-6, abs=1e-6)
    assert torch.equal(confusion[0] * (8 if soft else 1), confusion[1].double())
