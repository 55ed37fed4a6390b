"""The dispatcher, whole: a real store, real sockets, receivers good and bad, and crashes between the stages."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from maintd.clock import Clock, ManualClock, SystemClock
from maintd.delivery.dispatcher import Dispatcher, Limits
from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.delivery.signing import Signer
from maintd.delivery.sinks import Endpoint, Message
from maintd.delivery.sinks.webhook import WebhookSink
from maintd.errors import StoreUnavailable
from maintd.store.deliveries import Delivery, Finish
from tests.delivery.databases import KINDS, Database, eventually, new_database
from tests.delivery.receivers import (
    Receiver,
    answer,
    gone_and_then_failing,
    in_turn,
    receiver,
    refusing_url,
    silent,
)

NOW = 1_800_000_000.0
SECRET = "whsec_" + base64.b64encode(b"s" * 32).decode()


class Counted:
    """Meters that remember."""

    def __init__(self) -> None:
        self.attempts: list[tuple[str, str]] = []
        self.oldest: list[float] = []
        self.subscribed: dict[str, int] = {}

    def attempted(self, sink: str, outcome: str, duration_s: float) -> None:
        assert duration_s >= 0
        self.attempts.append((sink, outcome))

    def oldest_pending(self, seconds: float) -> None:
        self.oldest.append(seconds)

    def subscriptions(self, counts: Mapping[str, int]) -> None:
        self.subscribed = dict(counts)


class Bench:
    """A database, and dispatchers on it that are stopped at the end."""

    def __init__(self, database: Database, stack: ExitStack) -> None:
        self.database, self._stack = database, stack
        self.deliveries = database.deliveries
        self.meters = Counted()

    def receiver(self, behave: Callable[..., None]) -> Receiver:
        return self._stack.enter_context(receiver(behave))

    def endpoint(self, url: str, clock: Clock, name: str = "ha", total_s: float = 30.0) -> Endpoint:
        return Endpoint(name, ("*",), Signer([SECRET]), WebhookSink(url, clock, (SECRET,), total_s=total_s))

    def start(self, endpoints: list[Endpoint], clock: Clock, **more) -> Dispatcher:  # type: ignore[no-untyped-def]
        dispatcher = Dispatcher(
            self.deliveries, endpoints, clock, meters=self.meters, **{"poll_s": 30.0, "jitter": lambda: 1.0} | more
        )
        self._stack.callback(dispatcher.stop, 0.1)
        dispatcher.start()
        return dispatcher

    def states(self) -> dict[tuple[str, str], int]:
        return self.deliveries.counts()

    def attempts(self) -> int:
        """Attempts at the first delivery there is."""
        return sum(delivery.attempts for delivery in self.deliveries.list(limit=1))

    def settle(self, expected: dict[tuple[str, str], int]) -> None:
        eventually(lambda: self.states() == expected)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        database = stack.enter_context(new_database(request.param, tmp_path))
        yield Bench(database, stack)


def test_an_event_arrives_signed_byte_for_byte(bench: Bench) -> None:
    """The receiver gets exactly the stored text, under the event's id, with a signature its library accepts."""
    server = bench.receiver(answer(200))
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock())
    event_id = bench.database.emit(1)
    dispatcher.wake()
    request = server.wait_for_requests(1)[0]

    bench.settle({("ha", "delivered"): 1})
    assert bench.deliveries.list()[0].body.encode() == request.body
    assert event_id == request.headers["webhook-id"]
    assert event_id == Webhook(SECRET).verify(request.body, request.headers)["id"]
    eventually(lambda: bench.meters.attempts == [("ha", "delivered")])


def test_a_wake_up_is_fast(bench: Bench) -> None:
    """From an event's commit to its POST no poll is waited for: the median is milliseconds."""
    server = bench.receiver(answer(200))
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock())
    delays = []
    for sequence in range(1, 31):
        bench.database.emit(sequence)
        committed = time.monotonic()
        dispatcher.wake()
        delays.append(server.wait_for_requests(sequence)[-1].at - committed)
        bench.settle({("ha", "delivered"): sequence})

    print(f"commit to POST: p50 {sorted(delays)[15] * 1000:.1f} ms, worst {max(delays) * 1000:.1f} ms")
    assert sorted(delays)[15] < 0.05


