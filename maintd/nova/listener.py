"""Intake: Nova's notifications from one bus, in order, committed first and acknowledged after.

oslo.messaging keeps the connection: it logs in, declares and binds, sends heartbeats, fails over and reconnects. What
happens to a message is ours, because oslo's own dispatcher reorders a batch by priority and raises on a message without
a priority, and its driver acknowledges one message at a time and some never (those whose id it remembers from before a
lost connection). So an `Intake` runs a `BatchNotificationServer` with hands of its own and takes the messages where the
driver's consumer gets them (`_Direct`). Should a later oslo.messaging have moved those places, or should the transport
be one of the in-process ones, they come through the driver's own poll (`_Polled`): slower, no less safe.

One thread, oslo's listener thread, does it all in turn: receive what is there, hand the batch to `admit`, acknowledge
the batch with one frame. Nothing is ever raised into oslo. What cannot be read is handed to `admit` as `Quarantined`,
beside the batch it came in.

While the store is away the batch in hand stays unacknowledged and is offered again and again, with heartbeats kept up
between; the prefetch limit bounds what is held meanwhile. After `max_pause_s` the intake declares itself blind,
acknowledges and drops, so that the broker does not fill up, and keeps the last batch to learn when the store is back.

What it does not do: it knows no event type, drops no duplicates (`admit` does, by `message_id`: everything here is at
least once), and decides nothing about what a gap in the stream means. It tells of gaps through `on_state`.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import amqp  # type: ignore[import-untyped]

from maintd import messaging
from maintd.domain.quarantine import Quarantined
from maintd.errors import LeaseLost, StoreUnavailable
from maintd.messaging import driver_common, listener, oslo_messaging
from maintd.nova import broker
from maintd.nova.broker import PRIORITIES, queue_depths, queue_readers, remove_queue, tap
from maintd.nova.notifications.envelope import Notification, Unreadable, read_message

if TYPE_CHECKING:
    from maintd.clock import Clock
    from maintd.config import BusConfig

__all__ = ["Intake", "queue_depths", "remove_queue", "tap"]

LOG = logging.getLogger(__name__)

Admit = Callable[[Sequence[Notification], Sequence[Quarantined]], None]
OnState = Callable[[str, str, str], None]

_IDLE_S = 0.5
"""How long a poll waits for a first message; also how soon a stop is noticed."""
_NOTHING_MORE_S = 0.001
"""A batch ends when the socket has been silent for so long."""
_RETRY_S = (0.25, 0.5, 1.0, 2.0)
"""Waits between offers of a batch to a store that is away."""
_RECONNECT_S = (0.5, 1.0, 2.0, 5.0, 10.0, 15.0)
"""Waits between attempts to start on a broker that does not let us."""
_REPEAT_S = 300.0
"""The same complaint is logged again after so long."""
_SHARED_S = 5.0
"""How often we look who else reads our queue while nothing can be kept."""
_TEXT = 255
"""Longest event type or message id kept of a message in quarantine."""


# --- reading ---------------------------------------------------------------------------------------------------------


def _read(body: str | bytes, at: float, bus: str) -> Notification:
    """The notification in a wire body. Raises `Unreadable` and nothing else."""
    try:
        message = json.loads(body)
        if isinstance(message, dict) and "oslo.message" in message:
            version = message.get("oslo.version")
            if version != "2.0":
                raise Unreadable(f"envelope version {version!r:.40} is not 2.0")
            message = json.loads(message["oslo.message"])
    except Unreadable:
        raise
    except Exception as wrong:  # json raises more than ValueError: RecursionError, TypeError, UnicodeDecodeError
        raise Unreadable(f"the body is not JSON ({wrong!s:.200})") from None
    return _judge(message, at, bus)


def _judge(message: Any, at: float, bus: str) -> Notification:
    try:
        notification = read_message(message, received_at=at, bus=bus)
        if type(message.get("priority", "")) is not str:
            raise Unreadable("priority must be a text")
        if type(notification.payload) is not dict:
            raise Unreadable("the payload is not an object")
    except Unreadable:
        raise
    except Exception as wrong:
        raise Unreadable(f"{type(wrong).__name__}: {wrong!s:.200}") from None
    return notification


def _set_aside(body: str | bytes, at: float, bus: str, reason: str) -> Quarantined:
    """The quarantine entry of a body, with as much of its names as can be read."""
    names: dict[str, str | None] = {"event_type": None, "message_id": None}
    try:
        message = json.loads(body)
        if isinstance(message, dict) and isinstance(message.get("oslo.message"), str):
            message = json.loads(message["oslo.message"])
        for name in names:
            value = message.get(name)
            names[name] = value[:_TEXT] if isinstance(value, str) else None
    except Exception:  # noqa: S110 - it is unreadable, that is why we are here
        pass
    raw = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)
    return Quarantined(at, bus, reason, names["event_type"], names["message_id"], raw)


# --- feeds: where messages come from ---------------------------------------------------------------------------------


class _Feed(Protocol):
    """What a batch is taken from. Only the listener thread calls it, `close` excepted."""

    def take(self, limit: int, linger_s: float) -> list[Any]:
        """Up to so many raw messages: those at hand, after waiting `_IDLE_S` at most for a first one."""
        ...

    def read(self, raw: Any, at: float, bus: str) -> Notification | Quarantined: ...

    def acknowledge(self, batch: list[Any]) -> None: ...

    def set_aside(self, raw: Any, at: float, bus: str, reason: str) -> Quarantined: ...

    def breathe(self, seconds: float) -> bool:
        """Keep the connection alive for so long; false when the batch in hand will be delivered again."""
        ...

    def lost(self, bus: BusConfig) -> str: ...

    def session(self) -> object | None:
        """What changes when a connection was lost and made again; None while there is none."""
        ...

    def stop(self) -> None: ...

    def close(self) -> None: ...


class _Unsuitable(Exception):
    """This oslo.messaging, or this transport, has no place where `_Direct` could stand."""


class _Direct:
    """Messages straight from the consumers of oslo's rabbit driver.

    Each consumer's callback is replaced by `_arrive`, so the driver neither parses nor rejects nor deduplicates; its
    connection still does everything else. Reading on is done on the kombu connection while there is something to read,
    and by the driver's `consume`, which handles every failure, when there is nothing at hand. Messages of a channel
    that is gone are dropped: the broker delivers them again on the next one.
    """

    def __init__(self, polled: Any) -> None:
        try:
            self._connection = polled.conn.connection
            consumers = list(self._connection._consumers)
            kombu_connection = self._connection.connection
            suitable = (
                kombu_connection.transport.driver_type == "amqp"
                and consumers
                and all(callable(consumer._callback) for consumer in consumers)
                and callable(self._connection.channel.connection.drain_events)
                and callable(self._connection.consume)
                and callable(self._connection.channel.basic_ack)
            )
        except AttributeError as missing:
            raise _Unsuitable(str(missing)) from None
        if not suitable:
            raise _Unsuitable("the transport is not AMQP")
        for consumer in consumers:
            consumer._callback = self._arrive
        self._polled = polled
        self._arrived: deque[Any] = deque()
        self._channel: Any = None
        self._error: BaseException | None = None

    def _arrive(self, raw: Any) -> None:
        if raw.channel is not self._channel:
            self._arrived.clear()
            self._channel = raw.channel
        self._arrived.append(raw)

    def take(self, limit: int, linger_s: float) -> list[Any]:
        arrived = self._arrived
        if not arrived:
            self._consume(_IDLE_S)
        if arrived and len(arrived) < limit:
            enough = _monotonic() + linger_s
            try:
                # The channel's own connection: kombu's would silently make a new one, on which nobody consumes.
                drain = self._connection.channel.connection.drain_events
                while len(arrived) < limit and _monotonic() < enough:
                    drain(timeout=_NOTHING_MORE_S)
            except TimeoutError:
                pass
            except amqp.ConsumerCancelled:
                raise  # the queue is gone and the connection stands: the driver would never consume again
            except Exception as error:
                # The next `consume` meets the same broken connection, inside the driver's own care.
                self._error = error
        if arrived and arrived[0].channel is not self._connection.channel:
            arrived.clear()
        return [arrived.popleft() for _ in range(min(limit, len(arrived)))]

    def _consume(self, seconds: float) -> None:
        try:
            self._connection.consume(timeout=seconds)
        except driver_common.Timeout:
            pass

    def read(self, raw: Any, at: float, bus: str) -> Notification | Quarantined:
        body: str | bytes = raw.body
        try:
            if raw.properties.get("application_headers"):
                body = raw.channel.message_to_python(raw).body  # the body may be compressed
            return _read(body, at, bus)
        except Unreadable as why:
            return _set_aside(body, at, bus, str(why))
        except Exception as wrong:
            return _set_aside(body, at, bus, f"{type(wrong).__name__}: {wrong!s:.200}")

    def set_aside(self, raw: Any, at: float, bus: str, reason: str) -> Quarantined:
        return _set_aside(raw.body, at, bus, reason)

    def acknowledge(self, batch: list[Any]) -> None:
        # Tags rise in the order of delivery, and everything before this batch is acknowledged already.
        last = batch[-1]
        try:
            last.channel.basic_ack(last.delivery_tag, multiple=True)
        except Exception as error:
            LOG.debug("%d messages could not be acknowledged and will come again: %s", len(batch), error)
            self._error = error

    def breathe(self, seconds: float) -> bool:
        channel = self._connection.channel
        until = _monotonic() + seconds
        while (left := until - _monotonic()) > 0:
            self._consume(left)
            if self._connection.channel is not channel:
                return False
        return True

    def session(self) -> object | None:
        kombu_connection = self._connection.connection
        if kombu_connection is None or not kombu_connection.connected:
            return None
        channel: object | None = self._connection.channel
        return channel

    def lost(self, bus: BusConfig) -> str:
        """Why the connection was lost, if it showed here first and not in the driver."""
        error, self._error = self._error, None
        if error is None:
            return ""
        kombu_connection = self._connection.connection
        return broker.explain(bus, error, f"{kombu_connection.hostname}:{kombu_connection.port}").sentence

    def stop(self) -> None:
        """Nothing to do: `take` returns soon by itself."""

    def close(self) -> None:
        self._polled._message_operations_handler.stop()
        self._polled.conn.close()


class _Remembers16:
    """Stands in for the driver's cache of ids, and remembers none: what it remembers it never acknowledges."""

    def check_duplicate_message(self, message: dict[str, Any]) -> Any:
        return message.pop("_unique_id", None)

    def add(self, unique_id: object) -> None:
        """Forget it."""


