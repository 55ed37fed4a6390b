"""RabbitMQ, spoken to directly: the few things oslo.messaging has no word for.

Asking whether a bus can be used before oslo.messaging tries (it would block for ever, or carry on deaf, and log a
traceback); counting and deleting our queue; and a temporary exclusive queue for `maintd record`, which oslo.messaging
cannot make. Everything goes through py-amqp, the library at the bottom of oslo.messaging, on short-lived connections.

What goes wrong is put into a sentence here, once, for everybody: `explain`. No sentence holds a password.

The embedded transports (`fake://`, `kombu+memory://`) live inside one process and have no broker to ask: for them
`check` is always content, and the rest says that it cannot be done.
"""

from __future__ import annotations

import re
import secrets
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

import amqp  # type: ignore[import-untyped]
from oslo_config import cfg

from maintd.errors import OperatorError
from maintd.messaging import exceptions, oslo_messaging, words

if TYPE_CHECKING:
    from maintd.config import BusConfig

PRIORITIES = ("info", "error")
"""The only priorities at which Nova emits versioned notifications (facts: the wire)."""

SHARED_TOPIC = "versioned_notifications"
"""Nova's default topic, whose own queues may be somebody else's."""

_ANSWER_S = 5.0
"""How long a broker may take to connect and for each answer."""

_MAX_TAPPED = 100_000
"""Messages that a tap's queue may hold on the broker before the oldest are dropped: a stuck recorder is no danger."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a bus cannot be used now. `lasting` when only an operator can mend it."""

    sentence: str
    lasting: bool


def section(bus: BusConfig) -> str:
    """The name of the bus's group in the configuration."""
    return "[bus]" if bus.name == "default" else f"[bus:{bus.name}]"


def embedded(bus: BusConfig) -> bool:
    """Whether the transport lives inside this process."""
    return bus.transport_url.startswith(("fake:", "kombu+memory:"))


def queues(bus: BusConfig) -> tuple[str, ...]:
    """The names of the queues this bus is read from."""
    if bus.pool:
        return (bus.pool,)
    return tuple(f"{bus.topic}.{priority}" for priority in PRIORITIES)


# --- sentences -------------------------------------------------------------------------------------------------------

_INEQUIVALENT = re.compile(
    r"inequivalent arg '(?P<what>[^']+)' for (?P<kind>\w+) '(?P<name>[^']+)'.*?"
    r"received (?:the value )?(?P<ours>.+?) (?:of type '\w+' )?but current is (?P<theirs>.+?)(?: of type '\w+')?$"
)


def explain(bus: BusConfig, error: BaseException, where: str = "") -> Trouble:
    """A sentence for the operator: what is wrong, where, and what to do. `where` is HOST:PORT when it is known."""
    broker = f"RabbitMQ at {where}" if where else "RabbitMQ"
    group = section(bus)
    text = str(getattr(error, "reply_text", None) or error or type(error).__name__)
    if isinstance(error, OperatorError):
        return Trouble(text, lasting=True)
    if isinstance(error, amqp.AccessRefused):
        if "Login was refused" in text:
            return Trouble(
                f"{broker} refused the credentials of {group} transport_url: "
                "check user and password, and that the user exists on this broker.",
                lasting=True,
            )
        return Trouble(
            f"{broker} does not let our user work ({words(text)}): give it configure, write and read rights on the "
            f"queue and the exchange named in {group}, with `rabbitmqctl set_permissions`.",
            lasting=True,
        )
    if isinstance(error, amqp.NotAllowed):
        missing = "does not exist" if "not found" in text else "is closed to our user"
        return Trouble(
            f"{broker}: the virtual host of {group} transport_url {missing} ({words(text)}): correct the last part of "
            "the URL, or the user's permissions.",
            lasting=True,
        )
    if isinstance(error, amqp.PreconditionFailed):
        return Trouble(_mismatch(bus, broker, text), lasting=True)
    if isinstance(error, amqp.ResourceLocked):
        return Trouble(
            f"{broker}: {words(text)}; another program holds this queue for itself, choose another pool in {group}.",
            lasting=True,
        )
    if isinstance(error, amqp.InternalError) or getattr(error, "code", None) == 541:
        return Trouble(
            f"{broker} refused to make the queue (541 internal error); RabbitMQ 4.3 and newer take no non-durable "
            f"queues: set quorum_queue in {group}, as rabbit_quorum_queue in nova.conf.",
            lasting=True,
        )
    if isinstance(error, amqp.NotFound):
        return Trouble(f"{broker}: {words(text)}.", lasting=False)
    if isinstance(error, socket.gaierror):
        return Trouble(
            f"the host name of {broker} cannot be resolved: check {group} transport_url and the name service.",
            lasting=False,
        )
    if isinstance(error, ssl.SSLError):
        return Trouble(
            f"no TLS with {broker} ({words(text)}): check ssl, ssl_ca_file and the port in {group}.", lasting=False
        )
    if isinstance(error, ConnectionRefusedError) or "refused" in text.lower():
        return Trouble(f"{broker} is not reachable: nothing takes connections there.", lasting=False)
    if isinstance(error, TimeoutError) or "timed out" in text.lower():
        return Trouble(f"{broker} is not reachable: no answer in time.", lasting=False)
    return Trouble(f"{broker} is not reachable: {words(text)}.", lasting=False)


