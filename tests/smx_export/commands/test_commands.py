"""``smx-export`` as a whole: every subcommand is there, and most of them need no torch."""

import json
import pkgutil
import subprocess
import sys

import numpy as np
import pytest
from files import model_of
from tools import ROOT

from smx_export import commands, export_onnx
from smx_export.__main__ import main
from smx_export.web.site import RUNTIME

ORDER = ["convert", "verify", "web", "selftest", "predict", "inspect", "sidecar"]
SHARED = {"files", "options", "progress"}  # modules that are no subcommand


def helped(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--help"])
    assert ended.value.code == 0
    return capsys.readouterr().out


def test_each_module_is_a_subcommand(capsys):
    assert {module.name for module in pkgutil.iter_modules(commands.__path__)} == {*ORDER, *SHARED}
    listed = helped(capsys).split("COMMAND\n", 1)[1].split("\n\n", 1)[0]
    names = [
        line.split()[0]
        for line in listed.splitlines()
        if line.startswith(" " * 4 + line.strip()[0])
    ]
    assert names == ORDER


@pytest.mark.parametrize("name", ORDER)
def test_a_subcommand_gives_an_example_of_itself(name, capsys):
    said = " ".join(helped(capsys, name).split())
    assert said.startswith(f"usage: smx-export {name} [-h] ")
    assert f": smx-export {name} " in said.partition("Example")[2]


OPTIONS = {  # beside --help; a strange one is refused by argparse itself
    "convert": "--sidecar --model-class --data --profile --outputs --input-range --weights "
    "--max-accuracy-loss --max-nll-increase --batch --top-k --json",
    "verify": "--checkpoint --targets --input-shape --model-class --data --max-accuracy-loss "
    "--max-nll-increase --json --max-seconds --max-memory",
    "web": "--serve --open --port --model-class --data --profile --outputs --input-range --weights "
    "--max-accuracy-loss --max-nll-increase --batch --top-k",
    "selftest": "--target --json --max-seconds --max-memory",
    "predict": "--keep --separator --decimal --nan --range --max-seconds --max-memory",
    "inspect": "--json",
    "sidecar": "",
}


@pytest.mark.parametrize("name", ORDER)
def test_the_options_of_a_subcommand(name, capsys):
    usage = helped(capsys, name).split("\n\n", 1)[0]
    found = [word.strip("[]") for word in usage.split() if word.startswith("[--")]
    assert found == OPTIONS[name].split()


def test_no_subcommand_is_bad_usage(capsys):
    for arguments in ([], ["bogus"], ["inspect"], ["selftest", "--target", "bogus", "f.onnx"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        assert capsys.readouterr().err.startswith("usage: smx-export ")


# Without torch -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file, rows, an npm package, and modules in place of torch and lightning that raise."""
    folder = tmp_path_factory.mktemp("commands")
    export_onnx(model_of(), folder / "m.onnx")
    np.save(folder / "x.npy", np.zeros((2, 6)))
    for name in ("torch", "lightning"):
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} was asked for')")
    dist = folder / "node_modules" / "onnxruntime-web" / "dist"
    dist.mkdir(parents=True)
    (dist.parent / "package.json").write_text(json.dumps({"version": "0 of the tests"}))
    for name in RUNTIME:
        (dist / name).write_text("")
    return folder


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--version"], "smx-export "),
        (["inspect", "m.onnx"], "self-test    5 vectors, sealed"),
        (["selftest", "m.onnx", "--target", "onnxruntime"], "self-test passed"),
        (["predict", "m.onnx", "x.npy", "out.csv"], "wrote out.csv (2 rows)"),
        (["sidecar", "m.onnx"], "wrote m.json ("),
        (["verify", "m.onnx", "--targets", "onnxruntime"], "1 passed, 0 FAILED, 0 not run"),
        (["web", "m.onnx", "site"], "/site ("),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_it_needs_no_torch(arguments, said, folder):
    done = run(arguments, folder)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


def test_what_needs_torch_would_be_noticed(folder):
    (folder / "m.ckpt").write_bytes(b"")
    assert "torch was asked for" in run(["convert", "m.ckpt", "o.onnx"], folder).stderr


def run(arguments, folder):
    """The command in a process of its own, in which the folder goes before all others."""
    paths = f"{folder}:{ROOT}:{ROOT / 'export'}"
    command = [sys.executable, "-m", "smx_export", *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": paths}
    )
