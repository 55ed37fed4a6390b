"""`late`: a live migration takes longer than its size explains. A matter of policy, and the mildest of all reasons.

**Rule.** It has been running for more than 120 s + 3 x (memory + disk) / 110 MiB/s, or for more than 0.8 of the time
after which Nova itself aborts or forces it; in post-copy, for more than 300 s + 2 x what remained / 110 MiB/s, for
there the guest is at risk until it ends. **Source.** facts 5.2 rows 7 and 8. Where no counters are seen its size is
not known, and nothing is said.
"""

from __future__ import annotations

from maintd.domain.detectors.case import Case, Judgement, Later
from maintd.domain.model import Curve, Kind, NovaLive, Phase
from maintd.domain.ramp import ends_after_s, gib

POST_COPY_S = 300.0
NEARLY = 0.8


def judge(case: Case) -> Judgement | Later | None:
    m, curve = case.migration, case.curve
    if m.kind is not Kind.LIVE or m.phase is not Phase.RUNNING:
        return None
    if curve is None or curve.unit != "bytes":
        stands = case.standing.get("late")  # that the API does not answer makes nobody less late
        return None if stands is None else Judgement("late", stands.since, stands.evidence or {})
    allowed_s = allowance_s(curve, case.held("late"), case.policy.expected_bandwidth, case.policy.nova)
    if m.post_copy:
        left = curve.points[-1].remaining if curve.points else curve.total
        allowed_s = max(allowed_s, POST_COPY_S + 2 * left / case.policy.expected_bandwidth)
    due = curve.began_at + allowed_s
    if case.now < due:
        return Later(due)
    return Judgement(
        "late", due, {"running_seconds": round(case.now - curve.began_at, 3), "allowed_seconds": allowed_s}
    )


def allowance_s(curve: Curve, grace_s: float, expected_bandwidth: float, nova: NovaLive) -> float:
    """For how many seconds it may run before it is late."""
    by_size_s = grace_s + 3 * (curve.total + curve.disk_total) / expected_bandwidth
    ends_s = ends_after_s(gib(curve), nova)
    return round(by_size_s if ends_s is None else min(by_size_s, NEARLY * ends_s), 3)
