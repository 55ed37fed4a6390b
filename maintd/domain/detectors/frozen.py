"""`frozen`: a live migration that runs, and of which not one byte moves.

**Rule.** Nova writes the counters of a running live migration every 5 s. If they, and the row, have not changed for 60
s (twelve writes) while somebody looked all the time, the transport or nova-compute is dead. Only looks count: from the
last change to the last look it must be 60 s. In post-copy, where the guest already runs on the destination and waits
for its memory, the row's `updated_at` is all there is, and the same holds.

From the bus alone: Nova says a percentage every 5 s, moved or not, and silence for 60 s after some such words is taken
for the same, if the bus that speaks for the source was heard all the while. A percentage that stays is none: one per
cent of memory is too coarse, and a disk may be on its way.

**Source.** facts 5.1, 5.2 row 5. **It cannot see** a driver that writes no counters; of those nothing is said.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later
from maintd.domain.model import Kind, Phase

WORDS = 3
"""So many percentages must have come before silence means anything."""


def judge(case: Case) -> Judgement | Later | None:
    m, curve = case.migration, case.curve
    if m.kind is not Kind.LIVE or m.phase is not Phase.RUNNING or m.verdict is not None:
        return None
    held = case.held("frozen")
    if curve is not None and curve.unit == "percent" and m.progress is None and not m.post_copy:
        if curve.looks < WORDS:
            return None
        last = curve.points[-1]
        if "frozen" not in case.standing:
            if not case.heard:
                return Later(case.now + held)
            due = max(last.at, case.heard_from) + held
            if case.now < due:
                return Later(due)
        return Judgement("frozen", last.at, {"percent": round(100.0 - last.remaining), "silent": True})
    if m.sampled_at is None or (m.progress is None and not m.post_copy):
        return None
    moved_at = m.moved_at if curve is None or m.post_copy else max(curve.changed_at, m.moved_at)
    if m.sampled_at - moved_at < held:
        return None
    evidence: dict[str, object] = {"unchanged_seconds": round(m.sampled_at - moved_at, 3), "post_copy": m.post_copy}
    if m.progress is not None:
        evidence |= {
            "memory_total_bytes": m.progress.memory_total_bytes,
            "memory_remaining_bytes": m.progress.memory_remaining_bytes,
            "disk_remaining_bytes": m.progress.disk_remaining_bytes,
        }
    return Judgement("frozen", moved_at, evidence)
