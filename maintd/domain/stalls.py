"""Stalls: what the detectors find of a migration, from the first time that it is due until it passes or all is over.

For each reason there is at most one stall that stands. It begins when its detector says so, and ends when that does not
say so any more, or with the migration. Reasons in `[stall] observe_only` are kept like the others, and not published.
Of those that are published the migration carries the gravest (`Migration.stalled`), and that is what is said, shown,
and blocks a host; a milder one does not take its place while it stands.

Which detectors there are is in `detectors/`; what is said of a change is in `diff.py`.
"""

from __future__ import annotations

from maintd.domain import curve as curves
from maintd.domain.buses import unheard
from maintd.domain.copying import replace
from maintd.domain.detectors import judge_all
from maintd.domain.detectors.case import Case, Judgement
from maintd.domain.detectors.not_converging import watched
from maintd.domain.draft import Draft
from maintd.domain.migrations import RANK
from maintd.domain.model import STALL_AFTER_S, Curve, Host, Kind, Migration, Phase, Policy, Progress, Server, Stall

ORDER = {reason: place for place, reason in enumerate(STALL_AFTER_S)}

OF_COPYING = frozenset({"frozen", "not_converging", "late"})
"""What is said of the copying of a live migration."""


def look(d: Draft, m: Migration, *, progress: Progress | None = None, percent: int | None = None) -> None:
    """Somebody looked at a live migration that runs."""
    if m.kind is not Kind.LIVE or not m.open or RANK[m.phase] > RANK[Phase.RUNNING]:
        return
    held = d._get(Curve, m.key, d.fleet.curve(m.key))
    new = curves.look(held, m, d.now, progress=progress, percent=percent)
    if new is not None:
        d.put(watched(new))
        if (Migration, m.key) not in d.changed:
            d.put(m)  # so that it is judged


def to_judge(d: Draft) -> list[str]:
    """The keys of the migrations whose verdict what has changed may change: they themselves, what runs from or to a
    host that went down or came back, the oldest that waits where something of its queue has moved, and where no row is
    shown of a move, that of a server whose task is another now."""
    keys: dict[str, None] = {}
    for (_, key), value in list(d.changed.items()):
        if isinstance(value, Migration):
            keys[key] = None
            if value.kind is Kind.LIVE and value.source and value.moved_at == d.now and RANK[value.phase] > WAITING:
                _next_in_queue(d, value, keys)
        elif isinstance(value, Server):
            known = d.fleet.server(key)
            if known is not None and known.task_state != value.task_state:
                keys |= dict.fromkeys(m.key for m in d.migrations_of(key) if m.open and m.unlisted_at is not None)
        elif isinstance(value, Host):
            held = d.fleet.host(key)
            if held is not None and held.down != value.down:
                keys |= dict.fromkeys(m.key for m in d.open_migrations_on(key))
    for table, key in d.removed:
        if table is Host:  # a compute service that is no more is not down
            keys |= dict.fromkeys(m.key for m in d.open_migrations_on(key))
    return list(keys)


WAITING = RANK[Phase.QUEUED]


def _next_in_queue(d: Draft, moving: Migration, keys: dict[str, None]) -> None:
    """One of a source's live migrations moves or has ended: the one that waits longest is not stuck behind it."""
    if moving.source is None:
        return
    waiting = [
        m
        for m in d.open_migrations_on(moving.source)
        if m.source == moving.source and m.kind is Kind.LIVE and m.phase in (Phase.ASKED, Phase.QUEUED)
    ]
    if not waiting:
        return
    first = min(waiting, key=lambda m: (m.phase is not Phase.QUEUED, m.begun_at, m.key))
    for m in waiting:
        if (m is first and (not moving.open or m.stall_at is None)) or m.stalled:
            if not moving.open or m.stalled:
                d.put(replace(m, moved_at=d.now))
            keys[m.key] = None


