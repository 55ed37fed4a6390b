"""Nova's and Placement's REST APIs, read through openstacksdk: one question in, one `Answer` out.

The SDK finds the endpoints, authenticates, agrees on versions and keeps connections; the questions themselves are plain
GETs through its proxies, because what a proof rests on is the exact answer and not a resource object made of it. Every
call is bounded in time, is paced by whoever owns the budget, and is counted. Nova's faults are never raised: an answer
that did not come, came in half, was refused or is not what was asked for carries `error`, one sentence without secrets,
and whoever reads it must conclude nothing from it.

Two traps are shut here. A list is only ever as good as its filter: where Nova's policy does not let us filter by host,
the filter is dropped in silence and the whole cloud comes back, so each row is held against the question. And a list
may be cut short: pages are followed to the last one, by the marker of the link and never by its address, and a link
that leads nowhere new is an error.

What it does not do: it changes nothing in the cloud, keeps no state of the fleet, schedules nothing, and does not say
what an answer means; `answers.py` does.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import openstack
import openstack.exceptions
import requests
import urllib3
from keystoneauth1 import exceptions as keystone
from keystoneauth1.adapter import Adapter

from maintd import __version__
from maintd.clock import Clock
from maintd.domain.migrations import RELEASED_STATUSES
from maintd.errors import OperatorError
from maintd.nova.answers import Answer
from maintd.nova.rights import Rights, check_rights
from maintd.nova.shown import Reading

COMPUTE, PLACEMENT = "compute", "placement"
NAMES = {COMPUTE: "Nova", PLACEMENT: "Placement"}

OPEN_STATUSES = (
    "accepted",
    "queued",
    "preparing",
    "running",
    "running (post-copy)",
    "pre-migrating",
    "migrating",
    "post-migrating",
    "finished",
    "confirming",
    "reverting",
    "done",
)
"""Every status under which a migration still holds a host (facts 4.2); Nova takes one status a call."""

PAGE = 1000
SMALLEST_PAGE = 125
MAX_BODY_BYTES = 64 * 1024 * 1024
MAX_CONSUMERS = 200
HOST_FIELD = "OS-EXT-SRV-ATTR:host"

NEEDED = {COMPUTE: (2, 75), PLACEMENT: (1, 14)}
"""The microversion without which some question of a proof cannot be asked at all (Train)."""
WANTED = {COMPUTE: (2, 80), PLACEMENT: (1, 28)}
"""The microversion from which on every question is asked as it should be."""

OK, NOT_FOUND, REFUSED, FAILED = "ok", "not_found", "refused", "failed"
TIMED_OUT, UNREACHABLE, UNREADABLE = "timed_out", "unreachable", "unreadable"
OUTCOMES = (OK, NOT_FOUND, REFUSED, FAILED, TIMED_OUT, UNREACHABLE, UNREADABLE)
"""The closed set of labels that `on_call` is given."""

_RETRIED = frozenset({502, 503, 504})
_USERINFO = re.compile(r"//[^/@\s]*@")

Query = Sequence[tuple[str, str]]
Check = Callable[[Any], str | None]


class Cloud(Protocol):
    """What is needed of the configuration; `maintd.config.CloudConfig` is it."""

    @property
    def cloud(self) -> str | None: ...
    @property
    def timeout_s(self) -> float: ...
    def connect_options(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of question: the version it is asked in (at least `need`, at most `want`) and the field that answers."""

    service: str
    want: tuple[int, int]
    need: tuple[int, int]
    field: str
    type: type


_SERVICES = _Kind(COMPUTE, (2, 69), (2, 53), "services", list)
_HYPERVISORS = _Kind(COMPUTE, (2, 75), (2, 53), "hypervisors", list)
_HYPERVISOR = _Kind(COMPUTE, (2, 75), (2, 75), "hypervisor", dict)  # from 2.88 on this call may ask the compute itself
_SERVERS = _Kind(COMPUTE, (2, 69), (2, 16), "servers", list)
_SERVER = _Kind(COMPUTE, (2, 69), (2, 16), "server", dict)
_MIGRATIONS = _Kind(COMPUTE, (2, 80), (2, 59), "migrations", list)
_PROVIDERS = _Kind(PLACEMENT, (1, 14), (1, 14), "resource_providers", list)
_ALLOCATIONS = _Kind(PLACEMENT, (1, 28), (1, 0), "allocations", dict)
_TRAITS = _Kind(PLACEMENT, (1, 6), (1, 6), "traits", list)


