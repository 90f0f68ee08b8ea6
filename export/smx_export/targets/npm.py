"""Where npm put a package: found as node finds it, and also beside a checkout of smx_export."""

from __future__ import annotations

import json
from pathlib import Path

from smx_export.errors import NotInstalled


def node_module(name: str) -> Path:
    """The folder of an npm package, from ``node_modules`` here and upwards.

    After the current folder and its parents come the folders above this file, so that a checkout's
    ``export/node_modules`` is found from anywhere.

    Raises:
        NotInstalled: Where there is none.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, *Path(__file__).resolve().parents):
        package = folder / "node_modules" / name
        if (package / "package.json").is_file():
            return package
    raise NotInstalled(f"expected the npm package {name}, found none: npm install {name}")


def node_module_version(name: str) -> str:
    """The version in an npm package's ``package.json``."""
    package = json.loads((node_module(name) / "package.json").read_text("utf-8"))
    return str(package["version"])
