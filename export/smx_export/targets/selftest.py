"""Does this file, on this machine, still answer what it answered when it was exported?

Every byte is as it was sealed, the weights are those of the export, no operator is random, what
the file says of itself agrees with its graph, and the vectors in it
(:mod:`smx_export.artifact.vectors`) come out right. Neither torch nor the checkpoint is needed, and
any runtime can run them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from smx_export.artifact.check import Check, as_html, first_line, strings_for_nan
from smx_export.artifact.comparison import compare
from smx_export.artifact.content import read_bytes
from smx_export.artifact.declared import declared
from smx_export.artifact.exported import ExportedFile, read_exported
from smx_export.artifact.files import batch_of, seal_holds, weights_sha256
from smx_export.artifact.graphs.operators import deterministic
from smx_export.contract import PROFILE, SCORES
from smx_export.profile import Profile
from smx_export.targets.base import InBlocks, Session, Target
from smx_export.targets.limited import LIMITS, Limited, Limits
from smx_lightning.errors.text import printable


@dataclass(frozen=True)
class SelfTest:
    """What was found: printable as a short table and as JSON."""

    path: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether the file answers as it did."""
        return all(check.passed for check in self.checks)

    @property
    def verdict(self) -> str:
        """The last line of it."""
        return "self-test passed" if self.passed else "self-test FAILED"

    def to_json(self) -> str:
        """The whole report, JSON without NaN."""
        return json.dumps(strings_for_nan({"passed": self.passed, **asdict(self)}), indent=2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({printable(self.path)}: {self.verdict})"

    def _repr_html_(self) -> str:
        return as_html(repr(self), str(self))

    def __str__(self) -> str:
        return "\n".join([*map(str, self.checks), self.verdict])


def selftest(
    path: str | Path, target: Target | None = None, *, limits: Limits = LIMITS
) -> SelfTest:
    """Run a file's own test.

    Args:
        path: A file that smx_export wrote.
        target: The runtime; by default onnxruntime, in a process of its own.
        limits: What that process may take.

    Raises:
        FileError: Where there is nothing to test: no file, no ONNX model, no vectors; or where
            the runtime does not take the file's inputs.
    """
    data = read_bytes(path)
    holds = seal_holds(data)
    if holds is False:  # a damaged file is not run: no runtime promises to survive it
        changed = Check("seal", False, "the file was changed since it was exported")
        return SelfTest(str(path), (changed,))
    file = read_exported(data, path)
    seal = Check("seal", holds is True, "no byte was changed" if holds else "the file bears none")
    weights = weights_sha256(file.proto)
    same = weights == file.weights_sha256
    hashed = Check("weights", same, weights if same else f"{weights}, not {file.weights_sha256}")
    operators = deterministic(file.proto)
    checks = [seal, hashed, operators, _offers(file), declared(file.proto)]
    if same and operators.passed:  # runtimes crash on some that are random
        checks += check_vectors(file, path, target or Limited(limits=limits))
    return SelfTest(str(path), tuple(checks))


def _offers(file: ExportedFile) -> Check:
    """Whether the outputs are those of the profile: what is missing cannot be wrong."""
    found = sorted(output.name for output in file.proto.graph.output)
    wanted = sorted(Profile.from_json(file.metadata.get(PROFILE)).outputs)
    known = SCORES not in found or file.vectors.tells_scores
    detail = ", ".join(found) if known else "scores, and nothing to hold them against"
    if found != wanted:
        detail = f"{detail}, not {', '.join(wanted)}"
    return Check("outputs", found == wanted and known, detail)


def check_vectors(
    file: ExportedFile, path: str | Path, target: Target | None = None
) -> Iterator[Check]:
    """The vectors, as one batch and one by one; of a file of one batch in blocks of that."""
    if target is None:
        from smx_export.targets.onnxruntime_ import OnnxRuntime

        target = OnnxRuntime()
    name = f"{target.name} {target.version()}"
    target.check_takes(file.vectors.x)
    try:
        loaded = target.load(Path(path))
        session = InBlocks(loaded, batch_of(file.proto.graph.input[0]))
    except Exception as error:  # runtimes' exceptions share no base class
        yield Check(name, False, f"does not load it: {first_line(error)}")
        return
    try:
        passed, detail = _run(session, file)
    except Exception as error:  # as above
        passed, detail = False, f"does not run it: {first_line(error)}"
    finally:
        session.close()
    yield Check(name, passed, detail)


def _run(session: Session, file: ExportedFile) -> tuple[bool, str]:
    """Whether all outputs are there and right, and the largest error or what is wrong first."""
    x, expected = file.vectors.x, file.vectors.expected
    wanted = {output.name for output in file.proto.graph.output}
    top_k = Profile.from_json(file.metadata.get(PROFILE)).top_k
    ratios: list[float] = []
    for start, stop in [(0, len(x)), *((i, i + 1) for i in range(len(x)))]:
        where = f"vector {start}, batch of {stop - start}"
        outputs = session.run(x[start:stop])
        missing = wanted - set(outputs)
        if missing:
            return False, f"{where}: no {min(missing)}"
        part = expected.rows(slice(start, stop))
        compared = compare(part, outputs, threshold=file.threshold, top_k=top_k)
        if compared.wrong:
            return False, f"{where}: {compared.wrong}"
        ratios.append(compared.ratio)
    return True, f"{len(x)} vectors, largest error {max(ratios):.2g} of the tolerance"
