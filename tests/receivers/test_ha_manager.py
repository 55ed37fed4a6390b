"""examples/ha_manager.py, run as it stands: whatever becomes of its events, the active role ends on the right server.

The other side is small and ours: a project whose servers are touched, its API on a real socket, and events that are
lost, doubled, delayed and reordered on their way. What a pair's command did is read from the file that it writes.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import random
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.delivery.databases import eventually
from tests.delivery.receivers import refusing_url
from tests.receivers.managing import COMMAND, EXAMPLE, State, has_to_go, history, is_free
from tests.receivers.sending import OTHER_SECRET, SECRET, Program, post, program, signed, verification

PAIRS = {"db": ("server-1", "server-2"), "web": ("server-3", "server-4")}
SERVERS = [server for pair in PAIRS.values() for server in pair]
PAGE = 3
"""States on a page of the API: fewer than there are servers."""

UNTOUCHED: State = {"maintenance": None, "move": None, "host_lost": None}
MAINTENANCE: State = {"maintenance": {"since": "2027-01-15T08:00:00Z", "removal": False}}
LOST: State = {"host_lost": {"since": "2027-01-15T08:00:00Z", "forced_down": True, "widespread": False}}
WIDELY: State = {"host_lost": {"since": "2027-01-15T08:00:00Z", "forced_down": False, "widespread": True}}


def move(asked_for_by: str) -> State:
    """A move under way."""
    return {"move": {"kind": "resize", "since": "2027-01-15T08:00:00Z", "asked_for_by": asked_for_by, "stalled": None}}


TOUCHES = [MAINTENANCE, LOST, WIDELY, move("owner"), move("operator"), move("unknown"), {}, {}, {}]


class Project:
    """A project's servers and what touches them, and the API that tells: the truth, and all of it that ever was."""

    def __init__(self) -> None:
        self.past: list[dict[str, State]] = [dict.fromkeys(SERVERS, UNTOUCHED)]
        self.down = False
        self.read = 0
        """How often the truth was read, to its last page."""
        self._numbers = dict.fromkeys(SERVERS, 0)
        self._lock = threading.Lock()
        project = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                url = urlsplit(self.path)
                assert "/v1/servers/maintenance" == url.path
                status, page = project._page(parse_qs(url.query).get("after", [""])[0])
                self.send_response(status)
                self.end_headers()
                self.wfile.write(json.dumps(page).encode())

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def now(self) -> dict[str, State]:
        return self.past[-1]

    def change(self, server: str, touch: State) -> dict[str, Any]:
        """Something begins or ends to touch a server; the event that says so."""
        with self._lock:
            number = self._numbers[server] = len(self.past)
            self.past.append({**self.now, server: UNTOUCHED | touch})
            return {
                "id": f"event-{number}", "type": "maintd.server.moving.v1", "source": "/maintd/west",
                "subject": server, "sequence": f"{number:020}",
                "data": {"server_id": server, "incarnation": number, "state": self._state(server)},
            }  # fmt: skip

    def _state(self, server: str) -> State:
        return {"server_id": server, "incarnation": self._numbers[server], "metadata_keys": [], **self.now[server]}

    def _page(self, after: str) -> tuple[int, dict[str, Any]]:
        with self._lock:
            touched = [server for server in SERVERS if not is_free(self.now[server])]
            rest = [server for server in touched if server > after]
            more = rest[PAGE - 1] if len(rest) > PAGE else None
            self.read += not self.down and more is None
            page = {
                "project_id": "p", "incarnation": len(self.past) - 1,
                "servers": [self._state(server) for server in rest[:PAGE]], "next": more,
            }  # fmt: skip
        return (503, {}) if self.down else (200, page)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Manager:
    """The example under one configuration, through all its lives."""

    def __init__(self, folder: Path, api: str) -> None:
        self.folder = folder
        self.url = refusing_url()
        (folder / "secret").write_text(f"{OTHER_SECRET}\n{SECRET}\n")
        (folder / "command").write_text(COMMAND)
        (folder / "command").chmod(0o755)
        self.log = folder / "log"
        self.log.touch()
        self._configuration: dict[str, Any] = {
            "listen": ["127.0.0.1", urlsplit(self.url).port],
            "secret_file": str(folder / "secret"),
            "state_file": str(folder / "state"),
            "api": api,
            "reconcile_s": 0.2,
            "retry_s": 0.05,
            "pairs": {
                name: {"primary": primary, "standby": standby, "command": [str(folder / "command")]}
                for name, (primary, standby) in PAIRS.items()
            },
        }
        self.configure()

    def configure(self, **more: Any) -> None:
        """Write its configuration, with this in place of what is usual here."""
        (self.folder / "ha.json").write_text(json.dumps(self._configuration | more))

    @contextmanager
    def life(self) -> Iterator[Program]:
        """One life of it, from the moment it takes requests; killed at the end."""
        with program([str(EXAMPLE), str(self.folder / "ha.json")]) as made:
            eventually(self.listens, 30.0)
            yield made

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", urlsplit(self.url).port or 0), 1.0).close()
        except OSError:
            return False
        return True

    def send(self, event: dict[str, Any]) -> int:
        """Deliver an event; the status of the answer, 0 for none."""
        body = json.dumps(event)
        try:
            return post(self.url, body.encode(), signed(body))
        except (OSError, http.client.HTTPException):
            return 0

    def tell(self, event: dict[str, Any]) -> None:
        """Deliver an event, trying again until it is taken, as maintd does."""
        eventually(lambda: self.send(event) == 204)

    def calls(self, pair: str, what: str = "end") -> list[tuple[int, str]]:
        """(decision, server) of each call of a pair's command that began, or that ended well."""
        return [(term, server) for said, term, server in self.history(pair) if said == what]

    def history(self, pair: str) -> list[tuple[str, int, str]]:
        return history(self.log, pair)

    def active(self, pair: str) -> str:
        """Where the pair's command has put the role."""
        return [PAIRS[pair][0], *(server for _, server in self.calls(pair))][-1]


