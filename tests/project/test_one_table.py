"""One table through everything that takes tables: the same optimum, the same predictions."""

from functools import partial

import numpy as np
import pytest
import tables
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from trainers import quiet_trainer

from smx_export.runtime import OnnxClassifier
from smx_lightning.data import TableDataModule
from smx_lightning.optim import ExactSolver
from smx_lightning.sklearn import SoftmaxClassifier

TARGET, L2 = "outcome", 1e-2
DATES = {"born": "datetime64[D]", "seen": "datetime64[s]"}
WORDS = ["colour", "size"]


@pytest.fixture(scope="module")
def table():
    return tables.gapped(tables.mixed(400, seed=3), but=(TARGET, "id", "share"), seed=5)


@pytest.fixture(scope="module")
def frame(table):
    """The same as scikit-learn's tools take it: dates as numbers, gaps as NaN and None."""
    frame = table.drop_columns(["id", "share", TARGET]).to_pandas()
    for name, unit in DATES.items():
        moments = frame[name].to_numpy(dtype=unit)
        gone = np.isnat(moments)
        frame[name] = np.where(gone, np.nan, moments.astype(np.int64).astype(float))
    frame["smokes"] = frame["smokes"].astype(float)
    for name in WORDS:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def encoder(frame):
    numbers = [name for name in frame.columns if name not in WORDS]
    return make_column_transformer(
        (SimpleImputer(add_indicator=True), numbers),
        (OneHotEncoder(sparse_output=False), WORDS),
    )


@pytest.fixture(scope="module")
def lightning_model(table):
    given = table.drop_columns(["id", "share"])
    data = TableDataModule(given, target=TARGET, val=given, test=given)
    model = tables.model_of(data, l2=L2, optimizer=partial(ExactSolver, tol=1e-9))
    quiet_trainer(max_epochs=200, precision="64-true").fit(model, data)
    return model, data


def in_lightning(lightning_model, frame, y):
    model, data = lightning_model
    return model.double()(data.splits.train.x.double()).exp().detach().numpy()


def in_a_pipeline_of_ours(lightning_model, frame, y):
    ours = SoftmaxClassifier(l2=L2, tol=1e-9)
    return make_pipeline(encoder(frame), StandardScaler(), ours).fit(frame, y).predict_proba(frame)


def in_scikit_learn_s(lightning_model, frame, y):
    judge = LogisticRegression(C=1 / (L2 * len(y)), tol=1e-12, max_iter=10**4)
    return make_pipeline(encoder(frame), StandardScaler(), judge).fit(frame, y).predict_proba(frame)


@pytest.mark.parametrize("ours", [in_lightning, in_a_pipeline_of_ours])
def test_the_same_optimum_as_scikit_learn_s_pipeline(ours, lightning_model, table, frame):
    y = np.array(table[TARGET].to_pylist())
    expected = in_scikit_learn_s(lightning_model, frame, y)
    found = ours(lightning_model, frame, y)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
    label = np.unique(y, return_inverse=True)[1]
    nll = [-np.log(p[np.arange(len(y)), label]).mean() for p in (found, expected)]
    assert nll[0] == pytest.approx(nll[1], abs=1e-6)


def test_and_the_file_answers_the_frame_alike(lightning_model, table, frame, tmp_path):
    model, _ = lightning_model
    y = np.array(table[TARGET].to_pylist())
    path = model.float().to_onnx(tmp_path / "table.onnx")
    expected = in_scikit_learn_s(lightning_model, frame, y)
    rows = table.select([name for name in reversed(table.column_names) if name != TARGET])
    classifier = OnnxClassifier(path)
    np.testing.assert_allclose(classifier.predict_proba(rows), expected, rtol=0, atol=2e-4)
    right = expected.argmax(1) == np.unique(y, return_inverse=True)[1]
    assert classifier.score(rows, y) == pytest.approx(right.mean(), abs=0.01)
