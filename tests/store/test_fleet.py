"""The fleet: what is committed comes back, all of a batch or nothing of it, and only from the holder of the lease."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from maintd.clock import ManualClock
from maintd.domain.events import CloudEvent
from maintd.domain.model import (
    Because,
    Block,
    Blocker,
    Bus,
    Curve,
    Departure,
    Drain,
    Entity,
    Finding,
    Host,
    Kind,
    Knowledge,
    Migration,
    Note,
    Notice,
    Pass,
    Phase,
    Point,
    Progress,
    Project,
    ProofRead,
    Residue,
    Server,
    Stall,
)
from maintd.domain.quarantine import Quarantined
from maintd.errors import LeaseLost, OurFault
from maintd.store import Commit, Fence, Store, open_store
from maintd.store.engine import OutcomeUnknown
from maintd.store.fleet import SHELVES
from tests.store.conftest import NOW

FULL: tuple[Entity, ...] = (
    Host(
        "cmp-1",
        "uuid-1",
        True,
        "maintenance \u2014 Übung",
        True,
        False,
        1.25,
        True,
        2.5,
        3.5,
        4.5,
        True,
        True,
        True,
        True,
        5.5,
        "drain-1",
        ("node-1", "node-2"),
        Finding(
            6.5,
            (Blocker("server", "s", "k", 7.5, "why", "do", "p-1"), Blocker("not_closed")),
            (Note("leak", "s", "d"),),
            (ProofRead("servers", 1, 8.5, 0), ProofRead("servers", 2, 9.5, 0)),
        ),
        10.5,
        11.5,
        True,
        12.5,
        13.5,
        "cell1",
        (Departure("s-9", "evacuated", 14.5, True),),
    ),
    Server(
        "s-1",
        "p-1",
        "n'ame \U0001f600",
        "cmp-1",
        "cmp-2",
        "active",
        "migrating",
        1.5,
        2.5,
        3.5,
        4.5,
        "fault",
        5.5,
        6.5,
        "h=1",
        2**40,
        ("ha-group", "owner's \U0001f600"),
    ),
    Migration(
        "key-1",
        "s-1",
        Kind.EVACUATION,
        Phase.ROLLING_BACK,
        "cmp-1",
        "cmp-2",
        "error",
        2**40,
        "uuid-m",
        "p-1",
        "req-1",
        1.5,
        2.5,
        True,
        True,
        True,
        True,
        Progress(2**50, 2, 3, 4, 5, 6),
        99,
        3.5,
        4.5,
        5.5,
        "frozen",
        6.5,
        7.5,
        Phase.FAILED,
        8.5,
        9.5,
        "fault",
        Because("notification", "instance.rebuild.error", "m-1", "req-1"),
        10.5,
        11.5,
        2**40,
        "p-9",
    ),
    Curve(
        "key-1",
        "s-1",
        "cmp-1",
        "cmp-2",
        "percent",
        2.0**40,
        1.5,
        NOW + 0.25,
        NOW + 0.123456,
        7,
        0.5,
        1.5,
        2.25,
        2.5,
        3.5,
        4.5,
        (
            Point(NOW + 0.123456, 2.0**50, 3.0, 4.5),
            Point(NOW + 5, 99.5),
            Point(NOW + 6, 1.0, 2.0),
            Point(7.5, 1, 0, 3),
        ),
        (Pass(NOW + 0.25, 2.0**40), Pass(NOW + 9.5, 1e6 / 3, 4.5, False)),
        (1.0, 2.5),
        Point(NOW + 5, 99.5),
        3,
        Block(NOW + 1.5, 97.0, 2, 1),
        NOW + 2.5,
        5.5,
        None,
        "completed",
    ),
    Drain("drain-1", "cmp-1", 1.5, "why", True, True, True, 12, 2.5, 3.5, None, "ended", True, True),
    Residue("cmp-1", "s-1", "evacuated", 1.5, "uuid-1", "uuid-m", "detail", None, "who", "p-1"),
    Bus("default", True, 1.5, 2.5, 3.5, 4.5, 5.5),
    Notice(
        "s-1",
        "p-1",
        2**40,
        "drain-1",
        1.5,
        True,
        "key-1",
        "resize",
        2.5,
        "owner",
        "slow",
        3.5,
        True,
        True,
        ("ha-group",),
    ),
    Project("p-1", 2**40, 1.5),
    Knowledge(1.5, 2.5, 3.5),
)

BARE: tuple[Entity, ...] = (
    Host("cmp-2"),
    Server("s-2"),
    Migration("key-2", "s-2", Kind.LIVE, Phase.ASKED),
    Curve("key-2", "s-2"),
    Drain("drain-2", "cmp-2", 1.5),
    Residue("cmp-2", "s-2", "deleted_while_down", 1.5),
    Bus("other"),
    Notice("s-2", "p-2"),
    Project("p-2"),
)

STALLS = (  # not among those above: what has evidence cannot be hashed
    Stall(
        "stall-1",
        "key-1",
        "s-1",
        "live-migration",
        "not_converging",
        1.5,
        2.5,
        "cmp-1",
        "cmp-2",
        False,
        None,
        None,
        "completed",
        "key-0",
        {"minima": [1, 2.5], "nova": {"action": "abort", "at": None}, "text": "n\u00e4he"},
    ),
    Stall("stall-2", "key-2", "s-2", "migration", "slow_step", 1.5, 2.5),
)


def event(sequence: int, event_id: str | None = None) -> CloudEvent:
    name = event_id or f"event-{sequence}"
    return CloudEvent(name, "maintd.host.emptied.v1", "/maintd/main", "cmp-1", NOW, sequence, {"host": "cmp-1"})


def loaded(store: Store) -> set[Entity]:
    return set(store.load_fleet())


def test_every_field_has_a_column() -> None:
    """No field of an entity is forgotten by the tables, and no column stands for none."""
    for kind, shelf in SHELVES.items():
        assert set(shelf.columns) == set(shelf.table.columns.keys()), kind
        extra = set(shelf.columns) - {field.name for field in dataclasses.fields(kind)}
        assert extra <= {"is_open", "name"}


def test_the_examples_say_something_of_every_field() -> None:
    """The full examples of this file leave no field at its default, so that the next test means something."""
    for one in (*FULL, STALLS[0]):
        for field in dataclasses.fields(one):
            if field.default is not dataclasses.MISSING and field.name not in ("ended_at", "cleared_at", "resumed_at"):
                assert getattr(one, field.name) != field.default, (type(one), field.name)


def test_what_was_saved_comes_back(store: Store, fence: Fence) -> None:
    """Every entity is loaded exactly as it was saved, full or bare."""
    store.commit(Commit(fence, saved=FULL + BARE))

    assert {*FULL, *BARE} == loaded(store)


def test_stalls_come_back(store: Store, fence: Fence) -> None:
    """A stall is loaded with its evidence as it was saved, and a removed one is gone."""
    store.commit(Commit(fence, saved=STALLS))
    assert [*STALLS] == list(store.load_fleet())
    store.commit(Commit(fence, removed=STALLS[:1]))

    assert [STALLS[1]] == list(store.load_fleet())


def test_numbers_of_a_curve_stay_numbers_of_one_kind(store: Store, fence: Fence) -> None:
    """What comes back is a float where it was one, so that text made of it is the same before and after a restart."""
    store.commit(Commit(fence, saved=FULL))
    (curve,) = (one for one in loaded(store) if isinstance(one, Curve))
    saved = next(one for one in FULL if isinstance(one, Curve))

    assert repr(saved.points[:3]) == repr(curve.points[:3])
    assert repr(saved.passes) == repr(curve.passes)


def test_a_look_is_saved_in_a_few_bytes() -> None:
    """A thousand looks at a guest of 256 GiB without disks take less than 60 kB."""
    points = tuple(Point(NOW + 5.000001 * n, 2.0**38 - n * 4096, 0.0, 1.1e11 + n * 4096) for n in range(1000))
    curve = Curve("k", "s", points=points)
    row = dict(zip(SHELVES[Curve].columns, SHELVES[Curve].row(curve), strict=True))

    assert len(row["points"]) < 60_000


def test_only_what_nova_does_not_show_again_is_made_durable(
    store: Store, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit of servers, migrations and curves alone need not survive a power cut; one with a stall must."""
    real, asked = store._database.write, []

    def write(work: object, durable: bool = False) -> object:
        asked.append(durable)
        return real(work, durable=durable)  # type: ignore[type-var, arg-type]

    monkeypatch.setattr(store._database, "write", write)
    for saved in ([BARE[1], BARE[2], BARE[3]], [BARE[3], STALLS[1]]):
        store.commit(Commit(fence, saved=saved))

    assert [False, True] == asked


