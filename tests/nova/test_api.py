"""The REST side against a small Nova over real HTTP that can be made to misbehave: what is asked, what is believed."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from maintd.clock import ManualClock, SystemClock
from maintd.config import CloudConfig
from maintd.domain.observations import (
    MigrationSeen,
    NodesSeen,
    PassRead,
    Read,
    ServerSeen,
    ServersListed,
    ServicesListed,
)
from maintd.errors import OperatorError
from maintd.nova.answers import Answer, Pages, normalise_answer
from maintd.nova.api import OPEN_STATUSES, OUTCOMES, NovaApi
from maintd.simulator.model import Cloud
from maintd.simulator.rest import RestServer

NOW = 1_780_000_000.0


@dataclass
class Sim:
    """A simulated cloud, its HTTP server, and an API that counts."""

    cloud: Cloud
    server: RestServer
    clock: ManualClock
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    def api(self, timeout_s: float = 5.0, pace: Callable[[str | None], bool] = lambda purpose: True) -> NovaApi:
        auth = self.server.cloud_config()["auth"]
        config = CloudConfig(options={"auth_type": "password", **auth}, region_name="RegionOne", timeout_s=timeout_s)
        return NovaApi(config, self.clock, self.count, pace=pace, pause=lambda seconds: None)

    def count(self, service: str, outcome: str) -> None:
        assert outcome in OUTCOMES
        self.calls[service, outcome] += 1

    @property
    def asked(self) -> list[str]:
        return [seen.target for seen in self.server.api.seen if seen.service in ("compute", "placement")]


@pytest.fixture
def sim() -> Iterator[Sim]:
    clock = ManualClock(NOW)
    cloud = Cloud(clock)
    for name in ("cmp-1", "cmp-2", "cmp-3"):
        cloud.add_host(name)
    clock.advance(60.0)
    server = RestServer(cloud, threads=8).start()
    yield Sim(cloud, server, clock)
    server.faults.clear()
    threading.Thread(target=server.stop, daemon=True).start()  # stopping takes a while, and nobody has to wait for it


@dataclass
class Bare:
    """A cloud of hand-written answers, reached without Keystone."""

    url: str
    timeout_s: float = 2.0
    cloud: str | None = None

    def connect_options(self) -> dict[str, Any]:
        return {
            "load_yaml_config": False,
            "load_envvars": False,
            "api_timeout": self.timeout_s,
            "auth_type": "none",
            "auth": {"endpoint": self.url},
            "compute_endpoint_override": f"{self.url}/v2.1",
            "placement_endpoint_override": f"{self.url}/placement",
        }


def discovery(httpserver: HTTPServer) -> None:
    """Nova's version document, with which every conversation begins."""
    version = {
        "id": "v2.1",
        "status": "CURRENT",
        "version": "2.104",
        "min_version": "2.1",
        "links": [{"rel": "self", "href": httpserver.url_for("/v2.1/")}],
    }
    for path in ("/v2.1", "/v2.1/"):
        httpserver.expect_request(path).respond_with_json({"version": version})


def lists(answers: list[Answer], kind: type) -> list[Any]:
    """The lists that a run of answers completes."""
    pages = Pages()
    return [o for a in answers for o in pages.observations(a) if isinstance(o, kind)]


# -- what is asked ----------------------------------------------------------------------------------------------------


def test_a_pass_asks_in_the_order_of_a_proof(sim: Sim) -> None:
    """A pass reads migrations, hypervisor, servers, providers, allocations, traits, migrations, service."""
    node = sim.cloud.hosts["cmp-1"].provider.uuid
    child = sim.cloud.add_child_provider("cmp-1", "numa0").uuid
    answers = list(sim.api().verify("cmp-1", [node], 7))
    reads = [o for a in answers for o in normalise_answer(a) if isinstance(o, PassRead)]
    assert [(r.read, r.target) for r in reads] == [
        (Read.MIGRATIONS, None),
        (Read.HYPERVISOR, node),
        (Read.SERVERS, None),
        (Read.PROVIDERS, node),
        *[(Read.ALLOCATIONS, uuid) for uuid in [str(u) for u in reads[3].found]],
        (Read.TRAITS, node),
        (Read.MIGRATIONS, None),
        (Read.SERVICE, None),
    ]
    assert set(reads[3].found) == {node, child}
    assert all(r.complete and r.error is None and r.pass_number == 7 and r.host == "cmp-1" for r in reads)
    assert {a.purpose for a in answers} == {"verify"}


