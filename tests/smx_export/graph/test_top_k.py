"""The most probable classes of each row: in the graph, in the gate, and for whoever asks a file."""

import csv
import json
import re

import convolved
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from files import read
from hypothesis import given
from hypothesis import strategies as st
from profiled import log_softmax, logits
from simplex import rows as of_rows
from simplex import sparsemax

from smx_export import FileError, OnnxClassifier, Profile, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.comparison import Expected, compare
from smx_export.artifact.files import sealed
from smx_export.commands import DONE
from smx_export.targets import NAMES, NotInstalled, target
from smx_export.targets.matrix import matrix
from smx_export.targets.selftest import selftest
from smx_lightning import InputError, SoftmaxRegression

D, K = 12, 7
CLASSES = [f"c{k}" for k in range(K)]


class Own(convolved.Convolved):
    """A head that is not ours, so that the file knows its log-probabilities alone."""

    def head(self, features):
        return super().head(features)


def linear(classes=K, **kwargs):
    model = SoftmaxRegression(D, classes, class_names=CLASSES[:classes], **kwargs)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.linear.weight.copy_(torch.randn(classes, D, generator=random))
        model.linear.bias.copy_(torch.randn(classes, generator=random))
    return model


def right_of(model, x):
    """Probabilities in float64, not by torch."""
    if isinstance(model, convolved.Convolved):
        return np.exp(convolved.answers(model, x))
    z = logits(model, x.astype(np.float64))
    sparse = model._smx_activation.spec == "sparsemax"
    return of_rows(sparsemax, z) if sparse else np.exp(log_softmax(z))


