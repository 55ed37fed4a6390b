"""examples/receiver.py, run as it stands against real deliveries."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from maintd.clock import SystemClock
from maintd.delivery import breaker
from tests.delivery.databases import eventually
from tests.delivery.receivers import refusing_url
from tests.receivers.sending import (
    OTHER_SECRET,
    ROOT,
    SECRET,
    Program,
    event,
    post,
    program,
    sender,
    signed,
    verification,
)

EXAMPLE = ROOT / "examples" / "receiver.py"


def arguments(folder: Path, url: str) -> list[str]:
    """Its command line, with its files in a folder."""
    (folder / "secret").write_text(f"{SECRET}\n")
    return [str(EXAMPLE), str(folder / "secret"), str(folder / "state"), str(urlsplit(url).port)]


def wait_until_it_listens(url: str) -> None:
    """Until somebody takes connections at this URL."""

    def listens() -> bool:
        try:
            socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), 1.0).close()
        except OSError:
            return False
        return True

    eventually(listens, 30.0)


def acted(example: Program, count: int) -> list[tuple[str, int]]:
    """Subjects and numbers of the events on which it acted."""
    return [(subject, int(sequence)) for _, subject, sequence in map(json.loads, example.out(count))]


def test_it_is_short() -> None:
    """Under 60 lines, or nobody copies it."""
    assert len(EXAMPLE.read_text().splitlines()) < 60


def test_it_acts_once_and_in_order(tmp_path: Path) -> None:
    """It acts on all events, each subject's in order; sent again, also after its restart, they move it no more."""
    url = refusing_url()
    with program(arguments(tmp_path, url)) as example, sender(tmp_path, url) as sending:
        wait_until_it_listens(url)
        sending.publish(*(event(n, f"cmp-{n % 2}") for n in range(1, 9)))
        sending.settle(8)
        came = acted(example, 8)
        assert [n for subject, n in came if subject == "cmp-0"] == [2, 4, 6, 8]
        assert [n for subject, n in came if subject == "cmp-1"] == [1, 3, 5, 7]

        sending.redeliver()
        sending.settle(8)
        example.end(signal.SIGTERM)
        with program(arguments(tmp_path, url)) as again:
            wait_until_it_listens(url)
            sending.redeliver()
            sending.settle(8)
            sending.publish(event(9))
            sending.settle(9)
            assert [("cmp-1", 9)] == acted(again, 1)
        assert example.silent()


def test_what_it_missed_while_it_was_away_can_be_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was given up while it did not run is acted on when it runs and the operator has it sent again."""
    monkeypatch.setattr(breaker, "PAUSE_MOST_S", 0.01)  # it is not there eighteen times before it is given up
    url = refusing_url()
    with sender(tmp_path, url) as sending:
        sending.publish(event(1), event(2))
        eventually(lambda: sending.database.deliveries.counts() == {("me", "dead"): 2})
        with program(arguments(tmp_path, url)) as example:
            wait_until_it_listens(url)
            sending.redeliver()
            sending.settle(2)
            assert [("cmp-1", 1), ("cmp-1", 2)] == acted(example, 2)


def test_it_refuses_forgeries_and_ignores_the_late(tmp_path: Path) -> None:
    """A foreign, old or missing signature is 401; an event that comes after a later one of its subject is let be."""
    url = refusing_url()
    older, newer = event(1).as_json(), event(2).as_json()
    with program(arguments(tmp_path, url)) as example:
        wait_until_it_listens(url)
        assert 401 == post(url, newer.encode(), {})
        assert 401 == post(url, newer.encode(), signed(newer, OTHER_SECRET))
        assert 401 == post(url, newer.encode(), signed(newer, at=SystemClock().now() - 400))
        assert 413 == post(url, b"", {"Content-Length": "99999999"})
        assert [204, 204] == [post(url, body.encode(), signed(body)) for body in (newer, older)]
        last = event(3, "cmp-2").as_json()
        assert 204 == post(url, last.encode(), signed(last))
        assert [("cmp-1", 2), ("cmp-2", 3)] == acted(example, 2)


def test_it_agrees_to_be_sent_events(tmp_path: Path) -> None:
    """It answers the handshake with the origin that asks, a signed challenge with itself, and acts on neither."""
    url = refusing_url()
    with program(arguments(tmp_path, url)) as example:
        wait_until_it_listens(url)
        assert ("maintd.example", b'{"challenge": "c-1"}') == verification(url)
        last = event(3).as_json()
        assert 204 == post(url, last.encode(), signed(last))
        assert [("cmp-1", 3)] == acted(example, 1)
