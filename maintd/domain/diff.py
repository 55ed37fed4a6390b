"""The edges between the fleet as it was and as it will be: each is an event.

Nothing is decided here. Seeing a thing twice changes nothing, so it says nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maintd.domain import emptiness, estimates, events
from maintd.domain.copying import replace
from maintd.domain.detectors import ADVICE
from maintd.domain.draft import Draft
from maintd.domain.events import Event, Instant
from maintd.domain.migrations import (
    STATUSES,
)
from maintd.domain.model import (
    Because,
    Bus,
    Curve,
    Drain,
    Host,
    Kind,
    Migration,
    Note,
    Phase,
    Policy,
    Stall,
)


def diff(d: Draft) -> list[Event]:
    """The edges between the fleet as it was and as it will be, in the order in which they are best heard."""
    out: list[Event] = list(d.before_events)
    because = d.because
    hosts: list[tuple[Host | None, Host]] = []
    drains: list[tuple[Drain | None, Drain]] = []
    migrations: list[tuple[Migration | None, Migration]] = []
    buses: list[tuple[Bus | None, Bus]] = []
    for (_, key), value in d.changed.items():
        if isinstance(value, Migration):
            migrations.append((d.fleet.migration(key), value))
        elif isinstance(value, Host):
            hosts.append((d.fleet.host(key), value))
        elif isinstance(value, Drain):
            drains.append((d.fleet.drain(key), value))
        elif isinstance(value, Bus):
            buses.append((d.fleet.bus(key), value))
    for old, drain in drains:
        if drain.removed:
            _diff_drain(out, old, drain, because, d)
    for before, after in hosts:
        _diff_service(out, before, after, because, d)
    _diff_heartbeats(out, hosts, because, d.policy)
    for old, drain in drains:
        if old is None:
            out.append(
                events.DrainStarted(
                    because=because,
                    drain_id=drain.drain_id,
                    host=drain.host,
                    reason=drain.reason,
                    forced_down=drain.forced_down,
                    found=drain.found,
                    servers_total=drain.servers_total,
                    removal=drain.removal,
                )
            )
    for old_migration, migration in migrations:
        _diff_migration(out, old_migration, migration, because, d)
    for before, after in hosts:
        _diff_emptiness(out, before, after, because, d)
    for old, drain in drains:
        if not drain.removed:
            _diff_drain(out, old, drain, because, d)
    for old_bus, bus in buses:
        _diff_bus(out, old_bus, bus, because, d.now)
    return out


def _diff_service(out: list[Event], before: Host | None, after: Host, because: Because, d: Draft) -> None:
    name, reason = after.name, after.disabled_reason
    live = because.origin == "notification"
    if before is None and not live:
        return  # first sight is a baseline
    recreated = (Host, name) in d.removed or (before is not None and before.service_uuid != after.service_uuid)
    if recreated or (because.event_type == "service.create" and before is None):
        out.append(events.ServiceCreated(because=because, host=name, since=Instant(d.now)))
    if recreated and not live:
        return  # the new service is seen for the first time: a baseline
    was = before if before is not None and not recreated else Host(name)
    if after.disabled and not was.disabled:
        out.append(events.ServiceDisabled(because=because, host=name, reason=reason))
    if was.disabled and not after.disabled:
        out.append(events.ServiceEnabled(because=because, host=name, reason=reason))
    if after.forced_down and not was.forced_down:
        out.append(events.ServiceForcedDown(because=because, host=name, reason=reason))
    if was.forced_down and not after.forced_down:
        out.append(events.ServiceForceDownLifted(because=because, host=name, reason=reason))


def _diff_heartbeats(out: list[Event], hosts: list[tuple[Host | None, Host]], because: Because, policy: Policy) -> None:
    """What is told of heartbeats that have ended or are back; the loss of many at once is one event."""
    same = [(old, new) for old, new in hosts if old and old.service_uuid in (None, new.service_uuid)]
    told = [(old, new) for old, new in same if old.said_up is not None and old.said_up != new.said_up]
    lost = [new for old, new in told if new.said_up is False]
    if len(lost) >= policy.many_lost:
        since = min((h.down_since for h in lost if h.down_since is not None), default=None)
        names = tuple(h.name for h in lost)
        planned = lost[0].planned
        out.append(events.ServicesLost(because=because, hosts=names, since=_instant(since), planned=planned))
    else:
        for h in lost:
            since = _instant(h.down_since)
            out.append(events.ServiceLost(because=because, host=h.name, since=since, planned=h.planned))
    for _, h in told:
        if h.said_up is True:
            out.append(events.ServiceRecovered(because=because, host=h.name, since=_instant(h.last_down_from)))


def _instant(at: float | None) -> Instant | None:
    return None if at is None else Instant(at)


def _fields(m: Migration) -> dict[str, Any]:
    return {
        "migration_key": m.key,
        "migration_id": m.migration_id,
        "migration_uuid": m.migration_uuid,
        "server_id": m.server_id,
        "kind": str(m.kind),
        "source": m.source,
        "destination": m.destination,
    }


_ENDS: dict[Phase, Callable[..., Event]] = {
    Phase.COMPLETED: events.MigrationCompleted,
    Phase.FAILED: events.MigrationFailed,
    Phase.CANCELLED: events.MigrationCancelled,
    Phase.AWAITING_CONFIRMATION: events.MigrationAwaitingConfirmation,
}


def _diff_migration(out: list[Event], before: Migration | None, m: Migration, because: Because, d: Draft) -> None:
    if (before is not None and not before.open) or (before is None and not m.open and m.said_started):
        return  # it was over, or was so before it was known
    old_phase = before.phase if before else None
    speaks = m.phase != old_phase and m.phase in _ENDS
    begun, passed = _stalls(d, m)
    ready = bool(m.source and m.destination) and (m.kind is not Kind.LIVE or m.stepped or m.migration_uuid is not None)
    if not (speaks or begun or passed or (ready and not m.said_started)):
        return
    fields = _fields(m)
    if not m.said_started and (ready or speaks or begun):
        out.append(events.MigrationStarted(because=because, **fields))
        d.put(replace(m, said_started=True))
    for stall in passed:
        since = Instant(d.now)
        out.append(events.MigrationResumed(because=because, **fields, reason=stall.reason, since=since))
    for stall in begun:
        out.append(_stalled(d, m, stall, because, fields))
    if speaks:
        duration = round(max(0.0, d.now - m.begun_at), 6)
        fits = m.status is not None and STATUSES[m.kind].get(m.status) is m.phase  # else it is an earlier word
        status = m.status if fits else None
        out.append(_ENDS[m.phase](because=because, **fields, status=status, duration_seconds=duration))


def _stalls(d: Draft, m: Migration) -> tuple[list[Stall], list[Stall]]:
    """The published stalls of a migration that begin now, and those that pass while it goes on."""
    stalls = [s for s in d.changed.values() if isinstance(s, Stall) and s.migration_key == m.key and s.published]
    begun = [s for s in stalls if s.standing and s.said_at == d.now]
    return begun, [s for s in stalls if s.resumed_at is not None and m.open]


def _stalled(d: Draft, m: Migration, stall: Stall, because: Because, fields: dict[str, Any]) -> Event:
    evidence: dict[str, Any] = {
        "phase": str(m.phase),
        "status": m.status,
        "held_seconds": round(d.now - stall.since, 3),
        **(stall.evidence or {}),
    }
    host = (stall.evidence or {}).get("host") or m.source
    advice = ADVICE[stall.reason].format(server=m.server_id, id=m.migration_id or "ID", host=host)
    estimate = estimates.of_migration(d._get(Curve, m.key, d.fleet.curve(m.key)), d.policy, d.now)
    return events.MigrationStalled(
        because=because,
        **fields,
        reason=stall.reason,
        since=Instant(stall.since),
        evidence=evidence,
        eta=events.Eta(estimate.seconds, estimate.low_seconds, estimate.high_seconds) if estimate else None,
        blocked_by=stall.blocked_by,
        advice=advice,
    )


def _diff_emptiness(out: list[Event], before: Host | None, after: Host, because: Because, d: Draft) -> None:
    if before is not None and before.service_uuid != after.service_uuid and before.service_uuid is not None:
        return  # another service under the same name: what was said of the old one ended with it
    was = before.emptied if before else False
    drain_id = after.drain_id or (before.drain_id if before else None)
    if name_emptied := d.emptied.get(after.name):
        if not after.quiet:
            knowledge = d.fleet.knowledge
            residue = tuple(Note(r.kind, r.server_id, r.detail) for r in d.residue_on(after.name))
            out.append(
                events.HostEmptied(
                    because=because,
                    drain_id=drain_id,
                    host=after.name,
                    proof=name_emptied.proof,
                    memory_since=Instant(knowledge.memory_since) if knowledge else None,
                    warnings=name_emptied.warnings,
                    residue=residue,
                )
            )
        return
    if not was or (before is not None and before.quiet):
        return
    if not after.closed:
        out.append(events.HostReopened(because=because, drain_id=drain_id, host=after.name))
    elif not after.emptied:
        out.append(
            events.HostOccupied(because=because, drain_id=drain_id, host=after.name, occupants=_occupants(d, after))
        )


def _occupants(d: Draft, host: Host) -> tuple[Note, ...]:
    known = emptiness.known_blockers(d.slice(host), host, accept_residue=True)
    found = known or (emptiness.occupying(host.finding.blockers) if host.finding else ())
    return tuple(Note(b.kind, b.server_id, b.detail) for b in found)


def _diff_drain(out: list[Event], before: Drain | None, drain: Drain, because: Because, d: Draft) -> None:
    if drain.ended_at is not None and (before is None or before.ended_at is None):
        over = events.DrainEnded if drain.outcome == "ended" else events.DrainCancelled
        out.append(
            over(
                because=because,
                drain_id=drain.drain_id,
                host=drain.host,
                duration_seconds=round(d.now - drain.started_at, 6),
                removed=drain.removed,
            )
        )
        d.forgotten[(Drain, drain.drain_id)] = drain
        return
    was, is_ = (before.stalled_at if before else None), drain.stalled_at
    if (was is None) == (is_ is None):
        return
    host = d.host(drain.host)
    blocking = emptiness.blockers(d.slice(host), host, d.policy, d.now) if host else ()
    event = events.DrainStalled if is_ is not None else events.DrainResumed
    out.append(
        event(
            because=because,
            drain_id=drain.drain_id,
            host=drain.host,
            servers_remaining=len(d.servers_on(drain.host)),
            blockers=blocking,
        )
    )


def _diff_bus(out: list[Event], before: Bus | None, bus: Bus, because: Because, now: float) -> None:
    was = before.blind_from if before else None
    if bus.blind_from is not None and was is None:
        out.append(events.BusBlinded(because=because, bus=bus.name, blind_from=Instant(bus.blind_from)))
    elif bus.blind_from is None and was is not None:
        out.append(events.BusHealed(because=because, bus=bus.name, blind_from=Instant(was), blind_to=Instant(now)))
