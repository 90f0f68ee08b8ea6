"""Inputs in other units than the training data: what is noticed, what is not, and the remedies."""

import functools
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import LightningDataModule
from profiled import metadata, model_of
from tools import run_alone
from torch.utils.data import DataLoader, TensorDataset

from smx_export import OnnxClassifier, OnnxExport, export_onnx
from smx_export.errors import InputRangeWarning
from smx_export.runtime.input_range import InputRange
from smx_lightning import SoftmaxRegression

MEAN, STD = 0.449, 0.226  # ImageNet's, about: pixels / 255 are standardised by them


def picture_file(folder, low, high, name="model", **options):
    shape = options.pop("input_shape", (8, 8))
    model = model_of(64, input_shape=shape, input_range=(low, high), preprocessing="none")
    with torch.no_grad():
        model.linear.weight /= 10 * (high - low)
    return export_onnx(model, folder / f"{name}.onnx", **options).path


@pytest.fixture(scope="module")
def pictures_file(tmp_path_factory):
    """The file of a range, written once."""
    folder = tmp_path_factory.mktemp("pictures")

    @functools.cache
    def pictures_file(low, high):
        return picture_file(folder, low, high, f"{low}_{high}")

    return pictures_file


@pytest.fixture(scope="module")
def digits_file(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("range")
    return export_onnx(trained, folder / "m.onnx", input_range=(0, 16)).path


@pytest.fixture(scope="module")
def images_file(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    return export_onnx(trained, folder / "m.onnx", input_range=(0, 16), profile="image").path


def noticed(classifier, x):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        classifier.predict(x)
    return [str(warning.message) for warning in found]


def pictures(low, high, rows=40, seed=0):
    """Like digits: mostly black, each with something bright."""
    share = np.random.default_rng(seed).uniform(0, 1, (rows, 8, 8)) ** 3
    return (low + (high - low) * share).astype(np.float32)


@pytest.mark.parametrize(
    ("trained_on", "units"),
    [
        ((0, 16), (0, 255)),
        ((0, 1), (0, 255)),
        ((-1, 1), (0, 255)),
        ((0, 1), (-1, 1)),
        ((0, 1), (-MEAN / STD, (1 - MEAN) / STD)),
        ((0, 255), (0, 65535)),
        ((0, 255), (0, 1)),
        ((0, 255), (-1, 1)),
        ((0, 255), (-MEAN / STD, (1 - MEAN) / STD)),
        ((0, 16), (0, 1)),
        ((0, 1), (0, 1 / 255)),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_once", [True, False])
def test_another_scale_is_noticed_once(trained_on, units, at_once, pictures_file):
    path = pictures_file(*trained_on)
    classifier, x = OnnxClassifier(path), pictures(*units)
    said = [s for part in ([x] if at_once else x[:, None]) for s in noticed(classifier, part)]
    assert len(said) == 1
    assert f"the range of the training data, {trained_on[0]:g} to {trained_on[1]:g}, got" in said[0]
    assert noticed(classifier, x) == []
    strict = OnnxClassifier(path, on_range="raise")
    with pytest.raises(ValueError, match="expected inputs in the range of the training data"):
        strict.predict(x)
    with pytest.raises(ValueError, match="expected inputs in the range of the training data"):
        strict.predict_proba(x)
    assert len(strict.predict(pictures(*trained_on))) == len(x)
    assert noticed(OnnxClassifier(path, on_range="ignore"), x) == []


@pytest.mark.parametrize("trained_on", [(0, 16), (0, 1), (-1, 1), (0, 255)], ids=str)
def test_the_training_data_s_own_units_are_not(trained_on, pictures_file):
    classifier = OnnxClassifier(pictures_file(*trained_on), on_range="raise")
    low, high = trained_on
    width = high - low
    for x in (
        pictures(*trained_on),
        pictures(low - width / 4, high + width / 30),
        np.full((40, 8, 8), low, np.float32),  # nothing is on the pictures
        pictures(*trained_on, rows=1),
        pictures(low, low + width / 20, rows=3),  # dark ones
        np.zeros((0, 64), np.float32),
    ):
        classifier.predict(x)


def test_dark_pictures_of_bytes_are_bytes(tmp_path):
    classifier = OnnxClassifier(picture_file(tmp_path, 0, 255), on_range="raise")
    classifier.predict(np.rint(pictures(0, 5)).astype(np.uint8))


def test_a_row_slightly_beyond_is_no_wolf(digits, digits_file):
    x = digits.splits.test.x.numpy().copy()
    x[0, 0, 0], x[1, 0, 0] = 16.5, -0.7
    OnnxClassifier(digits_file, on_range="raise").predict(x)


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([1, 16, 500]))
def test_new_rows_of_skewed_features_are_no_wolf(seed, count):
    """Exponential tails: new rows reach beyond the old ones' range, and fill little of it."""
    rng = np.random.default_rng(seed)
    scales = 10.0 ** rng.uniform(-3, 3, 5)
    old, new = rng.exponential(scales, (500, 5)), rng.exponential(scales, (count, 5))
    known = InputRange(old.min(), old.max(), pictures=False)
    assert known.complaint(new, new.min(), new.max()) is None


def test_features_that_are_no_pictures_are_noticed_too(tmp_path):
    path = picture_file(tmp_path, 0, 1, input_shape=(64,))
    assert noticed(OnnxClassifier(path), pictures(0, 255).reshape(-1, 64)) != []


@pytest.mark.parametrize(
    "told", [None, "null", "[]", "[1, 0]", "[0, NaN]", '"a"', "{", "[0, 1e999]"]
)
def test_a_file_whose_range_nobody_knows_is_asked_anyway(told, digits_file, tmp_path):
    import onnx

    proto = onnx.load(digits_file)
    metadata(proto, "input_range", told)
    onnx.save(proto, tmp_path / "m.onnx")
    classifier = OnnxClassifier(tmp_path / "m.onnx", on_range="raise")
    assert classifier.input_range is None
    classifier.predict(pictures(0, 255))


def test_the_remedy_for_bytes_gives_the_model_s_accuracy(digits, digits_file):
    x, y = digits.splits.test.x.numpy(), digits.splits.test.y.numpy()
    classifier = OnnxClassifier(digits_file)
    pixels = np.rint(x * 255 / 16).astype(np.uint8)
    with pytest.warns(InputRangeWarning) as found:
        wrong = (classifier.predict(pixels) == y).mean()
    (remedy,) = re.findall(r"with (numpy\.float32\(.*\))$", str(found[0].message))
    right = (classifier.predict(eval(remedy, {"numpy": np, "x": pixels})) == y).mean()
    own = (classifier.predict(x) == y).mean()
    assert own > 0.85
    assert abs(right - own) < 0.005
    assert wrong < own - 0.01


def literally(classifier, x):
    """What the sentence of the TypeError makes of x."""
    with pytest.raises(TypeError) as refused:
        classifier.predict(x)
    (remedy,) = re.findall(r"(numpy\.rint\(.*\)|x\.astype\(.*\))$", str(refused.value))
    return eval(remedy, {"numpy": np, "x": x})


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int64, np.int8])
def test_a_value_of_the_training_data_becomes_its_pixel(dtype, trained, digits, images_file):
    x, y = digits.splits.test.x.numpy(), digits.splits.test.y.numpy()
    classifier = OnnxClassifier(images_file)
    u = literally(classifier, x.astype(dtype))
    np.testing.assert_array_equal(u, np.rint(x.astype(np.float64) * 255 / 16))
    assert u.dtype == np.uint8
    own = (trained(torch.from_numpy(x)).argmax(1).numpy() == y).mean()
    assert abs((classifier.predict(u) == y).mean() - own) < 0.005
    with pytest.warns(InputRangeWarning):  # what the sentence once said
        assert (classifier.predict(x.astype(np.uint8)) == y).mean() < own - 0.5


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_pixels_of_another_dtype_stay_the_pixels_that_they_are(dtype, digits, images_file):
    pixels = np.rint(digits.splits.test.x.numpy() * 255 / 16).astype(dtype)
    u = literally(OnnxClassifier(images_file), pixels)
    np.testing.assert_array_equal(u, pixels)


@pytest.mark.parametrize("given", [(0, 255), (0, 1), (-1, 1), (-2.5, 700)], ids=str)
def test_every_range_has_its_pixels(given, tmp_path):
    path = picture_file(tmp_path, *given, profile="image")
    x = pictures(*given).astype(np.float64)
    u = literally(OnnxClassifier(path), x)
    np.testing.assert_array_equal(u, np.rint((x - given[0]) * 255 / (given[1] - given[0])))


@pytest.mark.parametrize(
    "x", [pictures(0, 65535), pictures(-900, 900), pictures(0, 1)], ids=["beyond", "below", "tiny"]
)
def test_of_values_in_unknown_units_no_pixel_is_made_up(x, images_file):
    words = "convert them into pixels from 0 to 255, of which 0 stands for 0 and 255 for 16"
    with pytest.raises(TypeError, match=words):
        OnnxClassifier(images_file).predict(x)


def test_values_of_the_training_data_as_pixels_are_noticed(digits, images_file):
    x = digits.splits.test.x.numpy().astype(np.uint8)
    (said,) = noticed(OnnxClassifier(images_file), x)
    assert "0 to 255, got pictures of nothing but 0 to 16; give pixels from 0 to 255" in said
    pixels = np.rint(x * (255 / 16)).astype(np.uint8)
    assert noticed(OnnxClassifier(images_file), pixels) == []


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.full((1, 64), 1e300), "got float64; leave out what float32 cannot hold"),
        (np.full((1, 64), "a"), "got <U1; convert them with the encoding of the training data"),
        (np.zeros((1, 64), complex), "got complex128; convert them to real numbers"),
        (np.full((1, 64), "1.5"), r"got <U3; convert them with x\.astype\(numpy\.float32\)"),
    ],
    ids=["huge", "words", "complex", "digits"],
)
def test_a_dtype_that_does_not_fit_has_a_remedy_that_works(x, words, digits_file):
    classifier = OnnxClassifier(digits_file)
    with pytest.raises(TypeError, match=words):
        classifier.predict(x)
    if "astype" in words:
        assert len(classifier.predict(x.astype(np.float32))) == 1


