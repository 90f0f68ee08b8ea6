import numpy as np
import onnx
import pytest
import torch
from backbones import Backboned
from onnx import helper, numpy_helper
from tools import run_alone
from torch import nn

from smx_export import FileError, Profile, check_parity, export_onnx
from smx_export.artifact.files import metadata_of, sealed
from smx_export.graph.portable import set_metadata
from smx_export.predict import predict
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression


@pytest.fixture(scope="module")
def file(trained, tmp_path_factory):
    return export_onnx(trained, tmp_path_factory.mktemp("runtime") / "digits.onnx").path


def test_predictions_are_the_live_model_s(trained, digits, file):
    classifier = OnnxClassifier(file)
    x = digits.splits.test.x
    probs = trained(x).exp().detach().numpy()
    np.testing.assert_allclose(classifier.predict_proba(x.numpy()), probs, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(classifier.predict(x.numpy()), probs.argmax(1))
    assert classifier.class_names == digits.class_names
    assert classifier.predict_names(x[:2].numpy()) == [
        digits.class_names[k] for k in probs[:2].argmax(1)
    ]


def test_images_and_bytes_are_taken_as_they_are(digits, file):
    classifier = OnnxClassifier(file)
    x = digits.splits.test.x[:4]
    flat = classifier.predict_proba(x.flatten(1).numpy())
    np.testing.assert_array_equal(classifier.predict_proba(x.numpy().astype(np.uint8)), flat)
    np.testing.assert_array_equal(classifier.predict_proba(x[:, None].numpy()), flat)


def test_the_threshold_travels_in_the_file(tmp_path):
    model = SoftmaxRegression(1, 2, threshold=0.2)
    classifier = OnnxClassifier(export_onnx(model, tmp_path / "m.onnx").path)
    x = np.linspace(-20, 20, 101, dtype=np.float32)[:, None]
    expected = model.decide(model(torch.from_numpy(x)))
    np.testing.assert_array_equal(classifier.predict(x), expected)
    assert (classifier.predict(x) != classifier.predict_proba(x).argmax(1)).any()


def test_an_empty_batch_is_answered_with_one(file):
    assert OnnxClassifier(file).predict_proba(np.zeros((0, 64), np.float32)).shape == (0, 10)


def test_inference_imports_neither_torch_nor_lightning_nor_onnx(file):
    script = """
import sys
import numpy
from smx_export.runtime import OnnxClassifier
OnnxClassifier(sys.argv[1]).predict(numpy.zeros((1, 64), "float32"))
heavy = {"torch", "lightning", "torchmetrics", "onnx", "smx_lightning", "sklearn"}
print(sorted(heavy & set(sys.modules)))
"""
    printed = run_alone(script, file)
    assert printed.strip() == "[]"


@pytest.mark.parametrize("command", ["inspect", "predict"])
def test_inspect_and_predict_import_no_torch(command, file, tmp_path):
    np.save(tmp_path / "x.npy", np.ones((3, 64)))
    more = [str(tmp_path / "x.npy"), str(tmp_path / "out.csv")] if command == "predict" else []
    script = f"""
import sys
from smx_export.__main__ import main
assert main([{command!r}, sys.argv[1], *{more}]) == 0
print("torch" in sys.modules)
"""
    printed = run_alone(script, file)
    assert printed.splitlines()[-1] == "False"


# Rows that look right and are not ------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Files of (4, 4, 3) pictures: one takes them as such, one as flat rows, one as bytes."""
    folder = tmp_path_factory.mktemp("pictures")
    torch.manual_seed(0)
    linear = SoftmaxRegression(48, 3, input_shape=(4, 4, 3), input_range=(0, 1))
    traced = Backboned(nn.Flatten(), 48, 3, input_shape=(4, 4, 3))
    export_onnx(linear, folder / "linear.onnx")
    export_onnx(linear, folder / "bytes.onnx", profile="image")
    export_onnx(traced, folder / "traced.onnx")
    return folder


@pytest.mark.parametrize("name", ["linear", "traced", "bytes"])
def test_pictures_with_other_axes_are_refused_and_flat_ones_taken(name, pictures):
    classifier = OnnxClassifier(pictures / f"{name}.onnx", on_range="ignore")
    assert classifier.trained_shape == (4, 4, 3)
    x = np.random.default_rng(0).uniform(0, 9, (5, 4, 4, 3)).astype(classifier.dtype)
    expected = classifier.predict_proba(x)
    for other in (x.reshape(5, 48), x[:, None], x.reshape(5, 16, 3), x[..., None]):
        np.testing.assert_array_equal(classifier.predict_proba(other), expected)
    for order in [(0, 3, 1, 2), (0, 1, 3, 2)]:
        with pytest.raises(ValueError, match=r"of shape \('batch', 4, 4, 3\), got .*another order"):
            classifier.predict(x.transpose(order))
    back = x.transpose(0, 3, 1, 2).transpose(0, 2, 3, 1)  # the remedy
    np.testing.assert_array_equal(classifier.predict_proba(back), expected)


def test_what_a_mask_hides_has_no_answer(pictures):
    x = np.ma.masked_greater(np.arange(96, dtype=np.float32).reshape(2, 48), 90)
    classifier = OnnxClassifier(pictures / "linear.onnx", on_range="ignore", on_nan="missing")
    assert (classifier.predict(x) == -1).tolist() == [False, True]
    np.testing.assert_array_equal(classifier.predict(x[:1]), classifier.predict(x.data[:1]))
    with pytest.raises(ValueError, match=r"in row 1 \(1 such rows\)"):
        OnnxClassifier(pictures / "linear.onnx", on_range="ignore").predict(x)
    pixels = OnnxClassifier(pictures / "bytes.onnx", on_range="ignore")
    with pytest.raises(ValueError, match="for which uint8 has no NaN; fill them in"):
        pixels.predict(x.astype(np.uint8))
    filled = x.astype(np.uint8).filled(7)
    np.testing.assert_array_equal(pixels.predict(np.ma.asarray(filled)), pixels.predict(filled))


HOSTILE = {
    "class_names": ['["a", "b"]', "[" * 100_000, "[1, 2, 3]", "[null, null, null]", "{}"],
    "threshold": ['"abc"', "[" * 100_000, "1.5", "true", "NaN", "[[1]]"],
}


@pytest.mark.parametrize(
    ("key", "text"), [(key, text) for key, texts in HOSTILE.items() for text in texts]
)
def test_metadata_that_cannot_be_is_refused_in_one_sentence(key, text, pictures, tmp_path):
    proto = onnx.load(pictures / "linear.onnx")
    set_metadata(proto, metadata_of(proto) | {key: text})
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed(proto))
    with pytest.raises(FileError, match="export"):
        OnnxClassifier(path)
    np.save(tmp_path / "x.npy", np.ones((1, 48)))
    with pytest.raises(FileError, match="export"):
        predict(path, tmp_path / "x.npy", tmp_path / "out.csv")


