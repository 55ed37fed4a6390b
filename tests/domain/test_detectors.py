"""The detectors: a table of situations and what may be said of each, and what becomes of a verdict in the fleet."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import pytest

from maintd.domain.detectors import ADVICE, DETECTORS, judge_all
from maintd.domain.detectors.case import Case
from maintd.domain.fleet import Fleet
from maintd.domain.model import (
    STALL_AFTER_S,
    Because,
    Bus,
    Curve,
    Host,
    Kind,
    Migration,
    Phase,
    Point,
    Policy,
    Progress,
    Server,
    Stall,
)
from maintd.domain.observations import (
    BusSeen,
    MigrationSeen,
    MovesListed,
    ProgressSeen,
    ServerSeen,
    ServiceSeen,
    ServicesListed,
    Step,
    TimerDue,
)
from maintd.domain.reducer import reduce
from tests.domain.precopy import Guest, tell

API = Because("api")
POLICY = Policy()
SAMPLE = Progress(memory_total_bytes=100, memory_processed_bytes=10, memory_remaining_bytes=90)
GIB = 1024**3


def migration(phase: Phase, **over: object) -> Migration:
    values: dict[str, object] = {"source": "a", "destination": "b", "moved_at": 1000.0, **over}
    return Migration("k", "s", values.pop("kind", Kind.LIVE), phase, **values)  # type: ignore[arg-type]


def bytes_curve(**over: object) -> Curve:
    base = Curve("k", "s", total=8.0 * GIB, began_at=1000.0, changed_at=1000.0, points=(Point(1000.0, 8.0 * GIB),))
    return replace(base, **over)  # type: ignore[arg-type]


def percent_curve(last_at: float, looks: int = 5) -> Curve:
    return Curve("k", "s", unit="percent", total=100.0, looks=looks, points=(Point(last_at, 40.0),))


def down(name: str, since: float = 1000.0, **over: object) -> Host:
    return replace(Host(name, up=False, down_since=since), **over)  # type: ignore[arg-type]


RUNNING = migration(Phase.RUNNING)
LIVE_POST_COPY = migration(Phase.RUNNING, post_copy=True, sampled_at=1060.0)


@pytest.mark.parametrize(
    ("reason", "case", "now"),
    [
        (None, {"migration": migration(Phase.RUNNING, progress=SAMPLE, sampled_at=1055.0)}, 1055.0),
        ("frozen", {"migration": migration(Phase.RUNNING, progress=SAMPLE, sampled_at=1060.0)}, 1060.0),
        # Nobody has looked for a while: that is no evidence.
        (None, {"migration": migration(Phase.RUNNING, progress=SAMPLE, sampled_at=1010.0)}, 5000.0),
        # No counters ever seen.
        (None, {"migration": RUNNING}, 9000.0),
        # In post-copy the row alone is looked at.
        ("frozen", {"migration": LIVE_POST_COPY}, 1060.0),
        # From the bus: some percentages, then silence; a percentage that stays is none.
        (None, {"migration": RUNNING, "curve": percent_curve(1000.0)}, 1059.0),
        ("frozen", {"migration": RUNNING, "curve": percent_curve(1000.0)}, 1060.0),
        (None, {"migration": RUNNING, "curve": percent_curve(1000.0, looks=2)}, 9000.0),
        (None, {"migration": migration(Phase.ASKED)}, 1299.0),
        ("not_started", {"migration": migration(Phase.ASKED)}, 1300.0),
        (None, {"migration": migration(Phase.ASKED), "queue_moved_at": 1200.0}, 1300.0),
        ("not_started", {"migration": migration(Phase.ASKED, kind=Kind.RESIZE)}, 1300.0),
        ("queue_blocked", {"migration": migration(Phase.QUEUED)}, 1300.0),
        (None, {"migration": migration(Phase.QUEUED), "queue_moved_at": 1299.0}, 1300.0),
        # One cause rings once: behind one that is stalled, or behind another that waits, nobody is said.
        (None, {"migration": migration(Phase.QUEUED), "head": "k0"}, 9000.0),
        (None, {"migration": migration(Phase.QUEUED), "ahead": "k0"}, 9000.0),
        (None, {"migration": migration(Phase.ASKED), "head": "k0"}, 9000.0),
        ("slow_step", {"migration": migration(Phase.PREPARING)}, 2800.0),
        ("slow_step", {"migration": migration(Phase.RUNNING, kind=Kind.COLD)}, 2800.0),
        ("slow_step", {"migration": migration(Phase.CONFIRMING, kind=Kind.RESIZE)}, 2800.0),
        (None, {"migration": migration(Phase.CONFIRMING, kind=Kind.RESIZE)}, 2799.0),
        (None, {"migration": migration(Phase.AWAITING_CONFIRMATION, kind=Kind.RESIZE)}, 999_999.0),
        # 120 s + 3 x 8 GiB / 110 MiB/s = 343.4 s.
        (None, {"migration": RUNNING, "curve": bytes_curve()}, 1343.0),
        ("late", {"migration": RUNNING, "curve": bytes_curve()}, 1344.0),
        (None, {"migration": replace(RUNNING, post_copy=True), "curve": bytes_curve()}, 1344.0),
        ("late", {"migration": replace(RUNNING, post_copy=True), "curve": bytes_curve()}, 1449.0),
        (None, {"migration": RUNNING, "source": down("a"), "destination": Host("b", up=True)}, 1059.0),
        ("host_down", {"migration": RUNNING, "source": down("a")}, 1060.0),
        ("host_down", {"migration": RUNNING, "destination": down("b", forced_down=True)}, 1060.0),
        # It had been down long before; the move is what waits since it was asked for.
        ("host_down", {"migration": replace(RUNNING, begun_at=2000.0), "source": down("a")}, 2060.0),
        (None, {"migration": replace(RUNNING, begun_at=2000.0), "source": down("a")}, 2059.0),
        # The source of an evacuation is dead by definition.
        (None, {"migration": migration(Phase.RUNNING, kind=Kind.EVACUATION), "source": down("a")}, 1100.0),
        ("host_down", {"migration": migration(Phase.RUNNING, kind=Kind.EVACUATION), "destination": down("b")}, 1060.0),
        (None, {"migration": migration(Phase.AWAITING_CONFIRMATION, kind=Kind.COLD), "source": down("a")}, 9000.0),
        (
            "orphan_task",
            {"migration": replace(RUNNING, unlisted_at=1000.0), "server": Server("s", task_state="migrating")},
            1120.0,
        ),
        (
            None,
            {"migration": replace(RUNNING, unlisted_at=1000.0), "server": Server("s", task_state="migrating")},
            1119.0,
        ),
        (None, {"migration": replace(RUNNING, unlisted_at=1000.0), "server": Server("s")}, 9000.0),
    ],
)
def test_what_is_said_of_each_situation(reason: str | None, case: dict[str, object], now: float) -> None:
    """Each reason has its own rule, and holds only when its time has passed without any change."""
    found, _ = judge_all(Case(policy=POLICY, now=now, **case))  # type: ignore[arg-type]

    assert reason == (found[0].reason if found else None)


def test_a_judgement_that_depends_on_time_says_when_to_look_again() -> None:
    """What may become a stall by mere waiting is looked at again at that moment."""

    def look_at(now: float, **case: object) -> float | None:
        return judge_all(Case(policy=POLICY, now=now, **case))[1]  # type: ignore[arg-type]

    assert look_at(1100.0, migration=migration(Phase.QUEUED)) == 1300.0
    assert look_at(1250.0, migration=migration(Phase.QUEUED), queue_moved_at=1200.0) == 1500.0
    assert look_at(1010.0, migration=RUNNING, source=down("a")) == 1060.0
    assert look_at(1010.0, migration=RUNNING, curve=percent_curve(1000.0)) == 1060.0


def test_every_reason_has_a_detector_advice_and_a_time() -> None:
    """The list of reasons is closed, and its order is that of gravity."""
    assert list(DETECTORS) == list(STALL_AFTER_S)
    assert set(ADVICE) == set(STALL_AFTER_S)
    for advice in ADVICE.values():
        assert advice.format(server="S", id=1, host="H")


class World:
    """A fleet, and the hands to feed it."""

    def __init__(self, policy: Policy = POLICY, *values: Migration | Host | Server) -> None:
        self.fleet = Fleet(policy)
        self.ids = count(1)
        for value in values:
            self.fleet.put(value)

    def see(self, observation: object) -> list[tuple[str, str | None]]:
        outcome = reduce(self.fleet, observation, lambda: str(next(self.ids)))  # type: ignore[arg-type]
        self.fleet.apply(outcome)
        self.saved = outcome.saved
        return [(event.TYPE, getattr(event, "reason", None)) for event in outcome.events]

    def tick(self, now: float) -> list[tuple[str, str | None]]:
        said: list[tuple[str, str | None]] = []
        while (taken := self.fleet.take_due(now)) is not None:
            said += self.see(TimerDue(taken[0], subject=taken[1]))
        return said

    def look(self, at: float, left: int, processed: int, status: str = "running") -> list[tuple[str, str | None]]:
        progress = Progress(100 * GIB, processed * GIB, left * GIB, 0, 0, 0)
        return self.see(
            ProgressSeen(
                at,
                API,
                "s1",
                1,
                "u1",
                status,
                progress=progress,
                source="a",
                destination="b",
                created_at=1000.0,
                updated_at=1000.0 + left,
            )
        )


def head(**over: object) -> Migration:
    base = Migration("k1", "s1", Kind.LIVE, Phase.RUNNING, "a", "b", migration_uuid="u1", migration_id=1,
                     status="running", said_started=True, moved_at=1000.0, begun_at=1000.0)  # fmt: skip
    return replace(base, **over)  # type: ignore[arg-type]


def waiting(key: str = "k2", **over: object) -> Migration:
    base = Migration(key, f"s-{key}", Kind.LIVE, Phase.QUEUED, "a", "b", migration_uuid=f"u-{key}", migration_id=2,
                     status="queued", said_started=True, moved_at=1000.0, begun_at=1001.0)  # fmt: skip
    return replace(base, **over)  # type: ignore[arg-type]


STALLED, RESUMED = "migration.stalled", "migration.resumed"


def test_a_queue_that_moves_again_is_resumed() -> None:
    """What was called blocked in a queue is resumed as soon as a migration of the same source moves or ends."""
    world = World(POLICY, head(), waiting(stalled="queue_blocked", stalled_since=1000.0))
    done = MigrationSeen(2000.0, API, "s1", 1, "u1", Kind.LIVE, "completed", "a", "b")

    assert {("migration.completed", None), (RESUMED, "queue_blocked")} == set(world.see(done))


def test_a_stalled_head_is_said_once_and_its_queue_is_not() -> None:
    """Ten wait behind one whose counters stand still: one verdict, and none for those that wait."""
    world = World(POLICY, head(), *(waiting(f"k{n}", begun_at=1000.0 + n) for n in range(2, 12)))
    said: list[tuple[str, str | None]] = []
    for at in range(1005, 3000, 5):
        said += world.look(float(at), 50, 10)
        said += world.tick(float(at))

    assert [reason for kind, reason in said if kind == STALLED] == ["frozen"]
    assert not any(m.stalled for m in world.fleet.open_migrations() if m.key != "k1")


def test_a_queue_that_nobody_works_is_said_once_of_the_oldest() -> None:
    """Nobody is at work and five wait: one of them rings, 300 s after the last move."""
    world = World(POLICY, *(waiting(f"k{n}", begun_at=1000.0 + n) for n in range(2, 7)))
    for n in range(2, 7):
        world.see(MigrationSeen(1010.0, API, f"s-k{n}", n, f"u-k{n}", Kind.LIVE, "queued", "a", "b", updated_at=1010.0))
    said = [one for at in range(1010, 4000, 10) for one in world.tick(float(at))]

    assert [reason for kind, reason in said if kind == STALLED] == ["queue_blocked"]
    assert [m.key for m in world.fleet.open_migrations() if m.stalled] == ["k2"]


def test_a_verdict_is_said_once_and_resumed_by_progress() -> None:
    """Frozen is said after 60 s of unchanged counters, not again while they stand, and passes when they move."""
    world = World(POLICY, head())
    world.look(1005.0, 50, 10)
    said = [one for at in range(1010, 2000, 5) for one in world.look(float(at), 50, 10)]
    assert said == [(STALLED, "frozen")]
    stall = world.fleet.stalls_of("k1")[0]
    assert (stall.reason, stall.published, stall.said_at) == ("frozen", True, 1065.0)

    assert world.look(2000.0, 49, 11) == [(RESUMED, "frozen")]
    assert world.fleet.stalls_of("k1") == ()
    kept = [value for value in world.saved if isinstance(value, Stall)]
    assert [(stall.reason, stall.resumed_at) for stall in kept] == [("frozen", 2000.0)]


def test_what_is_only_observed_is_noted_and_never_said() -> None:
    """Shadow mode: the stall is kept with what came of the migration, and nothing is published or shown."""
    world = World(replace(POLICY, observe_only=frozenset({"frozen"})), head())
    world.look(1005.0, 50, 10)
    said = [one for at in range(1010, 1100, 5) for one in world.look(float(at), 50, 10)]
    held = world.fleet.migration("k1")
    assert said == [] and held is not None and held.stalled is None
    assert [(stall.reason, stall.published) for stall in world.fleet.stalls_of("k1")] == [("frozen", False)]

    world.see(MigrationSeen(1100.0, API, "s1", 1, "u1", Kind.LIVE, "error", "a", "b"))
    kept = [value for value in world.saved if isinstance(value, Stall)]
    assert [(stall.ended_at, stall.outcome) for stall in kept] == [(1100.0, "failed")]


def test_a_milder_reason_is_not_said_beside_a_graver_one() -> None:
    """Frozen for an hour is late as well; only what is graver is said."""
    world = World(POLICY, head())
    said = [one for at in range(1005, 5000, 5) for one in world.look(float(at), 50, 10)]

    assert said == [(STALLED, "frozen")]


def test_a_host_that_dies_stalls_what_runs_from_it_and_its_return_resumes_that() -> None:
    """The verdict follows the heartbeat, though nothing is heard of the migration itself."""
    host = Host("a", up=True, said_up=True, service_uuid="x", seen_at=900.0)
    world = World(POLICY, head(), host)

    def service(at: float, up: bool) -> ServiceSeen:
        since = None if up else 1990.0
        return ServiceSeen(at, API, "a", "x", up=up, down_since=since, emitted_at=at, asked_at=at)

    world.see(service(2000.0, False))
    said = [one for at in range(2000, 2200, 10) for one in world.tick(float(at)) if one[0].startswith("migration")]
    assert said == [(STALLED, "host_down")]
    assert (RESUMED, "host_down") in world.see(service(2300.0, True))


def test_what_has_ended_leaves_its_curve_and_stalls_to_the_store() -> None:
    """Memory keeps neither; the store is given both, with how the migration ended."""
    world = World(POLICY, head())
    world.look(1005.0, 50, 10)
    world.look(1010.0, 40, 20)
    assert world.fleet.curve("k1") is not None
    world.see(MigrationSeen(1100.0, API, "s1", 1, "u1", Kind.LIVE, "completed", "a", "b"))

    assert world.fleet.curve("k1") is None
    kept = [value for value in world.saved if isinstance(value, Curve)]
    assert [(curve.outcome, curve.ended_at, curve.due) for curve in kept] == [("completed", 1100.0, True)]


def test_a_task_without_a_row_is_said_once_nova_was_asked_and_passes_with_the_row() -> None:
    """The bus told of a migration, Nova was asked for the server's and shows none; 120 s later that is said."""
    m = head(migration_uuid=None, migration_id=None, status=None)
    world = World(POLICY, m, Server("s1", host="a", vm_state="active", task_state="migrating"))
    assert world.see(MovesListed(1050.0, API, 1050.0, "s1", frozenset({"u0"}))) == []
    assert world.tick(1169.0) == []
    assert world.tick(1170.0) == [(STALLED, "orphan_task")]
    row = MigrationSeen(1200.0, API, "s1", 1, "u1", Kind.LIVE, "running", "a", "b", created_at=1000.0, asked_at=1200.0)

    assert world.see(row) == [(RESUMED, "orphan_task")]


