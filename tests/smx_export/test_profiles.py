"""Profiles and outputs: what they accept, what the file of each answers, how it is built."""

import json

import numpy as np
import onnx
import profiled
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from profiled import PROFILES, SOME_SUBSETS, SUBSETS
from sampled import sampled
from torch import nn

from smx_export import FileError, OnnxClassifier, Profile, check_parity, export_onnx
from smx_export.targets.selftest import selftest
from smx_lightning import InputError, SoftmaxRegression

TAIL = ["Softmax", "ReduceMax", "ReduceMax", "Sub", "Log", "Add"]


@pytest.fixture(scope="module")
def model():
    return profiled.model_of()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """Files by profile and outputs, each written once."""
    folder, found = tmp_path_factory.mktemp("profiles"), {}

    def get(name, outputs):
        if (name, outputs) not in found:
            path = folder / f"{len(found)}.onnx"
            profile = profiled.profile(name, outputs)
            found[name, outputs] = export_onnx(
                model, path, profile=profile, data=profiled.labelled(model)
            )
        return found[name, outputs]

    return get


FILES = [(name, outputs) for name in PROFILES for outputs in SOME_SUBSETS]
FILES += [("portable", outputs) for outputs in SUBSETS if outputs not in SOME_SUBSETS]
every_file = pytest.mark.parametrize(
    ("name", "outputs"),
    sampled(FILES, every=3),
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)


# What a profile is ---------------------------------------------------------------------------


def test_a_profile_is_named_by_words_with_commas():
    assert Profile.of() == Profile.of("portable") == Profile()
    assert Profile.of("image, robust") == Profile(robust=True, image=True)
    assert Profile.of("compact").weights == "int8"
    assert Profile.of("compact", weights="float16").weights == "float16"
    assert Profile.of("robust", weights="float16").weights is None
    assert Profile.of(outputs=["label"]).outputs == ("label",)


@pytest.mark.parametrize("name", PROFILES)
def test_name_and_json_say_the_same_profile_again(name):
    profile = profiled.profile(name, ["label", "scores"], max_accuracy_loss=0.1)
    assert Profile.from_json(profile.to_json()) == profile
    again = Profile.of(
        profile.name,
        outputs=profile.outputs,
        weights=profile.weights or "int8",
        max_accuracy_loss=0.1,
    )
    assert again == profile


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Profile.of("tiny"),
            "expected a profile out of portable, robust, compact, image, or several with commas, "
            "got 'tiny'",
        ),
        (lambda: Profile.of("robust,"), "expected a profile out of .*, got 'robust,'"),
        (
            lambda: Profile.of(outputs=["probs", "logits"]),
            "expected outputs out of log_probs, probs, scores, label, each once, got probs, logits",
        ),
        (lambda: Profile.of(outputs=["label", "label"]), "each once, got label, label"),
        (lambda: Profile(outputs=()), "each once, got none"),
        (
            lambda: Profile.of("compact", weights="int4"),
            "expected weights of float16 or int8, got 'int4'",
        ),
        (
            lambda: Profile(max_accuracy_loss=-0.1),
            "max_accuracy_loss must be a finite number of at least 0, got -0.1",
        ),
        (lambda: Profile(max_nll_increase=float("nan")), "max_nll_increase must be .*, got nan"),
        (lambda: Profile.from_json("{"), "expected the profile in .*, got a damaged one"),
        (lambda: Profile.from_json('{"fast": true, "outputs": []}'), "export it again"),
        (lambda: Profile.from_json('["robust"]'), "export it again"),
    ],
)
def test_what_is_no_profile_is_refused_in_one_sentence(make, message):
    with pytest.raises(FileError, match=f"{message}"):
        make()


# What the files answer -----------------------------------------------------------------------


@every_file
def test_every_file_passes_its_gate_its_selftest_and_a_later_check(name, outputs, model, exported):
    export = exported(name, outputs)
    assert export.report.passed
    assert selftest(export.path).passed
    again = check_parity(model, export.path, profiled.labelled(model))
    assert again.passed, str(again)
    assert [check.name for check in again.checks] == [check.name for check in export.report.checks]
    (stored,) = (e.value for e in onnx.load(export.path).metadata_props if e.key == "profile")
    assert Profile.from_json(stored) == profiled.profile(name, outputs)
    assert (again.rounding is None) == (json.loads(stored)["weights"] is None)


