"""`slow_step`: a step that should be over does not end. The phase is in the evidence.

**Rule.** Nothing moved for 1,800 s while a move is being prepared, finished, rolled back, confirmed, reverted, copied
(a cold migration or resize) or rebuilt (an evacuation). There Nova tells no progress, and the bounds that it sets
itself go up to 1,800 s (`long_rpc_timeout`, facts 5.1). Waiting for a confirmation is no stall: it waits for a person.
**Source.** facts 5.2 rows 3, 9, 11, 13; one bound for all of them, the longest that a healthy one may take.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later, when_held
from maintd.domain.model import Kind, Phase

STEPS = frozenset({Phase.PREPARING, Phase.FINISHING, Phase.ROLLING_BACK, Phase.CONFIRMING, Phase.REVERTING})


def judge(case: Case) -> Judgement | Later | None:
    m = case.migration
    copying = m.phase is Phase.RUNNING and m.kind is not Kind.LIVE
    if m.phase not in STEPS and not copying:
        return None
    return when_held("slow_step", m.moved_at, case, phase=str(m.phase))
