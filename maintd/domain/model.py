"""What we hold true of a cloud: hosts, servers, migrations, drains, residue, buses.

All values are frozen; a change is a new value. Every timer is a field (`..._at`), so that what is due can be computed
from the values alone. Times are seconds since the epoch, UTC. The words are Nova's where Nova has one: *status* is
Nova's and kept verbatim, *phase* is ours and comes from the table in `migrations.py`.

This module deliberately holds no rule: what follows from what was seen is in `reducer.py` and its neighbours, and what
is kept in a database is `store/`'s affair. `Verification` is never stored: proofs begin anew after a restart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    """Nova's four kinds of migration (`migration_type`)."""

    LIVE = "live-migration"
    COLD = "migration"
    RESIZE = "resize"
    EVACUATION = "evacuation"


class Phase(StrEnum):
    """Where a migration stands, whatever its kind. Final phases never change again."""

    ASKED = "asked"  # somebody asked for it; no compute has begun (accepted, pre-migrating without a destination)
    QUEUED = "queued"  # waits in the source's queue
    PREPARING = "preparing"  # the destination prepares
    RUNNING = "running"  # memory or disks are being copied, or the evacuated server is being rebuilt
    FINISHING = "finishing"  # the server runs on the destination, the source is cleaning up
    ROLLING_BACK = "rolling_back"  # it did not work; the server stays on the source
    AWAITING_CONFIRMATION = "awaiting_confirmation"  # finished, unconfirmed: the source still holds the disks
    CONFIRMING = "confirming"
    REVERTING = "reverting"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in FINAL_PHASES


FINAL_PHASES = frozenset({Phase.COMPLETED, Phase.FAILED, Phase.CANCELLED})


