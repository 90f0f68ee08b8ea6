"""What the report of a comparison tells: ties, flips, and the task on your own rows."""

import numpy as np
import pytest
import torch
from mutations.editing import corrupted
from mutations.inputs import large_inputs_clipped
from mutations.models import DIGITS, MEAN, SCALE, SQUARE, linear
from mutations.table import VALUES
from mutations.weights import two_biases_swapped, two_class_rows_swapped

from smx_export import check_parity, export_onnx

pytestmark = pytest.mark.usefixtures("one_thread")


def twins(*biases):
    """Classes 0 and 1 have the same weights: only the biases decide between them."""
    model = linear(5, 3, class_names=["left", "right", "other"])
    with torch.no_grad():
        model.linear.weight[1] = model.linear.weight[0]
        model.linear.bias.copy_(torch.tensor([*biases, -1.0]))
    return model


def test_identical_classes_are_a_tie_and_no_failure(tmp_path):
    report = export_onnx(twins(0.5, 0.5), tmp_path / "model.onnx").report
    assert report.passed
    assert all(flip.margin <= flip.tolerance for flip in report.flips)


def test_a_flip_within_rounding_is_listed_and_no_fault_of_the_answers(tmp_path):
    lower, upper = 0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))
    model = twins(lower, upper)
    path = export_onnx(model, tmp_path / "model.onnx").path
    report = check_parity(model, corrupted(path, two_biases_swapped, tmp_path))
    # No rounding explains other weights, and the file says by their hash that it has others.
    assert {check.name for check in report.failed} == {"graph", "self-test"}
    assert report.flips
    assert all(0 < flip.margin <= flip.tolerance for flip in report.flips)


def test_a_flip_beyond_rounding_is_listed_with_its_margin(tmp_path):
    model = twins(0.5, 0.501)
    path = export_onnx(model, tmp_path / "model.onnx").path
    report = check_parity(model, corrupted(path, two_biases_swapped, tmp_path))
    assert "argmax" in [check.name for check in report.failed]
    flip = next(flip for flip in report.flips if flip.probe == "random rows")
    assert (flip.model_class, flip.file_class) == ("right", "left")
    assert flip.margin == pytest.approx(0.001, rel=1e-3)
    assert flip.tolerance < flip.margin


def test_labelled_data_gives_the_accuracy_and_nll_of_both_sides(exported):
    model, path = exported(SQUARE)
    x = torch.randn(100, 6) * torch.from_numpy(SCALE) + torch.from_numpy(MEAN)
    y = torch.randint(6, (100,))
    report = check_parity(model, path, (x, y))
    log_probs = model(x).detach()
    assert report.passed
    assert report.task.rows == 100
    assert report.task.model_accuracy == (log_probs.argmax(1) == y).double().mean()
    assert report.task.file_accuracy == report.task.model_accuracy
    nll = -log_probs[torch.arange(100), y].double().mean()
    assert report.task.model_nll == pytest.approx(float(nll))
    assert report.task.file_nll == pytest.approx(report.task.model_nll, rel=1e-4)


def test_the_accuracy_of_a_corrupted_file_is_its_own(exported, tmp_path):
    model, path = exported(DIGITS)
    x = torch.randn(100, 64)
    y = model(x).argmax(1)
    report = check_parity(model, corrupted(path, two_class_rows_swapped, tmp_path), (x, y))
    assert report.task.model_accuracy == 1
    assert report.task.file_accuracy < 1


def test_accuracy_is_counted_at_the_threshold(tmp_path):
    model = linear(3, 2, threshold=0.9)
    x = torch.randn(50, 3)
    y = (model(x).exp()[:, 1] >= 0.9).long()
    task = export_onnx(model, tmp_path / "model.onnx", data=(x, y)).report.task
    assert task.model_accuracy == task.file_accuracy == 1


def test_your_data_shows_what_the_generated_inputs_do_not_reach(exported, tmp_path):
    model, path = exported(DIGITS)
    path = corrupted(path, large_inputs_clipped, tmp_path)
    failed = check_parity(model, path, torch.full((1, 64), 1e9)).failed
    assert next(c for c in failed if c.name == VALUES).detail.endswith("in 'your data'")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_data_may_hold_nan_and_infinity(value, exported):
    model, path = exported(SQUARE)
    x = torch.randn(4, 6)
    x[2, 1] = value
    assert check_parity(model, path, x).passed
