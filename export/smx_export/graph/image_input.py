"""Images of uint8 pixels as input, and what ONNX's type denotation says of them. No torch here."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

from smx_export.contract import BATCH, INPUT

PIXELS = "pixels"


def take_pixels(model: onnx.ModelProto, shape: Sequence[int]) -> None:
    """Let the float32 input be a uint8 image of that shape, which ONNX's type denotation says."""
    for node in model.graph.node:
        node.input[:] = [PIXELS if name == INPUT else name for name in node.input]
    cast = helper.make_node("Cast", [INPUT], [PIXELS], "cast", to=TensorProto.FLOAT)
    model.graph.node.insert(0, cast)
    image = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [BATCH, *shape])
    image.type.denotation = "IMAGE"
    for dim, denotation in zip(image.type.tensor_type.shape.dim, _denotations(shape), strict=True):
        dim.denotation = denotation
    model.graph.input[0].CopyFrom(image)


def image_metadata(shape: Sequence[int]) -> dict[str, str]:
    """What ONNX's type denotation says of an image besides; unlike our own keys, no JSON."""
    colour = 3 in (len(shape) and shape[0], shape[-1]) and len(shape) == 3
    return {
        "Image.BitmapPixelFormat": "Rgb8" if colour else "Gray8",
        "Image.ColorSpaceGamma": "SRGB",
        "Image.NominalPixelRange": "NominalRange_0_255",
    }


def _denotations(shape: Sequence[int]) -> list[str]:
    pixels = ["DATA_FEATURE", "DATA_FEATURE"]
    if len(shape) != 3:
        return ["DATA_BATCH", *(pixels if len(shape) == 2 else [""] * len(shape))]
    channels_first = shape[0] in (1, 3)
    rest = ["DATA_CHANNEL", *pixels] if channels_first else [*pixels, "DATA_CHANNEL"]
    return ["DATA_BATCH", *rest]
