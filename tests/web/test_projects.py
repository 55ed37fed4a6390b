"""What a project reads: its own events and deliveries, in its own numbers, and nothing of anybody else's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import pytest

from maintd.store import Attempt, EventRow, Subscription
from maintd.store.subscriptions import ACTIVE, DISABLED, ENDPOINT_PREFIX
from maintd.web.stream import Bell
from tests.web.serving import AT, Served, emptied
from tests.web.tokens import MINE, OTHERS, get, guarding, post


@pytest.fixture
def guarded(served: Served) -> Iterator[Served]:
    """Two projects and the operators have been told things in turn; each has a subscription that was sent its own."""
    for project_id, number in ((MINE, "mine"), (OTHERS, "others"), (None, "ops")):
        served.store.subscriptions.add(
            Subscription(number, project_id, number, "https://r.example/", ("*",), state=ACTIVE, secrets=("whsec_1",))
        )
    for n in range(3):
        told = served.tell(MINE, f"srv-{n}")
        deliver(served, "mine", told.id)
        served.publish(emptied(f"cmp-{n}"))
        deliver(served, "ops")
        served.tell(OTHERS, f"srv-other-{n}")
        deliver(served, "others")
    with guarding(served):
        yield served


def deliver(served: Served, subscription_id: str, _: str = "") -> None:
    """Fan the last event out to a subscription, and give it up."""
    store = served.store.deliveries
    store.fan_out(lambda event: (f"{ENDPOINT_PREFIX}{subscription_id}",), AT)
    (claimed,) = store.claim("me", AT, 30.0, 1)
    store.finish(claimed.id, "me", Attempt(AT, 0.25, 500, "refused", "no"), state="dead")


def test_a_project_reads_its_own_log_by_its_own_numbers(guarded: Served) -> None:
    """Page by page, each event once, from 1 without a gap, whatever others are told in between."""
    seen, cursor = [], "0"
    for _ in range(3):
        answer = get(guarded, "reader", f"/v1/events?after={cursor}&limit=2")[1]
        seen += answer["events"]
        cursor = answer["next"]

    assert [f"{n:020d}" for n in (1, 2, 3)] == [event["sequence"] for event in seen]
    assert ["srv-0", "srv-1", "srv-2"] == [event["subject"] for event in seen]
    assert f"{3:020d}" == cursor
    assert ["srv-1"] == [e["subject"] for e in get(guarded, "reader", "/v1/events?subject=srv-1")[1]["events"]]


def test_operators_read_the_operators_log(guarded: Served) -> None:
    """A project's events are in the operators' log only where they ask for that project's."""

    def subjects(query: str = "") -> list[str]:
        return [event["subject"] for event in get(guarded, "admin", f"/v1/events{query}")[1]["events"]]

    assert ["cmp-0", "cmp-1", "cmp-2"] == subjects()
    assert ["srv-0", "srv-1", "srv-2"] == subjects(f"?project_id={MINE}")
    assert 400 == get(guarded, "member", f"/v1/events?project_id={OTHERS}")[0]


def test_an_event_that_is_not_ones_own_is_not_there(guarded: Served) -> None:
    """By its id a project finds its own event; of the operators', another's and none at all it is told the same."""
    answers = [get(guarded, "reader", f"/v1/events/event-{n}") for n in (1, 2, 3, 99)]

    assert [200, 404, 404, 404] == [status for status, _ in answers]
    told = [
        answer["description"].replace(f"event-{n}", "event")
        for n, (_, answer) in zip((2, 3, 99), answers[1:], strict=True)
    ]
    assert 1 == len(set(told))


def test_what_may_not_be_seen_yet_is_not_there(served: Served) -> None:
    """An event is hidden until its time, and all after it, so that a cursor never runs past it."""
    early, late, after = served.tell(MINE), served.tell(MINE, visible_at=AT + 9), served.tell(MINE)
    with guarding(served):
        answer = get(served, "reader", "/v1/events")[1]
        assert ([early.id], f"{1:020d}") == ([event["id"] for event in answer["events"]], answer["next"])
        assert 404 == get(served, "reader", f"/v1/events/{late.id}")[0]
        served.clock.advance(9)
        answer = get(served, "reader", f"/v1/events?after={answer['next']}")[1]
        assert [late.id, after.id] == [event["id"] for event in answer["events"]]


def test_nothing_tells_when_it_was_committed(served: Served) -> None:
    """Of an event that is held back, the delivery to a disabled endpoint is not there before its time, cannot be sent
    again, and is dated from then on, with what became of it: else all delays would be in vain."""
    served.store.subscriptions.add(
        Subscription("mine", MINE, "m", "https://r.example/", ("*",), state=DISABLED, secrets=("whsec_1",))
    )
    late = served.tell(MINE, visible_at=AT + 9)
    served.store.deliveries.fan_out(lambda event: (f"{ENDPOINT_PREFIX}mine",), AT, refused={f"{ENDPOINT_PREFIX}mine"})
    with guarding(served):
        assert [] == get(served, "reader", "/v1/deliveries")[1]["deliveries"]
        assert 404 == get(served, "reader", f"/v1/deliveries/{late.id}.mine")[0]
        for body in (
            {"since": 0},
            {"until": AT + 99},
            {"subscription_id": "mine"},
            {"delivery_ids": [f"{late.id}.mine"]},
        ):
            assert (200, {"redelivered": 0}) == post(served, "member", "/v1/deliveries/redeliver", body)
        served.clock.advance(9)
        found = get(served, "reader", f"/v1/deliveries/{late.id}.mine")[1]
        times = {found["created_at"], *(one["at"] for one in found["tries"])}

        assert {"2026-01-01T00:00:09.000000Z"} == times
        assert 1 == post(served, "member", "/v1/deliveries/redeliver", {"since": 0})[1]["redelivered"]