def test_saving_again_replaces(store: Store, fence: Fence) -> None:
    """A value saved again replaces the one before, whatever of it has changed; the last of a batch counts."""
    store.commit(Commit(fence, saved=FULL))
    changed = [
        Server("s-1", host="cmp-2", seen_at=7.0),
        Server("s-1", host="cmp-3", seen_at=8.0),
        Server("s-3", host="cmp-3"),
        Migration("key-1", "s-1", Kind.EVACUATION, Phase.FINISHING, "cmp-1", "cmp-2", ended_at=None),
        Host("cmp-1", up=True),
    ]
    store.commit(Commit(fence, saved=changed))
    store.commit(Commit(fence, saved=[Server("s-1", host="cmp-3", seen_at=9.0), Server("s-3", vm_state="error")]))

    assert {Server("s-1", host="cmp-3", seen_at=9.0), Server("s-3", vm_state="error")} == {
        one for one in loaded(store) if isinstance(one, Server)
    }
    assert {*changed[3:], *FULL[3:]} == {one for one in loaded(store) if not isinstance(one, Server)}


def test_what_was_removed_is_gone(store: Store, fence: Fence) -> None:
    """A removed value is not there any more; what is removed and saved in one commit is kept."""
    store.commit(Commit(fence, saved=FULL + BARE))
    store.commit(Commit(fence, saved=[BARE[0]], removed=FULL + BARE))

    assert {BARE[0]} == loaded(store)


