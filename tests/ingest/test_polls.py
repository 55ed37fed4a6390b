"""What is asked, when, and how often: the polls against the simulator's HTTP, on a manual clock."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from maintd.clock import Clock, ManualClock, SystemClock
from maintd.config import CloudConfig
from maintd.domain.events import CloudEvent
from maintd.domain.fleet import Fleet
from maintd.domain.model import (
    Because,
    Curve,
    Kind,
    Knowledge,
    Migration,
    Phase,
    Point,
    Policy,
    Server,
    Stall,
)
from maintd.domain.observations import BusSeen, Observation, ServersListed
from maintd.errors import LeaseLost, StoreUnavailable
from maintd.ingest import polls as polls_module
from maintd.ingest.admit import Admission
from maintd.ingest.budget import Budget
from maintd.ingest.polls import MARGIN_S, Limits, Polls, _is_unsure, _moving, _suspected
from maintd.nova.answers import Answer
from maintd.nova.api import OPEN_STATUSES, NovaApi
from maintd.nova.notifications.envelope import read_message, read_time
from maintd.simulator.model import Cloud, Timing
from maintd.simulator.rest import RestServer

NOW = 1_780_000_000.0
SETTLE_S = 15.0


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.jobs: Counter[tuple[str, str]] = Counter()
        self.passes: Counter[str] = Counter()
        self.reconciled_at: list[float] = []

    def job(self, name: str, outcome: str) -> None:
        self.jobs[name, outcome] += 1

    def verified(self, host: str, outcome: str) -> None:
        self.passes[outcome] += 1

    def reconciled(self, at: float) -> None:
        self.reconciled_at.append(at)


class Door(Admission):
    """The admission, with a memory of what was published and a database that can be taken away."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.published: list[CloudEvent] = []
        self.broken = False
        self.wholes: list[ServersListed] = []

    def admit(self, observations: Iterable[Observation]) -> list[CloudEvent]:
        if self.broken:
            raise StoreUnavailable("the database is away")
        observations = tuple(observations)
        self.wholes += [o for o in observations if isinstance(o, ServersListed) and o.host is None]
        events = super().admit(observations)
        self.published += events
        return events


