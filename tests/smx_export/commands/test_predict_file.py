"""``smx-export predict``: what a file answers to all rows of a data file, in their order."""

import csv
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from profiled import log_softmax, logits, model_of
from tools import ROOT

from smx_export import FileError, Profile, export_onnx
from smx_export import predict as predict_module
from smx_export.__main__ import main
from smx_export.predict import predict
from smx_lightning import InputError
from smx_lightning.data.npz import read_npz

NAN = float("nan")


@pytest.fixture(scope="module")
def model():
    return model_of(input_shape=(12,))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export_onnx(model, tmp_path_factory.mktemp("predict") / "model.onnx").path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(count=40, seed=0, dtype=np.float64):
    return np.random.default_rng(seed).uniform(0, 1, (count, 12)).astype(dtype)


def read(path="out.csv"):
    with Path(path).open(newline="", encoding="utf-8") as file:
        header, *found = csv.reader(file)
    numbers = [int(row) for row, *_ in found]
    return header, numbers, [name for _, name, *_ in found], [p for _, _, *p in found]


def assert_answers(model, x, path="out.csv"):
    """Held against a computation of its own, numpy in float64."""
    truth = log_softmax(logits(model, x))
    header, numbers, names, probs = read(path)
    assert header == ["row", "class", *(f"p({name})" for name in model.class_names)]
    assert numbers == list(range(len(x)))
    assert names == [model.class_names[k] for k in truth.argmax(1)]
    np.testing.assert_allclose(np.array(probs, float), np.exp(truth), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_all_rows_of_a_file_are_answered_in_their_order(save, model, file, here, capsys):
    parts = {name: rows(n, n) for n, name in ((7, "x_test"), (40, "x"), (11, "x_val"))}
    save("d.npz", y=np.arange(40) % 3, other=np.array(["a"]), **parts)
    assert main(["predict", str(file), "d.npz", "out.csv"]) == 0
    assert_answers(model, np.vstack([parts["x"], parts["x_val"], parts["x_test"]]))
    assert capsys.readouterr() == ("wrote out.csv (58 rows)\n", "")


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", "f2", "u1", "i8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_single_array_of_any_numbers_is_taken(dtype, order, model, file, here):
    x = np.asarray(np.rint(2 * rows()) if np.dtype(dtype).kind in "uib" else rows(), dtype)
    np.save("x.npy", np.asarray(x, order=order))
    assert predict(file, "x.npy", "out.csv") == 40
    assert_answers(model, x.astype(np.float32).astype(np.float64))


@pytest.mark.parametrize("shape", [(1, 12), (40, 3, 4), (40, 1, 12)])
def test_rows_of_any_number_and_shape_are_taken(shape, model, file, here):
    x = rows().reshape(-1)[: np.prod(shape)].reshape(shape)
    np.save("x.npy", x)
    assert predict(file, "x.npy", "out.csv") == shape[0]
    assert_answers(model, x.reshape(shape[0], 12))


def test_no_rows_are_a_file_of_no_rows(file, here):
    np.save("x.npy", rows(0))
    assert predict(file, "x.npy", "out.csv") == 0
    assert Path("out.csv").read_text() == "row,class,p(ant),p(bee),p(cat)\n"


def test_what_lightning_writes_of_the_same_rows_is_the_same(trained, digits, quiet_trainer, here):
    from torch.utils.data import DataLoader

    from smx_lightning.callbacks import PredictionsCsv

    x = digits.splits.test.x
    loader = DataLoader(x, batch_size=100)
    quiet_trainer(callbacks=[PredictionsCsv("live.csv")]).predict(trained, loader)
    np.savez("d.npz", x=x.numpy())
    predict(export_onnx(trained, "m.onnx").path, "d.npz", "out.csv")
    live, own = read("live.csv"), read()
    assert own[:3] == live[:3]
    np.testing.assert_allclose(np.array(own[3], float), np.array(live[3], float), 1e-4, 1e-6)


def test_many_rows_are_read_in_blocks_and_progress_is_told(model, file, here, monkeypatch, capsys):
    monkeypatch.setattr(predict_module, "BLOCK_NUMBERS", 12 * 7)
    monkeypatch.setattr(predict_module, "PATIENCE", 0.0)
    np.savez("d.npz", x=rows(), x_test=rows(15, 2))
    sizes = []
    answer = predict_module._answer
    monkeypatch.setattr(
        predict_module, "_answer", lambda c, block: sizes.append(len(block)) or answer(c, block)
    )
    assert main(["predict", str(file), "d.npz", "out.csv"]) == 0
    assert_answers(model, np.vstack([rows(), rows(15, 2)]))
    assert sizes == [7, 7, 7, 7, 7, 5, 7, 7, 1]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "smx-export: 7 of 55 rows"
    assert said[-1] == "smx-export: 55 of 55 rows"


def test_threshold_label_and_scores_answer_alike(here):
    model = model_of(classes=2, threshold=0.2, input_shape=(12,))
    np.save("x.npy", rows())
    found = []
    for outputs in (("probs",), ("log_probs", "label"), ("scores",)):
        path = export_onnx(model, "m.onnx", profile=Profile.of(outputs=outputs)).path
        predict(path, "x.npy", "out.csv")
        found.append(read()[2])
    p = np.exp(log_softmax(logits(model, rows())))[:, 1]
    assert ((p >= 0.2) != (p >= 0.5)).any()
    assert found == [[model.class_names[int(k)] for k in p >= 0.2]] * 3


def test_an_image_file_takes_bytes(here, capsys):
    model = model_of()
    path = export_onnx(model, "m.onnx", profile="image").path
    u = np.random.default_rng(1).integers(0, 256, (40, 3, 4), np.uint8)
    np.save("u.npy", u)
    predict(path, "u.npy", "out.csv")
    assert_answers(model, u / 255)
    np.save("x.npy", u / 255)
    assert main(["predict", str(path), "x.npy", "never.csv"]) == 2
    said = capsys.readouterr().err
    assert "got float64; convert values from 0 to 1 into pixels with numpy.rint(" in said


def poisoned(*where):
    x = rows()
    x[list(where), 3] = NAN
    return x


def test_rows_without_an_answer_are_refused_or_left_empty(model, file, here, monkeypatch, capsys):
    monkeypatch.setattr(predict_module, "BLOCK_NUMBERS", 12 * 7)
    np.savez("d.npz", x=rows(), x_test=poisoned(20, 33))
    assert main(["predict", str(file), "d.npz", "out.csv"]) == 2
    assert "in row 20 of x_test in d.npz; remove or impute such rows" in capsys.readouterr().err
    assert [entry.name for entry in here.iterdir()] == ["d.npz"]
    assert main(["predict", str(file), "d.npz", "out.csv", "--nan", "missing"]) == 0  # the remedy
    _, numbers, names, probs = read()
    truth = log_softmax(logits(model, np.vstack([rows(), rows()]))).argmax(1)
    expected = [model.class_names[k] for k in truth]
    expected[60] = expected[73] = ""
    assert (numbers, names) == (list(range(80)), expected)
    assert {*probs[60], *probs[73]} == {"nan"}
    assert main(["predict", str(file), "d.npz", "out.csv", "--nan", "ignore"]) == 0
    assert read()[2][60] == model.class_names[0]


def test_what_float32_cannot_hold_has_no_answer(file, here):
    np.save("x.npy", np.full((3, 12), 1e300))
    with pytest.raises(ValueError, match=r"in row 0 of x in x\.npy"):
        predict(file, "x.npy", "out.csv")


def test_rows_in_other_units_are_told(file, here, capsys):
    np.save("x.npy", 255 * rows())
    ask = ["predict", str(file), "x.npy", "out.csv"]
    assert main(ask) == 0
    said = capsys.readouterr().err
    assert said.startswith("smx-export: expected inputs in the range of the training data, 0 to 1")
    assert len(said.splitlines()) == 1
    assert main([*ask, "--range", "ignore"]) == 0
    assert capsys.readouterr().err == ""
    (here / "out.csv").unlink()
    assert main([*ask, "--range", "raise"]) == 2
    assert not (here / "out.csv").exists()


def header(**changes):
    """An .npy file whose header promises something."""
    values = {"descr": "<f8", "fortran_order": False, "shape": (40, 12)} | changes
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, values)
    return file.getvalue() + rows().tobytes()


