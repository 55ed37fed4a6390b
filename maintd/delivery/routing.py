"""Which endpoints want an event: globs over the event type, nothing else.

A pattern is matched against the whole type as it stands on the wire, version included: `maintd.host.emptied.v1`
names one type, `maintd.host.*` every type about hosts, `*` everything an operator may see. Globs are the shell's (`*`,
`?`, `[...]`), and `*` matches dots too. The prefix is never added for anyone: `host.emptied` matches nothing, which
`mistaken` finds out before somebody waits for an event that cannot come.

Events made for tenants (`maintd.server.*`) are different data under a different policy. Only a pattern that spells
out `maintd.server.` reaches them; neither `*` nor `maintd.*` does. Pure: no I/O, no clock, no configuration.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

TENANT_PREFIX: Final = "maintd.server."
"""What the types of tenant events begin with."""

EVERYTHING: Final = "*"


def matches(pattern: str, event_type: str) -> bool:
    """Whether a pattern includes an event type. Case matters; space around the pattern does not."""
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
    """Event type -> names of the endpoints that want it, in the order they were given.

    Event types are few, so each is matched once and remembered. An endpoint without patterns wants everything
    (that is, `*`).
    """

    def __init__(self, endpoints: Mapping[str, Sequence[str]]) -> None:
        self._endpoints = {name: tuple(patterns) or (EVERYTHING,) for name, patterns in endpoints.items()}
        self._remembered: dict[str, tuple[str, ...]] = {}

    def __call__(self, event_type: str) -> Sequence[str]:
        known = self._remembered.get(event_type)
        if known is None:
            known = self._remembered[event_type] = tuple(
                name
                for name, patterns in self._endpoints.items()
                if any(matches(pattern, event_type) for pattern in patterns)
            )
        return known
