"""Corrupted files: one sentence or a report, and nothing passes that computes something else.

The sweep runs in a process of its own, so that a crash or a hang of onnx or onnxruntime is seen,
with the seed that did it: ``python test_corrupted_files.py FOLDER FIRST COUNT`` repeats any
part of it.
"""

import json
import os
import subprocess
import sys
import warnings
from collections import Counter
from hashlib import sha256
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from sampled import sampled
from tools import ROOT, SUPPORT

from smx_export import FileError, check_parity, export_onnx
from smx_export.artifact.describe import describe
from smx_export.artifact.files import read_onnx, sealed
from smx_export.contract import ALL_OUTPUTS
from smx_export.profile import Profile
from smx_export.targets.selftest import selftest
from smx_lightning import SoftmaxRegression

SEAL = b"\n\x06sha256\x12\x40"
DESCRIBE, SEALED, RESEALED, VERIFY = "describe", "selftest", "selftest, resealed", "verify"
SHARE = {DESCRIBE: 0.2, SEALED: 0.2, RESEALED: 0.4, VERIFY: 0.2}
ENDS = {  # by what a corruption was found: enough of each, or the sweep sweeps nothing
    DESCRIBE: ("FileError", "described"),
    SEALED: ("FileError", "failed seal"),
    RESEALED: ("FileError", "failed weights", "failed onnxruntime", "passed, same computation"),
    VERIFY: ("FileError", "failed graph", "failed outputs", "passed, same computation"),
}
PATIENCE = 600  # seconds for all; a fifth will do


def model_of(k=4, d=6, **kwargs):
    model = SoftmaxRegression(d, k, preprocessing="standardize", **kwargs)
    random = torch.Generator().manual_seed(k)
    with torch.no_grad():
        model.linear.weight.copy_(torch.randn(k, d, generator=random))
        model.linear.bias.copy_(torch.randn(k, generator=random))
        model.preprocessing.scale.copy_(0.5 + torch.rand(d, generator=random))
    return model


# Not a label alone: five labels tell too little of a file that was sealed again.
MODELS = {
    "portable": (model_of(), Profile()),
    "everything": (model_of(2, threshold=0.3), Profile(robust=True, outputs=ALL_OUTPUTS)),
    "image": (model_of(3, input_shape=(2, 3)), Profile(image=True, outputs=("probs", "label"))),
    "scores": (model_of(3), Profile(outputs=("scores",))),
}


# The sweep ---------------------------------------------------------------------------------------


def corrupted(data, rng):
    """One kind of damage; every other place is in the graph, however long the metadata."""
    spoilt, graph = bytearray(data), data.index(b"class_names")

    def somewhere():
        return int(rng.integers(graph if rng.random() < 0.5 else len(data)))

    kinds = ["flip", "overwrite", "truncate", "insert", "duplicate"]
    kind, at = rng.choice(kinds, p=[0.6, 0.1, 0.1, 0.1, 0.1]), somewhere()
    if kind == "flip":
        for _ in range(rng.integers(1, 5)):
            spoilt[somewhere()] ^= 1 << int(rng.integers(8))
    elif kind == "overwrite":
        length = min(int(rng.integers(1, 33)), len(data) - at)
        spoilt[at : at + length] = rng.bytes(length)
    elif kind == "truncate":
        del spoilt[at:]
    elif kind == "insert":
        spoilt[at:at] = rng.bytes(int(rng.integers(1, 33)))
    else:
        spoilt[at:at] = spoilt[at : at + int(rng.integers(1, 65))]
    return str(kind), bytes(spoilt)


def resealed(data):
    """With the right seal, where it still has a place."""
    before, seal, after = data.partition(SEAL)
    blank = before + seal + b"0" * 64 + after[64:]
    return before + seal + sha256(blank).hexdigest().encode() + after[64:] if seal else data


