"""The read side shows what was committed, by name and by page."""

from __future__ import annotations

from dataclasses import replace

from maintd.domain.model import (
    Bus,
    Curve,
    Drain,
    Host,
    Kind,
    Knowledge,
    Migration,
    Phase,
    Point,
    Residue,
    Server,
    Stall,
)
from maintd.store import Commit, Fence, Store
from tests.store.conftest import NOW


def test_lists_come_in_pages(store: Store, fence: Fence) -> None:
    """Pages by key give every host once, in order; closed ones are told apart."""
    hosts = [Host(f"cmp-{n}", disabled=n == 1, forced_down=n == 3) for n in range(5)]
    store.commit(Commit(fence, saved=hosts))
    pages = [store.reading.hosts(limit=2)]
    while pages[-1]:
        pages.append(store.reading.hosts(after=pages[-1][-1].name, limit=2))

    assert hosts == [host for page in pages for host in page]
    assert [hosts[1], hosts[3]] == store.reading.hosts(closed=True)
    assert [hosts[0], hosts[2], hosts[4]] == store.reading.hosts(closed=False)


def test_names_differ_by_case(store: Store, fence: Fence) -> None:
    """Two names that differ in case or accent are two."""
    hosts = [Host("CMP-1"), Host("cmp-1"), Host("cmp-\u00e9"), Host("cmp-e")]
    store.commit(Commit(fence, saved=hosts))

    assert set(hosts) == set(store.reading.hosts())


def test_a_host_comes_with_what_concerns_it(store: Store, fence: Fence) -> None:
    """A slice has the host's servers and those landing, its migrations of now and the last hour, residue, drain."""
    host = Host("cmp-1", disabled=True, drain_id="d-1")
    here, landing = Server("s-1", host="cmp-1"), Server("s-2", host="cmp-2", landing="cmp-1")
    gone, elsewhere = Server("s-3", host="cmp-1", deleted_at=NOW), Server("s-4", host="cmp-2")
    outgoing = Migration("k-1", "s-1", Kind.LIVE, Phase.RUNNING, "cmp-1", "cmp-2")
    ended = Migration("k-2", "s-5", Kind.LIVE, Phase.COMPLETED, "cmp-3", "cmp-1", ended_at=NOW - 60)
    past = Migration("k-3", "s-6", Kind.LIVE, Phase.COMPLETED, "cmp-1", "cmp-2", ended_at=NOW - 4000)
    left, cleared = Residue("cmp-1", "s-7", "evacuated", 1.0), Residue("cmp-1", "s-8", "evacuated", 1.0, cleared_at=2.0)
    drain, former = Drain("d-1", "cmp-1", 5.0), Drain("d-0", "cmp-1", 1.0, ended_at=2.0)
    saved = [host, here, landing, gone, elsewhere, outgoing, ended, past, left, cleared, drain, former]
    store.commit(Commit(fence, saved=saved))
    found = store.reading.host("cmp-1")

    assert found is not None
    assert (host, (here, landing), (outgoing, ended)) == (found.host, found.servers, found.migrations)
    assert ((left,), drain) == (found.residue, found.drain)
    assert store.reading.host("cmp-9") is None


def test_everything_else_is_listed(store: Store, fence: Fence) -> None:
    """Drains, migrations, servers, residue, buses and knowledge are read with their filters."""
    drains = [Drain("d-1", "cmp-1", 1.0, ended_at=2.0), Drain("d-2", "cmp-1", 3.0)]
    moves = [
        Migration("k-1", "s-1", Kind.LIVE, Phase.FAILED, "cmp-1", "cmp-2", ended_at=5.0),
        Migration("k-2", "s-1", Kind.COLD, Phase.RUNNING, "cmp-2", "cmp-3"),
    ]
    residue = [Residue("cmp-1", "s-1", "evacuated", 1.0), Residue("cmp-2", "s-1", "evacuated", 1.0, cleared_at=2.0)]
    rest = [Bus("a"), Bus("b", True), Server("s-1", host="cmp-1"), Server("s-2")]
    assert store.reading.knowledge() is None
    store.commit(Commit(fence, saved=[*drains, *moves, *residue, *rest, Knowledge(1.0)]))
    reading = store.reading

    assert (drains, drains[1:], drains[1:]) == (reading.drains(), reading.drains(open_only=True), reading.drains("d-1"))
    assert (drains[0], None) == (reading.drain("d-1"), reading.drain("d-3"))
    assert (moves, moves[1:]) == (reading.migrations(), reading.migrations(open_only=True))
    assert (moves[:1], moves, []) == (
        reading.migrations(host="cmp-1"),
        reading.migrations(server_id="s-1"),
        reading.migrations(host="cmp-9"),
    )
    assert (moves[1], None) == (reading.migration("k-2"), reading.migration("k-3"))
    assert (residue[:1], residue, []) == (reading.residue(), reading.residue(cleared=None), reading.residue("cmp-2"))
    assert (rest[:2], Knowledge(1.0)) == (reading.buses(), reading.knowledge())
    assert (rest[2:], rest[2:3]) == (reading.servers(), reading.servers(host="cmp-1"))


