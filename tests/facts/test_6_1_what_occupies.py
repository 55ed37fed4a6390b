"""Facts 6.1: what occupies a host physically, by what can be seen of it. All but the harmless things are in the way.

Nothing is heard of any of it here: the passes alone have to find it.
"""

from __future__ import annotations

import pytest

from maintd.domain.model import Kind, Phase
from tests.facts.scene import MOVE, OTHER, VM, D, S, Scene, T


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        ("active", "not_attempted"),
        ("paused", "not_attempted"),
        ("stopped", "cannot_live_migrate"),
        ("suspended", "cannot_live_migrate"),
        ("rescued", "cannot_live_migrate"),
        ("error", "cannot_live_migrate"),
        ("shelved", "cannot_live_migrate"),
        ("resized", "cannot_live_migrate"),
    ],
)
def test_6_1_01_a_server_of_any_state(state: str, kind: str) -> None:
    """A server that is listed on the host is in the way, whatever its state, and the blocker says how it can leave."""
    scene = Scene(empty=True)
    scene.shows(VM, S, state)
    scene.holds(VM)

    assert {kind} == scene.finds()
    assert not scene.is_proven()


def test_6_1_02_soft_deleted() -> None:
    """A soft-deleted server has its disks here until it is reclaimed."""
    scene = Scene(empty=True)
    scene.shows(VM, S, "soft-delete")
    scene.holds(VM)

    assert {"soft_deleted"} == scene.finds()
    assert not scene.is_proven()
    scene.forgets(VM)
    scene.holds()
    assert scene.is_proven()


def test_6_1_03_shelved_and_offloaded() -> None:
    """A server that was offloaded is nowhere, and in nobody's way."""
    scene = Scene(empty=True)
    scene.shows(VM, None, "shelved_offloaded")
    scene.reconcile()

    assert scene.host_of() is None
    assert scene.is_proven()


@pytest.mark.parametrize("known", [True, False])
def test_6_1_04_a_build_that_is_not_claimed(known: bool) -> None:
    """A build that the scheduler has sent here shows in Placement alone, and is on its way."""
    scene = Scene(empty=True)
    if known:
        scene.shows(OTHER, None, "building", task="scheduling")
    scene.holds(OTHER)

    found = scene.finds()

    assert ({"incoming"} if known else {"allocation"}) == found
    assert not scene.is_proven()
    scene.shows(OTHER, S)
    assert not scene.is_proven()
    if known:
        assert {"not_attempted"} == scene.finds()


def test_6_1_05_a_build_that_is_claimed() -> None:
    """A build that its compute has taken is listed here, and on its way."""
    scene = Scene(empty=True)
    scene.shows(VM, S, "building", task="spawning")
    scene.holds(VM)

    assert {"incoming"} == scene.finds()
    assert not scene.is_proven()


@pytest.mark.parametrize(
    ("kind", "status", "phase"),
    [
        (Kind.LIVE, "accepted", Phase.ASKED),
        (Kind.LIVE, "preparing", Phase.PREPARING),
        (Kind.LIVE, "running", Phase.RUNNING),
        (Kind.COLD, "post-migrating", Phase.FINISHING),
        (Kind.EVACUATION, "pre-migrating", Phase.RUNNING),
    ],
)
def test_6_1_06_incoming(kind: Kind, status: str, phase: Phase) -> None:
    """What is moved here is on its way from its row's first status on, while the server is still elsewhere."""
    scene = Scene(empty=True)
    scene.shows(VM, D)
    scene.row(status, kind, D, S)
    scene.holds(VM)

    assert ({"incoming"}, phase) == (scene.finds(), scene.phase())
    assert not scene.is_proven()


def test_6_1_06_incoming_without_a_row() -> None:
    """An unshelve has no row: its allocation and its task are enough."""
    scene = Scene(empty=True)
    scene.shows(VM, None, "shelved_offloaded", task="unshelving")
    scene.holds(VM)

    assert {"incoming"} == scene.finds()
    assert not scene.is_proven()


@pytest.mark.parametrize(
    ("kind", "status", "phase"),
    [
        (Kind.LIVE, "queued", Phase.QUEUED),
        (Kind.LIVE, "running (post-copy)", Phase.RUNNING),
        (Kind.RESIZE, "pre-migrating", Phase.PREPARING),
        (Kind.COLD, "migrating", Phase.RUNNING),
    ],
)
def test_6_1_07_on_its_way_out(kind: Kind, status: str, phase: Phase) -> None:
    """What is on its way out is here until it is out."""
    scene = Scene(empty=True)
    scene.shows(VM, S)
    scene.row(status, kind)
    scene.holds(MOVE)

    assert ({"moving"}, phase) == (scene.finds(), scene.phase())
    assert not scene.is_proven()


def test_6_1_07_a_status_that_nobody_knows() -> None:
    """A row in a status of some later Nova holds both its hosts, in doubt."""
    scene = Scene(empty=True)
    scene.shows(VM, D)
    scene.row("teleporting")

    assert {"moving"} == scene.finds()
    assert not scene.is_proven()


