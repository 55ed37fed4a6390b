"""What owners of servers are told: what touches these, once, in numbers of their own, and nothing else."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from time import process_time

import pytest

from maintd.domain import events
from maintd.domain.events import CloudEvent, Event
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Host, Kind, Knowledge, Notice, Policy, Server, Stall
from maintd.domain.observations import (
    BaselineCompleted,
    BusSeen,
    DrainRequested,
    MigrationSeen,
    Observation,
    OwnersListening,
    ServerSeen,
    ServiceSeen,
    ServicesListed,
    Step,
    TimerDue,
    Watching,
)
from maintd.domain.reducer import reduce
from maintd.domain.tenant_events import TENANT_CATALOGUE, TenantEvent, publish_to_tenant
from tests.domain.modelled_cloud import CloudStory
from tests.domain.modelled_daemon import Interleaving

BUS = Because("notification", "instance.update", "m-1", "req-secret")
API = Because("api")
H, OTHER = "rack7-cmp-01", "rack9-cmp-02"
CANARIES = ("rack", "cmp-", "req-", "svc-", "NoValidHost", "m-1", "other-project", "drain")
"""Parts of what no owner may read, as they stand in these stories."""


@dataclass
class World:
    """A fleet that tells owners, and the hands to feed it; `told` is what it told, as it goes out."""

    policy: Policy = field(default_factory=lambda: Policy(has_cloud=False, tenants=True, lost_after_s=5.0))
    now: float = 1_000_000.25

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.policy)
        self.fleet.put(Knowledge(memory_since=0.0, baselined_at=1.0))
        self.ids = count(1)
        self.told: list[CloudEvent] = []
        self.operators: list[Event] = []

    def see(self, *observations: Observation) -> list[str]:
        """What owners are told of it, as 'type: change'."""
        said: list[str] = []
        for observation in observations:
            outcome = reduce(self.fleet, observation, lambda: str(next(self.ids)))
            self.fleet.apply(outcome)
            for event in outcome.events:
                if isinstance(event, TenantEvent):
                    number = next(self.ids)
                    self.told.append(publish_to_tenant(event, id=str(number), installation="main", sequence=number))
                    said.append(f"{event.TYPE.removeprefix('server.')}: {event.change}")
                else:
                    self.operators.append(event)
        self.now += 1.0
        return said

    def wait(self) -> None:
        """Everything that is due within some minutes comes due."""
        while (due := self.fleet.take_due(self.now + 1000)) is not None:
            self.see(TimerDue(due[0], subject=due[1]))

    def service(self, host: str = H, **over: object) -> list[str]:
        base = ServiceSeen(self.now, API, host, f"svc-{host}", up=True, asked_at=self.now)
        return self.see(replace(base, **over))  # type: ignore[arg-type]

    def server(self, server_id: str = "s-1", host: str | None = H, project: str = "p-1", **over: object) -> list[str]:
        base = ServerSeen(
            self.now, BUS, server_id, project, host=host, vm_state="active", updated_at=self.now, emitted_at=self.now,
            trusted=True, metadata_keys=("ha-group",),
        )  # fmt: skip
        return self.see(replace(base, **over))  # type: ignore[arg-type]

    def row(
        self, status: str, kind: Kind = Kind.LIVE, server_id: str = "s-1", uuid: str = "u-1", **over: object
    ) -> list[str]:
        base = MigrationSeen(
            self.now, API, server_id, 1, uuid, kind, status, H, OTHER, "admin-project", self.now, self.now, self.now
        )
        return self.see(replace(base, **over))  # type: ignore[arg-type]

    def step(
        self, step: Step, kind: Kind = Kind.LIVE, server_id: str = "s-1", asked_by: str = "admin-project"
    ) -> list[str]:
        seen = ServerSeen(
            self.now, BUS, server_id, "p-1", host=H, reporter=OTHER, step=step, kind=kind, source=H, destination=OTHER,
            vm_state="active", updated_at=self.now, emitted_at=self.now, asked_by=asked_by,
        )  # fmt: skip
        return self.see(seen)

    def bus(self, state: str) -> list[str]:
        return self.see(BusSeen(self.now, Because("clock"), "default", state))

    def reads_all(self) -> list[str]:
        """The API has been read from end to end, which heals the bus."""
        return self.see(BaselineCompleted(self.now, API, self.now))

    def drains(self, reason: str = "maintenance") -> list[str]:
        return self.service(disabled=True, disabled_reason=reason)

    def state(self, server_id: str = "s-1") -> dict[str, object]:
        """The state in the newest event of a server."""
        return self.told_of(server_id)[-1].data["state"]  # type: ignore[no-any-return]

    def told_of(self, server_id: str) -> list[CloudEvent]:
        return [e for e in self.told if e.subject == server_id]


def begun() -> World:
    """One server on an open host, and another host."""
    world = World()
    world.service()
    world.service(OTHER)
    world.server()
    return world


def test_a_drain_of_the_host_begins_and_ends_for_its_servers() -> None:
    """The owner hears when the host begins to be emptied and when that is over for the server."""
    world = begun()

    assert world.drains() == ["maintenance_started: started"]
    assert world.state()["maintenance"] == {"since": "1970-01-12T13:46:43.000000Z", "removal": False}
    assert world.service() == ["maintenance_ended: over"]
    assert world.state()["maintenance"] is None


def test_a_server_that_comes_to_a_host_being_emptied_is_told_then() -> None:
    """Maintenance is of whoever is there, not only of who was there at its beginning."""
    world = begun()
    world.drains()

    assert world.server("s-2") == ["maintenance_started: started"]


def test_maintenance_ends_when_the_server_has_left() -> None:
    """What is elsewhere is no longer touched by the drain of where it was."""
    world = begun()
    world.drains()

    assert world.server(host=OTHER) == ["maintenance_ended: left"]


@pytest.mark.parametrize("reason", ["decommission in June", "Retired"])
def test_a_host_that_goes_for_good_is_said_to(reason: str) -> None:
    """The reason for which it was disabled tells, whatever its case."""
    world = begun()
    world.drains(reason)

    assert world.state()["maintenance"]["removal"] is True  # type: ignore[index]


def test_that_it_goes_for_good_may_be_said_later() -> None:
    """An operator says it of a drain that goes on; the owner hears of it, once."""
    world = begun()
    world.drains()

    assert world.see(DrainRequested(world.now, Because("operator"), H, True)) == ["maintenance_started: removal"]
    assert world.see(DrainRequested(world.now, Because("operator"), H, True)) == []


def test_a_move_is_told_from_its_beginning_to_its_end() -> None:
    """Moving when it is under way, moved when Nova's row says so; a repetition says nothing."""
    world = begun()

    assert world.step(Step.LIVE_PRE_START) == ["moving: started"]
    assert world.step(Step.LIVE_PRE_START) == []
    assert world.state()["move"] == {
        "since": "1970-01-12T13:46:43.000000Z", "kind": "live-migration", "asked_for_by": "operator", "stalled": None,
    }  # fmt: skip
    assert world.row("completed") == ["moved: completed"]
    assert world.state()["move"] is None


