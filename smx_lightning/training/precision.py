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


def applied_wide(smx: nn.Sequential, x: Tensor) -> Tensor:
    """Log-probabilities (batch, classes) of standardised features; 16-bit weights are widened."""
    dtype = cast("nn.Linear", smx[0]).weight.dtype
    if dtype.itemsize < 4:  # bf16-true, 16-true
        wide = {name: p.to(x.dtype) for name, p in smx.named_parameters()}
        return cast("Tensor", torch.func.functional_call(smx, wide, x))
    return cast("Tensor", smx(x.to(dtype)))
