#!/usr/bin/env python3
"""Draws docs/events.md and docs/schemas/*.json from the event classes in maintd/domain/events.py.

    tools/draw_events.py            write them
    tools/draw_events.py --check    say whether they are up to date (exit code 1 when not)

What a field means is written here, in `FIELDS`; everything else (types, names, null or not, docstrings) is read from
the classes, so that the documentation cannot say something the code does not do.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import sys
import types
import typing
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from maintd.domain import events  # noqa: E402
from maintd.domain import tenant_events as tenants  # noqa: E402
from maintd.domain.emptiness import BLOCKER_KINDS  # noqa: E402
from maintd.domain.model import Because, Blocker, Kind, Note, Notice, ProofRead  # noqa: E402

DOCS = ROOT / "docs"

FIELDS: dict[str, str] = {
    "advice": "what an operator might do; only advice",
    "because": "what made maintd say this",
    "binary": "whose services these are: always `nova-compute`",
    "blind_from": "from when on notifications may have been missed",
    "blind_to": "until when; null while it lasts",
    "blocked_by": "the migration_key of the migration that this one waits for",
    "blockers": "why the host is not empty; see Blockers",
    "bus": "the bus, by the name it is configured under",
    "destination": "the host the server moves to; null while Nova has not said",
    "drain_id": "the drain, from its start to its end",
    "duration_seconds": "how long it took, from its beginning to now",
    "eta": "when it will be done; null while that cannot be estimated",
    "evidence": "the measurements behind the verdict; its members depend on `reason`",
    "forced_down": "the host was forced down, not disabled: it is thought dead",
    "found": "the host was closed already when maintd first saw it",
    "host": "the host, under the name of its compute service",
    "hosts": "the hosts, under the names of their compute services",
    "kind": "Nova's kind of migration",
    "memory_since": "since when maintd remembers what Nova forgets",
    "migration_id": "Nova's number of the migration; null until the API has named it",
    "migration_key": "maintd's own name of the migration; always there, never changes",
    "migration_uuid": "Nova's uuid of the migration; null until the API has named it",
    "occupants": "what is on the host, or on its way to it",
    "planned": "the host had been closed before its heartbeat ended",
    "proof": "the answers on which the proof rests",
    "failing_since": "when its unbroken failure began",
    "reason": "of a service or drain: Nova's disabled reason; of a stall: the verdict; of a subscription: `failing` or "
    "`gone`",
    "removal": "an operator said that the host goes for good",
    "removed": "it ended because the compute service was deleted",
    "residue": "what may be left on the host, and was accepted",
    "scope": "what the proof covers: always `nova`",
    "server_id": "the server's uuid",
    "servers_remaining": "servers that are still on the host",
    "servers_total": "servers on the host when the drain started; null while unknown",
    "since": "when it began",
    "source": "the host the server moves away from",
    "subscription_id": "the subscription's id, or the name of the configured webhook",
    "status": "Nova's word for the migration; null where only the bus has told",
    "warnings": "what is worth knowing, but is no reason against",
}
"""What each member of `data` means, whichever event it stands in."""

PARTS: dict[type, tuple[str, dict[str, str]]] = {
    Because: (
        "because",
        {
            "origin": "`notification`, `api`, `clock` or `operator`",
            "event_type": "the notification's type",
            "message_id": "the notification's id on the bus",
            "request_id": "Nova's request id",
        },
    ),
    Blocker: (
        "blockers[]",
        {
            "kind": "one of the list below",
            "server_id": "the server that is in the way",
            "migration_key": "the migration that is in the way",
            "since": "since when",
            "detail": "more, in words",
            "remedy": "the next command that helps; null where there is none",
            "project_id": "the server's project; null while unknown",
        },
    ),
    Note: (
        "warnings[], residue[], occupants[]",
        {"kind": "what it is", "server_id": "the server it is about", "detail": "more, in words"},
    ),
    ProofRead: (
        "proof[]",
        {
            "read": "what was read",
            "pass": "in which verification pass; the last two agree",
            "at": "when the answer was complete",
            "count": "how many things it showed",
        },
    ),
    events.Eta: (
        "eta",
        {
            "seconds": "from now until done",
            "low_seconds": "the lower end of the 90 % band",
            "high_seconds": "the upper end of the 90 % band",
        },
    ),
}

TENANT_PARTS: dict[type, tuple[str, dict[str, str]]] = {
    tenants.TenantData: (
        "data of every tenant event",
        {
            "server_id": "the server's uuid",
            "change": "what happened; each type has its own words",
            "incarnation": "the number of this event among all that the project was told, as in `sequence`",
            "state": "all that touches the server now",
        },
    ),
    tenants.ServerState: (
        "state, and servers[] of GET /v1/servers/maintenance",
        {
            "server_id": "the server's uuid",
            "incarnation": "the number of the newest event of this server: of two states the higher one is true",
            "maintenance": "its host is being emptied; null where it is not",
            "move": "it is being moved; null where it is not",
            "host_lost": "nobody has control of its host; null where somebody has",
            "metadata_keys": "the names in the server's own metadata",
        },
    ),
    tenants.Maintenance: (
        "state.maintenance",
        {"since": "since when it was said", "removal": "the host goes for good: the server cannot come back to it"},
    ),
    tenants.Move: (
        "state.move",
        {
            "since": "since when it was said",
            "kind": "Nova's kind of migration",
            "asked_for_by": "`owner` (a resize, say), `operator`, or `unknown`",
            "stalled": "how it stands still, where the guest may feel it (a word of `move_stalled`); else null",
        },
    ),
    tenants.HostLost: (
        "state.host_lost",
        {
            "since": "since when it was said",
            "forced_down": "an operator has told Nova that the host is dead",
            "widespread": "many hosts were lost at about the same time: most likely the cloud has lost sight of them",
        },
    ),
}
"""The same for what owners of servers are told."""

_AT = 1767225600.0
SAMPLES: dict[str, Any] = {
    "binary": "nova-compute",
    "planned": False,
    "advice": "nobody will end this by waiting: see `openstack server migration show`",
    "blind_from": _AT - 60,
    "blockers": (
        Blocker(
            "not_attempted",
            "4f6b1f0c-8a4e-4b0e-9d0c-0a8f0f3a7c11",
            since=_AT - 900,
            remedy="openstack --os-compute-api-version 2.30 server migrate --live-migration "
            "4f6b1f0c-8a4e-4b0e-9d0c-0a8f0f3a7c11",
            project_id="5f0c6d1e8a7b4c3d9e2f1a0b8c7d6e5f",
        ),
    ),
    "bus": "default",
    "destination": "cmp-18",
    "drain_id": "d-7f3c",
    "duration_seconds": 512.25,
    "eta": events.Eta(240.0, 180.0, 420.0),
    "evidence": {"memory_remaining_bytes": 1073741824, "unchanged_seconds": 95.0},
    "forced_down": False,
    "found": False,
    "host": "cmp-17",
    "hosts": ("cmp-17", "cmp-18"),
    "kind": "live-migration",
    "memory_since": _AT - 86400,
    "migration_id": 4711,
    "migration_key": "m-5e21",
    "migration_uuid": "0b5b3a52-5c0e-4f3b-8a35-7c0f1f6a2d90",
    "occupants": (Note("incoming", "4f6b1f0c-8a4e-4b0e-9d0c-0a8f0f3a7c11", "it is being built here"),),
    "proof": (ProofRead("os-migrations", 1, _AT - 16, 0), ProofRead("servers", 1, _AT - 15.8, 0)),
    "failing_since": _AT - 432000,
    "reason": "maintenance: new power supply",
    "removal": False,
    "removed": False,
    "servers_remaining": 1,
    "servers_total": 12,
    "server_id": "4f6b1f0c-8a4e-4b0e-9d0c-0a8f0f3a7c11",
    "since": _AT - 95,
    "source": "cmp-17",
    "subscription_id": "5b8f1c1e9a0d4f7c8e2b6a3d7f9c0e14",
    "status": "completed",
    "warnings": (Note("failed_migration", "9c1d2e3f-0000-4000-8000-000000000001", "live-migration 4700 ended error"),),
}
BECAUSE = {
    "": Because("notification", "service.update", "5d1f6d0a-7b1b-4f29-9d2f-0e6f0b6f3f10", "req-2b1c"),
    "host.emptied": Because("api"),
    "drain.stalled": Because("clock"),
    "migration.stalled": Because("clock"),
    "subscription.disabled": Because("clock"),
}
EXAMPLES = ("host.emptied", "drain.stalled", "migration.stalled")


def sample(kind: type[events.Event]) -> dict[str, Any]:
    """A likely event of a class, as it goes out."""
    because = BECAUSE.get(kind.TYPE, BECAUSE[""])
    given = {f.name: SAMPLES[f.name] for f in dataclasses.fields(kind) if f.name in SAMPLES and f.name != "because"}
    if "stalled" in kind.TYPE and "migration" in kind.TYPE:
        given["reason"] = "frozen"
    if kind is events.SubscriptionDisabled:
        given["reason"] = "failing"
    event = kind(because=because, **given)
    return events.publish(event, id="01jh0000000000000000000000", installation="main", time=_AT, sequence=42).as_dict()


# --- JSON Schema -----------------------------------------------------------------------------------------------------


def members(kind: type) -> list[tuple[str, str, Any]]:
    """(name in the class, name on the wire, type) of a dataclass."""
    hints = typing.get_type_hints(kind)
    return [(f.name, events._WIRE_NAMES.get(f.name, f.name), hints[f.name]) for f in dataclasses.fields(kind)]


def type_schema(name: str, hint: Any) -> dict[str, Any]:
    """The JSON Schema of a member of this type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        inner = type_schema(name, next(arg for arg in args if arg is not type(None)))
        if "type" in inner and "enum" not in inner and "properties" not in inner:
            return {**inner, "type": [inner["type"], "null"]}
        return {"anyOf": [inner, {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": type_schema(name, args[0])}
    if origin is dict:
        return {"type": "object"}
    if hint is events.Instant or (hint is float and name in events._INSTANTS):
        return {"type": "string", "format": "date-time"}
    if origin is typing.Literal:
        return {"type": "string", "enum": list(args)}
    if isinstance(hint, type) and issubclass(hint, enum.StrEnum):
        return {"type": "string", "enum": [word.value for word in hint]}
    if dataclasses.is_dataclass(hint):
        return object_schema(typing.cast(type, hint))
    if hint is str and name == "origin":
        return {"type": "string", "enum": ["notification", "api", "clock", "operator"]}
    return {"type": {str: "string", int: "integer", float: "number", bool: "boolean"}[hint]}


def object_schema(kind: type) -> dict[str, Any]:
    """The JSON Schema of a dataclass. Every member is always there; more may come, so others are allowed."""
    properties = {}
    for _, name, hint in members(kind):
        schema = type_schema(name, hint)
        if name == "kind" and issubclass(kind, events.Event):
            schema = {"type": "string", "enum": [k.value for k in Kind]}
        text = FIELDS.get(name) if issubclass(kind, events.Event) else {**PARTS, **TENANT_PARTS}[kind][1].get(name)
        properties[name] = {**schema, "description": text}
    return {"type": "object", "properties": properties, "required": list(properties)}


def tenant_data_schema(kind: type[tenants.TenantEvent]) -> dict[str, Any]:
    """The JSON Schema of a tenant event's data."""
    schema = object_schema(tenants.TenantData)
    schema["properties"]["change"]["enum"] = list(kind.CHANGES)
    return schema


def event_schema(kind: type[events.Event | tenants.TenantEvent]) -> dict[str, Any]:
    """The JSON Schema of the whole CloudEvent."""
    name = f"maintd.{kind.TYPE}.v1"
    data = tenant_data_schema(kind) if issubclass(kind, tenants.TenantEvent) else object_schema(kind)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:maintd:event:{name}",
        "title": name,
        "description": text_of(kind),
        "type": "object",
        "properties": {
            "specversion": {"const": "1.0"},
            "id": {"type": "string", "minLength": 1},
            "source": {"type": "string", "pattern": "^/maintd/.+"},
            "type": {"const": name},
            "subject": {"type": "string"},
            "time": {"type": "string", "format": "date-time"},
            "datacontenttype": {"const": "application/json"},
            "sequence": {"type": "string", "pattern": "^[0-9]{20}$"},
            "data": data,
        },
        "required": ["specversion", "id", "source", "type", "subject", "time", "sequence", "data"],
    }


def text_of(kind: type) -> str:
    return " ".join((kind.__doc__ or "").split())


# --- docs/events.md --------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Events

Drawn from `maintd/domain/events.py` by `tools/draw_events.py`; do not edit.

Every event is a [CloudEvent](https://cloudevents.io) 1.0 in structured JSON. The same bytes go to every webhook, to
`GET /v1/events` and, one a line, to the output of `maintd replay`. A JSON Schema of each is in [schemas/](schemas/).

| member | |
|---|---|
| `type` | `maintd.<noun>.<past participle>.v1`. A promise: members may come, none changes or goes, else it is `.v2` |
| `source` | `/maintd/<installation>` |
| `subject` | what it is about, see each type |
| `id` | the same on every delivery and every attempt: what a receiver deduplicates by |
| `time` | when maintd decided; when it happened is `data.since` |
| `sequence` | 20 digits, increasing for each subject: a receiver orders by it. The cursor of `GET /v1/events?after=` |
| `data` | below; every member listed is always there, `null` where nothing is known |

Times are RFC 3339 in UTC, durations are seconds and their names end in `_seconds`.
*Empty* means empty of Nova servers: storage daemons, network agents and stray processes are not seen.
"""


TENANTS = """\

## What owners of servers are told

Tenant events are other data under another rule. With `[tenants] enabled` each project hears about its own servers,
and about nothing else: no host, no text of Nova's, no id that another project would see. They are not in the
operators' `GET /v1/events`, and `*` does not include them; ids, `sequence` and cursor are each project's own. `time`
and `since` are whole seconds, of when the project could first be told.

**Every event carries the whole present state of its server**: the one with the highest `sequence` is right, whatever
was lost before it, and `GET /v1/servers/maintenance` says the same of all servers of a project that anything touches.
"""


def word(hint: Any, name: str) -> str:
    """A member's type in a word."""
    schema = type_schema(name, hint)
    if "anyOf" in schema:
        return "object or null"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    if schema.get("format") == "date-time":
        kinds = ["time", *kinds[1:]]
    if kinds == ["array"]:
        return "list"
    return " or ".join(kinds)


def markdown() -> str:
    """The whole of docs/events.md."""
    out = [INTRODUCTION]
    out.append("| type | when |\n|---|---|")
    for name, kind in sorted_catalogue():
        out.append(f"| [`maintd.{name}.v1`](#maintd{name.replace('.', '')}v1) | {text_of(kind)} |")
    for name, kind in sorted_catalogue():
        out.append(f"\n## `maintd.{name}.v1`\n\n{text_of(kind)}\n")
        out.append(f"Subject: `{kind.SUBJECT}`. Schema: [maintd.{name}.v1.json](schemas/maintd.{name}.v1.json).\n")
        out.append("| data | type | |\n|---|---|---|")
        for _, wire_name, hint in members(kind):
            out.append(f"| `{wire_name}` | {word(hint, wire_name)} | {FIELDS[wire_name]} |")
        if name in EXAMPLES:
            text = json.dumps(sample(kind), indent=2, ensure_ascii=False)
            out.append(f"\n```json\n{text}\n```")
    out.append("\n## Parts\n")
    for kind, (title, texts) in PARTS.items():
        out.append(f"### {title}\n\n| member | type | |\n|---|---|---|")
        for _, wire_name, hint in members(kind):
            out.append(f"| `{wire_name}` | {word(hint, wire_name)} | {texts[wire_name]} |")
        out.append("")
    out.append(
        "## Blockers\n\nEvery kind of `blockers[]`; [blockers.md](blockers.md) says when each comes and what to do.\n\n"
        "| kind | means |\n|---|---|"
    )
    out += [f"| `{kind}` | {text} |" for kind, text in BLOCKER_KINDS.items()]
    out += tenant_markdown()
    return "\n".join(out) + "\n"


def tenant_markdown() -> list[str]:
    """The part of docs/events.md on what owners of servers are told."""
    out = [TENANTS, "| type | when | `data.change` |\n|---|---|---|"]
    for name, kind in tenants.TENANT_CATALOGUE.items():
        schema = f"[`maintd.{name}.v1`](schemas/maintd.{name}.v1.json)"
        changes = "; ".join(f"`{word}`: {text}" for word, text in kind.CHANGES.items())
        out.append(f"| {schema} | {text_of(kind)} | {changes} |")
    text = json.dumps(tenant_sample(tenants.Moving), indent=2, ensure_ascii=False)
    out.append(f"\n```json\n{text}\n```\n")
    for kind, (title, texts) in TENANT_PARTS.items():
        out.append(f"### {title}\n\n| member | type | |\n|---|---|---|")
        for _, wire_name, hint in members(kind):
            out.append(f"| `{wire_name}` | {word(hint, wire_name)} | {texts[wire_name]} |")
        out.append("")
    return out


def tenant_sample(kind: type[tenants.TenantEvent]) -> dict[str, Any]:
    """A likely tenant event of a class, as it goes out."""
    notice = Notice(
        "4f6b1f0c-8a4e-4b0e-9d0c-0a8f0f3a7c11",
        "5f0c6d1e8a7b4c3d9e2f1a0b8c7d6e5f",
        7,
        drain_id="d-7f3c",
        maintenance_since=_AT - 95,
        move_key="m-5e21",
        move_kind="live-migration",
        move_since=_AT,
        asked_for_by="operator",
        metadata_keys=("ha-group",),
    )
    event = kind(notice=notice, change=next(iter(kind.CHANGES)), visible_at=_AT)
    sent = tenants.publish_to_tenant(event, id="01jh0000000000000000000001", installation="main", sequence=42)
    return sent.as_dict()


def sorted_catalogue() -> list[tuple[str, type[events.Event]]]:
    return list(events.CATALOGUE.items())


# --- drawing ---------------------------------------------------------------------------------------------------------


def drawn() -> dict[Path, str]:
    """Every file that is drawn, with its text."""
    files = {DOCS / "events.md": markdown()}
    for name, kind in [*events.CATALOGUE.items(), *tenants.TENANT_CATALOGUE.items()]:
        text = json.dumps(event_schema(kind), indent=2, ensure_ascii=False) + "\n"
        files[DOCS / "schemas" / f"maintd.{name}.v1.json"] = text
    return files


def outdated() -> list[Path]:
    """Files that are missing, differ, or should not be there any more."""
    wanted = drawn()
    wrong = [p for p, text in wanted.items() if not p.exists() or p.read_text(encoding="utf-8") != text]
    return wrong + [path for path in sorted((DOCS / "schemas").glob("*.json")) if path not in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(description="Draw docs/events.md and docs/schemas from the event classes.")
    parser.add_argument("--check", action="store_true", help="only say whether they are up to date")
    args = parser.parse_args()
    wrong = outdated()
    if args.check:
        for path in wrong:
            print(f"{path.relative_to(ROOT)} is not up to date: run tools/draw_events.py", file=sys.stderr)
        return 1 if wrong else 0
    wanted = drawn()
    for path in wrong:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path in wanted:
            path.write_text(wanted[path], encoding="utf-8")
        else:
            path.unlink()
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
