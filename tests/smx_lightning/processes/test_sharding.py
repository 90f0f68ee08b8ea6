"""Classes over processes: the same numbers, files and complaints as one process has."""

from contextlib import suppress

import numpy as np
import pytest
import sharded_jobs as jobs
import torch
from sampled import sampled, whole
from torch.distributed.tensor import DTensor

from smx_export import export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression
from smx_lightning.processes.sharding import is_sharded, parallel_loss

CASES = {
    "penalty and clipping": {"l2": 0.1, "trainer": {"gradient_clip_val": 0.5}},
    "class weights": {
        "class_weight": [1.0 + k for k in range(11)],
        "preprocessing": "standardize",
    },
    "balanced": {"class_weight": "balanced", "preprocessing": "standardize", "l2": 0.01},
    "frozen backbone": {"kind": "frozen"},
    "own loss": {"kind": "smoothed", "l2": 0.1},
    "weighted rows": {"rows": "weighted", "preprocessing": "standardize", "l2": 0.1},
    "soft rows": {"rows": "soft", "class_weight": "balanced"},
    "ignored rows": {"rows": "ignored", "preprocessing": "standardize"},
    "smoothing": {"label_smoothing": 0.1},
}


@pytest.fixture(scope="module")
def in_one(ranks):
    """``in_full`` in one process, once for each set of arguments."""
    known = {}

    def run(num_classes, **kwargs):
        key = repr((num_classes, sorted(kwargs.items())))
        if key not in known:
            (known[key],) = ranks.run(1, jobs.in_full, num_classes, **kwargs)
        return known[key]

    return run


def options_of(case, num_classes):
    options = dict(CASES[case])
    if isinstance(options.get("class_weight"), list):
        options["class_weight"] = options["class_weight"][:num_classes]
    return options


def assert_same(one, many, *, atol):
    for answer in many:
        for name in ("weight", "bias"):
            np.testing.assert_allclose(answer[name], one[name], rtol=0, atol=atol)
            np.testing.assert_array_equal(answer[name], many[0][name])
        np.testing.assert_allclose(answer["mean"], one["mean"], rtol=0, atol=1e-12)
        assert answer["counts"] == one["counts"]
        assert answer["metrics"] == pytest.approx(one["metrics"], rel=0, abs=2e-6)
        np.testing.assert_array_equal(answer["confusion"], one["confusion"])
    first, *others = many
    assert first["confusion"].sum() == 81
    label, probs = first["prediction"]
    np.testing.assert_array_equal(label, one["prediction"][0])
    np.testing.assert_allclose(probs, one["prediction"][1], rtol=0, atol=max(atol, 1e-12))
    assert all(answer["prediction"] is None for answer in others)


