"""Somebody's own DataLoader, whose batches nobody has looked at before."""

import numpy as np
import torch
from torchmetrics.classification import MulticlassF1Score

from bad_input.actions import changed, foreign
from bad_input.files import INF, NAN, Alien, D, K, N, X, Y, loader, trainer
from smx_export import OnnxExport
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.metrics import BrierScore

SOFT = np.full((len(Y), K), 1 / K, np.float32)


class OfLabels(SoftmaxRegression):
    """With a metric that takes labels only."""

    def configure_metrics(self, stage):
        return {"f1": MulticlassF1Score(K)}


def scored(y=Y, weight=None):
    """A metric of one's own loop, updated with targets and weights."""
    given = None if weight is None else torch.tensor(weight)
    return lambda: BrierScore().update(torch.zeros(len(X), K), torch.as_tensor(y), given)


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
    ("loader with a weight below zero", foreign(X, Y, np.arange(N) - 1.0), InputError,
     "expected row weights in the train batches that are finite and not below 0, got -1.0; leave"),
    ("loader with NaN for a weight", foreign(X, Y, np.full(N, NAN)), InputError,
     "expected row weights in the train batches that are finite and not below 0, got nan; leave"),
    ("loader with weights beyond float32", foreign(X, Y, np.full(N, 1e40)), InputError,
     "expected row weights in the train batches whose largest lies between 1.4e-20 and 1.1e+15, "
     "got 1e+40; divide all of them by their mean"),
    ("loader with distributions that sum to 2", foreign(y=2 * np.eye(K)[Y]), InputError,
     "expected distributions over the classes, got targets below 0 or rows that do not sum to 1 in "
     "the train batches; divide each row by its sum, and give the sum as the row's weight"),
    ("loader with distributions over more classes", foreign(y=np.eye(K + 1)[Y]), InputError,
     "expected labels, or a distribution over 3 classes a row, got float64 targets of shape (4, 4)"
     " in the train batches; give y.long() of whole numbers, or a column a class"),
    ("loader without any label", foreign(y=0 * Y - 1), InputError,
     "expected training rows with a label and a weight above 0, got an epoch without any; check "
     "the labels: those of ignore_index=-1 say that there is none"),
    ("loader without any label, standardised",
     foreign(y=0 * Y - 1, preprocessing="standardize"), InputError,
     "expected training rows with a label and a weight above 0, got batches without any"),
    ("loader with weights of zero", foreign(X, Y, np.zeros(N)), InputError,
     "expected training rows with a label and a weight above 0, got an epoch without any"),
    ("OnnxExport on another module",
     lambda: trainer(callbacks=[OnnxExport("out.onnx")]).fit(Alien(), loader()), InputError,
     "OnnxExport expected a SoftmaxRegression or a subclass, got Alien; take the callback out"),

    # Metrics
    ("distributions where a metric takes labels",
     lambda: trainer().fit(OfLabels(D, K), loader(y=SOFT)), InputError,
     "expected labels in the train batches for train/f1 (MulticlassF1Score), got distributions over"
     " the classes; take it out of configure_metrics, or override its update with super().update("),
    ("weights below 0 of a metric", scored(weight=-Y.astype(np.float32)), InputError,
     "expected row weights that are finite and not below 0, got -1.0"),
    ("weights of NaN of a metric", scored(weight=[NAN] * len(Y)), InputError,
     "expected row weights that are finite and not below 0, got nan"),
    ("sparse weights of a metric",
     lambda: BrierScore().update(torch.zeros(2, K), torch.arange(2), torch.ones(2).to_sparse()),
     InputError, "expected dense row weights, got sparse_coo of shape (2,)"),
    ("too few labels of a metric", scored(y=Y[:5]), InputError,
     "expected a label for each of the 12 rows of a batch, got labels of shape (5,); give one a"),
    ("too few weights of a metric", scored(weight=[1.0]), InputError,
     "expected 12 row weights, got shape (1,)"),
    ("no distributions of a metric", scored(2 * SOFT), InputError,
     "got targets below 0 or rows that do not sum to 1 in the batch; divide each row by its sum"),
    ("distributions over other classes of a metric", scored(SOFT[:, 1:]), InputError,
     "expected labels, or a distribution over 3 classes a row, got float32 targets of shape (12, 2)"
     " in the batch"),
]
# fmt: on
