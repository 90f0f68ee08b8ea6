"""Arguments of an optimiser that nobody names: the exact solver's are its, Adam's are Adam's."""

from pathlib import Path

import pytest
import torch
import yaml
from sampled import sampled

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.cli import main

TRIAL = [
    "--trainer.fast_dev_run=true",
    "--trainer.logger=false",
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
]
FILES = {
    "tol.yaml": {"optimizer": {"init_args": {"tol": 1e-3}}},
    "short.yaml": {"optimizer": {"tol": 1e-3}},
    "lr.yaml": {"optimizer": {"init_args": {"lr": 0.1}}},
    "adam.yaml": {"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}},
    "exact.yaml": {"optimizer": {"class_path": "ExactSolver", "init_args": {"memory": 5}}},
    "other.yaml": {"l2": 0.5},
}
OWN = """
from smx_lightning import SoftmaxRegression

class Own(SoftmaxRegression):
    def __init__(self, num_features: int, num_classes: int, **kwargs):
        super().__init__(num_features, num_classes, **kwargs)
"""
EXACT, ADAM = "ExactSolver(tol=0.001)", "Adam(lr=0.1)"
TAKEN = {
    "--model.optimizer.tol 1e-3": EXACT,
    "--model.optimizer.tol=1e-3": EXACT,
    "--model.optimizer.init_args.tol 1e-3": EXACT,
    "--model.init_args.optimizer.tol 1e-3": EXACT,
    "--model.init_args.optimizer.init_args.tol=1e-3": EXACT,
    "--model.optimizer.memory 7": "ExactSolver(memory=7)",
    "--model.optimizer.tol 1e-3 --model.optimizer.memory 7": "ExactSolver(tol=0.001, memory=7)",
    "--model.l2 .1 --model.optimizer.tol 1e-3 --data.seed 3": EXACT,
    "--model SoftmaxRegression --model.optimizer.tol 1e-3": EXACT,
    "--model.optimizer.tol 1e-3 --model own.Own": EXACT,
    "--config tol.yaml": EXACT,
    "--config short.yaml": EXACT,
    "--config other.yaml --model.optimizer.tol 1e-3": EXACT,
    "--config exact.yaml --model.optimizer.tol 1e-3": "ExactSolver(tol=0.001, memory=5)",
    "--model.optimizer.lr .1": ADAM,
    "--model.optimizer.lr .1 --model.optimizer.weight_decay .5": "Adam(lr=0.1, weight_decay=0.5)",
    "--config lr.yaml": ADAM,
    "--config adam.yaml": ADAM,
    "--model.optimizer.tol 1e-3 --config adam.yaml": ADAM,  # what comes later counts
}
REFUSED = {
    "--model.optimizer.momentum .9": ("got momentum;", "--model.optimizer torch.optim.SGD"),
    "--model.optimizer.tol 1e-3 --model.optimizer.lr .1": ("got lr, tol;", None),
    "--model.lr_scheduler.gamma .5": (
        "got gamma alone;",
        "--model.lr_scheduler torch.optim.lr_scheduler.ExponentialLR",
    ),
    "--model.optimizer null": ("class or a function of the parameters, got NoneType", None),
}


@pytest.fixture
def folder(cli_folder, monkeypatch):
    """The working folder, with files of settings and a subclass."""
    monkeypatch.syspath_prepend(cli_folder)
    Path("own.py").write_text(OWN)
    for name, settings in FILES.items():
        Path(name).write_text(yaml.safe_dump({"model": {"init_args": settings}}))


def run(given, capsys):
    """The exit code, the optimiser that trains, and all that stderr says."""
    code = main(["fit", *TRIAL, *given.split()])
    printed = capsys.readouterr()
    chosen = [line for line in printed.out.splitlines() if line.startswith("optimizer ")]
    return code, chosen[0].split(maxsplit=1)[1] if chosen else None, printed.err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("given", sampled(TAKEN, every=5))
def test_it_is_the_one_that_has_such_arguments(given, capsys):
    code, chosen, _ = run(given, capsys)
    assert code == 0
    assert chosen.startswith(f"{TAKEN[given]}, as given;")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("given", sampled(REFUSED, every=2))
def test_what_belongs_to_neither_ends_in_one_sentence_whose_remedy_works(given, capsys):
    words, remedy = REFUSED[given]
    code, chosen, error = run(given, capsys)
    assert (code, chosen) == (2, None)
    assert len(error.splitlines()) == 1
    assert error.startswith("smx-lightning: expected ")
    assert words in error
    if remedy is not None:
        assert remedy in error
        assert run(f"{remedy} {given}", capsys)[0] == 0


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("given", "words"),
    sampled(
        [
            ("--model.optimizer.tol abc", "Expected a <class 'float'>. Got value: abc"),
            ("--model.optimizer.tol 1e-3 --modle.l2 1", "unrecognized arguments: --modle.l2 1"),
            ("--config adam.yaml --model.optimizer.tol 1e-3", "Option 'tol' is not accepted"),
            ("--model.optimizer Adam --model.optimizer.tol 1", "Option 'tol' is not accepted"),
        ],
        every=2,
    ),
)
def test_the_parser_complains_of_what_is_wrong(given, words, capsys):
    with pytest.raises(SystemExit) as end:
        run(given, capsys)
    assert end.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.usefixtures("folder")
def test_a_printed_configuration_says_whose_they_are(capsys):
    with pytest.raises(SystemExit) as end:
        main(["fit", "--model.optimizer.tol=1e-3", "--print_config"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    optimizer = yaml.safe_load(printed)["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "smx_lightning.optim.ExactSolver"
    assert optimizer["init_args"]["tol"] == 1e-3
    Path("printed.yaml").write_text(printed)
    assert run("--config printed.yaml", capsys)[1].startswith("ExactSolver(tol=0.001)")


@pytest.mark.usefixtures("folder")
def test_as_a_command_nothing_else_is_said(monkeypatch, capsys):
    """Lightning warns of arguments that are not those of ``sys.argv``."""
    command = ["fit", *TRIAL, "--model.optimizer.tol=1e-3"]
    monkeypatch.setattr("sys.argv", ["smx-lightning", *command])
    assert main() == 0
    printed = capsys.readouterr()
    assert EXACT in printed.out
    assert "args parameter" not in printed.err


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"optimizer": None},
            "optimizer to be a class or a function of the parameters, got NoneType",
        ),
        ({"optimizer": "adam"}, "optimizer to be .*, got str; give such a one, or leave it out"),
        ({"optimizer": torch.optim.Adam([torch.zeros(1)])}, "optimizer to be .*, got Adam;"),
        ({"lr_scheduler": 0.1}, "lr_scheduler to be .* of the optimiser, got float;"),
    ],
)
def test_in_python_what_makes_no_optimiser_is_refused(given, words):
    with pytest.raises(InputError, match=words):
        SoftmaxRegression(4, 3, **given)
