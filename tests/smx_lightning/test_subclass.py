"""Each small method a subclass may override, and that everything else goes on working."""

import pytest
import torch
from tools import ROOT
from torch import nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassF1Score

from smx_export import export_onnx
from smx_export.runtime import OnnxClassifier
from smx_lightning import SoftmaxRegression


class Backbone(SoftmaxRegression):
    """A frozen convolution with batch norm and dropout in front."""

    def __init__(self, num_classes: int, **kwargs):
        super().__init__(6, num_classes, **kwargs)
        self.backbone = nn.Sequential(
            nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(2)
        )
        self.backbone.requires_grad_(False).eval()

    def features(self, x):
        return self.backbone(x[:, None]).mean(2)


class Smoothed(SoftmaxRegression):
    def loss(self, log_probs, y):
        return nn.functional.cross_entropy(log_probs, y, label_smoothing=0.1)


class Scored(SoftmaxRegression):
    def configure_metrics(self, stage):
        return MetricCollection({f"{stage}/f1": MulticlassF1Score(self.num_classes)})


class Descending(SoftmaxRegression):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class WithForward(SoftmaxRegression):
    """Redefines forward: nothing about its structure may be assumed."""

    def forward(self, x):
        return self.smx(2 * self.preprocessing(x.flatten(1)))


def backbone():
    return Backbone(10, input_shape=(8, 8), preprocessing="standardize")


def plain(kind):
    return lambda: kind(64, 10, input_shape=(8, 8), preprocessing="standardize")


@pytest.mark.parametrize(
    "make",
    [backbone, plain(Smoothed), plain(Scored), plain(Descending), plain(WithForward)],
    ids=["features", "loss", "metrics", "optimizer", "forward"],
)
def test_a_subclass_trains_logs_and_exports(make, digits, quiet_trainer, tmp_path):
    model = make()
    trainer = quiet_trainer(max_epochs=1)
    trainer.fit(model, digits)
    (logged,) = trainer.test(model, digits, verbose=False)
    assert logged
    rows = digits.splits.test
    export = export_onnx(model, tmp_path / "model.onnx", data=(rows.x, rows.y))
    assert export.report.passed
    assert export.report.task.rows == len(rows)
    probs = OnnxClassifier(export.path).predict_proba(rows.x.numpy())
    model.eval()
    torch.testing.assert_close(torch.from_numpy(probs), model(rows.x).exp(), rtol=1e-4, atol=1e-5)


def test_only_what_requires_gradients_is_trained(digits, quiet_trainer):
    model = backbone()
    before = {name: p.clone() for name, p in model.backbone.state_dict().items()}
    weight = model.linear.weight.clone()
    quiet_trainer().fit(model, digits)
    for name, value in model.backbone.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not torch.equal(model.linear.weight, weight)


def test_standardisation_is_fitted_on_the_backbone_s_features(digits, quiet_trainer):
    model = backbone()
    quiet_trainer().fit(model, digits)
    features = model.features(digits.splits.train.x).double()
    torch.testing.assert_close(model.preprocessing.mean.double(), features.mean(0))


def test_loss_of_a_subclass_is_the_one_that_is_minimised(digits, quiet_trainer):
    model = plain(Smoothed)()
    log_probs, y = torch.randn(4, 10).log_softmax(1), torch.tensor([0, 1, 2, 3])
    assert model.loss(log_probs, y) != SoftmaxRegression.loss(model, log_probs, y)


def test_metrics_of_a_subclass_are_logged_under_their_names(digits, quiet_trainer):
    trainer = quiet_trainer()
    trainer.fit(plain(Scored)(), digits)
    assert {"train/f1", "val/f1"} == set(trainer.callback_metrics)


@pytest.mark.whole
def test_traced_file_holds_no_source_path_and_no_side_file(tmp_path):
    path = export_onnx(backbone(), tmp_path / "model.onnx").path
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    content = path.read_bytes()
    assert str(ROOT).encode() not in content
    assert b".py" not in content


@pytest.mark.whole
def test_tracing_leaves_the_model_as_it_was(tmp_path):
    model = backbone()
    model.preprocessing.mean.fill_(0.5)
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export_onnx(model, tmp_path / "model.onnx")
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
