"""The event log: what maintd has said, as it was said.

Events are appended in the transaction that changes the fleet (`fleet.py`) and never altered; `fanned_out` alone is a
mark that belongs to `deliveries.py`. Reading is by sequence, so that a reader with a cursor misses nothing: there is
one writer, and sequences commit in their order.

A project has a log of its own within the log: the events that belong to it, by their number among these
(`incarnation`). It is never shown the number that all events share, by which it could count what others are told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import floor
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, func, select

from maintd.domain.events import CloudEvent
from maintd.store.engine import Database, Insert
from maintd.store.tables import events


@dataclass(frozen=True, slots=True)
class EventRow:
    """A published event. `body` is the CloudEvent's JSON text, byte for byte what receivers get.

    `sequence` is its number in the log that was asked: among all events, or among one project's.
    """

    sequence: int
    id: str
    type: str
    subject: str
    time: float
    body: str


_REST = (events.c.id, events.c.type, events.c.subject, events.c.time, events.c.body)
_COLUMNS = (events.c.sequence, *_REST)
_NO_PROJECT = func.coalesce(events.c.project_id, "") == ""
"""An operators' event. Said so that no index by project answers it: nearly all events are the operators', and SQLite
would look at every one of them, and sort them, for each page."""
_END = 2**63 - 1
"""Higher than any number of an event."""


class Events:
    """`store.events`: the log, to read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self, after: int = 0, limit: int = 100, type_glob: str | None = None, subject: str | None = None
    ) -> list[EventRow]:
        """At most `limit` of the operators' events with a sequence higher than `after`, in sequence order.

        `type_glob` is matched as by the shell, case and all; the types present are few, so they are matched here and
        asked for by name.
        """
        e = events.c
        query = select(*_COLUMNS).where(_NO_PROJECT, e.sequence > after).order_by(e.sequence)
        return [*self._list(query, limit, type_glob, subject)]

    def list_of_project(
        self,
        project_id: str,
        after: int = 0,
        limit: int = 100,
        type_glob: str | None = None,
        subject: str | None = None,
        *,
        now: float,
    ) -> Sequence[EventRow]:
        """The same of one project's events, by their number among these, and only what it may see by now.

        Where an event may not be seen yet, none after it is shown either: whoever reads on from the last would never
        be shown it.
        """
        e = events.c
        hidden = select(func.min(e.incarnation)).where(hidden_from(project_id, now))
        query = (
            select(e.incarnation, *_REST)
            .where(
                e.project_id == project_id,
                e.incarnation > after,
                e.incarnation < func.coalesce(hidden.scalar_subquery(), _END),
            )
            .order_by(e.incarnation)
        )
        return self._list(query, limit, type_glob, subject)

    def _list(self, query: Select[Any], limit: int, type_glob: str | None, subject: str | None) -> Sequence[EventRow]:
        if subject is not None:
            query = query.where(events.c.subject == subject)

        def work(connection: Connection) -> Sequence[EventRow]:
            wanted = query.limit(limit)
            if type_glob is not None:
                # Those present where it is looked for: who reads on from the end has few events to look through.
                present = query.with_only_columns(events.c.type).order_by(None).distinct()
                known = connection.execute(present).scalars()
                wanted = wanted.where(events.c.type.in_([one for one in known if fnmatchcase(one, type_glob)]))
            return [EventRow(*row) for row in connection.execute(wanted)]

        # Of one moment: else one whose type was not there at first is skipped for good, by one that follows it.
        return self._database.read(work, as_one=type_glob is not None)

    def get(self, event_id: str) -> EventRow | None:
        """One event by its CloudEvents id, whosesoever it is, or None."""
        query = select(*_COLUMNS).where(events.c.id == event_id)
        return self._one(query)

    def get_of_project(self, project_id: str, event_id: str, *, now: float) -> EventRow | None:
        """One event of a project's, or None; what it may not see yet is not there."""
        e = events.c
        query = select(e.incarnation, *_REST).where(e.id == event_id, e.project_id == project_id, e.visible_at <= now)
        return self._one(query)

    def _one(self, query: Select[Any]) -> EventRow | None:
        row = self._database.read(lambda connection: connection.execute(query).first())
        return None if row is None else EventRow(*row)

    def said(self, event_type: str, subject: str, since: float) -> bool:
        """Whether there is an event of this type and subject, of this time or later."""
        e = events.c
        query = select(e.id).where(e.time >= since, e.type == event_type, e.subject == subject).limit(1)
        return self._database.read(lambda connection: connection.execute(query).first()) is not None

    def held_back(self, now: float) -> int:
        """How many events their projects may not see yet."""
        query = select(func.count()).where(_held_back(now))
        return int(self._database.read(lambda connection: connection.execute(query).scalar()) or 0)

    def last_sequence(self) -> int:
        """The highest sequence ever given, 0 before the first: purge always leaves the last event in place."""
        query = select(func.max(events.c.sequence))
        return int(self._database.read(lambda connection: connection.execute(query).scalar()) or 0)


def hidden_from(project_id: str, now: float) -> ColumnElement[bool]:
    """Whether an event is this project's, and it may not see it yet. These are few: not all that it ever had are
    looked at."""
    return and_(_held_back(now), func.coalesce(events.c.project_id, "") == project_id)


def _held_back(now: float) -> ColumnElement[bool]:
    """Such an event's time is the whole second of when it may be seen, and the log is indexed by it."""
    return and_(events.c.time >= floor(now), events.c.visible_at > now)


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
