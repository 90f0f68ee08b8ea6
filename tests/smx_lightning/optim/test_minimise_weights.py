"""Of row and class weights only the ratios count; batches of no dense tensors are refused."""

import warnings
from functools import partial

import jobs
import numpy as np
import pytest
import torch
from sampled import sampled, whole
from sklearn.linear_model import LogisticRegression
from solving import trainer_for
from torch.utils.data import DataLoader

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.optim import ExactSolver, Status, minimise

N, D, K, L2 = 200, 6, 4, 1e-2
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D)).astype(np.float32)
Y = (X[:, :K] + RNG.gumbel(size=(N, K))).argmax(1)
C = RNG.uniform(0.5, 2, N)
ROWS, LABELS = torch.as_tensor(X), torch.as_tensor(Y)
ONE_HOT = torch.eye(K)[LABELS]
SCALES = [1.0, 1e-10, 1e-30, 1e-38, 1e-42, 1e-100, 1e-300, 1e10, 1e30, 1e37, 1e100, 1e300]


def reference(weights):
    """W (K, d) of scikit-learn's optimum, in float64."""
    weights = np.asarray(weights, dtype=np.float64)
    weights = weights / weights.sum()
    kept = weights > 0
    judge = LogisticRegression(C=1 / L2, tol=1e-10, max_iter=10000)
    judge.fit(X[kept].astype(np.float64), Y[kept], sample_weight=weights[kept])
    return judge.coef_


@pytest.fixture(scope="module")
def usual():
    return reference(C)


def solved(batches, dtype="float32", **kwargs):
    return minimise(batches, D, K, l2=L2, dtype=getattr(torch, dtype), **kwargs)


def assert_optimum(found, weight):
    assert found.status is Status.CONVERGED
    np.testing.assert_allclose(found.weight.double().numpy(), weight, atol=2e-5)


