"""Files that answer at random or mix rows, whatever they answered when they were compared."""

import json
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from backbones import Backboned
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from smx_export import FileError, check_parity, export_onnx
from smx_export.__main__ import main
from smx_export.artifact.exported import read_intact
from smx_export.artifact.files import metadata_of, sealed, weights_sha256
from smx_export.artifact.graphs.operators import RANDOM, nondeterministic
from smx_export.graph.portable import set_metadata
from smx_export.parity.comparison import comparison
from smx_export.parity.determinism import repeated
from smx_export.profile import Profile
from smx_export.runtime import open_session
from smx_export.targets.selftest import selftest
from smx_lightning import SoftmaxRegression

D, K = 8, 3
OPERATORS, AGAIN, BESIDE = "operators", "the same batch again", "a row alone and in a batch"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A model with a backbone, the plain model, and their files."""
    folder = tmp_path_factory.mktemp("good")
    torch.manual_seed(0)
    models = {
        "traced": Backboned(nn.Linear(D, D), D, K, input_shape=(D,)),
        "plain": SoftmaxRegression(D, K),
    }
    for name, model in models.items():
        export_onnx(model, folder / f"{name}.onnx")
    return SimpleNamespace(models=models, path=lambda name: folder / f"{name}.onnx")


def spoiled(source, target, change):
    """A changed file, sealed and signed off as the exporter would."""
    proto = onnx.load(source)
    change(proto)
    metadata = metadata_of(proto)
    signed = json.loads(metadata["selftest"]) | {"weights_sha256": weights_sha256(proto)}
    set_metadata(proto, metadata | {"selftest": json.dumps(signed)})
    target.write_bytes(sealed(proto))
    return target


def between(proto, nodes, constants=()):
    """Put nodes between the input and its readers, who then read ``seen``."""
    for node in proto.graph.node:
        node.input[:] = ["seen" if name == "input" else name for name in node.input]
    for position, node in enumerate(nodes):
        proto.graph.node.insert(position, node)
    proto.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(values), name) for name, values in constants
    )


def added(proto, *draws):
    """The input, and ten to the -30 of what is drawn: no answer changes."""
    tiny = helper.make_node("Mul", ["drawn", "tiny"], ["little"])
    add = helper.make_node("Add", ["input", "little"], ["seen"])
    between(proto, [*draws, tiny, add], [("tiny", np.float32(1e-30))])


def like(op_type, **attributes):
    node = helper.make_node(op_type, ["input"], ["drawn"], "draw", **attributes)
    return lambda proto: added(proto, node)


def of_nothing(op_type):
    node = helper.make_node(op_type, [], ["drawn"], "draw", shape=[1, D])
    return lambda proto: added(proto, node)


def multinomial(proto):
    draw = helper.make_node("Multinomial", ["input"], ["classes"], "draw", sample_size=1)
    cast = helper.make_node("Cast", ["classes"], ["drawn"], to=TensorProto.FLOAT)
    added(proto, draw, cast)


def bernoulli_of_chances(proto):
    chances = helper.make_node("Sigmoid", ["input"], ["chances"])
    added(proto, chances, helper.make_node("Bernoulli", ["chances"], ["drawn"], "draw"))


def dropout(training, ratio=0.0):
    def change(proto):
        node = helper.make_node("Dropout", ["input", "ratio", "training"], ["seen"], "draw")
        between(proto, [node], [("ratio", np.float32(ratio)), ("training", np.bool_(training))])

    return change


def dropout_by_a_constant(training):
    def change(proto):
        tensor = numpy_helper.from_array(np.bool_(training))
        constant = helper.make_node("Constant", [], ["training"], value=tensor)
        node = helper.make_node("Dropout", ["input", "", "training"], ["seen"], "draw")
        between(proto, [constant, node])

    return change


def dropout_by_computation(proto):
    """Its training mode depends on the input."""
    largest = helper.make_node("ReduceMax", ["input"], ["largest"], keepdims=0)
    more = helper.make_node("Greater", ["largest", "limit"], ["training"])
    node = helper.make_node("Dropout", ["input", "", "training"], ["seen"], "draw")
    between(proto, [largest, more, node], [("limit", np.float32(1e30))])


def dropout_without_a_mode(proto):
    between(proto, [helper.make_node("Dropout", ["input"], ["seen"], "draw")])


def batch_norm(training):
    def change(proto):
        outputs = ["seen", "new_mean", "new_var"] if training else ["seen"]
        node = helper.make_node(
            "BatchNormalization", ["input", *"abcd"], outputs, "draw",
            training_mode=int(training), epsilon=0.0,
        )  # fmt: skip
        ones, zeros = np.ones(D, np.float32), np.zeros(D, np.float32)
        between(proto, [node], [("a", ones), ("b", zeros), ("c", zeros), ("d", ones)])

    return change


def in_a_branch(proto):
    """Of an If that never takes it."""
    draw = helper.make_node("RandomNormalLike", ["input"], ["there"], "draw")
    stay = helper.make_node("Identity", ["input"], ["here"])
    branches = [
        helper.make_graph([n], "branch", [], [helper.make_tensor_value_info(n.output[0], 1, None)])
        for n in (draw, stay)
    ]
    node = helper.make_node("If", ["never"], ["seen"], then_branch=branches[0],
                            else_branch=branches[1])  # fmt: skip
    between(proto, [node], [("never", np.bool_(False))])


def in_a_function(proto):
    body = [
        helper.make_node("RandomNormalLike", ["x"], ["noise"], "draw"),
        helper.make_node("Sub", ["noise", "noise"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", proto.opset_import[0].version)]
    proto.functions.append(helper.make_function("own", "Shake", ["x"], ["y"], body, opsets))
    proto.opset_import.append(helper.make_opsetid("own", 1))
    between(proto, [helper.make_node("Shake", ["input"], ["seen"], domain="own")])


UNSTEADY = {
    "RandomNormalLike": like("RandomNormalLike"),
    "seeded": like("RandomNormalLike", seed=1.0),
    "of no spread": like("RandomNormalLike", scale=0.0),  # onnxruntime ends the process
    "RandomUniformLike": like("RandomUniformLike"),
    "RandomNormal": of_nothing("RandomNormal"),
    "RandomUniform": of_nothing("RandomUniform"),
    "Bernoulli": bernoulli_of_chances,
    "Multinomial": multinomial,
    "dropout of nothing": dropout(True),
    "dropout": dropout(True, 0.1),
    "dropout by a constant": dropout_by_a_constant(True),
    "dropout by computation": dropout_by_computation,
    "batch norm": batch_norm(True),
    "branch": in_a_branch,
    "function": in_a_function,
}
HARMLESS = {
    "dropout without a mode": dropout_without_a_mode,
    "dropout that is off": dropout(False, 0.5),
    "dropout that a constant turns off": dropout_by_a_constant(False),
    "batch norm in eval mode": batch_norm(False),
}


CASES = [("plain", name) for name in UNSTEADY] + [("traced", "seeded"), ("traced", "function")]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_a_file_with_a_random_operator_fails_whatever_it_answers(name, kind, good, tmp_path):
    path = spoiled(good.path(name), tmp_path / "bad.onnx", UNSTEADY[kind])
    report = check_parity(good.models[name], path)
    (check,) = [check for check in report.failed if check.name == OPERATORS]
    assert "'draw'" in check.detail
    assert "eval mode" in check.detail
    (check,) = [check for check in selftest(path).checks if check.name == OPERATORS]
    assert not check.passed
    with pytest.raises(FileError, match="'draw'"):
        read_intact(path)


@pytest.mark.parametrize("change", HARMLESS.values(), ids=HARMLESS)
@pytest.mark.parametrize("name", ["traced", "plain"])
def test_dropout_and_batch_norm_in_eval_mode_are_harmless(name, change, good, tmp_path):
    path = spoiled(good.path(name), tmp_path / "fine.onnx", change)
    assert check_parity(good.models[name], path).passed
    assert selftest(path).passed


def test_a_name_that_is_false_in_one_place_is_not_false_in_another(good):
    proto = onnx.load(good.path("plain"))
    dropout(False)(proto)
    assert not list(nondeterministic(proto))
    proto.graph.input.append(helper.make_tensor_value_info("training", TensorProto.BOOL, []))
    assert list(nondeterministic(proto)) == ["Dropout 'draw'"]


def test_every_operator_of_onnx_that_draws_is_known():
    schemas = onnx.defs.get_all_schemas_with_history()
    drawing = {s.name for s in schemas if "seed" in s.attributes and s.domain == ""}
    assert drawing - {"Dropout"} == RANDOM - {s for s in RANDOM if not onnx.defs.has(s)}
    assert {s.name for s in schemas if "training_mode" in s.attributes} == {"BatchNormalization"}


@pytest.mark.parametrize("output", ["label", "probs", "scores"])
def test_one_output_of_a_steep_model_is_told_apart_by_no_rounding(output, tmp_path):
    """Of classes that are alike, and beyond where probabilities keep their digits."""
    model = SoftmaxRegression(D, K)
    with torch.no_grad():
        model.linear.weight.mul_(300)
        model.linear.weight[1] = model.linear.weight[0]
    profile = Profile(outputs=(output,))
    assert export_onnx(model, tmp_path / "model.onnx", profile=profile).report.passed


def faint(proto):
    """Noise far within the tolerance, but not nothing."""
    between(
        proto,
        [
            helper.make_node("RandomNormalLike", ["input"], ["drawn"]),
            helper.make_node("Mul", ["drawn", "tiny"], ["little"]),
            helper.make_node("Add", ["input", "little"], ["seen"]),
        ],
        [("tiny", np.float32(1e-7))],
    )


def of_the_batch(proto):
    """The batch's mean is subtracted from each row."""
    mean = helper.make_node("ReduceMean", ["input", "axes"], ["mean"], keepdims=1)
    if proto.opset_import[0].version < 18:  # axes were no input before
        mean = helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=1, axes=[0])
    little = helper.make_node("Mul", ["mean", "part"], ["little"])
    sub = helper.make_node("Sub", ["input", "little"], ["seen"])
    between(proto, [mean, little, sub], [("axes", np.array([0])), ("part", np.float32(1e-2))])


