"""Models whose files are told apart, and what stands in a file."""

import onnx
import torch

from smx_export.contract import ALL_OUTPUTS
from smx_export.profile import Profile
from smx_lightning import SoftmaxRegression

ALL = Profile(outputs=ALL_OUTPUTS)


def read(path):
    """A file's metadata."""
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def model_of(d=6, k=3, *, mean=0.0, weight=1.0, **kwargs):
    """A model with weights, biases and statistics that are all of different sizes."""
    model = SoftmaxRegression(d, k, preprocessing="standardize", **kwargs)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.linear.weight.copy_(weight * torch.randn(k, d, generator=random))
        model.linear.bias.copy_(min(weight, 1) * torch.randn(k, generator=random))
        model.preprocessing.mean.copy_(mean + torch.rand(d, generator=random))
        model.preprocessing.scale.copy_(0.5 + torch.rand(d, generator=random))
    return model
