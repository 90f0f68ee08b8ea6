"""What is one experiment, and what is another."""

import random
import time
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule
from sampled import examples
from torch.utils.data import ConcatDataset, DataLoader, Dataset, IterableDataset, Subset
from torch.utils.data import TensorDataset as Tensors

from smx_lightning import SoftmaxRegression
from smx_lightning.data import BatchLoader, DigitsDataModule, Rows
from smx_lightning.data.described import ROWS, described
from smx_lightning.data.described import identified as plain
from smx_lightning.optim import ExactSolver
from smx_lightning.recovery.fingerprint import differences, digest, fingerprint


class Asked(Exception):  # noqa: N818
    """Raised where training would begin."""


def sgd(lr=0.1, momentum=0.0):
    return lambda parameters: torch.optim.SGD(parameters, lr=lr, momentum=momentum)


def experiment(trainer, model=(), data=None, kind=SoftmaxRegression, *, make):
    """The fingerprint as Recovery takes it, when the fit starts."""
    taken = []

    class Take(kind):
        def on_fit_start(self):
            taken.append(fingerprint(self.trainer, self))
            raise Asked

    Take.__qualname__ = kind.__qualname__
    module = Take(64, 10, **{"optimizer": sgd(), **dict(model)})
    with pytest.raises(Asked):
        make(**trainer).fit(module, data or DigitsDataModule())
    return taken[0]


class Wide(SoftmaxRegression):
    pass


class Halving(SoftmaxRegression):
    def configure_optimizers(self):
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.halved)]

    halved = 3


class Later(Halving):
    halved = 4


class Swapped(DigitsDataModule):
    """Digits of which two rows have changed their labels."""

    def load(self):
        given = super().load()
        given.train.y[[0, 1]] = given.train.y[[1, 0]]
        return given


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ({"model": {"l2": 0.5}}, "l2 0 there, 0.5 here"),
        ({"model": {"preprocessing": "standardize"}}, "preprocessing none there, standardize here"),
        ({"model": {"class_weight": "balanced"}}, "class_weight None there, balanced here"),
        ({"model": {"optimizer": sgd(1e-4)}}, "optimizer.lr 0.1 there, 0.0001 here"),
        ({"model": {"optimizer": sgd(0.1, 0.9)}}, "optimizer.momentum 0 there, 0.9 here"),
        ({"model": {"optimizer": ExactSolver}}, "ExactSolver here"),
        ({"kind": Halving}, "schedule"),
        ({"kind": Wide}, "test_fingerprint.Wide here"),
        ({"trainer": {"accumulate_grad_batches": 2}}, "accumulate_grad_batches 1 there, 2 here"),
        ({"trainer": {"gradient_clip_val": 1.0}}, "gradient_clip_val None there, 1.0 here"),
        ({"trainer": {"precision": "64-true"}}, "precision '32-true' there, '64-true' here"),
        ({"trainer": {"limit_train_batches": 1}}, "limit_train_batches 1.0 there, 1 here"),
        ({"trainer": {"overfit_batches": 2}}, "overfit_batches 0.0 there, 2 here"),
        ({"data": DigitsDataModule(batch_size=7)}, "data.batch_size 256 there, 7 here"),
        ({"data": DigitsDataModule(seed=1)}, "data.seed 0 there, 1 here"),
        ({"data": DigitsDataModule(test_fraction=0.5)}, "data.rows 1213 there, 809 here"),
        ({"data": Swapped()}, "hash of rows"),
    ],
)
def test_what_decides_the_weights_is_another_experiment(quiet_trainer, here, said):
    ours = experiment(here.pop("trainer", {}), make=quiet_trainer, **here)
    theirs = experiment({}, make=quiet_trainer)
    assert said.rpartition(" there")[0] in differences(theirs, ours)
    assert said.rpartition("there, ")[2] in differences(theirs, ours)
    assert digest(ours) != digest(theirs)


def test_schedules_differ_by_their_settings(quiet_trainer):
    one, other = (
        experiment({}, kind=kind, make=quiet_trainer) | {"model": ""} for kind in (Halving, Later)
    )
    assert differences(one, other) == "schedule.step_size 3 there, 4 here"