def _mismatch(bus: BusConfig, broker: str, text: str) -> str:
    group = section(bus)
    found = _INEQUIVALENT.search(" ".join(text.split()))
    if not found:
        return f"{broker} refused a declaration: {words(text)}."
    what, kind, name = found["what"], found["kind"], found["name"]
    ours, theirs = found["ours"].strip("'"), found["theirs"].strip("'")
    start = f"{broker}: {kind} '{name}' exists with {what} {theirs}, and {group} asks for {ours}: "
    if kind == "exchange":
        option = {
            "durable": "durable_queues (or quorum_queue) in {0} to what amqp_durable_queues (rabbit_quorum_queue) is",
            "auto_delete": "auto_delete in {0} to what amqp_auto_delete is",
            "type": "exchange in {0} to what control_exchange is",
        }.get(what, "{0} to what is set")
        return f"{start}set {option.format(group)} in nova.conf."
    return f"{start}set {group} as nova.conf is set, or delete the queue by `maintd bus remove` and start again."


# --- connections -----------------------------------------------------------------------------------------------------


def parse(bus: BusConfig) -> Any:
    """The transport URL, parsed by oslo.messaging. Raises `OperatorError`."""
    try:
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[], use_env=False)
        return oslo_messaging.TransportURL.parse(conf, bus.transport_url)
    except (exceptions.MessagingException, ValueError):
        raise OperatorError(
            f"transport_url in {section(bus)} is not of the form rabbit://USER:PASSWORD@HOST:PORT/VHOST."
        ) from None


def connections(bus: BusConfig) -> Iterator[tuple[str, Any]]:
    """Unopened connections to each broker of the URL, in its order, with HOST:PORT."""
    if embedded(bus):
        raise OperatorError(f"the transport of {section(bus)} lives inside the daemon: there is no broker to ask.")
    url = parse(bus)
    if url.transport not in ("rabbit", "kombu", "amqp"):
        raise OperatorError(f"transport_url in {section(bus)} names no RabbitMQ ({url.transport}://).")
    for host in url.hosts or [oslo_messaging.TransportHost(hostname="localhost")]:
        where = f"{host.hostname}:{host.port or 5672}"
        yield (
            where,
            amqp.Connection(
                host=where if ":" not in host.hostname else f"[{host.hostname}]:{host.port or 5672}",
                userid=host.username or "guest",
                password=host.password or "guest",
                virtual_host=url.virtual_host or "/",
                ssl=_tls(bus, host.hostname),
                connect_timeout=_ANSWER_S,
                read_timeout=_ANSWER_S,
                write_timeout=_ANSWER_S,
                heartbeat=0,
                client_properties={
                    "connection_name": f"maintd:{bus.name}",
                    "capabilities": {"authentication_failure_close": True, "consumer_cancel_notify": True},
                },
            ),
        )


