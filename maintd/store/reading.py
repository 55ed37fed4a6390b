"""What others may see of the fleet: the domain's values, by name or by page, straight from the tables.

For those who do not hold the fleet in memory: the API of every controller, the lease's holder included. Lists go by
key: `after` is the last key of the page before, and a page shorter than `limit` is the last. Nothing here writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from maintd.clock import Clock
from maintd.domain.model import (
    Bus,
    Curve,
    Drain,
    Entity,
    Host,
    HostSlice,
    Knowledge,
    Migration,
    Residue,
    Server,
    Stall,
)
from maintd.store import tables
from maintd.store.engine import Database, chunks
from maintd.store.fleet import REMEMBER_ENDED_S, SHELVES

E = TypeVar("E", bound=Entity)


class Reading:
    """`store.reading`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def hosts(self, after: str = "", limit: int = 100, closed: bool | None = None) -> list[Host]:
        """Hosts by name; `closed` True or False for only those."""
        h = tables.hosts.c
        is_closed = or_(h.disabled.is_(True), h.forced_down.is_(True))
        where = [h.name > after]
        if closed is not None:
            where.append(is_closed if closed else ~is_closed)
        return self._some(Host, *where, limit=limit)

    def host(self, name: str) -> HostSlice | None:
        """A host with its servers and those landing on it, its migrations (open and of the last hour), its residue that
        is not cleared and its open drain, all of one moment."""
        return self._database.read(lambda connection: self._slice(connection, name), as_one=True)

    def servers(self, after: str = "", limit: int = 100, host: str | None = None) -> list[Server]:
        """Servers by id, deleted ones included while they are remembered."""
        where = [tables.servers.c.server_id > after]
        if host is not None:
            where.append(tables.servers.c.host == host)
        return self._some(Server, *where, limit=limit)

    def drains(self, after: str = "", limit: int = 100, open_only: bool = False) -> list[Drain]:
        """Drains by id."""
        where = [tables.drains.c.drain_id > after]
        if open_only:
            where.append(tables.drains.c.ended_at.is_(None))
        return self._some(Drain, *where, limit=limit)

    def drain(self, drain_id: str) -> Drain | None:
        return self._one(Drain, tables.drains.c.drain_id == drain_id)

    def migrations(
        self,
        after: str = "",
        limit: int = 100,
        open_only: bool = False,
        server_id: str | None = None,
        host: str | None = None,
    ) -> list[Migration]:
        """Migrations by key; `host` is the source or the destination."""
        m = tables.migrations.c
        where = [m.key > after]
        if open_only:
            where.append(m.is_open.is_(True))
        if server_id is not None:
            where.append(m.server_id == server_id)
        if host is not None:
            where.append(or_(m.source == host, m.destination == host))
        return self._some(Migration, *where, limit=limit)

    def migration(self, key: str) -> Migration | None:
        return self._one(Migration, tables.migrations.c.key == key)

    def curve(self, key: str) -> Curve | None:
        """What is kept of the looks at a live migration, by the migration's key; of an open one, up to half a minute
        ago."""
        return self._one(Curve, tables.curves.c.key == key)

    def stalls(
        self,
        after: str = "",
        limit: int | None = 100,
        *,
        since: float | None = None,
        until: float | None = None,
        reason: str | None = None,
        migration_key: str | None = None,
        published: bool | None = None,
        standing: bool = False,
        newest_first: bool = False,
        before: tuple[float, str] | None = None,
    ) -> list[Stall]:
        """Stalls by key, what was only noted (shadow mode) included; `since` <= when it was said < `until`.

        `newest_first`: by when they were said, and then by key, both downwards; `before` is such a place, after which
        the page begins.

        `published` True or False for only what was said, or only noted; `standing` for those that have not passed. Of a
        stall that passed, `ended_at` and `outcome` are what became of its migration afterwards."""
        s = tables.stalls.c
        where = [s.key > after]
        if since is not None:
            where.append(s.said_at >= since)
        if until is not None:
            where.append(s.said_at < until)
        if reason is not None:
            where.append(s.reason == reason)
        if migration_key is not None:
            where.append(s.migration_key == migration_key)
        if published is not None:
            where.append(s.published.is_(published))
        if standing:
            where += [s.resumed_at.is_(None), s.ended_at.is_(None)]
        if before is not None:
            where.append(or_(s.said_at < before[0], and_(s.said_at == before[0], s.key < before[1])))
        order = (s.said_at.desc(), s.key.desc()) if newest_first else ()

        def read(connection: Connection) -> list[Stall]:
            return _with_outcomes(connection, _rows(connection, Stall, *where, limit=limit, order=order))

        return self._database.read(read)

    def residue(self, host: str | None = None, cleared: bool | None = False) -> list[Residue]:
        """What may be left on hosts; `cleared` True for what was cleared, None for both."""
        r = tables.residue.c
        where: list[ColumnElement[bool]] = [] if host is None else [r.host == host]
        if cleared is not None:
            where.append(r.cleared_at.is_not(None) if cleared else r.cleared_at.is_(None))
        return self._some(Residue, *where)

    def buses(self) -> list[Bus]:
        return self._some(Bus)

    def knowledge(self) -> Knowledge | None:
        """None before the fleet was ever written."""
        found = self._some(Knowledge)
        return found[0] if found else None

    def _slice(self, connection: Connection, name: str) -> HostSlice | None:
        s, m, r, d = tables.servers.c, tables.migrations.c, tables.residue.c, tables.drains.c
        hosts = _rows(connection, Host, tables.hosts.c.name == name)
        if not hosts:
            return None
        recent = or_(m.is_open.is_(True), m.ended_at >= self._clock.now() - REMEMBER_ENDED_S)
        touching = or_(m.source == name, m.destination == name)
        drains = _rows(connection, Drain, d.host == name, d.ended_at.is_(None))
        return HostSlice(
            host=hosts[0],
            servers=tuple(_rows(connection, Server, or_(s.host == name, s.landing == name), s.deleted_at.is_(None))),
            migrations=tuple(_rows(connection, Migration, and_(recent, touching))),
            residue=tuple(_rows(connection, Residue, r.host == name, r.cleared_at.is_(None))),
            drain=drains[0] if drains else None,
        )

    def _some(
        self,
        kind: type[E],
        *where: ColumnElement[bool],
        limit: int | None = None,
        order: Sequence[ColumnElement[Any]] = (),
    ) -> list[E]:
        return self._database.read(lambda connection: _rows(connection, kind, *where, limit=limit, order=order))

    def _one(self, kind: type[E], where: ColumnElement[bool]) -> E | None:
        found = self._some(kind, where)
        return found[0] if found else None


