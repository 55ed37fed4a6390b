"""The intake against a real RabbitMQ, and over the in-process transports."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import amqp
import pytest
from oslo_config import cfg
from oslo_context.context import RequestContext

from maintd.clock import ManualClock, SystemClock
from maintd.config import BusConfig
from maintd.domain.quarantine import Quarantined
from maintd.errors import LeaseLost, OperatorError, StoreUnavailable
from maintd.messaging import oslo_messaging
from maintd.nova import broker
from maintd.nova import listener as intake_module
from maintd.nova.listener import Intake, queue_depths, remove_queue, tap
from maintd.nova.notifications.envelope import Notification
from tests.support.rabbitmq import Rabbit, free_port, wait_until


class Store:
    """An `admit` that keeps what it is given, and can be told to fail."""

    def __init__(self) -> None:
        self.seen: list[Notification] = []
        self.aside: list[Quarantined] = []
        self.calls = 0
        self.raises: Callable[[Sequence[Notification]], Exception | None] = lambda batch: None
        self.gate = threading.Event()
        self.gate.set()

    def admit(self, batch: Sequence[Notification], aside: Sequence[Quarantined]) -> None:
        self.calls += 1
        self.gate.wait(30)
        error = self.raises(batch)
        if error is not None:
            raise error
        self.seen += batch
        self.aside += aside

    @property
    def ids(self) -> list[str]:
        return [message.message_id for message in self.seen]


class Publisher:
    """Publishes as Nova does, or whatever else it is told to."""

    def __init__(self, rabbit: Rabbit, bus: BusConfig, **exchange: Any) -> None:
        self._bus = bus
        self._connection = amqp.Connection(f"127.0.0.1:{rabbit.port}", userid="guest", password="guest")
        self._connection.connect()
        self.channel = self._connection.channel()
        self.channel.exchange_declare(bus.exchange, "topic", **{"durable": False, "auto_delete": False, **exchange})

    def notify(self, message_id: str = "", priority: Any = "INFO", **changes: Any) -> str:
        message_id = message_id or str(uuid.uuid4())
        message = {
            "message_id": message_id,
            "publisher_id": "nova-compute:cmp-1",
            "event_type": "instance.update",
            "priority": priority,
            "payload": {"nova_object.data": {"uuid": "s-1"}},
            "timestamp": "2026-11-23 10:00:00.000001",
            "_unique_id": uuid.uuid4().hex,
            "_context_request_id": "req-1",
            **changes,
        }
        routed = str(priority).lower() if priority in ("INFO", "ERROR") else "info"
        self.raw(json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)}), routed)
        return message_id

    def raw(self, body: str | bytes, priority: str = "info") -> None:
        self.channel.basic_publish(
            amqp.Message(body, content_type="application/json", content_encoding="utf-8"),
            self._bus.exchange,
            f"{self._bus.topic}.{priority}",
        )

    def close(self) -> None:
        self._connection.close()


class Rig:
    """One intake with its store, and what it said of its state."""

    def __init__(self, bus: BusConfig, clock: Any = None, **options: Any) -> None:
        self.bus = bus
        self.store = Store()
        self.states: list[tuple[str, str]] = []
        self.intake = Intake(bus, self.store.admit, self._heard, clock or SystemClock(), **options)

    def _heard(self, bus: str, state: str, detail: str) -> None:
        assert bus == self.bus.name
        self.states.append((state, detail))

    def start(self) -> Rig:
        self.intake.start()
        return self

    def until(self, state: str, timeout_s: float = 15.0) -> str:
        """Wait for a state; its sentence."""
        wait_until(lambda: self.intake.state == state, timeout_s, f"state {state}, it is {self.intake.state}")
        return self.intake.detail


@pytest.fixture
def bus(rabbit: Rabbit) -> BusConfig:
    """A bus of this test's own on the shared broker."""
    name = uuid.uuid4().hex[:8]
    return BusConfig(
        name="default", transport_url=rabbit.url, exchange=f"nova-{name}", pool=f"maintd-{name}", topic=f"vn-{name}"
    )


def through(bus: BusConfig, url: str, **changes: Any) -> BusConfig:
    """The same bus by another way."""
    fields = {name: getattr(bus, name) for name in bus.__dataclass_fields__}
    return BusConfig(**{**fields, "transport_url": url, **changes})


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    """Makes rigs and stops their intakes at the end."""
    made: list[Rig] = []

    def make(*args: Any, **options: Any) -> Rig:
        made.append(Rig(*args, **options))
        return made[-1]

    yield make
    for rig in made:
        rig.store.gate.set()
        rig.intake.stop(5)


