"""Deliveries as rows: made from events, claimed under a lease, finished with an attempt on record.

The rules that make "at least once, in order, nobody delays anybody" true on every database, without trusting row
locks (a Galera cluster does not share them):

- *Fan-out* marks the events first, in one statement that counts: who marks fewer than it read lost the race and takes
  nothing. The unique key (event, endpoint) stands behind that.
- *Line*: deliveries of one endpoint and one subject form a line by event sequence. Only its head has a `due_at`;
  finishing a head calls the next one up, in the same transaction. A dead endpoint's backlog is therefore invisible to
  the query for what is due, however long it is. Where two transactions can write at once, each looks again after its
  commit for a line that the other left without a head; `mend` does so for all lines.
- *Claim*: read what is due, then take each row only if it still is what was read. A claim is a lease: `due_at` of
  a claimed row is the lease's end, after which it is simply due again.
- *Finish*: only while the row is still claimed by the one who asks.

Endpoints come and go, and there may be a thousand. So nothing is asked per endpoint: what is due is one question for
all endpoints whose turn it is, a claim and an end are a few statements for many rows, and one fan-out makes a bounded
number of deliveries, however many want the same event.

None of these transactions asks to be durable against a power cut: what one forgets is sent again, under the same id.
It decides nothing about retries, sends nothing, and knows no URL or secret.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from sqlalchemy import (
    ColumnElement,
    Connection,
    CursorResult,
    Double,
    Integer,
    Row,
    Select,
    String,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from maintd.errors import StoreUnavailable
from maintd.store.delivery_tables import deliveries, delivery_attempts, disabled_endpoints
from maintd.store.engine import Database, chunks
from maintd.store.subscription_tables import subscriptions
from maintd.store.subscriptions import ACTIVE, ENDPOINT_PREFIX, version_of
from maintd.store.tables import events

State = Literal["pending", "claimed", "delivered", "dead"]
OPEN: Final = ("pending", "claimed")
FINISHED: Final = ("delivered", "dead")
MADE_AT_ONCE: Final = 2000
"""How many deliveries one fan-out makes, unless a single event has more: the fleet's writer waits for it."""

_Line: TypeAlias = tuple[str, str]  # (endpoint, subject)


# -- the statements of the hot path, built once: building one costs more than SQLite takes to run it


_d, _other, _e = deliveries.c, deliveries.alias(), events.c
_SUBSCRIPTION_ID: Final = func.substr(_d.endpoint, len(ENDPOINT_PREFIX) + 1)
_B_LINE: Final = and_(_d.endpoint == bindparam("b_endpoint"), _d.subject == bindparam("b_subject"))

# Events without deliveries, oldest first.
_NOT_FANNED_OUT: Final = (
    select(_e.sequence, _e.id, _e.type, _e.subject, _e.project_id, _e.visible_at)
    .where(_e.fanned_out.is_(False))
    .order_by(_e.sequence)
    .limit(bindparam("b_limit", type_=Integer))
)
# Mark them, those that nobody else marked meanwhile.
_MARK_FANNED_OUT: Final = (
    update(events)
    .where(_e.sequence.in_(bindparam("b_sequences", expanding=True)), _e.fanned_out.is_(False))
    .values(fanned_out=True)
)
_MAKE: Final = insert(deliveries)
_DISABLED: Final = select(disabled_endpoints.c.endpoint)

_BODY: Final = select(_e.body).where(_e.sequence == bindparam("b_sequence"))

# In which of these endpoints' lines is anybody unfinished?
_BUSY: Final = (
    select(_d.endpoint)
    .where(
        _d.endpoint.in_(bindparam("b_endpoints", expanding=True)),
        _d.subject == bindparam("b_subject"),
        _d.state.in_(OPEN),
    )
    .distinct()
)
# Who of this line is due or in flight?
_HEAD_OF_LINE: Final = select(_d.id).where(_B_LINE, _d.state.in_(OPEN), _d.due_at.is_not(None)).limit(1)
# Who comes next in this line, and from when on may it be seen?
_FIRST_IN_LINE: Final = (
    select(_d.id, _e.visible_at)
    .select_from(deliveries.outerjoin(events, _e.id == _d.event_id))
    .where(_B_LINE, _d.state == "pending")
    .order_by(_d.sequence)
    .limit(1)
)
_MAKE_DUE: Final = (
    update(deliveries)
    .where(_d.id == bindparam("b_id"), _d.state == "pending", _d.due_at.is_(None))
    .values(due_at=bindparam("b_now"))
)

