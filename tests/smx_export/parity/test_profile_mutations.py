"""The parity gate under every profile: whatever is done to a correct file, it must not pass."""

from operator import attrgetter

import onnx
import profiled
import pytest
from mutations import labels, profiles
from mutations.profile_editing import EVERY, THRESHOLD
from sampled import one_of_each

from smx_export import check_parity, export_onnx
from smx_export.artifact.files import sealed
from smx_export.contract import ALL_OUTPUTS

CASES = [*profiles.CASES, *labels.CASES]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Models, their files with every output and the data they were judged on, each made once."""
    folder, found = tmp_path_factory.mktemp("mutations"), {}

    def get(name):
        if name not in found:
            binary = {"classes": 2, "threshold": 0.7} if name == THRESHOLD else {}
            model = profiled.model_of(**binary)
            data = profiled.labelled(model)
            profile = profiled.profile("portable" if binary else name, ALL_OUTPUTS)
            path = folder / f"{name}.onnx"
            found[name] = model, export_onnx(model, path, profile=profile, data=data).path, data
        return found[name]

    return get


def sealed_again(path, folder, corrupt):
    """A spoilt copy that the seal would not show."""
    proto = onnx.load(path)
    corrupt(proto)
    (folder / "copy.onnx").write_bytes(sealed(proto))
    return folder / "copy.onnx"


@pytest.mark.parametrize("case", one_of_each(CASES, attrgetter("corrupt")), ids=str)
def test_a_corrupted_file_does_not_pass(case, exported, tmp_path):
    model, path, data = exported(case.model)
    report = check_parity(model, sealed_again(path, tmp_path, case.corrupt), data)
    assert case.seen_by in [found.name for found in report.failed], str(report)


@pytest.mark.parametrize("name", [*EVERY, THRESHOLD])
def test_without_a_corruption_it_passes(name, exported, tmp_path):
    model, path, data = exported(name)
    assert check_parity(model, sealed_again(path, tmp_path, lambda proto: None), data).passed


@pytest.mark.parametrize("name", [*EVERY, THRESHOLD])
def test_a_single_changed_byte_breaks_the_seal(name, exported, tmp_path):
    model, path, data = exported(name)
    proto = onnx.load(path)
    proto.producer_version += "1"
    onnx.save(proto, tmp_path / "changed.onnx")
    report = check_parity(model, tmp_path / "changed.onnx", data)
    assert [check.name for check in report.failed] == ["seal"]
