"""A run resumes its own experiment, never another, whoever else trains in the folder."""

import functools
import os
import re
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import MODELS, Interrupted, Stop, Trace, train, train_on_ranks
from lightning.pytorch import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from sampled import sampled, whole
from trainers import quiet_trainer

from smx_lightning import InputError, Recovery, SoftmaxRegression
from smx_lightning.data import DigitsDataModule
from smx_lightning.recovery import runs
from smx_lightning.recovery.callback import KEY

SGD = functools.partial(torch.optim.SGD, lr=0.1)
OTHERS = {  # what else may run in the folder, and how the difference is said
    "settings": ({"settings": {"l2": 0.5}}, "l2 0 there, 0.5 here"),
    "learning rate": (
        {"settings": {"optimizer": functools.partial(torch.optim.Adam, lr=1e-4)}},
        "optimizer.lr 0.01 there, 0.0001 here",
    ),
    "optimiser": ({"settings": {"optimizer": SGD}}, "torch.optim.adam.Adam there"),
    "class": ({"kind": "dropout", "settings": {}}, "interrupted.Noisy here"),
    "data": ({"data": DigitsDataModule(batch_size=200, seed=1)}, "data.seed 0 there, 1 here"),
    "trainer": ({"gradient_clip_val": 0.1}, "gradient_clip_val None there, 0.1 here"),
}


def files(folder):
    return sorted(path.name for path in (folder / "recovery").iterdir())


def only(folder):
    (file,) = (folder / "recovery").glob("last-*.ckpt")
    return file


def interrupted(folder, kind="adam", **options):
    with pytest.raises(Interrupted):
        train(folder, kind, **{"stop": 9, **options})


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What each experiment learns when nothing else goes on."""
    known = {}

    def learned(name="adam"):
        if name not in known:
            options = {"kind": "adam", **(OTHERS[name][0] if name in OTHERS else {})}
            known[name] = train(tmp_path_factory.mktemp("alone"), **options)
        return known[name]

    return learned


class Meanwhile(Callback):
    """Does something else before a batch."""

    def __init__(self, batch, action):
        self.batch, self.action, self.seen = batch, action, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batch:
            self.action()


@pytest.mark.parametrize("name", sampled(OTHERS, every=3))
def test_an_unfinished_run_of_another_experiment_is_not_resumed(tmp_path, alone, name):
    options, said = OTHERS[name]
    interrupted(tmp_path)
    kept = only(tmp_path)
    content = kept.read_bytes()
    for ckpt_path in (None, "last"):
        # The model looks first at a checkpoint that the Trainer loads.
        sooner = r"|expected a checkpoint with l2=[\d.]+" if ckpt_path else ""
        with pytest.raises(InputError, match=re.escape(said) + sooner) as refused:
            train(tmp_path, **{"kind": "adam", **options, "ckpt_path": ckpt_path})
        if "there, " in str(refused.value):
            assert "remove the file to begin anew" in str(refused.value)
        assert "\n" not in str(refused.value)
    assert files(tmp_path) == [kept.name]  # no lock is left
    assert kept.read_bytes() == content

    elsewhere = tmp_path / "elsewhere"  # a remedy
    other = train(
        tmp_path, **{"kind": "adam", **options}, saves={"dirpath": elsewhere, "every_n_steps": 3}
    )
    assert same(other, alone(name))
    assert same(train(tmp_path, "adam"), alone())  # another
    kept.unlink()  # the third
    interrupted(tmp_path)
    only(tmp_path).unlink()
    assert same(train(tmp_path, **{"kind": "adam", **options}), alone(name))


def test_longer_elsewhere_or_otherwise_logged_is_the_same_run(tmp_path, capsys):
    interrupted(tmp_path, max_epochs=3)
    train(tmp_path, "adam", max_epochs=4, val_check_interval=3, log_every_n_steps=1)
    assert "Resuming the run of" in capsys.readouterr().err


@pytest.mark.whole
@pytest.mark.parametrize("name", ["settings", whole("data")])
def test_two_experiments_in_one_folder_one_after_the_other(tmp_path, alone, name):
    options = {"kind": "adam", **OTHERS[name][0]}
    assert same(train(tmp_path, "adam"), alone())
    assert same(train(tmp_path, **options), alone(name))
    assert len(files(tmp_path)) == 2
    interrupted(tmp_path, **options)  # a second time: its own file is there
    assert same(train(tmp_path, "adam"), alone())
    assert same(train(tmp_path, **options), alone(name))
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("name", ["settings", whole("data")])
def test_two_experiments_in_one_folder_at_the_same_time(tmp_path, alone, name):
    options = {"kind": "adam", **OTHERS[name][0]}
    learned = []
    other = Meanwhile(9, lambda: learned.append(train(tmp_path, **options)))
    recovery = Recovery(every_n_steps=3)
    learned.append(train(tmp_path, "adam", callbacks=[Trace(tmp_path), recovery, other]))
    assert same(learned[0], alone(name))
    assert same(learned[1], alone())
    assert len(files(tmp_path)) == 2


def test_the_same_experiment_twice_at_once_is_refused(tmp_path, alone):
    said = []

    def again():
        with pytest.raises(InputError, match=r"no other process that trains this") as refused:
            train(tmp_path, "adam")
        said.append(str(refused.value))

    recovery = Recovery(every_n_steps=3)
    callbacks = [Trace(tmp_path), recovery, Meanwhile(9, again)]
    assert same(train(tmp_path, "adam", callbacks=callbacks), alone())
    assert f"process {os.getpid()} on {os.uname().nodename}" in said[0]
    assert files(tmp_path) == [only(tmp_path).name]


@pytest.mark.whole
def test_many_first_runs_at_once_all_live(tmp_path, alone, forkserver):
    """Each began by removing the others' drafts."""
    runs = []
    for k in range(4):
        options = {"settings": {"l2": k / 8}, "saves": {"every_n_steps": 1}}
        folder = tmp_path / str(k)
        folder.mkdir()
        options["saves"]["dirpath"] = tmp_path / "recovery"
        runs.append(forkserver.Process(target=train, args=(folder, "adam"), kwargs=options))
        runs[-1].start()
    for run in runs:
        run.join(120)
        assert run.exitcode == 0
    assert len(files(tmp_path)) == 4
    assert same(torch.load(tmp_path / "0" / "final.pt", weights_only=True), alone())


