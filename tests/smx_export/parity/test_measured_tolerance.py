"""How far a file may be from a model whose rounding is measured: on errors that are known."""

import numpy as np
import pytest
import torch

from smx_export.graph.detached import detached_copy
from smx_export.parity.reference import MeasuredReference
from smx_lightning import SoftmaxRegression

D, K = 8, 3


class Off(SoftmaxRegression):
    """Its float32 answers are too far from zero, by a known share of themselves."""

    share = 0.0

    def head(self, features):
        log_probs = super().head(features)
        return log_probs * (1 + self.share) if features.dtype == torch.float32 else log_probs


def expected_of(share):
    """The reference's answers to rows from flat to steep, and the size of each row's answer."""
    torch.manual_seed(0)
    model = Off(D, K)
    model.share = share
    with torch.no_grad():
        model.linear.weight.normal_()
    x = np.random.default_rng(0).standard_normal((64, D)).astype(np.float32)
    x *= np.geomspace(0.01, 10, 64, dtype=np.float32)[:, None]
    expected = MeasuredReference(detached_copy(model)).expected(x)
    largest = np.abs(expected.log_probs).max(1)
    return expected, largest, 1 + largest


def test_a_file_may_err_sixteen_times_as_much_as_the_live_model_was_seen_to():
    """The factor that docs and docstrings name."""
    share = 1e-6
    expected, largest, size = expected_of(share)
    assert expected.comparable.all()
    # Beside it lie the head's own bound, some 20 u, and the rounding of the live model itself.
    measured = 16 * share * (largest / size).max() * size[:, None]
    rounding = (16 + 32) * 2.0**-24 * size[:, None]
    assert (expected.tolerance >= measured - rounding).all()
    assert (expected.tolerance <= measured + rounding).all()
    assert (expected.live_tolerance <= expected.tolerance).all()


@pytest.mark.parametrize("times", [0.5, 1.2, 1.6])
def test_what_loses_more_than_half_of_float32_s_digits_is_not_taken_for_rounding(times):
    """√u = 2⁻¹² of a row's size, u = 2⁻²⁴; what is less is allowed sixteenfold and no more."""
    expected, largest, size = expected_of(times * 2.0**-12)
    error = times * largest / size  # of √u
    lost, clear = error > 1, abs(error - 1) > 0.01  # the head's own bound is added to the limit
    assert lost.any() == (times > 1)
    assert not lost.all()
    np.testing.assert_array_equal(expected.comparable[clear], ~lost[clear])
    judged = expected.comparable
    ratio = expected.tolerance[judged] / size[judged, None]
    np.testing.assert_allclose(ratio, 16 * 2.0**-12 * min(error[judged].max(), 1), rtol=0.01)


class Sines(SoftmaxRegression):
    """Of numbers so large that float32 has no digits left of the angle."""

    def features(self, x):
        return torch.sin(1e7 * x.flatten(1))


def test_a_row_that_was_lucky_among_others_of_its_kind_is_not_judged():
    """Of 4000 answers of two classes some agree by chance; float32 knows none of them."""
    torch.manual_seed(0)
    model = Sines(1, 2)
    with torch.no_grad():
        model.linear.weight.normal_()
    x = (1 + np.random.default_rng(0).random((4000, 1))).astype(np.float32)
    reference = MeasuredReference(detached_copy(model))
    expected = reference.expected(x)
    live = reference.live(torch.from_numpy(x)).detach().double().numpy()
    agree = (np.abs(live - expected.log_probs) < 2.0**-13).all(1)
    assert agree.any()
    assert not agree.all()
    assert not expected.comparable[agree].any()
