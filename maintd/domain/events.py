"""The catalogue of events: one frozen class per type that maintd publishes, and the CloudEvent each becomes.

The docs and the JSON Schemas are drawn from these classes, so what stands here is what goes out. A type is a promise: a
field may be added, never changed or removed. Times inside an event are floats in the code and RFC 3339 texts on the
wire; durations end in `_seconds` on the wire. Events know nothing of who will hear them, and no tenant hears these.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, ClassVar, NewType

from maintd.domain.model import Because, Blocker, Note, ProofRead

Instant = NewType("Instant", float)
"""Seconds since the epoch in the code, an RFC 3339 text in UTC on the wire."""


@dataclass(frozen=True, slots=True)
class Eta:
    """When something will be done, with a 90 % band."""

    seconds: float
    low_seconds: float
    high_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have. `TYPE` is the middle of the type on the wire: maintd.<TYPE>.v1."""

    TYPE: ClassVar[str]
    SUBJECT: ClassVar[str] = "host"
    because: Because

    @property
    def subject(self) -> str:
        return str(getattr(self, self.SUBJECT) or "")


@dataclass(frozen=True, slots=True, kw_only=True)
class _ServiceEvent(Event):
    host: str
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDisabled(_ServiceEvent):
    """A compute service was disabled: the scheduler places nothing on its host any more."""

    TYPE = "service.disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnabled(_ServiceEvent):
    """A compute service was enabled again."""

    TYPE = "service.enabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceForcedDown(_ServiceEvent):
    """Somebody told Nova that a host is dead."""

    TYPE = "service.forced_down"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceForceDownLifted(_ServiceEvent):
    """A host that had been forced down is no longer."""

    TYPE = "service.force_down_lifted"


