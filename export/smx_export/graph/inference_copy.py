"""The model as it is exported: is it nothing but standardisation and the linear layer?

Only what is inherited unchanged is known to be so; whatever a subclass redefines is traced instead.

What a profile changes is changed in a copy of the model first, an ordinary model in its own right:
one whose inputs are pixels, or whose weights are rounded. The parity check then compares the file
with that copy as strictly as any other.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from smx_export.artifact.activation import alpha_of
from smx_export.artifact.rows import parts_of
from smx_export.contract import ALL_OUTPUTS, INPUT, SCORES
from smx_export.errors import FileError
from smx_export.graph.arrays import dtype_of, row_shape
from smx_export.graph.layout import Layout
from smx_export.graph.quantization import Rounded, rounded
from smx_export.profile import Profile, Width
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX, Activation
from smx_lightning.activations.layers import LogProbabilities
from smx_lightning.errors.inputs import FLOAT, NATURAL

BYTE = 255.0  # the whitest pixel
# α: below, float32 loses half of its digits in z^(1 / (α - 1)); above, steps may leave the root.
SMALLEST, LARGEST = 1 + 2.0**-8, 2.0
DEFAULT_RANGE = (0.0, BYTE)  # of inputs whose range is not known: raw pixels


@dataclass(frozen=True)
class InferenceCopy:
    """A model in the shape of a profile.

    Attributes:
        model: What the file must be; it takes the file's own inputs.
        unrounded: The same before its weights were rounded.
        profile: What the file should be like.
        weight: The rounded weights, where the profile has any.
    """

    model: SoftmaxRegression
    unrounded: SoftmaxRegression
    profile: Profile
    weight: Rounded | None

    @property
    def width(self) -> int:
        """How many numbers a row takes while it is computed, about."""
        shape = self.model.input_shape
        sides = shape.values() if isinstance(shape, Mapping) else [shape]
        return max(sum(map(math.prod, sides)), self.model.num_classes)

    @property
    def mixed(self) -> bool:
        """Whether the model takes several inputs, or integers: see :mod:`.probes.mixed`."""
        return is_mixed(self.model)

    @property
    def wide(self) -> bool:
        """Whether the file takes float64: in float32 its inputs would lose their digits."""
        return not self.profile.image and bool(self.unrounded.preprocessing.wide_features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of rows as the model takes them: float64 where the file is wide, else its inputs'."""
        return np.dtype(np.float64) if self.wide else dtype_of(self.model)

    def fed(self, x: NDArray[np.floating]) -> NDArray[Any]:
        """The model's inputs (n, *input_shape) as the file takes them."""
        if self.profile.image:
            return x.astype(np.uint8)
        return x.reshape(len(x), -1) if is_linear(self.model) else x

    def given(self, x: NDArray[Any]) -> NDArray[np.floating]:
        """The inverse of :meth:`fed`."""
        return x.astype(self.dtype).reshape(len(x), *row_shape(self.model))

    def feed(self, x: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The model's inputs by name, as onnxruntime wants them for the file."""
        return parts_of(self.fed(x))

    @property
    def inputs(self) -> list[tuple[str, str, list[int]]]:
        """Name, dtype and shape of each input of the file, in order."""
        parts = self.feed(np.zeros((1, *row_shape(self.model)), self.dtype))
        shape = self.model.input_shape
        names = shape if isinstance(shape, Mapping) else parts
        return [(name, parts[name].dtype.name, [*parts[name].shape[1:]]) for name in names]

    def seen(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Inputs in the units of training, as this model takes them: images as nearest pixels."""
        if not self.profile.image:
            return x
        low, high = self.model.input_range or DEFAULT_RANGE
        pixels = ((x - low) * (BYTE / (high - low))).clip(0, BYTE)
        return np.asarray(np.rint(pixels), np.float32)


def inference_copy(model: SoftmaxRegression, profile: Profile) -> InferenceCopy:
    """A detached copy in the shape of a profile; ``model`` itself is not changed.

    Args:
        model: What :func:`smx_export.graph.detached.detached_copy` made.
        profile: What the file should be like.

    Raises:
        InputError: Where the model cannot be in that shape.
    """
    check_activation(model)
    if is_mixed(model):
        _check_mixed(model, profile)
    elif is_linear(model) and math.prod(model.input_shape) != model.num_features:
        raise InputError(
            f"expected inputs of {model.num_features} entries, as many as the model has features, "
            f"got input_shape={tuple(model.input_shape)}; give the shape, or a sample, of rows as "
            "it is trained on"
        )
    if profile.top_k is not None and profile.top_k > model.num_classes:
        raise InputError(
            f"expected top_k of at most the model's {model.num_classes} classes, got "
            f"{profile.top_k}; choose a smaller number"
        )
    if profile.robust or SCORES in profile.outputs:
        _need(has_own_head(model), "a linear layer and log-softmax of its own", profile)
    if profile.image:
        model = _on_pixels(model)
    if profile.weights is None:
        return InferenceCopy(model, model, profile, None)
    _need(is_linear(model), "nothing but standardisation and a linear layer", profile)
    return _rounded(model, profile.weights, profile)


def is_mixed(model: SoftmaxRegression) -> bool:
    """Whether a model takes several inputs, or integers."""
    return bool(model.input_dtype != FLOAT)


def _check_mixed(model: SoftmaxRegression, profile: Profile) -> None:
    """Complain about inputs that nobody knows what to ask of, or that a file cannot have."""
    if profile.image:
        raise InputError(
            "expected one input of float32 for profile image, which makes pixels of it, got "
            f"{model.input_dtype}; leave the profile out: the file takes {model.input_dtype}"
        )
    several = isinstance(model.input_shape, Mapping)
    dtypes = model.input_dtype if several else {INPUT: model.input_dtype}
    ranges = (model.input_range or {}) if several else {INPUT: model.input_range}
    for name, dtype in dtypes.items():
        if name in ALL_OUTPUTS:
            raise InputError(
                f"expected inputs of other names than the outputs {', '.join(ALL_OUTPUTS)}, got "
                f"{name!r}; rename it"
            )
        if dtype not in (FLOAT, *NATURAL) and ranges.get(name) is None:
            given = f"{{{name!r}: (0, …)}}" if several else "(0, …)"
            raise InputError(
                f"expected the range of the {dtype} input{several * f' {name}'}, out of which the "
                f"parity check draws, got none; give the model, or export_onnx, "
                f"input_range={given}, for token ids (0, vocabulary - 1)"
            )


def layout_of(inference: InferenceCopy) -> Layout:
    """What the file of an inference copy offers."""
    profile, model = inference.profile, inference.model
    return Layout(
        outputs=profile.outputs,
        robust=profile.robust,
        image=model.input_shape if profile.image else None,
        wide=inference.wide,
        threshold=model.threshold,
        alpha=alpha_of_model(model),
        top_k=profile.top_k,
    )


def check_activation(model: SoftmaxRegression) -> None:
    """Complain about an activation that no graph is known for.

    Raises:
        InputError: Then.
    """
    if model._smx_activation == SOFTMAX:
        return
    spec = model._smx_activation.spec
    try:
        alpha = alpha_of(spec)
    except FileError:
        alpha = math.nan
    if not SMALLEST <= alpha <= LARGEST:
        raise InputError(
            f"expected an activation that a file can end in, softmax or α-entmax of an α from "
            f"{SMALLEST:g} to {LARGEST:g}, got {spec!r}; make a model with one of these"
        )
    if not has_own_head(model):
        raise InputError(
            f"expected a model of activation {spec!r} with a linear layer and that activation at "
            "its end, got a subclass that redefines head or forward; override features instead"
        )


def _need(held: bool, what: str, profile: Profile) -> None:
    if not held:
        raise InputError(
            f"expected a model with {what} for profile {profile.name} with outputs "
            f"{', '.join(profile.outputs)}, got a subclass that redefines them; choose profile "
            "portable with log_probs, probs, label"
        )


def is_linear(model: SoftmaxRegression) -> bool:
    """Whether the whole model is linear up to its log-softmax: the direct graph is exact."""
    return has_own_head(model) and type(model).features is SoftmaxRegression.features


def has_own_head(model: SoftmaxRegression) -> bool:
    """Whether what follows ``features`` is standardisation, ``nn.Linear`` and the activation."""
    linear, *rest = model.smx
    return (
        type(model).forward is SoftmaxRegression.forward
        and type(model).head is SoftmaxRegression.head
        and isinstance(linear, nn.Linear)
        and linear.bias is not None
        and len(rest) == 1
        and _is_activation(rest[0], model._smx_activation)
    )


def _is_activation(layer: nn.Module, activation: Activation) -> bool:
    if activation == SOFTMAX:
        return isinstance(layer, nn.LogSoftmax) and layer.dim == 1
    return type(layer) is LogProbabilities and layer.activation == activation


def alpha_of_model(model: SoftmaxRegression) -> float:
    """α of the activation that a model ends in, as :func:`inference_copy` let it pass."""
    return alpha_of(model._smx_activation.spec)


def unit_of(model: SoftmaxRegression) -> str:
    """What a model's answers are compared in, see :class:`smx_export.artifact.comparison.Expected`.

    Probabilities where they may be 0.
    """
    return "nats" if model._smx_activation == SOFTMAX else "probability"


def _on_pixels(model: SoftmaxRegression) -> SoftmaxRegression:
    """The model of pixels 0..255, of which each is ``low + (high - low) / 255 · pixel`` to it."""
    low, high = model.input_range or DEFAULT_RANGE
    step = (high - low) / BYTE
    if (low, step) == (0.0, 1.0):
        return model
    model = copy.deepcopy(model)
    if is_linear(model):
        # ((low + step · u) - mean) / scale is another standardisation; float64 keeps it exact.
        statistics = model.preprocessing
        statistics.mean = (statistics.centre - low) / step
        statistics.mean_rest = torch.zeros_like(statistics.mean)
        statistics.scale = statistics.scale.double() / step
        statistics.method = "standardize"
        return model
    # A forward of its own need not call features.
    first = "features" if type(model).forward is SoftmaxRegression.forward else "forward"
    inner = getattr(type(model), first)

    def scaled(self: SoftmaxRegression, x: Tensor) -> Tensor:
        answer: Tensor = inner(self, low + step * x)
        return answer

    model.__class__ = type(type(model).__name__, (type(model),), {first: scaled})
    return model


@torch.no_grad()
def _rounded(model: SoftmaxRegression, width: Width, profile: Profile) -> InferenceCopy:
    weight, bias, shift = model.preprocessing.fold(model.linear)
    small = rounded(weight.numpy(), width)
    if not np.isfinite(small.stored).all():
        raise InputError(
            f"expected weights that {width} can hold, got {float(weight.abs().max()):.3g}; use "
            "int8 (--weights int8), or standardise the features"
        )
    copied = copy.deepcopy(model)
    copied.linear.weight.copy_(torch.from_numpy(small.stored))
    copied.linear.bias.copy_(bias)
    statistics = copied.preprocessing
    statistics.method = "standardize"
    ones = torch.ones_like(weight[0])
    statistics.mean = 0 * ones if shift is None else shift
    statistics.mean_rest = 0 * ones
    statistics.centred_first = shift is not None  # decided by the scale, which is lost here
    statistics.scale = ones if small.scale is None else 1 / torch.from_numpy(small.scale).double()
    return InferenceCopy(copied, model, profile, small)
