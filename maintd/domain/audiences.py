"""For whom an event type is: operators, or the project that owns the server.

A pattern for event types is the shell's glob over the whole type, as it stands on the wire. What is for projects is
other data under another policy, so only a pattern that spells out `maintd.server.` reaches it: neither `*` nor
`maintd.*` does. Here a subscription's patterns are held against the types that there are for its audience, so that a
misspelt one is refused at once rather than waited for in vain.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Final

from maintd.domain.events import CATALOGUE
from maintd.domain.tenant_events import TENANT_CATALOGUE

TENANT_PREFIX: Final = "maintd.server."
"""What the types of tenant events begin with."""


def types_for(*, project: bool) -> tuple[str, ...]:
    """Every event type that projects, or else operators, are told."""
    return tuple(f"maintd.{middle}.v1" for middle in (TENANT_CATALOGUE if project else CATALOGUE))


def default_patterns(*, project: bool) -> tuple[str, ...]:
    """What a subscription that names no types gets: all that its audience is told."""
    return (f"{TENANT_PREFIX}*",) if project else ("*",)


def fault_of(pattern: str, *, project: bool) -> str | None:
    """What is wrong with a pattern of a subscription of this audience, as a sentence; None where nothing is."""
    if project and not pattern.startswith(TENANT_PREFIX):
        return (
            f"{pattern!r} is not for projects, whose event types begin with {TENANT_PREFIX}; {_nearest(pattern, True)}."
        )
    if not project and pattern.startswith(TENANT_PREFIX):
        return f"{pattern!r} is for projects only: an operator's subscription is told of hosts, drains and migrations."
    if not any(fnmatchcase(name, pattern) for name in types_for(project=project)):
        return f"{pattern!r} matches no event type; {_nearest(pattern, project)}."
    return None


def _nearest(pattern: str, project: bool) -> str:
    """The type, or the family of types, that was most likely meant."""
    types = types_for(project=project)
    families = {f"{name.rsplit('.', 2)[0]}.*" for name in types}
    known: Sequence[str] = sorted({*families, *types}) if "*" in pattern else types
    whole = pattern if pattern.startswith("maintd.") else f"maintd.{pattern}"
    near = get_close_matches(whole, known, n=1, cutoff=0.0)
    return f"the nearest is {near[0]}"
