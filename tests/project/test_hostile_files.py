"""Files made to exhaust who reads them, each by its own trick, and fields that nobody saved.

Every command ends in a sentence, within 2 s of computing and 1 GB, see tests/support/fenced.py.
"""

import gzip
import io
import os
import re
import shlex
import struct
import zipfile
import zlib

import hostile
import numpy as np
import onnx
import pytest
import torch
from fenced import SECONDS, Fence
from fuzzing import CALM, ROWS, fault
from onnx import TensorProto, helper, numpy_helper
from sampled import sampled, whole

from smx_export import FileError
from smx_export.artifact.files import sealed
from smx_export.artifact.vectors import Vectors
from smx_export.contract import SELFTEST
from smx_export.targets.limited import Limits
from smx_export.targets.selftest import selftest
from smx_lightning import InputError
from smx_lightning.data.npz import read_npz
from smx_lightning.errors import sizes

BAD, FAILED = 2, 1


@pytest.fixture(scope="module")
def fence():
    with Fence() as fence:
        yield fence


@pytest.fixture(scope="module")
def shelf(tmp_path_factory):
    shelf = tmp_path_factory.mktemp("hostile")
    hostile.shelf(shelf)
    (shelf / "loop").symlink_to("loop")
    return shelf


def ends(fence, shelf, command, code, words=""):
    """Hold a command to its code, its sentence and its limits; what it said."""
    reader, *arguments = shlex.split(command)
    ended = fence.run(reader, *arguments, cwd=shelf)
    assert not fault(reader, ended), fault(reader, ended)
    assert ended.code == code, ended
    assert words in ended.out + ended.err, ended.out + ended.err
    return ended


# Sizes -------------------------------------------------------------------------------------------


def zeros(size, head=b"", wbits=-15):
    """A deflated stream that inflates to ``head`` and so many zeros; size, a multiple of 16 MB."""
    block, stream = bytes(1 << 24), zlib.compressobj(9, zlib.DEFLATED, wbits)
    content = stream.compress(head) + stream.flush(zlib.Z_FULL_FLUSH)
    piece = stream.compress(block) + stream.flush(zlib.Z_FULL_FLUSH)
    return content + piece * (size >> 24) + stream.flush()


def header(shape, descr="<f4", *, fortran=False):
    start = io.BytesIO()
    values = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(start, values)
    return start.getvalue()


def save_zeros(path, name, head, size, others):
    """An archive of a few MB one of whose members inflates to GBs, and says so."""
    deflated = zeros(size, head)
    with zipfile.ZipFile(path, "w") as archive:
        for other, data in others.items():
            archive.writestr(other, data)
        info = zipfile.ZipInfo(name)
        archive.writestr(info, deflated)
        info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(head) + size  # as listed


SIX_GB = 6 * 2**30


def bomb_shape(path, members):
    path.write_bytes(hostile.zipped({**members, "x.npy": header((10**12, 4)) + bytes(192)}))


def bomb_fortran(path, members):
    x = header((10**12, 4), fortran=True) + bytes(192)
    path.write_bytes(hostile.zipped({**members, "x.npy": x}))


def bomb_empty_texts(path, members):
    y = header((10**12,), "<U0")
    path.write_bytes(hostile.zipped({**members, "y.npy": y, "x.npy": header((10**12, 4))}))


