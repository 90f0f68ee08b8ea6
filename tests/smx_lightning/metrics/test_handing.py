"""What metrics of a user's own are given: weights they take, and no distributions as labels."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import KLDivergence, Metric, MetricCollection, MinMaxMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score
from torchmetrics.wrappers import BootStrapper, LambdaInputTransformer, Running

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.activations import SOFTMAX, Entmax
from smx_lightning.callbacks import ConfusionCsv
from smx_lightning.metrics import (
    BrierScore,
    MeanFenchelYoungLoss,
    NegativeLogLikelihood,
    evaluation_metrics,
    stage_metrics,
)
from smx_lightning.metrics.tally import Tally

K = 4
LOG_PROBS = torch.randn(30, K, generator=torch.Generator().manual_seed(1)).log_softmax(1)
Y = torch.arange(30) % K
C = torch.arange(30) % 5 / 2  # a fifth are 0
Q = torch.full((30, K), 1 / K)


class Seen(Metric):
    """Keeps what it is given."""

    full_state_update = False

    def __init__(self):
        super().__init__()
        self.add_state("rows", torch.tensor(0), dist_reduce_fx="sum")
        self.given = []

    def update(self, preds, target, **kwargs):
        self.given.append((preds, target, kwargs))
        self.rows += len(target)

    def compute(self):
        return self.rows


class Weighed(Seen):
    """The same, and says that it takes weights."""

    def update(self, preds, target, weight=None):
        super().update(preds, target, weight=weight)


def tally_of(metrics, activation=SOFTMAX):
    return Tally(stage_metrics(metrics, "val"), K, "val batches", activation)


def value_of(metrics, *batch, activation=SOFTMAX):
    """Of the metric "one" of some."""
    tally = tally_of(metrics, activation)
    tally.add(*batch)
    return tally.compute()["val/one"]


def brier(y=Y, c=C):
    metric = BrierScore()
    metric.update(LOG_PROBS, y, c)
    return float(metric.compute())


def test_a_metric_that_takes_weights_gets_those_above_0():
    tally = tally_of({"one": Weighed()})
    (metric,) = tally.metrics.values()
    tally.add(LOG_PROBS[:20], Y[:20], C[:20])
    tally.add(LOG_PROBS[20:], Y[20:], C[20:].double())
    tally.flush()
    ((preds, target, kwargs),) = metric.given
    assert torch.equal(preds, LOG_PROBS[C > 0])
    assert torch.equal(target, Y[C > 0])
    assert torch.equal(kwargs["weight"], C[C > 0].double())
    tally.add(LOG_PROBS, Y)
    tally.add(LOG_PROBS, Q)
    tally.flush()
    assert [given[2] for given in metric.given[1:]] == [{"weight": None}] * 2
    assert torch.equal(metric.given[2][1], Q)


@pytest.mark.parametrize(
    "metric",
    [
        lambda: MulticlassF1Score(K, average="macro"),
        lambda: MinMaxMetric(MulticlassAccuracy(K)),
        lambda: MulticlassF1Score(K) - BrierScore(),
        Seen,
    ],
)
def test_others_count_the_rows_of_a_weight_above_0_alike_and_that_is_said_once(metric):
    tally = tally_of({"one": metric(), "two": BrierScore()})
    name = rf"val/one \({type(tally.metrics['val/one']).__name__}\)"
    with pytest.warns(UserWarning, match=f"The val batches have weights, which no .* {name} takes"):
        tally.add(LOG_PROBS, Y, C)
    tally.add(LOG_PROBS, Y, C)
    found = tally.compute()
    expected = tally_of({"one": metric()})
    for _ in range(2):
        expected.add(LOG_PROBS[C > 0], Y[C > 0])
    for key, value in expected.compute().items():
        torch.testing.assert_close(found[key], value)
    assert float(found["val/two"]) == pytest.approx(brier(), rel=1e-6)
    assert all(not given[2] for m in tally.metrics.modules() for given in getattr(m, "given", ()))


def test_wrappers_hand_weights_on_to_what_takes_them():
    assert value_of({"one": BrierScore() * 2}, LOG_PROBS, Y, C) == pytest.approx(2 * brier())
    assert value_of({"one": Running(BrierScore(), 1)}, LOG_PROBS, Y, C) == pytest.approx(brier())
    turned = LambdaInputTransformer(BrierScore(), transform_pred=lambda p: p.roll(1, 0))
    metric = BrierScore()
    metric.update(LOG_PROBS[C > 0].roll(1, 0), Y[C > 0], C[C > 0])
    assert value_of({"one": turned}, LOG_PROBS, Y, C) == pytest.approx(float(metric.compute()))
    tally = tally_of({"best": MinMaxMetric(BrierScore())})
    tally.add(LOG_PROBS, Y, C)
    assert float(tally.compute()["val/raw"]) == pytest.approx(brier())
    torch.manual_seed(0)
    tally = tally_of({"spread": BootStrapper(BrierScore(), num_bootstraps=200)})
    tally.add(LOG_PROBS, Y, C)
    assert float(tally.compute()["val/mean"]) == pytest.approx(brier(), abs=0.05)


class Grouped(MetricCollection):
    """A user's collection, which joins metrics of equal states as torchmetrics does."""


