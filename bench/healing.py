"""Healing at 10,000 hosts: the bus is lost for a minute, much happens meanwhile, and then it is made up for.

A simulated Nova over real HTTP, a real broker behind a proxy that can be shut, a real daemon with a database that
knows the cloud. In the minute without a bus the daemon's queue is deleted too, as a broker that restarts would, so
that everything said in it is lost for good: servers move in every way, are made, shelved and deleted, hosts are closed,
opened and added, some drain to the end. What counts is the time from the moment the bus is heard again to `bus.healed`,
and what it asks of the API; that nothing was missed is read from the daemon's database, server by server.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]

from bench import calls, mix, support
from bench.support import EXCHANGE, Daemon, Receiver, Row, Setting, sections, tell, wait_until
from maintd.clock import ManualClock, SystemClock
from maintd.domain.model import Host, Migration, Server
from maintd.simulator import Cloud
from maintd.simulator.bus import AmqpBus, Queued
from maintd.simulator.model import Refused
from maintd.simulator.rest import RestServer
from maintd.store import open_store
from tests.support.rabbitmq import Proxy

BAR_S = 30.0
SETTLE_S = 15.0
QUEUE = "maintd-bench"
DRAINED, CLOSED, EMPTY = "drained", "closed", "empty"


def measure(setting: Setting) -> Row:
    """Lose the bus, let the cloud live on, give it back, look."""
    hosts, each, acts, blind_s = (100, 4, 30, 4.0) if setting.quick else (10_000, 20, 400, 60.0)
    settle_s = 1.0 if setting.quick else SETTLE_S
    folder = setting.folder / "healing"
    folder.mkdir(parents=True, exist_ok=True)
    database = folder / "maintd.sqlite"
    receiver = Receiver()
    with support.broker() as url, AmqpBus(url.replace("rabbit://", "amqp://"), exchange=EXCHANGE) as bus:
        publisher = Queued(bus)
        tell(f"making a cloud of {hosts} hosts and {hosts * each} servers")
        cloud = Cloud(ManualClock(SystemClock().now() - 86400.0), publisher, seed=11)
        cloud.fill(hosts, each)
        cloud.knobs.set("live_migration", mode="converge", seconds=1.0, report_s=0.5)
        mix.keep(database, cloud)
        cloud.clock = SystemClock()  # what was made so far is a day old
        rest = RestServer(cloud, threads=8).start()
        cloud.start()
        port = int(url.rstrip("/").rpartition(":")[2])
        proxy = Proxy(port)
        daemon = Daemon(
            folder,
            sections(
                database,
                receiver.url,
                transport_url=url.replace(f":{port}/", f":{proxy.port}/"),
                cloud=rest.cloud_config(),
                settle_s=settle_s,
            ),
        )
        try:
            began = SystemClock().now()
            daemon.wait_read(400.0)
            first = calls.tally(rest.api.seen, began, SystemClock().now())
            tell(f"the first reading of all of it: {first.seconds:.0f} s, {first.count} calls, {_mib(first.size)}")
            story = _Story(cloud, hosts, acts)
            story.before()
            time.sleep(2.0)
            lost_at = SystemClock().now()
            proxy.refuse()
            _delete_queue(port)
            tell(f"the bus is lost for {blind_s:g} s, its queue deleted; {acts} changes")
            story.meanwhile(blind_s)
            told = cloud.emitted
            back_at = SystemClock().now()
            proxy.accept()
            healed_at, healed = _event(receiver, "bus.healed", 240.0)
            # What was committed with `bus.healed` is what was known then; nothing in the cloud has moved since.
            differ = _differences(database, cloud)
            _, blinded = _event(receiver, "bus.blinded", 1.0)
            connected_at = max(at for at in _connected(daemon) if at <= healed_at)
            try:
                wait_until(
                    lambda: all(_emptied(receiver, h) for h in story.expected_empty), 120.0, "proofs", every_s=0.2
                )
            except TimeoutError:
                for host in story.expected_empty:
                    if not _emptied(receiver, host):
                        tell(f"{host}: {daemon.ask(f'/v1/hosts/{host}')['blockers']}")
                raise
            proven_at = max(_emptied(receiver, host) or 0.0 for host in story.expected_empty)
            later = _differences(database, cloud)
            seen = list(rest.api.seen)
        finally:
            daemon.stop()
            cloud.stop()
            rest.stop()
            proxy.close()
            publisher.close()
            receiver.close()
    load = calls.tally(seen, connected_at, healed_at)
    after = calls.tally(seen, connected_at, proven_at)
    emptied = {event["subject"] for _, event in receiver.events() if event["type"] == "maintd.host.emptied.v1"}
    wrong = sorted(emptied - story.expected_empty)
    took = healed_at - connected_at
    blind_from = blinded["data"]["blind_from"]
    tell(f"blind from {blind_from}; it was heard {connected_at - back_at:.1f} s after it could be reached again")
    tell(
        f"healed after {took:.1f} s: {load.count} calls, {_mib(load.size)}; not known then: {dict(differ) or 'nothing'}"
    )
    tell(
        f"{len(story.expected_empty)} hosts that drained meanwhile are proven after {proven_at - connected_at:.0f} s, "
        f"with {after.count} calls; not known then: {dict(later) or 'nothing'}"
    )
    for kind, count in after.kinds.items():
        tell(f"  {load.kinds.get(kind, 0):4d} to healed, {count:5d} to proven  {kind}")
    return Row(
        f"bus heard again to bus.healed at {hosts} hosts / {hosts * each} servers",
        f"<= {BAR_S:g} s, nothing missed",
        f"{took:.1f} s; {load.count} calls ({_mib(load.size)}), {after.most_in_10_s / 10:.1f}/s in any 10 s"
        + (f"; WRONG {dict(differ)} {wrong}" if differ or wrong else ""),
        took <= BAR_S and not differ and not wrong,
        {
            "healed_s": took,
            "reconnect_s": connected_at - back_at,
            "blind_s": connected_at - lost_at,
            "notifications_lost": told,
            "acts": dict(story.did),
            "to_healed": load.numbers(),
            "to_proven": after.numbers(),
            "proven_s": proven_at - connected_at,
            "proven": len(story.expected_empty),
            "differences": dict(differ),
            "first_reading": first.numbers(),
        },
    )


class _Story:
    """What happens to the cloud: a little before the bus is lost, much while it is."""

    def __init__(self, cloud: Cloud, hosts: int, acts: int) -> None:
        names = sorted(cloud.hosts)
        self._cloud, self._acts = cloud, acts
        self._chance = random.Random(11)
        few = 2 if hosts < 1_000 else 5
        self.draining, self.closed, self.reopened = names[:few], names[few : 2 * few], names[2 * few : 3 * few]
        self._rest = names[3 * few :]
        self.expected_empty = set(self.draining)
        self.did: Counter[str] = Counter()

    def before(self) -> None:
        """Some hosts are closed and begin to drain, some are closed only, while the bus still tells."""
        for host in self.draining:
            self._cloud.disable(host, "maintenance")
            for server_id in list(self._cloud.hosts[host].servers):
                self._cloud.live_migrate(server_id, self._chance.choice(self._rest))
        for host in self.reopened:
            self._cloud.disable(host, "maintenance")

    def meanwhile(self, seconds: float) -> None:
        """So many changes, spread over three quarters of the time; the last quarter is for them to end."""
        cloud = self._cloud
        for host in self.closed:
            cloud.disable(host, "maintenance")
        for host in self.reopened:
            cloud.enable(host)
        cloud.add_host("new-01", emit=True)
        acts = (self._live, self._live, self._cold, self._resize, self._delete, self._create, self._shelve)
        until = time.monotonic() + seconds
        for number in range(self._acts):
            act = acts[number % len(acts)]
            with_server = [s for s in self._chance.sample(self._rest, 3) if cloud.hosts[s].servers]
            server_id = self._chance.choice(sorted(cloud.hosts[with_server[0]].servers))
            try:
                act(server_id)
                self.did[act.__name__.strip("_")] += 1
            except Refused:
                self.did["refused"] += 1
            time.sleep(seconds * 0.75 / self._acts)
        wait_until(lambda: cloud.next_due() is None, seconds + 60.0, "the cloud has come to rest")
        time.sleep(max(0.0, until - time.monotonic()))

    def _live(self, server_id: str) -> None:
        self._cloud.live_migrate(server_id, self._chance.choice(self._rest))

    def _cold(self, server_id: str) -> None:
        self._cloud.migrate(server_id)

    def _resize(self, server_id: str) -> None:
        self._cloud.migrate(server_id, flavor="m1.medium")

    def _delete(self, server_id: str) -> None:
        self._cloud.delete(server_id)

    def _create(self, server_id: str) -> None:
        self._cloud.create(host=self._chance.choice(self._rest))

    def _shelve(self, server_id: str) -> None:
        self._cloud.shelve(server_id)


def _delete_queue(port: int) -> None:
    """What a broker that restarts does to a queue that is not durable."""
    with amqp.Connection(f"127.0.0.1:{port}", "guest", "guest") as connection:
        connection.channel().queue_delete(QUEUE)


def _differences(database: Path, cloud: Cloud) -> Counter[str]:
    """Where the daemon's knowledge, as committed, is not what the cloud is."""
    store = open_store(f"sqlite:///{database}", SystemClock())
    try:
        held: list[Any] = list(store.load_fleet())
    finally:
        store.close()
    found: Counter[str] = Counter()
    with cloud.lock:
        servers = {s.server_id: s for s in held if isinstance(s, Server) and s.deleted_at is None}
        for server in cloud.servers.values():
            known = servers.pop(server.id, None)
            if known is None:
                found["server unknown"] += 1
            elif known.host != server.host:
                found["server elsewhere"] += 1
            elif known.vm_state != server.state:
                found[f"server {server.state}, held {known.vm_state}"] += 1
        found["server gone, still held"] += len(servers)
        hosts = {h.name: h for h in held if isinstance(h, Host)}
        for host in cloud.hosts.values():
            service = hosts.pop(host.name, None)
            if service is None or service.closed != host.disabled:
                found["host unknown, or closed and open taken for one another"] += 1
        found["host gone, still held"] += len(hosts)
        open_ = {m.migration_uuid for m in held if isinstance(m, Migration) and m.open}
        holding = {
            row.uuid
            for rows in cloud.migrations_of.values()
            for row in rows
            if row.status not in ("completed", "confirmed", "reverted", "failed", "error", "cancelled")
        }
        found["migration open, not held so"] += len(holding - open_)
        found["migration over, held open"] += len(open_ - holding)
    return +found


def _event(receiver: Receiver, kind: str, timeout_s: float) -> tuple[float, dict[str, Any]]:
    def first() -> tuple[float, dict[str, Any]] | None:
        return next(((at, e) for at, e in receiver.events() if e["type"] == f"maintd.{kind}.v1"), None)

    wait_until(lambda: first() is not None, timeout_s, kind, every_s=0.2)
    found = first()
    assert found is not None
    return found


def _emptied(receiver: Receiver, host: str) -> float | None:
    events = receiver.events()
    return next((at for at, e in events if e["type"] == "maintd.host.emptied.v1" and e["subject"] == host), None)


def _connected(daemon: Daemon) -> list[float]:
    """When the daemon said that it hears the bus."""
    return [at for at, line in daemon.log() if line["event"] == "bus_state" and line["state"] == "connected"]


def _mib(size: int) -> str:
    return f"{size / support.MIB:.1f} MiB"
