"""Facts 2.5: resizes between cells. They cannot be told fully; they are kept *not empty*, whatever they look like."""

from __future__ import annotations

from maintd.domain.model import Kind
from tests.facts.scene import MOVE, VM, D, S, Scene


def finished() -> Scene:
    """The server runs on D, in another cell; S's row of it is hidden, and nobody has confirmed."""
    scene = Scene()
    scene.row("finished", Kind.RESIZE)
    scene.holds(MOVE)
    scene.hear("instance.resize_prep.start", D, S, case="resize", task="resize_prep")
    scene.hear("instance.resize.start", S, S, task="resize_migrating")
    scene.hear("instance.resize.end", S, S, task="resize_migrated")
    scene.shows(VM, D, "resized")
    scene.hear("instance.resize_finish.end", D, D, state="resized")
    return scene


def test_2_5_01_the_way_there() -> None:
    """resize.end and resize_finish.start with the source's host move nothing; resize_finish.end does."""
    scene = Scene()
    scene.row("migrating", Kind.RESIZE)
    scene.holds(MOVE)
    scene.hear("instance.resize_prep.start", D, S, case="resize", task="resize_prep")

    end = scene.hear("instance.resize.end", S, S, task="resize_migrated")
    start = scene.hear("instance.resize_finish.start", D, S, task="resize_finish")

    assert [(S, None), (None, D)] == [(seen.source, seen.destination) for seen in (end, start)]
    assert (S, D) == (scene.host_of(), scene.migration().destination)
    scene.shows(VM, D, "resized")
    assert scene.hear("instance.resize_finish.end", D, D, state="resized").trusted
    assert D == scene.host_of()


def test_2_5_02_hidden_at_its_source() -> None:
    """What only the hypervisor call lists keeps the host from being empty, even with no row and no allocation there."""
    scene = Scene(empty=True)
    scene.shows(VM, S, "resized", hidden=True)

    assert {"hidden_server"} == scene.finds()
    assert not scene.is_proven()


def test_2_5_03_the_disks_stay_until_the_confirmation() -> None:
    """Unconfirmed between cells holds the source as an unconfirmed resize within one does."""
    scene = finished()

    assert D == scene.host_of()
    assert "unconfirmed_resize" in scene.why()
    assert "unconfirmed_resize" in scene.finds()
    assert not scene.is_proven()


def test_2_5_04_a_conductor_confirms() -> None:
    """A confirmation signed by a conductor frees no host by that name; the row's end frees the source."""
    scene = finished()

    start = scene.hear("instance.resize_confirm.start", "nova-compute:ctl", S, task="resize_migrated")

    assert (None, None, None) == (start.source, start.destination, start.reporter)
    assert (D, S, D) == (scene.host_of(), scene.migration().source, scene.migration().destination)
    assert not scene.is_proven()
    scene.hear("instance.resize_confirm.end", "nova-compute:ctl", D)
    assert (S, D) == (scene.migration().source, scene.migration().destination)
    assert not scene.is_proven()
    scene.row("confirmed", Kind.RESIZE)
    scene.shows(VM, D)
    scene.holds()
    assert scene.is_proven()
