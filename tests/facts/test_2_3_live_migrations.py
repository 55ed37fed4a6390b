"""Facts 2.3: live migrations that do not simply end. Whatever becomes of one, the server counts where it is."""

from __future__ import annotations

from maintd.domain.model import Phase
from tests.facts.scene import MOVE, VM, D, S, Scene

LIVE = "instance.live_migration_"
MIGRATING = {"task": "migrating"}
WORD_S = 31.0
"""Longer than a verdict of the bus waits for the API's word."""


def begun(*events: str) -> Scene:
    """A live migration from S to D, heard of as far as these messages go."""
    scene = Scene()
    scene.row("running")
    scene.holds(MOVE)
    scene.shows(VM, S, task="migrating")
    for event in events:
        by = D if event.startswith(("pre", "post_dest")) else S
        scene.hear(LIVE + event, by, S, **MIGRATING)
    return scene


def gave_up(scene: Scene, status: str) -> Scene:
    """Nova has ended the row so, and the server is on S without a task."""
    scene.row(status)
    scene.holds(VM)
    scene.shows(VM, S)
    scene.reconcile()
    return scene


def stays(scene: Scene) -> bool:
    """The server counts as being on S, passes or not."""
    return scene.host_of() == S and not scene.is_proven() and scene.host_of() == S


def test_2_3_01_fails_before_it_begins() -> None:
    """A migration that no host could take leaves its server where it is, and says so with Nova's fault."""
    scene = Scene()
    scene.hear("instance.update", "nova-compute:ctl", S, case="plain", **MIGRATING)
    assert Phase.ASKED is scene.phase()

    seen = scene.hear_failure("migrate_server")
    scene.wait(WORD_S)

    assert ("migrate_server", VM) == (seen.task, seen.server_id)
    assert Phase.FAILED is scene.phase()
    assert {"last_attempt_failed"} == scene.why()
    assert stays(scene)


def test_2_3_02_destination_cannot_prepare() -> None:
    """pre.start and a rollback is a failure; a row in error that turns failed later ends it once."""
    scene = begun("pre.start")
    scene.hear_hint("compute.exception", D)
    scene.row("error")
    scene.reconcile()
    assert Phase.FAILED is scene.phase()

    scene.hear(LIVE + "rollback.start", S, S, **MIGRATING)
    scene.hear(LIVE + "rollback.end", S, S)
    gave_up(scene, "failed")

    assert 1 == scene.said().count("migration.failed")
    assert 1 == len(scene.fleet.migrations_of(VM))
    assert stays(scene)


def test_2_3_03_network_does_not_come_up() -> None:
    """A rollback after the destination had prepared is a failure, told as soon as the API has not spoken in time."""
    scene = begun("pre.start", "pre.end", "rollback.start")
    scene.hear(LIVE + "rollback.end", S, S)
    assert [] == [kind for kind in scene.said() if kind == "migration.failed"]

    scene.wait(WORD_S)

    assert 1 == scene.said().count("migration.failed")
    assert stays(gave_up(scene, "failed"))


def test_2_3_04_job_fails() -> None:
    """A failed job is told once, whatever the destination says of its own cleaning up afterwards."""
    scene = begun("pre.start", "pre.end", "rollback.start")
    scene.hear(LIVE + "rollback.end", S, S)
    gave_up(scene, "failed")

    scene.hear(LIVE + "rollback_dest.start", D, S, **MIGRATING)
    scene.hear(LIVE + "rollback_dest.end", D, S, **MIGRATING)

    assert (1, 1) == (scene.said().count("migration.failed"), scene.said().count("migration.started"))
    assert stays(scene)


def test_2_3_05_a_running_one_is_aborted() -> None:
    """abort.end of a running migration ends nothing; the rollback does, and it is a cancellation then."""
    scene = begun("pre.start", "pre.end", "abort.start")
    scene.hear(LIVE + "abort.end", S, S, **MIGRATING)
    assert (Phase.RUNNING, None) == (scene.phase(), scene.migration().verdict)

    scene.hear(LIVE + "rollback.start", S, S, **MIGRATING)
    scene.hear(LIVE + "rollback.end", S, S)

    assert Phase.CANCELLED is scene.migration().verdict
    gave_up(scene, "cancelled")
    assert (1, 0) == (scene.said().count("migration.cancelled"), scene.said().count("migration.failed"))
    assert stays(scene)


def test_2_3_06_a_queued_one_is_aborted() -> None:
    """Of a queued migration abort.end is the end: cancelled, without any rollback, and the server has not moved."""
    scene = Scene()
    scene.row("queued")
    scene.holds(MOVE)
    scene.reconcile()
    assert Phase.QUEUED is scene.phase()

    scene.hear(LIVE + "abort.start", S, S, **MIGRATING)
    scene.hear(LIVE + "abort.end", S, S)
    scene.wait(WORD_S)

    assert Phase.CANCELLED is scene.phase()
    assert stays(gave_up(scene, "cancelled"))
    assert 1 == scene.said().count("migration.cancelled")


