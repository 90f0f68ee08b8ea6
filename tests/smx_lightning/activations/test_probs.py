"""The maps: on the simplex, equal to slow ones in float64, whatever the scores."""

import math
from fractions import Fraction

import entmax as peer
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from simplex import entmax as slow_entmax
from simplex import rows
from simplex import sparsemax as slow_sparsemax

from smx_lightning import InputError
from smx_lightning.activations import (
    SOFTMAX,
    Entmax,
    Normmax,
    activation_of,
    entmax,
    entmax15,
    hardmax,
    log_softmax,
    normmax,
    softmax,
    sparsemax,
)
from smx_lightning.activations.threshold import BLOCK, newton_steps

ALPHAS = (1.0, 1.001, 1.3, 1.5, 1.9, 2.0, 2.5, 4.0)
MEMBERS = (*map(Entmax, ALPHAS), Normmax(2.0), Normmax(1.2))
SOME = 1e-6  # what float32 leaves of probabilities
SCORES = arrays.arrays(
    np.float64,
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=12),
    elements=st.one_of(
        st.floats(-5, 5),
        st.sampled_from([0.0, 1.0, -1e30, 1e30, -math.inf]),
        st.floats(-1e-6, 1e-6),
    ),
)


def some_scores(classes, count=6):
    """Rows of every kind: spread out, near, equal, in powers of two, with ties."""
    rng = np.random.default_rng(0)
    kinds = [scale * rng.normal(size=(count, classes)) for scale in (1e-3, 0.3, 3.0, 1e4)]
    powers = np.exp2(-np.minimum(np.arange(classes), 40.0))
    kinds += [np.where(np.arange(classes), -ahead, 0.0)[None] for ahead in (0.5, 0.9, 0.999, 1.5)]
    kinds += [np.zeros((1, classes)), powers[None], -powers[None], np.round(kinds[2])]
    kinds += [-np.cumsum(powers)[None] * scale for scale in (0.5, 1.0, 3.0)]
    return np.concatenate(kinds)


@pytest.mark.parametrize("classes", [1, 2, 10, 65, 257])
@pytest.mark.parametrize("alpha", [a for a in ALPHAS if a <= 2])
def test_it_is_the_slow_one(alpha, classes):
    scores = some_scores(classes)
    expected = rows(slow_entmax, scores, alpha)
    if alpha == 2:
        assert np.allclose(expected, rows(slow_sparsemax, scores), atol=1e-12)
    together = torch.tensor(scores)
    for found in (
        entmax(together, alpha),
        entmax(together, torch.tensor(alpha, dtype=torch.float64)),
    ):
        assert np.abs(found.numpy() - expected).max() < 1e-12
    for rounded in (
        together.float(),
        together[28:29].float(),
        together.half(),
        together.bfloat16(),
    ):
        judged = rows(slow_entmax, rounded.double().numpy(), alpha)
        p = entmax(rounded, alpha)
        assert p.dtype == rounded.dtype
        digits = {torch.float32: SOME, torch.float16: 5e-4, torch.bfloat16: 4e-3}[rounded.dtype]
        assert np.abs(p.double().numpy() - judged).max() < digits


@pytest.mark.parametrize("alpha", [2.5, 4.0, 10.0])
def test_above_two_it_is_the_slow_one_but_at_the_edge_of_the_support(alpha):
    """There a rounding of the scores is one of p^(α-1): the conditions of optimality are held."""
    scores = torch.tensor(some_scores(30))
    for given_scores, digits in ((scores, 1e-13), (scores.float(), 1e-5)):
        p = entmax(given_scores, alpha)
        assert torch.allclose(p.sum(-1), torch.ones_like(p[:, 0]))
        shifted = (alpha - 1) * (given_scores - given_scores.amax(-1, keepdim=True))
        gaps = shifted - p.pow(alpha - 1)
        inside = p > 0
        highest = torch.where(inside, gaps, -math.inf).amax(-1)
        lowest = torch.where(inside, gaps, math.inf).amin(-1)
        assert (highest - lowest).max() < digits  # τ, the same for all of the support
        outside = torch.where(inside, -math.inf, shifted).amax(-1)
        assert (outside - lowest).max() < digits


