"""Threads for a sink whose work blocks: a few of its own, so that what hangs there hangs for that sink alone.

The dispatcher's loop serves every endpoint and may wait for none of them. `concurrent.futures` has pools, but the
interpreter waits for their threads when it ends, and one that hangs in a broker would keep maintd from stopping. These
are daemon threads: whoever gives up on one leaves it behind. There are never more than were asked for, so that the
worst a hanging receiver can do is to keep its own sink's threads busy; what waits for them meanwhile runs out of time.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """`count` daemon threads and one queue; with one thread, work is done in the order it came."""

    def __init__(self, name: str, count: int) -> None:
        self._waiting: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._count = count
        for number in range(count):
            threading.Thread(target=self._work, name=f"{name}-{number}", daemon=True).start()

    async def run(self, work: Callable[[], T], within_s: float) -> T:
        """Have work done, and its result. Raises TimeoutError, and what the work raises.

        Work that has not begun by then never will; for work that has there is nobody left who hears how it ended.
        """
        future: Future[T] = Future()
        self._waiting.put((future, work))
        async with asyncio.timeout(within_s):
            return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Let each thread end when it has nothing in hand. Waits for none."""
        for _ in range(self._count):
            self._waiting.put(None)

    def _work(self) -> None:
        while (job := self._waiting.get()) is not None:
            future, work = job
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
