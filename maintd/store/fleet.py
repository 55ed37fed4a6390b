"""The fleet on disk: one transaction writes a change of it, one stream reads it back.

`commit` is the hot path, run once per batch of notifications. It knows each entity as a *shelf*: a table, the tuple an
entity becomes, and the entity a row becomes; its statements are texts made once, run by the driver for many rows at a
time. Columns bear the names of the fields, so a tuple of the fields is nearly a row.

It does not merge, compare or judge: what it is given is what is true. What must stand in the log and what must be
forgotten is said by the reducer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from operator import attrgetter
from sys import intern
from typing import Any, Final

from sqlalchemy import Connection, Table

from maintd.domain.events import CloudEvent
from maintd.domain.model import (
    Because,
    Block,
    Blocker,
    Bus,
    Curve,
    Departure,
    Drain,
    Entity,
    Finding,
    Host,
    Kind,
    Knowledge,
    Migration,
    Note,
    Notice,
    Pass,
    Phase,
    Point,
    Progress,
    Project,
    ProofRead,
    Residue,
    Server,
    Stall,
)
from maintd.domain.quarantine import Quarantined
from maintd.errors import LeaseLost, OurFault
from maintd.store import quarantine, tables
from maintd.store.engine import Database, Insert, NotUnique, OutcomeUnknown, Unstorable
from maintd.store.events import Appending
from maintd.store.leases import Fence, FenceCheck
from maintd.store.message_ids import MessageIds

REMEMBER_ENDED_S: Final = 3600.0
"""How long after its end a migration still belongs to the fleet in memory."""

PASSING: Final = frozenset({Server, Migration, Curve})
"""A commit of nothing but these need not survive a power cut: the next look at Nova shows it again."""

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class Commit:
    """What one batch changed. `saved` are whole values, new or not; `removed` is forgotten.

    Removals come first: what is in both is kept. `events` carry their sequences, `message_ids` none seen before.
    """

    fence: Fence
    saved: Sequence[Entity] = ()
    removed: Sequence[Entity] = ()
    events: Sequence[CloudEvent] = ()
    message_ids: Sequence[str] = ()
    quarantined: Sequence[Quarantined] = ()
    at: float = 0.0


class Shelf:
    """Where one kind of entity is kept, and how it goes in and comes out.

    `store` and `restore` are for the fields that are not plain numbers and texts (None never comes to them). `extra`
    are columns that are no fields, with what to put there.
    """

    __slots__ = ("_extra", "_get", "_lists", "_long", "_restore", "_store", "columns", "key", "kind", "table")

    def __init__(
        self,
        kind: type[Any],
        table: Table,
        *,
        store: Mapping[str, Callable[[Any], Any]] | None = None,
        restore: Mapping[str, Callable[[Any], Any]] | None = None,
        extra: Mapping[str, Callable[[Any], Any]] | None = None,
    ) -> None:
        names = [field.name for field in fields(kind)]
        self.kind = kind
        self.table = table
        self.columns = (*names, *(extra or ()))
        self.key = tuple(column.name for column in table.primary_key.columns)
        self._get = attrgetter(*names)
        self._store = [(names.index(name), change) for name, change in (store or {}).items()]
        self._restore = [(names.index(name), change) for name, change in (restore or {}).items()]
        self._extra = list((extra or {}).values())
        self._long = {place for place, name in enumerate(self.columns) if table.c[name].type is tables.Long}
        self._lists = [place for place, field in enumerate(fields(kind)) if field.default == ()]

    def row(self, entity: Entity) -> Row:
        """The values of `columns`."""
        got: Row = self._get(entity)
        if not self._store and not self._extra:
            return got
        row = list(got)
        for place, change in self._store:
            if row[place] is not None:
                row[place] = change(row[place])
        row += [make(entity) for make in self._extra]
        return tuple(row)

    def fitted(self, row: Row) -> Row:
        """The row with every value made storable. Nova's names always are; faults and reasons are anybody's words.

        JSON of ours is never cut: it could not be read back."""
        return tuple(_fitted(item, cut=place not in self._long) for place, item in enumerate(row))

    def entity(self, row: Row) -> Any:
        """The entity of a row of `columns`."""
        values = list(row)
        for place, change in self._restore:
            if values[place] is not None:
                values[place] = change(values[place])
        for place in self._lists:
            if values[place] is None:
                values[place] = ()  # written before there was this column
        return self.kind(*values[: len(values) - len(self._extra)])


class FleetStore:
    """`store.commit` and `.load_fleet`."""

    def __init__(self, database: Database, message_ids: MessageIds, quarantine_bytes: int) -> None:
        self._database = database
        self._message_ids = message_ids
        self._quarantine_bytes = quarantine_bytes
        self._fence = FenceCheck(database)
        self._events = Appending(database)
        self._upserts = {kind: _upsert(database, shelf) for kind, shelf in SHELVES.items()}
        # SQLite writes every index of a row again when an upsert names its column, changed or not: a page each.
        indexed: tuple[type[Entity], ...] = (Server, Migration, Curve) if database.path is not None else ()
        self._in_place = {kind: _in_place(database, SHELVES[kind]) for kind in indexed}
        self._deletes = {kind: _delete(database, shelf) for kind, shelf in SHELVES.items()}
        self._doubted: set[Fence] = set()

    def commit(self, commit: Commit) -> None:
        """Write it all, or nothing.

        Raises LeaseLost (the fence is not the lease's; also after a commit whose outcome the database could not tell:
        then memory and database may differ, and loading anew is the cure), StoreUnavailable (nothing was written),
        OurFault (a message id or sequence is there already, a key is too long).
        """
        if commit.fence in self._doubted:
            raise LeaseLost("Whether the last transaction was committed is not known; the fleet has to be loaded anew.")
        durable = bool(commit.events) or any(type(one) not in PASSING for one in commit.saved)
        try:
            try:
                self._database.write(lambda connection: self._write(connection, commit), durable=durable)
            except Unstorable:  # some text is too long or not Unicode: once more, with every text made to fit
                self._database.write(lambda connection: self._write(connection, commit, fit=True), durable=durable)
        except OutcomeUnknown:
            self._doubted.add(commit.fence)
            raise
        except NotUnique as error:
            raise OurFault(
                f"An event that is stored already was to be stored again, and nothing was: {error}"
            ) from error

    def load(self, now: float) -> Iterator[Entity]:
        """All that belongs into memory: what is over leaves out (migrations an hour after their end, drains,
        residue, curves and stalls at once). Hosts come before servers, these before migrations."""
        mark = self._database.mark
        conditions: dict[type[Entity], tuple[str, tuple[Any, ...]]] = {
            # Oldest first, as they are held: the last of a server's moves is the one that counts.
            Migration: (
                f" WHERE is_open = {mark} OR ended_at >= {mark} ORDER BY begun_at",
                (True, now - REMEMBER_ENDED_S),
            ),
            Curve: (" WHERE ended_at IS NULL", ()),
            Stall: (" WHERE resumed_at IS NULL AND ended_at IS NULL", ()),
            Drain: (" WHERE ended_at IS NULL", ()),
            # What was cleared of an evacuation must stay cleared while Nova still shows the evacuation.
            Residue: (" WHERE cleared_at IS NULL OR kind = 'evacuated'", ()),
        }
        for kind in (Knowledge, Bus, Host, Server, Migration, Curve, Stall, Drain, Residue, Project, Notice):
            shelf = SHELVES[kind]
            where, parameters = conditions.get(kind, ("", ()))
            names = ", ".join(map(self._database.quoted, shelf.columns))
            query = f"SELECT {names} FROM {self._database.quoted(shelf.table.name)}{where}"  # noqa: S608 - ours
            with self._database.reading() as connection:
                result = connection.exec_driver_sql(query, parameters)
                while rows := result.fetchmany(2000):
                    yield from map(shelf.entity, rows)

    def _save(self, connection: Connection, kind: type[Entity], rows: list[Row]) -> None:
        in_place = self._in_place.get(kind)
        if in_place is not None:
            done = self._database.run_returning(connection, in_place, rows)
            if len(done) == len(rows):
                return
            rows = [row for row in rows if row[0] not in done]
        self._database.run_many(connection, self._upserts[kind], rows)

    def _write(self, connection: Connection, commit: Commit, fit: bool = False) -> None:
        self._fence.held(connection, commit.fence)
        gone: dict[type[Entity], list[Row]] = {}
        for one in commit.removed:
            kind = type(one)
            gone.setdefault(kind, []).append(_KEYS[kind](one))
        for kind, rows in gone.items():
            self._database.run_each(connection, self._deletes[kind], rows)
        kept: dict[type[Entity], dict[str, Entity]] = {}
        for one in commit.saved:
            kind = type(one)
            if kind in kept:
                kept[kind][one.key] = one
            else:
                kept[kind] = {one.key: one}
        for kind, values in kept.items():
            shelf = SHELVES[kind]
            rows = [shelf.row(one) for one in values.values()]
            if fit:
                rows = [shelf.fitted(row) for row in rows]
            self._save(connection, kind, rows)
        if commit.events:
            self._events.append(connection, commit.events)
        if commit.message_ids:
            self._message_ids.add(connection, commit.message_ids, commit.at)
        if commit.quarantined:
            quarantine.add(connection, commit.quarantined, self._quarantine_bytes)


def _fitted(item: Any, *, cut: bool) -> Any:
    if isinstance(item, str):
        text = item.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")
        return text[:16000] if cut else text
    return None if isinstance(item, int) and abs(item) >= 2**63 else item


# -- statements


def _upsert(database: Database, shelf: Shelf) -> Insert:
    quoted = database.quoted
    rest = [quoted(name) for name in shelf.columns if name not in shelf.key]
    if database.dialect == "mysql":
        otherwise = f"ON DUPLICATE KEY UPDATE {', '.join(f'{name}=VALUES({name})' for name in rest)}"
    else:
        key = ", ".join(map(quoted, shelf.key))
        changes = ", ".join(f"{name}=excluded.{name}" for name in rest)
        otherwise = f"ON CONFLICT ({key}) DO UPDATE SET {changes}"
    return Insert(database, shelf.table.name, shelf.columns, otherwise)


def _in_place(database: Database, shelf: Shelf) -> Insert:
    """SQLite: change rows that are there and whose indexed columns stay as they are; the keys of these come back."""
    quoted = database.quoted
    indexed = {column.name for index in shelf.table.indexes for column in index.columns}
    (key,) = shelf.key
    # The columns of VALUES are called column1, column2...
    given = {name: f"given.column{number}" for number, name in enumerate(shelf.columns, 1)}
    changes = ", ".join(f"{quoted(name)} = {given[name]}" for name in shelf.columns if name not in {key, *indexed})
    table = quoted(shelf.table.name)
    same = " AND ".join(f"{table}.{quoted(name)} IS {given[name]}" for name in sorted(indexed))
    return Insert(
        database,
        shelf.table.name,
        shelf.columns,
        f") AS given WHERE {table}.{quoted(key)} = {given[key]} AND {same} RETURNING {table}.{quoted(key)}",
        begin=f"UPDATE {table} SET {changes} FROM (VALUES ",  # noqa: S608 - names are ours
    )


def _delete(database: Database, shelf: Shelf) -> str:
    where = " AND ".join(f"{database.quoted(name)} = {database.mark}" for name in shelf.key)
    return f"DELETE FROM {database.quoted(shelf.table.name)} WHERE {where}"  # noqa: S608 - names are ours


# -- shelves: an entity as a row, a row as an entity


_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

_NAMES: Final = {
    kind: [field.name for field in fields(kind)] for kind in (Because, Block, Blocker, Note, Progress, ProofRead)
}


def _plain(value: Any) -> dict[str, Any]:
    """A flat dataclass as a dict, without what is None."""
    return {name: item for name in _NAMES[type(value)] if (item := getattr(value, name)) is not None}


def _known(kind: type[Any], values: dict[str, Any]) -> Any:
    """The reverse; what a newer maintd may have added is left out."""
    names = _NAMES[kind]
    return kind(**{name: value for name, value in values.items() if name in names})


def finding_text(finding: Finding) -> str:
    nested = {name: [_plain(one) for one in getattr(finding, name)] for name in ("blockers", "warnings", "proof")}
    return _json({"at": finding.at, **nested})


def finding_of(text: str) -> Finding:
    read = json.loads(text)
    return Finding(
        at=read["at"],
        blockers=tuple(_known(Blocker, one) for one in read["blockers"]),
        warnings=tuple(_known(Note, one) for one in read["warnings"]),
        proof=tuple(_known(ProofRead, one) for one in read["proof"]),
    )


def _nodes_of(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


def _names_text(names: tuple[str, ...]) -> str | None:
    return _json(names) if names else None


@lru_cache(maxsize=1024)
def _names_of(text: str) -> tuple[str, ...]:
    return tuple(map(intern, json.loads(text)))  # many servers bear the same few names


def _departures_text(departures: tuple[Departure, ...]) -> str:
    return _json([[gone.server_id, gone.kind, gone.at, gone.lived] for gone in departures])


def _departures_of(text: str) -> tuple[Departure, ...]:
    return tuple(Departure(*gone) for gone in json.loads(text))  # of an older maintd: the first three


def _progress_text(progress: Progress) -> str:
    return _json(_plain(progress))


def _progress_of(text: str) -> Progress:
    return _known(Progress, json.loads(text))  # type: ignore[no-any-return]


def _because_text(because: Because) -> str:
    return _json(_plain(because))


def _because_of(text: str) -> Because:
    return _known(Because, json.loads(text))  # type: ignore[no-any-return]


def _number(value: float) -> float:
    """Counters are whole numbers: without the point and nought they take less room, and come back the same."""
    return int(value) if float(value).is_integer() else value


def _points_text(points: tuple[Point, ...]) -> str:
    """An array for each: at, remaining, and of disk_remaining and processed what there is."""
    return _json([_point(one) for one in points])


def _point(point: Point) -> list[float]:
    row = [_number(point.at), _number(point.remaining)]
    if point.disk_remaining or point.processed is not None:
        row.append(_number(point.disk_remaining))
    if point.processed is not None:
        row.append(_number(point.processed))
    return row


def _points_of(text: str) -> tuple[Point, ...]:
    return tuple(map(_point_of, json.loads(text)))


def _point_of(row: list[float]) -> Point:
    return Point(*map(float, row[:4]))


def _passes_text(passes: tuple[Pass, ...]) -> str:
    """An array for each: began_at, size, count and, as 1 or 0, clear."""
    return _json([(_number(one.began_at), _number(one.size), _number(one.count), int(one.clear)) for one in passes])


def _passes_of(text: str) -> tuple[Pass, ...]:
    return tuple(Pass(float(row[0]), float(row[1]), float(row[2]), bool(row[3])) for row in json.loads(text))


def _flags(kind: type[Any]) -> dict[str, Callable[[Any], Any]]:
    """SQLite and MariaDB give numbers for what is true or false."""
    return {field.name: bool for field in fields(kind) if str(field.type).startswith("bool")}


def _few(*names: str) -> dict[str, Callable[[Any], Any]]:
    """One object for each of the few texts that come again and again."""
    return dict.fromkeys(names, intern)


_text_of: Callable[[Any], Any] = attrgetter("value")

SHELVES: Final[dict[type[Entity], Shelf]] = {
    Host: Shelf(
        Host,
        tables.hosts,
        store={"nodes": _json, "finding": finding_text, "departures": _departures_text},
        restore={
            **_flags(Host),
            **_few("name"),
            "nodes": _nodes_of,
            "finding": finding_of,
            "departures": _departures_of,
        },
    ),
    Server: Shelf(
        Server,
        tables.servers,
        store={"metadata_keys": _names_text},
        restore={
            **_few("project_id", "host", "landing", "vm_state", "task_state", "hindrance"),
            "metadata_keys": _names_of,
        },
    ),
    Migration: Shelf(
        Migration,
        tables.migrations,
        store={
            "kind": _text_of,
            "phase": _text_of,
            "verdict": _text_of,
            "progress": _progress_text,
            "verdict_because": _because_text,
        },
        restore={
            **_flags(Migration),
            **_few("source", "destination", "status", "project_id", "asked_by"),
            "kind": Kind,
            "phase": Phase,
            "verdict": Phase,
            "progress": _progress_of,
            "verdict_because": _because_of,
        },
        extra={"is_open": attrgetter("open")},
    ),
    Curve: Shelf(
        Curve,
        tables.curves,
        store={
            "points": _points_text,
            "passes": _passes_text,
            "falls": _json,
            "falling": lambda point: _json(_point(point)),
            "block": lambda block: _json(_plain(block)),
        },
        restore={
            **_few("source", "destination", "unit"),
            "points": _points_of,
            "passes": _passes_of,
            "falls": lambda text: tuple(json.loads(text)),
            "falling": lambda text: _point_of(json.loads(text)),
            "block": lambda text: _known(Block, json.loads(text)),
        },
    ),
    Stall: Shelf(
        Stall,
        tables.stalls,
        store={"evidence": _json},
        restore={
            **_flags(Stall),
            **_few("kind", "reason", "source", "destination", "outcome"),
            "evidence": json.loads,
        },
    ),
    Drain: Shelf(Drain, tables.drains, restore={**_flags(Drain), **_few("host")}),
    Residue: Shelf(Residue, tables.residue, restore=_few("host", "kind", "project_id")),
    Bus: Shelf(Bus, tables.buses, restore=_flags(Bus)),
    Notice: Shelf(
        Notice,
        tables.notices,
        store={"metadata_keys": _names_text},
        restore={**_flags(Notice), **_few("project_id", "move_kind"), "metadata_keys": _names_of},
    ),
    Project: Shelf(Project, tables.projects, restore=_few("project_id")),
    Knowledge: Shelf(Knowledge, tables.knowledge, extra={"name": attrgetter("key")}),
}

_KEYS: Final[dict[type[Entity], Callable[[Any], Row]]] = {
    Host: lambda one: (one.name,),
    Server: lambda one: (one.server_id,),
    Migration: lambda one: (one.key,),
    Curve: lambda one: (one.key,),
    Stall: lambda one: (one.key,),
    Drain: lambda one: (one.drain_id,),
    Residue: lambda one: (one.host, one.server_id, one.kind),
    Bus: lambda one: (one.name,),
    Notice: lambda one: (one.server_id,),
    Project: lambda one: (one.project_id,),
    Knowledge: lambda one: (one.key,),
}
