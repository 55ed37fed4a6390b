"""The one place where what is seen becomes what is true and what is said: fold, judge, diff.

*Fold* takes one observation into a draft of the fleet (`servers`, `moves`, `rows`, `services`, `buses`, `passes`,
`residue`). *Judge* derives what follows for the hosts it touched: does a drain begin (`drains`), is a proof wanted, has
something arrived. *Diff* (`diff`) compares each changed value before and after; an edge is an event.

`reduce` is deterministic and does no I/O: the time is the observation's, ids come from the caller. It reads only what
is indexed, so one observation costs the same in any cloud. It never says `host.emptied` but at the end of the second
of two whole verification passes that found nothing, with nothing seen of the host in between (`passes.fold_pass_read`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maintd.domain import emptiness, events
from maintd.domain.buses import fold_bus, fold_compute_heard, fold_listen_due, fold_watching, heal, notice_silence
from maintd.domain.copying import replace
from maintd.domain.diff import diff
from maintd.domain.draft import MOVING_PHASES, Draft
from maintd.domain.drains import fold_drain_requested, judge_drain, remaining
from maintd.domain.events import Event
from maintd.domain.fleet import NOTHING_CHANGED, Fleet, Outcome
from maintd.domain.model import (
    Blocker,
    Host,
    Knowledge,
    Migration,
    Phase,
    Server,
    Value,
    Verification,
)
from maintd.domain.moves import end, fold_task_failed
from maintd.domain.observations import (
    BaselineCompleted,
    BusSeen,
    ComputeHeard,
    DrainRequested,
    EndpointDisabled,
    HostHinted,
    MigrationSeen,
    MovesListed,
    NodesSeen,
    Observation,
    OwnersListening,
    PassBegun,
    PassRead,
    ProgressSeen,
    ResidueCleared,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    ServicesListed,
    TaskFailed,
    TimerDue,
    Watching,
)
from maintd.domain.passes import fold_pass_begun, fold_pass_read
from maintd.domain.residue import fold_residue_cleared
from maintd.domain.rows import fold_migration_row, fold_moves_listed, fold_progress
from maintd.domain.servers import fold_server, fold_servers_listed
from maintd.domain.services import (
    fold_heartbeat_due,
    fold_hint,
    fold_nodes,
    fold_service,
    fold_services_listed,
    open_host,
)
from maintd.domain.stalls import judge_migration, to_judge
from maintd.domain.tenant_events import TenantEvent
from maintd.domain.tenants import tell_owners


def reduce(fleet: Fleet, observation: Observation, ids: Callable[[], str]) -> Outcome:
    """What one observation changes, and what is to be published because of it.

    `fleet` is only read, and has the policy; `ids` gives a new id whenever called. Apply the outcome before reducing
    the next observation.
    """
    draft = Draft(fleet, ids, observation.because, observation.seen_at)
    _FOLDS[type(observation)](draft, observation)
    d = draft
    if not (
        d.changed or d.touched or d.removed or d.forgotten or d.emptied or d.requested or d.before_events or d.everyone
    ):
        return NOTHING_CHANGED
    notice_silence(draft)
    for key in to_judge(draft):
        judge_migration(draft, key)
    closed = fleet.closed_hosts()
    for name in list(draft.touched):
        if name in closed or (Host, name) in draft.changed:  # of a host that was open and is, nothing follows
            _judge_host(draft, name)
    said: list[Event | TenantEvent] = [*diff(draft)]
    if fleet.policy.tenants:
        said += tell_owners(draft)
    saved = tuple(v for (table, key), v in draft.changed.items() if _held(fleet, table, key) != v)
    return Outcome(saved, tuple(draft.removed.values()), tuple(draft.forgotten.values()), tuple(said))


def _fold_owners_listening(d: Draft, o: OwnersListening) -> None:
    d.everyone = True


def _held(fleet: Fleet, table: type, key: str) -> Value | None:
    return fleet._tables[table].get(key)


def _fold_baseline(d: Draft, o: BaselineCompleted) -> None:
    known = d.fleet.knowledge or Knowledge(memory_since=o.seen_at)
    if known.baselined_at is None or known.baselined_at != o.seen_at:
        d.put(replace(known, baselined_at=o.seen_at, alive_at=o.seen_at if known.alive_at is not None else None))
    heal(d, o.asked_at)
    d.touch(*sorted(d.fleet.closed_hosts()))


def _fold_timer(d: Draft, o: TimerDue) -> None:
    table, key = o.subject
    if table == "Migration":
        m = d.fleet.migration(key)
        if m is None:
            return
        if m.ended_at is not None:
            d.forgotten[(Migration, key)] = m
        elif m.verdict is not None and m.verdict_at is not None and m.verdict_at <= d.now:
            d.because = m.verdict_because or d.because
            end(d, m, m.verdict, None)
        elif m.stall_at is not None and m.stall_at <= d.now:
            d.put(replace(m, stall_at=None))  # judged again below
    elif table == "Server":
        s = d.fleet.server(key)
        if s is not None and s.deleted_at is not None:
            d.removed[(Server, key)] = s
    elif table == "Drain":
        drain = d.fleet.drain(key)
        if drain is not None and drain.ended_at is None and drain.stalled_at is None:
            host = d.host(drain.host)
            if host is None or host.emptied or not remaining(d, host):
                d.put(replace(drain, moved_at=d.now))
            elif d.now - drain.moved_at >= d.policy.stalled_after_s:
                d.put(replace(drain, stalled_at=d.now))
            d.touch(drain.host)
    elif table == "Host":
        fold_heartbeat_due(d, key)
    elif table == "Bus":
        fold_listen_due(d, key)


def _fold_endpoint_disabled(d: Draft, o: EndpointDisabled) -> None:
    """Nothing of the fleet changes; but operators are to hear of it, and there is one who appends to their log."""
    since = None if o.failing_since is None else events.Instant(o.failing_since)
    d.before_events.append(
        events.SubscriptionDisabled(because=d.because, subscription_id=o.endpoint, reason=o.reason, failing_since=since)
    )


_FOLDS: dict[type, Callable[[Draft, Any], None]] = {
    ServerSeen: fold_server,
    TaskFailed: fold_task_failed,
    ServiceSeen: fold_service,
    HostHinted: fold_hint,
    MigrationSeen: fold_migration_row,
    ProgressSeen: fold_progress,
    MovesListed: fold_moves_listed,
    ServicesListed: fold_services_listed,
    ServersListed: fold_servers_listed,
    NodesSeen: fold_nodes,
    BaselineCompleted: _fold_baseline,
    PassBegun: fold_pass_begun,
    PassRead: fold_pass_read,
    BusSeen: fold_bus,
    ComputeHeard: fold_compute_heard,
    Watching: fold_watching,
    DrainRequested: fold_drain_requested,
    OwnersListening: _fold_owners_listening,
    ResidueCleared: fold_residue_cleared,
    EndpointDisabled: _fold_endpoint_disabled,
    TimerDue: _fold_timer,
}


def _forget_departed(d: Draft, host: Host, moves: list[Migration]) -> Host:
    """What the last pass found of a server that has left since is not said any more.

    No pass runs while something is known to be here, so a finding may be old when one of several has gone.
    """
    finding = host.finding
    if finding is None or not any(b.kind in emptiness.OF_A_SERVER for b in finding.blockers):
        return host
    moving = {m.server_id for m in moves}

    def gone(b: Blocker) -> bool:
        if b.kind not in emptiness.OF_A_SERVER or b.server_id is None or b.server_id in moving:
            return False
        s = d.server(b.server_id)
        if s is None or s.seen_at < finding.at:
            return False  # what the pass saw is younger
        return s.deleted_at is not None or s.host not in (None, host.name)

    kept = tuple(b for b in finding.blockers if not gone(b))
    if kept == finding.blockers:
        return host
    kept = kept or (Blocker("verifying", since=d.now, detail="what the last look found here has left since"),)
    host = replace(host, finding=replace(finding, blockers=kept))
    d.put(host)
    return host


def _judge_host(d: Draft, name: str) -> None:
    host = d.host(name)
    if host is None:
        return
    if not host.closed:
        open_host(d, host)
        return
    here, landing = d.servers_on(name), d.landing_on(name)
    moves = d.open_migrations_on(name)
    if host.quiet and (here or landing or moves or host.history_unknown or d.residue_on(name)):
        host = replace(host, quiet=False)
        d.put(host)
    host = _forget_departed(d, host, moves)
    host = judge_drain(d, host, here, moves)
    # Once it has arrived, a server counts by its host; an unconfirmed move then holds its source alone.
    moves = [m for m in moves if m.source == name or m.phase in MOVING_PHASES]
    arriving = [m for m in moves if m.destination == name or m.phase is Phase.REVERTING]
    if host.emptied and name not in d.emptied and (here or landing or arriving):
        host = replace(host, emptied=False)
        d.put(host)
    waiting = [m for m in moves if m.verdict is None]
    v = d.verification(name)
    # A server said to be landing here stops no pass: if it is, Placement holds it here; if not, the pass settles that.
    candidate = not (here or waiting)
    if not d.policy.has_cloud:
        return
    if host.emptied:
        seen_since = (Verification, name) in d.changed and v.generation != v.first_generation
        if v.verify_at is None and v.begun_at is None and seen_since and v.named_at == d.now:
            d.put(replace(v, verify_at=d.now))
    elif candidate and v.verify_at is None and v.begun_at is None:
        d.put(replace(v, verify_at=d.now, tries=0))
    elif not candidate and v.verify_at is not None:
        d.put(replace(v, verify_at=None, tries=0))
