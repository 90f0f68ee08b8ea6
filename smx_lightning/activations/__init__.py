"""Scores → probabilities: softmax and its family, the differentiable relaxations of argmax."""

from smx_lightning.activations.derivatives import entmax
from smx_lightning.activations.family import SOFTMAX, Activation, Entmax, Normmax, activation_of
from smx_lightning.activations.functions import (
    entmax15,
    hardmax,
    log_softmax,
    normmax,
    softmax,
    sparsemax,
)
from smx_lightning.activations.layers import AdaptiveEntmax, Entmax15, Sparsemax
from smx_lightning.activations.losses import FenchelYoungLoss, fenchel_young_loss
from smx_lightning.activations.sampling import gumbel_softmax, perturbed_argmax

__all__ = [
    "SOFTMAX",
    "Activation",
    "AdaptiveEntmax",
    "Entmax",
    "Entmax15",
    "FenchelYoungLoss",
    "Normmax",
    "Sparsemax",
    "activation_of",
    "entmax",
    "entmax15",
    "fenchel_young_loss",
    "gumbel_softmax",
    "hardmax",
    "log_softmax",
    "normmax",
    "perturbed_argmax",
    "softmax",
    "sparsemax",
]
