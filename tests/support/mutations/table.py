"""How a corruption comes into a table, and the names of the checks that must see it."""

from collections.abc import Callable
from dataclasses import dataclass

# "values" is the check that compares with the independent float64 computation.
VALUES, PROBS, SCORES = (f"{output} against float64" for output in ("log_probs", "probs", "scores"))
INPUT, OUTPUTS, NAMES, LOADS = "input", "outputs", "class names", "onnxruntime loads it"
SHAPES, NOT_FINITE, SUM = "shapes for every batch", "NaN and infinity", "probs sum to 1"
ARGMAX = "argmax"


@dataclass(frozen=True)
class Case:
    """A corruption of one model's file, and what must see it: a check, or an exception."""

    corrupt: Callable
    model: str
    seen_by: str | type[Exception]

    def __str__(self):
        return f"{self.corrupt.__name__.replace('_', ' ')} ({self.model})"


class Table(list):
    """Cases of one kind; a corruption without models is tried on ``models``."""

    def __init__(self, *models):
        super().__init__()
        self.models = models

    def seen_by(self, check, *models):
        def register(corrupt):
            self.extend(Case(corrupt, model, check) for model in models or self.models)
            return corrupt

        return register