def answers(data, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


class Original:
    """A file as it was, and what it computes on dense random inputs."""

    def __init__(self, model, profile, folder):
        self.model = model
        self.data = export_onnx(model, folder / "original.onnx", profile=profile).path.read_bytes()
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (64, *model.input_shape)).astype(np.uint8)
        self.x = pixels if profile.image else rng.normal(size=(64, 6)).astype(np.float32)
        self.outputs = answers(self.data, self.x)
        arrays = {t.name: t for t in onnx.load_model_from_string(self.data).graph.initializer}
        weight, bias = (np.abs(numpy_helper.to_array(arrays[n])) for n in ("weight", "bias"))
        # Rounding: both files' dot products and log-softmax, Higham's γₙ · Σ|w||x| each, doubled.
        size = np.abs(self.x.reshape(64, -1).astype(np.float64)) @ weight.T + bias
        self.allowed = 4 * (weight.size + 16) * 2.0**-24 * size.max(1, keepdims=True)

    def computed_by(self, data):
        """Whether a file computes the same; labels of untied rows are told by the others."""
        try:
            outputs = answers(data, self.x)
        except Exception:
            return False
        return list(outputs) == list(self.outputs) and all(
            output.shape == right.shape
            and output.dtype == right.dtype
            and (np.abs(output - right) <= (0 if right.ndim == 1 else self.allowed)).all()
            for output, right in zip(outputs.values(), self.outputs.values(), strict=True)
        )


def ending(mode, path, model):
    """How a command ended; anything but a FileError or a report goes on upwards."""
    try:
        if mode == DESCRIBE:
            found = describe(path)
            json.dumps(found.to_dict())
            return "described" if str(found) else "silent"
        found = check_parity(model, path) if mode == VERIFY else selftest(path)
    except FileError as error:
        return "FileError" if len(str(error).splitlines()) == 1 else f"a page: {error}"
    assert json.loads(found.to_json())["passed"] is found.passed, str(found)
    return (
        "passed" if found.passed else f"failed {next(c for c in found.checks if not c.passed).name}"
    )


def sweep(folder, first, count):
    """Corrupt and ask; prints how often each mode ended in which way, and what went wrong."""
    warnings.simplefilter("error")
    originals = {name: Original(*kind, folder) for name, kind in MODELS.items()}
    path, endings, faults = folder / "corrupted.onnx", Counter(), []
    for seed in range(first, first + count):
        print(seed, file=sys.stderr)
        rng = np.random.default_rng(seed)
        name = list(MODELS)[rng.integers(len(MODELS))]
        mode = str(rng.choice(list(SHARE), p=list(SHARE.values())))
        original = originals[name]
        good = original.data
        kind, data = corrupted(good, rng)
        data = data if mode in (DESCRIBE, SEALED) else resealed(data)
        path.write_bytes(data)
        try:
            end = ending(mode, path, original.model)
        except Exception as error:
            end = f"{type(error).__name__}: {error}"
            faults.append(f"seed {seed}, {mode}, {kind} in {name!r}: {end}"[:300])
        if end == "passed":
            same = data == good or (mode != SEALED and original.computed_by(data))
            end = "passed, unchanged" if data == good else "passed, same computation"
            if not same:
                end = "PASSED, CHANGED"
                faults.append(f"seed {seed}, {mode}, {kind} in {name!r}: passed")
        elif data == good and mode != DESCRIBE:
            faults.append(f"seed {seed}: an unchanged file {end}")
        endings[f"{mode}: {kind}: {end}"] += 1
    print(json.dumps({"endings": endings, "faults": faults}))


def swept(folder, first, count):
    command = [sys.executable, __file__, str(folder), str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}:{SUPPORT}"}
    with (folder / "seeds").open("w+") as seeds:
        try:
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=seeds, text=True, env=environment,
                timeout=PATIENCE, check=False,
            )  # fmt: skip
            ended = f"code {done.returncode}"
        except subprocess.TimeoutExpired:
            ended = "a hang"
        seeds.seek(0)
        said = seeds.read()
    assert ended == "code 0", f"{ended} at seed {said[-2000:]}"
    return json.loads(done.stdout)


@pytest.mark.parametrize("count", [600, pytest.param(10_000, marks=pytest.mark.whole)])
def test_a_sweep_of_corrupted_files(count, tmp_path):
    found = swept(tmp_path, 0, count)
    print("\n".join(f"{n:6} {end}" for end, n in sorted(found["endings"].items())))
    assert found["faults"] == []
    assert sum(found["endings"].values()) == count
    for mode, ends in ENDS.items():
        for end in ends:
            assert any(k.startswith(f"{mode}: ") and f": {end}" in k for k in found["endings"])


