"""A rolling upgrade: a hundred hosts closed at once, every server live-migrated away, proven empty, opened again.

A simulated Nova over real HTTP, a real broker, a real daemon, a real receiver. As after `nova host-evacuate-live`, all
servers of a host are asked to move in one go and leave one after the other, as Nova does by default. The calls are
counted where they arrive; the bar is on any ten seconds, whatever they hold. Beside it stands how late the proofs came:
a budget that is kept by never proving anything would be worth nothing.
"""

from __future__ import annotations

import itertools
import random
import time

from bench import calls, support
from bench.emptied import Watched
from bench.support import EXCHANGE, Daemon, Receiver, Row, Setting, quantile, sections, tell
from maintd.clock import ManualClock, SystemClock
from maintd.simulator.bus import AmqpBus, Queued
from maintd.simulator.rest import RestServer, Seen

SETTLE_S = 15.0
BAR = 10.0
WINDOW_S = 10.0
OPEN_AFTER_S = 2.0
"""How long after its proof a host is opened again: an upgrade takes longer, and less of it is measured then."""


def measure(setting: Setting) -> Row:
    """Close, drain, prove and open a part of the cloud."""
    if setting.quick:
        return roll(setting, "rolling", 40, 5, (1, 2), (0.5, 1.0))
    return roll(setting, "rolling", 1_000, 100, (10, 20), (2.0, 8.0))


