"""Text out of files that nobody vouches for: on a terminal, in a spreadsheet, and as a name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from smx_lightning.errors import InputError

MOST, MOST_OF_A_LINE = 2000, 500  # characters of what another library says
JOINERS = "\u200c\u200d"  # without them words of some scripts are others, and families part
# What makes a cell a formula, in the wide forms too; with quotes before it, it is text already.
_FORMULA = re.compile(r"'*\s*[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def printable(text: object) -> str:
    r"""A text in one line of characters that can be seen; all others as escapes.

    Control characters, newlines among them, would forge lines or move the cursor, and bidirectional
    ones would show another order.

    >>> print(printable("a\nself-test  passed \x1b[2J"))
    a\nself-test  passed \x1b[2J
    """
    text = str(text)
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(character: str) -> str:
    if character.isprintable() or character in JOINERS or unicodedata.category(character) == "Zs":
        return character
    return character.encode("unicode_escape").decode("ascii")


def lines(parts: Iterable[object]) -> str:
    """A line each, every one of them :func:`printable`."""
    return "\n".join(map(printable, parts))


def one_line(said: object) -> str:
    r"""What another library says, in lines and with whole settings quoted, as one sentence.

    >>> print(one_line("Not valid:\n  - Expected an int\n  - Expected None"))
    Not valid: Expected an int; Expected None
    """
    parts = [printable(part.strip().removeprefix("- ")) for part in str(said).split("\n")]
    parts = [part for part in parts if part]
    if len(parts) > 1:
        parts = [shortened(part, MOST_OF_A_LINE) for part in parts]
    sentence = "".join(parts[:1])
    for part in parts[1:]:
        goes_on = sentence[-1] in ":.,;" or part[0].islower()
        sentence += f"{' ' if goes_on else '; '}{part}"
    return shortened(sentence)


def shortened(text: str, most: int = MOST) -> str:
    """A text without its middle, if it is longer than anybody reads: what a file says may be so.

    A sentence begins with what was expected and ends with the remedy.

    >>> print(shortened("expected a number, got xxxxxxxxxxxxxxxxxxxxxxxxxxx; give one", 40))
    expected a number, got xxxxx …; give one
    """
    if len(text) <= most:
        return text
    end = most // 4
    return f"{text[: most - end - 2]} …{text[-end:]}"


def csv_text(text: str) -> str:
    """A text as a cell that no spreadsheet takes for a formula: a quote before what begins one.

    Numbers stay as they are. Who reads such a file takes the first quote off a cell that begins
    with quotes and then =, +, -, @, a tab or a carriage return.

    >>> csv_text("=1+1"), csv_text("-1"), csv_text("-1+1")
    ("'=1+1", '-1', "'-1+1")
    """
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def check_encodable(names: Iterable[str], what: str = "class_names") -> None:
    """Complain about names that no file can hold: half of a surrogate pair is no character.

    Raises:
        InputError: It shows the name.
    """
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"expected {what} that UTF-8 can hold, got {name!r} with a lone surrogate; replace "
                "it, for instance with name.encode('utf-8', 'replace').decode()"
            ) from error
