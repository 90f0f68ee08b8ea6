"""The files of a command: one to read, none written over another, and reports as they come."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smx_export.errors import FileError
from smx_export.targets.limited import LIMITS, Limits
from smx_lightning.errors.text import printable

if TYPE_CHECKING:
    from smx_export.parity.report import ParityReport
    from smx_export.targets.report import Matrix

    Report = Callable[[ParityReport | Matrix], None]


MOST = 1e6  # seconds or GB
BEST = "best.ckpt"  # as the command line calls it
SHOWN = 5  # checkpoints of a folder with several


def add_file(parser: argparse.ArgumentParser, purpose: str) -> None:
    """The file of a command that reads it and prints what it finds, in words or as JSON."""
    parser.add_argument("file", metavar="FILE.onnx", help=f"the file {purpose}")
    parser.add_argument("--json", action="store_true", help="print JSON")


def checkpoint_in(path: str) -> str:
    """The best checkpoint of a run, where its folder is given; any other path as it is.

    Raises:
        FileError: Where there is none, or more than one may be the best.
    """
    folder = Path(path)
    if not folder.is_dir():
        return path
    found = sorted(file for file in folder.rglob("*.ckpt") if file.is_file())
    best = [file for file in found if file.name == BEST] or [
        file for file in found if not file.name.startswith("last")
    ]
    if not found:
        raise FileError(
            f"expected a checkpoint at {path}, found none; check the path, of a file or of a run's "
            "folder"
        )
    if len(best or found) != 1:
        names = ", ".join(str(file.relative_to(folder)) for file in (best or found)[:SHOWN])
        raise FileError(
            f"expected the folder of one run, with {BEST} or one other checkpoint, got {path} with "
            f"{names}; name the checkpoint itself"
        )
    return str((best or found)[0])


def check_apart(*paths: str | Path | None) -> None:
    """Complain about a file that would be written over another."""
    given = [path for path in paths if path is not None]
    # Unlike Path.resolve it does not raise on a loop of links, which reading tells better.
    if len({os.path.realpath(path) for path in given}) < len(given):
        raise FileError(
            f"expected a file of its own for each of {', '.join(map(str, given))}, got the same "
            "twice; choose another name"
        )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Options that :func:`limits_of` reads."""
    group = parser.add_argument_group("what a file may take: it is run in a process of its own")
    group.add_argument(
        "--max-seconds",
        type=float,
        metavar="S",
        help=f"to load it and for its self-test, and for every block of rows "
        f"(default: {LIMITS.seconds:g})",
    )
    group.add_argument(
        "--max-memory",
        type=float,
        metavar="GB",
        help=f"beside eight times its size; on Linux (default: {LIMITS.memory / 2**30:g})",
    )


def limits_of(args: argparse.Namespace) -> Limits:
    """What the options say.

    Raises:
        FileError: For what is no amount.
    """
    found = {"seconds": args.max_seconds, "memory": args.max_memory}
    for name, value in found.items():
        if value is not None and not 0 < value <= MOST:
            raise FileError(
                f"expected --max-{name} above 0 and up to {MOST:g}, got {value:g}; leave it out for"
                " the default"
            )
    seconds, memory = found.values()
    return Limits(
        LIMITS.seconds if seconds is None else seconds,
        LIMITS.memory if memory is None else int(memory * 2**30),
    )


@contextmanager
def report_to(path: str | None) -> Iterator[Report]:
    """A function that prints reports, and keeps them as JSON where there is a path for it.

    One report is the whole of the file; where a matrix follows a parity report, it stands in it
    under ``targets``.
    """
    if path is None:
        yield print
        return
    from smx_lightning.processes.files import written_whole

    kept: dict[str, Any] = {}
    with written_whole(path) as draft:

        def report(found: ParityReport | Matrix) -> None:
            print(found)
            values = json.loads(found.to_json())
            kept.update({"targets": values} if kept else values)
            draft.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")

        yield report
    print(printable(f"wrote {path}"))
