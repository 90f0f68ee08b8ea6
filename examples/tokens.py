"""Token ids: an embedding in front of softmax regression, trained, exported and asked.

The texts are made: each class has words of its own that its texts hold more often than others.
"""

import numpy as np
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from smx_export import OnnxClassifier, export_onnx
from smx_lightning import SoftmaxRegression
from smx_lightning.data import BatchLoader

VOCABULARY, LENGTH, CLASSES, DIM = 1000, 16, 4, 32


class TokenProbe(SoftmaxRegression):
    """Softmax regression on the mean of the tokens' embeddings."""

    def __init__(self, dim: int = DIM) -> None:
        super().__init__(
            dim,
            CLASSES,
            input_shape=(LENGTH,),
            input_dtype="int64",
            input_range=(0, VOCABULARY - 1),
        )
        self.words = nn.Embedding(VOCABULARY, dim)

    def features(self, x: Tensor) -> Tensor:
        """Token ids (batch, 16) → (batch, dim)."""
        return torch.as_tensor(self.words(x).mean(1))


def texts(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Token ids (rows, 16) int64, of which a third are words of the class; labels (rows,)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, CLASSES, rows)
    ids = rng.integers(0, VOCABULARY, (rows, LENGTH))
    own = 50 * y[:, None] + rng.integers(0, 50, (rows, LENGTH))
    ids = np.where(rng.random((rows, LENGTH)) < 1 / 3, own, ids)
    return torch.from_numpy(ids), torch.from_numpy(y)


if __name__ == "__main__":
    torch.manual_seed(0)
    train, test = texts(4000, seed=0), texts(1000, seed=1)
    model = TokenProbe()
    trainer = Trainer(max_epochs=5, logger=False, enable_checkpointing=False)
    trainer.fit(model, BatchLoader(TensorDataset(*train), batch_size=64, shuffle=True))
    trainer.test(model, BatchLoader(TensorDataset(*test), batch_size=1000))
    print(export_onnx(model, "tokens.onnx", data=test).report)
    print(OnnxClassifier("tokens.onnx").predict(test[0][:5].numpy()))