# What random damage seldom hits ------------------------------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    """A good file and its checkpoint; what nobody may open blocks who tries."""
    shelf = tmp_path_factory.mktemp("shelf")
    export_onnx(model_of(), shelf / "good.onnx")
    (shelf / "box").mkdir()
    os.mkfifo(shelf / "pipe.data")
    os.mkfifo(shelf / "box" / "pipe.data")
    return shelf


def outside(location):
    tensor = TensorProto(name="weight", dims=(4, 6), data_type=TensorProto.FLOAT)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def of_shape(*dims, raw=b"", kind=TensorProto.FLOAT):
    return TensorProto(name="weight", dims=dims, data_type=kind, raw_data=raw)


def as_weight(tensor):
    return lambda model: model.graph.initializer[0].CopyFrom(tensor)


def as_constant(tensor):
    def change(model):
        del model.graph.initializer[0]
        model.graph.node.insert(0, helper.make_node("Constant", [], ["weight"], value=tensor))

    return change


def in_a_subgraph(tensor):
    def change(model):
        branch = helper.make_graph(
            [helper.make_node("Identity", ["weight"], ["same"])], "branch", [],
            [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)], [tensor],
        )  # fmt: skip
        model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
        branches = {"then_branch": branch, "else_branch": branch}
        model.graph.node.insert(0, helper.make_node("If", ["yes"], ["chosen"], **branches))

    return change


def in_a_function(tensor):
    def change(model):
        node = helper.make_node("Constant", [], ["y"], value=tensor)
        opset = helper.make_opsetid("", 17)
        model.functions.append(helper.make_function("own", "F", [], ["y"], [node], [opset]))
        model.opset_import.append(helper.make_opsetid("own", 1))

    return change


def forge(shelf, change, name):
    model = onnx.load(shelf / "good.onnx")
    change(model)
    (shelf / name).write_bytes(sealed(model))
    return shelf / name


PLACES = (as_weight, as_constant, in_a_subgraph, in_a_function)
ELSEWHERE = ("../pipe.data", "pipe.data", "/dev/zero", "{shelf}/pipe.data", "../absent.data")
ABSURD = {
    "endless": (2**60,),
    "endless by product": (2**21, 2**21, 2**21),
    "beyond 64 bits": (2**62, 2**62),
    "negative": (-4, 6),
    "negative twice": (-4, -6),
    "lowest": (-(2**63),),
    "larger than the file": (1000, 1000),
}


def refusals(shelf):
    """Files that are to be refused before anything else is opened or set aside, and why."""
    for place in PLACES:
        for i, location in enumerate(ELSEWHERE):
            name = f"box/{place.__name__}{i}.onnx"
            yield forge(shelf, place(outside(location.format(shelf=shelf))), name), "self-contained"
        for i, dims in enumerate(ABSURD.values()):
            name = f"box/{place.__name__}_absurd{i}.onnx"
            yield forge(shelf, place(of_shape(*dims, raw=b"1234")), name), "that the file holds"
    for name in ("folder.onnx", "pipe.onnx", "zero.onnx", "loop.onnx", "lost.onnx"):
        yield shelf / name, "found none"
    (shelf / "folder.onnx").mkdir()
    os.mkfifo(shelf / "pipe.onnx")
    for name, to in {"zero": "/dev/zero", "loop": "loop.onnx", "lost": "nowhere"}.items():
        (shelf / f"{name}.onnx").symlink_to(to)
    (shelf / "empty.onnx").touch()
    yield shelf / "empty.onnx", "expected an ONNX model"
    (shelf / "sparse.onnx").touch()
    os.truncate(shelf / "sparse.onnx", 3 * 2**30)
    yield shelf / "sparse.onnx", "at most 2,147,483,647 bytes"


COMMANDS = """
import contextlib, io, json, sys
from smx_export.__main__ import main

for line in sys.stdin:
    file, checkpoint, site = json.loads(line)
    for command in (
        ["inspect", file],
        ["selftest", file],
        ["verify", file, "--checkpoint", checkpoint],
        ["verify", file, "--targets", "onnxruntime"],
        ["web", file, site],
    ):
        with contextlib.redirect_stderr(io.StringIO()) as said:
            code = main(command)
        print(json.dumps([command[0], file, code, said.getvalue()]), flush=True)
"""