@pytest.mark.parametrize(
    ("status", "told"),
    [("error", "move_failed: failed"), ("cancelled", "move_failed: cancelled"), ("failed", "move_failed: failed")],
)
def test_a_move_that_does_not_work_is_told(status: str, told: str) -> None:
    """The owner hears that the server has stayed, and not why Nova thinks so."""
    world = begun()
    world.step(Step.LIVE_PRE_START)

    assert world.row(status) == [told]


def test_a_queued_move_is_not_told() -> None:
    """What waits in a queue touches nobody yet."""
    world = begun()

    assert world.row("queued") == []
    assert world.row("running") == ["moving: started"]


@pytest.mark.parametrize(
    ("from_", "told"),
    [(OTHER, "moved: completed"), (H, "move_failed: failed"), ("rack9-cmp-09", "move_failed: unknown")],
)
def test_a_move_is_over_when_the_next_begins(from_: str, told: str) -> None:
    """Though Nova's row of it still says otherwise; by where the next sets out from its owner hears how it ended. It
    is not told again when the next is over, nor when its row is read at last."""
    world = begun()
    world.step(Step.LIVE_PRE_START)

    next_ = {"source": from_, "destination": "rack9-cmp-03", "migration_id": 2, "uuid": "u-2"}
    assert world.row("running") == []
    assert world.row("migrating", Kind.RESIZE, **next_) == [told, "moving: started"]
    assert world.row("running") == []
    assert world.row("finished", Kind.RESIZE, **next_) == ["moved: awaiting_confirmation"]
    assert world.row("confirmed", Kind.RESIZE, **next_) == []
    assert world.row("running") == []
    assert world.row("completed") == []


