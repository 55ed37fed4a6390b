"""From a notification to what was seen: one pure function per event type, found in `NORMALISERS`.

`normalise` asks nobody and changes nothing. A type that nobody knows gives no observation (Nova adds types); a type
that we know, with a payload that is not what Nova documents, raises `Unreadable`, and the message belongs in
quarantine. What an observation *means* is the reducer's affair; here it is only said who spoke, of which host, and
whether Nova's own copy of host and state could be believed.

The unversioned stream (`compute.instance.update`, published by `compute.h1`) is recognised and gives nothing: an
operator must learn that Nova is set to send it instead of the versioned one.
"""

from __future__ import annotations

from maintd.domain.observations import Observation
from maintd.nova.notifications import (
    cold_migration,
    compute_task,
    evacuation,
    hints,
    live_migration,
    server,
    service,
)
from maintd.nova.notifications.envelope import Notification, Unreadable, read_message, read_wire
from maintd.nova.notifications.payload import Normaliser

__all__ = [
    "IGNORED",
    "KNOWN_EVENT_TYPES",
    "NORMALISERS",
    "Notification",
    "Unreadable",
    "event_type_label",
    "is_unversioned",
    "normalise",
    "read_message",
    "read_wire",
    "speaking_compute",
]

NORMALISERS: dict[str, Normaliser] = {
    **live_migration.NORMALISERS,
    **cold_migration.NORMALISERS,
    **evacuation.NORMALISERS,
    **server.NORMALISERS,
    **service.NORMALISERS,
    **compute_task.NORMALISERS,
    **hints.NORMALISERS,
}
"""Every event type that can tell something of a host, a server or a migration."""

_PHASES = ("start", "end")

IGNORED: frozenset[str] = frozenset(
    {
        # It has the hosts that are out of the question, and not the one that was chosen.
        *(f"scheduler.select_destinations.{phase}" for phase in _PHASES),
        # Membership in aggregates and zones moves no server.
        *(
            f"aggregate.{action}.{phase}"
            for action in ("add_host", "create", "delete", "remove_host", "update_metadata", "update_prop")
            for phase in _PHASES
        ),
        *(f"aggregate.cache_images.{phase}" for phase in (*_PHASES, "progress")),
        # Things that are no servers.
        *(f"keypair.{action}.{phase}" for action in ("create", "delete", "import") for phase in _PHASES),
        *(f"flavor.{action}" for action in ("create", "delete", "update")),
        *(f"server_group.{action}" for action in ("add_member", "create", "delete")),
        "metrics.update",
        "volume.usage",
    }
)
"""Event types that Nova documents and that tell us nothing."""

KNOWN_EVENT_TYPES: frozenset[str] = frozenset(NORMALISERS) | IGNORED
"""The closed set of values of the metric label `event_type`; anything else is `other`."""


def event_type_label(event_type: str) -> str:
    """The value of the metric label `event_type`."""
    return event_type if event_type in KNOWN_EVENT_TYPES else "other"


def is_unversioned(notification: Notification) -> bool:
    """Whether this is of Nova's legacy stream: a bare payload, from a publisher written with a dot (`compute.h1`)."""
    payload = notification.payload
    if isinstance(payload, dict) and ("nova_object.data" in payload or "nova_object.name" in payload):
        return False
    return ":" not in notification.publisher_id


_ON_BEHALF = ("service.", "instance.update", "instance.exists")
"""Event types whose publisher need not be the process that it names (facts 1.1)."""


def speaking_compute(notification: Notification) -> str | None:
    """The host whose nova-compute itself sent this; None where another process did, or may have."""
    service, _, host = notification.publisher_id.partition(":")
    if service != "nova-compute" or not host or notification.event_type.startswith(_ON_BEHALF):
        return None
    return host


def normalise(notification: Notification) -> tuple[Observation, ...]:
    """What was seen in a notification; nothing for types that are ignored or unknown and for the unversioned stream.

    Raises `Unreadable`, with a sentence, for a payload that is not what Nova documents for its event type.
    """
    normaliser = NORMALISERS.get(notification.event_type)
    if normaliser is None or is_unversioned(notification):
        return ()
    return normaliser(notification)
