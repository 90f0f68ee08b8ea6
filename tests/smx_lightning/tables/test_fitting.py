"""A schema out of rows: the same however they come, weights as repetitions, and what it refuses."""

import numpy as np
import pyarrow as pa
import pytest
import tables
from hypothesis import given
from hypothesis import strategies as st

from smx_lightning import InputError
from smx_lightning.tables import Column, Schema
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.fitting import SchemaFit
from smx_lightning.tables.labels import Labels, row_weights, targets
from smx_lightning.tables.places import Place
from smx_lightning.tables.tallies import MOST_CATEGORIES


def fitted(table, target="label", features=None, weight=None, **options):
    fit = SchemaFit(target, features, weight, **options)
    fit.add(table)
    return fit.schema()


def same(one, other, tolerance=1e-13):
    """Whether two schemas are the same but for the rounding of means."""
    plain = [
        [(c.name, c.kind, c.missing, c.unit, c.categories, c.other) for c in schema.columns]
        for schema in (one, other)
    ]
    fills = [
        [np.nan if c.fill is None else c.fill for c in schema.columns] for schema in (one, other)
    ]
    np.testing.assert_allclose(*fills, rtol=tolerance)
    return plain[0] == plain[1] and (one.target, one.weight) == (other.target, other.weight)


@given(st.integers(1, 120), st.sampled_from([None, "share"]))
def test_parts_of_any_size_make_the_same_schema(rows, weight):
    table = tables.mixed(120)
    fit = SchemaFit("outcome", weight=weight, drop=["id"])
    for part in table.to_batches(max_chunksize=rows):
        fit.add(part)
    assert same(fit.schema(), fitted(table, "outcome", weight=weight, drop=["id"]))
    assert fit.class_names == ("better", "same", "worse")


@given(st.lists(st.integers(0, 4), min_size=40, max_size=40))
def test_integer_weights_are_repeated_rows(counts):
    table = tables.mixed(40).drop(["share", "id"])
    weighted = table.append_column("times", pa.array(counts))
    repeated = table.take(pa.array(np.repeat(np.arange(40), counts)))
    options = {"min_count": 6}
    if len({*repeated.column("outcome").to_pylist()}) == 0:
        with pytest.raises(InputError, match="expected rows with a label"):
            fitted(weighted, "outcome", weight="times", **options)
        return
    one = fitted(weighted, "outcome", weight="times", **options)
    other = fitted(repeated, "outcome", **options)
    assert same(Schema(one.columns, one.target), other, 1e-12)


def test_rows_without_a_label_and_of_weight_zero_count_for_nothing():
    table = pa.table(
        {
            "x": [1.0, 3.0, 100.0, 1000.0],
            "c": ["a", "b", "new", "newer"],
            "label": ["p", "q", None, "p"],
            "w": [1, 1, 1, 0],
        }
    )
    schema = fitted(table, weight="w")
    assert schema.columns == (
        Column("x", fill=2.0),
        Column("c", "category", categories=("a", "b")),
    )


def test_large_numbers_keep_the_digits_of_their_mean():
    rng = np.random.default_rng(0)
    x = 1.7e9 + rng.uniform(0, 1, 10**5)
    fit = SchemaFit("label")
    table = pa.table({"x": x, "label": ["a"] * len(x)})
    for part in table.to_batches(max_chunksize=999):
        fit.add(part)
    exact = 1.7e9 + (x - 1.7e9).mean()
    assert abs(fit.schema().columns[0].fill - exact) <= np.spacing(exact)


def test_rare_categories_share_one_feature():
    table = tables.rare_categories()
    (_, word) = fitted(table, min_count=3).columns
    assert (word.categories, word.other) == (("often", "usual"), ("once", "twice"))
    made = encoded(fitted(table, min_count=3), table)
    assert made[:, -1].sum() == 3
    assert fitted(table, min_count=1).columns[1].other == ()


def test_categories_are_sorted_by_value_or_as_an_ordered_dictionary_has_them():
    words, order = ["b", "a", "c", "b"], ["c", "b", "a", "unused"]
    codes = pa.array([order.index(word) for word in words], pa.int8())
    for ordered, expected in ((True, ("c", "b", "a")), (False, ("a", "b", "c"))):
        column = pa.DictionaryArray.from_arrays(codes, pa.array(order), ordered=ordered)
        table = pa.table({"c": column, "label": ["p", "q", "p", "q"]})
        assert fitted(table).columns[0].categories == expected


