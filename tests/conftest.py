"""Fixtures that several test files share."""

import gc
import multiprocessing
import os
import sys
from multiprocessing.forkserver import ensure_running

if "PYTEST_XDIST_WORKER" in os.environ:  # one core each; for the processes that tests start, too
    os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
import rich
import torch
import trainers
from hypothesis import settings
from processes import Ranks
from torch.utils.data import BatchSampler, DataLoader

from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule

# Fresh examples at a developer's every run; in CI the same ones: a failure is then the change's.
for name, percent in {"whole": 100, "short": 20}.items():
    settings.register_profile(
        name,
        max_examples=percent,
        deadline=None,  # speed is a matter of the machine
        derandomize=bool(os.environ.get("CI")),
    )


def pytest_configure(config):
    """Where the marker expression leaves tests out, hypothesis leaves examples out."""
    short = "not whole" in config.getoption("markexpr")
    settings.load_profile("short" if short else "whole")


def pytest_collection_finish():
    """What was imported is no garbage; to look at it again and again takes a tenth of the time."""
    gc.freeze()


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)
    np.random.seed(0)  # the models of some tests draw from it


@pytest.fixture(autouse=True)
def _whole():
    """What Lightning and rich leave behind where a loader or a bar raised, undone."""
    yield
    for kind in (DataLoader, BatchSampler, *subclasses(DataLoader), *subclasses(BatchSampler)):
        for name in ("__init__", "__setattr__", "__delattr__"):
            patched = vars(kind).get(name)
            if patched is not (own := unpatched(patched)):
                setattr(kind, name, own)
            if f"__old{name}" in vars(kind):
                delattr(kind, f"__old{name}")
    rich.reconfigure()


def unpatched(method):
    """Below what Lightning wrapped around it, once for each loader that raised."""
    while getattr(method, "__globals__", {}).get("__name__") == "lightning.fabric.utilities.data":
        method = method.__wrapped__
    return method


def subclasses(kind):
    """Of a class, at any distance."""
    return {below for child in kind.__subclasses__() for below in (child, *subclasses(child))}


@pytest.fixture
def cli_folder(tmp_path, monkeypatch):
    """An empty working folder, and a command line that pytest's own arguments do not leak into."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["smx-lightning"])
    return tmp_path


@pytest.fixture
def quiet_trainer():
    """A CPU trainer that prints and writes nothing."""
    return trainers.quiet_trainer


@pytest.fixture(scope="session")
def ranks():
    """Processes that take jobs as ranks of one group, see processes.py."""
    started = Ranks()
    yield started
    started.stop()


@pytest.fixture(scope="session")
def forkserver():
    """Of multiprocessing, for processes that begin with torch and interrupted.py imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["interrupted"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        ensure_running()
    return context


@pytest.fixture(scope="session")
def digits():
    """The digits data module: read once."""
    return DigitsDataModule()


@pytest.fixture(scope="session")
def _training(digits, tmp_path_factory):
    torch.manual_seed(0)
    model = SoftmaxRegression(
        64, 10, preprocessing="standardize", input_shape=(8, 8), class_names=digits.class_names
    )
    trainer = trainers.quiet_trainer(max_epochs=5)
    trainer.fit(model, digits)
    path = tmp_path_factory.mktemp("checkpoint") / "digits.ckpt"
    trainer.save_checkpoint(path)
    return model, path


@pytest.fixture(scope="session")
def trained(_training):
    """A model trained on digits for a few epochs, with standardisation."""
    return _training[0]


@pytest.fixture(scope="session")
def checkpoint(_training):
    """The checkpoint of ``trained``."""
    return _training[1]


@pytest.fixture
def two_blobs():
    """A binary problem (400, 5) that is not separable, float64."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5))
    y = (x @ np.array([1.0, -2.0, 0.5, 0.0, 0.0]) + rng.normal(size=400) > 0.3).astype(np.int64)
    return x, y
