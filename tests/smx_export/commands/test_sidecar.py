"""``smx-export sidecar``: what convert --sidecar writes, of a file that is all there is."""

import json
import shutil
import sys
from base64 import b64decode
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from files import model_of
from kits import DEPLOY, KITS, run
from sampled import whole
from tools import needed

from smx_export import export_onnx
from smx_export.__main__ import main
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "m.onnx"
    return export_onnx(model_of(class_names=["a", "ü", '"\n']), path, profile="robust").path


@pytest.fixture
def alone(exported, tmp_path, monkeypatch):
    """A file and nothing beside it, in the folder that a user is in."""
    shutil.copy(exported, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def test_it_is_what_convert_writes(alone, checkpoint, capsys):
    """To the byte, with the model's ending replaced, or under the name given."""
    assert main(["convert", str(checkpoint), "digits.v1.onnx", "--sidecar"]) == 0
    before = (alone / "digits.v1.onnx").read_bytes()
    written = (alone / "digits.v1.json").read_bytes()
    (alone / "digits.v1.json").write_text('{"cut of')  # damaged: replaced
    capsys.readouterr()
    assert main(["sidecar", "digits.v1.onnx"]) == 0
    assert capsys.readouterr() == (f"wrote digits.v1.json ({len(written):,} bytes)\n", "")
    assert (alone / "digits.v1.json").read_bytes() == written
    assert main(["sidecar", "digits.v1.onnx", "other.name"]) == 0
    assert (alone / "other.name").read_bytes() == written
    assert (alone / "digits.v1.onnx").read_bytes() == before
    assert listed(alone) == ["digits.v1.json", "digits.v1.onnx", "m.onnx", "other.name"]


def test_it_says_what_the_file_says(alone):
    """Held against the metadata as onnx reads them, and the answers of onnxruntime."""
    assert main(["sidecar", "m.onnx"]) == 0
    told = json.loads((alone / "m.json").read_text("utf-8"))
    metadata = {entry.key: entry.value for entry in onnx.load("m.onnx").metadata_props}
    assert told["class_names"] == json.loads(metadata["class_names"]) == ["a", "ü", '"\n']
    test = told["selftest"]
    x = np.frombuffer(b64decode(test["inputs"]), "<f4").reshape(test["shape"])
    answers = np.frombuffer(b64decode(test["log_probs"]), "<f4").reshape(-1, 3)
    found = OnnxClassifier("m.onnx").predict_proba(x)
    np.testing.assert_allclose(found, np.exp(answers), atol=1e-5)


def changed(folder):
    proto = onnx.load(folder / "m.onnx")
    proto.graph.initializer[0].raw_data = bytes(len(proto.graph.initializer[0].raw_data))
    onnx.save(proto, folder / "m.onnx")


def another_tools(folder):
    proto = onnx.load(folder / "m.onnx")
    del proto.metadata_props[:]
    onnx.save(proto, folder / "m.onnx")


def checkpoint_of(folder):
    torch.save({"state_dict": {}}, folder / "m.onnx")


@pytest.mark.parametrize(
    ("arguments", "prepare", "said"),
    [
        ("no.onnx", None, "expected an ONNX file at no.onnx, found none; check the path"),
        (".", None, "expected an ONNX file at ., found none; check the path"),
        ("..", None, "expected an ONNX file at .., found none; check the path"),
        ("m.onnx", changed, "got one that was changed since; smx-export selftest says what"),
        ("m.onnx", another_tools, "got one without; export it with smx-export convert"),
        ("m.onnx", checkpoint_of, "got one that does not parse; it may be truncated or of another"),
        ("m.onnx ./m.onnx", None, "got the same twice; choose another name"),
        ("m.onnx box", None, "expected a file name to write to, got the folder box; add a name"),
        ("m.onnx no/m.json", None, "No such file or directory; choose a folder that exists"),
    ],
)
def test_a_file_that_has_none_is_refused(arguments, prepare, said, alone, capsys):
    (alone / "box").mkdir()
    if prepare:
        prepare(alone)
    before = (alone / "m.onnx").read_bytes()
    assert main(["sidecar", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("smx-export: expected ")
    assert len(captured.err.splitlines()) == 1
    assert said in captured.err
    assert listed(alone) == ["box", "m.onnx"]
    assert (alone / "m.onnx").read_bytes() == before


def test_a_model_that_is_called_json_is_not_written_over(alone, capsys):
    """Its sidecar would have its own name; the remedy is the second argument."""
    (alone / "m.onnx").rename(alone / "m.json")
    assert main(["sidecar", "m.json"]) == 2
    assert "choose another name" in capsys.readouterr().err
    assert main(["sidecar", "m.json", "beside.json"]) == 0
    assert listed(alone) == ["beside.json", "m.json"]


# The deploy kits ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grey(tmp_path_factory):
    """A model that all kits take."""
    model = SoftmaxRegression(64, 3, input_shape=(8, 8))
    with torch.no_grad():
        model.linear.weight.copy_(torch.linspace(-0.1, 0.1, 192).reshape(3, 64).sin())
    path = tmp_path_factory.mktemp("grey") / "model.onnx"
    return export_onnx(model, path, profile="robust", input_range=(0, 16)).path


CONTENTS = [None, '{"self', '{"passed": true}', "[1]", "null"]
QUICK = [*(("node", content) for content in CONTENTS), ("opencv", None), ("c", None)]


@pytest.mark.parametrize(
    ("kit", "content"),
    [*QUICK, *(whole((kit, content)) for kit in ("c", "opencv") for content in CONTENTS[1:])]
    + [whole(("browser", content)) for content in CONTENTS],
)
def test_a_kit_without_its_sidecar_says_how_to_write_it(kit, content, grey, tmp_path, monkeypatch):
    """Missing, damaged, or another's, such as the report of verify --json; and the remedy works."""
    folder = tmp_path / kit
    shutil.copytree(DEPLOY / kit, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(grey, folder)
    if content is not None:
        (folder / "model.json").write_text(content)
    x = np.linspace(0, 16, 128).round().reshape(2, 64).astype(np.float32)
    refusal = answered(kit, folder, x).refusal
    assert "expected " in refusal
    assert "model.json" in refusal
    assert "smx-export sidecar model.onnx writes" in refusal
    monkeypatch.chdir(folder)
    assert main(["sidecar", "model.onnx"]) == 0
    assert answered(kit, folder, x).refusal == ""


def answered(kit, folder, x):
    """Of C only the generator is asked, which reads the sidecar: compiling takes a second."""
    if kit != "c":
        return KITS[kit](folder, x)
    needed("emx_onnx_cgen")
    done = run(sys.executable, "generate.py", "model.onnx", folder=folder)
    assert (done.returncode == 0) == (done.stderr == "") == (folder / "model.h").exists()
    assert len(done.stderr.splitlines()) <= 1
    return SimpleNamespace(refusal=done.stderr)


@pytest.mark.parametrize("name", ["model", "model.v2.onnx", "model.ort"])
def test_a_kit_looks_where_the_command_writes(name, grey, tmp_path, monkeypatch):
    """Node's replaces the ending by itself."""
    folder = tmp_path / "node"
    shutil.copytree(DEPLOY / "node", folder)
    shutil.copy(grey, folder / name)
    monkeypatch.chdir(folder)
    done = run("node", "classify.mjs", name, folder=folder, input="[]")
    expected = f"expected {name.removesuffix('.onnx').removesuffix('.ort')}.json as "
    assert done.stderr.startswith(f"classify: {expected}smx-export sidecar {name} writes it")
    assert main(["sidecar", name]) == 0
    done = run("node", "classify.mjs", name, folder=folder, input="[]")
    assert "sidecar" not in done.stderr
