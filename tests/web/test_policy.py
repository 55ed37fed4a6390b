"""Who may do what: every route of the API, and every kind of caller."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from maintd.domain.model import Drain, Kind, Migration, Phase
from maintd.errors import OperatorError
from maintd.store import Attempt, Subscription
from maintd.store.subscriptions import ACTIVE, DISABLED, ENDPOINT_PREFIX, UNVERIFIED
from maintd.web.auth import RULES, Caller, Policies
from maintd.web.server import ROUTES
from tests.web.serving import AT, Served, closed, serving
from tests.web.tokens import MINE, get, guarding, post

CALLERS: Final = ("no token", "other", "member", "reader", "admin", "service", "system", "nowhere")
"""Nobody; another project's member; a member and a reader of the project whose things are asked for; an admin; a
service; a reader of the whole system; a member of no project."""

FLEET: Final = "401 403 403 403 200 200 200 403"
FLEET_WRITE: Final = "401 403 403 403 200 403 403 403"
ALL_OF_ONES_OWN: Final = "401 200 200 200 200 200 200 403"
ONE: Final = "401 404 200 200 200 200 200 403"
ONE_WRITE: Final = "401 404 200 403 200 403 403 403"

TABLE: Final = {
    "GET /v1/status": FLEET,
    "GET /v1/hosts": FLEET,
    "GET /v1/hosts/{host}": FLEET,
    "GET /v1/drains": FLEET,
    "POST /v1/drains": FLEET_WRITE,
    "GET /v1/drains/{drain_id}": FLEET,
    "GET /v1/migrations": FLEET,
    "GET /v1/migrations/{migration_key}": FLEET,
    "GET /v1/stalls": FLEET,
    "GET /v1/residue": FLEET,
    "POST /v1/residue/{host}/clear": FLEET_WRITE,
    "GET /v1/events": ALL_OF_ONES_OWN,
    "GET /v1/events/{event_id}": ONE,
    "GET /v1/servers/maintenance": "401 200 200 200 200 200 400 403",
    "GET /v1/deliveries": ALL_OF_ONES_OWN,
    "POST /v1/deliveries/redeliver": ONE_WRITE,
    "GET /v1/deliveries/{delivery_id}": ONE,
    "GET /v1/subscriptions": ALL_OF_ONES_OWN,
    "POST /v1/subscriptions": "401 201 201 403 201 403 403 403",
    "GET /v1/subscriptions/{subscription_id}": ONE,
    "PATCH /v1/subscriptions/{subscription_id}": ONE_WRITE,
    "DELETE /v1/subscriptions/{subscription_id}": ONE_WRITE,
    "POST /v1/subscriptions/{subscription_id}/rotate": "401 404 200 403 403 403 403 403",
    "POST /v1/subscriptions/{subscription_id}/verify": ONE_WRITE,
    "POST /v1/subscriptions/{subscription_id}/test": ONE_WRITE,
    "POST /v1/subscriptions/{subscription_id}/enable": ONE_WRITE,
}
"""What each caller of CALLERS is answered, where what is asked for by id is the project's (`tokens.MINE`)."""

BODIES: Final = {
    "POST /v1/drains": {"host": "cmp-17"},
    "POST /v1/deliveries/redeliver": {"subscription_id": "mine"},
    "POST /v1/subscriptions": {"name": "ha", "url": "https://ha.example/"},
    "PATCH /v1/subscriptions/{subscription_id}": {"paused": True},
}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One API behind keystonemiddleware for the whole table."""
    with serving(tmp_path_factory.mktemp("policy")) as served, guarding(served):
        served.put(
            closed("cmp-17", drain_id="d1"),
            Drain("d1", "cmp-17", AT - 9),
            Migration("m1", "srv-1", Kind.LIVE, Phase.RUNNING, source="cmp-17"),
        )
        served.tell(MINE)
        served.store.deliveries.fan_out(lambda event: (f"{ENDPOINT_PREFIX}mine",), AT)
        (claimed,) = served.store.deliveries.claim("me", AT, 30.0, 1)
        served.store.deliveries.finish(claimed.id, "me", Attempt(AT, 0.1, 500, "refused", "no"), state="dead")
        yield served


def subscribe(served: Served, state: str) -> None:
    """The project's subscription, as new, whatever became of it."""
    served.store.subscriptions.remove("mine")
    served.store.subscriptions.add(
        Subscription(
            "mine", MINE, "ha", "https://ha.example/hook", ("maintd.server.*",), state=state, secrets=("whsec_old",),
            verified_at=AT if state == ACTIVE else None,
        )
    )  # fmt: skip


