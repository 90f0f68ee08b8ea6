"""Outputs against tolerances, on answers that are made by hand."""

import math

import numpy as np
import pytest

from smx_export.artifact.comparison import Expected, compare, log_probs_of

TRUTH = np.log([[0.5, 0.3, 0.2], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5], [0.98, 0.01, 0.01]])
TOLERANCE = np.full_like(TRUTH, 1e-5)
NORM = 7.0  # log Σ exp of the scores
EXPECTED = Expected(TRUTH, TOLERANCE, TOLERANCE, TRUTH + NORM)


def right_outputs():
    return {
        "log_probs": TRUTH.astype(np.float32),
        "probs": np.exp(TRUTH).astype(np.float32),
        "scores": (TRUTH + NORM).astype(np.float32),
        "label": np.array([0, 1, 2, 0]),
    }


def test_right_outputs_are_right():
    found = compare(EXPECTED, right_outputs())
    assert found.right
    assert set(found.ratios) == {"log_probs", "probs", "sum", "scores"}
    assert 0 < found.ratio < 1
    assert found.changed == ()


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("log_probs", (1, 3)),
        ("probs", (4, 1)),
        ("scores", (3,)),
        ("log_probs", (2, 4, 3)),
        ("label", (4, 1)),
        ("label", (1,)),
        ("label", ()),
        ("probs", (0, 3)),
        ("probs", (4, 4)),
    ],
)
def test_another_shape_is_a_fault_even_where_numpy_would_broadcast(name, shape):
    found = compare(EXPECTED, right_outputs() | {name: np.zeros(shape, np.float32)})
    wanted = (4,) if name == "label" else (4, 3)
    assert found.faults == (f"{name} is float32 {shape}, not {wanted}",)
    assert not found.right


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["log_probs", "probs", "scores"])
def test_nan_and_infinity_are_faults_where_the_answer_is_a_number(name, value):
    outputs = right_outputs()
    outputs[name][2, 1] = value
    found = compare(EXPECTED, outputs)
    assert found.faults == (f"{name} is not finite where the answer is",)
    assert not found.right


def test_rows_that_the_model_answers_with_nan_must_be_nan_and_hide_no_others():
    truth = np.where(np.arange(4)[:, None] == 1, np.nan, TRUTH)
    expected = Expected(truth, TOLERANCE, TOLERANCE, truth + NORM)
    outputs = right_outputs()
    assert compare(expected, outputs).faults
    for name in ("log_probs", "probs", "scores"):
        outputs[name][1] = np.nan
    outputs["label"][1] = 99  # of NaN there is no largest
    assert compare(expected, outputs).right
    outputs["label"][3] = 1
    (changed,) = compare(expected, outputs).changed
    assert changed.row == 3


def test_a_class_that_is_ruled_out_has_probability_zero():
    with np.errstate(divide="ignore"):
        truth = np.log([[0.5, 0.5, 0.0]])
    expected = Expected(truth, TOLERANCE[:1], TOLERANCE[:1])
    right = {"log_probs": truth, "probs": np.array([[0.5, 0.5, 0.0]])}
    assert compare(expected, right).right
    assert not compare(expected, right | {"log_probs": np.log([[0.5, 0.5, 1e-30]])}).right
    assert not compare(expected, right | {"probs": np.array([[0.5, 0.5, np.nan]])}).right


@pytest.mark.parametrize("name", ["log_probs", "scores"])
@pytest.mark.parametrize(("error", "right"), [(0.9e-5, True), (1.1e-5, False), (-1.1e-5, False)])
def test_nats_are_held_against_the_tolerance(name, error, right):
    values = TRUTH + (NORM if name == "scores" else 0)
    values[1, 2] += error
    found = compare(EXPECTED, {name: values})
    assert found.ratios[name] == pytest.approx(abs(error) / 1e-5)
    assert found.right is right


@pytest.mark.parametrize("p", [0.2, 1e-3, 1e-20, 1e-30])
@pytest.mark.parametrize(("error", "right"), [(0.9e-5, True), (1.1e-5, False)])
def test_a_probability_is_held_against_the_tolerance_in_nats_however_small(p, error, right):
    probs = np.array([[1 - p, p]])
    tolerance = np.full((1, 2), 1e-5)
    told = probs * [1, math.exp(error)]
    found = compare(Expected(np.log(probs), tolerance, tolerance), {"probs": told})
    assert (found.ratios["probs"] <= 1) is right


