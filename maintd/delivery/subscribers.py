"""Subscriptions as endpoints: which are sent to, which are still to be verified, which are given up and tried again.

The rows are the truth (`maintd.store.subscriptions`); any controller may change one, and every change is a version.
What is here of them is a copy, made anew when there is another version. Three things become of it:

- *endpoints* of the active ones, with their routes; a disabled one keeps its route, so that what it misses is a dead
  letter that can be sent again, and a paused or unverified one has none. One whose secret cannot be decrypted keeps
  its route too, and what it is to get waits for the key;
- *checks*: a verification before the first event, by the CloudEvents handshake (the endpoint allows our origin) or by
  a challenge that comes back; and one signed test event now and then to a disabled one, which is active again when it
  takes it. A check is claimed by moving its time on in the row: one controller makes it, and a crash leaves it to the
  next time;
- *failing*: what an endpoint's attempts came to. That it fails is put into its row when it has lasted a minute; from
  then on every controller counts from the same moment, and whoever sees it fail for too long disables it. An endpoint
  that comes and goes within a minute changes no row.

It sends no event of the log and retries nothing: that is the dispatcher's. Whoever disables says nothing to operators
either: the row says it, and the holder of the fleet makes the event of it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import Any, Final, Protocol

import structlog

from maintd.clock import Clock
from maintd.delivery.egress import Egress
from maintd.delivery.outcome import Outcome
from maintd.delivery.routing import Route
from maintd.delivery.signing import Signer
from maintd.delivery.sinks import Endpoint, Message
from maintd.delivery.sinks.names import ProjectNames
from maintd.delivery.sinks.webhook import ALLOWED_ORIGIN, Answer, WebhookSink
from maintd.delivery.subscription_events import allows, echoes, event_to_test, event_to_verify
from maintd.domain.events import CloudEvent, instant_text
from maintd.errors import OperatorError, StoreUnavailable
from maintd.store import Attempt, Subscription
from maintd.store.deliveries import Deliveries
from maintd.store.subscriptions import ACTIVE, DISABLED, ENDPOINT_PREFIX, PAUSED, STATES, UNVERIFIED, Subscriptions

log = structlog.get_logger(__name__)

VERIFY_AGAIN_S: Final = (5.0, 30.0, 120.0, 600.0, 1800.0, 7200.0)
"""After a verification that failed, how long until the next; then it waits to be asked for by hand."""
FAILING_AFTER_S: Final = 60.0
"""How long an endpoint has to fail before its row says so."""
CHECKS_AT_ONCE: Final = 64
READING_SHARE: Final = 0.2
"""Reading what has changed may take this share of the time, however often they change."""

VERIFIED: Final = "verified"
NOT_ECHOED: Final = "not_echoed"
"""Outcomes of a verification, beside those of every attempt."""
FAILING: Final = "failing"
GONE: Final = "gone"
"""Why an endpoint was given up."""


@dataclass(frozen=True, slots=True)
class Care:
    """How subscriptions are looked after. `origin` is what we call ourselves when we ask whether we may send."""

    installation: str = "main"
    origin: str = "main"
    give_up_after_s: float = 432000.0
    probe_every_s: float = 3600.0
    egress: Egress | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that was given up: a subscription's id or a webhook's name, when, why, and how long it had failed."""

    endpoint: str
    at: float
    reason: str
    failing_since: float | None


class InStore(Protocol):
    """Runs something that touches the store in one of the store's threads."""

    def __call__(self, function: Callable[..., Any], *arguments: object) -> Awaitable[Any]: ...


