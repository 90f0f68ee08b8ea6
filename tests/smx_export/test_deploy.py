"""Every kit of examples/deploy is copied out, run as a user would, and held against Python."""

import ast
import copy
import json
import re
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from activated import with_activation
from kits import DEPLOY, ENV, KITS, RANGE, Said, node, opencv, python, run
from onnx import numpy_helper
from sampled import whole

from smx_export import export_onnx
from smx_export.artifact.sidecar import write_sidecar
from smx_export.profile import Profile
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression
from smx_lightning.preprocessing.moments import Moments

MAIN = {
    "python": "classify.py",
    "node": "classify.mjs",
    "browser": "index.html",
    "c": "classify.c",
    "opencv": "classify.py",
}
ROWS = 20

# The others take a compiler or a browser each time.
BRIEF = [whole(kit) if kit in ("c", "browser") else kit for kit in KITS]
answering = every_kit = pytest.mark.parametrize("kit", BRIEF)
rows_kit = pytest.mark.parametrize("kit", [kit for kit in BRIEF if kit != "opencv"])


@pytest.fixture(scope="module")
def x(digits):
    """Digits on the grid of a camera's 256 greys."""
    pixels = np.rint(digits.splits.test.x[:ROWS].flatten(1).numpy() * 255 / RANGE[1])
    return (pixels * RANGE[1] / 255).astype(np.float32)


def copy_out(kit, model, folder, **options):
    """The kit in a folder, and beside it a model that was exported with its sidecar."""
    shutil.copytree(DEPLOY / kit, folder, ignore=shutil.ignore_patterns("__pycache__"))
    profile = "robust" if kit == "opencv" else "portable"
    options = {"profile": profile, "input_range": RANGE} | options
    write_sidecar(export_onnx(model, folder / "model.onnx", **options).path)
    return folder


@pytest.fixture
def copied(tmp_path):
    return lambda kit, model, **options: copy_out(kit, model, tmp_path / kit, **options)


@pytest.fixture(scope="module")
def kept(trained, tmp_path_factory):
    """The folder of a kit with ``trained``, made once."""
    parent = tmp_path_factory.mktemp("kits")

    def kept(kit):
        there = parent / kit
        return there if there.exists() else copy_out(kit, trained, there)

    return kept


def assert_same(said, folder, x, warning=""):
    classifier = OnnxClassifier(folder / "model.onnx", on_range="ignore")
    assert (said.refusal, said.warning) == ("", warning)
    labels = classifier.predict(x)
    assert [name for name, _ in said.answers] == [classifier.class_names[k] for k in labels]
    probs = classifier.predict_proba(x)[np.arange(len(x)), labels]
    np.testing.assert_allclose([p for _, p in said.answers], probs, atol=2e-6)


@answering
def test_a_kit_answers_as_python_does(kit, x, kept):
    folder = kept(kit)
    assert_same(KITS[kit](folder, x), folder, x)


@every_kit
def test_a_kit_obeys_the_threshold_and_keeps_odd_names(kit, x, copied):
    model = SoftmaxRegression(
        64, 2, threshold=0.2, input_shape=(8, 8), class_names=['*/ "no??=', "já \\ 100% 1"]
    )
    with torch.no_grad():
        model.linear.weight.normal_(0, 0.01)
    folder = copied(kit, model)
    assert_same(KITS[kit](folder, x), folder, x)
    classifier = OnnxClassifier(folder / "model.onnx")
    assert (classifier.predict(x) != classifier.predict_proba(x).argmax(1)).any()


@every_kit
@pytest.mark.parametrize("change", [0.05, np.nan])
def test_one_changed_weight_is_refused(kit, change, trained, x, copied):
    folder = copied(kit, trained)
    proto = onnx.load(folder / "model.onnx")
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "weight")
    values = numpy_helper.to_array(weight).copy()
    values[3, 20] += change
    weight.CopyFrom(numpy_helper.from_array(values, "weight"))
    onnx.save(proto, folder / "model.onnx")
    said = KITS[kit](folder, x[:1])
    assert said.answers == []
    assert "self-test" in said.refusal


