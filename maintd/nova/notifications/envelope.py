"""What every versioned notification of Nova has in common, before anybody asks what it means.

`Notification` is the one name that a message has between the bus (or a recording) and the normalisers. This module
only reads envelopes: version 2.0 (driver `messagingv2`, the message as a JSON string inside JSON) and version 1
(driver `messaging`, the inner object bare). It does not judge payloads and knows no event type.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any


class Unreadable(ValueError):
    """A message that is no notification; the text says why, and the message belongs in quarantine."""


@dataclass(frozen=True, slots=True)
class Notification:
    """One message of the bus, its payload not yet looked at.

    `timestamp` is the emitter's clock, `received_at` ours; both in seconds since the epoch. `payload` is the wire's
    `payload` object as parsed (for versioned notifications the dict with the `nova_object.*` keys).
    """

    message_id: str
    event_type: str
    publisher_id: str
    timestamp: float
    payload: Any
    request_id: str | None
    received_at: float
    bus: str = "default"
    priority: str = "INFO"


def read_time(text: str) -> float:
    """Seconds since the epoch of Nova's time texts: naive UTC with a space (envelope) or ISO with Z (payload)."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC).timestamp() if moment.tzinfo is None else moment.timestamp()


def read_message(message: Any, *, received_at: float, bus: str = "default") -> Notification:
    """The notification in an inner message object. Raises `Unreadable` saying what is missing."""
    if not isinstance(message, dict):
        raise Unreadable("the message is not an object")
    try:
        message_id, event_type = message["message_id"], message["event_type"]
        publisher_id, payload = message["publisher_id"], message["payload"]
    except KeyError as missing:
        raise Unreadable(f"the message has no {missing.args[0]}") from None
    if not (isinstance(message_id, str) and isinstance(event_type, str) and isinstance(publisher_id, str)):
        raise Unreadable("message_id, event_type and publisher_id must be texts")
    try:
        timestamp = read_time(message["timestamp"])
    except (KeyError, ValueError, TypeError):
        timestamp = received_at
    return Notification(
        message_id=message_id,
        event_type=event_type,
        publisher_id=publisher_id,
        timestamp=timestamp,
        payload=payload,
        request_id=message.get("_context_request_id"),
        received_at=received_at,
        bus=bus,
        priority=str(message.get("priority", "INFO")),
    )


def read_wire(body: str | bytes, *, received_at: float, bus: str = "default") -> Notification:
    """The notification in a wire body, envelope 1 or 2.0. Raises `Unreadable` saying what is wrong with it."""
    try:
        outer = json.loads(body)
        if isinstance(outer, dict) and "oslo.message" in outer:
            version = outer.get("oslo.version")
            if version != "2.0":
                raise Unreadable(f"envelope version {version!r} is not 2.0")
            outer = json.loads(outer["oslo.message"])
    except (ValueError, TypeError) as wrong:
        if isinstance(wrong, Unreadable):
            raise
        raise Unreadable(f"the body is not JSON ({wrong})") from None
    return read_message(outer, received_at=received_at, bus=bus)
