"""The event log as it grows: what long polls and event streams on /v1/events wait by.

Each of them holds one thread of the API's server for as long as it waits, so each takes one of a few seats
(`seats.py`). Nobody keeps a seat for nothing: a client that has gone is noticed within a second, one that reads nothing
loses its connection after `SEND_S`, and a stream ends after `AGE_S`, so that the token it was opened with is looked at
again. None of these loses an event, for whoever comes back brings a cursor.

The `Bell` is rung at each commit of this process. What another controller commits rings nothing here, so while anybody
waits one of those waiting looks once a second, for all. Nothing is pushed through the bell: each reads the log from its
own cursor, which is why nothing can be missed or told twice.
"""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import structlog

from maintd.clock import Clock
from maintd.errors import StoreUnavailable
from maintd.store import EventRow
from maintd.web.seats import Seat

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0
"""How often somebody looks for what other controllers have committed, and whether clients are still there."""

PING_S: Final = 15.0
"""A stream that says nothing for so long says that it is alive."""

RETRY_S: Final = 3.0
"""When a client whose stream has ended is asked to come back."""

SEND_S: Final = 5.0
"""A client takes the next piece within this time, or loses its connection."""

AGE_S: Final = 3600.0
"""The longest life of one stream."""

PIECE_BYTES: Final = 16 * 1024
"""What is sent at once: little enough to fit into a socket's buffer whole, so that `SEND_S` bounds each piece."""

PAGE: Final = 100
"""How many events a stream reads at once."""

SOCKET: Final = "maintd.socket"
"""Where in the WSGI environment the server leaves the client's socket."""


class Bell:
    """Tells all who wait that a log may have grown.

    `newest` asks the store for something that differs once any of the logs shows more than before.
    """

    def __init__(self, clock: Clock, newest: Callable[[], object]) -> None:
        self.clock = clock
        self._newest = newest
        self._condition = threading.Condition()
        self._looked_at = float("-inf")
        self._seen: object = None
        self.strokes = 0
        self.closed = False

    def ring(self) -> None:
        """Wake everybody."""
        with self._condition:
            self.strokes += 1
            self._condition.notify_all()

    def close(self) -> None:
        """Wake everybody for the last time: nobody waits any more."""
        with self._condition:
            self.closed = True
            self._condition.notify_all()

    def wait(self, heard: int, timeout_s: float) -> None:
        """Until there are other strokes than `heard`; in vain for `LOOK_S` at most."""
        with self._condition:
            self._condition.wait_for(lambda: self.strokes != heard or self.closed, min(timeout_s, LOOK_S))
        self._look()

    def _look(self) -> None:
        with self._condition:
            now = self.clock.monotonic()
            if now - self._looked_at < LOOK_S:
                return
            self._looked_at = now
        try:
            newest = self._newest()
        except StoreUnavailable:
            return  # whoever waits waits on: the database comes back, and then there is a stroke
        if newest != self._seen:
            self._seen = newest
            self.ring()


def vanished(client: socket.socket | None) -> bool:
    """Whether a client has closed its connection, which is all that one who waits for an answer can have sent."""
    if client is None:
        return False
    try:
        poll = select.poll()
        poll.register(client, select.POLLIN)
        return bool(poll.poll(0)) and client.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):
        return True


def awaited(
    bell: Bell, fetch: Callable[[], Sequence[EventRow]], until: float, client: socket.socket | None
) -> Sequence[EventRow]:
    """What `fetch` finds, as soon as it finds something; nothing once it is `until`, or nobody waits for it."""
    heard: int | None = None
    while True:
        if heard != bell.strokes:
            heard = bell.strokes
            if rows := fetch():
                return rows
        left = until - bell.clock.monotonic()
        if left <= 0 or bell.closed or vanished(client):
            return ()
        bell.wait(heard, left)


class Stream:
    """The log as `text/event-stream`. The server's thread goes through it, and closes it however that ends."""

    def __init__(
        self,
        bell: Bell,
        seat: Seat,
        fetch: Callable[[int], Sequence[EventRow]],
        after: int,
        client: socket.socket | None,
    ) -> None:
        self._bell, self._seat, self._fetch, self._client = bell, seat, fetch, client
        self._cursor = after
        self._timeout_s = None if client is None else client.gettimeout()
        if client is not None:
            client.settimeout(SEND_S)

    def __iter__(self) -> Iterator[bytes]:
        clock = self._bell.clock
        ends_at = clock.monotonic() + AGE_S
        yield f"retry: {RETRY_S * 1000:.0f}\n\n".encode()
        while not self._ended() and clock.monotonic() < ends_at:
            until = min(ends_at, clock.monotonic() + PING_S)
            try:
                rows = awaited(self._bell, lambda: self._fetch(self._cursor), until, self._client)
            except StoreUnavailable as wrong:
                log.info("stream_ended", detail=str(wrong))
                return
            if vanished(self._client):
                return
            for row in rows:
                if self._ended():
                    return
                yield from pieces(message(row))
                self._cursor = row.sequence
            if not rows and not self._ended():
                yield b": ping\n\n"

    def _ended(self) -> bool:
        return self._bell.closed

    def close(self) -> None:
        """Leave the seat, and the socket as it was."""
        self._seat.close()
        if self._client is not None:
            try:
                self._client.settimeout(self._timeout_s)
            except OSError:
                return  # it is closed already


def message(row: EventRow) -> bytes:
    """An event as server-sent events have it. Its JSON has no line break: they are escaped in texts."""
    return f"id: {row.sequence:020d}\nevent: {row.type}\ndata: {row.body}\n\n".encode()


def pieces(message: bytes) -> Iterator[bytes]:
    for start in range(0, len(message), PIECE_BYTES):
        yield message[start : start + PIECE_BYTES]
