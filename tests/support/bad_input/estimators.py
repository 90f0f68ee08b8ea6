"""SoftmaxClassifier's arguments and rows, and what a model with other classes is made of."""

import numpy as np
import torch

from bad_input.files import INF, NAN, D, K, N, X, Y
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.optim import minimise
from smx_lightning.sklearn import SoftmaxClassifier


def fit(x=X, y=Y, sample_weight=None, **settings):
    """``SoftmaxClassifier(…).fit(…)``."""
    return lambda: SoftmaxClassifier(**settings).fit(x, y, sample_weight)


def again(x, y, **settings):
    """The same once more, from where the good rows led."""
    return lambda: SoftmaxClassifier(warm_start=True, **settings).fit(X, Y).fit(x, y)


def of_checkpoint(name, **arguments):
    """``SoftmaxClassifier.from_checkpoint(…)``."""
    return lambda: SoftmaxClassifier.from_checkpoint(name, **arguments)


def with_classes(names, *given, **kwargs):
    """Of a model of three classes, a, b and c."""
    model = SoftmaxRegression(D, K, class_names=["a", "b", "c"])
    return lambda: model.with_classes(names, *given, **kwargs)


def shifted_start():
    start = torch.zeros(K, D), torch.ones(K)
    minimise([(torch.tensor(X), torch.tensor(Y))], D, K, start=start, intercept=False)


# fmt: off
CASES = [
    ("l2 and C at once", fit(l2=0.1, C=1.0), InputError,
     "expected l2 or C, which are the same penalty in two units, got l2=0.1 and C=1.0; leave one"),
    *((f"C {given}", fit(C=given), InputError, f"C must be a number above 0, got {given}")
      for given in (0, -1.0, NAN)),
    ("C larger than any float64", fit(C=10**400), InputError,
     "C must be a number that float64 holds, got a larger one; give a smaller one"),
    *((f"{name} of an estimator {given!r}", fit(**{name: given}), InputError,
       f"{name} must be True or False, got {given!r}; give one of them")
      for name in ("fit_intercept", "warm_start") for given in ("no", 0, None)),
    ("C in quotes", fit(C="1"), InputError, "C must be a number, got '1'"),
    ("l2 of an estimator negative", fit(l2=-1.0), InputError,
     "l2 must be a finite number of at least 0, got -1.0"),
    ("tol negative", fit(tol=-1.0), InputError, "tol must be a finite number of at least 0"),
    ("max_iter 0", fit(max_iter=0), InputError, "max_iter must be at least 1, got 0"),
    ("max_iter 2.5", fit(max_iter=2.5), InputError, "max_iter must be a whole number, got 2.5"),
    ("activation of an estimator", fit(activation="relu"), InputError,
     "expected an activation out of softmax, …got 'relu'"),
    ("alpha of an estimator too large", fit(activation={"alpha": 3}), InputError,
     "the exact solver expects α from 1 to 2, got 3"),
    ("preprocessing of an estimator", fit(preprocessing="whiten"), InputError,
     "preprocessing must be one of none, standardize, scale, got 'whiten'"),
    ("standardised without an intercept", fit(preprocessing="standardize", fit_intercept=False),
     InputError, "expected preprocessing 'none' or 'scale' with fit_intercept=False, got "
     "'standardize', whose means are an intercept in the units of the data; take "
     "preprocessing='scale'"),
    *((f"label_smoothing of an estimator {given}", fit(label_smoothing=given), InputError,
       f"label_smoothing must lie in 0..1, got {given}") for given in (1.5, -0.1, NAN)),
    *((f"class_weight of an estimator {given!r}", fit(class_weight=given), InputError,
       "class_weight must be None, 'balanced' or a dict by label, got")
      for given in ("balance", [1, 2, 3])),
    ("class_weight of an unknown label", fit(class_weight={"setosa": 2}), InputError,
     "class_weight names the unknown class 'setosa'; expected some of: 0, 1, 2"),
    *((f"class_weight of a label {given}", fit(class_weight={0: given}), InputError,
       "class_weight must hold positive, finite weights, got") for given in (0, -1.0, INF)),
    ("one class", fit(y=np.zeros(N)), InputError,
     "expected labels of at least 2 classes in y, got one class only, 0.0; add rows of another"),
    ("rows without a label", fit(y=np.where(Y == 0, None, "a")), InputError,
     "expected labels of one kind in y, got NoneType and str; leave rows without a label out"),
    ("rows of targets that sum to 1.5", fit(y=np.full((N, 3), 0.5)), InputError,
     "got rows of y that sum to 1.5 to 1.5 with a least entry of 0.5; divide each row by its sum"),
    ("fewer distributions than rows", fit(y=np.tile(np.eye(K), (2, 1))), InputError,
     "expected a target for each of 12 rows, got 6; give as many rows in X and y"),
    ("weights of zero", fit(sample_weight=np.zeros(N)), ValueError, "ample…zero"),
    ("weights below zero", fit(sample_weight=-np.ones(N)), ValueError, "egative"),
    ("labels that are no classes", fit(y=np.linspace(0, 1, N)), ValueError, "Unknown label type"),
    ("rows with NaN", fit(x=np.full((N, D), NAN)), ValueError, "Input X contains NaN"),
    ("other features than before", again(X[:, :3], Y), InputError,
     "expected 4 features, as the fit that warm_start=True goes on from, got 3; set "
     "warm_start=False to begin anew"),
    ("an estimator of no checkpoint", of_checkpoint("good.npz"), InputError, "checkpoint"),
    ("an estimator of a missing checkpoint", of_checkpoint("absent.ckpt"), InputError, "absent"),
    ("a bias where there is to be none", shifted_start, InputError,
     "expected a start whose bias is 0, where intercept=False holds it, got another; give zeros"),
    ("one class left", with_classes(["a"]), InputError, "num_classes must be at least 2, got 1"),
    ("a name in place of names", with_classes("abc"), InputError,
     "num_classes must be at least 2, got 1"),
    ("a class twice", with_classes(["a", "a"]), InputError,
     "class_names must hold 2 different names, one a class, got ['a', 'a']"),
    ("no class that is known", with_classes(["x", "y"]), InputError,
     "expected at least one class that the model knows, of a, b, c, got x, y; make a new model"),
    ("new classes of no rows", with_classes(["a", "d"], []), InputError,
     "expected rows of the new classes, got batches without any; leave batches out to begin at"),
    ("new classes of labels out of range", with_classes(["a", "d"], [(X[:1], Y[2:3])]), InputError,
     "label"),
    ("names of classes that are none", with_classes(None), InputError,
     "expected the names of all classes that are wanted, got None; give them as a list"),
    ("new classes of rows with NaN", with_classes(["a", "d"], [(torch.full((2, D), NAN),
                                                                torch.tensor([0, 1]))]),
     InputError, "expected finite features in the batches of new classes, got NaN or infinity"),
    ("sample_weight whose sum is infinite", fit(sample_weight=np.full(N, 1e308)), InputError,
     "expected sample_weight with a finite sum, got weights of up to 1e+308; divide all of them"),
    ("C of next to nothing", fit(C=1e-308, sample_weight=np.full(N, 1e-10)), InputError,
     "expected a penalty of C=1e-308 and weights of …together that is finite, got infinity; take"),
]
# fmt: on