@pytest.mark.parametrize("key", ["class_names", "threshold", "input_range"])
def test_nested_metadata_fail_parity_like_any_other(key, pictures, tmp_path):
    proto = onnx.load(pictures / "linear.onnx")
    set_metadata(proto, metadata_of(proto) | {key: "[" * 100_000})
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed(proto))
    live = SoftmaxRegression(48, 3, input_shape=(4, 4, 3), input_range=(0, 1))
    failed = [check.name for check in check_parity(live, path).failed]
    assert key.replace("_", " ") in failed


@pytest.mark.parametrize("text", ["[" * 100_000, f"[0, 1{'0' * 400}]", "[0]", "3"])
def test_a_range_that_is_none_ends_verification_in_one_sentence(text, pictures, tmp_path):
    proto = onnx.load(pictures / "bytes.onnx")
    set_metadata(proto, metadata_of(proto) | {"input_range": text})
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed(proto))
    with pytest.raises(FileError, match="expected an input range of two numbers") as refused:
        check_parity(SoftmaxRegression(48, 3, input_shape=(4, 4, 3)), path)
    assert len(str(refused.value)) < 200


def with_answers(path, name, make):
    """The file, whose output of that name goes through one more node."""
    proto = onnx.load(path)
    last = next(node for node in proto.graph.node if name in node.output)
    last.output[0] = "before"
    made = [numpy_helper.from_array(np.asarray(v), k) for k, v in make[0].items()]
    proto.graph.node.extend(helper.make_node("Constant", [], [t.name], value=t) for t in made)
    proto.graph.node.append(helper.make_node(*make[1], [name]))
    changed = path.with_name("changed.onnx")
    changed.write_bytes(sealed(proto))
    return changed


SEVEN = ({"seven": np.int64(7)}, ("Add", ["before", "seven"]))
BELOW = ({"seven": np.int64(7)}, ("Sub", ["before", "seven"]))
TWICE = ({"two": np.array([2, 1], np.int64)}, ("Tile", ["before", "two"]))


@pytest.mark.parametrize(
    ("output", "make", "words"),
    [
        ("label", SEVEN, "expected labels in 0..2, got 7 to 9"),
        ("label", BELOW, "expected labels in 0..2, got -7 to -5"),
        ("probs", TWICE, r"expected probs of shape \(3, 3\), got \(6, 3\)"),
    ],
    ids=["above", "below", "rows"],
)
def test_answers_that_are_none_to_the_rows_are_refused(output, make, words, tmp_path):
    model = SoftmaxRegression(3, 3)
    with torch.no_grad():
        model.linear.weight.copy_(10 * torch.eye(3))
    path = tmp_path / "labels.onnx"
    export_onnx(model, path, profile=Profile(outputs=("probs", "label")))
    classifier = OnnxClassifier(with_answers(path, output, make), on_range="ignore")
    for ask in (classifier.predict, classifier.predict_names, classifier.answer):
        with pytest.raises(ValueError, match=words):
            ask(np.eye(3, dtype=np.float32))
