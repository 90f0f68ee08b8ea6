"""Run every ``bash`` block of the README as a new user would, in the folder given.

A block is run by bash with the virtual environment on the path; paths that the README writes
relative to the checkout are there, because the checkout's examples are linked into the folder.
``make`` commands are left out: CI calls them by themselves.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(folder: str) -> int:
    """Run the blocks in order; stop at the first that fails."""
    work = Path(folder)
    (work / "examples").symlink_to(ROOT / "examples")
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    for block in blocks:
        commands = "\n".join(
            line for line in block.splitlines() if not line.startswith(("make ", "git ", "pip "))
        )
        if not commands.strip():
            continue
        print(f"$ {commands}", flush=True)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=work,
            env={**os.environ, "PATH": path},
            check=False,
        )
        if done.returncode:
            print(f"the README's block failed with code {done.returncode}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
