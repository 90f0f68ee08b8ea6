"""How far a command has got: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys

from smx_lightning.errors.text import printable

BETWEEN = 0.2  # seconds between two drawings of a bar
WIDE = 24  # characters of a bar


class Progress:
    """Tells on stderr of rows that are done."""

    def __init__(self) -> None:
        self._drawn = ""
        self.is_bar = sys.stderr.isatty()

    @property
    def patience(self) -> float | None:
        """Seconds between two calls; ``None`` for those between two lines."""
        return BETWEEN if self.is_bar else None

    def __call__(self, done: int, total: int | None) -> None:
        """So many of all rows are done; ``None`` where it is not known how many these are."""
        told = f"{done:,} rows" if total is None else f"{done:,} of {total:,} rows"
        if not self.is_bar:
            self.say(told)
            return
        if total:
            full = min(WIDE, WIDE * done // total)
            told = f"[{'█' * full}{' ' * (WIDE - full)}] {told}"
        self._draw(told)

    def say(self, message: object, *_: object, **__: object) -> None:
        """Print a line beside the output; takes what ``warnings.showwarning`` is given, too."""
        self.close()
        print(printable(f"smx-export: {message}"), file=sys.stderr, flush=True)

    def close(self) -> None:
        """Take the bar away."""
        if self._drawn:
            self._draw("")
            print("\r", end="", file=sys.stderr, flush=True)

    def _draw(self, text: str) -> None:
        print(f"\r{text:{len(self._drawn)}}", end="", file=sys.stderr, flush=True)
        self._drawn = text