@pytest.mark.parametrize("narrow", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_distributions_of_any_precision_have_an_optimum_to_any_tolerance(narrow, weighs, seed):
    """Of float32's, which sum to 1 up to 1e-7, the bias never came to rest: STALLED."""
    rng = np.random.default_rng(seed)
    q = torch.tensor(rng.dirichlet(np.ones(K), N)).to(getattr(torch, narrow))
    weights = {"class_weight": torch.tensor([0.3, 1.0, 2.0, 0.7])} if weighs else {}
    total = q.double().sum(1)
    wide = q.double() / total[:, None]  # and the sum, about 1, is the row's weight
    found, wanted = (
        solved([batch], "float64", tol=1e-12, **weights)
        for batch in ((ROWS, q), (ROWS, wide, total))
    )
    assert found.status is Status.CONVERGED
    torch.testing.assert_close(found.weight, wanted.weight, rtol=0, atol=1e-9)


def test_narrow_distributions_come_to_rest_where_the_solver_is_called_by_hand():
    q = torch.tensor(RNG.dirichlet(np.ones(K), N), dtype=torch.float32)
    solver = ExactSolver(torch.nn.Linear(D, K).double().parameters(), tol=1e-12)
    while solver.status is Status.RUNNING:
        solver.begin_epoch(l2=L2, batches=1)
        solver.add(ROWS.double(), q)
        solver.step()
    assert solver.status is Status.CONVERGED


def test_narrow_distributions_come_to_rest_in_the_trainer_too():
    q = torch.tensor(RNG.dirichlet(np.ones(K), N), dtype=torch.float32)
    trainer = trainer_for(max_epochs=100, precision="64-true")
    model = SoftmaxRegression(D, K, l2=L2, optimizer=partial(ExactSolver, tol=1e-12))
    trainer.fit(model, DataLoader([(ROWS, q)], batch_size=None))
    assert model.solver.status is Status.CONVERGED


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", sampled(SCALES, every=2, named=[1e-42, 1e37]))
@pytest.mark.parametrize("soft", [False, True])
def test_a_common_factor_changes_nothing(soft, scale, dtype, usual):
    """In float32 1e-42 stalled, 1e-100 was "no positive sum", 1e37 "features … larger"."""
    y = ONE_HOT if soft else LABELS
    found = solved([(ROWS, y, torch.as_tensor(C * scale))], dtype)
    assert_optimum(found, usual)
    assert found.evaluations <= 8


@pytest.mark.parametrize("scale", sampled(SCALES, every=3))
def test_a_factor_of_class_weights_changes_nothing_either(scale):
    class_weight = np.array([0.5, 1.0, 2.0, 3.0])
    found = solved([(ROWS, LABELS)], class_weight=torch.as_tensor(class_weight * scale))
    assert_optimum(found, reference(class_weight[Y]))
    found = solved(
        [(ROWS, LABELS, torch.as_tensor(C / scale))],
        class_weight=torch.as_tensor(class_weight * scale),
    )
    assert_optimum(found, reference(C * class_weight[Y]))


@pytest.mark.parametrize("scale", [whole(1.0), 1e-42, whole(1e37)])
def test_processes_agree_on_a_scale(scale, ranks):
    """Though the weights of each are another size, and the last one has no rows at all."""
    weights = np.where(np.arange(N) % 2, 1e-3 * C, C)
    answers = ranks.run(3, jobs.weighted_shares, X, Y, weights * scale, L2)
    for weight, status in answers:
        assert status == "CONVERGED"
        np.testing.assert_array_equal(weight, answers[0][0])
    np.testing.assert_allclose(answers[0][0], reference(weights), atol=2e-5)


@pytest.mark.parametrize(
    "dtype",
    [torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8, torch.bool],
    ids=str,
)
def test_weights_of_any_dtype_count_as_their_values(dtype):
    given = torch.as_tensor(C).to(dtype) if dtype != torch.bool else torch.as_tensor(C) > 1
    assert_optimum(solved([(ROWS, LABELS, given)]), reference(given.double().numpy()))


def test_products_of_narrow_weights_do_not_overflow():
    """300 · 300 is beyond float16."""
    rows = torch.as_tensor(200 * C).half()
    classes = torch.tensor([300.0, 600, 900, 1200]).half()
    found = solved([(ROWS, LABELS, rows)], class_weight=classes)
    assert_optimum(found, reference(rows.double().numpy() * classes.double().numpy()[Y]))


@pytest.mark.parametrize("first", [1e-42, 1e-30, 1e20])
def test_a_first_batch_of_other_weights_than_the_rest(first):
    """As of weights that decay; the scale that its rows tell must leave room for the others."""
    weights = np.where(np.arange(N) < 20, first, C)
    parts = [slice(0, 20), slice(20, N)]
    given = torch.as_tensor(weights)
    found = solved([(ROWS[part], LABELS[part], given[part]) for part in parts], "float64")
    if first > 1:  # the others count for nothing
        assert found.status is not Status.RUNNING
        return
    assert_optimum(found, reference(weights))
    unweighted = [(ROWS[:20], LABELS[:20], given[:20]), (ROWS[20:], LABELS[20:])]
    assert_optimum(solved(unweighted), reference(np.where(np.arange(N) < 20, first, 1.0)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("much", [1e3, 1e6, 1e9])
def test_one_row_that_outweighs_the_others(much, dtype):
    weights = C.copy()
    weights[3] *= much
    found = solved([(ROWS, LABELS, torch.as_tensor(weights))], dtype)
    assert found.status is Status.CONVERGED
    w, b = found.weight.double().numpy(), found.bias.double().numpy()
    logits = X @ w.T + b
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    share = (weights / weights.sum())[:, None] * (p - np.eye(K)[Y])
    gradient = np.column_stack([share.T @ X + L2 * w, share.sum(0)])
    assert abs(gradient).max() <= 1.5e-6  # tol


@pytest.mark.parametrize("weights", [np.zeros(N), np.full(N, 1e-300) * 1e-300])
def test_no_weight_at_all_is_refused(weights):
    with pytest.raises(InputError, match="row weights with a positive sum, got a sum of 0"):
        solved([(ROWS, LABELS, torch.as_tensor(weights))])


@pytest.mark.parametrize("largest", [1e-42, 1e-31, 1e31, 1e300])
def test_a_model_s_class_weights_that_float32_cannot_hold_are_refused_with_a_remedy(largest):
    weights = [0.5 * largest, largest]
    with pytest.raises(InputError, match="divide all weights by it: only their ratios count"):
        SoftmaxRegression(4, 2, class_weight=weights)
    SoftmaxRegression(4, 2, class_weight=[w / largest for w in weights])


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's, that these are young
    SPARSE = {
        "sparse_csr": ROWS.to_sparse_csr(),
        "sparse_coo": ROWS.to_sparse(),
        "sparse_csc": ROWS.to_sparse_csc(),
    }


@pytest.mark.parametrize("layout", SPARSE)
def test_sparse_rows_are_refused_with_a_remedy_in_the_plain_loop(layout, usual):
    rows, weights = SPARSE[layout], torch.as_tensor(C)
    with pytest.raises(InputError, match=rf"expected dense rows, got {layout} of .*\.to_dense\(\)"):
        solved([(rows, LABELS, weights)])
    assert_optimum(solved([(rows.to_dense(), LABELS, weights)]), usual)


@pytest.mark.parametrize("layout", sampled(SPARSE, named=["sparse_csr", "sparse_coo"]))
@pytest.mark.parametrize(
    ("optimizer", "preprocessing"),
    [(ExactSolver, "none"), (ExactSolver, "standardize"), (torch.optim.Adam, "standardize")],
)
def test_sparse_rows_are_refused_with_a_remedy_in_the_trainer(optimizer, preprocessing, layout):
    def fit(kind, rows):
        model = kind(D, K, l2=L2, optimizer=optimizer, preprocessing=preprocessing)
        loader = DataLoader([(rows, LABELS)], batch_size=None)
        trainer_for(torch.float32, max_epochs=3).fit(model, loader)

    class Dense(SoftmaxRegression):
        def features(self, x):
            return x.to_dense()

    with pytest.raises(InputError, match=f"expected dense rows, got {layout}"):
        fit(SoftmaxRegression, SPARSE[layout])
    fit(SoftmaxRegression, SPARSE[layout].to_dense())
    fit(Dense, SPARSE[layout])


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ((ROWS, LABELS, C), "(x, y, weight), got tuple of torch.float32, torch.int64, ndarray;"),
        ((X, Y), "got tuple of ndarray, ndarray; make tensors with torch.as_tensor"),
        ((ROWS, LABELS, ROWS[:, 0] + 1j), "expected batches of real tensors"),
        (ROWS, "got Tensor of torch.float32;"),
        ({"x": ROWS, "y": LABELS}, "got dict of dict;"),
        ((ROWS,), "got tuple of torch.float32;"),
        ((ROWS, LABELS, torch.ones(N), 1), "(x, y) or (x, y, weight), got tuple of"),
        ((ROWS, ONE_HOT.to_sparse()), "expected dense targets, got sparse_coo"),
        ((ROWS, LABELS, torch.ones(N).to_sparse()), "expected dense row weights, got sparse_coo"),
    ],
)
def test_batches_of_something_else_are_refused_with_a_sentence(batch, words):
    with pytest.raises(InputError) as error:
        solved([batch])
    assert words in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_one_take_the_same_steps_as_none(dtype):
    """Sampling included: weights wider than the rows drew other ones, and widened all products."""
    rng = np.random.default_rng(0)
    x, scores = rng.standard_normal((8000, 16)), rng.standard_normal((16, 30))
    y = torch.tensor((x @ scores + rng.gumbel(size=(8000, 30))).argmax(1))
    x = torch.tensor(x).to(dtype)
    ones = torch.ones(8000, dtype=torch.float64)
    some, none = (
        minimise([(x, y, *weights)], 16, 30, l2=1e-4, dtype=dtype) for weights in ([ones], [])
    )
    assert some.evaluations == none.evaluations
    assert torch.equal(some.weight, none.weight)