@pytest.fixture
def publisher(rabbit: Rabbit, bus: BusConfig) -> Iterator[Publisher]:
    nova = Publisher(rabbit, bus)
    yield nova
    nova.close()


# --- the ordinary way ------------------------------------------------------------------------------------------------


def test_batches_keep_the_order_of_arrival_across_priorities(rigs, bus, publisher):
    """INFO and ERROR notifications come in the order in which they were published, in batches, and are acknowledged."""
    rig = rigs(bus).start()
    rig.until("connected")
    rig.store.gate.clear()
    sent = [publisher.notify(priority="ERROR" if n % 3 == 0 else "INFO") for n in range(500)]
    rig.store.gate.set()
    wait_until(lambda: len(rig.store.seen) == 500)
    assert rig.store.ids == sent
    assert rig.store.calls < 100
    first = rig.store.seen[0]
    assert (first.request_id, first.publisher_id, first.bus, first.priority) == (
        "req-1", "nova-compute:cmp-1", "default", "ERROR",
    )  # fmt: skip
    assert rig.intake.stop(5)
    assert queue_depths(bus) == {bus.pool: 0}


def test_a_single_message_is_not_kept_waiting(rigs, bus, publisher):
    """A message that comes alone is admitted in a few milliseconds, not at the end of a batch timeout."""
    rig = rigs(bus, batch_timeout_s=2.0).start()
    rig.until("connected")
    delays = []
    for n in range(20):
        began = time.monotonic()
        publisher.notify()
        wait_until(lambda n=n: len(rig.store.seen) > n)
        delays.append(time.monotonic() - began)
    assert sorted(delays)[10] < 1.0


def test_own_topic_without_a_pool(rigs, bus, publisher):
    """Without a pool the topic's own queues are read, one for each priority."""
    bus = through(bus, bus.transport_url, pool=None)
    rig = rigs(bus).start()
    rig.until("connected")
    sent = {publisher.notify(), publisher.notify(priority="ERROR")}
    wait_until(lambda: set(rig.store.ids) == sent)


def test_the_direct_way_is_in_use(rigs, bus):
    """The installed oslo.messaging still has the places where the intake takes over; else it would only be slow."""
    rig = rigs(bus).start()
    rig.until("connected")
    assert isinstance(rig.intake._run.feed, intake_module._Direct)


# --- what cannot be read ---------------------------------------------------------------------------------------------

UNREADABLE = {
    "no JSON": b"\xff\xfe{",
    "text": b"hello",
    "list": b"[1, 2]",
    "inner text": json.dumps({"oslo.version": "2.0", "oslo.message": "{"}).encode(),
    "inner number": json.dumps({"oslo.version": "2.0", "oslo.message": 7}).encode(),
    "envelope 3.0": json.dumps({"oslo.version": "3.0", "oslo.message": "{}"}).encode(),
    "no names": json.dumps({"oslo.version": "2.0", "oslo.message": "{}"}).encode(),
    "too deep": b"[" * 100_000,
    "empty": b"",
}


def test_unreadable_messages_reach_quarantine_once(rigs, bus, publisher):
    """Every kind of unreadable message is set aside once with its bytes and a reason, and the next one is handled."""
    rig = rigs(bus).start()
    rig.until("connected")
    for body in UNREADABLE.values():
        publisher.raw(body)
    publisher.notify("null-priority", priority=None)
    publisher.notify("no-payload", payload=None)
    publisher.notify("list-payload", payload=[1])
    good = publisher.notify()
    wait_until(lambda: rig.store.ids == [good])
    assert [message.body for message in rig.store.aside[: len(UNREADABLE)]] == list(UNREADABLE.values())
    assert all(message.reason and message.bus == "default" for message in rig.store.aside)
    assert [message.message_id for message in rig.store.aside[len(UNREADABLE) :]] == [
        "null-priority", "no-payload", "list-payload",
    ]  # fmt: skip
    assert rig.store.aside[-1].event_type == "instance.update"
    assert rig.intake.stop(5)
    assert queue_depths(bus) == {bus.pool: 0}