@dataclass
class World:
    """A cloud, what maintd holds of it, and the schedule worked through by hand."""

    rest: RestServer
    clock: ManualClock
    cloud: Cloud
    fleet: Fleet
    door: Door
    polls: Polls
    ear: Ear
    has_bus: bool
    hear: bool = True
    last: dict[str, float] = field(default_factory=dict)
    calls_at: list[tuple[float, str | None]] = field(default_factory=list)

    @property
    def asked(self) -> list[str]:
        """Paths and queries that Nova and Placement were asked for, without Nova's prefix."""
        seen = self.rest.api.seen
        return [
            s.target.removeprefix("/v2.1") for s in seen if s.service != "identity" and s.target not in ("/", "/v2.1/")
        ]

    def said(self, kind: str) -> list[CloudEvent]:
        return [e for e in self.door.published if e.type == f"maintd.{kind}.v1"]

    def message(self, _: str, inner: dict[str, Any]) -> None:
        if self.has_bus and self.hear:
            self.door.published += self.door.admit_notifications([read_message(inner, received_at=self.cloud.now())])

    def every(self, name: str, seconds: float, job: Callable[[], object]) -> None:
        if self.clock.now() - self.last.get(name, float("-inf")) >= seconds:
            self.last[name] = self.clock.now()
            job()

    def turn(self) -> None:
        """What the scheduler and the workers would do at this moment."""
        polls = self.polls
        self.door.published += self.door.tick(self.clock.now())
        polls.whole_once()
        self.every("services", 30.0 if self.has_bus else 15.0, polls.look_at_services)
        self.every("reconcile", 600.0, polls.reconcile)
        self.every("drains", 5.0, polls.look_at_drains)
        self.every("progress", 1.0, polls.look_at_progress)
        self.every("emptied", 15.0, polls.look_at_emptied)
        polls.look_at_ends()
        for host in polls.passes_due():
            polls.verify(host)
        while not polls._passes.empty():
            _, _, host = polls._passes.get_nowait()
            polls.verify(host)
            polls._in_hand.discard(host)

    def run(self, seconds: float, step_s: float = 0.5) -> None:
        """Let time pass, for the cloud and for us."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.cloud.advance(max(self.clock.now(), min(end, self.clock.now() + step_s)))
            self.turn()

    def until(self, kind: str, limit_s: float = 300.0, step_s: float = 0.5) -> CloudEvent:
        """Let time pass until such an event was published."""
        end = self.clock.now() + limit_s
        while not self.said(kind) and self.clock.now() < end:
            self.run(step_s, step_s)
        assert self.said(kind), f"no {kind} in {limit_s} s; {self.polls.errors()}"
        return self.said(kind)[-1]


Serve = Callable[[Cloud], RestServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[RestServer] = []

    def start(cloud: Cloud) -> RestServer:
        servers.append(RestServer(cloud, threads=8).start())
        return servers[-1]

    yield start
    for server in servers:
        server.faults.clear()
        threading.Thread(target=server.stop, daemon=True).start()  # stopping takes a while; nobody has to wait for it


def config(rest: RestServer, timeout_s: float = 5.0) -> CloudConfig:
    auth = rest.cloud_config()["auth"]
    return CloudConfig(options={"auth_type": "password", **auth}, region_name="RegionOne", timeout_s=timeout_s)


Make = Callable[..., World]


@pytest.fixture
def make(serve: Serve) -> Make:
    def build(
        *, hosts: int = 3, servers: int = 0, has_bus: bool = True, limits: Limits | None = None, at_once: int = 1
    ) -> World:
        clock = ManualClock(NOW)
        cloud = Cloud(clock, timing=Timing(concurrent_live_migrations=at_once))
        cloud.fill(hosts, servers)
        clock.advance(600.0)
        rest = serve(cloud)
        fleet = Fleet(Policy(has_cloud=True, has_bus=has_bus, settle_s=SETTLE_S))
        fleet.put(Knowledge(memory_since=clock.now()))
        ids = itertools.count(1)
        door = Door(fleet, clock=clock, ids=lambda: f"{next(ids):08d}", installation="test")
        ear = Ear()
        times: list[tuple[float, str | None]] = []

        def wait(seconds: float) -> bool:
            clock.advance(seconds)
            return False

        budget = Budget(clock, wait)

        def pace(purpose: str | None) -> bool:
            given = budget.take(purpose)
            times.append((clock.now(), purpose))
            return given

        api = NovaApi(config(rest), clock, pause=lambda seconds: None)
        polls = Polls(api, door, clock, has_bus=has_bus, listener=ear, limits=limits, pace=pace)
        world = World(rest, clock, cloud, fleet, door, polls, ear, has_bus, calls_at=times)
        cloud._publish = world.message
        if has_bus:
            door.admit((BusSeen(clock.now(), Because("clock"), "default", "connected"),))
        return world

    return build


def close(world: World, host: str = "cmp-01", reason: str = "maintenance") -> None:
    world.cloud.disable(host, reason)


def drain(world: World, host: str = "cmp-01") -> None:
    """Close a host and live-migrate everything on it away."""
    close(world, host)
    for server_id in list(world.cloud.hosts[host].servers):
        world.cloud.live_migrate(server_id)


# -- the whole cloud --------------------------------------------------------------------------------------------------


def test_the_first_reading_knows_everything_and_publishes_nothing(make: Make) -> None:
    """After the baseline every host, node and server is known, in the order services, nodes, servers, migrations."""
    world = make(hosts=3, servers=2)
    assert world.polls.whole_once() is True
    assert world.fleet.counts()["server"] == 6
    assert all(h.nodes and h.up for h in world.fleet.hosts())
    assert world.fleet.knowledge is not None and world.fleet.knowledge.baselined_at is not None
    assert world.door.published == []
    firsts = [
        next(i for i, a in enumerate(world.asked) if a.startswith(p))
        for p in ("/os-services", "/os-hyp", "/servers", "/os-mig")
    ]
    assert firsts == sorted(firsts)
    assert world.ear.reconciled_at and world.polls.whole_once() is None


def test_the_first_reading_waits_for_the_bus(make: Make) -> None:
    """Nothing is read before every bus is listened to, or what happens in between would be lost."""
    world = make()
    world.polls._ready = lambda: False
    assert world.polls.whole_once() is None and world.asked == []


@pytest.mark.parametrize("path", ["/v2.1/os-services*", "/v2.1/servers/detail*", "/v2.1/os-migrations*status=done*"])
@pytest.mark.parametrize("fault", [{"status": 500}, {"cut": True}, {"status": 403}])
def test_a_first_reading_that_breaks_off_is_begun_again(make: Make, path: str, fault: dict[str, Any]) -> None:
    """A fault leaves the cloud unread, with a sentence that says why; the next try makes it good."""
    world = make(servers=1)
    world.rest.faults.add(path=path, **fault)
    assert world.polls.whole_once() is False
    assert world.polls.errors()["baseline"]
    assert world.fleet.knowledge is not None and world.fleet.knowledge.baselined_at is None
    assert world.polls.reconcile() is False
    world.rest.faults.clear()
    assert world.polls.whole_once() is True and world.polls.errors() == {}
    assert world.fleet.knowledge.baselined_at is not None


def test_a_big_cloud_is_read_page_by_page(make: Make) -> None:
    """Servers that have gone since the last run are let go only when the whole list has been read."""
    world = make(hosts=4, servers=5)
    world.polls.whole_once()
    gone = next(iter(world.cloud.hosts["cmp-02"].servers))
    world.cloud.delete(gone)
    world.hear = False
    world.cloud.settle()
    world.polls._baselined = False
    world.rest.faults.max_limit = 3
    world.rest.faults.add(path="/v2.1/servers/detail*marker*", status=500, skip=3)
    assert world.polls.whole_once() is False
    world.rest.faults.clear()
    world.rest.faults.max_limit = 3
    assert world.polls.whole_once() is True
    server = world.fleet.server(gone)
    assert server is None or server.host is None
    assert len(world.fleet.servers_on("cmp-02")) == 4


@pytest.mark.parametrize("rest_s", [5.0, 0.0])
def test_a_gap_is_made_up_for_by_what_changed(make: Make, rest_s: float) -> None:
    """After a gap only what changed is read, deleted servers too; the bus is healed and a lost move is found, even one
    that has only just ended, whose row's time could be the API's *now*."""
    world = make(hosts=3, servers=2)
    world.run(1.0)
    gone, moved = list(world.cloud.hosts["cmp-01"].servers)
    world.hear = False
    blind_from = world.clock.now()
    world.door.admit((BusSeen(blind_from, Because("clock"), "default", "lost"),))
    world.cloud.delete(gone)
    world.cloud.live_migrate(moved, "cmp-02")
    world.cloud.settle()
    world.clock.advance(rest_s)
    world.hear = True
    world.door.admit((BusSeen(world.clock.now(), Because("clock"), "default", "connected"),))
    before = len(world.asked)
    assert world.polls.whole_once() is True
    assert not any("changes-since" not in a for a in world.asked[before:] if a.startswith("/servers/detail"))
    assert world.said("bus.healed")
    known = world.fleet.server(moved)
    assert known is not None and known.host == "cmp-02"
    assert set(world.fleet.servers_on("cmp-01")) == set()
    world.clock.advance(10.0)
    assert world.polls.whole_once() is None


# -- drains and proofs ------------------------------------------------------------------------------------------------


def test_a_drain_over_the_bus_ends_in_a_proof_in_time(make: Make) -> None:
    """The host is emptied no later than the settling time and two seconds after its last allocation is freed."""
    world = make(hosts=3, servers=3)
    world.run(1.0)
    drain(world)
    while world.cloud.hosts["cmp-01"].provider.allocations:
        world.run(0.25, 0.25)
    freed_at = world.clock.now()
    emptied = world.until("host.emptied", step_s=0.25)
    assert emptied.time - freed_at <= SETTLE_S + 2.0
    assert len(world.said("migration.completed")) == 3 and len(world.said("host.emptied")) == 1
    assert [e.type for e in world.door.published if e.type.startswith("maintd.drain")] == ["maintd.drain.started.v1"]


def test_without_a_bus_a_drain_is_followed_all_the_same(make: Make) -> None:
    """With nothing but the API the drain starts, its migrations complete, and the host is proven empty."""
    world = make(hosts=3, servers=2, has_bus=False)
    world.cloud.knobs.set("live_migration", mode="converge", seconds=40.0)
    world.run(20.0)
    drain(world)
    world.until("host.emptied", 600.0, step_s=1.0)
    assert len(world.said("drain.started")) == 1
    assert len(world.said("migration.completed")) == 2


@pytest.mark.parametrize(
    "fault",
    [
        {"path": "/v2.1/os-migrations*", "status": 500},
        {"path": "/v2.1/os-hypervisors/*", "cut": True},
        {"path": "/v2.1/servers/detail*", "status": 403},
        {"service": "placement", "status": 503},
        {"path": "/resource_providers/*/traits", "cut": True},
        {"path": "/v2.1/os-services*host=*", "status": 500},
    ],
)
def test_no_fault_ever_empties_a_host_and_each_is_told(make: Make, fault: dict[str, Any]) -> None:
    """While any read fails there is a sentence, here and in the host's finding, and no proof; later there is one."""
    world = make(hosts=2)
    world.run(1.0)
    world.rest.faults.add(**fault)
    close(world)
    world.run(60.0, 2.0)
    assert world.said("host.emptied") == [] and "verify" in world.polls.errors()
    host = world.fleet.host("cmp-01")
    assert host is not None and host.finding is not None
    assert [b.kind for b in host.finding.blockers] == ["unverified"] and "reading" in str(
        host.finding.blockers[0].detail
    )
    world.rest.faults.clear()
    world.until("host.emptied", 120.0)
    assert "verify" not in world.polls.errors()


