"""Labels that are no class indices from 0; scikit-learn's LabelEncoder and numpy are the judges."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from idx_files import idx_folder
from sampled import examples
from sklearn.preprocessing import LabelEncoder

from smx_lightning import InputError
from smx_lightning.data import IdxDataModule, InMemoryDataModule, Loaded, NpzDataModule, Rows
from smx_lightning.data.labels import classes_named, classes_of, labels

DTYPES = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
VALUES = {
    "covertype": range(1, 8),
    "wine quality": range(3, 9),
    "letters": range(1, 27),
    "gap": [0, 5],
    "indices": range(4),
}
WIDE_VALUES = {
    "years": [2001, 2002, 2003],
    "signs": [-1, 1],
    "negative": [-7, -3, 0, 2],
    "huge": [-(2**62), 5, 2**62, 2**62 + 1],
}
GRID = [(name, values, dtype) for name, values in VALUES.items() for dtype in DTYPES] + [
    *((name, values, "int64") for name, values in WIDE_VALUES.items()),
    ("past int64", [1, 2**63, 2**64 - 1], "uint64"),
    ("truth", [False, True], "bool"),
    ("words", ["cat", "ant", "bee", "10", "9"], "U5"),
]


def data_of(folder, x=None, **arrays):
    n = len(arrays["y"])
    x = np.random.default_rng(0).random((n, 2)) if x is None else x
    more = {f"x_{k[2:]}": x[: len(v)] for k, v in arrays.items() if k != "y"}
    np.savez(folder / "d.npz", x=x, **arrays, **more)
    return folder / "d.npz"


@pytest.mark.parametrize(("values", "dtype"), [p[1:] for p in GRID], ids=[p[0] for p in GRID])
def test_classes_are_the_sorted_values_whatever_they_are(values, dtype, tmp_path):
    y = np.random.default_rng(1).permutation(np.repeat(np.array([*values], dtype), 6))
    judge = LabelEncoder().fit(y)
    data = NpzDataModule(data_of(tmp_path, y=y, y_test=y, y_val=y[:5]))
    assert data.class_names == [str(value) for value in judge.classes_]
    assert data.num_classes == len(values)  # no phantom among them
    splits = data.splits
    for rows, truth in ((splits.train, y), (splits.test, y), (splits.val, y[:5])):
        np.testing.assert_array_equal(rows.y, judge.transform(truth))


@given(
    values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=40),
    given_names=st.booleans(),
    data=st.data(),
)
@settings(max_examples=examples(150))
def test_any_integers_are_numbered_as_numpy_numbers_them(values, given_names, data):
    y = np.array(values, np.int64)
    unique, inverse = np.unique(y, return_inverse=True)
    k = len(unique)
    names = [f"n{i}" for i in range(k)] if given_names else None
    classes = classes_of(y, names)
    assert list(classes.names) == (names or [str(value) for value in unique])
    indices = given_names and unique[0] >= 0 and unique[-1] < k
    np.testing.assert_array_equal(labels(y, classes), y if indices else inverse)
    stranger = data.draw(st.integers(-(2**63), 2**63 - 1).filter(lambda v: v not in values))
    with pytest.raises(InputError, match=rf"labels in y_val among the {k} .* got {stranger};"):
        labels(np.array([*values, stranger]), classes, "y_val")


@pytest.mark.parametrize("n", [5000])
def test_three_years_among_many_rows_are_three_classes(n, tmp_path):
    y = np.random.default_rng(0).choice([2001, 2002, 2003], n)
    assert NpzDataModule(data_of(tmp_path, y=y)).class_names == ["2001", "2002", "2003"]


def test_names_are_those_of_indices_or_of_sorted_values(tmp_path):
    names = ["a", "b", "c"]
    y = np.array([0, 1, 2] * 8)
    for labels_of_file in (y, y + 1, y + 1 + (y == 2), 10 * y - 5):
        data = NpzDataModule(data_of(tmp_path, y=labels_of_file, y_val=labels_of_file), names)
        assert data.class_names == names
        np.testing.assert_array_equal(data.splits.val.y, y)
    with pytest.raises(InputError, match="2 class_names, got 3 different ones in y: 0, 1, 2;"):
        _ = NpzDataModule(data_of(tmp_path, y=y), ["a", "b"]).splits
    many = np.arange(300) % 50 + 7
    with pytest.raises(InputError, match=r"got 50 different ones in y: 7, 8, .*14, …; name as"):
        _ = NpzDataModule(data_of(tmp_path, y=many), names).splits


def test_a_named_class_without_a_row_is_told_of(tmp_path):
    y = np.array([0, 2] * 10)
    data = NpzDataModule(data_of(tmp_path, y=y), ["a", "b", "c", "d"])
    with pytest.warns(UserWarning, match=r"got none of b, d \(2 of 4 classes\); nothing is lear"):
        assert data.num_classes == 4
    np.testing.assert_array_equal(np.unique(data.splits.train.y), [0, 2])

    class Made(InMemoryDataModule):
        def load(self):
            rows = Rows(torch.rand(6, 2), torch.tensor([0, 0, 0, 0, 1, 1]))
            return Loaded(rows, ("x", "y", "z"), val=rows, test=rows)

    with pytest.warns(UserWarning, match="got none of z "):
        _ = Made().splits


@pytest.mark.parametrize("split", ["y_val", "y_test"])
def test_a_label_that_y_lacks_is_refused_with_its_split(split, tmp_path):
    path = data_of(tmp_path, y=np.array([1, 2, 3] * 8), **{split: np.array([1, 4])})
    with pytest.raises(InputError, match=rf"labels in {split} among the 3 .* got 4; a class must"):
        _ = NpzDataModule(path).splits


@pytest.mark.parametrize("dtype", ["uint64", "int16", "bool", "U3"])
def test_splits_need_not_share_the_dtype_of_y(dtype, tmp_path):
    y, other = np.array([0, 1] * 10, np.int8), np.array([1, 0, 1]).astype(dtype)
    path = data_of(tmp_path, y=y, y_test=other)
    if dtype == "U3":
        with pytest.raises(InputError, match=r"labels in y_test among the 2 .* got '0'"):
            _ = NpzDataModule(path).splits
    else:
        np.testing.assert_array_equal(NpzDataModule(path).splits.test.y, [1, 0, 1])


def test_numbers_that_are_no_classes_are_refused(tmp_path):
    for y in (np.arange(20), 10**6 * np.arange(20)):  # every row a class of its own
        with pytest.raises(InputError, match="expected enough rows to split off a test set"):
            _ = NpzDataModule(data_of(tmp_path, y=y)).splits
    with pytest.raises(InputError, match=r"got dtype float64; where .* save y.astype\(int\)"):
        _ = NpzDataModule(data_of(tmp_path, y=np.array([1.0, 2.0] * 9))).splits


def test_rows_of_a_trained_model_are_labelled_by_its_names_or_indices():
    """As ``smx-export verify --data`` reads them: the file's ``y`` need not have all classes."""
    for y, names, right in [
        ([1, 7, 3], "1 2 3 4 5 6 7", [0, 6, 2]),
        ([2, 0, 1], "a b c", [2, 0, 1]),
        ([2, 0, 1], "0 1 2", [2, 0, 1]),
        ([-1, 1, 1], "-1 1", [0, 1, 1]),
        (["b", "a", "b"], "a b", [1, 0, 1]),
    ]:
        y, names = np.array(y), names.split()
        assert labels(y, classes_named(y, names)).tolist() == right
    none = np.array([1, -1, 0])  # unless it is a name
    assert labels(none, classes_named(none, ["a", "b"])).tolist() == [1, -1, 0]
    for wrong in ([3], [-2], [0, 7]):
        with pytest.raises(InputError, match="labels in y among the 3 training classes, got"):
            labels(np.array(wrong), classes_named(np.array(wrong), ["a", "b", "c"]))


