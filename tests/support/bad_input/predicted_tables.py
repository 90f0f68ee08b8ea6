"""Tables that a file cannot answer, and files that say of tables what is not so."""

from bad_input.actions import BAD, ship
from smx_export import FileError, OnnxClassifier
from smx_lightning import InputError


def answer(file, rows, options=""):
    """``smx-export predict`` of a table in the folder."""
    return ship(f"predict tables/{file}.onnx tables/{rows} out.csv {options}")


def ask(frame, file="table"):
    """``OnnxClassifier.predict`` of a data frame."""
    return lambda: OnnxClassifier(f"tables/{file}.onnx").predict(frame)


# fmt: off
CASES = [
    ("a table without a column", answer("table", "short.csv"), BAD,
     "expected the columns age, colour in tables/short.csv, found no colour among age; add these"),
    ("a table of another kind", answer("table", "words.csv"), BAD,
     "expected numbers in column 'age', got 'old' in row 1 of tables/words.csv, counted from 0"),
    ("a category in whole numbers", answer("table", "numbers.parquet"), BAD,
     "column 'colour'…int64"),
    ("a missing value that training had not", answer("table", "gap.csv"), BAD,
     "expected a value in every row of column 'age', got none in row 1 of tables/gap.csv, counted"),
    ("an infinite value", answer("table", "infinite.csv"), BAD,
     "expected finite numbers in column 'age', got inf in row 2 of tables/infinite.csv"),
    ("semicolons", answer("table", "semicolons.csv"), BAD,
     "expected columns with a comma between them in tables/semicolons.csv…separator=';'"),
    ("two columns of a name", answer("table", "twice.csv"), BAD, "age"),
    ("rows of other widths", answer("table", "ragged.csv"), BAD,
     "expected 2 cells in each row, as the header has, got 1 in"),
    ("an empty CSV file", answer("table", "empty.csv"), BAD,
     "expected a header with the names of the columns in the first line of tables/empty.csv"),
    ("a Parquet file that is text", answer("table", "text.parquet"), BAD, "tables/text.parquet"),
    ("no such table", answer("table", "absent.csv"), BAD,
     "expected a table at tables/absent.csv, found no file; check the path"),
    ("a folder without tables", answer("table", "none"), BAD,
     "expected files of a table (…) in the folder tables/none, found nothing; point at the folder"),
    ("a column to keep that is not there", answer("table", "good.csv", "--keep id"), BAD,
     "expected one column 'id' in tables/good.csv to keep, got none; choose from age, colour"),
    ("columns to keep of an array", answer("table", "x.npy", "--keep id"), BAD,
     "expected a table of which columns are kept, got tables/x.npy; leave --keep, --separator"),
    ("a list in a cell", answer("table", "lists.parquet"), BAD,
     "expected columns of which a CSV file can hold a value a cell, got list<…> in 'more'; leave"),
    ("more columns than features", answer("unnamed", "lists.parquet"), BAD,
     "expected 2 columns of numbers in tables/lists.parquet, as the file names no features, got 3"),
    ("words for a file without names", answer("unnamed", "good.csv"), BAD, "column 'colour'"),
    ("convert on a table of a model without names",
     ship("convert good.ckpt out.onnx --data tables/good.csv"), BAD,
     "expected rows in an .npz file for a model that names no features, got tables/good.csv"),
    *((f"predict: a file whose schema is {name}", answer(name, "good.csv"), BAD,
       "self-test (metadata: schema is no schema of a table whose features have these names")
      for name in ("damaged", "deep", "other", "code")),
    *((f"OnnxClassifier: a file whose schema is {name}", ask({}, name), FileError,
       "expected names of 3 features, and the columns that they come from, in the metadata of "
       f"tables/{name}.onnx, got others; export the model again")
      for name in ("damaged", "deep", "other", "code")),
    ("OnnxClassifier: a frame without a column", ask({"age": [1.0]}), InputError,
     "expected the columns age, colour in the table, found no colour among age; add these"),
    ("OnnxClassifier: columns of two lengths", ask({"age": [1.0], "colour": ["red", "red"]}),
     InputError, "expected a table with columns of one type each, got a dict"),
    ("OnnxClassifier: a row of plain values", ask({"age": 1.0, "colour": "red"}), InputError,
     "expected a table with columns of one type each, got a dict"),
    ("OnnxClassifier: infinite", ask({"age": [float("inf")], "colour": ["red"]}), InputError,
     "expected finite numbers in column 'age', got inf in row 0 of the table, counted from 0"),
    ("answers under another suffix", ship("predict tables/table.onnx tables/good.csv out.xlsx"),
     BAD, "expected a .csv or a .parquet file to write, got out.xlsx, which a program would take"),
]
# fmt: on
