"""Whatever ends a command, its code means nothing else, and one sentence says why."""

import builtins
import linecache
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sampled import sampled
from tools import ROOT

import smx_lightning.errors
from smx_export.__main__ import main as smx_export
from smx_lightning import InputError
from smx_lightning.cli import main
from smx_lightning.errors.faults import fault_of
from smx_lightning.processes.complaints import complain

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.accelerator=cpu"]
FIT = ["fit", *QUIET, "--trainer.max_epochs=1", "--data=NpzDataModule", "--data.path=d.npz"]
OURS = str(Path(smx_lightning.errors.__file__).parent / "made_up.py")
LIBRARY = "/usr/lib/python3/site-packages/library/made_up.py"
LIGHTNING = "/usr/lib/python3/site-packages/lightning/made_up.py"
USERS = "/home/u/train.py"


def raised(source, name, **names):
    """The exception that a line of a file raises."""
    linecache.cache[name] = (len(source), None, [source + "\n"], name)
    try:
        exec(compile(source, name, "exec"), names)
    except BaseException as error:
        error.__traceback__ = error.__traceback__.tb_next  # without this frame, which is a user's
        return error
    raise AssertionError("it has to raise")


FAULTS = {  # source, its file: code, a part of the sentence
    ("{}['x']", OURS): (70, "failed where it should not, with KeyError: 'x'"),
    ("int('x')", OURS): (70, "ValueError: invalid literal"),
    ("raise ValueError('expected a, got b; c')", OURS): (2, "expected a, got b; c"),
    ("raise InputError('expected a, got b; c')", OURS): (2, "expected a, got b; c"),
    ("{}['x']", USERS): (
        2,
        f"expected {USERS} to run, got KeyError: 'x' in <module>, {USERS} line 1",
    ),
    ("int('x')", USERS): (2, "got ValueError: invalid literal"),
    ("1 / 0", USERS): (2, "ZeroDivisionError"),
    ("raise SystemExit(0)", USERS): (2, "got an exit in"),
    ("raise SystemExit(1)", USERS): (2, "got an exit in"),
    ("raise SystemExit(1)", LIBRARY): (2, "got exit code 1"),
    ("import nowhere_at_all", USERS): (2, "No module named 'nowhere_at_all'"),
    ("import nowhere_at_all", LIBRARY): (2, "No module named 'nowhere_at_all'; install it"),
    ("import smx_lightning.nowhere", OURS): (70, "is not installed as a whole"),
    ("int('x')", LIBRARY): (2, "invalid literal"),
    ("{}['x']", LIBRARY): (70, "library/made_up.py line 1"),
    ("raise RuntimeError('no such monitor')", LIGHTNING): (2, "no such monitor"),
    ("raise RuntimeError('no such monitor')", LIBRARY): (70, "RuntimeError: no such monitor"),
    ("raise UserWarning('this and that')", LIBRARY): (2, "this and that"),
    ("raise MemoryError", OURS): (2, "expected input that there is memory for"),
    ("raise MemoryError", USERS): (2, "expected input that there is memory for"),
    ("raise RuntimeError('CUDA out of memory. Tried')", LIBRARY): (2, "there is memory for"),
    ("raise OSError(28, 'No space left on device', 'f')", OURS): (
        2,
        "expected to read and write f",
    ),
    ("raise DistNetworkError('address in use')", LIBRARY): (2, "got: address in use; what"),
    ("raise BrokenPipeError(32, 'Broken pipe')", OURS): (141, ""),
    ("raise RuntimeError('gloo: Connection closed by peer')", LIBRARY): (2, "reach one another"),
}


@pytest.mark.parametrize(("source", "name"), FAULTS, ids=" in ".join)
def test_whose_fault_it_is(source, name):
    code, words = FAULTS[source, name]
    names = {"InputError": InputError, "DistNetworkError": torch.distributed.DistNetworkError}
    fault = fault_of(raised(source, name, **names))
    assert fault.code == code
    assert words in fault.sentence
    assert "\n" not in fault.sentence


