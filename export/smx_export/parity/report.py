"""What the parity check found: frozen, printable as a short table and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from smx_export.artifact.check import Check, as_html, strings_for_nan
from smx_export.errors import ParityError
from smx_lightning.errors.text import lines, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from smx_export.profile import Profile

SHOWN_FLIPS = 5


@dataclass(frozen=True)
class Flip:
    """A row where file and float64 reference disagree on the most probable class.

    Attributes:
        probe: The set of inputs.
        row: Its row.
        model_class: The reference's choice.
        file_class: The file's.
        margin: By how much the reference prefers its choice.
        tolerance: How much rounding explains; a margin above it fails the check.
        unit: Of both: nats, or of a sparse activation probability.
    """

    probe: str
    row: int
    model_class: str
    file_class: str
    margin: float
    tolerance: float
    unit: str = "nats"

    def __str__(self) -> str:
        return printable(
            f"flip in {self.probe!r} row {self.row}: {self.model_class} → {self.file_class}, "
            f"margin {self.margin:.2g} {self.unit}"
        )


@dataclass(frozen=True)
class Task:
    """Both sides on labelled data: accuracy, and mean negative log-likelihood in nats."""

    rows: int
    model_accuracy: float
    file_accuracy: float
    model_nll: float
    file_nll: float


@dataclass(frozen=True)
class Rounding:
    """What fewer bits a weight cost on your labelled rows; ``flips`` are choices that changed.

    ``measure`` says what ``nll_before`` and ``nll`` are: of a sparse activation, whose NLL may be
    infinite, the mean of the loss that it is trained by.
    """

    rows: int
    accuracy_before: float
    accuracy: float
    nll_before: float
    nll: float
    flips: tuple[Flip, ...]
    measure: str = "NLL"

    def checks(self, profile: Profile) -> Iterator[Check]:
        """The budget, as two checks."""
        nats = " nats" if self.measure == "NLL" else ""
        for name, unit, cost, budget, before, after in (
            ("accuracy after rounding", "", self.accuracy_before - self.accuracy,
             profile.max_accuracy_loss, self.accuracy_before, self.accuracy),
            (f"{self.measure} after rounding", nats, self.nll - self.nll_before,
             profile.max_nll_increase, self.nll_before, self.nll),
        ):  # fmt: skip
            detail = f"{before:.4f} → {after:.4f}, {budget:g}{unit} allowed"
            yield Check(name, cost <= budget, f"{detail}, {len(self.flips)} of {self.rows} flips")


@dataclass(frozen=True)
class ParityReport:
    """Everything that was compared.

    Attributes:
        sha256: Of the file.
        checks: All checks in order.
        rows: How many inputs were compared.
        max_error: Largest difference of a log-probability from float64, in nats, on random inputs
            and on your data; on the adversarial ones it grows with the logits. Of a sparse
            activation, of a probability.
        error_over_tolerance: The largest such difference as a fraction of its tolerance.
        live_error_over_tolerance: The same for the live float32 model.
        flips: Every row on which the most probable class differs.
        task: Accuracy and NLL of both sides, where labels were given.
        rounding: What rounded weights cost, of profile ``compact``.
        unjudged: How many of the rows tell nothing, as float32 loses more than half of its digits
            on them; none of the comparisons counts them.
        exact_graph: Whether operators and weights are those that the exporter makes of the model,
            so that the comparisons judge the arithmetic of a runtime alone.
        unit: Of ``max_error`` and of the flips' margins: of a sparse activation, probability.
    """

    sha256: str
    checks: tuple[Check, ...]
    rows: int
    max_error: float
    error_over_tolerance: float
    live_error_over_tolerance: float
    flips: tuple[Flip, ...]
    task: Task | None
    rounding: Rounding | None = None
    unjudged: int = 0
    exact_graph: bool = False
    unit: str = "nats"

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def passed(self) -> bool:
        """Whether the file is the model."""
        return not self.failed

    @property
    def verdict(self) -> str:
        """The report in one line."""
        rows = f"{self.rows - self.unjudged} rows"
        if self.unjudged:
            rows += f" (and not judged on {self.unjudged}, where float32 loses its digits)"
        compared = f"{rows}: largest error {self.max_error:.1g} {self.unit} on ordinary inputs"
        if self.passed:
            share = f"nowhere more than {self.error_over_tolerance:.2g} of what"
            return f"parity holds on {compared}, and {share} float32 rounding allows"
        return f"parity FAILED on {compared}, {len(self.failed)} checks failed"

    def raise_if_failed(self) -> None:
        """Raise :class:`ParityError` where a check failed."""
        if not self.passed:
            raise ParityError(self)

    def to_json(self) -> str:
        """The whole report, JSON without NaN."""
        return json.dumps(strings_for_nan({"passed": self.passed, **asdict(self)}), indent=2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.verdict})"

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        said = [str(check) for check in self.checks]
        flips = [*self.flips, *(self.rounding.flips if self.rounding else ())]
        said += [f"     {flip}" for flip in flips[:SHOWN_FLIPS]]
        if len(flips) > SHOWN_FLIPS:
            said.append(f"     … {len(flips) - SHOWN_FLIPS} more flips in the JSON report")
        if self.task is not None:
            task = self.task
            said.append(
                f"     {task.rows} labelled rows   accuracy {task.model_accuracy:.4f} model, "
                f"{task.file_accuracy:.4f} file   NLL {task.model_nll:.6f} model, "
                f"{task.file_nll:.6f} file"
            )
        return lines([*said, self.verdict])
