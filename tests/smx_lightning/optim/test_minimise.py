"""The solver in a plain loop, judged by a Newton's method in numpy on seeded problems.

Every status must be true of the weights that it comes with, whatever the problem.
"""

import dataclasses

import numpy as np
import pytest
import torch
from optima import Problem, condition, drawn, optimum, value
from solutions import CLOSE, DIGITS, TOL, point_of, rounding, solved

from smx_lightning import InputError
from smx_lightning.optim import Status, minimise

PASSES, MOST = 60, 200


def explained(problem, best):
    """Passes that conditioning explains: 60 + √κ / 16, and 5 for each digit of the descent.

    κ is what ``condition`` says. A quasi-Newton method takes about √κ passes for each digit, a good
    preconditioner takes most of it away. Where the rows are nearly separable the optimum is far:
    every Newton step divides the objective by about e.
    """
    digits = np.log10(np.log(problem.q.shape[1]) / best)
    return min(MOST, PASSES + np.sqrt(condition(problem)) / 16 + 5 * max(digits, 0))


def assert_true(solution, problem, dtype, name):
    """CONVERGED or PRECISION, and near the optimum: within CLOSE, or within the gap that is said.

    Where the objective itself is tiny, 10⁻⁶ of what it was, a gradient within tol leaves more.
    """
    point = point_of(solution)
    objective, gradient, _ = value(point, problem)
    _, best = optimum(problem)
    gap = (objective - best) / objective
    where = (name, dtype, solution.status, solution.evaluations, objective, best)
    assert solution.status in (Status.CONVERGED, Status.PRECISION), where
    assert gap <= max(CLOSE[dtype], 1.25 * solution.gap) + DIGITS / objective, where
    within = rounding(point, problem, dtype)
    allowed = within + (TOL[dtype] if solution.status is Status.CONVERGED else within)
    assert (abs(gradient) <= allowed).all(), where
    if solution.evaluations > PASSES:
        assert solution.evaluations <= explained(problem, best), where
    if dtype == "float64":
        assert solution.objective == pytest.approx(objective, rel=1e-9, abs=1e-13), where


def assert_all(seeds):
    for seed in seeds:
        problem, dtype = drawn(seed)
        assert_true(solved(problem, dtype), problem, dtype, seed)


@pytest.mark.parametrize("part", range(4))
def test_two_hundred_problems(part):
    assert_all(range(50 * part, 50 * (part + 1)))


def test_problems_that_earlier_versions_missed():
    """Features of 10⁴ times the others' scale, missed by a sample; rows that are alike."""
    assert_all([312, 402, 455, 563, 694, 791, 1151, 2295])


@pytest.mark.whole
@pytest.mark.parametrize("part", range(4, 64))
def test_three_thousand_more(part):
    assert_all(range(50 * part, 50 * (part + 1)))


def plain(seed=0, rows=60, features=5, classes=4, l2=1e-3):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features))
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    return Problem(x, np.eye(classes)[y], np.ones(rows), l2)


def test_a_weight_of_two_is_a_row_twice():
    problem = plain()
    c = np.ones(60)
    c[::3] = 2
    twice = Problem(*(np.concatenate([part, part[::3]]) for part in problem[:3]), problem.l2)
    found, same = solved(problem._replace(c=c)), solved(twice)
    torch.testing.assert_close(found.weight, same.weight, rtol=0, atol=1e-8)
    assert found.objective == pytest.approx(same.objective, rel=1e-12)


def test_a_distribution_is_as_many_rows_as_it_has_classes():
    problem = plain()
    rng = np.random.default_rng(1)
    q = rng.dirichlet(np.ones(4), 60)
    apart = Problem(np.repeat(problem.x, 4, 0), np.tile(np.eye(4), (60, 1)), q.ravel(), problem.l2)
    found, same = solved(problem._replace(q=q)), solved(apart)
    assert found.status is same.status is Status.CONVERGED
    torch.testing.assert_close(found.weight, same.weight, rtol=0, atol=1e-7)


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_are_torch_s(soft):
    """The gradient of torch's own weighted cross-entropy is zero at the solution."""
    problem = plain()
    by_class = torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    q = np.random.default_rng(1).dirichlet(np.ones(4), 60) if soft else problem.q
    found = solved(problem._replace(q=q), class_weight=by_class)
    weight, bias = found.weight.requires_grad_(), found.bias.requires_grad_()
    target = torch.tensor(q) if soft else torch.tensor(q.argmax(1))
    logits = torch.tensor(problem.x) @ weight.T + bias
    loss = torch.nn.functional.cross_entropy(logits, target, by_class, reduction="sum")
    total = (torch.tensor(q) @ by_class).sum()
    (loss / total + 0.5 * problem.l2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-9
    assert bias.grad.abs().max() < 1e-9


@pytest.mark.parametrize("size", [1, 7, 60])
def test_batches_change_no_answer(size):
    problem = plain()
    whole, split = solved(problem), solved(problem, size=size)
    assert split.evaluations == whole.evaluations
    torch.testing.assert_close(split.weight, whole.weight, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0, 1e4])
