"""Which curvature the coming pass collects: by prices, progress and what has changed."""

import math

import pytest
import torch

from smx_lightning.optim.evaluation import Evaluation
from smx_lightning.optim.models.choice import FORESEEN, Choice, Due
from smx_lightning.optim.models.hessians import Coupled, PerClass, Whole
from smx_lightning.optim.models.spectrum import Spectrum

CLASSES, WIDTH, ROWS = 10, 785, 60000  # PerClass costs ten passes, Coupled thirty-four


def point(objective, largest=1e-2):
    masses = torch.full((CLASSES,), 0.02, dtype=torch.float64)
    gradient = torch.full((CLASSES, WIDTH), largest, dtype=torch.float64)
    return Evaluation(
        objective, gradient, ROWS, ROWS, 0.2 * ROWS, False, masses, masses, masses[:0]
    )


def model(kind):
    return kind(CLASSES, WIDTH, expected=1.0, rows=1.0, like=torch.empty(()))


def after(gains, *, passes=20, tol=1e-6, start=1.0):
    """A choice after passes before the model in use, and these with it, in front of the next."""
    choice = Choice((CLASSES, WIDTH), tol=tol, overhead=0.0)
    objective = start
    for _ in range(passes):
        choice.passed(ROWS)
        choice.accepted(point(objective), noise=0.0)
    choice.refreshed()
    for gain in gains:
        objective -= gain
        choice.passed(ROWS)
        choice.accepted(point(objective), noise=0.0)
    return choice, point(objective)


SLOW = [1e-3 * 0.8**n for n in range(6)]  # 80 passes ahead
FAST = [1e-3 * 0.35**n for n in range(6)]  # 13, to a gradient of 1e-5


@pytest.mark.parametrize(
    ("gains", "change", "due"),
    [
        (SLOW, 0.2, Coupled),
        (SLOW, 0.01, Coupled),
        (FAST, 0.2, PerClass),
        (FAST, math.inf, PerClass),
        (FAST, 0.01, None),
        (FAST[:3], 0.2, None),  # half of its price has not been paid since
    ],
)
def test_the_same_model_again_where_masses_have_changed_and_no_better_one_pays(gains, change, due):
    choice, known = after(gains, tol=1e-6 if gains is SLOW else 1e-5)
    assert choice.choose(model(PerClass), known, change) == Due(due)


@pytest.mark.parametrize("kind", [PerClass, Coupled])
def test_the_better_a_model_is_the_smaller_a_change_it_shows(kind):
    choice, known = after([1e-3 * 0.7**n for n in range(30)], passes=60)
    prices, limit = {kind: 20 * choice.pass_work(ROWS)}, kind.renewed_after
    assert choice._paid(model(kind), known, prices, 1.01 * limit) is kind
    assert choice._paid(model(kind), known, prices, 0.99 * limit) is None
    assert choice._paid(model(kind), known, prices, math.nan) is kind  # masses of 0
    assert Whole.renewed_after == 0 < Coupled.renewed_after < PerClass.renewed_after


@pytest.mark.parametrize("price", [1.0, 1.9])
def test_a_model_that_a_pass_pays_is_renewed_in_every_one(price):
    """Newton's method: however little has changed at the best point."""
    choice, known = after([0.1])
    prices = {PerClass: price * choice.pass_work(ROWS)}
    assert choice._paid(model(PerClass), known, prices, 0.0) is PerClass


def test_what_two_passes_say_buys_nothing_dear():
    """The first two with a new model say little of the next: once 80 passes ahead, then 13."""
    for gains in ([], [1e-4], [2e-5, 1.9e-5], [2e-5, 3e-5]):
        choice, known = after(gains)
        assert choice.choose(model(PerClass), known, 0.0) == Due()
        assert choice._passes_ahead() <= FORESEEN


def test_a_model_that_leads_nowhere_is_left_at_last():
    """Renewed again and again, so that no three passes ever tell a rate."""
    choice, known = after([])
    for passes in range(60):
        due = choice.choose(model(PerClass), known, 1.0)
        if due.model is Coupled:
            assert passes >= 5
            return
        choice.passed(ROWS)
        choice.accepted(known, noise=0.0)
        if due.model is PerClass or passes % 2:
            choice.refreshed()
    pytest.fail("Coupled was never bought")


def test_from_the_cheapest_model_a_matrix_is_bought_as_soon_as_it_is_paid():
    for passes, due in ((3, None), (4, PerClass)):
        choice, known = after([1e-1 * 0.9**n for n in range(passes)], passes=1)
        prices = {Spectrum: 1e9, PerClass: 11 * choice.pass_work(ROWS)}
        assert choice._paid(model(Spectrum), known, prices, 1.0) is due
