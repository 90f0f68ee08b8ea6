"""``smx-export selftest``: a file's own test, on one runtime (:mod:`smx_export.targets`)."""

from __future__ import annotations

import argparse

from smx_export.commands import DONE, PARITY_FAILED, Subparsers
from smx_export.commands.files import add_file, add_limits, limits_of
from smx_export.targets import NAMES
from smx_export.targets.limited import Limited


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "selftest",
        help="ask a file whether it still answers what it answered when it was exported",
        description="Check a file's seal, the hash of its weights, and the answers that it "
        "carries, on one runtime of this machine. Neither torch nor the checkpoint is needed.",
        epilog="Example: smx-export selftest digits.onnx --target openvino",
    )
    parser.add_argument("--target", default="onnxruntime", help=", ".join(NAMES), choices=NAMES)
    add_file(parser, "to test")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    from smx_export.targets.selftest import selftest

    found = selftest(args.file, Limited(args.target, limits_of(args)))
    print(found.to_json() if args.json else found)
    return DONE if found.passed else PARITY_FAILED
