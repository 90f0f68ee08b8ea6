"""Where the extra ``train`` is missing: what works, and the one sentence of what does not.

``.ci/device`` tries the same on a real installation; here torch and its like are there, and hidden.
"""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from files import model_of
from sampled import whole
from tools import ROOT

import smx_export
import smx_lightning
from smx_export import export_onnx
from smx_lightning.errors.extras import TRAINING, TrainingNotInstalled, training_needed

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
SENTENCE = (
    "expected {}, which training and checkpoints need, found none; "
    "pip install 'smx-lightning[train]' brings it"
)
HIDDEN = """
import sys

class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Hidden())
"""


def listed(name):
    """The distributions of a list in pyproject.toml."""
    (block,) = re.findall(rf"^{name} = \[(.*?)^\]", PROJECT, re.M | re.S)
    return {re.split(r"[\[<>= ]", entry)[0] for entry in re.findall(r'^  "(.+?)"', block, re.M)}


def without(script, *arguments, names=TRAINING, folder=None):
    """Run a script in a process in which modules cannot be found."""
    return subprocess.run(
        [sys.executable, "-c", HIDDEN.format(names=sorted(names)) + script, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
    )


def test_the_dependencies_are_those_of_who_holds_a_file():
    assert listed("dependencies") == {"numpy", "onnx", "onnxruntime"}


def test_the_sentence_knows_every_package_of_the_extra():
    """tqdm and yaml are Lightning's; typing_extensions onnx itself needs."""
    homes = packages_distributions()
    known = {home for name in TRAINING - {"tqdm", "yaml"} for home in homes[name]}
    assert known == listed("train") - {"typing_extensions"} > {"torch", "lightning"}


@pytest.mark.parametrize("package", [smx_lightning, smx_export])
def test_a_name_loads_or_says_what_to_install(package):
    """Each in a list that says which is which, so that none moves unnoticed."""
    found = without(
        f"import {package.__name__} as package\n"
        "for name in package.__all__:\n"
        "    try:\n"
        "        getattr(package, name)\n"
        "    except ImportError as error:\n"
        "        print(name, error.name, error, sep='|')\n"
    )
    assert found.stderr == ""
    refused = [line.split("|") for line in found.stdout.splitlines()]
    needs_torch = {
        smx_lightning: {"Prediction", "Recovery", "SoftmaxRegression"},
        smx_export: {"Export", "OnnxExport", "ParityReport", "check_parity", "composed",
                     "export_onnx", "to_onnx"},
    }  # fmt: skip
    assert {name for name, _, _ in refused} == needs_torch[package]
    for _, missing, said in refused:
        assert missing in TRAINING
        assert said == SENTENCE.format(missing)


COMMANDS = [
    ("lightning", "fit"),
    ("lightning", ""),
    ("lightning", "--version"),
    ("lightning", "predict --ckpt_path m.ckpt"),
    ("export", "convert m.ckpt o.onnx"),
    whole(("export", "convert m.ckpt o.onnx --sidecar --json o.report")),
    whole(("export", "convert m.ckpt o.onnx --model-class smx_lightning:SoftmaxRegression")),
    ("export", "verify m.onnx --checkpoint m.ckpt --targets onnxruntime"),
    ("export", "web m.ckpt site"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A file, and what looks like a checkpoint."""
    folder = tmp_path_factory.mktemp("device")
    export_onnx(model_of(), folder / "m.onnx")
    (folder / "m.ckpt").write_bytes(b"PK\x03\x04")
    return folder


@pytest.mark.parametrize(("package", "command"), COMMANDS)
def test_a_command_says_what_to_install(package, command, folder):
    script = f"from smx_{package}.__main__ import main; sys.exit(main(sys.argv[1:]))"
    done = without(script, *command.split(), folder=folder)
    assert (done.returncode, done.stdout) == (2, "")
    said = done.stderr.removeprefix(f"smx-{package}: ").removesuffix("\n")
    assert said in {SENTENCE.format(name) for name in TRAINING}
    assert sorted(path.name for path in folder.iterdir()) == ["m.ckpt", "m.onnx"]


def test_a_classifier_needs_onnxruntime_and_numpy_alone(folder):
    script = (
        "import numpy, smx_export\n"
        "classifier = smx_export.OnnxClassifier('m.onnx')\n"
        "print(classifier.predict_proba(numpy.zeros((2, 6), 'f')).shape)\n"
    )
    done = without(script, names={*TRAINING, "onnx", "google.protobuf"}, folder=folder)
    assert (done.stdout, done.stderr) == ("(2, 3)\n", "")


def test_torch_without_the_rest_of_the_extra_names_the_rest():
    with pytest.raises(TrainingNotInstalled) as raised, training_needed():
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")
    assert str(raised.value) == SENTENCE.format("lightning")
    assert (raised.value.name, raised.value.__suppress_context__) == ("lightning", True)


def test_other_imports_that_fail_are_left_alone():
    for error in (
        ModuleNotFoundError("No module named 'mine'", name="mine"),  # a user's own
        ModuleNotFoundError("No module named 'torch.new'", name="torch.new"),  # an older torch
        ImportError("libcudart.so: cannot open", name="torch"),  # a broken one
        ValueError("torch"),
    ):
        with pytest.raises(type(error)) as raised, training_needed():
            raise error
        assert raised.value is error
        assert not isinstance(error, TrainingNotInstalled)