def test_a_list_that_shows_the_move_is_no_evidence_against_it() -> None:
    world = World(POLICY, head(), Server("s1", host="a", vm_state="active", task_state="migrating"))
    world.see(MovesListed(1050.0, API, 1050.0, "s1", frozenset({"u1"})))
    held = world.fleet.migration("k1")

    assert held is not None and held.unlisted_at is None


BUS = Because("notification")
LIVING = Host("a", up=True, said_up=True, service_uuid="x", seen_at=900.0)
MOVING = Server("s1", host="a", vm_state="active", task_state="migrating", updated_at=1000.0)
WITH_CLOUD = replace(POLICY, has_cloud=True)


def told(at: float, **over: object) -> ServerSeen:
    """What the source's compute says of the server."""
    values: dict[str, object] = {"host": "a", "vm_state": "active", "task_state": "migrating", "trusted": True, **over}
    return ServerSeen(at, BUS, "s1", updated_at=at, emitted_at=at, **values)  # type: ignore[arg-type]


def heartbeat(at: float, up: bool, since: float = 1990.0) -> ServiceSeen:
    return ServiceSeen(at, API, "a", "x", up=up, down_since=None if up else since, emitted_at=at, asked_at=at)


def frozen_world() -> World:
    world = World(WITH_CLOUD, head(), MOVING)
    world.look(1005.0, 50, 10)
    assert [one for at in range(1010, 1100, 5) for one in world.look(float(at), 50, 10)] == [(STALLED, "frozen")]
    return world


