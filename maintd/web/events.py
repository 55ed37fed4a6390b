"""The event log, read by cursor: what was published, exactly as it was delivered.

This is the contract for programs that would rather ask than be called. The log has no end, so `next` is never null:
keep it and ask again with it. A cursor is an event's `sequence`. Operators read the operators' log, and with
`project_id` a project's; a project reads its own, as if there were no other. Whoever does not want to ask in vain
waits: for one answer (`wait`), or for all that come (`text/event-stream`); `stream.py` has how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any, Final

from maintd.store import EventRow
from maintd.web.asking import LIMIT, LIMIT_DEFAULT, Asked, bad, for_operators, number, text, unknown
from maintd.web.operations import Answer, nothing_of_that_name, operation, ref, single
from maintd.web.seats import NoSeat, Seat, come_back
from maintd.web.stream import PAGE, Stream, awaited

_SEQUENCE_MAX: Final = 2**63 - 1

WAIT_MAX_S: Final = 60


def log_of(asked: Asked) -> Callable[[int, int], Sequence[EventRow]]:
    """(after, limit) -> events of the log that is whoever asks' to read: theirs, or for an operator the operators' or
    that of the project named."""
    store, owner = asked.web.store.events, asked.caller.owner or asked["project_id"]
    chosen = {"type_glob": asked["type"], "subject": asked["subject"]}
    if owner is None:
        return lambda after, limit: store.list(after=after, limit=limit, **chosen)
    now = asked.web.clock.now
    return lambda after, limit: store.list_of_project(owner, after=after, limit=limit, now=now(), **chosen)


@operation(
    {200: Answer("Events in order, as JSON; or those that there are and those that come, as an event stream.",
                 ref("Events"), streams=True)},
    query=(
        number("after", "a cursor: only events with a higher sequence", 0, 0, _SEQUENCE_MAX),
        LIMIT,
        number("wait", "where there is no event, wait for one for so many seconds", 0, 0, WAIT_MAX_S),
        text("type", "only types that match this glob, as the shell matches: maintd.host.*"),
        text("subject", "only events about this"),
        for_operators(text("project_id", "the log of this project, in place of the operators'")),
    ),
    headers=(
        number("Last-Event-ID", "a cursor, as an event stream's client sends it when it comes back; wins over `after`",
               -1, 0, _SEQUENCE_MAX),
    ),
)  # fmt: skip
def events(asked: Asked) -> dict[str, Any] | Stream:
    """GET /v1/events: CloudEvents in order, from a cursor on; with `wait` a long poll, with `Accept: text/event-stream`
    server-sent events.

    In a stream `id` is the sequence, `event` the type and `data` the CloudEvent on one line; `limit` and `wait` have no
    meaning there.
    """
    fetch, last = log_of(asked), asked["Last-Event-ID"]
    after = asked["after"] if last < 0 else last
    bell = asked.web.bell
    if asked.streamed:
        if asked["wait"] or asked["limit"] != LIMIT_DEFAULT:
            raise bad("A stream has neither limit nor wait: it gives every event, as it comes.")
        return Stream(bell, _seat(asked), lambda after: fetch(after, PAGE), after, asked.client)
    rows = fetch(after, asked["limit"])
    if not rows and asked["wait"]:
        until = bell.clock.monotonic() + asked["wait"]
        with closing(_seat(asked)):
            rows = awaited(bell, lambda: fetch(after, asked["limit"]), until, asked.client)
    last = rows[-1].sequence if rows else after
    return {"events": [json.loads(row.body) for row in rows], "next": f"{last:020d}"}


def _seat(asked: Asked) -> Seat:
    try:
        if asked.web.bell.closed:
            raise NoSeat("This maintd is stopping.")
        return asked.web.seats.take(asked.holder)
    except NoSeat as refused:
        raise come_back("No stream is free", refused) from None


@operation(
    single("Event", "The event."), path=(text("event_id", "the event's id"),), errors=nothing_of_that_name("event")
)
def event(asked: Asked, event_id: str) -> dict[str, Any]:
    """GET /v1/events/{event_id}: one CloudEvent."""
    store, owner = asked.web.store.events, asked.caller.owner
    row = store.get(event_id) if owner is None else store.get_of_project(owner, event_id, now=asked.web.clock.now())
    if row is None:
        raise unknown(f"There is no event {event_id!r}: it never was, or was purged by age.")
    answer: dict[str, Any] = json.loads(row.body)
    return answer
