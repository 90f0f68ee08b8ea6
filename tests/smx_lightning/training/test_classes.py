"""A model with other classes: what stays, what goes, and that training then ends at the optimum."""

import copy
import functools

import numpy as np
import pytest
import torch
from solving import embeddings, noisy_scores
from torch.utils.data import DataLoader
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.optim import ExactSolver, Status

SOLVER = functools.partial(ExactSolver, tol=1e-9)


def loader(x, y, size=500):
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    return DataLoader(list(zip(x.split(size), y.split(size), strict=True)), batch_size=None)


def made(features, names, **kwargs):
    settings = {"l2": 1e-3, "optimizer": SOLVER, "class_names": names, **kwargs}
    return SoftmaxRegression(features, len(names), **settings).double()


def fitted(model, x, y):
    trainer = quiet_trainer(max_epochs=300, precision="64-true")
    trainer.fit(model, loader(x, y))
    assert model.solver.status in (Status.CONVERGED, Status.PRECISION)
    return model


def into_one_buffer(loader):
    """The same batches, each written over the one before."""
    x, y = (torch.empty_like(part) for part in next(iter(loader)))
    for rows, labels in loader:
        x[: len(rows)], y[: len(rows)] = rows, labels
        yield x[: len(rows)], y[: len(rows)]


def test_a_new_class_begins_at_its_optimum_whatever_buffers_its_rows_come_in():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    y = (x @ rng.normal(size=(5, 3))).argmax(1)
    model = made(5, ["a", "b"])
    fresh, other = (
        model.with_classes(["a", "b", "c"], rows)
        for rows in (loader(x, y, 16), into_one_buffer(loader(x, y, 16)))
    )
    assert fresh.linear.weight[2].abs().max() > 0.1
    torch.testing.assert_close(other.linear.weight, fresh.linear.weight, atol=0, rtol=0)
    torch.testing.assert_close(other.linear.bias, fresh.linear.bias, atol=0, rtol=0)


def of_classes(x, y, labels, names):
    """The rows of some labels, these as indices of names."""
    some = np.isin(y, [labels[name] for name in names])
    index = {labels[name]: k for k, name in enumerate(names)}
    return x[some], np.array([index[label] for label in y[some]])


def letters(classes=6, rows=1500):
    x, y = noisy_scores(classes, 0, rows=rows, features=8)
    names = [*"abcdefghijklmnopqrstuvwxyz"[: y.max() + 1]]
    return x + 1, y, dict(zip(names, range(len(names)), strict=True))


CHANGES = [
    ("abcde", "abcdef"),
    ("abcdef", "abdef"),
    ("abcde", "bcdf"),
    ("cdf", "fabcde"),
    ("ab", "cba"),
]


@pytest.mark.parametrize(("before", "after"), CHANGES)
@pytest.mark.parametrize("method", ["none", "standardize"])
@pytest.mark.parametrize("told", [True, False])
def test_training_goes_on_to_the_cold_optimum(before, after, method, told):
    x, y, labels = letters()
    model = fitted(made(8, [*before], preprocessing=method), *of_classes(x, y, labels, before))
    kept = copy.deepcopy(model.state_dict())
    order = [name for name in before if name in after] + [n for n in after if n not in before]
    rows = of_classes(x, y, labels, order)
    other = model.with_classes([*after], loader(*rows) if told else None)
    assert other.class_names == tuple(order)
    for k, name in enumerate(order):
        if name in before:
            torch.testing.assert_close(
                other.linear.weight[k], model.linear.weight[before.index(name)]
            )
    assert all(map(torch.equal, kept.values(), model.state_dict().values()))
    warm, cold = fitted(other, *rows), fitted(made(8, order, preprocessing=method), *rows)
    best = float(cold.solver.evaluation.objective)
    assert float(warm.solver.evaluation.objective) == pytest.approx(best, rel=1e-10)
    torch.testing.assert_close(warm(torch.tensor(x)), cold(torch.tensor(x)), rtol=0, atol=1e-5)