@dataclass(frozen=True, slots=True)
class Asking:
    """On whose behalf a question is asked; carried into the answer and so into a recording."""

    purpose: str | None = None
    pass_number: int | None = None
    host: str | None = None


class _Unusable(Exception):
    """No answer: `outcome` for the counter, the text for people."""

    def __init__(self, outcome: str, text: str, *, again: bool = False) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.again = again


def _ignore(service: str, outcome: str) -> None:
    return None


def _at_once(purpose: str | None) -> bool:
    return True


class NovaApi:
    """The questions that maintd asks a cloud. Safe to use from several threads.

    `on_call(service, outcome)` counts every HTTP call. `pace(purpose)`, which whoever owns the budget of calls sets, is
    called before each and blocks until it may be made; where it returns False, the call is not made and the answer says
    so. Raises OperatorError where the cloud's configuration itself is wrong; no network is touched before the first
    question.
    """

    def __init__(
        self,
        cloud: Cloud,
        clock: Clock,
        on_call: Callable[[str, str], None] = _ignore,
        *,
        pace: Callable[[str | None], bool] = _at_once,
        pause: Callable[[float], object] | None = None,
    ) -> None:
        self._cloud = cloud
        self._clock = clock
        self._on_call = on_call
        self.pace = pace
        self._pause = pause or threading.Event().wait
        self._lock = threading.Lock()
        self._proxies: dict[str, tuple[Adapter, tuple[int, int] | None]] = {}
        self.clocks: dict[str, Reading] = {}
        """The last look at each service's clock."""
        self._refusals: dict[str, tuple[float, _Unusable]] = {}
        self._connection: Any = self._connect()

    # -- the questions ------------------------------------------------------------------------------------------------

    def services(self, *, purpose: str | None = "reconcile") -> Iterator[Answer]:
        """All nova-compute services, those of cells that do not answer included (status UNKNOWN)."""
        yield self._ask(_SERVICES, "/os-services", (("binary", "nova-compute"),), Asking(purpose))

    def service(self, host: str, *, asking: Asking | None = None) -> Answer:
        """The nova-compute service of one host."""
        query = (("binary", "nova-compute"), ("host", host))
        who = asking or Asking("reconcile", host=host)
        return self._ask(_SERVICES, "/os-services", query, who, check=_of_host(host, "host"))

    def hypervisors(self, *, asking: Asking | None = None) -> Iterator[Answer]:
        """All compute nodes, page by page: which host each belongs to."""
        return self._pages(_HYPERVISORS, "/os-hypervisors/detail", (), asking or Asking("reconcile"))

    def hypervisor(self, node: str, *, asking: Asking | None = None) -> Answer:
        """One compute node by uuid and all servers of its host, soft-deleted and hidden too; 404 is an answer."""
        path = f"/os-hypervisors/{quote(node, safe='')}"
        return self._ask(
            _HYPERVISOR,
            path,
            (("with_servers", "true"),),
            asking or Asking("reconcile"),
            may_miss=True,
            check=_with_servers,
        )

    def servers(
        self, host: str | None = None, changes_since: float | None = None, *, asking: Asking | None = None
    ) -> Iterator[Answer]:
        """The servers of one host or of the whole cloud, soft-deleted ones included, page by page.

        With `changes_since` (seconds since the epoch) only those changed since, deleted ones included; rows that were
        never updated are missing from that (facts 4.1).
        """
        query = [("all_tenants", "1"), ("soft_deleted", "1")]
        if host is not None:
            query.append(("host", host))
        if changes_since is not None:
            query.append(("changes-since", _iso(changes_since)))
        check = _server_rows if host is None else _both(_server_rows, _of_host(host, HOST_FIELD))
        return self._pages(_SERVERS, "/servers/detail", query, asking or Asking("reconcile", host=host), check=check)

    def server(self, server_id: str, *, asking: Asking | None = None) -> Answer:
        """One server; 404 is an answer."""
        path = f"/servers/{quote(server_id, safe='')}"
        return self._ask(_SERVER, path, (), asking or Asking("reconcile"), may_miss=True, check=_server_row)

    def open_migrations(self, *, purpose: str | None = "reconcile") -> Iterator[Answer]:
        """Every migration that still holds a host: one list per status, each page by page."""
        for status in OPEN_STATUSES:
            for answer in self._migrations((("status", status),), Asking(purpose)):
                yield answer
                if answer.error:
                    return

    def migrations_of_host(self, host: str, *, asking: Asking | None = None) -> Iterator[Answer]:
        """Every migration row of the host's living servers, whatever its status, page by page."""
        return self._migrations((("host", host),), asking or Asking("reconcile", host=host), check=_rows_touch(host))

    def migrations_of_server(self, server_id: str, *, purpose: str | None = "reconcile") -> Iterator[Answer]:
        """Every migration row of one server, page by page."""
        return self._migrations((("instance_uuid", server_id),), Asking(purpose))

    def migrations_changed(self, since: float, *, purpose: str | None = "reconcile") -> Iterator[Answer]:
        """Migration rows that changed since a moment (seconds since the epoch), wherever; page by page.

        One call for all migrations that are about to end. Rows that were never updated are missing (facts 4.1).
        """
        return self._migrations((("changes-since", _iso(since)),), Asking(purpose))

    def migrations_with_status(self, status: str, *, purpose: str | None = "progress") -> Iterator[Answer]:
        """All migrations of one status, page by page."""
        return self._migrations((("status", status),), Asking(purpose))

    def server_migrations(self, server_id: str, *, purpose: str | None = "progress") -> Answer:
        """The live migrations of a server that are under way, with byte counters; 404 is an answer."""
        path = f"/servers/{quote(server_id, safe='')}/migrations"
        return self._ask(_MIGRATIONS, path, (), Asking(purpose), may_miss=True)

    def providers(self, root: str, *, asking: Asking | None = None) -> Answer:
        """The provider tree that a compute node is in."""
        return self._ask(_PROVIDERS, "/resource_providers", (("in_tree", root),), asking or Asking("reconcile"))

    def allocations(self, provider: str, *, asking: Asking | None = None) -> Answer:
        """Who holds resources of a provider."""
        path = f"/resource_providers/{quote(provider, safe='')}/allocations"
        return self._ask(_ALLOCATIONS, path, (), asking or Asking("reconcile"))

    def traits(self, provider: str, *, asking: Asking | None = None) -> Answer:
        """The traits of a provider."""
        path = f"/resource_providers/{quote(provider, safe='')}/traits"
        return self._ask(_TRAITS, path, (), asking or Asking("reconcile"))

    def verify(self, host: str, nodes: Sequence[str], pass_number: int) -> Iterator[Answer]:
        """The reads of one verification pass over a host, in the order that makes them a proof (facts 6.3).

        `nodes` are the host's compute nodes as far as known; unknown ones are looked up first (those answers belong to
        no pass). The first answer with an error is the last: the pass is spoilt.
        """
        asking = Asking("verify", pass_number, host)
        if not nodes:
            looked_up: list[str] = []
            for answer in self.hypervisors():
                if answer.error:
                    yield replace(answer, purpose="verify", pass_number=pass_number, host=host)
                    return
                yield answer
                looked_up += nodes_of(answer, host)
            if not looked_up:
                text = f"Nova knows no compute node of {host}, so there is none whose allocations could be read."
                yield self._spoil(_HYPERVISOR, "GET /os-hypervisors/detail", text, asking)
                return
            nodes = looked_up
        yield from self._verify(host, tuple(nodes), asking)

    def _verify(self, host: str, nodes: tuple[str, ...], asking: Asking) -> Iterator[Answer]:
        rows: dict[str, dict[str, Any]] = {}
        here: set[str] = set()
        for answer in self.migrations_of_host(host, asking=asking):
            yield answer
            if answer.error:
                return
            rows.update((row["uuid"], row) for row in answer.body["migrations"])
        for node in nodes:
            answer = self.hypervisor(node, asking=asking)
            if answer.status == 404:
                for listed in self.hypervisors():  # so that the next pass knows better
                    if listed.error is None:
                        yield listed
                answer = replace(answer, error=f"Nova no longer knows the compute node {node} of {host}.")
            yield answer
            if answer.error:
                return
            here.update(row["uuid"] for row in answer.body["hypervisor"]["servers"])
        for answer in self.servers(host, asking=asking):
            yield answer
            if answer.error:
                return
            here.update(row["id"] for row in answer.body["servers"])
        consumers: set[str] = set()
        for node in nodes:
            tree = self.providers(node, asking=asking)
            yield tree
            if tree.error:
                return
            for provider in tree.body["resource_providers"]:
                answer = self.allocations(provider["uuid"], asking=asking)
                yield answer
                if answer.error:
                    return
                consumers.update(answer.body["allocations"])
        for node in nodes:
            answer = self.traits(node, asking=asking)
            yield answer
            if answer.error:
                return
        # An evacuation that is done stays so until its source runs again, and explains nothing that is held here.
        over = RELEASED_STATUSES | {"done"}
        moving = {row["instance_uuid"] for row in rows.values() if row["status"] not in over}
        for consumer in sorted(consumers - here - moving - rows.keys())[:MAX_CONSUMERS]:
            answer = self.server(consumer, asking=asking)
            yield answer
            if answer.error:
                return
        for answer in self.migrations_of_host(host, asking=asking):
            yield answer
            if answer.error:
                return
        yield self.service(host, asking=asking)

    def a_server(self) -> Answer:
        """Any one server, for the self-check."""
        query = (("all_tenants", "1"), ("soft_deleted", "1"), ("limit", "1"))
        return self._ask(_SERVERS, "/servers/detail", query, Asking("reconcile"), check=_server_rows)

    def some_migrations(self) -> Answer:
        """A few migrations, for the self-check."""
        return self._ask(_MIGRATIONS, "/os-migrations", (("limit", "50"),), Asking("reconcile"), check=_migration_rows)

    def self_check(self) -> Rights:
        """Ask a few questions whose answers show which rights are missing; each finding names the rule to grant."""
        return check_rights(self)

    def spoken(self, service: str) -> tuple[tuple[int, int] | None, str | None]:
        """The newest microversion that a service speaks (None: it does not say), and why it could not be asked."""
        try:
            return self._proxy(service)[1], None
        except _Unusable as wrong:
            return None, str(wrong)

    def endpoint(self, service: str) -> str | None:
        """Where a service was found, without what somebody may have put before an @; None while it was not."""
        with self._lock:
            found = self._proxies.get(service)
        url = found[0].get_endpoint() if found is not None else None
        return _USERINFO.sub("//", url) if url else None

    # -- how a question is asked --------------------------------------------------------------------------------------

    def _migrations(self, query: Query, asking: Asking, check: Check | None = None) -> Iterator[Answer]:
        both = _migration_rows if check is None else _both(_migration_rows, check)
        return self._pages(_MIGRATIONS, "/os-migrations", query, asking, check=both)

    def _pages(
        self, kind: _Kind, path: str, query: Query, asking: Asking, *, check: Check | None = None
    ) -> Iterator[Answer]:
        limit, marker = PAGE, ""
        seen: set[str] = set()
        while True:
            page = [*query, ("limit", str(limit))] + ([("marker", marker)] if marker else [])
            answer = self._ask(kind, path, page, asking, check=check)
            if answer.status is None and limit > SMALLEST_PAGE and _timed_out(answer):
                limit //= 2  # a cloud too slow for a big page is asked for a small one before it is given up
                continue
            following = None
            if not answer.error:
                following, wrong = self._following(kind, path, query, asking, answer, seen)
                if wrong:
                    answer = replace(answer, error=wrong)
            yield answer
            if answer.error or following is None:
                return
            marker = following
            seen.add(marker)

    def _following(
        self, kind: _Kind, path: str, query: Query, asking: Asking, answer: Answer, seen: set[str]
    ) -> tuple[str | None, str | None]:
        """The marker of the next page (None: this was the last), and what is wrong with the links."""
        rows = answer.body[kind.field]
        links = answer.body.get(f"{kind.field}_links") or []
        href = next((link.get("href", "") for link in links if link.get("rel") == "next"), None)
        if href is not None:
            marker = dict(parse_qsl(urlsplit(href).query)).get("marker")
            if not marker or marker in seen or not rows:
                return None, f"{NAMES[kind.service]} gave a next page for {answer.request} that leads nowhere."
            return marker, None
        if kind is _MIGRATIONS and rows and (-len(rows)) % 50 <= 5:
            # Nova takes hidden rows out of a page after cutting it, and then forgets the link; where the page is about
            # as long as a page may be, ask whether anything follows.
            more = self._ask(kind, path, [*query, ("limit", "1"), ("marker", rows[-1]["uuid"])], asking)
            if more.error or more.body[kind.field]:
                return None, more.error or f"Nova cut the list short without a link to the rest: {answer.request}."
        return None, None

    def _ask(
        self,
        kind: _Kind,
        path: str,
        query: Query,
        asking: Asking,
        *,
        may_miss: bool = False,
        check: Check | None = None,
    ) -> Answer:
        text = f"{path}?{urlencode(query)}" if query else path
        answer = Answer(
            at=0.0,
            service=kind.service,
            request=f"GET {text}",
            microversion=None,
            status=None,
            body=None,
            asked_at=self._clock.now(),
            purpose=asking.purpose,
            pass_number=asking.pass_number,
            host=asking.host,
            error=None,
        )
        tries = 2
        while True:
            tries -= 1
            if not self.pace(asking.purpose):
                return replace(answer, at=self._clock.now(), error="maintd is stopping, so the question was not asked.")
            try:
                version, status, body = self._get(kind, text)
            except _Unusable as wrong:
                self._on_call(kind.service, wrong.outcome)
                if wrong.again and tries:
                    self._pause(0.25)
                    continue
                return replace(answer, at=self._clock.now(), error=str(wrong))
            if status in _RETRIED and tries:
                self._on_call(kind.service, FAILED)
                self._pause(0.25)
                continue
            break
        if status == 406:
            self._forget(kind.service)
        outcome, error = _judge(kind, f"GET {text}", status, body, may_miss, check)
        self._on_call(kind.service, outcome)
        return replace(answer, at=self._clock.now(), microversion=version, status=status, body=body, error=error)

    def _get(self, kind: _Kind, path: str) -> tuple[str | None, int, Any]:
        """One GET: microversion, status, parsed body. Raises _Unusable."""
        name, limit_s = NAMES[kind.service], self._cloud.timeout_s
        proxy, newest = self._proxy(kind.service)
        if newest is not None and newest < kind.need:
            raise _Unusable(
                FAILED,
                f"This {name} speaks microversion {_dotted(newest)} at most and is too old: maintd needs "
                f"{_dotted(kind.need)} for {kind.field}.",
            )
        version = _dotted(kind.want if newest is None else min(kind.want, newest))
        asked_at = self._clock.now()
        until = self._clock.monotonic() + limit_s
        try:
            # keystoneauth's own retries are off: they would sleep for as long as a Retry-After says, unpaced and
            # uncounted. The SDK's cache is off: a remembered answer proves nothing.
            response = proxy.get(
                path,
                microversion=version,
                raise_exc=False,
                connect_retries=0,
                status_code_retries=0,
                log=False,
                stream=True,
                skip_cache=True,
            )
            self._look_at_clock(kind.service, asked_at, response.headers.get("Date"))
            with response:
                content = self._body(response, until, f"{name} {_LATE} {limit_s:g} s (GET {path}).")
        except _Unusable:
            raise
        except Exception as wrong:
            raise _reason(wrong, name, f"GET {path}", limit_s) from wrong
        try:
            return version, response.status_code, json.loads(content) if content else None
        except ValueError:
            if response.status_code == 200:
                raise _Unusable(
                    UNREADABLE, f"{name}'s answer to GET {path} is not JSON ({len(content)} bytes of it came)."
                ) from None
            return version, response.status_code, None

    def _look_at_clock(self, service: str, asked_at: float, date: str | None) -> None:
        try:
            moment = parsedate_to_datetime(date or "").timestamp()
        except (ValueError, TypeError, OverflowError):
            return
        self.clocks[service] = Reading(service, asked_at, moment, self._clock.now())

    def _body(self, response: requests.Response, until: float, late: str) -> bytes:
        """The whole body, however slowly it drips, but no later and no bigger than is reasonable."""
        parts, size = [], 0
        while part := response.raw.read1(65536, decode_content=True):
            size += len(part)
            if size > MAX_BODY_BYTES:
                raise _Unusable(
                    UNREADABLE, f"an answer of more than {MAX_BODY_BYTES // 1024 // 1024} MiB was not read."
                )
            parts.append(part)
            if self._clock.monotonic() > until:
                raise _Unusable(TIMED_OUT, late)
        return b"".join(parts)

    # -- the connection -----------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        try:
            return openstack.connect(app_name="maintd", app_version=__version__, **self._cloud.connect_options())
        except Exception as wrong:  # whatever the SDK trips over in a file that it did not expect
            which = f"cloud {self._cloud.cloud!r}" if self._cloud.cloud else "[cloud]"
            raise OperatorError(f"The configuration of {which} cannot be used: {_clean(str(wrong))}") from wrong

    def _proxy(self, service: str) -> tuple[Adapter, tuple[int, int] | None]:
        """The SDK's proxy of a service and the newest microversion it speaks. Raises _Unusable.

        Discovery is done by one thread while the others wait, and a failure is believed for a moment, so that a dead
        Keystone is not asked once per thread, nor a wrong password often enough to lock the account.
        """
        with self._lock:
            found = self._proxies.get(service)
            if found is not None:
                return found
            until, refusal = self._refusals.get(service, (0.0, None))
            if refusal is not None and self._clock.monotonic() < until:
                raise _Unusable(refusal.outcome, str(refusal))
            try:
                if self._connection is None:
                    self._connection = self._connect()
                proxy = getattr(self._connection, service)
                data = proxy.get_endpoint_data()
            except Exception as wrong:
                if isinstance(wrong, OperatorError):  # somebody is writing clouds.yaml just now, for example
                    refusal = _Unusable(FAILED, str(wrong))
                else:
                    refusal = _reason(wrong, NAMES[service], "the first question", self._cloud.timeout_s)
                hold_s = 30.0 if refusal.outcome == REFUSED else 2.0
                self._refusals[service] = (self._clock.monotonic() + hold_s, refusal)
                self._connection = None  # made anew: the SDK remembers a service that it did not find
                raise refusal from wrong
            newest = data.max_microversion if data is not None else None
            found = (proxy, tuple(newest[:2]) if newest else None)
            self._proxies[service] = found
            return found

    def _forget(self, service: str) -> None:
        """Discover anew: the service no longer speaks the version that was agreed upon."""
        with self._lock:
            self._proxies.pop(service, None)
            self._connection = None

    def _spoil(self, kind: _Kind, request: str, error: str, asking: Asking) -> Answer:
        now = self._clock.now()
        return Answer(
            at=now,
            service=kind.service,
            request=request,
            microversion=None,
            status=None,
            body=None,
            asked_at=now,
            purpose=asking.purpose,
            pass_number=asking.pass_number,
            host=asking.host,
            error=error,
        )


