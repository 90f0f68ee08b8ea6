"""``smx-export predict``: rows in a file → a CSV file (:mod:`smx_export.predict`)."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import get_args

from smx_export.commands import DONE, Subparsers
from smx_export.commands.files import add_limits, check_apart, limits_of
from smx_export.errors import InputRangeWarning
from smx_export.runtime.policy import OnNan, OnRange
from smx_lightning.errors.text import printable


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "predict",
        help="write what a file answers to rows as a CSV file",
        description="Write class and probabilities of every row, in order, as a CSV file. The "
        "file's self-test is run first. Neither torch nor the checkpoint is needed.",
        epilog="Example: smx-export predict digits.onnx new.npz predictions.csv",
    )
    parser.add_argument("file", metavar="FILE.onnx", help="the file to ask")
    parser.add_argument(
        "rows", metavar="ROWS", help=".npz with x (then x_val, x_test, where present), or .npy"
    )
    parser.add_argument("output", metavar="OUT.csv", help="the file to write, whole or not at all")
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
    limits = limits_of(args)
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputRangeWarning)
        warnings.showwarning = _say  # which the context puts back
        count = predict(
            args.file,
            args.rows,
            args.output,
            on_nan=args.nan,
            on_range=args.range,
            limits=limits,
            progress=lambda done, total: _say(f"{done:,} of {total:,} rows"),
        )
    print(printable(f"wrote {args.output} ({count:,} rows)"))
    return DONE


def _say(message: object, *_: object, **__: object) -> None:
    """Print a line beside the output; takes what ``warnings.showwarning`` is given, too."""
    print(printable(f"smx-export: {message}"), file=sys.stderr, flush=True)
