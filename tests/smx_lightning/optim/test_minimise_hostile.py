"""Data and starts that nobody hopes for: the optimum is found all the same, and the status true."""

import numpy as np
import pytest
import torch
from optima import Problem, optimum, value
from sampled import sampled, whole
from solutions import CLOSE, assert_certified, point_of, solved

from smx_lightning import InputError
from smx_lightning.optim import Status, minimise


def plain(rows=300, features=6, classes=5, l2=1e-3, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, features))
    y = np.concatenate([np.arange(classes), rng.integers(classes, size=rows - classes)])
    return Problem(x, np.eye(classes)[y], np.ones(rows), l2)


def labelled(x, y, l2):
    return Problem(x, np.eye(y.max() + 1)[y], np.ones(len(y)), l2)


PLAIN, WIDE = plain(), plain(20, 300, 4)


def with_column(column, problem=PLAIN):
    return problem._replace(x=np.column_stack([problem.x, np.broadcast_to(column, len(problem.x))]))


def with_feature_times(factor, l2):
    return PLAIN._replace(x=PLAIN.x * np.where(np.arange(6) == 0, factor, 1.0), l2=l2)


def with_weights(low, high):
    c = 10 ** np.random.default_rng(3).uniform(low, high, 300)
    return PLAIN._replace(c=c.astype(np.float32).astype(float))


def one_positive(rows, l2):
    x = np.random.default_rng(0).standard_normal((rows, 3))
    return labelled(x, (np.arange(rows) < 1).astype(int), l2)


def outlier(factor):
    x = PLAIN.x.copy()
    x[0] *= factor
    return PLAIN._replace(x=x)


def sparse(share, l2):
    x = (np.random.default_rng(6).random((2000, 300)) < share) * 1.0
    return labelled(x, np.arange(2000) % 7, l2)


def soft_with_zeros():
    q = 0.7 * PLAIN.q
    q[:, 0] += 0.3
    return PLAIN._replace(q=q)


def nearly_one_hot():
    q = np.random.default_rng(1).dirichlet(np.full(5, 0.01), 300).round(3)
    q = (q / q.sum(1, keepdims=True)).astype(np.float32).astype(float)
    return PLAIN._replace(q=q / q.sum(1, keepdims=True))


PENALISED = {
    "no features that say anything": PLAIN._replace(x=0 * PLAIN.x),
    "constant features": PLAIN._replace(x=0 * PLAIN.x + 7),
    "columns twice": PLAIN._replace(x=np.hstack([PLAIN.x, PLAIN.x])),
    "a column of ones": with_column(1.0),
    "a column of thousands": with_column(1000.0),
    "a column of zeros": with_column(0.0),
    **{
        f"a feature {factor:g} times the others, l2 {l2:g}": with_feature_times(factor, l2)
        for factor in (1e-6, 1e3, 1e6)
        for l2 in (1e-3, 1e-8)
    },
    "half of the rows of weight 0": PLAIN._replace(c=np.arange(300) % 2.0),
    "weights from 1e-6 to 1e6": with_weights(-6, 6),
    "weights of 1e-30": PLAIN._replace(c=np.full(300, 1e-30)),
    "weights of 1e30": PLAIN._replace(c=np.full(300, 1e30)),
    "two classes": plain(50, 4, 2, 1e-2),
    "two classes, the other way round": plain(50, 4, 2, 1e-2)._replace(
        q=plain(50, 4, 2).q[:, ::-1].copy()
    ),
    "one positive of 5000": one_positive(5000, 1e-3),
    "one positive of 100000": one_positive(100000, 1e-6),
    "300000 rows of one feature": plain(300000, 1, 2, 1e-6),
    "two rows": labelled(np.array([[1.0, 2.0], [3.0, 1.0]]), np.arange(2), 1e-3),
    "two classes a row": soft_with_zeros(),
    "nearly one class a row": nearly_one_hot(),
    "an offset of 1e4": PLAIN._replace(x=PLAIN.x + 1e4),
    "an offset of 1e4, little l2": PLAIN._replace(x=PLAIN.x + 1e4, l2=1e-6),
    "an offset of 1e6": PLAIN._replace(x=PLAIN.x + 1e6),
    "features of 1e-30": PLAIN._replace(x=1e-30 * PLAIN.x),
    "l2 of 1e6": PLAIN._replace(l2=1e6),
    "an outlier of 1e5": outlier(1e5),
    "Cauchy's features": labelled(
        np.random.default_rng(5).standard_t(1, size=(400, 8)), np.arange(400) % 4, 1e-4
    ),
    "one number in a hundred": sparse(1e-2, 1e-4),
    "one number in a thousand": sparse(1e-3, 1e-6),
    "powers of one feature": labelled(
        np.vander(np.linspace(-1, 1, 200), 12), (np.arange(200) // 7) % 3, 1e-6
    ),
    "wide, of scale 1e4": WIDE._replace(x=1e4 * WIDE.x),
    "wide, with an offset of 1e4": WIDE._replace(x=1e4 + WIDE.x),
    "wide, rows twice": Problem(np.tile(WIDE.x, (2, 1)), np.tile(WIDE.q, (2, 1)), np.ones(40), 0.1),
    "wide, rows alike of other classes": WIDE._replace(x=np.repeat(WIDE.x[:10], 2, 0)),
}
SLOW = (
    "one positive of 5000",
    "one positive of 100000",
    "300000 rows of one feature",
    "one number in a hundred",
    "one number in a thousand",
    "wide, of scale 1e4",
)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", [whole(name) if name in SLOW else name for name in PENALISED])
def test_the_optimum_is_found(name, dtype):
    problem = PENALISED[name]
    problem = problem._replace(x=problem.x.astype(dtype).astype(float))
    assert_certified(problem, dtype, name)


UNPENALISED = {
    "plain": PLAIN,
    "columns twice": PENALISED["columns twice"],
    "a column of ones": PENALISED["a column of ones"],
    "a column of zeros": PENALISED["a column of zeros"],
    "a feature 1e6 times the others": with_feature_times(1e6, 0.0),
    "a feature 1e-6 times the others": with_feature_times(1e-6, 0.0),
    "two classes a row": soft_with_zeros(),
    "weights from 1e-6 to 1e6": with_weights(-3, 3),
}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", UNPENALISED)
def test_without_a_penalty_the_optimum_of_rows_that_overlap_is_found(name, dtype):
    problem = UNPENALISED[name]._replace(l2=0.0)
    problem = problem._replace(x=problem.x.astype(dtype).astype(float))
    found = solved(problem, dtype)
    assert found.status in (Status.CONVERGED, Status.PRECISION), name
    objective, best = value(point_of(found), problem)[0], optimum(problem)[1]
    assert objective == pytest.approx(best, rel=CLOSE[dtype]), name


OPTIMUM = optimum(PLAIN)[0]
STARTS = [
    *(("normal", scale) for scale in (1e2, 1e6, 1e12, 1e30)),
    ("biases", 1e5),
    *(("optimum", factor) for factor in (3.0, 10.0, 100.0, -10.0)),
]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("kind", "scale"), STARTS)
def test_from_every_start(kind, scale, dtype):
    normal = np.random.default_rng(0).standard_normal((5, 7))
    biases = np.column_stack([np.zeros((5, 6)), np.arange(5.0)])
    start = scale * {"normal": normal, "biases": biases, "optimum": OPTIMUM}[kind]
    start = torch.tensor(start[:, :-1]), torch.tensor(start[:, -1])
    problem = PLAIN._replace(x=PLAIN.x.astype(dtype).astype(float))
    assert_certified(problem, dtype, (kind, scale), start=start)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("how", [{"tol": 0.0}, {"memory": 1}, {"size": 7}], ids=str)
