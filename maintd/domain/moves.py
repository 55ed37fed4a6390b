"""Migrations as the bus tells them: steps, what an update lets guess, failures before any compute acted, and the end.

The tables of `migrations.py` say what a step means; here it is decided which migration a step belongs to, whether it is
only the echo of one that has ended, and where a server is once its move is over.
"""

from __future__ import annotations

from maintd.domain.copying import replace
from maintd.domain.draft import CLOCK_MARGIN_S, MOVING_PHASES, Draft
from maintd.domain.migrations import (
    RANK,
    STEPS,
    Transition,
    advance,
    same_family,
    verdict_of,
)
from maintd.domain.model import (
    Kind,
    Migration,
    Phase,
    Server,
)
from maintd.domain.observations import (
    ServerSeen,
    TaskFailed,
)
from maintd.domain.residue import leave_residue
from maintd.domain.stalls import look


def moved(d: Draft, old: str | None, new: str | None) -> None:
    """The server's host changed: both hosts are looked at again, and what was read of a closed one proves nothing."""
    d.named(old, new)
    d.touch(old, new)
    if old is not None:
        d.departed[old] = None


def fold_step(d: Draft, o: ServerSeen) -> None:
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
        asked_by=migration.asked_by or o.asked_by,
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
    put_migration(d, new, migration)
    if verdict_at is not None and verdict_at <= d.now and verdict is not None:
        end(d, new, verdict, None)


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
        if o.emitted_at < m.emitted_at - CLOCK_MARGIN_S:
            return None
        if same_request and not transition.begins and (open_ is None or _is_of_another_request(open_, o)):
            return None
        if same_request and transition.begins and o.emitted_at <= m.emitted_at + CLOCK_MARGIN_S:
            return None
        if transition.begins and m.migration_uuid is not None and o.emitted_at < _over_at(m) + ROW_S:
            return None  # a server has one move at a time: this is the late beginning of that one, or of one before
    if open_ is not None:
        elsewhere = bool(o.source and open_.source and o.source != open_.source)
        # Of one that was only read the row says when it began.
        heard_at = open_.emitted_at or (open_.begun_at + ROW_S if open_.migration_uuid is not None else 0.0)
        if elsewhere and o.emitted_at <= heard_at:
            return None  # a late word of an earlier move, from another host
        if not elsewhere and (not transition.begins or not _is_another(open_, o)):
            return open_
        if not (transition.begins or transition.joins):
            return None
        # The end of the old one was lost: a new one could not have begun before it.
        server = d.server(o.server_id)
        there = open_.destination is not None and server is not None and server.host == open_.destination
        there = there or (elsewhere and open_.kind is Kind.EVACUATION)  # it now leaves from where it had been rebuilt
        end(d, open_, open_.verdict or (Phase.COMPLETED if there else Phase.FAILED), None)
        return _begin(d, o, transition.kind)
    if transition.begins or (transition.joins and not _echo_of_ended(ended, o)):
        return _begin(d, o, transition.kind)
    return None


ROW_S = 1.0
"""Nova dates its rows in whole seconds: what is dated so may have happened by so much later."""


def _over_at(ended: Migration) -> float:
    """When Nova's row of an ended migration was last changed, in whole seconds, rounded down; it may be tidied up long
    after its end, though."""
    changed_at = ended.updated_at + 1.0 if ended.updated_at is not None else float("inf")
    return min(changed_at, ended.ended_at if ended.ended_at is not None else float("inf"))


def _is_of_another_request(m: Migration, o: ServerSeen) -> bool:
    """Whether a step is known not to be of the request that asked for a migration."""
    return m.request_id is not None and m.request_id != o.because.request_id


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


def put_migration(d: Draft, new: Migration, old: Migration | None) -> None:
    d.put(new)
    d.touch(new.source, new.destination)
    if old is not None:
        d.touch(old.destination)


def infer_from_update(d: Draft, o: ServerSeen, known: Server | None) -> None:
    """instance.update says nothing of migrations, but its task state does: one is asked for, or it came to nothing."""
    open_ = d.open_migration_of(o.server_id)
    if known is not None and (o.updated_at or 0.0) < (known.updated_at or 0.0):
        return
    if o.task_state == "migrating" and open_ is None and o.host:
        for m in d.migrations_of(o.server_id):
            same = o.because.request_id is not None and m.request_id == o.because.request_id
            if same or o.emitted_at <= m.emitted_at + CLOCK_MARGIN_S:
                return
            if m.migration_uuid is not None and o.emitted_at < _over_at(m) + ROW_S:
                return  # said while the move went on whose end the API has told already
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
        put_migration(d, begun, None)
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
            put_migration(d, failed, open_)
        return
    if o.percent is not None and o.task_state == "migrating":
        if open_.percent != o.percent:
            put_migration(d, replace(open_, percent=o.percent, moved_at=d.now), open_)
        look(d, d._get(Migration, open_.key, open_) or open_, percent=o.percent)
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
        put_migration(d, wait, open_)


