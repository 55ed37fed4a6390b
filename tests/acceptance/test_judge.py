"""The judge is tried before it judges: a story told well has no fault, and each way of telling it badly has one.

Run by `make acceptance` before any story; not part of `make test`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from maintd.domain.events import instant_text
from tests.acceptance import judge
from tests.acceptance.judge import Facts, told
from tests.acceptance.receiver import Heard
from tests.acceptance.stories.common import A_DRAIN, LAST
from tests.acceptance.watcher import Sample, Watcher

HOST, OTHER, SETTLE_S = "rack1-a", "rack1-b", 15.0
T0 = 1_800_000_000.0
FREED_AT = T0 + 20.0
READS = (
    ("os-migrations", 1),
    ("os-hypervisors", 0),
    ("servers", 0),
    ("resource_providers", 1),
    ("allocations", 0),
    ("traits", 9),
    ("os-migrations", 1),
    ("os-services", 1),
)


def _event(number: int, name: str, at: float, data: dict[str, Any], origin: str = "notification") -> Heard:
    because = {"origin": origin, "event_type": None, "message_id": None, "request_id": None}
    event = {
        "specversion": "1.0",
        "id": f"event-{number}",
        "source": "/maintd/acceptance",
        "type": f"maintd.{name}.v1",
        "subject": HOST,
        "time": instant_text(at),
        "datacontenttype": "application/json",
        "sequence": f"{number:020d}",
        "data": {"because": because, **data},
    }
    return Heard(at + 0.02, f"event-{number}", "application/cloudevents+json", event)


def _story() -> Facts:
    """One server drained live, as it must be told."""
    row = {
        "uuid": "migration-1",
        "id": 7,
        "instance_uuid": "server-1",
        "migration_type": "live-migration",
        "source_compute": HOST,
        "dest_compute": OTHER,
        "status": "completed",
    }
    move = {"migration_key": "key-1", "server_id": "server-1", "kind": "live-migration"}
    move |= {"source": HOST, "destination": OTHER}
    unnamed, named = (
        {"migration_id": None, "migration_uuid": None},
        {"migration_id": 7, "migration_uuid": "migration-1"},
    )
    drain = {"drain_id": "drain-1", "host": HOST}
    proof = [
        {"read": read, "pass": number, "at": instant_text(begun + 0.05 * n), "count": count}
        for number, begun in ((4, FREED_AT + 0.3), (5, FREED_AT + 15.3))
        for n, (read, count) in enumerate(READS)
    ]
    started = {"reason": "maintenance", "forced_down": False, "found": False, "servers_total": 1}
    emptied = {"scope": "nova", "proof": proof, "memory_since": instant_text(T0), "warnings": [], "residue": []}
    over = {"duration_seconds": 40.0, "removed": False}
    heard = [
        _event(1, "service.disabled", T0, {"host": HOST, "reason": "maintenance"}),
        _event(2, "drain.started", T0, drain | started),
        _event(3, "migration.started", T0 + 5, move | unnamed),
        _event(
            4, "migration.completed", T0 + 19, move | named | {"status": "completed", "duration_seconds": 14.0}, "api"
        ),
        _event(5, "host.emptied", FREED_AT + 15.8, drain | emptied, "api"),
        _event(6, "service.enabled", T0 + 40, {"host": HOST, "reason": None}),
        _event(7, "host.reopened", T0 + 40, drain | {"occupants": []}),
        _event(8, "drain.ended", T0 + 40, drain | over),
    ]
    watcher = Watcher(lambda: pytest.fail("no cloud here"), HOST, [])
    for tenth in range(400):
        at = T0 + tenth / 10
        held = frozenset({"server-1"}) if at < FREED_AT else frozenset()
        watcher.samples += [Sample(what, at, at + 0.05, held) for what in ("placement", "nova")]
    return Facts(
        HOST,
        SETTLE_S,
        "maintenance",
        {"server-1": "web-1"},
        watcher,
        host_events=A_DRAIN,
        rows=[row],
        where={"server-1": OTHER},
        heard=heard,
        opened_at=T0 + 40,
        loose=LAST,
    )


def _all(facts: Facts) -> list[str]:
    return told(facts) + judge.envelopes(facts.heard, "acceptance")


def test_a_story_told_well_has_no_fault_and_a_delay() -> None:
    """What must come, in order, in time and by the right names, is not found fault with, and its delay is measured."""
    facts = _story()
    assert _all(facts) == []
    delay = judge.delay(facts)
    assert delay is not None
    assert delay.total_s == pytest.approx(15.92, abs=0.02)  # from the last look that found something
    assert delay.sure_s == pytest.approx(0.15, abs=0.01)


def _drop(name: str) -> Callable[[Facts], None]:
    def do(facts: Facts) -> None:
        facts.heard = [h for h in facts.heard if h.type != name]

    return do


def _twice(name: str) -> Callable[[Facts], None]:
    def do(facts: Facts) -> None:
        again = copy.deepcopy(next(h for h in facts.heard if h.type == name))
        again.event["id"] = "event-99"
        again.event["sequence"] = f"{99:020d}"
        facts.heard = [*facts.heard, Heard(again.received_at, "event-99", again.content_type, again.event)]

    return do


def _say(name: str, member: str, value: Any) -> Callable[[Facts], None]:
    def do(facts: Facts) -> None:
        next(h for h in facts.heard if h.type == name).event["data"][member] = value

    return do


def _held_at(at: float, what: str) -> Callable[[Facts], None]:
    def do(facts: Facts) -> None:
        facts.watcher.samples.append(Sample(what, at, at + 0.05, frozenset({"late"})))

    return do


def _as_row(**members: Any) -> Callable[[Facts], None]:
    def do(facts: Facts) -> None:
        facts.rows[0].update(members)

    return do


def _another_row(facts: Facts) -> None:
    facts.rows.append(facts.rows[0] | {"uuid": "migration-2", "id": 8})


def _order(facts: Facts) -> None:
    heard = list(facts.heard)
    heard[3], heard[4] = heard[4], heard[3]
    facts.heard = heard


def _one_pass(facts: Facts) -> None:
    data = facts.emptied.data if facts.emptied else {}
    data["proof"] = [read for read in data["proof"] if read["pass"] == 5]


def _found_something(facts: Facts) -> None:
    data = facts.emptied.data if facts.emptied else {}
    data["proof"][1]["count"] = 1


def _hidden_till(after_freed_s: float) -> Callable[[Facts], None]:
    def do(facts: Facts) -> None:
        facts.held_until = FREED_AT + after_freed_s

    return do


def _warns_of_nothing(facts: Facts) -> None:
    facts.warnings = frozenset({("failed_migration", "server-1")})


def _no_race(facts: Facts) -> None:
    facts.counted = (2, 3)


def _ends_after_the_proof(facts: Facts) -> None:
    """The end of the move and host.emptied change places."""
    heard = list(facts.heard)
    for one, number in ((heard[3], 5), (heard[4], 4)):
        one.event["sequence"] = f"{number:020d}"
    facts.heard = heard


def _blind(facts: Facts) -> None:
    facts.watcher.samples = [s for s in facts.watcher.samples if s.asked_at < FREED_AT + 1]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        *[(_drop(name), name) for name in A_DRAIN],
        *[(_twice(name), name) for name in A_DRAIN],
        (_drop("migration.started"), "was told of a live-migration"),
        (_drop("migration.completed"), "named never"),
        (_twice("migration.completed"), "was told of a live-migration"),
        (_say("migration.started", "source", OTHER), "source is"),
        (_say("migration.completed", "destination", "rack1-c"), "destination is"),
        (_say("migration.completed", "migration_id", 8), "migration_id is"),
        (_say("migration.completed", "status", None), "status None"),
        (_say("drain.started", "found", True), "found"),
        (_say("drain.started", "servers_total", 2), "2 servers"),
        (_say("drain.ended", "drain_id", "drain-2"), "drain ids"),
        (_say("service.disabled", "reason", "other"), "reason"),
        (_say("host.emptied", "warnings", [{"kind": "x", "server_id": None, "detail": None}]), "warnings"),
        (_as_row(status="failed"), "is failed"),
        (_another_row, "nothing was told of migration migration-2"),
        (_order, "not in order"),
        (_one_pass, "1 passes"),
        (_found_something, "found 1 of os-hypervisors"),
        (_held_at(FREED_AT + 1.0, "placement"), "EARLY"),
        (_held_at(FREED_AT + 1.0, "nova"), "EARLY"),
        (_held_at(FREED_AT + 17.0, "placement"), "after host.emptied"),
        (_blind, "nothing is proven"),
        (_hidden_till(1.0), "EARLY"),
        (_warns_of_nothing, "warnings []"),
        (_say("host.emptied", "residue", [{"kind": "evacuated", "server_id": "server-1", "detail": None}]), "residue"),
        (_no_race, "1 servers"),
        (_ends_after_the_proof, "was published after host.emptied"),
    ],
)
def test_each_bad_telling_is_found(spoil: Callable[[Facts], None], word: str) -> None:
    """One thing told wrongly, twice, too early or not at all is a fault, and the fault names it."""
    facts = _story()
    spoil(facts)
    faults = _all(facts)
    assert any(word in fault for fault in faults), faults


def _refilled() -> Facts:
    """The same server is sent back 17 s after it had left, is there for a second, and leaves again."""
    facts = _story()
    back_at, again_s = FREED_AT + 17.0, 20.0
    facts.refilled_at = [back_at]
    facts.watcher.samples = []
    for tenth in range(800):
        at = T0 + tenth / 10
        there = at < FREED_AT or back_at + 1.0 <= at < FREED_AT + again_s
        held = frozenset({"server-1"}) if there else frozenset()
        facts.watcher.samples += [Sample(what, at, at + 0.05, held) for what in ("placement", "nova")]
    again = copy.deepcopy(facts.emptieds[0].event)
    for read in again["data"]["proof"]:
        read["at"] = instant_text(judge.instant(read["at"]) + again_s)
    occupied = {"drain_id": "drain-1", "host": HOST, "occupants": []}
    heard = list(facts.heard)
    heard[5:5] = [
        _event(5, "host.occupied", back_at + 1.1, occupied),
        _event(5, "host.emptied", FREED_AT + 15.8 + again_s, again["data"], "api"),
    ]
    for number, one in enumerate(heard, 1):
        one.event["id"] = f"event-{number}"
        one.event["sequence"] = f"{number:020d}"
        if number > 7:
            one.event["time"] = instant_text(T0 + 70)
    facts.heard = [Heard(judge.instant(h.event["time"]) + 0.02, h.event["id"], h.content_type, h.event) for h in heard]
    facts.opened_at = T0 + 70
    facts.host_events = (*A_DRAIN[:3], "host.occupied", "host.emptied", *A_DRAIN[3:])
    return facts


def test_a_refill_is_judged_twice() -> None:
    """What comes back is allowed from when it was sent for, and the second proof is held against it like the first."""
    assert _all(_refilled()) == []
    facts = _refilled()
    facts.refilled_at = [FREED_AT + 18.5]
    assert any("after host.emptied" in fault for fault in _all(facts))
    facts = _refilled()
    facts.watcher.samples.append(Sample("nova", FREED_AT + 30.0, FREED_AT + 30.05, frozenset({"late"})))
    assert any("EARLY" in fault for fault in _all(facts))


def test_what_leaked_and_what_no_api_shows_is_allowed_for_by_name() -> None:
    """A leak that is named holds nothing, any other holder does; the delay counts from when the hidden was gone."""
    facts = _story()
    late = Sample("placement", FREED_AT + 5.0, FREED_AT + 5.05, frozenset({"migration-1"}))
    facts.watcher.samples.append(late)
    assert any("EARLY" in fault for fault in _all(facts))
    facts.leaked = frozenset({"migration-1"})
    assert _all(facts) == []
    facts.held_until = FREED_AT + 0.5
    delay = judge.delay(facts)
    assert delay is not None
    assert delay.total_s == pytest.approx(15.32, abs=0.02)


def test_what_was_delivered_is_held_against_the_log() -> None:
    """An event that never came, one that is not logged, and one that came otherwise are faults."""
    heard = list(_story().heard)
    log = [copy.deepcopy(h.event) for h in heard]
    assert judge.same_as_log(heard, log) == []
    assert "never came" in judge.same_as_log(heard[1:], log)[0]
    assert "not in the event log" in judge.same_as_log(heard, log[1:])[0]
    log[0]["time"] = instant_text(T0 + 1)
    assert "otherwise" in judge.same_as_log(heard, log)[0]
