"""Which files are tables, by their suffixes: what can be told without reading any of them.

It imports next to nothing: the command line asks before anything else is there.
"""

from __future__ import annotations

from pathlib import Path, PurePath

TEXT = (".csv", ".tsv", ".tab", ".txt")
PARQUET = (".parquet", ".parq", ".pq")
SUFFIXES = {
    **dict.fromkeys(TEXT, "csv"),
    **dict.fromkeys(PARQUET, "parquet"),
    **{".feather": "feather", ".arrow": "feather"},
}
OTHERS = (".json", ".jsonl", ".ndjson", ".xlsx", ".xls", ".ods", ".ipc", ".orc", ".avro")
RUNS = "lightning_logs"  # where Lightning puts a run's metrics.csv, in the working folder
PACKED = (".gz", ".bz2", ".zst")


def suffix_of(path: PurePath) -> str:
    """The suffix that says what a file is, without that of its compression."""
    name = path.name.lower()
    for packed in PACKED:
        if (bare := name.removesuffix(packed)) != name and PurePath(bare).suffix in TEXT:
            return PurePath(bare).suffix
    return PurePath(name).suffix


def holds_rows(path: PurePath) -> bool:
    """Whether a file's rows would be missed where a folder's tables are read without it."""
    name = path.name.lower()
    for packed in PACKED:
        name = name.removesuffix(packed)
    suffix = PurePath(name).suffix
    return suffix in OTHERS or (suffix in SUFFIXES and suffix != ".txt")  # readme.txt


def is_hidden(path: PurePath) -> bool:
    """Whether a path within a folder is left out there by its name, or is what a run has logged."""
    return any(part[0] in "._" or part == RUNS for part in path.parts)


def is_text(path: PurePath) -> bool:
    """Whether a file of a table holds it as text."""
    return suffix_of(path) in TEXT


def names_table(path: str | Path) -> bool:
    """Whether a path is that of a table, or of a folder of them, by its name."""
    return Path(path).is_dir() or suffix_of(Path(path)) in SUFFIXES