# -- reading answers, as far as is needed to trust them ---------------------------------------------------------------


def nodes_of(answer: Answer, host: str) -> list[str]:
    """Uuids of the compute nodes of a host in a page of hypervisors."""
    return [row["id"] for row in answer.body["hypervisors"] if (row.get("service") or {}).get("host") == host]


def _judge(
    kind: _Kind, request: str, status: int, body: Any, may_miss: bool, check: Check | None
) -> tuple[str, str | None]:
    """The outcome of an answer, and what is wrong with it."""
    name = NAMES[kind.service]
    if status == 200:
        value = body.get(kind.field) if isinstance(body, dict) else None
        if not isinstance(value, kind.type) or value is None:
            return UNREADABLE, f"{name}'s answer to {request} has no {kind.field}."
        if isinstance(value, list) and kind is not _TRAITS and not all(isinstance(row, dict) for row in value):
            return UNREADABLE, f"{name}'s answer to {request} has {kind.field} that are no objects."
        try:
            wrong = check(value) if check else None
        except (KeyError, TypeError, AttributeError) as missing:
            return UNREADABLE, f"{name}'s answer to {request} lacks a field ({missing})."
        return (UNREADABLE, f"{wrong} ({request})") if wrong else (OK, None)
    if status == 404 and may_miss:
        return NOT_FOUND, None
    outcome = REFUSED if status in (401, 403) else NOT_FOUND if status == 404 else FAILED
    said = _message(body)
    return outcome, f"{name} answered {status} to {request}" + (f": {said}" if said else ".")


