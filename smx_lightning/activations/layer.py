"""The last layer of a softmax regression: scores → log-probabilities."""

from __future__ import annotations

from torch import Tensor, nn

from smx_lightning.activations.family import SOFTMAX, Activation


class LogProbabilities(nn.Module):
    """The logarithm of an activation's probabilities along the classes, minus infinity of zeros.

    Args:
        activation: Any but softmax, whose layer is :class:`torch.nn.LogSoftmax`.
    """

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.activation = activation

    def forward(self, scores: Tensor) -> Tensor:
        """Scores (batch, classes) → log-probabilities (batch, classes)."""
        return self.activation.log_probs(scores, 1)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return repr(self.activation.spec)


def log_probabilities(activation: Activation) -> nn.Module:
    """The layer of an activation; of softmax torch's own."""
    return nn.LogSoftmax(dim=1) if activation == SOFTMAX else LogProbabilities(activation)
