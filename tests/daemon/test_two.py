"""Two daemons: on one SQLite file the second is refused, on one database server it stands by and takes over.

Servers are those that MAINTD_TEST_MYSQL_URL and MAINTD_TEST_POSTGRESQL_URL name. The taking over itself is always
tried, on a file that both treat as they would a server's database.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from maintd.clock import SystemClock
from maintd.store import open_store
from tests.daemon.processes import Nursery, maintd_run
from tests.daemon.world import World
from tests.support.rabbitmq import wait_until

SERVERS = {kind: os.environ.get(f"MAINTD_TEST_{kind.upper()}_URL") for kind in ("mysql", "postgresql")}
KINDS = ["a shared file", *(kind for kind, url in SERVERS.items() if url)]


@contextmanager
def _database(kind: str) -> Iterator[str | None]:
    """The URL of an empty database on a server, dropped again; None for a file."""
    url = SERVERS.get(kind)
    if url is None:
        yield None
        return
    name = f"maintd_daemons_{os.getpid()}_{time.monotonic_ns()}"
    admin = create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}" + (" WITH (FORCE)" if kind == "postgresql" else "")))


def test_second_on_one_file(nursery: Nursery, new_world: Callable[..., World]) -> None:
    """A second `maintd run` on the same SQLite file ends with 1 and one sentence that names the first."""
    world = new_world()
    first = nursery.spawn(world.config).wait_connected()
    second = world.write_config("second", transport_url=None, database=world.database)

    with maintd_run(second) as process:
        assert 1 == process.wait(60.0)
    *_, said = second.with_name("second.log").read_text().splitlines()
    assert said.startswith(f"maintd: Another maintd (process {first.pid}) uses {world.folder}/maintd.sqlite")
    first.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_standby_takes_over(kind: str, nursery: Nursery, new_world: Callable[..., World]) -> None:
    """Of two controllers on one database one leads and the other says that it stands by. When the leader stops, the
    other leads at once; when it dies, as soon as the lease has run out. Nothing is missed or said twice."""
    with _database(kind) as url:
        world = new_world(servers={"cmp-01": 2}, database=url)
        store = open_store(world.database, SystemClock())
        store.upgrade()
        store.close()
        shared = url is None
        configs = [world.write_config(f"c{n}", transport_url=world.broker_url, database=world.database) for n in "123"]
        first = nursery.spawn(configs[0], shared_file=shared).wait_connected()
        second = nursery.spawn(configs[1], shared_file=shared).wait_started()
        wait_until(lambda: "stands by" in str(second.get("/readyz")["degraded"]), what="the second to stand by")
        world.close_host("cmp-01")
        world.receiver.wait_for("drain.started", "cmp-01")

        first.stop()
        second.wait_connected(10.0)
        third = nursery.spawn(configs[2], shared_file=shared).wait_started()
        world.move_away("cmp-01", "cmp-02")
        world.receiver.wait_for("migration.started", "cmp-01")
        second.kill()
        world.wait_empty("cmp-01")

        world.receiver.wait_for("host.emptied", "cmp-01", timeout_s=90.0)
        world.cloud.enable("cmp-01")
        world.receiver.wait_for("drain.ended", "cmp-01")
        kinds = world.receiver.kinds()
        assert (2, 2) == (kinds.count("migration.started cmp-01"), kinds.count("migration.completed cmp-01"))
        once = [kind for kind in kinds if not kind.startswith("bus.")]  # a gap may be told of at each takeover
        assert len(set(once)) == len(once) - 2
        third.stop()
