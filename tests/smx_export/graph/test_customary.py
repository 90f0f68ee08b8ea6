"""``to_onnx`` as those call it who know torch.onnx.export: taken, or refused in one sentence."""

from io import BytesIO

import convolved
import numpy as np
import onnx
import pytest
import torch
from files import model_of
from trainers import quiet_trainer

from smx_export import FileError
from smx_lightning import InputError, SoftmaxRegression


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    return model.to_onnx(tmp_path_factory.mktemp("plain") / "model.onnx").read_bytes()


AXES = {"input": {0: "batch"}, "log_probs": {0: "batch"}}


@pytest.mark.parametrize(
    "options",
    [
        {"export_params": True},
        {"input_names": ["input"], "output_names": ["log_probs", "probs"]},
        {"output_names": ["log_probs"]},
        {"dynamic_axes": AXES},
        {"dynamic_axes": {"input": [0]}},
        {"dynamic_axes": {"anything": {0: "n"}}},
        {"dynamic_axes": None, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
        {"dynamic_shapes": {"x": {0: "batch", 1: None}}},
        {"dynamic_shapes": (("batch", None),)},
        {"opset_version": 17},
        {"opset_version": None, "verbose": False, "do_constant_folding": True},
        {"keep_initializers_as_inputs": False, "external_data": False, "dynamo": True},
        {"training": torch.onnx.TrainingMode.EVAL, "verify": True, "report": False},
        {"input_sample": (torch.zeros(1, 6),)},
        {"input_sample": [np.zeros((3, 6), np.float32)]},
        {"input_sample": {"input": torch.zeros(2, 6)}},
    ],
    ids=str,
)
def test_what_asks_for_this_file_is_taken(options, model, plain, tmp_path):
    path = model.to_onnx(tmp_path / "model.onnx", **options)
    assert path.read_bytes() == plain


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"export_params": False}, "expected export_params=True (the file holds the weights), got"),
        ({"input_names": ["x"]}, "expected input_names=['input'] (so every runtime finds it), got"),
        ({"output_names": ["y"]}, "expected output_names=['log_probs', 'probs', 'scores', 'label'"),
        ({"output_names": []}, "expected output_names=["),
        ({"dynamic_axes": {"input": {1: "d"}}}, "expected dynamic_axes={'input': {0: 'batch'}}"),
        ({"dynamic_axes": {"input": [0, 1]}}, "(the batch alone is open), got [1]"),
        ({"dynamic_shapes": ({0: "n", 1: "d"},)}, "expected dynamic_shapes={'input'"),
        ({"opset_version": 11}, "expected opset_version=17 (what such a model is written in)"),
        ({"opset_version": 18}, "got 18; leave it out"),
        ({"external_data": True}, "expected external_data=False (the file is one), got True"),
        ({"dynamo": False}, "expected dynamo=True"),
        ({"training": torch.onnx.TrainingMode.TRAINING}, "expected training="),
        ({"keep_initializers_as_inputs": True}, "expected keep_initializers_as_inputs=False"),
        ({"input_sample": (torch.zeros(1, 6), torch.zeros(1, 2))}, "or a tuple of one, got tuple;"),
        ({"input_sample": torch.zeros(6)}, "got Tensor of shape (6,); give x[:1]"),
        ({"input_sample": "x"}, "expected a sample of inputs (batch, …), or a tuple of one, got"),
    ],
    ids=str,
)
def test_what_asks_for_another_file_is_refused_in_one_sentence(options, words, model, tmp_path):
    with pytest.raises(InputError) as refused:
        model.to_onnx(tmp_path / "model.onnx", **options)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_a_stream_is_written_to(model, plain):
    stream = BytesIO()
    assert model.to_onnx(stream) is None
    assert stream.getvalue() == plain


def test_a_stream_gets_nothing_of_a_model_that_is_refused(model):
    stream = BytesIO()
    with pytest.raises(FileError):
        model.to_onnx(stream, batch=0)
    assert stream.getvalue() == b""


@pytest.mark.parametrize("file", [None, 3])
def test_no_file_is_refused(file, model):
    with pytest.raises(InputError, match="expected a path, or a stream to write to, got"):
        model.to_onnx(file)


def test_an_unknown_option_is_named(model, tmp_path):
    with pytest.raises(TypeError, match="bogus"):
        model.to_onnx(tmp_path / "model.onnx", bogus=1)


def test_own_options_go_along(model, tmp_path):
    path = model.to_onnx(tmp_path / "m.onnx", (torch.zeros(1, 6),), profile="robust", batch=1)
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1


def test_the_example_of_a_model_tells_the_shape(tmp_path):
    model = SoftmaxRegression(6, 3)
    model.example_input_array = torch.zeros(1, 2, 3)
    path = model.to_onnx(tmp_path / "model.onnx")
    shape = {e.key: e.value for e in onnx.load(path).metadata_props}["input_shape"]
    assert shape == "[2, 3]"


def test_a_traced_model_has_the_opset_that_it_is_traced_in(tmp_path):
    model = convolved.Convolved()
    path = model.to_onnx(tmp_path / "model.onnx", opset_version=18)
    assert onnx.load(path).opset_import[0].version == 18
    with pytest.raises(InputError, match="expected opset_version=18"):
        model.to_onnx(tmp_path / "model.onnx", opset_version=17)


class Pair(SoftmaxRegression):
    """Two inputs by name, and an example of them."""

    def __init__(self, example=None):
        super().__init__(5, 3, input_shape={"left": (2,), "right": (3,)})
        self.example_input_array = example

    def features(self, left, right):
        return torch.cat([left, right], 1)


def named_rows():
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(6, n, generator=generator) for name, n in (("left", 2), ("right", 3))}


def test_the_example_that_lightning_summarises_is_the_exporters_too(tmp_path):
    rows = named_rows()
    model = Pair((rows,))  # Lightning calls forward(*example)
    batches = [(rows, torch.arange(6) % 3)]
    quiet_trainer(enable_model_summary=True).fit(model, torch.utils.data.DataLoader(batches, None))
    path = model.to_onnx(tmp_path / "m.onnx")
    shapes = {
        given.name: [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
        for given in onnx.load(path).graph.input
    }
    assert shapes == {"left": ["batch", 2], "right": ["batch", 3]}


@pytest.mark.parametrize(
    "sample", [torch.zeros(1, 5), (torch.zeros(1, 2), torch.zeros(1, 3)), ((torch.zeros(1, 5),),)]
)
def test_a_sample_of_several_inputs_goes_by_name(sample, tmp_path):
    with pytest.raises(InputError, match="dict of the inputs left, right, or a tuple of one"):
        Pair().to_onnx(tmp_path / "m.onnx", sample)


@pytest.mark.parametrize("options", [{"dynamic_axes": AXES}, {"dynamic_shapes": ({0: "n"},)}])
def test_an_open_batch_is_not_fixed_too(model, options, tmp_path):
    with pytest.raises(InputError, match="batch=4 fixes the rows"):
        model.to_onnx(tmp_path / "m.onnx", batch=4, **options)
    assert not (tmp_path / "m.onnx").exists()
