"""Deliveries as the operator sees them: what waits, what was taken, what was given up, and sending again.

Endpoints appear by name, never by URL: a URL may carry a secret.
"""

from __future__ import annotations

from typing import Any, Final

from maintd.web.asking import LIMIT, Asked, Field, bad, choice, moment, number, text, unknown
from maintd.web.operations import Answer, members, nothing_of_that_name, operation, page, single
from maintd.web.shapes import attempt_shape, delivery_shape

_ID_MAX: Final = 2**63 - 1
_IDS_MAX: Final = 1000
_STATES: Final = ("pending", "claimed", "delivered", "dead")
_AFTER: Final = number("after", "the `next` of the answer before: go on from there", 0, 0, _ID_MAX)


@operation(
    page("deliveries", "Delivery"),
    query=(
        _AFTER,
        LIMIT,
        choice("state", "only deliveries in this state", _STATES),
        text("endpoint", "only deliveries to this webhook, by its name"),
    ),
)
def deliveries(asked: Asked) -> dict[str, Any]:
    """GET /v1/deliveries: by id; filters `state` and `endpoint`."""
    after, state, endpoint = asked["after"], asked["state"], asked["endpoint"]
    store = asked.web.store.deliveries
    return asked.page(
        "deliveries",
        lambda limit: store.list(state=state, endpoint=endpoint, after=after, limit=limit),
        lambda d: str(d.id),
        delivery_shape,
    )


@operation(
    single("DeliveryDetail", "The delivery."),
    path=(text("delivery_id", "the delivery, by its number"),),
    errors=nothing_of_that_name("delivery"),
)
def delivery(asked: Asked, delivery_id: str) -> dict[str, Any]:
    """GET /v1/deliveries/{delivery_id}: one delivery with every attempt at it."""
    named = int(delivery_id) if delivery_id.isascii() and delivery_id.isdigit() and len(delivery_id) < 19 else -1
    found = asked.web.store.deliveries.get(named)
    if found is None:
        raise unknown(f"There is no delivery {delivery_id!r}: it never was, or was purged by age.")
    tries = asked.web.store.deliveries.attempts(named)
    return {**delivery_shape(found), "tries": [attempt_shape(attempt) for attempt in tries]}


def _ids(name: str, value: Any) -> list[int]:
    if isinstance(value, list) and 0 < len(value) <= _IDS_MAX and all(type(one) in (int, float) for one in value):
        if all(0 <= one <= _ID_MAX and one == int(one) for one in value):  # to JSON 7.0 is a whole number
            return [int(one) for one in value]
    raise bad(f"{name} must be a list of 1 to {_IDS_MAX} whole numbers.")


@operation(
    {200: Answer("They are due again.", members({"redelivered": {"type": "integer", "description": "how many"}}))},
    body=(
        Field(
            "delivery_ids",
            "these deliveries",
            {
                "type": "array",
                "items": {"type": "integer", "minimum": 0, "maximum": _ID_MAX},
                "minItems": 1,
                "maxItems": _IDS_MAX,
            },
            _ids,
        ),
        text("endpoint", "deliveries to this webhook, by its name"),
        moment("since", "of these, deliveries that were finished at this time or later", numbers=True),
        moment("until", "of these, deliveries that were finished before this time", numbers=True),
    ),
    either=("delivery_ids", "endpoint"),
)
def redeliver(asked: Asked) -> dict[str, Any]:
    """POST /v1/deliveries/redeliver: send finished deliveries again, under the same event ids.

    The body says which: `delivery_ids`, or `endpoint`, `since`, `until` (what is given must all hold; the times bound
    when a delivery was finished). An empty body is refused: nobody means "everything, everywhere".
    """
    ids, endpoint, since, until = (asked[name] for name in ("delivery_ids", "endpoint", "since", "until"))
    store = asked.web.store.deliveries
    count = store.redeliver(ids, endpoint, since, until, now=asked.web.clock.now())
    asked.web.wake_delivery()
    return {"redelivered": count}