@pytest.fixture
def project() -> Iterator[Project]:
    made = Project()
    yield made
    made.close()


@pytest.fixture
def manager(project: Project, tmp_path: Path) -> Manager:
    return Manager(tmp_path, project.url)


def read_twice(project: Project) -> None:
    """Until the truth was read by who began to ask after this moment, and taken."""
    before = project.read
    eventually(lambda: project.read >= before + 3, 30.0)


def is_right(project: Project, manager: Manager, pair: str) -> bool:
    """Whether the active role has nowhere better to be."""
    active = manager.active(pair)
    (other,) = set(PAIRS[pair]) - {active}
    return not (has_to_go(project.now[active]) and is_free(project.now[other]))


def faults(project: Project, manager: Manager, pair: str, *, each_with_reason: bool) -> list[str]:
    """What must never be: two calls of a pair at once, an old decision after a newer one, one decision for two servers,
    and (unless the truth could not be read) a decision that no moment of the story gives a reason for."""
    found: list[str] = []
    active, running, last = PAIRS[pair][0], False, 0
    for said, term, server in manager.history(pair):
        if (said == "begin") == running:
            found.append(f"two calls at once, or an end without a beginning: {said} {term}")
        running = said == "begin"
        if term == last and server != active:
            found.append(f"decision {term} is for {active} and for {server}")
        if term != last and (term < last or (term - last) % 2 != (server != active)):
            found.append(f"decision {term} for {server} comes after {last} for {active}")
        if term == last + 1 and each_with_reason:
            reasons = [moment for moment in project.past if has_to_go(moment[active]) and is_free(moment[server])]
            found += [] if reasons else [f"nothing ever was a reason for decision {term}, for {server}"]
        active, last = server, term
    return found


