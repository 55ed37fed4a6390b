"""The core over random stories of the simulated Nova: messages repeated, late and lost, and readings anywhere."""

from __future__ import annotations

import pytest

from maintd.domain import emptiness, events, servers
from maintd.domain.model import Finding
from tests.domain.interleavings import Count, play_stories
from tests.domain.modelled_cloud import CloudStory
from tests.domain.modelled_daemon import Interleaving

STORIES = range(1_000_000, 1_000_090)


@pytest.mark.parametrize("block", range(6))
def test_no_emptied_is_false_none_is_missed_and_each_refill_is_said(block: int) -> None:
    """Whatever is lost, late or repeated, host.emptied is said of empty hosts only, of every one in the end, and taken
    back when somebody comes."""
    total = play_stories(STORIES[block * 15 : block * 15 + 15], orders=6)

    assert total.faults == []
    assert total.emptied > 10


def faults_of(stories: range, kind: str) -> Count:
    total = play_stories(stories, orders=2)
    return Count(total.runs, total.emptied, total.retracted, [fault for fault in total.faults if f" {kind}: " in fault])


def test_the_model_would_notice_a_gullible_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that believed the list of servers alone would be caught by the model."""
    honest = emptiness.judge_pass

    def gullible(*args: object, **options: object) -> tuple[Finding, dict[str, float]]:
        finding, leftovers = honest(*args, **options)  # type: ignore[arg-type]
        kinds = ("incoming", "allocation", "unconfirmed_resize", "residue")
        return Finding(finding.at, tuple(b for b in finding.blockers if b.kind not in kinds)), leftovers

    monkeypatch.setattr(emptiness, "judge_pass", gullible)

    assert len(faults_of(range(60), "false").faults) > 5


def test_the_model_would_notice_a_forgetful_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that did not look at a host again when a server had left it would miss hosts."""
    monkeypatch.setattr(servers, "moved", lambda *_: None)

    assert faults_of(range(60), "missed").faults


def test_the_model_would_notice_a_silent_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that never took host.emptied back would be caught by the first refill that stays."""
    judge = Interleaving._judge

    def deaf(self: Interleaving, event: events.Event) -> None:
        if not isinstance(event, (events.HostOccupied, events.HostReopened)):
            judge(self, event)

    monkeypatch.setattr(Interleaving, "_judge", deaf)

    assert faults_of(range(250), "unretracted").faults


def test_a_story_is_the_same_whoever_lives_through_it() -> None:
    """The same seed gives the same frames and the same messages: a fault can be played again."""
    one, other = CloudStory(17), CloudStory(17)

    assert one.frames == other.frames
    assert one.said == other.said
