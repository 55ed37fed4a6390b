"""The whole path beside oslo.messaging's own batch listener with an empty handler.

Both drain the same queue of the same broker, filled beforehand, each in a process of its own, in turn: A B B A. The
path is the product's: `Intake`, `Admission`, `StoreKeeper` on SQLite, from a fleet loaded as the daemon loads it. The
clock runs from the end of the first batch to the end of the last, so that connecting counts for neither.
"""

from __future__ import annotations

import json
import logging
import statistics
import sys
import threading
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import mix, support
from bench.support import EXCHANGE, TOPIC, Row, Setting, tell

BAR = 0.8


def measure(setting: Setting) -> Row:
    """Drain the queue with either, several times over."""
    count, rounds = (2_000, 1) if setting.quick else (10_000, 6)
    load = mix.prepare(setting.folder / "whole-path", hosts=200, servers=4_000, count=count)
    bodies = list(load.bodies())
    size = statistics.mean(len(body) for _, body in bodies)
    tell(f"{count} notifications of {size / 1000:.1f} kB, {rounds} rounds")
    rates: dict[str, list[float]] = {"stock": [], "maintd": []}
    ratios: list[float] = []
    processor_us: dict[str, list[float]] = {"stock": [], "maintd": []}
    with support.broker() as url:
        for number in range(rounds):
            for reader in ("stock", "maintd") if number % 2 == 0 else ("maintd", "stock"):
                fill(url, f"bench-{reader}", bodies)
                database = load.database_for(f"{reader}-{number}")
                got = support.run("bench.whole_path", reader, url, f"bench-{reader}", count, database)
                rates[reader].append(got["rate"])
                processor_us[reader].append(got["processor_us"])
            ratios.append(rates["maintd"][-1] / rates["stock"][-1])
            tell(
                f"round {number + 1}: stock {rates['stock'][-1]:.0f}/s, "
                f"maintd {rates['maintd'][-1]:.0f}/s, ratio {ratios[-1]:.2f}"
            )
    ratio = statistics.median(ratios)
    work = {reader: statistics.median(values) for reader, values in processor_us.items()}
    tell(f"processor time for each: stock {work['stock']:.0f} us, maintd {work['maintd']:.0f} us")
    return Row(
        "whole path against oslo.messaging's empty batch listener",
        f">= {BAR}",
        f"{ratio:.2f} ({statistics.median(rates['maintd']):.0f}/s against {statistics.median(rates['stock']):.0f}/s)",
        ratio >= BAR,
        {"ratio": ratio, "ratios": ratios, "rates": rates, "processor_us": processor_us, "mean_bytes": size},
    )


def fill(url: str, pool: str, bodies: Sequence[tuple[str, str]]) -> None:
    """A fresh queue as the pool's listener will declare it, with all the messages in it."""
    import kombu

    from maintd.simulator.bus import AmqpBus

    url = url.replace("rabbit://", "amqp://")  # kombu's word for it
    with kombu.Connection(url) as connection:
        channel = connection.channel()
        exchange = kombu.Exchange(EXCHANGE, type="topic", durable=False)(channel)
        exchange.declare()
        channel.queue_delete(pool)
        channel.queue_declare(pool, durable=False, auto_delete=False)
        for priority in ("audit", "critical", "debug", "error", "info", "sample", "warn"):
            channel.queue_bind(pool, EXCHANGE, f"{TOPIC}.{priority}")
        with AmqpBus(url, exchange=EXCHANGE, declare_queues=False) as bus:
            for key, body in bodies:
                bus.send_body(key, body)
        support.wait_until(
            lambda: channel.queue_declare(pool, passive=True).message_count >= len(bodies), 60.0, "the queue is filled"
        )


class Meter:
    """Messages a second between the end of the first batch and the end of the last."""

    def __init__(self, count: int) -> None:
        self.over = threading.Event()
        self._count, self._seen, self._first, self._began_at = count, 0, 0, 0.0
        self.rate = self.processor_us = 0.0
        self._processor_at = 0.0

    def took(self, messages: int) -> None:
        now = time.perf_counter()
        self._seen += messages
        if not self._first:
            self._first, self._began_at, self._processor_at = self._seen, now, time.process_time()
        if self._seen >= self._count and not self.over.is_set():
            handled = self._seen - self._first
            self.rate = handled / (now - self._began_at)
            self.processor_us = (time.process_time() - self._processor_at) / handled * 1e6
            self.over.set()


def read_stock(url: str, pool: str, meter: Meter) -> None:
    """oslo.messaging's batch listener as it comes, with our intake's batches and prefetch (others do no better)."""
    from oslo_config import cfg

    from maintd.messaging import opts, oslo_messaging

    class Empty:
        def info(self, messages: list[Any]) -> None:
            meter.took(len(messages))

        audit = critical = debug = error = sample = warn = info

    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    for group, options in opts.list_opts():
        if group == "oslo_messaging_rabbit":
            conf.register_opts(options, group=group)
    conf.set_override("rabbit_qos_prefetch_count", 300, group="oslo_messaging_rabbit")
    server = oslo_messaging.get_batch_notification_listener(
        oslo_messaging.get_notification_transport(conf, url),
        [oslo_messaging.Target(topic=TOPIC, exchange=EXCHANGE)],
        [Empty()],
        allow_requeue=True,
        pool=pool,
        batch_size=100,
        batch_timeout=0.1,
    )
    server.start(override_pool_size=1)
    meter.over.wait(120.0)
    server.stop()
    server.wait()


def read_maintd(url: str, pool: str, database: Path, meter: Meter) -> None:
    """The product, put together as the daemon does it, without polls and web servers."""
    from maintd.clock import SystemClock
    from maintd.config import BusConfig
    from maintd.daemon import Voice
    from maintd.domain.fleet import Fleet
    from maintd.domain.model import Policy
    from maintd.ingest.admit import Admission
    from maintd.ingest.keeper import StoreKeeper
    from maintd.metrics import Metrics
    from maintd.nova.listener import Intake
    from maintd.store import open_store

    clock, metrics = SystemClock(), Metrics()
    logging.getLogger("maintd").setLevel(logging.ERROR)
    store = open_store(f"sqlite:///{database}", clock, tables="upgrade")
    fence = store.leases.acquire("fleet", "bench", 3600.0, clock.now())
    assert fence is not None, "nobody else uses the file"
    admission = Admission(
        Fleet(Policy(has_cloud=True), store.load_fleet()),
        clock=clock,
        ids=lambda: uuid.uuid4().hex,
        installation="bench",
        sequence=store.last_sequence(),
        keeper=StoreKeeper(store, fence, clock, metrics.store_commit_seconds.observe),
        listener=Voice(metrics, lambda: None),
    )

    def admit(notifications: Any, quarantined: Any) -> None:
        admission.admit_notifications(notifications, quarantined)
        meter.took(len(notifications) + len(quarantined))

    bus = BusConfig(name="default", transport_url=url, exchange=EXCHANGE, topic=TOPIC, pool=pool)
    intake = Intake(bus, admit, lambda bus, state, detail: None, clock)
    intake.start()
    meter.over.wait(120.0)
    intake.stop(5.0)
    store.close()


def main(reader: str, url: str, pool: str, count: str, database: str) -> None:
    meter = Meter(int(count))
    if reader == "stock":
        read_stock(url, pool, meter)
    else:
        read_maintd(url, pool, Path(database), meter)
    assert meter.over.is_set(), "the queue was not drained in time"
    print(json.dumps({"rate": meter.rate, "processor_us": meter.processor_us}))


if __name__ == "__main__":
    main(*sys.argv[1:])
