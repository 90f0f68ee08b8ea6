"""Arguments of the module, the data modules and the command line."""

import torch

from bad_input.actions import BAD, USAGE, fit, foreign, model
from bad_input.files import INF, NAN, WORDS, D, K, Y
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.data import DigitsDataModule, NpzDataModule

# fmt: off
CASES = [
    ("num_classes 1", model(num_classes=1), InputError, "num_classes must be at least 2, got 1"),
    *((f"input_shape {shape!r}", model(input_shape=shape), InputError,
       "to be the lengths of an input's axes, whole numbers of at least 1, got")
      for shape in ([None], [2.0, 2], "4", 4, [-2, -2], [0, 4], [[4]])),
    ("num_features 0", model(num_features=0), InputError, "num_features must be at least 1, got 0"),
    ("too few class names", model(class_names=["a", "b"]), InputError,
     "class_names must hold 3 different names, one a class, got ['a', 'b']"),
    ("a class name twice", model(class_names=["a", "b", "a"]), InputError,
     "class_names must hold 3 different names, one a class, got ['a', 'b', 'a']"),
    ("data names a class twice", fit("--data.class_names=[a,a,b]"), BAD,
     "class_names must hold 3 different names, one a class, got ['a', 'a', 'b']"),
    ("label_smoothing above 1", fit("--model.label_smoothing=2"), BAD,
     "label_smoothing must lie in 0..1, got 2.0; 0 smooths nothing"),
    ("ignore_index of a word", model(ignore_index="none"), InputError,
     "ignore_index must be a whole number, got 'none'; give such a one"),
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
    *((f"activation {spec!r}", model(activation=spec), InputError,
       "expected an activation out of softmax, entmax15, sparsemax, {'alpha': a number of at least "
       f"1}} or {{'normmax': a number above 1}}, got {spec!r}")
      for spec in ("sparsmax", "", None, 7, True, ["softmax"], {}, {"beta": 2}, {"alpha": 0.99},
                   {"alpha": NAN}, {"alpha": INF}, {"alpha": "2"}, {"alpha": True},
                   {"alpha": [2]}, {"alpha": 2, "beta": 1}, {"normmax": 1}, {"normmax": None})),
    *((f"activation {name} {given:.0e}", model(activation={name: given}), InputError,
       "expected a number of at most 1e+30 in an activation, got {" + repr(name) + ": 1e+31}")
      for name in ("alpha", "normmax") for given in (10**31, 1e31)),
    *((f"activation with a whole number of 401 digits, {name}", model(activation={name: 10**400}),
       InputError, "expected an activation out of softmax, …got {" + repr(name) + ": inf}")
      for name in ("alpha", "normmax")),
    ("activation of 5000 characters", model(activation="x" * 5000), InputError, "xxxx …xxxx"),
    ("activation on the command line", fit("--model.activation=os.system"), BAD,
     "expected an activation out of softmax, …got 'os.system'"),
    ("alpha on the command line", fit("--model.activation.alpha=0.5"), BAD,
     "expected an activation out of softmax, …got {'alpha': 0.5}"),
    ("alpha that is no number", fit("--model.activation.alpha=many"), USAGE, "many"),
    ("another activation for a training that goes on",
     fit("--ckpt_path=good.ckpt --model.activation=sparsemax"), BAD,
     "expected a checkpoint with activation='sparsemax', as the model has, to resume from, got one "
     "with activation='softmax'; leave activation as it was to go on, or train anew"),
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
]
# fmt: on
