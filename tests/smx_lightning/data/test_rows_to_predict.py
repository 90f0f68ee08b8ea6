"""What predict is given: all rows of the file in their order, whatever their labels."""

import numpy as np
import pytest
import torch
from idx_files import idx_folder
from sklearn.datasets import load_digits

from smx_lightning import InputError, SoftmaxRegression
from smx_lightning.callbacks import PredictionsCsv
from smx_lightning.data import DigitsDataModule, IdxDataModule, NpzDataModule

RNG = np.random.default_rng(0)
X, X_VAL, X_TEST = (RNG.random((n, 2, 3)).astype(np.float32) for n in (40, 5, 7))


def served(data):
    batches = list(data.predict_dataloader())
    assert all(isinstance(batch, torch.Tensor) for batch in batches)
    return torch.cat(batches).numpy()


def npz(folder, **arrays):
    np.savez(folder / "d.npz", **arrays)
    return NpzDataModule(folder / "d.npz", batch_size=16)


def test_rows_without_labels_are_all_served_in_order(tmp_path):
    data = npz(tmp_path, x=X)
    np.testing.assert_array_equal(served(data), X)
    np.testing.assert_array_equal(served(data), X)  # again
    for ask in ("num_classes", "class_names", "splits", "num_features"):
        with pytest.raises(InputError, match=r"expected both x and y .* found x; .* only predict"):
            getattr(data, ask)


@pytest.mark.parametrize(
    ("arrays", "right"),
    [
        ({"x": X, "y": np.arange(40)}, [X]),  # labels that no training would take
        ({"x": X, "y": np.full(40, np.nan)}, [X]),
        ({"x": X, "x_test": X_TEST}, [X, X_TEST]),
        ({"x_test": X_TEST, "x_val": X_VAL, "x": X}, [X, X_VAL, X_TEST]),
        ({"x": X, "y": np.arange(40) % 2, "x_val": X_VAL, "y_val": np.arange(5) + 9},
         [X, X_VAL]),
    ],
)  # fmt: skip
def test_all_rows_are_x_then_x_val_then_x_test(arrays, right, tmp_path):
    np.testing.assert_array_equal(served(npz(tmp_path, **arrays)), np.concatenate(right))


def test_a_file_that_serves_nothing_says_so(tmp_path):
    for arrays, message in [
        ({"y": np.arange(4)}, "expected x in .*d.npz, found y; save it with numpy.savez"),
        ({"x": X[:0]}, "expected at least one row in the x rows, got none"),
        ({"x": X, "x_test": X_TEST[:, :1]}, "expected x_test inputs of shape .2, 3. like the"),
        ({"x": np.where(X[3, 0, 0] == X, np.nan, X)}, "got NaN or infinity in row 3 of the x row"),
    ]:
        with pytest.raises(InputError, match=message):
            npz(tmp_path, **arrays).predict_dataloader()


def test_digits_and_images_are_all_served(tmp_path):
    np.testing.assert_array_equal(served(DigitsDataModule()), load_digits().images)
    images = idx_folder(tmp_path, [1, 2, 3] * 4, [9, 9])  # 9 is no training class
    for labels in tmp_path.glob("*labels*"):
        labels.unlink()
    whole = np.concatenate([images["train"], images["t10k"]])
    np.testing.assert_array_equal(served(IdxDataModule(tmp_path)), whole)


def test_predictions_are_of_every_row_of_the_file(tmp_path, quiet_trainer):
    """The written rows are the file's, and their classes those of a slow second computation."""
    model = SoftmaxRegression(6, 3, class_names=["a", "b", "c"])
    csv = PredictionsCsv(str(tmp_path / "p.csv"))
    quiet_trainer(callbacks=[csv]).predict(
        model, datamodule=npz(tmp_path, x=X), return_predictions=False
    )
    header, *rows = csv.written.read_text().splitlines()
    assert header == "row,class,p(a),p(b),p(c)"
    weight, bias = (p.detach().double().numpy() for p in model.linear.parameters())
    scores = X.reshape(40, 6).astype(float) @ weight.T + bias
    right = [f"{row},{'abc'[k]}" for row, k in enumerate(scores.argmax(1))]
    assert [",".join(row.split(",")[:2]) for row in rows] == right
