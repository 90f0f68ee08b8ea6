"""The maps that a softmax regression may end in, each with its loss.

Conventions
-----------
A member is p(s) = argmax over the simplex of ⟨p, s⟩ - Ω(p); its scores s may be shifted by a number
without changing p. With Ω*(s) = ⟨p, s⟩ - Ω(p) its Fenchel-Young loss is

    L(s; q) = Ω*(s) + Ω(q) - ⟨s, q⟩,    ∂L/∂s = p - q,

convex, at least 0, and 0 where p = q (Blondel, Martins & Niculae, "Learning with Fenchel-Young
losses", JMLR 21, 2020). For Tsallis' α-entropy -Ω(p) = (1 - Σ p^α) / (α (α - 1)), Shannon's as
α → 1, p is α-entmax (Peters, Niculae & Martins, ACL 2019): α = 1 softmax, 2 sparsemax. With
u = p^(2-α) where p > 0, and 0 elsewhere, its Jacobian is

    ∂p/∂s = diag(u) - u uᵀ / Σu = U (diag(w) - w wᵀ),    U = Σu,  w = u / U,

U times that of softmax at the probabilities w.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from smx_lightning.activations.derivatives import entmax
from smx_lightning.activations.functions import normmax
from smx_lightning.errors import InputError
from smx_lightning.errors.text import shortened

LARGEST = 1e30  # α; float32 ends at 3e38, and long before that p is hardmax to the last digit
SHOWN = 200  # characters of what was given, which may come from a file


class Jacobian(NamedTuple):
    """``scale`` times softmax's Jacobian at the probabilities ``weights``.

    ``weights`` has the shape of the scores; ``scale`` has 1 in place of the classes.
    """

    weights: Tensor
    scale: Tensor


class Activation(ABC):
    """A member of the family. Instances are immutable, and equal where they are the same map."""

    @property
    @abstractmethod
    def spec(self) -> str | dict[str, float]:
        """As :func:`activation_of` takes it, and as hyper-parameters and files have it."""

    @property
    def name(self) -> str:
        """In words."""
        return str(self.spec)

    @property
    @abstractmethod
    def sparse(self) -> bool:
        """Whether probabilities may be exactly 0, and a loss, too, without infinite scores."""

    @abstractmethod
    def probs(self, scores: Tensor, dim: int = -1) -> Tensor:
        """p(s) along ``dim``."""

    def log_probs(self, scores: Tensor, dim: int = -1) -> Tensor:
        """The logarithm of p(s); minus infinity, with no gradient, where p is 0."""
        p = self.probs(scores, dim)
        return torch.where(p > 0, torch.where(p > 0, p, 1.0).log(), p.detach().log())

    @abstractmethod
    def entropy(self, q: Tensor, dim: int = -1) -> Tensor:
        """-Ω(q), without ``dim``: 0 of a one-hot q, largest of equal ones."""

    @abstractmethod
    def jacobian(self, probs: Tensor, dim: int = -1) -> Jacobian:
        """∂p/∂s where p is ``probs``."""

    @abstractmethod
    def difference(self, threshold: float) -> float:
        """Of two classes: s₁ - s₀ where p₁ = γ, the threshold in (0, 1)."""


@dataclass(frozen=True)
class Entmax(Activation):
    """α-entmax; α = 1 is softmax, 1.5 entmax15, 2 sparsemax.

    Attributes:
        alpha: α, at least 1.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Complain as :func:`activation_of` does."""
        object.__setattr__(self, "alpha", _checked("alpha", self.alpha))

    @property
    def spec(self) -> str | dict[str, float]:
        """See :class:`Activation`."""
        named = {alpha: name for name, alpha in NAMED.items()}
        return named.get(self.alpha, {"alpha": self.alpha})

    @property
    def sparse(self) -> bool:
        """See :class:`Activation`."""
        return self.alpha > 1

    def probs(self, scores: Tensor, dim: int = -1) -> Tensor:
        """See :class:`Activation`."""
        return entmax(scores, self.alpha, dim)

    def log_probs(self, scores: Tensor, dim: int = -1) -> Tensor:
        """See :class:`Activation`."""
        return scores.log_softmax(dim) if self.alpha == 1 else super().log_probs(scores, dim)

    def entropy(self, q: Tensor, dim: int = -1) -> Tensor:
        """See :class:`Activation`."""
        if self.alpha == 1:
            shannon: Tensor = torch.special.entr(q).sum(dim)
            return shannon
        # Σ q (1 - q^(α-1)), which loses no digits as α → 1.
        power = self.alpha - 1
        logs = torch.where(q > 0, q, 1.0).log()
        missing: Tensor = -(q * torch.expm1(power * logs)).sum(dim)
        return missing / (self.alpha * power)

    def jacobian(self, probs: Tensor, dim: int = -1) -> Jacobian:
        """See :class:`Activation`."""
        u = torch.where(probs > 0, probs ** (2 - self.alpha), 0.0)
        scale = u.sum(dim, keepdim=True)
        return Jacobian(u / scale, scale)

    def difference(self, threshold: float) -> float:
        """See :class:`Activation`."""
        if self.alpha == 1:
            return math.log(threshold) - math.log1p(-threshold)
        power = self.alpha - 1
        return float((threshold**power - (1 - threshold) ** power) / power)


@dataclass(frozen=True)
class Normmax(Activation):
    """:func:`.normmax`: Ω(p) = ‖p‖_α - 1.

    Attributes:
        alpha: α, above 1.
    """

    alpha: float

    def __post_init__(self) -> None:
        """Complain as :func:`activation_of` does."""
        object.__setattr__(self, "alpha", _checked("normmax", self.alpha))

    @property
    def spec(self) -> str | dict[str, float]:
        """See :class:`Activation`."""
        return {"normmax": self.alpha}

    @property
    def sparse(self) -> bool:
        """See :class:`Activation`."""
        return True

    def probs(self, scores: Tensor, dim: int = -1) -> Tensor:
        """See :class:`Activation`."""
        return normmax(scores, self.alpha, dim)

    def entropy(self, q: Tensor, dim: int = -1) -> Tensor:
        """See :class:`Activation`."""
        # Of q / max q, whose largest power is 1: all those of q may be too small for its dtype.
        largest = q.detach().amax(dim, keepdim=True).clamp(min=torch.finfo(q.dtype).tiny)
        norm: Tensor = torch.linalg.vector_norm(q / largest, self.alpha, dim)
        return 1 - norm * largest.squeeze(dim)

    def jacobian(self, probs: Tensor, dim: int = -1) -> Jacobian:
        """Refused: it is not softmax's at other probabilities."""
        raise InputError(
            "expected an activation whose Jacobian has the form of softmax's, got normmax; take "
            "'softmax', 'entmax15', 'sparsemax' or another α-entmax, or an optimiser of gradients"
        )

    def difference(self, threshold: float) -> float:
        """See :class:`Activation`."""
        largest = max(threshold, 1 - threshold)  # as above
        p, rest, power = threshold / largest, (1 - threshold) / largest, self.alpha - 1
        norm = (p**self.alpha + rest**self.alpha) ** (1 / self.alpha)
        return float((p / norm) ** power - (rest / norm) ** power)


