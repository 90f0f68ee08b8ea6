"""Files that are right on ordinary rows in ordinary batches: the questions alone must see them.

A comparison of the graphs sees most of them as well. Here the check that is named is one of
answers: values, labels, or where numbers are missing.
"""

import pytest
from mutations import labels, questions
from mutations.editing import corrupted
from mutations.models import BACKBONE
from mutations.table import ARGMAX, NOT_FINITE, VALUES
from sampled import sampled

from smx_export import check_parity
from smx_export.artifact.comparison import compare
from smx_export.contract import INPUT
from smx_export.parity.comparison import comparison
from smx_export.runtime.session import open_session

pytestmark = pytest.mark.usefixtures("one_thread")
ALL = [*questions.CASES, *questions.PLAINER]
CASES = [case for case in ALL if case.model != BACKBONE]
TRACED = [case for case in ALL if case.model == BACKBONE]


@pytest.mark.parametrize("case", [*sampled(CASES, every=9), *sampled(TRACED, every=6)], ids=str)
def test_a_file_that_is_right_on_ordinary_rows_does_not_pass(case, exported, tmp_path):
    model, path = exported(case.model)
    report = check_parity(model, corrupted(path, case.corrupt, tmp_path))
    assert case.seen_by in [check.name for check in report.failed], str(report)


def test_there_are_a_hundred_of_them_each_seen_by_answers():
    cases = [*ALL, *labels.CASES]
    assert len({str(case.corrupt.__name__) for case in cases}) >= 100
    assert len(TRACED) >= 20
    assert {case.seen_by for case in cases} == {VALUES, ARGMAX, NOT_FINITE}


HIDDEN = [case for case in questions.CASES if case.model != BACKBONE]


@pytest.mark.parametrize("case", sampled(HIDDEN, every=11), ids=str)
def test_ordinary_rows_in_ordinary_batches_do_not_show_it(case, exported, tmp_path):
    """Otherwise the table would hold nothing to the questions."""
    model, path = exported(case.model)
    known = comparison(model, path)
    session = open_session(corrupted(path, case.corrupt, tmp_path).read_bytes())
    rows = known.inputs.ordinary(256)
    for x in (rows[:1], rows[:2], rows):
        outputs = session.run(None, {INPUT: known.inference.fed(x)})
        named = dict(zip([o.name for o in session.get_outputs()], outputs, strict=True))
        assert compare(known.reference.expected(x), named).right, f"seen in a batch of {len(x)}"
