"""Files that take one number of rows alone: their shapes, their answers, and whoever uses them."""

import csv
import itertools
import json
import pickle

import convolved
import numpy as np
import onnx
import onnxruntime
import pytest
from files import read
from profiled import log_softmax, logits, metadata, model_of

from smx_export import FileError, OnnxClassifier, Profile, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.describe import describe
from smx_export.artifact.files import sealed
from smx_export.artifact.sidecar import sidecar
from smx_export.commands import DONE
from smx_export.profile import LARGEST_BATCH
from smx_export.runtime.blocks import in_blocks
from smx_export.targets import NAMES, NotInstalled, target
from smx_export.targets.matrix import matrix
from smx_export.targets.selftest import selftest

BATCHES = (1, 4)
MODELS = {
    "linear": (model_of, {}),
    "robust, all outputs": (
        model_of,
        {"robust": True, "outputs": ("log_probs", "probs", "scores", "label")},
    ),
    "images": (model_of, {"image": True}),
    "float16": (model_of, {"weights": "float16"}),
    "sparsemax": (lambda: model_of(activation="sparsemax"), {}),
    "traced": (convolved.Convolved, {}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Model and file of a name and a batch, made once."""
    folder, known = tmp_path_factory.mktemp("fixed"), {}

    def export(name, batch):
        if (name, batch) not in known:
            made, options = MODELS[name]
            model, path = made(), folder / f"{len(known)}.onnx"
            x = np.random.default_rng(0).random((40, *model.input_shape), np.float32)
            export_onnx(
                model, path, profile=Profile(**options), batch=batch, data=(x, np.zeros(40, int))
            )
            known[name, batch] = model, path
        return known[name, batch]

    return export


def rows(model, count, seed=0):
    return np.random.default_rng(seed).random((count, *model.input_shape), np.float32)


@pytest.mark.parametrize(
    ("name", "batch"),
    [
        pytest.param(*case, marks=[pytest.mark.whole] * (case == ("traced", 1)))
        for case in itertools.product(MODELS, BATCHES)
    ],
)
def test_every_shape_is_fixed_and_the_file_is_sealed_and_verified(name, batch, exported):
    model, path = exported(name, batch)
    graph = onnx.load(path).graph
    for value in (*graph.input, *graph.output):
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert sizes[0] == batch
        assert all(sizes)  # nothing is open
    assert not {"Shape", "Size"} & {node.op_type for node in graph.node}
    assert json.loads(read(path)["profile"])["batch"] == batch
    assert selftest(path).passed
    x = rows(model, 10)
    labelled = (x, np.zeros(10, int)) if name == "float16" else x
    assert check_parity(model, path, labelled).passed
    assert sidecar(path)["input"]["batch"] == batch
    assert f"input: {'uint8' if name == 'images' else 'float32'} [{batch}, " in str(describe(path))


@pytest.mark.parametrize("batch", BATCHES)
def test_a_runtime_takes_that_number_and_answers_it_right(batch, exported):
    model, path = exported("linear", batch)
    session = onnxruntime.InferenceSession(path)
    x = rows(model, batch).reshape(batch, -1)
    (answer,) = session.run(["log_probs"], {"input": x})
    np.testing.assert_allclose(answer, log_softmax(logits(model, x)), rtol=1e-4, atol=1e-4)
    with pytest.raises(Exception, match="invalid dimensions"):
        session.run(["log_probs"], {"input": np.repeat(x, 3, 0)})


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 101])
@pytest.mark.parametrize(("name", "batch"), [("linear", 1), ("linear", 4), ("traced", 4)])
def test_a_classifier_takes_any_number_of_rows(name, batch, count, exported):
    model, path = exported(name, batch)
    classifier = OnnxClassifier(path, on_range="ignore")
    assert classifier.batch == batch
    assert f"batches of {batch}" in repr(classifier)
    x = rows(model, count)
    if count == 0:
        assert classifier.predict_proba(x).shape == (0, model.num_classes)
        assert classifier.predict(x).shape == (0,)
        return
    right = convolved.answers(model, x) if name == "traced" else log_softmax(logits(model, x))
    np.testing.assert_allclose(classifier.predict_proba(x), np.exp(right), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(classifier.predict(x), right.argmax(1))
    again = pickle.loads(pickle.dumps(classifier))
    np.testing.assert_array_equal(again.predict_proba(x), classifier.predict_proba(x))


def test_a_row_without_an_answer_spoils_no_other(exported):
    model, path = exported("linear", 4)
    classifier = OnnxClassifier(path, on_nan="missing", on_range="ignore")
    x = rows(model, 6)
    right = classifier.predict(x)
    x[5] = np.nan  # the last, which fills up the block
    assert classifier.predict(x).tolist() == [*right[:5].tolist(), -1]


def test_rows_lie_in_blocks_and_the_last_one_is_filled_up_with_its_last_row():
    asked = []

    def run(block):
        asked.append(block)
        return [2 * block, block.sum(1)]

    x = np.arange(14.0).reshape(7, 2)
    twice, sums = in_blocks(run, x, 3)
    np.testing.assert_array_equal(twice, 2 * x)
    np.testing.assert_array_equal(sums, x.sum(1))
    assert [block.tolist() for block in asked] == [
        x[:3].tolist(), x[3:6].tolist(), [x[6].tolist()] * 3
    ]  # fmt: skip
    empty, none = in_blocks(run, x[:0], 3)
    assert (empty.shape, none.shape) == ((0, 2), (0,))


def test_predictions_of_a_file_are_those_of_one_that_takes_any_number(exported, tmp_path):
    model, fixed = exported("linear", 4)
    free = export_onnx(model, tmp_path / "free.onnx").path
    np.save(tmp_path / "x.npy", rows(model, 11))
    tables = []
    for path in (fixed, free):
        out = tmp_path / f"{path.stem}.csv"
        assert main(["predict", str(path), str(tmp_path / "x.npy"), str(out)]) == DONE
        tables.append(list(csv.reader(out.open())))
    assert len(tables[0]) == 12
    for one, other in zip(*tables, strict=True):
        assert one[:2] == other[:2]
        if one[0] != "row":
            np.testing.assert_allclose([*map(float, one[2:])], [*map(float, other[2:])], rtol=1e-5)


# Which runtimes take them ------------------------------------------------------------------------

IN_PROCESS = [name for name in NAMES if "web" not in name and name != "litert"]


@pytest.mark.parametrize("name", IN_PROCESS)
@pytest.mark.parametrize(("model", "batch"), [("linear", 4), ("robust, all outputs", 1)])
def test_the_self_test_passes_on_a_target(name, model, batch, exported):
    runtime = target(name)
    try:
        runtime.version()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    found = selftest(exported(model, batch)[1], runtime)
    if name == "ncnn" and model != "linear":  # it has no ArgMax
        assert "layers that ncnn has" in str(found) or "that pnnx converts" in str(found)
        return
    strained = "not finite where the answer is"  # log(softmax), as of any file: see robust
    assert found.passed or (model == "linear" and strained in found.checks[-1].detail), str(found)


@pytest.mark.whole
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("name", ["linear", "traced"])
def test_all_targets_take_a_fixed_batch(name, batch, exported):
    here = [name for name in NAMES if name != "litert"]
    found = matrix(exported(name, batch)[1], here)
    # ncnn has no batch of images.
    wrong = [row.target for row in found.rows if row.verdict == "FAILED"]
    assert wrong == (["ncnn"] if name == "traced" else []), str(found)


# What is wrong about them ------------------------------------------------------------------------


def spoilt(path, tmp_path, change):
    proto = onnx.load(path)
    change(proto)
    out = tmp_path / "spoilt.onnx"
    out.write_bytes(sealed(proto))
    return out


def first_dim(value):
    return value.type.tensor_type.shape.dim[0]


def opened(proto):
    for value in (*proto.graph.input, *proto.graph.output):
        first_dim(value).dim_param = "batch"


def another(proto):
    for value in (*proto.graph.input, *proto.graph.output):
        first_dim(value).dim_value = 5


def an_output_of_another(proto):
    first_dim(proto.graph.output[0]).dim_param = "batch"


def unsaid(proto):
    told = json.loads({e.key: e.value for e in proto.metadata_props}["profile"])
    del told["batch"]
    metadata(proto, "profile", json.dumps(told))


@pytest.mark.parametrize("change", [opened, another, an_output_of_another, unsaid])
def test_a_file_that_says_one_number_and_takes_another_is_found_out(change, exported, tmp_path):
    model, path = exported("linear", 4)
    assert check_parity(model, path).passed
    wrong = spoilt(path, tmp_path, change)
    assert not check_parity(model, wrong).passed
    found = selftest(wrong)
    assert "metadata" in {check.name for check in found.checks if not check.passed}


def mean_over_the_batch(proto):
    """Each row gets a little of the others."""
    graph = proto.graph
    given = graph.node[0].input[0]
    for node in graph.node:
        node.input[:] = ["mixed" if name == given else name for name in node.input]
    mean = onnx.helper.make_node("ReduceMean", [given], ["mean"], axes=[0], keepdims=1)
    added = onnx.helper.make_node("Sum", [given, "mean"], ["mixed"])
    graph.node.insert(0, added)
    graph.node.insert(0, mean)


def test_rows_that_are_mixed_within_a_block_are_seen_in_the_answers(exported, tmp_path):
    model, path = exported("linear", 4)
    report = check_parity(model, spoilt(path, tmp_path, mean_over_the_batch))
    failed = {check.name for check in report.failed}
    assert {"graph", "log_probs against float64", "a row alone and in a batch"} <= failed


@pytest.mark.parametrize("batch", [0, -1, 1.5, True, "4", LARGEST_BATCH + 1, 2**40])
def test_what_is_no_number_of_rows_is_refused(batch, tmp_path):
    words = "expected batch as a whole number from 1 up to 65536, got"
    with pytest.raises(FileError, match=words):
        export_onnx(model_of(), tmp_path / "model.onnx", batch=batch)
    assert not list(tmp_path.iterdir())


def test_a_numpy_integer_is_a_number():
    assert Profile(batch=np.int64(3)).to_json() == Profile(batch=3).to_json()
    assert Profile.from_json(Profile(batch=3).to_json()) == Profile(batch=3)


def test_a_batch_that_no_memory_holds_is_not_filled_up(exported, tmp_path):
    def huge(proto):
        first_dim(proto.graph.input[0]).dim_value = 2**40

    with pytest.raises(FileError, match="at most 65536 rows a batch"):
        OnnxClassifier(spoilt(exported("linear", 4)[1], tmp_path, huge))


def test_other_files_say_nothing_of_it():
    assert "batch" not in json.loads(Profile().to_json())
    assert "top_k" not in json.loads(Profile().to_json())


def test_the_command_line_takes_it(checkpoint, tmp_path, capsys):
    out = tmp_path / "model.onnx"
    assert main(["convert", str(checkpoint), str(out), "--batch", "1", "--sidecar"]) == DONE
    assert "parity holds" in capsys.readouterr().out
    assert first_dim(onnx.load(out).graph.input[0]).dim_value == 1
    assert json.loads(out.with_suffix(".json").read_text())["input"]["batch"] == 1
    assert main(["verify", str(out), "--checkpoint", str(checkpoint)]) == DONE
    assert main(["selftest", str(out)]) == DONE
    assert main(["verify", str(out), "--targets", "onnxruntime,onnx-reference"]) == DONE
