"""What a data module of streams tells, and what it serves."""

import functools
import itertools
import pickle
import threading
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import streamed
import tables
import torch
from streamed import UNEVEN, table, write
from trainers import quiet_trainer

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsInOrder
from smx_lightning.cli import main
from smx_lightning.data import StreamedTableDataModule
from smx_lightning.data.streams.memory import bytes_of, shares_of
from smx_lightning.data.streams.parts import Part
from smx_lightning.optim import ExactSolver
from smx_lightning.tables.encoding import encoded
from smx_lightning.tables.fitting import SchemaFit
from smx_lightning.tables.schema import Schema

N = sum(map(sum, UNEVEN))
mixed = functools.partial(StreamedTableDataModule, target="outcome", drop=["id"], batch_size=64)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_mixed(tmp_path_factory.mktemp("mixed") / "set")[0]


def write_mixed(folder):
    """Categories, dates, gaps, rows without a label, weights: what tables have."""
    made = tables.mixed(N)
    weight = np.random.default_rng(2).choice([0.5, 1.0, 2.0], N)
    made = made.append_column("weight", pa.array(weight)).append_column(
        "number", pa.array(range(N))
    )
    write(folder, made=made)
    return folder, made


def test_the_features_are_those_of_the_table_in_memory(tmp_path):
    """Held against the schema of the training rows of the whole table, encoded at once."""
    folder, made = write_mixed(tmp_path / "set")
    data = mixed(folder, weight="weight")
    train = Part("train", 0.1, 0.25, 0).holds(0, N)
    fit = SchemaFit("outcome", weight="weight", drop=["id"])
    fit.add(made.filter(pa.array(train)).combine_chunks())
    schema, whole = Schema.from_dict(data.schema), fit.schema()
    for mine, at_once in zip(schema.columns, whole.columns, strict=True):
        if mine.fill is not None:  # which was added up slice by slice
            assert mine.fill == pytest.approx(at_once.fill, rel=1e-12)
        assert replace(mine, fill=None) == replace(at_once, fill=None)
    assert data.feature_names == [*whole.feature_names]
    names = sorted({str(value) for value in made["outcome"].to_pylist() if value is not None})
    assert data.class_names == names
    everything = encoded(schema, made)
    for name in ("train", "val", "test"):
        held = Part(name, 0.1, 0.25, 0).holds(0, N)
        loader = getattr(data, f"{name}_dataloader")()
        order = loader.sampler.indices().numpy()
        x, y, weight = (torch.cat(parts) for parts in zip(*loader, strict=True))
        np.testing.assert_array_equal(x, everything[held][order].astype(x.numpy().dtype))
        np.testing.assert_array_equal(weight, made["weight"].to_numpy()[held][order])
        labels = [
            -1 if value is None else names.index(str(value))
            for value in made["outcome"].to_pylist()
        ]
        np.testing.assert_array_equal(y, np.array(labels)[held][order])


@pytest.mark.parametrize("given", [("val",), ("test",), ("val", "test")])
def test_splits_may_have_files_of_their_own(tmp_path, given):
    write(tmp_path / "train")
    sources = {}
    for k, name in enumerate(given):
        write(tmp_path / name, [[20 + k]], made=table(20 + k, seed=k))
        sources[name] = tmp_path / name
    data = streamed.module(tmp_path / "train", **sources)
    sizes = {
        name: len(getattr(data, f"{name}_dataloader")().dataset)
        for name in ("train", "val", "test")
    }
    for k, name in enumerate(given):
        assert sizes[name] == 20 + k
    if len(given) == 2:
        assert sizes["train"] == N
    else:
        assert sum(sizes.values()) == N + sizes[given[0]]
    assert [len(loader.dataset) for loader in data.predict_dataloader()] == [
        N,
        *(20 + k for k in range(len(given))),
    ]


def test_distributions_are_targets(tmp_path):
    rng = np.random.default_rng(0)
    votes = rng.dirichlet([1, 1, 1], N)
    made = table(N).drop_columns(["label", "number"])
    for k, name in enumerate("abc"):
        made = made.append_column(f"p_{name}", pa.array(votes[:, k]))
    write(tmp_path, made=made)
    data = StreamedTableDataModule(tmp_path, ["p_a", "p_b", "p_c"], batch_size=50)
    assert data.class_names == ["p_a", "p_b", "p_c"]
    loader = data.train_dataloader()
    order = loader.sampler.indices().numpy()
    y = torch.cat([y for _, y in loader])
    held = Part("train", 0.1, 0.25, 0).holds(0, N)
    np.testing.assert_allclose(y, votes[held][order])
    model = SoftmaxRegression(2, 3, optimizer=ExactSolver, l2=1e-3)
    quiet_trainer(max_epochs=50).fit(model, data)
    assert model.solver.status.name == "CONVERGED"