def test_our_own_fault_costs_one_message(rigs, bus, publisher, caplog):
    """When `admit` fails on one message, that one goes to quarantine and the rest of its batch is handled, in order."""
    rig = rigs(bus)
    rig.store.raises = lambda batch: ValueError("boom") if "bad" in [m.message_id for m in batch] else None
    rig.store.gate.clear()
    rig.start().until("connected")
    sent = [publisher.notify("bad" if n == 7 else f"good-{n}") for n in range(20)]
    rig.store.gate.set()
    wait_until(lambda: len(rig.store.seen) == 19)
    assert rig.store.ids == [message_id for message_id in sent if message_id != "bad"]
    wait_until(lambda: rig.store.aside)
    (aside,) = rig.store.aside
    assert (aside.message_id, aside.reason) == ("bad", "maintd failed on it: ValueError: boom")
    assert b"bad" in aside.body
    assert rig.intake.state == "connected"


# --- the broker's troubles -------------------------------------------------------------------------------------------


def test_broker_down_at_start(rigs, bus, rabbit, proxy):
    """With the broker down, `start` returns at once and says why; when the broker comes, messages flow."""
    proxy.refuse()
    began = time.monotonic()
    rig = rigs(through(bus, rabbit.url_at(proxy.port))).start()
    assert time.monotonic() - began < 0.5
    wait_until(lambda: rig.states)
    assert rig.states == [
        ("connecting", f"RabbitMQ at 127.0.0.1:{proxy.port} is not reachable: nothing takes connections there.")
    ]
    proxy.accept()
    rig.until("connected")
    nova = Publisher(rabbit, bus)
    sent = nova.notify()
    wait_until(lambda: rig.store.ids == [sent])
    nova.close()


@pytest.mark.parametrize("hurt", ["refuse", "black_hole"])
def test_stop_is_quick_when_never_connected(rigs, bus, rabbit, proxy, hurt):
    """An intake that never got a connection ends when told to, within the time given."""
    getattr(proxy, hurt)()
    rig = rigs(through(bus, rabbit.url_at(proxy.port))).start()
    wait_until(lambda: rig.intake._thread.is_alive())
    began = time.monotonic()
    rig.intake.stop(2)
    assert time.monotonic() - began < 2.5
    assert rig.states == [] or rig.states[0][0] == "connecting"


def test_stop_is_quick_while_the_driver_hangs(rigs, bus, rabbit, proxy, monkeypatch):
    """When the broker goes away between our question and the driver's start, the driver blocks; `stop` does not."""
    monkeypatch.setattr(broker, "check", lambda bus: None)
    proxy.refuse()
    rig = rigs(through(bus, rabbit.url_at(proxy.port))).start()
    rig.until("connecting")
    wait_until(lambda: rig.intake._run is not None)
    began = time.monotonic()
    rig.intake.stop(2)
    assert time.monotonic() - began < 2.5


def test_connection_lost_midway(rigs, bus, rabbit, proxy, publisher, caplog):
    """A cut connection comes back by itself; nothing is lost, and the gap is told."""
    rig = rigs(through(bus, rabbit.url_at(proxy.port))).start()
    rig.until("connected")
    sent = [publisher.notify() for _ in range(50)]
    proxy.refuse()
    sent += [publisher.notify() for _ in range(50)]
    wait_until(lambda: rig.intake.state == "connecting")
    proxy.accept()
    wait_until(lambda: set(rig.store.ids) == set(sent), 15)
    rig.until("connected")
    assert [state for state, _ in rig.states] == ["connected", "connecting", "connected"]
    assert rig.intake.reconnects == 1
    assert f"RabbitMQ at 127.0.0.1:{proxy.port} is not reachable" in rig.states[1][1]
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if record.levelname != "INFO"]) == 1


def test_a_queue_deleted_beneath_us_is_a_gap(rigs, bus, publisher):
    """When somebody deletes our queue it is made anew, what comes then is heard, and the gap is told."""
    rig = rigs(bus).start()
    rig.until("connected")
    publisher.channel.queue_delete(bus.pool)
    wait_until(lambda: [state for state, _ in rig.states] == ["connected", "connecting", "connected"], 30)
    sent = publisher.notify()
    wait_until(lambda: rig.store.ids == [sent], 15)


