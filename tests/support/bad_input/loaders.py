"""Somebody's own DataLoader, whose batches nobody has looked at before."""

import numpy as np

from bad_input.actions import changed, foreign
from bad_input.files import INF, NAN, Alien, K, X, Y, loader, trainer
from smx_export import OnnxExport
from smx_lightning import InputError

# fmt: off
CASES = [
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
    ("loader with a negative label", foreign(y=Y - 2), InputError,
     "labels must lie in 0..2, got -2 in the train batches; number the classes from 0"),
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
]
# fmt: on
