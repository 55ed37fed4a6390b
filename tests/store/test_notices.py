"""What a project may see of its servers: its own, as told, and what is held back not before its time."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Engine, event

from maintd.domain.events import CloudEvent
from maintd.domain.model import Notice, Project
from maintd.domain.tenant_events import MaintenanceEnded, MaintenanceStarted, TenantEvent, publish_to_tenant
from maintd.store import Commit, Fence, Store
from tests.store.conftest import NOW

IN = Notice("s-1", "p-1", 1, drain_id="d-1", maintenance_since=NOW, metadata_keys=("k",))


def told(kind: type[TenantEvent], notice: Notice, number: int, visible_at: float = NOW) -> CloudEvent:
    event = kind(notice=notice, change=next(iter(kind.CHANGES)), visible_at=visible_at)
    return publish_to_tenant(event, id=f"e-{number}", installation="main", sequence=number)


def keep(store: Store, fence: Fence, *saved: Notice | Project, **more: object) -> None:
    store.commit(Commit(fence=fence, saved=saved, at=NOW, **more))  # type: ignore[arg-type]


def test_a_project_sees_its_own_servers_only(store: Store, fence: Fence) -> None:
    """The states come by server id, a page at a time, and of no other project."""
    keep(
        store, fence, replace(IN, server_id="s-2"), IN, replace(IN, server_id="s-0", project_id="p-2"),
        Project("p-1", 7, NOW), Project("p-2", 3, NOW),
    )  # fmt: skip

    mine = store.notices.of_project("p-1", NOW)
    assert (7, ["s-1", "s-2"]) == (mine.incarnation, [state["server_id"] for state in mine.states])
    assert [s["server_id"] for s in store.notices.of_project("p-1", NOW, "s-1", 1).states] == ["s-2"]
    assert mine.states[0]["metadata_keys"] == ["k"]


def test_a_project_that_was_never_told_anything_sees_nothing(store: Store) -> None:
    """Incarnation nought, and no server."""
    nobody = store.notices.of_project("p-9", NOW)

    assert (0, ()) == (nobody.incarnation, nobody.states)


def test_what_is_held_back_is_seen_at_its_time(store: Store, fence: Fence) -> None:
    """Until then a server is shown as it was told before: not at all, or still in maintenance."""
    began = told(MaintenanceStarted, IN, 1, NOW + 10)
    keep(store, fence, IN, Project("p-1", 1, NOW + 10), events=[began])

    assert (0, ()) == (lambda m: (m.incarnation, m.states))(store.notices.of_project("p-1", NOW))
    assert [s["server_id"] for s in store.notices.of_project("p-1", NOW + 10).states] == ["s-1"]

    over = replace(IN, incarnation=2, drain_id=None, maintenance_since=None)
    ended = told(MaintenanceEnded, over, 2, NOW + 30)
    store.commit(Commit(fence=fence, saved=[Project("p-1", 2, NOW + 30)], removed=[IN], events=[ended], at=NOW))
    still, then = store.notices.of_project("p-1", NOW + 20), store.notices.of_project("p-1", NOW + 30)
    assert (1, ["s-1"]) == (still.incarnation, [s["server_id"] for s in still.states])
    assert (2, ()) == (then.incarnation, then.states)


def test_what_is_held_back_is_counted_until_its_time(store: Store, fence: Fence) -> None:
    """Whoever waits for events can be told when one that was committed long ago may be seen."""
    keep(store, fence, IN, Project("p-1", 1, NOW + 10), events=[told(MaintenanceStarted, IN, 1, NOW + 10)])

    assert [1, 1, 0] == [store.events.held_back(at) for at in (NOW, NOW + 9.9, NOW + 10)]
    assert [] == store.events.list_of_project("p-1", after=0, limit=9, now=NOW + 9.9)
    assert ["e-1"] == [row.id for row in store.events.list_of_project("p-1", after=0, limit=9, now=NOW + 10)]


def test_what_a_project_sees_is_all_of_one_moment(store: Store, other: Store, fence: Fence) -> None:
    """What is told while it is being read shows in none of it: a state never goes with an older number."""
    keep(store, fence, IN, Project("p-1", 1, NOW))
    changed = []

    def between(*_: object) -> None:
        if not changed:
            changed.append(True)
            keep(other, fence, replace(IN, incarnation=2, removal=True), Project("p-1", 2, NOW))

    event.listen(Engine, "after_cursor_execute", between)
    seen = store.notices.of_project("p-1", NOW)
    event.remove(Engine, "after_cursor_execute", between)

    assert changed and seen.incarnation == 1
    assert [state["maintenance"]["removal"] for state in seen.states] == [False]
    assert store.notices.of_project("p-1", NOW).incarnation == 2