def test_nothing_resumes_between_the_bus_word_of_an_end_and_the_end() -> None:
    """The server's task is gone, and the API's word is waited for: what was stalled has not got better by that."""
    world = frozen_world()

    assert world.see(told(1100.0, task_state=None)) == []
    assert world.tick(1200.0) == [("migration.failed", None)]
    kept = [value for value in world.saved if isinstance(value, Stall)]
    assert [(stall.resumed_at, stall.outcome) for stall in kept] == [(None, "failed")]


def test_what_is_rolled_back_has_not_resumed() -> None:
    """A frozen migration that is given up fails; no resumed comes before that."""
    world = frozen_world()

    assert world.see(told(1100.0, reporter="a", step=Step.LIVE_ROLLBACK_START)) == []
    assert world.see(told(1101.0, reporter="a", step=Step.LIVE_ROLLBACK_END, task_state=None)) == []
    assert world.tick(1200.0) == [("migration.failed", None)]


def test_what_a_graver_reason_hid_is_said_when_that_passes() -> None:
    """A preparation hangs while its host is down; the host comes back, and the step still does not end."""
    world = World(POLICY, head(phase=Phase.PREPARING, status="preparing"), LIVING)
    world.see(heartbeat(2000.0, False))
    said = [one for at in range(2000, 3500, 10) for one in world.tick(float(at)) if one[0] == STALLED]
    assert said == [(STALLED, "host_down")]

    assert world.see(heartbeat(3500.0, True)) == [(RESUMED, "host_down"), (STALLED, "slow_step")]


