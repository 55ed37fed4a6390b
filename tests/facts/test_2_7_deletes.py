"""Facts 2.7: deletes, and what they leave where there is no compute to carry them out."""

from __future__ import annotations

from maintd.domain.model import Policy
from tests.facts.scene import VM, S, Scene


def test_2_7_01_forced_with_the_compute_up() -> None:
    """A forced delete that the compute carries out is a delete as any other, of a soft-deleted server too."""
    scene = Scene()
    scene.hear("instance.soft_delete.end", S, S, state="soft-delete")

    seen = scene.hear("instance.delete.end", S, S, case="compute", state="deleted")

    assert (True, False) == (seen.deleted, seen.local_delete)
    assert [] == scene.residue()
    scene.forgets(VM)
    scene.holds()
    assert scene.is_proven()


def test_2_7_02_reclaimed() -> None:
    """A soft-deleted server is in the way until Nova reclaims it, by a delete that has no request."""
    scene = Scene()
    scene.hear("instance.soft_delete.end", S, S, state="soft-delete")
    scene.shows(VM, S, "soft-delete")
    assert {"soft_deleted"} == scene.finds()

    seen = scene.hear("instance.delete.end", S, S, case="compute", state="deleted", request=None)

    assert seen.deleted
    assert [] == scene.residue()
    scene.forgets(VM)
    scene.holds()
    assert scene.is_proven()


def test_2_7_03_deleted_with_the_compute_down() -> None:
    """A delete that the API carries out alone leaves residue from its first word on, whatever else is heard."""
    scene = Scene()
    scene.dies()

    start = scene.hear("instance.delete.start", "nova-api:ctl", S, task="deleting")

    assert (False, True) == (start.deleted, start.local_delete)
    assert [("deleted_while_down", VM)] == scene.residue()
    scene.hear("instance.delete.end", "nova-api:ctl", S, case="local", state="deleted")
    assert [("deleted_while_down", VM)] == scene.residue()
    scene.forgets(VM)
    scene.holds()
    assert {"residue"} == scene.finds()
    assert not scene.is_proven()


def test_2_7_04_forced_with_the_compute_down() -> None:
    """A forced delete is unheard; that the API lists the server as deleted on a host that is down is enough."""
    scene = Scene()
    scene.dies()

    scene.shows(VM, S, "deleted")
    scene.holds()
    scene.reconcile()

    assert [("deleted_while_down", VM)] == scene.residue()
    scene.forgets(VM)
    assert not scene.is_proven()


def test_2_7_04_forced_with_the_compute_down_and_found_missing() -> None:
    """That it is simply not listed any more is enough, too."""
    scene = Scene()
    scene.dies()

    scene.forgets(VM)
    scene.holds()
    scene.reconcile()

    assert [("deleted_while_down", VM)] == scene.residue()
    assert not scene.is_proven()


def test_2_7_04_found_out_when_its_host_is_back() -> None:
    """What was deleted while the host was down is residue though nobody noticed until it was up again."""
    scene = Scene()
    scene.dies()
    scene.wait(60.0)
    scene.is_back()

    scene.forgets(VM)
    scene.holds()
    scene.reconcile()

    assert [("deleted_while_down", VM)] == scene.residue()
    assert not scene.is_proven()


def test_2_7_05_reaped_in_silence() -> None:
    """An empty Placement and a compute that is back prove nothing: only an operator, or trust_reap, clears a delete."""
    for trust_reap in (False, True):
        scene = Scene(Policy(has_cloud=True, trust_reap=trust_reap))
        scene.dies()
        scene.hear("instance.delete.end", "nova-api:ctl", S, case="local", state="deleted")
        scene.forgets(VM)
        scene.holds()
        assert not scene.is_proven()

        scene.is_back()

        assert trust_reap == scene.is_proven()
        if not trust_reap:
            scene.clears_residue()
            assert scene.is_proven()


def test_2_7_06_delete_end_proves_nothing() -> None:
    """delete.end makes the host a candidate; passes call it empty, and not while they see something."""
    scene = Scene()

    scene.hear("instance.delete.end", S, S, case="compute", state="deleted")

    assert scene.wants_pass() and [] == scene.emptied()
    scene.forgets(VM)
    scene.holds(VM)
    assert not scene.is_proven()
    scene.shows(VM, S, "deleted", hidden=True)
    scene.holds()
    assert not scene.is_proven()