class _Polled:
    """Messages from a driver's own poll: the in-process transports, or a rabbit driver that `_Direct` cannot enter."""

    def __init__(self, polled: Any) -> None:
        self._polled = polled
        self.stopping = False
        if hasattr(polled, "msg_id_cache"):
            polled.msg_id_cache = _Remembers16()

    def take(self, limit: int, linger_s: float) -> list[Any]:
        batch: list[Any] = self._polled.poll(timeout=_IDLE_S if not self.stopping else 0.0)
        enough = _monotonic() + linger_s
        while batch and len(batch) < limit and _monotonic() < enough:
            more = self._polled.poll(timeout=_NOTHING_MORE_S)
            if not more:
                break
            batch += more
        return batch

    @staticmethod
    def _message(raw: Any) -> dict[str, Any]:
        message = dict(raw.message)
        context = raw.ctxt or {}
        for key, value in (context if isinstance(context, dict) else context.to_dict()).items():
            message.setdefault(f"_context_{key}", value)
        return message

    def read(self, raw: Any, at: float, bus: str) -> Notification | Quarantined:
        try:
            return _judge(self._message(raw), at, bus)
        except Unreadable as why:
            return self.set_aside(raw, at, bus, str(why))
        except Exception as wrong:
            return self.set_aside(raw, at, bus, f"{type(wrong).__name__}: {wrong!s:.200}")

    def set_aside(self, raw: Any, at: float, bus: str, reason: str) -> Quarantined:
        try:
            body = json.dumps(self._message(raw), default=str)
        except Exception:
            body = ""
        return _set_aside(body, at, bus, reason)

    def acknowledge(self, batch: list[Any]) -> None:
        for raw in batch:
            raw.acknowledge()
        operations = getattr(self._polled, "_message_operations_handler", None)
        if operations is not None:
            operations.process()

    def breathe(self, seconds: float) -> bool:
        # No way in without taking messages; the driver notices a lost connection at the next poll.
        threading.Event().wait(seconds)
        return True

    def lost(self, bus: BusConfig) -> str:
        return ""

    def session(self) -> object | None:
        return self

    def stop(self) -> None:
        self.stopping = True
        self._polled.stop()

    def close(self) -> None:
        self._polled.cleanup()


