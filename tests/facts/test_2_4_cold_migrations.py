"""Facts 2.4: cold migrations and resizes. A source holds the disks until somebody confirms, and gets them back else."""

from __future__ import annotations

from maintd.domain.model import Kind, Phase
from tests.facts.scene import MOVE, VM, D, S, Scene


def prepared() -> Scene:
    """Scheduled: the row has no destination yet."""
    scene = Scene()
    scene.row("pre-migrating", Kind.COLD, destination=None)
    scene.holds(MOVE)
    scene.shows(VM, S, task="resize_prep")
    scene.reconcile()
    return scene


def finished() -> Scene:
    """The server runs on D, nobody has confirmed."""
    scene = prepared()
    scene.hear("instance.resize_prep.start", D, S, case="cold", task="resize_prep")
    scene.row("migrating", Kind.COLD)
    scene.hear("instance.resize.start", S, S, task="resize_migrating")
    scene.shows(VM, D, task="resize_migrated")
    scene.row("post-migrating", Kind.COLD)
    scene.hear("instance.resize.end", S, D, task="resize_migrated")
    scene.shows(VM, D, "resized")
    scene.row("finished", Kind.COLD)
    scene.hear("instance.resize_finish.end", D, D, state="resized")
    return scene


def confirmed(scene: Scene) -> Scene:
    """Nova has confirmed, and let go of everything at S."""
    scene.row("confirmed", Kind.COLD)
    scene.shows(VM, D)
    scene.holds()
    return scene


def test_2_4_01_the_way_there() -> None:
    """Each step of the way, from a row without a destination to *finished*, leaves the source occupied."""
    scene = prepared()
    assert (None, {"moving"}) == (scene.migration().destination, scene.why())
    assert not scene.is_proven()

    scene.hear("instance.resize_prep.start", D, S, case="cold", task="resize_prep")
    assert D == scene.migration().destination
    for status, event, by, host in (
        ("migrating", "resize.start", S, S),
        ("post-migrating", "resize.end", S, D),
        ("finished", "resize_finish.start", D, D),
    ):
        scene.row(status, Kind.COLD)
        scene.shows(VM, host, task="resize_migrating")
        scene.hear(f"instance.{event}", by, host, task="resize_migrating")
        assert not scene.is_proven(), status


def test_2_4_02_unconfirmed() -> None:
    """Finished is not gone: the server counts elsewhere, and its source is blocked by an unconfirmed resize."""
    scene = finished()

    assert (D, Phase.AWAITING_CONFIRMATION) == (scene.host_of(), scene.phase())
    assert {"unconfirmed_resize"} == scene.why() == scene.finds()
    assert not scene.wants_pass() and not scene.is_proven()
    blocker = scene.host().finding
    assert blocker is not None
    assert f"openstack server migration confirm {VM}" == blocker.blockers[0].remedy


def test_2_4_03_confirm() -> None:
    """Confirming is not confirmed; the row's end and the allocation's make the source empty."""
    scene = finished()
    scene.row("confirming", Kind.COLD)
    scene.hear("instance.resize_confirm.start", S, D, state="resized")
    assert {"moving"} == scene.finds()

    scene.hear("instance.resize_confirm.end", S, D)
    scene.row("confirmed", Kind.COLD)
    scene.shows(VM, D)
    assert {"allocation"} == scene.finds()
    scene.holds()

    assert scene.is_proven()
    assert Phase.COMPLETED is scene.phase()


def test_2_4_03_confirm_that_nobody_told_of() -> None:
    """The row alone says how far it is, and its end frees the source as the messages do."""
    scene = finished()
    scene.row("confirming", Kind.COLD)
    scene.reconcile()
    assert Phase.CONFIRMING is scene.phase()

    confirmed(scene)
    scene.reconcile()

    assert Phase.COMPLETED is scene.phase()
    assert scene.is_proven()


