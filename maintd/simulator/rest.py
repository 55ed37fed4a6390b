"""Nova, Placement and Keystone over real HTTP, as far as maintd and an operator's commands need them.

One port, three roots: `/identity/v3`, `/compute/v2.1`, `/placement`. Here stand the socket, the tokens, the
microversions and the faults; what the services answer is in `compute_api` and `placement_api`. A user that was added
(`Api.add_user`) has a password, a project and roles, and her requests are made in that project's name; everybody else
is the administrator, with any password. What a user may ask of Nova is not checked, only that a token was given out.

`Faults` makes it misbehave: slow, an error status, half an answer, a filter dropped by policy, an older microversion.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl

from cheroot import wsgi

from maintd.clock import SystemClock
from maintd.simulator.calls import REASONS, Answer, Call, Fault, Faults, Version, row_time
from maintd.simulator.compute_api import Compute, status_of
from maintd.simulator.model import Cloud, Refused
from maintd.simulator.notifications import Json, Request
from maintd.simulator.placement_api import Placement

__all__ = ["Api", "Fault", "Faults", "RestServer", "Seen", "User", "status_of"]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was served: what a test counts. `at` is the machine's time at which it came in, `size` the bytes
    of its answer's body."""

    service: str
    method: str
    target: str
    status: int
    at: float
    size: int


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may have tokens. `password` None: any will do."""

    id: str
    name: str
    project_id: str
    project: str
    roles: tuple[str, ...]
    password: str | None = field(default=None, repr=False)


class _Cut(Exception):
    """Raised inside a response so that the server hangs up in the middle of it."""


class Api:
    """The WSGI application. `serve_without_tokens` is for keystoneauth's `none` plugin."""

    def __init__(self, cloud: Cloud, *, serve_without_tokens: bool = False) -> None:
        self.cloud = cloud
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.keep_seen = True
        self.crashes: list[Exception] = []
        self.base = ""
        self.admin_token = "simulator-admin-token"  # noqa: S105 - opens nothing but a simulator on loopback
        self._admin = User(
            cloud.admin_user, "admin", cloud.admin_project, "admin", ("admin", "manager", "member", "reader")
        )
        self._users: dict[str, User] = {}
        self._tokens: dict[str, User] = {self.admin_token: self._admin}
        self._open = serve_without_tokens
        self._wall = SystemClock()
        self._compute = Compute(cloud, self.faults)
        self._placement = Placement(cloud)

    def add_user(self, name: str, password: str, project: str, roles: Iterable[str] = ("member", "reader")) -> User:
        """Somebody of a project that is named `project`, made with its first user."""
        project_id = next((u.project_id for u in self._users.values() if u.project == project), uuid.uuid4().hex)
        user = User(uuid.uuid4().hex, name, project_id, project, tuple(roles), password)
        self._users[name] = user
        return user

    def expire_tokens(self) -> None:
        """Every token given out so far is refused from now on."""
        self._tokens.clear()

    # WSGI

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        at = self._wall.now()
        method = str(environ["REQUEST_METHOD"])
        path = str(environ["PATH_INFO"])
        query_text = str(environ.get("QUERY_STRING", ""))
        base = self.base or f"http://{environ.get('HTTP_HOST', '127.0.0.1')}"
        service, _, rest = path.lstrip("/").partition("/")
        rest = "/" + rest
        target = rest + (f"?{query_text}" if query_text else "")
        release = self.faults.release  # taken before, so that a `clear` in between is not missed
        fault = self.faults.match(service, method, target)
        if fault is not None and fault.slow_s > 0:
            release.wait(fault.slow_s)
        headers: list[tuple[str, str]] = [("x-openstack-request-id", f"req-{uuid.uuid4()}")]
        if self.faults.clock_ahead_s:
            headers.append(("Date", formatdate(self._wall.now() + self.faults.clock_ahead_s, usegmt=True)))
        if fault is not None and fault.status is not None:
            status, answer = fault.status, _fault_body(service, fault.status)
        else:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            raw = environ["wsgi.input"].read(length) if length else b""
            try:
                status, answer = self._serve(service, method, rest, query_text, raw, environ, base, headers)
            except Exception as error:  # a mistake of the simulator's own; tests look at `crashes`
                self.crashes.append(error)
                status, answer = 500, _fault_body(service, 500)
        text = b"" if answer is None else json.dumps(answer).encode()
        headers.append(("Content-Type", "application/json"))
        headers.append(("Content-Length", str(len(text))))
        if self.keep_seen:
            self.seen.append(Seen(service, method, target, status, at, len(text)))
        start_response(f"{status} {REASONS.get(status, 'Status')}", headers)
        if fault is not None and fault.cut:
            return _half(text)
        return [text]

    def _serve(
        self,
        service: str,
        method: str,
        path: str,
        query_text: str,
        raw: bytes,
        environ: dict[str, Any],
        base: str,
        headers: list[tuple[str, str]],
    ) -> Answer:
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            return 400, {"badRequest": {"code": 400, "message": "Malformed request body"}}
        if service == "identity":
            return self._identity(method, path, body, environ, base, headers)
        if service == "compute":
            return self._compute_call(method, path, query_text, body, environ, base, headers)
        if service == "placement":
            return self._placement_call(method, path, query_text, body, environ, base, headers)
        if service == "":
            return 300, {"versions": []}
        return 404, {"error": {"code": 404, "message": "not found", "title": "Not Found"}}

    def _unauthorised(self, environ: dict[str, Any], base: str, headers: list[tuple[str, str]]) -> Answer | None:
        if self._open or environ.get("HTTP_X_AUTH_TOKEN") in self._tokens:
            return None
        headers.append(("WWW-Authenticate", f'Keystone uri="{base}/identity"'))
        return 401, {
            "error": {
                "code": 401,
                "title": "Unauthorized",
                "message": "The request you have made requires authentication.",
            }
        }

    # Keystone

    def _identity(
        self, method: str, path: str, body: Any, environ: dict[str, Any], base: str, headers: list[tuple[str, str]]
    ) -> Answer:
        version = {
            "id": "v3.14",
            "status": "stable",
            "updated": "2020-04-07T00:00:00Z",
            "links": [{"rel": "self", "href": f"{base}/identity/v3/"}],
            "media-types": [{"base": "application/json", "type": "application/vnd.openstack.identity-v3+json"}],
        }
        if path in ("/", ""):
            return 300, {"versions": {"values": [version]}}
        if path in ("/v3", "/v3/"):
            return 200, {"version": version}
        if path == "/v3/auth/tokens" and method == "POST":
            user = self._identified(body)
            if user is None:
                text = "The request you have made requires authentication."
                return 401, {"error": {"code": 401, "title": "Unauthorized", "message": text}}
            token = uuid.uuid4().hex
            self._tokens[token] = user
            headers.append(("X-Subject-Token", token))
            return 201, {"token": self._token(base, self._wall.now(), user)}
        if path == "/v3/auth/tokens" and method == "GET":
            known = self._tokens.get(environ.get("HTTP_X_SUBJECT_TOKEN", ""))
            if known is None:
                return 404, {"error": {"code": 404, "message": "Failed to validate token", "title": "Not Found"}}
            return 200, {"token": self._token(base, self._wall.now(), known)}
        return 404, {"error": {"code": 404, "message": f"{path} not found", "title": "Not Found"}}

    def _identified(self, body: Any) -> User | None:
        """Who asks for a token; None for a user that was added and another password than hers."""
        try:
            given = body["auth"]["identity"]["password"]["user"]
        except (KeyError, TypeError):
            return self._admin
        user = self._users.get(given.get("name"), self._admin)
        return user if user.password in (None, given.get("password")) else None

    def _token(self, base: str, at: float, user: User) -> Json:
        urls = {"compute": f"{base}/compute/v2.1", "placement": f"{base}/placement", "identity": f"{base}/identity/v3"}
        names = {"compute": "nova", "placement": "placement", "identity": "keystone"}
        return {
            "methods": ["password"],
            "is_domain": False,
            "audit_ids": ["simulator"],
            "issued_at": row_time(at) and f"{row_time(at)}Z",
            "expires_at": f"{row_time(at + 86400)}Z",
            "user": {
                "id": user.id,
                "name": user.name,
                "domain": {"id": "default", "name": "Default"},
                "password_expires_at": None,
            },
            "project": {
                "id": user.project_id,
                "name": user.project,
                "domain": {"id": "default", "name": "Default"},
            },
            "roles": [{"id": uuid.uuid5(uuid.NAMESPACE_URL, name).hex, "name": name} for name in user.roles],
            "catalog": [
                {
                    "id": uuid.uuid5(uuid.NAMESPACE_URL, kind).hex,
                    "type": kind,
                    "name": names[kind],
                    "endpoints": [
                        {
                            "id": uuid.uuid5(uuid.NAMESPACE_URL, kind + side).hex,
                            "interface": side,
                            "region": "RegionOne",
                            "region_id": "RegionOne",
                            "url": url,
                        }
                        for side in ("public", "internal", "admin")
                    ],
                }
                for kind, url in urls.items()
            ],
        }

    def _request(self, request_id: str, environ: dict[str, Any]) -> Request:
        """A request in the name of whoever the token was given to."""
        user = self._tokens.get(environ.get("HTTP_X_AUTH_TOKEN", ""), self._admin)
        return Request(request_id, user.id, user.project_id)

    # Nova: the way in

    def _compute_call(
        self,
        method: str,
        path: str,
        query_text: str,
        body: Any,
        environ: dict[str, Any],
        base: str,
        headers: list[tuple[str, str]],
    ) -> Answer:
        top = ".".join(map(str, self.faults.compute_max))
        here = {
            "id": "v2.1",
            "status": "CURRENT",
            "version": top,
            "min_version": "2.1",
            "updated": "2013-07-23T11:33:21Z",
            "links": [{"rel": "self", "href": f"{base}/compute/v2.1/"}],
        }
        if path == "/":
            return 200, {"versions": [here]}
        if path in ("/v2.1", "/v2.1/"):
            return 200, {
                "version": {
                    **here,
                    "media-types": [
                        {"base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"}
                    ],
                }
            }
        if not path.startswith("/v2.1/"):
            return 404, {"itemNotFound": {"code": 404, "message": "The resource could not be found."}}
        refused = self._unauthorised(environ, base, headers)
        if refused is not None:
            return refused
        asked = _asked_version(environ, "compute", self.faults.compute_max, (2, 1))
        if asked is None:
            text = environ.get("HTTP_OPENSTACK_API_VERSION") or environ.get("HTTP_X_OPENSTACK_NOVA_API_VERSION")
            number = str(text).split()[-1]
            return 406, {
                "computeFault": {
                    "code": 406,
                    "message": f"Version {number} is not supported by the API. Minimum is 2.1 and maximum is {top}.",
                }
            }
        number = f"{asked[0]}.{asked[1]}"
        headers += [
            ("OpenStack-API-Version", f"compute {number}"),
            ("X-OpenStack-Nova-API-Version", number),
            ("Vary", "OpenStack-API-Version"),
            ("Vary", "X-OpenStack-Nova-API-Version"),
        ]
        headers.append(("x-compute-request-id", headers[0][1]))
        call = Call(
            method,
            path,
            parse_qsl(query_text, keep_blank_values=True),
            body,
            asked,
            f"{base}/compute",
            self._request(headers[0][1], environ),
            headers,
        )
        try:
            with self.cloud.lock:
                return self._compute.answer(call, path.removeprefix("/v2.1"))
        except Refused as no:
            return no.status, {no.kind: {"code": no.status, "message": str(no)}}

    # Placement

    def _placement_call(
        self,
        method: str,
        path: str,
        query_text: str,
        body: Any,
        environ: dict[str, Any],
        base: str,
        headers: list[tuple[str, str]],
    ) -> Answer:
        top = ".".join(map(str, self.faults.placement_max))
        asked = _asked_version(environ, "placement", self.faults.placement_max, (1, 0))
        if asked is None:
            number = str(environ.get("HTTP_OPENSTACK_API_VERSION")).split()[-1]
            return 406, {
                "errors": [
                    {
                        "status": 406,
                        "title": "Not Acceptable",
                        "request_id": headers[0][1],
                        "detail": f"Invalid microversion: Unacceptable version header: {number}",
                        "max_version": top,
                        "min_version": "1.0",
                    }
                ]
            }
        headers += [("openstack-api-version", f"placement {asked[0]}.{asked[1]}"), ("vary", "openstack-api-version")]
        if path in ("/", ""):
            return 200, {
                "versions": [
                    {
                        "id": "v1.0",
                        "max_version": top,
                        "min_version": "1.0",
                        "status": "CURRENT",
                        "links": [{"rel": "self", "href": ""}],
                    }
                ]
            }
        refused = self._unauthorised(environ, base, headers)
        if refused is not None:
            return refused
        call = Call(
            method,
            path,
            parse_qsl(query_text, keep_blank_values=True),
            body,
            asked,
            f"{base}/placement",
            self._request(headers[0][1], environ),
            headers,
        )
        try:
            with self.cloud.lock:
                return self._placement.answer(call, path)
        except Refused as no:
            error = {
                "status": no.status,
                "title": REASONS.get(no.status, ""),
                "detail": str(no),
                "request_id": headers[0][1],
            }
            if asked >= (1, 23):
                error["code"] = "placement.undefined_code"
            return no.status, {"errors": [error]}


