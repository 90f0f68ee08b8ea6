"""Models in pickles, copies and other processes' arguments; they are what they were."""

import copy
import functools
import io
import multiprocessing
import pickle

import cloudpickle
import joblib
import pytest
import torch
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Metric
from trainers import quiet_trainer

from smx_export import export_onnx
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.optim import ExactSolver
from smx_lightning.optim.status import Status


def by_torch(model):
    torch.save(model, file := io.BytesIO())
    file.seek(0)
    return torch.load(file, weights_only=False)


def by_joblib(model):
    joblib.dump(model, file := io.BytesIO())
    file.seek(0)
    return joblib.load(file)


HOW = {
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch": by_torch,
    "joblib": by_joblib,
    "cloudpickle": lambda model: pickle.loads(cloudpickle.dumps(model)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "twice": lambda model: pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(model)))),
}
INJECTED = {
    "the default": {},
    "a class": {"optimizer": SGD},
    "a partial": {"optimizer": functools.partial(SGD, lr=0.5, momentum=0.5)},
    "a lambda": {"optimizer": lambda params: SGD(params, lr=0.25, nesterov=True, momentum=0.9)},
    "a schedule": {"optimizer": SGD, "lr_scheduler": lambda o: lr_scheduler.ExponentialLR(o, 0.5)},
    "the exact solver": {"optimizer": ExactSolver, "l2": 0.1},
}


class Mine(SGD):
    """Nobody knows its name where a pickle is read."""


UNTOLD = {
    "optimizer": {"optimizer": lambda params: Mine(params, lr=0.5)},
    "lr_scheduler": {
        "lr_scheduler": lambda o: lr_scheduler.LambdaLR(o, lambda epoch: 0.5**epoch),
    },
}


def rows():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30, 4, generator=generator)
    return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=10)


FITTED = [(how, False) for how in HOW] + [("pickle", True), ("deepcopy", True)]


@pytest.mark.parametrize(("how", "fitted"), FITTED)
@pytest.mark.parametrize("what", INJECTED)
def test_a_copy_answers_and_trains_as_the_model_does(what, how, fitted):
    model = SoftmaxRegression(4, 2, preprocessing="standardize", **INJECTED[what])
    if fitted:
        quiet_trainer(max_epochs=2).fit(model, rows())
    again = HOW[how](model)
    x = torch.randn(5, 4)
    assert torch.equal(again(x), model(x))
    assert again.hparams == model.hparams
    if how == "copy":  # which has the same weights
        return
    for one in (again, model):
        quiet_trainer(max_epochs=2).fit(one, rows())
    assert torch.equal(again.linear.weight, model.linear.weight)


@pytest.mark.parametrize("how", HOW)
def test_a_solver_stays_what_it_was(how):
    model = SoftmaxRegression(4, 2, optimizer=ExactSolver, l2=0.1)
    quiet_trainer(max_epochs=50).fit(model, rows())
    again = HOW[how](model)
    assert again.solver.status is Status.CONVERGED
    assert again.solver.message == model.solver.message
    assert (again.solver.gap, again.solver.evaluations) == (
        model.solver.gap,
        model.solver.evaluations,
    )
    assert again.solver.evaluation.objective == model.solver.evaluation.objective
    assert again.solver.weight is again.linear.weight


@pytest.mark.parametrize("argument", UNTOLD)
def test_what_no_pickle_can_hold_is_asked_for_when_it_is_to_train(argument, tmp_path):
    model = SoftmaxRegression(4, 2, **UNTOLD[argument])
    again = HOW["twice"](model)
    x = torch.randn(5, 4)
    assert torch.equal(again(x), model(x))
    assert export_onnx(again, tmp_path / "m.onnx").report.passed
    with pytest.raises(InputError, match=f"expected an {argument} to train with, got a model from"):
        quiet_trainer().fit(again, rows())
    quiet_trainer().fit(copy.deepcopy(model), rows())  # which holds the function itself


@pytest.mark.parametrize("argument", UNTOLD)
def test_a_process_is_not_started_for_it(argument, monkeypatch):
    monkeypatch.setattr(multiprocessing.context, "get_spawning_popen", object)
    with pytest.raises(InputError, match=f"expected an {argument} that can be sent to the proc"):
        pickle.dumps(SoftmaxRegression(4, 2, **UNTOLD[argument]))
    pickle.dumps(SoftmaxRegression(4, 2))


def test_metrics_of_a_started_process_count_in_memory_of_their_own():
    """torch shares the memory of tensors that are sent, and metrics add to theirs in place."""
    model = SoftmaxRegression(4, 2)
    metrics = [m for m in model.modules() if isinstance(m, Metric) and m._defaults]
    sent = [(m, name, getattr(m, name).share_memory_()) for m in metrics for name in m._defaults]
    SoftmaxRegression.__new__(SoftmaxRegression).__setstate__(model.__getstate__())
    assert len(sent) > 10
    for metric, name, tensor in sent:
        assert not getattr(metric, name).is_shared()
        assert torch.equal(getattr(metric, name), tensor)


def test_the_remedies_work():
    for remedy in (Mine, functools.partial(SGD, lr=0.1)):
        again = HOW["pickle"](SoftmaxRegression(4, 2, optimizer=remedy))
        quiet_trainer().fit(again, rows())
