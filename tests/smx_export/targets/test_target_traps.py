"""Where runtimes are wrong, by default or by design, and what in our file or target avoids it.

Each test shows the trap first: where a newer runtime has mended it, the test says what can go.
"""

import ctypes
import json
import shutil
import subprocess

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tools import installed, needed

from smx_export import FileError, Profile, export_onnx
from smx_export.artifact.comparison import compare
from smx_export.artifact.exported import read_exported
from smx_export.artifact.files import read_onnx
from smx_export.contract import ALL_OUTPUTS
from smx_export.targets import target
from smx_export.targets.c import COMPILE
from smx_export.targets.litert import CONVERT
from smx_export.targets.selftest import selftest
from smx_lightning import SoftmaxRegression
from smx_lightning.preprocessing.moments import Moments

rng = np.random.default_rng(0)
X = rng.normal(size=(7, 8)).astype(np.float32)
W = rng.normal(size=(5, 8)).astype(np.float32)
SCORES = X @ W.T


@pytest.fixture(scope="module")
def exported(trained, digits, tmp_path_factory):
    """Writes ``trained`` in a profile, once each."""
    folder, rows = tmp_path_factory.mktemp("exported"), digits.splits.test

    def exported(name, outputs=("log_probs", "probs")):
        path = folder / f"{name}_{'_'.join(outputs)}.onnx"
        profile = Profile.of(name, outputs=outputs)
        if not path.exists():
            export_onnx(trained, path, profile=profile, data=(rows.x, rows.y))
        return path

    return exported


def saved(path, nodes, arrays, outputs, batch="batch", features=8):
    """A graph of float32 rows named x, written as it is."""
    graph = helper.make_graph(
        [helper.make_node(op, given, made, **options) for op, given, made, options in nodes],
        "trap",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, features])],
        [
            helper.make_tensor_value_info(name, kind, [batch, *rest])
            for name, kind, *rest in outputs
        ],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def compared(path, run):
    """What a runtime's answers to a file's own vectors amount to."""
    exported = read_exported(path.read_bytes(), path)
    return compare(exported.vectors.expected, run(exported.vectors.x))


def gone(trap, runtime, remedy):
    return f"the trap is gone: {runtime} no longer {trap}, so that {remedy} can go"


def test_openvino_rounds_float64_inputs_and_our_target_does_not_take_them(tmp_path):
    version = installed("openvino").version()
    x = torch.from_numpy(1.7e9 + rng.uniform(0, 64, (50, 3)))
    model = SoftmaxRegression(3, 3, preprocessing="standardize")
    model.preprocessing.fit(Moments.of(x))
    path = export_onnx(model, tmp_path / "wide.onnx").path
    session = target("openvino").load(path)
    trap = compared(path, session.run)
    assert trap.wrong, gone("rounds float64 inputs", f"openvino {version}", "OpenVino.float64")
    with pytest.raises(FileError, match="takes float64 inputs, as the file does, got openvino"):
        selftest(path, target("openvino"))


def test_openvino_computes_in_bfloat16_and_our_target_in_float32(tmp_path):
    version = installed("openvino").version()
    core = needed("openvino").Core()
    model = SoftmaxRegression(784, 10, preprocessing="standardize")
    model.preprocessing.mean.fill_(73.0)
    model.preprocessing.scale.fill_(90.0)
    with torch.no_grad():
        model.linear.weight.normal_()
    path = export_onnx(model, tmp_path / "model.onnx").path

    def told(**config):
        compiled = core.compile_model(core.read_model(str(path)), "CPU", config)
        return compared(
            path, lambda x: dict(zip(("log_probs", "probs"), compiled(x).values(), strict=True))
        )

    assert selftest(path, target("openvino")).passed
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert told().ratio > 10, gone("rounds to bfloat16", version, "CONFIG")
    elif told(INFERENCE_PRECISION_HINT="bf16").ratio <= 10:
        pytest.skip("this processor has no bfloat16, and the plugin does not imitate it")


def test_openvino_is_wrong_on_few_rows_of_weights_with_a_scale_a_feature(exported, tmp_path):
    version = installed("openvino").version()
    stored = rng.integers(-127, 128, (5, 8)).astype(np.int8)
    scale = rng.uniform(0.001, 0.02, 8).astype(np.float32)
    path = saved(
        tmp_path / "dequantised.onnx",
        [
            ("DequantizeLinear", ["stored", "scale"], ["w"], {"axis": 1}),
            ("Gemm", ["x", "w"], ["scores"], {"transB": 1}),
        ],
        {"stored": stored, "scale": scale},
        [("scores", TensorProto.FLOAT, 5)],
    )
    session = target("openvino").load(path)
    right = X @ (stored * scale).T
    few, many = (np.abs(session.run(X[:n])["scores"] - right[:n]).max() for n in (4, 7))
    remedy = "the Mul of the inputs in compact.py"
    assert few > 1, gone("mistakes the axis of DequantizeLinear", version, remedy)
    assert many < 1e-4
    found = selftest(exported("compact"), target("openvino"))
    assert found.passed, found
    operators = {node.op_type for node in onnx.load(exported("compact")).graph.node}
    assert operators == {"Mul", "Cast", "Gemm", "LogSoftmax", "Softmax"}


