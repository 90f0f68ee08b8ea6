"""A file's own test: whatever is changed in the file, or wrong in a runtime, shows."""

import json
import os
import signal
import subprocess
import sys
from hashlib import sha256

import numpy as np
import onnx
import pytest
from files import ALL, model_of, read
from onnx import helper
from tools import run_alone

from smx_export import FileError, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.describe import describe
from smx_export.artifact.files import seal_holds, sealed, weights_sha256
from smx_export.profile import Profile
from smx_export.targets import NotInstalled, Session, Target
from smx_export.targets.onnxruntime_ import OnnxRuntime
from smx_export.targets.process import end_group
from smx_export.targets.selftest import selftest


@pytest.fixture(scope="module")
def portable(tmp_path_factory):
    return export_onnx(model_of(), tmp_path_factory.mktemp("selftest") / "digits.onnx").path


def forged(path, change, name="forged.onnx"):
    """A copy that ``change`` has spoilt and somebody has sealed again."""
    model = onnx.load(path)
    change(model)
    copy = path.with_name(name)
    copy.write_bytes(sealed(model))
    return copy


# The seal and the weights ------------------------------------------------------------------------


def stranger_s_seal(data):
    start = data.index(b"\n\x06sha256\x12\x40") + 10
    blank = data[:start] + b"0" * 64 + data[start + 64 :]
    return sha256(blank).hexdigest().encode() == data[start : start + 64]


def test_the_seal_is_the_hash_of_the_file_with_zeros_in_its_place(portable):
    assert stranger_s_seal(portable.read_bytes())
    assert seal_holds(portable.read_bytes())


def test_the_seal_sees_every_byte(portable):
    data = portable.read_bytes()
    masks = np.random.default_rng(0).integers(1, 256, len(data)).tolist()
    for at, mask in enumerate(masks):
        changed = data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]
        assert not seal_holds(changed), at
    assert not any(map(seal_holds, (data[:-1], data + b"\0", data + data, b"", data[::-1])))


def test_sealing_twice_gives_the_same_bytes(portable):
    assert sealed(onnx.load(portable)) == portable.read_bytes()


def test_a_file_without_a_seal_fails_by_that_alone(portable, tmp_path):
    model = onnx.load(portable)
    kept = {entry.key: entry.value for entry in model.metadata_props if entry.key != "sha256"}
    helper.set_model_props(model, kept)
    onnx.save(model, tmp_path / "bare.onnx")
    assert seal_holds((tmp_path / "bare.onnx").read_bytes()) is None
    failed = [c.name for c in selftest(tmp_path / "bare.onnx").checks if not c.passed]
    assert failed == ["seal"]
    assert "not sealed" in describe(tmp_path / "bare.onnx").self_test


def test_a_file_without_vectors_has_nothing_to_test(portable):
    bare = forged(portable, lambda model: helper.set_model_props(model, {"class_names": "[]"}))
    with pytest.raises(FileError, match=r"expected a file with self-test vectors at .*, got one w"):
        selftest(bare)


def test_the_hash_of_the_weights_is_the_same_in_every_profile(tmp_path, portable):
    digest = sha256()
    parts = {tensor.name: tensor for tensor in onnx.load(portable).graph.initializer}
    for name in ("bias", "weight"):
        shape = [3] if name == "bias" else [3, 6]
        digest.update(f"{name} float32 {shape}\n".encode() + parts[name].raw_data)
    signed = json.loads(read(portable)["selftest"])["weights_sha256"]
    assert signed == digest.hexdigest()
    for profile in (Profile(robust=True), ALL):
        path = export_onnx(model_of(), tmp_path / "model.onnx", profile=profile).path
        assert weights_sha256(onnx.load(path)) == signed


def test_the_hash_of_the_weights_sees_one_bit_of_one_weight(portable):
    def spoil(model):
        tensor = next(t for t in model.graph.initializer if t.name == "weight")
        tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]

    failed = [check.name for check in selftest(forged(portable, spoil)).checks if not check.passed]
    assert failed == ["weights"]


# What is offered ---------------------------------------------------------------------------------


def renamed(model):
    for node in model.graph.node:
        node.output[:] = ["probability" if name == "probs" else name for name in node.output]
    model.graph.output[1].name = "probability"


@pytest.mark.parametrize("change", [renamed, lambda model: model.graph.output.pop()])
def test_outputs_that_are_missing_are_no_right_ones(change, portable):
    """Nobody can hold them against anything: a test that passes over them would pass."""
    assert not selftest(forged(portable, change)).passed


def test_scores_without_anything_to_hold_them_against_do_not_pass(tmp_path):
    path = export_onnx(model_of(), tmp_path / "m.onnx", profile=Profile(outputs=("scores",))).path

    def forget(model):
        metadata = read(path)
        told = json.loads(metadata["selftest"])
        del told["log_norm"]
        helper.set_model_props(model, metadata | {"selftest": json.dumps(told)})

    assert not selftest(forged(path, forget)).passed


def test_one_vector_is_enough(portable):
    def shorten(model):
        told = json.loads(read(portable)["selftest"])
        told |= {key: told[key][:1] for key in ("inputs", "tolerance")}
        told["log_probs"] = told["log_probs"][:16]  # 3 numbers are 12 bytes are 16 characters
        helper.set_model_props(model, read(portable) | {"selftest": json.dumps(told)})

    assert selftest(forged(portable, shorten)).passed


