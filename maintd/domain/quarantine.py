"""What is kept of a message that could not be used, so that a person can look at it later.

A message lands here when it is no notification, or when handling it failed through a fault of ours. It is never tried
again by itself. This module holds the value only; where it is kept and for how long is the store's business.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One message set aside.

    `at` is when it was received, in seconds since the epoch. `body` is the wire's bytes where they are known (a driver
    that rejects a message by itself does not show them: then empty). `event_type` and `message_id` are what could be
    read of them, or null.
    """

    at: float
    bus: str
    reason: str
    event_type: str | None
    message_id: str | None
    body: bytes
