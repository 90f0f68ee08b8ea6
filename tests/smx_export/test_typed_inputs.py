"""Token ids and several inputs on their way: training, checkpoints, command line, classifier."""

import contextlib
import csv
import json
import pickle
import re
import runpy
import shutil
import subprocess
import sys
from base64 import b64decode

import numpy as np
import onnx
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.linear_model import LogisticRegression
from tools import ROOT, needed
from torch import nn
from torch.utils.data import DataLoader, Dataset
from trainers import quiet_trainer
from typed_inputs import CLASSES, WORDS, Several, Tokens, made, probabilities, rows, tensors

from smx_export import FileError, InputRangeWarning, OnnxClassifier, OnnxExport, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.describe import describe
from smx_export.artifact.files import metadata_of, sealed
from smx_export.artifact.sidecar import sidecar, write_sidecar
from smx_export.targets.onnxruntime_ import OnnxRuntime
from smx_export.targets.selftest import selftest
from smx_export.web.site import write_site
from smx_lightning import InputError, Recovery, SoftmaxRegression
from smx_lightning.data import BatchLoader, NpzDataModule
from smx_lightning.optim import ExactSolver

KINDS = (Tokens, Several)
COUNT = 240


class Rows(Dataset):
    """Rows with their labels, of either kind of model."""

    def __init__(self, kind, count=COUNT, seed=0):
        self.x, self.y = rows(kind, count, seed), labels(kind, count, seed)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        x = self.x
        return ({n: p[i] for n, p in x.items()} if isinstance(x, dict) else x[i]), self.y[i]