MODELS = {
    "linear": (linear, {}),
    "robust": (linear, {"robust": True}),
    "alone": (linear, {"outputs": ()}),
    "with a label": (linear, {"outputs": ("label",)}),
    "traced": (convolved.Convolved, {}),
    "another head": (Own, {"outputs": ("label", "log_probs")}),
    "another head, alone": (Own, {"outputs": ()}),
    "sparsemax": (lambda: linear(activation="sparsemax"), {}),
    "sparsemax, alone": (lambda: linear(activation="sparsemax"), {"outputs": (), "robust": True}),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Model and file of a name and a k, made once."""
    folder, known = tmp_path_factory.mktemp("top"), {}

    def export(name, top_k=3):
        if (name, top_k) not in known:
            made, options = MODELS[name]
            model, path = made(), folder / f"{len(known)}.onnx"
            export_onnx(model, path, profile=Profile(top_k=top_k, **options))
            known[name, top_k] = model, path
        return known[name, top_k]

    return export


def inputs(model, count=50):
    return np.random.default_rng(1).normal(size=(count, *model.input_shape)).astype(np.float32)


# Answers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "k"),
    [
        *((name, 3) for name in MODELS if name != "another head"),
        pytest.param("another head", 3, marks=pytest.mark.whole),
        ("linear", 1),
        ("linear", K),
        pytest.param("traced", 4, marks=pytest.mark.whole),
    ],
)
def test_a_file_names_them_in_order(name, k, exported):
    model, path = exported(name, k)
    x = inputs(model)
    right = right_of(model, x)
    session = onnxruntime.InferenceSession(path)
    shape = session.get_inputs()[0].shape[1:]
    classes, probs = session.run(["top_classes", "top_probs"], {"input": x.reshape(-1, *shape)})
    order = np.argsort(-right, axis=1, kind="stable")[:, :k]
    assert (classes.dtype, probs.dtype) == (np.int64, np.float32)
    np.testing.assert_allclose(probs, np.take_along_axis(right, order, 1), rtol=1e-4, atol=1e-6)
    possible = np.take_along_axis(right, order, 1) > 0  # of 0 and 0 the scores tell the order
    np.testing.assert_array_equal(classes[possible], order[possible])
    top = OnnxClassifier(path).predict_top(x)
    np.testing.assert_array_equal(top.classes, classes)
    np.testing.assert_array_equal(top.probs, probs)
    np.testing.assert_array_equal(top.label, right.argmax(1))
    assert check_parity(model, path).passed
    assert selftest(path).passed


def test_classes_that_float32_calls_impossible_are_in_order_all_the_same(tmp_path):
    """Thousands of nats apart, all but one have probability 0; the scores know better."""
    model = linear()
    with torch.no_grad():
        model.linear.weight.mul_(1000)
    top = OnnxClassifier(export_onnx(model, tmp_path / "m.onnx", top_k=K).path).predict_top
    x = inputs(model)
    order = np.argsort(-logits(model, x.astype(np.float64)), axis=1)
    np.testing.assert_array_equal(top(x).classes, order)
    assert ((top(x).probs == 0).sum(1) > K // 2).any()


def test_the_profile_says_how_many(exported):
    assert json.loads(read(exported("alone")[1])["profile"])["top_k"] == 3
    assert json.loads(read(exported("alone")[1])["profile"])["outputs"] == [
        "top_classes", "top_probs"
    ]  # fmt: skip
    profile = Profile.of("robust", top_k=2)
    assert Profile.from_json(profile.to_json()) == profile
    assert profile.outputs == ("log_probs", "probs", "top_classes", "top_probs")


@pytest.mark.parametrize("k", [K + 1, 10**6])
def test_more_classes_than_there_are_is_refused(k, tmp_path):
    with pytest.raises(InputError, match=f"top_k of at most the model's {K} classes, got {k}"):
        export_onnx(linear(), tmp_path / "m.onnx", top_k=k)
    assert not list(tmp_path.iterdir())


def test_what_is_no_number_of_classes_is_refused():
    for k in (0, -3, 2.0, True):
        with pytest.raises(FileError, match="top_k as a whole number from 1, got"):
            Profile(top_k=k)
    with pytest.raises(FileError, match="a number of classes for top_classes and top_probs"):
        Profile(outputs=("label", "top_probs"))


# Whoever asks a file -----------------------------------------------------------------------------


def test_a_file_of_all_probabilities_answers_any_number(exported, tmp_path):
    model, path = exported("linear")
    plain = OnnxClassifier(export_onnx(model, tmp_path / "plain.onnx").path)
    x = inputs(model)
    known = OnnxClassifier(path)
    assert (plain.top_k, known.top_k) == (None, 3)
    for k in (1, 2, 3, 5, K):
        one, other = plain.predict_top(x, k), known.predict_top(x, k)
        assert one.classes.shape == (50, k)
        np.testing.assert_array_equal(one.classes, other.classes)
        np.testing.assert_allclose(one.probs, other.probs, rtol=1e-6)
    for k in (0, K + 1):
        with pytest.raises(ValueError, match=f"expected k out of 1..{K}, got {k}"):
            known.predict_top(x, k)
    with pytest.raises(ValueError, match="give k, or export the file with top_k"):
        plain.predict_top(x)


def test_a_file_of_nothing_else_predicts_and_tells_no_probabilities(exported):
    model, path = exported("alone")
    classifier, x = OnnxClassifier(path), inputs(model)
    best = right_of(model, x).argmax(1)
    np.testing.assert_array_equal(classifier.predict(x), best)
    assert classifier.predict_names(x) == [CLASSES[k] for k in best]
    for asked in (classifier.predict_proba, lambda x: classifier.predict_top(x, 4)):
        with pytest.raises(ValueError, match="expected a file that tells probabilities"):
            asked(x)


@pytest.mark.parametrize("k", [1, 2])
def test_two_classes_obey_the_threshold(k, tmp_path):
    model = linear(2, threshold=0.8)
    path = export_onnx(model, tmp_path / "m.onnx", profile=Profile(outputs=(), top_k=k)).path
    x = inputs(model, 200)
    label = right_of(model, x)[:, 1] >= 0.8
    np.testing.assert_array_equal(OnnxClassifier(path).predict(x), label)
    assert (label != right_of(model, x).argmax(1)).any()


@pytest.mark.parametrize("name", ["linear", "alone", "with a label", "traced"])
def test_a_row_without_an_answer_has_no_classes(name, exported):
    model, path = exported(name)
    x = inputs(model, 4)
    x[2].flat[0] = np.nan
    with pytest.raises(ValueError, match="in row 2"):
        OnnxClassifier(path).predict_top(x)
    top = OnnxClassifier(path, on_nan="missing").predict_top(x)
    assert (top.label == -1).tolist() == [False, False, True, False]
    assert ((top.classes == -1).all(1)).tolist() == [False, False, True, False]
    assert (np.isnan(top.probs).all(1)).tolist() == [False, False, True, False]


@pytest.mark.parametrize("name", ["linear", "alone"])
def test_predictions_are_the_most_probable_classes(name, exported, tmp_path):
    model, path = exported(name)
    x = inputs(model, 9)
    x[4, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    out = tmp_path / "out.csv"
    arguments = [str(path), str(tmp_path / "x.npy"), str(out), "--nan", "missing"]
    assert main(["predict", *arguments]) == DONE
    head, *table = csv.reader(out.open())
    assert head == [
        "row", "class", "top 1", "p(top 1)", "top 2", "p(top 2)", "top 3", "p(top 3)"
    ]  # fmt: skip
    right = right_of(model, x)
    order = np.argsort(-right, axis=1)[:, :3]
    for i, row in enumerate(table):
        if i == 4:
            assert row == ["4", "", "", "nan", "", "nan", "", "nan"]
            continue
        assert row[:2] == [str(i), CLASSES[order[i, 0]]]
        assert row[2::2] == [CLASSES[k] for k in order[i]]
        np.testing.assert_allclose([*map(float, row[3::2])], right[i, order[i]], rtol=1e-4)


def test_the_command_line_takes_it(checkpoint, tmp_path, capsys):
    out = tmp_path / "m.onnx"
    options = ["--top-k", "5", "--batch", "2", "--outputs", "label"]
    assert main(["convert", str(checkpoint), str(out), *options]) == DONE
    assert "top_probs against float64" in capsys.readouterr().out
    assert [o.name for o in onnx.load(out).graph.output] == ["label", "top_classes", "top_probs"]
    assert main(["verify", str(out), "--checkpoint", str(checkpoint)]) == DONE


# Which runtimes have it --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [name for name in NAMES if "web" not in name and name not in ("litert", "c")]
)
def test_a_target_answers_it(name, exported):
    runtime = target(name)
    try:
        runtime.version()
    except NotInstalled as missing:
        pytest.skip(str(missing))
    found = selftest(exported("alone")[1], runtime)
    if name == "ncnn":  # the one that has no TopK
        assert "'TopK'" in str(found)
    else:
        assert found.passed, str(found)


@pytest.mark.whole
@pytest.mark.parametrize("name", ["robust", "traced", "sparsemax, alone"])
def test_all_targets_but_ncnn_answer_it(name, exported):
    found = matrix(exported(name)[1], [name for name in NAMES if name != "litert"])
    wrong = [row.target for row in found.rows if row.verdict == "FAILED"]
    assert wrong == ["ncnn"], str(found)


# What is wrong about it --------------------------------------------------------------------------


def the(op, proto):
    return next(node for node in proto.graph.node if node.op_type == op)


def smallest(proto):
    the("TopK", proto).attribute.append(onnx.helper.make_attribute("largest", 0))


def of_the_probabilities(proto):
    the("TopK", proto).input[0] = "probs"


def of_other_scores(proto):
    node = onnx.helper.make_node("Neg", ["scores"], ["other"])
    at = [n.op_type for n in proto.graph.node].index("TopK")
    the("TopK", proto).input[0] = "other"
    proto.graph.node.insert(at, node)


def of_the_first_classes(proto):
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([[0]], np.int64), "first"))
    shape = onnx.helper.make_node("Shape", ["top_classes"], ["top_shape"])
    first = onnx.helper.make_node("Expand", ["first", "top_shape"], ["firsts"])
    gather = the("GatherElements", proto)
    gather.input[1] = "firsts"
    at = [n.op_type for n in proto.graph.node].index("GatherElements")
    proto.graph.node.insert(at, first)
    proto.graph.node.insert(at, shape)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (smallest, "top_classes against float64"),
        (of_other_scores, "top_classes against float64"),
        (of_the_first_classes, "top_probs against float64"),
        (of_the_probabilities, "graph"),
    ],
)
def test_a_file_that_names_others_is_found_out(change, seen, exported, tmp_path):
    model, path = exported("linear")
    proto = onnx.load(path)
    change(proto)
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(sealed(proto))
    failed = {check.name for check in check_parity(model, wrong).failed}
    assert {"graph", seen} <= failed
    if seen != "graph":
        assert not selftest(wrong).passed


def test_a_profile_of_another_number_is_found_out(exported, tmp_path):
    model, path = exported("linear")
    proto = onnx.load(path)
    for entry in proto.metadata_props:
        if entry.key == "profile":
            entry.value = entry.value.replace('"top_k": 3', '"top_k": 2')
    wrong = tmp_path / "wrong.onnx"
    wrong.write_bytes(sealed(proto))
    assert "outputs" in {check.name for check in check_parity(model, wrong).failed}
    assert "metadata" in {check.name for check in selftest(wrong).checks if not check.passed}


def expected_of(log_probs, tolerance):
    near = np.broadcast_to(tolerance, log_probs.shape)
    return Expected(log_probs, near, near)


@given(st.lists(st.floats(-30, 30), min_size=2, max_size=12), st.integers(0, 2**32 - 1), st.data())
def test_whatever_rounding_does_within_the_tolerance_is_right(scores, seed, data):
    """The judge is the definition: answers that are off by no more than that, sorted."""
    log_probs = log_softmax(np.array([scores]))
    k = data.draw(st.integers(1, len(scores)))
    tolerance = data.draw(st.floats(1e-6, 3))
    rng = np.random.default_rng(seed)
    near = log_probs + tolerance * rng.uniform(-1, 1, log_probs.shape)
    classes = np.argsort(-near, axis=1)[:, :k]
    probs = np.minimum(np.exp(np.take_along_axis(log_probs, classes, 1)), 1)
    outputs = {"top_classes": classes, "top_probs": probs}
    found = compare(expected_of(log_probs, tolerance), outputs, top_k=k)
    assert found.right, found.wrong


@given(st.integers(2, 9), st.integers(0, 2**32 - 1), st.data())
def test_two_ranks_that_are_exchanged_beyond_it_are_wrong(classes, seed, data):
    rng = np.random.default_rng(seed)
    gaps = rng.uniform(1, 2, classes)
    log_probs = log_softmax(rng.permutation(np.cumsum(gaps))[None])
    order = np.argsort(-log_probs, axis=1)
    i, j = sorted(data.draw(st.permutations(range(classes)))[:2])
    order[0, [i, j]] = order[0, [j, i]]
    outputs = {"top_classes": order, "top_probs": np.exp(np.take_along_axis(log_probs, order, 1))}
    found = compare(expected_of(log_probs, 0.4), outputs, top_k=classes)
    assert not found.right
    assert found.ratios["top_probs"] <= 1


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        ([[0, 0]], "names a class twice"),
        ([[0, 3]], "one that there is not"),
        ([[-1, 0]], "one that there is not"),
        ([[0, 1, 2]], r"is int64 \(1, 3\), not \(1, 2\)"),
    ],
)
def test_classes_that_there_are_not(classes, words):
    truth = log_softmax(np.array([[2.0, 1.0, 0.0]]))
    outputs = {"top_classes": np.array(classes), "top_probs": np.exp(truth[:, :2])}
    (fault, *_) = compare(expected_of(truth, 1e-3), outputs, top_k=2).faults
    assert re.search(words, fault)


def test_a_probability_that_is_nan_is_seen():
    truth = log_softmax(np.array([[2.0, 1.0, 0.0]]))
    outputs = {"top_classes": np.array([[0, 1]]), "top_probs": np.array([[0.6, np.nan]])}
    assert "not finite" in compare(expected_of(truth, 1e-3), outputs, top_k=2).wrong
