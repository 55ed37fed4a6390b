"""Ready-made clouds and what an operator does to them.

A story only schedules the operator's acts in the cloud's own event queue; it runs when the cloud does, in real time or
on a manual clock, and the same seed tells the same story. `drain` is the one the demo tells; `random_day` is for tests
that want many interleavings; `notifications` is Nova's mix of messages in any amount, for benchmarks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from maintd.clock import Clock, ManualClock
from maintd.simulator.model import Cloud, Publish, Refused, Timing
from maintd.simulator.notifications import Json

Say = Callable[[float, str], None]


@dataclass(slots=True)
class Story:
    """A cloud, the host it is about, and how to know that the story is over."""

    cloud: Cloud
    host: str
    servers: list[str] = field(default_factory=list)
    acts: list[tuple[float, str]] = field(default_factory=list)
    say: Say | None = None

    def later(self, delay_s: float, text: str, act: Callable[[], None]) -> None:
        """The operator does this so many seconds from now; a refusal by the API is told, not raised."""

        def run() -> None:
            said = text
            try:
                act()
            except Refused as no:
                said = f"{text}: refused, {no}"
            self.acts.append((self.cloud.now(), said))
            if self.say is not None:
                self.say(self.cloud.now(), said)

        self.cloud.call_later(delay_s, run)

    def is_over(self) -> bool:
        """Nothing of the host's is left, on its disks or in Placement."""
        with self.cloud.lock:
            host = self.cloud.hosts[self.host]
            return not self.cloud.physically_on(self.host) and not host.provider.allocations

    def freed_at(self) -> float | None:
        """When Placement last let go of the host; None while it has not. Needs `watch`."""
        return self.acts[-1][0] if self.acts and self.acts[-1][1] == FREED else None

    def watch(self, every_s: float = 0.1) -> None:
        """Look until the story is over, and then note the time."""

        def look() -> None:
            if self.is_over():
                self.acts.append((self.cloud.now(), FREED))
                if self.say is not None:
                    self.say(self.cloud.now(), FREED)
            else:
                self.cloud.call_later(every_s, look)

        self.cloud.call_later(every_s, look)


FREED = "nothing is left on the host"


def small_cloud(
    clock: Clock,
    publish: Publish | None = None,
    *,
    hosts: int = 4,
    servers: int = 5,
    seed: int = 1,
    timing: Timing | None = None,
    names: tuple[str, ...] = (),
) -> Cloud:
    """Hosts cmp-01 and on, with so many servers on each, there all along."""
    cloud = Cloud(clock, publish, seed=seed, timing=timing)
    for number in range(1, hosts + 1):
        cloud.add_host(f"cmp-{number:02d}")
    for number in range(1, hosts + 1):
        for index in range(servers):
            name = names[index] if number == 1 and index < len(names) else f"vm-{number}{index + 1:02d}"
            cloud.add_server(f"cmp-{number:02d}", name)
    return cloud


def drain(
    clock: Clock,
    publish: Publish | None = None,
    *,
    hosts: int = 4,
    servers: int = 5,
    stuck: int | None = 2,
    stuck_for_s: float = 40.0,
    live_s: float = 4.0,
    report_s: float = 1.0,
    starts_in_s: float = 1.0,
    reason: str = "maintenance: new memory",
    seed: int = 1,
    say: Say | None = None,
    timing: Timing | None = None,
) -> Story:
    """Host cmp-01 is closed and everything on it live-migrated; the `stuck`th to run (from 0) hangs for a while.

    With one migration at a time per host, those behind the stuck one wait for it. After `stuck_for_s` from its asking
    it goes on by itself, and the host gets empty.
    """
    cloud = small_cloud(clock, publish, hosts=hosts, servers=servers, seed=seed, timing=timing)
    story = Story(cloud, "cmp-01", list(cloud.hosts["cmp-01"].servers), say=say)
    cloud.knobs.set("live_migration", mode="converge", seconds=live_s, report_s=report_s)
    story.later(
        starts_in_s, f'disable compute service cmp-01, reason "{reason}"', lambda: cloud.disable("cmp-01", reason)
    )
    for index, server_id in enumerate(story.servers):
        name = cloud.servers[server_id].name
        at = starts_in_s + 0.5 + 0.3 * index
        if index == stuck:
            cloud.knobs.set(
                "live_migration", server=server_id, mode="stuck", seconds=live_s, floor=0.4, report_s=report_s
            )

            def free(server_id: str = server_id) -> None:
                cloud.knobs.set("live_migration", server=server_id)

            story.later(at + stuck_for_s, f"{name}'s memory is copied again", free)

        def ask(server_id: str = server_id) -> None:
            cloud.live_migrate(server_id)

        story.later(at, f"live-migrate {name}", ask)
    story.watch()
    return story


