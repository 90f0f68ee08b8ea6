"""``smx-lightning`` from its arguments to its exit code, whatever happens on the way.

What the arguments alone answer is answered before torch is imported, which takes seconds.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import cast

from smx_lightning import DISTRIBUTION
from smx_lightning.cli.arguments import completed, without
from smx_lightning.cli.help import help_asked
from smx_lightning.errors.extras import TrainingNotInstalled, training_needed
from smx_lightning.errors.faults import BAD_INPUT, Fault, fault_of
from smx_lightning.errors.streams import tolerate_encodings, written_out
from smx_lightning.processes.complaints import TRACEBACK, complain
from smx_lightning.processes.ending import exit_code

PARSERS = ("argparse", "jsonargparse")  # end the process by themselves, with a code of theirs


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code, see ``--help``."""
    tolerate_encodings()
    given = list(sys.argv[1:] if args is None else args)
    text = help_asked(given)
    if text is not None:
        print(text)
        raise SystemExit(0)  # as parsers do
    return written_out(DISTRIBUTION, _run(given), BAD_INPUT)


def _run(given: list[str]) -> int:
    traced, given = TRACEBACK in given, without(TRACEBACK, given)
    try:
        given = completed(given)
        with training_needed():
            from smx_lightning.cli.commands import run
        return run(given)
    except (Exception, KeyboardInterrupt, SystemExit) as end:
        if isinstance(end, SystemExit) and _is_parser_s(end):
            raise
        fault = _fault_of(end)
        return complain(DISTRIBUTION, fault, end, traced=traced)


def _fault_of(end: BaseException) -> Fault:
    number = _ending_signal(end)
    if number is not None:
        return Fault(exit_code(number), _sentence(number))
    if isinstance(end, TrainingNotInstalled):
        return Fault(BAD_INPUT, str(end))
    commands = sys.modules.get("smx_lightning.cli.commands")  # not where torch is missing
    return cast("Fault", getattr(commands, "fault", fault_of)(end))


def _ending_signal(end: BaseException) -> signal.Signals | None:
    """The signal that an exception on its way out of the command comes from, if it is of one.

    The Trainer alone exits with 0 on SIGTERM, and with 1 on Ctrl-C.
    """
    if isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt):
        return signal.SIGINT  # the Trainer makes a SystemExit of it
    lightning = sys.modules.get("lightning.pytorch.utilities.exceptions")  # if it is there at all
    if lightning is None or not isinstance(end, lightning.SIGTERMException):
        return None
    if not end.code:  # Lightning's own
        return signal.SIGTERM
    known = {exit_code(number): number for number in signal.Signals}
    return known.get(end.code) if isinstance(end.code, int) else None


def _sentence(number: signal.Signals) -> str:
    """What has happened, and how to go on."""
    return (
        f"ended by {number.name} before all was done; start it again: a fit goes on from a "
        "checkpoint of its run with --ckpt_path, and by itself where --trainer.callbacks "
        "smx_lightning.Recovery was given"
    )


def _is_parser_s(end: SystemExit) -> bool:
    """Whether a parser ends the process: after help, or with its complaint."""
    trace = end.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return name.partition(".")[0] in PARSERS
