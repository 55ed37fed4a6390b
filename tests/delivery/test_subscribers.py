"""Subscriptions, whole: a real store, real sockets, a clock that stands still; from the first question to giving up."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from maintd.clock import ManualClock
from maintd.delivery import dispatcher as dispatching
from maintd.delivery.dispatcher import RESOLVER_THREADS, Dispatcher
from maintd.delivery.egress import Egress
from maintd.delivery.signing import Signer
from maintd.delivery.sinks import Endpoint
from maintd.delivery.sinks.names import LOT_THREADS
from maintd.delivery.sinks.webhook import WebhookSink
from maintd.delivery.subscribers import VERIFY_AGAIN_S, Care, Disabled, Subscribers
from maintd.delivery.subscription_events import TEST, VERIFY, allows, echoes
from maintd.errors import OperatorError, StoreUnavailable
from maintd.store.deliveries import Delivery
from maintd.store.subscriptions import ACTIVE, DISABLED, PAUSED, UNVERIFIED, Subscription, Subscriptions
from maintd.store.vault import Vault, new_key
from tests.delivery.databases import KINDS, Database, eventually, new_database
from tests.delivery.receivers import (
    Behaviour,
    Received,
    Receiver,
    answer,
    gone_and_then_failing,
    receiver,
    refusing_url,
    silent,
)
from tests.delivery.test_dispatcher import Counted

NOW = 1_800_000_000.0
DAY = 86400.0
SECRET = "whsec_" + base64.b64encode(b"n" * 32).decode()
OTHER = "whsec_" + base64.b64encode(b"o" * 32).decode()
MOVING = "maintd.server.moving.v1"


def allowing(origin: str, status: int = 200) -> Behaviour:
    """Answer like an endpoint that lets an origin send."""
    return answer(status, f"WebHook-Allowed-Origin: {origin}\r\n")


def echoing(shape: Callable[[str], str]) -> Behaviour:
    """Answer a challenge in some shape, and take everything else."""

    def behave(connection: socket.socket, server: Receiver) -> None:
        body = server.received[-1].body
        said = json.loads(body) if body else {}
        challenge = said.get("data", {}).get("challenge")
        answer(200, body=shape(challenge).encode() if challenge else b"")(connection, server)

    return behave


class Bench:
    """A database with subscriptions, dispatchers on it, and a clock of our own."""

    def __init__(self, database: Database, stack: ExitStack) -> None:
        self.database, self._stack = database, stack
        self.deliveries, self.rows = database.deliveries, database.subscriptions
        self.clock = ManualClock(NOW)
        self.meters = Counted()
        self.dispatchers: list[Dispatcher] = []

    def receiver(self, behave: Behaviour) -> Receiver:
        return self._stack.enter_context(receiver(behave))

    def start(self, rows: Subscriptions | None = None, endpoints: tuple[Endpoint, ...] = (), **care: Any) -> Dispatcher:
        made = Dispatcher(
            self.deliveries,
            list(endpoints),
            self.clock,
            subscriptions=rows or self.rows,
            care=Care(**care),
            meters=self.meters,
            poll_s=30.0,
            jitter=lambda: 1.0,
        )
        self._stack.callback(made.stop, 0.1)
        made.start()
        self.dispatchers.append(made)
        return made

    def subscribe(self, url: str, state: str = ACTIVE, **more: Any) -> Subscription:
        """Ask for one, as the API does."""
        due_at = self.clock.now() if state == UNVERIFIED else None
        new = Subscription(
            os.urandom(16).hex(), more.pop("project_id", None), "ha", url, more.pop("event_types", ("*",)),
            state=state, secrets=more.pop("secrets", (SECRET,)), created_at=NOW, verify_due_at=due_at, **more,
        )  # fmt: skip
        added = self.rows.add(new)
        assert added is not None
        self.wake()
        return added

    def wake(self) -> None:
        for one in self.dispatchers:
            one.wake()

    def move(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.wake()

    def emit(self, *given: Any, **more: Any) -> str:
        event_id = self.database.emit(*given, **more)
        self.wake()
        return event_id

    def routed(self) -> None:
        """Until a dispatcher has taken every event."""
        waiting = select(func.count()).where(self.database.events_table.c.fanned_out.is_(False))
        eventually(lambda: self.database.read(lambda connection: connection.execute(waiting).scalar()) == 0)

    def row(self, one: Subscription) -> Subscription:
        found = self.rows.get(one.id)
        assert found is not None
        return found

    def change(self, one: Subscription, **what: Any) -> None:
        assert self.rows.change(one.id, lambda row: replace(row, **what)) is not None
        self.wake()

    def until(self, one: Subscription, condition: Callable[[Subscription], object]) -> Subscription:
        eventually(lambda: bool(condition(self.row(one))))
        return self.row(one)

    def of(self, one: Subscription) -> list[Delivery]:
        return self.deliveries.list(endpoint=one.endpoint)

    def states(self, one: Subscription) -> list[str]:
        return [delivery.state for delivery in self.of(one)]

    def settle(self, one: Subscription, *states: str) -> None:
        eventually(lambda: self.states(one) == list(states))

    def last_outcome(self, one: Subscription) -> str:
        return self.deliveries.attempts(self.of(one)[-1].id)[-1].outcome


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with ExitStack() as stack:
        database = stack.enter_context(new_database(request.param, tmp_path))
        yield Bench(database, stack)


def types(server: Receiver) -> list[str]:
    """What a receiver got: the methods of requests without a body, the event types of the others."""
    return [json.loads(r.body)["type"] if r.body else r.line.split()[0] for r in list(server.received)]


def signed(request: Received, *secrets: str) -> bool:
    """Whether a request is signed with just these; the receivers' library would not accept this clock's time."""
    expected = Signer(secrets).headers(request.headers["webhook-id"], NOW, request.body.decode())
    return expected["webhook-signature"] == request.headers["webhook-signature"]


# -- coming and going


def test_a_new_subscription_gets_what_comes_after_it(bench: Bench) -> None:
    """An endpoint that is added while maintd runs gets the next event, signed with its own secret, and no earlier."""
    server = bench.receiver(answer(200))
    bench.start()
    early = bench.emit(1)
    bench.routed()
    one = bench.subscribe(server.url)
    late = bench.emit(2)
    bench.settle(one, "delivered")

    request = server.received[0]
    assert [late] == server.ids != [early]
    assert signed(request, SECRET)
    assert "main" == request.headers["webhook-request-origin"]
    eventually(lambda: bench.meters.attempts == [("subscription", "delivered")])
    assert 1 == bench.meters.subscribed[ACTIVE]


def test_a_paused_subscription_gets_nothing(bench: Bench) -> None:
    """What happens while an endpoint is paused is not kept for it, and what waited goes out when it is resumed."""
    server = bench.receiver(answer(500))
    bench.start()
    one = bench.subscribe(server.url)
    bench.emit(1)
    eventually(lambda: [1] == [d.attempts for d in bench.of(one)])
    bench.change(one, state=PAUSED)
    bench.emit(2)
    bench.routed()
    server.behave = answer(200)
    bench.move(60)
    bench.change(one, state=ACTIVE)
    bench.settle(one, "delivered")

    assert ["event-1", "event-1"] == server.ids


def test_a_deleted_subscription_leaves_nothing_that_waits(bench: Bench) -> None:
    """When a subscription is deleted, what waits for it is given up with that reason; the others' is not."""
    server = bench.receiver(answer(500))
    bench.start()
    gone, kept = bench.subscribe(server.url), bench.subscribe(server.url)
    bench.emit(1)
    eventually(lambda: [1, 1] == [d.attempts for d in bench.of(gone) + bench.of(kept)])
    bench.rows.remove(gone.id)
    bench.wake()
    bench.settle(gone, "dead")

    assert "deleted" == bench.last_outcome(gone)
    assert ["pending"] == bench.states(kept)


