"""The fleet as it would be: what one observation changes lies over what is, and nothing of the fleet itself is touched.

Folds write into a `Draft`, judges look at it, and the diff compares it with the fleet. It holds no rule but one:
whatever is heard of a closed host makes what had been read of it worth nothing (`named`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from maintd.domain.copying import replace
from maintd.domain.events import Event
from maintd.domain.fleet import Fleet
from maintd.domain.model import (
    Because,
    Bus,
    Drain,
    Finding,
    Host,
    HostSlice,
    Migration,
    Phase,
    Policy,
    Project,
    Residue,
    Server,
    Value,
    Verification,
)

CLOCK_MARGIN_S = 2.0
"""How far apart the clocks of emitters are assumed to be (facts 7.2)."""


MOVING_PHASES = frozenset(
    {Phase.ASKED, Phase.QUEUED, Phase.PREPARING, Phase.RUNNING, Phase.FINISHING, Phase.ROLLING_BACK}
)


V = TypeVar("V", bound=Value)


class Draft:
    """The fleet as it would be: what changed lies over what is. Nothing of the fleet itself is touched."""

    __slots__ = (
        "fleet", "policy", "new_id", "because", "now", "changed", "removed", "forgotten", "touched", "departed",
        "emptied", "requested", "before_events", "everyone", "_servers", "_moves",
    )  # fmt: skip

    def __init__(self, fleet: Fleet, ids: Callable[[], str], because: Because, now: float) -> None:
        self.fleet = fleet
        self.policy: Policy = fleet.policy
        self.new_id = ids
        self.because = because
        self.now = now
        self.changed: dict[tuple[type, str], Value] = {}
        self.removed: dict[tuple[type, str], Value] = {}
        self.forgotten: dict[tuple[type, str], Value] = {}
        self.touched: dict[str, None] = {}
        self.departed: dict[str, None] = {}
        self.emptied: dict[str, Finding] = {}
        self.requested: dict[str, bool] = {}
        self.everyone = False
        self.before_events: list[Event] = []
        # Of `changed` again, the servers and by server the moves: one reduction may touch all there are of both.
        self._servers: dict[str, Server] = {}
        self._moves: dict[str, dict[str, Migration]] = {}

    def _get(self, table: type[V], key: str, held: V | None) -> V | None:
        slot = (table, key)
        if slot in self.removed or slot in self.forgotten:
            return None
        over = self.changed.get(slot)
        return over if over is not None else held  # type: ignore[return-value]

    def host(self, name: str | None) -> Host | None:
        return self._get(Host, name, self.fleet.host(name)) if name else None

    def server(self, server_id: str) -> Server | None:
        return self._get(Server, server_id, self.fleet.server(server_id))

    def drain(self, drain_id: str | None) -> Drain | None:
        return self._get(Drain, drain_id, self.fleet.drain(drain_id)) if drain_id else None

    def project(self, project_id: str) -> Project:
        return self._get(Project, project_id, self.fleet.project(project_id)) or Project(project_id)

    def bus(self, name: str) -> Bus | None:
        return self._get(Bus, name, self.fleet.bus(name))

    def buses(self) -> list[Bus]:
        return [self.bus(b.name) or b for b in self.fleet.buses()]

    def residue(self, key: str) -> Residue | None:
        return self._get(Residue, key, self.fleet.residue(key))

    def verification(self, host: str) -> Verification:
        held = self._get(Verification, host, self.fleet.verification(host))
        return held if held is not None else Verification(host)

    def migrations_of(self, server_id: str) -> list[Migration]:
        if not self.changed and not self.forgotten:
            return list(self.fleet.migrations_of(server_id))
        held = {m.key: m for m in self.fleet.migrations_of(server_id)} | self._moves.get(server_id, {})
        return [m for m in held.values() if (Migration, m.key) not in self.forgotten]

    def open_migration_of(self, server_id: str) -> Migration | None:
        return next((m for m in reversed(self.migrations_of(server_id)) if m.open), None)

    def open_migrations_on(self, host: str) -> list[Migration]:
        held = {m.key: m for m in self.fleet.open_migrations_on(host)}
        for moves in self._moves.values():
            held |= moves
        return [m for m in held.values() if m.open and host in (m.source, m.destination)]

    def servers_on(self, host: str) -> set[str]:
        ids = set(self.fleet.servers_on(host))
        for key, server in self._servers.items():
            here = server.host == host and server.deleted_at is None
            (ids.add if here else ids.discard)(key)
        return ids

    def landing_on(self, host: str) -> set[str]:
        ids = set(self.fleet.landing_on(host))
        for key, server in self._servers.items():
            here = server.landing == host and server.deleted_at is None
            (ids.add if here else ids.discard)(key)
        return ids

    def residue_on(self, host: str) -> list[Residue]:
        held = {r.key: r for r in self.fleet.residue_on(host)}
        for (table, key), value in self.changed.items():
            if table is Residue and value.host == host:  # type: ignore[union-attr]
                held[key] = value  # type: ignore[assignment]
        return [r for r in held.values() if r.cleared_at is None]

    def slice(self, host: Host) -> HostSlice:
        ids = self.servers_on(host.name) | self.landing_on(host.name)
        servers = tuple(s for s in (self.server(i) for i in sorted(ids)) if s is not None)
        return HostSlice(
            host, servers, tuple(self.open_migrations_on(host.name)), tuple(self.residue_on(host.name)), None
        )

    def put(self, value: Value) -> None:
        self.changed[(type(value), value.key)] = value
        if isinstance(value, Server):
            self._servers[value.key] = value
        elif isinstance(value, Migration):
            self._moves.setdefault(value.server_id, {})[value.key] = value

    def touch(self, *hosts: str | None) -> None:
        for host in hosts:
            if host:
                self.touched[host] = None

    def named(self, *hosts: str | None) -> None:
        """Something was seen of these hosts: for the closed ones, what has been read of them so far proves nothing."""
        closed = self.fleet.closed_hosts()
        for name in dict.fromkeys(hosts):
            if name and (name in closed or self._closes(name)):
                self.touch(name)
                v = self.verification(name)
                self.put(
                    replace(
                        v,
                        generation=v.generation + 1,
                        named_at=max(v.named_at, self.now),
                        first=None,
                        tries=0,
                        verify_at=None,
                    )
                )

    def _closes(self, host: str) -> bool:
        """Whether the host is closed by what changes now."""
        value = self.changed.get((Host, host))
        return isinstance(value, Host) and value.closed