# Endpoints for which something is due, the longest due first.
_ENDPOINTS_DUE: Final = (
    select(_d.endpoint)
    .where(_d.due_at <= bindparam("b_now"))
    .group_by(_d.endpoint)
    .order_by(func.min(_d.due_at), _d.endpoint)
)
# Of what is due at these endpoints and has nobody of its line in flight, each endpoint's longest due.
_ranked = (
    select(
        _d.id,
        _d.endpoint,
        _d.subject,
        _d.lease_owner,
        _d.state,
        func.row_number().over(partition_by=_d.endpoint, order_by=(_d.due_at, _d.sequence)).label("place"),
    )
    .where(
        _d.endpoint.in_(bindparam("b_endpoints", expanding=True)),
        _d.due_at <= bindparam("b_now"),
        ~select(_other.c.id)
        .where(
            _other.c.endpoint == _d.endpoint,
            _other.c.subject == _d.subject,
            _other.c.state == "claimed",
            _other.c.due_at > bindparam("b_now"),
        )
        .exists(),
    )
    .subquery()
)
_DUE: Final = (
    select(_ranked.c.id, _ranked.c.endpoint, _ranked.c.subject, _ranked.c.state, _ranked.c.lease_owner)
    .where(_ranked.c.place <= bindparam("b_most", type_=Integer))
    .order_by(_ranked.c.place)
)
# Claim those that nobody has, as far as nobody has them now either.
_CLAIM_FREE: Final = (
    update(deliveries)
    .where(
        _d.id.in_(bindparam("b_ids", expanding=True)),
        _d.state == "pending",
        _d.due_at <= bindparam("b_now"),
        _d.lease_owner.is_(None),
    )
    .values(state="claimed", lease_owner=bindparam("b_owner"), due_at=bindparam("b_until"))
)
# Claim one whose lease has run out, if it still is as it was read.
_CLAIM_LEFT: Final = (
    update(deliveries)
    .where(
        _d.id == bindparam("b_id"),
        _d.state == bindparam("b_state"),
        _d.due_at <= bindparam("b_now"),
        func.coalesce(_d.lease_owner, "") == bindparam("b_was"),
    )
    .values(lease_owner=bindparam("b_owner"), due_at=bindparam("b_until"), state="claimed")
)
_NEXT_DUE: Final = select(func.min(_d.due_at))

# End a claim that is still held.
_FINISH: Final = (
    update(deliveries)
    .where(_d.id == bindparam("b_id"), _d.state == "claimed", _d.lease_owner == bindparam("b_owner"))
    .values(
        state=bindparam("b_state"),
        lease_owner=None,
        attempts=_d.attempts + 1,
        due_at=bindparam("b_due_at"),
        finished_at=bindparam("b_finished_at"),
        first_failed_at=func.coalesce(_d.first_failed_at, bindparam("b_failed_at", type_=Double)),
    )
)
_RECORD: Final = insert(delivery_attempts)
# Of these, those that wait for an endpoint that was disabled since they were made.
_AT_DISABLED: Final = (
    select(_d.id)
    .join_from(deliveries, disabled_endpoints, disabled_endpoints.c.endpoint == _d.endpoint)
    .where(
        _d.id.in_(bindparam("b_ids", expanding=True)),
        _d.state == "pending",
        _d.created_at <= disabled_endpoints.c.disabled_at,
    )
)
_LINES_OF: Final = select(_d.id, _d.endpoint, _d.subject).where(_d.id.in_(bindparam("b_ids", expanding=True)))

# A delivery with its event's text.
_SELECTED: Final[Select[Any]] = select(
    _d.id,
    _d.endpoint,
    _d.event_id,
    _d.event_type,
    _d.subject,
    _d.sequence,
    _e.body,
    _d.attempts,
    _d.created_at,
    _d.due_at,
    _d.state,
    _d.first_failed_at,
).select_from(deliveries.outerjoin(events, _e.id == _d.event_id))
_MINE: Final[Select[Any]] = _SELECTED.where(
    _d.id.in_(bindparam("b_ids", expanding=True)), _d.state == "claimed", _d.lease_owner == bindparam("b_owner")
)

# Lines in which somebody waits and nobody is due or in flight.
_waiting = select(_d.endpoint, _d.subject).where(_d.state == "pending", _d.due_at.is_(None)).distinct().subquery()
_HEADLESS: Final = select(_waiting.c.endpoint, _waiting.c.subject).where(
    ~select(_other.c.id)
    .where(
        _other.c.endpoint == _waiting.c.endpoint,
        _other.c.subject == _waiting.c.subject,
        _other.c.state.in_(OPEN),
        _other.c.due_at.is_not(None),
    )
    .exists()
)


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event that has no deliveries yet. `project_id` is None for an operators' event. `data()` reads its data: few
    routes ask for it."""

    sequence: int
    id: str
    type: str
    subject: str
    project_id: str | None
    visible_at: float | None
    data: Callable[[], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event for one endpoint. `body` is the event's JSON text exactly as it is sent, "" once the event is purged.

    `due_at`: when it is to be tried, or when the lease of a claimed one ends; None when it is finished or waits
    behind an earlier one of its endpoint and subject. `created_at` is when it was made or last redelivered.
    """

    id: int
    endpoint: str
    event_id: str
    event_type: str
    subject: str
    sequence: int
    body: str
    attempts: int
    created_at: float
    due_at: float | None
    state: State
    first_failed_at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. `status` is the HTTP status if one was read; `detail` the answer's first bytes or the error."""

    at: float
    duration_s: float
    status: int | None
    outcome: str
    detail: str

    @property
    def ended_at(self) -> float:
        return self.at + self.duration_s


