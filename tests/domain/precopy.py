"""A small model of pre-copy, for tests of what is judged and estimated from its counters.

One guest of `total` bytes is sent over a link of `bandwidth` bytes a second; it writes `dirty` bytes a second into a
writable set of `writable` bytes. A pass sends what is dirty; meanwhile the guest writes into its set, where the same
page written twice counts once. It ends when the next pass fits into the permitted downtime (nova/virt/libvirt).
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from maintd.domain.model import NovaLive, Progress
from maintd.domain.ramp import permitted_s

GIB = 1024.0**3


@dataclass(frozen=True)
class Guest:
    total: float = 8 * GIB
    bandwidth: float = 0.5 * GIB
    dirty: float = 0.1 * GIB
    writable: float = 2 * GIB
    zero: float = 0.2
    disk: float = 0.0
    quiet_from: float | None = None
    quiet: float = 0.25
    noise: float = 0.1
    seed: int = 1


@dataclass
class Look:
    """What Nova's counters say at a moment, in seconds from the beginning."""

    at: float
    progress: Progress

    @property
    def percent(self) -> int:
        total, left = self.progress.memory_total_bytes or 1, self.progress.memory_remaining_bytes or 0
        return 100 - round(left * 100 / total)


@dataclass
class Told:
    """A whole migration: the looks at it, when its first pass ended, and when it did (None: not within the limit)."""

    looks: list[Look]
    first_pass_ended_at: float | None = None
    ended_at: float | None = None


def tell(guest: Guest, *, limit_s: float = 1500.0, every_s: float = 5.0) -> Told:
    """Play it, looked at every so often."""
    rng = random.Random(guest.seed)
    told = Told([])
    now, sent, left, first = 0.0, 0.0, guest.total, True
    size = max(2.0, guest.total / GIB)
    moments = _moments(every_s, limit_s)
    moment = next(moments)
    if guest.disk:
        end = guest.disk / guest.bandwidth
        while moment <= end:
            told.looks.append(_look(guest, moment, left, sent, guest.disk - guest.bandwidth * moment))
            moment = next(moments)
        now = end
    while now < limit_s:
        carried = guest.bandwidth * max(0.2, rng.gauss(1, 0.8 * guest.noise))
        load = left - (guest.zero * guest.total if first else 0.0)
        took = max(0.05, load / carried)
        while moment <= min(now + took, limit_s):
            part = (moment - now) / took
            told.looks.append(_look(guest, moment, left * (1 - part), sent + load * part, 0.0))
            moment = next(moments)
        now, sent = now + took, sent + load
        if first:
            told.first_pass_ended_at, first = now, False
        quiet = guest.quiet_from is not None and now > guest.quiet_from
        dirty = guest.dirty * (guest.quiet if quiet else 1.0) * max(0.2, rng.gauss(1, guest.noise))
        left = guest.writable * (1 - math.exp(-dirty * took / guest.writable))
        if left / carried <= permitted_s(now, size, NovaLive()):
            told.ended_at = now + left / carried
            break
    return told


def _moments(every_s: float, limit_s: float) -> Iterator[float]:
    at = every_s
    while True:
        yield at
        at += every_s


def _look(guest: Guest, at: float, left: float, sent: float, disk: float) -> Look:
    progress = Progress(
        memory_total_bytes=int(guest.total),
        memory_processed_bytes=int(sent),
        memory_remaining_bytes=int(left),
        disk_total_bytes=int(guest.disk),
        disk_processed_bytes=int(guest.disk - disk),
        disk_remaining_bytes=int(disk),
    )
    return Look(at, progress)
