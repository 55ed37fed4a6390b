"""The domain's values as JSON: which of their fields the API promises, and under which name.

`SHAPES` has every object of the answers, for the functions below and for docs/openapi.yaml. Not every field is shown:
those that only serve the reducer's bookkeeping stay inside, so that they can change. Names
are those of the events (`host`, `migration_key`); times are RFC 3339 texts in UTC, null where unknown; Nova's words
are kept as they came.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from maintd.domain.buses import unheard
from maintd.domain.events import instant_text, wire
from maintd.domain.model import Bus, Curve, Drain, Host, Migration, Pass, Point, Residue, Server, Stall
from maintd.domain.tenant_events import ServerState
from maintd.store import Attempt, Delivery, OwnDelivery, Subscription
from maintd.web.operations import Schema, ref

_INSTANTS: Final = frozenset(
    "since stalled_since down_since memory_since flat_since blind_from deaf_from copying_from at".split()
)


@dataclass(frozen=True, slots=True)
class Shape:
    """An object of an answer: these `fields` of a `kind`, and members that are made for the answer, by their schema.

    A member of `optional` is not always there; all others are. `base` names a shape whose members are there too.
    """

    about: str
    kind: type | None = None
    fields: Sequence[str] = ()
    more: Mapping[str, Schema] = field(default_factory=dict)
    optional: Sequence[str] = ()
    base: str | None = None


TEXT: Final[Schema] = {"type": "string"}
TEXT_OR_NULL: Final[Schema] = {"type": ["string", "null"]}
TIME_OR_NULL: Final[Schema] = {"type": ["string", "null"], "format": "date-time"}
WHOLE: Final[Schema] = {"type": "integer"}
WHOLE_OR_NULL: Final[Schema] = {"type": ["integer", "null"]}
NUMBER: Final[Schema] = {"type": "number"}
NUMBER_OR_NULL: Final[Schema] = {"type": ["number", "null"]}
TRUTH: Final[Schema] = {"type": "boolean"}
TRUTH_OR_NULL: Final[Schema] = {"type": ["boolean", "null"]}


def rows(shape: str) -> Schema:
    return {"type": "array", "items": ref(shape)}


def perhaps(shape: str) -> Schema:
    return {"anyOf": [ref(shape), {"type": "null"}]}


def counted(values: Schema) -> Schema:
    """An object whose members have names that come with the data."""
    return {"type": "object", "additionalProperties": values}


_HOST: Final = (
    "service_uuid disabled disabled_reason forced_down up down_since closed closed_at found history_unknown"
    " emptied_at drain_id heard_on seen_at"
).split()
_SERVER: Final = (
    "server_id project_id name host landing vm_state task_state since fault failed_at hindrance updated_at seen_at"
).split()
_MIGRATION: Final = (
    "migration_id migration_uuid server_id kind phase status source destination begun_at moved_at updated_at ended_at"
    " stalled stalled_since aborted post_copy percent progress sampled_at request_id fault"
).split()
_DRAIN: Final = (
    "drain_id host started_at reason forced_down found requested servers_total moved_at stalled_at ended_at outcome"
    " removed removal"
).split()
_RESIDUE: Final = (
    "host server_id project_id kind since service_uuid migration_uuid detail cleared_at cleared_by"
).split()
_CURVE: Final = (
    "unit total disk_total began_at changed_at looks bandwidth disk_bandwidth copying_from"
    " first_pass_ended_at flat_since"
).split()
_POINT: Final = "at remaining disk_remaining processed".split()
_PASS: Final = "began_at size count clear".split()
_STALL: Final = (
    "migration_key server_id kind reason since said_at source destination published resumed_at ended_at outcome"
    " blocked_by"
).split()
_BUS: Final = "connected blind_from deaf_from reconnected_at last_message_at".split()
_DELIVERY: Final = "event_id event_type subject state attempts created_at due_at first_failed_at".split()
_SUBSCRIPTION: Final = (
    "id project_id name event_types servers metadata_key state reason created_at updated_at verified_at verify_due_at"
    " disabled_at probe_at"
).split()

_WHY: Final[Mapping[str, Schema]] = {
    "summary": TEXT_OR_NULL,
    "blockers": rows("Blocker"),
    "migrations": rows("Migration"),
}

SHAPES: Final[Mapping[str, Shape]] = {
    "Host": Shape(
        "A host. `empty` is null while it is open (nobody asks then) and while nobody can know; `checked_at` is the "
        "last verification pass.",
        Host,
        _HOST,
        {"host": TEXT, "empty": TRUTH_OR_NULL, "checked_at": TIME_OR_NULL},
    ),
    "HostDetail": Shape(
        "A host, why it is not empty, and all that was last known to be on it.",
        more={
            **_WHY,
            "warnings": rows("Note"),
            "proof": rows("ProofRead"),
            "residue": rows("Residue"),
            "servers": rows("Server"),
            "drain": perhaps("Drain"),
        },
        base="Host",
    ),
    "Server": Shape("A server, as it was last known.", Server, _SERVER),
    "Eta": Shape(
        "An estimate: the middle, and the band that holds nine times in ten.",
        more={"seconds": NUMBER, "low_seconds": NUMBER, "high_seconds": NUMBER},
    ),
    "Migration": Shape(
        "A migration. `eta` is null where it is not known, `stalls` are those that stand.",
        Migration,
        _MIGRATION,
        {"migration_key": TEXT, "eta": perhaps("Eta"), "stalls": rows("Stall")},
    ),
    "MigrationDetail": Shape(
        "A migration, what is kept of the looks at it, and what Nova itself will do about it.",
        more={"curve": perhaps("Curve"), "nova": perhaps("Foreseen")},
        base="Migration",
    ),
    "Curve": Shape(
        "What is kept of the looks at a live migration; sizes are in its `unit`, bandwidths in that per second. "
        "`passes` are those after the first, which sends all of memory.",
        Curve,
        _CURVE,
        {"points": rows("Point"), "passes": rows("Pass")},
    ),
    "Point": Shape("One look.", Point, _POINT),
    "Pass": Shape("One pass over memory.", Pass, _PASS),
    "Foreseen": Shape(
        "What Nova's own timers do to a live migration, by its configuration.",
        more={"gib": NUMBER, "downtime": rows("Downtime"), "timeout": perhaps("Timeout")},
    ),
    "Downtime": Shape(
        "From when Nova permits which downtime, and the greatest last pass that this lets through.",
        more={"at": TIME_OR_NULL, "downtime_seconds": NUMBER, "permits": NUMBER_OR_NULL},
    ),
    "Timeout": Shape("When Nova ends it, and how.", more={"at": TIME_OR_NULL, "action": TEXT}),
    "Stall": Shape(
        "A stall; `published` false where it was only noted.",
        Stall,
        _STALL,
        {"stall_id": TEXT, "evidence": {"type": ["object", "null"], "additionalProperties": True}},
    ),
    "Drain": Shape(
        "A drain. `eta` is when the moves that were asked for will be done, `eta_unknown` why that is not known, "
        "`not_asked` how many servers nobody has asked to move.",
        Drain,
        _DRAIN,
        {"eta": perhaps("Eta"), "eta_unknown": TEXT_OR_NULL, "not_asked": WHOLE_OR_NULL},
    ),
    "DrainDetail": Shape(
        "A drain; while it is not over, with its host as it is.",
        more={"servers_remaining": WHOLE, "empty": TRUTH_OR_NULL, **_WHY},
        optional=("servers_remaining", "empty", *_WHY),
        base="Drain",
    ),
    "Residue": Shape("What a server may have left on a dead host.", Residue, _RESIDUE),
    "Delivery": Shape(
        "One event for one endpoint. A project's has an id of its own, and `subscription_id` in place of `endpoint`. "
        "In lists it has the last attempt at it.",
        Delivery,
        _DELIVERY,
        {
            "id": {"type": ["integer", "string"]},
            "endpoint": TEXT,
            "subscription_id": TEXT,
            "sequence": TEXT,
            "last_try": perhaps("Attempt"),
        },
        ("endpoint", "subscription_id", "last_try"),
    ),
    "DeliveryDetail": Shape("A delivery with every attempt at it.", more={"tries": rows("Attempt")}, base="Delivery"),
    "Attempt": Shape(
        "One attempt. `status` is the HTTP status, where one was read.",
        more={
            "at": TIME_OR_NULL,
            "duration_seconds": NUMBER,
            "status": WHOLE_OR_NULL,
            "outcome": TEXT,
            "detail": TEXT_OR_NULL,
        },
    ),
    "Subscription": Shape(
        "Who wants to be told what, and where. Of a project's `url` an operator sees only the host; a secret is in the "
        "answers to its creation and rotation, and nowhere else.",
        Subscription,
        _SUBSCRIPTION,
        {"scope": TEXT, "url": TEXT, "failing_since": TIME_OR_NULL, "previous_secret_until": TIME_OR_NULL},
    ),
    "SubscriptionWithSecret": Shape("A subscription and its new secret.", more={"secret": TEXT}, base="Subscription"),
    "SubscriptionTried": Shape(
        "A subscription, and what came of its verification.", more={"attempt": ref("Attempt")}, base="Subscription"
    ),
    "ServerState": Shape(
        "All that touches a server now; null where nothing of the kind does. Of two states the one with the higher "
        "`incarnation` is true.",
        ServerState,
        ("server_id", "incarnation"),
        {
            "maintenance": perhaps("Maintenance"),
            "move": perhaps("Move"),
            "host_lost": perhaps("HostLost"),
            "metadata_keys": {"type": "array", "items": TEXT},
        },
    ),
    "Maintenance": Shape(
        "The server's host is being emptied; `removal`: for good.", more={"since": TIME_OR_NULL, "removal": TRUTH}
    ),
    "Move": Shape(
        "The server is being moved.",
        more={"since": TIME_OR_NULL, "kind": TEXT, "asked_for_by": TEXT, "stalled": TEXT_OR_NULL},
    ),
    "HostLost": Shape(
        "Nobody has control of the server's host.",
        more={"since": TIME_OR_NULL, "forced_down": TRUTH, "widespread": TRUTH},
    ),
    "Bus": Shape("A bus.", Bus, _BUS, {"bus": TEXT}),
    "Status": Shape(
        "How maintd stands. `lost_sight` is why it cannot say that a host is empty; null while it can.",
        more={
            "installation": TEXT,
            "version": TEXT,
            "now": TIME_OR_NULL,
            "leader": perhaps("Leader"),
            "leading": TRUTH,
            "leading_since_at": TIME_OR_NULL,
            "memory_since": TIME_OR_NULL,
            "baselined_at": TIME_OR_NULL,
            "buses": rows("Bus"),
            "bus_states": counted(TEXT),
            "cloud": ref("Cloud"),
            "lost_sight": TEXT_OR_NULL,
            "last_sequence": WHOLE,
            "counts": ref("Counts"),
            "deliveries_oldest_pending_at": TIME_OR_NULL,
            "hosts": rows("ClosedHost"),
        },
        optional=("leading", "leading_since_at", "bus_states"),
    ),
    "Leader": Shape("Who holds the fleet lease, and until when.", more={"owner": TEXT, "expires_at": TIME_OR_NULL}),
    "Cloud": Shape(
        "How the cloud's API answers.",
        more={"configured": TRUTH, "ok": TRUTH_OR_NULL, "last_success_at": TIME_OR_NULL, "last_error": TEXT_OR_NULL},
        optional=("configured", "ok", "last_success_at", "last_error"),
    ),
    "Counts": Shape(
        "How many there are.",
        more={
            **dict.fromkeys(
                (
                    "hosts_closed",
                    "hosts_empty",
                    "drains_open",
                    "drains_stalled",
                    "migrations_open",
                    "migrations_stalled",
                    "residue",
                ),
                WHOLE,
            ),
            "quarantined": counted(WHOLE),
            "deliveries": counted(counted(WHOLE)),
        },
    ),
    "ClosedHost": Shape(
        "A closed host, and since when its drain is stalled.", more={"stalled_at": TIME_OR_NULL}, base="Host"
    ),
    "Event": Shape(
        "A CloudEvent, as it was delivered; schemas/ has the `data` of each type.",
        more={
            "specversion": {"const": "1.0"},
            "id": TEXT,
            "source": TEXT,
            "type": TEXT,
            "subject": TEXT,
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "sequence": {"type": "string", "pattern": "^[0-9]{20}$"},
            "data": {"type": "object", "additionalProperties": True},
        },
    ),
    "Events": Shape(
        "Events in order. `next` is the cursor to go on from, and never null: the log has no end.",
        more={"events": rows("Event"), "next": {"type": "string", "pattern": "^[0-9]{20}$"}},
    ),
    "Error": Shape(
        "Why a request is not answered: a sentence, fit to be shown.", more={"title": TEXT, "description": TEXT}
    ),
}
"""Every object that an answer can have, by the name that docs/openapi.yaml gives it. Blocker, Note and ProofRead are
as in events, and drawn from there."""


def is_instant(name: str) -> bool:
    """Whether a field of this name is a moment."""
    return name.endswith("_at") or name in _INSTANTS


def moment(at: float | None) -> str | None:
    """A moment as text; None and the core's 0.0 ("never yet") are null."""
    return None if not at else instant_text(at)


