"""Nova, Placement and Keystone over real HTTP, as far as maintd and an operator's commands need them.

One port, three roots: `/identity/v3`, `/compute/v2.1`, `/placement`. Answers have the shapes, headers, paging links
and refusals of the services they stand for, traps included: the host filter that leaves out soft-deleted servers, a
repeated `status` of which only the last counts, rows without `updated_at` that no `changes-since` finds, server
migrations that are invisible while `accepted` or in post-copy, a down cell whose rows are just not there.

`Faults` makes it misbehave: slow, an error status, half an answer, a filter dropped by policy, an older microversion.
It checks that a token is one it gave out, not who you are: every user is the administrator.
"""

from __future__ import annotations

import fnmatch
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, urlencode

from cheroot import wsgi

from maintd.clock import SystemClock
from maintd.simulator.model import Cloud, Host, Migration, Provider, Refused, Server
from maintd.simulator.notifications import Flavor, Json, Request, seconds_text

Version = tuple[int, int]
Query = list[tuple[str, str]]

PAGE = 1000
COMPUTE_MAX: Version = (2, 104)
PLACEMENT_MAX: Version = (1, 39)
POWER = {"pending": 0, "running": 1, "paused": 3, "shutdown": 4, "crashed": 6, "suspended": 7}
PROGRESS_STATUSES = frozenset(
    {
        "ACTIVE",
        "BUILD",
        "DELETED",
        "ERROR",
        "MIGRATING",
        "REBUILD",
        "RESIZE",
        "VERIFY_RESIZE",
        "SHUTOFF",
        "HARD_REBOOT",
        "PASSWORD",
        "REBOOT",
        "UNKNOWN",
        "REVERT_RESIZE",
    }
) - {"DELETED"}
STATUSES = frozenset(
    {
        "ACTIVE",
        "BUILD",
        "DELETED",
        "ERROR",
        "MIGRATING",
        "PAUSED",
        "REBUILD",
        "RESCUE",
        "RESIZE",
        "REVERT_RESIZE",
        "SHELVED",
        "SHELVED_OFFLOADED",
        "SHUTOFF",
        "SOFT_DELETED",
        "SUSPENDED",
        "VERIFY_RESIZE",
        "UNKNOWN",
        "REBOOT",
        "HARD_REBOOT",
        "PASSWORD",
    }
)
SERVER_FILTERS = frozenset(
    {
        "all_tenants",
        "host",
        "node",
        "soft_deleted",
        "deleted",
        "status",
        "vm_state",
        "task_state",
        "changes-since",
        "changes-before",
        "limit",
        "marker",
        "sort_key",
        "sort_dir",
        "name",
        "uuid",
        "project_id",
        "tenant_id",
        "user_id",
        "flavor",
        "image",
        "hostname",
        "tags",
        "ip",
        "availability_zone",
        "power_state",
        "locked",
        "reservation_id",
    }
)
MIGRATION_FILTERS = frozenset(
    {
        "host",
        "status",
        "source_compute",
        "migration_type",
        "instance_uuid",
        "hidden",
        "limit",
        "marker",
        "changes-since",
        "changes-before",
        "user_id",
        "project_id",
    }
)
SHOWN_LIVE = ("queued", "preparing", "running", "post-migrating")


@dataclass(slots=True)
class Fault:
    """One way to misbehave, for requests whose service and path match (`path` is a glob of path and query).

    `slow_s` waits first; `status` answers so; `cut` sends half of the body and hangs up. `times` is how often (None:
    until removed); `skip` lets so many matching requests pass unharmed first.
    """

    service: str = "*"
    path: str = "*"
    method: str = "*"
    slow_s: float = 0.0
    status: int | None = None
    cut: bool = False
    times: int | None = None
    skip: int = 0


@dataclass(slots=True)
class Faults:
    """Everything that is wrong with the service just now; change it at any time."""

    active: list[Fault] = field(default_factory=list)
    drop_host_filter: bool = False
    hide_host_fields: bool = False
    compute_max: Version = COMPUTE_MAX
    placement_max: Version = PLACEMENT_MAX
    max_limit: int = PAGE
    release: threading.Event = field(default_factory=threading.Event)

    def add(self, **options: Any) -> Fault:
        """A new fault; `remove` takes it away again."""
        fault = Fault(**options)
        self.active.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        if fault in self.active:
            self.active.remove(fault)

    def clear(self) -> None:
        """Well again, and whoever is being kept waiting is answered at once."""
        self.active.clear()
        self.drop_host_filter = self.hide_host_fields = False
        self.compute_max, self.placement_max, self.max_limit = COMPUTE_MAX, PLACEMENT_MAX, PAGE
        self.release.set()
        self.release = threading.Event()

    def match(self, service: str, method: str, target: str) -> Fault | None:
        for fault in list(self.active):
            if (
                fnmatch.fnmatch(service, fault.service)
                and fnmatch.fnmatch(method, fault.method)
                and fnmatch.fnmatch(target, fault.path)
            ):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times <= 0:
                        self.remove(fault)
                return fault
        return None


@dataclass(slots=True)
class _Call:
    """A request on its way through: what a handler needs to know of it."""

    method: str
    path: str
    query: Query
    body: Any
    version: Version
    base: str
    request: Request
    headers: list[tuple[str, str]] = field(default_factory=list)

    def one(self, name: str) -> str | None:
        """The last value of a parameter, as Nova takes it where it expects only one."""
        found = None
        for key, value in self.query:
            if key == name:
                found = value
        return found

    def flag(self, name: str) -> bool:
        value = self.one(name)
        return value is not None and value.lower() in ("1", "true", "t", "yes", "on", "y")