def percents(world: World, *moments: float) -> None:
    for n, at in enumerate(moments):
        world.see(told(at, percent=10 + n))


def test_our_own_deafness_is_no_silence_of_a_migration() -> None:
    """Percentages stop because our connection is cut: nothing is said until the bus has been heard for a while."""
    world = World(POLICY, head(), MOVING, Bus("b1", connected=True))
    percents(world, 1010.0, 1015.0, 1020.0, 1025.0)
    world.see(BusSeen(1030.0, Because("bus"), "b1", "lost"))
    assert [one for at in range(1030, 2000, 5) for one in world.tick(float(at)) if one[0] == STALLED] == []
    world.see(BusSeen(2000.0, Because("bus"), "b1", "connected"))
    said = [(at, one) for at in range(2000, 2200, 5) for one in world.tick(float(at)) if one[0] == STALLED]

    assert [one for _, one in said] == [(STALLED, "frozen")] and 2060 <= said[0][0] <= 2120


def test_a_timer_for_silence_is_never_due_twice_at_one_moment() -> None:
    """Whatever the figures, the moment at which a look is due is one at which it finds what it looks for."""
    policy = replace(POLICY, stall_after_s={**STALL_AFTER_S, "frozen": 45.3})
    for n in range(100):
        at = 1764200000.0 + n / 97
        (said, *_), look_at = judge_all(Case(RUNNING, policy, at + 45.3, curve=percent_curve(at)))
        assert said.reason == "frozen" and look_at is None