@pytest.mark.parametrize("kind", [Kind.COLD, Kind.RESIZE])
@pytest.mark.parametrize("held", [(MOVE,), ()])
def test_6_1_08_unconfirmed(kind: Kind, held: tuple[str, ...]) -> None:
    """An unconfirmed resize holds its source, though the server is elsewhere and whatever Placement says."""
    scene = Scene(empty=True)
    scene.shows(VM, D, "resized")
    scene.row("finished", kind)
    scene.holds(*held)

    assert ({"unconfirmed_resize"}, Phase.AWAITING_CONFIRMATION) == (scene.finds(), scene.phase())
    assert not scene.is_proven()


def test_6_1_08_unconfirmed_holds_not_its_destination() -> None:
    """At its destination an unconfirmed server is in the way as a server, not as an unconfirmed resize."""
    scene = Scene(empty=True)
    scene.shows(VM, S, "resized")
    scene.row("finished", Kind.RESIZE, D, S)
    scene.holds(VM)
    assert "unconfirmed_resize" not in scene.finds()
    assert not scene.is_proven()


def test_6_1_09_unconfirmed_between_cells() -> None:
    """The hidden row of a resize between cells is listed by the hypervisor call, and that is enough."""
    scene = Scene(empty=True)
    scene.shows(VM, S, "resized", hidden=True)

    assert {"hidden_server"} == scene.finds()
    assert not scene.is_proven()


@pytest.mark.parametrize(("status", "phase"), [("confirming", Phase.CONFIRMING), ("reverting", Phase.REVERTING)])
def test_6_1_10_being_confirmed_or_reverted(status: str, phase: Phase) -> None:
    """What is being confirmed or reverted holds its source until it is."""
    scene = Scene(empty=True)
    scene.shows(VM, D, "resized")
    scene.row(status, Kind.RESIZE)
    scene.holds(MOVE)

    assert ({"moving"}, phase) == (scene.finds(), scene.phase())
    assert not scene.is_proven()


def test_6_1_11_evacuated() -> None:
    """A row that is done holds its source, up again or not, until it is completed."""
    scene = Scene(empty=True)
    scene.dies()
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.holds(VM)
    assert {"residue"} == scene.finds()

    scene.is_back()
    assert {"residue"} == scene.finds()
    assert not scene.is_proven()
    scene.row("completed", Kind.EVACUATION)
    scene.holds()
    assert scene.is_proven()


def test_6_1_11_evacuated_to_it_holds_nothing() -> None:
    """At its destination an evacuation that is done holds nothing: the server may long have left again."""
    scene = Scene(empty=True)
    scene.row("done", Kind.EVACUATION, D, S)
    scene.shows(VM, T)

    assert scene.is_proven()


def test_6_1_12_deleted_while_it_was_down() -> None:
    """Nova shows nothing of a server that was deleted while its host was down; the ledger does."""
    scene = Scene()
    scene.dies()
    scene.forgets(VM)
    scene.holds()
    scene.reconcile()

    assert {"residue"} == scene.finds()
    scene.is_back()
    assert {"residue"} == scene.finds()
    assert not scene.is_proven()


def test_6_1_13_evacuated_and_deleted() -> None:
    """Nova shows nothing at all of a server that was evacuated and then deleted; the ledger does."""
    scene = Scene()
    scene.dies()
    scene.row("done", Kind.EVACUATION)
    scene.shows(VM, D)
    scene.reconcile()
    scene.forgets(VM)
    scene.holds()
    scene.reconcile()

    assert {"residue"} == scene.finds()
    assert not scene.is_proven()


@pytest.mark.parametrize("status", ["failed", "error"])
def test_6_1_14_a_failed_move(status: str) -> None:
    """A move that failed since the host was closed may have left files: a warning in the proof, and no blocker."""
    scene = Scene(empty=True)
    scene.shows(VM, D)
    scene.row(status, Kind.LIVE, D, S)

    assert scene.is_proven()
    assert [("failed_migration", VM)] == [(note.kind, note.server_id) for note in scene.emptied()[0].warnings]


def test_6_1_15_an_allocation_left_over() -> None:
    """An allocation that nothing explains blocks for its grace, and is a warning then: a leak, not a server."""
    scene = Scene(empty=True)
    scene.shows(VM, D)
    scene.holds(VM)
    assert {"allocation"} == scene.finds()
    assert not scene.is_proven()

    scene.wait(scene.fleet.policy.leftover_grace_s)

    assert scene.is_proven()
    assert ["leftover_allocation"] == [note.kind for note in scene.emptied()[0].warnings]


def test_6_1_16_what_is_not_novas() -> None:
    """A proof says of what it is one: of Nova's servers, and of nothing else that may run on the host."""
    scene = Scene(empty=True)

    assert scene.is_proven()
    assert "nova" == scene.emptied()[0].scope
