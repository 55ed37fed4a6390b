"""From the last allocation freed in Nova to `host.emptied` received, beyond the settling time.

A simulated Nova over real HTTP and a real broker, a real daemon, a real receiver. One host after another is closed and
its servers live-migrated away, as often as the budget of calls on Nova's API carries (a drain takes some thirty calls,
of nine a second). The simulated Placement notes the moment at which the last
allocation of each host is freed; the receiver notes when the proof arrives.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from bench import support
from bench.support import EXCHANGE, Daemon, Receiver, Row, Setting, quantile, sections, tell, wait_until
from maintd.clock import SystemClock
from maintd.simulator import Cloud
from maintd.simulator.bus import AmqpBus, Queued
from maintd.simulator.rest import RestServer

SETTLE_S = 2.0
BAR_S = 2.0
SERVERS = 3


def measure(setting: Setting) -> Row:
    """Drain hosts, a few at a time."""
    drains, every_s = (3, 5.0) if setting.quick else (20, 5.0)
    folder = setting.folder / "emptied"
    receiver = Receiver()
    with support.broker() as url, AmqpBus(url.replace("rabbit://", "amqp://"), exchange=EXCHANGE) as bus:
        publisher = Queued(bus)
        cloud = Watched(SystemClock(), publisher, seed=3)
        for number in range(drains):
            cloud.add_host(f"cmp-{number:02d}")
            for _ in range(SERVERS):
                cloud.add_server(f"cmp-{number:02d}")
        for number in range(5):
            cloud.add_host(f"spare-{number}")
        cloud.knobs.set("live_migration", mode="converge", seconds=1.0, report_s=0.5)
        rest = RestServer(cloud, threads=8).start()
        rest.api.keep_seen = False
        cloud.start()
        options = sections(
            folder / "maintd.sqlite", receiver.url, transport_url=url, cloud=rest.cloud_config(), settle_s=SETTLE_S
        )
        daemon = Daemon(folder, options)
        try:
            wait_until(lambda: daemon.status()["baselined_at"] is not None, 60.0, "the daemon has read the cloud")
            tell(f"{drains} drains of {SERVERS} servers, one begins every {every_s:g} s, settle_s {SETTLE_S:g}")
            for number in range(drains):
                threading.Thread(target=_drain, args=(cloud, number), daemon=True).start()
                time.sleep(every_s)
            wait_until(
                lambda: sum(b"maintd.host.emptied.v1" in body for _, body in receiver.heard) >= drains,
                60.0,
                "every host is proven empty",
            )
        finally:
            daemon.stop()
            cloud.stop()
            rest.stop()
            publisher.close()
            receiver.close()
    delays: dict[str, float] = {}
    for at, event in receiver.events():
        host = event["data"].get("host")
        if event["type"] == "maintd.host.emptied.v1" and host not in delays:
            delays[host] = at - cloud.freed_at[host] - SETTLE_S
    p50, p99 = quantile(list(delays.values()), 0.50), quantile(list(delays.values()), 0.99)
    early = sum(delay < 0 for delay in delays.values())
    return Row(
        "last allocation freed to host.emptied received, beyond settle_s, p50 / p99",
        f"<= {BAR_S:g} s (p99)",
        f"{p50:.2f} / {p99:.2f} s ({len(delays)} drains{f', {early} EARLY' if early else ''})",
        p99 <= BAR_S and not early,
        {"p50_s": p50, "p99_s": p99, "settle_s": SETTLE_S, "drains": len(delays), "early": early, "delays_s": delays},
    )


class Watched(Cloud):
    """A cloud that notes when the last allocation of a host was freed."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.freed_at: dict[str, float] = {}

    def _free(self, host: str | None, consumer: str) -> None:
        super()._free(host, consumer)
        known = self.hosts.get(host) if host is not None else None
        if known is not None and known.disabled and not known.provider.allocations:
            self.freed_at[known.name] = SystemClock().now()


def _drain(cloud: Watched, number: int) -> None:
    host = f"cmp-{number:02d}"
    cloud.disable(host, "maintenance")
    for index, server_id in enumerate(sorted(cloud.hosts[host].servers)):
        time.sleep(0.1)
        cloud.live_migrate(server_id, f"spare-{index}")
