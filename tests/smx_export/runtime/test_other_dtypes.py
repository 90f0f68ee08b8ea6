"""Several inputs, and integers, in the dtypes that people bring along; one input by its name."""

import numpy as np
import pytest
from typed_inputs import Several, Tokens, rows

from smx_export import InputRangeWarning, OnnxClassifier, export_onnx
from smx_lightning import SoftmaxRegression


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("typed")
    models = {"several": Several(), "tokens": Tokens(), "numbers": SoftmaxRegression(4, 3)}
    return {
        name: OnnxClassifier(export_onnx(model, folder / f"{name}.onnx").path)
        for name, model in models.items()
    }


def float32(x):
    return {**x, "age": np.arange(5, dtype=np.float32), "image": np.rint(x["image"])}


@pytest.mark.parametrize(
    "other",
    [
        {"age": np.arange(5)},
        {"age": range(5)},
        {"age": np.arange(5.0)},
        {"age": np.arange(5, dtype=">f8")},
        {"ids": "uint64"},
        {"ids": ">i2"},
        {"image": "uint8"},
        {"image": "bool"},
        {"mask": "int64"},
        dict.fromkeys(("image", "age", "ids", "mask"), list),
    ],
    ids=str,
)
def test_what_an_input_holds_exactly_is_taken(other, asked):
    x = float32(rows(Several, 5))
    expected = asked["several"].predict_proba(x)
    made = {
        name: x[name].tolist()
        if how is list
        else x[name].astype(how)
        if isinstance(how, str)
        else how
        for name, how in other.items()
    }
    np.testing.assert_array_equal(asked["several"].predict_proba({**x, **made}), expected)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("age", np.full(5, 0.1)),
        ("age", np.full(5, 2**24 + 1)),
        ("age", np.full(5, 1e39)),
        ("age", np.full(5, "3")),
        ("ids", np.ones((5, 6))),
        ("ids", np.full((5, 6), 2**64 - 1, np.uint64)),
        ("mask", np.full((5, 6), 2)),
        ("mask", np.full((5, 6), -1)),
        ("mask", np.ones((5, 6))),
    ],
)
def test_what_it_does_not_hold_is_refused(name, wrong, asked):
    with pytest.raises(TypeError, match=f"expected {name} of .*numbers that fit into it, got"):
        asked["several"].predict({**rows(Several, 5), name: wrong})


def test_integers_for_an_input_of_float32_are_warned_of_as_its_own_numbers_are(asked):
    x = rows(Several, 5)
    bright = np.full((5, 4, 4), 255)
    with pytest.warns(InputRangeWarning):
        got = asked["several"].predict_proba({**x, "image": bright})
    again = asked["several"].predict_proba({**x, "image": bright.astype(np.float32)})
    np.testing.assert_array_equal(got, again)


@pytest.mark.parametrize("name", ["tokens", "numbers"])
def test_one_input_by_its_name(name, asked):
    x = rows(Tokens, 5) if name == "tokens" else np.eye(4, dtype=np.float32)
    expected = asked[name].predict_proba(x)
    np.testing.assert_array_equal(asked[name].predict_proba({"input": x}), expected)
    for wrong, told in (({"x": x}, "x"), ({"input": x, "y": x}, "input, y"), ({}, "nothing")):
        with pytest.raises(TypeError, match=f"one input, got a dict of {told}; give the array"):
            asked[name].predict(wrong)


def test_several_inputs_are_shown_by_name(asked):
    told = "image float32 4 × 4, age float32, ids int64 6, mask bool 6 → 3 classes"
    assert repr(asked["several"]) == f"OnnxClassifier({told}, log_probs, probs)"
    assert repr(asked["numbers"]) == "OnnxClassifier(float32 4 → 3 classes, log_probs, probs)"
