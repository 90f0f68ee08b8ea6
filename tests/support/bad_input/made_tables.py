"""Good tables and bad ones, and files that take them or say of them what is not so."""

import json

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq

from smx_export import export_onnx
from smx_export.artifact.files import sealed
from smx_lightning import SoftmaxRegression
from smx_lightning.tables import Column, Schema

SCHEMA = Schema((Column("age"), Column("colour", "category", categories=("red", "blue"))), "kind")


def make_tables(shelf):
    """Good tables and bad ones, in a folder of their own, and a file that takes them."""
    shelf = shelf / "tables"
    shelf.mkdir()
    model = SoftmaxRegression(3, 3, schema=SCHEMA)
    path = export_onnx(model, shelf / "table.onnx").path
    export_onnx(SoftmaxRegression(2, 2), shelf / "unnamed.onnx")
    for name, text in {
        "good.csv": "age,colour\n1.5,red\n2,blue\n",
        "short.csv": "age\n1.5\n",
        "words.csv": "age,colour\n1.5,red\nold,red\n",
        "gap.csv": "age,colour\n1.5,red\n,red\n",
        "infinite.csv": "age,colour\n1.5,red\n2,red\ninf,red\n",
        "semicolons.csv": "age;colour\n1,5;red\n",
        "twice.csv": "age,age,colour\n1,2,red\n",
        "ragged.csv": "age,colour\n1,red\n2\n",
        "empty.csv": "",
        "text.parquet": "age,colour\n1,red\n",
    }.items():
        (shelf / name).write_text(text, encoding="utf-8")
    kinds = {"numbers": [1, 2], "lists": [[1.0], [2.0]]}
    for name, values in kinds.items():
        more = values if name == "lists" else ["a", "b"]
        pq.write_table(
            pa.table({"age": [1.0, 2.0], "colour": values if name == "numbers" else ["red"] * 2,
                      "more": more}), shelf / f"{name}.parquet",
        )  # fmt: skip
    (shelf / "none").mkdir()
    np.save(shelf / "x.npy", np.zeros((2, 3), np.float32))
    for name, told in {
        "damaged": "[1]",
        "deep": "[" * 2000 + "]" * 2000,
        "other": json.dumps(Schema((Column("age"),)).to_dict()),
        "code": json.dumps({"version": 1, "columns": [{"name": "a", "kind": "__import__"}]}),
    }.items():
        proto = onnx.load(path)
        entry = next(entry for entry in proto.metadata_props if entry.key == "schema")
        entry.value = told
        (shelf / f"{name}.onnx").write_bytes(sealed(proto))
