"""How the looks at a live migration become a curve: the passes of its pre-copy, the speed of the link, and a drawing.

A pre-copy sends all memory once, then again what was written meanwhile, and so on, pass after pass, until what is left
can be sent while the guest stands still. What remains is therefore a sawtooth: it falls to nothing within each pass and
jumps up at the next. Its low points say nothing (Nova gave up a detector that watched them, facts 5.1); the *sizes of
the passes* say whether they shrink. Nova tells neither passes nor dirty rate; both are found here:

- with the counters of the API, remaining + processed never changes within a pass, and jumps at its end by just what the
  next one has to send. That holds however often one looks; several short passes between two looks show as their sum;
- from the bus, which tells only whole per cents of memory, a rise is a new pass, and how high the curve stands between
  rises is about its size.

The first pass is told apart: in it zero pages go by without being sent, so that remaining falls faster than processed
grows. Disks are copied before memory. Nothing is judged here; see `detectors/` and `estimates.py`.
"""

from __future__ import annotations

from collections.abc import Callable

from maintd.domain.copying import replace
from maintd.domain.model import Block, Curve, Migration, Pass, Point, Progress

KEEP_EVERY_S = 30.0
"""How often the store is given a curve that goes on."""

MAX_POINTS = 240
SUMMED_UP = 60
"""So many points are kept of a migration that is over; its passes all stay."""

MAX_PASSES = 64
MAX_FALLS = 60

STALE_S = 60.0
"""After so long without an answer of the API, what the bus tells begins a curve of its own."""

NOISE = 0.05
"""By how much of what was sent the sum of counters may creep without a new pass: headers and the like."""

WRAPPED = 0.5
"""A whole per cent more or less may be rounding; a rise beyond that is a new pass."""


def look(
    curve: Curve | None,
    migration: Migration,
    at: float,
    *,
    progress: Progress | None = None,
    percent: int | None = None,
) -> Curve | None:
    """The curve with one look more: at counters of the API (`progress`), or at what an update said (`percent`, done).

    None where there is nothing to look at: no counters yet, or the bus repeats what the API tells better.
    """
    if progress is not None and progress.memory_total_bytes:
        if curve is None or curve.unit != "bytes":
            curve = _begun(migration, at, "bytes", float(progress.memory_total_bytes), curve)
        point = Point(
            at,
            float(progress.memory_remaining_bytes or 0),
            float(progress.disk_remaining_bytes or 0),
            float(progress.memory_processed_bytes or 0),
        )
        curve = replace(
            curve, total=float(progress.memory_total_bytes), disk_total=float(progress.disk_total_bytes or 0)
        )
        return _kept(_with(_by_bytes, curve, point), at)
    if percent is not None:
        if curve is not None and curve.unit == "bytes":
            if curve.points and at - curve.points[-1].at < STALE_S:
                return None
            curve = _begun(migration, at, "percent", 100.0, curve)
        if curve is None:
            curve = _begun(migration, at, "percent", 100.0)
        return _kept(_with(_by_percent, curve, Point(at, float(100 - percent))), at)
    return None


def ended(curve: Curve, at: float, outcome: str) -> Curve:
    """The curve of a migration that is over: what is needed to draw it once more, and no more than that."""
    points = curve.points
    if len(points) > SUMMED_UP:
        step = (len(points) - 1) / (SUMMED_UP - 1)
        points = tuple(points[round(step * n)] for n in range(SUMMED_UP))
    return replace(
        curve, points=points, ended_at=at, outcome=outcome, kept_at=at, falls=(), falling=None, fall_looks=0, block=None
    )


def link(curve: Curve) -> float | None:
    """What the link carries, over all that has been seen of it (bytes), or at least (per cent); None while unknown."""
    if curve.unit == "percent":
        return _at_least(curve)
    if curve.copying_from is None or not curve.points:
        return None
    last = curve.points[-1]
    took_s = last.at - curve.copying_from
    sent = (last.processed or 0.0) - curve.copied_before
    return sent / took_s if took_s > 0 and sent > 0 else None


def _begun(migration: Migration, at: float, unit: str, total: float, before: Curve | None = None) -> Curve:
    """A new curve; where it takes the place of one in another unit, the migration began with that one."""
    return Curve(
        key=migration.key,
        server_id=migration.server_id,
        source=migration.source,
        destination=migration.destination,
        unit=unit,
        total=total,
        began_at=at if before is None else before.began_at,
        changed_at=at,
        kept_at=at,
    )


def _kept(curve: Curve, at: float) -> Curve:
    return replace(curve, kept_at=at) if at - curve.kept_at >= KEEP_EVERY_S else curve


def _with(learn: Callable[[Curve, Point, Point], Curve], curve: Curve, point: Point) -> Curve:
    """The curve with the point, and with what `learn` makes of it and the one before; a point that is no later says
    nothing."""
    if not curve.points:
        return _looked(curve, point)
    before = curve.points[-1]
    return learn(_looked(curve, point), before, point) if point.at > before.at else curve


def _looked(curve: Curve, point: Point) -> Curve:
    """The point among the others: every second of the older half goes when there are too many."""
    points = (*curve.points, point)
    if len(points) > MAX_POINTS:
        half = len(points) // 2
        points = points[:half:2] + points[half:]
    same = bool(curve.points) and _alike(curve.points[-1], point)
    return replace(
        curve, points=points, looks=curve.looks + 1, changed_at=curve.changed_at if same else point.at, rate=None
    )


