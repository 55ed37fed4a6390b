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


class _Findings:
    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.untried: list[str] = []

    def good(self, answer: Answer, rule: str) -> bool:
        """Whether the answer can be used; if not, the finding is noted once."""
        if answer.error is None:
            return True
        advice = f" Grant {rule} to the user of [cloud]." if answer.status in (401, 403, 404) else ""
        text = answer.error + advice
        if text not in self.wrong:
            self.wrong.append(text)
        return False

    def rights(self) -> Rights:
        return Rights(not self.wrong, tuple(self.wrong + self.untried))


def check_rights(api: _Api) -> Rights:
    """Ask, and say what is missing. Never raises for what Nova does."""
    found = _Findings()
    services = next(api.services())
    if not found.good(services, "os_compute_api:os-services:list") and services.status is None:
        return found.rights()  # nothing can be reached: more questions would only say it again
    _nodes(api, found)
    _servers(api, found)
    answer = api.some_migrations()
    rules = "os_compute_api:os-migrations:index (and, since Nova 32, its :all_projects and :host)"
    if found.good(answer, rules):
        found.good(next(api.migrations_of_host(NO_SUCH_HOST)), rules)
        if not _rows(answer, "migrations"):
            found.untried.append("There is no migration yet, so it is not known whether their hosts would be shown.")
    return found.rights()


def _nodes(api: _Api, found: _Findings) -> None:
    listed = next(api.hypervisors())
    if not found.good(listed, "os_compute_api:os-hypervisors:list-detail"):
        return
    rows = _rows(listed, "hypervisors")
    if not rows:
        found.untried.append("Nova knows no compute node yet, so neither os-hypervisors nor Placement could be tried.")
        return
    node = str(rows[0]["id"])
    found.good(api.hypervisor(node), "os_compute_api:os-hypervisors:show")
    found.good(api.providers(node), "placement:resource_providers:list")
    found.good(api.allocations(node), "placement:resource_providers:allocations:list")
    found.good(api.traits(node), "placement:resource_providers:traits:list")


def _servers(api: _Api, found: _Findings) -> None:
    answer = api.a_server()
    rules = "os_compute_api:servers:detail and os_compute_api:servers:detail:get_all_tenants"
    if not found.good(answer, rules):
        return
    rows = _rows(answer, "servers")
    if not rows:
        found.untried.append("There is no server yet, so it is not known whether servers may be filtered by host.")
        return
    found.good(next(api.servers(NO_SUCH_HOST)), rules)
    server_id = str(rows[0]["id"])
    found.good(api.server(server_id), "os_compute_api:servers:show")
    found.good(api.server_migrations(server_id), "os_compute_api:servers:migrations:index")


def _rows(answer: Answer, field: str) -> Sequence[Any]:
    return answer.body[field] if isinstance(answer.body, dict) else ()
