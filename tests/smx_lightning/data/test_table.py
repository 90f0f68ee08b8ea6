"""A table as a data set: scikit-learn's optimum, and whose schema counts."""

import re
import subprocess
import sys
import textwrap
from functools import partial

import datasets
import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import tables
import torch
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from trainers import quiet_trainer

from smx_lightning import InputError
from smx_lightning.data import NpzDataModule, TableDataModule
from smx_lightning.optim import ExactSolver
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.fitting import SchemaFit

L2 = 1e-2


def data_of(source=None, target="outcome", **options):
    source = tables.mixed(400) if source is None else source
    return TableDataModule(source, target, **{"drop": ["id"], **options})


def trained(data, l2=L2, **options):
    """The optimum in float64."""
    model = tables.model_of(data, l2=l2, optimizer=partial(ExactSolver, tol=1e-9), **options)
    quiet_trainer(max_epochs=300, precision="64-true").fit(model, data)
    assert model.solver.status.name in ("CONVERGED", "PRECISION")
    return model


def probabilities(model, data):
    """Of all rows of the table, in order."""
    answers = quiet_trainer(precision="64-true").predict(model, data)
    return torch.cat([answer.probs for answer in answers]).numpy()


# The same optimum as scikit-learn's --------------------------------------------------------------


@pytest.mark.parametrize("name", ["wine", "iris", "breast_cancer"])
def test_the_optimum_is_that_of_a_pipeline(name):
    label = tables.label_of(name)
    table = tables.gapped(tables.real(name), but=(label,))
    train, test = table.slice(0, 0), table
    order = np.random.default_rng(0).permutation(table.num_rows)
    train, test = table.take(order[:-40]), table.take(order[-40:])
    data = TableDataModule(train, label, val=test, test=test)
    frame, columns = train.to_pandas(), [n for n in table.column_names if n != label]
    judge = make_pipeline(
        SimpleImputer(add_indicator=True),
        StandardScaler(),
        LogisticRegression(
            C=(2 if data.num_classes == 2 else 1) / (L2 * len(frame)), tol=1e-10, max_iter=10**4
        ),
    ).fit(frame[columns], frame[label])
    expected = judge.predict_proba(pd.concat([frame, test.to_pandas(), test.to_pandas()])[columns])
    model = trained(data)
    np.testing.assert_allclose(probabilities(model, data), expected, atol=1e-6)


def test_the_optimum_of_categories_and_gaps_is_that_of_a_pipeline():
    table = tables.mixed(400).drop(["id", "share", "born", "seen"])
    train, test = table.slice(0, 300), table.slice(300)
    data = data_of(train, val=test, test=test, drop=None)
    words, numbers = ["colour", "size"], ["age", "visits", "smokes"]

    def frame_of(table):
        frame = table.to_pandas()
        frame[words] = frame[words].astype(object).where(frame[words].notna(), None)
        return frame.astype(dict.fromkeys(numbers, float))

    frame = frame_of(train)
    encode = ColumnTransformer(
        [
            ("words", OneHotEncoder(handle_unknown="ignore", sparse_output=False), words),
            ("numbers", SimpleImputer(add_indicator=True), numbers),
        ]
    )
    judge = make_pipeline(
        encode, StandardScaler(), LogisticRegression(C=1 / (L2 * 300), tol=1e-10, max_iter=10**4)
    ).fit(frame.drop(columns="outcome"), frame["outcome"])
    model = trained(data)
    expected = judge.predict_proba(pd.concat([frame, *[frame_of(test)] * 2]))
    np.testing.assert_allclose(probabilities(model, data), expected, atol=1e-6)


