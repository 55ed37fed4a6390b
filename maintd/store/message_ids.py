"""Which notifications were dealt with: so that a message which comes again is not dealt with again.

A message comes again because its acknowledgement was lost: after a crash, a failover, a broken connection. So it is the
youngest that matter, and the youngest `WINDOW` are held in memory; asking costs no search. On disk the ids of a batch
are one row, appended. (An index over ids that are random by nature would dirty one page for each of them, which was
most of what a batch cost.)

Memory follows the table: before every question and before every addition the rows that are new since the last look are
read, one's own included. So it is right whoever wrote them, and after a commit of which the outcome was not known.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from sqlalchemy import Connection

from maintd.errors import OurFault
from maintd.store.engine import Database, Insert

WINDOW: Final = 250_000
"""How many ids are held: minutes at the highest rate there is, about 25 MB. Older ones count as never seen."""

_SIZE: Final = 16


class MessageIds:
    """The ids, for the writer of the fleet."""

    def __init__(self, database: Database, window: int = WINDOW) -> None:
        self._database = database
        self._window = window
        self._lock = threading.Lock()
        self._held: dict[bytes, None] = {}  # the oldest first
        self._asked: dict[str, bytes] = {}  # of the last question: what is asked about is mostly added next
        self._last = 0
        self._insert = Insert(database, "message_ids", ("at", "digests"))
        self._newest = "SELECT id, digests FROM message_ids ORDER BY id DESC"
        self._newer = f"SELECT id, digests FROM message_ids WHERE id > {database.mark} ORDER BY id"  # noqa: S608

    def seen(self, message_ids: Iterable[str]) -> set[str]:
        """Those of these ids that were added."""

        asked = {message_id: digest(message_id) for message_id in message_ids}

        def work(connection: Connection) -> set[str]:
            with self._lock:
                self._asked = asked
                self._follow(connection)
                held = self._held
                return {message_id for message_id, key in asked.items() if key in held}

        return self._database.read_warm(work)

    def add(self, connection: Connection, message_ids: Sequence[str], at: float) -> None:
        """Add ids in the fleet's transaction, after its fence was checked. OurFault when one is there already."""
        with self._lock:
            asked = self._asked
            digests = [asked.get(message_id) or digest(message_id) for message_id in message_ids]
            self._follow(connection)
            known = [one for one, key in zip(message_ids, digests, strict=True) if key in self._held]
        if known or len(set(digests)) != len(digests):
            which = f"such as {known[0]!r}" if known else "twice in this batch"
            raise OurFault(f"A notification that was dealt with already was to be stored again, {which}; nothing was.")
        self._database.run_many(connection, self._insert, [(at, b"".join(digests))])

    def _follow(self, connection: Connection) -> None:
        if not self._last:
            self._fill(connection)
            return
        for row in self._database.run(connection, self._newer, (self._last,)).fetchall():
            self._hold(row[0], bytes(row[1]))

    def _fill(self, connection: Connection) -> None:
        youngest: list[tuple[int, bytes]] = []
        size = 0
        rows = self._database.run(connection, self._newest, ())
        while size < self._window * _SIZE and (row := rows.fetchone()) is not None:
            youngest.append((row[0], bytes(row[1])))
            size += len(youngest[-1][1])
        rows.close()
        for number, digests in reversed(youngest):
            self._hold(number, digests)

    def _hold(self, number: int, digests: bytes) -> None:
        held = self._held
        for start in range(0, len(digests), _SIZE):
            held[digests[start : start + _SIZE]] = None
        for _ in range(len(held) - self._window):
            del held[next(iter(held))]
        self._last = max(self._last, number)


def digest(message_id: str) -> bytes:
    """Sixteen bytes for an id: those of the uuid that Nova sends, and for anything else as many that no other has."""
    if len(message_id) == 36:
        try:
            found = bytes.fromhex(message_id.replace("-", ""))
        except ValueError:
            pass
        else:
            if len(found) == _SIZE:
                return found
    return blake2b(message_id.encode("utf-8", "surrogatepass"), digest_size=_SIZE).digest()
