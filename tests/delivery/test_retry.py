"""When a failed delivery is tried again: the schedule, its jitter, and where it ends."""

from __future__ import annotations

import pytest

from maintd.delivery.outcome import Outcome, OutcomeKind, kind_of_status
from maintd.delivery.retry import (
    GIVE_UP_AFTER_S,
    HOUR_S,
    RETRY_AFTER_CAP_S,
    SCHEDULE_S,
    DeadLetter,
    RetryAt,
    expired,
    next_attempt,
)

NOW = 1_800_000_000.0
REFUSED = Outcome(OutcomeKind.REFUSED, 500)


def test_schedule_at_full_jitter() -> None:
    """With the largest random number the waits are 5 s, 30 s, 2 min, 10 min, 30 min, 2 h, 5 h, 10 h."""
    waits = []
    for attempts in range(1, len(SCHEDULE_S)):
        decision = next_attempt(attempts, REFUSED, NOW, NOW, jitter=1.0)
        assert isinstance(decision, RetryAt)
        waits.append(decision.at - NOW)

    assert [5, 30, 120, 600, 1800, 7200, 18000, 36000] == waits


@pytest.mark.parametrize("jitter", [0.0, 0.25, 0.999])
def test_jitter_spreads_over_the_whole_wait(jitter: float) -> None:
    """The random number is the share of the wait that is waited: from nothing to all of it."""
    assert RetryAt(NOW + 600 * jitter) == next_attempt(4, REFUSED, NOW, NOW, jitter)


@pytest.mark.parametrize("jitter", [-1.0, 2.0])
def test_a_bad_random_number_stays_inside_the_wait(jitter: float) -> None:
    """A random number out of bounds neither goes back in time nor waits longer than the schedule."""
    decision = next_attempt(1, REFUSED, NOW, NOW, jitter)

    assert isinstance(decision, RetryAt)
    assert NOW <= decision.at <= NOW + 5


def test_the_last_attempt_failing_is_a_dead_letter() -> None:
    """After the ninth failure nothing is tried again."""
    assert isinstance(next_attempt(8, REFUSED, NOW, NOW, 1.0), RetryAt)
    assert DeadLetter("9 attempts failed") == next_attempt(9, REFUSED, NOW, NOW, 1.0)


def test_an_old_delivery_is_not_tried_again() -> None:
    """A delivery older than a day is given up at its next failure, whatever the schedule has left."""
    assert isinstance(next_attempt(1, REFUSED, NOW, NOW - GIVE_UP_AFTER_S + 1, 1.0), RetryAt)
    assert DeadLetter("older than 24 hours") == next_attempt(1, REFUSED, NOW, NOW - GIVE_UP_AFTER_S, 1.0)


@pytest.mark.parametrize("kind", [OutcomeKind.GONE, OutcomeKind.UNSUPPORTED])
def test_what_cannot_help_is_not_tried(kind: OutcomeKind) -> None:
    """An endpoint that is gone, or cannot read what we send, gets no second attempt."""
    assert DeadLetter(f"trying again cannot help: {kind}") == next_attempt(1, Outcome(kind), NOW, NOW, 1.0)


def test_retry_after_is_waited_out_in_full() -> None:
    """A receiver that asks for 60 s is not called before, and the jitter comes on top."""
    asked = Outcome(OutcomeKind.THROTTLED, 429, retry_after_s=60.0)

    assert RetryAt(NOW + 60) == next_attempt(1, asked, NOW, NOW, jitter=0.0)
    assert RetryAt(NOW + 65) == next_attempt(1, asked, NOW, NOW, jitter=1.0)


def test_retry_after_is_capped() -> None:
    """A receiver that asks for a year gets an hour."""
    asked = Outcome(OutcomeKind.THROTTLED, 503, retry_after_s=31e6)

    assert RetryAt(NOW + RETRY_AFTER_CAP_S) == next_attempt(1, asked, NOW, NOW, jitter=0.0)


@pytest.mark.parametrize(
    ("status", "kind", "again"),
    [
        (200, "delivered", False),
        (204, "delivered", False),
        (299, "delivered", False),
        (301, "redirected", True),
        (307, "redirected", True),
        (400, "refused", True),
        (401, "refused", True),
        (404, "refused", True),
        (410, "gone", False),
        (415, "unsupported", False),
        (429, "throttled", True),
        (500, "refused", True),
        (502, "throttled", True),
        (503, "throttled", True),
        (504, "throttled", True),
    ],
)
def test_status_table(status: int, kind: str, again: bool) -> None:
    """Each status means one thing, and says whether trying again can help."""
    outcome = Outcome(kind_of_status(status), status)

    assert (kind, again) == (outcome.kind, outcome.again_can_help)


def test_only_410_disables() -> None:
    """Of all outcomes only 'gone' asks for no more deliveries."""
    assert [OutcomeKind.GONE] == [kind for kind in OutcomeKind if Outcome(kind).disables]


@pytest.mark.parametrize(
    ("event_type", "hours"),
    [
        ("maintd.migration.started.v1", 1),
        ("maintd.migration.stalled.v1", 1),
        ("maintd.migration.resumed.v1", 1),
        ("maintd.migration.completed.v1", 24),
        ("maintd.drain.stalled.v1", 1),
        ("maintd.drain.ended.v1", 24),
        ("maintd.server.moving.v1", 1),
        ("maintd.server.move_stalled.v1", 1),
        ("maintd.server.moved.v1", 24),
        ("maintd.server.host_lost.v1", 24),
        ("maintd.server.maintenance_started.v1", 24),
        ("maintd.host.emptied.v1", 24),
        ("maintd.service.lost.v1", 24),
        ("maintd.something.new.v9", 24),
    ],
)
def test_each_type_has_its_age(event_type: str, hours: int) -> None:
    """What goes on now is not told an hour later, what stays so is told for a day; then neither is sent."""
    assert expired(event_type, NOW, NOW + hours * HOUR_S - 1) is None
    assert expired(event_type, NOW, NOW + hours * HOUR_S) == DeadLetter(
        f"older than {hours} h, when an event of this type is of no use any more"
    )
