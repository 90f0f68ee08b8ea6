"""Inputs to a good file, and rows that it is to be compared on."""

import numpy as np

from bad_input.actions import BAD, VERIFY, classify, parity, ship
from bad_input.files import D, X, Y
from smx_lightning import InputError

# fmt: off
CASES = [
    ("float64 inputs beyond float32", classify(np.full((2, D), 1e39)), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got float64; leave out what float32 "
     "cannot hold"),
    ("string inputs", classify(np.full((2, D), "a")), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got <U1; convert them with"),
    ("object inputs", classify(np.zeros((2, D), object)), TypeError,
     "expected float32 inputs, or a dtype that fits into it, got object; convert them with"),
    ("integer inputs too wide", classify(np.full((2, D), 2**60 + 2**30)), TypeError,
     "expected float32 inputs, or what rounds to it within the file's tolerance of …, got int64 "
     "whose rounding moves answers by …; convert them with x.astype(numpy.float32)"),
    ("inputs of one dimension", classify(X[0]), ValueError,
     "expected inputs of shape (batch, 4), got (4,); add a batch dimension with x[None]"),
    ("inputs of another width", classify(X[:, :3]), ValueError,
     "expected inputs of shape (batch, 4), got (12, 3); check the features"),
    ("verify on another width", ship(f"{VERIFY} --data wide.npz"), BAD,
     "expected data of shape (rows, 4), got (12, 5); it must be what the model was trained on"),
    ("verify on no rows", ship(f"{VERIFY} --data none.npz"), BAD,
     "expected data of shape (rows, 4), got (0, 4); it must be what the model was trained on"),
    ("verify on negative labels", ship(f"{VERIFY} --data negative.npz"), BAD,
     "expected labels in y among the 3 training classes, got -2; a class must occur in y"),
    ("verify on too few labels", ship(f"{VERIFY} --data short.npz"), BAD,
     "expected one label in 0..2, or a distribution over the classes, for each of 12 rows, got "
     "(11,); give one a row"),
    ("verify on unknown labels", ship(f"{VERIFY} --data named.npz"), BAD,
     "expected labels in y among the 3 training classes, got 'cat'; a class must occur in y"),
    ("verify on pickles", ship(f"{VERIFY} --data bomb.npz"), BAD,
     "expected plain arrays in bomb.npz, got pickled objects in x, which could run code; save"),
    ("verify on a missing file", ship(f"{VERIFY} --data absent.npz"), BAD,
     "expected a data file at absent.npz, found none; check the path"),
    ("parity on inputs of one dimension", parity(X[0], Y), InputError,
     "expected data of shape (rows, 4), got (4,); it must be what the model was trained on"),
    ("parity on labels too large", parity(X, Y + 1), InputError,
     "labels must lie in 0..2, got 3 in the data; number the classes from 0"),
]
# fmt: on
