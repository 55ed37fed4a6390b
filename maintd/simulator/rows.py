"""What the simulated cloud remembers: Nova's and Placement's rows, its options, and how operations are told to go.

Rows only; what changes them stands in `state` and the modules over it. `Server` is made small on purpose.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from maintd.errors import MaintdError
from maintd.simulator.engine import Slots
from maintd.simulator.notifications import Flavor

IN_PROGRESS = frozenset(
    {
        "accepted",
        "queued",
        "preparing",
        "running",
        "running (post-copy)",
        "pre-migrating",
        "migrating",
        "post-migrating",
        "confirming",
        "reverting",
    }
)
OCCUPYING = IN_PROGRESS | {"finished"}

COPIED = (
    "host",
    "state",
    "task_state",
    "power_state",
    "progress",
    "availability_zone",
    "updated_at",
    "launched_at",
    "terminated_at",
    "deleted_at",
    "locked",
    "metadata",
)

NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Refused(MaintdError):
    """The API says no. `status` is the HTTP status, `kind` the name of the body's only key."""

    KINDS = {
        400: "badRequest",
        403: "forbidden",
        404: "itemNotFound",
        409: "conflictingRequest",
        500: "computeFault",
        503: "computeFault",
    }

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = self.KINDS.get(status, "computeFault")


class Server:
    """A row of `instances`. Without `__dict__`: a benchmark holds 200,000 of them."""

    __slots__ = ("id", "seq", "name", "project_id", "user_id", "flavor", "created_at", *COPIED)

    def __init__(
        self, id: str, seq: int, name: str, project_id: str, user_id: str, flavor: Flavor, created_at: float
    ) -> None:
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
        self.metadata: Mapping[str, str] = NO_METADATA


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
    cross_cell: bool = False
    user_id: str | None = None  # who asked for it, not whose the server is
    project_id: str | None = None


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


@dataclass(slots=True, eq=False)
class Host:
    """A compute service with its one compute node and the servers that say they are on it.

    `residue` is what is left of servers that were evacuated from here, or deleted behind a dead compute's back;
    `strays` are files of servers that a failed resize took elsewhere. Nova removes those only with the server.
    `hidden` are rows of servers that were resized into another cell and wait to be confirmed. `nodes` are the further
    compute nodes of a service that has several, as Ironic's have.
    """

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
    strays: set[str] = field(default_factory=set)
    hidden: dict[str, Server] = field(default_factory=dict)
    nodes: list[Provider] = field(default_factory=list)
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
    resize_confirm_window_s: float = 0.0
    shelved_offload_s: float = 0.0
    shared_storage: bool = True
    permit_post_copy: bool = False
    notify_on_state_change: bool = True


class Knobs:
    """How operations go: `mode`, `seconds`, `fail`, `floor`, `report_s`, set for all, for a host or for a server.

    Operations: spawn, destroy, snapshot, migrate_disk, finish_migration, confirm, check (whether a live migration can
    come here; where not, the scheduler is asked again), pre_live_migration, live_migration, post_at_destination. A
    live migration takes a mode, read again at each tick so that a stuck one can be freed: `converge` and `slow` fall
    evenly to nothing in `seconds`; `stuck` falls to `floor` and then nothing moves, though the unchanged numbers are
    still written (so `instance.update` still comes); `silent` writes nothing any more; `diverge` falls and climbs for
    ever while the bytes processed grow; `fail` rolls back after `seconds`; `error` raises out of the driver after
    `seconds`. Forced to complete where `Timing.permit_post_copy` holds, it is in `running (post-copy)` for
    `post_copy_s` first.
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
