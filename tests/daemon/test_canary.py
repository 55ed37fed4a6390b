"""Nothing leaks: every byte that a project was sent or could read, over a whole busy story, searched for canaries.

Names that no owner may learn are made of words that occur nowhere else: hosts, their zone, the reasons of operators,
faults of Nova, the other project's servers and metadata. Two projects with tokens of their own are called (webhooks,
handshakes and refused attempts included), read their logs by cursor and as a stream, and ask every route with every
method for what is theirs, what is not, and what is nonsense; then all that came, headers and errors too, is searched.
That the operators were told these words shows that the search can find them.
"""

from __future__ import annotations

import base64
import json
import socket
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from maintd.config import ApiConfig, Config, SubscriptionsConfig, TenantsConfig, WebhookConfig
from maintd.demo.stage import Receiver, Stage, Teller, stage
from maintd.demo.tenants import token_of
from maintd.simulator import Cloud
from maintd.simulator.notifications import Request
from maintd.simulator.rest import RestServer, User
from maintd.store.vault import new_key
from maintd.web.server import ROUTES

HOSTS = ("canaryhost-rack7-a", "canaryhost-rack7-b", "canaryhost-rack9-c")
ZONE, REASON, KEY, VALUE = "canaryzone", "canaryreason maintenance: Bob dropped rack 7", "canarykey", "canaryvalue"
WORDS = ("canaryhost", "rack7", "rack9", ZONE, "canaryreason", "sim.test", "NoValidHost", "Traceback", "req-")
"""Nobody but operators may read these; each project has its own beside."""

METHODS = ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE")


class Project:
    """Somebody with a token, and every byte that came to her."""

    def __init__(self, user: User, rest: RestServer) -> None:
        self.user, self.token = user, token_of(user, rest)
        self.endpoint = Receiver(None, lambda event: None)
        self.bytes = bytearray()
        self.servers: dict[str, str] = {}
        self.api: tuple[str, int] = ("", 0)
        self.subscription = ""

    def ask(self, method: str, target: str, body: Any = None, **headers: str) -> tuple[int, bytes]:
        """Status and body of one request on a connection of its own; all bytes of the answer are kept."""
        raw = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {
            "Host": "maintd", "X-Auth-Token": self.token, "Content-Length": str(len(raw)), "Connection": "close",
            "Content-Type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()},
        }  # fmt: skip
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        with socket.create_connection(self.api, timeout=20) as connection:
            connection.sendall(head.encode() + b"\r\n" + raw)
            answer = b""
            while part := connection.recv(65536):
                answer += part
                if b"text/event-stream" in answer and b": " in answer.partition(b"\r\n\r\n")[2]:
                    break
        self.bytes += _without_echo(answer, target, body)
        header, _, found = answer.partition(b"\r\n\r\n")
        return int(header.split(b" ", 2)[1]), found

    def told(self) -> list[dict[str, Any]]:
        return list(json.loads(self.ask("GET", "/v1/events?limit=1000")[1])["events"])

    @property
    def received(self) -> bytes:
        return bytes(self.bytes + self.endpoint.bytes)


def _without_echo(answer: bytes, target: str, body: Any) -> bytes:
    """The answer without what its request itself had named: nobody learns from an error what she has said."""
    path, _, query = target.partition("?")
    said = [*urllib.parse.unquote(path).split("/"), *(value for _, value in urllib.parse.parse_qsl(query))]
    said += [str(value) for value in body.values()] if isinstance(body, dict) else []
    for word in sorted((word for word in said if len(word) > 3), key=len, reverse=True):
        answer = answer.replace(word.encode(), b"")
    return answer


