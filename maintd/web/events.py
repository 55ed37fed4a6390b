"""The event log, read by cursor: what was published, exactly as it was delivered.

This is the contract for scripts that would rather ask than be called. The log has no end, so `next` is never null: keep
it and ask again with it. A cursor is an event's `sequence`.
"""

from __future__ import annotations

import json
from typing import Any, Final

from maintd.web.asking import Asked, unknown

_SEQUENCE_MAX: Final = 2**63 - 1


def events(asked: Asked) -> dict[str, Any]:
    """GET /v1/events?after=CURSOR: CloudEvents in order; filters `type` (a shell's glob) and `subject`."""
    asked.only("after", "limit", "type", "subject")
    after = asked.number("after", 0, 0, _SEQUENCE_MAX)
    rows = asked.web.store.events.list(
        after=after, limit=asked.limit, type_glob=asked.text("type"), subject=asked.text("subject")
    )
    last = rows[-1].sequence if rows else after
    return {"events": [json.loads(row.body) for row in rows], "next": f"{last:020d}"}


def event(asked: Asked, event_id: str) -> dict[str, Any]:
    """GET /v1/events/{event_id}: one CloudEvent."""
    asked.only()
    row = asked.web.store.events.get(event_id)
    if row is None:
        raise unknown(f"There is no event {event_id!r}: it never was, or was purged by age.")
    answer: dict[str, Any] = json.loads(row.body)
    return answer
