"""How Nova lets a live migration end: the downtime it permits, step by step, and what it does when all is too late.

`nova/virt/libvirt/migration.py:downtime_steps` and `should_abort`, facts 5.1. All of it follows from the size of the
guest and from nova.conf, so that it can be said in advance. Nova counts from when its monitor begins; here that is the
first look, a few seconds later at most.
"""

from __future__ import annotations

from maintd.domain.model import Curve, NovaLive

GIB = 1024.0**3


def gib(curve: Curve) -> float:
    """Nova's measure of a guest: memory, at least 2 GiB, and the disks that are copied, at least 2."""
    return max(2.0, curve.total / GIB) + (max(2.0, curve.disk_total / GIB) if curve.disk_total else 0.0)


def permitted_s(running_s: float, size_gib: float, nova: NovaLive) -> float:
    """The downtime that is permitted after so long."""
    steps = max(1, nova.downtime_steps)
    each_s = nova.downtime_delay_s * size_gib
    done = steps if each_s <= 0 else min(steps, int(running_s / each_s))
    first = nova.downtime_s / steps
    return first + (nova.downtime_s - first) * done / steps


def permits_after_s(downtime_s: float, size_gib: float, nova: NovaLive) -> float | None:
    """After how long such a downtime is permitted; None: never."""
    steps = max(1, nova.downtime_steps)
    for step in range(steps + 1):
        after_s = step * nova.downtime_delay_s * size_gib
        if permitted_s(after_s, size_gib, nova) >= downtime_s:
            return after_s
    return None


def ends_after_s(size_gib: float, nova: NovaLive) -> float | None:
    """After how long Nova aborts or forces it; None: never."""
    return nova.completion_timeout_s * size_gib if nova.completion_timeout_s > 0 else None


def ending(curve: Curve, needs_s: float, nova: NovaLive, now: float) -> dict[str, object]:
    """What Nova itself will do with a migration whose passes need such a downtime, and in how many seconds."""
    size, running_s = gib(curve), max(0.0, now - curve.began_at)
    permits_s, ends_s = permits_after_s(needs_s, size, nova), ends_after_s(size, nova)
    return {
        "downtime_permitted_seconds": round(permitted_s(running_s, size, nova), 3),
        "downtime_at_most_seconds": nova.downtime_s,
        "permits_it_in_seconds": None if permits_s is None else round(max(0.0, permits_s - running_s), 3),
        "then": nova.timeout_action if ends_s is not None else None,
        "then_in_seconds": None if ends_s is None else round(max(0.0, ends_s - running_s), 3),
    }
