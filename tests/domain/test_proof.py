"""Verification passes: what each may show, and that only two whole, undisturbed, empty ones prove a host empty."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import count

import pytest

from maintd.domain.emptiness import BLOCKER_KINDS
from maintd.domain.events import Event, HostEmptied
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Blocker, Kind, Knowledge, Policy
from maintd.domain.observations import (
    BaselineCompleted,
    BusSeen,
    HostHinted,
    MigrationSeen,
    NodesSeen,
    Observation,
    PassBegun,
    PassRead,
    Read,
    ResidueCleared,
    ServerSeen,
    ServersListed,
    ServiceSeen,
)
from maintd.domain.reducer import reduce

API = Because("api")
BUS = Because("notification", "service.update", "m1", "req-1")
H = "cmp-01"
NODE = "node-1"


@dataclass
class Story:
    """A fleet with one closed host, and the hands to feed it."""

    policy: Policy = field(default_factory=lambda: Policy(has_cloud=True))
    now: float = 1000.0
    events: list[Event] = field(default_factory=list)
    passes: int = 0

    def __post_init__(self) -> None:
        self.fleet = Fleet(self.policy)
        self.fleet.put(Knowledge(memory_since=0.0))
        self.ids = count(1)

    def see(self, *observations: Observation) -> list[Event]:
        said: list[Event] = []
        for observation in observations:
            outcome = reduce(self.fleet, observation, lambda: str(next(self.ids)))
            self.fleet.apply(outcome)
            said += outcome.events
        self.events += said
        return said

    def service(self, **over: object) -> ServiceSeen:
        base = ServiceSeen(self.now, API, H, "svc-1", True, "maintenance", False, True, asked_at=self.now)
        return replace(base, **over)  # type: ignore[arg-type]

    def closed(self) -> Story:
        """Open at first sight, then disabled by a live service.update."""
        self.see(self.service(disabled=False, disabled_reason=None), NodesSeen(self.now, API, H, (NODE,)))
        self.now += 1
        self.see(self.service(because=BUS, change="updated", asked_at=None, up=None, emitted_at=self.now))
        return self

    def reads(self) -> dict[str, PassRead]:
        """The reads of one pass over an empty, disabled, living host, by name, in order."""
        self.passes += 1

        def read(kind: Read, target: str | None = None, found: tuple[object, ...] = ()) -> PassRead:
            return PassRead(self.now, API, H, self.passes, kind, self.now, target, found)

        return {
            "before": read(Read.MIGRATIONS),
            "hypervisor": read(Read.HYPERVISOR, NODE),
            "servers": read(Read.SERVERS),
            "providers": read(Read.PROVIDERS, NODE, (NODE,)),
            "allocations": read(Read.ALLOCATIONS, NODE),
            "traits": read(Read.TRAITS, NODE, ("COMPUTE_STATUS_DISABLED",)),
            "after": read(Read.MIGRATIONS),
            "service": read(Read.SERVICE, None, (self.service(),)),
        }

    def verify(self, change: Callable[[dict[str, PassRead]], None] = lambda reads: None) -> list[Event]:
        """One pass, with some of its reads changed; takes half a second."""
        reads = self.reads()
        change(reads)
        said = self.see(PassBegun(self.now, API, H, self.passes))
        self.now += 0.5
        for read in reads.values():
            # What an answer shows of the service is seen first, as it is when the answer is taken in.
            seen = [s for s in read.found if isinstance(s, ServiceSeen)] if read.read is Read.SERVICE else []
            if len(seen) != 1 or (known := self.fleet.host(H)) is None or known.down:
                seen = []
            said += self.see(*(replace(s, seen_at=self.now, asked_at=self.now) for s in seen))
            said += self.see(replace(read, seen_at=self.now))
        return said

    def blockers(self) -> tuple[Blocker, ...]:
        host = self.fleet.host(H)
        assert host is not None and host.finding is not None
        return host.finding.blockers


def emptied(events: list[Event]) -> list[HostEmptied]:
    return [event for event in events if isinstance(event, HostEmptied)]


def test_two_empty_passes_settle_s_apart_prove_it() -> None:
    """A closed host that two undisturbed passes find empty is emptied, with the reads of both as its proof."""
    story = Story().closed()

    assert [] == emptied(story.verify())
    story.now += 15
    said = emptied(story.verify())

    assert 1 == len(said)
    assert 16 == len(said[0].proof)
    assert 0.0 == said[0].memory_since


def test_two_passes_too_close_prove_nothing() -> None:
    """Passes less than settle_s apart are one look, not two."""
    story = Story().closed()
    story.verify()
    story.now += 10

    assert [] == emptied(story.verify())


@pytest.mark.parametrize("missing", ["before", "hypervisor", "servers", "providers", "allocations", "after", "traits"])
def test_a_pass_without_one_of_its_reads_proves_nothing(missing: str) -> None:
    """Leave any one read out, and the host is not found empty."""
    story = Story().closed()
    for _ in range(3):
        assert [] == emptied(story.verify(lambda reads: reads.pop(missing)))
        story.now += 20

    assert story.blockers()


@pytest.mark.parametrize(
    "failing", ["before", "hypervisor", "servers", "providers", "allocations", "traits", "after", "service"]
)
def test_a_read_that_fails_spoils_the_pass_and_says_so(failing: str) -> None:
    """An answer that did not come is a blocker with its reason, never an empty list."""
    story = Story().closed()

    def fail(reads: dict[str, PassRead]) -> None:
        reads[failing] = replace(reads[failing], found=(), error="503 Service Unavailable", complete=False)

    for _ in range(3):
        assert [] == emptied(story.verify(fail))
        story.now += 20

    assert "unverified" == story.blockers()[0].kind
    assert "503" in str(story.blockers()[0].detail)


def test_half_a_page_proves_nothing() -> None:
    """A list whose next page never came is no list."""
    story = Story().closed()

    def halve(reads: dict[str, PassRead]) -> None:
        reads["servers"] = replace(reads["servers"], complete=False)

    for _ in range(3):
        assert [] == emptied(story.verify(halve))
        story.now += 20


def test_reads_out_of_order_prove_nothing() -> None:
    """Placement read before the servers could miss an arrival in both; such a pass is spoilt."""
    story = Story().closed()

    def swap(reads: dict[str, PassRead]) -> None:
        order = ["before", "providers", "allocations", "hypervisor", "servers", "traits", "after", "service"]
        copy = {name: reads[name] for name in order}
        reads.clear()
        reads.update(copy)

    for _ in range(3):
        assert [] == emptied(story.verify(swap))
        story.now += 20


def test_a_notification_between_the_passes_begins_anew() -> None:
    """Anything seen of the host between the passes makes the first one worth nothing."""
    story = Story().closed()
    story.verify()
    story.now += 10
    story.see(HostHinted(story.now, BUS, H))
    story.now += 5

    assert [] == emptied(story.verify())
    story.now += 15
    assert 1 == len(emptied(story.verify()))


def test_a_notification_during_a_pass_spoils_it() -> None:
    """A pass holds only if nothing was seen of the host from its beginning to its end."""
    story = Story().closed()
    story.verify()
    story.now += 15
    reads = story.reads()
    story.see(PassBegun(story.now, API, H, story.passes))
    said: list[Event] = []
    for name, read in reads.items():
        if name == "allocations":
            story.see(HostHinted(story.now, BUS, H))
        said += story.see(read)

    assert [] == emptied(said)


SERVER = ServerSeen(0.0, API, "s1", host=H, vm_state="active", trusted=True, asked_at=0.0)


def row(status: str, kind: Kind = Kind.LIVE, source: str = H, destination: str = "cmp-02") -> MigrationSeen:
    return MigrationSeen(0.0, API, "s1", 7, "mig-1", kind, status, source, destination, asked_at=0.0)


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("not_attempted", {"servers": (SERVER,), "hypervisor": ("s1",)}),
        ("cannot_live_migrate", {"servers": (replace(SERVER, vm_state="stopped"),), "hypervisor": ("s1",)}),
        ("soft_deleted", {"servers": (replace(SERVER, vm_state="soft-delete"),), "hypervisor": ("s1",)}),
        ("incoming", {"servers": (replace(SERVER, vm_state="building"),), "hypervisor": ("s1",)}),
        ("hidden_server", {"hypervisor": ("s1",)}),
        ("moving", {"before": (row("running"),)}),
        ("moving", {"after": (row("running (post-copy)"),)}),
        ("moving", {"after": (row("a status of a later Nova"),)}),
        ("unconfirmed_resize", {"before": (row("finished", Kind.RESIZE),), "after": (row("finished", Kind.RESIZE),)}),
        ("incoming", {"after": (row("preparing", source="cmp-02", destination=H),)}),
        ("residue", {"before": (row("done", Kind.EVACUATION),), "after": (row("done", Kind.EVACUATION),)}),
        ("allocation", {"allocations": ("mig-1",), "before": (row("completed"),), "after": (row("completed"),)}),
        ("incoming", {"allocations": ("nobody-knows",)}),
        ("not_closed", {"traits": ()}),
        ("not_closed", {"service": "enabled"}),
        ("cell_unknown", {"service": "unknown"}),
        ("ambiguous_service", {"service": "none"}),
        ("ambiguous_service", {"service": "two"}),
    ],
)
def test_each_thing_on_a_host_is_a_blocker_of_its_kind(kind: str, changed: dict[str, object]) -> None:
    """Whatever a pass shows on a host (facts 6.1) keeps it from being emptied, by a blocker with a documented kind."""
    story = Story().closed()

    def change(reads: dict[str, PassRead]) -> None:
        services = {
            "enabled": (story.service(disabled=False),),
            "unknown": (story.service(cell_unknown=True),),
            "none": (),
            "two": (story.service(), story.service(service_uuid="svc-2")),
        }
        for name, found in changed.items():
            value = services[found] if isinstance(found, str) else found
            reads[name] = replace(reads[name], found=value)  # type: ignore[arg-type]

    for _ in range(3):
        assert [] == emptied(story.verify(change))
        story.now += 20

    assert kind in {blocker.kind for blocker in story.blockers()}
    assert {blocker.kind for blocker in story.blockers()} <= set(BLOCKER_KINDS)


def test_a_leaked_allocation_is_a_warning_after_its_grace() -> None:
    """A leftover that Placement keeps for a move long over warns, and does not block for ever."""
    story = Story().closed()

    def leak(reads: dict[str, PassRead]) -> None:
        reads["allocations"] = replace(reads["allocations"], found=("mig-1",))
        for name in ("before", "after"):
            reads[name] = replace(reads[name], found=(row("completed"),))

    story.verify(leak)
    assert "allocation" == story.blockers()[0].kind
    story.now += 301
    story.verify(leak)
    story.now += 15
    said = emptied(story.verify(leak))

    assert ["leftover_allocation"] == [note.kind for note in said[0].warnings]


def test_a_blind_bus_blocks_until_it_is_healed() -> None:
    """While notifications may have been missed, nothing is proven; after the API was read again, it is."""
    story = Story().closed()
    story.see(BusSeen(story.now, Because("clock"), "default", "connected"))
    story.see(BusSeen(story.now, Because("clock"), "default", "lost"))
    story.verify()
    assert "blind" == story.blockers()[0].kind
    story.now += 20
    story.see(BusSeen(story.now, Because("clock"), "default", "connected"))
    story.see(BaselineCompleted(story.now + 1, API, story.now + 0.5))
    story.now += 2
    story.verify()
    story.now += 15

    assert 1 == len(emptied(story.verify()))
    assert ["bus.blinded", "bus.healed"] == [e.TYPE for e in story.events if e.TYPE.startswith("bus.")]


def test_a_host_found_down_needs_an_operators_word() -> None:
    """What was evacuated from a host that was down at first sight is not known, until an operator has looked."""
    story = Story()
    story.see(story.service(up=False, forced_down=True), NodesSeen(story.now, API, H, (NODE,)))

    def down(reads: dict[str, PassRead]) -> None:
        reads["service"] = replace(reads["service"], found=(story.service(up=False, forced_down=True),))

    story.now += 1
    story.verify(down)
    assert "history_unknown" == story.blockers()[0].kind
    story.see(ResidueCleared(story.now, Because("operator"), H, "op"))
    story.now += 1
    story.verify(down)
    story.now += 15
    story.verify(down)
    host = story.fleet.host(H)

    assert host is not None and host.emptied


def _with_a_server() -> Story:
    story = Story().closed()
    story.see(ServerSeen(story.now, BUS, "s1", host=H, vm_state="active", trusted=True, emitted_at=story.now))
    story.now += 10
    return story


def _updated_as_deleted(story: Story) -> Observation:
    return ServerSeen(
        story.now, BUS, "s1", host=H, vm_state="deleted", trusted=True, deleted=True, emitted_at=story.now
    )


def _not_found(story: Story) -> Observation:
    return ServerSeen(story.now, API, "s1", trusted=True, deleted=True, emitted_at=story.now, asked_at=story.now)


def _not_listed(story: Story) -> Observation:
    return ServersListed(story.now, API, story.now, H, frozenset())


def suspected(story: Story) -> list[str]:
    """Servers of which it is not known yet whether their compute ran when they went."""
    host = story.fleet.host(H)
    assert host is not None
    return [gone.server_id for gone in host.departures if not gone.lived]


GOES_UNEXPLAINED = pytest.mark.parametrize("goes", [_updated_as_deleted, _not_found, _not_listed])


@GOES_UNEXPLAINED
def test_a_forced_delete_is_found_out_when_the_compute_was_down_before_we_knew(
    goes: Callable[[Story], Observation],
) -> None:
    """Nova deletes by itself as soon as it finds the compute down, and says no more than that the server is gone."""
    story = _with_a_server()
    story.see(goes(story))
    story.now += 1
    story.see(story.service(up=False, down_since=story.now - 60))

    assert [("s1", "deleted_while_down")] == [(r.server_id, r.kind) for r in story.fleet.residue_on(H)]
    story.see(story.service(up=True))  # what was found out stays, with nova-compute back
    for _ in range(3):
        story.now += 20
        assert [] == emptied(story.verify())
    story.see(ResidueCleared(story.now, Because("operator"), H, "op"))
    story.now += 1
    story.verify()
    story.now += 15
    assert 1 == len(emptied(story.verify()))


@GOES_UNEXPLAINED
def test_a_server_that_goes_unexplained_leaves_nothing_where_the_compute_runs(
    goes: Callable[[Story], Observation],
) -> None:
    """A lost notification is no residue: the service, asked after it went, runs, so it was nova-compute's doing."""
    story = _with_a_server()
    asked_before = story.service()
    story.now += 1
    story.see(goes(story))
    story.see(asked_before)
    assert ["s1"] == suspected(story)
    story.now += 1
    story.see(story.service())

    assert ([], []) == (suspected(story), list(story.fleet.residue_on(H)))
    story.now += 1
    story.verify()
    story.now += 15
    assert 1 == len(emptied(story.verify()))


