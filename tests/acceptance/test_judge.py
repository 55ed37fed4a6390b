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
    ],
)
def test_each_bad_telling_is_found(spoil: Callable[[Facts], None], word: str) -> None:
    """One thing told wrongly, twice, too early or not at all is a fault, and the fault names it."""
    facts = _story()
    spoil(facts)
    faults = _all(facts)
    assert any(word in fault for fault in faults), faults


def test_what_was_delivered_is_held_against_the_log() -> None:
    """An event that never came, one that is not logged, and one that came otherwise are faults."""
    heard = list(_story().heard)
    log = [copy.deepcopy(h.event) for h in heard]
    assert judge.same_as_log(heard, log) == []
    assert "never came" in judge.same_as_log(heard[1:], log)[0]
    assert "not in the event log" in judge.same_as_log(heard, log[1:])[0]
    log[0]["time"] = instant_text(T0 + 1)
    assert "otherwise" in judge.same_as_log(heard, log)[0]
