"""``smx-export convert | verify | inspect``.

Exit codes: 0 done and parity holds; 1 parity failed; 2 bad usage or bad input, with one sentence on
stderr. torch is loaded only by the commands that need it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from smx_export.errors import ParityError

if TYPE_CHECKING:
    from smx_export.parity import Data
    from smx_export.report import ParityReport
    from smx_lightning import SoftmaxRegression

DONE, PARITY_FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    warnings.filterwarnings("ignore")  # of libraries, about themselves: not the user's business
    try:
        code: int = args.run(args)
    except (ValueError, OSError) as error:
        print(f"smx-export: {error}", file=sys.stderr)
        code = BAD_INPUT
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="smx-export",
        description="Ship a softmax regression as one ONNX file, and prove that it is the model.",
        epilog="Exit codes: 0 parity holds, 1 parity failed, 2 bad usage or bad input.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    convert = commands.add_parser(
        "convert",
        help="write a checkpoint as a verified ONNX file",
        description="Write a checkpoint as one ONNX file. It appears under its name only after "
        "every parity check has passed.",
        epilog="Example: smx-export convert best.ckpt digits.onnx",
    )
    convert.add_argument("checkpoint", help="a checkpoint that smx_lightning wrote")
    convert.add_argument("output", metavar="OUT.onnx", help="the file to write")
    convert.set_defaults(run=_convert)

    verify = commands.add_parser(
        "verify",
        help="compare an ONNX file with the checkpoint it came from",
        description="Compare an ONNX file under onnxruntime with the model in a checkpoint and "
        "with an independent float64 computation.",
        epilog="Example: smx-export verify digits.onnx --checkpoint best.ckpt --data mine.npz",
    )
    verify.add_argument("file", metavar="FILE.onnx", help="the file to verify")
    verify.add_argument("--checkpoint", required=True, help="the checkpoint it should equal")
    verify.set_defaults(run=_verify)

    for command in (convert, verify):
        command.add_argument(
            "--model-class",
            metavar="MODULE:CLASS",
            help="the subclass that wrote the checkpoint; it is imported, never unpickled",
        )
        command.add_argument(
            "--data",
            metavar="FILE.npz",
            help="also compare on these rows: x_test and y_test where present, else x and y",
        )
        command.add_argument("--json", metavar="REPORT.json", help="write the whole report there")

    inspect = commands.add_parser(
        "inspect",
        help="say what is in an ONNX file",
        description="Print inputs, outputs, class names, versions and provenance of a file.",
        epilog="Example: smx-export inspect digits.onnx",
    )
    inspect.add_argument("file", metavar="FILE.onnx", help="the file to look into")
    inspect.add_argument("--json", action="store_true", help="print JSON")
    inspect.set_defaults(run=_inspect)
    return parser


def _convert(args: argparse.Namespace) -> int:
    from smx_export.convert import export_onnx

    model_class = _model_class(args.model_class)
    data = None if args.data is None else _data(_model(args), args.data)
    with _report_to(args.json) as report:  # first of all: a report that cannot be kept ends it
        try:
            export = export_onnx(args.checkpoint, args.output, model_class=model_class, data=data)
        except ParityError as error:
            report(error.report)
            print(f"smx-export: {error}", file=sys.stderr)
            return PARITY_FAILED
        report(export.report)
    print(f"wrote {export.path} ({export.path.stat().st_size:,} bytes)")
    return DONE


def _verify(args: argparse.Namespace) -> int:
    from smx_export.parity import check_parity

    model = _model(args)
    with _report_to(args.json) as report:
        found = check_parity(model, args.file, _data(model, args.data))
        report(found)
    return DONE if found.passed else PARITY_FAILED


def _inspect(args: argparse.Namespace) -> int:
    from smx_export.describe import describe

    description = describe(args.file)
    print(json.dumps(description.to_dict(), indent=2) if args.json else description)
    return DONE


@contextmanager
def _report_to(path: str | None) -> Iterator[Callable[[ParityReport], None]]:
    """A function that prints a report, and keeps it as JSON where there is a path for it."""
    if path is None:
        yield print
        return
    from smx_lightning.files import written_whole

    with written_whole(path) as draft:

        def report(found: ParityReport) -> None:
            print(found)
            draft.write_text(found.to_json() + "\n", encoding="utf-8")

        yield report
    print(f"wrote {path}")


def _data(model: SoftmaxRegression, path: str | None) -> Data | None:
    if path is None:
        return None
    from smx_lightning.data.npz import inputs, labels, read_npz

    arrays = read_npz(path)
    x, y = ("x_test", "y_test") if "x_test" in arrays else ("x", "y")
    return inputs(arrays[x], x), labels(arrays[y], model.class_names)


def _model(args: argparse.Namespace) -> SoftmaxRegression:
    from smx_export.convert import model_of
    from smx_lightning.checkpoint import read_checkpoint

    return model_of(read_checkpoint(args.checkpoint), _model_class(args.model_class))


def _model_class(name: str | None) -> type[SoftmaxRegression]:
    from smx_lightning import InputError, SoftmaxRegression

    if name is None:
        return SoftmaxRegression
    module_name, _, class_name = name.partition(":")
    sys.path.insert(0, os.curdir)  # as python -m does: the user's own modules lie here
    try:
        found: Any = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise InputError(
            f"expected --model-class MODULE:CLASS, got {name!r} ({error}); run where MODULE can be "
            "imported"
        ) from error
    if not (isinstance(found, type) and issubclass(found, SoftmaxRegression)):
        raise InputError(f"expected a subclass of SoftmaxRegression, got {name!r}")
    return found


if __name__ == "__main__":
    sys.exit(main())
