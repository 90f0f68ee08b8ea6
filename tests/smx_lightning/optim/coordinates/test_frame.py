"""Features that lie far from zero and vary little: seen from their mean, they are ordinary ones."""

import jobs
import numpy as np
import pytest
import references
import torch
from certificates import least
from optima import Problem, value
from sampled import sampled
from solutions import CLOSE, point_of, solved, solved_close
from solving import objective, parameters, trained

from smx_lightning.optim import Status
from smx_lightning.optim.coordinates.frame import FAR, Frame
from smx_lightning.optim.models.spectrum import Moments

SHAPES = [(40, 40, 5), (39, 40, 5), (200, 10, 3), (500, 20, 26), (60, 300, 4), (300, 1, 2)]
OFFSETS = [3.0, 29.0, 31.0, -300.0, 1e3, -1e4, 1e5]  # standard deviations
WHICH = {"all": slice(None), "one": slice(1), "every other": slice(None, None, 2)}


def apart(shape, offset=0.0, which="all", scale=1.0):
    """Rows of a few overlapping classes, of scale 1 but that their features may lie elsewhere."""
    rows, features, classes = shape
    rng = np.random.default_rng([rows, features])
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    x = rng.standard_normal((rows, features)) + rng.standard_normal((classes, features))[y] / 2
    x[:, WHICH[which]] += offset
    return scale * x, y


def problem_of(x, y, l2, dtype):
    x = x.astype(dtype).astype(float)  # the digits that float32 has
    return Problem(x, np.eye(y.max() + 1)[y], np.ones(len(y)), l2)


CASES = [
    (shape, offset, which, scale, l2)
    for scale in (1.0, 1e-2, 1e2)
    for l2 in (1e-2, 1e-4)
    for which in WHICH
    for shape in SHAPES
    for offset in OFFSETS
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "offset", "which", "scale", "l2"), sampled(CASES, every=11), ids=str
)
def test_the_optimum_is_found_wherever_the_features_lie(shape, offset, which, scale, l2, dtype):
    """Beyond 1e4 a bias of float32 has too few digits: then the gap that is said must say so."""
    problem = problem_of(*apart(shape, offset, which, scale), l2 * scale**2, dtype)
    found = solved_close(problem, dtype)
    reached = value(point_of(found), problem)[0]
    bound, _ = least(problem, point_of(found), CLOSE[dtype] / 10)
    gap = (reached - bound) / reached
    assert found.status in (Status.CONVERGED, Status.PRECISION)
    assert gap <= CLOSE[dtype] * max(1.0, abs(offset) / 1e3 if dtype == "float32" else 0), found
    assert gap <= 1.25 * found.gap + CLOSE[dtype], found
    assert found.evaluations <= (60 if abs(offset) <= 1e4 else 120)  # there float32 ends


def test_weights_targets_and_a_start_are_seen_from_there_too():
    x, y = apart((300, 8, 4), 1e4)
    rng = np.random.default_rng(0)
    problem = problem_of(x, y, 1e-3, "float32")
    problem = problem._replace(
        q=(problem.q + rng.dirichlet(np.ones(4), 300)) / 2, c=rng.uniform(0.1, 3, 300)
    )
    found = solved(problem, "float32", size=70)
    reached = value(point_of(found), problem)[0]
    bound, _ = least(problem, point_of(found), 1e-6)
    assert reached - bound <= 1e-5 * reached
    again = solved(problem, "float32", size=70, start=(found.weight, found.bias))
    assert again.evaluations <= 2 * found.evaluations  # at the limit of precision, by chance
    assert value(point_of(again), problem)[0] <= reached * (1 + 1e-5)


def moments(x):
    x = torch.tensor(x)
    return Moments(float(len(x)), x.sum(0), x.square().sum(0))


def test_rows_are_seen_from_their_mean_where_a_feature_is_far_from_zero():
    x, _ = apart((5000, 3, 2))
    x = (x - x.mean(0)) / x.std(0)
    assert Frame.of(moments(x + 0.9 * FAR), torch.float64).origin is None
    assert Frame.of(moments(0 * x), torch.float64).origin is None
    far = x + np.array([0.0, -1.1 * FAR, 0.0])
    torch.testing.assert_close(
        Frame.of(moments(far), torch.float64).origin, torch.tensor(far.mean(0))
    )


@pytest.mark.parametrize("origin", [None, 1e4])
def test_both_views_have_the_same_logits_and_the_gradient_is_that_of_the_parameters(origin):
    x, _ = apart((50, 4, 3), origin or 0.0)
    frame = Frame(None if origin is None else torch.full((4,), origin, dtype=torch.float64))
    rng = np.random.default_rng(0)
    outside = torch.tensor(rng.standard_normal((3, 5)))
    inside, rows = frame.inside(outside), torch.tensor(x)
    torch.testing.assert_close(frame.outside(inside), outside, rtol=1e-12, atol=1e-9)
    logits = [
        of @ point[:, :-1].T + point[:, -1]
        for of, point in ((rows, outside), (frame.rows(rows), inside))
    ]
    torch.testing.assert_close(*logits, rtol=1e-9, atol=1e-9)
    rounded = frame.outside(frame.rounded(inside, torch.float32))
    assert torch.equal(rounded.float().double()[:, :-1], rounded[:, :-1])
    torch.testing.assert_close(rounded.float().double(), rounded, rtol=1e-15, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("start", [0.0, 1.0])
def test_the_trainer_logs_the_gradient_by_the_parameters(dtype, start):
    x, y = apart((120, 6, 3), 1e3)
    x = torch.tensor(x).to(dtype).double().numpy()
    _, model = trained(x, y, 1e-2, dtype=dtype, epochs=4, start=start)
    evaluation, (weight, bias) = model.solver.evaluation, parameters(model)
    expected = references.gradient(weight, bias, x, y, 1e-2)
    error = 1e-9 if dtype == torch.float64 else 2e-2  # of entries up to 1000
    np.testing.assert_allclose(evaluation.gradient.numpy(), expected, rtol=0, atol=error)
    reached = objective(weight, bias, x, y, 1e-2)
    assert evaluation.objective == pytest.approx(reached, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("epoch", [1, 2, 3, 5])
@pytest.mark.parametrize("start", sampled([0.0, 1.0], named=[0.0]))
def test_a_run_resumed_there_takes_the_same_steps(epoch, dtype, start, tmp_path):
    x, y = apart((120, 6, 3), 1e3)
    whole = trained(x, y, 1e-2, dtype=dtype, start=start)[1]
    assert whole.solver.evaluations > 5
    trained(x, y, 1e-2, dtype=dtype, start=start, epochs=epoch)[0].save_checkpoint(
        tmp_path / "part.ckpt"
    )
    again = trained(x, y, 1e-2, dtype=dtype, start=start, path=tmp_path / "part.ckpt")[1]
    assert torch.equal(again.linear.weight, whole.linear.weight)
    assert torch.equal(again.linear.bias, whole.linear.bias)
    assert again.solver.status is whole.solver.status


@pytest.mark.parametrize("processes", sampled([2, 3], named=[3]))
def test_processes_see_the_rows_from_the_same_mean(ranks, processes):
    x, y = apart((121, 6, 3), 1e3)
    one = trained(x, y, 1e-2)[1].linear.weight.detach().numpy()
    for weight, _ in ranks.run(processes, jobs.solved_on_shares, x, y, 1e-2):
        np.testing.assert_allclose(weight, one, rtol=0, atol=1e-12)