def labels(kind, count, seed=0):
    x = rows(kind, count, seed)
    return np.digitize(x["age"], [-0.5, 0.5]) if isinstance(x, dict) else x[:, 0] % CLASSES


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Of each kind a model that was trained under a Trainer, its checkpoint and its file."""
    folder = tmp_path_factory.mktemp("trained")

    def train(kind):
        torch.manual_seed(0)
        model = kind(preprocessing="standardize", optimizer=_adam)
        kept = ModelCheckpoint(folder / kind.__name__, monitor="val/nll")
        export = OnnxExport(str(folder / f"{kind.__name__}.onnx"))
        trainer = quiet_trainer(
            max_epochs=3, callbacks=[kept, export], enable_checkpointing=True, logger=False
        )
        loaders = [BatchLoader(Rows(kind, seed=s), batch_size=32, shuffle=not s) for s in (0, 1)]
        trainer.fit(model, *loaders)
        trainer.test(model, loaders[1], verbose=False)
        return model, kept.best_model_path, export.export

    return {kind: train(kind) for kind in KINDS}


def _adam(parameters):
    return torch.optim.Adam(parameters, lr=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_trained_is_exported_and_compared_on_validation_rows(kind, trained):
    model, checkpoint, export = trained[kind]
    assert export.report.task.rows == COUNT
    best = kind.load_from_checkpoint(checkpoint, optimizer=_adam).eval()
    assert (best.input_shape, best.input_dtype, best.input_range) == (
        model.input_shape,
        model.input_dtype,
        model.input_range,
    )
    x = rows(kind, 50, seed=9)
    right = probabilities(best, x)
    assert np.abs(OnnxClassifier(export.path).predict_proba(x) - right).max() < 1e-5
    assert model.confusion_matrix.sum() == COUNT


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_takes_the_inputs_alone(kind, trained):
    model, *_ = trained[kind]
    x = tensors(rows(kind, 10))
    (found,) = quiet_trainer().predict(model, DataLoader([x], batch_size=None))
    right = probabilities(model, rows(kind, 10))
    assert np.abs(found.probs.numpy() - right).max() < 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_solver_finds_scikit_learns_optimum_of_the_features(kind):
    torch.manual_seed(0)
    model = kind(l2=1e-2, optimizer=ExactSolver)
    for part in (model.words, getattr(model, "pixels", None)):
        if part is not None:
            part.requires_grad_(False)
    loader = BatchLoader(Rows(kind), batch_size=100)
    quiet_trainer(max_epochs=200).fit(model, loader)
    assert model.solver.status.name == "CONVERGED"
    model.eval()
    x = tensors(rows(kind, COUNT))
    with torch.no_grad():
        features = model.checked_features(x).double().numpy()
    y = labels(kind, COUNT)
    right = LogisticRegression(C=1 / (1e-2 * COUNT), tol=1e-10, max_iter=10_000).fit(features, y)
    assert (
        np.abs(probabilities(model, rows(kind, COUNT)) - right.predict_proba(features)).max() < 1e-3
    )


@pytest.mark.parametrize("kind", KINDS)
def test_balanced_weights_and_recovery(kind, tmp_path):
    model = kind(class_weight="balanced")
    trainer = quiet_trainer(callbacks=[Recovery(str(tmp_path))], enable_checkpointing=True)
    trainer.fit(model, BatchLoader(Rows(kind), batch_size=100))
    assert model.class_counts.tolist() == np.bincount(labels(kind, COUNT)).tolist()


@pytest.fixture
def npz(tmp_path):
    """A file of labelled rows of a kind."""

    def write(kind, count=20):
        x = rows(kind, count, seed=5)
        named = x if isinstance(x, dict) else {"x": x}
        np.savez(tmp_path / "rows.npz", y=labels(kind, count, seed=5), **named)
        return tmp_path / "rows.npz"

    return write


def answers_in(path):
    """The probabilities in a file of predictions."""
    lines = [*csv.reader(path.read_text().splitlines())][1:]
    return np.array([[float(value) for value in line[-CLASSES:]] for line in lines])


@pytest.mark.parametrize("kind", KINDS)
def test_the_commands(kind, trained, npz, tmp_path, monkeypatch, capsys):
    _, checkpoint, _ = trained[kind]
    monkeypatch.chdir(tmp_path)
    data, out = str(npz(kind)), str(tmp_path / "out.onnx")
    named = ["--model-class", f"typed_inputs:{kind.__name__}", "--data", data]
    assert main(["convert", checkpoint, out, "--sidecar", *named]) == 0
    assert "20 labelled rows" in capsys.readouterr().out
    targets = ["--targets", "onnxruntime,openvino"]
    assert main(["verify", out, "--checkpoint", checkpoint, *targets, *named]) == 0
    assert "1 passed, 0 FAILED, 1 not run" in capsys.readouterr().out
    assert main(["selftest", out]) == 0
    assert main(["inspect", out]) == 0
    assert "ids" in capsys.readouterr().out or kind is Tokens
    assert main(["predict", out, data, "answers.csv"]) == 0
    best = kind.load_from_checkpoint(checkpoint, optimizer=_adam)
    right = probabilities(best, rows(kind, 20, seed=5))
    assert np.abs(answers_in(tmp_path / "answers.csv") - right).max() < 1e-5
    capsys.readouterr()
    assert main(["web", out, "site"]) == 2
    assert "one input of numbers" in capsys.readouterr().err


@pytest.mark.parametrize("fortran", [False, True])
def test_more_rows_than_are_read_at_a_time(fortran, trained, tmp_path, monkeypatch):
    monkeypatch.setattr("smx_export.predict.BLOCK_NUMBERS", 200)
    x = rows(Several, 33)
    x["image"] = np.asfortranarray(x["image"]) if fortran else x["image"].astype(np.float64)
    np.savez_compressed(tmp_path / "rows.npz", **x)
    path, out = str(trained[Several][2].path), str(tmp_path / "out.csv")
    assert main(["predict", path, str(tmp_path / "rows.npz"), out]) == 0
    right = OnnxClassifier(path).predict_proba({**x, "image": x["image"].astype(np.float32)})
    assert np.abs(answers_in(tmp_path / "out.csv") - right).max() < 1e-6


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda x: x.pop("age"), "the arrays image, age, ids, mask"),
        (lambda x: x.update(age=x["age"][:5]), "as many rows of each"),
        (lambda x: x.update(ids=x["ids"] + WORDS), "ids from 0 to 39"),
        (lambda x: x.update(ids=x["ids"] / 2), "ids of int64"),
        (lambda x: x.update(image=x["image"][:, 0]), "image of shape"),
        (lambda x: x.update(mask=x["mask"].astype(str)), "mask of bool"),
        (lambda x: x.update(age=x["age"] * np.nan), "row 0"),
    ],
)
def test_rows_of_a_file_that_do_not_fit_are_refused(change, said, trained, tmp_path, capsys):
    x = rows(Several, 9)
    change(x)
    np.savez(tmp_path / "rows.npz", **x)
    path, out = str(trained[Several][2].path), tmp_path / "out.csv"
    assert main(["predict", path, str(tmp_path / "rows.npz"), str(out)]) == 2
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_a_data_module_keeps_token_ids(npz, tmp_path):
    data = NpzDataModule(npz(Tokens, 60), input_dtype="int64")
    assert data.splits.train.x.dtype == torch.int64
    with pytest.raises(InputError, match="input_dtype='int64'"):
        quiet_trainer().fit(Tokens(), NpzDataModule(npz(Tokens, 60)))
    quiet_trainer().fit(Tokens(), data)
    np.savez(tmp_path / "halves.npz", x=rows(Tokens, 9) / 2, y=labels(Tokens, 9))
    with pytest.raises(InputError, match="whole numbers"):
        NpzDataModule(tmp_path / "halves.npz", input_dtype="int64").load()


def test_ids_that_float32_cannot_hold(tmp_path):
    """Hashed words, say: of integers no digit is lost on the way."""
    x = 2**40 + rows(Tokens, 60)
    np.savez(tmp_path / "hashed.npz", x=x, y=labels(Tokens, 60))
    data = NpzDataModule(tmp_path / "hashed.npz", input_dtype="int64")
    model = Hashed()
    quiet_trainer().fit(model, data)
    assert export_onnx(model, tmp_path / "m.onnx", data=x).report.passed


class Hashed(SoftmaxRegression):
    """Words by a hash of 40 bits and more."""

    def __init__(self):
        bounds = (2**40, 2**40 + WORDS)
        super().__init__(4, CLASSES, input_shape=(6,), input_dtype="int64", input_range=bounds)
        self.words = nn.Embedding(WORDS + 1, 4)

    def features(self, x):
        return self.words(x - 2**40).mean(1)


# The classifier ----------------------------------------------------------------------------------


def test_what_a_classifier_tells_of_its_inputs(trained):
    one, several = (OnnxClassifier(trained[kind][2].path) for kind in KINDS)
    assert (one.input_shape, one.dtype, one.input_range) == ((6,), np.int64, (1, WORDS - 1))
    assert several.input_shape == {"image": (4, 4), "age": (), "ids": (6,), "mask": (6,)}
    assert several.dtype["mask"].kind == "b"
    assert several.input_range["age"] is None
    assert several.num_features == 16 + 1 + 12


@pytest.mark.parametrize("kind", KINDS)
def test_a_classifier_is_pickled_and_takes_no_rows_and_lists(kind, trained):
    classifier = OnnxClassifier(trained[kind][2].path)
    x = rows(kind, 3)
    right = classifier.predict(x)
    assert pickle.loads(pickle.dumps(classifier)).predict(x).tolist() == right.tolist()
    lists = {n: p.tolist() for n, p in x.items()} if isinstance(x, dict) else x.tolist()
    if isinstance(lists, dict):  # whose numbers numpy would take for float64
        lists |= {"age": x["age"], "image": x["image"]}
    assert classifier.predict(lists).tolist() == right.tolist()
    none = {n: p[:0] for n, p in x.items()} if isinstance(x, dict) else x[:0]
    assert classifier.predict(none).shape == (0,)
    assert classifier.predict_names(x) == [str(k) for k in right]


@pytest.mark.parametrize("wrong", [-1, 0, WORDS, 2**40])
def test_ids_out_of_range_have_no_answer(wrong, trained):
    x = rows(Tokens, 3)
    x[1, 2] = wrong
    path = trained[Tokens][2].path
    for how in ("warn", "raise"):
        with pytest.raises(ValueError, match="from 1 to 39"):
            OnnxClassifier(path, on_range=how).predict(x)
    if wrong == 0:  # there is a row for it, though the model states none
        assert len(OnnxClassifier(path, on_range="ignore").predict(x)) == 3


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        (lambda x: x["ids"], TypeError, "a dict of the inputs"),
        (lambda x: {**x, "more": 1}, ValueError, "none besides"),
        (lambda x: {n: p for n, p in x.items() if n != "age"}, ValueError, "each of them"),
        (lambda x: {**x, "age": x["age"][:1]}, ValueError, "as many rows"),
        (lambda x: {**x, "age": x["age"] + np.float64(0.1)}, TypeError, "age of float32"),
        (lambda x: {**x, "mask": x["mask"] + 2}, TypeError, "mask of bool"),
        (lambda x: {**x, "age": np.float32(3)}, ValueError, "age of shape"),
        (lambda x: {**x, "image": np.full((3, 4, 4), np.nan, np.float32)}, ValueError, "NaN"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(change, kind, said, trained):
    with pytest.raises(kind, match=said):
        OnnxClassifier(trained[Several][2].path).predict(change(rows(Several, 3)))


def test_a_row_with_nan_in_any_input_is_missing(trained):
    x = rows(Several, 4)
    x["age"][1], x["image"][2, 0, 0] = np.nan, np.nan
    classifier = OnnxClassifier(trained[Several][2].path, on_nan="missing")
    assert (classifier.predict(x) == -1).tolist() == [False, True, True, False]


def test_pictures_in_other_units_are_spoken_of(trained):
    x = rows(Several, 4)
    x["image"] *= 255
    with pytest.warns(InputRangeWarning, match="0 to 1") as warned:
        OnnxClassifier(trained[Several][2].path).predict(x)
    assert warned[0].filename == __file__


def test_a_stranger_reads_the_sidecar(trained):
    path = trained[Several][2].path
    told = json.loads(json.dumps(sidecar(path)))
    assert [one["name"] for one in told["input"]] == ["image", "age", "ids", "mask"]
    test = told["selftest"]
    x = {
        name: np.frombuffer(b64decode(test["inputs"][name]), test["dtype"][name]).reshape(shape)
        for name, shape in test["shape"].items()
    }
    log_probs = np.frombuffer(b64decode(test["log_probs"]), "<f4").reshape(-1, CLASSES)
    answers = OnnxClassifier(path).predict_proba(x)
    assert (np.abs(np.log(answers) - log_probs).max(1) <= np.array(test["tolerance"])).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["null", "[1]", '{"input": [6]}', '{"a": 1}', '"x"', "[[0]]"])
def test_what_was_changed_in_the_metadata_is_refused_in_one_sentence(
    kind, shape, trained, tmp_path
):
    proto = onnx.load(trained[kind][2].path)
    texts = {key: value for key, value in metadata_of(proto).items() if key != "sha256"}
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, texts | {"input_shape": shape})
    path = tmp_path / "other.onnx"
    path.write_bytes(sealed(proto))
    sidecar(path)  # it goes by the self-test
    assert not selftest(path, OnnxRuntime()).passed
    with contextlib.suppress(FileError, TypeError, ValueError):
        OnnxClassifier(path).predict(rows(kind, 2))


def test_a_description_in_words(trained):
    text = str(describe(trained[Several][2].path))
    assert "ids: int64 ['batch', 6]" in text
    assert re.search(r"input range +ids \[0, 39\]", text)


def test_a_page_draws_one_input(trained, tmp_path):
    path = trained[Several][2].path
    with pytest.raises(FileError, match="image of float32, age of float32"):
        write_site(path, sidecar(path), tmp_path / "site")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("kit", ["python/classify.py", "c/generate.py"])
def test_a_kit_for_one_input_of_numbers_refuses_others_in_one_sentence(
    kit, kind, trained, tmp_path
):
    if kit.startswith("c/"):
        needed("emx_onnx_cgen")
    path = shutil.copy(trained[kind][2].path, tmp_path)
    write_sidecar(path)
    np.save(tmp_path / "x.npy", np.zeros((2, 6)))
    command = [sys.executable, str(ROOT / "examples/deploy" / kit), path, "x.npy"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 1
    assert re.fullmatch(r"expected .*, got.*\n", said.stderr), said.stderr
    assert "operand" not in said.stderr  # what is refused, not how Python stumbled over it


# Composition -------------------------------------------------------------------------------------


class Host(nn.Module):
    """Somebody's module of token ids, or of several inputs by name."""

    def __init__(self, example):
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 4), SoftmaxRegression(4, CLASSES)
        self.example_input_array = example

    def forward(self, ids, age=None):
        seen = self.words(ids).mean(1)
        return self.head(seen if age is None else seen + age[:, None])


