"""What a server may have left on a host that Nova no longer connects with it: when it is noted, when it is cleared.

An evacuation leaves the server's disks, and perhaps its guest, on the source until nova-compute runs there again; a
delete while the host is down does the same (facts 2.6, 2.7). Nova forgets; this ledger does not. In doubt it notes:
what is noted wrongly costs an operator a look, what is missed may cost somebody's data.
"""

from __future__ import annotations

from maintd.domain import emptiness
from maintd.domain.copying import replace
from maintd.domain.draft import CLOCK_MARGIN_S, Draft
from maintd.domain.migrations import (
    STEPS,
)
from maintd.domain.model import (
    Departure,
    Host,
    Kind,
    Migration,
    Phase,
    Residue,
    Verification,
)
from maintd.domain.observations import (
    MigrationSeen,
    PassRead,
    Read,
    ResidueCleared,
    ServerSeen,
    Step,
)

EVACUATION_COMPLETED = "Nova: the evacuation is completed"
"""What is cleared for this reason is what that one evacuation had left, and nothing else."""

EVACUATION_FAILED = "Nova: the evacuation failed, the server is still here"
"""What is cleared for this reason was never there, so that it says nothing against the next evacuation."""


LATELY_S = 600.0
"""For how long a revert that nobody had told of may be one whose server is not back yet."""


UNSEEN_S = 60.0
"""For so long a host may have been down before that is learnt: services are asked after every 30 s, of one that is
forced down Nova does not say since when, and one that has died counts as up for a minute more (`service_down_time`)."""


def fell_while_down(host: Host, at: float | None) -> bool:
    """Whether something that Nova dates so happened while the host is down, or was so last."""
    if at is None:
        return False
    if host.down and at >= (host.down_since or host.closed_at or 0.0) - UNSEEN_S:
        return True
    if host.last_down_from is None or host.last_down_to is None:
        return False
    return host.last_down_from - UNSEEN_S <= at <= host.last_down_to + CLOCK_MARGIN_S


def down_since_seen(host: Host, seen_at: float) -> bool:
    """Whether the host is down, or has been since something was last seen: what became of that then, nobody told."""
    return host.down or seen_at < (host.last_down_to or 0.0)


def leave_residue(
    d: Draft,
    host: str,
    server_id: str,
    kind: str,
    migration_uuid: str | None = None,
    at: float | None = None,
    begun_at: float | None = None,
) -> None:
    """Note it, unless it is noted. `at`: when it happened, where that was said; else it is noted as of now. `begun_at`:
    when Nova says that the evacuation was asked for: what was cleared before that does not cover it."""
    held = d.host(host)
    server = d.server(server_id)
    residue = Residue(
        host,
        server_id,
        kind,
        min(at, d.now) if at else d.now,
        held.service_uuid if held else None,
        migration_uuid=migration_uuid,
        project_id=server.project_id if server else None,
    )
    old = d.residue(residue.key)
    later = begun_at is not None and old is not None and begun_at > (old.cleared_at or d.now) - CLOCK_MARGIN_S
    if old is None or (old.cleared_at is not None and (later or not _covers(d, old, migration_uuid))):
        d.put(residue)
    elif migration_uuid and not old.migration_uuid:
        d.put(replace(old, migration_uuid=migration_uuid, since=max(old.since, begun_at or 0.0)))
        if old.cleared_at is not None:
            return
    else:
        return
    d.named(host)
    d.touch(host)


def _covers(d: Draft, cleared: Residue, migration_uuid: str | None) -> bool:
    """Whether what was cleared is what is told again now: the same evacuation, or nothing that can be a later one."""
    if migration_uuid and cleared.migration_uuid and cleared.cleared_by != EVACUATION_FAILED:
        return cleared.migration_uuid == migration_uuid
    return _stands(d, cleared)


def _stands(d: Draft, residue: Residue | None) -> bool:
    """Whether what is noted of a server says all.

    What was cleared before it came (back) to the host does not, nor that an evacuation which failed left nothing.
    """
    if residue is None or residue.cleared_at is None:
        return residue is not None
    server = d.fleet.server(residue.server_id)
    came_at = server.since if server is not None and server.host == residue.host else None
    return residue.cleared_by != EVACUATION_FAILED and (came_at or 0.0) <= residue.cleared_at


def clear_residue(d: Draft, residue: Residue, by: str) -> None:
    d.put(replace(residue, cleared_at=d.now, cleared_by=by))
    d.named(residue.host)
    d.touch(residue.host)


def evacuation_failed(d: Draft, left: Residue) -> None:
    """The server was still here when its evacuation failed. Where it is gone by now, that is what it left."""
    clear_residue(d, left, EVACUATION_FAILED)
    server = d.server(left.server_id)
    if server is None or server.deleted_at is not None or server.host is None:
        leave_residue(d, left.host, left.server_id, "deleted_while_down")


