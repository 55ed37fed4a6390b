"""Events about a subscription that only its own endpoint hears: may it be sent anything, does it still take something.

They are signed and shaped like every other event, so that a receiver needs no second way in; but they are in no log,
and their `sequence` is 0: they stand outside of every order. That an endpoint was given up is told to operators, by an
event of the catalogue (`subscription.disabled`).

Here, too, stands what counts as an answer to a challenge. Pure: ids, challenges and times are arguments.
"""

from __future__ import annotations

import hmac
import json
from typing import Any, Final

from maintd.domain.events import CloudEvent

VERIFY: Final = "maintd.subscription.verify.v1"
TEST: Final = "maintd.subscription.test.v1"


def event_to_verify(installation: str, subscription_id: str, event_id: str, challenge: str, time: float) -> CloudEvent:
    """Asks the endpoint to say the challenge back."""
    data = {"subscription_id": subscription_id, "challenge": challenge}
    return _event(VERIFY, installation, subscription_id, event_id, time, data)


def event_to_test(installation: str, subscription_id: str, event_id: str, time: float) -> CloudEvent:
    """Asks nothing but to be taken."""
    return _event(TEST, installation, subscription_id, event_id, time, {"subscription_id": subscription_id})


def allows(origin: str, said: str | None) -> bool:
    """Whether an endpoint's WebHook-Allowed-Origin lets this origin send."""
    return said is not None and said.strip() in (origin, "*")


def echoes(challenge: str, answer: bytes) -> bool:
    """Whether an answer holds the challenge: as JSON, {"challenge": …}, or as nothing but the bare text.

    An answer that merely repeats what was sent does not: then any echo service could be subscribed.
    """
    text = answer.decode("utf-8", "replace").strip()
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        said: object = text
    else:
        said = read.get("challenge") if isinstance(read, dict) else read
    return isinstance(said, str) and hmac.compare_digest(said.encode(), challenge.encode())


def _event(
    event_type: str, installation: str, subscription_id: str, event_id: str, time: float, data: dict[str, Any]
) -> CloudEvent:
    return CloudEvent(
        id=event_id,
        type=event_type,
        source=f"/maintd/{installation}",
        subject=subscription_id,
        time=time,
        sequence=0,
        data=data,
    )