def _message(body: Any) -> str:
    """What an error document says, in Nova's shape or in Placement's."""
    if not isinstance(body, Mapping):
        return ""
    errors = body.get("errors")
    if isinstance(errors, list) and errors and isinstance(errors[0], Mapping):
        return _clean(str(errors[0].get("detail") or errors[0].get("title") or ""))
    for fault in body.values():
        if isinstance(fault, Mapping) and "message" in fault:
            return _clean(str(fault["message"]))
    return ""


def _server_rows(rows: list[dict[str, Any]]) -> str | None:
    for row in rows:
        if wrong := _server_row(row):
            return wrong
    return None


def _server_row(row: dict[str, Any]) -> str | None:
    if HOST_FIELD in row:
        return None
    if row["status"] == "UNKNOWN":
        return f"Nova knows nothing but the name of server {row['id']}: its cell does not answer."
    return f"Nova does not say on which host server {row['id']} is: grant os_compute_api:os-extended-server-attributes."


def _migration_rows(rows: list[dict[str, Any]]) -> str | None:
    for row in rows:
        if not (row["uuid"] and row["instance_uuid"] and row["status"]):
            return "A migration has no uuid, no server or no status."
        if row["source_compute"] is None and row["dest_compute"] is None:
            return "Nova hides the hosts of migrations: grant os_compute_api:os-migrations:index:host."
    return None


