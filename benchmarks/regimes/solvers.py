"""The solvers that are compared: each takes a problem and a tolerance, and returns its weights."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 (its customary name)

import smx_lightning
from benchmarks import ours
from benchmarks.problems import Problem
from smx_lightning.optim import minimise

MAX_ITERATIONS = 5000  # of scikit-learn's and Intel's
MAX_FEW = 500  # of solvers whose iteration is many passes
MAX_HESSIAN_SIDE = 12_000  # a Hessian of 1.15 GB in float64, factored at each step
PASSES = 1000  # of ours


class Fitted(NamedTuple):
    """What a solver ended with: W (K, d), b (K,), and a word on how."""

    weight: NDArray[np.floating]
    bias: NDArray[np.floating]
    note: str


def plain(data: Problem, tol: float) -> Fitted:
    """Our solver in a plain loop."""
    dtype = torch.float64 if data.x.dtype == np.float64 else torch.float32
    done = minimise(
        ours.batches(data),
        data.x.shape[1],
        data.num_classes,
        l2=data.l2,
        tol=tol,
        dtype=dtype,
        max_evaluations=PASSES,
    )
    note = f"{done.evaluations} passes, {done.status.name}"
    return Fitted(done.weight.numpy(), done.bias.numpy(), note)


def reference(data: Problem, tol: float) -> Fitted:
    """A long run of the same in float64, whatever the rows' own precision: nearly the optimum."""
    return plain(data.in_float64(), tol)


def in_trainer(data: Problem, tol: float) -> Fitted:
    """Our solver in Lightning's Trainer, metrics included."""
    model = ours.model(data, tol)
    trainer = ours.trainer(data, PASSES)
    trainer.fit(model, ours.loader(data))
    solver, linear = model.solver, model.linear
    assert solver is not None  # since training began
    note = f"{trainer.current_epoch} passes, {solver.status.name}"
    return Fitted(linear.weight.detach().numpy(), linear.bias.detach().numpy(), note)


def sklearn(data: Problem, tol: float, solver: str, package: str = "sklearn") -> Fitted:
    """A solver of scikit-learn, or of Intel's extension, which has the same interface."""
    if package == "sklearnex":  # it takes all cores by itself
        importlib.import_module("daal4py").daalinit(torch.get_num_threads())
    model = importlib.import_module(f"{package}.linear_model").LogisticRegression(
        C=data.C, solver=solver, tol=tol, max_iter=MAX_ITERATIONS
    )
    model.fit(data.x, data.y)
    return Fitted(model.coef_, model.intercept_, f"{int(np.max(model.n_iter_))} iterations")


def cyanure(data: Problem, tol: float, solver: str) -> Fitted:
    """Cyanure's stochastic solvers; its tol is of the relative duality gap."""
    model = importlib.import_module("cyanure.estimators").LogisticRegression(
        penalty="l2",
        lambda_1=data.l2,
        solver=solver,
        multi_class="multinomial",
        fit_intercept=True,
        tol=tol,
        max_iter=MAX_FEW,
        n_threads=torch.get_num_threads(),
        verbose=False,
    )
    model.fit(data.x, data.y)
    weight = np.asarray(model.coef_)
    if weight.shape != (data.num_classes, data.x.shape[1]):
        weight = weight.T
    return Fitted(weight, np.ravel(model.intercept_), "")


def trust_ncg(data: Problem, tol: float) -> Fitted:
    """pytorch-minimize's trust region with conjugate gradients; its tol is of ‖gradient‖."""
    x, y = torch.from_numpy(data.x), torch.from_numpy(data.y)
    shape = (data.num_classes, x.shape[1] + 1)

    def objective(point: torch.Tensor) -> torch.Tensor:
        weight, bias = point.view(shape)[:, :-1], point.view(shape)[:, -1]
        return F.cross_entropy(F.linear(x, weight, bias), y) + 0.5 * data.l2 * weight.square().sum()

    start = torch.zeros(shape[0] * shape[1], dtype=x.dtype)
    minimize = importlib.import_module("torchmin").minimize
    done = minimize(objective, start, method="trust-ncg", max_iter=MAX_FEW, tol=tol)
    point = done.x.view(shape).numpy()
    return Fitted(point[:, :-1], point[:, -1], f"{done.nit} iterations")


