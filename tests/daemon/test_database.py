"""The database goes away under a running daemon: nothing is acknowledged that was not kept, and nothing is lost."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from tests.daemon.processes import Child, Nursery
from tests.daemon.world import World
from tests.support.rabbitmq import wait_until


def _paused(daemon: Child) -> bool:
    return daemon.said("bus_state", state="paused")


def _drained(world: World, *others: str) -> None:
    """The whole drain has been told, each thing once; of other hosts, whatever there is."""
    world.receiver.wait_for("host.emptied", "cmp-01", timeout_s=90.0)
    world.cloud.enable("cmp-01")
    world.receiver.wait_for("drain.ended", "cmp-01")
    kinds = [kind for kind in world.receiver.kinds() if not kind.endswith(others)]
    assert (2, 2) == (kinds.count("migration.started cmp-01"), kinds.count("migration.completed cmp-01"))
    assert len(set(kinds)) == len(kinds) - 2


def test_locked_and_killed(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """While another program keeps the database, the intake pauses and acknowledges nothing: a daemon that dies then
    leaves all of it to the next one."""
    world = new_world(servers={"cmp-01": 2})
    daemon = nursery.spawn(world.config).wait_connected()
    other = sqlite3.connect(world.folder / "maintd.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    world.close_host("cmp-01")
    world.move_away("cmp-01", "cmp-02")
    world.wait_empty("cmp-01")
    wait_until(lambda: _paused(daemon), 20.0, "the intake to pause")
    daemon.kill()
    assert [] == world.receiver.kinds()
    other.execute("ROLLBACK")
    other.close()

    successor = nursery.spawn(world.config)
    _drained(world)
    successor.stop()


def test_disk_full(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """When no file can grow any more, the intake pauses and says why; when there is room again, it goes on by itself
    and everything is told."""
    world = new_world(servers={"cmp-01": 2})
    nursery.spawn(world.config).wait_connected().stop()
    world.config.with_name("maintd.log").unlink()
    size = (world.folder / "maintd.sqlite").stat().st_size
    # Half of what the file is: its log soon cannot grow, nor be emptied into the file, which would make room again.
    daemon = nursery.spawn(world.config, file_limit=size // 2).wait_connected()
    rounds = 0
    while not _paused(daemon) and rounds < 400:  # until the log of the database cannot grow any more
        rounds += 1
        world.cloud.disable("cmp-04", "filling")
        world.cloud.enable("cmp-04")
        wait_until(lambda: world.receiver.events("service.disabled", "cmp-04") or _paused(daemon), what="a sign")
    wait_until(lambda: _paused(daemon), 20.0, "the intake to pause")
    world.close_host("cmp-01")
    world.move_away("cmp-01", "cmp-02")
    world.wait_empty("cmp-01")
    assert [] == world.receiver.events("service.disabled", "cmp-01")
    assert daemon.said("bus_state", state="paused", detail="the store is not usable")

    daemon.send(signal.SIGUSR1)
    _drained(world, "cmp-04")

    def told() -> list[int]:
        return [len(world.receiver.events(f"service.{word}", "cmp-04")) for word in ("disabled", "enabled")]

    wait_until(lambda: told() == [rounds, rounds], 30.0, f"{rounds} closings and openings")
    daemon.stop()


def test_file_moved_away_and_back(nursery: Nursery, new_world: Callable[..., World], tmp_path: Path) -> None:
    """A database file that vanishes makes the daemon not ready, with a reason; when it is back, so is the daemon."""
    world = new_world(servers={"cmp-01": 2})
    daemon = nursery.spawn(world.config).wait_connected()
    aside = tmp_path / "aside"
    aside.mkdir()
    names = [f"maintd.sqlite{tail}" for tail in ("", "-wal", "-shm")]
    for name in names:
        if (world.folder / name).exists():
            (world.folder / name).rename(aside / name)

    wait_until(lambda: daemon.get("/readyz")["ready"] is False, 20.0, "the daemon not to be ready")
    world.close_host("cmp-01")
    world.move_away("cmp-01", "cmp-02")
    wait_until(lambda: _paused(daemon), 20.0, "the intake to pause")
    for name in names:
        (world.folder / name).unlink(missing_ok=True)
        if (aside / name).exists():
            (aside / name).rename(world.folder / name)

    _drained(world)
    wait_until(lambda: daemon.get("/readyz")["ready"], 20.0, "the daemon to be ready")
    daemon.stop()
