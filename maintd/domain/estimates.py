"""How long a live migration, and the emptying of a host, may still take; with a band, or not at all.

**A migration.** The model is the plain one of pre-copy: the guest writes at a share rho of what the link carries, into
a writable set W; a pass that takes T seconds leaves W (1 - exp(-rho B T / W)) to be sent in the next, and it ends once
that fits into the permitted downtime (`ramp.py`). Neither rho nor W is told by Nova; both are learnt from the sizes of
the passes that were seen, by weighing a grid of pairs: before the first pass ends all that is known is what guests are
like in general (`_PRIOR`), afterwards each pass narrows it. Every pair that is left says when it would end; the middle
is the mean of their logarithms, the band what lies between two quantiles of their weights. *It is an estimate for the
case that the migration converges*: what does not, or most likely does not, has none.

**A drain.** What waits on a source goes to whichever of its lanes is free first, as many as were seen at work at once,
at the pace at which moves from there have ended lately, a server of twice the memory taking twice as long; of those
under way the rest of their own. Servers that nobody has asked to move are counted beside it, never in it. Where nothing
has ended yet and nothing can be estimated, it says that it does not know.

The constants were fitted to a model, and measured against it and against real traces: `docs/stalls.md`. Pure, as all
of the core: a curve, a moment, and nothing else.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import mean

from maintd.domain.curve import link
from maintd.domain.model import Curve, Estimate, Kind, Migration, NovaLive, Phase, Policy
from maintd.domain.ramp import gib

RHOS = (
    0.003, 0.01, 0.02, 0.04, 0.07, 0.10, 0.14, 0.18, 0.22, 0.27, 0.32, 0.37, 0.42, 0.47, 0.52, 0.57, 0.62, 0.67, 0.72,
    0.77, 0.83, 0.90, 1.0, 1.15, 1.4,
)  # fmt: skip
"""What a guest may write, as a share of what the link carries."""

SETS = (0.03, 0.07, 0.12, 0.18, 0.24, 0.30, 0.37, 0.44, 0.52, 0.62, 0.75, 0.95)
"""The writable set, as a share of memory."""

IDLE, IDLE_SHARE = 0.02, 0.15
BUSY = 0.6
HOPELESS = 1.2


def _prior() -> tuple[float, ...]:
    """How likely each rho is before anything was seen: some guests are idle, and of the others any rho is as good as
    another, but that one above 0.6 gets less and less likely to be that of a migration that ends."""
    out = []
    for i, rho in enumerate(RHOS):
        low = RHOS[i - 1] if i else 0.0005
        high = RHOS[i + 1] if i + 1 < len(RHOS) else 1.6
        idle = IDLE_SHARE * math.log(min(high, IDLE) / max(low, 0.0005)) / math.log(40) / 2 if rho <= IDLE else 0.0
        share = 1.0 if rho < BUSY else max(0.0, (HOPELESS - rho) / (HOPELESS - BUSY))
        out.append(math.log(max(idle + (1 - IDLE_SHARE) * share / 0.9 * (high - low) / 2, 1e-9)))
    return tuple(out)


_PRIOR = _prior()

SIGMA = 0.13
SIGMA_UNCLEAR = 0.35
"""How much the size of a pass varies about the model's, as a logarithm; and of one that is only guessed at."""

USED = 10
"""So many passes, the newest, are weighed."""

FORGOTTEN = 6.0
"""Pairs less likely than the likeliest by so much, as a logarithm, are let go."""

FIRST_BAND = (0.09, 0.64)
LATER_BAND = (0.02, 0.90)
MIDDLE = 0.93
"""Quantiles and a factor that make nine of ten bands hold, on the corpus."""

ZERO_AHEAD = 0.55
"""How much of what remains in the first pass has to be sent at least: zero pages lie together, often at the end."""

DISK_THEN_MEMORY = (0.42, 0.75, 1.5)
"""While disks are copied: what memory will take, in units of its size at their speed; low, middle, high."""

STANDS_STILL_S = 30.0
"""Six writes of Nova's that were all alike: what does not move has no end that could be estimated."""

MAX_PASSES = 80


