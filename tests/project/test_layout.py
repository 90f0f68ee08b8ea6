"""The layout: no import circle, folders and functions that can be seen at once, and public paths.

The layers themselves are import-linter's, in pyproject.toml.
"""

import ast
import importlib
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import grimp
import pytest
from jsonargparse._util import import_object
from tools import ROOT

PACKAGES = (ROOT / "smx_lightning", ROOT / "export" / "smx_export")
MOST_ENTRIES = 15
MANY_ENTRIES = ("targets", "page", "smx_lightning")  # a file a runtime, the page, a face each
UNCOUNTED = {"__pycache__", "py.typed"}
MOST_LINES = 50  # of a function
MOST_OF_MODULE = 300  # lines of smx_lightning/module.py

# Every path by which version 0.1 offered something: names in its README, docs, examples and
# benchmarks, its ``__all__``, and what else a user had reason to import from a module.
PUBLIC = [
    "smx_lightning.InputError",
    "smx_lightning.Prediction",
    "smx_lightning.Recovery",
    "smx_lightning.SoftmaxRegression",
    "smx_lightning.__main__.main",
    "smx_lightning.callbacks.ConfusionCsv",
    "smx_lightning.callbacks.PredictionsCsv",
    "smx_lightning.callbacks.PredictionsInOrder",
    "smx_lightning.checkpoint.Checkpoint",
    "smx_lightning.checkpoint.read_checkpoint",
    "smx_lightning.cli.SmxCLI",
    "smx_lightning.cli.main",
    "smx_lightning.data.BatchLoader",
    "smx_lightning.data.DigitsDataModule",
    "smx_lightning.data.EpochOrder",
    "smx_lightning.data.GlobalBatches",
    "smx_lightning.data.IdxDataModule",
    "smx_lightning.data.InMemoryDataModule",
    "smx_lightning.data.Loaded",
    "smx_lightning.data.NpzDataModule",
    "smx_lightning.data.Rows",
    "smx_lightning.data.Splits",
    "smx_lightning.data.base.InMemoryDataModule",
    "smx_lightning.data.digits.DigitsDataModule",
    "smx_lightning.data.idx.IdxDataModule",
    "smx_lightning.data.idx.read_idx",
    "smx_lightning.data.loading.BatchLoader",
    "smx_lightning.data.npz.NpzDataModule",
    "smx_lightning.data.npz.read_npz",
    "smx_lightning.data.split.stratified_split",
    "smx_lightning.errors.InputError",
    "smx_lightning.metrics.BrierScore",
    "smx_lightning.metrics.NegativeLogLikelihood",
    "smx_lightning.metrics.confusion_matrix",
    "smx_lightning.metrics.decide",
    "smx_lightning.metrics.evaluation_metrics",
    "smx_lightning.metrics.training_metrics",
    "smx_lightning.module.Prediction",
    "smx_lightning.module.SoftmaxRegression",
    "smx_lightning.optim.ExactSolver",
    "smx_lightning.optim.Status",
    "smx_lightning.optim.exact.ExactSolver",
    "smx_lightning.optim.exact.Status",
    "smx_lightning.preprocessing.Folded",
    "smx_lightning.preprocessing.Moments",
    "smx_lightning.preprocessing.Preprocessing",
    "smx_lightning.recovery.Recovery",
    "smx_lightning.recovery.WholeFileIO",
    "smx_export.Export",
    "smx_export.FileError",
    "smx_export.OnnxClassifier",
    "smx_export.OnnxExport",
    "smx_export.ParityError",
    "smx_export.ParityReport",
    "smx_export.Profile",
    "smx_export.__main__.main",
    "smx_export.callback.OnnxExport",
    "smx_export.check_parity",
    "smx_export.contract.LABEL",
    "smx_export.contract.PROBS",
    "smx_export.convert.Export",
    "smx_export.convert.export_onnx",
    "smx_export.errors.FileError",
    "smx_export.errors.NotInstalled",
    "smx_export.errors.ParityError",
    "smx_export.export_onnx",
    "smx_export.parity.check_parity",
    "smx_export.profile.Profile",
    "smx_export.runtime.OnnxClassifier",
    "smx_export.targets.NotInstalled",
    "smx_export.targets.Session",
    "smx_export.targets.Target",
    "smx_export.targets.named",
    "smx_export.targets.target",
    "smx_export.targets.base.Session",
    "smx_export.targets.base.Target",
    "smx_export.web.site.serve",
    "smx_export.web.site.write_site",
]
# What runs without torch, and names of it.
WITHOUT_TORCH = {
    "smx_export.artifact": "smx_export.artifact.describe.describe",
    "smx_export.contract": "smx_export.contract.PROBS",
    "smx_export.profile": "smx_export.Profile",
    "smx_export.runtime": "smx_export.OnnxClassifier",
    "smx_export.targets": "smx_export.targets.target",
    "smx_lightning": "smx_lightning.InputError",
}


