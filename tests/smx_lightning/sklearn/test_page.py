"""The Python of docs/sklearn.md runs as written, in order."""

import re

import pytest
from tools import ROOT


@pytest.mark.whole
def test_the_page_runs(cli_folder, capsys):
    page = (ROOT / "docs" / "sklearn.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    namespace = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, "docs/sklearn.md", "exec"), namespace)
    said = capsys.readouterr().out
    assert "CONVERGED" in said
    assert "('dog', 'emu', 'yak')" in said
    assert (cli_folder / "head.onnx").is_file()
