"""A busy cloud in which every name that owners must not know is a canary, and all that two owners could read of it.

`play` runs one story on the demo's stage: the whole daemon over a simulated Nova, Placement and Keystone. Whatever is
sent to an owner's endpoints, and whatever the API answers to an owner's token, is kept as it came from the socket,
status lines and headers included. What maintd itself was told (notifications, answers of Nova and Placement) and what
operators read is kept too: a canary that is nowhere there would prove nothing.

The story waits for what the first owner is told before it goes on, so that this owner's log is the same each time, with
other projects in the cloud and without.
"""

from __future__ import annotations

import base64
import functools
import json
import re
import secrets
import socket
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, unquote

import pytest

from maintd.config import (
    ApiConfig,
    BusConfig,
    Config,
    DrainConfig,
    ServicesConfig,
    StallConfig,
    SubscriptionsConfig,
    TenantsConfig,
    WebhookConfig,
)
from maintd.demo.stage import Stage, Teller, stage
from maintd.demo.tenants import PASSWORD, token_of
from maintd.ingest.polls import Limits, Polls
from maintd.simulator import Cloud, Refused, Timing
from maintd.simulator import notifications as wire
from maintd.simulator.notifications import Flavor, Request
from maintd.simulator.rest import Api, RestServer, User
from maintd.simulator.rows import Server
from maintd.store.vault import new_key
from maintd.web.server import BODY_MAX_BYTES, ROUTES
from tests.support.rabbitmq import wait_until

LIMIT_S: Final = 60.0
QUICK: Final = Timing(
    step_s=0.01, rpc_s=0.02, schedule_s=0.02, tick_s=0.05, report_interval_s=0.5, service_down_time_s=2.0,
    concurrent_live_migrations=4,
)  # fmt: skip
RACK_7, RACK_9 = "zqravenrack7", "zqheronrack9"
LEAVES, BESIDE, SPARE = f"{RACK_7}-zqotter01", f"{RACK_7}-zqbadger02", f"{RACK_7}-zqferret06"
DIES, BY_API, REST = f"{RACK_9}-zqmarten03", f"{RACK_9}-zqweasel04", f"{RACK_9}-zqstoat05"
ZONE, PERSON, FAULT = "zqprivatezone", "zqmallory", "zqfaulttext"
BUS, BROKER, BROKER_PASSWORD = "zqbusname", "zqbrokerhost", "zqbrokerpassword"
HOOK, HOOK_PATH, DEAD_HOOK = "zqoperatorhook", "zqhookpath", "zqdeadhook"
WORDS: Final = (
    RACK_7, RACK_9, "zqotter01", "zqbadger02", "zqmarten03", "zqweasel04", "zqstoat05", "zqferret06", ZONE, PERSON,
    FAULT, BUS, HOOK, HOOK_PATH, DEAD_HOOK, "zqcontroller", "zqflavorsmall", "zqflavorlarge",
)  # fmt: skip
CONFIGURED: Final = (BROKER, BROKER_PASSWORD, "zqkeyfile", "zqnobody")
"""What stands in maintd's configuration, and is told to nobody at all."""


# --- canaries --------------------------------------------------------------------------------------------------------


