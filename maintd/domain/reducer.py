"""The one place where what is seen becomes what is true and what is said: fold, judge, diff.

*Fold* takes one observation into a draft of the fleet. *Judge* derives what follows for the hosts it touched: does a
  drain
begin, is a proof wanted, is the host empty. *Diff* compares each changed value before and after; an edge is an event.
Seeing a thing twice changes nothing, so it says nothing.

`reduce` is deterministic and does no I/O: the time is the observation's, ids come from the caller. It reads only what
is indexed, so one observation costs the same in any cloud. It never says `host.emptied` but at the end of the second
of two whole verification passes that found nothing, with nothing seen of the host in between (`_fold_pass_read`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from maintd.domain import emptiness, events
from maintd.domain.copying import replace
from maintd.domain.detectors import stall
from maintd.domain.events import Event, Instant
from maintd.domain.fleet import NOTHING_CHANGED, Fleet, Outcome
from maintd.domain.migrations import (
    HOST_STALE_STEPS,
    RANK,
    STATUSES,
    STEPS,
    Transition,
    advance,
    same_family,
    verdict_of,
)
from maintd.domain.model import (
    Because,
    Blocker,
    Bus,
    Drain,
    Finding,
    Host,
    HostSlice,
    Kind,
    Knowledge,
    Migration,
    Note,
    Phase,
    Policy,
    Progress,
    Residue,
    Server,
    Value,
    Verification,
)
from maintd.domain.observations import (
    BaselineCompleted,
    BusSeen,
    DrainRequested,
    HostHinted,
    MigrationSeen,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    ProgressSeen,
    Read,
    ResidueCleared,
    ServerSeen,
    ServersListed,
    ServiceSeen,
    ServicesListed,
    Step,
    TaskFailed,
    TimerDue,
)

VERIFY_BACKOFF_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
"""How long to wait before the next pass after one that did not find the host empty."""

DISTURBED_S = 1.0
"""Longest wait after a pass that was disturbed, or that found nothing but what is about to go."""

YOUNG_S = 30.0
"""How long an allocation that nothing explains counts as about to go."""

CLOCK_MARGIN_S = 2.0
"""How far apart the clocks of emitters are assumed to be (facts 7.2)."""

MOVING_PHASES = frozenset(
    {Phase.ASKED, Phase.QUEUED, Phase.PREPARING, Phase.RUNNING, Phase.FINISHING, Phase.ROLLING_BACK}
)

V = TypeVar("V", bound=Value)


class Draft:
    """The fleet as it would be: what changed lies over what is. Nothing of the fleet itself is touched."""

    __slots__ = (
        "fleet", "policy", "new_id", "because", "now", "changed", "removed", "forgotten", "touched", "departed",
        "emptied", "requested", "before_events",
    )  # fmt: skip

    def __init__(self, fleet: Fleet, ids: Callable[[], str], because: Because, now: float) -> None:
        self.fleet = fleet
        self.policy: Policy = fleet.policy
        self.new_id = ids
        self.because = because
        self.now = now
        self.changed: dict[tuple[type, str], Value] = {}
        self.removed: dict[tuple[type, str], Value] = {}
        self.forgotten: dict[tuple[type, str], Value] = {}
        self.touched: dict[str, None] = {}
        self.departed: dict[str, None] = {}
        self.emptied: dict[str, Finding] = {}
        self.requested: dict[str, None] = {}
        self.before_events: list[Event] = []

    def _get(self, table: type[V], key: str, held: V | None) -> V | None:
        slot = (table, key)
        if slot in self.removed or slot in self.forgotten:
            return None
        over = self.changed.get(slot)
        return over if over is not None else held  # type: ignore[return-value]

    def host(self, name: str | None) -> Host | None:
        return self._get(Host, name, self.fleet.host(name)) if name else None

    def server(self, server_id: str) -> Server | None:
        return self._get(Server, server_id, self.fleet.server(server_id))

    def drain(self, drain_id: str | None) -> Drain | None:
        return self._get(Drain, drain_id, self.fleet.drain(drain_id)) if drain_id else None

    def bus(self, name: str) -> Bus | None:
        return self._get(Bus, name, self.fleet.bus(name))

    def buses(self) -> list[Bus]:
        return [self.bus(b.name) or b for b in self.fleet.buses()]

    def residue(self, key: str) -> Residue | None:
        return self._get(Residue, key, self.fleet.residue(key))

    def verification(self, host: str) -> Verification:
        held = self._get(Verification, host, self.fleet.verification(host))
        return held if held is not None else Verification(host)

    def migrations_of(self, server_id: str) -> list[Migration]:
        if not self.changed and not self.forgotten:
            return list(self.fleet.migrations_of(server_id))
        held = {m.key: m for m in self.fleet.migrations_of(server_id)}
        for (table, key), value in self.changed.items():
            if table is Migration and value.server_id == server_id:  # type: ignore[union-attr]
                held[key] = value  # type: ignore[assignment]
        return [m for m in held.values() if (Migration, m.key) not in self.forgotten]

    def open_migration_of(self, server_id: str) -> Migration | None:
        return next((m for m in reversed(self.migrations_of(server_id)) if m.open), None)

    def open_migrations_on(self, host: str) -> list[Migration]:
        held = {m.key: m for m in self.fleet.open_migrations_on(host)}
        for (table, key), value in self.changed.items():
            if table is Migration:
                held[key] = value  # type: ignore[assignment]
        return [m for m in held.values() if m.open and host in (m.source, m.destination)]

    def servers_on(self, host: str) -> set[str]:
        ids = set(self.fleet.servers_on(host))
        for (table, key), value in self.changed.items():
            if table is Server:
                here = value.host == host and value.deleted_at is None  # type: ignore[union-attr]
                (ids.add if here else ids.discard)(key)
        return ids

    def landing_on(self, host: str) -> set[str]:
        ids = set(self.fleet.landing_on(host))
        for (table, key), value in self.changed.items():
            if table is Server:
                here = value.landing == host and value.deleted_at is None  # type: ignore[union-attr]
                (ids.add if here else ids.discard)(key)
        return ids

    def residue_on(self, host: str) -> list[Residue]:
        held = {r.key: r for r in self.fleet.residue_on(host)}
        for (table, key), value in self.changed.items():
            if table is Residue and value.host == host:  # type: ignore[union-attr]
                held[key] = value  # type: ignore[assignment]
        return [r for r in held.values() if r.cleared_at is None]

    def slice(self, host: Host) -> HostSlice:
        ids = self.servers_on(host.name) | self.landing_on(host.name)
        servers = tuple(s for s in (self.server(i) for i in sorted(ids)) if s is not None)
        return HostSlice(
            host, servers, tuple(self.open_migrations_on(host.name)), tuple(self.residue_on(host.name)), None
        )

    def put(self, value: Value) -> None:
        self.changed[(type(value), value.key)] = value

    def touch(self, *hosts: str | None) -> None:
        for host in hosts:
            if host:
                self.touched[host] = None

    def named(self, *hosts: str | None) -> None:
        """Something was seen of these hosts: for the closed ones, what has been read of them so far proves nothing."""
        closed = self.fleet.closed_hosts()
        for name in dict.fromkeys(hosts):
            if name and (name in closed or (Host, name) in self.changed):
                self.touch(name)
                v = self.verification(name)
                self.put(
                    replace(
                        v,
                        generation=v.generation + 1,
                        named_at=max(v.named_at, self.now),
                        first=None,
                        tries=0,
                        verify_at=None,
                    )
                )


def reduce(fleet: Fleet, observation: Observation, ids: Callable[[], str]) -> Outcome:
    """What one observation changes, and what is to be published because of it.

    `fleet` is only read, and has the policy; `ids` gives a new id whenever called. Apply the outcome before reducing
    the next observation.
    """
    draft = Draft(fleet, ids, observation.because, observation.seen_at)
    _FOLDS[type(observation)](draft, observation)
    if not (draft.changed or draft.touched or draft.removed or draft.forgotten or draft.emptied or draft.requested):
        return NOTHING_CHANGED
    for key in [key for table, key in draft.changed if table is Migration]:
        _judge_migration(draft, key)
    closed = fleet.closed_hosts()
    for name in list(draft.touched):
        if name in closed or (Host, name) in draft.changed:  # of a host that was open and is, nothing follows
            _judge_host(draft, name)
    said = _diff(draft)
    saved = tuple(v for (table, key), v in draft.changed.items() if _held(fleet, table, key) != v)
    return Outcome(saved, tuple(draft.removed.values()), tuple(draft.forgotten.values()), tuple(said))


def _held(fleet: Fleet, table: type, key: str) -> Value | None:
    return fleet._tables[table].get(key)


# -- fold: servers and the steps of their moves -----------------------------------------------------------------------


def _fold_server(d: Draft, o: ServerSeen) -> None:
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
    _remember_evacuation(d, o)
    if known is not None and known.deleted_at is not None:
        if o.deleted and o.local_delete and o.host:
            _leave_residue(d, o.host, o.server_id, "deleted_while_down")  # an update had said "deleted" before
        return
    if o.deleted:
        _server_deleted(d, o, known)
        return
    if o.step is not None:
        _fold_step(d, o)
    elif o.trusted and o.because.origin == "notification":
        _infer_from_update(d, o, known)
    _fold_server_row(d, o)


def _remember_evacuation(d: Draft, o: ServerSeen) -> None:
    """From the first word of an evacuation on, its source may keep the server's disks, whatever goes unheard after it.

    A delete hides the evacuation from Nova itself (facts 2.6). What was cleared stays cleared against late words.
    """
    if o.step is None or STEPS[o.step].kind is not Kind.EVACUATION or not o.source:
        return
    old = d.residue(f"{o.source}/{o.server_id}/evacuated")
    if o.step is Step.REBUILD_ERROR:
        if old is not None and old.cleared_at is None and old.since <= o.emitted_at + CLOCK_MARGIN_S:
            _clear_residue(d, old, "Nova: the evacuation failed, the server is still here")
        return
    if old is None:
        _leave_residue(d, o.source, o.server_id, "evacuated")
    elif old.cleared_at is not None and o.emitted_at > old.cleared_at + CLOCK_MARGIN_S:
        d.put(replace(old, since=d.now, migration_uuid=None, cleared_at=None, cleared_by=None))
        d.named(o.source)
        d.touch(o.source)


def _left_a_dead_host(d: Draft, host: str | None, server_id: str) -> None:
    """A server is suddenly elsewhere, or gone, whose host is dead: only an unheard evacuation or delete does that.

    Unless a move away from there is known to have been under way before the host died.
    """
    held = d.host(host)
    if held is None or not _is_down(held):
        return
    if any(m.source == host and m.kind is not Kind.EVACUATION for m in d.migrations_of(server_id)):
        return
    if not any(d.residue(f"{host}/{server_id}/{kind}") for kind in ("evacuated", "deleted_while_down")):
        _leave_residue(d, held.name, server_id, "evacuated")


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
    new = Server(
        server_id=o.server_id,
        project_id=o.project_id or (known.project_id if known else None),
        name=o.name or (known.name if known else None),
        host=o.host,
        landing=landing,
        vm_state=o.vm_state if o.vm_state is not None else (known.vm_state if known else None),
        task_state=o.task_state,
        updated_at=version if version is not None else (known.updated_at if known else None),
        versioned_at=o.emitted_at if o.asked_at is None else (known.versioned_at if known else 0.0),
        seen_at=o.seen_at,
        fault=known.fault if known and known.host == o.host else None,
    )
    if known is not None and _same_server(known, new):
        if known.updated_at == new.updated_at:
            return
        d.put(new)
        return
    d.put(new)
    old_host = known.host if known else None
    if old_host != new.host:
        _left_a_dead_host(d, old_host, new.server_id)
        _moved(d, old_host, new.host)
    elif o.because.origin == "api":
        d.touch(new.host)
    if (known.landing if known else None) != new.landing:
        d.touch(known.landing if known else None, new.landing)


def _same_server(a: Server, b: Server) -> bool:
    return (a.host, a.landing, a.vm_state, a.task_state, a.name, a.project_id) == (
        b.host,
        b.landing,
        b.vm_state,
        b.task_state,
        b.name,
        b.project_id,
    )


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
        if known.seen_at >= o.asked_at:
            return version > held and version < o.asked_at - CLOCK_MARGIN_S
        return version >= held
    return (version, o.emitted_at) >= (held, known.versioned_at)


def _moved(d: Draft, old: str | None, new: str | None) -> None:
    """The server's host changed: both hosts are looked at again, and what was read of a closed one proves nothing."""
    d.named(old, new)
    d.touch(old, new)
    if old is not None:
        d.departed[old] = None


