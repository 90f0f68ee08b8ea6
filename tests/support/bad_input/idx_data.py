"""IDX files, plain and compressed, that are missing, damaged or do not fit together."""

import gzip

import numpy as np

from bad_input.actions import BAD, COLUMN, IDX, IMAGES, LABELS, RUN, idx, idx_bytes, train
from bad_input.files import X, Y
from smx_lightning import InputError

# fmt: off
CASES = [
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
]
# fmt: on
