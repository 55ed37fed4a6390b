"""What owners of servers are told: the edges between what touches a server now and what its owner knows.

A `Notice` is what an owner has been told that still holds. Whenever something of a server, its host or a move of it
changes, what touches it is derived anew (`_standing`) and compared; each difference is an event with a number of its
own among all that this project was told, so that seeing a thing twice tells nobody anything. A server that nothing
touches has no notice.

That a host is lost or is being emptied is acted on: so it is not told while the host may be back, or the server be
elsewhere, unheard. What was missed is read from the API within seconds as a rule, and then what still holds is told.

It adds nothing to the operators' events and takes nothing from them, and it never changes what is held true of hosts,
servers or migrations. What of it an owner sees is in `tenant_events.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import floor
from zlib import crc32

from maintd.domain.buses import unheard
from maintd.domain.copying import replace
from maintd.domain.draft import Draft
from maintd.domain.model import Bus, Drain, Host, Kind, Knowledge, Migration, Notice, Phase, Server, Stall
from maintd.domain.moves import ROW_S
from maintd.domain.tenant_events import (
    MaintenanceEnded,
    MaintenanceStarted,
    Moved,
    MoveFailed,
    MoveStalled,
    Moving,
    ServerHostLost,
    ServerHostRecovered,
    TenantEvent,
)

STALLS = {
    "host_down": "interrupted",
    "orphan_task": "interrupted",
    "frozen": "no_progress",
    "not_converging": "busy_guest",
    "late": "slow",
}
"""What an owner is told of a stall, by its reason, the gravest first. What waits in a queue does the guest no harm."""

UNREAD_S = 60.0
"""For how long what is held of a server and its host has to have stood to be told while a bus is not heard."""

_UNDER_WAY = frozenset({Phase.PREPARING, Phase.RUNNING, Phase.FINISHING, Phase.ROLLING_BACK, Phase.REVERTING})
_SETTLED = frozenset({Phase.AWAITING_CONFIRMATION, Phase.CONFIRMING})

ALIKE_S = 120.0
"""Heartbeats that end within so long of each other may have one cause: Nova's database or RabbitMQ, say."""

_Told = tuple[type[TenantEvent], str]


def tell_owners(d: Draft) -> list[TenantEvent]:
    """What owners are to be told because of a change, in order; the new notices are put into the draft."""
    out: list[TenantEvent] = []
    visible: dict[str, float] = {}
    wide: dict[str, bool] = {}
    for server_id in dict.fromkeys(_concerned(d)):
        out += _tell(d, server_id, visible, wide)
    return out


def _concerned(d: Draft) -> Iterator[str]:
    """The servers of which what touches them may have changed."""
    for (table, key), value in [*d.changed.items(), *d.removed.items()]:
        if table is Server:
            touched = _touches(d, d.host(value.host))  # type: ignore[union-attr]
            # Of one that moves, this may be the first that says whose it is.
            if touched or d.fleet.notice(key) is not None or d.open_migration_of(key) is not None:
                yield key
        elif table is Migration or table is Stall:
            yield value.server_id  # type: ignore[union-attr]
        elif table is Host:
            was, host = d.fleet.host(key), d.host(key)
            if _felt(was) != _felt(host):
                yield from sorted(d.servers_on(key))
            elif was is not None and host is not None and was.up != host.up:
                here, lost = sorted(d.servers_on(key)), _lost(host)
                yield from [one for one in here if lost or _was_lost(d.fleet.notice(one))]
        elif table is Drain:
            yield from sorted(d.servers_on(value.host))  # type: ignore[union-attr,arg-type]
        elif (table is Bus and value.heard) or table is Knowledge:  # type: ignore[union-attr]
            if any(not bus.heard for bus in d.fleet.buses()):
                yield from _on_touched_hosts(d)  # what was in doubt may be so no more
    if d.everyone:
        yield from [notice.server_id for notice in d.fleet.notices()]
        yield from _on_touched_hosts(d)
        yield from [m.server_id for m in d.fleet.open_migrations()]


def _on_touched_hosts(d: Draft) -> Iterator[str]:
    for host in list(d.fleet.hosts()):
        if _touches(d, host):
            yield from sorted(d.servers_on(host.name))


def _lost(host: Host | None) -> bool:
    """Whether nobody has control of a host, as far as that was told: a heartbeat that only flaps is no loss."""
    return host is not None and (host.forced_down or host.said_up is False)


def _in_doubt(d: Draft, server: Server, host: Host) -> bool:
    """Whether what is held of a host may be over, or the server have left before it began, unheard. Then nobody is told
    that it began until what was missed has been read; but nobody waits long for a bus or an API that stays away."""
    if not unheard(host, d.buses()):
        return False
    return d.everyone or d.now - max(host.seen_at, server.since or 0.0) < UNREAD_S


