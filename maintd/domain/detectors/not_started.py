"""`not_started`: a move was asked for, and nobody has begun.

**Rule.** Nothing moved for 300 s while it is only asked for. What the conductor and the scheduler do there takes
seconds. Of a live migration whose source works on another one, that one's moves count too: it may wait in the queue
without Nova having said so, and then it is not stalled (`queue_blocked`). **Source.** facts 5.2 row 1.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later, when_held
from maintd.domain.model import Kind, Phase


def judge(case: Case) -> Judgement | Later | None:
    m = case.migration
    if m.phase is not Phase.ASKED:
        return None
    if m.kind is Kind.LIVE and case.head is not None and "not_started" not in case.standing:
        return None
    since = m.moved_at
    if m.kind is Kind.LIVE and case.queue_moved_at is not None:
        since = max(since, case.queue_moved_at)
    return when_held("not_started", since, case)