def test_weights_are_scikit_learn_s():
    data = data_of(weight="share", test_fraction=0)
    rows = data.splits.train
    x, y, w = rows.x.double().numpy(), rows.y.numpy(), rows.weight.numpy()
    scaled = StandardScaler().fit(x, sample_weight=w).transform(x)
    judge = LogisticRegression(C=1 / (L2 * w.sum()), tol=1e-10, max_iter=10**4)
    judge.fit(scaled, y, sample_weight=w)
    model = trained(data)
    made = model.double()(rows.x.double()).detach().exp().numpy()
    np.testing.assert_allclose(made, judge.predict_proba(scaled), atol=1e-6)


def test_a_distribution_of_ones_and_zeros_is_the_label():
    table = tables.mixed(200).drop(["id", "share"])
    words = table.column("outcome").to_numpy(zero_copy_only=False)
    soft = table.drop(["outcome"])
    for name in ("better", "same", "worse"):
        soft = soft.append_column(f"p {name}", pa.array((words == name).astype(float)))
    hard = data_of(table, drop=None, test_fraction=0)
    data = data_of(soft, ["p better", "p same", "p worse"], drop=None, test_fraction=0)
    assert data.class_names == ["p better", "p same", "p worse"]
    one, other = (trained(each) for each in (hard, data))
    np.testing.assert_allclose(probabilities(one, hard), probabilities(other, data), atol=1e-9)


# Splits, and what the schema is made of ----------------------------------------------------------


def test_splits_and_classes_are_those_of_the_same_numbers_in_an_npz(tmp_path):
    table = tables.real("wine")
    x = np.stack([c.to_numpy() for c in table.columns[:-1]], 1)
    y = table.column("cultivar").to_numpy(zero_copy_only=False).astype(str)
    np.savez(tmp_path / "wine.npz", x=x, y=y)
    one, other = NpzDataModule(tmp_path / "wine.npz"), TableDataModule(table, "cultivar")
    assert one.class_names == other.class_names
    assert (one.num_features, one.input_shape) == (other.num_features, other.input_shape)
    for name in ("train", "val", "test"):
        for a, b in zip(getattr(one.splits, name)[:], getattr(other.splits, name)[:], strict=True):
            assert torch.equal(a, b.to(a.dtype))


def test_means_and_categories_are_those_of_the_training_rows():
    table = tables.mixed(200, gaps=0.3)
    data = data_of(table)
    fitted = Schema.from_dict(data.schema)
    # The rows that train, by their age and the rest of them, found again in the table.
    held = {tuple(row) for rows in (data.splits.val, data.splits.test) for row in rows.x.tolist()}
    everything = data.all_inputs().tolist()
    index = [k for k, row in enumerate(everything) if tuple(row) not in held]
    assert len(index) == len(data.splits.train)
    fit = SchemaFit("outcome", drop=["id"])
    fit.add(table.take(index))
    for one, other in zip(fitted.columns, fit.schema().columns, strict=True):
        assert np.allclose(one.fill or 0.0, other.fill or 0.0, rtol=1e-12, atol=0)
        assert (one.categories, one.missing) == (other.categories, other.missing)


def test_a_category_of_held_out_rows_alone_is_unknown_and_said_so():
    table = pa.table({"c": ["a", "a", "b", "b"] * 5, "x": range(20), "label": ["p", "q"] * 10})
    new = pa.table({"c": ["z", "a"], "x": [None, 1], "label": ["p", "q"]})
    data = TableDataModule(table, "label", val=new, test=new)
    others = r"got others in rows of 'c': 2 \(z\), of 24 rows"
    gaps = "'x': 2, of 24 rows; the mean of the training rows"
    with pytest.warns(UserWarning, match=others), pytest.warns(UserWarning, match=gaps):
        assert data.splits.val.x.tolist() == [[0, 0, 9.5], [1, 0, 1]]


