"""Options that the subcommands with a checkpoint share: what they are called, and what they say.

The functions that read them import torch, so the module itself does not.
"""

from __future__ import annotations

import argparse
import importlib
import operator
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from smx_export.contract import ALL_OUTPUTS, OUTPUTS
from smx_export.profile import Profile, Width
from smx_lightning.errors.unreadable import reason
from smx_lightning.tables.sources.suffixes import names_table

if TYPE_CHECKING:
    from smx_export.graph.arrays import Data
    from smx_lightning import SoftmaxRegression


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``--model-class`` and ``--data``, which :func:`model_class` and :func:`data_of` read."""
    parser.add_argument(
        "--model-class",
        metavar="MODULE:CLASS",
        help="the subclass that wrote the checkpoint, with dots or a colon; it is imported, never "
        "unpickled",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="also compare on these rows: of an .npz file x_test and y_test where present, else x "
        "and y; of several inputs an array each, by name, and y; or a table, .csv, .parquet or "
        ".feather, whose columns are found by name",
    )


def add_report_option(parser: argparse.ArgumentParser) -> None:
    """``--json``, a path for :func:`smx_export.commands.files.report_to`."""
    parser.add_argument("--json", metavar="REPORT.json", help="write the whole report there")


def add_profile_options(parser: argparse.ArgumentParser) -> None:
    """What :func:`profile_of` reads, and ``--input-range``."""
    group = parser.add_argument_group("where the file will run")
    group.add_argument(
        "--profile",
        default="portable",
        help="portable: the graph that ran everywhere. robust: log-probabilities that are right "
        "beyond 104 nats also where a runtime computes log(softmax). compact: weights of 8 or 16 "
        "bits, within the budget below. image: uint8 pixels as input. Several with commas",
    )
    group.add_argument(
        "--outputs",
        metavar="NAME,…",
        help=f"some of {', '.join(ALL_OUTPUTS)}; {','.join(OUTPUTS)} by default",
    )
    group.add_argument(
        "--input-range",
        nargs=2,
        type=float,
        metavar=("LOW", "HIGH"),
        help="what the model knows as black and white, where its checkpoint does not tell",
    )
    group.add_argument(
        "--weights", choices=get_args(Width), default="int8", help="of profile compact"
    )
    add_budget_options(group)


def add_budget_options(parser: argparse._ActionsContainer) -> None:
    """What the rounded weights of a file may cost."""
    default = Profile()
    parser.add_argument(
        "--max-accuracy-loss",
        type=float,
        default=default.max_accuracy_loss,
        help="of profile compact, on the rows of --data (default: %(default)s)",
    )
    parser.add_argument(
        "--max-nll-increase",
        type=float,
        default=default.max_nll_increase,
        help="likewise, in nats a row (default: %(default)s)",
    )


def profile_of(args: argparse.Namespace) -> Profile:
    """The profile that the options describe."""
    return Profile.of(
        args.profile,
        outputs=None if args.outputs is None else args.outputs.split(","),
        weights=args.weights,
        max_accuracy_loss=args.max_accuracy_loss,
        max_nll_increase=args.max_nll_increase,
    )


def data_of(args: argparse.Namespace, model: SoftmaxRegression) -> Data | None:
    """Inputs, targets and weights in the file ``--data``, whose labels are the model's classes."""
    if args.data is None:
        return None
    from smx_export.parity.user_data import mixed_data, table_data

    if names_table(args.data):
        return table_data(args.data, model)
    if model.input_dtype != "float32":  # several inputs, or integers
        return mixed_data(args.data, model)
    from smx_export.parity.user_data import targets_in
    from smx_lightning.data.npz import inputs, read_npz

    arrays = read_npz(args.data)
    x = "x_test" if "x_test" in arrays else "x"
    exact = bool(model.preprocessing.wide_features)
    return inputs(arrays[x], x, exact=exact), *targets_in(arrays, x, model)


def model_of(args: argparse.Namespace, checkpoint: str) -> SoftmaxRegression:
    """The model in a checkpoint, of the class ``--model-class``."""
    from smx_export import convert
    from smx_lightning.checkpoint.reading import read_checkpoint

    return convert.model_of(read_checkpoint(checkpoint), model_class(args))


def model_class(args: argparse.Namespace) -> type[SoftmaxRegression]:
    """The class ``--model-class``, imported; SoftmaxRegression itself by default."""
    from smx_lightning import InputError, SoftmaxRegression

    name = args.model_class
    if name is None:
        return SoftmaxRegression
    module_name, _, class_name = name.partition(":") if ":" in name else _by_last_dot(name)
    sys.path.insert(0, str(Path.cwd()))  # as python -m does: the user's own modules lie here
    try:
        found: Any = operator.attrgetter(class_name)(importlib.import_module(module_name))
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f"expected --model-class MODULE:CLASS, got {name!r} ({reason(error)}); run where "
            f"MODULE can be imported{_instead(module_name, class_name)}"
        ) from error
    if not (isinstance(found, type) and issubclass(found, SoftmaxRegression)):
        raise InputError(f"expected a subclass of SoftmaxRegression, got {name!r}")
    return found


def _by_last_dot(name: str) -> tuple[str, str, str]:
    module, dot, class_name = name.rpartition(".")
    return (module, dot, class_name) if module else (name, "", "")


def _instead(module: str, name: str) -> str:
    """The sentence's end where the module's name is that of a running script."""
    from smx_lightning.errors.naming import SCRIPTS, how_to_name

    script = module.partition(".")[0] in SCRIPTS
    return f"; {how_to_name(f'{module}.{name}', '--model-class')}" if script else ""
