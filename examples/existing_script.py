"""An existing Lightning script with its own DataLoaders: the module drops in."""

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from sklearn.datasets import load_wine
from torch.utils.data import DataLoader, TensorDataset, random_split

from smx_export import OnnxExport
from smx_lightning import SoftmaxRegression

wine = load_wine()
dataset = TensorDataset(torch.tensor(wine.data).float(), torch.tensor(wine.target))
train, val = random_split(dataset, [0.75, 0.25], torch.Generator().manual_seed(0))

model = SoftmaxRegression(
    num_features=13,
    num_classes=3,
    class_names=[str(name) for name in wine.target_names],
    class_weight="balanced",
    preprocessing="standardize",
    optimizer=lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9),
)
trainer = Trainer(
    max_epochs=30,
    callbacks=[ModelCheckpoint(monitor="val/nll"), OnnxExport("wine.onnx")],
    logger=False,
)
trainer.fit(model, DataLoader(train, batch_size=32, shuffle=True), DataLoader(val, batch_size=64))
print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()})