@pytest.mark.parametrize("name", [OURS, USERS, LIBRARY])
def test_no_exception_of_python_gets_a_code_of_another_meaning(name):
    kinds = [k for k in vars(builtins).values() if isinstance(k, type) and issubclass(k, Exception)]
    assert len(kinds) > 50
    for kind in kinds:
        try:
            kind("said")
        except TypeError:  # those of Unicode and groups have other arguments
            continue
        fault = fault_of(raised("raise kind('said')", name, kind=kind))
        assert fault.code in (2, 70, 141), kind


def test_what_wraps_a_sentence_gives_it_back_and_what_meets_one_does_not():
    wrapped = (
        "raise ValueError('Call to compute_fn failed') from InputError('expected a, got b; c')"
    )
    assert (
        fault_of(raised(wrapped, LIBRARY, InputError=InputError)).sentence == "expected a, got b; c"
    )
    meets = "try:\n  raise InputError('expected a, got b; c')\nexcept InputError:\n  {}['x']"
    fault = fault_of(raised(meets, USERS, InputError=InputError))
    assert "KeyError" in fault.sentence
    assert "line 4" in fault.sentence


# Where the traceback goes, and who speaks -------------------------------------------------------


def test_a_traceback_is_kept_where_it_is_needed_and_printed_where_it_is_asked_for(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    error = raised("1 / 0", OURS)
    fault = fault_of(error)
    assert complain("smx-test", fault, error) == 70
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    (file,) = tmp_path.iterdir()
    assert said.endswith(f"; the traceback is in {file}\n")
    assert "ZeroDivisionError" in file.read_text()
    assert complain("smx-test", fault, error, traced=True) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err
    assert len([*tmp_path.iterdir()]) == 1
    sentence = raised("raise InputError('expected a, got b; c')", OURS, InputError=InputError)
    assert complain("smx-test", fault_of(sentence), sentence) == 2
    assert capsys.readouterr().err == "smx-test: expected a, got b; c\n"
    assert len([*tmp_path.iterdir()]) == 1


def test_where_there_is_no_room_for_a_traceback_the_option_is_named(monkeypatch, capsys):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    error = raised("1 / 0", OURS)
    assert complain("smx-test", fault_of(error), error) == 70
    assert capsys.readouterr().err.endswith("; --traceback prints it\n")


def test_the_first_of_a_machine_speaks_before_processes_know_one_another(monkeypatch, capsys):
    error = raised("raise InputError('expected a, got b; c')", OURS, InputError=InputError)
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        for rank, count in (("0", 1), ("1", 0), ("7", 0)):
            monkeypatch.setenv(variable, rank)
            assert complain("smx-test", fault_of(error), error) == 2
            assert capsys.readouterr().err.count("expected a") == count
        monkeypatch.delenv(variable)


def test_afterwards_the_first_to_come(capsys):
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    try:
        for sentence, times in (("expected a, got b; c", 3), ("expected d, got e; f", 2)):
            error = raised("raise InputError(s)", OURS, InputError=InputError, s=sentence)
            for _ in range(times):
                assert complain("smx-test", fault_of(error), error) == 2
            assert capsys.readouterr().err == f"smx-test: {sentence}\n"
    finally:
        torch.distributed.destroy_process_group()


# Both programs ----------------------------------------------------------------------------------

BROKEN = """
import os, sys
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.callbacks import EarlyStopping
from smx_lightning import SoftmaxRegression

class Hook(Callback):
    def __init__(self, how: str):
        self.how = how
    def on_train_start(self, trainer, module):
        exec(self.how)

class Hooked(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
    def on_train_start(self):
        {}["absent"]

class Wrong(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
    def features(self, x):
        return x @ x

class Unmade(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int):
        self.size = nowhere

class Unfinished(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int):
        pass

class Data(LightningDataModule):
    num_features, num_classes = 3, 3
    def setup(self, stage):
        self.rows = self.absent[0]
    def train_dataloader(self):
        return self.rows
"""
HOOK = "--trainer.callbacks=broken.Hook"
ENDS = {  # arguments: code, a part of what is said
    "--model=broken.Hooked": (2, "KeyError: 'absent' in on_train_start, broken.py line 17"),
    "--model=broken.Wrong": (2, "in features, broken.py line 23"),
    "--model=broken.Unmade": (2, "NameError: name 'nowhere' is not defined"),
    "--model=broken.Unfinished": (2, "expected Unfinished.__init__ to call super().__init__("),
    "--model=broken.Absent": (2, "got broken.Absent (module 'broken' has no attribute 'Absent')"),
    "--data=absent.Data": (2, "expected --data with a class that can be imported, got absent.Data"),
    "--model=raises.Net": (2, "expected raises.py to run, got KeyError: 'at import' in <module>"),
    "--model=needs.Net": (2, "got ModuleNotFoundError: No module named 'timm_absent' in <module>"),
    "--model=torn.Net": (2, "SyntaxError"),
    "--model=broken.Data": ("usage", "error: "),
    "--data=broken.Data": (2, "AttributeError: 'Data' object has no attribute 'absent'"),
    f"{HOOK} --trainer.callbacks.how=sys.exit(0)": (2, "got an exit in on_train_start"),
    f"{HOOK} --trainer.callbacks.how=sys.exit(1)": (2, "got an exit in on_train_start"),
    f"{HOOK} --trainer.callbacks.how=sys.exit('x')": (2, "got an exit in on_train_start"),
    f"{HOOK} --trainer.callbacks.how=os._absent": (2, "AttributeError"),
    f"{HOOK} --trainer.callbacks.how=bytearray(2**62)": (2, "there is memory for"),
    f"{HOOK} --trainer.callbacks.how=open('/dev/full','w').write('x'*9999)": (2, "No space left"),
    "--trainer.callbacks=EarlyStopping --trainer.callbacks.monitor=nope": (2, "nope"),
    "--trainer.logger=WandbLogger": (2, "wandb"),
    "--trainer.strategy=deepspeed": (2, "deepspeed"),
    "--trainer.plugins=nope": ("usage", "error: "),
    "--model.optimizer=Adam --checkpoint.monitor=nope": (2, "nope"),
}


@pytest.fixture
def folder(cli_folder, monkeypatch):
    rng = np.random.default_rng(0)
    np.savez("d.npz", x=rng.normal(size=(60, 3)), y=np.arange(60) % 3)
    Path("broken.py").write_text(BROKEN)
    Path("raises.py").write_text("raise KeyError('at import')")
    Path("needs.py").write_text("import timm_absent")
    Path("torn.py").write_text("class Net(:")
    monkeypatch.setattr("tempfile.tempdir", str(cli_folder))
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield cli_folder
    sys.modules.pop("broken", None)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", sampled([*ENDS], every=3))
def test_a_run_that_ends_where_it_should_not(given, folder, capsys):
    code, words = ENDS[given]
    if code == "usage":
        with pytest.raises(SystemExit) as ended:
            main([*FIT, *given.split()])
        assert ended.value.code == 2
    else:
        assert main([*FIT, *given.split()]) == code
    said = capsys.readouterr().err
    assert words in said
    assert "Traceback" not in said
    if code == 2:
        assert len([line for line in said.splitlines() if line.startswith("smx-lightning: ")]) == 1
    for run in Path().glob("lightning_logs/version_*"):  # none of a run that did nothing
        assert {path.name for path in run.rglob("*.*")} - {"config.yaml", "hparams.yaml"}


@pytest.mark.whole
@pytest.mark.parametrize(
    ("how", "given", "sentences"),
    [
        ("raise InputError('expected a, got b; c')", [], 1),
        ("{}['absent']", [], 1),
        ("raise InputError('expected a, got b; c')", ["--trainer.strategy=ddp_spawn"], 1),
        ("trainer.global_rank == 1 and {}['absent']", [], 2),  # and that one has ended
        (None, ["--data.path=nan.npz"], 1),
        (None, ["--trainer.max_epochs=0.5"], 1),
    ],
)
def test_many_processes_say_it_once(how, given, sentences, folder):
    np.savez("nan.npz", x=np.full((60, 3), np.nan), y=np.arange(60) % 3)
    source = BROKEN.replace("import SoftmaxRegression", "import InputError, SoftmaxRegression")
    Path("broken.py").write_text(source)
    hook = [] if how is None else [HOOK, f"--trainer.callbacks.how={how}"]
    done = subprocess.run(
        [sys.executable, "-m", "smx_lightning", *FIT, "--trainer.devices=2", *hook, *given],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}", "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if re.match("smx-lightning: |error: ", line)]
    assert len(said) == sentences, done.stderr
    assert "Traceback" not in done.stderr
    assert not Path("lightning_logs").exists()


