"""No correct file is refused: random models of all sizes, scales, parameter types and profiles."""

import pytest
from good_models import good_model
from sampled import sampled

from smx_export import export_onnx

pytestmark = pytest.mark.usefixtures("one_thread")
SEEDS = 64  # the first 1000 were tried once


@pytest.mark.parametrize("seed", sampled(range(SEEDS), every=16))
def test_a_good_model_is_exported_in_any_profile(seed, tmp_path):
    model, profile, data = good_model(seed)
    report = export_onnx(model, tmp_path / "model.onnx", profile=profile, data=data).report
    assert report.passed
    assert report.rows > 1000