def bomb_zeros(path, members):
    head = header((SIX_GB // 16, 4))
    save_zeros(path, "x.npy", head, SIX_GB, {"y.npy": members["y.npy"]})


def bomb_bare_member(path, members):
    save_zeros(path, "x", b"", SIX_GB, {"y.npy": members["y.npy"]})


def bomb_bare_shape(path, members):
    path.write_bytes(hostile.zipped({"x": header((10**12, 4)) + bytes(192), "y": members["y.npy"]}))


def bomb_long_header(path, members):
    head = b"\x93NUMPY\x02\0" + (2**32 - 1).to_bytes(4, "little")
    save_zeros(path, "x.npy", head, 2**32, {"y.npy": members["y.npy"]})


NPZ = [
    bomb_bare_shape,
    bomb_shape,
    bomb_fortran,
    bomb_empty_texts,
    bomb_zeros,
    bomb_bare_member,
    bomb_long_header,
]
READERS_OF_ROWS = [
    "npz FILE",
    "rows FILE",
    "smx-export predict good.onnx FILE out.csv",
    "smx-export verify good.onnx --checkpoint good.ckpt --data FILE",
    f"smx-lightning fit --data=NpzDataModule --data.path=FILE {CALM}",
]


@pytest.mark.parametrize(
    ("make", "command"),
    sampled([(make, command) for make in NPZ for command in READERS_OF_ROWS], every=6),
)
def test_an_npz_bomb_is_refused_by_what_it_declares(make, command, shelf, fence):
    path = shelf / f"{make.__name__}.npz"
    make(path, hostile.members_of((shelf / "good.npz").read_bytes()))
    assert path.stat().st_size < 10_000_000
    ends(fence, shelf, command.replace("FILE", path.name), BAD)
    path.unlink()


def test_what_is_said_of_them(tmp_path):
    good = io.BytesIO()
    np.savez(good, x=np.zeros((12, 4), np.float32), y=np.arange(12))
    members = hostile.members_of(good.getvalue())
    bomb_shape(tmp_path / "d.npz", members)
    with pytest.raises(
        InputError, match=r"as large as it says, 16,000,000,000,000 bytes .* got 192"
    ):
        read_npz(tmp_path / "d.npz")
    bomb_zeros(tmp_path / "d.npz", members)
    with pytest.raises(InputError, match="at most 200 times what is stored of it, got 6,442,"):
        read_npz(tmp_path / "d.npz")


def test_data_that_compress_well_are_read_and_stored_ones_of_any_size(tmp_path, monkeypatch):
    """The remedy: uncompressed. And nothing is refused for its ratio alone."""
    x, y = np.zeros((5000, 200)), np.arange(5000) % 3
    np.savez_compressed(tmp_path / "d.npz", x=x, y=y)
    assert x.nbytes > 500 * (tmp_path / "d.npz").stat().st_size
    assert read_npz(tmp_path / "d.npz")["x"].shape == x.shape
    monkeypatch.setattr(sizes, "FREE", 1 << 20)
    with pytest.raises(InputError, match="at most 200 times"):
        read_npz(tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x=x, y=y)
    assert read_npz(tmp_path / "d.npz")["x"].shape == x.shape


def test_what_no_memory_holds_is_refused_before_it_is_read(tmp_path, monkeypatch):
    np.savez(tmp_path / "d.npz", x=np.ones((1000, 10)), y=np.arange(1000) % 3)
    monkeypatch.setattr(sizes, "free_memory", lambda: 80_000)
    with pytest.raises(InputError, match="fits in the free memory, 80,000 bytes, got 88,"):
        read_npz(tmp_path / "d.npz")


def test_the_free_memory_is_no_more_than_the_machine_has():
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < sizes.free_memory() <= there


IDX_HEAD = struct.pack(">BBBB3I", 0, 0, 8, 3, 40, 3, 3)


@pytest.mark.parametrize(
    ("head", "size", "words"),
    [
        (IDX_HEAD, 10 * 2**30, "expected 376 bytes for shape (40, 3, 3), got more in"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, 10 * 2**20, 32, 32), 10 * 2**30, "at most 200 times"),
        (struct.pack(">BBBB3I", 0, 0, 8, 3, *[2**32 - 1] * 3), 2**24, "got at most "),
        (bytes([0, 0, 8, 255]), 2**30, "for shape (0, 0,"),
        (b"", 10 * 2**30, "type 0x00"),
    ],
    ids=["small header", "true header", "huge header", "255 dimensions", "no header"],
)
def test_an_idx_bomb_is_refused_by_what_it_declares(head, size, words, shelf, fence, tmp_path):
    labels = struct.pack(">BBBBI", 0, 0, 8, 1, 40) + bytes(40)
    for part in ("train", "t10k"):
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        (tmp_path / f"{part}-images-idx3-ubyte").write_bytes(IDX_HEAD + bytes(360))
    (tmp_path / "train-images-idx3-ubyte").unlink()
    bomb = tmp_path / "train-images-idx3-ubyte.gz"
    bomb.write_bytes(b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zeros(size, head) + bytes(8))
    assert bomb.stat().st_size < 11_000_000
    ends(fence, tmp_path, "idx .", BAD, words)


def test_idx_data_that_are_whole_are_read(fence, tmp_path):
    for part in ("train", "t10k"):
        labels = struct.pack(">BBBBI", 0, 0, 8, 1, 40) + bytes([0, 1] * 20)
        (tmp_path / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
        images = IDX_HEAD + bytes(360)
        (tmp_path / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    ends(fence, tmp_path, "idx .", 0)


# Checkpoints -------------------------------------------------------------------------------------

HYPER = [
    {"num_classes": 10**9}, {"num_features": 10**9}, {"num_classes": 10**30}, {"num_classes": -3},
    {"num_classes": "3"}, {"num_classes": None}, {"num_classes": [3]}, {"num_features": {}},
    {"num_features": 4.5}, {"num_features": float("nan")}, {"class_names": 7},
    {"class_names": [1, None, {}]}, {"class_names": {"a": 1}}, {"class_names": "abc"},
    {"input_shape": [-1, -4]}, {"input_shape": "four"}, {"input_shape": [None]},
    {"input_shape": [10**9, 10**9]}, {"input_shape": 4}, {"input_range": [1]},
    {"input_range": ["a", "b"]}, {"input_range": 5}, {"input_range": [0, None]}, {"l2": "much"},
    {"l2": [1]}, {"l2": float("nan")}, {"l2": None}, {"class_weight": 3}, {"class_weight": {1: 2}},
    {"class_weight": {"a": "b"}}, {"class_weight": [[1], [2], [3]]}, {"threshold": "half"},
    {"threshold": [0.5]}, {"preprocessing": 5}, {"preprocessing": ["scale"]}, {"optimizer": 5},
    {"optimizer": {"class_path": 5}}, {"optimizer": {"class_path": "torch.optim.Adam",
    "init_args": {"lr": "x"}}}, {"lr_scheduler": {"class_path": "torch.optim.lr_scheduler.StepLR",
    "init_args": {"step_size": "x"}}}, {1: 2}, {None: 1},
]  # fmt: skip
# Names a, b, c; no arguments at all; a whole number; what is asked for when the model is trained.
ENDS_WELL = re.compile(r".*('abc'|1: 2|None: 1|4\.5|'optimizer'|'lr_scheduler')")
TENSORS = {
    "preprocessing.scale": [torch.zeros(4), -torch.ones(4), torch.full((4,), torch.nan), "1",
                            torch.ones(3), torch.ones(4, dtype=torch.complex64), torch.ones(())],
    "preprocessing.mean": [torch.full((4,), torch.inf), torch.ones(4, 1), None],
    "smx.0.weight": [torch.ones(1).expand(10**9, 4), torch.ones(1).expand(3, 4), torch.ones(12),
                     torch.ones(3, 4, device="meta"), torch.ones(3, 4).to_sparse(), {}, 7],
    "class_counts": [torch.ones(3, 2), -torch.ones(3, dtype=torch.int64), torch.tensor([0.5] * 3)],
}  # fmt: skip
SETTINGS = [
    {"class_names": ["a", 1]}, {"l2": []}, {"num_classes": 10**9}, {"threshold": {}},
    {"input_shape": [None]}, {"class_weight": {"a": {}}}, {"optimizers": {"optimizer": 5}},
    {"num_classes": "x" * 5000},
]  # fmt: skip
NOTES = [{"smx_lightning": 5}, {"smx_lightning": {"class": 5}}, {"hyper_parameters": [1]},
         {"hyper_parameters": None}, {"state_dict": []}, {"state_dict": {}}, {"loops": 7},
         {"state_dict": {1: torch.ones(1)}}, {"optimizer_states": [7]}]  # fmt: skip
OF_CHECKPOINTS = [
    ("smx-export convert bad.ckpt out.onnx", {0, BAD}),
    (f"smx-lightning predict --ckpt_path bad.ckpt {ROWS} {CALM}", {0, BAD}),
    (f"smx-lightning test --ckpt_path bad.ckpt {ROWS} {CALM}", {0, BAD}),
]


def changed(content, part, values):
    if part == "":
        return {**content, **values}
    if part == "settings":
        written = content["smx_lightning"]
        settings = {**written["settings"], **values}
        return {**content, "smx_lightning": {**written, "settings": settings}}
    return {**content, part: {**content[part], **values}}


CHANGES = [
    *(("hyper_parameters", values) for values in HYPER),
    *(("state_dict", {name: value}) for name, values in TENSORS.items() for value in values),
    *(("settings", values) for values in SETTINGS),
    *(("", values) for values in NOTES),
]


@pytest.mark.parametrize(
    ("command", "codes", "changes"),
    [
        (*OF_CHECKPOINTS[0], CHANGES[::6]),
        *(whole((*command, CHANGES)) for command in OF_CHECKPOINTS),
    ],
    ids=["some", "convert", "predict", "test"],
)
def test_fields_of_a_checkpoint_that_nobody_saved(command, codes, changes, shelf, fence):
    good = torch.load(shelf / "good.ckpt", weights_only=True)
    wrong = []
    for part, values in changes:
        torch.save(changed(good, part, values), shelf / "bad.ckpt")
        reader, *arguments = shlex.split(command)
        ended = fence.run(reader, *arguments, cwd=shelf)
        told = fault(reader, ended)
        hyper = part == "hyper_parameters" and not ENDS_WELL.match(str(values))
        allowed = codes - ({0} if hyper and "convert" in command else set())
        if told or ended.code not in allowed:
            wrong.append((part, values, ended.code, told or ended.err))
    assert not wrong


def test_a_checkpoint_that_inflates_to_more_than_any_is(shelf, fence):
    members = hostile.members_of((shelf / "good.ckpt").read_bytes())
    big = next(name for name in members if name.endswith("/data/0"))
    save_zeros(shelf / "bad.ckpt", big, b"", SIX_GB, {n: d for n, d in members.items() if n != big})
    ends(fence, shelf, "smx-export convert bad.ckpt out.onnx", BAD, "at most 200 times")


# ONNX --------------------------------------------------------------------------------------------


def rewritten(proto, nodes, *initial):
    """The graph behind other nodes, sealed, with the hash of its own weights."""
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    kept = [*model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *kept])
    model.graph.initializer.extend(initial)
    return hostile.resealed(model)


def constant(name, value):
    return numpy_helper.from_array(np.asarray(value), name)


def loop(proto):
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Neg", ["v"], ["w"])],
        "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("v", TensorProto.FLOAT, [])],
        [helper.make_tensor_value_info("d", TensorProto.BOOL, []),
         helper.make_tensor_value_info("w", TensorProto.FLOAT, [])],
    )  # fmt: skip
    node = helper.make_node("Loop", ["trips", "go", "start"], ["end"], name="round", body=body)
    start = constant("start", np.float32(1))
    return rewritten(proto, [node], constant("trips", 2**62), constant("go", True), start)


def constant_of_shape(proto):
    node = helper.make_node("ConstantOfShape", ["sides"], ["huge"], name="huge")
    total = helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0)
    return rewritten(proto, [node, total], constant("sides", [10 * 2**28]))