def test_a_queue_deleted_beneath_a_backlog_is_a_gap_too(rigs, bus, publisher):
    """What the broker says of it then comes right behind messages, on a connection that stands."""
    rig = rigs(bus).start()
    rig.until("connected")
    rig.store.gate.clear()
    sent = [publisher.notify()]
    wait_until(lambda: rig.store.calls == 1)
    sent += [publisher.notify() for _ in range(3)]
    wait_until(lambda: queue_depths(bus) == {bus.pool: 0})  # all four are with us, unread
    publisher.channel.queue_delete(bus.pool)
    rig.store.gate.set()
    wait_until(lambda: [state for state, _ in rig.states] == ["connected", "connecting", "connected"], 30)
    sent.append(publisher.notify())
    wait_until(lambda: sent[-1] in rig.store.ids, 15)


def test_a_queue_that_is_gone_without_a_word_is_noticed(rigs, bus, publisher, monkeypatch):
    """Nothing waits in a queue that is not there, and nothing comes: that is as good as stuck, and a gap."""
    monkeypatch.setattr(intake_module._Direct, "_consume", lambda self, seconds: time.sleep(0.01))
    rig = rigs(bus, stuck_after_s=0.2).start()
    rig.until("connected")
    publisher.channel.queue_delete(bus.pool)
    wait_until(lambda: rig.intake.restarts == 1, 30)
    wait_until(lambda: [state for state, _ in rig.states][:3] == ["connected", "connecting", "connected"], 30)
    assert "our queue is gone" in rig.states[1][1]


def test_whoever_cannot_keep_what_comes_leaves_the_queue_to_whoever_can(rigs, bus, publisher, monkeypatch):
    """The store is away for one of two controllers: the other, which must be the leader by now, is given everything."""
    monkeypatch.setattr(intake_module, "_SHARED_S", 0.2)
    away = rigs(bus)
    away.store.raises = lambda batch: StoreUnavailable("away for this one alone")
    away.start().until("connected")
    sent = [publisher.notify() for _ in range(5)]
    away.until("paused")
    assert not away.intake.given_up  # alone it waits for its store
    other = rigs(bus).start()
    other.until("connected")
    wait_until(lambda: away.intake.given_up)
    sent += [publisher.notify() for _ in range(20)]
    wait_until(lambda: set(other.store.ids) == set(sent), 30)
    assert not away.store.ids


def test_half_open_connection(rigs, bus, rabbit, proxy, publisher, caplog):
    """A connection that went silent is given up after two heartbeats, and replaced; `stop` does not wait for it."""
    rig = rigs(through(bus, rabbit.url_at(proxy.port), heartbeat_s=1)).start()
    rig.until("connected")
    proxy.black_hole()
    sent = publisher.notify()
    rig.until("connecting", 10)
    proxy.accept()
    wait_until(lambda: rig.store.ids == [sent], 20)
    assert "Traceback" not in caplog.text
    proxy.black_hole()
    began = time.monotonic()
    rig.intake.stop(0.7)
    assert time.monotonic() - began < 1.2


def test_unacknowledged_messages_come_again(rigs, bus, rabbit, proxy, publisher):
    """Messages committed but not acknowledged when the connection died are delivered and acknowledged again.

    oslo.messaging's driver would remember their ids and leave them unacknowledged for ever.
    """
    rig = rigs(through(bus, rabbit.url_at(proxy.port))).start()
    rig.until("connected")
    rig.store.gate.clear()
    sent = [publisher.notify() for _ in range(10)]
    wait_until(lambda: rig.store.calls)
    proxy.cut()
    rig.store.gate.set()
    wait_until(lambda: len(rig.store.seen) >= len(sent) + 1 and set(rig.store.ids) == set(sent), 15)
    rig.until("connected")
    more = publisher.notify()
    wait_until(lambda: more in rig.store.ids)
    assert rig.intake.stop(5)
    wait_until(lambda: queue_depths(bus) == {bus.pool: 0})


def test_the_drivers_memory_of_ids_is_emptied(rigs):
    """Where the driver's own poll is used, its memory of ids is replaced by one that remembers nothing."""
    name = uuid.uuid4().hex
    rig = rigs(
        BusConfig(name="default", transport_url="kombu+memory:///", exchange=name, topic=name, pool=name)
    ).start()
    rig.until("connected")
    feed = rig.intake._run.feed
    assert isinstance(feed, intake_module._Polled)
    assert isinstance(feed._polled.msg_id_cache, intake_module._Remembers16)
    # The names that the driver calls on it; another oslo.messaging may call others.
    from oslo_messaging._drivers.amqp import _MsgIdCache

    theirs = {name for name in vars(_MsgIdCache) if not name.startswith("_") and name.islower()}
    assert theirs == {"check_duplicate_message", "add"}


