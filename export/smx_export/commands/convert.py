"""``smx-export convert``: a checkpoint → one verified ONNX file (:mod:`smx_export.convert`)."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from smx_export.commands import DONE, PARITY_FAILED, Subparsers
from smx_export.commands.files import check_apart, checkpoint_in, report_to
from smx_export.commands.options import (
    add_model_options,
    add_profile_options,
    add_report_option,
    data_of,
    model_class,
    model_of,
    profile_of,
)
from smx_export.errors import ParityError
from smx_lightning.errors.text import printable

if TYPE_CHECKING:
    from smx_export.commands.files import Report
    from smx_export.convert import Export


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "convert",
        help="write a checkpoint as a verified ONNX file",
        description="Write a checkpoint as one ONNX file. It appears under its name only after "
        "every parity check has passed.",
        epilog="Examples: smx-export convert best.ckpt digits.onnx --profile robust; "
        "smx-export convert lightning_logs/version_0 digits.onnx --batch 1",
    )
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a checkpoint that smx_lightning wrote, or the folder of a run",
    )
    parser.add_argument("output", metavar="OUT.onnx", help="the file to write")
    parser.add_argument(
        "--sidecar",
        action="store_true",
        help="also write OUT.json: class names and self-test, for runtimes that read no metadata",
    )
    add_model_options(parser)
    add_profile_options(parser)
    add_size_options(parser)
    add_report_option(parser)
    parser.set_defaults(run=run)


def add_size_options(parser: argparse.ArgumentParser) -> None:
    """What :func:`exported` reads besides, of files of fixed sizes."""
    group = parser.add_argument_group("what the file is of a fixed size in")
    group.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="take N rows and no other number, for NPUs and compilers that want all shapes fixed",
    )
    group.add_argument(
        "--top-k",
        type=int,
        metavar="K",
        help="also output the K most probable classes and their probabilities: top_classes, "
        "top_probs",
    )


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    profile_of(args)  # what it refuses is refused before torch is imported
    beside = Path(args.output).with_suffix(".json") if args.sidecar else None
    checkpoint = checkpoint_in(args.checkpoint)
    check_apart(args.output, args.data, args.json, beside)
    check_apart(checkpoint, args.json, beside)
    if beside is not None:
        from smx_lightning.processes.files import check_writable

        check_writable(beside)
    with report_to(args.json) as report:  # first of all: a report that cannot be kept ends it
        export = exported(args, checkpoint, args.output, report)
    if export is None:
        return PARITY_FAILED
    print(printable(f"wrote {export.path} ({export.path.stat().st_size:,} bytes)"))
    if args.sidecar:
        from smx_export.artifact.sidecar import write_sidecar

        print(printable(f"wrote {write_sidecar(export.path)}"))
    return DONE


def exported(
    args: argparse.Namespace, checkpoint: str, output: str | Path, report: Report
) -> Export | None:
    """Export as the shared options say; ``None`` where the file is not the model, which is said."""
    from smx_export.convert import export_onnx

    chosen = model_class(args)
    data = None if args.data is None else data_of(args, model_of(args, checkpoint))
    try:
        export = export_onnx(
            checkpoint,
            output,
            model_class=chosen,
            profile=profile_of(args),
            batch=args.batch,
            top_k=args.top_k,
            input_range=args.input_range and tuple(args.input_range),
            data=data,
        )
    except ParityError as error:
        report(error.report)
        print(printable(f"smx-export: {error}"), file=sys.stderr)
        return None
    report(export.report)
    return export
