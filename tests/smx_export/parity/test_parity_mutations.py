"""The parity gate under attack: whatever is done to a correct file, it must not pass."""

from operator import attrgetter

import numpy as np
import onnx
import pytest
import torch
from mutations import backbone, damage, inputs, interface, softmax, weights
from mutations.damage import (
    weights_in_another_file,
    weights_of_a_constant_node_in_another_file,
    weights_of_a_function_in_another_file,
)
from mutations.editing import array, change, corrupted, metadata
from mutations.models import BACKBONE, MODELS, SQUARE, linear
from mutations.softmax import log_of_the_softmax, log_sum_exp_without_the_maximum
from mutations.table import NOT_FINITE, VALUES
from mutations.weights import a_nan_weight
from sampled import one_of_each, whole

from smx_export import FileError, check_parity, export_onnx

CASES = [
    case
    for table in (weights, softmax, inputs, interface, damage, backbone)
    for case in table.CASES
]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", one_of_each(CASES, attrgetter("corrupt")), ids=str)
def test_a_corrupted_file_does_not_pass(case, exported, tmp_path):
    model, path = exported(case.model)
    path = corrupted(path, case.corrupt, tmp_path)
    if case.seen_by is FileError:
        with pytest.raises(FileError):
            check_parity(model, path)
        return
    report = check_parity(model, path)
    assert not report.passed
    assert case.seen_by in [check.name for check in report.failed]


def test_there_are_corruptions_enough():
    corruptions = {case.corrupt for case in CASES if case.model != BACKBONE}
    of_a_backbone = {case.corrupt for case in CASES if case.model == BACKBONE}
    assert len(corruptions) >= 30
    assert len(of_a_backbone) >= 6


@pytest.mark.parametrize("name", MODELS)
def test_the_file_itself_passes(name, exported):
    model, path = exported(name)
    report = check_parity(model, path)
    assert report.passed
    assert report.flips == ()


WIDE = 9000  # features: more than twice as many as there are one-hot rows


@pytest.mark.parametrize("size", [1e-6, 1e-4, 1e-2, 1])
@pytest.mark.parametrize("corrupt", [log_of_the_softmax, log_sum_exp_without_the_maximum])
def test_overflow_is_provoked_however_small_the_weights(corrupt, size, tmp_path):
    model = linear(20, 4, size)
    path = export_onnx(model, tmp_path / "model.onnx").path
    failed = check_parity(model, corrupted(path, corrupt, tmp_path)).failed
    assert [check.name for check in failed[:2]] == ["graph", NOT_FINITE]


@pytest.mark.whole
@pytest.mark.parametrize("feature", [whole(0), 4097, whole(WIDE - 1)])
def test_every_weight_counts_where_features_outnumber_the_one_hot_rows(feature, wide, tmp_path):
    model, path = wide
    pruned = corrupted(
        path, lambda proto: change(proto, "weight", (1, feature), np.zeros_like), tmp_path
    )
    assert VALUES in [check.name for check in check_parity(model, pruned).failed]


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    model = linear(WIDE, 2, size=0.1)
    return model, export_onnx(model, tmp_path_factory.mktemp("wide") / "model.onnx").path


@pytest.mark.parametrize(
    "corrupt",
    [
        weights_in_another_file,
        weights_of_a_constant_node_in_another_file,
        weights_of_a_function_in_another_file,
    ],
)
def test_no_other_file_is_followed_even_where_it_exists(corrupt, exported, tmp_path, monkeypatch):
    model, path = exported(SQUARE)
    monkeypatch.chdir(tmp_path)
    array(onnx.load(path), "weight").tofile("weights.bin")
    with pytest.raises(FileError, match="self-contained"):
        check_parity(model, corrupted(path, corrupt, tmp_path))


@pytest.mark.parametrize("value", [None, "0.9", "0.30001"])
def test_another_threshold_does_not_pass(value, tmp_path):
    model = linear(3, 2, threshold=0.3)
    path = export_onnx(model, tmp_path / "model.onnx").path
    report = check_parity(
        model, corrupted(path, lambda proto: metadata(proto, "threshold", value), tmp_path)
    )
    assert [check.name for check in report.failed] == ["threshold"]


def test_a_model_that_answers_nan_has_not_been_compared(tmp_path):
    model = linear(3, 4, preprocessing="standardize")
    path = export_onnx(model, tmp_path / "model.onnx").path
    model.preprocessing.mean[0] = torch.nan
    report = check_parity(model, corrupted(path, a_nan_weight, tmp_path))
    assert NOT_FINITE in [check.name for check in report.failed]
