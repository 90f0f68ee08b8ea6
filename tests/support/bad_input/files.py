"""The folder of good and bad files that the cases go through.

The pickles in it would leave ``EXPLODED`` behind, were anything inside a file executed.
"""

import os
import pickle
import re
import zipfile

import numpy as np
import onnx
import torch
from lightning.pytorch import LightningModule, Trainer
from onnx import TensorProto, helper, numpy_helper
from torch.utils.data import DataLoader, TensorDataset

from smx_export import export_onnx
from smx_lightning import SoftmaxRegression

N, D, K = 12, 4, 3  # rows, features and classes of everything that is good here
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % K
WORDS = np.array(["cat", "dog", "emu"])[Y]
NAN, INF = float("nan"), float("inf")

SENTINEL = "EXPLODED"
QUIET = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}


class Bomb:
    """Leaves a folder behind where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (SENTINEL,)


class Halved(SoftmaxRegression):
    """A subclass: its checkpoints need --model-class."""

    def features(self, x):
        return x.flatten(1) / 2


class Alien(LightningModule):
    """Someone else's module."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(D, K)

    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**kwargs):
    return Trainer(
        max_epochs=1, accelerator="cpu", enable_checkpointing=False, **{**QUIET, **kwargs}
    )


def loader(x=X, y=Y):
    return DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=4)


def fill(shelf):
    """Write good files into a folder, and the bad ones that are made of them."""
    for name, module in (
        ("good.ckpt", SoftmaxRegression(D, K)),
        ("subclass.ckpt", Halved(D, K)),
        ("alien.ckpt", Alien()),
    ):
        fit = trainer()
        fit.fit(module, loader())
        fit.save_checkpoint(shelf / name)
    export_onnx(shelf / "good.ckpt", shelf / "good.onnx")
    np.savez(shelf / "good.npz", x=X, y=Y)
    for name in ("out.onnx", "report.json", "predictions.csv", "config.yaml"):
        (shelf / name).write_text("a good file of yesterday's\n")
    (shelf / "folder").mkdir()
    make_damaged_files(shelf)
    make_bad_checkpoints(shelf)
    make_bad_data(shelf)
    make_bad_onnx_files(shelf)


def make_damaged_files(shelf):
    for kind in ("ckpt", "npz", "onnx"):
        whole = (shelf / f"good.{kind}").read_bytes()
        (shelf / f"truncated.{kind}").write_bytes(whole[: len(whole) // 2])
        (shelf / f"empty.{kind}").touch()
        (shelf / f"text.{kind}").write_text("<html>404 Not Found</html>\n")
        (shelf / f"random.{kind}").write_bytes(np.random.default_rng(0).bytes(3000))


def make_bad_checkpoints(shelf):
    good = torch.load(shelf / "good.ckpt", weights_only=True)
    del good["smx_lightning_sha256"]  # else changed weights are refused for that alone
    weights = good["state_dict"]

    def forge(name, **changes):
        torch.save({**good, **changes}, shelf / name)

    def reweighted(value):
        return {**weights, "smx.0.weight": torch.full((K, D), value)}

    forge("bomb.ckpt", extra=Bomb())
    (shelf / "pickle.ckpt").write_bytes(pickle.dumps({"state_dict": Bomb()}))
    torch.save({"weights": weights}, shelf / "stateless.ckpt")
    torch.save(torch.zeros(3), shelf / "tensor.ckpt")
    forge("forged.ckpt", smx_lightning={})
    forge("misfit.ckpt", state_dict={**weights, "preprocessing.mean": torch.zeros(D + 3)})
    forge("nan.ckpt", state_dict=reweighted(float("nan")))
    forge("huge.ckpt", state_dict=reweighted(3e38))
    forge("one_class.ckpt", hyper_parameters={**good["hyper_parameters"], "num_classes": 1})


def make_bad_data(shelf):
    np.savez(shelf / "bomb.npz", x=np.array([Bomb()] * N, dtype=object), y=Y)
    np.savez(shelf / "bomb_y.npz", x=X, y=np.array([Bomb()] * N, dtype=object))
    np.save(shelf / "renamed.npy", X)
    (shelf / "renamed.npy").rename(shelf / "renamed.npz")
    np.savez(shelf / "wide.npz", x=np.c_[X, X[:, :1]], y=Y)
    np.savez(shelf / "named.npz", x=X, y=np.array(["cat", "dog", "emu"])[Y])
    np.savez(shelf / "negative.npz", x=X, y=Y - 2)
    np.savez(shelf / "none.npz", x=X[:0], y=Y[:0])
    np.savez(shelf / "short.npz", x=X, y=Y[:-1])
    with zipfile.ZipFile(shelf / "members.npz", "w") as archive:
        archive.writestr("x", b"no array")
        archive.writestr("y", b"no array")
    # Both headers of an entry, local and central, get the flag "encrypted".
    good = (shelf / "good.npz").read_bytes()
    headers = re.compile(rb"(PK\x03\x04..|PK\x01\x02....).", flags=re.DOTALL)
    locked = headers.sub(lambda header: header[1] + b"\x01", good)
    (shelf / "locked.npz").write_bytes(locked)
    (shelf / "bomb.yaml").write_text(f"model: !!python/object/apply:os.mkdir [{SENTINEL}]\n")


def make_bad_onnx_files(shelf):
    good = onnx.load(shelf / "good.onnx")

    def forge(name, change):
        model = onnx.ModelProto()
        model.CopyFrom(good)
        change(model)
        (shelf / name).write_bytes(model.SerializeToString())

    def weight_of(value):
        return numpy_helper.from_array(np.full((K, D), value, np.float32), "weight")

    def external(location):
        tensor = TensorProto(name="weight", dims=(K, D), data_type=TensorProto.FLOAT)
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        return tensor

    def in_a_constant(model):
        constant = helper.make_node("Constant", [], ["weight"], value=external("side.data"))
        nodes = [constant, *model.graph.node]
        del model.graph.initializer[0], model.graph.node[:]
        model.graph.node.extend(nodes)

    forge("changed.onnx", lambda model: model.graph.initializer[0].CopyFrom(weight_of(1)))
    export_onnx(SoftmaxRegression(D, K), shelf / "other.onnx")
    forge("unnamed.onnx", lambda model: model.metadata_props.clear())
    forge("misnamed.onnx", lambda model: helper.set_model_props(model, {"class_names": "a, b"}))
    forge("nonsense.onnx", lambda model: setattr(model.graph.node[0], "op_type", "Nonsense"))
    export_onnx(SoftmaxRegression(D + 1, K), shelf / "wide.onnx")
    export_onnx(SoftmaxRegression(D, K, class_names=["a", "b", "c"]), shelf / "renamed.onnx")

    # A file in one folder, its weights in another: all there, so that following them would work.
    (shelf / "box").mkdir()
    for side in (shelf / "secret.bin", shelf / "side.data", shelf / "box" / "side.data"):
        side.write_bytes(np.ones((K, D), np.float32).tobytes())
    forge(
        "box/outside.onnx",
        lambda model: model.graph.initializer[0].CopyFrom(external("../secret.bin")),
    )
    forge("box/constant.onnx", in_a_constant)
