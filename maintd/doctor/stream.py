"""What was overheard on a bus, folded one message after the other: forms, places, speakers, versions, delays.

Nothing of a message is kept but names, counts and times. Only what came on the exchange and topic that maintd reads
counts as heard; the rest says where to look when nothing does. Old-format notifications are Nova's only if their
publisher and event type say so, since other services may speak on the same exchange.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum

from maintd.nova.notifications import NORMALISERS, Notification, Unreadable, is_unversioned, read_wire

LEGACY_SERVICES = {
    "api": "nova-api",
    "compute": "nova-compute",
    "conductor": "nova-conductor",
    "scheduler": "nova-scheduler",
}
"""The service in an old-format publisher_id (`compute.h1`), and what it is called in a versioned one."""

BORROWED = ("instance.update", "instance.rebuild_scheduled", "service.")
"""Event types whose publisher_id is not, or not always, the process that sent them (facts 1.1)."""

STATEFUL = frozenset(
    f"instance.{action}"
    for action in (
        "create",
        "live_migration_post_dest",
        "pause",
        "power_off",
        "power_on",
        "resize_finish",
        "resume",
        "shelve",
        "suspend",
        "unpause",
        "unshelve",
    )
)
"""Actions that save the server between their start and their end, and so send instance.update where Nova is told to."""

KNOWN_MAJORS = ("1.", "2.")

MAX_NAMES = 20_000
"""Most publishers, servers or versions that are told apart; a flood of made-up names must not fill the memory."""


class Form(StrEnum):
    """What a message turned out to be."""

    VERSIONED = "versioned"
    UNVERSIONED = "unversioned"
    UNREADABLE = "unreadable"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a message came by."""

    exchange: str
    topic: str


@dataclass(slots=True)
class Heard:
    """Everything overheard so far on one bus, of which `place` is what maintd reads."""

    place: Place
    forms: Counter[tuple[Place, Form]] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    """Messages by routing key, on our exchange."""
    speakers: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Versioned, at our place: (service, host), where the publisher_id is to be believed."""
    legacy: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Old format, anywhere: (service as versioned ones call it, host)."""
    updates: int = 0
    silent_actions: Counter[str] = field(default_factory=Counter)
    """Actions heard from start to end of which no instance.update told in between."""
    strange: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(payload, version) of major versions that maintd cannot read."""
    broken: Counter[str] = field(default_factory=Counter)
    """Why messages at our place could not be read."""
    delays: dict[str, float] = field(default_factory=dict)
    """By publisher's host: the least time between a message's own timestamp and its arrival; negative: from ahead."""
    _open: dict[str, dict[str, bool]] = field(default_factory=dict)
    """By server: the actions under way, and whether an instance.update told of them."""

    def count(self, form: Form, *, here: bool = True) -> int:
        """Messages of a form, at our place or elsewhere."""
        return sum(n for (place, found), n in self.forms.items() if found is form and (place == self.place) is here)

    def places(self, form: Form) -> tuple[Place, ...]:
        """Where messages of a form came by that were not at our place, the busiest first."""
        return tuple(place for (place, found), _ in self.forms.most_common() if found is form and place != self.place)

    def unconverted(self) -> frozenset[tuple[str, str]]:
        """Who was heard in the old format, more than once, and never in the versioned one."""
        return frozenset(who for who, n in self.legacy.items() if n > 1 and who not in self.speakers)

    def hosts(self, service: str = "nova-compute") -> frozenset[str]:
        """The hosts of a service that were heard at our place; may be asked while another thread folds."""
        return frozenset(host for name, host in tuple(self.speakers) if name == service)

    def take(self, exchange: str, routing_key: str, body: str, at: float) -> None:
        """Fold one message that arrived `at` (seconds since the epoch)."""
        topic = routing_key.rpartition(".")[0]
        place = Place(exchange, topic)
        here = place == self.place
        if exchange == self.place.exchange:
            self.keys[routing_key] += 1
        try:
            message = read_wire(body, received_at=at)
        except Unreadable as wrong:
            self.forms[place, Form.UNREADABLE] += 1
            if here and len(self.broken) < 10:
                self.broken[str(wrong)] += 1
            return
        if is_unversioned(message):
            self._legacy(place, message)
            return
        self.forms[place, Form.VERSIONED] += 1
        if here:
            self._versioned(message)

    def _legacy(self, place: Place, message: Notification) -> None:
        service, _, host = message.publisher_id.partition(".")
        if service in LEGACY_SERVICES and message.event_type.startswith(("compute", "scheduler")):
            self.forms[place, Form.UNVERSIONED] += 1
            if message.event_type != "compute.instance.update":  # which comes from wherever a row was saved
                _add(self.legacy, (LEGACY_SERVICES[service], host))

    def _versioned(self, message: Notification) -> None:
        service, _, host = message.publisher_id.partition(":")
        if message.timestamp != message.received_at and not message.event_type.startswith(BORROWED[1:]):
            delay = message.received_at - message.timestamp
            if host in self.delays or len(self.delays) < MAX_NAMES:
                self.delays[host] = min(delay, self.delays.get(host, delay))
        if not message.event_type.startswith(BORROWED):
            _add(self.speakers, (service, host))
        payload = message.payload if isinstance(message.payload, dict) else {}
        version = str(payload.get("nova_object.version", "1.0"))
        if not version.startswith(KNOWN_MAJORS) and message.event_type in NORMALISERS:
            _add(self.strange, (str(payload.get("nova_object.name", "?"))[:80], version[:20]))
        data = payload.get("nova_object.data")
        server = str(data.get("uuid")) if isinstance(data, dict) else ""
        self._follow(message.event_type, server)

    def _follow(self, event_type: str, server: str) -> None:
        """Whether an action is told of by instance.update."""
        if event_type == "instance.update":
            self.updates += 1
            for begun in self._open.get(server, {}):
                self._open[server][begun] = True
            return
        action, _, phase = event_type.rpartition(".")
        if action not in STATEFUL:
            return
        if phase == "start" and (server in self._open or len(self._open) < MAX_NAMES):
            self._open.setdefault(server, {})[action] = False
        elif phase == "end" and server in self._open:
            if self._open[server].pop(action, None) is False:
                self.silent_actions[action] += 1
            if not self._open[server]:
                del self._open[server]


def _add(counter: Counter[tuple[str, str]], key: tuple[str, str]) -> None:
    if key in counter or len(counter) < MAX_NAMES:
        counter[key] += 1
