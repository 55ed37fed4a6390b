"""What a bus speaks for: gaps, our own absence, deafness; and that nothing is proven of what nobody can have heard."""

from __future__ import annotations

from dataclasses import replace

import pytest

from maintd.domain.buses import DEAF_AFTER_S, LATE_S, NEVER_HEARD_S, unheard
from maintd.domain.events import BusBlinded, BusHealed
from maintd.domain.model import Because, Bus, Host, Kind
from maintd.domain.observations import (
    BaselineCompleted,
    BusSeen,
    ComputeHeard,
    MigrationSeen,
    ServerSeen,
    TimerDue,
    Watching,
)
from tests.domain.test_proof import API, H, Story

CLOCK = Because("clock")
GOOD, LOST = Bus("a", connected=True), Bus("b", blind_from=5.0)


@pytest.mark.parametrize(
    ("host", "buses", "missing"),
    [
        (Host(H, heard_on="a"), [GOOD, LOST], ()),
        (Host(H, heard_on="b"), [GOOD, LOST], ("b",)),
        (Host(H), [GOOD, LOST], ("b",)),  # never heard: either may speak for it
        (Host(H, heard_on="gone"), [GOOD, LOST], ("b",)),
        (Host(H, heard_on="a", forced_down=True), [GOOD, LOST], ("b",)),  # the API speaks in its place
        (Host(H, heard_on="a", up=False), [GOOD, LOST], ("b",)),
        (Host(H, heard_on="a"), [replace(GOOD, deaf_from=1.0), LOST], ("a",)),
        (Host(H, heard_on="a"), [Bus("a")], ("a",)),  # configured, and never yet connected
        (Host(H), [], ()),
    ],
)
def test_which_buses_a_host_misses(host: Host, buses: list[Bus], missing: tuple[str, ...]) -> None:
    """A host misses the bus on which its compute is heard; one that is down, or never heard, misses any."""
    assert missing == unheard(host, buses)


def connected(*names: str) -> Story:
    story = Story().closed()
    for name in names:
        story.see(BusSeen(story.now, CLOCK, name, "connected"))
    return story


def proves(story: Story) -> bool:
    """Whether two whole and empty passes, as far apart as they must be, end in host.emptied."""
    said = []
    for _ in range(3):
        said += story.verify()
        story.now += story.policy.settle_s + 1
    return "host.emptied" in [event.TYPE for event in said]


def test_one_bus_that_is_not_connected_proves_nothing() -> None:
    """A start with the broker out of reach must not call a host empty from what was remembered."""
    story = Story().closed()
    story.fleet.put(Bus("default"))

    assert not proves(story)
    held = story.fleet.host(H)
    assert held is not None and held.finding is not None
    assert ["blind"] == [b.kind for b in held.finding.blockers]
    assert "not connected" in (held.finding.blockers[0].detail or "")


def test_of_two_buses_the_other_goes_on() -> None:
    """The host whose compute speaks on the living bus is proven empty while the other bus is gone."""
    story = connected("a", "b")
    story.see(ComputeHeard(story.now, CLOCK, H, "a"), BusSeen(story.now, CLOCK, "b", "lost"))

    assert proves(story)


def test_of_two_buses_the_lost_one_makes_its_hosts_unknown() -> None:
    """The host whose compute speaks on the lost bus is not proven until that bus is healed."""
    story = connected("a", "b")
    story.see(ComputeHeard(story.now, CLOCK, H, "b"), BusSeen(story.now, CLOCK, "b", "lost"))
    assert not proves(story)
    story.now += 10
    story.see(BusSeen(story.now, CLOCK, "b", "connected"))
    assert not proves(story)
    story.now += 10
    story.see(BaselineCompleted(story.now, API, story.now - 1))

    assert proves(story)


def test_a_gap_is_told_with_its_bounds() -> None:
    """bus.blinded says from when, bus.healed says to when, and only a reading begun after the reconnection heals."""
    story = connected("a")
    story.now += 10
    lost_at = story.now
    story.see(BusSeen(lost_at, CLOCK, "a", "lost"))
    story.now += 10
    story.see(BusSeen(story.now, CLOCK, "a", "connected"))
    story.see(BaselineCompleted(story.now + 1, API, story.now - 5))
    assert ["bus.blinded"] == [e.TYPE for e in story.events if e.TYPE.startswith("bus")]
    story.now += 10
    story.see(BaselineCompleted(story.now, API, story.now - 5))

    blinded, healed = (e for e in story.events if isinstance(e, BusBlinded | BusHealed))
    assert (lost_at, lost_at, story.now) == (blinded.blind_from, healed.blind_from, healed.blind_to)


