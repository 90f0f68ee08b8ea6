"""What the end of a Parquet file tells: its row groups, its columns, and a hash of all that.

A footer holds the rows of each group, and sizes, places and extremes of each column in it: a file
whose numbers differ has another footer, but for a few that no extreme and no size shows.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import UNREADABLE, reason

if TYPE_CHECKING:
    import pyarrow as pa

MAGIC = b"PAR1"  # https://parquet.apache.org/docs/file-format
FRAME = 8  # bytes behind the footer: its length and MAGIC
TAIL = 2**16  # bytes that are read at once: of most files the whole footer


@dataclass(frozen=True)
class Footer:
    """Of one file.

    Attributes:
        rows: Of each row group.
        largest: Bytes of its largest row group, unpacked.
        schema: Of its columns.
        digest: A hash of the footer.
    """

    rows: tuple[int, ...]
    largest: int
    schema: pa.Schema
    digest: str


def footer(filesystem: Any, path: str) -> Footer:
    """The footer of a file, of which nothing else is read.

    Raises:
        InputError: For a file that is no whole Parquet file.
    """
    import pyarrow.parquet as pq
    from pyarrow import BufferReader

    try:
        data = _bytes(filesystem, path)
        told = pq.read_metadata(BufferReader(MAGIC + data))
        rows = [told.row_group(k) for k in range(told.num_row_groups)]
        return Footer(
            tuple(group.num_rows for group in rows),
            max((group.total_byte_size for group in rows), default=0),
            told.schema.to_arrow_schema(),
            hashlib.blake2b(data, digest_size=8).hexdigest(),
        )
    except InputError:
        raise
    except UNREADABLE as error:  # of which pyarrow's are
        raise unreadable(path, error) from error


def unreadable(path: str, error: BaseException) -> InputError:
    """The complaint about a file that pyarrow could not read."""
    return InputError(
        f"expected a Parquet file at {path}, got one that pyarrow cannot read "
        f"({reason(error)}); write it again, or take it out of the folder"
    )


def _bytes(filesystem: Any, path: str) -> bytes:
    """The footer, its length and the magic number."""
    with filesystem.open_input_file(path) as file:
        size = file.size()
        tail = bytes(file.read_at(min(size, TAIL), size - min(size, TAIL)))
        if len(tail) < FRAME or tail[-4:] != MAGIC:
            found = "an empty file" if not tail else "one that does not end as such"
            raise InputError(
                f"expected a Parquet file at {path}, got {found}; write it again, or take it out "
                "of the folder"
            )
        length = int.from_bytes(tail[-FRAME:-4], "little") + FRAME
        if length + len(MAGIC) > size:
            raise InputError(
                f"expected a whole Parquet file at {path}, got one whose footer would be longer "
                "than the file; write it again, or take it out of the folder"
            )
        if length > len(tail):
            tail = bytes(file.read_at(length, size - length))
        return tail[-length:]