def _monotonic() -> float:
    """For waits on sockets only, which no test may slow down or hurry; everything that is decided goes by the clock."""
    return time.monotonic()


# --- oslo.messaging's server, with our hands -------------------------------------------------------------------------


class _Dispatcher:
    """What oslo's server asks a dispatcher for; the work is `Intake`'s."""

    supported_priorities = PRIORITIES
    serializer = None

    def dispatch(self, incoming: Sequence[Any]) -> set[Any]:
        """Never called: `_Server` hands batches to the intake. Requeues nothing."""
        return set()


class _Pump:
    """Stands where oslo's listener thread looks for a poll-style listener, and polls the feed for it."""

    def __init__(self, run: _Run, feed: _Feed, prefetch: int) -> None:
        self._run, self._feed, self.prefetch_size = run, feed, prefetch

    def poll(self, timeout: float | None = None, batch_size: int = 1, batch_timeout: float | None = None) -> list[Any]:
        """One turn. Whatever goes wrong ends this run and is told by its intake: oslo hears an empty batch."""
        try:
            return self._run.turn(self._feed, batch_size, batch_timeout or 0.0)
        except BaseException as error:
            self._run.broken = error
            self._run.over.wait(1.0)
            return []

    def stop(self) -> None:
        self._feed.stop()

    def cleanup(self) -> None:
        self._feed.close()


