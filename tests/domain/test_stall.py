"""The stall detector: a table of situations, and what may be said of each."""

from __future__ import annotations

import pytest

from maintd.domain.detectors.stall import judge
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Kind, Migration, Phase, Policy, Progress
from maintd.domain.observations import MigrationSeen
from maintd.domain.reducer import reduce

POLICY = Policy()
SAMPLE = Progress(memory_total_bytes=100, memory_processed_bytes=10, memory_remaining_bytes=90)


def migration(phase: Phase, **over: object) -> Migration:
    values: dict[str, object] = {"source": "a", "destination": "b", "moved_at": 1000.0, **over}
    return Migration("k", "s", values.pop("kind", Kind.LIVE), phase, **values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reason", "what", "queue_moved_at", "now"),
    [
        (None, migration(Phase.RUNNING, progress=SAMPLE, sampled_at=1055.0), None, 1055.0),
        ("frozen", migration(Phase.RUNNING, progress=SAMPLE, sampled_at=1060.0), None, 1060.0),
        # Nobody has looked for a while: that is no evidence.
        (None, migration(Phase.RUNNING, progress=SAMPLE, sampled_at=1010.0), None, 5000.0),
        # No counters ever seen.
        (None, migration(Phase.RUNNING), None, 9000.0),
        (None, migration(Phase.ASKED), None, 1299.0),
        ("not_started", migration(Phase.ASKED), None, 1300.0),
        (None, migration(Phase.ASKED), 1200.0, 1300.0),
        ("queue_blocked", migration(Phase.QUEUED), None, 1300.0),
        (None, migration(Phase.QUEUED), 1299.0, 1300.0),
        ("slow_step", migration(Phase.PREPARING), None, 2800.0),
        ("slow_step", migration(Phase.RUNNING, kind=Kind.COLD), None, 2800.0),
        ("slow_step", migration(Phase.CONFIRMING, kind=Kind.RESIZE), None, 2800.0),
        (None, migration(Phase.AWAITING_CONFIRMATION, kind=Kind.RESIZE), None, 999_999.0),
        (None, migration(Phase.COMPLETED), None, 999_999.0),
    ],
)
def test_what_is_said_of_each_situation(
    reason: str | None, what: Migration, queue_moved_at: float | None, now: float
) -> None:
    """Each phase is stalled by its own rule, and only when its time has passed without any change."""
    judged = judge(what, queue_moved_at, POLICY, now)

    assert reason == judged.reason


def test_a_judgement_that_depends_on_time_says_when_to_look_again() -> None:
    """What may become a stall by mere waiting is looked at again at that moment."""
    assert 1300.0 == judge(migration(Phase.QUEUED), None, POLICY, 1100.0).look_at
    assert 1500.0 == judge(migration(Phase.QUEUED), 1200.0, POLICY, 1250.0).look_at


def test_a_queue_that_moves_again_is_resumed() -> None:
    """What was called blocked in a queue is resumed as soon as a migration of the same source moves or ends."""
    fleet = Fleet(POLICY)
    head = Migration("k1", "s1", Kind.LIVE, Phase.RUNNING, "a", "b", migration_uuid="u1", migration_id=1,
                     status="running", said_started=True, moved_at=1000.0)  # fmt: skip
    stuck = Migration("k2", "s2", Kind.LIVE, Phase.QUEUED, "a", "b", migration_uuid="u2", migration_id=2,
                      status="queued", said_started=True, moved_at=1000.0, stalled="queue_blocked")  # fmt: skip
    fleet.put(head)
    fleet.put(stuck)
    done = MigrationSeen(2000.0, Because("api"), "s1", 1, "u1", Kind.LIVE, "completed", "a", "b")
    said = reduce(fleet, done, lambda: "id").events

    assert {"migration.completed", "migration.resumed"} == {event.TYPE for event in said}
