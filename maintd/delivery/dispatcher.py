"""The dispatcher: events become deliveries, deliveries become requests, and what came of each is written down.

Read aloud: **fan out, claim, sign, send, decide, record.** The first two and the last are transactions of the store;
signing and deciding are pure; sending is the sink's. A claim is committed before anything is sent, so a crash at any
point leaves a row whose lease runs out, and the event goes again under the same id: at least once, never silently
none.

One thread runs one asyncio loop for all requests; the store is only touched from a few executor threads, so that a
slow disk never stops an answer from being read, nor the other way round. Nobody delays anybody: each endpoint has a
bounded number of requests in flight, fewer where it fails or is slow (`breaker`), and one that is full is not claimed
for. Within an endpoint, what concerns one subject goes in event order, one at a time.

Endpoints are of two kinds: those of the configuration, which stay as they are, and subscriptions, which come and go
while we run (`subscribers`): each turn first asks whether they have changed.

Whoever commits events calls `wake`; then nothing waits for a poll. Without it (events committed by another
controller) a look once a second finds them. Nothing here repeats a request by itself, judges an event or knows a URL.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

import structlog

from maintd.clock import Clock
from maintd.delivery.breaker import YOUNG_S, Breaker, Limits, Request
from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.delivery.retry import GIVE_UP_AFTER_S, DeadLetter, RetryAt, expired, next_attempt
from maintd.delivery.routing import Route, Routes
from maintd.delivery.sinks import Endpoint, Message
from maintd.delivery.subscribers import GONE, Care, Disabled, Subscribers
from maintd.errors import OperatorError, StoreUnavailable
from maintd.store import Subscription
from maintd.store.deliveries import Attempt, Deliveries, Delivery, Finish, RoutesOutdated
from maintd.store.subscriptions import Subscriptions

log = structlog.get_logger(__name__)

POLL_S: Final = 1.0
"""Longest sleep: how late an event committed by another controller may be seen."""
LEASE_S: Final = 30.0
"""How long a claim holds, the endpoint's `overtime_s` added. Longer than the sink's deadline, short enough that a crash
delays an event little."""
FAN_OUT_EVENTS: Final = 500
HOUSEKEEPING_S: Final = 5.0
ABANDON_EVERY_S: Final = 3600.0
RECORD_AGAIN_S: Final = 0.5
BUSY: Final = 32
TOGETHER_S: Final = 0.01
"""With so many requests in flight, the ends of so long are taken together: a look at the store costs milliseconds."""
RESOLVER_THREADS: Final = 64
"""Operators' endpoints are looked up in the loop's default executor, whose own default is a handful of threads: a few
dead name servers would hold up everybody. What projects chose is looked up apart (`sinks.names`)."""
EVENT_PURGED: Final = "event_purged"
EXPIRED: Final = "expired"
"""Outcomes of deliveries that end without being sent."""
SUBSCRIPTION: Final = "subscription"
"""What all subscriptions are called in the metrics."""
BY_HAND_S: Final = 25.0
"""How long a verification or a test may take that somebody waits for: two requests, and the store."""

T = TypeVar("T")


class Meters(Protocol):
    """What is counted. Called from the dispatcher's thread; must not block."""

    def attempted(self, sink: str, outcome: str, duration_s: float) -> None:
        """An attempt ended and is recorded. `outcome`: delivered, retry or dead. `sink` is the endpoint's name, or
        `subscription`."""

    def oldest_pending(self, seconds: float) -> None:
        """The age of the oldest delivery that is not finished; 0 when there is none."""

    def subscriptions(self, counts: Mapping[str, int]) -> None:
        """How many subscriptions there are, by state."""


class NoMeters:
    """Counts nothing."""

    def attempted(self, sink: str, outcome: str, duration_s: float) -> None:
        pass

    def oldest_pending(self, seconds: float) -> None:
        pass

    def subscriptions(self, counts: Mapping[str, int]) -> None:
        pass


