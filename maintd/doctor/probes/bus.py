"""Looks at one bus, listens beside everybody else for a while, and looks again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

from maintd.clock import Clock
from maintd.config import BusConfig
from maintd.doctor.facts import BusFacts
from maintd.doctor.stream import Heard, Place
from maintd.errors import OperatorError
from maintd.nova import broker, inspection, management

Enough = Callable[[Heard], bool]
Started = Callable[[], None]


def begin(bus: BusConfig) -> BusFacts:
    """What is known before anybody has looked."""
    return BusFacts(
        name=bus.name,
        group=broker.section(bus),
        exchange=bus.exchange,
        topic=bus.topic,
        pool=bus.pool,
        queues=broker.queues(bus),
        topic_queues=inspection.topic_queues(bus),
        vhost=_vhost(bus),
        embedded=broker.embedded(bus),
    )


def _vhost(bus: BusConfig) -> str:
    try:
        return str(broker.parse(bus).virtual_host or "/")
    except OperatorError:
        return "/"  # whoever connects says what is wrong with the URL


def look(bus: BusConfig, management_url: str | None) -> BusFacts:
    """The first look. Nothing is made, and no message is touched."""
    facts = begin(bus)
    if facts.embedded:
        return facts
    try:
        facts = replace(facts, before=inspection.look(bus))
    except OperatorError as wrong:
        return replace(facts, trouble=str(wrong))
    if management_url is None or facts.before is None or not facts.before.reached:
        return facts
    try:
        names = dict.fromkeys((*facts.queues, *facts.topic_queues))
        return replace(facts, managed=management.ask(bus, management_url, tuple(names)))
    except OperatorError as wrong:
        return replace(facts, management_trouble=str(wrong))


def listen(
    bus: BusConfig,
    facts: BusFacts,
    clock: Clock,
    seconds: float,
    over: threading.Event,
    enough: Enough,
    started: Started,
) -> BusFacts:
    """Overhear the bus for so many seconds, until `over` is set or `enough` has been heard; then look again."""
    heard = Heard(Place(bus.exchange, bus.topic))
    stop = threading.Event()
    began = clock.monotonic()
    trouble: str | None = None

    def take(exchange: str, routing_key: str, body: str) -> None:
        heard.take(exchange, routing_key, body, clock.now())

    def run() -> None:
        nonlocal trouble
        try:
            exchanges = dict.fromkeys((bus.exchange, *inspection.USUAL_EXCHANGES))
            inspection.overhear(bus, exchanges, take, stop, lambda bound: started())
        except OperatorError as wrong:
            trouble = str(wrong)
        finally:
            stop.set()

    ear = threading.Thread(target=run, name=f"maintd-doctor-ear-{bus.name}", daemon=True)
    ear.start()
    while not stop.wait(0.1):
        if over.is_set() or clock.monotonic() - began >= seconds or enough(heard):
            break
    stop.set()
    ear.join(10.0)
    listened_s = clock.monotonic() - began
    try:
        after = inspection.look(bus)
    except OperatorError:
        after = None
    return replace(
        facts,
        after=after if after is not None and after.reached else None,
        listened_s=listened_s,
        listening_trouble=trouble,
        heard=heard,
    )
