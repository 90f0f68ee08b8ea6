"""``smx-export convert | verify | selftest | predict | web | inspect | sidecar``.

Exit codes: 0 done and parity holds; 1 parity failed; 2 bad usage or bad input, with one sentence on
stderr; 70 a fault of this program; 130, 143 and 129 where Ctrl-C, SIGTERM or a closed terminal
ended it. torch is loaded only where there is a checkpoint.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from typing import NoReturn

from smx_export import __version__
from smx_export.commands import (
    BAD_INPUT,
    DONE,
    convert,
    inspect,
    predict,
    selftest,
    sidecar,
    verify,
    web,
)
from smx_export.errors import FileError, NotInstalled
from smx_lightning.errors import InputError
from smx_lightning.errors.completion import OPTIONS, require_shtab, shell_asked
from smx_lightning.errors.extras import TrainingNotInstalled, training_needed
from smx_lightning.errors.faults import Fault, fault_of
from smx_lightning.errors.streams import tolerate_encodings, written_out
from smx_lightning.errors.text import printable, shortened
from smx_lightning.processes.complaints import TRACEBACK, complain
from smx_lightning.processes.ending import code_of, ended_in_order

PROGRAM = "smx-export"
COMMANDS = (convert, verify, web, selftest, predict, inspect, sidecar)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    tolerate_encodings()
    given = list(sys.argv[1:] if argv is None else argv)
    if given and given[0].partition("=")[0] in OPTIONS:
        return written_out(PROGRAM, _complete(given), BAD_INPUT)
    args = _parser().parse_args([argument for argument in given if argument != TRACEBACK])
    warnings.filterwarnings("ignore")  # of libraries, about themselves: not the user's business
    return written_out(PROGRAM, _run(args, traced=TRACEBACK in given), BAD_INPUT)


def _run(args: argparse.Namespace, *, traced: bool) -> int:
    """The exit code of a subcommand."""
    try:
        with ended_in_order(), training_needed():
            code: int = args.run(args)
            return code
    except KeyboardInterrupt as end:
        fault = Fault(code_of(end), "ended by a signal before all was done; start it again")
        return complain(PROGRAM, fault, end, traced=traced)
    except (Exception, SystemExit) as error:
        fault = fault_of(error, (FileError, NotInstalled, TrainingNotInstalled))
        return complain(PROGRAM, fault, error, traced=traced)


def _complete(given: Sequence[str]) -> int:
    """Print what makes a shell complete the options; the exit code."""
    try:
        shell = shell_asked(given)
        assert shell is not None  # these arguments ask for one
        require_shtab()
        import shtab

        print(shtab.complete(_parser(), shell))
    except InputError as error:
        return complain(PROGRAM, fault_of(error), error)
    return DONE


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """End with the usage; arguments that it quotes may be names of files."""
        super().error(shortened(printable(message)))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Ship a softmax regression as one ONNX file, and prove that it is the model.",
        epilog="Exit codes: 0 parity holds, 1 parity failed, 2 bad usage or bad input, or code of "
        "yours that failed, 70 a fault of this program. --traceback shows where an error came up; "
        "--print-completion bash, or zsh, prints what makes a shell complete the options.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
