"""What the API can be asked, declared once: an `Operation` is a handler with what it takes and what it answers.

The router reads each request by the declaration, so that nothing undeclared is understood; `tools/draw_openapi.py`
draws docs/openapi.yaml from it, so that nothing declared is kept back. What all operations have in common (who may ask,
a database that is away) is not repeated: the drawing adds it. Here nothing knows of paths or of HTTP servers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maintd.web.asking import Field, bad, once, read, storable, unknown

Schema = Mapping[str, Any]

JSON = "application/json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: what it means, and the schema of its JSON. `streams` one that can be had as an event stream too."""

    about: str
    schema: Schema
    streams: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """A handler and its declaration. `body` None: it takes none; of the members in `either` it takes one at least;
    `errors` are the statuses that only some have."""

    handler: Callable[..., Any]
    answers: Mapping[int, Answer]
    path: Sequence[Field] = ()
    query: Sequence[Field] = ()
    headers: Sequence[Field] = ()
    body: Sequence[Field] | None = None
    either: Sequence[str] = ()
    errors: Mapping[int, str] = field(default_factory=dict)

    @property
    def about(self) -> str:
        """The handler's docstring, without the request that it begins with."""
        return " ".join((self.handler.__doc__ or "").split()).partition(": ")[2]

    def read(
        self,
        path: Mapping[str, str],
        query: Mapping[str, Any],
        header: Callable[[str], str | None],
        body: Mapping[str, Any],
        *,
        operator: bool = True,
    ) -> dict[str, Any]:
        """The value of every declared field. Raises a 400 with a sentence, and 404 for a path that nothing can have."""
        for value in path.values():
            if not storable(value):
                raise unknown("There is nothing of that name.")
        given = {one.name: header(one.name) for one in self.headers}
        values = {
            **read(self.query, once(query), "parameter", operator=operator),
            **read(self.headers, {name: value for name, value in given.items() if value}, "header"),
            **read(self.body or (), body, "member", operator=operator),
        }
        if self.either and not any(name in body for name in self.either):
            raise bad(f"Give at least one of: {', '.join(self.either)}.")
        return values


def operation(
    answers: Mapping[int, Answer],
    *,
    path: Sequence[Field] = (),
    query: Sequence[Field] = (),
    headers: Sequence[Field] = (),
    body: Sequence[Field] | None = None,
    either: Sequence[str] = (),
    errors: Mapping[int, str] | None = None,
) -> Callable[[Callable[..., Any]], Operation]:
    """Declare a handler. Its docstring is "METHOD /path: what it is for."; path parameters are its arguments."""
    return lambda handler: Operation(handler, answers, path, query, headers, body, either, errors or {})


def ref(shape: str) -> Schema:
    """The schema of a shape by its name (`shapes.SHAPES`)."""
    return {"$ref": f"#/components/schemas/{shape}"}


def members(properties: Mapping[str, Schema], optional: Sequence[str] = ()) -> Schema:
    """The schema of an object with these members; those that are not `optional` are always there. More may come."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "properties": dict(properties), "required": required}


def page(name: str, shape: str) -> dict[int, Answer]:
    """The answer of a list."""
    rows = {"type": "array", "items": ref(shape)}
    following = {"type": ["string", "null"], "description": "give it as `after` for more; null at the end"}
    return {200: Answer("One page of the list.", members({name: rows, "next": following}))}


def single(shape: str, about: str) -> dict[int, Answer]:
    """The answer that shows one thing."""
    return {200: Answer(about, ref(shape))}


def nothing_of_that_name(noun: str) -> dict[int, str]:
    """The error of whatever is asked for by name."""
    return {404: f"There is no such {noun}."}