def infer_from_row(d: Draft, o: ServerSeen) -> None:
    """The API shows a server that nothing is being done with, and we hold a move of it that Nova has never named: it
    came to nothing, or to its end, unheard. Where Nova does know it after all, its row says so in time."""
    open_ = d.open_migration_of(o.server_id)
    if (
        open_ is None
        or open_.migration_uuid is not None
        or open_.verdict is not None
        or open_.phase not in MOVING_PHASES
    ):
        return
    if o.asked_at is None or o.task_state is not None or open_.moved_at > o.asked_at - d.policy.api_word_s:
        return
    arrived = open_.destination is not None and o.host == open_.destination
    verdict = Phase.COMPLETED if arrived else Phase.CANCELLED if open_.aborted else Phase.FAILED
    at = d.now + d.policy.api_word_s
    put_migration(d, replace(open_, verdict=verdict, verdict_at=at, verdict_because=o.because), open_)


def goes_back(d: Draft, o: ServerSeen) -> None:
    """A task says that an unconfirmed move is being reverted, before any compute says a word of it, or too late."""
    if o.task_state != "resize_reverting":
        return
    moves = [m for m in d.migrations_of(o.server_id) if same_family(m.kind, Kind.COLD)]
    last = moves[-1] if moves else None
    if last is None or o.emitted_at < last.emitted_at:
        return
    server = d.server(o.server_id)
    if last.phase is Phase.AWAITING_CONFIRMATION:
        put_migration(d, replace(last, phase=Phase.REVERTING, moved_at=d.now), last)
    elif server is not None and server.deleted_at is not None and last.status != "confirmed" and last.source:
        if last.phase is Phase.COMPLETED and o.host != last.source:
            leave_residue(d, last.source, o.server_id, "deleted_while_down")  # deleted on its way back, as we now hear


def end(d: Draft, m: Migration, phase: Phase, status: str | None) -> None:
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
    put_migration(d, ended, m)
    server = d.server(m.server_id)
    if server is None or server.deleted_at is not None:
        return
    # A row that is told late says nothing of a server that has been saved on its source since, or moved again: it came
    # back, or is where a younger row says.
    came_back = status is not None and m.updated_at is not None and (server.updated_at or 0.0) > m.updated_at + ROW_S
    moved_again = any((other.migration_id or 0) > (m.migration_id or 0) for other in d.migrations_of(m.server_id))
    left = server.host == m.source and m.source != m.destination and not (came_back or (status and moved_again))
    if phase is Phase.COMPLETED and m.destination and left:
        arrived = replace(server, host=m.destination, task_state=None, seen_at=d.now)
        d.put(replace(arrived, since=d.now, failed_at=None, fault=None))
        moved(d, m.source, m.destination)
    elif phase is not Phase.COMPLETED and (m.source in (None, server.host) or server.vm_state == "error"):
        said = m.fault or (server.fault if server.vm_state == "error" else None)
        d.put(replace(server, failed_at=d.now, fault=said or _ending(m, phase, status)))
    if m.kind is Kind.EVACUATION and m.source and phase is Phase.COMPLETED:
        leave_residue(d, m.source, m.server_id, "evacuated", m.migration_uuid)


def _ending(m: Migration, phase: Phase, status: str | None) -> str:
    """How an attempt ended of which Nova said no fault."""
    what = f"the {m.kind}" if m.kind is not Kind.COLD else "the cold migration"
    if m.destination is not None and m.destination != m.source:
        what += f" to {m.destination}"
    if phase is Phase.FAILED and not m.aborted:
        return f"{what} failed, and Nova has not said why"
    return f"{what} was {'reverted' if status == 'reverted' else 'cancelled'}"


def fold_task_failed(d: Draft, o: TaskFailed) -> None:
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
        put_migration(d, new, open_)
        if wait_s == 0.0:
            end(d, new, Phase.FAILED, None)
    elif server is not None and server.deleted_at is None and o.task != "build_instances":
        d.put(replace(server, failed_at=d.now, fault=o.fault or f"{o.task} failed"))
        d.touch(server.host)
    elif server is not None and server.landing:
        d.touch(server.landing)
        d.put(replace(server, landing=None))