@pytest.mark.parametrize("named", [False, True])
def test_a_host_tells_its_inputs_by_an_example(named, tmp_path):
    torch.manual_seed(0)
    ids, age = torch.randint(0, WORDS, (5, 6)), torch.randn(5)
    host = Host({"ids": ids, "age": age} if named else ids)
    given = {"ids": (0, WORDS - 1)} if named else (0, WORDS - 1)
    export = export_onnx(host, tmp_path / "m.onnx", head="head", input_range=given)
    x = {"ids": ids.numpy(), "age": age.numpy()} if named else ids.numpy()
    with torch.no_grad():
        right = (host(ids, age) if named else host(ids)).exp().numpy()
    assert np.abs(OnnxClassifier(export.path).predict_proba(x) - right).max() < 1e-5
    with pytest.raises(InputError, match="input_range"):
        export_onnx(host, tmp_path / "n.onnx", head="head")


# As written --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["docs/inputs.md"])
def test_the_page_s_example_runs_as_written(page, cli_folder, capsys):
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    exec(compile(block, page, "exec"), {"__name__": "page"})
    assert "parity holds" in capsys.readouterr().out
    assert (cli_folder / "record.onnx").exists()


@pytest.mark.whole
def test_the_example_runs(cli_folder, capsys):
    runpy.run_path(str(ROOT / "examples" / "tokens.py"), run_name="__main__")
    assert "1000 labelled rows" in capsys.readouterr().out


def test_made_models_have_a_numpy_twin():
    """The judge of these tests agrees with torch in float64."""
    for kind in KINDS:
        model, x = made(kind), rows(kind, 20)
        with torch.no_grad():
            right = model(tensors(x)).exp().numpy()
        assert np.abs(probabilities(model, x) - right).max() < 1e-5
