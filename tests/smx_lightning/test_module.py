import numpy as np
import pytest
import references
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Trainer
from sampled import examples
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from smx_lightning import Prediction, SoftmaxRegression
from smx_lightning.checkpoint import read_checkpoint


def fit_exactly(model, x, y):
    """Full-batch L-BFGS in float64, to the last digit: the tests' own optimiser."""
    model.double()
    x, y = torch.as_tensor(x), torch.as_tensor(y)
    optimizer = torch.optim.LBFGS(
        model.smx.parameters(),
        max_iter=2000,
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def closure():
        optimizer.zero_grad()
        loss = model.loss(model(x), y) + model.penalty()
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


def test_smx_is_exactly_the_lecture_s_sequential():
    model = SoftmaxRegression(5, 3)
    lecture = nn.Sequential(nn.Linear(5, 3), nn.LogSoftmax(dim=1))
    assert [type(layer) for layer in model.smx] == [type(layer) for layer in lecture]
    assert model.smx[1].dim == 1
    model.smx.load_state_dict(lecture.state_dict())
    x = torch.randn(7, 5)
    torch.testing.assert_close(model(x), lecture(x), rtol=0, atol=0)


@given(
    rows=st.integers(1, 5),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    classes=st.integers(2, 6),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
@settings(max_examples=examples(40))
def test_inputs_of_any_shape_are_unrolled_into_log_probabilities(rows, shape, classes, scale):
    d = int(np.prod(shape))
    model = SoftmaxRegression(d, classes, input_shape=shape).double()
    x = scale * torch.randn(rows, *shape, dtype=torch.float64)
    logits = x.reshape(rows, d) @ model.linear.weight.T + model.linear.bias
    expected = references.log_softmax(logits.detach())
    np.testing.assert_allclose(model(x).detach(), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.float16, torch.float64])
def test_pixels_may_come_in_any_dtype(dtype):
    model = SoftmaxRegression(4, 3)
    x = torch.randint(0, 255, (2, 4))
    torch.testing.assert_close(model(x.to(dtype)), model(x.float()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_probabilities_are_correct_for_huge_logits_in_every_precision(dtype):
    model = SoftmaxRegression(2, 3)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[256.0, 0], [0, 256.0], [-256.0, 0]]))
        model.linear.bias.zero_()
    model.to(dtype)
    # Logits up to 256 · 512 = 131072, twice what float16 can hold.
    x = torch.tensor([[512.0, 0.0], [1.0, 1.0], [0.0, -512.0]], dtype=dtype)
    log_probs = model(x)
    assert log_probs.dtype == torch.promote_types(dtype, torch.float32)
    logits = x.double() @ model.linear.weight.double().T
    np.testing.assert_allclose(
        log_probs.detach(), references.log_softmax(logits.detach()), rtol=1e-5, atol=1e-5
    )
    torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(3, dtype=log_probs.dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_leaves_the_head_in_float32(dtype):
    model = SoftmaxRegression(300, 4)
    x = 100 * torch.randn(8, 300)
    with torch.autocast("cpu", dtype=dtype):
        mixed = model(x)
    torch.testing.assert_close(mixed, model(x), rtol=0, atol=0)


@pytest.mark.parametrize("weights", [[1.0, 4.0], [0.3, 1.1]])  # float32 can't hold the latter
def test_objective_is_mean_nll_plus_half_l2_without_the_bias(weights, two_blobs):
    x, y = two_blobs
    model = SoftmaxRegression(5, 2, l2=0.3, class_weight=weights).double()
    weight, bias = (p.detach().numpy() for p in model.linear.parameters())
    value = model.loss(model(torch.tensor(x)), torch.tensor(y)) + model.penalty()
    expected = references.objective(weight, bias, x, y, l2=0.3, class_weight=weights)
    assert value.item() == pytest.approx(expected, rel=1e-12)


def test_balanced_weights_have_the_digits_of_the_scores():
    model = SoftmaxRegression(1, 3, class_weight="balanced")
    model.fit_statistics([(torch.zeros(10, 1), torch.tensor([0] + [1] * 3 + [2] * 6))])
    found = model.class_weights_for(torch.zeros(1, dtype=torch.float64))
    assert found.tolist() == pytest.approx([10 / 3, 10 / 9, 10 / 18], rel=1e-15)


def test_gradient_of_the_objective_passes_gradcheck():
    model = SoftmaxRegression(3, 4, l2=0.1).double()
    x, y = torch.randn(5, 3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0])

    def objective(weight, bias):
        log_probs = torch.func.functional_call(
            model, {"smx.0.weight": weight, "smx.0.bias": bias}, x
        )
        return model.loss(log_probs, y)

    assert torch.autograd.gradcheck(objective, tuple(model.linear.parameters()))