def test_a_request_that_has_ended_gives_its_place_to_the_next_before_it_is_on_record(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow disk holds back the record of an answer, not the next endpoint's request; in all no more than `in_all`."""
    disk, finish_many = threading.Event(), bench.deliveries.finish_many

    def finish_late(finishes: Sequence[Finish]) -> list[bool]:
        assert disk.wait(10.0)
        return finish_many(finishes)

    monkeypatch.setattr(bench.deliveries, "finish_many", finish_late)
    monkeypatch.setattr("maintd.delivery.breaker.YOUNG_S", 60.0)
    server = bench.receiver(answer(200))
    endpoints = [bench.endpoint(f"{server.url}{name}", SystemClock(), name) for name in ("a", "b", "c")]
    dispatcher = bench.start(endpoints, SystemClock(), limits=Limits(in_all=2, young=1))
    bench.database.emit(1)
    dispatcher.wake()

    assert len(server.wait_for_requests(2)) == 2
    eventually(lambda: sum(n for (_, state), n in bench.states().items() if state == "pending") == 1)
    disk.set()
    bench.settle({("a", "delivered"): 1, ("b", "delivered"): 1, ("c", "delivered"): 1})


def test_a_retry_that_is_due_as_soon_as_its_failure_is_on_record_does_not_wait_for_the_lease(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is claimed again before the loop has heard that the record was written: that is a claim like any other."""
    claimed_again, finish_many, claim = threading.Event(), bench.deliveries.finish_many, bench.deliveries.claim

    def finish(finishes: Sequence[Finish]) -> list[bool]:
        kept = finish_many(finishes)
        assert claimed_again.wait(10.0)
        return kept

    def claim_and_tell(*args: Any, **limits: Any) -> Sequence[Delivery]:
        found = claim(*args, **limits)
        if any(delivery.attempts for delivery in found):
            claimed_again.set()
        return found

    monkeypatch.setattr(bench.deliveries, "finish_many", finish)
    monkeypatch.setattr(bench.deliveries, "claim", claim_and_tell)
    server = bench.receiver(in_turn(answer(500), answer(200)))
    dispatcher = bench.start(
        [bench.endpoint(server.url, SystemClock())], SystemClock(), jitter=lambda: 0.0, poll_s=0.05
    )
    bench.database.emit(1)
    dispatcher.wake()

    assert len(server.wait_for_requests(2)) == 2
    bench.settle({("ha", "delivered"): 1})


def test_a_lease_that_runs_out_under_a_request_of_ours_goes_on(bench: Bench) -> None:
    """The clock was set forward, say: what came of the request is recorded under the new claim, and nothing is sent
    again."""
    clock, go_on = ManualClock(NOW), threading.Event()

    def wait(connection: Any, server: Receiver) -> None:
        assert go_on.wait(10.0)
        answer(200)(connection, server)

    server = bench.receiver(wait)
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock)
    bench.database.emit(1)
    dispatcher.wake()
    server.wait_for_requests(1)
    clock.advance(31.0)
    dispatcher.wake()
    eventually(lambda: bench.deliveries.list()[0].due_at == NOW + 61.0)
    go_on.set()

    bench.settle({("ha", "delivered"): 1})
    assert ["event-1"] == server.ids


@pytest.mark.parametrize("first", ["record", "look"])
def test_a_database_that_is_away_for_longer_than_a_lease_costs_no_second_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """What ended meanwhile is recorded when the database is back, whether or not we have claimed it again by then."""
    clock, claimed, refused = ManualClock(NOW), threading.Event(), threading.Semaphore(0)
    finish_many, claim = bench.deliveries.finish_many, bench.deliveries.claim

    def answer_without_database(connection: Any, server: Receiver) -> None:
        bench.database.down = True
        answer(200)(connection, server)

    def finish(finishes: Sequence[Finish]) -> list[bool]:
        if bench.database.down:
            refused.release()
        elif first == "look":
            assert claimed.wait(10.0)
        return finish_many(finishes)

    def claim_and_tell(*args: Any, **more: Any) -> Sequence[Delivery]:
        found = claim(*args, **more)
        if found and clock.now() > NOW:
            claimed.set()
        return found

    monkeypatch.setattr(bench.deliveries, "finish_many", finish)
    monkeypatch.setattr(bench.deliveries, "claim", claim_and_tell)
    server = bench.receiver(answer_without_database)
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock, poll_s=0.05 if first == "look" else 30.0)
    bench.database.emit(1)
    dispatcher.wake()
    server.wait_for_requests(1)
    assert refused.acquire(timeout=10.0)
    clock.advance(31.0)
    assert refused.acquire(timeout=10.0) and refused.acquire(timeout=10.0)
    bench.database.down = False

    bench.settle({("ha", "delivered"): 1})
    assert ["event-1"] == server.ids


def test_a_lease_is_not_shorter_by_what_the_fan_out_took(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts from the claim on: a fan-out may wait long for another controller's."""
    clock, fan_out = ManualClock(NOW), bench.deliveries.fan_out

    def slow(*args: Any, **more: Any) -> int:
        taken = fan_out(*args, **more)
        clock.advance(25.0 if taken else 0.0)
        return taken

    monkeypatch.setattr(bench.deliveries, "fan_out", slow)
    server = bench.receiver(silent)
    dispatcher = bench.start([bench.endpoint(server.url, clock, total_s=60.0)], clock)
    bench.database.emit(1)
    dispatcher.wake()
    server.wait_for_requests(1)

    assert NOW + 55.0 == bench.deliveries.list()[0].due_at


def test_what_was_under_way_when_an_endpoint_wanted_no_more_is_not_tried_again(bench: Bench) -> None:
    """A 410 gives up what waits; a request that fails after it is given up too."""
    gone = threading.Event()
    server = bench.receiver(gone_and_then_failing(gone))
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock(), jitter=lambda: 0.0)
    for sequence in (1, 2):
        bench.database.emit(sequence, subject=f"cmp-{sequence}")
    dispatcher.wake()
    eventually(lambda: list(bench.deliveries.disabled()) == ["ha"])
    gone.set()

    bench.settle({("ha", "dead"): 2})
    assert ["event-1", "event-2"] == sorted(server.ids)


def test_without_a_wake_up_the_poll_finds_it(bench: Bench) -> None:
    """An event committed by another controller goes out at the next look."""
    server = bench.receiver(answer(200))
    bench.start([bench.endpoint(server.url, SystemClock())], SystemClock(), poll_s=0.05)
    bench.database.emit(1)

    server.wait_for_requests(1)


def test_retries_keep_the_id_and_the_schedule(bench: Bench) -> None:
    """Each failure is tried again when the schedule says, not before, always under the same id, until it succeeds."""
    clock = ManualClock(NOW)
    server = bench.receiver(in_turn(answer(500), answer(302), answer(404), answer(200)))
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock)
    event_id = bench.database.emit(1)
    dispatcher.wake()

    for made, wait_s in enumerate([5.0, 30.0, 120.0], start=1):
        server.wait_for_requests(made)
        eventually(lambda made=made: bench.attempts() == made)
        assert clock.now() + wait_s == bench.deliveries.next_due_at()
        clock.advance(wait_s)
        dispatcher.wake()
    bench.settle({("ha", "delivered"): 1})
    assert [event_id] * 4 == server.ids
    assert ["refused", "redirected", "refused", "delivered"] == [
        attempt.outcome for attempt in bench.deliveries.attempts(bench.deliveries.list()[0].id)
    ]
    eventually(lambda: bench.meters.attempts == [("ha", "retry")] * 3 + [("ha", "delivered")])


