"""`host_down`: a compute that has to do the work is down, so nobody does it.

**Rule.** The source or the destination of an open move is down (its heartbeat is not heard, or it is forced down) for
60 s. Of an evacuation only the destination counts: its source is dead by definition. A move that waits to be confirmed
is no work. **Source.** facts 5.2 row 14.

It cannot see a compute that sends its heartbeat and does nothing else; that shows as `frozen` or `slow_step`.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later
from maintd.domain.model import Host, Kind, Phase


def judge(case: Case) -> Judgement | Later | None:
    m = case.migration
    if m.phase is Phase.AWAITING_CONFIRMATION:
        return None
    ends: list[Host | None] = [case.destination] if m.kind is Kind.EVACUATION else [case.source, case.destination]
    dead = [host for host in ends if host is not None and host.down]
    if not dead:
        return None
    host = min(dead, key=lambda h: (_since(h, m.begun_at), h.name))
    since = _since(host, m.begun_at)
    due = since + case.held("host_down")
    if case.now < due:
        return Later(due)
    return Judgement("host_down", since, {"host": host.name, "forced_down": host.forced_down}, host=host.name)


def _since(host: Host, begun_at: float) -> float:
    return max(host.down_since or host.closed_at or begun_at, begun_at)