def test_a_probability_below_float32_s_normal_numbers_may_be_zero():
    truth = np.array([[0.0, -100.0]])  # exp(-100) is 3.7e-44
    tolerance = np.full((1, 2), 1e-5)
    assert compare(Expected(truth, tolerance, tolerance), {"probs": np.array([[1.0, 0.0]])}).right


def test_probabilities_that_do_not_sum_to_one_are_seen_where_each_is_within_its_tolerance():
    wide = np.full_like(TRUTH, 0.1)
    found = compare(Expected(TRUTH, wide, wide), {"probs": 1.001 * np.exp(TRUTH)})
    assert found.ratios["probs"] < 1 < found.ratios["sum"]
    assert not found.right


@pytest.mark.parametrize("label", [-1, 3, 2**40])
def test_a_label_that_is_no_class_is_beyond_any_rounding(label):
    wide = np.full_like(TRUTH, 1e9)
    outputs = {"label": np.array([0, 1, 2, label])}
    found = compare(Expected(TRUTH, wide, wide), outputs)
    (changed,) = found.beyond_rounding
    assert (changed.row, changed.right, changed.chosen) == (3, 0, label)
    assert math.isinf(changed.margin)
    assert not found.right


@pytest.mark.parametrize(("margin", "right"), [(0.0, True), (1.9e-5, True), (2.1e-5, False)])
@pytest.mark.parametrize("name", ["label", "log_probs"])
def test_a_flip_counts_where_both_tolerances_together_do_not_explain_it(name, margin, right):
    truth = np.log([[0.4, 0.4, 0.2]]) + np.array([[margin / 2, -margin / 2, 0]])
    tolerance = np.full((1, 3), 1e-5)
    flipped = {"label": np.array([1]), "log_probs": truth[:, [1, 0, 2]]}[name]
    found = compare(Expected(truth, tolerance, tolerance), {name: flipped})
    assert len(found.changed) == (margin > 0)
    assert (not found.beyond_rounding) is right
    if margin:
        assert found.changed[0].margin == pytest.approx(margin)


@pytest.mark.parametrize(
    ("threshold", "labels"), [(0.2, [0, 1, 1]), (0.8, [0, 0, 1]), (None, [0, 0, 1])]
)
def test_a_label_obeys_the_threshold_and_nothing_else_does(threshold, labels):
    p = np.array([0.1, 0.4, 0.9])
    truth = np.log(np.stack([1 - p, p], 1))
    tolerance = np.full_like(truth, 1e-5)
    expected = Expected(truth, tolerance, tolerance)
    outputs = {"log_probs": truth, "label": np.array(labels)}
    assert compare(expected, outputs, threshold=threshold).right
    for i in range(3):
        wrong = np.array(labels)
        wrong[i] = 1 - wrong[i]
        found = compare(expected, outputs | {"label": wrong}, threshold=threshold)
        assert [change.row for change in found.beyond_rounding] == [i]


def test_scores_are_compared_themselves_and_not_only_what_softmax_makes_of_them():
    found = compare(EXPECTED, right_outputs() | {"scores": TRUTH})
    assert found.ratios["scores"] > 1
    assert not found.right


def test_an_error_that_is_nan_is_not_within_the_tolerance():
    nan = np.full_like(TRUTH, np.nan)
    assert not compare(Expected(TRUTH, nan, nan), {"log_probs": TRUTH}).right


@pytest.mark.parametrize("ulps", [-2, -1, 0, 1, 2])
def test_probabilities_may_sum_to_a_little_less_or_more_than_one(ulps):
    probs = np.array([[0.5, 0.25, 0.25]], np.float32)
    probs[0, 0] += ulps * np.float32(2.0**-24)
    truth = np.log([[0.5, 0.25, 0.25]])
    tolerance = np.full_like(truth, 1e-6)
    found = compare(Expected(truth, tolerance, tolerance), {"probs": probs})
    assert found.right
    assert found.ratios["sum"] == pytest.approx(
        abs(probs.astype(float).sum() - 1) / 22 * 2**24, 1e-5
    )


@pytest.mark.parametrize("name", ["log_probs", "probs", "scores"])
def test_log_probabilities_are_read_from_any_output_that_tells_them(name):
    outputs = right_outputs()
    found = log_probs_of({name: outputs[name], "label": outputs["label"]})
    np.testing.assert_allclose(found, TRUTH, atol=1e-6)
    assert log_probs_of({"label": outputs["label"]}) is None
