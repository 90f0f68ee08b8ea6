"""What a file should be like: where it will run decides. No torch here."""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, get_args

from smx_export.contract import ALL_OUTPUTS, KNOWN_OUTPUTS, OUTPUTS, TOP
from smx_export.errors import FileError

Width = Literal["float16", "int8"]

PORTABLE, ROBUST, COMPACT, IMAGE = NAMES = ("portable", "robust", "compact", "image")

KINDS = {  # of entries in a file's metadata
    "robust": (bool,),
    "image": (bool,),
    "outputs": (list,),
    "max_accuracy_loss": (float, int),
    "max_nll_increase": (float, int),
    "batch": (int,),
    "top_k": (int,),
}
LATER = ("batch", "top_k")  # they are in the metadata of those files alone that have one
LARGEST_BATCH = 1 << 16  # rows: of more, a single one that is padded to it takes seconds


@dataclass(frozen=True)
class Profile:
    """The shape of a file; the default is the graph that ran on every runtime.

    Attributes:
        robust: Log-probabilities that are right beyond 104 nats also on runtimes that compute
            log(softmax).
        image: uint8 pixels as input, in the shape of the model's inputs.
        weights: Width of the stored weights, where not float32.
        outputs: Some of ``log_probs``, ``probs``, ``scores`` and ``label``; ``top_classes`` and
            ``top_probs``, which ``top_k`` adds.
        max_accuracy_loss: What rounding the weights may cost, as a fraction of your rows.
        max_nll_increase: Likewise, in nats a row.
        batch: The one number of rows that the file takes, for NPUs and compilers that want all
            shapes fixed; any number where it is ``None``.
        top_k: How many of the most probable classes the file names, with their probabilities.
    """

    robust: bool = False
    image: bool = False
    weights: Width | None = None
    outputs: tuple[str, ...] = OUTPUTS
    max_accuracy_loss: float = 0.005
    max_nll_increase: float = 0.01
    batch: int | None = None
    top_k: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "batch", _count("batch", self.batch, LARGEST_BATCH))
        object.__setattr__(self, "top_k", _count("top_k", self.top_k, None))
        if self.top_k is not None:
            more = (name for name in TOP if name not in self.outputs)
            object.__setattr__(self, "outputs", (*self.outputs, *more))
        unknown = [name for name in self.outputs if name not in KNOWN_OUTPUTS]
        if unknown or not self.outputs or len(set(self.outputs)) != len(self.outputs):
            raise FileError(
                f"expected outputs out of {', '.join(ALL_OUTPUTS)}, each once, got "
                f"{', '.join(self.outputs) or 'none'}"
            )
        if self.top_k is None and {*TOP} & {*self.outputs}:
            raise FileError(
                f"expected a number of classes for {' and '.join(TOP)}, got none; give it with "
                "--top-k K (in Python: top_k=K)"
            )
        if self.weights not in (None, *get_args(Width)):
            raise FileError(
                f"expected weights of {' or '.join(get_args(Width))}, got {self.weights!r}"
            )
        for name in ("max_accuracy_loss", "max_nll_increase"):
            if not 0 <= getattr(self, name) < math.inf:
                raise FileError(
                    f"{name} must be a finite number of at least 0, got {getattr(self, name)}"
                )

    @classmethod
    def of(
        cls,
        names: str = PORTABLE,
        *,
        outputs: Sequence[str] | None = None,
        weights: Width = "int8",
        max_accuracy_loss: float = max_accuracy_loss,
        max_nll_increase: float = max_nll_increase,
        batch: int | None = None,
        top_k: int | None = None,
    ) -> Profile:
        """The profile of a name, or of several: ``robust,image``.

        Args:
            names: ``portable``, ``robust``, ``compact`` and ``image``, comma-separated.
            outputs: In place of log_probs and probs.
            weights: ``int8`` or ``float16``; it counts where ``compact`` is named.
            max_accuracy_loss: See the class.
            max_nll_increase: See the class.
            batch: See the class.
            top_k: See the class.

        >>> Profile.of("robust,image").image
        True
        """
        chosen = {name.strip() for name in names.split(",")}
        if not chosen <= set(NAMES):
            raise FileError(
                f"expected a profile out of {', '.join(NAMES)}, or several with commas, got "
                f"{names!r}"
            )
        return cls(
            robust=ROBUST in chosen,
            image=IMAGE in chosen,
            weights=weights if COMPACT in chosen else None,
            outputs=tuple(OUTPUTS if outputs is None else outputs),
            max_accuracy_loss=max_accuracy_loss,
            max_nll_increase=max_nll_increase,
            batch=batch,
            top_k=top_k,
        )

    @property
    def name(self) -> str:
        """As :meth:`of` takes it."""
        named = {ROBUST: self.robust, COMPACT: self.weights is not None, IMAGE: self.image}
        return ",".join(name for name, chosen in named.items() if chosen) or PORTABLE

    def to_json(self) -> str:
        """For the file's metadata."""
        values = {
            name: value
            for name, value in asdict(self).items()
            if not (name in LATER and value is None)
        }
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | None) -> Profile:
        """The profile in a file's metadata; the default where there is none.

        Raises:
            FileError: Where it is damaged.
        """
        if text is None:
            return cls()
        try:
            values = json.loads(text)
            if not isinstance(values, dict):
                raise TypeError(f"no object but {text[:20]!r}")
            for name, kinds in KINDS.items():
                if type(values.get(name, kinds[0]())) not in kinds:
                    raise TypeError(f"{name} is {values[name]!r}")
            return cls(**{**values, "outputs": tuple(values["outputs"])})
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FileError(
                f"expected the profile in the file's metadata, got a damaged one ({error}); export "
                "it again"
            ) from error


def _count(name: str, value: int | None, most: int | None) -> int | None:
    """A number of rows or classes as a plain integer, if it is one."""
    if value is None:
        return None
    try:
        count = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        count = -1
    if count < 1 or (most is not None and count > most):
        upto = "" if most is None else f" up to {most}"
        raise FileError(
            f"expected {name} as a whole number from 1{upto}, got {value!r}; leave it out for none"
        )
    return count