def test_a_silent_cell_takes_no_server_from_its_host(make: Make) -> None:
    """While the cell is down its lists are empty, yet its servers stay where they are and its host is not emptied."""
    world = make(hosts=2, servers=2)
    world.run(1.0)
    close(world)
    world.run(1.0)
    world.cloud.lose_cell(["cmp-01"])
    world.run(130.0, 5.0)
    assert len(world.fleet.servers_on("cmp-01")) == 2 and not world.said("host.emptied")
    world.polls._baselined = False
    world.door.wholes.clear()
    assert world.polls.whole_once() is True
    assert world.door.wholes == []  # the list of everything was read, and is not believed
    assert len(world.fleet.servers_on("cmp-01")) == 2
    host = world.fleet.host("cmp-01")
    assert host is not None and host.cell_unknown


@pytest.mark.parametrize(("alone", "hidden", "held"), [(50, 1, [2, 2, 1]), (2, 1, [2, 2, 1]), (2, 2, [0, 0, 0])])
def test_a_whole_list_that_a_query_cut_short_takes_no_server_from_its_host(
    make: Make, monkeypatch: pytest.MonkeyPatch, alone: int, hidden: int, held: list[int]
) -> None:
    """Nova answers 200 without the servers of a cell whose query failed once, or twice; the services are all there.
    Who is missing is asked for; of many the list is read again, and what both leave out is believed to be gone."""
    monkeypatch.setattr("maintd.ingest.polls.ASKED_ALONE", alone)
    world = make(hosts=3, servers=2)
    world.run(1.0)
    gone = next(iter(world.cloud.hosts["cmp-03"].servers))
    world.hear = False
    world.cloud.delete(gone)
    world.cloud.settle()
    servers, lists = world.polls._api.servers, list[int]()

    def cut_short(host: str | None = None, changes_since: float | None = None, **more: Any) -> Iterator[Answer]:
        whole = host is None and changes_since is None
        lists.extend([1] * whole)
        for answer in servers(host, changes_since, **more):
            yield replace(answer, body={"servers": []}) if whole and len(lists) <= hidden else answer

    monkeypatch.setattr(world.polls._api, "servers", cut_short)
    world.polls._baselined = False
    assert world.polls.whole_once() is True

    assert held == [len(world.fleet.servers_on(host)) for host in ("cmp-01", "cmp-02", "cmp-03")]


def test_a_hosts_list_that_a_query_cut_short_takes_no_server_from_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that is missing from its host's list is asked for, and is where it says itself."""
    world = make(hosts=2, servers=2)
    world.run(1.0)
    close(world)
    world.run(1.0)
    servers = world.polls._api.servers

    def cut_short(host: str | None = None, *given: Any, **more: Any) -> Iterator[Answer]:
        for answer in servers(host, *given, **more):
            yield replace(answer, body={"servers": []})

    monkeypatch.setattr(world.polls._api, "servers", cut_short)
    world.run(130.0, 5.0)

    assert [s for s in world.asked if s.startswith("/servers/detail") and "host=cmp-01" in s]
    assert len(world.fleet.servers_on("cmp-01")) == 2


def test_a_cell_that_is_back_is_read_anew(make: Make) -> None:
    """What a cell did while it was silent is found by reading everything again."""
    world = make(hosts=2, servers=1)
    world.run(1.0)
    world.cloud.lose_cell(["cmp-02"])
    world.run(35.0, 5.0)
    before = len(world.ear.reconciled_at)
    world.hear = False
    world.cloud.delete(next(iter(world.cloud.hosts["cmp-02"].servers)))
    world.cloud.settle()
    world.cloud.lose_cell(["cmp-02"], down=False)
    world.run(60.0, 5.0)
    assert len(world.ear.reconciled_at) > before
    assert set(world.fleet.servers_on("cmp-02")) == set()


def test_a_pass_that_is_disturbed_asks_no_further(make: Make) -> None:
    """Something seen of the host during a pass ends it at once: what it has read proves nothing any more."""
    world = make(hosts=2)
    world.run(1.0)
    close(world)
    world.run(1.0)
    count = itertools.count()

    def disturb(answer: Any) -> None:
        if answer.purpose == "verify" and next(count) == 1:
            world.cloud.disable("cmp-01", "another reason")

    world.polls._on_answer = disturb
    before = len(world.asked)
    assert world.polls.verify("cmp-01") == "disturbed"
    assert len(world.asked) - before == 2
    world.until("host.emptied", 120.0)


def test_a_pass_that_takes_too_long_is_given_up_and_told(make: Make) -> None:
    """A pass has a deadline; past it the fleet hears that it is spoilt, and tries again."""
    world = make(hosts=2, limits=Limits(pass_deadline_s=10.0))
    world.run(1.0)
    close(world)
    world.polls._on_answer = lambda answer: world.clock.advance(4.0) and None
    assert world.polls.verify("cmp-01") == "spoilt"
    assert "given up after 10 s" in world.polls.errors()["verify"]
    held = world.fleet.verification("cmp-01")
    assert held is not None and held.begun_at is None and held.verify_at is not None


def test_a_pass_whose_end_could_not_be_kept_is_made_again(make: Make) -> None:
    """If the database goes away in a pass, the fleet still waits for its end; a new pass is begun when it is back."""
    world = make(hosts=2)
    world.run(1.0)
    close(world)
    world.run(1.0)
    count = itertools.count()

    def break_(answer: Any) -> None:
        if answer.purpose == "verify" and next(count) == 2:
            world.door.broken = True

    world.polls._on_answer = break_
    assert world.polls.verify("cmp-01") == "spoilt"
    assert world.polls.passes_due() == []
    world.door.broken = False
    world.clock.advance(6.0)
    assert world.polls.passes_due() == ["cmp-01"]
    world.until("host.emptied", 120.0)


