"""Facts 2.6: evacuations. The old host keeps guest and disks until it runs again, and Nova may forget that it does."""

from __future__ import annotations

from maintd.domain.model import Kind, Phase, Policy
from tests.facts.scene import MOVE, OTHER, VM, D, S, Scene, T


def asked() -> Scene:
    """S is dead, and nova-api has accepted to evacuate the server: a row without a destination."""
    scene = Scene()
    scene.dies()
    scene.row("accepted", Kind.EVACUATION, destination=None)
    scene.shows(VM, S, task="rebuilding")
    scene.hear("instance.evacuate", "nova-api:ctl", S, task="rebuilding")
    return scene


def done() -> Scene:
    """The server runs on D; S is still dead, and holds an allocation under the server's name."""
    scene = asked()
    scene.hear("instance.rebuild_scheduled", f"nova-conductor:{D}", S, case="evacuation", task="rebuilding")
    scene.row("pre-migrating", Kind.EVACUATION)
    scene.hear("instance.rebuild.start", D, S, case="evacuation", task="rebuilding")
    scene.hear("instance.rebuild.end", D, S, case="evacuation")
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.reconcile()
    return scene


def test_2_6_01_it_is_asked_for() -> None:
    """Accepted, with no destination known: the dead host is held by the move, and by what it may keep."""
    scene = asked()

    assert (S, None) == (scene.migration().source, scene.migration().destination)
    assert (S, Phase.ASKED) == (scene.host_of(), scene.phase())
    assert not scene.is_proven()
    scene.hear("instance.rebuild_scheduled", f"nova-conductor:{D}", S, case="evacuation", task="rebuilding")
    assert D == scene.migration().destination


def test_2_6_02_it_works() -> None:
    """rebuild.end still names the dead host; the server's row tells the new one, and the migration is completed."""
    scene = asked()
    scene.hear("instance.rebuild.start", D, S, case="evacuation", task="rebuilding")

    end = scene.hear("instance.rebuild.end", D, S, case="evacuation")
    assert (False, S, D) == (end.trusted, end.host, end.destination)
    update = scene.hear("instance.update", "nova-compute:ctl", D, case="plain")

    assert (True, D) == (update.trusted, scene.host_of())
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.reconcile()
    assert (D, Phase.COMPLETED) == (scene.host_of(), scene.phase())
    assert 1 == scene.said().count("migration.completed")


def test_2_6_03_until_its_compute_runs_again() -> None:
    """Completed for the server is not over for the host: residue until the row says completed, and then it is empty."""
    scene = done()
    assert [("evacuated", VM)] == scene.residue()
    assert {"residue"} == scene.why() == scene.finds()
    assert not scene.is_proven()

    scene.is_back()
    assert not scene.is_proven()  # up again, and not cleaned up yet
    scene.row("completed", Kind.EVACUATION)
    scene.holds()
    scene.reconcile()

    assert [] == scene.residue()
    assert scene.is_proven()


def test_2_6_03_an_operator_accepts_the_residue() -> None:
    """With accept_residue the dead host is called empty, and what may be left on it is named."""
    scene = done()
    scene.holds()
    assert not scene.is_proven()

    accepting = Scene(Policy(has_cloud=True, accept_residue=True))
    accepting.dies()
    accepting.row("done", Kind.EVACUATION)
    accepting.shows(VM, D)
    accepting.holds()
    accepting.reconcile()

    assert accepting.is_proven()
    assert [("evacuated", VM)] == [(note.kind, note.server_id) for note in accepting.emptied()[0].residue]


def test_2_6_04_its_allocation_is_the_servers() -> None:
    """The residue blocks, with the server's allocation on its old host or without: neither is taken for the other."""
    scene = done()
    assert {"residue"} == scene.finds()
    assert D == scene.host_of()

    scene.holds()

    assert {"residue"} == scene.finds()
    assert not scene.is_proven()


def test_2_6_05_the_rebuild_fails() -> None:
    """A failed evacuation leaves the server where it was, and nothing behind on its host but itself."""
    scene = asked()
    scene.hear("instance.rebuild.start", D, S, case="evacuation", task="rebuilding")

    seen = scene.hear("instance.rebuild.error", D, S, state="error", task="rebuilding")
    assert Phase.FAILED is scene.migration().verdict
    scene.row("failed", Kind.EVACUATION)
    scene.shows(VM, S, "error")
    scene.reconcile()

    assert (False, S, D) == (seen.trusted, seen.source, seen.destination)
    assert (S, Phase.FAILED) == (scene.host_of(), scene.phase())
    assert [] == scene.residue()
    assert {"last_attempt_failed"} == scene.why()
    assert not scene.is_proven()


def test_2_6_06_no_host_is_found() -> None:
    """No host to rebuild on: the server stays on the dead one, with the conductor's fault as the reason."""
    scene = asked()

    scene.hear_failure("rebuild_server")
    scene.row("error", Kind.EVACUATION, destination=None)
    scene.shows(VM, S, "error")
    scene.reconcile()

    assert (S, Phase.FAILED) == (scene.host_of(), scene.phase())
    assert {"last_attempt_failed"} == scene.why()
    assert not scene.is_proven()


def test_2_6_07_it_stays_forced_down() -> None:
    """While its rows are done Nova keeps the host forced down: it stays closed and blocked, whoever enables it."""
    scene = done()
    scene.service |= {"disabled": False}
    scene.wait(1.0)
    scene.hear_service("service.update", "forced_down", disabled=False, forced_down=True)

    assert scene.host().closed
    assert "residue" in scene.finds()
    assert not scene.is_proven()


def test_2_6_08_deleted_before_its_old_host_is_back() -> None:
    """When Nova has forgotten all of it, maintd has not: residue until an operator has looked."""
    scene = done()

    scene.hear("instance.delete.end", D, D, case="compute", state="deleted")
    scene.forgets(VM)
    scene.holds()

    assert [("evacuated", VM)] == scene.residue()
    assert {"residue"} == scene.finds()
    assert not scene.is_proven()
    scene.clears_residue()
    assert scene.is_proven()


def test_2_6_08_deleted_with_nothing_heard_of_either() -> None:
    """An evacuation known from the API alone is remembered past the server's end all the same."""
    scene = Scene()
    scene.dies()
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.reconcile()

    scene.forgets(VM)
    scene.holds()
    scene.reconcile()

    assert [("evacuated", VM)] == scene.residue()
    assert not scene.is_proven()


def test_2_6_09_a_whole_host_is_evacuated() -> None:
    """Each server's evacuation stands for itself: the host is blocked until the last row is completed."""
    scene = Scene()
    scene.shows(OTHER, S)
    scene.reconcile()
    scene.dies()
    for server, uuid, to in ((VM, MOVE, D), (OTHER, "move-2", T)):
        scene.row("done", Kind.EVACUATION, S, to, server=server, uuid=uuid)
        scene.shows(server, to)
    scene.reconcile()
    assert [("evacuated", VM), ("evacuated", OTHER)] == scene.residue()

    scene.is_back()
    scene.holds()
    scene.row("completed", Kind.EVACUATION, S, D)
    assert not scene.is_proven()
    assert [("evacuated", OTHER)] == scene.residue()
    scene.row("completed", Kind.EVACUATION, S, T, server=OTHER, uuid="move-2")

    assert scene.is_proven()
