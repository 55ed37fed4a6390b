"""/v1/subscriptions: made, changed, rotated, tried and ended, by their owner and by nobody else."""

from __future__ import annotations

import base64
import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from maintd.errors import OperatorError
from maintd.store import Attempt, Subscription
from maintd.store.subscriptions import ACTIVE, DISABLED, PAUSED, UNVERIFIED
from tests.web.serving import AT, Served
from tests.web.tokens import MINE, OTHERS, get, guarding, post

URL = "https://ha.example/hooks/s3cr3t"
NEW = {"name": "ha", "url": URL}


def create(served: Served, **given: Any) -> dict[str, Any]:
    """One that the API made."""
    status, answer = served.post("/v1/subscriptions", {**NEW, **given})
    assert 201 == status, answer
    made: dict[str, Any] = answer
    return made


def put(served: Served, state: str, project_id: str | None = None, *, id: str | None = None, **given: Any) -> str:
    """One that stands in some way; its id."""
    one = Subscription(
        id or f"s{served.store.subscriptions.count(None)}",
        project_id,
        "ha",
        URL,
        ("*",),
        state=state,
        secrets=("whsec_1",),
        **given,
    )
    assert served.store.subscriptions.add(one) is not None
    return one.id


def held(served: Served, subscription_id: str) -> Subscription:
    found = served.store.subscriptions.get(subscription_id)
    assert found is not None
    return found


def test_one_is_made_unverified_and_shows_its_secret_once(served: Served) -> None:
    """A new one waits for its verification, the dispatcher is told, and no later answer has the secret."""
    made = create(served)

    assert ("unverified", "operator", ["*"], [], None, URL) == tuple(
        made[name] for name in ("state", "scope", "event_types", "servers", "metadata_key", "url")
    )
    assert "whsec_" == made["secret"][:6] and 32 == len(base64.b64decode(made["secret"][6:], validate=True))
    one = held(served, made["id"])
    assert ((made["secret"],), AT, UNVERIFIED) == (one.secrets, one.verify_due_at, one.state)
    assert 1 == served.woken
    for path in (f"/v1/subscriptions/{made['id']}", "/v1/subscriptions"):
        assert made["secret"] not in json.dumps(served.get(path))
    assert {name: value for name, value in made.items() if name != "secret"} == served.get(
        f"/v1/subscriptions/{made['id']}"
    )[1]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"name": None}, "name must be a text"),
        ({"name": " "}, "name must be a text"),
        ({"name": "a\nb"}, "name must be a text"),
        ({"name": "\ud800"}, "name must be a text"),
        ({"url": 7}, "url must be a text"),
        ({"url": "https://inside.example/"}, "url: the address is not allowed."),
        ({"event_types": "maintd.host.*"}, "event_types must be a list"),
        ({"event_types": ["host.emptied"]}, "the nearest is maintd.host.emptied.v1."),
        ({"event_types": ["maintd.hosts.*"]}, "the nearest is maintd.host.*."),
        ({"event_types": ["maintd.server.*"]}, "is for projects only"),
        ({"event_types": ["*"] * 21}, "event_types must be a list of at most 20"),
        ({"servers": ["srv 1"]}, "servers must be a list"),
        ({"metadata_key": "ha"}, "servers and metadata_key are for projects"),
        ({"servers": ["a"]}, "servers and metadata_key are for projects"),
        ({"secret": "whsec_mine"}, "no member 'secret'"),
        ({"scope": "everybody"}, "known: operator, project."),
        ({"scope": "project"}, "give project_id."),
        ({"scope": "operator", "project_id": MINE}, "has no project_id."),
    ],
)
def test_a_mistake_is_a_sentence(served: Served, given: dict[str, Any], says: str) -> None:
    """Each wrong member is 400 with what is wrong and, for an event type, what was probably meant; nothing is kept."""
    served.bad_urls["https://inside.example/"] = "the address is not allowed"

    status, answer = served.post("/v1/subscriptions", {**NEW, **given})

    assert 400 == status
    assert says in answer["description"]
    assert 0 == served.store.subscriptions.count(None)


