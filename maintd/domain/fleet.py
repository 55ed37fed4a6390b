"""All that we hold true, in memory, with the indices that make one notification cost the same in any cloud.

The fleet is a holder: it puts values in, takes them out, answers "who is on this host" and "what is due next". It
decides nothing; `reducer.reduce` reads it and returns what changes, and whoever called applies that (and can take it
back where a database refused). Timers are not scheduled anywhere: every value says when it is due, and a heap of
those moments is all there is.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import cast

from maintd.domain.events import Event
from maintd.domain.model import (
    Bus,
    Curve,
    Drain,
    Host,
    HostSlice,
    Knowledge,
    Migration,
    Notice,
    Policy,
    Project,
    Residue,
    Server,
    Stall,
    Value,
    Verification,
)
from maintd.domain.tenant_events import TenantEvent

_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one observation changes: values to keep, values that are no more (`removed`), values of which only the
    history is kept (`forgotten`: dropped from memory), and the events to publish, in order."""

    saved: tuple[Value, ...] = ()
    removed: tuple[Value, ...] = ()
    forgotten: tuple[Value, ...] = ()
    events: tuple[Event | TenantEvent, ...] = ()


NOTHING_CHANGED = Outcome()

Undo = list[tuple[type, str, Value | None]]


class Fleet:
    """The values and their indices. Not thread-safe: its holder has a lock."""

    def __init__(self, policy: Policy | None = None, values: Iterable[Value] = ()) -> None:
        self.policy = policy or Policy()
        self._hosts: dict[str, Host] = {}
        self._servers: dict[str, Server] = {}
        self._migrations: dict[str, Migration] = {}
        self._curves: dict[str, Curve] = {}
        self._stalls: dict[str, Stall] = {}
        self._drains: dict[str, Drain] = {}
        self._residue: dict[str, Residue] = {}
        self._buses: dict[str, Bus] = {}
        self._notices: dict[str, Notice] = {}
        self._projects: dict[str, Project] = {}
        self._knowledge: dict[str, Knowledge] = {}
        self._verifications: dict[str, Verification] = {}
        self._tables: dict[type, dict[str, Value]] = cast(
            "dict[type, dict[str, Value]]",
            {
                Host: self._hosts,
                Server: self._servers,
                Migration: self._migrations,
                Curve: self._curves,
                Stall: self._stalls,
                Drain: self._drains,
                Residue: self._residue,
                Bus: self._buses,
                Notice: self._notices,
                Project: self._projects,
                Knowledge: self._knowledge,
                Verification: self._verifications,
            },
        )
        self._closed: set[str] = set()
        self._servers_on: dict[str, set[str]] = {}
        self._landing_on: dict[str, set[str]] = {}
        self._migrations_of: dict[str, tuple[str, ...]] = {}
        self._open_on: dict[str, set[str]] = {}
        self._open: set[str] = set()
        self._by_uuid: dict[str, str] = {}
        self._stalls_of: dict[str, set[str]] = {}
        self._residue_on: dict[str, set[str]] = {}
        self.heard_at: dict[str, float] = {}
        """By bus, when a notification last came; of this process only, and no part of what is kept."""
        self._timers: list[tuple[float, str, str]] = []
        self._verify: list[tuple[float, str]] = []
        for value in values:
            self.put(value)

    # -- looking ------------------------------------------------------------------------------------------------------

    def host(self, name: str | None) -> Host | None:
        return self._hosts.get(name) if name else None

    def server(self, server_id: str) -> Server | None:
        return self._servers.get(server_id)

    def migration(self, key: str) -> Migration | None:
        return self._migrations.get(key)

    def migration_by_uuid(self, migration_uuid: str | None) -> Migration | None:
        key = self._by_uuid.get(migration_uuid) if migration_uuid else None
        return self._migrations.get(key) if key else None

    def curve(self, key: str) -> Curve | None:
        """What is kept of the looks at an open live migration, by its key."""
        return self._curves.get(key)

    def stalls_of(self, key: str) -> tuple[Stall, ...]:
        """The stalls of a migration that stand, in a stable order."""
        return tuple(self._stalls[stall] for stall in sorted(self._stalls_of.get(key, _NOTHING)))

    def drain(self, drain_id: str | None) -> Drain | None:
        return self._drains.get(drain_id) if drain_id else None

    def bus(self, name: str) -> Bus | None:
        return self._buses.get(name)

    def notice(self, server_id: str) -> Notice | None:
        """What a server's owner has been told that still holds."""
        return self._notices.get(server_id)

    def notices(self) -> Iterator[Notice]:
        return iter(self._notices.values())

    def project(self, project_id: str) -> Project | None:
        return self._projects.get(project_id)

    def verification(self, host: str) -> Verification | None:
        return self._verifications.get(host)

    @property
    def knowledge(self) -> Knowledge | None:
        return self._knowledge.get("fleet")

    def hosts(self) -> Iterator[Host]:
        return iter(self._hosts.values())

    def servers(self) -> Iterator[Server]:
        return iter(self._servers.values())

    def drains(self) -> Iterator[Drain]:
        return iter(self._drains.values())

    def buses(self) -> Iterator[Bus]:
        return iter(self._buses.values())

    def closed_hosts(self) -> Collection[str]:
        return self._closed

    def servers_on(self, host: str) -> Collection[str]:
        """Ids of the servers whose current host this is."""
        return self._servers_on.get(host, _NOTHING)

    def landing_on(self, host: str) -> Collection[str]:
        """Ids of the servers that are on their way to the host without a migration."""
        return self._landing_on.get(host, _NOTHING)

    def migrations_of(self, server_id: str) -> tuple[Migration, ...]:
        """The server's migrations in memory, oldest first: open ones and those lately ended."""
        return tuple(self._migrations[key] for key in self._migrations_of.get(server_id, ()))

    def open_migrations(self) -> Iterator[Migration]:
        """All open migrations, in a stable order."""
        return (self._migrations[key] for key in sorted(self._open))

    def open_migrations_on(self, host: str) -> tuple[Migration, ...]:
        """Open migrations that the host is source or destination of, in a stable order."""
        return tuple(self._migrations[key] for key in sorted(self._open_on.get(host, _NOTHING)))

    def residue_on(self, host: str) -> tuple[Residue, ...]:
        """Residue of the host that is not cleared, in a stable order."""
        return tuple(self._residue[key] for key in sorted(self._residue_on.get(host, _NOTHING)))

    def residue(self, key: str) -> Residue | None:
        return self._residue.get(key)

    def slice(self, host: str) -> HostSlice | None:
        """All that is held about one host."""
        known = self._hosts.get(host)
        if known is None:
            return None
        ids = set(self.servers_on(host)) | set(self.landing_on(host))
        return HostSlice(
            host=known,
            servers=tuple(self._servers[i] for i in sorted(ids)),
            migrations=self.open_migrations_on(host),
            residue=self.residue_on(host),
            drain=self.drain(known.drain_id),
        )

    def counts(self) -> dict[str, int]:
        """How many values of each kind there are."""
        return {table.__name__.lower(): len(values) for table, values in self._tables.items()}

    # -- time ---------------------------------------------------------------------------------------------------------

    def _due_of(self, value: Value) -> float | None:
        if isinstance(value, Server):
            return None if value.deleted_at is None else value.deleted_at + self.policy.remember_ended_s
        if isinstance(value, Migration):
            if value.ended_at is not None:
                return value.ended_at + self.policy.remember_ended_s
            if value.verdict_at is None or value.stall_at is None:
                return value.stall_at if value.verdict_at is None else value.verdict_at
            return min(value.verdict_at, value.stall_at)
        if isinstance(value, Drain):
            open_ = value.ended_at is None and value.stalled_at is None
            return value.moved_at + self.policy.stalled_after_s if open_ else None
        if isinstance(value, Host):
            return value.say_up_at
        if isinstance(value, Bus):
            return value.listen_by
        return None

    def _peek(self) -> tuple[float, str, str] | None:
        while self._timers:
            at, table, key = self._timers[0]
            value = next((t for t in (Migration, Server, Drain, Host, Bus) if t.__name__ == table), None)
            held = self._tables[value].get(key) if value else None
            if held is not None and self._due_of(held) == at:
                return self._timers[0]
            heapq.heappop(self._timers)
        return None

    def next_due(self) -> float | None:
        """When the next timer is due; None where none is set."""
        first = self._peek()
        return first[0] if first else None

    def take_due(self, now: float) -> tuple[float, tuple[str, str]] | None:
        """The earliest timer due by now, as (moment, subject); it is taken off, and set again only by a change."""
        first = self._peek()
        if first is None or first[0] > now:
            return None
        heapq.heappop(self._timers)
        return first[0], (first[1], first[2])

    def set_timer(self, at: float, subject: tuple[str, str]) -> None:
        """Set a timer again that was taken off, because what followed from it could not be kept."""
        heapq.heappush(self._timers, (at, *subject))

    def next_verify_at(self) -> float | None:
        """When the next verification pass is wanted; None where none is."""
        while self._verify:
            at, host = self._verify[0]
            held = self._verifications.get(host)
            if held is not None and held.verify_at == at:
                return at
            heapq.heappop(self._verify)
        return None

    def verify_due(self, now: float) -> list[str]:
        """Hosts that want a verification pass by now, longest waiting first."""
        due = [(v.verify_at, v.host) for v in self._verifications.values() if v.verify_at is not None]
        return [host for at, host in sorted(due) if at <= now]

    # -- changing -----------------------------------------------------------------------------------------------------

    def apply(self, outcome: Outcome) -> Undo:
        """Take a reducer's outcome in; what `undo` needs to take it back is returned."""
        undo: Undo = []
        for value in outcome.saved:
            undo.append((type(value), value.key, self.put(value)))
        for value in outcome.removed + outcome.forgotten:
            undo.append((type(value), value.key, self.drop(value)))
        return undo

    def undo(self, undo: Undo) -> None:
        """Take changes back, last first."""
        for table, key, old in reversed(undo):
            if old is not None:
                self.put(old)
            else:
                held = self._tables[table].get(key)
                if held is not None:
                    self.drop(held)

    def put(self, value: Value) -> Value | None:
        """Hold a value in place of what was held under its key, which is returned."""
        table, key = self._tables[type(value)], value.key
        old = table.get(key)
        table[key] = value
        if old is None:
            self._index(value)
        elif not _indexed_alike(old, value):
            self._unindex(old)
            self._index(value)
        self._set_alarm(value, old)
        return old

    def drop(self, value: Value) -> Value | None:
        """Hold the value under this key no longer."""
        old = self._tables[type(value)].pop(value.key, None)
        if old is not None:
            self._unindex(old)
            if isinstance(old, Migration):
                self._disown(old)
        return old

    def _index(self, value: Value) -> None:
        if isinstance(value, Server):
            if value.deleted_at is None:
                if value.host:
                    self._servers_on.setdefault(value.host, set()).add(value.server_id)
                if value.landing:
                    self._landing_on.setdefault(value.landing, set()).add(value.server_id)
        elif isinstance(value, Migration):
            keys = self._migrations_of.get(value.server_id, ())
            if value.key not in keys:
                self._migrations_of[value.server_id] = (*keys, value.key)
            if value.migration_uuid:
                self._by_uuid[value.migration_uuid] = value.key
            if value.open:
                self._open.add(value.key)
                for host in {value.source, value.destination} - {None}:
                    self._open_on.setdefault(cast(str, host), set()).add(value.key)
        elif isinstance(value, Host):
            if value.closed:
                self._closed.add(value.name)
        elif isinstance(value, Stall):
            self._stalls_of.setdefault(value.migration_key, set()).add(value.key)
        elif isinstance(value, Residue):
            if value.cleared_at is None:
                self._residue_on.setdefault(value.host, set()).add(value.key)

    def _unindex(self, old: Value) -> None:
        if isinstance(old, Server):
            _discard(self._servers_on, old.host, old.server_id)
            _discard(self._landing_on, old.landing, old.server_id)
        elif isinstance(old, Migration):
            self._open.discard(old.key)
            _discard(self._open_on, old.source, old.key)
            _discard(self._open_on, old.destination, old.key)
        elif isinstance(old, Stall):
            _discard(self._stalls_of, old.migration_key, old.key)
        elif isinstance(old, Host):
            self._closed.discard(old.name)
        elif isinstance(old, Residue):
            _discard(self._residue_on, old.host, old.key)

    def _disown(self, old: Migration) -> None:
        """The server has this migration no longer, nor has its uuid."""
        left = tuple(k for k in self._migrations_of.get(old.server_id, ()) if k != old.key)
        if left:
            self._migrations_of[old.server_id] = left
        else:
            self._migrations_of.pop(old.server_id, None)
        if old.migration_uuid:
            self._by_uuid.pop(old.migration_uuid, None)

    def _set_alarm(self, value: Value, old: Value | None) -> None:
        """Put the moment at which a value is due on its heap, unless it is there already."""
        if isinstance(value, Verification):
            if value.verify_at is not None and (not isinstance(old, Verification) or old.verify_at != value.verify_at):
                heapq.heappush(self._verify, (value.verify_at, value.host))
            return
        due = self._due_of(value)
        if due is not None and (old is None or self._due_of(old) != due):
            heapq.heappush(self._timers, (due, type(value).__name__, value.key))


def _indexed_alike(old: Value, new: Value) -> bool:
    """Whether two values of one key stand in the same indices: most changes are of something else."""
    if isinstance(old, Server) and isinstance(new, Server):
        return old.host == new.host and old.landing == new.landing and old.deleted_at == new.deleted_at
    if isinstance(old, Migration) and isinstance(new, Migration):
        return (
            old.open == new.open
            and old.source == new.source
            and old.destination == new.destination
            and old.migration_uuid == new.migration_uuid
        )
    return False


def _discard(index: dict[str, set[str]], key: str | None, member: str) -> None:
    members = index.get(key) if key else None
    if members is not None and key is not None:
        members.discard(member)
        if not members:
            del index[key]