def test_a_missing_row_does_not_hide_the_range(digits_file):
    x = pictures(0, 255)
    x[0] = np.nan
    x[1] = np.inf
    assert len(noticed(OnnxClassifier(digits_file, on_nan="missing"), x)) == 1
    only = np.full((2, 64), np.nan, np.float32)
    assert noticed(OnnxClassifier(digits_file, on_nan="missing"), only) == []


def test_the_warning_points_at_who_asked(digits_file):
    """In a process of its own: under pytest jaxtyping stands in between."""
    script = """
import sys, warnings
import numpy
from smx_export.runtime import OnnxClassifier
for ask in ("predict", "predict_proba", "answer"):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        getattr(OnnxClassifier(sys.argv[1]), ask)(numpy.full((1, 64), 255, "float32"))
    print([warning.filename for warning in found])
"""
    assert run_alone(script, digits_file).splitlines() == ["['<string>']"] * 3


def test_of_a_large_batch_some_rows_are_looked_at_or_all_to_be_strict(digits_file):
    x = pictures(0, 16, rows=5000)
    assert len(noticed(OnnxClassifier(digits_file), pictures(0, 255, rows=5000))) == 1
    assert len(noticed(OnnxClassifier(digits_file), pictures(0, 1, rows=5000))) == 1
    assert noticed(OnnxClassifier(digits_file), x) == []
    strict = OnnxClassifier(digits_file, on_range="raise")
    strict.predict(x)
    x[4321, 1, 1] = 255
    with pytest.raises(ValueError, match=r"got entries from .* to 255; scale"):
        strict.predict(x)