# Other runtimes ----------------------------------------------------------------------------------


class Stub(Target):
    """onnxruntime with a fault: ``spoil(outputs)``."""

    name, install = "stub", "pip install stub"

    def __init__(self, spoil):
        self.spoil, self.closed = spoil, 0

    def version(self):
        return "9.9"

    def load(self, path):
        return StubSession(OnnxRuntime().load(path), self)


class StubSession(Session):
    def __init__(self, inner, target):
        self.inner, self.target = inner, target

    def run(self, x):
        return self.target.spoil(self.inner.run(x))

    def close(self):
        self.target.closed += 1


def off(by, rows=slice(None)):
    def spoil(outputs):
        outputs["log_probs"][rows] += by
        return outputs

    return spoil


def boom(outputs):
    raise RuntimeError("boom\nand a page of details")


FAULTS = {
    "raises": (boom, "does not run it: boom"),
    "answers all wrong": (off(0.1), "vector 0, batch of 5: "),
    "answers the last row wrong": (off(0.1, slice(4, 5)), "vector 0, batch of 5: "),
    "answers NaN": (
        off(np.nan),
        "vector 0, batch of 5: log_probs is not finite where the answer is",
    ),
    "answers single rows wrong": (
        lambda outputs: off(0.1 if len(outputs["probs"]) == 1 else 0)(outputs),
        "vector 0, batch of 1: ",
    ),
    "answers the first row for all": (
        lambda outputs: {name: value[:1] for name, value in outputs.items()},
        "vector 0, batch of 5: log_probs is float32 (1, 3), not (5, 3)",
    ),
    "turns the classes around": (
        lambda outputs: {name: value[:, ::-1] for name, value in outputs.items()},
        "vector 0, batch of 5: ",
    ),
    "answers nothing": (lambda outputs: {}, "vector 0, batch of 5: no log_probs"),
    "keeps an output back": (
        lambda outputs: {"probs": outputs["probs"]},
        "vector 0, batch of 5: no log_probs",
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_runtime_fails_that(spoil, reason, portable):
    target = Stub(spoil)
    found = selftest(portable, target)
    (failed,) = [check for check in found.checks if not check.passed]
    assert failed.name == "stub 9.9"
    assert failed.detail.startswith(reason)
    assert len(failed.detail.splitlines()) == 1
    assert target.closed == 1
    assert json.loads(found.to_json())["passed"] is False
    assert str(found).endswith("self-test FAILED")


def test_a_runtime_passes_that_is_right(portable):
    target = Stub(lambda outputs: outputs)
    found = selftest(portable, target)
    assert found.passed
    assert found.checks[-1].name == "stub 9.9"
    assert found.checks[-1].detail.startswith("5 vectors, largest error 0.")
    assert target.closed == 1


def test_a_runtime_fails_that_does_not_load_the_file(portable, monkeypatch):
    monkeypatch.setattr(Stub, "load", lambda self, path: boom({}))
    assert selftest(portable, Stub(None)).checks[-1].detail == "does not load it: boom"


def test_a_runtime_that_is_not_there_is_no_answer(portable, monkeypatch, capsys):
    def missing(self):
        raise NotInstalled("stub is missing; pip install stub")

    monkeypatch.setattr(Stub, "version", missing)
    monkeypatch.setattr("smx_export.targets.limited.target", lambda name: Stub(None))
    assert main(["selftest", str(portable)]) == 2
    assert capsys.readouterr().err == "smx-export: stub is missing; pip install stub\n"


# The command line --------------------------------------------------------------------


def test_exit_codes_of_selftest(portable, capsys):
    assert main(["selftest", str(portable)]) == 0
    assert capsys.readouterr().out.endswith("self-test passed\n")
    changed = portable.with_name("changed.onnx")
    changed.write_bytes(portable.read_bytes().replace(b"gemm", b"GEMM"))
    assert main(["selftest", str(changed)]) == 1
    assert "FAIL seal" in capsys.readouterr().out
    assert main(["selftest", str(changed), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["checks"][0]["name"] == "seal"
    assert main(["selftest", str(portable.with_name("absent.onnx"))]) == 2
    assert capsys.readouterr().err.startswith("smx-export: expected an ONNX file at ")


def test_selftest_needs_no_torch(portable):
    script = """
import sys
from smx_export.__main__ import main
assert main(["selftest", sys.argv[1]]) == 0
print({"torch", "lightning", "sklearn"} & set(sys.modules))
"""
    assert run_alone(script, portable).splitlines()[-2:] == ["self-test passed", "set()"]


def test_inspect_shows_the_vectors_and_the_seal(portable, capsys):
    weights = json.loads(read(portable)["selftest"])["weights_sha256"][:16]
    assert main(["inspect", str(portable)]) == 0
    shown = f"self-test    5 vectors, sealed, weights sha256 {weights}…"
    assert shown in capsys.readouterr().out.splitlines()


def test_where_processes_have_no_groups_one_is_ended_alone(monkeypatch):
    monkeypatch.delattr(os, "killpg")  # as on Windows
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    end_group(process)
    assert process.returncode == -signal.SIGKILL
