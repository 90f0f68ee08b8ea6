"""Where two graphs differ, in words. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from smx_export.artifact.graphs.terms import ABSENT, CONSTANT, GIVEN, Graph, Term, Terms

Array = NDArray[Any]
Tolerates = Callable[[Array, Array, str, int], bool]
SHOWN = 40  # characters of a value


def first_difference(
    terms: Terms, expected: Graph, got: Graph, tolerates: Tolerates
) -> tuple[str, bool]:
    """The first difference, empty where there is none; and whether any initialiser differs.

    Args:
        terms: That both graphs are made of.
        expected: One graph.
        got: The other.
        tolerates: Whether an initialiser may be another (expected, got), as that input of an
            operator; they have one dtype and one shape.
    """
    if [*expected.outputs] != [*got.outputs]:
        return _apart([*expected.outputs], [*got.outputs]), False
    todo = [
        (right, got.outputs[name], "the output", 0) for name, right in expected.outputs.items()
    ][::-1]
    seen, tolerated = set(todo), False
    while todo:
        right, other, reader, place = todo.pop()
        if right == other:
            continue
        mine, theirs = terms.terms[right], terms.terms[other]
        if mine.op == theirs.op == CONSTANT:
            if found := _of_constants(terms, right, other, reader, place, tolerates):
                return found, False
            tolerated = True
            continue
        if (mine.op, mine.attributes, mine.output) != (theirs.op, theirs.attributes, theirs.output):
            return _apart(*_told(mine, theirs)), False
        if len(mine.inputs) != len(theirs.inputs):
            what = f"{mine.op} of {{}} inputs"
            return _apart(what.format(len(mine.inputs)), what.format(len(theirs.inputs))), False
        pairs = zip(mine.inputs, theirs.inputs, strict=True)
        below = [(a, b, mine.op, i) for i, (a, b) in enumerate(pairs)]
        todo += [entry for entry in below[::-1] if entry not in seen]
        seen.update(below)
    extra = [name for name in got.unused if name not in expected.unused]
    unneeded = f"expected nothing that no output needs, got {_shown(extra[0])}" if extra else ""
    return unneeded, tolerated


def _of_constants(
    terms: Terms, right: int, other: int, reader: str, place: int, tolerates: Tolerates
) -> str:
    """How initialisers differ beyond what is tolerated."""
    expected, got = terms.arrays[right], terms.arrays[other]
    named = f"{_shown(terms.names[right] or CONSTANT)} of {reader}"
    one, two = (f"{array.dtype} {list(array.shape)}" for array in (expected, got))
    if one != two:
        return _apart(f"{named} as {one}", two)
    if tolerates(expected, got, reader, place):
        return ""
    apart = np.flatnonzero((expected != got).reshape(-1))
    if not len(apart):  # zeros of either sign, or not numbers of several kinds
        return f"expected {named} bit for bit, got other bits"
    at = np.unravel_index(apart[0], expected.shape)
    place_of = f"{named}{[int(i) for i in at]}" if at else named
    more = f", and {len(apart) - 1} more" if len(apart) > 1 else ""
    return f"{_apart(f'{place_of} = {expected[at]}', str(got[at]))}{more}"


def _told(mine: Term, theirs: Term) -> tuple[str, str]:
    """Two operators in words, with the attributes that differ where the operator does not."""
    if mine.op != theirs.op or mine.output != theirs.output:
        return _name(mine), _name(theirs)
    one, two = dict(mine.attributes), dict(theirs.attributes)
    key = min(name for name in {*one, *two} if one.get(name) != two.get(name))
    return f"{mine.op} with {key} {_value(one.get(key))}", _value(two.get(key))


def _name(term: Term) -> str:
    if term.op == GIVEN:
        return f"the value {_shown(dict(term.attributes)['name'])}"
    return term.op if term.op in (CONSTANT, ABSENT) else _shown(term.op)


def _value(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, str):
        return _shown(value)
    content = value[1] if isinstance(value, tuple) else value
    if isinstance(content, bytes) and len(content) == 4:  # the bits of a number
        return str(np.frombuffer(content, np.float32)[0])
    return _shown(list(content) if isinstance(content, tuple) else content)


def _shown(value: Any) -> str:
    """Of a file that nobody vouches for: short, and without control characters."""
    text = value if isinstance(value, str) and value.isidentifier() else repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


def _apart(expected: Any, got: Any) -> str:
    return f"expected {expected}, got {got}"