def disguises(text: str) -> tuple[frozenset[str], frozenset[str]]:
    """How a text may be written: forms to look for whatever their case, and those of base64, in which case counts."""
    escaped = (json.dumps(text, ensure_ascii=ascii)[1:-1] for ascii in (True, False))
    plain = {text, quote(text, safe=""), text.replace("-", ""), *escaped}
    coded = set()
    for start in range(3):
        raw = b"\0" * start + text.encode()
        whole = base64.b64encode(raw).decode().rstrip("=")
        inner = whole[-(-start * 8 // 6) : len(raw) * 8 // 6]
        coded |= {inner, inner.replace("+", "-").replace("/", "_")}
    return frozenset(form.lower() for form in plain), frozenset(coded)


def found_in(read: bytes, canaries: Mapping[str, str]) -> list[str]:
    """The canaries (text -> what it is) in these bytes, however they are written there."""
    text = read.decode("utf-8", "replace")
    unescaped = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)
    views = {view.lower() for view in (text, unquote(text), unescaped)}
    found = []
    for canary, what in canaries.items():
        plain, coded = disguises(canary)
        if any(form in view for form in plain for view in views) or any(form in text for form in coded):
            found.append(f"{what}: {canary}")
    return found


# --- the wire --------------------------------------------------------------------------------------------------------


class Hook:
    """A webhook receiver that keeps each request as it came.

    `/origin` agrees by the handshake, `/challenge` by sending the challenge back, `/gone` agrees, then wants nothing.
    The first attempt at every fourth event is refused, so that there are retries.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, bytes]] = []
        """(method, path, all bytes)"""
        tried: set[tuple[str, str]] = set()
        hook = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                raw = b""
                while b"\r\n\r\n" not in raw:
                    if not (more := self.request.recv(65536)):
                        return
                    raw += more
                head, _, body = raw.partition(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: *([0-9]+)", head)
                while length is not None and len(body) < int(length[1]):
                    body += self.request.recv(65536)
                method, path = head.split(b" ", 2)[:2]
                hook.requests.append((method.decode(), path.decode(), head + b"\r\n\r\n" + body))
                self.request.sendall(hook.answer(method.decode(), path.decode(), body, tried))

        class Threads(socketserver.ThreadingTCPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                return

        self._server = Threads(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, args=(0.05,), name="hook", daemon=True).start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def answer(self, method: str, path: str, body: bytes, tried: set[tuple[str, str]]) -> bytes:
        if method == "OPTIONS":
            return _response(405) if path == "/challenge" else _response(200, "WebHook-Allowed-Origin: *")
        event = json.loads(body)
        if "challenge" in event["data"]:
            return _response(200, body=json.dumps({"challenge": event["data"]["challenge"]}))
        attempt, first = (path, event["id"]), (path, event["id"]) not in tried
        tried.add(attempt)
        if path == "/gone":
            return _response(410)
        return _response(500 if first and int(event["sequence"]) % 4 == 2 else 204)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _response(status: int, header: str = "X-Kept: yes", body: str = "") -> bytes:
    head = f"HTTP/1.1 {status} Answer\r\n{header}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + body).encode()


@dataclass
class Owner:
    """Somebody of a project with her token, her endpoint, and all that she could read."""

    name: str
    user: User
    token: str
    address: tuple[str, int]
    hook: Hook = field(default_factory=Hook)
    answers: list[tuple[str, bytes]] = field(default_factory=list)
    """(what was asked, all bytes of the answer)"""
    strange: dict[str, set[bytes]] = field(default_factory=dict)
    """Where it was about what is not hers: all answers that there were, by what was asked."""
    _streams: list[tuple[socket.socket, threading.Thread]] = field(default_factory=list)

    @property
    def project_id(self) -> str:
        return self.user.project_id

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        echoed: Sequence[str] = (),
        raw: bytes | None = None,
        strange: bool = False,
        **headers: str,
    ) -> tuple[int, Any]:
        """Status and JSON of one request. What she gave herself (`echoed`) is no news in the answer; `strange`: it is
        about what is not hers, or is not there."""
        sent = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        lines = {
            "Host": "{}:{}".format(*self.address), "X-Auth-Token": self.token, "Content-Type": "application/json",
            "Connection": "close", "Content-Length": str(len(sent)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        found = self.say(f"{method} {path}", head.encode() + b"\r\n" + sent, echoed)
        if strange:
            what, answer = self.answers[-1]
            if isinstance(body, dict) and body:
                what += f" {sorted(body)}"
            said = re.sub(rb"(?i)(date|content-length): [^\r]*\r\n", b"", answer)
            self.strange.setdefault(what, set()).add(said)
        return found

    def say(self, what: str, request: bytes, echoed: Sequence[str] = ()) -> tuple[int, Any]:
        """The same of any bytes."""
        answer = b""
        with socket.create_connection(self.address, timeout=30) as connection:
            try:
                connection.sendall(request)
                while part := connection.recv(65536):
                    answer += part
            except ConnectionError:
                pass  # it was too much for the server, which has said what it had to say
        for text in sorted(echoed, key=len, reverse=True):
            what, answer = what.replace(text, "ASKED"), answer.replace(text.encode(), b"ASKED")
        self.answers.append((what, answer))
        head, _, content = answer.partition(b"\r\n\r\n")
        status = int(head.split(b" ")[1]) if head.startswith(b"HTTP/") else 0
        try:
            return status, json.loads(content)
        except ValueError:
            return status, None

    def follow(self) -> None:
        """Keep an event stream, and long polls one after another, until `close`."""
        connection = socket.create_connection(self.address, timeout=60)
        connection.sendall(
            f"GET /v1/events HTTP/1.1\r\nHost: {self.address[0]}\r\nX-Auth-Token: {self.token}\r\n"
            "Accept: text/event-stream\r\n\r\n".encode()
        )
        over = threading.Event()

        def read() -> None:
            while part := _received(connection):
                self.answers.append(("stream", part))

        def poll() -> None:
            cursor = "0"
            while not over.is_set():
                answer = self.ask("GET", f"/v1/events?after={cursor}&wait=1")[1]
                cursor = answer["next"] if answer else cursor

        for run in (read, poll):
            thread = threading.Thread(target=run, name=f"{self.name}-follows", daemon=True)
            thread.start()
            self._streams.append((connection, thread))
        self._over = over

    def close(self) -> None:
        if self._streams:
            self._over.set()
            self._streams[0][0].shutdown(socket.SHUT_RDWR)
            for _, thread in self._streams:
                thread.join(10)
            self._streams[0][0].close()
        self.hook.close()

    def read(self) -> bytes:
        """Every byte that was sent to her or that she could read."""
        return b"\n".join([raw for *_, raw in self.hook.requests] + [answer for _, answer in self.answers])


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


# --- the story -------------------------------------------------------------------------------------------------------


@dataclass
class Played:
    """What is left of a story: who could read what, what was never theirs to know, and where that could be known."""

    owners: dict[str, Owner]
    servers: dict[str, Server]
    canaries: dict[str, dict[str, str]]
    """By owner: text -> what it is."""
    known: bytes
    """What maintd was told, and what operators read."""
    operators: bytes


def play(monkeypatch: pytest.MonkeyPatch, *, others: bool) -> Played:
    """The story of Ada's servers, with Bob's and Cleo's on the same hosts and on others, or without."""
    heard: list[str] = []
    with _overheard(monkeypatch, heard), _hurried(monkeypatch):
        return _play(heard, others)


@contextmanager
def _hurried(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The daemon looks at services and migrations more often than it has to, and tries again sooner."""
    limits = Limits(services_s=0.5, heartbeats_s=0.5, progress_s=0.5, progress_turn_s=0.2)
    with monkeypatch.context() as patch:
        patch.setattr("maintd.daemon.Polls", functools.partial(Polls, limits=limits))
        patch.setattr("maintd.delivery.retry.SCHEDULE_S", (0.0, 0.5, 1.0))
        yield


@contextmanager
def _overheard(monkeypatch: pytest.MonkeyPatch, heard: list[str]) -> Iterator[None]:
    """Keep what Nova and Placement say; their error texts name hosts, as they do in life."""
    payload, serve = wire.exception_payload, Api._serve

    def faulty(exception: str, message: str, **where: str) -> Any:
        return payload(exception, f"{message} {FAULT}: Host {DIES}.sim.test is not usable for {PERSON}", **where)

    def overheard(api: Api, *asked: Any) -> Any:
        status, answer = serve(api, *asked)
        heard.append(json.dumps(answer))
        return status, answer

    with monkeypatch.context() as patch:
        patch.setattr(wire, "exception_payload", faulty)
        patch.setattr(Api, "_serve", overheard)
        yield


def _play(heard: list[str], others: bool) -> Played:
    users: dict[str, User] = {}
    servers: dict[str, Server] = {}
    operator_hook = Hook()
    owners: dict[str, Owner] = {}
    names = ("ada", "bob", "cleo") if others else ("ada",)
    hooks = {name: Hook() for name in ("ada", "bob", "cleo")}
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()

    def people(cloud: Cloud, rest: RestServer) -> None:
        publish = cloud._publish
        assert publish is not None

        def overheard(key: str, message: dict[str, Any]) -> None:
            heard.append(json.dumps(message))
            publish(key, message)

        cloud._publish = overheard
        cloud.timing = QUICK
        cloud.controller = "zqcontroller"
        cloud.control_services = [(binary, "zqcontroller", ident) for binary, _, ident in cloud.control_services]
        for name, memory in (("zqflavorsmall", 512), ("zqflavorlarge", 1024)):
            cloud.flavors[name] = Flavor(cloud.new_uuid(), name, memory, 5, 1, 20 + memory)
        for host in (LEAVES, BESIDE, DIES, BY_API, REST, SPARE):
            cloud.add_host(host, zone=ZONE)
        for name in ("ada", "bob", "cleo"):
            users[name] = rest.api.add_user(name, PASSWORD, f"zq{name}project")
        users["operator"] = rest.api.add_user("zqoperator", PASSWORD, "zqoperators", ("admin", "member", "reader"))
        there = [("a1", LEAVES), ("a2", LEAVES), ("a3", BESIDE), ("a4", DIES), ("a5", BY_API), ("a6", BY_API)]
        if others:
            there += [("b1", LEAVES), ("b2", DIES), ("b3", BESIDE), ("b4", SPARE), ("b5", BY_API), ("c1", LEAVES)]
            there += [("c2", SPARE)]
        for name, host in there:
            owner = {"a": "ada", "b": "bob", "c": "cleo"}[name[0]]
            server = cloud.add_server(
                host, f"zq{owner}server{name}", flavor="zqflavorsmall", project_id=users[owner].project_id,
                metadata={f"zq{owner}key{name}": f"zq{owner}value{name}"},
            )  # fmt: skip
            server.user_id, server.availability_zone = users[owner].id, ZONE
            servers[name] = server
        cloud.knobs.set("live_migration", mode="converge", seconds=0.3, report_s=0.1)

    def configured(config: Config, rest: RestServer, place: Path) -> Config:
        key = place / "zqkeyfile"
        key.write_text(new_key() + "\n")
        auth = rest.cloud_config()["auth"]
        return replace(
            config,
            buses=(BusConfig(BUS, f"kombu+memory://maintd:{BROKER_PASSWORD}@{BROKER}:5672//"),),
            drain=replace(DrainConfig(), settle_s=0.3, stalled_after_s=3.0),
            services=ServicesConfig(lost_after_s=0.5),
            stall=replace(StallConfig(), frozen_after_s=1.0, late_after_s=60.0),
            api=ApiConfig(port=0, auth="keystone"),
            tenants=TenantsConfig(enabled=True),
            subscriptions=SubscriptionsConfig(
                key_file=key,
                allowed_networks=(ip_network("127.0.0.1/32"),),
                allow_http=True,
                allowed_ports=tuple(hook.port for hook in hooks.values()),
            ),
            webhooks=(
                WebhookConfig(HOOK, operator_hook.url(HOOK_PATH), secret),
                WebhookConfig(DEAD_HOOK, "http://127.0.0.1:9/zqnobody", None),
            ),
            library={"keystone_authtoken": {"www_authenticate_uri": auth["auth_url"], "auth_type": "password", **auth}},
        )

    with stage(Quiet(), LIMIT_S, people, configured) as on:
        for name in ("operator", *names):
            address = on.daemon.api_server.address
            token = token_of(users[name], on.rest)
            owners[name] = Owner(name, users[name], token, address, hooks.get(name) or Hook())
        try:
            story = Story(on, owners, servers, others)
            story.run()
            operators = owners["operator"].read() + b"\n".join(raw for *_, raw in operator_hook.requests)
            known = "\n".join(heard).encode()
            canaries = {name: story.canaries(name, secret, heard) for name in names}
        finally:
            for owner in owners.values():
                owner.close()
            operator_hook.close()
    return Played({n: owners[n] for n in names}, servers, canaries, known + operators, operators)


class Quiet(Teller):
    """Tells nobody."""

    def __call__(self, who: str, text: str) -> None:
        return


class Story:
    """What happens, step by step; each waits until Ada, and whoever else it touches, was told."""

    def __init__(self, on: Stage, owners: dict[str, Owner], servers: dict[str, Server], others: bool) -> None:
        self.on, self.cloud, self.owners, self.servers, self.others = on, on.cloud, owners, servers, others
        self.store = on.daemon.store

    def run(self) -> None:
        wait_until(self.on.has_read_the_cloud, 30, "the daemon to have read the cloud")
        self.subscribe()
        self.lose_a_host()
        self.empty_a_host()
        self.owner_resizes()
        self.empty_by_api()
        self.all_is_delivered()
        for name in self.readers:
            self.probe(self.owners[name])
        self.operators_read()

    @property
    def readers(self) -> list[str]:
        """Those who read all they can: Ada and Bob."""
        return [name for name in ("ada", "bob") if name in self.owners]

    # what is told

    def told(self, server: str, kind: str, change: str, count: int = 1) -> None:
        """Until the owner of a server was told this, so often."""
        if server not in self.servers:
            return
        row = self.servers[server]

        def heard() -> list[str]:
            events = self.store.events.list_of_project(row.project_id, limit=1000, subject=row.id, now=self.cloud.now())
            told = [(one.type.split(".")[2], json.loads(one.body)["data"]["change"]) for one in events]
            return [f"{kind} ({change})" for kind, change in told]

        try:
            wait_until(lambda: heard().count(f"{kind} ({change})") >= count, 15)
        except AssertionError:
            raise AssertionError(f"no {kind} ({change}) of {server}; there came {heard()}") from None

    def look(self) -> None:
        """Owners ask how it stands."""
        for name in self.readers:
            self.owners[name].ask("GET", "/v1/servers/maintenance")

    def id(self, server: str) -> str:
        return self.servers[server].id

    def also(self, act: Callable[[], None]) -> None:
        """Something that happens to others, if there are any."""
        if self.others:
            act()

    def another_second(self) -> None:
        """Nova's rows tell whole seconds: two moves of a server within one are not told apart."""
        then = self.cloud.now() + 1.5
        wait_until(lambda: self.cloud.now() > then)

    # the steps

    def subscribe(self) -> None:
        """Every owner has three endpoints, a stream and a long poll."""
        for owner in [owner for owner in self.owners.values() if owner.name != "operator"]:
            for path in ("origin", "challenge", "gone"):
                wanted = {"name": f"zq{owner.name}{path}", "url": owner.hook.url(path)}
                status, answer = owner.ask("POST", "/v1/subscriptions", wanted)
                assert 201 == status, answer
            rows = functools.partial(self.store.subscriptions.list, project_id=owner.project_id)
            wait_until(lambda rows=rows: all(r.state == "active" for r in rows()), 20, "endpoints to be verified")
            owner.follow()

    def lose_a_host(self) -> None:
        """A heartbeat stops; the host is fenced; what was on it is evacuated; it comes back."""
        cloud = self.cloud
        cloud.kill_compute(DIES)
        self.told("a4", "host_lost", "lost")
        self.told("b2", "host_lost", "lost")
        for name in self.readers:
            rows = functools.partial(self.store.subscriptions.list, project_id=self.owners[name].project_id)
            wait_until(lambda rows=rows: any(r.state == "disabled" for r in rows()), 10, "an endpoint to be given up")
        cloud.set_service(DIES, forced_down=True)
        self.told("a4", "host_lost", "forced_down")
        self.look()
        cloud.set_service(DIES, disabled=True, reason=f"maintenance: {RACK_9} burns, says {PERSON}")
        self.told("a4", "maintenance_started", "started")
        cloud.evacuate(self.id("a4"), REST)
        self.told("a4", "moved", "completed")
        self.told("a4", "host_recovered", "left")
        self.told("a4", "maintenance_ended", "left")
        self.also(lambda: cloud.evacuate(self.id("b2"), SPARE))
        self.told("b2", "host_recovered", "left")
        cloud.start_compute(DIES)
        wait_until(lambda: not cloud.find_host(DIES).residue, 10, "what was evacuated to be reaped")
        cloud.set_service(DIES, forced_down=False)
        cloud.enable(DIES)

    def empty_a_host(self) -> None:
        """A host is emptied for good: moves that end well, fail in each way, and stall."""
        cloud = self.cloud
        reason = f'maintenance "{RACK_7}": \u00fcber die Treppe, ask {PERSON}'
        cloud.disable(LEAVES, reason)
        for server in ("a1", "a2", "b1", "c1"):
            self.told(server, "maintenance_started", "started")
        self.look()
        cloud.knobs.set("check", host=REST, fail=True)
        cloud.live_migrate(self.id("a1"), REST)
        failures = "maintd.migration.failed.v1"
        wait_until(lambda: self.store.events.list(type_glob=failures), 10, "operators to be told of no valid host")
        self.another_second()
        cloud.knobs.set("check", host=REST)
        self.also(lambda: cloud.live_migrate(self.id("c1"), SPARE))
        self.told("c1", "maintenance_ended", "left")
        cloud.knobs.set("pre_live_migration", host=REST, fail=True)
        cloud.live_migrate(self.id("a1"), REST)
        self.told("a1", "move_failed", "failed")
        self.another_second()
        cloud.knobs.set("pre_live_migration", host=REST)
        cloud.knobs.set("live_migration", server=self.id("a1"), mode="stuck", seconds=0.3, report_s=0.1)
        cloud.live_migrate(self.id("a1"), REST)
        self.told("a1", "moving", "started", 2)
        self.told("a1", "move_stalled", "no_progress")
        self.look()
        cloud.knobs.set("live_migration", server=self.id("a1"), mode="converge", seconds=0.3, report_s=0.1)
        self.told("a1", "moved", "completed")
        self.told("a1", "maintenance_ended", "left")
        self.also(lambda: cloud.knobs.set("live_migration", server=self.id("b1"), mode="fail", seconds=0.2))
        self.also(lambda: cloud.live_migrate(self.id("b1"), SPARE))
        self.told("b1", "move_failed", "failed")
        cloud.disable(LEAVES, f"retired, maintenance by {PERSON} in {RACK_7}")
        self.told("a2", "maintenance_started", "removal")
        self.told("b1", "maintenance_started", "removal")
        cloud.migrate(self.id("a2"), REST)
        self.told("a2", "moved", "awaiting_confirmation")
        self.told("a2", "maintenance_ended", "left")
        self.confirm("a2")
        self.also(lambda: cloud.migrate(self.id("b1"), SPARE))
        self.told("b1", "moved", "awaiting_confirmation")
        self.also(lambda: self.confirm("b1"))
        wait_until(lambda: self.store.events.list(type_glob="maintd.host.emptied.v1"), 20, "the host to be empty")
        cloud.enable(LEAVES)

    def confirm(self, server: str) -> None:
        def confirmed() -> bool:
            try:
                self.cloud.confirm(self.id(server))
            except Refused:
                return False
            return True

        wait_until(confirmed, 10, f"{server} to be confirmed")

    def owner_resizes(self) -> None:
        """Owners ask for moves themselves: a resize that is taken back."""
        cloud, ada = self.cloud, self.owners["ada"]
        asked = Request(f"req-{uuid.uuid4()}", ada.user.id, ada.project_id)
        cloud.migrate(self.id("a3"), REST, flavor="zqflavorlarge", request=asked)
        self.told("a3", "moved", "awaiting_confirmation")
        self.look()
        wait_until(lambda: cloud.find_server(self.id("a3")).state == "resized", 10, "the resize to wait")
        cloud.revert(self.id("a3"), Request(f"req-{uuid.uuid4()}", ada.user.id, ada.project_id))
        wait_until(lambda: cloud.find_server(self.id("a3")).state == "active", 10, "the resize to be reverted")
        self.told("a3", "move_failed", "reverted")
        self.also(lambda: cloud.knobs.set("live_migration", server=self.id("b4"), mode="error", seconds=0.2))
        self.also(lambda: cloud.live_migrate(self.id("b4"), REST))
        self.told("b4", "move_failed", "failed")

    def empty_by_api(self) -> None:
        """An operator begins a drain over the API; servers leave by being shelved and deleted."""
        cloud = self.cloud
        cloud.disable(BY_API, f"cabling {RACK_9}")
        wait_until(
            lambda: (row := self.store.reading.host(BY_API)) is not None and row.host.closed, 10, "a closed host"
        )
        status, answer = self.owners["operator"].ask("POST", "/v1/drains", {"host": BY_API, "removal": True})
        assert status in (200, 201, 202), answer
        for server in ("a5", "a6", "b5"):
            self.told(server, "maintenance_started", "started")
        self.look()
        cloud.shelve(self.id("a5"))
        self.told("a5", "maintenance_ended", "left")
        cloud.delete(self.id("a6"))
        self.told("a6", "maintenance_ended", "deleted")
        self.also(lambda: cloud.live_migrate(self.id("b5"), REST))
        self.told("b5", "moved", "completed")
        cloud.enable(BY_API)
        self.look()

    def all_is_delivered(self) -> None:
        """Every event of every owner was sent, or given up, to each of her endpoints."""
        for name in self.readers:
            project_id = self.owners[name].project_id
            told = len(self.store.events.list_of_project(project_id, limit=1000, now=self.cloud.now()))
            made = functools.partial(self.store.own_deliveries.list, project_id, now=self.cloud.now() + 60, limit=1000)
            wait_until(lambda made=made, told=told: len(made()) == 3 * told, 10, "deliveries to be made")
        self.nothing_waits()

    def nothing_waits(self) -> None:
        """No delivery is under way but those to the dead webhook."""

        def waiting() -> list[str]:
            pages = [self.store.deliveries.list(state=state, limit=1000) for state in ("pending", "claimed")]
            return [one.endpoint for page in pages for one in page if one.endpoint != DEAD_HOOK]

        wait_until(lambda: not waiting(), 20, "all to be delivered")

    # what is read

    def operators_read(self) -> None:
        operator = self.owners["operator"]
        for path, methods in ROUTES.items():
            if "GET" in methods and "{" not in path and path != "/v1/servers/maintenance":
                operator.ask("GET", path)
        for drain in operator.ask("GET", "/v1/drains?limit=1000")[1]["drains"]:
            operator.ask("GET", f"/v1/drains/{drain['drain_id']}")
        for host in self.cloud.hosts:
            operator.ask("GET", f"/v1/hosts/{host}")
        operator.ask("GET", "/v1/residue?cleared=true")
        operator.ask("GET", "/v1/subscriptions?all=true")
        for path in ("events", "migrations", "deliveries"):
            after = "0" if path == "events" else ""
            answer = operator.ask("GET", f"/v1/{path}?limit=1000&after={after}")[1]
            assert answer[path], path

    def ids(self, name: str) -> dict[str, list[str]]:
        """The ids of a project's, by the name that they have in paths; of operators' under the name "operator"."""
        if name not in self.owners:
            return {
                "event_id": [uuid.uuid4().hex], "subscription_id": [uuid.uuid4().hex], "server": [str(uuid.uuid4())],
                "delivery_id": [f"{uuid.uuid4().hex}.{uuid.uuid4().hex}"], "project": [uuid.uuid4().hex],
                "drain_id": [uuid.uuid4().hex], "migration_key": [str(uuid.uuid4())], "host": ["nonesuch"],
            }  # fmt: skip
        reading, now = self.store.reading, self.cloud.now()
        if name == "operator":
            return {
                "event_id": [self.store.events.list(limit=1)[0].id],
                "subscription_id": [HOOK],
                "delivery_id": [str(self.store.deliveries.list(limit=1)[0].id)],
                "drain_id": [reading.drains(limit=1)[0].drain_id],
                "migration_key": [m.key for m in reading.migrations(limit=2)],
                "host": [LEAVES],
            }
        project_id = self.owners[name].project_id
        mine = {s.id for s in self.servers.values() if s.project_id == project_id}
        event = self.store.events.list_of_project(project_id, limit=1, now=now)[0].id
        endpoints = self.store.subscriptions.list(project_id=project_id)
        subscription = next(one.id for one in endpoints if one.name.endswith("origin"))
        return {
            "event_id": [event],
            "subscription_id": [subscription],
            "delivery_id": [f"{event}.{subscription}"],
            "migration_key": [m.key for m in reading.migrations(limit=1000) if m.server_id in mine][:1],
            "drain_id": [reading.drains(limit=1)[0].drain_id],
            "host": [LEAVES],
            "server": sorted(mine)[:1],
            "project": [project_id],
        }

    def probe(self, owner: Owner) -> None:
        """Ask for everything that there is, in every way that there is."""
        stranger = self.ids({"ada": "bob", "bob": "ada"}[owner.name])
        own, nonsense = self.ids(owner.name), self.ids("nobody")
        rows = owner.ask("GET", "/v1/subscriptions?limit=1000")[1]["subscriptions"]
        for path, methods in ROUTES.items():
            for ids in (own, stranger, self.ids("operator"), nonsense):
                names = re.findall(r"{(\w+)}", path)
                for place in range(max((len(ids[name]) for name in names), default=1) if names else 1):
                    given = [ids[name][min(place, len(ids[name]) - 1)] for name in names]
                    filled = path.format(**{n: quote(one, safe="") for n, one in zip(names, given, strict=True)})
                    for method in ("GET", "POST", "PATCH", "PUT", "OPTIONS", "HEAD"):
                        if ids is own and method in methods and method != "GET" and names:
                            continue  # by `_own` in an order that leaves something to see
                        body = None if method in ("GET", "HEAD") else {}
                        owner.ask(method, filled, body, echoed=given, strange=ids is not own)
                    if ids is not own:
                        owner.ask("DELETE", filled, echoed=given, strange=True)
                if not names:
                    break
        for row in rows:
            owner.ask("GET", f"/v1/subscriptions/{row['id']}")
        self._lists(owner, own, stranger, nonsense)
        self._wrong(owner, stranger)
        self._own(owner, rows)

    def _lists(self, owner: Owner, own: Any, stranger: Any, nonsense: Any) -> None:
        for ids in (stranger, nonsense, own):
            project, server, subscription = ids["project"][0], ids["server"][0], ids["subscription_id"][0]
            asked = (
                f"/v1/events?project_id={project}", f"/v1/events?subject={server}", "/v1/events?type=maintd.*",
                "/v1/events?type=*&after=1", f"/v1/events?subject={LEAVES}", f"/v1/servers/maintenance?after={server}",
                f"/v1/servers/maintenance?project_id={project}", f"/v1/deliveries?subscription_id={subscription}",
                f"/v1/deliveries?endpoint=sub-{subscription}", f"/v1/deliveries?endpoint={HOOK}",
                "/v1/deliveries?state=dead", "/v1/deliveries?limit=3", "/v1/deliveries?after=x",
                f"/v1/subscriptions?project_id={project}", "/v1/subscriptions?all=true", "/v1/events?limit=0",
                "/v1/events?after=99999999999999999999",
                "/v1/events?nonesuch=1",
                f"/v1/hosts?after={LEAVES}", f"/v1/stalls?server_id={server}", f"/v1/migrations?server_id={server}",
            )  # fmt: skip
            for path in asked:
                given = (project, server, subscription, HOOK, LEAVES)
                owner.ask("GET", path, echoed=given, strange=ids is not own)
            if ids is own:
                continue  # by `_own`
            bodies: tuple[tuple[str, str, Any], ...] = (
                ("POST", "/v1/deliveries/redeliver", {"delivery_ids": ids["delivery_id"]}),
                ("POST", "/v1/deliveries/redeliver", {"subscription_id": "0" + subscription[1:]}),
                ("POST", "/v1/deliveries/redeliver", {"endpoint": f"sub-{subscription}"}),
                ("POST", "/v1/deliveries/redeliver", {"since": 9e9, "until": 9.1e9}),
                ("POST", "/v1/subscriptions", {"name": "x", "url": owner.hook.url("x"), "project_id": project}),
                ("POST", "/v1/subscriptions", {"name": "x", "url": owner.hook.url("x"), "scope": "operator"}),
                ("POST", "/v1/drains", {"host": LEAVES}),
            )  # fmt: skip
            for method, path, body in bodies:
                given = (subscription, *ids["delivery_id"], LEAVES, project)
                owner.ask(method, path, body, echoed=given, strange=True)

    def _wrong(self, owner: Owner, stranger: Any) -> None:
        """What no client in its right mind sends."""
        for path in (
            "/",
            "/v1",
            "/v2/events",
            "/metrics",
            "/livez",
            "/v1/nonesuch",
            "/v1/events/",
            "//v1/events",
            "/v1/%00",
        ):
            for method in ("GET", "POST", "NONESUCH"):
                owner.ask(method, path)
        for raw in (b"not JSON", b"[]", b'"x"', b"{" * 5000, b'{"name": "\xff"}'):
            owner.ask("POST", "/v1/subscriptions", raw=raw)
        owner.ask("POST", "/v1/subscriptions", raw=b"{}", Content_Type="text/plain")
        for size in (BODY_MAX_BYTES + 1, 4 * BODY_MAX_BYTES):
            owner.ask("POST", "/v1/subscriptions", raw=b" " * size)
        inside = (
            f"http://169.254.169.254:{owner.hook.port}/",
            f"http://zqnowhere.sim.test:{owner.hook.port}/",
            "https://x.example:1/",
        )
        for url in (*inside, "ftp://x", "https://u:p@x.example/"):
            owner.ask("POST", "/v1/subscriptions", {"name": "zqno", "url": url})
        rows = functools.partial(self.store.subscriptions.list, project_id=owner.project_id)
        wait_until(lambda: all(r.reason for r in rows() if r.name == "zqno"), 20, "what cannot be verified to be tried")
        for headers in (
            {"X_Auth_Token": "nonesuch"}, {"X_Auth_Token": ""}, {"Last_Event_ID": "x"}, {"Accept": "text/html"},
            {"X_Roles": "admin", "X_Project_Id": stranger["project"][0], "X_Identity_Status": "Confirmed"},
            {"OpenStack_System_Scope": "all"}, {"X_Long": "x" * 40_000},
        ):  # fmt: skip
            for path in ("/v1/events", "/v1/hosts", "/v1/subscriptions"):
                owner.ask("GET", path, **headers)
        owner.say("nonsense", b"NONSENSE\r\n\r\n")
        owner.say("no host", f"GET /v1/events HTTP/1.0\r\nX-Auth-Token: {owner.token}\r\n\r\n".encode())
        self.on.rest.faults.add(service="identity", status=503)
        owner.ask("GET", "/v1/events", X_Auth_Token=uuid.uuid4().hex)
        self.on.rest.faults.clear()

    def _own(self, owner: Owner, rows: list[dict[str, Any]]) -> None:
        """Everything that an owner may do with what is hers; afterwards it is as it was."""
        path = next(f"/v1/subscriptions/{row['id']}" for row in rows if row["name"].endswith("challenge"))
        dead = next(row for row in rows if row["name"].endswith("gone"))
        assert "disabled" == owner.ask("GET", f"/v1/subscriptions/{dead['id']}")[1]["state"]
        for row in owner.ask("GET", "/v1/deliveries?limit=1000")[1]["deliveries"]:
            owner.ask("GET", f"/v1/deliveries/{row['id']}")
        for row in owner.ask("GET", "/v1/events?limit=1000")[1]["events"]:
            owner.ask("GET", f"/v1/events/{row['id']}")
        for what in ("verify", "test", "rotate", "enable"):
            owner.ask("POST", f"{path}/{what}", {})
        owner.ask("POST", f"/v1/subscriptions/{dead['id']}/enable", {})
        for body in (
            {"paused": True},
            {"paused": False},
            {"name": "zqother"},
            {"url": "http://10.0.0.1/"},
            {"nonesuch": 1},
        ):
            owner.ask("PATCH", path, body)
        owner.ask("POST", "/v1/deliveries/redeliver", {"subscription_id": path.rpartition("/")[2]})
        self.nothing_waits()
        owner.ask("GET", "/v1/deliveries?limit=1000")
        owner.ask("DELETE", path)
        for _ in range(12):
            owner.ask("POST", "/v1/subscriptions", {"name": "zqmany", "url": owner.hook.url("nobody")})

    # what is not theirs

    def canaries(self, name: str, secret: str, heard: list[str]) -> dict[str, str]:
        """What an owner must not know: text -> what it is."""
        cloud, reading = self.cloud, self.store.reading
        owner = self.owners[name]
        mine = {s.id for s in self.servers.values() if s.project_id == owner.project_id}
        found = dict.fromkeys(WORDS, "a word of the operators'")
        for host in cloud.hosts.values():
            found |= {
                host.name: "host",
                host.node: "node",
                host.service_id: "service uuid",
                host.provider.uuid: "provider",
            }
        found |= {cloud.admin_user: "user", cloud.admin_project: "project", cloud.image_id: "image"}
        found |= {flavor.id: "flavor" for name, flavor in cloud.flavors.items() if name in WORDS}
        for text in heard:
            found |= dict.fromkeys(re.findall(r'"_context_request_id": "([^"]+)"', text), "request id")
            found |= dict.fromkeys(re.findall(r'"message_id": "([^"]+)"', text), "message id")
            found |= dict.fromkeys(re.findall(r'"migration_uuid": "([^"]+)"', text), "migration uuid")
            found |= dict.fromkeys(re.findall(r'"hostId": "([^"]+)"', text), "hostId")
        for m in reading.migrations(limit=1000):
            found |= {key: "migration" for key in (m.key, m.migration_uuid) if key and len(key) >= 8}
        found |= {drain.drain_id: "drain" for drain in reading.drains(limit=1000)}
        found |= {event.id: "operators' event" for event in self.store.events.list(limit=1000)}
        found |= dict.fromkeys(CONFIGURED, "configuration") | {secret.removeprefix("whsec_"): "secret"}
        for other in self.owners.values():
            if other is owner:
                continue
            project = other.project_id
            found |= {project: "project", other.user.id: "user", other.token: "token", f"zq{other.name}": "a name"}
            for event in self.store.events.list_of_project(project, limit=1000, now=cloud.now()):
                found[event.id] = "another's event"
            for one in self.store.subscriptions.all():
                if one.project_id == project:
                    found |= {one.id: "subscription", **{s.removeprefix("whsec_"): "secret" for s in one.secrets}}
        for server in self.servers.values():
            if server.id not in mine:
                found |= {server.id: "server", server.name: "server's name"}
                found |= {word: "metadata" for pair in server.metadata.items() for word in pair}
        return {text: what for text, what in found.items() if len(text) >= 4}