@dataclass(frozen=True, slots=True)
class Because:
    """Why something was said: the message, answer, timer or person behind it."""

    origin: str  # notification | api | clock | operator
    event_type: str | None = None
    message_id: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Blocker:
    """One reason why a host is not empty; `kind` is one of `emptiness.BLOCKER_KINDS`.

    `remedy` is the next command that helps, or None where there is none. `project_id` is the server's.
    """

    kind: str
    server_id: str | None = None
    migration_key: str | None = None
    since: float | None = None
    detail: str | None = None
    remedy: str | None = None
    project_id: str | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """A warning, a piece of residue, or an occupant: something named in an event, but no reason against it."""

    kind: str
    server_id: str | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ProofRead:
    """One answer on which a proof rests: what was read, in which pass, when, and how many things it showed."""

    read: str
    pass_: int
    at: float
    count: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What the last verification pass over a host found. No blockers means that the pass found it empty."""

    at: float
    blockers: tuple[Blocker, ...] = ()
    warnings: tuple[Note, ...] = ()
    proof: tuple[ProofRead, ...] = ()


@dataclass(frozen=True, slots=True)
class Departure:
    """A server that was found gone, with nobody saying how: when, and what kind of residue that would be.

    `lived`: its host has been seen up since, which says something only if that is not the stale word of a dead compute.
    """

    server_id: str
    kind: str
    at: float
    lived: bool = False


@dataclass(frozen=True, slots=True)
class Host:
    """A host: the name Nova's compute service runs under, *and* that service's uuid.

    `nodes` are the uuids of its compute nodes (the roots of its provider trees), empty while unknown. `found` says
    that it was already closed when it was first seen. `quiet` says in addition that nothing has been seen on it
    since: its emptiness is then shown, not published (first sight is a baseline). `emptied` holds from the moment it is
    proven empty until something arrives or it is opened.

    Of the heartbeat, `up` is what Nova says now, `said_up` what was last told to anybody (at first sight: what Nova
    said); they differ while a change has still to last until `say_up_at`. `heard_on` is the bus on which the compute
    was last heard: the one that speaks for this host.

    `departures` are servers that were found gone with nobody saying how: they left something behind if the host turns
    out to have been down by then.
    """

    name: str
    service_uuid: str | None = None
    disabled: bool = False
    disabled_reason: str | None = None
    forced_down: bool = False
    up: bool | None = None
    down_since: float | None = None
    cell_unknown: bool = False
    seen_at: float = 0.0
    versioned_at: float = 0.0
    closed_at: float | None = None
    found: bool = False
    quiet: bool = False
    history_unknown: bool = False
    emptied: bool = False
    emptied_at: float | None = None
    drain_id: str | None = None
    nodes: tuple[str, ...] = ()
    finding: Finding | None = None
    last_down_from: float | None = None
    last_down_to: float | None = None
    said_up: bool | None = None
    said_up_at: float | None = None
    say_up_at: float | None = None
    heard_on: str | None = None
    departures: tuple[Departure, ...] = ()

    @property
    def closed(self) -> bool:
        return self.disabled or self.forced_down

    @property
    def down(self) -> bool:
        """Whether its nova-compute does nothing: said so by an operator, or its heartbeat is not heard."""
        return self.forced_down or self.up is False

    @property
    def planned(self) -> bool:
        """Whether it was closed before its heartbeat ended: somebody meant it to."""
        return self.closed and (self.closed_at or 0.0) <= (self.down_since or self.closed_at or 0.0)

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Server:
    """A server, as last known. `landing` is a host it is on its way to without a migration (a build, an unshelve).

    `updated_at` is Nova's row version (1 s), `versioned_at` the emitter's clock of that knowledge; together they tell
    stale from new. A deleted server is remembered for a while, so that a late message cannot bring it back.

    `since` is when what is now the case began: on this host, in this state. `failed_at` is when the last attempt to
    move it failed or was given up, until another begins or it is elsewhere; `fault` is then what Nova said of it, else
    what Nova says of a server in ERROR. `hindrance` is what its flavor says against moving it live (`hindrances.py`);
    "" where it says nothing, None while it is not known. `metadata_keys` are the names in its metadata, sorted.
    """

    server_id: str
    project_id: str | None = None
    name: str | None = None
    host: str | None = None
    landing: str | None = None
    vm_state: str | None = None
    task_state: str | None = None
    updated_at: float | None = None
    versioned_at: float = 0.0
    seen_at: float = 0.0
    deleted_at: float | None = None
    fault: str | None = None
    since: float | None = None
    failed_at: float | None = None
    hindrance: str | None = None
    memory_mb: int | None = None
    metadata_keys: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.server_id


@dataclass(frozen=True, slots=True)
class Progress:
    """Byte counters of a live migration as Nova gives them; None where Nova has none yet."""

    memory_total_bytes: int | None = None
    memory_processed_bytes: int | None = None
    memory_remaining_bytes: int | None = None
    disk_total_bytes: int | None = None
    disk_processed_bytes: int | None = None
    disk_remaining_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Migration:
    """A move of one server. `key` is ours and never changes; Nova's ids are there once the API has named them.

    `verdict` is what the bus says the end was; it holds from `verdict_at` on unless the API speaks first.
    `sampled_at` is the last look at `progress`, `moved_at` the last time that anything about the move changed.
    `asked_by` is the project from which it was asked for, `project_id` the server's own.
    `unlisted_at`: since then Nova, asked for the moves of this server, shows none that this could be. `worked_from`:
    from then on somebody was at work on it; before that it was asked for, or waited in a queue. `memory_mb` is the
    server's when the move began.
    """

    key: str
    server_id: str
    kind: Kind
    phase: Phase
    source: str | None = None
    destination: str | None = None
    status: str | None = None
    migration_id: int | None = None
    migration_uuid: str | None = None
    project_id: str | None = None
    request_id: str | None = None
    begun_at: float = 0.0
    emitted_at: float = 0.0
    stepped: bool = False
    said_started: bool = False
    aborted: bool = False
    post_copy: bool = False
    progress: Progress | None = None
    percent: int | None = None
    updated_at: float | None = None
    sampled_at: float | None = None
    moved_at: float = 0.0
    stalled: str | None = None
    stalled_since: float | None = None
    stall_at: float | None = None
    verdict: Phase | None = None
    verdict_at: float | None = None
    ended_at: float | None = None
    fault: str | None = None
    verdict_because: Because | None = None
    unlisted_at: float | None = None
    worked_from: float | None = None
    memory_mb: int | None = None
    asked_by: str | None = None

    @property
    def open(self) -> bool:
        return self.phase not in FINAL_PHASES


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of a pre-copy over what was dirty when it began; `count` several that went by between two looks.

    `size` is what each had to send, in the curve's unit. `clear`: it was long enough to be seen for itself; else its
    size is a guess.
    """

    began_at: float
    size: float
    count: float = 1.0
    clear: bool = True


