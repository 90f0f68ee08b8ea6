"""One flipped bit in a checkpoint ends in a sentence, or it is the same model: never another."""

import io
import re
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.io import AsyncCheckpointIO
from sampled import whole
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

import smx_lightning.cli
from smx_export import export_onnx
from smx_export.__main__ import main
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint.content import load_plain
from smx_lightning.checkpoint.describing import settings_of
from smx_lightning.checkpoint.integrity import HASHES, with_hashes
from smx_lightning.checkpoint.writing import WholeFileIO
from smx_lightning.errors import sizes

NAMES = ["cat", "dog", "emu"]
X = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
Y = torch.arange(40) % 3


def rows():
    return DataLoader(TensorDataset(X, Y), batch_size=8)


def trained(**kwargs):
    torch.manual_seed(0)
    model = SoftmaxRegression(4, 3, preprocessing="standardize", l2=0.1, class_names=NAMES)
    trainer = quiet_trainer(**kwargs)
    trainer.fit(model, rows())
    return model, trainer


def in_older_format(content):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "good.ckpt"
    model, trainer = trained()
    model.l2 = 0.25  # set on the model that exists: only the notes tell
    trainer.save_checkpoint(path)
    return path


@pytest.fixture(scope="module")
def formats(checkpoint):
    """The same checkpoint as torch writes it, and in its format of before 2020."""
    content = torch.load(checkpoint, weights_only=True)
    return {"archive": checkpoint.read_bytes(), "older": in_older_format(content)}


def model_in(data):
    """All that decides what a model answers and how it trains on, as text."""
    model = SoftmaxRegression.load_from_checkpoint(io.BytesIO(data))
    weights = {n: (str(v.dtype), v.shape, v.tolist()) for n, v in model.state_dict().items()}
    return repr((weights, settings_of(model), dict(model.hparams)))


def damaged(data, rng):
    """With one bit or byte changed, or a few bytes zeroed, swapped or cut off."""
    at, spoilt = int(rng.integers(len(data))), bytearray(data)
    match rng.integers(8):
        case 0:
            spoilt[at] = int(rng.integers(256))
        case 1:
            spoilt[at : at + 4] = bytes(4)
        case 2:
            spoilt[at : at + 2] = spoilt[at : at + 2][::-1]
        case 3:
            del spoilt[at:]
        case _:
            spoilt[at] ^= 1 << int(rng.integers(8))
    return bytes(spoilt)


def refused_or_same(data, right):
    try:
        return "same" if model_in(data) == right else "ANOTHER MODEL"
    except InputError as error:
        return "refused" if "\n" not in str(error) else "refused on several lines"


@pytest.mark.parametrize("count", [150, whole(4000)])
@pytest.mark.parametrize("name", ["archive", "older"])
def test_damage_is_refused_or_changes_nothing(name, count, formats):
    rng, right = np.random.default_rng(count), model_in(formats["archive"])
    assert model_in(formats[name]) == right
    ends = [refused_or_same(damaged(formats[name], rng), right) for _ in range(count)]
    assert set(ends) == {"same", "refused"}
    assert ends.count("refused") > count / 2


def places(data):
    """Where in the archive the numbers of its tensors lie."""
    archive = zipfile.ZipFile(io.BytesIO(data))
    for entry in archive.infolist():
        if "/data/" in entry.filename and entry.file_size:
            lengths = struct.unpack("<HH", data[entry.header_offset + 26 :][:4])
            yield entry.header_offset + 30 + sum(lengths), entry.file_size


def test_every_bit_of_the_tensors_counts(formats):
    """Optimiser and metrics too: a run would go on from them."""
    data = formats["archive"]
    for start, size in places(data):
        for at in range(start, start + size, 7):
            spoilt = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
            with pytest.raises(InputError, match=r"damaged since, in '.*/data/\d+'; take another"):
                load_plain(io.BytesIO(spoilt))