def _server_deleted(d: Draft, o: ServerSeen, known: Server | None) -> None:
    host = o.host or (known.host if known else None)
    base = known or Server(o.server_id, o.project_id, o.name)
    d.put(replace(base, host=None, landing=None, vm_state="deleted", task_state=None, deleted_at=d.now, seen_at=d.now))
    for m in d.migrations_of(o.server_id):
        if m.open:
            source = d.host(m.source)
            if source is not None and m.kind is Kind.EVACUATION:
                _leave_residue(d, source.name, o.server_id, "evacuated", m.migration_uuid)
            elif source is not None and source.name != host and _is_down(source):
                _leave_residue(d, source.name, o.server_id, "deleted_while_down")  # nobody there to confirm it
            waiting = m.phase in (Phase.AWAITING_CONFIRMATION, Phase.CONFIRMING)
            _end(d, m, m.verdict or (Phase.COMPLETED if waiting else Phase.CANCELLED), None)
    if known is not None and known.host != host:
        _left_a_dead_host(d, known.host, o.server_id)
    if host is not None:
        held = d.host(host)
        gone = held is not None and (_is_down(held) or _fell_while_down(held, o.updated_at))
        if o.local_delete or (o.because.origin == "api" and gone):
            _leave_residue(d, host, o.server_id, "deleted_while_down")
        _moved(d, host, None)