def test_what_is_over_is_not_loaded(store: Store, fence: Fence) -> None:
    """Migrations are loaded for an hour after their end, all else only until then; all of it stays to be read."""
    young = Migration("young", "s", Kind.LIVE, Phase.COMPLETED, ended_at=NOW - 3599)
    old = Migration("old", "s", Kind.LIVE, Phase.COMPLETED, ended_at=NOW - 3601)
    drain = Drain("over", "cmp-1", 1.0, ended_at=NOW - 1)
    residue = Residue("cmp-1", "s", "deleted_while_down", 1.0, cleared_at=NOW - 1)
    curve = Curve("young", "s", ended_at=NOW - 1, outcome="completed")
    stall = Stall("stall", "young", "s", "live-migration", "frozen", 1.0, 2.0, ended_at=NOW - 1)
    passed = Stall("stall-2", "open", "s", "live-migration", "frozen", 1.0, 2.0, resumed_at=NOW - 1)
    store.commit(Commit(fence, saved=[young, old, drain, residue, curve, stall, passed]))

    assert {young} == loaded(store)
    assert old == store.reading.migration("old")
    assert drain == store.reading.drain("over")
    assert (curve, [stall, passed]) == (store.reading.curve("young"), store.reading.stalls())
    assert [residue] == store.reading.residue("cmp-1", cleared=True)


def test_a_big_batch_is_saved(store: Store, fence: Fence) -> None:
    """More rows than fit one statement are all saved, and saved again."""
    first = [Server(f"s-{number}", host=f"cmp-{number % 7}") for number in range(1001)]
    store.commit(Commit(fence, saved=first, message_ids=[f"message-{number}" for number in range(1001)]))
    second = [dataclasses.replace(one, vm_state="active") for one in first[::2]]
    store.commit(Commit(fence, saved=second))

    assert {*first[1::2], *second} == loaded(store)


