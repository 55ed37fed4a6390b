"""The event log is read in sequence, whole, and as it was published."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine, event

from maintd.domain.events import CloudEvent
from maintd.store import Commit, Fence, Store
from tests.store.conftest import NOW


def publish(store: Store, fence: Fence, count: int, after: int = 0) -> list[CloudEvent]:
    made = [
        CloudEvent(
            id=f"event-{number}",
            type=("maintd.host.emptied.v1", "maintd.migration.started.v1", "maintd.migration.stalled.v1")[number % 3],
            source="/maintd/main",
            subject=f"cmp-{number % 2}",
            time=NOW + number,
            sequence=number,
            data={"note": "Übung \U0001f600", "number": number},
        )
        for number in range(after + 1, count + 1)
    ]
    store.commit(Commit(fence, events=made))
    return made


def test_the_log_is_read_by_cursor(store: Store, fence: Fence) -> None:
    """Pages after a sequence follow each other without a gap, and the body is what is delivered, byte for byte."""
    made = publish(store, fence, 7)
    first = store.events.list(limit=4)
    rest = store.events.list(after=first[-1].sequence, limit=4)

    assert [one.as_json() for one in made] == [row.body for row in first + rest]
    assert [(e.sequence, e.id, e.type, e.subject, e.time) for e in made] == [
        (row.sequence, row.id, row.type, row.subject, row.time) for row in first + rest
    ]
    assert 7 == store.last_sequence()


def test_the_log_is_filtered(store: Store, fence: Fence) -> None:
    """A glob on the type and a subject narrow the log; a glob that matches nothing finds nothing."""
    publish(store, fence, 6)

    assert [1, 2, 4, 5] == [row.sequence for row in store.events.list(type_glob="maintd.migration.*")]
    assert [4] == [row.sequence for row in store.events.list(type_glob="maintd.migration.started.v1", subject="cmp-0")]
    assert [] == store.events.list(type_glob="MAINTD.*")


def test_a_page_of_some_types_is_all_of_one_moment(store: Store, other: Store, fence: Fence) -> None:
    """A type that came up while the page was being read is on the next one, with all that follows it."""
    publish(store, fence, 4)
    begun = []

    def between(*_: object) -> None:
        if not begun:
            begun.append(True)
            publish(other, fence, 8, after=4)

    event.listen(Engine, "after_cursor_execute", between)
    try:
        page = store.events.list(after=3, limit=9, type_glob="maintd.migration.*")
    finally:
        event.remove(Engine, "after_cursor_execute", between)
    page += store.events.list(after=page[-1].sequence, limit=9, type_glob="maintd.migration.*")

    assert begun and [4, 5, 7, 8] == [row.sequence for row in page]


def test_an_event_is_found_by_id(store: Store, fence: Fence) -> None:
    """An event is read by its id; an unknown id is None."""
    publish(store, fence, 2)
    found = store.events.get("event-2")

    assert found is not None and 2 == found.sequence
    assert store.events.get("event-3") is None
    assert (0, []) == (store.last_sequence() - 2, store.events.list(after=2))


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.events.list(after=5),
        lambda store: store.events.list(after=5, subject="cmp-0"),
        lambda store: store.events.list(after=5, type_glob="maintd.host.*"),
        lambda store: store.events.list_of_project("p-1", after=5, now=NOW),
        lambda store: store.events.list_of_project("p-1", after=5, type_glob="maintd.server.*", now=NOW),
        lambda store: store.notices.of_project("p-1", NOW),
    ],
)
def test_the_end_of_a_log_is_found_without_looking_at_all_of_it(store: Store, ask: Callable[[Store], object]) -> None:
    """On SQLite no question that is asked again and again goes through all events, or all of one owner."""
    if store._database.dialect != "sqlite":
        pytest.skip("how others plan depends on what is in the tables")
    plans: list[str] = []

    def explain(connection, cursor, statement, parameters, context, many) -> None:  # type: ignore[no-untyped-def]
        plans.extend(row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters))

    event.listen(store._database.engine, "before_cursor_execute", explain)
    ask(store)

    assert [one for one in plans if " events" in one]
    assert [] == [one for one in plans if one.startswith("SCAN events") or one.endswith("_incarnation (project_id=?)")]
