"""Random models of all sizes, scales and kinds, and profiles that they can be exported in."""

import numpy as np
import torch
from backbones import random_backbone
from torch import nn

from smx_export import Profile
from smx_export.contract import ALL_OUTPUTS
from smx_lightning import SoftmaxRegression

WIDTHS, CLASSES = (1, 5000), (2, 1000)
MOST_WEIGHTS = 300_000  # larger ones take seconds each
NAMES = ("portable", "robust", "image", "robust,image", "compact", "compact,robust,image")
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


class Squared(SoftmaxRegression):
    """As many features again: their squares."""

    def features(self, x):
        x = x.flatten(1)
        return torch.cat([x, x * x], 1)


class Clamped(SoftmaxRegression):
    """Levels of its inputs, as a tree's or a quantised network's: it jumps."""

    def features(self, x):
        return torch.round(x.flatten(1).clamp(-4, 4) * 8) / 8


class Normalised(SoftmaxRegression):
    """Each row's own mean and deviation, which regular rows have none of."""

    def features(self, x):
        return nn.functional.layer_norm(x.flatten(1), (self.num_features,))


SUBCLASSES = (Squared, Clamped, Normalised)


def good_model(seed):
    """Model, profile and labelled data; every eighth is a subclass."""
    rng = np.random.default_rng(seed)
    if seed % 16 == 15:
        model = random_backbone(seed)
        return model, Profile(outputs=("log_probs", "probs", "label")[: 2 + seed % 32 // 16]), None
    kind = SUBCLASSES[int(rng.integers(3))] if seed % 8 == 7 else SoftmaxRegression
    d, k = _size(rng) if kind is SoftmaxRegression else (int(rng.integers(2, 40)), 5)
    model = kind(
        d * (2 if kind is Squared else 1),
        k,
        input_shape=_shape(rng, d),
        input_range=((0, 1), (0, 255), (-1, 1), (0, 16), None)[int(rng.integers(5))],
        threshold=float(rng.uniform(0.001, 0.999)) if k == 2 and rng.random() < 0.7 else None,
        preprocessing="none" if kind is not SoftmaxRegression else _method(rng),
    )
    _fill(model, rng)
    dtype = DTYPES[int(rng.integers(4))]
    model = model if kind is not SoftmaxRegression else model.to(dtype)
    outputs = tuple(o for o in ALL_OUTPUTS if rng.random() < 0.6) or ("label",)
    name = NAMES[int(rng.integers(len(NAMES)))] if kind is SoftmaxRegression else "portable"
    budget = {"max_accuracy_loss": 1.0, "max_nll_increase": 1e9}  # rounding's cost is not at issue
    profile = Profile.of(name, outputs=outputs, weights=rng.choice(["int8", "float16"]), **budget)
    return model, profile, _data(model, profile, rng)


def _size(rng):
    while True:
        d, k = (round(np.exp(rng.uniform(*np.log(limits)))) for limits in (WIDTHS, CLASSES))
        if d * k <= MOST_WEIGHTS:
            return d, 2 if rng.random() < 0.2 else k


def _shape(rng, d):
    sides = [n for n in range(1, d + 1) if d % n == 0]
    side = int(rng.choice(sides))
    return ((d,), (side, d // side), (1, side, d // side))[int(rng.integers(3))]


def _method(rng):
    return ("none", "standardize", "scale")[int(rng.integers(3))]


@torch.no_grad()
def _fill(model, rng):
    linear, statistics = model.linear, model.preprocessing
    size, d = 10 ** rng.uniform(-3, 2), model.num_features
    linear.weight.copy_(torch.from_numpy(size * rng.standard_normal(linear.weight.shape)))
    linear.weight[:, torch.from_numpy(rng.random(d) < 0.1)] = 0.0  # features that tell nothing
    bias = 10 ** rng.uniform(-3, 2) * rng.standard_normal(len(linear.bias))
    linear.bias.copy_(torch.from_numpy(bias))
    if statistics.method == "standardize":
        scale = 10 ** rng.uniform(-3, 3) * np.exp(rng.uniform(0, 1) * rng.standard_normal(d))
        statistics.scale.copy_(torch.from_numpy(scale))
        mean = 10 ** rng.uniform(-2, 2) * scale * rng.standard_normal(d)
        statistics.mean.copy_(torch.from_numpy(mean))
    elif statistics.method == "scale":
        statistics.scale.fill_(10 ** rng.uniform(-3, 3))


def _data(model, profile, rng):
    """Labelled rows, where rounded weights are to be judged."""
    if profile.weights is None:
        return None
    low, high = model.input_range or (0, 255)
    x = rng.integers(0, 256, (8, *model.input_shape)) / 255 * (high - low) + low
    return x.astype(np.float32), rng.integers(0, model.num_classes, 8)
