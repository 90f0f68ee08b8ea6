"""scikit-learn's face: ``fit(X, y)`` with the exact solver behind it, and no Trainer.

>>> from sklearn.datasets import load_iris
>>> from smx_lightning.sklearn import SoftmaxClassifier
>>> x, y = load_iris(return_X_y=True)
>>> round(SoftmaxClassifier(C=1.0).fit(x, y).score(x, y), 3)
0.973
"""

from smx_lightning.errors.extras import training_needed

with training_needed():
    from smx_lightning.sklearn.classifier import SoftmaxClassifier

__all__ = ["SoftmaxClassifier"]
