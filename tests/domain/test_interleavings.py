"""The core over random stories of the simulated Nova: messages repeated, late and lost, and readings anywhere."""

from __future__ import annotations

import pytest

from maintd.domain import emptiness, events, servers
from maintd.domain.model import Finding
from maintd.domain.observations import ServiceSeen
from maintd.nova.answers import BECAUSE_API
from tests.domain.interleavings import order_of, play_stories
from tests.domain.modelled_cloud import T0, CloudStory
from tests.domain.modelled_daemon import Interleaving

STORIES = range(1_000_000, 1_000_180)


@pytest.mark.parametrize("block", range(6))
def test_no_emptied_is_false_none_is_missed_and_each_refill_is_said(block: int) -> None:
    """Whatever is lost, late or repeated, host.emptied is said of empty hosts only, of every one in the end, and taken
    back when somebody comes."""
    total = play_stories(STORIES[block * 30 : block * 30 + 30], orders=5)

    assert total.faults == []
    assert total.emptied > 10


def fault_of(kind: str, stories: int) -> str | None:
    """The first fault of a kind in so many stories."""
    for seed in range(stories):
        for fault in play_stories(range(seed, seed + 1), orders=2).faults:
            if f" {kind}: " in fault:
                return fault
    return None


def test_the_model_would_notice_a_gullible_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that believed the list of servers alone would be caught by the model."""
    honest = emptiness.judge_pass

    def gullible(*args: object, **options: object) -> tuple[Finding, dict[str, float]]:
        finding, leftovers = honest(*args, **options)  # type: ignore[arg-type]
        kinds = ("incoming", "allocation", "unconfirmed_resize", "residue")
        return Finding(finding.at, tuple(b for b in finding.blockers if b.kind not in kinds)), leftovers

    monkeypatch.setattr(emptiness, "judge_pass", gullible)

    assert fault_of("false", 60)


def test_the_model_would_notice_a_forgetful_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that did not look at a host again when a server had left it would miss hosts."""
    monkeypatch.setattr(servers, "moved", lambda *_: None)

    assert fault_of("missed", 60)


def test_the_model_would_notice_a_silent_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A core that never took host.emptied back would be caught by the first refill that stays."""
    judge = Interleaving._judge

    def deaf(self: Interleaving, event: events.Event) -> None:
        if not isinstance(event, (events.HostOccupied, events.HostReopened)):
            judge(self, event)

    monkeypatch.setattr(Interleaving, "_judge", deaf)

    assert fault_of("unretracted", 60)


def test_a_host_that_nobody_saw_down_is_excused_although_it_goes_down_once_more() -> None:
    """Its server was deleted while it was forced down for 25 s, of which not a word was heard or read; it is no excuse
    any more had a single look at the services fallen into these."""
    run = order_of(CloudStory(3_056_084), 4)
    run.play()
    truth = run.frame.truth["h1"]
    (server_id,) = truth.hidden
    assert run.excused
    assert run._unknowable("h1", server_id, truth)

    run.log.append(ServiceSeen(T0 + 20.1, BECAUSE_API, "h1", forced_down=True, up=False, asked_at=T0 + 20.0))

    assert not run._unknowable("h1", server_id, truth)


def test_a_story_is_the_same_whoever_lives_through_it() -> None:
    """The same seed gives the same frames and the same messages: a fault can be played again."""
    one, other = CloudStory(17), CloudStory(17)

    assert one.frames == other.frames
    assert one.said == other.said