def test_nothing_is_sent_before_its_time(bench: Bench) -> None:
    """A wake-up an instant before the retry is due sends nothing for it, while another subject goes out."""
    clock = ManualClock(NOW)
    server = bench.receiver(in_turn(answer(500), answer(200)))
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock)
    bench.database.emit(1)
    dispatcher.wake()
    eventually(lambda: bench.deliveries.next_due_at() == NOW + 5)
    clock.advance(4.999)
    bench.database.emit(2, subject="cmp-2")
    dispatcher.wake()
    bench.settle({("ha", "pending"): 1, ("ha", "delivered"): 1})

    assert ["event-1", "event-2"] == server.ids


def test_nine_failures_are_a_dead_letter(bench: Bench) -> None:
    """After the ninth failure the delivery is dead, the next of its subject goes out, and it can be redelivered."""
    clock, refused = ManualClock(NOW), {"event-1"}
    server = bench.receiver(lambda c, r: answer(500 if r.ids[-1] in refused else 200)(c, r))
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock)
    bench.database.emit(1)
    bench.database.emit(2)
    for made in range(1, 10):
        dispatcher.wake()
        eventually(lambda made=made: bench.attempts() == made)
        assert made == 9 or ["event-1"] * made == server.ids
        clock.move_to(bench.deliveries.next_due_at() or 0.0)
    bench.settle({("ha", "dead"): 1, ("ha", "delivered"): 1})
    assert "9 attempts failed" in bench.deliveries.attempts(bench.deliveries.list()[0].id)[-1].detail

    refused.clear()
    assert (
        1 == bench.deliveries.redeliver(endpoint="ha", until=clock.now() + 1, delivery_ids=[1], now=clock.now()).total()
    )
    dispatcher.wake()
    bench.settle({("ha", "delivered"): 2})
    assert ["event-1"] * 9 + ["event-2", "event-1"] == server.ids


