"""The bus sink: each event as a notification of oslo.messaging, on an exchange and a topic of our own.

For consumers inside the control plane that have a listener of oslo.messaging already. The envelope is the one that
every OpenStack service sends (driver `messagingv2`): `event_type` is the CloudEvent's type, `payload` the whole
CloudEvent, `message_id` the event's id at every attempt, so that a consumer can throw repetitions away.

An event is delivered when the broker has confirmed it, and not before. oslo.messaging's own Notifier catches every
exception and logs it; so this goes one step below, to the `_send_notification` of the transport, which is what the
Notifier's driver calls (a test fails when that moves). `retry=0`, because repeating is the dispatcher's business, and a
time limit around it all, because a broker that is blocked confirms nothing and hangs up on nobody.

One thread and one connection for each sink: it publishes in the order it was asked to, and a broker that hangs keeps
that thread and nobody else. An attempt that ran out of time may still be confirmed later; it is then published twice,
under one id. After a failure the connection is thrown away, so that no late confirmation is ever taken for the next
event's.

What the driver declares is part of what this does: the exchange, and a queue `<topic>.info` that takes every event
until somebody reads it. Nothing here bounds that queue, for a publisher cannot; the policy in the README does.
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import amqp  # type: ignore[import-untyped]

from maintd import messaging
from maintd.delivery.outcome import Outcome, OutcomeKind, presentable
from maintd.delivery.signing import Signer
from maintd.delivery.sinks import Endpoint, Message
from maintd.delivery.sinks.threads import Threads

if TYPE_CHECKING:
    from maintd.config import BusSinkConfig

TOTAL_S: Final = 10.0
"""From the attempt's beginning, its turn on the connection included, to the broker's confirmation."""
CLOSE_S: Final = 0.5
"""How long a polite end of the connection may take."""
PRIORITY: Final = "INFO"


def bus_endpoint(sink: BusSinkConfig, installation: str) -> Endpoint:
    """An endpoint for one configured bus sink. Nothing is connected before it is opened and has something to send."""
    return Endpoint(sink.name, sink.event_types, Signer(()), BusSink(sink, f"maintd.{installation}"))


class BusSink:
    """Publishes on one topic. Its repr shows no URL."""

    def __init__(self, sink: BusSinkConfig, publisher_id: str, *, total_s: float = TOTAL_S) -> None:
        self._sink = sink
        self._publisher_id = publisher_id
        self._total_s = total_s
        passwords = re.findall(r":([^:@/,]+)@", sink.transport_url)
        self._unsayable = tuple({said for password in passwords for said in (password, unquote(password))})
        self._target = messaging.oslo_messaging.Target(topic=f"{sink.topic}.{PRIORITY.lower()}", exchange=sink.exchange)
        self._transport: Any = None  # the thread's own
        self._threads: Threads | None = None
        self._quiet = _Quiet(f"maintd-bus-sink-{sink.name}-")

    async def open(self) -> None:
        logging.getLogger(messaging.DRIVER_LOG).addFilter(self._quiet)
        self._threads = Threads(self._quiet.prefix.removesuffix("-"), 1)

    async def close(self) -> None:
        if self._threads is None:
            return
        with suppress(TimeoutError):
            await self._threads.run(self._hang_up, CLOSE_S)
        self._threads.close()
        self._threads = None
        logging.getLogger(messaging.DRIVER_LOG).removeFilter(self._quiet)

    async def send(self, message: Message) -> Outcome:
        if self._threads is None:
            raise RuntimeError("the sink is not open")
        try:
            return await self._threads.run(partial(self._publish, message), self._total_s)
        except TimeoutError:
            return Outcome(OutcomeKind.TIMED_OUT, detail=f"the broker did not confirm within {self._total_s:g} s")

    # -- in the sink's thread

    def _publish(self, message: Message) -> Outcome:
        try:
            if self._transport is None:
                self._transport = messaging.transport(self._sink.transport_url, self._sink.rabbit_options())
            self._transport._send_notification(
                self._target, {}, notification(message, self._publisher_id), version=2.0, retry=0
            )
        except Exception as error:  # the driver's, kombu's, amqp's, the socket's
            self._hang_up()
            return self._failed(error)
        return Outcome(OutcomeKind.DELIVERED)

    def _hang_up(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            with suppress(Exception):
                transport.cleanup()

    def _failed(self, error: BaseException) -> Outcome:
        """What the broker or the way to it had against it; the driver's own sentence hides that."""
        inner: BaseException | None = error
        while inner is not None:
            error = inner
            inner = error.__cause__ or (
                error.__context__ if isinstance(error, messaging.exceptions.MessagingException) else None
            )
        if isinstance(error, amqp.exceptions.MessageNacked):
            said = f"the broker did not take it: a queue bound to {self._target.topic} is full and refuses more"
            return Outcome(OutcomeKind.REFUSED, detail=said)
        said = presentable(messaging.words(error), self._unsayable)
        if isinstance(error, (amqp.IrrecoverableChannelError, amqp.IrrecoverableConnectionError)):
            return Outcome(OutcomeKind.REFUSED, detail=f"the broker refused: {said}")
        return Outcome(OutcomeKind.UNREACHABLE, detail=f"no word from the broker: {said}")


def notification(message: Message, publisher_id: str) -> dict[str, Any]:
    """The envelope that a listener of oslo.messaging takes apart, the same at every attempt."""
    event = json.loads(message.body)
    happened = datetime.fromisoformat(event["time"]).astimezone(UTC).replace(tzinfo=None)
    return {
        "message_id": message.event_id,
        "publisher_id": publisher_id,
        "event_type": event["type"],
        "priority": PRIORITY,
        "payload": event,
        "timestamp": happened.isoformat(sep=" ", timespec="microseconds"),  # as oslo.messaging writes it
    }


class _Quiet(logging.Filter):
    """Keeps to itself what the driver complains of in a sink's thread and in those of its heartbeats.

    Each complaint is the outcome of an attempt as well, and the dispatcher says once that an endpoint fails.
    """

    def __init__(self, prefix: str) -> None:
        super().__init__()
        self.prefix = prefix

    def filter(self, record: logging.LogRecord) -> bool:
        thread = record.threadName or ""
        return record.levelno < logging.WARNING or not thread.startswith((self.prefix, "Rabbit-heartbeat"))
