"""``--help`` of the subcommands: the options that matter first; ``--help all`` has all of them.

It is printed before torch is imported. Whether the parser takes each option that stands here, the
tests ask the parser.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from smx_lightning.cli.arguments import ALL, HELP

WIDTH, INDENT = 80, 26

EPILOG = (
    "fit takes the exact solver for a plain model; --model.optimizer torch.optim.Adam makes it "
    "mini-batches. Exit codes: 0 done and parity holds, and the exact solver, where it trained, "
    "reached the optimum; 1 parity failed; 2 bad usage or bad input, or code of yours that failed; "
    "3 trained, exported and parity holds, but the exact solver stopped short of the optimum, for "
    "which there may be none; 70 a fault of this program; 130 and 143 ended by Ctrl-C and SIGTERM. "
    "All but 0 come with one sentence on stderr; --traceback shows where it came from."
)


class Subcommand(NamedTuple):
    """What the help of a subcommand says.

    Attributes:
        does: In a sentence.
        groups: Headings, and under each the options with what they mean.
    """

    does: str
    groups: dict[str, dict[str, str]]


DATA = {
    "--data FILE": "a table (.csv, .tsv, .parquet, .feather, a folder of these), an .npz file of x "
    "and y, or a folder of IDX files; what it is chooses the data module",
    "--data CLASS": "DigitsDataModule (default), or any LightningDataModule of yours, as "
    "package.module.Class",
    "--data.target COLUMN": "of a table: the column of the labels; all others are features but for "
    "--data.drop '[id]' and --data.weight COLUMN",
    "--data.batch_size N": "rows of a batch, over all processes together",
}
CHECKPOINT = {
    "--ckpt_path FILE": "the checkpoint of the trained model; its settings come with it",
    "--model CLASS": "the class that wrote it, where that is a subclass of yours",
}
MACHINE = {
    "--trainer.accelerator A": "cpu, gpu, mps, …; auto by default",
    "--trainer.devices N": "how many of them",
    "--trainer.enable_progress_bar false": "print the summary alone",
}
GENERAL = {
    "-c, --config FILE": "settings from a YAML file; what comes later on the line goes before it",
    "--print_config": "print all settings as such a file, and end",
    "--model.help, --data.help": "all arguments of them; with a class, as in --data.help "
    "NpzDataModule, of that",
    "--traceback": "show where in the code an error came up",
    "--help all": "every option that there is",
}
FIT = {
    "data": DATA,
    "model": {
        "--model CLASS": "SoftmaxRegression (default), or a subclass, as package.module.Class",
        "--model.l2 L2": "the penalty's weight; 1e-3 by default, 0 for none",
        "--model.preprocessing P": "standardize (default), scale, or none",
        "--model.class_weight W": "balanced, or a weight for each class",
        "--model.activation A": "softmax (default), sparsemax, entmax15, …",
    },
    "training": {
        "--model.optimizer CLASS": "ExactSolver (default, for a plain model) or mini-batches with "
        "torch.optim.Adam, torch.optim.SGD, …",
        "--model.optimizer.lr LR": "its learning rate; alone it makes Adam",
        "--trainer.max_epochs N": "at most; 1000 with the exact solver, else 100",
        "--trainer.precision P": "32-true (default), 64-true, 16-mixed, bf16-mixed, …",
        "--seed_everything N": "of weights and everything random; 0 by default",
        "--ckpt_path FILE": "go on from a checkpoint",
        **MACHINE,
    },
    "what is written": {
        "--onnx.path FILE": "the exported file; model.onnx in the run's folder by default",
        "--onnx.profile NAME": "portable (default), robust, compact, image, or several with commas",
        "--trainer.logger L": "CSVLogger (default), TensorBoardLogger, …; false for none",
    },
    "more": GENERAL,
}


def _asking(written: dict[str, str]) -> dict[str, dict[str, str]]:
    """Options of a subcommand that asks a trained model."""
    asked = {"checkpoint": CHECKPOINT, "data": DATA, "machine": MACHINE}
    return {**asked, **({"what is written": written} if written else {}), "more": GENERAL}


SUBCOMMANDS = {
    "fit": Subcommand(
        "Train a model, test its best checkpoint, and export it as a verified ONNX file.", FIT
    ),
    "validate": Subcommand("Measure a trained model on the validation rows.", _asking({})),
    "test": Subcommand(
        "Measure a trained model on the test rows.",
        _asking({"--confusion.path FILE": "the confusion matrix, as CSV"}),
    ),
    "predict": Subcommand(
        "Write class and probabilities of every row, in order, as a CSV file.",
        _asking({"--predictions.path FILE": "the answers, as CSV"}),
    ),
    "coefficients": Subcommand(
        "Print the largest coefficients of a trained model, and write all of them as CSV to the "
        "file that is named last. With the data that it was trained on come standard errors.",
        {
            "checkpoint": CHECKPOINT,
            "errors": {
                "--data CLASS": "the rows that it was trained on, with the settings of then",
                "--errors KIND": "model (default), right where the model is; robust, also where it "
                "is not, and with class weights",
                "--weights KIND": "what row weights are: frequency (default) or sampling",
                "--level LEVEL": "of the intervals; 0.95 by default",
            },
            "what is written": {
                "FILE": "last on the line: class, feature, coefficient in the data's own units and "
                "standardised, std_error, z, p_value, low, high",
                "--reference CLASS": "differences to this class; to the mean of all by default",
            },
            "more": GENERAL,
        },
    ),
}


def help_asked(given: Sequence[str]) -> str | None:
    """The help that arguments ask for, if it is not the whole."""
    asked = [at for at, argument in enumerate(given) if argument in HELP]
    if not asked or given[asked[0] + 1 : asked[0] + 2] == [ALL]:
        return None
    named = [argument for argument in given[: asked[0]] if argument in SUBCOMMANDS]
    return _of(named[0]) if named else _of_all()


def _of(name: str) -> str:
    subcommand = SUBCOMMANDS[name]
    last = " [FILE]" * (name == "coefficients")
    parts = [f"usage: smx-lightning {name} [options]{last}", _filled(subcommand.does)]
    for heading, options in subcommand.groups.items():
        parts.append("\n".join([f"{heading}:", *map(_line, options, options.values())]))
    return "\n\n".join([*parts, _filled(EPILOG)])


def _of_all() -> str:
    names = "\n".join(_line(name, each.does) for name, each in SUBCOMMANDS.items())
    more = {
        "SUBCOMMAND --help": "its options",
        "--version": "print the version",
        "--print-completion SHELL": "print what makes bash or zsh complete the options",
    }
    return "\n\n".join(
        [
            "usage: smx-lightning {" + ",".join(SUBCOMMANDS) + "} [options]",
            "Softmax regression, trained with PyTorch Lightning and shipped as ONNX.",
            f"subcommands:\n{names}",
            "\n".join(["more:", *map(_line, more, more.values())]),
            _filled(EPILOG),
        ]
    )


def _line(option: str, text: str) -> str:
    """An option and what it means, in columns."""
    indent = " " * INDENT
    filled = textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
    if len(option) + 3 < INDENT:
        return f"  {option:{INDENT - 2}}{filled[INDENT:]}"
    return f"  {option}\n{filled}"


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