def test_two_perceptrons_and_softmax_are_logistic_regression():
    """Binary softmax with l2 is logistic regression with weight w₁ - w₀.

    At the optimum w₁ = -w₀, so ‖W‖² is half of ‖w₁ - w₀‖², and l2 = 2 / (C · n).
    """
    x, y = load_breast_cancer(return_X_y=True)
    x = StandardScaler().fit_transform(x)
    judge = LogisticRegression(C=1.0, tol=1e-12, max_iter=10000).fit(x, y)
    model = fit_exactly(SoftmaxRegression(30, 2, l2=2 / len(x)), x, y)
    w, b = (p.detach().numpy() for p in model.linear.parameters())
    np.testing.assert_allclose(w[1] - w[0], judge.coef_[0], atol=1e-5)
    np.testing.assert_allclose(b[1] - b[0], judge.intercept_[0], atol=1e-5)
    probs = model(torch.tensor(x)).exp().detach()
    np.testing.assert_allclose(probs, judge.predict_proba(x), atol=1e-6)


@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_multinomial_optimum_is_scikit_learn_s(class_weight, digits):
    x = digits.splits.test.x.flatten(1).double() / 16
    y = digits.splits.test.y
    judge = LogisticRegression(C=1.0, class_weight=class_weight, tol=1e-10, max_iter=5000)
    judge.fit(x, y)
    model = SoftmaxRegression(64, 10, l2=1 / len(x), class_weight=class_weight)
    model.class_counts.copy_(torch.bincount(y))
    fit_exactly(model, x, y)
    np.testing.assert_allclose(model.linear.weight.detach(), judge.coef_, atol=1e-4)


def test_threshold_moves_the_decision_and_not_the_probabilities():
    model = SoftmaxRegression(1, 2, threshold=0.2)
    plain = SoftmaxRegression(1, 2)
    plain.load_state_dict(model.state_dict())
    x = torch.linspace(-20, 20, 101)[:, None]
    label, probs = model.predict_step(x, 0)
    torch.testing.assert_close(probs, plain.predict_step(x, 0).probs)
    torch.testing.assert_close(label, (probs[:, 1] >= 0.2).long())
    assert (label != plain.predict_step(x, 0).label).any()


def test_dict_of_class_weights_goes_by_name():
    model = SoftmaxRegression(2, 3, class_names=["a", "b", "c"], class_weight={"c": 7})
    assert model.class_weight == [1.0, 1.0, 7.0]


def test_balanced_weights_are_counted_on_the_training_data(quiet_trainer):
    x, y = torch.randn(40, 3), torch.tensor([0] * 30 + [1] * 10)
    model = SoftmaxRegression(3, 2, class_weight="balanced")
    quiet_trainer().fit(model, DataLoader(TensorDataset(x, y), batch_size=7))
    assert model.class_counts.tolist() == [30, 10]
    torch.testing.assert_close(model.class_weights_for(x), torch.tensor([40 / 60, 40 / 20]))