def test_a_class_that_goes_leaves_the_odds_of_the_others():
    x, y, labels = letters()
    model = fitted(made(8, [*labels]), x, y)
    other = model.with_classes([name for name in labels if name != "c"])
    kept = [k for k in range(6) if k != 2]
    wanted = model(torch.tensor(x))[:, kept].log_softmax(1)
    torch.testing.assert_close(other(torch.tensor(x)), wanted)


@pytest.mark.parametrize("kind", [tuple, np.array, iter])
def test_names_may_stand_in_anything(kind):
    model = SoftmaxRegression(3, 2, class_names=["a", "b"])
    assert model.with_classes(kind(["c", "b"])).class_names == ("b", "c")


def test_everything_else_is_as_it_was():
    x, y, labels = letters()
    model = made(
        8, [*labels], class_weight={"a": 3.0, "d": 2.0}, label_smoothing=0.1, preprocessing="scale",
        feature_names=[f"feature {k}" for k in range(8)], activation="entmax15",
    )  # fmt: skip
    fitted(model, x, y)
    model.l2 = 0.02
    other = model.with_classes(["d", "f", "a", "new"])
    assert other.class_names == ("a", "d", "f", "new")
    assert other.class_weight == [3.0, 2.0, 1.0, 1.0]
    assert other.class_counts.tolist()[3] == 0
    assert (other.l2, other.label_smoothing) == (0.02, 0.1)
    assert other.feature_names == model.feature_names
    assert other._smx_activation == model._smx_activation
    assert other.hparams["num_classes"] == 4
    assert other.linear.weight.dtype == torch.float64
    torch.testing.assert_close(other.preprocessing.scale, model.preprocessing.scale)
    index = of_classes(x, y, labels, ["a", "d", "f"])
    quiet_trainer(max_epochs=1).test(other, loader(*index), verbose=False)
    assert other.confusion_matrix.shape == (4, 4)


def test_a_checkpoint_of_it_is_one_of_its_classes(tmp_path):
    x, y, labels = letters()
    other = fitted(made(8, [*"abcdef"]), x, y).with_classes([*"abdg"])
    trainer = quiet_trainer(max_epochs=1, precision="64-true")
    trainer.fit(other, loader(*of_classes(x, y, labels, "abd")))
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    again = SoftmaxRegression.load_from_checkpoint(tmp_path / "model.ckpt")
    assert again.class_names == (*"abdg",)
    torch.testing.assert_close(again.linear.weight.double(), other.linear.weight)


@pytest.mark.parametrize(
    ("names", "threshold"),
    [
        (["no", "yes"], 0.3),
        (["yes", "no"], 0.3),
        (["yes", "maybe"], None),
        (["no", "yes", "maybe"], None),
    ],
)
def test_a_threshold_stays_with_its_two_classes(names, threshold):
    model = SoftmaxRegression(3, 2, class_names=["no", "yes"], threshold=0.3)
    assert model.with_classes(names).threshold == threshold


class Probe(SoftmaxRegression):
    """Takes its classes alone, and has parameters in front."""

    def __init__(self, num_classes, class_names=None):
        super().__init__(5, num_classes, class_names=class_names, input_shape=(8,))
        self.body = torch.nn.Linear(8, 5)

    def features(self, x):
        return self.body(x).tanh()


class Given(Probe):
    def __init__(self, num_classes, body, class_names=None):
        super().__init__(num_classes, class_names)
        self.body = body


def test_a_subclass_keeps_its_backbone_and_is_asked_for_what_is_not_plain():
    x, y, _ = letters()
    x = torch.tensor(x, dtype=torch.float32)
    probe = Probe(6, [*"abcdef"])
    other = probe.with_classes([*"abcdefg"], loader(x, y))
    assert type(other) is Probe
    torch.testing.assert_close(other.features(x), probe.features(x))
    given = Given(6, probe.body, [*"abcdef"])
    with pytest.raises(
        InputError, match=r"got body, .* give it once more, with_classes\(…, body=…\)"
    ):
        given.with_classes([*"abc"])
    again = given.with_classes([*"abc"], body=torch.nn.Linear(8, 5))
    torch.testing.assert_close(again.features(x), probe.features(x))