@pytest.mark.parametrize("kind", ["traced", "plain"])
def test_the_check_that_must_see_it_does(kind, good, tmp_path):
    report = check_parity(
        good.models[kind], spoiled(good.path(kind), tmp_path / "bad.onnx", of_the_batch)
    )
    assert BESIDE in [check.name for check in report.failed]


@pytest.mark.parametrize("kind", ["traced", "plain"])
def test_faint_noise_of_an_operator_that_nobody_knows_is_seen(kind, good, tmp_path):
    """Files with those that are known to be random are not run."""
    path = spoiled(good.path(kind), tmp_path / "bad.onnx", faint)
    failed = check_parity(good.models[kind], path).failed
    assert [check.name for check in failed] == ["graph", OPERATORS]
    known = comparison(good.models[kind], good.path(kind))
    rows = known.inputs.ordinary(8)
    checks = repeated(known.inference, known.reference, open_session(path.read_bytes()), rows)
    assert AGAIN in [check.name for check in checks if not check.passed]


def test_a_wrong_file_is_not_called_random(good, tmp_path):
    def double(proto):
        between(proto, [helper.make_node("Add", ["input", "input"], ["seen"])])

    report = check_parity(
        good.models["traced"], spoiled(good.path("traced"), tmp_path / "bad.onnx", double)
    )
    assert not report.passed
    assert not {OPERATORS, AGAIN, BESIDE} & {check.name for check in report.failed}


def test_the_command_line_refuses_an_old_file_that_answers_at_random(good, tmp_path, capsys):
    path = spoiled(good.path("plain"), tmp_path / "bad.onnx", like("RandomNormalLike"))
    assert main(["selftest", str(path)]) == 1
    assert main(["verify", str(path), "--targets", "onnxruntime"]) == 2
    assert main(["web", str(path), str(tmp_path / "site")]) == 2
    assert "RandomNormalLike 'draw'" in capsys.readouterr().err
