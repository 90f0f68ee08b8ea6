"""Limited-memory BFGS: what earlier steps taught about the curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class Pairs:
    """The last steps s and the changes of the gradient y along them.

    They are the rows of two matrices S and Y, in which a new pair takes the oldest one's place, so
    that Nocedal & Wright's recursion over pairs ("Numerical Optimization", 2006, algorithm 7.4)
    becomes four products with a matrix, and two triangular systems with R = (sᵢᵀ yⱼ), i no later
    than j: the same numbers without a hundred products of two vectors.

    Args:
        memory: How many are remembered.
        epsilon: Relative rounding of the gradients.
    """

    def __init__(self, memory: int, epsilon: float) -> None:
        self.memory = memory
        self._epsilon = epsilon
        self._steps = self._changes = self._products = torch.empty(0, 0)
        self._order: list[int] = []  # their rows, the oldest first

    def __len__(self) -> int:
        return len(self._order)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Remember a step, if the curvature along it is positive beyond rounding."""
        step, change = step.flatten(), change.flatten()
        norms = torch.linalg.vector_norm(step) * torch.linalg.vector_norm(change)
        if not torch.dot(step, change) > self._epsilon * norms:
            return
        if self._steps.numel() == 0:
            self._steps = step.new_zeros(self.memory, len(step))
            self._changes = torch.zeros_like(self._steps)
            self._products = step.new_zeros(self.memory, self.memory)
        full = len(self._order) == self.memory
        row = self._order.pop(0) if full else len(self._order)
        self._order.append(row)
        self._steps[row], self._changes[row] = step, change
        used = len(self._order)
        self._products[:used, row] = self._steps[:used] @ change
        self._products[row, :used] = self._steps[row] @ self._changes[:used].T

    def clear(self) -> None:
        """Forget them all."""
        self._order = []

    def direction(
        self, gradient: Tensor, solve: Callable[[Tensor], Tensor], *, rescale: bool
    ) -> Tensor:
        """Where to go from ``gradient``; ``solve`` applies the inverse of the first curvature.

        With α of the first loop of the recursion, and δ = α - β of the second,

            R α = S g,    r = M⁻¹ (g - Yᵀ α),    Rᵀ δ = diag(R) α - Y r,    H g = r + Sᵀ δ

        Args:
            gradient: (classes, features + 1).
            solve: M⁻¹, of the same shape.
            rescale: Whether M⁻¹ is taken times sᵀy / yᵀM⁻¹y of the last pair (their eq. 7.20, M⁻¹
                in place of the identity), so that it has the curvature met last.
        """
        if not self._order:
            return -solve(gradient)
        used = len(self._order)
        order = torch.tensor(self._order, device=gradient.device)
        steps, changes = self._steps[:used], self._changes[:used]
        r = self._products[order[:, None], order].triu()
        alpha = _solved(r, (steps @ gradient.flatten())[order], upper=True)
        by_row = torch.zeros_like(alpha)
        by_row[order] = alpha
        direction = solve((gradient.flatten() - by_row @ changes).view_as(gradient))
        if rescale:
            change = self._changes[self._order[-1]]
            curvature = torch.dot(change, solve(change.view_as(gradient)).flatten())
            direction = direction * (r[-1, -1] / curvature)
        left = r.diagonal() * alpha - (changes @ direction.flatten())[order]
        by_row[order] = _solved(r.T, left, upper=False)
        return -direction - (by_row @ steps).view_as(gradient)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: rows where they are, since rounding may depend on it."""
        used = len(self._order)
        return {
            "steps": self._steps[:used].clone(),
            "changes": self._changes[:used].clone(),
            "products": self._products.clone(),
            "order": list(self._order),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`."""
        self._order, self._products = list(state["order"]), state["products"]
        self._steps, self._changes = (
            torch.nn.functional.pad(state[name], (0, 0, 0, self.memory - len(self._order)))
            for name in ("steps", "changes")
        )


def _solved(triangle: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(triangle, right[:, None], upper=upper)
    return solution[:, 0]
