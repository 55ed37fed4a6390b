"""Facts 2.1: which host a payload holds, who published it, and what maintd believes of it."""

from __future__ import annotations

import pytest

from maintd.domain.model import Kind, Phase
from tests.facts.scene import MOVE, OTHER, VM, D, S, Scene, T

LIVE = "instance.live_migration_"
MIGRATING = {"task": "migrating"}


def live(upto: str) -> Scene:
    """A live migration from S to D, heard of up to this message (and none that comes after it)."""
    scene = Scene()
    scene.row("running")
    scene.holds(MOVE)
    for event, by, host in (
        ("pre.start", D, S),
        ("pre.end", D, S),
        ("post.start", S, S),
        ("post_dest.start", D, S),
        ("post_dest.end", D, D),
    ):
        arrived = event == "post_dest.end"
        if arrived:
            scene.shows(VM, D)
        scene.hear(LIVE + event, by, host, task=None if arrived else "migrating")
        if event == upto:
            return scene
    raise ValueError(upto)


def cold(upto: str, kind: Kind = Kind.COLD) -> Scene:
    """A cold migration from S to D, heard of up to this message."""
    scene = Scene()
    scene.row("pre-migrating", kind, destination=None)
    scene.holds(MOVE)
    for event, by, host, status, state in (
        ("resize_prep.start", D, S, "pre-migrating", "active"),
        ("resize_prep.end", D, S, "migrating", "active"),
        ("resize.start", S, S, "migrating", "active"),
        ("resize.end", S, D, "post-migrating", "active"),
        ("resize_finish.start", D, D, "post-migrating", "active"),
        ("resize_finish.end", D, D, "finished", "resized"),
    ):
        scene.row(status, kind)
        if host == D:
            scene.shows(VM, D, state)
        scene.hear(f"instance.{event}", by, host, state=state, task=None if state == "resized" else "resize_migrating")
        if event == upto:
            return scene
    raise ValueError(upto)


def test_2_1_01_live_migration_pre() -> None:
    """pre.* comes from the destination with the source's host: both are known, and the server stays on the source."""
    scene = Scene()

    seen = scene.hear(LIVE + "pre.start", D, S, **MIGRATING)

    assert (False, S, D, D) == (seen.trusted, seen.source, seen.destination, seen.reporter)
    assert (S, Phase.PREPARING) == (scene.host_of(), scene.phase())
    scene.hear(LIVE + "pre.end", D, S, **MIGRATING)
    assert (S, Phase.RUNNING) == (scene.host_of(), scene.phase())
    assert {"moving"} == scene.why() and not scene.wants_pass()


def test_2_1_02_live_migration_post_start() -> None:
    """post.start says that the guest runs elsewhere, and frees nothing: the source is only cleaning up."""
    scene = live("pre.end")

    seen = scene.hear(LIVE + "post.start", S, S, **MIGRATING)

    assert (False, S, None) == (seen.trusted, seen.source, seen.destination)
    assert (S, Phase.FINISHING) == (scene.host_of(), scene.phase())
    assert {"moving"} == scene.why() and not scene.wants_pass()


def test_2_1_03_live_migration_post_dest_start() -> None:
    """post_dest.start comes from the destination and still names the source, which is not believed to be free."""
    scene = live("pre.end")  # post.start went unheard

    seen = scene.hear(LIVE + "post_dest.start", D, S, **MIGRATING)

    assert (False, S, D) == (seen.trusted, seen.source, seen.destination)
    assert (S, Phase.FINISHING, {"moving"}) == (scene.host_of(), scene.phase(), scene.why())


def test_2_1_04_live_migration_post_dest_end() -> None:
    """post_dest.end is the first to be believed: the server is on the destination, and the source waits for its row."""
    scene = live("pre.end")  # post.start and post_dest.start went unheard
    scene.shows(VM, D)

    seen = scene.hear(LIVE + "post_dest.end", D, D)

    assert (True, None, D) == (seen.trusted, seen.source, seen.destination)
    assert (D, Phase.FINISHING) == (scene.host_of(), scene.phase())
    assert {"moving"} == scene.why() and not scene.wants_pass()


