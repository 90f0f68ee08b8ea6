"""A browser that many tests share; each page is opened in a context of its own."""

import functools
import json
import select
import shutil
import subprocess

from tools import SUPPORT, missing

from smx_export.targets.base import NotInstalled
from smx_export.targets.npm import node_module

PATIENCE = 120  # seconds for a job


def tool(name):
    """The path of a program."""
    return shutil.which(name) or missing(f"{name} on the PATH")


def package(name):
    """The folder of a package of npm's."""
    try:
        return node_module(name)
    except NotInstalled as error:
        return missing(str(error))


class Browser:
    """A driver in tests/support, which starts the browser and answers jobs, see browsing.mjs."""

    def __init__(self, driver, **about):
        about |= {"playwright": str(package("playwright-core")), "chromium": tool("chromium")}
        self.process = subprocess.Popen(
            [tool("node"), str(SUPPORT / driver), json.dumps(about)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # what goes wrong is on stderr, which pytest shows
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )

    def ask(self, **job):
        print(json.dumps(job), file=self.process.stdin, flush=True)
        ready = select.select([self.process.stdout], [], [], PATIENCE)[0]
        line = self.process.stdout.readline() if ready else ""
        assert line, "no answer from the browser"
        answer = json.loads(line)
        assert "failed" not in answer, answer["failed"]
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait(PATIENCE)
        self.process.stdout.close()


_started = []


@functools.cache
def shared_browser(driver, **about):
    """The browser of a driver, started once, until ``close_browsers``."""
    _started.append(Browser(driver, **about))
    return _started[-1]


def close_browsers():
    """End those that were started; a worker of xdist's never comes as far as Python's atexit."""
    while _started:
        _started.pop().close()
    shared_browser.cache_clear()
