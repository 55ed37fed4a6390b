"""A Nova small enough to be wrong in a hundred thousand ways: what is true, what is said of it, and what gets lost.

It keeps the truth apart from what Nova shows: `disks` and `inbound` say what is, or is about to be, on a host; rows,
allocations and notifications are what maintd can see. Its operations follow Nova's step by step, with Nova's stale
hosts. `Run` plays a random story over it, with notifications repeated, late, out of order and lost, and verification
passes and reconciles whose reads fall anywhere in between.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import count

from maintd.domain.events import Event
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Kind, Knowledge, Policy
from maintd.domain.observations import (
    BaselineCompleted,
    MigrationSeen,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    Read,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    ServicesListed,
    TimerDue,
)
from maintd.domain.reducer import reduce
from maintd.nova.notifications import Notification, normalise

API = Because("api")
RESIDUE_APART_S = 150.0
"""An evacuated server is not deleted sooner: what happens between two looks at the API, unheard, nobody can know."""


@dataclass
class ServerT:
    id: str
    host: str | None
    state: str = "active"
    task: str | None = None
    updated_at: float | None = None
    busy: bool = False
    deleted: bool = False
    evacuated_at: float | None = None


@dataclass
class Row:
    id: int
    uuid: str
    server: str
    kind: Kind
    status: str
    source: str | None
    destination: str | None
    created_at: float
    updated_at: float | None = None
    gone: bool = False


@dataclass
class HostT:
    name: str
    uuid: str
    disabled: bool = False
    forced_down: bool = False
    up: bool = True
    trait: bool = False
    flipped_at: float = -1000.0
    reason: str | None = None


@dataclass
class Nova:
    rng: random.Random
    now: float = 1_000_000.0
    hosts: dict[str, HostT] = field(default_factory=dict)
    servers: dict[str, ServerT] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    held: dict[str, set[str]] = field(default_factory=dict)
    disks: dict[str, set[str]] = field(default_factory=dict)
    inbound: dict[str, set[str]] = field(default_factory=dict)
    said: list[Notification] = field(default_factory=list)
    updates: bool = True

    def new_uuid(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def add_host(self, name: str) -> None:
        self.hosts[name] = HostT(name, self.new_uuid())
        for index in (self.held, self.disks, self.inbound):
            index[name] = set()

    def add_server(self, host: str) -> ServerT:
        server = ServerT(self.new_uuid(), host)
        self.servers[server.id] = server
        self.held[host].add(server.id)
        self.disks[host].add(server.id)
        return server

    def occupied(self, host: str) -> bool:
        return bool(self.disks[host] or self.inbound[host])

    def row(self, server: ServerT, kind: Kind, status: str, source: str, destination: str | None) -> Row:
        row = Row(len(self.rows) + 1, self.new_uuid(), server.id, kind, status, source, destination, self.now)
        self.rows.append(row)
        return row

    def set_row(self, row: Row, status: str) -> None:
        row.status, row.updated_at = status, self.now

    def save(self, server: ServerT, **changes: object) -> None:
        for name, value in changes.items():
            setattr(server, name, value)
        server.updated_at = float(int(self.now))
        if self.updates:
            self.say("instance.update", "nova-compute:ctl", server)

    def say(self, event_type: str, publisher: str, server: ServerT | None, **over: object) -> None:
        """Put a notification on the wire, with what the emitter's copy says where it differs from the row."""
        data: dict[str, object] = {}
        if server is not None:
            data = {
                "uuid": server.id,
                "tenant_id": "p1",
                "display_name": server.id[:4],
                "host": server.host,
                "node": server.host,
                "state": server.state,
                "task_state": server.task,
                "updated_at": None if server.updated_at is None else _iso(server.updated_at),
                "progress": 0,
                "request_id": None,
                "flavor": {"nova_object.data": {"flavorid": "f1"}},
                "fault": None,
            }
            if event_type == "instance.update":
                data["state_update"] = {"nova_object.data": {"state": server.state, "new_task_state": server.task}}
            if event_type.startswith("instance.resize_prep"):
                data["new_flavor"] = {"nova_object.data": {"flavorid": "f1"}}
        request = over.pop("request", None)
        data.update(over)
        self.said.append(
            Notification(
                message_id=self.new_uuid(),
                event_type=event_type,
                publisher_id=publisher,
                timestamp=self.now,
                payload={"nova_object.name": "X", "nova_object.version": "1.9", "nova_object.data": data},
                request_id=str(request) if request else None,
                received_at=self.now,
            )
        )

    def open_hosts(self, but: str | None = None) -> list[str]:
        return [h.name for h in self.hosts.values() if not (h.disabled or h.forced_down) and h.up and h.name != but]

    # -- operations: generators that yield how long each step takes ---------------------------------------------------

    def service(self, host: str, **changes: object) -> None:
        h = self.hosts[host]
        for name, value in changes.items():
            setattr(h, name, value)
        h.flipped_at = self.now
        self.say(
            "service.update", f"nova-compute:{host}", None, host=host, binary="nova-compute", disabled=h.disabled,
            disabled_reason=h.reason, forced_down=h.forced_down, uuid=h.uuid, last_seen_up=None, report_count=1,
            version=66, topic="compute", availability_zone=None,
        )  # fmt: skip
        if h.up:
            h.trait = h.disabled

    def live(self, s: ServerT) -> Iterator[float]:
        source, r = str(s.host), self.rng
        choices = self.open_hosts(source)
        request = "req-" + self.new_uuid()
        s.busy = True
        self.save(s, task="migrating")
        yield r.uniform(0.05, 0.5)
        if not choices or r.random() < 0.05:
            row = self.row(s, Kind.LIVE, "error", source, None)
            self.save(s, task=None)
            reason = {"nova_object.data": {"exception": "NoValidHost", "exception_message": "No valid host"}}
            failed = {"instance_uuid": s.id, "state": "active", "reason": reason, "request_spec": None}
            self.say("compute_task.migrate_server.error", "nova-conductor:ctl", None, **failed)
            s.busy = False
            return
        d = r.choice(choices)
        row = self.row(s, Kind.LIVE, "accepted", source, d)
        self.held[source].discard(s.id)
        self.held[source].add(row.uuid)
        self.held[d].add(s.id)
        self.inbound[d].add(s.id)
        self.set_row(row, "queued")
        yield r.uniform(0.05, 3)
        ending = r.choices(["ok", "fail", "abort", "silent"], [8, 1, 1, 1])[0]
        old = {"host": source, "task_state": "migrating", "request": request, "updated_at": _iso(s.updated_at or 0)}
        self.set_row(row, "preparing")
        self.say("instance.live_migration_pre.start", f"nova-compute:{d}", s, **old)
        yield r.uniform(0.05, 1)
        self.say("instance.live_migration_pre.end", f"nova-compute:{d}", s, **old)
        self.set_row(row, "running")
        yield r.uniform(0.5, 20)
        if ending in ("fail", "abort"):
            if ending == "abort":
                self.say("instance.live_migration_abort.start", f"nova-compute:{source}", s, **{**old, "request": None})
                self.say("instance.live_migration_abort.end", f"nova-compute:{source}", s, **{**old, "request": None})
            self.say("instance.live_migration_rollback.start", f"nova-compute:{source}", s, **old)
            yield r.uniform(0.05, 0.5)
            self.held[source].discard(row.uuid)
            self.held[source].add(s.id)
            self.held[d].discard(s.id)
            self.save(s, task=None)
            self.say("instance.live_migration_rollback.end", f"nova-compute:{source}", s, request=request)
            self.set_row(row, "failed" if ending == "fail" else "cancelled")
            self.inbound[d].discard(s.id)
        elif ending == "silent":
            self.set_row(row, "error")
            self.held[source].discard(row.uuid)
            self.held[source].add(s.id)
            self.held[d].discard(s.id)
            self.inbound[d].discard(s.id)
            self.save(s, task=None, state="error")
        else:
            self.say("instance.live_migration_post.start", f"nova-compute:{source}", s, **old)
            yield r.uniform(0.05, 1)
            self.disks[source].discard(s.id)
            self.disks[d].add(s.id)
            self.inbound[d].discard(s.id)
            self.say("instance.live_migration_post_dest.start", f"nova-compute:{d}", s, **old)
            yield r.uniform(0.05, 0.5)
            self.save(s, host=d, task=None)
            self.say("instance.live_migration_post_dest.end", f"nova-compute:{d}", s, request=request)
            yield r.uniform(0.05, 0.5)
            self.say("instance.live_migration_post.end", f"nova-compute:{source}", s, **old)
            yield r.uniform(0.01, 0.5)
            self.set_row(row, "completed")
            yield r.uniform(0.0, 1.0)
            self.held[source].discard(row.uuid)
        s.busy = False

    def cold(self, s: ServerT) -> Iterator[float]:
        source, r = str(s.host), self.rng
        choices = self.open_hosts(source)
        if not choices:
            return
        request = "req-" + self.new_uuid()
        s.busy = True
        d = r.choice(choices)
        row = self.row(s, Kind.COLD, "pre-migrating", source, None)
        self.save(s, task="resize_prep")
        self.held[source].discard(s.id)
        self.held[source].add(row.uuid)
        self.held[d].add(s.id)
        self.inbound[d].add(s.id)
        yield r.uniform(0.05, 1)
        self.say("instance.resize_prep.start", f"nova-compute:{d}", s, request=request)
        row.destination = d
        self.set_row(row, "migrating")
        self.say("instance.resize_prep.end", f"nova-compute:{d}", s, request=request)
        yield r.uniform(0.05, 0.5)
        self.save(s, task="resize_migrating")
        self.say("instance.resize.start", f"nova-compute:{source}", s, request=request)
        yield r.uniform(0.5, 5)
        self.set_row(row, "post-migrating")
        self.save(s, host=d, task="resize_migrated")
        self.say("instance.resize.end", f"nova-compute:{source}", s, request=request)
        yield r.uniform(0.05, 0.5)
        self.disks[d].add(s.id)
        self.inbound[d].discard(s.id)
        self.say("instance.resize_finish.start", f"nova-compute:{d}", s, request=request)
        yield r.uniform(0.5, 3)
        self.set_row(row, "finished")
        self.save(s, task=None, state="resized")
        self.say("instance.resize_finish.end", f"nova-compute:{d}", s, request=request)
        yield r.uniform(1, 60)
        if s.deleted:
            return
        if r.random() < 0.6 and self.hosts[source].up:
            self.set_row(row, "confirming")
            self.say("instance.resize_confirm.start", f"nova-compute:{source}", s)
            yield r.uniform(0.05, 1)
            self.disks[source].discard(s.id)
            self.set_row(row, "confirmed")
            self.save(s, state="active")
            self.say("instance.resize_confirm.end", f"nova-compute:{source}", s)
            yield r.uniform(0.0, 1)
            self.held[source].discard(row.uuid)
        elif r.random() < 0.7 and self.hosts[source].up:
            self.save(s, task="resize_reverting")
            self.set_row(row, "reverting")
            yield r.uniform(0.05, 1)
            self.disks[d].discard(s.id)
            self.set_row(row, "reverted")
            self.held[source].discard(row.uuid)
            self.held[source].add(s.id)
            yield r.uniform(0.05, 0.5)
            self.held[d].discard(s.id)
            self.say("instance.resize_revert.start", f"nova-compute:{source}", s)
            yield r.uniform(0.05, 1)
            self.save(s, host=source, task=None, state="active")
            self.say("instance.resize_revert.end", f"nova-compute:{source}", s)
        s.busy = False

    def evacuate(self, s: ServerT) -> Iterator[float]:
        source, r = str(s.host), self.rng
        choices = self.open_hosts(source)
        if not choices:
            return
        request = "req-" + self.new_uuid()
        s.busy = True
        row = self.row(s, Kind.EVACUATION, "accepted", source, None)
        self.save(s, task="rebuilding")
        self.say("instance.evacuate", "nova-api:ctl", s, request=request)
        yield r.uniform(0.05, 0.5)
        d = r.choice(choices)
        self.held[d].add(s.id)
        self.inbound[d].add(s.id)
        self.say("instance.rebuild_scheduled", f"nova-conductor:{d}", s, request=request)
        yield r.uniform(0.05, 0.5)
        row.destination = d
        self.set_row(row, "pre-migrating")
        self.say("instance.rebuild.start", f"nova-compute:{d}", s, request=request)
        yield r.uniform(0.5, 5)
        self.disks[d].add(s.id)
        self.inbound[d].discard(s.id)
        stale = {"host": source, "task_state": None, "request": request}
        self.say("instance.rebuild.end", f"nova-compute:{d}", s, **stale)
        yield r.uniform(0.05, 0.5)
        self.set_row(row, "done")
        self.save(s, host=d, task=None)
        s.evacuated_at = self.now
        s.busy = False

    def restart(self, host: str) -> Iterator[float]:
        """The dead host's nova-compute comes back: it deals with its evacuations, then with deleted servers."""
        h, r = self.hosts[host], self.rng
        yield r.uniform(1, 5)
        for row in self.rows:
            if row.kind is Kind.EVACUATION and row.source == host and row.status == "done" and not row.gone:
                self.disks[host].discard(row.server)
                self.held[host].discard(row.server)
                self.set_row(row, "completed")
                yield r.uniform(0.05, 0.5)
        h.up = True
        h.trait = h.disabled
        here = {s.id for s in self.servers.values() if s.host == host and not s.deleted}
        sources = {row.server for row in self.rows if row.source == host and row.status == "finished" and not row.gone}
        self.disks[host] &= here | sources

    def delete(self, s: ServerT) -> Iterator[float]:
        host, r = s.host, self.rng
        s.busy = True
        for row in self.rows:
            # Deleting an unconfirmed server confirms it first (facts 2.4), where the source can be reached.
            if row.server == s.id and row.status == "finished" and not row.gone and self.hosts[str(row.source)].up:
                self.disks[str(row.source)].discard(s.id)
        if host is None or not self.hosts[host].up:
            self.say("instance.delete.start", "nova-api:ctl", s)
            s.deleted = True
            self._drop_rows(s)
            if host is not None:
                self.held[host].discard(s.id)
            for held in self.held.values():
                held.discard(s.id)
            self.say("instance.delete.end", "nova-api:ctl", s, state="deleted", task_state=None)
            return
        self.save(s, task="deleting")
        self.say("instance.delete.start", f"nova-compute:{host}", s)
        yield r.uniform(0.05, 1)
        self.disks[host].discard(s.id)
        yield r.uniform(0.05, 0.5)
        s.deleted = True
        self._drop_rows(s)
        self.say("instance.delete.end", f"nova-compute:{host}", s, state="deleted", task_state=None)
        for held in self.held.values():
            held.discard(s.id)

    def _drop_rows(self, s: ServerT) -> None:
        for row in self.rows:
            if row.server == s.id:
                row.gone = True
                for held in self.held.values():
                    held.discard(row.uuid)

    def build(self) -> Iterator[float]:
        r = self.rng
        choices = self.open_hosts()
        if not choices:
            return
        d = r.choice(choices)
        s = ServerT(self.new_uuid(), None, state="building", busy=True)
        self.servers[s.id] = s
        self.held[d].add(s.id)
        self.inbound[d].add(s.id)
        yield r.uniform(0.1, 40)  # waits for a build slot
        self.say("instance.create.start", f"nova-compute:{d}", s)
        yield r.uniform(0.05, 0.5)
        self.save(s, host=d, task="spawning")
        self.disks[d].add(s.id)
        self.inbound[d].discard(s.id)
        yield r.uniform(0.5, 5)
        self.save(s, state="active", task=None)
        self.say("instance.create.end", f"nova-compute:{d}", s)
        s.busy = False

    def shelve(self, s: ServerT) -> Iterator[float]:
        host, r = str(s.host), self.rng
        s.busy = True
        self.save(s, task="shelving")
        self.say("instance.shelve.start", f"nova-compute:{host}", s)
        yield r.uniform(0.5, 3)
        self.save(s, state="shelved", task="shelving_offloading")
        self.say("instance.shelve.end", f"nova-compute:{host}", s)
        self.say("instance.shelve_offload.start", f"nova-compute:{host}", s)
        yield r.uniform(0.1, 1)
        self.disks[host].discard(s.id)
        self.held[host].discard(s.id)
        self.save(s, host=None, state="shelved_offloaded", task=None)
        self.say("instance.shelve_offload.end", f"nova-compute:{host}", s)
        yield r.uniform(1, 40)
        choices = self.open_hosts()
        if not choices or s.deleted or r.random() < 0.5:
            s.busy = False
            return
        d = r.choice(choices)
        self.held[d].add(s.id)
        self.inbound[d].add(s.id)
        yield r.uniform(0.1, 5)
        self.say("instance.unshelve.start", f"nova-compute:{d}", s)
        self.save(s, host=d, task="spawning")
        self.disks[d].add(s.id)
        self.inbound[d].discard(s.id)
        yield r.uniform(0.1, 3)
        self.save(s, state="active", task=None)
        self.say("instance.unshelve.end", f"nova-compute:{d}", s)
        s.busy = False

    # -- what the API answers now -------------------------------------------------------------------------------------

    def seen_service(self, host: str, asked_at: float) -> ServiceSeen:
        h = self.hosts[host]
        up = h.up and not h.forced_down
        return ServiceSeen(
            self.now, API, host, h.uuid, h.disabled, h.reason, h.forced_down, up, asked_at=asked_at
        )  # fmt: skip

    def seen_servers(self, host: str | None, asked_at: float) -> tuple[ServerSeen, ...]:
        return tuple(
            self.seen_server(s, asked_at)
            for s in self.servers.values()
            if not s.deleted and (host is None or s.host == host)
        )

    def seen_server(self, s: ServerT, asked_at: float) -> ServerSeen:
        updated = s.updated_at if s.updated_at is not None else self.now
        return ServerSeen(
            self.now, API, s.id, "p1", s.id[:4], s.host, s.state, s.task, updated, trusted=True, asked_at=asked_at,
            deleted=s.deleted,
        )  # fmt: skip

    def seen_rows(self, host: str | None, asked_at: float) -> tuple[MigrationSeen, ...]:
        return tuple(
            MigrationSeen(
                self.now,
                API,
                row.server,
                row.id,
                row.uuid,
                row.kind,
                row.status,
                row.source,
                row.destination,
                "p1",
                row.created_at,
                row.updated_at,
                asked_at,
            )  # fmt: skip
            for row in self.rows
            if not row.gone and (host is None or host in (row.source, row.destination))
        )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FalseEmptied(AssertionError):
    """host.emptied was said of a host that was not empty."""


