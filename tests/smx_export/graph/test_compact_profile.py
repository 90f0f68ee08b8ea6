"""Weights in 8 or 16 bits: how they are rounded, stored, judged and refused."""

import json

import numpy as np
import onnx
import onnxruntime
import profiled
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from smx_export import OnnxClassifier, ParityError, Profile, check_parity, export_onnx
from smx_export.graph.quantization import rounded
from smx_lightning import InputError, SoftmaxRegression

WIDTHS = ["int8", "float16"]
LAX = {"max_accuracy_loss": 1, "max_nll_increase": 100}  # rounding may cost what it likes
finite = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2),
    elements=st.floats(-1e30, 1e30),  # folded weights are float64, and may be subnormal float32
)


def compact(weights="int8", **budget):
    return Profile.of("compact", weights=weights, **budget)


def on_digits(digits, part="test"):
    rows = getattr(digits.splits, part)
    return rows.x, rows.y


# How weights are rounded ---------------------------------------------------------------------


@given(finite)
def test_an_int8_weight_is_within_half_a_step_of_its_feature_s_grid(weight):
    small = rounded(weight, "int8")
    assert small.stored.dtype == np.int8
    assert (small.scale.dtype, small.scale.shape) == (np.float32, weight.shape[1:])
    assert small.stored.min() >= -127
    step = small.scale.astype(np.float64)
    # The step is float32 itself: 127 of them may end 127u short of the largest weight.
    error = np.abs(small.stored * step - weight)
    assert (error <= step * (0.5 + 127 * 2.0**-24)).all()
    # The grid is no coarser than it must be, but for weights that count for nothing.
    largest = np.abs(weight).max(0)
    counts = largest > 1e-35
    assert (step[counts] * 127 <= largest[counts] * (1 + 1e-6)).all()


@given(finite.map(lambda weight: weight / 1e26))
def test_a_float16_weight_is_the_nearest_there_is(weight):
    small = rounded(weight, "float16")
    assert small.scale is None
    error = np.abs(small.stored.astype(np.float64) - weight)
    assert (error <= np.maximum(np.abs(weight) * 2.0**-11, 2.0**-25)).all()


def test_a_feature_without_weight_stays_without():
    small = rounded(np.array([[0.0, 1.0], [0.0, -2.0]]), "int8")
    assert small.stored[:, 0].tolist() == [0, 0]
    assert np.isfinite(small.scale).all()


# What the file holds -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(trained, digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compact")
    return {
        width: export_onnx(
            trained, folder / f"{width}.onnx", profile=compact(width), data=on_digits(digits)
        )
        for width in WIDTHS
    }


@pytest.mark.parametrize("width", WIDTHS)
def test_digits_stay_within_the_budget(width, files, trained, digits):
    report = files[width].report
    assert report.passed
    cost = report.rounding
    assert cost.rows == 449
    assert abs(cost.accuracy_before - cost.accuracy) <= 0.005
    assert abs(cost.nll - cost.nll_before) <= 0.01
    x, y = on_digits(digits)
    log_probs = trained(x).detach()
    assert cost.accuracy_before == pytest.approx((log_probs.argmax(1) == y).double().mean())
    assert cost.nll_before == pytest.approx(-log_probs[torch.arange(449), y].double().mean())
    (log_probs,) = onnxruntime.InferenceSession(files[width].path).run(
        ["log_probs"], {"input": x.flatten(1).numpy()}
    )
    assert cost.accuracy == pytest.approx((log_probs.argmax(1) == y.numpy()).mean())
    assert cost.nll == pytest.approx(-log_probs[np.arange(449), y].mean(), rel=1e-5)


def test_int8_weights_are_stored_as_bytes_with_one_scale_a_feature(files):
    proto = onnx.load(files["int8"].path)
    stored = {t.name: (t.data_type, list(t.dims)) for t in proto.graph.initializer}
    assert stored == {
        "stored": (onnx.TensorProto.INT8, [10, 64]),
        "scale": (onnx.TensorProto.FLOAT, [64]),
        "bias": (onnx.TensorProto.FLOAT, [10]),
    }
    assert profiled.operators(files["int8"].path)[:3] == ["Mul", "Cast", "Gemm"]