def test_every_route_has_a_row() -> None:
    """A route that is added has to say here what each caller is answered; one that is gone is gone here too."""
    assert sorted(TABLE) == sorted(f"{method} {path}" for path, methods in ROUTES.items() for method in methods)


def test_every_route_names_rules_that_there_are() -> None:
    """No route is without a rule, and none names one that oslo.policy would not know."""
    for methods in ROUTES.values():
        for route in methods.values():
            assert route.needs.operator in RULES
            assert route.needs.own is None or route.needs.own in RULES


@pytest.mark.parametrize("row", TABLE)
def test_who_may_do_what(guarded: Served, row: str) -> None:
    """Each caller is answered what the table says; whoever is refused is told nothing that is not theirs."""
    method, path = row.split()
    state = {"enable": DISABLED, "verify": UNVERIFIED}.get(path.rpartition("/")[2], ACTIVE)
    (delivery,) = guarded.store.deliveries.list()
    found = []
    for caller in CALLERS:
        subscribe(guarded, state)
        token = None if caller == "no token" else caller
        operator = caller in ("admin", "service", "system")
        filled = path.format(
            host="cmp-17", drain_id="d1", migration_key="m1", event_id="event-1", subscription_id="mine",
            delivery_id=delivery.id if operator else "event-1.mine",
        )  # fmt: skip
        if method == "GET":
            status, answer = get(guarded, token, filled)
        elif method == "DELETE":
            status, answer = guarded.ask(method, filled, None, {} if token is None else {"X-Auth-Token": token})
        else:
            status, answer = post(guarded, token, filled, BODIES.get(row), method)
        found.append(str(status))
        text = json.dumps(answer)
        assert "whsec_old" not in text
        if caller == "other" or status in (401, 403):
            assert "ha.example/hook" not in text and "srv-1" not in text

    assert dict(zip(CALLERS, TABLE[row].split(), strict=True)) == dict(zip(CALLERS, found, strict=True))


def test_nothing_is_open_to_projects_unless_they_are_told_anything(served: Served) -> None:
    """Without [tenants] enabled a project's token is 403 wherever an admin's is answered."""
    from dataclasses import replace

    served.policy = replace(served.policy, tenants=False)
    with guarding(served):
        for path in ("/v1/events", "/v1/subscriptions", "/v1/deliveries"):
            status, answer = get(served, "member", path)

            assert (403, 200) == (status, get(served, "admin", path)[0])
            assert "[tenants] enabled" in answer["description"]


def test_a_token_of_no_project_has_nothing_of_its_own(served: Served, tmp_path: Path) -> None:
    """Neither by our rules nor by those of a file that forgot the project: it is 403, and says which token to take."""
    assert not Policies({}).allow("maintd:events:read_own", Caller(False, roles=frozenset({"reader"})))
    file = tmp_path / "policy.yaml"
    file.write_text('"maintd:events:read_own": "role:reader"')
    with guarding(served, Policies({"policy_file": str(file)})):
        status, answer = get(served, "nowhere", "/v1/events")

    assert 403 == status and "for no project" in answer["description"]


