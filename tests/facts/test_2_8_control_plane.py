"""Facts 2.8: what is said of services, hosts and failures, and what is ignored."""

from __future__ import annotations

import pytest

from maintd.domain.model import Phase
from tests.facts.scene import OTHER, VM, D, S, Scene


def test_2_8_01_service_update() -> None:
    """service.update closes and opens a host at once; the same again says nothing; whether it is up, it never says."""
    scene = Scene(empty=True)
    assert scene.is_proven()
    assert ["service.disabled", "host.emptied"] == scene.said()

    again = scene.hear_service("service.update", "disabled", disabled=True, disabled_reason="kernel")

    assert (None, "updated") == (again.up, again.change)
    assert ["service.disabled", "host.emptied"] == scene.said()
    scene.wait(1.0)
    scene.hear_service("service.update", "enabled", disabled=False, disabled_reason=None)
    assert ["service.enabled", "host.reopened"] == scene.said()[2:]
    scene.wait(1.0)
    scene.hear_service("service.update", "forced_down", disabled=False, forced_down=True)
    assert scene.host().closed
    assert "service.forced_down" == scene.said()[-1]


def test_2_8_02_service_create_and_delete() -> None:
    """A service that is deleted takes its host with it; one that is created anew under the name starts clean."""
    scene = Scene()
    scene.dies()
    scene.hear("instance.delete.end", "nova-api:ctl", S, case="local", state="deleted")
    assert scene.residue()

    scene.hear_service("service.delete")

    assert scene.fleet.host(S) is None
    assert ["service.deleted", "drain.cancelled"] == scene.said()[-2:]
    scene.wait(1.0)
    scene.hear_service("service.create", uuid="svc-new", disabled=True, disabled_reason=None)
    assert ("svc-new", True, False) == (scene.host().service_uuid, scene.host().closed, scene.host().emptied)
    assert [] == scene.residue()
    assert "service.created" in scene.said()


def test_2_8_03_compute_task_errors() -> None:
    """A failure before any compute acted names a server and no host: the server stays, a build that failed goes."""
    scene = Scene()

    seen = scene.hear_failure("migrate_server")

    assert VM == seen.server_id
    assert (S, {"last_attempt_failed"}) == (scene.host_of(), scene.why())
    building = Scene(empty=True)
    building.hear("instance.create.start", S, None, state="building", server=OTHER)
    assert {"incoming"} == building.why()
    building.hear_failure("build_instances", OTHER)
    assert {"verifying"} == building.why()


def test_2_8_03_a_build_that_failed_leaves_the_phase_of_others_alone() -> None:
    """A failed build of one server says nothing of another's migration."""
    scene = Scene()
    scene.hear("instance.live_migration_pre.start", D, S, task="migrating")

    scene.hear_failure("build_instances", OTHER)

    assert (Phase.PREPARING, None) == (scene.phase(), scene.migration().verdict)


def test_2_8_04_compute_exception() -> None:
    """compute.exception names its publisher and no server: what was read of that host so far proves nothing."""
    scene = Scene(empty=True)
    scene.one_pass()
    scene.wait(10.0)

    seen = scene.hear_hint("compute.exception", S)

    assert S == seen.host
    scene.wait(5.0)
    scene.one_pass()
    assert [] == scene.emptied()
    assert scene.is_proven()


def test_2_8_05_libvirt_connect_error() -> None:
    """libvirt.connect.error is a hint; the automatic disable that follows closes the host as an operator's would."""
    scene = Scene(empty=True)

    seen = scene.hear_hint("libvirt.connect.error", D)

    assert D == seen.host
    assert not scene.host(D).closed
    scene.hear_service("service.update", "disabled", host=D, disabled=True, disabled_reason="AUTO: Connection lost")
    assert scene.host(D).closed
    assert "drain.started" not in scene.said()


@pytest.mark.parametrize("phase", ["start", "end"])
def test_2_8_06_scheduler_select_destinations(phase: str) -> None:
    """The scheduler's questions say nothing: the host it chose is not in them."""
    assert Scene().ignores(f"scheduler.select_destinations.{phase}")


@pytest.mark.parametrize("action", ["add_host", "remove_host", "update_prop", "update_metadata", "create", "delete"])
def test_2_8_07_aggregates(action: str) -> None:
    """Membership in aggregates is known to tell nothing, though it names hosts."""
    scene = Scene()

    assert scene.ignores(f"aggregate.{action}.start")
    assert scene.ignores(f"aggregate.{action}.end")


def test_2_8_08_image_caching() -> None:
    """Images that are fetched ahead are no servers, though the message names a host."""
    assert Scene().ignores("aggregate.cache_images.progress")


@pytest.mark.parametrize(
    "event_type",
    ["metrics.update", "volume.usage", "keypair.create.end", "flavor.update", "server_group.add_member"],
)
def test_2_8_09_what_is_no_server(event_type: str) -> None:
    """Keypairs, flavors, server groups, volumes and metrics are known, and tell nothing of hosts."""
    assert Scene().ignores(event_type)
