"""The daemon with only one of its two sources."""

from __future__ import annotations

from collections.abc import Callable

from tests.daemon.processes import Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import wait_until


def test_without_a_cloud(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """On the bus alone everything but host.emptied is published, and that it cannot be is said: in the log, in the
    status, and as the host's blocker."""
    world = new_world(with_cloud=False, servers={"cmp-01": 1})
    daemon = nursery.spawn(world.config).wait_connected()

    world.close_host("cmp-01")
    (server_id,) = world.move_away("cmp-01", "cmp-02")
    completed = world.receiver.wait_for("migration.completed", "cmp-01", timeout_s=90.0)
    blockers = daemon.get("/v1/hosts/cmp-01")["blockers"]
    world.cloud.enable("cmp-01")
    world.receiver.wait_for("drain.cancelled", "cmp-01")

    assert (server_id, "notification") == (completed["data"]["server_id"], completed["data"]["because"]["origin"])
    assert "no_cloud" in {blocker["kind"] for blocker in blockers}
    assert "[cloud]" in str(daemon.get("/v1/status")["lost_sight"])
    assert daemon.said("no_cloud", detail="host.emptied will never be published")
    assert [
        "drain.cancelled",
        "drain.started",
        "migration.completed",
        "migration.started",
        "service.disabled",
        "service.enabled",
    ] == sorted(kind.split()[0] for kind in world.receiver.kinds())
    daemon.stop()


def test_without_a_bus(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """With the API alone closed hosts are polled: a drain that is found is announced, and its end proven."""
    world = new_world(broker_url=None, servers={"cmp-01": 1})
    world.close_host("cmp-01")
    daemon = nursery.spawn(world.config).wait_connected()
    started = world.receiver.wait_for("drain.started", "cmp-01")

    world.move_away("cmp-01", "cmp-02")
    emptied = world.receiver.wait_for("host.emptied", "cmp-01", timeout_s=90.0)

    assert started["data"]["found"] is True
    assert started["data"]["servers_total"] in (None, 1)  # null while the list of its servers is not read to the end
    assert started["data"]["drain_id"] == emptied["data"]["drain_id"]
    assert daemon.said("no_bus", detail="polled")
    wait_until(lambda: daemon.get("/v1/hosts/cmp-01")["empty"], what="the host to be shown as empty")
    daemon.stop()