def _with_servers(hypervisor: dict[str, Any]) -> str | None:
    for row in hypervisor["servers"]:
        row["uuid"]
    return None


def _of_host(host: str, field: str) -> Check:
    def check(rows: list[dict[str, Any]]) -> str | None:
        for row in rows:
            if row[field] != host:
                return "Nova did not filter by host: grant os_compute_api:servers:allow_all_filters."
        return None

    return check


def _rows_touch(host: str) -> Check:
    def check(rows: list[dict[str, Any]]) -> str | None:
        for row in rows:
            if host not in (row["source_compute"], row["dest_compute"]):
                return "Nova did not filter migrations by host."
        return None

    return check


def _both(one: Check, other: Check) -> Check:
    return lambda value: one(value) or other(value)


def _timed_out(answer: Answer) -> bool:
    return answer.error is not None and _LATE in answer.error


# -- sentences --------------------------------------------------------------------------------------------------------

_LATE = "did not answer in"


def _reason(wrong: Exception, name: str, request: str, limit_s: float) -> _Unusable:
    """Why there is no answer, by the exception that the SDK, keystoneauth, requests or urllib3 raised."""
    said = _clean(str(wrong))
    match wrong:
        case keystone.ConnectTimeout() | requests.exceptions.Timeout() | urllib3.exceptions.ReadTimeoutError():
            return _Unusable(TIMED_OUT, f"{name} {_LATE} {limit_s:g} s ({request}).")
        case keystone.Unauthorized() | keystone.Forbidden() | keystone.AuthorizationFailure():
            return _Unusable(REFUSED, f"Keystone does not accept the credentials of [cloud]: {said}")
        case keystone.EndpointNotFound() | openstack.exceptions.ServiceDisabledException():
            return _Unusable(
                UNREACHABLE, f"The cloud's catalogue has no {name} for this region and interface ({said})."
            )
        case keystone.AuthPluginException():
            return _Unusable(REFUSED, f"The credentials of [cloud] are incomplete: {said}")
        case keystone.SSLError():
            return _Unusable(UNREACHABLE, f"{name}'s certificate is not trusted: {said}")
        case keystone.ConnectionError() | requests.exceptions.ConnectionError():
            return _Unusable(UNREACHABLE, f"{name} cannot be reached: {said}", again=True)
        case urllib3.exceptions.HTTPError() | OSError():
            return _Unusable(UNREADABLE, f"{name}'s answer to {request} broke off: {said}", again=True)
        case keystone.ClientException() | openstack.exceptions.SDKException():
            return _Unusable(FAILED, f"{name} could not be asked ({request}): {said}")
        case _:
            return _Unusable(FAILED, f"{name} could not be asked ({request}): {type(wrong).__name__}: {said}")


def _clean(text: str) -> str:
    """One line, bounded, without what somebody may have put before the @ of an address."""
    return _USERINFO.sub("//", " ".join(text.split()))[:400]


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