def of_migration(curve: Curve | None, policy: Policy, now: float) -> Estimate | None:
    """How long the copying may still take; None where nobody can know: nothing was seen yet, or for too long, nothing
    moves, or it never ends so."""
    if curve is None or curve.unit != "bytes" or not curve.points or curve.flat_since is not None:
        return None
    last = curve.points[-1]
    if curve.looks > 1 and last.at - curve.changed_at >= STANDS_STILL_S:
        return None
    found = _copying(curve, policy.nova) if curve.copying_from is not None else _before_memory(curve)
    if found is None:
        return None
    since_s = now - last.at
    if since_s > found[2] + STANDS_STILL_S:
        return None  # it should have ended long since, and nobody has looked
    low, middle, high = (max(0.0, round(one - since_s, 3)) for one in found)
    return Estimate(middle, low, high)


def _before_memory(curve: Curve) -> tuple[float, float, float] | None:
    if not curve.disk_bandwidth or curve.points[-1].disk_remaining <= 0:
        return None
    disk_s = curve.points[-1].disk_remaining / curve.disk_bandwidth
    memory_s = curve.total / curve.disk_bandwidth
    low, middle, high = DISK_THEN_MEMORY
    return disk_s + low * memory_s, disk_s + middle * memory_s, disk_s + high * memory_s


def _copying(curve: Curve, nova: NovaLive) -> tuple[float, float, float] | None:
    carried = link(curve)
    if not carried or curve.copying_from is None:
        return None
    lately = curve.bandwidth or carried
    carried = (carried + lately) / 2 if 0.5 < lately / carried < 2 else lately
    rest = _rest_of_the_pass(curve, carried)
    if rest is None:
        return None
    left_s, gone_s = rest
    weights = _weights(curve, carried)
    best = max(weight for weight, _, _ in weights)
    ends: list[tuple[float, float]] = []
    endless = whole = 0.0
    for weight, rho, writable in weights:
        if weight < best - FORGOTTEN:
            continue
        share = math.exp(weight - best)
        whole += share
        end_s = _end_s(curve, nova, carried, rho, writable, left_s, gone_s)
        if end_s is None:
            endless += share
        else:
            ends.append((end_s, share))
    if not ends or endless > 0.5 * whole:
        return None
    ends.sort()
    if curve.first_pass_ended_at is None:
        (low, high), middle = FIRST_BAND, _quantile(ends, 0.5)
    else:
        low, high = LATER_BAND
        shares = sum(share for _, share in ends)
        middle = MIDDLE * math.exp(sum(share * math.log(max(end_s, 0.05)) for end_s, share in ends) / shares)
    low_s, high_s = _quantile(ends, low) * 0.93 - 1.0, _quantile(ends, high) * 1.08 + 1.5
    if curve.first_pass_ended_at is None:
        low_s = min(low_s, ZERO_AHEAD * left_s)
    return min(low_s, middle), middle, max(high_s, middle)


def _rest_of_the_pass(curve: Curve, carried: float) -> tuple[float, float] | None:
    """How long the pass under way will still take, and for how long it has gone on."""
    last = curve.points[-1]
    if curve.first_pass_ended_at is None:
        began_at = curve.copying_from or last.at
        lately = [point for point in curve.points[-6:] if point.at >= began_at]
        if len(lately) > 1:
            fell, took_s = lately[0].remaining - last.remaining, last.at - lately[0].at
        else:
            fell, took_s = curve.total - last.remaining, last.at - began_at
        return (last.remaining * took_s / fell, last.at - began_at) if fell > 0 and took_s > 0 else None
    now = curve.passes[-1]
    gone_s = max(0.0, last.at - now.began_at)
    if now.count > 1:
        gone_s = min(gone_s, now.size / carried)
    return last.remaining / (curve.rate or carried), gone_s


def _weights(curve: Curve, carried: float) -> list[tuple[float, float, float]]:
    """Every pair of rho and writable set, with the logarithm of how likely the passes that were seen make it."""
    seen = _seen(curve)
    out = []
    for prior, rho in zip(_PRIOR, RHOS, strict=True):
        for share in SETS:
            writable, weight = share * curve.total, prior
            for took_s, size, sigma in seen:
                model = writable * (1 - math.exp(-rho * carried * took_s / writable))
                off = math.log(size / model) / sigma
                weight -= off * off / 2
            out.append((weight, rho, writable))
    return out


