"""The next item is made in a thread while the present one is in use."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


class Ahead:
    """One item of an iterator ahead: two are in memory at most, the present and the next one.

    The thread makes an item and is done: it waits for nobody, so whoever stops early leaves none
    behind. What the iterator raises is raised where the item is asked for.
    """

    def __init__(self) -> None:
        self.ended = threading.Event()

    def of(self, items: Iterator[Item]) -> Iterator[Item]:
        """The items; the iterator may look at ``ended`` to stop in the midst of one."""
        pool = ThreadPoolExecutor(1, thread_name_prefix="smx-stream")
        try:
            coming = pool.submit(next, items, None)
            while (item := coming.result()) is not None:
                coming = pool.submit(next, items, None)
                yield item
                del item  # or three would be in memory while the next one is waited for
        finally:
            self.ended.set()
            pool.shutdown(wait=True, cancel_futures=True)
