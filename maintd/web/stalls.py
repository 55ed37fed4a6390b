"""Stalls, newest first: those that stand, and those that passed or ended with their migration, kept for a year.

Those that were only noted (`published` false: shadow mode) are among them, so that what would have been said can be
held against how the migrations ended: `maintd stalls report` does.
"""

from __future__ import annotations

from typing import Any

from maintd.domain.model import STALL_AFTER_S, Stall
from maintd.web.asking import Asked, bad
from maintd.web.shapes import stall_shape

Place = tuple[float, str]
"""Where a stall stands in the list: when it was said or noted, and its key."""


def stalls(asked: Asked) -> dict[str, Any]:
    """GET /v1/stalls: filters `reason`, `published`, and `since` and `until` (when it was said, or noted)."""
    asked.only("after", "limit", "reason", "since", "until", "published")
    reason = asked.text("reason")
    if reason is not None and reason not in STALL_AFTER_S:
        raise bad(f"There is no reason {reason!r}; known: {', '.join(STALL_AFTER_S)}.")
    since, until, published = asked.instant("since"), asked.instant("until"), asked.flag("published")
    before, reading = _place(asked.text("after")), asked.web.store.reading
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
    if text is None:
        return None
    at, slash, key = text.partition("/")
    try:
        place = (float(at), key)
    except ValueError:
        slash = ""
    if not slash:
        raise bad("after must be the `next` of another answer.")
    return place
