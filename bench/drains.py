"""How good the estimate of a drain is: half-way through, against the time that is really left.

Two hundred drains of the simulated Nova, each of six to forty servers of several sizes, one to three of them moved at a
time. A move takes as long as the server's memory makes it, more or less (lognormal, 0.3: how busy guests are). Its
notifications go through the real normalisers, the counters of what runs are looked at every 5 s, and `of_drain` is
asked when half of the time that the drain took is over. The bar: within 20 % of the time left for 80 % of the drains.

This is a model, and moves of one host that take about as long as each other are what it makes. It says that queue,
concurrency and what is under way are understood, not how long a real cloud's moves take.
"""

from __future__ import annotations

import random
from itertools import count

from bench.support import Row, Setting, tell
from maintd.clock import ManualClock
from maintd.domain import estimates
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Kind, Knowledge, Policy, Progress
from maintd.domain.observations import MigrationSeen, ProgressSeen, TimerDue
from maintd.domain.reducer import reduce
from maintd.nova.notifications import normalise, read_message
from maintd.simulator import Cloud, Timing
from maintd.simulator.notifications import Json

T0 = 1_800_000_000.0
FLAVORS = ("m1.small", "m1.medium", "m1.medium", "m1.large")
LOOK_S = 5.0
ASK_S = 10.0
WITHIN, SHARE = 0.2, 0.8
API = Because("api")


class Drain:
    """One drain, played to its end; `asked` is what was estimated, as (moment, estimate or None)."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.clock = ManualClock(T0)
        self.fleet = Fleet(Policy(has_cloud=True))
        self.fleet.put(Knowledge(memory_since=T0))
        self.numbers = count(1)
        timing = Timing(concurrent_live_migrations=rng.choice((1, 1, 2, 3)))
        self.cloud = cloud = Cloud(self.clock, self._hear, seed=seed, timing=timing)
        for name in ("src", "d1", "d2", "d3", "d4"):
            cloud.add_host(name)
        usual_s = rng.uniform(5.0, 30.0)
        self.servers = []
        for _ in range(rng.randint(6, 40)):
            server = cloud.add_server("src", flavor=rng.choice(FLAVORS))
            seconds = usual_s * server.flavor.memory_mb / 2048 * rng.lognormvariate(0.0, 0.3)
            cloud.knobs.set("live_migration", server=server.id, mode="converge", seconds=seconds)
            self.servers.append(server.id)
        self.asked: list[tuple[float, estimates.DrainEstimate]] = []
        self.ended_at = T0

    def _hear(self, routing_key: str, inner: Json) -> None:
        self._see(normalise(read_message(inner, received_at=self.cloud.now())))

    def _see(self, observations: object) -> None:
        for observation in observations:  # type: ignore[attr-defined]
            outcome = reduce(self.fleet, observation, lambda: str(next(self.numbers)))
            self.fleet.apply(outcome)

    def play(self) -> None:
        cloud, fleet = self.cloud, self.fleet
        cloud.disable("src", "maintenance")
        for server_id in self.servers:
            cloud.live_migrate(server_id)
        at = T0
        while any(server.host == "src" for server in cloud.servers.values()):
            at += LOOK_S
            cloud.advance(at)
            self._look(at)
            if self.asked and at - self.asked[-1][0] < ASK_S:
                continue
            moves = [m for m in fleet.open_migrations() if m.source == "src"]
            here = sorted(fleet.servers_on("src"))
            over = [m for i in self.servers for m in fleet.migrations_of(i) if not m.open and m.source == "src"]
            found = estimates.of_drain("src", moves, over, here, fleet.curve, fleet.policy, at)
            self.asked.append((at, found))
        self.ended_at = at

    def _look(self, at: float) -> None:
        """The counters of what runs, as GET /servers/{id}/migrations has them; and the rows of what is over."""
        while (taken := self.fleet.take_due(at)) is not None:
            self._see((TimerDue(taken[0], subject=taken[1]),))
        held = {m.server_id for m in self.fleet.open_migrations()}
        for row in list(self.cloud.migrations.values()):
            if row.status == "completed" and row.server.id in held:
                over = MigrationSeen(
                    at, API, row.server.id, row.id, row.uuid, Kind.LIVE, row.status, row.source, row.destination, None,
                    row.created_at, row.updated_at, at,
                )  # fmt: skip
                self._see((over,))
            if row.status == "running":
                progress = Progress(
                    row.memory_total, row.memory_processed, row.memory_remaining, row.disk_total, row.disk_processed,
                    row.disk_remaining,
                )  # fmt: skip
                seen = ProgressSeen(
                    at, API, row.server.id, row.id, row.uuid, row.status, row.source, row.destination, progress,
                    row.created_at, row.updated_at, at,
                )  # fmt: skip
                self._see((seen,))


def measure(setting: Setting) -> Row:
    """Play them all, and ask each half-way."""
    drains = 20 if setting.quick else 200
    good = known = held = bands = 0
    off: list[float] = []
    for seed in range(drains):
        drain = Drain(seed)
        drain.play()
        half = (T0 + drain.ended_at) / 2
        before = [(at, found) for at, found in drain.asked if at <= half]
        for at, found in drain.asked:
            if found.estimate is not None and at < drain.ended_at:
                bands += 1
                left = drain.ended_at - at
                held += found.estimate.low_seconds <= left <= found.estimate.high_seconds
        if not before or before[-1][1].estimate is None:
            continue
        at, found = before[-1]
        assert found.estimate is not None
        known += 1
        left = drain.ended_at - at
        off.append(abs(found.estimate.seconds - left) / left)
        good += off[-1] <= WITHIN
    off.sort()
    median = off[len(off) // 2] if off else float("nan")
    tell(f"{known} of {drains} had an estimate half-way; {good} within {WITHIN:.0%}, median off {median:.1%}")
    return Row(
        "the estimate of a drain, half-way, against the time left",
        f"<= {WITHIN:.0%} for {SHARE:.0%}",
        f"{good / drains:.0%} of {drains} within {WITHIN:.0%}, median off {median:.1%}; bands hold {held / bands:.0%}",
        good / drains >= SHARE,
        {"drains": drains, "known": known, "within": good, "median_off": median, "bands": bands, "held": held},
    )