class _Server(listener.BatchNotificationServer):  # type: ignore[misc]
    """oslo's batch server, whose listener thread works on the batches itself."""

    run: _Run

    def _create_listener(self) -> Any:
        adapter = super()._create_listener()
        polled = adapter._poll_style_listener
        feed: _Feed
        try:
            feed = _Direct(polled)
        except _Unsuitable as why:
            LOG.debug("messages come through the driver's own poll: %s", why)
            feed = _Polled(polled)
        self.run.feed = feed
        adapter._poll_style_listener = _Pump(self.run, feed, polled.prefetch_size)
        return adapter

    def _on_incoming(self, incoming: list[Any]) -> None:
        try:
            self.run.handle(incoming)
        except BaseException as error:
            self.run.broken = error


class _DriverLog(logging.Filter):
    """Reads what the rabbit driver only logs: why a connection is lost, and what it threw away by itself.

    What has been understood becomes a state with a sentence, or a quarantine entry, and its line (repeated at each
    attempt, or with a traceback) is not printed. Records of other threads than the run's are somebody else's.
    """

    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def filter(self, record: logging.LogRecord) -> bool:
        """False for a line that has been understood."""
        try:
            if record.levelno < logging.WARNING or record.thread not in self._run.threads:
                return True
            arguments = record.args if isinstance(record.args, dict) else {}
            error = arguments.get("err_str")
            if isinstance(error, BaseException):
                where = f"{arguments['hostname']}:{arguments['port']}" if arguments.get("port") else ""
                self._run.reason = broker.explain(self._run.intake.bus, error, where).sentence
                return False
            if isinstance(record.args, tuple) and str(record.msg).startswith("Connection failed: "):
                self._run.reason = broker.explain(self._run.intake.bus, OSError(str(record.args[0]))).sentence
                return False
            if record.exc_info and "Failed to process message" in str(record.msg):
                self._run.rejected.append(f"the driver rejected it: {record.exc_info[1]!s:.200}")
                return False
        except Exception:
            LOG.debug("a line of the driver's could not be understood", exc_info=True)
        return True


# --- one connection's life -------------------------------------------------------------------------------------------