def pick(value: Any, names: Iterable[str]) -> dict[str, Any]:
    """Some fields of a value, ready for JSON."""
    return {name: moment(getattr(value, name)) if is_instant(name) else wire(getattr(value, name)) for name in names}


def plain(value: Any) -> Any:
    """Nested mappings ready for JSON: numbers under the name of a moment become texts."""
    if isinstance(value, dict):
        return {
            key: moment(item) if is_instant(key) and isinstance(item, (int, float)) else plain(item)
            for key, item in value.items()
        }
    if dataclasses.is_dataclass(value):
        return wire(value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def host_shape(host: Host, buses: Iterable[Bus], watched: bool) -> dict[str, Any]:
    """A host. `empty` is null while it is open (nobody asks then), and while a bus that speaks for it is not heard or
    no maintd watches (nobody knows then). `checked_at` is the last verification pass."""
    return {
        "host": host.name,
        "empty": host.emptied if host.closed and watched and not unheard(host, buses) else None,
        "checked_at": None if host.finding is None else moment(host.finding.at),
        **pick(host, _HOST),
    }


def server_shape(server: Server) -> dict[str, Any]:
    return pick(server, _SERVER)


def migration_shape(migration: Migration) -> dict[str, Any]:
    return {"migration_key": migration.key, **pick(migration, _MIGRATION)}


def curve_shape(curve: Curve) -> dict[str, Any]:
    """What is kept of the looks at a live migration; sizes are in its `unit`, bandwidths in that per second.

    `passes` are those after the first, which sends all of memory, from `copying_from` on.
    """
    shape = pick(curve, _CURVE)
    shape["points"] = [pick(point, _POINT) for point in curve.points]
    shape["passes"] = [pick(one, _PASS) for one in curve.passes]
    return shape


def stall_shape(stall: Stall) -> dict[str, Any]:
    """A stall; `published` false where it was only noted (shadow mode)."""
    return {"stall_id": stall.key, **pick(stall, _STALL), "evidence": plain(stall.evidence)}


def drain_shape(drain: Drain) -> dict[str, Any]:
    return pick(drain, _DRAIN)


def residue_shape(residue: Residue) -> dict[str, Any]:
    return pick(residue, _RESIDUE)


def bus_shape(bus: Bus) -> dict[str, Any]:
    return {"bus": bus.name, **pick(bus, _BUS)}


def delivery_shape(delivery: Delivery) -> dict[str, Any]:
    return {**pick(delivery, ("id", "endpoint", *_DELIVERY)), "sequence": f"{delivery.sequence:020d}"}


def own_delivery_shape(delivery: OwnDelivery) -> dict[str, Any]:
    return {**pick(delivery, ("id", "subscription_id", *_DELIVERY)), "sequence": f"{delivery.sequence:020d}"}


def subscription_fields(one: Subscription) -> dict[str, Any]:
    """A subscription as far as anybody may see it who may see it at all."""
    return pick(one, _SUBSCRIPTION)


def attempt_shape(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": moment(attempt.at),
        "duration_seconds": round(attempt.duration_s, 6),
        "status": attempt.status,
        "outcome": attempt.outcome,
        "detail": attempt.detail,
    }
