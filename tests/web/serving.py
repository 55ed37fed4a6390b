"""The real API on a real socket, over a real SQLite store that a test fills as it likes."""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maintd.clock import ManualClock
from maintd.domain import events
from maintd.domain.fleet import Fleet
from maintd.domain.model import Because, Blocker, Entity, Finding, Host, Policy, ProofRead, Value
from maintd.store import Attempt, Commit, Fence, Store, Vault, open_store
from maintd.store.subscriptions import ACTIVE
from maintd.store.vault import new_key
from maintd.web.context import WebApp
from maintd.web.progress import held_in
from maintd.web.seats import Seats
from maintd.web.server import HttpServer, api
from maintd.web.stream import Bell

AT = 1_767_225_600.0
"""2026-01-01T00:00:00Z, when every test begins."""

CLOUD = {"configured": True, "ok": True, "last_success_at": AT - 2, "last_error": None}


def closed(name: str, **given: Any) -> Host:
    """A host that was disabled ten minutes ago."""
    return Host(
        name, disabled=True, disabled_reason="maintenance", closed_at=AT - 600, seen_at=AT - 1, up=True, **given
    )


def empty(name: str, **given: Any) -> Host:
    """A closed host that is proven empty."""
    proof = tuple(ProofRead("servers", n, AT - 40 + n * 15, 0) for n in (1, 2))
    return closed(name, emptied=True, emptied_at=AT - 10, finding=Finding(AT - 10, proof=proof), **given)


def occupied(name: str, *kinds: str) -> Host:
    """A closed host whose last pass found these blockers."""
    return closed(name, finding=Finding(AT - 5, tuple(Blocker(kind, f"srv-{kind}") for kind in kinds)))