@pytest.mark.parametrize("up", [True, False])
def test_the_compute_vouches_for_what_it_deletes(up: bool) -> None:
    """delete.end of nova-compute itself takes back what its update had let fear, though the host be forced down."""
    story = _with_a_server()
    if not up:
        story.see(story.service(forced_down=True))
    story.see(_updated_as_deleted(story))
    kinds = [r.kind for r in story.fleet.residue_on(H)]
    assert ((["s1"], []) if up else ([], ["deleted_while_down"])) == (suspected(story), kinds)
    end = _updated_as_deleted(story)
    story.see(replace(end, reporter=H))  # type: ignore[call-arg]

    assert ([], []) == (suspected(story), list(story.fleet.residue_on(H)))


def test_nothing_is_suspected_where_nothing_can_be_asked() -> None:
    """Without an API no service can be asked after, and nothing is proven anyway."""
    story = Story(Policy(has_cloud=False))
    story.see(story.service(because=BUS, change="updated", asked_at=None, up=None, emitted_at=story.now))
    story.see(ServerSeen(story.now, BUS, "s1", host=H, vm_state="active", trusted=True, emitted_at=story.now))
    story.see(_updated_as_deleted(story))

    assert ([], []) == (suspected(story), list(story.fleet.residue_on(H)))