class Subscribers:
    """The subscriptions of one dispatcher. All on its loop, except what says that it runs in a store thread."""

    def __init__(
        self,
        rows: Subscriptions | None,
        deliveries: Deliveries,
        clock: Clock,
        care: Care,
        *,
        connections: int,
        wake: Callable[[], None],
    ) -> None:
        """Without `rows` there are none. `wake` is called, on the loop, when a check has ended."""
        self._rows = rows
        self._deliveries = deliveries
        self._clock = clock
        self._care = care
        self._connections = connections
        self._names = ProjectNames()
        self._wake = wake
        self.version: tuple[int, int] | None = None
        """Of the rows that are known; None before the first reading."""
        self.read_again_at = 0.0
        """Before this moment the rows are not read anew, whatever has changed."""
        self.put_off = False
        """Whether the last look was before that moment."""
        self._known: dict[str, Subscription] = {}  # by endpoint
        self._open: dict[str, tuple[Endpoint, Subscription]] = {}  # with the row that each was made of
        self._failing_since: dict[str, float] = {}  # not in the row yet; by endpoint
        self._checking: dict[str, asyncio.Task[None]] = {}
        self._unreadable: Sequence[str] = ()

    # -- what there is

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """Those that events are sent to, open."""
        return {name: endpoint for name, (endpoint, _) in self._open.items()}

    def read(self, now: float, *, soon: bool = True) -> Sequence[Subscription] | None:
        """All rows, where they have changed since the last reading. In a store thread; `now` is the loop's time, and
        how long a reading takes is measured by the same clock: the other may be set by hand.

        `soon`: not yet, where reading would take too much of the time.
        """
        self.put_off = soon and now < self.read_again_at
        if self._rows is None or self.put_off:
            return None
        version = self._rows.version()
        if version == self.version:
            return None
        began = time.monotonic()
        known = self._known
        rows = self._rows.all(lambda subscription_id: known.get(ENDPOINT_PREFIX + subscription_id))
        unreadable = [one.id for one in rows if not one.secrets]
        if unreadable and unreadable != self._unreadable:
            log.error(
                "subscriptions_unreadable",
                count=len(unreadable),
                subscription=unreadable[0],
                detail="their secrets cannot be decrypted, so nothing is sent to them; what there is for them waits. "
                "Put the key they were encrypted with into [subscriptions] key_file again, and restart maintd.",
            )
        self._unreadable = unreadable
        self.version = version
        self.read_again_at = now + (time.monotonic() - began) / READING_SHARE
        return rows

    async def take(self, rows: Sequence[Subscription]) -> tuple[Sequence[Endpoint], bool]:
        """Put these in the place of what was known; the endpoints that are no more used, still open, and whether any
        subscription is no more."""
        before = self._known
        # We may have changed one since these rows were read.
        rows = [was if (was := before.get(one.endpoint)) and was.version > one.version else one for one in rows]
        self._known = {one.endpoint: one for one in rows}
        old, self._open = self._open, {}
        for one in rows:
            was = before.get(one.endpoint)
            if was is not None and was.failing_since is not None and one.failing_since is None:
                self._failing_since.pop(one.endpoint, None)  # it was taken, as another controller saw
            if one.state == ACTIVE and one.secrets:
                # Not what was known last: a check may have put a row there that the endpoint was not made of.
                made, of = old.get(one.endpoint, (None, one))
                if made is not None and _sent_alike(of, one):
                    del old[one.endpoint]
                else:
                    made = await self._opened(one)
                if made is not None:
                    self._open[one.endpoint] = made, one
        gone = before.keys() - self._known.keys()
        for name in gone:
            self._failing_since.pop(name, None)
        return [endpoint for endpoint, _ in old.values()], bool(gone)

    def routes(self) -> Iterable[Route]:
        """What active and disabled ones want."""
        for one in self._known.values():
            if one.state in (ACTIVE, DISABLED):
                yield Route(
                    one.endpoint,
                    one.event_types,
                    project_id=one.project_id,
                    servers=frozenset(one.servers),
                    metadata_key=one.metadata_key,
                )

    def refused(self) -> frozenset[str]:
        """Those for which an event is a dead letter at once."""
        return frozenset(one.endpoint for one in self._known.values() if one.state == DISABLED)

    def counts(self) -> Mapping[str, int]:
        """State -> how many."""
        return dict.fromkeys(STATES, 0) | Counter(one.state for one in self._known.values())

    def disabled(self) -> Iterable[Disabled]:
        """Those that were given up. From any thread."""
        for one in list(self._known.values()):
            if one.state == DISABLED and one.disabled_at is not None:
                yield Disabled(one.id, one.disabled_at, GONE if one.probe_at is None else FAILING, one.failing_since)

    async def close(self) -> None:
        for task in self._checking.values():
            task.cancel()
        await asyncio.gather(*self._checking.values(), return_exceptions=True)
        for endpoint, _ in self._open.values():
            await endpoint.sink.close()
        self._names.close()

    # -- how their endpoints do

    def ended(self, endpoint: Endpoint, outcome: Outcome, attempt: Attempt) -> None:
        """An attempt has ended and is on record. In a store thread; writes only where something has changed.

        What an endpoint says that is not used any more is no news of the one in its place.
        """
        name = endpoint.name
        one, (used, made_of) = self._known.get(name), self._open.get(name, (None, None))
        if one is not None and one.state == DISABLED and not outcome.delivered:
            self._give_up_what_waits(one)  # it was under way when the others were given up
        if one is None or made_of is None or used is not endpoint or made_of.url != one.url:
            return
        if outcome.delivered:
            # The copy may be older than the row, so what is remembered counts as well.
            had_failed = self._failing_since.pop(name, None) is not None
            if (had_failed or one.failing_since is not None) and one.state == ACTIVE:
                self._changed(one, lambda row: replace(row, failing_since=None) if row.state == ACTIVE else row)
            return
        at = attempt.ended_at
        if outcome.disables:
            self._give_up(one, at, f"the endpoint answered {outcome.status}", probe_at=None)
        elif one.failing_since is None:
            if at - self._failing_since.setdefault(name, attempt.at) >= FAILING_AFTER_S:
                # From now on, not from what this controller remembers: another may have seen a success since.
                self._changed(one, lambda row: replace(row, failing_since=row.failing_since or attempt.at))
        elif at - one.failing_since >= self._care.give_up_after_s:
            if self._deliveries.delivered_since(name, one.failing_since):
                # Another controller had a success before it knew that there was a failure to end.
                self._changed(one, lambda row: replace(row, failing_since=attempt.at))
                return
            since = instant_text(one.failing_since)
            self._give_up(one, at, f"it has failed since {since}", probe_at=at + self._care.probe_every_s)

    def _give_up(self, one: Subscription, at: float, reason: str, probe_at: float | None) -> None:
        def how(row: Subscription) -> Subscription:
            if row.state != ACTIVE or row.url != one.url:
                return row
            return replace(
                row,
                state=DISABLED,
                reason=reason,
                disabled_at=at,
                probe_at=probe_at,
                failing_since=row.failing_since or at,
                updated_at=at,
            )

        row = self._changed(one, how)
        if row is not None and row.state == DISABLED:
            self._deliveries.give_up(one.endpoint, reason, at)
            log.error("subscription_disabled", subscription=one.id, reason=reason)

    def _give_up_what_waits(self, one: Subscription) -> None:
        """What was made before an endpoint was disabled; what was redelivered since waits until it is enabled."""
        if one.disabled_at is not None:
            self._deliveries.give_up(one.endpoint, one.reason or "", self._clock.now(), made_by=one.disabled_at)

    def sweep(self) -> None:
        """Give up what waits for disabled endpoints and was not when they were disabled. In a store thread."""
        for one in list(self._known.values()):
            if one.state == DISABLED:
                self._give_up_what_waits(one)

    def _changed(self, one: Subscription, how: Callable[[Subscription], Subscription]) -> Subscription | None:
        """The row as it stands then; ours is the same from here on. In a store thread."""
        if self._rows is None:
            return None
        row = self._rows.change(one.id, how)
        known = self._known
        if row is not None and one.endpoint in known:
            known[one.endpoint] = row
        return row

    # -- checks

    def begin_checks(self, in_store: InStore) -> None:
        """Begin what is due: verifications, and looks at disabled ones."""
        now = self._clock.now()
        for one in [one for one in self._known.values() if (due := _check_due_at(one)) is not None and due <= now]:
            if len(self._checking) >= CHECKS_AT_ONCE:
                return
            if one.endpoint not in self._checking:
                task = asyncio.get_running_loop().create_task(self._check_claimed(one, in_store))
                self._checking[one.endpoint] = task

    def next_check_at(self) -> float | None:
        """When the next check is due that is not under way."""
        due = [_check_due_at(one) for one in self._known.values() if one.endpoint not in self._checking]
        return min((at for at in due if at is not None), default=None)

    async def _check_claimed(self, one: Subscription, in_store: InStore) -> None:
        try:
            if await in_store(self._claimed, one):
                await (self.verify if one.state == UNVERIFIED else self.test)(one, in_store)
            self._wake()
        except (StoreUnavailable, OperatorError) as error:  # it is due still, and begun again at the next turn
            log.warning("subscription_not_checked", subscription=one.id, why=str(error))
        except Exception:
            log.exception("subscription_not_checked", subscription=one.id)
        finally:
            del self._checking[one.endpoint]

    def _claimed(self, one: Subscription) -> bool:
        """Whether the check is ours: then its next time is in the row. In a store thread."""
        now, mine = self._clock.now(), False

        def how(row: Subscription) -> Subscription:
            nonlocal mine
            due_at = _check_due_at(row)
            mine = row.state == one.state and due_at is not None and due_at <= now
            if not mine:
                return row
            if row.state == DISABLED:
                return replace(row, probe_at=now + self._care.probe_every_s)
            tries = row.verify_tries
            again_at = now + VERIFY_AGAIN_S[tries] if tries < len(VERIFY_AGAIN_S) else None
            return replace(row, verify_due_at=again_at, verify_tries=tries + 1)

        self._changed(one, how)
        return mine

    async def by_hand(self, subscription_id: str, verify: bool, in_store: InStore) -> Attempt:
        """Verify or test one now, whatever its time is. Raises OperatorError where that cannot be."""
        one = None if self._rows is None else await in_store(self._rows.get, subscription_id)
        if one is None:
            raise OperatorError(f"There is no subscription {subscription_id}.")
        if verify:
            return await self.verify(one, in_store)
        if one.state == UNVERIFIED or (one.state == PAUSED and one.verified_at is None):
            raise OperatorError("The subscription is not verified: nothing else is sent to its endpoint before it is.")
        return await self.test(one, in_store)

    async def verify(self, one: Subscription, in_store: InStore) -> Attempt:
        """Ask an endpoint whether it agrees to be sent events, and put what it said into the row."""
        at, began = self._clock.now(), self._clock.monotonic()
        sink = self._sink(one)
        await sink.open()
        try:
            answer = await sink.consent()
            word, detail = str(answer.outcome.kind), answer.outcome.detail
            if allows(self._care.origin, answer.headers.get(ALLOWED_ORIGIN)):
                word, detail = VERIFIED, f"{ALLOWED_ORIGIN} allows {self._care.origin}"
            elif answer.outcome.status is not None:  # somebody is there
                challenge = token_hex(16)
                event = event_to_verify(self._care.installation, one.id, str(uuid.uuid4()), challenge, at)
                answer = await self._send(sink, one, event, at)
                word, detail = str(answer.outcome.kind), answer.outcome.detail
                if answer.outcome.delivered and echoes(challenge, answer.body):
                    word, detail = VERIFIED, "the challenge came back"
                elif answer.outcome.delivered:
                    word, detail = NOT_ECHOED, f"the answer is not the challenge: {detail}".rstrip(": ")
        finally:
            await sink.close()
        attempt = Attempt(at, self._clock.monotonic() - began, answer.outcome.status, word, detail)
        await in_store(self._keep_verification, one, attempt)
        return attempt

    def _keep_verification(self, one: Subscription, attempt: Attempt) -> None:
        """In a store thread."""

        def how(row: Subscription) -> Subscription:
            if row.url != one.url:
                return row  # another endpoint meanwhile, to be verified by itself
            if attempt.outcome == VERIFIED:
                state = ACTIVE if row.state == UNVERIFIED else row.state
                return _healthy(replace(row, state=state, verified_at=attempt.at, verify_due_at=None), attempt.at)
            if row.state != UNVERIFIED:
                return row
            then = "" if row.verify_due_at is not None else "; not tried again until it is asked for"
            said = f"{attempt.outcome}: {attempt.detail}" if attempt.detail else attempt.outcome
            return replace(row, reason=f"not verified: {said}{then}")

        row = self._changed(one, how)
        if attempt.outcome == VERIFIED:
            log.info("subscription_verified", subscription=one.id, state=None if row is None else row.state)

    async def test(self, one: Subscription, in_store: InStore) -> Attempt:
        """Send a test event; a disabled endpoint that takes it is active again, one that answers 410 is left alone."""
        at, began = self._clock.now(), self._clock.monotonic()
        sink = self._sink(one)
        await sink.open()
        try:
            event = event_to_test(self._care.installation, one.id, str(uuid.uuid4()), at)
            outcome = (await self._send(sink, one, event, at)).outcome
        finally:
            await sink.close()
        attempt = Attempt(at, self._clock.monotonic() - began, outcome.status, str(outcome.kind), outcome.detail)
        await in_store(self._keep_test, one, outcome, attempt)
        return attempt

    def _keep_test(self, one: Subscription, outcome: Outcome, attempt: Attempt) -> None:
        """In a store thread."""

        def how(row: Subscription) -> Subscription:
            if row.state != DISABLED or row.url != one.url:
                return row
            if outcome.delivered:
                return _healthy(row, attempt.at)
            return replace(row, probe_at=None) if outcome.disables else row

        row = self._changed(one, how)
        if one.state == DISABLED and row is not None and row.state == ACTIVE:
            log.warning("subscription_active_again", subscription=one.id)

    # -- their sinks

    def _sink(self, one: Subscription) -> WebhookSink:
        return WebhookSink(
            one.url,
            self._clock,
            one.secrets,
            egress=self._care.egress,
            origin=self._care.origin,
            resolver=None if one.project_id is None else self._names.resolver(one.project_id),
            connections=self._connections,
        )

    async def _opened(self, one: Subscription) -> Endpoint | None:
        """None, and a line in the log, for a row that nobody checked before it was written."""
        try:
            endpoint = Endpoint(one.endpoint, one.event_types, Signer(one.secrets, one.previous_until), self._sink(one))
        except OperatorError as wrong:
            log.error("subscription_unusable", subscription=one.id, detail=str(wrong))
            return None
        await endpoint.sink.open()
        return endpoint

    async def _send(self, sink: WebhookSink, one: Subscription, event: CloudEvent, at: float) -> Answer:
        body = event.as_json()
        headers = Signer(one.secrets, one.previous_until).headers(event.id, at, body)
        return await sink.ask(Message(event.id, headers, body.encode()))


def _sent_alike(one: Subscription, other: Subscription) -> bool:
    """Whether the same endpoint serves both."""
    return (one.url, one.secrets, one.previous_until) == (other.url, other.secrets, other.previous_until)


def _check_due_at(one: Subscription) -> float | None:
    if not one.secrets:
        return None  # nothing can be signed for it
    match one.state:
        case "unverified":
            return one.verify_due_at
        case "disabled":
            return one.probe_at
    return None


def _healthy(row: Subscription, at: float) -> Subscription:
    """The row of an endpoint that was seen to be there."""
    state = ACTIVE if row.state == DISABLED else row.state
    reason = None if state == ACTIVE else row.reason
    return replace(row, state=state, reason=reason, failing_since=None, disabled_at=None, probe_at=None, updated_at=at)