@dataclass(frozen=True, slots=True, kw_only=True)
class _HeartbeatEvent(Event):
    host: str
    since: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLost(_HeartbeatEvent):
    """Nova no longer hears a compute service's heartbeat, and that has lasted. `planned`: it had been closed before."""

    TYPE = "service.lost"
    planned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesLost(Event):
    """Many compute services were lost at once: one event for all of them, in place of one for each."""

    TYPE = "services.lost"
    SUBJECT = "binary"
    binary: str = "nova-compute"
    hosts: tuple[str, ...]
    since: Instant | None = None
    planned: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceRecovered(_HeartbeatEvent):
    """The heartbeat of a compute service is back."""

    TYPE = "service.recovered"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCreated(_HeartbeatEvent):
    """A compute service registered for the first time."""

    TYPE = "service.created"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceDeleted(_HeartbeatEvent):
    """A compute service was deleted from Nova."""

    TYPE = "service.deleted"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStarted(Event):
    """A closed host began to be emptied. `servers_total` is null while the API has not told how many are there;
    `removal`: an operator said that the host goes for good.
    """

    TYPE = "drain.started"
    drain_id: str
    host: str
    reason: str | None = None
    forced_down: bool
    found: bool
    servers_total: int | None = None
    removal: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrainPaceEvent(Event):
    drain_id: str
    host: str
    servers_remaining: int
    blockers: tuple[Blocker, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainStalled(_DrainPaceEvent):
    """Nothing has left the host, and no migration away from it moved, for the configured time."""

    TYPE = "drain.stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainResumed(_DrainPaceEvent):
    """A stalled drain moves again."""

    TYPE = "drain.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _DrainOverEvent(Event):
    drain_id: str
    host: str
    duration_seconds: float
    removed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainEnded(_DrainOverEvent):
    """The host was empty, and is open again (or its service was removed)."""

    TYPE = "drain.ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainCancelled(_DrainOverEvent):
    """The host was opened (or removed) before it was empty."""

    TYPE = "drain.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEmptied(Event):
    """The host is proven empty of Nova servers: two verification passes agreed, and nothing was seen of it between
    them.

    Daemons outside Nova (storage, network) and stray processes are out of `scope`. `memory_since` says how long maintd
    has been remembering what Nova forgets.
    """

    TYPE = "host.emptied"
    drain_id: str | None = None
    host: str
    scope: str = "nova"
    proof: tuple[ProofRead, ...] = ()
    memory_since: Instant | None = None
    warnings: tuple[Note, ...] = ()
    residue: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _HostEvent(Event):
    drain_id: str | None = None
    host: str
    occupants: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostOccupied(_HostEvent):
    """Something arrived on, or is on its way to, a host that had been emptied and is still closed."""

    TYPE = "host.occupied"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReopened(_HostEvent):
    """A host that had been emptied was opened: it may be filled at any moment."""

    TYPE = "host.reopened"


@dataclass(frozen=True, slots=True, kw_only=True)
class _MigrationEvent(Event):
    SUBJECT = "source"
    migration_key: str
    migration_id: int | None = None
    migration_uuid: str | None = None
    server_id: str
    kind: str
    source: str | None = None
    destination: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStarted(_MigrationEvent):
    """A move began, its source and destination known; without a destination only when it ends or stalls first."""

    TYPE = "migration.started"


@dataclass(frozen=True, slots=True, kw_only=True)
class _StallEvent(_MigrationEvent):
    reason: str
    since: Instant | None = None
    evidence: dict[str, Any] | None = None
    eta: Eta | None = None
    blocked_by: str | None = None
    advice: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationStalled(_StallEvent):
    """A move makes no progress; `reason` and `evidence` say how that was judged, `advice` is only advice."""

    TYPE = "migration.stalled"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationResumed(_StallEvent):
    """What had stalled moves again."""

    TYPE = "migration.resumed"


@dataclass(frozen=True, slots=True, kw_only=True)
class _MigrationEndEvent(_MigrationEvent):
    status: str | None = None
    duration_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCompleted(_MigrationEndEvent):
    """The move is over, and the server is on its destination."""

    TYPE = "migration.completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationFailed(_MigrationEndEvent):
    """The move did not work."""

    TYPE = "migration.failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationCancelled(_MigrationEndEvent):
    """Somebody aborted the move, or took it back (`status` reverted)."""

    TYPE = "migration.cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationAwaitingConfirmation(_MigrationEndEvent):
    """The server is on its destination, and the source keeps its disks until somebody confirms or reverts."""

    TYPE = "migration.awaiting_confirmation"


@dataclass(frozen=True, slots=True, kw_only=True)
class _BusEvent(Event):
    SUBJECT = "bus"
    bus: str
    blind_from: Instant | None = None
    blind_to: Instant | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BusBlinded(_BusEvent):
    """maintd may have missed notifications of this bus since `blind_from`."""

    TYPE = "bus.blinded"


@dataclass(frozen=True, slots=True, kw_only=True)
class BusHealed(_BusEvent):
    """What may have been missed was read from the API; without [cloud], only: the bus is heard again."""

    TYPE = "bus.healed"


@dataclass(frozen=True, slots=True, kw_only=True)
class SubscriptionDisabled(Event):
    """An endpoint is sent nothing any more: it has failed for long without a break (`failing`), or answered 410
    (`gone`). `subscription_id` is the name of the webhook where it is a configured one."""

    TYPE = "subscription.disabled"
    SUBJECT = "subscription_id"
    subscription_id: str
    reason: str
    failing_since: Instant | None = None


def _catalogue(base: type[Event]) -> list[type[Event]]:
    found = [base] if "TYPE" in base.__dict__ else []
    for child in base.__subclasses__():
        found += _catalogue(child)
    return found


CATALOGUE: dict[str, type[Event]] = {c.TYPE: c for c in _catalogue(Event) if not c.__name__.startswith("_")}
"""Every event type, by the middle of its name on the wire."""


def instant_text(at: float) -> str:
    """RFC 3339 in UTC with microseconds, as everywhere on our wire."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


_WIRE_NAMES = {"pass_": "pass"}
_INSTANTS = frozenset({"since", "at", "memory_since", "blind_from", "blind_to", "seen_at", "failing_since"})


def wire(value: Any) -> Any:
    """A value of an event, as it stands in JSON."""
    if is_dataclass(value) and not isinstance(value, type):
        out = {}
        for f in fields(value):
            item = getattr(value, f.name)
            if f.name in _INSTANTS and isinstance(item, (int, float)):
                out[f.name] = instant_text(item)
            else:
                out[_WIRE_NAMES.get(f.name, f.name)] = wire(item)
        return out
    if isinstance(value, (tuple, list)):
        return [wire(item) for item in value]
    if isinstance(value, dict):
        return {key: wire(item) for key, item in value.items()}
    if isinstance(value, float):
        return round(value, 6)
    return value


_ENCODE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


@dataclass(frozen=True, slots=True)
class CloudEvent:
    """One event as it is published: CloudEvents 1.0, structured. `time` is when maintd decided; `sequence` increases
    per subject (in fact over all events of an installation, which implies it).

    A tenant event belongs to a project, is shown under its number among this project's (`incarnation`) in place of
    `sequence`, and to nobody before `visible_at`.
    """

    id: str
    type: str
    source: str
    subject: str
    time: float
    sequence: int
    data: dict[str, Any]
    project_id: str | None = None
    incarnation: int | None = None
    visible_at: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return {
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.type,
            "subject": self.subject,
            "time": instant_text(self.time),
            "datacontenttype": "application/json",
            "sequence": f"{self.sequence if self.incarnation is None else self.incarnation:020d}",
            "data": self.data,
        }

    def as_json(self) -> str:
        return _ENCODE(self.as_dict())


def publish(event: Event, *, id: str, installation: str, time: float, sequence: int) -> CloudEvent:
    """The CloudEvent of an event."""
    return CloudEvent(
        id=id,
        type=f"maintd.{event.TYPE}.v1",
        source=f"/maintd/{installation}",
        subject=event.subject,
        time=time,
        sequence=sequence,
        data=wire(event),
    )