def test_a_move_that_was_over_before_is_not_the_next_when_it_is_heard_of_late() -> None:
    """After an outage the row of a live migration is read first, and then the bus tells how the server came to where
    that sets out from, also if that was within the second in which the row was made."""
    world = begun()
    live = {"source": OTHER, "destination": "rack9-cmp-03", "migration_id": 2, "uuid": "u-2"}
    made_at = float(int(world.now))
    world.now += 60.0
    assert world.row("running", created_at=made_at, **live) == ["moving: started"]

    for step, after_s in ((Step.REBUILD_SCHEDULED, -3.0), (Step.REBUILD_START, -0.5), (Step.REBUILD_END, 0.3)):
        seen = ServerSeen(
            world.now, BUS, "s-1", "p-1", host=H, reporter=OTHER, step=step, kind=Kind.EVACUATION, source=H,
            destination=OTHER, vm_state="active", updated_at=made_at + after_s, emitted_at=made_at + after_s,
        )  # fmt: skip
        assert world.see(seen) == []
    assert world.row("done", Kind.EVACUATION) == []
    assert world.row("completed", **live) == ["moved: completed"]


def test_a_resize_is_over_for_its_owner_when_it_waits_to_be_confirmed_and_its_revert_is_a_move() -> None:
    """The server is where it was to go; taking it back moves it again, and is told as such."""
    world = begun()
    world.step(Step.RESIZE_PREP_START, Kind.RESIZE, asked_by="p-1")
    world.row("migrating", Kind.RESIZE, asked_by="p-1")

    assert world.row("finished", Kind.RESIZE) == ["moved: awaiting_confirmation"]
    assert world.row("reverting", Kind.RESIZE) == ["moving: started"]
    assert world.row("reverted", Kind.RESIZE) == ["move_failed: reverted"]


@pytest.mark.parametrize(
    ("kind", "asked_by", "who"),
    [
        (Kind.RESIZE, "p-1", "owner"),
        (Kind.RESIZE, None, "owner"),
        (Kind.RESIZE, "admin-project", "operator"),
        (Kind.COLD, "p-1", "owner"),
        (Kind.COLD, None, "unknown"),
        (Kind.LIVE, None, "operator"),
        (Kind.LIVE, "admin-project", "operator"),
        (Kind.EVACUATION, None, "operator"),
    ],
)
def test_what_the_owner_asked_for_is_told_apart(kind: Kind, asked_by: str | None, who: str) -> None:
    """Nova says from which project a move was asked for; where it does not, its kind does."""
    world = begun()
    under_way = {Kind.LIVE: "running", Kind.EVACUATION: "pre-migrating"}.get(kind, "migrating")
    world.row(under_way, kind, asked_by=asked_by)

    assert world.state()["move"]["asked_for_by"] == who  # type: ignore[index]


def test_the_loss_of_the_host_is_told_and_its_return() -> None:
    """Not at the first missed heartbeat, but when it has lasted; forced down is said when it comes to that."""
    world = begun()
    assert world.service(up=False) == []
    due = world.fleet.take_due(world.now + 100)
    assert due is not None
    assert world.see(TimerDue(due[0], subject=due[1])) == ["host_lost: lost"]
    assert world.service(up=False, forced_down=True, disabled=True) == ["host_lost: forced_down"]
    assert world.state()["host_lost"]["forced_down"] is True  # type: ignore[index]
    world.service(up=True)
    due = world.fleet.take_due(world.now + 1000)
    while due is not None and world.state()["host_lost"] is not None:
        world.see(TimerDue(due[0], subject=due[1]))
        due = world.fleet.take_due(world.now + 1000)
    assert [e.data["change"] for e in world.told][-1] == "recovered"


