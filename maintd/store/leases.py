"""Who may write the fleet: a row per lease, with an owner, an end and a fencing number.

A holder renews; when it stops, another may take the lease after it ran out, and the number goes up. What protects the
fleet is the number, not the time: every fleet transaction checks it (`held`) and changes the row, so a holder that
slept through its own end finds out before it has written anything. A lease that ran out and that nobody took is
therefore still good.

Where several controllers must decide one after the other for the length of a transaction, they take a *turn*: the same
row, without owner or end, locked by changing it.

The time is the database's own where the database is a server, since the clocks of several controllers differ. With
SQLite there is one machine, and the caller's `now` counts, as everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, Connection, insert, literal_column, select, update

from maintd.errors import LeaseLost
from maintd.store.engine import Database, NotUnique
from maintd.store.tables import leases


@dataclass(frozen=True, slots=True)
class Fence:
    """Proof of having held a lease: `token` is higher than that of any holder before."""

    name: str
    owner: str
    token: int


@dataclass(frozen=True, slots=True)
class Holder:
    """Who had a lease last and has not given it back. `left_s` is how long it lasts unless it is renewed, by the clock
    that counts; negative where it ran out."""

    owner: str
    expires_at: float
    left_s: float

    @property
    def holds(self) -> bool:
        return self.left_s > 0.0


_DATABASE_CLOCK: Final[dict[str, ColumnElement[float]]] = {
    "mysql": literal_column("UNIX_TIMESTAMP(NOW(6))"),
    "postgresql": literal_column("EXTRACT(EPOCH FROM clock_timestamp())"),
}


class Leases:
    """`store.leases`. Every method raises StoreUnavailable when the database cannot be used."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def acquire(self, name: str, owner: str, ttl_s: float, now: float) -> Fence | None:
        """Take a lease that is free or ran out, or that this owner has had before; None when somebody else holds it.

        Whatever was begun under an earlier token is void from here on, the same owner's too.
        """
        try:
            return self._database.write(lambda connection: self._acquire(connection, name, owner, ttl_s, now))
        except NotUnique:
            return None  # two began with the first lease of this name; the other was faster

    def renew(self, fence: Fence, ttl_s: float, now: float) -> bool:
        """Hold on for `ttl_s` from now; False when the lease is another's. One that ran out untaken is renewed."""

        def work(connection: Connection) -> bool:
            until = self._time(connection, now) + ttl_s
            return connection.execute(update(leases).where(*_is(fence)).values(expires_at=until)).rowcount == 1

        return self._database.write(work)

    def release(self, fence: Fence) -> None:
        """Give the lease back, so that another need not wait for its end. Nothing happens when it is another's."""
        given_back = update(leases).where(*_is(fence)).values(owner="", expires_at=0.0)
        self._database.write(lambda connection: connection.execute(given_back))

    def holder(self, name: str, now: float) -> Holder | None:
        """Who holds the lease, or has let it run out; None when nobody does."""
        query = select(leases.c.owner, leases.c.expires_at).where(leases.c.name == name)

        def work(connection: Connection) -> Holder | None:
            row = connection.execute(query).first()
            if row is None or not row.owner:
                return None
            return Holder(row.owner, row.expires_at, row.expires_at - self._time(connection, now))

        return self._database.read(work)

    def _acquire(self, connection: Connection, name: str, owner: str, ttl_s: float, now: float) -> Fence | None:
        time = self._time(connection, now)
        row = connection.execute(select(leases).where(leases.c.name == name)).first()
        if row is None:
            values = {"owner": owner, "token": 1, "expires_at": time + ttl_s, "commits": 0}
            connection.execute(insert(leases).values(name=name, **values))
            return Fence(name, owner, 1)
        if row.owner not in ("", owner) and row.expires_at > time:
            return None
        # Only from the row as it was read: it may have been renewed or taken meanwhile.
        unchanged = (leases.c.name == name, leases.c.token == row.token, leases.c.expires_at == row.expires_at)
        values = {"owner": owner, "token": row.token + 1, "expires_at": time + ttl_s}
        taken = connection.execute(update(leases).where(*unchanged).values(values)).rowcount == 1
        return Fence(name, owner, row.token + 1) if taken else None

    def _time(self, connection: Connection, now: float) -> float:
        clock = _DATABASE_CLOCK.get(self._database.dialect)
        return now if clock is None else float(connection.execute(select(clock)).scalar_one())


class FenceCheck:
    """The check inside a fleet transaction."""

    def __init__(self, database: Database) -> None:
        mark = database.mark
        self._database = database
        self._statement = (
            f"UPDATE {database.quoted('leases')} SET commits = commits + 1"  # noqa: S608 - names are ours
            f" WHERE name = {mark} AND owner = {mark} AND token = {mark}"
        )

    def held(self, connection: Connection, fence: Fence) -> None:
        """LeaseLost unless the lease is still this one's; until the transaction ends, nobody can take it."""
        if self._database.run(connection, self._statement, (fence.name, fence.owner, fence.token)).rowcount != 1:
            raise LeaseLost(f"The lease {fence.name} (token {fence.token}) is not held by {fence.owner} any more.")


def take_turn(connection: Connection, name: str) -> None:
    """Wait until no other transaction has the turn of this name; then it is this one's until it ends.

    What is read after it is all that those before have committed. (On Galera, where nobody waits for another node, one
    of two collides when it commits, and is run again.) Raises NotUnique where two at once were the first ever; once
    more, it works.
    """
    taken = update(leases).where(leases.c.name == name).values(commits=leases.c.commits + 1)
    if connection.execute(taken).rowcount == 0:
        connection.execute(insert(leases).values(name=name, owner="", token=0, expires_at=0.0, commits=1))


def _is(fence: Fence) -> tuple[ColumnElement[bool], ...]:
    return (leases.c.name == fence.name, leases.c.owner == fence.owner, leases.c.token == fence.token)
