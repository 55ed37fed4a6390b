"""Signatures, judged by the library receivers use."""

from __future__ import annotations

import base64
import time

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from maintd.delivery.signing import Signer, check_secret
from maintd.errors import OperatorError

OLD = "whsec_" + base64.b64encode(b"o" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 32).decode()
AT = 1_800_000_000.0
BODY = '{"subject": "cmp-é"}'


def test_a_receiver_verifies_it() -> None:
    """What is signed here, a Standard Webhooks receiver accepts."""
    headers = Signer([NEW]).headers("event-1", time.time(), BODY)

    assert {"subject": "cmp-é"} == Webhook(NEW).verify(BODY.encode(), headers)


def test_a_changed_body_is_refused() -> None:
    """One byte more and the receiver refuses."""
    headers = Signer([NEW]).headers("event-1", time.time(), BODY)

    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY.encode() + b" ", headers)


def test_two_secrets_verify_with_either() -> None:
    """While a secret is being changed, a receiver may know the old or the new one."""
    headers = Signer([NEW, OLD]).headers("event-1", time.time(), BODY)

    for secret in (NEW, OLD):
        Webhook(secret).verify(BODY.encode(), headers)


def test_the_time_is_the_attempts() -> None:
    """Two attempts differ in time and signature, never in id."""
    signer = Signer([NEW])
    first, second = (signer.headers("event-1", at, BODY) for at in (1_800_000_000.9, 1_800_000_005.0))

    assert ("event-1", "event-1") == (first["webhook-id"], second["webhook-id"])
    assert ("1800000000", "1800000005") == (first["webhook-timestamp"], second["webhook-timestamp"])
    assert first["webhook-signature"] != second["webhook-signature"]


def test_without_a_secret_nothing_is_signed() -> None:
    """An endpoint without a secret gets id and time, and no header that looks like a signature."""
    assert {"webhook-id", "webhook-timestamp"} == set(Signer([]).headers("event-1", 0.0, BODY))


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "hunter2hunter2hunter2hunter2hunter2",
        "whsec_",
        "whsec_hunter2!",
        "whsec_" + base64.b64encode(b"hunter2").decode(),
        "whsec_" + base64.b64encode(b"x" * 65).decode(),
    ],
)
def test_a_bad_secret_is_refused_and_not_shown(secret: str) -> None:
    """A malformed secret is the operator's to mend, and the message does not repeat it."""
    with pytest.raises(OperatorError) as caught:
        check_secret(secret)

    assert secret.removeprefix("whsec_") == "" or secret.removeprefix("whsec_") not in str(caught.value)


def test_a_signers_repr_is_silent() -> None:
    """A signer that ends up in a log line tells nothing."""
    assert "bm5u" not in repr(Signer([NEW]))


def test_the_older_secret_signs_until_its_time() -> None:
    """Until its end, the older secret signs too; from then on the newer one alone."""
    both, new = Signer([NEW, OLD], previous_until=AT + 10), Signer([NEW])

    assert Signer([NEW, OLD]).headers("e", AT + 9, "{}") == both.headers("e", AT + 9, "{}")
    assert new.headers("e", AT + 10, "{}") == both.headers("e", AT + 10, "{}")