@pytest.mark.parametrize("spoilable", [True, False])
def test_a_pass_that_fails_by_our_own_fault_does_not_stay_open(
    make: Make, monkeypatch: pytest.MonkeyPatch, spoilable: bool
) -> None:
    """An exception nobody thought of ends the pass, is told, and leaves the host to the next one."""
    world = make(hosts=2)
    world.run(1.0)
    close(world)
    world.run(1.0)
    count = itertools.count()

    def fail(answer: Any) -> None:
        if answer.purpose == "verify" and next(count) == 2:
            raise ZeroDivisionError("a mistake of ours")

    def refuse(host: str, number: int, sentence: str) -> None:
        raise KeyError("another")

    world.polls._on_answer = fail
    if not spoilable:
        monkeypatch.setattr(world.polls, "_spoil", refuse)
    assert world.polls.verify("cmp-01") == "spoilt"
    assert "a mistake of ours" in world.polls.errors()["verify"]
    held = world.fleet.verification("cmp-01")
    assert held is not None and (held.begun_at is None) == spoilable
    monkeypatch.undo()
    world.clock.advance(6.0)
    assert spoilable or world.polls.passes_due() == ["cmp-01"]
    world.until("host.emptied", 120.0)
    assert "verify" not in world.polls.errors()


def test_a_lost_lease_is_passed_on(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job or a pass that finds the fleet to be another's says so, and the polls stop."""
    world = make(hosts=2)
    world.run(1.0)
    close(world)
    told: list[str] = []

    def refuse(observations: object) -> None:
        raise LeaseLost("another has it")

    monkeypatch.setattr(world.door, "admit", refuse)
    for name, work in (("job", world.polls.look_at_services), ("pass", lambda: world.polls.verify("cmp-01"))):
        world.polls._stopping.clear()
        monkeypatch.setattr(world.polls, "_lost", lambda name=name: told.append(name))
        assert work() in (False, "spoilt")
        assert told.pop() == name and world.polls._stopping.is_set()


def test_an_emptied_host_is_proven_again_now_and_then(make: Make) -> None:
    """A server that appears on an emptied host without a word on the bus is found within the slow period."""
    world = make(hosts=2)
    world.run(1.0)
    close(world)
    world.until("host.emptied", 120.0)
    world.hear = False
    world.cloud.add_server("cmp-01")
    world.until("host.occupied", 130.0, step_s=5.0)


# -- ends -------------------------------------------------------------------------------------------------------------


def test_the_end_of_a_migration_is_asked_for_at_once_and_then_less_and_less(make: Make) -> None:
    """A verdict without Nova's word is asked after at once, then after 0.25, 0.5, 1, 2 seconds and so on."""
    world = make(hosts=2, servers=1)
    world.run(1.0)
    server_id = next(iter(world.cloud.hosts["cmp-01"].servers))
    world.cloud.live_migrate(server_id, "cmp-02")
    while not any(m.verdict for m in world.fleet.open_migrations()):
        world.cloud.advance(world.clock.now() + 0.05)
    # From here on Nova's time stands still, and the row's end never comes.
    asked: list[float] = []
    begun = world.clock.now()
    for _ in range(200):
        before = len(world.asked)
        world.polls.look_at_ends()
        if len(world.asked) > before:
            asked.append(round(world.clock.now() - begun, 2))
        world.clock.advance(0.05)
    gaps = [round(b - a, 2) for a, b in itertools.pairwise(asked)]
    assert asked[0] == 0.0 and gaps[:4] == pytest.approx([0.25, 0.5, 1.0, 2.0], abs=0.06)


def test_many_ends_share_one_question(make: Make) -> None:
    """From four migrations about to end on, one list of what changed serves them all."""
    world = make(hosts=2, servers=6, at_once=6)
    world.run(1.0)
    for server_id in list(world.cloud.hosts["cmp-01"].servers):
        world.cloud.live_migrate(server_id, "cmp-02")
    world.cloud.settle()
    assert sum(1 for m in world.fleet.open_migrations() if m.verdict) >= 4
    before = len(world.asked)
    world.polls.look_at_ends()
    lists = [a for a in world.asked[before:] if a.startswith("/os-migrations")]
    assert len(lists) == 1 and "changes-since" in lists[0]
    assert len(world.said("migration.completed")) == 6


def test_what_a_silent_cell_left_out_of_one_reconcile_is_in_the_next(make: Make) -> None:
    """Each asks for what changed since the last but one: a cell that did not answer leaves its servers out unsaid."""
    world = make(hosts=2, servers=2)
    world.run(1.0)
    begun: list[float] = []
    for _ in range(3):
        world.clock.advance(600.0)
        begun.append(world.clock.now())
        world.polls.reconcile()
    asked = [a for a in world.asked if "changes-since" in a and a.startswith("/servers/detail")]
    since = parse_qs(urlsplit(asked[-1]).query)["changes-since"][0]

    assert read_time(since.removesuffix("Z").removesuffix("+00:00")) == pytest.approx(begun[0] - MARGIN_S, abs=1.0)


def test_an_end_nobody_told_is_found_by_reconcile(make: Make) -> None:
    """A migration that we hold open and that Nova's lists of open ones lack is asked after, and ends."""
    world = make(hosts=2, servers=1)
    world.run(1.0)
    server_id = next(iter(world.cloud.hosts["cmp-01"].servers))
    world.cloud.live_migrate(server_id, "cmp-02")
    world.run(2.0)
    assert world.said("migration.started")
    world.hear = False
    world.cloud.settle()
    world.clock.advance(10.0)
    assert world.polls.reconcile() is True
    world.polls.look_at_ends()
    (ended,) = world.said("migration.completed")
    assert ended.data["server_id"] == server_id
    known = world.fleet.server(server_id)
    assert known is not None and known.host == "cmp-02"


def test_an_evacuated_server_is_read_until_it_is_elsewhere(make: Make) -> None:
    """The host of an evacuated server changes after the last notification; maintd knows the new one soon after."""
    world = make(hosts=3, servers=1)
    world.run(1.0)
    world.cloud.kill_compute("cmp-01")
    world.cloud.set_service("cmp-01", forced_down=True)
    server_id = next(iter(world.cloud.hosts["cmp-01"].servers))
    world.run(1.0)
    world.cloud.evacuate(server_id, "cmp-02")
    while not any(m.verdict for m in world.fleet.open_migrations()):
        world.cloud.advance(world.clock.now() + 0.01)
    world.polls.look_at_ends()
    assert f"/servers/{server_id}" in world.asked
    world.run(30.0)
    known = world.fleet.server(server_id)
    assert known is not None and known.host == "cmp-02"
    assert [r.kind for r in world.fleet.residue_on("cmp-01")] == ["evacuated"]


def test_a_server_deleted_while_its_host_was_down_leaves_residue(make: Make) -> None:
    """A forced delete on a dead host is not on the bus; reconcile finds the deleted row, and what it left is kept."""
    world = make(hosts=2, servers=1)
    world.run(1.0)
    world.cloud.kill_compute("cmp-01")
    world.run(100.0, 5.0)
    server_id = next(iter(world.cloud.hosts["cmp-01"].servers))
    world.cloud.delete(server_id, force=True)
    world.run(5.0)
    assert world.polls.reconcile() is True
    assert [(r.server_id, r.kind) for r in world.fleet.residue_on("cmp-01")] == [(server_id, "deleted_while_down")]


def test_running_migrations_are_sampled_every_five_seconds(make: Make) -> None:
    """The byte counters of a running live migration are read each period, not more often."""
    world = make(hosts=2, servers=1)
    world.cloud.knobs.set("live_migration", mode="converge", seconds=60.0)
    world.run(1.0)
    server_id = next(iter(world.cloud.hosts["cmp-01"].servers))
    world.cloud.live_migrate(server_id, "cmp-02")
    world.run(35.0)
    samples = [a for a in world.asked if a == f"/servers/{server_id}/migrations"]
    assert 5 <= len(samples) <= 8
    (migration,) = world.fleet.open_migrations()
    assert migration.progress is not None and migration.progress.memory_remaining_bytes is not None


# -- progress ---------------------------------------------------------------------------------------------------------


def moving(make: Make, count: int, *, hosts: int = 2, mode: str = "diverge", **more: Any) -> tuple[World, list[str]]:
    """A cloud in which so many live migrations leave the first host at once, and the ids of their servers."""
    world = make(hosts=hosts, at_once=count, **more)
    servers = [world.cloud.add_server("cmp-01").id for _ in range(count)]
    world.cloud.knobs.set("live_migration", mode=mode, seconds=20.0)
    world.run(1.0)
    for server_id in servers:
        world.cloud.live_migrate(server_id, "cmp-02")
    return world, servers


def looks(world: World, seconds: float, *, took_s: float = 0.0, step_s: float = 1.0) -> list[tuple[float, str]]:
    """Let the progress job take its turns; when which question of that kind came, each answer taking `took_s`."""
    made: list[tuple[float, str]] = []

    def note(answer: Answer) -> None:
        if answer.purpose == "progress":
            made.append((world.clock.now(), answer.request))
            world.clock.advance(took_s)

    world.polls._on_answer = note
    end = world.clock.now() + seconds
    while world.clock.now() < end:
        world.cloud.advance(world.clock.now() + step_s)
        world.polls.look_at_progress()
    world.polls._on_answer = None
    return made


def per_server(made: list[tuple[float, str]], servers: Iterable[str]) -> dict[str, list[float]]:
    return {s: [at for at, request in made if request.startswith(f"GET /servers/{s}/migrations")] for s in servers}


def test_no_migration_is_looked_at_twice_in_five_seconds(make: Make) -> None:
    """However often the job takes its turn, a server is asked after every five seconds, and never sooner."""
    world, servers = moving(make, 4)
    for step_s in (1.0, 0.25):
        at = per_server(looks(world, 60.0, step_s=step_s), servers)
        apart = [b - a for moments in at.values() for a, b in itertools.pairwise(moments)]
        assert min(apart) >= 4.99 and max(apart) <= 6.01
        assert {len(moments) for moments in at.values()} <= {10, 11, 12, 13}


def test_of_many_migrations_each_is_looked_at_less_often(make: Make) -> None:
    """Sixty at once get fifteen looks in five seconds all together, each its turn, and one list for all of them."""
    world, servers = moving(make, 60)
    looks(world, 30.0)
    made = looks(world, 120.0)
    at = per_server(made, servers)
    assert 330 <= len(made) <= 362
    assert most_in([when for when, _ in made], 5.0) <= 18
    assert min(len(moments) for moments in at.values()) >= 3
    lists = [when for when, request in made if request.startswith("GET /os-migrations")]
    assert 18 <= len(lists) <= 25


def test_the_suspected_are_looked_at_more_than_twice_as_often(make: Make) -> None:
    """Where not all can be looked at often, those in which nothing has changed lately are, and the rest still are."""
    world, servers = moving(make, 60, mode="converge")
    world.cloud.knobs.set("live_migration", mode="converge", seconds=2000.0)
    for server_id in servers[:6]:
        world.cloud.knobs.set("live_migration", server=server_id, mode="stuck", seconds=5.0)
    looks(world, 60.0)
    at = per_server(looks(world, 120.0), servers)
    stuck = [len(at[s]) for s in servers[:6]]
    rest = [len(at[s]) for s in servers[6:]]
    assert min(stuck) >= 2.2 * sum(rest) / len(rest)
    assert min(rest) >= 3


def test_what_is_suspected_is_what_may_soon_be_judged() -> None:
    """A standing stall, an unchanged look, passes that do not shrink, and a first pass just over; nothing else."""
    curve = Curve("k", "s", points=(Point(90.0, 2.0), Point(100.0, 1.0)), changed_at=100.0)
    stall = Stall("stall", "k", "s", "live-migration", "late", 1.0, 2.0)
    cases: list[tuple[bool, list[Curve | Stall]]] = [
        (False, []),
        (False, [curve]),
        (False, [replace(curve, points=())]),
        (True, [replace(curve, changed_at=90.0)]),
        (True, [replace(curve, flat_since=99.0)]),
        (True, [replace(curve, first_pass_ended_at=50.0)]),
        (False, [replace(curve, first_pass_ended_at=39.0)]),
        (True, [curve, stall]),
        (True, [stall, replace(curve, points=())]),
    ]
    for expected, values in cases:
        fleet = Fleet(Policy())
        for value in values:
            fleet.put(value)
        assert expected is _suspected(fleet, "k"), values


def test_nothing_is_asked_when_nothing_moves(make: Make) -> None:
    """No migration under way, no look: not at queued ones either, nor at one that has ended."""
    world = make(hosts=2, servers=2)
    world.run(1.0)
    assert looks(world, 120.0) == []
    world.cloud.knobs.set("live_migration", mode="diverge", seconds=20.0)
    first, second = world.cloud.hosts["cmp-01"].servers
    for server_id in (first, second):
        world.cloud.live_migrate(server_id, "cmp-02")
    at = per_server(looks(world, 30.0), (first, second))
    assert len(at[first]) >= 5 and at[second] == []


def test_a_migration_that_prepares_is_looked_at_seldom(make: Make) -> None:
    """Before a migration runs it has no counters: with a bus, which says when it does, each look waits 15 s."""
    world, servers = moving(make, 3)
    world.cloud.knobs.set("live_migration", mode="silent", seconds=20.0)
    looks(world, 2.0)
    for migration in list(world.fleet.open_migrations()):
        world.fleet.put(replace(migration, phase=Phase.PREPARING))
    with_bus = [m.period_s(Limits()) for m in _moving(world.fleet, True)]
    without = [m.period_s(Limits()) for m in _moving(world.fleet, False)]
    assert (3, 3) == (len(with_bus), len(without))
    assert with_bus == pytest.approx([15.0] * 3, abs=0.01) and without == pytest.approx([5.0] * 3, abs=0.01)


def test_a_slow_nova_is_asked_less(make: Make) -> None:
    """At most half of the time Nova has a question about progress before it: the slower it answers, the fewer come."""
    world, _ = moving(make, 40)
    looks(world, 10.0)
    for took_s, least, most in ((0.1, 290, 320), (1.0, 35, 62), (10.0, 3, 7)):
        made = looks(world, 100.0, took_s=took_s)
        assert least <= len(made) <= most, (took_s, len(made))
        assert len(made) * took_s <= 60.0 + took_s


def test_waiting_for_the_budget_is_no_slowness_of_novas(make: Make) -> None:
    """Where tokens are short, because proofs take them, progress waits for one and no longer."""
    world, _ = moving(make, 3)
    looks(world, 10.0)
    pace = world.polls._pace

    def late(purpose: str | None) -> bool:
        world.clock.advance(3.0)
        return pace(purpose)

    world.polls._pace = late
    assert len(looks(world, 60.0)) >= 12
    assert world.polls._progress_rests_until <= world.clock.monotonic()


def test_a_silent_nova_is_left_alone_for_longer_and_longer(make: Make) -> None:
    """While nothing is answered one turn of at most three questions is made after 5, 10, 30 and then every 60 s; once
    Nova is back the looks are too."""
    world, servers = moving(make, 10)
    looks(world, 10.0)
    world.rest.faults.add(path="/v2.1/*", status=500)
    made = looks(world, 240.0)
    turns = sorted({round(at) for at, _ in made})
    assert len(made) <= 3 * 2 * len(turns) and 5 <= len(turns) <= 8
    assert turns[-1] - turns[-2] >= 59
    assert "500" in world.polls.errors()["progress"]
    world.rest.faults.clear()
    looks(world, 61.0)
    assert "progress" not in world.polls.errors()
    assert min(len(at) for at in per_server(looks(world, 30.0), servers).values()) >= 5


def test_one_server_that_cannot_be_read_keeps_no_other_from_being_looked_at(make: Make) -> None:
    """A fault of one server's answer is said until it passes or the migration is over, and costs the others nothing."""
    world, servers = moving(make, 5)
    looks(world, 10.0)
    world.rest.faults.add(path=f"/v2.1/servers/{servers[2]}/migrations*", status=500)
    at = per_server(looks(world, 60.0), servers)
    assert min(len(at[s]) for s in servers if s != servers[2]) >= 10
    assert servers[2] in world.polls.errors()["progress"]
    world.cloud.knobs.set("live_migration", server=servers[2], mode="converge", seconds=1.0)
    world.run(10.0)
    assert "progress" not in world.polls.errors()


# -- the budget -------------------------------------------------------------------------------------------------------


def test_an_idle_cloud_is_asked_for_services_and_one_small_reconcile(make: Make) -> None:
    """Nothing closed, nothing moving: in ten minutes twenty lists of services and at most fifteen others."""
    world = make(hosts=5, servers=4)
    world.run(1.0)
    world.turn()
    world.last["reconcile"] = world.clock.now()
    world.rest.api.seen.clear()
    world.run(600.0, 5.0)
    services = [a for a in world.asked if a.startswith("/os-services")]
    others = [a for a in world.asked if not a.startswith("/os-services")]
    assert 19 <= len(services) <= 21
    assert len(others) <= 15 and len(world.ear.reconciled_at) >= 2
    assert len(OPEN_STATUSES) + 2 == len(others)


def test_a_hundred_drains_at_once_stay_within_ten_calls_a_second(make: Make) -> None:
    """A hundred hosts that drain at once, each with a migration under way, cost at most ten calls a second."""
    world = make(hosts=102, servers=2)
    world.cloud.knobs.set("live_migration", mode="converge", seconds=45.0)
    world.run(1.0)
    for number in range(1, 101):
        drain(world, f"cmp-{number:03d}")
    world.run(10.0, 5.0)
    world.calls_at.clear()
    begun = world.clock.now()
    world.run(120.0, 2.5)
    spent = world.clock.now() - begun
    assert len(world.calls_at) / spent <= 10.0
    assert most_in([at for at, _ in world.calls_at], 10.0) <= 100
    assert world.ear.jobs["drains", "failed"] == 0


def most_in(moments: list[float], window_s: float) -> int:
    """The most of these moments that lie in any window of so many seconds."""
    return max(sum(1 for at in moments if begun <= at < begun + window_s) for begun in moments)


def test_a_big_cloud_at_rest_is_asked_no_more(make: Make) -> None:
    """With nodes for many pages a reconcile still makes fifteen calls at most, and by and by reads every node."""
    world = make(hosts=9, servers=1)
    world.run(1.0)
    world.rest.faults.max_limit = 2
    world.cloud.add_host("late-01")
    world.cloud.hosts["late-01"].changed_at = world.clock.now()
    world.polls.look_at_services()
    for _ in range(3):
        world.rest.api.seen.clear()
        assert world.polls.reconcile() is True
        assert len(world.asked) <= 15
    host = world.fleet.host("late-01")
    assert host is not None and host.nodes == (world.cloud.hosts["late-01"].provider.uuid,)
    close(world)
    world.run(1.0)
    world.rest.api.seen.clear()
    world.polls.reconcile()
    assert len([a for a in world.asked if a.startswith("/os-hypervisors/detail")]) == 6  # now somebody may ask


def test_a_list_of_nodes_that_breaks_off_is_begun_again(make: Make) -> None:
    """A page that fails ends the list that is being read by and by; the next reconcile reads the first page again."""
    world = make(hosts=9)
    world.run(1.0)
    world.rest.faults.max_limit = 2
    assert world.polls.reconcile() is True
    fault = world.rest.faults.add(path="/v2.1/os-hypervisors/detail*marker*", status=500)
    assert world.polls.reconcile() is False
    world.rest.faults.remove(fault)
    world.rest.api.seen.clear()
    assert world.polls.reconcile() is True
    nodes = [a for a in world.asked if a.startswith("/os-hypervisors/detail")]
    assert len(nodes) == 2 and "marker" not in nodes[0]


def test_no_pass_keeps_the_healing_waiting(make: Make) -> None:
    """While a gap can be made up for no pass is begun; once it is, or where that fails, passes go on."""
    world = make(hosts=3)
    world.run(1.0)
    close(world)
    now = world.clock.now()
    world.door.admit((BusSeen(now, Because("clock"), "default", "lost"),))
    assert world.polls.passes_due() == ["cmp-01"]
    world.door.admit((BusSeen(now, Because("clock"), "default", "connected"),))
    assert world.polls.passes_due() == []
    fault = world.rest.faults.add(path="/v2.1/os-services*", status=500)
    assert world.polls.whole_once() is False
    assert world.polls.passes_due() == ["cmp-01"]
    world.rest.faults.remove(fault)
    world.clock.advance(10.0)
    assert world.polls.whole_once() is True
    assert world.said("bus.healed") and world.polls.passes_due() == ["cmp-01"]


def test_a_host_that_is_being_proven_is_not_listed_as_well(make: Make) -> None:
    """While passes over a host are wanted its servers are not listed for the drain too; while something is on it, and
    so no pass, they are."""
    world = make(hosts=3, servers=1)
    world.cloud.knobs.set("live_migration", mode="converge", seconds=20.0)
    world.run(1.0)
    drain(world, "cmp-01")
    world.run(5.0)
    assert world.fleet.open_migrations_on("cmp-01")
    world.rest.api.seen.clear()
    world.polls._listed_at.clear()
    assert world.polls.look_at_drains() is True
    assert any("host=cmp-01" in a for a in world.asked)
    while (held := world.fleet.verification("cmp-01")) is None or held.first is None:
        world.run(0.5)
    world.rest.api.seen.clear()
    world.polls._listed_at.clear()
    assert world.polls.look_at_drains() is True
    assert world.asked == []
    world.until("host.emptied", 60.0)


def test_the_pass_that_may_end_in_a_proof_comes_first(make: Make) -> None:
    """Of the hosts that wait for a pass, one whose first pass found nothing is had before one that had none yet, and a
    proof that is only made again comes last."""
    world = make(hosts=4)
    world.run(1.0)
    close(world, "cmp-03")
    world.until("host.emptied", 120.0)
    close(world, "cmp-02")
    while (held := world.fleet.verification("cmp-02")) is None or held.first is None:
        world.run(0.5)
    close(world, "cmp-01")
    for host in ("cmp-03", "cmp-01", "cmp-02"):
        world.polls._want_pass(host)
    assert [world.polls._passes.get_nowait()[-1] for _ in range(3)] == ["cmp-02", "cmp-01", "cmp-03"]


def test_many_ends_share_one_list_a_second(make: Make) -> None:
    """While many migrations are about to end, what changed is asked for once a second, however many become due."""
    world = make(hosts=2, servers=8, at_once=8)
    world.run(1.0)
    for server_id in list(world.cloud.hosts["cmp-01"].servers):
        world.cloud.live_migrate(server_id, "cmp-02")
    while sum(1 for m in world.fleet.open_migrations() if m.verdict) < 4:
        world.cloud.advance(world.clock.now() + 0.05)
    # From here on Nova's time stands still, and no row ends.
    before = len(world.asked)
    for _ in range(60):
        world.polls.look_at_ends()
        world.clock.advance(0.05)
    asked = [a for a in world.asked[before:] if a.startswith("/os-migrations")]
    assert 2 <= len(asked) <= 4 and all("changes-since" in a for a in asked)


def bucket(rate: float = 8.0, burst: float = 16.0, reserve: float = 8.0) -> tuple[Budget, ManualClock]:
    clock = ManualClock(0.0)

    def wait(seconds: float) -> bool:
        clock.advance(seconds)
        return False

    return Budget(clock, wait, rate=rate, burst=burst, reserve=reserve), clock


def test_every_call_goes_through_the_budget(make: Make) -> None:
    """Nobody has to remember the budget: polls put it before every call of the API that they are given."""
    world = make()
    world.polls.whole_once()
    served = [s for s in world.rest.api.seen if s.target.startswith("/v2.1/") and s.target != "/v2.1/"]
    assert len(world.calls_at) == len(served) > 10
    plain = NovaApi(config(world.rest), world.clock)
    polls = Polls(plain, world.door, world.clock)
    assert plain.pace == polls._take
    assert isinstance(getattr(polls._pace, "__self__", None), Budget)


def test_the_budget_holds_its_rate() -> None:
    """A hundred calls beyond the burst take a hundred divided by the rate seconds."""
    budget, clock = bucket()
    for _ in range(116):
        assert budget.take("verify")
    assert clock.now() == pytest.approx(100 / 8.0, abs=0.2)


def test_what_can_wait_leaves_a_reserve() -> None:
    """Lists stop at the reserve and wait; a proof then still goes ahead without waiting."""
    budget, clock = bucket()
    for _ in range(8):
        budget.take("reconcile")
    assert clock.now() == 0.0
    for _ in range(8):
        budget.take("verify")
    assert clock.now() == 0.0
    budget.take("reconcile")
    assert clock.now() >= 1.0


def test_the_budget_never_gives_more_than_ten_a_second_in_any_ten() -> None:
    """As it is by default, a bucket that rested and is then asked without end gives a hundred tokens in ten seconds at
    most, in whichever ten."""
    clock = ManualClock(0.0)

    def wait(seconds: float) -> bool:
        clock.advance(seconds)
        return False

    budget = Budget(clock, wait)
    moments = []
    for number in range(400):
        assert budget.take("verify" if number % 3 else "reconcile")
        moments.append(clock.now())
        if number == 150:
            clock.advance(3.7)
    assert most_in(moments, 10.0) <= 100
    assert len(moments) / clock.now() > 8.0


def test_what_can_wait_gets_its_turn_however_much_is_urgent() -> None:
    """While proofs ask for more than there is, one token in four goes to what can wait, to who has waited longest."""
    clock = SystemClock()
    stopping = threading.Event()
    budget = Budget(clock, stopping.wait, rate=200.0, burst=4.0, reserve=3.0)
    given: list[str] = []

    def ask(purpose: str) -> None:
        while budget.take(purpose):
            given.append(purpose)

    askers = ("verify", "verify", "verify", "end", "services", "reconcile", "progress")
    threads = [threading.Thread(target=ask, args=(purpose,), daemon=True) for purpose in askers]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(given) > 400)
    stopping.set()
    for thread in threads:
        thread.join(5.0)
    counted = Counter(given[20:400])
    urgent = counted["verify"] + counted["end"]
    assert 60 <= 380 - urgent <= 130  # a quarter, give or take
    assert min(counted["services"], counted["reconcile"], counted["progress"]) >= 15