def test_a_run_that_has_something_keeps_its_folder(folder, capsys):
    how = "--trainer.callbacks.how=trainer.save_checkpoint(trainer.log_dir+'/mine.ckpt'); {}['x']"
    assert main([*FIT, "--trainer.callbacks=broken.Hook", how]) == 2
    assert Path("lightning_logs/version_0/mine.ckpt").exists()
    assert Path("lightning_logs/version_0/config.yaml").exists()


def test_what_the_exporter_meets(checkpoint, folder, monkeypatch, capsys):
    convert = ["convert", str(checkpoint), "m.onnx"]
    Path("script.py").write_text(
        "import argparse\nargparse.ArgumentParser().parse_args(['--no'])\n"
    )
    assert smx_export([*convert, "--model-class", "script:Probe"]) == 2
    assert "expected script.py to run, got an exit in <module>, script.py line 2" in (
        capsys.readouterr().err
    )
    monkeypatch.setattr("smx_export.graph.written.softmax_regression_graph", lambda *a, **k: 1 / 0)
    assert smx_export(convert) == 2  # the lambda is a user's, as it is in this file
    monkeypatch.setattr("smx_export.graph.written.softmax_regression_graph", 7)
    assert smx_export([*convert, "--traceback"]) == 70
    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert "smx-export: failed where it should not, with TypeError" in said.splitlines()[-1]
    assert not Path("m.onnx").exists()