@dataclass(frozen=True, slots=True)
class Point:
    """One look at a live migration, in the curve's unit. `processed` is None where only the bus told of it."""

    at: float
    remaining: float
    disk_remaining: float = 0.0
    processed: float | None = None


@dataclass(frozen=True, slots=True)
class Block:
    """Of a curve in per cent, what is seen since the last pass was closed: how high it stood, in how many looks."""

    began_at: float
    top: float
    looks: int = 1
    rises: int = 0


@dataclass(frozen=True, slots=True)
class Curve:
    """What is kept of the looks at a live migration: enough to judge it, to estimate its end, and to draw it.

    `key` is the migration's. `unit` is `bytes` (counters of the API) or `percent` (of memory, all that the bus tells);
    sizes, `total` and speeds (per second) are in it. `points` are thinned as they grow old, and the newest is the last
    look. `changed_at` is the last look that differed from the one before, `kept_at` when the store was last given this:
    it need not have every look. Memory is copied from `copying_from` on, when `copied_before` had been sent; the disks
    go before that. `rate` is what the link carried between the last two looks, where no pass ended in between;
    `bandwidth` is what it carries lately. `falls`, `falling` (where the fall that goes on began) and `block` are how a
    curve in per cent finds its passes. `flat_since`: for so long every look has found that its passes do not shrink.
    """

    key: str
    server_id: str
    source: str | None = None
    destination: str | None = None
    unit: str = "bytes"
    total: float = 0.0
    disk_total: float = 0.0
    began_at: float = 0.0
    changed_at: float = 0.0
    looks: int = 0
    copying_from: float | None = None
    copied_before: float = 0.0
    rate: float | None = None
    bandwidth: float | None = None
    disk_bandwidth: float | None = None
    first_pass_ended_at: float | None = None
    points: tuple[Point, ...] = ()
    passes: tuple[Pass, ...] = ()
    falls: tuple[float, ...] = ()
    falling: Point | None = None
    fall_looks: int = 0
    block: Block | None = None
    flat_since: float | None = None
    kept_at: float = 0.0
    ended_at: float | None = None
    outcome: str | None = None

    @property
    def due(self) -> bool:
        """Whether the store is to be given this: it has just been made so that it is."""
        return not self.points or self.kept_at == self.points[-1].at or self.ended_at is not None


@dataclass(frozen=True, slots=True)
class Stall:
    """One time that a migration was stalled for one reason, and what came of it.

    `published` False: shadow mode (`[stall] observe_only`): nothing was said, it is only noted. `resumed_at`: when it
    passed; `ended_at` and `outcome` (completed, failed, cancelled) are the migration's. `evidence` is what the verdict
    rests on, `blocked_by` the key of the migration that is to blame.
    """

    key: str
    migration_key: str
    server_id: str
    kind: str
    reason: str
    since: float
    said_at: float
    source: str | None = None
    destination: str | None = None
    published: bool = True
    resumed_at: float | None = None
    ended_at: float | None = None
    outcome: str | None = None
    blocked_by: str | None = None
    evidence: dict[str, object] | None = None

    @property
    def standing(self) -> bool:
        return self.resumed_at is None and self.ended_at is None