def test_a_wedged_listener_is_replaced(rigs, bus, publisher):
    """When messages wait and none arrives, the intake connects anew."""
    rig = rigs(bus, stuck_after_s=0.5).start()
    rig.until("connected")
    feed = rig.intake._run.feed
    deaf = threading.Event()

    def forgotten(seconds: float) -> None:
        if not deaf.is_set():
            for consumer in list(feed._connection._consumers)[:1]:
                consumer.queue.cancel("1")
            deaf.set()
        time.sleep(0.05)

    feed._consume = forgotten  # as if the broker had forgotten the consumer
    assert deaf.wait(5)
    sent = publisher.notify()
    wait_until(lambda: rig.store.ids == [sent], 15)
    assert rig.intake.restarts == 1


# --- what only an operator can mend ----------------------------------------------------------------------------------


def test_wrong_credentials_are_a_sentence(rigs, bus, rabbit, caplog):
    """A wrong password is told in one sentence that names neither password nor a traceback."""
    rig = rigs(through(bus, rabbit.url_at(rabbit.port, "guest", "s3cret"))).start()
    said = rig.until("failed")
    assert said == (
        f"RabbitMQ at 127.0.0.1:{rabbit.port} refused the credentials of [bus] transport_url: "
        "check user and password, and that the user exists on this broker."
    )
    assert "s3cret" not in caplog.text and "Traceback" not in caplog.text


def test_missing_virtual_host_is_a_sentence(rigs, bus, rabbit, caplog):
    """A virtual host that does not exist is told in one sentence."""
    rig = rigs(through(bus, rabbit.url_at(rabbit.port, vhost="nowhere"))).start()
    assert "the virtual host of [bus] transport_url does not exist" in rig.until("failed")
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("theirs", "ours", "said"),
    [
        ({"durable": False}, {"durable_queues": True}, "exists with durable false, and [bus] asks for true: set"),
        ({"durable": True}, {}, "exists with durable true, and [bus] asks for false: set durable_queues (or"),
        ({"durable": False}, {"quorum_queue": True}, "exists with durable false, and [bus] asks for true: set"),
    ],
)  # fmt: skip
def test_exchange_mismatch_is_a_sentence(rigs, bus, rabbit, caplog, theirs, ours, said):
    """An exchange that Nova made with another durability is told in one sentence that names the option."""
    Publisher(rabbit, bus, **theirs).close()
    rig = rigs(through(bus, rabbit.url, **ours)).start()
    assert said in rig.until("failed")
    assert "Traceback" not in caplog.text


def test_queue_mismatch_is_a_sentence_and_mends_itself(rigs, bus, rabbit, caplog):
    """A classic queue where a quorum queue is wanted is told in one sentence; once removed, the intake goes on."""
    nova = Publisher(rabbit, bus, durable=True)
    nova.channel.queue_declare(bus.pool, durable=True, auto_delete=False)
    rig = rigs(through(bus, rabbit.url, quorum_queue=True)).start()
    said = rig.until("failed")
    assert "'x-queue-type'" not in said and "x-queue-type" in said and "maintd bus remove" in said
    assert remove_queue(bus) == [bus.pool]
    rig.until("connected")
    sent = nova.notify()
    wait_until(lambda: rig.store.ids == [sent])
    nova.close()
    assert "Traceback" not in caplog.text


# --- the store's troubles --------------------------------------------------------------------------------------------


def test_store_away_nothing_is_acknowledged(rigs, bus, publisher):
    """While the store is away a batch is offered again and again over a living connection; later all is handled."""
    rig = rigs(through(bus, bus.transport_url, heartbeat_s=1))
    rig.store.raises = lambda batch: StoreUnavailable("disk full")
    rig.start().until("connected")
    sent = [publisher.notify() for _ in range(400)]
    assert "disk full" in rig.until("paused")
    wait_until(lambda: rig.store.calls >= 5)  # for nearly four heartbeats
    assert rig.store.calls < 20
    assert rig.intake.reconnects == 0
    rig.store.raises = lambda batch: None
    wait_until(lambda: len(rig.store.seen) == 400)
    assert rig.store.ids == sent
    assert rig.until("connected") == "the store is usable again."


