"""The embedded default: 1797 handwritten digits of 8 × 8 pixels."""

from __future__ import annotations

import torch

from smx_lightning.data.base import InMemoryDataModule, Loaded
from smx_lightning.data.loading import Rows


class DigitsDataModule(InMemoryDataModule):
    """scikit-learn's digits: inputs (8, 8) float32 of 0 to 16, ten classes; a quarter is tested.

    Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998 (its test part).

    >>> data = DigitsDataModule()
    >>> data.num_features, data.num_classes, data.input_shape
    (64, 10, (8, 8))
    """

    def load(self) -> Loaded:
        """Read the file that scikit-learn ships."""
        from sklearn.datasets import load_digits  # takes a second: only where digits are used

        digits = load_digits()
        x = torch.from_numpy(digits.images).float()
        y = torch.from_numpy(digits.target).long()
        return Loaded(Rows(x, y), tuple(str(name) for name in digits.target_names))
