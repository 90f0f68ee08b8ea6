"""Standardisation fitted on the training data and carried by the checkpoint.

Conventions
-----------
A feature vector ``x`` of ``num_features`` entries becomes ``(x - mean) / scale``, entry by entry:

=============== ================================= ==========================================
method          mean                              scale
=============== ================================= ==========================================
``none``        0                                 1
``standardize`` the feature's mean                the feature's standard deviation
``scale``       0                                 the largest ``|x|`` over all features
=============== ================================= ==========================================

``scale`` is one number for all features, as in pixels / 255. A constant feature gets scale 1.

Because the map is affine it folds into the linear layer behind it, which is what the exporter
does: ``W (x - mean) / scale + b = (W / scale) x + (b - (W / scale) mean)``. Where a mean is very
large against its scale the two parts would cancel, and the mean is subtracted first instead.

Inputs such as 1.7e9 + uniform(0, 64) have no digits left in float32, whose numbers lie 128 apart
there. A feature is *wide* where rounding to float32 moves it by more than 2⁻¹⁰ of its standard
deviation; it arrives as float64 or as integers, its mean is held in two float32 numbers, and mean
and scale are applied in float64 before anything is rounded. What rounding does to values that lie
closer together than that is no concern: of ``(x - mean) / scale`` float32 keeps no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from smx_lightning.errors import InputError
from smx_lightning.errors.checks import check_dense
from smx_lightning.preprocessing.moments import ROUNDED, TINY, Moments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Method = Literal["none", "standardize", "scale"]


CANCELLING = 1024.0  # |mean| / scale at which folding would cost ten of float32's 24 bits
NEGLIGIBLE = 2.0**-60  # of a mean: nothing beside it in float64


class Folded(NamedTuple):
    """``weight @ (x - shift) + bias``: weight (classes, features), bias (classes,).

    ``shift`` (features,) is ``None`` where it is part of the bias.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor | None


class Preprocessing(nn.Module):
    """``(x - mean) / scale`` with statistics that live in the checkpoint.

    The statistics stay float32 whatever precision the rest of the model is cast to: a mean of
    1000.5 rounded to bfloat16 would be 1000. What float32 rounds off the mean of a wide feature
    stands in ``mean_rest``, which is 0 of all others: 48 bits in all, on devices without float64 as
    well, and through everything that copies, casts or averages buffers.

    Args:
        num_features: Entries of a feature vector.
        method: ``none``, ``standardize`` or ``scale``, see the table above.

    Shapes: features (batch, num_features) → the same, float32 or wider.
    """

    mean: Tensor
    mean_rest: Tensor
    scale: Tensor

    def __init__(self, num_features: int, method: Method = "none") -> None:
        super().__init__()
        if method not in get_args(Method):
            expected = ", ".join(get_args(Method))
            raise InputError(f"preprocessing must be one of {expected}, got {method!r}")
        self.method: Method = next(name for name in get_args(Method) if name == method)  # plain
        self.wide = False  # whether fitting found a feature that needs float64 inputs
        self.centred_first = False  # set where the scale is no longer the deviation; see fold
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("mean_rest", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def fit(self, moments: Moments, *, behind: Sequence[Tensor] = ()) -> None:
        """Set mean and scale from the training rows' moments.

        Args:
            moments: Of the features.
            behind: Weight (classes, features) and bias (classes,) of a layer that was trained with
                earlier statistics; changed in place so that it answers as before:
                W (x - μ) / σ + b = W' (x - μ') / σ' + b', where W' = W σ' / σ and
                b' = b + W (μ' - μ) / σ.
        """
        mean, scale = (old.to(torch.float64, copy=True) for old in (self.centre, self.scale))
        self._fit(moments)
        if behind:
            weight, bias = behind
            wide = weight.double()
            bias += (wide @ ((self.centre - mean) / scale)).to(bias.dtype)
            weight.copy_(wide * (self.scale.double() / scale))

    def _fit(self, moments: Moments) -> None:
        if self.method == "standardize":
            self.mean.copy_(moments.mean)
            rest = (moments.mean - moments.mean.float()).float()
            # Never exactly 0, by which a wide feature is known.
            least = (NEGLIGIBLE * moments.magnitude).clamp(min=TINY).float()
            rest = torch.where(rest == 0, least, rest)
            self.mean_rest.copy_(torch.where(moments.wide, rest, 0.0))
            self.wide = bool(moments.wide.any())
            self.scale.copy_(torch.where(moments.constant, 1.0, moments.deviation))
        elif self.method == "scale":
            magnitude = moments.magnitude.max()
            self.scale.fill_(float(magnitude) if magnitude > 0 else 1.0)

    @property
    def wide_features(self) -> list[int]:
        """The features that need float64 inputs."""
        return self.mean_rest.nonzero().flatten().tolist()

    @property
    def centre(self) -> Float[Tensor, " features"]:
        """The mean in float64, with all its digits."""
        return self.mean.double() + self.mean_rest.double()

    def forward(self, x: Shaped[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Standardised features; under ``none``, the features as a floating-point tensor.

        float64, and integers of a model with wide features, are computed in float64.

        Raises:
            InputError: Where a feature is wide, for inputs that have lost its digits already; for
                sparse ones, which have no means to subtract.
        """
        answer = torch.promote_types(x.dtype, torch.float32)
        if self.method == "none":
            return x.to(answer)
        check_dense(x)
        if x.dtype == torch.float64 or (x.dtype in ROUNDED and self.mean_rest.any()):
            return ((x.double() - self.centre) / self.scale).to(answer)
        if self.wide and x.is_floating_point() and self.mean_rest.any():  # the flag costs no look
            dtype = str(x.dtype).removeprefix("torch.")
            raise InputError(
                f"expected float64 or integer inputs, got {dtype}, which has lost digits that "
                f"feature {self.wide_features[0]} is told apart by; give the values from before "
                f"they became {dtype}"
            )
        return (x.to(answer) - self.mean) / self.scale

    def fold(self, linear: nn.Linear) -> Folded:
        """The float64 layer that does preprocessing and ``linear`` in one step.

        The mean is subtracted first where it would cancel, or :attr:`centred_first` says so.
        """
        weight = linear.weight.detach().double() / self.scale.double()
        bias, mean = linear.bias.detach().double(), self.centre
        cancelling = (mean.abs() > CANCELLING * self.scale).any() or self.mean_rest.any()
        if self.centred_first or cancelling:
            return Folded(weight, bias, mean)
        return Folded(weight, bias - weight @ mean, None)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Preprocessing:
        exact = {name: buffer.clone() for name, buffer in self.named_buffers()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}mean" in state:  # 0.1 knew no wide features
            state.setdefault(f"{prefix}mean_rest", torch.zeros_like(state[f"{prefix}mean"]))
        super()._load_from_state_dict(state, prefix, *args)
        self.wide = bool(self.mean_rest.any())

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{len(self.mean)}, method={self.method!r}"