def test_every_start_leads_to_the_same_optimum(scale):
    problem = plain()
    generator = torch.Generator().manual_seed(0)
    start = tuple(
        scale * torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in ((4, 5), (4,))
    )
    found = solved(problem, start=start)
    assert_true(found, problem, "float64", scale)


def test_a_start_at_the_optimum_is_one_pass():
    problem = plain()
    first = solved(problem)
    again = solved(problem, start=(first.weight, first.bias))
    assert (again.status, again.evaluations) == (Status.CONVERGED, 1)


# Fewer rows than features --------------------------------------------------------------------


def wide(rows=24, features=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, 3)) @ rng.standard_normal((3, features))
    x += rng.standard_normal((rows, features)) + 5 * rng.standard_normal(features)
    return Problem(x, np.eye(3)[np.arange(rows) % 3], rng.uniform(0.5, 2, rows), 0.05)


class Refilled:
    """Batches in one buffer, which the next one writes over, as a loader of pinned memory may."""

    def __init__(self, batches):
        self.batches = batches

    def __iter__(self):
        buffers = [part.clone() for part in self.batches[0]]
        for batch in self.batches:
            for buffer, part in zip(buffers, batch, strict=True):
                buffer.copy_(part)
            yield buffers
            for buffer in buffers:
                buffer.zero_()


def test_gathered_rows_are_neither_a_loader_s_nor_written_over():
    x, q, c = (torch.tensor(part) for part in wide()[:3])
    batches = list(zip(x.split(8), q.split(8), c.split(8), strict=True))
    before = [part.clone() for batch in batches for part in batch]
    options = {"l2": 0.05, "dtype": torch.float64, "tol": 1e-10}
    held = minimise(batches, 300, 3, **options)
    refilled = minimise(Refilled(batches), 300, 3, **options)
    torch.testing.assert_close(refilled.weight, held.weight, rtol=0, atol=1e-9)
    assert held.evaluations < 5  # by the rows' span
    assert refilled.evaluations < 5
    assert all(map(torch.equal, before, [part for batch in batches for part in batch]))


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("soft", [False, True])
def test_the_span_leads_to_the_optimum_of_the_problem_itself(dtype, soft, monkeypatch):
    problem = wide()
    if soft:
        problem = problem._replace(q=0.8 * problem.q + 0.2 / 3)
    problem = problem._replace(x=problem.x.astype(dtype).astype(float))
    found = solved(problem, dtype)
    assert_true(found, problem, dtype, "wide")
    assert found.evaluations <= 4
    monkeypatch.setattr("smx_lightning.optim.coordinates.span.worthwhile", lambda *_: False)
    same = solved(problem, dtype)
    torch.testing.assert_close(found.weight, same.weight, rtol=0, atol=10 * TOL[dtype] / 0.05)


# Statuses ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [[2], [0, 3]])
def test_classes_without_rows_are_named(missing):
    problem = plain(classes=4)
    kept = ~np.isin(problem.q.argmax(1), missing)
    problem = Problem(problem.x[kept], problem.q[kept], problem.c[kept], problem.l2)
    found = solved(problem, tol=1e-6)
    assert found.status is Status.UNSEEN_CLASS
    assert found.message.endswith(f"(without rows: {', '.join(map(str, missing))})")
    assert (found.bias[missing] < found.bias.amax() - 5).all()


def test_classes_that_only_distributions_want_have_a_minimum():
    problem = plain(classes=3)
    q = np.where(problem.q == 0, 0.1, 0.8)
    assert solved(problem._replace(q=q)).status is Status.CONVERGED


@pytest.mark.parametrize("soft", [False, True])
def test_separable_rows_without_a_penalty(soft):
    """Of hard targets there is no minimum; of soft ones there is, and it is found."""
    x = np.repeat(np.eye(3) * 3, 5, axis=0)
    q = np.repeat(np.eye(3), 5, axis=0)
    problem = Problem(x, 0.9 * q + 0.1 / 3 if soft else q, np.ones(15), 0.0)
    found = solved(problem)
    assert found.status is (Status.CONVERGED if soft else Status.SEPARABLE)
    if soft:
        probs = (torch.tensor(x) @ found.weight.T + found.bias).softmax(1)
        torch.testing.assert_close(probs, torch.tensor(problem.q), rtol=0, atol=1e-8)


