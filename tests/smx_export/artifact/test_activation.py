"""α-entmax in numpy, as the exporter's float64 answers and OnnxClassifier have it."""

import numpy as np
import pytest
import references
from hypothesis import given
from hypothesis import strategies as st

from smx_export import FileError
from smx_export.artifact.activation import alpha_of, difference, distances, probabilities
from smx_lightning.activations import activation_of

SPECS = ["softmax", "entmax15", "sparsemax", {"alpha": 1.3}, {"alpha": 1.05}, {"alpha": 2}]


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from([1.05, 1.3, 1.5, 1.9, 2.0]),
    st.sampled_from([1, 2, 3, 10, 100]),
    st.sampled_from([0.01, 1, 30, 1e6]),
    st.booleans(),
)
def test_probabilities_are_those_of_a_threshold_that_is_bisected(seed, alpha, k, size, tied):
    rng = np.random.default_rng(seed)
    scores = size * rng.standard_normal((20, k))
    scores = np.round(scores / size) * size if tied else scores
    right = references.entmax(scores, alpha)
    found = probabilities(scores, alpha)
    np.testing.assert_allclose(found, right, rtol=0, atol=1e-9 if size < 1e6 else 1e-6)
    assert ((found > 1e-12) == (right > 1e-12)).all()
    np.testing.assert_allclose(distances(scores, alpha) ** (1 / (alpha - 1)), found, atol=1e-15)


@pytest.mark.parametrize("spec", SPECS)
def test_a_difference_of_two_scores_is_the_one_at_which_the_threshold_is_met(spec):
    alpha = alpha_of(spec)
    for threshold in (1e-6, 0.2, 0.5, 0.7, 0.999):
        apart = difference(threshold, alpha)
        assert apart == pytest.approx(activation_of(spec).difference(threshold), abs=1e-12)
        p = probabilities(np.array([[0, apart]]), alpha)[0, 1]
        assert p == pytest.approx(threshold, rel=1e-9)


@pytest.mark.parametrize("spec", SPECS)
def test_names_are_those_of_the_model(spec):
    assert alpha_of(spec) == activation_of(spec).alpha
    assert alpha_of(activation_of(spec).spec) == alpha_of(spec)


@pytest.mark.parametrize(
    "spec", ["hardmax", "", None, 1.5, {"alpha": 0.9}, {"alpha": float("inf")}, {"alpha": "2"},
             {"alpha": True}, {"alpha": 1.5, "beta": 1}, {}, ["sparsemax"]],
)  # fmt: skip
def test_what_is_no_activation_is_refused(spec):
    with pytest.raises(FileError, match="expected an activation out of softmax, entmax15"):
        alpha_of(spec)


@pytest.mark.parametrize("alpha", [1.3, 1.5, 2.0])
def test_rows_without_a_largest_number_have_no_answer(alpha):
    inf, nan = np.inf, np.nan
    rows = [[nan, 0, 1], [inf, 0, 1], [inf, inf, 0], [-inf] * 3, [-inf, 0, 0], [3e38, -3e38, 0]]
    found = probabilities(np.array(rows, np.float64), alpha)
    assert np.isnan(found[:4]).all()
    np.testing.assert_allclose(found[4:], [[0, 0.5, 0.5], [1, 0, 0]], atol=1e-15)
