"""``smx-export sidecar``: a file's metadata as JSON (:mod:`smx_export.artifact.sidecar`)."""

from __future__ import annotations

import argparse

from smx_export.commands import DONE, Subparsers
from smx_export.commands.files import check_apart
from smx_lightning.errors.text import printable


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "sidecar",
        help="write what an ONNX file says of itself as a JSON file beside it",
        description="Write class names, input, outputs and self-test of an exported file as JSON, "
        "for runtimes that read no metadata: what convert --sidecar writes, of a file that you "
        "have. A file that was changed since its export is refused. Neither torch nor the "
        "checkpoint is needed.",
        epilog="Example: smx-export sidecar model.onnx",
    )
    parser.add_argument("file", metavar="FILE.onnx", help="the file to read")
    parser.add_argument(
        "output",
        metavar="OUT.json",
        nargs="?",
        help="the file to write (default: FILE.json beside it, where the deploy kits look)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    from smx_export.artifact.sidecar import path_beside, write_sidecar

    beside = path_beside(args.file) if args.output is None else args.output
    check_apart(args.file, beside)
    written = write_sidecar(args.file, beside)
    print(printable(f"wrote {written} ({written.stat().st_size:,} bytes)"))
    return DONE
