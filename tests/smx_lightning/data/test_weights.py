"""Weights, distributions and rows without a label in data modules; numpy is the judge."""

import json

import numpy as np
import pytest
import torch

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.cli import main
from smx_lightning.data import InMemoryDataModule, Loaded, NpzDataModule, Rows

N, K = 40, 3
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 2))
Y = np.arange(N) % K
Q = RNG.dirichlet(np.ones(K), N)
W = RNG.uniform(0, 2, N)


def saved(folder, **arrays):
    np.savez(folder / "d.npz", **arrays)
    return folder / "d.npz"


def places(rows):
    """Where rows stand in X."""
    x = X.astype(np.float32)
    return [int(np.flatnonzero((x == row.numpy()).all(1))[0]) for row in rows.x]


@pytest.mark.parametrize("soft", [False, True])
def test_weights_stay_with_their_rows(soft, tmp_path):
    y = Q if soft else Y
    data = NpzDataModule(saved(tmp_path, x=X, y=y, weight=W))
    assert data.class_names == ["0", "1", "2"]
    seen = []
    for rows in (data.splits.train, data.splits.val, data.splits.test):
        at = places(rows)
        np.testing.assert_array_equal(rows.weight, W[at])
        np.testing.assert_array_equal(rows.y, y[at])
        seen += at
    assert sorted(seen) == [*range(N)]
    (x, targets, weight), *_ = data.train_dataloader()
    assert len(x) == len(targets) == len(weight)
    assert len(next(iter(data.predict_dataloader()))) == N


def test_given_splits_have_weights_of_their_own(tmp_path):
    given = {"x_val": X, "y_val": Q, "weight_val": W, "x_test": X, "y_test": Y}
    splits = NpzDataModule(saved(tmp_path, x=X, y=Y, **given, weight_test=Y + 1)).splits
    assert splits.train.weight is None
    np.testing.assert_array_equal(splits.val.weight, W)
    np.testing.assert_array_equal(splits.val.y, Q)
    np.testing.assert_array_equal(splits.test.weight, Y + 1)
    with pytest.raises(InputError, match="a column a class in y_test, got 2 columns for 3 class_"):
        _ = NpzDataModule(saved(tmp_path, x=X, y=Q, x_test=X, y_test=Q[:, :2])).splits


NONE = [
    ({"no_label": -1}, np.where(np.arange(N) % 5, Y, -1), "0 1 2"),
    ({"no_label": 99}, np.where(np.arange(N) % 5, Y + 3, 99), "3 4 5"),
    ({"no_label": ""}, np.where(np.arange(N) % 5, np.array(["a", "b", "c"])[Y], ""), "a b c"),
    ({"no_label": -1}, np.where(np.arange(N) % 5, np.array(["a", "b", "c"])[Y], "-1"), "a b c"),
    ({"class_names": ["a", "b", "c"]}, np.where(np.arange(N) % 5, Y, -1), "a b c"),
    ({}, np.where(np.arange(N)[:, None] % 5, Q, np.nan), "0 1 2"),
]


@pytest.mark.parametrize(("options", "y", "names"), NONE)
def test_rows_without_a_label_are_predicted_and_in_no_split(options, y, names, tmp_path):
    x = X.copy()
    x[::5, 1] = np.nan  # whose features need not be any
    data = NpzDataModule(saved(tmp_path, x=x, y=y), **options)
    assert data.class_names == names.split()
    splits = (data.splits.train, data.splits.val, data.splits.test)
    assert sum(map(len, splits)) == N - N // 5
    assert all(rows.x.isfinite().all() for rows in splits)
    known = NpzDataModule(saved(tmp_path, x=X[np.arange(N) % 5 > 0], y=y[np.arange(N) % 5 > 0]),
                          **{**options, "no_label": None})  # fmt: skip
    for rows, others in zip(splits, vars(known.splits).values(), strict=False):
        assert torch.equal(rows.x, others.x)
        assert torch.equal(rows.y, others.y)