@pytest.mark.parametrize("gap", [(600.0, 900.0), (0.0, 300.0), (300.0, 2000.0)])
def test_a_verdict_outlives_the_signal_that_it_was_reached_by(gap: tuple[float, float]) -> None:
    """The API stops answering and only percentages come, or the other way round: still it does not converge, and is
    late, and neither is taken back or said twice."""
    world = World(WITH_CLOUD, head(moved_at=0.0, begun_at=0.0), replace(MOVING, updated_at=0.0))
    said: list[tuple[str, str | None]] = []
    for look in tell(Guest(8 * GIB, 0.5 * GIB, 1.0 * GIB, 4 * GIB, noise=0.05)).looks:
        if gap[0] < look.at < gap[1]:
            said += world.see(told(look.at, percent=look.percent))
        else:
            said += world.see(
                ProgressSeen(look.at, API, "s1", 1, "u1", "running", progress=look.progress, source="a",
                             destination="b", created_at=0.0, updated_at=look.at)
            )  # fmt: skip
        said += world.tick(look.at)

    assert said == [(STALLED, "not_converging")]


def test_what_is_late_stays_so_when_the_api_stops_answering() -> None:
    """By counters it was late; that they are not told any more makes it no quicker."""
    world = World(WITH_CLOUD, head(), replace(MOVING, updated_at=1000.0))
    said = [one for n in range(900) for one in world.look(1005.0 + 5 * n, 95 - n // 10, n // 10)]
    assert said == [(STALLED, "late")]
    for n in range(60):
        said += world.see(told(6000.0 + 5 * n, percent=40 + n // 10)) + world.tick(6000.0 + 5 * n)
    said += world.look(6300.0, 4, 92)

    assert said == [(STALLED, "late")]


def test_a_source_that_dies_rings_once_for_its_whole_queue() -> None:
    """One at work and ten behind it: the dead host is told of the first, and of the next when that one has ended."""
    world = World(POLICY, head(), *(waiting(f"k{n}", begun_at=1000.0 + n) for n in range(2, 12)), LIVING)
    world.see(heartbeat(1030.0, False, since=1020.0))
    said = [one for at in range(1030, 4000, 10) for one in world.tick(float(at)) if one[0] == STALLED]
    assert said == [(STALLED, "host_down")]
    assert [m.key for m in world.fleet.open_migrations() if m.stalled] == ["k1"]

    world.see(MigrationSeen(4000.0, API, "s1", 1, "u1", Kind.LIVE, "error", "a", "b", updated_at=4000.0))
    assert [one for at in range(4000, 6000, 10) for one in world.tick(float(at)) if one[0] == STALLED] == []
    assert [(m.key, m.stalled) for m in world.fleet.open_migrations() if m.stalled] == [("k2", "host_down")]


@pytest.mark.parametrize("up", [None, True])
def test_a_host_that_has_just_been_forced_down_is_given_its_minute(up: bool | None) -> None:
    """It was closed long ago, and its heartbeat goes on; the move stands still since it last moved, and no longer."""
    closed = replace(LIVING, disabled=True, closed_at=500.0)
    world = World(POLICY, head(moved_at=4990.0), closed)
    forced = ServiceSeen(5000.0, BUS, "a", "x", up=up, forced_down=True, disabled=True, emitted_at=5000.0)

    assert STALLED not in {kind for kind, _ in world.see(forced)}
    assert world.tick(5049.0) == [] and world.tick(5050.0) == [(STALLED, "host_down")]
    assert [stall.since for stall in world.fleet.stalls_of("k1")] == [4990.0]


def test_an_orphaned_task_that_is_reset_has_passed() -> None:
    """Whoever follows the advice sees the verdict go, though of the cold migration itself nothing is heard."""
    m = head(kind=Kind.COLD, phase=Phase.PREPARING, migration_uuid=None, migration_id=None, status=None)
    world = World(POLICY, m, replace(MOVING, task_state="resize_prep"))
    world.see(MovesListed(1050.0, API, 1050.0, "s1", frozenset({"u0"})))
    assert world.tick(1170.0) == [(STALLED, "orphan_task")]

    assert world.see(told(1300.0, task_state=None)) == [(RESUMED, "orphan_task")]


def test_a_blocked_queue_names_the_migration_that_it_waits_for() -> None:
    """The one at work has prepared for five minutes, which is no stall of its own; the oldest that waits says so. When
    it is at last called stalled itself, nothing has resumed by that; when it moves, all has."""
    preparing = head(phase=Phase.PREPARING, status="preparing", stall_at=2800.0)
    world = World(POLICY, preparing, *(waiting(f"k{n}", begun_at=1000.0 + n) for n in range(2, 5)))
    for n in range(2, 5):
        world.see(MigrationSeen(1010.0, API, f"s-k{n}", n, f"u-k{n}", Kind.LIVE, "queued", "a", "b", updated_at=1010.0))
    said = [one for at in range(1010, 1500, 10) for one in world.tick(float(at))]

    assert said == [(STALLED, "queue_blocked")]
    assert [stall.blocked_by for stall in world.fleet.stalls_of("k2")] == ["k1"]

    said = [one for at in range(1500, 3500, 10) for one in world.tick(float(at))]
    assert said == [(STALLED, "slow_step")]
    assert set(world.look(3500.0, 90, 10)) == {(RESUMED, "slow_step"), (RESUMED, "queue_blocked")}


def test_a_host_that_is_removed_from_nova_is_not_down() -> None:
    """Its service was deleted while it was down: what was said of its moves passes with it."""
    host = Host("a", up=False, down_since=900.0, said_up=False, service_uuid="x", seen_at=900.0)
    world = World(POLICY, head(begun_at=1000.0), host)
    world.look(1005.0, 50, 10)
    said = [one for at in range(1010, 1100, 5) for one in world.look(float(at), 50 - at // 50, 10 + at // 50)]
    assert (STALLED, "host_down") in said
    assert (RESUMED, "host_down") in world.see(ServicesListed(1200.0, API, 1200.0, frozenset({"b"})))
