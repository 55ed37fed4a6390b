"""May we see what we must see? A few real questions whose answers betray missing rights.

Nova does not always refuse: without `servers:allow_all_filters` it drops the host filter in silence, without
`os-migrations:index:host` it shows migrations without hosts, without the extended attributes servers without theirs
(facts 4). A daemon that believed such answers would find every host empty, or none. So this module asks for a host that
does not exist, and looks for the fields that must be there. Every finding is a sentence that names the policy rule to
grant. Nothing is changed, and nothing is concluded about the fleet.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from maintd.nova.answers import Answer

NO_SUCH_HOST = "maintd-asks-for-a-host-that-is-not-there"


@dataclass(frozen=True, slots=True)
class Rights:
    """What the self-check found. `ok` is False where a proof could not be trusted or not be made; `findings` are
    sentences, and with `ok` they only say what could not be tried."""

    ok: bool
    findings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Tried:
    """One question that was asked, or could not be.

    `wrong` is a sentence where the answer cannot be used, `untried` one where there was nothing to ask about. `status`
    is HTTP's, None where no answer came. `host_filter` says that the question was for a host that does not exist.
    """

    what: str
    service: str
    rules: str
    status: int | None = None
    wrong: str | None = None
    untried: str | None = None
    host_filter: bool = False
    took_s: float = 0.0

    @property
    def advice(self) -> str:
        """What to grant, as the end of a sentence; nothing where a right would not help."""
        return f"Grant {self.rules} to the user of [cloud]." if self.status in (401, 403, 404) else ""


class _Api(Protocol):
    def services(self) -> Iterator[Answer]: ...
    def hypervisors(self) -> Iterator[Answer]: ...
    def hypervisor(self, node: str) -> Answer: ...
    def servers(self, host: str | None = None) -> Iterator[Answer]: ...
    def server(self, server_id: str) -> Answer: ...
    def migrations_of_host(self, host: str) -> Iterator[Answer]: ...
    def server_migrations(self, server_id: str) -> Answer: ...
    def providers(self, root: str) -> Answer: ...
    def allocations(self, provider: str) -> Answer: ...
    def traits(self, provider: str) -> Answer: ...
    def a_server(self) -> Answer: ...
    def some_migrations(self) -> Answer: ...


def check_rights(api: _Api) -> Rights:
    """Ask, and say what is missing. Never raises for what Nova does."""
    tried = tuple(try_rights(api))
    wrong = dict.fromkeys(f"{one.wrong} {one.advice}".rstrip() for one in tried if one.wrong is not None)
    return Rights(not wrong, (*wrong, *(one.untried for one in tried if one.untried is not None)))


def try_rights(api: _Api) -> Iterator[Tried]:
    """Ask one question after the other, each by a real call; ends early where nothing can be reached."""
    services = next(api.services())
    yield _tried("os-services", services, "os_compute_api:os-services:list")
    if services.error is not None and services.status is None:
        return  # more questions would only say it again
    yield from _nodes(api)
    yield from _servers(api)
    answer = api.some_migrations()
    rules = "os_compute_api:os-migrations:index (and, since Nova 32, its :all_projects and :host)"
    yield _tried("os-migrations", answer, rules)
    if answer.error is None:
        yield _tried("os-migrations of a host", next(api.migrations_of_host(NO_SUCH_HOST)), rules, host_filter=True)
        if not _rows(answer, "migrations"):
            text = "There is no migration yet, so it is not known whether their hosts would be shown."
            yield Tried("the hosts of migrations", "compute", rules, untried=text)


def _nodes(api: _Api) -> Iterator[Tried]:
    listed = next(api.hypervisors())
    yield _tried("os-hypervisors", listed, "os_compute_api:os-hypervisors:list-detail")
    if listed.error is not None:
        return
    rows = _rows(listed, "hypervisors")
    if not rows:
        text = "Nova knows no compute node yet, so neither os-hypervisors nor Placement could be tried."
        yield Tried("a compute node", "placement", "", untried=text)
        return
    node = str(rows[0]["id"])
    yield _tried("a compute node", api.hypervisor(node), "os_compute_api:os-hypervisors:show")
    yield _tried("resource_providers", api.providers(node), "placement:resource_providers:list")
    yield _tried("allocations", api.allocations(node), "placement:resource_providers:allocations:list")
    yield _tried("traits", api.traits(node), "placement:resource_providers:traits:list")


def _servers(api: _Api) -> Iterator[Tried]:
    answer = api.a_server()
    rules = "os_compute_api:servers:detail and os_compute_api:servers:detail:get_all_tenants"
    yield _tried("servers", answer, rules)
    if answer.error is not None:
        return
    rows = _rows(answer, "servers")
    if not rows:
        text = "There is no server yet, so it is not known whether servers may be filtered by host."
        yield Tried("servers of a host", "compute", rules, untried=text)
        return
    yield _tried("servers of a host", next(api.servers(NO_SUCH_HOST)), rules, host_filter=True)
    server_id = str(rows[0]["id"])
    yield _tried("a server", api.server(server_id), "os_compute_api:servers:show")
    migrations = api.server_migrations(server_id)
    yield _tried("the migrations of a server", migrations, "os_compute_api:servers:migrations:index")


def _tried(what: str, answer: Answer, rules: str, *, host_filter: bool = False) -> Tried:
    took_s = max(0.0, answer.at - (answer.asked_at or answer.at))
    return Tried(what, answer.service, rules, answer.status, answer.error, None, host_filter, took_s)


def _rows(answer: Answer, field: str) -> Sequence[Any]:
    return answer.body[field] if isinstance(answer.body, dict) else ()