@settings(max_examples=60, deadline=None)
@given(SCORES, st.sampled_from(MEMBERS), st.floats(-3, 3))
def test_it_lies_on_the_simplex_in_the_order_of_the_scores(scores, member, shift):
    scores = torch.tensor(scores)
    p = member.probs(scores)
    refused = scores.amax(-1) == -math.inf
    assert p[refused].isnan().all()
    p, scores = p[~refused], scores[~refused]
    assert (p >= 0).all()
    assert torch.allclose(p.sum(-1), torch.ones_like(p[:, 0]))
    assert (p[scores == -math.inf] == 0).all()
    order = scores.argsort(dim=-1, stable=True)
    assert (p.gather(-1, order).diff(dim=-1) >= -1e-12).all()
    if member.alpha <= 2 and isinstance(member, Entmax):
        moved = member.probs(scores + shift)
        near = (scores.abs() < 10).all(-1)
        assert torch.allclose(moved[near], p[near], atol=1e-9)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_any_dimension_is_the_last_one(member):
    torch.manual_seed(0)
    scores = torch.randn(4, 5, 6, 3, dtype=torch.float64)
    for dim in range(-4, 4):
        last = member.probs(scores.movedim(dim, -1))
        assert torch.allclose(member.probs(scores, dim).movedim(dim, -1), last, atol=1e-12)
        assert torch.allclose(
            member.entropy(scores.softmax(dim), dim),
            member.entropy(scores.movedim(dim, -1).softmax(-1)),
        )
    one = member.probs(torch.tensor([3.0, 1.0]))
    assert torch.allclose(member.probs(torch.tensor([[3.0], [1.0]]), 0)[:, 0], one)


@pytest.mark.parametrize("shape", [(300, 1000), (2, BLOCK), (1000, 300), (40, 50, 60), (3, 7)])
@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_blocks_and_sorted_ones_are_the_whole(alpha, shape):
    torch.manual_seed(0)
    scores = torch.randn(shape, dtype=torch.float64)
    judged = peer.sparsemax if alpha == 2 else peer.entmax15
    for dim in range(len(shape)):
        moved = scores.movedim(dim, -1).flatten(0, -2)
        found = entmax(scores, alpha, dim).movedim(dim, -1).flatten(0, -2)
        assert torch.allclose(found, judged(moved, -1), atol=1e-10)


