"""Composition: softmax regression as the head of a module of your own, trained along with it.

The host feeds the head, so the host says what the head's statistics are of; ``objective`` is the
head's whole loss, and counts in its metrics. Host and head are exported as one verified file.
"""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from smx_export import export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule


class Encoder(LightningModule):
    """A small network with a standardised, regularised softmax regression on top."""

    def __init__(self, class_names: list[str]) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Tanh())
        self.head = SoftmaxRegression(
            32, len(class_names), class_names=class_names, preprocessing="standardize", l2=1e-3
        )

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 8, 8) → log-probabilities (batch, classes)."""
        return torch.as_tensor(self.head(self.body(x)))

    def on_fit_start(self) -> None:
        """Tell the head, once, what it will see."""
        rows = self.trainer.datamodule.splits.train  # type: ignore[attr-defined]
        with torch.no_grad():
            self.head.fit_statistics([(self.body(rows.x.to(self.device)), rows.y)])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """The head's loss is the whole network's."""
        x, y = batch
        return self.head.objective(self.body(x), y)

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Counted in the head's metrics, which are logged as ``head/val/…``."""
        self.training_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Of the body and the head."""
        return torch.optim.Adam(self.parameters(), lr=0.01)


if __name__ == "__main__":
    torch.manual_seed(0)
    data = DigitsDataModule()
    model = Encoder(data.class_names)
    trainer = Trainer(max_epochs=10, logger=False)
    trainer.fit(model, data)
    print({name: round(float(value), 4) for name, value in trainer.callback_metrics.items()})
    test = data.splits.test
    export = export_onnx(
        model, "encoder.onnx", head="head", input_shape=(8, 8), data=(test.x, test.y)
    )
    print(export.report)