def test_stop_while_the_store_is_away(rigs, bus, publisher):
    """Stopping during a pause gives every message back to the queue."""
    rig = rigs(bus)
    rig.store.raises = lambda batch: StoreUnavailable("gone")
    rig.start().until("connected")
    for _ in range(30):
        publisher.notify()
    rig.until("paused")
    assert rig.intake.stop(5)
    wait_until(lambda: queue_depths(bus) == {bus.pool: 30})


def test_stop_while_admit_hangs(rigs, bus, publisher):
    """A database that does not answer does not hold the daemon's end up."""
    rig = rigs(bus).start()
    rig.until("connected")
    rig.store.gate.clear()
    publisher.notify()
    wait_until(lambda: rig.store.calls)
    began = time.monotonic()
    assert rig.intake.stop(1) is False
    assert time.monotonic() - began < 1.5


def test_connection_lost_during_a_pause(rigs, bus, rabbit, proxy, publisher):
    """Messages held during a pause and delivered again by a new connection are not held twice, and are all handled."""
    rig = rigs(through(bus, rabbit.url_at(proxy.port)))
    rig.store.raises = lambda batch: StoreUnavailable("gone")
    rig.start().until("connected")
    sent = [publisher.notify() for _ in range(200)]
    rig.until("paused")
    proxy.cut()
    wait_until(lambda: rig.intake.reconnects == 1, 15)
    rig.store.raises = lambda batch: None
    wait_until(lambda: set(rig.store.ids) == set(sent))
    assert rig.store.ids == sent


def test_blind_after_max_pause(rigs, bus, publisher):
    """After `max_pause_s` messages are acknowledged and dropped, and service is resumed when the store is back."""
    clock = ManualClock(1_000.0)
    rig = rigs(bus, clock)
    rig.store.raises = lambda batch: StoreUnavailable("gone")
    rig.start().until("connected")
    publisher.notify("first")
    rig.until("paused")
    clock.advance(899)
    calls = rig.store.calls
    wait_until(lambda: rig.store.calls > calls + 1)
    assert rig.intake.state == "paused"
    clock.advance(2)
    assert "dropped from now on" in rig.until("blind")
    assert rig.intake.blind_from == 1_000.0
    publisher.notify("second")
    wait_until(lambda: rig.intake.dropped == 2)
    wait_until(lambda: queue_depths(bus) == {bus.pool: 0})
    rig.store.raises = lambda batch: None
    clock.advance(6)
    rig.until("connected")
    assert rig.store.ids == ["second"]  # the last one dropped is how the store was found to be back
    assert rig.intake.last_blind == (1_000.0, 1_907.0, 1)
    assert rig.intake.reconnects == 0
    third = publisher.notify()
    wait_until(lambda: rig.store.ids == ["second", third])


def test_lost_lease_gives_everything_back(rigs, bus, publisher):
    """When the lease is lost the connection is closed, nothing is acknowledged, and `start` begins anew."""
    rig = rigs(bus)
    rig.store.raises = lambda batch: LeaseLost("other")
    rig.start().until("connected")
    sent = publisher.notify()
    assert "lease" in rig.until("paused")
    assert (rig.store.calls, rig.store.aside) == (1, [])
    wait_until(lambda: queue_depths(bus) == {bus.pool: 1})
    wait_until(lambda: not rig.intake._thread.is_alive())
    rig.store.raises = lambda batch: None
    rig.start()
    wait_until(lambda: rig.store.ids == [sent])


def test_stop_at_any_time_under_load(rigs, bus, publisher):
    """Stopped in the middle of a stream, what is not handled is still in the queue: nothing lost, nothing left over."""
    rig = rigs(bus).start()
    rig.until("connected")
    sent = [publisher.notify() for _ in range(2_000)]
    wait_until(lambda: len(rig.store.seen) > 100)
    assert rig.intake.stop(5)
    handled = len(rig.store.seen)
    wait_until(lambda: queue_depths(bus) == {bus.pool: 2_000 - handled})
    assert rig.store.ids == sent[:handled]


def test_ticks(rigs, bus):
    """The intake is healthy while its thread turns, connected or not."""
    clock = ManualClock(50.0)
    rig = rigs(bus, clock).start()
    rig.until("connected")
    clock.advance(100)
    wait_until(lambda: rig.intake.healthy(clock.monotonic()))
    assert not rig.intake.healthy(clock.monotonic() + 61)


