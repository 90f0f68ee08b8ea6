"""Counting many batches at a time changes no value, hides no bad label, and can be interrupted."""

import io
import math
from itertools import pairwise

import numpy as np
import pytest
import torch
import weighed
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupted import Interrupted
from sampled import examples, whole
from torch.utils.data import DataLoader, TensorDataset
from trainers import quiet_trainer

from smx_lightning import InputError, Recovery, SoftmaxRegression
from smx_lightning.data import BatchLoader
from smx_lightning.metrics.stages import evaluation_metrics
from smx_lightning.metrics.tally import Tally


@pytest.mark.parametrize("entries", [1, 100, 2**20])
@pytest.mark.parametrize("layout", ["classes last", "rows last"])
def test_values_are_those_of_updates_batch_by_batch(entries, layout, monkeypatch):
    monkeypatch.setattr("smx_lightning.metrics.tally.ENTRIES", entries)
    log_probs, y = torch.randn(90, 7).log_softmax(1), torch.randint(7, (90,))
    if layout == "rows last":  # as the exact solver lays them
        log_probs = log_probs.T.contiguous().T
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


@pytest.mark.parametrize("weighs", [False, True])
@pytest.mark.parametrize("soft", [False, True])
def test_a_loader_that_fills_its_buffers_anew_spoils_no_metric(soft, weighs):
    """Accuracy was .385 where it is .970: labels of earlier batches were the last one's."""
    rng = np.random.default_rng(0)
    y = weighed.distributions(rng, 40, 3) if soft else rng.integers(3, size=40)
    parts = [torch.tensor(rng.normal(size=(40, 5))).float(), torch.tensor(y)]
    parts += [torch.tensor(rng.uniform(size=40)).float()] if weighs else []
    buffers = [torch.empty_like(part[:8]) for part in parts]

    def into_buffers(rows):
        for buffer, values in zip(buffers, zip(*rows, strict=True), strict=True):
            buffer[:] = torch.stack(values)
        return tuple(buffers)

    rows = TensorDataset(*parts)
    model = SoftmaxRegression(5, 3)
    fresh, spoilt = (
        quiet_trainer().test(model, DataLoader(rows, batch_size=8, **options), verbose=False)[0]
        for options in ({}, {"collate_fn": into_buffers})
    )
    assert spoilt == fresh


@pytest.mark.parametrize("label", [-100, -2, 3])
def test_a_label_out_of_range_is_named_wherever_it_is(label, quiet_trainer):
    """Torch skips -100 in silence, and is terse about the others."""
    y = torch.tensor([0, 1, 2, label, 0, 1])
    loader = DataLoader(TensorDataset(torch.randn(6, 4), y), batch_size=2)
    with pytest.raises(InputError, match=rf"0\.\.2, got {label} in the train batches"):
        quiet_trainer().fit(SoftmaxRegression(4, 3), loader)


def batches_of_all_kinds(seed, classes=7):
    """Some batches (scores, y, weight) in an order at random, empty ones among them."""
    rng = np.random.default_rng(seed)
    batches = []
    for kind in rng.permutation(16) % 4:
        n = int(rng.integers(6))
        soft, weighs = kind % 2, kind > 1
        y = weighed.distributions(rng, n, classes) if soft else rng.integers(classes, size=n)
        y = torch.tensor(y, dtype=torch.float32 if soft else torch.int64)
        c = torch.tensor(rng.integers(4, size=n)) if weighs else None
        c = c.float() if weighs and rng.random() < 0.5 else c
        batches.append((torch.tensor(rng.normal(size=(n, classes))).float().log_softmax(1), y, c))
    return batches


def each_label(batches):
    """The same as one batch, each label a row."""
    rows = []
    for scores, y, c in batches:
        c = np.ones(len(y)) if c is None else c.double().numpy()
        for i, k, w in weighed.labels_of(y.numpy(), c, 7):
            rows.append((scores[i], k, w))
    scores, labels, weights = zip(*rows, strict=True)
    return torch.stack(scores), torch.tensor(labels), torch.tensor(weights)