def test_retry_after_is_honoured(bench: Bench) -> None:
    """A receiver that asks for two minutes is left alone for them."""
    clock = ManualClock(NOW)
    server = bench.receiver(answer(429, "Retry-After: 120\r\n"))
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock)
    bench.database.emit(1)
    dispatcher.wake()

    eventually(lambda: bench.deliveries.next_due_at() == NOW + 125)


def test_415_is_dead_at_once(bench: Bench) -> None:
    """A receiver that cannot read CloudEvents gets one attempt; its later events are still sent."""
    server = bench.receiver(in_turn(answer(415), answer(200)))
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock())
    bench.database.emit(1)
    bench.database.emit(2)
    dispatcher.wake()

    bench.settle({("ha", "dead"): 1, ("ha", "delivered"): 1})
    assert {} == bench.deliveries.disabled()


def test_410_disables_the_endpoint_until_a_restart(bench: Bench) -> None:
    """A receiver that is gone is called once; what waits is dead, someone is told; a restart asks it again."""
    told: list[tuple[str, str, float]] = []
    clock = ManualClock(NOW)
    server = bench.receiver(answer(410))
    first = bench.start(
        [bench.endpoint(server.url, clock)], clock, on_disabled=lambda *said: told.append(said), limits=Limits(1)
    )
    for sequence in (1, 2, 3):
        bench.database.emit(sequence)
    first.wake()
    bench.settle({("ha", "dead"): 3})
    bench.database.emit(4)
    first.wake()
    bench.settle({("ha", "dead"): 4})

    assert ["event-1"] == server.ids
    eventually(lambda: told == [("ha", "gone", NOW)])
    assert first.stop(5)
    server.behave = answer(200)
    second = bench.start([bench.endpoint(server.url, clock)], clock)
    eventually(lambda: bench.deliveries.disabled() == {})
    bench.database.emit(5)
    second.wake()
    server.wait_for_requests(2)