def test_however_it_is_asked(how, dtype):
    problem = PLAIN._replace(x=PLAIN.x.astype(dtype).astype(float))
    found = assert_certified(problem, dtype, how, **how)
    assert found.status is (Status.PRECISION if "tol" in how else Status.CONVERGED)


# Batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(0, 60), (20, 0, 40), (1, 0, 0, 58, 1), (60, 0)])
@pytest.mark.parametrize("features", [5, 100])
def test_empty_and_uneven_batches_change_no_answer(sizes, features):
    problem = plain(60, features, 4)
    x, y = torch.tensor(problem.x), torch.tensor(problem.q.argmax(1))
    batches = list(zip(x.split(sizes), y.split(sizes), strict=True))
    kwargs = {"l2": 1e-3, "tol": 1e-10, "dtype": torch.float64}
    split = minimise(batches, features, 4, **kwargs)
    at_once = minimise([(x, y)], features, 4, **kwargs)
    assert split.status is at_once.status is Status.CONVERGED
    torch.testing.assert_close(split.weight, at_once.weight, rtol=0, atol=1e-9)


@pytest.mark.parametrize("features", [3, 50])
def test_batches_without_rows_are_no_data(features):
    batches = [(torch.zeros(0, features), torch.zeros(0).long())]
    with pytest.raises(InputError, match="expected training rows"):
        minimise(batches, features, 2, l2=0.1)


# Problems without a minimum --------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("rows", [1, 60])
def test_rows_of_one_class_alone(rows, dtype):
    x = torch.randn(rows, 5, dtype=dtype)
    found = minimise([(x, torch.zeros(rows).long())], 5, 3, l2=1e-3, dtype=dtype)
    assert found.status is Status.UNSEEN_CLASS
    assert found.message.endswith("(without rows: 1, 2)")


def test_one_row_of_a_soft_target_is_told_by_its_biases():
    q = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
    x = torch.randn(1, 5, dtype=torch.float64)
    found = minimise([(x, q)], 5, 4, l2=1e-3, tol=1e-10, dtype=torch.float64)
    assert found.status is Status.CONVERGED
    assert found.weight.abs().max() < 1e-6
    torch.testing.assert_close(found.bias[None].softmax(1), q, rtol=0, atol=1e-8)


@pytest.mark.parametrize("weights", ["rows", "classes"])
def test_a_class_whose_rows_weigh_nothing_has_none(weights):
    x, y = torch.randn(60, 5), torch.arange(60) % 4
    by_class = torch.tensor([1.0, 1.0, 0.0, 1.0])
    if weights == "rows":
        found = minimise([(x, y, by_class[y])], 5, 4, l2=1e-3)
    else:
        found = minimise([(x, y)], 5, 4, l2=1e-3, class_weight=by_class)
    assert found.status is Status.UNSEEN_CLASS
    assert found.message.endswith("(without rows: 2)")


@pytest.mark.parametrize("seed", sampled(range(40), every=8))
@pytest.mark.parametrize("classes", [2, 5])
def test_rows_that_a_plane_separates_have_no_minimum_without_a_penalty(seed, classes):
    """Also at a tolerance that the gradient would meet some day."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((100, 4)) * 10 ** rng.uniform(-2, 2)
    y = (x @ rng.standard_normal((4, classes))).argmax(1)
    for dtype in (torch.float64, torch.float32):
        found = minimise([(torch.tensor(x), torch.tensor(y))], 4, classes, tol=1e-6, dtype=dtype)
        unseen = len(np.unique(y)) < classes
        expected = (Status.SEPARABLE, Status.UNSEEN_CLASS) if unseen else (Status.SEPARABLE,)
        assert found.status in expected, (seed, classes, dtype, found)
