"""/v1/events: the log by cursor."""

from __future__ import annotations

import json

import pytest

from tests.web.serving import Served, disabled, emptied


def test_the_cursor_misses_nothing_and_repeats_nothing(served: Served) -> None:
    """Following `next` shows each event once and in order, also those that come later; it is never null."""
    served.publish(*(emptied(f"cmp-{n}") for n in range(5)))
    seen, cursor = [], "0"
    for _ in range(4):
        answer = served.get(f"/v1/events?after={cursor}&limit=2")[1]
        seen += [event["id"] for event in answer["events"]]
        cursor = answer["next"]
    assert [f"event-{n}" for n in range(1, 6)] == seen

    served.publish(emptied("cmp-9"))

    assert ["event-6"] == [e["id"] for e in served.get(f"/v1/events?after={cursor}")[1]["events"]]


def test_events_are_as_they_were_delivered(served: Served) -> None:
    """The API shows the very CloudEvent that webhooks get."""
    (made,) = served.publish(emptied("cmp-17"))

    assert [made.as_dict()] == served.get("/v1/events")[1]["events"]
    assert json.loads(made.as_json()) == served.get(f"/v1/events/{made.id}")[1]


def test_events_can_be_narrowed(served: Served) -> None:
    """By type and by subject."""
    served.publish(emptied("cmp-1"), disabled("cmp-1"), disabled("cmp-2"))

    for query, wanted in (
        ("type=maintd.host.*", ["event-1"]),
        ("type=maintd.service.disabled.v1", ["event-2", "event-3"]),
        ("subject=cmp-1", ["event-1", "event-2"]),
        ("subject=cmp-2&type=maintd.host.*", []),
    ):
        assert wanted == [e["id"] for e in served.get(f"/v1/events?{query}")[1]["events"]]


@pytest.mark.parametrize("cursor", ["-1", "x", "1e3", "9" * 19, "9" * 30, "%D9%A1"])
def test_a_bad_cursor_is_refused(served: Served, cursor: str) -> None:
    """A cursor is a sequence and nothing else."""
    assert 400 == served.get(f"/v1/events?after={cursor}")[0]


def test_an_events_sequence_is_a_cursor(served: Served) -> None:
    """A receiver of webhooks can ask for what came after the last event it has."""
    made = served.publish(emptied("cmp-1"), emptied("cmp-2"))

    answer = served.get(f"/v1/events?after={made[0].as_dict()['sequence']}")[1]

    assert [made[1].as_dict()] == answer["events"]
