"""Problems for the exact solver, and how a Trainer solves them."""

import functools
import warnings

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from torch.utils.data import DataLoader
from trainers import quiet_trainer

from smx_lightning import SoftmaxRegression
from smx_lightning.optim import ExactSolver


def batches(x, y, size, dtype=torch.float64):
    x, y = torch.as_tensor(x).to(dtype), torch.as_tensor(y).long()
    return DataLoader(list(zip(x.split(size), y.split(size), strict=True)), batch_size=None)


def trainer_for(dtype=torch.float64, **kwargs):
    precision = "64-true" if dtype == torch.float64 else "32-true"
    return quiet_trainer(**{"max_epochs": 300, "precision": precision, **kwargs})


def trained(x, y, l2=0.1, *, dtype=torch.float64, epochs=300, path=None, start=0.0, tol=1e-9):
    """The exact solver under a Trainer, from zero or random weights; the Trainer and the model."""
    torch.manual_seed(0)
    trainer = trainer_for(dtype, max_epochs=epochs)
    solver = functools.partial(ExactSolver, tol=tol)
    model = SoftmaxRegression(x.shape[1], int(y.max()) + 1, l2=l2, optimizer=solver)
    if start == 0:
        torch.nn.init.zeros_(model.linear.weight)
        torch.nn.init.zeros_(model.linear.bias)
    trainer.fit(model, batches(x, y, 20, dtype), ckpt_path=path)
    return trainer, model


def parameters(model):
    weight, bias = model.linear.weight.detach().double(), model.linear.bias.detach().double()
    return weight.numpy(), bias.numpy()


def optimum(x, y, l2, *, intercept=True):
    """The least objective, by scikit-learn's L-BFGS in float64."""
    binary = y.max() == 1
    judge = LogisticRegression(
        C=(2 if binary else 1) / (l2 * len(y)), tol=1e-9, max_iter=10000, fit_intercept=intercept
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its line search complains at the limit of float64
        judge.fit(x, y)
    weight, bias = judge.coef_, judge.intercept_
    if binary:  # one perceptron there, two of opposite sign here
        weight, bias = np.vstack([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return objective(weight, bias, x, y, l2)


def noisy_scores(classes, seed, *, rows=None, features=16):
    """Labels by the largest of noisy linear scores; classes that win nowhere are left out."""
    rng = np.random.default_rng([classes, seed])
    x = rng.standard_normal((rows or max(4 * classes, 300), features))
    scores = x @ rng.standard_normal((features, classes))
    y = (scores / scores.std() + rng.standard_normal(scores.shape)).argmax(1)
    return x, np.unique(y, return_inverse=True)[1]


def few_rows(classes, each, features, seed):
    """Normal features that say nothing of the class: one row a class, or a few."""
    rng = np.random.default_rng([classes, each, features, seed])
    x = rng.standard_normal((classes * each, features))
    return x, np.repeat(np.arange(classes), each)


def embeddings(rows, features, classes, decay, apart=1.2):
    """Classes that are nearly separable, in features of a decaying spectrum."""
    rng = np.random.default_rng(1)
    scale = np.exp(-np.arange(features) / decay)
    centres = apart * rng.standard_normal((classes, features)) * scale
    y = np.concatenate([np.arange(classes), rng.integers(0, classes, rows - classes)])
    return centres[y] + rng.standard_normal((rows, features)) * scale, y


def objective(weight, bias, x, y, l2):
    """As ``references.objective``, for more than a few rows."""
    logits = x @ weight.T + bias
    largest = logits.max(1)
    log_sums = largest + np.log(np.exp(logits - largest[:, None]).sum(1))
    return (log_sums - logits[np.arange(len(y)), y]).mean() + 0.5 * l2 * (weight**2).sum()
