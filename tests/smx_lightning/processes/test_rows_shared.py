"""Weighted, soft and unlabelled rows on several processes are as on one; nobody waits for ever."""

import numpy as np
import pytest
import row_jobs
from sampled import sampled, whole

ALL = {"class_weight": "balanced", "preprocessing": "standardize", "l2": 0.1,
       "label_smoothing": 0.1}  # fmt: skip
CASES = [
    (world_size, kind, n, optimizer, unknown)
    for world_size in (2, 3)
    for kind in ("counts", "soft", "ignored", "ignored, weighted")
    for n in (61, 8)
    for optimizer in ("sgd", "adam", "exact")
    for unknown in (False, True)
]
FEW = [
    (2, "soft", 61, "adam", False),
    (2, "ignored", 61, "sgd", False),
    (2, "ignored", 61, "sgd", True),
    (2, "ignored, weighted", 8, "exact", False),
]


def assert_close(one, several, *, atol=1e-12):
    for name in ("weight", "bias"):
        for other in several:
            np.testing.assert_array_equal(other[name], several[0][name])
        np.testing.assert_allclose(several[0][name], one[name], rtol=0, atol=atol)
    assert several[0]["metrics"].keys() == one["metrics"].keys()
    for name, value in one["metrics"].items():
        if name != "train/gradient_max":
            assert several[0]["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


@pytest.mark.parametrize(
    ("world_size", "kind", "n", "optimizer", "unknown"), sampled(CASES, named=FEW)
)
def test_one_process_and_several_end_alike(ranks, world_size, kind, n, optimizer, unknown):
    model = {"l2": 0.1} if optimizer == "sgd" or n == 8 else ALL
    case = {"optimizer": optimizer, "batch_size": 16, "unknown": unknown, **model}
    one = row_jobs.fitted(1, kind, n, **case)
    several = ranks.run(world_size, row_jobs.fitted, kind, n, **case)
    assert_close(one, several)
    np.testing.assert_allclose(several[0]["counts"], one["counts"], rtol=1e-13)


@pytest.mark.parametrize("world_size", [1, 2, whole(3)])
@pytest.mark.parametrize("optimizer", ["adam", whole("exact")])
def test_integer_weights_equal_repeated_rows(ranks, world_size, optimizer):
    case = {"optimizer": optimizer, "batch_size": 1000, **ALL}
    repeated = row_jobs.fitted(1, "repeated", 61, **case)
    found = ranks.run(world_size, row_jobs.fitted, "counts", 61, **case)
    # Which rows are validated on is another question.
    assert_close({**repeated, "metrics": {}}, [{**one, "metrics": {}} for one in found])
    assert found[0]["counts"] == repeated["counts"]


@pytest.mark.parametrize("world_size", [2, whole(3)])
@pytest.mark.parametrize("optimizer", ["adam", whole("exact")])
def test_ignored_rows_are_none(ranks, world_size, optimizer):
    case = {"optimizer": optimizer, "batch_size": 1000, **ALL}
    without = row_jobs.fitted(1, "without", 61, **case)
    assert_close(without, ranks.run(world_size, row_jobs.fitted, "ignored", 61, **case))


@pytest.mark.parametrize("optimizer", ["sgd", whole("adam"), whole("exact")])
@pytest.mark.parametrize("world_size", [1, 2])
def test_an_epoch_without_any_row_is_refused_by_all(ranks, world_size, optimizer):
    case = {"optimizer": optimizer, "batch_size": 16, "l2": 0.1, "evaluate": False}
    found = ranks.run(world_size, row_jobs.refused, "none", 40, **case)
    assert all("expected training rows" in one and "without any" in one for one in found), found
