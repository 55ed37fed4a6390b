"""Answers about the fleet: status, hosts, drains, migrations, residue.

All is read from the store; two answers of one request may therefore be a commit apart. The two requests that change
something (`start_drain`, `clear_residue`) hand it to the daemon, which admits it as an observation like any other.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import falcon

import maintd
from maintd.domain.buses import silence
from maintd.domain.emptiness import blockers, summary
from maintd.domain.events import wire
from maintd.domain.model import Bus, Drain, Host, HostSlice, Migration
from maintd.web.asking import AFTER, LIMIT, LIMIT_MAX, Asked, flag, text, truth, unknown
from maintd.web.operations import Answer, members, nothing_of_that_name, operation, page, ref, single
from maintd.web.progress import drain_with_eta, seen, seen_alone, seen_shape, seen_whole
from maintd.web.shapes import (
    bus_shape,
    host_shape,
    moment,
    plain,
    residue_shape,
    server_shape,
)

T = TypeVar("T", Host, Drain, Migration)

_STATUS_ROWS_MAX = 10 * LIMIT_MAX
"""`/v1/status` looks at no more rows of a kind than this."""

_HOST = text("host", "the host, under the name of its compute service")
_NO_HOST = nothing_of_that_name("host")


# --- hosts -----------------------------------------------------------------------------------------------------------


@operation(page("hosts", "Host"), query=(AFTER, LIMIT, flag("closed", "only closed hosts, or only open ones")))
def hosts(asked: Asked) -> dict[str, Any]:
    """GET /v1/hosts: every host maintd knows, by name; `closed=true` only those that are closed."""
    after, closed = asked["after"] or "", asked["closed"]
    reading = asked.web.store.reading
    return asked.page(
        "hosts",
        lambda limit: reading.hosts(after=after, limit=limit, closed=closed),
        lambda h: h.name,
        partial(host_shape, buses=reading.buses(), watched=_leader(asked) is not None),
    )


@operation(single("HostDetail", "The host."), path=(_HOST,), errors=_NO_HOST)
def host(asked: Asked, host: str) -> dict[str, Any]:
    """GET /v1/hosts/{host}: one host, why it is not empty, and all that was last known to be on it."""
    return _detail(asked, _slice(asked, host))


def _slice(asked: Asked, name: str) -> HostSlice:
    found = asked.web.store.reading.host(name)
    if found is None:
        raise unknown(f"maintd knows no host named {name!r}; /v1/hosts lists those it knows.")
    return found


def _detail(asked: Asked, found: HostSlice) -> dict[str, Any]:
    one, finding = found.host, found.host.finding
    held = dataclasses.replace(found, migrations=tuple(m for m in found.migrations if m.open))
    reasons = blockers(held, one, asked.web.policy, asked.web.clock.now())
    return {
        **host_shape(one, asked.web.store.reading.buses(), _leader(asked) is not None),
        "summary": summary(reasons),
        "blockers": wire(reasons),
        "warnings": [] if finding is None else wire(finding.warnings),
        "proof": [] if finding is None else wire(finding.proof),
        "residue": [residue_shape(r) for r in found.residue],
        "servers": [server_shape(s) for s in found.servers],
        "migrations": [seen_shape(m, asked.web.policy, asked.web.clock.now()) for m in seen(asked, found.migrations)],
        "drain": None if found.drain is None else drain_with_eta(found.drain, found, asked),
    }


# --- drains ----------------------------------------------------------------------------------------------------------


@operation(page("drains", "Drain"), query=(AFTER, LIMIT, flag("open", "only drains that are not over")))
def drains(asked: Asked) -> dict[str, Any]:
    """GET /v1/drains: drains by id, those that are not over with `eta`; `open=true` only these."""
    after, open_only = asked["after"] or "", bool(asked["open"])
    reading = asked.web.store.reading
    return asked.page(
        "drains",
        lambda limit: reading.drains(after=after, limit=limit, open_only=open_only),
        lambda d: d.drain_id,
        lambda d: drain_with_eta(d, reading.host(d.host) if d.ended_at is None else None, asked),
    )


@operation(
    single("DrainDetail", "The drain."), path=(text("drain_id", "the drain"),), errors=nothing_of_that_name("drain")
)
def drain(asked: Asked, drain_id: str) -> dict[str, Any]:
    """GET /v1/drains/{drain_id}: one drain; while it is not over, with its host as /v1/hosts/{host} shows it."""
    found = asked.web.store.reading.drain(drain_id)
    if found is None:
        raise unknown(f"There is no drain {drain_id!r}; /v1/drains lists those there are.")
    now = asked.web.store.reading.host(found.host) if found.ended_at is None else None
    out = drain_with_eta(found, now, asked)
    if now is not None:
        detail = _detail(asked, now)
        out["servers_remaining"] = len(detail["servers"])
        out.update({name: detail[name] for name in ("empty", "summary", "blockers", "migrations")})
    return out


@operation(
    {
        200: Answer("It is being drained already.", ref("Drain")),
        201: Answer("The drain has begun.", ref("Drain")),
        202: Answer("It was asked for.", members({"host": {"type": "string"}, "drain_id": {"type": "null"}})),
    },
    body=(
        text("host", "the host to empty", missing='Name the host: {"host": "cmp-17"}.'),
        truth("removal", "the host goes for good", default=False),
    ),
    errors={**_NO_HOST, 409: "The host is open, or the request is refused."},
)
def start_drain(asked: Asked) -> tuple[int, dict[str, Any]]:
    """POST /v1/drains: say that a closed host is to be emptied, where its reason does not tell; with `removal`, that it
    goes for good."""
    name, removal = asked["host"], asked["removal"]
    before = _slice(asked, name)
    if not before.host.closed:
        raise falcon.HTTPConflict(
            title="Host is open",
            description=f"{name} is open: disable its compute service first "
            f"(openstack compute service set --disable --disable-reason maintenance {name} nova-compute).",
        )
    open_ = before.drain is not None and before.drain.ended_at is None
    if open_ and before.drain is not None and before.drain.removal >= removal:
        return 200, drain_with_eta(before.drain, before, asked)
    asked.web.request_drain(name, removal)
    after = _slice(asked, name)
    if after.drain is None:
        return 202, {"host": name, "drain_id": None}
    return 200 if open_ else 201, drain_with_eta(after.drain, after, asked)


# --- migrations ------------------------------------------------------------------------------------------------------


@operation(
    page("migrations", "Migration"),
    query=(
        AFTER,
        LIMIT,
        flag("open", "only migrations under way"),
        text("host", "only migrations from or to this host"),
        text("server_id", "only migrations of this server"),
    ),
)
def migrations(asked: Asked) -> dict[str, Any]:
    """GET /v1/migrations: under way, and ended (for a year); filters `open`, `host`, `server_id`."""
    after, open_only = asked["after"] or "", bool(asked["open"])
    name, server_id = asked["host"], asked["server_id"]
    reading = asked.web.store.reading
    return asked.page(
        "migrations",
        lambda limit: seen(
            asked, reading.migrations(after=after, limit=limit, open_only=open_only, server_id=server_id, host=name)
        ),
        lambda one: one.migration.key,
        partial(seen_shape, policy=asked.web.policy, now=asked.web.clock.now()),
    )


@operation(
    single("MigrationDetail", "The migration."),
    path=(text("migration_key", "the migration, by maintd's own name of it"),),
    errors=nothing_of_that_name("migration"),
)
def migration(asked: Asked, migration_key: str) -> dict[str, Any]:
    """GET /v1/migrations/{migration_key}: one migration, its curve, and what Nova itself will do about it."""
    found = asked.web.store.reading.migration(migration_key)
    if found is None:
        raise unknown(
            f"There is no migration {migration_key!r}; /v1/migrations lists those there are (by migration_key)."
        )
    return seen_whole(seen_alone(asked, found), asked.web.policy, asked.web.clock.now())


# --- residue ---------------------------------------------------------------------------------------------------------


@operation(
    page("residue", "Residue"),
    query=(text("host", "only what is on this host"), flag("cleared", "true: what was cleared, too")),
)
def residue(asked: Asked) -> dict[str, Any]:
    """GET /v1/residue: what may be left on dead hosts; `cleared=true` also what was cleared. Always one page."""
    rows = asked.web.store.reading.residue(asked["host"], cleared=None if asked["cleared"] else False)
    return {"residue": [residue_shape(row) for row in rows], "next": None}


@operation(
    {
        200: Answer(
            "It was cleared.",
            members(
                {
                    "host": {"type": "string"},
                    "cleared": {"type": "integer", "description": "how many leftovers"},
                    "servers": {"type": "array", "items": {"type": "string"}, "description": "of which servers"},
                    "history_accepted": {"type": "boolean"},
                }
            ),
        )
    },
    path=(_HOST,),
    body=(text("who", "who has seen to it"), text("server_id", "only what this server may have left")),
    errors={**_NO_HOST, 409: "The request is refused."},
)
def clear_residue(asked: Asked, host: str) -> dict[str, Any]:
    """POST /v1/residue/{host}/clear: an operator has seen to it that nothing is left on the host.

    With "server_id" that is said of one server only; a history that nobody saw is then not accepted. What is noted
    while this is asked is not cleared with it: the answer names all that was.
    """
    who, server_id = asked["who"], asked["server_id"]
    before = _slice(asked, host)
    open_before = [r for r in before.residue if r.cleared_at is None and server_id in (None, r.server_id)]
    accepted = before.host.history_unknown and server_id is None
    servers = frozenset(r.server_id for r in open_before)
    if servers or accepted:
        asked.web.clear_residue(host, who, servers, accepted)
    return {"host": host, "cleared": len(open_before), "servers": sorted(servers), "history_accepted": accepted}


# --- status ----------------------------------------------------------------------------------------------------------


@operation(single("Status", "How maintd and the closed hosts stand."))
def status(asked: Asked) -> dict[str, Any]:
    """GET /v1/status: who leads, what is heard and read, how much is known, and how the closed hosts stand."""
    web, now = asked.web, asked.web.clock.now()
    reading = web.store.reading
    closed = _all(lambda after, limit: reading.hosts(after=after, limit=limit, closed=True), lambda h: h.name)
    drains = _all(lambda after, limit: reading.drains(after=after, limit=limit, open_only=True), lambda d: d.drain_id)
    moving = _all(lambda after, limit: reading.migrations(after=after, limit=limit, open_only=True), lambda m: m.key)
    knowledge = reading.knowledge()
    buses = reading.buses()
    own = plain(dict(web.status()))
    stalled = {d.host: d.stalled_at for d in drains if d.stalled_at is not None}
    cloud = own.get("cloud") or {}
    leader = _leader(asked)
    shapes = [host_shape(one, buses, leader is not None) for one in closed]
    out = {
        "installation": web.installation,
        "version": maintd.__version__,
        "now": moment(now),
        "leader": leader,
        "memory_since": None if knowledge is None else moment(knowledge.memory_since),
        "baselined_at": None if knowledge is None else moment(knowledge.baselined_at),
        "buses": [bus_shape(bus) for bus in buses],
        "cloud": cloud,
        "lost_sight": _lost_sight(leader, cloud, buses),
        "last_sequence": web.store.last_sequence(),
        "counts": {
            "hosts_closed": len(closed),
            "hosts_empty": sum(shape["empty"] is True for shape in shapes),
            "drains_open": len(drains),
            "drains_stalled": len(stalled),
            "migrations_open": len(moving),
            "migrations_stalled": sum(m.stalled is not None for m in moving),
            "residue": len(reading.residue()),
            "quarantined": web.store.quarantine.counts(),
            "deliveries": _by_endpoint(web.store.deliveries.counts()),
        },
        "deliveries_oldest_pending_at": moment(web.store.deliveries.oldest_pending_at()),
        "hosts": [{**shape, "stalled_at": moment(stalled.get(shape["host"]))} for shape in shapes[:LIMIT_MAX]],
    }
    return {**own, **out}


def _leader(asked: Asked) -> dict[str, Any] | None:
    """Who holds the fleet lease and until when; None while nobody does."""
    holder = asked.web.store.leases.holder(asked.web.fleet_lease, asked.web.clock.now())
    if holder is None or not holder.holds:
        return None
    return {"owner": holder.owner, "expires_at": moment(holder.expires_at)}


def _all(fetch: Callable[[str, int], Sequence[T]], key: Callable[[T], str]) -> list[T]:
    rows: list[T] = []
    while len(rows) < _STATUS_ROWS_MAX:
        page = fetch(key(rows[-1]) if rows else "", LIMIT_MAX)
        rows += page
        if len(page) < LIMIT_MAX:
            break
    return rows


def _by_endpoint(counts: dict[tuple[str, str], int]) -> dict[str, dict[str, int]]:
    out: dict[str, dict[str, int]] = {}
    for (endpoint, state), count in counts.items():
        out.setdefault(endpoint, {})[state] = count
    return out


def _lost_sight(leader: object, cloud: dict[str, Any], buses: Sequence[Bus]) -> str | None:
    """Why maintd cannot at present say that a host is empty, as a sentence; None while it can."""
    if leader is None:
        return "No maintd holds the fleet lease: nobody watches."
    if cloud.get("configured") is False:
        return "No [cloud] is configured: without Nova's API emptiness cannot be proven."
    if cloud.get("ok") is False:
        error = cloud.get("last_error") or "no answer"
        return f"Nova's API does not answer (last answer: {cloud.get('last_success_at') or 'never'}): {error}"
    deaf = tuple(bus.name for bus in buses if bus.deaf_from is not None)
    return silence(buses, deaf) + "." if deaf and len(deaf) == len(buses) else None  # else the others go on
