"""Among scikit-learn's own tools, and on the way to Lightning and ONNX and back."""

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from lightning.pytorch import Trainer
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from smx_export.runtime import OnnxClassifier
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.optim import ExactSolver
from smx_lightning.sklearn import SoftmaxClassifier
from smx_lightning.sklearn.lightning import rows_of


def judge(**kwargs):
    return LogisticRegression(solver="newton-cholesky", tol=1e-10, max_iter=1000, **kwargs)


def table(rows=300):
    """Numbers, a category of many values and labels, of which numbers and category tell."""
    rng = np.random.default_rng(0)
    town = rng.choice([f"town {k}" for k in range(40)], rows)
    age = rng.normal(40, 10, rows)
    y = np.where(
        age + rng.normal(0, 8, rows) > 40, "old", np.where(town < "town 3", "north", "south")
    )
    return pd.DataFrame({"age": age, "income": rng.lognormal(size=rows), "town": town}), y


def test_a_column_transformer_and_a_grid_choose_as_with_logistic_regression():
    x, y = table()
    searches = []
    for final in (SoftmaxClassifier(tol=1e-9), judge()):
        columns = make_column_transformer(
            (StandardScaler(), ["age", "income"]),
            (OneHotEncoder(handle_unknown="ignore"), ["town"]),  # sparse rows behind it
        )
        pipe = make_pipeline(columns, final)
        grid = {f"{type(final).__name__.lower()}__C": [0.1, 1.0, 10.0]}
        searches.append(GridSearchCV(pipe, grid, cv=3).fit(x, y))
    ours, theirs = searches
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"]
    )
    np.testing.assert_allclose(ours.predict_proba(x), theirs.predict_proba(x), atol=1e-6)


@pytest.mark.whole
def test_a_grid_in_two_processes_is_one_in_one():
    x, y = load_iris(return_X_y=True)
    scores = [
        GridSearchCV(SoftmaxClassifier(), {"l2": [1e-3, 1e-1]}, cv=2, n_jobs=jobs)
        .fit(x, y)
        .cv_results_["mean_test_score"]
        for jobs in (1, 2)
    ]
    np.testing.assert_array_equal(*scores)


def test_votes_calibration_and_cross_validation():
    x, y = load_wine(return_X_y=True)
    ours = SoftmaxClassifier(preprocessing="standardize", tol=1e-9)
    theirs = make_pipeline(StandardScaler(), judge())
    np.testing.assert_allclose(cross_val_score(ours, x, y), cross_val_score(theirs, x, y))
    np.testing.assert_allclose(
        CalibratedClassifierCV(ours, cv=3).fit(x, y).predict_proba(x),
        CalibratedClassifierCV(theirs, cv=3).fit(x, y).predict_proba(x),
        atol=1e-4,
    )
    votes = VotingClassifier([("a", ours), ("b", theirs)], voting="soft").fit(x, y)
    np.testing.assert_allclose(votes.predict_proba(x), ours.fit(x, y).predict_proba(x), atol=1e-6)


def test_sample_weights_are_routed():
    x, y = load_iris(return_X_y=True)
    c = np.random.default_rng(0).uniform(size=len(y))
    final = SoftmaxClassifier(tol=1e-9)
    with sklearn.config_context(enable_metadata_routing=True):
        final = final.set_fit_request(sample_weight=True).set_score_request(sample_weight=False)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipe = make_pipeline(scaler.set_output(transform="pandas"), final)
        pipe.fit(pd.DataFrame(x, columns=list("abcd")), y, sample_weight=c)
    alone = SoftmaxClassifier(tol=1e-9).fit(StandardScaler().fit_transform(x), y, c)
    np.testing.assert_allclose(pipe[-1].coef_, alone.coef_, atol=1e-9)
    assert pipe[-1].feature_names_in_.tolist() == list("abcd")


