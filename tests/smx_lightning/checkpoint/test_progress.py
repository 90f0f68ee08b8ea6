"""What the Trainer's loops have counted: a checkpoint that says nonsense of it is refused."""

import copy
import warnings

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from sampled import sampled
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.optim import ExactSolver

MISSING = "missing"
VALUES = [MISSING, ["a"], None, "x", {}, -5, 10**30, 1.5, {"q": 1}, True]
EPOCHS = ("fit_loop", "epoch_progress", "current", "completed")
FUNCTIONS = {
    "fit_loop": "fit", "validate_loop": "validate", "test_loop": "test", "predict_loop": "predict"
}  # fmt: skip


def model(optimizer):
    return SoftmaxRegression(
        4, 3, l2=0.1, **({} if optimizer is None else {"optimizer": optimizer})
    )


def rows():
    x = torch.linspace(-1, 1, 160).view(40, 4).sin()
    return DataLoader(TensorDataset(x, torch.arange(40) % 3), batch_size=10)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The content of a checkpoint, by the optimiser that made it."""
    contents, path = {}, tmp_path_factory.mktemp("progress") / "a.ckpt"
    for optimizer in (None, ExactSolver):
        trainer = quiet_trainer(max_epochs=2)
        trainer.fit(model(optimizer), rows())
        trainer.save_checkpoint(path)
        contents[optimizer] = torch.load(path, weights_only=True)
    return contents


def places(state, begin=()):
    """The way to every entry of nested dictionaries."""
    for name, value in state.items():
        yield (*begin, name)
        if isinstance(value, dict):
            yield from places(value, (*begin, name))


def changed(content, place, value):
    loops = copy.deepcopy(content["loops"])
    *way, last = place
    inner = loops
    for name in way:
        inner = inner[name]
    if value == MISSING:
        del inner[last]
    else:
        inner[last] = value
    return {**content, "loops": loops}


@pytest.mark.parametrize(
    ("value", "optimizer"),
    sampled(
        [*((value, None) for value in VALUES), (MISSING, ExactSolver), (-5, ExactSolver)],
        named=[(-5, None)],
    ),
)
def test_a_checkpoint_counts_or_is_refused(value, optimizer, saved, tmp_path):
    content, path = saved[optimizer], tmp_path / "changed.ckpt"
    refused = []
    for place in places(content["loops"]):
        torch.save(changed(content, place, value), path)
        trainer = quiet_trainer(max_epochs=3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning's, of what cannot go on in mid-epoch
            try:
                function = getattr(trainer, FUNCTIONS[place[0]])
                function(model(optimizer), rows(), ckpt_path=path, weights_only=True)
            except InputError as error:
                refused.append((place[0], str(error)))
            except MisconfigurationException:  # Lightning's: so many epochs are more than three
                assert (*place, value) == (*EPOCHS, 10**30)
    assert refused
    said = {m for name, m in refused if f"got no counts of batches as {name}; it" not in m}
    assert not said or (optimizer and all("expects the same rows every epoch" in m for m in said))