def _still_lost(d: Draft, server: Server, host: Host | None) -> bool:
    """Whether a loss that was told goes on, for a server that has not left. That it is no longer forced down does not
    bring a host back: its heartbeat does. Nor does the end of its service: nobody has control of what may still run."""
    before = d.fleet.server(server.server_id)
    if server.host is None or (before is not None and before.host != server.host):
        return False
    return host is None or host.up is False


def _is_widespread(d: Draft, host: Host) -> bool:
    """Whether the heartbeats of many hosts ended when this host's did: who fails everything over then does harm."""
    if host.forced_down or host.down_since is None:
        return False
    alike = 0
    for each in d.fleet.hosts():
        one = d.host(each.name)
        if one is None or one.up is not False or one.forced_down or one.down_since is None:
            continue
        alike += abs(one.down_since - host.down_since) <= ALIKE_S
        if alike >= d.policy.many_lost:
            return True
    return False


def _was_lost(notice: Notice | None) -> bool:
    return notice is not None and notice.lost_since is not None


def _touches(d: Draft, host: Host | None) -> bool:
    return host is not None and (host.drain_id is not None or _lost(host))


def _felt(host: Host | None) -> tuple[object, ...]:
    return (None, False, False) if host is None else (host.drain_id, _lost(host), host.forced_down)


def _tell(d: Draft, server_id: str, visible: dict[str, float], wide: dict[str, bool]) -> list[TenantEvent]:
    """`visible` and `wide` are found out once for each project, and each host, of one change."""
    before, server = d.fleet.notice(server_id), d.server(server_id)
    project_id = before.project_id if before else (server.project_id if server else None)
    if project_id is None:
        return []  # whose it is will be known when it is next seen
    was = before or Notice(server_id, project_id)
    project = d.project(project_id)
    visible_at = visible.get(project_id)
    if visible_at is None:
        visible_at = visible[project_id] = max(project.visible_at, d.now + _delay_s(d))
    now = _standing(d, server, was, float(floor(visible_at)), wide)
    told = list(_edges(d, was, now, server))
    if told:
        project = replace(project, incarnation=project.incarnation + len(told), visible_at=visible_at)
        d.put(project)
    elif now == was:
        return []
    first = project.incarnation - len(told) + 1
    events = [
        kind(notice=replace(now, incarnation=first + place), change=change, visible_at=visible_at)
        for place, (kind, change) in enumerate(told)
    ]
    if told:
        now = events[-1].notice
    if now.maintenance_since is None and now.move_key is None and now.lost_since is None:
        if before is not None:
            d.removed[(Notice, server_id)] = before
    else:
        d.put(now)
    return events


def _delay_s(d: Draft) -> float:
    """By how much what follows from one cause is held back for one project: drawn anew for each, so that the same
    moment does not tell two projects that their servers share a host."""
    if d.policy.tenant_jitter_s <= 0.0:
        return 0.0
    return d.policy.tenant_jitter_s * crc32(d.new_id().encode()) / 2.0**32


def _standing(d: Draft, server: Server | None, was: Notice, at: float, wide: dict[str, bool]) -> Notice:
    """What touches a server now; what did before goes on since when it was told."""
    if server is None or server.deleted_at is not None:
        return Notice(was.server_id, was.project_id, was.incarnation)
    host = d.host(server.host)
    drain = d.drain(host.drain_id) if host is not None else None
    doubt = host is not None and _in_doubt(d, server, host)
    if drain is not None and (drain.ended_at is not None or (doubt and was.drain_id != drain.drain_id)):
        drain = None
    move = _move(d, was)
    if _was_lost(was):
        lost = _lost(host) or _still_lost(d, server, host)
    else:  # who comes when the heartbeat is back, though that has still to last, has lost nothing
        lost = host is not None and _lost(host) and host.down and not doubt
    forced_down = lost and host is not None and host.forced_down
    widespread = was.widespread
    if lost and host is not None and (was.lost_since is None or was.forced_down):
        if host.name not in wide:
            wide[host.name] = _is_widespread(d, host)
        widespread = wide[host.name]
    return Notice(
        was.server_id,
        was.project_id,
        was.incarnation,
        drain_id=drain.drain_id if drain else None,
        maintenance_since=None if drain is None else (was.maintenance_since if was.drain_id == drain.drain_id else at),
        removal=drain is not None and drain.removal,
        move_key=move.key if move else None,
        move_kind=str(move.kind) if move else None,
        move_since=None if move is None else (was.move_since if was.move_key == move.key else at),
        asked_for_by=_asked_for_by(move, server) if move else "unknown",
        stalled=_stalled(d, move) if move else None,
        lost_since=None if not lost else (at if was.lost_since is None else was.lost_since),
        forced_down=forced_down,
        widespread=lost and widespread and not forced_down,
        metadata_keys=server.metadata_keys,
    )


