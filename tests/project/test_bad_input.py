"""Whatever is wrong, the user reads one sentence: expected, got, remedy. And nothing is lost.

Every row of the table goes through a real entry point in a folder of good and bad files. Besides
the message, each row is held to three promises: no file that was there changes, no half-written or
temporary file stays, and nothing inside a file is executed (the pickles in the folder would leave
``EXPLODED`` behind).
"""

import gzip
import os
import pickle
import re
import resource
import shlex
import shutil
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from onnx import TensorProto, helper, numpy_helper
from torch.utils.data import DataLoader, TensorDataset

import smx_export.__main__
import smx_lightning.cli
from smx_export import FileError, OnnxClassifier, OnnxExport, check_parity, export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsCsv
from smx_lightning.data import DigitsDataModule, IdxDataModule, NpzDataModule

N, D, K = 12, 4, 3  # rows, features and classes of everything that is good here
X = np.random.default_rng(0).normal(size=(N, D)).astype(np.float32)
Y = np.arange(N) % K

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


# The folder of files -----------------------------------------------------------------------------


def trainer(**kwargs):
    return Trainer(
        max_epochs=1, accelerator="cpu", enable_checkpointing=False, **{**QUIET, **kwargs}
    )


def loader(x=X, y=Y):
    return DataLoader(TensorDataset(torch.as_tensor(x), torch.as_tensor(y)), batch_size=4)


@pytest.fixture(scope="session")
def shelf(tmp_path_factory):
    """Good files, and the bad ones that are made of them."""
    shelf = tmp_path_factory.mktemp("shelf")
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
    return shelf