def argmax(path, keepdims):
    nodes = [
        ("Gemm", ["x", "w"], ["scores"], {"transB": 1}),
        ("Softmax", ["scores"], ["probs"], {"axis": 1}),
    ]
    arrays = {"w": W}
    if keepdims:
        arrays["axis"] = np.array([1])
        nodes += [
            ("ArgMax", ["scores"], ["winner"], {"axis": 1, "keepdims": 1}),
            ("Squeeze", ["winner", "axis"], ["label"], {}),
        ]
    else:
        nodes += [("ArgMax", ["scores"], ["label"], {"axis": 1, "keepdims": 0})]
    outputs = [("probs", TensorProto.FLOAT, 5), ("label", TensorProto.INT64)]
    return saved(path, nodes, arrays, outputs)


def test_opencv_4_answers_the_label_from_stale_memory_unless_it_keeps_its_dimension(tmp_path):
    version = installed("opencv").version()
    if int(version.partition(".")[0]) >= 5:
        pytest.skip(f"OpenCV {version} is right; 4.x is not")
    labels = {}
    for keepdims in (False, True):
        path = argmax(tmp_path / "label.onnx", keepdims)
        answers = [target("opencv").load(path).run(X[:n])["label"].ravel() for n in (7, 1, 7)]
        labels[keepdims] = np.concatenate(answers)
    right = SCORES[[*range(7), 0, *range(7)]].argmax(1)
    remedy = "the Squeeze in graph.py"
    assert (labels[False] != right).any(), gone("answers from stale memory", version, remedy)
    np.testing.assert_array_equal(labels[True], right)


def test_our_label_keeps_its_dimension_and_opencv_answers_it_right(exported):
    path = exported("portable", ("log_probs", "label"))
    nodes = {node.op_type: node for node in onnx.load(path).graph.node}
    (dropped,) = (a.i for a in nodes["ArgMax"].attribute if a.name == "keepdims")
    assert (dropped, nodes["Squeeze"].input[0]) == (1, nodes["ArgMax"].output[0])
    assert nodes["ArgMax"].input[0] == "scores"  # before softmax, which may round two to one
    session = installed("opencv").load(path)
    vectors = read_exported(path.read_bytes(), path).vectors
    right = vectors.log_probs.argmax(1)
    for rows in (slice(5), slice(1), slice(1, 5)):
        answer = session.run(vectors.x[rows])["label"]
        np.testing.assert_array_equal(answer.ravel(), right[rows])


@pytest.mark.parametrize("name", ["onnx-reference", "opencv", "tract"])
def test_log_of_softmax_is_infinite_beyond_104_nats_and_robust_is_not(name, exported):
    runtime = installed(name)
    portable = exported("portable")
    x = read_exported(portable.read_bytes(), portable).vectors.x
    told = runtime.load(portable).run(x)["log_probs"]
    remedy = "its exemption from robust"
    assert np.isneginf(told).any(), gone("takes the log of softmax", runtime.version(), remedy)
    assert np.isfinite(runtime.load(exported("robust")).run(x)["log_probs"]).all()
    found = selftest(exported("robust", ALL_OUTPUTS), runtime)
    assert found.passed, found


@pytest.mark.whole
def test_ncnn_sums_over_the_batch_and_robust_needs_no_sum(exported, tmp_path):
    pytest.importorskip("ncnn", reason="CI does not install it")
    path = saved(
        tmp_path / "sum.onnx",
        [("ReduceSum", ["x", "axis"], ["sum"], {"keepdims": 1})],
        {"axis": np.array([1])},
        [("sum", TensorProto.FLOAT, 1)],
    )
    runtime = target("ncnn")
    told = runtime.load(path).run(X)["sum"]
    right = X.sum(1, keepdims=True)
    wrong = told.shape != right.shape or np.abs(told - right).max() > 1
    remedy = "the way round ReduceSum in graph.py"
    assert wrong, gone("sums over the batch", runtime.version(), remedy)
    found = selftest(exported("robust"), runtime)
    assert found.passed, found


def test_tract_refuses_a_batch_without_a_name(exported, tmp_path):
    runtime = installed("tract")
    nodes = [("Gemm", ["x", "w"], ["scores"], {"transB": 1})]
    outputs = [("scores", TensorProto.FLOAT, 5)]
    named, unnamed = (
        saved(tmp_path / f"{batch}.onnx", nodes, {"w": W}, outputs, batch)
        for batch in ("batch", None)
    )
    np.testing.assert_allclose(runtime.load(named).run(X)["scores"], SCORES, atol=1e-5)
    with pytest.raises(Exception, match="without a determined fact"):
        runtime.load(unnamed)
    (given,) = onnx.load(exported("portable")).graph.input
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"


