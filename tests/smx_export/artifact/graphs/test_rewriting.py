"""Rewritten files that compute the same are known as such; onnxruntime judges that they do."""

import numpy as np
import onnx
import onnxruntime
import profiled
import pytest
from mutations.editing import after, array, before, constant, initializer, node, put, rebuild
from onnx import TensorProto, helper, numpy_helper, version_converter
from sampled import sampled

from smx_export import check_parity, export_onnx
from smx_export.artifact.files import parse
from smx_export.artifact.graphs.attributes import LAST_OPSET
from smx_export.artifact.graphs.difference import first_difference
from smx_export.artifact.graphs.rewriting import RULES
from smx_export.artifact.graphs.terms import Terms
from smx_export.contract import ALL_OUTPUTS

LEVELS = ["BASIC", "EXTENDED", "LAYOUT", "ALL"]
LOWEST = 14  # to which the converter has a way
NAMES = [*profiled.PROFILES, "threshold", "far from zero"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A model's file in every profile with every output, and rows that a file takes."""
    folder, found = tmp_path_factory.mktemp("written"), {}

    def get(name):
        if name not in found:
            binary = {"classes": 2, "threshold": 0.7} if name == "threshold" else {}
            model = profiled.model_of(**binary)
            if name == "far from zero":
                model.preprocessing.mean += 1e4
            profile = profiled.profile(
                name if name in profiled.PROFILES else "portable", ALL_OUTPUTS
            )
            data = profiled.labelled(model)
            path = export_onnx(model, folder / f"{name}.onnx", profile=profile, data=data).path
            rows = np.random.default_rng(0).uniform(0, 255, (5, 3, 4)).round()
            rows = (
                rows.astype(np.uint8) if profile.image else rows.reshape(5, 12).astype(np.float32)
            )
            found[name] = model, path, data, rows
        return found[name]

    return get


def said(one, other):
    """How a graph differs from another, and what was written in another way."""
    terms = Terms(RULES)
    right, got = terms.read(one), terms.read(other)
    difference, _ = first_difference(terms, right, got, lambda *_: False)
    return difference, sorted(got.rules - right.rules)


def answers(proto, rows):
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(None, {"input": rows})


def assert_known(path, proto, rows, *rules):
    original = onnx.load(path)
    difference, used = said(original, parse(proto.SerializeToString(), "rewritten"))
    assert difference == ""
    assert set(rules) <= set(used)
    for one, other in zip(answers(original, rows), answers(proto, rows), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", NAMES)
def test_what_onnxruntime_optimises_is_known(name, level, written, tmp_path):
    _, path, _, rows = written(name)
    options = onnxruntime.SessionOptions()
    level = f"ORT_ENABLE_{level}"
    if not hasattr(onnxruntime.GraphOptimizationLevel, level):
        level = "ORT_ENABLE_ALL"
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    onnxruntime.InferenceSession(path, options)
    assert_known(path, onnx.load(tmp_path / "optimised.onnx"), rows)


@pytest.mark.parametrize("opset", sampled(range(LOWEST, LAST_OPSET + 1), every=4))
@pytest.mark.parametrize("name", ["portable", "robust", "int8", "image", "threshold"])
def test_what_the_version_converter_makes_is_known(name, opset, written):
    _, path, _, rows = written(name)
    converted = version_converter.convert_version(onnx.load(path), opset)
    assert said(onnx.load(path), parse(converted.SerializeToString(), "converted"))[0] == ""
    if opset <= 25:
        assert_known(path, converted, rows)


# One rule each ----------------------------------------------------------------------------------


def identities(proto):
    after(proto, "scores", ("Identity", [], {}), ("Dropout", [], {}))
    half, off = constant(proto, 0.5), constant(proto, False, bool)
    before(proto, "input", ("Dropout", [half, off], {}))


def neutral_batch_norm(proto):
    ones, zeros = (constant(proto, np.full(12, value, np.float32)) for value in (1, 0))
    before(proto, "input", ("BatchNormalization", [ones, zeros, zeros, ones], {"epsilon": 0.0}))


def constant_nodes(proto):
    for name in ("weight", "bias"):
        tensor = initializer(proto, name)
        rebuild(proto, 0, [("Constant", [], [tensor.name], {"value": tensor})])
        proto.graph.initializer.remove(tensor)


def weights_turned(proto):
    tensor = initializer(proto, "weight")
    turned = numpy_helper.from_array(np.ascontiguousarray(array(proto, "weight").T), tensor.name)
    tensor.CopyFrom(turned)
    del node(proto, "Gemm").attribute[:]


def matmul_and_add(proto, turn=False):
    weights_turned(proto)
    layer = node(proto, "Gemm")
    at, (x, weight, bias) = list(proto.graph.node).index(layer), layer.input
    proto.graph.node.remove(layer)
    product = ("MatMul", [x, weight], ["product"], {})
    inputs = [bias, "product"] if turn else ["product", bias]
    rebuild(proto, at, [product, ("Add", inputs, ["scores"], {})])


def bias_and_matmul(proto):
    matmul_and_add(proto, turn=True)


def probabilities_by_exp(proto):
    probs = node(proto, "probs")
    at = list(proto.graph.node).index(probs)
    proto.graph.node.remove(probs)
    rebuild(proto, at, [("Exp", ["log_probs"], ["probs"], {})])


REWRITTEN = {
    identities: "identities left out",
    neutral_batch_norm: "identities left out",
    constant_nodes: "constants folded",
    weights_turned: "weights transposed",
    matmul_and_add: "Gemm as MatMul and Add",
    bias_and_matmul: "Gemm as MatMul and Add",
    probabilities_by_exp: "Softmax as Exp of LogSoftmax",
}


@pytest.mark.parametrize("change", REWRITTEN)
def test_each_rule_has_its_way_and_holds(change, written):
    _, path, _, rows = written("portable")
    proto = onnx.load(path)
    change(proto)
    assert_known(path, proto, rows, REWRITTEN[change])


@pytest.mark.parametrize("name", ["float16", "int8"])
def test_small_weights_may_be_widened_beforehand(name, written):
    _, path, _, rows = written(name)
    proto = onnx.load(path)
    tensor = next(t for t in proto.graph.initializer if t.name == "stored")
    wide = numpy_helper.to_array(tensor).astype(np.float32)
    proto.graph.node.remove(node(proto, "weight"))
    tensor.CopyFrom(numpy_helper.from_array(wide, "weight"))
    assert_known(path, proto, rows)


def test_names_order_and_notes_do_not_count(written):
    _, path, _, rows = written("robust")
    proto = onnx.load(path)
    kept = {"input", *ALL_OUTPUTS}
    for i, part in enumerate(proto.graph.node):
        for names in (part.input, part.output):
            names[:] = [name if name in kept else f"v_{name}" for name in names]
        part.doc_string, part.name = "a note", f"node {i}"
    for tensor in proto.graph.initializer:
        tensor.name = f"v_{tensor.name}"
        values = numpy_helper.to_array(tensor)
        typed = helper.make_tensor(tensor.name, tensor.data_type, values.shape, values.ravel())
        tensor.CopyFrom(typed)
    backwards = list(proto.graph.initializer)[::-1]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(backwards)
    last = proto.graph.node[-3]
    proto.graph.node.remove(last)
    proto.graph.node.insert(1, last) if last.op_type == "ArgMax" else proto.graph.node.append(last)
    inferred = onnx.shape_inference.infer_shapes(proto)
    assert_known(path, inferred, rows)


def test_the_report_says_what_was_rewritten(written, tmp_path):
    model, path, data, _ = written("portable")
    proto = onnx.load(path)
    constant_nodes(proto)
    profiled.metadata(proto, "sha256", None)
    onnx.save(proto, tmp_path / "rewritten.onnx")
    report = check_parity(model, tmp_path / "rewritten.onnx", data)
    (check,) = [check for check in report.checks if check.name == "graph"]
    assert check.passed
    assert check.detail == "as written, but for constants folded; weights bit for bit"
    assert report.exact_graph


# What is no equality ------------------------------------------------------------------------------


def test_a_cast_that_loses_digits_is_not_folded(written):
    _, path, _, _ = written("portable")
    proto = onnx.load(path)
    wide = array(proto, "weight").astype(np.float64)
    initializer(proto, "weight").CopyFrom(numpy_helper.from_array(wide, "wide"))
    rebuild(proto, 0, [("Cast", ["wide"], ["weight"], {"to": TensorProto.FLOAT})])
    assert said(onnx.load(path), proto)[0] == "expected an initialiser, got Cast"


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.0])
def test_special_numbers_are_compared_by_their_bits(value, written):
    _, path, _, _ = written("portable")
    one, two = onnx.load(path), onnx.load(path)
    weight = array(one, "weight")
    weight[0, 0] = 0.0
    put(one, weight=weight)
    weight[0, 0] = value
    put(two, weight=weight)
    assert said(one, one)[0] == ""
    assert said(two, two)[0] == ""
    assert said(one, two)[0] != ""


