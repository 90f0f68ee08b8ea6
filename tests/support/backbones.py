"""Random backbones of the usual parts in front of the head: correct, and deterministic."""

import numpy as np
import torch
from torch import nn

from smx_lightning import SoftmaxRegression

SHAPE = (3, 8, 8)  # of one input; channels first


class Sine(nn.Module):
    """As in SIREN, with a frequency."""

    def __init__(self, frequency):
        super().__init__()
        self.frequency = frequency

    def forward(self, x):
        return torch.sin(self.frequency * x)


class Residual(nn.Module):
    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, x):
        return x + self.block(x)


class Attention(nn.Module):
    """Softmax attention over groups of the features, written out."""

    def __init__(self, width, tokens=4):
        super().__init__()
        self.tokens = tokens
        self.query, self.key, self.value = (
            nn.Linear(width // tokens, width // tokens) for _ in range(3)
        )

    def forward(self, x):
        tokens = x.unflatten(1, (self.tokens, -1))
        query, key = self.query(tokens), self.key(tokens)
        weights = (query @ key.transpose(1, 2) / query.shape[-1] ** 0.5).softmax(-1)
        return (weights @ self.value(tokens)).flatten(1)


def high_sine():
    return Sine(30.0)


ACTIVATIONS = (
    nn.ReLU, nn.Tanh, nn.GELU, nn.SiLU, nn.Sigmoid, nn.ELU, nn.Softplus, nn.LeakyReLU,
    nn.Hardswish, lambda: Sine(1.0), high_sine,
)  # fmt: skip
POOLS = (lambda: nn.AvgPool2d(2), lambda: nn.MaxPool2d(2), lambda: nn.Identity())


class Backboned(SoftmaxRegression):
    """A backbone that is given."""

    def __init__(self, backbone, num_features, num_classes, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.backbone = backbone

    def features(self, x):
        return self.backbone(x)


class Everything(Backboned):
    """The same network, as a forward of its own: nothing about its structure is known."""

    def forward(self, x):
        return self.smx(self.preprocessing(self.backbone(x)))


def perceptron(rng, width):
    """Depth 1 to 24: linear layers, norms, residuals, attention, in random order."""
    first = act = ACTIVATIONS[rng.integers(len(ACTIVATIONS))]
    if act is high_sine:  # one such layer, as in SIREN: several in a row are chaotic
        act = nn.Tanh
    inputs = int(np.prod(SHAPE))
    layers = [nn.Flatten(), nn.Linear(inputs, width), first()]
    for _ in range(rng.integers(0, 24)):
        block = [
            nn.Sequential(nn.Linear(width, width), act()),
            Residual(nn.Sequential(nn.Linear(width, width), act(), nn.Linear(width, width))),
            nn.Sequential(nn.BatchNorm1d(width), nn.Linear(width, width), act()),
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), act(), nn.Dropout(0.5)),
            Residual(nn.Sequential(nn.LayerNorm(width), Attention(width))),
        ][rng.integers(5)]
        layers.append(block)
    return nn.Sequential(*layers)


def convolution(rng, width):
    """One to four convolutions, with batch norm and pooling, and an average at the end."""
    act = ACTIVATIONS[rng.integers(len(ACTIVATIONS) - 1)]
    layers, channels, size = [], SHAPE[0], SHAPE[1]
    for _ in range(rng.integers(1, 5)):
        layers += [nn.Conv2d(channels, width, 3, padding=1)]
        layers += [nn.BatchNorm2d(width)] * bool(rng.integers(2))
        layers += [act()]
        if size > 2:
            layers += [POOLS[rng.integers(3)]()]
            size = size if isinstance(layers[-1], nn.Identity) else size // 2
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def random_backbone(seed):
    """A model in eval mode, its weights as torch makes them times a factor of up to 1.5."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    width = int(rng.choice([4, 8, 32, 64]))
    make = perceptron if rng.integers(3) else convolution
    kind = Everything if rng.integers(4) == 0 else Backboned
    model = kind(
        make(rng, width), width, int(rng.choice([2, 3, 10, 100])), input_shape=SHAPE,
        preprocessing=str(rng.choice(["none", "standardize"])),
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(rng.uniform(0.5, 1.5))
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.running_mean.normal_()
                module.running_var.uniform_(0.1, 10)
        model.linear.bias.add_(float(rng.choice([0, 0, 10, 1000])))
        if model.preprocessing.method == "standardize":
            model.preprocessing.mean.normal_()
            model.preprocessing.scale.uniform_(0.1, 3)
    return model.eval()