def test_optimizer_and_scheduler_are_injected_as_callables(quiet_trainer):
    model = SoftmaxRegression(
        3,
        2,
        optimizer=lambda params: torch.optim.SGD(params, lr=0.5),
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1),
    )
    trainer = quiet_trainer(max_epochs=2)
    rows = TensorDataset(torch.randn(8, 3), torch.tensor([0, 1] * 4))
    trainer.fit(model, DataLoader(rows, batch_size=4))
    (optimizer,) = trainer.optimizers
    assert isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.5 * 0.1**2)


def test_reduce_on_plateau_gets_its_monitor(quiet_trainer):
    from lightning.pytorch.cli import ReduceLROnPlateau

    model = SoftmaxRegression(
        3, 2, lr_scheduler=lambda optimizer: ReduceLROnPlateau(optimizer, monitor="train/nll")
    )
    rows = TensorDataset(torch.randn(8, 3), torch.tensor([0, 1] * 4))
    quiet_trainer().fit(model, DataLoader(rows, batch_size=4))
    assert model.configure_optimizers()["lr_scheduler"]["monitor"] == "train/nll"


def test_logged_metrics_equal_their_references(trained, digits):
    """All metrics of the test split against plain numpy, through the Trainer."""
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    (logged,) = trainer.test(trained, digits, verbose=False)
    rows = digits.splits.test
    probs = trained(rows.x).exp().detach().double().numpy()
    y = rows.y.numpy()
    recalls = [(probs.argmax(1)[y == k] == k).mean() for k in range(10)]
    top5 = [label in np.argsort(p)[-5:] for p, label in zip(probs, y, strict=True)]
    expected = {
        "test/accuracy_micro": (probs.argmax(1) == y).mean(),
        "test/accuracy_macro": np.mean(recalls),
        "test/top_5_accuracy": np.mean(top5),
        "test/nll": references.nll(probs, y),
        "test/brier": references.brier(probs, y),
        "test/ece": references.expected_calibration_error(probs, y),
    }
    assert logged == pytest.approx(expected, rel=1e-5, abs=1e-6)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (y, probs.argmax(1)), 1)
    np.testing.assert_array_equal(trained.confusion_matrix, counts)


@pytest.mark.whole
def test_very_many_classes_need_no_square_of_them(quiet_trainer):
    model = SoftmaxRegression(2, 200_000)
    rows = TensorDataset(torch.randn(6, 2), torch.arange(6) * 39_999)
    quiet_trainer().test(model, DataLoader(rows, batch_size=3), verbose=False)
    assert model.confusion_matrix is None


def test_predictions_are_named_tuples_in_input_order(trained, digits):
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
    )
    batches = [Prediction(*batch) for batch in trainer.predict(trained, digits)]
    probs = torch.cat([batch.probs for batch in batches])
    torch.testing.assert_close(probs, trained(digits.all_inputs()).exp())
    assert torch.equal(torch.cat([batch.label for batch in batches]), probs.argmax(1))


def test_checkpoint_carries_everything_and_loads_as_plain_data(trained, checkpoint, digits):
    content = read_checkpoint(checkpoint)
    assert content.model_class == "smx_lightning.module.SoftmaxRegression"
    assert content.training["epochs"] == 5
    assert content.training["steps"] == 5 * 5
    assert {"val/nll", "val/accuracy_micro"} <= set(content.training["metrics"])
    loaded = SoftmaxRegression.load_from_checkpoint(checkpoint, weights_only=True)
    assert loaded.class_names == trained.class_names
    assert loaded.preprocessing.method == "standardize"
    x = digits.splits.test.x
    torch.testing.assert_close(loaded(x), trained(x), rtol=0, atol=0)


def test_a_foreign_dataloader_and_no_validation_are_enough(quiet_trainer):
    rows = TensorDataset(torch.randn(20, 2, 2), torch.arange(20) % 3)
    model = SoftmaxRegression(4, 3)
    trainer = quiet_trainer(max_epochs=2)
    trainer.fit(model, DataLoader(rows, batch_size=8))
    assert "train/nll" in trainer.callback_metrics
