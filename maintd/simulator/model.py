"""A small cloud: hosts, servers, migrations and allocations that change in Nova's order and say so in Nova's words.

Each operation is a generator that does what Nova's processes do, step by step: saves, notifications and allocation
changes, with `yield seconds` where Nova would take time. The steps stand in an event queue and are run by `advance`
(a manual clock, the same seed gives the same bytes) or by the thread of `start` (the machine's clock).

Stale hosts are not written by hand. Every Nova process works on its own copy of the Instance object, passes it on in
its RPC calls, and gets it refreshed only by its own saves; so does every step here (`_load`, `_save`, `replace`). That
alone gives `live_migration_post.end` with the host the server has left, and `updated_at` one save behind.

What it is not: no network, no volumes, no cells (a down cell is pretended), no retries by the scheduler, no crash of a
destination in mid-move. Times between steps are constants near those measured on a real Nova (`Timing`).
"""

from __future__ import annotations

import bisect
import hashlib
import heapq
import random
import threading
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from maintd.clock import Clock, ManualClock
from maintd.errors import MaintdError
from maintd.simulator import notifications as wire
from maintd.simulator.notifications import Copy, Flavor, Request

Publish = Callable[[str, wire.Json], None]
Steps = Generator["float | Slots", None, None]

IN_PROGRESS = frozenset({
    "accepted", "queued", "preparing", "running", "running (post-copy)", "pre-migrating", "migrating",
    "post-migrating", "confirming", "reverting"})
OCCUPYING = IN_PROGRESS | {"finished"}

_COPIED = ("host", "state", "task_state", "power_state", "progress", "availability_zone", "updated_at", "launched_at",
           "terminated_at", "deleted_at", "locked")


class Refused(MaintdError):
    """The API says no. `status` is the HTTP status, `kind` the name of the body's only key."""

    KINDS = {400: "badRequest", 403: "forbidden", 404: "itemNotFound", 409: "conflictingRequest", 500: "computeFault",
             503: "computeFault"}

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = self.KINDS.get(status, "computeFault")


class Server:
    """A row of `instances`. Without `__dict__`: a benchmark holds 200,000 of them."""

    __slots__ = ("id", "seq", "name", "project_id", "user_id", "flavor", "created_at", *_COPIED)

    def __init__(self, id: str, seq: int, name: str, project_id: str, user_id: str, flavor: Flavor,
                 created_at: float) -> None:
        self.id = id
        self.seq = seq
        self.name = name
        self.project_id = project_id
        self.user_id = user_id
        self.flavor = flavor
        self.created_at = created_at
        self.host: str | None = None
        self.state = "building"
        self.task_state: str | None = "scheduling"
        self.power_state = "pending"
        self.progress = 0
        self.availability_zone: str | None = "nova"
        self.updated_at: float | None = None
        self.launched_at: float | None = None
        self.terminated_at: float | None = None
        self.deleted_at: float | None = None
        self.locked = False


@dataclass(slots=True, eq=False)
class Migration:
    """A row of `migrations`. The byte counters stay None until the first progress is written."""

    id: int
    uuid: str
    server: Server
    kind: str
    status: str
    source: str | None
    created_at: float
    old_flavor: Flavor
    new_flavor: Flavor
    destination: str | None = None
    source_node: str | None = None
    destination_node: str | None = None
    updated_at: float | None = None
    memory_total: int | None = None
    memory_processed: int | None = None
    memory_remaining: int | None = None
    disk_total: int | None = None
    disk_processed: int | None = None
    disk_remaining: int | None = None
    was_state: str = "active"


@dataclass(slots=True, eq=False)
class Provider:
    """A resource provider. `allocations` maps a consumer (server or migration uuid) to the flavor it holds."""

    uuid: str
    name: str
    root: str
    parent: str | None = None
    generation: int = 1
    traits: set[str] = field(default_factory=set)
    allocations: dict[str, Flavor] = field(default_factory=dict)


class Slots:
    """So many may work at once; the others wait in the order they came."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.busy: set[_Process] = set()
        self.waiting: deque[_Process] = deque()


@dataclass(slots=True, eq=False)
class Host:
    """A compute service with its one compute node and the servers that say they are on it."""

    name: str
    seq: int
    node: str
    service_id: str
    provider: Provider
    live: Slots
    builds: Slots
    servers: dict[str, Server] = field(default_factory=dict)
    children: list[Provider] = field(default_factory=list)
    residue: set[str] = field(default_factory=set)
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    killed_at: float | None = None
    changed_at: float = 0.0
    in_down_cell: bool = False
    zone: str = "nova"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long Nova's steps take, in seconds, and the options of Nova that decide what it does."""

    step_s: float = 0.05
    rpc_s: float = 0.2
    schedule_s: float = 0.3
    tick_s: float = 0.5
    report_interval_s: float = 10.0
    service_down_time_s: float = 60.0
    concurrent_live_migrations: int = 1
    concurrent_builds: int = 10
    reclaim_interval_s: float = 0.0
    shelved_offload_s: float = 0.0
    shared_storage: bool = True
    notify_on_state_change: bool = True


class _Process:
    __slots__ = ("steps", "server_id", "hosts", "dead", "slots", "waits_for")

    def __init__(self, steps: Steps, server_id: str, hosts: tuple[str, ...]) -> None:
        self.steps = steps
        self.server_id = server_id
        self.hosts = hosts
        self.dead = False
        self.slots: Slots | None = None
        self.waits_for: Slots | None = None


@dataclass(slots=True)
class _LiveJob:
    """What the operator can do to a live migration while the driver runs it."""

    migration: Migration
    process: _Process | None = None
    copy: Copy | None = None
    phase: str = "accepted"
    abort: bool = False
    force: bool = False


class Knobs:
    """How operations go: `mode`, `seconds`, `fail`, `floor`, `report_s`, set for all, for a host or for a server.

    Operations: spawn, destroy, snapshot, migrate_disk, finish_migration, confirm, pre_live_migration, live_migration,
    post_at_destination. A live migration takes a mode, read again at each tick so that a stuck one can be freed:
    `converge` and `slow` fall evenly to nothing in `seconds`; `stuck` falls to `floor` and then nothing moves, though
    the unchanged numbers are still written (so `instance.update` still comes); `silent` writes nothing any more;
    `diverge` falls and climbs for ever while the bytes processed grow; `fail` rolls back after `seconds`; `error`
    raises out of the driver after `seconds`.
    """

    def __init__(self) -> None:
        self._default: dict[str, dict[str, Any]] = {}
        self._hosts: dict[str, dict[str, dict[str, Any]]] = {}
        self._servers: dict[str, dict[str, dict[str, Any]]] = {}

    def set(self, operation: str, *, host: str | None = None, server: str | None = None, **options: Any) -> None:
        """Replace the options of an operation; a server (id or name) wins over a host, a host over the default."""
        if server is not None:
            self._servers.setdefault(server, {})[operation] = options
        elif host is not None:
            self._hosts.setdefault(host, {})[operation] = options
        else:
            self._default[operation] = options

    def clear(self) -> None:
        """Back to everything working at once."""
        self._default.clear()
        self._hosts.clear()
        self._servers.clear()

    def of(self, operation: str, host: str | None, server: Server) -> dict[str, Any]:
        merged = dict(self._default.get(operation, ()))
        for layer in (self._hosts.get(host or ""), self._servers.get(server.name), self._servers.get(server.id)):
            if layer:
                merged.update(layer.get(operation, {}))
        return merged


