"""Arrays whose labels, features or number of rows are wrong."""

import numpy as np

from bad_input.actions import BAD, changed, fit, npz
from bad_input.files import INF, NAN, WORDS, K, N, X, Y
from smx_lightning import InputError

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

    # Data: weights, distributions, rows without a label
    ("weights below zero", fit(weight=Y - 1), BAD,
     "expected row weights in the train rows that are finite and not below 0, got -1.0; leave out"),
    ("weights of strings", npz(weight=WORDS), InputError,
     "expected weight of one real number a row, got <U3 of shape (12,); leave it out where all"),
    ("too few weights", npz(weight=Y[:-1]), InputError,
     "expected 12 row weights in the train rows, got shape (11,); give one each"),
    ("weights of zero", npz(weight=0 * Y), InputError,
     "expected a weight above 0 in at least one labelled row of the train rows, got none"),
    ("distributions that sum to 2", fit(y=2.0 * np.eye(K)[Y]), BAD,
     "expected distributions over the classes, got targets below 0 or rows that do not sum to 1 in "
     "the train rows; divide each row by its sum, and give the sum as the row's weight"),
    ("distributions over more classes than names",
     fit("--data.class_names=[a,b]", y=np.eye(K)[Y]), BAD,
     "expected a column a class in y, got 3 columns for 2 class_names; name as many classes"),
    ("no row with a label", fit("--data.class_names=[a,b,c]", y=0 * Y - 1), BAD,
     "expected a label in at least one of the 12 train rows, got none; only predict takes rows "
     "without labels"),

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
]
# fmt: on
