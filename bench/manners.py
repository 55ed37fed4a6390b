"""A thousand receivers in one process, each with the manners that its path says, for `bench.deliveries`.

    python -m bench.manners EXPECTED FILE

Says its port on the first line of its output, and `all` once EXPECTED requests to good ones are there; then it writes
when each of these arrived (`PATH SECONDS` of the monotonic clock, which all processes share) to FILE, and ends when its
input does. No signature is checked: tests do that.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from maintd.clock import SystemClock

TAKEN = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
SLOW_S = 3.0
DRIP_EVERY_S = 0.2


class Manners(asyncio.Protocol):
    """One connection. `good` answers at once, `slow` after seconds, `hanging` never, `dripping` byte by byte."""

    def __init__(self, arrived: list[tuple[str, float]], expected: int, everything: asyncio.Event) -> None:
        self._arrived, self._expected, self._everything = arrived, expected, everything
        self._read = b""
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, end, rest = self._read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        if not end or len(rest) < length:
            return
        self._read = rest[length:]
        path = head.split(b" ", 2)[1].decode()
        kind = path.split("/")[1]
        if kind == "good":
            self._transport.write(TAKEN)
            self._arrived.append((path, SystemClock().monotonic()))
            if len(self._arrived) == self._expected:
                self._everything.set()
        elif kind == "slow":
            self._later(SLOW_S, TAKEN)
        elif kind == "dripping":
            self._drip(0)

    def _later(self, seconds: float, data: bytes) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.write, data)

    def _drip(self, sent: int) -> None:
        self._transport.write(TAKEN[sent : sent + 1] if sent < 9 else b"0")  # the status line never ends
        self._timer = asyncio.get_running_loop().call_later(DRIP_EVERY_S, self._drip, sent + 1)


async def serve(expected: int, file: Path) -> None:
    arrived: list[tuple[str, float]] = []
    everything = asyncio.Event()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Manners(arrived, expected, everything), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await everything.wait()
    file.write_text("".join(f"{path} {at!r}\n" for path, at in arrived))
    print("all", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2])))
