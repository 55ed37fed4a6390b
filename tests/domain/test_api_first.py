"""The API may tell of a move before the bus does, from its beginning to its end: each thing is still said once."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maintd.domain.events import Event
from maintd.domain.model import Because, Kind
from maintd.domain.observations import MigrationSeen, ServerSeen, Step
from tests.domain.test_proof import API, H, Story

S, D = H, "cmp-02"
BEGAN, ENDED = 1100.2, 1103.9
"""When the move began and ended in Nova, in seconds; its row is dated in whole ones."""


def row(story: Story, status: str, updated_at: float) -> MigrationSeen:
    return MigrationSeen(
        story.now, API, "s1", 7, "uuid-7", Kind.LIVE, status, S, D, created_at=float(int(BEGAN)), updated_at=updated_at
    )


def told(at: float, **over: object) -> ServerSeen:
    """What the bus says of the server, emitted then."""
    because = Because("notification", "instance.update", f"m-{at}", "req-1")
    return replace(ServerSeen(0.0, because, "s1", vm_state="active", emitted_at=at), **over)  # type: ignore[arg-type]


LATE = [
    told(BEGAN, host=S, task_state="migrating", trusted=True, updated_at=float(int(BEGAN))),
    told(BEGAN + 0.4, host=S, step=Step.LIVE_PRE_START, kind=Kind.LIVE, source=S, destination=D, reporter=D),
    told(BEGAN + 0.6, host=S, step=Step.LIVE_PRE_END, kind=Kind.LIVE, source=S, destination=D, reporter=D),
    told(ENDED - 0.5, host=S, task_state="migrating", percent=90, trusted=True, updated_at=float(int(ENDED))),
    told(ENDED - 0.4, host=S, step=Step.LIVE_POST_START, kind=Kind.LIVE, source=S, reporter=S),
    told(ENDED - 0.3, host=D, trusted=True, updated_at=float(int(ENDED))),
    told(ENDED - 0.2, host=D, step=Step.LIVE_POST_DEST_END, kind=Kind.LIVE, destination=D, reporter=D, trusted=True),
    told(ENDED - 0.1, host=S, step=Step.LIVE_POST_END, kind=Kind.LIVE, source=S, reporter=S, task_state="migrating"),
]


@pytest.mark.parametrize("first", range(len(LATE) + 1))
def test_a_move_is_told_once_however_far_the_bus_is_behind(first: int) -> None:
    """Whatever had been heard when the API told the end, what is heard after it begins and ends nothing again."""
    story = Story().closed()
    story.see(ServerSeen(story.now, API, "s1", host=S, vm_state="active", trusted=True, asked_at=story.now))
    story.now = 1104.5
    said: list[Event] = []
    for seen in LATE[:first]:
        said += story.see(replace(seen, seen_at=story.now))
    said += story.see(row(story, "running", float(int(BEGAN))))
    said += story.see(row(story, "completed", float(int(ENDED))))
    for seen in LATE[first:]:
        story.now += 0.1
        said += story.see(replace(seen, seen_at=story.now))
    said += story.see(row(story, "completed", float(int(ENDED))))

    moves = [event.TYPE for event in said if event.TYPE.startswith("migration.")]
    assert ["migration.started", "migration.completed"] == moves
    assert [] == list(story.fleet.open_migrations())