def test_a_disabled_endpoint_is_told_once_though_the_store_goes_before_it_is_recorded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the store is back nothing is disabled anew, and somebody is told all the same."""
    told: list[str] = []
    finish, away = bench.deliveries.finish_many, [True]

    def lose_once(*given: Any) -> list[bool]:
        if away:
            away.pop()
            raise StoreUnavailable("just now")
        return finish(*given)

    monkeypatch.setattr(bench.deliveries, "finish_many", lose_once)
    server = bench.receiver(answer(410))
    clock = SystemClock()
    dispatcher = bench.start([bench.endpoint(server.url, clock)], clock, on_disabled=lambda *said: told.append(said[0]))
    bench.database.emit(1)
    dispatcher.wake()

    bench.settle({("ha", "dead"): 1})
    eventually(lambda: told == ["ha"])
    assert ["event-1"] == server.ids


@pytest.mark.parametrize(("point", "requests"), [("after_claim", 1), ("after_post", 2), ("before_record", 2)])
def test_a_crash_sends_again_under_the_same_id(bench: Bench, point: str, requests: int) -> None:
    """Whoever dies between claim and record leaves the event to its lease: nothing is lost, and the id is the same."""
    clock = ManualClock(NOW)
    server = bench.receiver(answer(200))
    died: list[str] = []

    def crash(at: str) -> None:
        if at == point:
            died.append(at)
            raise RuntimeError("died here")

    first = bench.start([bench.endpoint(server.url, clock)], clock, crash=crash)
    bench.database.emit(1)
    first.wake()
    eventually(lambda: bool(died))
    first.stop(1)
    assert {("ha", "claimed"): 1} == bench.states()

    second = bench.start([bench.endpoint(server.url, clock)], clock, poll_s=0.02)
    clock.advance(29)
    bench.database.emit(2, subject="cmp-2")
    bench.settle({("ha", "claimed"): 1, ("ha", "delivered"): 1})
    clock.advance(1)
    second.wake()
    bench.settle({("ha", "delivered"): 2})
    assert requests == server.ids.count("event-1")


def test_a_dead_endpoint_does_not_delay_a_healthy_one(bench: Bench) -> None:
    """While one receiver answers nothing and one refuses, a third gets everything at once; the first is not flooded."""
    clock = SystemClock()
    hanging, healthy = bench.receiver(silent), bench.receiver(answer(200))
    for sequence in range(1, 61):  # before it begins: else a slow machine makes the first hang before the rest is there
        bench.database.emit(sequence, subject=f"cmp-{sequence % 20}")
    dispatcher = bench.start(
        [
            bench.endpoint(hanging.url, clock, "hanging", total_s=60.0),
            bench.endpoint(refusing_url(), clock, "refusing"),
            bench.endpoint(healthy.url, clock, "healthy"),
        ],
        clock,
        limits=Limits(per_endpoint=4),
    )
    began = time.monotonic()
    dispatcher.wake()
    healthy.wait_for_requests(60)

    print(f"60 events past a dead endpoint: {time.monotonic() - began:.2f} s")
    hanging.wait_for(lambda: hanging.busy == 4)
    assert 4 == hanging.most_busy
    assert 4 == len(hanging.received)
    eventually(lambda: bench.states().get(("healthy", "delivered")) == 60)


def test_one_in_flight_per_subject_in_order(bench: Bench) -> None:
    """Events of one subject arrive one after another in their order; different subjects go side by side."""
    server = bench.receiver(answer(200))
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock())
    for sequence in range(1, 41):
        bench.database.emit(sequence, subject=f"cmp-{sequence % 4}")
    dispatcher.wake()
    server.wait_for_requests(40)

    for subject in range(4):
        line = [int(i.split("-")[1]) for i in server.ids if int(i.split("-")[1]) % 4 == subject]
        assert sorted(line) == line
    assert server.most_busy <= 4


def test_two_dispatchers_send_each_event_once(bench: Bench) -> None:
    """Two controllers on one store share the work and repeat nothing."""
    server = bench.receiver(answer(200))
    both = [bench.start([bench.endpoint(server.url, SystemClock())], SystemClock(), poll_s=0.02) for _ in range(2)]
    for sequence in range(1, 101):
        bench.database.emit(sequence, subject=f"cmp-{sequence % 10}")
        for dispatcher in both:
            dispatcher.wake()
    bench.settle({("ha", "delivered"): 100})

    assert 100 == len(server.ids) == len(set(server.ids))


def test_a_lost_database_costs_no_second_request(bench: Bench) -> None:
    """While the database is away an attempt's end is kept and recorded when it is back; nothing is sent twice."""
    server = bench.receiver(silent)

    def answer_without_database(connection, receiver) -> None:  # type: ignore[no-untyped-def]
        bench.database.down = True
        answer(200)(connection, receiver)

    server.behave = answer_without_database
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock(), poll_s=0.05)
    bench.database.emit(1)
    dispatcher.wake()
    server.wait_for_requests(1)
    eventually(lambda: bench.database.down)
    tick = dispatcher.tick
    eventually(lambda: dispatcher.tick > tick)
    bench.database.down = False

    bench.settle({("ha", "delivered"): 1})
    assert 1 == len(server.received)


