"""What torch.compile has wrapped is exported as what it was given, byte for byte."""

import convolved
import onnx
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from trainers import quiet_trainer

from smx_export import OnnxExport, check_parity, export_onnx
from smx_lightning import InputError, SoftmaxRegression

# Of torch, about what its own compiler imports and looks at.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute"),
]
X = torch.rand(2, *convolved.SHAPE, generator=torch.Generator().manual_seed(0))


def compiled(given):
    return torch.compile(given, backend="eager")


class Host(nn.Module):
    """A module of somebody's own, with a model as a part."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(25, 6), nn.BatchNorm1d(6))
        self.head = SoftmaxRegression(6, 3)
        self.eval()

    def forward(self, x):
        return self.head(self.body(x))


def wrapped(model):
    return compiled(model)


def in_place(model):
    model.compile(backend="eager")
    return model


def twice(model):
    return compiled(compiled(model))


def a_part(model):
    model.body = compiled(model.body)
    return model


def a_part_in_place(model):
    model.body.compile(backend="eager")
    return model


def a_layer_of_a_part(model):
    model.body[1] = compiled(model.body[1])
    return model


def the_linear_layer(model):
    model.smx[0] = compiled(model.smx[0])
    return model


def a_method(model):
    model.features = compiled(model.features)
    return model


def forward(model):
    model.forward = compiled(model.forward)
    return model


def forward_alone(model):
    return compiled(model.forward)


def the_head(host):
    host.head = compiled(host.head)
    return host


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The files of the same models, which nobody compiled."""
    folder = tmp_path_factory.mktemp("plain")
    linear = SoftmaxRegression(25, 4, input_shape=convolved.SHAPE)
    files = {
        "traced": export_onnx(convolved.Convolved(), folder / "traced.onnx"),
        "hosted": export_onnx(Host(), folder / "h.onnx", head="head", input_shape=(5, 5)),
        "linear": export_onnx(linear, folder / "linear.onnx"),
    }
    return linear, {name: export.path.read_bytes() for name, export in files.items()}


@pytest.mark.parametrize(
    "change",
    [
        in_place,
        a_part,
        *(
            pytest.param(change, marks=pytest.mark.whole)
            for change in (wrapped, a_layer_of_a_part, the_linear_layer, a_method, forward)
        ),
    ],
)
def test_a_backbone_s_file_is_that_of_the_plain_model(change, plain, tmp_path):
    model = change(convolved.Convolved()).eval()
    with torch.no_grad():
        before = model(X)
    path = export_onnx(model, tmp_path / "model.onnx").path
    assert path.read_bytes() == plain[1]["traced"]
    with torch.no_grad():
        assert torch.equal(model(X), before)  # it goes on as it was


@pytest.mark.parametrize(
    "change", [wrapped, in_place, twice, the_linear_layer, a_method, forward, forward_alone]
)
def test_a_linear_model_s_file_is_the_portable_graph(change, plain, tmp_path):
    model, files = plain
    own = SoftmaxRegression(25, 4, input_shape=convolved.SHAPE)
    own.load_state_dict(model.state_dict())
    given = change(own)
    given(X)
    path = export_onnx(given, tmp_path / "model.onnx").path
    assert path.read_bytes() == files["linear"]
    if isinstance(given, nn.Module):
        assert check_parity(given, path).passed


@pytest.mark.parametrize("change", [wrapped, in_place, a_part_in_place, the_head])
def test_a_host_s_file_is_that_of_the_plain_host(change, plain, tmp_path):
    host = change(Host())
    host(X)
    path = export_onnx(host, tmp_path / "m.onnx", head="head", input_shape=(5, 5)).path
    assert path.read_bytes() == plain[1]["hosted"]


@pytest.mark.parametrize("change", [wrapped, a_part])
def test_the_callback_exports_the_best_checkpoint_of_a_compiled_model(change, tmp_path):
    model = change(convolved.Convolved(num_classes=2))
    export = OnnxExport(str(tmp_path / "model.onnx"))
    keep = ModelCheckpoint(tmp_path)
    trainer = quiet_trainer(callbacks=[export, keep], enable_checkpointing=True)
    rows = torch.utils.data.TensorDataset(torch.rand(20, 5, 5), torch.arange(20) % 2)
    trainer.fit(model, torch.utils.data.DataLoader(rows, batch_size=10))
    assert export.export.report.passed


def test_what_is_no_module_is_refused(tmp_path):
    for given in (compiled(lambda x: x), object(), None):
        with pytest.raises(InputError, match="expected a SoftmaxRegression, or a module with one"):
            export_onnx(given, tmp_path / "model.onnx")


@pytest.mark.parametrize("again", ["plain", "compiled"])
@pytest.mark.parametrize("first", ["plain", "compiled"])
def test_a_checkpoint_is_read_whatever_was_compiled_when_it_was_saved(first, again, tmp_path):
    saved, file = convolved.Convolved(), tmp_path / "saved.ckpt"
    with torch.no_grad():
        for weight in saved.body.parameters():
            weight.add_(1)
    whole, plain = saved.eval()(X), export_onnx(saved, tmp_path / "plain.onnx").path
    if first == "compiled":
        a_part(saved)
        assert any("_orig_mod" in name for name in saved.state_dict())
    trainer = quiet_trainer(max_epochs=0)
    trainer.strategy.connect(saved)
    trainer.save_checkpoint(file)
    kind = {"plain": convolved.Convolved, "compiled": Compiled}[again]
    loaded = kind.load_from_checkpoint(file).eval()
    torch.testing.assert_close(loaded(X), whole, rtol=0, atol=0)
    found = export_onnx(file, tmp_path / "f.onnx", model_class=kind).path
    assert onnx.load(found).graph == onnx.load(plain).graph


class Compiled(convolved.Convolved):
    """The same, compiled where it is made."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        a_part(self)


Compiled.__module__, Compiled.__qualname__ = "convolved", "Convolved"
Compiled.__name__ = "Convolved"
