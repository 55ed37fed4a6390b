"""What goes wrong with a database is said in a sentence, and maintd goes on when it is mended."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from maintd.clock import ManualClock
from maintd.domain.events import CloudEvent
from maintd.domain.model import Host
from maintd.errors import OperatorError, OurFault, StoreUnavailable
from maintd.store import Commit, Fence, Store, engine, open_store
from tests.store.conftest import NOW


def test_statements_that_are_wrong_are_our_fault(store: Store) -> None:
    """A mistake in a statement is not called a broken database."""
    for work in (store._database.read, store._database.write):
        with pytest.raises(OurFault):
            work(lambda connection: connection.execute(text("SELEKT 1")))


def test_missing_tables_are_named(connection: str, clock: ManualClock) -> None:
    """Without tables every use says to run `maintd db upgrade`."""
    store = open_store(connection, clock)
    for use in (store.last_sequence, lambda: list(store.load_fleet()), lambda: store.seen(["m"])):
        with pytest.raises(StoreUnavailable, match="maintd db upgrade"):
            use()
    store.close()


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    """What `work` raises passes, and nothing of it is kept; nor is anything a read has written."""

    def work(connection: Connection) -> None:
        connection.execute(text("INSERT INTO buses (name, connected) VALUES ('a', true)"))
        raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        store._database.write(work)
    with pytest.raises(ValueError, match="stop"):
        store._database.read(work)

    assert [] == store.reading.buses()


def test_a_lost_connection_comes_back(store: Store, fence: Fence) -> None:
    """When the server cut every connection, the next use works."""
    if store.embedded:
        store._database._dispose()
    else:
        mysql = store._database.dialect == "mysql"
        ask = "SELECT id FROM information_schema.processlist WHERE db = database() AND id != connection_id()"
        kill = "KILL {}"
        if not mysql:
            ask = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
            kill = "SELECT pg_terminate_backend({})"
        with store._database.engine.connect() as one:
            assert [] == store.reading.hosts()  # over a second connection, which waits in the pool from now on
            for number in one.execute(text(ask)).scalars().all():
                one.execute(text(kill.format(number)))
    store.commit(Commit(fence, saved=[Host("cmp-1")]))

    assert ["cmp-1"] == [host.name for host in store.reading.hosts()]


def test_colliding_transactions_are_run_again(store: Store, fence: Fence) -> None:
    """Transactions that lock the same two rows in opposite order all succeed in the end."""
    store.commit(Commit(fence, saved=[Host("a"), Host("b")]))
    both = threading.Barrier(2, timeout=2)

    def work(first: str, second: str) -> None:
        def change(connection: Connection) -> None:
            for name in (first, second):
                connection.execute(text("UPDATE hosts SET seen_at = seen_at + 1 WHERE name = :name"), {"name": name})
                if name == first and not store.embedded:
                    try:
                        both.wait()
                    except threading.BrokenBarrierError:
                        pass  # the second try is alone

        store._database.write(change)

    threads = [threading.Thread(target=work, args=names) for names in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert [2.0, 2.0] == [host.seen_at for host in store.reading.hosts()]


def test_many_write_at_once(store: Store, other: Store, fence: Fence) -> None:
    """Writers of one process and of two wait for each other: none fails, and none writes over what it has not seen."""
    store.commit(Commit(fence, saved=[Host("a")]))
    failures: list[Exception] = []

    def add(connection: Connection) -> None:
        locking = "" if store.embedded else " FOR UPDATE"
        seen_at = connection.execute(text(f"SELECT seen_at FROM hosts{locking}")).scalar_one()
        connection.execute(text("UPDATE hosts SET seen_at = :seen_at"), {"seen_at": seen_at + 1})

    def work(one: Store) -> None:
        try:
            for _ in range(20):
                one._database.write(add)
                one.reading.hosts()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(one,)) for one in (store, store, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert ([], 80.0) == (failures, store.reading.hosts()[0].seen_at)


# -- SQLite


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "maintd.sqlite"


@pytest.fixture
def embedded(file: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(engine, "BUSY_S", 0.2)
    store = open_store(f"sqlite:///{file}", ManualClock(NOW))
    store.upgrade()
    return store


def lease(store: Store) -> Fence:
    held = store.leases.acquire("fleet", "me", 3600.0, NOW)
    assert held is not None
    return held


def test_another_program_keeps_the_file_locked(embedded: Store, file: Path) -> None:
    """While another program writes, ours waits a while, says so, and works when it is over; reading always works."""
    fence = lease(embedded)
    stranger = sqlite3.connect(file, isolation_level=None)
    stranger.execute("BEGIN IMMEDIATE")
    assert [] == embedded.reading.hosts()
    with pytest.raises(StoreUnavailable, match="locked"):
        embedded.commit(Commit(fence, saved=[Host("a")]))
    stranger.execute("ROLLBACK")
    embedded.commit(Commit(fence, saved=[Host("a")]))

    assert 1 == len(embedded.reading.hosts())


def test_a_full_disk_is_said_and_mended(embedded: Store) -> None:
    """When the file cannot grow, the sentence says that the disk is full; when it can again, the same call works."""
    fence = lease(embedded)
    commit = Commit(fence, saved=[Host(f"cmp-{n}", disabled_reason="x" * 5000) for n in range(200)])

    def limit(pages: int) -> None:
        embedded._database.write(lambda made: made.exec_driver_sql(f"PRAGMA max_page_count = {pages}"))

    limit(60)
    with pytest.raises(StoreUnavailable, match="disk is full"):
        embedded.commit(commit)  # the connection is made anew after this, without the limit
    embedded.commit(commit)

    assert 100 == len(embedded.reading.hosts())


def test_a_damaged_file_is_said(file: Path) -> None:
    """What is no database is not overwritten, and named in the sentence."""
    file.write_bytes(b"this is not a database, but it is long enough to look at" * 100)
    store = open_store(f"sqlite:///{file}", ManualClock(NOW))
    with pytest.raises(StoreUnavailable, match=r"maintd\.sqlite: the file is not a SQLite database"):
        store.upgrade()


def test_a_replaced_file_is_noticed(embedded: Store, file: Path) -> None:
    """Ping notices that the file is not the one in use any more, and the next use opens what is there."""
    embedded.ping()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{file}{suffix}").unlink(missing_ok=True)
    with pytest.raises(StoreUnavailable, match="removed or replaced"):
        embedded.ping()
    with pytest.raises(StoreUnavailable, match="maintd db upgrade"):
        embedded.reading.hosts()
    embedded.upgrade()

    assert [] == embedded.reading.hosts()


def test_a_second_daemon_is_refused(file: Path) -> None:
    """A file claimed by one daemon is refused to the next in a sentence with its process; commands may still read."""
    program = (
        "from maintd.store import open_store; from maintd.clock import SystemClock;"
        f"s = open_store('sqlite:///{file}', SystemClock()); s.claim_file(); print('claimed', flush=True); input()"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None and "claimed\n" == daemon.stdout.readline()
        store = open_store(f"sqlite:///{file}", ManualClock(NOW))
        with pytest.raises(OperatorError, match=rf"process {daemon.pid}"):
            store.claim_file()
        store.upgrade()
        assert [] == store.reading.hosts()
        daemon.kill()
        daemon.wait(10)
    store.claim_file()
    store.claim_file()
    store.close()


def test_what_says_something_is_synced(embedded: Store) -> None:
    """A commit with an event survives a power cut (FULL); one that only moves servers need not (NORMAL)."""
    fence = lease(embedded)
    modes: list[bool] = []
    turn = embedded._database._turn

    def watched(durable: bool | None = None) -> object:
        if durable is not None:
            modes.append(durable)
        return turn(durable)

    embedded._database._turn = watched  # type: ignore[assignment, method-assign]
    event = CloudEvent("e", "maintd.bus.healed.v1", "/maintd/main", "default", NOW, 1, {})
    for commit in (Commit(fence, message_ids=["m"]), Commit(fence, events=[event]), Commit(fence, saved=[Host("a")])):
        embedded.commit(commit)

        def level(made: Connection) -> object:
            return made.exec_driver_sql("PRAGMA synchronous").scalar()

        with embedded._database._writing.connect() as made:
            assert (2 if modes[-1] else 1) == made.exec_driver_sql("PRAGMA synchronous").scalar()
    assert [False, True, True] == modes


@pytest.mark.parametrize(
    ("connection", "words"),
    [
        ("sqlite:////nowhere/at/all/x.sqlite", "directory /nowhere/at/all .* does not exist"),
        ("sqlite://", "names no file"),
        ("nonsense", "is not a database URL"),
        ("oracle://user:hunter2@host/x", "does not know"),
        ("mysql+pymysql://user:hunter2@127.0.0.1:1/x", "x at 127.0.0.1:1"),
        ("postgresql://user:hunter2@127.0.0.1:1/x?sslpassword=hunter2", "x at 127.0.0.1:1"),
        ("mysql://user:hunter2@:bad:/x", "is not a database URL"),
    ],
)
def test_mistakes_are_sentences_without_secrets(connection: str, words: str) -> None:
    """A connection that cannot work is told in a sentence in which no user, password or query appears."""
    with pytest.raises((OperatorError, StoreUnavailable), match=words) as raised:
        open_store(connection, ManualClock(NOW), tables="current")

    error: BaseException | None = raised.value
    while error is not None:
        assert "hunter2" not in str(error) + repr(error)
        error = error.__cause__


def test_a_directory_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory without the right to write is told in a sentence, since SQLite keeps files beside its own."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(OperatorError, match="not writable"):
        open_store(f"sqlite:///{tmp_path}/x.sqlite", ManualClock(NOW))
    with pytest.raises(OperatorError, match="is a directory"):
        open_store(f"sqlite:///{tmp_path}", ManualClock(NOW))


def test_a_dead_server_is_noticed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts a connection and then says nothing does not hold maintd for longer than its timeout."""
    monkeypatch.setattr(engine, "ANSWER_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            open_store(f"mysql+pymysql://u:p@127.0.0.1:{port}/x", ManualClock(NOW), tables="current")

    assert time.monotonic() - begun < 4


def test_a_controller_that_vanished_in_a_transaction_keeps_the_lease_from_nobody(
    connection: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its server ends the transaction of whoever says nothing more, long before it would miss the connection."""
    monkeypatch.setattr(engine, "IDLE_S", 1)
    one, other = open_store(connection, clock), open_store(connection, clock)
    if one.embedded:
        pytest.skip("a file has no server that would wait for a dead connection")
    one.upgrade()
    fence = one.leases.acquire("fleet", "one", 0.0, NOW)
    assert fence is not None
    vanished = one._database.engine.connect()
    vanished.begin()
    vanished.execute(text("UPDATE leases SET commits = commits + 1"))

    assert other.leases.acquire("fleet", "other", 15.0, NOW) is not None
    vanished.invalidate()
    one.close()
    other.close()