# More than it has room for is what C could trip over.
@pytest.mark.parametrize(
    ("kit", "width"),
    [("python", 63), ("node", 63), whole(("browser", 63)), ("c", 63), whole(("c", 5000))],
)
def test_rows_of_another_width_are_refused(kit, width, x, kept):
    said = KITS[kit](kept(kit), np.resize(x, (1, width)))
    assert said.answers == []
    assert "64" in said.refusal


@rows_kit
def test_rows_of_another_scale_are_warned_of(kit, x, kept):
    """opencv's pictures are scaled by the kit itself."""
    folder, pixels = kept(kit), np.rint(x * 255 / RANGE[1])
    warning = KITS[kit](folder, pixels).warning
    assert warning.startswith("warning: ")
    assert warning.endswith("; check the scale")
    if kit != "c":
        assert "trained on 0 to 16, got " in warning
    assert_same(KITS[kit](folder, pixels), folder, pixels.astype(np.float32), warning)
    near = x.copy()
    near[0, :2] = 16.5, -0.5
    assert_same(KITS[kit](folder, near), folder, near)


@rows_kit
def test_features_that_are_no_pictures_may_stray_further(kit, x, copied):
    folder = copied(kit, SoftmaxRegression(64, 3))
    assert_same(KITS[kit](folder, 4 * x), folder, 4 * x)
    assert KITS[kit](folder, 20 * x).warning.startswith("warning: ")


@rows_kit
def test_where_nobody_knows_the_range_nothing_is_warned_of(kit, x, copied):
    model = SoftmaxRegression(64, 3)
    with torch.no_grad():
        model.linear.weight.normal_(0, 1e-4)
    folder = copied(kit, model, input_range=None)
    assert_same(KITS[kit](folder, 255 * x), folder, 255 * x)


@rows_kit
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_row_without_an_answer_is_refused(kit, value, x, kept):
    bad = x[:3].copy()
    bad[2] = value
    said = KITS[kit](kept(kit), bad)
    assert len(said.answers) < 3  # C answers a row before it reads the next
    assert "expected" in said.refusal or (kit == "node" and "JSON" in said.refusal)


@pytest.mark.parametrize("kit", ["node", whole("c")])  # the others take no ragged rows
def test_a_short_row_is_not_filled_up_from_the_next(kit, x, kept):
    said = KITS[kit](kept(kit), [x[0, :63], np.append(x[1], 0)])
    assert said.answers == []
    assert "64 numbers" in said.refusal


def test_opencv_refuses_a_model_that_sees_no_pictures(x, copied):
    said = opencv(copied("opencv", SoftmaxRegression(64, 3)), x[:1])
    assert (said.answers, said.refusal) == (
        [], "classify: expected a model of grey pictures, got one of [64]"
    )  # fmt: skip


def test_opencv_needs_the_robust_profile(trained, x, copied):
    """Where this fails, OpenCV's LogSoftmax has been mended, and any profile will do."""
    said = opencv(copied("opencv", trained, profile="portable"), x[:1])
    assert "expected model.onnx with --profile robust" in said.refusal


def test_python_subtracts_what_could_not_be_folded(trained, x, copied):
    model = copy.deepcopy(trained, {id(trained._trainer): None})
    model.preprocessing.mean.add_(1e5)
    model.input_range = None  # that of the digits holds no more
    folder = copied("python", model, input_range=(1e5, 1e5 + 16))
    assert_same(python(folder, x + np.float32(1e5)), folder, x + np.float32(1e5))


@pytest.mark.parametrize("profile", ["robust", "image"])
def test_python_takes_other_profiles(profile, trained, x, copied):
    folder = copied("python", trained, profile=profile)
    rows = np.rint(x).astype(np.uint8).reshape(-1, 8, 8) if profile == "image" else x
    assert_same(python(folder, rows), folder, rows)


