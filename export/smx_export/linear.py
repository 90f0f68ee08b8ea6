"""Is a model, or the end of it, nothing but standardisation and the linear layer?

Only what is inherited unchanged is known to be so; whatever a subclass redefines is traced instead.
"""

from __future__ import annotations

from torch import nn

from smx_lightning import SoftmaxRegression


def is_linear(model: SoftmaxRegression) -> bool:
    """Whether the whole model is linear up to its log-softmax: the direct graph is exact."""
    return has_own_head(model) and type(model).features is SoftmaxRegression.features


def has_own_head(model: SoftmaxRegression) -> bool:
    """Whether what follows ``features`` is standardisation, ``nn.Linear`` and ``LogSoftmax``."""
    linear, *rest = model.smx
    return (
        type(model).forward is SoftmaxRegression.forward
        and type(model).head is SoftmaxRegression.head
        and isinstance(linear, nn.Linear)
        and linear.bias is not None
        and len(rest) == 1
        and isinstance(rest[0], nn.LogSoftmax)
        and rest[0].dim == 1
    )
