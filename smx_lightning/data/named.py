"""Several inputs as one ``.npz`` file: an array each, by name, and ``y``."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smx_lightning.errors import InputError
from smx_lightning.errors.sizes import check_members
from smx_lightning.errors.unreadable import UNREADABLE, reason
from smx_lightning.processes.files import at_home

LABELS = "y"


def read_named(path: str | Path, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """The arrays of those names, and the labels ``y``.

    Raises:
        InputError: Where the file is missing, no .npz, damaged, holds pickled objects, or lacks one
            of the arrays.
    """
    path, wanted = at_home(path), [*names, LABELS]
    if not (path.is_file() and zipfile.is_zipfile(path)):
        raise InputError(
            f"expected an .npz file with {', '.join(wanted)} at {path}, found none; save it with "
            "numpy.savez"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            check_members(archive, wanted, f"the arrays in {path}")
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in wanted if name in file.files}
            found = ", ".join(file.files) or "nothing"
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"expected an .npz file of plain arrays, got one that numpy cannot read "
            f"({reason(error)}) at {path}; save it again with numpy.savez"
        ) from error
    missing = [name for name in wanted if not isinstance(arrays.get(name), np.ndarray)]
    if missing:
        raise InputError(
            f"expected the arrays {', '.join(wanted)} in {path}, found {found}; save it with "
            f"numpy.savez(path, {missing[0]}=…, …)"
        )
    return arrays
