"""Deliveries as the operator sees them: what waits, what was taken, what was given up, and sending again.

Endpoints appear by name, never by URL: a URL may carry a secret.
"""

from __future__ import annotations

from typing import Any, Final

from maintd.store import Attempt, Delivery
from maintd.web.asking import Asked, bad, instant, unknown
from maintd.web.shapes import moment, pick

_ID_MAX: Final = 2**63 - 1
_IDS_MAX: Final = 1000
_STATES: Final = ("pending", "claimed", "delivered", "dead")
_FIELDS: Final = "id endpoint event_id event_type subject state attempts created_at due_at first_failed_at".split()


def delivery_shape(delivery: Delivery) -> dict[str, Any]:
    return {**pick(delivery, _FIELDS), "sequence": f"{delivery.sequence:020d}"}


def attempt_shape(attempt: Attempt) -> dict[str, Any]:
    return {
        "at": moment(attempt.at),
        "duration_seconds": round(attempt.duration_s, 6),
        "status": attempt.status,
        "outcome": attempt.outcome,
        "detail": attempt.detail,
    }


def deliveries(asked: Asked) -> dict[str, Any]:
    """GET /v1/deliveries: by id; filters `state` and `endpoint`."""
    asked.only("after", "limit", "state", "endpoint")
    state = asked.text("state")
    if state is not None and state not in _STATES:
        raise bad(f"There is no state {state!r}; known: {', '.join(_STATES)}.")
    after, endpoint = asked.number("after", 0, 0, _ID_MAX), asked.text("endpoint")
    store = asked.web.store.deliveries
    return asked.page(
        "deliveries",
        lambda limit: store.list(state=state, endpoint=endpoint, after=after, limit=limit),
        lambda d: str(d.id),
        delivery_shape,
    )


def delivery(asked: Asked, delivery_id: str) -> dict[str, Any]:
    """GET /v1/deliveries/{delivery_id}: one delivery with every attempt at it."""
    asked.only()
    number = int(delivery_id) if delivery_id.isascii() and delivery_id.isdigit() and len(delivery_id) < 19 else -1
    found = asked.web.store.deliveries.get(number)
    if found is None:
        raise unknown(f"There is no delivery {delivery_id!r}: it never was, or was purged by age.")
    tries = asked.web.store.deliveries.attempts(number)
    return {**delivery_shape(found), "tries": [attempt_shape(attempt) for attempt in tries]}


def redeliver(asked: Asked) -> dict[str, Any]:
    """POST /v1/deliveries/redeliver: send finished deliveries again, under the same event ids.

    The body says which: `delivery_ids`, or `endpoint`, `since`, `until` (what is given must all hold; the times bound
    when a delivery was finished). An empty body is refused: nobody means "everything, everywhere".
    """
    asked.only("delivery_ids", "endpoint", "since", "until")
    ids, endpoint = asked.body.get("delivery_ids"), asked.body.get("endpoint")
    since, until = instant(asked.body.get("since"), "since"), instant(asked.body.get("until"), "until")
    if ids is not None and not (
        isinstance(ids, list) and 0 < len(ids) <= _IDS_MAX and all(type(i) is int and 0 <= i <= _ID_MAX for i in ids)
    ):
        raise bad(f"delivery_ids must be a list of 1 to {_IDS_MAX} whole numbers.")
    if endpoint is not None and not (isinstance(endpoint, str) and endpoint):
        raise bad("endpoint must be the name of a webhook.")
    if ids is None and endpoint is None:
        raise bad("Say what to deliver again: delivery_ids, or endpoint (with since and until to narrow it).")
    store = asked.web.store.deliveries
    count = store.redeliver(ids, endpoint, since, until, now=asked.web.clock.now())
    asked.web.wake_delivery()
    return {"redelivered": count}