def test_python_needs_numpy_and_the_standard_library_alone(x, kept):
    files = (DEPLOY / "python").glob("*.py")
    kit = {path.stem: ast.parse(path.read_text("utf-8")) for path in files}
    imported = {
        name.split(".")[0]
        for tree in kit.values()
        for statement in ast.walk(tree)
        if isinstance(statement, (ast.Import, ast.ImportFrom))
        for name in [getattr(statement, "module", None) or statement.names[0].name]
    }
    assert imported - kit.keys() - sys.stdlib_module_names == {"numpy"}
    folder = kept("python")
    np.save(folder / "x.npy", x)
    blocked = dict.fromkeys(["onnx", "onnxruntime", "torch", "lightning", "google", "smx_export"])
    script = (
        f"import runpy, sys; sys.modules.update({blocked}); "
        "sys.argv = ['classify.py', 'model.onnx', 'x.npy']; runpy.run_path('classify.py')"
    )
    assert_same(Said.of(run(sys.executable, "-c", script, folder=folder)), folder, x)


def test_node_reports_nothing_to_anyone(x, kept, tmp_path, monkeypatch):
    """onnxruntime-node's telemetry would keep files of its own."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setitem(ENV, "HOME", str(home))
    monkeypatch.setitem(ENV, "TMPDIR", str(home))
    assert len(node(kept("node"), x).answers) == ROWS
    assert list(home.rglob("*")) == []


@pytest.mark.parametrize(
    ("kit", "name"), [*MAIN.items(), ("c", "generate.py"), ("python", "table.py")]
)
def test_a_kit_is_one_small_file(kit, name):
    assert len((DEPLOY / kit / name).read_text("utf-8").splitlines()) < 71


@pytest.mark.parametrize("kit", ["python", "node", whole("browser"), whole("c")])
def test_a_kit_keeps_the_digits_of_a_file_of_float64_or_says_so(kit, tmp_path):
    """1.7e9 + uniform(0, 64) has one value in float32; numpy in float64 is the judge."""
    rng = np.random.default_rng(0)
    x = 1.7e9 + rng.uniform(0, 64, (ROWS, 3))
    model = SoftmaxRegression(3, 3, preprocessing="standardize")
    model.preprocessing.fit(Moments.of(torch.from_numpy(x)))
    shutil.copytree(DEPLOY / kit, tmp_path / kit, ignore=shutil.ignore_patterns("__pycache__"))
    write_sidecar(export_onnx(model, tmp_path / kit / "model.onnx").path)
    if kit == "c":
        said = run(sys.executable, "generate.py", "model.onnx", folder=tmp_path / kit)
        assert "expected float32 inputs, log_probs and probs" in said.stderr
        return
    said = KITS[kit](tmp_path / kit, x)
    assert said.refusal == ""
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    z = (x - x.mean(0)) / x.std(0) @ weight.T + bias
    probs = np.exp(z - np.log(np.exp(z).sum(1, keepdims=True)))
    assert [name for name, _ in said.answers] == [str(k) for k in probs.argmax(1)]
    np.testing.assert_allclose([p for _, p in said.answers], probs.max(1), atol=2e-6)
    if kit == "python":  # the others read texts
        assert (
            "float32 rows, which have lost digits"
            in KITS[kit](tmp_path / kit, x.astype("f4")).refusal
        )


# Other activations -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kit", "activation"),
    [(kit, "entmax15") if kit in ("python", "node", "opencv") else whole((kit, "entmax15"))
     for kit in KITS]
    + [("python", "sparsemax"), ("python", {"alpha": 1.3}), whole(("c", "sparsemax")),
       whole(("node", {"alpha": 1.3}))],
)  # fmt: skip
def test_a_kit_answers_as_python_does_where_classes_are_ruled_out(
    kit, activation, x, trained, copied
):
    folder = copied(kit, with_activation(trained, activation))
    assert_same(KITS[kit](folder, x), folder, x)
    probs = OnnxClassifier(folder / "model.onnx").predict_proba(x)
    assert (probs == 0).any()
    assert ((probs > 0).sum(1) > 1).any()


@pytest.mark.parametrize("kit", ["python", "node", whole("c"), whole("opencv"), whole("browser")])
def test_one_changed_weight_of_such_a_file_is_refused(kit, x, trained, copied):
    folder = copied(kit, with_activation(trained, "sparsemax"))
    proto = onnx.load(folder / "model.onnx")
    (weight,) = (tensor for tensor in proto.graph.initializer if tensor.name == "weight")
    values = numpy_helper.to_array(weight).copy()
    values[:, 20] += np.linspace(-0.5, 0.5, 10, dtype=np.float32)
    weight.CopyFrom(numpy_helper.from_array(values, "weight"))
    onnx.save(proto, folder / "model.onnx")
    said = KITS[kit](folder, x[:1])
    assert said.answers == []
    assert "self-test" in said.refusal


# Files of other profiles --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kit", "profile"),
    [
        ("node", Profile(outputs=("probs", "label"))),
        ("node", Profile(image=True)),
        ("opencv", Profile(outputs=("scores",))),
        whole(("browser", Profile(outputs=("label",)))),
        whole(("browser", Profile(image=True))),
        whole(("c", Profile(outputs=("probs",)))),
    ],
)
def test_a_file_that_a_kit_does_not_take_is_refused_in_its_words(kit, profile, trained, x, copied):
    folder = copied(kit, trained, profile=profile)
    if kit == "c":
        refusal = run(sys.executable, "generate.py", "model.onnx", folder=folder).stderr
    else:
        refusal = KITS[kit](folder, x[:1]).refusal
    got = "(others|another profile's file)"
    assert re.search(f"expected .*log_probs.*, got {got}$", refusal.strip())


@pytest.mark.parametrize(
    ("kit", "inputs"),
    [
        (kit, inputs) if kit in ("node", "opencv") else whole((kit, inputs))
        for kit in ("node", "opencv", "browser", "c")
        for inputs in ("one batch alone", "several")
        if (kit, inputs) != ("c", "one batch alone")  # which runs a row at a time
    ],
)
def test_a_file_of_other_inputs_is_refused(kit, inputs, trained, x, copied):
    """As its sidecar tells them."""
    folder = copied(kit, trained)
    told = json.loads((folder / "model.json").read_text("utf-8"))
    one = told["input"]
    told["input"] = [one, one] if inputs == "several" else one | {"batch": 1}
    (folder / "model.json").write_text(json.dumps(told), encoding="utf-8")
    if kit == "c":
        said = run(sys.executable, "generate.py", "model.onnx", folder=folder).stderr
    else:
        said = KITS[kit](folder, x[:1]).refusal
    assert re.search("expected .*float32 inputs, log_p|inputs of any batch and log_probs", said)
    assert len(said.strip().splitlines()) == 1


def test_opencv_gives_pixels_to_a_file_that_takes_them(trained, x, copied):
    """The range of the training data is the file's own business then."""
    folder = copied("opencv", trained, profile="robust,image")
    pixels = np.rint(x * 255 / RANGE[1]).astype(np.uint8).reshape(-1, 8, 8)
    assert_same(opencv(folder, x), folder, pixels)


class Folding(SoftmaxRegression):
    """A backbone without weights."""

    def features(self, x):
        return x.abs()


@pytest.mark.parametrize("profile", [whole("portable"), "compact"])  # torch's exporter traces it
def test_python_refuses_more_than_one_linear_layer(profile, trained, digits, x, copied):
    test = digits.splits.test
    model = trained if profile == "compact" else Folding(64, 3)
    data = (test.x.flatten(1), test.y) if profile == "compact" else None
    folder = copied("python", model, profile=profile, data=data)
    refusal = KITS["python"](folder, x[:1]).refusal
    assert refusal.endswith("got: a graph that is more than one linear layer of float32 numbers")
