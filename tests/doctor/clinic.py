"""What the doctor is called to: a simulated Nova on real HTTP and on a virtual host of its own of a real RabbitMQ.

A `Clinic` is healthy when it is made: notifications flow, every compute has work to do, the API hides nothing, the
webhook answers, a policy bounds the queues. Each test plants one fault and has the doctor look.
"""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import amqp

from maintd.clock import SystemClock
from maintd.config import BusConfig, load
from maintd.doctor import Finding, Options, Report, examine
from maintd.simulator import Cloud, Timing
from maintd.simulator.bus import OsloBus, Queued
from maintd.simulator.rest import RestServer
from tests.daemon.world import Receiver
from tests.support.rabbitmq import Rabbit, wait_until

HOSTS = ("cmp-01", "cmp-02", "cmp-03")
BOUNDS = {"max-length": 200_000, "message-ttl": 86_400_000, "overflow": "drop-head"}

Json = dict[str, Any]
Twist = Callable[[str, Json], list[tuple[str, Json]]]
"""What becomes of a notification on its way out: (routing key, message) -> those that are sent instead."""


def quick(**changes: Any) -> Timing:
    """Nova's steps, hurried."""
    return Timing(step_s=0.01, rpc_s=0.01, schedule_s=0.01, tick_s=0.05, report_interval_s=1.0, **changes)


