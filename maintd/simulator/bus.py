"""Where the simulated Nova's notifications go: a message bus, a recording file, or both.

Every adapter is a callable `(routing_key, inner_message)`, as `Cloud` wants it. `OsloBus` sends through
oslo.messaging's own drivers (`fake://`, `kombu+memory://`, `rabbit://`) with the ids the simulator gave, which is why
it does not use oslo's Notifier: that one makes up its own. `AmqpBus` writes the same bytes with nothing but kombu, for
loads that oslo.messaging cannot make. `Recorder` writes the lines that `maintd replay` reads.

Publishing blocks as Nova's does; `Queued` puts a thread in between where the cloud must not wait for its broker.
"""

from __future__ import annotations

import importlib
import json
import queue
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from oslo_config import cfg

from maintd.clock import Clock
from maintd.messaging import oslo_messaging  # imports it the one safe way, and does nothing else
from maintd.simulator.notifications import TOPIC, Json

Publish = Callable[[str, Json], None]
kombu: Any = importlib.import_module("kombu")  # untyped, and its exports are lazy


def wire_body(inner: Json) -> str:
    """The bytes of a message as driver `messagingv2` sends them: envelope 2.0, JSON inside JSON."""
    return json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(inner)})


class OsloBus:
    """Publishes through oslo.messaging.

    `retry` is oslo's: None or -1 blocks until the broker is there, 0 gives up at once, which raises. Pass `transport`
    to share one; then `close` leaves it alone.
    """

    def __init__(
        self, url: str = "fake://", *, exchange: str = "nova", retry: int | None = None, transport: Any = None
    ) -> None:
        self._own = transport is None
        self._exchange = exchange
        self._retry = retry
        if transport is None:
            conf = cfg.ConfigOpts()
            conf([], project="simulator", default_config_files=[], default_config_dirs=[])
            transport = oslo_messaging.get_notification_transport(conf, url=url)
        self.transport = transport

    def __call__(self, routing_key: str, inner: Json) -> None:
        context = {key.removeprefix("_context_"): value for key, value in inner.items() if key.startswith("_context_")}
        message = {
            key: value for key, value in inner.items() if not key.startswith("_context_") and key != "_unique_id"
        }
        target = oslo_messaging.Target(topic=routing_key, exchange=self._exchange)
        self.transport._send_notification(target, context, message, version=2.0, retry=self._retry)

    def close(self) -> None:
        if self._own:
            self.transport.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AmqpBus:
    """Publishes with kombu alone: the same exchange, keys and bytes at several times the speed.

    Like Nova's publisher it declares the queues `<topic>.info` and `<topic>.error`, which fill if nobody reads them;
    `declare_queues=False` leaves that out. `confirm` waits for the broker's word on every message, as oslo does.
    """

    def __init__(self, url: str, *, exchange: str = "nova", declare_queues: bool = True, confirm: bool = False) -> None:
        self._connection = kombu.Connection(url, transport_options={"confirm_publish": confirm})
        channel = self._connection.channel()
        self._exchange = kombu.Exchange(exchange, type="topic", durable=False)
        self._producer = kombu.Producer(channel, exchange=self._exchange)
        self._exchange(channel).declare()
        if declare_queues:
            for priority in ("info", "error"):
                key = f"{TOPIC}.{priority}"
                kombu.Queue(key, self._exchange, routing_key=key, durable=False, auto_delete=False)(channel).declare()

    def __call__(self, routing_key: str, inner: Json) -> None:
        self.send_body(routing_key, wire_body(inner))

    def send_body(self, routing_key: str, body: str) -> None:
        """Send a body that is ready, as a benchmark does with what it made before."""
        self._producer.publish(
            body, routing_key=routing_key, content_type="application/json", content_encoding="utf-8", delivery_mode=2
        )

    def close(self) -> None:
        self._connection.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Recorder:
    """Writes what is published as lines of a recording, and passes it on if there is somewhere to pass it to."""

    def __init__(self, path: str | Path, clock: Clock, then: Publish | None = None) -> None:
        self._file = open(path, "w", encoding="utf-8")  # noqa: SIM115 - closed by close()
        self._clock = clock
        self._then = then

    def __call__(self, routing_key: str, inner: Json) -> None:
        at = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self._file.write(
            json.dumps({"at": at, "kind": "notification", "routing_key": routing_key, "body": wire_body(inner)}) + "\n"
        )
        if self._then is not None:
            self._then(routing_key, inner)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Queued:
    """A thread between the cloud and its bus: the cloud never waits, order is kept, nothing is dropped.

    What the bus raises is kept in `errors`; the message is tried again until it goes out or `close` is called.
    """

    def __init__(self, publish: Publish, *, retry_s: float = 0.2) -> None:
        self._publish = publish
        self._retry_s = retry_s
        self._waiting: queue.Queue[tuple[str, Json] | None] = queue.Queue()
        self._closing = threading.Event()
        self.errors: list[Exception] = []
        self._thread = threading.Thread(target=self._run, name="simulator-bus", daemon=True)
        self._thread.start()

    def __call__(self, routing_key: str, inner: Json) -> None:
        self._waiting.put((routing_key, inner))

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            while True:
                try:
                    self._publish(*item)
                    break
                except Exception as error:  # any driver's; the broker may be away, which is what tests do to it
                    self.errors.append(error)
                    if self._closing.wait(self._retry_s):
                        return

    def close(self, timeout_s: float = 10.0) -> None:
        """Send what is waiting, for at most so many seconds if the bus fails, then end the thread."""
        self._waiting.put(None)
        self._thread.join(timeout_s)
        self._closing.set()
        self._thread.join(1.0)


def tee(*receivers: Publish) -> Publish:
    """One publisher that hands every message to all of these, in this order."""

    def publish(routing_key: str, inner: Json) -> None:
        for receiver in receivers:
            receiver(routing_key, inner)

    return publish