@pytest.fixture
def flipped(checkpoint, tmp_path, monkeypatch):
    """A checkpoint with one bit of its largest tensor flipped, in the working folder."""
    monkeypatch.chdir(tmp_path)
    data = bytearray(checkpoint.read_bytes())
    weight = torch.load(checkpoint, weights_only=True)["state_dict"]["smx.0.weight"]
    data[data.index(weight.numpy().tobytes())] ^= 1
    (tmp_path / "flipped.ckpt").write_bytes(data)
    np.savez(tmp_path / "rows.npz", x=X.numpy(), y=np.array(NAMES)[Y.numpy()])
    return tmp_path / "flipped.ckpt"


def fits(path):
    trainer = quiet_trainer(max_epochs=2)
    model = SoftmaxRegression(4, 3, preprocessing="standardize", l2=0.1, class_names=NAMES)
    trainer.fit(model, rows(), ckpt_path=path)


READERS = {
    "load_from_checkpoint": SoftmaxRegression.load_from_checkpoint,
    "an open file": lambda path: SoftmaxRegression.load_from_checkpoint(io.BytesIO(open_(path))),
    "a URL": lambda path: SoftmaxRegression.load_from_checkpoint(f"file://{path}"),
    "export": lambda path: export_onnx(path, "model.onnx"),
    "fit": fits,
    "test": lambda path: quiet_trainer().test(SoftmaxRegression(4, 3), rows(), ckpt_path=path),
}


def open_(path):
    return path.read_bytes()


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_refuses_one_flipped_bit(read, flipped):
    with pytest.raises(InputError, match=r"damaged since, in '.*data/.*'; take another"):
        read(flipped)
    assert not flipped.with_name("model.onnx").exists()


DATA = "--data=smx_lightning.data.NpzDataModule --data.path=rows.npz --ckpt_path=flipped.ckpt"
COMMANDS = {
    "convert flipped.ckpt out.onnx": main,
    "verify good.onnx --checkpoint flipped.ckpt": main,
    "web flipped.ckpt site": main,
    f"fit {DATA}": smx_lightning.cli.main,
    f"test {DATA}": smx_lightning.cli.main,
    f"predict {DATA}": smx_lightning.cli.main,
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_one_flipped_bit(command, flipped, checkpoint, capsys, monkeypatch):
    export_onnx(checkpoint, "good.onnx")
    monkeypatch.setattr(sys, "argv", ["smx", *command.split()])
    try:
        code = COMMANDS[command]()
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    assert "damaged since, in" in capsys.readouterr().err.strip().splitlines()[-1]


# The hashes --------------------------------------------------------------------------------------


def saved_as(path, **changes):
    """A checkpoint that somebody has changed and saved again, so that its checksums hold."""
    content = {**torch.load(path, weights_only=True), **changes}
    torch.save({name: value for name, value in content.items() if value is not None}, path)
    return path


@pytest.fixture
def own(checkpoint, tmp_path):
    """A copy of the checkpoint."""
    path = tmp_path / "own.ckpt"
    path.write_bytes(checkpoint.read_bytes())
    return path


def moved(path, name="smx.0.weight"):
    weights = torch.load(path, weights_only=True)["state_dict"]
    return {**weights, name: weights[name] + 1}


def test_weights_that_are_not_those_that_were_saved_are_refused_and_the_remedy_works(own):
    weights = moved(own)
    saved_as(own, state_dict=weights)
    said = (
        f"expected smx.0.weight as it was saved in {own}, got another, by the SHA-256 that was "
        "noted; take another copy or an earlier checkpoint, or, if you have changed it yourself, "
        "save the checkpoint without its 'smx_lightning_sha256'"
    )
    with pytest.raises(InputError, match=re.escape(said)):
        SoftmaxRegression.load_from_checkpoint(own)
    saved_as(own, **{HASHES: None})
    model = SoftmaxRegression.load_from_checkpoint(own)
    assert torch.equal(model.linear.weight, weights["smx.0.weight"])


@pytest.mark.parametrize("name", ["class_counts", "preprocessing.scale", "preprocessing.mean_rest"])
def test_so_are_statistics(name, own):
    saved_as(own, state_dict=moved(own, name))
    with pytest.raises(InputError, match=f"expected {name} as it was saved"):
        load_plain(own)


@pytest.mark.parametrize("cast", [torch.Tensor.double, lambda v: v.reshape(-1)])
def test_another_dtype_or_shape_is_another_tensor(cast, own):
    weights = torch.load(own, weights_only=True)["state_dict"]
    saved_as(own, state_dict={**weights, "smx.0.weight": cast(weights["smx.0.weight"])})
    with pytest.raises(InputError, match=r"expected smx\.0\.weight as it was saved"):
        load_plain(own)


@pytest.mark.parametrize("hashes", ["", "[]", "{}", 7, None, [1], '{"weights": 3, "settings": 1}'])
def test_hashes_that_are_damaged_or_absent_are_no_reason_to_refuse_a_whole_archive(hashes, own):
    """The checksums speak for it; without them, in the older format, only their absence is none."""
    right = model_in(own.read_bytes())
    saved_as(own, **{HASHES: hashes})
    assert model_in(own.read_bytes()) == right
    older = in_older_format(torch.load(own, weights_only=True))
    assert refused_or_same(older, right) == ("same" if hashes is None else "refused")


def test_settings_that_somebody_changed_in_a_whole_archive_are_theirs(own):
    content = torch.load(own, weights_only=True)
    saved_as(own, hyper_parameters={**content["hyper_parameters"], "class_names": list("abc")})
    content = load_plain(own)
    with pytest.raises(InputError, match="expected settings as it was saved"):
        load_plain(io.BytesIO(in_older_format(content)))


def test_an_archive_that_was_saved_without_checksums_is_read_by_its_hashes(own, formats):
    content = torch.load(own, weights_only=True)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, own)
    finally:
        torch.serialization.set_crc32_options(True)
    right = model_in(formats["archive"])
    assert model_in(own.read_bytes()) == right
    data = bytearray(own.read_bytes())
    data[data.index(content["state_dict"]["smx.0.weight"].numpy().tobytes())] ^= 1
    with pytest.raises(InputError, match=r"expected smx\.0\.weight as it was saved"):
        load_plain(io.BytesIO(data))


