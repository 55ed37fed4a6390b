"""The door: all or nothing, once each, and one bad message harms nobody else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import count
from typing import Any

import pytest

from maintd.clock import ManualClock
from maintd.domain.events import CloudEvent
from maintd.domain.fleet import Fleet
from maintd.domain.model import Knowledge, Policy
from maintd.errors import StoreUnavailable
from maintd.ingest import admit as door
from maintd.ingest.admit import Admission, Batch
from maintd.nova.notifications import Notification


class Shelf:
    """A keeper in memory, that can be away."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.ids: set[str] = set()
        self.away = False

    def seen(self, message_ids: Sequence[str]) -> set[str]:
        return self.ids & set(message_ids)

    def keep(self, batch: Batch) -> None:
        if self.away:
            raise StoreUnavailable("the disk is full")
        self.batches.append(batch)
        self.ids.update(batch.message_ids)


class Ear:
    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self.counted: Counter[str] = Counter()
        self.odd_ones: list[tuple[str, str]] = []

    def committed(self, events: Sequence[CloudEvent], counted: Counter[str], lag_s: float | None) -> None:
        self.events += events
        self.counted += counted

    def odd(self, what: str, detail: str, error: BaseException | None = None) -> None:
        self.odd_ones.append((what, detail))


def service(message_id: str, host: str = "a", *, disabled: bool = True, at: float = 10.0, **over: Any) -> Notification:
    data = {"host": host, "binary": "nova-compute", "disabled": disabled, "disabled_reason": "maintenance",
            "forced_down": False, "uuid": f"u-{host}", "last_seen_up": None, **over}  # fmt: skip
    payload = {"nova_object.name": "ServiceStatusPayload", "nova_object.version": "1.1", "nova_object.data": data}
    return Notification(message_id, "service.update", f"nova-compute:{host}", at, payload, "req-1", at)


def made() -> tuple[Admission, Fleet, Shelf, Ear]:
    fleet, shelf, ear, ids = Fleet(Policy()), Shelf(), Ear(), count(1)
    admission = Admission(
        fleet, clock=ManualClock(), ids=lambda: str(next(ids)), installation="t", keeper=shelf, listener=ear
    )
    return admission, fleet, shelf, ear


def test_a_batch_is_one_transaction() -> None:
    """State, events and message ids of a batch are kept together."""
    admission, fleet, shelf, ear = made()
    admission.admit_notifications([service("m1", "a"), service("m2", "b")])

    assert 1 == len(shelf.batches)
    assert ["m1", "m2"] == shelf.batches[0].message_ids
    assert {"a", "b"} == set(fleet.closed_hosts())
    assert ear.events == shelf.batches[0].events
    assert [1, 2, 3, 4] == [event.sequence for event in ear.events]


def test_a_message_that_was_handled_is_not_handled_again() -> None:
    """The same message id counts once, within a batch and across batches, and is acknowledged each time."""
    admission, _, shelf, ear = made()
    admission.admit_notifications([service("m1"), service("m1")])
    admission.admit_notifications([service("m1")])

    assert ["m1"] == [i for batch in shelf.batches for i in batch.message_ids]
    assert 2 == len(ear.events)


def test_what_cannot_be_kept_never_happened() -> None:
    """When the store is away the fleet is as before, nothing is said, and the same batch works later."""
    admission, fleet, shelf, ear = made()
    shelf.away = True
    with pytest.raises(StoreUnavailable):
        admission.admit_notifications([service("m1")])

    assert [] == list(fleet.closed_hosts())
    assert [] == ear.events
    shelf.away = False
    admission.admit_notifications([service("m1")])
    assert [1, 2] == [event.sequence for event in ear.events]


def test_a_timer_that_could_not_be_kept_is_due_again() -> None:
    """A timer whose outcome could not be kept fires again."""
    admission, _, shelf, ear = made()
    admission.admit_notifications([service("m1")])
    shelf.away = True
    with pytest.raises(StoreUnavailable):
        admission.tick(100_000.0)
    due = admission.read(lambda fleet: fleet.next_due())
    shelf.away = False

    assert due is not None and due <= 100_000.0
    admission.tick(due)


def test_an_unreadable_message_is_set_aside_alone() -> None:
    """A payload that is not what Nova documents goes to quarantine; its neighbours are handled."""
    admission, fleet, shelf, ear = made()
    admission.admit_notifications([service("m1", "a"), service("m2", "b", binary=None), service("m3", "c")])

    assert {"a", "c"} == set(fleet.closed_hosts())
    assert ["m2"] == [q.message_id for q in shelf.batches[0].quarantined]
    assert ["m1", "m2", "m3"] == shelf.batches[0].message_ids
    assert "unreadable" == ear.odd_ones[0][0]


def test_our_own_fault_costs_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """A message that makes our code fail is set aside with the reason, and leaves no trace in the fleet."""
    admission, fleet, shelf, ear = made()
    honest = door.reduce

    def failing(fleet: Fleet, observation: Any, ids: Any) -> Any:
        if observation.host == "b":
            raise ZeroDivisionError("a fault of ours")
        return honest(fleet, observation, ids)

    monkeypatch.setattr(door, "reduce", failing)
    admission.admit_notifications([service("m1", "a"), service("m2", "b"), service("m3", "c")])

    assert {"a", "c"} == set(fleet.closed_hosts())
    assert "our fault" in shelf.batches[0].quarantined[0].reason
    assert [1, 2, 3, 4] == [event.sequence for event in ear.events]


def test_types_are_counted_when_committed_and_unknown_ones_as_other() -> None:
    """Every notification is counted once its transaction has committed, whatever its type."""
    admission, _, _, ear = made()
    odd = Notification("m9", "something.new", "nova-api:x", 1.0, {"nova_object.data": {}}, None, 1.0)
    admission.admit_notifications([service("m1"), odd])

    assert {"service.update": 1, "other": 1} == dict(ear.counted)


def test_the_old_format_is_told() -> None:
    """Nova's unversioned stream is recognised, so that the operator hears that Nova is set wrong."""
    admission, _, _, ear = made()
    old = Notification("m9", "compute.instance.update", "compute.a", 1.0, {"instance_id": "x"}, None, 1.0)
    admission.admit_notifications([old])

    assert [("unversioned", "compute.instance.update")] == ear.odd_ones


def test_since_when_we_remember_is_kept_at_once() -> None:
    """A value that nobody has seen is kept like any other, or not held at all."""
    admission, fleet, shelf, _ = made()
    shelf.away = True
    with pytest.raises(StoreUnavailable):
        admission.remember(Knowledge(memory_since=1.0))
    assert fleet.knowledge is None
    shelf.away = False
    admission.remember(Knowledge(memory_since=1.0))

    assert Knowledge(memory_since=1.0) == fleet.knowledge
    assert [Knowledge(memory_since=1.0)] == list(shelf.batches[0].saved.values())
