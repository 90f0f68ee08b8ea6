"""What ``make test`` leaves out of long grids of cases; ``make test-all`` leaves out nothing."""

import pytest
from hypothesis import settings


def some(cases, *, every=None, named=()):
    """Cases for ``parametrize``, of which ``make test`` runs a few that stand for each kind.

    Args:
        cases: Values; or tuples, of the values of several arguments; or ``pytest.param``.
        every: Keep the first case, and each so many-th after it.
        named: Keep these.

    Returns:
        All cases; those that are not kept have the marker ``whole``.
    """
    cases = list(cases)
    assert all(name in cases for name in named), "a case that is kept is none of the cases"
    kept = {number for number, case in enumerate(cases) if case in named}
    kept |= set(range(0, len(cases), every)) if every else set()
    return [case if k in kept else in_whole(case) for k, case in enumerate(cases)]


def in_whole(case):
    """A case that ``make test`` leaves out."""
    if hasattr(case, "marks"):  # a pytest.param
        return pytest.param(*case.values, marks=[*case.marks, pytest.mark.whole], id=case.id)
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.whole)


def examples(number):
    """So many of hypothesis' examples in ``make test-all``, and a share of them in ``make test``.

    The share is that of the profiles' own number of examples, see conftest.py.
    """
    return max(number * settings().max_examples // 100, 5)
