"""Coefficients, and standard errors that there are none of."""

import numpy as np
import torch

from bad_input.actions import BAD, NPZ, USAGE, model, save, train
from bad_input.files import D, K, X, Y
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import NpzDataModule

BATCHES = [(torch.from_numpy(X), torch.from_numpy(Y))]


def table(batches=BATCHES, arguments=None, **asked):
    """``model.coefficients`` of a model that nobody has trained."""
    return lambda: SoftmaxRegression(D, K, **(arguments or {})).coefficients(batches, **asked)


def named(names):
    """``NpzDataModule`` on a file with these names of its features."""
    return lambda: save(feature_names=np.asarray(names)) or NpzDataModule("bad.npz").feature_names


# fmt: off
CASES = [
    ("coefficients of no checkpoint", train("coefficients"), BAD,
     "coefficients needs the checkpoint of a trained model, got none; name it with --ckpt_path"),
    ("coefficients of a checkpoint that is absent", train("coefficients --ckpt_path=absent.ckpt"),
     BAD, "absent.ckpt"),
    ("coefficients of a bomb", train("coefficients --ckpt_path=bomb.ckpt"), BAD, "bomb.ckpt"),
    ("coefficients of weights that are NaN", train("coefficients --ckpt_path=nan.ckpt"), BAD,
     "expected a model whose weights are finite, got NaN or infinity in them; train it anew, on"),
    ("coefficients of other rows", train(f"coefficients --ckpt_path=good.ckpt {NPZ}=good.npz"), BAD,
     "expected coefficients within 0.1 standard errors of the optimum of these rows, got a model"),
    ("coefficients into a folder", train("coefficients --ckpt_path=good.ckpt folder/"), BAD,
     "expected a file name to write to, got the folder folder/; add a name"),
    ("coefficients of an unknown kind of errors",
     train("coefficients --ckpt_path=good.ckpt --errors=hc0"), USAGE, "errors"),
    ("robust errors without rows", train("coefficients --ckpt_path=good.ckpt --errors=robust"), BAD,
     "expected the training rows for robust standard errors, got none; give batches, a loader"),
    ("reference that is no class", train("coefficients --ckpt_path=good.ckpt --reference=nope"),
     BAD, "expected reference to be one of the classes …, got 'nope'; name one of them, or le"),
    ("errors of sparsemax", table(arguments={"activation": "sparsemax"}), InputError,
     "expected softmax for standard errors, got sparsemax, whose loss is no likelihood"),
    ("model errors with class weights", table(arguments={"class_weight": [1.0] * (K - 1) + [2.0]}),
     InputError, "expected errors='robust' of a model with class weights, got errors='model'"),
    ("model errors with sampling weights", table(weights="sampling"), InputError,
     "expected errors='robust' with sampling weights, got errors='model'"),
    ("errors of no rows", table([]), InputError, "expected training rows, got an epoch without"),
    ("errors of an untrained model", table(), InputError, "expected coefficients within 0.1 stand"),
    ("feature_names of another number", model(feature_names=["a"]), InputError,
     f"feature_names must hold {D} different names, one a feature, got 1, 1 of them different; na"),
    ("feature_names that are equal", model(feature_names=["a"] * D), InputError,
     f"feature_names must hold {D} different names, one a feature, got {D}, 1 of them different"),
    ("npz with names of another number", named(["a"]), InputError,
     f"expected feature_names in bad.npz to be {D}, one an entry of an input, got 1; name each"),
    ("npz with names that are no strings", named(np.ones(D)), InputError,
     "expected feature_names in bad.npz to be strings, got dtype float64; save them with numpy.sa"),
    ("npz with pickled names", named(np.array([{}] * D, dtype=object)), InputError,
     "expected plain arrays in bad.npz, got pickled objects in feature_names, which could run cod"),
]
# fmt: on