BAD = [
    (["a"], {}, "num_classes must be at least 2, got 1"),
    ("a", {}, "num_classes must be at least 2, got 1"),
    (["a", "a"], {}, "class_names must hold 2 different names"),
    (["x", "y"], {}, "expected at least one class that the model knows, of a, b, c, got x, y"),
    (["a", "d"], {"batches": []}, "expected rows of the new classes, got batches without any"),
    (["a", "d"], {"batches": [(torch.zeros(1, 4), torch.tensor([2]))]}, "label"),
    (None, {}, "expected the names of all classes that are wanted, got None"),
    (4, {}, "expected the names of all classes that are wanted, got 4"),
    (
        ["a", "d"],
        {"batches": [(torch.full((2, 4), torch.nan), torch.tensor([0, 1]))]},
        "expected finite features in the batches of new classes",
    ),
]


@pytest.mark.parametrize(("names", "given", "said"), BAD)
def test_what_cannot_be_is_refused_in_a_sentence(names, given, said):
    with pytest.raises(InputError, match=said):
        SoftmaxRegression(4, 3, class_names=["a", "b", "c"]).with_classes(names, **given)


class Free(SoftmaxRegression):
    """As many subclasses are written."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


class Nameless(SoftmaxRegression):
    def __init__(self, num_classes):
        super().__init__(4, num_classes)


class Fixed(SoftmaxRegression):
    def __init__(self, names=("a", "b", "c")):
        super().__init__(4, len(names), class_names=names)


class Centred(SoftmaxRegression):
    def __init__(self, num_features, num_classes, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
        self.centre = torch.nn.Parameter(torch.zeros(num_classes))


def test_what_was_set_later_stays():
    model = Free(4, 3, class_names=["a", "b", "c"])
    model.l2, model.label_smoothing, model.ignore_index = 0.5, 0.25, -100
    other = model.with_classes(["a", "b", "d"])
    assert other.class_names == ("a", "b", "d")
    assert (other.l2, other.label_smoothing, other.ignore_index) == (0.5, 0.25, -100)


def test_a_subclass_that_has_other_classes_is_refused():
    assert Fixed().with_classes(["a", "d"], names=["a", "d"]).class_names == ("a", "d")
    assert Nameless(3).with_classes(["0", "1"]).class_names == ("0", "1")
    for model, names in (
        (Fixed(), ["a", "b", "d"]),
        (Fixed(), [*"abcd"]),
        (Nameless(3), ["1", "2"]),
    ):
        with pytest.raises(InputError, match="let it take num_classes and class_names"):
            model.with_classes(names)
    centred = Centred(4, 3, class_names=["a", "b", "c"])
    with pytest.raises(InputError, match="in the layer of the classes alone, got centre"):
        centred.with_classes([*"abcd"])


def test_balanced_weights_ask_for_the_rows_of_a_new_class():
    model = SoftmaxRegression(4, 2, class_weight="balanced")
    x, y = torch.randn(6, 4), torch.arange(6) % 3
    model.fit_statistics([(x, y % 2)])
    other = model.with_classes(["0", "1", "new"])
    with pytest.raises(InputError, match=r"got none of some class: call fit_statistics"):
        other.objective(x, y)
    other.fit_statistics([(x, y)])
    assert other.objective(x, y).isfinite()


def test_rows_at_hand_may_have_labels_and_distributions():
    x, y, labels = letters()
    x = torch.tensor(x, dtype=torch.float32)
    model = SoftmaxRegression(8, 5, class_names=[*labels][:5], l2=1e-3)
    q = torch.nn.functional.one_hot(torch.tensor(y), 6).float()
    torch_y = torch.tensor(y)
    mixed = model.with_classes(labels, [(x[:700], torch_y[:700]), (x[700:], q[700:])])
    alike = model.with_classes(labels, [(x, torch_y)])
    torch.testing.assert_close(mixed.linear.bias, alike.linear.bias)


def test_rows_at_hand_save_passes():
    x, y = embeddings(1000, 64, 12, 20)
    labels = {f"class {k}": k for k in range(12)}
    names = [*labels]
    model = fitted(made(64, names[:-1]), *of_classes(x, y, labels, names[:-1]))
    warm = fitted(model.with_classes(names, loader(x, y)), x, y)
    cold = fitted(made(64, names), x, y)
    assert 1.4 * warm.solver.evaluations <= cold.solver.evaluations