Answer = tuple[int, Any]
Handler = Callable[..., Answer]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was served: what a test counts."""

    service: str
    method: str
    target: str
    status: int


def _text(at: float | None) -> str | None:
    """A row's time as most lists give it: microseconds that are always zero, and no zone."""
    text = seconds_text(at)
    return None if text is None else text[:-1] + ".000000"


def _moment(text: str) -> float:
    try:
        at = datetime.fromisoformat(text if len(text) > 4 else f"{text}-01-01")
    except ValueError:
        raise Refused(
            400, f"Invalid input for query parameters changes-since. Value: {text}. '{text}' is not a 'date-time'"
        ) from None
    return (at.replace(tzinfo=UTC) if at.tzinfo is None else at).timestamp()


def status_of(server: Server) -> str:
    """The status that the API makes of vm_state and task_state."""
    task = server.task_state or ""
    state = server.state
    if state == "active":
        if task == "migrating":
            return "MIGRATING"
        if task.startswith("resize_"):
            return "RESIZE"
    if state == "paused" and task == "migrating":
        return "MIGRATING"
    if state == "stopped" and task.startswith("resize_"):
        return "RESIZE"
    if state == "resized":
        return "REVERT_RESIZE" if task == "resize_reverting" else "VERIFY_RESIZE"
    if state in ("active", "stopped", "error") and task.startswith("rebuild"):
        return "REBUILD"
    return {
        "active": "ACTIVE",
        "building": "BUILD",
        "stopped": "SHUTOFF",
        "soft-delete": "SOFT_DELETED",
        "deleted": "DELETED",
        "error": "ERROR",
        "paused": "PAUSED",
        "suspended": "SUSPENDED",
        "rescued": "RESCUE",
        "shelved": "SHELVED",
        "shelved_offloaded": "SHELVED_OFFLOADED",
    }.get(state, "UNKNOWN")


class _Cut(Exception):
    """Raised inside a response so that the server hangs up in the middle of it."""