def test_a_host_that_is_no_longer_forced_down_is_back_when_its_heartbeat_is() -> None:
    """An operator who takes the word back while the host is still down tells nobody that it is under control, but that
    it is only lost."""
    world = begun()

    assert world.service(up=False, forced_down=True) == ["host_lost: forced_down"]
    assert world.service(up=False) == ["host_lost: lost"]
    assert world.state()["host_lost"]["forced_down"] is False  # type: ignore[index]
    assert world.service(up=True) == ["host_recovered: recovered"]
    assert world.fleet.notice("s-1") is None


def test_a_server_that_is_rebuilt_elsewhere_has_left_the_lost_host() -> None:
    """After an evacuation nothing is lost any more: the owner hears so, whatever becomes of the host."""
    world = begun()
    world.service(forced_down=True, disabled=True)

    assert world.server(host=OTHER) == ["host_recovered: left"]


def test_a_host_forced_down_by_mistake_is_back_when_that_is_taken_back() -> None:
    """Its heartbeat was heard all the time."""
    world = begun()
    world.service(forced_down=True)

    assert world.service() == ["host_recovered: recovered"]


def test_a_lost_host_whose_service_is_deleted_is_not_back() -> None:
    """Nobody has control of what may still run there. It is over for a server that is seen elsewhere, even where nobody
    knows the other host."""
    world = begun()
    world.service(forced_down=True, disabled=True)

    assert world.see(ServicesListed(world.now, API, world.now, frozenset({OTHER}))) == ["host_lost: lost"]
    assert world.server(host="rack9-cmp-03") == ["host_recovered: left"]
    assert world.fleet.notice("s-1") is None


def test_who_comes_when_the_heartbeat_is_back_has_lost_nothing() -> None:
    """Though it has still to last before it is said; if it does not, the host is as lost for who has come as for who
    was there."""
    for lasts in (True, False):
        world = begun()
        world.service(up=False)
        due = world.fleet.take_due(world.now + 100)
        assert due is not None and world.see(TimerDue(due[0], subject=due[1])) == ["host_lost: lost"]
        world.now += 10.0
        assert world.service(up=True) == []

        assert world.server("s-2") == []
        if lasts:
            due = world.fleet.take_due(world.now + 100)
            assert due is not None and world.see(TimerDue(due[0], subject=due[1])) == ["host_recovered: recovered"]
        else:
            assert world.service(up=False) == ["host_lost: lost"]
        assert world.told[-1].subject == ("s-1" if lasts else "s-2")


def blind() -> World:
    """One server on an open host; the bus was away, and what happened meanwhile has not been read yet."""
    world = World(replace(World().policy, has_cloud=True))
    world.bus("connected")
    world.service()
    world.service(OTHER)
    world.server()
    world.bus("lost")
    world.now += 600.0
    world.bus("connected")
    return world


def test_a_loss_that_may_be_over_is_not_told_of_a_server_that_comes_to_the_host() -> None:
    """Its end may have gone unheard; it is told once what was missed has been read, if it still holds then."""
    for over in (True, False):
        world = blind()
        world.bus("lost")
        assert world.service(forced_down=True) == []
        world.now += 600.0
        assert world.see(Watching(world.now)) == ["host_lost: forced_down"]
        world.bus("connected")

        assert world.server("s-2") == []
        assert world.service(forced_down=not over) == (["host_recovered: recovered"] if over else [])
        assert world.reads_all() == ([] if over else ["host_lost: forced_down"])
        assert world.told[-1].subject == ("s-1" if over else "s-2")


def test_a_loss_is_not_told_of_a_server_that_may_have_left_unheard() -> None:
    """It is told once what was missed has been read, though nothing else changes, and not if the server has left."""
    for left in (True, False):
        world = blind()
        assert world.service(forced_down=True) == []
        if left:
            assert world.server(host=OTHER) == []
        assert world.reads_all() == ([] if left else ["host_lost: forced_down"])


def test_a_drain_is_not_told_of_a_server_that_may_have_left_unheard() -> None:
    """Nor one that was over before what was missed has been read: what then still holds is told, and that once."""
    for left in (True, False):
        world = blind()
        assert world.drains() == []
        assert world.service() == []
        assert world.drains() == []
        if left:
            assert world.server(host=OTHER) == []
        assert world.reads_all() == ([] if left else ["maintenance_started: started"])
        assert world.reads_all() == []