class Managed:
    """The management plugin of a broker: what an administrator would do with rabbitmqctl."""

    def __init__(self, rabbit: Rabbit) -> None:
        self.url = f"http://127.0.0.1:{rabbit.management_port}"
        self._token = base64.b64encode(b"guest:guest").decode()

    def call(self, method: str, *path: str, **body: Any) -> Any:
        place = "/".join(urllib.parse.quote(part, safe="") for part in path)
        request = urllib.request.Request(
            f"{self.url}/api/{place}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Basic {self._token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            raw = answer.read()
        return json.loads(raw) if raw else None

    def answers(self) -> bool:
        try:
            return bool(self.call("GET", "overview"))
        except OSError:
            return False

    def bound(self, vhost: str, **limits: Any) -> None:
        """The policy of the README."""
        pattern = r"^(maintd|versioned_notifications\.(info|error))$"
        definition = limits or BOUNDS
        self.call(
            "PUT", "policies", vhost, "maintd-bounds", pattern=pattern, definition=definition, **{"apply-to": "queues"}
        )


class Clinic:
    """One installation on a virtual host of its own."""

    def __init__(self, folder: Path, name: str, rabbit: Rabbit, managed: Managed, **timing: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name, self.rabbit, self.managed = folder, name, rabbit, managed
        self.clock = SystemClock()
        managed.call("PUT", "vhosts", name)
        managed.call("PUT", "permissions", name, "guest", configure=".*", write=".*", read=".*")
        self.sent = self.handed_over = 0
        """Notifications that went to the broker, and those that were given to `twist`."""
        self.url = rabbit.url_at(rabbit.port, vhost=name)
        self.twist: Twist = lambda key, message: [(key, message)]
        self._ends = ExitStack()
        self.exchange = OsloBus(self.url, exchange="nova", retry=0)
        self._queued = Queued(self._publish)
        self.cloud = Cloud(self.clock, self._queued, seed=1, timing=quick(**timing))
        for host in HOSTS:
            self.cloud.add_host(host)
            self.cloud.add_server(host, f"vm-{host}")
        self.cloud.knobs.set("live_migration", mode="converge", seconds=0.1, report_s=0.05)
        self.rest = RestServer(self.cloud).start()
        self._ends.callback(self.rest.stop)
        self.receiver = Receiver(lambda host: set())
        self._ends.callback(self.receiver.close)
        self.cloud.start()
        self._ends.callback(self.cloud.stop)
        self._healed = 0
        self.settings: dict[str, dict[str, Any]] = {}
        self.database = folder / "maintd.sqlite"
        self._set()

    def _set(self) -> None:
        self.database = self.folder / f"maintd-{self._healed}.sqlite"
        self.settings = {
            "DEFAULT": {"installation": self.name},
            "database": {"connection": f"sqlite:///{self.database}"},
            "bus": {"transport_url": self.url},
            "cloud": {"auth_type": "password", "region_name": "RegionOne", "timeout_s": 5}
            | self.rest.cloud_config()["auth"],
            "metrics": {"listen": "127.0.0.1:1"},
            "webhooks": {"enabled": "hook"},
            "webhook:hook": {"url": self.receiver.url, "secret": self.receiver.secret},
        }

    def heal(self) -> None:
        """As it was made, but for Nova's own queues, which have filled a little; a new database."""
        self._healed += 1
        self._set()
        self.rest.faults.clear()
        self.cloud.lose_cell(HOSTS, down=False)
        self.twist = lambda key, message: [(key, message)]
        self.receiver.answer = 204
        self.receiver.receipts.clear()
        self.settle()
        for host in HOSTS:
            for server in self.cloud.find_host(host).servers.values():
                if server.state == "stopped":
                    self.cloud.start_server(server.id)
        self.settle()
        with self.channel() as channel:
            channel.queue_delete("maintd")
            channel.exchange_delete("openstack")

    def _publish(self, key: str, message: Json) -> None:
        for place, what in self.twist(key, message):
            self.exchange(place, what)
            self.sent += 1
        self.handed_over += 1

    # what happens in the cloud

    def make_a_migration(self) -> None:
        """A migration to ask about, before anybody listens."""
        server = next(iter(self.cloud.find_host("cmp-01").servers.values()))
        self.cloud.live_migrate(server.id, "cmp-02")
        wait_until(lambda: server.host == "cmp-02" and server.task_state is None, what="the migration to end")
        self.cloud.live_migrate(server.id, "cmp-01")
        wait_until(lambda: server.host == "cmp-01" and server.task_state is None, what="the way back to end")

    @contextmanager
    def busy(self, hosts: Collection[str] = HOSTS) -> Iterator[None]:
        """Servers of these hosts are stopped and started, again and again."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.02):
                with self.cloud.lock:
                    idle = [
                        server
                        for host in hosts
                        for server in self.cloud.find_host(host).servers.values()
                        if server.task_state is None
                    ]
                    for server in idle:
                        act = self.cloud.stop_server if server.state == "active" else self.cloud.start_server
                        act(server.id)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(10)

    def settle(self) -> None:
        """Wait until nothing is going on, and everything that was told of it is on the broker."""
        wait_until(lambda: self.cloud.next_due() is None, what="the cloud to come to rest")
        wait_until(lambda: self.handed_over == self.cloud.emitted, what="the broker to have everything")

    # what the operator does

    def change(self, group: str, **values: Any) -> None:
        """Set options of the configuration; None removes one."""
        options = self.settings.setdefault(group, {})
        options |= values
        for name in [name for name, value in options.items() if value is None]:
            del options[name]

    def write(self) -> Path:
        """The configuration as a file."""
        path = self.folder / "maintd.conf"
        text = "\n".join(
            f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())
            for group, options in self.settings.items()
        )
        path.write_text(text)
        path.chmod(0o600)
        return path

    def examine(self, listen_s: float = 0.0, **options: Any) -> Report:
        """What the doctor says, in this process."""
        return examine(load([self.write()]), Options(listen_s=listen_s, **options))

    def bus_config(self, **changes: Any) -> BusConfig:
        """The bus as a daemon of this installation has it."""
        return BusConfig(**({"name": "default", "transport_url": self.url} | changes))

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A plain AMQP channel on the virtual host, for whatever else is done there."""
        connection = amqp.Connection(f"127.0.0.1:{self.rabbit.port}", virtual_host=self.name)
        connection.connect()
        try:
            yield connection.channel()
        finally:
            connection.close()

    def queues(self) -> set[str]:
        """The names of all queues there are."""
        return {row["name"] for row in self.managed.call("GET", "queues", self.name)}

    def close(self) -> None:
        self._ends.close()
        self._queued.close()
        self.exchange.close()
        self.managed.call("DELETE", "vhosts", self.name)


def told(report: Report, check: str, level: str = "") -> list[Finding]:
    """The findings of a check, of a level or of any."""
    return [one for one in report.findings if one.check == check and (not level or one.level == level)]


def only(report: Report, check: str, level: str) -> Finding:
    """The one finding of a check and level; whatever else is wrong fails the test, which planted one fault only."""
    wrong = [one for one in report.findings if one.level in ("warning", "error")]
    assert [(one.check, str(one.level)) for one in wrong] == [(check, level)], _shown(report)
    assert wrong[0].fix, "a finding without a fix"
    return wrong[0]


def _shown(report: Report) -> str:
    return "\n".join(f"{one.level:8} {one.check} ({one.subject}): {one.text}" for one in report.findings)