def test_checkpoints_without_hashes_of_0_1_or_of_lightning_s_are_read(own, formats):
    right = model_in(formats["archive"])
    saved_as(own, **{HASHES: None})
    assert model_in(own.read_bytes()) == right


# What writes them --------------------------------------------------------------------------------


class Averaged(Callback):
    """Lets the checkpoint hold other weights than the model, as averaging of weights does."""

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        checkpoint["state_dict"] = {n: v * 2 for n, v in checkpoint["state_dict"].items()}


class Late(SoftmaxRegression):
    """Changes the weights in the checkpoint, in its own hook and behind ours."""

    def on_save_checkpoint(self, checkpoint):
        super().on_save_checkpoint(checkpoint)
        checkpoint["state_dict"] = {n: v * 2 for n, v in checkpoint["state_dict"].items()}


class Writer(AsyncCheckpointIO):
    """A writer around another one that changes the weights last of all."""

    def save_checkpoint(self, checkpoint, *args, **kwargs):
        weights = {name: value * 2 for name, value in checkpoint["state_dict"].items()}
        super().save_checkpoint({**checkpoint, "state_dict": weights}, *args, **kwargs)


CHANGED = {
    "by a callback": (SoftmaxRegression, {"callbacks": [Averaged()]}),
    "by a subclass": (Late, {}),
    "by a writer": (SoftmaxRegression, {"plugins": [Writer()]}),
    "by none, a writer of whole files": (SoftmaxRegression, {"plugins": [WholeFileIO()]}),
    "by none, in a thread": (SoftmaxRegression, {"plugins": [AsyncCheckpointIO()]}),
}