def _leave_residue(d: Draft, host: str, server_id: str, kind: str, migration_uuid: str | None = None) -> None:
    held = d.host(host)
    residue = Residue(host, server_id, kind, d.now, held.service_uuid if held else None, migration_uuid=migration_uuid)
    old = d.residue(residue.key)
    if old is None or (
        old.cleared_at is not None and migration_uuid and old.migration_uuid not in (None, migration_uuid)
    ):
        d.put(residue)
    elif migration_uuid and not old.migration_uuid:
        d.put(replace(old, migration_uuid=migration_uuid))
        if old.cleared_at is not None:
            return
    else:
        return
    d.named(host)
    d.touch(host)


def _clear_residue(d: Draft, residue: Residue, by: str) -> None:
    d.put(replace(residue, cleared_at=d.now, cleared_by=by))
    d.named(residue.host)
    d.touch(residue.host)


def _fold_step(d: Draft, o: ServerSeen) -> None:
    if o.step is None:
        return
    transition = STEPS[o.step]
    migration = _migration_for(d, o, transition)
    if migration is None:
        return
    kind = migration.kind
    if o.kind is not None and same_family(kind, o.kind) and o.kind is not Kind.COLD:
        kind = o.kind
    phase = advance(migration.phase, transition.phase)
    aborted = migration.aborted or transition.aborts
    verdict, verdict_at = migration.verdict, migration.verdict_at
    said = verdict_of(transition, o.step, migration.phase, aborted)
    if said is not None and (verdict is None or not transition.soft):
        # A step's word outweighs what was inferred from an update, and is not put off by it.
        wait_s = d.policy.api_word_s if (d.policy.has_cloud or transition.soft) else 0.0
        verdict = said
        verdict_at = d.now + wait_s if verdict_at is None else min(verdict_at, d.now + wait_s)
    elif transition.phase is not None and said is None and verdict is not None and phase != migration.phase:
        verdict, verdict_at = None, None  # it went on after all (a reschedule)
    new = replace(
        migration,
        kind=kind,
        phase=phase,
        source=migration.source or o.source,
        destination=_destination(migration, o),
        project_id=migration.project_id or o.project_id,
        request_id=migration.request_id or o.because.request_id,
        emitted_at=max(migration.emitted_at, o.emitted_at),
        stepped=migration.stepped or transition.phase is not None,
        aborted=aborted,
        verdict=verdict,
        verdict_at=verdict_at,
        verdict_because=o.because if said is not None and verdict is said else migration.verdict_because,
        fault=o.fault or migration.fault,
        moved_at=d.now if phase != migration.phase or migration.moved_at == 0.0 else migration.moved_at,
    )
    _put_migration(d, new, migration)
    if verdict_at is not None and verdict_at <= d.now and verdict is not None:
        _end(d, new, verdict, None)


def _destination(migration: Migration, o: ServerSeen) -> str | None:
    if o.destination is None:
        return migration.destination
    if migration.destination is None or (o.step is not None and STEPS[o.step].begins):
        return o.destination
    return migration.destination


def _migration_for(d: Draft, o: ServerSeen, transition: Transition) -> Migration | None:
    """The open migration that a step belongs to; a new one where the step may begin one; None for an echo."""
    mine = [m for m in d.migrations_of(o.server_id) if same_family(m.kind, transition.kind)]
    open_ = next((m for m in reversed(mine) if m.open), None)
    ended = [m for m in mine if not m.open]
    for m in ended:
        same_request = o.because.request_id is not None and m.request_id == o.because.request_id
        if (same_request and not transition.begins) or o.emitted_at < m.emitted_at - CLOCK_MARGIN_S:
            if open_ is None or o.emitted_at < m.emitted_at - CLOCK_MARGIN_S:
                return None
        if same_request and transition.begins and o.emitted_at <= m.emitted_at + CLOCK_MARGIN_S:
            return None
        only_by_api = m.request_id is None and m.migration_uuid is not None
        if transition.begins and only_by_api and o.emitted_at <= (m.updated_at or m.ended_at or 0.0):
            return None  # the late beginning of one that only the API had told of
    if open_ is not None:
        elsewhere = bool(o.source and open_.source and o.source != open_.source)
        if elsewhere and o.emitted_at <= open_.emitted_at:
            return None  # a late word of an earlier move, from another host
        if not elsewhere and (not transition.begins or not _is_another(open_, o)):
            return open_
        if not (transition.begins or transition.joins):
            return None
        # The end of the old one was lost: a new one could not have begun before it.
        server = d.server(o.server_id)
        there = open_.destination is not None and server is not None and server.host == open_.destination
        there = there or (elsewhere and open_.kind is Kind.EVACUATION)  # it now leaves from where it had been rebuilt
        _end(d, open_, open_.verdict or (Phase.COMPLETED if there else Phase.FAILED), None)
        return _begin(d, o, transition.kind)
    if transition.begins or (transition.joins and not _echo_of_ended(ended, o)):
        return _begin(d, o, transition.kind)
    return None


def _is_another(open_: Migration, o: ServerSeen) -> bool:
    """Whether a beginning step is about another migration than the open one."""
    if open_.kind is Kind.LIVE and not open_.stepped and RANK[open_.phase] <= RANK[Phase.PREPARING]:
        return False
    if o.because.request_id is not None and open_.request_id is not None:
        return o.because.request_id != open_.request_id and o.emitted_at > open_.emitted_at
    # What the API showed under way had begun by then; a beginning emitted before is its own, and late.
    heard_at = max(open_.emitted_at, open_.moved_at) if open_.migration_uuid is not None else open_.emitted_at
    return RANK[open_.phase] > RANK[Phase.PREPARING] and o.emitted_at > heard_at + CLOCK_MARGIN_S


def _echo_of_ended(ended: list[Migration], o: ServerSeen) -> bool:
    """A step that could join, but is more likely the late word of what has ended."""
    return any(o.emitted_at <= max(m.emitted_at, m.ended_at or 0.0) + CLOCK_MARGIN_S for m in ended)


def _begin(d: Draft, o: ServerSeen, kind: Kind) -> Migration:
    return Migration(
        key=d.new_id(),
        server_id=o.server_id,
        kind=o.kind or kind,
        phase=Phase.ASKED,
        source=o.source,
        project_id=o.project_id,
        begun_at=d.now,
    )


