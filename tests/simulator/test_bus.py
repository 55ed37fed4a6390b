"""What the simulator publishes arrives, whichever way it is sent, as the bytes that Nova sends."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg

from maintd.clock import ManualClock
from maintd.messaging import oslo_messaging
from maintd.nova.notifications.envelope import read_wire
from maintd.simulator import stories
from maintd.simulator.bus import AmqpBus, OsloBus, Queued, Recorder, tee, wire_body
from maintd.simulator.notifications import Json
from tests.support.rabbitmq import Rabbit

T0 = 1_800_000_000.0


def wait_until(true: Any, timeout_s: float = 15.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


class Endpoint:
    def __init__(self) -> None:
        self.got: list[tuple[str, str, dict[str, Any], str]] = []

    def info(self, ctxt: dict[str, Any], publisher: str, event: str, payload: Any, metadata: dict[str, Any]) -> None:
        self.got.append((event, publisher, ctxt, metadata["message_id"]))

    error = info


@pytest.mark.parametrize("url", ["fake://", "kombu+memory:////"])
def test_oslo_listeners_get_it_all(url: str) -> None:
    """A notification listener gets every message in order, with the simulator's ids and request context."""
    listen_to_a_drain(url, lambda transport: OsloBus(url, transport=transport))


@pytest.mark.parametrize("sender", [OsloBus, AmqpBus])
def test_a_real_broker_carries_it(rabbit: Rabbit, sender: type[OsloBus] | type[AmqpBus]) -> None:
    """Through RabbitMQ, both publishers are understood by an oslo.messaging listener with a pool."""
    url = rabbit.url if sender is OsloBus else rabbit.url.replace("rabbit://", "amqp://")
    listen_to_a_drain(rabbit.url, lambda transport: sender(url, exchange="simulated"), exchange="simulated")


def listen_to_a_drain(url: str, bus_for: Any, exchange: str = "nova") -> None:
    conf = cfg.ConfigOpts()
    conf([], project="test", default_config_files=[], default_config_dirs=[])
    transport = oslo_messaging.get_notification_transport(conf, url=url)
    endpoint = Endpoint()
    listener = oslo_messaging.get_notification_listener(
        transport,
        [oslo_messaging.Target(topic="versioned_notifications", exchange=exchange)],
        [endpoint],
        executor="threading",
        pool="simulator-test",
    )
    listener.start(override_pool_size=1)
    sent: list[Json] = []
    with bus_for(transport) as bus:
        story = stories.drain(ManualClock(T0), tee(lambda key, inner: sent.append(inner), bus), stuck=None, servers=2)
        story.cloud.settle()
        wait_until(lambda: len(endpoint.got) >= len(sent))
    listener.stop()
    listener.wait()
    transport.cleanup()
    assert [got[3] for got in endpoint.got] == [inner["message_id"] for inner in sent]
    assert endpoint.got[0][2]["request_id"] == sent[0]["_context_request_id"]


def test_a_recording_can_be_read_back(tmp_path: Path) -> None:
    """Each line is a notification with its time, its key and the wire's text."""
    clock = ManualClock(T0)
    path = tmp_path / "drain.jsonl"
    with Recorder(path, clock) as recorder:
        story = stories.drain(clock, recorder, stuck=None, servers=2)
        story.cloud.settle()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0]["at"].endswith("Z") and {line["kind"] for line in lines} == {"notification"}
    read = [read_wire(line["body"], received_at=T0) for line in lines]
    assert read[0].event_type == "service.update" and read[0].publisher_id == "nova-compute:cmp-01"
    assert [line["at"] for line in lines] == sorted(line["at"] for line in lines)
    assert all(line["routing_key"] == "versioned_notifications.info" for line in lines)


def test_queued_keeps_order_and_tries_again() -> None:
    """The cloud never waits for its bus; what the bus refuses is sent again, and nothing overtakes it."""
    arrived: list[str] = []
    away = threading.Event()

    def bus(key: str, inner: Json) -> None:
        if not away.is_set():
            raise ConnectionError("the broker is away")
        arrived.append(inner["message_id"])

    queued = Queued(bus, retry_s=0.01)
    for number in range(20):
        queued("versioned_notifications.info", {"message_id": str(number)})
    wait_until(lambda: queued.errors)
    away.set()
    queued.close()
    assert arrived == [str(number) for number in range(20)]


def test_wire_body_is_envelope_two() -> None:
    """The body is JSON inside JSON, version 2.0."""
    outer = json.loads(wire_body({"event_type": "x"}))
    assert outer["oslo.version"] == "2.0" and json.loads(outer["oslo.message"]) == {"event_type": "x"}
