"""Members as layers: in somebody's attention, trained, and in a file that is the model."""

import pytest
import torch
from torch import nn

from smx_export import export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import AdaptiveEntmax, Entmax15, Sparsemax, entmax, sparsemax


class Attention(nn.Module):
    """Attention over four groups of the features; the map of its weights is given."""

    def __init__(self, width, attend):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width // 4, width // 4) for _ in range(3))
        self.attend = attend

    def forward(self, x):
        tokens = x.unflatten(1, (4, -1))
        weights = self.attend(self.query(tokens) @ self.key(tokens).transpose(1, 2))
        return (weights @ self.value(tokens)).flatten(1)


class Attentive(SoftmaxRegression):
    def __init__(self, attend):
        super().__init__(16, 3)
        self.attention = Attention(16, attend)

    def features(self, x):
        return self.attention(x)


@pytest.mark.parametrize("attend", [Sparsemax(), Entmax15(), sparsemax, AdaptiveEntmax((4, 1))])
def test_a_backbone_with_sparse_attention_passes_the_gate(attend, tmp_path):
    torch.manual_seed(0)
    model = Attentive(attend).eval()
    assert export_onnx(model, tmp_path / "m.onnx").report.passed


def test_layers_are_the_functions():
    s = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(Sparsemax(1)(s), sparsemax(s, 1))
    assert torch.equal(Entmax15()(s), entmax(s, 1.5))
    assert torch.allclose(AdaptiveEntmax(alpha=1.3)(s), entmax(s, 1.3), atol=1e-6)
    assert repr(Sparsemax(1)) == "Sparsemax(dim=1)"
    with pytest.raises(InputError, match="expected alpha between 1 and 2"):
        AdaptiveEntmax(alpha=2.0)


def test_alpha_is_learnt():
    """Weights that entmax of α = 1.8 gives are found again."""
    s = torch.randn(200, 6, generator=torch.Generator().manual_seed(0))
    wanted, layer = entmax(s, 1.8), AdaptiveEntmax(alpha=1.2)
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        (layer(s) - wanted).square().sum().backward()
        optimiser.step()
    assert layer.alpha.item() == pytest.approx(1.8, abs=0.01)
