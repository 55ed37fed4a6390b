"""Who may ask: with `[api] auth = keystone`, whoever has a Keystone token with the role admin.

keystonemiddleware checks the token and replaces whatever identity a request claims for itself; here stands only what
follows from its answer. The role is not configurable: the API shows every host and every project's servers, and nothing
in it is meant for a tenant. Without authentication the API is never served beyond the loopback (`server.HttpServer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import falcon

ROLE: Final = "admin"


class AdminOnly:
    """Refuses requests whose token, as keystonemiddleware found, is missing, invalid or not an admin's."""

    def __init__(self, keystone_url: str) -> None:
        self._challenge = f'Keystone uri="{keystone_url}"'

    def process_request(self, req: falcon.Request, resp: falcon.Response) -> None:
        if req.env.get("HTTP_X_IDENTITY_STATUS") != "Confirmed":
            raise falcon.HTTPUnauthorized(
                title="No valid token",
                description="Send a valid Keystone token in X-Auth-Token (maintd's commands take it from OS_TOKEN).",
                challenges=[self._challenge],
            )
        roles = {role.strip().lower() for role in req.env.get("HTTP_X_ROLES", "").split(",")}
        if ROLE not in roles:
            raise falcon.HTTPForbidden(title="Not an admin", description=f"This API needs a token with role {ROLE}.")


def checked(app: Callable[..., Any], keystone: Mapping[str, str]) -> Callable[..., Any]:
    """The application behind keystonemiddleware. `keystone` are the options of [keystone_authtoken], as text."""
    from keystonemiddleware.auth_token import AuthProtocol

    # Left to the middleware, a refusal would be a page; `AdminOnly` says it as the API says everything.
    protocol: Callable[..., Any] = AuthProtocol(app, {**keystone, "delay_auth_decision": "true"})
    return protocol


def project_of(req: falcon.Request) -> str:
    """The project that a token is for. Only the middleware can have said so."""
    return str(req.env.get("HTTP_X_PROJECT_ID") or "")
