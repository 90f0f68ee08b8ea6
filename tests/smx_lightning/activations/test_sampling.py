"""Members with noise: expectations and gradients against closed forms."""

import math

import pytest
import torch

from smx_lightning import InputError
from smx_lightning.activations import gumbel_softmax, hardmax, perturbed_argmax

SCORES = torch.tensor([[1.0, 0.2, -0.5, -math.inf]], dtype=torch.float64)


def noise():
    return torch.Generator().manual_seed(0)


def test_gumbel_softmax_draws_from_softmax():
    many = SCORES.expand(20000, 4)
    drawn = gumbel_softmax(many, hard=True, generator=noise())
    assert torch.equal(drawn, hardmax(drawn))
    assert torch.allclose(drawn.mean(0), SCORES.softmax(-1)[0], atol=0.02)
    cold = gumbel_softmax(many[:100], 1e-6, generator=noise())
    assert torch.allclose(cold, gumbel_softmax(many[:100], 1e-6, hard=True, generator=noise()))
    warm = gumbel_softmax(many[:100].T, 1e6, 0, generator=noise())
    assert torch.allclose(warm[:3], torch.full((3, 100), 1 / 3).double(), atol=1e-4)


def test_straight_through_has_the_soft_gradient():
    gradients = []
    for hard in (False, True):
        s = SCORES.clone().requires_grad_()
        gumbel_softmax(s, 0.7, hard=hard, generator=noise())[0, 0].backward()
        gradients.append(s.grad)
    assert torch.equal(*gradients)
    assert gradients[0][0, 0] > 0


def test_gumbel_noise_makes_perturbed_argmax_softmax():
    """Value and first two derivatives of softmax(s / sigma), by sampling."""
    sigma, s = 0.8, torch.tensor([0.5, 0.0, -0.4], dtype=torch.float64)

    def probs(s):
        return perturbed_argmax(s, sigma, samples=200_000, noise="gumbel", generator=noise())

    def soft(s):
        return (s / sigma).softmax(-1)

    assert torch.allclose(probs(s), soft(s), atol=0.01)
    found = torch.autograd.functional.jacobian(probs, s)
    assert torch.allclose(found, torch.autograd.functional.jacobian(soft, s), atol=0.02)
    second = torch.autograd.functional.hessian(lambda s: probs(s)[0], s)
    expected = torch.autograd.functional.hessian(lambda s: soft(s)[0], s)
    assert torch.allclose(second, expected, atol=0.05)


def test_normal_noise_of_two_classes_is_a_probit():
    sigma, s = 0.5, torch.tensor([0.3, 0.0], dtype=torch.float64, requires_grad=True)
    p = perturbed_argmax(s, sigma, samples=200_000, generator=noise())
    z = 0.3 / (sigma * math.sqrt(2))
    assert p[0].item() == pytest.approx(0.5 * (1 + math.erf(z / math.sqrt(2))), abs=0.01)
    p[0].backward()
    density = math.exp(-z * z / 2) / math.sqrt(2 * math.pi) / (sigma * math.sqrt(2))
    assert s.grad[0].item() == pytest.approx(density, abs=0.02)


def test_masks_and_dimensions():
    s = SCORES.clone().requires_grad_()
    p = perturbed_argmax(s, samples=50, generator=noise())
    assert p[0, 3] == 0
    p[0, 0].backward()
    assert s.grad.isfinite().all()
    other = perturbed_argmax(SCORES.T, dim=0, samples=50, generator=noise())
    assert torch.equal(other.sum(0), torch.ones(1).double())
    assert gumbel_softmax(SCORES.half()).dtype == torch.float16


@pytest.mark.parametrize("sigma", [1e-300, 1e-50, 1e39, 1e300])
def test_a_sigma_that_float32_does_not_hold(sigma):
    scores = torch.tensor([1.0, 2.0, 1.5, -math.inf])
    p = perturbed_argmax(scores, sigma, samples=3000, generator=noise())
    expected = torch.tensor([0.0, 1, 0, 0] if sigma < 1 else [1 / 3, 1 / 3, 1 / 3, 0])
    assert torch.allclose(p, expected, atol=0.05)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gumbel_softmax(SCORES, 0), "expected temperature to be"),
        (lambda: perturbed_argmax(SCORES, -1), "expected sigma to be"),
        (lambda: perturbed_argmax(SCORES, samples=0), "expected at least 1 of samples"),
        (lambda: perturbed_argmax(SCORES, samples=1.5), "a whole number"),
        (lambda: perturbed_argmax(SCORES, noise="cauchy"), "noise 'normal' or 'gumbel'"),
        (lambda: perturbed_argmax(torch.arange(3)), "floating-point dtype"),
    ],
)
def test_refusals(call, words):
    with pytest.raises(InputError, match=words):
        call()
