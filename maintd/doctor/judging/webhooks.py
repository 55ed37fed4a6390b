"""Do the webhooks take what they are sent?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from maintd.delivery.outcome import Outcome, OutcomeKind
from maintd.doctor.facts import DatabaseFacts, WebhookFacts
from maintd.doctor.findings import Check, Finding
from maintd.doctor.judging.words import seconds

CONNECTS = Check(
    "webhook.connects",
    "whether every endpoint's name resolves, and it takes a connection (with TLS where its URL says https)",
    means_error="It gets no events.",
)
ACCEPTS = Check(
    "webhook.accepts",
    "whether an endpoint accepts a signed event, on request (`--send-test-event`)",
    means_unknown="No test event was sent.",
    means_error="It refuses it, as it will refuse every other.",
)
PENDING = Check(
    "webhook.pending",
    "how long the oldest event has waited to be delivered",
    means_warning="More than ten minutes: an endpoint fails, or no daemon delivers.",
)
ENABLED = Check(
    "webhook.enabled",
    "whether an endpoint was given up",
    means_error="It asked for nothing more (410), and gets nothing until the daemon is restarted.",
)
CHECKS = (CONNECTS, ACCEPTS, PENDING, ENABLED)

WAITS_S = 600.0


def judge(webhooks: Sequence[WebhookFacts], database: DatabaseFacts | None) -> Iterator[Finding]:
    for webhook in webhooks:
        yield from connects(webhook)
    if database is not None and database.usable:
        yield from pending(webhooks, database)


def connects(webhook: WebhookFacts) -> Iterator[Finding]:
    """Is anybody there, and does it like what it gets?"""
    name = webhook.name
    if webhook.outcome is not None:
        yield accepts(webhook, webhook.outcome)
        return
    if webhook.trouble is not None:
        yield CONNECTS.error(
            f"Webhook {name} at {webhook.where}: {webhook.trouble}.",
            f"[webhook:{name}] url: correct it, or bring the receiver up; it must be reachable from every controller.",
            name,
        )
        return
    yield CONNECTS.ok(f"Webhook {name} at {webhook.where} takes connections ({seconds(webhook.took_s)}).", name)
    yield ACCEPTS.unknown(
        f"Whether webhook {name} accepts our events is not known.", "maintd doctor --send-test-event", name
    )


def accepts(webhook: WebhookFacts, outcome: Outcome) -> Finding:
    """What came of the test event?"""
    name, signed = webhook.name, "signed" if webhook.signed else "unsigned"
    if outcome.delivered:
        return ACCEPTS.ok(f"Webhook {name} accepted a {signed} test event ({seconds(webhook.took_s)}).", name)
    if outcome.kind is OutcomeKind.UNREACHABLE:
        return CONNECTS.error(
            f"Webhook {name} at {webhook.where}: {outcome.detail}.",
            f"[webhook:{name}] url: correct it, or bring the receiver up; it must be reachable from every controller.",
            name,
        )
    said = f" ({outcome.detail})" if outcome.detail else ""
    status = f"answered {outcome.status} to" if outcome.status is not None else "gave no valid answer to"
    return ACCEPTS.error(f"Webhook {name} {status} a {signed} test event{said}.", _advice(webhook, outcome), name)


def _advice(webhook: WebhookFacts, outcome: Outcome) -> str:
    group = f"[webhook:{webhook.name}]"
    if outcome.status in (401, 403):
        if webhook.signed:
            return f"{group} secret: make it the one that the receiver verifies with, and see that its clock is right."
        return f"{group} secret = whsec_…      # the one that the receiver verifies with"
    if outcome.status in (404, 405) or outcome.kind is OutcomeKind.REDIRECTED:
        return f"{group} url: correct it; redirects are not followed."
    if outcome.kind is OutcomeKind.UNSUPPORTED:
        return f"The receiver must take Content-Type application/cloudevents+json; else remove {group}."
    if outcome.kind is OutcomeKind.GONE:
        return f"The receiver wants no more events: remove {webhook.name} from [webhooks] enabled, or mend it."
    if outcome.kind is OutcomeKind.TIMED_OUT:
        return "The receiver must answer within 10 s: let it take the event first, and work on it afterwards."
    return "See the log of the receiver."


def pending(webhooks: Sequence[WebhookFacts], database: DatabaseFacts) -> Iterator[Finding]:
    """Do events lie about?"""
    for name, reason in sorted(database.disabled.items()):
        if any(webhook.name == name for webhook in webhooks):
            yield ENABLED.error(
                f"Webhook {name} was given up ({reason}).", "Mend the receiver, then: maintd deliveries redeliver", name
            )
    if not webhooks:
        return
    waits_s = database.now - database.oldest_pending_at if database.oldest_pending_at is not None else 0.0
    if waits_s > WAITS_S:
        yield PENDING.warning(
            f"An event has waited {seconds(waits_s)} to be delivered.",
            "maintd deliveries shows which, and what was answered.",
        )
    else:
        yield PENDING.ok("No event has waited for long to be delivered.")
