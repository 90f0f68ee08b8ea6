"""Batches of every ordinary kind, through ``unpack``: each trains as the plain pair (x, y) does."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_export import OnnxExport
from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.data import BatchLoader, Rows
from smx_lightning.optim import ExactSolver, minimise
from smx_lightning.training.batches import unpacked

N, D, K = 48, 4, 3
rng = np.random.default_rng(0)
X = torch.from_numpy(rng.normal(100, 20, (N, D)).astype(np.float32))
Y = torch.from_numpy(np.argmax(X[:, :K].numpy() + rng.normal(0, 5, (N, K)), 1))
INTEGERS = [
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
]


@dataclass
class Sample:
    path: int
    target: torch.Tensor
    features: torch.Tensor


Named = namedtuple("Named", ["labels", "pixel_values"])
Placed = namedtuple("Placed", ["first", "second", "third"])
# From inputs and labels to a batch.
KINDS = {
    "list": lambda x, y: [x, y],
    "more": lambda x, y: (x, y, torch.zeros(len(x)), "path"),
    "dict": lambda x, y: {"y": y, "x": x},
    "more in a dict": lambda x, y: {"input": x, "label": y, "index": 3, "weights": y},
    "Hugging Face": lambda x, y: OrderedDict(labels=y, pixel_values=x),
    "image": lambda x, y: {"image": x, "label": y},
    "dataclass": lambda x, y: Sample(3, y, x),
    "namedtuple": lambda x, y: Named(y, x),
    "namedtuple by place": lambda x, y: Placed(x, y, y),
    "labels of one column": lambda x, y: (x, y[:, None]),
    **{str(d): partial(lambda d, x, y: (x, y.to(d)), d) for d in INTEGERS},
}


def loader(make, x=X, y=Y, size=16):
    """Batches made of the rows in order."""
    return DataLoader(
        [*zip(x, y, strict=True)],
        batch_size=size,
        collate_fn=lambda rows: make(*map(torch.stack, zip(*rows, strict=True))),
    )


def made(kind=SoftmaxRegression, **kwargs):
    torch.manual_seed(1)
    given = {"preprocessing": "standardize", "class_weight": "balanced", "l2": 1e-3}
    return kind(D, K, **(given | kwargs))


def run(make, tmp_path, model=None, **kwargs):
    """All that training and evaluation leave behind."""
    model = made(**kwargs) if model is None else model
    order, onnx = PredictionsInOrder(), OnnxExport(str(tmp_path / "model.onnx"))
    trainer = quiet_trainer(max_epochs=2, callbacks=[order, onnx])
    trainer.fit(model, loader(make), loader(make, X[:20], Y[:20]))
    found = {**model.state_dict(), **trainer.callback_metrics}
    trainer.test(model, loader(make), verbose=False)
    found |= trainer.callback_metrics
    trainer.predict(model, loader(make), return_predictions=False)
    assert onnx.export.report.passed
    return found | {
        "confusion": model.confusion_matrix,
        "probs": order.prediction.probs,
        "rows compared": torch.tensor(onnx.export.report.task.rows),
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(lambda x, y: (x, y), tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_each_kind_trains_tests_and_exports_as_a_pair_does(kind, plain, tmp_path):
    assert_same(run(KINDS[kind], tmp_path), plain)
