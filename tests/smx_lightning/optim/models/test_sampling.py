"""Which rows are chosen: how much of the curvature a row has, and whether any is unusual."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from solving import embeddings, objective, optimum

from smx_lightning.optim import Status, minimise
from smx_lightning.optim.descent import Descent
from smx_lightning.optim.loop import one_pass
from smx_lightning.optim.models.ladder import Ladder
from smx_lightning.optim.models.sampling import complement, doubt

L2 = 2e-3


@given(
    st.integers(1, 200),
    st.integers(1, 30),
    st.floats(0, 300),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(0, 100),
)
def test_what_is_left_of_a_probability_keeps_its_digits(classes, rows, apart, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = apart * torch.randn(classes, rows, generator=generator, dtype=torch.float64)
    exact = scores.softmax(0)
    others = torch.stack([exact[torch.arange(classes) != k].sum(0) for k in range(classes)])
    probs, tiny = exact.to(dtype), torch.finfo(dtype).tiny
    close = {"rtol": 100 * torch.finfo(dtype).eps, "atol": classes * tiny}
    torch.testing.assert_close(complement(probs).double(), others, **close)
    torch.testing.assert_close(doubt(probs).double(), (exact * others).sum(0), **close)


def table(unusual=()):
    """Embeddings, of which some rows are so many times as large."""
    x, y = embeddings(2000, 400, 50, 60)
    for row, times in unusual:
        x[row] *= times
    return x, y


@pytest.fixture
def importances(monkeypatch):
    """What each batch was given, by pass."""
    found = []
    begin, judge = Ladder.begin, Ladder._importance

    def begun(self, *args):
        found.append([])
        return begin(self, *args)

    def judged(self, *args):
        found[-1].append(judge(self, *args))
        return found[-1][-1]

    monkeypatch.setattr(Ladder, "begin", begun)
    monkeypatch.setattr(Ladder, "_importance", judged)
    return found


def passes(x, y, number, kept=None):
    """So many passes of a solver over these rows, from a state that was kept or from zero."""
    start = torch.zeros(50, 401, dtype=torch.float64)
    descent = Descent(start, dtype=torch.float32, tol=1e-9, memory=20, overhead=1e6)
    if kept is not None:
        descent.restore(kept)
    batches = [
        (part, labels, None)
        for part, labels in zip(
            torch.tensor(x).float().split(700), torch.tensor(y).split(700), strict=True
        )
    ]
    for _ in range(number):
        one_pass(descent, batches, l2=L2, count=len(batches), held=True)
    return descent


def test_how_unusual_rows_are_is_asked_once_where_none_is(importances):
    passes(*table(), 16)
    asked = [each for each in importances[1:] if each]
    assert len(asked) >= 3
    assert max(float(part.max()) for part in asked[0]) > 1
    assert all(bool((part == 1).all()) for each in asked[1:] for part in each)


@pytest.mark.parametrize("row", [0, 1000, 1999])
def test_one_unusual_row_is_looked_for_in_every_pass(importances, row):
    passes(*table([(row, 3)]), 16)
    asked = [each for each in importances[1:] if each]
    assert len(asked) >= 3
    assert all(max(float(part.max()) for part in each) > 2 for each in asked)


@pytest.mark.parametrize("times", [1, 1.4, 3, 30])
def test_rows_of_other_sizes_change_no_optimum(times):
    x, y = table([(row, times) for row in range(0, 2000, 40)])
    rows = [(torch.tensor(x, dtype=torch.float64), torch.tensor(y))]
    found = minimise(rows, 400, 50, l2=L2, tol=1e-9, dtype=torch.float64)
    assert found.status is Status.CONVERGED
    reached = objective(found.weight.numpy(), found.bias.numpy(), x, y, L2)
    assert reached == pytest.approx(optimum(x, y, L2), rel=1e-8)


def test_what_was_found_of_the_rows_is_kept_with_the_state():
    x, y = table()
    whole, first = passes(x, y, 14), passes(x, y, 11)
    assert first.ladder._usual
    resumed = passes(x, y, 3, first.state())
    np.testing.assert_array_equal(resumed.point, whole.point)