# --- in-process transports -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["fake://", "kombu+memory:///"])
def test_in_process_transports(rigs, url):
    """The embedded transports deliver in batches too, also from an ordinary Notifier."""
    name = uuid.uuid4().hex
    rig = rigs(BusConfig(name="default", transport_url=url, exchange=name, topic=name, pool=f"p-{name}"), batch_size=50)
    rig.start().until("connected")
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    oslo_messaging.get_notification_transport(conf, url)  # registers the option
    conf.set_override("control_exchange", name)
    transport = oslo_messaging.get_notification_transport(conf, url)
    notifier = oslo_messaging.Notifier(transport, "nova-compute:h", driver="messagingv2", topics=[name])
    context = RequestContext(request_id="req-7")
    for n in range(120):
        notifier.info(context, f"instance.update.{n}", {"a": n})
    wait_until(lambda: len(rig.store.seen) == 120)
    assert [message.event_type for message in rig.store.seen] == [f"instance.update.{n}" for n in range(120)]
    assert rig.store.seen[0].request_id == "req-7"
    assert rig.store.calls < 120
    notifier.info({}, "broken", None)
    wait_until(lambda: rig.store.aside)
    assert rig.store.aside[0].reason == "the payload is not an object"
    assert rig.intake.stop(5)


# --- commands --------------------------------------------------------------------------------------------------------


def test_remove_queue(rigs, bus, rabbit):
    """Our pool queue is deleted, by name and once; a queue that is being read is refused."""
    rig = rigs(bus).start()
    rig.until("connected")
    with pytest.raises(OperatorError, match="still being read: stop maintd"):
        remove_queue(bus)
    assert rig.intake.stop(5)
    wait_until(lambda: queue_depths(bus) == {bus.pool: 0})
    assert remove_queue(bus) == [bus.pool]
    assert remove_queue(bus) == []


def test_remove_queue_spares_what_is_not_ours(bus, rabbit):
    """Nova's shared queues are refused; those of a topic of our own are removed."""
    with pytest.raises(OperatorError, match="not ours to delete"):
        remove_queue(through(bus, rabbit.url, pool=None, topic="versioned_notifications"))
    own = through(bus, rabbit.url, pool=None)
    assert broker.check(own) is None
    assert remove_queue(own) == [f"{bus.topic}.info", f"{bus.topic}.error"]


def test_commands_say_what_is_wrong(bus):
    """A command that cannot reach the broker says so in a sentence."""
    port = free_port()
    with pytest.raises(OperatorError, match=f"RabbitMQ at 127.0.0.1:{port} is not reachable"):
        queue_depths(through(bus, f"rabbit://u:p@127.0.0.1:{port}/"))
    with pytest.raises(OperatorError, match="no broker to ask"):
        remove_queue(through(bus, "fake://"))
    with pytest.raises(OperatorError, match="not of the form"):
        queue_depths(through(bus, "rabbit://u:p@[::1/"))


def test_tap_copies_the_wire_and_leaves_nothing(rigs, bus, rabbit, publisher):
    """A tap gets every body exactly as it is on the wire, takes nothing from others, and leaves no queue behind."""
    got: list[tuple[str, str]] = []
    states: list[str] = []
    stop = threading.Event()
    tapping = threading.Thread(
        target=tap,
        args=(bus, lambda key, body: got.append((key, body)), stop, lambda s, d: states.append(s)),
        daemon=True,
    )
    tapping.start()
    wait_until(lambda: states == ["connected"])
    rig = rigs(bus).start()
    rig.until("connected")
    publisher.raw('{"oslo.version":  "2.0", "\\u00e9": "é"}', "error")
    sent = publisher.notify()
    wait_until(lambda: len(got) == 2)
    assert got[0] == (f"{bus.topic}.error", '{"oslo.version":  "2.0", "\\u00e9": "é"}')
    assert sent in got[1][1]
    wait_until(lambda: rig.store.ids == [sent])
    stop.set()
    tapping.join(5)
    assert not tapping.is_alive()


def test_tap_says_at_once_that_it_cannot(bus):
    """A tap without a broker fails with a sentence instead of waiting."""
    with pytest.raises(OperatorError, match="is not reachable"):
        tap(through(bus, f"rabbit://u:p@127.0.0.1:{free_port()}/"), lambda key, body: None, threading.Event())
