"""The head in float32 or wider, whatever the precision around it.

float16 overflows at logits of 65504, and a bfloat16 log-softmax sums to .993–1.013.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn


def with_autocast_off(head: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a head answers for features x (batch, features), outside of autocast."""
    if torch.is_autocast_enabled(x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return head(x)
    return head(x)


def applied_wide(layer: nn.Module, dtype: torch.dtype, x: Tensor) -> Tensor:
    """What a layer answers for standardised features; 16-bit weights are widened.

    Args:
        layer: The linear layer, or one that begins with it.
        dtype: Of its weights.
        x: (batch, features).
    """
    if dtype.itemsize < 4:  # bf16-true, 16-true
        wide = {name: p.to(x.dtype) for name, p in layer.named_parameters()}
        return cast("Tensor", torch.func.functional_call(layer, wide, x))
    return cast("Tensor", layer(x.to(dtype)))