class _Run:
    """One server from its start to its end. A run that is `over` admits nothing more, even if it cannot be stopped."""

    def __init__(self, intake: Intake) -> None:
        self.intake = intake
        self.over = threading.Event()
        self.broken: BaseException | None = None
        self.feed: _Feed | None = None
        self.threads: set[int] = set()
        self.reason = ""
        self.rejected: deque[str] = deque(maxlen=1000)
        self.handled_at = intake.clock.monotonic()
        self.started = False
        self.busy = False
        self._session: object | None = None
        self._server: _Server | None = None
        self._log = _DriverLog(self)

    def start(self) -> None:
        """Make and start the server; blocks as long as the broker does not answer. In a thread of its own."""
        self.threads.add(threading.get_ident())
        driver_log = logging.getLogger(messaging.DRIVER_LOG)
        driver_log.addFilter(self._log)
        intake = self.intake
        try:
            server = _Server(
                intake._transport(),
                [oslo_messaging.Target(topic=intake.bus.topic, exchange=intake.bus.exchange)],
                _Dispatcher(),
                allow_requeue=True,
                pool=intake.bus.pool,
                batch_size=intake.batch_size,
                batch_timeout=intake.batch_timeout_s,
            )
            server.run = self
            self._server = server
            server.start(override_pool_size=1)
            self.started = True
        except BaseException as error:
            self.broken = error
            driver_log.removeFilter(self._log)
        if self.over.is_set():
            self.end(5.0)

    def end(self, timeout_s: float) -> bool:
        """Stop, giving what is unacknowledged back. False when it could not be done in time; it then ends by itself."""
        self.over.set()
        server = self._server
        if server is None or not self.started:
            # The driver still tries to connect, and cannot be told to stop; `start` ends this run when it is through.
            return self.broken is not None or server is None

        def stop() -> None:
            try:
                server.stop()
                server.wait()
            except Exception as error:
                LOG.debug("stopping the listener: %s", error)
            logging.getLogger(messaging.DRIVER_LOG).removeFilter(self._log)

        stopper = threading.Thread(target=stop, name=f"maintd-intake-{self.intake.bus.name}-end", daemon=True)
        stopper.start()
        stopper.join(timeout_s)
        return not stopper.is_alive()

    # --- the listener thread

    def turn(self, feed: _Feed, limit: int, linger_s: float) -> list[Any]:
        """Look after the connection, then take what has arrived."""
        intake = self.intake
        self.threads.add(threading.get_ident())
        if self.over.is_set():
            if isinstance(feed, _Polled) and feed.stopping:
                return feed.take(limit, 0.0)
            time.sleep(0.01)
            return []
        if self.broken is not None:
            self.over.wait(0.2)
            return []
        batch = feed.take(limit, linger_s)
        intake.last_tick = intake.clock.monotonic()
        self._look(feed)
        if not batch:
            if self.rejected:
                intake._offer(self, feed, [], *self._driver_rejected())
            intake._retry_blind()
        return [] if self.over.is_set() and isinstance(feed, _Direct) else batch

    def _look(self, feed: _Feed) -> None:
        """Tell of a connection lost or made again."""
        session = feed.session()
        if session is self._session:
            return
        intake = self.intake
        if self._session is not None:
            why = self.reason or feed.lost(intake.bus) or "the connection to RabbitMQ was lost."
            intake._tell("connecting", why)
        self._session = session
        if session is not None:
            intake._connected()
            self.reason = ""

    def handle(self, incoming: list[Any]) -> None:
        """One batch: read, admit, acknowledge."""
        feed = self.feed
        if feed is None or (self.over.is_set() and isinstance(feed, _Direct)):
            return
        intake = self.intake
        at, bus = intake.clock.now(), intake.bus.name
        notifications: list[Notification] = []
        unreadable, _ = self._driver_rejected() if self.rejected else ([], None)
        read = feed.read
        origins: list[Any] = []
        for raw in incoming:
            message = read(raw, at, bus)
            if type(message) is Notification:
                notifications.append(message)
                origins.append(raw)
            else:
                unreadable.append(message)  # type: ignore[arg-type]
        self.busy = True
        if intake._offer(self, feed, notifications, unreadable, origins):
            feed.acknowledge(incoming)
            self.handled_at = intake.clock.monotonic()
        self.busy = False

    def _driver_rejected(self) -> tuple[list[Quarantined], list[Any]]:
        """What the driver threw away by itself since last asked."""
        found = []
        while self.rejected:
            reason = self.rejected.popleft()
            found.append(Quarantined(self.intake.clock.now(), self.intake.bus.name, reason, None, None, b""))
        return found, []


# --- the intake ------------------------------------------------------------------------------------------------------


