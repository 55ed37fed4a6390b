"""The bus sink on a real RabbitMQ: what is confirmed, what is not, and what a stock listener makes of it."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import json
import logging
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import amqp  # type: ignore[import-untyped]
import pytest

from maintd import messaging
from maintd.clock import ManualClock
from maintd.config import BusSinkConfig
from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.delivery.sinks.bus import BusSink, bus_endpoint
from maintd.messaging import oslo_messaging
from tests.delivery.databases import eventually
from tests.delivery.sending import EVENT, dispatching, message, send
from tests.support.rabbitmq import Proxy, Rabbit, free_port

DELIVERED = Outcome(OutcomeKind.DELIVERED)
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def other() -> Iterator[Rabbit]:
    """A broker that these tests may stop and block; one that is up whenever a test begins."""
    node = Rabbit(Path(tempfile.mkdtemp(prefix="maintd-rabbit-")))
    node.start()
    yield node
    node.close()


def sink_at(url: str, **changes: Any) -> BusSinkConfig:
    """A bus sink with an exchange and a topic that no other test uses."""
    name = f"sink-{next(_numbers)}"
    return BusSinkConfig(**{"name": name, "transport_url": url, "exchange": f"x-{name}", "topic": name} | changes)


def bus(config: BusSinkConfig, total_s: float = 10.0) -> BusSink:
    return BusSink(config, "maintd.main", total_s=total_s)


def channel_to(rabbit: Rabbit) -> amqp.Channel:
    connection = amqp.Connection(f"{rabbit.host}:{rabbit.port}", "guest", "guest", connect_timeout=5.0)
    connection.connect()
    return connection.channel()


def bodies(channel: amqp.Channel, queue: str) -> list[dict[str, Any]]:
    """The notifications that lie in a queue, taken from it."""
    found = []
    while (taken := channel.basic_get(queue, no_ack=True)) is not None:
        found.append(json.loads(json.loads(taken.body)["oslo.message"]))
    return found


class Stock:
    """An endpoint as any service of OpenStack has one."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = []

    def info(self, ctxt: object, publisher: str, kind: str, payload: dict[str, Any], about: dict[str, Any]) -> None:
        self.heard.append((publisher, kind, payload, about))


@pytest.mark.parametrize("durable", [False, True])
def test_a_stock_listener_reads_it(rabbit: Rabbit, durable: bool) -> None:
    """oslo.messaging's own notification listener, with the same exchange and topic, hears the whole CloudEvent."""
    config = sink_at(rabbit.url, durable_queues=durable)
    heard = Stock()
    listener = oslo_messaging.get_notification_listener(
        messaging.transport(rabbit.url, {"amqp_durable_queues": durable}),
        [oslo_messaging.Target(topic=config.topic, exchange=config.exchange)],
        [heard],
        executor="threading",
    )
    listener.start()
    try:
        assert [DELIVERED] == send(bus(config))
        eventually(lambda: heard.heard != [])
    finally:
        listener.stop()
        listener.wait()

    about = {"message_id": "event-1", "timestamp": "2027-01-15 08:00:00.000000"}
    assert [("maintd.main", "maintd.host.emptied.v1", EVENT, about)] == heard.heard


def test_what_was_published_before_anybody_listened_is_there(rabbit: Rabbit) -> None:
    """The queue of the topic is made by whoever publishes first, so that the first consumer misses nothing."""
    config = sink_at(rabbit.url)
    send(bus(config), message(), message(id="event-2"))

    found = bodies(channel_to(rabbit), f"{config.topic}.info")
    assert ["event-1", "event-2"] == [one["message_id"] for one in found]
    assert {"INFO"} == {one["priority"] for one in found}


def test_an_attempt_differs_from_the_next_in_nothing_but_the_drivers_id(rabbit: Rabbit) -> None:
    """The same event published twice is the same notification twice."""
    config = sink_at(rabbit.url)
    send(bus(config), message(), message())

    first, second = bodies(channel_to(rabbit), f"{config.topic}.info")
    assert first.pop("_unique_id") != second.pop("_unique_id")
    assert first == second