def test_digits_that_float32_would_lose_are_kept(tmp_path):
    made = table(N).to_pydict()
    stamps = 1.7e9 + np.random.default_rng(0).uniform(0, 64, N)
    write(tmp_path, made=pa.table({**made, "stamp": stamps}))
    data = streamed.module(tmp_path, drop=["number"])
    assert data.wide_columns == [2]
    assert next(iter(data.train_dataloader()))[0].dtype == torch.float64
    plain = streamed.module(tmp_path, drop=["number", "stamp"])
    assert plain.wide_columns == []
    assert next(iter(plain.train_dataloader()))[0].dtype == torch.float32


@pytest.fixture(scope="module")
def trained(folder):
    data = mixed(folder)
    model = tables.model_of(data, optimizer=ExactSolver, l2=1e-2)
    quiet_trainer(max_epochs=50).fit(model, data)
    return model


def test_a_trained_model_s_schema_goes_before_the_files_own(trained, tmp_path):
    """Rows without labels, in another order of columns, of fewer categories."""
    made = tables.mixed(40, seed=3)
    made = made.drop_columns(["outcome"])
    shuffled = made.select(made.column_names[::-1])
    for k, name in enumerate(["weight", "number"]):
        shuffled = shuffled.append_column(name, pa.array(np.arange(40) + k * 0.5 * (k == 0)))
    write(tmp_path, [[3], [0, 30], [7]], made=shuffled)
    data = StreamedTableDataModule(tmp_path, batch_size=16)
    collected = PredictionsInOrder()
    runner = quiet_trainer(callbacks=[collected])
    runner.predict(trained, data, return_predictions=False)
    x = torch.from_numpy(encoded(trained.schema, shuffled)).float()
    expected = trained(x).exp().detach()
    torch.testing.assert_close(collected.prediction.probs, expected)
    with pytest.raises(InputError, match="expected the columns"):
        quiet_trainer().test(trained, data, verbose=False)


def test_a_data_module_and_its_loaders_can_be_pickled(folder):
    data = mixed(folder)
    batches = [*data.train_dataloader()]
    for copy in (pickle.loads(pickle.dumps(data)),):
        for mine, theirs in zip(copy.train_dataloader(), batches, strict=True):
            assert all(map(torch.equal, mine, theirs))
    loader = pickle.loads(pickle.dumps(data.train_dataloader()))
    assert len([*loader]) == len(batches)


# What cannot be used ---------------------------------------------------------------------------


def loaders(arguments):
    data = streamed.module(**arguments)
    return data.train_dataloader(), data.val_dataloader(), data.test_dataloader()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"target": None}, "expected the column of the labels as target, got none"),
        ({"target": "nothing"}, "found no nothing"),
        ({"features": ["noise", "nothing"]}, "found no nothing"),
        ({"weight": "nothing"}, "found no nothing"),
        ({"weight": "label"}, "twice|two of these|numbers"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"window": 0}, "window must be at least 1"),
        ({"memory": "much"}, "memory must be bytes"),
        ({"memory": 0}, "memory must be at least 1"),
        ({"memory": "0 MB"}, "memory must be bytes"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"val_fraction": 0}, "val_fraction must lie between 0 and 1"),
        ({"val_fraction": 1e-9}, "expected val rows, got none of"),
        ({"filesystem": "s3"}, "expected a filesystem of pyarrow or fsspec"),
        ({"memory": "1 kB", "window": None}, "expected memory of at least"),
        ({"source": []}, "found none"),
        ({"source": "nothing"}, "found none; check the path"),
        ({"source": "nothing://at/all"}, "that pyarrow can open"),
        ({"source": None}, "expected Parquet files as a path, .* got NoneType"),
        ({"source": 3}, "expected Parquet files as a path, .* got int"),
        ({"source": pa.table({"label": ["a"]})}, "got Table; .* is for TableDataModule"),
        ({"source": {"label": ["a"]}}, "got dict; .* is for TableDataModule"),
        ({"source": [None]}, "expected Parquet files as a path, .* got NoneType"),
        ({"missing": "maybe"}, "expected missing of"),
        ({"weight": ["share"]}, "expected weight as the name of one column"),
        ({"kinds": ["noise"]}, "expected kinds as a mapping"),
        ({"schema": 3}, "expected a schema with a mapping of columns"),
        ({"target": 3}, "found no 3"),
    ],
)
def test_bad_arguments_are_one_sentence(tmp_path, arguments, said):
    write(tmp_path)
    with pytest.raises(InputError, match=said) as caught:
        loaders({"source": tmp_path, **arguments})
    assert "\n" not in str(caught.value)
    assert "; " in str(caught.value) or "must" in str(caught.value)


