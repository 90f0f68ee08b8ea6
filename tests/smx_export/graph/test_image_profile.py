"""Images as they are, uint8: what the file declares, and which pixel means what to the model."""

import numpy as np
import onnx
import profiled
import pytest
import torch
from torch import nn

from smx_export import OnnxClassifier, Profile, check_parity, export_onnx
from smx_export.graph.detached import detached_copy
from smx_export.graph.inference_copy import inference_copy
from smx_export.parity.user_data import UserRows
from smx_export.targets.selftest import selftest
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import NpzDataModule

EVERYTHING = ("log_probs", "probs", "scores", "label")
RANGES = [(0, 255), (0, 1), (0, 16), (-1, 1), (-2.5, 700)]
PIXELS = "DATA_FEATURE"


def image(model, folder, outputs=EVERYTHING, names="image", **kwargs):
    profile = Profile.of(names, outputs=outputs)
    return export_onnx(model, folder / "model.onnx", profile=profile, **kwargs)


def live(model, u, low, high):
    """Log-probabilities of images in float64: the definition of what a pixel is."""
    x = torch.from_numpy(profiled.in_range(u, low, high))
    with torch.no_grad():
        return detached_copy(model).double()(x).numpy()


def agrees(path, u, truth):
    classifier = OnnxClassifier(path)
    session = classifier.session
    log_probs, probs, scores, label = session.run(list(EVERYTHING), {"input": u})
    np.testing.assert_allclose(log_probs, truth, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probs, np.exp(truth), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(profiled.log_softmax(scores), truth, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(label, truth.argmax(1))
    np.testing.assert_array_equal(classifier.predict(u), truth.argmax(1))


# What the file declares ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "denotations", "pixel_format"),
    [
        ((8, 8), [PIXELS, PIXELS], "Gray8"),
        ((1, 6, 8), ["DATA_CHANNEL", PIXELS, PIXELS], "Gray8"),
        ((3, 6, 8), ["DATA_CHANNEL", PIXELS, PIXELS], "Rgb8"),
        ((6, 8, 3), [PIXELS, PIXELS, "DATA_CHANNEL"], "Rgb8"),
        ((6, 8, 1), [PIXELS, PIXELS, "DATA_CHANNEL"], "Gray8"),
        ((12,), [""], "Gray8"),
    ],
)
def test_the_input_is_declared_an_image(shape, denotations, pixel_format, tmp_path):
    model = profiled.model_of(num_features=int(np.prod(shape)), input_shape=shape)
    proto = onnx.load(image(model, tmp_path).path)
    (given,) = proto.graph.input
    tensor = given.type.tensor_type
    assert (given.name, tensor.elem_type) == ("input", onnx.TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in tensor.shape.dim] == ["batch", *shape]
    assert given.type.denotation == "IMAGE"
    assert [dim.denotation for dim in tensor.shape.dim] == ["DATA_BATCH", *denotations]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert {key: value for key, value in metadata.items() if key.startswith("Image.")} == {
        "Image.BitmapPixelFormat": pixel_format,
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }


def test_only_an_image_file_is_declared_one(tmp_path):
    proto = onnx.load(export_onnx(profiled.model_of(), tmp_path / "model.onnx").path)
    assert proto.graph.input[0].type.denotation == ""
    assert not [e.key for e in proto.metadata_props if e.key.startswith("Image.")]


# Which pixel means what ----------------------------------------------------------------------


@pytest.mark.parametrize("given", RANGES, ids=str)
@pytest.mark.parametrize("method", ["standardize", "scale", "none"])
def test_a_pixel_is_its_share_of_the_input_range(method, given, tmp_path):
    low, high = given
    model = profiled.model_of(preprocessing=method, input_range=given)
    with torch.no_grad():  # the statistics and weights of inputs in that range
        if method == "none":
            model.linear.weight /= high - low
        else:
            model.preprocessing.scale *= high - low
        if method == "standardize":
            model.preprocessing.mean.mul_(high - low).add_(low)
    export = image(model, tmp_path)
    assert selftest(export.path).passed
    u = np.vstack([profiled.pixels(), np.zeros((1, 3, 4), np.uint8), np.full((1, 3, 4), 255, "B")])
    agrees(export.path, u, live(model, u, low, high))


def test_of_inputs_whose_range_nobody_knows_pixels_are_taken_as_they_are(tmp_path):
    model = profiled.model_of(preprocessing="none", input_range=None)
    with torch.no_grad():
        model.linear.weight /= 255
    u = profiled.pixels()
    agrees(image(model, tmp_path).path, u, live(model, u, 0, 255))


class Convolution(SoftmaxRegression):
    """A backbone of colour images, channels first."""

    def __init__(self, num_classes, **kwargs):
        super().__init__(5, num_classes, input_shape=(3, 6, 8), **kwargs)
        self.backbone = nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU())
        self.backbone.requires_grad_(False).eval()

    def features(self, x):
        return self.backbone(x).mean((2, 3))