def test_all_or_nothing(store: Store, fence: Fence) -> None:
    """When one part of a commit cannot be stored, no part of it is."""
    store.commit(Commit(fence, events=[event(1)], message_ids=["m-1"]))
    with pytest.raises(OurFault):
        store.commit(Commit(fence, saved=FULL, removed=BARE, events=[event(2, "event-1")], message_ids=["m-2"]))

    assert set() == loaded(store)
    assert {"m-1"} == store.seen(["m-1", "m-2"])
    assert 1 == store.last_sequence()


def test_message_ids_are_remembered(store: Store, other: Store, fence: Fence) -> None:
    """An id that was committed is seen from then on, by whoever asks, whatever text it is."""
    strange = ["", "x" * 5000, "\ud800\x00", "B5C2070A-0000-4000-8000-000000000001", "b" * 36]
    assert set() == other.seen(strange)
    store.commit(Commit(fence, message_ids=strange[:3], at=NOW))
    assert set(strange[:3]) == other.seen(strange) == store.seen(strange)
    store.commit(Commit(fence, message_ids=strange[3:], at=NOW))

    assert set(strange) == other.seen(strange) == store.seen(strange)


def test_a_message_is_stored_once(store: Store, other: Store, fence: Fence) -> None:
    """An id that is there already fails the commit as a whole, by our fault, even if another process stored it."""
    store.commit(Commit(fence, message_ids=["m-1"]))
    for ids in (["m-2", "m-1"], ["m-3", "m-3"]):
        with pytest.raises(OurFault, match="dealt with already"):
            other.commit(Commit(fence, saved=BARE, message_ids=ids))

    assert set() == loaded(store)
    assert {"m-1"} == store.seen(["m-1", "m-2", "m-3"])


def test_texts_that_cannot_be_stored_are_made_to_fit(store: Store, fence: Fence) -> None:
    """A text with a NUL or half a character, or too long, or a number too large, is stored nearly so."""
    store.commit(Commit(fence, saved=[Server("s-1", fault="a\x00b\ud800c" + "é" * 100_000), Server("s-2", name="n")]))
    store.commit(Commit(fence, saved=[Migration("k", "s-1", Kind.LIVE, Phase.RUNNING, migration_id=2**70)]))

    _, first, second = sorted(loaded(store), key=lambda one: one.key)
    assert isinstance(first, Server) and (first.fault or "").startswith("a") and "c" in (first.fault or "")[:6]
    assert Server("s-2", name="n") == second


def test_what_is_made_to_fit_can_still_be_read(store: Store, fence: Fence) -> None:
    """A long curve in a batch that has to be made to fit is kept whole: half of its JSON would be nothing."""
    curve = Curve("k", "s", points=tuple(Point(NOW + n, 2.0**38 + n) for n in range(3000)))
    evidence: dict[str, object] = {"words": ["x\ud800"] * 9000}
    stall = Stall("stall-1", "k", "s", "live-migration", "frozen", 1.0, 2.0, evidence=evidence)
    store.commit(Commit(fence, saved=[Server("s-1", fault="a\ud800c"), curve, stall]))

    assert curve == store.reading.curve("k")
    assert {"words": ["x?"] * 9000} == store.reading.stalls()[0].evidence


def test_a_lost_lease_stops_the_writer(store: Store, other: Store, fence: Fence) -> None:
    """When another has taken the lease, the former holder's commit is refused with nothing written."""
    store.leases.release(fence)
    theirs = other.leases.acquire("fleet", "you", 15.0, NOW)
    assert theirs is not None
    other.commit(Commit(theirs, saved=BARE[:1]))
    for stale in (fence, dataclasses.replace(theirs, owner="me"), dataclasses.replace(fence, token=99)):
        with pytest.raises(LeaseLost):
            store.commit(Commit(stale, saved=FULL, events=[event(1)], message_ids=["m-1"]))

    assert {BARE[0]} == loaded(store)
    assert (0, set()) == (store.last_sequence(), store.seen(["m-1"]))