def _checked(name: str, given: Any) -> float:
    """α out of ``{name: α}``, if there is such a member."""
    number = math.nan
    if isinstance(given, Real) and not isinstance(given, bool):
        try:
            number = float(given)
        except OverflowError:  # of a whole number
            given = number = math.inf if cast("int", given) > 0 else -math.inf
    if LARGEST < number < math.inf:
        raise InputError(
            f"expected a number of at most {LARGEST:g} in an activation, got {{{name!r}: "
            f"{number:g}}}; take that one, whose probabilities are the same to all digits"
        )
    if not (1 <= number < math.inf if name == "alpha" else 1 < number < math.inf):
        raise _refused({name: given})
    return number


def _refused(spec: Any) -> InputError:
    return InputError(
        f"expected an activation out of {', '.join(NAMED)}, {{'alpha': a number of at least 1}} or "
        f"{{'normmax': a number above 1}}, got {shortened(repr(spec), SHOWN)}"
    )


NAMED = {"softmax": 1.0, "entmax15": 1.5, "sparsemax": 2.0}
NUMBERED: dict[str, Callable[[Any], Activation]] = {"alpha": Entmax, "normmax": Normmax}
SOFTMAX = Entmax(1.0)


def activation_of(spec: str | Mapping[str, Any] | Activation) -> Activation:
    """The member of a name or of numbers.

    Args:
        spec: ``softmax``, ``entmax15`` or ``sparsemax``, ``{"alpha": 1.3}`` of an α-entmax or
            ``{"normmax": 2.0}``; a member is given back.

    Raises:
        InputError: For anything else.
    """
    if isinstance(spec, Activation):
        return spec
    if isinstance(spec, str) and spec in NAMED:
        return Entmax(NAMED[spec])
    if isinstance(spec, Mapping) and len(spec) == 1:
        ((name, alpha),) = spec.items()
        if name in NUMBERED:
            return NUMBERED[name](alpha)
    raise _refused(spec)
