"""Where the rows of each split are: in files of its own, or among the training rows' files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smx_lightning.data.streams.files import ParquetFiles, Source, parquet_files
from smx_lightning.data.streams.parts import Name, Part

__all__ = ["Source", "Sources"]


@dataclass(frozen=True)
class Sources:
    """The sources of a data module.

    Attributes:
        named: Of each split; ``None`` where it is split off from the training rows' files.
        filesystem: Of pyarrow or fsspec, in which they lie.
        wanted: The columns in which files must agree; ``None``: in all.
        fractions: Of the splits, where they are split off.
        seed: Of the split.
    """

    named: Mapping[Name, Source | None]
    filesystem: Any
    wanted: Sequence[str] | None
    fractions: Mapping[Name, float]
    seed: int
    _found: dict[Name, ParquetFiles] = field(default_factory=dict, init=False)

    @property
    def given(self) -> list[Name]:
        """The splits that have files of their own, that of the training rows first."""
        return [name for name, source in self.named.items() if source is not None]

    def files(self, name: Name) -> ParquetFiles:
        """The files of a split, whose footers are read once.

        Raises:
            InputError: Where there are none, or one cannot be read.
        """
        source = self.named[name]
        if source is None and name != "train":
            return self.files("train")
        if name not in self._found:
            self._found[name] = parquet_files(source, self.filesystem, wanted=self.wanted)
        return self._found[name]

    def part(self, name: Name) -> Part:
        """The rows of a split among those of its files."""
        if name != "train" and name in self.given:
            return Part()
        shares = {
            split: share for split, share in self.fractions.items() if split not in self.given
        }
        return Part(name, shares.get("val", 0.0), shares.get("test", 0.0), self.seed)
