"""Signals that a run answers at the next moment at which its state is worth saving."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

HINT = b"\nSaving before the next batch, then ending; a second Ctrl-C ends at once\n"


class Signals:
    """Notes SIGTERM, SIGINT and those of a launcher, in place of their handlers.

    A second SIGINT finds the handler that was there before, and so ends the process at once.

    Attributes:
        handlers: Those that were there before, of the signals that are noted.
        numbers: The signals, whether or not this process could take them over: alike in all.
        received: Signals noted since :meth:`take_over`.
        early: Whether there is no batch yet before which to save: then the Trainer is told, too,
            so that a pass over the data can end by ``trainer.received_sigterm``.
    """

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.handlers: dict[int, Any] = {}
        self.received: set[int] = set()
        self.early = True

    def take_over(self, trainer: Trainer, *others: int | None) -> None:
        """Note signals from now on, in the main thread, which alone may; elsewhere do nothing."""
        self.received.clear()
        self.early = True
        given = (number for number in others if number is not None)
        self.numbers = sorted({int(n) for n in (signal.SIGTERM, signal.SIGINT, *given)})
        if threading.current_thread() is not threading.main_thread():
            return
        self.handlers = {number: signal.getsignal(number) for number in self.numbers}
        if self.handlers[signal.SIGINT] is not signal.default_int_handler:  # somebody's, or ignored
            del self.handlers[signal.SIGINT]
        for number in self.handlers:
            signal.signal(number, lambda number, _: self._note(trainer, number))

    def give_back(self) -> None:
        """Put the handlers back that were there before."""
        for number, handler in self.handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.handlers = {}
        self.early = True

    def pass_on(self, received: set[int]) -> None:
        """Let the handlers that were there before answer these signals."""
        for number in received:
            handler = self.handlers.get(number)
            if callable(handler):
                handler(number, None)

    def _note(self, trainer: Trainer, number: int) -> None:
        """Only note the signal: in the middle of a batch there is no state worth saving."""
        self.received.add(number)
        if self.early and number in (signal.SIGTERM, signal.SIGINT):
            trainer._signal_connector.received_sigterm = True
        if number == signal.SIGINT:  # a terminal sends it to the other processes, too
            signal.signal(number, self.handlers[number])
            if trainer.is_global_zero:
                os.write(2, HINT)
            return
        launcher = trainer.strategy.launcher
        if launcher is not None:  # the processes that this one has started
            launcher.kill(signal.Signals(number))
