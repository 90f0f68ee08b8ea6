"""Columns as features: what scikit-learn makes of them, whatever their order and their parts."""

import datetime as dt
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import tables
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder

from smx_lightning import InputError
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.fitting import SchemaFit
from smx_lightning.tables.places import Place
from smx_lightning.tables.unknown import Unknown


def fitted(table, target="outcome", **options):
    fit = SchemaFit(target, **options)
    fit.add(table)
    return fit.schema()


def judged(table, schema):
    """scikit-learn's matrix of the same table, columns in the schema's order."""
    frame = table.to_pandas()
    steps, order = [], []
    for column in schema.columns:
        values = frame[column.name]
        if column.kind == "category":
            made = OneHotEncoder(
                categories=[[*column.categories, *([None] if column.missing else [])]],
                handle_unknown="ignore",
                sparse_output=False,
            )
            frame[column.name] = values.astype(object).where(values.notna(), None)
        else:
            if column.kind == "date":
                when = pd.to_datetime(values, utc=True).dt.tz_localize(None)
                since = (when - pd.Timestamp(0)) / pd.Timedelta(1, column.unit)
                values = since.to_numpy()
            frame[column.name] = np.array([np.nan if v is None else v for v in values], float)
            made = SimpleImputer(add_indicator=column.missing)
        steps.append((column.name, made, [column.name]))
        order.append(column.name)
    return ColumnTransformer(steps).fit_transform(frame)


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_the_matrix_is_that_of_scikit_learn(gaps):
    table = tables.mixed(200, gaps=gaps)
    schema = fitted(table, drop=["id", "share"])
    np.testing.assert_allclose(encoded(schema, table), judged(table, schema), rtol=1e-14)


@pytest.mark.parametrize("name", tables.REAL)
def test_real_tables_with_gaps_are_those_of_scikit_learn(name):
    label = tables.label_of(name)
    table = tables.gapped(tables.real(name), but=(label,))
    schema = fitted(table, label)
    np.testing.assert_allclose(encoded(schema, table), judged(table, schema), rtol=1e-12)


@given(st.permutations(range(10)), st.integers(1, 70))
def test_neither_the_order_of_columns_nor_the_parts_matter(order, rows):
    table = tables.mixed(60)
    schema = fitted(table, drop=["id"])
    whole = encoded(schema, table)
    other = table.select([table.column_names[k] for k in order])
    parts = [encoded(schema, part) for part in other.to_batches(max_chunksize=rows)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


NUMBERS = [0, 1, 2, 100]
TYPES = [
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32()),
    *(pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.decimal128(22, 3)),
]


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_numbers_of_every_type_are_numbers(type_):
    values = pa.array([*NUMBERS, None], pa.int64()).cast(type_)
    schema = Schema((Column("x", missing=True, fill=7.0),))
    expected = [[v, 0] for v in NUMBERS] + [[7, 1]]
    np.testing.assert_array_equal(encoded(schema, pa.table({"x": values})), expected)
    assert fitted(pa.table({"x": values, "outcome": ["a", "b", "a", "b", "b"]})).columns == (
        Column("x", missing=True, fill=np.mean(NUMBERS)),
    )


WHEN = [dt.datetime(2020, 5, 17, 13, 30, 1), dt.datetime(1066, 10, 14), dt.datetime(1970, 1, 1)]
SECONDS = [(when - dt.datetime(1970, 1, 1)).total_seconds() for when in WHEN]


@pytest.mark.parametrize("unit", ["s", "ms", "us"])
@pytest.mark.parametrize("zone", [None, "UTC", "Asia/Tokyo"])
def test_timestamps_of_every_unit_and_zone_are_seconds(unit, zone):
    values = pa.array(WHEN, pa.timestamp(unit)).cast(pa.timestamp(unit, zone))
    made = encoded(Schema((Column("t", "date", unit="s"),)), pa.table({"t": values}))
    np.testing.assert_array_equal(made[:, 0], SECONDS)


@pytest.mark.parametrize("type_", [pa.date32(), pa.date64()], ids=str)
def test_dates_are_days_and_may_be_seconds(type_):
    table = pa.table({"t": pa.array([when.date() for when in WHEN], type_)})
    days = encoded(Schema((Column("t", "date", unit="D"),)), table)[:, 0]
    np.testing.assert_array_equal(days, np.floor(np.array(SECONDS) / 86400))
    seconds = encoded(Schema((Column("t", "date", unit="s"),)), table)[:, 0]
    np.testing.assert_array_equal(seconds, days * 86400)


def test_nanoseconds_keep_the_digits_that_float64_has():
    ticks = 1_589_722_201_123_456_789
    values = pa.array([ticks], pa.int64()).cast(pa.timestamp("ns"))
    made = encoded(Schema((Column("t", "date", fill=0.0, unit="s"),)), pa.table({"t": values}))
    assert made[0, 0] == ticks // 10**9 + (ticks % 10**9) / 1e9


def test_dates_in_text_are_read_where_the_schema_says_date():
    schema = Schema((Column("t", "date", unit="s"),))
    for text in (["2020-05-17", "1970-01-02"], ["2020-05-17T00:00:00Z", "1970-01-02 00:00:00Z"]):
        made = encoded(schema, pa.table({"t": text}))
        np.testing.assert_array_equal(made[:, 0], [1589673600, 86400])
    with pytest.raises(InputError, match=r"got '17/05/2020' in row 1 .* no date of ISO 8601"):
        encoded(schema, pa.table({"t": ["2020-05-17", "17/05/2020"]}))