def _tls(bus: BusConfig, host: str) -> bool | dict[str, Any]:
    """The same choice as oslo.messaging makes: the broker is verified when there is something to verify it by."""
    if not bus.ssl:
        return False
    options: dict[str, Any] = {
        name: value for name, value in (("certfile", bus.ssl_cert_file), ("keyfile", bus.ssl_key_file)) if value
    }
    if bus.ssl_ca_file:
        options.update(ca_certs=bus.ssl_ca_file, cert_reqs=ssl.CERT_REQUIRED, server_hostname=host)
    return options or True


def hang_up(connection: Any) -> None:
    """Close a connection, whatever state it is in."""
    with suppress(Exception):
        if connection.connected:
            connection.close()
    with suppress(Exception):
        connection.collect()


@contextmanager
def connected(bus: BusConfig) -> Iterator[tuple[str, Any]]:
    """An open connection to the first broker that takes one. Raises `OperatorError` with the last one's reason."""
    trouble: Trouble | None = None
    for where, connection in connections(bus):
        try:
            connection.connect()
        except Exception as error:
            trouble = explain(bus, error, where)
            hang_up(connection)
            continue
        try:
            yield where, connection
        finally:
            hang_up(connection)
        return
    raise OperatorError(trouble.sentence if trouble else f"{section(bus)} names no broker.")


def declare_exchange(bus: BusConfig, channel: Any, *, passive: bool = False) -> None:
    """Declare the exchange as oslo.messaging does."""
    channel.exchange_declare(
        bus.exchange,
        "topic",
        passive=passive,
        durable=bus.durable_queues or bus.quorum_queue,
        auto_delete=bus.auto_delete,
    )


def declare_queue(bus: BusConfig, channel: Any, name: str) -> None:
    """Declare a queue as oslo.messaging does."""
    channel.queue_declare(
        name,
        durable=bus.durable_queues or bus.quorum_queue,
        auto_delete=bus.auto_delete,
        arguments={"x-queue-type": "quorum"} if bus.quorum_queue else None,
    )


def declare_temporary(bus: BusConfig, channel: Any) -> str:
    """A queue that is exclusive to this connection, deleted with it, and bounded; its name.

    The name begins as our pool's does, since the rights of a careful operator's user end there: a name that the broker
    makes up would be refused.
    """
    name = f"{bus.pool or 'maintd'}.{secrets.token_hex(6)}"
    channel.queue_declare(
        name, exclusive=True, auto_delete=True, durable=False, arguments={"x-max-length": _MAX_TAPPED}
    )
    return name


def check(bus: BusConfig) -> Trouble | None:
    """Whether oslo.messaging can start on this bus: log in, declare what it will declare. None when all is well.

    Takes five seconds per broker of the URL at most. What is declared is exactly what oslo.messaging declares a moment
    later, so nothing is made that would not be made anyway.
    """
    if embedded(bus):
        return None
    trouble: Trouble | None = None
    try:
        for where, connection in connections(bus):
            try:
                connection.connect()
                channel = connection.channel()
                declare_exchange(bus, channel)
                for name in queues(bus):
                    declare_queue(bus, channel, name)
                return None
            except Exception as error:
                trouble = explain(bus, error, where)
            finally:
                hang_up(connection)
    except OperatorError as error:
        return Trouble(str(error), lasting=True)
    return trouble


# --- what the commands need ------------------------------------------------------------------------------------------


def queue_depths(bus: BusConfig) -> dict[str, int]:
    """Messages ready in each of our queues (those in flight are not counted); a queue that is not there is left out.

    Nothing is made or changed. Raises `OperatorError`.
    """
    return {name: int(found.message_count) for name, found in _queues_that_are(bus).items()}


def queue_readers(bus: BusConfig) -> dict[str, int]:
    """How many consumers each of our queues has, ourselves included; the same otherwise."""
    return {name: int(found.consumer_count) for name, found in _queues_that_are(bus).items()}


