"""Softmax regression as a PyTorch Lightning plugin."""

from smx_lightning.errors import InputError
from smx_lightning.module import Prediction, SoftmaxRegression
from smx_lightning.recovery import Recovery

__all__ = ["InputError", "Prediction", "Recovery", "SoftmaxRegression"]
