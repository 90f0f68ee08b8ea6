"""``OnnxClassifier`` of data frames, by the names in the file, and as scikit-learn sees it."""

import pickle
import warnings

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import sklearn.base
import tables
from encoded_by_hand import CLASSES, SCHEMA, features, model_of, probabilities
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, get_scorer, log_loss

from smx_export import OnnxClassifier, export_onnx
from smx_export.errors import TableWarning
from smx_lightning import InputError, SoftmaxRegression


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("frames") / "m.onnx").path


@pytest.fixture(scope="module")
def rows():
    return tables.mixed(200)


def of_duckdb(table):
    import duckdb

    return duckdb.connect().from_arrow(table)


FRAMES = {
    "pyarrow": lambda t: t,
    "a batch": lambda t: t.combine_chunks().to_batches()[0],
    "pandas": lambda t: t.to_pandas(),
    "pandas, dates as numpy has them": lambda t: t.to_pandas(date_as_object=False),
    "pandas on Arrow": lambda t: t.to_pandas(types_mapper=pd.ArrowDtype),
    "polars": pl.from_arrow,
    "duckdb": of_duckdb,
    "a dict of lists": lambda t: t.to_pydict(),
    "another order": lambda t: t.select(t.column_names[::-1]),
    "more columns": lambda t: t.append_column("more", pa.nulls(t.num_rows)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_a_data_frame_is_answered_by_the_names_of_its_columns(kind, model, file, rows):
    truth = probabilities(model, features(rows))
    classifier = OnnxClassifier(file)
    frame = FRAMES[kind](rows)
    np.testing.assert_allclose(classifier.predict_proba(frame), truth, rtol=2e-4, atol=1e-6)
    frame = FRAMES[kind](rows)
    assert classifier.predict_names(frame) == [CLASSES[k] for k in truth.argmax(1)]
    top = classifier.predict_top(FRAMES[kind](rows), 2)
    assert top.classes[:, 0].tolist() == truth.argmax(1).tolist()


def test_arrays_are_features_as_ever(model, file, rows):
    x = features(rows).astype(np.float32)
    classifier = OnnxClassifier(file)
    truth = probabilities(model, x)
    np.testing.assert_allclose(classifier.predict_proba(x), truth, rtol=2e-4, atol=1e-6)
    np.testing.assert_allclose(classifier.predict_proba({"input": x}), truth, rtol=2e-4, atol=1e-6)


def test_a_file_without_names_takes_a_frame_as_the_array_that_it_is(tmp_path):
    """As before files had names."""
    path = export_onnx(SoftmaxRegression(2, 2), tmp_path / "m.onnx").path
    frame = pd.DataFrame(np.float32([[1, 2], [3, 4]]), columns=["b", "a"])
    found = OnnxClassifier(path).predict_proba(frame)
    np.testing.assert_array_equal(found, OnnxClassifier(path).predict_proba(frame.to_numpy()))


def test_a_frame_of_no_rows_has_no_answers(file, rows):
    assert OnnxClassifier(file).predict_proba(rows.slice(0, 0)).shape == (0, 3)
    assert OnnxClassifier(file).predict_proba(rows.slice(0, 0).to_pandas()).shape == (0, 3)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (lambda t: t.drop_columns(["age"]), "found no age among"),
        (lambda t: t.to_pandas().assign(age="old"), "'age'"),
        (lambda t: t.to_pandas().assign(visits=np.inf), "'visits'"),
        (lambda t: {"age": [1.0]}, "found no colour"),
        (lambda t: {**t.to_pydict(), "age": [1.0]}, "a table with columns"),
        (lambda t: dict.fromkeys(t.column_names, 3.5), "expected a table"),
        (lambda t: {}, "found no age"),
    ],
)  # fmt: skip
def test_what_is_no_such_table_is_refused(frame, words, file, rows):
    with pytest.raises(InputError, match=words) as refused:
        OnnxClassifier(file).predict(frame(rows))
    assert "\n" not in str(refused.value)


def test_a_missing_value_without_a_fill_follows_on_nan(tmp_path):
    model = SoftmaxRegression(2, 2, feature_names=["a", "b"])
    path = export_onnx(model, tmp_path / "m.onnx").path
    frame = pd.DataFrame({"b": [1.0, np.nan], "a": [1, 2]})
    with pytest.raises(InputError, match="column 'b', got none in row 1"):
        OnnxClassifier(path).predict(frame)
    assert OnnxClassifier(path, on_nan="missing").predict(frame).tolist()[1] == -1


