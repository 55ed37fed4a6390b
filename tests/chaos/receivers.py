"""A webhook receiver that is restarted, refuses and hangs, and writes down all it was ever sent.

Its memory is a file. Closing it closes the socket and cuts what is open; it comes back on the same port, so that
whoever sends to it has to try again, as with a program that is restarted.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from maintd.clock import SystemClock
from tests.daemon.world import Event
from tests.support.rabbitmq import free_port

HANG_S = 15.0
"""Longer than maintd waits for an answer."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request, as it was written down: when, what it was answered (0: nothing), and the event."""

    at: float
    answer: int
    event: Event


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Whoever sent was killed meanwhile, or we have cut the connection."""


class Receiver:
    """An endpoint on a port of its own. `secret` may be given when a subscription has told it."""

    def __init__(self, name: str, file: Path, secret: str | None = None) -> None:
        self.name, self.file, self.secret = name, file, secret
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/hook"
        self.mood = 204
        """What it answers; 0: it hangs."""
        self.refused: list[str] = []
        self._clock = SystemClock()
        self._server: _Server | None = None
        self._over = threading.Event()
        self._written = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def open(self) -> None:
        """Take requests (again)."""
        if self._server is None:
            self._over = threading.Event()
            self._server = _Server(self.port, _handler(self, self._over))
            threading.Thread(target=self._server.serve_forever, args=(0.05,), name=self.name, daemon=True).start()

    def close(self) -> None:
        """Be gone: nothing is taken, and what is open is cut."""
        server, self._server = self._server, None
        if server is not None:
            self._over.set()
            server.shutdown()
            server.server_close()
            for connection in list(server.open):
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def take(self, body: bytes, headers: dict[str, str]) -> int:
        """Judge a request and write it down; what it is answered."""
        try:
            if self.secret is None:
                raise WebhookVerificationError("nobody has subscribed yet")
            Webhook(self.secret).verify(body, headers)
            event = json.loads(body)
            if headers["webhook-id"] != event["id"]:
                raise WebhookVerificationError("webhook-id is not the event's id")
        except (WebhookVerificationError, ValueError) as wrong:
            self.refused.append(str(wrong))
            return 401
        answer = self.mood
        line = json.dumps({"at": self._clock.now(), "answer": answer, "event": event}) + "\n"
        os.write(self._written, line.encode())
        return answer

    def arrivals(self) -> list[Arrival]:
        """All it was ever sent, in the order in which it came."""
        return [Arrival(**json.loads(line)) for line in self.file.read_text().splitlines()]

    def taken(self) -> dict[str, Event]:
        """The events that it has answered with success, by id, in the order in which they first were."""
        found: dict[str, Event] = {}
        for arrival in self.arrivals():
            if arrival.answer == 204:
                found.setdefault(arrival.event["id"], arrival.event)
        return found


def _handler(receiver: Receiver, over: threading.Event) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 30

        def do_OPTIONS(self) -> None:
            self.send_response(200)
            self.send_header("WebHook-Allowed-Origin", self.headers.get("WebHook-Request-Origin", "*"))
            self.end_headers()

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            answer = receiver.take(body, {name.lower(): value for name, value in self.headers.items()})
            if answer == 0:
                over.wait(HANG_S)
                return
            self.send_response(answer)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
