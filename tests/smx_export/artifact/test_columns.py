"""What a file says of its features, and how that is told: metadata, sidecar, inspect."""

import json

import onnx
import pytest
import torch
from encoded_by_hand import SCHEMA, model_of
from files import read
from torch import nn

from smx_export import FileError, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.columns import difference, in_words, schema_in
from smx_export.artifact.describe import describe
from smx_export.artifact.sidecar import sidecar
from smx_export.contract import FEATURE_NAMES
from smx_export.contract import SCHEMA as SCHEMA_KEY
from smx_lightning import SoftmaxRegression
from smx_lightning.tables import Column, Schema


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return export_onnx(model_of(), tmp_path_factory.mktemp("columns") / "m.onnx").path


def test_metadata_and_sidecar_say_what_the_model_knows(file):
    told, beside = read(file), sidecar(file)
    assert json.loads(told[FEATURE_NAMES]) == beside[FEATURE_NAMES] == [*SCHEMA.feature_names]
    assert json.loads(told[SCHEMA_KEY]) == beside[SCHEMA_KEY] == SCHEMA.to_dict()
    assert Schema.from_dict(beside[SCHEMA_KEY]) == SCHEMA
    assert schema_in(told, len(SCHEMA.feature_names), file) == SCHEMA
    assert json.loads(json.dumps(describe(file).to_dict()))[SCHEMA_KEY] == SCHEMA.to_dict()


def test_a_model_without_names_leaves_files_as_they_were(tmp_path):
    path = export_onnx(SoftmaxRegression(4, 3), tmp_path / "m.onnx").path
    keys = {"class_names", "input_shape", "profile", "provenance", "selftest", "sha256"}
    assert read(path).keys() == keys
    assert not sidecar(path).keys() & {FEATURE_NAMES, SCHEMA_KEY}
    assert "columns" not in str(describe(path))
    assert schema_in(read(path), 4, path) is None


class Squared(SoftmaxRegression):
    """Its features are twice as many as the entries of its input."""

    def features(self, x):
        return torch.cat([x, x**2], 1)


class Host(nn.Module):
    example_input_array = torch.zeros(1, 2)

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(2, 2)
        self.head = SoftmaxRegression(2, 3, feature_names=["a", "b"])

    def forward(self, x):
        return self.head(self.body(x))


def test_features_that_are_no_inputs_have_no_names_in_the_file(tmp_path):
    names = ["a", "b", "a²", "b²"]
    squared = Squared(4, 3, input_shape=(2,), feature_names=names)
    for given, options in ((squared, {}), (Host(), {"head": "head"})):
        told = read(export_onnx(given, tmp_path / "m.onnx", **options).path)
        assert not told.keys() & {FEATURE_NAMES, SCHEMA_KEY}


def test_inspect_has_a_line_a_column(file, capsys):
    assert main(["inspect", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("columns "))
    told = [line[13:] for line in lines[at:]]
    assert told == [
        "age     number    missing as 40.25 and noted",
        "colour  category  blue, red; other: green; missing as one of its own",
        "visits  number    missing as 3 and noted",
        "smokes  boolean   missing as 0.5 and noted",
        "size    category  small, medium, large; missing as one of its own",
        "seen    date      in s since 1970; missing as 1.6e+09 and noted",
        "labels in outcome",
    ]


def test_many_columns_and_long_or_hostile_names_are_cut_and_shown_as_text(tmp_path, capsys):
    words = tuple(f"w{k}" for k in range(100))
    columns = (
        Column("\x1b[2J\nself-test  passed", "category", categories=words),
        Column("x" * 10_000),
        *(Column(f"c{k}") for k in range(60)),
    )
    schema = Schema(columns, target=("p\u202e", "q"), weight="\r")
    model = SoftmaxRegression(len(schema.feature_names), 2, schema=schema)
    assert main(["inspect", str(export_onnx(model, tmp_path / "m.onnx").path)]) == 0
    out = capsys.readouterr().out
    assert all(line.isprintable() for line in out.splitlines())
    assert max(map(len, out.splitlines())) < 10_200  # the list of features' names
    told = in_words(schema)
    assert len(told) == 43
    assert max(map(len, told)) < 200
    assert "w0, w1, w2, w3, w4, w5, … (100 in all)" in told[0]
    assert told[-3] == "… and 22 more"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (SCHEMA_KEY, "[]"), (SCHEMA_KEY, "nonsense"), (SCHEMA_KEY, "[" * 5000), (SCHEMA_KEY, "{}"),
        (SCHEMA_KEY, '{"columns": [{"name": "age", "kind": "os.system"}]}'),
        (SCHEMA_KEY, json.dumps({**SCHEMA.to_dict(), "version": 2})),
        (SCHEMA_KEY, json.dumps({**SCHEMA.to_dict(), "columns": [{"name": "a"}] * 16})),
        (FEATURE_NAMES, "[]"), (FEATURE_NAMES, "3"), (FEATURE_NAMES, json.dumps(["a"] * 16)),
        (FEATURE_NAMES, json.dumps([*map(str, range(16))])), (FEATURE_NAMES, '{"a": 1}'),
    ],
)  # fmt: skip
def test_what_is_none_is_refused_in_one_sentence(key, text, file):
    told = {**read(file), key: text}
    with pytest.raises(
        FileError, match="expected names of 16 features, and the columns"
    ) as refused:
        schema_in(told, 16, "m.onnx")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 300


def test_a_damaged_schema_is_said_by_inspect(file, tmp_path):
    proto = onnx.load(file)
    next(e for e in proto.metadata_props if e.key == SCHEMA_KEY).value = '{"columns": 3}'
    onnx.save(proto, tmp_path / "damaged.onnx")
    assert "columns      damaged" in str(describe(tmp_path / "damaged.onnx"))


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"a": [1, {"b": "x"}]}, {"a": [1, {"b": "y"}]}, 'expected "x" as ["a"][1]["b"], got "y"'),
        ([1, 2], [1, 2, 3], "expected [1, 2], got [1, 2, 3]"),
        ({"a": 1}, {}, 'expected 1 as ["a"], got null'),
        ({}, {"a": 1}, 'expected null as ["a"], got 1'),
        (None, {}, "expected null, got {}"),
        (1, True, "expected 1, got true"),
        ({"a": [None, "ü"]}, {"a": [None, "ü"]}, ""),
    ],
)
def test_where_two_values_differ_is_said(one, other, said):
    assert difference(one, other) == said
    assert bool(difference(other, one)) == bool(said)


def test_the_difference_of_large_values_is_short():
    names = [f"n{k}" for k in range(10_000)]
    assert len(difference(names, names[:-1])) < 300
    assert difference(names, [*names[:-1], "x"]) == 'expected "n9999" as [9999], got "x"'