@dataclass(frozen=True, slots=True)
class Estimate:
    """How long something may still take, in seconds from when it was asked: the middle, and a band that holds nine
    times in ten."""

    seconds: float
    low_seconds: float
    high_seconds: float


@dataclass(frozen=True, slots=True)
class Drain:
    """The intent to empty a closed host, until it is opened or removed. `outcome` is ended or cancelled once over.

    `removal`: the operator said that the host goes for good.
    """

    drain_id: str
    host: str
    started_at: float
    reason: str | None = None
    forced_down: bool = False
    found: bool = False
    requested: bool = False
    servers_total: int | None = None
    moved_at: float = 0.0
    stalled_at: float | None = None
    ended_at: float | None = None
    outcome: str | None = None
    removed: bool = False
    removal: bool = False

    @property
    def key(self) -> str:
        return self.drain_id


@dataclass(frozen=True, slots=True)
class Residue:
    """What a server may have left on a host that Nova no longer connects with it (facts 2.6, 2.7).

    `kind` is `evacuated` (cleared when the migration row turns completed) or `deleted_while_down` (cleared by an
    operator). A cleared one keeps its row, so that it can be shown; `service_uuid` says which service's it was.
    """

    host: str
    server_id: str
    kind: str
    since: float
    service_uuid: str | None = None
    migration_uuid: str | None = None
    detail: str | None = None
    cleared_at: float | None = None
    cleared_by: str | None = None
    project_id: str | None = None

    @property
    def key(self) -> str:
        return f"{self.host}/{self.server_id}/{self.kind}"


