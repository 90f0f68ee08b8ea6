"""Profile ``compact`` of a sparse activation: the NLL may be infinite, the loss is not."""

import numpy as np
import onnxruntime
import pytest
import torch
from trainers import quiet_trainer

from smx_export import ParityError, Profile, export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule


@pytest.fixture(scope="module")
def sparse():
    data = DigitsDataModule()
    model = SoftmaxRegression(
        data.num_features, 10, activation="sparsemax", preprocessing="standardize"
    )
    quiet_trainer(max_epochs=15).fit(model, data)
    return model, (data.splits.test.x, data.splits.test.y)


def sparsemax_loss(scores, y):
    """½|s - e_y|² - ½|s - p|², with p the nearest point of the simplex, by sorting."""
    scores = scores.astype(np.float64)
    ordered = -np.sort(-scores, axis=1)
    above = np.cumsum(ordered, axis=1) - 1
    count = (ordered * np.arange(1, scores.shape[1] + 1) > above).sum(1)
    tau = above[np.arange(len(scores)), count - 1] / count
    p = np.maximum(scores - tau[:, None], 0)
    right = np.eye(scores.shape[1])[y]
    return (((scores - right) ** 2).sum(1) - ((scores - p) ** 2).sum(1)).mean() / 2


@pytest.mark.parametrize("width", ["int8", "float16"])
def test_the_budget_is_one_of_the_loss(width, sparse, tmp_path):
    model, (x, y) = sparse
    assert np.isinf(model(x).detach().numpy()[np.arange(len(y)), y]).any()  # so is the NLL
    profile = Profile(weights=width, outputs=("scores", "log_probs", "probs"))
    exported = export_onnx(model, tmp_path / "m.onnx", profile=profile, data=(x, y))
    cost = exported.report.rounding
    session = onnxruntime.InferenceSession(exported.path)
    (scores,) = session.run(["scores"], {"input": x.flatten(1).numpy()})
    before = sparsemax_loss(model.scores(x).detach().numpy(), y.numpy())
    assert cost.nll_before == pytest.approx(before, rel=1e-5)
    assert cost.nll == pytest.approx(sparsemax_loss(scores, y.numpy()), rel=1e-5)
    assert abs(cost.nll - cost.nll_before) < 0.01


def test_a_loss_beyond_the_budget_is_refused(tmp_path):
    model = SoftmaxRegression(1, 2, activation="sparsemax")
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[1.0], [0.4 / 127]]))  # as int8 127 and 0
        model.linear.bias.zero_()
    # ½(101² + z²) - ½(100² + (z - 1)²) = 100 + z: z is -100 · 0.4 / 127, and 0 when rounded.
    profile = Profile(weights="int8", max_nll_increase=0.31)
    data = np.full((4, 1), -100, np.float32), np.zeros(4, np.int64)
    with pytest.raises(ParityError, match=r"loss after rounding: 99.6850 → 100.0000, 0.31 allowed"):
        export_onnx(model, tmp_path / "m.onnx", profile=profile, data=data)
    profile = Profile(weights="int8", max_nll_increase=0.32)
    export_onnx(model, tmp_path / "m.onnx", profile=profile, data=data)