def _seen(curve: Curve) -> list[tuple[float, float, float]]:
    """How long each pass took, what was dirty at its end, and how sure that is."""
    if curve.first_pass_ended_at is None or curve.copying_from is None:
        return []
    out = []
    began_at, count = curve.copying_from, 1.0
    for one in curve.passes:
        took_s = max(0.05, (one.began_at - began_at) / count)
        if one.size > 0:
            out.append((took_s, one.size, SIGMA if one.clear or one.count == 1 else SIGMA_UNCLEAR))
        began_at, count = one.began_at, one.count
    return out[-USED:]


def _end_s(
    curve: Curve, nova: NovaLive, carried: float, rho: float, writable: float, left_s: float, gone_s: float
) -> float | None:
    """When it would end, in seconds, if that were the guest; None: not in so many passes."""
    size, running_s = gib(curve), curve.points[-1].at - curve.began_at
    took_s, total_s, per_s = gone_s + left_s, left_s, writable / carried
    steps, each_s = max(1, nova.downtime_steps), nova.downtime_delay_s * size
    first_s = nova.downtime_s / steps
    step_s = (nova.downtime_s - first_s) / steps
    for _ in range(MAX_PASSES):
        took_s = per_s * (1 - math.exp(-rho * took_s / per_s))
        # `ramp.permitted_s`, which is asked some ten thousand times for an estimate
        done = steps if each_s <= 0 else min(steps, int((running_s + total_s) / each_s))
        if took_s <= first_s + step_s * done:
            return total_s + took_s
        total_s += took_s
    return None


def _quantile(ends: list[tuple[float, float]], share: float) -> float:
    whole, gone = sum(weight for _, weight in ends), 0.0
    for end_s, weight in ends:
        gone += weight
        if gone >= share * whole:
            return end_s
    return ends[-1][0]


# -- drains -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DrainEstimate:
    """When the moves that have been asked for will be done. `unknown` is the sentence why where there is no estimate;
    `not_asked` are the servers on the host that nobody has asked to move, whose time is not in it."""

    estimate: Estimate | None
    unknown: str | None = None
    not_asked: int = 0


FINISHING_S = 3.0
"""What is left of a move whose guest runs on the destination already."""

OVERDUE = 2.0
"""A move that takes longer than the usual by so many times that is not like those from which the usual was learnt."""

PACED_BY = 3
"""So many moves have to have ended before the pace of the queue is taken from them."""

SPREAD = 0.5
"""How much the time that a move takes varies, as a logarithm, where fewer than a handful were seen."""


def of_drain(
    host: str,
    moves: Sequence[Migration],
    ended: Sequence[Migration],
    servers: Sequence[str],
    curve: Callable[[str], Curve | None],
    policy: Policy,
    now: float,
) -> DrainEstimate:
    """When a host's moves will be done: `moves` are the open ones from it, `ended` those lately ended, `servers` the
    ids of the servers on it; `curve` gives a migration's, by its key."""
    leaving = [m for m in moves if m.source == host and m.phase is not Phase.AWAITING_CONFIRMATION]
    asked = {m.server_id for m in moves if m.source == host}
    not_asked = len(set(servers) - asked)
    if not leaving:
        return DrainEstimate(None, None if not asked else "what is left waits to be confirmed", not_asked)
    if stuck := [m for m in leaving if m.stalled is not None]:
        return DrainEstimate(None, f"{len(stuck)} of its moves stalled ({stuck[0].stalled})", not_asked)
    flat = [m for m in leaving if (seen := curve(m.key)) is not None and seen.flat_since is not None]
    if flat:
        return DrainEstimate(None, f"{len(flat)} of its moves may never end (not_converging)", not_asked)
    waiting = [m for m in leaving if m.phase in (Phase.ASKED, Phase.QUEUED)]
    at_work = [m for m in leaving if m not in waiting]
    done = [m for m in ended if m.source == host and m.phase is Phase.COMPLETED and m.ended_at is not None]
    usual_mb = mean([m.memory_mb for m in [*leaving, *done] if m.memory_mb] or [1])
    pace = _pace(done, at_work, usual_mb, now)
    rests: list[Estimate] = []
    for m in at_work:
        usual_s = pace[0] * _size(m, usual_mb) if pace is not None else 0.0
        rest = _rest(m, curve(m.key), usual_s, len(done), policy, now)
        if rest is None:
            unlike = "one of its moves takes much longer than those that have ended"
            unseen = "how long a move takes here has not been seen yet"
            return DrainEstimate(None, unlike if done else unseen, not_asked)
        rests.append(rest)
    if not waiting:
        return DrainEstimate(_longest(rests), None, not_asked)
    if pace is None and not rests:
        return DrainEstimate(None, "no move has begun yet", not_asked)
    if pace is None:
        whole_s = [_running_s(m, now) + r.seconds for m, r in zip(at_work, rests, strict=True)]
        pace = sum(whole_s) / sum(_size(m, usual_mb) for m in at_work), len(at_work)
    unit_s, lanes = pace
    spread = SPREAD / math.sqrt(max(1, min(len(done), len(waiting))))
    each_s = [unit_s * _size(m, usual_mb) for m in sorted(waiting, key=lambda m: (m.begun_at, m.key))]
    return DrainEstimate(_queue(rests, each_s, lanes, spread), None, not_asked)


