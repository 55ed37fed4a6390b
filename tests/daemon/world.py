"""What a daemon lives in: a simulated Nova over real HTTP and real AMQP, a real webhook receiver, and the truth.

`World` is all of it, with a configuration file for a daemon. `Receiver` keeps everything that came and can be told to
hang or to refuse. `Truth` looks at the simulated hosts all the time, so that afterwards it can be said whether a host
was really empty when a proof was decided and when it arrived.
"""

from __future__ import annotations

import base64
import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from maintd.clock import SystemClock
from maintd.simulator import Cloud, Timing
from maintd.simulator.bus import OsloBus, Queued, tee
from maintd.simulator.rest import RestServer
from tests.support.rabbitmq import wait_until

QUICK = Timing(
    step_s=0.01, rpc_s=0.02, schedule_s=0.02, tick_s=0.05, report_interval_s=2.0, concurrent_live_migrations=2
)
"""Nova's steps, hurried."""

Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One request that was accepted: when (seconds since the epoch), and what still was on the host it is about."""

    at: float
    event: Event
    left: frozenset[str]


class Receiver:
    """A webhook receiver on a real socket that checks signatures and keeps everything."""

    def __init__(self, truth: Callable[[str], set[str]]) -> None:
        self.secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.receipts: list[Receipt] = []
        self.refused: list[str] = []
        self.changed = threading.Condition()
        self.answer = 204
        self.flows = threading.Event()
        """While it is not set, requests are read and not answered."""
        self.flows.set()
        self.held = 0
        clock, receiver = SystemClock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                at = clock.now()
                if not receiver.flows.is_set():
                    receiver.held += 1
                    receiver.flows.wait(60.0)
                try:
                    Webhook(receiver.secret).verify(body, {k.lower(): v for k, v in self.headers.items()})
                    event = json.loads(body)
                    if self.headers["webhook-id"] != event["id"]:
                        raise WebhookVerificationError("webhook-id is not the event's id")
                except (WebhookVerificationError, ValueError) as wrong:
                    receiver.refused.append(str(wrong))
                    self._end(401)
                    return
                if receiver.answer < 300:
                    left = truth(event["data"]["host"]) if event["type"] == "maintd.host.emptied.v1" else set()
                    with receiver.changed:
                        receiver.receipts.append(Receipt(at, event, frozenset(left)))
                        receiver.changed.notify_all()
                self._end(receiver.answer)

            def _end(self, status: int) -> None:
                try:
                    self.send_response(status)
                    self.end_headers()
                except OSError:
                    return  # the daemon was killed meanwhile

            def log_message(self, format: str, *args: Any) -> None:
                return

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                return

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="receiver", daemon=True).start()

    def events(self, kind: str | None = None, subject: str | None = None) -> list[Event]:
        """What came, each event once, as it first came; `kind` without prefix and version."""
        once: dict[str, Event] = {}
        with self.changed:
            for receipt in self.receipts:
                once.setdefault(receipt.event["id"], receipt.event)
        return [
            event
            for event in once.values()
            if (kind is None or kind_of(event) == kind) and (subject is None or event["subject"] == subject)
        ]

    def wait_for(self, kind: str, subject: str, count: int = 1, timeout_s: float = 60.0) -> Event:
        """The count-th event of this kind about a subject; fails the test when it does not come."""

        def enough() -> bool:
            return len(self.events(kind, subject)) >= count

        with self.changed:
            came = self.changed.wait_for(enough, timeout_s)
        assert came, f"no {kind} (number {count}) of {subject} in {timeout_s:g} s; there came {self.kinds()}"
        return self.events(kind, subject)[count - 1]

    def kinds(self) -> list[str]:
        """What came, in short."""
        return [f"{kind_of(event)} {event['subject']}" for event in self.events()]

    def close(self) -> None:
        self.flows.set()
        self._server.shutdown()
        self._server.server_close()


def kind_of(event: Event) -> str:
    """The type without prefix and version."""
    return str(event["type"]).removeprefix("maintd.").removesuffix(".v1")


class Truth:
    """Looks every few milliseconds at which hosts are empty, and remembers since when."""

    EVERY_S = 0.005

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._over = threading.Event()
        self.changes: dict[str, list[tuple[float, bool]]] = {name: [] for name in cloud.hosts}
        self._look()
        self._thread = threading.Thread(target=self._run, name="truth", daemon=True)
        self._thread.start()

    def _look(self) -> None:
        for name, changes in self.changes.items():
            with self._cloud.lock:
                at, empty = self._cloud.clock.now(), not self._cloud.physically_on(name)
            if not changes or changes[-1][1] != empty:
                changes.append((at, empty))

    def _run(self) -> None:
        while not self._over.wait(self.EVERY_S):
            self._look()

    def empty_since(self, host: str, at: float) -> float | None:
        """Since when the host had been empty at this time; None when it was not."""
        before = [change for change in self.changes[host] if change[0] <= at]
        return before[-1][0] if before and before[-1][1] else None

    def close(self) -> None:
        self._over.set()
        self._thread.join(5.0)


class World:
    """A cloud on a broker, a receiver, and a configuration file that joins a daemon to both."""

    def __init__(
        self,
        folder: Path,
        name: str,
        *,
        broker_url: str | None,
        hosts: int = 4,
        servers: dict[str, int] | None = None,
        timing: Timing = QUICK,
        settle_s: float = 1.0,
        timeout_s: float = 5.0,
        seed: int = 1,
        with_cloud: bool = True,
        database: str | None = None,
        transport_url: str | None = None,
        second_url: str | None = None,
        second_cell: tuple[str, ...] = (),
    ) -> None:
        """`transport_url` is the daemon's way to the broker where it is not the cloud's; `second_url` its way to the
        second bus, on which the computes of `second_cell` speak."""
        self.folder, self.name, self.settle_s, self.timeout_s = folder, name, settle_s, timeout_s
        folder.mkdir(parents=True, exist_ok=True)
        self.broker_url = broker_url
        self.clock = SystemClock()
        self.sent: list[str] = []
        """The message ids of all notifications that the broker has taken."""
        self.publisher: Queued | None = None
        self._bus: OsloBus | None = None
        if broker_url is not None:
            self._bus = OsloBus(broker_url, exchange=name, retry=0)
            other = OsloBus(exchange=f"{name}-2", transport=self._bus.transport, retry=0)

            def send(key: str, message: dict[str, Any]) -> None:
                """By cells: a compute speaks on its cell's bus, everybody else on the first one."""
                _, _, host = message["publisher_id"].partition(":")
                own_word = not message["event_type"].startswith("service.")
                (other if own_word and host in second_cell else self._bus)(key, message)  # type: ignore[misc]

            self.publisher = Queued(tee(send, lambda key, message: self.sent.append(message["message_id"])))
        self.cloud = Cloud(self.clock, self.publisher, seed=seed, timing=timing)
        for number in range(1, hosts + 1):
            self.cloud.add_host(f"cmp-{number:02d}")
        for host, count in (servers if servers is not None else {"cmp-01": 2}).items():
            for number in range(1, count + 1):
                self.cloud.add_server(host, f"vm-{host}-{number}")
        self.cloud.knobs.set("live_migration", mode="converge", seconds=0.2, report_s=0.1)
        self.rest = RestServer(self.cloud, threads=16).start()
        self.rest.api.keep_seen = False
        self.truth = Truth(self.cloud)
        self.receiver = Receiver(self.cloud.physically_on)
        self.cloud.start()
        self.database = database or f"sqlite:///{folder / 'maintd.sqlite'}"
        cell = f"transport_url = {second_url}\nexchange = {name}-2\npool = {name}-2"
        self.config = self.write_config(
            "maintd",
            with_cloud=with_cloud,
            transport_url=transport_url or broker_url,
            database=self.database,
            more=f"[buses]\nenabled = cell2\n\n[bus:cell2]\n{cell}\n" if second_url else "",
        )

    def write_config(
        self, stem: str, *, with_cloud: bool = True, transport_url: str | None, database: str, more: str = ""
    ) -> Path:
        """A configuration file for a daemon of this world."""
        text = [
            f"[DEFAULT]\ninstallation = {self.name}",
            f"[database]\nconnection = {database}",
            f"[drain]\nsettle_s = {self.settle_s}",
            "[api]\nlisten = 127.0.0.1:0",
            "[metrics]\nlisten = 127.0.0.1:0",
            "[webhooks]\nenabled = hook",
            f"[webhook:hook]\nurl = {self.receiver.url}\nsecret = {self.receiver.secret}",
        ]
        if transport_url is not None:
            text.append(f"[bus]\ntransport_url = {transport_url}\nexchange = {self.name}\npool = {self.name}")
        if with_cloud:
            auth = self.rest.cloud_config()["auth"]
            lines = "\n".join(f"{key} = {value}" for key, value in auth.items())
            text.append(
                f"[cloud]\nauth_type = password\nregion_name = RegionOne\ntimeout_s = {self.timeout_s}\n{lines}"
            )
        path = self.folder / f"{stem}.conf"
        path.write_text("\n\n".join(text) + f"\n{more}")
        path.chmod(0o600)
        return path

    # what operators do

    def close_host(self, host: str, reason: str = "maintenance") -> None:
        self.cloud.disable(host, reason)

    def move_away(self, host: str, destination: str) -> list[str]:
        """Live-migrate all servers of a host; their ids."""
        ids = sorted(self.cloud.find_host(host).servers)
        for server_id in ids:
            self.cloud.live_migrate(server_id, destination)
        return ids

    def wait_empty(self, host: str, timeout_s: float = 60.0) -> None:
        """Until nothing is physically there any more."""
        wait_until(lambda: not self.cloud.physically_on(host), timeout_s, f"{host} to be empty")

    def close(self) -> None:
        self.cloud.stop()
        self.truth.close()
        self.rest.stop()
        if self.publisher is not None and self._bus is not None:
            self.publisher.close()
            self._bus.close()
        self.receiver.close()
