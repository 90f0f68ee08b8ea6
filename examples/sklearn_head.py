"""The head of an embedding benchmark's classification tasks, fitted by scikit-learn's interface.

An evaluator in the manner of MTEB asks a classifier, fitted on embeddings of a few training rows a
class, how well they tell classes apart: any estimator with ``fit`` and ``predict`` will do. The
embeddings here are made: digits seen through a fixed random layer, which stands for an encoder.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import GridSearchCV, train_test_split

from smx_export.runtime import OnnxClassifier
from smx_lightning.sklearn import SoftmaxClassifier

WIDTH = 256
NAMES = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
Rows = NDArray[np.float32]
Labels = NDArray[np.str_]


def encode(images: NDArray[np.float64]) -> Rows:
    """Images (n, 64) → embeddings (n, WIDTH) of length 1."""
    layer = np.random.default_rng(0).standard_normal((images.shape[1], WIDTH)) / 8
    hidden = np.maximum((images / 8 - 1) @ layer, 0)
    rows: Rows = (hidden / np.linalg.norm(hidden, axis=1, keepdims=True)).astype(np.float32)
    return rows


class Evaluator:
    """Draws a few training rows a class, several times, and averages what is found.

    Args:
        classifier: Cloned for each draw.
        each: Training rows a class.
        draws: How often.
    """

    def __init__(self, classifier: BaseEstimator, each: int = 16, draws: int = 5) -> None:
        self.classifier, self.each, self.draws = classifier, each, draws

    def __call__(self, x: Rows, y: Labels, test_x: Rows, test_y: Labels) -> dict[str, float]:
        """Mean accuracy and macro-averaged F1 on the test rows."""
        rng = np.random.default_rng(42)
        found = []
        for _ in range(self.draws):
            order = rng.permutation(len(y))
            some = np.concatenate([order[y[order] == name][: self.each] for name in np.unique(y)])
            answers = clone(self.classifier).fit(x[some], y[some]).predict(test_x)
            scores = accuracy_score(test_y, answers), f1_score(test_y, answers, average="macro")
            found.append(scores)
        accuracy, f1 = np.mean(found, axis=0)
        return {"accuracy": float(accuracy), "f1": float(f1)}


def main() -> None:
    """Evaluate two heads, then fit one on all training rows and ship it."""
    images, digits = load_digits(return_X_y=True)
    x, test_x, y, test_y = train_test_split(encode(images), NAMES[digits], random_state=0)

    for head in (SoftmaxClassifier(C=10), LogisticRegression(C=10, max_iter=1000)):
        scores = Evaluator(head)(x, y, test_x, test_y)
        print(type(head).__name__, {name: round(value, 3) for name, value in scores.items()})

    search = GridSearchCV(SoftmaxClassifier(), {"l2": [1e-6, 1e-5, 1e-4]}, cv=3).fit(x, y)
    head = search.best_estimator_
    print(f"all rows: accuracy {head.score(test_x, test_y):.3f}, {search.best_params_}")
    path = head.to_onnx("head.onnx", data=(test_x, np.searchsorted(head.classes_, test_y)))
    labels = head.classes_[OnnxClassifier(path).predict(test_x)]  # no torch needed
    print(f"the file gives the same labels: {bool((labels == head.predict(test_x)).all())}")


if __name__ == "__main__":
    main()
