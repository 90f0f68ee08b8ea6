"""A small model of every profile, and its answers computed a second time."""

import itertools

import numpy as np
import onnx
import torch

from smx_export import Profile
from smx_export.contract import ALL_OUTPUTS
from smx_lightning import SoftmaxRegression

SHAPE, CLASSES = (3, 4), 3
NAMES = ["ant", "bee", "cat"]

# As ``Profile.of`` takes them: names, and the width of the weights.
PROFILES = {
    "portable": ("portable", "int8"),
    "robust": ("robust", "int8"),
    "int8": ("compact", "int8"),
    "float16": ("compact", "float16"),
    "image": ("image", "int8"),
    "robust image": ("robust,image", "int8"),
    "int8 image robust": ("compact,image,robust", "int8"),
}
SUBSETS = [
    outputs
    for size in range(1, len(ALL_OUTPUTS) + 1)
    for outputs in itertools.combinations(ALL_OUTPUTS, size)
]
# One of each output, pairs as they are used, and all.
SOME_SUBSETS = [s for s in SUBSETS if len(s) in (1, 4)] + [SUBSETS[4], SUBSETS[-2][-2:]]


def profile(name, outputs=None, **budget):
    names, weights = PROFILES[name]
    return Profile.of(names, outputs=outputs, weights=weights, **budget)


def model_of(num_features=12, classes=CLASSES, **kwargs):
    """Standardised, of inputs from 0 to 1, with weights that decide."""
    torch.manual_seed(1)
    arguments = {
        "input_shape": SHAPE,
        "input_range": (0, 1),
        "preprocessing": "standardize",
        "class_names": NAMES[:classes],
    }
    model = SoftmaxRegression(num_features, classes, **{**arguments, **kwargs})
    with torch.no_grad():
        model.linear.weight.normal_()
        model.linear.bias.normal_()
        if model.preprocessing.method == "standardize":
            model.preprocessing.mean.uniform_(0.3, 0.7)
            model.preprocessing.scale.uniform_(0.1, 0.4)
        elif model.preprocessing.method == "scale":
            model.preprocessing.scale.fill_(0.7)
    return model


def pixels(rows=60, shape=SHAPE):
    return np.random.default_rng(3).integers(0, 256, (rows, *shape), np.uint8)


def in_range(u, low=0.0, high=1.0):
    """What pixels are to the model, float64."""
    return low + (high - low) * u.astype(np.float64) / 255


def labelled(model, rows=60):
    """Rows on the grid of pixels, with the classes that the model gives them."""
    x = torch.from_numpy(in_range(pixels(rows)).astype(np.float32))
    return x, model(x).argmax(1)


def logits(model, x, name="portable"):
    """Scores (n, classes) in float64, the weights rounded as a profile says."""
    mean, scale = (
        t.double().numpy() for t in (model.preprocessing.mean, model.preprocessing.scale)
    )
    weight = model.linear.weight.detach().double().numpy() / scale
    bias = model.linear.bias.detach().double().numpy() - weight @ mean
    if "float16" in name:
        weight = weight.astype(np.float16).astype(np.float64)
    if "int8" in name:
        step = np.abs(weight).max(0) / 127
        weight = np.round(weight / step) * step
    return x.reshape(len(x), -1) @ weight.T + bias


def log_softmax(z):
    z = z - z.max(1, keepdims=True)
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def fed(name, u):
    """Pixels as the file of a profile takes them."""
    return u if "image" in name else in_range(u).astype(np.float32)


def metadata(proto, key, value):
    """Set an entry of the metadata, or remove it."""
    kept = {entry.key: entry.value for entry in proto.metadata_props} | {key: value}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, {k: v for k, v in kept.items() if v is not None})


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]
