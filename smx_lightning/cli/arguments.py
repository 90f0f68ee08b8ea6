"""Arguments as users type them, made those that the parser knows: classes, data, and ``all``."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from smx_lightning.errors import InputError
from smx_lightning.errors.unreadable import reason
from smx_lightning.tables.sources.suffixes import SUFFIXES, suffix_of

HELP = ("-h", "--help")
ALL = "all"  # after --help
CLASS = re.compile(
    r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*(\.[^\W\d]\w*)*"
)  # package.module:Class
CLASS_PATH = "class_path"
NAMES_A_CLASS = re.compile(
    r"--(model|data|.*\.(class_path|optimizer|lr_scheduler|callbacks\+?|logger))"
)
SETTINGS = (".yaml", ".yml", ".json")
DATA = "smx_lightning.data"  # where the data modules are
TABLE = "--data.source"  # takes more than text: the parser reads it as YAML
IDX = ("*-ubyte*", "raw/*-ubyte*", "*/raw/*-ubyte*")  # where the files of an IDX folder lie
REMEDIES = {
    "--data": f"rows come as a table ({', '.join(SUFFIXES)}) or as an .npz file with x and y in "
    "it, as numpy.savez saves them",
    "--model": "name the class, as in --model package.module.Class; a checkpoint comes as "
    "--ckpt_path FILE",
}


class DataModule(NamedTuple):
    """What reads a file or a folder.

    Attributes:
        module: The class, by its full name.
        option: Takes the path.
    """

    module: str
    option: str


def without(option: str, given: Iterable[str]) -> list[str]:
    """Arguments without one that stands alone."""
    return [argument for argument in given if argument != option]


def completed(given: Iterable[str]) -> list[str]:
    """Arguments with classes named by dots, as the parser wants them.

    Raises:
        InputError: For a file of rows in place of a data module.
    """
    found: list[str] = []
    option = ""
    for argument in given:
        if argument == ALL and option in HELP:
            continue
        if argument.startswith("-"):
            option, equals, value = argument.partition("=")
        else:
            equals, value = "", argument
        named, option = option, "" if value else option  # what comes after a value stands alone
        if value and named == "--data" and (rows := data_module(value)):
            if not equals:
                found.pop()
            at = next((k for k, one in enumerate(found) if one.startswith("--data.")), len(found))
            if rows.option == TABLE and ": " in value:
                raise InputError(
                    f"expected --data with a path without ': ', which the parser takes for a "
                    f"mapping, got {value}; rename the file"
                )
            found[at:at] = ["--data", rows.module, rows.option, value]  # before its settings
            continue
        if value and NAMES_A_CLASS.fullmatch(named):
            _check_no_rows(named, value)
            value = class_path(value)
            _check_class(named, value)
        found.append(f"{named}{equals}{value}" if argument.startswith("-") else value)
    return found


def data_module(path: str) -> DataModule | None:
    """The data module that a file or a folder suits, and its option; ``None`` for what is neither.

    Raises:
        InputError: For a folder that holds neither tables nor IDX files.
    """
    given = Path(path).expanduser()
    suffix = suffix_of(given)
    if suffix == ".npz":
        return DataModule(f"{DATA}.NpzDataModule", "--data.path")
    if suffix in SUFFIXES and not given.is_dir():
        return DataModule(f"{DATA}.TableDataModule", TABLE)
    if not given.is_dir() or not (os.sep in path or suffix in ("", *SUFFIXES)):
        return None
    if any(any(given.glob(pattern)) for pattern in IDX):
        return DataModule(f"{DATA}.IdxDataModule", "--data.path")
    if any(suffix_of(file) in SUFFIXES for file in given.iterdir()):
        return DataModule(f"{DATA}.TableDataModule", TABLE)
    if os.sep not in path:  # may be the name of a class of that package
        return None
    raise InputError(
        f"expected --data with a folder of tables ({', '.join(SUFFIXES)}) or of IDX files, got "
        f"{path}, which has neither; point at the folder that holds them"
    )


def class_path(name: str) -> str:
    """The name of a class with dots alone; its module may lie in the working folder.

    That folder is searched last, and only where a module of it is named: else what lies there might
    be imported in place of a library.
    """
    if not CLASS.fullmatch(name):
        return name
    package = re.split("[.:]", name)[0]
    here = Path.cwd()
    if (here / f"{package}.py").is_file() or (here / package).is_dir():
        try:
            known = package in sys.modules or importlib.util.find_spec(package) is not None
        except (ImportError, ValueError):
            known = False
        if not known:
            sys.path.append(str(here))
    return name.replace(":", ".")


def with_class_paths(settings: Any) -> Any:
    """What a file of settings says, with its classes named as :func:`class_path` does."""
    if isinstance(settings, list):
        return [with_class_paths(value) for value in settings]
    if not isinstance(settings, dict):
        return settings
    return {
        key: class_path(value)
        if key == CLASS_PATH and isinstance(value, str)
        else with_class_paths(value)
        for key, value in settings.items()
    }


def _check_class(option: str, name: str) -> None:
    """Complain about a class that cannot be found: the parser would say why in a page.

    What its module raises by itself goes on, and is told as the user's.
    """
    if (
        option not in REMEDIES
        or "." not in name
        or not CLASS.fullmatch(name)
        or Path(name).suffix in SETTINGS
    ):
        return
    parts = name.split(".")
    for count in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:count])
        try:
            operator.attrgetter(".".join(parts[count:]))(importlib.import_module(module))
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            missing: Exception = error
        except AttributeError as error:
            missing = error
            break
        else:
            return
    raise InputError(
        f"expected {option} with a class that can be imported, got {name} ({reason(missing)}); run "
        "where its module lies, or install it"
    )


def _check_no_rows(option: str, value: str) -> None:
    """Complain about a file that is no settings: the parser would print what is in it."""
    path = Path(value)
    if option not in REMEDIES or path.suffix.lower() in ("", *SETTINGS) or not path.is_file():
        return
    raise InputError(
        f"expected {option} with a class, or with a YAML file of its settings, got the file "
        f"{value}; {REMEDIES[option]}"
    )