@contextmanager
def playing(tmp_path: Path) -> Iterator[tuple[Stage, dict[str, Project]]]:
    """The daemon over a cloud of two projects whose servers share hosts, both subscribed."""
    people: dict[str, Project] = {}

    def peopled(cloud: Cloud, rest: RestServer) -> None:
        for host in HOSTS:
            cloud.add_host(host, zone=ZONE)
        cloud.knobs.set("live_migration", mode="converge", seconds=1, report_s=0.5)

    def configured(config: Config, rest: RestServer, folder: Path) -> Config:
        key = folder / "key"
        key.write_text(new_key() + "\n")
        for name in ("ada", "bob"):
            people[name] = Project(rest.api.add_user(name, "pw", f"project-{name}"), rest)
        auth = rest.cloud_config()["auth"]
        return replace(
            config,
            api=ApiConfig(port=0, auth="keystone"),
            tenants=TenantsConfig(enabled=True),
            subscriptions=SubscriptionsConfig(
                key_file=key,
                allowed_networks=(ip_network("127.0.0.1/32"),),
                allow_http=True,
                allowed_ports=tuple(one.endpoint.port for one in people.values()),
            ),
            webhooks=(WebhookConfig("canaryhook-operator", "http://127.0.0.1:9/", None),),
            library={"keystone_authtoken": {"www_authenticate_uri": auth["auth_url"], "auth_type": "password", **auth}},
        )

    with stage(Teller(), 110.0, peopled, configured) as on:
        for name, somebody in people.items():
            somebody.api = on.daemon.api_server.address
            for number, host in enumerate((HOSTS[0], HOSTS[0], HOSTS[1])):
                server = on.cloud.add_server(
                    host, f"canaryname-{name}-{number}", project_id=somebody.user.project_id,
                    metadata={f"{KEY}-{name}": f"{VALUE}-{name}"},
                )  # fmt: skip
                somebody.servers[server.id] = server.name
        try:
            yield on, people
        finally:
            for somebody in people.values():
                somebody.endpoint.close()


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, dict[str, Project]]]:
    """The story, lived through; and everything asked."""
    with playing(tmp_path_factory.mktemp("canary")) as (on, people):
        cloud = on.cloud
        on.until("the daemon to have read the cloud", on.has_read_the_cloud)
        known = [i for one in people.values() for i in one.servers]
        on.until("all servers to be known", lambda: _all_known(on, known))
        for somebody in people.values():
            status, made = somebody.ask("POST", "/v1/subscriptions", {"name": "ha", "url": somebody.endpoint.url})
            assert 201 == status, made
            found = json.loads(made)
            somebody.subscription, path = found["id"], f"/v1/subscriptions/{found['id']}"
            on.until(
                "verification", lambda path=path, s=somebody: json.loads(s.ask("GET", path)[1])["state"] == "active"
            )
            somebody.ask("POST", f"{path}/test", {})  # refused: it does not have the secret yet
            somebody.endpoint.secret = found["secret"]
        ada, bob = people.values()
        cloud.disable(HOSTS[0], REASON)
        _hears(on, ada, "maintenance_started")
        (first, second, third), (his, *_) = list(ada.servers), list(bob.servers)
        cloud.disable(HOSTS[2], REASON)
        cloud.disable(HOSTS[1], REASON)
        cloud.live_migrate(first)  # NoValidHost
        cloud.enable(HOSTS[1])
        cloud.enable(HOSTS[2])
        _hears(on, ada, "maintenance_started", third)
        cloud.knobs.set("live_migration", server=cloud.find_server(second).name, mode="error", seconds=1)
        cloud.live_migrate(second, HOSTS[1])
        cloud.live_migrate(his, HOSTS[1])
        _hears(on, ada, "move_failed", second)
        _hears(on, bob, "moved", his)
        ada.endpoint.secret, secret = "whsec_" + "QUJD" * 8, ada.endpoint.secret  # noqa: S105 - it refuses for a while
        cloud.set_service(HOSTS[1], forced_down=True)
        _hears(on, bob, "host_lost", his)
        cloud.evacuate(his, HOSTS[2])
        cloud.set_service(HOSTS[0], disabled=False)
        on.until("a refusal to be on record", lambda: b"refused" in ada.ask("GET", "/v1/deliveries")[1])
        ada.endpoint.secret = secret
        _hears(on, bob, "host_recovered", his)
        mine = Request("req-canary", ada.user.id, ada.user.project_id)
        cloud.migrate(first, flavor="m1.large", request=mine)
        _hears(on, ada, "moved", first)
        cloud.delete(second)
        on.until("ada to be told no more", lambda: _calm(ada))
        _ask_everything(ada, bob)
        _ask_everything(bob, ada)
        yield on, people


def _all_known(on: Stage, servers: list[str]) -> bool:
    leading = on.daemon.leading
    return leading is not None and leading.admission.read(
        lambda fleet: all((s := fleet.server(i)) is not None and s.project_id is not None for i in servers)
    )


def _hears(on: Stage, somebody: Project, what: str, server_id: str | None = None) -> None:
    def heard() -> bool:
        wanted = f"maintd.server.{what}.v1"
        return any(e["type"] == wanted and server_id in (None, e["subject"]) for e in somebody.told())

    on.until(f"{somebody.user.name} to hear {what}", heard)


def _calm(somebody: Project) -> bool:
    """Whether all that can be read was also sent."""
    return {e["id"] for e in somebody.told()} <= {e["id"] for e in somebody.endpoint.events}