def test_a_loss_is_told_though_what_was_missed_cannot_be_read() -> None:
    """Nobody waits for a bus or an API that stays away: what nobody has contradicted for a minute holds."""
    world = blind()
    assert world.service(forced_down=True) == []
    world.bus("lost")
    assert world.see(Watching(world.now)) == []
    world.now += 60.0
    assert world.see(Watching(world.now)) == ["host_lost: forced_down"]
    assert world.see(Watching(world.now)) == []


def test_what_is_held_at_the_beginning_is_no_loss_yet() -> None:
    """A loss that no owner was told of may be long over when maintd begins anew: first the cloud is read."""
    world = blind()
    assert world.service(forced_down=True) == []
    world.bus("lost")
    world.now += 600.0
    assert world.see(OwnersListening(world.now, Because("clock"))) == []
    world.bus("connected")
    assert world.reads_all() == ["host_lost: forced_down"]


def test_a_move_that_was_known_before_its_server_is_told_when_it_is_known_whose_that_is() -> None:
    """A row of a migration does not say whose the server is; the first word of the server does."""
    world = World()
    world.service()
    world.service(OTHER)
    assert world.row("running") == []

    assert world.see(ServerSeen(world.now, API, "s-1", "p-1", host=H, vm_state="active", asked_at=world.now)) == [
        "moving: started"
    ]


def _time_to_lose(hosts: int) -> float:
    """How long it takes to tell that all hosts of a cloud, with twenty servers each, are lost at once."""
    world = World(Policy(has_cloud=False, tenants=True, lost_after_s=5.0))
    for host in range(hosts):
        world.fleet.put(Host(f"h-{host}", service_uuid=f"svc-h-{host}", up=True, said_up=True, seen_at=1.0))
        for place in range(20):
            world.fleet.put(Server(f"s-{host}-{place}", f"p-{host % 97}", host=f"h-{host}", seen_at=1.0))
    for host in range(hosts):
        world.service(f"h-{host}", up=False)
    due = world.fleet.take_due(world.now + 100)
    assert due is not None
    began = process_time()
    told = world.see(TimerDue(due[0] + hosts, subject=due[1]))
    took_s = process_time() - began
    assert len(told) == hosts * 20
    return took_s


def test_the_loss_of_a_whole_cloud_costs_no_more_than_its_servers() -> None:
    """Eight times as many servers take about eight times as long to tell, not sixty-four times: the fleet's writer
    waits for it."""
    small, large = min(_time_to_lose(50) for _ in range(3)), _time_to_lose(400)

    assert large < 24 * small


def test_a_deleted_server_is_touched_by_nothing() -> None:
    """All that was begun for it ends, and its notice is gone."""
    world = begun()
    world.drains()
    world.step(Step.LIVE_PRE_START)

    assert world.server(deleted=True) == ["move_failed: cancelled", "maintenance_ended: deleted"]
    assert world.fleet.notice("s-1") is None


@pytest.mark.parametrize(
    ("reason", "told"),
    [("frozen", "no_progress"), ("not_converging", "busy_guest"), ("orphan_task", "interrupted"), ("late", "slow")],
)
def test_a_stall_that_matters_to_the_guest_is_told_and_its_end(reason: str, told: str) -> None:
    """In a word that says what the guest may feel, not what Nova's machinery does."""
    world = begun()
    world.step(Step.LIVE_PRE_START)
    (m,) = world.fleet.open_migrations()
    stall = Stall("st-1", m.key, "s-1", "live-migration", reason, world.now, world.now)
    world.fleet.put(stall)

    assert world.see(OwnersListening(world.now, API)) == [f"move_stalled: {told}"]
    world.fleet.drop(stall)
    assert world.see(OwnersListening(world.now, API)) == ["moving: resumed"]


@pytest.mark.parametrize("reason", ["not_started", "queue_blocked", "slow_step"])
def test_a_stall_that_only_waits_is_not_told(reason: str) -> None:
    """What stands in a queue does the guest no harm."""
    world = begun()
    world.step(Step.LIVE_PRE_START)
    (m,) = world.fleet.open_migrations()
    world.fleet.put(Stall("st-1", m.key, "s-1", "live-migration", reason, world.now, world.now))

    assert world.see(OwnersListening(world.now, API)) == []


