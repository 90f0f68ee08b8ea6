"""Derivatives by scores and α: finite differences, of first and second order, and the formulas."""

import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.autograd.functional import jacobian

from smx_lightning.activations import Entmax, Normmax, activation_of, entmax
from smx_lightning.activations.threshold import SORTED

# torch's own, when forward-mode derivatives are first asked for
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
MEMBERS = (*map(Entmax, (1.0, 1.001, 1.3, 1.5, 1.9, 2.0, 2.5)), Normmax(2.0), Normmax(1.3))


def scores(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


@pytest.mark.parametrize("member", MEMBERS, ids=str)
@pytest.mark.parametrize("dim", [0, -1])
def test_first_and_second_derivatives(member, dim):
    s = scores(3, 5)
    assert gradcheck(lambda s: member.probs(s, dim), s, check_forward_ad=True)
    assert gradgradcheck(lambda s: member.probs(s, dim), s, check_fwd_over_rev=True)


@pytest.mark.parametrize("alpha", [1.5, 2.0])
def test_derivatives_of_many_scores(alpha):
    s = scores(3, SORTED)
    assert gradcheck(
        lambda part: entmax(torch.cat([part, s[:, 4:].detach()], 1), alpha)[:, :9],
        s[:, :4].detach().requires_grad_(),
    )


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_log_probs_have_a_gradient_where_they_are_finite(member):
    s = (scores(6, 5) * 2).detach().requires_grad_()
    found = member.log_probs(s)
    assert torch.equal(found == -math.inf, member.probs(s) == 0)
    assert gradcheck(lambda s: torch.where(found > -math.inf, member.log_probs(s), 0.0), s)
    found.clamp(min=-1e30).sum().backward()
    assert s.grad.isfinite().all()


@pytest.mark.parametrize("alpha", [1.0, 1.0001, 1.2, 1.5, 2.0, 2.4])
def test_derivatives_by_alpha(alpha):
    s = scores(3, 4, 5)
    for shape in ((), (4, 1), (3, 1, 1), (3, 4, 1)):
        learnt = torch.full(shape, alpha, dtype=torch.float64)
        learnt = learnt + 0.01 * torch.rand(shape, dtype=torch.float64)  # not below 1
        learnt.requires_grad_()
        assert gradcheck(entmax, (s, learnt), check_forward_ad=True)
    assert gradgradcheck(entmax, (s, learnt), atol=1e-4)


def test_the_derivative_by_alpha_is_continuous_at_softmax():
    """At α = 1 it is p (E[log² p] - log² p) / 2."""
    s = scores(4, 6).detach()
    logs = s.log_softmax(-1)
    limit = logs.exp() * ((logs.exp() * logs**2).sum(-1, keepdim=True) - logs**2) / 2
    for alpha in (1.0, 1 + 1e-9, 1 + 1e-6):
        found = jacobian(lambda a: entmax(s, a), torch.tensor(alpha, dtype=torch.float64))
        assert torch.allclose(found, limit, atol=1e-5)
    single = jacobian(lambda a: entmax(s.float(), a), torch.tensor(1.0))
    assert torch.allclose(single, limit.float(), atol=1e-5)


@pytest.mark.parametrize(
    "spec", ["softmax", "entmax15", "sparsemax", {"alpha": 1.3}, {"alpha": 3.0}]
)
def test_the_jacobian_is_softmaxs_at_other_probabilities(spec):
    member, s = activation_of(spec), scores(5, 6).detach()
    weights, scale = member.jacobian(member.probs(s))
    formula = scale.unsqueeze(-1) * (
        torch.diag_embed(weights) - weights.unsqueeze(-1) * weights.unsqueeze(-2)
    )
    for row, expected in zip(s, formula, strict=True):
        assert torch.allclose(jacobian(member.probs, row), expected, atol=1e-10)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_gradients_are_finite_where_scores_are_extreme(member):
    for row in (
        [1e30, -1e30, 0.0],
        [0.0, -math.inf, 0.0],
        [0.0, 0.0, 0.0],
        [5.0, -math.inf, -300.0],
    ):
        s = torch.tensor(row, requires_grad=True)
        member.probs(s)[0].backward()
        assert s.grad.isfinite().all()
        assert s.grad.sum().abs() < 1e-6


def test_half_precision_gradients():
    for dtype in (torch.float16, torch.bfloat16):
        s = torch.tensor([1.0, 0.5, -2.0], dtype=dtype, requires_grad=True)
        with torch.autocast("cpu", torch.bfloat16):
            p = entmax(s, 1.5)
        p[0].backward()
        wide = s.detach().double().requires_grad_()
        entmax(wide, 1.5)[0].backward()
        assert p.dtype == s.grad.dtype == dtype
        assert torch.allclose(s.grad.double(), wide.grad, atol=5e-3)
