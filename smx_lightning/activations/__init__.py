"""Scores → probabilities: softmax and its family, the differentiable relaxations of argmax."""

from smx_lightning.activations.family import SOFTMAX, Activation, Entmax, activation_of

__all__ = ["SOFTMAX", "Activation", "Entmax", "activation_of"]
