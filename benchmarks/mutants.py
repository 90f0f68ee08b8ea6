"""What the tests notice: small changes to the code, each run against the tests of its module.

A change is one of Cosmic Ray's: another operator or comparison, a number one larger or smaller, a
``not`` more, ``break`` for ``continue``, a loop without rounds, another exception. Of each file so
many places are drawn, by a fixed seed, and one change of each. The checkout stays as it is: the
changes are made in a copy of it, files that git does not know yet included.

``python -m benchmarks.mutants [--places N] [--seed N] [FILE …]``
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from cosmic_ray.commands import init
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.testing import run_tests
from cosmic_ray.work_db import use_db
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome

from benchmarks.machine import describe

LIBRARY, EXPORTER = "tests/smx_lightning", "tests/smx_export"
# Files to change, and the tests that belong to them, as arguments of pytest; the first that fits.
TESTS = {
    # The quickest first; those that take longest see no more of the method than the others.
    "smx_lightning/optim/*.py": (
        f"{LIBRARY}/optim/test_exact_solver_steps.py {LIBRARY}/optim/test_exact_solver_stops.py "
        f"{LIBRARY}/optim/test_exact_solver.py "
        "-k 'not process and not made_data and not many_classes and not command_line'"
    ),
    "smx_lightning/data/sharing.py": f"{LIBRARY}/data {LIBRARY}/processes/test_processes.py",
    "smx_lightning/data/loading.py": f"{LIBRARY}/data {LIBRARY}/processes/test_processes.py",
    "smx_lightning/processes/distributed.py": (
        f"{LIBRARY}/processes/test_processes.py {LIBRARY}/processes/test_sharding.py"
    ),
    "smx_lightning/recovery/fingerprint.py": f"{LIBRARY}/recovery/test_fingerprint.py",
    "smx_lightning/recovery/*.py": (
        f"{LIBRARY}/recovery/test_recovery.py {LIBRARY}/recovery/test_experiments.py"
    ),
    "export/smx_export/parity/reference.py": (
        f"{EXPORTER}/parity/test_measured_tolerance.py {EXPORTER}/parity/test_random_models.py"
    ),
    "export/smx_export/parity/*.py": f"{EXPORTER}/parity",
    "export/smx_export/artifact/vectors.py": f"{EXPORTER}/artifact/test_vectors.py",
    "export/smx_export/artifact/tolerance.py": f"{EXPORTER}/artifact/test_comparison.py",
    "export/smx_export/artifact/comparison.py": f"{EXPORTER}/artifact/test_comparison.py",
}
# Decorators, most of which only mark what they are on; operators on bits: the ``|`` of annotations,
# which are strings here, and those that floats do not have, so that any test would notice.
BITS = "BitOr|BitAnd|BitXor|LShift|RShift"
LEFT_OUT = re.compile(rf"RemoveDecorator|ReplaceBinaryOperator\w*_({BITS})")
PATIENCE = 5.0  # times what the tests take on the code as it is: a change may make them endless


class Tally(NamedTuple):
    """What became of one file's changes."""

    tried: int = 0
    noticed: int = 0
    endless: int = 0
    survived: int = 0

    def row(self, name: str) -> str:
        """The line of the table."""
        return f"| {name} | {self.tried} | {self.noticed} | {self.endless} | {self.survived} |"


def copied(to: Path) -> None:
    """Put a copy of the checkout into an empty folder: what git knows, or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if Path(name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, to / name)


def drawn(path: Path, places: int, seed: int, folder: str) -> list[MutationSpec]:
    """One change at each of so many places of a file."""
    with use_db(f"{folder}/changes.sqlite") as changes:
        init([path], changes, {})
        found = [change for item in changes.work_items for change in item.mutations]
    by_place: dict[tuple[int, int], list[MutationSpec]] = {}
    for change in found:
        if not LEFT_OUT.search(change.operator_name):
            by_place.setdefault(change.start_pos, []).append(change)
    chance = random.Random(f"{seed} {path}")
    chosen = chance.sample(sorted(by_place), min(places, len(by_place)))
    ordered = [sorted(by_place[p], key=lambda c: (c.operator_name, c.occurrence)) for p in chosen]
    return [chance.choice(changes) for changes in ordered]


def pytest_command(tests: str) -> str:
    """The command that runs tests, the same examples each time, up to the first failure."""
    options = "-x -q -p no:cacheprovider --durations=0 --hypothesis-seed=0"
    return f"{shlex.quote(sys.executable)} -m pytest {options} {tests}"


def tried(path: Path, changes: list[MutationSpec], tests: str, limit: float) -> Tally:
    """Run a file's changes one after the other, and print those that nothing noticed."""
    noticed = endless = survived = 0
    for change in changes:
        result = mutate_and_test([change], pytest_command(tests), limit)
        if result.worker_outcome != WorkerOutcome.NORMAL:
            raise RuntimeError(f"{path} could not be changed: {result.output}")
        if result.test_outcome == TestOutcome.SURVIVED:
            survived += 1
            print(f"survived:\n{result.diff}")
        elif result.output == "timeout":
            endless += 1
        else:
            noticed += 1
        row, _ = change.start_pos
        print(f"{path}:{row} {change.operator_name}: {noticed=} {endless=} {survived=}", flush=True)
    return Tally(len(changes), noticed, endless, survived)


def main() -> None:
    """Print the changes that survive, then the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", help="which of the files (default: all)")
    parser.add_argument("--places", type=int, default=6, help="of a file that are changed")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows, seen = [], set()
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        copied(copy)
        os.chdir(copy)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(copy), str(copy / "export")])
        os.environ["OMP_NUM_THREADS"] = "1"
        for pattern, tests in TESTS.items():
            paths = [p for p in sorted(Path().glob(pattern)) if p.name != "__init__.py"]
            paths = [p for p in paths if p not in seen and str(p) in (args.files or [str(p)])]
            seen.update(paths)
            if not paths:
                continue
            start = time.perf_counter()
            outcome, output = run_tests(pytest_command(tests), None)
            if outcome != TestOutcome.SURVIVED:
                sys.exit(f"expected tests that pass on the code as it is, got\n{output}")
            limit = PATIENCE * (time.perf_counter() - start)
            for path in paths:
                tally = tried(path, drawn(path, args.places, args.seed, folder), tests, limit)
                rows.append(tally.row(f"`{path}`"))
                print(rows[-1], flush=True)
    print(describe("cosmic_ray", "pytest"))
    print("\n| file | changes | noticed | endless | survived |\n| --- | --- | --- | --- | --- |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
