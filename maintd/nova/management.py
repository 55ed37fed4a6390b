"""RabbitMQ's management plugin, asked for two things that AMQP does not tell: what bounds a queue, and who reads it.

It is asked only where an operator says where it is, as the user of the transport URL, which needs the tag `management`
for it. Plain GETs by the standard library, each within a few seconds; an answer that does not come is a sentence, and
nothing is concluded from it.
"""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from maintd.errors import OperatorError
from maintd.nova import broker
from maintd.nova.shown import Managed

if TYPE_CHECKING:
    from maintd.config import BusConfig

_ANSWER_S = 5.0
_MAX_BYTES = 8 * 1024 * 1024

_LIMITS = ("max-length", "max-length-bytes", "message-ttl", "expires")


def ask(bus: BusConfig, url: str, names: Sequence[str]) -> tuple[Managed, ...]:
    """These queues, as far as they are there. Raises OperatorError where the plugin cannot be asked at all."""
    place = broker.parse(bus)
    host = place.hosts[0] if place.hosts else None
    user, password = (host.username or "guest", host.password or "guest") if host else ("guest", "guest")
    vhost = quote(place.virtual_host or "/", safe="")
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    found = []
    for name in names:
        status, body = _get(url, f"/api/queues/{vhost}/{quote(name, safe='')}", token)
        if status == 404:
            continue
        if status in (401, 403):
            raise OperatorError(
                f"RabbitMQ's management at {_shown(url)} refuses the user of {broker.section(bus)} transport_url "
                f"(HTTP {status}): give it the tag that lets it look, by `rabbitmqctl set_user_tags {user} management`."
            )
        if status != 200 or not isinstance(body, dict):
            raise OperatorError(f"What answers at {_shown(url)} is not RabbitMQ's management (HTTP {status}).")
        found.append(_read(name, body))
    return tuple(found)


def _read(name: str, body: dict[str, Any]) -> Managed:
    policy = body.get("effective_policy_definition")
    given = body.get("arguments") or {}
    limits: dict[str, int] = {}
    for limit in _LIMITS:
        said = [value for value in (given.get(f"x-{limit}"), _member(policy, limit)) if isinstance(value, int)]
        if said:
            limits[limit] = min(said)
    readers = []
    for reader in body.get("consumer_details") or ():
        channel = reader.get("channel_details") or {}
        readers.append(f"user {channel.get('user', '?')} from {channel.get('peer_host', '?')}")
    # A queue made a moment ago has no figures yet, and then neither its policy is shown.
    known = bool(limits) or "effective_policy_definition" in body
    return Managed(name, limits if known else None, tuple(sorted(readers)))


def _member(policy: object, limit: str) -> object:
    return policy.get(limit) if isinstance(policy, dict) else None


def _get(url: str, path: str, token: str) -> tuple[int, Any]:
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in ("http", "https") or not parts.hostname or port == -1 or parts.username:
        raise OperatorError("--management-url is http://HOST:15672, without user and password.")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(
            parts.hostname, port or 15671, timeout=_ANSWER_S, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(parts.hostname, port or 15672, timeout=_ANSWER_S)
    try:
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Authorization": f"Basic {token}"})
        response = connection.getresponse()
        raw = response.read(_MAX_BYTES)
    except (OSError, http.client.HTTPException) as wrong:
        why = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
        raise OperatorError(f"RabbitMQ's management at {_shown(url)} does not answer ({why}).") from None
    finally:
        connection.close()
    try:
        return response.status, json.loads(raw)
    except ValueError:
        return response.status, None


def _shown(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
