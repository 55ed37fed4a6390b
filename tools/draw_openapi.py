#!/usr/bin/env python3
"""Draws docs/openapi.yaml from the table of routes (maintd/web/server.py) and the declarations beside the handlers.

    tools/draw_openapi.py            write it
    tools/draw_openapi.py --check    say whether it is up to date (exit code 1 when not)

Parameters, members of bodies and answers are read from each `Operation`, the objects from `shapes.SHAPES`, whose fields
have the types of the classes that they show. Here stands only what all operations have in common.
"""

from __future__ import annotations

import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_events  # noqa: E402
import pages  # noqa: E402

import maintd  # noqa: E402
from maintd.domain.model import Blocker, Note, Progress, ProofRead  # noqa: E402
from maintd.web.asking import Field  # noqa: E402
from maintd.web.operations import EVENT_STREAM, JSON, Answer, Operation, members, ref  # noqa: E402
from maintd.web.server import ROUTES  # noqa: E402
from maintd.web.shapes import SHAPES, TIME_OR_NULL, WHOLE_OR_NULL, Shape, is_instant  # noqa: E402

PAGE = ROOT / "docs" / "openapi.yaml"

ABOUT = """\
What maintd knows, and the few things that can be asked of it. Every answer is JSON; every error is `{"title",
"description"}` with a sentence. A parameter or member that nobody knows is an error. Times are RFC 3339 in UTC, null
where unknown; Nova's words are kept as they came. Members may come, none changes or goes.

Lists come in pages: ask again with `next` as `after` until it is null (of events it never is).
"""

ERRORS: dict[int, str] = {
    400: "The request cannot be understood: a parameter or member that nobody knows, or a value out of bounds.",
    401: "No valid token ([api] auth = keystone).",
    403: "The token does not permit it; without authentication: the Host header does not name the loopback.",
    413: "The body is too big.",
    415: "The body is not declared as JSON.",
    503: "It cannot be answered now: no database, another controller holds the fleet, or too many wait for events or "
    "try subscriptions.",
}
"""What can become of any request; 413 and 415 of one with a body."""

COMES_BACK = {503: {"Retry-After": {"description": "seconds", "required": True, "schema": {"type": "integer"}}}}


def document() -> dict[str, Any]:
    """The whole of docs/openapi.yaml."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "maintd",
            "version": maintd.__version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:8779", "description": "[api] listen"}],
        "security": [{}, {"keystone": []}],
        "paths": {
            path: {m.lower(): drawn(route.operation) for m, route in methods.items()}
            for path, methods in ROUTES.items()
        },
        "components": {
            "schemas": {**{name: shape_schema(shape) for name, shape in SHAPES.items()}, **from_events()},
            "responses": {str(status): error(status, text) for status, text in ERRORS.items()},
            "securitySchemes": {
                "keystone": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Auth-Token",
                    "description": "A token of Keystone, where [api] auth is keystone.",
                }
            },
        },
    }


def drawn(operation: Operation) -> dict[str, Any]:
    """One operation."""
    about = operation.about
    given = [("path", operation.path), ("query", operation.query), ("header", operation.headers)]
    out: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": about.partition(". ")[0].rstrip("."),
        "description": about,
        "parameters": [parameter(where, one) for where, fields in given for one in fields],
    }
    if operation.body is not None:
        out["requestBody"] = {"required": True, "content": {JSON: {"schema": body(operation.body, operation.either)}}}
    common = [status for status in ERRORS if operation.body is not None or status not in (413, 415)]
    responses: dict[str, Any] = {str(status): answered(answer) for status, answer in operation.answers.items()}
    responses |= {str(status): error(status, text) for status, text in operation.errors.items()}
    responses |= {str(status): {"$ref": f"#/components/responses/{status}"} for status in common}
    if operation.path:
        responses.setdefault("404", error(404, "There is nothing of that name."))
    out["responses"] = dict(sorted(responses.items()))
    return out


def parameter(where: str, one: Field) -> dict[str, Any]:
    out: dict[str, Any] = {"name": one.name, "in": where, "description": one.about}
    if where == "path" or one.missing is not None:
        out["required"] = True
    return {**out, "schema": dict(one.schema)}


def body(fields: Sequence[Field], either: Sequence[str]) -> dict[str, Any]:
    """The schema of a body: what nobody knows is refused."""
    properties = {one.name: {**one.schema, "description": one.about} for one in fields}
    optional = [one.name for one in fields if one.missing is None]
    out = {**members(properties, optional), "additionalProperties": False}
    return {**out, "anyOf": [{"required": [name]} for name in either]} if either else out


def answered(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {JSON: {"schema": answer.schema}}
    if answer.streams:
        content[EVENT_STREAM] = {"schema": {"type": "string"}}
    return {"description": answer.about, "content": content}


def error(status: int, text: str) -> dict[str, Any]:
    out: dict[str, Any] = {"description": text, "content": {JSON: {"schema": ref("Error")}}}
    return {**out, "headers": COMES_BACK[status]} if status in COMES_BACK else out


# --- schemas ---------------------------------------------------------------------------------------------------------


def shape_schema(shape: Shape) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    optional: list[str] = []
    whole: Shape | None = shape
    while whole is not None:
        hints = typing.get_type_hints(whole.kind) if whole.kind else {}
        picked = {name: field_schema(name, hints.get(name, bool)) for name in whole.fields}
        properties = {**whole.more, **picked, **properties}
        optional += whole.optional
        whole = SHAPES[whole.base] if whole.base else None
    return {"description": shape.about, **members(properties, optional)}


def field_schema(name: str, hint: Any) -> Mapping[str, Any]:
    """The schema of a class's field as `shapes.pick` shows it; what is no field is a property, and a truth."""
    if is_instant(name):
        return TIME_OR_NULL
    if Progress in typing.get_args(hint):
        return {"anyOf": [ref("Progress"), {"type": "null"}]}
    return draw_events.type_schema(name, hint)


def from_events() -> dict[str, Any]:
    """What stands in events and in answers alike, and Nova's counters."""
    out = {kind.__name__: draw_events.object_schema(kind) for kind in (Blocker, Note, ProofRead)}
    counters = dict.fromkeys(typing.get_type_hints(Progress), WHOLE_OR_NULL)
    return {**out, "Progress": {"description": "Nova's counters of a live migration.", **members(counters)}}


def main() -> int:
    return pages.draw(PAGE, document(), Path(__file__).name)


if __name__ == "__main__":
    sys.exit(main())