class Sharpened(SoftmaxRegression):
    """A forward of its own, which calls no features."""

    def forward(self, x):
        return self.smx(3 * self.preprocessing(x.flatten(1)))


@pytest.mark.whole
@pytest.mark.parametrize("given", [(-1, 1), pytest.param((0, 1), marks=pytest.mark.whole)], ids=str)
def test_a_backbone_sees_the_range_it_was_trained_on(given, tmp_path):
    model = Convolution(3, input_range=given, preprocessing="standardize")
    nn.init.normal_(model.linear.weight, std=5)
    export = image(model, tmp_path, names="robust,image")
    assert check_parity(model, export.path).passed
    u = profiled.pixels(shape=(3, 6, 8))
    agrees(export.path, u, live(model, u, *given))


@pytest.mark.whole
def test_so_does_a_subclass_with_a_forward_of_its_own(tmp_path):
    model = profiled.model_of(preprocessing="none")
    model.__class__ = Sharpened
    path = image(model, tmp_path, outputs=["probs", "label"]).path
    u = profiled.pixels()
    truth = live(model, u, 0, 1)
    classifier = OnnxClassifier(path)
    np.testing.assert_allclose(classifier.predict_proba(u), np.exp(truth), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(classifier.predict(u), truth.argmax(1))


def test_the_model_itself_stays_as_it_was(tmp_path):
    model = profiled.model_of()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image(model, tmp_path, names="image,compact,robust", data=profiled.labelled(model))
    assert model.preprocessing.method == "standardize"
    assert type(model) is SoftmaxRegression
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_your_data_in_the_model_s_units_becomes_the_nearest_pixels():
    model = detached_copy(profiled.model_of(1, 2, input_shape=(1,), input_range=(-1, 1)))
    inference = inference_copy(model, Profile.of("image"))
    x = np.array([[-1.0], [1.0], [0.0], [-0.99], [-0.997], [-7.0], [7.0]], np.float32)
    pixels = UserRows.of(inference, x).x[:, 0]
    assert pixels.tolist() == [0, 255, 128, 1, 0, 0, 255]


def test_labelled_data_is_judged_as_the_nearest_pixels(tmp_path):
    """The border between the classes lies inside a pixel: rounding decides about the row."""
    model = profiled.model_of(1, 2, input_shape=(1,), preprocessing="none")
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[-1e4], [1e4]]))
        model.linear.bias.copy_(-model.linear.weight[:, 0] * 100.2 / 255)
    x = torch.tensor([[100.4], [100.6]]) / 255  # both of class 1, as they are
    report = image(model, tmp_path, data=(x, torch.tensor([0, 1]))).report
    assert report.task.model_accuracy == report.task.file_accuracy == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.int8, np.uint16])
def test_an_image_file_takes_bytes_alone(dtype, tmp_path):
    model = profiled.model_of()
    classifier = OnnxClassifier(image(model, tmp_path).path)
    u = profiled.pixels()
    np.testing.assert_array_equal(classifier.predict(u.reshape(len(u), -1)), classifier.predict(u))
    words = f"expected uint8 inputs, or a dtype that fits into it, got {np.dtype(dtype)}; convert"
    with pytest.raises(TypeError, match=words):
        classifier.predict(u.astype(dtype))