def test_what_began_while_nobody_was_told_is_told_when_owners_listen() -> None:
    """An installation that is opened to owners in the middle of a drain tells them of it, once."""
    world = World(replace(World().policy, tenants=False))
    world.service()
    world.server()
    world.drains()
    world.policy = world.fleet.policy = replace(world.policy, tenants=True)

    assert world.see(OwnersListening(world.now, API)) == ["maintenance_started: started"]
    assert world.see(OwnersListening(world.now, API)) == []


def test_closed_by_default() -> None:
    """Without [tenants] enabled no owner is told anything."""
    world = World(Policy())
    world.service()
    world.server()
    world.drains()

    assert (world.told, world.operators != []) == ([], True)


def test_each_project_has_numbers_and_ids_of_its_own() -> None:
    """One cause makes one event for each server; nothing in two projects' events but the moment is the same."""
    world = begun()
    world.server("s-2", project="p-2")
    world.server("s-3", project="p-2")
    world.drains()

    by_project = defaultdict(list)
    for event in world.told:
        by_project[event.project_id].append(event)
    assert {p: [e.as_dict()["sequence"] for e in told] for p, told in by_project.items()} == {
        "p-1": [f"{1:020d}"],
        "p-2": [f"{1:020d}", f"{2:020d}"],
    }
    assert len({e.id for e in world.told}) == 3


def test_with_jitter_projects_are_told_at_moments_of_their_own() -> None:
    """Time and since of what one cause led to differ between projects, and never run backwards within one."""
    world = World(replace(World().policy, tenant_jitter_s=300.0))
    world.service()
    for number in range(8):
        world.server(f"s-{number}", project=f"p-{number % 4}")
    world.drains()
    world.service()

    first = {e.project_id: e.data["state"]["maintenance"]["since"] for e in world.told if e.data["change"] == "started"}
    assert len(set(first.values())) > 1
    for project in first:
        times = [e.visible_at for e in world.told if e.project_id == project]
        assert times == sorted(times, key=lambda t: t or 0.0)


def test_an_events_time_is_the_whole_second_of_when_it_may_be_seen() -> None:
    """The store finds by it what is held back: were it earlier, an event could be read before its time."""
    world = World(replace(World().policy, tenant_jitter_s=300.0))
    world.service()
    world.server()
    world.drains()
    (event,) = world.told

    assert event.visible_at is not None and event.visible_at > world.now - 1.0
    assert event.time == event.visible_at // 1


def test_an_event_has_only_what_is_allowed() -> None:
    """Its members are those of the catalogue, and nothing of hosts, drains, messages or others is in its bytes."""
    world = begun()
    world.server("s-2", project="other-project")
    world.drains("maintenance of rack 7")
    world.step(Step.LIVE_PRE_START)
    world.row("error")
    world.service(forced_down=True, disabled=True)
    world.server(host=OTHER)

    mine = [e for e in world.told if e.project_id == "p-1"]
    assert len(mine) >= 5
    for event in mine:
        text = event.as_json()
        assert [c for c in CANARIES if c in text.replace("ha-group", "")] == []
        body = json.loads(text)
        assert set(body) == {
            "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "sequence", "data",
        }  # fmt: skip
        assert set(body["data"]) == {"server_id", "change", "incarnation", "state"}
        assert set(body["data"]["state"]) == {
            "server_id", "incarnation", "maintenance", "move", "host_lost", "metadata_keys",
        }  # fmt: skip


def heard(told: Iterable[TenantEvent]) -> dict[str, Notice]:
    """What an owner who heard these in any order holds true: of each server the newest, where anything touches it."""
    newest: dict[str, Notice] = {}
    for event in told:
        held = newest.get(event.notice.server_id)
        if held is None or held.incarnation < event.notice.incarnation:
            newest[event.notice.server_id] = event.notice
    return {i: n for i, n in newest.items() if n.drain_id or n.move_key or n.lost_since is not None}


class Telling(Interleaving):
    """An interleaving in which owners are told."""

    tenants = True

    def __init__(self, story: CloudStory, seed: int) -> None:
        super().__init__(story, seed)
        self.policy = replace(self.policy, tenants=self.tenants)
        self.fleet = Fleet(self.policy)
        self.told: list[TenantEvent] = []
        self.said: list[Event] = []

    def _judge(self, event: events.Event) -> None:
        if isinstance(event, TenantEvent):
            self.told.append(event)
        else:
            self.said.append(event)
            super()._judge(event)


