"""What a request asks for, read strictly: a parameter that nobody knows or understands is an error with a sentence.

A misspelt filter that is silently ignored shows everything as if it were the answer; here it is a 400, and so is one
that is empty, as when a script's variable was. Each parameter is declared once, as a `Field`: how it is read, and what
docs/openapi.yaml says of it. `operations.py` reads a request by the fields of its operation; the handler finds the
values in its `Asked`.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import falcon

from maintd.web.auth import Caller
from maintd.web.context import WebApp

T = TypeVar("T")

LIMIT_MAX: Final = 1000
"""No list answers more than this at once."""

LIMIT_DEFAULT: Final = 100

_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

_EPOCH_SECONDS: Final = r"[0-9]{1,11}(\.[0-9]{1,9})?"
_EPOCH_END: Final = 10**11


def bad(description: str) -> falcon.HTTPBadRequest:
    """The error for a request that cannot be understood."""
    return falcon.HTTPBadRequest(title="Bad request", description=description)


def unknown(description: str) -> falcon.HTTPNotFound:
    """The error for something that is not there."""
    return falcon.HTTPNotFound(title="Not found", description=description)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as a handler sees it: the application, the value of each field that its operation declares, and who
    asks.

    `said` are the members that the body has, whatever their value. `holder` is whose share of the seats one who waits
    takes from. `streamed`: an event stream is wanted, not JSON. `client` is the socket of whoever asks, where the
    server hands it over.
    """

    web: WebApp
    given: Mapping[str, Any]
    caller: Caller
    said: frozenset[str] = frozenset()
    holder: str = ""
    streamed: bool = False
    client: socket.socket | None = None

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def page(
        self, name: str, fetch: Callable[[int], Sequence[T]], key: Callable[[T], str], shape: Callable[[T], Any]
    ) -> dict[str, Any]:
        """One page of a list: `fetch(limit)` is asked for one row too many, which tells whether there is more."""
        limit = self["limit"]
        rows = fetch(limit + 1)
        return {
            name: [shape(row) for row in rows[:limit]],
            "next": key(rows[limit - 1]) if len(rows) > limit else None,
        }


# --- fields ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter of the query or of the path, a header, or a member of a body.

    `read(name, value)` makes a value of what was given (a text; in a body whatever JSON has) or raises `bad`. `missing`
    is the sentence where it must be given; else `default` stands for it. `schema` says the same in JSON Schema. One
    that is for `operators` is not there for anybody else.
    """

    name: str
    about: str
    schema: Mapping[str, Any]
    read: Callable[[str, Any], Any]
    default: Any = None
    missing: str | None = None
    operators: bool = False


def for_operators(field: Field) -> Field:
    """The field, for operators only."""
    return replace(field, operators=True)


def storable(value: str) -> bool:
    """Whether every database takes a text: no NUL, no half of a surrogate pair."""
    return "\0" not in value and not any("\ud800" <= char <= "\udfff" for char in value)


def text(name: str, about: str, *, pattern: str | None = None, wanted: str = "", missing: str | None = None) -> Field:
    """A text that is not empty; one that has the whole `pattern`, described by `wanted`."""

    def read(name: str, value: Any) -> str:
        if not isinstance(value, str) or not storable(value):
            raise bad(f"{name} must be a text.")
        if not value:
            raise bad(missing or f"{name} is empty: leave it out, or give it a value.")
        if pattern is not None and not re.fullmatch(pattern, value):
            raise bad(f"{name} must be {wanted}.")
        return value

    schema = {"type": "string", "minLength": 1, "pattern": "^[^\\u0000]+$" if pattern is None else f"^(?:{pattern})$"}
    return Field(name, about, schema, read, missing=missing)


def number(name: str, about: str, default: int, low: int, high: int) -> Field:
    """A whole number, low <= it <= high."""

    def read(name: str, value: Any) -> int:
        if not (re.fullmatch("[0-9]{1,20}", value) and low <= int(value) <= high):
            raise bad(f"{name} must be a whole number from {low} to {high}.")
        return int(value)

    schema = {"type": "integer", "minimum": low, "maximum": high, "default": default}
    return Field(name, about, schema, read, default)


def flag(name: str, about: str) -> Field:
    """true or false; None when absent."""

    def read(name: str, value: Any) -> bool:
        if value.lower() not in _FLAGS:
            raise bad(f"{name} must be true or false.")
        return _FLAGS[value.lower()]

    return Field(name, about, {"type": "string", "enum": list(_FLAGS)}, read)


def truth(name: str, about: str, *, default: bool) -> Field:
    """true or false as JSON has them: a member of a body."""

    def read(name: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise bad(f"{name} must be true or false.")
        return value

    return Field(name, about, {"type": "boolean", "default": default}, read, default)


def choice(name: str, about: str, known: Iterable[str]) -> Field:
    """One of some words."""
    words = tuple(known)

    def read(name: str, value: Any) -> str:
        if value not in words:
            raise bad(f"There is no {name} {value!r}; known: {', '.join(words)}.")
        return str(value)

    return Field(name, about, {"type": "string", "enum": list(words)}, read)


def moment(name: str, about: str, *, numbers: bool = False) -> Field:
    """A moment: RFC 3339 text with an offset, or epoch seconds; `numbers`: in a body these may be a number."""
    kinds: list[dict[str, Any]] = [
        {"type": "string", "format": "date-time"},
        {"type": "string", "pattern": f"^{_EPOCH_SECONDS}$"},
    ]
    if numbers:
        kinds.append({"type": "number", "minimum": 0, "exclusiveMaximum": _EPOCH_END})
    return Field(name, about, {"anyOf": kinds}, instant)


def instant(name: str, value: Any) -> float:
    """Seconds since the epoch."""
    if isinstance(value, str) and re.fullmatch(_EPOCH_SECONDS, value):
        return float(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < _EPOCH_END:
        return float(value)
    try:
        at = datetime.fromisoformat(str(value))
        if at.tzinfo is not None:
            return at.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        pass
    raise bad(f"{name} must be a time in UTC, such as 2026-01-31T22:00:00Z.")


LIMIT: Final = number("limit", "how many at once", LIMIT_DEFAULT, 1, LIMIT_MAX)

AFTER: Final = Field(
    "after",
    "the `next` of the answer before: go on from there; empty: from the beginning",
    {"type": "string", "pattern": "^[^\\u0000]*$"},
    lambda name, value: value and text(name, "").read(name, value),
)


# --- reading ---------------------------------------------------------------------------------------------------------


def read(fields: Sequence[Field], given: Mapping[str, Any], what: str, *, operator: bool = True) -> dict[str, Any]:
    """The value of each of some fields; anything given beside them is refused."""
    open_ = [one.name for one in fields if operator or not one.operators]
    for name in given:
        if name not in open_:
            known = ", ".join(open_) or "none"
            raise bad(f"There is no {what} {name!r} here; known: {known}.")
    return {one.name: _value(one, given) for one in fields}


def _value(one: Field, given: Mapping[str, Any]) -> Any:
    if one.name in given:
        return one.read(one.name, given[one.name])
    if one.missing is not None:
        raise bad(one.missing)
    return one.default


def once(params: Mapping[str, Any]) -> Mapping[str, Any]:
    """A query's parameters; one that is given several times is refused, whichever of them was meant."""
    for name, value in params.items():
        if isinstance(value, list):
            raise bad(f"Give {name} once, not {len(value)} times.")
    return params