def test_an_endpoint_that_moves_is_followed(bench: Bench) -> None:
    """After a change of its URL a subscription's events go to the new place."""
    old, new = bench.receiver(answer(200)), bench.receiver(answer(200))
    bench.start()
    one = bench.subscribe(old.url)
    bench.emit(1)
    bench.settle(one, "delivered")
    bench.change(one, url=new.url)
    bench.emit(2)
    bench.settle(one, "delivered", "delivered")

    assert (["event-1"], ["event-2"]) == (old.ids, new.ids)


def test_a_request_under_way_survives_a_change(bench: Bench) -> None:
    """A subscription that is changed while a request to it runs still gets to the end of that request."""
    go_on = threading.Event()

    def wait(connection: socket.socket, server: Receiver) -> None:
        assert go_on.wait(10)
        answer(200)(connection, server)

    server = bench.receiver(wait)
    bench.start()
    one = bench.subscribe(server.url)
    bench.emit(1)
    server.wait_for_requests(1)
    bench.change(one, state=PAUSED)
    eventually(lambda: bench.meters.subscribed[PAUSED] == 1)
    go_on.set()

    bench.settle(one, "delivered")
    assert ["event-1"] == server.ids


@pytest.mark.parametrize("what", ["secret", "url"])
def test_a_change_is_followed_although_a_check_saw_it_first(bench: Bench, what: str) -> None:
    """A test by hand reads the row anew; what events are sent with is the row's all the same, and not what it was."""
    old, new = bench.receiver(answer(200)), bench.receiver(answer(200))
    dispatcher = bench.start()
    one = bench.subscribe(old.url)
    bench.emit(1)
    bench.settle(one, "delivered")
    changed = {"secrets": (OTHER, SECRET), "previous_until": NOW + DAY} if what == "secret" else {"url": new.url}
    assert bench.rows.change(one.id, lambda row: replace(row, **changed)) is not None  # nobody wakes the dispatcher
    assert "delivered" == dispatcher.test_now(one.id).outcome
    bench.emit(2)
    bench.settle(one, "delivered", "delivered")

    got = (new if what == "url" else old).received[-1]
    assert "event-2" == got.headers["webhook-id"]
    assert signed(got, *([OTHER, SECRET] if what == "secret" else [SECRET]))


