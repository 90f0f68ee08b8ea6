"""The table itself: names, units, rows, CSV, text."""

import csv
import math

import numpy as np
import pytest
import torch
from at_optimum import at_optimum, drawn
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.coefficients.table import COLUMNS, INTERCEPT
from smx_lightning.data import DigitsDataModule
from smx_lightning.optim import ExactSolver

CLASSES, FEATURES = ("cat", "dog", "cow"), ("weight, kg", "=age")


@pytest.fixture(scope="module")
def fitted():
    x = np.random.default_rng(0).normal(size=(150, 2)) * [5, 0.1] + [20, 3]
    y = drawn((x - [20, 3]) / [5, 0.1], [[0, 0], [1, 0.5], [-1, 1]], [0, 0, 0])
    return at_optimum(
        x, y, 3, preprocessing="standardize", class_names=CLASSES, feature_names=FEATURES
    )


@pytest.mark.parametrize("preprocessing", ["none", "standardize", "scale"])
def test_both_units_are_the_models_scores(preprocessing):
    x = np.random.default_rng(0).normal(size=(80, 3)) * [1, 50, 0.1] + [0, 100, 1]
    y = np.arange(80) % 4
    model, _ = at_optimum(x, y, 4, l2=0.1, preprocessing=preprocessing)
    rows = torch.as_tensor(x)
    wanted = model.scores(rows).detach()
    wanted = (wanted - wanted.mean(1, keepdim=True)).numpy()
    table = model.coefficients()
    own = x @ table.own.coefficients.T + table.own.intercepts
    seen = model.preprocessing(rows).numpy()
    standardised = seen @ table.standardised.coefficients.T + table.standardised.intercepts
    np.testing.assert_allclose(own, wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(standardised, wanted, rtol=1e-9, atol=1e-12)
    weight = model.linear.weight.detach().numpy()  # of an optimum with a penalty: sums to zero
    np.testing.assert_allclose(table.standardised.coefficients, weight, atol=1e-9)


def test_names_and_rows(fitted):
    model, batches = fitted
    table = model.coefficients(batches)
    assert table.class_names == CLASSES
    assert table.feature_names == FEATURES
    assert table.terms == (INTERCEPT, *FEATURES)
    rows = table.rows()
    assert [row[:2] for row in rows] == [(c, f) for c in CLASSES for f in table.terms]
    for name in ("std_error", "z", "p_value", "low", "high"):
        column = np.reshape([getattr(row, name) for row in rows], (3, 3))
        assert np.array_equal(column, getattr(table.own, name))
    bare = model.coefficients().rows()
    assert [row[:4] for row in bare] == [row[:4] for row in rows]
    assert {row[4:] for row in bare} == {(None,) * 5}


def test_z_and_p_of_a_feature_are_the_same_in_both_units(fitted):
    model, batches = fitted
    table = model.coefficients(batches)
    np.testing.assert_allclose(table.own.z[:, 1:], table.standardised.z[:, 1:], rtol=1e-10)
    np.testing.assert_allclose(table.own.p_value[:, 1:], table.standardised.p_value[:, 1:])


def test_the_csv_file_holds_all_digits(fitted, tmp_path):
    model, batches = fitted
    for table in (model.coefficients(batches, reference="dog"), model.coefficients()):
        path = table.to_csv(tmp_path / "table.csv")
        content = path.read_bytes()
        assert content.count(b"\r\n") == content.count(b"\n") == 1 + len(table.rows())
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert header == [*COLUMNS]
        for cells, row in zip(rows, table.rows(), strict=True):
            name = "'=age" if row.feature == "=age" else row.feature  # no formula
            assert cells[:2] == [row.class_name, name]
            assert [float(cell) if cell else None for cell in cells[2:]] == list(row[2:])


def test_a_data_frame_is_the_same(fitted):
    pytest.importorskip("pandas")
    model, batches = fitted
    table = model.coefficients(batches)
    frame = table.to_pandas()
    assert list(frame.columns) == [*COLUMNS]
    assert [tuple(row) for row in frame.itertuples(index=False)] == table.rows()


def test_a_data_frame_without_pandas(fitted, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(InputError, match=r"found none; pip install pandas, or take rows\(\)"):
        fitted[0].coefficients().to_pandas()


def test_what_is_printed(fitted):
    model, batches = fitted
    text = str(model.coefficients(batches, reference="cat", level=0.9)).splitlines()
    assert text[0].split() == [
        *("class", "feature", "coefficient", "standardised"),
        *("std", "error", "z", "p", "low", "high"),
    ]
    assert len(text) == 1 + 4 + 2
    assert text[-2:] == [
        "differences from class cat",
        "standard errors: of the model, of 150 rows; intervals of 0.9",
    ]
    sizes = [abs(row.standardised) for row in model.coefficients(reference="cat").rows()]
    assert f"{max(s for s in sizes):.4g}" in text[1]


def test_what_is_printed_of_many_and_of_strange_names():
    names = [f"\x1b[2Jfeature {k} {'x' * 100}" for k in range(20)]
    text = str(SoftmaxRegression(20, 3, feature_names=names).coefficients())
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 100
    assert text.splitlines()[11:] == [
        "… the 10 largest of 60",
        "differences from the mean over the classes",
    ]


def test_a_feature_that_never_varies_has_no_z():
    x = np.random.default_rng(0).normal(size=(90, 2))
    x[:, 1] = 7
    model, batches = at_optimum(x, np.arange(90) % 3, 3, l2=0.1, preprocessing="standardize")
    table = model.coefficients(batches)
    assert table.own.std_error[:, 2].max() < 1e-9
    rows = [row for row in table.rows() if row.feature == "1"]
    assert [row.std_error for row in rows] == pytest.approx([0, 0, 0], abs=1e-9)
    assert len(str(table).splitlines()) == 1 + 6 + 2


def test_features_of_a_backbone_go_by_number():
    class Squares(SoftmaxRegression):
        def features(self, x):
            return super().features(x) ** 2

    model = Squares(2, 3, feature_names=["a", "b"])
    assert model.coefficients().feature_names == ("0", "1")
    assert SoftmaxRegression(2, 3, feature_names=["a", "b"]).coefficients().feature_names == (
        *("a", "b"),
    )


def test_pixels_under_a_trainer_by_their_data_module(quiet_trainer):
    data = DigitsDataModule(batch_size=8192)
    model = SoftmaxRegression(
        *(64, 10),
        class_names=data.class_names,
        input_shape=(8, 8),
        l2=1e-3,
        preprocessing="standardize",
        optimizer=ExactSolver,
    )
    quiet_trainer(max_epochs=100).fit(model, data)
    table = model.coefficients(data)
    assert table.own.std_error.shape == (10, 65)
    assert table.num_rows == len(data.splits.train)
    assert np.isfinite(table.own.std_error).all()
    loader = model.coefficients(data.train_dataloader())
    np.testing.assert_allclose(loader.own.std_error, table.own.std_error, rtol=1e-9, atol=1e-12)
    blank = table.own.std_error[:, 1] == 0  # the first pixel is 0 in all images
    assert blank.all()
    assert all(math.isnan(z) for z in table.own.z[:, 1])


class Foreign(LightningDataModule):
    def __init__(self, batches, **told):
        super().__init__()
        self.batches = batches
        self.__dict__.update(told)
        self.log = []

    def prepare_data(self):
        self.log.append("prepare_data")

    def setup(self, stage):
        self.log.append(stage)

    def train_dataloader(self):
        return DataLoader(self.batches, batch_size=None)


def test_somebody_elses_data_module(fitted):
    model, batches = fitted
    data = Foreign(batches, class_names=[*CLASSES])
    table = model.coefficients(data)
    assert data.log == ["prepare_data", "fit"]
    assert np.array_equal(table.own.std_error, model.coefficients(batches).own.std_error)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"class_names": ["cat", "cow", "dog"]}, "model's 3 class_names, got 'cow' in place of 'd"),
        ({"class_names": ["cat", "dog"]}, "model's 3 class_names, got 2 of them"),
        ({"feature_names": [*FEATURES[::-1]]}, "feature_names, got '=age' in place of 'weight, k"),
    ],
)
def test_data_of_other_names(fitted, told, said):
    model, batches = fitted
    with pytest.raises(InputError, match=said):
        model.coefficients(Foreign(batches, **told))


def test_a_head_in_somebody_elses_module(fitted):
    """Of a host's head the batches are its features."""
    model, batches = fitted
    host = torch.nn.Sequential(torch.nn.Identity(), model)
    assert np.isfinite(host[1].coefficients(batches).own.std_error).all()