def test_how_long_where_and_by_whom_does_not_matter(quiet_trainer, tmp_path):
    longer = {"max_epochs": 9, "default_root_dir": tmp_path, "enable_progress_bar": True}
    ours, theirs = (experiment(t, make=quiet_trainer) for t in (longer, {}))
    assert differences(theirs, ours) == ""
    assert digest(ours) == digest(theirs)


def test_a_global_seed_is_a_setting(quiet_trainer, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "1")
    one = experiment({}, make=quiet_trainer)
    monkeypatch.setenv("PL_GLOBAL_SEED", "2")
    other = experiment({}, make=quiet_trainer)
    assert differences(one, other) == "seed_everything 1 there, 2 here"


def states():
    return [torch.get_rng_state(), np.random.get_state()[1], random.getstate()]


class Careful(LightningDataModule):
    """Draws random numbers when it is asked for its loader, and lets nobody touch its rows."""

    def train_dataloader(self):
        rows = Untouched(torch.rand(1000, 64), torch.randint(10, (1000,)))
        random.random(), np.random.rand()
        return DataLoader(rows, batch_size=10, shuffle=True)


class Untouched(Dataset):
    def __init__(self, x, y):
        self.x, self.labels = x, y.tolist()

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        raise AssertionError("asked for a row")


def test_nothing_is_drawn_and_no_row_is_asked_for(quiet_trainer):
    drawn = []

    class Watching(SoftmaxRegression):
        def on_fit_start(self):
            before = states()
            drawn.append(fingerprint(self.trainer, self))
            for one, other in zip(before, states(), strict=True):
                assert np.array_equal(one, other) if not isinstance(one, tuple) else one == other
            raise Asked

    for _ in range(2):
        torch.manual_seed(3)
        with pytest.raises(Asked):
            quiet_trainer().fit(Watching(64, 10), Careful())
    one, other = drawn
    assert one == other
    assert one["data"]["x"]["shape"] == [64]
    assert sum(one["data"]["labels"]["counts"]) == 1000


class Stream(IterableDataset):
    def __iter__(self):
        raise AssertionError("iterated")


class Unknown:
    def __iter__(self):
        raise AssertionError("iterated")


def test_of_data_that_cannot_be_looked_into_the_class_is_known():
    for data in (DataLoader(Stream(), batch_size=4), Unknown()):
        known = described(data)
        assert known["class"].endswith(("Stream", "Unknown"))
        assert "rows" not in known


X = torch.arange(600.0).reshape(300, 2)
Y = torch.arange(300) % 3


@pytest.mark.parametrize(
    "change",
    [
        lambda x, y: Rows(x.double(), y),
        lambda x, y: Rows(x.reshape(300, 1, 2), y),
        lambda x, y: Rows(x[:-1], y[:-1]),
        lambda x, y: Rows(x.index_fill(0, torch.tensor(299), 0), y),
        lambda x, y: Rows(x, y.roll(1)),
        lambda x, y: Subset(Rows(x, y), range(299)),
        lambda x, y: Subset(Subset(Rows(x, y), range(300)), [*range(1, 300), 0]),
        lambda x, y: ConcatDataset([Rows(x, y)]),
        lambda x, y: Tensors(x, y),
        lambda x, y: Untouched(x, y),
        lambda x, y: Untouched(x.numpy(), y),
        lambda x, y: list(zip(x, y, strict=True)),
    ],
)
def test_data_sets_differ(change):
    one = described(BatchLoader(Rows(X, Y), batch_size=3))
    other = described(BatchLoader(change(X, Y), batch_size=3))
    again = described(BatchLoader(change(X.clone(), Y.clone()), batch_size=3))
    assert plain(one) != plain(other) == plain(again)


def test_a_subset_is_described_by_its_rows():
    def column(rows):
        return described(DataLoader(rows, batch_size=3))["y"]

    chosen = torch.tensor([5, 7, 250])
    inner = Subset(Rows(X, Y), range(5, 300))
    assert column(Rows(X[chosen], Y[chosen])) == column(Subset(inner, [0, 2, 245]))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.bfloat16, torch.cfloat])
