"""Deliveries as rows: made once, claimed once, in order, and never lost; the same on every database there is."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from maintd.store import deliveries as in_store
from maintd.store.deliveries import Attempt, Deliveries, Delivery, NewEvent, RoutesOutdated
from maintd.store.subscriptions import ACTIVE, PAUSED, UNVERIFIED, Subscription
from tests.delivery.databases import KINDS, Database, new_database

NOW = 1_800_000_000.0
FAILED = Attempt(NOW, 0.5, 500, "refused", "no")
TAKEN = Attempt(NOW, 0.5, 200, "delivered", "")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    with new_database(request.param, tmp_path) as new:
        yield new


@pytest.fixture
def deliveries(database: Database) -> Deliveries:
    return database.deliveries


def to(*endpoints: str):  # type: ignore[no-untyped-def]
    return lambda event_type: endpoints


def claim(deliveries: Deliveries, owner: str = "me", at: float = NOW, limit: int = 100, **more) -> list[Delivery]:  # type: ignore[no-untyped-def]
    return deliveries.claim(owner, at, 30.0, limit, **more)


def ids(found: Sequence[Delivery]) -> list[str]:
    return [delivery.event_id for delivery in found]


def test_an_event_becomes_one_delivery_per_endpoint(database: Database, deliveries: Deliveries) -> None:
    """Fan-out makes a delivery for each endpoint named, with the event's own text, and takes each event once."""
    event_id = database.emit(7, subject="cmp-1")

    assert 1 == deliveries.fan_out(to("a", "b"), NOW)
    assert 0 == deliveries.fan_out(to("a", "b"), NOW)
    found = deliveries.list()
    assert [("a", event_id, 7, "cmp-1", "pending"), ("b", event_id, 7, "cmp-1", "pending")] == [
        (d.endpoint, d.event_id, d.sequence, d.subject, d.state) for d in found
    ]
    assert '"name": "é"' in found[0].body


def test_events_nobody_wants_are_taken_too(database: Database, deliveries: Deliveries) -> None:
    """An event without a receiver is marked as seen to, so that it is not looked at for ever."""
    database.emit(1)

    assert (1, 0) == (deliveries.fan_out(to(), NOW), deliveries.fan_out(to("a"), NOW))
    assert [] == deliveries.list()


def test_fan_out_is_bounded_and_oldest_first(database: Database, deliveries: Deliveries) -> None:
    """A limit on events per transaction is kept, and the oldest go first."""
    for sequence in (3, 1, 2):
        database.emit(sequence)

    assert 2 == deliveries.fan_out(to("a"), NOW, limit=2)
    assert ["event-1", "event-2"] == ids(deliveries.list())


def test_an_event_that_committed_late_is_not_missed(database: Database, deliveries: Deliveries) -> None:
    """An event with a lower number than one already taken is still taken: the mark is on the row, not a position."""
    database.emit(5)
    deliveries.fan_out(to("a"), NOW)
    database.emit(4)

    assert 1 == deliveries.fan_out(to("a"), NOW)


def test_a_claim_is_nobody_elses(database: Database, deliveries: Deliveries) -> None:
    """What one claimed, another does not get while the lease holds; then it does, the same event again."""
    database.emit(1)
    deliveries.fan_out(to("a"), NOW)

    mine = claim(deliveries, "me")
    assert ["event-1"] == ids(mine)
    assert [] == claim(deliveries, "you", NOW + 29)
    assert ["event-1"] == ids(claim(deliveries, "you", NOW + 31))
    assert deliveries.finish(mine[0].id, "me", TAKEN, state="delivered") is False
    assert [] == list(deliveries.attempts(mine[0].id))
    assert deliveries.finish(mine[0].id, "you", TAKEN, state="delivered") is True
    assert [TAKEN] == list(deliveries.attempts(mine[0].id))


def test_what_a_dead_daemon_had_in_hand_can_be_taken_back(database: Database, deliveries: Deliveries) -> None:
    """It is due at once, in its order, and no more the dead one's; what is finished or waits stays as it was."""
    for sequence in (1, 2, 3):
        database.emit(sequence, subject="cmp-2" if sequence == 3 else "cmp-1")
    deliveries.fan_out(to("a"), NOW)
    first, other = claim(deliveries, "dead")
    deliveries.finish(other.id, "dead", TAKEN, state="delivered")

    assert 1 == deliveries.take_back(NOW + 1)
    assert deliveries.finish(first.id, "dead", TAKEN, state="delivered") is False
    assert ["event-1"] == ids(claim(deliveries, "me", NOW + 1))
    assert ["delivered"] == [d.state for d in deliveries.list(event_id="event-3")]