def test_2_4_04_confirmed_by_nova_itself() -> None:
    """A confirmation that nobody asked for, without a request, is one all the same."""
    scene = finished()

    scene.hear("instance.resize_confirm.start", S, D, state="resized", request=None)
    scene.hear("instance.resize_confirm.end", S, D, request=None)
    confirmed(scene)

    assert 1 == len(scene.fleet.migrations_of(VM))
    assert scene.is_proven()
    assert 1 == scene.said().count("migration.completed")


def test_2_4_05_revert() -> None:
    """A revert brings the server back to a closed source, which is held before the server is listed there."""
    scene = finished()
    scene.hear("instance.resize_revert.start", S, D, state="resized", task="resize_reverting")
    assert {"moving"} == scene.why()

    scene.row("reverted", Kind.COLD)  # and the server is still listed on D, its allocation at S the only trace
    scene.holds(VM)
    assert not scene.is_proven()
    scene.shows(VM, S)
    scene.hear("instance.resize_revert.end", S, S)

    assert S == scene.host_of()
    assert not scene.is_proven()
    assert {"not_attempted"} == scene.why()
    assert "migration.cancelled" in scene.said()


def test_2_4_06_on_the_same_host() -> None:
    """A resize on the same host moves nothing away: source and destination are one, which stays occupied throughout."""
    scene = Scene()
    scene.row("finished", Kind.RESIZE, S, S)
    scene.holds(VM, MOVE)
    scene.shows(VM, S, "resized")
    seen = scene.hear("instance.resize_prep.start", S, S, case="resize", task="resize_prep")
    scene.hear("instance.resize.start", S, S, task="resize_migrating")
    end = scene.hear("instance.resize.end", S, S, task="resize_migrated")
    scene.hear("instance.resize_finish.end", S, S, state="resized")

    assert (S, S, None) == (seen.source, seen.destination, end.destination)
    assert (S, Phase.AWAITING_CONFIRMATION) == (scene.host_of(), scene.phase())
    assert not scene.is_proven()
    scene.hear("instance.resize_confirm.end", S, S)
    scene.row("confirmed", Kind.RESIZE, S, S)
    scene.shows(VM, S)
    assert S == scene.host_of()
    assert not scene.is_proven()


def test_2_4_07_the_destination_cannot_finish() -> None:
    """The server is on the destination in error; the source is empty as far as Nova goes, with a warning of files."""
    scene = prepared()
    scene.hear("instance.resize_prep.start", D, S, case="cold", task="resize_prep")
    scene.hear("instance.resize.end", S, D, task="resize_migrated")
    scene.hear("instance.resize_finish.start", D, D, task="resize_finish")
    assert not scene.is_proven()

    scene.row("error", Kind.COLD)
    scene.shows(VM, D, "error")
    scene.holds()
    scene.reconcile()

    assert (D, Phase.FAILED) == (scene.host_of(), scene.phase())
    assert scene.is_proven()
    assert ["failed_migration"] == [note.kind for note in scene.emptied()[0].warnings]


def test_2_4_08_an_unconfirmed_server_is_deleted() -> None:
    """Deleting an unconfirmed server confirms it: the migration is completed, and the source is free after that."""
    scene = finished()
    scene.hear("instance.delete.start", D, D, state="resized", task="deleting")
    scene.hear("instance.resize_confirm.start", S, D, state="resized", task="deleting")
    assert not scene.is_proven()

    scene.hear("instance.resize_confirm.end", S, D, task="deleting")
    scene.hear("instance.delete.end", D, D, case="compute", state="deleted")
    scene.forgets(VM)
    scene.holds()

    assert Phase.COMPLETED is scene.phase()
    assert [] == scene.residue()
    assert scene.is_proven()


def test_2_4_08_an_unconfirmed_server_is_deleted_while_its_source_is_down() -> None:
    """With the source down nobody confirms there: its disks stay, and are remembered when the rows are gone."""
    scene = finished()
    scene.dies()

    scene.hear("instance.delete.end", D, D, case="compute", state="deleted")
    scene.forgets(VM)
    scene.holds()

    assert [("deleted_while_down", VM)] == scene.residue()
    assert not scene.is_proven()
