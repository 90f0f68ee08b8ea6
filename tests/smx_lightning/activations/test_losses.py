"""Fenchel-Young losses: the definition, the gradient p - q, the margin, and torch's meanings."""

import math

import entmax as peer
import numpy as np
import pytest
import torch
from simplex import entmax as slow_entmax
from simplex import tsallis
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import cross_entropy

from smx_lightning import InputError
from smx_lightning.activations import (
    Entmax,
    FenchelYoungLoss,
    Normmax,
    activation_of,
    fenchel_young_loss,
)

SPECS = ("softmax", {"alpha": 1.2}, "entmax15", "sparsemax", {"alpha": 3.0}, {"normmax": 2.0})


def problem(seed=0, rows=7, classes=5):
    generator = torch.Generator().manual_seed(seed)
    s = 2 * torch.randn(rows, classes, dtype=torch.float64, generator=generator)
    return s.requires_grad_(), torch.randint(classes, (rows,), generator=generator)


@pytest.mark.parametrize("alpha", [1.0, 1.2, 1.5, 2.0, 3.0])
def test_the_definition(alpha):
    s, y = problem()
    q = Entmax(1.5).probs(problem(1)[0]).detach()
    onehot = torch.nn.functional.one_hot(y, 5).double()
    for target, distributions in ((y, onehot), (q, q)):
        found = fenchel_young_loss(s, target, Entmax(alpha), reduction="none")
        for loss, row, one in zip(found.tolist(), s.tolist(), distributions.tolist(), strict=True):
            p = slow_entmax(row, alpha)
            conjugate = np.dot(p, row) + tsallis(p, alpha)
            expected = conjugate - tsallis(one, alpha) - np.dot(row, one)
            assert loss == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("alpha", "classes"), [(15.0, 1000), (30.0, 40), (100.0, 3)])
def test_powers_below_the_least_number_make_a_norm_all_the_same(alpha, classes, dtype):
    s = torch.zeros(1, classes, dtype=dtype)  # p = 1/K, ‖p‖_α = K^(1/α - 1), a label's norm is 1
    loss = fenchel_young_loss(s, torch.tensor([2]), Normmax(alpha)).item()
    assert loss == pytest.approx(1 - classes ** (1 / alpha - 1), rel=1e-6)


def test_entmax_package_and_cross_entropy_agree():
    s, y = problem(rows=40)
    judges = {
        "softmax": cross_entropy(s, y, reduction="none"),
        "sparsemax": peer.SparsemaxLoss(reduction="none")(s, y),
        "entmax15": peer.Entmax15Loss(reduction="none")(s, y),
    }
    for spec, judged in judges.items():
        assert torch.allclose(fenchel_young_loss(s, y, spec, reduction="none"), judged)
    general = peer.entmax_bisect_loss(s, y, 1.3, 100)
    assert torch.allclose(fenchel_young_loss(s, y, {"alpha": 1.3}, reduction="none"), general)
    norm = peer.normmax_bisect_loss(s, y, 2.0, 100)
    assert torch.allclose(fenchel_young_loss(s, y, Normmax(2.0), reduction="none"), norm)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_derivatives_are_right_and_the_first_is_exact(spec):
    s, y = problem()
    q = problem(1)[0].softmax(-1).detach()
    for target in (y, q):
        assert gradcheck(lambda s, t=target: fenchel_young_loss(s, t, spec), s)
        assert gradgradcheck(lambda s, t=target: fenchel_young_loss(s, t, spec), s)
    fenchel_young_loss(s, q, spec, reduction="sum").backward()
    assert torch.equal(s.grad, activation_of(spec).probs(s) - q)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_saturated_and_masked_scores(spec):
    s = torch.tensor(
        [[1e30, -1e30, 0.0], [0.0, -math.inf, -1.0], [-1e30, 1e30, -math.inf]], requires_grad=True
    )
    losses = fenchel_young_loss(s, torch.tensor([0, 0, 0]), spec, reduction="none")
    assert losses[0] == 0
    assert 0 <= losses[1] < 1
    assert losses[2].item() == pytest.approx(2e30)
    losses.sum().backward()
    assert s.grad[0].tolist() == [0, 0, 0]
    assert s.grad[1, 1] == 0
    assert s.grad[2].tolist() == [-1, 1, 0]
    ruled_out = fenchel_young_loss(s[1:2], torch.tensor([1]), spec)
    assert ruled_out == math.inf


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_the_margin(alpha):
    margin = 1 / (alpha - 1)
    for ahead, zero in ((margin, True), (margin + 1, True), (margin - 0.01, False)):
        s = torch.tensor([[ahead, 0.0, 0.0]], requires_grad=True)
        loss = fenchel_young_loss(s, torch.tensor([0]), {"alpha": alpha})
        assert (loss == 0) == zero
        loss.backward()
        assert (s.grad == 0).all() == zero


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_it_is_zero_at_its_own_probabilities_and_never_below(spec):
    s, y = problem(rows=200)
    q = activation_of(spec).probs(s).detach()
    assert fenchel_young_loss(s, q, spec, reduction="none").abs().max() < 1e-12
    for scale in (1e-3, 1, 100):
        for dtype in (torch.float32, torch.float64):
            assert (fenchel_young_loss((scale * s).to(dtype), y, spec, reduction="none") >= 0).all()


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("shape", [(6, 4), (4,), (6, 4, 3), (2, 4, 3, 2)])
def test_torchs_meanings(shape, reduction):
    torch.manual_seed(0)
    s = torch.randn(shape)
    y = torch.randint(4, (shape[:1] + shape[2:]) if len(shape) > 1 else ())
    if len(shape) > 1:
        y.view(-1)[0] = 77
    weight = torch.tensor([0.5, 2.0, 0.0, 3.0])
    for weights in (None, weight):
        options = {"weight": weights, "ignore_index": 77, "reduction": reduction}
        expected = cross_entropy(s, y, **options)
        assert torch.allclose(fenchel_young_loss(s, y, **options), expected, atol=1e-6)
        module = FenchelYoungLoss("softmax", **options)
        assert torch.allclose(module(s, y), expected, atol=1e-6)
    soft = torch.randn(shape).softmax(min(1, len(shape) - 1))
    kept = cross_entropy(s, soft, reduction="none") - cross_entropy(
        soft.log(), soft, reduction="none"
    )
    assert torch.allclose(fenchel_young_loss(s, soft, reduction="none"), kept, atol=1e-5)


