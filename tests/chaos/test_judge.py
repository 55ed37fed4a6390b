"""The judge of the chaos notices each fault."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from tests.chaos import judge
from tests.chaos.receivers import Arrival
from tests.daemon.world import Event

SERVER, OTHER = "server-1", "server-2"
MAINTENANCE = {"since": "2027-01-15T08:00:00Z", "removal": False}
MOVE = {"kind": "resize", "since": "2027-01-15T08:00:00Z", "asked_for_by": "owner", "stalled": None}


def event(number: int, kind: str, change: str, server: str = SERVER, **state: Any) -> Event:
    held = {"maintenance": None, "move": None, "host_lost": None, **state}
    return {
        "id": f"event-{number}", "type": f"maintd.server.{kind}.v1", "subject": server, "time": "2027-01-15T08:00:00Z",
        "sequence": f"{number:020}",
        "data": {"change": change, "incarnation": number, "state": {**held, "incarnation": number}},
    }  # fmt: skip


LOG = [
    event(1, "maintenance_started", "started", maintenance=MAINTENANCE),
    event(2, "moving", "started", maintenance=MAINTENANCE, move=MOVE),
    event(3, "moving", "started", OTHER, move=MOVE),
    event(4, "maintenance_ended", "left", move=MOVE),
    event(5, "moved", "completed"),
]
LISTED = {OTHER: LOG[2]["data"]["state"]}


def arrivals(*numbers: int, answer: int = 204) -> list[Arrival]:
    return [Arrival(float(place), answer, deepcopy(LOG[number - 1])) for place, number in enumerate(numbers)]


def test_a_good_story_has_no_fault() -> None:
    """What came again, or of several servers in another order, is none."""
    assert [] == judge.arrived("a", LOG, arrivals(1, 3, 2, 2, 1, 4, 5, 5))
    assert [] == judge.arrived("a", LOG, arrivals(1, answer=0) + arrivals(1, 2, 3, 4, 5))
    assert [] == judge.numbered("a", LOG)
    assert [] == judge.told_once("a", LOG)
    assert [] == judge.state_is_right("a", LISTED, LOG, {OTHER: (False, "resize", False)})


def test_what_has_not_come_is_missing() -> None:
    """Also what came and was refused, each time."""
    assert ["missing"] == _words(judge.arrived("a", LOG, arrivals(1, 2, 3, 4)))
    assert ["missing"] == _words(judge.arrived("a", LOG, arrivals(1, 2, 3, 4) + arrivals(5, answer=500)))


def test_what_came_otherwise_is_a_fault() -> None:
    """Under an id that is in no log, with another body, or out of its server's order."""
    stranger = Arrival(9.0, 204, event(6, "moved", "completed"))
    changed = deepcopy(stranger)
    changed.event["id"] = "event-5"
    assert ["came and is in no log"] == _words(judge.arrived("a", LOG, [*arrivals(1, 2, 3, 4, 5), stranger]))
    assert ["came with another body than in the log"] == _words(
        judge.arrived("a", LOG, [*arrivals(1, 2, 3, 4, 5), changed])
    )
    assert ["out of order"] == _words(judge.arrived("a", LOG, arrivals(1, 4, 2, 3, 5)))


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_number_that_is_missing_is_a_gap(lost: int) -> None:
    """Wherever in the log it was."""
    assert ["numbers are missing or double"] == _words(judge.numbered("a", LOG[:lost] + LOG[lost + 1 :]))


@pytest.mark.parametrize(
    "second",
    [
        event(6, "moved", "completed"),
        event(6, "moving", "started", OTHER, move=MOVE),
        event(6, "maintenance_ended", "over"),
        event(6, "host_recovered", "recovered"),
        event(6, "moving", "resumed", move=MOVE),
    ],
)
def test_what_is_told_under_a_second_id_is_a_fault(second: Event) -> None:
    """What begins twice without an end, and what ends without having begun."""
    assert ["told twice, or ended without having begun"] == _words(judge.told_once("a", [*LOG, second]))[:1]


def test_more_beginnings_than_there_were_are_a_fault() -> None:
    """A move that was told twice, from beginning to end, is counted against what Nova did."""
    again = [*LOG, event(6, "moving", "started", move=MOVE), event(7, "moved", "completed")]
    assert [] == judge.no_more_than_was("a", LOG, {"server.moving": {SERVER: 1, OTHER: 1}})
    assert 1 == len(judge.no_more_than_was("a", again, {"server.moving": {SERVER: 1, OTHER: 1}}))


def test_a_state_that_is_not_the_clouds_is_a_fault() -> None:
    """Nor may the newest events say otherwise than the list."""
    assert ["listed is"] == [why[:9] for why in _words(judge.state_is_right("a", LISTED, LOG, {}))]
    assert ["listed is"] == [why[:9] for why in _words(judge.state_is_right("a", {}, LOG, {}))]


@pytest.mark.parametrize(
    ("calls", "fault"),
    [
        ([("begin", 1, OTHER), ("begin", 2, SERVER), ("end", 2, SERVER)], "was begun while 1 was under way"),
        ([("begin", 1, OTHER), ("end", 1, OTHER), ("begin", 1, SERVER), ("end", 1, SERVER)], "for server-1 after 1"),
        ([("begin", 1, OTHER)], "was never done"),
        ([("begin", 1, OTHER), ("end", 1, OTHER)], "server-2 is active, and should not be"),
    ],
)
def test_a_role_that_is_wrong_is_a_fault(calls: judge.Calls, fault: str) -> None:
    """Two at once, one decision for two servers, one that was not done, a role left where it must not be."""
    listed = {OTHER: event(1, "maintenance_started", "started", OTHER, maintenance=MAINTENANCE)["data"]["state"]}
    assert any(fault in why for why in judge.role_is_right((SERVER, OTHER), calls, listed))


def test_a_role_that_moved_for_a_reason_is_right() -> None:
    """To the other one and back, each decision done, one of them twice after a kill."""
    calls = [("begin", 1, OTHER), ("end", 1, OTHER), ("begin", 1, OTHER), ("end", 1, OTHER), ("begin", 2, SERVER)]
    assert [] == judge.role_is_right((SERVER, OTHER), [*calls, ("end", 2, SERVER)], LISTED)


def test_one_migration_told_twice_to_operators_is_a_fault() -> None:
    """And one of Nova's under two keys."""

    def one(kind: str, key: str) -> Event:
        return {"type": f"maintd.{kind}.v1", "data": {"migration_key": key, "migration_uuid": "u-1"}}

    assert [] == judge.operators_told_once([one("migration.started", "k"), one("migration.completed", "k")])
    assert 1 == len(judge.operators_told_once([one("migration.started", "k"), one("migration.started", "k")]))
    assert 1 == len(judge.operators_told_once([one("migration.started", "k"), one("migration.started", "l")]))


def _words(wrong: list[str]) -> list[str]:
    """What kind of faults these are."""
    return [why.removeprefix("a: ").split(":")[0] for why in wrong]