def test_2_1_05_live_migration_post_end() -> None:
    """post.end names the source out of an old copy: nothing comes back; the source is a candidate, not yet empty."""
    scene = live("post_dest.end")

    seen = scene.hear(LIVE + "post.end", S, S, age=5, **MIGRATING)

    assert (False, S) == (seen.trusted, seen.source)
    assert (D, Phase.FINISHING) == (scene.host_of(), scene.phase())
    assert scene.wants_pass()
    assert not scene.is_proven()  # the row is still running, the source's allocation still held
    scene.row("completed")
    scene.holds()
    assert scene.is_proven()


def test_2_1_06_live_migration_rollback() -> None:
    """rollback.* leaves the server on the source; its end is a verdict that waits for the row."""
    scene = live("pre.end")

    start = scene.hear(LIVE + "rollback.start", S, S, **MIGRATING)
    assert Phase.ROLLING_BACK is scene.phase()
    end = scene.hear(LIVE + "rollback.end", S, S)

    assert [(False, S), (False, S)] == [(seen.trusted, seen.source) for seen in (start, end)]
    assert (S, Phase.ROLLING_BACK, Phase.FAILED) == (scene.host_of(), scene.phase(), scene.migration().verdict)
    scene.row("failed")
    scene.reconcile()
    assert (S, Phase.FAILED) == (scene.host_of(), scene.phase())
    assert not scene.is_proven()


def test_2_1_07_live_migration_rollback_dest() -> None:
    """rollback_dest.* is the destination cleaning up, at any time: it names both hosts and moves no phase back."""
    scene = live("pre.end")
    scene.hear(LIVE + "rollback.start", S, S, **MIGRATING)
    scene.hear(LIVE + "rollback.end", S, S)

    seen = scene.hear(LIVE + "rollback_dest.end", D, S, **MIGRATING)

    assert (False, S, D) == (seen.trusted, seen.source, seen.destination)
    assert (S, Phase.ROLLING_BACK) == (scene.host_of(), scene.phase())


def test_2_1_08_live_migration_abort() -> None:
    """abort.* names the source alone, frees nothing, and of a running migration ends nothing."""
    for phase in ("start", "end"):
        scene = live("pre.end")
        seen = scene.hear(LIVE + f"abort.{phase}", S, S, **MIGRATING)
        assert (False, S, None) == (seen.trusted, seen.source, seen.destination)
        assert (S, Phase.RUNNING, True) == (scene.host_of(), scene.phase(), scene.migration().aborted)
        assert {"moving"} == scene.why()


def test_2_1_09_live_migration_force_complete() -> None:
    """force_complete.end says that it was asked for: the migration goes on, and the server is on the source."""
    scene = live("pre.end")

    for phase in ("start", "end"):
        seen = scene.hear(LIVE + f"force_complete.{phase}", S, S, **MIGRATING)
        assert (False, S) == (seen.trusted, seen.source)

    assert (S, Phase.RUNNING, None) == (scene.host_of(), scene.phase(), scene.migration().verdict)
    unheard = Scene()
    unheard.hear(LIVE + "force_complete.start", S, S, **MIGRATING)
    assert (S, True) == (unheard.migration().source, unheard.migration().open)


def test_2_1_10_resize_prep() -> None:
    """resize_prep.* comes from the destination with the source's host, and says nothing of how the preparing went."""
    scene = Scene()

    seen = scene.hear("instance.resize_prep.start", D, S, case="cold", task="resize_prep")

    assert (False, S, D, Kind.COLD) == (seen.trusted, seen.source, seen.destination, seen.kind)
    assert (S, Phase.PREPARING) == (scene.host_of(), scene.phase())
    scene.hear("instance.resize_prep.end", D, S, task="resize_prep")
    assert (S, Phase.PREPARING) == (scene.host_of(), scene.phase())