def test_a_kind_is_forced_by_name():
    table = pa.table({"zip": [10, 20, 10], "label": ["a", "b", "b"]})
    assert fitted(table, kinds={"zip": "category"}).feature_names == ("zip = 10", "zip = 20")
    dated = pa.table({"day": ["2020-01-01", "2020-01-03"], "label": ["a", "b"]})
    (column,) = fitted(dated, kinds={"day": "date"}).columns
    assert (column.kind, column.unit, column.fill) == ("date", "s", 18263 * 86400.0)
    with pytest.raises(InputError, match="column 'day' to hold numbers, got string"):
        fitted(dated, kinds={"day": "number"})
    with pytest.raises(InputError, match="found no nope among zip, label"):
        fitted(table, kinds={"nope": "category"})


@pytest.mark.parametrize("rows", [10, 500])
def test_identifiers_are_refused_by_name(rows):
    table = pa.table(
        {"who": [f"p{k}" for k in range(rows)], "x": range(rows), "label": ["a"] * rows}
    )
    with pytest.raises(
        InputError, match=f"column 'who', got {rows} different values in {rows} rows"
    ):
        fitted(table)
    assert fitted(table, drop=["who"]).feature_names == ("x",)
    assert fitted(table, features=["x"]).feature_names == ("x",)


def test_more_categories_than_fit_in_memory_are_refused_as_they_come():
    fit = SchemaFit("label")
    words = np.arange(3 * MOST_CATEGORIES).astype(str).repeat(3)
    parts = np.split(words, 90)
    for part in parts[:30]:
        fit.add(pa.table({"word": part, "label": ["a"] * len(part)}))
    with pytest.raises(InputError, match="at most 10000 different values in column 'word'"):
        fit.add(pa.table({"word": parts[30], "label": ["a"] * len(parts[30])}))


def test_columns_without_a_value_are_left_out_aloud():
    fit = SchemaFit("label")
    fit.add(tables.all_missing())
    assert fit.schema().feature_names == ("number",)
    (note,) = fit.notes
    assert "got none at all in nothing; left out of the features" in note
    with pytest.raises(InputError, match="columns of features=, got none in nothing; leave these"):
        fitted(tables.all_missing(), features=["nothing", "number"])
    with pytest.raises(InputError, match="expected columns with values besides label, got none"):
        fitted(tables.all_missing().drop(["number"]))


TWINS = {
    "numbers for words": ([0, 1, 2] * 20, ["a", "b", "c"] * 20),
    "other words": (["x", "y", "z"] * 20, ["a", "b", "c"] * 20),
    "booleans": ([True, False] * 20, ["no", "yes"] * 20),
    "with gaps": ([0.5, 1.5, None] * 20, ["a", "b", "c"] * 20),
}


@pytest.mark.parametrize(("feature", "label"), TWINS.values(), ids=TWINS)
def test_a_feature_that_is_the_label_again_is_named(feature, label):
    for rows in (7, 60):
        fit = SchemaFit("label")
        table = pa.table({"copy": feature, "other": np.arange(len(label)) % 5.0, "label": label})
        for part in table.to_batches(max_chunksize=rows):
            fit.add(part)
        fit.schema()
        (note,) = fit.notes
        assert "got copy, which has one value for each value of label" in note


def test_a_feature_that_is_nearly_the_label_is_not():
    feature = [0, 1, 2] * 500
    feature[-1] = 0
    fit = SchemaFit("label")
    fit.add(pa.table({"copy": feature, "label": ["a", "b", "c"] * 500}))
    fit.schema()
    assert fit.notes == ()


def test_missing_values_are_refused_by_row_where_that_is_asked_for():
    table = pa.table({"x": [1.0, None], "label": ["a", "b"]})
    with pytest.raises(InputError, match=r"column 'x', got none in row 8 of a\.csv, .* fill these"):
        SchemaFit("label", missing="refuse").add(table, place=Place("a.csv", first=7))
    schema = fitted(table.slice(0, 1), missing="refuse")
    assert schema.columns == (Column("x"),)
    words = pa.table({"c": ["a", None], "label": ["a", "b"]})
    with pytest.raises(InputError, match="column 'c', got none in row 1"):
        fitted(words, missing="refuse")


def test_rows_are_those_of_the_file_where_some_count_for_nothing():
    table = pa.table({"x": [1.0, 2.0, np.inf], "label": ["a", None, "b"]})
    with pytest.raises(InputError, match="got inf in row 12 of the table"):
        SchemaFit("label").add(table, place=Place(first=10))


REFUSED = {
    "bytes": (pa.array([b"a", b"b"]), "got binary in the table; save it as UTF-8"),
    "lists": (pa.array([[1], [2]]), "make columns of its parts, or leave it out with drop="),
    "structs": (pa.array([{"a": 1}, {"a": 2}]), "make columns of its parts"),
    "integers that float64 cannot tell apart": (
        pa.array([2**62, 2**62 + 1]),
        "expected values that float64 can tell apart in column 'x', got 4.612e",
    ),
    "nanoseconds that float64 cannot tell apart": (
        pa.array([1_589_722_201_000_000_000, 1_589_722_201_000_000_009], pa.timestamp("ns")),
        "expected values that float64 can tell apart in column 'x', got 1.59e+09, which it rounds",
    ),
    "dictionaries of fractions": (
        pa.array([1.5, 2.5]).dictionary_encode(),
        "make its entries text, or leave it out with drop=",
    ),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED)
