import gzip
import struct
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampled import examples

from smx_lightning.data import DigitsDataModule, IdxDataModule, NpzDataModule
from smx_lightning.data.split import stratified_split


@given(
    labels=st.lists(st.integers(0, 5), min_size=2, max_size=200),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 3),
)
@settings(max_examples=examples(100))
def test_a_split_is_a_partition_stratified_and_spares_the_last_of_a_class(labels, fraction, seed):
    y = torch.tensor(labels)
    kept, held_out = stratified_split(y, fraction, seed)
    assert sorted([*kept.tolist(), *held_out.tolist()]) == list(range(len(y)))
    total, out = Counter(labels), Counter(y[held_out].tolist())
    for k, n in total.items():
        assert out[k] < n
        assert abs(out[k] - fraction * n) < 1 or out[k] == n - 1
    again = stratified_split(y, fraction, seed)
    assert torch.equal(again.held_out, held_out)


def test_digits_hold_out_a_quarter_and_know_themselves():
    data = DigitsDataModule()
    splits = data.splits
    assert (data.num_features, data.num_classes, data.input_shape) == (64, 10, (8, 8))
    assert len(splits.test) == 449
    assert len(splits.train) + len(splits.val) + len(splits.test) == 1797
    assert data.class_names == [str(k) for k in range(10)]


def test_batches_are_slices_and_cover_every_row_once():
    data = DigitsDataModule(batch_size=100)
    seen = torch.cat([x.flatten(1).sum(1) * 11 + y for x, y in data.train_dataloader()])
    rows = data.splits.train
    expected = rows.x.flatten(1).sum(1) * 11 + rows.y
    assert torch.equal(seen.sort().values, expected.sort().values)
    x, y = next(iter(data.val_dataloader()))
    assert torch.equal(x, data.splits.val.x[:100])
    assert torch.equal(y, data.splits.val.y[:100])


def test_two_epochs_come_in_different_orders():
    loader = DigitsDataModule(batch_size=2000).train_dataloader()
    orders = [y for _ in range(3) for _, y in loader]
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[1], orders[2])


def write_idx(path, array, compress):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = header + array.tobytes()
    if compress:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("compress", [False, True])
def test_idx_folder_is_read_whether_packed_or_plain(tmp_path, compress):
    rng = np.random.default_rng(0)
    images = {
        part: rng.integers(0, 256, (n, 5, 4), np.uint8) for part, n in (("train", 40), ("t10k", 9))
    }
    for part, x in images.items():
        write_idx(tmp_path / f"{part}-images-idx3-ubyte", x, compress)
        write_idx(
            tmp_path / f"{part}-labels-idx1-ubyte",
            (np.arange(len(x)) % 3).astype(np.uint8),
            compress,
        )
    data = IdxDataModule(tmp_path, class_names=["a", "b", "c"], val_fraction=0.25)
    assert data.input_shape == (5, 4)
    assert data.class_names == ["a", "b", "c"]
    np.testing.assert_array_equal(data.splits.test.x, images["t10k"])
    assert data.splits.train.x.dtype == torch.uint8
    assert (len(data.splits.train), len(data.splits.val)) == (30, 10)


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_npz_with_string_labels_names_its_classes(tmp_path):
    y = np.array(["cat", "ant", "bee"] * 20)
    data = NpzDataModule(save(tmp_path / "d.npz", x=np.random.rand(60, 2, 3), y=y))
    assert data.class_names == ["ant", "bee", "cat"]
    assert (data.num_features, data.input_shape) == (6, (2, 3))
    assert sum(len(rows) for rows in (data.splits.train, data.splits.val, data.splits.test)) == 60


def test_npz_splits_are_used_as_given_and_a_missing_one_is_cut_from_train(tmp_path):
    x, y = np.random.rand(50, 3), np.arange(50) % 2
    x_test, y_test = np.random.rand(7, 3), np.array([0, 1, 0, 1, 0, 1, 1])
    path = save(tmp_path / "d.npz", x=x, y=y, x_test=x_test, y_test=y_test)
    splits = NpzDataModule(path, val_fraction=0.2).splits
    np.testing.assert_array_equal(splits.test.x, x_test.astype(np.float32))
    assert (len(splits.train), len(splits.val)) == (40, 10)
    full = save(tmp_path / "f.npz", x=x, y=y, x_val=x, y_val=y, x_test=x_test, y_test=y_test)
    assert len(NpzDataModule(full).splits.train) == 50


def test_npz_split_survives_a_class_with_one_sample(tmp_path):
    y = np.array(["common"] * 40 + ["rare"])
    data = NpzDataModule(save(tmp_path / "d.npz", x=np.random.rand(41, 2), y=y))
    assert (data.splits.train.y == 1).sum() == 1
