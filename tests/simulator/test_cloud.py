"""The cloud itself: the same seed, real time, dead hosts, and what tests and benchmarks lean on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from maintd.clock import ManualClock, SystemClock
from maintd.simulator import Cloud, Refused, Timing, stories
from maintd.simulator.notifications import Json

T0 = 1_800_000_000.0


def said_by(play: Callable[..., Any]) -> list[tuple[str, Json]]:
    said: list[tuple[str, Json]] = []
    play(lambda key, inner: said.append((key, inner)))
    return said


def wait_until(true: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def events(said: list[tuple[str, Json]]) -> list[str]:
    return [inner["event_type"] for _, inner in said]


def test_the_same_seed_tells_the_same_story() -> None:
    """Two runs give the same bytes, ids included; another seed gives other ids."""

    def play(seed: int) -> str:
        def run(publish: Callable[[str, Json], None]) -> None:
            cloud = Cloud(ManualClock(T0), publish, seed=seed)
            cloud.fill(5, 4)
            stories.random_day(cloud, seed=3, seconds=600, acts=100)
            cloud.settle(1200)

        return json.dumps(said_by(run))

    first = play(1)
    assert first == play(1)
    assert first != play(2)


@pytest.mark.parametrize("seed", range(5))
def test_random_days_end_well(seed: int) -> None:
    """Whatever operators do, nobody waits in a queue that does not move, and a resting server holds its allocation; or
    a migration holds it that was running when nova-compute was started anew, as Nova leaves it.
    """
    clock = ManualClock(T0)
    cloud = Cloud(clock, seed=seed)
    cloud.fill(6, 5)
    stories.random_day(cloud, seed=seed, seconds=1800, acts=250)
    cloud.advance(clock.now() + 1800)
    cloud.settle(4000)
    for host in cloud.hosts.values():
        assert not host.live.waiting or host.live.busy
        for server in host.servers.values():
            if server.task_state is None and server.state in ("active", "stopped"):
                moves = [row.uuid for row in cloud.migrations_of.get(server.id, ()) if row.status == "error"]
                assert {server.id, *moves} & host.provider.allocations.keys()


def test_the_demo_drain_empties_the_host() -> None:
    """The stuck migration holds up those behind it; freed, all leave, and Placement lets go last."""
    clock = ManualClock(T0)
    said: list[tuple[str, Json]] = []
    story = stories.drain(clock, lambda key, inner: said.append((key, inner)), stuck=2, stuck_for_s=40.0)
    story.cloud.advance(T0 + 30)
    assert not story.is_over()
    statuses = sorted(row.status for row in story.cloud.migrations.values())
    assert statuses == ["completed", "completed", "queued", "queued", "running"]
    story.cloud.settle()
    assert story.is_over() and story.freed_at() is not None
    assert events(said).count("instance.live_migration_post.end") == 5


def test_a_silent_migration_says_nothing() -> None:
    """A dead monitor writes neither bytes nor progress; a stuck one goes on saying the same."""
    clock = ManualClock(T0)
    said: list[tuple[str, Json]] = []
    cloud = Cloud(clock, lambda key, inner: said.append((key, inner)))
    cloud.fill(2, 1)
    [server_id] = cloud.hosts["cmp-01"].servers
    for mode, expected in (("silent", 0), ("stuck", 12)):
        cloud.knobs.set("live_migration", mode=mode, seconds=6)
        if server_id not in cloud.migrations_of:
            cloud.live_migrate(server_id)
        cloud.advance(clock.now() + 10)
        said.clear()
        cloud.advance(clock.now() + 60)
        assert events(said).count("instance.update") == expected


def test_an_aborted_preparation_ends_twice() -> None:
    """Aborting while the destination prepares gives abort.end, the rollback, and abort.end again, as in Nova."""
    clock = ManualClock(T0)
    said: list[tuple[str, Json]] = []
    cloud = Cloud(clock, lambda key, inner: said.append((key, inner)))
    cloud.fill(2, 1)
    [server_id] = cloud.hosts["cmp-01"].servers
    cloud.knobs.set("pre_live_migration", seconds=5)
    cloud.live_migrate(server_id)
    cloud.advance(clock.now() + 2)
    cloud.abort(server_id, cloud.migrations_of[server_id][0].id)
    cloud.settle()
    tail = [event.removeprefix("instance.live_migration_") for event in events(said) if "live_migration" in event]
    assert tail == ["pre.start", "abort.start", "abort.end", "pre.end", "rollback.start", "rollback.end", "abort.end"]
    assert cloud.migrations_of[server_id][0].status == "cancelled"


def test_force_complete_frees_a_stuck_migration() -> None:
    """force_complete says so twice and then the migration ends like any other; a queued one refuses it."""
    clock = ManualClock(T0)
    said: list[tuple[str, Json]] = []
    cloud = Cloud(clock, lambda key, inner: said.append((key, inner)))
    cloud.fill(2, 2)
    first, second = cloud.hosts["cmp-01"].servers
    cloud.knobs.set("live_migration", mode="stuck", seconds=2)
    cloud.live_migrate(first)
    cloud.live_migrate(second)
    cloud.advance(clock.now() + 20)
    with pytest.raises(Refused, match="queued"):
        cloud.force_complete(second, 2)
    cloud.force_complete(first, 1)
    cloud.advance(clock.now() + 5)
    assert cloud.servers[first].host == "cmp-02"
    assert "instance.live_migration_force_complete.end" in events(said)


def test_deletes_on_a_dead_host_leave_the_guest() -> None:
    """The API and Placement call the host empty, the guests are there until its compute is back; force is silent."""
    clock = ManualClock(T0)
    said: list[tuple[str, Json]] = []
    cloud = Cloud(clock, lambda key, inner: said.append((key, inner)))
    cloud.fill(2, 2)
    plain, forced = cloud.hosts["cmp-01"].servers
    cloud.kill_compute("cmp-01")
    cloud.set_service("cmp-01", forced_down=True)
    said.clear()
    cloud.delete(forced, force=True)
    assert said == []
    cloud.delete(plain)
    assert [
        (event, inner["publisher_id"])
        for event, (_, inner) in zip(events(said), said, strict=True)
        if "delete" in event
    ] == [("instance.delete.start", "nova-api:ctl-01"), ("instance.delete.end", "nova-api:ctl-01")]
    host = cloud.hosts["cmp-01"]
    assert not host.servers and not host.provider.allocations
    assert cloud.physically_on("cmp-01") == {plain, forced}
    cloud.start_compute("cmp-01")
    assert cloud.physically_on("cmp-01") == set()


def test_an_evacuated_and_deleted_server_leaves_no_trace() -> None:
    """Nova forgets it: no migration row, no allocation; yet its guest is on the dead host."""
    clock = ManualClock(T0)
    cloud = Cloud(clock)
    cloud.fill(3, 1)
    [server_id] = cloud.hosts["cmp-01"].servers
    cloud.kill_compute("cmp-01")
    cloud.set_service("cmp-01", forced_down=True)
    cloud.evacuate(server_id)
    cloud.settle()
    assert cloud.migrations_of[server_id][0].status == "done"
    assert server_id in cloud.hosts["cmp-01"].provider.allocations
    cloud.delete(server_id)
    cloud.settle()
    assert not cloud.migrations and not cloud.hosts["cmp-01"].provider.allocations
    assert cloud.physically_on("cmp-01") == {server_id}


def test_a_host_enabled_while_down_keeps_its_trait() -> None:
    """The API says enabled, Placement says disabled, until the compute is back."""
    cloud = Cloud(ManualClock(T0))
    cloud.fill(2, 0)
    cloud.disable("cmp-01", "maint")
    cloud.set_service("cmp-01", forced_down=True)
    cloud.enable("cmp-01")
    assert "COMPUTE_STATUS_DISABLED" in cloud.hosts["cmp-01"].provider.traits
    cloud.start_compute("cmp-01")
    assert "COMPUTE_STATUS_DISABLED" not in cloud.hosts["cmp-01"].provider.traits


def test_soft_deleted_servers_are_reclaimed_by_a_timer() -> None:
    """After reclaim_instance_interval the compute deletes it, with no request id in the payload."""
    clock = ManualClock(T0)
    said: list[tuple[str, Json]] = []
    cloud = Cloud(clock, lambda key, inner: said.append((key, inner)), timing=Timing(reclaim_interval_s=30.0))
    cloud.fill(1, 2)
    first, second = cloud.hosts["cmp-01"].servers
    cloud.delete(first)
    cloud.delete(second)
    cloud.advance(clock.now() + 10)
    cloud.restore(second)
    cloud.settle()
    assert first in cloud.deleted and cloud.servers[second].state == "active"
    ends = [inner for _, inner in said if inner["event_type"] == "instance.delete.end"]
    assert [inner["payload"]["nova_object.data"]["request_id"] for inner in ends] == [None]


def test_a_killed_source_stops_and_is_reset_at_its_return() -> None:
    """Nothing moves while nova-compute is dead; at its return the row is `error` and the server rests where it was."""
    clock = ManualClock(T0)
    cloud = Cloud(clock)
    cloud.fill(2, 1)
    [server_id] = cloud.hosts["cmp-01"].servers
    cloud.live_migrate(server_id)
    cloud.advance(clock.now() + 2)
    cloud.kill_compute("cmp-01")
    cloud.advance(clock.now() + 100)
    assert cloud.migrations_of[server_id][0].status == "running"
    cloud.start_compute("cmp-01")
    assert cloud.migrations_of[server_id][0].status == "error"
    assert cloud.servers[server_id].task_state is None and cloud.servers[server_id].host == "cmp-01"


def test_it_runs_in_real_time() -> None:
    """With a thread and the machine's clock the steps happen by themselves, and stop ends it."""
    cloud = Cloud(SystemClock(), timing=Timing(step_s=0.001, rpc_s=0.002, schedule_s=0.003, tick_s=0.01))
    cloud.fill(2, 1)
    [server_id] = cloud.hosts["cmp-01"].servers
    cloud.knobs.set("live_migration", seconds=0.05)
    cloud.start()
    try:
        cloud.live_migrate(server_id)
        wait_until(lambda: cloud.servers[server_id].host == "cmp-02" and not cloud.hosts["cmp-01"].provider.allocations)
    finally:
        cloud.stop()