@pytest.mark.parametrize("missing", ["name", "url"])
def test_what_must_be_given_is_named(served: Served, missing: str) -> None:
    """Without a name or a URL there is no subscription."""
    status, answer = served.post("/v1/subscriptions", {name: value for name, value in NEW.items() if name != missing})

    assert (400, f"A subscription needs a {missing}.") == (status, answer["description"])


def test_without_a_key_nobody_can_subscribe(served: Served) -> None:
    """409 with what to do; what there is can be listed and deleted all the same."""
    made = create(served)

    def no_vault() -> Any:
        raise OperatorError("There is no key: make one with `maintd subscriptions key`.")

    served.store.subscriptions._vault = no_vault

    status, answer = served.post("/v1/subscriptions", NEW)
    assert 409 == status and "maintd subscriptions key" in answer["description"]
    assert [made["id"]] == [one["id"] for one in served.get("/v1/subscriptions")[1]["subscriptions"]]
    assert 200 == served.ask("DELETE", f"/v1/subscriptions/{made['id']}")[0]


def test_a_project_gets_what_is_for_projects(served: Served) -> None:
    """A project's is told of its servers; it may choose servers and a metadata key, and nothing that is operators'."""
    with guarding(served):
        status, made = post(served, "member", "/v1/subscriptions", {**NEW, "servers": ["a"], "metadata_key": "ha"})
        refused, answer = post(served, "member", "/v1/subscriptions", {**NEW, "event_types": ["maintd.host.*"]})
        near = post(served, "member", "/v1/subscriptions", {**NEW, "event_types": ["maintd.server.move"]})[1]

    assert (201, MINE, "project", ["maintd.server.*"], ["a"], "ha") == (
        status, *(made[name] for name in ("project_id", "scope", "event_types", "servers", "metadata_key"))
    )  # fmt: skip
    assert "u-member" == held(served, made["id"]).created_by
    assert 400 == refused and "not for projects" in answer["description"]
    assert "the nearest is maintd.server.move" in near["description"]


@pytest.mark.parametrize("given", [{"scope": "operator"}, {"project_id": OTHERS}])
def test_a_project_subscribes_for_itself_only(served: Served, given: dict[str, str]) -> None:
    """Neither an operator's nor another project's can be made with a project's token."""
    with guarding(served):
        assert 403 == post(served, "member", "/v1/subscriptions", {**NEW, **given})[0]


def test_an_operator_may_subscribe_for_a_project(served: Served) -> None:
    """With scope project, for the project that is named, or else the token's."""
    with guarding(served):
        named = post(served, "admin", "/v1/subscriptions", {**NEW, "scope": "project", "project_id": MINE})[1]
        own = post(served, "admin", "/v1/subscriptions", {**NEW, "scope": "project"})[1]

        assert [named["id"]] == [one["id"] for one in get(served, "member", "/v1/subscriptions")[1]["subscriptions"]]
    assert MINE == named["project_id"] != own["project_id"]


def test_each_sees_its_own(served: Served) -> None:
    """A list has a project's own; an operator's has the operators', one project's, or everybody's, page by page."""
    operators = create(served)["id"]
    with guarding(served):
        mine = post(served, "member", "/v1/subscriptions", NEW)[1]["id"]
        others = post(served, "other", "/v1/subscriptions", NEW)[1]["id"]

        def ids(token: str, query: str = "") -> set[str]:
            return {one["id"] for one in get(served, token, f"/v1/subscriptions{query}")[1]["subscriptions"]}

        assert {mine} == ids("member") == ids("reader")
        assert {others} == ids("other")
        assert {operators} == ids("admin")
        assert {mine} == ids("admin", f"?project_id={MINE}")
        assert {operators, mine, others} == ids("admin", "?all=true")
        first = get(served, "admin", "/v1/subscriptions?all=true&limit=2")[1]
        rest = get(served, "admin", f"/v1/subscriptions?all=true&limit=2&after={first['next']}")[1]
        assert (2, 1, None) == (len(first["subscriptions"]), len(rest["subscriptions"]), rest["next"])
        for query in ("?all=true", f"?project_id={OTHERS}"):
            assert 400 == get(served, "member", f"/v1/subscriptions{query}")[0]


