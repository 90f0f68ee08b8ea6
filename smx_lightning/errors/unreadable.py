"""What reading a damaged or hostile file of arrays raises."""

from __future__ import annotations

import lzma
import tokenize
import zipfile
import zlib

UNREADABLE = (  # of numpy, of zipfile, and of the parser that numpy reads headers with
    ValueError,
    EOFError,
    OSError,
    KeyError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)


def sentence_of(error: OSError) -> str:
    """What the system says of a file, as a sentence with a remedy."""
    return (
        f"expected to read and write {error.filename or 'files'}, got: {error.strerror or error}; "
        "check the path, its permissions and the room on the disk"
    )


def reason(error: BaseException) -> str:
    """What an exception says, in one line; its kind, where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
