"""``smx-export verify``: a file against its checkpoint, and on other runtimes."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from smx_export.commands import DONE, PARITY_FAILED, Subparsers
from smx_export.commands.files import (
    add_limits,
    check_apart,
    checkpoint_in,
    limits_of,
    report_to,
)
from smx_export.commands.options import (
    add_budget_options,
    add_model_options,
    add_report_option,
    data_of,
    model_of,
)
from smx_export.errors import FileError
from smx_export.targets import NAMES, named
from smx_lightning.errors.text import printable


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "verify",
        help="compare an ONNX file with the checkpoint it came from, or try it on other runtimes",
        description="With --checkpoint, compare an ONNX file under onnxruntime with the model in a "
        "checkpoint and with an independent float64 computation. With --targets, run it on the "
        "runtimes named, and hold their answers against those that it carries; a runtime that is "
        "not installed is reported as not run.",
        epilog="Examples: smx-export verify digits.onnx --checkpoint best.ckpt --data mine.npz; "
        "smx-export verify digits.onnx --targets all",
    )
    parser.add_argument("file", metavar="FILE.onnx", help="the file to verify")
    parser.add_argument("--checkpoint", help="the checkpoint it should equal, or a run's folder")
    parser.add_argument(
        "--targets", metavar="all|NAME,…", help=f"runtimes to try it on: {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--input-shape",
        nargs="+",
        type=int,
        metavar="N",
        help="shape of one input, where the file was exported with one that its checkpoint lacks",
    )
    add_model_options(parser)
    add_budget_options(parser)
    add_report_option(parser)
    add_limits(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    _check_options(args)
    if args.checkpoint is not None:
        args.checkpoint = checkpoint_in(args.checkpoint)
    limits = limits_of(args)
    targets = [] if args.targets is None else named(args.targets)
    check_apart(args.file, args.checkpoint, args.data, args.json)
    with report_to(args.json) as report:
        passed, more = True, []
        if args.checkpoint is not None:
            from smx_export.parity.comparison import comparison
            from smx_export.parity.interface import Budget

            model = model_of(args, args.checkpoint)
            budget = Budget(args.max_accuracy_loss, args.max_nll_increase)
            data, shape = data_of(args, model), args.input_shape
            compared = comparison(model, args.file, data, budget, shape)
            found = compared.report(args.file, limits)
            report(found)
            passed, more = found.passed, compared.inputs.batches(compared.own)
        if targets and passed:  # a file that is not the model is tried nowhere
            from smx_export.targets.matrix import matrix

            own: dict[str, Any] = {} if args.max_seconds is None else {"patience": limits.seconds}
            own |= {} if args.max_memory is None else {"memory": limits.memory}
            ran = matrix(args.file, targets, more=more, progress=_progress, **own)
            report(ran)
            passed = ran.passed
    return DONE if passed else PARITY_FAILED


def _check_options(args: argparse.Namespace) -> None:
    """Complain about nothing to compare with, and options that would be passed over."""
    if args.checkpoint is not None:
        return
    if args.targets is None:
        raise FileError("verify needs something to compare with: --checkpoint, --targets, or both")
    for option, value in (
        ("--data", args.data),
        ("--model-class", args.model_class),
        ("--input-shape", args.input_shape),
    ):
        if value is not None:
            raise FileError(f"expected {option} with --checkpoint, got it without; add one")


def _progress(target: str) -> None:
    print(printable(f"{target} …"), file=sys.stderr, flush=True)
