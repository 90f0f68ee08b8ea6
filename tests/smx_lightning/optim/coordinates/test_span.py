"""Fewer rows than features, under the Trainer and on several processes."""

import jobs
import numpy as np
import pytest
import torch
from sampled import sampled
from solving import objective, optimum, parameters, trained, trainer_for

from smx_lightning import SoftmaxRegression
from smx_lightning.optim import ExactSolver, Status, minimise
from smx_lightning.optim.coordinates.span import worthwhile


def wide(rows=61, features=400, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    x = 1 + rng.standard_normal((rows, features))
    scores = x @ rng.standard_normal((features, classes))
    y = (scores / scores.std() + rng.gumbel(size=scores.shape)).argmax(1)
    y[:classes] = np.arange(classes)
    return x, y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_trainer_takes_two_epochs_or_three(dtype, start):
    """Random weights are worse than zero: the second epoch begins there."""
    x, y = wide()
    tol = 1e-9 if dtype == torch.float64 else 1e-6
    trainer, model = trained(x, y, dtype=dtype, start=start, tol=tol)
    assert model.solver.status is Status.CONVERGED
    assert trainer.current_epoch == (2 if start == 0 else 3)
    reached = objective(*parameters(model), x, y, 0.1)
    assert reached == pytest.approx(optimum(x, y, 0.1), rel=1e-9 if tol < 1e-8 else 1e-6)


@pytest.mark.parametrize("rows", [1, 2, 5, 399, 400, 401])
def test_any_number_of_rows_leads_to_the_optimum(rows):
    x, y = wide(rows=max(rows, 5))
    x, y = x[:rows], np.minimum(y[:rows], 1) if rows < 5 else y[:rows]
    if rows == 1:
        y = y + 1
    _, model = trained(x, y)
    if len(np.unique(y)) < y.max() + 1:  # a class without rows
        assert model.solver.status is Status.UNSEEN_CLASS
        return
    assert model.solver.status is Status.CONVERGED
    assert objective(*parameters(model), x, y, 0.1) == pytest.approx(optimum(x, y, 0.1), rel=1e-8)


def test_no_rows_are_kept_where_they_are_many_or_nothing_is_penalised():
    assert worthwhile((5, 401), 61)
    assert not worthwhile((5, 401), 400)
    assert not worthwhile((5, 401), 1)
    assert not worthwhile((5, 2**28), 2)
    x, y = wide()
    _, model = trained(x, y, l2=0.0, epochs=5)
    assert model.solver.status in (Status.SEPARABLE, Status.RUNNING)


@pytest.mark.parametrize("processes", sampled([2, 3], named=[3]))
def test_processes_solve_the_same_problem(ranks, processes):
    x, y = wide()
    one = trained(x, y)[1].linear.weight.detach().numpy()
    for weight, status in ranks.run(processes, jobs.solved_on_shares, x, y, 0.1):
        assert status == "CONVERGED"
        np.testing.assert_allclose(weight, one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("start", [0.0, 1.0])
@pytest.mark.parametrize("epoch", [1, 2])
def test_a_resumed_run_takes_the_same_steps(epoch, start, tmp_path):
    x, y = wide()
    whole = trained(x, y, start=start)[1].linear.weight
    trained(x, y, start=start, epochs=epoch)[0].save_checkpoint(tmp_path / "part.ckpt")
    again = trained(x, y, start=start, path=tmp_path / "part.ckpt")[1]
    assert torch.equal(again.linear.weight, whole)
    assert again.solver.status is Status.CONVERGED


class Refilled(torch.utils.data.IterableDataset):
    """A loader that fills the same buffers with each batch, as pinned memory is used."""

    def __init__(self, *parts, size=20, turns=1):
        self.parts = [torch.as_tensor(part) for part in parts]
        self.size, self.turns = size, turns

    def __iter__(self):
        buffers = [
            [torch.empty_like(part[: self.size]) for part in self.parts] for _ in range(self.turns)
        ]
        for number, at in enumerate(range(0, len(self.parts[0]), self.size)):
            rows = [part[at : at + self.size] for part in self.parts]
            now = buffers[number % self.turns]
            filled = [b[: len(r)] for b, r in zip(now, rows, strict=True)]
            for buffer, values in zip(filled, rows, strict=True):
                buffer[:] = values
            yield tuple(filled)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_a_loader_that_fills_its_buffers_anew_spoils_no_rows(soft, weighted):
    """The first step was wasted: its rows were the last batch's, over and over."""
    x, y = wide(rows=60)
    targets = np.eye(5)[y] if soft else y
    weights = np.random.default_rng(1).uniform(0.5, 2, 60)
    parts = (x, targets, weights) if weighted else (x, targets)
    loader, held = Refilled(*parts), [*Refilled(*parts, size=60)]
    found, other = (
        minimise(some, 400, 5, l2=0.1, tol=1e-9, dtype=torch.float64) for some in (loader, held)
    )
    assert found.status is Status.CONVERGED
    assert found.evaluations == other.evaluations == 2
    torch.testing.assert_close(found.weight, other.weight, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [10, 40, 60])  # the last batch is not copied: one of many, or all
def test_under_the_trainer_neither(size):
    """Which fetches a batch ahead, so that such loaders have two buffers at least."""
    x, y = wide(rows=60)
    loader = torch.utils.data.DataLoader(Refilled(x, y, size=size, turns=2), batch_size=None)
    model = SoftmaxRegression(400, 5, l2=0.1, optimizer=ExactSolver)
    torch.nn.init.zeros_(model.linear.weight)
    torch.nn.init.zeros_(model.linear.bias)
    trainer = trainer_for()
    trainer.fit(model, loader)
    assert model.solver.status is Status.CONVERGED
    assert trainer.current_epoch == 2
    reached = objective(*parameters(model), x, y, 0.1)
    assert reached == pytest.approx(optimum(x, y, 0.1), rel=1e-9)