class Api:
    """The WSGI application. `serve_without_tokens` is for keystoneauth's `none` plugin."""

    def __init__(self, cloud: Cloud, *, serve_without_tokens: bool = False) -> None:
        self.cloud = cloud
        self.faults = Faults()
        self.seen: list[Seen] = []
        self.keep_seen = True
        self.base = ""
        self.admin_token = "simulator-admin-token"  # noqa: S105 - opens nothing but a simulator on loopback
        self._tokens: set[str] = {self.admin_token}
        self._open = serve_without_tokens
        self._wall = SystemClock()
        ident = r"([^/?]+)"
        self._compute: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(f"^{pattern}/?$"), handler)
            for method, pattern, handler in (
                ("GET", "/servers/detail", self._servers),
                ("GET", "/servers", self._servers_short),
                ("POST", "/servers", self._create),
                ("GET", f"/servers/{ident}", self._server),
                ("DELETE", f"/servers/{ident}", self._delete),
                ("POST", f"/servers/{ident}/action", self._action),
                ("GET", f"/servers/{ident}/migrations", self._server_migrations),
                ("GET", f"/servers/{ident}/migrations/{ident}", self._server_migration),
                ("DELETE", f"/servers/{ident}/migrations/{ident}", self._abort),
                ("POST", f"/servers/{ident}/migrations/{ident}/action", self._force),
                ("GET", "/os-migrations", self._migrations),
                ("GET", "/os-services", self._services),
                ("PUT", f"/os-services/{ident}", self._service_put),
                ("DELETE", f"/os-services/{ident}", self._service_delete),
                ("GET", "/os-hypervisors/detail", self._hypervisors_detail),
                ("GET", "/os-hypervisors", self._hypervisors),
                ("GET", f"/os-hypervisors/{ident}", self._hypervisor),
                ("GET", "/flavors/detail", self._flavors),
                ("GET", "/flavors", self._flavors),
            )
        ]
        self._placement: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(f"^{pattern}/?$"), handler)
            for method, pattern, handler in (
                ("GET", "/resource_providers", self._providers),
                ("GET", f"/resource_providers/{ident}", self._provider_show),
                ("GET", f"/resource_providers/{ident}/allocations", self._allocations),
                ("GET", f"/resource_providers/{ident}/traits", self._traits),
                ("GET", f"/allocations/{ident}", self._consumer),
            )
        ]

    def expire_tokens(self) -> None:
        """Every token given out so far is refused from now on."""
        self._tokens.clear()

    # WSGI

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        method = str(environ["REQUEST_METHOD"])
        path = str(environ["PATH_INFO"])
        query_text = str(environ.get("QUERY_STRING", ""))
        base = self.base or f"http://{environ.get('HTTP_HOST', '127.0.0.1')}"
        service, _, rest = path.lstrip("/").partition("/")
        rest = "/" + rest
        target = rest + (f"?{query_text}" if query_text else "")
        fault = self.faults.match(service, method, target)
        if fault is not None and fault.slow_s > 0:
            self.faults.release.wait(fault.slow_s)
        headers: list[tuple[str, str]] = [("x-openstack-request-id", f"req-{uuid.uuid4()}")]
        if fault is not None and fault.status is not None:
            status, answer = fault.status, _fault_body(service, fault.status)
        else:
            length = int(environ.get("CONTENT_LENGTH") or 0)
            raw = environ["wsgi.input"].read(length) if length else b""
            status, answer = self._serve(service, method, rest, query_text, raw, environ, base, headers)
        text = b"" if answer is None else json.dumps(answer).encode()
        headers.append(("Content-Type", "application/json"))
        headers.append(("Content-Length", str(len(text))))
        if self.keep_seen:
            self.seen.append(Seen(service, method, target, status))
        start_response(f"{status} {_REASONS.get(status, 'Status')}", headers)
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
            token = uuid.uuid4().hex
            self._tokens.add(token)
            headers.append(("X-Subject-Token", token))
            return 201, {"token": self._token(base, self._wall.now())}
        if path == "/v3/auth/tokens" and method == "GET":
            if environ.get("HTTP_X_SUBJECT_TOKEN") not in self._tokens:
                return 404, {"error": {"code": 404, "message": "Failed to validate token", "title": "Not Found"}}
            return 200, {"token": self._token(base, self._wall.now())}
        return 404, {"error": {"code": 404, "message": f"{path} not found", "title": "Not Found"}}

    def _token(self, base: str, at: float) -> Json:
        urls = {"compute": f"{base}/compute/v2.1", "placement": f"{base}/placement", "identity": f"{base}/identity/v3"}
        names = {"compute": "nova", "placement": "placement", "identity": "keystone"}
        return {
            "methods": ["password"],
            "is_domain": False,
            "audit_ids": ["simulator"],
            "issued_at": _text(at) and f"{_text(at)}Z",
            "expires_at": f"{_text(at + 86400)}Z",
            "user": {
                "id": self.cloud.admin_user,
                "name": "admin",
                "domain": {"id": "default", "name": "Default"},
                "password_expires_at": None,
            },
            "project": {
                "id": self.cloud.admin_project,
                "name": "admin",
                "domain": {"id": "default", "name": "Default"},
            },
            "roles": [
                {"id": uuid.uuid5(uuid.NAMESPACE_URL, name).hex, "name": name}
                for name in ("admin", "manager", "member", "reader")
            ],
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
        call = _Call(
            method,
            path,
            parse_qsl(query_text, keep_blank_values=True),
            body,
            asked,
            f"{base}/compute",
            Request(headers[0][1], self.cloud.admin_user, self.cloud.admin_project),
            headers,
        )
        try:
            with self.cloud.lock:
                return self._dispatch(self._compute, call, path.removeprefix("/v2.1"))
        except Refused as no:
            return no.status, {no.kind: {"code": no.status, "message": str(no)}}

    def _dispatch(self, routes: list[tuple[str, re.Pattern[str], Handler]], call: _Call, path: str) -> Answer:
        known = False
        for method, pattern, handler in routes:
            found = pattern.match(path)
            if found is not None:
                known = True
                if method == call.method:
                    return handler(call, *found.groups())
        if known:
            return 405, {"badMethod": {"code": 405, "message": "Method not allowed"}}
        raise Refused(404, "The resource could not be found.")

    def _next(self, call: _Call, name: str, path: str, marker: str) -> Json:
        rest = [(key, value) for key, value in call.query if key != "marker"] + [("marker", marker)]
        return {f"{name}_links": [{"rel": "next", "href": f"{call.base}/v2.1{path}?{urlencode(rest)}"}]}

    def _limit(self, call: _Call) -> int:
        text = call.one("limit")
        if text is None:
            return self.faults.max_limit
        if not text.isdigit():
            raise Refused(
                400, f"Invalid input for query parameters limit. Value: {text}. '{text}' does not match '^[0-9]*$'"
            )
        return min(int(text), self.faults.max_limit)

    # Nova: servers

    def _wanted(self, call: _Call) -> Iterator[Server]:
        """The servers that the filters leave, newest first, from behind the marker on."""
        unknown = {key for key, _ in call.query} - SERVER_FILTERS
        unknown = {key for key in unknown if not key.startswith("_")}
        if unknown and call.version >= (2, 73):
            raise Refused(400, f"'{min(unknown)}' does not match any of the regexes: '^_'")
        statuses = [value.upper() for key, value in call.query if key == "status"]
        if any(value not in STATUSES for value in statuses):
            if call.version >= (2, 38):
                raise Refused(400, "Invalid status value")
            return
        since_text, host = call.one("changes-since"), call.one("host")
        since = None if since_text is None else _moment(since_text)
        if self.faults.drop_host_filter:
            host = None
        deleted_only = call.flag("deleted") or statuses == ["DELETED"]
        soft = call.flag("soft_deleted")
        everyone = call.flag("all_tenants")
        project = call.one("project_id") or call.one("tenant_id")
        node, name = call.one("node"), call.one("name")
        marker = call.one("marker")
        cloud = self.cloud
        rows: Iterable[Server]
        if host is not None and since is None and not deleted_only:
            known = cloud.hosts.get(host)
            rows = sorted(known.servers.values(), key=lambda row: -row.seq) if known is not None else ()
            if marker is not None:
                behind = cloud.servers.get(marker) or cloud.deleted.get(marker)
                if behind is None:
                    raise Refused(400, f"marker [{marker}] not found")
                rows = [row for row in rows if row.seq < behind.seq]
        else:
            rows = cloud.page_of_servers(marker)
        for row in rows:
            if since is None:
                if deleted_only != (row.deleted_at is not None):
                    continue
                if row.state == "soft-delete" and not soft and not deleted_only:
                    continue
            elif row.updated_at is None or row.updated_at < since:
                continue
            if host is not None and row.host != host:
                continue
            if row.host is not None and row.host in cloud.hosts and cloud.hosts[row.host].in_down_cell:
                continue
            if (
                not everyone
                and row.project_id != cloud.admin_project
                or project is not None
                and (row.project_id != project)
            ):
                continue
            if statuses and status_of(row) not in statuses:
                continue
            if name is not None and re.search(name, row.name) is None:
                continue
            if node is not None and re.search(node, cloud.node_of(row.host) or "") is None:
                continue
            if any(
                call.one(key) not in (None, value)
                for key, value in (("uuid", row.id), ("vm_state", row.state), ("task_state", row.task_state or ""))
            ):
                continue
            yield row

    def _servers(self, call: _Call) -> Answer:
        return 200, self._page(call, "/servers/detail", self._server_body)

    def _servers_short(self, call: _Call) -> Answer:
        def short(call: _Call, row: Server) -> Json:
            return {"id": row.id, "name": row.name, "links": self._links(call, "servers", row.id)}

        return 200, self._page(call, "/servers", short)

    def _page(self, call: _Call, path: str, show: Callable[[_Call, Server], Json]) -> Json:
        limit = self._limit(call)
        found: list[Json] = []
        for row in self._wanted(call):
            found.append(show(call, row))
            if len(found) >= limit:
                break
        answer: Json = {"servers": found}
        if found and len(found) == limit:
            answer |= self._next(call, "servers", path, found[-1]["id"])
        return answer

    def _links(self, call: _Call, kind: str, ident: str) -> list[Json]:
        return [
            {"rel": "self", "href": f"{call.base}/v2.1/{kind}/{ident}"},
            {"rel": "bookmark", "href": f"{call.base}/{kind}/{ident}"},
        ]

    def _server_body(self, call: _Call, row: Server) -> Json:
        cloud, version = self.cloud, call.version
        status = status_of(row)
        flavor: Json = {
            "id": row.flavor.id,
            "links": [{"rel": "bookmark", "href": f"{call.base}/flavors/{row.flavor.id}"}],
        }
        if version >= (2, 47):
            flavor = {
                "vcpus": row.flavor.vcpus,
                "ram": row.flavor.memory_mb,
                "disk": row.flavor.disk_gb,
                "ephemeral": 0,
                "swap": 0,
                "original_name": row.flavor.name,
                "extra_specs": {},
            }
        body: Json = {
            "accessIPv4": "",
            "accessIPv6": "",
            "addresses": {},
            "created": seconds_text(row.created_at),
            "flavor": flavor,
            "hostId": cloud.host_id(row.project_id, row.host),
            "id": row.id,
            "image": {
                "id": cloud.image_id,
                "links": [{"rel": "bookmark", "href": f"{call.base}/images/{cloud.image_id}"}],
            },
            "links": self._links(call, "servers", row.id),
            "metadata": {},
            "name": row.name,
            "status": status,
            "tenant_id": row.project_id,
            "user_id": row.user_id,
            "updated": seconds_text(row.updated_at if row.updated_at is not None else cloud.now()),
            "OS-DCF:diskConfig": "MANUAL",
        }
        if status in PROGRESS_STATUSES:
            body["progress"] = row.progress
        body |= {
            "OS-EXT-AZ:availability_zone": row.availability_zone or "" if row.host is not None else "",
            "config_drive": "",
            "key_name": None,
            "OS-SRV-USG:launched_at": _text(row.launched_at),
            "OS-SRV-USG:terminated_at": _text(row.terminated_at),
        }
        if not self.faults.hide_host_fields:
            body |= {
                "OS-EXT-SRV-ATTR:host": row.host,
                "OS-EXT-SRV-ATTR:instance_name": f"instance-{row.seq:08x}",
                "OS-EXT-SRV-ATTR:hypervisor_hostname": cloud.node_of(row.host),
            }
            if version >= (2, 3):
                body |= {
                    "OS-EXT-SRV-ATTR:hostname": row.name,
                    "OS-EXT-SRV-ATTR:kernel_id": "",
                    "OS-EXT-SRV-ATTR:launch_index": 0,
                    "OS-EXT-SRV-ATTR:ramdisk_id": "",
                    "OS-EXT-SRV-ATTR:reservation_id": f"r-{row.id[:8]}",
                    "OS-EXT-SRV-ATTR:root_device_name": "/dev/sda",
                    "OS-EXT-SRV-ATTR:user_data": None,
                }
        body |= {
            "OS-EXT-STS:task_state": row.task_state,
            "OS-EXT-STS:vm_state": row.state,
            "OS-EXT-STS:power_state": POWER.get(row.power_state, 0),
            "os-extended-volumes:volumes_attached": [],
        }
        if row.state == "error":
            body["fault"] = {"code": 500, "created": body["updated"], "message": "told to fail"}
        if version >= (2, 9):
            body["locked"] = row.locked
        if version >= (2, 19):
            body["description"] = None
        if version >= (2, 26):
            body["tags"] = []
        if version >= (2, 63):
            body["trusted_image_certificates"] = None
        if version >= (2, 73):
            body["locked_reason"] = None
        if version >= (2, 96):
            body["pinned_availability_zone"] = None
        if version >= (2, 16):
            body["host_status"] = self._host_status(row)
        return body

    def _host_status(self, row: Server) -> str:
        host = self.cloud.hosts.get(row.host) if row.host is not None else None
        if host is None or row.deleted_at is not None:
            return ""
        if host.forced_down:
            return "DOWN"
        if not self.cloud.is_up(host):
            return "UNKNOWN"
        return "MAINTENANCE" if host.disabled else "UP"

    def _server(self, call: _Call, server_id: str) -> Answer:
        row = self.cloud.find_server(server_id)
        if row.host is not None and self.cloud.hosts[row.host].in_down_cell:
            if call.version < (2, 69):
                raise Refused(500, "Unexpected API Error. The cell of this instance cannot be reached.")
            return 200, {
                "server": {
                    "id": row.id,
                    "created": seconds_text(row.created_at),
                    "status": "UNKNOWN",
                    "tenant_id": row.project_id,
                    "links": self._links(call, "servers", row.id),
                }
            }
        body = self._server_body(call, row)
        if call.version >= (2, 71):
            body["server_groups"] = []
        return 200, {"server": body}

    def _create(self, call: _Call) -> Answer:
        asked = _object(call.body, "server")
        host = asked.get("host")
        zone = str(asked.get("availability_zone") or "")
        if host is None and ":" in zone:
            host = zone.split(":")[1]
        count = int(asked.get("max_count") or asked.get("min_count") or 1)
        flavor = str(asked.get("flavorRef", "m1.small")).rsplit("/", 1)[-1]
        name = str(asked.get("name") or "server")
        servers = [
            self.cloud.create(name if count == 1 else f"{name}-{n + 1}", flavor=flavor, host=host, request=call.request)
            for n in range(count)
        ]
        call.headers.append(("location", f"{call.base}/v2.1/servers/{servers[0].id}"))
        return 202, {
            "server": {
                "id": servers[0].id,
                "links": self._links(call, "servers", servers[0].id),
                "OS-DCF:diskConfig": "MANUAL",
                "security_groups": [{"name": "default"}],
                "adminPass": "simulator",
            }
        }

    def _delete(self, call: _Call, server_id: str) -> Answer:
        self.cloud.delete(server_id, request=call.request)
        return 204, None

    def _action(self, call: _Call, server_id: str) -> Answer:
        if not isinstance(call.body, dict) or len(call.body) != 1:
            raise Refused(400, "Malformed request body")
        action, value = next(iter(call.body.items()))
        options = value if isinstance(value, dict) else {}
        cloud, request = self.cloud, call.request
        host = options.get("host")
        match action:
            case "os-migrateLive":
                cloud.live_migrate(server_id, host, request)
            case "migrate":
                cloud.migrate(server_id, host, request=request)
            case "resize":
                cloud.migrate(server_id, flavor=str(options.get("flavorRef", "")).rsplit("/", 1)[-1], request=request)
            case "confirmResize":
                cloud.confirm(server_id, request)
                return 204, None
            case "revertResize":
                cloud.revert(server_id, request)
            case "evacuate":
                cloud.evacuate(server_id, host, ends_stopped=call.version >= (2, 95), request=request)
                return 200, None if call.version >= (2, 14) else {"adminPass": "simulator"}
            case "shelve":
                cloud.shelve(server_id, request)
            case "shelveOffload":
                cloud.shelve_offload(server_id, request)
            case "unshelve":
                cloud.unshelve(server_id, request)
            case "os-stop":
                cloud.stop_server(server_id, request)
            case "os-start":
                cloud.start_server(server_id, request)
            case "forceDelete":
                cloud.delete(server_id, force=True, request=request)
            case "restore":
                cloud.restore(server_id, request)
            case _:
                raise Refused(400, f"There is no such action: {action}")
        return 202, None

    # Nova: migrations

    def _server_migration_body(self, call: _Call, row: Migration) -> Json:
        body: Json = {
            "created_at": _text(row.created_at),
            "dest_compute": row.destination,
            "dest_host": None,
            "dest_node": row.destination_node,
            "disk_processed_bytes": row.disk_processed,
            "disk_remaining_bytes": row.disk_remaining,
            "disk_total_bytes": row.disk_total,
            "id": row.id,
            "memory_processed_bytes": row.memory_processed,
            "memory_remaining_bytes": row.memory_remaining,
            "memory_total_bytes": row.memory_total,
            "server_uuid": row.server.id,
            "source_compute": row.source,
            "source_node": row.source_node,
            "status": row.status,
            "updated_at": _text(row.updated_at),
        }
        if call.version >= (2, 59):
            body["uuid"] = row.uuid
        if call.version >= (2, 80):
            body |= {"user_id": row.server.user_id, "project_id": row.server.project_id}
        return body

    def _server_migrations(self, call: _Call, server_id: str) -> Answer:
        if call.version < (2, 23):
            raise Refused(404, "The resource could not be found.")
        self.cloud.find_server(server_id)
        return 200, {
            "migrations": [
                self._server_migration_body(call, row)
                for row in self.cloud.migrations_of.get(server_id, ())
                if row.kind == "live-migration" and row.status in SHOWN_LIVE
            ]
        }

    def _server_migration(self, call: _Call, server_id: str, migration_id: str) -> Answer:
        self.cloud.find_server(server_id)
        row = self.cloud.migrations.get(_number(migration_id))
        if row is None or row.server.id != server_id:
            raise Refused(404, f"Migration {migration_id} for server {server_id} could not be found.")
        if row.kind != "live-migration" or row.status not in SHOWN_LIVE:
            raise Refused(404, f"Migration {migration_id} for server {server_id} is not a live-migration in progress.")
        return 200, {"migration": self._server_migration_body(call, row)}

    def _abort(self, call: _Call, server_id: str, migration_id: str) -> Answer:
        number = _number(migration_id)
        row = self.cloud.migrations.get(number)
        if call.version < (2, 65) and row is not None and row.status in ("queued", "preparing"):
            raise Refused(
                400,
                f"Migration {migration_id} state of instance {server_id} is {row.status}. Cannot abort "
                "the migration in this state.",
            )
        self.cloud.abort(server_id, number, call.request)
        return 202, None

    def _force(self, call: _Call, server_id: str, migration_id: str) -> Answer:
        if not isinstance(call.body, dict) or "force_complete" not in call.body:
            raise Refused(400, "Malformed request body")
        self.cloud.force_complete(server_id, _number(migration_id), call.request)
        return 202, None

    def _migrations(self, call: _Call) -> Answer:
        strict = call.version >= (2, 59)
        unknown = {key for key, _ in call.query} - MIGRATION_FILTERS
        if strict and unknown:
            raise Refused(400, f"Additional properties are not allowed ('{min(unknown)}' was unexpected)")
        host, status, source = call.one("host"), call.one("status"), call.one("source_compute")
        kind, server_id = call.one("migration_type"), call.one("instance_uuid")
        since_text = call.one("changes-since") if strict else None
        since = None if since_text is None else _moment(since_text)
        rows: Iterable[Migration]
        if server_id is not None:
            rows = reversed(self.cloud.migrations_of.get(server_id, []))
        else:
            rows = reversed(list(self.cloud.migrations.values()))
        marker = call.one("marker") if strict else None
        if marker is not None:
            rows = list(rows)
            at = next((n for n, row in enumerate(rows) if row.uuid == marker), None)
            if at is None:
                raise Refused(400, f"Marker {marker} could not be found.")
            rows = rows[at + 1 :]
        limit = self._limit(call) if strict else 10**9
        found: list[Json] = []
        more = False
        for row in rows:
            ends = [self.cloud.hosts.get(name) for name in (row.source, row.destination) if name is not None]
            if (
                host is not None
                and host not in (row.source, row.destination)
                or status is not None
                and row.status != status
                or source is not None
                and row.source != source
                or kind is not None
                and row.kind != kind
                or since is not None
                and (row.updated_at is None or row.updated_at < since)
                or any(end is not None and end.in_down_cell for end in ends)
            ):
                continue
            found.append(self._migration_body(call, row))
            if len(found) >= limit:
                more = strict
                break
        answer: Json = {"migrations": found}
        if more and found:
            answer |= self._next(call, "migrations", "/os-migrations", found[-1]["uuid"])
        return 200, answer

    def _migration_body(self, call: _Call, row: Migration) -> Json:
        body: Json = {"id": row.id}
        if call.version >= (2, 59):
            body["uuid"] = row.uuid
        shown = not self.faults.hide_host_fields
        body |= {
            "source_compute": row.source if shown else None,
            "dest_compute": row.destination if shown else None,
            "source_node": row.source_node if shown else None,
            "dest_node": row.destination_node if shown else None,
            "dest_host": None,
            "old_instance_type_id": row.old_flavor.row,
            "new_instance_type_id": row.new_flavor.row,
            "instance_uuid": row.server.id,
            "status": row.status,
        }
        if call.version >= (2, 23):
            body["migration_type"] = row.kind
        if call.version >= (2, 80):
            body |= {"user_id": row.server.user_id, "project_id": row.server.project_id}
        body |= {"created_at": _text(row.created_at), "updated_at": _text(row.updated_at)}
        if call.version >= (2, 23) and row.kind == "live-migration" and row.status in SHOWN_LIVE:
            body["links"] = self._links(call, f"servers/{row.server.id}/migrations", str(row.id))
        return body

    # Nova: services and hypervisors

    def _services(self, call: _Call) -> Answer:
        unknown = {key for key, _ in call.query} - {"binary", "host"}
        if call.version >= (2, 75) and unknown:
            raise Refused(400, f"Additional properties are not allowed ('{min(unknown)}' was unexpected)")
        binary, wanted = call.one("binary"), call.one("host")
        found: list[Json] = []
        for number, (name, host_name, ident) in enumerate(self.cloud.control_services, 2):
            if binary in (None, name) and wanted in (None, host_name):
                found.append(
                    {
                        "binary": name,
                        "host": host_name,
                        "id": ident if call.version >= (2, 53) else number,
                        "zone": "internal",
                        "status": "enabled",
                        "state": "up",
                        "updated_at": _text(self.cloud.now()),
                        "disabled_reason": None,
                    }
                )
                if call.version >= (2, 11):
                    found[-1]["forced_down"] = False
        if binary in (None, "nova-compute"):
            if wanted is None:
                hosts = list(self.cloud.hosts.values())
            else:
                hosts = [self.cloud.hosts[wanted]] if wanted in self.cloud.hosts else []
            for host in hosts:
                if host.in_down_cell:
                    if call.version >= (2, 69) and wanted is None:
                        found.append({"binary": "nova-compute", "host": host.name, "status": "UNKNOWN"})
                    elif call.version >= (2, 69):
                        found.append({"binary": "nova-compute", "host": host.name, "status": "UNKNOWN"})
                else:
                    found.append(self._service_body(call, host))
        return 200, {"services": found}

    def _service_body(self, call: _Call, host: Host) -> Json:
        seen = self.cloud.last_seen(host)
        body: Json = {
            "binary": "nova-compute",
            "host": host.name,
            "id": host.service_id if call.version >= (2, 53) else host.seq + 3,
            "zone": host.zone,
            "status": "disabled" if host.disabled else "enabled",
            "state": "up" if self.cloud.is_up(host) else "down",
            "updated_at": _text(max(seen, host.changed_at)),
            "disabled_reason": host.disabled_reason,
        }
        if call.version >= (2, 11):
            body["forced_down"] = host.forced_down
        return body

    def _service_put(self, call: _Call, ident: str) -> Answer:
        asked = call.body if isinstance(call.body, dict) else {}
        if call.version < (2, 53):
            if ident not in ("enable", "disable", "disable-log-reason", "force-down"):
                raise Refused(404, "Unknown action")
            name = str(asked.get("host"))
            if ident == "force-down":
                host = self.cloud.set_service(name, call.request, forced_down=bool(asked.get("forced_down")))
            else:
                host = self.cloud.set_service(
                    name, call.request, disabled=ident != "enable", reason=asked.get("disabled_reason")
                )
            return 200, {
                "service": {
                    "host": name,
                    "binary": "nova-compute",
                    "status": "disabled" if host.disabled else "enabled",
                }
            }
        known = self.cloud.hosts_by_service.get(ident)
        if known is None:
            raise Refused(404, f"Service {ident} could not be found.")
        status, down, reason = asked.get("status"), asked.get("forced_down"), asked.get("disabled_reason")
        if status is None and down is None or status not in (None, "enabled", "disabled"):
            raise Refused(400, "Must specify 'status' or 'forced_down'")
        if reason is not None and status != "disabled":
            raise Refused(400, "Specifying 'disabled_reason' requires that 'status' is 'disabled'.")
        self.cloud.set_service(
            known.name,
            call.request,
            disabled=None if status is None else status == "disabled",
            reason=reason,
            forced_down=down,
        )
        return 200, {"service": self._service_body(call, known)}

    def _service_delete(self, call: _Call, ident: str) -> Answer:
        known = self.cloud.hosts_by_service.get(ident)
        if known is None:
            raise Refused(404, f"Service {ident} could not be found.")
        self.cloud.delete_service(known.name, call.request)
        return 204, None

    def _hypervisor_body(self, call: _Call, host: Host, *, detail: bool, with_servers: bool) -> Json:
        cloud = self.cloud
        body: Json = {
            "id": host.provider.uuid if call.version >= (2, 53) else host.seq,
            "hypervisor_hostname": host.node,
            "state": "up" if cloud.is_up(host) else "down",
            "status": "disabled" if host.disabled else "enabled",
        }
        if detail:
            body |= {
                "hypervisor_type": "QEMU",
                "hypervisor_version": 8002002,
                "host_ip": "127.0.0.1",
                "service": {
                    "id": host.service_id if call.version >= (2, 53) else host.seq + 3,
                    "host": host.name,
                    "disabled_reason": host.disabled_reason,
                },
            }
            if call.version >= (2, 88):
                body["uptime"] = None
            else:
                held: list[Flavor] = list(host.provider.allocations.values())
                memory, disk = sum(f.memory_mb for f in held) + 512, sum(f.disk_gb for f in held)
                body |= {
                    "vcpus": 64,
                    "memory_mb": 65536,
                    "local_gb": 2048,
                    "vcpus_used": sum(f.vcpus for f in held),
                    "memory_mb_used": memory,
                    "local_gb_used": disk,
                    "free_ram_mb": 65536 - memory,
                    "free_disk_gb": 2048 - disk,
                    "current_workload": 0,
                    "running_vms": len(host.servers),
                    "disk_available_least": 0,
                    "cpu_info": {
                        "arch": "x86_64",
                        "model": "Nehalem",
                        "vendor": "Intel",
                        "features": ["pge", "clflush"],
                        "topology": {"cores": 1, "threads": 1, "sockets": 4},
                    },
                }
        if with_servers and (host.servers or call.version >= (2, 75)):
            body["servers"] = [{"name": f"instance-{row.seq:08x}", "uuid": row.id} for row in host.servers.values()]
        return body

    def _hypervisors_detail(self, call: _Call) -> Answer:
        return self._hypervisor_list(call, "/os-hypervisors/detail", detail=True)

    def _hypervisors(self, call: _Call) -> Answer:
        return self._hypervisor_list(call, "/os-hypervisors", detail=False)

    def _hypervisor_list(self, call: _Call, path: str, *, detail: bool) -> Answer:
        pattern = call.one("hypervisor_hostname_pattern") if call.version >= (2, 53) else None
        rows = [host for host in self.cloud.hosts.values() if not host.in_down_cell]
        if pattern is not None:
            if call.version < (3, 0) and (call.one("limit") or call.one("marker")):
                raise Refused(
                    400,
                    "Paging over hypervisors with the hypervisor_hostname_pattern query parameter is not supported.",
                )
            rows = [host for host in rows if pattern in host.node]
            if not rows:
                raise Refused(404, f"No hypervisor matching '{pattern}' could be found.")
        paged = call.version >= (2, 33) and pattern is None
        limit = self._limit(call) if paged else 10**9
        marker = call.one("marker") if paged else None
        if marker is not None:
            at = next((n for n, host in enumerate(rows) if host.provider.uuid == marker), None)
            if at is None:
                raise Refused(400, f"marker [{marker}] not found")
            rows = rows[at + 1 :]
        page = rows[:limit]
        answer: Json = {
            "hypervisors": [
                self._hypervisor_body(call, host, detail=detail, with_servers=call.flag("with_servers"))
                for host in page
            ]
        }
        if page and len(page) == limit:
            answer |= self._next(call, "hypervisors", path, page[-1].provider.uuid)
        return 200, answer

    def _hypervisor(self, call: _Call, ident: str) -> Answer:
        host = self.cloud.hosts_by_provider.get(ident)
        if host is None:
            raise Refused(404, f"Hypervisor with ID '{ident}' could not be found.")
        if host.in_down_cell:
            raise Refused(500, "Unexpected API Error. The cell of this hypervisor cannot be reached.")
        body = self._hypervisor_body(call, host, detail=True, with_servers=call.flag("with_servers"))
        return 200, {"hypervisor": body}

    def _flavors(self, call: _Call) -> Answer:
        return 200, {
            "flavors": [
                {
                    "id": f.id,
                    "name": f.name,
                    "ram": f.memory_mb,
                    "disk": f.disk_gb,
                    "swap": 0,
                    "vcpus": f.vcpus,
                    "OS-FLV-EXT-DATA:ephemeral": 0,
                    "OS-FLV-DISABLED:disabled": False,
                    "os-flavor-access:is_public": True,
                    "rxtx_factor": 1.0,
                    "links": self._links(call, "flavors", f.id),
                    "description": None,
                    "extra_specs": {},
                }
                for f in self.cloud.flavors.values()
            ]
        }

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
        call = _Call(
            method,
            path,
            parse_qsl(query_text, keep_blank_values=True),
            body,
            asked,
            f"{base}/placement",
            Request(headers[0][1], self.cloud.admin_user, self.cloud.admin_project),
            headers,
        )
        try:
            with self.cloud.lock:
                return self._dispatch(self._placement, call, path)
        except Refused as no:
            error = {
                "status": no.status,
                "title": _REASONS.get(no.status, ""),
                "detail": str(no),
                "request_id": headers[0][1],
            }
            if asked >= (1, 23):
                error["code"] = "placement.undefined_code"
            return no.status, {"errors": [error]}

    def _tree(self, host: Host) -> list[Provider]:
        return [host.provider, *host.children]

    def _provider_body(self, call: _Call, provider: Provider) -> Json:
        base = f"/resource_providers/{provider.uuid}"
        kinds = ["inventories", "usages"]
        for since, kind in (((1, 1), "aggregates"), ((1, 6), "traits"), ((1, 11), "allocations")):
            if call.version >= since:
                kinds.append(kind)
        body: Json = {
            "uuid": provider.uuid,
            "name": provider.name,
            "generation": provider.generation,
            "links": [{"rel": "self", "href": base}, *({"rel": kind, "href": f"{base}/{kind}"} for kind in kinds)],
        }
        if call.version >= (1, 14):
            body |= {"parent_provider_uuid": provider.parent, "root_provider_uuid": provider.root}
        return body

    def _providers(self, call: _Call) -> Answer:
        allowed = {"name", "uuid"} | ({"in_tree"} if call.version >= (1, 14) else set())
        unknown = {key for key, _ in call.query} - allowed - {"member_of", "resources", "required"}
        if unknown:
            raise Refused(
                400,
                "Invalid query string parameters: Additional properties are not allowed "
                f"('{min(unknown)}' was unexpected)",
            )
        name, ident, tree = call.one("name"), call.one("uuid"), call.one("in_tree")
        rows: Iterable[Provider]
        if tree is not None:
            found = self._find_provider(tree)
            rows = [] if found is None else self._tree(found[0])
        elif ident is not None:
            found = self._find_provider(ident)
            rows = [] if found is None else [found[1]]
        else:
            rows = (provider for host in self.cloud.hosts.values() for provider in self._tree(host))
        return 200, {
            "resource_providers": [
                self._provider_body(call, row) for row in rows if name in (None, row.name) and ident in (None, row.uuid)
            ]
        }

    def _find_provider(self, ident: str) -> tuple[Host, Provider] | None:
        host = self.cloud.hosts_by_provider.get(ident)
        if host is not None:
            return host, host.provider
        for host in self.cloud.hosts.values():
            for child in host.children:
                if child.uuid == ident:
                    return host, child
        return None

    def _provider(self, ident: str) -> Provider:
        found = self._find_provider(ident)
        if found is None:
            raise Refused(404, f"Resource provider '{ident}' not found: No resource provider with uuid {ident} found")
        return found[1]

    def _provider_show(self, call: _Call, ident: str) -> Answer:
        return 200, self._provider_body(call, self._provider(ident))

    def _allocations(self, call: _Call, ident: str) -> Answer:
        provider = self._provider(ident)
        found: Json = {}
        for consumer, flavor in provider.allocations.items():
            found[consumer] = {
                "resources": {"DISK_GB": flavor.disk_gb, "MEMORY_MB": flavor.memory_mb, "VCPU": flavor.vcpus}
            }
            if call.version >= (1, 28):
                found[consumer]["consumer_generation"] = 1
        return 200, {"allocations": found, "resource_provider_generation": provider.generation}

    def _traits(self, call: _Call, ident: str) -> Answer:
        if call.version < (1, 6):
            raise Refused(404, "The resource could not be found.")
        provider = self._provider(ident)
        return 200, {"traits": sorted(provider.traits), "resource_provider_generation": provider.generation}

    def _consumer(self, call: _Call, ident: str) -> Answer:
        found = {
            provider.uuid: {
                "generation": provider.generation,
                "resources": {"DISK_GB": flavor.disk_gb, "MEMORY_MB": flavor.memory_mb, "VCPU": flavor.vcpus},
            }
            for host in self.cloud.hosts.values()
            for provider in self._tree(host)
            if (flavor := provider.allocations.get(ident)) is not None
        }
        return 200, {"allocations": found}


_REASONS = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    300: "Multiple Choices",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def _half(text: bytes) -> Iterator[bytes]:
    """Half of what was announced, then an exception, on which cheroot hangs up."""
    yield text[: max(1, len(text) // 2)]
    raise _Cut("told to hang up in mid-answer")


def _fault_body(service: str, status: int) -> Json:
    message = {403: "Policy doesn't allow this request to be performed.", 503: "Service Unavailable"}.get(
        status, "Unexpected API Error."
    )
    if service == "placement":
        return {"errors": [{"status": status, "title": _REASONS.get(status, ""), "detail": message}]}
    if service == "identity":
        return {"error": {"code": status, "title": _REASONS.get(status, ""), "message": message}}
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


def _object(body: Any, name: str) -> Json:
    value = body.get(name) if isinstance(body, dict) else None
    if not isinstance(value, dict):
        raise Refused(400, f"Invalid input for field/attribute {name}.")
    return value


def _number(text: str) -> int:
    if not text.isdigit():
        raise Refused(404, f"Migration {text} could not be found.")
    return int(text)


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

    def cloud_config(self, auth_type: str = "password") -> Json:
        """What stands under a cloud's name in clouds.yaml, and what `openstack.connect(**...)` takes."""
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
                "username": "admin",
                "password": "simulator",
                "project_name": "admin",
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
        }