@dataclass(eq=False, slots=True)
class _UnderWay:
    """An attempt, from its claim until it is on record. `owner` is of the claim that holds: where a lease has run out
    under it, and the delivery was claimed by us again, of that one."""

    delivery: Delivery
    endpoint: Endpoint
    owner: str
    request: Request
    task: asyncio.Task[None] | None = None

    @property
    def sending(self) -> bool:
        return self.task is not None and not self.task.done()


@dataclass(frozen=True, slots=True)
class _Ended:
    """An attempt that is over and not yet on record; `outcome` None: nothing was sent."""

    of: _UnderWay
    outcome: Outcome | None
    finish: Finish


@dataclass(frozen=True, slots=True)
class _Looked:
    """What a look at the store found: subscriptions that have changed, and else what was claimed, and whether more
    events may wait to be fanned out."""

    rows: Sequence[Subscription] | None = None
    claimed: Sequence[Delivery] = ()
    again: bool = False


def no_crash(point: str) -> None:
    """Where a crash test kills the process: after_claim, after_post, before_record. This one does nothing."""


class Dispatcher:
    """Delivers events to endpoints until stopped. Every controller may run one on the same store."""

    def __init__(
        self,
        deliveries: Deliveries,
        endpoints: Sequence[Endpoint],
        clock: Clock,
        *,
        subscriptions: Subscriptions | None = None,
        care: Care | None = None,
        meters: Meters | None = None,
        limits: Limits | None = None,
        lease_s: float = LEASE_S,
        poll_s: float = POLL_S,
        jitter: Callable[[], float] = random.random,
        crash: Callable[[str], None] = no_crash,
        on_disabled: Callable[[str, str, float], None] = lambda endpoint, reason, failing_since: None,
    ) -> None:
        """`endpoints` are the configuration's; `subscriptions` come and go, looked after with `care`.

        `on_disabled(endpoint, reason, failing_since)` is told, on the loop, of a configured endpoint that asked for no
        more.
        """
        self._deliveries = deliveries
        self._fixed = {endpoint.name: endpoint for endpoint in endpoints}
        self._fixed_routes = [Route(endpoint.name, endpoint.event_types, configured=True) for endpoint in endpoints]
        self._fixed_disabled: Sequence[Disabled] = ()
        self._untold: list[_Ended] = []  # the attempts that disabled a configured endpoint, until that was told
        self._endpoints = dict(self._fixed)
        self._routes = Routes(self._fixed_routes)
        self._refused: frozenset[str] = frozenset()
        self._clock = clock
        self._meters: Meters = meters or NoMeters()
        self._limits = limits or Limits()
        self._breaker = Breaker(self._limits)
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._jitter = jitter
        self._crash = crash
        self._on_disabled = on_disabled

        self._name = f"{socket.gethostname()[:48]}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._claims = 0
        self._in_flight: dict[int, _UnderWay] = {}  # by delivery id
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ended: list[_Ended] = []
        self._failing: set[str] = set()
        self._store_down = False
        self._next_housekeeping = 0.0
        self._next_abandon = 0.0
        self._asked_again = False
        self._outdated = False  # subscriptions had changed when events were to be fanned out

        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._wakeup = asyncio.Event()
        self._subscribers = Subscribers(
            subscriptions,
            deliveries,
            clock,
            care or Care(),
            connections=self._limits.per_endpoint,
            wake=self._wakeup.set,
        )
        self._recordable = asyncio.Event()
        self._stopping = False
        self._stop_timeout_s = 0.0
        self._clean = False
        self._tick = clock.monotonic()

    # -- from other threads

    @property
    def tick(self) -> float:
        """`clock.monotonic()` of the last turn of the loop: a watchdog is fed only while this moves."""
        return self._tick

    def start(self) -> None:
        """Start the thread. A dispatcher is started once."""
        if self._thread is not None:
            raise RuntimeError("already started")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop,), name="maintd-delivery", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Events were committed, or something was redelivered: look now. From any thread, at any time, never waits."""
        self._call(self._wakeup.set)

    def disabled(self) -> Sequence[Disabled]:
        """The endpoints that are given up at present."""
        return [*self._fixed_disabled, *self._subscribers.disabled()]

    def verify_now(self, subscription_id: str) -> Attempt:
        """Verify a subscription's endpoint, and wait for what came of it; a success is in the row then.

        `outcome` is `verified`, `not_echoed`, or that of an attempt which failed. Raises OperatorError where it cannot
        be done now, and StoreUnavailable.
        """
        return self._wait_for(subscription_id, verify=True)

    def test_now(self, subscription_id: str) -> Attempt:
        """Send a signed test event to a subscription's endpoint, and wait for what came of it.

        A disabled one that takes it is active again. Raises OperatorError where it cannot be done now (it is not
        verified), and StoreUnavailable.
        """
        return self._wait_for(subscription_id, verify=False)

    def _wait_for(self, subscription_id: str, *, verify: bool) -> Attempt:
        if self._loop is None or self._stopping:
            raise OperatorError("maintd is stopping, or does not deliver yet; try again in a minute.")
        began = self._clock.now()
        waited = asyncio.run_coroutine_threadsafe(self._checked(subscription_id, verify), self._loop)
        try:
            return waited.result(BY_HAND_S)
        except TimeoutError:
            waited.cancel()
            return Attempt(began, BY_HAND_S, None, OutcomeKind.TIMED_OUT.value, f"no end within {BY_HAND_S:g} s")
        except CancelledError:
            raise OperatorError("maintd is stopping; try again in a minute.") from None

    async def _checked(self, subscription_id: str, verify: bool) -> Attempt:
        task = asyncio.current_task()
        if task is not None:
            self._keep(task)
        return await self._subscribers.by_hand(subscription_id, verify, self._in_store)

    def stop(self, timeout_s: float) -> bool:
        """End: claim no more, let what is in flight finish for `timeout_s`, leave the rest to its lease.

        True when everything in flight was finished and recorded. Returns within about a second of `timeout_s`.
        """

        def begin() -> None:
            self._stopping = True
            self._stop_timeout_s = timeout_s
            self._wakeup.set()

        self._call(begin)
        if self._thread is not None:
            self._thread.join(timeout_s + 1.0)
            return self._clean and not self._thread.is_alive()
        return True

    def _call(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(function)
            except RuntimeError:  # closed already: there is nobody left to tell
                pass

    # -- the thread

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        resolvers = ThreadPoolExecutor(RESOLVER_THREADS, "maintd-resolver")
        loop.set_default_executor(resolvers)
        self._store_threads = ThreadPoolExecutor(2, "maintd-delivery-store")
        try:
            loop.run_until_complete(self._main())
        except Exception:
            log.exception("delivery_died")
        finally:
            self._store_threads.shutdown(wait=False, cancel_futures=True)
            resolvers.shutdown(wait=False, cancel_futures=True)
            loop.close()

    async def _main(self) -> None:
        for endpoint in self._fixed.values():
            await endpoint.sink.open()
        recorder = asyncio.create_task(self._record_for_ever())
        try:
            while not self._stopping:
                self._tick = self._clock.monotonic()
                self._wakeup.clear()
                pause_s = await self._turn()
                if pause_s > 0 and not self._stopping:
                    await self._wait(self._wakeup, pause_s)
                if len(self._in_flight) >= BUSY:
                    await asyncio.sleep(TOGETHER_S)
            await self._wind_down()
        finally:
            recorder.cancel()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(recorder, *self._tasks, return_exceptions=True)
            await self._subscribers.close()
            for endpoint in self._fixed.values():
                await endpoint.sink.close()

    async def _turn(self) -> float:
        """One look at the store; how long to wait for a wake-up before the next (seconds)."""
        self._claims += 1
        owner = f"{self._name}:{self._claims}"
        try:
            looked = await self._in_store(
                self._look,
                asyncio.get_running_loop().time(),
                owner,
                *self._room(),
            )
            if looked.rows is not None:
                await self._take(looked.rows)
                return 0.0
            if looked.claimed:
                self._crash("after_claim")
            for delivery in looked.claimed:
                self._spawn(delivery, owner)
            self._subscribers.begin_checks(self._in_store)
            await self._keep_house()
            pause_s = 0.0 if looked.again else self._shortened(await self._in_store(self._pause_s))
            self._store_is(up=True)
        except StoreUnavailable as error:
            self._store_is(up=False, why=str(error))
            return self._poll_s
        except Exception:
            log.exception("delivery_turn_failed")
            return self._poll_s
        return pause_s

    def _room(self) -> tuple[dict[str, int], int]:
        """How many more each endpoint may have in flight (the full ones are left out), and all together.

        A request that has ended gives its place to the next before it is on record: else all would wait for the store
        together. What waits for the store is bounded as well, by `in_all`.
        """
        time = asyncio.get_running_loop().time()
        requests = [one.request for one in self._in_flight.values() if one.sending]
        free = min(self._breaker.free(requests, time), self._limits.in_all - len(self._in_flight))
        return self._breaker.room(self._endpoints, requests, time), max(free, 0)

    async def _take(self, rows: Sequence[Subscription]) -> None:
        """Send to the subscriptions that there are now."""
        unused, some_gone = await self._subscribers.take(rows)
        for endpoint in unused:
            self._breaker.forget(endpoint.name)
            self._failing.discard(endpoint.name)
            self._keep(asyncio.get_running_loop().create_task(self._retire(endpoint)))
        self._endpoints = self._fixed | self._subscribers.endpoints
        self._routes = Routes([*self._fixed_routes, *self._subscribers.routes()])
        self._refused = self._subscribers.refused()
        self._meters.subscriptions(self._subscribers.counts())
        if some_gone:
            await self._in_store(self._deliveries.abandon_deleted, self._clock.now())

    async def _retire(self, endpoint: Endpoint) -> None:
        """Close an endpoint when its last request has ended."""
        under_way = [one.task for one in self._in_flight.values() if one.endpoint is endpoint and one.task is not None]
        try:
            if under_way:
                await asyncio.wait(under_way)
        finally:
            await endpoint.sink.close()

    async def _wind_down(self) -> None:
        """Let requests in flight end and be recorded, for the time `stop` gave."""
        deadline = asyncio.get_running_loop().time() + self._stop_timeout_s
        while self._in_flight:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                log.warning("deliveries_left_to_their_lease", count=len(self._in_flight))
                return
            self._wakeup.clear()
            await self._wait(self._wakeup, left_s)
        self._clean = True

    # -- stages

    def _look(self, time: float, owner: str, room: dict[str, int], limit: int) -> _Looked:
        """Fan out, and claim; or only read the subscriptions, where they have changed. In a store thread."""
        rows = self._subscribers.read(time)
        if rows is not None:
            return _Looked(rows)
        again = self._outdated
        if again:
            self._outdated = False  # changes that come faster than they are read must not hold up what is due
        else:
            try:
                again = self._fan_out() > 0
            except RoutesOutdated:
                self._outdated = True
                return _Looked(self._subscribers.read(time, soon=False), again=True)
        overtime = {name: endpoint.overtime_s for name in room if (endpoint := self._endpoints[name]).overtime_s}
        now = self._clock.now()  # anew: a lease must not be shorter by what the fan-out has waited for
        claimed = self._deliveries.claim(owner, now, self._lease_s, limit, room=room, overtime=overtime)
        return _Looked(None, claimed, again)

    def _fan_out(self) -> int:
        """How many events were taken. In a store thread."""
        known = self._subscribers.version
        return self._deliveries.fan_out(self._routes, self._clock.now(), FAN_OUT_EVENTS, self._refused, known)

    async def _deliver(self, of: _UnderWay) -> None:
        """Sign, send, decide, and hand over to be recorded. Whatever goes wrong in here leaves it to its lease."""
        delivery, endpoint = of.delivery, of.endpoint
        try:
            at, began = self._clock.now(), self._clock.monotonic()
            outcome = None
            finish = _unsent(delivery, of.owner, at)
            if finish is None:
                outcome = await self._send(endpoint, delivery, at)
                self._crash("after_post")
                took_s = self._clock.monotonic() - began
                if self._endpoints.get(endpoint.name) is endpoint:  # else another has its name by now
                    self._breaker.ended(
                        endpoint.name,
                        delivered=outcome.delivered,
                        answered=outcome.status is not None,
                        took_s=took_s,
                        now=asyncio.get_running_loop().time(),
                    )
                finish = self._decide(delivery, of.owner, outcome, at, took_s)
            self._crash("before_record")
        except Exception:
            log.exception("delivery_left_to_its_lease", endpoint=delivery.endpoint, event_id=delivery.event_id)
            self._forget(of)
            return
        self._ended.append(_Ended(of, outcome, finish))
        self._recordable.set()
        self._wakeup.set()

    async def _send(self, endpoint: Endpoint, delivery: Delivery, at: float) -> Outcome:
        """Sign and send. A sink that raises is our fault, but counts as an attempt: it must not go on for ever."""
        message = Message(
            delivery.event_id,
            endpoint.signer.headers(delivery.event_id, at, delivery.body),
            delivery.body.encode(),
        )
        try:
            return await endpoint.sink.send(message)
        except Exception as error:
            log.exception("sink_failed", endpoint=endpoint.name)
            return Outcome(OutcomeKind.BROKEN, detail=f"maintd failed: {type(error).__name__}")

    def _decide(self, delivery: Delivery, owner: str, outcome: Outcome, at: float, duration_s: float) -> Finish:
        """What follows from an outcome."""
        attempt = Attempt(at, duration_s, outcome.status, outcome.kind.value, outcome.detail)
        if outcome.delivered:
            return Finish(delivery.id, owner, attempt, "delivered")
        next_one = next_attempt(
            delivery.attempts + 1, outcome, self._clock.now(), delivery.created_at, jitter=self._jitter()
        )
        match next_one:
            case RetryAt(due_at):
                return Finish(delivery.id, owner, attempt, "pending", due_at)
            case DeadLetter(reason):
                attempt = replace(attempt, detail=f"{reason}; {attempt.detail}".rstrip("; "))
                return Finish(delivery.id, owner, attempt, "dead")

    async def _record_for_ever(self) -> None:
        """Write down attempts that are over: all that have come together meanwhile, in one transaction.

        However long the store is away: a lease that has run out meanwhile still counts while nobody else has taken it.
        """
        while True:
            await self._recordable.wait()
            self._recordable.clear()
            while self._ended:
                batch = [replace(one, finish=replace(one.finish, owner=one.of.owner)) for one in self._ended]
                self._ended = []
                try:
                    recorded = await self._in_store(self._record, batch)
                except StoreUnavailable as error:
                    self._store_is(up=False, why=str(error))
                    self._ended = batch + self._ended
                    await asyncio.sleep(RECORD_AGAIN_S)
                    continue
                except Exception:
                    log.exception("deliveries_not_recorded", count=len(batch))
                    recorded = [False] * len(batch)
                for ended, kept in zip(batch, recorded, strict=True):
                    if not kept and ended.finish.owner != ended.of.owner:
                        self._ended.append(ended)  # it was claimed by us again at that moment
                        continue
                    self._tell(ended, kept)
                    self._forget(ended.of)
                while self._untold:
                    self._tell_disabled(self._untold.pop(0))

    def _record(self, batch: Sequence[_Ended]) -> list[bool]:
        """Which were recorded; that an endpoint was disabled by it is told afterwards. In a store thread."""
        for ended in batch:  # before anything is recorded: else what comes next would be called up, and sent
            name, outcome, attempt = ended.of.endpoint.name, ended.outcome, ended.finish.attempt
            if name in self._fixed and outcome is not None and outcome.disables:
                if self._deliveries.disable(name, f"the endpoint answered {outcome.status}", attempt.ended_at):
                    self._untold.append(ended)
        recorded = self._deliveries.finish_many([ended.finish for ended in batch])
        for ended, kept in zip(batch, recorded, strict=True):
            if kept and ended.outcome is not None and ended.of.endpoint.name not in self._fixed:
                self._note(ended.of.endpoint, ended.outcome, ended.finish.attempt)
        if self._untold:
            self._fixed_disabled = self._disabled_of_fixed()
        return recorded

    def _note(self, endpoint: Endpoint, outcome: Outcome, attempt: Attempt) -> None:
        """What an attempt says of a subscription's endpoint. In a store thread."""
        try:
            self._subscribers.ended(endpoint, outcome, attempt)
        except (StoreUnavailable, OperatorError) as error:  # the next attempt says it again
            log.warning("subscription_not_noted", endpoint=endpoint.name, why=str(error))

    def _disabled_of_fixed(self) -> Sequence[Disabled]:
        """The configured endpoints that are given up; by any controller. In a store thread."""
        found = self._deliveries.disabled().items()
        return [Disabled(name, since, GONE, since) for name, (since, _) in found if name in self._fixed]

    # -- around them

    def _spawn(self, delivery: Delivery, owner: str) -> None:
        known = self._in_flight.get(delivery.id)
        if known is not None and (known.sending or _same_attempt(known.delivery, delivery)):
            known.owner = owner  # the lease ran out under it, and goes on by this claim
            return
        loop, endpoint = asyncio.get_running_loop(), self._endpoints[delivery.endpoint]
        new = self._in_flight[delivery.id] = _UnderWay(delivery, endpoint, owner, Request(endpoint.name, loop.time()))
        new.task = loop.create_task(self._deliver(new))
        self._keep(new.task)

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task until it ends, as the loop does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _forget(self, one: _UnderWay) -> None:
        """An attempt is over; the next may have been claimed before we heard that this one is on record."""
        if self._in_flight.get(one.delivery.id) is one:
            del self._in_flight[one.delivery.id]
        self._wakeup.set()

    def _tell(self, ended: _Ended, kept: bool) -> None:
        """Count, and log what an operator must know: not each failure, but an endpoint's turn for worse or better."""
        name, attempt = ended.of.endpoint.name, ended.finish.attempt
        if not kept:
            log.warning("delivery_lease_lost", endpoint=name, event_id=ended.of.delivery.event_id)
            return
        word = {"delivered": "delivered", "pending": "retry", "dead": "dead"}[ended.finish.state]
        self._meters.attempted(name if name in self._fixed else SUBSCRIPTION, word, attempt.duration_s)
        if ended.outcome is None:
            log.info("delivery_unsent", endpoint=name, event_id=ended.of.delivery.event_id, outcome=attempt.outcome)
            return
        log.debug("attempted", endpoint=name, event_id=ended.of.delivery.event_id, outcome=attempt.outcome)
        if word == "delivered":
            if name in self._failing:
                self._failing.remove(name)
                log.warning("endpoint_recovered", endpoint=name)
        elif name not in self._failing:
            self._failing.add(name)
            log.warning(
                "endpoint_failing",
                endpoint=name,
                outcome=attempt.outcome,
                status=attempt.status,
                detail=attempt.detail,
            )
        if word == "dead":
            log.warning(
                "delivery_given_up",
                endpoint=name,
                event_id=ended.of.delivery.event_id,
                event_type=ended.of.delivery.event_type,
                detail=attempt.detail,
            )

    def _tell_disabled(self, ended: _Ended) -> None:
        name, attempt = ended.of.endpoint.name, ended.finish.attempt
        log.warning("endpoint_disabled", endpoint=name, status=attempt.status)
        since = ended.of.delivery.first_failed_at
        try:
            self._on_disabled(name, attempt.outcome, attempt.at if since is None else since)
        except Exception:
            log.exception("on_disabled_failed", endpoint=name)

    def _pause_s(self) -> float:
        """How long nothing will be due. In a store thread.

        What is due already and was not claimed belongs to an endpoint that is full, and the end of one of its
        requests wakes us.
        """
        due_at = self._deliveries.next_due_at()
        left_s = self._poll_s if due_at is None else due_at - self._clock.now()
        return self._poll_s if left_s <= 0 else min(left_s, self._poll_s)

    def _shortened(self, pause_s: float) -> float:
        """A pause that ends when there is room again without a request's end, or when a check is due."""
        time = asyncio.get_running_loop().time()
        tried_at, checked_at = self._breaker.next_end_of_pause(time), self._subscribers.next_check_at()
        left = [YOUNG_S / 4] if self._in_flight and not self._room()[1] else []
        left += [] if tried_at is None else [tried_at - time]
        left += [max(self._subscribers.read_again_at - time, 0.001)] if self._subscribers.put_off else []
        left += [] if checked_at is None else [checked_at - self._clock.now()]
        return min([pause_s, *(one for one in left if one > 0)])

    async def _keep_house(self) -> None:
        """The chores: enable after a restart, mend, give up on endpoints that are no more, the gauge."""
        time = asyncio.get_running_loop().time()
        if time < self._next_housekeeping:
            return
        self._next_housekeeping = time + HOUSEKEEPING_S
        now = self._clock.now()
        if not self._asked_again:
            for name in self._fixed:
                await self._in_store(self._deliveries.enable, name)
            self._asked_again = True
        if time >= self._next_abandon:
            self._next_abandon = time + ABANDON_EVERY_S
            await self._in_store(self._deliveries.abandon, tuple(self._fixed), now - GIVE_UP_AFTER_S, now)
            await self._in_store(self._deliveries.abandon_deleted, now)
            await self._in_store(self._subscribers.sweep)
        if await self._in_store(self._deliveries.mend, now):
            self._wakeup.set()
        self._fixed_disabled = await self._in_store(self._disabled_of_fixed)
        oldest = await self._in_store(self._deliveries.oldest_pending_at)
        self._meters.oldest_pending(0.0 if oldest is None else max(now - oldest, 0.0))

    def _store_is(self, *, up: bool, why: str = "") -> None:
        """Say once when the store goes and once when it is back."""
        if up == self._store_down:
            self._store_down = not up
            if up:
                log.warning("delivery_store_back")
            else:
                log.warning("delivery_store_unavailable", why=why)

    async def _in_store(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._store_threads, function, *arguments)

    @staticmethod
    async def _wait(event: asyncio.Event, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await event.wait()


def _same_attempt(one: Delivery, other: Delivery) -> bool:
    """Whether nothing was recorded between these two claims: a record counts an attempt, a redelivery is made anew."""
    return (one.attempts, one.created_at) == (other.attempts, other.created_at)


def _unsent(delivery: Delivery, owner: str, at: float) -> Finish | None:
    """The end of a delivery that must not be sent: its event was purged, or it is too old."""
    old = expired(delivery.event_type, delivery.created_at, at)
    if not delivery.body:
        why = Attempt(at, 0.0, None, EVENT_PURGED, "the event was purged before it could be delivered")
    elif old is not None:
        why = Attempt(at, 0.0, None, EXPIRED, old.reason)
    else:
        return None
    return Finish(delivery.id, owner, why, "dead")
