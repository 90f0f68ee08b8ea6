"""Files of sparse activations under attack, by their answers and by their graphs."""

from operator import attrgetter

import numpy as np
import pytest
from mutations.editing import corrupted
from mutations.entmax import CASES, GRAPH, HIDDEN
from mutations.models import SPARSE, SPARSE_BACKBONE
from mutations.table import PROBS, VALUES
from sampled import one_of_each, sampled

from smx_export import FileError, check_parity
from smx_export.artifact.files import read_onnx
from smx_export.graph.written import written_graph
from smx_export.parity.comparison import comparison
from smx_export.parity.interface import inference_copy_like
from smx_export.parity.probes.margins import SUPPORT
from smx_export.parity.structure import structure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("case", one_of_each(CASES, attrgetter("corrupt")), ids=str)
def test_a_corrupted_file_does_not_pass(case, exported, tmp_path):
    model, path = exported(case.model)
    report = check_parity(model, corrupted(path, case.corrupt, tmp_path))
    failed = [check.name for check in report.failed]
    assert case.seen_by in failed, str(report)
    assert GRAPH in failed


@pytest.fixture(scope="module")
def written(exported):
    found = {}

    def get(name):
        if name not in found:
            model, path = exported(name)
            found[name] = written_graph(inference_copy_like(model, read_onnx(path)), {})
        return found[name]

    return get


@pytest.mark.parametrize("case", sampled(HIDDEN, every=4), ids=str)
def test_another_graph_does_not_pass(case, exported, written, tmp_path):
    model, path = exported(case.model)
    try:
        proto = read_onnx(corrupted(path, case.corrupt, tmp_path))
    except FileError:
        return
    found = structure(inference_copy_like(model, proto), lambda: written(case.model), proto)
    assert not found.check.passed
    assert not found.exact
    assert "export it again" in found.check.detail


def test_there_are_corruptions_enough():
    assert len({case.corrupt for case in CASES}) >= 20
    assert len({case.corrupt for case in HIDDEN}) >= 60
    assert {case.seen_by for case in CASES} >= {VALUES, PROBS}


@pytest.mark.parametrize("name", [*SPARSE, SPARSE_BACKBONE])
def test_the_file_itself_is_exact_and_asked_where_classes_are_ruled_out(name, exported):
    model, path = exported(name)
    known = comparison(model, path)
    report = known.report(path)
    assert report.passed
    assert report.exact_graph
    assert report.unit == "probability"
    if name == SPARSE_BACKBONE:  # which rules out no class of an ordinary row
        return
    border = [probe for probe in known.inputs.probes() if probe.name == SUPPORT]
    probs = np.concatenate([np.exp(known.reference.expected(p.x).log_probs) for p in border])
    assert (probs == 0).any(1).sum() >= 8
    assert probs[probs > 0].min() < 1e-5  # just not ruled out
    inside = ((probs > 0).sum(1) > 1).mean()
    assert inside > 0.2, "most rows are certain, which tells little"