def test_stop_lets_requests_in_flight_end(bench: Bench) -> None:
    """A request under way when the daemon is told to stop is finished and recorded."""
    server = bench.receiver(silent)
    held = [False]

    def answer_when_told(connection, receiver) -> None:  # type: ignore[no-untyped-def]
        eventually(lambda: held[0])
        answer(200)(connection, receiver)

    server.behave = answer_when_told
    dispatcher = bench.start([bench.endpoint(server.url, SystemClock())], SystemClock(), limits=Limits(1))
    bench.database.emit(1)
    bench.database.emit(2, subject="cmp-2")
    dispatcher.wake()
    server.wait_for_requests(1)
    dispatcher._call(lambda: held.__setitem__(0, True))

    assert dispatcher.stop(5) is True
    assert ("ha", "claimed") not in bench.states()
    assert "event-1" not in [delivery.event_id for delivery in bench.deliveries.list(state="pending")]


def test_stop_leaves_the_unfinished_to_its_lease(bench: Bench) -> None:
    """A receiver that does not answer cannot hold up the end; the event goes again after the lease."""
    clock = ManualClock(NOW)
    server = bench.receiver(silent)
    first = bench.start([bench.endpoint(server.url, clock, total_s=60.0)], clock)
    bench.database.emit(1)
    first.wake()
    server.wait_for_requests(1)
    began = time.monotonic()

    assert first.stop(0.1) is False
    assert time.monotonic() - began < 10.0
    assert {("ha", "claimed"): 1} == bench.states()
    server.behave = answer(200)
    clock.advance(31)
    bench.start([bench.endpoint(server.url, clock)], clock).wake()
    bench.settle({("ha", "delivered"): 1})
    assert ["event-1", "event-1"] == server.ids


def test_a_purged_event_is_given_up_unsent(bench: Bench) -> None:
    """A delivery whose event was purged is dead with that reason; no empty body is ever sent."""
    server = bench.receiver(answer(200))
    bench.database.emit(1)
    bench.deliveries.fan_out(lambda event_type: ["ha"], NOW)
    bench.database.write(lambda connection: connection.execute(bench.database.events_table.delete()))
    bench.start([bench.endpoint(server.url, ManualClock(NOW))], ManualClock(NOW))

    bench.settle({("ha", "dead"): 1})
    assert ["event_purged"] == [attempt.outcome for attempt in bench.deliveries.attempts(1)]
    assert [] == server.received


def test_a_sink_that_raises_counts_as_an_attempt(bench: Bench) -> None:
    """A bug in a sink is logged and tried again on the schedule: it neither loops nor stops the dispatcher."""

    class Broken:
        async def open(self) -> None: ...

        async def send(self, message: Message) -> Outcome:
            raise KeyError(message.event_id)

        async def close(self) -> None: ...

    clock = ManualClock(NOW)
    dispatcher = bench.start([Endpoint("ha", ("*",), Signer([]), Broken())], clock)
    bench.database.emit(1)
    dispatcher.wake()

    eventually(lambda: bench.deliveries.next_due_at() == NOW + 5)
    attempt = bench.deliveries.attempts(bench.deliveries.list()[0].id)[0]
    assert (OutcomeKind.BROKEN, "maintd failed: KeyError") == (attempt.outcome, attempt.detail)


def test_the_oldest_pending_is_measured(bench: Bench) -> None:
    """The age of the oldest delivery that is not finished is told."""
    clock = ManualClock(NOW)
    bench.database.emit(1)
    bench.deliveries.fan_out(lambda event_type: ["ha"], NOW - 50)
    bench.deliveries.claim("somebody", NOW, 30, 10)
    bench.start([], clock)

    eventually(lambda: bench.meters.oldest == [50.0])
