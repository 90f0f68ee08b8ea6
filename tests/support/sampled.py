"""Which cases of a long table run in ``make test``; the others run in ``make test-all`` alone."""

import pytest

_PARAM = type(pytest.param())


def whole(case):
    """A case of ``parametrize``, marked as part of ``make test-all`` only."""
    if not isinstance(case, _PARAM):
        case = pytest.param(*case) if isinstance(case, tuple) else pytest.param(case)
    return pytest.param(*case.values, marks=[*case.marks, pytest.mark.whole], id=case.id)


def sampled(cases, every):
    """All cases, of which each ``every``-th is in the fast part, the first among them."""
    return [case if i % every == 0 else whole(case) for i, case in enumerate(cases)]


def one_of_each(cases, kind):
    """All cases, of which one of each kind is in the fast part.

    Of a kind with several cases it is another one each time, so that what they differ in (a model,
    a profile) has its turn, too.
    """
    kinds = {}
    for case in cases:
        kinds.setdefault(kind(case), []).append(case)
    chosen = {id(of[turn % len(of)]) for turn, of in enumerate(kinds.values())}
    return [case if id(case) in chosen else whole(case) for case in cases]
