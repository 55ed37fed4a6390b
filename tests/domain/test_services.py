"""Heartbeats: what is told of them, and when; neither a restart nor a flap nor an operator's own doing is a loss."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from maintd.domain.events import Event, ServiceLost, ServiceRecovered, ServicesLost
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Knowledge, Policy
from maintd.domain.observations import Observation, ServiceSeen, TimerDue
from maintd.domain.reducer import reduce

API = Because("api")
HOLD_S = 12.0
HEARTBEATS = ("service.lost", "services.lost", "service.recovered")


@dataclass
class Watch:
    """A fleet whose compute services are looked at through the API, on a clock of the test's."""

    policy: Policy = field(default_factory=lambda: Policy(has_cloud=True, lost_after_s=HOLD_S, many_lost=3))
    now: float = 1000.0
    said: list[tuple[float, Event]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.policy)
        self.fleet.put(Knowledge(memory_since=0.0))
        self.ids = count(1)

    def see(self, observation: Observation) -> None:
        outcome = reduce(self.fleet, observation, lambda: str(next(self.ids)))
        self.fleet.apply(outcome)
        self.said += [(observation.seen_at, event) for event in outcome.events if event.TYPE in HEARTBEATS]

    def look(self, host: str = "cmp-1", up: bool = True, **over: object) -> None:
        seen = ServiceSeen(self.now, API, host, f"svc-{host}", up=up, asked_at=self.now)
        seen = replace(seen, down_since=None if up else self.now)
        self.see(replace(seen, **over))  # type: ignore[arg-type]

    def wait(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := self.fleet.take_due(until)) is not None:
            self.see(TimerDue(due[0], subject=due[1]))
        self.now = until

    def told(self) -> list[str]:
        return [event.TYPE for _, event in self.said]


def test_a_loss_that_lasts_is_told_once_and_so_is_the_return() -> None:
    """A heartbeat that stays away is lost after the hold time, and recovered when it has been back for as long."""
    watch = Watch()
    watch.look()
    watch.wait(30)
    watch.look(up=False)
    watch.wait(HOLD_S - 0.1)
    assert [] == watch.told()
    watch.look(up=False)
    watch.wait(0.2)
    assert [(1042.0, "service.lost")] == [(at, event.TYPE) for at, event in watch.said]
    watch.wait(700)
    watch.look(up=True)
    watch.wait(HOLD_S)

    assert ["service.lost", "service.recovered"] == watch.told()
    lost, back = (event for _, event in watch.said)
    assert isinstance(lost, ServiceLost) and isinstance(back, ServiceRecovered)
    assert (1030.0, False, 1030.0) == (lost.since, lost.planned, back.since)


def test_a_restart_is_no_loss() -> None:
    """A compute that is back within the hold time was never lost, and did not recover."""
    watch = Watch()
    watch.look()
    watch.wait(30)
    watch.look(up=False)
    watch.wait(8)
    watch.look(up=True)
    watch.wait(3600)

    assert [] == watch.told()


def test_a_flapping_heartbeat_is_damped() -> None:
    """After one loss and return, a heartbeat that goes on coming and going every half minute is told no more."""
    watch = Watch()
    watch.look()
    for _ in range(10):
        watch.look(up=False)
        watch.wait(30)
        watch.look(up=True)
        watch.wait(30)

    assert ["service.lost"] == watch.told()[:1]
    assert len(watch.told()) <= 3


def test_many_at_once_are_one_event() -> None:
    """Services lost together are one services.lost with all their names; each comes back by itself."""
    watch = Watch()
    for n in range(6):
        watch.look(f"cmp-{n}")
    watch.wait(30)
    for n in range(3):
        watch.look(f"cmp-{n}", up=False)
    watch.wait(5)
    for n in range(3, 5):
        watch.look(f"cmp-{n}", up=False)
    watch.wait(60)

    assert ["services.lost"] == watch.told()
    event = watch.said[0][1]
    assert isinstance(event, ServicesLost)
    assert tuple(f"cmp-{n}" for n in range(5)) == event.hosts
    assert (1030.0, False, "nova-compute") == (event.since, event.planned, event.subject)


def test_two_are_not_many() -> None:
    """Fewer than the policy says are told one by one."""
    watch = Watch()
    for n in range(2):
        watch.look(f"cmp-{n}")
    watch.wait(30)
    for n in range(2):
        watch.look(f"cmp-{n}", up=False)
    watch.wait(60)

    assert ["service.lost", "service.lost"] == watch.told()


@pytest.mark.parametrize("planned", [True, False])
def test_planned_is_closed_before(planned: bool) -> None:
    """A host that was closed before its heartbeat ended was meant to lose it; one that was closed after was not."""
    watch = Watch()
    watch.look()
    watch.wait(30)
    if planned:
        watch.look(disabled=True)
        watch.wait(30)
    watch.look(up=False, disabled=planned)
    watch.wait(5)
    watch.look(up=False, disabled=True)
    watch.wait(30)

    assert ["service.lost"] == watch.told()
    assert planned == watch.said[0][1].planned  # type: ignore[attr-defined]


def test_planned_and_unplanned_losses_are_told_apart() -> None:
    """Many lost at once, some of which had been closed: the two kinds are not put into one event."""
    watch = Watch()
    for n in range(6):
        watch.look(f"cmp-{n}", disabled=n < 3)
    watch.wait(30)
    for n in range(6):
        watch.look(f"cmp-{n}", up=False, disabled=n < 3)
    watch.wait(30)

    said = {(event.hosts, event.planned) for _, event in watch.said}  # type: ignore[attr-defined]
    assert {(("cmp-0", "cmp-1", "cmp-2"), True), (("cmp-3", "cmp-4", "cmp-5"), False)} == said


def test_forced_down_is_no_loss() -> None:
    """What an operator forces down is not lost besides; Nova calls it down whatever its heartbeat."""
    watch = Watch()
    watch.look()
    watch.wait(30)
    watch.look(up=False, forced_down=True)
    watch.wait(300)
    watch.look(up=True)
    watch.wait(300)

    assert [] == watch.told()


def test_down_at_first_sight_is_a_baseline() -> None:
    """A service that was down when it was first seen was not lost before our eyes; its return is told."""
    watch = Watch()
    watch.look(up=False)
    watch.wait(300)
    assert [] == watch.told()
    watch.look(up=True)
    watch.wait(300)

    assert ["service.recovered"] == watch.told()


def test_a_new_service_under_the_old_name_recovers_nothing() -> None:
    """A service that was deleted and came again is another: its heartbeat is not the return of the lost one."""
    watch = Watch()
    watch.look()
    watch.wait(30)
    watch.look(up=False)
    watch.wait(60)
    watch.look(up=True, service_uuid="another")
    watch.wait(300)

    assert ["service.lost"] == watch.told()


def test_a_silent_cell_is_no_loss() -> None:
    """A cell that does not answer says nothing of heartbeats."""
    watch = Watch()
    watch.look()
    watch.wait(30)
    watch.see(ServiceSeen(watch.now, API, "cmp-1", cell_unknown=True, asked_at=watch.now))
    watch.wait(300)

    assert [] == watch.told()
    host = watch.fleet.host("cmp-1")
    assert host is not None and host.cell_unknown
