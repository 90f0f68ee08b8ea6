"""Classes from near to far apart, as a backbone puts them out: the optimum, and in how many passes.

Once their distance alone made it three passes for every ten: steps from saturated points.
"""

import numpy as np
import pytest
from optima import Problem
from sampled import sampled
from solutions import assert_certified, solved
from solving import embeddings

from smx_lightning.optim.steps.pilot import ONE_OF, ROWS

CASES = [(apart, C) for apart in (0.3, 1.2, 2.5, 5.0) for C in (1, 100)]


def problem_of(apart, C):  # noqa: N803 (scikit-learn's name)
    x, y = embeddings(ONE_OF * ROWS, 256, 30, 40, apart)
    x = x.astype(np.float32).astype(float)
    return Problem(x, np.eye(30)[y], np.ones(len(y)), 1 / (C * len(y)))


@pytest.mark.parametrize(("apart", "C"), sampled(CASES, named=[(2.5, 1)]))
def test_the_optimum_is_reached_and_soon(apart, C):  # noqa: N803
    problem = problem_of(apart, C)
    assert_certified(problem, "float64", (apart, C))
    assert solved(problem, "float32").evaluations <= 45