@dataclass(frozen=True, slots=True)
class Bus:
    """A message bus we listen to. `blind_from` is set from the moment we may have missed something until healed.

    `deaf_from`: connected, yet the API has shown since then what the bus should have told; until something is heard
    again. `listen_by`: by then it must have told what the API has just shown.
    """

    name: str
    connected: bool = False
    blind_from: float | None = None
    reconnected_at: float | None = None
    last_message_at: float | None = None
    deaf_from: float | None = None
    listen_by: float | None = None

    @property
    def heard(self) -> bool:
        """Whether everything that Nova says here reaches us, as far as we know."""
        return self.connected and self.blind_from is None and self.deaf_from is None

    @property
    def key(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Notice:
    """What the owner of a server has been told that touches it. One with nothing left to tell is forgotten.

    `incarnation` is the number, among all that its project was told, of what was told last. `drain_id` and `move_key`
    say of which drain and migration that was; no owner sees them, nor any host. `stalled` is one of `tenants.STALLS`.
    `lost_since`: nobody has control of the server's host, and whether the server runs is not known. `widespread`: that
    was told of many hosts at about the same time.
    """

    server_id: str
    project_id: str
    incarnation: int = 0
    drain_id: str | None = None
    maintenance_since: float | None = None
    removal: bool = False
    move_key: str | None = None
    move_kind: str | None = None
    move_since: float | None = None
    asked_for_by: str = "unknown"
    stalled: str | None = None
    lost_since: float | None = None
    forced_down: bool = False
    widespread: bool = False
    metadata_keys: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return self.server_id


@dataclass(frozen=True, slots=True)
class Project:
    """A project that was told anything: how many things, and when it may see the last of them."""

    project_id: str
    incarnation: int = 0
    visible_at: float = 0.0

    @property
    def key(self) -> str:
        return self.project_id


@dataclass(frozen=True, slots=True)
class Knowledge:
    """How much we know at all: since when we remember, whether the whole cloud was ever read over the API, and until
    when somebody was surely watching (`alive_at`: what happened after it, before a start, may have been missed)."""

    memory_since: float
    baselined_at: float | None = None
    alive_at: float | None = None

    @property
    def key(self) -> str:
        return "fleet"


@dataclass(frozen=True, slots=True)
class Verification:
    """The proof of a closed host's emptiness in the making. In memory only.

    `generation` counts what was seen of the host; a pass holds only if it did not move from the pass's beginning to its
    end, two passes only if it did not move between them. `named_at` is the same in time, for recordings. `not_back`:
    the servers whose move away is reverted and who had not come back yet when the last whole pass looked, and those
    that left unheard, perhaps while the host was down: how is said by their rows, as long as there are any.
    """

    host: str
    generation: int = 0
    named_at: float = 0.0
    pass_number: int = 0
    begun_at: float | None = None
    begun_generation: int = 0
    reads: tuple[object, ...] = ()
    first: Finding | None = None
    first_generation: int = 0
    first_looked_at: float = 0.0
    verify_at: float | None = None
    tries: int = 0
    leftovers: tuple[tuple[str, float], ...] = ()
    not_back: tuple[str, ...] = ()
    failure: str | None = None

    @property
    def key(self) -> str:
        return self.host


@dataclass(frozen=True, slots=True)
class HostSlice:
    """All that we hold about one host, for judging it alone. `migrations` are the open ones, from and to it; read from
    the store, also those that have ended lately."""

    host: Host
    servers: tuple[Server, ...] = ()
    migrations: tuple[Migration, ...] = ()
    residue: tuple[Residue, ...] = ()
    drain: Drain | None = None


Entity = Host | Server | Migration | Curve | Stall | Drain | Residue | Bus | Notice | Project | Knowledge
"""What the store keeps."""

Value = Entity | Verification
"""What the fleet holds in memory."""


STALL_AFTER_S = {
    "host_down": 60.0,
    "orphan_task": 120.0,
    "frozen": 60.0,
    "not_converging": 30.0,
    "not_started": 300.0,
    "queue_blocked": 300.0,
    "slow_step": 1800.0,
    "late": 120.0,
}
"""Every reason to call a migration stalled, the gravest first, with the seconds for which it must have held.

Of two that hold, the one that stands first here is said. For `late` they are added to what the move may take at all."""


@dataclass(frozen=True, slots=True)
class NovaLive:
    """How Nova's libvirt driver lets a live migration end, as its nova.conf says ([libvirt] live_migration_...).

    The permitted downtime rises to `downtime_s` in `downtime_steps` steps, each `downtime_delay_s` x GiB long; after
    `completion_timeout_s` x GiB `timeout_action` follows (abort or force_complete; 0: never). GiB are those of memory,
    at least 2, and of the disks that are copied (nova/virt/libvirt/driver.py, migration.py).
    """

    downtime_s: float = 0.5
    downtime_steps: int = 10
    downtime_delay_s: float = 75.0
    completion_timeout_s: float = 800.0
    timeout_action: str = "abort"


@dataclass(frozen=True, slots=True)
class Policy:
    """The operator's settings that the core needs; defaults are the product's."""

    settle_s: float = 15.0
    stalled_after_s: float = 900.0
    reason_match: tuple[str, ...] = ("*maint*", "*drain*")
    removal_match: tuple[str, ...] = ("*decommission*", "*retire*")
    accept_residue: bool = False
    trust_reap: bool = False
    leftover_grace_s: float = 300.0
    api_word_s: float = 30.0
    lost_after_s: float = 12.0
    many_lost: int = 5
    has_cloud: bool = False
    has_bus: bool = True
    remember_ended_s: float = 3600.0
    stall_after_s: dict[str, float] = field(default_factory=lambda: dict(STALL_AFTER_S))
    observe_only: frozenset[str] = frozenset()
    expected_bandwidth: float = 110 * 1024 * 1024
    nova: NovaLive = NovaLive()
    tenants: bool = False
    tenant_jitter_s: float = 0.0
