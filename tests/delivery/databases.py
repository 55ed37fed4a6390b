"""Databases for the tests of deliveries: a new one for each test, on every kind that is there."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, Table, create_engine, insert, text
from sqlalchemy.pool import NullPool

from maintd.errors import StoreUnavailable
from maintd.store import delivery_tables as _tables  # noqa: F401  (makes its tables known)
from maintd.store import engine
from maintd.store import subscription_tables as _more_tables  # noqa: F401
from maintd.store.deliveries import Deliveries
from maintd.store.subscriptions import Subscriptions
from maintd.store.tables import metadata
from maintd.store.vault import Vault, new_key

T = TypeVar("T")
VAULT = Vault([new_key()])

KINDS = ["sqlite"] + [kind for kind in ("mysql", "postgresql") if os.environ.get(f"MAINTD_TEST_{kind.upper()}_URL")]


class Database(engine.Database):
    """The store's own, with the tables made, that can be told to fail."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.down = False
        with self.engine.begin() as connection:
            metadata.create_all(connection)

    def read(self, work: Callable[[Connection], T]) -> T:
        if self.down:
            raise StoreUnavailable("the test took the database away")
        return super().read(work)

    def write(self, work: Callable[[Connection], T], *, durable: bool = False) -> T:
        if self.down:
            raise StoreUnavailable("the test took the database away")
        return super().write(work, durable=durable)

    @property
    def deliveries(self) -> Deliveries:
        return Deliveries(self)

    @property
    def subscriptions(self) -> Subscriptions:
        return Subscriptions(self, lambda: VAULT)

    @property
    def deliveries_table(self) -> Table:
        return metadata.tables["deliveries"]

    @property
    def events_table(self) -> Table:
        return metadata.tables["events"]

    def emit(
        self,
        sequence: int,
        event_type: str = "maintd.host.emptied.v1",
        subject: str = "cmp-1",
        project_id: str | None = None,
        visible_at: float | None = None,
        metadata_keys: Sequence[str] = (),
    ) -> str:
        """Append an event; its id."""
        event_id = f"event-{sequence}"
        values = {
            "sequence": sequence,
            "id": event_id,
            "type": event_type,
            "subject": subject,
            "time": 0.0,
            "body": json.dumps(
                {
                    "id": event_id,
                    "type": event_type,
                    "subject": subject,
                    "time": "2027-01-15T08:00:00.250000Z",
                    "data": {"name": "é", "state": {"metadata_keys": list(metadata_keys)}},
                },
                ensure_ascii=False,
            ),
            "fanned_out": False,
            "project_id": project_id,
            "visible_at": visible_at,
        }
        super().write(lambda connection: connection.execute(insert(self.events_table).values(values)))
        return event_id


@contextlib.contextmanager
def new_database(kind: str, folder: Path) -> Iterator[Database]:
    """An empty database of a kind; on a server, one of a name of its own that is dropped again."""
    if kind == "sqlite":
        database = Database(f"sqlite:///{folder / 'maintd.sqlite'}")
        try:
            yield database
        finally:
            database.close()
        return
    server = os.environ[f"MAINTD_TEST_{kind.upper()}_URL"]
    name = f"maintd_test_{os.getpid()}_{time.monotonic_ns()}"
    admin = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    database = Database(admin.url.set(database=name).render_as_string(hide_password=False))
    try:
        yield database
    finally:
        database.close()
        with admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name}"))


def eventually(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait until a condition holds; fails the test after the deadline."""
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        pause.wait(0.005)
