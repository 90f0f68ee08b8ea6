"""What a file offers, and how its inputs and outputs are declared. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from smx_export.artifact.activation import SOFTMAX
from smx_export.contract import BATCH, OUTPUTS


@dataclass(frozen=True)
class Layout:
    """What a file offers and how it computes.

    Attributes:
        outputs: Some of :data:`smx_export.contract.KNOWN_OUTPUTS`.
        robust: Log-probabilities out of elementary operators, for runtimes whose LogSoftmax is
            log(softmax), which is -inf from about 104 nats on; of α-entmax see
            :mod:`smx_export.graph.entmax`.
        image: Shape of uint8 images to take as input; ``None`` for unrolled features.
        wide: Features in float64, whose mean is subtracted before they become float32.
        threshold: γ of a binary problem, which the label obeys.
        alpha: α of α-entmax; 1 is softmax.
        top_k: How many of the most probable classes it names.
    """

    outputs: tuple[str, ...] = OUTPUTS
    robust: bool = False
    image: tuple[int, ...] | None = None
    wide: bool = False
    threshold: float | None = None
    alpha: float = SOFTMAX
    top_k: int | None = None


PLAIN = Layout()


def float_tensor(name: str, shape: Sequence[int], *, wide: bool = False) -> onnx.ValueInfoProto:
    """A float32 input or output ``[batch, *shape]``, float64 where wide.

    An unnamed batch breaks tract and tinygrad.
    """
    dtype = TensorProto.DOUBLE if wide else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, dtype, [BATCH, *shape])


def fix_batch(model: onnx.ModelProto, batch: int) -> None:
    """Let a graph take so many rows and no other number, as its inputs and outputs declare."""
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
