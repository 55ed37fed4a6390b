"""Migrations as the API tells them: rows of os-migrations, and the byte counters of those under way.

A row names a migration for the first time, carries it on, or ends it; while the API answers, its word is the end. An
older row never stands for a younger migration.
"""

from __future__ import annotations

from maintd.domain.copying import replace
from maintd.domain.draft import CLOCK_MARGIN_S, Draft
from maintd.domain.migrations import (
    RANK,
    STATUSES,
    advance,
    same_family,
)
from maintd.domain.model import (
    Kind,
    Migration,
    Phase,
    Progress,
    Server,
)
from maintd.domain.moves import ROW_S, end, moved, put_migration
from maintd.domain.observations import (
    MigrationSeen,
    MovesListed,
    ProgressSeen,
)
from maintd.domain.residue import (
    EVACUATION_COMPLETED,
    LATELY_S,
    clear_residue,
    evacuation_failed,
    expect_back,
    leave_residue,
    left_unexplained,
)
from maintd.domain.stalls import look

GHOST_AFTER_S = 30.0
"""By so long after a compute has told of a move, its row is in every list that shows any row of its server."""


def fold_migration_row(d: Draft, o: MigrationSeen) -> None:
    phase = STATUSES[o.kind].get(o.status)
    migration = d.fleet.migration_by_uuid(o.migration_uuid)
    migration = d._get(Migration, migration.key, migration) if migration else None
    if migration is None:
        migration = _adopt(d, o)
    if o.kind is Kind.EVACUATION and o.source:
        _fold_evacuation_row(d, o)
    expect_back(d, o)
    if migration is None:
        if phase is None or phase.final:
            _lay_ghost(d, o, phase)
            _remember_revert(d, o)
            if phase is not None:
                _remember_arrival(d, o, phase)
                _remember_stranger(d, o, phase)
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
        asked_by=migration.asked_by or o.asked_by,
        post_copy=migration.post_copy or o.status == "running (post-copy)",
        # Of a post-copy Nova shows no counters: that its row is looked at, and changes, is all there is.
        sampled_at=o.seen_at if o.status == "running (post-copy)" else migration.sampled_at,
        unlisted_at=None,
        updated_at=o.updated_at if o.updated_at is not None else migration.updated_at,
        moved_at=d.now
        if migration.open and (status_changed or new_phase != migration.phase or _touched_row(migration, o))
        else migration.moved_at,
    )
    if not migration.open:
        if new != migration:
            d.put(new)
        _lay_ghost(d, o, phase)
        return
    if phase is not None and phase.final:
        end(d, new, phase, o.status)
    elif new != migration:
        put_migration(d, new, migration)
        if (new.phase, new.source, new.destination) != (migration.phase, migration.source, migration.destination):
            d.named(new.source, new.destination)


def _remember_revert(d: Draft, o: MigrationSeen) -> None:
    """A row that nobody had told of was reverted lately, and its server is not back: should it be deleted before it is,
    its source keeps its disks (`servers.py`). Nothing is told of it; it was over before it was known.
    """
    server = d.server(o.server_id)
    if o.status != "reverted" or server is None or server.deleted_at is not None or server.host in (None, o.source):
        return
    if o.updated_at is None or o.updated_at < (o.asked_at or o.seen_at) - LATELY_S:
        return
    over = Migration(
        key=d.new_id(),
        server_id=o.server_id,
        kind=o.kind,
        phase=Phase.CANCELLED,
        source=o.source,
        destination=o.destination,
        status=o.status,
        migration_id=o.migration_id,
        migration_uuid=o.migration_uuid,
        asked_by=o.asked_by,
        begun_at=o.created_at or o.seen_at,
        said_started=True,
        updated_at=o.updated_at,
        moved_at=d.now,
        ended_at=d.now,
    )
    d.put(over)


def _remember_arrival(d: Draft, o: MigrationSeen, phase: Phase) -> None:
    """A move that nobody had told of has come to its end since its server was last seen: that is where it is now.

    Seen there as of the row's end, and not of now: there may be a younger row that has not been read yet.
    """
    server = d.server(o.server_id)
    if phase is not Phase.COMPLETED or o.destination is None or o.updated_at is None:
        return
    if server is None or server.deleted_at is not None or server.seen_at >= o.updated_at:
        return
    # A source that is back completes its evacuations, long after: their servers may have gone on from there.
    late = o.kind is Kind.EVACUATION and o.status == "completed"
    if server.host == o.destination or (late and server.host != o.source):
        return
    moved(d, server.host, o.destination)
    d.put(replace(server, host=o.destination, task_state=None, seen_at=min(d.now, o.updated_at + ROW_S)))