def test_an_image_is_taken_as_float32_by_other_files(tmp_path):
    model = profiled.model_of(input_range=(0, 255))
    classifier = OnnxClassifier(export_onnx(model, tmp_path / "model.onnx").path)
    u = profiled.pixels()
    np.testing.assert_array_equal(classifier.predict(u), classifier.predict(u.astype(np.float32)))


# Where the range comes from ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.array([[3, 4], [5, 6], [7, 8], [9, 9]] * 10, np.uint8), (0, 255)),
        (np.array([[-1.5, 4], [5, 6], [7, 8], [9, 2.25]] * 10, np.float32), (-1.5, 9)),
        (np.ones((40, 2), np.float32), None),
    ],
    ids=["bytes", "floats", "constant"],
)
def test_a_data_module_knows_the_range_of_its_inputs(x, expected, tmp_path):
    np.savez(tmp_path / "d.npz", x=x, y=np.arange(40) % 2)
    assert NpzDataModule(tmp_path / "d.npz").input_range == expected


@pytest.mark.parametrize("given", [(1, 0), (0, 0), (0, float("nan")), (0, float("inf")), (1,)])
def test_what_is_no_range_is_refused(given, tmp_path):
    words = r"input_range must be two finite numbers, the smaller first, got \["
    with pytest.raises(InputError, match=words):
        SoftmaxRegression(2, 2, input_range=given)
    with pytest.raises(InputError, match=words):
        export_onnx(SoftmaxRegression(2, 2), tmp_path / "model.onnx", input_range=given)
    assert not list(tmp_path.iterdir())


def test_the_range_is_told_where_the_model_does_not_know_it(tmp_path):
    told = image(profiled.model_of(input_range=None), tmp_path, input_range=(0, 1))
    content = told.path.read_bytes()
    assert content == image(profiled.model_of(), tmp_path).path.read_bytes()
    assert check_parity(profiled.model_of(input_range=None), told.path).passed  # the file knows
    assert content == image(profiled.model_of(), tmp_path, input_range=(0, 1)).path.read_bytes()
    words = r"the input range that the model knows, \(0.0, 1.0\), got \(0, 16\); leave it out"
    with pytest.raises(InputError, match=words):
        image(profiled.model_of(), tmp_path, input_range=(0, 16))
    assert told.path.read_bytes() == content


def test_a_model_of_another_range_is_another_model(tmp_path):
    path = export_onnx(profiled.model_of(), tmp_path / "model.onnx").path
    report = check_parity(profiled.model_of(input_range=(0, 16)), path)
    assert [check.name for check in report.failed] == ["input range"]


def test_checkpoints_from_before_there_was_a_range_still_load(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["hyper_parameters"].pop("input_range")
    torch.save(content, tmp_path / "old.ckpt")
    assert SoftmaxRegression.load_from_checkpoint(tmp_path / "old.ckpt").input_range is None
    path = tmp_path / "model.onnx"
    export = export_onnx(tmp_path / "old.ckpt", path, profile="image", input_range=(0, 16))
    assert export.report.passed


@pytest.mark.parametrize("shape", [(2, 2, 3, 2), (3, 1, 2, 2, 1), (1, 1), (2, 3, 4)])
def test_axes_of_which_onnx_has_no_denotation_are_given_none(shape, tmp_path):
    """Four axes and more are no image that ONNX knows; of three the last are the channels."""
    model = profiled.model_of(num_features=int(np.prod(shape)), input_shape=shape)
    path = image(model, tmp_path).path
    proto = onnx.load(path)
    (given,) = proto.graph.input
    dims = given.type.tensor_type.shape.dim
    named = {2: [PIXELS, PIXELS], 3: [PIXELS, PIXELS, "DATA_CHANNEL"]}
    wanted = ["DATA_BATCH", *named.get(len(shape), [""] * len(shape))]
    assert [dim.denotation for dim in dims] == wanted
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", *shape]
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert metadata["Image.BitmapPixelFormat"] == "Gray8"
    assert selftest(path).passed
