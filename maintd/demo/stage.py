"""What every story stands on: the simulated cloud, the daemon, receivers, who tells, and how long it may take."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from maintd import log
from maintd.clock import SystemClock
from maintd.config import ApiConfig, BusConfig, CloudConfig, Config, DatabaseConfig, DrainConfig, MetricsConfig
from maintd.daemon import Daemon
from maintd.simulator import Cloud
from maintd.simulator.bus import OsloBus, Queued
from maintd.simulator.rest import RestServer

SETTLE_S: Final = 5.0


class Receiver:
    """A webhook receiver as somebody would write it: verifies, answers 204, keeps what came.

    `secret` may be given later, when a subscription has told it; until then nothing verifies. It agrees to be called
    where it is asked to (CloudEvents, `WebHook-Request-Origin`).
    """

    def __init__(self, secret: str | None, heard: Callable[[dict[str, Any]], None]) -> None:
        self.secret = secret
        self.events: list[dict[str, Any]] = []
        self.refused = 0
        self.bytes = bytearray()
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                receiver.bytes += str(self.headers).encode()
                self.send_response(200)
                self.send_header("WebHook-Allowed-Origin", self.headers.get("WebHook-Request-Origin", "*"))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                receiver.bytes += str(self.headers).encode() + body
                if not receiver.verifies(body, self.headers):
                    receiver.refused += 1
                    self.send_response(401)
                    self.end_headers()
                    return
                self.send_response(204)
                self.end_headers()
                event = json.loads(body)
                with receiver.changed:
                    receiver.events.append(event)
                    heard(event)
                    receiver.changed.notify_all()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def verifies(self, body: bytes, headers: Message) -> bool:
        if self.secret is None:
            return False
        try:
            Webhook(self.secret).verify(body, {k.lower(): v for k, v in headers.items()})
        except WebhookVerificationError:
            return False
        return True

    def wait_for(
        self, event_type: str, deadline: float, fits: Callable[[dict[str, Any]], bool] = lambda event: True
    ) -> dict[str, Any]:
        """The first event of this type that fits. Raises TimeoutError when none has come by then (monotonic)."""
        with self.changed:
            while True:
                for event in self.events:
                    if event["type"] == f"maintd.{event_type}.v1" and fits(event):
                        return event
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"the event {event_type}")
                self.changed.wait(left)

    def close(self) -> None:
        self._server.shutdown()


class Teller:
    """Prints the story with the seconds since it began."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def __call__(self, who: str, text: str) -> None:
        with self._lock:
            sys.stdout.write(f"{time.monotonic() - self._began:6.1f}s  {who:<9} {text}\n")
            sys.stdout.flush()


@dataclass(frozen=True, slots=True)
class Stage:
    """A cloud, its APIs, and the daemon, running. `deadline` is when the story must be over (monotonic seconds)."""

    tell: Teller
    cloud: Cloud
    rest: RestServer
    daemon: Daemon
    deadline: float

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until it holds. Raises TimeoutError at the deadline."""
        while not condition():
            if time.monotonic() > self.deadline:
                raise TimeoutError(what)
            time.sleep(0.05)

    def has_read_the_cloud(self) -> bool:
        leading = self.daemon.leading
        if leading is None:
            return False
        known = leading.admission.read(lambda fleet: fleet.knowledge)
        return known is not None and known.baselined_at is not None and leading.connected


def set_the_stage(
    tell: Teller,
    limit_s: float,
    people: Callable[[Cloud, RestServer], None],
    configured: Callable[[Config, RestServer, Path], Config],
) -> Iterator[Stage]:
    """A stage for one story. `people` puts hosts, servers and users there, `configured` what it needs of maintd."""
    clock = SystemClock()
    transport_url = "kombu+memory:////"
    with tempfile.TemporaryDirectory(prefix="maintd-demo-") as folder:
        publisher = Queued(OsloBus(transport_url))
        cloud = Cloud(clock, publisher, seed=7)
        rest = RestServer(cloud)
        people(cloud, rest)
        rest.start()
        cloud.start()
        options = rest.cloud_config()
        auth = {key: str(value) for key, value in options["auth"].items()}
        base = Config(
            installation="demo",
            buses=(BusConfig("default", transport_url),),
            cloud=CloudConfig(options={"auth_type": "password", **auth}, region_name="RegionOne"),
            database=DatabaseConfig(connection=f"sqlite:///{Path(folder) / 'maintd.sqlite'}"),
            drain=replace(DrainConfig(), settle_s=SETTLE_S),
            api=ApiConfig(port=0),
            metrics=MetricsConfig(port=0),
        )
        daemon = Daemon(configured(base, rest, Path(folder)))
        daemon.start()
        try:
            yield Stage(tell, cloud, rest, daemon, time.monotonic() + limit_s)
        finally:
            daemon.stop()
            cloud.stop()
            rest.stop()
            publisher.close()


stage = contextmanager(set_the_stage)


def play(story: Callable[[], int]) -> int:
    """Play a story; 0 when all came out as it must, 1 with a sentence when something did not come."""
    log.configure("error", "text")
    try:
        return story()
    except TimeoutError as missing:
        return failed(f"waited in vain for {missing}")


def failed(why: str) -> int:
    print(f"maintd demo: it did not come out as it must: {why}.", file=sys.stderr)
    return 1
