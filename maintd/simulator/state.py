"""The cloud at rest: building it, looking things up, saving rows through stale copies, telling, scheduling.

Stale hosts are not written by hand. Every Nova process works on its own copy of the Instance object, passes it on in
its RPC calls, and gets it refreshed only by its own saves; so does every step here (`_load`, `_save`, `replace`). That
alone gives `live_migration_post.end` with the host the server has left, and `updated_at` one save behind.
"""

from __future__ import annotations

import bisect
import hashlib
import random
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from maintd.clock import Clock
from maintd.simulator import notifications as wire
from maintd.simulator.engine import CannotGoOn, Engine, Process, Slots, Steps
from maintd.simulator.notifications import Copy, Flavor, Request
from maintd.simulator.rows import (
    COPIED,
    NO_METADATA,
    OCCUPYING,
    Host,
    Knobs,
    Migration,
    Provider,
    Refused,
    Server,
    Timing,
)

Publish = Callable[[str, wire.Json], None]


def last_heartbeat(seq: int, until: float, interval_s: float) -> float:
    """When the host of this number last reported: each at its own moment of the interval."""
    phase = (seq * 0.7) % interval_s
    return (until - phase) // interval_s * interval_s + phase


@dataclass(slots=True)
class LiveJob:
    """What the operator can do to a live migration while the driver runs it."""

    migration: Migration
    process: Process | None = None
    copy: Copy | None = None
    phase: str = "accepted"
    abort: bool = False
    force: bool = False


