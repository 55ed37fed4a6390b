"""How far the migrations are: their curves, the stalls that stand, how long it may still take, and what Nova will do.

Estimates are made anew for every answer, from what is kept of the looks: `domain.estimates` has the model. Whoever
holds the fleet shows its curves as they are in memory; another controller has those that were last stored, which may be
a little older. What cannot be estimated is null, never a guess.

What Nova will do (`nova`) is arithmetic over its configuration as [stall] gives it (`domain.ramp`), not something that
Nova said. It is counted from when the copying was first seen, which Nova began at most some seconds before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from maintd.domain import estimates
from maintd.domain.estimates import DrainEstimate
from maintd.domain.fleet import Fleet
from maintd.domain.model import Curve, Drain, Estimate, HostSlice, Kind, Migration, NovaLive, Policy, Stall
from maintd.domain.ramp import ends_after_s, gib, permitted_s
from maintd.web.asking import Asked
from maintd.web.shapes import curve_shape, drain_shape, migration_shape, moment, stall_shape


@dataclass(frozen=True, slots=True)
class Held:
    """What is held beside some migrations, by their keys: the curve of each, and its stalls that stand."""

    curves: Mapping[str, Curve] = field(default_factory=dict)
    stalls: Mapping[str, Sequence[Stall]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Seen:
    """A migration with what is held beside it."""

    migration: Migration
    curve: Curve | None = None
    stalls: Sequence[Stall] = ()


def held_in(fleet: Fleet, keys: Collection[str]) -> Held:
    """What a fleet in memory has beside the migrations of these keys."""
    curves = ((key, fleet.curve(key)) for key in keys)
    return Held(
        {key: curve for key, curve in curves if curve is not None},
        {key: stalls for key in keys if (stalls := fleet.stalls_of(key))},
    )


def held(asked: Asked, migrations: Iterable[Migration]) -> Held:
    """What is held beside these migrations; asks once for all of them. Of what is over nothing is held in memory."""
    keys = [migration.key for migration in migrations if migration.open]
    if not keys:
        return Held()
    return asked.web.held(keys) or _stored(asked, keys)


def _stored(asked: Asked, keys: Collection[str]) -> Held:
    """The same, as it was last stored: for a controller that does not hold the fleet."""
    reading = asked.web.store.reading
    stalls: dict[str, list[Stall]] = {}
    for stall in reading.stalls(limit=None, standing=True):
        stalls.setdefault(stall.migration_key, []).append(stall)
    curves = ((key, reading.curve(key)) for key in keys)
    return Held({key: curve for key, curve in curves if curve is not None}, stalls)


def seen(asked: Asked, migrations: Sequence[Migration]) -> list[Seen]:
    """Each migration with what is held beside it."""
    beside = held(asked, migrations)
    return [Seen(m, beside.curves.get(m.key), beside.stalls.get(m.key, ())) for m in migrations]


def seen_alone(asked: Asked, migration: Migration) -> Seen:
    """One migration with what is held beside it; of one that is over, the curve that was kept."""
    (one,) = seen(asked, (migration,))
    return one if migration.open else replace(one, curve=asked.web.store.reading.curve(migration.key))


def seen_shape(one: Seen, policy: Policy, now: float) -> dict[str, Any]:
    """A migration as every answer shows it: `eta` is null where it is not known, `stalls` are those that stand."""
    estimate = estimates.of_migration(one.curve, policy, now) if one.migration.open else None
    return {
        **migration_shape(one.migration),
        "eta": eta_shape(estimate),
        "stalls": [stall_shape(stall) for stall in one.stalls],
    }


def seen_whole(one: Seen, policy: Policy, now: float) -> dict[str, Any]:
    """A migration with its curve, and what Nova itself will do about it."""
    return {
        **seen_shape(one, policy, now),
        "curve": None if one.curve is None else curve_shape(one.curve),
        "nova": None if one.curve is None else foreseen(one.migration, one.curve, policy.nova),
    }


def eta_shape(estimate: Estimate | None) -> dict[str, float] | None:
    """An estimate in seconds: the middle, and the band that holds nine times in ten."""
    if estimate is None:
        return None
    return {name: round(getattr(estimate, name), 1) for name in ("seconds", "low_seconds", "high_seconds")}


def drain_with_eta(drain: Drain, found: HostSlice | None, asked: Asked) -> dict[str, Any]:
    """A drain with when the moves that were asked for will be done; all null once it is over, or its host is gone."""
    shape = drain_shape(drain)
    if found is None or drain.ended_at is not None:
        return {**shape, "eta": None, "eta_unknown": None, "not_asked": None}
    beside = held(asked, found.migrations)
    estimate = drain_estimate(found, beside.curves, asked.web.policy, asked.web.clock.now())
    return {
        **shape,
        "eta": eta_shape(estimate.estimate),
        "eta_unknown": estimate.unknown,
        "not_asked": estimate.not_asked,
    }


def drain_estimate(found: HostSlice, curves: Mapping[str, Curve], policy: Policy, now: float) -> DrainEstimate:
    """When the moves off a host will be done, as far as they were asked for."""
    name = found.host.name
    return estimates.of_drain(
        name,
        [m for m in found.migrations if m.open],
        [m for m in found.migrations if not m.open],
        [s.server_id for s in found.servers if s.host == name],
        curves.get,
        policy,
        now,
    )


def foreseen(migration: Migration, curve: Curve, nova: NovaLive) -> dict[str, Any] | None:
    """What Nova's own timers do to a live migration: the downtime it permits by and by, and how it ends what takes too
    long. None where the guest's size is not known: the bus tells percents only.

    Post-copy has neither. `permits` is the greatest last pass that a downtime lets through, at the bandwidth seen.
    """
    if migration.kind is not Kind.LIVE or curve.unit != "bytes" or not curve.total:
        return None
    size = gib(curve)
    steps: list[dict[str, Any]] = []
    timeout: dict[str, Any] | None = None
    if not migration.post_copy:
        for step in range(max(1, nova.downtime_steps) + 1):
            after_s = step * nova.downtime_delay_s * size
            downtime_s = permitted_s(after_s, size, nova)
            steps.append(
                {
                    "at": moment(curve.began_at + after_s),
                    "downtime_seconds": round(downtime_s, 3),
                    "permits": None if curve.bandwidth is None else round(downtime_s * curve.bandwidth),
                }
            )
        ends_s = ends_after_s(size, nova)
        if ends_s is not None:
            timeout = {"at": moment(curve.began_at + ends_s), "action": nova.timeout_action}
    return {"gib": round(size, 2), "downtime": steps, "timeout": timeout}
