"""The one door into the fleet: observations in, state and events out, in one transaction.

Everything that is seen comes through here, from whichever thread saw it, one batch at a time: reduce each observation
over the fleet in memory, collect what changed, commit it together with the events and the notifications' message ids,
then wake whoever delivers. If the commit fails, the fleet is put back as it was and the caller is told, so that
nothing is acknowledged that was not kept. *Commit, then acknowledge; save, then send.*

It does not listen, ask, schedule or deliver, and it has no database of its own: `keep` is the store's commit, or
nothing at all (replay). A notification that makes our own code fail is set aside in quarantine, alone, with its
neighbours unharmed.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from maintd.clock import Clock
from maintd.domain.events import CloudEvent, Event, publish
from maintd.domain.fleet import Fleet, Outcome, Undo
from maintd.domain.model import Because, Curve, Entity, Verification
from maintd.domain.observations import BusSeen, ComputeHeard, Observation, TimerDue
from maintd.domain.quarantine import Quarantined
from maintd.domain.reducer import reduce
from maintd.domain.tenant_events import TenantEvent, publish_to_tenant
from maintd.errors import LeaseLost, StoreUnavailable
from maintd.nova.notifications import (
    Notification,
    Unreadable,
    event_type_label,
    is_unversioned,
    normalise,
    speaking_compute,
)

T = TypeVar("T")

CHUNK = 500
"""How many observations at most share a transaction where they do not have to (lists of the API)."""


@dataclass(slots=True)
class Batch:
    """What one transaction will hold."""

    saved: dict[tuple[type, str], Entity] = field(default_factory=dict)
    removed: dict[tuple[type, str], Entity] = field(default_factory=dict)
    events: list[CloudEvent] = field(default_factory=list)
    message_ids: list[str] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    undo: Undo = field(default_factory=list)
    timers: list[tuple[float, tuple[str, str]]] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.saved or self.removed or self.events or self.message_ids or self.quarantined)

    def take(self, outcome: Outcome) -> None:
        """Add what an outcome changes; the last word about a value counts."""
        for value in outcome.saved:
            if isinstance(value, Curve) and not value.due:
                continue  # a look more; the store has had one lately
            if not isinstance(value, Verification):
                slot = (type(value), value.key)
                self.removed.pop(slot, None)
                self.saved[slot] = value
        for value in outcome.removed:
            if not isinstance(value, Verification):
                slot = (type(value), value.key)
                self.saved.pop(slot, None)
                self.removed[slot] = value


class Keeper(Protocol):
    """What keeps a batch: the store, under the fleet lease."""

    def seen(self, message_ids: Sequence[str]) -> set[str]:
        """Which of these notifications have been handled before."""
        ...

    def keep(self, batch: Batch) -> None:
        """Commit all of it or nothing. Raises StoreUnavailable or LeaseLost."""
        ...


class Listener(Protocol):
    """Who hears of what was committed (metrics, the dispatcher, the log); nothing here may raise or block."""

    def committed(self, events: Sequence[CloudEvent], counted: Counter[str], lag_s: float | None) -> None:
        """`counted`: notifications by event type label."""
        ...

    def odd(self, what: str, detail: str, error: BaseException | None = None) -> None:
        """Something that should not be: `what` unreadable, unversioned or our_fault."""
        ...


class Admission:
    """The fleet and the door to it. Thread-safe; one batch at a time.

    `ids` gives a new id whenever called; `sequence` is the last one given to an event.
    """

    def __init__(
        self,
        fleet: Fleet,
        *,
        clock: Clock,
        ids: Callable[[], str],
        installation: str,
        sequence: int = 0,
        keeper: Keeper | None = None,
        listener: Listener | None = None,
        crash: Callable[[str], None] = lambda point: None,
    ) -> None:
        self._fleet = fleet
        self._clock = clock
        self._ids = ids
        self._installation = installation
        self._sequence = sequence
        self._keeper = keeper
        self._listener = listener
        self._crash = crash
        self._lock = threading.RLock()

    def read(self, function: Callable[[Fleet], T]) -> T:
        """What a function finds in the fleet, which does not change meanwhile. The function must be quick."""
        with self._lock:
            return function(self._fleet)

    def remember(self, value: Entity) -> None:
        """Hold and keep a value that nobody has seen: since when we remember. Raises as `admit` does."""
        with self._lock:
            batch = Batch(saved={(type(value), value.key): value})
            batch.undo.append((type(value), value.key, self._fleet.put(value)))
            self._commit_or_take_back(batch)

    def forget(self, value: Entity) -> None:
        """Hold and keep a value no longer, that nobody has seen the end of. Raises as `admit` does."""
        with self._lock:
            batch = Batch(removed={(type(value), value.key): value})
            batch.undo.append((type(value), value.key, self._fleet.drop(value)))
            self._commit_or_take_back(batch)

    def admit(self, observations: Iterable[Observation]) -> list[CloudEvent]:
        """Take observations in, in order, in one transaction; the events that were published are returned.

        Raises StoreUnavailable or LeaseLost; then nothing has changed.
        """
        with self._lock:
            batch = Batch()
            try:
                for observation in observations:
                    self._reduce(observation, batch)
                self._commit(batch, Counter(), None)
            except BaseException:
                self._take_back(batch)
                raise
            return batch.events

    def admit_chunks(self, observations: Sequence[Observation]) -> None:
        """Take a long list in, in several transactions, so that notifications get their turn in between."""
        for start in range(0, len(observations), CHUNK):
            self.admit(observations[start : start + CHUNK])

    def admit_notifications(
        self, notifications: Sequence[Notification], quarantined: Sequence[Quarantined] = ()
    ) -> list[CloudEvent]:
        """Take a batch of notifications in, each once, in the order in which they came, in one transaction.

        One that cannot be read, or that our own code fails on, goes to quarantine and counts as handled.
        """
        with self._lock:
            batch = Batch(quarantined=list(quarantined))
            counted: Counter[str] = Counter()
            lag_s: float | None = None
            try:
                handled = self._keeper.seen([n.message_id for n in notifications]) if self._keeper else set()
                self._hear(notifications, batch)
                for notification in notifications:
                    counted[event_type_label(notification.event_type)] += 1
                    if notification.message_id in handled:
                        continue
                    handled.add(notification.message_id)
                    batch.message_ids.append(notification.message_id)
                    lag_s = notification.received_at - notification.timestamp
                    self._admit_one(notification, batch)
                self._commit(batch, counted, lag_s)
            except BaseException:
                self._take_back(batch)
                raise
            return batch.events

    def tick(self, until: float, *, at_due_time: bool = False) -> list[CloudEvent]:
        """Fire every timer that is due by `until`; in replay each at its own time, else now. Events are returned."""
        with self._lock:
            batch = Batch()
            try:
                while (due := self._fleet.take_due(until)) is not None:
                    batch.timers.append(due)
                    at, subject = due
                    self._reduce(TimerDue(at if at_due_time else max(at, until), subject=subject), batch)
                self._commit(batch, Counter(), None)
            except BaseException:
                self._take_back(batch)
                for timer in batch.timers:
                    self._fleet.set_timer(*timer)
                raise
            return batch.events

    # -- inside -------------------------------------------------------------------------------------------------------

    def _admit_one(self, notification: Notification, batch: Batch) -> None:
        kept, published, sequence = len(batch.undo), len(batch.events), self._sequence
        saved, removed = None, None
        try:
            observations = normalise(notification)
            if not observations:
                if self._listener is not None and is_unversioned(notification):
                    self._listener.odd("unversioned", notification.event_type)
                return
            if len(observations) > 1:
                saved, removed = dict(batch.saved), dict(batch.removed)
            for observation in observations:
                self._reduce(observation, batch)
            return
        except Unreadable as wrong:
            reason = f"unreadable: {wrong}"
            if self._listener is not None:
                self._listener.odd("unreadable", f"{notification.event_type}: {wrong}")
        except (StoreUnavailable, LeaseLost, MemoryError):
            raise
        except Exception as fault:
            # Ours: one message must not stop the stream, so it is put aside, with the traceback in the log.
            reason = f"our fault: {type(fault).__name__}: {fault}"
            if self._listener is not None:
                self._listener.odd("our_fault", notification.event_type, fault)
        self._fleet.undo(batch.undo[kept:])
        del batch.undo[kept:]
        del batch.events[published:]
        self._sequence = sequence
        if saved is not None and removed is not None:
            batch.saved, batch.removed = saved, removed
        batch.quarantined.append(
            Quarantined(
                at=notification.received_at,
                bus=notification.bus,
                reason=reason,
                event_type=notification.event_type,
                message_id=notification.message_id,
                body=_body(notification),
            )
        )

    def _hear(self, notifications: Sequence[Notification], batch: Batch) -> None:
        """Note that a bus says something, and on which bus each compute was heard last."""
        fleet = self._fleet
        for n in notifications:
            if is_unversioned(n):
                continue
            bus = n.bus
            if n.received_at > fleet.heard_at.get(bus, 0.0):
                fleet.heard_at[bus] = n.received_at
            held = fleet.bus(bus)
            if held is not None and held.deaf_from is not None:
                self._reduce(BusSeen(n.received_at, Because("notification", n.event_type), bus, "heard"), batch)
            compute = speaking_compute(n)
            host = fleet.host(compute)
            if host is not None and host.heard_on != bus:
                because = Because("notification", n.event_type, n.message_id)
                self._reduce(ComputeHeard(n.received_at, because, host.name, bus), batch)

    def _reduce(self, observation: Observation, batch: Batch) -> None:
        outcome = reduce(self._fleet, observation, self._ids)
        if not (outcome.saved or outcome.removed or outcome.forgotten or outcome.events):
            return
        said = [self._published(event, observation.seen_at, n) for n, event in enumerate(outcome.events, 1)]
        batch.undo.extend(self._fleet.apply(outcome))
        batch.take(outcome)
        batch.events += said
        self._sequence += len(said)

    def _published(self, event: Event | TenantEvent, at: float, number: int) -> CloudEvent:
        id, installation, sequence = self._ids(), self._installation, self._sequence + number
        if isinstance(event, TenantEvent):
            return publish_to_tenant(event, id=id, installation=installation, sequence=sequence)
        return publish(event, id=id, installation=installation, time=at, sequence=sequence)

    def _commit(self, batch: Batch, counted: Counter[str], lag_s: float | None) -> None:
        if self._keeper is not None and not batch.empty:
            self._crash("before_commit")
            self._keeper.keep(batch)
            self._crash("after_commit")
        if self._listener is not None and (batch.events or counted):
            self._listener.committed(batch.events, counted, lag_s)

    def _commit_or_take_back(self, batch: Batch) -> None:
        try:
            self._commit(batch, Counter(), None)
        except BaseException:
            self._take_back(batch)
            raise

    def _take_back(self, batch: Batch) -> None:
        self._fleet.undo(batch.undo)
        self._sequence -= len(batch.events)


def _body(notification: Notification) -> bytes:
    message = {
        "message_id": notification.message_id,
        "event_type": notification.event_type,
        "publisher_id": notification.publisher_id,
        "payload": notification.payload,
    }
    return json.dumps(message, default=str).encode()