def test_a_curve_is_read_by_its_migration(store: Store, fence: Fence) -> None:
    """The curve of a migration, open or ended, is there by the migration's key."""
    curves = [Curve("k-1", "s-1", points=(Point(1.5, 2.0),)), Curve("k-2", "s-2", ended_at=NOW, outcome="failed")]
    store.commit(Commit(fence, saved=curves))

    assert [*curves, None] == [store.reading.curve(key) for key in ("k-1", "k-2", "k-3")]


def test_stalls_are_listed_by_what_is_asked(store: Store, fence: Fence) -> None:
    """Stalls come in pages, and by time, reason, migration, whether they were said, and whether they stand."""
    stalls = [
        Stall("1", "k-1", "s-1", "live-migration", "frozen", 1.0, 10.0),
        Stall("2", "k-1", "s-1", "live-migration", "not_converging", 1.0, 20.0, published=False),
        Stall("3", "k-2", "s-2", "live-migration", "frozen", 1.0, 30.0, resumed_at=31.0),
        Stall("4", "k-3", "s-3", "resize", "slow_step", 1.0, 40.0, ended_at=50.0, outcome="failed"),
    ]
    store.commit(Commit(fence, saved=stalls))
    read = store.reading.stalls

    assert (stalls, stalls[:2], stalls[2:]) == (read(), read(limit=2), read("2", limit=None))
    assert (stalls[1:3], []) == (read(since=20.0, until=40.0), read(since=41.0))
    assert ([stalls[0], stalls[2]], stalls[:2]) == (read(reason="frozen"), read(migration_key="k-1"))
    assert ([stalls[1]], [stalls[0], *stalls[2:]]) == (read(published=False), read(published=True))
    assert stalls[:2] == read(standing=True)


def test_stalls_are_listed_newest_first(store: Store, fence: Fence) -> None:
    """By when they were said and then by key, downwards; a page begins after the place where the last one ended."""
    said = {"1": 10.0, "2": 30.0, "3": 20.0, "4": 20.0}
    store.commit(Commit(fence, saved=[Stall(k, "k", "s", "resize", "slow_step", 1.0, at) for k, at in said.items()]))

    def keys(before: tuple[float, str] | None = None, limit: int = 9) -> list[str]:
        return [stall.key for stall in store.reading.stalls(limit=limit, newest_first=True, before=before)]

    assert ["2", "4", "3", "1"] == keys()
    assert (["2", "4"], ["3", "1"], ["1"]) == (keys(limit=2), keys((20.0, "4")), keys((20.0, "3")))


def test_a_stall_that_passed_is_read_with_how_its_migration_ended(store: Store, fence: Fence) -> None:
    """The fleet forgets a stall that passes; what became of the migration is in the migration's own row."""
    stalls = [
        Stall("1", "k-1", "s-1", "live-migration", "late", 1.0, 10.0, resumed_at=20.0),
        Stall("2", "k-2", "s-2", "live-migration", "late", 1.0, 10.0, resumed_at=20.0),
        Stall("3", "k-3", "s-3", "live-migration", "late", 1.0, 10.0, resumed_at=20.0),
        Stall("4", "k-1", "s-1", "live-migration", "frozen", 1.0, 10.0),
    ]
    moves = [
        Migration("k-1", "s-1", Kind.LIVE, Phase.COMPLETED, ended_at=NOW),
        Migration("k-2", "s-2", Kind.LIVE, Phase.RUNNING),
    ]
    store.commit(Commit(fence, saved=[*stalls, *moves]))

    assert [replace(stalls[0], ended_at=NOW, outcome="completed"), *stalls[1:]] == store.reading.stalls()