def test_a_large_cloud_is_made_quickly_and_quietly() -> None:
    """A thousand hosts with twenty servers each: nothing is emitted, and listing one host touches only that host."""
    said: list[tuple[str, Json]] = []
    began = time.monotonic()
    cloud = Cloud(ManualClock(T0), lambda key, inner: said.append((key, inner)))
    cloud.fill(1000, 20)
    assert time.monotonic() - began < 5.0
    assert said == [] and len(cloud.servers) == 20_000 and len(cloud.hosts["cmp-0500"].servers) == 20


def test_any_number_of_messages_in_novas_mix() -> None:
    """The generator gives exactly as many as asked for, live migrations and builds among them."""
    made = [inner["event_type"] for _, inner in stories.notifications(1500)]
    assert len(made) == 1500
    assert {"instance.update", "instance.live_migration_post.end", "instance.create.end", "service.update"} <= set(made)


def test_what_nobody_confirms_is_confirmed_by_the_destination() -> None:
    """With resize_confirm_window set, a timer confirms; its messages have no request id, and come from the source."""
    said: list[tuple[str, Json]] = []
    cloud = Cloud(
        ManualClock(T0), lambda key, inner: said.append((key, inner)), timing=Timing(resize_confirm_window_s=60.0)
    )
    cloud.fill(2, 1)
    server = next(iter(cloud.hosts["cmp-01"].servers.values()))
    cloud.migrate(server.id)
    cloud.advance(T0 + 50.0)
    assert "finished" == cloud.migrations_of[server.id][0].status
    cloud.settle()

    assert "confirmed" == cloud.migrations_of[server.id][0].status
    confirmed = next(inner for _, inner in said if inner["event_type"] == "instance.resize_confirm.start")
    assert confirmed["publisher_id"] == "nova-compute:cmp-01"
    assert confirmed["payload"]["nova_object.data"]["request_id"] is None


