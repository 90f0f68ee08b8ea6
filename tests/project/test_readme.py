"""The README's Python runs as written; its commands are run by CI (.ci/readme_commands.py)."""

import re

import pytest
from tools import ROOT


@pytest.mark.whole
def test_python_blocks_run_in_order(cli_folder):
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    assert len(blocks) >= 2
    namespace = {"__name__": "readme"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert {"digits.onnx", "probe.onnx"} <= {file.name for file in cli_folder.iterdir()}


def test_runtime_blocks_of_the_export_readme_run(cli_folder, trained, digits):
    from sklearn.datasets import load_wine

    from smx_export import export_onnx
    from smx_lightning import SoftmaxRegression

    wine = load_wine(as_frame=True)
    names = wine.feature_names
    export_onnx(trained, "digits.onnx")
    export_onnx(SoftmaxRegression(len(names), 3, feature_names=names), "wine.onnx")
    blocks = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "export" / "README.md").read_text(), re.M | re.S
    )
    assert len(blocks) == 2
    told = {"x": digits.splits.test.x[:3].numpy(), "frame": wine.data, "labels": wine.target}
    for block in blocks:
        exec(compile(block, "export/README.md", "exec"), told)


PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md")])  # and none of pytest's own cache


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
