"""The models whose files are spoilt."""

import numpy as np
import torch
from torch import nn

from smx_lightning import SoftmaxRegression

SQUARE, DIGITS, BACKBONE = "square standardised", "like digits", "traced backbone"
BOTH = (SQUARE, DIGITS)
# Each other activation, in each form of its graph: by pairs, by steps, of a backbone.
PAIRED, ENTMAX, STEPS, SPARSE_BACKBONE = "sparsemax", "entmax15", "1.3-entmax", "sparse backbone"
SPARSE = (PAIRED, ENTMAX, STEPS)
MEAN = np.array([3, -50, 0.1, 700, 0, -2], np.float32)  # of the square model's features
SCALE = np.array([0.5, 20, 0.01, 30, 1, 8], np.float32)


class Convolution(SoftmaxRegression):
    """A frozen convolution with batch norm, and four averages of each of its four channels."""

    def __init__(self, activation="softmax"):
        super().__init__(
            16, 3, input_shape=(1, 8, 8), preprocessing="standardize", activation=activation
        )
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(4)
        ).requires_grad_(False)

    def features(self, x):
        return self.backbone(x).flatten(1)

    @classmethod
    @torch.no_grad()
    def make(cls, activation="softmax"):
        torch.manual_seed(1)
        model = cls(activation).eval()
        batch_norm = model.backbone[1]
        for values in (batch_norm.running_var, batch_norm.weight, model.preprocessing.scale):
            values.uniform_(0.5, 2)
        for values in (batch_norm.running_mean, batch_norm.bias, model.preprocessing.mean):
            values.normal_()
        return model


def square():
    model = linear(6, 6, preprocessing="standardize")
    return fitted(model, MEAN, SCALE)


def sparse(activation):
    """Some classes of an ordinary row are ruled out, and some are not."""
    return fitted(
        linear(6, 6, 0.3, preprocessing="standardize", activation=activation), MEAN, SCALE
    )


def linear(d, k, size=1.0, **kwargs):
    """Weights and biases are normal with deviation ``size``."""
    torch.manual_seed(0)
    model = SoftmaxRegression(d, k, **kwargs)
    with torch.no_grad():
        for parameter in (model.linear.weight, model.linear.bias):
            parameter.normal_().mul_(size)
    return model


def fitted(model, mean, scale):
    model.preprocessing.mean.copy_(torch.as_tensor(mean))
    model.preprocessing.scale.copy_(torch.as_tensor(scale))
    return model


MODELS = {
    SQUARE: square,
    DIGITS: lambda: linear(64, 10, size=0.1),
    BACKBONE: Convolution.make,
    PAIRED: lambda: sparse("sparsemax"),
    ENTMAX: lambda: sparse("entmax15"),
    STEPS: lambda: sparse({"alpha": 1.3}),
    SPARSE_BACKBONE: lambda: Convolution.make("entmax15"),
}
