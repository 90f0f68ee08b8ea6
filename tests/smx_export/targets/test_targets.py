"""Every runtime on every profile, and what verify says of it."""

import copy
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from activated import with_activation
from sampled import whole
from tools import missing
from trainers import quiet_trainer

from smx_export import Profile, export_onnx
from smx_export.__main__ import main as smx_export
from smx_export.artifact.comparison import Expected
from smx_export.contract import ALL_OUTPUTS
from smx_export.targets import NAMES, target
from smx_export.targets.matrix import matrix
from smx_export.targets.report import FAILED, NOT_RUN, PASSED, Matrix, Row
from smx_lightning import SoftmaxRegression
from smx_lightning.data import IdxDataModule

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
OTHERS = ("mnn", "ncnn", "litert")  # tried by hand: CI does not install them
IN_CI = tuple(name for name in NAMES if name not in OTHERS)
PROFILES = {
    "digits": Profile(),
    "robust": Profile(robust=True, outputs=ALL_OUTPUTS),
    "image": Profile(image=True),
    "compact": Profile(weights="int8"),
}
SPARSE = {  # activation and profile; pairs of classes, or steps, make the threshold
    "sparsemax": ("sparsemax", Profile()),
    "sparsemax robust": ("sparsemax", Profile(robust=True)),
    "entmax15": ("entmax15", Profile(outputs=ALL_OUTPUTS)),
    "entmax15 robust": ("entmax15", Profile(robust=True)),
    "1.3-entmax": ({"alpha": 1.3}, Profile()),
}
CASES = [(file, name) for file in ("fashion", *PROFILES) for name in IN_CI]
CASES += [(file, name) for file in ("fashion", "digits") for name in OTHERS]
CASES += [(file, name) for file in SPARSE for name in (*IN_CI, "mnn")]
CASES += [(f"{file} robust", "ncnn") for file in ("sparsemax", "entmax15")]
# Every runtime once, and every profile once.
# A compiler and a browser take seconds each.
BRIEF = {("digits", name) for name in set(IN_CI) - {"c", "onnxruntime-web-chromium"}} | {
    (file, "onnxruntime") for file in (*PROFILES, *SPARSE)
}
BRIEF |= {(file, name) for file in ("sparsemax", "entmax15") for name in ("openvino", "tract")}


# Every runtime, every profile --------------------------------------------------------------------


@pytest.fixture(scope="module")
def fashion():
    """A model of Fashion-MNIST's size, trained for one epoch where the images are there."""
    torch.manual_seed(0)
    model = SoftmaxRegression(784, 10, preprocessing="standardize", input_shape=(28, 28))
    if FASHION_MNIST.is_dir():
        quiet_trainer().fit(model, IdxDataModule(FASHION_MNIST, batch_size=1024))
    elif os.environ.get("CI"):
        missing("Debian's package dataset-fashion-mnist")
    else:
        model.preprocessing.mean.fill_(73.0)  # pixels, as far as the head can tell
        model.preprocessing.scale.fill_(90.0)
    return model


@pytest.fixture(scope="module")
def files(trained, digits, tmp_path_factory):
    """Exported files of the digits by profile."""
    folder = tmp_path_factory.mktemp("files")
    rows = digits.splits.test
    sparse = {
        name: export_onnx(
            with_activation(trained, activation),
            folder / f"{name}.onnx",
            profile=profile,
            data=(rows.x, rows.y),
        ).path
        for name, (activation, profile) in SPARSE.items()
    }
    return sparse | {
        name: export_onnx(
            trained,
            folder / f"{name}.onnx",
            profile=profile,
            input_range=(0, 16),
            data=(rows.x, rows.y),
        ).path
        for name, profile in PROFILES.items()
    }


@pytest.fixture(scope="module")
def row_of(files, request, tmp_path_factory):
    """The row of a file and a runtime."""

    @functools.cache
    def fashion_file():
        path = tmp_path_factory.mktemp("fashion") / "fashion.onnx"
        return export_onnx(request.getfixturevalue("fashion"), path).path

    def row_of(file, name):
        (row,) = matrix(fashion_file() if file == "fashion" else files[file], [name]).rows
        return row

    return row_of