def test_a_doubtful_commit_gives_the_fence_up(
    store: Store, other: Store, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When nobody can tell whether a commit took place, its fence commits nothing any more; a new one does."""
    with monkeypatch.context() as patched:
        if store.embedded:  # has no connection that can break

            def broken(*args: object, **more: object) -> None:
                raise OutcomeUnknown("the connection broke during a commit")

            patched.setattr(store._database, "write", broken)
        else:

            def cut(connection: Connection, *args: object) -> None:
                """The last thing before the commit: another cuts the connection."""
                mysql = store._database.dialect == "mysql"
                ask, kill = (
                    ("connection_id()", "KILL {}") if mysql else ("pg_backend_pid()", "pg_terminate_backend({})")
                )
                number = connection.execute(text(f"SELECT {ask}")).scalar_one()
                order = text((kill if mysql else f"SELECT {kill}").format(number))
                other._database.read(lambda made: made.execute(order) and None)

            patched.setattr(store._fleet._events, "append", cut)
        with pytest.raises(OutcomeUnknown):
            store.commit(Commit(fence, saved=BARE, events=[event(1)]))
    with pytest.raises(LeaseLost, match="loaded anew"):
        store.commit(Commit(fence, saved=BARE))
    again = store.leases.acquire("fleet", "me", 15.0, NOW)
    assert again is not None and again.token == fence.token + 1
    store.commit(Commit(again, saved=BARE))

    assert set(BARE) == loaded(store)


def test_quarantine_never_outgrows_its_limit(connection: str, clock: ManualClock, store: Store, fence: Fence) -> None:
    """Beyond the limit in bytes the oldest messages go, in the transaction that adds new ones."""
    store = open_store(connection, clock, quarantine_bytes=1000)
    for number in range(30):
        bad = Quarantined(NOW + number, "default", f"reason-{number % 2}", None, f"m\x00-{number}", b"x" * 100)
        store.commit(Commit(fence, quarantined=[bad]))

    kept = store.quarantine.list()
    assert [NOW + number for number in range(29, 19, -1)] == [one.at for one in kept]
    assert {"reason-0": 5, "reason-1": 5} == store.quarantine.counts()
    assert (b"x" * 100, "default") == (kept[0].body, kept[0].bus)
    store.close()


def test_texts_are_shared(store: Store, fence: Fence) -> None:
    """Names that come again and again are one object each, so that a large fleet fits into memory."""
    host = "cmp-with-a-long-name"
    store.commit(Commit(fence, saved=[Host(host), *(Server(f"s-{n}", "project", host=host) for n in range(3))]))

    names = [one.name if isinstance(one, Host) else one.host for one in loaded(store) if isinstance(one, Host | Server)]
    assert 1 == len({id(name) for name in names})


def test_the_file_is_only_for_maintd(tmp_path: Path) -> None:
    """A database made by the store cannot be read by everybody on the machine."""
    open_store(f"sqlite:///{tmp_path}/maintd.sqlite", ManualClock()).close()

    assert 0 == (tmp_path / "maintd.sqlite").stat().st_mode & 0o007


def test_moves_are_loaded_oldest_first(store: Store, fence: Fence) -> None:
    """The last of a server's moves is the one that counts, however its rows lie in the table."""
    for number in range(20):
        old = Migration(f"{97 - number}", f"s{number}", Kind.LIVE, Phase.COMPLETED, begun_at=NOW - 900, ended_at=NOW)
        new = Migration(f"a{number}", f"s{number}", Kind.COLD, Phase.AWAITING_CONFIRMATION, begun_at=NOW - 300)
        store.commit(Commit(fence, saved=[old]))
        store.commit(Commit(fence, saved=[new]))
    moves = [one.begun_at for one in store.load_fleet() if isinstance(one, Migration)]

    assert moves == sorted(moves) and len(moves) == 40