def _put_migration(d: Draft, new: Migration, old: Migration | None) -> None:
    d.put(new)
    d.touch(new.source, new.destination)
    if old is not None:
        d.touch(old.destination)


def _infer_from_update(d: Draft, o: ServerSeen, known: Server | None) -> None:
    """instance.update says nothing of migrations, but its task state does: one is asked for, or it came to nothing."""
    open_ = d.open_migration_of(o.server_id)
    if known is not None and (o.updated_at or 0.0) < (known.updated_at or 0.0):
        return
    if o.task_state == "migrating" and open_ is None and o.host:
        for m in d.migrations_of(o.server_id):
            same = o.because.request_id is not None and m.request_id == o.because.request_id
            if same or o.emitted_at <= m.emitted_at + CLOCK_MARGIN_S:
                return
        begun = Migration(
            key=d.new_id(),
            server_id=o.server_id,
            kind=Kind.LIVE,
            phase=Phase.ASKED,
            source=o.host,
            project_id=o.project_id,
            request_id=o.because.request_id,
            begun_at=d.now,
            emitted_at=o.emitted_at,
            moved_at=d.now,
        )
        _put_migration(d, begun, None)
        return
    if open_ is None or open_.verdict is not None:
        return
    if open_.kind is not Kind.LIVE:
        if o.vm_state == "error" and o.task_state is None and o.emitted_at >= open_.emitted_at:
            fault = o.fault or open_.fault
            failed = replace(
                open_,
                verdict=Phase.FAILED,
                verdict_at=d.now + d.policy.api_word_s,
                verdict_because=o.because,
                fault=fault,
            )
            _put_migration(d, failed, open_)
        return
    if o.percent is not None and o.task_state == "migrating":
        if open_.percent != o.percent:
            _put_migration(d, replace(open_, percent=o.percent, moved_at=d.now), open_)
    elif o.task_state is None and o.emitted_at >= open_.emitted_at:
        # No task any more: arrived, given up, or failed. The step that says which may follow, or never come.
        verdict = Phase.COMPLETED if o.host != open_.source else Phase.CANCELLED if open_.aborted else Phase.FAILED
        wait = replace(
            open_,
            verdict=verdict,
            verdict_at=d.now + d.policy.api_word_s,
            verdict_because=o.because,
            fault=o.fault or open_.fault,
        )
        _put_migration(d, wait, open_)


def _end(d: Draft, m: Migration, phase: Phase, status: str | None) -> None:
    """The migration is over. Its server is then where that leaves it, unless somebody has said so already."""
    ended = replace(
        m,
        phase=phase,
        status=status if status is not None else (m.status if m.status in ("done",) else None),
        ended_at=d.now,
        moved_at=d.now,
        verdict=None,
        verdict_at=None,
        stall_at=None,
        stalled=None,
        stalled_since=None,
    )
    _put_migration(d, ended, m)
    server = d.server(m.server_id)
    if server is None or server.deleted_at is not None:
        return
    if phase is Phase.COMPLETED and m.destination and server.host == m.source and m.source != m.destination:
        d.put(replace(server, host=m.destination, task_state=None, seen_at=d.now))
        _moved(d, m.source, m.destination)
    elif phase is Phase.FAILED and not m.aborted:
        fault = m.fault or f"{m.kind} to {m.destination or 'nowhere'} failed"
        d.put(replace(server, fault=fault))
    if m.kind is Kind.EVACUATION and m.source and phase is Phase.COMPLETED:
        _leave_residue(d, m.source, m.server_id, "evacuated", m.migration_uuid)


def _fold_task_failed(d: Draft, o: TaskFailed) -> None:
    open_ = d.open_migration_of(o.server_id)
    server = d.server(o.server_id)
    d.named(server.host if server else None, *(h for h in ((open_.source, open_.destination) if open_ else ())))
    if o.task != "build_instances" and open_ is not None and RANK[open_.phase] <= RANK[Phase.PREPARING]:
        wait_s = d.policy.api_word_s if d.policy.has_cloud else 0.0
        new = replace(
            open_,
            verdict=Phase.FAILED,
            verdict_at=d.now + wait_s,
            verdict_because=o.because,
            fault=o.fault,
            moved_at=d.now,
        )
        _put_migration(d, new, open_)
        if wait_s == 0.0:
            _end(d, new, Phase.FAILED, None)
    elif server is not None and server.deleted_at is None and o.task != "build_instances":
        d.put(replace(server, fault=o.fault or f"{o.task} failed"))
        d.touch(server.host)
    elif server is not None and server.landing:
        d.touch(server.landing)
        d.put(replace(server, landing=None))


# -- fold: rows of the API --------------------------------------------------------------------------------------------


def _fold_migration_row(d: Draft, o: MigrationSeen) -> None:
    phase = STATUSES[o.kind].get(o.status)
    migration = d.fleet.migration_by_uuid(o.migration_uuid)
    migration = d._get(Migration, migration.key, migration) if migration else None
    if migration is None:
        migration = _adopt(d, o)
    if o.kind is Kind.EVACUATION and o.source:
        _fold_evacuation_row(d, o)
    if migration is None:
        if phase is None or phase.final:
            return
        server = d.server(o.server_id)
        if server is not None and server.deleted_at is not None:
            return
        migration = Migration(
            key=d.new_id(),
            server_id=o.server_id,
            kind=o.kind,
            phase=Phase.ASKED,
            begun_at=o.created_at or o.seen_at,
            moved_at=d.now,
        )
    status_changed = migration.status != o.status
    new_phase = migration.phase
    if phase is not None and not phase.final:
        new_phase = advance(migration.phase, phase)
    new = replace(
        migration,
        kind=o.kind if same_family(o.kind, migration.kind) else migration.kind,
        phase=new_phase,
        source=migration.source or o.source,
        destination=migration.destination or o.destination,
        status=o.status if migration.open else (migration.status or o.status),
        migration_id=o.migration_id,
        migration_uuid=o.migration_uuid,
        project_id=migration.project_id or o.project_id,
        post_copy=migration.post_copy or o.status == "running (post-copy)",
        updated_at=o.updated_at if o.updated_at is not None else migration.updated_at,
        moved_at=d.now
        if migration.open and (status_changed or new_phase != migration.phase or _touched_row(migration, o))
        else migration.moved_at,
    )
    if not migration.open:
        if new != migration:
            d.put(new)
        return
    if phase is not None and phase.final:
        _end(d, new, phase, o.status)
    elif new != migration:
        _put_migration(d, new, migration)
        if (new.phase, new.source, new.destination) != (migration.phase, migration.source, migration.destination):
            d.named(new.source, new.destination)


def _touched_row(migration: Migration, o: MigrationSeen) -> bool:
    return o.updated_at is not None and migration.updated_at is not None and o.updated_at > migration.updated_at