def imports():
    """Of each module the others that it imports, also inside its functions."""
    graph = grimp.build_graph(
        "smx_lightning", "smx_export", exclude_type_checking_imports=True, cache_dir=None
    )
    return {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}


def test_no_module_imports_itself_by_way_of_others():
    graph = imports()
    assert len(graph) > 100
    assert "smx_export" in graph["smx_lightning.module"]  # inside a function, and counted
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as circle:
        pytest.fail(f"imports in a circle: {' -> '.join(circle.args[1])}")


def folders():
    for package in PACKAGES:
        for folder in (package, *package.rglob("*")):
            if folder.is_dir() and "__pycache__" not in folder.parts:
                yield folder


def test_no_folder_shows_more_than_can_be_seen_at_once():
    entries = {
        str(folder.relative_to(ROOT)): sum(
            entry.name not in UNCOUNTED for entry in folder.iterdir()
        )
        for folder in folders()
        if folder.name not in MANY_ENTRIES
    }
    assert len(entries) > 10
    assert {name: count for name, count in entries.items() if count > MOST_ENTRIES} == {}


def functions():
    """Name and number of lines of every function and method, nested ones too."""
    for root in (*PACKAGES, ROOT / "examples", ROOT / "benchmarks"):
        for file in root.rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    name = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
                    yield name, node.end_lineno - node.lineno + 1


def test_no_function_is_longer_than_a_screen():
    lengths = dict(functions())
    assert len(lengths) > 500
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_the_module_can_be_read_in_one_go():
    lines = (ROOT / "smx_lightning" / "module.py").read_text(encoding="utf-8").splitlines()
    assert 100 < len(lines) < MOST_OF_MODULE


@pytest.mark.parametrize("path", PUBLIC)
def test_every_import_of_version_0_1_works(path):
    module, _, name = path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert import_object(path) is found  # as YAML files name classes


def test_the_lists_of_public_names_hold_what_they_held():
    for module in ("smx_lightning", "smx_lightning.data", "smx_lightning.optim", "smx_export"):
        held = {path.rpartition(".")[2] for path in PUBLIC if path.rpartition(".")[0] == module}
        assert held <= {*importlib.import_module(module).__all__}


def test_what_needs_no_torch_is_imported_where_it_is_missing():
    code = (
        "import importlib, sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'lightning', 'torchmetrics']))\n"
        f"for module, path in {WITHOUT_TORCH}.items():\n"
        "    importlib.import_module(module)\n"
        "    home, _, name = path.rpartition('.')\n"
        "    assert getattr(importlib.import_module(home), name), path\n"
        "try:\n"
        "    import smx_lightning.module\n"
        "except ImportError as error:\n"
        "    print('refused', error.name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.split()[:1] == ["refused"], done.stderr


def test_every_module_that_names_shapes_is_checked():
    """Only those are instrumented, see tests/support/shapes.py."""
    options = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    hooked = options.split("--jaxtyping-packages=")[1].split('"')[0].split(",")
    for folder in PACKAGES:
        for path in folder.rglob("*.py"):
            if "from jaxtyping import" in path.read_text(encoding="utf-8"):
                name = ".".join(path.relative_to(folder.parent).with_suffix("").parts)
                assert any(name == one or name.startswith(f"{one}.") for one in hooked), name