def test_our_own_absence_is_a_gap() -> None:
    """What happened between the last moment somebody watched and the start may have been missed."""
    story = connected("a")
    story.see(Watching(story.now))
    assert story.fleet.knowledge is not None and story.now == story.fleet.knowledge.alive_at
    alive_at, story.now = story.now, story.now + 100
    story.see(BusSeen(story.now, CLOCK, "a", "blind", alive_at, "nobody watched"))

    assert alive_at == story.events[-1].blind_from  # type: ignore[attr-defined]
    assert not proves(story)


def deafened(story: Story, silent_s: float = DEAF_AFTER_S + 60) -> None:
    """The bus is silent for long, and the API shows a server that moved."""
    story.see(BaselineCompleted(story.now, API, story.now))
    there = ServerSeen(story.now, API, "s-1", host="cmp-02", vm_state="active", trusted=True, asked_at=story.now)
    story.see(replace(there, updated_at=story.now - 100))
    story.now += silent_s
    moved = replace(there, seen_at=story.now, asked_at=story.now, host="cmp-03", updated_at=story.now - 60)
    story.see(moved)


def wait(story: Story, seconds: float) -> None:
    until = story.now + seconds
    while (due := story.fleet.take_due(until)) is not None:
        story.see(TimerDue(due[0], subject=due[1]))
    story.now = until


def test_a_bus_that_says_nothing_of_what_the_api_shows_is_deaf() -> None:
    """Connected, silent, and the cloud moves: it is blind from when it was last heard, and reading does not heal it."""
    story = connected("a")
    heard_at = story.now
    deafened(story)
    assert [] == [e for e in story.events if isinstance(e, BusBlinded)]
    wait(story, LATE_S + 1)
    assert [heard_at] == [e.blind_from for e in story.events if isinstance(e, BusBlinded)]
    story.see(BaselineCompleted(story.now, API, story.now))
    assert not proves(story)
    story.see(BusSeen(story.now, CLOCK, "a", "heard"))
    story.now += 1
    story.see(BaselineCompleted(story.now, API, story.now))

    assert [heard_at] == [e.blind_from for e in story.events if isinstance(e, BusHealed)]
    assert proves(story)


@pytest.mark.parametrize("said", [False, True])
def test_a_bus_that_has_never_said_a_word_is_suspected_sooner(said: bool) -> None:
    """A server that moved to a host behind a deaf bus, and was deleted there when that was down, is known to nobody."""
    story = connected("a")
    if said:
        story.fleet.heard_at["a"] = story.now
    deafened(story, NEVER_HEARD_S + 1)
    wait(story, LATE_S + 1)

    assert said == ([] == [e for e in story.events if isinstance(e, BusBlinded)])


def test_a_bus_that_is_only_late_is_not_deaf() -> None:
    """Something said within half a minute of what the API showed is enough."""
    story = connected("a")
    deafened(story)
    story.fleet.heard_at["a"] = story.now + 5
    wait(story, LATE_S + 1)

    assert [] == [e for e in story.events if isinstance(e, BusBlinded)]


def test_a_bus_that_spoke_lately_is_not_suspected() -> None:
    """While a bus says anything at all, what the API shows first is no evidence against it."""
    story = connected("a")
    story.fleet.heard_at["a"] = story.now + DEAF_AFTER_S
    deafened(story)
    wait(story, LATE_S + 1)

    assert [] == [e for e in story.events if isinstance(e, BusBlinded)]


@pytest.mark.parametrize("status", ["error", "done", "accepted"])
def test_what_nova_tells_nobody_is_no_evidence(status: str) -> None:
    """An evacuation's end, a row that only failed, a move that nobody has begun: no compute would have told of them."""
    story = connected("a")
    story.see(BaselineCompleted(story.now, API, story.now))
    story.now += DEAF_AFTER_S + 60
    kind = Kind.EVACUATION if status == "done" else Kind.LIVE
    row = MigrationSeen(story.now, API, "s-9", 7, "uuid-7", kind, status, "cmp-02", "cmp-03", created_at=story.now - 50)
    story.see(row)
    wait(story, LATE_S + 1)

    assert [] == [e for e in story.events if isinstance(e, BusBlinded)]


def test_a_new_connection_makes_no_deaf_bus_hear() -> None:
    """A bus that was found deaf is so after a reconnection too, whatever is read, until it says something."""
    story = connected("a")
    deafened(story)
    wait(story, LATE_S + 1)
    story.see(BusSeen(story.now, CLOCK, "a", "lost"))
    story.now += 5
    story.see(BusSeen(story.now, CLOCK, "a", "connected"))
    story.now += 5
    story.see(BaselineCompleted(story.now, API, story.now - 1))

    assert [] == [e for e in story.events if isinstance(e, BusHealed)]
    assert not proves(story)