@dataclass
class Served:
    """A served store: put values in, ask over HTTP."""

    store: Store
    clock: ManualClock
    fence: Fence
    bell: Bell
    seats: Seats = field(default_factory=lambda: Seats(4))
    status: dict[str, Any] = field(default_factory=lambda: {"cloud": dict(CLOUD)})
    drains_requested: list[str] = field(default_factory=list)
    residue_cleared: list[tuple[str, str | None, list[str], bool]] = field(default_factory=list)
    woken: int = 0
    refusal: Exception | None = None
    server: HttpServer | None = None
    policy: Policy = Policy(has_cloud=True, tenants=True)
    bad_urls: dict[str, str] = field(default_factory=dict)
    """What is wrong with which URL."""
    tried: list[tuple[str, str]] = field(default_factory=list)
    """What was asked for of which subscription: ("verify" or "test", its id)."""
    fleet: Fleet | None = field(default_factory=Fleet)
    """What the holder of the fleet has in memory: curves, and stalls that stand. None: another controller has it."""

    def put(self, *values: Entity) -> None:
        """Save values, as the fleet's writer does."""
        self._commit(values)

    def hold(self, *values: Value) -> None:
        """Have values in memory only, as what the store need not have at once."""
        assert self.fleet is not None
        for value in values:
            self.fleet.put(value)

    def drop(self, *values: Entity) -> None:
        """Remove values, as the fleet's writer does."""
        self._commit((), removed=values)

    def publish(self, *published: events.Event) -> list[events.CloudEvent]:
        """Append events to the log, and wake whoever waits for them."""
        first = self.store.last_sequence() + 1
        made = [
            events.publish(event, id=f"event-{n}", installation="main", time=AT + n, sequence=n)
            for n, event in enumerate(published, first)
        ]
        self._commit((), made)
        self.bell.ring()
        return made

    def tell(
        self,
        project_id: str,
        server_id: str = "srv-1",
        *,
        visible_at: float = AT,
        type: str = "maintd.server.moving.v1",
    ) -> events.CloudEvent:
        """Append an event of a project's own."""
        sequence = self.store.last_sequence() + 1
        told = self.store.events.list_of_project(project_id, now=AT + 1e6, limit=1000)
        made = events.CloudEvent(
            id=f"event-{sequence}", type=type, source="/maintd/main", subject=server_id, time=float(int(visible_at)),
            sequence=sequence,
            data={"server_id": server_id}, project_id=project_id, incarnation=len(told) + 1, visible_at=visible_at,
        )  # fmt: skip
        self._commit((), [made])
        return made

    def _commit(
        self, saved: Sequence[Entity], made: Sequence[events.CloudEvent] = (), removed: Sequence[Entity] = ()
    ) -> None:
        self.store.commit(Commit(self.fence, saved, removed, made, (), (), self.clock.now()))

    def serve(self, port: int = 0) -> None:
        """Serve from now on; on a port of one's own, so that a stopped server can come back on the same one."""
        if self.server is not None:
            self.server.stop()
        self.server = HttpServer("api", api(self.web()), "127.0.0.1", port)
        self.server.start()

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    def get(self, path: str, **headers: str) -> tuple[int, Any]:
        """Status and JSON of a GET."""
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = None, method: str = "POST", **headers: str) -> tuple[int, Any]:
        """Status and JSON of a POST of JSON (or a PATCH)."""
        raw = json.dumps({} if body is None else body).encode()
        return self.ask(method, path, raw, {"Content-Type": "application/json", **headers})

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """Status and JSON of any request."""
        assert self.server is not None
        connection = http.client.HTTPConnection(*self.server.address, timeout=5)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            assert response.getheader("Content-Type") == "application/json"
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def _request_drain(self, host: str, removal: bool) -> None:
        self._perhaps_refuse()
        self.drains_requested.append(host)

    def _clear_residue(self, host: str, who: str | None, server_ids: frozenset[str], history: bool) -> None:
        self._perhaps_refuse()
        self.residue_cleared.append((host, who, sorted(server_ids), history))

    def _verify(self, subscription_id: str) -> Attempt:
        """As the dispatcher does where the receiver agrees."""
        attempt = self._try("verify", subscription_id)
        self.store.subscriptions.change(
            subscription_id, lambda was: replace(was, state=ACTIVE, verified_at=AT, verify_due_at=None)
        )
        return attempt

    def _try(self, what: str, subscription_id: str) -> Attempt:
        self._perhaps_refuse()
        self.tried.append((what, subscription_id))
        return Attempt(AT, 0.25, 204, "verified" if what == "verify" else "delivered", "thank you")

    def _perhaps_refuse(self) -> None:
        if self.refusal is not None:
            raise self.refusal

    def _wake(self) -> None:
        self.woken += 1

    def web(self) -> WebApp:
        return WebApp(
            store=self.store,
            installation="main",
            clock=self.clock,
            bell=self.bell,
            seats=self.seats,
            policy=self.policy,
            status=lambda: self.status,
            request_drain=self._request_drain,
            clear_residue=self._clear_residue,
            wake_delivery=self._wake,
            held=lambda keys: None if self.fleet is None else held_in(self.fleet, keys),
            url_refused=self.bad_urls.get,
            verify_now=self._verify,
            test_now=lambda one: self._try("test", one),
        )


@functools.cache
def _new_database() -> Path:
    """A file with all tables and no row, made once: making it takes longer than most tests."""
    directory = tempfile.TemporaryDirectory()
    atexit.register(directory.cleanup)
    path = Path(directory.name, "new.sqlite")
    open_store(f"sqlite:///{path}", ManualClock(AT), tables="upgrade").close()
    return path


@contextmanager
def serving(directory: Path) -> Iterator[Served]:
    """Serve a new store until the end of the block."""
    clock = ManualClock(AT)
    shutil.copy(_new_database(), directory / "maintd.sqlite")
    vault = Vault((new_key(),))
    store = open_store(f"sqlite:///{directory}/maintd.sqlite", clock, tables="current", vault=lambda: vault)
    fence = store.leases.acquire("fleet", "ctl-1", 3600.0, AT)
    assert fence is not None
    served = Served(store, clock, fence, Bell(clock, store.last_sequence))
    served.serve()
    try:
        yield served
    finally:
        served.bell.close()
        if served.server is not None:
            served.server.stop()
        store.close()


def emptied(host: str) -> events.HostEmptied:
    """An event about a host."""
    return events.HostEmptied(because=Because("api"), host=host)


def disabled(host: str) -> events.ServiceDisabled:
    """Another."""
    return events.ServiceDisabled(because=Because("notification", "service.update"), host=host, reason="maintenance")