def test_a_resize_between_cells_leaves_a_hidden_row_on_its_source() -> None:
    """Until it is confirmed, the server is the destination's, and only the hypervisor call shows the source's row; the
    conductor confirms, in the name of a compute, first of all of the row left behind (facts 2.5)."""
    said: list[tuple[str, Json]] = []
    cloud = Cloud(ManualClock(T0), lambda key, inner: said.append((key, inner)))
    cloud.fill(2, 1)
    source = cloud.hosts["cmp-01"]
    server = next(iter(source.servers.values()))
    cloud.migrate(server.id, cross_cell=True)
    cloud.settle()
    told = [(inner["event_type"], inner["payload"]["nova_object.data"]["host"]) for _, inner in said if "host" in
            inner["payload"]["nova_object.data"]]  # fmt: skip
    assert ("instance.resize.end", "cmp-01") in told
    assert ("instance.resize_finish.start", "cmp-01") in told
    assert ("instance.resize_finish.end", "cmp-02") in told
    assert (server.host, list(source.hidden)) == ("cmp-02", [server.id])
    assert server.id in cloud.physically_on("cmp-01")
    said.clear()
    cloud.confirm(server.id)
    cloud.settle()
    confirms = [inner for _, inner in said if inner["event_type"].startswith("instance.resize_confirm")]

    assert ["nova-compute:ctl-01"] * 2 == [inner["publisher_id"] for inner in confirms]
    assert ["cmp-01", "cmp-02"] == [inner["payload"]["nova_object.data"]["host"] for inner in confirms]
    assert not source.hidden and not source.provider.allocations