def test_what_a_recording_can_say_is_waited_for() -> None:
    """A replay has no API, but its recording has answers: where one has told a heartbeat, a later one may tell that the
    host was down, so who left unexplained is suspected.
    """
    story = Story(Policy(has_cloud=False)).closed()
    story.see(ServerSeen(story.now, BUS, "s1", host=H, vm_state="active", trusted=True, emitted_at=story.now))
    story.see(_updated_as_deleted(story))

    assert ["s1"] == [gone.server_id for gone in story.fleet.host(H).departures]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("found_down", "deleted_at", "left"), [(False, 800.0, []), (False, 880.0, ["s8"]), (True, 800.0, ["s8"])]
)
def test_what_was_deleted_before_we_came_is_no_residue_where_the_host_was_found_up(
    found_down: bool, deleted_at: float, left: list[str]
) -> None:
    """A list of what has changed reaches back beyond our memory; only if the host was down at first, that matters."""
    story = Story()
    story.fleet.put(Knowledge(memory_since=900.0))
    story.see(story.service(disabled=False, up=not found_down, down_since=950.0 if found_down else None))
    story.now += 60
    story.see(story.service(up=False, down_since=story.now))
    story.see(
        ServerSeen(
            story.now, API, "s8", host=H, vm_state="deleted", trusted=True, deleted=True, updated_at=deleted_at,
            emitted_at=story.now, asked_at=story.now,
        )
    )  # fmt: skip

    assert left == [r.server_id for r in story.fleet.residue_on(H)]


