"""onnxruntime-web inside node: the WebAssembly build of the browser, without a browser.

Trap: it runs one thread here, as on a static page; its own default is more.
"""

from __future__ import annotations

from smx_export.targets.ort_node import OnnxRuntimeNode


class OnnxRuntimeWebNode(OnnxRuntimeNode):
    """onnxruntime in WebAssembly, run by node."""

    name = "onnxruntime-web-node"
    install = "npm install onnxruntime-web"
    package = "onnxruntime-web"
    entry = "dist/ort.node.min.mjs"
