"""float64 and integers for a file of float32: taken where rounding them changes next to nothing."""

import pickle
import warnings

import convolved
import numpy as np
import pytest
import torch
from profiled import log_softmax

from smx_export import OnnxClassifier, Profile, export_onnx
from smx_export.errors import InputRoundingWarning
from smx_lightning import SoftmaxRegression

D, K = 6, 4


def model_of(mean=0.0, scale=1.0, **kwargs):
    """Of features around a mean, standardised where that is not 0."""
    method = "standardize" if mean else "none"
    model = SoftmaxRegression(D, K, preprocessing=method, **kwargs)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.linear.weight.copy_(torch.randn(K, D, generator=random))
        model.preprocessing.mean.fill_(mean)
        model.preprocessing.scale.fill_(scale)
    return model


def right_of(model, x):
    """Probabilities in float64 of what was given, not of what it is rounded to."""
    mean, scale = (float(v[0]) for v in (model.preprocessing.mean, model.preprocessing.scale))
    weight, bias = (t.detach().double().numpy() for t in (model.linear.weight, model.linear.bias))
    return np.exp(log_softmax((x - mean) / scale @ weight.T + bias))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    model = model_of()
    return model, export_onnx(model, tmp_path_factory.mktemp("plain") / "m.onnx").path


def normal(rows=50, mean=0.0, scale=1.0):
    return mean + scale * np.random.default_rng(0).normal(size=(rows, D))


@pytest.mark.parametrize(
    "x",
    [
        normal().astype(np.float32).astype(np.float64),
        np.arange(4 * D).reshape(4, D),
        np.arange(4 * D, dtype=np.uint32).reshape(4, D) << 20,
        np.full((2, D), 2**60),
        np.ones((2, D), np.longdouble),
        [[0.5, 1, 2, 3, 4, 5]],
        np.zeros((0, D)),
        np.ma.masked_equal(np.arange(2.0 * D).reshape(2, D) + 0.5, 3.5),
    ],
    ids=["float64", "int64", "uint32", "large", "longdouble", "list", "empty", "masked"],
)
def test_what_float32_holds_is_taken_silently(x, plain):
    _, path = plain
    classifier = OnnxClassifier(path, on_nan="missing")
    near = np.ma.filled(np.ma.asarray(x).astype(np.float32), np.nan)
    np.testing.assert_array_equal(classifier.predict(x), classifier.predict(near))


@pytest.mark.parametrize("x", [normal(), normal().astype(np.longdouble)], ids=["64", "long"])
def test_what_is_rounded_within_the_tolerance_is_said_once(x, plain):
    model, path = plain
    classifier = OnnxClassifier(path)
    with pytest.warns(InputRoundingWarning) as said:
        probs = classifier.predict_proba(x)
    words = f"{x.dtype} inputs are rounded to float32, which moves answers by up to"
    assert str(said[0].message).startswith(words)
    assert said[0].filename == __file__
    np.testing.assert_allclose(probs, right_of(model, x.astype(np.float64)), rtol=1e-5, atol=1e-7)
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(classifier.predict_proba(x), probs)  # a warning is an error
    np.testing.assert_array_equal(again.predict_proba(x), probs)


def test_the_remedy_of_the_warning_is_silent(plain):
    OnnxClassifier(plain[1]).predict(normal().astype(np.float32))


@pytest.mark.parametrize(
    ("outputs", "judged"), [(("probs",), True), (("scores",), True), (("label",), False)]
)
def test_files_of_other_outputs(outputs, judged, tmp_path):
    model = model_of()
    path = export_onnx(model, tmp_path / "m.onnx", profile=Profile(outputs=outputs)).path
    classifier = OnnxClassifier(path)
    if judged:
        with pytest.warns(InputRoundingWarning):
            label = classifier.predict(normal())
        np.testing.assert_array_equal(label, right_of(model, normal()).argmax(1))
    else:  # of labels nobody knows how near they were
        with pytest.raises(TypeError, match=r"convert them with x\.astype"):
            classifier.predict(normal())
        assert classifier.predict(np.ones((1, D))) == right_of(model, np.ones((1, D))).argmax(1)


@pytest.mark.parametrize("activation", ["sparsemax", "entmax15"])
def test_sparse_files_are_judged_by_probabilities(activation, tmp_path):
    path = export_onnx(model_of(activation=activation), tmp_path / "m.onnx").path
    with pytest.warns(InputRoundingWarning):
        OnnxClassifier(path).predict(normal())


def test_rounding_that_moves_answers_by_more_is_refused(tmp_path):
    """Years of a narrow spread: float32 holds them to 1/16000, which is not next to nothing."""
    mean, scale = 2e4, 5.0
    model = model_of(mean, scale)
    classifier = OnnxClassifier(export_onnx(model, tmp_path / "m.onnx").path)
    x = normal(200, mean, scale)
    with pytest.raises(TypeError) as refused:
        classifier.predict_proba(x)
    words = "expected float32 inputs, or what rounds to it within the file's tolerance of"
    assert str(refused.value).startswith(words)
    assert str(refused.value).endswith("convert them with x.astype(numpy.float32)")
    moved = np.abs(np.log(right_of(model, x)) - np.log(right_of(model, x.astype(np.float32))))
    tolerance = classifier._rounding._tolerance
    assert moved.max() > tolerance  # it was right to refuse them
    near = x.astype(np.float32)
    np.testing.assert_allclose(
        classifier.predict_proba(near), right_of(model, near.astype(float)), rtol=1e-3
    )


def test_what_was_accepted_was_within_the_tolerance(tmp_path):
    """The judge is float64: of rows that pass, rounding moves no answer by more than is said."""
    for mean, scale in ((0.0, 1.0), (10.0, 5.0), (1e3, 5.0), (2e4, 5.0)):
        model = model_of(mean, scale)
        classifier = OnnxClassifier(export_onnx(model, tmp_path / "m.onnx").path)
        x = normal(200, mean, scale)
        moved = np.abs(np.log(right_of(model, x)) - np.log(right_of(model, x.astype(np.float32))))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", InputRoundingWarning)
                classifier.predict(x)
        except TypeError:
            assert mean > 10
        else:
            assert moved.max() <= classifier._rounding._tolerance


@pytest.mark.parametrize("x", [1e39, -1e300], ids=str)
def test_numbers_beyond_float32_are_refused(x, plain):
    with pytest.raises(TypeError, match="leave out what float32 cannot hold"):
        OnnxClassifier(plain[1]).predict(np.full((1, D), x))


def test_rows_without_an_answer_stay_such(plain):
    _, path = plain
    x = normal(4)
    x[1, 0], x[2, 3] = np.nan, np.inf
    with pytest.warns(InputRoundingWarning):
        label = OnnxClassifier(path, on_nan="missing").predict(x)
    assert (label == -1).tolist() == [False, True, True, False]


def test_a_backbone_s_file_is_judged_alike(tmp_path):
    model = convolved.Convolved()
    classifier = OnnxClassifier(export_onnx(model, tmp_path / "m.onnx", batch=3).path)
    x = np.random.default_rng(0).normal(size=(7, 5, 5))
    with pytest.warns(InputRoundingWarning):
        probs = classifier.predict_proba(x)
    np.testing.assert_allclose(probs, np.exp(convolved.answers(model, x)), rtol=1e-4)
