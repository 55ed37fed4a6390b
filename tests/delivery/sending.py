"""What the tests of the sinks share: an event to send, a sink opened around it, and a dispatcher with one endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from maintd.clock import Clock, SystemClock
from maintd.delivery.dispatcher import Dispatcher
from maintd.delivery.outcome import Outcome
from maintd.delivery.sinks import Endpoint, Message, Sink
from tests.delivery.databases import Database, new_database

EVENT = {
    "specversion": "1.0",
    "id": "event-1",
    "source": "/maintd/main",
    "type": "maintd.host.emptied.v1",
    "subject": "cmp-1",
    "time": "2027-01-15T08:00:00Z",
    "sequence": "00000000000000000001",
    "data": {"name": "é", "$HOME": "`id`; $(id)"},
}


def message(**changes: object) -> Message:
    """An event on its way out."""
    event = EVENT | changes
    return Message(str(event["id"]), {}, json.dumps(event, ensure_ascii=False).encode())


def send(sink: Sink, *messages: Message) -> list[Outcome]:
    """Send one after the other on a loop of their own."""

    async def run() -> list[Outcome]:
        await sink.open()
        try:
            return [await sink.send(each) for each in messages or (message(),)]
        finally:
            await sink.close()

    return asyncio.run(run())


@contextlib.contextmanager
def dispatching(
    folder: Path, *endpoints: Endpoint, clock: Clock | None = None
) -> Iterator[tuple[Database, Dispatcher]]:
    """A dispatcher at work on an empty SQLite database; a failed delivery waits for the whole of its schedule."""
    with new_database("sqlite", folder) as database:
        dispatcher = Dispatcher(database.deliveries, endpoints, clock or SystemClock(), jitter=lambda: 1.0, poll_s=30.0)
        dispatcher.start()
        try:
            yield database, dispatcher
        finally:
            dispatcher.stop(0.1)
