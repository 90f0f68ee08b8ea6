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

__version__: str  # of the distribution, to which smx_export belongs, too

_HOME = {
    "InputError": "errors",
    "Prediction": "module",
    "Recovery": "recovery",
    "SoftmaxRegression": "module",
}

__all__ = ["InputError", "Prediction", "Recovery", "SoftmaxRegression", "__version__"]

DISTRIBUTION = "smx-lightning"
NOT_INSTALLED = "0+unknown"  # the version of a checkout that is only on the path


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from smx_lightning.errors.extras import training_needed

    with training_needed():
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def _version() -> str:
    """What the installed distribution's metadata say: pyproject.toml is their one source."""
    from importlib.metadata import PackageNotFoundError, version  # takes longer than it is needed

    try:
        return version(DISTRIBUTION)
    except PackageNotFoundError:
        return NOT_INSTALLED