class Quits(Callback):
    """Ends the process before any batch, as a kill would."""

    def on_train_start(self, trainer, pl_module):
        raise Interrupted


def test_a_restart_before_the_first_save_finds_no_older_run(tmp_path, monkeypatch, alone):
    train(tmp_path, "adam")
    older = only(tmp_path)
    state = torch.load(older, weights_only=True)["state_dict"]
    with pytest.raises(Interrupted):
        train(tmp_path, "adam", callbacks=[Recovery(), Quits()])
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    (tmp_path / "batches").unlink()
    learned = train(tmp_path, "adam")
    assert len((tmp_path / "batches").read_text().splitlines()) == 6 * 7
    assert same(learned, state)
    assert files(tmp_path) == [older.name]  # what was set aside is gone


def test_what_was_set_aside_is_not_lost(tmp_path):
    state = train(tmp_path, "adam")
    with pytest.raises(Interrupted):
        train(tmp_path, "adam", callbacks=[Recovery(), Quits()])
    (tmp_path / "batches").unlink()
    (tmp_path / "batches").touch()
    assert same(train(tmp_path, "adam", ckpt_path="last"), state)
    assert (tmp_path / "batches").read_text() == ""
    assert files(tmp_path) == [only(tmp_path).name]


def test_a_file_that_is_set_aside_while_it_is_looked_at_is_nobody_s(tmp_path, monkeypatch):
    train(tmp_path, "adam", max_epochs=1)
    read = runs.read

    def late(path):
        path.unlink()
        return read(path)

    monkeypatch.setattr(runs, "read", late)
    train(tmp_path, "adam", max_epochs=1, settings={"l2": 0.5})