def test_2_1_11_resize_start() -> None:
    """resize.start comes from the source, which still has everything."""
    scene = cold("resize_prep.end")

    seen = scene.hear("instance.resize.start", S, S, task="resize_migrating")

    assert (False, S, None) == (seen.trusted, seen.source, seen.destination)
    assert (S, Phase.RUNNING, {"moving"}) == (scene.host_of(), scene.phase(), scene.why())


def test_2_1_12_resize_end() -> None:
    """resize.end names the destination, and is no departure: nothing leaves the source before the confirmation."""
    scene = cold("resize.start")

    seen = scene.hear("instance.resize.end", S, D, task="resize_migrated")

    assert (False, S, D) == (seen.trusted, seen.source, seen.destination)
    assert (S, Phase.FINISHING) == (scene.host_of(), scene.phase())
    scene.wait(60.0)
    assert Phase.FINISHING is scene.phase()
    assert {"moving"} == scene.why() and not scene.wants_pass()
    between_cells = scene.hear("instance.resize.end", S, S, task="resize_migrated")
    assert (S, None) == (between_cells.source, between_cells.destination)


def test_2_1_13_resize_error() -> None:
    """resize.error is the destination's word that it could not; Nova may try another, so it ends nothing at once."""
    scene = cold("resize_prep.end")

    seen = scene.hear("instance.resize.error", D, S, task="resize_prep")

    assert (False, S, D) == (seen.trusted, seen.source, seen.destination)
    assert (True, Phase.FAILED) == (scene.migration().open, scene.migration().verdict)
    scene.hear("instance.resize_prep.start", T, S, case="cold", task="resize_prep")
    scene.hear("instance.resize.start", S, S, task="resize_migrating")
    assert (S, T, Phase.RUNNING) == (scene.host_of(), scene.migration().destination, scene.phase())
    assert scene.migration().verdict is None


def test_2_1_14_resize_finish() -> None:
    """resize_finish.end is believed: the server is on the destination, and the source still holds its disks."""
    scene = cold("resize.start")  # resize.end went unheard

    start = scene.hear("instance.resize_finish.start", D, D, task="resize_finish")
    assert Phase.FINISHING is scene.phase()
    scene.row("finished", Kind.COLD)
    scene.shows(VM, D, "resized")
    end = scene.hear("instance.resize_finish.end", D, D, state="resized")

    assert [(False, D), (True, D)] == [(seen.trusted, seen.destination) for seen in (start, end)]
    assert (D, Phase.AWAITING_CONFIRMATION) == (scene.host_of(), scene.phase())
    assert {"unconfirmed_resize"} == scene.why() and not scene.wants_pass()
    assert not scene.is_proven()


def test_2_1_15_resize_confirm() -> None:
    """resize_confirm.* comes from the source with the destination's host: the publisher is the host that is freed."""
    scene = cold("resize_finish.end")

    start = scene.hear("instance.resize_confirm.start", S, D, state="resized")
    assert (Phase.CONFIRMING, {"moving"}) == (scene.phase(), scene.why())
    end = scene.hear("instance.resize_confirm.end", S, D)

    assert [(S, D), (S, D)] == [(seen.source, seen.destination) for seen in (start, end)]
    assert D == scene.host_of()
    assert scene.wants_pass()
    scene.row("confirmed", Kind.COLD)
    scene.shows(VM, D)
    assert not scene.is_proven()  # the source's allocation goes last
    scene.holds()
    assert scene.is_proven()


def test_2_1_16_resize_revert() -> None:
    """resize_revert.start still names the destination; .end is believed, and the server is back on the source."""
    scene = cold("resize_finish.end")

    start = scene.hear("instance.resize_revert.start", S, D, state="resized", task="resize_reverting")
    assert (False, S, D) == (start.trusted, start.source, start.destination)
    assert Phase.REVERTING is scene.phase()
    assert {"moving"} == scene.why()
    end = scene.hear("instance.resize_revert.end", S, S)

    assert (True, S) == (end.trusted, end.source)
    assert (S, Phase.CANCELLED) == (scene.host_of(), scene.migration().verdict)
    scene.shows(VM, S)
    scene.row("reverted", Kind.COLD)
    scene.holds(VM)
    assert not scene.is_proven()


