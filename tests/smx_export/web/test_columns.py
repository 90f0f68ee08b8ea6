"""The page's own encoding of a table's row, against ``encoded``: the same numbers to the bit."""

import datetime as dt
import json
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pytest
from browsers import tool
from hypothesis import given
from hypothesis import strategies as st

from smx_export.web.site import PAGE
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded

SCRIPT = """
import { createInterface } from "node:readline";
import { encoded, nearest } from "./columns.mjs";
for await (const line of createInterface({ input: process.stdin })) {
  const { schema, rows, features } = JSON.parse(line);
  const made = rows?.map((row) => encoded(schema, new Map(row)));
  const near = features?.map((row) => [...nearest(schema, row)]);
  console.log(JSON.stringify(made ?? near));
}
"""
NAMES = ["age", "__proto__", 'ü, "x"', "constructor", "=1"]
WORDS = ["", "red", "blau", "=red", "?", "missing", "🍷"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A question to node, which runs the page's module."""
    folder = tmp_path_factory.mktemp("page")
    shutil.copy(PAGE / "columns.js", folder / "columns.mjs")
    (folder / "ask.mjs").write_text(SCRIPT)
    process = subprocess.Popen(
        [tool("node"), "ask.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, encoding="utf-8",
    )  # fmt: skip

    def ask(schema, **job):
        print(json.dumps({"schema": schema.to_dict(), **job}), file=process.stdin, flush=True)
        return json.loads(process.stdout.readline())

    yield ask
    process.stdin.close()
    process.wait(30)
    process.stdout.close()


finite = st.floats(-1e6, 1e6, allow_nan=False)
fills = st.none() | finite


@st.composite
def columns(draw, name):
    kind = draw(st.sampled_from(["number", "boolean", "date", "category"]))
    missing = draw(st.booleans())
    if kind == "category":
        words = draw(st.lists(st.sampled_from(WORDS), unique=True, max_size=5))
        cut = draw(st.integers(0, len(words)))
        return Column(name, kind, missing, categories=tuple(words[:cut]), other=tuple(words[cut:]))
    fill = draw(finite) if missing else draw(fills)
    unit = draw(st.sampled_from(["s", "ms", "us", "ns", "D"])) if kind == "date" else None
    return Column(name, kind, missing, fill, unit)


schemas = st.lists(st.sampled_from(NAMES), unique=True, min_size=1, max_size=4).flatmap(
    lambda names: st.tuples(*map(columns, names)).map(lambda found: Schema(tuple(found)))
)
times = st.datetimes(dt.datetime(1950, 1, 1), dt.datetime(2060, 1, 1)).map(
    lambda t: t.replace(microsecond=0)
)


def value_of(column, draw):
    """A value of a column, and the text that a field would hold of it."""
    may_be_missing = column.kind == "category" or column.fill is not None
    if may_be_missing and draw(st.integers(0, 4)) == 0:
        return None, ""
    if column.kind == "category":
        word = draw(st.sampled_from(WORDS))
        return word, f"={word}"
    if column.kind == "boolean":
        value = draw(st.booleans())
        return value, str(int(value))
    if column.kind == "number":
        value = draw(finite)
        return value, repr(value)
    time = draw(times)
    return (time.date(), time.date().isoformat()) if column.unit == "D" else (
        time, time.isoformat())  # fmt: skip


def types(column):
    return {
        "number": pa.float64(), "boolean": pa.bool_(), "category": pa.string(),
        "date": pa.date32() if column.unit == "D" else pa.timestamp("s"),
    }[column.kind]  # fmt: skip


@pytest.mark.filterwarnings("ignore:expected")  # of what the schema does not know
@given(data=st.data())
def test_a_row_is_encoded_as_python_does_it(data, page):
    schema = data.draw(schemas)
    rows = [{c.name: value_of(c, data.draw) for c in schema.columns} for _ in range(3)]
    table = pa.table(
        {c.name: pa.array([row[c.name][0] for row in rows], types(c)) for c in schema.columns}
    )
    texts = [[[name, text] for name, (_, text) in row.items()] for row in rows]
    found = np.array([row["values"] for row in page(schema, rows=texts)], float)
    np.testing.assert_array_equal(found.reshape(3, -1), encoded(schema, table))


@pytest.mark.parametrize(
    ("column", "texts", "words"),
    [
        (Column("age"), ["", "abc", "1e999", "Infinity", "unreadable"], "a number as age"),
        (Column("age", "boolean"), ["", "unreadable"], "yes or no as age"),
        (Column("age", "date", unit="D"), ["", "2020-13-01", "unreadable"], "a date as age"),
        (Column("age", "date", unit="s"), ["2020-01-01T25:00"], "a date as age"),
    ],
)
def test_what_is_no_value_is_told_by_the_column_s_name(column, texts, words, page):
    found = page(Schema((column,)), rows=[[["age", text]] for text in texts])
    assert found == [{"problem": f"expected {words}"}] * len(texts)


@given(data=st.data())
def test_an_example_is_a_row_that_the_table_can_have(data, page):
    """Of any numbers, such as those of the self-test, which are no table's."""
    schema = data.draw(schemas)
    width = len(schema.feature_names)
    numbers = st.lists(st.floats(width=32, allow_nan=False), min_size=width, max_size=width)
    features = [[float(np.clip(x, -1e30, 1e30)) for x in data.draw(numbers)]]
    (row,) = page(schema, features=features)
    assert [name for name, _ in row] == [column.name for column in schema.columns]
    (made,) = page(schema, rows=[row])
    assert len(made["values"]) == width
    start = 0
    for column in schema.columns:
        part = made["values"][start : (start := start + len(column.feature_names))]
        if column.kind == "category":
            assert sum(part) <= 1
            assert {*part} <= {0, 1}