def _alike(a: Point, b: Point) -> bool:
    return (a.remaining, a.disk_remaining, a.processed) == (b.remaining, b.disk_remaining, b.processed)


# -- counters ---------------------------------------------------------------------------------------------------------


def _by_bytes(curve: Curve, before: Point, point: Point) -> Curve:
    took_s = point.at - before.at
    disk_sent = before.disk_remaining - point.disk_remaining
    if disk_sent > 0:
        curve = replace(curve, disk_bandwidth=disk_sent / took_s)
    now, then = point.processed or 0.0, before.processed or 0.0
    sent = now - then
    if now <= 0 or (sent <= 0 and point.remaining >= before.remaining):
        return curve  # memory has not begun, or nothing moves
    if curve.copying_from is None:
        curve = replace(curve, copying_from=before.at, copied_before=then)
    rate = max(sent, 0.0) / took_s
    if rate > 0:
        lately = curve.bandwidth if curve.bandwidth is not None else rate
        curve = replace(curve, bandwidth=lately + 0.3 * (rate - lately))
    dirtied = (point.remaining + now) - (before.remaining + then)
    if dirtied <= NOISE * sent + 0.0005 * curve.total:
        return replace(curve, rate=rate if rate > 0 else None)
    ended_at = before.at + (min(took_s, before.remaining / rate) if rate > 0 else 0.0)
    count = 1.0
    if curve.passes and curve.passes[-1].size > 0:
        # As many as would each be like the last one, but none smaller than what remains of it.
        count = max(1.0, float(round(dirtied / curve.passes[-1].size)))
        count = min(count, max(1.0, float(int(dirtied / max(point.remaining, 1.0)))))
    clear = count == 1.0 and dirtied > 2 * rate * took_s
    return _passed(curve, Pass(ended_at, dirtied / count, count, clear), ended_at)


def _passed(curve: Curve, new: Pass, first_ended_at: float) -> Curve:
    first = curve.first_pass_ended_at if curve.first_pass_ended_at is not None else first_ended_at
    return replace(curve, passes=(*curve.passes, new)[-MAX_PASSES:], first_pass_ended_at=first)


# -- per cents --------------------------------------------------------------------------------------------------------


def _by_percent(curve: Curve, before: Point, point: Point) -> Curve:
    took_s = point.at - before.at
    fell = before.remaining - point.remaining
    if curve.copying_from is None:
        if fell <= 0 and point.remaining >= 100.0:
            return curve  # nothing of memory has been sent
        curve = replace(curve, copying_from=before.at)
    if curve.first_pass_ended_at is None:
        if point.remaining > before.remaining + 1.5 or (point.remaining <= 1.5 and before.remaining <= 1.5):
            block = Block(before.at, point.remaining, rises=int(fell < 0))
            # Zero pages go by unsent, so that this is the most that the link can carry.
            most = (100.0 - before.remaining) / max(took_s, before.at - (curve.copying_from or before.at))
            return replace(curve, first_pass_ended_at=before.at, bandwidth=most, block=block)
        return curve
    rise = fell < -WRAPPED
    curve = _falling(curve, before, point) if fell > 0 else replace(curve, falling=None)
    block = curve.block or Block(before.at, point.remaining)
    whole = block.looks >= 3 and (
        (block.rises >= 1 and rise) or block.rises >= 2 or (block.top <= 2.0 and block.looks >= 4)
    )
    if not whole:
        block = replace(
            block, top=max(block.top, point.remaining), looks=block.looks + 1, rises=block.rises + int(rise)
        )
        return replace(curve, block=block)
    size = block.top + 0.5
    link_at_least = _at_least(curve) or 0.0
    looks_each = size / link_at_least / took_s if link_at_least else 0.0
    count = max(1.0, link_at_least * (point.at - block.began_at) / size)
    done = Pass(block.began_at, size, count, clear=looks_each >= 6)
    return replace(
        curve,
        passes=(*curve.passes, done)[-MAX_PASSES:],
        block=Block(point.at, point.remaining, rises=int(rise)),
    )


def _falling(curve: Curve, before: Point, point: Point) -> Curve:
    """A fall goes on: how steep it is says what the link carries at least."""
    start, looks = (curve.falling or before), (curve.fall_looks if curve.falling else 0) + 1
    trust = 1.0 if looks >= 3 else 0.95 if looks == 2 else 0.9
    steep = (start.remaining - point.remaining) / (point.at - start.at) * trust
    return replace(curve, falling=start, fall_looks=looks, falls=(*curve.falls, steep)[-MAX_FALLS:])


SENT_AT_LEAST = 0.38
"""Of what the first pass seems to have sent, at least this much was sent: the rest may have been zero pages."""


def _at_least(curve: Curve) -> float | None:
    """A speed that the link has surely, per cent of memory a second; None before the first pass has ended."""
    if curve.first_pass_ended_at is None or curve.bandwidth is None:
        return None
    least = SENT_AT_LEAST * curve.bandwidth
    if len(curve.falls) >= 3:
        least = max(least, sorted(curve.falls)[int(0.85 * len(curve.falls))])
    return least