def test_a_collection_of_a_user_s_own_has_weights_where_all_of_it_takes_them():
    both = Grouped({"one": BrierScore(), "two": NegativeLogLikelihood()})
    tally = tally_of(both)
    for _ in range(2):
        tally.add(LOG_PROBS, Y, C)
        tally.flush()
    assert float(tally.compute()["val/one"]) == pytest.approx(brier())
    tally = tally_of(Grouped({"one": BrierScore(), "two": MulticlassF1Score(K)}))
    with pytest.warns(UserWarning, match=r"val/one \(BrierScore\), val/two \(MulticlassF1Score\)"):
        tally.add(LOG_PROBS, Y, C)
    metric = BrierScore()
    metric.update(LOG_PROBS[C > 0], Y[C > 0])
    assert float(tally.compute()["val/one"]) == pytest.approx(float(metric.compute()))


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (lambda: MulticlassF1Score(K), "MulticlassF1Score"),
        (lambda: MulticlassAccuracy(K, validate_args=False), "MulticlassAccuracy"),
        (lambda: MinMaxMetric(MulticlassAccuracy(K)), "MulticlassAccuracy"),
        (lambda: BrierScore() - MulticlassF1Score(K), "MulticlassF1Score"),
    ],
)
@pytest.mark.parametrize("c", [None, C])
def test_distributions_are_refused_where_they_would_be_taken_for_labels(metric, name, c):
    tally = tally_of({"one": metric(), "two": BrierScore()})
    complaint = rf"expected labels in the val batches for val/one \({name}\), got distributions"
    with pytest.raises(InputError, match=complaint):
        tally.add(LOG_PROBS, Q, c)


class OfArgmax(MulticlassF1Score):
    """The remedy."""

    def update(self, preds, target):
        super().update(preds, target.argmax(1))


def test_the_remedy_works_and_metrics_of_distributions_have_them():
    q = torch.softmax(torch.randn(30, K), 1)
    hard = MulticlassF1Score(K)
    hard.update(LOG_PROBS, q.argmax(1))
    assert value_of({"one": OfArgmax(K)}, LOG_PROBS, q) == hard.compute()
    divergence = LambdaInputTransformer(KLDivergence(), transform_pred=torch.exp)
    expected = (LOG_PROBS.exp() * (LOG_PROBS - q.log())).sum(1).mean()
    assert float(value_of({"one": divergence}, LOG_PROBS, q)) == pytest.approx(float(expected))


def test_the_loss_of_a_sparse_member_sees_the_scores_of_the_rows_that_count():
    scores, c = torch.randn(30, K) * 5, C
    found = value_of(
        {"one": MeanFenchelYoungLoss(Entmax(2.0))}, scores, Y, c, activation=Entmax(2.0)
    )
    metric = MeanFenchelYoungLoss(Entmax(2.0))
    metric.update(scores, Y, c)
    assert float(found) == pytest.approx(float(metric.compute()), rel=1e-6)


def test_metrics_of_ours_are_all_weighted():
    for activation in (SOFTMAX, Entmax(2.0)):
        metrics = evaluation_metrics(8, prefix="", activation=activation)
        tally = Tally(metrics, 8, "rows", activation)
        tally.add(torch.zeros(3, 8), torch.arange(3), torch.ones(3))  # warnings are errors
        tally.add(torch.zeros(3, 8), torch.full((3, 8), 1 / 8), torch.ones(3))
        assert len(tally.compute()) == len(metrics)


class Evaluated(SoftmaxRegression):
    """Its rows have weights, and its metrics do not all take them."""

    def configure_metrics(self, stage):
        return {"f1": MulticlassF1Score(K), "brier": BrierScore()}

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        x, y, c = batch
        names = ("val", f"val/dataloader_idx_{dataloader_idx}")
        self._smx_metrics.score(self, x, y, names, c)


def test_it_is_said_once_of_several_loaders(quiet_trainer):
    x = torch.randn(30, 3)
    model = Evaluated(3, K)
    loader = DataLoader(TensorDataset(x, Y, C), batch_size=7)
    trainer = quiet_trainer()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            trainer.validate(model, [loader, loader], verbose=False)
    assert len([one for one in said if "which no update of" in str(one.message)]) == 1
    metric = BrierScore()
    metric.update(model(x), Y, C)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("val/brier", "val/brier/dataloader_idx_1"):
        assert logged[name] == pytest.approx(float(metric.compute()), rel=1e-6)


def test_the_confusion_matrix_of_weights_is_written_to_the_digits_it_has(tmp_path, quiet_trainer):
    class Tested(SoftmaxRegression):
        def test_step(self, batch, batch_idx):
            x, y, c = batch
            self._smx_metrics.score(self, x, y, ("test", "confusion"), c)

    model = Tested(2, 2)
    with torch.no_grad():
        model.linear.weight.copy_(torch.eye(2))
        model.linear.bias.zero_()
    x = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2)
    y, c = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0.1, 0.1, 0.1, 1, 2], dtype=torch.float64)
    target = tmp_path / "confusion.csv"
    loader = DataLoader(TensorDataset(x, y, c), batch_size=2)
    quiet_trainer(callbacks=[ConfusionCsv(str(target))]).test(model, loader, verbose=False)
    assert model.confusion_matrix.dtype == torch.float64
    assert target.read_text().split() == ["label,predicted", "0,predicted", "1", "0,0.3,1", "1,0,2"]