def _half(text: bytes) -> Iterator[bytes]:
    """Half of what was announced, then an exception, on which cheroot hangs up."""
    yield text[: max(1, len(text) // 2)]
    raise _Cut("told to hang up in mid-answer")


def _fault_body(service: str, status: int) -> Json:
    message = {403: "Policy doesn't allow this request to be performed.", 503: "Service Unavailable"}.get(
        status, "Unexpected API Error."
    )
    if service == "placement":
        return {"errors": [{"status": status, "title": REASONS.get(status, ""), "detail": message}]}
    if service == "identity":
        return {"error": {"code": status, "title": REASONS.get(status, ""), "message": message}}
    return {Refused.KINDS.get(status, "computeFault"): {"code": status, "message": message}}


def _asked_version(environ: dict[str, Any], service: str, top: Version, lowest: Version) -> Version | None:
    """The microversion of the headers; the lowest when none is asked for, None when we do not have it."""
    text: str | None = None
    for part in str(environ.get("HTTP_OPENSTACK_API_VERSION", "")).split(","):
        words = part.split()
        if len(words) == 2 and words[0] == service:
            text = words[1]
    if text is None and service == "compute":
        text = environ.get("HTTP_X_OPENSTACK_NOVA_API_VERSION")
    if text is None:
        return lowest
    if text == "latest":
        return top
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return None
    asked = int(major), int(minor)
    return asked if lowest <= asked <= top else None


class _Server(wsgi.Server):
    expiration_interval = 0.05  # also how long `stop` takes

    def error_log(self, msg: str = "", level: int = 20, traceback: bool = False) -> None:
        """Say nothing: hanging up in mid-answer is what we were told to do."""


class RestServer:
    """The `Api` on a real socket; `port` 0 takes a free one."""

    def __init__(
        self,
        cloud: Cloud,
        *,
        address: str = "127.0.0.1",
        port: int = 0,
        threads: int = 10,
        serve_without_tokens: bool = False,
    ) -> None:
        self.api = Api(cloud, serve_without_tokens=serve_without_tokens)
        self._server = _Server(
            (address, port), self.api, numthreads=threads, request_queue_size=64, server_name="simulator"
        )
        self._server.shutdown_timeout = 1
        self._thread: threading.Thread | None = None
        self.url = ""

    @property
    def faults(self) -> Faults:
        return self.api.faults

    def start(self) -> RestServer:
        """Bind and serve on a thread; afterwards `url` is known."""
        self._server.prepare()
        address, port = self._server.bind_addr[:2]
        self.url = self.api.base = f"http://{address}:{port}"
        self._thread = threading.Thread(target=self._server.serve, name="simulator-rest", daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        self.faults.clear()
        self._server.stop()
        if self._thread is not None:
            self._thread.join(5.0)

    def __enter__(self) -> RestServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def cloud_config(self, auth_type: str = "password", user: User | None = None) -> Json:
        """What stands under a cloud's name in clouds.yaml, and what `openstack.connect(**...)` takes; of the
        administrator, or of a user that was added."""
        common: Json = {"region_name": "RegionOne", "auth_type": auth_type}
        endpoints = {
            "compute_endpoint_override": f"{self.url}/compute/v2.1",
            "placement_endpoint_override": f"{self.url}/placement",
            "identity_endpoint_override": f"{self.url}/identity/v3",
        }
        if auth_type == "none":
            return {**common, **endpoints}
        if auth_type == "admin_token":
            return {**common, **endpoints, "auth": {"endpoint": self.url, "token": self.api.admin_token}}
        return {
            **common,
            "identity_api_version": "3",
            "auth": {
                "auth_url": f"{self.url}/identity/v3",
                "username": user.name if user else "admin",
                "password": (user.password if user else None) or "simulator",
                "project_name": user.project if user else "admin",
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
        }