def test_rows_of_any_dtype_are_told_apart(dtype):
    def column(x):
        return described(DataLoader(Tensors(x), batch_size=3))["tensors.0"]["hash of rows"]

    x = torch.zeros(100, 3, dtype=dtype)
    other = x.clone()
    other[99, 2] = 1
    assert column(x) == column(x.clone()) != column(other)


def test_a_large_data_set_takes_milliseconds(tmp_path):
    x, y = torch.rand(60000, 784), torch.randint(10, (60000,))
    path = tmp_path / "x.npy"
    np.save(path, x.numpy())
    for data in (Rows(x, y), Untouched(np.load(path, mmap_mode="r"), y)):
        seconds = []
        for _ in range(5):
            begun = time.perf_counter()
            known = described(BatchLoader(data, batch_size=256))
            seconds.append(time.perf_counter() - begun)
        assert min(seconds) < 0.05
    assert sum(known["labels"]["counts"]) == 60000
    changed = x.clone()
    changed[59999 * 100 // (ROWS - 1)] = 0  # the hundredth of the rows that are hashed
    found = described(BatchLoader(Untouched(changed.numpy(), y), batch_size=256))
    assert found["x"] != known["x"]


class Colour(Enum):
    RED = 1


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=examples(30))
@given(PLAIN)
def test_plain_values_stay_and_are_the_same_experiment(value):
    for _ in range(2):
        assert digest({"value": plain(value)}) == digest({"value": plain(plain(value))})
    assert differences({"v": plain(value)}, {"v": plain(value)}) == ""


def test_other_values_become_plain_ones():
    given = {
        "a": np.float32(0.5),
        "b": torch.tensor(2),
        "c": (1, Path("x")),
        "d": Colour.RED,
        "e": torch.float64,
        "f": torch.nn.ReLU(),
        "g": torch.optim.Adam,
        3: 1.0,
    }
    assert plain(given) == {
        "a": 0.5,
        "b": 2,
        "c": [1, "x"],
        "d": "RED",
        "e": "torch.float64",
        "f": "torch.nn.modules.activation.ReLU",
        "g": "torch.optim.adam.Adam",
        "3": 1,
    }


def test_long_differences_are_cut():
    there, here = ({f"k{i}": list(range(i, 100 + s)) for i in range(9)} for s in (0, 1))
    text = differences(there, here)
    assert len(text) < 500
    assert text.endswith("100] here; and 6 more")


def test_the_order_of_settings_is_no_setting():
    one = {"optimizer": {"class": "SGD", "lr": 0.1}, "model": {"l2": 0, "names": {"a": 1, "b": 2}}}
    other = {
        "model": {"names": {"b": 2, "a": 1}, "l2": 0},
        "optimizer": {"lr": 0.1, "class": "SGD"},
    }
    assert digest(one) == digest(other) != digest({**one, "model": {"l2": 1}})
    assert not differences({"x": {"a": [1], "b": 2}}, {"x": {"b": 2, "a": [1]}})


class Grouped(SoftmaxRegression):
    """The bias at a learning rate of its own."""

    def configure_optimizers(self):
        groups = [
            {"params": [self.linear.weight]},
            {"params": [self.linear.bias], "lr": self.of_bias},
        ]
        return torch.optim.SGD(groups, lr=0.1)

    of_bias = 0.2


class GroupedOtherwise(Grouped):
    of_bias = 0.3


def test_every_group_of_parameters_counts(quiet_trainer):
    there, here = (
        experiment({}, kind=kind, make=quiet_trainer)["optimizer"]
        for kind in (Grouped, GroupedOtherwise)
    )
    assert digest({"optimizer": there}) != digest({"optimizer": here})
    said = differences({"optimizer": there}, {"optimizer": here})
    assert said == "optimizer.groups.1.lr 0.2 there, 0.3 here"


@pytest.mark.parametrize(("shuffle", "order"), [(True, "EpochOrder"), (False, "_InOrder")])
def test_an_experiment_calls_an_order_what_it_did_before_files_moved(shuffle, order):
    rows = Rows(torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64))
    found = described(BatchLoader(rows, batch_size=2, shuffle=shuffle))
    assert found["order"] == f"smx_lightning.data.loading.{order}"