def test_a_lease_that_ran_out_unnoticed_still_counts(database: Database, deliveries: Deliveries) -> None:
    """Whoever finishes late, but before anybody else claimed, has finished."""
    database.emit(1)
    deliveries.fan_out(to("a"), NOW)
    mine = claim(deliveries)[0]

    late = Attempt(NOW + 50, 0.0, 200, "delivered", "")
    assert deliveries.finish(mine.id, "me", late, state="delivered") is True


def test_one_of_a_subject_in_flight_in_order(database: Database, deliveries: Deliveries) -> None:
    """Of one endpoint and subject, the second is claimed when the first is finished; other subjects do not wait."""
    for sequence, subject in enumerate(["cmp-1", "cmp-1", "cmp-2", "cmp-1"], start=1):
        database.emit(sequence, subject=subject)
    deliveries.fan_out(to("a"), NOW)

    first = claim(deliveries)
    assert ["event-1", "event-3"] == ids(first)
    assert [] == claim(deliveries, "you")
    deliveries.finish(first[0].id, "me", TAKEN, state="delivered")
    second = claim(deliveries, at=NOW + 1)
    assert ["event-2"] == ids(second)
    deliveries.finish(second[0].id, "me", TAKEN, state="delivered")
    assert ["event-4"] == ids(claim(deliveries, at=NOW + 1))


def test_a_later_event_waits_behind_a_retry(database: Database, deliveries: Deliveries) -> None:
    """While the first waits for its next attempt, later ones of its subject do not overtake it, whenever they came."""
    database.emit(1)
    deliveries.fan_out(to("a"), NOW)
    first = claim(deliveries)[0]
    deliveries.finish(first.id, "me", FAILED, state="pending", due_at=NOW + 100)
    database.emit(2)
    deliveries.fan_out(to("a"), NOW + 1)

    assert [] == claim(deliveries, at=NOW + 99)
    assert NOW + 100 == deliveries.next_due_at()
    again = claim(deliveries, at=NOW + 100)
    assert (["event-1"], 1, NOW) == (ids(again), again[0].attempts, again[0].first_failed_at)


@pytest.mark.parametrize("state", ["delivered", "dead"])
def test_the_next_follows_the_finished(database: Database, deliveries: Deliveries, state: str) -> None:
    """When the head of a line is delivered, or given up, the next is due at that moment."""
    database.emit(1)
    database.emit(2)
    deliveries.fan_out(to("a"), NOW)
    deliveries.finish(claim(deliveries)[0].id, "me", TAKEN, state=state)  # type: ignore[arg-type]

    assert NOW + 0.5 == deliveries.next_due_at()
    assert ["event-2"] == ids(claim(deliveries, at=NOW + 0.5))


def test_claims_are_fair(database: Database, deliveries: Deliveries) -> None:
    """A limit is shared: an endpoint with a hundred waiting does not keep out one with two."""
    for sequence in range(1, 101):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a"), NOW)
    for sequence in (101, 102):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("b"), NOW + 1)

    assert Counter({"a": 4, "b": 2}) == Counter(d.endpoint for d in claim(deliveries, at=NOW + 1, limit=6))


def test_room_and_skipping(database: Database, deliveries: Deliveries) -> None:
    """No endpoint gets more than its room, none that has no room or is to be skipped gets anything."""
    for sequence in range(1, 11):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a", "b", "c", "d"), NOW)

    found = claim(deliveries, room={"a": 3, "b": 1, "d": 5}, skip_endpoints=["d"])
    assert Counter({"a": 3, "b": 1}) == Counter(d.endpoint for d in found)


def test_a_waiting_line_costs_nothing(database: Database, deliveries: Deliveries) -> None:
    """However many events wait behind a dead receiver's first, only the head of the line is ever due."""
    for sequence in range(1, 301):
        database.emit(sequence)
    deliveries.fan_out(to("dead"), NOW)
    deliveries.finish(claim(deliveries)[0].id, "me", FAILED, state="pending", due_at=NOW + 5)

    assert 1 == len([d for d in deliveries.list(limit=1000) if d.due_at is not None])


