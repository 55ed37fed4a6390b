"""Deliveries as the operator sees them: what waits, what was taken, what was given up, and sending again.

Endpoints appear by name, never by URL: a URL may carry a secret. A project sees those to its own subscriptions, under
ids of their own (`store.own_deliveries`): neither the number of a delivery nor that of an event, which count what
everybody is told.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from maintd.store import Attempt
from maintd.store.subscriptions import ACTIVE, ENDPOINT_PREFIX
from maintd.web.asking import (
    AFTER,
    LIMIT,
    LIMIT_MAX,
    Asked,
    Field,
    bad,
    choice,
    for_operators,
    moment,
    text,
    unknown,
)
from maintd.web.operations import Answer, members, nothing_of_that_name, operation, page, single
from maintd.web.shapes import attempt_shape, delivery_shape, own_delivery_shape

T = TypeVar("T")
_ID_MAX: Final = 2**63 - 1
_IDS_MAX: Final = 1000
_STATES: Final = ("pending", "claimed", "delivered", "dead")
_DELETED: Final = "deleted"
"""The state, here, of a subscription that is no more."""
_OWN_ID: Final = r"[^.\s\x00]{1,64}\.[^.\s\x00]{1,64}"
_SUBSCRIPTION: Final = text("subscription_id", "only deliveries to this subscription")


@operation(
    page("deliveries", "Delivery"),
    query=(
        AFTER,
        LIMIT,
        choice("state", "only deliveries in this state", _STATES),
        _SUBSCRIPTION,
        for_operators(text("endpoint", "only deliveries to this webhook or other sink, by its name")),
    ),
)
def deliveries(asked: Asked) -> dict[str, Any]:
    """GET /v1/deliveries: by id, each with the last attempt at it (`last_try`); a project's in the order of its log."""
    state, owner, cursor = asked["state"], asked.caller.owner, asked["after"] or ""
    if owner is not None:
        sequence, place = _own_cursor(cursor or "0.")
        store, subscription_id, now = asked.web.store.own_deliveries, asked["subscription_id"], asked.web.clock.now()
        return _page(
            asked,
            lambda limit: store.list(
                owner, now=now, state=state, subscription_id=subscription_id, after=(sequence, place), limit=limit
            ),
            lambda d: f"{d.sequence:020d}.{d.subscription_id}",
            lambda d: d.number,
            own_delivery_shape,
        )
    after, endpoint = _number(cursor or "0"), _endpoint(asked["endpoint"], asked["subscription_id"])
    if not 0 <= after <= _ID_MAX:
        raise bad("after must be the `next` of another answer.")
    return _page(
        asked,
        lambda limit: asked.web.store.deliveries.list(state=state, endpoint=endpoint, after=after, limit=limit),
        lambda d: str(d.id),
        lambda d: d.id,
        delivery_shape,
    )


def _page(
    asked: Asked,
    fetch: Callable[[int], Sequence[T]],
    key: Callable[[T], str],
    number: Callable[[T], int],
    shape: Callable[[T], dict[str, Any]],
) -> dict[str, Any]:
    """A page of deliveries, each with the last attempt at it."""
    last: dict[int, Attempt] = {}

    def rows(limit: int) -> Sequence[T]:
        found = fetch(limit)
        last.update(asked.web.store.deliveries.last_attempts([number(row) for row in found]))
        return found

    def with_last(row: T) -> dict[str, Any]:
        attempt = last.get(number(row))
        return {**shape(row), "last_try": None if attempt is None else attempt_shape(attempt)}

    return asked.page("deliveries", rows, key, with_last)


def _own_cursor(cursor: str) -> tuple[int, str]:
    """A project's place in its log: the event's sequence and the subscription."""
    sequence, dot, place = cursor.partition(".")
    if not dot or not 0 <= _number(sequence) <= _ID_MAX:
        raise bad("after must be the `next` of another answer.")
    return int(sequence), place


def _number(value: str) -> int:
    return int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else -1


def _endpoint(endpoint: str | None, subscription_id: str | None) -> str | None:
    """The endpoint that is named, or that of the subscription."""
    if endpoint and subscription_id:
        raise bad("Give endpoint or subscription_id, not both.")
    return f"{ENDPOINT_PREFIX}{subscription_id}" if subscription_id else endpoint


@operation(
    single("DeliveryDetail", "The delivery."),
    path=(text("delivery_id", "the delivery, by its id"),),
    errors=nothing_of_that_name("delivery"),
)
def delivery(asked: Asked, delivery_id: str) -> dict[str, Any]:
    """GET /v1/deliveries/{delivery_id}: one delivery with every attempt at it."""
    number, shape = _found(asked, delivery_id)
    tries = asked.web.store.deliveries.attempts(number)
    return {**shape, "tries": [attempt_shape(attempt) for attempt in tries]}


def _found(asked: Asked, delivery_id: str) -> tuple[int, dict[str, Any]]:
    """A delivery's number, and what of it the caller sees. Raises a 404."""
    owner, store = asked.caller.owner, asked.web.store
    if owner is None:
        number = _number(delivery_id)
        if number <= _ID_MAX and (found := store.deliveries.get(number)) is not None:
            return number, delivery_shape(found)
    elif (own := store.own_deliveries.get(owner, delivery_id, now=asked.web.clock.now())) is not None:
        return own.number, own_delivery_shape(own)
    raise unknown(f"There is no delivery {delivery_id!r}: it never was, or was purged by age.")


