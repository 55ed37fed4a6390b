"""[api] auth = keystone: keystonemiddleware, asking a Keystone over real HTTP."""

from __future__ import annotations

import http.client
import http.server
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from maintd.errors import OurFault
from maintd.web.server import HttpServer, api
from tests.support.rabbitmq import wait_until
from tests.web.listening import EVENT_STREAM, listening
from tests.web.serving import Served, emptied
from tests.web.tokens import KEYSTONE

ROLES = {"admins": ["admin", "reader"], "readers": ["reader"]}


class Keystone(http.server.BaseHTTPRequestHandler):
    """As much of Keystone v3 as checking a token takes; a token's name tells its roles."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.startswith("/v3/auth/tokens"):
            name = self.headers["X-Subject-Token"]
            if name not in ROLES:
                self._answer(404, {"error": {"message": "no such token", "code": 404}})
                return
            self._answer(200, self._token(ROLES[name]))
            return
        self._answer(300 if self.path == "/" else 200, {"versions": {"values": [self._version()]}, **self._one()})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(201, self._token(["service"]), {"X-Subject-Token": "maintds-own"})

    def _version(self) -> dict:
        url = f"http://127.0.0.1:{self.server.server_port}/v3/"  # type: ignore[attr-defined]
        return {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": url}]}

    def _one(self) -> dict:
        return {} if self.path == "/" else {"version": self._version()}

    def _token(self, roles: list[str]) -> dict:
        url = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
        endpoints = [
            {"id": kind, "interface": kind, "region": "r", "region_id": "r", "url": url}
            for kind in ("public", "internal", "admin")
        ]
        now = datetime.now(UTC)
        return {
            "token": {
                "methods": ["password"],
                "user": {"id": "u", "name": "ada", "domain": {"id": "default", "name": "Default"}},
                "project": {"id": "p", "name": "ops", "domain": {"id": "default", "name": "Default"}},
                "roles": [{"id": role, "name": role} for role in roles],
                "catalog": [{"id": "k", "type": "identity", "name": "keystone", "endpoints": endpoints}],
                "issued_at": now.isoformat(),
                "expires_at": (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                "audit_ids": ["a"],
            }
        }

    def _answer(self, status: int, body: dict, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(raw)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)


@pytest.fixture
def guarded(served: Served) -> Iterator[Served]:
    """The API behind keystonemiddleware."""
    keystone = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Keystone)
    threading.Thread(target=keystone.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{keystone.server_port}"
    options = {
        "auth_url": url, "www_authenticate_uri": url, "auth_type": "password", "username": "maintd",
        "password": "hunter2", "project_name": "service", "user_domain_name": "Default",
        "project_domain_name": "Default",
    }  # fmt: skip
    assert served.server is not None
    served.server.stop()
    served.server = HttpServer("api", api(served.web(), keystone=options), "127.0.0.1", 0)
    served.server.start()
    yield served
    keystone.shutdown()
    keystone.server_close()


def ask(served: Served, token: str | None = None, **headers: str) -> tuple[int, dict]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return served.ask("GET", "/v1/status", headers=given if token is None else {**given, "X-Auth-Token": token})


def test_an_admins_token_opens(guarded: Served) -> None:
    """A valid token with role admin is answered, whatever host name the request was made to."""
    assert 200 == ask(guarded, "admins")[0]
    assert 200 == ask(guarded, "admins", Host="ctl-1.example:8779")[0]


def test_another_role_does_not(guarded: Served) -> None:
    """A valid token without role admin is 403."""
    assert 403 == ask(guarded, "readers")[0]


@pytest.mark.parametrize("token", [None, "", "forged"])
def test_no_valid_token_is_401_in_our_words(guarded: Served, token: str | None) -> None:
    """Without a token that Keystone knows there is no answer, not even about what exists."""
    status, answer = ask(guarded, token)

    assert 401 == status
    assert "OS_TOKEN" in answer["description"]
    assert 401 == guarded.get("/v1/nonsense")[0]


@pytest.mark.parametrize(
    ("public", "challenges"),
    [("https://keystone.example.org/v3", ['Keystone uri="https://keystone.example.org/v3"']), (None, ["Keystone"])],
)
def test_a_refusal_shows_no_internal_address(guarded: Served, public: str | None, challenges: list[str]) -> None:
    """Whoever comes without a token is told Keystone's public address, where it is set, and never the one by which
    maintd reaches it, with an internal name."""
    options = {**KEYSTONE, "auth_url": "http://keystone.internal:5000/v3", "www_authenticate_uri": public}
    assert guarded.server is not None
    guarded.server.stop()
    given = {name: value for name, value in options.items() if value is not None}
    guarded.server = HttpServer("api", api(guarded.web(), keystone=given), "127.0.0.1", 0)
    guarded.server.start()
    connection = http.client.HTTPConnection(*guarded.server.address, timeout=5)
    connection.request("GET", "/v1/status")
    response = connection.getresponse()
    connection.close()

    assert 401 == response.status
    assert challenges == response.headers.get_all("WWW-Authenticate")
    assert "internal" not in str(response.headers)


def test_a_claimed_identity_is_not_believed(guarded: Served) -> None:
    """Headers that only the middleware may set are not taken from a request."""
    claim = {"X_Identity_Status": "Confirmed", "X_Roles": "admin", "X_Role": "admin", "X_User_Id": "u"}

    assert 401 == ask(guarded, **claim)[0]
    assert 403 == ask(guarded, "readers", **claim)[0]


def test_a_stream_is_for_who_may_read(guarded: Served) -> None:
    """An admin's token opens a stream, which is live behind the middleware too, and its project holds the seat."""
    assert 401 == guarded.ask("GET", "/v1/events", headers={**EVENT_STREAM, "X-Auth-Token": "forged"})[0]
    with listening(guarded.url, X_Auth_Token="admins") as one, listening(guarded.url, X_Auth_Token="admins"):
        guarded.publish(emptied("cmp-1"))
        assert ["event-1"] == one.events(1)
        with listening(guarded.url, source="127.0.0.2", X_Auth_Token="admins") as third:
            assert 503 == third.response.status

    wait_until(lambda: guarded.seats.taken == 0, what="the seats to be free")


def test_without_authentication_nothing_leaves_the_machine(served: Served) -> None:
    """Serving the open API beyond the loopback is refused, whoever asks for it."""
    for host in ("0.0.0.0", "10.0.0.1", "ctl-1.example", "::"):
        with pytest.raises(OurFault):
            HttpServer("api", api(served.web()), host, 0)