# The generator of C ------------------------------------------------------------------------------


def generated(path, *, metadata=False, **options):
    """What the generator makes of a file as it is."""
    generator = needed("emx_onnx_cgen.compiler")
    model = read_onnx(path)
    if not metadata:
        del model.metadata_props[:]
    return generator.Compiler(generator.CompilerOptions(**options)).compile(model)


def compiled(source, folder):
    """A shared library, or ``None`` where the compiler refuses."""
    code, library = folder / "model.c", folder / "model.so"
    code.write_text(source, encoding="utf-8")
    done = subprocess.run([*COMPILE, "-o", library, code, "-lm"], capture_output=True)
    return None if done.returncode else ctypes.CDLL(str(library))


NASTY = ["*/ int main() {", '"quoted"', "two\nlines", "back\\slash", "é%d??/"]


@pytest.mark.whole
def test_a_class_name_ends_the_generator_s_comment_and_our_target_s_not(tmp_path):
    installed("c")
    path = export_onnx(SoftmaxRegression(8, 5, class_names=NASTY), tmp_path / "model.onnx").path
    remedy = "the deletion of metadata in c.py"
    source = generated(path, metadata=True)
    assert compiled(source, tmp_path) is None, gone("copies metadata", "the generator", remedy)
    assert selftest(path, target("c")).passed
    names = {entry.key: entry.value for entry in onnx.load(path).metadata_props}["class_names"]
    assert json.loads(names) == NASTY


@pytest.mark.whole
def test_the_generator_moves_large_weights_to_another_file_and_our_target_does_not(tmp_path):
    installed("c")
    path = export_onnx(SoftmaxRegression(784, 40), tmp_path / "model.onnx").path
    remedy = "large_weight_threshold in c.py"
    assert "fopen" in generated(path), gone("reads weights from a file", "the generator", remedy)
    assert selftest(path, target("c")).passed


@pytest.mark.whole
def test_the_generator_reduces_the_first_row_only_and_our_target_all(exported, tmp_path):
    installed("c")
    path = exported("robust")
    x = read_exported(path.read_bytes(), path).vectors.x
    answers = {name: np.zeros((len(x), 10), np.float32) for name in ("log_probs", "probs")}
    library = compiled(generated(path), tmp_path)
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (x, *answers.values())]
    library.model(ctypes.c_int(len(x)), *pointers)
    right = read_exported(path.read_bytes(), path).vectors.expected
    first, rest = (
        compare(right.rows(rows), {name: answer[rows] for name, answer in answers.items()})
        for rows in (slice(1), slice(1, None))
    )
    assert first.right
    remedy = "the loop over rows in c.py"
    assert not rest.right, gone("reduces the first row only", "the generator", remedy)
    assert compared(path, lambda x: target("c").load(path).run(x)).right
    with pytest.raises(Exception, match="dynamic shape"):
        generated(exported("robust", ALL_OUTPUTS))  # of ArgMax
    assert selftest(exported("robust", ALL_OUTPUTS), target("c")).passed


@pytest.mark.whole
def test_onnx2tf_rewrites_the_file_it_is_given_and_our_target_gives_it_a_copy(exported, tmp_path):
    pytest.importorskip("onnx2tf", reason="CI does not install it")
    path = exported("portable")
    before = path.read_bytes()
    copied = shutil.copy(path, tmp_path / "model.onnx")
    subprocess.run([*CONVERT, "-kat", "input"], cwd=tmp_path, capture_output=True, check=True)
    remedy = "the copy in litert.py"
    assert copied.read_bytes() != before, gone("rewrites its input", "onnx2tf", remedy)
    assert selftest(path, target("litert")).passed
    assert path.read_bytes() == before


@pytest.mark.parametrize("classes", [31, 64])
def test_onnx_reference_gathers_out_of_few_classes_only(classes, tmp_path):
    """Its GatherElements stands on numpy.choose, which takes so many arrays at once."""
    file, rows = tmp_path / "m.onnx", np.ones((2, 6), np.float32)
    model = SoftmaxRegression(6, classes).eval()
    export_onnx(model, file, top_k=2)
    live = model(torch.as_tensor(rows)).exp().topk(2).values.detach().numpy()
    answers = target("onnxruntime").load(file).run(rows)
    np.testing.assert_allclose(answers["top_probs"], live, rtol=1e-5)
    session = target("onnx-reference").load(file)
    if classes < 64:
        np.testing.assert_allclose(session.run(rows)["top_probs"], live, rtol=1e-5)
    else:
        with pytest.raises(ValueError, match="cannot reshape"):
            session.run(rows)