def _ids(name: str, value: Any) -> list[int | str]:
    if isinstance(value, list) and 0 < len(value) <= _IDS_MAX:
        numbers = [one for one in value if type(one) in (int, float) and 0 <= one <= _ID_MAX and one == int(one)]
        if len(numbers) == len(value):
            return [int(one) for one in numbers]  # to JSON 7.0 is a whole number
        if all(isinstance(one, str) and re.fullmatch(_OWN_ID, one) for one in value):
            return value
    raise bad(f"{name} must be a list of 1 to {_IDS_MAX} ids of deliveries: a project's are texts, others numbers.")


@operation(
    {
        200: Answer(
            "They are due again.",
            members(
                {
                    "redelivered": {"type": "integer", "description": "how many"},
                    "waiting": {
                        "type": "array",
                        "items": members(
                            {
                                "subscription_id": {"type": "string"},
                                "state": {"type": "string"},
                                "deliveries": {"type": "integer"},
                            }
                        ),
                        "description": "only where some are not sent now: for which subscription, its state, how many",
                    },
                },
                optional=("waiting",),
            ),
        )
    },
    body=(
        Field(
            "delivery_ids",
            "these deliveries, by the ids that you see",
            {
                "type": "array",
                "minItems": 1,
                "maxItems": _IDS_MAX,
                "anyOf": [
                    {"items": {"type": "integer", "minimum": 0, "maximum": _ID_MAX}},
                    {"items": {"type": "string", "pattern": r"^[^.\s\u0000]{1,64}\.[^.\s\u0000]{1,64}$"}},
                ],
            },
            _ids,
        ),
        text("subscription_id", "deliveries to this subscription"),
        for_operators(text("endpoint", "deliveries to this webhook or other sink, by its name")),
        moment("since", "of these, deliveries that were finished at this time or later", numbers=True),
        moment("until", "of these, deliveries that were finished before this time", numbers=True),
    ),
    either=("delivery_ids", "endpoint", "subscription_id", "since", "until"),
)
def redeliver(asked: Asked) -> dict[str, Any]:
    """POST /v1/deliveries/redeliver: send finished deliveries again, under the same event ids.

    The body says which: `delivery_ids`, or `endpoint` or `subscription_id`, `since`, `until` (what is given must all
    hold; the times bound when a delivery was finished). Both times alone are a range, for all endpoints. An empty body
    is refused: nobody means "everything, everywhere". A project may give one time alone, for all its subscriptions.
    What goes to a subscription that is paused, disabled or unverified waits until it is active, and is given up where
    it is deleted; `waiting` says so.
    """
    owner, ids, since, until = asked.caller.owner, asked["delivery_ids"], asked["since"], asked["until"]
    endpoint = _endpoint(asked["endpoint"], asked["subscription_id"])
    if ids is not None and any(isinstance(one, str) is (owner is None) for one in ids):
        raise bad("delivery_ids must be ids as you see them in /v1/deliveries.")
    ranged = (since is not None and until is not None) if owner is None else (since, until) != (None, None)
    if ids is None and endpoint is None and not ranged:
        raise bad("Say what to deliver again: delivery_ids, an endpoint or subscription_id, or since and until.")
    if owner is None:
        again = asked.web.store.deliveries.redeliver(ids, endpoint, since, until, now=asked.web.clock.now())
    else:
        again = _redeliver_own(asked, owner, ids, endpoint, since, until)
    asked.web.wake_delivery()
    waiting = _waiting(asked, again)
    return {"redelivered": again.total(), **({"waiting": waiting} if waiting else {})}


def _waiting(asked: Asked, again: Counter[str]) -> list[dict[str, Any]]:
    """What of it is not sent yet, for its subscription gets nothing now."""
    mine = {name.removeprefix(ENDPOINT_PREFIX): n for name, n in again.items() if name.startswith(ENDPOINT_PREFIX)}
    states = asked.web.store.subscriptions.states() if mine else {}
    return [
        {"subscription_id": subscription_id, "state": state, "deliveries": count}
        for subscription_id, count in sorted(mine.items())
        if (state := states.get(subscription_id, _DELETED)) != ACTIVE
    ]


def _redeliver_own(
    asked: Asked, owner: str, ids: list[str] | None, endpoint: str | None, since: float | None, until: float | None
) -> Counter[str]:
    """The same for a project: nothing but what goes to its own subscriptions."""
    store, now = asked.web.store, asked.web.clock.now()
    mine = [one.endpoint for one in store.subscriptions.list(project_id=owner, limit=LIMIT_MAX)]
    if endpoint not in (None, *mine):
        raise unknown("There is no subscription of this id.")
    wanted = mine if endpoint is None else [endpoint]
    if ids is not None:
        found = store.own_deliveries.find(owner, ids, now=now)
        numbers = [one.number for one in found if f"{ENDPOINT_PREFIX}{one.subscription_id}" in wanted]
        return store.deliveries.redeliver(numbers, None, since, until, now=now)
    again: Counter[str] = Counter()
    for one in wanted:
        again += store.deliveries.redeliver(None, one, since, until, now=now)
    return again
