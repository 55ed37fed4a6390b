"""How fast is the intake, beside oslo.messaging's own batch listener with an empty handler?

    python bench/intake.py [--count N] [--rounds N] [--url rabbit://…] [--admit module:function]

Each round fills two pool queues with the same notifications (Nova's mix of types, 3.7 kB each, published by py-amqp
directly) and lets each reader, in a fresh process, drain one. Then the same intake is given 500 notifications a second,
one by one, and the time from publishing to `admit` is taken. Without `--url` a RabbitMQ of its own is started.

Only the ratio of one run counts: both readers meet the same broker and the same other load. `--admit` names a factory
of the `admit` to measure (called without arguments); the default one does nothing. The last line is JSON.
"""

from __future__ import annotations

import argparse
import importlib
import json
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import amqp

from maintd.clock import SystemClock
from maintd.config import BusConfig

EXCHANGE, TOPIC = "nova-bench", "versioned_notifications"
RATE = 500

MIX = (
    ("instance.update", 55),
    ("scheduler.select_destinations.start", 7),
    ("scheduler.select_destinations.end", 7),
    ("instance.create.start", 4),
    ("instance.create.end", 4),
    ("instance.live_migration_pre.start", 3),
    ("instance.live_migration_pre.end", 3),
    ("instance.live_migration_post.start", 2),
    ("instance.live_migration_post_dest.start", 2),
    ("instance.live_migration_post_dest.end", 2),
    ("instance.live_migration_post.end", 2),
    ("instance.exists", 4),
    ("instance.power_off.start", 2),
    ("instance.delete.start", 1),
    ("instance.delete.end", 1),
    ("service.update", 1),
)


def _object(name: str, version: str, /, **data: Any) -> dict[str, Any]:
    return {
        "nova_object.name": name,
        "nova_object.namespace": "nova",
        "nova_object.version": version,
        "nova_object.data": data,
    }


def notifications(count: int, *, seed: int = 1, hosts: int = 100, servers: int = 2_000) -> Iterator[str]:
    """Wire bodies of so many notifications, the same for the same seed."""
    random_ = random.Random(seed)
    types, weights = zip(*MIX, strict=True)
    ids = [str(uuid.UUID(int=random_.getrandbits(128), version=4)) for _ in range(servers)]
    project = "abcdef0123456789abcdef0123456789"
    flavor = _object(
        "FlavorPayload", "1.4", flavorid=str(uuid.UUID(int=1)), memory_mb=4096, vcpus=2, root_gb=20, ephemeral_gb=0,
        name="m1.medium", swap=0, rxtx_factor=1.0, vcpu_weight=0, disabled=False, is_public=True, projects=None,
        extra_specs={}, description=None,
    )  # fmt: skip
    for n in range(count):
        event_type = random_.choices(types, weights)[0]
        number = random_.randrange(servers)
        host = f"cmp-{number % hosts:03}"
        at = f"2026-11-23 10:{n // 6000 % 60:02}:{n // 100 % 60:02}.{n % 100:02}0001"
        request = f"req-{uuid.UUID(int=random_.getrandbits(128))}"
        if event_type == "service.update":
            payload = _object(
                "ServiceStatusPayload", "1.1", host=host, version=61, disabled=bool(n % 2),
                last_seen_up="2026-11-23T10:00:00Z",
                binary="nova-compute", topic="compute", disabled_reason="maintenance", report_count=n,
                forced_down=False,
                availability_zone=None, uuid=str(uuid.UUID(int=number % hosts)),
            )  # fmt: skip
        else:
            payload = _object(
                "InstanceUpdatePayload", "2.1", uuid=ids[number], host=host, node=f"{host}.example.test",
                state="active", task_state="migrating" if "migration" in event_type else None, power_state="running",
                updated_at=f"2026-11-23T10:{n // 6000 % 60:02}:{n // 100 % 60:02}Z", progress=n % 100, flavor=flavor,
                state_update=_object(
                    "InstanceStateUpdatePayload", "1.0",
                    old_state="active", state="active", old_task_state=None, new_task_state=None,
                ),
                audit_period=_object(
                    "AuditPeriodPayload", "1.0", audit_period_beginning="2026-11-01T00:00:00Z",
                    audit_period_ending="2026-11-23T10:00:00Z",
                ),
                tenant_id=project, user_id=project, reservation_id="r-5p5gmc0h", display_name=f"web-{number}",
                display_description=f"web-{number}", host_name=f"web-{number}", os_type=None, architecture="x86_64",
                availability_zone="nova", image_uuid=str(uuid.UUID(int=7)), key_name="operator", kernel_id="",
                ramdisk_id="", created_at="2026-11-20T10:00:00Z", launched_at="2026-11-20T10:00:30Z", fault=None,
                terminated_at=None, deleted_at=None, block_devices=None, locked=False, locked_reason=None, shares=[],
                metadata={}, auto_disk_config="MANUAL", request_id=request, tags=[],
                action_initiator_user=project, action_initiator_project=project, old_display_name=None,
                ip_addresses=[] if n % 5 else [
                    _object(
                        "IpPayload", "1.0", label="private", mac="fa:16:3e:4c:2c:30", meta={}, port_uuid=ids[number],
                        version=4, address=f"10.0.{number // 250}.{number % 250}", device_name="tap4c2c30aa-01",
                    )
                ],
            )  # fmt: skip
        inner = {
            "message_id": str(uuid.UUID(int=random_.getrandbits(128), version=4)),
            "publisher_id": f"nova-compute:{host}",
            "event_type": event_type,
            "priority": "INFO",
            "payload": payload,
            "timestamp": at,
            "_unique_id": f"{random_.getrandbits(128):032x}",
            "_context_user": project, "_context_project_id": project, "_context_system_scope": None,
            "_context_project": project, "_context_domain": None, "_context_user_domain": "default",
            "_context_project_domain": "default", "_context_is_admin": True, "_context_read_only": False,
            "_context_show_deleted": False, "_context_auth_token": None, "_context_request_id": request,
            "_context_global_request_id": None, "_context_resource_uuid": None,
            "_context_roles": ["reader", "member", "admin"], "_context_is_admin_project": True,
            "_context_user_identity": f"{project} {project} - default default", "_context_user_id": project,
            "_context_read_deleted": "no", "_context_remote_address": "192.0.2.10", "_context_quota_class": None,
            "_context_timestamp": at, "_context_user_name": "admin", "_context_service_catalog": [],
            "_context_project_name": "admin",
        }  # fmt: skip
        yield json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)})


