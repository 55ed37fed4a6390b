"""Tokens of a real Keystone: two projects, a reader, an admin and a service, as keystonemiddleware finds them.

tests/web/test_policy.py has every route and every caller, with tokens that are set by hand. Here it is shown that real
ones carry what the policy reads. `make acceptance` runs it: to install Keystone and to set it up takes over a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from maintd.web.server import HttpServer, api
from tests.support.keystone import PASSWORD, Keystone, keystone
from tests.web.serving import Served, serving
from tests.web.tokens import get, post

NEW = {"name": "ha", "url": "https://ha.example/x"}


@dataclass(frozen=True, slots=True)
class Cloud:
    """A served API that asks a real Keystone, and what it has: project ids by name, tokens by user."""

    served: Served
    projects: dict[str, str]
    tokens: dict[str, str]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """Roles are given as an operator gives them: member alone, and Keystone implies reader."""
    with keystone(tmp_path_factory.mktemp("keystone")) as running, serving(tmp_path_factory.mktemp("maintd")) as served:
        projects = populate(running)
        who = {"red-member": "red", "red-reader": "red", "blue-member": "blue", "admin": "admin", "maintd": "service"}
        tokens = {user: running.token(user, project) for user, project in who.items()}
        tokens["system"] = running.token("auditor", None)
        assert served.server is not None
        served.server.stop()
        guarded = api(served.web(), keystone=running.middleware("maintd", "service"))
        served.server = HttpServer("api", guarded, "127.0.0.1", 0)
        served.server.start()
        yield Cloud(served, projects, tokens)


def populate(running: Keystone) -> dict[str, str]:
    """Projects, users and their roles; the projects' ids."""
    identity = running.connect().identity
    roles = {role.name: role for role in identity.roles()}
    projects = {name: identity.create_project(name=name, domain_id="default") for name in ("red", "blue", "service")}
    for user, project, role in (
        ("red-member", "red", "member"),
        ("red-reader", "red", "reader"),
        ("blue-member", "blue", "member"),
        ("maintd", "service", "service"),
        ("auditor", None, "reader"),
    ):
        made = identity.create_user(name=user, domain_id="default", password=PASSWORD)
        if project is None:
            identity.assign_system_role_to_user(user=made, role=roles[role], system="all")
        else:
            identity.assign_project_role_to_user(project=projects[project], user=made, role=roles[role])
    return {name: project.id for name, project in projects.items()}


def test_a_subscription_is_its_projects(cloud: Cloud) -> None:
    """Red's member makes one; red's reader sees it and changes nothing; to blue it is not there; the admin sees it."""
    served, tokens = cloud.served, cloud.tokens
    status, made = post(served, tokens["red-member"], "/v1/subscriptions", NEW)
    path = f"/v1/subscriptions/{made['id']}"

    assert (201, cloud.projects["red"]) == (status, made["project_id"])
    for user, wanted in (
        ("red-member", 200),
        ("red-reader", 200),
        ("blue-member", 404),
        ("admin", 200),
        ("maintd", 200),
    ):
        assert wanted == get(served, tokens[user], path)[0], user
    for user, wanted in (("red-reader", 403), ("blue-member", 404), ("maintd", 403), ("system", 403), ("admin", 403)):
        assert wanted == post(served, tokens[user], f"{path}/rotate")[0], user
    assert [made["id"]] == [
        one["id"] for one in get(served, tokens["red-reader"], "/v1/subscriptions")[1]["subscriptions"]
    ]
    assert [] == get(served, tokens["blue-member"], "/v1/subscriptions")[1]["subscriptions"]
    assert 404 == served.ask("DELETE", path, None, {"X-Auth-Token": tokens["blue-member"]})[0]
    assert 200 == served.ask("DELETE", path, None, {"X-Auth-Token": tokens["red-member"]})[0]


def test_an_event_is_its_projects(cloud: Cloud) -> None:
    """Each project reads its own log, and the operators theirs."""
    served, tokens = cloud.served, cloud.tokens
    told = {name: served.tell(cloud.projects[name], f"srv-{name}").id for name in ("red", "blue")}

    for user, name in (("red-member", "red"), ("red-reader", "red"), ("blue-member", "blue")):
        assert [told[name]] == [event["id"] for event in get(served, tokens[user], "/v1/events")[1]["events"]]
    assert 404 == get(served, tokens["blue-member"], f"/v1/events/{told['red']}")[0]
    assert [] == get(served, tokens["admin"], "/v1/events")[1]["events"]


def test_hosts_are_for_operators(cloud: Cloud) -> None:
    """An admin, a service and a reader of the whole system see the fleet; members and strangers do not."""
    for user, wanted in (("admin", 200), ("maintd", 200), ("system", 200), ("red-member", 403), ("red-reader", 403)):
        assert wanted == get(cloud.served, cloud.tokens[user], "/v1/hosts")[0], user
    for token in (None, "gAAAAA-forged", cloud.tokens["admin"][:-1]):
        assert 401 == get(cloud.served, token, "/v1/hosts")[0]


def test_the_command_line_goes_by_the_token(cloud: Cloud) -> None:
    """`maintd subscriptions` with OS_TOKEN does what the token's project may."""

    def run(user: str, *argv: str) -> subprocess.CompletedProcess[str]:
        environ = {"MAINTD_API": cloud.served.url, "OS_TOKEN": cloud.tokens[user], "PATH": "/usr/bin:/bin"}
        command = [sys.executable, "-m", "maintd", "subscriptions", *argv]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    made = run("blue-member", "create", "--name", "ha", "--url", "https://ha.example/", "--json")
    assert 0 == made.returncode, made.stderr
    number = json.loads(made.stdout)["id"]
    assert 2 == run("red-member", "show", number).returncode
    assert 1 == run("red-reader", "create", "--name", "ha", "--url", "https://ha.example/").returncode
    assert number in run("admin", "--all").stdout
    assert 0 == run("blue-member", "delete", number).returncode