def test_2_3_07_one_that_prepares_is_aborted() -> None:
    """abort.end comes twice then, with the rollback in between: one cancellation."""
    scene = begun("pre.start", "abort.start")
    scene.hear(LIVE + "abort.end", S, S, **MIGRATING)
    scene.hear(LIVE + "rollback.start", S, S, **MIGRATING)
    scene.hear(LIVE + "rollback.end", S, S)
    scene.hear(LIVE + "abort.end", S, S)

    gave_up(scene, "cancelled")

    assert (1, 0) == (scene.said().count("migration.cancelled"), scene.said().count("migration.failed"))
    assert 1 == len(scene.fleet.migrations_of(VM))
    assert stays(scene)


def test_2_3_08_an_abort_comes_too_late() -> None:
    """An abort that came too late changes nothing: the migration completes, and the source becomes empty."""
    scene = begun("pre.start", "pre.end", "abort.start")
    scene.hear_hint("compute.exception", S)
    scene.hear(LIVE + "post.start", S, S, **MIGRATING)
    scene.hear(LIVE + "post_dest.end", D, D)
    scene.shows(VM, D)
    scene.hear(LIVE + "post.end", S, S, **MIGRATING, age=5)
    scene.row("completed")
    scene.holds()

    assert scene.is_proven()
    assert (D, Phase.COMPLETED) == (scene.host_of(), scene.phase())
    assert "migration.cancelled" not in scene.said()


def test_2_3_09_the_driver_fails_in_silence() -> None:
    """Nothing is heard of it: only the API tells, and then the server is where it was, failed."""
    scene = begun("pre.start", "pre.end")

    scene.row("error")
    scene.holds(VM)
    scene.shows(VM, S, "error")
    scene.reconcile()

    assert Phase.FAILED is scene.phase()
    assert {"last_attempt_failed"} == scene.why()
    assert stays(scene)


def test_2_3_10_the_destination_fails_to_take_over() -> None:
    """The server is on the destination, in error; what Placement still holds at the source becomes a warning."""
    scene = begun("pre.start", "pre.end", "post.start", "post_dest.start")
    scene.row("error")
    scene.shows(VM, D, "error")
    scene.reconcile()

    assert (D, Phase.FAILED) == (scene.host_of(), scene.phase())
    assert "allocation" in scene.finds()
    assert not scene.is_proven()
    scene.wait(scene.fleet.policy.leftover_grace_s)
    assert scene.is_proven()
    assert {"failed_migration", "leftover_allocation"} == {note.kind for note in scene.emptied()[0].warnings}


def test_2_3_11_forced_to_complete() -> None:
    """force_complete.* ends nothing; in post-copy, too, the source is held until the usual end."""
    scene = begun("pre.start", "pre.end", "force_complete.start", "force_complete.end")
    scene.row("running (post-copy)")
    scene.reconcile()

    assert (S, Phase.RUNNING, True) == (scene.host_of(), scene.phase(), scene.migration().post_copy)
    assert {"moving"} == scene.finds()
    scene.hear(LIVE + "post_dest.end", D, D)
    scene.shows(VM, D)
    scene.row("completed")
    scene.holds()
    assert scene.is_proven()


def test_2_3_12_a_time_limit_of_libvirt() -> None:
    """A cancellation by libvirt itself has no abort.*: the rollback seems a failure until the row says cancelled."""
    scene = begun("pre.start", "pre.end", "rollback.start")
    scene.hear(LIVE + "rollback.end", S, S)
    assert Phase.FAILED is scene.migration().verdict

    gave_up(scene, "cancelled")

    assert (1, 0) == (scene.said().count("migration.cancelled"), scene.said().count("migration.failed"))
    assert stays(scene)


def test_2_3_13_the_source_starts_again() -> None:
    """nova-compute started again amid a migration ends it in error without a rollback; the server is on the source."""
    scene = begun("pre.start", "pre.end", "abort.start")

    gave_up(scene, "error")

    assert Phase.FAILED is scene.phase()
    assert stays(scene)


def test_2_3_14_the_source_stops_while_it_is_queued() -> None:
    """The row is cancelled in silence and the server says `migrating` for ever: it is on the source all the same."""
    scene = Scene()
    scene.row("queued")
    scene.holds(MOVE)
    scene.reconcile()

    scene.row("cancelled")
    scene.holds(VM)
    scene.shows(VM, S, task="migrating")
    scene.reconcile()

    assert (Phase.CANCELLED, "migrating") == (scene.phase(), scene.server().task_state)
    assert stays(scene)
    assert {"last_attempt_failed"} == scene.why()
