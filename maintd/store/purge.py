"""Forgetting by age, a small transaction at a time, so that nobody waits for it.

An event goes when it is old enough and every delivery of it is finished; the last one always stays, since the next
sequence is counted from it. Deliveries know their own ages (`deliveries.py`). What is over in the fleet (ended
migrations with their curves and stalls, ended drains, cleared residue) is history, and stays for a year.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, and_, delete, exists, func, or_, select

from maintd.store import quarantine
from maintd.store.deliveries import OPEN, Deliveries
from maintd.store.delivery_tables import deliveries
from maintd.store.engine import Database, chunks
from maintd.store.tables import curves, drains, events, message_ids, migrations, residue, stalls
from maintd.store.tables import quarantine as quarantined

HISTORY_S: Final = 365 * 86400.0
BATCH: Final = 1000


class _Turn(NamedTuple):
    batch: int
    enough: Callable[[], bool]


class Purge:
    """`store.purge`."""

    def __init__(self, database: Database, of_deliveries: Deliveries) -> None:
        self._database = database
        self._deliveries = of_deliveries

    def __call__(
        self,
        now: float,
        events_s: float,
        deliveries_s: float,
        message_ids_s: float,
        quarantine_s: float,
        quarantine_bytes: int,
        *,
        history_s: float = HISTORY_S,
        batch: int = BATCH,
        enough: Callable[[], bool] = lambda: False,
    ) -> dict[str, int]:
        """Forget what is older than these; how many rows went, by table. Ages in seconds.

        A row of message ids is a batch. Once `enough()`, only one more batch of each table goes this time."""
        turn = _Turn(batch, enough)
        before = now - history_s
        over = and_(migrations.c.is_open.is_(False), migrations.c.ended_at < before)
        return {
            "deliveries": self._all(lambda: self._deliveries.purge(now - deliveries_s, batch), turn),
            "events": self._rows(events, _said_and_done(now - events_s), turn),
            "message_ids": self._rows(message_ids, message_ids.c.at < now - message_ids_s, turn),
            "quarantine": self._rows(quarantined, quarantined.c.at < now - quarantine_s, turn)
            + self._all(lambda: self._shrink(quarantine_bytes, batch), turn),
            "migrations": self._rows(migrations, over, turn),
            "curves": self._rows(curves, _left(curves, curves.c.key, curves.c.kept_at, before), turn),
            "stalls": self._rows(stalls, _left(stalls, stalls.c.migration_key, stalls.c.said_at, before), turn),
            "drains": self._rows(drains, drains.c.ended_at < before, turn),
            "residue": self._rows(residue, residue.c.cleared_at < before, turn),
        }

    def _rows(self, table: Table, old: ColumnElement[bool], turn: _Turn) -> int:
        key = list(table.primary_key.columns)
        query = select(*key).where(old).limit(turn.batch)

        def work(connection: Connection) -> int:
            doomed = [tuple(row) for row in connection.execute(query)]
            for some in chunks(doomed):
                connection.execute(delete(table).where(_among(key, some)))
            return len(doomed)

        return self._all(lambda: self._database.write(work), turn)

    def _shrink(self, limit_bytes: int, batch: int) -> int:
        return self._database.write(lambda connection: quarantine.shrink(connection, limit_bytes, batch))

    def _all(self, some: Callable[[], int], turn: _Turn) -> int:
        total = 0
        while True:
            gone = some()
            total += gone
            if gone < turn.batch or turn.enough():
                return total


def _said_and_done(before: float) -> ColumnElement[bool]:
    waiting = exists().where(deliveries.c.event_id == events.c.id, deliveries.c.state.in_(OPEN))
    last = select(func.max(events.alias().c.sequence)).scalar_subquery()
    return and_(events.c.time < before, events.c.fanned_out.is_(True), ~waiting, events.c.sequence < last)


def _left(
    table: Table, migration_key: ColumnElement[str], at: ColumnElement[float], before: float
) -> ColumnElement[bool]:
    """What is kept of a migration goes with it; also where its end was never seen and its row is gone."""
    gone = ~exists().where(migrations.c.key == migration_key)
    return or_(table.c.ended_at < before, and_(table.c.ended_at.is_(None), at < before, gone))


def _among(key: list[Any], rows: Sequence[tuple[Any, ...]]) -> ColumnElement[bool]:
    if len(key) == 1:
        return key[0].in_([row[0] for row in rows])  # type: ignore[no-any-return]
    return or_(*(and_(*(column == item for column, item in zip(key, row, strict=True))) for row in rows))