def _pace(
    done: Sequence[Migration], at_work: Sequence[Migration], usual_mb: float, now: float
) -> tuple[float, int] | None:
    """How long a move of the usual size takes, and how many are at work at once; None where none has ended.

    Where they overlap a little, the next seen at work before the last is known to have ended, the time is shrunk until
    it makes as many of them in as much time as there were.
    """
    if not done:
        return None
    at_once = _at_once(done, at_work, now)
    lanes = max(1, round(at_once), len(at_work))
    unit_s = sum(_worked_s(m) for m in done) / sum(_size(m, usual_mb) for m in done)
    return unit_s * (min(1.0, lanes / at_once) if len(done) >= PACED_BY else 1.0), lanes


def _size(m: Migration, usual_mb: float) -> float:
    """How much there is to move, in servers of the usual size: memory is most of what a live migration sends."""
    return m.memory_mb / usual_mb if m.kind is Kind.LIVE and m.memory_mb else 1.0


def _rest(m: Migration, curve: Curve | None, usual_s: float, ended: int, policy: Policy, now: float) -> Estimate | None:
    """What is left of a move under way: by its own curve, by what the others took, or by both."""
    if m.phase is Phase.FINISHING:
        return Estimate(FINISHING_S, 0.0, 4 * FINISHING_S)
    seen = of_migration(curve, policy, now) if m.kind is Kind.LIVE else None
    left_s = usual_s - _running_s(m, now)
    if seen is None:
        if -left_s > OVERDUE * usual_s:
            return None  # whatever holds it up, it is not "nearly done" for ever
        left_s = max(left_s, 0.0)
        return Estimate(left_s, 0.5 * left_s, 2 * left_s + 5.0) if ended else None
    if ended >= PACED_BY and left_s > 0:
        return Estimate((seen.seconds + left_s) / 2, min(seen.low_seconds, left_s), max(seen.high_seconds, left_s))
    return seen


def _worked_s(m: Migration) -> float:
    """How long a move was at work, as far as that was seen: from when it was no longer only queued."""
    return max(0.1, (m.ended_at or 0.0) - (m.worked_from or m.begun_at))


def _running_s(m: Migration, now: float) -> float:
    return max(0.0, now - (m.worked_from or m.begun_at))


def _at_once(done: Sequence[Migration], at_work: Sequence[Migration], now: float) -> float:
    """How many moves were at work at the same time, on the whole, since the first of them that has ended began."""
    took_s = now - min(m.worked_from or m.begun_at for m in done)
    worked_s = sum(_worked_s(m) for m in done) + sum(_running_s(m, now) for m in at_work)
    return worked_s / took_s if took_s > 0 else 1.0


def _longest(rests: Sequence[Estimate]) -> Estimate:
    return Estimate(
        max(r.seconds for r in rests), max(r.low_seconds for r in rests), max(r.high_seconds for r in rests)
    )


def _queue(rests: Sequence[Estimate], each_s: Sequence[float], lanes: int, spread: float) -> Estimate:
    """What waits goes, in its order, to whichever lane is free first."""

    def whole(rest_s: Sequence[float], stretch: float) -> float:
        free_at = sorted([*rest_s, *([0.0] * (lanes - len(rest_s)))])
        for one_s in each_s:
            heapq.heapreplace(free_at, free_at[0] + one_s * stretch)
        return round(max(free_at), 3)

    return Estimate(
        whole([r.seconds for r in rests], 1.0),
        whole([r.low_seconds for r in rests], math.exp(-1.65 * spread)),
        whole([r.high_seconds for r in rests], math.exp(1.65 * spread)),
    )