def test_unknown_nodes_are_looked_up_before_the_pass(sim: Sim) -> None:
    """Without known nodes the hypervisors are listed first, in no pass's name; the pass then asks for the right one."""
    answers = list(sim.api().verify("cmp-2", [], 1))
    assert answers[0].request.startswith("GET /os-hypervisors/detail") and answers[0].purpose == "reconcile"
    node = sim.cloud.hosts["cmp-2"].provider.uuid
    assert [o.nodes for o in lists(answers[:1], NodesSeen) if o.host == "cmp-2"] == [(node,)]
    assert any(f"/os-hypervisors/{node}" in a.request for a in answers)
    assert answers[-1].error is None


def test_a_node_that_is_gone_spoils_the_pass_and_is_looked_up(sim: Sim) -> None:
    """A node Nova no longer knows ends the pass with an error, after the host's nodes were listed anew."""
    answers = list(sim.api().verify("cmp-1", ["11111111-2222-4333-8444-555555555555"], 1))
    assert answers[-1].error is not None and "no longer knows" in answers[-1].error
    assert lists(answers, NodesSeen)
    assert [o.error is not None for o in normalise_answer(answers[-1]) if isinstance(o, PassRead)] == [True]


def test_a_host_without_nodes_is_not_provable(sim: Sim) -> None:
    """A host of which Nova knows no compute node ends in an error that says so, and in no other question."""
    answers = list(sim.api().verify("nowhere", [], 1))
    assert answers[-1].error is not None and "no compute node of nowhere" in answers[-1].error
    assert [a.purpose for a in answers] == ["reconcile", "verify"]


def test_leftover_consumers_are_looked_up_and_explained_ones_are_not(sim: Sim) -> None:
    """Only a consumer that is neither on the host nor part of one of its moves is asked for by id."""
    here = sim.cloud.add_server("cmp-1")
    leak = sim.cloud.leak_allocation("cmp-1")
    answers = list(sim.api().verify("cmp-1", [sim.cloud.hosts["cmp-1"].provider.uuid], 1))
    assert [a.request for a in answers if a.request.startswith("GET /servers/") and "detail" not in a.request] == [
        f"GET /servers/{leak}"
    ]
    assert here.id not in {a.request.rpartition("/")[2] for a in answers}
    assert answers[-1].error is None and answers[-1].request.startswith("GET /os-services")


def test_a_server_whose_evacuation_is_done_is_asked_after_where_placement_holds_something_for_it(sim: Sim) -> None:
    """The row stays `done` until the source runs again, and says nothing of what is held on its destination now."""
    cloud = sim.cloud
    server = cloud.add_server("cmp-1")
    cloud.kill_compute("cmp-1")
    cloud.set_service("cmp-1", forced_down=True)
    cloud.evacuate(server.id, "cmp-2", ends_stopped=False)
    cloud.advance(cloud.now() + 60)
    assert server.host == "cmp-2" and [m.status for m in cloud.migrations.values()] == ["done"]
    cloud.live_migrate(server.id)
    cloud.advance(cloud.now() + 120)
    cloud.leak_allocation("cmp-2", server.id)
    assert server.host != "cmp-2"

    asked = [a.request for a in sim.api().verify("cmp-2", [cloud.hosts["cmp-2"].provider.uuid], 1)]

    assert f"GET /servers/{server.id}" in asked


def test_open_migrations_are_asked_once_for_each_status(sim: Sim) -> None:
    """Nova takes one status a call, so every holding status is a call of its own; that fits the reconcile budget."""
    answers = list(sim.api().open_migrations())
    assert len(answers) == len(OPEN_STATUSES) == 12
    assert [a.status for a in answers] == [200] * 12