class Run:
    """One random story. `play` returns the events; it raises `FalseEmptied` where one was not true."""

    def __init__(self, seed: int, *, disorder: bool = True) -> None:
        self.rng = random.Random(seed)
        self.nova = Nova(random.Random(seed + 1))
        self.disorder = disorder
        self.nova.updates = self.rng.random() < 0.7
        self.loss = self.rng.choice([0.0, 0.0, 0.05, 0.3]) if disorder else 0.0
        self.late = self.rng.choice([0.0, 0.1, 0.4]) if disorder else 0.0
        self.twice = self.rng.choice([0.0, 0.2]) if disorder else 0.0
        self.policy = Policy(has_cloud=True, settle_s=15.0, leftover_grace_s=120.0)
        self.fleet = Fleet(self.policy)
        self.numbers = count(1)
        self.events: list[tuple[float, Event]] = []
        self.queue: list[tuple[float, int, str, object]] = []
        self.order = count()
        self.handled: set[str] = set()
        self.emptied = 0
        self.looking_at: float | None = None

    def at(self, delay_s: float, what: str, value: object = None) -> None:
        heapq.heappush(self.queue, (self.nova.now + delay_s, next(self.order), what, value))

    def admit(self, *observations: Observation) -> None:
        for observation in observations:
            outcome = reduce(self.fleet, observation, lambda: f"{next(self.numbers)}")
            self.fleet.apply(outcome)
            for event in outcome.events:
                self.events.append((self.nova.now, event))
                if event.TYPE == "host.emptied":
                    self.emptied += 1
                    host = event.host  # type: ignore[attr-defined]
                    if self.nova.occupied(host):
                        on_it = f"disks {self.nova.disks[host]}, inbound {self.nova.inbound[host]}"
                        raise FalseEmptied(f"{host} at {self.nova.now}: {on_it}")

    def publish(self) -> None:
        for n in self.nova.said:
            if self.rng.random() < self.loss:
                continue
            delay = self.rng.uniform(0.001, 0.05)
            if self.rng.random() < self.late:
                delay = self.rng.uniform(0.05, 25.0)
            self.at(delay, "deliver", n)
            if self.rng.random() < self.twice:
                self.at(delay + self.rng.uniform(0, 10), "again", n)
        self.nova.said.clear()

    def step(self, operation: Iterator[float]) -> None:
        try:
            delay = next(operation)
        except StopIteration:
            return
        self.at(delay, "step", operation)

    def baseline(self) -> None:
        nova, now = self.nova, self.nova.now
        self.fleet.put(Knowledge(memory_since=now))
        hosts = list(nova.hosts)
        self.admit(*(nova.seen_service(h, now) for h in hosts))
        self.admit(ServicesListed(now, API, now, frozenset(hosts)))
        self.admit(*(NodesSeen(now, API, h, (f"node-{h}",)) for h in hosts))
        servers = nova.seen_servers(None, now)
        self.admit(*servers, ServersListed(now, API, now, None, frozenset(s.server_id for s in servers)))
        self.admit(*nova.seen_rows(None, now), BaselineCompleted(now, API, now))

    def play(self, seconds: float = 240.0) -> list[tuple[float, Event]]:
        nova, rng = self.nova, self.rng
        for name in ("h1", "h2", "h3"):
            nova.add_host(name)
        for _ in range(rng.randint(0, 3)):
            nova.add_server("h1")
        if rng.random() < 0.3:
            nova.add_server("h2")
        self.baseline()
        self.acts_until = nova.now + seconds
        end = nova.now + seconds + 200.0
        for _ in range(rng.randint(3, 9)):
            self.at(rng.uniform(0, seconds * 0.6), "act")
        self.at(rng.uniform(0, 20), "close", "h1")
        self.at(30, "reconcile")
        while self.queue and self.queue[0][0] <= end:
            at, _, what, value = heapq.heappop(self.queue)
            while (due := self.fleet.next_due()) is not None and due <= at:
                taken = self.fleet.take_due(due)
                assert taken is not None
                nova.now = max(nova.now, due)
                self.admit(TimerDue(taken[0], subject=taken[1]))
            nova.now = max(nova.now, at)
            getattr(self, f"do_{what}")(value)
            self.publish()
            for host in self.fleet.verify_due(nova.now):
                self.at(rng.uniform(0.0, 0.3), "verify", host)
                held = self.fleet.verification(host)
                assert held is not None
                self.fleet.put(replace(held, verify_at=None, begun_at=nova.now, pass_number=held.pass_number + 1))
            wanted = self.fleet.next_verify_at()
            if wanted is not None and wanted != self.looking_at:
                self.looking_at = wanted
                self.at(max(0.0, wanted - nova.now), "look")
        return self.events

    # -- what happens -------------------------------------------------------------------------------------------------

    def missed(self) -> list[str]:
        """Hosts that are closed and really empty, with nothing in the way, and were not found so."""
        out = []
        for name, h in self.nova.hosts.items():
            known = self.fleet.host(name)
            closed_long = (h.disabled or h.forced_down) and self.nova.now - h.flipped_at > 150
            if not closed_long or self.nova.occupied(name) or self.nova.held[name] or known is None:
                continue
            if any(row.status == "finished" and row.source == name and not row.gone for row in self.nova.rows):
                continue
            if any(s.busy for s in self.nova.servers.values()) or self.fleet.residue_on(name):
                continue
            if h.disabled and h.up and not h.trait:
                continue
            if not known.emptied:
                out.append(name)
        return out

    def do_look(self, _: object) -> None:
        return

    def do_step(self, operation: object) -> None:
        self.step(operation)  # type: ignore[arg-type]

    def do_deliver(self, n: object) -> None:
        assert isinstance(n, Notification)
        if n.message_id in self.handled:
            return
        self.handled.add(n.message_id)
        self.admit(*normalise(replace(n, received_at=self.nova.now)))

    def do_again(self, n: object) -> None:
        """A repetition that even carries another id."""
        assert isinstance(n, Notification)
        self.admit(*normalise(replace(n, received_at=self.nova.now)))

    def do_close(self, host: object) -> None:
        assert isinstance(host, str)
        h = self.nova.hosts[host]
        if h.disabled or h.forced_down or self.nova.now - h.flipped_at < 30:
            return
        if self.rng.random() < 0.25:
            h.up = False
            self.nova.service(host, forced_down=True)
            for s in self.nova.servers.values():
                if s.host == host and not s.busy:
                    self.at(self.rng.uniform(1, 30), "evacuate", s)
            if self.rng.random() < 0.5:
                self.at(self.rng.uniform(60, 200), "restart", host)
        else:
            self.nova.service(host, disabled=True, reason=self.rng.choice(["maintenance", "quarantine"]))
            for s in list(self.nova.servers.values()):
                if s.host == host and not s.busy and self.rng.random() < 0.9:
                    self.at(self.rng.uniform(0, 20), "leave", s)

    def do_evacuate(self, s: object) -> None:
        assert isinstance(s, ServerT)
        active = s.state in ("active", "error")  # Nova evacuates no other
        if s.host and active and not s.busy and not s.deleted and not self.nova.hosts[s.host].up:
            self.step(self.nova.evacuate(s))

    def do_restart(self, host: object) -> None:
        assert isinstance(host, str)
        self.step(self.nova.restart(host))

    def do_leave(self, s: object) -> None:
        assert isinstance(s, ServerT)
        if s.busy or s.deleted or s.host is None or not self.nova.hosts[s.host].up or s.state != "active":
            return
        way = self.rng.choices([self.nova.live, self.nova.cold, self.nova.delete, self.nova.shelve], [5, 2, 2, 1])[0]
        self.step(way(s))

    def do_act(self, _: object) -> None:
        nova, rng = self.nova, self.rng
        if nova.now > self.acts_until:
            return
        idle = [s for s in nova.servers.values() if not s.busy and not s.deleted]
        what = rng.choice(["build", "leave", "delete", "open", "close", "build"])
        if what == "build":
            self.step(nova.build())
        elif what == "close":
            self.do_close(rng.choice(list(nova.hosts)))
        elif what == "open":
            h = rng.choice(list(nova.hosts.values()))
            if h.disabled and h.up and nova.now - h.flipped_at > 30:
                nova.service(h.name, disabled=False, reason=None)
        elif idle:
            s = rng.choice(idle)
            if what == "leave":
                self.do_leave(s)
            elif s.evacuated_at is None or nova.now - s.evacuated_at > RESIDUE_APART_S:
                self.step(nova.delete(s))

    def do_reconcile(self, _: object) -> None:
        """What the daemon does for closed hosts every minute: services, servers of the host, rows of the host."""
        nova, asked_at = self.nova, self.nova.now
        if self.rng.random() < 0.9 or not self.disorder:
            self.admit(*(nova.seen_service(h, asked_at) for h in nova.hosts))
            for host in sorted(self.fleet.closed_hosts()):
                servers = nova.seen_servers(host, asked_at)
                ids = frozenset(s.server_id for s in servers)
                self.admit(*servers, ServersListed(nova.now, API, asked_at, host, ids))
                self.admit(*nova.seen_rows(host, asked_at))
        self.at(20, "reconcile")

    def do_verify(self, host: object) -> None:
        assert isinstance(host, str)
        held = self.fleet.verification(host)
        if held is None:
            return
        number = held.pass_number
        self.admit(PassBegun(self.nova.now, API, host, number))
        self.at(self.rng.uniform(0.01, 0.2), "read", (host, number, 0))

    def do_read(self, value: object) -> None:
        """One read of a pass, at this moment, of what is true at this moment."""
        host, number, index = value  # type: ignore[misc]
        nova, now = self.nova, self.nova.now
        error = "503" if self.disorder and self.rng.random() < 0.02 else None
        node = f"node-{host}"
        reads: list[tuple[Read, str | None, tuple[object, ...]]] = []
        rows = nova.seen_rows(host, now)
        listed = nova.seen_servers(host, now)
        consumers = tuple(sorted(nova.held[host]))
        h = nova.hosts[host]
        if index == 0:
            reads = [(Read.MIGRATIONS, None, rows)]
        elif index == 1:
            reads = [(Read.HYPERVISOR, node, tuple(s.server_id for s in listed))]
        elif index == 2:
            reads = [(Read.SERVERS, None, listed)]
        elif index == 3:
            reads = [(Read.PROVIDERS, node, (node,))]
        elif index == 4:
            reads = [(Read.ALLOCATIONS, node, consumers)]
            for consumer in consumers:
                s = nova.servers.get(consumer)
                if s is not None:
                    reads.append((Read.CONSUMER, consumer, (nova.seen_server(s, now),)))
        elif index == 5:
            reads = [(Read.TRAITS, node, ("COMPUTE_STATUS_DISABLED",) if h.trait else ())]
        elif index == 6:
            reads = [(Read.MIGRATIONS, None, rows)]
        else:
            reads = [(Read.SERVICE, None, (nova.seen_service(host, now),))]
        for read, target, found in reads:
            facts = tuple(o for o in found if isinstance(o, (ServerSeen, MigrationSeen, ServiceSeen)))
            if error is None:
                self.admit(*facts)
                if read is Read.SERVERS:
                    ids = frozenset(s.server_id for s in listed)
                    self.admit(ServersListed(now, API, now, host, ids))
            self.admit(
                PassRead(
                    now, API, host, number, read, now, target, found if error is None else (), error is None, error
                )
            )
        if index < 7 and error is None:
            self.at(self.rng.uniform(0.01, 0.3), "read", (host, number, index + 1))