def _rows(
    connection: Connection,
    kind: type[E],
    *where: ColumnElement[bool],
    limit: int | None = None,
    order: Sequence[ColumnElement[Any]] = (),
) -> list[E]:
    shelf = SHELVES[kind]  # type: ignore[index]
    columns = shelf.table.c
    query = select(*(columns[name] for name in shelf.columns)).where(*where).limit(limit)
    return [
        shelf.entity(row) for row in connection.execute(query.order_by(*(order or shelf.table.primary_key.columns)))
    ]


def _with_outcomes(connection: Connection, stalls: list[Stall]) -> list[Stall]:
    """The same, those that passed with the end of their migration: the fleet had forgotten them by then."""
    m = tables.migrations.c
    keys = sorted({stall.migration_key for stall in stalls if stall.resumed_at is not None and stall.ended_at is None})
    ends: dict[str, tuple[float | None, str]] = {}
    for some in chunks(keys):
        query = select(m.key, m.ended_at, m.phase).where(m.key.in_(some), m.is_open.is_(False))
        ends.update({key: (ended_at, phase) for key, ended_at, phase in connection.execute(query)})
    return [
        replace(stall, ended_at=ends[stall.migration_key][0], outcome=ends[stall.migration_key][1])
        if stall.ended_at is None and stall.resumed_at is not None and stall.migration_key in ends
        else stall
        for stall in stalls
    ]