@pytest.mark.parametrize(
    ("file", "name"), [case if case in BRIEF else whole(case) for case in CASES]
)
def test_the_runtime_answers_what_float64_answers(file, name, row_of):
    row = row_of(file, name)
    if row.verdict == NOT_RUN:
        (pytest.skip if name in OTHERS else missing)(row.detail)
    assert row.verdict == PASSED, row
    assert (row.loads, row.batch_1, row.batch_n, row.argmax) == (True, True, True, 1.0)
    assert 0 < row.error <= 1
    assert row.version
    assert row.detail == ""
    assert row.micros_1 > 0 < row.micros_1024
    if file == "robust":
        assert 0 < row.stress <= 1


@pytest.mark.parametrize("name", ["onnxruntime", "onnx-reference"])
def test_rows_that_the_caller_adds_are_asked_too(name, trained, digits, files):
    x = digits.splits.test.x
    with torch.no_grad():
        truth = copy.deepcopy(trained).double()(x.double()).numpy()
    allowed = np.full_like(truth, 1e-3)
    right = Expected(truth, allowed, allowed)
    wrong = Expected(np.roll(truth, 1, axis=0), allowed, allowed)
    rows = x.flatten(1).numpy()
    assert matrix(files["digits"], [name], more=[(rows, right)]).passed
    (row,) = matrix(files["digits"], [name], more=[(rows, right), (rows, wrong)]).rows
    assert (row.verdict, row.batch_1, row.batch_n) == (FAILED, True, False)
    assert row.error > 1e3
    assert row.argmax < 1


# In words and as JSON ----------------------------------------------------------------------------

ROWS = (
    Row("tract", "1.0", PASSED, True, True, True, 0.5, 1.0, float("nan"), 12.34, 0.567),
    Row("opencv", "2.0", FAILED, True, False, False, float("nan"), 0.25, detail="no such operator"),
    Row("ncnn", detail="expected ncnn; pip install ncnn"),
)


def test_the_matrix_is_a_table_with_a_count_of_verdicts():
    header, rule, *lines = str(Matrix("m.onnx", "portable", ROWS)).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in [header, *lines[:3]]]
    assert cells == [
        ["target", "version", "verdict", "loads", "batch 1", "batch n", "error / tolerance",
         "argmax", "under stress", "µs, 1 row", "µs a row, 1024"],
        ["tract", "1.0", "passed", "yes", "yes", "yes", "0.5", "100%", "not finite", "12.3",
         "0.57"],
        ["opencv", "2.0", "FAILED", "yes", "no", "no", "not finite", "25%", "–", "–", "–"],
        ["ncnn", "–", "not run", *8 * ["–"]],
    ]  # fmt: skip
    assert set(rule) == set("|-")
    assert len({len(line) for line in [header, rule, *lines[:3]]}) == 1
    assert lines[3:5] == ["opencv: no such operator", "ncnn: expected ncnn; pip install ncnn"]
    assert "--profile robust" in lines[5]
    assert lines[6:] == ["1 passed, 1 FAILED, 1 not run"]


@pytest.mark.parametrize(
    ("rows", "passed"),
    [((0,), True), ((0, 2), True), ((0, 1), False), ((2,), False), ((1,), False), ((), False)],
)
def test_a_matrix_passes_where_one_ran_and_none_failed(rows, passed):
    assert Matrix("m.onnx", "portable", tuple(ROWS[i] for i in rows)).passed == passed


def without_nan(text):
    def refuse(constant):
        raise AssertionError(constant)

    return json.loads(text, parse_constant=refuse)


def test_the_matrix_is_json_without_nan():
    told = without_nan(Matrix("m.onnx", "portable", ROWS).to_json())
    assert (told["passed"], told["path"], told["profile"]) == (False, "m.onnx", "portable")
    assert [row["verdict"] for row in told["rows"]] == [PASSED, FAILED, NOT_RUN]
    assert (told["rows"][0]["stress"], told["rows"][2]["stress"]) == ("nan", None)


# The command line --------------------------------------------------------------------------------


def test_verify_on_targets_prints_the_matrix_and_keeps_it(files, cli_folder, capsys):
    file = str(files["digits"])
    chosen = ["--targets", "onnx-reference, onnxruntime"]
    assert smx_export(["verify", file, *chosen, "--json", "matrix.json"]) == 0
    out, err = capsys.readouterr()
    assert "2 passed, 0 FAILED, 0 not run" in out
    assert err.splitlines() == ["onnx-reference …", "onnxruntime …"]
    told = without_nan(Path("matrix.json").read_text())
    assert [row["target"] for row in told["rows"]] == ["onnx-reference", "onnxruntime"]
    assert told["passed"] is True