def test_a_forced_live_migration_leads_onto_a_closed_host() -> None:
    """Nobody asks the scheduler, so nothing keeps it away."""
    cloud = Cloud(ManualClock(T0))
    cloud.fill(2, 1)
    server = next(iter(cloud.hosts["cmp-02"].servers.values()))
    cloud.disable("cmp-01")
    cloud.live_migrate(server.id, "cmp-01")
    cloud.settle()
    assert "cmp-02" == server.host
    cloud.live_migrate(server.id, "cmp-01", force=True)
    cloud.settle()

    assert "cmp-01" == server.host


def test_what_a_dead_source_cannot_confirm_is_not_deleted() -> None:
    """The delete of an unconfirmed server asks the source first; where that is dead, the call fails, and all stays."""
    cloud = Cloud(ManualClock(T0))
    cloud.fill(2, 1)
    server = next(iter(cloud.hosts["cmp-01"].servers.values()))
    cloud.migrate(server.id)
    cloud.settle()
    cloud.kill_compute("cmp-01")
    with pytest.raises(Refused, match="did not answer"):
        cloud.delete(server.id)
    cloud.settle()

    assert "deleting" == server.task_state and server.deleted_at is None
    assert server.id in cloud.physically_on("cmp-01")


def test_what_goes_on_with_a_deleted_server_ends_and_writes_nothing() -> None:
    """Nova's `Instance.save()` raises InstanceNotFound for a row that is deleted (nova/objects/instance.py): the rest
    of what was being done is not done, and nobody is told."""
    said: list[tuple[str, Json]] = []
    clock = ManualClock(T0)
    cloud = Cloud(clock, lambda key, inner: said.append((key, inner)), seed=1)
    cloud.fill(2, 1)
    server = next(iter(cloud.servers.values()))
    cloud.knobs.set("live_migration", mode="error", seconds=60.0)
    cloud.delete(server.id)
    server.task_state = None  # as after a reset-state in between
    cloud.live_migrate(server.id)
    cloud.settle(600)

    assert (cloud.deleted[server.id].state, server.task_state) == ("deleted", None)
    assert "error" not in [inner["payload"]["nova_object.data"].get("state") for _, inner in said]


def test_a_soft_deleted_server_without_a_host_is_reclaimed_by_nobody() -> None:
    """Each compute reclaims what is on its own host; one that was offloaded meanwhile is on none."""
    clock = ManualClock(T0)
    cloud = Cloud(clock, timing=Timing(reclaim_interval_s=100.0), seed=1)
    cloud.fill(2, 1)
    server = next(iter(cloud.servers.values()))
    cloud.delete(server.id)
    cloud.advance(clock.now() + 10.0)
    cloud._place(server, None)  # as by an offloading that was under way
    cloud.settle(600)

    assert server.state == "soft-delete" and server.id in cloud.servers
