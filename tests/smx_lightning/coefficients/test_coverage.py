"""How often the intervals hold the truth, in simulated sets: what standard errors promise."""

import numpy as np
import pytest
from at_optimum import at_optimum, drawn
from sampled import sampled

WEIGHT = np.array([[0.0, 0.0], [0.8, -0.4], [-0.3, 0.6]])
BIAS = np.array([0.0, 0.3, -0.2])
TRUTH = np.concatenate([BIAS[:, None], WEIGHT], 1)


def covered(sets, rows, *, level=0.95, reference="0", **asked):
    """Which intervals hold the truth, (sets, classes, 1 + features), and the estimates' z from it.

    The features are those of one draw: the errors are of the labels, given the features.
    """
    x = np.random.default_rng(0).normal(size=(rows, 2)) * [1, 3] + [0, 5]
    weight = WEIGHT / [1, 3]
    bias = BIAS - weight @ [0, 5]
    truth = np.concatenate([bias[:, None], weight], 1)
    truth = truth[1:] - truth[0] if reference == "0" else truth - truth.mean(0)
    inside, off = [], []
    for seed in range(sets):
        y = drawn(x, weight, bias, seed)
        model, batches = at_optimum(x, y, 3, preprocessing="standardize", tol=1e-9)
        own = model.coefficients(batches, reference=reference, level=level, **asked).own
        inside.append((own.low <= truth) & (truth <= own.high))
        off.append((own.estimate - truth) / own.std_error)
    return np.array(inside), np.array(off)


@pytest.mark.parametrize(
    ("sets", "level", "reference", "errors"),
    sampled(
        [
            (100, 0.95, "0", "model"),
            (2000, 0.95, "0", "model"),
            (2000, 0.8, None, "model"),
            (2000, 0.95, None, "robust"),
        ],
        every=4,
    ),
)
def test_intervals_hold_the_truth_as_often_as_they_say(sets, level, reference, errors):
    inside, off = covered(sets, 400, level=level, reference=reference, errors=errors)
    deviation = np.sqrt(level * (1 - level) / sets)
    # Of each coefficient within four of its own deviations, and .01 for what is not normal yet.
    assert np.abs(inside.mean(0) - level).max() < 4 * deviation + 0.01
    assert np.abs(off.std(0) - 1).max() < 4 / np.sqrt(2 * sets) + 0.02


def test_intervals_of_a_strong_penalty_do_not():
    """They are of the shrunken estimate: what docs/coefficients.md warns of."""
    x = np.random.default_rng(0).normal(size=(400, 2))
    inside = []
    for seed in range(60):
        model, batches = at_optimum(x, drawn(x, WEIGHT, BIAS, seed), 3, l2=0.1, tol=1e-9)
        own = model.coefficients(batches, reference="0").own
        truth = TRUTH[1:] - TRUTH[0]
        inside.append((own.low <= truth) & (truth <= own.high))
    assert np.mean(inside, 0)[0, 1] < 0.5  # of the largest coefficient, .8


@pytest.mark.whole
@pytest.mark.parametrize(("errors", "most"), [("robust", 0.1), ("model", 0.2)])
def test_errors_of_a_penalised_estimate_are_its_spread(errors, most):
    """The model's are a little too large: they take the shrunken probabilities for true."""
    x = np.random.default_rng(0).normal(size=(400, 2))
    found, told = [], []
    for seed in range(600):
        model, batches = at_optimum(x, drawn(x, WEIGHT, BIAS, seed), 3, l2=0.05, tol=1e-9)
        own = model.coefficients(batches, errors=errors).own
        found.append(own.estimate)
        told.append(own.std_error)
    np.testing.assert_allclose(np.mean(told, 0), np.std(found, 0), rtol=most)