def test_what_an_old_url_answers_late_is_not_held_against_the_new_one(bench: Bench) -> None:
    """A request to the old one ends with 410 after the new one was verified: the subscription stays active."""
    go_on = threading.Event()

    def wait(connection: socket.socket, server: Receiver) -> None:
        assert go_on.wait(10)
        answer(410)(connection, server)

    old, new = bench.receiver(wait), bench.receiver(allowing("*"))
    bench.start()
    one = bench.subscribe(old.url)
    bench.emit(1)
    old.wait_for_requests(1)
    bench.change(one, url=new.url, state=UNVERIFIED, verify_due_at=NOW)
    bench.until(one, lambda row: row.state == ACTIVE)
    go_on.set()

    eventually(lambda: ("subscription", "dead") in bench.meters.attempts)
    assert ACTIVE == bench.row(one).state
    bench.emit(2)
    bench.settle(one, "dead", "delivered")


def test_what_was_under_way_when_one_was_disabled_is_given_up_with_the_rest(bench: Bench) -> None:
    """A request that fails after the 410 leaves nothing that waits until somebody enables the subscription."""
    gone = threading.Event()
    server = bench.receiver(gone_and_then_failing(gone))
    bench.start()
    one = bench.subscribe(server.url)
    bench.database.emit(1, subject="cmp-1")
    bench.emit(2, subject="cmp-2")
    bench.until(one, lambda row: row.state == DISABLED)
    gone.set()

    bench.settle(one, "dead", "dead")


