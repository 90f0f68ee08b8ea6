"""Tables as text: CSV and TSV, plain or compressed.

UTF-8, with a header, cells in double quotes where they need them. An empty cell is a missing
value, and so are those that pandas takes for such: ``NA``, ``N/A``, ``NaN``, ``null``, …
"""

from __future__ import annotations

import bz2
import gzip
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from smx_lightning.errors import InputError
from smx_lightning.errors.text import one_line, printable, shortened
from smx_lightning.tables.looks import WITH_COMMA, looks_like
from smx_lightning.tables.schema import Kind, Schema
from smx_lightning.tables.sources.binary import no_rows

TABBED = (".tsv", ".tab")
BLOCK = 2**22  # bytes that are parsed at a time
SEPARATORS = {";": "a semicolon", "\t": "a tab", "|": "a bar", ",": "a comma"}
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
OPENED = {".gz": gzip.open, ".bz2": bz2.open}
_ROW = re.compile(r"Row #(\d+)")
_CELL = re.compile(r"In CSV column #(\d+):.* conversion error to ([^:]+): (?:invalid value )?(.*)")
_WIDTH = re.compile(r"Expected (\d+) columns, got (\d+)")


@dataclass(frozen=True)
class CsvFormat:
    """How the text of a table is read.

    Attributes:
        separator: Between columns; by the file's suffix where it is ``None``.
        decimal: The decimal point.
        schema: Says which columns are numbers, booleans or text.
        kinds: Says so by name, before the schema.
    """

    separator: str | None = None
    decimal: str = "."
    schema: Schema | None = None
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    def table(self, path: Path) -> Any:
        """All of a file; what its columns hold is told by all rows."""
        import pyarrow as pa
        import pyarrow.csv as csv

        self._check_header(path)
        read, parse, convert = self._options(path)
        try:
            table = csv.read_csv(
                str(path), read_options=read, parse_options=parse, convert_options=convert
            )
            _check_names(table.schema, path)
            return table
        except pa.ArrowInvalid as error:
            self._complain(path, error)

    def batches(self, path: Path) -> Iterator[Any]:
        """A file in record batches; what its columns hold is told by the first of them."""
        import pyarrow as pa
        import pyarrow.csv as csv

        self._check_header(path)
        read, parse, convert = self._options(path)
        try:
            with csv.open_csv(
                str(path), read_options=read, parse_options=parse, convert_options=convert
            ) as reader:
                _check_names(reader.schema, path)
                some = False
                for batch in reader:
                    some = True
                    yield batch
                if not some:
                    yield no_rows(reader.schema)
        except pa.ArrowInvalid as error:
            self._complain(path, error)

    def _options(self, path: Path) -> tuple[Any, Any, Any]:
        import pyarrow as pa
        import pyarrow.csv as csv

        types = {"number": pa.float64(), "boolean": pa.bool_()}
        known = {column.name: column.kind for column in self.schema.columns} if self.schema else {}
        columns = {
            name: types.get(kind, pa.string())
            for name, kind in {**known, **self.kinds}.items()
            if not self._is_duration(name)
        }
        read = csv.ReadOptions(use_threads=False, block_size=BLOCK)  # then rows are counted
        parse = csv.ParseOptions(delimiter=self._separator(path), newlines_in_values=True)
        convert = csv.ConvertOptions(
            column_types=columns, strings_can_be_null=True, decimal_point=self.decimal
        )
        return read, parse, convert

    def _is_duration(self, name: str) -> bool:
        columns = () if self.schema is None else self.schema.columns
        return any(c.name == name and c.kind == "number" and c.unit for c in columns)

    def _separator(self, path: Path) -> str:
        if self.separator is not None:
            return self.separator
        return "\t" if any(s.lower() in TABBED for s in path.suffixes[-2:]) else ","

    def _check_header(self, path: Path) -> None:
        """Complain about a file that is empty, no UTF-8, or separated otherwise.

        Raises:
            InputError: Then.
        """
        used = self._separator(path)
        if path.suffix.lower() == ".zst":  # which Python cannot open
            return
        opened: Any = OPENED.get(path.suffix.lower(), open)
        with opened(path, "rb") as file:
            line = file.readline(BLOCK)
        if line.startswith(UTF_16) or b"\0" in line:
            raise InputError(
                f"expected text in UTF-8 in {path}, got UTF-16 or what is no text; save it as "
                "UTF-8 (in Excel: 'CSV UTF-8')"
            )
        header = line.decode("utf-8-sig", "replace").strip("\r\n")
        if not header:
            raise InputError(
                f"expected a header with the names of the columns in the first line of {path}, got "
                f"{'an empty line' if line else 'an empty file'}; save it again"
            )
        others = [mark for mark in SEPARATORS if mark in header and mark != used]
        if used not in header and others:
            words = SEPARATORS.get(used, repr(used))
            raise InputError(
                f"expected columns with {words} between them in {path}, got a header without "
                f"any, and with {SEPARATORS[others[0]]}: {shortened(printable(header), 80)}; give "
                f"separator={others[0]!r}"
                + (" and, where numbers have a comma, decimal=','" if others[0] == ";" else "")
            )

    def _complain(self, path: Path, error: Exception) -> NoReturn:
        said = str(error)
        row = _ROW.search(said)  # counted from 1, the header among them
        where = path if row is None else f"row {int(row[1]) - 2} of {path}, counted from 0"
        if cell := _CELL.search(said.replace("\n", " ")):
            import pyarrow.csv as csv

            read, parse, _ = self._options(path)
            names = csv.open_csv(str(path), read_options=read, parse_options=parse).schema.names
            kinds = {"double": "numbers", "bool": "booleans (true, false, 1, 0)"}
            found = kinds.get(cell[2], cell[2])
            european = self.decimal == "." and looks_like(cell[3].strip("'")) == WITH_COMMA
            remedy = "give decimal=','; or " if european else ""
            remedy += (
                "correct it, or leave the cell empty"
                if self.schema is not None  # which says what the column holds
                else "correct it, leave the cell empty, or say what the column holds with kinds="
            )
            raise InputError(
                f"expected {found} in column {printable(names[int(cell[1])])!r}, got "
                f"{shortened(printable(cell[3]), 60)} in {where}; {remedy}"
            ) from error
        if width := _WIDTH.search(said):
            raise InputError(
                f"expected {width[1]} cells in each row, as the header has, got {width[2]} in "
                f"{where}; put cells in quotes that hold the separator"
            ) from error
        raise InputError(
            f"expected a table in {where}, got: {shortened(one_line(said), 200)}; save it again"
        ) from error


def _check_names(schema: Any, path: Path) -> None:
    """Complain about names of columns that are no UTF-8, which pyarrow leaves to who asks.

    Raises:
        InputError: Then.
    """
    try:
        _ = schema.names
    except UnicodeDecodeError as error:
        raise InputError(
            f"expected text in UTF-8 in {path}, got names of columns in another encoding; save it "
            "as UTF-8 (in Excel: 'CSV UTF-8')"
        ) from error