def _adopt(d: Draft, o: MigrationSeen | ProgressSeen, kind: Kind | None = None) -> Migration | None:
    """The migration that we know from the bus, and that this row names for the first time."""
    kind = o.kind if isinstance(o, MigrationSeen) else Kind.LIVE
    final = isinstance(o, MigrationSeen) and bool((p := STATUSES[o.kind].get(o.status)) and p.final)
    for m in reversed(d.migrations_of(o.server_id)):
        if m.migration_uuid is not None or not same_family(m.kind, kind):
            continue
        if m.source and o.source and m.source != o.source:
            continue
        if m.destination and o.destination and m.destination != o.destination:
            continue
        if final and isinstance(o, MigrationSeen) and o.updated_at is not None:
            heard_at = m.emitted_at or m.begun_at
            if o.updated_at < heard_at - CLOCK_MARGIN_S:
                continue  # an older row, that ended before this one was heard of
        if not m.open and not final:
            continue
        return m
    return None


def _fold_evacuation_row(d: Draft, o: MigrationSeen) -> None:
    if o.source is None:
        return
    left = d.residue(f"{o.source}/{o.server_id}/evacuated")
    if o.status == "completed":
        if left is not None and left.cleared_at is None and left.migration_uuid in (None, o.migration_uuid):
            _clear_residue(d, left, "Nova: the evacuation is completed")
    elif o.status == "done":
        _leave_residue(d, o.source, o.server_id, "evacuated", o.migration_uuid)
    elif o.status in ("failed", "error"):
        mine = left is not None and left.cleared_at is None and left.migration_uuid in (None, o.migration_uuid)
        if left is not None and mine and (o.updated_at or 0.0) > left.since - CLOCK_MARGIN_S:
            _clear_residue(d, left, "Nova: the evacuation failed, the server is still here")


def _fold_progress(d: Draft, o: ProgressSeen) -> None:
    held = d.fleet.migration_by_uuid(o.migration_uuid)
    migration = d._get(Migration, held.key, held) if held else _adopt(d, o)
    if migration is None:
        if (o.status not in STATUSES[Kind.LIVE]) or STATUSES[Kind.LIVE][o.status].final:
            return
        migration = Migration(
            key=d.new_id(),
            server_id=o.server_id,
            kind=Kind.LIVE,
            phase=Phase.ASKED,
            begun_at=o.created_at or o.seen_at,
            moved_at=d.now,
        )
    if not migration.open:
        return
    progress = o.progress if o.progress != Progress() else None
    phase = advance(migration.phase, STATUSES[Kind.LIVE].get(o.status))
    moved = phase != migration.phase or migration.status != o.status or progress != migration.progress
    new = replace(
        migration,
        phase=phase if not phase.final else migration.phase,
        status=o.status,
        source=migration.source or o.source,
        destination=migration.destination or o.destination,
        migration_id=o.migration_id,
        migration_uuid=o.migration_uuid,
        progress=progress,
        updated_at=o.updated_at if o.updated_at is not None else migration.updated_at,
        sampled_at=o.seen_at,
        moved_at=d.now if moved else migration.moved_at,
    )
    d.put(new)
    if moved:
        d.touch(new.source)
    if (new.source, new.destination) != (migration.source, migration.destination):
        d.touch(new.source, new.destination)


# -- fold: services ---------------------------------------------------------------------------------------------------


def _fold_service(d: Draft, o: ServiceSeen) -> None:
    known = d.host(o.host)
    d.named(o.host) if o.because.origin == "notification" else None
    if o.change == "deleted":
        if known is not None and (o.service_uuid is None or known.service_uuid in (None, o.service_uuid)):
            _remove_host(d, known)
        return
    if known is not None and o.service_uuid and known.service_uuid and o.service_uuid != known.service_uuid:
        if o.asked_at is not None and known.seen_at >= o.asked_at:
            return
        if o.asked_at is None and o.emitted_at < (known.versioned_at or known.seen_at):
            return  # a late word of the service that was here before
        _remove_host(d, known)
        known = None
        d.removed.pop((Host, o.host), None)
        d.forgotten.pop((Verification, o.host), None)
        d.put(Verification(o.host))
    if o.cell_unknown:
        base = known or Host(o.host, seen_at=d.now, found=True, quiet=True)
        if not base.cell_unknown:
            d.put(replace(base, cell_unknown=True))
            d.named(o.host)
            d.touch(o.host)
        return
    fresh = known is None
    if known is None:
        # Live news is never first sight: what had no news before was open (design: first sight).
        known = Host(o.host, service_uuid=o.service_uuid)
    elif o.asked_at is not None and known.seen_at >= o.asked_at:
        up = _heartbeat(known, o)
        if known.up != up:
            d.put(replace(known, up=up, down_since=_down_since(known, o, d.now)))
            d.touch(o.host)
        return
    elif o.asked_at is None and o.emitted_at < known.versioned_at:
        return
    new = replace(
        known,
        service_uuid=o.service_uuid or known.service_uuid,
        disabled=o.disabled,
        disabled_reason=o.disabled_reason,
        forced_down=o.forced_down,
        up=_heartbeat(known, o),
        down_since=_down_since(known, o, d.now) if o.up is not None else known.down_since,
        cell_unknown=False,
        seen_at=o.seen_at,
        versioned_at=o.emitted_at if o.asked_at is None else known.versioned_at,
    )
    if new.closed and not known.closed:
        new = replace(new, closed_at=d.now)
    if fresh and o.change is None:
        new = replace(new, found=new.closed, quiet=new.closed)
    if known.up is None and o.up is not None and (o.up is False or o.forced_down):
        # What was evacuated from it or deleted before anybody asked is not known, whether it is closed yet or not.
        new = replace(new, history_unknown=True)
    if _is_down(known) and known.up is not None and not _is_down(new):
        new = replace(new, last_down_from=known.down_since or known.closed_at, last_down_to=d.now)
    same = replace(new, seen_at=known.seen_at, versioned_at=known.versioned_at) == known
    if same and not fresh:
        if o.asked_at is None:
            d.put(new)
        return
    d.put(new)
    d.touch(o.host)
    if d.policy.trust_reap and _is_down(known) and new.up is True and not _is_down(new):
        # nova-compute destroys what was deleted meanwhile when it starts; the operator has said to believe that it did.
        for left in d.residue_on(o.host):
            if left.kind == "deleted_while_down":
                _clear_residue(d, left, "[residue] trust_reap: nova-compute runs again")
    if new.closed != known.closed or new.cell_unknown != known.cell_unknown or fresh:
        d.named(o.host)


def _heartbeat(known: Host, o: ServiceSeen) -> bool | None:
    """Whether the service's heartbeat is heard. Nova calls one that is forced down *down*, whatever its heartbeat."""
    if o.up is None:
        return known.up
    if o.forced_down and o.up is False:
        return False if known.up is None else known.up
    return o.up


