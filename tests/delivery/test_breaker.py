"""How many places an endpoint gets, by how its attempts have ended."""

from __future__ import annotations

import pytest

from maintd.delivery.breaker import (
    PAUSE_MOST_S,
    PAUSE_S,
    SLOW_S,
    WHILE_SLOW,
    YOUNG_S,
    Breaker,
    Limits,
    Request,
)

GOOD = {"delivered": True, "answered": True, "took_s": 0.1}
SLOW = {"delivered": True, "answered": True, "took_s": SLOW_S}
REFUSED = {"delivered": False, "answered": True, "took_s": 0.1}
SILENT = {"delivered": False, "answered": False, "took_s": 10.0}


def after(*attempts: dict[str, bool | float], limits: Limits | None = None, now: float = 0.0) -> Breaker:
    breaker = Breaker(limits or Limits(per_endpoint=8, in_all=100))
    for attempt in attempts:
        breaker.ended("a", **attempt, now=now)  # type: ignore[arg-type]
    return breaker


@pytest.mark.parametrize(
    ("attempts", "has", "room"),
    [
        ((), 0, 8),
        ((), 7, 1),
        ((), 8, 0),
        ((GOOD,), 0, 8),
        ((REFUSED,), 0, 1),
        ((REFUSED,), 1, 0),
        ((REFUSED, REFUSED), 0, 1),
        ((REFUSED, GOOD), 0, 8),
        ((SLOW,), 0, WHILE_SLOW),
        ((SLOW,), 1, 1),
        ((SLOW,), 5, 0),
        ((SLOW, GOOD), 0, 8),
        ((REFUSED, SLOW), 0, WHILE_SLOW),
        ((SILENT,), 0, 0),
        ((SILENT, GOOD), 0, 8),
        ((SILENT, REFUSED), 0, 1),
    ],
)
def test_places_by_behaviour(attempts: tuple[dict[str, bool | float], ...], has: int, room: int) -> None:
    """The quick have all places, the slow a few, the failing one, and one where nobody is none for a moment."""
    assert ({"a": room} if room else {}) == after(*attempts).room(["a"], [Request("a", 0.0)] * has, 0.0)


def test_pauses_grow_and_end() -> None:
    """Each further try without an answer doubles the pause, up to a few seconds; then one more may be made."""
    for tries, pause_s in [(1, PAUSE_S), (2, PAUSE_S * 2), (3, PAUSE_S * 4), (20, PAUSE_MOST_S)]:
        breaker = after(*[SILENT] * tries, now=100.0)

        assert 100.0 + pause_s == breaker.next_end_of_pause(100.0)
        assert {} == breaker.room(["a"], [], 100.0 + pause_s - 0.01)
        assert {"a": 1} == breaker.room(["a"], [], 100.0 + pause_s)
        assert breaker.next_end_of_pause(100.0 + pause_s) is None


def test_suspects_share_half_of_all_in_turn() -> None:
    """All suspects together get half of the places, each in its turn; the others' places are not touched."""
    breaker = Breaker(Limits(per_endpoint=8, in_all=6))
    for name in "abcde":
        breaker.ended(name, delivered=False, answered=True, took_s=0.1, now=0.0)
    rounds = [breaker.room("abcdex", [], 0.0) for _ in range(5)]

    assert all(8 == room.pop("x") for room in rounds)
    assert [3] * 5 == [sum(room.values()) for room in rounds]
    assert set("abcde") == {name for room in rounds for name in room}
    assert {"x": 8} == breaker.room("abcdex", [Request(name, 0.0) for name in "abc"], 0.0)


def test_one_that_is_forgotten_is_trusted() -> None:
    """What was known of an endpoint does not count for another one of its name."""
    breaker = after(SILENT, SILENT)
    breaker.forget("a")

    assert {"a": 8} == breaker.room(["a"], [], 0.0)


def test_one_that_lets_a_request_wait_is_a_suspect() -> None:
    """Before anything has failed, an endpoint whose answer is overdue gets no more than the slow do."""
    breaker = after()

    assert {"a": 7} == breaker.room(["a"], [Request("a", 0.0)], YOUNG_S - 0.01)
    assert {"a": 1} == breaker.room(["a"], [Request("a", 0.0)], YOUNG_S)
    assert {} == breaker.room(["a"], [Request("a", 0.0)] * 2, YOUNG_S)


def test_what_is_begun_at_once_is_bounded_and_what_hangs_holds_up_nobody() -> None:
    """Only so many requests may be in their first second; what has waited longer counts among all."""
    breaker = Breaker(Limits(in_all=10, young=4))

    assert 4 == breaker.free([], 0.0)
    assert 1 == breaker.free([Request("a", 0.0)] * 3, 0.0)
    assert 0 == breaker.free([Request("a", 0.0)] * 4, YOUNG_S - 0.01)
    assert 4 == breaker.free([Request("a", 0.0)] * 4, YOUNG_S)
    assert 2 == breaker.free([Request("a", 0.0)] * 8, YOUNG_S)
    assert 0 == breaker.free([Request("a", 0.0)] * 10, YOUNG_S)