def _ask_everything(somebody: Project, other: Project) -> None:
    """Every route and method, for what is hers, what is another's, what is an operator's, and nonsense."""
    deliveries = json.loads(somebody.ask("GET", "/v1/deliveries?limit=1000")[1])["deliveries"]
    theirs = json.loads(other.ask("GET", "/v1/deliveries?limit=1000")[1])["deliveries"]
    ids: dict[str, list[str]] = {
        "{host}": [HOSTS[0], "nonesuch"],
        "{drain_id}": ["x"],
        "{migration_key}": ["x"],
        "{event_id}": [e["id"] for e in (*somebody.told()[:2], *other.told()[:2])] + ["x"],
        "{delivery_id}": [d["id"] for d in (*deliveries[:2], *theirs[:2])] + ["1", "x.y"],
        "{subscription_id}": [somebody.subscription, other.subscription, "x"],
    }
    for path in (*ROUTES, "/", "/v1/nonsense", "/v1/servers", "/metrics"):
        slot = next((name for name in ids if name in path), "")
        for one in ids.get(slot, [""]):
            target = path.replace(slot, urllib.parse.quote(one)) if slot else path
            for method in METHODS:
                if method == "DELETE" and one == somebody.subscription:
                    continue  # it is still needed
                for body in ({}, {"host": HOSTS[0]}, {"subscription_id": other.subscription}, b"{"):
                    if method in ("POST", "PATCH") or body == {}:
                        somebody.ask(method, target, body if method in ("POST", "PATCH") else None)
    for query in (
        f"project_id={other.user.project_id}", "all=true", "limit=0", "after=-1", "endpoint=canaryhook-operator",
        "type=maintd.host.*", f"subject={next(iter(other.servers))}", "closed=true",
    ):  # fmt: skip
        for path in ("/v1/events", "/v1/deliveries", "/v1/subscriptions", "/v1/servers/maintenance", "/v1/hosts"):
            somebody.ask("GET", f"{path}?{query}")
    somebody.ask("GET", "/v1/events", Accept="text/event-stream")
    somebody.ask("GET", "/v1/events", X_Project_Id=other.user.project_id, X_Roles="admin")
    somebody.ask("POST", "/v1/subscriptions", b"x" * 70_000)


def _canaries(other: Project) -> dict[str, list[bytes]]:
    """What may not be found, in the guises in which it could stand there."""
    words = [*WORDS, other.user.project_id, f"{KEY}-{other.user.name}", f"{VALUE}-{other.user.name}"]
    words += [*other.servers.values(), *other.servers]
    return {
        word: [
            word.lower().encode(),
            urllib.parse.quote(word).lower().encode(),
            base64.b64encode(word.encode()).rstrip(b"=")[:-1].lower(),
        ]
        for word in words
    }


def test_no_project_reads_what_is_not_its_own(played: tuple[Stage, dict[str, Project]]) -> None:
    """In all that either project received nothing is found that only operators, or the other one, may know."""
    _, people = played
    ada, bob = people.values()
    for somebody, other in ((ada, bob), (bob, ada)):
        text = somebody.received.lower()
        assert len(text) > 50_000
        found = {word: g for word, guises in _canaries(other).items() for g in guises if g in text}
        assert {} == {w: text[max(0, text.index(g) - 200) : text.index(g) + 80] for w, g in found.items()}


def test_the_words_were_there_to_be_found(played: tuple[Stage, dict[str, Project]]) -> None:
    """Operators were told hosts, reasons, requests and servers: where these words are, the search finds them."""
    on, people = played
    log = " ".join(row.body for row in on.daemon.store.events.list(limit=1000))
    servers = [event["subject"] for somebody in people.values() for event in somebody.told()]

    assert [] == [word for word in ("canaryhost", "rack7", "rack9", "canaryreason", "req-") if word not in log]
    assert any(server in log for server in servers)


def test_numbers_and_ids_are_each_projects_own(played: tuple[Stage, dict[str, Project]]) -> None:
    """Sequences count from one without a gap in each project, no id is shared, and what is sent is what can be read."""
    _, people = played
    ids: list[set[str]] = []
    for somebody in people.values():
        told = somebody.told()
        assert [int(e["sequence"]) for e in told] == list(range(1, len(told) + 1))
        assert {e["subject"] for e in told} <= set(somebody.servers)
        assert {e["id"]: e for e in told} == {e["id"]: e for e in somebody.endpoint.events if e["sequence"] != "0" * 20}
        ids.append({e["id"] for e in told})
    assert not ids[0] & ids[1]


def test_the_state_at_the_end_is_that_of_the_newest_events(played: tuple[Stage, dict[str, Project]]) -> None:
    """Whoever keeps the newest state of each server holds what GET /v1/servers/maintenance says."""
    for somebody in played[1].values():
        newest = {e["subject"]: e["data"]["state"] for e in somebody.told()}
        touched = {i: s for i, s in newest.items() if s["maintenance"] or s["move"] or s["host_lost"]}
        answer = json.loads(somebody.ask("GET", "/v1/servers/maintenance")[1])
        assert {s["server_id"]: s for s in answer["servers"]} == touched
        assert answer["incarnation"] == len(somebody.told())
