#!/usr/bin/env python3
"""Draws docs/asyncapi.yaml from the event classes: what is published, to whom, and on which channels.

    tools/draw_asyncapi.py            write it
    tools/draw_asyncapi.py --check    say whether it is up to date (exit code 1 when not)

The classes are those of maintd/domain/events.py and tenant_events.py; the payloads are the JSON Schemas in
docs/schemas, which tools/draw_events.py draws from them.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import draw_events  # noqa: E402
import pages  # noqa: E402

import maintd  # noqa: E402
from maintd.delivery.sinks.webhook import CONTENT_TYPE  # noqa: E402
from maintd.domain.events import CATALOGUE, Event  # noqa: E402
from maintd.domain.tenant_events import TENANT_CATALOGUE, TenantEvent  # noqa: E402
from maintd.web.operations import EVENT_STREAM  # noqa: E402

PAGE = ROOT / "docs" / "asyncapi.yaml"

ABOUT = """\
What maintd publishes: one CloudEvent 1.0 each time, the same bytes on every channel. Delivery is at least once: `id`
tells a repetition, `sequence` the order. docs/receivers.md says how to receive, docs/events.md what each event means.
`maintd.server.*` is for the projects whose servers they are, all else for operators.
"""

SERVERS: dict[str, Any] = {
    "receiver": {
        "host": "receiver.example",
        "protocol": "https",
        "description": "Whoever is called: http or https, as [webhook:NAME] url says.",
    },
    "broker": {
        "host": "controller:5672",
        "protocol": "amqp",
        "description": "A broker that oslo.messaging can speak to, as [bus_sink:NAME] transport_url says.",
    },
    "maintd": {"host": "127.0.0.1:8779", "protocol": "http", "description": "maintd's API, [api] listen."},
}

CHANNELS: dict[str, dict[str, Any]] = {
    "webhook": {
        "address": None,
        "title": "Webhook",
        "description": "A POST to the URL of a webhook, one event each; docs/receivers.md has the headers and the "
        "answers.",
        "servers": [{"$ref": "#/servers/receiver"}],
    },
    "stream": {
        "address": "/v1/events",
        "title": "Event stream",
        "description": f"Server-sent events: GET with `Accept: {EVENT_STREAM}`. `id` is the event's sequence, which "
        "comes back as `Last-Event-ID`; `event` its type; `data` the CloudEvent on one line.",
        "servers": [{"$ref": "#/servers/maintd"}],
    },
    "bus": {
        "address": "maintd.info",
        "title": "Bus",
        "description": "A notification of oslo.messaging (driver messagingv2) on an exchange and a topic of maintd's "
        "own; the address is the routing key that the topic `maintd` gives. Its `event_type` is the CloudEvent's type, "
        "its `message_id` the CloudEvent's id, its `payload` the CloudEvent.",
        "servers": [{"$ref": "#/servers/broker"}],
    },
}


OPERATORS_ONLY = ("bus",)
"""Channels on which no event of a project is published."""

KINDS: dict[str, type[Event | TenantEvent]] = {
    f"maintd.{middle}.v1": kind for middle, kind in {**CATALOGUE, **TENANT_CATALOGUE}.items()
}


def document() -> dict[str, Any]:
    """The whole of docs/asyncapi.yaml."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "maintd",
            "version": maintd.__version__,
            "description": ABOUT,
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": SERVERS,
        "channels": {name: {**channel, "messages": messages_on(name)} for name, channel in CHANNELS.items()},
        "operations": {
            f"publish_on_{name}": {
                "action": "send",
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": f"maintd publishes an event ({channel['title'].lower()}).",
            }
            for name, channel in CHANNELS.items()
        },
        "components": {"messages": {name: message(name, kind) for name, kind in KINDS.items()}},
    }


def messages_on(channel: str) -> dict[str, Any]:
    """What may be published on a channel."""
    found = (name for name, kind in KINDS.items() if issubclass(kind, Event) or channel not in OPERATORS_ONLY)
    return {name: {"$ref": f"#/components/messages/{name}"} for name in found}


def message(name: str, kind: type[Event | TenantEvent]) -> dict[str, Any]:
    sample = draw_events.sample(kind) if issubclass(kind, Event) else draw_events.tenant_sample(kind)
    return {
        "name": name,
        "title": name,
        "summary": draw_events.text_of(kind),
        "contentType": CONTENT_TYPE,
        "payload": {
            "schemaFormat": "application/schema+json;version=draft-2020-12",
            "schema": {"$ref": f"schemas/{name}.json"},
        },
        "examples": [{"name": "likely", "payload": sample}],
    }


def main() -> int:
    return pages.draw(PAGE, document(), Path(__file__).name)


if __name__ == "__main__":
    sys.exit(main())
