"""Standard Webhooks headers over the stored bytes of an event.

The scheme and the secret's form are those of the Standard Webhooks specification, done by its own library; nothing
here computes a signature. The timestamp is the attempt's, the id the event's, so every attempt has the same
`webhook-id` and a receiver can throw repetitions away. Several secrets give several signatures in one header, which
is how a secret is changed without missing an event. Pure: the time is an argument.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from math import floor
from typing import Final

from standardwebhooks import Webhook

from maintd.errors import OperatorError

SECRET_PREFIX: Final = "whsec_"  # noqa: S105  (how secrets begin, not one of them)
SECRET_BYTES: Final = (24, 64)
"""Fewest and most bytes of a secret, by the specification."""


def check_secret(secret: str) -> None:
    """Raise OperatorError for what is not a Standard Webhooks secret; the message never contains the secret."""
    how = "expected whsec_ followed by the base64 of 24 to 64 random bytes; make one with: " + (
        "echo whsec_$(head -c 32 /dev/urandom | base64)"
    )
    if not secret.startswith(SECRET_PREFIX):
        raise OperatorError(f"The webhook secret does not begin with {SECRET_PREFIX}: {how}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise OperatorError(f"The webhook secret is not valid base64: {how}") from None
    if not SECRET_BYTES[0] <= len(key) <= SECRET_BYTES[1]:
        raise OperatorError(f"The webhook secret has {len(key)} bytes: {how}")


class Signer:
    """Signs for one endpoint. Its repr shows no secret."""

    def __init__(self, secrets: Sequence[str], previous_until: float | None = None) -> None:
        """`secrets`, the newest first, the older ones in use until `previous_until` (None: for ever); with none nothing
        is signed. Raises OperatorError for a malformed one."""
        for secret in secrets:
            check_secret(secret)
        self._webhooks = tuple(Webhook(secret) for secret in secrets)
        self._previous_until = previous_until

    def headers(self, event_id: str, at: float, body: str) -> dict[str, str]:
        """The headers for an attempt made `at` (epoch seconds); `body` is the text whose UTF-8 is sent.

        Without a secret the signature is absent; id and time are there all the same.
        """
        seconds = floor(at)
        moment = datetime.fromtimestamp(seconds, UTC)  # the library drops any other zone without converting
        headers = {"webhook-id": event_id, "webhook-timestamp": str(seconds)}
        hooks = self._webhooks
        if self._previous_until is not None and at >= self._previous_until:
            hooks = hooks[:1]
        if hooks:
            headers["webhook-signature"] = " ".join(hook.sign(event_id, moment, body) for hook in hooks)
        return headers
