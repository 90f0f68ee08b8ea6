"""torch.func, torch.compile, torch.export and ONNX take the members as they are."""

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.func import grad, hessian, jacfwd, vmap

from smx_lightning.activations import (
    AdaptiveEntmax,
    Entmax,
    Normmax,
    entmax,
    fenchel_young_loss,
)

MEMBERS = (*map(Entmax, (1.0, 1.3, 1.5, 2.0, 3.0)), Normmax(2.0))
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, on these ways
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def scores(*shape):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_vmap_and_torch_func(member):
    s = scores(4, 6, 5).double()
    assert torch.allclose(vmap(member.probs)(s), member.probs(s))
    assert torch.allclose(vmap(vmap(member.probs))(s), member.probs(s))
    assert torch.allclose(vmap(lambda s: member.probs(s, 0), 1, 1)(s), member.probs(s, 0))

    def total(row):
        return member.probs(row).square().sum()

    leaf = s.clone().requires_grad_()
    total(leaf).backward()
    assert torch.allclose(vmap(vmap(grad(total)))(s), leaf.grad)
    row = s[0, 0]
    expected = torch.autograd.functional.hessian(total, row)
    assert torch.allclose(hessian(total)(row), expected)
    y = torch.tensor([0, 1, 2, 3])
    losses = vmap(lambda s, y: fenchel_young_loss(s, y, member))(s[:, 0], y)
    together = fenchel_young_loss(s[:, 0], y, member, reduction="none")
    assert torch.allclose(losses, together)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_forward_mode_twice(member):
    row = scores(5).double() / 40

    def total(row):
        return (member.probs(row) * torch.arange(5)).sum()

    expected = torch.autograd.functional.hessian(total, row)
    assert expected.abs().max() > 1e-3 or member.spec == "sparsemax"
    assert torch.allclose(jacfwd(jacfwd(total))(row), expected)


def test_vmap_over_alphas():
    s, alphas = scores(3, 5).double(), torch.tensor([1.2, 1.5, 2.0, 2.5]).double()
    found = vmap(entmax, (None, 0))(s, alphas)
    assert torch.allclose(found, torch.stack([entmax(s, alpha) for alpha in alphas]))
    slopes = vmap(grad(lambda a, s: entmax(s, a)[0]), (0, 0))(alphas[:3], s)
    for slope, alpha, row in zip(slopes, alphas, s, strict=False):
        assert torch.allclose(slope, grad(lambda a, row=row: entmax(row, a)[0])(alpha))


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_compiled_whole(member):
    s, y = scores(4, 5), torch.tensor([0, 1, 2, 3])

    def both(s):
        return member.probs(s).square().sum() + fenchel_young_loss(s, y, member)

    compiled = torch.compile(both, fullgraph=True, backend="aot_eager")
    one, other = s.clone().requires_grad_(), s.clone().requires_grad_()
    compiled(one).backward()
    both(other).backward()
    assert torch.allclose(one.grad, other.grad, atol=1e-6)


def test_a_learnt_alpha_compiles_whole():
    layer = AdaptiveEntmax((4, 1))
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    compiled(scores(4, 5))[:, 0].sum().backward()
    found, layer.raw.grad = layer.raw.grad, None
    layer(scores(4, 5))[:, 0].sum().backward()
    assert torch.allclose(found, layer.raw.grad, atol=1e-6)


class Probs(nn.Module):
    def __init__(self, member):
        super().__init__()
        self.member = member

    def forward(self, s):
        return self.member.probs(s, 1)


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_exported_with_an_open_batch(member):
    open_batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(Probs(member), (scores(4, 5),), dynamic_shapes=open_batch)
    s = scores(2000, 5)
    assert torch.allclose(program.module()(s), member.probs(s), atol=1e-6)


def test_exported_with_classes_left_open():
    member = Entmax(1.5)
    shapes = ({0: torch.export.Dim("batch"), 1: torch.export.Dim("classes")},)
    program = torch.export.export(Probs(member), (scores(4, 5),), dynamic_shapes=shapes)
    for shape in ((3, 2), (2, 5000)):
        found = program.module()(scores(*shape))
        assert torch.allclose(found, member.probs(scores(*shape)), atol=1e-6)


def test_onnx_without_sort_or_loop(tmp_path):
    member = Entmax(2.0)
    program = torch.onnx.export(
        Probs(member).eval(),
        (scores(4, 5),),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        verbose=False,
    )
    program.save(tmp_path / "m.onnx")
    operators = {node.op_type for node in program.model.graph}
    assert not operators & {"Sort", "TopK", "CumSum", "Loop", "If", "Scan"}
    s = scores(700, 5)
    found = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"s": s.numpy()})[0]
    assert np.abs(found - member.probs(s).numpy()).max() < 1e-6
