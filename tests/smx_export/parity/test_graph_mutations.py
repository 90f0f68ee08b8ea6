"""The graph of a file under attack: what the exporter does not write must not pass for it."""

from operator import attrgetter

import onnx
import profiled
import pytest
from mutations.editing import corrupted
from mutations.models import BACKBONE, MODELS, SPARSE_BACKBONE
from mutations.structure import CASES, PROFILES, TRACED
from sampled import one_of_each

from smx_export import FileError, export_onnx
from smx_export.artifact.files import read_onnx
from smx_export.contract import ALL_OUTPUTS
from smx_export.graph.written import written_graph
from smx_export.parity.interface import inference_copy_like
from smx_export.parity.structure import structure

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="session")
def of_profiles(tmp_path_factory):
    """A model's file in every profile, with every output."""
    folder, found = tmp_path_factory.mktemp("profiles"), {}

    def get(name):
        if name not in found:
            binary = {"classes": 2, "threshold": 0.7} if name == "threshold" else {}
            model = profiled.model_of(**binary)
            profile = profiled.profile("portable" if binary else name, ALL_OUTPUTS)
            data = profiled.labelled(model)
            path = folder / f"{name}.onnx"
            found[name] = model, export_onnx(model, path, profile=profile, data=data).path
        return found[name]

    return get


TRACES = {}


def judged(model, path):
    """What is said of a file's graph; the backbone, which takes a second, is traced once."""
    proto = read_onnx(path)
    inference = inference_copy_like(model, proto)

    def written():
        key = id(model), inference.profile
        if key not in TRACES:
            TRACES[key] = written_graph(inference, {})
        return TRACES[key]

    return structure(inference, written, proto)


def refused(model, path):
    """What is said against a file's graph, or that it is no valid ONNX in the first place."""
    try:
        found = judged(model, path)
    except FileError as error:
        return str(error)
    assert found.check.name == "graph"
    assert not found.check.passed, found.check.detail
    assert not found.exact
    return found.check.detail


@pytest.mark.parametrize("case", one_of_each([*CASES, *TRACED], attrgetter("corrupt")), ids=str)
def test_a_graph_that_is_not_written_so_does_not_pass(case, exported, tmp_path):
    model, path = exported(case.model)
    detail = refused(model, corrupted(path, case.corrupt, tmp_path))
    assert "expected" in detail
    assert "export it again" in detail
    assert "\n" not in detail


@pytest.mark.parametrize("case", one_of_each(PROFILES, attrgetter("corrupt")), ids=str)
def test_a_graph_of_another_profile_does_not_pass(case, of_profiles, tmp_path):
    model, path = of_profiles(case.model)
    assert "expected" in refused(model, corrupted(path, case.corrupt, tmp_path))


def test_there_are_corruptions_enough():
    assert len({case.corrupt for case in (*CASES, *PROFILES)}) >= 60
    assert len({case.corrupt for case in (*CASES, *TRACED) if case.model == BACKBONE}) >= 40


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_itself_passes(name, exported):
    model, path = exported(name)
    found = judged(model, path)
    assert found.check.passed
    assert found.exact
    form = "as torch's exporter writes it" if name in (BACKBONE, SPARSE_BACKBONE) else "as written"
    assert found.check.detail == f"{form}; weights bit for bit"


@pytest.mark.parametrize("name", [*profiled.PROFILES, "threshold"])
def test_the_graph_of_every_profile_passes(name, of_profiles):
    model, path = of_profiles(name)
    found = judged(model, path)
    assert found.exact
    assert found.check.detail == "as written; weights bit for bit"


def test_a_file_with_a_function_in_it_is_not_run(exported, tmp_path):
    model, path = exported(BACKBONE)
    spoilt = corrupted(
        path, next(c.corrupt for c in CASES if "loop" in c.corrupt.__name__), tmp_path
    )
    assert not judged(model, spoilt).harmless
    assert judged(model, path).harmless
    assert onnx.load(path).functions == []