SETTINGS = [
    {},
    {"preprocessing": "standardize", "class_weight": "balanced"},
    {"preprocessing": "scale", "fit_intercept": False},
    {"activation": "entmax15", "label_smoothing": 0.1},
]
DATA = {"iris": load_iris, "cancer": load_breast_cancer}


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_the_module_answers_alike(name, dtype, settings):
    frame = DATA[name](as_frame=True)
    x = ((frame.data - frame.data.mean()) / frame.data.std()).astype(dtype)
    found = SoftmaxClassifier(**settings).fit(x, frame.target)
    model = found.to_lightning()
    assert model.class_names == tuple(map(str, found.classes_))
    assert model.feature_names == tuple(x.columns)
    probs = model(torch.tensor(x.to_numpy())).exp().detach().numpy()
    within = 1e-13 if dtype == "float64" else 1e-5
    np.testing.assert_allclose(probs, found.predict_proba(x), rtol=0, atol=within)


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_file_is_the_model(settings, tmp_path):
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])
    found = SoftmaxClassifier(**settings).fit(x.astype(np.float32), names[y])
    path = found.to_onnx(tmp_path / "iris.onnx", data=(x.astype(np.float32), y))
    wanted = found.predict(x.astype(np.float32))
    index = OnnxClassifier(path).predict(x.astype(np.float32))
    np.testing.assert_array_equal(found.classes_[index], wanted)


@pytest.mark.parametrize("name", DATA)
@pytest.mark.parametrize("method", ["none", "standardize", "scale"])
def test_a_checkpoint_comes_back_as_an_estimator(name, method, tmp_path):
    x, y = DATA[name](return_X_y=True)
    classes, x = y.max() + 1, torch.tensor(x, dtype=torch.float32)
    model = SoftmaxRegression(
        x.shape[1], classes, preprocessing=method, l2=0.1, optimizer=ExactSolver
    )
    trainer = Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader([(x, torch.tensor(y))], batch_size=None))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    found = SoftmaxClassifier.from_checkpoint(tmp_path / "model.ckpt")
    assert found.classes_.tolist() == [*range(classes)]
    wanted = model(x).exp().detach().numpy()
    np.testing.assert_allclose(found.predict_proba(x.numpy()), wanted, atol=2e-5)
    again = found.to_lightning()(x).exp().detach().numpy()
    np.testing.assert_allclose(again, wanted, atol=2e-5)
    rows = x.numpy().astype(float)
    warm = found.set_params(warm_start=True, tol=1e-8).fit(rows, y)
    cold = SoftmaxClassifier(l2=0.1, preprocessing=method, tol=1e-8).fit(rows, y)
    np.testing.assert_allclose(warm.predict_proba(rows), cold.predict_proba(rows), atol=1e-5)


def saved(model, path):
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, accelerator="cpu")
    trainer.strategy.connect(model)
    trainer.save_checkpoint(path)
    return path


@pytest.mark.parametrize("names", [("emu", "dog", "cat"), ("1", "2", "10"), ("1", "10", "2")])
def test_labels_of_a_checkpoint_are_sorted_as_scikit_learn_s_metrics_expect(names, tmp_path):
    x, y = load_iris(return_X_y=True)
    weights = dict(zip(names, (4.0, 1.0, 2.0), strict=True))
    model = SoftmaxRegression(4, 3, class_names=names, class_weight=weights).double()
    torch.nn.init.normal_(model.linear.weight, generator=torch.Generator().manual_seed(0))
    head = SoftmaxClassifier.from_checkpoint(saved(model, tmp_path / "model.ckpt"))
    assert (head.classes_ == np.unique(head.classes_)).all()
    model.eval()
    with torch.no_grad():
        log_probs = model(torch.tensor(x))
    labels = np.array(names, head.classes_.dtype)[y]
    nll = -log_probs[torch.arange(len(y)), torch.tensor(y)].mean()
    assert log_loss(labels, head.predict_proba(x)) == pytest.approx(float(nll), rel=1e-6)
    assert head.class_weight == {
        np.array(name, head.classes_.dtype).item(): weights[name] for name in names
    }
    assert head.to_lightning().class_names == tuple(map(str, head.classes_))


@pytest.mark.parametrize("offset", [0, 1e6, 1e8])
def test_a_checkpoint_in_float64_is_not_rounded(offset, tmp_path):
    """Accuracy was a third where features lie 10⁸ from zero."""
    x, y = load_iris(return_X_y=True)
    head = SoftmaxClassifier(l2=1e-4).fit(x + offset, y)
    path = saved(head.to_lightning(), tmp_path / "model.ckpt")
    again = SoftmaxClassifier.from_checkpoint(path)
    np.testing.assert_allclose(
        again.predict_proba(x + offset), head.predict_proba(x + offset), atol=1e-7
    )
    assert again.coef_.dtype == np.float64
    assert torch.get_default_dtype() == torch.float32