def test_mend_calls_up_a_line_without_a_head(database: Database, deliveries: Deliveries) -> None:
    """Where two transactions overlapped and nobody was called up, mend does it, once, and only there."""
    database.emit(1)
    database.emit(2)
    database.emit(3, subject="cmp-2")
    deliveries.fan_out(to("a"), NOW)
    tables = database.deliveries_table
    database.write(lambda c: c.execute(tables.update().where(tables.c.sequence == 1).values(due_at=None)))

    assert (1, 0) == (deliveries.mend(NOW + 1), deliveries.mend(NOW + 1))
    assert {"event-1", "event-3"} == set(ids(claim(deliveries, at=NOW + 1)))


def test_a_fan_out_that_overlaps_the_end_of_a_head(
    database: Database, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event put behind a head that ends in that very moment is due all the same, without anybody mending."""
    database.emit(1)
    deliveries.fan_out(to("a"), NOW)
    head = claim(deliveries)[0]
    database.emit(2)
    overlapping = database.dialect != "sqlite"  # which has no two writers at once
    look = in_store._busy

    def finish() -> None:
        assert deliveries.finish(head.id, "me", TAKEN, state="delivered")

    def look_and_finish(*given: Any) -> set[tuple[str, str]]:
        found = look(*given)
        finish()  # event 2 will be put behind event 1 all the same
        return found

    with monkeypatch.context() as patched:
        if overlapping:
            patched.setattr(in_store, "_busy", look_and_finish)
        assert 1 == deliveries.fan_out(to("a"), NOW + 1)
    if not overlapping:
        finish()
    assert ["event-2"] == ids(claim(deliveries, at=NOW + 1))


def test_two_heads_in_one_line(database: Database, deliveries: Deliveries) -> None:
    """Should a line ever have two that are due, they are claimed one after the other."""
    database.emit(1)
    database.emit(2)
    deliveries.fan_out(to("a"), NOW)
    database.write(lambda c: c.execute(database.deliveries_table.update().values(due_at=NOW)))

    first = claim(deliveries)
    assert ["event-1"] == ids(first)
    assert [] == claim(deliveries)
    deliveries.finish(first[0].id, "me", TAKEN, state="delivered")
    assert ["event-2"] == ids(claim(deliveries, at=NOW + 1))


def test_redeliver_by_id(database: Database, deliveries: Deliveries) -> None:
    """A dead and a delivered one go again, with the same event id and as if never tried; the record stays."""
    for sequence in (1, 2, 3):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a"), NOW)
    one, two, three = claim(deliveries)
    deliveries.finish(one.id, "me", FAILED, state="dead")
    deliveries.finish(two.id, "me", TAKEN, state="delivered")

    assert 2 == deliveries.redeliver([one.id, two.id, three.id, 99], now=NOW + 10).total()
    again = claim(deliveries, "you", NOW + 10)
    assert ["event-1", "event-2"] == ids(again)
    assert [(0, NOW + 10, None)] * 2 == [(d.attempts, d.created_at, d.first_failed_at) for d in again]
    assert [FAILED] == list(deliveries.attempts(one.id))


def test_redeliver_by_endpoint_and_time(database: Database, deliveries: Deliveries) -> None:
    """Everything an endpoint missed in a span of time goes again, in event order, one at a time."""
    for sequence in (1, 2, 3):
        database.emit(sequence)
    deliveries.fan_out(to("a", "b"), NOW)
    for at in (0.0, 100.0, 200.0):
        for delivery in claim(deliveries, at=NOW + at):
            deliveries.finish(delivery.id, "me", Attempt(NOW + at, 0, 500, "refused", ""), state="dead")

    assert 2 == deliveries.redeliver(endpoint="a", since=NOW + 100, until=NOW + 201, now=NOW + 300).total()
    assert ["event-2"] == ids(claim(deliveries, at=NOW + 300))
    assert 0 == deliveries.redeliver(endpoint="a", since=NOW + 100, until=NOW + 201, now=NOW + 300).total()


def test_redelivered_waits_for_what_is_in_flight(database: Database, deliveries: Deliveries) -> None:
    """An old event asked for again does not go beside a newer one of its subject, and comes next."""
    for sequence in (1, 2, 3):
        database.emit(sequence)
    deliveries.fan_out(to("a"), NOW)
    one = claim(deliveries)[0]
    deliveries.finish(one.id, "me", FAILED, state="dead")
    two = claim(deliveries, at=NOW + 1)[0]
    deliveries.redeliver([one.id], now=NOW + 2)

    assert [] == claim(deliveries, "you", NOW + 2)
    deliveries.finish(two.id, "me", TAKEN, state="delivered")
    assert ["event-1"] == ids(claim(deliveries, "you", NOW + 2))


def test_a_purged_event(database: Database, deliveries: Deliveries) -> None:
    """A delivery outlives its event: it is claimed with an empty body, and cannot be redelivered."""
    database.emit(1)
    deliveries.fan_out(to("a"), NOW)
    events = database.events_table
    database.write(lambda c: c.execute(events.delete()))

    found = claim(deliveries)
    assert [""] == [d.body for d in found]
    deliveries.finish(found[0].id, "me", FAILED, state="dead")
    assert 0 == deliveries.redeliver([found[0].id], now=NOW).total()


def test_a_disabled_endpoint_gets_dead_letters(database: Database, deliveries: Deliveries) -> None:
    """Disabling gives up what waits, with the reason; events that come later are dead at once; nobody else notices."""
    database.emit(1)
    deliveries.fan_out(to("a", "b"), NOW)

    assert (True, False) == (deliveries.disable("a", "410", NOW), deliveries.disable("a", "410", NOW + 1))
    database.emit(2, subject="cmp-2")
    deliveries.fan_out(to("a", "b"), NOW + 1)
    assert {("a", "dead"): 2, ("b", "pending"): 2} == deliveries.counts()
    assert {"a": (NOW, "410")} == deliveries.disabled()
    assert ["endpoint_disabled"] * 2 == [
        attempt.outcome for d in deliveries.list(endpoint="a") for attempt in deliveries.attempts(d.id)
    ]


def test_what_is_to_be_tried_again_at_an_endpoint_that_was_disabled_is_given_up(
    database: Database, deliveries: Deliveries
) -> None:
    """It was under way when the rest was given up; what was redelivered since, behind it, has its turn."""
    for sequence in (1, 2):
        database.emit(sequence)
    deliveries.fan_out(to("a", "b"), NOW)
    first, other = claim(deliveries)
    deliveries.disable("a", "gone", NOW + 1)
    (waited,) = [one for one in deliveries.list(endpoint="a") if one.event_id == "event-2"]
    assert deliveries.redeliver([waited.id], now=NOW + 2)
    for one in (first, other):
        assert deliveries.finish(one.id, "me", Attempt(NOW + 3, 0.5, 500, "refused", "no"), state="pending", due_at=NOW)

    state = {(one.endpoint, one.event_id): (one.state, one.due_at) for one in deliveries.list()}
    assert (("dead", None), ("pending", NOW + 3.5)) == (state["a", "event-1"], state["a", "event-2"])
    assert (("pending", NOW), ("pending", None)) == (state["b", "event-1"], state["b", "event-2"])
    assert ["refused", "endpoint_disabled"] == [attempt.outcome for attempt in deliveries.attempts(first.id)]


def test_redelivering_to_a_disabled_endpoint_enables_it(database: Database, deliveries: Deliveries) -> None:
    """Who asks for an endpoint's missed events wants it called again."""
    database.emit(1)
    deliveries.disable("a", "410", NOW)
    deliveries.fan_out(to("a"), NOW)

    assert 1 == deliveries.redeliver(endpoint="a", now=NOW + 1).total()
    assert {} == deliveries.disabled()
    assert ["event-1"] == ids(claim(deliveries, at=NOW + 1))


def test_enable(database: Database, deliveries: Deliveries) -> None:
    """An endpoint can be enabled again, and says whether that was news."""
    deliveries.disable("a", "410", NOW)

    assert (True, False) == (deliveries.enable("a"), deliveries.enable("a"))


def test_abandon(database: Database, deliveries: Deliveries) -> None:
    """What waits for an endpoint that is configured no more is given up once it is old, and not before."""
    database.emit(1)
    deliveries.fan_out(to("a", "removed"), NOW)

    assert 0 == deliveries.abandon(["a"], created_before=NOW, now=NOW + 1)
    assert 1 == deliveries.abandon(["a"], created_before=NOW + 1, now=NOW + 1)
    assert {("a", "pending"): 1, ("removed", "dead"): 1} == deliveries.counts()


def test_abandon_leaves_subscriptions_to_their_table(database: Database, deliveries: Deliveries) -> None:
    """What waits for subscriptions is given up only when they are in their table no more, however it is named."""
    kept = database.subscriptions.add(Subscription("a" * 32, None, "n", "https://x.example/", ("*",)))
    assert kept is not None
    database.emit(1)
    deliveries.fan_out(to(kept.endpoint, "sub-" + "b" * 32, "webhook"), NOW)

    assert 1 == deliveries.abandon((), NOW + 1, NOW + 2)
    assert 1 == deliveries.abandon_deleted(NOW + 2)
    assert 0 == deliveries.abandon_deleted(NOW + 2)
    assert {
        (kept.endpoint, "pending"): 1,
        ("sub-" + "b" * 32, "dead"): 1,
        ("webhook", "dead"): 1,
    } == deliveries.counts()


def test_a_refused_endpoint_gets_dead_letters(database: Database, deliveries: Deliveries) -> None:
    """Whoever fans out may say who is refused; for those a delivery is dead at once, with the reason on record."""
    database.emit(1)
    deliveries.fan_out(to("a", "b"), NOW, refused=["b"])

    assert {("a", "pending"): 1, ("b", "dead"): 1} == deliveries.counts()
    assert ["endpoint_disabled"] == [a.outcome for a in deliveries.attempts(deliveries.list(endpoint="b")[0].id)]


def test_giving_up_an_endpoint(database: Database, deliveries: Deliveries) -> None:
    """What waits for an endpoint that was given up is dead; what is in flight is left to its end, others alone."""
    for sequence in (1, 2, 3):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a", "b"), NOW)
    claim(deliveries, room={"a": 1})

    assert 2 == deliveries.give_up("a", "it failed", NOW)
    assert {("a", "claimed"): 1, ("a", "dead"): 2, ("b", "pending"): 3} == deliveries.counts()


def test_fan_out_makes_a_bounded_number(
    database: Database, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction takes as many events as make so many deliveries, but always one; none is lost or taken twice."""
    monkeypatch.setattr(in_store, "MADE_AT_ONCE", 5)
    for sequence in range(1, 5):
        database.emit(sequence)

    assert [2, 2, 0] == [deliveries.fan_out(to("a", "b"), NOW) for _ in range(3)]
    database.emit(5)
    assert 1 == deliveries.fan_out(to(*"abcdefgh"), NOW)
    assert 4 * 2 + 8 == len(deliveries.list())


def test_fan_out_by_old_routes_takes_nothing(database: Database, deliveries: Deliveries) -> None:
    """Where subscriptions have changed since the routes were made, no event is taken by these routes."""
    before = database.subscriptions.version()
    one = database.subscriptions.add(Subscription("a" * 32, None, "n", "https://x.example/", ("*",)))
    assert one is not None
    database.emit(1)
    with pytest.raises(RoutesOutdated):
        deliveries.fan_out(to("a"), NOW, subscribed=before)

    assert [] == deliveries.list()
    assert 1 == deliveries.fan_out(to("a"), NOW, subscribed=database.subscriptions.version())


def test_no_event_is_taken_by_routes_of_before_it(database: Database, deliveries: Deliveries) -> None:
    """An event that is committed while a fan-out looks whether its routes still hold is not taken by that fan-out:
    somebody may have subscribed in between."""
    if database.dialect == "sqlite":
        pytest.skip("one writer at a time: nothing is committed meanwhile")

    class Held(tuple[int, int]):
        """The version that is still the same when it is compared, when others go on."""

        __hash__ = tuple.__hash__

        def __ne__(self, other: object) -> bool:
            same = super().__eq__(other)
            if not database.subscriptions.count(None):
                database.subscriptions.add(Subscription("a" * 32, None, "n", "https://x.example/", ("*",)))
                database.emit(2)
            return not same

    database.emit(1)
    taken = deliveries.fan_out(to("old"), NOW, subscribed=Held(database.subscriptions.version()))

    assert (1, ["event-1"]) == (taken, ids(deliveries.list()))


def test_those_that_take_longer_are_claimed_for_longer_in_their_turn(
    database: Database, deliveries: Deliveries
) -> None:
    """One claim is for endpoints with different leases: nobody waits because of the length of a lease."""
    for sequence in (1, 2, 3):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a", "exec"), NOW)
    found = claim(deliveries, limit=3, overtime={"exec": 35.0})

    assert [("a", NOW + 30.0), ("exec", NOW + 65.0), ("a", NOW + 30.0)] == [(d.endpoint, d.due_at) for d in found]


def test_a_redelivery_of_what_is_being_sent_leaves_it_alone(
    database: Database, deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two redeliveries of the same overlap, and what the first has made due is claimed before the second gets there."""
    if database.dialect == "sqlite":
        pytest.skip("one writer at a time: two redeliveries do not overlap")
    database.emit(1)
    database.emit(2)
    deliveries.fan_out(to("a"), NOW)
    for owner, at in (("1", NOW), ("2", NOW + 1)):
        (one,) = claim(deliveries, owner, at)
        deliveries.finish(one.id, owner, TAKEN, state="delivered")
    chunks, found = in_store.chunks, list[Delivery]()

    def after_another(values: Any) -> Any:
        monkeypatch.setattr(in_store, "chunks", chunks)
        deliveries.redeliver(endpoint="a", now=NOW + 2)
        found.extend(claim(deliveries, "3", NOW + 2))
        return chunks(values)

    monkeypatch.setattr(in_store, "chunks", after_another)
    assert not deliveries.redeliver(endpoint="a", now=NOW + 2)

    assert ["event-1"] == ids(found)
    assert deliveries.finish(found[0].id, "3", TAKEN, state="delivered")
    assert ["event-2"] == ids(claim(deliveries, "4", NOW + 3))


def test_routes_are_told_whose_an_event_is(database: Database, deliveries: Deliveries) -> None:
    """A route sees type, subject and project, and reads the data of an event if it wants to."""
    database.emit(1, subject="cmp-1")
    database.emit(2, "maintd.server.moving.v1", "s1", project_id="p1", metadata_keys=["ha"])
    seen: list[tuple[str, str, str | None, object]] = []

    def route(event: NewEvent) -> Sequence[str]:
        seen.append((event.type, event.subject, event.project_id, event.data()["state"]))
        return []

    deliveries.fan_out(route, NOW)
    assert [
        ("maintd.host.emptied.v1", "cmp-1", None, {"metadata_keys": []}),
        ("maintd.server.moving.v1", "s1", "p1", {"metadata_keys": ["ha"]}),
    ] == seen


def test_an_event_is_due_when_it_may_be_seen(database: Database, deliveries: Deliveries) -> None:
    """Neither the first of a line nor one that is called up later is due before its event may be seen."""
    for sequence, visible_at in ((1, NOW + 5), (2, NOW + 50), (3, NOW - 5)):
        database.emit(sequence, subject="s1", visible_at=visible_at)
    deliveries.fan_out(to("a"), NOW)
    assert ([], NOW + 5) == (claim(deliveries), deliveries.next_due_at())
    for owner, at, next_at in (("1", NOW + 5, NOW + 50), ("2", NOW + 50, NOW + 51), ("3", NOW + 51, None)):
        (one,) = claim(deliveries, owner, at)
        deliveries.finish(one.id, owner, Attempt(at, 1.0, 200, "delivered", ""), state="delivered")
        assert next_at == deliveries.next_due_at()


def test_last_attempts(database: Database, deliveries: Deliveries) -> None:
    """Of each delivery that was tried, the last attempt; nothing of the others."""
    for sequence in (1, 2):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a"), NOW)
    for number in (1, 2):
        one = claim(deliveries, f"me-{number}", NOW + number, limit=1)[0]
        attempt = Attempt(NOW + number, 0.5, 500 + number, "refused", "no")
        deliveries.finish(one.id, f"me-{number}", attempt, state="pending", due_at=NOW)
    first, second = (delivery.id for delivery in deliveries.list())

    assert {first: 502} == {number: found.status for number, found in deliveries.last_attempts([first, second]).items()}


def test_listing(database: Database, deliveries: Deliveries) -> None:
    """A list is by id, from a cursor, filtered by what is given."""
    for sequence in (1, 2, 3):
        database.emit(sequence)
    deliveries.fan_out(to("a", "b"), NOW)
    found = deliveries.list()

    assert [d.id for d in found[2:4]] == [d.id for d in deliveries.list(after=found[1].id, limit=2)]
    assert ["event-1", "event-2", "event-3"] == ids(deliveries.list(endpoint="b", state="pending"))
    assert ["a", "b"] == [d.endpoint for d in deliveries.list(event_id="event-2")]
    assert found[0] == deliveries.get(found[0].id)
    assert deliveries.get(found[-1].id + 1) is None


def test_oldest_and_next(database: Database, deliveries: Deliveries) -> None:
    """With nothing waiting there is neither an oldest nor a next; a claimed one is still waited for."""
    assert (None, None) == (deliveries.oldest_pending_at(), deliveries.next_due_at())
    database.emit(1)
    deliveries.fan_out(to("a"), NOW)
    assert (NOW, NOW) == (deliveries.oldest_pending_at(), deliveries.next_due_at())
    mine = claim(deliveries)[0]
    assert (NOW, NOW + 30) == (deliveries.oldest_pending_at(), deliveries.next_due_at())
    deliveries.finish(mine.id, "me", TAKEN, state="delivered")
    assert (None, None) == (deliveries.oldest_pending_at(), deliveries.next_due_at())


@pytest.mark.parametrize(
    ("project_id", "state", "alarms"),
    [(None, ACTIVE, True), (None, PAUSED, False), (None, UNVERIFIED, False), ("p", ACTIVE, False)],
)
def test_what_waits_for_others_is_no_alarm_of_the_operators(
    database: Database, deliveries: Deliveries, project_id: str | None, state: str, alarms: bool
) -> None:
    """Only a receiver of the operators' own, that is to be sent to, can be what an event waits for too long."""
    one = Subscription("a" * 32, project_id, "n", "https://x.example/", ("*",), state=state)
    database.subscriptions.add(one)
    database.emit(1)
    deliveries.fan_out(to(one.endpoint), NOW)

    assert (NOW if alarms else None) == deliveries.oldest_pending_at()


def test_purge(database: Database, deliveries: Deliveries) -> None:
    """Only what is finished and old goes, with its attempts, a batch at a time."""
    for sequence in range(1, 5):
        database.emit(sequence, subject=f"cmp-{sequence}")
    deliveries.fan_out(to("a"), NOW)
    found = claim(deliveries)
    for delivery in found[:3]:
        deliveries.finish(delivery.id, "me", TAKEN, state="delivered")

    assert 0 == deliveries.purge(NOW, limit=2)
    assert [2, 1] == [deliveries.purge(NOW + 1, limit=2) for _ in range(2)]
    assert [found[3].id] == [d.id for d in deliveries.list()]
    assert [] == list(deliveries.attempts(found[0].id))


def test_many_controllers_make_and_claim_each_delivery_once(database: Database) -> None:
    """Four controllers fan out, claim and finish at once: every event is claimed once, each subject in order."""
    per_subject, subjects = 15, 8
    for sequence in range(per_subject * subjects):
        database.emit(sequence + 1, subject=f"cmp-{sequence % subjects}")
    total = per_subject * subjects * 2
    claimed: list[Delivery] = []
    trouble: list[BaseException] = []
    gate = threading.Barrier(4)

    def controller(number: int) -> None:
        try:
            deliveries, turn = database.deliveries, 0
            gate.wait()
            while len(claimed) < total and turn < 5000:
                turn += 1
                deliveries.fan_out(to("a", "b"), NOW, limit=7)
                for delivery in deliveries.claim(f"{number}:{turn}", NOW + 1, 30.0, 5):
                    claimed.append(delivery)
                    assert deliveries.finish(delivery.id, f"{number}:{turn}", TAKEN, state="delivered")
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=controller, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert [] == trouble
    assert total == len(claimed) == len({delivery.id for delivery in claimed})
    for endpoint in ("a", "b"):
        for subject in {delivery.subject for delivery in claimed}:
            line = [d.sequence for d in claimed if (d.endpoint, d.subject) == (endpoint, subject)]
            assert sorted(line) == line
