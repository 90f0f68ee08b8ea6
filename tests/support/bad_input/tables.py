"""Tables that cannot be trained on: files, columns, labels, weights, options."""

from pathlib import Path

from bad_input.actions import BAD, RUN, train
from smx_lightning import InputError
from smx_lightning.data import TableDataModule
from smx_lightning.tables import Schema

ROWS = 24
GOOD = {
    "x": [f"{k / 7:.3f}" for k in range(ROWS)],
    "c": ["red", "blue", "red"] * (ROWS // 3),
    "y": ["cat", "dog"] * (ROWS // 2),
}


def csv(**changes):
    """The good table with some columns replaced, or absent where None; a word is put in row 3."""
    columns = {}
    for name, column in {**GOOD, **changes}.items():
        if isinstance(column, str):
            column = [*GOOD.get(name, ["1"] * ROWS)[:3], column, *GOOD.get(name, ["1"] * ROWS)[4:]]
        if column is not None:
            columns[name] = column
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    Path("bad.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def fit(options="--data.target=y", content=None, name="bad.csv", **changes):
    """``smx-lightning fit`` on such a table, or on a file of this content."""

    def action():
        if content is None:
            csv(**changes)
        else:
            Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return train(f"fit {RUN} --data {name} {options}")()

    return action


def table(target="y", source="bad.csv", **options):
    """``TableDataModule`` on the good table, or another source."""
    return lambda: csv() or TableDataModule(source, target, **options).splits


WHO = [f"p{k}" for k in range(ROWS)]

# fmt: off
CASES = [
    ("table without a target", fit(""), BAD,
     "expected the column of the labels as target, got none; name one of the columns of bad.csv"),
    ("table with another target", fit("--data.target=z"), BAD,
     "expected the columns z in bad.csv, found no z among x, c, y; add these, or name others"),
    ("table of fractions as labels", fit("--data.target=x"), BAD,
     "expected labels in column 'x', got the number 0.143 in row 1 of bad.csv, counted from 0;"),
    ("table of one class", fit(y=["cat"] * ROWS), BAD,
     "expected labels of at least 2 classes, got only ('cat',)"),
    ("table without a label", fit(y=["NA"] * ROWS), BAD,
     "expected rows with a label in bad.csv, got none in 24 rows; only predict takes rows witho"),
    ("table with infinity", fit(x="inf"), BAD,
     "expected finite numbers in column 'x', got inf in row 3 of bad.csv, counted from 0 (1 suc"),
    ("table with a number that float32 has not", fit(x="1e39"), BAD,
     "expected numbers that float32 can hold, up to 3.4e+38, got 1e+39 in column 'x', row 3 of"),
    ("table with a word among numbers", fit("--data.target=y --data.kinds.x=number", x="ten"), BAD,
     "expected numbers in column 'x', got 'ten' in row 3 of bad.csv, counted from 0; correct it"),
    ("table of identifiers", fit(who=WHO), BAD,
     "expected categories in column 'who', got …different values in …rows, as identifiers have;"),
    ("table with a gap that is refused", fit("--data.target=y --data.missing=refuse", x="NA"), BAD,
     "expected a value in every row of column 'x', got none in row 3 of bad.csv, counted from 0"),
    ("table with a weight below zero", fit("--data.target=y --data.weight=w", w="-1"), BAD,
     "expected weights of at least 0 in column 'w', got -1 in row 3 of bad.csv, counted from 0"),
    ("table with a gap among weights", fit("--data.target=y --data.weight=w", w="NA"), BAD,
     "expected weights of at least 0 in column 'w', got none in row 3 of bad.csv"),
    ("table with a column of no name", fit(**{"": [str(k) for k in range(ROWS)]}), BAD,
     "expected a name for every column of bad.csv, got '' for column 3, as an index that pandas"),
    ("table with columns of one name", fit(content="x,x,y\n" + "1,2,a\n3,4,b\n" * 9), BAD,
     "expected one column of each name in bad.csv, got several called x; rename these"),
    ("table with features of one name", fit(**{"c = red": ["1", "2"] * 12}), BAD,
     "expected features of different names, got two called 'c = red'"),
    ("table with a distribution that is none", fit("--data.target=[x,p]", p=["-1"] * ROWS), BAD,
     "expected a distribution in the columns x, p, numbers of at least 0 not all of which are 0"),
    ("table with features that are not there", fit("--data.target=y --data.features=[x,z]"), BAD,
     "found no z among x, c, y; add these"),
    ("table with a feature that is the label", fit("--data.target=y --data.features=[x,y]"), BAD,
     "expected each column to be target, weight, one of features or dropped, got 'y' as two of"),
    ("table with too few rows to split", fit(content="x,y\n1,a\n2,b\n"), BAD,
     "expected enough rows to split off a test set, got 2 rows for test_fraction=0.25"),
    ("table that is empty", fit(content=""), BAD,
     "expected a header with the names of the columns in the first line of bad.csv, got an empt"),
    ("table of a header alone", fit(content="x,y\n"), BAD,
     "expected rows with a label in bad.csv, got none in 0 rows"),
    ("table with semicolons", fit(content="x;y\n1,5;a\n"), BAD,
     "got a header without any, and with a semicolon: x;y; give separator=';' and, where number"),
    ("table in UTF-16", fit(content="x,y\n1,a\n".encode("utf-16")), BAD,
     "expected text in UTF-8 in bad.csv, got UTF-16"),
    ("table in Latin-1", fit(content=b"x,y,c\n" + "1,a,é\n2,b,è\n".encode("latin-1") * 12), BAD,
     "expected numbers, booleans, dates or text in column 'c', got binary in bad.csv; save it a"),
    ("table with a long row", fit(content="x,y\n1,a\n1,a,2\n"), BAD,
     "expected 2 cells in each row, as the header has, got 3 in row 1 of bad.csv, counted from"),
    ("table that is not there",
     train(f"fit {RUN} --data=absent.csv --data.target=y"), BAD,
     "expected a table at absent.csv, found no file; check the path"),
    ("folder of no tables", train(f"fit {RUN} --data ./folder --data.target=y"), BAD,
     "expected --data with a folder of tables (.csv, …) or of IDX files, got ./folder, which ha"),
    ("Parquet that is a text", lambda: csv() or TableDataModule("text.npz", "y").splits, InputError,
     "expected a table in a file of .csv, …, got text.npz; save it as one of these"),
    ("table that is a number", table(source=3), InputError,
     "expected a table: a path, a dict of columns or a data frame, got int; make it one of these"),
    ("table of columns of two lengths", table(source={"x": [1], "y": ["a", "b"]}), InputError,
     "expected a table with columns of one type each, got a dict of which pyarrow says: …length"),
    ("table of mixed values", table(source={"x": [1, "a"], "y": ["a", "b"]}), InputError,
     "expected a table with columns of one type each, got a dict of which pyarrow says: Could n"),
    ("table of lists", table(source={"x": [[1]] * ROWS, "y": GOOD["y"]}), InputError,
     "expected numbers, booleans, dates or text in column 'x', got list<…in the table; make col"),
    ("table with another kind forced", table(kinds={"x": "tensor"}), InputError,
     "expected kinds among number, boolean, date, category, got 'tensor'; take one"),
    ("table with missing of another word", table(missing="mean"), InputError,
     "expected missing of indicator or refuse, got 'mean'; take one"),
    ("table with min_count below zero", table(min_count=-1), InputError,
     "min_count must be a number of at least 0, got -1; 1 keeps every category"),
    ("table with one name where many are wanted", table(features="x"), InputError,
     "expected features as a list of names, got the text 'x'; give ['x']"),
    ("schema that is none",
     lambda: Schema.from_dict({"columns": [{"name": "x", "kind": "y"}]}), InputError,
     "expected a schema with one of the kinds number, boolean, date, category, got 'y'; take on"),
    ("table with a header in Latin-1", fit(content="Ä,y\n1,a\n".encode("latin-1") * 12), BAD,
     "expected text in UTF-8 in bad.csv, got names of columns in another encoding; save it"),
]
# fmt: on
