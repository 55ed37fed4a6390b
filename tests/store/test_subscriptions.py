"""Subscriptions as rows: encrypted, counted, changed one at a time, and found by their owner."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from math import floor
from pathlib import Path
from typing import Any

import pytest

from maintd.clock import ManualClock
from maintd.domain.events import CloudEvent
from maintd.errors import OperatorError
from maintd.store import Attempt, Commit, Fence, Store, Subscription, Vault, open_store, read_vault
from maintd.store.subscriptions import ACTIVE, ENDPOINT_PREFIX, PAUSED
from maintd.store.vault import new_key
from tests.store.conftest import NOW

KEY = new_key()


@pytest.fixture
def store(connection: str, clock: ManualClock) -> Iterator[Store]:
    """A store with its tables and a key."""
    opened = open_store(connection, clock, vault=lambda: Vault((KEY,)))
    opened.upgrade()
    yield opened
    opened.close()


def one(number: str, project_id: str | None = "p", **given: Any) -> Subscription:
    values: dict[str, Any] = {"event_types": ("maintd.server.*",), "secrets": ("whsec_new", "whsec_old"), **given}
    return Subscription(number, project_id, "ha", "https://r.example/x", **values)


def test_one_comes_back_as_it_was_kept(store: Store) -> None:
    """Every field of a subscription survives; its repr has neither URL nor secrets."""
    made = one(
        "a", servers=("s1", "s2"), metadata_key="ha", state=PAUSED, reason="why", previous_until=NOW + 5,
        created_at=NOW, created_by="u", updated_at=NOW + 1, verified_at=NOW + 2, verify_due_at=NOW + 3, verify_tries=4,
        failing_since=NOW + 6, disabled_at=NOW + 7, probe_at=NOW + 8,
    )  # fmt: skip

    added = store.subscriptions.add(made)

    assert added is not None and added.version > 0
    assert added == replace(made, version=added.version) == store.subscriptions.get("a")
    assert [added] == list(store.subscriptions.all())
    assert "whsec" not in repr(added) and "r.example" not in repr(added)


def test_what_is_known_is_not_read_again(store: Store) -> None:
    """Whoever has copies is given those that still hold, and reads only what has changed, is new or is gone."""
    for name in "abc":
        store.subscriptions.add(one(name))
    copies = {row.id: row for row in store.subscriptions.all()}
    store.subscriptions.change("b", lambda row: replace(row, name="other"))
    store.subscriptions.add(one("d"))
    store.subscriptions.remove("c")

    found = store.subscriptions.all(copies.get)
    assert list(store.subscriptions.all()) == list(found)
    assert [True, False, False] == [row is copies.get(row.id) for row in found]


def test_no_secret_is_in_the_database(store: Store) -> None:
    """What is written is encrypted, the new secret and the old one."""
    store.subscriptions.add(one("a"))

    with store._database.engine.connect() as connection:
        rows = connection.exec_driver_sql("SELECT secret, previous_secret FROM subscriptions").all()

    assert 2 == len([text for row in rows for text in row if text])
    assert "whsec" not in str(rows)


def test_secrets_are_read_only_by_who_asks_for_them(store: Store) -> None:
    """A list has none, and asking without them needs no key; nor does the dispatcher, which finds none then."""
    store.subscriptions.add(one("a"))
    assert () == store.subscriptions.list(project_id="p")[0].secrets

    def no_key() -> Vault:
        raise OperatorError("no key")

    store.subscriptions._vault = no_key

    assert [()] == [found.secrets for found in store.subscriptions.list(project_id="p")]
    found = store.subscriptions.get("a", secrets=False)
    assert found is not None and () == found.secrets
    assert [()] == [found.secrets for found in store.subscriptions.all()]
    for needs in (
        lambda: store.subscriptions.get("a"),
        lambda: store.subscriptions.add(one("b")),
    ):
        with pytest.raises(OperatorError):
            needs()
    assert store.subscriptions.remove("a")


def test_an_owner_finds_its_own(store: Store) -> None:
    """A project's list has that project's, the operators' those of no project; pages follow each other by id."""
    for number, project_id in (("a", "p"), ("b", None), ("c", "q"), ("d", "p")):
        store.subscriptions.add(one(number, project_id))

    def ids(**asked: Any) -> list[str]:
        return [found.id for found in store.subscriptions.list(**asked)]

    assert (["a", "d"], ["b"], ["a", "b", "c", "d"]) == (ids(project_id="p"), ids(), ids(everybody=True))
    assert (["a"], ["d"]) == (ids(project_id="p", limit=1), ids(project_id="p", after="a"))
    assert (2, 1) == (store.subscriptions.count("p"), store.subscriptions.count(None))


