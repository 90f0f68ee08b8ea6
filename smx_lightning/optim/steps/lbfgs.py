"""Limited-memory BFGS: what earlier steps taught about the curvature."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LEAST = 4  # pairs that there is room for at first


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
        full = len(self._order) == self.memory
        if not full and len(self._order) == len(self._steps):
            self._grow(len(step), step)
        row = self._order.pop(0) if full else len(self._order)
        self._order.append(row)
        self._steps[row], self._changes[row] = step, change
        used = len(self._order)
        self._products[:used, row] = self._steps[:used] @ change
        self._products[row, :used] = self._steps[row] @ self._changes[:used].T

    def _grow(self, width: int, like: Tensor) -> None:
        """Make room for twice as many, at most for all: most runs need few, and they are large."""
        before = len(self._steps)
        rows = min(self.memory, max(2 * before, LEAST))
        steps, changes = like.new_empty(rows, width), like.new_empty(rows, width)
        products = like.new_zeros(rows, rows)
        if before:
            steps[:before], changes[:before] = self._steps, self._changes
            products[:before, :before] = self._products
        self._steps, self._changes, self._products = steps, changes, products

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
            "products": self._products[:used, :used].clone(),
            "order": list(self._order),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Inverse of :meth:`state`; of more pairs than are remembered here, the last ones."""
        self._order = list(state["order"])
        kept = torch.arange(len(self._order))
        if len(self._order) > self.memory:
            kept = torch.tensor(self._order[-self.memory :])
            self._order = list(range(self.memory))
        self._steps, self._changes = state["steps"][kept], state["changes"][kept]
        self._products = state["products"][kept[:, None], kept]


def _solved(triangle: Tensor, right: Tensor, *, upper: bool) -> Tensor:
    solution: Tensor = torch.linalg.solve_triangular(triangle, right[:, None], upper=upper)
    return solution[:, 0]