def test_2_1_17_evacuate() -> None:
    """evacuate names the dead host: it is the source of an evacuation, and the server may have left its disks there."""
    scene = Scene()
    scene.dies()

    seen = scene.hear("instance.evacuate", "nova-api:ctl", S, task="rebuilding")

    assert (False, S, None, None) == (seen.trusted, seen.source, seen.destination, seen.reporter)
    assert (S, Kind.EVACUATION) == (scene.host_of(), scene.migration().kind)
    assert [("evacuated", VM)] == scene.residue()


def test_2_1_18_rebuild_scheduled() -> None:
    """rebuild_scheduled is signed with the destination's name; of a plain rebuild it is no step of any move."""
    scene = Scene()
    scene.dies()
    scene.hear("instance.evacuate", "nova-api:ctl", S, task="rebuilding")

    seen = scene.hear("instance.rebuild_scheduled", f"nova-conductor:{D}", S, case="evacuation", task="rebuilding")

    assert (S, D, None) == (seen.source, seen.destination, seen.reporter)
    assert (S, D, Phase.PREPARING) == (scene.host_of(), scene.migration().destination, scene.phase())
    plain = scene.hear("instance.rebuild_scheduled", f"nova-conductor:{S}", S, case="plain", server=OTHER)
    assert plain.step is None
    assert () == scene.fleet.migrations_of(OTHER)


def test_2_1_19_rebuild_of_an_evacuation() -> None:
    """rebuild.* of an evacuation names the dead host to the end, which is not free; the new one is the publisher's."""
    scene = Scene()
    scene.dies()
    scene.hear("instance.evacuate", "nova-api:ctl", S, task="rebuilding")

    start = scene.hear("instance.rebuild.start", D, S, case="evacuation", task="rebuilding")
    assert (D, Phase.RUNNING) == (scene.migration().destination, scene.phase())
    end = scene.hear("instance.rebuild.end", D, S, case="evacuation")

    assert (Phase.FINISHING, Phase.COMPLETED) == (scene.phase(), scene.migration().verdict)
    assert [(False, S, D)] * 2 == [(seen.trusted, seen.source, seen.destination) for seen in (start, end)]
    assert "residue" in scene.why()
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.reconcile()
    assert (D, Phase.COMPLETED) == (scene.host_of(), scene.phase())
    assert not scene.is_proven()


def test_2_1_20_rebuild_plain() -> None:
    """A plain rebuild is published by the server's own host: no move, and the server is where it was."""
    scene = Scene()

    for phase in ("start", "end"):
        seen = scene.hear(f"instance.rebuild.{phase}", S, S, case="plain", task="rebuilding")
        assert (None, None, None) == (seen.step, seen.source, seen.destination)

    assert (S, ()) == (scene.host_of(), scene.fleet.migrations_of(VM))
    assert [] == scene.residue()


def test_2_1_21_shelve() -> None:
    """A shelved server that was not offloaded is still on its host."""
    scene = Scene()

    scene.hear("instance.shelve.start", S, S, task="shelving")
    scene.hear("instance.shelve.end", S, S, state="shelved")

    assert (S, "shelved") == (scene.host_of(), scene.server().vm_state)
    scene.shows(VM, S, "shelved")
    assert not scene.wants_pass() and not scene.is_proven()