def roll(
    setting: Setting, name: str, hosts: int, drains: int, servers: tuple[int, int], move_s: tuple[float, float]
) -> Row:
    """So many of the hosts drain, with so many servers each whose moves take so long (from, to)."""
    settle_s = 1.0 if setting.quick else SETTLE_S
    folder = setting.folder / name
    receiver = Receiver()
    chance = random.Random(7)
    with support.broker() as url, AmqpBus(url.replace("rabbit://", "amqp://"), exchange=EXCHANGE) as bus:
        publisher = Queued(bus)
        cloud = Watched(ManualClock(SystemClock().now() - 86400.0), publisher, seed=7)
        cloud.fill(hosts - drains, servers[1], prefix="cmp")
        rolled = [f"old-{number:03d}" for number in range(drains)]
        for host in rolled:
            cloud.add_host(host)
            for _ in range(chance.randint(*servers)):
                server = cloud.add_server(host)
                cloud.knobs.set("live_migration", server=server.id, mode="converge", seconds=chance.uniform(*move_s))
        cloud.clock = SystemClock()  # what was made so far is a day old
        moves = sum(len(cloud.hosts[host].servers) for host in rolled)
        rest = RestServer(cloud, threads=8).start()
        cloud.start()
        daemon = Daemon(
            folder,
            sections(
                folder / "maintd.sqlite", receiver.url, transport_url=url, cloud=rest.cloud_config(), settle_s=settle_s
            ),
        )
        try:
            daemon.wait_read(120.0)
            time.sleep(0.0 if setting.quick else 12.0)  # so that no call of the first reading is in a window
            tell(f"{drains} of {hosts} hosts are closed, {moves} servers move, settle_s {settle_s:g}")
            began = SystemClock().now()
            for host in rolled:  # all of them first, or what leaves one would go to the next
                cloud.disable(host, "maintenance: rolling upgrade")
            for host in rolled:
                for server_id in list(cloud.hosts[host].servers):
                    cloud.live_migrate(server_id)
            emptied: dict[str, float] = {}
            opened: set[str] = set()
            deadline, told_at = time.monotonic() + 480.0, time.monotonic()
            while len(opened) < drains:
                for at, event in receiver.events():
                    if event["type"] == "maintd.host.emptied.v1":
                        emptied.setdefault(event["subject"], at)
                for host, at in emptied.items():
                    if host not in opened and SystemClock().now() - at >= OPEN_AFTER_S:
                        cloud.enable(host)
                        opened.add(host)
                if time.monotonic() - told_at > 30.0:
                    told_at = time.monotonic()
                    freed = sum(not cloud.hosts[host].provider.allocations for host in rolled)
                    tell(f"after {SystemClock().now() - began:.0f} s: {freed} free, {len(emptied)} proven")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"only {len(emptied)} of {drains} hosts are proven empty: {daemon.status()}")
                time.sleep(0.25)
            support.wait_quiet(receiver)
            ended = SystemClock().now()
            seen = list(rest.api.seen)
            events = list({e["id"]: e["type"] for _, e in receiver.events()}.values())
            again = len(receiver.heard) - len(events)  # delivered more than once, which counts once
        finally:
            daemon.stop()
            cloud.stop()
            rest.stop()
            publisher.close()
            receiver.close()
    load = calls.tally(seen, began, ended)
    late = {host: at - cloud.freed_at[host] - settle_s for host, at in emptied.items()}
    early = sum(delay < 0 for delay in late.values())
    p50, p90, most = quantile(list(late.values()), 0.5), quantile(list(late.values()), 0.9), max(late.values())
    last_freed = max(cloud.freed_at[host] for host in rolled) - began
    gaps = _gaps(seen, began, ended)
    looks = _looks(seen, began, ended)
    counted = {
        name: events.count(f"maintd.{name}.v1")
        for name in ("drain.started", "host.emptied", "migration.completed", "drain.ended", "host.occupied")
    }
    tell(f"{load.count} calls in {load.seconds:.0f} s; the last allocation was freed after {last_freed:.0f} s")
    tell(f"host.emptied beyond settle_s: p50 {p50:.1f}, p90 {p90:.1f}, greatest {most:.1f} s; {counted}")
    tell(f"longest time between two lists of services: {max(gaps):.0f} s; {again} events were delivered again")
    tell(
        f"looks at progress: {looks['calls']} at {looks['servers']} of {moves} servers, {looks['most_in_10_s']} at "
        f"most in any 10 s; between two at one server {looks['least_s']:.1f} s at least, {looks['p50_s']:.1f} s p50"
    )
    for kind, count in load.kinds.items():
        tell(f"  {count:6d} {kind}")
    worst = load.most_in_10_s / WINDOW_S
    return Row(
        f"{drains} of {hosts} hosts drain at once, moves of {move_s[0]:g} to {move_s[1]:g} s: "
        "calls of the API a second, in any 10 s / in all",
        f"<= {BAR:g} (any 10 s)",
        f"{worst:.1f} / {load.mean:.1f}; host.emptied {p50:.1f} s late p50, {most:.1f} s at most"
        f"{f', {early} EARLY' if early else ''}",
        worst <= BAR and not early and counted["drain.ended"] == drains,
        {
            "moves": moves,
            "settle_s": settle_s,
            "last_freed_s": last_freed,
            "late_s": {"p50": p50, "p90": p90, "greatest": most, "by_host": late},
            "early": early,
            "services_gap_s": max(gaps),
            "progress": looks,
            "events": counted,
            **load.numbers(),
        },
    )


def _looks(seen: list[Seen], began: float, ended: float) -> dict[str, float]:
    """What the looks at byte counters cost, and how far apart those at one server were."""
    at: dict[str, list[float]] = {}
    for one in seen:
        if began <= one.at < ended and calls.kind_of(one) == "/servers/ID/migrations":
            at.setdefault(one.target, []).append(one.at)
    apart = [b - a for moments in at.values() for a, b in itertools.pairwise(sorted(moments))]
    return {
        "calls": sum(map(len, at.values())),
        "servers": len(at),
        "most_in_10_s": calls.most(sorted(itertools.chain(*at.values())), WINDOW_S),
        "least_s": min(apart, default=0.0),
        "p50_s": quantile(apart, 0.5) if apart else 0.0,
    }


def _gaps(seen: list[Seen], began: float, ended: float) -> list[float]:
    """Seconds between the lists of services, which must not starve while everything else is asked."""
    lists = [s.at for s in seen if began <= s.at < ended and calls.kind_of(s) == "/os-services"]
    return [b - a for a, b in itertools.pairwise([began, *lists, ended])]
