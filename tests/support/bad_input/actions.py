"""What the cases do: each function answers an action, to be run in the folder of files."""

import resource
import shlex
from pathlib import Path

import numpy as np

import smx_export.__main__
import smx_lightning.cli
from bad_input.files import D, K, N, X, Y, loader, trainer
from smx_export import OnnxClassifier, check_parity
from smx_lightning import SoftmaxRegression
from smx_lightning.data import IdxDataModule, NpzDataModule

RUN = (
    "--trainer.max_epochs=1 --trainer.accelerator=cpu --trainer.enable_progress_bar=false "
    "--trainer.enable_model_summary=false"
)
NPZ = "--data=smx_lightning.data.NpzDataModule --data.path"
IDX = "--data=smx_lightning.data.IdxDataModule --data.path"

# How an action ends that does not raise an exception of the library's.
BAD, FAILED = 2, 1  # exit codes
USAGE = SystemExit  # the parser's own exit, with code 2

CONVERT = "convert good.ckpt out.onnx"
VERIFY = "verify good.onnx --checkpoint good.ckpt"


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


def foreign(x=X, y=Y, *weight, **arguments):
    """``Trainer.fit`` on somebody's own DataLoader."""
    return lambda: trainer().fit(SoftmaxRegression(D, K, **arguments), loader(x, y, *weight))


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