# Before torch is imported -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """A folder with which Python finds no torch."""
    folder = tmp_path_factory.mktemp("without")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules.update(torch=None)")
    (folder / "m.ckpt").write_bytes(b"")
    (folder / "cover.xlsx").write_text("1,2,3\n" * 1000)
    return folder


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("smx_lightning fit --help", 0, "--model.l2"),
        ("smx_lightning --help", 0, "subcommands:"),
        ("smx_lightning predict -h", 0, "--predictions.path"),
        ("smx_lightning fit --data cover.xlsx", 2, "got the file cover.xlsx; rows come as a table"),
        ("smx_lightning fit --data absent.Data", 2, "got absent.Data (No module named 'absent')"),
        ("smx_lightning fit", 2, "pip install 'smx-lightning[train]' brings it"),
        ("smx_export convert m.ckpt o.onnx --profile bogus", 2, "expected a profile out of"),
        ("smx_export convert m.ckpt o.onnx --outputs bogus", 2, "expected outputs out of"),
        ("smx_export convert m.ckpt o.onnx --max-nll-increase -1", 2, "must be a finite number"),
        ("smx_export web m.ckpt site --profile bogus", 2, "expected a profile out of"),
        (
            "smx_export convert m.ckpt o.onnx",
            2,
            "pip install 'smx-lightning[train]' brings it",
        ),
    ],
)
def test_what_arguments_alone_tell_needs_no_torch(command, code, words, without):
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=without,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": f"{without}:{ROOT}:{ROOT / 'export'}", "PATH": os.environ["PATH"]},
    )
    assert done.returncode == code, done.stderr
    assert words in " ".join((done.stdout + done.stderr).split())
    assert re.fullmatch(r"(smx-\w+: [^\n]+\n)?", done.stderr)