def _down_since(known: Host, o: ServiceSeen, now: float) -> float | None:
    if _heartbeat(known, o) is not False:
        return None
    return known.down_since if known.up is False else (o.down_since or now)


def _remove_host(d: Draft, host: Host) -> None:
    """The compute service is gone: its drain is over, its residue is archived, nothing is proven of it any more."""
    since = Instant(d.now)
    _close_drain(d, host, removed=True)
    d.before_events.append(events.ServiceDeleted(because=d.because, host=host.name, since=since))
    for r in d.residue_on(host.name):
        d.put(replace(r, cleared_at=d.now, cleared_by="the compute service was deleted"))
    d.changed.pop((Host, host.name), None)
    d.changed.pop((Verification, host.name), None)
    d.removed[(Host, host.name)] = host
    held = d.fleet.verification(host.name)
    if held is not None:
        d.forgotten[(Verification, host.name)] = held


def _fold_services_listed(d: Draft, o: ServicesListed) -> None:
    if not o.hosts:
        return
    for host in list(d.fleet.hosts()):
        if host.name not in o.hosts and host.seen_at < o.asked_at:
            _remove_host(d, host)


def _fold_hint(d: Draft, o: HostHinted) -> None:
    d.named(o.host)


# -- fold: lists, nodes, the whole cloud ------------------------------------------------------------------------------


def _fold_servers_listed(d: Draft, o: ServersListed) -> None:
    silent = {h.name for h in d.fleet.hosts() if h.cell_unknown} if o.host is None else set()
    if o.host is not None:
        held: Iterable[Server | None] = [d.server(i) for i in sorted(d.servers_on(o.host) | d.landing_on(o.host))]
    else:
        held = list(d.fleet.servers())
    for s in held:
        if s is None or s.server_id in o.server_ids or s.seen_at >= o.asked_at or s.deleted_at is not None:
            continue
        if s.host in silent:
            continue  # a list of everything leaves out, in silence, what a cell did not answer (facts 4.1)
        if o.host is not None and s.host != o.host:
            continue  # landing: Nova lists it on no host yet
        # Not here any more; elsewhere or deleted. Where, somebody else will say.
        d.put(replace(s, host=None, seen_at=d.now))
        old = d.host(s.host)
        unseen = old is not None and (_is_down(old) or s.seen_at < (old.last_down_to or 0.0))
        if old is not None and unseen and not any(r.server_id == s.server_id for r in d.residue_on(old.name)):
            _leave_residue(d, old.name, s.server_id, "deleted_while_down")
        _moved(d, s.host, None)


def _fold_nodes(d: Draft, o: NodesSeen) -> None:
    known = d.host(o.host)
    if known is not None and known.nodes != o.nodes:
        d.put(replace(known, nodes=o.nodes))


def _fold_baseline(d: Draft, o: BaselineCompleted) -> None:
    known = d.fleet.knowledge or Knowledge(memory_since=o.seen_at)
    if known.baselined_at is None or known.baselined_at != o.seen_at:
        d.put(replace(known, baselined_at=o.seen_at))
    healed = False
    for bus in d.buses():
        if bus.blind_from is not None and bus.connected and (bus.reconnected_at or 0.0) <= o.asked_at:
            d.put(replace(bus, blind_from=None))
            healed = True
    if healed:
        d.named(*d.fleet.closed_hosts())
    d.touch(*sorted(d.fleet.closed_hosts()))


def _fold_bus(d: Draft, o: BusSeen) -> None:
    known = d.bus(o.bus) or Bus(o.bus)
    first = d.bus(o.bus) is None
    if o.state == "connected":
        new = replace(known, connected=True, reconnected_at=d.now)
        if known.blind_from is not None and not d.policy.has_cloud:
            new = replace(new, blind_from=None)  # nothing can be read again; from here on we see
    elif o.state == "lost":
        blind = known.blind_from if known.blind_from is not None else d.now
        new = replace(known, connected=False, blind_from=None if first else blind)
    elif o.state == "blind":
        blind_from = o.blind_from if o.blind_from is not None else d.now
        held = known.blind_from
        new = replace(known, blind_from=blind_from if held is None else min(held, blind_from))
        if o.detail == "still connected":
            new = replace(new, connected=True, reconnected_at=d.now)
    elif o.state == "healed":
        new = replace(known, blind_from=None)
    else:
        return
    if new == known and not first:
        return
    d.put(new)
    if new.blind_from != known.blind_from:
        d.named(*d.fleet.closed_hosts())


def _fold_drain_requested(d: Draft, o: DrainRequested) -> None:
    if d.host(o.host) is not None:
        d.requested[o.host] = None
        d.touch(o.host)


def _fold_residue_cleared(d: Draft, o: ResidueCleared) -> None:
    for r in d.residue_on(o.host):
        _clear_residue(d, r, o.who or "operator")
    known = d.host(o.host)
    if known is not None and known.history_unknown:
        d.put(replace(known, history_unknown=False))
        d.named(o.host)
        d.touch(o.host)


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
            _end(d, m, m.verdict, None)
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
            if host is None or host.emptied or not _remaining(d, host):
                d.put(replace(drain, moved_at=d.now))
            elif d.now - drain.moved_at >= d.policy.stalled_after_s:
                d.put(replace(drain, stalled_at=d.now))
            d.touch(drain.host)


def _remaining(d: Draft, host: Host) -> bool:
    """Whether anything is still in the way; where proofs are possible, only a proof says that nothing is."""
    if d.policy.has_cloud:
        return not host.emptied
    return bool(
        d.servers_on(host.name)
        or d.landing_on(host.name)
        or any(m.source == host.name for m in d.open_migrations_on(host.name))
        or (host.finding is not None and emptiness.occupying(host.finding.blockers))
    )


# -- fold: verification passes ----------------------------------------------------------------------------------------


def _fold_pass_begun(d: Draft, o: PassBegun) -> None:
    v = d.verification(o.host)
    d.put(
        replace(
            v,
            pass_number=o.pass_number,
            begun_at=o.seen_at,
            begun_generation=v.generation,
            reads=(),
            verify_at=None,
            failure=None,
        )
    )


