"""Servers: where each one is, as far as can be believed.

A payload's host is the emitter's copy and often stale (facts 2.1); what is older than what is held is not applied
(facts
7.2), and a complete list in which a server is missing means that it has left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from maintd.domain.copying import replace
from maintd.domain.draft import CLOCK_MARGIN_S, Draft
from maintd.domain.migrations import (
    HOST_STALE_STEPS,
)
from maintd.domain.model import (
    Host,
    Kind,
    Migration,
    Phase,
    Server,
)
from maintd.domain.moves import end, fold_step, goes_back, infer_from_row, infer_from_update, moved
from maintd.domain.observations import (
    ServerSeen,
    ServersListed,
    Step,
)
from maintd.domain.residue import (
    UNSEEN_S,
    down_since_seen,
    fell_while_down,
    leave_residue,
    left_a_dead_host,
    left_unexplained,
    remember_evacuation,
    vouch,
    waits_for_its_source,
)

_SHOWN = attrgetter(
    "host", "landing", "vm_state", "task_state", "name", "project_id", "fault", "hindrance", "memory_mb",
    "metadata_keys",
)  # fmt: skip

BEFORE_US_S = 30.0
"""By how much the last word of a deleted server has to be older than our memory: Nova dates it before it is gone."""


def fold_server(d: Draft, o: ServerSeen) -> None:
    known = d.server(o.server_id)
    if o.because.origin == "notification":
        d.named(
            o.host,
            o.reporter,
            o.source,
            o.destination,
            o.landing,
            known.host if known else None,
            known.landing if known else None,
            *(h for m in d.migrations_of(o.server_id) if m.open for h in (m.source, m.destination)),
        )
    remember_evacuation(d, o)
    if o.reporter is not None and o.trusted and (o.reporter == o.host if o.deleted else o.host is None):
        vouch(d, o.reporter, o.server_id)
    if o.local_delete and not o.deleted and o.host:
        leave_residue(d, o.host, o.server_id, "deleted_while_down")  # its end may go unheard
    goes_back(d, o)
    if known is not None and known.deleted_at is not None:
        _confirmed_after_all(d, o, known)
        if o.deleted and o.local_delete and o.host:
            leave_residue(d, o.host, o.server_id, "deleted_while_down")  # an update had said "deleted" before
        elif o.deleted and o.host and known.vm_state != "deleted":
            d.put(replace(known, vm_state="deleted"))
            _gone_from(d, o.host, o, known)
        return
    if o.deleted:
        _server_deleted(d, o, known)
        return
    if o.step is not None:
        fold_step(d, o)
    elif o.trusted and o.because.origin == "notification":
        infer_from_update(d, o, known)
    elif o.asked_at is not None:
        infer_from_row(d, o)
    _fold_server_row(d, o)


def _fold_server_row(d: Draft, o: ServerSeen) -> None:
    known = d.server(o.server_id)
    if not _believe(o, known, d):
        fresh = known is not None and (o.updated_at or 0.0) >= (known.updated_at or 0.0)
        if o.landing and known is not None and fresh and known.host is None and known.landing != o.landing:
            d.put(replace(known, landing=o.landing))
            d.touch(o.landing)
        return
    version = o.updated_at
    if o.asked_at is not None and version is not None and version >= o.asked_at - CLOCK_MARGIN_S:
        version = known.updated_at if known else None  # the API prints *now* for a row never updated (facts 4.1)
    landing = o.landing if o.host is None else None
    if landing is None and o.host is None and known is not None and known.landing and o.vm_state != "error":
        landing = known.landing
    vm_state = o.vm_state if o.vm_state is not None else (known.vm_state if known else None)
    since, failed_at, fault = _history(known, o, landing, vm_state)
    new = Server(
        server_id=o.server_id,
        project_id=o.project_id or (known.project_id if known else None),
        name=o.name or (known.name if known else None),
        host=o.host,
        landing=landing,
        vm_state=vm_state,
        task_state=o.task_state,
        updated_at=version if version is not None else (known.updated_at if known else None),
        versioned_at=o.emitted_at if o.asked_at is None else (known.versioned_at if known else 0.0),
        seen_at=_as_of(o, known),
        fault=fault,
        since=since,
        failed_at=failed_at,
        hindrance=o.hindrance if o.hindrance is not None else (known.hindrance if known else None),
        memory_mb=o.memory_mb if o.memory_mb is not None else (known.memory_mb if known else None),
        metadata_keys=_named_alike(known, o.metadata_keys),
    )
    if known is not None and _same_server(known, new):
        if known.updated_at == new.updated_at:
            return
        d.put(new)
        return
    d.put(new)
    old_host = known.host if known else None
    if old_host != new.host:
        left_a_dead_host(d, old_host, new.server_id)
        moved(d, old_host, new.host)
    elif o.because.origin == "api":
        d.touch(new.host)
    if (known.landing if known else None) != new.landing:
        d.touch(known.landing if known else None, new.landing)


def _as_of(o: ServerSeen, known: Server | None) -> float:
    """When the server was as it was seen: of what came late, not long after it was said."""
    if o.asked_at is not None:
        return o.seen_at
    return max(min(o.seen_at, o.emitted_at + CLOCK_MARGIN_S), known.seen_at if known else 0.0)


def _named_alike(known: Server | None, names: tuple[str, ...] | None) -> tuple[str, ...]:
    """The names in a server's metadata; the tuple that is held already, where they are the same."""
    held = known.metadata_keys if known else ()
    return held if names is None or names == held else names


