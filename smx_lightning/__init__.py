"""Softmax regression as a PyTorch Lightning plugin.

The names load on first use, so that modules which need no torch can be used where it is missing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smx_lightning.errors import InputError
    from smx_lightning.module import Prediction, SoftmaxRegression
    from smx_lightning.recovery import Recovery

_HOME = {
    "InputError": "errors",
    "Prediction": "module",
    "Recovery": "recovery",
    "SoftmaxRegression": "module",
}

__all__ = ["InputError", "Prediction", "Recovery", "SoftmaxRegression"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