def _fold_pass_read(d: Draft, o: PassRead) -> None:
    host = d.host(o.host)
    v = d.verification(o.host)
    began_at = v.begun_at
    if host is None or began_at is None or v.pass_number != o.pass_number:
        return
    v = replace(v, reads=(*v.reads, o))
    if o.error is None and not (o.read is Read.SERVICE and o.complete):
        d.put(v)
        return
    _leave_vanished(d, host, v)
    v = replace(d.verification(host.name), reads=v.reads)
    over = replace(v, reads=(), begun_at=None)
    if v.begun_generation != v.generation or v.named_at > began_at:
        # Disturbed is not refused: what was heard has to be looked at soon.
        wait_s = min(VERIFY_BACKOFF_S[min(v.tries, len(VERIFY_BACKOFF_S) - 1)], DISTURBED_S)
        d.put(replace(over, first=None, verify_at=d.now + wait_s, tries=v.tries + 1))
        return
    drain = d.drain(host.drain_id)
    finding, leftovers = emptiness.judge_pass(
        v.reads,
        host,
        at=d.now,
        pass_number=o.pass_number,
        residue=tuple(d.residue_on(host.name)),
        accepted=frozenset(_accepted(d, host.name, v.reads)),
        buses=d.buses(),
        since=drain.started_at if drain else host.closed_at,
        leftovers=dict(v.leftovers),
        policy=d.policy,
    )
    over = replace(over, leftovers=tuple(sorted(leftovers.items())))
    if finding.blockers:
        held = host.finding
        there = emptiness.occupying(finding.blockers)
        if held is None or (held.blockers, held.warnings) != (finding.blockers, finding.warnings):
            if not host.emptied or there:  # one that is proven keeps its proof until something is there
                host = replace(host, finding=finding, quiet=host.quiet and not there)
                d.put(host)
        wait_s = VERIFY_BACKOFF_S[min(v.tries, len(VERIFY_BACKOFF_S) - 1)]
        if all(b.kind == "allocation" and d.now - (b.since or d.now) < YOUNG_S for b in finding.blockers):
            wait_s = min(wait_s, DISTURBED_S)  # nothing will announce that Placement lets go
        d.put(replace(over, first=None, verify_at=d.now + wait_s, tries=v.tries + 1))
        d.touch(host.name)
        if host.emptied and there:
            d.put(replace(host, finding=finding, emptied=False, quiet=False))
        return
    _settle_ghosts(d, host, v)
    if host.emptied:
        if host.finding is None or host.finding.blockers:
            d.put(replace(host, finding=finding))
        d.put(replace(over, first=None, tries=0, verify_at=None))
        return
    if v.first is None or v.first_generation != v.generation:
        # Settled means: from the first pass's look at Placement, where a departure ends, to the next pass's beginning.
        looked_at = max(r.seen_at for r in v.reads if isinstance(r, PassRead) and r.read is Read.ALLOCATIONS)
        d.put(
            replace(
                over,
                first=finding,
                first_generation=v.generation,
                first_looked_at=looked_at,
                tries=0,
                verify_at=looked_at + d.policy.settle_s,
            )
        )
        d.put(replace(host, finding=Finding(d.now, (_settling(d, finding),), finding.warnings, finding.proof)))
        return
    if began_at - v.first_looked_at < d.policy.settle_s:
        d.put(replace(over, verify_at=v.first_looked_at + d.policy.settle_s))
        return
    proof = Finding(finding.at, (), finding.warnings, v.first.proof + finding.proof)
    d.put(replace(over, first=None, tries=0, verify_at=None))
    d.put(replace(host, finding=proof, emptied=True, emptied_at=d.now))
    if drain is not None and drain.stalled_at is not None:
        d.put(replace(drain, stalled_at=None, moved_at=d.now))
    d.emptied[host.name] = proof
    d.touch(host.name)


def _leave_vanished(d: Draft, host: Host, v: Verification) -> None:
    """A move away from a dead host of which Nova shows no row any more: its server was deleted, its disks were not.

    Nova removes the rows with the server (facts 2.6). What is left here then spoils the pass, and blocks the next.
    """
    if not _is_down(host) or emptiness.spoilt(v.reads):
        return
    shown = emptiness.rows_shown(v.reads)
    for m in d.open_migrations_on(host.name):
        if m.source == host.name and m.moved_at < (v.begun_at or d.now) and m.server_id not in shown:
            kind = "evacuated" if m.kind is Kind.EVACUATION else "deleted_while_down"
            _leave_residue(d, host.name, m.server_id, kind, m.migration_uuid)


def _fell_while_down(host: Host, at: float | None) -> bool:
    """Whether something that Nova dates so happened while the host was last down."""
    if at is None or host.last_down_from is None or host.last_down_to is None:
        return False
    return host.last_down_from - CLOCK_MARGIN_S <= at <= host.last_down_to + CLOCK_MARGIN_S


def _accepted(d: Draft, host: str, reads: tuple[object, ...]) -> list[str]:
    """Servers whose evacuation Nova still shows, and of which an operator has said that nothing is left here."""
    out = []
    for server_id in sorted(emptiness.rows_shown(reads)):
        left = d.residue(f"{host}/{server_id}/evacuated")
        if left is not None and left.cleared_at is not None:
            out.append(server_id)
    return out


def _is_down(host: Host) -> bool:
    return host.forced_down or host.up is False


def _settling(d: Draft, finding: Finding) -> Blocker:
    return Blocker(
        "verifying",
        since=finding.at,
        detail=f"a first pass found it empty; a second follows after {d.policy.settle_s:g} s",
    )


def _settle_ghosts(d: Draft, host: Host, v: Verification) -> None:
    """A whole pass found nothing here: what we still hold here, unseen since it began, left without a word."""
    begun_at = v.begun_at or d.now
    for m in d.open_migrations_on(host.name):
        # What has arrived elsewhere, or here, and waits to be confirmed is its source's affair.
        if m.moved_at < begun_at and (m.source == host.name or m.phase in MOVING_PHASES):
            _end(d, m, m.verdict or Phase.FAILED, None)
    for server_id in sorted(d.servers_on(host.name) | d.landing_on(host.name)):
        s = d.server(server_id)
        if s is not None and s.seen_at < begun_at:
            d.put(replace(s, host=None if s.host == host.name else s.host, landing=None, seen_at=d.now))
            d.departed[host.name] = None
            d.touch(host.name)


_FOLDS: dict[type, Callable[[Draft, Any], None]] = {
    ServerSeen: _fold_server,
    TaskFailed: _fold_task_failed,
    ServiceSeen: _fold_service,
    HostHinted: _fold_hint,
    MigrationSeen: _fold_migration_row,
    ProgressSeen: _fold_progress,
    ServicesListed: _fold_services_listed,
    ServersListed: _fold_servers_listed,
    NodesSeen: _fold_nodes,
    BaselineCompleted: _fold_baseline,
    PassBegun: _fold_pass_begun,
    PassRead: _fold_pass_read,
    BusSeen: _fold_bus,
    DrainRequested: _fold_drain_requested,
    ResidueCleared: _fold_residue_cleared,
    TimerDue: _fold_timer,
}


# -- judge ------------------------------------------------------------------------------------------------------------


