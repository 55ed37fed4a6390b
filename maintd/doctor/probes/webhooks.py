"""Looks at the endpoints of webhooks: does anybody take a connection there, or, on request, a test event?

The test event goes the way of every other: the same signer, the same sink, the same limits. It is not stored, so it has
no deliveries, no retries and no place in the order of its subject.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import uuid
from urllib.parse import urlsplit

from maintd.clock import Clock
from maintd.config import Config, WebhookConfig
from maintd.delivery.sinks import Message
from maintd.delivery.sinks.webhook import webhook_endpoint
from maintd.doctor.facts import WebhookFacts
from maintd.domain.events import CloudEvent
from maintd.errors import OperatorError

CONNECT_S = 5.0
TEST_EVENT = "maintd.doctor.test.v1"


def look(webhook: WebhookConfig) -> WebhookFacts:
    """Connect to an endpoint, with TLS where its URL says so, and hang up."""
    return asyncio.run(_connect(webhook))


def send(webhook: WebhookConfig, config: Config, clock: Clock) -> WebhookFacts:
    """Send a test event to an endpoint."""
    return asyncio.run(_send(webhook, config.installation, clock))


def test_event(installation: str, webhook: str, clock: Clock) -> CloudEvent:
    """The event that a receiver gets from `maintd doctor --send-test-event`; nothing has happened."""
    return CloudEvent(
        id=str(uuid.uuid4()),
        type=TEST_EVENT,
        source=f"/maintd/{installation}",
        subject=webhook,
        time=clock.now(),
        sequence=0,
        data={
            "webhook": webhook,
            "because": {
                "origin": "operator",
                "event_type": "doctor",
                "message_id": None,
                "request_id": None,
            },
        },
    )


async def _connect(webhook: WebhookConfig) -> WebhookFacts:
    parts = urlsplit(webhook.url)
    secure = parts.scheme == "https"
    host, port = parts.hostname or "", parts.port or (443 if secure else 80)
    clock = asyncio.get_running_loop().time
    began = clock()
    trouble = None
    try:
        async with asyncio.timeout(CONNECT_S):
            context = ssl.create_default_context() if secure else None
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.close()
    except TimeoutError:
        trouble = f"no connection within {CONNECT_S:g} s"
    except ssl.SSLCertVerificationError as wrong:
        trouble = f"TLS certificate refused: {wrong.verify_message}"
    except ssl.SSLError as wrong:
        trouble = f"no TLS: {wrong.reason or type(wrong).__name__}"
    except (socket.gaierror, UnicodeError):  # the latter of a name that is none, such as one with an empty part
        trouble = "its name cannot be resolved"
    except OSError as wrong:
        trouble = f"no connection: {wrong.strerror or type(wrong).__name__}"
    return WebhookFacts(webhook.name, _where(webhook.url), webhook.secret is not None, clock() - began, trouble)


async def _send(webhook: WebhookConfig, installation: str, clock: Clock) -> WebhookFacts:
    secrets = (webhook.secret,) if webhook.secret is not None else ()
    where, signed = _where(webhook.url), webhook.secret is not None
    try:
        endpoint = webhook_endpoint(webhook.name, webhook.url, secrets, webhook.event_types, clock)
    except OperatorError as wrong:
        return WebhookFacts(webhook.name, where, signed, trouble=str(wrong).rstrip("."))
    event = test_event(installation, webhook.name, clock)
    body = event.as_json()
    headers = endpoint.signer.headers(event.id, clock.now(), body)
    began = clock.monotonic()
    await endpoint.sink.open()
    try:
        outcome = await endpoint.sink.send(Message(event.id, headers, body.encode()))
    finally:
        await endpoint.sink.close()
    return WebhookFacts(webhook.name, where, signed, clock.monotonic() - began, outcome=outcome)


def _where(url: str) -> str:
    """Host and port; what else stands in a webhook's URL is often a secret."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{host}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
