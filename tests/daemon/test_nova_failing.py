"""Nova fails while a host is being proven empty: no proof, a visible reason, and the proof once Nova is well again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.daemon.processes import Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import wait_until

FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "error": ({"service": "compute", "path": "*/servers/detail*host=cmp-01*", "status": 500}, "500"),
    "forbidden": ({"service": "compute", "path": "*/servers/detail*host=cmp-01*", "status": 403}, "403"),
    "half a page": ({"service": "compute", "path": "*/servers/detail*host=cmp-01*", "cut": True}, ""),
    "slow": ({"service": "compute", "path": "*/servers/detail*host=cmp-01*", "slow_s": 60.0}, "1 s"),
    "placement": ({"service": "placement", "path": "/resource_providers/*/allocations*", "status": 503}, "503"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_never_emptied_while_nova_fails(name: str, nursery: Nursery, new_world: Callable[..., World]) -> None:
    """The last server has left, and Nova does not answer as it should: the host's blocker and /readyz say why, nothing
    is published; when Nova is well again, the host is emptied."""
    fault, word = FAULTS[name]
    world = new_world(servers={"cmp-01": 1}, timeout_s=1.0)
    daemon = nursery.spawn(world.config).wait_connected()
    bad = world.rest.faults.add(**fault)
    world.close_host("cmp-01")
    world.move_away("cmp-01", "cmp-02")
    world.receiver.wait_for("migration.completed", "cmp-01")
    world.wait_empty("cmp-01")

    def reason() -> str:
        blockers = daemon.get("/v1/hosts/cmp-01")["blockers"]
        return " ".join(str(b["detail"]) for b in blockers if b["kind"] == "unverified")

    wait_until(lambda: reason() and word in reason(), 20.0, "the host's blocker to say why")
    failures = len([line for line in daemon.lines() if line.get("event") == "poll failed"])
    assert failures > 0
    wait_until(lambda: word in " ".join(daemon.get("/readyz")["degraded"]) != "", 20.0, "/readyz to say why")
    assert [] == world.receiver.events("host.emptied")
    assert False is daemon.get("/v1/hosts/cmp-01")["empty"]

    world.rest.faults.remove(bad)
    world.rest.faults.clear()
    world.receiver.wait_for("host.emptied", "cmp-01", timeout_s=90.0)
    wait_until(lambda: [] == daemon.get("/readyz")["degraded"], 40.0, "/readyz to be content again")
    daemon.stop()