@pytest.mark.parametrize("power", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("classes", [2, 5, 40, 1000])
def test_the_number_of_steps_is_enough_whatever_the_scores(classes, power):
    """Newton's method in float64 itself, on rows made to take long and on random ones."""
    eps = 2.0**-23
    powers = np.arange(classes) / max(1, classes - 1)
    hard = [
        -(1 - np.exp2(-rate * powers)) / (1 - 2.0**-rate) / power * end
        for rate in (1, 4, 10, 20, 30)
        for end in (0.5, 0.9, 0.999, 1.0)
    ]
    hard += [np.minimum(0, -1 / power + np.exp2(-rate * powers)) for rate in (5, 10, 20)]
    rows_ = np.concatenate([some_scores(classes), hard])
    z = power * (rows_ - rows_.max(1, keepdims=True))
    tau = np.full((len(z), 1), -1.0)
    for _ in range(newton_steps(classes, power, eps)):
        x = np.maximum(z - tau, 0)
        total = (x ** (1 / power)).sum(1, keepdims=True)
        slope = np.where(x > 0, np.where(x > 0, x, 1) ** (1 / power - 1), 0).sum(1, keepdims=True)
        tau = tau + (total - total ** (1 - power)) / slope
        assert ((np.maximum(z - tau, 0) ** (1 / power)).sum(1) > 1 - 1e-9).all()  # from below
    assert ((np.maximum(z - tau, 0) ** (1 / power)).sum(1) <= 1 + eps + 1e-12).all()


def test_the_number_of_steps_follows_the_bound():
    for classes in (2, 10, 1000, 10**6):
        for power in (0.01, 0.5, 0.9, 1.0):
            start = math.expm1(power * math.log(classes)) / power * classes**power
            by_four = math.ceil(math.log2(start * 2**23) / 2)
            assert 1 <= newton_steps(classes, power, 2.0**-23) <= by_four + 1


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_what_has_no_answer_is_nan_as_of_softmax(member):
    for row in ([math.nan, 1.0], [math.inf, 1.0], [-math.inf, -math.inf], [math.inf, -math.inf]):
        for scores in (
            torch.tensor([row, [1.0, 0.0]]),
            torch.tensor([row * 4096, [1.0, 0.0] * 4096]),
        ):
            p = member.probs(scores)
            assert p[0].isnan().all()
            assert not p[1].isnan().any()


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_scores_as_large_as_they_come(member):
    for dtype, most in ((torch.float32, 3e38), (torch.float64, 1e308), (torch.float16, 6e4)):
        scores = torch.tensor([[most, -most, 0.0], [-most, -most, -most]], dtype=dtype)
        p = member.probs(scores)
        assert p[0].tolist() == [1, 0, 0]
        assert torch.allclose(p[1], torch.full_like(p[1], 1 / 3))
        assert member.log_probs(scores)[0].tolist()[0] == 0


def test_towards_one_alpha_entmax_becomes_softmax():
    scores = torch.randn(50, 20, generator=torch.Generator().manual_seed(0)) * 3
    for alpha in (1 + 1e-3, 1 + 1e-5, 1 + 1e-7, 1 + 1e-12):
        for member in (alpha, torch.tensor(alpha)):
            gap = (entmax(scores, member) - scores.softmax(-1)).abs().max()
            assert gap < 2 * (alpha - 1) + SOME
        q = scores.softmax(-1)
        assert torch.allclose(
            Entmax(alpha).entropy(q), SOFTMAX.entropy(q), rtol=5 * (alpha - 1) + 1e-5
        )


@pytest.mark.parametrize(("count", "classes"), [(1, 1000), (50, 100), (1, 5000), (1, 50_000)])
def test_many_classes_at_the_edge_of_the_support(count, classes):
    for ahead in [1 - c * 10.0**-e for e in range(2, 8) for c in (1, 3)]:
        scores = torch.zeros(count, classes)
        scores[:, 1:] = -ahead
        # All are in the support: p of the first is m + (1 - m) / K where the others are m behind.
        behind = -scores[0, -1].item()
        expected = behind + (1 - behind) / classes
        assert abs(sparsemax(scores)[0, 0].item() - expected) < 5e-6, ahead


@pytest.mark.parametrize("value", [1e-50, 1e-300, 1e39, 1e300])
def test_temperatures_that_float32_does_not_hold(value):
    scores = torch.tensor([1.0, 2.0, 2.0, -math.inf])
    expected = torch.tensor([0, 0.5, 0.5, 0] if value < 1 else [1 / 3, 1 / 3, 1 / 3, 0])
    for dtype in (torch.float32, torch.float64, torch.float16):
        found = softmax(scores.to(dtype), value)
        assert torch.allclose(found, expected.to(dtype))
        assert torch.allclose(log_softmax(scores.to(dtype), value).exp(), expected.to(dtype))


def test_temperatures():
    scores = torch.tensor([[1.0, 2.0, 0.5], [1e30, 1e30, -1e30]])
    assert torch.equal(softmax(scores), scores.softmax(-1))
    assert torch.allclose(softmax(scores[:1], 2.0), (scores[:1] / 2).softmax(-1))
    assert softmax(scores, 1e-30).tolist() == [[0, 1, 0], [0.5, 0.5, 0]]
    assert torch.allclose(softmax(scores[:1], 1e30), torch.full((1, 3), 1 / 3))
    assert torch.allclose(log_softmax(scores[:1], 0.01)[0, 0], torch.tensor(-100.0))
    assert softmax(scores.half()[:1], torch.tensor(0.5)).dtype == torch.float16


def test_hardmax_takes_the_first_of_the_largest():
    scores = torch.tensor([[1.0, 3.0, 3.0], [-math.inf, -2.0, -5.0]])
    assert hardmax(scores).tolist() == [[0, 1, 0], [0, 1, 0]]
    assert hardmax(scores.T, 0).T.tolist() == hardmax(scores).tolist()
    assert hardmax(torch.full((2,), -math.inf)).isnan().all()


@pytest.mark.parametrize("alpha", [1.2, 2.0, 5.0])
def test_normmax_is_entmax_packages(alpha):
    scores = torch.randn(30, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    judged = peer.normmax_bisect(scores, alpha, n_iter=200)
    assert torch.allclose(normmax(scores, alpha), judged, atol=1e-10)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
@pytest.mark.parametrize("gamma", [0.05, 0.5, 0.7, 0.999])
def test_the_difference_of_two_scores_is_where_the_second_has_that_probability(member, gamma):
    scores = torch.tensor([0.0, member.difference(gamma)], dtype=torch.float64)
    assert member.probs(scores)[1].item() == pytest.approx(gamma, abs=1e-12)


@pytest.mark.parametrize("alpha", [10.0, 1e4, 1e30])
def test_the_difference_of_a_normmax_of_any_number_exists(alpha):
    assert [Normmax(alpha).difference(gamma) for gamma in (0.1, 0.5, 0.9)] == pytest.approx(
        [-1, 0, 1], abs=1e-6
    )


@pytest.mark.parametrize("number", [np.float32(1.5), np.float64(1.5), Fraction(3, 2)])
def test_numbers_of_any_kind_are_numbers(number):
    for member in (Entmax(number), activation_of({"alpha": number})):
        assert member.spec == "entmax15"
        assert type(member.alpha) is float  # so that a file can hold it


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Entmax(0.5), "expected an activation out of"),
        (lambda: Normmax(math.nan), "expected an activation out of"),
        (lambda: sparsemax(torch.arange(3)), "expected scores of a floating-point dtype"),
        (lambda: entmax(torch.zeros(3), 0.9), "expected alpha to be a finite number of at least 1"),
        (lambda: entmax(torch.zeros(3), math.nan), "at least 1, got nan"),
        (lambda: entmax15(torch.zeros(2, 0)), "at least one class along dimension -1"),
        (lambda: entmax15(torch.zeros(2), 1), "at least one class along dimension 1"),
        (lambda: hardmax(torch.tensor(1.0)), "at least one class"),
        (lambda: softmax(torch.zeros(2), 0.0), "expected temperature to be a finite number above"),
        (lambda: softmax(torch.zeros(2), torch.ones(2)), r"temperature of a shape .* to \(1,\)"),
        (lambda: log_softmax(torch.zeros(2), torch.ones(3, 1), 0), "expected temperature of a"),
        (lambda: entmax(torch.zeros(2, 3), torch.ones(3)), r"alpha of a shape .* to \(2, 1\)"),
        (lambda: entmax(torch.zeros(2, 3), torch.ones(2, 1), 0), r"to \(1, 3\), one number for"),
        (lambda: entmax(torch.zeros(2, 3), torch.ones(4, 1, 1)), r"got \(4, 1, 1\): expand the"),
        (lambda: normmax(torch.zeros(2), 1.0), "expected alpha to be a finite number above 1"),
        (lambda: activation_of("sparsmax"), "expected an activation out of softmax, entmax15"),
        (lambda: activation_of({"alpha": 0.5}), "expected an activation out of"),
        (lambda: activation_of({"alpha": "x"}), "expected an activation out of"),
        (lambda: activation_of({"normmax": 1}), "expected an activation out of"),
        (lambda: Normmax(2.0).jacobian(torch.ones(2) / 2), "expected an activation whose Jacobian"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_an_activation_is_its_spec():
    for member in (SOFTMAX, Entmax(1.5), Entmax(2.0), Entmax(1.3), Normmax(2.0)):
        assert activation_of(member.spec) == member
        assert activation_of(member) is member
    assert sparsemax(torch.zeros(4)).tolist() == [0.25] * 4
    assert sparsemax(torch.zeros(0, 4)).shape == (0, 4)