def test_letters_of_emnist_are_26_classes(tmp_path):
    y = np.random.default_rng(0).permutation(np.tile(np.arange(1, 27), 5))
    idx_folder(tmp_path, y, y[:30])
    data = IdxDataModule(tmp_path)
    assert data.class_names == [str(k) for k in range(1, 27)]
    np.testing.assert_array_equal(data.splits.test.y, y[:30] - 1)
    letters = IdxDataModule(tmp_path, class_names=[chr(96 + k) for k in range(1, 27)])
    assert letters.class_names[0] == "a"
    np.testing.assert_array_equal(letters.splits.test.y, y[:30] - 1)
    idx_folder(tmp_path, y, [1, 27])
    with pytest.raises(InputError, match=r"in the t10k labels among the 26 .* got 27; a class"):
        _ = IdxDataModule(tmp_path).splits


def test_covertype_trains_and_answers_in_its_own_names(tmp_path, quiet_trainer):
    """Seven classes end to end, in the confusion matrix too."""
    from smx_lightning import SoftmaxRegression

    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(1, 8), 40)
    x = np.eye(8)[y] + 0.1 * rng.standard_normal((len(y), 8))
    data = NpzDataModule(data_of(tmp_path, x=x, y=y), batch_size=64)
    model = SoftmaxRegression(
        data.num_features, data.num_classes, class_names=data.class_names, preprocessing="scale"
    )
    trainer = quiet_trainer(max_epochs=30)
    trainer.fit(model, data)
    (found,) = trainer.test(model, data, verbose=False)
    assert found["test/accuracy_micro"] > 0.99
    assert model.confusion_matrix.shape == (7, 7)
    assert (model.confusion_matrix.sum(1) == 10).all()