@pytest.mark.parametrize(("kind", "trainer"), CHANGED.values(), ids=CHANGED)
def test_the_hashes_are_of_what_is_written_whoever_changes_it_until_then(kind, trainer, tmp_path):
    model, trainer = kind(4, 3), quiet_trainer(**trainer)
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "own.ckpt")
    trainer.strategy.checkpoint_io.teardown()
    content = torch.load(tmp_path / "own.ckpt", weights_only=True)
    assert HASHES in content
    loaded = kind.load_from_checkpoint(tmp_path / "own.ckpt")
    factor = 1 if content["state_dict"]["smx.0.bias"].equal(model.linear.bias) else 2
    assert torch.equal(loaded.linear.weight, factor * model.linear.weight)
    # Saved again, as a Trainer does that goes on from it: the hashes are those of the new one.
    later = quiet_trainer(max_epochs=2)
    later.fit(kind(4, 3), rows(), ckpt_path=tmp_path / "own.ckpt")
    later.save_checkpoint(tmp_path / "later.ckpt")
    kind.load_from_checkpoint(tmp_path / "later.ckpt")


class Odd(SoftmaxRegression):
    """Buffers of every kind that torch saves."""

    def __init__(self, num_features, num_classes):
        super().__init__(num_features, num_classes)
        whole = torch.arange(24.0).reshape(4, 6)
        for name, buffer in {
            "expanded": torch.ones(1).expand(5),
            "strided": whole[:, ::2],
            "transposed": whole.T,
            "windows": whole.flatten().unfold(0, 6, 1),
            "empty": torch.empty(0, 3),
            "scalar": torch.tensor(3.0),
            "complex": torch.tensor([1 + 2j, 3]).conj(),
            "imaginary": torch.tensor([1 + 2j, 3]).conj().imag,
            "boolean": torch.tensor([True, False]),
            "brief": torch.ones(3, dtype=torch.bfloat16),
            "eighth": torch.ones(3).to(torch.float8_e4m3fn),
            "sparse": torch.eye(3).to_sparse(),
        }.items():
            self.register_buffer(name, buffer)

    def get_extra_state(self):
        return {"seen": 3, "tensor": torch.ones(2)}

    def set_extra_state(self, state):
        assert state["seen"] == 3


def test_no_kind_of_tensor_is_wrongly_refused(tmp_path):
    model, trainer = Odd(4, 3), quiet_trainer()
    trainer.fit(model, rows())
    trainer.save_checkpoint(tmp_path / "odd.ckpt")
    content = load_plain(tmp_path / "odd.ckpt")
    del content["state_dict"]["eighth"]  # torch cannot read it in its older format
    content.pop(HASHES)
    older = with_hashes(content)
    load_plain(io.BytesIO(in_older_format(older)))
    for name, value in model.state_dict().items():
        if name in older["state_dict"] and isinstance(value, torch.Tensor):
            assert torch.equal(older["state_dict"][name].to_dense(), value.to_dense()), name
    for name in ("complex", "windows", "scalar", "boolean", "brief"):
        changed = {**older["state_dict"], name: older["state_dict"][name].clone()}
        changed[name].view(-1)[0] = 0
        with pytest.raises(InputError, match=f"expected {name} as it was saved"):
            load_plain(io.BytesIO(in_older_format({**older, "state_dict": changed})))


def test_an_archive_that_would_fill_the_memory_is_not_inflated(own, tmp_path, monkeypatch):
    monkeypatch.setattr(sizes, "FREE", 2**26)
    with zipfile.ZipFile(tmp_path / "bomb.ckpt", "w", zipfile.ZIP_DEFLATED) as bomb:
        for name in ("data.pkl", "data/0"):
            with bomb.open(f"archive/{name}", "w") as file:
                for _ in range(40):
                    file.write(bytes(2**20))
    with pytest.raises(InputError, match=r"at most 200 times .*, got 83,886,080 bytes out of"):
        load_plain(tmp_path / "bomb.ckpt")
    small = zipfile.ZipFile(own)
    with zipfile.ZipFile(tmp_path / "small.ckpt", "w", zipfile.ZIP_DEFLATED) as again:
        for entry in small.infolist():
            again.writestr(entry.filename, small.read(entry))
    assert model_in((tmp_path / "small.ckpt").read_bytes()) == model_in(own.read_bytes())