@pytest.mark.parametrize("width", [1, 2**17])
def test_few_rows_of_any_width_are_told_apart(width):
    from smx_export.runtime.policy import SAMPLE, _some

    for rows in (1, 2, 15, 16, 17, 1000) if width == 1 else (1, 2, 15, 16, 17, 40):
        seen = _some(np.zeros((rows, width), np.uint8))
        assert min(rows, 16) <= len(seen) <= max(rows if rows * width <= SAMPLE else 0, 31)


class Half(SoftmaxRegression):
    """Pictures of its own making."""

    def features(self, x):
        return x.flatten(1) / 2


def test_a_backbone_s_file_knows_its_range(tmp_path):
    path = export_onnx(
        Half(64, 3, input_shape=(8, 8), input_range=(0, 1)), tmp_path / "m.onnx"
    ).path
    assert len(noticed(OnnxClassifier(path), pictures(0, 255))) == 1


# From a data module, in Python ---------------------------------------------------------------


class Knowing(LightningDataModule):
    input_range = (0.0, 16.0)

    def __init__(self, low=0.0):
        super().__init__()
        self.x = torch.linspace(low, 16, 640).reshape(10, 64)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, torch.arange(10)), batch_size=5)


class Strange(Knowing):
    input_range = None


class Passing(SoftmaxRegression):
    def __init__(self, **kwargs):
        super().__init__(**{"num_features": 64, "num_classes": 10, **kwargs})