class Changing:
    """Batches whose features or rows are drawn anew in every pass."""

    def __init__(self, problem, change):
        self.x, self.y = torch.tensor(problem.x), torch.tensor(problem.q.argmax(1))
        self.change = change

    def __iter__(self):
        x, y = self.x, self.y
        if self.change == "dropout":
            x = torch.nn.functional.dropout(x, 0.3)
        elif self.change == "batch normalisation":
            x = torch.cat([part - part.mean(0) for part in x[torch.randperm(len(x))].split(20)])
        else:
            drawn_rows = torch.randint(len(x), (len(x),))
            x, y = x[drawn_rows], y[drawn_rows]
        yield x, y


@pytest.mark.parametrize("change", ["dropout", "batch normalisation", "a sampler that draws"])
def test_data_that_change_are_called_so(change):
    torch.manual_seed(0)
    found = minimise(Changing(plain(), change), 5, 4, l2=1e-3, tol=1e-9, dtype=torch.float64)
    assert found.status is Status.CHANGING


def test_too_few_passes_say_so_and_what_is_missing():
    problem = plain()
    found = solved(problem, max_evaluations=3)
    assert found.status is Status.RUNNING
    objective = value(point_of(found), problem)[0]
    best = optimum(problem)[1]
    assert objective > best
    assert 1 - best / objective <= found.gap < 1


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_the_gap_is_no_smaller_than_what_is_left(seed):
    """After each pass; the part of the biases is an estimate, which may be short by a quarter."""
    problem, _ = drawn(seed)
    _, best = optimum(problem)
    for passes in range(1, 12):
        found = solved(problem, max_evaluations=passes)
        left = 1 - best / value(point_of(found), problem)[0]
        assert left <= 1.25 * found.gap + 1e-12, (seed, passes)


def test_a_gap_is_at_most_the_whole_objective():
    assert solved(plain(l2=1e-12), max_evaluations=1).gap == 1.0


# What it refuses -----------------------------------------------------------------------------


def test_rows_that_come_and_go_and_bad_arguments_are_refused():
    problem = plain()
    with pytest.raises(InputError, match="positive sum"):
        solved(problem._replace(c=np.zeros(60)))
    with pytest.raises(InputError, match="tol must be"):
        solved(problem, tol=-1.0)
    with pytest.raises(InputError, match="l2 must be"):
        solved(problem, l2=-1.0)
    with pytest.raises(InputError, match="num_classes must be"):
        minimise([], 3, 1)
    with pytest.raises(InputError, match="without any"):
        minimise([], 3, 2)


def test_a_solution_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        solved(plain()).objective = 0.0


@pytest.mark.parametrize("features", [5, 100])
def test_labels_and_distributions_may_take_turns(features):
    rng = np.random.default_rng(0)
    x, q = torch.tensor(rng.normal(size=(30, features))), torch.tensor(rng.dirichlet([1] * 3, 30))
    y = torch.arange(30) % 3
    one_hot = torch.nn.functional.one_hot(y, 3).double()
    mixed = [(x[:10], y[:10]), (x[10:], q[10:])]
    apart = [(x[:10], one_hot[:10]), (x[10:], q[10:])]
    found, same = (
        minimise(batches, features, 3, l2=1e-2, tol=1e-9, dtype=torch.float64)
        for batches in (mixed, apart)
    )
    assert found.status is same.status is Status.CONVERGED
    torch.testing.assert_close(found.weight, same.weight, rtol=0, atol=1e-7)


@pytest.mark.parametrize("features", [10, 300])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_distributions_that_sum_to_one_about_are_taken_as_such(dtype, features):
    rng = np.random.default_rng(0)
    x, q = torch.tensor(rng.normal(size=(200, features))), torch.tensor(rng.dirichlet([1] * 3, 200))
    rough = (q * torch.tensor(rng.uniform(0.9995, 1.0005, (200, 1)))).to(dtype)
    sums = rough.double().sum(1)
    exact = rough.double() / sums[:, None]
    found = minimise([(x, rough)], features, 3, l2=1e-2, tol=1e-7, dtype=torch.float64)
    same = minimise([(x, exact, sums)], features, 3, l2=1e-2, tol=1e-7, dtype=torch.float64)
    assert found.status is same.status is Status.CONVERGED
    torch.testing.assert_close(found.weight, same.weight, rtol=0, atol=1e-4)


def test_neither_batches_nor_the_solution_are_made_in_inference_mode():
    class Made:
        """Batches that are made while they are iterated, and kept."""

        def __init__(self):
            self.kept = []

        def __iter__(self):
            for start in range(2):
                x = torch.arange(12.0).view(4, 3).sin() + start
                self.kept.append(x)
                yield x, torch.arange(4) % 2

    for dtype in (torch.float32, torch.float64):
        made = Made()
        solution = minimise(made, 3, 2, l2=0.1, dtype=dtype)
        tensors = (*made.kept, solution.weight, solution.bias)
        assert not any(tensor.is_inference() for tensor in tensors)