def test_a_local_delete_leaves_residue_until_it_is_cleared() -> None:
    """A server deleted while its host is down may still run there: the ledger says so, and Nova no longer does."""
    story = Story().closed()
    story.see(ServerSeen(story.now, BUS, "s1", host=H, vm_state="active", trusted=True, emitted_at=story.now))
    story.see(
        ServerSeen(
            story.now, BUS, "s1", host=H, vm_state="deleted", trusted=True, deleted=True, local_delete=True,
            emitted_at=story.now,
        )
    )  # fmt: skip
    for _ in range(3):
        story.now += 20
        assert [] == emptied(story.verify())
    assert "residue" == story.blockers()[0].kind
    story.see(ResidueCleared(story.now, Because("operator"), H, "op"))
    story.now += 1
    story.verify()
    story.now += 15

    assert 1 == len(emptied(story.verify()))


def test_a_host_that_was_empty_at_first_sight_is_shown_and_not_announced() -> None:
    """First sight is a baseline: a start of maintd announces no empty host, and status knows it."""
    story = Story()
    story.see(story.service(), NodesSeen(story.now, API, H, (NODE,)))
    story.now += 1
    story.verify()
    story.now += 15
    story.verify()
    host = story.fleet.host(H)

    assert [] == story.events
    assert host is not None and host.emptied


