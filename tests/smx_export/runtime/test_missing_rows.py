"""Rows that have no answer: what OnnxClassifier, the CSV file and the file itself make of them."""

import csv
import functools

import numpy as np
import pytest
import torch
from profiled import log_softmax, logits, model_of
from tools import installed
from torch import nn
from torch.utils.data import DataLoader

from smx_export import OnnxClassifier, Profile, export_onnx
from smx_export.contract import ALL_OUTPUTS
from smx_lightning import SoftmaxRegression
from smx_lightning.callbacks import PredictionsCsv
from smx_lightning.module import Prediction

OUTPUTS = [(name,) for name in ALL_OUTPUTS] + [ALL_OUTPUTS, ("probs", "label")]
NAN, INF = float("nan"), float("inf")
BAD = [2, 5, 6]

every_output = pytest.mark.parametrize("outputs", OUTPUTS, ids=",".join)


def exported(folder, outputs=("log_probs", "probs"), model=None, **options):
    model = model_of(input_shape=(12,), input_range=None) if model is None else model
    path = folder / "model.onnx"
    return model, export_onnx(model, path, profile=Profile.of(outputs=outputs), **options).path


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The same of the model that most tests ask, each written once."""

    @functools.cache
    def plain(outputs):
        return exported(tmp_path_factory.mktemp("missing"), outputs)

    return plain


def rows(bad=(NAN, INF, -INF)):
    x = np.random.default_rng(5).uniform(0, 1, (9, 12)).astype(np.float32)
    for row, value in zip(BAD, bad, strict=False):
        x[row, row] = value
    return x


@every_output
@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_rows_without_an_answer_are_refused(outputs, value, plain):
    _, path = plain(outputs)
    classifier, x = OnnxClassifier(path), rows([value] * 3)
    asked = [classifier.predict, classifier.predict_names]
    if outputs != ("label",):
        asked += [classifier.predict_proba, classifier.answer]
    for ask in asked:
        with pytest.raises(ValueError, match=r"in row 2 \(3 such rows\); remove or impute them"):
            ask(x)
        assert len(ask(np.delete(x, BAD, 0))) in (2, 6)  # the remedy


@every_output
def test_missing_rows_are_marked_and_the_others_answered(outputs, plain):
    model, path = plain(outputs)
    classifier, x = OnnxClassifier(path, on_nan="missing"), rows()
    with np.errstate(invalid="ignore"):
        truth = log_softmax(logits(model, x.astype(np.float64)))  # float64, by numpy
    expected = truth.argmax(1)
    expected[BAD] = -1
    assert np.isnan(truth[BAD]).any(1).all()
    np.testing.assert_array_equal(classifier.predict(x), expected)
    names = [None if k < 0 else model.class_names[k] for k in expected]
    assert classifier.predict_names(x) == names
    if outputs != ("label",):
        truth[BAD] = NAN
        np.testing.assert_allclose(classifier.predict_proba(x), np.exp(truth), 1e-4, 1e-5)
        answer = classifier.answer(x)
        np.testing.assert_array_equal(answer.label, expected)
        np.testing.assert_array_equal(answer.probs, classifier.predict_proba(x))


@every_output
def test_what_the_file_itself_answers_can_be_had(outputs, plain):
    _, path = plain(outputs)
    assert OnnxClassifier(path, on_nan="ignore").predict(rows())[2] == 0


@pytest.mark.parametrize("outputs", [("probs",), ("scores",), ("log_probs", "label")])
def test_finite_rows_that_overflow_have_no_answer(outputs, plain):
    _, path = plain(outputs)
    x = rows([3e38, -3e38, 1.0])
    with pytest.raises(ValueError, match=r"probabilities that are NaN, .* in row 2 \(2 such rows"):
        OnnxClassifier(path).predict(x)
    np.testing.assert_array_equal(
        np.flatnonzero(OnnxClassifier(path, on_nan="missing").predict(x) == -1), BAD[:2]
    )


def test_the_threshold_does_not_hide_a_missing_row(tmp_path):
    model = model_of(classes=2, threshold=0.2, input_shape=(12,), input_range=None)
    _, path = exported(tmp_path, ("probs", "label"), model)
    assert OnnxClassifier(path, on_nan="missing").predict(rows())[BAD].tolist() == [-1, -1, -1]
    _, path = exported(tmp_path, ("probs",), model)
    assert OnnxClassifier(path, on_nan="missing").predict(rows())[BAD].tolist() == [-1, -1, -1]


@every_output
def test_one_missing_row_among_many_is_found(outputs, plain):
    _, path = plain(outputs)
    x = np.random.default_rng(5).uniform(0, 1, (20_000, 12)).astype(np.float32)
    x[17_771, 11] = NAN
    with pytest.raises(ValueError, match=r"in row 17771 \(1 such rows\)"):
        OnnxClassifier(path).predict(x)


class Swallowing(SoftmaxRegression):
    """A backbone that makes zeros of NaN."""

    def features(self, x):
        return torch.where(x == x, x, torch.zeros_like(x))


def test_a_backbone_that_swallows_nan_does_not_answer_for_it(tmp_path):
    model = Swallowing(12, 3)
    nn.init.normal_(model.linear.weight)
    _, path = exported(tmp_path, model=model)
    x = rows([NAN])
    assert np.isfinite(OnnxClassifier(path, on_nan="ignore").predict_proba(x)).all()
    with pytest.raises(ValueError, match=r"got NaN in row 2 \(1 such rows\)"):
        OnnxClassifier(path).predict(x)
    classifier = OnnxClassifier(path, on_nan="missing")
    assert np.isnan(classifier.predict_proba(x)).all(1).nonzero()[0].tolist() == [2]
    assert (classifier.predict(x) == -1).nonzero()[0].tolist() == [2]


@pytest.mark.parametrize("target", ["onnxruntime", "onnx-reference", "openvino", "opencv", "tract"])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_label_of_a_nan_row_in_the_file_is_the_first_class(target, classes, tmp_path):
    """As export/README.md says; where this fails, a runtime has changed its mind."""
    model = model_of(classes=classes, input_shape=(12,), threshold=0.3 if classes == 2 else None)
    _, path = exported(tmp_path, ("probs", "label"), model)
    session = installed(target).load(path)
    try:
        outputs = session.run(rows([NAN, NAN]))
    finally:
        session.close()
    assert outputs["label"][BAD[:2]].tolist() == [0, 0]
    assert np.isnan(outputs["probs"][BAD[:2]]).all()


class Doubtful(SoftmaxRegression):
    """Answers -1 where there is no answer."""

    def predict_step(self, batch, batch_idx):
        label, probs = super().predict_step(batch, batch_idx)
        return Prediction(torch.where(probs.isnan().any(1), -1, label), probs)


def test_the_class_of_a_missing_row_is_empty_in_the_csv_file(quiet_trainer, tmp_path):
    model = Doubtful(12, 3, class_names=["ant", "bee", "cat"])
    nn.init.normal_(model.linear.weight)
    x = torch.from_numpy(rows())
    trainer = quiet_trainer(callbacks=[PredictionsCsv(str(tmp_path / "p.csv"))])
    trainer.predict(model, DataLoader(x, batch_size=4))
    with (tmp_path / "p.csv").open(newline="") as file:
        header, *found = csv.reader(file)
    assert header == ["row", "class", "p(ant)", "p(bee)", "p(cat)"]
    names = [model.class_names[k] for k in model(x).argmax(1)]
    for row in BAD:
        names[row] = ""
    assert [(row, name) for row, name, *_ in found] == list(
        zip(map(str, range(9)), names, strict=True)
    )
    assert [p for _, _, *p in found][2] == ["nan"] * 3


@pytest.mark.parametrize("option", ["on_nan", "on_range"])
def test_an_unknown_option_is_refused(option, tmp_path):
    _, path = exported(tmp_path)
    with pytest.raises(ValueError, match=f"{option} must be one of .*, ignore, got 'drop'"):
        OnnxClassifier(path, **{option: "drop"})