@pytest.mark.parametrize("header", ["OpenStack-System-Scope", "X-Roles", "X-Project-Id", "X-Is-Admin-Project"])
def test_what_only_the_middleware_may_say_is_not_believed(served: Served, header: str) -> None:
    """Claiming a role, a project or the system's scope changes nothing for whoever has a token without it."""
    claim = {"OpenStack-System-Scope": "all", "X-Roles": "admin", "X-Project-Id": MINE}.get(header, "True")
    served.tell(MINE)
    with guarding(served):
        assert 403 == get(served, "reader", "/v1/hosts", **{header: claim})[0]
        assert 403 == get(served, "nowhere", "/v1/hosts", **{header: claim})[0]
        assert 401 == get(served, None, "/v1/hosts", **{header: claim, "X-Identity-Status": "Confirmed"})[0]
        assert [] == get(served, "other", "/v1/events", **{header: claim})[1]["events"]


def test_the_scope_of_a_service_that_asks_for_somebody_is_not_theirs(served: Served) -> None:
    """A service token for the whole system says nothing of the user's token beside it, and takes nothing from it."""
    with guarding(served):
        assert 403 == get(served, "reader", "/v1/hosts", **{"X-Service-Token": "system"})[0]
        assert 403 == get(served, "nowhere", "/v1/hosts", **{"X-Service-Token": "system"})[0]
        assert 200 == get(served, "system", "/v1/hosts", **{"X-Service-Token": "service"})[0]


def test_a_file_changes_a_rule(served: Served, tmp_path: Path) -> None:
    """A policy file gives a right, takes one away, and may have rules of its own; what it does not name stays."""
    file = tmp_path / "policy.yaml"
    file.write_text('"watchers": "role:reader"\n"maintd:fleet:read": "rule:watchers"\n"maintd:events:read_own": "!"\n')
    with guarding(served, Policies({"policy_file": str(file)})):
        assert 200 == get(served, "reader", "/v1/hosts")[0]
        assert 403 == get(served, "reader", "/v1/events")[0]
        assert 200 == get(served, "reader", "/v1/subscriptions")[0]
        assert 403 == get(served, "service", "/v1/hosts")[0]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "is not YAML"),
        ("- role:admin", "holds no rules"),
        ('"maintd:fleet:reed": "role:admin"', "no rule 'maintd:fleet:reed'; the nearest is maintd:fleet:read."),
        ('"maintd:fleet:read": "role:admin or nonsense"', "'maintd:fleet:read' cannot be understood"),
        ('"maintd:fleet:read": "role:admin or ("', "'maintd:fleet:read' cannot be understood"),
        ('"maintd:fleet:read": "rol:admin"', "'maintd:fleet:read' cannot be understood"),
        ('"maintd:fleet:read": 3', "'maintd:fleet:read' cannot be understood"),
        ('"maintd:fleet:read": "rule:nobody"', "not defined, or to itself: maintd:fleet:read"),
        ('"a": "rule:b"\n"b": "rule:a"', "not defined, or to itself: a, b"),
    ],
)
def test_a_broken_policy_file_is_refused_at_start(
    tmp_path: Path, text: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What oslo.policy would go on without is a sentence that names the file, and nothing is logged."""
    file = tmp_path / "policy.yaml"
    file.write_text(text)

    with pytest.raises(OperatorError) as refused:
        Policies({"policy_file": str(file)})

    assert f"[oslo_policy] policy_file: {file}" in str(refused.value)
    assert says in str(refused.value)
    assert [] == caplog.records


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"policy_file": "/nonesuch.yaml"}, "cannot be read (no such file or directory)."),
        ({"policy_file": "policy.yaml"}, "not a whole path"),
        ({"policy_dirs": "/etc"}, "the nearest is policy_file."),
        ({"remote_timeout": "soon"}, "'soon' is not a value"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused(options: dict[str, str], says: str) -> None:
    """[oslo_policy] is read as strictly as our own groups."""
    with pytest.raises(OperatorError, match=r"^\[oslo_policy\] ") as refused:
        Policies(options)

    assert says in str(refused.value)