def _history(
    known: Server | None, o: ServerSeen, landing: str | None, vm_state: str | None
) -> tuple[float | None, float | None, str | None]:
    """Since when it is as it is, when an attempt to move it failed, and what Nova said of that, or of its ERROR."""
    if known is None or known.host != o.host or known.landing != landing:
        return o.seen_at, None, o.fault if vm_state == "error" else None
    since = known.since if known.vm_state == vm_state else o.seen_at
    fault = known.fault
    if vm_state == "error":
        fault = fault if o.fault is None or (fault and o.fault in fault) else o.fault  # the bus has the name as well
    elif known.vm_state == "error" and known.failed_at is None:
        fault = None  # it was about that state, which is over
    return since, known.failed_at, fault


def _same_server(a: Server, b: Server) -> bool:
    return _SHOWN(a) == _SHOWN(b)


def _believe(o: ServerSeen, known: Server | None, d: Draft) -> bool:
    """Whether the host and state that an observation shows are the current ones (facts 2.1 and 7.2)."""
    if known is None:
        return o.trusted or o.step not in HOST_STALE_STEPS
    if not o.trusted:
        return (
            o.step is None
            and o.host == known.host
            and (o.updated_at or 0.0) > (known.updated_at or 0.0)
            and d.open_migration_of(o.server_id) is None
        )
    version, held = o.updated_at or 0.0, known.updated_at or 0.0
    if o.asked_at is not None:
        if o.updated_at is None:
            return known.seen_at < o.asked_at  # saved just now, or never (facts 4.1): what was heard before is older
        if known.seen_at >= o.asked_at:
            return version > held and version < o.asked_at - CLOCK_MARGIN_S
        return version >= held
    return (version, o.emitted_at) >= (held, known.versioned_at)


def _server_deleted(d: Draft, o: ServerSeen, known: Server | None) -> None:
    host = o.host or (known.host if known else None)
    base = known or Server(o.server_id, o.project_id, o.name)
    said = "deleted" if o.host else None  # one that is only not found is asked after again: its row has its last host
    d.put(replace(base, host=None, landing=None, vm_state=said, task_state=None, deleted_at=d.now, seen_at=d.now))
    moves = d.migrations_of(o.server_id)
    for m in moves:
        if m.open:
            on_the_spot = m.source == m.destination  # a resize on its own host leads nowhere
            source, there = (None, None) if on_the_spot else (d.host(m.source), d.host(m.destination))
            if there is not None and there.name != host:
                # It may have arrived where it was on its way to, and been evacuated from there, or deleted, unheard.
                if _was_down(there, o, known):
                    leave_residue(d, there.name, o.server_id, "deleted_while_down")
                else:
                    left_unexplained(d, there.name, o.server_id, "deleted_while_down")
            if source is not None and m.kind is Kind.EVACUATION:
                leave_residue(d, source.name, o.server_id, "evacuated", m.migration_uuid)
            elif source is not None and source.name != host:
                if waits_for_its_source(m) or _was_down(source, o, known):
                    # Nobody has confirmed it, that we know of; it may have been reverted and not be back yet.
                    leave_residue(d, source.name, o.server_id, "deleted_while_down")
                else:
                    # It may turn out to be dead: then nobody has confirmed it, or taken the server back. When a server
                    # is deleted Nova has it confirmed first (facts 2.4), which the source tells.
                    within_s = 0.0 if m.verdict is Phase.COMPLETED else UNSEEN_S
                    left_unexplained(d, source.name, o.server_id, "deleted_while_down", within_s=within_s)
            waiting = m.phase in (Phase.AWAITING_CONFIRMATION, Phase.CONFIRMING)
            end(d, m, m.verdict or (Phase.COMPLETED if waiting else Phase.CANCELLED), None)
    _left_where_it_was_reverted_to(d, o.server_id, host, moves)
    if known is not None and known.host != host:
        left_a_dead_host(d, known.host, o.server_id)
        moved(d, known.host, None)  # it had gone elsewhere before, unheard
    if host is not None:
        _gone_from(d, host, o, known)