def test_one_class_is_refused(tmp_path):
    made = table(N).to_pydict()
    write(tmp_path, made=pa.table({**made, "label": ["a"] * N}))
    with pytest.raises(InputError, match="labels of at least 2 classes"):
        streamed.module(tmp_path).known  # noqa: B018 (it is read then)


def test_the_memory_that_is_asked_for_is_enough(tmp_path):
    write(tmp_path)
    with pytest.raises(InputError, match="expected memory of at least") as caught:
        streamed.module(tmp_path, memory=1000, window=None, batch_size=100_000).train_dataloader()
    needed = str(caught.value).split("at least ")[1].split(" for")[0]
    data = streamed.module(tmp_path, memory=needed, window=None, batch_size=100_000)
    assert len(data.train_dataloader()) == 1


@pytest.mark.parametrize("memory", [10**8, 2 * 10**8, 10**10])
@pytest.mark.parametrize("row", [40, 4000])
@pytest.mark.parametrize("batch_size", [1, 100, 512])
def test_a_window_is_whole_batches_that_fit(memory, row, batch_size):
    window, entries = shares_of(memory, row, batch_size=batch_size, held=2 * 10**6)
    assert window % batch_size == 0
    sliced = 6 * 8 * entries
    left = memory - 72 * 10**6 - sliced
    assert 2 * window * row <= left / 2
    assert (
        window == 2**18 // batch_size * batch_size or (window + batch_size) * (row + 16) > left / 4
    )
    assert 2**18 <= entries <= 2**21
    assert sliced <= 6 * 2**21 + memory / 8


def test_units_of_memory():
    assert [bytes_of(text) for text in ("1.5 kB", "2MiB", "3 gb", "70")] == [
        1500,
        2**21,
        3 * 10**9,
        70,
    ]


# Threads ---------------------------------------------------------------------------------------


def of_streams():
    return [thread for thread in threading.enumerate() if thread.name.startswith("smx-stream")]


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_who_stops_early_leaves_no_thread(tmp_path, taken):
    write(tmp_path)
    loader = streamed.module(tmp_path, window=1).train_dataloader()
    batches = iter(loader)
    assert len([*itertools.islice(batches, taken)]) == taken
    del batches
    assert not of_streams()


class _Stops(SoftmaxRegression):
    def training_step(self, batch, batch_idx):
        if batch_idx == 2:
            raise KeyboardInterrupt
        return super().training_step(batch, batch_idx)


def test_ctrl_c_leaves_no_thread(tmp_path):
    write(tmp_path)
    data = streamed.module(tmp_path, window=1)
    with pytest.raises((KeyboardInterrupt, SystemExit)):  # as Lightning makes of it
        quiet_trainer(max_epochs=2).fit(_Stops(3, 3), data)
    assert not of_streams()


def test_what_reading_raises_reaches_the_trainer(tmp_path):
    """In the second file that is read, long after training has begun."""
    write(tmp_path / "set", [[40]] * 8)
    data = streamed.module(tmp_path / "set", window=1)
    model = SoftmaxRegression(3, 3)
    order = data.train_dataloader().sampler.of_epoch().groups
    last = tmp_path / "set" / f"part-{order[-1]}.parquet"
    whole = bytearray(last.read_bytes())
    start = pq.read_metadata(last).row_group(0).column(1).data_page_offset
    whole[start : start + 300] = b"\xff" * 300
    stat = last.stat()
    last.write_bytes(whole)
    __import__("os").utime(last, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(InputError, match=f"part-{order[-1]}.parquet, got one that pyarrow cannot"):
        quiet_trainer(limit_val_batches=0, num_sanity_val_steps=0).fit(model, data)
    assert model.trainer.global_step > 3
    assert not of_streams()


# The command line ------------------------------------------------------------------------------


@pytest.mark.whole
def test_the_command_line_trains_tests_and_predicts(cli_folder, capsys):
    write(cli_folder / "set", [[700, 100, 0, 300], [1000], [30] * 10, [64]])
    data = ["--data", "StreamedTableDataModule", "--data.source", "set"]
    quiet = ["--trainer.enable_progress_bar", "false"]
    assert main(["fit", *data, "--data.target", "label", *quiet]) == 0
    assert "to the exact optimum" in capsys.readouterr().out
    best = ["--ckpt_path", str(next(cli_folder.rglob("best.ckpt")))]
    assert main(["test", *data, *best, *quiet]) == 0
    assert main(["predict", *data, *best, *quiet]) == 0
    predictions = next(cli_folder.rglob("predictions.csv")).read_text().splitlines()
    assert len(predictions) == 1 + 2464
