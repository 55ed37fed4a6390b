"""The demonstration: the whole main job on this machine, told line by line as it happens.

A simulated Nova (over real HTTP, with real notifications on an in-process bus), a real daemon on SQLite, and a real
webhook receiver that checks signatures. An operator closes a host and moves its servers away; one migration hangs for
a while; the host is proven empty and opened again. Only three times are shorter than the defaults, and the first
lines say which. Nothing is faked behind the events: what is printed came through the webhook.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from maintd import log
from maintd.clock import SystemClock
from maintd.config import (
    ApiConfig,
    BusConfig,
    CloudConfig,
    Config,
    DatabaseConfig,
    DrainConfig,
    MetricsConfig,
    StallConfig,
    WebhookConfig,
)
from maintd.daemon import Daemon
from maintd.simulator import Cloud
from maintd.simulator.bus import OsloBus, Queued
from maintd.simulator.rest import RestServer

HOST = "cmp-01"
SETTLE_S = 5.0
FROZEN_AFTER_S = 8.0
LIMIT_S = 80.0


class Receiver:
    """A webhook receiver as an operator would write it: verifies, answers 204, keeps what came."""

    def __init__(self, secret: str, heard: Callable[[dict[str, Any]], None]) -> None:
        self.events: list[dict[str, Any]] = []
        self.refused = 0
        self.changed = threading.Condition()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                try:
                    Webhook(secret).verify(body, {k.lower(): v for k, v in self.headers.items()})
                except WebhookVerificationError:
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
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/hook"
        threading.Thread(target=self._server.serve_forever, name="receiver", daemon=True).start()

    def wait_for(self, event_type: str, deadline: float) -> dict[str, Any] | None:
        """The first event of this type; None when it has not come by the deadline (monotonic seconds)."""
        with self.changed:
            while True:
                for event in self.events:
                    if event["type"] == f"maintd.{event_type}.v1":
                        return event
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
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


def _summary(event: dict[str, Any], names: dict[str, str]) -> str:
    data = event["data"]
    kind = event["type"].removeprefix("maintd.").removesuffix(".v1")
    server = names.get(data.get("server_id") or "", data.get("server_id") or "")
    if kind.startswith("migration."):
        text = f"{server}: {data['source']} -> {data['destination'] or '?'}"
        if kind == "migration.stalled":
            text += f", {data['reason']}: no byte moved for {data['evidence']['unchanged_seconds']:.0f} s"
        elif "duration_seconds" in data:
            text += f" after {data['duration_seconds']:.1f} s"
    elif kind == "host.emptied":
        text = f"{data['host']} is empty of Nova servers, nothing else is claimed (scope {data['scope']})"
    elif kind == "drain.started":
        text = f"{data['host']}, {data['servers_total']} servers, reason {data['reason']!r}"
    else:
        text = str(data.get("host") or event["subject"])
        if data.get("reason"):
            text += f", reason {data['reason']!r}"
        if "duration_seconds" in data:
            text += f" after {data['duration_seconds']:.1f} s"
    return f"{kind:<22} {text}"


def play() -> int:
    """Play the story; 0 when every event that must come came, 1 with a sentence when one did not."""
    tell = Teller()
    log.configure("error", "text")
    names: dict[str, str] = {}
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def heard(event: dict[str, Any]) -> None:
        tell("webhook", _summary(event, names))
        if event["type"] == "maintd.host.emptied.v1":
            for read in event["data"]["proof"]:
                tell("", f"    proof: pass {read['pass']}, {read['read']:<19} {read['count']} found")

    deadline = time.monotonic() + LIMIT_S
    print("maintd demo: a simulated Nova with five hosts, the real daemon, a real webhook.")
    print(
        f"Shortened for the show: settle_s {SETTLE_S:g} (default 15), frozen_after_s {FROZEN_AFTER_S:g} (default 60), "
        "quick migrations.\n"
    )
    clock = SystemClock()
    transport_url = "kombu+memory:////"
    with tempfile.TemporaryDirectory(prefix="maintd-demo-") as folder:
        receiver = Receiver(secret, heard)
        publisher = Queued(OsloBus(transport_url))
        cloud = Cloud(clock, publisher, seed=7)
        for number in range(1, 6):
            cloud.add_host(f"cmp-0{number}")
        servers = [cloud.add_server(HOST, name) for name in ("web-1", "web-2", "db-1", "cache-1")]
        names.update({server.id: server.name for server in servers})
        cloud.knobs.set("live_migration", mode="converge", seconds=3, report_s=1)
        cloud.knobs.set("live_migration", server="db-1", mode="stuck", seconds=4, floor=0.4, report_s=1)
        rest = RestServer(cloud).start()
        cloud.start()
        options = rest.cloud_config()
        auth = {key: str(value) for key, value in options["auth"].items()}
        config = Config(
            installation="demo",
            buses=(BusConfig("default", transport_url),),
            cloud=CloudConfig(options={"auth_type": "password", **auth}, region_name="RegionOne"),
            database=DatabaseConfig(connection=f"sqlite:///{Path(folder) / 'maintd.sqlite'}"),
            drain=DrainConfig(settle_s=SETTLE_S),
            stall=StallConfig(frozen_after_s=FROZEN_AFTER_S),
            api=ApiConfig(port=0),
            metrics=MetricsConfig(port=0),
            webhooks=(WebhookConfig("demo", receiver.url, secret),),
        )
        daemon = Daemon(config)
        daemon.start()
        try:
            return _story(tell, daemon, cloud, receiver, deadline, [server.id for server in servers])
        finally:
            daemon.stop()
            cloud.stop()
            rest.stop()
            publisher.close()
            receiver.close()


def _story(
    tell: Teller, daemon: Daemon, cloud: Cloud, receiver: Receiver, deadline: float, server_ids: list[str]
) -> int:
    def until(what: str, condition: Callable[[], bool]) -> None:
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(what)
            time.sleep(0.05)

    def event(event_type: str) -> dict[str, Any]:
        found = receiver.wait_for(event_type, deadline)
        if found is None:
            raise TimeoutError(f"the event {event_type}")
        return found

    try:
        until("the daemon to have read the cloud", lambda: _baselined(daemon))
        tell("maintd", "has read the cloud: 5 hosts, 4 servers; listens, asks, serves")
        tell("operator", f"openstack compute service set --disable --disable-reason 'maintenance: new PSU' {HOST} ...")
        cloud.disable(HOST, "maintenance: new PSU")
        event("drain.started")
        tell("operator", "asks Nova to live-migrate all four servers away; Nova does one at a time")
        for server_id in server_ids:
            cloud.live_migrate(server_id)
        stalled = event("migration.stalled")
        why = daemon.why(HOST)
        tell("operator", f"maintd why {HOST}")
        for blocker in why:
            tell("", f"    {blocker.kind:<14} {_name(cloud, blocker.server_id):<8} {blocker.detail or ''}")
        tell("operator", f"frees the hung migration of {_name(cloud, stalled['data']['server_id'])}")
        cloud.knobs.set("live_migration", server="db-1", mode="converge", seconds=3, report_s=1)
        event("host.emptied")
        left = cloud.physically_on(HOST)
        tell("check", f"what is really on {HOST}: {', '.join(sorted(left)) or 'nothing'}")
        if left:
            return _failed("host.emptied came while something was still there")
        tell("operator", f"swaps the power supply and enables {HOST} again")
        cloud.enable(HOST)
        event("drain.ended")
        tell("check", f"{len(receiver.events)} events received, every signature verified, none refused")
        return 0 if receiver.refused == 0 else _failed("a signature was not accepted")
    except TimeoutError as missing:
        return _failed(f"waited in vain for {missing}")


def _failed(why: str) -> int:
    print(f"maintd demo: it did not come out as it must: {why}.", file=sys.stderr)
    return 1


def _name(cloud: Cloud, server_id: str | None) -> str:
    return cloud.find_server(server_id).name if server_id else ""


def _baselined(daemon: Daemon) -> bool:
    leading = daemon.leading
    if leading is None:
        return False
    known = leading.admission.read(lambda fleet: fleet.knowledge)
    return known is not None and known.baselined_at is not None and leading.connected