# On which problems a solver is left out: the reason, or nothing ---------------------------------


def anywhere(data: Problem) -> str:
    """On none."""
    return ""


def few_parameters(data: Problem) -> str:
    """newton-cholesky: where its Hessian is too large to factor again and again."""
    side = data.num_classes * (data.x.shape[1] + 1)
    return f"its Hessian would have {side} rows" if side > MAX_HESSIAN_SIDE else ""


def well_conditioned(data: Problem) -> str:
    """catalyst-miso: where cyanure's own "auto" prefers another, because l2 < L / 100n.

    L, the smoothness of a row's loss, is half of the largest ‖x‖². Nor does "auto" take it for less
    than 1000 rows.
    """
    smoothness = float(np.square(data.x).sum(axis=1).max()) / 2
    small = len(data.x) < 1000 or data.l2 < smoothness / (100 * len(data.x))
    return 'cyanure\'s "auto" prefers another' if small else ""


class Solver(NamedTuple):
    """A solver of the comparison.

    Attributes:
        label: Its name in tables.
        fit: Its weights at a tolerance.
        module: What must be installed.
        package: The module's distribution, whose version is noted.
        left_out: Why a problem is not for it; empty where it is.
    """

    label: str
    fit: Callable[[Problem, float], Fitted]
    module: str
    package: str
    left_out: Callable[[Problem], str] = anywhere

    @property
    def installed(self) -> bool:
        """Whether it can run here."""
        return importlib.util.find_spec(self.module) is not None

    @property
    def version(self) -> str:
        """Its distribution with its version, or of our own, which is at work, a digest of it."""
        ours = self.module == "smx_lightning"
        return f"{self.package} {_digest() if ours else version(self.package)}"


@cache
def _digest() -> str:
    sources = sorted(Path(smx_lightning.__file__).parent.rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


REFERENCE = "reference"
PLAIN, TRAINER = OURS = ("plain", "trainer")

SOLVERS = {
    REFERENCE: Solver("reference", reference, "smx_lightning", "smx-lightning"),
    PLAIN: Solver("ours, plain loop", plain, "smx_lightning", "smx-lightning"),
    TRAINER: Solver("ours, in the Trainer", in_trainer, "smx_lightning", "smx-lightning"),
    "lbfgs": Solver("lbfgs", partial(sklearn, solver="lbfgs"), "sklearn", "scikit-learn"),
    "newton-cg": Solver(
        "newton-cg", partial(sklearn, solver="newton-cg"), "sklearn", "scikit-learn"
    ),
    "newton-cholesky": Solver(
        "newton-cholesky",
        partial(sklearn, solver="newton-cholesky"),
        "sklearn",
        "scikit-learn",
        few_parameters,
    ),
    "intelex": Solver(
        "Intel's lbfgs",
        partial(sklearn, solver="lbfgs", package="sklearnex"),
        "sklearnex",
        "scikit-learn-intelex",
    ),
    "qning-miso": Solver(
        "cyanure qning-miso", partial(cyanure, solver="qning-miso"), "cyanure", "cyanure"
    ),
    "catalyst-miso": Solver(
        "cyanure catalyst-miso",
        partial(cyanure, solver="catalyst-miso"),
        "cyanure",
        "cyanure",
        well_conditioned,
    ),
    "trust-ncg": Solver("trust-ncg", trust_ncg, "torchmin", "pytorch-minimize"),
}
COMPARED = [name for name in SOLVERS if name != REFERENCE]
