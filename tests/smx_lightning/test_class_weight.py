"""class_weight as scikit-learn, pandas and YAML users write it; scikit-learn's optimum judges."""

from collections import Counter
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
import yaml
from configurations import printed_config
from sklearn.linear_model import LogisticRegression
from sklearn.utils.class_weight import compute_class_weight

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.checkpoint import read_checkpoint
from smx_lightning.cli import main
from smx_lightning.data import NpzDataModule
from smx_lightning.errors.class_weight import class_weights
from smx_lightning.optim import minimise

WORDS = ["cat", "dog", "emu"]


def weights_of(given, names):
    return SoftmaxRegression(4, len(names), class_names=names, class_weight=given).class_weight


@pytest.mark.parametrize(
    ("given", "names", "expected"),
    [
        (np.array([1.0, 2.0, 3.0]), WORDS, [1, 2, 3]),
        (np.array([1, 2, 3], np.float32), WORDS, [1, 2, 3]),
        (torch.tensor([1.0, 2.0, 3.0]), WORDS, [1, 2, 3]),
        ((1, 2, np.float64(3)), WORDS, [1, 2, 3]),
        ({"emu": 5}, WORDS, [1, 1, 5]),
        ({2: 5}, WORDS, [1, 1, 5]),
        ({0: 2.0, "emu": np.float32(5)}, WORDS, [2, 1, 5]),
        ({np.int64(k): w for k, w in enumerate([1.0, 2.0, 3.0])}, WORDS, [1, 2, 3]),
        (MappingProxyType({"dog": 7}), WORDS, [1, 7, 1]),
        (Counter(["cat", "cat", "dog"]), WORDS, [2, 1, 1]),
        ({1: 5}, None, [1, 5]),
        ({"1": 5}, None, [1, 5]),
        # Integers are names where all of them are, as scikit-learn's keys are labels.
        ({1: 5}, ["1", "2", "3"], [5, 1, 1]),
        ({3: 5, 8: 2}, ["3", "5", "8"], [5, 1, 2]),
        ({0: 5, 1: 2, 2: 3}, ["1", "2", "3"], [5, 2, 3]),
        # What YAML makes of no, yes, off, on.
        ({False: 2, True: 5}, ["no", "yes"], [2, 5]),
        ({False: 2, True: 5}, ["yes", "no"], [5, 2]),
        ({True: 5}, ["off", "On"], [1, 5]),
        ({True: 5}, ["False", "True"], [1, 5]),
        ({np.True_: 5}, ["maybe", "no", "yes"], [1, 1, 5]),
        ({False: 2, True: 5}, ["cat", "dog"], [2, 5]),
        ({False: 2}, None, [2, 1]),
    ],
)
def test_each_spelling_says_how_much_a_class_counts(given, names, expected):
    names = names or ["0", "1"]
    found = weights_of(given, names)
    assert found == expected
    assert all(type(weight) is float for weight in found)  # as the hyper-parameters keep it


class Series:
    """As much of pandas' as matters: iteration gives values, in the order of the counts."""

    def __init__(self, entries):
        self.entries = entries

    def __iter__(self):
        return iter(self.entries.values())

    def to_dict(self):
        return dict(self.entries)


def test_a_series_is_read_by_its_labels_and_not_by_place():
    assert weights_of(Series({"emu": 5.0, "cat": 2.0}), WORDS) == [2, 1, 5]


@pytest.mark.parametrize(
    ("given", "names", "sentence"),
    [
        (
            {3: 5},
            WORDS,
            "unknown class 3; expected some of: cat, dog, emu; or all by index, 0 to",
        ),
        ({-1: 5}, WORDS, "unknown class -1"),
        ({0: 1, 3: 5, 8: 2}, ["3", "5", "8"], "unknown class 3"),
        ({True: 5}, WORDS, "unknown class True"),
        ({True: 5}, ["yes", "true"], "unknown class True"),
        ({None: 5}, WORDS, "unknown class None"),
        ({"emu": 5, 2: 5}, WORDS, "name a class once, got 'emu' twice"),
        (np.ones((3, 1)), WORDS, "must hold positive, finite weights"),
        (np.ones(2), WORDS, "must hold 3 weights, one a class, got 2"),
        (np.array(2.0), WORDS, "must hold positive, finite weights"),
    ],
)
def test_what_names_no_class_is_refused(given, names, sentence):
    with pytest.raises(InputError, match=sentence):
        class_weights(given, names)


def test_balanced_weights_of_scikit_learn_have_its_optimum():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 4))
    y = np.argmax(x[:, :3] + rng.normal(size=(90, 3)) + [0, 1, 2], 1)
    given = compute_class_weight("balanced", classes=np.unique(y), y=y)
    model = SoftmaxRegression(4, 3, class_weight=given, l2=0.01)
    weight = model.class_weights_for(torch.zeros(1, dtype=torch.float64))
    found = minimise([(torch.from_numpy(x), torch.from_numpy(y))], 4, 3, l2=0.01,
                     class_weight=weight, dtype=torch.float64)  # fmt: skip
    judge = LogisticRegression(C=1 / (0.01 * 90), class_weight="balanced", tol=1e-10, max_iter=9999)
    judge.fit(x, y)
    np.testing.assert_allclose(found.weight, judge.coef_, atol=1e-4)


@pytest.mark.parametrize(
    ("labels", "written", "expected"),
    [
        (["no", "yes"], "{no: 1, yes: 5}", [1.0, 5.0]),
        (["off", "on"], "{on: 5}", [1.0, 5.0]),
        ([0, 1], "{0: 2, 1: 5}", [2.0, 5.0]),
        ([3, 8], "{8: 5}", [1.0, 5.0]),
        (["cat", "dog"], "{1: 5}", [1.0, 5.0]),
        ([False, True], "{false: 2}", [2.0, 1.0]),
        (["no", "yes"], "[1, 5]", [1.0, 5.0]),
    ],
)
def test_yaml_s_no_yes_0_and_1_are_classes(
    labels, written, expected, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["smx-lightning"])
    x = np.random.default_rng(0).normal(size=(40, 2))
    np.savez("rows.npz", x=x, y=np.array(labels)[np.arange(40) % 2])
    Path("run.yaml").write_text(
        "model:\n  class_path: smx_lightning.SoftmaxRegression\n"
        f"  init_args:\n    class_weight: {written}\n"
    )
    given = ["--data", "NpzDataModule", "--data.path", "rows.npz", "--trainer.max_epochs", "1"]
    assert main(["fit", "--config", "run.yaml", *given]) in (0, 3)
    kept = read_checkpoint("lightning_logs/version_0/checkpoints/best.ckpt").hyper_parameters
    assert kept["class_weight"] == expected
    again = printed_config(capsys, "--config", "lightning_logs/version_0/config.yaml")
    assert again["model"]["init_args"]["class_weight"] == yaml.safe_load(written)


def test_class_names_of_yaml_are_numbers_or_asked_for_in_quotes(tmp_path):
    np.savez(tmp_path / "rows.npz", x=np.arange(40.0).reshape(20, 2), y=np.arange(20) % 2)
    assert NpzDataModule(tmp_path / "rows.npz", class_names=[0, 1]).class_names == ["0", "1"]
    with pytest.raises(InputError, match="got True, which YAML reads for yes, on and true; put"):
        _ = NpzDataModule(tmp_path / "rows.npz", class_names=["no", True]).splits