def test_an_arrival_takes_emptied_back_at_once() -> None:
    """As soon as a server lands on, or is on its way to, an emptied closed host, host.occupied says so; then again."""
    story = Story().closed()
    story.verify()
    story.now += 15
    story.verify()
    story.now += 1
    said = story.see(ServerSeen(story.now, BUS, "s9", vm_state="building", reporter=H, landing=H, emitted_at=story.now))
    assert ["host.occupied"] == [e.TYPE for e in said]
    story.see(
        ServerSeen(
            story.now, BUS, "s9", host=H, vm_state="deleted", deleted=True, trusted=True, reporter=H,
            emitted_at=story.now,
        )
    )  # fmt: skip
    story.now += 1
    story.verify()
    story.now += 15

    assert 1 == len(emptied(story.verify()))


def test_opening_an_emptied_host_says_reopened_and_ends_the_drain() -> None:
    """Between two emptied of a host stands an occupied, a reopened or a removed; opening says reopened at once."""
    story = Story().closed()
    story.verify()
    story.now += 15
    story.verify()
    story.now += 1
    story.see(
        story.service(
            because=BUS, change="updated", asked_at=None, disabled=False, disabled_reason=None, emitted_at=story.now
        )
    )

    assert [
        "service.disabled",
        "drain.started",
        "host.emptied",
        "service.enabled",
        "host.reopened",
        "drain.ended",
    ] == [e.TYPE for e in story.events]


def test_a_whole_list_without_a_server_is_its_departure() -> None:
    """A complete list of the host's servers clears what we held there and nobody spoke of since."""
    story = Story().closed()
    story.see(ServerSeen(story.now, API, "s1", host=H, vm_state="active", trusted=True, asked_at=story.now))
    story.now += 5
    story.see(ServersListed(story.now, API, story.now - 1, H, frozenset()))

    assert set() == set(story.fleet.servers_on(H))