def test_weights_of_rows_and_classes_multiply():
    s, y = problem()
    weight, rows = torch.rand(5, dtype=torch.float64), torch.rand(7, dtype=torch.float64)
    plain = fenchel_young_loss(s, y, "sparsemax", reduction="none")
    total = weight[y] * rows
    options = {"weight": weight, "sample_weight": rows}
    found = fenchel_young_loss(s, y, "sparsemax", reduction="none", **options)
    assert torch.allclose(found, plain * total)
    mean = (plain * total).sum() / total.sum()
    assert torch.allclose(fenchel_young_loss(s, y, "sparsemax", **options), mean)
    onehot = torch.nn.functional.one_hot(y, 5).double()
    assert torch.allclose(fenchel_young_loss(s, onehot, "sparsemax", **options), mean)


def test_ignored_rows_count_for_nothing_even_if_nan():
    s = torch.tensor([[math.nan, 1.0], [0.0, 0.5]], requires_grad=True)
    loss = fenchel_young_loss(s, torch.tensor([-100, 1]), "sparsemax")
    loss.backward()
    assert loss == fenchel_young_loss(s[1:], torch.tensor([1]), "sparsemax")
    assert s.grad[0].tolist() == [0, 0]


def test_half_precision_is_widened():
    s, y = problem()
    for dtype in (torch.float16, torch.bfloat16):
        for spec in SPECS:
            found = fenchel_young_loss(s.detach().to(dtype), y, spec)
            wide = fenchel_young_loss(s.detach().to(dtype).double(), y, spec)
            assert found.dtype == torch.float32
            assert found.item() == pytest.approx(wide.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"target": torch.tensor([0])}, "expected an integer label for each row"),
        ({"target": torch.tensor([True, False])}, "expected an integer label for each row"),
        ({"target": torch.rand(2, 4)}, "expected a distribution for each row"),
        ({"sample_weight": torch.ones(3)}, "expected a sample weight for each row"),
        ({"weight": torch.ones(2)}, "expected a weight for each of 3 classes"),
        ({"reduction": "elementwise_mean"}, "expected a reduction out of none, mean, sum"),
        ({"activation": "argmax"}, "expected an activation out of"),
        ({"scores": torch.zeros(2, 3).long()}, "expected scores of a floating-point dtype"),
    ],
)
def test_refusals(change, words):
    arguments = {"scores": torch.zeros(2, 3), "target": torch.tensor([0, 1])} | change
    with pytest.raises(InputError, match=words):
        fenchel_young_loss(**arguments)