def test_the_budget_gives_nothing_once_stopping() -> None:
    """Whoever waits for a token when the daemon stops is sent away without one."""
    budget = Budget(ManualClock(0.0), lambda seconds: True, rate=1.0, burst=1.0, reserve=0.0)
    assert budget.take("verify") is True
    assert budget.take("verify") is False
    assert budget.take("reconcile") is False
    assert not budget._line  # and nobody waits behind who is not there any more


# -- threads ----------------------------------------------------------------------------------------------------------


def wait_for(true: Callable[[], bool], limit_s: float = 15.0) -> None:
    until = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        threading.Event().wait(0.01)


@dataclass
class Live:
    """The polls with real threads and the machine's clock."""

    rest: RestServer
    cloud: Cloud
    fleet: Fleet
    door: Door
    polls: Polls
    ear: Ear


@pytest.fixture
def live(serve: Serve) -> Iterator[Callable[..., Live]]:
    started: list[Polls] = []

    def build(limits: Limits, timeout_s: float = 5.0) -> Live:
        clock: Clock = SystemClock()
        cloud = Cloud(clock)
        cloud.fill(2, 1)
        rest = serve(cloud)
        fleet = Fleet(Policy(has_cloud=True, has_bus=False, settle_s=0.5))
        fleet.put(Knowledge(memory_since=clock.now()))
        ids = itertools.count(1)
        door = Door(fleet, clock=clock, ids=lambda: f"{next(ids):08d}", installation="test")
        ear, stopping = Ear(), threading.Event()
        api = NovaApi(config(rest, timeout_s), clock)
        pace = Budget(clock, stopping.wait, rate=200.0, burst=400.0).take
        polls = Polls(api, door, clock, has_bus=False, limits=limits, listener=ear, stopping=stopping, pace=pace)
        started.append(polls)
        return Live(rest, cloud, fleet, door, polls, ear)

    yield build
    for polls in started:
        polls.stop()


