"""Receivers of webhooks that behave as real ones do: well, badly, slowly, or not at all. Real sockets, raw bytes."""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    line: str
    headers: dict[str, str]
    body: bytes
    at: float


Behaviour = Callable[[socket.socket, "Receiver"], None]


def answer(status: int, headers: str = "", body: bytes = b"") -> Behaviour:
    """Answer like a well-kept server."""

    def behave(connection: socket.socket, receiver: Receiver) -> None:
        head = f"HTTP/1.1 {status} Said\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
        connection.sendall(head.encode() + body)

    return behave


def silent(connection: socket.socket, receiver: Receiver) -> None:
    """Take the request and never answer."""
    receiver.closing.wait(30)


def half_closing(connection: socket.socket, receiver: Receiver) -> None:
    """Begin an answer and hang up in the middle of it."""
    connection.sendall(b"HTTP/1.1 20")
    connection.shutdown(socket.SHUT_WR)


def endless(status: int) -> Behaviour:
    """Answer with a body that never ends, as fast as it is taken."""

    def behave(connection: socket.socket, receiver: Receiver) -> None:
        connection.sendall(f"HTTP/1.1 {status} Said\r\nContent-Length: 99999999999\r\n\r\n".encode())
        while not receiver.closing.is_set():
            connection.sendall(b"x" * 65536)
            receiver.sent += 65536

    return behave


def dripping(text: bytes, every_s: float = 0.02) -> Behaviour:
    """Send an answer one byte at a time."""

    def behave(connection: socket.socket, receiver: Receiver) -> None:
        for byte in text:
            connection.sendall(bytes([byte]))
            if receiver.closing.wait(every_s):
                return

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """The first request gets the first behaviour, and so on; the last one stays."""

    def behave(connection: socket.socket, receiver: Receiver) -> None:
        behaviours[min(len(receiver.received), len(behaviours)) - 1](connection, receiver)

    return behave


def gone_and_then_failing(then: threading.Event) -> Behaviour:
    """With two requests under way: the first is told 410, and the other one fails after `then`."""
    turns = itertools.count()

    def behave(connection: socket.socket, receiver: Receiver) -> None:
        if next(turns) == 0:
            receiver.wait_for_requests(2)
            answer(410)(connection, receiver)
        else:
            assert then.wait(30.0)
            answer(500)(connection, receiver)

    return behave


def raw(text: bytes) -> Behaviour:
    """Send exactly these bytes."""

    def behave(connection: socket.socket, receiver: Receiver) -> None:
        connection.sendall(text)

    return behave


class Receiver:
    """A server on loopback; each connection has its thread. `behave` may be changed at any time.

    Without `reads` it behaves as soon as somebody connects and never looks at the request. With `tls` it speaks TLS.
    """

    def __init__(self, behave: Behaviour, reads: bool = True, tls: ssl.SSLContext | None = None) -> None:
        self.behave = behave
        self._reads = reads
        self._tls = tls
        self.received: list[Received] = []
        self.closing = threading.Event()
        self.connections = 0
        self.busy = 0
        self.most_busy = 0
        self.sent = 0
        self.hung_up = 0
        self._changed = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self._listener.getsockname()[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}/hook"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as ends:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
            ends.enter_context(connection)
            if not self._reads:
                self.behave(connection, self)
                return
            stream = ends.enter_context(connection.makefile("rb"))
            while line := stream.readline():
                headers = {}
                while (header := stream.readline()) not in (b"\r\n", b""):
                    name, _, value = header.decode().partition(":")
                    headers[name.strip().lower()] = value.strip()
                body = stream.read(int(headers.get("content-length", "0")))
                with self._changed:
                    self.received.append(Received(line.decode().strip(), headers, body, time.monotonic()))
                    self.busy += 1
                    self.most_busy = max(self.most_busy, self.busy)
                    self._changed.notify_all()
                try:
                    self.behave(connection, self)
                finally:
                    with self._changed:
                        self.busy -= 1
                        self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Until something about what was received is true; fails the test after the deadline."""
        with self._changed:
            assert self._changed.wait_for(condition, timeout_s), f"not in time; received {len(self.received)}"

    def wait_for_requests(self, count: int, timeout_s: float = 10.0) -> list[Received]:
        self.wait_for(lambda: len(self.received) >= count, timeout_s)
        return list(self.received)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.received]

    def hang_up(self, connection: socket.socket) -> None:
        """Close a connection, and count it."""
        connection.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self.hung_up += 1
            self._changed.notify_all()

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def receiver(behave: Behaviour, reads: bool = True, tls: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver for the length of a with block."""
    server = Receiver(behave, reads, tls)
    try:
        yield server
    finally:
        server.close()


def refusing_url() -> str:
    """The URL of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/hook"
