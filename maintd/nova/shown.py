"""What a broker, its management plugin and the clock of a service show when they are looked at: plain values.

They stand apart from whoever looks, so that whoever judges need not be able to.
"""

from __future__ import annotations

from dataclasses import dataclass

LEGACY_QUEUE = "notifications.info"
"""Made by Nova's publishers when they send the old, unversioned format."""


@dataclass(frozen=True, slots=True)
class Node:
    """One broker of a transport URL. `trouble` is why it cannot be used; `version` as it says itself."""

    where: str
    trouble: str | None = None
    took_s: float = 0.0
    version: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue, if it is there: messages that wait (not those in flight), and readers. `trouble`: we cannot use it."""

    name: str
    there: bool = False
    messages: int = 0
    consumers: int = 0
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a bus showed. Without a node that answers, there is nothing but the nodes."""

    nodes: tuple[Node, ...] = ()
    exchange_there: bool | None = None
    exchange_trouble: str | None = None
    queues: tuple[Queue, ...] = ()

    @property
    def reached(self) -> bool:
        return any(node.trouble is None for node in self.nodes)

    def queue(self, name: str) -> Queue:
        """A queue by its name; one that was not looked for is not there."""
        return next((queue for queue in self.queues if queue.name == name), Queue(name))


@dataclass(frozen=True, slots=True)
class Managed:
    """A queue as the management plugin shows it. `limits` is None where it has not said (its figures come late)."""

    name: str
    limits: dict[str, int] | None = None
    readers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a service's clock showed while a question was under way: `date` is its answer's, in whole seconds."""

    service: str
    asked_at: float
    date: float
    at: float
