"""What ``smx-lightning fit`` prints and saves of its configuration."""

from pathlib import Path

import pytest
import yaml

from smx_lightning.cli import main


def saved_config(version=0):
    """Of a run in the working folder."""
    return yaml.safe_load(Path(f"lightning_logs/version_{version}/config.yaml").read_text())


def printed_config(capsys, *given):
    """What ``--print_config`` prints."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(["fit", *given, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)
