"""Tables for tests: real ones that scikit-learn ships, with names, words and gaps; and made ones.

All are ``pyarrow.Table``; :func:`write` puts one into a file by its suffix, :func:`write_folder`
into several.
"""

import gzip
import itertools
from functools import cache

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
from sklearn import datasets

from smx_lightning import SoftmaxRegression

REAL = {  # name: what loads it, and what its label is called here
    "wine": (datasets.load_wine, "cultivar"),
    "breast_cancer": (datasets.load_breast_cancer, "diagnosis"),
    "iris": (datasets.load_iris, "species"),
    "digits": (datasets.load_digits, "digit"),
}
COLOURS = ("blue", "green", "red")
SIZES = ("small", "medium", "large")  # in their own order, which is not that of the alphabet
EPOCH = np.datetime64("2020-01-01T00:00:00", "s")


@cache
def real(name):
    """A real table (rows, features + 1) with named columns; the label is the last, in words."""
    load, label = REAL[name]
    data = load()
    names = [str(column) for column in data.feature_names]
    columns = dict(zip(names, data.data.T.copy(), strict=True))
    words = np.array([str(word) for word in data.target_names])
    return pa.table({**columns, label: words[data.target]})


def label_of(name):
    """The label's column of a real table."""
    return REAL[name][1]


def gapped(table, *, but=(), share=0.1, seed=0):
    """The table with a share of the values missing, in all columns but those named."""
    rng = np.random.default_rng(seed)
    columns = {}
    for name, values in zip(table.column_names, table.columns, strict=True):
        gone = rng.random(table.num_rows) < share
        columns[name] = values if name in but else _without(values, gone)
    return pa.table(columns)


def _without(values, gone):
    kept = pa.array(np.where(gone, None, np.arange(len(values))), pa.int64())
    return values.combine_chunks().take(kept)


def mixed(rows=300, *, seed=0, gaps=0.1):
    """Every kind of column, with gaps, and a label ``outcome`` of three words that depends on them.

    ``age`` and ``visits`` are numbers, ``smokes`` is boolean, ``colour`` a category in text,
    ``size`` one in an ordered dictionary, ``born`` a date and ``seen`` a timestamp in UTC;
    ``share`` holds weights from 0.5 to 2 and ``id`` identifiers.
    """
    rng = np.random.default_rng(seed)
    age, visits = rng.normal(40, 12, rows), rng.poisson(3, rows)
    smokes, colour, size = (
        rng.integers(0, 2, rows),
        rng.integers(0, 3, rows),
        rng.integers(0, 3, rows),
    )
    born, seen = rng.integers(-9000, 9000, rows), rng.integers(0, 10**7, rows)
    scores = np.c_[
        (age - 40) / 12 + smokes, (colour == 2) * 2 - visits / 3, (size - 1) + born / 9000
    ]
    outcome = (scores + rng.gumbel(size=scores.shape)).argmax(1)
    codes = pa.array(size.astype(np.int8))
    columns = {
        "age": pa.array(age.round(3)),
        "visits": pa.array(visits),
        "smokes": pa.array(smokes.astype(bool)),
        "colour": pa.array(np.array(COLOURS)[colour]),
        "size": pa.DictionaryArray.from_arrays(codes, pa.array(SIZES), ordered=True),
        "born": pa.array(born.astype(np.int32), pa.date32()),
        "seen": pa.array(EPOCH + seen.astype("m8[s]"), pa.timestamp("s", "UTC")),
    }
    gone = {name: rng.random(rows) < gaps for name in columns}
    columns = {
        name: _without(pa.chunked_array([values]), gone[name]) if gaps else values
        for name, values in columns.items()
    }
    return pa.table(
        {
            "id": pa.array([f"p{k:06}" for k in range(rows)]),
            **columns,
            "share": pa.array(rng.uniform(0.5, 2, rows).round(3)),
            "outcome": pa.array(np.array(["better", "same", "worse"])[outcome]),
        }
    )


def _made(**columns):
    """Sixty rows with a number, what is named, and a label of three words."""
    rng = np.random.default_rng(1)
    rows = 60
    label = np.arange(rows) % 3
    number = label + rng.normal(size=rows)
    given = {name: make(rng, label) for name, make in columns.items()}
    return pa.table({"number": number, **given, "label": np.array(["a", "b", "c"])[label]})


