"""The bounds of rounding: against their formulas in fractions and loops, and real float32 sums."""

import math
from fractions import Fraction

import numpy as np
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st

from smx_export.artifact.comparison import Expected, compare, log_softmax
from smx_export.artifact.tolerance import answer_tolerance, entmax_tolerance, gamma, logit_error

U = 2.0**-24


@pytest.mark.parametrize("n", [0, 1, 3, 2**10, 2**23, 2**24 - 1, 2**24, 2**25])
def test_gamma_is_higham_s_bound(n):
    """n·u / (1 − n·u) with u = 2⁻²⁴, in fractions; no bound where n·u reaches 1."""
    u = Fraction(1, 2**24)
    exact = n * u / (1 - n * u) if n * u < 1 else math.inf
    assert gamma(n) == pytest.approx(float(exact), rel=1e-12)
    np.testing.assert_array_equal(gamma(np.array([n, 1.0])), [gamma(n), gamma(1)])


def test_logits_are_off_by_roundings_times_the_sizes_of_their_terms():
    rng = np.random.default_rng(0)
    x, weight, bias = rng.normal(size=(4, 3)), rng.normal(size=(2, 3)), rng.normal(size=2)
    roundings = np.array([[3.0], [4.0], [5.0], [6.0]])
    for i in range(4):
        for k in range(2):
            size = math.fsum(abs(w * v) for w, v in zip(weight[k], x[i], strict=True)) + abs(
                bias[k]
            )
            bound = roundings[i, 0] * U / (1 - roundings[i, 0] * U) * size
            assert logit_error(roundings, x, weight, bias)[i, k] == pytest.approx(bound, rel=1e-12)


def test_answers_are_off_by_two_logits_and_their_own_rounding():
    rng = np.random.default_rng(1)
    logits = 30 * rng.normal(size=(5, 7))
    e = rng.uniform(size=(5, 7)) * np.array([[1e-6], [1e-5], [0.0], [1e-7], [1e-4]])
    log_probs = log_softmax(logits)
    found = answer_tolerance(e, logits, log_probs)
    for i in range(5):
        for k in range(7):
            size = max(map(abs, logits[i])) + abs(log_probs[i, k])
            own = 4 * U * size + 15 * U / (1 - 15 * U)  # γ of 7 exponentials and 8 more
            assert found[i, k] == pytest.approx(e[i, k] + max(e[i]) + own, rel=1e-12)


@given(
    st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 9), st.sampled_from([1e-3, 1, 30])
)
def test_no_float32_answer_is_further_off(seed, features, classes, size):
    rng = np.random.default_rng(seed)
    x, weight, bias = (
        (size * rng.normal(size=shape)).astype(np.float32)
        for shape in ((6, features), (classes, features), (classes,))
    )
    exact = x.astype(float) @ weight.astype(float).T + bias.astype(float)
    log_probs = log_softmax(exact)
    e = logit_error(features + 3, *(array.astype(float) for array in (x, weight, bias)))
    logits = x @ weight.T + bias
    assert (np.abs(logits - exact) <= e).all()
    shifted = logits - logits.max(1, keepdims=True)
    answers = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    assert answers.dtype == np.float32
    assert (np.abs(answers - log_probs) <= answer_tolerance(e, exact, log_probs)).all()


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 30),
    st.sampled_from([1.05, 1.3, 1.5, 2.0]),
    st.sampled_from([1e-7, 1e-4, 1e-2]),
)
def test_no_probability_moves_further_than_logits_let_it(seed, classes, alpha, size):
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(20, classes)) * rng.choice([0.1, 1, 5], size=(20, 1))
    scores[::4] = np.round(scores[::4])
    e = size * rng.uniform(0, 1, scores.shape)
    right = references.entmax(scores, alpha)
    allowed = entmax_tolerance(e, right ** (alpha - 1), alpha)
    for sign in (rng.uniform(-1, 1, e.shape), np.sign(rng.normal(size=e.shape))):
        moved = references.entmax(scores + e * sign, alpha)
        assert (np.abs(moved - right) <= allowed).all()
    assert (allowed[right > 0.1] <= 4 * e.max() + 2e-5 / (alpha - 1)).all()


def test_a_class_may_be_ruled_out_on_one_side_as_far_as_the_tolerance_goes():
    with np.errstate(divide="ignore"):
        truth = np.log(np.array([[0.7, 0.3 - 1e-7, 1e-7, 0.0]]))
    tolerance = np.full((1, 4), 2e-7)
    expected = Expected(truth, tolerance, tolerance, sparse=True)
    inf = np.float32(np.inf)

    def right(*log_probs):
        return compare(expected, {"log_probs": np.array([log_probs], np.float32)}).right

    known = np.log([0.7, 0.3]).astype(np.float32)
    assert right(*known, -inf, -inf)
    assert right(*known, np.log(1e-7), -inf)
    assert right(*known, -inf, np.log(1e-7))
    assert not right(*known, -inf, np.log(3e-7))
    assert not right(*known, np.log(4e-7), -inf)
    assert not right(known[0], -inf, np.log(1e-7), -inf)
    assert not right(*known, inf, -inf)
    assert not right(*known, np.nan, -inf)