def remember_evacuation(d: Draft, o: ServerSeen) -> None:
    """From the first word of an evacuation on, its source may keep the server's disks, whatever goes unheard after it.

    A delete hides the evacuation from Nova itself (facts 2.6). What was cleared stays cleared against late words.
    """
    if o.step is None or STEPS[o.step].kind is not Kind.EVACUATION or not o.source:
        return
    old, since = d.residue(f"{o.source}/{o.server_id}/evacuated"), min(o.emitted_at, d.now)
    if o.step is Step.REBUILD_ERROR:
        if old is not None and old.cleared_at is None and old.since <= o.emitted_at + CLOCK_MARGIN_S:
            evacuation_failed(d, old)
        return
    if old is None:
        leave_residue(d, o.source, o.server_id, "evacuated", at=o.emitted_at)
    elif old.cleared_at is None:
        if STEPS[o.step].begins and old.since < since:
            d.put(replace(old, since=since))  # perhaps of the next one, which no late word of this one's end clears
    elif o.emitted_at > old.cleared_at + CLOCK_MARGIN_S:
        d.put(replace(old, since=since, migration_uuid=None, cleared_at=None, cleared_by=None))
        d.named(o.source)
        d.touch(o.source)


def left_a_dead_host(d: Draft, host: str | None, server_id: str) -> None:
    """A server is suddenly elsewhere, or gone, whose host is dead: only an unheard evacuation or delete does that.

    Unless a move away from there is known to have been under way before the host died; one that had ended before left
    the server there. Of a server that is deleted Nova shows no move any more, so it may also have been evacuated while
    its host was down and is not any longer.
    """
    held = d.host(host)
    if held is None:
        return
    away = (m for m in d.migrations_of(server_id) if m.source == host != m.destination)
    if any(m.kind is not Kind.EVACUATION and (m.open or m.ended_at == d.now) for m in away):
        return
    before, after = d.fleet.server(server_id), d.server(server_id)
    untold = after is not None and after.deleted_at is not None
    was_down = before is not None and before.seen_at < (held.last_down_to or 0.0)
    if not held.down and not (untold and was_down):
        left_unexplained(d, host, server_id, "evacuated")
        if was_down:
            _look_for_its_rows(d, held.name, server_id)  # as long as it lives, Nova shows how it has left
    elif not any(_stands(d, d.residue(f"{host}/{server_id}/{kind}")) for kind in ("evacuated", "deleted_while_down")):
        leave_residue(d, held.name, server_id, "evacuated")


def left_unexplained(d: Draft, host: str | None, server_id: str, kind: str, *, within_s: float = 0.0) -> None:
    """A server was found gone, and nobody said how: should its host turn out to be down, it left something there.

    That a host is down is often learnt later than what was done behind its back. `within_s`: only a host that is seen
    up after so long was not dead by now."""
    held = d.host(host)
    if held is None or _stands(d, d.residue(f"{held.name}/{server_id}/{kind}")):
        return
    if held.up is None and not d.policy.has_cloud:
        return  # without an API nobody will ever say that it was down; a recording's answers may be there all the same
    d.put(replace(held, departures=(*held.departures, Departure(server_id, kind, d.now + within_s))))


def vouch(d: Draft, host: str, server_id: str) -> None:
    """nova-compute itself says that it has deleted or offloaded a server: nothing is left, whatever was thought."""
    held = d.host(host)
    if held is not None and held.departures:
        kept = tuple(gone for gone in held.departures if gone.server_id != server_id)
        if kept != held.departures:
            d.put(replace(held, departures=kept))
    v = d.verification(host)
    if server_id in v.not_back:
        d.put(replace(v, not_back=tuple(i for i in v.not_back if i != server_id)))
    left = d.residue(f"{host}/{server_id}/deleted_while_down")
    if left is not None and left.cleared_at is None:
        clear_residue(d, left, "nova-compute has deleted it after all")


def judge_departures(d: Draft, host: str, *, down_since: float | None, up: bool, asked_at: float) -> None:
    """The host was seen: up, then whoever had left by then left nothing; down, then they may have left something.

    A compute counts as up for a while after its death, so that its word is remembered until that while is over: if it
    turns out to have died before they left, they did leave something.
    """
    held = d.host(host)
    if held is None or not held.departures:
        return
    if up:
        kept = tuple(
            replace(gone, lived=True) if gone.at < asked_at and not gone.lived else gone
            for gone in held.departures
            if asked_at < gone.at + UNSEEN_S
        )
    else:
        kept = ()
    if kept == held.departures:
        return
    d.put(replace(held, departures=kept))
    if not up:
        for gone in held.departures:
            if not gone.lived or (down_since is not None and down_since <= gone.at):
                leave_residue(d, host, gone.server_id, gone.kind)