def test_what_was_left_waiting_when_one_was_disabled_is_given_up_in_an_hour(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store went between the row's change and the end of what waits; what is redelivered since waits on purpose."""
    give_up, lost = bench.deliveries.give_up, [True]

    def lose_once(*args: Any, **more: Any) -> int:
        if lost:
            lost.pop()
            raise StoreUnavailable("just now")
        return give_up(*args, **more)

    monkeypatch.setattr(bench.deliveries, "give_up", lose_once)
    monkeypatch.setattr(dispatching, "HOUSEKEEPING_S", 0.0)
    monkeypatch.setattr(dispatching, "ABANDON_EVERY_S", 0.0)
    server = bench.receiver(answer(500))
    bench.start()
    one = bench.subscribe(server.url)
    bench.emit(1)
    eventually(lambda: bench.meters.attempts == [("subscription", "retry")])
    server.behave = answer(410)
    bench.emit(2, subject="cmp-2")
    bench.until(one, lambda row: row.state == DISABLED)
    eventually(lambda: not lost)
    bench.wake()

    bench.settle(one, "dead", "dead")
    bench.clock.advance(1.0)
    bench.deliveries.redeliver(endpoint=one.endpoint, now=bench.clock.now())
    bench.wake()
    bench.emit(3, subject="cmp-3")
    bench.settle(one, "pending", "pending", "dead")


def test_changes_that_come_faster_than_they_are_read_hold_up_nothing_that_is_due(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who changes a subscription in a loop does not keep the operators' webhooks from being called."""
    server = bench.receiver(answer(200))
    hook = Endpoint("hook", ("*",), Signer([SECRET]), WebhookSink(server.url, bench.clock, (SECRET,)))
    bench.start(endpoints=(hook,))
    one = bench.subscribe(refusing_url(), state=PAUSED)
    eventually(lambda: bench.meters.subscribed.get(PAUSED) == 1)
    read, numbers = bench.rows.all, iter(range(1_000_000))

    def read_and_change(*args: Any) -> Any:
        rows = read(*args)
        bench.rows.change(one.id, lambda row: replace(row, name=f"n{next(numbers)}"))
        return rows

    monkeypatch.setattr(bench.rows, "all", read_and_change)
    bench.database.emit(1)
    bench.deliveries.fan_out(lambda event: ["hook"], NOW)
    bench.change(one, name="changed")
    bench.emit(2, subject="cmp-2")

    server.wait_for_requests(1)
    assert ["event-1"] == server.ids


def test_a_check_that_cannot_be_claimed_makes_no_turn_of_its_own(bench: Bench) -> None:
    """While rows can be read and not written, what is due waits for the next turn: else turn would follow on turn."""
    woken = list[bool]()
    subscribers = Subscribers(
        bench.rows, bench.deliveries, bench.clock, Care(), connections=1, wake=lambda: woken.append(True)
    )
    bench.subscribe("http://127.0.0.1:9/", UNVERIFIED)

    async def full(function: Callable[..., Any], *arguments: object) -> Any:
        raise StoreUnavailable("the disk is full")

    async def run() -> float | None:
        rows = subscribers.read(0.0)
        assert rows is not None
        await subscribers.take(rows)
        subscribers.begin_checks(full)
        await asyncio.gather(*subscribers._checking.values())
        due_at = subscribers.next_check_at()
        await subscribers.close()
        return due_at

    assert NOW == asyncio.run(run())
    assert not woken


def test_each_hears_what_is_its_own(bench: Bench) -> None:
    """An operator's subscription hears of hosts, a project's of its own servers, as its servers and key narrow it."""
    server = bench.receiver(answer(200))
    bench.start()
    operators, mine, others, picky = (
        bench.subscribe(server.url),
        bench.subscribe(server.url, project_id="p1"),
        bench.subscribe(server.url, project_id="p2"),
        bench.subscribe(server.url, project_id="p1", servers=("s1", "s2"), metadata_key="ha"),
    )
    bench.emit(1)
    bench.emit(2, MOVING, "s1", project_id="p1", metadata_keys=["ha"])
    bench.emit(3, MOVING, "s2", project_id="p1")
    bench.emit(4, MOVING, "s3", project_id="p1", metadata_keys=["ha"])
    bench.emit(5, MOVING, "s4", project_id="p2")
    expected = {operators: [1], mine: [2, 3, 4], others: [5], picky: [2]}
    eventually(lambda: bench.deliveries.counts() == {(o.endpoint, "delivered"): len(n) for o, n in expected.items()})

    assert expected == {one: [d.sequence for d in bench.of(one)] for one in expected}


def test_a_tenants_event_is_not_sent_before_it_may_be_seen(bench: Bench) -> None:
    """A tenant's event waits for its time, also when it stood behind another of its server."""
    server = bench.receiver(answer(200))
    bench.start()
    one = bench.subscribe(server.url, project_id="p1")
    bench.emit(1, MOVING, "s1", project_id="p1", visible_at=NOW + 10)
    bench.emit(2, MOVING, "s1", project_id="p1", visible_at=NOW + 20)
    bench.settle(one, "pending", "pending")
    assert NOW + 10 == bench.deliveries.next_due_at()
    bench.move(10)
    bench.settle(one, "delivered", "pending")
    assert NOW + 20 == bench.deliveries.next_due_at()
    bench.move(10)
    bench.settle(one, "delivered", "delivered")


def test_a_lost_key_stops_subscriptions_and_nothing_else(bench: Bench) -> None:
    """Without the key of their secrets subscriptions get nothing, and lose nothing; configured webhooks go on."""
    server = bench.receiver(answer(200))
    configured = Endpoint("fixed", ("*",), Signer([SECRET]), WebhookSink(server.url, bench.clock))
    one = bench.subscribe(server.url)
    bench.deliveries.fan_out(lambda event: [one.endpoint], NOW)
    bench.emit(1)
    bench.deliveries.fan_out(lambda event: [one.endpoint], NOW)
    bench.start(Subscriptions(bench.database, lambda: Vault(())), (configured,))
    bench.emit(2)

    eventually(lambda: bench.deliveries.counts().get(("fixed", "delivered")) == 1)
    assert ["pending", "pending"] == bench.states(one)


def test_a_secret_that_cannot_be_read_stops_no_other_subscription(bench: Bench) -> None:
    """Beside a row under another key all others are served and verified; what there is for it waits for the key."""
    server = bench.receiver(allowing("main"))
    foreign = Subscriptions(bench.database, lambda: Vault([new_key()]))
    broken = foreign.add(Subscription("0" * 32, None, "ha", server.url, ("*",), state=ACTIVE, secrets=(SECRET,)))
    unverified = foreign.add(Subscription("1" * 32, None, "ha", server.url, ("*",), verify_due_at=NOW))
    assert broken is not None and unverified is not None
    bench.start()
    good, new = bench.subscribe(server.url), bench.subscribe(server.url, UNVERIFIED)
    bench.until(new, lambda row: row.state == ACTIVE)
    bench.emit(1)
    bench.settle(good, "delivered")

    assert ["pending"] == bench.states(broken)
    assert [] == bench.states(unverified)


def test_the_policy_for_addresses_holds(bench: Bench) -> None:
    """What a subscription's endpoint is sent goes through the guard: to the loopback only where that is allowed."""
    server = bench.receiver(answer(200))
    one = bench.subscribe(server.url)
    allowed = Egress((ip_network("127.0.0.0/8"),), allow_http=True, allowed_ports=(server.port,))
    first = bench.start(egress=replace(allowed, allowed_networks=()))
    bench.emit(1)
    eventually(lambda: [1] == [d.attempts for d in bench.of(one)])
    assert (["forbidden"], []) == ([bench.last_outcome(one)], server.ids)
    first.stop(1)
    bench.start(egress=allowed)
    bench.move(10)

    bench.settle(one, "delivered")


def test_names_that_a_project_chose_delay_no_operators_webhook(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the name servers of a project's many endpoints hang, an operator's webhook, an operator's subscription and
    another project's go to names as ever."""
    go_on, ask = threading.Event(), socket.getaddrinfo
    hanging: list[str] = []

    def hang(host: Any, *given: Any, **more: Any) -> Any:
        if str(host).endswith(".dead.example"):
            hanging.append(host)
            go_on.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "no name server answers")
        return ask(host, *given, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    server = bench.receiver(answer(200))
    named = server.url.replace("127.0.0.1", "localhost")
    configured = Endpoint("fixed", ("*",), Signer([SECRET]), WebhookSink(named, bench.clock))
    dead = [
        bench.subscribe(f"https://hook-{n}.dead.example/", UNVERIFIED, project_id="p1") for n in range(RESOLVER_THREADS)
    ]
    operators, others = bench.subscribe(named), bench.subscribe(named, project_id="p2")
    bench.start(endpoints=(configured,))
    try:
        eventually(lambda: len(hanging) >= LOT_THREADS)
        eventually(lambda: all(bench.row(one).verify_tries == 1 for one in dead))
        bench.emit(1)
        bench.emit(2, MOVING, "s1", project_id="p2")

        bench.settle(operators, "delivered")
        bench.settle(others, "delivered")
        eventually(lambda: bench.deliveries.counts().get(("fixed", "delivered")) == 1)
        assert LOT_THREADS == len(hanging)
    finally:
        go_on.set()


# -- verification


def test_an_endpoint_that_allows_us_is_verified_by_that(bench: Bench) -> None:
    """One OPTIONS with our origin and a consenting header, whatever the status: then events flow, and not before."""
    server = bench.receiver(answer(404))
    bench.start(origin="maintd.example")
    one = bench.subscribe(server.url, UNVERIFIED)
    bench.until(one, lambda row: row.reason)
    bench.emit(1)
    bench.routed()
    assert [] == bench.of(one)
    server.behave = allowing("maintd.example", 405)
    bench.move(5)
    found = bench.until(one, lambda row: row.state == ACTIVE)

    assert (NOW + 5, None, None) == (found.verified_at, found.verify_due_at, found.reason)
    assert "maintd.example" == server.received[-1].headers["webhook-request-origin"]
    server.behave = answer(200)
    bench.emit(2)
    bench.settle(one, "delivered")
    assert ["OPTIONS", VERIFY, "OPTIONS", "maintd.host.emptied.v1"] == types(server)


@pytest.mark.parametrize(
    "shape",
    [
        lambda challenge: json.dumps({"challenge": challenge}),
        lambda challenge: json.dumps({"more": 1, "challenge": challenge}, indent=2),
        lambda challenge: challenge,
        lambda challenge: f" {challenge}\r\n",
        json.dumps,
    ],
)
def test_an_endpoint_that_says_the_challenge_back_is_verified(bench: Bench, shape: Callable[[str], str]) -> None:
    """Where nobody knows of OPTIONS, a signed challenge that comes back in the answer counts."""
    server = bench.receiver(echoing(shape))
    bench.start()
    one = bench.subscribe(server.url, UNVERIFIED)
    bench.until(one, lambda row: row.state == ACTIVE)

    assert ["OPTIONS", VERIFY] == types(server)
    assert signed(server.received[-1], SECRET)
    event = json.loads(server.received[-1].body)
    assert ("0" * 20, one.id) == (event["sequence"], event["subject"])


def echo_everything(connection: socket.socket, server: Receiver) -> None:
    """Answer like an echo service."""
    answer(200, body=server.received[-1].body)(connection, server)


@pytest.mark.parametrize(
    ("behave", "word"),
    [
        (answer(200), "not_echoed"),
        (answer(200, body=b'{"challenge": "another"}'), "not_echoed"),
        (echo_everything, "not_echoed"),
        (allowing("somebody.example"), "not_echoed"),
        (answer(404), "refused"),
        (answer(302, "Location: /other\r\n"), "redirected"),
        (lambda connection, server: server.hang_up(connection), "broken"),
    ],
)
def test_what_is_no_consent(bench: Bench, behave: Behaviour, word: str) -> None:
    """A 2xx is no consent, nor is an echo or another's name; the row says what came, and when it is tried again."""
    server = bench.receiver(behave)
    bench.start()
    one = bench.subscribe(server.url, UNVERIFIED)
    found = bench.until(one, lambda row: row.reason)

    assert (UNVERIFIED, 1, NOW + VERIFY_AGAIN_S[0]) == (found.state, found.verify_tries, found.verify_due_at)
    assert (found.reason or "").startswith(f"not verified: {word}")


def test_consent_is_for_the_url_that_was_asked(bench: Bench) -> None:
    """An endpoint that consents after the URL was changed has not consented for the other."""
    go_on = threading.Event()

    def late(connection: socket.socket, server: Receiver) -> None:
        assert go_on.wait(10)
        allowing("*")(connection, server)

    old, new = bench.receiver(late), bench.receiver(answer(404))
    bench.start()
    one = bench.subscribe(old.url, UNVERIFIED)
    old.wait_for_requests(1)
    bench.change(one, url=new.url, verify_due_at=NOW, verify_tries=0)
    go_on.set()
    found = bench.until(one, lambda row: row.reason)

    assert (UNVERIFIED, None) == (found.state, found.verified_at)
    assert ["OPTIONS", VERIFY] == types(new)


def test_verification_is_tried_for_hours_and_then_waits(bench: Bench) -> None:
    """At once, then after 5 s, 30 s, 2 min, 10 min, 30 min and 2 h; then only when somebody asks."""
    server = bench.receiver(answer(404))
    dispatcher = bench.start()
    one = bench.subscribe(server.url, UNVERIFIED)
    for tries, wait_s in enumerate(VERIFY_AGAIN_S, start=1):
        found = bench.until(one, lambda row, tries=tries: row.verify_tries == tries)
        assert bench.clock.now() + wait_s == found.verify_due_at
        eventually(lambda tries=tries: len(server.received) == 2 * tries and not dispatcher._subscribers._checking)
        bench.move(wait_s)
    found = bench.until(one, lambda row: "asked for" in (row.reason or ""))
    assert (7, None) == (found.verify_tries, found.verify_due_at)

    server.behave = allowing("*")
    attempt = dispatcher.verify_now(one.id)
    assert ("verified", 200) == (attempt.outcome, attempt.status)
    assert ACTIVE == bench.row(one).state


def test_one_controller_makes_each_check(bench: Bench) -> None:
    """Of two controllers that see a verification due, one makes it."""
    server = bench.receiver(answer(404))
    for _ in range(2):
        bench.start()
    many = [bench.subscribe(server.url, UNVERIFIED) for _ in range(10)]
    for one in many:
        bench.until(one, lambda row: row.reason)
    eventually(lambda: not any(d._subscribers._checking for d in bench.dispatchers))

    assert 20 == len(server.received)
    assert {1} == {bench.row(one).verify_tries for one in many}


# -- by hand


def test_a_test_by_hand_says_what_came_of_it(bench: Bench) -> None:
    """A signed test event goes out at once; the answer's status and beginning come back; the row stays as it is."""
    server = bench.receiver(answer(503, body=b"closed for lunch"))
    dispatcher = bench.start()
    one = bench.subscribe(server.url)
    attempt = dispatcher.test_now(one.id)

    assert ("throttled", 503, "closed for lunch") == (attempt.outcome, attempt.status, attempt.detail)
    assert [TEST] == types(server) and signed(server.received[0], SECRET)
    assert one == bench.row(one)


def test_what_cannot_be_tested_is_said(bench: Bench) -> None:
    """Nothing is sent to an endpoint that is not verified, or that there is not."""
    server = bench.receiver(answer(404))
    dispatcher = bench.start()
    one = bench.subscribe(server.url, UNVERIFIED)
    bench.until(one, lambda row: row.reason)
    for state in (UNVERIFIED, PAUSED):
        bench.change(one, state=state)
        with pytest.raises(OperatorError, match="not verified"):
            dispatcher.test_now(one.id)
    with pytest.raises(OperatorError, match="no subscription"):
        dispatcher.verify_now("0" * 32)

    assert ["OPTIONS", VERIFY] == types(server)


def test_nobody_waits_for_ever_by_hand(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits longer than the deadline for an endpoint that hangs, and the next one is tried as ever."""
    monkeypatch.setattr(dispatching, "BY_HAND_S", 0.5)
    server = bench.receiver(silent)
    dispatcher = bench.start()
    one = bench.subscribe(server.url)
    assert "timed_out" == dispatcher.test_now(one.id).outcome

    monkeypatch.undo()
    server.behave = answer(200)
    assert "delivered" == dispatcher.test_now(one.id).outcome


# -- giving up


def test_failing_is_noted_when_it_lasts_and_ends_with_a_success(bench: Bench) -> None:
    """A minute of failure is put into the row, less is not; what is taken ends it."""
    server = bench.receiver(answer(500))
    bench.start()
    one = bench.subscribe(server.url)
    bench.emit(1)
    eventually(lambda: len(bench.meters.attempts) == 1)
    assert bench.row(one).failing_since is None
    bench.move(5)
    eventually(lambda: len(bench.meters.attempts) == 2)
    assert bench.row(one).failing_since is None
    bench.move(60)
    found = bench.until(one, lambda row: row.failing_since)
    assert (ACTIVE, NOW + 65) == (found.state, found.failing_since)

    server.behave = answer(200)
    bench.move(120)
    bench.settle(one, "delivered")
    bench.until(one, lambda row: row.failing_since is None)


def given_up(bench: Bench, behave: Behaviour) -> tuple[Receiver, Subscription, Dispatcher]:
    """An endpoint that had failed for five days when it failed once more; two events waited."""
    server = bench.receiver(behave)
    dispatcher = bench.start()
    one = bench.subscribe(server.url, failing_since=NOW - 5 * DAY)
    bench.emit(1)
    bench.emit(2)
    bench.until(one, lambda row: row.state == DISABLED)
    bench.settle(one, "dead", "dead")
    return server, one, dispatcher


def test_an_endpoint_that_fails_for_days_is_given_up(bench: Bench) -> None:
    """After five days without a break it is disabled: what waits and what comes are dead letters, nothing is sent."""
    server, one, dispatcher = given_up(bench, answer(500))
    bench.emit(3)
    bench.settle(one, "dead", "dead", "dead")

    found = bench.row(one)
    assert (NOW, NOW + 3600, NOW - 5 * DAY) == (found.disabled_at, found.probe_at, found.failing_since)
    assert "failed since 2027-01-10" in (found.reason or "")
    assert ["event-1"] == server.ids
    assert [Disabled(one.id, NOW, "failing", NOW - 5 * DAY)] == list(dispatcher.disabled())
    assert 1 == bench.meters.subscribed[DISABLED]


def test_an_endpoint_that_has_failed_for_less_is_not_given_up(bench: Bench) -> None:
    """A second before the five days are over it is still called."""
    server = bench.receiver(answer(500))
    bench.start()
    one = bench.subscribe(server.url, failing_since=NOW - 5 * DAY + 1)
    bench.emit(1)
    eventually(lambda: bench.meters.attempts == [("subscription", "retry")])

    assert ACTIVE == bench.row(one).state


def test_a_success_that_was_not_noted_counts(bench: Bench) -> None:
    """Before an endpoint is given up the deliveries are asked: one that was taken meanwhile ends the failure."""
    server = bench.receiver(answer(200))
    bench.start()
    one = bench.subscribe(server.url)
    bench.emit(1)
    bench.settle(one, "delivered")
    eventually(lambda: bench.meters.attempts == [("subscription", "delivered")])  # and noted, as far as it is
    server.behave = answer(500)
    bench.change(one, failing_since=NOW - 5 * DAY)
    bench.emit(2)

    assert ACTIVE == bench.until(one, lambda row: row.failing_since == NOW).state


def test_a_disabled_endpoint_is_looked_at_and_comes_back(bench: Bench) -> None:
    """Every hour one test event; the first that is taken makes it active, and what it missed can be sent again."""
    server, one, _ = given_up(bench, answer(500))
    bench.move(3599)
    bench.move(1)
    bench.until(one, lambda row: row.probe_at == NOW + 7200)
    server.wait_for_requests(2)
    eventually(lambda: not bench.dispatchers[0]._subscribers._checking)
    assert DISABLED == bench.row(one).state
    server.behave = answer(200)
    bench.move(3600)
    found = bench.until(one, lambda row: row.state == ACTIVE)

    assert (None, None, None, None) == (found.failing_since, found.disabled_at, found.probe_at, found.reason)
    assert ["maintd.host.emptied.v1", TEST, TEST] == types(server)
    assert 2 == bench.deliveries.redeliver(endpoint=one.endpoint, now=bench.clock.now()).total()
    bench.wake()
    bench.settle(one, "delivered", "delivered")
    assert ["event-1", "event-2"] == server.ids[-2:]


def test_gone_is_given_up_at_once_and_for_good(bench: Bench) -> None:
    """A 410 disables without days and without a probe; a test by hand that is taken brings it back."""
    server = bench.receiver(answer(410))
    dispatcher = bench.start()
    one = bench.subscribe(server.url)
    bench.emit(1)
    found = bench.until(one, lambda row: row.state == DISABLED)
    bench.move(10 * DAY)
    bench.emit(2)
    bench.settle(one, "dead", "dead")

    assert (None, "the endpoint answered 410") == (found.probe_at, found.reason)
    assert [Disabled(one.id, NOW, "gone", NOW)] == list(dispatcher.disabled())
    assert ["event-1"] == server.ids
    server.behave = answer(200)
    assert "delivered" == dispatcher.test_now(one.id).outcome
    assert ACTIVE == bench.row(one).state


def test_a_probe_that_is_answered_gone_was_the_last(bench: Bench) -> None:
    """A disabled endpoint that answers 410 to a probe is not probed again."""
    _, one, _ = given_up(bench, answer(410))
    bench.change(one, probe_at=NOW)
    bench.until(one, lambda row: row.probe_at is None and row.version)

    assert DISABLED == bench.row(one).state


def test_what_is_too_old_is_not_sent(bench: Bench) -> None:
    """What a receiver missed for longer than the type's age is a dead letter; younger kinds of it still arrive."""
    server = bench.receiver(answer(200))
    one = bench.subscribe(server.url)
    bench.emit(1, "maintd.migration.stalled.v1", "cmp-1")
    bench.emit(2, "maintd.host.emptied.v1", "cmp-1")
    bench.deliveries.fan_out(lambda event: [one.endpoint], NOW)
    bench.clock.advance(3600)
    bench.start()
    bench.settle(one, "dead", "delivered")

    assert ["event-2"] == server.ids
    (why,) = bench.deliveries.attempts(bench.of(one)[0].id)
    assert ("expired", None) == (why.outcome, why.status)
    bench.deliveries.redeliver([bench.of(one)[0].id], now=bench.clock.now())
    bench.wake()
    bench.settle(one, "delivered", "delivered")


def test_nobody_there_counts_as_failing(bench: Bench) -> None:
    """A connection that is refused is a failure like any other."""
    bench.start()
    one = bench.subscribe(refusing_url(), failing_since=NOW - 5 * DAY)
    bench.emit(1)

    bench.until(one, lambda row: row.state == DISABLED)


# -- what counts as an answer


@pytest.mark.parametrize(
    ("said", "allowed"),
    [
        ("main", True),
        (" main ", True),
        ("*", True),
        ("Main", False),
        ("main.example", False),
        ("", False),
        (None, False),
    ],
)
def test_who_may_send(said: str | None, allowed: bool) -> None:
    """Our own name or an asterisk, nothing that looks like it."""
    assert allowed is allows("main", said)


@pytest.mark.parametrize(
    ("answered", "back"),
    [
        (b"abc123", True),
        (b'"abc123"', True),
        (b'{"challenge": "abc123"}', True),
        (b'{"data": {"challenge": "abc123"}}', False),
        (b'{"challenge": ["abc123"]}', False),
        (b'["abc123"]', False),
        (b"ok abc123", False),
        (b"ABC123", False),
        (b"", False),
        (b"\xff\xfe", False),
        (b"[" * 5000, False),
    ],
)
def test_what_is_the_challenge_back(answered: bytes, back: bool) -> None:
    """The challenge alone, or as the member of that name; not somewhere within, as an echo would have it."""
    assert back is echoes("abc123", answered)