@pytest.mark.parametrize("intercept", [False, True])
def test_a_checkpoint_without_an_intercept_stays_without_one(intercept, tmp_path):
    x, y = load_iris(return_X_y=True)
    head = SoftmaxClassifier(l2=1e-2, fit_intercept=intercept).fit(x, y)
    again = SoftmaxClassifier.from_checkpoint(saved(head.to_lightning(), tmp_path / "model.ckpt"))
    assert again.fit_intercept is intercept
    np.testing.assert_allclose(again.fit(x, y).intercept_, head.intercept_, atol=1e-9)


def test_features_that_a_file_would_round_are_refused_and_the_remedy_works(tmp_path):
    x, y = load_iris(return_X_y=True)
    head = SoftmaxClassifier(l2=1e-4).fit(x + 1e8, y)
    with pytest.raises(InputError, match=r"got column 0 of X, .* preprocessing='standardize'"):
        head.to_onnx(tmp_path / "head.onnx")
    head.set_params(preprocessing="standardize").fit(x + 1e8, y).to_onnx(tmp_path / "head.onnx")
    answers = OnnxClassifier(tmp_path / "head.onnx").predict_proba(x + 1e8)
    np.testing.assert_allclose(answers, head.predict_proba(x + 1e8), atol=1e-4)


def test_an_end_far_from_the_optimum_is_no_silent_one():
    """One row far from all others, for which float32 has no digits; a tol for other units."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(40, 200))
    y = (x @ rng.normal(size=(200, 3)) + rng.gumbel(size=(40, 3))).argmax(1)
    x[3] += 1e6
    with pytest.warns(ConvergenceWarning, match="precision, and yet up to about 1 of the objec"):
        SoftmaxClassifier(l2=1e-2).fit(x.astype(np.float32), y)
    SoftmaxClassifier(l2=1e-2).fit(x, y)  # warnings are errors: float64 holds it
    x, y = load_iris(return_X_y=True)
    with pytest.warns(ConvergenceWarning, match="converged: .*, and yet up to about 1 of the obj"):
        SoftmaxClassifier(C=1e12).fit(x * 1e-6, y)
    SoftmaxClassifier(C=1.0, preprocessing="standardize").fit(x * 1e-6, y)


def test_class_weights_of_a_checkpoint_are_those_of_the_next_fit(tmp_path):
    x, y = load_iris(return_X_y=True)
    head = SoftmaxClassifier(l2=1e-2, class_weight={0: 5.0}).fit(x, y)
    again = SoftmaxClassifier.from_checkpoint(saved(head.to_lightning(), tmp_path / "model.ckpt"))
    np.testing.assert_allclose(again.fit(x, y).coef_, head.coef_, atol=1e-12)


def test_the_module_answers_alike_without_the_preprocessing_of_the_fit():
    x, y = load_iris(return_X_y=True)
    head = SoftmaxClassifier(preprocessing="standardize").fit(x, y)
    model = head.to_lightning(preprocessing="none")
    with torch.no_grad():
        found = model(torch.tensor(x)).exp()
    np.testing.assert_allclose(found, head.predict_proba(x), atol=1e-12)


def test_rows_that_a_file_is_tried_on_have_labels_as_fit_takes_them(tmp_path):
    x, y = load_iris(return_X_y=True)
    names = np.array(["cat", "emu", "dog"])[y]
    head = SoftmaxClassifier().fit(x, names)
    head.to_onnx(tmp_path / "head.onnx", data=(pd.DataFrame(x), pd.Series(names)))
    model = SoftmaxClassifier().fit(x, y + 1)  # labels that are indices as well, of other classes
    rows = rows_of(model, x[:60], y[:60] + 1)[1]
    np.testing.assert_array_equal(rows, y[:60])
    with pytest.raises(InputError, match=r"labels in data=.* got 'yak', which is none of cat, dog"):
        head.to_onnx(tmp_path / "head.onnx", data=(x[:1], ["yak"]))


def test_a_threshold_is_refused_and_the_remedy_works(tmp_path):
    model = SoftmaxRegression(3, 2, threshold=0.3, class_names=["no", "yes"])
    trainer = Trainer(logger=False, enable_checkpointing=False, max_epochs=1, barebones=True)
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=r"without a threshold, got 0\.3; give threshold=None"):
        SoftmaxClassifier.from_checkpoint(tmp_path / "model.ckpt")
    found = SoftmaxClassifier.from_checkpoint(tmp_path / "model.ckpt", threshold=None)
    assert found.classes_.tolist() == ["no", "yes"]