def test_float16_weights_are_stored_as_such(files):
    proto = onnx.load(files["float16"].path)
    stored = {t.name: (t.data_type, list(t.dims)) for t in proto.graph.initializer}
    assert stored["stored"] == (onnx.TensorProto.FLOAT16, [10, 64])
    assert set(stored) == {"stored", "bias"}
    assert profiled.operators(files["float16"].path)[:2] == ["Cast", "Gemm"]


@pytest.mark.parametrize(("width", "share"), [("int8", 0.5), ("float16", 0.75)])
def test_the_file_is_small(width, share, tmp_path):
    """Self-test vectors, in every file alike, weigh as much as half of the float16 weights."""
    model = SoftmaxRegression(784, 10)
    x = torch.rand(50, 784)
    whole, small = (
        export_onnx(model, tmp_path / "model.onnx", profile=profile, data=(x, model(x).argmax(1)))
        .path.stat()
        .st_size
        for profile in ("portable", compact(width))
    )
    assert small < share * whole


@pytest.mark.parametrize("width", WIDTHS)
def test_a_row_s_answer_is_its_own_whoever_its_batch_mates_are(width, files, digits):
    classifier = OnnxClassifier(files[width].path, on_range="ignore")
    row = on_digits(digits)[0][:1].flatten(1).numpy()
    alone = classifier.predict_proba(row)
    for mates in (0.0, 1.0, 1e6, -1e6):
        batch = np.vstack([np.full((3, 64), mates, np.float32), row])
        np.testing.assert_allclose(classifier.predict_proba(batch)[3:], alone, rtol=1e-5)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(("mean", "scale"), [(900.0, 1e-3), (2e4, 1.0)])
def test_a_mean_far_above_its_scale_costs_no_accuracy(width, mean, scale, tmp_path):
    model = SoftmaxRegression(64, 3, preprocessing="standardize")
    with torch.no_grad():
        model.linear.weight.normal_()
        model.preprocessing.mean.fill_(mean)
        model.preprocessing.scale.fill_(scale)
    x = mean + scale * torch.randn(100, 64)
    data = x, model(x).argmax(1)
    export = export_onnx(model, tmp_path / "m.onnx", profile=compact(width, **LAX), data=data)
    assert export.report.max_error < 0.002
    assert profiled.operators(export.path)[0] == "Sub"


@pytest.mark.parametrize("size", [1e-30, 1e-38, 1e-43, 1e-45])
def test_weights_that_decayed_to_almost_nothing_are_no_harm(size, tmp_path):
    model = profiled.model_of(preprocessing="none")
    with torch.no_grad():
        model.linear.weight[:, 5] = size * torch.tensor([1.0, -1.0, 0.5])
    data = profiled.labelled(model)
    report = export_onnx(model, tmp_path / "m.onnx", profile=compact(**LAX), data=data).report
    assert report.passed


# How it is judged ----------------------------------------------------------------------------


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("data", [None, torch.zeros(2, 12)])
def test_without_labels_nobody_knows_what_rounding_costs(width, data, tmp_path):
    with pytest.raises(InputError) as caught:
        export_onnx(profiled.model_of(), tmp_path / "m.onnx", profile=compact(width), data=data)
    assert str(caught.value) == (
        f"expected labelled data to judge what {width} weights cost, got none; give it with "
        "--data FILE.npz (in Python: data=(x, y)), or choose another profile"
    )
    assert not list(tmp_path.iterdir())


def test_a_later_check_needs_labels_too(files, trained, digits):
    path = files["int8"].path
    with pytest.raises(InputError, match="expected labelled data"):
        check_parity(trained, path)
    assert check_parity(trained, path, on_digits(digits, "val")).rounding.rows == 135


