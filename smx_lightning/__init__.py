"""Softmax regression as a PyTorch Lightning plugin."""

from smx_lightning.errors import InputError
from smx_lightning.module import Prediction, SoftmaxRegression

__all__ = ["InputError", "Prediction", "SoftmaxRegression"]
