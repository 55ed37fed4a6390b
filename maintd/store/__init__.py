"""The store: the only package that speaks SQL.

    store = open_store("sqlite:////var/lib/maintd/maintd.sqlite", clock)

One `Store` serves all threads of a process. The fleet has one writer, whoever holds the fleet lease: what it has to
write, it writes with `commit`, all in one transaction. Everybody reads, and every controller works on deliveries. The
parts are modules of their own (`leases`, `events`, `deliveries`, `reading`, `quarantine`, `purge`); this one only puts
them together and looks after the schema.

Every method raises StoreUnavailable for a database that cannot be used now, and works again when the database does.
It holds no rule about hosts or migrations, and no text it makes shows the user or password of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Literal

from sqlalchemy import Connection, update

from maintd.clock import Clock
from maintd.domain.model import Entity
from maintd.domain.quarantine import Quarantined
from maintd.errors import OperatorError
from maintd.store import schema
from maintd.store.deliveries import Attempt, Deliveries, Delivery
from maintd.store.engine import Database, sqlite_file
from maintd.store.events import EventRow, Events
from maintd.store.fleet import Commit, FleetStore
from maintd.store.leases import Fence, Leases
from maintd.store.message_ids import MessageIds
from maintd.store.notices import Notices
from maintd.store.own_deliveries import OwnDeliveries, OwnDelivery
from maintd.store.purge import Purge
from maintd.store.quarantine import LIMIT_BYTES, Quarantine
from maintd.store.reading import Reading
from maintd.store.subscriptions import Subscription, Subscriptions
from maintd.store.tables import leases
from maintd.store.vault import Vault, read_vault

__all__ = [
    "Attempt",
    "Commit",
    "Delivery",
    "EventRow",
    "Fence",
    "OwnDelivery",
    "Quarantined",
    "Store",
    "Subscription",
    "Vault",
    "open_store",
    "read_vault",
    "sqlite_file",
]


class Store:
    """One database with maintd's tables. Made by `open_store`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        quarantine_bytes: int = LIMIT_BYTES,
        vault: Callable[[], Vault] = lambda: Vault(()),
    ) -> None:
        self._database = database
        self._clock = clock
        self._message_ids = MessageIds(database)
        self._fleet = FleetStore(database, self._message_ids, quarantine_bytes)
        self.leases = Leases(database)
        self.events = Events(database)
        self.deliveries = Deliveries(database)
        self.notices = Notices(database)
        self.own_deliveries = OwnDeliveries(database)
        self.subscriptions = Subscriptions(database, vault)
        self.reading = Reading(database, clock)
        self.quarantine = Quarantine(database)
        self.purge = Purge(database, self.deliveries)

    @property
    def label(self) -> str:
        """The database's name for people, without secrets."""
        return self._database.label

    @property
    def embedded(self) -> bool:
        """SQLite: a file of this machine, for one daemon."""
        return self._database.path is not None

    # -- the fleet

    def commit(self, commit: Commit) -> None:
        """Write a change of the fleet in one transaction; see `FleetStore.commit` for what it raises."""
        self._fleet.commit(commit)

    def seen(self, message_ids: Iterable[str]) -> set[str]:
        """Those of these notifications' ids that were committed before (of the last 250,000)."""
        return self._message_ids.seen(message_ids)

    def last_sequence(self) -> int:
        """The sequence of the last event, 0 before the first."""
        return self.events.last_sequence()

    def load_fleet(self) -> Iterator[Entity]:
        """All that belongs into memory, streamed: see `FleetStore.load`."""
        return self._fleet.load(self._clock.now())

    # -- the database

    def claim_file(self) -> None:
        """SQLite: take the file for this daemon until `close`, or OperatorError. Reading commands do not."""
        self._database.claim_file()

    def version(self) -> tuple[str | None, str]:
        """(the tables' revision, None when there are none; the revision this maintd needs)."""
        return self._database.read(lambda connection: schema.versions(connection, self.label))

    def upgrade(self) -> None:
        """Make the tables, or bring them up to date; OperatorError when a newer maintd has been here."""
        if self.version()[0] == self.version()[1]:
            return
        self._database.write(lambda connection: schema.upgrade(connection, self.label), durable=True)

    def require_current(self) -> None:
        """OperatorError, with what to do, unless the tables are as this maintd needs them."""
        current, head = self.version()
        if current != head:
            found = (
                "has no tables yet" if current is None else f"is at revision {current}, and this maintd needs {head}"
            )
            text = f"{self.label[0].upper()}{self.label[1:]} {found}: run `maintd db upgrade`."
            raise OperatorError(text)

    def check_writable(self) -> None:
        """StoreUnavailable unless a transaction may write; none of it is kept, and no row is touched."""
        with suppress(_NothingKept):
            self._database.write(_write_nothing)

    def ping(self) -> None:
        """StoreUnavailable unless the database answers."""
        self._database.ping()

    def close(self) -> None:
        """Close all connections; give up the claim on the file."""
        self._database.close()


class _NothingKept(Exception):
    """Ends a transaction without committing it."""


def _write_nothing(connection: Connection) -> None:
    connection.execute(update(leases).where(leases.c.name == "").values(commits=0))
    raise _NothingKept


def open_store(
    connection: str,
    clock: Clock,
    *,
    tables: Literal["any", "current", "upgrade"] = "any",
    quarantine_bytes: int = LIMIT_BYTES,
    vault: Callable[[], Vault] = lambda: Vault(()),
) -> Store:
    """A store on `connection`, a SQLAlchemy URL (sqlite, MariaDB by PyMySQL, PostgreSQL by psycopg).

    `tables`: "any" looks at nothing (then call `upgrade`, or `version`); "current" refuses tables of another version;
    "upgrade" is for the daemon: SQLite's are brought up to date, a server's must be current already, since another
    controller may still run the version before. `quarantine_bytes` bounds quarantine at every commit. `vault` is asked
    for what encrypts subscriptions' secrets whenever one is needed; it raises OperatorError where there is none.

    Raises OperatorError for what the operator has to mend, and StoreUnavailable when tables were to be looked at and
    the database does not answer.
    """
    store = Store(Database(connection), clock, quarantine_bytes, vault)
    try:
        if tables == "upgrade" and store.embedded:
            store.upgrade()
        elif tables != "any":
            store.require_current()
    except BaseException:
        store.close()
        raise
    return store