def judge_migration(d: Draft, key: str) -> None:
    """Judge one migration of which something changed, and note what stands of it now."""
    m = d._get(Migration, key, d.fleet.migration(key))
    if m is None or (Migration, key) in d.forgotten:
        return
    if m.open and d.fleet.migration(key) is None:
        forget_failure(d, m.server_id)
    if m.open and m.worked_from is None and RANK[m.phase] > WAITING:
        m = replace(m, worked_from=d.now)
        d.put(m)
    if m.open and m.memory_mb is None:
        server = d.server(m.server_id)
        if server is not None and server.memory_mb is not None:
            m = replace(m, memory_mb=server.memory_mb)
            d.put(m)
    standing = {stall.reason: stall for stall in d.fleet.stalls_of(key)}
    if not m.open:
        _over(d, m, standing)
        return
    if m.verdict is not None:
        return  # it is over as far as is known: nothing passes, and nothing begins, unless it goes on after all
    if m.stalled is not None and m.stalled not in standing:
        standing[m.stalled] = _said_before(d, m, m.stalled)
    found, look_at = judge_all(_case(d, m, standing))
    holds = {judgement.reason for judgement in found}
    if m.phase is Phase.ROLLING_BACK:
        holds |= OF_COPYING  # given up is not made good
    for gone in [reason for reason in standing if reason not in holds]:
        _end(d, replace(standing.pop(gone), resumed_at=d.now))
    for judgement in found:  # after what has passed, which outweighs nothing any more
        if judgement.reason not in standing and not _outweighed(judgement, standing, d.policy):
            standing[judgement.reason] = _begin(d, m, judgement)
    said = [stall for stall in standing.values() if stall.published]
    gravest = min(said, key=lambda stall: ORDER[stall.reason], default=None)
    if look_at is not None and m.stall_at is not None and d.now < m.stall_at <= look_at:
        look_at = m.stall_at  # the timer that is set comes first, and is not set anew for every byte that moves
    reason = gravest.reason if gravest is not None else None
    since = gravest.since if gravest is not None else None
    if (reason, look_at) != (m.stalled, m.stall_at) or any(table is Stall for table, _ in d.changed):
        d.put(replace(m, stalled=reason, stalled_since=since, stall_at=look_at))
        d.touch(m.source)


def _case(d: Draft, m: Migration, standing: dict[str, Stall]) -> Case:
    queue_moved_at, ahead, head, at_head = None, None, None, None
    if m.kind is Kind.LIVE and m.phase in (Phase.ASKED, Phase.QUEUED) and m.source:
        others = [
            o for o in d.open_migrations_on(m.source) if o.key != m.key and o.source == m.source and o.kind is Kind.LIVE
        ]
        at_work = [o for o in others if RANK[o.phase] > RANK[Phase.QUEUED]]
        queue_moved_at = max([o.moved_at for o in at_work], default=None)
        at_head = max(at_work, key=lambda o: (o.moved_at, o.key)).key if at_work else None
        head = next((o.key for o in at_work if o.stalled is not None), None)
        older = [o for o in others if o.phase is Phase.QUEUED and (o.begun_at, o.key) < (m.begun_at, m.key)]
        ahead = min(older, key=lambda o: (o.begun_at, o.key)).key if older else None
    buses = list(d.buses())
    return Case(
        migration=m,
        policy=d.policy,
        now=d.now,
        curve=d._get(Curve, m.key, d.fleet.curve(m.key)),
        server=d.server(m.server_id),
        source=d.host(m.source),
        destination=d.host(m.destination),
        queue_moved_at=queue_moved_at,
        ahead=ahead,
        head=head,
        at_head=at_head,
        standing=standing,
        heard=not unheard(d.host(m.source) or Host(m.source or ""), buses),
        heard_from=max([bus.reconnected_at or 0.0 for bus in buses], default=0.0),
    )


def _outweighed(found: Judgement, standing: dict[str, Stall], policy: Policy) -> bool:
    """Whether something graver is said of the migration already; what is only observed is never in the way."""
    if found.reason in policy.observe_only:
        return False
    return any(stall.published and ORDER[stall.reason] < ORDER[found.reason] for stall in standing.values())


def _begin(d: Draft, m: Migration, found: Judgement) -> Stall:
    stall = Stall(
        key=d.new_id(),
        migration_key=m.key,
        server_id=m.server_id,
        kind=str(m.kind),
        reason=found.reason,
        since=found.since,
        said_at=d.now,
        source=m.source,
        destination=m.destination,
        published=found.reason not in d.policy.observe_only,
        blocked_by=found.blocked_by,
        evidence=found.evidence,
    )
    d.put(stall)
    return stall


def _said_before(d: Draft, m: Migration, reason: str) -> Stall:
    """A stall that was said by a maintd that kept no stalls."""
    since = m.stalled_since if m.stalled_since is not None else m.moved_at
    stall = Stall(
        d.new_id(), m.key, m.server_id, str(m.kind), reason, since, since, source=m.source, destination=m.destination
    )
    d.put(stall)
    return stall


def forget_failure(d: Draft, server_id: str) -> None:
    """A new attempt to move the server has begun: what was said of the last one is over."""
    server = d.server(server_id)
    if server is not None and server.failed_at is not None:
        d.put(replace(server, failed_at=None, fault=None))


def _end(d: Draft, stall: Stall) -> None:
    """It stands no more: the store keeps it, memory does not."""
    d.put(stall)
    d.forgotten[(Stall, stall.key)] = stall


def _over(d: Draft, m: Migration, standing: dict[str, Stall]) -> None:
    """The migration has ended: its stalls and its curve are history."""
    for stall in standing.values():
        _end(d, replace(stall, ended_at=d.now, outcome=str(m.phase)))
    curve = d._get(Curve, m.key, d.fleet.curve(m.key))
    if curve is not None:
        over = curves.ended(curve, d.now, str(m.phase))
        d.put(over)
        d.forgotten[(Curve, over.key)] = over