def _confirmed_after_all(d: Draft, o: ServerSeen, known: Server) -> None:
    """Nova has a move confirmed before it deletes a server (facts 2.4), which the source tells; here that came late. Of
    an earlier move it would say nothing: the server may have been back since."""
    moves = d.migrations_of(o.server_id)
    if o.step is not Step.CONFIRM_END or o.reporter is None or o.reporter == o.host or not moves:
        return
    last = moves[-1]
    if last.ended_at == known.deleted_at and (last.source, last.destination) == (o.reporter, o.host):
        vouch(d, o.reporter, o.server_id)


def _left_where_it_was_reverted_to(d: Draft, server_id: str, host: str | None, moves: Sequence[Migration]) -> None:
    """Its last move was reverted, and it is gone from elsewhere: its source never took it back, and keeps its disks
    (facts 6.3)."""
    last = moves[-1] if moves else None
    if last is not None and not last.open and last.status == "reverted" and last.source and last.source != host:
        leave_residue(d, last.source, server_id, "deleted_while_down")


def _was_down(host: Host, o: ServerSeen, known: Server | None) -> bool:
    """Whether the host is down, or was when the server was deleted, or may have been: nobody says when that was."""
    if host.down or fell_while_down(host, o.updated_at):
        return True
    return known is not None and down_since_seen(host, known.seen_at)


def _gone_from(d: Draft, host: str, o: ServerSeen, known: Server | None) -> None:
    """A deleted server's last host: where nobody says that its compute took part, something may be left there."""
    held = d.host(host)
    again = known is not None and known.deleted_at is not None
    gone = held is not None and (held.down or fell_while_down(held, o.updated_at))
    if held is not None and again:  # long over, perhaps: the host may have gone down since
        gone = fell_while_down(held, o.updated_at)
    elif held is not None and known is not None and o.host is None:  # not found: when it went, nobody says
        gone = gone or known.seen_at < (held.last_down_to or 0.0)
    if held is not None and known is None and _before_us(d, held, o):
        return
    if o.local_delete or (gone and o.reporter != host):
        leave_residue(d, host, o.server_id, "deleted_while_down")  # nobody says that its compute took part
    elif o.reporter != host and not (again and held is not None and held.down):
        left_unexplained(d, host, o.server_id, "deleted_while_down")
    moved(d, host, None)


def _before_us(d: Draft, host: Host, o: ServerSeen) -> bool:
    """Whether the API shows what had been deleted before we came, on a host that we then found up.

    A list of what has changed reaches back beyond our first look, and may be read when the host has gone down since.
    """
    knowledge = d.fleet.knowledge
    if o.because.origin != "api" or o.updated_at is None or knowledge is None or host.history_unknown:
        return False
    return o.updated_at < knowledge.memory_since - BEFORE_US_S


def _left_where_its_moves_led(d: Draft, gone: Server, moves: Sequence[Migration]) -> None:
    """It is gone from everywhere, and a host of a move that was under way has been down since it was last seen: it may
    have arrived there and been deleted, or have left there for good, unheard."""
    for m in moves:
        for name in (m.source, m.destination) if m.open else ():
            held = d.host(name)
            if held is not None and name != gone.host and down_since_seen(held, gone.seen_at):
                evacuated = m.kind is Kind.EVACUATION and name == m.source
                kind = "evacuated" if evacuated else "deleted_while_down"
                leave_residue(d, held.name, gone.server_id, kind, begun_at=m.begun_at)


def fold_servers_listed(d: Draft, o: ServersListed) -> None:
    silent = {h.name for h in d.fleet.hosts() if h.cell_unknown} if o.host is None else set()
    if o.host is not None:
        held: Iterable[Server | None] = [d.server(i) for i in sorted(d.servers_on(o.host) | d.landing_on(o.host))]
    else:
        held = list(d.fleet.servers())
    for s in held:
        if s is None or s.server_id in o.server_ids or s.seen_at >= o.asked_at or s.deleted_at is not None:
            continue
        where = s.host or s.landing  # a build that is gone from everywhere may have arrived first
        if where in silent:
            continue  # a list of everything leaves out, in silence, what a cell did not answer (facts 4.1)
        if o.host is not None and s.host != o.host:
            continue  # landing: Nova lists it on no host yet
        # Not here any more; elsewhere or deleted. Where, somebody else will say.
        d.put(replace(s, host=None, seen_at=d.now))
        if o.host is None:
            moves = d.migrations_of(s.server_id)
            _left_where_it_was_reverted_to(d, s.server_id, s.host, moves)
            _left_where_its_moves_led(d, s, moves)
        old = d.host(where)
        unseen = old is not None and down_since_seen(old, s.seen_at)
        if old is not None and unseen and not any(r.server_id == s.server_id for r in d.residue_on(old.name)):
            leave_residue(d, old.name, s.server_id, "deleted_while_down")
        elif not unseen:
            left_unexplained(d, where, s.server_id, "deleted_while_down")
        moved(d, s.host, None)
