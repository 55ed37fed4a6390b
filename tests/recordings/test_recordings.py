"""Recordings in, events out: the whole core and the normalisers, against streams of a real Nova."""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from maintd.domain.events import CloudEvent
from maintd.domain.model import Policy
from maintd.ingest.recording import Recording
from maintd.ingest.replay import replay
from maintd.nova.notifications import Notification

HERE = Path(__file__).parent
STORIES = sorted(path.stem for path in HERE.glob("*.jsonl"))


def lines_of(story: str) -> list[tuple[float, object]]:
    return list(Recording([HERE / f"{story}.jsonl"]))


def played(lines: list[tuple[float, object]]) -> list[CloudEvent]:
    return list(replay(lines, Policy(), "main"))


def told(event: CloudEvent) -> str:
    """An event on one line, for people to review."""
    shown = {k: v for k, v in event.data.items() if k != "because" and v not in (None, [], ())}
    because = event.data["because"]["event_type"]
    return f"{event.type[7:-3]} {event.subject} {json.dumps(shown)} <- {because}"


@pytest.mark.parametrize("story", STORIES)
def test_events_are_as_reviewed(story: str, pytestconfig: pytest.Config) -> None:
    """A recording leads to exactly the events that were reviewed."""
    text = "".join(told(event) + "\n" for event in played(lines_of(story)))
    path = HERE / f"{story}.events"
    if pytestconfig.getoption("--rewrite"):
        path.write_text(text)

    assert path.read_text() == text


@pytest.mark.parametrize("story", STORIES)
def test_same_bytes_twice_and_a_prefix(story: str) -> None:
    """The same recording gives the same bytes, and its first half a prefix of them."""
    lines = lines_of(story)
    whole = [event.as_json() for event in played(lines)]

    assert whole == [event.as_json() for event in played(lines)]
    half = [event.as_json() for event in played(lines[: len(lines) // 2])]
    assert half == whole[: len(half)]


def gist(events: list[CloudEvent]) -> Counter[tuple[object, ...]]:
    keys = ("host", "server_id", "source", "destination", "status")
    return Counter((event.type, *(event.data.get(key) for key in keys)) for event in events)


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("seed", range(8))
def test_repeated_notifications_change_nothing(story: str, seed: int) -> None:
    """Notifications that come again, at once or up to 30 s later and under another message id, add and change no
    event.
    """
    rng = random.Random(seed)
    lines = lines_of(story)
    again: list[tuple[float, object]] = []
    for at, item in lines:
        if isinstance(item, Notification) and rng.random() < 0.3:
            later = at + rng.choice([0.0, rng.uniform(0, 1), rng.uniform(0, 30)])
            if later <= lines[-1][0]:
                copy = replace(item, message_id=f"again-{item.message_id}", received_at=later)
                again.append((later, copy))
    both = sorted([*lines, *again], key=lambda line: line[0])

    assert gist(played(lines)) == gist(played(both))


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize("seed", range(8))
def test_a_little_lateness_changes_nothing(story: str, seed: int) -> None:
    """Notifications of different servers overtaking one another by up to half a second change no event."""
    rng = random.Random(seed)
    delay: dict[str, float] = {}
    moved: list[tuple[float, object]] = []
    for at, item in lines_of(story):
        server = ""
        if isinstance(item, Notification):
            data = item.payload["nova_object.data"]
            server = data.get("uuid") or data.get("instance_uuid") or item.publisher_id
            late = at + delay.setdefault(server, rng.uniform(0, 0.5))
            item = replace(item, received_at=late)
            moved.append((late, item))
        else:
            moved.append((at, item))
    moved.sort(key=lambda line: line[0])

    without = ("maintd.drain.started.v1",)  # which of two servers begins a drain may differ, not that it begins
    one, other = gist(played(lines_of(story))), gist(played(moved))
    assert {k: n for k, n in one.items() if k[0] not in without} == {
        k: n for k, n in other.items() if k[0] not in without
    }


def test_the_stories_are_there() -> None:
    """All ten stories are held: an empty folder would prove nothing."""
    assert len(STORIES) == 10
