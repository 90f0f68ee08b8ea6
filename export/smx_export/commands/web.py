"""``smx-export web``: a page that runs the model in the browser (:mod:`smx_export.web.site`)."""

from __future__ import annotations

import argparse
import threading
import webbrowser
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from smx_export.artifact.files import is_checkpoint
from smx_export.commands import DONE, PARITY_FAILED, Subparsers
from smx_export.commands.convert import add_size_options, exported
from smx_export.commands.files import checkpoint_in
from smx_export.commands.options import add_model_options, add_profile_options, profile_of
from smx_lightning.errors.text import printable


def add_parser(subparsers: Subparsers) -> None:
    """See :mod:`smx_export.commands`."""
    parser = subparsers.add_parser(
        "web",
        help="write a page that runs the model in the browser",
        description="Write a folder for any web server: draw or drop an image, or type the "
        "features, and see the probabilities; the page checks the file's self-test when it loads. "
        "It needs npm's onnxruntime-web: npm install onnxruntime-web.",
        epilog="Example: smx-export web best.ckpt site --open",
    )
    parser.add_argument(
        "model", metavar="MODEL", help="an exported ONNX file, a checkpoint, or a run's folder"
    )
    parser.add_argument("folder", metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--serve", action="store_true", help="serve it on this machine until Ctrl-C"
    )
    parser.add_argument("--open", action="store_true", help="serve it, and open it in the browser")
    parser.add_argument("--port", type=int, default=0, help="to serve at; a free one by default")
    add_model_options(parser)
    add_profile_options(parser)
    add_size_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """See :mod:`smx_export.commands`."""
    profile_of(args)  # what it refuses is refused before torch is imported
    from smx_export.artifact.sidecar import sidecar
    from smx_export.web.site import write_site

    with TemporaryDirectory() as folder:
        model = Path(checkpoint_in(args.model))
        if is_checkpoint(model):
            export = exported(args, str(model), Path(folder) / f"{model.stem}.onnx", print)
            if export is None:
                return PARITY_FAILED
            model = export.path
        site = write_site(model, sidecar(model), Path(args.folder))
    print(printable(f"wrote {site.folder} ({site.size_bytes:,} bytes in {len(site.sizes)} files)"))
    if args.serve or args.open:
        _serve(site.folder, args.port, in_browser=args.open)
    return DONE


def _serve(folder: Path, port: int, *, in_browser: bool) -> None:
    """Serve a page until Ctrl-C."""
    from smx_export.web.site import serve

    with serve(folder, port) as url:
        print(f"serving {url} until Ctrl-C", flush=True)
        if in_browser:
            webbrowser.open(url)
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