def test_rows_without_a_label_are_predicted_and_change_nothing_else():
    table = tables.mixed(120).drop(["id", "share"])
    hole = table.slice(0, 30)
    hole = hole.set_column(hole.num_columns - 1, "outcome", pa.nulls(30, pa.string()))
    mixed = pa.concat_tables([hole, table, hole])
    one, other = data_of(table, drop=None), data_of(mixed, drop=None)
    assert one.schema == other.schema
    for name in ("train", "val", "test"):
        for a, b in zip(getattr(one.splits, name)[:], getattr(other.splits, name)[:], strict=True):
            assert torch.equal(a, b)
    assert len(other.all_inputs()) == 180
    assert torch.equal(other.all_inputs()[30:150], one.all_inputs())


def test_digits_that_float32_loses_are_kept():
    table = tables.dates_in_seconds()
    data = TableDataModule(table, "label")
    assert data.splits.train.x.dtype == torch.float64
    assert [data.feature_names[k] for k in data.wide_columns] == ["seconds"]
    narrow = TableDataModule(tables.real("iris"), "species")
    assert narrow.splits.train.x.dtype == torch.float64  # until they are standardised
    assert narrow.wide_columns == []


LIBRARIES = {
    "pandas": lambda table: table.to_pandas(),
    "polars": pl.from_arrow,
    "duckdb": duckdb.from_arrow,
    "Hugging Face": datasets.Dataset,
    "a reader": lambda table: table.to_reader(),
    "columns": lambda table: table.to_pydict(),
}


@pytest.mark.parametrize("make", LIBRARIES.values(), ids=LIBRARIES)
def test_a_table_in_memory_is_read_again_and_again(make):
    table = tables.as_text(tables.mixed(90))
    data, expected = data_of(make(table)), data_of(table)
    assert data.schema == expected.schema
    for _ in range(2):
        assert torch.equal(data.all_inputs(), expected.all_inputs())
        del data.splits


# A trained model's schema goes first -------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    return trained(data_of())


def test_a_model_s_schema_goes_before_the_table_s_own(model):
    other = tables.mixed(50, seed=7)
    other = other.filter(pa.compute.not_equal(other.column("colour"), "red"))
    shuffled = other.select(sorted(other.column_names))
    data = data_of(shuffled, val=shuffled, test=shuffled, drop=["id"])
    assert len(data.feature_names) != model.num_features  # of its own
    made = probabilities(model, data)[: other.num_rows]
    x = torch.from_numpy(encoded(model.schema, other))
    np.testing.assert_allclose(made, model.double()(x).detach().exp().numpy(), atol=1e-6)
    assert data.feature_names == [*model.feature_names]
    assert data.class_names == [*model.class_names]
    (tested,) = quiet_trainer(precision="64-true").test(model, data, verbose=False)
    assert 0 < tested["test/nll"] < 3


def test_prediction_needs_neither_target_nor_labels(model):
    table = (
        tables.mixed(20).drop(["outcome", "share", "id"]).append_column("share", pa.array([1] * 20))
    )
    made = probabilities(model, TableDataModule(table))
    assert made.shape == (20, 3)
    with pytest.raises(InputError, match="expected the column of the labels as target, got none"):
        _ = TableDataModule(table).splits


def test_a_schema_given_by_hand_is_used():
    table = tables.mixed(100)
    schema = data_of(table).schema
    for given in (schema, Schema.from_dict(schema)):
        data = TableDataModule(table.slice(0, 50), schema=given)
        assert (data.schema, data.target) == (schema, None)
        assert data.class_names == ["better", "same", "worse"]


def test_training_goes_on_with_the_schema_of_the_model(model):
    data = data_of(tables.mixed(100, seed=3))
    quiet_trainer(max_epochs=2).fit(model.float(), data)
    assert Schema.from_dict(data.schema) == model.schema


def test_a_missing_column_is_refused_before_a_model_answers(model):
    with pytest.raises(InputError, match="found no age among visits"):
        probabilities(model, TableDataModule(tables.mixed(20).drop(["age", "id"])))


