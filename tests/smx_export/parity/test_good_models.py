"""No correct file is refused: random models of all sizes, scales, parameter types and profiles."""

import pytest
from good_models import good_model
from mutations.editing import corrupted
from mutations.models import linear
from mutations.softmax import log_of_the_softmax
from mutations.table import NOT_FINITE
from sampled import sampled

from smx_export import check_parity, export_onnx
from smx_export.graph.inference_copy import is_linear
from smx_export.parity.inputs import ParityInputs

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = 64  # 1000 were tried once: one was refused, rightly, as float16 holds no 6e5


@pytest.fixture
def ask(monkeypatch):
    """Ask all questions, or the few of a proven graph, whatever is known of the graph."""
    probes = ParityInputs.probes

    def chosen(proven):
        monkeypatch.setattr(ParityInputs, "probes", lambda self, **_: probes(self, proven=proven))

    return chosen


def exported(seed, folder):
    model, profile, data = good_model(seed)
    return model, export_onnx(model, folder / "model.onnx", profile=profile, data=data).report


@pytest.mark.parametrize("seed", sampled(range(SEEDS), every=16))
def test_a_good_model_is_exported_in_any_profile(seed, tmp_path, ask):
    ask(proven=False)
    _, report = exported(seed, tmp_path)
    assert report.passed
    assert report.rows > 500


@pytest.mark.parametrize("seed", sampled(range(SEEDS), every=6))
def test_of_a_proven_graph_little_is_asked(seed, tmp_path, ask):
    ask(proven=True)
    model, report = exported(seed, tmp_path)
    assert report.passed
    assert report.rows < 200 or not is_linear(model)


def test_of_a_proven_graph_a_runtime_s_softmax_is_still_judged(tmp_path, ask):
    """As if the runtime computed log(softmax), which the graph would not show."""
    ask(proven=True)
    model = linear(20, 4)
    path = corrupted(export_onnx(model, tmp_path / "m.onnx").path, log_of_the_softmax, tmp_path)
    assert NOT_FINITE in [check.name for check in check_parity(model, path).failed]
