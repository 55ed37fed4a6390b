"""What came of one attempt, and whether trying again can help.

A sink returns an `Outcome` and does nothing else about it: it never sleeps, counts or retries. `retry` turns the
outcome into a time or a dead letter, once, for every sink there will ever be. Pure: no I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

DETAIL_CHARS: Final = 500
"""How much is kept of what a receiver said."""


class OutcomeKind(StrEnum):
    """What happened, in one word of a closed set (it is stored with the attempt)."""

    DELIVERED = "delivered"  # the receiver has the event: it said 2xx, the broker confirmed, the program ended with 0
    REDIRECTED = "redirected"  # 3xx; redirects are never followed, a signed event goes where it was told to go
    GONE = "gone"  # 410: the receiver asks never to be called again
    UNSUPPORTED = "unsupported"  # 415: the receiver cannot read CloudEvents; it will not learn to by being asked again
    THROTTLED = "throttled"  # 429, 502, 503, 504: not now; Retry-After is honoured
    REFUSED = "refused"  # any other status; the broker said no; the program ended with another code
    FORBIDDEN = "forbidden"  # not sent: `egress` allows the address no connection; a name may lead elsewhere later
    UNREACHABLE = "unreachable"  # no connection: name, route, refusal, TLS; a program that cannot be run
    BROKEN = "broken"  # a connection, but no valid answer on it; a program that never ceased to write
    TIMED_OUT = "timed_out"  # no answer within the time allowed


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one attempt.

    `status` is the HTTP status, None where none was read. `detail` is for people: the first bytes of the answer or
    the error's name, never a secret. `retry_after_s` is what the receiver asked for, uncapped. `disables` says that
    the receiver asked for no more deliveries at all.
    """

    kind: OutcomeKind
    status: int | None = None
    detail: str = ""
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """The receiver has it."""
        return self.kind is OutcomeKind.DELIVERED

    @property
    def again_can_help(self) -> bool:
        """Whether the same request could end otherwise another time."""
        return self.kind not in _FINAL

    @property
    def disables(self) -> bool:
        """Whether the endpoint asked to be left alone from now on."""
        return self.kind is OutcomeKind.GONE


_FINAL = frozenset({OutcomeKind.DELIVERED, OutcomeKind.GONE, OutcomeKind.UNSUPPORTED})


def presentable(text: str, unsayable: Iterable[str] = ()) -> str:
    """What a receiver said, fit for a table and a terminal: no secret, no control character, not long."""
    for secret in unsayable:
        text = text.replace(secret, "[hidden]")
    return "".join(char if char.isprintable() else " " for char in text)[:DETAIL_CHARS].strip()


def kind_of_status(status: int) -> OutcomeKind:
    """The rule for HTTP answers, from the Standard Webhooks and CloudEvents webhook specifications.

    A 1xx that arrives as a final answer is as useless as any other refusal.
    """
    if 200 <= status < 300:
        return OutcomeKind.DELIVERED
    if 300 <= status < 400:
        return OutcomeKind.REDIRECTED
    return _BY_STATUS.get(status, OutcomeKind.REFUSED)


_BY_STATUS = {
    410: OutcomeKind.GONE,
    415: OutcomeKind.UNSUPPORTED,
    429: OutcomeKind.THROTTLED,
    502: OutcomeKind.THROTTLED,
    503: OutcomeKind.THROTTLED,
    504: OutcomeKind.THROTTLED,
}
