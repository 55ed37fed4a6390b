"""Which endpoints want an event: whose it is, globs over its type, and what a project's subscription adds to them.

A pattern is matched against the whole type as it stands on the wire, version included: `maintd.host.emptied.v1`
names one type, `maintd.host.*` every type about hosts, `*` everything that this audience may see. Globs are the
shell's (`*`, `?`, `[...]`), and `*` matches dots too. The prefix is never added for anyone: `host.emptied` matches
nothing, which `mistaken` finds out before somebody waits for an event that cannot come.

There are three audiences, and whose an event is comes before every pattern:

- an operator's subscription gets operators' events, never a tenant's;
- a project's subscription gets events of its own project, never another's and never an operator's;
- a configured endpoint is the operator's too, and gets operators' events; a tenant's (`maintd.server.*`) only by a
  pattern that spells out `maintd.server.`. Neither `*` nor `maintd.*` does.

Pure: no I/O, no clock, no configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, Protocol

from maintd.domain.audiences import TENANT_PREFIX

EVERYTHING: Final = "*"


class Routable(Protocol):
    """What is asked of an event; `data()` only where a route depends on it."""

    @property
    def type(self) -> str: ...

    @property
    def project_id(self) -> str | None: ...

    @property
    def subject(self) -> str: ...

    @property
    def data(self) -> Callable[[], Mapping[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Route:
    """What one endpoint wants. Without patterns it is everything (that is, `*`).

    `project_id` is the project of a project's subscription; of its events it gets those about `servers` (none: all)
    that have `metadata_key` (None: whatever they have). `configured`: one of the configuration's, not a subscription.
    """

    name: str
    event_types: tuple[str, ...] = ()
    project_id: str | None = None
    servers: frozenset[str] = frozenset()
    metadata_key: str | None = None
    configured: bool = False


def matches(pattern: str, event_type: str) -> bool:
    """Whether a configured endpoint's pattern includes an event type. Case matters; space around it does not."""
    pattern = pattern.strip()
    if event_type.startswith(TENANT_PREFIX) and not pattern.startswith(TENANT_PREFIX):
        return False
    return fnmatchcase(event_type, pattern)


def mistaken(patterns: Iterable[str], known_types: Iterable[str]) -> tuple[str, ...]:
    """The patterns that match none of the known event types: spelling mistakes, most likely.

    A pattern for tenant events counts as good even while no such type is known.
    """
    known = tuple(known_types)
    return tuple(
        pattern
        for pattern in patterns
        if not pattern.strip().startswith(TENANT_PREFIX) and not any(matches(pattern, name) for name in known)
    )


class Routes:
    """Event -> names of the endpoints that want it, in the order they were given, configured ones first.

    Event types are few, so what does not depend on more than the type is found once and remembered. What a project
    has is found by its id: a thousand projects cost an event of one of them nothing.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._operators: list[Route] = []
        self._of_project: dict[str, list[Route]] = {}
        for route in routes:
            if route.project_id is None:
                self._operators.append(route)
            else:
                self._of_project.setdefault(route.project_id, []).append(route)
        self._remembered: dict[tuple[str, bool], tuple[str, ...]] = {}

    def __call__(self, event: Routable) -> Sequence[str]:
        names = self._for_operators(event.type, event.project_id is not None)
        if event.project_id is None:
            return names
        own = self._of_project.get(event.project_id, ())
        return [*names, *(route.name for route in own if _is_wanted(route, event))]

    def _for_operators(self, event_type: str, of_tenant: bool) -> tuple[str, ...]:
        known = self._remembered.get((event_type, of_tenant))
        if known is None:
            known = self._remembered[event_type, of_tenant] = tuple(
                route.name
                for route in self._operators
                if (route.configured or not of_tenant)
                and any(matches(pattern, event_type) for pattern in route.event_types or (EVERYTHING,))
            )
        return known


def _is_wanted(route: Route, event: Routable) -> bool:
    """Whether a project's subscription wants an event of its project. What costs most is asked last."""
    if not any(fnmatchcase(event.type, pattern.strip()) for pattern in route.event_types or (EVERYTHING,)):
        return False
    if route.servers and event.subject not in route.servers:
        return False
    if route.metadata_key is None:
        return True
    state = event.data().get("state") or {}
    return route.metadata_key in (state.get("metadata_keys") or ())
