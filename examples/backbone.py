"""Subclassing: a frozen convolution in front of softmax regression, in one small method.

The backbone here is random, as in a scattering of fixed filters: nothing is downloaded. A
pretrained one goes into its place unchanged.
"""

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn

from smx_export import export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.data import DigitsDataModule


class ConvProbe(SoftmaxRegression):
    """Softmax regression on the features of a frozen convolution of (8, 8) images."""

    def __init__(
        self,
        num_classes: int,
        class_names: list[str] | None = None,
        channels: int = 64,
        l2: float = 1e-4,
    ) -> None:
        super().__init__(
            channels * 9,
            num_classes,
            class_names=class_names,
            input_shape=(8, 8),
            l2=l2,
            preprocessing="standardize",
        )
        self.backbone = nn.Sequential(
            nn.Conv2d(1, channels, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
        )
        self.backbone.requires_grad_(False).eval()

    def features(self, x: Tensor) -> Tensor:
        """Images (batch, 8, 8) → (batch, channels · 3 · 3)."""
        return torch.as_tensor(self.backbone(x[:, None]))


if __name__ == "__main__":
    torch.manual_seed(0)
    data = DigitsDataModule()
    model = ConvProbe(data.num_classes, data.class_names)
    trainer = Trainer(max_epochs=10, logger=False)
    trainer.fit(model, data)
    trainer.test(model, data)
    test = data.splits.test
    print(export_onnx(model, "probe.onnx", data=(test.x, test.y)).report)