def test_columns_that_are_no_features_are_refused_by_name(values, message):
    with pytest.raises(InputError, match="column 'x'") as caught:
        fitted(pa.table({"x": values, "label": ["a", "b"]}))
    assert message in str(caught.value)


def test_one_moment_and_moments_that_lie_apart_are_taken():
    moment = 1_589_722_201_123_456_789
    for ticks in ([moment] * 2, [moment, moment + 10**9], [None, moment]):
        when = pa.array(ticks, pa.timestamp("ns", "UTC"))
        (column,) = fitted(pa.table({"x": when, "label": ["a", "b"]})).columns
        assert 1589722201 < column.fill < 1589722202


def test_integers_beyond_float64_are_taken_where_they_lie_apart():
    table = pa.table({"x": [2**60, 2**62], "label": ["a", "b"]})
    assert fitted(table).columns[0].fill == (2**60 + 2**62) / 2


def test_another_kind_in_a_later_part_is_refused():
    fit = SchemaFit("label")
    fit.add(pa.table({"x": pa.nulls(2), "label": ["a", "b"]}))
    fit.add(pa.table({"x": [1.0, 2.0], "label": ["a", "b"]}))
    with pytest.raises(InputError, match=r"column 'x' to hold numbers, got string in b\.csv"):
        fit.add(pa.table({"x": ["1", "2"], "label": ["a", "b"]}), place=Place("b.csv"))
    (column,) = fit.schema().columns
    assert (column.fill, column.missing) == (1.5, True)


ARGUMENTS = {
    "target among features": ({"features": ["x", "label"]}, "'label' as two of these"),
    "weight is the target": ({"weight": "label"}, "'label' as two of these"),
    "dropped target": ({"drop": ["label"]}, "'label' as two of these"),
    "a feature twice": ({"features": ["x", "x"]}, "'x' as two of these"),
    "features as text": ({"features": "x"}, "features as a list of names, got the text 'x'"),
    "drop as text": ({"drop": "x"}, "drop as a list of names, got the text 'x'"),
    "another kind": ({"kinds": {"x": "tensor"}}, "got 'tensor'; take one"),
    "missing of another word": ({"missing": "drop"}, "missing of indicator or refuse, got 'drop'"),
    "min_count as text": ({"min_count": "3"}, "min_count must be a number of at least 0, got '3'"),
    "no features": ({"features": []}, "expected at least one name in features, got none"),
    "an absent weight": ({"weight": "w"}, "found no w among x, label"),
    "an absent feature": ({"features": ["y"]}, "found no y among x, label"),
    "an absent column to drop": ({"drop": ["y"]}, "found no y among x, label"),
}


