"""What all requests have in common: errors, bodies, the guard against browsers, and the socket itself."""

from __future__ import annotations

import socket

import pytest

from maintd.errors import OperatorError
from maintd.web.server import BODY_MAX_BYTES, ROUTES, HttpServer, api, names_loopback
from tests.web.serving import Served, closed
from tests.web.tokens import get, guarding


@pytest.mark.parametrize(
    ("header", "good"),
    [
        ("127.0.0.1:8779", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("LocalHost:8779", True),
        ("[::1]:8779", True),
        ("[::1]", True),
        ("evil.example", False),
        ("evil.example:8779", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("10.0.0.1:8779", False),
        ("127.0.0.1:8779@evil.example", False),
        ("127.0.0.1:evil", False),
        ("", False),
    ],
)
def test_only_the_loopback_is_a_good_host(header: str, good: bool) -> None:
    """Names that a page could have pointed at this machine are told from the machine's own."""
    assert good == names_loopback(header)


def test_a_rebound_name_is_refused(served: Served) -> None:
    """A page whose name was rebound to 127.0.0.1 reads nothing."""
    status, answer = served.get("/v1/status", Host="evil.example:8779")

    assert 403 == status
    assert {"title", "description"} == set(answer)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_page_cannot_post(served: Served, content_type: str | None) -> None:
    """What a page may send without asking is not accepted as a request to change something."""
    served.put(closed("cmp-17"))
    headers = {} if content_type is None else {"Content-Type": content_type}

    status, _ = served.ask("POST", "/v1/drains", b'{"host": "cmp-17"}', headers)

    assert 415 == status
    assert [] == served.drains_requested


def test_nobody_answers_a_preflight(served: Served) -> None:
    """No header ever allows another origin."""
    import http.client

    assert served.server is not None
    connection = http.client.HTTPConnection(*served.server.address, timeout=5)
    connection.request("OPTIONS", "/v1/drains", headers={"Origin": "http://evil.example"})
    response = connection.getresponse()
    connection.close()

    assert not [name for name, _ in response.getheaders() if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    ("body", "wanted"), [(b"{", 400), (b"[1]", 400), (b"\xff", 400), (b" " * (BODY_MAX_BYTES + 1), 413)]
)
def test_a_bad_body_is_explained(served: Served, body: bytes, wanted: int) -> None:
    """Bodies that are not a JSON object, or too big, are refused with a sentence."""
    status, answer = served.ask("POST", "/v1/drains", body, {"Content-Type": "application/json"})

    assert wanted == status
    assert answer["description"].endswith(".")


def test_a_wrong_method_names_the_right_ones(served: Served) -> None:
    """405 says what the path takes."""
    status, answer = served.ask("DELETE", "/v1/drains")

    assert 405 == status
    assert "GET" in answer["description"]


def test_answers_are_not_kept(served: Served) -> None:
    """No cache between us and a script may answer in our place, and no server name is shown."""
    import http.client

    assert served.server is not None
    connection = http.client.HTTPConnection(*served.server.address, timeout=5)
    connection.request("GET", "/v1/status")
    response = connection.getresponse()

    assert "no-store" == response.getheader("Cache-Control")
    assert "maintd" == response.getheader("Server")
    connection.close()


def test_every_route_answers(served: Served) -> None:
    """No line of the table ends in a 500 when nothing is there."""
    for path, methods in ROUTES.items():
        for method in methods:
            filled = path.replace("{", "").replace("}", "")
            body = b"{}" if method in ("POST", "PATCH") else None
            headers = {"Content-Type": "application/json"} if body else {}

            status, _ = served.ask(method, filled, body, headers)

            assert status in (200, 400, 404), f"{method} {path}"


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("/v1/hosts/a%00b", 404, "nothing of that name"),
        ("/v1/migrations?host=a%00b", 400, "host must be a text"),
        ("/v1/migrations?host=", 400, "host is empty"),
        ("/v1/migrations?host=a&host=b", 400, "Give host once, not 2 times"),
        ("/v1/stalls?since=0001-01-01T00:00:00%2B14:00", 400, "since must be a time in UTC"),
        ("/v1/stalls?since=", 400, "since must be a time in UTC"),
    ],
)
def test_what_cannot_be_meant_is_refused(served: Served, query: str, status: int, words: str) -> None:
    """A text that no database takes, an empty or doubled parameter and an impossible time are said to be that."""
    found, answer = served.get(query)

    assert status == found
    assert words in answer["description"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"delivery_ids": None}, "delivery_ids must be a list"),
        ({"endpoint": "\ud800"}, "endpoint must be a text"),
        ({"endpoint": 7}, "endpoint must be a text"),
        ({}, "at least one of: delivery_ids, endpoint"),
        ({"since": 1}, "or since and until"),
        ({"endpiont": "a"}, "There is no member 'endpiont' here"),
    ],
)
def test_what_a_body_cannot_mean_is_refused(served: Served, body: dict[str, object], words: str) -> None:
    """A member that is null, of another type or unknown is a 400 with a sentence."""
    status, answer = served.post("/v1/deliveries/redeliver", body)

    assert 400 == status
    assert words in answer["description"]


def test_a_closed_database_is_503(served: Served) -> None:
    """A database that cannot be used is said to be that, and when to ask again."""
    with served.store._database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE hosts")

    status, answer = served.get("/v1/hosts")

    assert 503 == status
    assert "database" in answer["description"].lower()


def test_where_the_database_is_is_told_to_operators_only(served: Served) -> None:
    """A project hears that there is none just now, and neither where it would be nor what is wrong with it."""
    with served.store._database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE events")
    with guarding(served):
        told = {who: get(served, who, "/v1/events") for who in ("reader", "admin")}

    assert (503, 503) == (told["reader"][0], told["admin"][0])
    assert "maintd.sqlite" in told["admin"][1]["description"]
    assert "The database cannot be used now; try again in a moment." == told["reader"][1]["description"]


def test_a_taken_port_is_the_operators_to_mend(served: Served) -> None:
    """Starting on a port that somebody has says which option, which address, and why."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(OperatorError, match=rf"\[api\] listen: 127.0.0.1:{port} .*Address already in use"):
            HttpServer("api", api(served.web()), "127.0.0.1", port).start()


def test_a_stopped_server_frees_its_port(served: Served) -> None:
    """After stop the port can be had again at once, and stopping twice is harmless."""
    server = HttpServer("api", api(served.web()), "127.0.0.1", 0)
    server.start()
    _, port = server.address
    server.stop()
    server.stop()

    again = HttpServer("api", api(served.web()), "127.0.0.1", port)
    again.start()
    again.stop()