def bytes_of(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


def text_header(text):
    """An .npy file that says something else where the header is."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


def packed(method):
    """An .npz file of one of zipfile's methods."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        archive.writestr("x.npy", bytes_of(np.save, rows()))
    return file.getvalue()


DAMAGED_LZMA = packed(zipfile.ZIP_LZMA).replace(packed(zipfile.ZIP_LZMA)[60:90], b"\xff" * 30)
ZIPPED = bytes_of(np.savez, x=rows())


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "does not read"),
        (b"1,2,3\n", "does not read"),
        (b"PK nonsense", "does not read"),
        (ZIPPED[:-300], "does not read"),
        (ZIPPED.replace(rows().tobytes()[:8], b"damaged!", 1), "does not read"),
        (bytes_of(np.savez, features=rows()), "expected an array x in rows, got features.npy"),
        (bytes_of(np.savez, x_test=rows()), "expected an array x in rows, got x_test.npy"),
        (
            bytes_of(np.save, rows()[0]),
            r"expected rows of 12 numbers .* got shape \(12,\); save a single row as x\[None\]",
        ),
        (bytes_of(np.save, rows()[:, :11]), r"expected rows of 12 numbers .* got shape \(40, 11\)"),
        (
            bytes_of(np.savez, x=rows(), x_val=rows()[:, :3]),
            r"in x_val in rows, got shape \(40, 3\)",
        ),
        (bytes_of(np.save, rows().astype(str)), "expected real numbers in x in rows, got dtype <U"),
        (
            bytes_of(np.save, rows() + 1j),
            "expected real numbers in x in rows, got dtype complex128",
        ),
        (
            bytes_of(np.save, np.array([[{}]])),
            "expected real numbers in x in rows, got dtype object",
        ),
        (
            header(shape=(41, 12)),
            r"as large as it says, 3,936 bytes for shape \(41, 12\), got 3,840",
        ),
        (header(shape=(10**15, 12)), "as large as it says"),
        (header(shape=(-1, 12)), r"for shape \(-1, 12\)"),
        (header(shape=(2, 0)), "got shape"),
        (header(descr="nonsense"), "does not read"),
        (header(shape=(10**13, 12), fortran_order=True), "as large as it says"),
        (header(shape=(10**20, 12), fortran_order=True), "as large as it says"),
        (text_header("-" * 9000 + "1"), "does not read"),
        (text_header("(" * 9000), "does not read"),
        (text_header("{'descr': [], 'fortran_order': 1, 'shape': ()}"), "does not read"),
        (DAMAGED_LZMA, "does not read"),
    ],
    ids=lambda value: None if isinstance(value, bytes) else value[:40],
)
def test_what_is_no_file_of_rows_is_refused(content, words, file, here):
    (here / "rows").write_bytes(content)
    with pytest.raises(ValueError, match=words) as refused:
        predict(file, "rows", "out.csv")
    assert len(str(refused.value).splitlines()) == 1
    assert [entry.name for entry in here.iterdir()] == ["rows"]
    with pytest.raises(InputError, match="expected"):
        read_npz("rows")


