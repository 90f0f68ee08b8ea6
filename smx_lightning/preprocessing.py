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
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from smx_lightning.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Method = Literal["none", "standardize", "scale"]


CANCELLING = 1024.0  # |mean| / scale at which folding would cost ten of float32's 24 bits


class Folded(NamedTuple):
    """``weight @ (x - shift) + bias``: weight (classes, features), bias (classes,).

    ``shift`` (features,) is ``None`` where it is part of the bias.
    """

    weight: Tensor
    bias: Tensor
    shift: Tensor | None


@dataclass
class Moments:
    """Count, mean, squared deviations and largest magnitude of rows seen so far, in float64.

    Batches, and processes, are merged pairwise, which keeps every digit that a second pass would
    (Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
    variances", 1979).

    >>> rows = torch.arange(12.0).reshape(4, 3)
    >>> halves = Moments.of(rows[:1]).merged(Moments.of(rows[1:]))
    >>> halves.count, halves.mean.tolist(), (halves.deviations / 4).tolist()
    (4, [4.5, 5.5, 6.5], [11.25, 11.25, 11.25])
    """

    count: int
    mean: Tensor
    deviations: Tensor
    magnitude: Tensor

    @classmethod
    def empty(cls, num_features: int) -> Moments:
        """No rows yet."""
        zeros = torch.zeros(num_features, dtype=torch.float64)
        return cls(0, zeros, zeros.clone(), zeros.clone())

    @classmethod
    def of(cls, rows: Shaped[Tensor, "rows features"]) -> Moments:
        """The moments of one batch of rows, computed on the CPU: not every device has float64."""
        rows = rows.detach().cpu().double()
        if len(rows) == 0:
            return cls.empty(rows.shape[1])
        mean = rows.mean(0)
        return cls(len(rows), mean, (rows - mean).square().sum(0), rows.abs().amax(0))

    def merged(self, other: Moments) -> Moments:
        """The moments of both sets of rows together."""
        count = self.count + other.count
        if count == 0:
            return self
        shift = other.mean - self.mean
        between = shift.square() * (self.count * other.count / count)
        return Moments(
            count,
            self.mean + shift * (other.count / count),
            self.deviations + other.deviations + between,
            torch.maximum(self.magnitude, other.magnitude),
        )

    def packed(self) -> Tensor:
        """All four as one float64 tensor (4, features), the form in which processes exchange it."""
        count = torch.full_like(self.mean, float(self.count))
        return torch.stack([count, self.mean, self.deviations, self.magnitude])

    @classmethod
    def unpacked(cls, packed: Tensor) -> Moments:
        """Inverse of :meth:`packed`."""
        count, mean, deviations, magnitude = packed.cpu().double()
        return cls(int(count[0]), mean, deviations, magnitude)


class Preprocessing(nn.Module):
    """``(x - mean) / scale`` with statistics that live in the checkpoint.

    The statistics stay float32 whatever precision the rest of the model is cast to: a mean of
    1000.5 rounded to bfloat16 would be 1000.

    Args:
        num_features: Entries of a feature vector.
        method: ``none``, ``standardize`` or ``scale``, see the table above.

    Shapes: features (batch, num_features) → the same, float32 or wider.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, method: Method = "none") -> None:
        super().__init__()
        if method not in get_args(Method):
            expected = ", ".join(get_args(Method))
            raise InputError(f"preprocessing must be one of {expected}, got {method!r}")
        self.method = method
        self.centred_first = False  # set where the scale is no longer the deviation; see fold
        self.register_buffer("mean", torch.zeros(num_features))
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
        mean, scale = (old.to(torch.float64, copy=True) for old in (self.mean, self.scale))
        self._fit(moments)
        if behind:
            weight, bias = behind
            wide = weight.double()
            bias += (wide @ ((self.mean.double() - mean) / scale)).to(bias.dtype)
            weight.copy_(wide * (self.scale.double() / scale))

    def _fit(self, moments: Moments) -> None:
        if self.method == "standardize":
            deviation = (moments.deviations / max(moments.count, 1)).sqrt()
            # Rounding leaves a constant feature with a deviation of about eps·|mean|, not 0.
            constant = deviation <= 1e-12 * moments.magnitude
            self.mean.copy_(moments.mean)
            self.scale.copy_(torch.where(constant, 1.0, deviation))
        elif self.method == "scale":
            magnitude = moments.magnitude.max()
            self.scale.fill_(float(magnitude) if magnitude > 0 else 1.0)

    def forward(self, x: Shaped[Tensor, "batch features"]) -> Float[Tensor, "batch features"]:
        """Standardised features; under ``none``, the features as a floating-point tensor."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x if self.method == "none" else (x - self.mean) / self.scale

    def fold(self, linear: nn.Linear) -> Folded:
        """The float64 layer that does preprocessing and ``linear`` in one step.

        The mean is subtracted first where it would cancel, or :attr:`centred_first` says so.
        """
        weight = linear.weight.detach().double() / self.scale.double()
        bias, mean = linear.bias.detach().double(), self.mean.double()
        if self.centred_first or (mean.abs() > CANCELLING * self.scale).any():
            return Folded(weight, bias, mean)
        return Folded(weight, bias - weight @ mean, None)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Preprocessing:
        exact = {name: buffer.clone() for name, buffer in self.named_buffers()}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's own
        for name, buffer in exact.items():
            setattr(self, name, buffer.to(getattr(self, name).device))
        return self

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{len(self.mean)}, method={self.method!r}"