def dates_in_seconds():
    """Timestamps as numbers of 1.6e9, whose seconds matter."""
    return _made(seconds=lambda rng, y: 1.6e9 + 40.0 * y + rng.uniform(0, 64, len(y)))


def rare_categories():
    """A category of one row, another of two."""
    words = ["once", "twice", "twice", *["often", "usual"] * 28, "usual"]
    return _made(word=lambda rng, y: np.array(words))


def all_missing():
    """A column without a single value."""
    return _made(nothing=lambda rng, y: pa.nulls(len(y), pa.float64()))


def one_class():
    """A label that is always the same."""
    table = _made()
    return table.set_column(1, "label", pa.array(["a"] * table.num_rows))


def label_again():
    """A column that is the label under another name, in numbers."""
    return _made(copy=lambda rng, y: y.astype(float))


def unicode_names():
    """Names and categories of several scripts, with what CSV and markup must quote."""
    words = ["rot, hell", 'blau "tief"', "зелёный", "青", "emoji 🍷", "line\nbreak"]
    return _made(
        **{
            "Größe, cm": lambda rng, y: rng.normal(170, 10, len(y)),
            'the "quoted"': lambda rng, y: rng.normal(size=len(y)),
            "色": lambda rng, y: np.array(words)[rng.integers(0, len(words), len(y))],
            "<b>=1+1</b>": lambda rng, y: rng.normal(size=len(y)),
        }
    )


def duplicate_names():
    """Two columns of one name."""
    table = _made(twice=lambda rng, y: rng.normal(size=len(y)))
    return table.append_column("twice", table.column("number"))


def constant():
    """A number and a category that never change."""
    return _made(same=lambda rng, y: np.full(len(y), 3.5), word=lambda rng, y: ["on"] * len(y))


def header_only():
    """Columns without rows."""
    return _made().slice(0, 0)


MADE = {
    make.__name__: make
    for make in (
        *(dates_in_seconds, rare_categories, all_missing, one_class, label_again),
        *(unicode_names, duplicate_names, constant, header_only),
    )
}


def many_rows(rows=10**6):
    """As many rows of five numbers, a category and a label."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(rows, 5)).astype(np.float32)
    word = rng.integers(0, 3, rows)
    label = (x[:, :3] + 2 * (word[:, None] == np.arange(3)) + rng.gumbel(size=(rows, 3))).argmax(1)
    return pa.table(
        {
            **{f"x{k}": x[:, k] for k in range(x.shape[1])},
            "colour": np.array(COLOURS)[word],
            "label": np.array(["a", "b", "c"])[label],
        }
    )


def write(table, path):
    """Write a table by the suffix of the path: .csv, .tsv, their .gz, .parquet, .feather, .arrow.

    CSV has no dictionaries: categories go as text.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = "".join(path.suffixes[-2:]) if path.suffix == ".gz" else path.suffix
    if suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif suffix in (".feather", ".arrow"):
        pyarrow.feather.write_feather(table, str(path))
    else:
        separator = "\t" if suffix.startswith(".tsv") else ","
        options = pyarrow.csv.WriteOptions(delimiter=separator)
        opened = gzip.open if suffix.endswith(".gz") else open
        with opened(path, "wb") as file:
            pyarrow.csv.write_csv(as_text(table), file, options)
    return path


def as_text(table):
    """The table with its dictionaries decoded."""
    schema = pa.schema(
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in table.schema
    )
    return table.cast(schema)


def write_folder(table, folder, *, parts=3, suffix=".parquet"):
    """Write a table as files of unequal numbers of rows, in the order of their names."""
    cuts = [table.num_rows * k * (k + 1) // (parts * (parts + 1)) for k in range(parts + 1)]
    for part, (start, stop) in enumerate(itertools.pairwise(cuts)):
        write(table.slice(start, stop - start), folder / f"part-{part:03}{suffix}")
    return folder


def model_of(data, **options):
    """A standardising model of a data module's sizes, names and schema."""
    return SoftmaxRegression(
        data.num_features,
        data.num_classes,
        class_names=data.class_names,
        schema=data.schema,
        preprocessing="standardize",
        **options,
    )