def test_minus_one_is_a_class_unless_something_says_otherwise(tmp_path):
    y = np.where(Y == 0, -1, Y)
    assert NpzDataModule(saved(tmp_path, x=X, y=y)).class_names == ["-1", "1", "2"]
    three = NpzDataModule(saved(tmp_path, x=X, y=y), ["low", "mid", "high"])
    assert np.bincount(three.splits.train.y).min() > 0  # as many values as names


class Made(InMemoryDataModule):
    def __init__(self, rows, **kwargs):
        super().__init__(**kwargs)
        self.rows = rows

    def load(self):
        return Loaded(self.rows, ("a", "b", "c"))


REFUSED = [
    (Rows(torch.rand(9, 2), torch.full((9,), -1)), "expected a label in at least one of the 9 tr"),
    (Rows(torch.rand(9, 2), torch.full((9,), -2)), r"labels must lie in 0..2, got -2"),
    (Rows(torch.rand(9, 2), torch.arange(9) % 3, -torch.ones(9)),
     "expected row weights in the train rows that are finite and not below 0, got -1.0"),
    (Rows(torch.rand(9, 2), torch.arange(9) % 3, torch.ones(8)),
     r"expected 9 row weights in the train rows, got shape \(8,\)"),
    (Rows(torch.rand(9, 2), torch.arange(9) % 3, torch.zeros(9)),
     "expected a weight above 0 in at least one labelled row of the train rows, got none"),
    (Rows(torch.rand(9, 2), torch.arange(9) % 3, torch.full((9,), 1e30)),
     "expected row weights in the train rows whose largest lies between .* divide all of them"),
    (Rows(torch.rand(9, 2), torch.rand(9, 3) + 1), "expected distributions over the classes, got"),
    (Rows(torch.rand(9, 2), torch.full((9, 4), 0.25)), "a distribution over 3 classes a row, got"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "sentence"), REFUSED)
def test_other_weights_and_targets_are_refused(rows, sentence):
    with pytest.raises(InputError, match=sentence):
        _ = Made(rows).splits


def test_an_empty_class_is_one_without_weight():
    rows = Rows(torch.rand(40, 2), torch.arange(40) % 3, (torch.arange(40) % 3 > 0).float())
    with pytest.warns(UserWarning, match="got none of a "):
        _ = Made(rows).splits


def test_the_split_is_the_same_whatever_the_weights_are(tmp_path):
    plain = NpzDataModule(saved(tmp_path, x=X, y=Y)).splits
    soft = NpzDataModule(saved(tmp_path, x=X, y=np.eye(K)[Y], weight=W)).splits
    for name in ("train", "val", "test"):
        assert torch.equal(getattr(plain, name).x, getattr(soft, name).x)
        assert torch.equal(getattr(plain, name).y, getattr(soft, name).y.argmax(1))


@pytest.mark.parametrize("kind", ["weights", "soft", "unlabelled"])
def test_the_command_line_takes_the_exact_solver_all_the_same(kind, cli_folder, capsys):
    arrays = {
        "weights": {"y": Y, "weight": W},
        "soft": {"y": Q.astype(np.float32)},
        "unlabelled": {"y": np.where(np.arange(N) % 5, Y, -1)},
    }[kind]
    saved(cli_folder, x=X, **arrays)
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
    options = ["--data=NpzDataModule", "--data.path=d.npz", "--model.label_smoothing=0.1"]
    options += ["--data.no_label=-1"] * (kind == "unlabelled")
    assert main(["fit", *quiet, *options]) == 0
    out = capsys.readouterr().out
    assert "ExactSolver(), to the exact optimum" in out
    (path,) = cli_folder.glob("lightning_logs/version_0/checkpoints/best.ckpt")
    model = SoftmaxRegression.load_from_checkpoint(path)
    assert (model.label_smoothing, model.num_classes) == (0.1, K)
    assert json.dumps(dict(model.hparams))  # plain values alone


@pytest.mark.parametrize("dtype", [">f8", ">f4", "<f2", np.longdouble])
def test_distributions_of_any_floating_point_dtype(dtype, tmp_path):
    q = np.full((40, 2), 0.5)
    np.savez(
        tmp_path / "soft.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=q.astype(dtype)
    )
    assert (NpzDataModule(tmp_path / "soft.npz").splits.train.y == 0.5).all()
