"""The first step's length from some rows, against the slope of all of them."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from solving import embeddings
from torch import Tensor

from smx_lightning.activations.family import activation_of
from smx_lightning.optim import minimise
from smx_lightning.optim.descent import Descent
from smx_lightning.optim.loop import OVERHEAD, one_pass
from smx_lightning.optim.members import member
from smx_lightning.optim.status import Status
from smx_lightning.optim.steps.pilot import ONE_OF, ROWS, Forecast, Pilot, _zero
from smx_lightning.optim.steps.search import Step

CLASSES, FEATURES, L2 = 7, 12, 1e-3


def rows(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, labels and weights."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(CLASSES, (count,), generator=generator)
    centres = 2 * torch.randn(CLASSES, FEATURES, generator=generator, dtype=torch.float64)
    x = centres[y] + torch.randn(count, FEATURES, generator=generator, dtype=torch.float64)
    return x, y, torch.rand(count, generator=generator, dtype=torch.float64) + 0.1


def piloted(x: Tensor, y: Tensor, c: Tensor | None, size: int) -> Pilot:
    pilot = Pilot(x[:0])
    for at in range(0, len(x), size):
        part = slice(at, at + size)
        pilot.add(x[part], y[part], None if c is None else c[part])
    return pilot


class Line:
    """φ and its parts along the steepest descent from zero weights, of all rows."""

    def __init__(self, activation: str, count: int, factor: float) -> None:
        self.activation = activation_of(activation)
        self.x, self.y, self.c = rows(count)
        self.bias = torch.linspace(-0.1, 0.1, CLASSES, dtype=torch.float64)[:, None]
        self.onehot = torch.nn.functional.one_hot(self.y, CLASSES).T.double()
        probs = self.activation.probs(self.bias, dim=0)
        residual = (probs - self.onehot) * self.c
        gradient = torch.cat([residual @ self.x, residual.sum(1, keepdim=True)], 1) / self.c.sum()
        self.direction = -factor * gradient
        self.dz = self.direction[:, :-1] @ self.x.T + self.direction[:, -1:]
        self.step = Step(self.direction, float((gradient * self.direction).sum()), 1.0, asks=True)

    def slope(self, length: float) -> float:
        probs = self.activation.probs(self.bias + length * self.dz, dim=0)
        slope = (((probs - self.onehot) * self.dz).sum(0) @ self.c) / self.c.sum()
        return float(slope + L2 * length * self.direction[:, :-1].square().sum())

    def forecast(self, size: int = 1000, *, soft: bool = False) -> Forecast | None:
        targets = self.onehot.T if soft else self.y
        pilot = piloted(self.x, targets, self.c, size)
        of_all = member(self.activation)
        return pilot.forecast(self.step, float(len(self.x)), of_all, bias=self.bias, l2=L2)


@pytest.mark.parametrize("activation", ["softmax", "entmax15", "sparsemax"])
@pytest.mark.parametrize("factor", [5.0, 100.0])
@pytest.mark.parametrize("count", [ONE_OF * ROWS, 40_000])
@pytest.mark.parametrize("soft", [False, True])
def test_it_stops_where_all_rows_have_no_slope_left(
    activation: str, factor: float, count: int, soft: bool
) -> None:
    line = Line(activation, count, factor)
    found = line.forecast(soft=soft)
    assert found is not None
    assert found.length == pytest.approx(brentq(line.slope, 0, 1), rel=0.2)
    jacobian = line.activation.jacobian(
        line.activation.probs(line.bias + found.length * line.dz, dim=0), dim=0
    )
    masses = (jacobian.weights * (1 - jacobian.weights) * jacobian.scale) @ line.c / line.c.sum()
    torch.testing.assert_close(found.masses, masses, rtol=0.5, atol=0.0)
    assert float(found.masses.sum()) == pytest.approx(float(masses.sum()), rel=0.2)


def test_it_goes_the_whole_step_where_that_still_descends() -> None:
    line = Line("softmax", ONE_OF * ROWS, 1e-2)
    found = line.forecast()
    assert found is not None
    assert found.length == 1


def test_where_few_rows_passed_or_their_slope_does_not_fall_nothing_is_told() -> None:
    assert Line("softmax", ONE_OF * ROWS - 1, 5.0).forecast() is None
    assert Line("softmax", ONE_OF * ROWS, -5.0).forecast() is None
    line = Line("softmax", ONE_OF * ROWS, 5.0)
    line.c.zero_()
    assert line.forecast() is None


@pytest.mark.parametrize("weighted", [False, True])
def test_which_rows_are_kept_depends_on_no_batch(weighted: bool) -> None:
    x, y, c = rows(30_000)
    kept = [piloted(x, y, c if weighted else None, size)._kept for size in (30_000, 4096, 501)]
    first, *others = ([torch.cat(part) for part in zip(*parts, strict=True)] for parts in kept)
    assert ROWS <= len(first[0]) <= 2 * ROWS
    for other in others:
        for part, same in zip(first, other, strict=True):
            assert torch.equal(part, same)


def test_batches_of_which_no_row_is_kept_leave_nothing() -> None:
    x, y, c = rows(20_000)
    assert len(piloted(x, y, c, 1)._kept) <= 2 * ROWS + 1


@pytest.mark.parametrize("root", [0.999, 0.5, 0.25, 0.1, 3e-3])
@pytest.mark.parametrize("steepness", [0.5, 3.0, 40.0])
def test_a_zero_is_found(root: float, steepness: float) -> None:
    found = _zero(lambda lengths: [float(np.tanh(steepness * (t - root))) for t in lengths])
    assert found == pytest.approx(root, rel=0.1)


def test_what_is_not_finite_is_too_far() -> None:
    assert _zero(lambda lengths: [t - 2 for t in lengths]) == 1
    assert _zero(lambda lengths: [float("nan") for _ in lengths]) is None
    shortest = _zero(lambda lengths: [-1.0 if t == 0 else float("inf") for t in lengths])
    assert shortest is not None
    assert 0 < shortest < 2**-8
    half = _zero(lambda lengths: [-1.0 if t < 0.5 else float("nan") for t in lengths])
    assert half == pytest.approx(0.5, rel=0.1)


def test_rows_too_large_for_their_dtype_do_not_lead_to_what_is_not_finite() -> None:
    x, y = torch.full((ONE_OF * ROWS, 3), 1e30), torch.arange(ONE_OF * ROWS) % 2
    found = piloted(x, y, None, 1000).forecast(
        Step(torch.eye(2, 4, dtype=torch.float64) * 1e30, -1.0, 1.0, asks=True),
        float(len(x)),
        member(activation_of("softmax")),
        bias=torch.zeros(2, 1),
        l2=0.0,
    )
    assert found is None or 0 < found.length <= 1


def descent(x: Tensor, y: Tensor) -> Descent:
    start = torch.zeros(int(y.max()) + 1, x.shape[1] + 1, dtype=torch.float64)
    return Descent(start, dtype=x.dtype, tol=1e-9, memory=20, overhead=OVERHEAD)


def separable() -> tuple[Tensor, Tensor]:
    x, y = embeddings(ONE_OF * ROWS, 100, 40, 20)
    return torch.tensor(x), torch.tensor(y)


def test_separable_rows_overshoot_no_first_step() -> None:
    x, y = separable()
    objectives = []
    for rows in (ONE_OF * ROWS, ONE_OF * ROWS - 1):  # one row too few for a pilot
        solver = descent(x[:rows], y[:rows])
        for _ in range(2):
            one_pass(solver, [(x[:rows], y[:rows], None)], l2=1e-4, count=1, held=True)
        objectives.append(solver.objective)
    assert objectives[0] < objectives[1] / 3


@pytest.mark.parametrize("passes", range(1, 5))
def test_a_descent_goes_on_from_its_state_as_if_it_had_not_stopped(passes: int) -> None:
    x, y = separable()
    one, other = descent(x, y), descent(x, y)
    for i in range(6):
        if i == passes:
            other.restore(one.state())
        for each in (one, other) if i >= passes else (one,):
            one_pass(each, [(x, y, None)], l2=1e-4, count=1, held=True)
    assert one.status is Status.RUNNING
    assert torch.equal(one.point, other.point)


def test_a_state_of_before_there_were_pilots_is_taken() -> None:
    x, y = separable()
    one, other = descent(x, y), descent(x, y)
    one_pass(one, [(x, y, None)], l2=1e-4, count=1, held=True)
    state = one.state()
    other.restore({name: state[name] for name in state.keys() - {"expected", "waits"}})
    one_pass(other, [(x, y, None)], l2=1e-4, count=1, held=True)
    assert other.evaluations == 2


def test_rows_in_the_order_of_their_classes_are_no_worse() -> None:
    x, y = separable()
    order = y.argsort()
    found = [
        minimise([(a, b)], x.shape[1], int(y.max()) + 1, l2=1e-4, tol=1e-8, dtype=torch.float64)
        for a, b in ((x, y), (x[order], y[order]))
    ]
    for solution in found:
        assert solution.status is Status.CONVERGED
    for one, other in pairwise(found):
        assert other.objective == pytest.approx(one.objective, rel=1e-7)
        assert other.evaluations <= one.evaluations + 5
