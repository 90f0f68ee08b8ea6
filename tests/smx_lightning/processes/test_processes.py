"""The same answer on one process and on several, whatever the sizes."""

from itertools import chain

import jobs
import numpy as np
import pytest
import torch
from sampled import sampled, whole
from torch.utils.data import DistributedSampler, TensorDataset

from smx_lightning import InputError
from smx_lightning.data import BatchLoader, EpochOrder, GlobalBatches

WEIGHTED = {"class_weight": [1, 2, 3, 1, 2, 0.5], "preprocessing": "standardize", "l2": 0.1}
TWO_OR_THREE = pytest.mark.parametrize("world_size", [2, whole(3)])


def assert_same(one, several, tolerance):
    for name in ("weight", "bias"):
        for other in several:  # DDP keeps ranks alike to the bit
            np.testing.assert_array_equal(other[name], several[0][name])
        np.testing.assert_allclose(several[0][name], one[name], rtol=0, atol=tolerance)
    for name, value in one["metrics"].items():
        if name != "train/gradient_max":  # which is nothing but rounding, at an optimum
            assert several[0]["metrics"][name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


MINI_BATCHES = [
    (world_size, n, optimizer)
    for world_size in (2, 3)
    for optimizer in ("sgd", "adam")
    for n in (192, 203, 21, 2, 1)  # batches of 32
]
FEW = [(2, 203, "adam"), (2, 1, "adam")]  # three processes take longest to start


@pytest.mark.parametrize(("world_size", "n", "optimizer"), sampled(MINI_BATCHES, named=FEW))
def test_mini_batches_give_the_same_weights(ranks, world_size, n, optimizer):
    model = {"sgd": {}, "adam": WEIGHTED}[optimizer]
    case = {"n": n, "optimizer": optimizer, "precision": "64-true", **model}
    one, several = jobs.fitted(1, **case), ranks.run(world_size, jobs.fitted, **case)
    assert_same(one, several, 1e-12)
    # Share by share the rows of each batch, in an order of each epoch's own.
    shares = zip(*(other["seen"] for other in several), strict=True)
    for batch, parts in zip(one["seen"], shares, strict=True):
        for rank, part in enumerate(parts):
            assert part == batch[rank::world_size]
    steps = len(one["seen"]) // 4
    orders = [list(chain(*one["seen"][epoch * steps :][:steps])) for epoch in range(4)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    if n > 2:
        assert len({tuple(order) for order in orders}) == 4


@pytest.mark.parametrize(
    ("activation", "optimizer", "n"),
    sampled(
        [
            ("sparsemax", "adam", 203),
            ("entmax15", "exact", 203),
            ("sparsemax", "exact", 203),
            ({"alpha": 1.3}, "adam", 21),
            ("entmax15", "sgd", 1),
        ],
        every=2,
        named=[("sparsemax", "adam", 203), ("sparsemax", "exact", 203)],
    ),
)
def test_other_activations_give_the_same_weights(ranks, activation, optimizer, n):
    model = {**WEIGHTED, "activation": activation}
    epochs = 60 if optimizer == "exact" else 4
    case = {"n": n, "optimizer": optimizer, "precision": "64-true", "epochs": epochs, **model}
    one, several = jobs.fitted(1, **case), ranks.run(2, jobs.fitted, **case)
    assert_same(one, several, 1e-9 if optimizer == "exact" else 1e-12)
    assert {"train/loss", "train/accuracy_micro"} <= one["metrics"].keys()


@pytest.mark.whole
@TWO_OR_THREE
@pytest.mark.parametrize("n", [203, whole(7)])
def test_a_head_in_a_host_and_steps_of_one_s_own_give_the_same_weights(ranks, n, world_size):
    for job, model in ((jobs.hosted, {}), (jobs.own_steps, WEIGHTED), (jobs.own_steps, {})):
        assert_same(job(1, n, **model), ranks.run(world_size, job, n=n, **model), 1e-12)


@TWO_OR_THREE
@pytest.mark.parametrize("optimizer", [whole("sgd"), "adam"])
@pytest.mark.parametrize("n", [203, whole(2)])
def test_in_float32_they_agree_to_rounding(ranks, optimizer, n, world_size):
    case = {"n": n, "optimizer": optimizer, "precision": "32-true", **WEIGHTED}
    assert_same(jobs.fitted(1, **case), ranks.run(world_size, jobs.fitted, **case), 1e-6)


@TWO_OR_THREE
@pytest.mark.parametrize(
    ("n", "classes", "precision", "tolerance"),
    sampled(
        [
            (192, 6, "64-true", 1e-12),
            (203, 6, "64-true", 1e-12),
            (2, 2, "64-true", 1e-12),
            (203, 6, "32-true", 1e-6),
        ],
        every=2,
    ),
)
def test_the_exact_solver_finds_the_same_optimum(
    ranks, n, classes, precision, tolerance, world_size
):
    case = {"n": n, "optimizer": "exact", "precision": precision, "epochs": 60, "l2": 0.1}
    one = jobs.fitted(1, **case, num_classes=classes)
    several = ranks.run(world_size, jobs.fitted, **case, num_classes=classes)
    assert_same(one, several, tolerance)
    if precision == "64-true":
        assert several[0]["status"] == "CONVERGED"


@pytest.mark.whole
@pytest.mark.parametrize(
    ("solver", "apart"),
    sampled([({}, 1e-3), ({"tol": 1e-9}, 1e-6), ({"tol": 1e-13}, 1e-10)], every=3),
)
def test_the_exact_solver_s_tol_says_how_close_the_optimum_is(ranks, solver, apart):
    """As measured on digits: 1.4e-4 (in 9 and 10 epochs), 2e-7 and 7e-12."""
    one, several = jobs.solved_digits(1, **solver), ranks.run(2, jobs.solved_digits, **solver)
    for mine, theirs in zip(one[:2], several[0][:2], strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=apart)
    assert {one[2], several[0][2]} == {"CONVERGED"}
    for name in (0, 1):  # ranks are alike to the bit all the same
        np.testing.assert_array_equal(several[0][name], several[1][name])


@TWO_OR_THREE
@pytest.mark.parametrize("n", [1, 21, 203])
def test_every_row_is_evaluated_once(ranks, n, world_size):
    one, several = jobs.evaluated(1, n), ranks.run(world_size, jobs.evaluated, n)
    assert one["confusion"].sum() == n
    for other in several:
        np.testing.assert_array_equal(other["confusion"], one["confusion"])
        assert other["metrics"] == pytest.approx(one["metrics"], rel=1e-6, abs=1e-7)
    first, *others = (other["prediction"] for other in several)
    assert others == [None] * (world_size - 1)
    np.testing.assert_array_equal(first[0], one["prediction"][0])
    np.testing.assert_allclose(first[1], one["prediction"][1], rtol=1e-14)


def test_gradients_may_be_accumulated(ranks):
    case = {"n": 203, "optimizer": "sgd", "precision": "64-true", **WEIGHTED}
    case["trainer"] = {"accumulate_grad_batches": 3}
    assert_same(jobs.fitted(1, **case), ranks.run(2, jobs.fitted, **case), 1e-12)


@TWO_OR_THREE
def test_loaders_of_one_s_own_give_the_same_weights(ranks, world_size):
    one, several = jobs.fitted_with_loaders(1), ranks.run(world_size, jobs.fitted_with_loaders)
    assert_same(one, several, 1e-12)


def test_digits_that_float32_loses_are_kept_on_two_processes_as_on_one(ranks):
    x = 1.7e9 + jobs.Made(203, 32).splits.train.x.numpy()
    for found in (one := jobs.fitted_far_away(1), *ranks.run(2, jobs.fitted_far_away)):
        assert found["wide"] == list(range(7))
        np.testing.assert_allclose(found["centre"] - x.mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(found["weight"], one["weight"], atol=1e-6)


@pytest.mark.whole
def test_the_command_line_writes_predictions_in_order(ranks, tmp_path):
    one, both = tmp_path / "one.csv", tmp_path / "both.csv"
    jobs.predicted_by_command(1, str(tmp_path), str(one))
    ranks.run(2, jobs.predicted_by_command, str(tmp_path), str(both))
    first, second = (path.read_text().splitlines() for path in (one, both))
    assert len(first) == 1798  # every row of the file
    first, second = (np.array([line.split(",") for line in part]) for part in (first, second))
    np.testing.assert_array_equal(first[:, :2], second[:, :2])
    # Shares of a batch have other shapes, of which BLAS may make another last digit.
    np.testing.assert_allclose(first[1:, 2:].astype(float), second[1:, 2:].astype(float), atol=1e-6)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("world_size", [1, 2])
def test_gpus_give_the_weights_of_a_cpu(ranks, world_size):
    if world_size > torch.cuda.device_count():
        pytest.skip("fewer CUDA devices")
    case = {"n": 203, "optimizer": "sgd", "precision": "64-true", **WEIGHTED}
    several = ranks.run(world_size, jobs.fitted, trainer={"accelerator": "gpu"}, **case)
    assert_same(jobs.fitted(1, **case), several, 1e-10)  # another order of summation


# The loader by itself --------------------------------------------------------------------------


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
@pytest.mark.parametrize(("n", "batch_size"), [(1, 4), (7, 3), (12, 4)])
def test_shares_are_a_partition_of_each_batch(n, batch_size, world_size):
    shares = [
        list(GlobalBatches(range(n), batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    assert {len(share) for share in shares} == {-(-n // batch_size)}
    for k, parts in enumerate(zip(*shares, strict=True)):
        batch = list(range(n))[k * batch_size :][:batch_size]
        assert sorted(chain(*parts)) == batch
        assert GlobalBatches(range(n), batch_size).rows(k) == len(batch)


def test_the_order_is_a_function_of_seed_and_epoch():
    def order(seed, epoch):
        sampler = EpochOrder(range(100), shuffle=True, seed=seed)
        sampler.set_epoch(epoch)
        return tuple(sampler)

    orders = {(seed, epoch): order(seed, epoch) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25
    torch.manual_seed(1)
    assert orders == {key: order(*key) for key in orders}
    assert all(sorted(rows) == list(range(100)) for rows in orders.values())


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_loader_goes_on_where_its_state_says(num_workers):
    def loader():
        rows = TensorDataset(torch.arange(23))
        return BatchLoader(rows, batch_size=5, shuffle=True, num_workers=num_workers)

    whole = [x.tolist() for (x,) in loader()]
    first = loader()
    batches = iter(first)
    assert [next(batches)[0].tolist() for _ in range(2)] == whole[:2]
    second = loader()
    second.load_state_dict(first.state_dict())
    assert [x.tolist() for (x,) in second] == whole[2:]
    assert len(list(second)) == 5  # the next epoch is whole


def test_an_empty_share_has_the_shape_of_the_others():
    rows = TensorDataset(torch.zeros(3, 4), torch.zeros(3).long())
    loader = BatchLoader(rows, batch_size=2, rank=1, world_size=2)
    assert [(tuple(x.shape), tuple(y.shape)) for x, y in loader] == [((1, 4), (1,)), ((0, 4), (0,))]


def test_a_sampler_that_shares_rows_out_already_is_refused():
    sampler = DistributedSampler(range(4), num_replicas=2, rank=0)
    with pytest.raises(InputError, match="use_distributed_sampler=False"):
        GlobalBatches(sampler, 2)
    with pytest.raises(InputError, match="drop_last=False"):
        GlobalBatches(range(4), 2, drop_last=True)
    with pytest.raises(InputError, match="batch_size must be at least 1"):
        GlobalBatches(range(4), 0)


def test_several_loaders_are_counted_and_predicted_on_several_processes(ranks):
    for rank, found in enumerate(ranks.run(2, jobs.evaluated_by_loader)):
        *own, together = found["expected"]
        assert found["by loader"] == pytest.approx(own, rel=1e-6)
        assert found["test/nll"] == pytest.approx([together] * 3, rel=1e-6)
        if rank == 0:
            np.testing.assert_allclose(found["probs"], found["right"], rtol=1e-12)
        else:
            assert found["probs"] is None
