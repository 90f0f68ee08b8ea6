"""``smx-export predict``: rows in a file → a file of answers (:mod:`smx_export.predict`)."""

from __future__ import annotations

import argparse
import csv
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, get_args

from smx_export.commands import DONE, Subparsers
from smx_export.commands.files import add_limits, check_apart, limits_of
from smx_export.commands.progress import Progress
from smx_export.errors import InputRangeWarning, TableWarning
from smx_export.runtime.policy import OnNan, OnRange
from smx_lightning.errors.text import printable

if TYPE_CHECKING:
    from smx_export.predict.tables import TableOptions


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "predict",
        help="write what a file answers to rows as a CSV or Parquet file",
        description="Write class and probabilities of every row, in order, as a CSV or Parquet "
        "file. The file's self-test is run first. Neither torch nor the checkpoint is needed.",
        epilog="Examples: smx-export predict digits.onnx new.npz predictions.csv; "
        "smx-export predict wine.onnx new.csv predictions.parquet --keep id",
    )
    parser.add_argument("file", metavar="FILE.onnx", help="the file to ask")
    parser.add_argument(
        "rows",
        metavar="ROWS",
        help=".npz with x (then x_val, x_test, where present), or .npy; or a table, .csv, .parquet "
        "or .feather, or a folder of them, whose columns are found by the names in the file",
    )
    parser.add_argument(
        "output", metavar="OUT", help="the .csv or .parquet file to write, whole or not at all"
    )
    parser.add_argument(
        "--keep",
        metavar="all|none|NAME,…",
        help="columns of a table that are written beside the answers (default: all); a name with a "
        "comma in double quotes",
    )
    parser.add_argument(
        "--separator", metavar="C", help="between the columns of a CSV file (default: a comma)"
    )
    parser.add_argument("--decimal", metavar="C", help="its decimal point (default: .)")
    parser.add_argument(
        "--nan",
        choices=get_args(OnNan),
        default="raise",
        help="a row with NaN, or without an answer: refuse the rows, leave its class empty, or "
        "write what the file answers (default: %(default)s)",
    )
    parser.add_argument(
        "--range",
        choices=get_args(OnRange),
        default="warn",
        help="rows clearly in other units than the training data (default: %(default)s)",
    )
    add_limits(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    from smx_export.predict import predict

    check_apart(args.file, args.rows, args.output)
    limits, told = limits_of(args), Progress()
    with warnings.catch_warnings(), closing(told):
        for kind in (InputRangeWarning, TableWarning):
            warnings.simplefilter("always", kind)
        warnings.showwarning = told.say  # which the context puts back
        count = predict(
            args.file,
            args.rows,
            args.output,
            table=_options(args),
            on_nan=args.nan,
            on_range=args.range,
            limits=limits,
            progress=told,
            patience=told.patience,
        )
    print(printable(f"wrote {args.output} ({count:,} rows)"))
    return DONE


def _options(args: argparse.Namespace) -> TableOptions | None:
    """What is said of a table, ``None`` where nothing is."""
    from smx_export.predict.tables import TableOptions

    told = {"keep": args.keep, "separator": args.separator, "decimal": args.decimal}
    told = {name: value for name, value in told.items() if value is not None}
    if told.get("keep") not in (None, "all", "none"):
        told["keep"] = next(csv.reader([args.keep]), [])
    return TableOptions(**told) if told else None