def test_the_schedule_runs_and_a_host_is_proven_empty_by_it(live: Callable[..., Live]) -> None:
    """With all threads running, a closed empty host is proven empty without anybody calling a job."""
    world = live(Limits(services_without_bus_s=0.2))
    world.polls.start()
    wait_for(lambda: world.door.read(lambda f: f.knowledge is not None and f.knowledge.baselined_at is not None))
    world.cloud.delete(next(iter(world.cloud.hosts["cmp-01"].servers)))
    world.cloud.advance(time.time() + 30.0)
    world.cloud.disable("cmp-01", "maintenance")
    wait_for(lambda: any(h.emptied for h in world.door.read(lambda f: list(f.hosts()))), 40.0)
    assert world.polls.errors() == {}


def test_a_job_that_hangs_is_counted_and_does_not_hold_up_the_others(live: Callable[..., Live]) -> None:
    """While a list of services hangs, its next turns are counted as overrun, and other jobs go on."""
    world = live(Limits(services_without_bus_s=0.1, progress_s=0.1), timeout_s=3.0)
    world.polls.start()
    wait_for(lambda: world.ear.jobs["baseline", "done"] == 1)
    world.rest.faults.add(path="/v2.1/os-services*", slow_s=30.0)
    wait_for(lambda: world.ear.jobs["services", "overrun"] >= 2)
    before = world.ear.jobs["progress", "done"]
    wait_for(lambda: world.ear.jobs["progress", "done"] > before)