def tell(seed: int, project: Project, manager: Manager, *, outages: bool) -> int:
    """A random story, to its end; how often the role has moved."""
    rng = random.Random(seed)
    trouble = manager.folder / "trouble"
    on_the_way: list[dict[str, Any]] = []

    def deliver() -> None:
        event = on_the_way.pop(rng.randrange(len(on_the_way)))
        if manager.send(event) != 204:
            on_the_way.append(event)  # maintd tries again, later

    def live(steps: int) -> None:
        for _ in range(steps):
            event = project.change(rng.choice(SERVERS), rng.choice(TOUCHES))
            on_the_way.extend([event] * rng.choice((0, 1, 1, 1, 2, 3)))
            while on_the_way and rng.random() < 0.6:
                deliver()
            if rng.random() < 0.1:
                trouble.unlink() if trouble.exists() else trouble.touch()
            if outages and rng.random() < 0.2:
                project.down = not project.down

    for _ in range(rng.randint(1, 3)):
        with manager.life():
            live(rng.randint(5, 25))
    with manager.life() as last:
        live(rng.randint(5, 25))
        project.down = False
        trouble.unlink(missing_ok=True)
        for _ in range(rng.randint(0, len(on_the_way))):
            deliver()
        read_twice(project)
        eventually(lambda: all(is_right(project, manager, pair) for pair in PAIRS), 30.0)
        last.end(signal.SIGTERM)
    for pair in PAIRS:
        assert [] == faults(project, manager, pair, each_with_reason=not outages)
        assert is_right(project, manager, pair)
    return sum(len(manager.calls(pair)) for pair in PAIRS)


def test_it_is_short() -> None:
    """Under 200 lines, or nobody reads it."""
    assert len(EXAMPLE.read_text().splitlines()) < 200


@pytest.mark.parametrize("seed", range(10))
def test_it_ends_right_whatever_becomes_of_its_events(seed: int, project: Project, manager: Manager) -> None:
    """Events lost, doubled, late and reordered, itself killed, its commands failing: the role ends where nothing
    touches it, was never given twice, and never moved without a reason."""
    tell(seed, project, manager, outages=False)


@pytest.mark.parametrize("seed", range(100, 106))
def test_it_ends_right_though_the_truth_could_not_always_be_read(seed: int, project: Project, manager: Manager) -> None:
    """With the API away every now and then it decides on what it was told, and still ends right."""
    tell(seed, project, manager, outages=True)


def test_it_moves_on_notice_and_never_back_by_itself(project: Project, manager: Manager) -> None:
    """Maintenance of the active server moves the role at once; its end moves nothing; the other's moves it back."""
    with manager.life():
        manager.tell(project.change("server-1", MAINTENANCE))
        eventually(lambda: [(1, "server-2")] == manager.calls("db"))
        manager.tell(project.change("server-1", {}))
        read_twice(project)
        assert [(1, "server-2")] == manager.calls("db")
        manager.tell(project.change("server-2", LOST))
        eventually(lambda: [(1, "server-2"), (2, "server-1")] == manager.calls("db"))
        assert [] == manager.calls("web", "begin")


@pytest.mark.parametrize(
    ("active", "standby", "moves"),
    [
        (MAINTENANCE, {}, True),
        (LOST, {}, True),
        (WIDELY, {}, False),
        (LOST, WIDELY, False),
        (move("operator"), {}, True),
        (move("unknown"), {}, True),
        (move("owner"), {}, False),
        ({}, {}, False),
        ({}, LOST, False),
        *((touch, other, False) for touch in (MAINTENANCE, LOST) for other in (MAINTENANCE, LOST, move("owner"))),
    ],
)
def test_what_moves_the_role(active: State, standby: State, moves: bool, project: Project, manager: Manager) -> None:
    """Only what the owner did not ask for drives the role away, and it only goes where nothing at all touches."""
    project.change("server-2", standby)
    project.change("server-1", active)
    with manager.life():
        read_twice(project)
        if moves:
            eventually(lambda: "server-2" == manager.active("db"))
        assert moves == bool(manager.calls("db", "begin"))


def test_a_gap_is_looked_into_before_anything_is_decided(project: Project, manager: Manager) -> None:
    """The word that the partner is touched too was lost: the gap shows it, the truth is read, and nothing moves."""
    manager.configure(reconcile_s=3600)
    with manager.life():
        eventually(lambda: project.read == 1)
        project.change("server-2", MAINTENANCE)
        manager.tell(project.change("server-1", MAINTENANCE))
        eventually(lambda: project.read == 2)
        manager.tell(project.change("server-3", LOST))  # a decision after it, to wait for
        eventually(lambda: "server-4" == manager.active("web"))
        assert [] == manager.calls("db", "begin")


