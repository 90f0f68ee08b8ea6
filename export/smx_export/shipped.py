"""The model as it is shipped, and whether it is nothing but standardisation and the linear layer.

Only what is inherited unchanged is known to be so; whatever a subclass redefines is traced instead.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from torch import nn
from torchmetrics import Metric

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.sharding import is_sharded, whole_smx

if TYPE_CHECKING:
    from collections.abc import Sequence


def inference_copy(
    model: SoftmaxRegression, input_shape: Sequence[int] | None = None
) -> SoftmaxRegression:
    """The model as it is shipped: a detached copy in eval mode, float32, on the CPU.

    Where its classes are spread over processes, each of them must call this.
    """
    # The copy leaves the trainer behind, and with it data and loggers.
    memo: dict[int, Any] = {id(model._trainer): None, id(model._fabric): None}
    if is_sharded(model.smx):
        memo |= {id(model.device_mesh): None, id(model.smx): whole_smx(model.smx)}
        memo |= {id(m.process_group): None for m in model.modules() if isinstance(m, Metric)}
    detached = copy.deepcopy(model, memo)
    if input_shape is not None:
        detached.input_shape = tuple(input_shape)
    shipped = detached.cpu().float().eval()
    for name, parameter in shipped.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"expected finite weights, got NaN or infinity in {name}; train the model again, "
                "with a lower learning rate or standardised features"
            )
    return shipped.requires_grad_(False)


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