def test_pages_are_followed_to_the_end(sim: Sim) -> None:
    """Five servers in pages of two are three answers and one complete list; half a page more would be none."""
    ids = {sim.cloud.add_server("cmp-1").id for _ in range(5)}
    sim.server.faults.max_limit = 2
    answers = list(sim.api().servers("cmp-1"))
    assert len(answers) == 3
    (whole,) = lists(answers, ServersListed)
    assert whole.server_ids == ids and whole.host == "cmp-1"
    assert lists(answers[:2], ServersListed) == []


def test_soft_deleted_servers_are_listed(sim: Sim) -> None:
    """The list of a host shows soft-deleted servers, which Nova leaves out unless asked."""
    soft = sim.cloud.add_server("cmp-1", state="soft-delete")
    (whole,) = lists(list(sim.api().servers("cmp-1")), ServersListed)
    assert whole.server_ids == {soft.id}


def test_changes_since_is_no_list_of_anything(sim: Sim) -> None:
    """What changed since a moment shows deleted servers with their host, and says nothing of those not in it."""
    server = sim.cloud.add_server("cmp-1")
    sim.cloud.kill_compute("cmp-1")
    sim.clock.advance(120.0)
    sim.cloud.advance()
    sim.cloud.delete(server.id)
    sim.cloud.settle()
    answers = list(sim.api().servers(changes_since=NOW))
    assert lists(answers, ServersListed) == []
    (seen,) = [o for a in answers for o in normalise_answer(a) if isinstance(o, ServerSeen)]
    assert (seen.deleted, seen.host, seen.server_id) == (True, "cmp-1", server.id)


def test_an_answer_keeps_question_times_and_version(sim: Sim) -> None:
    """An answer says exactly what was asked, in which microversion, when, for what, and what came back."""
    (answer,) = sim.api().services(purpose="reconcile")
    assert (answer.request, answer.microversion, answer.status) == (
        "GET /os-services?binary=nova-compute",
        "2.69",
        200,
    )
    assert answer.asked_at == answer.at == sim.clock.now() and answer.purpose == "reconcile"
    assert len(lists([answer], ServicesListed)) == 1


def test_hosts_and_ids_are_quoted(sim: Sim) -> None:
    """A host name with odd characters stays one value of the query."""
    (answer,) = sim.api().servers("a&b=c d")
    assert "host=a%26b%3Dc+d" in answer.request and answer.error is None


# -- what is not believed ---------------------------------------------------------------------------------------------