def make_damaged_files(shelf):
    for kind in ("ckpt", "npz", "onnx"):
        whole = (shelf / f"good.{kind}").read_bytes()
        (shelf / f"truncated.{kind}").write_bytes(whole[: len(whole) // 2])
        (shelf / f"empty.{kind}").touch()
        (shelf / f"text.{kind}").write_text("<html>404 Not Found</html>\n")
        (shelf / f"random.{kind}").write_bytes(np.random.default_rng(0).bytes(3000))


def make_bad_checkpoints(shelf):
    good = torch.load(shelf / "good.ckpt", weights_only=True)
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
    np.savez(shelf / "negative.npz", x=X, y=Y - 1)
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


# What the rows do --------------------------------------------------------------------------------

RUN = (
    "--trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false"
)
NPZ = "--data=smx_lightning.data.NpzDataModule --data.path"
IDX = "--data=smx_lightning.data.IdxDataModule --data.path"


def train(command):
    """``smx-lightning COMMAND``."""
    return lambda: smx_lightning.cli.main(shlex.split(command))


def ship(command):
    """``smx-export COMMAND``."""
    return lambda: smx_export.__main__.main(shlex.split(command))


def save(**arrays):
    """The good arrays with some replaced, or absent where None."""
    whole = {"x": X, "y": Y, **arrays}
    np.savez("bad.npz", **{name: array for name, array in whole.items() if array is not None})


def fit(options="", **arrays):
    """``smx-lightning fit`` on these arrays."""
    return lambda: save(**arrays) or train(f"fit {RUN} {NPZ}=bad.npz {options}")()


def fit_file(name, options=""):
    """``smx-lightning fit`` on a file of the folder."""
    return train(f"fit {RUN} {NPZ}={name} {options}")


def npz(**arrays):
    """``NpzDataModule`` on these arrays."""
    return lambda: save(**arrays) or NpzDataModule("bad.npz").splits


def npz_file(name):
    """``NpzDataModule`` on a file of the folder."""
    return lambda: NpzDataModule(name).splits


def idx_bytes(array, code=0x08):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.tobytes()


IMAGES, LABELS = idx_bytes(np.zeros((N, 2, 2), np.uint8)), idx_bytes(Y.astype(np.uint8))
COLUMN = idx_bytes(Y.astype(np.uint8)[:, None])


def idx(suffix="", class_names=None, **parts):
    """``IdxDataModule`` on four good files with some replaced, or absent where None."""

    def action():
        folder = Path("idx")
        folder.mkdir()
        for part in ("train", "t10k"):
            for kind, good in (("images-idx3", IMAGES), ("labels-idx1", LABELS)):
                name = f"{part}_{kind[:6]}"
                content = parts.get(name, good)
                if content is not None:
                    ending = suffix if name in parts else ""
                    (folder / f"{part}-{kind}-ubyte{ending}").write_bytes(content)
        return IdxDataModule(folder, class_names).splits

    return action


def foreign(x=X, y=Y, **arguments):
    """``Trainer.fit`` on somebody's own DataLoader."""
    return lambda: trainer().fit(SoftmaxRegression(D, K, **arguments), loader(x, y))


def model(num_features=D, num_classes=K, **arguments):
    """Constructing the module."""
    return lambda: SoftmaxRegression(num_features, num_classes, **arguments)


def classify(x):
    """``OnnxClassifier.predict`` on the good file."""
    return lambda: OnnxClassifier("good.onnx").predict(x)


def parity(*data):
    """``check_parity`` of the good file on some data."""
    return lambda: check_parity(SoftmaxRegression(D, K), "good.onnx", data)


def on_a_full_disk(action):
    """Run it where no file may grow beyond 64 bytes.

    Permissions do not bind root, nor is there a small disk to fill; the kernel's limit on the size
    of a file binds everyone, and fails in write() like a full disk, with EFBIG in place of ENOSPC.
    """

    def limited():
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
        try:
            return action()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


def changed(value, row=3, array=X):
    """The array with one entry replaced."""
    array = array.copy()
    array.flat[row * array[0].size] = value
    return array


NAN, INF = float("nan"), float("inf")
WORDS = np.array(["cat", "dog", "emu"])[Y]
BAD, FAILED = 2, 1  # exit codes
USAGE = SystemExit  # the parser's own exit, with code 2
CONVERT = "convert good.ckpt out.onnx"
VERIFY = "verify good.onnx --checkpoint good.ckpt"
PREDICT = f"predict {RUN} {NPZ}=good.npz --ckpt_path=good.ckpt"
# Nobody, root included, can create files in /sys or /proc.
DENIED = "choose a folder that exists, is writable and has room"
DISK = "check the path, its permissions and the room on the disk"

# One row a case: its name, what is done, how it ends, and the message ("…" stands for anything).
# fmt: off
CASES = [
    # Data: labels
    ("label beyond the class names", fit("--data.class_names=[a,b]"), BAD,
     "expected labels in 0..1, or 2 different ones, for the 2 class_names, got 3 different ones in "
     "y: 0, 1, 2; name as many classes, or leave class_names out"),
    ("negative label in the test rows", npz(x_test=X, y_test=Y - 1), InputError,
     "expected labels in y_test among the 3 training classes, got -1; a class must occur in y"),
    ("float labels", npz(y=Y.astype(float)), InputError,
     "y must hold integers or strings, got dtype float64; where its numbers are whole, save "
     "y.astype(int)"),
    ("bytes as labels", npz(y=WORDS.astype("S")), InputError,
     "y must hold integers or strings, got dtype |S3"),
    ("one-hot labels", npz(y=np.eye(K, dtype=int)[Y]), InputError,
     "y must have shape (rows,), got (12, 3); one label a row"),
    ("unseen string in y_test", npz(y=WORDS, x_test=X[:1], y_test=np.array(["yak"])), InputError,
     "expected labels in y_test among the 3 training classes, got 'yak'; a class must occur in y"),
    ("one class only", fit(y=0 * Y), BAD,
     "expected labels of at least 2 classes, got only ('0',); there is nothing to tell apart"),
    ("one class only, a string", npz(y=np.full(N, "cat")), InputError,
     "expected labels of at least 2 classes, got only ('cat',); there is nothing to tell apart"),

    # Data: features
    ("NaN features", fit(x=changed(NAN)), BAD,
     "expected finite features, got NaN or infinity in row 3 of the train rows (1 such rows); "
     "remove or impute them"),
    ("infinite features", npz(x=changed(-INF)), InputError,
     "expected finite features, got NaN or infinity in row 3 of the train rows"),
    ("NaN in the validation rows", npz(x_val=changed(NAN), y_val=Y), InputError,
     "expected finite features, got NaN or infinity in row 3 of the val rows"),
    ("features beyond float32", npz(x=changed(1e300, array=X.astype(float))), InputError,
     "expected finite features, got NaN or infinity in row 3 of the train rows"),
    ("x of strings", npz(x=X.astype(str)), InputError,
     "x must hold real numbers, got dtype <U…; encode other features as numbers first"),
    ("complex x", npz(x=X.astype(complex)), InputError,
     "x must hold real numbers, got dtype complex128; encode other features as numbers first"),
    ("x of one dimension", npz(x=X[:, 0]), InputError,
     "x must have shape (rows, …) with at least 2 dimensions, got (12,); reshape a single feature"
     " with x[:, None]"),
    ("no features", npz(x=X[:, :0]), InputError,
     "expected at least one feature, got inputs of shape (0,)"),
    ("test rows of another width", npz(x_test=X[:, :2], y_test=Y), InputError,
     "expected test inputs of shape (4,) like the training inputs, got (2,)"),

    # Data: rows
    ("empty data", fit(x=X[:0], y=Y[:0]), BAD,
     "expected at least one row in the train rows, got none"),
    ("more inputs than labels", npz(y=Y[:-1]), InputError,
     "expected as many labels as inputs in the train rows, got 11 labels for 12 inputs"),
    ("too few rows to split", fit(x=X[:3], y=Y[:3]), BAD,
     "expected enough rows to split off a test set, got 3 rows for test_fraction=0.2…; give more "
     "rows, a larger fraction, or the split"),

    # Data: the .npz file
    ("npz without x", npz(x=None), InputError,
     "expected both x and y in bad.npz, found y; save them with numpy.savez(path, x=…, y=…)"),
    ("npz without y", npz(y=None), InputError,
     "expected both x and y in bad.npz, found x; save them with numpy.savez(path, x=…, y=…)"),
    ("npz with x_val, without y_val", npz(x_val=X), InputError,
     "expected both x_val and y_val in bad.npz, found x, y, x_val; save them with numpy.savez("),
    ("npz with y_test, without x_test", npz(y_test=Y), InputError,
     "expected both x_test and y_test in bad.npz, found x, y, y_test; save them with numpy.savez("),
    ("npz of pickled inputs", fit_file("bomb.npz"), BAD,
     "expected plain arrays in bomb.npz, got pickled objects in x, which could run code; save"),
    ("npz of pickled labels", npz_file("bomb_y.npz"), InputError,
     "expected plain arrays in bomb_y.npz, got pickled objects in y, which could run code; save"),
    ("missing npz", fit_file("absent.npz"), BAD,
     "expected a data file at absent.npz, found none; check the path"),
    ("npz that is a folder", npz_file("folder"), InputError,
     "expected a data file at folder, found none; check the path"),
    ("npz that is a text", fit_file("text.npz"), BAD,
     "expected an .npz file, got one that is no whole zip archive at text.npz; save it again with "
     "numpy.savez"),
    ("npz of random bytes", npz_file("random.npz"), InputError,
     "expected an .npz file, got one that is no whole zip archive at random.npz; save it"),
    ("npz that is empty", npz_file("empty.npz"), InputError,
     "expected an .npz file, got one that …at empty.npz; save it again"),
    ("npz cut short", npz_file("truncated.npz"), InputError,
     "expected an .npz file, got one that …at truncated.npz; save it"),
    ("npz that is an npy", npz_file("renamed.npz"), InputError,
     "expected an .npz file with x and y, got a single array in renamed.npz; save it with "
     "numpy.savez(path, x=…, y=…)"),
    ("npz with members that are no arrays", npz_file("members.npz"), InputError,
     "expected an .npz file, got one …at members.npz; save it again with numpy.savez"),
    ("npz with a password", npz_file("locked.npz"), InputError,
     "expected an .npz file, got one that numpy cannot read (…encrypted…) at locked.npz; save it"),

    # Data: IDX files
    ("missing IDX folder", train(f"fit {RUN} {IDX}=absent"), BAD,
     "expected the IDX file train-images-idx3-ubyte or train-images-idx3-ubyte.gz in absent, found "
     "neither; point path at a folder of MNIST-family files"),
    ("missing IDX file", idx(t10k_labels=None), InputError,
     "expected the IDX file t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz in idx, found "),
    ("IDX cut short", idx(train_images=IMAGES[:-5]), InputError,
     "expected 64 bytes for shape (12, 2, 2), got 59 in idx/train-images-idx3-ubyte; the file is "
     "truncated or damaged: fetch it again"),
    ("IDX cut in its sizes", idx(train_images=IMAGES[:6]), InputError,
     "expected …, got 6 …in idx/train-images-idx3-ubyte; the file is truncated or damaged: fetch"),
    ("IDX too long", idx(t10k_labels=LABELS + b"!"), InputError,
     "expected 20 bytes for shape (12,), got 21 in idx/t10k-labels-idx1-ubyte; the file is "),
    ("IDX that is a text", idx(train_images=b"<html>404"), InputError,
     "expected an IDX file, which begins with two zero bytes, got 3c68746d in "
     "idx/train-images-idx3-ubyte; it may be another format"),
    ("IDX that is empty", idx(train_labels=b""), InputError,
     "expected an IDX file, which begins with two zero bytes, got none in "),
    ("IDX of floats", idx(train_images=idx_bytes(X, 0x0D)), InputError,
     "expected IDX data of unsigned bytes (type 0x08), got type 0x0d in "
     "idx/train-images-idx3-ubyte; save it as an .npz file and use NpzDataModule"),
    ("IDX with too few labels", idx(train_labels=idx_bytes(Y[:7].astype("u1"))), InputError,
     "expected as many labels as inputs in the train rows, got 7 labels for 12 inputs"),
    ("IDX labels of two dimensions", idx(train_labels=COLUMN), InputError,
     "expected labels of shape (n,) in idx, n > 0, got (12, 1)"),
    ("IDX test labels of two dimensions", idx(t10k_labels=COLUMN), InputError,
     "expected labels of shape (n,) in idx, n > 0, got (12, 1)"),
    ("IDX images of one dimension", idx(train_images=LABELS, t10k_images=LABELS), InputError,
     "expected images of shape (n, …) in idx, got (12,)"),
    ("IDX without images", idx(train_images=idx_bytes(np.zeros((0, 2, 2), "u1")),
                               train_labels=idx_bytes(np.zeros(0, "u1"))), InputError,
     "expected labels of shape (n,) in idx, n > 0, got (0,)"),
    ("IDX with fewer names than labels", idx(class_names=["a", "b"]), InputError,
     "expected labels in 0..1, or 2 different ones, for the 2 class_names, got 3 different ones in "
     "the train labels: 0, 1, 2; name as many"),
    ("gz that is no gz", idx(suffix=".gz", train_images=IMAGES), InputError,
     "expected gzip data, got a file that begins with 0000 in idx/train-images-idx3-ubyte.gz; if "
     "it is not compressed, take .gz off its name"),
    ("gz cut short", idx(suffix=".gz", train_images=gzip.compress(IMAGES)[:-9]), InputError,
     "expected whole gzip data in idx/train-images-idx3-ubyte.gz, got …; the file is truncated or "
     "damaged: fetch it again"),
    ("gz with a wrong checksum",
     idx(suffix=".gz", train_images=gzip.compress(IMAGES)[:-8] + bytes(8)), InputError,
     "expected whole gzip data in idx/train-images-idx3-ubyte.gz, got CRC check failed…; the file"
     " is truncated or damaged: fetch it again"),

    # Somebody's own DataLoader
    ("loader with NaN, no preprocessing", foreign(changed(NAN)), InputError,
     "the training loss became nan in epoch 0: expected finite features and a step that converges;"
     " look for NaN or infinite values in the data, standardise it, or lower the learning rate"),
    ("loader with infinity, no preprocessing", foreign(changed(INF)), InputError,
     "the training loss became nan in epoch 0: expected finite features and a step that converges"),
    ("loader with NaN, standardised", foreign(changed(NAN), preprocessing="standardize"),
     InputError, "expected finite features, got NaN or infinity in feature 0 of the training data; "
     "remove or impute such rows"),
    ("loader with infinity, scaled", foreign(changed(INF), preprocessing="scale"), InputError,
     "expected finite features, got NaN or infinity in feature 0 of the training data"),
    ("loader with a label too large", foreign(y=Y + 1), InputError,
     "labels must lie in 0..2, got 3 in the train batches; number the classes from 0"),
    ("loader with a negative label", foreign(y=Y - 1), InputError,
     "labels must lie in 0..2, got -1 in the train batches; number the classes from 0"),
    ("loader with a label too large, standardised",
     foreign(y=Y + 1, preprocessing="standardize"), InputError,
     "labels must lie in 0..2, got 3 in the training batches; number the classes from 0"),
    ("loader with float labels", foreign(y=Y.astype(np.float32)), InputError,
     "labels must be integers of shape (n,), got float32 of shape (4,) in the train batches; "),
    ("loader with one-hot labels", foreign(y=np.eye(K, dtype=int)[Y]), InputError,
     "labels must be integers of shape (n,), got int64 of shape (4, 3) in the train batches; "),
    ("loader with float labels, standardised",
     foreign(y=Y.astype(np.float32), preprocessing="standardize"), InputError,
     "labels must be integers of shape (n,), got float32 of shape (4,) in the training batch"),
    ("loader with too many features", foreign(np.c_[X, X]), InputError,
     "expected 4 features a row, got 8 (shape (4, 8)); num_features must match the data"),
    ("loader with too many features, standardised",
     foreign(np.c_[X, X], preprocessing="standardize"), InputError,
     "expected 4 features a row, got 8 (shape (4, 8)); num_features must match the data"),
    ("loader without an example of a class", foreign(y=Y % 2, class_weight="balanced"), InputError,
     "class_weight='balanced' needs a training sample of every class, got none of '2'; give the "
     "weights as a list or drop the class"),
    ("OnnxExport on another module",
     lambda: trainer(callbacks=[OnnxExport("out.onnx")]).fit(Alien(), loader()), InputError,
     "OnnxExport expected a SoftmaxRegression or a subclass, got Alien; take the callback out"),

    # Arguments
    ("num_classes 1", model(num_classes=1), InputError, "num_classes must be at least 2, got 1"),
    ("num_features 0", model(num_features=0), InputError, "num_features must be at least 1, got 0"),
    ("too few class names", model(class_names=["a", "b"]), InputError,
     "class_names must hold 3 different names, one a class, got ['a', 'b']"),
    ("a class name twice", model(class_names=["a", "b", "a"]), InputError,
     "class_names must hold 3 different names, one a class, got ['a', 'b', 'a']"),
    ("data names a class twice", fit("--data.class_names=[a,a,b]"), BAD,
     "class_names must hold 3 different names, one a class, got ['a', 'a', 'b']"),
    ("l2 negative", fit("--model.l2=-1"), BAD,
     "l2 must be a finite number of at least 0, got -1.0"),
    ("l2 NaN", model(l2=NAN), InputError, "l2 must be a finite number of at least 0, got nan"),
    ("l2 infinite", model(l2=INF), InputError, "l2 must be a finite number of at least 0, got inf"),
    ("unknown preprocessing", model(preprocessing="whiten"), InputError,
     "preprocessing must be one of none, standardize, scale, got 'whiten'"),
    ("unknown preprocessing on the command line", fit("--model.preprocessing=whiten"), USAGE,
     "Expected a typing.Literal['none', 'standardize', 'scale']. Got value: whiten"),
    ("threshold with 3 classes", fit("--model.threshold=0.4"), BAD,
     "threshold must lie between 0 and 1 and needs num_classes=2, got threshold=0.4 with "
     "num_classes=3"),
    ("threshold out of range", fit("--model.threshold=1.5", y=Y % 2), BAD,
     "threshold must lie between 0 and 1 and needs num_classes=2, got threshold=1.5"),
    ("threshold NaN", model(num_classes=2, threshold=NAN), InputError,
     "threshold must lie between 0 and 1 and needs num_classes=2, got threshold=nan"),
    ("class_weight of an unknown class", fit('''--model.class_weight='{"yak": 2}' ''', y=WORDS),
     BAD, "class_weight names the unknown class 'yak'; expected some of: cat, dog, emu"),
    ("class_weight too short", fit("--model.class_weight=[1,2]"), BAD,
     "class_weight must hold 3 weights, one a class, got 2"),
    ("class_weight negative", fit("--model.class_weight=[1,-2,1]"), BAD,
     "class_weight must hold positive, finite weights, got [1.0, -2.0, 1.0]"),
    ("class_weight NaN", model(class_weight=[1, NAN, 1]), InputError,
     "class_weight must hold positive, finite weights, got [1.0, nan, 1.0]"),
    ("class_weight zero", model(class_weight={"0": 0}), InputError,
     "class_weight must hold positive, finite weights, got [0.0, 1.0, 1.0]"),
    ("class_weight of another string", model(class_weight="balance"), InputError,
     "class_weight must be None, 'balanced', one weight a class or a dict, got 'balance'"),
    ("class_weight of strings", model(class_weight=["a", "b", "c"]), InputError,
     "class_weight must hold positive, finite weights, got ['a', 'b', 'c']"),
    ("class_weight balanced with an absent class",
     foreign(y=0 * Y, class_weight="balanced"), InputError,
     "class_weight='balanced' needs a training sample of every class, got none of '1'; give the "
     "weights as a list or drop the class"),
    ("batch_size 0", fit("--data.batch_size=0"), BAD, "batch_size must be at least 1, got 0"),
    ("val_fraction 0", fit("--data.val_fraction=0"), BAD,
     "val_fraction must lie between 0 and 1, got 0"),
    ("test_fraction 1.5", lambda: NpzDataModule("good.npz", test_fraction=1.5), InputError,
     "test_fraction must lie between 0 and 1, got 1.5"),
    ("val_fraction NaN", lambda: DigitsDataModule(val_fraction=NAN), InputError,
     "val_fraction must lie between 0 and 1, got nan"),
    ("forward with too many features", lambda: SoftmaxRegression(D, K)(torch.zeros(2, 5)),
     InputError, "expected 4 features a row, got 5 (shape (2, 5)); num_features must match"),
    ("forward without a batch dimension", lambda: SoftmaxRegression(D, K)(torch.zeros(D)),
     InputError, "expected inputs of shape (batch, …), got (4,); add a batch dimension with "
     "x[None]"),

    # Checkpoints
    ("missing checkpoint", ship("convert absent.ckpt out.onnx"), BAD,
     "expected a checkpoint at absent.ckpt, found none; check the path"),
    ("missing checkpoint, from Python", lambda: export_onnx("absent.ckpt", "out.onnx"), InputError,
     "expected a checkpoint at absent.ckpt, found none; check the path"),
    ("checkpoint that is a folder", ship("convert folder out.onnx"), BAD,
     "expected a checkpoint at folder, found none; check the path"),
    ("checkpoint of another module", ship("convert alien.ckpt out.onnx"), BAD,
     "expected a checkpoint of SoftmaxRegression or a subclass at alien.ckpt, got one of another "
     "module; export it with the tools of its own project"),
    ("checkpoint of a subclass", ship("convert subclass.ckpt out.onnx"), BAD,
     "expected a checkpoint of smx_lightning.module.SoftmaxRegression, got one of "
     "…test_bad_input.Halved in subclass.ckpt; name the class with --model-class "
     "…test_bad_input:Halved"),
    ("model class that cannot be imported", ship(f"{CONVERT} --model-class absent:Net"), BAD,
     "expected --model-class MODULE:CLASS, got 'absent:Net' (No module named 'absent'); run where "
     "MODULE can be imported"),
    ("model class that is not there", ship(f"{CONVERT} --model-class smx_lightning:Net"), BAD,
     "expected --model-class MODULE:CLASS, got 'smx_lightning:Net' (module 'smx_lightning' has no "
     "attribute 'Net'); run where MODULE can be imported"),
    ("model class without a module", ship(f"{CONVERT} --model-class Net"), BAD,
     "expected --model-class MODULE:CLASS, got 'Net' (No module named 'Net'); run where"),
    ("model class of a relative module", ship(f"{CONVERT} --model-class .net:Net"), BAD,
     "expected --model-class MODULE:CLASS, got '.net:Net' (…); run where MODULE can be imported"),
    ("model class that is no subclass", ship(f"{CONVERT} --model-class smx_lightning:InputError"),
     BAD, "expected a subclass of SoftmaxRegression, got 'smx_lightning:InputError'"),
    ("checkpoint that is a text", ship("convert text.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at text.ckpt, got a file that torch cannot read; it may be "
     "truncated or of another kind"),
    ("checkpoint of random bytes", ship("convert random.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at random.ckpt, got a file that torch cannot read; it"),
    ("checkpoint that is empty", ship("convert empty.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at empty.ckpt, got a file that torch cannot read; it"),
    ("checkpoint cut short", ship("convert truncated.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at truncated.ckpt, got a file that torch cannot read; it"),
    ("checkpoint that would run code", ship("convert bomb.ckpt out.onnx"), BAD,
     "expected a checkpoint of plain data at bomb.ckpt, got a file that torch will not load without"
     " running code from it; save it again with smx_lightning"),
    ("pickle that would run code", ship("convert pickle.ckpt out.onnx"), BAD,
     "expected a …heckpoint …at pickle.ckpt, got a file that torch …"),
    ("verify by a checkpoint that would run code",
     ship("verify good.onnx --checkpoint bomb.ckpt"), BAD,
     "expected a checkpoint of plain data at bomb.ckpt, got a file that torch will not load"),
    ("test of a checkpoint that would run code",
     train(f"test {RUN} {NPZ}=good.npz --ckpt_path=bomb.ckpt"), BAD,
     "expected a checkpoint of plain data at bomb.ckpt, got a file that torch will not load"),
    ("checkpoint without state_dict", ship("convert stateless.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at stateless.ckpt, got a torch file without a state_dict; "
     "save one with trainer.save_checkpoint"),
    ("checkpoint that is a tensor", ship("convert tensor.ckpt out.onnx"), BAD,
     "expected a Lightning checkpoint at tensor.ckpt, got a torch file without a state_dict; save"),
    ("checkpoint with half its notes", ship("convert forged.ckpt out.onnx"), BAD,
     "expected a checkpoint of SoftmaxRegression or a subclass at forged.ckpt, got one of another"),
    ("checkpoint whose shapes do not fit", ship("convert misfit.ckpt out.onnx"), BAD,
     "expected a checkpoint …, got…size mismatch for preprocessing.mean…; was the class changed "
     "since it was saved?"),
    ("checkpoint of one class", ship("convert one_class.ckpt out.onnx"), BAD,
     "num_classes must be at least 2, got 1"),
    ("checkpoint of NaN weights", ship("convert nan.ckpt out.onnx"), BAD,
     "expected finite weights, got NaN or infinity in smx.0.weight; train the model again"),
    ("weights beyond float32", ship("convert huge.ckpt out.onnx"), FAILED,
     "the ONNX file is not the model: NaN and infinity: …log_probs is not finite where "
     "the answer is"),
    ("resume from a missing checkpoint", fit("--ckpt_path=absent.ckpt"), BAD,
     "expected a checkpoint at absent.ckpt, found none; check the path"),
    ("resume from another module's", fit("--ckpt_path=alien.ckpt"), BAD,
     "expected a checkpoint of SoftmaxRegression or a subclass at alien.ckpt, got one of another "),
    ("test on data of another width",
     train(f"test {RUN} {NPZ}=wide.npz --ckpt_path=good.ckpt"), BAD,
     "expected a checkpoint of 5 features and 3 classes, …got one of 4 features and 3 classes; "),
    ("test on data of other classes",
     train(f"test {RUN} {NPZ}=named.npz --ckpt_path=good.ckpt"), BAD,
     "expected a checkpoint of the classes ['cat', 'dog', 'emu'], …got one of ['0', '1', '2']; "),
    ("test of the best of no training", train(f"test {RUN} {NPZ}=good.npz --ckpt_path=best"), BAD,
     '`.test(ckpt_path="best")` is set but `ModelCheckpoint` is not configured to save the best'),

    # ONNX files
    *((f"{what}: {name}", act(file), outcome, message)
      for name, file, message in [
          ("missing", "absent.onnx", "expected an ONNX file at absent.onnx, found none; check the"),
          ("a folder", "folder", "expected an ONNX file at folder, found none; check the path"),
          ("truncated", "truncated.onnx",
           "expected an ONNX …at truncated.onnx, got …pars…; …export it again"),
          ("random bytes", "random.onnx",
           "expected an ONNX …at random.onnx, got …pars…export it again"),
          ("a text", "text.onnx", "expected an ONNX …at text.onnx, got …pars…export it again"),
          ("empty", "empty.onnx", "expected an ONNX model at empty.onnx, got …graph…; export it"),
          ("an unknown operator", "nonsense.onnx",
           "expected …ONNX model at nonsense.onnx, got…Nonsense…; export it again"),
          ("data outside its folder", "box/outside.onnx",
           "expected …ONNX …at box/outside.onnx, got …weight…; …"),
      ]
      for what, act, outcome in [
          ("inspect", lambda file: ship(f"inspect {file}"), BAD),
          ("verify", lambda file: ship(f"verify {file} --checkpoint good.ckpt"), BAD),
          ("OnnxClassifier", lambda file: lambda: OnnxClassifier(file), FileError),
      ]),
    ("inspect: data in a constant beside it", ship("inspect box/constant.onnx"), BAD,
     "expected one self-contained ONNX file at box/constant.onnx, got …in another file; save it "
     "with its data inside"),
    ("verify: data in a constant beside it",
     ship("verify box/constant.onnx --checkpoint good.ckpt"), BAD,
     "expected one self-contained ONNX file at box/constant.onnx, got …in another file; save it "
     "with its data inside"),
    ("verify: another model's weights", ship("verify other.onnx --checkpoint good.ckpt"), FAILED,
     "FAIL log_probs against float64 …parity FAILED on"),
    ("verify: a weight changed", ship("verify changed.onnx --checkpoint good.ckpt"), FAILED,
     "FAIL seal changed since export …parity FAILED on"),
    ("verify: another width", ship("verify wide.onnx --checkpoint good.ckpt"), FAILED,
     "FAIL input expected input: float32 ['batch', 4], got input: float32 ['batch', 5]"),
    ("verify: other classes", ship("verify renamed.onnx --checkpoint good.ckpt"), FAILED,
     'FAIL class names expected ["0", "1", "2"], got ["a", "b", "c"]'),
    ("OnnxClassifier: no class names", lambda: OnnxClassifier("unnamed.onnx"), FileError,
     "expected a file exported by smx_export, …unnamed.onnx; export the model with smx-export"),
    ("OnnxClassifier: class names that are no JSON", lambda: OnnxClassifier("misnamed.onnx"),
     FileError, "expected a file exported by smx_export, …misnamed.onnx; export the model with"),

    # Inputs to a file
    ("float64 inputs", classify(np.zeros((2, D))), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got float64; convert them with "
     "x.astype(numpy.float32)"),
    ("string inputs", classify(np.full((2, D), "a")), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got <U1; convert them with"),
    ("object inputs", classify(np.zeros((2, D), object)), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got object; convert them with"),
    ("integer inputs too wide", classify(np.zeros((2, D), int)), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got int64; convert them with"),
    ("inputs of one dimension", classify(X[0]), ValueError,
     "expected inputs of shape (batch, 4), got (4,); add a batch dimension with x[None]"),
    ("inputs of another width", classify(X[:, :3]), ValueError,
     "expected inputs of shape (batch, 4), got (12, 3); check the features"),
    ("verify on another width", ship(f"{VERIFY} --data wide.npz"), BAD,
     "expected data of shape (rows, 4), got (12, 5); it must be what the model was trained on"),
    ("verify on no rows", ship(f"{VERIFY} --data none.npz"), BAD,
     "expected data of shape (rows, 4), got (0, 4); it must be what the model was trained on"),
    ("verify on negative labels", ship(f"{VERIFY} --data negative.npz"), BAD,
     "expected labels in y among the 3 training classes, got -1; a class must occur in y"),
    ("verify on too few labels", ship(f"{VERIFY} --data short.npz"), BAD,
     "expected one label in 0..2 for each of 12 rows, got …11"),
    ("verify on unknown labels", ship(f"{VERIFY} --data named.npz"), BAD,
     "expected labels in y among the 3 training classes, got 'cat'; a class must occur in y"),
    ("verify on pickles", ship(f"{VERIFY} --data bomb.npz"), BAD,
     "expected plain arrays in bomb.npz, got pickled objects in x, which could run code; save"),
    ("verify on a missing file", ship(f"{VERIFY} --data absent.npz"), BAD,
     "expected a data file at absent.npz, found none; check the path"),
    ("parity on inputs of one dimension", parity(X[0], Y), InputError,
     "expected data of shape (rows, 4), got (4,); it must be what the model was trained on"),
    ("parity on labels too large", parity(X, Y + 1), InputError,
     "expected one label in 0..2 for each of 12 rows, got …3"),

    # Where to write
    ("output that is a folder", ship("convert good.ckpt folder"), BAD,
     "expected a file name to write to, got the folder folder; add a name"),
    ("output that is a pipe", ship("convert good.ckpt pipe"), BAD,
     "expected a file name to write to, got pipe, which is no regular file; choose another name"),
    ("output that is the checkpoint", ship("convert good.ckpt good.ckpt"), BAD,
     "expected another file than the checkpoint good.ckpt to write to; choose another name"),
    ("output into a missing folder", ship("convert good.ckpt absent/out.onnx"), BAD,
     f"expected to write absent/out.onnx, got: No such file or directory; {DENIED}"),
    ("output into a read-only folder", ship("convert good.ckpt /sys/out.onnx"), BAD,
     f"expected to write /sys/out.onnx, got: …; {DENIED}"),
    ("output into a read-only folder, from Python",
     lambda: SoftmaxRegression(D, K).to_onnx("/proc/out.onnx"), InputError,
     f"expected to write /proc/out.onnx, got: …; {DENIED}"),
    ("output name too long", ship(f"convert good.ckpt {300 * 'x'}.onnx"), BAD,
     f"expected to write {300 * 'x'}.onnx, got: File name too long; choose a"),
    ("output on a full disk", on_a_full_disk(ship(CONVERT)), BAD,
     f"expected to write out.onnx, got: File too large; {DENIED}"),
    ("output on a full disk, from Python",
     on_a_full_disk(lambda: export_onnx(SoftmaxRegression(D, K), "out.onnx")), InputError,
     f"expected to write out.onnx, got: File too large; {DENIED}"),
    ("report into a read-only folder", ship(f"{VERIFY} --json /sys/report.json"), BAD,
     f"expected to write /sys/report.json, got: …; {DENIED}"),
    ("report on a full disk", on_a_full_disk(ship(f"{VERIFY} --json report.json")), BAD,
     f"expected to write report.json, got: File too large; {DENIED}"),
    ("convert with its report into a missing folder",
     ship(f"{CONVERT} --json absent/report.json"), BAD,
     f"expected to write absent/report.json, got: No such file or directory; {DENIED}"),
    ("training with an export into a folder", fit("--onnx.path=folder"), BAD,
     "expected a file name to write to, got the folder folder; add a name"),
    ("training with an export that is read-only", fit("--onnx.path=/sys/out.onnx"), BAD,
     f"expected to write /sys/out.onnx, got: …; {DENIED}"),
    ("checkpoints into a read-only folder", fit("--checkpoint.dirpath=/sys/checkpoints"), BAD,
     f"expected to read and write /sys/checkpoints, got: …; {DISK}"),
    ("training on a full disk", on_a_full_disk(fit_file("good.npz", "--onnx.path=out.onnx")), BAD,
     f"expected to read and write files, got: File too large; {DISK}"),
    ("predictions into a folder", train(f"{PREDICT} --predictions.path=folder"), BAD,
     "expected a file name to write to, got the folder folder; add a name"),
    ("predictions into a read-only folder", train(f"{PREDICT} --predictions.path=/sys/p.csv"), BAD,
     f"expected to write /sys/p.csv, got: …; {DENIED}"),
    ("predictions on a full disk",
     on_a_full_disk(lambda: trainer(callbacks=[PredictionsCsv("predictions.csv")])
                    .predict(SoftmaxRegression(D, K), DataLoader(torch.zeros(N, D)))), InputError,
     f"expected to write predictions.csv, got: File too large; {DENIED}"),
    ("training over the config of another run", fit("--trainer.logger=false"), BAD,
     "expected no config.yaml of an earlier run in …; move it away, or train with a logger"),

    # Usage
    ("test of a model that was never trained", train("test"), BAD,
     "test needs the checkpoint of a trained model, got none; name it with --ckpt_path"),
    ("unknown option", train("fit --nope=1"), USAGE, "error: unrecognized arguments: --nope=1"),
    ("unknown subcommand", train("fitt"), USAGE,
     "invalid choice: 'fitt' (choose from 'fit', 'validate', 'test', 'predict')"),
    ("no subcommand", train(""), USAGE, 'expected "subcommand" to be one of {fit,validate,test,'),
    ("missing config", train("fit --config=absent.yaml"), USAGE, "File does not exist: …absent.y"),
    ("config that would run code", train("fit --config=bomb.yaml"), USAGE,
     "could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.mk"),
    ("unknown data module", train("fit --data=NopeDataModule"), USAGE, "NopeDataModule"),
    ("class_weight of another string on the command line", fit("--model.class_weight=balance"),
     USAGE, "Expected a typing.Literal['balanced']"),
    ("learning rate negative", fit("--model.optimizer=Adam --model.optimizer.lr=-1"), BAD,
     "Invalid learning rate: -1"),
    ("no such accelerator", fit("--trainer.accelerator=abacus"), BAD,
     "You selected an invalid accelerator name: `accelerator='abacus'`. Available names are:"),
    ("unknown option of smx-export", ship("inspect good.onnx --nope"), USAGE,
     "smx-export: error: unrecognized arguments: --nope"),
    ("unknown subcommand of smx-export", ship("transmute good.ckpt"), USAGE,
     "invalid choice: 'transmute' (choose from"),
    ("verify without a checkpoint", ship("verify good.onnx"), BAD,
     "verify needs something to compare with: --checkpoint, --targets, or both"),
]
# fmt: on


# The tests ---------------------------------------------------------------------------------------


@pytest.fixture
def folder(shelf, cli_folder, monkeypatch):
    """The working folder, filled; --model-class may add to the import path."""
    shutil.copytree(shelf, cli_folder, dirs_exist_ok=True)
    os.mkfifo(cli_folder / "pipe")  # copytree takes no pipes
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return cli_folder


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else path.stat().st_mode
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("action", "outcome", "message"), [pytest.param(*case[1:], id=case[0]) for case in CASES]
)
def test_bad_input(action, outcome, message, folder, capsys):
    before = contents(folder)

    if isinstance(outcome, int):
        assert action() == outcome
        out, said = capsys.readouterr()
        if outcome == BAD:
            assert re.fullmatch(r"smx-(lightning|export): [^\n]+\n", said), said
        said = out + said
    else:
        with pytest.raises(outcome) as caught:
            action()
        said = str(caught.value) if outcome is not USAGE else capsys.readouterr().err
        assert outcome is not USAGE or caught.value.code == 2
    pattern = ".*".join(re.escape(part) for part in message.split("…"))
    said = " ".join(said.split())
    assert re.search(pattern, said), f"expected {message!r}, got {said!r}"

    after = contents(folder)
    assert before.items() <= after.items()
    made = {Path(path).parts[0] for path in after.keys() - before.keys()}
    assert made <= {"bad.npz", "idx", "lightning_logs"}


@pytest.mark.parametrize(
    "unpickle",
    [
        lambda: np.load("bomb.npz", allow_pickle=True)["x"],
        lambda: np.load("bomb_y.npz", allow_pickle=True)["y"],
        lambda: torch.load("bomb.ckpt", weights_only=False),
        lambda: pickle.loads(Path("pickle.ckpt").read_bytes()),
    ],
)
def test_the_bombs_are_live(unpickle, folder):
    with suppress(FileExistsError):  # an array holds several
        unpickle()
    assert (folder / SENTINEL).is_dir()


def test_a_real_process_says_one_line(folder):
    """Nothing of Lightning's own reaches stderr before the sentence, however late the failure.

    Our own warning does: a class without a row.
    """
    command = [sys.executable, "-m", "smx_lightning", *shlex.split(f"fit {RUN} {NPZ}=good.npz")]
    late = ["--data.class_names=[a,b,c,d]", "--model.class_weight=balanced"]
    done = subprocess.run([*command, *late], capture_output=True, text=True, check=False)
    assert done.returncode == BAD
    warning, sentence = done.stderr.splitlines()
    assert "expected a training row of every class, got none of d (1 of 4 classes)" in warning
    assert sentence.startswith("smx-lightning: class_weight='balanced' needs ")