@given(st.integers(0, 2**16), st.sampled_from([1, 30, 2**20]))
@settings(max_examples=examples(30))
def test_batches_of_all_kinds_add_up(seed, entries):
    batches = batches_of_all_kinds(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smx_lightning.metrics.tally.ENTRIES", entries)
        tally, expected = weighed.tally_of(7), weighed.tally_of(7)
        for batch in batches:
            tally.add(*batch)
        expected.add(*each_label(batches))
    assert weighed.values_of(tally) == pytest.approx(
        weighed.values_of(expected), rel=1e-5, abs=1e-6
    )


def stored(state):
    """As a checkpoint gives it back: with no code of its own."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def states(tally):
    tally.flush()
    return [tensor for _, metric in tally._counters() for tensor in metric.metric_state.values()]


@given(st.integers(0, 2**16), st.integers(0, 16), st.booleans())
@settings(max_examples=examples(40))
def test_a_tally_goes_on_in_all_its_digits(seed, done, flushed):
    batches = batches_of_all_kinds(seed)
    straight, first, then = (weighed.tally_of(7) for _ in range(3))
    for batch in batches[:done]:
        straight.add(*batch)
        first.add(*batch)
    if flushed:
        straight.flush()
        first.flush()
    then.restore([stored(first.state())])
    assert then._entries == first._entries
    for batch in batches[done:]:
        straight.add(*batch)
        then.add(*batch)
    for mine, theirs in zip(states(then), states(straight), strict=True):
        assert torch.equal(mine, theirs)


@given(st.integers(0, 2**16), st.integers(1, 4), st.booleans())
@settings(max_examples=examples(20))
def test_what_several_processes_have_counted_adds_up(seed, shares, flushed):
    batches = batches_of_all_kinds(seed)
    kept = []
    for rank in range(shares):
        tally = weighed.tally_of(7)
        for batch in batches[rank::shares]:
            tally.add(*batch)
        if flushed:
            tally.flush()
        kept.append(stored(tally.state()))
    whole, expected = weighed.tally_of(7), weighed.tally_of(7)
    whole.restore(kept)
    for batch in batches:
        expected.add(*batch)
    assert weighed.values_of(whole) == pytest.approx(weighed.values_of(expected), rel=1e-5)


def test_a_tally_without_weights_is_kept_as_it_ever_was():
    """So older versions read what this one writes, and this one theirs."""
    tally = weighed.tally_of(7)
    for _ in range(2):
        tally.add(torch.randn(5, 7).log_softmax(1), torch.arange(5))
        state = tally.state()
        assert {*state} == {"pending", "counted"}
        assert {key for counted in state["counted"].values() for key in counted} == {
            *("tp", "fp", "tn", "fn", "correct", "rows", "total", "count", "excess"),
        }
        tally.flush()
    for several in ([state], [state, state]):
        other = weighed.tally_of(7)
        other.restore(several)
        other.add(torch.randn(5, 7).log_softmax(1), torch.arange(5), torch.ones(5))
        assert all(math.isfinite(value) for value in weighed.values_of(other).values())


def test_rows_of_a_larger_tensor_are_kept_without_the_rest():
    tally, c = weighed.tally_of(7), torch.ones(10**5, dtype=torch.float64)
    tally.add(torch.randn(5, 7).log_softmax(1), torch.arange(5), c[:5])
    file = io.BytesIO()
    torch.save(tally.state(), file)
    assert len(file.getvalue()) < 10**4


class Weighing(SoftmaxRegression):
    """Counts weights and, every second batch, distributions."""

    stop, seen = None, 0

    def training_step(self, batch, batch_idx):
        x, y, c = batch
        self.seen += 1
        if self.stop == self.global_step:
            raise Interrupted
        scores = self(x)
        loss = torch.nn.functional.nll_loss(scores, y)
        target = 0.9 * torch.eye(3)[y] + 0.1 / 3 if batch_idx % 2 else y
        self._smx_metrics.add(("train",), scores, target, c)
        return loss


@pytest.mark.parametrize("stop", [3, whole(1), whole(5), whole(8)])
def test_recovery_resumes_weighted_metrics_in_all_their_digits(tmp_path, stop):
    x, y = torch.randn(50, 4), torch.randint(3, (50,))
    rows = TensorDataset(x, y, torch.rand(50, dtype=torch.float64))
    logged = {}
    for name, stops in (("straight", [None]), ("resumed", [stop, None])):
        for now in stops:
            torch.manual_seed(1)
            model = Weighing(4, 3)
            model.stop = now
            trainer = quiet_trainer(
                max_epochs=1,
                enable_checkpointing=True,
                default_root_dir=tmp_path / name,
                callbacks=[Recovery(every_n_steps=1)],
            )
            loader = BatchLoader(rows, batch_size=5, shuffle=True)
            if now is None:
                trainer.fit(model, loader)
            else:
                with pytest.raises(Interrupted):
                    trainer.fit(model, loader)
        logged[name] = {k: float(v).hex() for k, v in trainer.callback_metrics.items()}
    assert {"train/nll", "train/accuracy_micro"} <= logged["straight"].keys()
    assert logged["resumed"] == logged["straight"]
    assert model.seen == 10 - stop


@pytest.mark.parametrize("world_size", [2, whole(3)])
def test_several_processes_count_what_one_counts(ranks, world_size):
    """Some have weights and others none, one has distributions, or rows of weight 0, or nothing."""
    batches = batches_of_all_kinds(3)
    cuts = [0, 2, 9, 16] if world_size == 3 else [0, 5, 16]
    shares = [batches[start:end] for start, end in pairwise(cuts)]
    scores, labels = torch.randn(4, 7).log_softmax(1), torch.arange(4)
    cases = [
        shares,
        [[], *shares[1:]],
        [[(scores, labels, None)]] * (world_size - 1) + [[(scores, labels, torch.ones(4))]],
        [[(scores, labels, torch.zeros(4))]] * (world_size - 1) + [[(scores, labels, None)]],
    ]
    for case in cases:
        tallies = weighed.tally_of(7), weighed.confusion_of(7)
        for batch in (batch for share in case for batch in share):
            for tally in tallies:
                tally.add(*batch)
        one = weighed.values_of(tallies[0]) | weighed.values_of(tallies[1])
        for answer in ranks.run(world_size, weighed.counted, case, 7):
            assert answer.pop("confusion") == pytest.approx(one["confusion"], rel=1e-12)
            assert answer == pytest.approx({k: one[k] for k in answer}, rel=1e-6, abs=1e-7)


def test_no_process_hangs_where_no_row_weighs_anything(ranks):
    rows = (torch.randn(4, 7).log_softmax(1), torch.arange(4), torch.zeros(4))
    for share in ([rows], []):
        for answer in ranks.run(2, weighed.counted, [[rows], share], 7):
            assert not answer.pop("confusion").any()
            assert all(math.isnan(value) for value in answer.values())


@pytest.mark.parametrize(
    ("y", "c", "complaint"),
    [
        ([0, 1, 3], [1.0, 1.0, 1.0], r"labels must lie in 0\.\.2, got 3 in the rows"),
        ([0, 1, 2], [1.0, -2.0, 1.0], "row weights that are finite and not below 0, got -2.0"),
        ([0, 1, 2], [1.0, math.nan, 1.0], "row weights that are finite and not below 0, got nan"),
        ([0, 1, 2], [1.0, 1.0], r"expected 3 row weights, got shape \(2,\); give one each"),
        ([0, 1, 2], [[1.0], [1.0], [1.0]], r"expected 3 row weights, got shape \(3, 1\)"),
        ([[0.5, 0.5, 0.5]] * 3, None, "got targets below 0 or rows that do not sum to 1"),
        (
            [[1.5, -0.5, 0.0]] * 3,
            None,
            "got targets below 0 or rows that do not sum to 1 in the rows",
        ),
        (
            [[math.nan, 0.5, 0.5]] * 3,
            None,
            "got targets below 0 or rows that do not sum to 1 in the rows",
        ),
        ([[0.5, 0.5]] * 3, None, "a distribution over 3 classes a row, got float32 targets of sha"),
        ([0.0, 1.0, 2.0], None, r"labels must be integers of shape \(n,\), got float32"),
    ],
)
def test_other_targets_and_weights_are_refused(y, c, complaint):
    tally, weight = weighed.tally_of(3), None if c is None else torch.tensor(c)

    def counted():
        tally.add(torch.zeros(3, 3), torch.tensor(y), weight)
        tally.flush()

    with pytest.raises(InputError, match=complaint):
        counted()
