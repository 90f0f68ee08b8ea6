"""``smx-export convert | verify | selftest | predict | web | inspect``.

Exit codes: 0 done and parity holds; 1 parity failed; 2 bad usage or bad input, with one sentence on
stderr. torch is loaded only where there is a checkpoint.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import threading
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, get_args

from smx_export.artifact.files import is_checkpoint
from smx_export.contract import ALL_OUTPUTS, OUTPUTS
from smx_export.errors import FileError, InputRangeWarning, ParityError
from smx_export.profile import Profile, Width
from smx_export.runtime.policy import OnNan, OnRange
from smx_export.targets import NAMES, NotInstalled, named, target

if TYPE_CHECKING:
    from smx_export.convert import Export
    from smx_export.graph.arrays import Data
    from smx_export.parity.report import ParityReport
    from smx_export.targets.matrix import Matrix
    from smx_lightning import SoftmaxRegression

DONE, PARITY_FAILED, BAD_INPUT = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = _parser().parse_args(argv)
    warnings.filterwarnings("ignore")  # of libraries, about themselves: not the user's business
    try:
        code: int = args.run(args)
    except (ValueError, OSError, NotInstalled) as error:
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
        epilog="Example: smx-export convert best.ckpt digits.onnx --profile robust",
    )
    convert.add_argument("checkpoint", help="a checkpoint that smx_lightning wrote")
    convert.add_argument("output", metavar="OUT.onnx", help="the file to write")
    convert.add_argument(
        "--sidecar",
        action="store_true",
        help="also write OUT.json: class names and self-test, for runtimes that read no metadata",
    )
    convert.set_defaults(run=_convert)

    verify = commands.add_parser(
        "verify",
        help="compare an ONNX file with the checkpoint it came from, or try it on other runtimes",
        description="With --checkpoint, compare an ONNX file under onnxruntime with the model in a "
        "checkpoint and with an independent float64 computation. With --targets, run it on the "
        "runtimes named, and hold their answers against those that it carries; a runtime that is "
        "not installed is reported as not run.",
        epilog="Examples: smx-export verify digits.onnx --checkpoint best.ckpt --data mine.npz; "
        "smx-export verify digits.onnx --targets all",
    )
    verify.add_argument("file", metavar="FILE.onnx", help="the file to verify")
    verify.add_argument("--checkpoint", help="the checkpoint it should equal")
    verify.add_argument(
        "--targets", metavar="all|NAME,…", help=f"runtimes to try it on: {', '.join(NAMES)}"
    )
    verify.set_defaults(run=_verify)

    web = commands.add_parser(
        "web",
        help="write a page that runs the model in the browser",
        description="Write a folder for any web server: draw or drop an image, or type the "
        "features, and see the probabilities; the page checks the file's self-test when it loads. "
        "It needs npm's onnxruntime-web: npm install onnxruntime-web.",
        epilog="Example: smx-export web best.ckpt site --open",
    )
    web.add_argument("model", metavar="MODEL", help="an exported ONNX file, or a checkpoint")
    web.add_argument("folder", metavar="DIR", help="the folder to write")
    web.add_argument("--serve", action="store_true", help="serve it on this machine until Ctrl-C")
    web.add_argument("--open", action="store_true", help="serve it, and open it in the browser")
    web.add_argument("--port", type=int, default=0, help="to serve at; a free one by default")
    web.set_defaults(run=_web)

    for command in (convert, verify, web):
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
    for command in (convert, web):
        _add_profile(command)
    for command in (convert, verify):
        command.add_argument("--json", metavar="REPORT.json", help="write the whole report there")

    selftest = commands.add_parser(
        "selftest",
        help="ask a file whether it still answers what it answered when it was exported",
        description="Check a file's seal, the hash of its weights, and the answers that it "
        "carries, on one runtime of this machine. Neither torch nor the checkpoint is needed.",
        epilog="Example: smx-export selftest digits.onnx --target openvino",
    )
    selftest.add_argument("--target", default="onnxruntime", help=", ".join(NAMES), choices=NAMES)
    selftest.set_defaults(run=_selftest)
    predict = commands.add_parser(
        "predict",
        help="write what a file answers to rows as a CSV file",
        description="Write class and probabilities of every row, in order, as a CSV file. The "
        "file's self-test is run first. Neither torch nor the checkpoint is needed.",
        epilog="Example: smx-export predict digits.onnx new.npz predictions.csv",
    )
    predict.add_argument("file", metavar="FILE.onnx", help="the file to ask")
    predict.add_argument(
        "rows", metavar="ROWS", help=".npz with x (then x_val, x_test, where present), or .npy"
    )
    predict.add_argument("output", metavar="OUT.csv", help="the file to write, whole or not at all")
    predict.add_argument(
        "--nan",
        choices=get_args(OnNan),
        default="raise",
        help="a row with NaN, or without an answer: refuse the rows, leave its class empty, or "
        "write what the file answers (default: %(default)s)",
    )
    predict.add_argument(
        "--range",
        choices=get_args(OnRange),
        default="warn",
        help="rows clearly in other units than the training data (default: %(default)s)",
    )
    predict.set_defaults(run=_predict)
    inspect = commands.add_parser(
        "inspect",
        help="say what is in an ONNX file",
        description="Print inputs, outputs, class names, versions and provenance of a file.",
        epilog="Example: smx-export inspect digits.onnx",
    )
    inspect.set_defaults(run=_inspect)
    for command, whose in ((selftest, "to test"), (inspect, "to look into")):
        command.add_argument("file", metavar="FILE.onnx", help=f"the file {whose}")
        command.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _add_profile(command: argparse.ArgumentParser) -> None:
    default = Profile()
    group = command.add_argument_group("where the file will run")
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
    group.add_argument(
        "--max-accuracy-loss",
        type=float,
        default=default.max_accuracy_loss,
        help="of profile compact, on the rows of --data (default: %(default)s)",
    )
    group.add_argument(
        "--max-nll-increase",
        type=float,
        default=default.max_nll_increase,
        help="likewise, in nats a row (default: %(default)s)",
    )


def _convert(args: argparse.Namespace) -> int:
    beside = Path(args.output).with_suffix(".json") if args.sidecar else None
    _check_apart(args.output, args.data, args.json, beside)
    _check_apart(args.checkpoint, args.json, beside)
    with _report_to(args.json) as report:  # first of all: a report that cannot be kept ends it
        code, export = _export(args, args.checkpoint, args.output, report)
    if export is None:
        return code
    print(f"wrote {export.path} ({export.path.stat().st_size:,} bytes)")
    if args.sidecar:
        from smx_export.artifact.sidecar import write_sidecar

        print(f"wrote {write_sidecar(export.path)}")
    return DONE


def _export(
    args: argparse.Namespace, checkpoint: str, output: str | Path, report: Callable[[Any], None]
) -> tuple[int, Export | None]:
    from smx_export.convert import export_onnx

    model_class = _model_class(args.model_class)
    data = None if args.data is None else _data(_model(args, checkpoint), args.data)
    profile = Profile.of(
        args.profile,
        outputs=None if args.outputs is None else args.outputs.split(","),
        weights=args.weights,
        max_accuracy_loss=args.max_accuracy_loss,
        max_nll_increase=args.max_nll_increase,
    )
    try:
        export = export_onnx(
            checkpoint,
            output,
            model_class=model_class,
            profile=profile,
            input_range=args.input_range and tuple(args.input_range),
            data=data,
        )
    except ParityError as error:
        report(error.report)
        print(f"smx-export: {error}", file=sys.stderr)
        return PARITY_FAILED, None
    report(export.report)
    return DONE, export


def _verify(args: argparse.Namespace) -> int:
    if args.checkpoint is None and args.targets is None:
        raise FileError("verify needs something to compare with: --checkpoint, --targets, or both")
    if args.checkpoint is None:
        for option, value in (("--data", args.data), ("--model-class", args.model_class)):
            if value is not None:
                raise FileError(f"expected {option} with --checkpoint, got it without; add one")
    targets = [] if args.targets is None else named(args.targets)
    _check_apart(args.file, args.checkpoint, args.data, args.json)
    with _report_to(args.json) as report:
        passed, more = True, []
        if args.checkpoint is not None:
            from smx_export.parity.comparison import comparison

            model = _model(args, args.checkpoint)
            compared = comparison(model, args.file, _data(model, args.data))
            found = compared.report(args.file)
            report(found)
            passed, more = found.passed, compared.inputs.batches(compared.own)
        if targets and passed:  # a file that is not the model is tried nowhere
            from smx_export.targets.matrix import matrix

            ran = matrix(args.file, targets, more=more, progress=_progress)
            report(ran)
            passed = ran.passed
    return DONE if passed else PARITY_FAILED


def _progress(target: str) -> None:
    print(f"{target} …", file=sys.stderr, flush=True)


def _selftest(args: argparse.Namespace) -> int:
    from smx_export.targets.selftest import selftest

    found = selftest(args.file, target(args.target))
    print(found.to_json() if args.json else found)
    return DONE if found.passed else PARITY_FAILED


def _predict(args: argparse.Namespace) -> int:
    from smx_export.commands.predict import predict

    _check_apart(args.file, args.rows, args.output)

    def say(message: object, *_: object, **__: object) -> None:
        print(f"smx-export: {message}", file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", InputRangeWarning)
        warnings.showwarning = say  # which the context puts back
        count = predict(
            args.file,
            args.rows,
            args.output,
            on_nan=args.nan,
            on_range=args.range,
            progress=lambda done, total: say(f"{done:,} of {total:,} rows"),
        )
    print(f"wrote {args.output} ({count:,} rows)")
    return DONE


def _web(args: argparse.Namespace) -> int:
    from smx_export.artifact.sidecar import sidecar
    from smx_export.web.site import serve, write_site

    with TemporaryDirectory() as folder:
        model = Path(args.model)
        if is_checkpoint(model):
            exported = Path(folder) / f"{model.stem}.onnx"
            code, export = _export(args, args.model, exported, print)
            if export is None:
                return code
            model = exported
        site = write_site(model, sidecar(model), Path(args.folder))
    print(f"wrote {site.folder} ({site.size_bytes:,} bytes in {len(site.sizes)} files)")
    if args.serve or args.open:
        with serve(site.folder, args.port) as url:
            print(f"serving {url} until Ctrl-C", flush=True)
            if args.open:
                webbrowser.open(url)
            with suppress(KeyboardInterrupt):
                threading.Event().wait()
    return DONE


def _inspect(args: argparse.Namespace) -> int:
    from smx_export.artifact.describe import describe

    description = describe(args.file)
    print(json.dumps(description.to_dict(), indent=2) if args.json else description)
    return DONE


@contextmanager
def _report_to(path: str | None) -> Iterator[Callable[[ParityReport | Matrix], None]]:
    """A function that prints reports, and keeps them as JSON where there is a path for it.

    One report is the whole of the file; where a matrix follows a parity report, it stands in it
    under ``targets``.
    """
    if path is None:
        yield print
        return
    from smx_lightning.files import written_whole

    kept: dict[str, Any] = {}
    with written_whole(path) as draft:

        def report(found: ParityReport | Matrix) -> None:
            print(found)
            values = json.loads(found.to_json())
            kept.update({"targets": values} if kept else values)
            draft.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

        yield report
    print(f"wrote {path}")


def _check_apart(*paths: str | Path | None) -> None:
    """Complain about a file that would be written over another."""
    given = [path for path in paths if path is not None]
    # Unlike Path.resolve it does not raise on a loop of links, which reading tells better.
    if len({os.path.realpath(path) for path in given}) < len(given):
        raise FileError(
            f"expected a file of its own for each of {', '.join(map(str, given))}, got the same "
            "twice; choose another name"
        )


def _data(model: SoftmaxRegression, path: str | None) -> Data | None:
    if path is None:
        return None
    from smx_lightning.data.labels import classes_named, labels
    from smx_lightning.data.npz import inputs, read_npz

    arrays = read_npz(path)
    x, y = ("x_test", "y_test") if "x_test" in arrays else ("x", "y")
    exact = bool(model.preprocessing.wide_features)
    classes = classes_named(arrays[y], model.class_names)
    return inputs(arrays[x], x, exact=exact), labels(arrays[y], classes, y)


def _model(args: argparse.Namespace, checkpoint: str) -> SoftmaxRegression:
    from smx_export.convert import model_of
    from smx_lightning.checkpoint.reading import read_checkpoint

    return model_of(read_checkpoint(checkpoint), _model_class(args.model_class))


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