def test_a_message_that_the_broker_refuses_failed(rabbit: Rabbit) -> None:
    """A queue that is full and rejects makes the broker say no, which is no delivery; once there is room it is one."""
    config = sink_at(rabbit.url)
    channel = channel_to(rabbit)
    key = f"{config.topic}.info"
    channel.exchange_declare(config.exchange, "topic", auto_delete=False)
    full = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = channel.queue_declare("", exclusive=True, arguments=full).queue
    channel.queue_bind(queue, config.exchange, key)

    async def run() -> list[Outcome]:
        sink = bus(config)
        await sink.open()
        outcomes = [await sink.send(message(id=f"event-{number}")) for number in (1, 2, 3)]
        bodies(channel, queue)
        outcomes.append(await sink.send(message(id="event-4")))
        await sink.close()
        return outcomes

    outcomes = asyncio.run(run())
    refused = f"the broker did not take it: a queue bound to {key} is full and refuses more"
    assert [DELIVERED, *[Outcome(OutcomeKind.REFUSED, None, refused)] * 2, DELIVERED] == outcomes
    assert outcomes[1].again_can_help
    assert ["event-4"] == [one["message_id"] for one in bodies(channel, queue)]


def test_a_broker_that_is_down_is_no_delivery() -> None:
    """It fails at once, without waiting for the broker to come back, and can be tried again."""
    began = time.monotonic()
    outcome = send(bus(sink_at(f"rabbit://maintd:hunter2@127.0.0.1:{free_port()}/")))[0]

    assert Outcome(OutcomeKind.UNREACHABLE, None, "no word from the broker: Connection refused") == outcome
    assert outcome.again_can_help
    assert time.monotonic() - began < 5.0


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rabbit://guest:hunter2@127.0.0.1:{port}/", "Login was refused"),
        ("rabbit://guest:guest@127.0.0.1:{port}/nowhere", "vhost nowhere not found"),
    ],
)
def test_a_broker_that_does_not_let_us_in(rabbit: Rabbit, url: str, says: str) -> None:
    """What it said is in the attempt, the password is not."""
    outcome = send(bus(sink_at(url.format(port=rabbit.port))))[0]

    assert not outcome.delivered
    assert says in outcome.detail
    assert "hunter2" not in outcome.detail


def test_an_exchange_of_another_make(rabbit: Rabbit) -> None:
    """The broker's own word for what does not fit is in the attempt."""
    config = sink_at(rabbit.url)
    channel_to(rabbit).exchange_declare(config.exchange, "fanout", auto_delete=False)

    outcome = send(bus(config))[0]
    assert OutcomeKind.REFUSED is outcome.kind
    assert "inequivalent arg 'type' for exchange" in outcome.detail


def test_a_silent_broker_holds_up_nobody(rabbit: Rabbit, proxy: Proxy) -> None:
    """While a broker says nothing each attempt ends in its time, the loop stays free, and one thread is all it has."""
    config = sink_at(rabbit.url_at(proxy.port))

    async def run() -> tuple[list[Outcome], float, Outcome]:
        sink = bus(config, total_s=4.0)
        await sink.open()
        assert DELIVERED == await sink.send(message(id="event-0"))
        proxy.black_hole()
        attempts = [asyncio.create_task(sink.send(message(id=f"event-{number}"))) for number in range(1, 9)]
        longest, last = 0.0, time.monotonic()
        while not all(attempt.done() for attempt in attempts):
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        proxy.accept()
        answers = [attempt.result() for attempt in attempts]
        back = Outcome(OutcomeKind.TIMED_OUT)
        while not back.delivered:
            back = await sink.send(message(id="event-9"))
        await sink.close()
        return answers, longest, back

    outcomes, longest_s, back = asyncio.run(run())
    assert [Outcome(OutcomeKind.TIMED_OUT, None, "the broker did not confirm within 4 s")] * 8 == outcomes
    assert longest_s < 2.0
    assert DELIVERED == back
    # The one that was on its way was confirmed late; those that waited behind it were never published.
    assert ["event-0", "event-1", "event-9"] == list(
        dict.fromkeys(one["message_id"] for one in bodies(channel_to(rabbit), f"{config.topic}.info"))
    )


