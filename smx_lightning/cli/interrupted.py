"""Commands that a signal ends: the Trainer alone exits with 0 on SIGTERM, and with 1 on Ctrl-C."""

from __future__ import annotations

import signal
import sys

from smx_lightning.processes.ending import exit_code


def ending_signal(end: BaseException) -> signal.Signals | None:
    """The signal that an exception on its way out of the command comes from, if it is of one."""
    if isinstance(end, KeyboardInterrupt) or isinstance(end.__context__, KeyboardInterrupt):
        return signal.SIGINT  # the Trainer makes a SystemExit of it
    lightning = sys.modules.get("lightning.pytorch.utilities.exceptions")  # if it is there at all
    if lightning is None or not isinstance(end, lightning.SIGTERMException):
        return None
    if not end.code:  # Lightning's own
        return signal.SIGTERM
    known = {exit_code(number): number for number in signal.Signals}
    return known.get(end.code) if isinstance(end.code, int) else None


def sentence(number: signal.Signals) -> str:
    """What has happened, and how to go on."""
    return (
        f"ended by {number.name} before all was done; start it again: a fit goes on from a "
        "checkpoint of its run with --ckpt_path, and by itself where --trainer.callbacks "
        "smx_lightning.Recovery was given"
    )
