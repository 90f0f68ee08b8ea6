"""Which files are tables, by their suffixes: what can be told without reading any of them.

It imports next to nothing: the command line asks before anything else is there.
"""

from __future__ import annotations

from pathlib import Path

TEXT = (".csv", ".tsv", ".tab", ".txt")
SUFFIXES = {
    **dict.fromkeys(TEXT, "csv"),
    **{".parquet": "parquet", ".pq": "parquet", ".feather": "feather", ".arrow": "feather"},
}
PACKED = (".gz", ".bz2", ".zst")


def suffix_of(path: Path) -> str:
    """The suffix that says what a file is, without that of its compression."""
    name = path.name.lower()
    for packed in PACKED:
        if (bare := name.removesuffix(packed)) != name and Path(bare).suffix in TEXT:
            return Path(bare).suffix
    return Path(name).suffix


def is_text(path: Path) -> bool:
    """Whether a file of a table holds it as text."""
    return suffix_of(path) in TEXT


def names_table(path: str | Path) -> bool:
    """Whether a path is that of a table, or of a folder of them, by its name."""
    return Path(path).is_dir() or suffix_of(Path(path)) in SUFFIXES