def test_durations_and_times_of_day_are_seconds():
    lasted = pa.array([1500, None], pa.duration("ms"))
    at = pa.array([dt.time(1, 2, 3), dt.time(0)], pa.time64("us"))
    table = pa.table({"lasted": lasted, "at": at, "outcome": ["a", "b"]})
    schema = fitted(table)
    assert [column.unit for column in schema.columns] == ["s", "s"]
    np.testing.assert_array_equal(encoded(schema, table), [[1.5, 0, 3723], [1.5, 1, 0]])


def test_nan_is_missing_and_infinity_is_refused_by_column_and_row():
    schema = Schema((Column("x", missing=True, fill=1.0),))
    np.testing.assert_array_equal(encoded(schema, pa.table({"x": [np.nan, 2.0]})), [[1, 1], [2, 0]])
    place = Place("a.csv", first=100)
    with pytest.raises(InputError, match=r"column 'x', got -inf in row 102 of a\.csv, counted"):
        encoded(schema, pa.table({"x": [1.0, 2.0, -np.inf]}), place=place)


OTHER_KINDS = {
    ("number", "text"): pa.array(["a"]),
    ("number", "booleans"): pa.array([True]),
    ("number", "dates"): pa.array([0], pa.date32()),
    ("number", "durations"): pa.array([0], pa.duration("s")),
    ("boolean", "text"): pa.array(["true"]),
    ("boolean", "other numbers"): pa.array([2]),
    ("date", "numbers"): pa.array([1.0]),
    ("category", "fractions"): pa.array([1.5]),
    ("category", "codes"): pa.array([1]),
    ("category", "dates"): pa.array([0], pa.date32()),
    ("number", "lists"): pa.array([[1.0]]),
    ("category", "bytes"): pa.array([b"a"]),
}


@pytest.mark.parametrize(("kind", "given"), OTHER_KINDS)
def test_another_kind_is_refused_by_name(kind, given):
    unit, categories = ("s" if kind == "date" else None), ("a", "b") * (kind == "category")
    schema = Schema((Column("the column", kind, unit=unit, categories=categories),))
    with pytest.raises(InputError, match=r"^expected column 'the column' to hold .*, got .*; "):
        encoded(schema, pa.table({"the column": OTHER_KINDS[kind, given]}))


def test_what_is_all_missing_is_missing_in_a_column_of_any_kind():
    kinds = {
        "number": Column("x", fill=3.0, missing=True),
        "boolean": Column("x", "boolean", fill=3.0, missing=True),
        "date": Column("x", "date", fill=3.0, missing=True, unit="D"),
        "category": Column("x", "category", missing=True, categories=("a",)),
    }
    for kind, column in kinds.items():
        made = encoded(Schema((column,)), pa.table({"x": pa.nulls(2)}))
        np.testing.assert_array_equal(made, [[0 if kind == "category" else 3, 1]] * 2)


def test_zero_and_one_are_booleans_where_the_schema_says_so():
    schema = Schema((Column("b", "boolean", fill=0.5),))
    for values in ([True, False, None], [1, 0, None], [1.0, 0.0, np.nan]):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = encoded(schema, pa.table({"b": values}))
        np.testing.assert_array_equal(made[:, 0], [1, 0, 0.5])


def test_whole_numbers_are_categories_where_the_schema_says_so():
    table = pa.table({"zip": [1010, 8001, 1010], "outcome": ["a", "b", "a"]})
    schema = fitted(table, kinds={"zip": "category"})
    assert schema.feature_names == ("zip = 1010", "zip = 8001")
    for values in ([1010, 8001], [1010.0, 8001.0], ["1010", "8001"]):
        np.testing.assert_array_equal(encoded(schema, pa.table({"zip": values})), np.eye(2))


def test_unknown_categories_are_none_of_the_known_and_are_counted_aloud():
    schema = Schema((Column("c", "category", categories=("a", "b"), other=("d",)),))
    table = pa.table({"c": ["a", "z", "d", "y", None, "z"]})
    gaps, others = (
        "expected a value where every training row has one",
        "got others in rows of 'c': 3 .z, y., of 6 rows; they count as none",
    )
    with pytest.warns(UserWarning, match=gaps), pytest.warns(UserWarning, match=others):
        made = encoded(schema, table)
    np.testing.assert_array_equal(
        made, [[1, 0, 0], [0, 0, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    )


def test_unknown_categories_are_counted_over_parts():
    schema = Schema((Column("c", "category", categories=("a",)), Column("x", fill=2.0)))
    table = pa.table({"c": ["a", "z"] * 50, "x": [1.0, None] * 50})
    unknown = Unknown()
    for part in table.to_batches(max_chunksize=7):
        encoded(schema, part, unknown=unknown)
    first, second = unknown.notes
    assert "'c': 50 (z), of 100 rows" in first
    assert "'x': 50, of 100 rows; the mean of the training rows stands there" in second


def test_a_missing_value_is_refused_where_the_schema_has_no_fill():
    schema = Schema((Column("x"),))
    with pytest.raises(InputError, match=r"every row of column 'x', got none in row 1 of the tabl"):
        encoded(schema, pa.table({"x": [1.0, None]}))


def test_a_missing_column_is_refused_with_those_that_there_are():
    schema = Schema((Column("age"), Column("height")))
    with pytest.raises(InputError, match="found no height among age, weight; add these"):
        encoded(schema, pa.table({"age": [1], "weight": [2]}))
    twice = pa.Table.from_arrays([pa.array([1])] * 2, ["age", "age"])
    with pytest.raises(InputError, match="got several called age; rename these"):
        encoded(Schema((Column("age"),)), twice)


def test_numbers_where_no_category_is_one_are_refused_by_a_category():
    schema = Schema((Column("c", "category", categories=("red", "blue")),))
    with pytest.raises(InputError, match="hold text, as 'red', got int64 in the table, and no cat"):
        encoded(schema, pa.table({"c": [1, 2]}))