def expand(proto):
    node = helper.make_node("Expand", ["one", "sides"], ["huge"])
    total = helper.make_node("ReduceSum", ["huge"], ["sum"], keepdims=0)
    return rewritten(
        proto, [node, total], constant("one", np.float32(1)), constant("sides", [2**17, 2**17])
    )


def broadcast(proto):
    nodes = [helper.make_node("Add", ["column", "row"], ["huge"]),
             helper.make_node("ReduceMax", ["huge"], ["most"], keepdims=0)]  # fmt: skip
    side = np.zeros(60_000, np.float32)
    return rewritten(proto, nodes, constant("column", side[:, None]), constant("row", side[None]))


def many_products(proto):
    """Nothing large, and more to compute than anybody waits for."""
    nodes = [helper.make_node("Expand", ["one", "sides"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{i}", f"p{i}"], [f"p{i + 1}"]) for i in range(400)]
    sides = constant("sides", [3000, 3000])
    return rewritten(proto, nodes, constant("one", np.float32(0)), sides)


ONNX = [loop, constant_of_shape, expand, broadcast, many_products]
RUNNING = [
    ("selftest bad.onnx", FAILED),
    ("predict bad.onnx good.npz out.csv", BAD),
    ("verify bad.onnx --checkpoint good.ckpt", FAILED),
]


@pytest.mark.parametrize("make", sampled(ONNX, every=3))
def test_an_onnx_file_that_would_take_all_there_is(make, shelf, fence):
    proto = onnx.load(shelf / "good.onnx")
    (shelf / "bad.onnx").write_bytes(make(proto))
    assert (shelf / "bad.onnx").stat().st_size < 500_000
    for command, code in RUNNING:
        ends(fence, shelf, f"smx-export {command} --max-seconds 1", code)
    ends(fence, shelf, "smx-export inspect bad.onnx", 0)


def test_the_limits_are_those_that_are_given(shelf):
    proto = onnx.load(shelf / "good.onnx")
    (shelf / "bad.onnx").write_bytes(loop(proto))
    found = selftest(shelf / "bad.onnx", limits=Limits(seconds=0.6))
    assert "took more than the 0.6 s that it may" in found.checks[-1].detail
    (shelf / "bad.onnx").write_bytes(expand(proto))
    found = selftest(shelf / "bad.onnx", limits=Limits(memory=1 << 29))
    assert not found.passed
    assert selftest(shelf / "good.onnx", limits=Limits(60, 1 << 29)).passed


@pytest.mark.parametrize("given", ["--max-seconds 0", "--max-seconds nan", "--max-memory -1"])
def test_limits_that_are_none_are_refused(given, shelf, fence):
    ends(
        fence, shelf, f"smx-export selftest good.onnx {given}", BAD, "above 0 and up to 1e+06, got"
    )


def test_a_graph_in_a_graph_in_a_graph(shelf, fence):
    graph = helper.make_graph([], "inner", [], [])
    for depth in range(24):  # protocol buffers read a hundred messages in one another, four a graph
        node = helper.make_node("If", ["go"], [f"o{depth}"], then_branch=graph)
        graph = helper.make_graph([node], "g", [], [])
    proto = onnx.load(shelf / "good.onnx")
    proto.graph.node.extend(graph.node)
    (shelf / "bad.onnx").write_bytes(sealed(proto))
    for command in ("inspect", "selftest"):
        ended = fence.run("smx-export", command, "bad.onnx", cwd=shelf)
        assert not fault("smx-export", ended)


def test_vectors_without_end(shelf, fence):
    proto = onnx.load(shelf / "good.onnx")
    for entry in proto.metadata_props:
        if entry.key == SELFTEST:
            entry.value = "[" * 1_000_000
    (shelf / "bad.onnx").write_bytes(sealed(proto))
    with pytest.raises(FileError):
        Vectors.from_json("[" * 1_000_000)
    ends(fence, shelf, "smx-export selftest bad.onnx", BAD, "damaged ones")


# Configurations ----------------------------------------------------------------------------------

LAUGHS = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
)
YAML = {
    "a billion laughs": f"{LAUGHS}\ntrainer: *a11\n",
    "nested": "[" * 200_000,
    "nested mappings": "{a: " * 50_000,
    "nested by indent": "".join(f"{' ' * i}a:\n" for i in range(3000)),
    "a list in itself": "trainer: &a [*a]\n",
    "a mapping in itself": "trainer: &a {b: *a}\n",
    "no end of digits": "seed_everything: " + "9" * 100_000,
    "an integer without digits": 'seed_everything: !!int ""',
    "a number without digits": 'seed_everything: !!float ""',
    "neither true nor false": "seed_everything: !!bool x",
    "no time": "seed_everything: !!timestamp x",
    "no text": "\x00\x01",
    "not UTF-8": None,
}


CONFIGURED = [
    "smx-lightning fit --config bad.yaml --print_config",
    "smx-lightning --config bad.yaml fit --print_config",
    "smx-lightning fit --trainer bad.yaml --print_config",
    "hparams good.ckpt bad.yaml",
]


@pytest.mark.parametrize(
    ("command", "name"),
    sampled([(command, name) for name in YAML for command in CONFIGURED], every=3),
)
def test_a_configuration_that_would_exhaust_the_parser(command, name, shelf, fence):
    text = YAML[name]
    (shelf / "bad.yaml").write_bytes(b"\xff\xfe\xfd" if text is None else text.encode())
    ends(fence, shelf, command, BAD)


REFUSED = {  # by the parser, in many lines, with what it was given
    "a list for a number": "trainer: {max_epochs: [1, {a: 2}]}",
    "a mapping for a number": "model: {class_path: smx_lightning.SoftmaxRegression, "
    "init_args: {l2: {a: {b: 1}}}}",
    "settings of no class": "model: {init_args: {class_weight: [[1]]}, class_path: [1]}",
    "a class for a class": "data: {class_path: smx_lightning.SoftmaxRegression, init_args: {a: 1}}",
    "lines in a value": 'trainer: {logger: "a\\nerror: all is well\\n"}',
    "many": f"trainer: {{callbacks: [{'{class_path: No}, ' * 2000}]}}",
    "long": f"trainer: {{max_epochs: {'x' * 50_000}}}",
    "a name of lines": '"a\\nb": 1',
    "no mapping": f"[{'1, ' * 5000}]",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_parser_says_on_many_lines_is_one_sentence(name, shelf, fence):
    (shelf / "bad.yaml").write_text(REFUSED[name])
    said = ends(fence, shelf, CONFIGURED[0], BAD, "error: ").err.splitlines()
    assert sum("error: " in line for line in said) == 1
    assert said[-1].startswith("error: ")
    assert len(said[-1]) < 2100


# Links -------------------------------------------------------------------------------------------

LOOPS = [
    "smx-export convert loop out.onnx", "smx-export convert good.ckpt loop",
    "smx-export convert good.ckpt out.onnx --data loop",
    "smx-export convert good.ckpt out.onnx --json loop",
    "smx-export convert good.ckpt loop/out.onnx --sidecar",
    "smx-export verify loop --checkpoint good.ckpt",
    "smx-export verify good.onnx --checkpoint loop",
    "smx-export verify loop --targets onnxruntime",
    "smx-export verify good.onnx --checkpoint good.ckpt --data loop",
    "smx-export verify good.onnx --checkpoint good.ckpt --json loop",
    "smx-export selftest loop", "smx-export inspect loop", "smx-export web loop site",
    "smx-export web good.onnx loop", "smx-export web good.onnx loop/site",
    "smx-export predict loop good.npz out.csv", "smx-export predict good.onnx loop out.csv",
    "smx-export predict good.onnx good.npz loop",
    "smx-export predict good.onnx good.npz loop/out.csv",
    "smx-lightning fit --config loop", "smx-lightning fit --trainer loop",
    f"smx-lightning fit --ckpt_path loop {ROWS} {CALM}",
    f"smx-lightning test --ckpt_path loop {ROWS} {CALM}",
    f"smx-lightning fit --data=NpzDataModule --data.path=loop {CALM}",
    f"smx-lightning fit --data=IdxDataModule --data.path=loop {CALM}",
    f"smx-lightning fit {ROWS} {CALM} --trainer.default_root_dir=loop",
    f"smx-lightning fit {ROWS} {CALM} --onnx.path=loop/m.onnx",
    f"smx-lightning fit {ROWS} {CALM} --onnx.path=loop",
    f"smx-lightning fit {ROWS} {CALM} --checkpoint.dirpath=loop",
    f"smx-lightning predict --ckpt_path good.ckpt {ROWS} {CALM} --predictions.path=loop/p.csv",
    f"smx-lightning test --ckpt_path good.ckpt {ROWS} {CALM} --confusion.path=loop/c.csv",
    "hparams good.ckpt loop", "npz loop", "idx loop", "sidecar loop",
    "smx-export sidecar loop", "smx-export sidecar good.onnx loop/m.json",
]  # fmt: skip


REPLACED = ("--json loop", "--onnx.path=loop")  # a file may be moved into a link's place


@pytest.mark.parametrize("command", sampled(LOOPS, every=3))
def test_a_link_to_itself_is_no_path(command, shelf, fence):
    (shelf / "loop").unlink(missing_ok=True)
    (shelf / "loop").symlink_to("loop")
    reader, *arguments = shlex.split(command)
    ended = fence.run(reader, *arguments, cwd=shelf)
    assert not fault(reader, ended), fault(reader, ended)
    assert ended.code == BAD or (ended.code == 0 and command.endswith(REPLACED)), ended


def test_the_limits_hold(shelf, fence, tmp_path):
    """Else nothing above would mean anything."""
    hungry = tmp_path / "hungry.npz"
    np.savez(hungry, x=np.ones((100_000, 40), np.float32), y=np.arange(100_000) % 3)
    assert fence.run("npz", hungry, cwd=tmp_path).code == 0
    assert fence.run("npz", hungry, cwd=tmp_path, memory=1 << 20).code != 0
    assert SECONDS == 2
