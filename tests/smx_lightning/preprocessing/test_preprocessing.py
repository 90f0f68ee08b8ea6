import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sampled import examples
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smx_lightning import SoftmaxRegression
from smx_lightning.preprocessing.moments import Moments
from smx_lightning.preprocessing.standardization import Preprocessing

rows = hnp.arrays(
    np.float64,
    st.tuples(st.integers(1, 12), st.integers(1, 4)),
    elements=st.floats(-1e6, 1e6, width=32),
)


@given(rows, st.data())
@settings(max_examples=examples(60))
def test_moments_of_any_parts_are_those_of_the_whole(x, data):
    cut = data.draw(st.integers(0, len(x)))
    x = torch.from_numpy(x)
    merged = Moments.of(x[:cut]).merged(Moments.of(x[cut:]))
    whole = Moments.of(x)
    size = float(x.abs().max())
    torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-12, atol=1e-13 * size)
    torch.testing.assert_close(
        merged.deviations, whole.deviations, rtol=1e-10, atol=1e-13 * size**2
    )
    assert torch.equal(merged.magnitude, whole.magnitude)
    assert torch.equal(merged.rounding, whole.rounding)
    again = Moments.unpacked(merged.packed())
    assert again.count == merged.count
    assert torch.equal(again.deviations, merged.deviations)
    assert torch.equal(again.rounding, merged.rounding)


def test_standardisation_is_scikit_learn_s_whatever_the_batch(digits, quiet_trainer):
    x = digits.splits.train.x.flatten(1)
    judge = StandardScaler().fit(x.double())
    for batch_size in (7, 1000):
        model = SoftmaxRegression(64, 10, preprocessing="standardize")
        quiet_trainer().fit(model, DataLoader(digits.splits.train, batch_size))
        np.testing.assert_allclose(model.preprocessing.mean, judge.mean_, rtol=1e-6)
        np.testing.assert_allclose(model.preprocessing.scale, judge.scale_, rtol=1e-6)


def test_scale_divides_by_the_largest_magnitude():
    preprocessing = Preprocessing(2, "scale")
    preprocessing.fit(Moments.of(torch.tensor([[1.0, -8.0], [3.0, 4.0]])))
    torch.testing.assert_close(
        preprocessing(torch.tensor([[4.0, 8.0]])), torch.tensor([[0.5, 1.0]])
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.1])
def test_a_constant_feature_becomes_zero_and_not_noise(value):
    x = torch.full((1000, 1), value)
    preprocessing = Preprocessing(1, "standardize")
    preprocessing.fit(Moments.of(x[:300]).merged(Moments.of(x[300:])))
    assert preprocessing.scale.item() == 1
    assert preprocessing(x).abs().max() < 1e-6


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double"])
def test_statistics_survive_a_cast_of_the_model(cast):
    preprocessing = Preprocessing(1, "standardize")
    preprocessing.mean.fill_(1000.5)
    assert getattr(preprocessing, cast)().mean.item() == 1000.5


@given(
    d=st.integers(1, 20),
    classes=st.integers(2, 5),
    shift=st.floats(-100, 100),
    method=st.sampled_from(["standardize", "scale", "none"]),
)
@settings(max_examples=examples(40))
def test_folding_gives_the_same_layer(d, classes, shift, method):
    x = torch.randn(30, d, dtype=torch.float64) * 3 + shift
    preprocessing, linear = Preprocessing(d, method), nn.Linear(d, classes).double()
    preprocessing.fit(Moments.of(x))
    weight, bias, first = preprocessing.fold(linear)
    torch.testing.assert_close(
        (x if first is None else x - first) @ weight.T + bias,
        linear(preprocessing(x)).detach(),
        rtol=1e-9,
        atol=1e-9 * (1 + abs(shift)),
    )


def test_a_resumed_fit_keeps_its_checkpoint_s_statistics_and_a_new_one_fits_them_anew(
    digits, quiet_trainer, tmp_path
):
    model = SoftmaxRegression(64, 10, preprocessing="standardize")
    trainer = quiet_trainer()
    trainer.fit(model, digits)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    loaded = SoftmaxRegression.load_from_checkpoint(tmp_path / "one.ckpt")
    torch.testing.assert_close(loaded.preprocessing.mean, model.preprocessing.mean)
    x = 100 + torch.rand(20, 64)
    other = DataLoader(TensorDataset(x, torch.arange(20) % 10), batch_size=5)
    resumed = SoftmaxRegression(64, 10, preprocessing="standardize")
    quiet_trainer(max_epochs=2).fit(resumed, other, ckpt_path=tmp_path / "one.ckpt")
    torch.testing.assert_close(resumed.preprocessing.mean, model.preprocessing.mean)
    quiet_trainer().fit(loaded, other)
    torch.testing.assert_close(loaded.preprocessing.mean, x.mean(0))


@pytest.mark.parametrize("value", [3e14, 1e30, -0.1, 1 / 3])
def test_the_weighted_mean_of_what_never_changes_is_that(value):
    rows = torch.full((97, 1), value, dtype=torch.float64)
    weight = torch.rand(97, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.1
    moments = Moments.of(rows[:40], weight[:40]).merged(Moments.of(rows[40:], weight[40:]))
    assert moments.mean.item() == value
    assert moments.deviations.item() == 0
