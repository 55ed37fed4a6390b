"""A client of event streams, on a real socket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

EVENT_STREAM = {"Accept": "text/event-stream"}


class Listening:
    """A client of an event stream."""

    def __init__(self, url: str, query: str = "", source: str = "127.0.0.1", **headers: str) -> None:
        parts = urlsplit(url)
        self.connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=10, source_address=(source, 0)
        )
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request("GET", f"/v1/events{query}", headers={**EVENT_STREAM, **given})
        self.response = self.connection.getresponse()

    def message(self) -> dict[str, str]:
        """The next message, by field; a comment under the empty name. Empty at the end of the stream."""
        fields = {}
        while line := self.response.readline().decode():
            if line == "\n":
                break
            name, _, value = line.rstrip("\n").partition(": ")
            fields[name.rstrip(":")] = value
        return fields

    def events(self, count: int) -> list[str]:
        """The ids of the next events, whatever else comes."""
        found: list[str] = []
        while len(found) < count:
            message = self.message()
            assert message, "the stream has ended"
            if "data" in message:
                found.append(json.loads(message["data"])["id"])
        return found

    def ended(self) -> bool:
        """Whether it ends before long: reads on until it does."""
        return any(not self.message() for _ in range(200))

    def close(self) -> None:
        # The response holds the socket too.
        self.response.close()
        self.connection.close()


@contextmanager
def listening(url: str, query: str = "", source: str = "127.0.0.1", **headers: str) -> Iterator[Listening]:
    made = Listening(url, query, source, **headers)
    try:
        yield made
    finally:
        made.close()
