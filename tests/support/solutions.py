"""The plain loop's solutions of the problems in ``optima``, and what is asked of them."""

import numpy as np
import torch

from smx_lightning.optim import minimise

TOL = {"float64": 1e-10, "float32": 1e-6}
CLOSE = {"float64": 1e-8, "float32": 1e-5}  # relative gap
DIGITS = 1e-14  # of an objective of about 1, at the start: a tiny one has no more of its own


def solved(problem, dtype="float64", size=10**6, **kwargs):
    """A solution of rows in batches, labels where every target is one class."""
    x, q, c = (torch.tensor(part) for part in problem[:3])
    y = q.argmax(1) if (q.amax(1) == 1).all() else q
    batches = list(zip(x.split(size), y.split(size), c.split(size), strict=True))
    kwargs = {"tol": TOL[dtype], "dtype": getattr(torch, dtype), "l2": problem.l2, **kwargs}
    return minimise(batches, x.shape[1], q.shape[1], **kwargs)


def point_of(solution):
    weight, bias = solution.weight.double(), solution.bias.double()
    return torch.cat([weight, bias[:, None]], 1).numpy()


def rounding(point, problem, dtype):
    """What the products' rounding may do to each entry of a gradient: 16 ε (1 + Σ |w| r) r."""
    typical = np.append(np.sqrt((problem.c @ problem.x**2) / problem.c.sum()), 1.0)
    return 16 * np.finfo(dtype).eps * (1 + (abs(point) @ typical).max()) * typical
