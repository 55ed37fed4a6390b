"""Recordings in, events out: the whole core and the normalisers, against streams of a real Nova."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from maintd.domain.events import CloudEvent
from maintd.domain.fleet import Fleet
from maintd.domain.model import Policy
from maintd.ingest.recording import Recording
from maintd.ingest.replay import replay
from maintd.nova.notifications import Notification
from tests.recordings.cases import CASES, REAL, with_table
from tests.recordings.stories import STORIES

HERE = Path(__file__).parent
FOUND = sorted(path.stem for path in HERE.glob("*.jsonl"))
SEEDS = [(story, seed) for story in FOUND for seed in range(8 if story in REAL else 4)]
Line = tuple[float, object]


@cache
def lines_of(story: str) -> tuple[Line, ...]:
    return tuple(Recording([HERE / f"{story}.jsonl"]))


def played(lines: Iterable[Line], policy: Policy | None = None) -> list[CloudEvent]:
    return list(replay(lines, policy or Policy(), "main"))


def told(event: CloudEvent) -> str:
    """An event on one line, for people to review."""
    shown = {k: v for k, v in event.data.items() if k != "because" and v not in (None, [], ())}
    if "proof" in shown:
        shown["proof"] = f"{len(shown['proof'])} reads in passes {sorted({read['pass'] for read in shown['proof']})}"
    because = event.data["because"]
    return f"{event.type[7:-3]} {event.subject} {json.dumps(shown)} <- {because['event_type'] or because['origin']}"


def transcript(lines: Iterable[Line]) -> str:
    """The events of a recording, and in between what verification passes found in the way, whenever that changes."""
    fleet, out = Fleet(Policy()), []
    found: dict[str, list[str]] = {}

    def watched() -> Iterator[Line]:
        for line in (*lines, None):
            for host in sorted(fleet.closed_hosts()):  # what the line before has led to is in the fleet by now
                held = fleet.host(host)
                if held is not None and held.finding is not None:
                    kinds = [f"{b.kind} {b.server_id or ''}".strip() for b in held.finding.blockers]
                    if found.get(host) != kinds:
                        out.append(f"    -- {host}: {', '.join(kinds) or 'nothing in the way'}")
                        found[host] = kinds
            if line is not None:
                yield line

    for event in replay(watched(), Policy(), "main", keep=fleet):
        out.append(told(event))
    return "".join(f"{line}\n" for line in out)


@pytest.mark.parametrize("story", FOUND)
def test_events_are_as_reviewed(story: str, pytestconfig: pytest.Config) -> None:
    """A recording leads to exactly the events, and its passes to the findings, that were reviewed."""
    text = transcript(lines_of(story))
    path = HERE / f"{story}.events"
    if pytestconfig.getoption("--rewrite"):
        path.write_text(text)

    assert path.read_text() == text


@pytest.mark.parametrize("story", FOUND)
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


@cache
def gist_of(story: str) -> Counter[tuple[object, ...]]:
    return gist(played(lines_of(story)))


@pytest.mark.parametrize(("story", "seed"), SEEDS)
def test_repeated_notifications_change_nothing(story: str, seed: int) -> None:
    """Notifications that come again, at once or up to 30 s later and under another message id, add and change no
    event.
    """
    rng = random.Random(seed)
    lines = lines_of(story)
    again: list[Line] = []
    for at, item in lines:
        if isinstance(item, Notification) and rng.random() < 0.3:
            later = at + rng.choice([0.0, rng.uniform(0, 1), rng.uniform(0, 30)])
            if later <= lines[-1][0]:
                copy = replace(item, message_id=f"again-{item.message_id}", received_at=later)
                again.append((later, copy))
    both = sorted([*lines, *again], key=lambda line: line[0])

    assert gist_of(story) == gist(played(both))


@pytest.mark.parametrize(("story", "seed"), SEEDS)
def test_a_little_lateness_changes_nothing(story: str, seed: int) -> None:
    """Notifications of different servers overtaking one another by up to half a second change no event."""
    rng = random.Random(seed)
    delay: dict[str, float] = {}
    moved: list[Line] = []
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

    def but(events: Counter[tuple[object, ...]]) -> Counter[tuple[object, ...]]:
        """Which of two servers begins a drain may differ, not that it begins; and Nova's word for an end is there only
        where its API spoke before its bus.
        """
        left: Counter[tuple[object, ...]] = Counter()
        for key, times in events.items():
            left[key[:-1] if key[0] != "maintd.drain.started.v1" else key[:1]] += times
        return left

    assert but(gist_of(story)) == but(gist(played(moved)))


def emptied(events: list[CloudEvent]) -> list[float]:
    return [event.time for event in events if event.type == "maintd.host.emptied.v1"]


@pytest.mark.parametrize("story", STORIES)
@pytest.mark.parametrize(("lost", "seed"), [(1.0, 0), (0.5, 4), (0.3, 1), (0.1, 2)])
def test_what_is_lost_empties_nothing(story: str, lost: float, seed: int) -> None:
    """Notifications that never came make no host empty that was not, and none sooner than it was."""
    rng = random.Random(seed)
    came = [line for line in lines_of(story) if not (isinstance(line[1], Notification) and rng.random() < lost)]
    one, other = emptied(played(lines_of(story))), emptied(played(came))

    assert len(other) <= len(one)
    assert not other or one[0] <= other[0]


@pytest.mark.parametrize("story", STORIES)
def test_the_daemon_says_the_same_of_hosts(story: str) -> None:
    """Whether it waits for the API's word on migrations, as the daemon does, or not: the same hosts are emptied."""
    events = played(lines_of(story), Policy(has_cloud=True))
    of_hosts = {key: n for key, n in gist_of(story).items() if str(key[0]).startswith("maintd.host.")}

    assert of_hosts == {key: n for key, n in gist(events).items() if str(key[0]).startswith("maintd.host.")}


def test_a_story_is_made_of_the_same_bytes() -> None:
    """Played in two processes, whose sets are in another order, a story makes the same recording."""
    play = (
        "from tests.recordings.stories import STORIES; print(STORIES['evac-restarted'].play('evac-restarted').text())"
    )
    made = [
        subprocess.run(
            [sys.executable, "-c", play], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    ]

    assert made[0] and made[0] == made[1]


@pytest.mark.parametrize(("case", "stories"), CASES)
def test_every_way_has_its_recording(case: str, stories: tuple[str, ...]) -> None:
    """Each way in which a server leaves, comes back or seems to have left happens in a recording."""
    assert stories
    assert set(stories) <= set(FOUND)


def test_every_recording_is_known() -> None:
    """All recordings are real or made, none is missing or forgotten, and the README's table is as drawn."""
    assert sorted([*REAL, *STORIES]) == FOUND
    text = (HERE / "README.md").read_text()

    assert with_table(text) == text