@dataclass(frozen=True, slots=True)
class Finish:
    """How a claimed delivery ended this time: 'delivered', 'dead', or 'pending' again at `due_at`."""

    delivery_id: int
    owner: str
    attempt: Attempt
    state: Literal["delivered", "pending", "dead"]
    due_at: float | None = None


class _Candidate(NamedTuple):
    """A row as it was read, to be claimed only if it still is that."""

    id: int
    endpoint: str
    state: str
    lease_owner: str | None


class RoutesOutdated(Exception):
    """Subscriptions have changed since the routes were made; the transaction is undone."""


class _LostRace(Exception):
    """Somebody else took these events meanwhile; the transaction is to be undone."""


class Deliveries:
    """`store.deliveries`. Safe to use from many threads and by many controllers at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- making

    def fan_out(
        self,
        route: Callable[[NewEvent], Sequence[str]],
        now: float,
        limit: int = 500,
        refused: Collection[str] = (),
        subscribed: tuple[int, int] | None = None,
    ) -> int:
        """Make deliveries of events that have none yet; how many events were taken, at most `limit` and no more than
        make some `MADE_AT_ONCE` deliveries.

        `route(event)` names the endpoints. Events are taken oldest first, and due when they may be seen. For an
        endpoint that asked to be left alone, or is among the `refused`, the delivery is made dead at once: it is
        listed, and can be redelivered.

        `subscribed` is the version of the subscriptions that `route` knows. Raises RoutesOutdated, with nothing taken,
        where there is another by now: whoever has subscribed gets every event that is committed after that.
        """
        if self._database.read(lambda connection: connection.execute(_NOT_FANNED_OUT, {"b_limit": 1}).first()) is None:
            return 0
        try:
            taken, behind = self._database.write(
                lambda connection: _fan_out(connection, route, now, limit, refused, subscribed)
            )
        except _LostRace:
            return 0
        self._look_again(behind, now)
        return taken

    # -- sending

    def claim(
        self,
        owner: str,
        now: float,
        lease_s: float,
        limit: int,
        skip_endpoints: Collection[str] = (),
        room: Mapping[str, int] | None = None,
        overtime: Mapping[str, float] | None = None,
    ) -> list[Delivery]:
        """Take what is due, for `lease_s`, and at an endpoint that is in `overtime` for so much longer (seconds).
        Committed when this returns.

        At most `limit` in all, at most `room[endpoint]` for an endpoint (none for one that `room` does not name), and
        fairly: every endpoint in turn gets one before any gets another. At most one of an endpoint and subject is in
        flight, in event order. Use an `owner` no one ever used before, and two claims of one process cannot be
        mistaken for each other.
        """

        if limit <= 0:
            return []
        due = self._database.read(lambda connection: _due(connection, now, limit, skip_endpoints, room))
        if not due:
            return []
        return self._database.write(lambda connection: _claim(connection, due, owner, now, lease_s, overtime or {}))

    def take_back(self, now: float) -> int:
        """Make what is claimed due at once, whoever claimed it; how many. Only where nobody else can run: what a daemon
        that was killed had in hand need not wait for the end of its lease."""
        left = update(deliveries).where(_d.state == "claimed").values(state="pending", lease_owner=None, due_at=now)
        return self._database.write(lambda connection: _rows(connection.execute(left)))

    def finish(
        self,
        delivery_id: int,
        owner: str,
        attempt: Attempt,
        *,
        state: Literal["delivered", "pending", "dead"],
        due_at: float | None = None,
    ) -> bool:
        """Record an attempt and what follows from it; False, and nothing recorded, when the lease went to another."""
        return self.finish_many([Finish(delivery_id, owner, attempt, state, due_at)])[0]

    def finish_many(self, finishes: Sequence[Finish]) -> list[bool]:
        """`finish` for several in one transaction, in the order given.

        What is to be tried again at an endpoint that was disabled meanwhile is given up, as all was that waited for it.
        """

        held, emptied = self._database.write(lambda connection: _finish(connection, finishes))
        with suppress(
            StoreUnavailable
        ):  # it is on record; what was to be done besides, `mend` does, or the next attempt
            again = {one.delivery_id: one.attempt.ended_at for one in finishes if one.state == "pending"}
            if again and self._database.dialect != "sqlite" and self.disabled():
                # Neither this nor what disabled the endpoint may have seen the other, where two can write at once.
                emptied |= self._database.write(lambda connection: _end_of_disabled(connection, again))
            self._look_again(emptied, max((finish.attempt.ended_at for finish in finishes), default=0.0))
        return held

    def _look_again(self, lines: Collection[_Line], now: float) -> None:
        """Call up whoever waits in these lines with nobody before them.

        A fan-out that put something behind a head, and the end of that head, may not see one another where two
        transactions write at once. Both look again when they are committed: the later of the two sees it.
        """
        if not lines or self._database.dialect == "sqlite":  # one writer at a time: nothing overlaps
            return
        headless = self._database.read(lambda connection: [line for line in lines if _is_headless(connection, *line)])
        if not headless:
            return

        def work(connection: Connection) -> None:
            for line in headless:
                _head_again(connection, *line, now)

        self._database.write(work)

    def mend(self, now: float) -> int:
        """Call up the head of every line that has none; how many there were.

        The last resort against a line that stands still: rows changed by hand, transactions that overlapped on two
        nodes of a cluster.
        """
        if not self._database.read(_headless):
            return 0

        def work(connection: Connection) -> int:
            lines = _headless(connection)
            for line in lines:
                _head_again(connection, *line, now)
            return len(lines)

        return self._database.write(work)

    # -- endpoints that asked to be left alone

    def disable(self, endpoint: str, reason: str, now: float) -> bool:
        """Mark an endpoint as not to be called any more and give up what waits for it; False: it was so before."""

        def work(connection: Connection) -> bool:
            new = endpoint not in set(connection.execute(_DISABLED).scalars())
            if new:
                values = {"endpoint": endpoint, "disabled_at": now, "reason": reason}
                connection.execute(insert(disabled_endpoints).values(values))
            _give_up(connection, deliveries.c.endpoint == endpoint, "endpoint_disabled", reason, now)
            return new

        return self._database.write(work)

    def enable(self, endpoint: str) -> bool:
        """Call an endpoint again; whether it was disabled. What it missed has to be redelivered."""
        statement = delete(disabled_endpoints).where(disabled_endpoints.c.endpoint == endpoint)
        return self._database.write(lambda connection: _rows(connection.execute(statement)) > 0)

    def disabled(self) -> dict[str, tuple[float, str]]:
        """Endpoint -> (since, reason)."""
        statement = select(disabled_endpoints.c.endpoint, disabled_endpoints.c.disabled_at, disabled_endpoints.c.reason)
        rows = self._database.read(lambda connection: connection.execute(statement).all())
        return {row.endpoint: (row.disabled_at, row.reason) for row in rows}

    def give_up(self, endpoint: str, reason: str, now: float, *, made_by: float = math.inf) -> int:
        """Give up what waits for an endpoint that was disabled, and was made by then; how many."""
        this = _d.endpoint == endpoint
        if made_by < math.inf:
            this = and_(this, _d.created_at <= made_by)
        return self._give_up_any(this, "endpoint_disabled", reason, now)

    def abandon(self, endpoints: Collection[str], created_before: float, now: float) -> int:
        """Give up what waits for configured endpoints other than these (no longer configured) and is older; how many.

        Subscriptions' are not touched: which there are, only their table says (see `abandon_deleted`).
        """
        d = deliveries.c
        strangers = and_(
            d.endpoint.not_in(tuple(endpoints)),
            d.endpoint.not_like(f"{ENDPOINT_PREFIX}%"),
            d.created_at < created_before,
        )

        def work(connection: Connection) -> int:
            return _give_up(connection, strangers, "not_configured", "no webhook of this name is configured", now)

        return self._database.write(work)

    def abandon_deleted(self, now: float) -> int:
        """Give up what waits for subscriptions that are no more; how many.

        The database itself compares, in one statement, so that no subscription is missed that was made meanwhile.
        """
        mine = select(subscriptions.c.id).where(subscriptions.c.id == _SUBSCRIPTION_ID)
        gone = and_(deliveries.c.endpoint.like(f"{ENDPOINT_PREFIX}%"), ~mine.exists())
        return self._give_up_any(gone, "deleted", "the subscription was deleted", now)

    def _give_up_any(self, which: ColumnElement[bool], outcome: str, detail: str, now: float) -> int:
        """`_give_up` where any waits; mostly none does, and nobody is kept from writing by looking."""
        any_left = select(_d.id).where(_d.state == "pending", which).limit(1)
        if self._database.read(lambda connection: connection.execute(any_left).first()) is None:
            return 0
        return self._database.write(lambda connection: _give_up(connection, which, outcome, detail, now))

    # -- asking

    def list(
        self,
        state: str | None = None,
        endpoint: str | None = None,
        after: int = 0,
        limit: int = 100,
        event_id: str | None = None,
    ) -> list[Delivery]:
        """Deliveries by id, from the one after `after`."""
        statement = _SELECTED.where(deliveries.c.id > after).order_by(deliveries.c.id).limit(limit)
        for name, value in (("state", state), ("endpoint", endpoint), ("event_id", event_id)):
            if value is not None:
                statement = statement.where(deliveries.c[name] == value)
        return self._database.read(lambda connection: [_delivery(row) for row in connection.execute(statement)])

    def get(self, delivery_id: int) -> Delivery | None:
        """One delivery, or None."""
        statement = _SELECTED.where(deliveries.c.id == delivery_id)
        row = self._database.read(lambda connection: connection.execute(statement).first())
        return None if row is None else _delivery(row)

    def attempts(self, delivery_id: int) -> Sequence[Attempt]:
        """Every recorded attempt at a delivery, oldest first."""
        a = delivery_attempts.c
        statement = (
            select(a.at, a.duration_s, a.status, a.outcome, a.detail).where(a.delivery_id == delivery_id).order_by(a.id)
        )
        return self._database.read(lambda connection: [Attempt(*row) for row in connection.execute(statement)])

    def last_attempts(self, delivery_ids: Sequence[int]) -> Mapping[int, Attempt]:
        """The last recorded attempt of each of these deliveries that has one."""
        a = delivery_attempts.c

        def work(connection: Connection) -> Mapping[int, Attempt]:
            found: dict[int, Attempt] = {}
            for ids in chunks(delivery_ids):
                last = select(func.max(a.id)).where(a.delivery_id.in_(ids)).group_by(a.delivery_id)
                rows = select(a.delivery_id, a.at, a.duration_s, a.status, a.outcome, a.detail).where(a.id.in_(last))
                found |= {row[0]: Attempt(*row[1:]) for row in connection.execute(rows)}
            return found

        return self._database.read(work)

    def redeliver(
        self,
        delivery_ids: Iterable[int] | None = None,
        endpoint: str | None = None,
        since: float | None = None,
        until: float | None = None,
        *,
        now: float,
    ) -> Counter[str]:
        """Send finished deliveries (dead or delivered) again under the same event id; endpoint -> how many.

        What is given must all hold; `since` and `until` bound when the delivery was finished (since <= t < until). A
        delivery whose event is purged, or may not be seen yet, is left alone. Attempts count from none again; those on
        record stay. Naming an endpoint that was disabled enables it.
        """
        d = deliveries.c
        seen = func.coalesce(events.c.visible_at, now) <= now
        conditions: list[ColumnElement[bool]] = [d.state.in_(FINISHED), events.c.body.is_not(None), seen]
        if endpoint is not None:
            conditions.append(d.endpoint == endpoint)
        if since is not None:
            conditions.append(d.finished_at >= since)
        if until is not None:
            conditions.append(d.finished_at < until)
        wanted = None if delivery_ids is None else sorted(set(delivery_ids))
        values = {
            "state": "pending", "due_at": None, "lease_owner": None, "attempts": 0, "created_at": now,
            "first_failed_at": None, "finished_at": None,
        }  # fmt: skip

        def work(connection: Connection) -> Counter[str]:
            source = deliveries.outerjoin(events, events.c.id == d.event_id)
            found: list[tuple[int, str, str]] = []
            statement = select(d.id, d.endpoint, d.subject).select_from(source).where(*conditions).order_by(d.sequence)
            for chunk in [None] if wanted is None else list(chunks(wanted)):
                rows = connection.execute(statement if chunk is None else statement.where(d.id.in_(chunk)))
                found += [(row.id, row.endpoint, row.subject) for row in rows]
            if endpoint is not None:
                connection.execute(delete(disabled_endpoints).where(disabled_endpoints.c.endpoint == endpoint))
            again: Counter[str] = Counter()
            for name in sorted({name for _, name, _ in found}):
                for ids in chunks([delivery_id for delivery_id, its, _ in found if its == name]):
                    # Another redelivery may have taken them since they were read, and somebody may be sending them.
                    still = update(deliveries).where(d.id.in_(ids), d.state.in_(FINISHED))
                    again[name] += _rows(connection.execute(still.values(values)))
            for line in {(name, subject) for _, name, subject in found}:
                _head_again(connection, *line, now)
            return +again

        return self._database.write(work)

    def delivered_since(self, endpoint: str, since: float) -> bool:
        """Whether an endpoint has taken anything after this moment."""
        d = deliveries.c
        statement = select(d.id).where(d.endpoint == endpoint, d.state == "delivered", d.finished_at > since).limit(1)
        return self._database.read(lambda connection: connection.execute(statement).first()) is not None

    def oldest_pending_at(self) -> float | None:
        """When the oldest delivery that is not finished was made, or None; of those that are the operators' affair.

        What waits for a project's subscription is not, nor for one that is paused or not verified: whoever owns it
        could otherwise raise the operators' alarm.
        """
        s, d = subscriptions.c, deliveries.c
        theirs = select(s.id).where(_SUBSCRIPTION_ID == s.id, s.project_id.is_(None), s.state == ACTIVE).exists()
        statement = select(func.min(d.created_at)).where(
            d.state.in_(OPEN), or_(d.endpoint.not_like(f"{ENDPOINT_PREFIX}%"), theirs)
        )
        return self._database.read(lambda connection: connection.execute(statement).scalar())

    def next_due_at(self) -> float | None:
        """When the next delivery is due, leases that end included; None when nothing waits."""
        return self._database.read(lambda connection: connection.execute(_NEXT_DUE).scalar())

    def counts(self) -> dict[tuple[str, str], int]:
        """(endpoint, state) -> how many."""
        d = deliveries.c
        statement = select(d.endpoint, d.state, func.count()).group_by(d.endpoint, d.state)
        rows = self._database.read(lambda connection: connection.execute(statement).all())
        return {(row[0], row[1]): row[2] for row in rows}

    def purge(self, finished_before: float, limit: int = 1000) -> int:
        """Delete a batch of finished deliveries, with their attempts; how many. Call until it is less than `limit`."""
        d = deliveries.c
        statement = (
            select(d.id).where(d.state.in_(FINISHED), d.finished_at < finished_before).order_by(d.id).limit(limit)
        )

        def work(connection: Connection) -> int:
            ids = [row.id for row in connection.execute(statement)]
            for chunk in chunks(ids):
                connection.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(chunk)))
                connection.execute(delete(deliveries).where(d.id.in_(chunk)))
            return len(ids)

        return self._database.write(work)


# -- what runs in a transaction of the caller's


def _fan_out(
    connection: Connection,
    route: Callable[[NewEvent], Sequence[str]],
    now: float,
    limit: int,
    refused: Collection[str],
    subscribed: tuple[int, int] | None,
) -> tuple[int, set[_Line]]:
    """How many events were taken, and the lines in which something now waits behind an earlier delivery."""
    batch: list[tuple[NewEvent, Sequence[str]]] = []
    made_for = 0
    rows = connection.execute(_NOT_FANNED_OUT, {"b_limit": limit}).all()
    # After the events were read: a server shows each statement what is committed by then.
    if subscribed is not None and version_of(connection) != subscribed:
        raise RoutesOutdated
    for row in rows:
        event = _new_event(connection, row)
        endpoints = route(event)
        if batch and made_for + len(endpoints) > MADE_AT_ONCE:
            break
        batch.append((event, endpoints))
        made_for += len(endpoints)
    if not batch:
        return 0, set()
    marked = 0
    for chunk in chunks([event.sequence for event, _ in batch]):
        marked += _rows(connection.execute(_MARK_FANNED_OUT, {"b_sequences": chunk}))
    if marked != len(batch):
        raise _LostRace  # another controller was first; what it left comes in the next round
    refused = {*refused, *connection.execute(_DISABLED).scalars()}
    busy = _busy(connection, batch, refused)
    begun: set[_Line] = set()
    behind: set[_Line] = set()
    made: list[dict[str, Any]] = []
    unsent: dict[tuple[str, float], list[str]] = {}
    for event, endpoints in batch:
        # Of a project's event that is held back, nothing is dated from before it may be seen: the project reads it.
        at = max(now, event.visible_at or 0.0)
        for endpoint in endpoints:
            line = (endpoint, event.subject)
            dead = endpoint in refused
            at_head = not dead and line not in busy and line not in begun
            if dead:
                unsent.setdefault((endpoint, at), []).append(event.id)
            elif line in busy:
                behind.add(line)
            else:
                begun.add(line)
            made.append(
                {
                    "endpoint": endpoint,
                    "event_id": event.id,
                    "event_type": event.type,
                    "subject": event.subject,
                    "sequence": event.sequence,
                    "state": "dead" if dead else "pending",
                    "due_at": at if at_head else None,
                    "attempts": 0,
                    "created_at": at,
                    "finished_at": at if dead else None,
                }
            )
    if made:
        connection.execute(_MAKE, made)
    for (endpoint, at), event_ids in unsent.items():
        for ids in chunks(event_ids):
            these = and_(deliveries.c.endpoint == endpoint, deliveries.c.event_id.in_(ids))
            _explain(connection, these, "endpoint_disabled", "the endpoint is disabled: nothing is sent to it", at)
    return len(batch), behind


def _new_event(connection: Connection, row: Any) -> NewEvent:
    def data() -> Mapping[str, Any]:
        body = connection.execute(_BODY, {"b_sequence": row.sequence}).scalar()
        read: Mapping[str, Any] = json.loads(body or "{}").get("data") or {}
        return read

    return NewEvent(row.sequence, row.id, row.type, row.subject or "", row.project_id, row.visible_at, data)


def _busy(
    connection: Connection, batch: Sequence[tuple[NewEvent, Sequence[str]]], refused: Collection[str]
) -> set[_Line]:
    """Of the lines that this batch adds to, those in which somebody is unfinished."""
    asked: dict[str, set[str]] = {}
    for event, endpoints in batch:
        asked.setdefault(event.subject, set()).update(name for name in endpoints if name not in refused)
    found: set[_Line] = set()
    for subject, names in asked.items():
        for chunk in chunks(sorted(names)):
            rows = connection.execute(_BUSY, {"b_endpoints": chunk, "b_subject": subject}).scalars()
            found |= {(endpoint, subject) for endpoint in rows}
    return found


def _give_up(connection: Connection, which: ColumnElement[bool], outcome: str, detail: str, now: float) -> int:
    """Make the pending ones dead, with the reason on record in the place of an attempt."""
    these = and_(deliveries.c.state == "pending", which)
    _explain(connection, these, outcome, detail, now)
    return _rows(connection.execute(update(deliveries).where(these).values(state="dead", due_at=None, finished_at=now)))


def _explain(connection: Connection, which: ColumnElement[bool], outcome: str, detail: str, now: float) -> None:
    """Record, for deliveries that die without an attempt, why."""
    a = delivery_attempts.c
    connection.execute(
        insert(delivery_attempts).from_select(
            [a.delivery_id, a.at, a.duration_s, a.status, a.outcome, a.detail],
            select(
                deliveries.c.id,
                literal(now, Double()),
                literal(0.0, Double()),
                null(),
                literal(outcome, String()),
                literal(detail, Text()),
            ).where(which),
        )
    )


def _due(
    connection: Connection,
    now: float,
    limit: int,
    skip_endpoints: Collection[str],
    room: Mapping[str, int] | None,
) -> list[_Candidate]:
    """What to claim now, the endpoints taking turns."""
    asked: list[str] = []
    most = 0
    for endpoint in connection.execute(_ENDPOINTS_DUE, {"b_now": now}).scalars():
        has_room = limit if room is None else min(limit, room.get(endpoint, 0))
        if endpoint in skip_endpoints or has_room <= 0:
            continue
        asked.append(endpoint)
        most = max(most, has_room)
        if len(asked) == limit:
            break  # each gets one before any gets another: there is nothing for the rest
    queues: dict[str, list[_Candidate]] = {endpoint: [] for endpoint in asked}
    lines: set[_Line] = set()
    for chunk in chunks(asked):
        for row in connection.execute(_DUE, {"b_endpoints": chunk, "b_now": now, "b_most": most}):
            line, queue = (row.endpoint, row.subject), queues[row.endpoint]
            # Two heads in one line: only the first this time.
            if line not in lines and (room is None or len(queue) < room[row.endpoint]):
                lines.add(line)
                queue.append(_Candidate(row.id, row.endpoint, row.state, row.lease_owner))
    longest = max(map(len, queues.values()), default=0)
    turns = (queue[turn] for turn in range(longest) for queue in queues.values() if turn < len(queue))
    return [row for _, row in zip(range(limit), turns, strict=False)]


def _claim(
    connection: Connection,
    candidates: Sequence[_Candidate],
    owner: str,
    now: float,
    lease_s: float,
    overtime: Mapping[str, float],
) -> list[Delivery]:
    """Those of the candidates that still were as they were read; they are known by the owner, whom no one else uses."""
    alike: dict[float, list[_Candidate]] = {}
    for row in candidates:
        alike.setdefault(now + lease_s + overtime.get(row.endpoint, 0.0), []).append(row)
    for until, rows in alike.items():
        claim = {"b_now": now, "b_owner": owner, "b_until": until}
        for ids in chunks([row.id for row in rows if row.state == "pending"]):
            connection.execute(_CLAIM_FREE, claim | {"b_ids": ids})
        for row in rows:
            if row.state != "pending":
                connection.execute(
                    _CLAIM_LEFT, claim | {"b_id": row.id, "b_state": row.state, "b_was": row.lease_owner or ""}
                )
    mine: dict[int, Delivery] = {}
    for ids in chunks([row.id for row in candidates]):
        mine |= {row.id: _delivery(row) for row in connection.execute(_MINE, {"b_ids": ids, "b_owner": owner})}
    return [mine[row.id] for row in candidates if row.id in mine]


def _finish(connection: Connection, finishes: Sequence[Finish]) -> tuple[list[bool], set[_Line]]:
    """Which claims were still held, and the lines in which nobody comes next."""
    held = [_end(connection, finish) for finish in finishes]
    recorded = [finish for finish, mine in zip(finishes, held, strict=True) if mine]
    if recorded:
        connection.execute(_RECORD, [_attempt_row(finish) for finish in recorded])
    over = {finish.delivery_id: finish.attempt.ended_at for finish in recorded if finish.state != "pending"}
    again = {finish.delivery_id: finish.attempt.ended_at for finish in recorded if finish.state == "pending"}
    return held, _next_in_line(connection, over) | (_end_of_disabled(connection, again) if again else set())


def _end_of_disabled(connection: Connection, again: Mapping[int, float]) -> set[_Line]:
    """Of deliveries that are to be tried again (when each was tried), give up those whose endpoint was disabled since
    they were made; the lines in which nobody comes next."""
    over: dict[int, float] = {}
    for ids in chunks(list(again)):
        these = connection.execute(_AT_DISABLED, {"b_ids": ids}).scalars().all()
        if these:
            over |= {one: again[one] for one in these}
            at = max(again[one] for one in these)
            _give_up(connection, _d.id.in_(these), "endpoint_disabled", "the endpoint is disabled", at)
    return _next_in_line(connection, over)


def _next_in_line(connection: Connection, over: Mapping[int, float]) -> set[_Line]:
    """Call up who comes next behind deliveries that are over (and since when); the lines in which nobody does."""
    lines: dict[_Line, float] = {}
    for ids in chunks(list(over)):
        for row in connection.execute(_LINES_OF, {"b_ids": ids}):
            line = (row.endpoint, row.subject)
            lines[line] = max(over[row.id], lines.get(line, 0.0))
    return {line for line, now in lines.items() if not _call_up(connection, *line, now)}


def _end(connection: Connection, finish: Finish) -> bool:
    """Whether the claim was still held; then it is over."""
    attempt, again = finish.attempt, finish.state == "pending"
    due_at = attempt.ended_at if finish.due_at is None else finish.due_at
    values = {
        "b_id": finish.delivery_id,
        "b_owner": finish.owner,
        "b_state": finish.state,
        "b_due_at": due_at if again else None,
        "b_finished_at": None if again else attempt.ended_at,
        "b_failed_at": None if finish.state == "delivered" else attempt.at,
    }
    return _rows(connection.execute(_FINISH, values)) > 0


def _attempt_row(finish: Finish) -> dict[str, Any]:
    attempt = finish.attempt
    return {
        "delivery_id": finish.delivery_id,
        "at": attempt.at,
        "duration_s": attempt.duration_s,
        "status": attempt.status,
        "outcome": attempt.outcome,
        "detail": attempt.detail,
    }


def _call_up(connection: Connection, endpoint: str, subject: str, now: float) -> bool:
    """Make the first of a line due, if it waits, from when it may be seen; whether there was one."""
    first = connection.execute(_FIRST_IN_LINE, _line(endpoint, subject)).first()
    if first is not None:
        connection.execute(_MAKE_DUE, {"b_id": first.id, "b_now": max(now, first.visible_at or 0.0)})
    return first is not None


def _head_again(connection: Connection, endpoint: str, subject: str, now: float) -> None:
    if not _has_head(connection, endpoint, subject):
        _call_up(connection, endpoint, subject, now)


def _is_headless(connection: Connection, endpoint: str, subject: str) -> bool:
    waits = connection.execute(_FIRST_IN_LINE, _line(endpoint, subject)).first() is not None
    return waits and not _has_head(connection, endpoint, subject)


def _has_head(connection: Connection, endpoint: str, subject: str) -> bool:
    return connection.execute(_HEAD_OF_LINE, _line(endpoint, subject)).first() is not None


def _line(endpoint: str, subject: str) -> dict[str, str]:
    return {"b_endpoint": endpoint, "b_subject": subject}


def _headless(connection: Connection) -> list[_Line]:
    """Lines in which somebody waits and nobody is due or in flight."""
    return [(row.endpoint, row.subject) for row in connection.execute(_HEADLESS)]


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        id=row.id,
        endpoint=row.endpoint,
        event_id=row.event_id,
        event_type=row.event_type,
        subject=row.subject,
        sequence=row.sequence,
        body=row.body or "",
        attempts=row.attempts,
        created_at=row.created_at,
        due_at=row.due_at,
        state=row.state,
        first_failed_at=row.first_failed_at,
    )


def _rows(result: CursorResult[Any]) -> int:
    return int(result.rowcount)
