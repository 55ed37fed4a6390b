"""Databases for the tests of deliveries: a new one for each test, on every kind that is there."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    Double,
    String,
    Table,
    Text,
    create_engine,
    event,
    insert,
    text,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from maintd.errors import StoreUnavailable
from maintd.store.deliveries import Deliveries
from maintd.store.tables import metadata
import maintd.store.delivery_tables  # noqa: F401, I001  (makes its tables known)

if "events" not in metadata.tables:
    Table(
        "events",
        metadata,
        Column("sequence", BigInteger, primary_key=True, autoincrement=False),
        Column("id", String(64), unique=True, nullable=False),
        Column("type", String(128), nullable=False),
        Column("subject", String(255), nullable=False),
        Column("time", Double, nullable=False),
        Column("body", Text, nullable=False),
        Column("fanned_out", Boolean, nullable=False, index=True),
    )

T = TypeVar("T")

KINDS = ["sqlite"] + [
    kind for kind in ("mysql", "postgresql") if os.environ.get(f"MAINTD_TEST_{kind.upper()}_URL")
]


class Database:
    """Transactions as the store makes them; counts them, and can be told to fail."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sqlite = url.startswith("sqlite")
        self.writes = 0
        self.down = False
        self.engine = create_engine(url, connect_args={"timeout": 20, "check_same_thread": False} if self.sqlite else {})
        if self.sqlite:

            @event.listens_for(self.engine, "connect")
            def connect(connection, record):  # type: ignore[no-untyped-def]
                connection.isolation_level = None
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")
                connection.execute("PRAGMA foreign_keys=ON")

            @event.listens_for(self.engine, "begin")
            def begin(connection):  # type: ignore[no-untyped-def]
                connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

        with self.engine.begin() as connection:
            metadata.create_all(connection)

    def read(self, work: Callable[[Connection], T]) -> T:
        return self._run(work, "BEGIN")

    def write(self, work: Callable[[Connection], T]) -> T:
        self.writes += 1
        return self._run(work, "BEGIN IMMEDIATE")

    def _run(self, work: Callable[[Connection], T], begin: str) -> T:
        if self.down:
            raise StoreUnavailable("the test took the database away")
        while True:
            try:
                with self.engine.connect().execution_options(begin=begin) as connection, connection.begin():
                    return work(connection)
            except DBAPIError as error:
                code = getattr(error.orig, "sqlstate", None) or (error.orig.args[:1] or (None,))[0]
                if code not in (1213, 1020, 1205, "40001", "40P01"):
                    raise

    @property
    def deliveries(self) -> Deliveries:
        return Deliveries(self)

    def emit(self, sequence: int, event_type: str = "maintd.host.emptied.v1", subject: str = "cmp-1") -> str:
        """Append an event; its id."""
        event_id = f"event-{sequence}"
        body = f'{{"id": "{event_id}", "type": "{event_type}", "subject": "{subject}", "data": {{"name": "é"}}}}'
        with self.engine.begin() as connection:
            connection.execute(
                insert(metadata.tables["events"]).values(
                    sequence=sequence,
                    id=event_id,
                    type=event_type,
                    subject=subject,
                    time=0.0,
                    body=body,
                    fanned_out=False,
                )
            )
        return event_id

    def close(self) -> None:
        self.engine.dispose()


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


def eventually(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Wait until a condition holds; fails the test after the deadline."""
    pause, deadline = threading.Event(), time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        pause.wait(0.005)
