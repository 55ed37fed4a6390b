"""The event log: what maintd has said, as it was said.

Events are appended in the transaction that changes the fleet (`fleet.py`) and never altered; `fanned_out` alone is a
mark that belongs to `deliveries.py`. Reading is by sequence, so that a reader with a cursor misses nothing: there is
one writer, and sequences commit in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import Connection, func, select

from maintd.domain.events import CloudEvent
from maintd.store.engine import Database, Insert
from maintd.store.tables import events


@dataclass(frozen=True, slots=True)
class EventRow:
    """A published event. `body` is the CloudEvent's JSON text, byte for byte what receivers get."""

    sequence: int
    id: str
    type: str
    subject: str
    time: float
    body: str


_COLUMNS = (events.c.sequence, events.c.id, events.c.type, events.c.subject, events.c.time, events.c.body)


class Events:
    """`store.events`: the log, to read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self, after: int = 0, limit: int = 100, type_glob: str | None = None, subject: str | None = None
    ) -> list[EventRow]:
        """At most `limit` events with a sequence higher than `after`, in sequence order.

        `type_glob` is matched as by the shell, case and all; the types present are few, so they are matched here and
        asked for by name.
        """
        query = select(*_COLUMNS).where(events.c.sequence > after).order_by(events.c.sequence).limit(limit)
        if subject is not None:
            query = query.where(events.c.subject == subject)

        def work(connection: Connection) -> Sequence[EventRow]:
            wanted = query
            if type_glob is not None:
                known = connection.execute(select(events.c.type).distinct()).scalars()
                wanted = query.where(events.c.type.in_([one for one in known if fnmatchcase(one, type_glob)]))
            return [EventRow(*row) for row in connection.execute(wanted)]

        return [*self._database.read(work)]

    def get(self, event_id: str) -> EventRow | None:
        """One event by its CloudEvents id, or None."""
        query = select(*_COLUMNS).where(events.c.id == event_id)
        row = self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else EventRow(*row)

    def last_sequence(self) -> int:
        """The highest sequence ever given, 0 before the first: purge always leaves the last event in place."""
        query = select(func.max(events.c.sequence))
        return int(self._database.read(lambda connection: connection.execute(query).scalar()) or 0)


class Appending:
    """The statement that appends, for a fleet transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database
        names = (
            "sequence", "id", "type", "subject", "time", "body", "fanned_out",
            "project_id", "incarnation", "visible_at",
        )  # fmt: skip
        self._insert = Insert(database, "events", names)

    def append(self, connection: Connection, published: Sequence[CloudEvent]) -> None:
        rows = [
            (e.sequence, e.id, e.type, e.subject, e.time, e.as_json(), False, e.project_id, e.incarnation, e.visible_at)
            for e in published
        ]
        self._database.run_many(connection, self._insert, rows)
