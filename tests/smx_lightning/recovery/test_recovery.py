"""Whatever interrupts a training, the next run ends at the bits of one that nothing interrupted."""

import functools
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from interrupted import Interrupted, Save, Stop, traces, train, train_on_ranks
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau
from lightning.pytorch.demos.boring_classes import BoringModel
from sampled import sampled, whole
from tools import SUPPORT

from smx_lightning import InputError, Recovery
from smx_lightning.checkpoint.writing import WholeFileIO
from smx_lightning.processes.drafts import Draft


def saved(folder):
    """Recovery's checkpoints of finished and unfinished runs."""
    return list((folder / "recovery").glob("last-*.ckpt"))


def final(folder):
    return torch.load(folder / "final.pt", weights_only=True)


def assert_same_run(folder, undisturbed):
    ours, theirs = final(folder), final(undisturbed)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert traces(folder) == traces(undisturbed)


@pytest.fixture
def two_runs(tmp_path):
    """Folders of a run that nothing interrupts, and of one that something does."""
    folders = tmp_path / "whole", tmp_path / "stopped"
    for folder in folders:
        folder.mkdir()
    return folders


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folders of runs that nothing interrupts, made when first asked for."""
    made = {}

    def run(kind, **trainer):
        key = (kind, *sorted(trainer.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("undisturbed")
            train(made[key], kind, **trainer)
        return made[key]

    return run


STOPPED = [
    (kind, trainer, batch)
    for kind, trainer in [
        ("dropout", {}),
        ("dropout", {"accumulate_grad_batches": 2}),
        ("dropout", {"val_check_interval": 3}),
        ("exact", {}),
        ("exact", {"val_check_interval": 3}),
        ("rows", {}),
        ("exact rows", {}),
    ]
    # Epochs have seven; later ones may be rejected by the exact solver.
    for batch in range(2, {"exact": 42, "exact rows": 28}.get(kind, 20), 3 if trainer else 1)
]
WEIGHTED = [("rows", {}, 12), ("exact rows", {}, 12)]


@pytest.mark.parametrize(("kind", "trainer", "batch"), sampled(STOPPED, every=14, named=WEIGHTED))
def test_a_run_stopped_before_any_batch_goes_on(undisturbed, tmp_path, kind, trainer, batch):
    with pytest.raises(Interrupted):
        train(tmp_path, kind, stop=batch, **trainer)
    train(tmp_path, kind, **trainer)
    assert_same_run(tmp_path, undisturbed(kind, **trainer))


PRECISIONS = [
    (kind, precision)
    for kind in ("adam", "momentum", "exact")
    for precision in ("64-true", "32-true", "bf16-true")
    if (kind, precision) != ("exact", "bf16-true")  # which it refuses
]


FEW_PRECISIONS = sampled(PRECISIONS, every=3)  # each kind, and each precision


@pytest.mark.parametrize(("kind", "precision"), FEW_PRECISIONS)
def test_a_run_goes_on_in_all_its_digits(undisturbed, tmp_path, kind, precision):
    common = {"precision": precision, "max_epochs": 3}
    with pytest.raises(Interrupted):
        train(tmp_path, kind, stop=12, **common)
    train(tmp_path, kind, **common)
    assert_same_run(tmp_path, undisturbed(kind, **common))


@pytest.mark.parametrize(("kind", "precision"), FEW_PRECISIONS)
def test_fit_itself_goes_on_in_all_its_digits(undisturbed, tmp_path, kind, precision):
    common = {"precision": precision, "max_epochs": 3}
    path = tmp_path / "mid.ckpt"
    without = {"callbacks": [], "enable_checkpointing": False}
    with pytest.raises(Interrupted):
        train(tmp_path, kind, **{**common, **without, "callbacks": [Save(10, path)]})
    train(tmp_path, kind, **common, **without, ckpt_path=path)
    ours, theirs = final(tmp_path), final(undisturbed(kind, **common))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_run_on_a_gpu_goes_on_too(two_runs):
    gpu = {"accelerator": "gpu", "devices": 1, "deterministic": True}
    whole, stopped = two_runs
    train(whole, **gpu)
    with pytest.raises(Interrupted):
        train(stopped, stop=12, **gpu)
    train(stopped, **gpu)
    assert_same_run(stopped, whole)


def killed_at_random(kind, kills, tmp_path, undisturbed, context):
    """Kill trainings at random moments and start them again, until so many have been killed."""
    moments = random.Random()
    runs = 0
    while kills > 0:
        runs += 1
        folder = tmp_path / f"{kind}{runs}"
        folder.mkdir()
        while not (folder / "final.pt").exists():
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=train, args=(folder, kind), kwargs={"started": theirs}, daemon=True
            )
            process.start()
            theirs.close()
            assert ours.poll(60)
            ours.close()
            if kills > 0:
                process.join(moments.uniform(0, 1))
            else:
                process.join(60)
            killed = process.is_alive()
            process.kill()
            process.join()
            kills -= killed
            for file in saved(folder):
                torch.load(file, weights_only=True)  # whatever was being written
            assert killed or process.exitcode == 0
        assert_same_run(folder, undisturbed(kind))
    return runs


@pytest.mark.parametrize(
    ("kind", "kills"),
    sampled(
        [("dropout", 2), ("dropout", 5), ("exact", 5), ("rows", 3), ("exact rows", 3)],
        named=[("dropout", 2)],
    ),
)
def test_kill_9_at_random_moments_costs_nothing(undisturbed, tmp_path, kind, kills, forkserver):
    killed_at_random(kind, kills, tmp_path, undisturbed, forkserver)


@pytest.mark.whole
@pytest.mark.parametrize("kind", ["dropout", "exact"])
def test_kill_9_a_hundred_times_costs_nothing(undisturbed, tmp_path, kind, forkserver):
    runs = killed_at_random(kind, 100, tmp_path, undisturbed, forkserver)
    print(f"{kind}: 100 kills in {runs} runs")


@pytest.mark.whole
@pytest.mark.parametrize("after", [2, whole(3)])
def test_several_processes_go_on_also_as_another_number(ranks, two_runs, after):
    whole, stopped = two_runs
    kind = {"kind": "dropout" if after == 2 else "adam"}  # whose noise is each process's own
    assert ranks.run(2, train_on_ranks, str(whole), **kind) == [0] * 2
    assert ranks.run(2, train_on_ranks, str(stopped), stop=13, **kind) == ["interrupted"] * 2
    assert ranks.run(after, train_on_ranks, str(stopped), **kind) == [0] * after
    if after == 2:
        assert_same_run(stopped, whole)
        return
    for name, value in final(whole).items():
        torch.testing.assert_close(final(stopped)[name], value, rtol=0, atol=1e-6)
    for epoch in range(1, 7):  # the rows are the same, and each is counted once
        values = []
        for folder in (whole, stopped):
            (metrics,) = traces(folder)["metrics", epoch]
            values.append({k: float.fromhex(v) for k, v in json.loads(metrics).items()})
        assert values[1] == pytest.approx(values[0], rel=1e-5, abs=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("rank", [whole(0), 1])
def test_sigterm_to_one_of_several_processes_ends_all_of_them(ranks, two_runs, rank):
    whole, stopped = two_runs
    by_the_clock = {"saves": {"seconds": 3600}}
    assert ranks.run(2, train_on_ranks, str(whole), **by_the_clock) == [0] * 2
    stop = Stop(9, stopped / "sent", rank)
    answers = ranks.run(2, train_on_ranks, str(stopped), stop=stop, **by_the_clock)
    assert answers == [143] * 2
    assert len(saved(stopped)) == 1
    assert ranks.run(2, train_on_ranks, str(stopped), **by_the_clock) == [0] * 2
    assert_same_run(stopped, whole)


@pytest.mark.parametrize("kind", ["dropout", whole("exact")])
def test_the_clock_says_when_to_save(undisturbed, tmp_path, kind):
    with pytest.raises(Interrupted):
        train(tmp_path, kind, stop=10, saves={"seconds": 0})
    resumed = len((tmp_path / "batches").read_text().splitlines())
    assert resumed == 9  # each of which was saved before
    train(tmp_path, kind, saves={"seconds": 3600})
    batches = (tmp_path / "batches").read_text().splitlines()
    repeated = len(batches) - len(set(batches))
    assert repeated == (1 if kind == "dropout" else 2)  # of two in the epoch: it begins anew
    assert_same_run(tmp_path, undisturbed(kind))


@pytest.mark.whole
def test_sigterm_saves_and_the_command_exits_with_143(tmp_path):
    command = [sys.executable, "-m", "smx_lightning", "fit", "--config", "run.yaml"]
    (tmp_path / "run.yaml").write_text(
        "trainer:\n"
        "  accelerator: cpu\n"
        "  max_epochs: 4\n"
        "  enable_progress_bar: false\n"
        "  callbacks:\n"
        "  - smx_lightning.Recovery\n"
        "  - class_path: interrupted.Stop\n"
        "    init_args: {batch: 13, marker: stopped}\n"
        "model:\n"
        "  init_args:\n"
        "    optimizer: torch.optim.Adam\n"
    )
    paths = os.pathsep.join([*sys.path, str(SUPPORT)])
    runs = []
    for _ in range(3):  # stopped, resumed, and once more from the beginning
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            timeout=120,
        )
        runs.append((done.returncode, done.stdout.splitlines(), done.stderr))
    stopped, resumed, again = runs
    assert stopped[0] == 143
    assert resumed[0] == again[0] == 0, resumed[2] + again[2]
    assert "Resuming the run of" in resumed[2]
    assert "Resuming" not in again[2]
    assert resumed[1][:6] == again[1][:6]  # the metrics of the best checkpoint on the test rows


def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path):
    file = tmp_path / "last.ckpt"
    WholeFileIO().save_checkpoint({"weights": torch.ones(10)}, file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # as if there were no more room
    try:
        with pytest.raises(InputError, match="has room"):
            WholeFileIO().save_checkpoint({"weights": torch.zeros(10000)}, file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert torch.equal(torch.load(file, weights_only=True)["weights"], torch.ones(10))
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]


def test_every_checkpoint_of_the_run_is_written_whole(tmp_path, monkeypatch):
    written = []
    save = WholeFileIO.save_checkpoint

    def noted(self, checkpoint, path, **kwargs):
        written.append(Path(path))
        save(self, checkpoint, path, **kwargs)

    monkeypatch.setattr(WholeFileIO, "save_checkpoint", noted)
    other = ModelCheckpoint(dirpath=tmp_path / "others", monitor="val/nll")
    train(tmp_path, callbacks=[Recovery(), other], max_epochs=2)
    assert {path.parent.name for path in written} == {"others", "recovery"}


def test_a_finished_run_is_resumed_only_on_demand(tmp_path, monkeypatch, undisturbed):
    train(tmp_path, max_epochs=2)
    batches = (tmp_path / "batches").read_text()
    train(tmp_path, max_epochs=2, ckpt_path="last")
    assert (tmp_path / "batches").read_text() == batches
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(tmp_path, max_epochs=2)
    assert (tmp_path / "batches").read_text() == batches
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT")
    train(tmp_path, max_epochs=2)
    assert (tmp_path / "batches").read_text() == 2 * batches
    train(tmp_path, max_epochs=6, ckpt_path="last")  # more of it
    assert traces(tmp_path) == traces(undisturbed("dropout"))


@pytest.mark.parametrize("kind", ["adam", whole("exact")])
@pytest.mark.parametrize("batch", sampled([3, 7, 10], named=[10]))  # of an epoch of seven
def test_a_checkpoint_of_lightning_s_own_resumes_in_mid_epoch(tmp_path, undisturbed, kind, batch):
    path = tmp_path / "mid.ckpt"
    with pytest.raises(Interrupted):
        train(tmp_path, kind, callbacks=[Save(batch, path)], enable_checkpointing=False)
    train(tmp_path, kind, callbacks=[], enable_checkpointing=False, ckpt_path=path)
    ours, theirs = final(tmp_path), final(undisturbed(kind))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("name", sampled(["own", "last-0123abcd.ckpt", "last.ckpt"], named=["own"]))
def test_a_damaged_checkpoint_is_named(tmp_path, name):
    if name == "own":
        train(tmp_path, max_epochs=1)
        (file,) = saved(tmp_path)
    else:
        file = tmp_path / "recovery" / name
        file.parent.mkdir()
    file.write_bytes(b"PK\x03\x04 no checkpoint")
    with pytest.raises(InputError, match=rf"{re.escape(file.name)}.*remove it"):
        train(tmp_path, max_epochs=1)
    assert file.exists()
    file.unlink()
    train(tmp_path, max_epochs=1)


def test_one_flipped_bit_of_an_unfinished_run_is_found_before_it_goes_on(tmp_path):
    with pytest.raises(Interrupted):
        train(tmp_path, stop=8)
    (file,) = saved(tmp_path)
    good = file.read_bytes()
    weights = torch.load(file, weights_only=True)["state_dict"]["smx.0.weight"].numpy().tobytes()
    for at in (good.index(weights), good.index(weights) + len(weights) - 1):
        file.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(
            InputError, match=rf"{re.escape(file.name)}.*damaged.*remove it"
        ) as told:
            train(tmp_path)
        assert "\n" not in str(told.value)
        assert file.exists()
    file.write_bytes(good[: len(good) // 2])
    with pytest.raises(InputError, match=rf"{re.escape(file.name)}.*remove it"):
        train(tmp_path)
    file.write_bytes(good)
    train(tmp_path)


def test_drafts_of_a_killed_run_are_removed_and_no_others(tmp_path):
    train(tmp_path, max_epochs=1)
    (file,) = saved(tmp_path)
    own, other = Draft(file.parent, 0o666), Draft(file.parent, 0o666)
    for draft in (own, other):
        draft.path.write_bytes(b"half a checkpo")
    own.release()  # as the kernel does when its process is killed; that of the other lives
    train(tmp_path, max_epochs=1)
    assert {path.name for path in file.parent.iterdir()} == {file.name, other.path.name}
    other.release()


def test_arguments_and_modules_that_make_no_sense_are_refused(tmp_path, quiet_trainer):
    with pytest.raises(InputError, match="seconds must be a finite number of at least 0, got -1"):
        Recovery(seconds=-1)
    with pytest.raises(InputError, match="every_n_steps must be at least 1, got -2"):
        Recovery(every_n_steps=-2)
    trainer = quiet_trainer(
        callbacks=[Recovery()], enable_checkpointing=True, default_root_dir=tmp_path
    )
    with pytest.raises(InputError, match="Recovery expected a SoftmaxRegression"):
        trainer.fit(BoringModel())


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    train(tmp_path, max_epochs=1)
    assert signal.getsignal(signal.SIGTERM) == before


def plateau():
    """A schedule that lowers the rate after every epoch that does not halve the loss."""
    make = functools.partial(
        ReduceLROnPlateau, monitor="val/nll", patience=0, threshold=0.5, factor=0.5
    )
    return {"preprocessing": "standardize", "lr_scheduler": make}


@pytest.mark.parametrize("stop", sampled([2, 8, 14], named=[8]))  # in each of the first epochs
def test_a_schedule_that_follows_a_metric_is_stepped_in_the_resumed_epoch(stop, two_runs):
    whole, stopped = two_runs
    train(whole, "adam", settings=plateau(), max_epochs=4)
    with pytest.raises(Interrupted):
        train(stopped, "adam", settings=plateau(), max_epochs=4, stop=stop)
    train(stopped, "adam", settings=plateau(), max_epochs=4)
    assert_same_run(stopped, whole)
