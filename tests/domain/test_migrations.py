"""The transition tables: what they name, and the rules by which they are read."""

from __future__ import annotations

import itertools

import pytest

from maintd.domain.migrations import (
    HOLDING_STATUSES,
    RANK,
    RELEASED_STATUSES,
    STATUSES,
    STEPS,
    advance,
    verdict_of,
)
from maintd.domain.model import Kind, Phase
from maintd.domain.observations import Step


@pytest.mark.parametrize("step", list(Step))
def test_every_step_is_in_the_table(step: Step) -> None:
    """Nothing that the normalisers can say of a move is unknown to the table."""
    assert step in STEPS


@pytest.mark.parametrize(("phase", "to"), list(itertools.product(Phase, Phase)))
def test_no_phase_ever_goes_back(phase: Phase, to: Phase) -> None:
    """Whatever is seen, the rank of a migration's phase never falls, and a final phase stays what it is."""
    after = advance(phase, to)

    assert RANK[after] >= RANK[phase]
    if phase.final:
        assert after is phase


@pytest.mark.parametrize("kind", list(Kind))
def test_every_status_of_nova_either_holds_or_releases(kind: Kind) -> None:
    """Every status in the table is known to the proof as holding a host or as releasing it, never as both."""
    for status in STATUSES[kind]:
        assert (status in HOLDING_STATUSES) != (status in RELEASED_STATUSES)


@pytest.mark.parametrize(
    ("phase", "verdict"),
    [(Phase.ASKED, Phase.CANCELLED), (Phase.QUEUED, Phase.CANCELLED), (Phase.PREPARING, None), (Phase.RUNNING, None)],
)
def test_abort_end_ends_only_what_was_queued(phase: Phase, verdict: Phase | None) -> None:
    """abort.end of a queued migration is its end; of a running one it means only that somebody asked."""
    said = verdict_of(STEPS[Step.LIVE_ABORT_END], Step.LIVE_ABORT_END, phase, aborted=True)

    assert verdict == said


@pytest.mark.parametrize(("aborted", "verdict"), [(True, Phase.CANCELLED), (False, Phase.FAILED)])
def test_a_rollback_after_an_abort_is_a_cancellation(aborted: bool, verdict: Phase) -> None:
    """rollback.end means failed, or cancelled where somebody had asked to abort."""
    said = verdict_of(STEPS[Step.LIVE_ROLLBACK_END], Step.LIVE_ROLLBACK_END, Phase.ROLLING_BACK, aborted)

    assert verdict == said
