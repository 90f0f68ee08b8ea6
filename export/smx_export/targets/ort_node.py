"""onnxruntime-node: onnxruntime's native library inside node.

Trap: its install step downloads GPU libraries unless ``ONNXRUNTIME_NODE_INSTALL=skip`` is set, and
fails where it cannot.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from smx_export.targets.base import NotInstalled, Session, Target
from smx_export.targets.javascript import WORKER, JavaScriptSession
from smx_export.targets.npm import node_module, node_module_version


class OnnxRuntimeNode(Target):
    """onnxruntime for servers in JavaScript.

    Attributes:
        package: The npm package.
        entry: The file of the package that node imports.
    """

    name = "onnxruntime-node"
    install = "ONNXRUNTIME_NODE_INSTALL=skip npm install onnxruntime-node"
    package: ClassVar[str] = "onnxruntime-node"
    entry: ClassVar[str] = "dist/index.js"

    def version(self) -> str:
        """See :class:`Target`."""
        node()
        return node_module_version(self.package)

    def load(self, path: Path) -> Session:
        """See :class:`Target`."""
        entry = node_module(self.package) / self.entry
        return JavaScriptSession(path, entry.as_uri(), lambda url, _: [node(), str(WORKER), url])


def node() -> str:
    """Where node is.

    Raises:
        NotInstalled: Where it is missing.
    """
    if found := shutil.which("node"):
        return found
    raise NotInstalled("expected node on PATH, found none: apt-get install nodejs")