# What is refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "target", "message"),
    [
        (tables.header_only(), "label", "expected rows with a label in the table, got none in 0"),
        (tables.one_class(), "label", "expected labels of at least 2 classes, got only ('a',)"),
        (tables.duplicate_names(), "label", "got several called twice; rename these"),
        (tables.mixed(50), "outcome", "column 'id', got 33 different values in 33 rows, as ident"),
        (tables.mixed(50), "age", "got the number 42.379 in row 0 of the table"),
        (tables.mixed(50), "nope", "expected the columns nope in the table, found no nope among"),
        (tables.mixed(50), None, "name one of the columns of the table: id, age, visits, smokes"),
        (
            {"x": [1e39, 1, 2] * 9, "label": [0, 1, 1] * 9},
            "label",
            "got 1e+39 in column 'x', row 0 of",
        ),
        ({"x": [1.0, np.inf] * 9, "label": [0, 1] * 9}, "label", "column 'x', got inf in row"),
    ],
)
def test_what_cannot_be_trained_on_is_refused(table, target, message):
    with pytest.raises(InputError) as caught:
        _ = TableDataModule(table, target).splits
    said = re.sub(r"the number [\d.]+", "the number 42.379", str(caught.value))
    assert message in re.sub(
        r"got \d+ different values in \d+ rows", "got 33 different values in 33 rows", said
    )


def test_rows_beyond_the_first_part_are_named_as_they_stand():
    x = np.zeros(70_000)
    x[69_999] = np.inf
    data = TableDataModule({"x": x}, schema=Schema((Column("x"),)))
    with pytest.raises(InputError, match="got inf in row 69999 of the table"):
        data.all_inputs()


def test_arguments_are_refused_before_anything_is_read():
    for options in ({"missing": "x"}, {"kinds": {"a": "b"}}, {"weight": "t"}, {"features": "a"}):
        with pytest.raises(InputError):
            TableDataModule("absent.csv", "t", **options)


def test_rows_are_named_by_file_also_where_only_some_train(tmp_path):
    table = pa.table({"x": np.arange(60.0), "label": ["a", "b"] * 30})
    folder = tables.write_folder(table, tmp_path / "rows", suffix=".csv")
    path = folder / "part-001.csv"
    lines = path.read_text().splitlines()
    lines[5] = lines[5].replace(lines[5].split(",")[0], "inf")
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"got inf in row 4 of {re.escape(str(path))}, counted"):
        _ = TableDataModule(folder, "label").splits


# Size --------------------------------------------------------------------------------------------

MEASURED = r"""
    import re, sys, time
    from pathlib import Path
    sys.path[:0] = {path!r}
    import pyarrow, torch
    import pyarrow.parquet, pyarrow.csv, pyarrow.compute
    from smx_lightning.data import TableDataModule
    def peak():
        status = Path("/proc/self/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    before = peak()
    start = time.perf_counter()
    data = TableDataModule({file!r}, "label", min_count=5)
    assert (len(data.splits.train), data.num_features) == ({train}, 8)
    print(time.perf_counter() - start, peak() - before)
"""


def test_all_rows_of_a_larger_table_are_served():
    table = tables.many_rows(20_000)
    data = TableDataModule(table, "label")
    rows = [*data.splits.train.y.bincount(), *data.splits.val.y.bincount()]
    counted = pa.compute.value_counts(table.column("label")).field("counts").to_pylist()
    assert sum(rows) + len(data.splits.test) == sum(counted) == len(data.all_inputs())


@pytest.mark.whole
@pytest.mark.parametrize("rows", [20_000, 10**6])
def test_a_table_is_read_in_memory_of_a_few_times_its_size(rows, tmp_path):
    path = tables.write(tables.many_rows(rows), tmp_path / "rows.parquet")
    code = MEASURED.format(path=sys.path, file=str(path), train=int(rows * 0.675))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seconds, taken = map(float, done.stdout.split())
    numbers = rows * 8 * 8  # the features in float64
    print(
        f"{rows} rows: {seconds:.2f} s, {taken / 1e6:.0f} MB, {taken / numbers:.1f} × the features"
    )
    assert taken < 8 * numbers + 2**27
