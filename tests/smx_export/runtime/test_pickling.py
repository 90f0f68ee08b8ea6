"""A classifier in other processes: pickled with the file's content, whatever became of the file."""

import copy
import gc
import multiprocessing
import pickle
import warnings

import joblib
import numpy as np
import onnx
import pytest
import torch
from profiled import model_of
from tools import run_alone

from smx_export import OnnxClassifier, Profile, export_onnx
from smx_export.errors import InputRangeWarning
from smx_lightning import SoftmaxRegression

OPTIONS = {"on_nan": "missing", "on_range": "ignore"}
WAYS = {
    "pickle": lambda classifier: pickle.loads(pickle.dumps(classifier)),
    "pickle, twice": lambda classifier: pickle.loads(pickle.dumps(WAYS["pickle"](classifier))),
    **{
        f"protocol {n}": lambda classifier, n=n: pickle.loads(pickle.dumps(classifier, n))
        for n in range(2, pickle.HIGHEST_PROTOCOL + 1)
    },
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return export_onnx(model_of(input_shape=(12,)), tmp_path_factory.mktemp("m") / "m.onnx").path


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).normal(size=(50, 12)).astype(np.float32)


def answers(classifier, rows):
    answer = classifier.answer(rows)
    return answer.label.tolist(), answer.probs.tobytes(), classifier.predict_names(rows)


@pytest.mark.parametrize("way", WAYS)
def test_copies_answer_alike(path, rows, way):
    rows = np.concatenate([rows, np.full((1, 12), np.nan, np.float32)])
    original = OnnxClassifier(path, **OPTIONS)
    expected = answers(original, rows)
    assert expected[0][-1] == -1
    other = WAYS[way](original)
    assert type(other) is OnnxClassifier
    del original
    gc.collect()
    assert answers(other, rows) == expected


@pytest.mark.parametrize(
    "name",
    [
        "class_names", "num_features", "dtype", "input_shape", "trained_shape", "input_range",
        "threshold",
    ],
)  # fmt: skip
def test_copies_know_what_the_original_does(tmp_path, name):
    profile = Profile.of("image", outputs=["probs", "label"])
    model = SoftmaxRegression(16, 2, input_shape=(4, 4), class_names=["a", "ü"], threshold=0.3)
    path = export_onnx(model, tmp_path / "m.onnx", profile=profile, input_range=(0, 16)).path
    original = OnnxClassifier(path, providers=["CPUExecutionProvider"])
    for way in WAYS.values():
        assert getattr(way(original), name) == getattr(original, name)
        assert way(original).session.get_providers() == ["CPUExecutionProvider"]


@pytest.mark.parametrize("meanwhile", ["moved", "another", "damaged"])
def test_the_file_may_change_after_it_was_read(tmp_path, path, rows, meanwhile):
    own = tmp_path / "m.onnx"
    own.write_bytes(path.read_bytes())
    original = OnnxClassifier(own)
    expected = answers(original, rows)
    if meanwhile == "moved":
        own.rename(tmp_path / "elsewhere.onnx")
    elif meanwhile == "another":
        torch.manual_seed(1)
        export_onnx(SoftmaxRegression(12, 7), own)
    else:
        own.write_bytes(b"")
    for way in WAYS.values():
        assert answers(way(original), rows) == expected


def test_a_pickle_holds_the_content_and_little_more(path):
    size = path.stat().st_size
    assert size < len(pickle.dumps(OnnxClassifier(path))) < size + 3000


def test_a_warning_that_was_given_is_not_given_again(tmp_path):
    path = export_onnx(SoftmaxRegression(12, 3), tmp_path / "m.onnx", input_range=(0, 1)).path
    far = np.full((4, 12), 1e6, np.float32)
    original = OnnxClassifier(path)
    with pytest.warns(InputRangeWarning):
        pickle.loads(pickle.dumps(original)).predict(far)
    with pytest.warns(InputRangeWarning):
        original.predict(far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pickle.loads(pickle.dumps(original)).predict(far)


def test_a_subclass_keeps_what_it_adds(path, rows):
    other = pickle.loads(pickle.dumps(Own(path, "extra")))
    assert (type(other), other.extra) == (Own, "extra")
    assert answers(other, rows) == answers(OnnxClassifier(path), rows)


class Own(OnnxClassifier):
    def __init__(self, path, extra):
        super().__init__(path)
        self.extra = extra


@pytest.mark.parametrize("backend", ["loky", "threading", "multiprocessing"])
def test_joblib(path, rows, backend):
    classifier = OnnxClassifier(path)
    blocks = np.array_split(rows, 4)
    with joblib.Parallel(n_jobs=2, backend=backend) as parallel:
        found = parallel(joblib.delayed(classifier.predict_proba)(block) for block in blocks)
    if backend == "loky":
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
    np.testing.assert_array_equal(np.concatenate(found), classifier.predict_proba(rows))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_processes(path, rows, method):
    classifier = OnnxClassifier(path)
    expected = classifier.predict_proba(rows)
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(classifier.predict_proba, [rows, rows])
        pool.close()
        pool.join()
    for probs in found:
        np.testing.assert_array_equal(probs, expected)


def test_unpickling_needs_no_torch(path, tmp_path):
    pickled = tmp_path / "classifier"
    pickled.write_bytes(pickle.dumps(OnnxClassifier(path)))
    script = (
        "import pickle, sys; classifier = pickle.load(open(sys.argv[1], 'rb'));"
        "print(classifier.num_features, 'torch' in sys.modules, 'onnx' in sys.modules)"
    )
    assert run_alone(script, str(pickled)) == "12 False False\n"


def test_no_tensor_is_looked_for_in_the_current_folder(tmp_path, monkeypatch, path):
    """The content alone is opened: it could point to whatever lies where a worker is."""
    model = onnx.load(path)
    options = {"save_as_external_data": True, "location": "w", "size_threshold": 0}
    onnx.save(model, tmp_path / "m.onnx", **options)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="onnxruntime refuses"):
        OnnxClassifier("m.onnx")