def test_an_operator_can_stop_a_projects_and_not_take_it_over(served: Served) -> None:
    """Pausing and deleting is permitted; its URL's path, its secret and what it says are the project's alone."""
    with guarding(served):
        path = f"/v1/subscriptions/{post(served, 'member', '/v1/subscriptions', NEW)[1]['id']}"

        status, seen = get(served, "admin", path)
        assert (200, "https://ha.example/...") == (status, seen["url"])
        for body in ({"url": "https://elsewhere.example/"}, {"paused": True, "name": "x"}):
            assert 403 == post(served, "admin", path, body, "PATCH")[0]
        assert 403 == post(served, "admin", f"{path}/rotate")[0]
        assert "paused" == post(served, "admin", path, {"paused": True}, "PATCH")[1]["state"]
        assert 200 == served.ask("DELETE", path, None, {"X-Auth-Token": "admin"})[0]
        assert 404 == get(served, "member", path)[0]


def test_quotas_bound_each_owner(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many for a project and so many for the operators; the sentence names the option, and one that goes makes
    room."""
    web = served.web
    monkeypatch.setattr(served, "web", lambda: _bounded(web()))
    with guarding(served):
        made = post(served, "member", "/v1/subscriptions", NEW)[1]
        status, answer = post(served, "member", "/v1/subscriptions", NEW)
        assert 403 == status and "[subscriptions] max_per_project" in answer["description"]
        assert 201 == post(served, "other", "/v1/subscriptions", NEW)[0]
        assert [201, 201, 403] == [post(served, "admin", "/v1/subscriptions", NEW)[0] for _ in range(3)]
        served.ask("DELETE", f"/v1/subscriptions/{made['id']}", None, {"X-Auth-Token": "member"})
        assert 201 == post(served, "member", "/v1/subscriptions", NEW)[0]


def _bounded(web: Any) -> Any:
    from dataclasses import replace

    return replace(web, max_per_project=1, max_operator=2)


def test_a_change_changes_what_is_given(served: Served) -> None:
    """Names and filters change alone and leave it as it stands; null chooses nothing."""
    number = put(served, ACTIVE, verified_at=AT, servers=("a",))
    served.clock.advance(60)

    answer = served.post(
        f"/v1/subscriptions/{number}", {"name": "pager", "event_types": ["maintd.host.*"], "servers": None}, "PATCH"
    )[1]

    assert ("pager", ["maintd.host.*"], [], "active", URL) == tuple(
        answer[name] for name in ("name", "event_types", "servers", "state", "url")
    )
    assert (AT + 60, ("whsec_1",)) == (held(served, number).updated_at, held(served, number).secrets)
    for body in ({}, {"paused": "yes"}, {"state": "active"}, {"url": None}):
        assert 400 == served.post(f"/v1/subscriptions/{number}", body, "PATCH")[0]


@pytest.mark.parametrize(("state", "then"), [(ACTIVE, UNVERIFIED), (DISABLED, UNVERIFIED), (PAUSED, PAUSED)])
def test_another_url_has_to_be_verified(served: Served, state: str, then: str) -> None:
    """Whatever was known of the old URL does not hold for a new one; the same one again changes nothing."""
    number = put(served, state, verified_at=AT, failing_since=AT, disabled_at=AT, verify_tries=3)

    assert state == served.post(f"/v1/subscriptions/{number}", {"url": URL}, "PATCH")[1]["state"]
    assert then == served.post(f"/v1/subscriptions/{number}", {"url": URL + "2"}, "PATCH")[1]["state"]

    one = held(served, number)
    assert (None, AT, 0, None, None) == (
        one.verified_at, one.verify_due_at, one.verify_tries, one.failing_since, one.disabled_at
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "verified_at", "paused", "resumed"),
    [(ACTIVE, AT, PAUSED, ACTIVE), (UNVERIFIED, None, PAUSED, UNVERIFIED), (PAUSED, AT, PAUSED, ACTIVE)],
)
def test_it_is_paused_and_resumed(
    served: Served, state: str, verified_at: float | None, paused: str, resumed: str
) -> None:
    """Resuming leads back to where it was: what was not verified is not active for having been paused."""
    path = f"/v1/subscriptions/{put(served, state, verified_at=verified_at)}"

    assert paused == served.post(path, {"paused": True}, "PATCH")[1]["state"]
    assert resumed == served.post(path, {"paused": False}, "PATCH")[1]["state"]
    assert resumed == served.post(path, {"paused": False}, "PATCH")[1]["state"]


def test_what_failed_before_a_pause_is_forgotten_after_it(served: Served) -> None:
    """One that is resumed is not given up at its first failure for having failed before it was paused."""
    number = put(served, PAUSED, verified_at=AT, failing_since=AT)
    served.post(f"/v1/subscriptions/{number}", {"paused": False}, "PATCH")

    assert (ACTIVE, None) == (held(served, number).state, held(served, number).failing_since)


def test_a_disabled_one_is_enabled_and_not_paused(served: Served) -> None:
    """Pausing must not be a way around: it is enabled, which verifies it anew; what is not disabled cannot be."""
    path = f"/v1/subscriptions/{put(served, DISABLED, verified_at=AT, disabled_at=AT, failing_since=AT, reason='410')}"

    assert 409 == served.post(path, {"paused": True}, "PATCH")[0]
    assert "disabled" == served.post(path, {"paused": False}, "PATCH")[1]["state"]
    answer = served.post(f"{path}/enable")[1]
    assert ("unverified", None, None) == (answer["state"], answer["reason"], answer["failing_since"])
    assert 409 == served.post(f"{path}/enable")[0]


def test_rotation_keeps_the_secret_before_for_a_while(served: Served) -> None:
    """The new one is shown once and signs first; the one before signs too for the overlap, an older one no more."""
    made = create(served)
    path = f"/v1/subscriptions/{made['id']}"

    second = served.post(f"{path}/rotate")[1]
    assert "2026-01-02T00:00:00.000000Z" == second["previous_secret_until"]
    assert (second["secret"], made["secret"]) == held(served, made["id"]).secrets
    third = served.post(f"{path}/rotate")[1]
    assert (third["secret"], second["secret"]) == held(served, made["id"]).secrets
    assert len({made["secret"], second["secret"], third["secret"]}) == 3
    assert "whsec_" not in json.dumps(served.get(path))
    served.clock.advance(86_401)
    assert served.get(path)[1]["previous_secret_until"] is None


def test_verifying_says_how_it_stands_then(served: Served) -> None:
    """The handshake is tried at once, again too where it is active or paused; a disabled one is enabled instead."""
    number = put(served, UNVERIFIED)

    answer = served.post(f"/v1/subscriptions/{number}/verify")[1]
    assert ("active", "verified", "thank you") == (
        answer["state"], answer["attempt"]["outcome"], answer["attempt"]["detail"]
    )  # fmt: skip
    assert [("verify", number)] == served.tried
    for state, wanted in ((ACTIVE, 200), (PAUSED, 200), (DISABLED, 409)):
        assert wanted == served.post(f"/v1/subscriptions/{put(served, state, verified_at=AT)}/verify")[0]


def test_a_test_event_is_answered_with_what_came_of_it(served: Served) -> None:
    """The attempt with outcome, status, time taken and the answer's beginning; nothing goes to an unverified URL."""
    number = put(served, ACTIVE, verified_at=AT)

    status, answer = served.post(f"/v1/subscriptions/{number}/test")

    assert (200, "delivered", 204, 0.25, "thank you") == (
        status, answer["outcome"], answer["status"], answer["duration_seconds"], answer["detail"]
    )  # fmt: skip
    assert 409 == served.post(f"/v1/subscriptions/{put(served, UNVERIFIED)}/test")[0]
    assert [("test", number)] == served.tried


@pytest.mark.parametrize("what", ["test", "verify"])
def test_a_project_tries_one_at_a_time(served: Served, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a project's endpoint keeps us waiting it is told to come back, and others, the operators above all, are
    not; once it has its answer it may try again."""
    go_on, under_way = threading.Event(), threading.Semaphore(0)

    def wait(one: str) -> Attempt:
        under_way.release()
        assert go_on.wait(30)
        return Attempt(AT, 9.5, None, "timed_out", "")

    web = served.web
    monkeypatch.setattr(served, "web", lambda: replace(web(), test_now=wait, verify_now=wait))
    projects = {"member": MINE, "other": OTHERS, "third": "3" * 32, "fourth": "4" * 32}
    for token, project_id in projects.items():
        put(served, ACTIVE, project_id, verified_at=AT, id=token)
    put(served, ACTIVE, verified_at=AT, id="admin")

    def attempt(token: str) -> tuple[int, Any]:
        return post(served, token, f"/v1/subscriptions/{token}/{what}")

    with guarding(served) as tokens, ThreadPoolExecutor(4) as pool:
        for token in ("third", "fourth"):
            tokens.add_token_data(token, project_id=projects[token], role_list=("member", "reader"))
        try:
            first = [pool.submit(attempt, "member")]
            assert under_way.acquire(timeout=30)
            status, answer = attempt("member")
            assert (503, True) == (status, answer["description"].startswith("You hold 1 of the 4 places"))
            for token in ("other", "third"):
                first.append(pool.submit(attempt, token))
                assert under_way.acquire(timeout=30)
            assert (503, True) == (attempt("fourth")[0], "All 3 places" in attempt("fourth")[1]["description"])
            first.append(pool.submit(attempt, "admin"))
            assert under_way.acquire(timeout=30)
            assert (503, True) == (attempt("admin")[0], "All 4 places" in attempt("admin")[1]["description"])
            assert "5" == asked_to_come_back(served, f"/v1/subscriptions/member/{what}")
        finally:
            go_on.set()
        assert [200] * 4 == [one.result(30)[0] for one in first]
        assert 200 == attempt("member")[0]


def asked_to_come_back(served: Served, path: str) -> str | None:
    """What `Retry-After` a member is given."""
    assert served.server is not None
    connection = http.client.HTTPConnection(*served.server.address, timeout=5)
    try:
        connection.request("POST", path, b"{}", {"Content-Type": "application/json", "X-Auth-Token": "member"})
        return connection.getresponse().getheader("Retry-After")
    finally:
        connection.close()


def test_what_cannot_be_tried_now_is_said(served: Served) -> None:
    """Where the dispatcher refuses (it is stopping, say), its sentence is the answer."""
    served.refusal = OperatorError("maintd is stopping; try again in a minute.")

    for path in (f"{put(served, ACTIVE, verified_at=AT)}/test", f"{put(served, UNVERIFIED)}/verify"):
        status, answer = served.post(f"/v1/subscriptions/{path}")
        assert (409, "maintd is stopping; try again in a minute.") == (status, answer["description"])


def test_what_is_not_there_is_404(served: Served) -> None:
    """For every method, with a sentence."""
    for method, verb in (("GET", ""), ("DELETE", "")):
        assert 404 == served.ask(method, f"/v1/subscriptions/nonesuch{verb}")[0]
    for verb in ("rotate", "verify", "test", "enable"):
        assert 404 == served.post(f"/v1/subscriptions/nonesuch/{verb}")[0]
    assert 404 == served.post("/v1/subscriptions/nonesuch", {"paused": True}, "PATCH")[0]