def pooled(op, opset, **attributes):
    """One operator that came to mean something else, on regions or a window of an image."""
    regions = ["boxes", "which"] if op == "RoiAlign" else []
    image, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 1, 5, 5]), ("made", None))
    )
    graph = helper.make_graph(
        [helper.make_node(op, ["image", *regions], ["made"], **attributes)], "", [image], [made],
        [
            numpy_helper.from_array(np.array([[0.3, 0.6, 3, 4]], np.float32), "boxes"),
            numpy_helper.from_array(np.array([0]), "which"),
        ][: len(regions)],
    )  # fmt: skip
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", opset)])


def test_a_default_that_changed_is_another_operator():
    """Where the regions lie: half a pixel beside, from opset 16 on."""
    one, other = (pooled("RoiAlign", opset, output_height=2, output_width=2) for opset in (15, 16))
    image = {"image": np.arange(25, dtype=np.float32).reshape(1, 1, 5, 5) ** 2}
    early, late = (
        onnxruntime.InferenceSession(proto.SerializeToString()).run(None, image)[0]
        for proto in (one, other)
    )
    assert not np.allclose(early, late)
    assert said(one, other)[0]
    assert not said(one, one)[0]


def test_an_operator_with_more_attributes_is_another_one():
    one, other = (pooled("AveragePool", opset, kernel_shape=[2, 2]) for opset in (18, 19))
    assert said(one, other)[0]
    relu = (pooled("Relu", opset) for opset in (13, 18))
    assert not said(*relu)[0]
