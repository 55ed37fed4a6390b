"""Messages that could not be read, kept for a person to look at.

A flood of them must not fill the disk, so the limit in bytes holds at every moment and not only after a purge: who
adds, makes room, oldest first. Nothing here is ever read back into the fleet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, delete, func, insert, select

from maintd.domain.quarantine import Quarantined
from maintd.store.engine import Database
from maintd.store.tables import NAME, quarantine

LIMIT_BYTES: Final = 100 * 1024 * 1024
_BODY_BYTES: Final = 1024 * 1024
"""Most of one body that is kept; no message of Nova's comes near it."""


class Quarantine:
    """`store.quarantine`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, limit: int = 100) -> list[Quarantined]:
        """The newest, newest first."""
        q = quarantine.c
        query = select(q.at, q.bus, q.reason, q.event_type, q.message_id, q.body).order_by(q.id.desc()).limit(limit)
        return self._database.read(
            lambda connection: [Quarantined(*row[:5], body=bytes(row[5])) for row in connection.execute(query)]
        )

    def counts(self) -> dict[str, int]:
        """How many are kept, by reason."""
        query = select(quarantine.c.reason, func.count()).group_by(quarantine.c.reason)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return {row[0]: row[1] for row in rows}


def add(connection: Connection, messages: Sequence[Quarantined], limit_bytes: int) -> None:
    """Keep these, and let go of the oldest beyond the limit."""
    rows = [
        {
            "at": message.at,
            "bus": _cut(message.bus),
            "reason": _cut(message.reason),
            "event_type": None if message.event_type is None else _cut(message.event_type),
            "message_id": None if message.message_id is None else _cut(message.message_id),
            "size": min(len(message.body), _BODY_BYTES),
            "body": message.body[:_BODY_BYTES],
        }
        for message in messages
    ]
    connection.execute(insert(quarantine), rows)
    shrink(connection, limit_bytes)


def shrink(connection: Connection, limit_bytes: int, rows: int = 1000) -> int:
    """Delete the oldest until what is left fits; at most `rows` of them. How many."""
    q = quarantine.c
    excess = int(connection.execute(select(func.coalesce(func.sum(q.size), 0))).scalar_one()) - limit_bytes
    if excess <= 0:
        return 0
    doomed: list[int] = []
    for row in connection.execute(select(q.id, q.size).order_by(q.at, q.id).limit(rows)).all():
        doomed.append(row.id)
        excess -= row.size
        if excess <= 0:
            break
    connection.execute(delete(quarantine).where(q.id.in_(doomed)))
    return len(doomed)


def _cut(text: str) -> str:
    """What fits a column of any database; these come from whoever can write to the bus."""
    return text[:NAME].encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