def test_the_truth_makes_good_what_was_lost(project: Project, manager: Manager) -> None:
    """Both the word that the partner is free again and the word that the active one is not were lost: it moves."""
    with manager.life():
        manager.tell(project.change("server-2", MAINTENANCE))
        project.change("server-2", {})
        project.change("server-1", MAINTENANCE)
        eventually(lambda: [(1, "server-2")] == manager.calls("db"))


def test_what_comes_late_changes_nothing(project: Project, manager: Manager) -> None:
    """The word that the partner is touched comes after the word that it is no more: the role may go there."""
    manager.configure(reconcile_s=3600)
    began, ended = project.change("server-2", MAINTENANCE), project.change("server-2", {})
    with manager.life():
        manager.tell(ended)
        manager.tell(began)
        manager.tell(project.change("server-1", MAINTENANCE))
        eventually(lambda: [(1, "server-2")] == manager.calls("db"))


def test_a_decision_is_written_down_first_and_outlives_a_kill(project: Project, manager: Manager) -> None:
    """Killed while its command runs, it has the decision written down; the next life waits until that command has
    ended, calls it again with the same decision, and that is all."""
    gate = manager.folder / "gate"
    os.mkfifo(gate)
    with manager.life() as first:
        manager.tell(project.change("server-1", MAINTENANCE))
        eventually(lambda: [(1, "server-2")] == manager.calls("db", "begin"))
        with sqlite3.connect(manager.folder / "state") as state:
            row = state.execute("SELECT active, term, done FROM pairs WHERE pair = 'db'").fetchone()
        first.end(signal.SIGKILL)
    with (manager.folder / "state.lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the command holds it, alone by now
    project.change("server-1", {})
    with program([str(EXAMPLE), str(manager.folder / "ha.json")]) as second:
        said = second.out()[0]
        with gate.open("w") as held:  # opens once the first command reads
            gate.unlink()
            held.write("go\n")
        eventually(lambda: [(1, "server-2")] * 2 == manager.calls("db"), 30.0)

    assert ("server-2", 1, 0) == row
    assert "no command that an earlier one left behind" in said
    assert [] == faults(project, manager, "db", each_with_reason=True)


def test_a_command_that_fails_is_tried_again(project: Project, manager: Manager) -> None:
    """Until its command has done it, the decision stands and is tried again under the same number."""
    (manager.folder / "trouble").touch()
    with manager.life():
        manager.tell(project.change("server-3", LOST))
        eventually(lambda: len(manager.calls("web", "fail")) >= 3)
        (manager.folder / "trouble").unlink()
        eventually(lambda: [(1, "server-4")] == manager.calls("web"))
        assert {(1, "server-4")} == set(manager.calls("web", "fail"))


def test_before_it_has_read_the_truth_it_takes_nothing(project: Project, manager: Manager) -> None:
    """With the API away at the start it answers 503, so that maintd sends again, and says what it could not read."""
    project.down = True
    manager.configure(reconcile_s=3600)
    with manager.life() as life:
        event = project.change("server-1", MAINTENANCE)
        assert 503 == manager.send(event)
        assert "could not be read" in life.out(2)[1]
        project.down = False
        eventually(lambda: 204 == manager.send(event))
        eventually(lambda: "server-2" == manager.active("db"))


def test_it_agrees_to_be_sent_events_and_only_to_signed_ones(manager: Manager) -> None:
    """It answers the handshake and the signed challenge, by the old secret and the new one; forgeries are 401."""
    body = json.dumps({"type": "maintd.subscription.verify.v1", "data": {"challenge": "c-1"}})
    with manager.life():
        for secret in (SECRET, OTHER_SECRET):
            assert ("maintd.example", b'{"challenge": "c-1"}') == verification(manager.url, secret=secret)
        assert 401 == post(manager.url, body.encode(), {})
        assert 401 == post(manager.url, body.encode() + b" ", signed(body))
        assert 413 == post(manager.url, b"", {"Content-Length": "99999999"})