def test_2_1_22_shelve_offload() -> None:
    """shelve_offload.end has no host and is believed: the publisher is freed, and becomes a candidate."""
    scene = Scene()
    scene.hear("instance.shelve.end", S, S, state="shelved", task="shelving_offloading")
    start = scene.hear("instance.shelve_offload.start", S, S, state="shelved", task="shelving_offloading")
    assert (False, S) == (start.trusted, scene.host_of())

    end = scene.hear("instance.shelve_offload.end", S, None, state="shelved_offloaded")

    assert (True, None, S) == (end.trusted, end.host, end.reporter)
    assert scene.host_of() is None
    assert scene.wants_pass()
    scene.shows(VM, None, "shelved_offloaded")
    scene.holds()
    assert scene.is_proven()


def test_2_1_23_unshelve() -> None:
    """unshelve.start has no host, and its publisher is where the server lands; .end is believed."""
    scene = Scene(empty=True)
    assert scene.is_proven()

    start = scene.hear("instance.unshelve.start", S, None, state="shelved_offloaded", task="unshelving")

    assert (False, None, S) == (start.trusted, start.host, start.landing)
    assert {"incoming"} == scene.why()
    assert "host.occupied" == scene.said()[-1]
    end = scene.hear("instance.unshelve.end", S, S)
    assert end.trusted
    assert (S, {"not_attempted"}) == (scene.host_of(), scene.why())


def test_2_1_23_unshelve_of_one_that_was_not_offloaded() -> None:
    """A server that was only shelved is powered on where it was, and nothing else is heard of it."""
    scene = Scene()
    scene.hear("instance.shelve.end", S, S, state="shelved")

    scene.hear("instance.power_on.end", S, S)

    assert (S, "active") == (scene.host_of(), scene.server().vm_state)


def test_2_1_24_create() -> None:
    """create.start has no host, and its publisher is where the server lands; create.end is believed."""
    scene = Scene(empty=True)
    assert scene.is_proven()

    start = scene.hear("instance.create.start", S, None, state="building")

    assert (False, S) == (start.trusted, start.landing)
    assert {"incoming"} == scene.why()
    assert "host.occupied" == scene.said()[-1]
    end = scene.hear("instance.create.end", S, S)
    assert end.trusted
    assert S == scene.host_of()


def test_2_1_24_create_that_fails() -> None:
    """create.error is not believed to free a host, nor to fill it: passes find that nothing has come of it."""
    scene = Scene(empty=True)
    scene.hear("instance.create.start", S, None, state="building")

    seen = scene.hear("instance.create.error", S, None, state="building")

    assert (False, None, None) == (seen.trusted, seen.landing, seen.host)
    assert {"incoming"} == scene.why()
    scene.shows(VM, None, "error")
    assert scene.is_proven()


@pytest.mark.parametrize("proven", [False, True])
def test_2_1_25_delete(proven: bool) -> None:
    """delete.end from the compute ends the server where it was: the host is a candidate, and empty once proven."""
    scene = Scene()
    scene.hear("instance.delete.start", S, S, task="deleting")
    scene.hear("instance.shutdown.end", S, S)
    assert S == scene.host_of()

    seen = scene.hear("instance.delete.end", S, S, case="compute", state="deleted")

    assert (True, True, False) == (seen.trusted, seen.deleted, seen.local_delete)
    assert scene.host_of() is None
    assert [] == scene.residue()
    assert scene.wants_pass() and [] == scene.emptied()
    if proven:
        scene.forgets(VM)
        scene.holds()
    assert proven == scene.is_proven()


@pytest.mark.parametrize("by", ["nova-api:ctl", "nova-conductor:ctl"])
def test_2_1_26_delete_local(by: str) -> None:
    """A delete that no compute published leaves guest and files: the server is gone, and its host is not free."""
    scene = Scene()
    scene.dies()

    seen = scene.hear("instance.delete.end", by, S, case="local", state="deleted")

    assert (True, True, None) == (seen.deleted, seen.local_delete, seen.reporter)
    assert [("deleted_while_down", VM)] == scene.residue()
    scene.forgets(VM)
    scene.holds()
    assert not scene.is_proven()
    assert {"residue"} == scene.why()