# --- the broker's side -----------------------------------------------------------------------------------------------


def _connect(url: str) -> Any:
    parts = urlsplit(url)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port}", userid=parts.username, password=parts.password,
        virtual_host=parts.path[1:] or "/",
    )  # fmt: skip
    connection.connect()
    return connection


def publish(channel: Any, body: str) -> None:
    """One notification, as Nova's driver would send it."""
    message = amqp.Message(body, content_type="application/json", content_encoding="utf-8", delivery_mode=2)
    channel.basic_publish(message, EXCHANGE, f"{TOPIC}.info")


def fill(url: str, pools: list[str], count: int, seed: int) -> None:
    """Empty the pools' queues and put the same notifications into each."""
    connection = _connect(url)
    channel = connection.channel()
    channel.exchange_declare(EXCHANGE, "topic", durable=False, auto_delete=False)
    for pool in pools:
        channel.queue_delete(pool)
        channel.queue_declare(pool, durable=False, auto_delete=False)
        for priority in ("info", "error"):
            channel.queue_bind(pool, EXCHANGE, f"{TOPIC}.{priority}")
    for body in notifications(count, seed=seed):
        publish(channel, body)
    while any(channel.queue_declare(pool, passive=True).message_count < count for pool in pools):
        time.sleep(0.05)
    connection.close()


# --- readers, each in a process of its own ---------------------------------------------------------------------------


def read_stock(url: str, pool: str, count: int) -> float:
    """Notifications a second of oslo.messaging's batch listener with an empty handler."""
    from oslo_config import cfg

    from maintd.messaging import opts, oslo_messaging

    seen, done = 0, threading.Event()

    class Empty:
        def info(self, messages: list[Any]) -> None:
            nonlocal seen
            seen += len(messages)
            if seen >= count:
                done.set()

        error = info

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
    began = time.perf_counter()
    server.start(override_pool_size=1)
    done.wait()
    rate = count / (time.perf_counter() - began)
    server.stop()
    server.wait()
    return rate


def _admit(name: str) -> Callable[..., None]:
    if not name:
        return lambda notifications, quarantined: None
    module, function = name.split(":")
    admit: Callable[..., None] = getattr(importlib.import_module(module), function)()
    return admit