class State(Engine):
    """What there is, and the few ways in which Nova's processes touch it."""

    def __init__(
        self,
        clock: Clock,
        publish: Publish | None = None,
        *,
        seed: int = 1,
        timing: Timing | None = None,
        controller: str = "ctl-01",
    ) -> None:
        super().__init__(clock)
        self.timing = timing or Timing()
        self.controller = controller
        self.knobs = Knobs()
        self._publish = publish
        self._random = random.Random(seed)
        self.emitted = 0
        self.hosts: dict[str, Host] = {}
        self.hosts_by_provider: dict[str, Host] = {}
        self.hosts_by_service: dict[str, Host] = {}
        self.servers: dict[str, Server] = {}
        self.all_servers: list[Server] = []
        self.deleted: dict[str, Server] = {}
        self.migrations: dict[int, Migration] = {}
        self.migrations_of: dict[str, list[Migration]] = {}
        self._live_jobs: dict[int, LiveJob] = {}
        self._last_migration = 0
        self.admin_user = self.new_uuid().replace("-", "")
        self.admin_project = self.new_uuid().replace("-", "")
        self.image_id = self.new_uuid()
        self.flavors: dict[str, Flavor] = {}
        for row, (name, memory, disk, cpus) in enumerate(
            (("m1.tiny", 256, 1, 1), ("m1.small", 1024, 5, 1), ("m1.medium", 2048, 10, 2), ("m1.large", 8192, 40, 4)), 1
        ):
            self.flavors[name] = Flavor(self.new_uuid(), name, memory, disk, cpus, row)
        self.started_at = clock.now()
        self.control_services = [
            ("nova-scheduler", controller, self.new_uuid()),
            ("nova-conductor", controller, self.new_uuid()),
        ]

    # ids and time

    def new_uuid(self) -> str:
        """The next uuid that the seed gives."""
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def new_request(self, *, periodic: bool = False) -> Request:
        """A request of the administrator, or one of Nova's own timers."""
        return Request(f"req-{self.new_uuid()}", self.admin_user, self.admin_project, periodic)

    # building the cloud

    def add_host(self, name: str, *, emit: bool = False, zone: str = "nova") -> Host:
        """A new compute with its node and resource provider; `emit` says so with `service.create`."""
        with self.lock:
            if name in self.hosts:
                raise Refused(409, f"Service with host {name} binary nova-compute exists.")
            node = f"{name}.sim.test"
            provider_id = self.new_uuid()
            host = Host(
                name,
                len(self.hosts) + 1,
                node,
                self.new_uuid(),
                Provider(provider_id, node, provider_id, traits={"COMPUTE_NODE", "OWNER_NOVA"}),
                Slots(self.timing.concurrent_live_migrations),
                Slots(self.timing.concurrent_builds),
                zone=zone,
            )
            host.changed_at = self.now()
            self.hosts[name] = host
            self.hosts_by_provider[provider_id] = host
            self.hosts_by_service[host.service_id] = host
            if emit:
                self._emit_service(host, "service.create", self.new_request(periodic=True))
            return host

    def add_server(
        self,
        host: str,
        name: str | None = None,
        *,
        flavor: str = "m1.small",
        state: str = "active",
        project_id: str | None = None,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> Server:
        """A server that has been there all along: no notifications, allocation in place, row never updated since."""
        with self.lock:
            server = self._new_server(name, self.flavors[flavor], project_id or self.admin_project, self.admin_user)
            server.state = state
            server.task_state = None
            server.metadata = metadata
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
        until = self.now() if host.killed_at is None else host.killed_at
        return last_heartbeat(host.seq, until, self.timing.report_interval_s)

    def is_up(self, host: Host) -> bool:
        """What Nova says of the service: not forced down, and heard of within service_down_time."""
        return not host.forced_down and self.now() - self.last_seen(host) <= self.timing.service_down_time_s

    def physically_on(self, host: str, *, strays: bool = True) -> set[str]:
        """Ids of all servers with something on the host's disk or memory, API or not: the truth to hold proofs to.

        Without `strays`, files of servers that a failed resize took elsewhere do not count.
        """
        with self.lock:
            known = self.hosts[host]
            here = set(known.servers) | known.residue | (known.strays if strays else set())
            for migrations in self.migrations_of.values():
                for row in migrations:
                    if host in (row.source, row.destination) and row.status in OCCUPYING:
                        here.add(row.server.id)
                    elif row.status == "reverted" and host == row.source and row.uuid in known.provider.allocations:
                        here.add(row.server.id)  # gone from its destination, and its source has not taken it back yet
            return here

    def bound_for(self, host: str) -> set[str]:
        """Ids of the servers that will be on the host unless something fails: scheduled to it, not there yet."""
        with self.lock:
            held = self.hosts[host].provider.allocations
            return {
                process.server_id
                for process in self._processes
                if host in process.hosts
                and process.server_id in held
                and process.server_id in self.servers
                and self.servers[process.server_id].host != host
            }

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
        copy = Copy(
            server.id,
            server.seq,
            server.name,
            server.project_id,
            server.user_id,
            server.flavor,
            self.image_id,
            f"r-{server.id[:8]}",
            server.created_at,
        )
        self._refresh(copy, server)
        return copy

    def _refresh(self, copy: Copy, server: Server) -> None:
        for name in COPIED:
            setattr(copy, name, getattr(server, name))
        copy.flavor = server.flavor
        copy.node = self.node_of(server.host)

    def _save(
        self,
        server: Server,
        copy: Copy,
        request: Request,
        *,
        publisher: str | None = None,
        quiet: bool = False,
        **changes: Any,
    ) -> None:
        """`Instance.save()`: change the row, refresh the copy, and tell with `instance.update`.

        The copy's `updated_at` is the row's as it was before this save, because Nova reads it before the database
        has set the new one; and where there was no task state, its message gives the new one as the old one too.
        """
        if server.deleted_at is not None:
            raise CannotGoOn(f"{server.id} is deleted")  # InstanceNotFound: what is done with it ends, and says nothing
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
        self._emit(
            "instance.update",
            publisher or f"nova-compute:{self.controller}",
            wire.instance_update(copy, request, old_state, old_task or server.task_state, self.now()),
            request,
        )

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

    def _new_migration(
        self, server: Server, kind: str, status: str, request: Request, new_flavor: Flavor | None = None
    ) -> Migration:
        self._last_migration += 1
        row = Migration(
            self._last_migration,
            self.new_uuid(),
            server,
            kind,
            status,
            server.host,
            self.now(),
            server.flavor,
            new_flavor or server.flavor,
            was_state=server.state,
            user_id=request.user_id,
            project_id=request.project_id,
        )
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

    def _emit(
        self, event_type: str, publisher: str, payload: wire.Json, request: Request, priority: str = "INFO"
    ) -> None:
        self.emitted += 1
        message_id = self.new_uuid()
        if self._publish is None:
            return
        self._publish(
            f"{wire.TOPIC}.{priority.lower()}",
            wire.inner_message(
                message_id=message_id,
                unique_id=self.new_uuid().replace("-", ""),
                publisher_id=publisher,
                event_type=event_type,
                priority=priority,
                payload=payload,
                at=self.now(),
                request=request,
            ),
        )

    def _act(self, event: str, host: str, copy: Copy, request: Request) -> None:
        """`instance.<event>` from a compute."""
        self._emit(f"instance.{event}", f"nova-compute:{host}", wire.instance_action(copy, request), request)

    def _exists(self, host: str, copy: Copy, request: Request) -> None:
        self._emit("instance.exists", f"nova-compute:{host}", wire.instance_exists(copy, request, self.now()), request)

    def _exception(self, host: str, request: Request, message: str, function: str) -> None:
        self._emit(
            "compute.exception",
            f"nova-compute:{host}",
            wire.exception_payload("NovaException", message, module="nova.virt.simulator", function=function),
            request,
            "ERROR",
        )

    def _emit_service(self, host: Host, event: str, request: Request) -> None:
        seen = self.last_seen(host)
        self._emit(
            event,
            f"nova-compute:{host.name}",
            wire.service_status(
                host=host.name,
                binary="nova-compute",
                uuid=host.service_id,
                disabled=host.disabled,
                disabled_reason=host.disabled_reason,
                forced_down=host.forced_down,
                last_seen_up=seen,
                report_count=max(0, int((seen - self.started_at) // self.timing.report_interval_s)),
            ),
            request,
        )

    # scheduling

    def _schedule(
        self, copy: Copy, request: Request, wanted: str | None, avoid: Iterable[str | None] = ()
    ) -> Host | None:
        """The scheduler's choice: up, enabled, without the disabled trait, the emptiest; None for no valid host."""
        publisher = f"nova-scheduler:{self.controller}"
        payload = wire.request_spec(copy, wanted)
        self._emit("scheduler.select_destinations.start", publisher, payload, request)
        avoided = set(avoid)
        names = self.hosts if wanted is None else [wanted]
        best: Host | None = None
        for name in names:
            host = self.hosts.get(name)
            if host is None or name in avoided or not self._accepts(host):
                continue
            if best is None or len(host.provider.allocations) < len(best.provider.allocations):
                best = host
        if best is not None:
            self._emit("scheduler.select_destinations.end", publisher, payload, request)
        return best

    def _accepts(self, host: Host) -> bool:
        return not host.disabled and self.is_up(host) and "COMPUTE_STATUS_DISABLED" not in host.provider.traits

    def _no_valid_host(self, task: str, server: Server, copy: Copy, request: Request) -> None:
        reason = wire.exception_payload(
            "NoValidHost_Remote",
            "No valid host was found. There are not enough hosts available.",
            module="oslo_messaging._drivers.amqpdriver",
            function="_send",
        )
        self._emit(
            f"compute_task.{task}.error",
            f"nova-conductor:{self.controller}",
            wire.compute_task(copy, server.state, reason),
            request,
            "ERROR",
        )

    # operations

    def _go(self, server: Server, steps: Steps, *hosts: str | None) -> Process:
        """Begin an operation. What is sent to a compute that is dead, known or not, is lost."""
        process = Process(steps, server.id, tuple(host for host in hosts if host is not None))
        if any(self.hosts[host].killed_at is not None for host in process.hosts):
            process.dead = True
            steps.close()
        else:
            self._processes[process] = None
            self._push(self.now(), process)
        return process

    def _works_on(self, server: Server, host: str) -> None:
        """From here on the server's operation depends on this host's compute too, and stops when that is killed; or
        after this step, where it is dead and nobody has noticed yet."""
        for process in self._processes:
            if process.server_id == server.id:
                process.hosts = (*process.hosts, host)
                process.lost = self.hosts[host].killed_at is not None

    def _leaves(self, server: Server, host: str) -> None:
        """From here on it depends on that compute no longer."""
        for process in self._processes:
            if process.server_id == server.id:
                process.hosts = tuple(name for name in process.hosts if name != host)
                if process.slots is not None and process.slots in (self.hosts[host].builds, self.hosts[host].live):
                    self._give_up(process)

    def _ready(self, server_id: str, action: str, states: tuple[str, ...]) -> Server:
        server = self.find_server(server_id)
        if server.task_state is not None:
            raise Refused(409, f"Cannot '{action}' instance {server_id} while it is in task_state {server.task_state}")
        if server.state not in states:
            raise Refused(409, f"Cannot '{action}' instance {server_id} while it is in vm_state {server.state}")
        return server
