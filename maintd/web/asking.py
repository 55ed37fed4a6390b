"""What a request asks for, read strictly: a parameter that nobody knows or understands is an error with a sentence.

A misspelt filter that is silently ignored shows everything as if it were the answer; here it is a 400.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import falcon

from maintd.web.context import WebApp

T = TypeVar("T")

LIMIT_MAX: Final = 1000
"""No list answers more than this at once."""

LIMIT_DEFAULT: Final = 100

_FLAGS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def bad(description: str) -> falcon.HTTPBadRequest:
    """The error for a request that cannot be understood."""
    return falcon.HTTPBadRequest(title="Bad request", description=description)


def unknown(description: str) -> falcon.HTTPNotFound:
    """The error for something that is not there."""
    return falcon.HTTPNotFound(title="Not found", description=description)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as a handler sees it: the application, the query's parameters, and the JSON body of a POST."""

    web: WebApp
    params: Mapping[str, Any]
    body: Mapping[str, Any]

    def only(self, *names: str) -> None:
        """Refuse parameters (of a POST: members of the body) that are not among these."""
        for given, what in ((self.params, "parameter"), (self.body, "member")):
            for name in given:
                if name not in names:
                    known = ", ".join(names) or "none"
                    raise bad(f"There is no {what} {name!r} here; known: {known}.")

    def text(self, name: str) -> str | None:
        """A parameter as it stands; None when it is absent or empty."""
        value = self.params.get(name)
        if isinstance(value, list):
            raise bad(f"Give {name} once, not {len(value)} times.")
        return value or None

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number, low <= it <= high."""
        text = self.text(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and low <= int(text) <= high):
            raise bad(f"{name} must be a whole number from {low} to {high}.")
        return int(text)

    def flag(self, name: str) -> bool | None:
        """true or false; None when absent."""
        text = self.text(name)
        if text is None:
            return None
        if text.lower() not in _FLAGS:
            raise bad(f"{name} must be true or false.")
        return _FLAGS[text.lower()]

    def instant(self, name: str) -> float | None:
        """A moment: RFC 3339 text with an offset, or epoch seconds; None when absent."""
        text = self.text(name)
        if text is not None and text.replace(".", "", 1).isdecimal() and len(text) <= 20:
            return float(text)
        return instant(text, name)

    @property
    def limit(self) -> int:
        return self.number("limit", LIMIT_DEFAULT, 1, LIMIT_MAX)

    def page(
        self, name: str, fetch: Callable[[int], Sequence[T]], key: Callable[[T], str], shape: Callable[[T], Any]
    ) -> dict[str, Any]:
        """One page of a list: `fetch(limit)` is asked for one row too many, which tells whether there is more."""
        limit = self.limit
        rows = fetch(limit + 1)
        return {
            name: [shape(row) for row in rows[:limit]],
            "next": key(rows[limit - 1]) if len(rows) > limit else None,
        }


def instant(value: Any, name: str) -> float | None:
    """A moment: RFC 3339 text with an offset, or epoch seconds."""
    if value is None:
        return None
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        at = datetime.min
    if at.tzinfo is None:
        raise bad(f"{name} must be a time in UTC, such as 2026-01-31T22:00:00Z.")
    return at.astimezone(UTC).timestamp()