@every_file
def test_the_classifier_answers_like_the_model(name, outputs, model, exported):
    classifier = OnnxClassifier(exported(name, outputs).path)
    u = profiled.pixels()
    truth = profiled.log_softmax(profiled.logits(model, profiled.in_range(u), name))
    x = profiled.fed(name, u)
    np.testing.assert_array_equal(classifier.predict(x), truth.argmax(1))
    assert classifier.predict(x).dtype == np.int64
    assert classifier.predict_names(x) == [profiled.NAMES[k] for k in truth.argmax(1)]
    if outputs == ("label",):
        with pytest.raises(ValueError, match="tells probabilities, got outputs label; export it"):
            classifier.predict_proba(x)
    else:
        np.testing.assert_allclose(classifier.predict_proba(x), np.exp(truth), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", PROFILES)
def test_scores_are_the_logits(name, model, exported):
    session = OnnxClassifier(exported(name, SUBSETS[-1]).path).session
    u = profiled.pixels()
    x = profiled.fed(name, u).reshape(-1, *session.get_inputs()[0].shape[1:])
    (scores,) = session.run(["scores"], {"input": x})
    np.testing.assert_allclose(
        scores, profiled.logits(model, profiled.in_range(u), name), rtol=1e-5, atol=1e-4
    )


@pytest.mark.parametrize("gamma", [0.2, 0.93])
@pytest.mark.parametrize("outputs", sampled(map(pytest.param, SUBSETS), every=4), ids=",".join)
def test_every_output_obeys_the_threshold(outputs, gamma, tmp_path):
    model = profiled.model_of(classes=2, threshold=gamma, input_shape=(12,))
    profile = profiled.profile("robust" if gamma > 0.5 else "portable", outputs)
    export = export_onnx(model, tmp_path / "model.onnx", profile=profile)
    assert selftest(export.path).passed
    x = straddling(model, gamma)
    decided = model.decide(model(x)).numpy()
    assert 0 < decided.mean() < 1
    assert (decided != model(x).detach().argmax(1).numpy()).any()
    np.testing.assert_array_equal(OnnxClassifier(export.path).predict(x.numpy()), decided)


def straddling(model, gamma):
    """Rows on a line through p₁ = γ, some of them 1e-4 nats from it and none nearer."""
    ends = torch.rand(2, 12)
    z = profiled.logits(model, ends.double().numpy())
    start, end = z[:, 1] - z[:, 0] - np.log(gamma / (1 - gamma))
    cut = start / (start - end)
    nats = np.array([*-np.geomspace(1e-4, 5, 30), *np.geomspace(1e-4, 5, 30)])
    t = torch.from_numpy(cut + nats / (end - start))[:, None]
    return ((1 - t) * ends[0] + t * ends[1]).float()


# How they are built --------------------------------------------------------------------------


def steep(classes=4):
    model = SoftmaxRegression(classes, classes)
    with torch.no_grad():
        model.linear.weight.copy_(1e4 * torch.eye(classes))
        model.linear.bias.zero_()
    return model


@pytest.mark.parametrize("name", ["portable", "robust"])
def test_log_probabilities_of_1e4_nats_where_log_softmax_is_the_log_of_softmax(name, tmp_path):
    path = export_onnx(steep(), tmp_path / "model.onnx", profile=name).path
    evaluator = ReferenceEvaluator(str(path))
    with np.errstate(divide="ignore"):
        (log_probs,) = evaluator.run(["log_probs"], {"input": np.eye(4, dtype=np.float32)})
    right = -1e4 * (1 - np.eye(4))
    if name == "robust":
        np.testing.assert_allclose(log_probs, right, atol=1e-3)
    else:  # the trap; where it is gone, robust has lost its reason
        assert np.isneginf(log_probs[right < 0]).all()


@pytest.mark.parametrize("name", PROFILES)
def test_the_opset_is_what_the_oldest_runtimes_take(name, exported):
    proto = onnx.load(exported(name, SUBSETS[-1]).path)
    onnx.checker.check_model(proto, full_check=True)
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
    assert proto.ir_version == 8


def test_robust_log_probabilities_need_no_sum_and_end_in_no_difference(exported):
    path = exported("robust", ("log_probs",)).path
    assert profiled.operators(path) == ["Gemm", *TAIL]
    assert profiled.operators(exported("robust image", ("log_probs",)).path) == [
        "Cast", "Flatten", "Gemm", *TAIL
    ]  # fmt: skip
    reductions = [n for n in onnx.load(path).graph.node if n.op_type == "ReduceMax"]
    for node in reductions:  # axes are an attribute up to opset 17
        assert len(node.input) == 1
        assert {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} == {
            "axes": [1], "keepdims": 1
        }  # fmt: skip


@pytest.mark.parametrize("name", ["portable", "robust", "int8", "image"])
@pytest.mark.parametrize("outputs", [("label",), SUBSETS[-1]], ids=",".join)
def test_the_label_is_taken_from_the_scores(name, outputs, exported):
    nodes = {node.op_type: node for node in onnx.load(exported(name, outputs).path).graph.node}
    assert list(nodes["ArgMax"].input) == ["scores"]
    attributes = {a.name: a.i for a in nodes["ArgMax"].attribute}
    assert attributes == {"axis": 1, "keepdims": 1}
    assert nodes["Squeeze"].input[0] == nodes["ArgMax"].output[0]
    assert list(nodes["Squeeze"].output) == ["label"]


@every_file
def test_nothing_in_a_file_is_without_use(name, outputs, exported):
    graph = onnx.load(exported(name, outputs).path).graph
    assert tuple(output.name for output in graph.output) == outputs
    read = {of for node in graph.node for of in node.input} | set(outputs)
    made = {of for node in graph.node for of in node.output}
    stored = {tensor.name for tensor in graph.initializer}
    assert made | stored <= read


# Subclasses ----------------------------------------------------------------------------------


class Squared(SoftmaxRegression):
    """A backbone in front of the head as it is."""

    def features(self, x):
        return x.flatten(1) ** 2


class Halved(SoftmaxRegression):
    """A head of its own."""

    def forward(self, x):
        return self.smx(self.preprocessing(x.flatten(1)) / 2)


NO_HEAD = "a linear layer and log-softmax of its own"
NOT_LINEAR = "nothing but standardisation and a linear layer"


@pytest.mark.parametrize(
    ("kind", "names", "outputs", "lacks"),
    [
        (Squared, "compact", None, NOT_LINEAR),
        (Halved, "compact", None, NOT_LINEAR),
        (Halved, "robust", None, NO_HEAD),
        (Halved, "portable", ["probs", "scores"], NO_HEAD),
    ],
)
def test_a_subclass_is_refused_what_it_cannot_have(kind, names, outputs, lacks, tmp_path):
    data = torch.zeros(2, 6), torch.zeros(2, dtype=torch.int64)
    profile = Profile.of(names, outputs=outputs)
    with pytest.raises(InputError) as caught:
        export_onnx(kind(6, 3), tmp_path / "model.onnx", profile=profile, data=data)
    assert str(caught.value) == (
        f"expected a model with {lacks} for profile {names} with outputs "
        f"{', '.join(outputs or ('log_probs', 'probs'))}, got a subclass that redefines them; "
        "choose profile portable with log_probs, probs, label"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.whole
@pytest.mark.parametrize(
    ("kind", "names", "outputs"),
    [(Halved, "portable", ("log_probs", "probs", "label")), (Squared, "robust", SUBSETS[-1])],
)
def test_a_subclass_has_what_it_can(kind, names, outputs, tmp_path):
    model = kind(6, 3)
    nn.init.normal_(model.linear.weight)
    profile = Profile.of(names, outputs=outputs)
    path = export_onnx(model, tmp_path / "model.onnx", profile=profile).path
    assert check_parity(model, path).passed
    assert selftest(path).passed
    x = torch.randn(20, 6)
    classifier = OnnxClassifier(path)
    np.testing.assert_array_equal(classifier.predict(x.numpy()), model(x).argmax(1))
    np.testing.assert_allclose(
        classifier.predict_proba(x.numpy()), model(x).exp().detach(), rtol=1e-4, atol=1e-6
    )