def test_checkpoint_and_targets_make_one_report(files, checkpoint, cli_folder, capsys):
    both = ["--checkpoint", str(checkpoint), "--targets", "onnxruntime", "--json", "both.json"]
    assert smx_export(["verify", str(files["digits"]), *both]) == 0
    assert "parity holds" in capsys.readouterr().out
    told = without_nan(Path("both.json").read_text())
    assert told["passed"] is told["targets"]["passed"] is True
    assert told["targets"]["rows"][0]["error"] <= told["error_over_tolerance"]


def test_a_file_that_is_not_the_model_is_tried_nowhere(files, cli_folder, capsys):
    trainer = quiet_trainer(max_epochs=0)
    trainer.strategy.connect(SoftmaxRegression(784, 10, input_shape=(28, 28)))
    trainer.save_checkpoint("other.ckpt")
    both = ["--checkpoint", "other.ckpt", "--targets", "onnxruntime", "--json", "both.json"]
    assert smx_export(["verify", str(files["digits"]), *both]) == 1
    out, err = capsys.readouterr()
    assert "parity FAILED" in out
    assert "onnxruntime …" not in err
    assert "targets" not in without_nan(Path("both.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--targets", "onnxruntime,caffe,"], "expected targets out of onnxruntime, … got caffe, "),
        (["--targets", ""], "expected targets out of onnxruntime, "),
        (["--targets", "onnxruntime", "--data", "rows.npz"], "--data …--checkpoint"),
        (["--targets", "onnxruntime", "--model-class", "a:B"], "--model-class …--checkpoint"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code_2(arguments, said, files, cli_folder, capsys):
    assert smx_export(["verify", str(files["digits"]), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("smx-export: ")
    for part in said.split("…"):
        assert part in line


def test_a_file_without_vectors_is_refused(files, cli_folder, capsys):
    model = onnx.load(files["digits"])
    del model.metadata_props[:]
    onnx.save(model, "bare.onnx")
    assert smx_export(["verify", "bare.onnx", "--targets", "onnxruntime"]) == 2
    assert "expected a file with self-test vectors at bare.onnx" in capsys.readouterr().err


def python(code, tmp_path, **environ):
    """Standard output of Python code in a process of its own."""
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, **environ},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_verify_on_targets_needs_no_torch(files, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch was asked for')")
    arguments = ["verify", str(files["digits"]), "--targets", "onnxruntime", "--json", "m.json"]
    code = f"import sys; from smx_export.__main__ import main; sys.exit(main({arguments!r}))"
    assert "1 passed, 0 FAILED, 0 not run" in python(code, tmp_path)


# Where nothing is installed ----------------------------------------------------------------------

ALWAYS_THERE = ("onnxruntime", "onnxruntime-oldest", "onnx-reference")
BARE = """
import importlib.metadata, json, sys

RUNTIMES = {"cv2", "openvino", "tract", "emx_onnx_cgen", "MNN", "_tools", "ncnn", "pnnx",
            "ai_edge_litert", "onnx2tf"}

class Bare:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in RUNTIMES:
            raise ModuleNotFoundError(f"No module named {name!r}")

def distribution(name):
    raise importlib.metadata.PackageNotFoundError(name)

sys.meta_path.insert(0, Bare())
importlib.metadata.distribution = distribution

from smx_export.targets import NAMES, NotInstalled, target

said = {}
for name in NAMES:
    try:
        said[name] = [True, target(name).version()]
    except NotInstalled as missing:
        said[name] = [False, str(missing)]
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """What each target says on a machine without runtimes and programs: (is there, words)."""
    return json.loads(python(BARE, tmp_path_factory.mktemp("bare"), PATH="", SMX_CHROMIUM=""))


@pytest.mark.parametrize("name", NAMES)
def test_every_target_says_how_to_get_what_is_missing(name, bare):
    found = target(name)
    assert found.name == name
    assert "install" in found.install
    is_there, said = bare[name]
    assert is_there == (name in ALWAYS_THERE)
    if not is_there:
        assert "\n" not in said
        assert said.startswith("expected ")
        assert "install" in said
