"""The last layer of a model: scores → log-probabilities."""

from __future__ import annotations

from torch import Tensor, nn

from smx_lightning.activations.family import SOFTMAX, Activation


class LogProbabilities(nn.Module):
    """log p of a member."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (batch, classes) → log-probabilities."""
        return self.activation.log_probs(scores, 1)


def log_probabilities(activation: Activation) -> nn.Module:
    """The layer of a member; of softmax torch's own."""
    return nn.LogSoftmax(dim=1) if activation == SOFTMAX else LogProbabilities(activation)
