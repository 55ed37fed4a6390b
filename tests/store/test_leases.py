"""A lease has one holder, and a holder who lost it finds out."""

from __future__ import annotations

import threading
import time

from sqlalchemy import update

from maintd.store import Commit, Store
from maintd.store.tables import leases
from tests.store.conftest import NOW


def expire(store: Store) -> None:
    """Let the lease run out, on the caller's clock (SQLite) and the database's."""
    store._database.write(lambda connection: connection.execute(update(leases).values(expires_at=1.0)))


def test_one_holds_the_lease(store: Store, other: Store) -> None:
    """While somebody holds the lease nobody else gets it; once given back, the next holder's token is higher."""
    mine = store.leases.acquire("fleet", "me", 15.0, NOW)
    assert mine is not None
    assert other.leases.acquire("fleet", "you", 15.0, NOW + 1) is None
    holder = other.leases.holder("fleet", NOW)
    assert holder is not None and "me" == holder.owner
    store.leases.release(mine)
    assert other.leases.holder("fleet", NOW) is None
    theirs = other.leases.acquire("fleet", "you", 15.0, NOW + 1)

    assert theirs is not None and theirs.token > mine.token
    assert not store.leases.renew(mine, 15.0, NOW + 2)
    store.leases.release(mine)
    holder = other.leases.holder("fleet", NOW)
    assert holder is not None and "you" == holder.owner


def test_a_lease_that_ran_out_is_taken(store: Store, other: Store) -> None:
    """After its end the lease goes to whoever asks, and its former holder can neither renew nor give it back."""
    mine = store.leases.acquire("fleet", "me", 15.0, NOW)
    assert mine is not None
    expire(store)
    theirs = other.leases.acquire("fleet", "you", 15.0, NOW)

    assert theirs is not None and theirs.token == mine.token + 1
    assert not store.leases.renew(mine, 15.0, NOW)


def test_a_lease_that_ran_out_untaken_is_still_good(store: Store, other: Store) -> None:
    """Its holder may write and renew, since nobody else has written; after renewal nobody else gets it."""
    mine = store.leases.acquire("fleet", "me", 15.0, NOW)
    assert mine is not None
    expire(store)
    store.commit(Commit(mine))

    assert store.leases.renew(mine, 15.0, NOW)
    assert other.leases.acquire("fleet", "you", 15.0, NOW) is None


def test_the_same_owner_starts_anew(store: Store) -> None:
    """An owner who asks again gets a higher token, which voids what it began before."""
    first = store.leases.acquire("fleet", "me", 15.0, NOW)
    second = store.leases.acquire("fleet", "me", 15.0, NOW)

    assert first is not None and second is not None and second.token > first.token
    assert not store.leases.renew(first, 15.0, NOW)


def test_leases_are_apart(store: Store) -> None:
    """Leases of different names have nothing to do with each other."""
    assert store.leases.acquire("fleet", "me", 15.0, NOW) is not None
    assert store.leases.acquire("purge", "you", 15.0, NOW) is not None
    assert store.leases.holder("nothing", NOW) is None


def test_a_race_has_one_winner(connection: str, store: Store, other: Store) -> None:
    """Of many who ask at once for a lease, the first time and after its end, one gets it."""
    for round_ in range(3):
        won: list[object] = []
        start = threading.Barrier(6)

        def ask(number: int, start: threading.Barrier = start, won: list[object] = won, round_: int = round_) -> None:
            start.wait(10)
            got = (store, other)[number % 2].leases.acquire("fleet", f"{round_} {number}", 600.0, NOW)
            if got is not None:
                won.append(got)

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert 1 == len(won)
        expire(store)


def test_the_end_is_told_in_the_clock_that_counts(store: Store) -> None:
    """On SQLite the lease ends by the caller's time; on a server by the server's, whatever the caller's clock says."""
    store.leases.acquire("fleet", "me", 600.0, NOW)
    holder = store.leases.holder("fleet", NOW)
    late = store.leases.holder("fleet", NOW + 601.0)  # a controller whose clock is ahead
    assert holder is not None and late is not None
    expected = NOW if store.embedded else time.time()

    assert abs(holder.expires_at - expected - 600.0) < 60.0
    assert holder.holds and late.holds is not store.embedded
