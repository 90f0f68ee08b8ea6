"""Models trained on streams: the same weights on any number of processes, and after a stop."""

import functools

import numpy as np
import pyarrow as pa
import pytest
import streamed
import torch
from interrupted import Interrupted, Stop
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from sampled import sampled
from streamed import UNEVEN, fitted, table, write
from trainers import quiet_trainer

from smx_lightning import InputError, Recovery, SoftmaxRegression
from smx_lightning.data import BatchLoader, Rows, StreamedTableDataModule
from smx_lightning.data.streams.loader import StreamLoader
from smx_lightning.optim import ExactSolver

N = sum(map(sum, UNEVEN))
WEIGHTED = {"class_weight": [1, 2, 3], "preprocessing": "standardize", "l2": 0.1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven files of unequal row groups; some rows have no label, and their weights differ."""
    folder = tmp_path_factory.mktemp("uneven")
    made = table(N).to_pydict()
    rng = np.random.default_rng(1)
    made["label"] = [None if k % 11 == 3 else label for k, label in enumerate(made["label"])]
    write(folder / "set", made=pa.table({**made, "weight": rng.choice([0.0, 0.5, 3.0], N)}))
    return folder / "set"


CASES = [
    (world_size, optimizer, rows)
    for world_size in (2, 3)
    for optimizer in ("sgd", "adam", "exact")
    for rows in ("plain", "weighted")
]


@pytest.mark.parametrize(
    ("world_size", "optimizer", "rows"),
    sampled(CASES, named=[(3, "adam", "weighted"), (3, "exact", "plain")]),
)
def test_several_processes_end_with_the_weights_of_one(ranks, folder, world_size, optimizer, rows):
    data = {"plain": {"drop": ["number", "weight"]}, "weighted": {"weight": "weight"}}[rows]
    case = {"optimizer": optimizer, "data": data, "epochs": 60 if optimizer == "exact" else 4}
    model = {} if optimizer == "sgd" else WEIGHTED
    one = fitted(1, folder, **case, **model)
    several = ranks.run(world_size, fitted, folder, **case, **model)
    for name in ("weight", "bias"):
        for other in several:
            np.testing.assert_array_equal(other[name], several[0][name])
        np.testing.assert_allclose(several[0][name], one[name], rtol=0, atol=1e-12)
    assert one["status"] == several[0]["status"] == ("CONVERGED" if one["status"] else None)
    shares = zip(*(other["seen"] for other in several), strict=True)
    if optimizer != "exact":  # which may stop an epoch earlier or later
        for batch, parts in zip(one["seen"], shares, strict=True):
            assert [*parts] == [batch[rank::world_size] for rank in range(world_size)]


def test_more_processes_than_rows_end_with_the_weights_of_one(ranks, tmp_path):
    write(tmp_path, [[1], [0], [1], [2]], made=_of_each_class())
    case = {"optimizer": "adam", "data": {"val": tmp_path, "test": tmp_path, "batch_size": 3}}
    one, several = fitted(1, tmp_path, **case), ranks.run(3, fitted, tmp_path, **case)
    np.testing.assert_allclose(several[0]["weight"], one["weight"], rtol=0, atol=1e-12)
    assert [len(batch) for batch in several[2]["seen"]] == [1, 0] * 4


def _of_each_class():
    made = table(4).to_pydict()
    return pa.table({**made, "label": ["a", "b", "c", "a"]})


def test_a_stream_trains_as_the_same_rows_in_memory_do(folder):
    """The same batches from memory give the same bits; the exact optimum is scikit-learn's way."""
    data = streamed.module(folder, drop=["number"], weight="weight")
    batches = [*data.train_dataloader()]
    x, y, weight = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert (y == -1).any()
    for optimizer in (functools.partial(torch.optim.Adam, lr=0.01), ExactSolver):
        weights = []
        for loader in (data, BatchLoader(Rows(x, y, weight), batch_size=32)):
            torch.manual_seed(0)
            model = SoftmaxRegression(2, 3, optimizer=optimizer, preprocessing="standardize")
            epochs = 1 if optimizer is not ExactSolver else 100
            runner = quiet_trainer(max_epochs=epochs, limit_val_batches=0)
            runner.fit(model, loader)
            weights.append(model.linear.weight.detach())
        if optimizer is ExactSolver:  # whose stream is in another order
            torch.testing.assert_close(*weights, rtol=0, atol=1e-5)
        else:
            assert torch.equal(*weights)


def test_the_exact_solver_reads_the_rows_in_order(folder):
    """Adam's are shuffled; so is what a second epoch serves."""
    for optimizer, shuffled in ((ExactSolver, False), (torch.optim.Adam, True)):
        data = StreamedTableDataModule(folder, "label", batch_size=32, drop=["weight"])
        model = SoftmaxRegression(3, 3, optimizer=optimizer, l2=1e-3, preprocessing="standardize")
        seen = []
        model.training_step = functools.partial(_seen, seen, model.training_step)
        quiet_trainer(max_epochs=2, limit_val_batches=0).fit(model, data)
        half = seen[: len(seen) // 2]
        assert (half == sorted(half)) is not shuffled
        assert (seen[len(half) :] == half) is not shuffled


def _seen(seen, step, batch, batch_idx):
    seen += batch[0][:, 0].tolist()
    return step(batch, batch_idx)


@pytest.mark.parametrize("optimizer", ["adam", "exact"])
@pytest.mark.parametrize("by", ["lightning", "recovery"])
def test_a_run_that_stops_in_mid_epoch_ends_with_the_same_bits(
    folder, tmp_path, monkeypatch, optimizer, by
):
    monkeypatch.chdir(tmp_path)
    optimizer = functools.partial(torch.optim.Adam, lr=0.01) if optimizer == "adam" else ExactSolver
    read = []
    slices = "smx_lightning.data.streams.windows.slices"
    own = __import__("smx_lightning.data.streams.reading", fromlist=["slices"]).slices

    def counted(files, part, groups, entries):
        read.append(len(groups))
        return own(files, part, groups, entries)

    monkeypatch.setattr(slices, counted)

    def run(folder_, callbacks, **fit):
        torch.manual_seed(0)
        data = streamed.module(folder, drop=["number"], weight="weight")
        model = SoftmaxRegression(2, 3, optimizer=optimizer, l2=1e-3, preprocessing="standardize")
        trainer = quiet_trainer(
            max_epochs=4,
            callbacks=callbacks,
            default_root_dir=folder_,
            limit_val_batches=0,
            enable_checkpointing=True,
        )
        trainer.fit(model, data, **fit)
        return {**model.state_dict(), **trainer.callback_metrics}, trainer.global_step

    whole, steps = run(tmp_path / "whole", [ModelCheckpoint(tmp_path / "whole")])
    batches = len(streamed.module(folder, drop=["number"]).train_dataloader())
    assert batches > 6
    stop = batches + 5  # in the second epoch
    first = (
        Recovery(every_n_steps=1) if by == "recovery" else _Save(tmp_path / "mid.ckpt", stop - 2)
    )
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", [first, Stop(stop), ModelCheckpoint(tmp_path / "stopped")])
    read.clear()
    again = [Recovery(every_n_steps=1)] if by == "recovery" else []
    path = {"ckpt_path": tmp_path / "mid.ckpt"} if by == "lightning" else {}
    resumed, again_steps = run(
        tmp_path / "stopped", [*again, ModelCheckpoint(tmp_path / "b")], **path
    )
    assert again_steps == steps
    for name, value in whole.items():
        if by == "recovery" or not name.startswith("train/"):  # Lightning forgets half an epoch's
            assert torch.equal(resumed[name], value), name
    if optimizer is not ExactSolver:  # which repeats its epoch
        assert read[0] < max(read)  # row groups that were served before are not read again


class _Save(Callback):
    """Saves behind a batch, as ModelCheckpoint does every so many steps."""

    def __init__(self, path, batch):
        self.path, self.batch, self.seen = path, batch, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batch:
            trainer.save_checkpoint(self.path)


def test_recovery_knows_a_stream_by_its_files(folder, tmp_path, monkeypatch):
    """A run on other files, another window or another split is another experiment."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "other", made=table(N, seed=5))

    def start(source, **data):
        model = SoftmaxRegression(3, 3)
        module = streamed.module(source, **{"drop": [], **data})
        stop = {"callbacks": [Recovery(every_n_steps=1), Stop(3)], "enable_checkpointing": True}
        with pytest.raises(Interrupted):
            quiet_trainer(limit_val_batches=0, **stop).fit(model, module)

    write(tmp_path / "mine")
    start(tmp_path / "mine")
    for source, data, differs in (
        ("other", {}, "hash of footers"),
        ("mine", {"window": 32}, "window 64 there, 32 here"),
        ("mine", {"seed": 1}, "seed"),
        ("mine", {"val_fraction": 0.2}, "val_fraction"),
    ):
        with pytest.raises(InputError, match=differs):
            start(tmp_path / source, **data)


def test_a_loader_says_the_rows_of_each_batch(folder):
    loader = StreamLoader(streamed.rows_of(folder), batch_size=64, rank=1, world_size=2)
    rows = [loader.batch_sampler.rows(k) for k in range(len(loader))]
    assert rows == [64] * (N // 64) + [N % 64]
