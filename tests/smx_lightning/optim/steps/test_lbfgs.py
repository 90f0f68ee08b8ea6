"""L-BFGS's direction, by matrices, against the recursion over pairs as the book has it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from smx_lightning.optim.steps.lbfgs import Pairs

SHAPE = (3, 5)


def two_loops(gradient: Tensor, pairs: list[tuple[Tensor, Tensor]], metric: Tensor) -> Tensor:
    """Nocedal & Wright, "Numerical Optimization", 2006, algorithm 7.4; ``metric`` is H0."""
    q, alphas = gradient.clone(), []
    for s, y in reversed(pairs):
        alphas.append((s @ q) / (s @ y))
        q -= alphas[-1] * y
    r = metric @ q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r += (alpha - (y @ r) / (s @ y)) * s
    return -r


class Steps:
    """Steps on a random convex quadratic, and the pairs that two loops would have of them."""

    def __init__(self, memory: int, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        n = SHAPE[0] * SHAPE[1]
        root = self.normal(n, n)
        self.hessian = root @ root.T / n + 0.1 * torch.eye(n, dtype=torch.float64)
        self.diagonal = 1 / self.hessian.diagonal()
        self.pairs = Pairs(memory, 1e-12)
        self.kept: list[tuple[Tensor, Tensor]] = []

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator, dtype=torch.float64)

    def take(self, count: int) -> None:
        for _ in range(count):
            s = self.normal(SHAPE[0] * SHAPE[1])
            y = self.hessian @ s
            self.pairs.add(s.view(SHAPE), y.view(SHAPE))
            self.kept = [*self.kept, (s, y)][-self.pairs.memory :]

    def solve(self, gradient: Tensor) -> Tensor:
        return gradient * self.diagonal.view(SHAPE)

    def direction(self, gradient: Tensor, *, rescale: bool = False) -> Tensor:
        return self.pairs.direction(gradient, self.solve, rescale=rescale)


@pytest.mark.parametrize("rescale", [False, True])
@pytest.mark.parametrize("memory", [1, 4, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 2, 4, 5, 11, 13])
def test_the_direction_is_that_of_two_loops(count: int, memory: int, rescale: bool) -> None:
    steps = Steps(memory=memory, seed=count)
    steps.take(count)
    gradient = steps.normal(*SHAPE)
    metric = torch.diag(steps.diagonal)
    if rescale and steps.kept:
        s, y = steps.kept[-1]
        metric *= (s @ y) / (y @ metric @ y)
    expected = two_loops(gradient.flatten(), steps.kept, metric)
    assert len(steps.pairs) == min(count, memory)
    torch.testing.assert_close(
        steps.direction(gradient, rescale=rescale).flatten(), expected, rtol=1e-10, atol=1e-12
    )


def test_as_many_pairs_as_unknowns_along_conjugate_steps_are_the_inverse() -> None:
    n = SHAPE[0] * SHAPE[1]
    steps = Steps(memory=n, seed=0)
    _, vectors = torch.linalg.eigh(steps.hessian)
    for s in vectors.T:
        steps.pairs.add(s.reshape(SHAPE), (steps.hessian @ s).view(SHAPE))
    gradient = steps.normal(*SHAPE)
    newton = -torch.linalg.solve(steps.hessian, gradient.flatten())
    torch.testing.assert_close(steps.direction(gradient).flatten(), newton, rtol=1e-9, atol=0)


@pytest.mark.parametrize("memory", [4, 20])
@pytest.mark.parametrize("count", [0, 3, 4, 6])
def test_it_goes_on_to_the_bit_from_what_a_checkpoint_keeps(count: int, memory: int) -> None:
    steps, resumed = Steps(memory=memory, seed=1), Steps(memory=memory, seed=1)
    steps.take(count)
    resumed.take(count)
    resumed.pairs = Pairs(memory, 1e-12)
    resumed.pairs.restore(steps.pairs.state())
    for _ in range(6):
        gradient = steps.normal(*SHAPE)
        resumed.normal(*SHAPE)
        assert torch.equal(steps.direction(gradient), resumed.direction(gradient))
        steps.take(1)
        resumed.take(1)


@pytest.mark.parametrize("before", [4, 9])
@pytest.mark.parametrize("count", [2, 6, 9, 12])
def test_who_remembers_fewer_goes_on_with_the_last_ones(count: int, before: int) -> None:
    steps = Steps(memory=before, seed=3)
    steps.take(count)
    state = steps.pairs.state()
    steps.pairs = Pairs(3, 1e-12)
    steps.pairs.restore(state)
    steps.kept = steps.kept[-3:]
    for _ in range(3):
        gradient = steps.normal(*SHAPE)
        expected = two_loops(gradient.flatten(), steps.kept, torch.diag(steps.diagonal))
        torch.testing.assert_close(
            steps.direction(gradient).flatten(), expected, rtol=1e-10, atol=1e-12
        )
        steps.take(1)


def test_a_checkpoint_stays_as_it_was_kept() -> None:
    steps = Steps(memory=4, seed=4)
    steps.take(3)
    state = steps.pairs.state()
    kept = {name: value.clone() for name, value in state.items() if name != "order"}
    for _ in range(2):
        steps.pairs.restore(state)
        steps.take(5)
        assert state["order"] == [0, 1, 2]
        assert all(torch.equal(state[name], value) for name, value in kept.items())


def test_room_is_taken_as_pairs_come() -> None:
    steps = Steps(memory=10**9, seed=5)
    steps.take(9)
    kept = sum(value.numel() for name, value in vars(steps.pairs).items() if torch.is_tensor(value))
    assert len(steps.pairs) == 9
    assert kept <= 2 * 2 * 9 * SHAPE[0] * SHAPE[1] + (2 * 9) ** 2


def test_what_is_forgotten_does_not_come_back() -> None:
    steps = Steps(memory=4, seed=2)
    steps.take(6)
    steps.pairs.clear()
    gradient = steps.normal(*SHAPE)
    assert torch.equal(steps.direction(gradient), -steps.solve(gradient))
    steps.kept = []
    steps.take(2)
    expected = two_loops(gradient.flatten(), steps.kept, torch.diag(steps.diagonal))
    torch.testing.assert_close(
        steps.direction(gradient).flatten(), expected, rtol=1e-10, atol=1e-12
    )


def test_no_pair_without_curvature_is_kept() -> None:
    pairs, step = Pairs(4, 1e-12), torch.ones(SHAPE, dtype=torch.float64)
    for change in (-step, 0 * step, torch.full_like(step, float("nan"))):
        pairs.add(step, change)
    assert not pairs