def test_a_hanging_broker_does_not_keep_maintd_from_stopping(rabbit: Rabbit, proxy: Proxy) -> None:
    """Closing a sink whose thread hangs takes half a second."""

    async def run() -> float:
        sink = bus(sink_at(rabbit.url_at(proxy.port)), total_s=0.2)
        await sink.open()
        proxy.black_hole()
        assert OutcomeKind.TIMED_OUT is (await sink.send(message())).kind
        began = time.monotonic()
        await sink.close()
        return time.monotonic() - began

    assert asyncio.run(run()) < 3.0


def test_a_blocked_broker_confirms_nothing(other: Rabbit) -> None:
    """With its memory alarm on a broker takes no more: the attempt fails, and the next succeeds once it takes again."""
    config = sink_at(other.url)

    async def run() -> list[Outcome]:
        sink = bus(config, total_s=2.0)
        await sink.open()
        outcomes = [await sink.send(message(id="event-0"))]
        await asyncio.to_thread(other.control, "set_vm_memory_high_watermark", "0")
        try:
            outcomes.append(await sink.send(message()))
        finally:
            await asyncio.to_thread(other.control, "set_vm_memory_high_watermark", "0.6")
        outcomes.append(await sink.send(message()))
        await sink.close()
        return outcomes

    assert ["delivered", "timed_out", "delivered"] == [str(outcome.kind) for outcome in asyncio.run(run())]
    ids = [one["message_id"] for one in bodies(channel_to(other), f"{config.topic}.info")]
    assert ["event-0", "event-1"] == list(dict.fromkeys(ids))


def test_a_broker_that_was_away_gets_it_later_under_the_same_id(other: Rabbit, tmp_path: Path) -> None:
    """An event published while the broker is stopped fails and waits; when it is back, the same event is delivered."""
    clock = ManualClock(1_800_000_000.0)
    config = sink_at(other.url)
    with dispatching(tmp_path, bus_endpoint(config, "main"), clock=clock) as (database, dispatcher):
        database.emit(1)
        dispatcher.wake()
        eventually(lambda: database.deliveries.counts() == {(config.name, "delivered"): 1})
        other.kill()
        event_id = database.emit(2)
        dispatcher.wake()
        eventually(lambda: [1] == [d.attempts for d in database.deliveries.list() if d.event_id == event_id])
        other.start()
        clock.advance(5.0)
        dispatcher.wake()
        eventually(lambda: database.deliveries.counts() == {(config.name, "delivered"): 2})
        late = next(each for each in database.deliveries.list() if each.event_id == event_id)
        attempts = database.deliveries.attempts(late.id)

    assert ["unreachable", "delivered"] == [attempt.outcome for attempt in attempts]
    # The queue was not durable: what was in it went with the broker.
    assert [event_id] == [one["message_id"] for one in bodies(channel_to(other), f"{config.topic}.info")]


def test_a_durable_queue_keeps_what_was_confirmed(other: Rabbit) -> None:
    """With durable_queues an event that was confirmed is there after a restart of the broker."""
    config = sink_at(other.url, durable_queues=True)
    assert [DELIVERED] == send(bus(config))
    other.kill()
    other.start()

    assert ["event-1"] == [one["message_id"] for one in bodies(channel_to(other), f"{config.topic}.info")]


def test_the_drivers_complaints_are_not_logged(rabbit: Rabbit, caplog: pytest.LogCaptureFixture) -> None:
    """What went wrong is said once, by the outcome; neither a URL nor a payload gets into the log by the driver."""
    config = sink_at(rabbit.url)
    channel_to(rabbit).exchange_declare(config.exchange, "fanout", auto_delete=False)
    caplog.set_level(logging.INFO)

    assert not send(bus(config))[0].delivered
    assert [] == [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_no_secret_is_shown() -> None:
    """The repr of a sink and of its configuration has no password."""
    config = sink_at("rabbit://maintd:hunter2@controller/")

    assert "hunter2" not in repr(config) + repr(bus(config)) + repr(bus_endpoint(config, "main"))


def test_the_private_ground_is_where_it_was() -> None:
    """If this fails: a later oslo.messaging has moved what the bus sink calls; see how its own notify/messaging.py
    hands a notification to the transport, and whether `retry` and `confirm_publish` still mean the same."""
    sends = inspect.signature(oslo_messaging.transport.Transport._send_notification)

    assert {"target", "ctxt", "message", "version", "retry"} <= set(sends.parameters)
    assert callable(oslo_messaging.transport.Transport.cleanup)
