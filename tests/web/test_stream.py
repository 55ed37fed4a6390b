"""Long polls and event streams on /v1/events: prompt, complete, and never in anybody's way."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from maintd.clock import ManualClock
from maintd.domain import events
from maintd.domain.model import Because
from maintd.store import EventRow
from maintd.web import stream
from maintd.web.seats import NoSeat, Seats
from maintd.web.stream import Bell, Stream
from tests.support.rabbitmq import wait_until
from tests.web.listening import EVENT_STREAM, Listening, listening
from tests.web.serving import AT, Served, disabled, emptied


class Ticking(ManualClock):
    """A clock that moves by a second whenever it is asked."""

    def monotonic(self) -> float:
        return self.advance(1.0)


@contextmanager
def polling(served: Served, query: str) -> Iterator[Callable[[], tuple[int, Any]]]:
    """A long poll under way, which holds a seat; what is yielded waits for its answer."""
    answers: list[tuple[int, Any]] = []
    before = served.seats.taken
    thread = threading.Thread(target=lambda: answers.append(served.get(f"/v1/events?{query}")))
    thread.start()
    wait_until(lambda: served.seats.taken == before + 1, what="a seat to be taken")

    def answer() -> tuple[int, Any]:
        thread.join(5)
        return answers[0]

    yield answer
    thread.join(5)


def elsewhere(served: Served, *published: events.Event) -> None:
    """Commit events as another controller does: nothing rings here."""
    ring, served.bell.ring = served.bell.ring, lambda: None  # type: ignore[method-assign]
    try:
        served.publish(*published)
    finally:
        served.bell.ring = ring  # type: ignore[method-assign]


# --- streams ---------------------------------------------------------------------------------------------------------


def test_a_stream_has_what_there_is_and_what_comes(served: Served) -> None:
    """Each event comes once, in order, with its sequence, its type, and the very CloudEvent on one line."""
    before = served.publish(emptied("cmp-1"), disabled("cmp-2"))
    with listening(served.url) as client:
        first = client.message()
        assert [client.message(), client.message()] == [
            {"id": f"{one.sequence:020d}", "event": one.type, "data": one.as_json()} for one in before
        ]
        (after,) = served.publish(emptied("cmp-3"))
        assert after.as_json() == client.message()["data"]

        assert {"retry": "3000"} == first
        assert "text/event-stream" == client.response.getheader("Content-Type")
        assert "no" == client.response.getheader("X-Accel-Buffering")
        assert "no-store" == client.response.getheader("Cache-Control")


def test_whoever_comes_back_goes_on(served: Served) -> None:
    """Last-Event-ID is a cursor and wins over `after`, which an EventSource repeats with every new connection."""
    made = served.publish(*(emptied(f"cmp-{n}") for n in range(4)))

    with listening(served.url, "?after=1") as client:
        assert ["event-2"] == client.events(1)
    with listening(served.url, "?after=1", Last_Event_ID=f"{made[2].sequence:020d}") as client:
        assert ["event-4"] == client.events(1)


def test_filters_hold_in_a_stream(served: Served) -> None:
    """Of what was there and of what comes, only what matches type and subject is told."""
    served.publish(emptied("cmp-1"), disabled("cmp-1"), disabled("cmp-2"))
    with listening(served.url, "?type=maintd.service.*&subject=cmp-1") as client:
        assert ["event-2"] == client.events(1)
        served.publish(emptied("cmp-1"), disabled("cmp-2"), disabled("cmp-1"))
        assert ["event-6"] == client.events(1)


def test_a_quiet_stream_says_that_it_is_alive() -> None:
    """After 15 s without an event there is a comment, and after 15 more another; none comes earlier."""
    clock = Ticking(AT)
    bell = Bell(clock, lambda: 0)

    def nothing(after: int) -> list[EventRow]:
        bell.ring()  # so that nobody really waits
        return []

    told = iter(Stream(bell, Seats(2).take("a"), nothing, 0, None))
    assert b"retry: 3000\n\n" == next(told)
    for _ in range(3):
        before = clock.now()
        assert b": ping\n\n" == next(told)
        assert stream.PING_S <= clock.now() - before < stream.PING_S + 5


def test_a_stream_ends_after_an_hour(served: Served) -> None:
    """Then whoever listens comes back with its cursor, and its token is looked at again."""
    with listening(served.url) as client:
        client.message()
        served.clock.advance(stream.AGE_S)
        served.bell.ring()

        assert client.ended()
        wait_until(lambda: served.seats.taken == 0, what="the seat to be free")


def test_json_is_what_is_not_asked_to_stream(served: Served) -> None:
    """Only who accepts event streams, and prefers them to JSON, gets one."""
    for accept in ("*/*", "application/json", "text/html, */*", "application/json, text/event-stream"):
        assert {"events", "next"} == set(served.get("/v1/events", Accept=accept)[1])


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?wait=5", {}), ("?limit=5", {}), ("", {"Last-Event-ID": "x"}), ("?after=x", {}), ("?aftre=1", {})],
)
def test_a_stream_is_asked_strictly(served: Served, query: str, headers: dict[str, str]) -> None:
    """What a stream does not know or understand is a 400 with a sentence, and takes no seat."""
    status, answer = served.get(f"/v1/events{query}", **EVENT_STREAM, **headers)

    assert 400 == status
    assert answer["description"].endswith(".")
    assert 0 == served.seats.taken


# --- long polls ------------------------------------------------------------------------------------------------------


def test_a_long_poll_answers_at_once_where_there_is_something(served: Served) -> None:
    """It holds no seat for that, not even where none is free."""
    served.publish(emptied("cmp-1"))
    served.seats.total = 0

    status, answer = served.get("/v1/events?wait=60")

    assert (200, ["event-1"]) == (status, [event["id"] for event in answer["events"]])


def test_a_long_poll_answers_when_something_comes(served: Served) -> None:
    """What matches ends the wait; what does not is waited past."""
    with polling(served, "wait=60&subject=cmp-2") as answer:
        served.publish(emptied("cmp-1"))
        served.publish(emptied("cmp-2"))
        status, found = answer()

    assert (200, ["event-2"], f"{2:020d}") == (status, [event["id"] for event in found["events"]], found["next"])


def test_a_long_poll_ends_in_vain(served: Served) -> None:
    """After `wait` seconds the list is empty and the cursor is what it was."""
    served.publish(emptied("cmp-1"))
    with polling(served, "after=1&wait=7") as answer:
        served.clock.advance(7)
        served.bell.ring()

        assert (200, {"events": [], "next": f"{1:020d}"}) == answer()
    assert 400 == served.get("/v1/events?wait=61")[0]


def test_what_another_controller_says_is_found(served: Served) -> None:
    """A commit that rang nothing here is found by a look, once a second has passed."""
    with listening(served.url) as client, polling(served, "wait=60") as answer:
        client.message()
        elsewhere(served, emptied("cmp-1"))
        served.clock.advance(stream.LOOK_S)

        assert ["event-1"] == client.events(1)
        assert 200 == answer()[0]


def test_one_looks_for_all(served: Served) -> None:
    """However many wait, the store is asked once a second; and nobody asks while nobody waits."""
    clock, looks = ManualClock(AT), []
    bell = Bell(clock, lambda: looks.append(1) or len(looks))

    for second in range(3):
        for _ in range(5):
            bell.wait(bell.strokes, 0.0)
        assert second + 1 == len(looks)
        clock.advance(stream.LOOK_S)
    assert 3 == len(looks)


# --- seats -----------------------------------------------------------------------------------------------------------


def test_seats_are_counted_for_all_and_for_each() -> None:
    """Nobody has more than half, all together not more than there are, and a seat given up twice is given up once."""
    seats = Seats(4)
    first = [seats.take("a"), seats.take("a")]
    with pytest.raises(NoSeat, match="You hold 2"):
        seats.take("a")
    others = [seats.take("b"), seats.take("c")]
    with pytest.raises(NoSeat, match="All 4"):
        seats.take("d")

    first[0].close()
    first[0].close()

    assert 3 == seats.taken
    seats.take("d")
    for seat in (*first, *others):
        seat.close()
    assert 1 == seats.taken


def test_streams_keep_nobody_else_waiting(served: Served) -> None:
    """With every seat taken one more is told to come back, and all other requests are answered promptly."""
    with ExitStack() as stack:
        held = [stack.enter_context(listening(served.url, source=f"127.0.0.{1 + n % 2}")) for n in range(4)]
        assert 4 == served.seats.taken

        for headers, query in (({}, "?wait=5"), (EVENT_STREAM, "")):
            status, answer = served.get(f"/v1/events{query}", **headers)
            assert 503 == status
            assert "All 4 streams and long polls" in answer["description"]
        with listening(served.url, source="127.0.0.3") as refused:
            assert (503, "5") == (refused.response.status, refused.response.getheader("Retry-After"))
        began = time.monotonic()
        for _ in range(20):
            assert 200 == served.get("/v1/status")[0]
            assert 200 == served.get("/v1/events")[0]
        assert time.monotonic() - began < 5

        served.publish(emptied("cmp-1"))
        assert [["event-1"]] * 4 == [client.events(1) for client in held]


def test_one_caller_does_not_take_all_seats(served: Served) -> None:
    """Half of the seats is what one address has; another still finds one."""
    with listening(served.url), listening(served.url):
        status, answer = served.get("/v1/events", **EVENT_STREAM)
        assert (503, True) == (status, answer["description"].startswith("You hold 2"))
        with listening(served.url, source="127.0.0.2") as other:
            assert 200 == other.response.status


def test_whoever_vanishes_leaves_its_seat(served: Served) -> None:
    """A client that closes its connection is noticed although nothing is sent; of a long poll too."""
    assert served.server is not None
    client = Listening(served.url)
    poller = socket.create_connection(served.server.address)
    poller.sendall(b"GET /v1/events?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: served.seats.taken == 2, what="both to wait")

    client.close()
    poller.close()

    wait_until(lambda: served.seats.taken == 0, 6.0, "the seats to be free")


def big(n: int) -> events.Event:
    """An event of which a hundred are more than two sockets can hold."""
    return events.ServiceDisabled(because=Because("api"), host=f"cmp-{n}", reason="x" * 200_000)


def mute(served: Served) -> socket.socket:
    """A client that asks for a stream and reads nothing of it."""
    assert served.server is not None
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(served.server.address)
    client.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n")
    wait_until(lambda: served.seats.taken == 1, what="the stream to begin")
    return client


def test_whoever_reads_nothing_loses_its_seat(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not take what is sent has its connection closed after a time, and the others go on."""
    monkeypatch.setattr(stream, "SEND_S", 0.2)
    with mute(served), listening(served.url, source="127.0.0.2", Last_Event_ID="100") as reader:
        served.publish(*(big(n) for n in range(100)))
        wait_until(lambda: served.seats.taken == 1, 6.0, "the mute one to be given up")
        served.publish(emptied("cmp-1"))

        assert ["event-101"] == reader.events(1)


