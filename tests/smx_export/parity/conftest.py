"""The models of the mutations and their files, which several test files spoil."""

import pytest
import torch
from mutations.models import MODELS

from smx_export import export_onnx


@pytest.fixture(scope="module")
def one_thread():
    """The models are tiny: more threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Model and file by name, each exported once; exporting a backbone takes seconds."""
    folder = tmp_path_factory.mktemp("exported")
    found = {}

    def get(name):
        if name not in found:
            model = MODELS[name]()
            found[name] = model, export_onnx(model, folder / f"{name}.onnx").path
        return found[name]

    return get
