"""How a program says why it ends: once, however many processes it is, and with its traceback kept.

No torch here: processes know one another by torch's store only where torch is there already.
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
import traceback

from smx_lightning.errors.faults import Fault
from smx_lightning.errors.text import lines, printable, shortened

TRACEBACK = "--traceback"
LOCAL_RANKS = ("LOCAL_RANK", "SLURM_LOCALID")  # of torchrun, of Lightning, and of SLURM


def complain(program: str, fault: Fault, error: BaseException, *, traced: bool = False) -> int:
    """Say what ended a program; the exit code.

    Args:
        program: Its name.
        fault: What :func:`smx_lightning.errors.faults.fault_of` found.
        error: Whose traceback is printed, or kept in a file where it is needed.
        traced: Whether the user asked to see the traceback.
    """
    if not fault.sentence or not _speaks(fault.sentence):
        return fault.code
    sentence = shortened(printable(f"{program}: {fault.sentence}"))
    report = traceback.format_exception(type(error), error, error.__traceback__)
    text = lines("".join(report).splitlines())
    if traced:
        print(text, file=sys.stderr)
    elif fault.puzzling:
        kept = _kept(program, text)
        sentence += f"; the traceback is in {kept}" if kept else f"; {TRACEBACK} prints it"
    print(sentence, file=sys.stderr)
    return fault.code


def _kept(program: str, text: str) -> str | None:
    """The file of temporary ones that a traceback was written into; ``None``: there is no room."""
    try:
        handle, path = tempfile.mkstemp(".txt", f"{program}-traceback-")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text + "\n")
    except OSError:
        return None
    return path


def _speaks(sentence: str) -> bool:
    """Whether this process is the one, of those that end for the same reason, that says so.

    Where they know one another, that is the first to come. It may have ended since, with the store
    that it kept: then the others have nothing to add. Before, it is the first of each machine.
    """
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return next((os.environ[name] for name in LOCAL_RANKS if name in os.environ), "0") == "0"
    key = hashlib.sha256(sentence.encode(errors="replace")).hexdigest()
    try:
        store = distributed.distributed_c10d._get_default_store()
        return bool(store.add(f"smx_lightning/said/{key}", 1) == 1)
    except (RuntimeError, OSError):
        return bool(distributed.get_rank() == 0)
