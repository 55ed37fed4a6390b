"""The catalogue of tenant events: what the owner of a server is told, and all of it.

These are other data under another rule than `events.py`: built from an allow-list, which is these classes. No host, no
source or destination, no drain or migration, no text of Nova's, no request id, and nothing that another project's event
about the same cause would share. What maintd knows beside that stays with the operators.

Each event carries the whole present state of its server, so that whoever has the newest (the highest `incarnation`)
has missed nothing that matters, however many were lost. `change` says what happened, in a word of a closed set; the
times are whole seconds, of when the owner could first be told.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor
from typing import ClassVar

from maintd.domain.events import CloudEvent, Instant, wire
from maintd.domain.model import Notice


@dataclass(frozen=True, slots=True, kw_only=True)
class Maintenance:
    """The server's host is being emptied; `removal`: it goes for good, so that the server cannot come back to it."""

    since: Instant
    removal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The server is being moved. `kind` is Nova's; `asked_for_by` is owner, operator or unknown; `stalled` says how it
    stands still, where that matters to the guest."""

    since: Instant
    kind: str
    asked_for_by: str
    stalled: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLost:
    """Nobody has control of the server's host: whether the server runs is not known. `forced_down`: an operator has
    told Nova that the host is dead. `widespread`: when it was lost, so were many hosts at about the same time; it is
    more likely that the cloud has lost sight of them than that they died, and that the server runs on. It stays true
    until the host is back or forced down."""

    since: Instant
    forced_down: bool
    widespread: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerState:
    """All that touches a server now; null where nothing of the kind does."""

    server_id: str
    incarnation: int
    maintenance: Maintenance | None = None
    move: Move | None = None
    host_lost: HostLost | None = None
    metadata_keys: tuple[str, ...] = ()


def state_of(notice: Notice) -> ServerState:
    """What of a notice its owner sees."""
    n = notice
    lost_since, since, moved_since = n.lost_since, n.maintenance_since, n.move_since
    return ServerState(
        server_id=n.server_id,
        incarnation=n.incarnation,
        maintenance=None if since is None else Maintenance(since=Instant(since), removal=n.removal),
        move=None
        if n.move_kind is None or moved_since is None
        else Move(since=Instant(moved_since), kind=n.move_kind, asked_for_by=n.asked_for_by, stalled=n.stalled),
        host_lost=None
        if lost_since is None
        else HostLost(since=Instant(lost_since), forced_down=n.forced_down, widespread=n.widespread),
        metadata_keys=n.metadata_keys,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantData:
    """The `data` of every tenant event. `incarnation` is the event's number among all that its project was told."""

    server_id: str
    change: str
    incarnation: int
    state: ServerState


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantEvent:
    """What all have. `TYPE` is the middle of the type on the wire, `CHANGES` what `change` may say."""

    TYPE: ClassVar[str]
    CHANGES: ClassVar[dict[str, str]]
    notice: Notice
    change: str
    visible_at: float

    @property
    def data(self) -> TenantData:
        notice = self.notice
        return TenantData(
            server_id=notice.server_id,
            change=self.change,
            incarnation=notice.incarnation,
            state=state_of(notice),
        )


class MaintenanceStarted(TenantEvent):
    """The server's host began to be emptied: the server will be moved, or has to be."""

    TYPE = "server.maintenance_started"
    CHANGES = {"started": "it began", "removal": "it goes on, and the host is now said to go for good"}


class MaintenanceEnded(TenantEvent):
    """What had begun is over for this server."""

    TYPE = "server.maintenance_ended"
    CHANGES = {
        "left": "the server is elsewhere now",
        "over": "the host is in service again, or no longer being emptied",
        "deleted": "the server is deleted",
    }


class Moving(TenantEvent):
    """The server is being moved, or is resized where it is; `state.move.asked_for_by` tells apart what its owner asked
    for."""

    TYPE = "server.moving"
    CHANGES = {"started": "the move began", "resumed": "a move that had stalled goes on"}


class Moved(TenantEvent):
    """The move is over, and the server is where it was to go."""

    TYPE = "server.moved"
    CHANGES = {
        "completed": "for good",
        "awaiting_confirmation": "until it is confirmed or reverted, what it needs is kept where it came from",
    }


class MoveFailed(TenantEvent):
    """The move is over, and the server is not where it was to go."""

    TYPE = "server.move_failed"
    CHANGES = {
        "failed": "it did not work",
        "cancelled": "somebody gave it up, or the server was deleted",
        "reverted": "somebody took it back",
        "unknown": "nobody says how it ended",
    }


class MoveStalled(TenantEvent):
    """The move stands still in a way that the guest may feel."""

    TYPE = "server.move_stalled"
    CHANGES = {
        "no_progress": "nothing is copied any more",
        "busy_guest": "the guest changes its memory faster than that can be copied: less load would end the move",
        "slow": "it takes much longer than such a move should",
        "interrupted": "what was moving it is gone; the server may stay as it is until an operator acts",
    }


class ServerHostLost(TenantEvent):
    """Nobody has control of the server's host. The guest's state is unknown: it may still run, and write."""

    TYPE = "server.host_lost"
    CHANGES = {"lost": "its heartbeat is not heard", "forced_down": "an operator has told Nova that the host is dead"}


class ServerHostRecovered(TenantEvent):
    """What was said by `host_lost` holds no longer."""

    TYPE = "server.host_recovered"
    CHANGES = {
        "recovered": "the host is under control again",
        "left": "the server is elsewhere now",
        "deleted": "the server is deleted",
    }


TENANT_CATALOGUE: dict[str, type[TenantEvent]] = {
    kind.TYPE: kind
    for kind in (
        MaintenanceStarted,
        MaintenanceEnded,
        Moving,
        Moved,
        MoveFailed,
        MoveStalled,
        ServerHostLost,
        ServerHostRecovered,
    )
}
"""Every tenant event's type, by the middle of its name on the wire."""


def publish_to_tenant(event: TenantEvent, *, id: str, installation: str, sequence: int) -> CloudEvent:
    """The CloudEvent of a tenant event; `sequence` is its place in the installation's log, and never shown."""
    notice = event.notice
    return CloudEvent(
        id=id,
        type=f"maintd.{event.TYPE}.v1",
        source=f"/maintd/{installation}",
        subject=notice.server_id,
        time=float(floor(event.visible_at)),
        sequence=sequence,
        data=wire(event.data),
        project_id=notice.project_id,
        incarnation=notice.incarnation,
        visible_at=event.visible_at,
    )