@pytest.mark.whole
@pytest.mark.parametrize(
    ("first", "second", "trained"),
    [
        ({"TORCHELASTIC_RUN_ID": "a"}, {"TORCHELASTIC_RUN_ID": "a"}, 0),
        ({"TORCHELASTIC_RUN_ID": "a"}, {"TORCHELASTIC_RUN_ID": "b"}, 1),
        ({"TORCHELASTIC_RUN_ID": "none"}, {"TORCHELASTIC_RUN_ID": "none"}, 0),
        ({"SLURM_JOB_ID": "1"}, {"SLURM_JOB_ID": "1"}, 0),
        ({"SLURM_JOB_ID": "1"}, {"SLURM_JOB_ID": "2"}, 1),
        ({}, {"TORCHELASTIC_RUN_ID": "a"}, 1),
    ],
)
def test_a_restart_finds_the_finished_training_of_its_own_run(
    tmp_path, monkeypatch, first, second, trained
):
    """Its process crashed after training, in a test or an export; or before it could say so."""
    batches = []
    for environ in (first, second):
        for name in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        train(tmp_path, "adam", max_epochs=1, plugins=LightningEnvironment())
        batches.append(len((tmp_path / "batches").read_text().splitlines()))
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert batches[1] == 7 * (1 + trained)


def as_of_0_1(folder, finished):
    """What 0.1 left behind: one file, which says nothing of its experiment."""
    if finished:
        train(folder, "adam")
    else:
        interrupted(folder)
    content = torch.load(only(folder), weights_only=True)
    for name in ("experiment", "run"):
        del content[KEY][name]
    only(folder).unlink()
    old = folder / "recovery" / "last.ckpt"
    torch.save(content, old)
    return old


def test_an_unfinished_run_of_0_1_is_named(tmp_path, alone):
    old = as_of_0_1(tmp_path, finished=False)
    with pytest.raises(InputError, match=r"last\.ckpt of an unfinished run of smx-lightning 0\.1"):
        train(tmp_path, "adam")
    assert same(train(tmp_path, "adam", ckpt_path=old), alone())  # a remedy
    old.unlink()  # the other
    assert same(train(tmp_path, "adam"), alone())


@pytest.mark.whole
def test_other_last_ckpt_files_are_left_alone(tmp_path, alone):
    old = as_of_0_1(tmp_path, finished=True)
    assert same(train(tmp_path, "adam"), alone())
    content = torch.load(old, weights_only=True)
    del content[KEY]  # as of a ModelCheckpoint(save_last=True)
    torch.save(content, old)
    only(tmp_path).unlink()
    assert same(train(tmp_path, "adam"), alone())
    assert old.exists()


@pytest.mark.whole
def test_last_finds_one_s_own_among_several(tmp_path, alone):
    for name in ("data", "settings"):
        train(tmp_path, **{"kind": "adam", **OTHERS[name][0]})
    train(tmp_path, "adam")
    for name in ("settings", "data"):  # which are no longer the newest
        (tmp_path / "batches").unlink()
        (tmp_path / "batches").touch()
        options = {"kind": "adam", **OTHERS[name][0]}
        assert same(train(tmp_path, **options, ckpt_path="last"), alone(name))
        assert (tmp_path / "batches").read_text() == ""  # it was finished


@pytest.mark.parametrize(
    "written", sampled([5, [1], "ab", {"experiment": 5}, {"experiment": "ab"}], every=4)
)
def test_files_that_only_look_like_ours_are_named(tmp_path, written):
    train(tmp_path, "adam", max_epochs=1)
    file = only(tmp_path)
    torch.save({**torch.load(file, weights_only=True), KEY: written}, file)
    with pytest.raises(InputError, match=r"last-.*\.ckpt.*remove it"):
        train(tmp_path, "adam", max_epochs=1)


def sharded(world_size, folder, **options):
    strategy = ModelParallelStrategy(tensor_parallel_size=2, save_distributed_checkpoint=False)
    options = {"strategy": strategy, "devices": world_size, "max_epochs": 2, **options}
    try:
        train(folder, "adam", **options)
    except (Interrupted, InputError) as end:
        return str(end) or "interrupted"
    return len(Path(folder, "batches").read_text().splitlines())