def test_stopping_ends_all_who_wait(served: Served) -> None:
    """Streams and long polls end at once, one more is refused, and the server stops although one reads nothing."""
    with (
        mute(served) as silent,
        polling(served, "after=100&wait=60") as answer,
        listening(served.url, source="127.0.0.2", Last_Event_ID="100") as reader,
    ):
        served.publish(*(big(n) for n in range(100)))
        served.bell.close()

        assert (200, []) == (answer()[0], answer()[1]["events"])
        assert reader.ended()
        assert 503 == served.get("/v1/events?after=100&wait=1")[0]
        assert served.server is not None
        began = time.monotonic()
        served.server.stop()
        assert time.monotonic() - began < 9
        assert silent.fileno() >= 0


def test_a_lost_database_ends_a_stream(served: Served) -> None:
    """Nothing more can be told then: the connection ends, for the client to come back with its cursor."""
    served.publish(emptied("cmp-1"))
    with listening(served.url) as client:
        assert ["event-1"] == client.events(1)
        with served.store._database.engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE events")
        served.bell.ring()

        assert client.ended()
        wait_until(lambda: served.seats.taken == 0, what="the seat to be free")
    assert 503 == served.get("/v1/events?wait=5")[0]


def test_what_may_be_seen_later_rings_then() -> None:
    """An event that was held back wakes who waits when its time has come, though nothing is committed then."""
    clock = ManualClock(AT)
    held_back = [1]
    bell = Bell(clock, lambda: (7, held_back[0]))
    bell.wait(bell.strokes, 0.0)  # the first look only sees how it is
    heard = bell.strokes
    clock.advance(stream.LOOK_S)
    bell.wait(heard, 0.0)
    assert heard == bell.strokes

    held_back[0] = 0
    clock.advance(stream.LOOK_S)
    bell.wait(heard, 0.0)
    assert heard != bell.strokes