def test_a_file_that_is_not_as_it_was_exported_predicts_nothing(file, here):
    np.save("x.npy", rows())
    content = bytearray(file.read_bytes())
    weight = next(t for t in onnx.load(file).graph.initializer if t.name == "weight")
    content[content.index(weight.raw_data) + 3] ^= 0x80
    (here / "changed.onnx").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"self-test \(seal: the file was changed .*export it agai"
    ):
        predict("changed.onnx", "x.npy", "out.csv")
    proto = onnx.load(file)
    del proto.metadata_props[:]
    onnx.save(proto, "foreign.onnx")
    with pytest.raises(ValueError, match="expected a file with self-test vectors"):
        predict("foreign.onnx", "x.npy", "out.csv")
    assert not (here / "out.csv").exists()


def test_a_file_of_labels_alone_is_refused_before_the_rows_are_read(model, here):
    path = export_onnx(model, "m.onnx", profile=Profile.of(outputs=("label",))).path
    np.save("x.npy", rows())
    with pytest.raises(ValueError, match="expected a file that tells probabilities"):
        predict(path, "x.npy", "out.csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("model x.npy x.npy", "expected a file of its own for each of"),
        ("model x.npy model", "expected a file of its own for each of"),
        ("model none.npy out.csv", "expected rows at none.npy, found no file; check the path"),
        ("none.onnx x.npy out.csv", "expected an ONNX file at none.onnx, found none"),
        ("x.npy x.npy.bak out.csv", "expected an ONNX"),
        ("model x.npy no/out.csv", "choose a folder that exists"),
    ],
)
def test_bad_paths_are_one_sentence(arguments, words, file, here, capsys):
    np.save("x.npy", rows())
    before = {name: (here / name).read_bytes() for name in ("x.npy",)}
    given = [str(file) if part == "model" else part for part in arguments.split()]
    assert main(["predict", *given]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert len(said.splitlines()) == 1
    assert (here / "x.npy").read_bytes() == before["x.npy"]


def test_an_earlier_file_survives_a_refusal(file, here):
    (here / "out.csv").write_text("mine")
    np.save("x.npy", poisoned(39))
    with pytest.raises(ValueError, match="row 39"):
        predict(file, "x.npy", "out.csv")
    assert (here / "out.csv").read_text() == "mine"


def test_a_bomb_of_zeros_is_streamed(file, here):
    """240 MB that little unpacks to, in a process that takes half as much."""
    with zipfile.ZipFile("d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        start = io.BytesIO()
        values = {"descr": "<f8", "fortran_order": False, "shape": (2_500_000, 12)}
        np.lib.format.write_array_header_1_0(start, values)
        with archive.open("x.npy", "w", force_zip64=True) as member:
            member.write(start.getvalue())
            for _ in range(15):
                member.write(bytes(16_000_000))
    script = """
import resource, sys
import numpy, onnxruntime
from smx_export.runtime.row_files import blocks_of, stored_arrays
used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
arrays = stored_arrays("d.npz")
print(sum(len(block) for _, _, block in blocks_of("d.npz", arrays, 100_000)))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - used < 120_000, "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=here,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'export'}"},
    )  # fmt: skip
    assert done.stdout.split() == ["2500000", "True", "False"]


def test_pictures_with_other_axes_are_refused(here):
    path = export_onnx(model_of(input_shape=(2, 2, 3)), "m.onnx").path
    np.save("x.npy", rows().reshape(40, 2, 2, 3).transpose(0, 3, 1, 2))
    with pytest.raises(FileError, match=r"x in x.npy: expected inputs of .*another order"):
        predict(path, "x.npy", "out.csv")
    assert not Path("out.csv").exists()