def test_unknown_categories_are_told_once_a_column(file, rows):
    frame = rows.to_pandas().assign(colour="mauve")
    classifier = OnnxClassifier(file)
    with pytest.warns(
        TableWarning, match=r"in rows of 'colour': 200 \(mauve\), of 200 rows"
    ) as told:
        classifier.predict(frame)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        classifier.predict(frame)
    with pytest.warns(TableWarning, match=r"'size': 200 \(huge\)"):
        classifier.predict(frame.assign(size="huge"))


@pytest.mark.parametrize("kept", [0, 1])
def test_a_pickled_classifier_takes_frames(kept, file, rows):
    classifier = OnnxClassifier(file, on_nan=("raise", "missing")[kept])
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict(rows), classifier.predict(rows))


# scikit-learn ----------------------------------------------------------------------------------


@pytest.fixture
def labels(model, rows):
    truth = probabilities(model, features(rows)).argmax(1)
    return np.where(np.random.default_rng(0).random(200) < 0.4, (truth + 1) % 3, truth)


def test_attributes_are_those_of_a_classifier(file, tmp_path):
    named, plain = OnnxClassifier(file), export_onnx(SoftmaxRegression(4, 3), tmp_path / "p.onnx")
    assert named.classes_.tolist() == [0, 1, 2]
    assert named.feature_names_in_.tolist() == [column.name for column in SCHEMA.columns]
    assert named.feature_names_in_.dtype == object
    assert named.n_features_in_ == len(SCHEMA.columns)
    other = OnnxClassifier(plain.path)
    assert other.n_features_in_ == 4
    assert not hasattr(other, "feature_names_in_")
    assert sklearn.base.is_classifier(named)


def test_clone_opens_the_same_file_with_the_same_options(file, rows):
    classifier = OnnxClassifier(file, on_nan="missing", on_range="ignore")
    again = sklearn.base.clone(classifier)
    assert again is not classifier
    assert again.get_params() == classifier.get_params()
    assert again.get_params()["on_nan"] == "missing"
    np.testing.assert_array_equal(again.predict(rows), classifier.predict(rows))
    assert again.set_params(on_nan="raise").get_params()["on_nan"] == "raise"
    with pytest.raises(ValueError, match="expected parameters out of path, providers"):
        again.set_params(alpha=1)


def test_score_is_accuracy(file, rows, labels):
    classifier = OnnxClassifier(file)
    weight = np.random.default_rng(1).uniform(0, 2, 200)
    told = classifier.predict(rows)
    assert classifier.score(rows, labels) == accuracy_score(labels, told)
    expected = accuracy_score(labels, told, sample_weight=weight)
    assert classifier.score(rows, labels, weight) == pytest.approx(expected, rel=1e-15)
    names = np.array(CLASSES)[labels]
    assert classifier.score(rows, names) == classifier.score(rows.to_pandas(), pd.Series(names))
    with pytest.raises(ValueError, match="'awful'; give indices or names of classes"):
        classifier.score(rows, ["awful"] * 200)
    with pytest.raises(ValueError, match=r"one label a row, got shape \(3,\)|broadcast"):
        classifier.score(rows, labels[:3])


def test_scikit_learn_scores_it_and_asks_what_features_matter(file, rows, labels):
    classifier, frame = OnnxClassifier(file), rows.to_pandas().drop(columns=["outcome"])
    probs = classifier.predict_proba(frame)
    assert get_scorer("accuracy")(classifier, frame, labels) == classifier.score(frame, labels)
    expected = -log_loss(labels, probs)
    assert get_scorer("neg_log_loss")(classifier, frame, labels) == pytest.approx(expected)
    found = permutation_importance(classifier, frame, labels, n_repeats=2, random_state=0)
    by_name = dict(zip(frame.columns, found.importances_mean, strict=True))
    assert by_name["colour"] > by_name["id"] == 0


def test_what_it_is_wrapped_in_is_calibrated_and_what_fits_it_is_refused(file, rows, labels):
    classifier, x = OnnxClassifier(file), rows.to_pandas()
    calibrated = CalibratedClassifierCV(FrozenEstimator(classifier), method="sigmoid")
    calibrated.fit(x, labels)
    assert calibrated.predict_proba(x).shape == (200, 3)
    with pytest.raises(TypeError, match="expected a classifier that can be trained"):
        classifier.fit(x, labels)