def cold_drain(
    clock: Clock,
    publish: Publish | None = None,
    *,
    hosts: int = 4,
    servers: int = 4,
    disk_s: float = 2.0,
    confirm_after_s: float = 20.0,
    seed: int = 1,
    say: Say | None = None,
) -> Story:
    """Host cmp-01 is closed and everything cold-migrated; nothing is confirmed until `confirm_after_s`."""
    cloud = small_cloud(clock, publish, hosts=hosts, servers=servers, seed=seed)
    story = Story(cloud, "cmp-01", list(cloud.hosts["cmp-01"].servers), say=say)
    cloud.knobs.set("migrate_disk", seconds=disk_s)
    story.later(1.0, "disable compute service cmp-01", lambda: cloud.disable("cmp-01", "maintenance"))
    for index, server_id in enumerate(story.servers):
        name = cloud.servers[server_id].name

        def ask(server_id: str = server_id) -> None:
            cloud.migrate(server_id)

        def confirm(server_id: str = server_id) -> None:
            cloud.confirm(server_id)

        story.later(1.5 + 0.3 * index, f"migrate {name}", ask)
        story.later(1.5 + confirm_after_s + 0.3 * index, f"confirm {name}", confirm)
    story.watch()
    return story


def dead_host(
    clock: Clock,
    publish: Publish | None = None,
    *,
    hosts: int = 4,
    servers: int = 3,
    returns_after_s: float | None = 60.0,
    seed: int = 1,
    say: Say | None = None,
) -> Story:
    """The compute of cmp-01 dies, is forced down and evacuated; after `returns_after_s` it is back and cleans up."""
    cloud = small_cloud(clock, publish, hosts=hosts, servers=servers, seed=seed)
    story = Story(cloud, "cmp-01", list(cloud.hosts["cmp-01"].servers), say=say)
    story.later(1.0, "nova-compute on cmp-01 dies", lambda: cloud.kill_compute("cmp-01"))

    def close() -> None:
        cloud.set_service("cmp-01", forced_down=True)
        cloud.disable("cmp-01", "dead")

    story.later(3.0, "force down and disable cmp-01", close)
    for index, server_id in enumerate(story.servers):

        def ask(server_id: str = server_id) -> None:
            cloud.evacuate(server_id)

        story.later(4.0 + 0.2 * index, f"evacuate {cloud.servers[server_id].name}", ask)
    if returns_after_s is not None:
        story.later(returns_after_s, "nova-compute on cmp-01 is back", lambda: cloud.start_compute("cmp-01"))
    story.watch()
    return story


def random_day(cloud: Cloud, *, seed: int, seconds: float, acts: int, hosts: tuple[str, ...] = ()) -> None:
    """So many random acts of operators and users, spread over so many seconds; refusals are shrugged off.

    Hosts (by default all) are closed and opened, killed and started; servers created, moved in every way, confirmed,
    reverted, aborted, shelved, stopped and deleted; live migrations converge, fail, hang for a while, or raise.
    """
    chance = random.Random(seed)
    names = hosts or tuple(cloud.hosts)

    def act() -> None:
        host = chance.choice(names)
        kind = chance.random()
        with suppress(Refused, IndexError):
            if kind < 0.10:
                cloud.set_service(host, disabled=chance.random() < 0.6, reason="maintenance")
            elif kind < 0.13:
                cloud.kill_compute(host)
                cloud.call_later(chance.uniform(5.0, 200.0), lambda: cloud.start_compute(host))
            elif kind < 0.23:
                cloud.create(host=host if chance.random() < 0.5 else None)
            else:
                server = chance.choice(list(cloud.servers.values()))
                cloud.knobs.set(
                    "live_migration",
                    server=server.id,
                    seconds=chance.uniform(1.0, 20.0),
                    mode=chance.choice(("converge", "converge", "converge", "fail", "error", "diverge")),
                )
                cloud.call_later(
                    chance.uniform(20.0, 120.0), lambda: cloud.knobs.set("live_migration", server=server.id)
                )
                if kind < 0.53:
                    cloud.live_migrate(server.id)
                elif kind < 0.65:
                    cloud.migrate(server.id)
                elif kind < 0.73:
                    (cloud.confirm if chance.random() < 0.7 else cloud.revert)(server.id)
                elif kind < 0.81:
                    cloud.abort(server.id, cloud.migrations_of.get(server.id, [])[-1].id)
                elif kind < 0.86:
                    cloud.evacuate(server.id)
                elif kind < 0.90:
                    (cloud.shelve if server.state == "active" else cloud.unshelve)(server.id)
                elif kind < 0.94:
                    (cloud.stop_server if server.state == "active" else cloud.start_server)(server.id)
                else:
                    cloud.delete(server.id, force=chance.random() < 0.3)

    for at in sorted(chance.uniform(0.0, seconds) for _ in range(acts)):
        cloud.call_later(at, act)


def notifications(
    count: int, *, hosts: int = 20, servers_per_host: int = 10, seed: int = 1, begins_at: float = 1_800_000_000.0
) -> Iterator[tuple[str, Json]]:
    """So many messages in Nova's mix: random days of a cloud of this size, one after another, as fast as they come."""
    made: list[tuple[str, Json]] = []
    clock = ManualClock(begins_at)
    cloud = Cloud(clock, lambda key, inner: made.append((key, inner)), seed=seed)
    cloud.fill(hosts, servers_per_host)
    day = 0
    while count > 0:
        random_day(cloud, seed=seed + day, seconds=600.0, acts=20 * hosts)
        day += 1
        for _ in range(120):
            cloud.advance(clock.now() + 10.0)
            yield from made[:count]
            count -= len(made)
            made.clear()
            if count <= 0:
                return