class Cloud:
    """The whole of it. Every public method takes the lock; `publish` is called under it, so order is kept.

    `clock` decides the time outside of steps; a step's own time is when it was due. With a `ManualClock`, `advance`
    moves the clock along with the steps.
    """

    def __init__(self, clock: Clock, publish: Publish | None = None, *, seed: int = 1,
                 timing: Timing | None = None, controller: str = "ctl-01") -> None:
        self.clock = clock
        self.timing = timing or Timing()
        self.controller = controller
        self.knobs = Knobs()
        self.lock = threading.RLock()
        self._publish = publish
        self._random = random.Random(seed)
        self._wake = threading.Condition(self.lock)
        self._queue: list[tuple[float, int, _Process | Callable[[], None]]] = []
        self._order = 0
        self._at: float | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.emitted = 0
        self.hosts: dict[str, Host] = {}
        self.hosts_by_provider: dict[str, Host] = {}
        self.hosts_by_service: dict[str, Host] = {}
        self.servers: dict[str, Server] = {}
        self.all_servers: list[Server] = []
        self.deleted: dict[str, Server] = {}
        self.migrations: dict[int, Migration] = {}
        self.migrations_of: dict[str, list[Migration]] = {}
        self._live_jobs: dict[int, _LiveJob] = {}
        self._processes: dict[_Process, None] = {}  # a dict for its order: the same seed, the same bytes
        self._requests = 0
        self.admin_user = self.new_uuid().replace("-", "")
        self.admin_project = self.new_uuid().replace("-", "")
        self.image_id = self.new_uuid()
        self.flavors: dict[str, Flavor] = {}
        for row, (name, memory, disk, cpus) in enumerate(
                (("m1.tiny", 256, 1, 1), ("m1.small", 1024, 5, 1), ("m1.medium", 2048, 10, 2),
                 ("m1.large", 8192, 40, 4)), 1):
            self.flavors[name] = Flavor(self.new_uuid(), name, memory, disk, cpus, row)
        self.started_at = clock.now()
        self.control_services = [("nova-scheduler", controller, self.new_uuid()),
                                 ("nova-conductor", controller, self.new_uuid())]

    # ids and time

    def new_uuid(self) -> str:
        """The next uuid that the seed gives."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def new_request(self, *, periodic: bool = False) -> Request:
        """A request of the administrator, or one of Nova's own timers."""
        return Request(f"req-{self.new_uuid()}", self.admin_user, self.admin_project, periodic)

    def now(self) -> float:
        """The time of the step that is running; between steps, the clock's."""
        return self.clock.now() if self._at is None else self._at

    # the event queue

    def call_later(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something of the caller's own so many seconds from now, among Nova's steps."""
        with self.lock:
            self._push(self.now() + delay_s, action)

    def next_due(self) -> float | None:
        """When the next step is due; None when nothing is going on."""
        with self.lock:
            return self._queue[0][0] if self._queue else None

    def advance(self, to: float | None = None) -> int:
        """Run every step due until `to` (by default the clock's time), in order. Returns how many were run.

        A manual clock is moved along, and stands at `to` afterwards.
        """
        manual = self.clock if isinstance(self.clock, ManualClock) else None
        with self.lock:
            end = self.clock.now() if to is None else to
            ran = 0
            while self._queue and self._queue[0][0] <= end:
                at, _, what = heapq.heappop(self._queue)
                if manual is not None:
                    manual.move_to(at)
                self._at = at
                try:
                    if isinstance(what, _Process):
                        self._step(what)
                    else:
                        what()
                finally:
                    self._at = None
                ran += 1
            if manual is not None:
                manual.move_to(end)
            return ran

    def settle(self, limit_s: float = 3600.0) -> float:
        """Manual clock only: advance until nothing is going on, or so many seconds have passed. Returns the time."""
        end = self.clock.now() + limit_s
        while (due := self.next_due()) is not None and due <= end:
            self.advance(due)
        return self.clock.now()

    def start(self) -> None:
        """Run the steps on a thread, each when the clock says it is due."""
        if self._thread is None:
            self._stopping = False
            self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the thread of `start`; steps still waiting stay in the queue."""
        thread = self._thread
        if thread is not None:
            with self._wake:
                self._stopping = True
                self._wake.notify_all()
            thread.join(10.0)
            self._thread = None

    def _run(self) -> None:
        with self._wake:
            while not self._stopping:
                self.advance()
                wait = None if not self._queue else self._queue[0][0] - self.clock.now()
                if wait is None or wait > 0:
                    self._wake.wait(wait)

    def _push(self, at: float, what: _Process | Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (at, self._order, what))
        self._wake.notify_all()

    def _go(self, server: Server, steps: Steps, *hosts: str | None) -> _Process:
        """Begin an operation. What is sent to a compute that is dead, known or not, is lost."""
        process = _Process(steps, server.id, tuple(host for host in hosts if host is not None))
        if any(self.hosts[host].killed_at is not None for host in process.hosts):
            process.dead = True
            steps.close()
        else:
            self._processes[process] = None
            self._push(self.now(), process)
        return process

    def _works_on(self, server: Server, host: str) -> None:
        """From here on the server's operation depends on this host's compute too, and stops when that is killed."""
        for process in self._processes:
            if process.server_id == server.id:
                process.hosts = (*process.hosts, host)

    def _step(self, process: _Process) -> None:
        if process.dead:
            return
        try:
            answer = next(process.steps)
        except StopIteration:
            self._end(process)
            return
        if isinstance(answer, Slots):
            if len(answer.busy) < answer.limit:
                self._take(answer, process)
            else:
                answer.waiting.append(process)
                process.waits_for = answer
        else:
            self._push(self.now() + answer, process)

    def _take(self, slots: Slots, process: _Process) -> None:
        slots.busy.add(process)
        process.slots, process.waits_for = slots, None
        self._push(self.now(), process)

    def _end(self, process: _Process) -> None:
        process.dead = True
        self._processes.pop(process, None)
        if process.waits_for is not None:
            process.waits_for.waiting.remove(process)
        process.steps.close()
        slots = process.slots
        if slots is not None:
            slots.busy.discard(process)
            while slots.waiting and len(slots.busy) < slots.limit:
                self._take(slots, slots.waiting.popleft())

    # building the cloud

    def add_host(self, name: str, *, emit: bool = False, zone: str = "nova") -> Host:
        """A new compute with its node and resource provider; `emit` says so with `service.create`."""
        with self.lock:
            if name in self.hosts:
                raise Refused(409, f"Service with host {name} binary nova-compute exists.")
            node = f"{name}.sim.test"
            provider_id = self.new_uuid()
            host = Host(name, len(self.hosts) + 1, node, self.new_uuid(),
                        Provider(provider_id, node, provider_id, traits={"COMPUTE_NODE", "OWNER_NOVA"}),
                        Slots(self.timing.concurrent_live_migrations), Slots(self.timing.concurrent_builds), zone=zone)
            host.changed_at = self.now()
            self.hosts[name] = host
            self.hosts_by_provider[provider_id] = host
            self.hosts_by_service[host.service_id] = host
            if emit:
                self._emit_service(host, "service.create", self.new_request(periodic=True))
            return host

    def add_server(self, host: str, name: str | None = None, *, flavor: str = "m1.small", state: str = "active",
                   project_id: str | None = None) -> Server:
        """A server that has been there all along: no notifications, allocation in place, row never updated since."""
        with self.lock:
            server = self._new_server(name, self.flavors[flavor], project_id or self.admin_project, self.admin_user)
            server.state = state
            server.task_state = None
            server.power_state = "running" if state in ("active", "resized") else "shutdown"
            server.launched_at = server.updated_at = self.now()
            self._place(server, host)
            self._allocate(self.hosts[host], server.id, server.flavor)
            return server

    def fill(self, host_count: int, servers_per_host: int, *, prefix: str = "cmp", projects: int = 10) -> None:
        """Many hosts and servers at once, for benchmarks: nothing is emitted."""
        with self.lock:
            ids = [self.new_uuid().replace("-", "") for _ in range(projects)]
            width = max(2, len(str(host_count)))
            for number in range(1, host_count + 1):
                name = f"{prefix}-{number:0{width}d}"
                self.add_host(name)
                for index in range(servers_per_host):
                    self.add_server(name, f"{name}-s{index + 1}", project_id=ids[index % projects])

    def _new_server(self, name: str | None, flavor: Flavor, project_id: str, user_id: str) -> Server:
        seq = len(self.all_servers) + 1
        server = Server(self.new_uuid(), seq, name or f"server-{seq}", project_id, user_id, flavor, self.now())
        self.servers[server.id] = server
        self.all_servers.append(server)
        return server

    # looking things up

    def find_server(self, server_id: str) -> Server:
        """The living server of this id. Raises `Refused` 404."""
        server = self.servers.get(server_id)
        if server is None:
            raise Refused(404, f"Instance {server_id} could not be found.")
        return server

    def find_host(self, name: str) -> Host:
        """The host of this name. Raises `Refused` 404."""
        host = self.hosts.get(name)
        if host is None:
            raise Refused(404, f"Compute host {name} could not be found.")
        return host

    def node_of(self, host: str | None) -> str | None:
        known = self.hosts.get(host) if host is not None else None
        return None if known is None else known.node

    def last_seen(self, host: Host) -> float:
        """The last heartbeat: computed, not scheduled, so that ten thousand hosts cost nothing."""
        interval = self.timing.report_interval_s
        until = self.now() if host.killed_at is None else host.killed_at
        phase = (host.seq * 0.7) % interval
        return (until - phase) // interval * interval + phase

    def is_up(self, host: Host) -> bool:
        """What Nova says of the service: not forced down, and heard of within service_down_time."""
        return not host.forced_down and self.now() - self.last_seen(host) <= self.timing.service_down_time_s

    def physically_on(self, host: str) -> set[str]:
        """Ids of all servers with something on the host's disk or memory, API or not: the truth to hold proofs to."""
        with self.lock:
            here = set(self.hosts[host].servers) | self.hosts[host].residue
            for migrations in self.migrations_of.values():
                for row in migrations:
                    if host in (row.source, row.destination) and row.status in OCCUPYING:
                        here.add(row.server.id)
            return here

    def page_of_servers(self, marker: str | None, newest_first: bool = True) -> Iterator[Server]:
        """All rows ever, newest first, from behind the marker on. Raises `Refused` 400 for an unknown marker."""
        position = len(self.all_servers)
        if marker is not None:
            known = self.servers.get(marker) or self.deleted.get(marker)
            if known is None:
                raise Refused(400, f"marker [{marker}] not found")
            position = bisect.bisect_left(self.all_servers, known.seq, key=lambda row: row.seq)
        for index in range(position - 1, -1, -1):
            yield self.all_servers[index]

    def host_id(self, project_id: str, host: str | None) -> str:
        """The opaque host id that a project is shown."""
        return "" if host is None else hashlib.sha224(f"{project_id}{host}".encode()).hexdigest()

    # rows, copies, allocations

    def _place(self, server: Server, host: str | None) -> None:
        if server.host is not None and server.host in self.hosts:
            self.hosts[server.host].servers.pop(server.id, None)
        server.host = host
        if host is not None:
            self.hosts[host].servers[server.id] = server

    def _load(self, server: Server) -> Copy:
        """A fresh Instance object, as a process gets it that reads the database."""
        copy = Copy(server.id, server.seq, server.name, server.project_id, server.user_id, server.flavor,
                    self.image_id, f"r-{server.id[:8]}", server.created_at)
        self._refresh(copy, server)
        return copy

    def _refresh(self, copy: Copy, server: Server) -> None:
        for name in _COPIED:
            setattr(copy, name, getattr(server, name))
        copy.flavor = server.flavor
        copy.node = self.node_of(server.host)

    def _save(self, server: Server, copy: Copy, request: Request, *, publisher: str | None = None,
              quiet: bool = False, **changes: Any) -> None:
        """`Instance.save()`: change the row, refresh the copy, and tell with `instance.update`.

        The copy's `updated_at` is the row's as it was before this save, because Nova reads it before the database
        has set the new one; and where there was no task state, its message gives the new one as the old one too.
        """
        old_state, old_task, old_updated = server.state, server.task_state, server.updated_at
        if "host" in changes:
            self._place(server, changes.pop("host"))
        for name, value in changes.items():
            setattr(server, name, value)
        server.updated_at = self.now()
        self._refresh(copy, server)
        copy.updated_at = old_updated
        if quiet or not self.timing.notify_on_state_change:
            return
        self._emit("instance.update", publisher or f"nova-compute:{self.controller}",
                   wire.instance_update(copy, request, old_state, old_task or server.task_state, self.now()), request)

    def _allocate(self, host: Host, consumer: str, flavor: Flavor) -> None:
        host.provider.allocations[consumer] = flavor
        host.provider.generation += 1

    def _free(self, host: str | None, consumer: str) -> None:
        known = self.hosts.get(host) if host is not None else None
        if known is not None:
            for provider in (known.provider, *known.children):
                if provider.allocations.pop(consumer, None) is not None:
                    provider.generation += 1

    def _hold_by_migration(self, migration: Migration) -> None:
        """The source's share goes over to the migration's uuid, as the conductor does before it schedules."""
        host = self.hosts[migration.source or ""]
        self._free(host.name, migration.server.id)
        self._allocate(host, migration.uuid, migration.old_flavor)

    def _give_back(self, migration: Migration) -> None:
        """A move that did not happen: the source's share is the server's again, the destination's is freed."""
        if migration.destination is not None:
            self._free(migration.destination, migration.server.id)
        self._free(migration.source, migration.uuid)
        self._allocate(self.hosts[migration.source or ""], migration.server.id, migration.old_flavor)

    def _new_migration(self, server: Server, kind: str, status: str, new_flavor: Flavor | None = None) -> Migration:
        row = Migration(len(self.migrations) + 1, self.new_uuid(), server, kind, status, server.host, self.now(),
                        server.flavor, new_flavor or server.flavor, was_state=server.state)
        self.migrations[row.id] = row
        self.migrations_of.setdefault(server.id, []).append(row)
        return row

    def _row(self, row: Migration, **changes: Any) -> None:
        for name, value in changes.items():
            setattr(row, name, value)
        if "destination" in changes:
            row.destination_node = self.node_of(row.destination)
            row.source_node = self.node_of(row.source)
        row.updated_at = self.now()

    # telling

    def _emit(self, event_type: str, publisher: str, payload: wire.Json, request: Request,
              priority: str = "INFO") -> None:
        self.emitted += 1
        message_id = self.new_uuid()
        if self._publish is None:
            return
        self._publish(f"{wire.TOPIC}.{priority.lower()}", wire.inner_message(
            message_id=message_id, unique_id=self.new_uuid().replace("-", ""), publisher_id=publisher,
            event_type=event_type, priority=priority, payload=payload, at=self.now(), request=request))

    def _act(self, event: str, host: str, copy: Copy, request: Request) -> None:
        """`instance.<event>` from a compute."""
        self._emit(f"instance.{event}", f"nova-compute:{host}", wire.instance_action(copy, request), request)

    def _exists(self, host: str, copy: Copy, request: Request) -> None:
        self._emit("instance.exists", f"nova-compute:{host}", wire.instance_exists(copy, request, self.now()), request)

    def _exception(self, host: str, request: Request, message: str, function: str) -> None:
        self._emit("compute.exception", f"nova-compute:{host}",
                   wire.exception_payload("NovaException", message, module="nova.virt.simulator", function=function),
                   request, "ERROR")

    def _emit_service(self, host: Host, event: str, request: Request) -> None:
        seen = self.last_seen(host)
        self._emit(event, f"nova-compute:{host.name}", wire.service_status(
            host=host.name, binary="nova-compute", uuid=host.service_id, disabled=host.disabled,
            disabled_reason=host.disabled_reason, forced_down=host.forced_down, last_seen_up=seen,
            report_count=max(0, int((seen - self.started_at) // self.timing.report_interval_s))), request)

    # scheduling

    def _schedule(self, copy: Copy, request: Request, wanted: str | None,
                  avoid: Iterable[str | None] = ()) -> Host | None:
        """The scheduler's choice: up, enabled, without the disabled trait, the emptiest; None for no valid host."""
        publisher = f"nova-scheduler:{self.controller}"
        payload = wire.request_spec(copy, wanted)
        self._emit("scheduler.select_destinations.start", publisher, payload, request)
        avoided = set(avoid)
        names = self.hosts if wanted is None else [wanted]
        best: Host | None = None
        for name in names:
            host = self.hosts.get(name)
            if (host is None or name in avoided or host.disabled or not self.is_up(host)
                    or "COMPUTE_STATUS_DISABLED" in host.provider.traits):
                continue
            if best is None or len(host.provider.allocations) < len(best.provider.allocations):
                best = host
        if best is not None:
            self._emit("scheduler.select_destinations.end", publisher, payload, request)
        return best

    def _no_valid_host(self, task: str, server: Server, copy: Copy, request: Request) -> None:
        reason = wire.exception_payload("NoValidHost_Remote", "No valid host was found. "
                                        "There are not enough hosts available.",
                                        module="oslo_messaging._drivers.amqpdriver", function="_send")
        self._emit(f"compute_task.{task}.error", f"nova-conductor:{self.controller}",
                   wire.compute_task(copy, server.state, reason), request, "ERROR")

    # services

    def set_service(self, host_name: str, request: Request | None = None, *, disabled: bool | None = None,
                    reason: str | None = None, forced_down: bool | None = None) -> Host:
        """Enable, disable or force down a compute service (`PUT /os-services/{id}`).

        As in Nova, only a compute that answers has its provider's trait changed with it, so that a host enabled while
        it is down keeps COMPUTE_STATUS_DISABLED. Raises `Refused` 404 and, for lifting a force-down while evacuations
        are not cleaned up, 400.
        """
        with self.lock:
            host = self.find_host(host_name)
            request = request or self.new_request()
            if forced_down is False and host.forced_down and self._undone_evacuations(host_name):
                raise Refused(400, f"Unable to force up host {host_name} as `done` evacuation migration records remain "
                                   "associated with the host. Ensure the compute service has been restarted, "
                                   "allowing these records to move to `completed` before retrying this request.")
            if disabled is not None:
                host.disabled = disabled
                host.disabled_reason = reason if disabled else None
                if self.is_up(host):
                    self._sync_trait(host)
            if forced_down is not None:
                host.forced_down = forced_down
            host.changed_at = self.now()
            self._emit_service(host, "service.update", request)
            return host

    def disable(self, host_name: str, reason: str | None = None) -> None:
        self.set_service(host_name, disabled=True, reason=reason)

    def enable(self, host_name: str) -> None:
        self.set_service(host_name, disabled=False)

    def delete_service(self, host_name: str, request: Request | None = None) -> None:
        """`DELETE /os-services/{id}`. Raises `Refused` 409 while servers are there."""
        with self.lock:
            host = self.find_host(host_name)
            if host.servers:
                raise Refused(409, "Unable to delete compute service that is hosting instances. Migrate or delete the "
                                   "instances first.")
            if any(host_name in (row.source, row.destination) and row.status in OCCUPYING
                   for rows in self.migrations_of.values() for row in rows):
                raise Refused(409, "Unable to delete compute service that has in-progress migrations.")
            self._emit_service(host, "service.delete", request or self.new_request())
            del self.hosts[host_name]
            self.hosts_by_provider.pop(host.provider.uuid)
            self.hosts_by_service.pop(host.service_id)

    def kill_compute(self, host_name: str) -> None:
        """nova-compute dies: no heartbeat from now on, and what it was doing stops where it is. No message says so."""
        with self.lock:
            host = self.find_host(host_name)
            if host.killed_at is None:
                host.killed_at = self.now()
                for process in [p for p in self._processes if host_name in p.hosts]:
                    self._end(process)

    def start_compute(self, host_name: str) -> None:
        """nova-compute is back: evacuated guests are destroyed and their rows `completed`, local deletes are reaped
        (no message), interrupted live migrations reset, the trait set as the service says."""
        with self.lock:
            host = self.find_host(host_name)
            host.killed_at = None
            self._sync_trait(host)
            request = self.new_request(periodic=True)
            evacuated = self._undone_evacuations(host_name)
            for row in evacuated:
                self._free(host_name, row.server.id)
                host.residue.discard(row.server.id)
                self._row(row, status="completed")
                self._save(row.server, self._load(row.server), request)
            host.residue.clear()
            busy = {process.server_id for process in self._processes}
            for server in list(host.servers.values()):
                if server.task_state is not None and server.id not in busy:
                    self._resume_after_crash(server, request)

    def _resume_after_crash(self, server: Server, request: Request) -> None:
        """What nova-compute does at its start with a server that something was under way with."""
        if server.task_state == "deleting":
            self._go(server, self._deleting(server, self._load(server), request), server.host)
            return
        for row in self.migrations_of.get(server.id, ()):
            if row.status in IN_PROGRESS:
                if row.kind == "live-migration":
                    self._give_back(row)
                self._row(row, status="error")
        state = "error" if server.state == "building" else server.state
        self._save(server, self._load(server), request, state=state, task_state=None, progress=0)

    def _undone_evacuations(self, host_name: str) -> list[Migration]:
        return [row for rows in self.migrations_of.values() for row in rows
                if row.kind == "evacuation" and row.source == host_name and row.status == "done"]

    def _sync_trait(self, host: Host) -> None:
        traits = host.provider.traits
        (traits.add if host.disabled else traits.discard)("COMPUTE_STATUS_DISABLED")
        host.provider.generation += 1

    # creating

    def create(self, name: str | None = None, *, flavor: str = "m1.small", host: str | None = None,
               project_id: str | None = None, request: Request | None = None) -> Server:
        """`POST /servers`. Scheduling comes later: a host disabled in between is not chosen any more."""
        with self.lock:
            request = request or self.new_request()
            known = self.flavors.get(flavor) or next((f for f in self.flavors.values() if f.id == flavor), None)
            if known is None:
                raise Refused(400, f"Flavor {flavor} could not be found.")
            if host is not None and host not in self.hosts:
                raise Refused(400, f"Compute host {host} could not be found.")
            server = self._new_server(name, known, project_id or request.project_id, request.user_id)
            self._go(server, self._creating(server, host, request))
            return server

    def _creating(self, server: Server, wanted: str | None, request: Request) -> Steps:
        t = self.timing
        yield t.schedule_s
        copy = self._load(server)
        chosen = self._schedule(copy, request, wanted)
        if chosen is None:
            self._save(server, copy, request, state="error", task_state=None)
            yield t.step_s
            self._no_valid_host("build_instances", server, copy, request)
            return
        host = chosen.name
        self._works_on(server, host)
        self._allocate(chosen, server.id, server.flavor)
        yield t.step_s
        if self.timing.notify_on_state_change:
            self._emit("instance.update", f"nova-conductor:{self.controller}",
                       wire.instance_update(copy, request, copy.state, copy.task_state, self.now()), request)
        yield t.rpc_s
        yield chosen.builds
        copy = self._load(server)
        updated = copy.updated_at
        self._save(server, copy, request, task_state=None)
        server.updated_at = updated  # the first save of a build leaves no trace in updated_at
        yield t.step_s
        self._emit("instance.create.start", f"nova-compute:{host}", wire.instance_create(copy, request), request)
        yield t.step_s
        self._save(server, copy, request, host=host)
        yield t.rpc_s
        self._save(server, copy, request, task_state="networking")
        yield t.step_s
        self._save(server, copy, request, task_state="block_device_mapping")
        yield t.step_s
        self._save(server, copy, request, task_state="spawning")
        knobs = self.knobs.of("spawn", host, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            yield from self._build_failed(server, copy, host, request)
            return
        if server.task_state == "deleting":
            yield from self._built_to_be_deleted(server, copy, host, request)
            return
        self._save(server, copy, request, state="active", task_state=None, power_state="running",
                   launched_at=self.now())
        yield t.step_s
        self._emit("instance.create.end", f"nova-compute:{host}", wire.instance_create(copy, request), request)

    def _build_failed(self, server: Server, copy: Copy, host: str, request: Request) -> Steps:
        self._act("shutdown.start", host, copy, request)
        yield self.timing.step_s
        self._act("shutdown.end", host, copy, request)
        fault = wire.exception_payload("NovaException", "spawn told to fail", module="nova.virt.simulator",
                                       function="spawn")
        self._save(server, copy, request, host=None, task_state=None)
        self._emit("instance.create.error", f"nova-compute:{host}", wire.instance_create(copy, request, fault),
                   request, "ERROR")
        self._free(host, server.id)
        yield self.timing.step_s
        self._save(server, copy, request, state="error", task_state=None)

    def _built_to_be_deleted(self, server: Server, copy: Copy, host: str, request: Request) -> Steps:
        """Deleted while it was being built: the delete waited for the build, whose last save then fails."""
        asked = self._load(server)
        asked.updated_at = copy.updated_at
        copy.state, copy.task_state, copy.power_state, copy.launched_at = "active", None, "running", self.now()
        fault = wire.exception_payload("UnexpectedDeletingTaskStateError", "the server is being deleted",
                                       module="nova.objects.instance", function="save")
        self._emit("instance.create.error", f"nova-compute:{host}", wire.instance_create(copy, request, fault),
                   request, "ERROR")
        yield self.timing.rpc_s
        self._save(server, copy, request, state="active", task_state=None, power_state="running")
        yield from self._deleting(server, asked, request)

    # live migration

    def live_migrate(self, server_id: str, host: str | None = None, request: Request | None = None) -> None:
        """`os-migrateLive`; the migration's row appears when the conductor gets to it."""
        with self.lock:
            server = self._ready(server_id, "os-migrateLive", ("active", "paused"))
            if host is not None and host == server.host:
                raise Refused(400, f"Unable to migrate instance ({server_id}) to current host ({host}).")
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="migrating")
            self._go(server, self._live(server, copy, host, request), server.host)

    def _live(self, server: Server, copy: Copy, wanted: str | None, request: Request) -> Steps:
        t = self.timing
        yield t.rpc_s
        row = self._new_migration(server, "live-migration", "accepted")
        job = self._live_jobs[row.id] = _LiveJob(row, copy=copy)
        source = row.source or ""
        process = next(p for p in self._processes if p.server_id == server.id)
        job.process = process
        self._hold_by_migration(row)
        yield t.schedule_s
        chosen = self._schedule(copy, request, wanted, avoid=(source,))
        if chosen is None or not self.is_up(self.hosts[source]):
            self._give_back(row)
            self._row(row, status="error")
            self._save(server, copy, request, task_state=None)
            yield t.step_s
            self._no_valid_host("migrate_server", server, copy, request)
            return
        destination = chosen.name
        self._allocate(chosen, server.id, server.flavor)
        self._row(row, destination=destination)
        yield t.rpc_s
        self._row(row, status="queued")
        job.phase = "queued"
        yield t.step_s
        yield self.hosts[source].live
        self._row(row, status="preparing")
        job.phase = "preparing"
        yield t.step_s
        at_destination = replace(copy)
        self._act("live_migration_pre.start", destination, at_destination, request)
        knobs = self.knobs.of("pre_live_migration", destination, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            self._exception(destination, request, "pre_live_migration told to fail", "pre_live_migration")
            self._row(row, status="error")
            yield t.rpc_s
            yield from self._rollback(server, copy, row, request, "failed")
            return
        self._act("live_migration_pre.end", destination, at_destination, request)
        yield t.step_s
        if job.abort:
            yield from self._rollback(server, copy, row, request, "cancelled")
            self._act("live_migration_abort.end", source, copy, request)
            return
        self._row(row, status="running")
        job.phase = "running"
        outcome: list[str] = []
        yield from self._copying(server, copy, row, job, request, outcome)
        job.phase = "over"
        if outcome == ["error"]:
            self._row(row, status="error")
            self._save(server, copy, request, state="error", task_state=None)
        elif outcome != ["ok"]:
            yield t.rpc_s
            yield from self._rollback(server, copy, row, request,
                                      "cancelled" if outcome == ["cancelled"] else "failed")
        else:
            yield from self._live_post(server, copy, row, request)

    def _copying(self, server: Server, copy: Copy, row: Migration, job: _LiveJob, request: Request,
                 outcome: list[str]) -> Steps:
        """The driver's loop: a tick every half second, the counters and the progress written every `report_s`."""
        tick = self.timing.tick_s
        total = row.old_flavor.memory_mb << 20
        began = saved = self.now()
        done = processed = 0.0
        while not outcome:
            knobs = self.knobs.of("live_migration", row.source, server)
            mode = str(knobs.get("mode", "converge"))
            seconds = max(float(knobs.get("seconds", 3.0)), tick)
            floor = float(knobs.get("floor", 0.4))
            step, elapsed = tick / seconds, self.now() - began
            if job.abort:
                outcome.append("cancelled")
            elif job.force:
                done = 1.0
                outcome.append("ok")
            elif mode == "silent":
                pass
            elif mode == "stuck":
                if done < 1 - floor:
                    done = min(1 - floor, done + step)
                    processed += step
            elif mode == "diverge":
                phase = elapsed / seconds % 1.0
                done = (1 - floor) * (phase if phase < 0.7 else (1 - phase) * 0.7 / 0.3)
                processed += step
            elif mode in ("fail", "error") and elapsed >= seconds:
                outcome.append(mode)
            else:
                done = min(1.0, done + step)
                processed += step
                if done >= 1.0 - 1e-9 and mode not in ("fail", "error"):
                    outcome.append("ok")
            due = self.now() - saved >= float(knobs.get("report_s", 5.0))
            if due and mode != "silent" or outcome == ["ok"]:
                saved = self.now()
                done = min(done, 1.0)
                values = {"memory_total": total, "memory_processed": int(total * processed),
                          "memory_remaining": int(total * (1 - done)), "disk_total": 0, "disk_processed": 0,
                          "disk_remaining": 0}
                if any(getattr(row, name) != value for name, value in values.items()):
                    self._row(row, **values)
                self._save(server, copy, request, progress=int(done * 100 + 1e-9))
            if not outcome:
                yield tick

    def _live_post(self, server: Server, copy: Copy, row: Migration, request: Request) -> Steps:
        t, source, destination = self.timing, row.source or "", row.destination or ""
        self._act("live_migration_post.start", source, copy, request)
        yield t.rpc_s
        at_destination = replace(copy)
        self._act("live_migration_post_dest.start", destination, at_destination, request)
        knobs = self.knobs.of("post_at_destination", destination, server)
        yield 2 * t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            self._save(server, at_destination, request, host=destination, state="error", task_state=None,
                       power_state="pending", progress=0)
            yield t.step_s
            for host in (destination, source):
                self._exception(host, request, "post_at_destination told to fail", "post_live_migration_at_destination")
            self._row(row, status="error")
            for _ in range(2):
                yield t.step_s
                self._save(server, at_destination, request)
            return
        self._save(server, at_destination, request, host=destination, task_state=None, power_state="running",
                   progress=0)
        yield t.step_s
        self._act("live_migration_post_dest.end", destination, at_destination, request)
        yield t.rpc_s
        self._act("live_migration_post.end", source, copy, request)
        yield t.step_s
        self._row(row, status="completed")
        yield t.step_s
        self._free(source, row.uuid)

    def _rollback(self, server: Server, copy: Copy, row: Migration, request: Request, status: str) -> Steps:
        t, source, destination = self.timing, row.source or "", row.destination or ""
        self._act("live_migration_rollback.start", source, copy, request)
        self._give_back(row)
        yield t.step_s
        if not t.shared_storage:
            self._act("live_migration_rollback_dest.start", destination, replace(copy), request)
        self._save(server, copy, request, task_state=None, progress=0)
        yield t.step_s
        self._act("live_migration_rollback.end", source, copy, request)
        if not t.shared_storage:
            self._act("live_migration_rollback_dest.end", destination, replace(copy, task_state="migrating"), request)
        yield t.step_s
        self._row(row, status=status)

    def _live_job(self, server_id: str, migration_id: int) -> tuple[Server, Migration, _LiveJob]:
        server = self.find_server(server_id)
        row = self.migrations.get(migration_id)
        job = self._live_jobs.get(migration_id)
        if row is None or job is None or row.server is not server:
            raise Refused(404, f"Migration {migration_id} for instance {server_id} not found.")
        return server, row, job

    def abort(self, server_id: str, migration_id: int, request: Request | None = None) -> None:
        """`DELETE /servers/{id}/migrations/{id}`: running, preparing or queued, else `Refused` 400."""
        with self.lock:
            server, row, job = self._live_job(server_id, migration_id)
            if row.status not in ("queued", "preparing", "running"):
                raise Refused(400, f"Migration {migration_id} state of instance {server_id} is {row.status}. Cannot "
                                   "abort the migration in this state.")
            self._go(server, self._aborting(server, row, job, request or self.new_request()), row.source)

    def _aborting(self, server: Server, row: Migration, job: _LiveJob, request: Request) -> Steps:
        t, source = self.timing, row.source or ""
        yield t.rpc_s
        copy = self._load(server)
        self._act("live_migration_abort.start", source, copy, request)
        process = job.process
        if job.phase == "queued" and process is not None:
            self._end(process)
            self._give_back(row)
            self._row(row, status="cancelled")
            yield t.rpc_s
            self._save(server, copy, request, task_state=None)
            yield t.step_s
        elif job.phase == "over":
            self._exception(source, request, "live_migration_abort: no such job", "live_migration_abort")
            return
        else:
            job.abort = True
        self._act("live_migration_abort.end", source, copy, request)

    def force_complete(self, server_id: str, migration_id: int, request: Request | None = None) -> None:
        """`force_complete`: only while running, else `Refused` 400."""
        with self.lock:
            server, row, job = self._live_job(server_id, migration_id)
            if row.status != "running":
                raise Refused(400, f"Migration {migration_id} state of instance {server_id} is {row.status}. Cannot "
                                   "force_complete while the migration is in this state.")
            self._go(server, self._forcing(server, row, job, request or self.new_request()), row.source)

    def _forcing(self, server: Server, row: Migration, job: _LiveJob, request: Request) -> Steps:
        yield self.timing.rpc_s
        copy = self._load(server)
        self._act("live_migration_force_complete.start", row.source or "", copy, request)
        job.force = True
        yield 0.0
        self._act("live_migration_force_complete.end", row.source or "", copy, request)

    # cold migration and resize

    def migrate(self, server_id: str, host: str | None = None, *, flavor: str | None = None,
                request: Request | None = None) -> None:
        """`migrate`, or `resize` when a flavor (name or id) is given."""
        with self.lock:
            action = "migrate" if flavor is None else "resize"
            server = self._ready(server_id, action, ("active", "stopped"))
            new = server.flavor
            if flavor is not None:
                found = self.flavors.get(flavor) or next((f for f in self.flavors.values() if f.id == flavor), None)
                if found is None:
                    raise Refused(400, "Unable to locate requested flavor.")
                if found == server.flavor:
                    raise Refused(400, "When resizing, instances must change flavor!")
                new = found
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="resize_prep")
            self._go(server, self._cold(server, copy, host, new, request), server.host)

    def _cold(self, server: Server, copy: Copy, wanted: str | None, flavor: Flavor, request: Request) -> Steps:
        t = self.timing
        yield t.rpc_s
        row = self._new_migration(server, "migration" if flavor is server.flavor else "resize", "pre-migrating", flavor)
        source = row.source or ""
        self._hold_by_migration(row)
        yield t.schedule_s
        chosen = self._schedule(copy, request, wanted, avoid=(source,))
        if chosen is None:
            self._give_back(row)
            self._row(row, status="error")
            self._save(server, copy, request, task_state=None)
            yield t.step_s
            self._no_valid_host("migrate_server", server, copy, request)
            return
        destination = chosen.name
        self._works_on(server, destination)
        self._allocate(chosen, server.id, flavor)
        yield t.rpc_s
        self._exists(destination, copy, request)
        self._emit("instance.resize_prep.start", f"nova-compute:{destination}",
                   wire.instance_resize_prep(copy, request, flavor), request)
        yield t.step_s
        self._row(row, destination=destination)
        self._save(server, copy, request)
        yield t.rpc_s
        self._emit("instance.resize_prep.end", f"nova-compute:{destination}",
                   wire.instance_resize_prep(copy, request, flavor), request)
        yield t.rpc_s
        self._row(row, status="migrating")
        self._save(server, copy, request, task_state="resize_migrating")
        yield t.step_s
        self._act("resize.start", source, copy, request)
        knobs = self.knobs.of("migrate_disk", source, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            yield from self._move_failed(server, copy, row, source, request, "migrate_disk")
            self._give_back(row)
            return
        self._row(row, status="post-migrating")
        self._save(server, copy, request, host=destination, task_state="resize_migrated")
        yield t.step_s
        self._act("resize.end", source, copy, request)
        yield t.rpc_s
        self._save(server, copy, request, task_state="resize_finish", flavor=flavor)
        yield t.step_s
        self._act("resize_finish.start", destination, copy, request)
        knobs = self.knobs.of("finish_migration", destination, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            self._free(source, row.uuid)
            self.hosts[source].residue.add(server.id)
            yield from self._move_failed(server, copy, row, destination, request, "finish_migration")
            return
        self._row(row, status="finished")
        self._save(server, copy, request, state="resized", task_state=None)
        yield t.step_s
        self._act("resize_finish.end", destination, copy, request)

    def _move_failed(self, server: Server, copy: Copy, row: Migration, host: str, request: Request,
                     operation: str) -> Steps:
        self._row(row, status="error")
        self._save(server, copy, request, state="error")
        yield 2 * self.timing.step_s
        self._save(server, copy, request, task_state=None)
        yield self.timing.step_s
        self._exception(host, request, f"{operation} told to fail", operation)

    def _finished(self, server: Server) -> Migration:
        for row in reversed(self.migrations_of.get(server.id, [])):
            if row.status == "finished":
                return row
        raise Refused(400, f"Instance {server.id} has not been resized.")

    def confirm(self, server_id: str, request: Request | None = None) -> None:
        """`confirmResize`: only in VERIFY_RESIZE."""
        with self.lock:
            server = self._ready(server_id, "confirmResize", ("resized",))
            row = self._finished(server)
            self._row(row, status="confirming")
            self._go(server, self._confirming(server, row, request or self.new_request()), row.source)

    def _confirming(self, server: Server, row: Migration, request: Request) -> Steps:
        t, source = self.timing, row.source or ""
        yield t.rpc_s
        copy = self._load(server)
        self._act("resize_confirm.start", source, copy, request)
        yield t.rpc_s + float(self.knobs.of("confirm", source, server).get("seconds", 0.0))
        self._row(row, status="confirmed")
        self._save(server, copy, request, state=row.was_state, task_state=None)
        yield t.step_s
        self._act("resize_confirm.end", source, copy, request)
        yield t.step_s
        self._free(source, row.uuid)
        self._save(server, copy, request)

    def revert(self, server_id: str, request: Request | None = None) -> None:
        """`revertResize`: the server goes back to its source, disabled or not."""
        with self.lock:
            server = self._ready(server_id, "revertResize", ("resized",))
            row = self._finished(server)
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="resize_reverting")
            self._row(row, status="reverting")
            self._go(server, self._reverting(server, copy, row, request), row.source)

    def _reverting(self, server: Server, copy: Copy, row: Migration, request: Request) -> Steps:
        t, source, destination = self.timing, row.source or "", row.destination or ""
        yield t.step_s
        self._exists(destination, copy, request)
        yield t.rpc_s
        self._row(row, status="reverted")
        self._save(server, copy, request)
        yield t.rpc_s
        self._act("resize_revert.start", source, copy, request)
        yield t.step_s
        self._save(server, copy, request, host=source, flavor=row.old_flavor)
        self._give_back(row)
        yield t.rpc_s
        self._save(server, copy, request)
        yield t.step_s
        self._save(server, copy, request, state=row.was_state, task_state=None)
        yield t.step_s
        self._act("resize_revert.end", source, copy, request)
        yield t.step_s
        self._save(server, copy, request)

    # evacuation

    def evacuate(self, server_id: str, host: str | None = None, *, ends_stopped: bool = True,
                 request: Request | None = None) -> None:
        """`evacuate`: only off a host that is down. `ends_stopped` is the behaviour since microversion 2.95."""
        with self.lock:
            server = self._ready(server_id, "evacuate", ("active", "stopped", "error"))
            if server.host is None:
                raise Refused(409, f"Cannot 'evacuate' instance {server_id} while it is on no host")
            source = self.hosts[server.host]
            if self.is_up(source):
                raise Refused(400, f"Compute service of {source.name} is still in use.")
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="rebuilding")
            row = self._new_migration(server, "evacuation", "accepted")
            self._emit("instance.evacuate", f"nova-api:{self.controller}", wire.instance_action(copy, request), request)
            self._go(server, self._evacuating(server, copy, row, host, ends_stopped, request))

    def _evacuating(self, server: Server, copy: Copy, row: Migration, wanted: str | None, ends_stopped: bool,
                    request: Request) -> Steps:
        t, source = self.timing, row.source or ""
        was = server.state
        yield t.schedule_s
        chosen = self._schedule(copy, request, wanted, avoid=(source,))
        if chosen is None:
            self._row(row, status="error")
            self._save(server, copy, request, state="error" if was == "error" else was, task_state=None)
            yield t.step_s
            self._no_valid_host("rebuild_server", server, copy, request)
            return
        host = chosen.name
        self._works_on(server, host)
        self._allocate(chosen, server.id, server.flavor)
        self._emit("instance.rebuild_scheduled", f"nova-conductor:{host}", wire.instance_rebuild(copy, request),
                   request)
        yield t.rpc_s
        self._row(row, status="pre-migrating", destination=host)
        self._save(server, copy, request)
        yield 2 * t.step_s
        self._exists(host, copy, request)
        self._rebuild("start", host, copy, request)
        yield t.step_s
        self._save(server, copy, request, power_state="pending")
        yield t.rpc_s
        self._save(server, copy, request, task_state="rebuild_block_device_mapping")
        yield 2 * t.step_s
        self._save(server, copy, request, task_state="rebuild_spawning")
        knobs = self.knobs.of("spawn", host, server)
        yield t.step_s + float(knobs.get("seconds", 0.0))
        if knobs.get("fail"):
            fault = wire.exception_payload("NovaException", "spawn told to fail", module="nova.virt.simulator",
                                           function="spawn")
            self._emit("instance.rebuild.error", f"nova-compute:{host}", wire.instance_rebuild(copy, request, fault),
                       request, "ERROR")
            self._free(host, server.id)
            self._row(row, status="failed")
            yield t.step_s
            self._save(server, copy, request, state="error")
            yield 2 * t.step_s
            self._save(server, copy, request, task_state=None)
            yield t.step_s
            self._exception(host, request, "spawn told to fail", "spawn")
            return
        self._save(server, copy, request, state="active", task_state=None, power_state="running")
        if ends_stopped or was == "stopped":
            yield t.step_s
            self._save(server, copy, request, task_state="powering-off")
            yield t.step_s
            self._act("power_off.start", host, copy, request)
            yield t.step_s
            self._save(server, copy, request, state="stopped", task_state=None, power_state="shutdown")
            yield t.step_s
            self._act("power_off.end", host, copy, request)
        yield t.step_s
        self._rebuild("end", host, copy, request)
        yield t.step_s
        self.hosts[source].residue.add(server.id)
        self._save(server, copy, request, host=host)
        self._row(row, status="done")

    def _rebuild(self, phase: str, host: str, copy: Copy, request: Request) -> None:
        self._emit(f"instance.rebuild.{phase}", f"nova-compute:{host}", wire.instance_rebuild(copy, request), request)

    # power, shelving

    def stop_server(self, server_id: str, request: Request | None = None) -> None:
        """`os-stop`."""
        self._power(server_id, "os-stop", "active", ("powering-off", "power_off", "stopped", "shutdown"), request)

    def start_server(self, server_id: str, request: Request | None = None) -> None:
        """`os-start`."""
        self._power(server_id, "os-start", "stopped", ("powering-on", "power_on", "active", "running"), request)

    def _power(self, server_id: str, action: str, needs: str, words: tuple[str, str, str, str],
               request: Request | None) -> None:
        with self.lock:
            server = self._ready(server_id, action, (needs,))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state=words[0])
            self._go(server, self._powering(server, copy, words, request), server.host)

    def _powering(self, server: Server, copy: Copy, words: tuple[str, str, str, str], request: Request) -> Steps:
        host = server.host or ""
        yield 2 * self.timing.step_s
        self._act(f"{words[1]}.start", host, copy, request)
        yield self.timing.step_s
        self._save(server, copy, request, state=words[2], task_state=None, power_state=words[3])
        yield self.timing.step_s
        self._act(f"{words[1]}.end", host, copy, request)

    def shelve(self, server_id: str, request: Request | None = None) -> None:
        """`shelve`; offloaded at once unless `Timing.shelved_offload_s` is negative."""
        with self.lock:
            server = self._ready(server_id, "shelve", ("active", "stopped", "paused", "suspended"))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="shelving")
            self._go(server, self._shelving(server, copy, request), server.host)

    def _shelving(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield 2 * t.step_s
        self._exists(host, copy, request)
        self._act("shelve.start", host, copy, request)
        yield t.step_s + float(self.knobs.of("snapshot", host, server).get("seconds", 0.0))
        self._save(server, copy, request, task_state="shelving_image_uploading")
        yield t.step_s
        offload = t.shelved_offload_s >= 0
        self._save(server, copy, request, state="shelved", task_state="shelving_offloading" if offload else None,
                   power_state="shutdown")
        yield t.step_s
        self._act("shelve.end", host, copy, request)
        if offload:
            yield from self._offloading(server, copy, request)

    def shelve_offload(self, server_id: str, request: Request | None = None) -> None:
        """`shelveOffload` of a shelved server."""
        with self.lock:
            server = self._ready(server_id, "shelveOffload", ("shelved",))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="shelving_offloading")
            self._go(server, self._offloading(server, copy, request), server.host)

    def _offloading(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield t.step_s
        self._act("shelve_offload.start", host, copy, request)
        yield t.rpc_s + float(self.knobs.of("destroy", host, server).get("seconds", 0.0))
        self._save(server, copy, request)
        yield t.step_s
        self._save(server, copy, request, state="shelved_offloaded", task_state=None)
        self._free(host, server.id)
        yield t.rpc_s
        self._save(server, copy, request, host=None)
        yield t.step_s
        self._act("shelve_offload.end", host, copy, request)

    def unshelve(self, server_id: str, request: Request | None = None) -> None:
        """`unshelve`: where it is when it was not offloaded, else wherever the scheduler says."""
        with self.lock:
            server = self._ready(server_id, "unshelve", ("shelved", "shelved_offloaded"))
            request = request or self.new_request()
            copy = self._load(server)
            self._save(server, copy, request, task_state="unshelving")
            self._go(server, self._unshelving(server, copy, request), server.host)

    def _unshelving(self, server: Server, copy: Copy, request: Request) -> Steps:
        t = self.timing
        yield t.schedule_s
        if server.state == "shelved":
            host = server.host or ""
            self._act("power_on.start", host, copy, request)
            yield t.step_s
            self._save(server, copy, request, state="active", task_state=None, power_state="running")
            yield t.step_s
            self._act("power_on.end", host, copy, request)
            return
        chosen = self._schedule(copy, request, None)
        if chosen is None:
            self._save(server, copy, request, task_state=None)
            return
        host = chosen.name
        self._works_on(server, host)
        self._allocate(chosen, server.id, server.flavor)
        yield t.rpc_s
        self._act("unshelve.start", host, copy, request)
        yield t.step_s
        self._save(server, copy, request, task_state="spawning")
        yield 2 * t.step_s
        self._save(server, copy, request, host=host)
        yield t.step_s + float(self.knobs.of("spawn", host, server).get("seconds", 0.0))
        self._save(server, copy, request, state="active", task_state=None, power_state="running",
                   launched_at=self.now())
        yield t.step_s
        self._act("unshelve.end", host, copy, request)

    # deleting

    def delete(self, server_id: str, *, force: bool = False, request: Request | None = None) -> None:
        """`DELETE /servers/{id}`, or `forceDelete`. On a dead host it is done at once by the API, and the guest stays.

        A forced delete on a dead host sends no message at all.
        """
        with self.lock:
            server = self.find_server(server_id)
            request = request or self.new_request()
            if server.task_state == "deleting" and not force:
                return
            host = self.hosts.get(server.host) if server.host is not None else None
            soft = self.timing.reclaim_interval_s > 0 and not force and server.state != "soft-delete"
            if server.state == "building" and host is not None and self.is_up(host):
                self._save(server, self._load(server), request, task_state="deleting")
                return  # the build goes on, and sees it at its end
            for process in [p for p in self._processes if p.server_id == server_id]:
                self._end(process)
            if host is None or not self.is_up(host):
                self._delete_locally(server, request, force, soft)
                return
            copy = self._load(server)
            if soft:
                self._save(server, copy, request, task_state="soft-deleting")
                self._go(server, self._soft_deleting(server, copy, request), server.host)
            else:
                self._save(server, copy, request, task_state="deleting")
                self._go(server, self._deleting(server, copy, request), server.host)

    def _delete_locally(self, server: Server, request: Request, force: bool, soft: bool) -> None:
        copy = self._load(server)
        publisher = f"nova-api:{self.controller}"
        if not force:
            self._save(server, copy, request, task_state="soft-deleting" if soft else "deleting")
            self._emit("instance.delete.start", publisher, wire.instance_action(copy, request), request)
        self._save(server, copy, request, quiet=force, state="soft-delete" if soft else "deleted", task_state=None,
                   terminated_at=self.now())
        if server.host is not None:
            self.hosts[server.host].residue.add(server.id)
        for row in self.migrations_of.get(server.id, ()):
            if row.status == "finished" and row.source is not None:
                self.hosts[row.source].residue.add(server.id)
        self._gone(server, copy)
        if not force:
            self._emit("instance.delete.end", publisher, wire.instance_action(copy, request), request)

    def _deleting(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield t.step_s
        for row in self.migrations_of.get(server.id, ()):
            if row.status == "finished":
                self._row(row, status="confirming")
                yield from self._confirming(server, row, request)
        self._act("delete.start", host, copy, request)
        yield t.step_s / 2
        self._act("shutdown.start", host, copy, request)
        yield 2 * t.step_s + float(self.knobs.of("destroy", host, server).get("seconds", 0.0))
        self._save(server, copy, request)
        yield t.step_s
        self._act("shutdown.end", host, copy, request)
        yield t.step_s
        self._save(server, copy, request, state="deleted", task_state=None, power_state="pending",
                   terminated_at=self.now())
        self._gone(server, copy)
        yield t.rpc_s
        self._act("delete.end", host, copy, request)

    def _gone(self, server: Server, copy: Copy) -> None:
        """The row is deleted, and with it its migrations' rows and every allocation of the server."""
        server.deleted_at = copy.deleted_at = self.now()
        self.servers.pop(server.id, None)
        self.deleted[server.id] = server
        touched = {server.host}
        for row in self.migrations_of.pop(server.id, ()):
            touched |= {row.source, row.destination}
            if row.status not in ("error", "failed"):
                self._free(row.source, row.uuid)
            self.migrations.pop(row.id, None)
            self._live_jobs.pop(row.id, None)
        for name in touched:
            self._free(name, server.id)
        if server.host is not None and server.host in self.hosts:
            self.hosts[server.host].servers.pop(server.id, None)

    def _soft_deleting(self, server: Server, copy: Copy, request: Request) -> Steps:
        t, host = self.timing, server.host or ""
        yield t.step_s
        self._act("soft_delete.start", host, copy, request)
        yield 2 * t.step_s
        self._save(server, copy, request, state="soft-delete", task_state=None, power_state="shutdown")
        yield t.step_s
        self._act("soft_delete.end", host, copy, request)
        yield t.reclaim_interval_s
        periodic = self.new_request(periodic=True)
        yield from self._deleting(server, self._load(server), periodic)

    def restore(self, server_id: str, request: Request | None = None) -> None:
        """`restore` of a soft-deleted server."""
        with self.lock:
            server = self._ready(server_id, "restore", ("soft-delete",))
            request = request or self.new_request()
            for process in [p for p in self._processes if p.server_id == server_id]:
                self._end(process)
            copy = self._load(server)
            self._save(server, copy, request, task_state="restoring")
            self._go(server, self._restoring(server, copy, request), server.host)

    def _restoring(self, server: Server, copy: Copy, request: Request) -> Steps:
        host = server.host or ""
        yield self.timing.step_s
        self._act("restore.start", host, copy, request)
        yield self.timing.step_s
        self._save(server, copy, request, state="active", task_state=None, power_state="running")
        yield self.timing.step_s
        self._act("restore.end", host, copy, request)

    # what goes wrong in a cloud

    def leak_allocation(self, host: str, consumer: str | None = None) -> str:
        """An allocation that nobody remembers; returns its consumer."""
        with self.lock:
            consumer = consumer or self.new_uuid()
            self._allocate(self.hosts[host], consumer, self.flavors["m1.small"])
            return consumer

    def add_child_provider(self, host: str, name: str) -> Provider:
        """A nested provider (a NUMA cell, a VGPU) in the host's tree."""
        with self.lock:
            root = self.hosts[host].provider
            child = Provider(self.new_uuid(), f"{root.name}_{name}", root.uuid, root.uuid)
            self.hosts[host].children.append(child)
            return child

    def lose_cell(self, hosts: Iterable[str], down: bool = True) -> None:
        """The database of these hosts' cell does not answer (or does again): the API leaves their rows out."""
        with self.lock:
            for name in hosts:
                self.hosts[name].in_down_cell = down

    def _ready(self, server_id: str, action: str, states: tuple[str, ...]) -> Server:
        server = self.find_server(server_id)
        if server.task_state is not None:
            raise Refused(409, f"Cannot '{action}' instance {server_id} while it is in task_state {server.task_state}")
        if server.state not in states:
            raise Refused(409, f"Cannot '{action}' instance {server_id} while it is in vm_state {server.state}")
        return server