def _judge_migration(d: Draft, key: str) -> None:
    m = d.changed.get((Migration, key))
    if not isinstance(m, Migration) or not m.open or (Migration, key) in d.forgotten:
        return
    queue_moved_at = None
    if m.phase in (Phase.ASKED, Phase.QUEUED) and m.kind is Kind.LIVE and m.source:
        others = [
            o.moved_at
            for o in d.open_migrations_on(m.source)
            if o.key != m.key and o.source == m.source and o.kind is Kind.LIVE and RANK[o.phase] > RANK[Phase.QUEUED]
        ]
        queue_moved_at = max(others, default=None)
    judged = stall.judge(m, queue_moved_at, d.policy, d.now)
    if (judged.reason, judged.look_at) != (m.stalled, m.stall_at):
        since = judged.since if judged.reason else None
        d.put(replace(m, stalled=judged.reason, stalled_since=since, stall_at=judged.look_at))
        d.touch(m.source)


def _judge_host(d: Draft, name: str) -> None:
    host = d.host(name)
    if host is None:
        return
    if not host.closed:
        _open_host(d, host)
        return
    here, landing = d.servers_on(name), d.landing_on(name)
    moves = d.open_migrations_on(name)
    if host.quiet and (here or landing or moves or host.history_unknown or d.residue_on(name)):
        host = replace(host, quiet=False)
        d.put(host)
    host = _judge_drain(d, host, here, moves)
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


def _judge_drain(d: Draft, host: Host, here: set[str], moves: list[Migration]) -> Host:
    name = host.name
    away = [m for m in moves if m.source == name and m.destination != name and m.phase in MOVING_PHASES]
    drain = d.drain(host.drain_id)
    if drain is None:
        named = host.disabled_reason and any(fnmatchcase(host.disabled_reason, p) for p in _globs(d.policy))
        named = named and (not host.found or bool(here or moves))
        if not (away or name in d.departed or name in d.requested or named):
            return host
        baselined = d.fleet.knowledge is not None and d.fleet.knowledge.baselined_at is not None
        left = sum(1 for h in d.departed if h == name)
        drain = Drain(
            drain_id=d.new_id(),
            host=name,
            started_at=d.now,
            reason=host.disabled_reason,
            forced_down=host.forced_down,
            found=host.found,
            requested=name in d.requested,
            servers_total=len(here) + left if baselined else None,
            moved_at=d.now,
        )
        d.put(drain)
        # A host that was found empty has not been announced; with a drain it is, by a proof of its own.
        emptied = host.emptied and not host.quiet
        host = replace(host, drain_id=drain.drain_id, quiet=False, emptied=emptied)
        d.put(host)
        return host
    moved_at = max([m.moved_at for m in moves if m.source == name], default=0.0)
    if name in d.departed:
        moved_at = d.now
    for (table, _), value in d.changed.items():
        if table is Migration and value.source == name and value.moved_at == d.now:  # type: ignore[union-attr]
            moved_at = d.now
    if moved_at > drain.moved_at:
        d.put(replace(drain, moved_at=moved_at, stalled_at=None))
    return host


def _globs(policy: Policy) -> tuple[str, ...]:
    return policy.reason_match


def _open_host(d: Draft, host: Host) -> None:
    before = d.fleet.host(host.name)
    if before is None or not before.closed:
        return
    _close_drain(d, host, removed=False)
    host = d.host(host.name) or host
    d.put(
        replace(
            host,
            closed_at=None,
            found=False,
            quiet=False,
            emptied=False,
            emptied_at=None,
            drain_id=None,
            finding=None,
        )
    )
    held = d.fleet.verification(host.name)
    d.changed.pop((Verification, host.name), None)
    if held is not None:
        d.forgotten[(Verification, host.name)] = held


def _close_drain(d: Draft, host: Host, *, removed: bool) -> None:
    drain = d.drain(host.drain_id)
    before = d.fleet.host(host.name)
    if drain is None or drain.ended_at is not None:
        return
    empty = before is not None and before.emptied
    ended = replace(drain, ended_at=d.now, outcome="ended" if empty else "cancelled", removed=removed)
    d.put(ended)


# -- diff -------------------------------------------------------------------------------------------------------------


def _diff(d: Draft) -> list[Event]:
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
    if was.up is True and after.up is False and not after.forced_down:
        since = Instant(after.down_since) if after.down_since is not None else None
        out.append(events.ServiceLost(because=because, host=name, since=since))
    if was.up is False and after.up is True:
        since = Instant(was.down_since) if was.down_since is not None else None
        out.append(events.ServiceRecovered(because=because, host=name, since=since))


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
    if before is not None and not before.open:
        return
    old_phase = before.phase if before else None
    old_stalled = before.stalled if before else None
    speaks = m.phase != old_phase and m.phase in _ENDS
    stalls = m.stalled is not None and m.stalled != old_stalled
    ready = bool(m.source and m.destination) and (m.kind is not Kind.LIVE or m.stepped or m.migration_uuid is not None)
    resumes = old_stalled is not None and m.stalled is None and m.open
    if not (speaks or stalls or resumes or (ready and not m.said_started)):
        return
    fields = _fields(m)
    if not m.said_started and (ready or speaks or stalls):
        out.append(events.MigrationStarted(because=because, **fields))
        d.changed[(Migration, m.key)] = replace(m, said_started=True)
    if stalls:
        evidence = _evidence(m, d.now)
        advice = stall.ADVICE.get(m.stalled or "", "").format(server=m.server_id, id=m.migration_id or "ID") or None
        since = Instant(m.stalled_since) if m.stalled_since is not None else None
        if old_stalled is not None:
            out.append(events.MigrationResumed(because=because, **fields, reason=old_stalled, since=Instant(d.now)))
        out.append(
            events.MigrationStalled(
                because=because, **fields, reason=m.stalled or "", since=since, evidence=evidence, advice=advice
            )
        )
    elif resumes and old_stalled is not None:
        out.append(events.MigrationResumed(because=because, **fields, reason=old_stalled, since=Instant(d.now)))
    if speaks:
        duration = round(max(0.0, d.now - m.begun_at), 6)
        fits = m.status is not None and STATUSES[m.kind].get(m.status) is m.phase  # else it is an earlier word
        status = m.status if fits else None
        out.append(_ENDS[m.phase](because=because, **fields, status=status, duration_seconds=duration))


def _evidence(m: Migration, now: float) -> dict[str, Any]:
    evidence: dict[str, Any] = {
        "phase": str(m.phase),
        "status": m.status,
        "unchanged_seconds": round(now - (m.stalled_since if m.stalled_since is not None else m.moved_at), 3),
    }
    if m.progress is not None:
        evidence["memory_total_bytes"] = m.progress.memory_total_bytes
        evidence["memory_remaining_bytes"] = m.progress.memory_remaining_bytes
        evidence["disk_remaining_bytes"] = m.progress.disk_remaining_bytes
    return evidence


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
    blocking = emptiness.known_blockers(d.slice(host), host) if host else ()
    if not blocking and host is not None and host.finding is not None:
        blocking = host.finding.blockers
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
