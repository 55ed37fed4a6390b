"""SIGTERM ends the daemon within ten seconds, whatever it is waiting for."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable

from tests.daemon.processes import Nursery, maintd_run
from tests.daemon.world import World
from tests.support.rabbitmq import Proxy, Rabbit, wait_until
from tests.web.listening import listening

LIMIT_S = 10.0


def _ended(process: subprocess.Popen[bytes]) -> float:
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(LIMIT_S + 5.0)
    return time.monotonic() - began


def test_before_the_first_connection(rabbit: Rabbit, proxy: Proxy, new_world: Callable[..., World]) -> None:
    """`maintd run`, whose broker takes the connection and never says a word, ends in time and with 0."""
    proxy.black_hole()
    world = new_world(transport_url=rabbit.url_at(proxy.port))
    with maintd_run(world.config) as process:
        log = world.config.with_name("maintd.log")
        wait_until(lambda: '"leading"' in log.read_text(), 60.0, "it to start")
        wait_until(lambda: proxy._open, what="it to try")
        took_s = _ended(process)
        assert (0, True) == (process.returncode, took_s < LIMIT_S), log.read_text()


def test_in_mid_load(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """With notifications streaming in, it ends in time, and its successor says the rest."""
    world = new_world(servers={"cmp-01": 4, "cmp-03": 4})
    daemon = nursery.spawn(world.config).wait_connected()
    for host, destination in (("cmp-01", "cmp-02"), ("cmp-03", "cmp-04")):
        world.close_host(host)
        world.move_away(host, destination)
    world.receiver.wait_for("migration.started", "cmp-01")

    assert daemon.stop() < LIMIT_S
    nursery.spawn(world.config)
    for host in ("cmp-01", "cmp-03"):
        world.receiver.wait_for("host.emptied", host)
        assert 4 == len(world.receiver.events("migration.completed", host))


def test_while_nova_hangs(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """With every request to Nova unanswered it ends in time."""
    world = new_world(servers={"cmp-01": 1})
    daemon = nursery.spawn(world.config).wait_connected()
    hanging = world.rest.faults.add(service="compute", slow_s=60.0)
    world.close_host("cmp-01")
    world.move_away("cmp-01", "cmp-02")
    world.receiver.wait_for("drain.started", "cmp-01")
    world.wait_empty("cmp-01")

    assert daemon.stop() < LIMIT_S
    world.rest.faults.remove(hanging)


def test_while_a_receiver_hangs(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """With a request to a webhook unanswered it ends in time; the event goes again, under its id, afterwards."""
    world = new_world(servers={"cmp-01": 1})
    world.receiver.flows.clear()
    daemon = nursery.spawn(world.config).wait_connected()
    world.close_host("cmp-01")
    wait_until(lambda: world.receiver.held > 0, what="a request that hangs")

    assert daemon.stop() < LIMIT_S
    world.receiver.flows.set()
    nursery.spawn(world.config)
    world.receiver.wait_for("drain.started", "cmp-01")
    # The second one tells of the bus, too: nobody had watched it meanwhile.
    of_host = [kind for kind in world.receiver.kinds() if kind.endswith(" cmp-01")]
    assert ["service.disabled cmp-01", "drain.started cmp-01"] == of_host


def test_while_the_database_is_locked(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """With the database kept by another program it ends in time, and what it had heard is heard again."""
    world = new_world(servers={"cmp-01": 1})
    daemon = nursery.spawn(world.config).wait_connected()
    other = sqlite3.connect(world.folder / "maintd.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    world.close_host("cmp-01")
    wait_until(lambda: daemon.said("bus_state", state="paused"), 20.0, "the intake to pause")

    assert daemon.stop() < LIMIT_S
    other.execute("ROLLBACK")
    other.close()
    nursery.spawn(world.config)
    world.receiver.wait_for("service.disabled", "cmp-01")


def test_while_somebody_follows(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """With a stream open it ends in time, and the stream with it."""
    world = new_world(servers={"cmp-01": 1})
    daemon = nursery.spawn(world.config).wait_connected()
    with listening(daemon.api) as client:
        assert "retry" in client.message()
        world.close_host("cmp-01")
        assert "maintd.service.disabled.v1" == client.message()["event"]

        assert daemon.stop() < LIMIT_S
        assert client.ended()
