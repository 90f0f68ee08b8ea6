"""The model as it is inference, and whether it is nothing but standardisation and the linear layer.

Only what is inherited unchanged is known to be so; whatever a subclass redefines is traced instead.

What a profile changes is changed in a copy of the model first, an ordinary model in its own right:
one whose inputs are pixels, or whose weights are rounded. The parity check then compares the file
with that copy as strictly as any other.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics import Metric

from smx_export.contract import SCORES
from smx_export.graph.layout import Layout
from smx_export.graph.quantization import Rounded, rounded
from smx_export.profile import Profile, Width
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.errors.checks import check_range
from smx_lightning.processes.sharding import is_sharded, whole_smx

if TYPE_CHECKING:
    from collections.abc import Sequence


BYTE = 255.0  # the whitest pixel
DEFAULT_RANGE = (0.0, BYTE)  # of inputs that nobody told the range of: raw pixels


@dataclass(frozen=True)
class InferenceCopy:
    """A model in the shape of a profile.

    Attributes:
        model: What the file must be; it takes the file's own inputs.
        unrounded: The same before its weights were rounded.
        profile: What was asked for.
        weight: The rounded weights, where the profile has any.
    """

    model: SoftmaxRegression
    unrounded: SoftmaxRegression
    profile: Profile
    weight: Rounded | None

    @property
    def width(self) -> int:
        """How many numbers a row takes while it is computed, about."""
        return max(math.prod(self.model.input_shape), self.model.num_classes)

    @property
    def wide(self) -> bool:
        """Whether the file takes float64: in float32 its inputs would lose their digits."""
        return not self.profile.image and bool(self.unrounded.preprocessing.wide_features)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the model's inputs: float64 where the file is wide, else float32."""
        return np.dtype(np.float64 if self.wide else np.float32)

    def fed(self, x: NDArray[np.floating]) -> NDArray[Any]:
        """The model's inputs (n, *input_shape) as the file takes them."""
        if self.profile.image:
            return x.astype(np.uint8)
        return x.reshape(len(x), -1) if is_linear(self.model) else x

    def given(self, x: NDArray[Any]) -> NDArray[np.floating]:
        """The inverse of :meth:`fed`."""
        return x.astype(self.dtype).reshape(len(x), *self.model.input_shape)

    def seen(self, x: NDArray[np.floating]) -> NDArray[np.floating]:
        """Inputs in the units of training, as this model takes them: images as nearest pixels."""
        if not self.profile.image:
            return x
        low, high = self.model.input_range or DEFAULT_RANGE
        pixels = ((x - low) * (BYTE / (high - low))).clip(0, BYTE)
        return np.asarray(np.rint(pixels), np.float32)


def inference_copy(model: SoftmaxRegression, profile: Profile) -> InferenceCopy:
    """What :func:`detached_copy` made, in the shape of a profile; ``model`` is not changed."""
    if profile.robust or SCORES in profile.outputs:
        _need(has_own_head(model), "a linear layer and log-softmax of its own", profile)
    if profile.image:
        model = _on_pixels(model)
    if profile.weights is None:
        return InferenceCopy(model, model, profile, None)
    _need(is_linear(model), "nothing but standardisation and a linear layer", profile)
    return _rounded(model, profile.weights, profile)


def layout_of(inference: InferenceCopy) -> Layout:
    """How the file of a shipped model is laid out."""
    profile, model = inference.profile, inference.model
    return Layout(
        outputs=profile.outputs,
        robust=profile.robust,
        image=model.input_shape if profile.image else None,
        wide=inference.wide,
        threshold=model.threshold,
    )


def _need(held: bool, what: str, profile: Profile) -> None:
    if not held:
        raise InputError(
            f"expected a model with {what} for profile {profile.name} with outputs "
            f"{', '.join(profile.outputs)}, got a subclass that redefines them; choose profile "
            "portable with log_probs, probs, label"
        )


def detached_copy(
    model: SoftmaxRegression,
    input_shape: Sequence[int] | None = None,
    input_range: tuple[float, float] | None = None,
) -> SoftmaxRegression:
    """The model as it is inference: a detached copy in eval mode, float32, on the CPU.

    Where its classes are spread over processes, each of them must call this.
    """
    # The copy leaves the trainer behind, and with it data and loggers.
    memo: dict[int, Any] = {id(model._trainer): None, id(model._fabric): None}
    memo |= off_graph(model)
    if is_sharded(model.smx):
        memo |= {id(model.device_mesh): None, id(model.smx): whole_smx(model.smx)}
        memo |= {id(m.process_group): None for m in model.modules() if isinstance(m, Metric)}
    detached = copy.deepcopy(model, memo)
    if input_shape is not None:
        detached.input_shape = shape_of(input_shape)
    if input_range is not None:
        wanted = check_range(input_range)
        if detached.input_range not in (None, wanted):
            raise InputError(
                f"expected the input range that the model knows, {detached.input_range}, got "
                f"{tuple(input_range)}; leave it out"
            )
        detached.input_range = wanted
    inference = detached.cpu().float().eval()
    for name, parameter in inference.named_parameters():
        if not parameter.isfinite().all():
            raise InputError(
                f"expected finite weights, got NaN or infinity in {name}; train the model again, "
                "with a lower learning rate or standardised features"
            )
    return inference.requires_grad_(False)


def shape_of(given: Sequence[int]) -> tuple[int, ...]:
    """The shape of one input, if it is one."""
    try:
        shape = tuple(int(size) for size in given)
    except (TypeError, ValueError):
        shape = ()
    if not shape or min(shape) < 1:
        raise InputError(
            f"expected input_shape as the lengths of one input, such as (3, 32, 32), got {given!r}"
            "; put a single one in brackets, (64,)"
        )
    return shape


def off_graph(module: nn.Module) -> dict[int, Any]:
    """A memo for ``deepcopy``: what a forward pass kept for a look hangs on a graph that has none.

    Steps keep such tensors in lists and dictionaries as well.
    """
    memo: dict[int, Any] = {}
    todo: list[Any] = [vars(part) for part in module.modules()]
    seen = set(map(id, todo))
    while todo:
        kept = todo.pop()
        for value in kept.values() if isinstance(kept, dict) else kept:
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
            elif isinstance(value, (dict, list, tuple, set)) and id(value) not in seen:
                seen.add(id(value))
                todo.append(value)
    return memo


def is_linear(model: SoftmaxRegression) -> bool:
    """Whether the whole model is linear up to its log-softmax: the direct graph is exact."""
    return has_own_head(model) and type(model).features is SoftmaxRegression.features


def has_own_head(model: SoftmaxRegression) -> bool:
    """Whether what follows ``features`` is standardisation, ``nn.Linear`` and ``LogSoftmax``."""
    linear, *rest = model.smx
    return (
        type(model).forward is SoftmaxRegression.forward
        and type(model).head is SoftmaxRegression.head
        and isinstance(linear, nn.Linear)
        and linear.bias is not None
        and len(rest) == 1
        and isinstance(rest[0], nn.LogSoftmax)
        and rest[0].dim == 1
    )


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