def _remember_stranger(d: Draft, o: MigrationSeen, phase: Phase) -> None:
    """A row names a server that nobody has told of: it came after the whole cloud was read, or was not shown then
    (soft-deleted). Nova removes the rows with the server (facts 2.6), so it exists, and the row says where. Should it
    be gone before anybody sees it there, its host may keep its disks. Of one that failed after its server had gone over
    the row does not say so: the other host is kept in mind too.
    """
    knowledge = d.fleet.knowledge
    if knowledge is None or knowledge.baselined_at is None or d.server(o.server_id) is not None:
        return
    there, other = (o.destination, None) if phase is Phase.COMPLETED else (o.source, o.destination)
    if there is None:
        return
    d.put(Server(o.server_id, host=there, seen_at=d.now))
    moved(d, None, there)
    if o.status in ("error", "failed") and o.kind is not Kind.LIVE:
        left_unexplained(d, other, o.server_id, "deleted_while_down")


def _lay_ghost(d: Draft, o: MigrationSeen, phase: Phase | None) -> None:
    """A row has ended, and so has a move of the same server that late messages made: all that is known of it was said
    before, and a server has one move at a time. Nor is there a move that a compute has told of long ago and that still
    has no row: lists show the newest row first, and it would have had its name by now.
    """
    nameless = (m for m in reversed(d.migrations_of(o.server_id)) if m.open and m.migration_uuid is None)
    ghost = next(nameless, None)  # beside one that has a name, perhaps, and is the one move that there is
    if ghost is None or phase is None or not phase.final:
        return
    # The row of an evacuation says where its server was when it was asked for: another one may have come before it.
    arrives_there = o.kind is Kind.EVACUATION and o.destination is not None and ghost.destination == o.destination
    if same_family(ghost.kind, o.kind) and (ghost.source in (None, o.source) or arrives_there):
        said_before = o.updated_at is not None and 0.0 < ghost.emitted_at < o.updated_at + ROW_S
        asked_long_after = o.asked_at is not None and ghost.moved_at < o.asked_at - GHOST_AFTER_S
        if said_before or (asked_long_after and RANK[ghost.phase] >= RANK[Phase.PREPARING]):
            end(d, ghost, phase, o.status)


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
        if left is not None and left.cleared_at is None:
            # Of one whose row is not known yet, a row that was over before it began says nothing.
            unnamed = left.migration_uuid is None and (o.updated_at or d.now) >= left.since - CLOCK_MARGIN_S
            if unnamed or left.migration_uuid == o.migration_uuid:
                clear_residue(d, replace(left, migration_uuid=o.migration_uuid), EVACUATION_COMPLETED)
    elif o.status == "done":
        leave_residue(d, o.source, o.server_id, "evacuated", o.migration_uuid, begun_at=o.created_at)
    elif o.status in ("failed", "error"):
        mine = left is not None and left.cleared_at is None and left.migration_uuid in (None, o.migration_uuid)
        if left is not None and mine and (o.updated_at or 0.0) > left.since - CLOCK_MARGIN_S:
            evacuation_failed(d, left)


def fold_moves_listed(d: Draft, o: MovesListed) -> None:
    """What we hold open of this server, and Nova does not show though it was asked, has no row, or none any more."""
    for m in d.migrations_of(o.server_id):
        if not m.open or m.verdict is not None:
            continue
        if m.migration_uuid in o.migration_uuids:
            if m.unlisted_at is not None:
                d.put(replace(m, unlisted_at=None))
        elif m.unlisted_at is None and m.begun_at < o.asked_at - CLOCK_MARGIN_S:
            d.put(replace(m, unlisted_at=d.now))


def fold_progress(d: Draft, o: ProgressSeen) -> None:
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
        unlisted_at=None,
    )
    d.put(new)
    look(d, new, progress=progress)
    if moved:
        d.touch(new.source)
    if (new.source, new.destination) != (migration.source, migration.destination):
        d.touch(new.source, new.destination)