@pytest.mark.parametrize(("options", "message"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_say_nothing_are_refused(options, message):
    with pytest.raises(InputError) as caught:
        fitted(pa.table({"x": [1, 2], "label": ["a", "b"]}), **options)
    assert message in str(caught.value)


def test_a_column_without_a_name_is_refused():
    table = pa.Table.from_arrays(
        [pa.array([0, 1])] * 2 + [pa.array(["a", "b"])], ["", "x", "label"]
    )
    with pytest.raises(InputError, match="got '' for column 0, as an index that pandas writes"):
        fitted(table)
    assert fitted(table, drop=[""]).feature_names == ("x",)


def test_features_of_one_name_are_refused():
    table = pa.table({"c": ["a", "b"], "c = a": [1, 2], "label": ["p", "q"]})
    with pytest.raises(InputError, match="got two called 'c = a'"):
        fitted(table)


# Labels and weights ------------------------------------------------------------------------------

LABELS = {
    "text": (["b", "a", "b", None], ("a", "b"), [1, 0, 1, -1]),
    "integers": ([10, 9, -1, 10], ("-1", "9", "10"), [2, 1, 0, 2]),
    "whole floats": ([10.0, 9.0, np.nan, 10.0], ("9", "10"), [1, 0, -1, 1]),
    "booleans": ([True, False, None, True], ("False", "True"), [1, 0, -1, 1]),
}


@pytest.mark.parametrize(("values", "names", "index"), LABELS.values(), ids=LABELS)
def test_classes_are_sorted_and_labels_are_their_places(values, names, index):
    table = pa.table({"label": pa.array(values, from_pandas=True)})
    found = Labels("label")
    found.add(table)
    assert found.class_names == names
    made = targets(Schema((), "label"), names, table)
    np.testing.assert_array_equal(made, index)
    assert made.dtype == np.int64


def test_the_names_are_those_of_numpy_files():
    from smx_lightning.data.labels import classes_of

    for values in (np.array(["b", "a", "B", "ä", "10", "9"]), np.array([3, -5, 10, 9])):
        found = Labels("label")
        found.add(pa.table({"label": values}))
        assert found.class_names == classes_of(values).names


def test_integers_are_indices_where_no_class_is_called_by_one():
    table = pa.table({"label": [1, 0]})
    np.testing.assert_array_equal(targets(Schema((), "label"), ("poor", "good"), table), [1, 0])
    np.testing.assert_array_equal(targets(Schema((), "label"), ("1", "0"), table), [0, 1])


def test_labels_of_no_class_are_refused_by_row():
    with pytest.raises(InputError, match=r"2 classes a, b in column 'label', got 'c' in row 2"):
        targets(Schema((), "label"), ("a", "b"), pa.table({"label": ["a", None, "c"]}))


def test_labels_that_are_no_labels_are_refused():
    for values, message in (
        ([1.5, 2.0], "got the number 1.5 in row 0"),
        ([[1], [2]], "got list"),
        (pa.array([0, 1], pa.date32()), "got date32"),
    ):
        with pytest.raises(InputError, match="labels in column 'label'") as caught:
            Labels("label").add(pa.table({"label": values}))
        assert message in str(caught.value)
    mixed = Labels("label")
    mixed.add(pa.table({"label": [1, 2]}))
    with pytest.raises(InputError, match="expected labels of one kind in column 'label'"):
        mixed.add(pa.table({"label": ["a"]}))


def test_several_columns_are_a_distribution():
    table = pa.table({"p": [1.0, 3.0, None], "q": [1, 0, None], "r": [2.0, 1.0, None]})
    made = targets(Schema((), ("p", "q", "r")), ("p", "q", "r"), table)
    np.testing.assert_array_equal(made, [[0.25, 0.25, 0.5], [0.75, 0, 0.25], [np.nan] * 3])
    for wrong in ([[1.0, None], [1.0, 1.0]], [[-1.0], [2.0]], [[0.0], [0.0]]):
        bad = pa.table({"p": pa.array(wrong[0]), "q": pa.array((wrong[1] * 2)[: len(wrong[0])])})
        with pytest.raises(InputError, match="expected a distribution in the columns p, q"):
            targets(Schema((), ("p", "q")), ("p", "q"), bad)


def test_weights_are_finite_and_not_below_zero():
    schema = Schema((), weight="w")
    np.testing.assert_array_equal(row_weights(schema, pa.table({"w": [0, 2]})), [0, 2])
    assert row_weights(Schema(()), pa.table({"w": [1]})) is None
    for value, got in ((-1.0, "got -1 in row 1"), (None, "got none in row 1"), (np.inf, "inf")):
        with pytest.raises(InputError, match=got):
            row_weights(schema, pa.table({"w": [1.0, value]}))


LOOKS = {
    "1,5": "numbers with a decimal comma in column 'x', '1,5': its 2 values are categories; give d",
    "1.234,50": "numbers with a decimal comma",
    "50 %": "numbers with a sign beside them",
    "$1,200.50": "numbers with a sign beside them",
    "31.12.2020": "dates that are not written as 2026-05-17",
    "2020-12-31": "dates in column 'x', '2020-12-31': its 2 values are categories; say so with kin",
    "2020-12-31 10:15:00": "dates in column 'x'",
    "12/31/20 10:15": "dates that are not written as 2026-05-17",
}


@pytest.mark.parametrize(("text", "words"), LOOKS.items())
def test_text_that_looks_like_numbers_or_dates_is_no_category_in_silence(text, words):
    rows = {"x": [text, text[:-1] + "3" if text[-1].isdigit() else "7 %", None] * 4}
    if text.startswith("$"):
        rows["x"] = [text, "$3", None] * 4
    table = pa.table({**rows, "y": [*"aabbab"] * 2})
    fit = SchemaFit("y")
    fit.add(table)
    fit.schema()
    (note,) = fit.notes
    assert words in note
    meant = SchemaFit("y", kinds={"x": "category"})
    meant.add(table)
    meant.schema()
    assert meant.notes == ()


@pytest.mark.parametrize("other", ["n/a", "3-4", "1.2.3", "a,5", "192.168.10.1", "5"])
def test_words_among_numbers_are_categories(other):
    fit = SchemaFit("y")
    fit.add(pa.table({"x": ["1,5", other, None] * 4, "y": [*"aabbab"] * 2}))
    fit.schema()
    assert fit.notes == ()


def test_identifiers_that_look_like_numbers_are_told_apart():
    fit = SchemaFit("y")
    fit.add(pa.table({"x": [f"{i},5" for i in range(20)], "y": ["a", "b"] * 10}))
    with pytest.raises(InputError, match="look like numbers with a decimal comma: give decimal"):
        fit.schema()