@pytest.mark.whole
def test_every_command_refuses_at_once_what_points_elsewhere_or_is_endless(shelf, checkpoint):
    expected = {str(path): reason for path, reason in refusals(shelf)}
    asked = "".join(json.dumps([p, str(checkpoint), f"{shelf}/site"]) + "\n" for p in expected)
    done = subprocess.run(
        [sys.executable, "-c", COMMANDS], input=asked, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'export'}:{SUPPORT}"},
        check=True, timeout=PATIENCE,
    )  # fmt: skip
    ends = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(ends) == 5 * len(expected)
    for command, path, code, said in ends:
        assert code == 2, (command, path)
        assert said.startswith("smx-export: expected "), (command, path, said)
        assert expected[path] in said, (command, path, said)
        assert said.count("\n") == 1
    assert not (shelf / "site").exists()


def test_a_file_beyond_the_format_is_not_read(tmp_path, monkeypatch):
    (tmp_path / "huge.onnx").touch()
    os.truncate(tmp_path / "huge.onnx", 2**31)
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail("read"))
    for ask in (describe, selftest, read_onnx, lambda path: check_parity(model_of(), path)):
        with pytest.raises(FileError, match="at most 2,147,483,647 bytes"):
            ask(tmp_path / "huge.onnx")


TENSORS = {
    "cut short": of_shape(4, 6, raw=b"1234"),
    "too long": of_shape(4, 6, raw=b"1234" * 25),
    "of an unknown dtype": of_shape(4, 6, raw=b"1234" * 24, kind=65),
    "of no dtype": of_shape(4, 6, raw=b"1234" * 24, kind=TensorProto.UNDEFINED),
    "of text": TensorProto(name="weight", dims=(4, 6), data_type=8, string_data=24 * [b"\xff"]),
    "empty": of_shape(0, 6),
    "with a name that is no text": None,
}


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("mode", [DESCRIBE, RESEALED, VERIFY])
def test_a_weight_that_is(tensor, mode, shelf):
    change = (lambda model: None) if tensor is None else as_weight(tensor)
    path = forge(shelf, change, "weight.onnx")
    if tensor is None:
        path.write_bytes(resealed(path.read_bytes().replace(b"weight", b"w\xffight")))
    assert ending(mode, path, model_of()).split()[0] in ("FileError", "failed", "described")


WRONG = [
    "3", "[1, 2]", '{"a": 1}', '"abc"', "null", "[[1]]", "NaN", "1e999", "[", "", 9999 * "1",
    100_000 * "[", 500 * "[" + 500 * "]", 400 * '{"a":' + "1" + 400 * "}", "\0", '"\\ud800"',
]  # fmt: skip
KEYS = ["class_names", "input_shape", "input_range", "profile", "provenance", "threshold"]


@pytest.mark.parametrize("key", [*KEYS, "selftest"])
@pytest.mark.parametrize("value", sampled(WRONG, every=4), ids=range(len(WRONG)))
def test_metadata_of_another_kind(key, value, shelf):
    def change(model):
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        helper.set_model_props(model, metadata | {key: value})

    path = forge(shelf, change, "metadata.onnx")
    ends = {mode: ending(mode, path, model_of()) for mode in (DESCRIBE, RESEALED)}
    assert ends[DESCRIBE] == "described"
    assert ends[RESEALED].split()[0] in ("FileError", "failed", "passed")
    assert key != "selftest" or ends[RESEALED] != "passed"
    str(describe(path)).encode()


def test_text_that_is_no_utf_8(shelf):
    good = (shelf / "good.onnx").read_bytes()
    words = [b"smx-lightning", b"class_names", b'["0"', b"provenance", b"gemm", b"scores", b"batch"]
    for word in [
        *words,
        b"packages",
        b"max_nll_increase",
        b"bfloat16",
        b"log_probs",
        b"LogSoftmax",
    ]:
        path = shelf / "text.onnx"
        path.write_bytes(resealed(good.replace(word, b"\xff" + word[1:])))
        for mode in (DESCRIBE, RESEALED, VERIFY):
            assert ending(mode, path, model_of()) == "FileError", (word, mode)


if __name__ == "__main__":
    sweep(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
