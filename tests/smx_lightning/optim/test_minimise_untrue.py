"""What a status must not hide: arguments that are no problem at all, and limits that are none."""

import numpy as np
import pytest
import torch
from large_problems import drawn_large
from optima import drawn
from sampled import whole
from solutions import assert_certified

from smx_lightning import InputError
from smx_lightning.optim import Status, minimise

ROWS, LABELS = torch.randn(60, 5, dtype=torch.float64), torch.arange(60) % 4
WIDE = torch.randn(20, 50, dtype=torch.float64)
ONE_HOT = torch.eye(4, dtype=torch.float64)[LABELS]
ONES = torch.ones(60, dtype=torch.float64)


def put(tensor, number):
    tensor = tensor.clone()
    tensor[3, ...] = number
    return tensor


BAD = [float("nan"), float("inf"), -float("inf")]
REFUSED = {
    **{f"{bad} in x": (put(ROWS, bad), LABELS) for bad in BAD},
    **{f"{bad} in x, wide": (put(WIDE, bad), LABELS[:20]) for bad in BAD},
    **{f"{bad} as a weight": (ROWS, LABELS, put(ONES, bad)) for bad in BAD},
    "a negative weight": (ROWS, LABELS, put(ONES, -1.0)),
    "nan in a target": (ROWS, put(ONE_HOT, float("nan"))),
    "a negative target": (ROWS, put(ONE_HOT, torch.tensor([2.0, -1, 0, 0]).double())),
    "targets that sum to two": (ROWS, 2 * ONE_HOT),
    "a label beyond the classes": (ROWS, LABELS + 1),
    "a negative label": (ROWS, LABELS - 1),
    "labels of one number more": (ROWS[1:], LABELS),
    "targets of three classes": (ROWS, torch.full((60, 3), 1 / 3)),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_problem_is_refused_with_a_sentence(name, dtype):
    batch = REFUSED[name]
    with pytest.raises(InputError):
        minimise([batch], batch[0].shape[1], 4, l2=1e-3, dtype=dtype)


@pytest.mark.parametrize(
    "arguments",
    [
        {"start": (torch.full((4, 5), float("nan")), torch.zeros(4))},
        {"start": (torch.full((4, 5), float("inf")), torch.zeros(4))},
        {"start": (torch.zeros(3, 5), torch.zeros(3))},
        {"class_weight": torch.ones(3)},
        {"class_weight": torch.tensor([1.0, 1, 1, -1])},
        {"dtype": torch.float16},
        {"num_features": 6},
    ],
    ids=["start of nan", "start of inf", "start", "class weights", "negative", "half", "features"],
)
def test_arguments_that_fit_nothing_are_refused_with_a_sentence(arguments):
    kwargs = {"num_features": 5, "num_classes": 4, "l2": 1e-3, **arguments}
    with pytest.raises(InputError):
        minimise([(ROWS, LABELS)], **kwargs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_class_without_rows_is_no_limit_of_precision(dtype):
    found = minimise([(ROWS, LABELS.clamp(max=2))], 5, 4, l2=1e-3, tol=0.0, dtype=dtype)
    assert found.status is Status.UNSEEN_CLASS


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize(("features", "classes", "l2"), [(2000, 50, 1e-4), (2000, 100, 1e-5)])
def test_wide_rows_of_many_classes(features, classes, l2, dtype):
    """Every class is certain after the first step, its mass zero: 13 to 35 times the optimum."""
    x = np.random.default_rng(0).standard_normal((100, features))
    x = ((x - x.mean(0)) / x.std(0)).astype(dtype)
    kwargs = {"l2": l2, "tol": 1e-10 if dtype == "float64" else 1e-7}
    kwargs["dtype"] = getattr(torch, dtype)
    batches = [(torch.tensor(x), torch.arange(100) % classes)]
    found = minimise(batches, features, classes, **kwargs)
    assert found.status in (Status.CONVERGED, Status.PRECISION)
    best = {50: 5.134670e-4, 100: 7.38401e-5}[classes]  # by ``certificates.least``
    assert found.objective == pytest.approx(best, rel=1e-5 if dtype == "float64" else 1e-2)


@pytest.mark.parametrize("seed", [whole(seed) for seed in (16, 19, 55)])
def test_large_problems_that_were_missed(seed):
    assert_certified(*drawn_large(seed, 0.1), seed)


@pytest.mark.whole
def test_rows_that_turn_over_a_few_at_a_time_are_right_if_slow():
    """One row a class, features of 10³, float32: 266 passes, the longest known way."""
    assert assert_certified(*drawn_large(22, 0.1), 22).evaluations <= 300


AT_PRECISION = [
    *(2303, 2313, 2324, 2332, 2336, 2348, 2367, 2368, 2369, 2375, 2379, 2383, 2393, 2396),
    *(2403, 2407, 2411, 2415, 2424, 2435, 2439, 2456, 2460, 2467, 2475, 2476, 2631),
]


@pytest.mark.parametrize("seeds", [AT_PRECISION[:9], whole(AT_PRECISION)], ids=len)
def test_precision_is_seldom_an_excuse_for_what_float32_can_tell(seeds):
    """The gradient is at most 16 times what its own evaluation in float32 is wrong by.

    Of one problem in thirty it is not; of which one depends on how a processor rounds.
    """
    missed = []
    for seed in seeds:
        try:
            assert_certified(*drawn(seed), seed)
        except AssertionError as error:
            missed.append(str(error))
    assert len(missed) <= len(seeds) // 9, missed