def expect_back(d: Draft, o: MigrationSeen) -> None:
    """A move was reverted a moment ago, and its server is not known to be back on the source.

    If nothing shows of it at the next whole pass, it was deleted on its way, and left its disks (facts 6.3).
    """
    server = d.server(o.server_id)
    if o.status != "reverted" or o.source is None or (server is not None and server.host == o.source):
        return
    if o.updated_at is None or o.updated_at < (o.asked_at or o.seen_at) - LATELY_S:
        return
    _look_for_its_rows(d, o.source, o.server_id)


def _look_for_its_rows(d: Draft, host: str, server_id: str) -> None:
    """Have the next whole pass of the host show a row of the server, or note what it left."""
    v = d.verification(host)
    if server_id not in v.not_back:
        d.put(replace(v, not_back=(*v.not_back, server_id)))


def waits_for_its_source(m: Migration) -> bool:
    """Whether its source is to take the server back, or to confirm that it keeps nothing of it, as far as is known."""
    unconfirmed = m.phase is Phase.AWAITING_CONFIRMATION and m.verdict is None
    return m.source != m.destination and (m.phase is Phase.REVERTING or unconfirmed)


def leave_vanished(d: Draft, host: Host, v: Verification) -> None:
    """What left a host with nobody saying so: its server was deleted, its disks were not. A revert that had not come
    to its end, or a move that its source has not confirmed; on a dead host a move of which Nova shows no row any more,
    and a build of which it shows nothing, and on one that is up again those that were last heard of before.

    Nova removes the rows with the server (facts 2.6). What is left here then spoils the pass, and blocks the next.
    """
    if emptiness.spoilt(v.reads):
        return
    shown = {row.server_id for row in emptiness.rows_shown(v.reads)}
    still = {row.server_id for row in emptiness.rows_shown(v.reads, last=True)}
    for server_id in v.not_back:
        if server_id not in still:
            leave_residue(d, host.name, server_id, "deleted_while_down")  # deleted before anybody saw how it had left
    for row in emptiness.evacuated_on(v.reads, host.name):
        leave_residue(d, host.name, row.server_id, "evacuated", row.migration_uuid)
    not_back = emptiness.not_back(v.reads, host.name)
    if not_back != v.not_back:
        d.put(replace(d.verification(host.name), not_back=not_back))
    unheard_since = v.begun_at or d.now if host.down else host.last_down_to or 0.0
    for m in d.open_migrations_on(host.name):
        gone_back = waits_for_its_source(m) and m.source == host.name and m.moved_at < (v.begun_at or 0.0)
        if (gone_back or m.moved_at < unheard_since) and m.server_id not in shown:
            left = m.source == host.name  # else it was on its way here, and may have arrived
            kind = "evacuated" if left and m.kind is Kind.EVACUATION else "deleted_while_down"
            leave_residue(d, host.name, m.server_id, kind, m.migration_uuid, begun_at=m.begun_at)
    # A build that was last heard of on its way here, and of which nothing shows any more: it may have arrived first.
    held = {str(c) for r in v.reads if isinstance(r, PassRead) and r.read is Read.ALLOCATIONS for c in r.found}
    for server_id in sorted(d.landing_on(host.name) - held):
        server = d.server(server_id)
        if server is not None and server.seen_at < unheard_since:
            leave_residue(d, host.name, server_id, "deleted_while_down", begun_at=server.since)


def accepted(d: Draft, host: str, reads: tuple[object, ...]) -> set[str]:
    """Evacuations that Nova still shows, and of which it was said before that nothing is left here; by their uuids.

    What was said is about those that there were by then: a server may come back, and be evacuated again.
    """
    out = set()
    for row in emptiness.rows_shown(reads):
        left = d.residue(f"{host}/{row.server_id}/evacuated")
        if left is not None and left.cleared_at is not None:
            looked = left.cleared_by not in (EVACUATION_COMPLETED, EVACUATION_FAILED)
            there_then = (row.created_at or 0.0) <= left.cleared_at + CLOCK_MARGIN_S
            if row.migration_uuid == left.migration_uuid or (looked and there_then):
                out.add(row.migration_uuid)
    return out


def fold_residue_cleared(d: Draft, o: ResidueCleared) -> None:
    for r in d.residue_on(o.host):
        if o.server_ids is None or r.server_id in o.server_ids:
            clear_residue(d, r, o.who or "operator")
    known = d.host(o.host)
    if o.history and known is not None and known.history_unknown:
        d.put(replace(known, history_unknown=False))
        d.named(o.host)
        d.touch(o.host)
