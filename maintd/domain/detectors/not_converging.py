"""`not_converging`: the passes of a live migration do not get smaller, so it will not end as it is.

**Rule.** A pass k sends V(k) bytes, and what the guest writes meanwhile is V(k+1). If it writes at a share rho of what
the link carries, V(k+1) is at most rho V(k): saturation (the same pages written again) only makes it less. A migration
with rho below 0.8 therefore shrinks, pass after pass, by a fifth and more, and is done within five times the length of
any pass of its. Each pass is noisy: how fast the guest writes and the link carries vary by a tenth. So after n passes

    log(V(end) / V(start)) <= n log 0.8 + 3.6 sigma sqrt(n)

for a converging one, but for once in some thousand. The verdict is due when more than that remains, over any of the
last 3, 4, 6, 9, 14 or 22 passes, and the size has not fallen by more than 3 % a pass; 30 s after the first pass at the
earliest. Where each of the passes is seen for itself, what the link carried in them is set against what it carries on
the whole, and three may do. Nothing is said in the first pass, nor while disks are copied, nor in post-copy, which
always ends.

It passes (`resumed`) when the passes have at last become smaller than 0.45 of what they were, and still shrink by 15 %
each. Nova raises the permitted downtime in steps (10 steps of 75 s x GiB by default), and may so let a migration end
that does not shrink; the evidence says when, and the verdict stands until then: as it is, it goes on so long.

**What it cannot see.** Why: a guest that writes faster than before, or a link that became slow. From the bus alone
passes shorter than 5 s are only guessed at, and working sets under 1 % of memory look like one of that size.

**Sources.** facts 5.1 and 5.2 row 6 (peaks after a sync, never low points); KubeVirt VEP 248 (pass boundaries, a
margin of 4 %, 40 s); VDSM since 2016 (passes, not seconds). The test and its figures are ours: `docs/stalls.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from maintd.domain.copying import replace
from maintd.domain.curve import link
from maintd.domain.detectors.case import Case, Judgement, Later
from maintd.domain.model import Curve, Kind, Migration, Pass, Phase, Stall
from maintd.domain.ramp import ending

CONVERGES = 0.8
"""A guest that writes at less than this share of what the link carries makes its passes smaller, and is let be."""

SIGMAS = 3.6
SIGMA = 0.13
"""How much the size of a pass varies, as a logarithm: writing by 10 %, the link by 8 %."""

SIGMA_LINK_KNOWN = 0.105
SHRINKS = 0.03
"""A fall by more than this a pass is no plateau."""

WINDOWS = (3, 4, 6, 9, 14, 22)
WINDOWS_PERCENT = (1, 2, 3, 4, 5, 6, 8, 12)
SMALLER = 0.45
SHRINKS_AGAIN = 0.85
RESUMES_OVER = 4
UNCLEAR = 0.1
"""Variance of the logarithm of the size of a pass that was too short to be seen for itself."""


@dataclass(frozen=True, slots=True)
class Plateau:
    """Passes that do not shrink: their size, over how many, from when."""

    size: float
    passes: float
    since: float


def judge(case: Case) -> Judgement | Later | None:
    m, curve = case.migration, case.curve
    if m.kind is not Kind.LIVE or m.phase is not Phase.RUNNING or m.post_copy or m.verdict is not None:
        return None
    stands = case.standing.get("not_converging")
    if stands is not None:  # also while a curve of another unit has only begun
        was = _pass_size(stands, curve, m)
        if curve is not None and was is not None and shrinks(curve, was):
            return None
        return Judgement("not_converging", stands.since, stands.evidence or {})
    if curve is None or curve.first_pass_ended_at is None or not curve.points:
        return None
    flat = curve.flat_since
    if flat is None or curve.points[-1].at <= flat:
        return None  # two looks have to agree
    if curve.points[-1].at - curve.first_pass_ended_at < case.held("not_converging"):
        return None
    found = plateau(curve)
    return None if found is None else Judgement("not_converging", found.since, _evidence(curve, found, case))


def _pass_size(stands: Stall, curve: Curve | None, m: Migration) -> float | None:
    """The size of the passes when the verdict was reached, in the unit of the curve as it is now."""
    evidence = stands.evidence or {}
    size, unit = evidence.get("pass_size"), evidence.get("unit")
    if curve is None or not isinstance(size, (int, float)):
        return None
    if unit is None or unit == curve.unit:
        return float(size)
    if curve.unit == "bytes":
        return size * curve.total / 100.0
    memory = m.progress.memory_total_bytes if m.progress is not None else None
    return 100.0 * size / memory if memory else None


def watched(curve: Curve) -> Curve:
    """The curve, with since when its passes do not shrink."""
    if curve.first_pass_ended_at is None or not curve.passes and curve.block is None:
        return curve
    flat = plateau(curve) is not None
    if flat == (curve.flat_since is not None):
        return curve
    return replace(curve, flat_since=curve.points[-1].at if flat else None)


def _evidence(curve: Curve, found: Plateau, case: Case) -> dict[str, object]:
    carried = link(curve)
    evidence: dict[str, object] = {
        "unit": curve.unit,
        "pass_size": round(found.size, 3),
        "passes": round(found.passes, 1),
        "last_passes": [round(one.size, 3) for one in curve.passes[-6:]],
        "remaining": curve.points[-1].remaining,
    }
    if carried:
        evidence |= {
            "throughput_per_second": round(carried, 3),
            "dirty_per_second": round(carried * _ratio(curve), 3),
            "needs_downtime_seconds": round(found.size / carried, 3),
        }
        if curve.unit == "bytes":
            evidence["nova"] = ending(curve, found.size / carried, case.policy.nova, case.now)
    return evidence


def _ratio(curve: Curve) -> float:
    """How much is dirtied for what is sent, over the last passes."""
    last = curve.passes[-5:]
    before, after = sum(p.size * p.count for p in last[:-1]), sum(p.size * p.count for p in last[1:])
    return after / before if before > 0 else 1.0


def plateau(curve: Curve) -> Plateau | None:
    """The plateau that the curve has reached; None while its passes shrink, or may."""
    return _plateau_percent(curve) if curve.unit == "percent" else _plateau_bytes(curve)


def shrinks(curve: Curve, size: float) -> bool:
    """Whether the passes, which had not shrunk from `size` for a while, now do, and by much."""
    passes = curve.passes
    if len(passes) < RESUMES_OVER:
        return False
    end, _, members = _level(passes, len(passes) - 1)
    if end > math.log(SMALLER * size):
        return False
    gone = 0.0
    for i in range(min(members) - 1, -1, -1):
        gone += passes[i].count
        if gone >= RESUMES_OVER:
            return end - _level(passes, i)[0] < 0.8 * gone * math.log(SHRINKS_AGAIN)
    return False


def _level(passes: tuple[Pass, ...], i: int) -> tuple[float, float, list[int]]:
    """The logarithm of the size around pass i, its variance, and the passes it is taken from: one that was clearly
    seen, or the mean of three."""
    members: list[int] = []
    while 0 <= i and len(members) < 3:
        members.append(i)
        if passes[i].clear:
            break
        i -= 1
    size = sum(math.log(max(passes[j].size, 1e-9)) for j in members) / len(members)
    variance = sum(0.0 if passes[j].clear else UNCLEAR for j in members) / len(members) ** 2
    return size, variance, members


def _plateau_bytes(curve: Curve) -> Plateau | None:
    passes = curve.passes
    if len(passes) < 3:
        return None
    carried = link(curve)
    end, end_variance, last = _level(passes, len(passes) - 1)
    until = [0.0]
    for one in passes:
        until.append(until[-1] + one.count)
    for window in WINDOWS:
        start = next((j for j in range(min(last) - 1, -1, -1) if until[-1] - until[j + 1] >= window), None)
        if start is None:
            return None
        size, variance, first = _level(passes, start)
        n = until[-1] - until[start + 1]
        change, sigma = end - size, SIGMA
        begin, close = max(first), max(last)
        if carried and all(one.clear for one in passes[begin : close + 1]):
            took_s = passes[close].began_at - passes[begin].began_at
            if took_s > 0:
                sent = sum(one.size for one in passes[begin:close])
                change += n * math.log(sent / took_s / carried)
                sigma = SIGMA_LINK_KNOWN
        elif window == WINDOWS[0]:
            continue
        if _stands(change, n, sigma * sigma * n + end_variance + variance):
            return Plateau(math.exp(end), n, passes[start].began_at)
    return None


def _stands(change: float, n: float, variance: float) -> bool:
    return change > n * math.log(CONVERGES) + SIGMAS * math.sqrt(variance) and change > -SHRINKS * n


def _plateau_percent(curve: Curve) -> Plateau | None:
    carried = link(curve)
    if not carried:
        return None
    passes, block = curve.passes, curve.block
    if block is not None and block.looks >= 2 and block.top / carried > 30:
        passes = (*passes, Pass(block.began_at, block.top + 0.5))  # a long pass that goes on shows its size at once
    if len(passes) < 2:
        return None
    last = passes[-1]
    for window in WINDOWS_PERCENT:
        if len(passes) <= window:
            return None
        first = passes[-1 - window]
        size = max(last.size, first.size)
        n = carried * (last.began_at - first.began_at) / size
        if n < 2.5:
            continue
        looks = size / carried / 5.0
        guess = 0.04 if looks < 3 else 0.01 if looks < 6 else 1 / (12 * looks * looks)
        coarse = (0.3 / max(last.size - 0.5, 0.5)) ** 2 + (0.3 / max(first.size - 0.5, 0.5)) ** 2
        if _stands(math.log(last.size / first.size), n, SIGMA * SIGMA * n + coarse + 2 * guess):
            return Plateau(last.size, n, first.began_at)
    return None