class Intake:
    """Everything Nova says on one bus, handed to `admit` in batches, in the order of arrival, at least once.

    `admit(notifications, quarantined)` commits a batch in one transaction and returns; only then is it acknowledged.
    It raises `StoreUnavailable` when nothing could be committed: the batch is kept and offered again. It raises
    `LeaseLost` when this process may not write any more: nothing is acknowledged, the connection is closed, and `start`
    begins anew when the lease is back. Whatever else it raises is a fault of ours: logged, the batch offered again one
    message at a time, and the message at fault set aside in quarantine.

    `on_state(bus, state, detail)` hears each change, from a thread of the intake's, with a sentence for the operator:

    - `connecting`: no connection; what is published meanwhile waits in the queue, unless the broker lost the queue;
    - `connected`: messages flow. After any other state, a gap is possible: read the API;
    - `paused`: the store is away, or the lease is; nothing is acknowledged;
    - `blind`: away for longer than `[bus] max_pause_s`; messages since `blind_from` are acknowledged and dropped;
    - `failed`: something that only an operator can mend (credentials, virtual host, a mismatch); tried again anyway.

    Durations are in seconds. `clock` decides about pauses and ticks; waits on sockets go by real time.
    """

    def __init__(
        self,
        bus: BusConfig,
        admit: Admit,
        on_state: OnState,
        clock: Clock,
        *,
        batch_size: int = 100,
        batch_timeout_s: float = 0.02,
        stuck_after_s: float = 60.0,
    ) -> None:
        self.bus = bus
        self.clock = clock
        self.batch_size = batch_size
        self.batch_timeout_s = batch_timeout_s
        self.state = "connecting"
        self.detail = ""
        self.last_tick = clock.monotonic()
        self.blind_from: float | None = None
        """When the first message was received that was dropped, in seconds since the epoch; None while not blind."""
        self.last_blind: tuple[float, float, int] | None = None
        """The last blind time that ended: from, to, messages dropped."""
        self.dropped = 0
        self.handled = 0
        self.quarantined = 0
        self.reconnects = 0
        self.restarts = 0
        self._admit, self._on_state = admit, on_state
        self._stuck_after_s = stuck_after_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._run: _Run | None = None
        self._paused_at: float | None = None
        self._next_try_at = 0.0
        self._last_dropped: tuple[list[Notification], list[Quarantined]] | None = None
        self.given_up = False
        """Whether it has left the queue to another maintd, until it is started again."""
        self._told: tuple[str, str] | None = None
        self._logged_at = 0.0
        self._connections = 0
        self._clean = True
        self._lock = threading.Lock()

    # --- called by the application

    def start(self) -> None:
        """Begin; returns at once. While it runs, does nothing; after `stop` or a lost lease, begins anew."""
        if self._thread is not None and self._thread.is_alive() and not self._stop.is_set():
            return
        # An event of its own for each start: a thread that hung when it was told to stop must never start again.
        stop = self._stop = threading.Event()
        self._paused_at, self._told, self._clean, self.given_up = None, None, True, False
        self._thread = threading.Thread(
            target=self._supervise, args=(stop,), name=f"maintd-intake-{self.bus.name}", daemon=True
        )
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """End; the batch in hand is finished if its `admit` returns, everything else goes back to the queue.

        Always returns within `timeout_s`. False when something still hangs (a database, a broker that does not answer
        while we connect): its thread is a daemon, admits nothing more, and does not keep the process alive.
        """
        until = _monotonic() + timeout_s
        self._stop.set()
        run = self._run
        if run is not None:
            run.over.set()
        thread = self._thread
        if thread is None:
            return True
        thread.join(max(0.0, until - _monotonic()))
        return not thread.is_alive() and self._clean

    def healthy(self, now: float) -> bool:
        """Whether the intake's threads have moved within the last minute; `now` is the clock's monotonic time.

        A broker or a store that is away is not ill health: restarting the daemon would not mend it.
        """
        return now - self.last_tick < 60.0

    # --- the supervisor's thread

    def _supervise(self, stop: threading.Event) -> None:
        attempt = 0
        while not stop.is_set():
            self.last_tick = self.clock.monotonic()
            try:
                trouble = broker.check(self.bus)
            except Exception as error:
                LOG.exception("bus %s: asking the broker failed", self.bus.name)
                trouble = broker.Trouble(f"asking the broker failed: {error}.", lasting=False)
            if trouble is not None:
                self._tell("failed" if trouble.lasting else "connecting", trouble.sentence)
                stop.wait(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])
                attempt += 1
                continue
            if stop.is_set():
                break
            began = self.clock.monotonic()
            if self._one_run(stop):
                return
            attempt = 0 if self.clock.monotonic() - began > 60.0 else attempt + 1
            stop.wait(_RECONNECT_S[min(attempt, len(_RECONNECT_S) - 1)])

    def _one_run(self, stop: threading.Event) -> bool:
        """Serve until told to stop (true) or until this server is of no use any more (false)."""
        run = self._run = _Run(self)
        starter = threading.Thread(target=run.start, name=f"maintd-intake-{self.bus.name}-run", daemon=True)
        starter.start()
        looked_at = shared_at = self.clock.monotonic()
        while not stop.wait(0.1):
            if run.broken is not None:
                break
            if not run.started:
                self.last_tick = self.clock.monotonic()
                if run.reason:
                    self._tell("connecting", run.reason)
            elif self.clock.monotonic() - max(looked_at, run.handled_at) > self._stuck_after_s:
                looked_at = self.clock.monotonic()
                if self.state == "connected" and not run.busy and (why := self._stuck(run)):
                    self._tell("connecting", f"{why}; connecting anew.")
                    self.restarts += 1
                    break
            if self.state in ("paused", "blind") and self.clock.monotonic() - shared_at > _SHARED_S:
                shared_at = self.clock.monotonic()
                if self._is_shared():
                    # We cannot keep what we hold, and whoever can is not given it as long as we hold it.
                    run.broken = LeaseLost("another maintd reads our queue while our store is away")
                    self.given_up = True
        lost = isinstance(run.broken, LeaseLost)
        if lost:
            self._tell("paused", "another maintd holds the fleet lease now.")
        elif run.broken is not None and not stop.is_set():
            self._tell("connecting", broker.explain(self.bus, run.broken).sentence)
        self._clean = run.end(10.0)
        return stop.is_set() or lost

    def _stuck(self, run: _Run) -> str:
        """Why nothing comes although the thread is free to take it: our queue is gone, or messages wait in it. Empty
        where neither is so."""
        if broker.embedded(self.bus):
            return ""
        handled_at = run.handled_at
        try:
            # Twice, because a message may be between the queue and us at any moment.
            for pause_s in (1.0, 0.0):
                depths = queue_depths(self.bus)
                gone = len(depths) < len(broker.queues(self.bus))
                if not gone and not any(depths.values()):
                    return ""
                if run.over.wait(pause_s):
                    return ""
        except Exception:
            return ""  # a broker that cannot be asked is not a reason to hang up on it
        if run.busy or run.handled_at != handled_at:
            return ""
        return "our queue is gone" if gone else "messages wait and none arrives"

    def _is_shared(self) -> bool:
        """Whether somebody else consumes our queues: while our store is away, that is who holds the fleet lease now."""
        if broker.embedded(self.bus):
            return False
        try:
            return any(readers > 1 for readers in queue_readers(self.bus).values())
        except Exception:
            return False

    def _transport(self) -> Any:
        # Enough that the broker fills up while a batch is worked on, more than the driver's sixteen remembered ids,
        # and few enough to hold in memory while the store is away.
        prefetch = {"rabbit_qos_prefetch_count": max(100, 3 * self.batch_size)}
        return messaging.transport(self.bus.transport_url, self.bus.rabbit_options() | prefetch)

    def _connected(self) -> None:
        """A connection stands, and messages flow through it."""
        self._connections += 1
        self.reconnects = self._connections - 1
        if self.blind_from is not None:
            self._tell("blind", "connected again; the store is still not usable, messages are dropped.")
        else:
            self._tell("connected", "connected again." if self.reconnects else "connected.")

    def _tell(self, state: str, detail: str) -> None:
        """Change state, and say so once."""
        with self._lock:
            if self._told == (state, detail):
                if state == "connected" or self.clock.monotonic() - self._logged_at < _REPEAT_S:
                    return
                LOG.warning("bus %s still %s: %s", self.bus.name, state, detail)
                self._logged_at = self.clock.monotonic()
                return
            self._told = (state, detail)
            self._logged_at = self.clock.monotonic()
            self.state, self.detail = state, detail
        if self._stop.is_set():
            return
        level = logging.INFO if state == "connected" else logging.WARNING
        LOG.log(level, "bus %s %s: %s", self.bus.name, state, detail)
        try:
            self._on_state(self.bus.name, state, detail)
        except Exception:
            LOG.exception("bus %s: on_state failed", self.bus.name)

    # --- the listener thread: giving batches to the store

    def _offer(
        self, run: _Run, feed: _Feed, notifications: list[Notification], aside: list[Quarantined], origins: list[Any]
    ) -> bool:
        """Have a batch committed. True when it may be acknowledged, false when it will be delivered again."""
        attempt = 0
        while True:
            if self.blind_from is not None and self.clock.monotonic() < self._next_try_at:
                self._drop(notifications, aside)
                return True
            try:
                self._commit(notifications, aside, origins, feed)
                self._saw_store()
                return True
            except StoreUnavailable as why:
                now = self.clock.monotonic()
                if self.blind_from is not None:
                    self._next_try_at = now + _RETRY_S[-1]
                    continue
                if self._paused_at is None:
                    self._paused_at = now
                if now - self._paused_at >= self.bus.max_pause_s:
                    self._go_blind(notifications, aside, why)
                    continue
                self._tell("paused", f"the store is not usable ({why}); nothing is acknowledged until it is.")
            wait_s = _RETRY_S[min(attempt, len(_RETRY_S) - 1)]
            attempt += 1
            until = _monotonic() + wait_s
            while (left := until - _monotonic()) > 0:
                self.last_tick = self.clock.monotonic()
                if run.over.is_set() or not feed.breathe(min(left, _IDLE_S)):
                    return False

    def _commit(
        self, notifications: list[Notification], aside: list[Quarantined], origins: list[Any], feed: _Feed
    ) -> None:
        """Call `admit`, and when it fails by our fault find the message at fault. Raises what stops the intake."""
        try:
            self._admit(notifications, aside)
        except (StoreUnavailable, LeaseLost):
            raise
        except Exception:
            LOG.exception(
                "bus %s: a batch of %d messages could not be handled; trying them one by one",
                self.bus.name,
                len(notifications) + len(aside),
            )
        else:
            self.handled += len(notifications)
            self.quarantined += len(aside)
            return
        # What succeeds here is taken out of the lists: after a StoreUnavailable the rest is offered again.
        while aside:
            self._set_aside(aside[0])
            del aside[0]
        while notifications:
            first = notifications[0]
            try:
                self._admit(notifications[:1], ())
                self.handled += 1
            except (StoreUnavailable, LeaseLost):
                raise
            except Exception as fault:
                LOG.error("bus %s: %s %s goes to quarantine", self.bus.name, first.event_type[:_TEXT], first.message_id)
                reason = f"maintd failed on it: {type(fault).__name__}: {fault!s:.200}"
                self._set_aside(feed.set_aside(origins[0], first.received_at, self.bus.name, reason))
            del notifications[0], origins[0]

    def _set_aside(self, message: Quarantined) -> None:
        try:
            self._admit((), (message,))
            self.quarantined += 1
        except (StoreUnavailable, LeaseLost):
            raise
        except Exception:
            LOG.exception("bus %s: a message could not even be set aside and is lost", self.bus.name)

    def _go_blind(self, notifications: list[Notification], aside: list[Quarantined], why: Exception) -> None:
        self.blind_from = min(
            [message.received_at for message in notifications] + [message.at for message in aside],
            default=self.clock.now(),
        )
        self._next_try_at = self.clock.monotonic() + _RETRY_S[-1]
        self._tell(
            "blind",
            f"the store has not been usable for {self.bus.max_pause_s:g} s ({why}); messages are dropped from now on, "
            "so that the broker does not fill up.",
        )

    def _drop(self, notifications: list[Notification], aside: list[Quarantined]) -> None:
        self.dropped += len(notifications) + len(aside)
        if notifications or aside:
            self._last_dropped = (notifications, aside)

    def _retry_blind(self) -> None:
        """While blind and with nothing arriving, find out by the last dropped batch whether the store is back."""
        if self.blind_from is None or self._last_dropped is None or self.clock.monotonic() < self._next_try_at:
            return
        notifications, aside = self._last_dropped
        try:
            self._admit(notifications, aside)
        except StoreUnavailable:
            self._next_try_at = self.clock.monotonic() + _RETRY_S[-1]
            return
        except LeaseLost:
            raise
        except Exception:
            LOG.exception("bus %s: the last batch before the store came back is lost", self.bus.name)
        else:
            self.dropped -= len(notifications) + len(aside)
        self._saw_store()

    def _saw_store(self) -> None:
        """The store took something: whatever pause there was is over."""
        if self._paused_at is None and self.blind_from is None:
            return
        detail = "the store is usable again."
        if self.blind_from is not None:
            self.last_blind = (self.blind_from, self.clock.now(), self.dropped)
            detail = f"the store is usable again; {self.dropped} messages were dropped."
        self._paused_at, self.blind_from, self._last_dropped, self.dropped = None, None, None, 0
        self._tell("connected", detail)
