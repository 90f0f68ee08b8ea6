"""``smx-export inspect``: what is in a file (:mod:`smx_export.artifact.describe`)."""

from __future__ import annotations

import argparse
import json

from smx_export.commands import DONE, Subparsers
from smx_export.commands.files import add_file


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "inspect",
        help="say what is in an ONNX file",
        description="Print inputs, outputs, class names, versions and provenance of a file.",
        epilog="Example: smx-export inspect digits.onnx",
    )
    add_file(parser, "to look into")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    from smx_export.artifact.describe import describe

    description = describe(args.file)
    print(json.dumps(description.to_dict(), indent=2) if args.json else description)
    return DONE
