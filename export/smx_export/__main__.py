"""``smx-export convert | verify | selftest | predict | web | inspect | sidecar``.

Exit codes: 0 done and parity holds; 1 parity failed; 2 bad usage or bad input, with one sentence on
stderr; 130, 143 and 129 where Ctrl-C, SIGTERM or a closed terminal ended it. torch is loaded only
where there is a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from smx_export import __version__
from smx_export.commands import BAD_INPUT, convert, inspect, predict, selftest, sidecar, verify, web
from smx_export.errors import NotInstalled
from smx_lightning.errors.extras import training_needed
from smx_lightning.errors.streams import tolerate_encodings, written_out
from smx_lightning.errors.text import printable, shortened
from smx_lightning.errors.unreadable import reason, sentence_of
from smx_lightning.processes.ending import code_of, ended_in_order

COMMANDS = (convert, verify, web, selftest, predict, inspect, sidecar)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    tolerate_encodings()
    args = _parser().parse_args(argv)
    warnings.filterwarnings("ignore")  # of libraries, about themselves: not the user's business
    return written_out("smx-export", _run(args), BAD_INPUT)


def _run(args: argparse.Namespace) -> int:
    """The exit code of a subcommand."""
    try:
        with ended_in_order(), training_needed():
            code: int = args.run(args)
            return code
    except (ValueError, NotInstalled) as error:
        return _said(str(error))
    except OSError as error:
        return _said(sentence_of(error))
    except MemoryError as error:
        return _said(
            f"expected input that there is memory for, got more ({reason(error)}); use less"
        )
    except KeyboardInterrupt as end:
        return _said("ended by a signal before all was done; start it again", code_of(end))


def _said(sentence: str, code: int = BAD_INPUT) -> int:
    """Say why it ends; the exit code."""
    print(shortened(printable(f"smx-export: {sentence}")), file=sys.stderr)
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
