"""The API behind keystonemiddleware, with tokens whose answers from Keystone are set by hand (its own fixture)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from keystoneauth1.fixture import V3Token
from keystonemiddleware.fixture import AuthTokenFixture

from maintd.web.auth import Policies
from maintd.web.server import HttpServer, api
from tests.web.serving import Served

MINE: Final = "5f0e9d1c0000000000000000000000aa"
OTHERS: Final = "77aa31ee0000000000000000000000bb"
"""Two projects."""

ROLES: Final[Mapping[str, tuple[str | None, tuple[str, ...]]]] = {
    "other": (OTHERS, ("member", "reader")),
    "member": (MINE, ("member", "reader")),
    "reader": (MINE, ("reader",)),
    "admin": ("0ad0000000000000000000000000000c", ("admin", "manager", "member", "reader")),
    "service": ("5e60000000000000000000000000000d", ("service",)),
}
"""What the token of each name is for: its project, and its roles there."""

KEYSTONE: Final = {
    "auth_url": "http://127.0.0.1:9", "www_authenticate_uri": "http://127.0.0.1:9", "auth_type": "password",
    "username": "maintd", "password": "hunter2", "project_name": "service", "user_domain_name": "Default",
    "project_domain_name": "Default",
}  # fmt: skip


@contextmanager
def guarding(served: Served, policies: Policies | None = None) -> Iterator[AuthTokenFixture]:
    """Serve the same behind keystonemiddleware: a token is one of `ROLES`, `system` (a reader of all the system),
    `nowhere` (a reader of no project) or one that is added."""
    with AuthTokenFixture() as tokens:
        for name, (project_id, roles) in ROLES.items():
            tokens.add_token_data(name, user_id=f"u-{name}", project_id=project_id, role_list=roles)
        tokens.add_token_data("nowhere", user_id="u-nowhere", role_list=("reader", "member"))
        system = V3Token(user_id="u-system")
        system.add_role(name="reader")
        system.set_system_scope()
        tokens.add_token(system, "system")
        assert served.server is not None
        served.server.stop()
        served.server = HttpServer("api", api(served.web(), keystone=KEYSTONE, policies=policies), "127.0.0.1", 0)
        served.server.start()
        yield tokens


def get(served: Served, token: str | None, path: str, **headers: str) -> tuple[int, Any]:
    """Status and JSON of a GET with a token."""
    return served.get(path, **_with(token), **headers)


def post(served: Served, token: str | None, path: str, body: Any = None, method: str = "POST") -> tuple[int, Any]:
    """Status and JSON of a POST (or a PATCH) with a token."""
    return served.post(path, body, method, **_with(token))


def _with(token: str | None) -> dict[str, str]:
    return {} if token is None else {"X-Auth-Token": token}
