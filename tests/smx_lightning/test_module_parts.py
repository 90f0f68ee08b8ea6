"""What the model holds as objects: copies are whole, names and signatures stay, nothing lingers."""

import copy
import gc
import inspect
import io
import pickle
import weakref

import pytest
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch.utils.data import DataLoader, TensorDataset

from smx_lightning import SoftmaxRegression

ROWS = TensorDataset(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)),
                     torch.arange(40) % 2)  # fmt: skip
STATE = ["class_counts", "smx.0.weight", "smx.0.bias"]
STATE += ["preprocessing.mean", "preprocessing.mean_rest", "preprocessing.scale"]
# Of LightningModule; a change is seen by those who override.
OVERRIDDEN = {
    *("setup", "configure_model", "configure_optimizers", "forward", "backward", "to_onnx"),
    *("training_step", "validation_step", "test_step", "predict_step", "load_from_checkpoint"),
    *("on_fit_start", "on_train_start", "on_train_epoch_start", "on_train_batch_start"),
    *("on_after_backward", "on_train_epoch_end", "on_validation_start"),
    *("on_validation_epoch_end", "on_test_start", "on_test_epoch_end", "on_predict_start"),
    *("on_save_checkpoint", "on_load_checkpoint", "_set_hparams", "remove_ignored_hparams"),
    "_on_before_batch_transfer",
}


def scripted_adam(params):
    return torch.optim.Adam(params, lr=0.1)


def made(**kwargs):
    torch.manual_seed(0)
    settings = {"preprocessing": "standardize", "class_weight": "balanced", "l2": 0.1}
    return SoftmaxRegression(4, 2, optimizer=scripted_adam, **settings, **kwargs)


def fitted(model, quiet_trainer, **kwargs):
    trainer = quiet_trainer(max_epochs=2, **kwargs)
    trainer.fit(model, DataLoader(ROWS, 10), DataLoader(ROWS, 10))
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def pickled(model):
    return pickle.loads(pickle.dumps(model))


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, pickled, saved]


def parts(model):
    """Everything that a change of the model may change."""
    own = [
        model._smx_objective,
        model._smx_statistics,
        model._smx_record,
        model.tallies,
        model._smx_metrics,
    ]
    return {id(part) for part in (*own, *model.tallies.values(), *model.modules())}


@pytest.mark.parametrize("copied", COPIES, ids=lambda copied: copied.__name__)
@pytest.mark.parametrize("trained", [False, True], ids=["new", "trained"])
def test_a_copy_shares_nothing_and_trains_as_the_model(copied, trained, quiet_trainer):
    model = made(threshold=0.3)
    if trained:
        fitted(model, quiet_trainer)
    other = copied(model)
    assert not parts(model) & parts(other)
    assert other.tallies is other._smx_metrics.tallies
    assert {id(tally.metrics) for tally in other.tallies.values()} == {
        id(collection) for collection in other._smx_metrics.values()
    }
    before = {name: value.clone() for name, value in model.state_dict().items()}
    other.threshold = 0.6
    values = fitted(other, quiet_trainer)
    assert model.threshold == 0.3
    assert all(torch.equal(before[n], value) for n, value in model.state_dict().items())
    assert not any(tally.counted for tally in model.tallies.values())
    model.threshold = 0.6
    assert fitted(model, quiet_trainer) == values
    assert all(torch.equal(other.state_dict()[n], v) for n, v in model.state_dict().items())


def test_a_model_is_freed_with_its_last_name():
    model = made()
    there = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert there() is None  # no object that it holds refers back to it
    finally:
        gc.enable()


def test_names_of_the_state_are_those_of_every_version():
    assert [*made().state_dict()] == STATE


def test_lightning_sees_the_hooks_that_are_overridden():
    names = {name for name in dir(LightningModule) if not name.startswith("__")}
    methods = {name for name in names if callable(getattr(LightningModule, name))}
    changed = {n for n in methods if getattr(SoftmaxRegression, n) != getattr(LightningModule, n)}
    model = made()
    assert {name for name in changed if is_overridden(name, model)} == OVERRIDDEN


@pytest.mark.parametrize("name", sorted(OVERRIDDEN))
def test_a_hook_takes_what_lightning_s_takes_and_says_what_it_does(name):
    ours, theirs = getattr(SoftmaxRegression, name), getattr(LightningModule, name)
    assert ours.__doc__.strip()
    assert ours.__doc__ != theirs.__doc__
    assert ours.__name__ == name
    taken, given = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    if any(p.kind is p.VAR_POSITIONAL for p in given.values()):
        return  # forward, and steps: anything
    named = [n for n in given if n not in ("self", "cls", "kwargs")]
    assert [n for n in taken if n not in ("self", "model")][: len(named)] == named


def test_arguments_of_any_name_are_a_subclass_s_own(quiet_trainer, tmp_path):
    class Named(SoftmaxRegression):
        def __init__(self, kind: str, other: str, model: str) -> None:
            super().__init__(4, 2)
            self.words = kind, other, model
            self.save_hyperparameters()

    model = Named("a", "b", "c")
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, DataLoader(ROWS, 10))
    trainer.save_checkpoint(tmp_path / "named.ckpt")
    loaded = Named.load_from_checkpoint(tmp_path / "named.ckpt", "cpu", kind="d")
    assert loaded.words == ("d", "b", "c")


def test_the_forward_pass_compiles_to_one_graph():
    torch.compiler.reset()  # the same methods are compiled by other tests, for other models
    model = made()
    model.fit_statistics([(ROWS.tensors[0], ROWS.tensors[1])])
    whole = torch.compile(model, backend="eager", fullgraph=True)
    x = ROWS.tensors[0]
    torch.testing.assert_close(whole(x), model(x), rtol=0, atol=0)


NAMES = (
    "_base",
    "_hooks",
    "_record",
    "_statistics",
    "_metrics",
    "_objective",
    "_evaluations",
    "_shares",
    "activation",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_subclass_may_use_names_that_a_module_like_this_might(quiet_trainer, digits, name):
    class Named(SoftmaxRegression):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            setattr(self, name, torch.nn.Identity())

        def features(self, x):
            return getattr(self, name)(super().features(x))

    of_class = type("OfClass", (SoftmaxRegression,), {name: 5})
    ends = []
    for kind in (SoftmaxRegression, Named, of_class):
        torch.manual_seed(0)
        model = kind(64, 10)
        quiet_trainer(max_epochs=1, limit_train_batches=3).fit(model, digits)
        ends.append(model.linear.weight.detach())
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[0], ends[2])


def test_attributes_of_the_class_itself_are_each_model_s_own():
    class Fast(SoftmaxRegression):
        lr = 0.5

    model = Fast(4, 3)
    assert {"lr", "solver", "confusion_matrix"} <= vars(model).keys()
    assert model.lr is None
