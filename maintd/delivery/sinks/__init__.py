"""Ways out. One file per kind of sink; each turns a signed message into one attempt and says what came of it.

A sink never retries, sleeps, counts or logs: the dispatcher does that, once, for all of them. It runs on the
dispatcher's loop and may block nothing there. A new kind is one file here, and one function that makes its `Endpoint`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from maintd.delivery.outcome import Outcome
from maintd.delivery.signing import Signer


@dataclass(frozen=True, slots=True)
class Message:
    """One event on its way out: the exact bytes of the body, and the headers that sign them."""

    event_id: str
    headers: Mapping[str, str]
    body: bytes


class Sink(Protocol):
    """A way out to one endpoint. `open` and `close` are called once each, on the loop that calls `send`."""

    async def open(self) -> None: ...

    async def send(self, message: Message) -> Outcome:
        """Make one attempt, within a time of the sink's own. Raises nothing that it can name as an outcome."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Somebody who wants events: a name (also the metric's label), what they want, how it is signed and sent.

    `overtime_s`: an attempt may take so much longer than a webhook's, and so much longer holds its claim.
    """

    name: str
    event_types: tuple[str, ...]
    signer: Signer
    sink: Sink
    overtime_s: float = 0.0