@pytest.mark.whole
def test_sharded_classes_keep_to_their_experiment(ranks, tmp_path):
    assert ranks.run(2, sharded, str(tmp_path), stop=9) == ["interrupted"] * 2
    said = ranks.run(2, sharded, str(tmp_path), settings={"l2": 0.5})
    assert said[0] == said[1]
    assert "l2 0 there, 0.5 here" in said[0]
    batches = ranks.run(2, sharded, str(tmp_path))[0]
    assert ranks.run(2, sharded, str(tmp_path), ckpt_path="last")[0] == batches  # it was finished
    assert files(tmp_path) == [only(tmp_path).name]


def test_a_path_that_is_given_goes_before(tmp_path):
    interrupted(tmp_path, stop=13)
    elsewhere = only(tmp_path).rename(tmp_path / "mine.ckpt")
    interrupted(tmp_path, stop=5)
    (tmp_path / "batches").unlink()
    train(tmp_path, "adam", ckpt_path=elsewhere)
    assert len((tmp_path / "batches").read_text().splitlines()) == 42 - 11
    with pytest.raises(InputError, match=r"optimizer\.lr 0\.01 there, 0\.0001 here"):
        train(tmp_path, "adam", ckpt_path=elsewhere, **OTHERS["learning rate"][0])
    with pytest.raises(InputError, match=r"with l2=0\.5, as the model has"):
        train(tmp_path, "adam", ckpt_path=elsewhere, **OTHERS["settings"][0])


# Parameters that are no longer finite --------------------------------------------------------


class Spoils(Callback):
    """Makes a parameter infinite or NaN after a batch."""

    def __init__(self, batch, value, name="smx.0.bias"):
        self.batch, self.value, self.name, self.seen = batch, value, name, 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batch:
            with torch.no_grad():
                pl_module.get_parameter(self.name).view(-1)[-1] = self.value


@pytest.mark.parametrize("value", sampled([float("nan"), float("inf"), -float("inf")], every=2))
def test_parameters_that_are_not_finite_replace_nothing(tmp_path, value, alone):
    spoils = [Trace(tmp_path), Recovery(every_n_steps=2), Spoils(11, value)]
    with pytest.raises(InputError, match=r"(nan|inf) in smx\.0\.bias in epoch 1; .*\.ckpt keeps"):
        train(tmp_path, "adam", callbacks=spoils)
    good = torch.load(only(tmp_path), weights_only=True)
    assert all(value.isfinite().all() for value in good["state_dict"].values())
    slower, said = OTHERS["learning rate"]
    with pytest.raises(InputError, match=re.escape(said)):  # it was told to remove the file
        train(tmp_path, "adam", **slower)
    assert same(train(tmp_path, "adam"), alone())  # from the last good state
    only(tmp_path).unlink()
    assert same(train(tmp_path, "adam", **slower), alone("learning rate"))


def test_nor_at_the_end(tmp_path):
    with pytest.raises(InputError, match="nothing was saved: begin anew"):
        train(
            tmp_path,
            "adam",
            max_epochs=1,
            callbacks=[Trace(tmp_path), Recovery(), Spoils(7, float("nan"))],
        )
    assert files(tmp_path) == []


def test_a_loss_that_became_nan_says_what_is_left(tmp_path, capsys):
    class Diverging(SoftmaxRegression):
        def loss(self, log_probs, y):
            return super().loss(log_probs, y) * (torch.nan if self.global_step > 4 else 1)

    trainer = quiet_trainer(
        max_epochs=3,
        callbacks=[Recovery(every_n_steps=4)],
        default_root_dir=tmp_path,
        enable_checkpointing=True,
    )
    with pytest.raises(InputError, match="the training loss became nan"):
        trainer.fit(Diverging(64, 10), DigitsDataModule(batch_size=200))
    assert f"{only(tmp_path)} keeps the last finite state" in capsys.readouterr().err