def read_intake(url: str, pool: str, count: int, admit_name: str) -> float:
    """Notifications a second of our intake."""
    from maintd.nova.listener import Intake

    seen, done, admit = 0, threading.Event(), _admit(admit_name)

    def counted(notifications: Any, quarantined: Any) -> None:
        nonlocal seen
        admit(notifications, quarantined)
        seen += len(notifications)
        if seen >= count:
            done.set()

    bus = BusConfig(name="default", transport_url=url, exchange=EXCHANGE, topic=TOPIC, pool=pool)
    intake = Intake(bus, counted, lambda bus, state, detail: None, SystemClock())
    began = time.perf_counter()
    intake.start()
    done.wait()
    rate = count / (time.perf_counter() - began)
    if not intake.stop(5):
        raise RuntimeError("the intake did not stop")
    return rate


def latency(url: str, pool: str, seconds: int, admit_name: str) -> list[float]:
    """Seconds from publishing to the return of `admit`, at `RATE` notifications a second, from another process."""
    from maintd.nova.listener import Intake

    delays: list[float] = []
    count, admit = RATE * seconds, _admit(admit_name)

    def timed(notifications: Any, quarantined: Any) -> None:
        admit(notifications, quarantined)
        now = time.time()
        delays.extend(now - notification.timestamp for notification in notifications)

    bus = BusConfig(name="default", transport_url=url, exchange=EXCHANGE, topic=TOPIC, pool=pool)
    intake = Intake(bus, timed, lambda bus, state, detail: None, SystemClock())
    intake.start()
    while intake.state != "connected":
        time.sleep(0.01)
    subprocess.run([sys.executable, __file__, "--trickle", str(count), "--url", url], check=True)  # noqa: S603
    deadline = time.monotonic() + 10
    while len(delays) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    intake.stop(5)
    return delays


def trickle(url: str, count: int) -> None:
    """Publish so many at `RATE` a second, each with its own time in it."""
    connection = _connect(url)
    channel = connection.channel()
    began = time.monotonic()
    for n, body in enumerate(notifications(count, seed=99)):
        time.sleep(max(0.0, began + n / RATE - time.monotonic()))
        outer = json.loads(body)
        inner = json.loads(outer["oslo.message"])
        at = time.time()
        inner["timestamp"] = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 1e6):06}"
        outer["oslo.message"] = json.dumps(inner)
        publish(channel, json.dumps(outer))
    connection.close()


def _child(reader: str, url: str, pool: str, count: int, admit: str) -> float:
    command = [sys.executable, __file__, "--read", reader, "--url", url, "--pool", pool, "--count", str(count)]
    done = subprocess.run([*command, "--admit", admit], check=True, capture_output=True, text=True, timeout=300)  # noqa: S603
    return float(done.stdout.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--url", default="")
    parser.add_argument("--admit", default="")
    parser.add_argument("--read", choices=("stock", "intake"), help=argparse.SUPPRESS)
    parser.add_argument("--pool", default="", help=argparse.SUPPRESS)
    parser.add_argument("--trickle", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.trickle:
        trickle(given.url, given.trickle)
        return 0
    if given.read:
        reader = {"stock": read_stock, "intake": lambda *to: read_intake(*to, given.admit)}[given.read]
        print(reader(given.url, given.pool, given.count))
        return 0
    node = None
    if not given.url:
        from tests.support.rabbitmq import Rabbit

        node = Rabbit(Path(tempfile.mkdtemp(prefix="maintd-bench-")))
        node.start()
        given.url = node.url
    try:
        bodies = list(notifications(1_000))
        print(f"{given.count} notifications of {statistics.mean(map(len, bodies)):.0f} bytes on average")
        rates: dict[str, list[float]] = {"stock": [], "intake": []}
        for n in range(given.rounds):
            fill(given.url, ["bench-stock", "bench-intake"], given.count, seed=n)
            for reader in ("stock", "intake") if n % 2 == 0 else ("intake", "stock"):
                rates[reader].append(_child(reader, given.url, f"bench-{reader}", given.count, given.admit))
            print(f"round {n + 1}: stock {rates['stock'][-1]:.0f}/s, intake {rates['intake'][-1]:.0f}/s")
        fill(given.url, ["bench-intake"], 0, seed=0)
        delays = sorted(latency(given.url, "bench-intake", 10, given.admit))
        ratio = statistics.median(rates["intake"]) / statistics.median(rates["stock"])
        p50, p99 = (delays[int(len(delays) * share)] for share in (0.50, 0.99))
        print(f"ratio {ratio:.2f}; at {RATE}/s, publish to admitted: p50 {p50 * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms")
        print(json.dumps({"rates": rates, "ratio": ratio, "admitted_p50_s": p50, "admitted_p99_s": p99}))
    finally:
        if node is not None:
            node.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