def test_a_nova_that_hangs_is_no_stuck_worker(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    """While every call hangs the polls are healthy; when a worker dies or stands still they are not."""
    monkeypatch.setattr(polls_module, "STUCK_S", 3.0)
    world = live(Limits(services_without_bus_s=0.1), timeout_s=30.0)
    world.rest.faults.add(slow_s=30.0)
    world.polls.start()
    began = time.monotonic()
    wait_for(lambda: time.monotonic() - began > 4.0)
    assert world.polls.healthy(time.monotonic())
    assert not world.polls.healthy(time.monotonic() + 4.0)
    dead = threading.Thread(target=lambda: None)
    world.polls._threads.append(dead)
    assert not world.polls.healthy(time.monotonic())
    world.polls._threads.remove(dead)


def test_stopping_does_not_wait_for_a_hanging_nova(live: Callable[..., Live]) -> None:
    """With a call that hangs, stop returns within the time it was given."""
    world = live(Limits(services_without_bus_s=0.1), timeout_s=30.0)
    world.polls.start()
    wait_for(lambda: world.ear.jobs["baseline", "done"] == 1)
    world.rest.faults.add(slow_s=30.0)
    wait_for(lambda: world.ear.jobs["services", "overrun"] >= 1)
    begun = time.monotonic()
    world.polls.stop(timeout_s=1.0)
    assert time.monotonic() - begun < 4.0


@pytest.mark.parametrize(
    ("phase", "verdict", "host", "asked"),
    [
        (Phase.AWAITING_CONFIRMATION, None, "cmp-02", True),
        (Phase.AWAITING_CONFIRMATION, Phase.COMPLETED, "cmp-02", False),
        (Phase.RUNNING, None, "cmp-02", False),
        (Phase.RUNNING, None, None, True),
    ],
)
def test_a_server_is_asked_after_whose_move_no_list_shows(
    phase: Phase, verdict: Phase | None, host: str | None, asked: bool
) -> None:
    """Of an unconfirmed move, or where a list of everything had left the server out: its row may have gone with the
    server itself. Where an end is about to be told, the row is asked for alone."""
    fleet = Fleet()
    fleet.put(Server("s1", host=host, vm_state="resized"))
    fleet.put(Migration("k1", "s1", Kind.COLD, phase, "cmp-01", "cmp-02", verdict=verdict))

    assert asked is _is_unsure(fleet, "s1")
