"""A broker looked at from outside, for `maintd doctor`: what is there, who reads, and a copy of what goes by.

AMQP shows more than it seems to. A passive declaration says whether an exchange or a queue is there, how many messages
wait in it and how many read it; declaring what is there already, as oslo.messaging will, changes nothing and betrays
every difference. What AMQP does not show is what bounds a queue, nor who the readers are: that is the management
plugin's to tell (`management`), where it is asked.

Nothing is made but one temporary queue (`overhear`), and nothing is taken from anybody: no message of another queue is
ever fetched. It does not judge.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from threading import Event
from typing import TYPE_CHECKING, Any

import amqp  # type: ignore[import-untyped]

from maintd.errors import OperatorError
from maintd.nova import broker
from maintd.nova.shown import LEGACY_QUEUE, Look, Node, Queue

if TYPE_CHECKING:
    from maintd.config import BusConfig

USUAL_EXCHANGES = ("nova", "openstack")
"""Where notifications are found when they are not where they were sought: Nova's default and oslo.messaging's."""


def topic_queues(bus: BusConfig) -> tuple[str, ...]:
    """The queues that Nova's publishers make themselves for the topic."""
    return tuple(f"{bus.topic}.{priority}" for priority in broker.PRIORITIES)


def look(bus: BusConfig) -> Look:
    """Look at every broker of the URL, and through the first that answers at what is on it. Raises OperatorError."""
    nodes: list[Node] = []
    found: Look | None = None
    for where, connection in broker.connections(bus):
        began = time.monotonic()
        try:
            connection.connect()
            said = connection.server_properties or {}
            node = Node(where, None, time.monotonic() - began, f"{said.get('product', '')} {said.get('version', '')}")
            if found is None:
                found = _look(bus, connection, where)
            nodes.append(node)
        except Exception as error:
            nodes.append(Node(where, broker.explain(bus, error, where).sentence, time.monotonic() - began))
        finally:
            broker.hang_up(connection)
    if found is None:
        return Look(tuple(nodes))
    return Look(tuple(nodes), found.exchange_there, found.exchange_trouble, found.queues)


def _look(bus: BusConfig, connection: Any, where: str) -> Look:
    there = _is_there(connection, bus.exchange)
    trouble = None
    if there:
        channel = connection.channel()
        try:
            broker.declare_exchange(bus, channel)
        except amqp.AMQPError as error:
            trouble = broker.explain(bus, error, where).sentence
    ours = broker.queues(bus)
    shared = f"{broker.SHARED_TOPIC}.{broker.PRIORITIES[0]}"
    names = dict.fromkeys((*ours, *topic_queues(bus), shared, LEGACY_QUEUE))
    return Look((), there, trouble, tuple(_look_at(bus, connection, where, name, name in ours) for name in names))


def _is_there(connection: Any, exchange: str) -> bool:
    try:
        connection.channel().exchange_declare(exchange, "topic", passive=True)
    except amqp.NotFound:
        return False
    return True


def _look_at(bus: BusConfig, connection: Any, where: str, name: str, ours: bool) -> Queue:
    try:
        seen = connection.channel().queue_declare(name, passive=True)
    except amqp.NotFound:
        return Queue(name)
    except amqp.AMQPError as error:
        return Queue(name, True, trouble=broker.explain(bus, error, where).sentence)
    trouble = None
    if ours:
        try:
            broker.declare_queue(bus, connection.channel(), name)
        except amqp.AMQPError as error:
            trouble = broker.explain(bus, error, where).sentence
    return Queue(name, True, int(seen.message_count), int(seen.consumer_count), trouble)


def overhear(
    bus: BusConfig,
    exchanges: Iterable[str],
    take: Callable[[str, str, str], None],
    stop: Event,
    started: Callable[[Collection[str]], None],
) -> None:
    """Hand a copy of every notification on some exchanges to `take(exchange, routing_key, body)` until `stop` is set.

    Whatever its topic: the keys of notifications end in their priority, and those of Nova's RPC calls, which go over
    the same exchange and hold what is nobody's business, do not. Exchanges that are not there or not open to us are
    passed over; `started` is told those that are heard. Blocks; raises OperatorError when the connection fails.
    """
    with broker.connected(bus) as (where, connection):
        try:
            channel = connection.channel()
            name = broker.declare_temporary(bus, channel)
            bound = [exchange for exchange in exchanges if _bind(bus, connection, name, exchange)]

            def heard(message: Any) -> None:
                info = message.delivery_info
                take(str(info.get("exchange", "")), str(info.get("routing_key", "")), broker.text_of(message))

            channel.basic_consume(name, no_ack=True, callback=heard)
            started(bound)
            while not stop.is_set():
                with suppress(TimeoutError):
                    connection.drain_events(timeout=0.1)
        except (OSError, amqp.AMQPError) as error:
            raise OperatorError(broker.explain(bus, error, where).sentence) from None


def _bind(bus: BusConfig, connection: Any, queue: str, exchange: str) -> bool:
    """Bind our temporary queue, on a channel of its own, since a refusal closes it."""
    if not _is_there(connection, exchange):
        return False
    keys: Sequence[str] = [f"*.{priority}" for priority in broker.PRIORITIES]
    if "." in bus.topic and exchange == bus.exchange:
        keys = [*keys, *topic_queues(bus)]
    try:
        channel = connection.channel()
        for key in keys:
            channel.queue_bind(queue, exchange, key)
    except amqp.AccessRefused:
        if exchange == bus.exchange:
            raise
        return False
    return True
