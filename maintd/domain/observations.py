"""What can be seen, whoever saw it: the only input of the reducer.

An observation carries when it was *seen* (`seen_at`: our clock when a message was received or an answer was complete)
and why it is here (`because`). A notification or an API answer becomes observations in `maintd.nova`, timers come from
the clock, requests from operators; a recording brings the same back in the same order. Nothing here decides anything:
`trusted` says only whether facts 2.1 lets the payload's host and state count as current.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from maintd.domain.model import Because, Kind, Progress


class Step(StrEnum):
    """What a compute, the API or the conductor said of a move (the values are Nova's event types, shortened)."""

    LIVE_PRE_START = "live_migration_pre.start"
    LIVE_PRE_END = "live_migration_pre.end"
    LIVE_POST_START = "live_migration_post.start"
    LIVE_POST_DEST_START = "live_migration_post_dest.start"
    LIVE_POST_DEST_END = "live_migration_post_dest.end"
    LIVE_POST_END = "live_migration_post.end"
    LIVE_ROLLBACK_START = "live_migration_rollback.start"
    LIVE_ROLLBACK_END = "live_migration_rollback.end"
    LIVE_ROLLBACK_DEST_START = "live_migration_rollback_dest.start"
    LIVE_ROLLBACK_DEST_END = "live_migration_rollback_dest.end"
    LIVE_ABORT_START = "live_migration_abort.start"
    LIVE_ABORT_END = "live_migration_abort.end"
    LIVE_FORCE_START = "live_migration_force_complete.start"
    LIVE_FORCE_END = "live_migration_force_complete.end"
    RESIZE_PREP_START = "resize_prep.start"
    RESIZE_PREP_END = "resize_prep.end"
    RESIZE_START = "resize.start"
    RESIZE_END = "resize.end"
    RESIZE_ERROR = "resize.error"
    RESIZE_FINISH_START = "resize_finish.start"
    RESIZE_FINISH_END = "resize_finish.end"
    CONFIRM_START = "resize_confirm.start"
    CONFIRM_END = "resize_confirm.end"
    REVERT_START = "resize_revert.start"
    REVERT_END = "resize_revert.end"
    EVACUATE = "evacuate"
    REBUILD_SCHEDULED = "rebuild_scheduled"
    REBUILD_START = "rebuild.start"
    REBUILD_END = "rebuild.end"
    REBUILD_ERROR = "rebuild.error"


@dataclass(frozen=True, slots=True)
class ServerSeen:
    """A server, in a payload of Nova or a row of the API.

    `host` None means that Nova says no host. `reporter` is the compute host that published it (None for API, conductor,
    scheduler and for instance.update). `step` is set where the message is a step of a move; `kind` where the step tells
    which. `landing` is a host that the message shows the server on its way to. `deleted` the server is gone;
    `local_delete` it was deleted without its compute taking part. `emitted_at` is the emitter's clock. `percent` is
    instance.progress where a migration is under way.
    """

    seen_at: float
    because: Because
    server_id: str
    project_id: str | None = None
    name: str | None = None
    host: str | None = None
    vm_state: str | None = None
    task_state: str | None = None
    updated_at: float | None = None
    emitted_at: float = 0.0
    trusted: bool = False
    reporter: str | None = None
    step: Step | None = None
    kind: Kind | None = None
    source: str | None = None
    destination: str | None = None
    landing: str | None = None
    deleted: bool = False
    local_delete: bool = False
    percent: int | None = None
    fault: str | None = None
    asked_at: float | None = None  # API rows: when the question was sent; what the bus said since then wins
    hindrance: str | None = None  # see `hindrances.of_flavor`; None where the flavor's extra specs are not shown
    memory_mb: int | None = None  # of its flavor
    asked_by: str | None = None  # the project from which the action was asked for, where the message is one
    metadata_keys: tuple[str, ...] | None = None  # sorted; None where its metadata is not shown


@dataclass(frozen=True, slots=True)
class TaskFailed:
    """compute_task.<task>.error: a failure before any compute acted (facts 2.8). `task` migrate_server, rebuild_server
    or build_instances."""

    seen_at: float
    because: Because
    server_id: str
    task: str
    fault: str | None = None
    vm_state: str | None = None
    emitted_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ServiceSeen:
    """A nova-compute service. `change` is created, updated or deleted for a notification, None for an API row.

    `up` is None where the source does not say (notifications do not). `cell_unknown` is status UNKNOWN (2.69): then
    nothing but the name is known.
    """

    seen_at: float
    because: Because
    host: str
    service_uuid: str | None = None
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    up: bool | None = None
    down_since: float | None = None
    cell_unknown: bool = False
    change: str | None = None
    emitted_at: float = 0.0
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class HostHinted:
    """Something happened on a host that names no server (compute.exception, libvirt.connect.error): look again."""

    seen_at: float
    because: Because
    host: str
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class MigrationSeen:
    """A row of os-migrations. `asked_by` is the project from which the move was asked for (2.80)."""

    seen_at: float
    because: Because
    server_id: str
    migration_id: int
    migration_uuid: str
    kind: Kind
    status: str
    source: str | None = None
    destination: str | None = None
    asked_by: str | None = None
    created_at: float | None = None
    updated_at: float | None = None
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class ProgressSeen:
    """A live migration under way, with its byte counters (GET /servers/{id}/migrations)."""

    seen_at: float
    because: Because
    server_id: str
    migration_id: int
    migration_uuid: str
    status: str
    source: str | None
    destination: str | None
    progress: Progress
    created_at: float | None = None
    updated_at: float | None = None
    asked_at: float | None = None


@dataclass(frozen=True, slots=True)
class ServicesListed:
    """A complete os-services list of nova-compute services was read; hosts not in it have no service any more."""

    seen_at: float
    because: Because
    asked_at: float
    hosts: frozenset[str]


@dataclass(frozen=True, slots=True)
class MovesListed:
    """A complete list of a server's migrations was read. One that we hold open and that is not in it has no row."""

    seen_at: float
    because: Because
    asked_at: float
    server_id: str
    migration_uuids: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServersListed:
    """A complete list of the servers on one host (or, with host None, of the whole cloud) was read.

    Servers we hold there and that are not in it, and of which nothing was seen since `asked_at`, have left.
    """

    seen_at: float
    because: Because
    asked_at: float
    host: str | None
    server_ids: frozenset[str]


@dataclass(frozen=True, slots=True)
class NodesSeen:
    """The compute nodes (hypervisor uuids) of a host."""

    seen_at: float
    because: Because
    host: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BaselineCompleted:
    """The whole cloud was read once over the API: services, servers, open migrations. Healing after a gap too."""

    seen_at: float
    because: Because
    asked_at: float


class Read(StrEnum):
    """The reads of one verification pass, in the order in which they must be asked (facts 6.3)."""

    MIGRATIONS = "os-migrations"  # before the servers and again after the allocations
    HYPERVISOR = "os-hypervisors"
    SERVERS = "servers"
    PROVIDERS = "resource_providers"
    ALLOCATIONS = "allocations"
    TRAITS = "traits"
    CONSUMER = "server"  # one server by id, to learn what a leftover consumer is
    SERVICE = "os-services"


@dataclass(frozen=True, slots=True)
class PassBegun:
    """A verification pass over a host is about to ask its first question. `pass_number` counts up per host."""

    seen_at: float
    because: Because
    host: str
    pass_number: int


@dataclass(frozen=True, slots=True)
class PassRead:
    """One answer (or the lack of one) of a verification pass.

    `complete` is False while more pages follow. `error` says why there is no answer, and spoils the pass. `target` is
    the provider, hypervisor or server asked about. `found` are the things shown: `MigrationSeen`, `ServerSeen`,
    `ServiceSeen` values, or texts (provider uuids, consumer uuids, traits, hypervisors' server ids).
    """

    seen_at: float
    because: Because
    host: str
    pass_number: int
    read: Read
    asked_at: float
    target: str | None = None
    found: tuple[object, ...] = ()
    complete: bool = True
    error: str | None = None


@dataclass(frozen=True, slots=True)
class BusSeen:
    """The state of a bus changed: connected, lost, blind (something may have been missed), healed; or, once it had been
    found deaf, heard again.
    """

    seen_at: float
    because: Because
    bus: str
    state: str
    blind_from: float | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ComputeHeard:
    """A host's nova-compute was heard on a bus on which it was not heard last."""

    seen_at: float
    because: Because
    host: str
    bus: str


@dataclass(frozen=True, slots=True)
class Watching:
    """Somebody is watching at this moment: what is kept of that says, after an end, since when nobody was."""

    seen_at: float
    because: Because = field(default=Because("clock"))


@dataclass(frozen=True, slots=True)
class DrainRequested:
    """An operator said `maintd drain start HOST`; with `removal`, that the host goes for good."""

    seen_at: float
    because: Because
    host: str
    removal: bool = False


@dataclass(frozen=True, slots=True)
class OwnersListening:
    """From now on owners of servers are told what touches these: what does so already is told too."""

    seen_at: float
    because: Because


@dataclass(frozen=True, slots=True)
class ResidueCleared:
    """An operator said that nothing of the residue is left on the host, and accepts a history nobody saw.

    With `server_ids` the word is about what these may have left, and without `history` nothing more is accepted.
    """

    seen_at: float
    because: Because
    host: str
    who: str | None = None
    server_ids: frozenset[str] | None = None
    history: bool = True


@dataclass(frozen=True, slots=True)
class EndpointDisabled:
    """The way out has given an endpoint up. `endpoint` is the subscription's id, or the webhook's name; `reason`
    failing or gone."""

    seen_at: float
    because: Because
    endpoint: str
    reason: str
    failing_since: float | None = None


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A timer of some value is due (see `Fleet.next_due`)."""

    seen_at: float
    because: Because = field(default=Because("clock"))
    subject: tuple[str, str] = ("", "")


Observation = (
    ServerSeen
    | TaskFailed
    | ServiceSeen
    | HostHinted
    | MigrationSeen
    | MovesListed
    | ProgressSeen
    | ServicesListed
    | ServersListed
    | NodesSeen
    | BaselineCompleted
    | PassBegun
    | PassRead
    | BusSeen
    | ComputeHeard
    | Watching
    | DrainRequested
    | OwnersListening
    | ResidueCleared
    | EndpointDisabled
    | TimerDue
)
