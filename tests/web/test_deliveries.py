"""/v1/deliveries: what went where, and sending again."""

from __future__ import annotations

import pytest

from maintd.store import Attempt, Subscription
from maintd.store.subscriptions import STATES
from tests.web.serving import AT, Served, emptied


def deliver(served: Served, state: str) -> int:
    """Fan out, claim and finish one delivery; its id."""
    store = served.store.deliveries
    store.fan_out(lambda event_type: ("ha",), AT)
    (claimed,) = store.claim("me", AT, 30.0, 1)
    store.finish(claimed.id, "me", Attempt(AT, 0.25, 500, "refused", "no"), state=state, due_at=None)
    return claimed.id


def test_deliveries_show_state_and_attempts(served: Served) -> None:
    """A delivery shows where it stands and every attempt, with durations in seconds; no body and no URL."""
    served.publish(emptied("cmp-1"), emptied("cmp-2"))
    number = deliver(served, "dead")

    rows = served.get("/v1/deliveries")[1]["deliveries"]
    one = served.get(f"/v1/deliveries/{number}")[1]

    assert [("event-1", "dead"), ("event-2", "pending")] == [(row["event_id"], row["state"]) for row in rows]
    assert [
        {"at": "2026-01-01T00:00:00.000000Z", "duration_seconds": 0.25, "status": 500, "outcome": "refused",
         "detail": "no"}
    ] == one["tries"]  # fmt: skip
    assert "body" not in one


def test_deliveries_can_be_narrowed_and_paged(served: Served) -> None:
    """By state and endpoint, a page at a time."""
    served.publish(*(emptied(f"cmp-{n}") for n in range(3)))
    served.store.deliveries.fan_out(lambda event_type: ("ha", "mail"), AT)

    first = served.get("/v1/deliveries?endpoint=mail&limit=2")[1]
    rest = served.get(f"/v1/deliveries?endpoint=mail&limit=2&after={first['next']}")[1]

    assert ["mail"] * 3 == [row["endpoint"] for row in first["deliveries"] + rest["deliveries"]]
    assert rest["next"] is None
    assert 6 == len(served.get("/v1/deliveries?state=pending")[1]["deliveries"])
    assert 400 == served.get("/v1/deliveries?state=lost")[0]


def test_a_dead_delivery_goes_again_under_the_same_id(served: Served) -> None:
    """Redelivery makes it pending again, under the same event id, and wakes the dispatcher."""
    served.publish(emptied("cmp-1"))
    number = deliver(served, "dead")

    assert (200, {"redelivered": 1}) == served.post("/v1/deliveries/redeliver", {"delivery_ids": [number]})

    row = served.get(f"/v1/deliveries/{number}")[1]
    assert ("pending", "event-1") == (row["state"], row["event_id"])
    assert 1 == served.woken


def test_an_endpoint_is_redelivered_within_a_span(served: Served) -> None:
    """since and until bound when a delivery was finished."""
    served.publish(emptied("cmp-1"))
    deliver(served, "delivered")
    ask = {"endpoint": "ha", "since": "2026-01-01T01:00:00+01:00"}

    assert {"redelivered": 0} == served.post("/v1/deliveries/redeliver", {**ask, "until": "2026-01-01T00:00:00Z"})[1]
    assert {"redelivered": 1} == served.post("/v1/deliveries/redeliver", ask)[1]


def test_a_span_is_redelivered_to_everybody(served: Served) -> None:
    """Both times alone are a range: what any endpoint was delivered in it goes again, and nothing else."""
    served.publish(emptied("cmp-1"))
    deliver(served, "delivered")
    span = {"since": "2025-12-31T23:00:00Z", "until": "2026-01-01T00:00:00Z"}

    assert {"redelivered": 0} == served.post("/v1/deliveries/redeliver", span)[1]
    span["until"] = "2026-01-01T01:00:00Z"
    assert {"redelivered": 1} == served.post("/v1/deliveries/redeliver", span)[1]


def test_what_waits_for_its_subscription_is_said(served: Served) -> None:
    """What goes again to a subscription that is not active is counted apart, with its state; what is sent now, and what
    goes to a configured webhook, is not."""
    for state in STATES:
        served.store.subscriptions.add(
            Subscription(state, None, "m", "https://r.example/", ("*",), state=state, secrets=("whsec_1",))
        )
    served.publish(emptied("cmp-1"))
    names = ("ha", *(f"sub-{one}" for one in (*STATES, "gone")))
    served.store.deliveries.fan_out(lambda event: names, AT, refused=set(names))
    numbers = [row["id"] for row in served.get("/v1/deliveries")[1]["deliveries"]]

    status, answer = served.post("/v1/deliveries/redeliver", {"delivery_ids": numbers})

    assert (200, 6) == (status, answer["redelivered"])
    assert [("disabled", 1), ("gone", 1), ("paused", 1), ("unverified", 1)] == [
        (one["subscription_id"], one["deliveries"]) for one in answer["waiting"]
    ]
    assert ["disabled", "deleted", "paused", "unverified"] == [one["state"] for one in answer["waiting"]]


def test_a_list_shows_what_the_last_attempt_came_to(served: Served) -> None:
    """Each delivery of a list has its last attempt, with status, time taken and the beginning of the answer."""
    served.publish(emptied("cmp-1"), emptied("cmp-2"))
    deliver(served, "dead")
    rows = served.get("/v1/deliveries")[1]["deliveries"]

    assert [(500, 0.25, "no"), None] == [
        row["last_try"] and (row["last_try"]["status"], row["last_try"]["duration_seconds"], row["last_try"]["detail"])
        for row in rows
    ]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"since": "2026-01-01T00:00:00Z"},
        {"until": "2026-01-01T00:00:00Z"},
        {"delivery_ids": []},
        {"delivery_ids": [True]},
        {"delivery_ids": ["1"]},
        {"delivery_ids": "1"},
        {"endpoint": ""},
        {"endpoint": "ha", "since": "yesterday"},
        {"endpoint": "ha", "since": "2026-01-01T00:00:00"},
        {"endpoint": "ha", "everything": True},
    ],
)
def test_a_vague_redelivery_is_refused(served: Served, body: dict) -> None:
    """Nobody means everything, everywhere; times need an offset."""
    assert 400 == served.post("/v1/deliveries/redeliver", body)[0]
    assert 0 == served.woken