def test_2_1_26_delete_local_of_one_without_a_host() -> None:
    """A server deleted before it had a host leaves nothing anywhere."""
    scene = Scene(empty=True)

    seen = scene.hear("instance.delete.end", "nova-api:ctl", None, case="local", state="deleted")

    assert (True, False) == (seen.deleted, seen.local_delete)
    assert [] == scene.residue()


def test_2_1_27_soft_delete() -> None:
    """A soft-deleted server is believed to be where it was, and says so as a blocker of its own."""
    scene = Scene()

    start = scene.hear("instance.soft_delete.start", S, S, task="soft-deleting")
    seen = scene.hear("instance.soft_delete.end", S, S, state="soft-delete")

    assert [(True, False)] * 2 == [(start.trusted, start.deleted), (seen.trusted, seen.deleted)]
    assert (S, {"soft_deleted"}) == (scene.host_of(), scene.why())
    scene.shows(VM, S, "soft-delete")
    assert not scene.wants_pass() and not scene.is_proven()


def test_2_1_27_soft_delete_of_one_whose_host_is_down() -> None:
    """Soft-deleted while its host is down, a server is deleted for good, and its guest and disks are still there."""
    scene = Scene()
    scene.dies()

    seen = scene.hear("instance.delete.end", "nova-api:ctl", S, case="local", state="soft-delete")

    assert (True, True) == (seen.deleted, seen.local_delete)
    assert [("deleted_while_down", VM)] == scene.residue()


def test_2_1_28_restore() -> None:
    """A restored server is on its host as any other."""
    scene = Scene()
    scene.hear("instance.soft_delete.end", S, S, state="soft-delete")

    start = scene.hear("instance.restore.start", S, S, state="soft-delete", task="restoring")
    assert {"soft_deleted"} == scene.why()
    seen = scene.hear("instance.restore.end", S, S)

    assert (True, True) == (start.trusted, seen.trusted)
    assert (S, {"not_attempted"}) == (scene.host_of(), scene.why())


def test_2_1_29_other_actions() -> None:
    """Power and pause show a server on its host, one that nobody knew of too; during a move they change nothing."""
    scene = Scene(empty=True)

    unknown = scene.hear("instance.power_off.end", S, S, state="stopped", server=OTHER)

    assert (False, None) == (unknown.trusted, unknown.step)
    assert (S, "stopped") == (scene.host_of(OTHER), scene.server(OTHER).vm_state)
    scene = live("post_dest.end")
    scene.hear("instance.power_off.end", S, S, age=5)
    assert D == scene.host_of()


def test_2_1_30_update() -> None:
    """instance.update is believed for the payload's host, and its publisher is taken for no host at all."""
    scene = Scene()

    seen = scene.hear("instance.update", "nova-compute:ctl", D, case="plain")

    assert (True, None) == (seen.trusted, seen.reporter)
    assert D == scene.host_of()
    assert scene.wants_pass()
    scene.hear("instance.update", f"nova-compute:{S}", D, case="plain")
    assert D == scene.host_of()


def test_2_1_31_exists() -> None:
    """instance.exists is a copy in the middle of something else: no step, not believed, and nothing moves."""
    scene = cold("resize_finish.end")

    seen = scene.hear("instance.exists", D, S, state="resized")

    assert (False, None) == (seen.trusted, seen.step)
    assert (D, Phase.AWAITING_CONFIRMATION) == (scene.host_of(), scene.phase())


def test_2_1_32_an_older_copy_is_not_believed() -> None:
    """What is believed of the newest copy is not believed of an older one, whatever kind of message it comes with."""
    scene = Scene()
    scene.hear("instance.update", "nova-compute:ctl", D, case="plain")

    seen = scene.hear("instance.update", "nova-compute:ctl", S, case="plain", age=60)

    assert seen.trusted
    assert D == scene.host_of()
    scene.hear("instance.update", "nova-compute:ctl", S, case="plain")
    assert S == scene.host_of()
