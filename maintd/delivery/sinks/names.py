"""Looking up the names that projects have chosen, apart from everybody else's.

The system's resolver is asked in a thread, and a name server that never answers holds the thread for as long as the
system is patient, whether or not anybody still waits. So what a project makes us look up has threads of its own, which
no look-up of an operator's endpoint ever waits for. They are a fixed number in lots, and a project always gets the
same lot: one whose name servers are dead delays itself and the few that share its lot, not all.

It asks what the system asks, /etc/hosts included, and keeps nothing; whether an address may be dialled is judged later.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import partial
from typing import Final
from zlib import crc32

from aiohttp.abc import AbstractResolver, ResolveResult

LOTS: Final = 32
LOT_THREADS: Final = 2
"""Threads are made when they are first needed; this many in each lot."""


class ProjectNames:
    """The threads for projects' names. `close` waits for none of them."""

    def __init__(self) -> None:
        self._lots = [ThreadPoolExecutor(LOT_THREADS, f"maintd-names-{number}") for number in range(LOTS)]

    def resolver(self, project_id: str) -> AbstractResolver:
        """Looks names up in the threads of a project's lot."""
        return _Resolver(self._lots[crc32(project_id.encode()) % LOTS])

    def close(self) -> None:
        for lot in self._lots:
            lot.shutdown(wait=False, cancel_futures=True)


class _Resolver(AbstractResolver):
    def __init__(self, threads: Executor) -> None:
        self._threads = threads

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        ask = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        found = await asyncio.get_running_loop().run_in_executor(self._threads, ask)
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=port,
                family=kind,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        pass