def test_whoever_waits_is_told_when_the_time_comes(served: Served) -> None:
    """Cursor, state and long poll show nothing before; then a look of the bell finds that a log shows more."""
    log = served.store.events
    bell = Bell(served.clock, lambda: (log.last_sequence(), log.held_back(served.clock.now())))
    served.tell(MINE, visible_at=AT + 9)

    def fetch() -> Sequence[EventRow]:
        return served.store.events.list_of_project(MINE, now=served.clock.now())

    def strokes_after(seconds: float) -> int:
        before = bell.strokes
        served.clock.advance(seconds)
        bell.wait(bell.strokes - 1, 1.0)
        return bell.strokes - before

    assert 1 == strokes_after(2)  # the first look finds what there is
    assert (0, []) == (strokes_after(6.5), fetch())
    assert (1, 1) == (strokes_after(1), len(fetch()))
    assert 0 == strokes_after(2)


def test_a_project_sees_deliveries_to_its_own_subscriptions(guarded: Served) -> None:
    """In the order of its log, with the events' own numbers, under ids that count nothing; with every attempt."""
    first = get(guarded, "reader", "/v1/deliveries?limit=2")[1]
    rest = get(guarded, "reader", f"/v1/deliveries?limit=2&after={first['next']}")[1]
    rows = first["deliveries"] + rest["deliveries"]

    assert ["event-1.mine", "event-4.mine", "event-7.mine"] == [row["id"] for row in rows]
    assert [f"{n:020d}" for n in (1, 2, 3)] == [row["sequence"] for row in rows]
    assert rest["next"] is None
    assert {"id", "subscription_id", "event_id", "event_type", "subject", "sequence", "state", "attempts", "created_at",
            "due_at", "first_failed_at", "last_try"} == set(rows[0])  # fmt: skip
    one = get(guarded, "reader", "/v1/deliveries/event-4.mine")[1]
    assert [(500, "refused", "no")] == [(a["status"], a["outcome"], a["detail"]) for a in one["tries"]]
    assert [] == get(guarded, "reader", "/v1/deliveries?subscription_id=others")[1]["deliveries"]
    assert [] == get(guarded, "reader", "/v1/deliveries?state=delivered")[1]["deliveries"]


@pytest.mark.parametrize(
    "number", ["1", "2", "event-3.others", "event-2.ops", "event-1.others", "event-3.mine", "x", "."]
)
def test_a_delivery_that_is_not_ones_own_is_not_there(guarded: Served, number: str) -> None:
    """Neither by a number that counts everybody's, nor by another's event or subscription."""
    assert 404 == get(guarded, "reader", f"/v1/deliveries/{number}")[0]


def test_operators_see_all_deliveries_and_those_of_a_subscription(guarded: Served) -> None:
    """By number; a subscription's are found by its id as well as by its endpoint."""
    assert 9 == len(get(guarded, "admin", "/v1/deliveries")[1]["deliveries"])
    by_id = get(guarded, "admin", "/v1/deliveries?subscription_id=mine")[1]
    assert by_id == get(guarded, "admin", "/v1/deliveries?endpoint=sub-mine")[1]
    assert 3 == len(by_id["deliveries"])
    assert 400 == get(guarded, "admin", "/v1/deliveries?endpoint=sub-mine&subscription_id=mine")[0]
    assert 400 == get(guarded, "reader", "/v1/deliveries?endpoint=sub-mine")[0]


@pytest.mark.parametrize(
    ("body", "again"),
    [
        ({"delivery_ids": ["event-1.mine", "event-3.others", "event-2.ops", "event-9.mine"]}, 1),
        ({"delivery_ids": ["event-1.mine"], "subscription_id": "mine", "until": AT}, 0),
        ({"subscription_id": "mine"}, 3),
        ({"since": AT}, 3),
        ({"until": AT}, 0),
    ],
)
def test_a_project_sends_its_own_again(guarded: Served, body: dict, again: int) -> None:
    """By ids, by subscription, or by time: nothing but what went to its own subscriptions."""
    assert (200, {"redelivered": again}) == post(guarded, "member", "/v1/deliveries/redeliver", body)

    pending = {delivery.endpoint for delivery in guarded.store.deliveries.list(state="pending")}
    assert pending <= {f"{ENDPOINT_PREFIX}mine"}
    assert again == len(guarded.store.deliveries.list(state="pending"))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"delivery_ids": [1]}, 400),
        ({"delivery_ids": ["1"]}, 400),
        ({"delivery_ids": []}, 400),
        ({"endpoint": "sub-others"}, 400),
        ({"subscription_id": "others"}, 404),
        ({"subscription_id": "nonesuch"}, 404),
    ],
)
def test_what_is_not_ones_own_is_not_sent_again(guarded: Served, body: dict, status: int) -> None:
    """Everybody's numbers and endpoints are no way to name a delivery; another's subscription is not there."""
    assert status == post(guarded, "member", "/v1/deliveries/redeliver", body)[0]
    assert [] == guarded.store.deliveries.list(state="pending")


def test_nothing_of_others_is_in_any_answer(guarded: Served) -> None:
    """Whatever a project reads or is refused, no id, name, host or number of anybody else's is in it."""
    paths = ["/v1/events", "/v1/deliveries", "/v1/subscriptions", "/v1/deliveries/event-1.mine", "/v1/events/event-1",
             "/v1/subscriptions/mine", "/v1/events/event-2", "/v1/deliveries/9", "/v1/status", "/v1/hosts"]  # fmt: skip

    text = json.dumps([get(guarded, "reader", path) for path in paths])

    for canary in ("cmp-", "srv-other", OTHERS, "others", "ops", f"{9:020d}", "event-3"):
        assert canary not in text
