"""Stalls, newest first: those that stand, and those that passed or ended with their migration, kept for a year.

Those that were only noted (`published` false: shadow mode) are among them, so that what would have been said can be
held against how the migrations ended: `maintd stalls report` does.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from maintd.domain.model import STALL_AFTER_S, Stall
from maintd.web.asking import AFTER, LIMIT, Asked, bad, choice, flag, moment
from maintd.web.operations import operation, page
from maintd.web.shapes import stall_shape

Place = tuple[float, str]
"""Where a stall stands in the list: when it was said or noted, and its key."""


@operation(
    page("stalls", "Stall"),
    query=(
        replace(AFTER, schema={"type": "string", "pattern": "^([0-9]{1,11}(\\.[0-9]{1,9})?/[^\\u0000]*)?$"}),
        LIMIT,
        choice("reason", "only stalls for this reason", STALL_AFTER_S),
        moment("since", "only stalls that were said, or noted, at this time or later"),
        moment("until", "only stalls that were said, or noted, before this time"),
        flag("published", "true: those that were said; false: those that were only noted"),
    ),
)
def stalls(asked: Asked) -> dict[str, Any]:
    """GET /v1/stalls: filters `reason`, `published`, and `since` and `until` (when it was said, or noted)."""
    reason, published, since, until = (asked[name] for name in ("reason", "published", "since", "until"))
    before, reading = _place(asked["after"]), asked.web.store.reading
    return asked.page(
        "stalls",
        lambda limit: reading.stalls(
            limit=limit, since=since, until=until, reason=reason, published=published, newest_first=True, before=before
        ),
        cursor,
        stall_shape,
    )


def cursor(stall: Stall) -> str:
    """A stall's place in the list, as text."""
    return f"{stall.said_at!r}/{stall.key}"


def _place(text: str | None) -> Place | None:
    if not text:
        return None
    at, slash, key = text.partition("/")
    try:
        place = (float(at), key)
    except ValueError:
        slash = ""
    if not slash:
        raise bad("after must be the `next` of another answer.")
    return place
