"""Where and with what a figure was measured: without it a figure means nothing."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path


def describe(*packages: str) -> str:
    """One line: processor, cores, Python, packages, date."""
    return f"{setting(*packages)}, {today()}"


def setting(*packages: str) -> str:
    """The same without the date: what two runs must have in common to be compared."""
    cpuinfo = Path("/proc/cpuinfo")
    model = platform.processor() or platform.machine()
    if cpuinfo.is_file():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def today() -> str:
    """The date in UTC, as YYYY-MM-DD."""
    return str(datetime.now(timezone.utc).date())
