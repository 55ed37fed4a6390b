"""What is done in each made story: see `make.py`, and the table of `README.md` for what stands for what."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from maintd.simulator.model import Refused, Server
from tests.recordings.make import Stage


@dataclass(frozen=True)
class Story:
    """A story: what is done in one sentence, on how big a stage, and the acts."""

    done: str
    acts: Callable[[Stage], None]
    options: dict[str, Any]

    def play(self, name: str) -> Stage:
        """Play it to its end."""
        stage = Stage(name, **self.options)
        self.acts(stage)
        return stage


STORIES: dict[str, Story] = {}


def story(done: str, **options: Any) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Register a function as the story of its name."""

    def register(acts: Callable[[Stage], None]) -> Callable[[Stage], None]:
        STORIES[acts.__name__.replace("_", "-")] = Story(done, acts, options)
        return acts

    return register


H = "cmp-01"


@story("two servers are live-migrated away, one after the other; the host is opened again")
def lm_drained(stage: Stage) -> None:
    one, two = stage.server(H, "one"), stage.server(H, "two")
    stage.begin()
    stage.cloud.disable(H, "maintenance")
    stage.wait(2.0)
    stage.cloud.live_migrate(one.id)
    stage.cloud.live_migrate(two.id)
    stage.prove()
    stage.cloud.enable(H)
    stage.wait(2.0)


def closed(stage: Stage, *names: str, reason: str = "maintenance") -> list[Server]:
    """maintd is started; then the host with these servers on it is closed."""
    servers = [stage.server(H, name) for name in names]
    stage.begin()
    stage.cloud.disable(H, reason)
    stage.wait(2.0)
    return servers


