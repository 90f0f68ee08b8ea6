"""A schema as plain values and back, also out of files that nobody vouches for."""

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smx_lightning import InputError
from smx_lightning.tables import Column, Schema

NAMES = st.text(st.characters(codec="utf-8"), max_size=5)
FILLS = st.none() | st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def columns(draw, name):
    kind = draw(st.sampled_from(["number", "boolean", "date", "category"]))
    missing = draw(st.booleans())
    if kind == "category":
        texts = draw(st.lists(NAMES, max_size=6, unique=True))
        cut = draw(st.integers(0, len(texts)))
        return Column(name, kind, missing, None, None, tuple(texts[:cut]), tuple(texts[cut:]))
    units = {"date": ["s", "ms", "us", "ns", "D"], "number": [None, "s"], "boolean": [None]}
    return Column(name, kind, missing, draw(FILLS), draw(st.sampled_from(units[kind])))


@st.composite
def schemas(draw):
    names = draw(st.lists(NAMES, min_size=3, max_size=7, unique=True))
    target = draw(st.sampled_from([None, names[0], tuple(names[:2])]))
    weight = draw(st.sampled_from([None, names[2]]))
    return Schema(tuple(draw(columns(name)) for name in names[3:]), target, weight)


@given(schemas())
def test_a_schema_is_the_same_after_json(schema):
    if len({*schema.feature_names}) < len(schema.feature_names):
        with pytest.raises(InputError, match="features of different names"):
            Schema.from_dict(schema.to_dict())
        return
    again = Schema.from_dict(json.loads(json.dumps(schema.to_dict())))
    assert again == schema
    assert again.feature_names == schema.feature_names


def test_a_fill_of_zero_is_one():
    column = Column("x", fill=0.0)
    assert Schema.from_dict(Schema((column,)).to_dict()).columns[0].fill == 0.0


def test_a_category_called_other_keeps_its_name():
    column = Column("c", "category", categories=("a", "other"), other=("b",))
    assert column.feature_names == ("c = a", "c = other", "c = (other)")


def one(**changes):
    """A schema of one column, with what is changed of it."""
    return {"version": 1, "columns": [{"name": "x", **changes}]}


HOSTILE = {
    "no mapping": [],
    "nothing": {},
    "another version": {"version": 2, "columns": []},
    "a version that is true": {"version": True, "columns": []},
    "an unknown key": {"version": 1, "columns": [], "code": "import os"},
    "columns as text": {"columns": "abc"},
    "columns as a mapping": {"columns": {"x": {}}},
    "a column without a name": {"columns": [{}]},
    "a column as text": {"columns": ["x"]},
    "a name that is a number": {"columns": [{"name": 3}]},
    "a lone surrogate": {"columns": [{"name": "\ud800"}]},
    "an unknown key of a column": one(eval="1"),
    "another kind": one(kind="tensor"),
    "a kind that is a list": one(kind=["number"]),
    "missing as text": one(missing="yes"),
    "a fill of NaN": one(fill=float("nan")),
    "an infinite fill": one(fill=float("inf")),
    "a fill as text": one(fill="0"),
    "a fill that is true": one(fill=True),
    "an integer beyond float64": one(fill=10**400),
    "a fill of a category": one(kind="category", fill=1.0),
    "a unit of a boolean": one(kind="boolean", unit="s"),
    "another unit": one(kind="date", unit="weeks"),
    "a unit that is a list": one(kind="date", unit=["s"]),
    "a date without unit": one(kind="date"),
    "categories of a number": one(categories=["a"]),
    "categories as text": one(kind="category", categories="ab"),
    "categories of numbers": one(kind="category", categories=[1, 2]),
    "categories twice": one(kind="category", categories=["a", "a"]),
    "categories among other": one(kind="category", categories=["a"], other=["a"]),
    "columns of one name": {"columns": [{"name": "x"}, {"name": "x"}]},
    "the target among the columns": {"columns": [{"name": "x"}], "target": "x"},
    "the weight among the columns": {"columns": [{"name": "x"}], "weight": "x"},
    "a target of numbers": {"columns": [{"name": "x"}], "target": [1, 2]},
    "a target that is a number": {"columns": [{"name": "x"}], "target": 1},
    "a weight that is a list": {"columns": [{"name": "x"}], "weight": ["w"]},
    "features of one name": {
        "columns": [{"name": "c = a"}, {"name": "c", "kind": "category", "categories": ["a"]}]
    },
}


@pytest.mark.parametrize("told", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_schema_is_refused_in_one_sentence(told):
    with pytest.raises(InputError, match=r"^expected [^\n]+, got [^\n]+; [^\n]+$") as caught:
        Schema.from_dict(told)
    assert len(str(caught.value)) < 600


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["version", "columns", "target", "name", "kind", "categories", "x"]
                ),
                inner,
                max_size=4,
            )
        ),
    )
)
def test_no_json_does_anything_but_make_a_schema_or_a_sentence(told):
    with suppress(InputError):
        assert isinstance(Schema.from_dict(told), Schema)
