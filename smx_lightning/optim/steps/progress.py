"""Whether passes still bring progress, or take turns at the limit of what can be told apart."""

from __future__ import annotations

import math

HIDDEN = 1000  # times the objective's rounding: less may be hidden by it
LOWER = 0.9  # times the gradient's largest entry or the objective, however small: progress, too


class Progress:
    """Counts the passes since the last progress.

    Args:
        patience: Passes without progress that rounding could show.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        # Against the best so far: points may take turns for ever.
        self._objective = self._largest = math.inf
        self._stalled = 0

    def made(self, objective: float, largest: float, noise: float) -> None:
        """A point was accepted.

        Args:
            objective: Its.
            largest: Absolute entry of its gradient.
            noise: What rounding does to the objective.
        """
        lower = objective < max(self._objective - noise, LOWER * self._objective)
        if lower or largest < LOWER * self._largest:
            self._objective = min(self._objective, objective)
            self._largest = min(self._largest, largest)
            self._stalled = 0
        else:
            self._stalled += 1

    def failed(self, expected: float, noise: float) -> None:
        """A step failed that was expected to gain so much."""
        self._stalled += expected <= HIDDEN * noise

    @property
    def none(self) -> bool:
        """Whether accepted points bring none."""
        return self._stalled >= self._patience

    @property
    def failures_say_so(self) -> bool:
        """Whether steps failed too often whose gain rounding may hide."""
        return self._stalled > 2 * self._patience

    def state(self) -> list[float]:
        """What a checkpoint keeps."""
        return [self._objective, self._largest, self._stalled]

    def restore(self, state: list[float]) -> None:
        """Inverse of :meth:`state`."""
        self._objective, self._largest = state[:2]
        self._stalled = int(state[2])