class Silent(Telling):
    tenants = False


@pytest.mark.parametrize("seed", range(500, 524))
def test_whoever_hears_the_newest_is_right_and_operators_hear_the_same(seed: int) -> None:
    """Over random stories: what owners heard last is what holds, nothing waits to be told, numbers have no gap, each
    beginning has an end, and the operators' events are what they are without owners."""
    story = CloudStory(seed)
    telling, silent = Telling(story, seed), Silent(story, seed)
    telling.play()
    silent.play()

    assert telling.said == silent.said
    assert heard(telling.told) == {n.server_id: n for n in telling.fleet.notices()}
    assert all(bus.heard for bus in telling.fleet.buses()) or telling.is_deaf()
    assert reduce(telling.fleet, OwnersListening(telling.now, API), lambda: "any").events == ()
    numbers: dict[str, list[int]] = defaultdict(list)
    moves = [e.notice for e in telling.told if e.TYPE == "server.moving" and e.change == "started"]
    for (key, kind), times in Counter((notice.move_key, notice.move_kind) for notice in moves).items():
        assert times <= (2 if kind in ("resize", "migration") else 1), (key, kind)  # what is taken back moves again
    open_: dict[tuple[str, str], bool] = defaultdict(bool)
    for event in telling.told:
        numbers[event.notice.project_id].append(event.notice.incarnation)
        assert event.change in TENANT_CATALOGUE[event.TYPE].CHANGES
        word = event.TYPE.removeprefix("server.")
        thing, begins = {
            "maintenance_started": ("maintenance", True), "maintenance_ended": ("maintenance", False),
            "moving": ("move", True), "move_stalled": ("move", True), "moved": ("move", False),
            "move_failed": ("move", False), "host_lost": ("lost", True), "host_recovered": ("lost", False),
        }[word]  # fmt: skip
        key = (event.notice.server_id, thing)
        again = event.change in ("removal", "resumed") or word in ("move_stalled", "host_lost")
        assert begins != open_[key] or (again and open_[key]), (word, event.change)
        open_[key] = begins
    assert all(found == list(range(1, len(found) + 1)) for found in numbers.values())


def lost_together(hosts: int, apart_s: float = 0.5) -> World:
    """A world in which the heartbeats of so many hosts have ended, so long after each other: first H, with s-1."""
    world = begun()
    names = [H, *(f"rack7-{number}" for number in range(1, hosts))]
    for name in names[1:]:
        world.service(name)
    since = world.now
    for number, name in enumerate(names):
        world.service(name, up=False, down_since=since + number * apart_s)
    world.wait()
    return world


@pytest.mark.parametrize(("hosts", "apart_s", "widespread"), [(5, 0.5, True), (4, 0.5, False), (5, 60.0, False)])
def test_that_many_hosts_are_lost_at_the_same_time_is_said(hosts: int, apart_s: float, widespread: bool) -> None:
    """Most likely the cloud has lost sight of them: whoever fails over for that does harm everywhere at once."""
    world = lost_together(hosts, apart_s)

    assert world.state()["host_lost"]["widespread"] is widespread  # type: ignore[index]


def test_a_widespread_loss_ends_where_an_operator_says_that_the_host_is_dead() -> None:
    """Not before: that the others are back proves nothing of this one, and may only be a matter of seconds."""
    world = lost_together(5)
    for number in range(1, 5):
        world.service(f"rack7-{number}")
    assert world.state()["host_lost"]["widespread"] is True  # type: ignore[index]

    assert world.service(up=False, forced_down=True) == ["host_lost: forced_down"]
    lost = world.state()["host_lost"]
    assert (True, False) == (lost["forced_down"], lost["widespread"])  # type: ignore[index]


def test_a_loss_that_follows_many_others_later_is_one_of_its_own() -> None:
    """What went out with the many says nothing of a host that is lost when they are back."""
    world = lost_together(5)
    for number in range(1, 5):
        world.service(f"rack7-{number}")
    world.service()
    world.wait()
    world.now += 1000
    world.service(up=False, down_since=world.now)
    world.wait()

    assert world.state()["host_lost"]["widespread"] is False  # type: ignore[index]
