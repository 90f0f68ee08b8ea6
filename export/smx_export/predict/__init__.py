"""Rows in a file → what an ONNX file answers, as a file. No torch; more rows than memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.files import parse
from smx_export.errors import FileError
from smx_export.predict.arrays import source_of_arrays
from smx_export.predict.output import is_parquet, written_to
from smx_export.predict.source import Source
from smx_export.predict.tables import TableOptions, source_of_table
from smx_export.runtime.answers import Answer, Top
from smx_export.runtime.classifier import OnnxClassifier
from smx_export.runtime.policy import MISSING, OnNan, OnRange
from smx_export.targets.apart import SessionApart, open_apart
from smx_export.targets.limited import LIMITS, Limits
from smx_export.targets.selftest import selftest
from smx_lightning.tables.sources.suffixes import names_table

BLOCK_NUMBERS = 1 << 20  # inputs or probabilities at a time: some 50 MB in all
PATIENCE = 2.0  # seconds between two lines about the progress

Progress = Callable[[int, int | None], None]


def predict(
    model: str | Path,
    rows: str | Path,
    output: str | Path,
    *,
    table: TableOptions | None = None,
    on_nan: OnNan = "raise",
    on_range: OnRange = "warn",
    limits: Limits = LIMITS,
    progress: Progress = lambda done, total: None,
    patience: float | None = None,
) -> int:
    """Write what a file answers to rows, or its most probable classes, in the rows' order.

    Args:
        model: The ONNX file. Its self-test is run first.
        rows: An .npy file of rows (n, …), or an .npz file with x, and x_val and x_test where
            present, which follow it; of several inputs an .npz file with an array each, by name.
            Labels are not read. Numbers are rounded to float32, as in training; a file that takes
            pixels wants bytes. Or a table, see :func:`source_of_table`.
        output: A CSV file, or a .parquet file, by its suffix; it is written whole or not at all.
        table: How a table is read, and which of its columns are kept, by default all.
        on_nan: As :class:`smx_export.OnnxClassifier` takes it.
        on_range: Likewise.
        limits: Of the process in which the ONNX file is run.
        progress: Called now and then with the rows that are done, and all, ``None`` if not known.
        patience: Seconds between two such calls.

    Returns:
        The number of rows.

    Raises:
        FileError: Where the ONNX file is not as it was exported, or the rows do not fit it.
        ValueError: Where an option or the lack of an output of the file says so.
        InputError: Where the output cannot be written, or needs pyarrow, as a table does.
    """
    _check_options(table, rows, output)
    _check_intact(model, limits)
    nan: OnNan = "missing" if on_nan == "raise" else on_nan
    told = _Told(progress, PATIENCE if patience is None else patience)
    with closing(_Apart(Path(model), limits, on_nan=nan, on_range=on_range)) as classifier:
        with _refusing(0):
            _asked(classifier)(_no_rows(classifier))
        most = max(1, BLOCK_NUMBERS // max(classifier.num_features, len(classifier.class_names)))
        if names_table(rows):
            options, typed = table or TableOptions(), is_parquet(output)
            source = source_of_table(classifier, rows, most, options, on_nan, typed=typed)
        else:
            source = source_of_arrays(classifier, rows, most)
        return _write(classifier, source, output, on_nan, told)


OTHERS = (
    *(".feather", ".arrow", ".pq", ".xlsx", ".xls", ".json", ".jsonl", ".npz", ".npy"),
    *(".gz", ".bz2", ".zst", ".zip", ".onnx"),
)  # suffixes of what is not written


class _Apart(OnnxClassifier):
    """A classifier whose file is run in a process with limits."""

    def __init__(self, path: Path, limits: Limits, **options: Any) -> None:
        self._limits = limits
        with ExitStack() as stack:
            self._stack = stack
            super().__init__(path, **options)
            stack.pop_all()

    def _opened(self, path: Path) -> SessionApart:
        session = open_apart(path, parse(self._content, path), self._limits)
        self._stack.callback(session.close)  # should the file not be one of ours
        return session

    def close(self) -> None:
        """End the process."""
        self.session.close()


def _check_options(table: TableOptions | None, rows: str | Path, output: str | Path) -> None:
    if Path(rows).is_dir() and Path(output).parent.resolve() == Path(rows).resolve():
        raise FileError(
            f"expected an output that is not in the folder of the table, got {output}, which would "
            "be a part of the table the next time; choose another folder"
        )
    suffix = Path(output).suffix.lower()
    if suffix in OTHERS:
        raise FileError(
            f"expected a .csv or a .parquet file to write, got {output}, which a program would "
            f"take for what {suffix} says; give it another suffix"
        )
    if table is not None and not names_table(rows):
        raise FileError(
            f"expected a table of which columns are kept, got {rows}; leave --keep, --separator "
            "and --decimal (table=) out"
        )


class _Told:
    """How far it has got, told now and then."""

    def __init__(self, progress: Progress, patience: float) -> None:
        self._progress, self._patience = progress, patience
        self._last = time.monotonic()

    def __call__(self, done: int, total: int | None) -> None:
        if time.monotonic() - self._last > self._patience:
            self._last = time.monotonic()
            self._progress(done, total)


def _write(
    classifier: OnnxClassifier, source: Source, output: str | Path, on_nan: OnNan, told: _Told
) -> int:
    """The file of answers; the number of its rows."""
    done = 0
    names, top_k = classifier.class_names, classifier.top_k
    with written_to(output, names, top_k, source.kept) as write:
        for block in source.blocks:
            answer = _answer(classifier, block.rows)
            if on_nan == "raise":
                _check_answered(answer.label, block.first, block.where)
            write(answer, block.own)
            done += len(answer.label)
            told(done, source.total)
    source.ended()
    return done


def _no_rows(classifier: OnnxClassifier) -> Any:
    if classifier._mixed is not None:
        return classifier._mixed.no_rows()
    return np.empty((0, classifier.num_features), classifier.dtype)


def _check_intact(model: str | Path, limits: Limits) -> None:
    found = selftest(model, limits=limits)
    if not found.passed:
        failed = next(check for check in found.checks if not check.passed)
        raise FileError(
            f"expected a file as it was exported at {model}, got one that fails its self-test "
            f"({failed.name}: {failed.detail}); export it again"
        )


def _check_answered(label: NDArray[np.int64], first: int, where: str) -> None:
    missing = label == MISSING
    if missing.any():
        raise FileError(
            f"expected rows that have an answer, got NaN, infinity or what overflows in row "
            f"{first + int(missing.argmax())} of {where}; remove or impute such rows, or take "
            "--nan missing"
        )


def _answer(classifier: OnnxClassifier, block: Any) -> Answer | Top:
    with np.errstate(over="ignore"):  # to infinity, which has no answer
        if isinstance(block, dict):
            dtypes: Any = classifier.dtype
            block = {name: _rounded(x, dtypes[name]) for name, x in block.items()}
        else:
            block = _rounded(block, classifier.dtype)
    rows = len(next(iter(block.values()))) if isinstance(block, dict) else len(block)
    with _refusing(rows):
        return _asked(classifier)(block)


def _asked(classifier: OnnxClassifier) -> Callable[[Any], Answer | Top]:
    """What a classifier is asked for: its file names the most probable classes, or tells all."""
    return classifier.answer if classifier.top_k is None else classifier.predict_top


def _rounded(x: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Numbers in the file's dtype, as in training; integers as they are."""
    return x.astype(dtype, copy=False) if dtype.kind == "f" and x.dtype.kind in "fiub" else x


@contextmanager
def _refusing(rows: int) -> Iterator[None]:
    """One sentence of what a classifier, or the process in which its file is run, complains of."""
    try:
        yield
    except TypeError as error:
        raise FileError(str(error)) from error
    except RuntimeError as error:
        raise FileError(
            f"expected a file that answers {rows} rows, got: {error}; export it again, or "
            "allow it more with --max-seconds or --max-memory"
        ) from error