def undecided(model):
    """Rows that int8 weights put on the other side of the border, with the labels of before."""
    x = torch.from_numpy(profiled.in_range(profiled.pixels(4000))).float()
    exact = profiled.logits(model, x.numpy()).argmax(1)
    coarse = profiled.logits(model, x.numpy(), "int8").argmax(1)
    flipped = np.flatnonzero(exact != coarse)
    assert len(flipped) >= 3
    return x[flipped], torch.from_numpy(exact[flipped])


@pytest.mark.parametrize(
    ("budget", "failed"),
    [
        ({"max_accuracy_loss": 0, "max_nll_increase": 100}, "accuracy after rounding"),
        ({"max_accuracy_loss": 1, "max_nll_increase": 0}, "NLL after rounding"),
    ],
)
def test_a_budget_that_is_exceeded_refuses_the_file(budget, failed, tmp_path):
    model = profiled.model_of()
    with pytest.raises(ParityError, match=failed) as caught:
        export_onnx(model, tmp_path / "m.onnx", profile=compact(**budget), data=undecided(model))
    assert [check.name for check in caught.value.report.failed] == [failed]
    assert not list(tmp_path.iterdir())


def test_what_rounding_gains_is_no_cost(tmp_path):
    model = profiled.model_of()
    x, _ = undecided(model)
    coarse = torch.from_numpy(profiled.logits(model, x.numpy(), "int8").argmax(1))
    profile = compact(max_accuracy_loss=0, max_nll_increase=0)
    report = export_onnx(model, tmp_path / "m.onnx", profile=profile, data=(x, coarse)).report
    assert report.rounding.accuracy > report.rounding.accuracy_before


def test_choices_that_rounding_changed_are_listed_with_their_margins(tmp_path):
    model = profiled.model_of()
    x, y = undecided(model)
    report = export_onnx(model, tmp_path / "m.onnx", profile=compact(**LAX), data=(x, y)).report
    flips = report.rounding.flips
    assert [flip.row for flip in flips] == list(range(len(x)))
    before = profiled.logits(model, x.numpy())
    after = profiled.logits(model, x.numpy(), "int8").argmax(1)
    for flip, z, k, j in zip(flips, before, y, after, strict=True):
        assert (flip.model_class, flip.file_class) == (profiled.NAMES[k], profiled.NAMES[j])
        assert flip.margin == pytest.approx(z[k] - z[j], abs=1e-4)
    first = f"flip in 'your data' row 0: {flips[0].model_class} → {flips[0].file_class}, margin "
    assert first in str(report)
    assert f"{len(x)} of {len(x)} flips" in str(report)
    listed = json.loads(report.to_json())["rounding"]["flips"]
    assert [flip["margin"] for flip in listed] == [flip.margin for flip in flips]


def test_weights_that_float16_cannot_hold_are_refused_in_one_sentence(tmp_path):
    model = profiled.model_of(preprocessing="none")
    with torch.no_grad():
        model.linear.weight[1, 2] = 1e5
    data = profiled.labelled(model)
    with pytest.raises(InputError) as caught:
        export_onnx(model, tmp_path / "m.onnx", profile=compact("float16"), data=data)
    assert str(caught.value) == (
        "expected weights that float16 can hold, got 1e+05; use int8 (--weights int8), or "
        "standardise the features"
    )
    assert export_onnx(model, tmp_path / "m.onnx", profile=compact(**LAX), data=data).report.passed


@pytest.mark.parametrize("rows", [1, 3], ids=["one row", "all rows"])
def test_rows_without_an_answer_do_not_judge_rounding(rows, tmp_path):
    torch.manual_seed(1)
    x, y = torch.randn(3, 6), torch.tensor([0, 1, 2])
    x[:rows, 2] = torch.nan
    model = SoftmaxRegression(6, 3)
    if rows == 3:
        with pytest.raises(InputError, match=r"rows that have an answer, got NaN .* in all of 3"):
            export_onnx(model, tmp_path / "m.onnx", profile="compact", data=(x, y))
        return
    rounding = export_onnx(model, tmp_path / "m.onnx", profile="compact", data=(x, y)).report
    whole = export_onnx(model, tmp_path / "w.onnx", profile="compact", data=(x[1:], y[1:])).report
    assert rounding.rounding == whole.rounding
