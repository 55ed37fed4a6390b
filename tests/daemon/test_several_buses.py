"""Two buses, and one of them is gone: its hosts are unknown, the others go on, and what was missed is made up for."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.daemon.processes import Child, Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import Proxy, Rabbit, wait_until

CELL = ("cmp-03", "cmp-04")


@pytest.fixture
def second(rabbit: Rabbit) -> Iterator[Proxy]:
    """The way to the second bus."""
    way = Proxy(rabbit.port)
    yield way
    way.close()


@pytest.fixture
def world(rabbit: Rabbit, second: Proxy, new_world: Callable[..., World]) -> World:
    servers = {"cmp-01": 1, "cmp-03": 1}
    return new_world(servers=servers, second_url=rabbit.url_at(second.port), second_cell=CELL)


def host(daemon: Child, name: str) -> dict[str, object]:
    found: dict[str, object] = daemon.get(f"/v1/hosts/{name}")
    return found


def speak(world: World, daemon: Child) -> None:
    """Every compute says something, and the daemon knows on which bus."""
    for name in ("cmp-01", "cmp-03"):
        for server_id in list(world.cloud.find_host(name).servers):
            world.cloud.stop_server(server_id)
    wait_until(
        lambda: ["default", "cell2"] == [host(daemon, name)["heard_on"] for name in ("cmp-01", "cmp-03")],
        what="the daemon to have heard both computes",
    )
    wait_until(lambda: all(s.state == "stopped" for s in world.cloud.servers.values()), what="both to have stopped")
    for name in ("cmp-01", "cmp-03"):
        for server_id in list(world.cloud.find_host(name).servers):
            world.cloud.start_server(server_id)
    wait_until(lambda: all(s.state == "active" for s in world.cloud.servers.values()), what="both run again")


def test_a_lost_bus_makes_its_own_hosts_unknown(nursery: Nursery, world: World, second: Proxy) -> None:
    """While the second bus is away, a host of the first is proven empty; one of the second is not, until it is back."""
    daemon = nursery.spawn(world.config).wait_connected()
    speak(world, daemon)
    second.refuse()
    world.receiver.wait_for("bus.blinded", "cell2")
    for name, destination in (("cmp-01", "cmp-02"), ("cmp-03", "cmp-04")):
        world.close_host(name)
        world.move_away(name, destination)
    world.receiver.wait_for("host.emptied", "cmp-01")
    world.wait_empty("cmp-03")

    def blocked() -> bool:
        shown = host(daemon, "cmp-03")
        return shown["empty"] is None and ["blind"] == [b["kind"] for b in shown["blockers"]]  # type: ignore[attr-defined]

    wait_until(blocked, what="cmp-03 to be unknown, and blocked by nothing but its bus")
    assert host(daemon, "cmp-01")["empty"] is True
    assert [] == world.receiver.events("host.emptied", "cmp-03")

    second.accept()
    world.receiver.wait_for("bus.healed", "cell2")
    world.receiver.wait_for("host.emptied", "cmp-03")
    assert host(daemon, "cmp-03")["empty"] is True
    daemon.stop()


def test_a_bus_that_is_away_at_the_start(nursery: Nursery, world: World, second: Proxy) -> None:
    """A daemon that begins with one of its brokers out of reach works for the hosts that it can hear."""
    daemon = nursery.spawn(world.config).wait_connected()
    speak(world, daemon)
    daemon.stop()
    second.refuse()
    world.close_host("cmp-01")
    world.close_host("cmp-03")

    daemon = nursery.spawn(world.config).wait_started()
    for name, destination in (("cmp-01", "cmp-02"), ("cmp-03", "cmp-04")):
        world.move_away(name, destination)
    world.receiver.wait_for("host.emptied", "cmp-01")
    assert host(daemon, "cmp-03")["empty"] is None
    assert [] == world.receiver.events("host.emptied", "cmp-03")

    second.accept()
    world.receiver.wait_for("host.emptied", "cmp-03")
    daemon.stop()
