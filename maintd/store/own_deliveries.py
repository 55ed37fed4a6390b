"""Deliveries as a project sees them: those to its own subscriptions, and of each what gives nothing else away.

The numbers of deliveries and of events are counted over everybody: whoever saw them grow could tell how busy the cloud
is, and when others are told something. So a project knows a delivery by its event's id and its subscription's, in
the order of its own log. Whose a delivery is stands in no column of its own: both the event and the subscription must
be the project's. Once either is gone, so is the delivery, for the project; operators see it until its age.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, Select, and_, literal, or_, select

from maintd.store.delivery_tables import deliveries
from maintd.store.engine import Database
from maintd.store.subscription_tables import subscriptions
from maintd.store.subscriptions import ENDPOINT_PREFIX
from maintd.store.tables import events

_d, _e, _s = deliveries.c, events.c, subscriptions.c
_OWN: Select[tuple[object, ...]] = select(
    _d.id.label("number"),
    _s.id.label("subscription_id"),
    _d.event_id,
    _d.event_type,
    _d.subject,
    _e.incarnation.label("sequence"),
    _d.state,
    _d.attempts,
    _d.created_at,
    _d.due_at,
    _d.first_failed_at,
).select_from(
    events.join(deliveries, _d.event_id == _e.id).join(
        subscriptions, and_(_d.endpoint == literal(ENDPOINT_PREFIX) + _s.id, _s.project_id == _e.project_id)
    )
)


@dataclass(frozen=True, slots=True)
class OwnDelivery:
    """A delivery of one of a project's events to one of its subscriptions. `sequence` is the event's in the project's
    log; `number` is the row's, for the store's other methods, and is never shown to a project."""

    number: int
    subscription_id: str
    event_id: str
    event_type: str
    subject: str
    sequence: int
    state: str
    attempts: int
    created_at: float
    due_at: float | None
    first_failed_at: float | None

    @property
    def id(self) -> str:
        """By what the project knows it; neither part has a dot."""
        return f"{self.event_id}.{self.subscription_id}"


class OwnDeliveries:
    """`store.own_deliveries`. Every question is one project's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(
        self,
        project_id: str,
        *,
        now: float,
        state: str | None = None,
        subscription_id: str | None = None,
        after: tuple[int, str] = (0, ""),
        limit: int = 100,
    ) -> list[OwnDelivery]:
        """In the order of the project's log, from the one after `after`: (sequence, subscription)."""
        statement = self._of(project_id, now).order_by(_e.incarnation, _s.id).limit(limit)
        statement = statement.where(or_(_e.incarnation > after[0], and_(_e.incarnation == after[0], _s.id > after[1])))
        if state is not None:
            statement = statement.where(_d.state == state)
        if subscription_id is not None:
            statement = statement.where(_s.id == subscription_id)
        return self._database.read(lambda connection: [_own(row) for row in connection.execute(statement)])

    def get(self, project_id: str, delivery_id: str, *, now: float) -> OwnDelivery | None:
        """One by its id, or None."""
        found = self.find(project_id, (delivery_id,), now=now)
        return found[0] if found else None

    def find(self, project_id: str, delivery_ids: Collection[str], *, now: float) -> Sequence[OwnDelivery]:
        """Those of these ids that there are."""
        wanted = {delivery_id: delivery_id.partition(".")[0] for delivery_id in delivery_ids}
        statement = self._of(project_id, now).where(_d.event_id.in_(sorted(set(wanted.values()))))
        rows = self._database.read(lambda connection: [_own(row) for row in connection.execute(statement)])
        return [row for row in rows if row.id in wanted]

    @staticmethod
    def _of(project_id: str, now: float) -> Select[tuple[object, ...]]:
        return _OWN.where(_e.project_id == project_id, _e.visible_at <= now)


def _own(row: Row[tuple[object, ...]]) -> OwnDelivery:
    return OwnDelivery(**row._asdict())
