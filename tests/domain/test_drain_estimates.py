"""How long the emptying of a host may still take, where no curve says it."""

from __future__ import annotations

from maintd.domain import estimates
from maintd.domain.model import Kind, Migration, Phase, Policy

DONE = Migration("d1", "s0", Kind.COLD, Phase.COMPLETED, "a", "b", begun_at=0.0, worked_from=0.0, ended_at=30.0)
AT_WORK = Migration("k1", "s1", Kind.COLD, Phase.RUNNING, "a", "b", begun_at=100.0, worked_from=100.0)


def at(now: float) -> estimates.DrainEstimate:
    return estimates.of_drain("a", [AT_WORK], [DONE], ["s1"], lambda _: None, Policy(), now)


def test_a_move_that_takes_much_longer_than_the_usual_is_not_nearly_done_for_ever() -> None:
    """One took half a minute; another has taken an hour, and nobody knows what it waits for."""
    nearly = at(120.0).estimate
    assert nearly is not None and nearly.seconds == 10.0
    assert at(3700.0).estimate is None
    assert at(3700.0).unknown == "one of its moves takes much longer than those that have ended"