def _move(d: Draft, was: Notice) -> Migration | None:
    """The move under way; one that was told goes on until it has ended, though it may wait again in between."""
    for m in reversed(d.migrations_of(was.server_id)):
        under_way = m.key == was.move_key or (m.said_started and m.phase in _UNDER_WAY)
        if m.open and m.phase not in _SETTLED and under_way and _next_after(d, m) is None:
            return m
    return None


def _next_after(d: Draft, m: Migration) -> Migration | None:
    """A younger move of the same server that has begun: this one is over then, though Nova's row may not have been
    read since, and must not be told to begin again when the younger one is over too."""
    return next((o for o in d.migrations_of(m.server_id) if o.said_started and _is_younger(o, m)), None)


def _is_younger(other: Migration, m: Migration) -> bool:
    if other.migration_id is not None and m.migration_id is not None:
        return other.migration_id > m.migration_id
    if other.emitted_at and m.emitted_at:
        return other.emitted_at > m.emitted_at
    return _begun_at(other) > _begun_at(m)


def _begun_at(m: Migration) -> float:
    """When a move has begun, by Nova's clocks: one that only its row names, within a second; one that only messages
    name, no later than these were sent, since after an outage they come late."""
    return min(m.begun_at, m.emitted_at) if m.emitted_at else m.begun_at + ROW_S


def _asked_for_by(m: Migration, server: Server) -> str:
    """Whether the owner asked for a move: Nova says from which project it was asked for. Where it does not, only an
    owner resizes, and only an operator evacuates or moves live (Nova's default policy)."""
    if m.asked_by is not None and server.project_id is not None:
        return "owner" if m.asked_by == server.project_id else "operator"
    if m.kind is Kind.RESIZE:
        return "owner"
    return "operator" if m.kind in (Kind.EVACUATION, Kind.LIVE) else "unknown"


def _stalled(d: Draft, m: Migration) -> str | None:
    """What an owner is told of how a move stands still: the gravest that matters to the guest."""
    stalls = {stall.key: stall for stall in d.fleet.stalls_of(m.key)}
    stalls |= {s.key: s for s in d.changed.values() if isinstance(s, Stall) and s.migration_key == m.key}
    reasons = {stall.reason for stall in stalls.values() if stall.published and stall.standing}
    return next((said for reason, said in STALLS.items() if reason in reasons), None)


def _edges(d: Draft, was: Notice, now: Notice, server: Server | None) -> Iterator[_Told]:
    """What is to be told of the difference: first what is over, then what begins."""
    gone = server is None or server.deleted_at is not None
    if was.move_key is not None and was.move_key != now.move_key:
        yield _end_of_move(d, was)
    if was.drain_id is not None and was.drain_id != now.drain_id:
        ended = d.drain(was.drain_id)
        host = ended.host if ended is not None else _host_of(d, was.drain_id)
        left = server is not None and host is not None and server.host != host
        yield MaintenanceEnded, "deleted" if gone else ("left" if left else "over")
    if was.lost_since is not None and now.lost_since is None:
        before = d.fleet.server(was.server_id)
        left = before is not None and server is not None and before.host != server.host
        yield ServerHostRecovered, "deleted" if gone else ("left" if left else "recovered")
    if now.drain_id is not None and now.drain_id != was.drain_id:
        yield MaintenanceStarted, "started"
    elif now.removal and not was.removal:
        yield MaintenanceStarted, "removal"
    if now.lost_since is not None and (was.lost_since is None or now.forced_down != was.forced_down):
        yield ServerHostLost, "forced_down" if now.forced_down else "lost"
    if now.move_key is not None and now.move_key != was.move_key:
        yield Moving, "started"
    elif was.stalled is not None and now.stalled is None and now.move_key is not None:
        yield Moving, "resumed"
    if now.stalled is not None and now.stalled != was.stalled:
        yield MoveStalled, now.stalled


def _host_of(d: Draft, drain_id: str) -> str | None:
    """The host of a drain that this very change has ended."""
    held = d.fleet.drain(drain_id)
    return held.host if held is not None else None


def _end_of_move(d: Draft, was: Notice) -> _Told:
    m = next((m for m in d.migrations_of(was.server_id) if m.key == was.move_key), None)
    if m is None:
        return MoveFailed, "unknown"
    if m.phase in _SETTLED:
        return Moved, "awaiting_confirmation"
    phase = m.phase if not m.open else _supposed_end(d, m)
    if phase is Phase.COMPLETED:
        return Moved, "completed"
    if phase is Phase.CANCELLED:
        return MoveFailed, "reverted" if m.status == "reverted" else "cancelled"
    return MoveFailed, "failed" if phase is Phase.FAILED else "unknown"


def _supposed_end(d: Draft, m: Migration) -> Phase | None:
    """How a move has ended whose end nobody has told yet, since the next one has begun: by where that sets out from."""
    younger = _next_after(d, m)
    if m.verdict is not None or younger is None or younger.source is None:
        return m.verdict
    if younger.source == m.destination:
        return Phase.COMPLETED
    return Phase.FAILED if younger.source == m.source else None