@pytest.mark.parametrize("case", sampled(CASES, every=4))
@pytest.mark.parametrize("num_classes", [whole(10), 11])
def test_two_processes_with_half_the_classes_each_are_as_one(ranks, in_one, num_classes, case):
    options = options_of(case, num_classes)
    many = ranks.run(2, jobs.in_full, num_classes, **options)
    assert [answer["local"] for answer in many] == [-(-num_classes // 2), num_classes // 2]
    assert_same(in_one(num_classes, **options), many, atol=1e-12)


@pytest.mark.whole
def test_float32_too(ranks, in_one):
    options = {"dtype": "float32", "l2": 0.1}
    assert_same(in_one(11, **options), ranks.run(2, jobs.in_full, 11, **options), atol=1e-6)


@pytest.mark.whole  # four processes
@pytest.mark.parametrize("case", ["class weights", "penalty and clipping"])
def test_rows_over_two_and_classes_over_two_are_as_one(ranks, in_one, case):
    """81 rows in batches of 16: of the last one, half of the processes have no row."""
    many = ranks.run(4, jobs.in_full, 11, data_parallel=2, **CASES[case])
    assert_same(in_one(11, **CASES[case]), many, atol=1e-12)


@pytest.mark.whole
def test_predictions_are_in_the_order_of_the_rows(ranks):
    answer, _ = ranks.run(2, jobs.in_full, 11)
    x = jobs.Many(11).all_inputs().numpy()
    logits = x @ answer["weight"].T + answer["bias"]
    probs = np.exp(logits - logits.max(1, keepdims=True))
    probs /= probs.sum(1, keepdims=True)
    np.testing.assert_allclose(answer["prediction"][1], probs, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(answer["prediction"][0], probs.argmax(1))


# Files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def begun(ranks, tmp_path_factory):
    """An epoch of training in two processes and in one: checkpoints, and what was trained."""
    folder = tmp_path_factory.mktemp("begun")
    return {
        n: (f"{folder}/{n}.ckpt", ranks.run(n, jobs.saved, f"{folder}/{n}.ckpt")) for n in (1, 2)
    }


@pytest.mark.whole
def test_the_checkpoint_is_one_plain_file_of_the_whole_model(begun, tmp_path):
    path, (first, second) = begun[2]
    content = torch.load(path, weights_only=True)
    assert content.keys() == torch.load(begun[1][0], weights_only=True).keys()
    model = SoftmaxRegression.load_from_checkpoint(path, weights_only=True)
    for name in ("weight", "bias"):
        np.testing.assert_array_equal(content["state_dict"][f"smx.0.{name}"], first[name])
        loaded = getattr(model.linear, name).detach()
        np.testing.assert_array_equal(loaded, first[name].astype("f4"))
    assert first["metrics"] == second["metrics"] == pytest.approx(begun[1][1][0]["metrics"])
    assert export_onnx(path, tmp_path / "model.onnx").report.passed


@pytest.mark.parametrize(("before", "after"), [whole((1, 2)), (2, 2), (2, 1)])
def test_any_number_of_processes_resumes_what_another_began(ranks, begun, tmp_path, before, after):
    path = f"{tmp_path}/last.ckpt"
    (whole,) = ranks.run(1, jobs.saved, path, epochs=2)
    for answer in ranks.run(after, jobs.saved, path, epochs=2, resume=begun[before][0]):
        assert answer["steps"] == whole["steps"]
        np.testing.assert_allclose(answer["weight"], whole["weight"], rtol=0, atol=1e-12)


@pytest.mark.parametrize("best", [whole(False), True])
def test_the_callback_exports_all_classes(ranks, tmp_path, best):
    first, second = ranks.run(2, jobs.exported, str(tmp_path), best=best)
    assert (first["passed"], second["passed"]) == (True, None)
    weight, bias = first["weight"], first["bias"]
    if best:
        state = torch.load(tmp_path / "worst.ckpt", weights_only=True)["state_dict"]
        assert np.abs(state["smx.0.weight"].numpy() - weight).max() > 1e-3
        weight, bias = state["smx.0.weight"].numpy(), state["smx.0.bias"].numpy()
    x = jobs.Many(11, torch.float32).splits.test.x.numpy()
    logits = x @ weight.T + bias
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    probs = OnnxClassifier(tmp_path / "model.onnx").predict_proba(x)
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-6)


# Complaints --------------------------------------------------------------------------------------

REFUSED = {
    "directories": (2, 11, {"directories": True}, "expected checkpoints of one file"),
    "a trained backbone": (2, 11, {"kind": "backbone"}, "got backbone.weight; freeze it"),
    "fewer classes than processes": (4, 3, {}, "got 3 classes in 4 equal parts"),
    "classes for all but the last": (4, 9, {}, "got 9 classes in 4 equal parts"),
    "the exact solver": (2, 11, {"optimizer": "exact"}, "classes that are spread over processes"),
    "a label too large": (2, 11, {"bad_label": True}, "labels must lie in 0..10, got 11"),
    "another activation": (2, 11, {"activation": "sparsemax"}, "expected activation='softmax' whe"),
    "plain SGD": (2, 11, {"optimizer": "plain sgd"}, "got SGD without momentum"),
}


FOUR = {name for name, (processes, *_) in REFUSED.items() if processes == 4}


@pytest.mark.parametrize("case", sampled(REFUSED, named=REFUSED.keys() - FOUR))
def test_what_does_not_work_is_refused_in_one_sentence(ranks, case):
    processes, num_classes, options, expected = REFUSED[case]
    for complaint, restored in ranks.run(processes, jobs.refused, num_classes, **options):
        assert complaint is not None
        assert expected in complaint
        assert "\n" not in complaint
        assert restored


@pytest.mark.parametrize("case", ["plain SGD", whole("the exact solver")])
def test_what_cannot_be_loaded_is_refused_before(ranks, tmp_path, case):
    _, _, options, expected = REFUSED[case]
    path = f"{tmp_path}/one.ckpt"
    ranks.run(1, jobs.saved, path, **options)
    for complaint, _ in ranks.run(2, jobs.refused, 11, resume=path, **options):
        assert expected in complaint


def test_an_error_leaves_no_parallel_loss_behind():
    handlers = DTensor._op_dispatcher._custom_op_handlers
    before = dict(handlers)
    within = {}
    with suppress(KeyError), parallel_loss(True):
        within |= handlers
        raise KeyError
    assert within != before
    assert handlers == before
    with parallel_loss(False):
        assert handlers == before


def test_without_a_mesh_nothing_is_sharded():
    model = SoftmaxRegression(7, 11)
    before = [(name, id(tensor)) for name, tensor in model.named_parameters()]
    model.configure_model()
    assert [(name, id(tensor)) for name, tensor in model.named_parameters()] == before
    assert not is_sharded(model.smx)