def test_a_quota_is_each_owners_own(store: Store) -> None:
    """Where there are so many nothing is kept; another owner's do not count."""
    store.subscriptions.add(one("a"))

    assert store.subscriptions.add(one("b"), quota=1) is None
    assert store.subscriptions.add(one("c", None), quota=1) is not None
    assert store.subscriptions.add(one("d"), quota=2) is not None
    assert ["a", "c", "d"] == [found.id for found in store.subscriptions.all()]


def test_a_quota_holds_for_many_at_once(store: Store, connection: str, clock: ManualClock) -> None:
    """However many ask at the same moment, of two controllers, there are as many as may be and the others are told so;
    another owner's, made meanwhile, do not count."""
    other = open_store(connection, clock, vault=lambda: Vault((KEY,)))
    for turn in range(3):
        start = threading.Barrier(10)
        made: list[Subscription | None] = []

        def make(number: int, turn: int = turn, start: Any = start, made: Any = made) -> None:
            new = one(f"{turn}-{number}", None if number == 9 else f"p{turn}")
            start.wait(30)
            added = (store, other)[number % 2].subscriptions.add(new, quota=3)
            if number != 9:
                made.append(added)

        threads = [threading.Thread(target=make, args=(number,)) for number in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

        assert (9, 3) == (len(made), len([added for added in made if added is not None]))
        assert 3 == store.subscriptions.count(f"p{turn}")
    assert 3 == store.subscriptions.count(None)
    other.close()


def test_every_change_is_seen_by_the_version(store: Store) -> None:
    """Making, changing and removing each gives another (version, count); a change that changes nothing does not."""
    seen = [store.subscriptions.version()]
    store.subscriptions.add(one("a"))
    seen.append(store.subscriptions.version())
    store.subscriptions.add(one("b"))
    seen.append(store.subscriptions.version())
    store.subscriptions.change("a", lambda was: replace(was, state=ACTIVE))
    seen.append(store.subscriptions.version())
    store.subscriptions.change("a", lambda was: was)
    assert seen[-1] == store.subscriptions.version()
    store.subscriptions.remove("b")
    seen.append(store.subscriptions.version())

    assert len(seen) == len(set(seen))


def test_what_takes_the_place_of_another_is_seen_by_the_version(store: Store) -> None:
    """One that is made right after the newest was deleted gives another version than that had."""
    store.subscriptions.add(one("a"))
    store.subscriptions.add(one("b"))
    before = store.subscriptions.version()
    store.subscriptions.remove("b")
    store.subscriptions.add(one("c"))

    assert before != store.subscriptions.version()


def test_one_whose_secret_cannot_be_read_hides_no_other(store: Store, connection: str, clock: ManualClock) -> None:
    """A row that was encrypted under another key is listed for the dispatcher without secrets, and the others whole."""
    other = open_store(connection, clock, vault=lambda: Vault((new_key(),)))
    other.subscriptions.add(one("a"))
    other.close()
    whole = store.subscriptions.add(one("b"))

    broken, found = store.subscriptions.all()
    assert ("a", ()) == (broken.id, broken.secrets)
    assert whole == found


def test_changes_at_once_are_all_kept(store: Store, connection: str, clock: ManualClock) -> None:
    """Two controllers that change one row at the same time do not undo each other."""
    store.subscriptions.add(one("a", verify_tries=0))
    other = open_store(connection, clock, vault=lambda: Vault((KEY,)))

    def count(of: Store) -> None:
        for _ in range(20):
            of.subscriptions.change("a", lambda was: replace(was, verify_tries=was.verify_tries + 1))

    threads = [threading.Thread(target=count, args=(of,)) for of in (store, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.close()

    found = store.subscriptions.get("a")
    assert found is not None and 40 == found.verify_tries


def test_what_is_not_there_is_not_changed(store: Store) -> None:
    """A change of none is None, a refused change keeps what was, and removing none is False."""
    store.subscriptions.add(one("a"))

    def refuse(was: Subscription) -> Subscription:
        raise OperatorError("no")

    with pytest.raises(OperatorError):
        store.subscriptions.change("a", refuse)
    assert store.subscriptions.change("b", lambda was: was) is None
    assert (True, False) == (store.subscriptions.remove("a"), store.subscriptions.remove("a"))


def test_a_new_key_reads_what_the_old_one_wrote(store: Store) -> None:
    """A key is changed by putting a new one before it; without the old one the sentence says what to do."""
    store.subscriptions.add(one("a"))
    new = new_key()
    store.subscriptions._vault = lambda: Vault((new, KEY))
    store.subscriptions.change("a", lambda was: replace(was, name="again"))
    store.subscriptions._vault = lambda: Vault((new,))
    found = store.subscriptions.get("a")
    assert found is not None and ("whsec_new", "whsec_old") == found.secrets

    store.subscriptions._vault = lambda: Vault((new_key(),))
    with pytest.raises(OperatorError, match="key_file"):
        store.subscriptions.get("a")


def test_every_secret_comes_under_the_newest_key(store: Store, connection: str, clock: ManualClock) -> None:
    """What is under an old key is written anew, once, and the old key can go; what no key opens is named, and no
    dispatcher has to read the rows again for it."""
    foreign = open_store(connection, clock, vault=lambda: Vault((new_key(),)))
    foreign.subscriptions.add(one("lost"))
    foreign.close()
    old = [store.subscriptions.add(one(number)) for number in ("a", "b")]
    version, new = store.subscriptions.version(), new_key()
    store.subscriptions._vault = lambda: Vault((new, KEY))
    young = store.subscriptions.add(one("c", secrets=("whsec_c",)))

    first, again = store.subscriptions.rekey(), store.subscriptions.rekey()

    assert (2, 1, ["lost"]) == (first.written, first.current, [found.id for found in first.unreadable])
    assert (0, 3, ["lost"]) == (again.written, again.current, [found.id for found in again.unreadable])
    store.subscriptions._vault = lambda: Vault((new,))
    assert [*old, young] == list(store.subscriptions.all())[:3]
    store.subscriptions.remove("c")
    assert version == store.subscriptions.version()


def test_an_interrupted_change_of_the_key_goes_on_where_it_was(store: Store) -> None:
    """What was written before the interruption stays, all can be read meanwhile, and the next time does the rest."""
    for number in ("a", "b", "c"):
        store.subscriptions.add(one(number, secrets=("whsec_1",)))
    new, renewed = Vault((new_key(), KEY)), []

    class Interrupted(Vault):
        def renewed(self, text: str) -> str:
            renewed.append(text)
            if len(renewed) == 2:
                raise KeyboardInterrupt
            return new.renewed(text)

    store.subscriptions._vault = lambda: Interrupted((KEY,))
    with pytest.raises(KeyboardInterrupt):
        store.subscriptions.rekey()

    store.subscriptions._vault = lambda: new
    assert [("whsec_1",)] * 3 == [found.secrets for found in store.subscriptions.all()]
    rest = store.subscriptions.rekey()
    assert (2, 1) == (rest.written, rest.current)


def test_a_change_of_the_key_undoes_no_rotation(store: Store, connection: str, clock: ManualClock) -> None:
    """Secrets that are rotated while all are encrypted anew are the new ones afterwards."""
    store.subscriptions.add(one("a"))
    keys = (new_key(), KEY)
    other = open_store(connection, clock, vault=lambda: Vault(keys[::-1]))
    store.subscriptions._vault = lambda: Vault(keys)
    done = threading.Event()

    def rekey() -> None:
        while not done.is_set():
            store.subscriptions.rekey()

    thread = threading.Thread(target=rekey)
    thread.start()
    try:
        for number in range(20):
            secret = f"whsec_{number}"
            other.subscriptions.change("a", lambda was, new=secret: replace(was, secrets=(new, *was.secrets[:1])))
            found = other.subscriptions.get("a")
            assert found is not None and secret == found.secrets[0]
    finally:
        done.set()
        thread.join(60)
        other.close()


@pytest.mark.parametrize(
    ("text", "says"), [("", "no key"), ("nonsense", "not a Fernet key"), (f"{KEY}\nx", "not a Fernet key")]
)
def test_a_bad_file_of_keys_is_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    """It says what to do, and shows no key."""
    file = tmp_path / "key"
    file.write_text(text)

    with pytest.raises(OperatorError, match=says) as refused:
        read_vault(file)

    assert "maintd subscriptions key" in str(refused.value)
    assert KEY not in str(refused.value)
    with pytest.raises(OperatorError, match="cannot be read"):
        read_vault(tmp_path / "nonesuch")


# -- what a project sees of events and deliveries


def tell(store: Store, fence: Fence, sequence: int, project_id: str | None, incarnation: int | None, at: float) -> None:
    event = CloudEvent(
        f"event-{sequence}", "maintd.server.moving.v1", "/maintd/main", "srv", float(floor(at)), sequence, {},
        project_id, incarnation, at if project_id else None,
    )  # fmt: skip
    store.commit(Commit(fence, events=[event]))


def test_a_projects_log_never_skips_an_event(store: Store, fence: Fence) -> None:
    """What may not be seen yet hides what comes after it, so that a cursor cannot pass it."""
    for sequence, (project_id, incarnation, at) in enumerate(
        [("p", 1, NOW), ("q", 1, NOW + 99), (None, None, NOW), ("p", 2, NOW + 5), ("p", 3, NOW), ("p", 4, NOW + 3)], 1
    ):
        tell(store, fence, sequence, project_id, incarnation, at)

    def numbers(now: float, **asked: Any) -> list[int]:
        return [row.sequence for row in store.events.list_of_project("p", now=now, **asked)]

    assert ([1], [1], [1, 2, 3, 4]) == (numbers(NOW), numbers(NOW + 4), numbers(NOW + 5))
    assert ([3, 4], [2]) == (numbers(NOW + 5, after=2), numbers(NOW + 5, after=1, limit=1))
    assert [] == numbers(NOW + 5, type_glob="maintd.host.*") == numbers(NOW + 5, subject="other")
    assert [3] == [row.sequence for row in store.events.list()]
    assert store.events.get_of_project("p", "event-4", now=NOW) is None
    assert store.events.get_of_project("q", "event-1", now=NOW) is None
    assert store.events.get_of_project("p", "event-1", now=NOW) is not None


def test_a_delivery_is_a_projects_where_event_and_subscription_are(store: Store, fence: Fence) -> None:
    """Of an event of another's, to a subscription of another's, or before its time, there is no delivery to see."""
    store.subscriptions.add(one("mine"))
    store.subscriptions.add(one("theirs", "q"))
    tell(store, fence, 1, "p", 1, NOW)
    tell(store, fence, 2, "q", 1, NOW)
    tell(store, fence, 3, "p", 2, NOW + 5)
    store.deliveries.fan_out(lambda event: (f"{ENDPOINT_PREFIX}mine", f"{ENDPOINT_PREFIX}theirs", "ops"), NOW)

    def ids(project_id: str, now: float, **asked: Any) -> list[str]:
        return [row.id for row in store.own_deliveries.list(project_id, now=now, **asked)]

    assert ["event-1.mine"] == ids("p", NOW)
    assert ["event-1.mine", "event-3.mine"] == ids("p", NOW + 5)
    assert ["event-3.mine"] == ids("p", NOW + 5, after=(1, "mine")) == ids("p", NOW + 5, after=(1, "z"))
    assert ["event-2.theirs"] == ids("q", NOW)
    assert [] == ids("p", NOW, state="dead")
    found = store.own_deliveries.get("p", "event-1.mine", now=NOW)
    assert found is not None
    (row,) = [row for row in store.deliveries.list() if (row.event_id, row.endpoint) == ("event-1", "sub-mine")]
    assert (row.id, 1) == (found.number, found.sequence)
    for number in ("event-1.theirs", "event-2.theirs", "event-3.mine", "event-1", ""):
        assert store.own_deliveries.get("p", number, now=NOW) is None
    store.subscriptions.remove("mine")
    assert [] == ids("p", NOW + 5)


def test_an_attempt_is_found_by_the_number(store: Store, fence: Fence) -> None:
    """What a project's delivery is known by leads to its attempts."""
    store.subscriptions.add(one("mine"))
    tell(store, fence, 1, "p", 1, NOW)
    store.deliveries.fan_out(lambda event: (f"{ENDPOINT_PREFIX}mine",), NOW)
    (claimed,) = store.deliveries.claim("me", NOW, 30.0, 1)
    store.deliveries.finish(claimed.id, "me", Attempt(NOW, 0.1, 500, "refused", "no"), state="dead")

    (found,) = store.own_deliveries.list("p", now=NOW)

    assert ["refused"] == [attempt.outcome for attempt in store.deliveries.attempts(found.number)]
    assert ("dead", 1) == (found.state, found.attempts)
