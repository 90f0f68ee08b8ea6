"""What the packages, the commands and the exported files say of their version: one and the same."""

import os
import re
import subprocess
import sys

import onnx
import pytest
from files import model_of, read
from tools import ROOT

import smx_export
import smx_lightning
from smx_export import export_onnx
from smx_export.__main__ import main as export_main
from smx_lightning.cli import main as lightning_main

PATHS = os.pathsep.join([str(ROOT), str(ROOT / "export")])
# By a regular expression, since tomllib is younger than Python 3.10.
(DECLARED,) = re.findall(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)


def test_both_packages_tell_the_version_of_their_distribution():
    assert smx_lightning.__version__ == DECLARED
    assert smx_export.__version__ == DECLARED
    assert "__version__" in smx_lightning.__all__
    assert "__version__" in smx_export.__all__


@pytest.mark.parametrize(
    ("main", "name"), [(lightning_main, "smx-lightning"), (export_main, "smx-export")]
)
def test_both_commands_tell_it(main, name, cli_folder, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["__main__.py"])  # as where they are run by python -m
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr() == (f"{name} {DECLARED}\n", "")
    assert not [*cli_folder.iterdir()]


def test_a_checkout_that_is_not_installed_says_so():
    """``-S`` leaves the folder out in which distributions are installed."""
    script = "import smx_lightning, smx_export; "
    script += "print(smx_lightning.__version__, smx_export.__version__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": PATHS},
    )
    assert done.stdout == "0+unknown 0+unknown\n"


def test_a_file_tells_the_version_that_wrote_it(tmp_path):
    path = export_onnx(model_of(), tmp_path / "model.onnx").path
    model = onnx.load(path)
    assert (model.producer_name, model.producer_version) == ("smx-lightning", DECLARED)
    assert f'"smx-lightning": "{DECLARED}"' in read(path)["provenance"]


@pytest.mark.parametrize("package", [smx_lightning, smx_export])
def test_a_package_has_no_other_names_than_it_lists(package):
    for name in package.__all__:
        assert getattr(package, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'v'"):
        package.v  # noqa: B018
