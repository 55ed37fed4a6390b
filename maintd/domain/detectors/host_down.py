"""`host_down`: a compute that has to do the work is down, so nobody does it.

**Rule.** The source or the destination of an open move is down (its heartbeat is not heard, or it is forced down) for
60 s. Of an evacuation only the destination counts: its source is dead by definition. A move that waits to be confirmed
is no work. Where a source is down, that is said of what it was at work on, or of the oldest that waits, and not of the
queue behind it. **Source.** facts 5.2 row 14.

It cannot see a compute that sends its heartbeat and does nothing else; that shows as `frozen` or `slow_step`.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later
from maintd.domain.model import Host, Kind, Migration, Phase


def judge(case: Case) -> Judgement | Later | None:
    m = case.migration
    if m.phase is Phase.AWAITING_CONFIRMATION:
        return None
    ends: list[Host | None] = [case.destination] if m.kind is Kind.EVACUATION else [case.source, case.destination]
    dead = [host for host in ends if host is not None and host.down]
    if not dead:
        return None
    stands = case.standing.get("host_down")
    if stands is None and _behind_another(case, dead):
        return None
    host = min(dead, key=lambda h: (_since(h, m), h.name))
    since = stands.since if stands is not None else _since(host, m)
    due = since + case.held("host_down")
    if case.now < due:
        return Later(due)
    return Judgement("host_down", since, {"host": host.name, "forced_down": host.forced_down})


def _behind_another(case: Case, dead: list[Host]) -> bool:
    """Whether it only waits in the queue of a source of which the same is said for the one at work, or the oldest."""
    m = case.migration
    waits = m.kind is Kind.LIVE and m.phase in (Phase.ASKED, Phase.QUEUED)
    others = case.queue_moved_at is not None or case.ahead is not None
    return waits and others and all(host is case.source for host in dead)


def _since(host: Host, m: Migration) -> float:
    """Since when the move waits for that host. Since when one is forced down whose heartbeat goes on is not known: then
    it is since the move itself last moved."""
    return max(host.down_since or m.moved_at, m.begun_at)