def _queues_that_are(bus: BusConfig) -> dict[str, Any]:
    declared = {}
    with connected(bus) as (where, connection):
        for name in queues(bus):
            channel = connection.channel()
            try:
                declared[name] = channel.queue_declare(name, passive=True)
            except amqp.NotFound:
                continue
            except Exception as error:
                raise OperatorError(explain(bus, error, where).sentence) from None
    return declared


def remove_queue(bus: BusConfig) -> list[str]:
    """Delete our queues from the broker; the names of those that were there. For `maintd bus remove`.

    The queues of Nova's shared topic are left alone, whoever reads them: without a pool and without a topic of our own
    nothing is ours. A queue that something still reads is not deleted either. Raises `OperatorError`.
    """
    if not bus.pool and bus.topic == SHARED_TOPIC:
        raise OperatorError(
            f"{section(bus)} reads Nova's own queues ({SHARED_TOPIC}.*) without a pool; they are not ours to delete."
        )
    removed = []
    with connected(bus) as (where, connection):
        for name in queues(bus):
            channel = connection.channel()
            try:
                channel.queue_declare(name, passive=True)
                channel.queue_delete(name, if_unused=True)
            except amqp.NotFound:
                continue
            except amqp.PreconditionFailed:
                raise OperatorError(
                    f"queue '{name}' on {where} is still being read: stop maintd on every controller first."
                ) from None
            except Exception as error:
                raise OperatorError(explain(bus, error, where).sentence) from None
            removed.append(name)
    return removed


def tap(
    bus: BusConfig,
    on_message: Callable[[str, str], None],
    stop: Event,
    on_state: Callable[[str, str], None] | None = None,
) -> None:
    """Hand every message of the topic to `on_message(routing_key, body)` until `stop` is set, disturbing nobody.

    A temporary queue is bound beside everybody else's: exclusive to this connection, deleted with it, bounded. That is
    why this is py-amqp and not oslo.messaging, which can only make queues that outlive their reader. `body` is the text
    exactly as it is on the wire (bytes that are no UTF-8 are replaced). `on_state(state, detail)` hears `connected` and
    `connecting`. Blocks; raises `OperatorError` when the first connection fails, and connects again after a later loss.
    What is published while the connection is lost is missed: say so in what you write down.
    """
    tell = on_state or (lambda state, detail: None)
    first = True
    while not stop.is_set():
        try:
            with connected(bus) as (where, connection):
                try:
                    _tap_once(bus, connection, on_message, stop, partial(tell, "connected", where))
                except (OSError, amqp.AMQPError) as error:
                    trouble = explain(bus, error, where)
                    if trouble.lasting:
                        raise OperatorError(trouble.sentence) from None
                    tell("connecting", trouble.sentence)
        except OperatorError as error:
            if first:
                raise
            tell("connecting", str(error))
        first = False
        stop.wait(1.0)


def text_of(message: Any) -> str:
    """A message's body as it is on the wire; bytes that are no UTF-8 are replaced."""
    body = message.body
    return body if isinstance(body, str) else bytes(body).decode("utf-8", "replace")


def _tap_once(
    bus: BusConfig,
    connection: Any,
    on_message: Callable[[str, str], None],
    stop: Event,
    tell_connected: Callable[[], None],
) -> None:
    channel = connection.channel()
    try:
        declare_exchange(bus, channel, passive=True)
    except amqp.NotFound:
        # Nova has not spoken yet; declare the exchange as it will.
        channel = connection.channel()
        declare_exchange(bus, channel)
    name = declare_temporary(bus, channel)
    for priority in PRIORITIES:
        channel.queue_bind(name, bus.exchange, f"{bus.topic}.{priority}")

    def take(message: Any) -> None:
        on_message(str(message.delivery_info.get("routing_key", "")), text_of(message))

    channel.basic_consume(name, no_ack=True, callback=take)
    tell_connected()
    while not stop.is_set():
        with suppress(TimeoutError):
            connection.drain_events(timeout=0.25)
