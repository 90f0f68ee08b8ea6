"""Counting many batches at a time changes no value, and hides no bad label."""

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.metrics.stages import evaluation_metrics
from smx_lightning.metrics.tally import Tally


@pytest.mark.parametrize("entries", [1, 100, 2**20])
def test_values_are_those_of_updates_batch_by_batch(entries, monkeypatch):
    monkeypatch.setattr("smx_lightning.metrics.tally.ENTRIES", entries)
    log_probs, y = torch.randn(90, 7).log_softmax(1), torch.randint(7, (90,))
    slowly = evaluation_metrics(7, prefix="val/")
    tally = Tally(evaluation_metrics(7, prefix="val/"), 7, "val batches")
    for _ in range(2):  # the second time proves that the first left nothing behind
        slowly.reset()
        for rows, labels in zip(log_probs.split(16), y.split(16), strict=True):
            slowly.update(rows, labels)
            tally.add(rows, labels)
        values = tally.compute()
        for name, value in slowly.compute().items():
            torch.testing.assert_close(values[name], value)


@pytest.mark.parametrize("label", [-100, -2, 3])
def test_a_label_out_of_range_is_named_wherever_it_is(label, quiet_trainer):
    """Torch skips -100 in silence, and is terse about the others."""
    y = torch.tensor([0, 1, 2, label, 0, 1])
    loader = DataLoader(TensorDataset(torch.randn(6, 4), y), batch_size=2)
    with pytest.raises(InputError, match=rf"0\.\.2, got {label} in the train batches"):
        quiet_trainer().fit(SoftmaxRegression(4, 3), loader)