@story("a live migration is aborted while its destination prepares, and asked for again", hosts=3)
def lm_abort_preparing(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("pre_live_migration", seconds=8)
    stage.cloud.live_migrate(server.id)
    stage.wait(4.0)
    stage.cloud.abort(server.id, stage.row(server).id)
    stage.prove()
    stage.cloud.knobs.clear()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story("a live migration that copies for ever is forced to complete, without post-copy", progress=True)
def lm_force_complete(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("live_migration", mode="diverge", seconds=6)
    stage.cloud.live_migrate(server.id)
    stage.wait(14.0)
    stage.cloud.force_complete(server.id, stage.row(server).id)
    stage.prove()


@story("the same with post-copy: the row is `running (post-copy)`, which no list of a server shows", progress=True,
       permit_post_copy=True)  # fmt: skip
def lm_post_copy(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("live_migration", mode="diverge", seconds=6, post_copy_s=40)
    stage.cloud.live_migrate(server.id)
    stage.wait(8.0)
    stage.cloud.force_complete(server.id, stage.row(server).id)
    stage.wait(12.0)
    stage.look(H)
    stage.prove()


@story("a live migration fails at the destination after the guest has moved: the server is there, in ERROR")
def lm_post_failure(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("post_at_destination", fail=True)
    stage.cloud.live_migrate(server.id)
    stage.prove()
    stage.cut(240.0)
    stage.prove()


@story("the driver raises in a live migration: the server stays, in ERROR, and says so only by instance.update")
def lm_driver_crash(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("live_migration", mode="error", seconds=3)
    stage.cloud.live_migrate(server.id)
    stage.prove()
    stage.cloud.delete(server.id)
    stage.prove()
    stage.cut(260.0)
    stage.prove()


@story("the source's nova-compute dies in a live migration and is started again; the migration is asked for again")
def lm_source_restarted(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("live_migration", seconds=20)
    stage.cloud.live_migrate(server.id)
    stage.wait(6.0)
    stage.cloud.kill_compute(H)
    stage.wait(6.0)
    stage.cloud.start_compute(H)
    stage.prove()
    stage.cloud.knobs.set("live_migration", seconds=2)
    stage.cloud.live_migrate(server.id)
    stage.prove()
    stage.cut(260.0)
    stage.prove()


@story("the only other host turns a live migration down when it is checked: nothing but errors says so; then it goes")
def lm_precheck_failure(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("check", host="cmp-02", fail=True)
    stage.cloud.live_migrate(server.id)
    stage.prove()
    stage.cloud.knobs.clear()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story("a live migration is rolled back, another fails before it begins, a third finds no valid host; then all go",
       hosts=2)  # fmt: skip
def lm_failures(stage: Stage) -> None:
    one, two, three = closed(stage, "one", "two", "three")
    stage.cloud.knobs.set("live_migration", server="one", mode="fail", seconds=2)
    stage.cloud.knobs.set("pre_live_migration", server="two", fail=True)
    stage.cloud.live_migrate(one.id)
    stage.settle()
    stage.cloud.live_migrate(two.id)
    stage.settle()
    stage.cloud.disable("cmp-02", "full")
    stage.cloud.live_migrate(three.id)
    stage.prove()
    stage.cloud.knobs.clear()
    stage.cloud.enable("cmp-02")
    stage.wait(1.0)
    for server in (one, two, three):
        stage.cloud.live_migrate(server.id)
    stage.prove()


@story("two servers are cold-migrated; one is confirmed at once, the other later")
def cold_confirmed(stage: Stage) -> None:
    one, two = closed(stage, "one", "two")
    stage.cloud.migrate(one.id)
    stage.cloud.migrate(two.id)
    stage.settle()
    stage.cloud.confirm(one.id)
    stage.prove()
    stage.cloud.confirm(two.id)
    stage.prove()


@story("a resize away from the closed host is reverted: the server is back there; then it is migrated and confirmed")
def cold_reverted(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.migrate(server.id, flavor="m1.medium")
    stage.prove()
    stage.cloud.revert(server.id)
    stage.prove()
    stage.cloud.migrate(server.id)
    stage.settle()
    stage.cloud.confirm(server.id)
    stage.prove()


@story("a cold migration fails at its destination: the server is there, in ERROR, and the source's disks are nobody's")
def cold_finish_failure(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("finish_migration", fail=True)
    stage.cloud.migrate(server.id)
    stage.prove()


@story("a cold migration fails on the source: the server stays, in ERROR, until it is deleted")
def cold_source_failure(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.knobs.set("migrate_disk", fail=True)
    stage.cloud.migrate(server.id)
    stage.prove()
    stage.cloud.delete(server.id)
    stage.prove()


@story("a server that waits to be confirmed is deleted: Nova confirms first")
def cold_deleted(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.migrate(server.id)
    stage.prove()
    stage.cloud.delete(server.id)
    stage.prove()


def dead(stage: Stage, *names: str) -> list[Server]:
    """maintd is started; then the compute of the host with these servers dies, is forced down and disabled."""
    servers = [stage.server(H, name) for name in names]
    stage.begin()
    stage.cloud.kill_compute(H)
    stage.wait(2.0)
    stage.cloud.set_service(H, forced_down=True)
    stage.wait(1.0)
    stage.cloud.disable(H, "dead")
    stage.wait(2.0)
    return servers


@story("a dead host is evacuated with notify_on_state_change off, so only the API tells the new host; it comes back",
       hosts=3, notify_on_state_change=False)  # fmt: skip
def evac_restarted(stage: Stage) -> None:
    one, two = dead(stage, "one", "two")
    stage.cloud.evacuate(one.id)
    stage.cloud.evacuate(two.id)
    stage.prove()
    stage.cloud.start_compute(H)
    stage.wait(2.0)
    stage.cloud.set_service(H, forced_down=False)
    stage.prove()


@story("an evacuation fails at its destination, another finds no valid host; then both succeed: residue", hosts=2)
def evac_failures(stage: Stage) -> None:
    one, two = dead(stage, "one", "two")
    stage.cloud.knobs.set("spawn", server="one", fail=True)
    stage.cloud.evacuate(one.id)
    stage.settle()
    stage.cloud.disable("cmp-02", "full")
    stage.cloud.evacuate(two.id)
    stage.prove()
    stage.cloud.knobs.clear()
    stage.cloud.enable("cmp-02")
    stage.wait(1.0)
    stage.cloud.evacuate(one.id)
    stage.cloud.evacuate(two.id)
    stage.prove()


@story("a server is evacuated and deleted before the dead host is back: Nova has no trace of it, its disks are there")
def evac_then_deleted(stage: Stage) -> None:
    (server,) = dead(stage, "one")
    stage.cloud.evacuate(server.id)
    stage.settle()
    stage.wait(5.0)
    stage.cloud.delete(server.id)
    stage.prove()


@story("a server is shelved and stays on its host's disk, is offloaded, and comes back elsewhere", hosts=3,
       shelved_offload_s=-1.0)  # fmt: skip
def shelve_offload_unshelve(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.shelve(server.id)
    stage.prove()
    stage.cloud.shelve_offload(server.id)
    stage.prove()
    stage.cloud.unshelve(server.id)
    stage.prove()


@story("a server shelved and not offloaded is unshelved where it is: only power_on says so", shelved_offload_s=-1.0)
def unshelve_in_place(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.shelve(server.id)
    stage.settle()
    stage.cloud.unshelve(server.id)
    stage.prove()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story("a server is soft-deleted, restored, and migrated away", reclaim_interval_s=3600.0)
def soft_delete_restore(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.delete(server.id)
    stage.prove()
    stage.cloud.restore(server.id)
    stage.prove()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story("a server is soft-deleted; Nova reclaims it a hundred seconds later", reclaim_interval_s=100.0)
def soft_delete_reclaim(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.delete(server.id)
    stage.wait(35.0)
    stage.look(H)
    stage.wait(16.0)
    stage.look(H)
    stage.prove()


@story("a soft-deleted server is deleted by force, and another is deleted by force as it is", reclaim_interval_s=3600.0)
def force_delete(stage: Stage) -> None:
    one, two = closed(stage, "one", "two")
    stage.cloud.delete(one.id)
    stage.prove()
    stage.cloud.delete(one.id, force=True)
    stage.cloud.delete(two.id, force=True)
    stage.prove()


@story("a server is deleted by force while its host is dead: no message says so, and its disks stay")
def force_delete_down(stage: Stage) -> None:
    (server,) = dead(stage, "one")
    stage.cloud.delete(server.id, force=True)
    stage.prove()
    stage.wait(30.0)
    stage.prove()


@story("a server is deleted while its host is dead: nova-api says so, and its disks stay, though nova-compute is back")
def delete_down(stage: Stage) -> None:
    (server,) = dead(stage, "one")
    stage.cloud.delete(server.id)
    stage.prove()
    stage.cloud.start_compute(H)
    stage.wait(2.0)
    stage.cloud.set_service(H, forced_down=False)
    stage.prove()


@story("a server is deleted by its compute; one that never got a host is deleted by nova-api alone")
def delete_up(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    nowhere = stage.cloud.create("two", host=H)
    stage.settle()
    stage.cloud.delete(nowhere.id)
    stage.cloud.delete(server.id)
    stage.prove()


@story("a build was in its compute's queue when the host was closed, and arrives long after; then it is migrated",
       concurrent_builds=1)  # fmt: skip
def build_late(stage: Stage) -> None:
    (one,) = [stage.server(H, "one")]
    stage.begin()
    stage.cloud.knobs.set("spawn", seconds=40)
    first = stage.cloud.create("first", host=H)
    stage.wait(1.0)
    second = stage.cloud.create("second", host=H)
    stage.wait(2.0)
    stage.cloud.disable(H, "maintenance")
    stage.cloud.live_migrate(one.id)
    stage.wait(20.0)
    stage.look(H)
    stage.wait(16.0)
    stage.look(H)
    stage.prove()
    stage.cloud.live_migrate(first.id)
    stage.cloud.live_migrate(second.id)
    stage.prove()


@story("a server in ERROR stays on the closed host until it is deleted")
def error_servers(stage: Stage) -> None:
    one, two = stage.server(H, "one"), stage.server(H, "two", state="error")
    stage.begin()
    stage.cloud.disable(H, "maintenance")
    stage.wait(2.0)
    stage.cloud.live_migrate(one.id)
    stage.prove()
    stage.cloud.delete(two.id)
    stage.prove()


@story("a server is resized on its own host; the host is closed before that is confirmed, and the server migrated")
def resize_same_host(stage: Stage) -> None:
    server = stage.server(H, "one")
    stage.begin()
    stage.cloud.migrate(server.id, H, flavor="m1.medium")
    stage.settle()
    stage.wait(2.0)
    stage.cloud.disable(H, "maintenance")
    stage.prove()
    stage.cloud.confirm(server.id)
    stage.prove()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story(
    "nobody confirms a cold migration; resize_confirm_window does, without a request id", resize_confirm_window_s=90.0
)
def cold_auto_confirm(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.migrate(server.id)
    stage.wait(35.0)
    stage.look(H)
    stage.wait(16.0)
    stage.look(H)
    stage.prove()


@story("a resize into another cell, unconfirmed: only the hypervisor call shows what is left; then it is confirmed")
def cross_cell(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.migrate(server.id, flavor="m1.medium", cross_cell=True)
    stage.prove()
    stage.cloud.confirm(server.id)
    stage.prove()


@story("a service with two compute nodes, as Ironic's have, and nothing on either")
def several_nodes(stage: Stage) -> None:
    stage.cloud.add_node(H, "node-2.sim.test")
    (server,) = closed(stage, "one")
    stage.cloud.delete(server.id)
    stage.prove()


@story("a build fails elsewhere and is done again on a host that was closed, and proven empty, long before", hosts=2)
def build_rescheduled(stage: Stage) -> None:
    stage.server(H, "one")
    stage.begin()
    stage.cloud.knobs.set("spawn", host="cmp-02", seconds=80, reschedule=True)
    stage.cloud.knobs.set("spawn", host=H, seconds=20)
    built = stage.cloud.create("two")
    stage.wait(2.0)
    assert built.host == "cmp-02"
    stage.cloud.disable(H, "maintenance")
    stage.wait(1.0)
    stage.cloud.knobs.set("live_migration", seconds=1)
    for server in list(stage.cloud.hosts[H].servers.values()):
        stage.cloud.live_migrate(server.id)
    stage.settle(6.0)
    stage.prove(at_rest=False)
    assert built.host == "cmp-02"
    stage.prove()
    stage.cloud.delete(built.id)
    stage.prove()


@story("an offloaded server was on its way to the host when that was closed, and arrives; then it is migrated away")
def unshelve_late(stage: Stage) -> None:
    server = stage.server(H, "one")
    stage.server("cmp-02", "two")
    stage.begin()
    stage.cloud.shelve(server.id)
    stage.settle()
    stage.cloud.knobs.set("spawn", seconds=60)
    stage.cloud.unshelve(server.id)
    stage.cloud.advance(stage.clock.now() + 0.35)  # scheduled, and the compute has not said a word yet
    stage.cloud.disable(H, "maintenance")
    stage.wait(40.0)
    stage.look(H)
    stage.wait(16.0)
    stage.look(H)
    stage.prove()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story("a host is emptied, opened, closed again as it is, and emptied again")
def closed_again(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.live_migrate(server.id)
    stage.prove()
    stage.cloud.enable(H)
    stage.wait(35.0)
    stage.cloud.disable(H, "maintenance")
    stage.prove()


@story("an emptied host is filled again by a live migration that asks no scheduler, and emptied again")
def refilled(stage: Stage) -> None:
    (server,) = closed(stage, "one")
    stage.cloud.live_migrate(server.id)
    stage.prove()
    stage.cloud.live_migrate(server.id, H, force=True)
    stage.prove()
    stage.cloud.live_migrate(server.id)
    stage.prove()


@story("a server's move waits to be confirmed when its source dies; deleting the server fails, for nobody can confirm")
def cold_source_dead(stage: Stage) -> None:
    server = stage.server(H, "one")
    stage.begin()
    stage.cloud.migrate(server.id)
    stage.settle()
    stage.cloud.kill_compute(H)
    stage.wait(1.0)
    stage.cloud.set_service(H, forced_down=True)
    stage.wait(1.0)
    stage.cloud.disable(H, "dead")
    stage.wait(35.0)
    with suppress(Refused):
        stage.cloud.delete(server.id)
    stage.prove()


@story("a compute dies; Nova finds it down, and lets a server be deleted by force, before maintd has asked after it")
def force_delete_unnoticed(stage: Stage) -> None:
    server = stage.server(H, "one")
    stage.begin()
    stage.cloud.kill_compute(H)
    stage.cut(71.0)
    stage.cloud.disable(H, "maintenance")
    stage.cloud.delete(server.id, force=True)
    stage.prove()
    stage.cloud.start_compute(H)
    stage.wait(35.0)
    stage.prove()
    stage.wait(60.0)


@story("the same with a plain delete, of which nova-api speaks")
def delete_unnoticed(stage: Stage) -> None:
    server = stage.server(H, "one")
    stage.begin()
    stage.cloud.kill_compute(H)
    stage.cut(71.0)
    stage.cloud.disable(H, "maintenance")
    stage.cloud.delete(server.id)
    stage.prove()
