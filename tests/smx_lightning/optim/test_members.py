"""What a pass takes of softmax, judged by torch's in float64, at scores of any spread."""

import pytest
import torch

from smx_lightning.optim.members import MANY, Softmax

SPREADS = (1.0, 20.0, 60.0, 90.0, 300.0, 1e4)


def scores_of(spread, dtype, rows=None):
    generator = torch.Generator().manual_seed(0)
    rows = rows or MANY // 10 + 1
    return (spread * torch.randn(12, rows, generator=generator, dtype=torch.float64)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [3, MANY // 10 + 1])
@pytest.mark.parametrize("spread", SPREADS)
def test_probabilities_and_their_logarithms(spread, rows, dtype):
    scores = scores_of(spread, dtype, rows)
    at, right = Softmax().at(scores.clone()), scores.double().log_softmax(0)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(at.scores.double(), right, rtol=4 * eps, atol=4 * eps)
    # A logarithm's rounding is its probability's relative one.
    torch.testing.assert_close(at.probs.double(), right.exp(), rtol=4 * eps * 400, atol=1e-18)
    assert not ((at.probs > 0) & (at.probs < torch.finfo(dtype).tiny)).any()
    assert (at.probs.sum(0) - 1).abs().max() <= 16 * eps


@pytest.mark.parametrize("spread", SPREADS)
def test_slopes_along_a_line(spread):
    scores, towards = scores_of(spread, torch.float32), scores_of(1.0, torch.float32).flip(1)
    lengths, kept = torch.tensor([-0.9, -0.5, 0.0, 2.0]), scores.clone()
    room = scores.new_empty(len(lengths), *scores.shape)
    found = Softmax().means(scores, towards, lengths, room)
    there = scores.double() + lengths[:, None, None] * towards.double()
    right = (there.softmax(1) * towards.double()).sum(1)
    torch.testing.assert_close(found.double(), right, rtol=0, atol=1e-6 * max(spread, 1))
    assert torch.equal(scores, kept)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_without_an_answer_is_nan_and_others_are_not(value):
    scores = scores_of(300.0, torch.float32)
    scores[3, 5] = value
    at = Softmax().at(scores)
    missing = at.probs.isnan().any(0)
    assert missing[5]
    assert missing.sum() == 1
