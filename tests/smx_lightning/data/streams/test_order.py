"""The order of a stream's rows: a pure function of (seed, epoch), the same on all processes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from streamed import UNEVEN, numbers, rows_of, write

from smx_lightning.data.streams.loader import StreamLoader
from smx_lightning.data.streams.order import Pass
from smx_lightning.data.streams.parts import Part, mixed, uniform

N = sum(map(sum, UNEVEN))
PARTS = [Part(), *(Part(name, 0.1, 0.25, 7) for name in ("train", "val", "test"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uneven")
    write(folder)
    return folder


def served(rows, batch_size=32, *, epoch=0, start=0, shuffle=True, **place):
    loader = StreamLoader(rows, batch_size=batch_size, shuffle=shuffle, seed=3, **place)
    loader.sampler.set_epoch(epoch)
    if start:
        loader.load_state_dict({"batches": start})
    return numbers(loader)


def flat(batches):
    return [number for batch in batches for number in batch]


def assert_shuffled_in_windows(order, rows, window):
    """Every window holds the rows of consecutive row groups, which follow one another whole."""
    group = np.repeat(np.arange(len(rows.counts)), rows.counts)
    index = {number: k for k, number in enumerate(flat(served(rows, shuffle=False)))}
    read = []
    for start in range(0, len(order), window):
        positions = [index[number] for number in order[start : start + window]]
        read.append(sorted({int(group[p]) for p in positions}))
        left = {g: sum(group[p] == g for p in positions) for g in read[-1]}
        whole = [g for g in read[-1] if left[g] == rows.counts[g]]
        assert len(read[-1]) - len(whole) <= 2  # the first one and the last may be cut
    assert {*flat(read)} == {*np.flatnonzero(rows.counts).tolist()}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: "all" if part.is_all else part.name)
@pytest.mark.parametrize("batch_size", [1, 8, 50, 64, 1000])
def test_each_row_of_a_part_is_served_once_an_epoch(folder, part, batch_size):
    rows = rows_of(folder, part)
    expected = np.flatnonzero(part.holds(0, N)).tolist()
    assert flat(served(rows, batch_size, shuffle=False)) == expected
    epochs = [flat(served(rows, batch_size, epoch=epoch)) for epoch in range(3)]
    for order in epochs:
        assert sorted(order) == expected
        assert_shuffled_in_windows(order, rows, max(50 // batch_size, 1) * batch_size)
    assert len({tuple(order) for order in [*epochs, expected]}) == 4
    assert epochs[1] == flat(served(rows, batch_size, epoch=1))


def test_an_epoch_s_order_is_what_the_sampler_says(folder):
    rows = rows_of(folder, PARTS[1])
    loader = StreamLoader(rows, batch_size=8, shuffle=True, seed=3)
    expected = np.flatnonzero(rows.part.holds(0, N))
    for epoch in range(3):  # which the loader counts by itself
        indices = loader.sampler.indices()
        shares = [*loader.batch_sampler]
        assert torch.equal(torch.cat(shares), indices)
        assert flat(numbers(loader)) == expected[indices.numpy()].tolist(), epoch


@pytest.mark.parametrize("part", PARTS[:3], ids=["all", "train", "val"])
@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 7, 64, 1000])
def test_processes_have_the_shares_of_the_same_batches(folder, part, batch_size, shuffle):
    rows = rows_of(folder, part)
    one = served(rows, batch_size, shuffle=shuffle, rank=0, world_size=1)
    assert [len(batch) for batch in one[:-1]] == [batch_size] * (len(one) - 1)
    for world_size in (2, 3, 5):
        for rank in range(world_size):
            share = served(rows, batch_size, shuffle=shuffle, rank=rank, world_size=world_size)
            assert share == [batch[rank::world_size] for batch in one]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_an_epoch_goes_on_after_any_of_its_batches(folder, batch_size):
    rows = rows_of(folder, PARTS[1])
    whole = served(rows, batch_size, epoch=2)
    for start in range(1, len(whole), max(len(whole) // 40, 1)):
        assert served(rows, batch_size, epoch=2, start=start) == whole[start:]
        share = served(rows, batch_size, epoch=2, start=start, rank=1, world_size=2)
        assert share == [batch[1::2] for batch in whole[start:]]


@settings(max_examples=200)
@given(
    counts=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    window=st.integers(1, 20),
    seed=st.integers(0, 3),
    shuffle=st.booleans(),
)
def test_a_pass_is_cut_into_windows_without_looking_at_what_was_before(
    counts, window, seed, shuffle
):
    """Held against a list of all rows, group by group."""
    counts = np.array(counts)
    groups = np.flatnonzero(counts)
    if shuffle:
        groups = np.random.default_rng(seed).permutation(groups)
    starts = np.cumsum(counts) - counts
    read = [row for g in groups for row in range(starts[g], starts[g] + counts[g])]
    epoch = Pass(counts, groups, window, (seed, 1) if shuffle else None)
    assert len(epoch.windows) == -(-len(read) // window)
    for k in epoch.windows:
        block = read[k * window : (k + 1) * window]
        indices = epoch.indices(k).tolist()
        assert sorted(indices) == sorted(block)
        assert shuffle or indices == block
        remaining, before = epoch.remaining(k)
        rest = [row for g in remaining for row in range(starts[g], starts[g] + counts[g])]
        assert rest[before:] == read[k * window :]
        assert not len(remaining) or before < counts[remaining[0]]


@settings(max_examples=100)
@given(
    counts=st.lists(st.integers(0, 50), max_size=20),
    val=st.floats(0.05, 0.9),
    test=st.sampled_from([0.0, 0.25, 0.8]),
    seed=st.integers(0, 2**40),
)
def test_the_parts_of_a_split_are_counted_group_by_group(
    monkeypatch_chunks, counts, val, test, seed
):
    counts = np.array(counts, np.int64)
    total = int(counts.sum())
    held = [Part(name, val, test, seed) for name in ("train", "val", "test")]
    masks = [part.holds(0, total) for part in held]
    assert (np.sum(masks, 0) == 1).all()  # each row is in one of them
    starts = np.cumsum(counts) - counts
    for part, mask in zip(held, masks, strict=True):
        expected = [mask[a : a + c].sum() for a, c in zip(starts, counts, strict=True)]
        assert part.counts(counts).tolist() == expected
        for first in range(0, total, 7):  # from anywhere
            assert (part.holds(first, total - first) == mask[first:]).all()


@pytest.fixture(scope="module")
def monkeypatch_chunks():
    """Chunks so small that groups lie in several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smx_lightning.data.streams.parts.CHUNK", 13)
        yield


def test_a_split_takes_its_share_of_the_rows_and_heeds_the_seed():
    places = uniform(np.arange(200_000), 0)
    assert places.min() >= 0
    assert places.max() < 1
    counts, _ = np.histogram(places, 20, (0, 1))
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 50  # χ² of 19 degrees: once in 10⁴
    lagged = np.corrcoef(places[1:], places[:-1])[0, 1]
    other = np.corrcoef(places, uniform(np.arange(200_000), 1))[0, 1]
    assert max(abs(lagged), abs(other)) < 0.01
    shares = [Part(name, 0.1, 0.25).holds(0, 200_000).mean() for name in ("train", "val", "test")]
    np.testing.assert_allclose(shares, [0.675, 0.075, 0.25], atol=0.005)


def test_the_split_of_a_row_never_changes():
    """The bits that decide it, on which checkpoints depend; the mixing is that of SplitMix64."""
    state, gamma = 1234567, 0x9E3779B97F4A7C15
    states = [(state + k * gamma) % 2**64 for k in range(3)]
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert mixed(np.array(states, np.uint64)).tolist() == published
    expected = [0.511486, 0.161764, 0.295125, 0.290046]
    np.testing.assert_allclose(uniform(np.arange(4), 0), expected, atol=1e-6)