STEPS = (
    "/v2.1/os-migrations*",
    "/v2.1/os-hypervisors/*",
    "/v2.1/servers/detail*",
    "/resource_providers?*",
    "/resource_providers/*/allocations",
    "/resource_providers/*/traits",
    "/v2.1/os-services*",
)
FAULTS: dict[str, dict[str, Any]] = {
    "500": {"status": 500},
    "503": {"status": 503},
    "403": {"status": 403},
    "404": {"status": 404},
    "half": {"cut": True},
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("path", STEPS)
def test_a_pass_ends_at_the_first_fault_and_never_gets_to_the_service(sim: Sim, path: str, fault: str) -> None:
    """Whichever read fails, and however, the last answer has the error and spoils the pass; nothing more is asked."""
    node = sim.cloud.hosts["cmp-1"].provider.uuid
    api = sim.api()
    assert [a.error for a in api.verify("cmp-1", [node], 1)][-1] is None
    sim.server.faults.add(path=path, **FAULTS[fault])
    answers = list(api.verify("cmp-1", [node], 2))
    last = answers[-1]
    assert last.error is not None and all(a.error is None for a in answers[:-1])
    reads = [o for a in answers for o in normalise_answer(a) if isinstance(o, PassRead)]
    assert reads[-1].error is not None
    assert not any(r.read is Read.SERVICE and r.error is None for r in reads)


def test_the_second_reading_of_migrations_may_fail_too(sim: Sim) -> None:
    """A fault in the repeated read of the migrations spoils the pass as one in the first does."""
    sim.server.faults.add(path="/v2.1/os-migrations*", status=500, skip=1)
    answers = list(sim.api().verify("cmp-1", [sim.cloud.hosts["cmp-1"].provider.uuid], 1))
    assert answers[-1].request.startswith("GET /os-migrations") and answers[-1].error is not None
    assert len(answers) == 7


def test_half_a_list_is_no_list(sim: Sim) -> None:
    """A second page that breaks off leaves an error, and no list that says who is not there."""
    for _ in range(5):
        sim.cloud.add_server("cmp-1")
    sim.server.faults.max_limit = 2
    sim.server.faults.add(path="*marker=*", cut=True)
    answers = list(sim.api().servers("cmp-1"))
    assert [a.error is None for a in answers] == [True, False]
    assert lists(answers, ServersListed) == []
    assert sim.calls["compute", "unreadable"] == 2  # asked once more before it was given up


def test_a_silent_cell_does_not_make_a_host_empty(sim: Sim) -> None:
    """With its cell down a host's lists are empty; the hypervisor call says so, and the pass is spoilt."""
    sim.cloud.add_server("cmp-1")
    node = sim.cloud.hosts["cmp-1"].provider.uuid
    sim.cloud.lose_cell(["cmp-1"])
    answers = list(sim.api().verify("cmp-1", [node], 1))
    assert answers[-1].error is not None
    assert not any(a.request.startswith("GET /servers/detail") for a in answers)


def test_a_server_of_a_silent_cell_is_not_somewhere_else(sim: Sim) -> None:
    """A server of which Nova knows only the name is an error, not a server without a host."""
    server = sim.cloud.add_server("cmp-1")
    sim.cloud.lose_cell(["cmp-1"])
    answer = sim.api().server(server.id)
    assert answer.error is not None and "cell does not answer" in answer.error
    assert normalise_answer(answer) == ()


def test_a_dropped_host_filter_is_noticed(sim: Sim) -> None:
    """Servers of other hosts in the list of one host are an error that names the rule to grant."""
    sim.cloud.add_server("cmp-2")
    sim.server.faults.drop_host_filter = True
    (answer,) = sim.api().servers("cmp-1")
    assert answer.error is not None and "allow_all_filters" in answer.error
    assert lists([answer], ServersListed) == []


def test_hidden_hosts_are_noticed(sim: Sim) -> None:
    """Servers and migrations without their hosts are errors that name the rules to grant."""
    server = sim.cloud.add_server("cmp-1")
    sim.cloud.live_migrate(server.id)
    sim.cloud.settle()
    sim.server.faults.hide_host_fields = True
    api = sim.api()
    assert "os-extended-server-attributes" in (api.server(server.id).error or "")
    (rows,) = api.migrations_of_server(server.id)
    assert "os-migrations:index:host" in (rows.error or "")


def test_a_next_page_that_leads_in_a_circle_is_an_error(httpserver: HTTPServer) -> None:
    """A link back to a page already read ends the list with an error instead of reading for ever."""
    discovery(httpserver)
    row = {"id": "a", "OS-EXT-SRV-ATTR:host": "h", "status": "ACTIVE"}
    link = {"rel": "next", "href": "http://elsewhere.test/servers/detail?marker=a"}
    httpserver.expect_request("/v2.1/servers/detail").respond_with_json({"servers": [row], "servers_links": [link]})
    answers = list(NovaApi(Bare(httpserver.url_for("").rstrip("/")), SystemClock()).servers())
    assert [a.error is None for a in answers] == [True, False]
    assert "leads nowhere" in str(answers[-1].error)


def test_a_list_cut_short_by_hidden_rows_is_an_error(httpserver: HTTPServer) -> None:
    """Nova forgets the link where a page lost rows to hiding, so a page of suspicious length is looked behind."""
    discovery(httpserver)

    def row(number: int) -> dict[str, Any]:
        return {
            "id": number,
            "uuid": f"u{number}",
            "instance_uuid": "s",
            "status": "completed",
            "source_compute": "h",
            "dest_compute": "g",
        }

    def answer(request: Request) -> Response:
        rows = [row(99)] if request.args.get("marker") else [row(n) for n in range(49)]
        return Response(json.dumps({"migrations": rows}), content_type="application/json")

    httpserver.expect_request("/v2.1/os-migrations").respond_with_handler(answer)
    answers = list(NovaApi(Bare(httpserver.url_for("").rstrip("/")), SystemClock()).migrations_of_host("h"))
    assert len(answers) == 1 and "cut the list short" in str(answers[0].error)


@pytest.mark.parametrize("body", [{}, {"servers": None}, {"servers": {}}, {"servers": ["x"]}, [], "text", None])
def test_a_body_that_is_not_documented_is_an_error(httpserver: HTTPServer, body: object) -> None:
    """Status 200 with anything but the documented list is an answer we do not have."""
    discovery(httpserver)
    httpserver.expect_request("/v2.1/servers/detail").respond_with_data(
        json.dumps(body), content_type="application/json"
    )
    (answer,) = NovaApi(Bare(httpserver.url_for("").rstrip("/")), SystemClock()).servers()
    assert answer.status == 200 and answer.error is not None


# -- time and trouble -------------------------------------------------------------------------------------------------


def test_a_slow_nova_is_given_up_in_time(sim: Sim) -> None:
    """A call that takes longer than the limit ends as timed out, in a sentence, and is not repeated."""
    api = sim.api(timeout_s=0.3)
    assert api.service("cmp-1").error is None
    sim.server.faults.add(path="/v2.1/os-services*", slow_s=30.0)
    answer = api.service("cmp-1")
    sim.server.faults.clear()
    assert answer.status is None and "did not answer in 0.3 s" in str(answer.error)
    assert sim.calls["compute", "timed_out"] == 1


def test_a_big_page_that_takes_too_long_is_asked_for_in_smaller_ones(sim: Sim) -> None:
    """A list that cannot be had in one big page in time is asked for in smaller pages before it is given up."""
    ids = {sim.cloud.add_server("cmp-1").id for _ in range(3)}
    api = sim.api(timeout_s=0.5)
    assert next(api.services()).error is None
    sim.server.faults.add(path="*limit=1000*", slow_s=30.0)
    answers = list(api.servers("cmp-1"))
    sim.server.faults.clear()
    assert "limit=500" in answers[0].request
    (whole,) = lists(answers, ServersListed)
    assert whole.server_ids == ids


def test_a_dripping_answer_is_given_up_in_time() -> None:
    """An answer whose body comes a byte at a time is bounded as a whole, not only from byte to byte."""
    stop = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    version = {
        "version": {
            "id": "v2.1",
            "status": "CURRENT",
            "version": "2.104",
            "min_version": "2.1",
            "links": [{"rel": "self", "href": f"http://127.0.0.1:{port}/v2.1/"}],
        }
    }

    def serve(peer: socket.socket) -> None:
        with peer:
            asked = peer.recv(65536).decode()
            if "/os-services" not in asked:
                text = json.dumps(version)
                head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
                peer.sendall((head + text).encode())
                return
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{")
            while not stop.wait(0.05):
                try:
                    peer.sendall(b" ")
                except OSError:
                    return

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        begun = time.monotonic()
        (answer,) = NovaApi(Bare(f"http://127.0.0.1:{port}", timeout_s=0.5), SystemClock()).services()
        assert "did not answer in 0.5 s" in str(answer.error)
        assert time.monotonic() - begun < 5.0
    finally:
        stop.set()
        listener.close()


def test_a_stumble_is_asked_once_more_without_waiting_as_told(sim: Sim) -> None:
    """One 503 is followed by one more try; Retry-After cannot put us to sleep, and every try is paced and counted."""
    paced: list[str | None] = []

    def pace(purpose: str | None) -> bool:
        paced.append(purpose)
        return True

    sim.server.faults.add(path="/v2.1/os-services*", status=503, times=1)
    (answer,) = sim.api(pace=pace).services()
    assert answer.error is None and answer.status == 200
    assert paced == ["reconcile", "reconcile"]
    assert sim.calls == {("compute", "failed"): 1, ("compute", "ok"): 1}


def test_nothing_is_asked_once_the_daemon_is_stopping(sim: Sim) -> None:
    """Where the budget says no, no call is made and the answer is none."""
    (answer,) = sim.api(pace=lambda purpose: False).services()
    assert "stopping" in str(answer.error) and sim.asked == [] and not sim.calls


def test_an_expired_token_is_renewed(sim: Sim) -> None:
    """A token that Nova no longer takes is exchanged for a new one within the same question."""
    api = sim.api()
    assert next(api.services()).error is None
    sim.server.api.expire_tokens()
    assert next(api.services()).error is None


def test_a_cloud_that_is_too_old_is_told_in_a_sentence(sim: Sim) -> None:
    """Where Nova lacks the microversion that a proof needs, the answer says which it has and which is needed."""
    sim.server.faults.compute_max = (2, 60)
    answers = list(sim.api().verify("cmp-1", [sim.cloud.hosts["cmp-1"].provider.uuid], 1))
    assert "microversion 2.60 at most" in str(answers[-1].error) and "2.75" in str(answers[-1].error)
    assert not any("/os-hypervisors/" in asked for asked in sim.asked)


def test_a_downgraded_cloud_is_discovered_anew(sim: Sim) -> None:
    """A 406 makes the next question agree on the version again instead of failing for ever."""
    api = sim.api()
    assert next(api.services()).microversion == "2.69"
    sim.server.faults.compute_max = (2, 60)
    assert next(api.services()).status == 406
    again = next(api.services())
    assert (again.error, again.microversion) == (None, "2.60")


def test_a_wrong_password_is_told_without_it_and_not_tried_again_at_once(httpserver: HTTPServer) -> None:
    """Keystone's refusal is a sentence without the password, and is not provoked again for a while."""
    httpserver.expect_request("/v3", method="GET").respond_with_json(
        {"version": {"id": "v3.14", "status": "stable", "links": [{"rel": "self", "href": httpserver.url_for("/v3")}]}}
    )
    httpserver.expect_request("/v3/auth/tokens", method="POST").respond_with_json(
        {"error": {"code": 401, "title": "Unauthorized", "message": "The request you have made needs a password."}},
        status=401,
    )
    auth = {
        "auth_type": "password",
        "auth_url": httpserver.url_for("/v3"),
        "username": "maintd",
        "password": "s3cr3t-pass",
        "project_name": "service",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    clock = ManualClock(NOW)
    calls: Counter[tuple[str, str]] = Counter()
    api = NovaApi(CloudConfig(options=auth, timeout_s=2.0), clock, lambda s, o: calls.update([(s, o)]))
    for _ in range(5):
        (answer,) = api.services()
        assert "does not accept the credentials" in str(answer.error)
        assert "s3cr3t-pass" not in str(answer)
    tried = sum(1 for request, _ in httpserver.log if request.method == "POST")
    clock.advance(31.0)
    assert next(api.services()).error is not None
    assert tried == 1 and sum(1 for request, _ in httpserver.log if request.method == "POST") == 2
    assert calls["compute", "refused"] == 6


def test_an_unreachable_keystone_is_told() -> None:
    """Nothing listening at the address is a sentence that names it, at once."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    auth = {
        "auth_type": "password",
        "auth_url": f"http://127.0.0.1:{port}/v3",
        "username": "u",
        "password": "p",
        "project_name": "p",
        "user_domain_name": "Default",
        "project_domain_name": "Default",
    }
    (answer,) = NovaApi(CloudConfig(options=auth, timeout_s=2.0), SystemClock(), pause=lambda s: None).services()
    assert answer.status is None and f"127.0.0.1:{port}" in str(answer.error)


def test_an_unknown_cloud_is_the_operators_mistake(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is not in clouds.yaml is refused at once, in a sentence with that name."""
    clouds = tmp_path / "clouds.yaml"
    clouds.write_text("clouds: {}\n")
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    with pytest.raises(OperatorError, match="no-such-cloud"):
        NovaApi(CloudConfig(cloud="no-such-cloud"), SystemClock())


@pytest.mark.parametrize("half", ["clouds: {}\n", "clouds:\n  prod: {auth: {", "clouds:\n", ""])
def test_a_half_written_file_is_an_answer_that_is_none(
    sim: Sim, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """A clouds.yaml that is being rewritten makes questions fail with a sentence, until it is whole."""
    clouds = tmp_path / "clouds.yaml"
    good = json.dumps({"clouds": {"prod": {"region_name": "RegionOne", **sim.server.cloud_config()}}})
    clouds.write_text(good)
    monkeypatch.setenv("OS_CLIENT_CONFIG_FILE", str(clouds))
    api = NovaApi(CloudConfig(cloud="prod"), sim.clock, pause=lambda seconds: None)
    clouds.write_text(half)
    api._forget("compute")
    (answer,) = api.services()
    assert answer.status is None and "cloud 'prod'" in str(answer.error)
    clouds.write_text(good)
    sim.clock.advance(31.0)
    (answer,) = api.services()
    assert answer.error is None


def test_the_api_may_be_used_from_several_threads(sim: Sim) -> None:
    """Questions from many threads at once share one token and are all answered."""
    api = sim.api()
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.extend(api.services())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert [a.error for a in answers] == [None] * 8
    assert sum(1 for seen in sim.server.api.seen if seen.target.endswith("/auth/tokens")) == 1


# -- the self-check ---------------------------------------------------------------------------------------------------


def test_the_self_check_finds_nothing_in_a_sound_cloud(sim: Sim) -> None:
    """With a server, a migration and all rights there is nothing to say."""
    server = sim.cloud.add_server("cmp-1")
    sim.cloud.live_migrate(server.id)
    sim.cloud.settle()
    rights = sim.api().self_check()
    assert rights.ok and rights.findings == ()


def test_the_self_check_says_what_it_could_not_try(sim: Sim) -> None:
    """A cloud without servers and migrations is fine so far, and what is not known is said."""
    rights = sim.api().self_check()
    assert rights.ok and len(rights.findings) == 2


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("/v2.1/os-services*", "os_compute_api:os-services:list"),
        ("/v2.1/os-hypervisors/detail*", "os_compute_api:os-hypervisors:list-detail"),
        ("/v2.1/os-hypervisors/*with_servers*", "os_compute_api:os-hypervisors:show"),
        ("/v2.1/servers/detail*", "os_compute_api:servers:detail:get_all_tenants"),
        ("/v2.1/servers/*/migrations", "os_compute_api:servers:migrations:index"),
        ("/v2.1/os-migrations*", "os_compute_api:os-migrations:index"),
        ("/resource_providers?*", "placement:resource_providers:list"),
        ("/resource_providers/*/allocations", "placement:resource_providers:allocations:list"),
        ("/resource_providers/*/traits", "placement:resource_providers:traits:list"),
    ],
)
def test_the_self_check_names_the_rule_to_grant(sim: Sim, path: str, rule: str) -> None:
    """Each thing that is forbidden is a finding with the policy rule that allows it."""
    sim.cloud.add_server("cmp-1")
    sim.server.faults.add(path=path, status=403)
    rights = sim.api().self_check()
    assert not rights.ok and any(rule in finding for finding in rights.findings)


def test_the_self_check_finds_what_nova_hides_in_silence(sim: Sim) -> None:
    """A dropped host filter and hidden hosts are found although Nova refuses nothing."""
    server = sim.cloud.add_server("cmp-1")
    sim.cloud.live_migrate(server.id)
    sim.cloud.settle()
    sim.server.faults.drop_host_filter = True
    rights = sim.api().self_check()
    assert not rights.ok and any("servers:allow_all_filters" in finding for finding in rights.findings)
    sim.server.faults.clear()
    sim.server.faults.hide_host_fields = True
    rights = sim.api().self_check()
    assert not rights.ok
    assert any("os-extended-server-attributes" in finding for finding in rights.findings)
    assert any("os-migrations:index:host" in finding for finding in rights.findings)


def test_a_move_is_seen_in_both_reads_of_migrations(sim: Sim) -> None:
    """The rows of a host are those that leave it and those that come to it, whatever their status."""
    server = sim.cloud.add_server("cmp-1")
    sim.cloud.live_migrate(server.id, "cmp-2")
    sim.cloud.settle()
    for host in ("cmp-1", "cmp-2"):
        (answer,) = sim.api().migrations_of_host(host)
        (row,) = [o for o in normalise_answer(answer) if isinstance(o, MigrationSeen)]
        assert (row.status, row.source, row.destination) == ("completed", "cmp-1", "cmp-2")
