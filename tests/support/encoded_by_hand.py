"""A file whose features come from a table, and its answers by pandas and numpy alone."""

import numpy as np
import pandas as pd
import torch

from smx_lightning import SoftmaxRegression
from smx_lightning.tables import Column, Schema

CLASSES = ["better", "same", "worse"]
SCHEMA = Schema(
    (
        Column("age", fill=40.25, missing=True),
        Column("colour", "category", True, categories=("blue", "red"), other=("green",)),
        Column("visits", fill=3.0, missing=True),
        Column("smokes", "boolean", fill=0.5, missing=True),
        Column("size", "category", True, categories=("small", "medium", "large")),
        Column("seen", "date", True, 1.6e9, "s"),
    ),
    target="outcome",
)


def model_of(schema=SCHEMA, classes=CLASSES, **arguments):
    """A model of the schema's features, whose weights decide."""
    model = SoftmaxRegression(
        len(schema.feature_names), len(classes), class_names=classes, schema=schema,
        preprocessing="standardize", **arguments,
    )  # fmt: skip
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        model.linear.weight.normal_(generator=random)
        for at, name in enumerate(schema.feature_names):
            mean, scale = {"seen": (1.582e9, 9e6), "age": (40, 12)}.get(name, (0, 1))
            model.preprocessing.mean[at], model.preprocessing.scale[at] = mean, scale
    return model


def features(table):
    """The schema's features (rows, 16) of an Arrow table, without Arrow: column by column."""
    frame = table.to_pandas(date_as_object=False)
    gap = {name: frame[name].isna().to_numpy(float) for name in frame}

    def filled(name, value):
        return frame[name].astype(float).fillna(value).to_numpy()

    seconds = (frame["seen"] - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
    columns = [
        filled("age", 40.25), gap["age"],
        *((frame["colour"] == name).to_numpy(float) for name in ("blue", "red", "green")),
        gap["colour"],
        filled("visits", 3.0), gap["visits"],
        filled("smokes", 0.5), gap["smokes"],
        *((frame["size"] == name).to_numpy(float) for name in ("small", "medium", "large")),
        gap["size"],
        seconds.fillna(1.6e9).to_numpy(), gap["seen"],
    ]  # fmt: skip
    return np.stack(columns, 1)


def probabilities(model, x):
    """What a model says of features (rows, d), in float64."""
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    mean, scale = (
        t.double().numpy() for t in (model.preprocessing.centre, model.preprocessing.scale)
    )
    z = (np.float32(x).astype(float) - mean) / scale @ weight.T + bias
    e = np.exp(z - z.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)
