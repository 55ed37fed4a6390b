"""`queue_blocked`: a live migration waits in its source's queue, and the queue does not move.

**Rule.** A source works its queue one by one (`max_concurrent_live_migrations`, default 1), so waiting is no stall,
for hours if need be. Only where no live migration of the same source moved, began or ended for 300 s is the queue
blocked. One cause rings once: where the one at work is itself stalled, that is said of it and of nobody behind it;
else only the oldest that waits is said, and `blocked_by` is the one at work, if there is one. What was said stands
until the queue moves. **Source.** facts 5.1, 5.2 row 2.
"""

from __future__ import annotations

from dataclasses import replace

from maintd.domain.detectors.case import Case, Judgement, Later, when_held
from maintd.domain.model import Kind, Phase


def judge(case: Case) -> Judgement | Later | None:
    m = case.migration
    if m.kind is not Kind.LIVE or m.phase is not Phase.QUEUED:
        return None
    if "queue_blocked" not in case.standing and (case.head is not None or case.ahead is not None):
        return None
    since = max(m.moved_at, case.queue_moved_at if case.queue_moved_at is not None else 0.0)
    said = when_held("queue_blocked", since, case)
    return replace(said, blocked_by=case.at_head) if isinstance(said, Judgement) else said
