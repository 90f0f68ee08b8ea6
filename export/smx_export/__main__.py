"""``smx-export convert | verify | selftest | predict | web | inspect``.

Exit codes: 0 done and parity holds; 1 parity failed; 2 bad usage or bad input, with one sentence on
stderr. torch is loaded only where there is a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from smx_export import __version__
from smx_export.commands import BAD_INPUT, convert, inspect, predict, selftest, verify, web
from smx_export.errors import NotInstalled
from smx_lightning.errors.text import printable, shortened, tolerate_encodings
from smx_lightning.errors.unreadable import reason

COMMANDS = (convert, verify, web, selftest, predict, inspect)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    tolerate_encodings()
    args = _parser().parse_args(argv)
    warnings.filterwarnings("ignore")  # of libraries, about themselves: not the user's business
    try:
        code: int = args.run(args)
    except (ValueError, OSError, NotInstalled) as error:
        print(shortened(printable(f"smx-export: {error}")), file=sys.stderr)
        code = BAD_INPUT
    except MemoryError as error:
        said = f"expected input that there is memory for, got more ({reason(error)}); use less"
        print(shortened(printable(f"smx-export: {said}")), file=sys.stderr)
        code = BAD_INPUT
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with the usage; arguments that it quotes may be names of files."""
        super().error(shortened(printable(message)))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="smx-export",
        description="Ship a softmax regression as one ONNX file, and prove that it is the model.",
        epilog="Exit codes: 0 parity holds, 1 parity failed, 2 bad usage or bad input.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
