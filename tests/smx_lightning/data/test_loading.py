"""What Lightning is told about a loader's order."""

import warnings

import pytest
import torch

from smx_lightning import SoftmaxRegression
from smx_lightning.data import BatchLoader, Rows


@pytest.mark.parametrize("shuffle", [False, True])
def test_overfitting_says_that_it_stops_shuffling_where_rows_were_shuffled(shuffle, quiet_trainer):
    rows = Rows(torch.randn(12, 4), torch.arange(12) % 3)
    loader = BatchLoader(rows, batch_size=4, shuffle=shuffle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quiet_trainer(max_epochs=1, overfit_batches=2).fit(SoftmaxRegression(4, 3), loader)
    said = ["dataloader shuffling" in str(warning.message) for warning in caught]
    assert any(said) == shuffle


@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_come_in_their_own_order_unless_shuffled(shuffle):
    rows = Rows(torch.arange(64.0)[:, None], torch.arange(64) % 3)
    for loader in (
        BatchLoader(rows, batch_size=10, shuffle=shuffle),
        BatchLoader(torch.utils.data.TensorDataset(rows.x), batch_size=10, shuffle=shuffle),
    ):
        seen = torch.cat([batch[0][:, 0] for batch in loader]).tolist()
        assert sorted(seen) == list(range(64))
        assert (seen == list(range(64))) == (not shuffle)