class NotTaking(SoftmaxRegression):
    def __init__(self, num_classes: int):
        super().__init__(64, num_classes)


@pytest.mark.parametrize(
    ("model", "data", "expected"),
    [
        (lambda: SoftmaxRegression(64, 10), Knowing, (0, 16)),
        (Passing, Knowing, (0, 16)),
        (lambda: NotTaking(10), Knowing, None),
        (lambda: SoftmaxRegression(64, 10, input_range=(0, 1)), Knowing, (0, 1)),
        (lambda: SoftmaxRegression(64, 10), Strange, None),
        (lambda: SoftmaxRegression(64, 10), lambda: Knowing().train_dataloader(), None),
    ],
)
def test_a_fit_learns_the_range_from_the_data_module(
    model, data, expected, quiet_trainer, tmp_path
):
    trainer, model = quiet_trainer(callbacks=[OnnxExport(str(tmp_path / "a.onnx"))]), model()
    trainer.fit(model, data())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = type(model).load_from_checkpoint(tmp_path / "a.ckpt")
    export_onnx(loaded, tmp_path / "b.onnx")
    for told in (
        model.input_range,
        loaded.input_range,
        OnnxClassifier(tmp_path / "a.onnx").input_range,
        OnnxClassifier(tmp_path / "b.onnx").input_range,
    ):
        assert told == expected


def test_another_fit_learns_the_range_of_other_data(quiet_trainer):
    class Wider(Knowing):
        input_range = (-1.0, 32.0)

    model = SoftmaxRegression(64, 10)
    for data, expected in ((Knowing(), (0, 16)), (Wider(), (-1, 32)), (Strange(), None)):
        quiet_trainer().fit(model, data)
        assert model.input_range == expected
        assert model.hparams["input_range"] == (expected and list(expected))


def test_digits_of_python_are_pixels_from_0_to_16(digits, quiet_trainer, tmp_path):
    model = SoftmaxRegression(64, 10, input_shape=(8, 8))
    quiet_trainer(max_epochs=3).fit(model, digits)
    path = export_onnx(model, tmp_path / "m.onnx", profile="image").path
    x = digits.splits.test.x
    pixels = np.rint(x.numpy() * (255 / 16)).astype(np.uint8)
    same = OnnxClassifier(path).predict(pixels) == model.eval()(x).argmax(1).numpy()
    assert same.mean() > 0.99
