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

None of these transactions asks to be durable against a power cut: what one forgets is sent again, under the same id.
It decides nothing about retries, sends nothing, and knows no URL or secret.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

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
    select,
    update,
)

from maintd.store.delivery_tables import deliveries, delivery_attempts, disabled_endpoints
from maintd.store.engine import Database
from maintd.store.tables import events

State = Literal["pending", "claimed", "delivered", "dead"]
OPEN: Final = ("pending", "claimed")
FINISHED: Final = ("delivered", "dead")
_CHUNK: Final = 500
"""Most values in one IN list; SQLite's old limit is 999 parameters a statement."""

T = TypeVar("T")
_Line: TypeAlias = tuple[str, str]  # (endpoint, subject)


# -- the statements of the hot path, built once: building one costs more than SQLite takes to run it


_d, _other, _e = deliveries.c, deliveries.alias(), events.c
_B_LINE: Final = and_(_d.endpoint == bindparam("b_endpoint"), _d.subject == bindparam("b_subject"))

# Events without deliveries, oldest first.
_NOT_FANNED_OUT: Final = (
    select(_e.sequence, _e.id, _e.type, _e.subject)
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

# Is anybody unfinished in this line?
_OPEN_IN_LINE: Final = select(_d.id).where(_B_LINE, _d.state.in_(OPEN)).limit(1)
# Who of this line is due or in flight?
_HEAD_OF_LINE: Final = select(_d.id).where(_B_LINE, _d.state.in_(OPEN), _d.due_at.is_not(None)).limit(1)
# Who comes next in this line?
_FIRST_IN_LINE: Final = select(_d.id).where(_B_LINE, _d.state == "pending").order_by(_d.sequence).limit(1)
_MAKE_DUE: Final = (
    update(deliveries)
    .where(_d.id == bindparam("b_id"), _d.state == "pending", _d.due_at.is_(None))
    .values(due_at=bindparam("b_now"))
)

_ENDPOINTS_DUE: Final = select(_d.endpoint).where(_d.due_at <= bindparam("b_now")).distinct()
# What of an endpoint is due, longest first, and has nobody of its line in flight.
_DUE: Final = (
    select(_d.id, _d.subject, _d.state, _d.lease_owner)
    .where(
        _d.endpoint == bindparam("b_endpoint"),
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
    .order_by(_d.due_at, _d.sequence)
    .limit(bindparam("b_limit", type_=Integer))
)
# Claim one, if it still is as it was read.
_CLAIM: Final = (
    update(deliveries)
    .where(
        _d.id == bindparam("b_id"),
        _d.state == bindparam("b_state"),
        _d.due_at <= bindparam("b_now"),
        func.coalesce(_d.lease_owner, "") == bindparam("b_was"),
    )
    .values(state="claimed", lease_owner=bindparam("b_owner"), due_at=bindparam("b_until"))
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
_LINE_OF: Final = select(_d.endpoint, _d.subject).where(_d.id == bindparam("b_id"))

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
_ONE: Final[Select[Any]] = _SELECTED.where(_d.id == bindparam("b_id"))

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
    state: str
    lease_owner: str | None


class _LostRace(Exception):
    """Somebody else took these events meanwhile; the transaction is to be undone."""


class Deliveries:
    """`store.deliveries`. Safe to use from many threads and by many controllers at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- making

    def fan_out(self, route: Callable[[str], Sequence[str]], now: float, limit: int = 500) -> int:
        """Make deliveries of events that have none yet; how many events were taken.

        `route(event_type)` names the endpoints. Events are taken oldest first. For an endpoint that asked to be left
        alone the delivery is made dead at once: it is listed, and can be redelivered.
        """
        if self._database.read(lambda connection: connection.execute(_NOT_FANNED_OUT, {"b_limit": 1}).first()) is None:
            return 0
        try:
            taken, behind = self._database.write(lambda connection: _fan_out(connection, route, now, limit))
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
    ) -> list[Delivery]:
        """Take what is due, for `lease_s`. Committed when this returns.

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
        return self._database.write(lambda connection: _claim(connection, due, owner, now, lease_s))

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
        """`finish` for several in one transaction, in the order given."""

        def work(connection: Connection) -> tuple[list[bool], set[_Line]]:
            emptied: set[_Line] = set()
            return [_finish(connection, finish, emptied) for finish in finishes], emptied

        held, emptied = self._database.write(work)
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

    def abandon(self, endpoints: Collection[str], created_before: float, now: float) -> int:
        """Give up what waits for endpoints other than these (no longer configured) and is older; how many."""
        d = deliveries.c
        strangers = and_(d.endpoint.not_in(tuple(endpoints)), d.created_at < created_before)

        def work(connection: Connection) -> int:
            return _give_up(connection, strangers, "not_configured", "no webhook of this name is configured", now)

        return self._database.write(work)

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

    def redeliver(
        self,
        delivery_ids: Iterable[int] | None = None,
        endpoint: str | None = None,
        since: float | None = None,
        until: float | None = None,
        *,
        now: float,
    ) -> int:
        """Send finished deliveries (dead or delivered) again under the same event id; how many.

        What is given must all hold; `since` and `until` bound when the delivery was finished (since <= t < until). A
        delivery whose event is purged is left alone. Attempts count from none again; those on record stay. Naming an
        endpoint that was disabled enables it.
        """
        d = deliveries.c
        conditions: list[ColumnElement[bool]] = [d.state.in_(FINISHED), events.c.body.is_not(None)]
        if endpoint is not None:
            conditions.append(d.endpoint == endpoint)
        if since is not None:
            conditions.append(d.finished_at >= since)
        if until is not None:
            conditions.append(d.finished_at < until)
        wanted = None if delivery_ids is None else sorted(set(delivery_ids))

        def work(connection: Connection) -> int:
            source = deliveries.outerjoin(events, events.c.id == d.event_id)
            found: list[tuple[int, str, str]] = []
            statement = select(d.id, d.endpoint, d.subject).select_from(source).where(*conditions).order_by(d.sequence)
            for chunk in [None] if wanted is None else list(_chunks(wanted)):
                rows = connection.execute(statement if chunk is None else statement.where(d.id.in_(chunk)))
                found += [(row.id, row.endpoint, row.subject) for row in rows]
            if endpoint is not None:
                connection.execute(delete(disabled_endpoints).where(disabled_endpoints.c.endpoint == endpoint))
            for ids in _chunks([delivery_id for delivery_id, _, _ in found]):
                connection.execute(
                    update(deliveries)
                    .where(d.id.in_(ids))
                    .values(
                        state="pending", due_at=None, attempts=0, created_at=now, first_failed_at=None, finished_at=None
                    )
                )
            for line in {(name, subject) for _, name, subject in found}:
                _head_again(connection, *line, now)
            return len(found)

        return self._database.write(work)

    def oldest_pending_at(self) -> float | None:
        """When the oldest delivery that is not finished was made, or None."""
        statement = select(func.min(deliveries.c.created_at)).where(deliveries.c.state.in_(OPEN))
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
            for chunk in _chunks(ids):
                connection.execute(delete(delivery_attempts).where(delivery_attempts.c.delivery_id.in_(chunk)))
                connection.execute(delete(deliveries).where(d.id.in_(chunk)))
            return len(ids)

        return self._database.write(work)


# -- what runs in a transaction of the caller's


def _fan_out(
    connection: Connection, route: Callable[[str], Sequence[str]], now: float, limit: int
) -> tuple[int, set[_Line]]:
    """How many events were taken, and the lines in which something now waits behind an earlier delivery."""
    batch = connection.execute(_NOT_FANNED_OUT, {"b_limit": limit}).all()
    if not batch:
        return 0, set()
    marked = 0
    for chunk in _chunks([row.sequence for row in batch]):
        marked += _rows(connection.execute(_MARK_FANNED_OUT, {"b_sequences": chunk}))
    if marked != len(batch):
        raise _LostRace  # another controller was first; what it left comes in the next round
    disabled = set(connection.execute(_DISABLED).scalars())
    made: list[dict[str, Any]] = []
    occupied: set[_Line] = set()
    behind: set[_Line] = set()
    for event in batch:
        subject = event.subject or ""
        for endpoint in route(event.type):
            line = (endpoint, subject)
            if endpoint not in disabled and line not in occupied:
                at_head = connection.execute(_OPEN_IN_LINE, _line(*line)).first() is None
                occupied.add(line)
                if not at_head:
                    behind.add(line)
            else:
                at_head = False
            made.append(
                {
                    "endpoint": endpoint,
                    "event_id": event.id,
                    "event_type": event.type,
                    "subject": subject,
                    "sequence": event.sequence,
                    "state": "dead" if endpoint in disabled else "pending",
                    "due_at": now if at_head else None,
                    "attempts": 0,
                    "created_at": now,
                    "finished_at": now if endpoint in disabled else None,
                }
            )
    if made:
        connection.execute(_MAKE, made)
    for endpoint in disabled:
        refused = [one["event_id"] for one in made if one["endpoint"] == endpoint]
        for ids in _chunks(refused):
            these = and_(deliveries.c.endpoint == endpoint, deliveries.c.event_id.in_(ids))
            _explain(connection, these, "endpoint_disabled", "the endpoint asked for no more deliveries", now)
    return len(batch), behind


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
    waiting = connection.execute(_ENDPOINTS_DUE, {"b_now": now}).scalars()
    queues: list[list[_Candidate]] = []
    for endpoint in sorted(set(waiting) - set(skip_endpoints)):
        most = limit if room is None else min(limit, room.get(endpoint, 0))
        if most <= 0:
            continue
        seen: set[str] = set()
        queue: list[_Candidate] = []
        for row in connection.execute(_DUE, {"b_endpoint": endpoint, "b_now": now, "b_limit": most}):
            if row.subject not in seen:  # two heads in one line: only the first this time
                seen.add(row.subject)
                queue.append(_Candidate(row.id, row.state, row.lease_owner))
        queues.append(queue)
    turns = (queue[turn] for turn in range(max(map(len, queues), default=0)) for queue in queues if turn < len(queue))
    return [row for _, row in zip(range(limit), turns, strict=False)]


def _claim(
    connection: Connection, candidates: Sequence[_Candidate], owner: str, now: float, lease_s: float
) -> list[Delivery]:
    claimed: list[Delivery] = []
    for row in candidates:
        values = {
            "b_id": row.id,
            "b_state": row.state,
            "b_was": row.lease_owner or "",
            "b_now": now,
            "b_owner": owner,
            "b_until": now + lease_s,
        }
        if _rows(connection.execute(_CLAIM, values)) == 1:
            claimed.append(_delivery(connection.execute(_ONE, {"b_id": row.id}).one()))
    return claimed


def _finish(connection: Connection, finish: Finish, emptied: set[_Line]) -> bool:
    """Whether the claim was still held; a line in which nobody comes next is added to `emptied`."""
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
    if _rows(connection.execute(_FINISH, values)) == 0:
        return False
    connection.execute(
        _RECORD,
        {
            "delivery_id": finish.delivery_id,
            "at": attempt.at,
            "duration_s": attempt.duration_s,
            "status": attempt.status,
            "outcome": attempt.outcome,
            "detail": attempt.detail,
        },
    )
    if not again:
        line = connection.execute(_LINE_OF, {"b_id": finish.delivery_id}).one()
        if not _call_up(connection, line.endpoint, line.subject, attempt.ended_at):
            emptied.add((line.endpoint, line.subject))
    return True


def _call_up(connection: Connection, endpoint: str, subject: str, now: float) -> bool:
    """Make the first of a line due, if it waits; whether there was one."""
    first = connection.execute(_FIRST_IN_LINE, _line(endpoint, subject)).scalar()
    if first is not None:
        connection.execute(_MAKE_DUE, {"b_id": first, "b_now": now})
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


def _chunks(values: Sequence[T]) -> Iterable[Sequence[T]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))