def test_frozen_parameters_may_hold_what_they_like(tmp_path):
    class Masked(SoftmaxRegression):
        def __init__(self):
            super().__init__(64, 10)
            mask = torch.full((3,), -torch.inf)
            self.mask = torch.nn.Parameter(mask, requires_grad=False)

    trainer = quiet_trainer(
        callbacks=[Recovery(every_n_steps=2)], default_root_dir=tmp_path, enable_checkpointing=True
    )
    trainer.fit(Masked(), DigitsDataModule())
    assert torch.load(only(tmp_path), weights_only=True)[KEY]["finished"]


# Ctrl-C ----------------------------------------------------------------------------------------


class Presses(Callback):
    """Sends this process SIGINT before a batch, and perhaps once more within it."""

    def __init__(self, batch, times=1):
        self.batch, self.times, self.seen = batch, times, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen += 1
        if self.seen == self.batch:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def pressed(folder, *callbacks):
    with pytest.raises(SystemExit) as end:
        train(folder, "adam", callbacks=[Trace(folder), *callbacks, Recovery(seconds=3600)])
    return end.value.code


@pytest.fixture
def _sigint():
    """As a terminal's programs have it, in the background too; Lightning leaves it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_sigint")
def test_ctrl_c_saves_and_exits_with_130(tmp_path, capfd, alone):
    assert pressed(tmp_path, Presses(9)) == 130
    assert "a second Ctrl-C ends at once" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert files(tmp_path) == [only(tmp_path).name]
    assert same(train(tmp_path, "adam"), alone())
    batches = (tmp_path / "batches").read_text().splitlines()
    assert len(batches) == len(set(batches)) == 42


@pytest.mark.usefixtures("_sigint")
def test_a_second_ctrl_c_ends_at_once(tmp_path):
    assert pressed(tmp_path, Presses(9, times=2)) == 1  # Lightning's
    assert files(tmp_path) == []


@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_a_sigint_that_somebody_answers_is_left_to_them(tmp_path, handler):
    signal.signal(signal.SIGINT, handler)
    callbacks = [Presses(3), Recovery()]
    train(tmp_path, "adam", max_epochs=1, callbacks=callbacks)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_thread_trains_without_signals(tmp_path, alone):
    learned = []
    thread = threading.Thread(target=lambda: learned.append(train(tmp_path, "adam")))
    thread.start()
    thread.join()
    assert same(learned[0], alone())


@pytest.mark.usefixtures("_sigint")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_pass_over_the_data_before_training_can_see_the_signal(tmp_path, number):
    class Slow(SoftmaxRegression):
        def on_train_start(self):
            os.kill(os.getpid(), number)
            if self.trainer.received_sigterm:
                from lightning.pytorch.utilities.exceptions import SIGTERMException

                raise SIGTERMException
            super().on_train_start()

    trainer = quiet_trainer(
        callbacks=[Recovery()], default_root_dir=tmp_path, enable_checkpointing=True
    )
    with pytest.raises(SystemExit) as end:
        trainer.fit(Slow(64, 10), DigitsDataModule())
    assert end.value.code == 128 + number
    assert files(tmp_path) == []


# Two processes -----------------------------------------------------------------------------------


def refused_on_ranks(world_size, folder, **options):
    try:
        return train_on_ranks(world_size, folder, **options)
    except InputError as error:
        return str(error)


def ctrl_c_on_ranks(world_size, folder, rank):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    presses = [Presses(9)] if int(os.environ["RANK"]) == rank else []
    callbacks = [Trace(folder), *presses, Recovery(seconds=3600)]
    return train_on_ranks(world_size, folder, kind="adam", callbacks=callbacks)


@pytest.mark.whole
def test_two_processes_refuse_together(ranks, tmp_path):
    kind = {"kind": "adam"}
    assert ranks.run(2, train_on_ranks, str(tmp_path), stop=13, **kind) == ["interrupted"] * 2
    other = {"settings": {"l2": 0.5}}
    said = ranks.run(2, refused_on_ranks, str(tmp_path), **kind, **other)
    assert said[0] == said[1]
    assert "l2 0 there, 0.5 here" in said[0]
    with pytest.raises(InputError, match=r"l2 0 there, 0\.5 here"):  # and one process
        train(tmp_path, **kind, **other)
    spoiled = ranks.run(2, spoiled_on_ranks, str(tmp_path))
    assert spoiled[0] == spoiled[1]
    assert "nan in smx.0.bias" in spoiled[0]
    assert ranks.run(2, train_on_ranks, str(tmp_path), **kind) == [0] * 2
    assert files(tmp_path) == [only(tmp_path).name]


def spoiled_on_ranks(world_size, folder):
    callbacks = [Trace(folder), Recovery(every_n_steps=2), Spoils(3, float("nan"))]
    return refused_on_ranks(world_size, folder, kind="adam", callbacks=callbacks)


@pytest.mark.whole
@pytest.mark.parametrize("rank", [whole(0), 1])
def test_ctrl_c_to_one_of_two_processes_ends_both(ranks, tmp_path, rank):
    assert ranks.run(2, ctrl_c_on_ranks, str(tmp_path), rank) == [130] * 2
    assert ranks.run(2, train_on_ranks, str(tmp_path), kind="adam") == [0] * 2
    batches = (tmp_path / "batches").read_text().splitlines()
    assert len(batches) == len(set(batches)) == 84


def test_a_refusal_of_a_folder_that_cannot_be_written(ranks, tmp_path):
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    saves = {"dirpath": str(blocked / "inside")}
    said = ranks.run(2, refused_on_ranks, str(tmp_path), kind="adam", saves=saves)
    assert said[0] == said[1]
    assert re.search("expected to write in .*inside.*Recovery", said[0])


def test_recovery_draws_no_random_number_of_the_user_s(tmp_path):
    drawn = []

    class Draws(Callback):
        def on_train_start(self, trainer, pl_module):
            drawn.append((torch.rand(1).item(), np.random.rand()))

    for recovery in ([], [Recovery()]):
        np.random.seed(5)
        train(tmp_path, "adam", max_epochs=1, callbacks=[Draws(), *recovery])
    assert drawn[0] == drawn[1]


def test_sigterm_gives_the_lock_back(tmp_path):
    stop = Stop(3, tmp_path / "sent")
    with pytest.raises(SystemExit) as end:
        train(tmp_path, "adam", stop=stop)
    assert end.value.code == 143
    assert files(tmp_path) == [only(tmp_path).name]


@pytest.mark.whole
def test_a_checkpoint_that_is_named_does_not_replace_an_unfinished_run(
    tmp_path, monkeypatch, capsys
):
    named, before = tmp_path / "named.ckpt", []
    interrupted(tmp_path, stop=20)
    only(tmp_path).rename(named)
    for k in (1, 2):
        interrupted(tmp_path)
        before.append(only(tmp_path).read_bytes())
        interrupted(tmp_path, stop=5, ckpt_path=named)
        aside = tmp_path / "recovery" / only(tmp_path).name.replace("last-", "aside-")
        aside = aside.with_name(f"{aside.stem}-{k}.ckpt")
        assert f"is kept in {aside}" in capsys.readouterr().err
        assert aside.read_bytes() == before[-1]
        only(tmp_path).unlink()
    state = train(tmp_path, "adam", ckpt_path=aside)
    assert same(state, train(tmp_path, "adam", ckpt_path=named))  # nothing but a finished run left
    interrupted(tmp_path)
    left = only(tmp_path)
    monkeypatch.setattr(runs, "restarted", lambda: True)  # a launcher names it every time
    assert same(state, train(tmp_path, "adam", ckpt_path=named))
    assert f"Resuming the run of {left}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    sampled(
        [
            lambda saved: saved.pop("tallies"),
            lambda saved: saved.pop("finished"),
            lambda saved: saved.pop("seed"),
            lambda saved: saved.update(tallies=5),
            lambda saved: saved.update(tallies=[{"counted": {}, "pending": []}]),
        ],
        every=4,
    ),
)
def test_a_run_without_its_counts_is_refused_in_a_sentence(change, tmp_path):
    interrupted(tmp_path)
    file = only(tmp_path)
    content = torch.load(file, weights_only=True)
    change(content[KEY])
    torch.save(content, file)
    with pytest.raises(InputError, match="a run's seed and counts in the checkpoint"):
        train(tmp_path, "adam")


class Frozen(SoftmaxRegression):
    """A backbone that is not trained, with running statistics and a buffer."""

    def __init__(self, weight=1.0, shift=0.0):
        super().__init__(64, 10)
        self.backbone = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64))
        self.backbone[0].weight.data.fill_(weight)
        self.register_buffer("shift", torch.full((), shift))
        self.backbone.requires_grad_(False)

    def features(self, x):
        return self.backbone(x.flatten(1)) + self.shift


@pytest.mark.whole
@pytest.mark.parametrize("other", [{"weight": 2.0}, {"shift": 1.0}])
def test_a_run_of_other_frozen_weights_is_another_experiment(other, tmp_path, monkeypatch):
    models = iter([{}, other, {}, {}])

    def make():
        model = Frozen(**next(models))
        model.hparams.update(
            weight=0, shift=0
        )  # a file that has changed leaves the arguments as they were
        return model

    monkeypatch.setitem(MODELS, "frozen", make)
    interrupted(tmp_path, "frozen")
    with pytest.raises(InputError, match=r"weights\.frozen \w{16} there, \w{16} here"):
        train(tmp_path, "frozen")
    named = tmp_path / "named.ckpt"
    named.write_bytes(only(tmp_path).read_bytes())
    state = train(tmp_path, "frozen")  # its own is gone on with
    only(tmp_path).unlink()
    assert same(state, train(tmp_path, "frozen", ckpt_path=named))


def test_a_run_that_began_with_other_weights_is_another_experiment(tmp_path, monkeypatch):
    for seed in (1, 2):
        torch.manual_seed(seed)
        trainer = quiet_trainer(max_epochs=0)
        trainer.strategy.connect(SoftmaxRegression(64, 10))
        trainer.save_checkpoint(tmp_path / f"{seed}.ckpt")
    load = functools.partial(SoftmaxRegression.load_from_checkpoint, tmp_path / "1.ckpt")
    monkeypatch.setitem(MODELS, "warm", load)
    interrupted(tmp_path, "warm")
    other = functools.partial(SoftmaxRegression.load_from_checkpoint, tmp_path / "2.ckpt")
    monkeypatch.setitem(MODELS, "warm", other)
    with pytest.raises(InputError, match=r"weights\.loaded \w{16} there, \w{16} here"):
        train(tmp_path, "warm")
    monkeypatch.setitem(MODELS, "warm", load)
    (tmp_path / "batches").unlink()
    train(tmp_path, "warm")
    assert len((tmp_path / "batches").read_text().splitlines()) < 42


def test_a_run_that_cannot_be_gone_on_with_is_named(tmp_path, monkeypatch):
    def changed():
        model = SoftmaxRegression(64, 10)
        model.l2 = l2
        return model

    monkeypatch.setitem(MODELS, "live", changed)
    l2 = 0.0
    interrupted(tmp_path, "live")
    l2 = 9.0
    with pytest.raises(InputError, match=f"l2=9.0, .*remove {only(tmp_path)} to train anew") as no:
        train(tmp_path, "live")
    assert "ckpt_path" not in str(no.value)
    only(tmp_path).unlink()
    train(tmp_path, "live", max_epochs=1)  # the remedy


def test_the_same_model_goes_on_after_it_was_interrupted(tmp_path, capsys):
    """As in a notebook: one object, stopped and fitted again."""

    class Once(Callback):
        stopped = False

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.current_epoch == 1 and not self.stopped:
                self.stopped = True
                raise Interrupted

    def fit(model, *callbacks):
        recovery = Recovery(dirpath=str(tmp_path), every_n_steps=1)
        trainer = quiet_trainer(
            max_epochs=3, callbacks=[*callbacks, recovery], enable_checkpointing=True
        )
        trainer.fit(model, DigitsDataModule())

    torch.manual_seed(0)
    model = SoftmaxRegression(64, 10, preprocessing="standardize")
    with pytest.raises(Interrupted):
        fit(model, Once())
    fit(model)
    assert "Resuming the run of" in capsys.readouterr().err
