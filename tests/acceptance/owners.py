"""Owners of servers: projects and users of a real Keystone, made for a story, and all that they are told.

An `Owner` has a token of her own and nothing else: she asks maintd's API with it, and has a receiver that agrees to be
called and keeps every byte. Her servers are made by the administrator, within her project, on the host of the story.
"""

from __future__ import annotations

import json
import secrets
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import openstack
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tests.acceptance.cloud import Sentence, until


class Endpoint:
    """A receiver of hers: agrees to the CloudEvents handshake, verifies once it has the secret, keeps what came."""

    def __init__(self) -> None:
        self.secret: str | None = None
        self.events: list[dict[str, Any]] = []
        self.refused = 0
        self.bytes = bytearray()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_OPTIONS(self) -> None:
                outer.bytes += str(self.headers).encode()
                self.send_response(200)
                self.send_header("WebHook-Allowed-Origin", self.headers.get("WebHook-Request-Origin", "*"))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                outer.bytes += str(self.headers).encode() + body
                try:
                    Webhook(outer.secret or "whsec_").verify(body, {k.lower(): v for k, v in self.headers.items()})
                except (WebhookVerificationError, ValueError):
                    outer.refused += 1
                    status = 401
                else:
                    outer.events.append(json.loads(body))
                    status = 204
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hook"
        threading.Thread(target=self._server.serve_forever, name="owner", daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Owner:
    """Somebody with a project of her own. `api` is maintd's, once it runs."""

    def __init__(self, admin: Any, name: str) -> None:
        """`admin` is an openstacksdk connection that may make projects. Raises Sentence where it may not."""
        self._admin = admin
        unique = f"maintd-{name}-{secrets.token_hex(3)}"
        password = secrets.token_urlsafe(16)
        try:
            self._project = admin.identity.create_project(name=unique, domain_id="default")
            self._user = admin.identity.create_user(name=unique, password=password, domain_id="default")
            roles = {role.name: role for role in admin.identity.roles()}
            admin.identity.assign_project_role_to_user(self._project, self._user, roles["member"])
            admin.identity.assign_project_role_to_user(self._project, admin.current_user_id, roles["admin"])
        except (openstack.exceptions.SDKException, KeyError) as wrong:
            raise Sentence(f"This story makes projects and users in Keystone, and could not: {wrong}") from wrong
        self.name, self.project_id = name, str(self._project.id)
        self.connection = openstack.connect(
            auth_url=admin.config.auth["auth_url"], username=unique, password=password, project_id=self.project_id,
            user_domain_id="default", region_name=admin.config.region_name, load_yaml_config=False, load_envvars=False,
        )  # fmt: skip
        self.within = admin.connect_as_project(self._project)
        self.endpoint = Endpoint()
        self.api = ""
        self.bytes = bytearray()
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Status and answer of maintd's API, with her token."""
        request = urllib.request.Request(
            self.api + path,
            None if body is None else json.dumps(body).encode(),
            {"X-Auth-Token": str(self.connection.auth_token), "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, headers, text = answer.status, str(answer.headers), answer.read()
        except urllib.error.HTTPError as refused:
            status, headers, text = refused.code, str(refused.headers), refused.read()
        self.bytes += headers.encode() + text
        return status, json.loads(text or b"{}")

    def subscribe(self) -> str:
        """Her endpoint, verified; the subscription's id. Raises Sentence where that does not come to be."""
        status, made = self.ask("POST", "/v1/subscriptions", {"name": "ha", "url": self.endpoint.url})
        if status != 201:
            raise Sentence(f"{self.name} could not subscribe: {status} {made}")
        self.endpoint.secret = made["secret"]
        path = f"/v1/subscriptions/{made['id']}"
        if not until(lambda: self.ask("GET", path)[1].get("state") == "active", 30.0, 0.5):
            raise Sentence(f"{self.name}'s endpoint is not verified: {self.ask('GET', path)[1]}")
        return str(made["id"])

    def read(self) -> list[dict[str, Any]]:
        """Everything that she was told so far, by cursor."""
        after = self.events[-1]["sequence"] if self.events else "0"
        self.events += self.ask("GET", f"/v1/events?after={after}&limit=1000")[1].get("events", [])
        return self.events

    def hears(self, what: str, timeout_s: float, server_id: str | None = None, change: str | None = None) -> Any:
        """The first event of this type ('moved') that she can read; None when none comes in time."""

        def found() -> dict[str, Any] | None:
            for event in self.read():
                fits = event["type"] == f"maintd.server.{what}.v1" and server_id in (None, event["subject"])
                if fits and change in (None, event["data"]["change"]):
                    return event
            return None

        until(lambda: found() is not None, timeout_s, 0.5)
        return found()

    @property
    def received(self) -> bytes:
        """Every byte that came to her, whichever way."""
        return bytes(self.bytes + self.endpoint.bytes)

    def leave(self) -> list[Callable[[], Any]]:
        """What takes her away again, in order."""
        identity = self._admin.identity
        return [
            self.endpoint.close,
            lambda: identity.delete_user(self._user),
            lambda: identity.delete_project(self._project),
        ]
