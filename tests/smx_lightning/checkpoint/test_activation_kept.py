"""The activation of a checkpoint: it comes back, and a training goes on with it alone."""

import functools

import numpy as np
import pytest
import sparse_optima
import torch
from interrupted import Interrupted, train
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import Entmax
from smx_lightning.optim import ExactSolver

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = X[:, :3].argmax(1)
LOADER = DataLoader(TensorDataset(X, Y), 20)
ADAM = functools.partial(torch.optim.Adam, lr=0.05)
KEY = "smx_lightning"


class Sub(SoftmaxRegression):
    """It passes all on."""

    def __init__(self, num_features, num_classes, note="", **kwargs):
        super().__init__(num_features, num_classes, **kwargs)


class Sparse(SoftmaxRegression):
    """Its activation is its own affair."""

    def __init__(self, num_features, num_classes):
        super().__init__(num_features, num_classes, activation="sparsemax", optimizer=ADAM)


def trained(path, kind=SoftmaxRegression, **kwargs):
    model = kind(4, 3, **kwargs)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, LOADER)
    trainer.save_checkpoint(path)
    return model


def resumed(model, path, **kwargs):
    quiet_trainer(max_epochs=4, **kwargs).fit(model, LOADER, ckpt_path=path)
    return model


@pytest.mark.parametrize(
    ("kind", "given", "spec"),
    [
        (SoftmaxRegression, "sparsemax", "sparsemax"),
        (SoftmaxRegression, {"alpha": 1.3}, {"alpha": 1.3}),
        (Sub, {"alpha": 1.5}, "entmax15"),
        (Sub, Entmax(1.25), {"alpha": 1.25}),
        (SoftmaxRegression, Entmax(2.0), "sparsemax"),
        (Sub, "softmax", "softmax"),
    ],
)
def test_it_comes_back(tmp_path, kind, given, spec):
    path = tmp_path / "a.ckpt"
    model = trained(path, kind, activation=given, optimizer=ADAM)
    assert model.hparams["activation"] == spec
    content = torch.load(path, weights_only=True)
    assert content["hyper_parameters"]["activation"] == spec
    assert content[KEY]["settings"]["activation"] == spec
    loaded = kind.load_from_checkpoint(path)
    assert loaded.activation == model.activation
    assert torch.equal(loaded(X), model(X))
    whole = kind(4, 3, activation=given, optimizer=ADAM)
    torch.manual_seed(0)
    assert torch.equal(resumed(loaded, path).linear.weight, resumed(whole, path).linear.weight)


def test_a_class_may_choose_it_for_itself(tmp_path):
    path = tmp_path / "a.ckpt"
    model = trained(path, Sparse)
    assert torch.equal(Sparse.load_from_checkpoint(path)(X), model(X))
    # As the class it is loaded as says, which has no argument of this name to be given.
    assert torch.load(path, weights_only=True)[KEY]["settings"]["activation"] == "sparsemax"


def test_another_one_is_refused_where_a_training_is_resumed_and_said_elsewhere(tmp_path, caplog):
    path = tmp_path / "a.ckpt"
    trained(path, activation="sparsemax", optimizer=ADAM)
    other = SoftmaxRegression(4, 3, activation="entmax15", optimizer=ADAM)
    with pytest.raises(InputError) as error:
        resumed(other, path)
    assert str(error.value) == (
        "expected a checkpoint with activation='entmax15', as the model has, to resume from, got "
        "one with activation='sparsemax'; leave activation as it was to go on, or train anew, "
        "without ckpt_path, from the weights of load_from_checkpoint(…, activation='entmax15')"
    )
    remedy = SoftmaxRegression.load_from_checkpoint(path, activation="entmax15")
    quiet_trainer().fit(remedy, LOADER)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        quiet_trainer().test(other, LOADER, ckpt_path=path, verbose=False)
    assert "activation='entmax15' and not 'sparsemax'" in caplog.text
    z = other.scores(X).detach().double().numpy()
    np.testing.assert_allclose(other(X).exp().detach(), sparse_optima.entmax(z, 1.5), atol=1e-6)


def without_activation(path):
    """As it was written before there was a family."""
    content = torch.load(path, weights_only=True)
    del content["hyper_parameters"]["activation"], content[KEY]["settings"]["activation"]
    content.pop("smx_lightning_sha256", None)
    torch.save(content, path)


def test_one_from_before_there_was_a_family_is_of_softmax(tmp_path):
    path = tmp_path / "a.ckpt"
    model = trained(path, optimizer=ADAM)
    without_activation(path)
    loaded = SoftmaxRegression.load_from_checkpoint(path)
    assert loaded.hparams["activation"] == "softmax"
    assert torch.equal(loaded(X), model(X))
    resumed(loaded, path)
    with pytest.raises(InputError, match="got one with activation='softmax'; leave activation as"):
        resumed(SoftmaxRegression(4, 3, activation="sparsemax", optimizer=ADAM), path)


@pytest.mark.parametrize(
    "value", ["nope", {"alpha": 0.5}, {"alpha": "x"}, {"class_path": "os.system"}, 7, [1], {}]
)
def test_a_checkpoint_that_names_none_is_refused(tmp_path, value):
    path = tmp_path / "a.ckpt"
    trained(path, activation="sparsemax", optimizer=ADAM)
    content = torch.load(path, weights_only=True)
    content["hyper_parameters"]["activation"] = value
    content.pop("smx_lightning_sha256", None)
    torch.save(content, path)
    with pytest.raises(InputError, match="activation"):
        SoftmaxRegression.load_from_checkpoint(path)


SPARSE = {"activation": "sparsemax"}


def test_recovery_goes_on_with_the_same_activation_and_no_other(tmp_path):
    alone = train(tmp_path / "alone", "adam", settings=SPARSE, max_epochs=3)
    with pytest.raises(Interrupted):
        train(tmp_path, "adam", settings=SPARSE, stop=9, max_epochs=3)
    with pytest.raises(InputError, match="activation sparsemax there, softmax here"):
        train(tmp_path, "adam", max_epochs=3)
    with pytest.raises(InputError, match="activation sparsemax there, entmax15 here"):
        train(tmp_path, "adam", settings={"activation": "entmax15"}, max_epochs=3)
    final = train(tmp_path, "adam", settings=SPARSE, max_epochs=3)
    assert all(torch.equal(final[name], alone[name]) for name in final)


def test_recovery_of_the_exact_solver(tmp_path):
    settings = {"activation": "entmax15", "optimizer": ExactSolver, "l2": 1e-2}
    alone = train(tmp_path / "alone", "adam", settings=settings, max_epochs=8)
    with pytest.raises(Interrupted):
        train(tmp_path, "adam", settings=settings, stop=12, max_epochs=8)
    final = train(tmp_path, "adam", settings=settings, max_epochs=8)
    assert all(torch.equal(final[name], alone[name]) for name in final)
