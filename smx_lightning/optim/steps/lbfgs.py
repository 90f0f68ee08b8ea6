"""Limited-memory BFGS: what earlier steps taught about the curvature."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class Pairs:
    """The last steps s and the changes of the gradient y along them.

    Args:
        memory: How many are remembered.
        epsilon: Relative rounding of the gradients.
    """

    def __init__(self, memory: int, epsilon: float) -> None:
        self._pairs: deque[tuple[Tensor, Tensor]] = deque(maxlen=memory)
        self._epsilon = epsilon

    @property
    def memory(self) -> int:
        """How many are remembered."""
        return self._pairs.maxlen or 0

    def __len__(self) -> int:
        return len(self._pairs)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a step, if the curvature along it is positive beyond rounding."""
        if (step * change).sum() > self._epsilon * step.norm() * change.norm():
            self._pairs.append((step, change))

    def clear(self) -> None:
        """Forget them all."""
        self._pairs.clear()

    def direction(
        self, gradient: Tensor, solve: Callable[[Tensor], Tensor], *, rescale: bool
    ) -> Tensor:
        """Where to go from ``gradient``; ``solve`` applies the inverse of the first curvature.

        Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.4 ("two-loop recursion").

        Args:
            gradient: (classes, features + 1).
            solve: M⁻¹, of the same shape.
            rescale: Whether M⁻¹ is taken times sᵀy / yᵀM⁻¹y of the last pair (their eq. 7.20, M⁻¹
                in place of the identity), so that it has the curvature met last.
        """
        remaining, lengths = gradient.clone(), []
        for step, change in reversed(self._pairs):
            lengths.append(_dot(step, remaining) / _dot(step, change))
            remaining.sub_(change, alpha=lengths[-1])
        direction = solve(remaining)
        if rescale and self._pairs:
            step, change = self._pairs[-1]
            direction = direction * (_dot(step, change) / _dot(change, solve(change)))
        for (step, change), length in zip(self._pairs, reversed(lengths), strict=True):
            present = _dot(change, direction) / _dot(step, change)
            direction = direction.add(step, alpha=length - present)
        return -direction

    def state(self) -> list[list[Tensor]]:
        """What a checkpoint keeps."""
        return [list(pair) for pair in self._pairs]

    def restore(self, state: Sequence[Sequence[Tensor]]) -> None:
        """Inverse of :meth:`state`."""
        self._pairs.clear()
        self._pairs.extend((step, change) for step, change in state)


def _dot(one: Tensor, other: Tensor) -> float:
    """⟨one, other⟩, without a product as large as they are."""
    return float(torch.dot(one.flatten(), other.flatten()))
