"""What the summary says of mini-batches: diverged, not converged, settled."""

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest

from smx_lightning.cli import main
from smx_lightning.cli.outcome import course

NAN, LOG3 = float("nan"), math.log(3)
COURSES = [  # losses, max_epochs: what is said
    ([], 9, None),
    ([0.5], 1, "one epoch, which does not tell whether it converged; raise max_epochs, which is 1"),
    ([0.5, NAN], 2, "diverged: train/nll went from 0.5 to nan; lower --model.optimizer.lr"),
    ([0.5, math.inf], 2, "diverged: train/nll went from 0.5 to inf"),
    ([1.0, 3.0], 2, "diverged: train/nll went from 1 to 3"),
    ([7.0, 9.0], 2, "diverged: train/nll went from 7 to 9"),
    ([9.0, 7.0], 2, "not converged: train/nll is 7, and that of guessing 1.099; lower"),
    ([1.0, 0.5], 2, "not converged: train/nll fell by 50.0% in the last epoch; raise max_epochs, "
                    "which is 2"),
    ([1.0, 0.5], 9, "not converged: train/nll fell by 50.0% in the last epoch; raise max_epochs"),
    ([0.9, 0.5, 0.6], 3, "not converged: train/nll rose by 20.0%"),
    ([1.0, 0.5, 0.499], 3, "settled: train/nll moved by 0.2% in the last epoch"),
    ([1.0, 0.5, 0.503], 3, "settled: train/nll moved by 0.6% in the last epoch"),
    ([0.0, 0.0], 2, "settled: train/nll moved by 0.0% in the last epoch"),
]  # fmt: skip


@pytest.mark.parametrize(("losses", "epochs", "said"), COURSES)
def test_the_course_of_the_loss(losses, epochs, said):
    found = course(losses, "train/nll", LOG3, epochs)
    assert found is None if said is None else found.startswith(said)
    assert (found or "").endswith("raise max_epochs") or epochs != 9 or not found


def test_it_is_the_loss_that_is_logged(cli_folder, capsys):
    rng = np.random.default_rng(0)
    np.savez("d.npz", x=rng.normal(size=(90, 3)), y=np.arange(90) % 3)
    run = ["fit", "--data=NpzDataModule", "--data.path=d.npz", "--trainer.accelerator=cpu"]
    run += ["--trainer.enable_progress_bar=false", "--model.optimizer=Adam"]
    assert main([*run, "--model.optimizer.lr=0.5", "--trainer.max_epochs=3"]) == 0
    said = re.search(r"^training +(.*)$", capsys.readouterr().out, re.M)[1]
    with Path("lightning_logs/version_0/metrics.csv").open() as file:
        logged = [float(row["train/nll"]) for row in csv.DictReader(file) if row["train/nll"]]
    assert len(logged) == 3
    assert said == course(logged, "train/nll", LOG3, 3)
    assert main([*run, "--trainer.fast_dev_run=true"]) == 0
    assert "training  " not in capsys.readouterr().out
