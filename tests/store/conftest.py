"""New databases for the store's tests: one for each test, on SQLite and on every server the environment names.

MAINTD_TEST_MYSQL_URL and MAINTD_TEST_POSTGRESQL_URL are SQLAlchemy URLs of users that may create databases.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from maintd.clock import ManualClock
from maintd.store import Fence, Store, open_store

NOW = 1_800_000_000.0

KINDS = ["sqlite"] + [kind for kind in ("mysql", "postgresql") if os.environ.get(f"MAINTD_TEST_{kind.upper()}_URL")]


@pytest.fixture(params=KINDS)
def connection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'maintd.sqlite'}"
        return
    server = make_url(os.environ[f"MAINTD_TEST_{request.param.upper()}_URL"])
    name = f"maintd_test_{uuid.uuid4().hex}"
    admin = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as made:
        made.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield server.set(database=name).render_as_string(hide_password=False)
    finally:
        with admin.connect() as made:
            made.execute(text(f"DROP DATABASE {name}"))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def store(connection: str, clock: ManualClock) -> Iterator[Store]:
    """A store with its tables."""
    opened = open_store(connection, clock)
    opened.upgrade()
    yield opened
    opened.close()


@pytest.fixture
def other(connection: str, clock: ManualClock, store: Store) -> Iterator[Store]:
    """The same database, opened once more, as another process would."""
    opened = open_store(connection, clock, tables="current")
    yield opened
    opened.close()


@pytest.fixture
def fence(store: Store) -> Fence:
    """The fleet lease, held."""
    held = store.leases.acquire("fleet", "me", 3600.0, NOW)
    assert held is not None
    return held
