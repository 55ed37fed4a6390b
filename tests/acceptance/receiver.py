"""A webhook receiver: verifies each signature, answers 204, keeps what came and when. Nothing signed is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

MAX_BODY_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Heard:
    """One request that was signed as it must be: when it was all there (seconds since the epoch), and what it said."""

    received_at: float
    webhook_id: str
    content_type: str
    event: dict[str, Any]

    @property
    def type(self) -> str:
        """The event's type without what all of them share: `host.emptied`."""
        return str(self.event.get("type", "")).removeprefix("maintd.").removesuffix(".v1")

    @property
    def data(self) -> dict[str, Any]:
        data = self.event.get("data")
        return data if isinstance(data, dict) else {}


class Receiver:
    """Listens on the loopback from the moment it is made. `faults` are requests that no maintd should have sent."""

    def __init__(self, secret: str) -> None:
        self.heard: list[Heard] = []
        self.faults: list[str] = []
        self._changed = threading.Condition()
        self._verifier = Webhook(secret)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length", "0"))
                body = self.rfile.read(min(length, MAX_BODY_BYTES))
                status = outer._take(body, {name.lower(): value for name, value in self.headers.items()})
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/maintd"
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def _take(self, body: bytes, headers: dict[str, str]) -> int:
        now = time.time()
        try:
            self._verifier.verify(body, headers)
            event = json.loads(body)
        except (WebhookVerificationError, ValueError) as wrong:
            with self._changed:
                self.faults.append(f"a webhook was not signed as it must be, or is not JSON: {wrong!r}")
            return 401
        heard = Heard(now, headers.get("webhook-id", ""), headers.get("content-type", ""), event)
        with self._changed:
            self.heard.append(heard)
            self._changed.notify_all()
        return 204

    def wait_for(self, wanted: Callable[[Heard], bool], since: int, timeout_s: float) -> Heard | None:
        """The first that is wanted, from index `since` on; None when it did not come in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for heard in self.heard[since:]:
                    if wanted(heard):
                        return heard
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
