"""What a notebook asks of a file: samples of another size, streams, sparse and borrowed arrays."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

from smx_export import export_onnx
from smx_export.errors import FileError
from smx_export.runtime import OnnxClassifier
from smx_lightning import InputError, SoftmaxRegression


@pytest.fixture(scope="module")
def model() -> SoftmaxRegression:
    """A model of four features, whose class is the largest of the first three."""
    model = SoftmaxRegression(4, 3)
    with torch.no_grad():
        model.linear.weight.copy_(torch.eye(3, 4))
        model.linear.bias.zero_()
    return model


@pytest.fixture(scope="module")
def file(model: SoftmaxRegression, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's file."""
    return export_onnx(model, tmp_path_factory.mktemp("file") / "model.onnx").path


@pytest.mark.parametrize("shape", [(3,), (5,), (4, 2)])
def test_a_sample_of_another_size_is_refused(
    model: SoftmaxRegression, shape: tuple[int, ...], tmp_path: Path
) -> None:
    said = "expected inputs of 4 entries, as many as the model has features, got input_shape="
    with pytest.raises(InputError, match=said):
        model.to_onnx(tmp_path / "model.onnx", torch.zeros(1, *shape))
    with pytest.raises(InputError, match=said):
        export_onnx(SoftmaxRegression(4, 3, input_shape=shape), tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]
    assert model.to_onnx(tmp_path / "model.onnx", torch.zeros(1, 2, 2))


@pytest.mark.parametrize("given", [b"\x08", io.BytesIO(b"\x08"), None])
def test_a_classifier_of_no_path_is_refused(given: Any) -> None:
    with pytest.raises(FileError, match="expected the path of an ONNX file, got "):
        OnnxClassifier(given)


def test_a_classifier_of_a_stream_works_as_the_refusal_says(
    model: SoftmaxRegression, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    model.to_onnx(stream)
    (tmp_path / "model.onnx").write_bytes(stream.getvalue())
    assert OnnxClassifier(tmp_path / "model.onnx").predict(np.eye(3, 4)).tolist() == [0, 1, 2]


def test_a_file_at_home_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(file.parent))
    assert OnnxClassifier("~/model.onnx").predict(np.eye(3, 4)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_array, sparse.coo_array])
def test_sparse_rows_are_told_how_to_become_dense(file: Path, kind: Any) -> None:
    x, classifier = kind(np.eye(3, 4)), OnnxClassifier(file)
    with pytest.raises(TypeError, match=r"convert them with x\.toarray\(\)"):
        classifier.predict(x)
    assert classifier.predict(x.toarray()).tolist() == [0, 1, 2]


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "u1"])
def test_arrays_that_may_not_be_written_to_make_no_warning(
    model: SoftmaxRegression, dtype: str, tmp_path: Path
) -> None:
    x, y = np.eye(3, 4).astype(dtype), np.arange(3)
    x.flags.writeable = y.flags.writeable = False  # as pandas and memory maps lend them
    report = export_onnx(model, tmp_path / "model.onnx", data=(x, y)).report
    assert report.passed
    assert not x.flags.writeable
