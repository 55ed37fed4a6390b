"""Forgetting takes what is old, and never what is still needed."""

from __future__ import annotations

from maintd.domain.events import CloudEvent
from maintd.domain.model import Curve, Drain, Kind, Migration, Phase, Residue, Stall
from maintd.domain.quarantine import Quarantined
from maintd.store import Attempt, Commit, Fence, Store
from tests.store.conftest import NOW

DAY = 86400.0


def purge(store: Store, **more: float) -> dict[str, int]:
    ages = {"events_s": 30 * DAY, "deliveries_s": 7 * DAY, "message_ids_s": 2 * DAY, "quarantine_s": 7 * DAY}
    limit = int(more.pop("quarantine_bytes", 10**6))
    return store.purge(NOW, **(ages | more), quarantine_bytes=limit, batch=3)


def published(sequence: int, age_days: float) -> CloudEvent:
    at = NOW - age_days * DAY
    return CloudEvent(f"event-{sequence}", "maintd.bus.healed.v1", "/maintd/main", "default", at, sequence, {})


def test_events_go_when_old_and_delivered(store: Store, fence: Fence) -> None:
    """Old events go once fanned out and delivered; one with a delivery open, one not fanned out, and the last stay."""
    store.commit(Commit(fence, events=[published(n, 31) for n in range(1, 8)]))
    store.deliveries.fan_out(lambda event_type: ["hook"], NOW)
    for delivery in [*store.deliveries.claim("me", NOW, 30.0, 100)]:
        store.deliveries.finish(delivery.id, "me", Attempt(NOW, 0.1, 200, "delivered", ""), state="delivered")
    store.commit(Commit(fence, events=[published(8, 31), published(9, 31)]))

    assert 1 == purge(store)["events"]  # one delivery of a subject at a time: the others wait in line
    assert [2, 3, 4, 5, 6, 7, 8, 9] == [row.sequence for row in store.events.list()]


def test_the_last_event_stays(store: Store, fence: Fence) -> None:
    """However old, the last event stays, so that sequences go on rising."""
    store.commit(Commit(fence, events=[published(n, 300) for n in range(1, 11)]))
    store.deliveries.fan_out(lambda event_type: [], NOW)

    assert 9 == purge(store)["events"]
    assert (10, 0) == (store.last_sequence(), purge(store)["events"])


def test_a_purge_ends_when_it_is_enough(store: Store, fence: Fence) -> None:
    """One that is not to take long deletes a batch of each table, and goes on the next time."""
    for number in range(8):
        store.commit(Commit(fence, message_ids=[f"m-{number}"], at=NOW - 300 * DAY))
    ages = {"events_s": DAY, "deliveries_s": DAY, "message_ids_s": DAY, "quarantine_s": DAY, "quarantine_bytes": 1}

    gone = [store.purge(NOW, **ages, batch=3, enough=lambda: True)["message_ids"] for _ in range(3)]
    assert [3, 3, 2] == gone


def test_young_things_stay(store: Store, fence: Fence) -> None:
    """What is younger than its age stays; older message ids, quarantined messages and history go."""
    for days in (1.0, 3.0, 8.0, 400.0):
        at = NOW - days * DAY
        saved = [
            Migration(f"k-{days}", "s", Kind.LIVE, Phase.COMPLETED, ended_at=at),
            Migration(f"open-{days}", "s", Kind.LIVE, Phase.RUNNING, begun_at=at),
            Drain(f"d-{days}", "cmp-1", at, ended_at=at),
            Drain(f"open-{days}", "cmp-1", at),
            Residue("cmp-1", f"s-{days}", "evacuated", at, cleared_at=at),
            Residue("cmp-1", f"open-{days}", "evacuated", at),
        ]
        bad = Quarantined(at, "default", "bad", None, None, b"x")
        store.commit(Commit(fence, saved=saved, message_ids=[f"m-{days}"], quarantined=[bad], at=at))
    gone = purge(store)

    assert {"message_ids": 3, "quarantine": 2, "migrations": 1, "drains": 1, "residue": 1} == {
        name: gone[name] for name in ("message_ids", "quarantine", "migrations", "drains", "residue")
    }
    assert [] == [one.key for one in store.reading.migrations() if one.key == "k-400.0"]
    assert 7 == len(store.reading.drains()) == len(store.reading.residue(cleared=None))


def test_curves_and_stalls_go_with_their_migration(store: Store, fence: Fence) -> None:
    """A curve and a stall go when their migration does; while its row is there, open, they stay, however old."""
    for days in (8.0, 400.0):
        at = NOW - days * DAY
        for name, ended in (("over", at), ("open", None), ("lost", None)):
            key = f"{name}-{days}"
            saved = [
                Curve(key, "s", kept_at=at, ended_at=ended),
                Stall(f"stall-{key}", key, "s", "live-migration", "frozen", at, at, ended_at=ended),
            ]
            phase = Phase.COMPLETED if ended else Phase.RUNNING
            rows = [] if name == "lost" else [Migration(key, "s", Kind.LIVE, phase, begun_at=at, ended_at=ended)]
            store.commit(Commit(fence, saved=[*rows, *saved]))
    gone = purge(store)

    assert {"migrations": 1, "curves": 2, "stalls": 2} == {n: gone[n] for n in ("migrations", "curves", "stalls")}
    kept = ["lost-8.0", "open-400.0", "open-8.0", "over-8.0"]
    assert kept == sorted(stall.migration_key for stall in store.reading.stalls())
    assert [None, None] == [store.reading.curve(key) for key in ("over-400.0", "lost-400.0")]
    assert all(store.reading.curve(key) for key in kept)


def test_ids_that_went_are_not_missed(store: Store, other: Store, fence: Fence) -> None:
    """After a purge emptied the table, new ids are still seen by another process."""
    store.commit(Commit(fence, message_ids=["m-1"], at=1.0))
    assert {"m-1"} == other.seen(["m-1", "m-2"])
    purge(store)
    store.commit(Commit(fence, message_ids=["m-2"], at=NOW))

    assert {"m-2"} == other.seen(["m-2"])


def test_quarantine_is_bounded_in_bytes(store: Store, fence: Fence) -> None:
    """The oldest messages go until the rest fits."""
    bad = [Quarantined(NOW - 100 + n, "default", "bad", None, None, b"x" * 10) for n in range(10)]
    store.commit(Commit(fence, quarantined=bad))

    assert 7 == purge(store, quarantine_bytes=35)["quarantine"]
    assert [NOW - 91, NOW - 92, NOW - 93] == [one.at for one in store.quarantine.list()]
